import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.captioner import captioner as captioner_module
from pipeline.captioner import model_folder
from pipeline.captioner.captioner import Caption, Captioner
from pipeline.captioner.decoders.decoder import Decoder, build_decoder
from pipeline.captioner.decoders.openvino import OpenVINODecoder
from pipeline.captioner.generation.ensemble import make_ensemble
from pipeline.captioner.generation.guidance import Guided, with_guidance
from pipeline.captioner.generation.word_guidance import WordGuided, with_word_guidance
from pipeline.captioner.model_config import Member, ModelConfig
from pipeline.errors import InputError
from pipeline.features.decoding.photos import PhotoError
from pipeline.features.decoding.probe import decoding_sha256
from pipeline.features.encoders.engines import KerasEngine, load_engine
from pipeline.features.executors.local import LocalExecutor
from pipeline.features.extractor import Extractor
from pipeline.features.feature_spec import read_encoder_config
from pipeline.features.store import FeatureStore
from pipeline.reporting.predictions import predict
from pipeline.storage import openvino_graphs
from pipeline.text.vocabulary import Vocabulary
from tests.conftest import change_json, copied_artifacts, encoded, slow_imports
from tests.support.artifacts import LEARNED, SETTINGS, SIZE, drawn, write_photos

BATCH = 8
PHOTOS = 14  # two batches; the decoder was not trained on the last two


@pytest.fixture(scope="module")
def captioner(artifacts: Path) -> Captioner:
    return Captioner.load(artifacts, BATCH, "keras")


@pytest.fixture(scope="module")
def pixels(captioner: Captioner) -> list[npt.NDArray[np.uint8]]:
    return [captioner.decode(encoded(drawn(seed), "PNG")) for seed in range(PHOTOS)]


def inner_decoder(captioner: Captioner, kind: type[Any]) -> Any:
    """Return the decoder without word guidance and classifier-free guidance."""
    assert isinstance(captioner.decoder, WordGuided)
    assert isinstance(captioner.decoder.decoder, Guided)
    assert isinstance(captioner.decoder.decoder.decoder, kind)
    return captioner.decoder.decoder.decoder


def extract(folder: Path, artifacts: Path, captioner: Captioner, batch_size: int) -> FeatureStore:
    """Write and open a feature store of the same photos, as stage `extract` does."""
    feature_spec = captioner.model_config.feature_spec
    make_engine = partial(load_engine, "keras", artifacts, feature_spec, batch_size)
    paths = write_photos(folder / "photos", PHOTOS)
    Extractor(
        feature_spec=feature_spec,
        executor=LocalExecutor(make_engine, workers=1, progress_seconds=60),
        cache=folder / "cache",
        max_pixels=10_000,
        max_failed_share=0.0,
    ).extract({path.name: path for path in paths}, folder, folder / "features.h5")
    return FeatureStore.open(folder / "features.h5")


@pytest.fixture(scope="module")
def store(
    artifacts: Path, captioner: Captioner, tmp_path_factory: pytest.TempPathFactory
) -> FeatureStore:
    return extract(tmp_path_factory.mktemp("extracted"), artifacts, captioner, BATCH)


def assert_same(actual: list[list[Caption]], expected: list[list[Caption]]) -> None:
    """Assert equal captions, and log-probabilities that differ only in their last digits."""
    for captions, others in zip(actual, expected, strict=True):
        assert [c.text for c in captions] == [c.text for c in others]
        np.testing.assert_allclose(
            [c.log_probability for c in captions], [c.log_probability for c in others], rtol=1e-3
        )


def test_photos_get_the_captions_that_the_model_was_trained_on(
    captioner: Captioner, pixels: list[npt.NDArray[np.uint8]]
) -> None:
    results = captioner.caption(pixels[:BATCH], 3)
    assert [captions[0].text for captions in results] == LEARNED[:BATCH]


def test_features_are_rounded_as_in_the_store(
    captioner: Captioner,
    pixels: list[npt.NDArray[np.uint8]],
    store: FeatureStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched: list[npt.NDArray[np.float32]] = []

    def spy(_: Any, features: npt.NDArray[np.float32], *__: int, **___: bool) -> list[Any]:
        searched.append(features)
        return [[] for _ in features]

    monkeypatch.setattr(captioner_module, "search", spy)
    captioner.caption(pixels[:BATCH], 3)
    captioner.caption(pixels[BATCH:], 3)
    features = np.concatenate(searched)
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, store.read(store.image_ids))
    # Without rounding to float16 they would differ.
    assert not np.array_equal(
        captioner.engine.encode(np.concatenate(pixels[:BATCH])), features[:BATCH]
    )


@pytest.mark.parametrize("beam_width", [1, 3])
def test_captions_are_those_that_evaluate_writes(
    captioner: Captioner,
    pixels: list[npt.NDArray[np.uint8]],
    store: FeatureStore,
    beam_width: int,
) -> None:
    predictions = predict(
        captioner.decoder,
        store,
        captioner.vocabulary,
        store.image_ids,
        beam_width,
        SETTINGS.max_words,
        no_repeat_ngram_size=3,
    )
    captions = [
        photo_captions[0]
        for start in range(0, PHOTOS, BATCH)
        for photo_captions in captioner.caption(pixels[start : start + BATCH], beam_width)
    ]
    assert [p.caption for p in predictions] == [caption.text for caption in captions]
    np.testing.assert_allclose(
        [p.log_probability for p in predictions],
        [caption.log_probability for caption in captions],
        rtol=1e-4,
    )


def test_other_photos_in_a_batch_do_not_change_a_photos_captions(
    captioner: Captioner, pixels: list[npt.NDArray[np.uint8]]
) -> None:
    batch = captioner.caption(pixels[:BATCH], 3)
    backwards = captioner.caption(pixels[:BATCH][::-1], 3)[::-1]
    alone = [captions for photo in pixels[:BATCH] for captions in captioner.caption([photo], 3)]
    twice = captioner.caption([pixels[0], pixels[0], *pixels[1:4]], 3)
    assert_same(backwards, batch)
    assert_same(alone, batch)
    assert_same(twice, [batch[0], *batch[:4]])


def test_the_batch_size_does_not_change_captions(
    artifacts: Path, captioner: Captioner, pixels: list[npt.NDArray[np.uint8]]
) -> None:
    single = Captioner.load(artifacts, 1, "keras")
    results = [captions for photo in pixels[10:] for captions in single.caption([photo], 3)]
    assert_same(results, captioner.caption(pixels[10:], 3))


def test_captions_differ_and_come_best_first_as_many_as_the_beam_is_wide(
    artifacts: Path, captioner: Captioner, pixels: list[npt.NDArray[np.uint8]]
) -> None:
    without_words = Captioner.load(
        artifacts,
        BATCH,
        "keras",
        word_logit_bias=0.0,
        word_rerank_weight=0.0,
        neighbour_rerank_weight=0.0,
    )
    for width in (1, 2, 5):
        for captions in captioner.caption(pixels[:3], width):
            assert len({c.text for c in captions}) == len(captions) == width
        for captions in without_words.caption(pixels[:3], width):
            # They are ranked by their mean log-probability over the words and <end>.
            means = [c.log_probability / (len(c.text.split()) + 1) for c in captions]
            assert means == sorted(means, reverse=True)
            assert all(c.log_probability < 0 for c in captions)


def test_word_guidance_changes_the_captions_of_photos_not_trained_on(
    artifacts: Path, pixels: list[npt.NDArray[np.uint8]]
) -> None:
    results = set()
    for logit_bias, rerank_weight, neighbour_weight in (
        (SETTINGS.word_logit_bias, SETTINGS.word_rerank_weight, 0.0),
        (0.0, 0.0, 0.0),
        (0.0, 100.0, 0.0),
        (0.0, 0.0, 1.0),
    ):
        captioner = Captioner.load(
            artifacts,
            2,
            "keras",
            word_logit_bias=logit_bias,
            word_rerank_weight=rerank_weight,
            neighbour_rerank_weight=neighbour_weight,
        )
        results_by_photo = captioner.caption(pixels[12:], 20)
        results.add(tuple(c.text for captions in results_by_photo for c in captions[:3]))
    assert len(results) == 4


def test_with_views_and_seeds_captions_are_those_that_evaluate_writes(
    artifacts: Path, captioner: Captioner, tmp_path: Path
) -> None:
    one = inner_decoder(captioner, Decoder)
    other = build_decoder(captioner.model_config.decoder)
    random = np.random.default_rng(1)
    shapes = [weight.shape for weight in other.network.get_weights()]
    other.network.set_weights([random.normal(size=shape) for shape in shapes])
    folder = copied_artifacts(artifacts, tmp_path / "artifacts")
    shutil.rmtree(folder / "model")
    config = captioner.model_config
    mirrored = replace(
        config.feature_spec, views="mirror", decoding_sha256=decoding_sha256("mirror")
    )
    training = config.members[0].metadata
    model_folder.Model.from_decoders(
        {1: (one, training), 2: (other, training)},
        mirrored,
        config.vocabulary_fingerprint,
        config.metadata,
    ).save(folder / "model")
    assert isinstance(captioner.decoder, WordGuided)
    detector, neighbours = captioner.decoder.detector, captioner.decoder.neighbours
    detector.save(folder / "detector.h5", captioner.vocabulary, mirrored)

    both = Captioner.load(folder, BATCH, "keras")
    store = extract(tmp_path, folder, both, BATCH)
    assert store.features.shape[:2] == (PHOTOS, 2)
    image_ids = store.image_ids[6:]
    pixels = [both.decode((tmp_path / "photos" / image_id).read_bytes()) for image_id in image_ids]
    assert {photo.shape for photo in pixels} == {(2, SIZE, SIZE, 3)}
    first = Captioner.load(folder, BATCH, "keras", ensemble=False)
    log_probabilities = []
    for loaded, members in ((both, 2), (first, 1)):
        ensemble = make_ensemble(
            [with_guidance(each, SETTINGS.guidance) for each in (one, other)][:members]
        )
        decoder = with_word_guidance(
            ensemble,
            detector,
            SETTINGS.word_logit_bias,
            SETTINGS.word_rerank_weight,
            neighbours,
            SETTINGS.neighbour_rerank_weight,
        )
        predictions = predict(
            decoder,
            store,
            both.vocabulary,
            image_ids,
            3,
            SETTINGS.max_words,
            no_repeat_ngram_size=3,
        )
        captions = [photo_captions[0] for photo_captions in loaded.caption(pixels, 3)]
        assert [caption.text for caption in captions] == [p.caption for p in predictions]
        log_probabilities.append([caption.log_probability for caption in captions])
        np.testing.assert_allclose(
            log_probabilities[-1], [p.log_probability for p in predictions], rtol=1e-3
        )
    assert not np.allclose(log_probabilities[0], log_probabilities[1], rtol=0.1)


def test_a_photo_is_decoded_to_the_size_that_the_encoder_takes(captioner: Captioner) -> None:
    assert captioner.decode(encoded(drawn(0), "JPEG")).shape == (1, SIZE, SIZE, 3)


def test_a_photo_that_is_too_large_or_damaged_is_refused(
    captioner: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PhotoError, match="a text file: download the photo again"):
        captioner.decode(b"photo")
    monkeypatch.setattr(captioner_module, "MAX_PIXELS", 48 * 40 - 1)
    with pytest.raises(PhotoError, match="48 x 40 pixels, more than max_pixels 1919"):
        captioner.decode(encoded(drawn(0), "PNG"))


@pytest.fixture
def damaged(artifacts: Path, tmp_path: Path) -> Path:
    return copied_artifacts(artifacts, tmp_path / "damaged")


def refused(folder: Path, problem: str, engine: str = "keras") -> None:
    with pytest.raises(InputError, match=problem) as caught:
        Captioner.load(folder, 1, engine)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def grid_of(folder: Path) -> dict[str, str]:
    """Return the fields of a feature spec of the folder's encoder that differ with a grid."""
    graphs = read_encoder_config(folder / "encoder.json").graphs_sha256
    return {"pooling": "grid", "graph_sha256": graphs["grid"][0]}


def test_another_vocabulary_is_refused(damaged: Path) -> None:
    path = damaged / "vocabulary.json"
    vocabulary = Vocabulary.load(path)
    path.unlink()
    replace(vocabulary, words=vocabulary.words[::-1]).save(path)
    refused(damaged, r"model\.json was trained with another vocabulary: run `dvc repro train`")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"pooling": "grid"}, r"model\.json is damaged \(pooling 'grid' .*: run `dvc repro train`"),
        ({"dtype": "object"}, r"model\.json is damaged .*: run `dvc repro train`"),
        ({"preprocessing": "other"}, r"do not belong together \(other preprocessing\)"),
        ({"encoder": "Xception", "input_size": 299}, r"\(other encoder, input_size\)"),
    ],
)
def test_a_model_trained_on_other_features_is_refused(
    damaged: Path, values: dict[str, Any], problem: str
) -> None:
    if values == {"pooling": "grid"}:
        values = grid_of(damaged)
    change_json(damaged / "model" / "model.json", {"feature_spec": values})
    refused(damaged, problem)


def test_an_engine_that_is_not_installed_is_reported(
    artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InputError, match="is not installed"):
        Captioner.load(artifacts, 1, "openvino")


@pytest.mark.parametrize("beam_width", [1, 3])
def test_openvino_gives_the_same_captions_as_keras(
    converted: Path,
    captioner: Captioner,
    pixels: list[npt.NDArray[np.uint8]],
    beam_width: int,
) -> None:
    other = Captioner.load(converted, BATCH, "openvino")
    inner_decoder(other, OpenVINODecoder)
    inner_decoder(captioner, Decoder)
    assert isinstance(captioner.engine, KerasEngine)
    for images in (pixels[:BATCH], pixels[BATCH:], pixels[:1]):
        assert_same(other.caption(images, beam_width), captioner.caption(images, beam_width))


def test_all_graphs_are_converted_from_a_decoder_that_is_loaded_once(
    converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[Path] = []
    load = model_folder.load_member

    def count(folder: Path, config: ModelConfig, member: Member) -> Decoder:
        loads.append(folder)
        return load(folder, config, member)

    monkeypatch.setattr(model_folder, "load_member", count)
    folder = copied_artifacts(converted, tmp_path / "artifacts", with_graphs=True)
    assert len(list((folder / openvino_graphs.FOLDER).iterdir())) == 15
    decoders = list((folder / openvino_graphs.FOLDER).glob("decoder_*"))
    assert len(decoders) == 12
    for path in decoders:
        path.unlink()
    for _ in range(2):
        Captioner.load(folder, 1, "openvino")
    assert loads == [folder / "model"]


def test_with_converted_graphs_a_photo_is_captioned_without_keras(
    converted: Path, tmp_path: Path
) -> None:
    write_photos(tmp_path, 3)
    code = (
        "from pathlib import Path\n"
        "from pipeline.captioner.captioner import Captioner\n"
        f"captioner = Captioner.load(Path({str(converted)!r}), 1, 'openvino')\n"
        f"pixels = captioner.decode(Path({str(tmp_path / '02.png')!r}).read_bytes())\n"
        "print(captioner.caption([pixels], 3)[0][0].text)"
    )
    assert slow_imports(code) == (LEARNED[2], ["PIL", "numpy", "openvino"])


def test_an_unknown_decoder_is_refused_on_openvino_too(converted: Path, tmp_path: Path) -> None:
    folder = copied_artifacts(converted, tmp_path / "damaged", with_graphs=True)
    change_json(folder / "model" / "model.json", {"decoder": {"name": "inject"}})
    refused(folder, "names an unknown decoder 'inject': run `dvc repro train`", "openvino")


def test_other_weights_of_the_decoder_are_refused_on_openvino_too(
    converted: Path, tmp_path: Path
) -> None:
    folder = copied_artifacts(converted, tmp_path / "damaged", with_graphs=True)
    change_json(
        folder / "model" / "model.json",
        {"members": [{"seed": 2026, "weights_sha256": "0" * 64, "metadata": {}}]},
    )
    refused(
        folder, r"seed_2026\.weights\.h5 has other weights .*: run `dvc repro train`", "openvino"
    )


def test_a_grid_of_another_shape_is_refused_on_openvino_too(
    converted: Path, tmp_path: Path
) -> None:
    folder = copied_artifacts(converted, tmp_path / "damaged", with_graphs=True)
    change_json(folder / "model" / "model.json", {"feature_spec": grid_of(folder)})
    refused(folder, r"model\.json is damaged \(pooling 'grid' .*: run `dvc repro tr", "openvino")
