import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pipeline.backend import keras
from pipeline.captioner.model_folder import Model
from pipeline.errors import InputError
from pipeline.storage import keras_weights
from pipeline.storage.keras_weights import digest
from pipeline.text.vocabulary import START, Vocabulary
from tests.conftest import FEATURE_SPEC, change_json
from tests.support.captioner import make_peaked_decoder, make_vocabulary, sequence_logits, vectors

IDS = [[START, 4, 5]] * 3


def make_model(seed: int = 1, shape: tuple[int, ...] = (6,)) -> Model:
    training = {"epochs": 3, "best": {"validation_loss": 1.5}}
    decoder = make_peaked_decoder(feature_shape=shape, seed=seed)
    trained = {5: (decoder, training)}
    return Model.from_decoders(
        trained, FEATURE_SPEC, make_vocabulary().fingerprint, {"captions": "these"}
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    make_model().save(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """Copy a saved model, to damage it."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def refused(folder: Path, problem: str, vocabulary: Vocabulary | None = None) -> None:
    with pytest.raises(InputError, match=rf"{problem}.*: run `dvc repro train`") as error:
        Model.load(folder, vocabulary or make_vocabulary())
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(6,), (4, 6)], ids=["pooled", "grid"])
def test_a_model_loads_as_it_was_saved(tmp_path: Path, shape: tuple[int, ...]) -> None:
    model = make_model(shape=shape)
    model.save(tmp_path)
    loaded = Model.load(tmp_path, make_vocabulary())
    assert loaded.config == model.config
    features = vectors(shape, 3)
    np.testing.assert_array_equal(
        sequence_logits(loaded.decoders[0], features, IDS),
        sequence_logits(model.decoders[0], features, IDS),
    )


def test_the_config_describes_the_decoders() -> None:
    model = make_model()
    config = model.config
    assert config.decoder == model.decoders[0].config
    assert config.feature_spec == FEATURE_SPEC
    assert config.vocabulary_fingerprint == make_vocabulary().fingerprint
    assert config.metadata == {"captions": "these"}
    (member,) = config.members
    assert member.seed == 5
    assert member.metadata["epochs"] == 3
    assert member.weights_sha256 == digest(model.decoders[0].network)
    assert member.weights_sha256 != make_model(seed=2).config.members[0].weights_sha256


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_equal_models_give_equal_bytes(tmp_path: Path) -> None:
    make_model().save(tmp_path / "1")
    make_model().save(tmp_path / "2")
    Model.load(tmp_path / "1", make_vocabulary()).save(tmp_path / "3")
    assert sorted(contents(tmp_path / "1")) == ["model.json", "seed_5.weights.h5"]
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(tmp_path / "3")


def test_a_model_in_training_is_saved_without_its_optimizer(tmp_path: Path, saved: Path) -> None:
    model = make_model()
    network = model.decoders[0].network
    network.compile(optimizer=keras.optimizers.Adam())
    network.optimizer.build(network.trainable_variables)
    model.save(tmp_path)
    assert contents(tmp_path) == contents(saved)


def test_another_vocabulary_is_refused(folder: Path) -> None:
    words = make_vocabulary().words[::-1]
    other = Vocabulary(words, make_vocabulary().counts, 0, "captions")
    refused(folder, r"model\.json was trained with another vocabulary", other)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"decoder": {"name": "inject"}}, "unknown decoder 'inject'"),
        ({"decoder": {"name": ["merge"]}}, "damaged|unknown decoder"),
        ({"decoder": {"units": "eight"}}, "damaged"),
        ({"decoder": {"units": 0}}, "damaged"),
        ({"decoder": {"units": None}}, "damaged"),
        ({"decoder": {"embedding_size": -1}}, "damaged"),
        ({"decoder": {"dropout": 7}}, "damaged"),
        ({"decoder": {"dropout": "half"}}, "damaged"),
        ({"decoder": {"feature_shape": "six"}}, "damaged"),
        ({"decoder": {"feature_shape": []}}, "damaged"),
        ({"decoder": {"feature_shape": [2, 2, 6]}}, "damaged"),
        (
            {"members": [{"seed": 5, "weights_sha256": "0" * 64, "metadata": {}}]},
            r"seed_5\.weights\.h5 has other weights than .*model\.json records",
        ),
    ],
)
def test_invalid_values_in_model_json_are_refused(
    folder: Path, values: dict[str, Any], problem: str
) -> None:
    change_json(folder / "model.json", values)
    refused(folder, problem)


@pytest.mark.parametrize("name", ["model.json", "seed_5.weights.h5"])
def test_a_missing_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    refused(folder, rf"{name} is not there")


def test_the_weights_of_another_model_are_refused(folder: Path, tmp_path: Path) -> None:
    make_model(seed=2).save(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "seed_5.weights.h5", folder)
    refused(folder, r"seed_5\.weights\.h5 has other weights than .*model\.json records")


def test_the_weights_of_a_model_with_another_shape_are_refused(
    folder: Path, tmp_path: Path
) -> None:
    make_model(shape=(7,)).save(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "seed_5.weights.h5", folder)
    refused(folder, r"seed_5\.weights\.h5 (does not fit|has other weights than)")


def test_damaged_weights_are_refused(folder: Path) -> None:
    path = folder / "seed_5.weights.h5"
    path.write_bytes(path.read_bytes()[:1000])
    refused(folder, r"seed_5\.weights\.h5 is not a readable HDF5 file")


def test_weights_linked_from_another_file_are_refused(folder: Path) -> None:
    path = folder / "seed_5.weights.h5"
    with h5py.File(path, "r+") as file:
        del file["layers/embedding"]
        file["layers/embedding"] = h5py.ExternalLink("other.h5", "/embedding")
    refused(folder, r"seed_5\.weights\.h5: /layers/embedding is a link")


def test_weights_without_a_layer_are_refused(folder: Path) -> None:
    with h5py.File(folder / "seed_5.weights.h5", "r+") as file:
        del file["layers/embedding"]
    refused(folder, r"seed_5\.weights\.h5 (does not fit|has other weights than)")


def forge(folder: Path, change: Any) -> None:
    """Change the weights, and the digest in model.json with them."""
    decoder = Model.load(folder, make_vocabulary()).decoders[0]
    arrays = decoder.network.get_weights()
    change(arrays)
    decoder.network.set_weights(arrays)
    (folder / "seed_5.weights.h5").unlink()
    keras_weights.save(decoder.network, folder / "seed_5.weights.h5")
    member = {"seed": 5, "weights_sha256": digest(decoder.network), "metadata": {}}
    change_json(folder / "model.json", {"members": [member]})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_refused_though_their_digest_fits(
    folder: Path, value: float
) -> None:
    forge(folder, lambda arrays: arrays[0].__setitem__(0, arrays[0][0] * 2))
    Model.load(folder, make_vocabulary())
    forge(folder, lambda arrays: arrays[0].__setitem__(0, value))
    refused(folder, r"seed_5\.weights\.h5: \S+ has NaN or infinite numbers")


@pytest.mark.parametrize("name", ["units", "embedding_size"])
def test_sizes_that_the_weights_do_not_have_are_refused_before_memory_is_taken(
    folder: Path, name: str
) -> None:
    change_json(folder / "model.json", {"decoder": {name: 10**9}})
    refused(folder, r"model\.json describes a larger decoder than .*seed_5\.weights\.h5 has")


def odd_float(file: Any, name: str) -> None:
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_ebias(1 << 30)  # its numbers are too large for any type of NumPy
    h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple((2,)))


def variable_length_attribute(file: Any, name: str) -> None:
    file[name] = np.zeros(2, "f4")
    file[name].attrs["dtype"] = "bfloat16"


def bomb(file: Any, name: str) -> None:
    file.create_dataset(name, (1 << 40,), "f4", chunks=(1 << 20,), compression="gzip")


@pytest.mark.parametrize(
    ("create", "problem"),
    [
        (odd_float, "does not hold numbers"),
        (variable_length_attribute, "has an attribute dtype"),
        (bomb, "has the shape .*, larger than any weights"),
        (lambda file, name: file.__setitem__(name, "text"), "holds object, not numbers"),
    ],
)
def test_arrays_that_cannot_be_weights_are_refused_before_they_are_read(
    folder: Path, create: Any, problem: str
) -> None:
    with h5py.File(folder / "seed_5.weights.h5", "r+") as file:
        create(file, "another")
    refused(folder, rf"seed_5\.weights\.h5: /another {problem}")
