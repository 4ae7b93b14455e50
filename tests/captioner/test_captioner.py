import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.captioner import captioner as captioning
from pipeline.captioner import model_folder as model
from pipeline.captioner.captioner import Caption, Captioner
from pipeline.captioner.decoders.decoder import Decoder, build_decoder
from pipeline.captioner.decoders.openvino import OpenVINODecoder
from pipeline.captioner.generation.ensemble import make_ensemble
from pipeline.captioner.generation.guidance import Guided, with_guidance
from pipeline.captioner.generation.word_guidance import WordGuided, with_word_guidance
from pipeline.captioner.model_config import Member, ModelConfig
from pipeline.errors import InputError
from pipeline.features.encoders.engines import KerasEngine, load_engine
from pipeline.features.executors.local import LocalExecutor
from pipeline.features.extractor import Extractor
from pipeline.features.photos import PhotoError
from pipeline.features.store import FeatureStore
from pipeline.reporting.predictions import predict
from pipeline.storage import openvino_graphs
from pipeline.text.vocabulary import Vocabulary
from tests.conftest import change_json, copied_artifacts, encoded, slow_imports
from tests.support.artifacts import LEARNED, SETTINGS, SIZE, drawn, write_photos

BATCH = 8
PHOTOS = 14  # of two batches; the decoder was not told of the last two


@pytest.fixture(scope="module")
def captioner(artifacts: Path) -> Captioner:
    return Captioner.load(artifacts, BATCH, "keras")


@pytest.fixture(scope="module")
def pixels(captioner: Captioner) -> list[npt.NDArray[np.uint8]]:
    return [captioner.decode(encoded(drawn(seed), "PNG")) for seed in range(PHOTOS)]


def inside(captioner: Captioner, kind: type[Any]) -> Any:
    """Return the decoder that is informed and guided."""
    assert isinstance(captioner.decoder, WordGuided)
    assert isinstance(captioner.decoder.decoder, Guided)
    assert isinstance(captioner.decoder.decoder.decoder, kind)
    return captioner.decoder.decoder.decoder


def extract(folder: Path, artifacts: Path, captioner: Captioner, batch_size: int) -> FeatureStore:
    """Write and open a feature store of the same photos, as stage `extract` does."""

    encoding = captioner.model.encoding
    make_engine = partial(load_engine, "keras", artifacts, encoding, batch_size)
    paths = write_photos(folder / "photos", PHOTOS)
    Extractor(
        encoding=encoding,
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


def assert_alike(found: list[list[Caption]], expected: list[list[Caption]]) -> None:
    """Assert the same captions, and log probabilities as near as another batch brings them."""
    for some, others in zip(found, expected, strict=True):
        assert [c.caption for c in some] == [c.caption for c in others]
        np.testing.assert_allclose(
            [c.log_probability for c in some], [c.log_probability for c in others], rtol=1e-3
        )


def test_photos_get_the_captions_that_the_model_learned(
    captioner: Captioner, pixels: list[npt.NDArray[np.uint8]]
) -> None:
    found = captioner.caption(pixels[:BATCH], 3)
    assert [captions[0].caption for captions in found] == LEARNED[:BATCH]


def test_features_are_those_of_the_store_rounding_included(
    captioner: Captioner,
    pixels: list[npt.NDArray[np.uint8]],
    store: FeatureStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[npt.NDArray[np.float32]] = []

    def spy(_: Any, features: npt.NDArray[np.float32], *__: int, **___: bool) -> list[Any]:
        given.append(features)
        return [[] for _ in features]

    monkeypatch.setattr(captioning, "search", spy)
    captioner.caption(pixels[:BATCH], 3)
    captioner.caption(pixels[BATCH:], 3)
    features = np.concatenate(given)
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, store.read(store.image_ids))
    # Rounding to float16 changes them, so that without it they would not be equal.
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
    found = [
        captions[0]
        for start in range(0, PHOTOS, BATCH)
        for captions in captioner.caption(pixels[start : start + BATCH], beam_width)
    ]
    assert [p.caption for p in predictions] == [caption.caption for caption in found]
    np.testing.assert_allclose(
        [p.log_probability for p in predictions],
        [caption.log_probability for caption in found],
        rtol=1e-4,
    )


def test_the_company_that_a_photo_is_in_does_not_change_its_captions(
    captioner: Captioner, pixels: list[npt.NDArray[np.uint8]]
) -> None:
    make_ensemble = captioner.caption(pixels[:BATCH], 3)
    backwards = captioner.caption(pixels[:BATCH][::-1], 3)[::-1]
    alone = [captions for photo in pixels[:BATCH] for captions in captioner.caption([photo], 3)]
    twice = captioner.caption([pixels[0], pixels[0], *pixels[1:4]], 3)
    assert_alike(backwards, make_ensemble)
    assert_alike(alone, make_ensemble)
    assert_alike(twice, [make_ensemble[0], *make_ensemble[:4]])


def test_the_batch_size_does_not_change_captions(
    artifacts: Path, captioner: Captioner, pixels: list[npt.NDArray[np.uint8]]
) -> None:
    single = Captioner.load(artifacts, 1, "keras")
    found = [captions for photo in pixels[10:] for captions in single.caption([photo], 3)]
    assert_alike(found, captioner.caption(pixels[10:], 3))


def test_captions_are_different_ones_best_first_and_no_more_than_the_beam_is_wide(
    artifacts: Path, captioner: Captioner, pixels: list[npt.NDArray[np.uint8]]
) -> None:
    deaf = Captioner.load(artifacts, BATCH, "keras", word_logit_bias=0.0, word_rerank_weight=0.0)
    for width in (1, 2, 5):
        for captions in captioner.caption(pixels[:3], width):
            assert len({c.caption for c in captions}) == len(captions) == width
        for captions in deaf.caption(pixels[:3], width):
            # They are ranked by the mean over their words and the end.
            means = [c.log_probability / (len(c.caption.split()) + 1) for c in captions]
            assert means == sorted(means, reverse=True)
            assert all(c.log_probability < 0 for c in captions)


def test_detected_words_change_what_is_said_of_photos_that_nobody_learned(
    artifacts: Path, pixels: list[npt.NDArray[np.uint8]]
) -> None:
    said = set()
    for bias, agreement in (
        (SETTINGS.word_logit_bias, SETTINGS.word_rerank_weight),
        (0.0, 0.0),
        (0.0, 100.0),
    ):
        asked = Captioner.load(
            artifacts, 2, "keras", word_logit_bias=bias, word_rerank_weight=agreement
        )
        found = asked.caption(pixels[12:], 20)
        said.add(tuple(c.caption for captions in found for c in captions[:3]))
    assert len(said) == 3


def test_with_views_and_seeds_captions_are_those_that_evaluate_writes(
    artifacts: Path, captioner: Captioner, tmp_path: Path
) -> None:
    one = inside(captioner, Decoder)
    other = build_decoder(captioner.model.config)
    random = np.random.default_rng(1)
    shapes = [weight.shape for weight in other.network.get_weights()]
    other.network.set_weights([random.normal(size=shape) for shape in shapes])
    folder = copied_artifacts(artifacts, tmp_path / "artifacts")
    shutil.rmtree(folder / "model")
    described = captioner.model
    mirrored = replace(described.encoding, views="mirror")
    how = described.members[0].metadata
    model.Model.of(
        {1: (one, how), 2: (other, how)},
        mirrored,
        described.vocabulary,
        described.metadata,
    ).save(folder / "model")
    assert isinstance(captioner.decoder, WordGuided)
    detector = captioner.decoder.detector
    detector.save(folder / "detector.h5", captioner.vocabulary, mirrored)

    both = Captioner.load(folder, BATCH, "keras")
    store = extract(tmp_path, folder, both, BATCH)
    assert store.features.shape[:2] == (PHOTOS, 2)
    asked = store.image_ids[6:]
    pixels = [both.decode((tmp_path / "photos" / image_id).read_bytes()) for image_id in asked]
    assert {photo.shape for photo in pixels} == {(2, SIZE, SIZE, 3)}
    alone = Captioner.load(folder, BATCH, "keras", ensemble=False)
    said = []
    for loaded, members in ((both, 2), (alone, 1)):
        guides = make_ensemble(
            [with_guidance(each, SETTINGS.guidance) for each in (one, other)][:members]
        )
        decoder = with_word_guidance(
            guides, detector, SETTINGS.word_logit_bias, SETTINGS.word_rerank_weight
        )
        predictions = predict(
            decoder, store, both.vocabulary, asked, 3, SETTINGS.max_words, no_repeat_ngram_size=3
        )
        found = [captions[0] for captions in loaded.caption(pixels, 3)]
        assert [caption.caption for caption in found] == [p.caption for p in predictions]
        said.append([caption.log_probability for caption in found])
        np.testing.assert_allclose(said[-1], [p.log_probability for p in predictions], rtol=1e-3)
    assert not np.allclose(said[0], said[1], rtol=0.1)


def test_a_photo_is_decoded_to_the_encoder_s_pixels(captioner: Captioner) -> None:
    assert captioner.decode(encoded(drawn(0), "JPEG")).shape == (1, SIZE, SIZE, 3)


def test_a_photo_too_large_or_damaged_is_refused(
    captioner: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PhotoError, match="not a JPEG, PNG or WebP image"):
        captioner.decode(b"photo")
    monkeypatch.setattr(captioning, "MAX_PIXELS", 48 * 40 - 1)
    with pytest.raises(PhotoError, match="48 x 40 pixels, more than max_pixels 1919"):
        captioner.decode(encoded(drawn(0), "PNG"))


@pytest.fixture
def spoilt(artifacts: Path, tmp_path: Path) -> Path:
    return copied_artifacts(artifacts, tmp_path / "spoilt")


def refused(folder: Path, problem: str, engine: str = "keras") -> None:
    with pytest.raises(InputError, match=problem) as caught:
        Captioner.load(folder, 1, engine)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_vocabulary_is_refused(spoilt: Path) -> None:
    path = spoilt / "vocabulary.json"
    vocabulary = Vocabulary.load(path)
    path.unlink()
    replace(vocabulary, words=vocabulary.words[::-1]).save(path)
    refused(spoilt, r"model\.json was trained with another vocabulary: run `dvc repro train`")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"pooling": "grid"}, r"model\.json is damaged \(pooling 'grid' .*: run `dvc repro train`"),
        ({"dtype": "object"}, r"model\.json is damaged .*: run `dvc repro train`"),
        ({"preprocessing": "other"}, r"do not belong together \(other preprocessing\)"),
        ({"encoder": "Xception", "input_size": 299}, r"\(other encoder, input_size\)"),
    ],
)
def test_a_model_that_tells_of_other_features_is_refused(
    spoilt: Path, values: dict[str, Any], problem: str
) -> None:
    change_json(spoilt / "model" / "model.json", {"encoding": values})
    refused(spoilt, problem)


def test_an_engine_that_is_not_installed_is_said(
    artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InputError, match="is not installed"):
        Captioner.load(artifacts, 1, "openvino")


@pytest.mark.parametrize("beam_width", [1, 3])
def test_openvino_says_what_keras_says(
    converted: Path,
    captioner: Captioner,
    pixels: list[npt.NDArray[np.uint8]],
    beam_width: int,
) -> None:
    other = Captioner.load(converted, BATCH, "openvino")
    inside(other, OpenVINODecoder)
    inside(captioner, Decoder)
    assert isinstance(captioner.engine, KerasEngine)
    for part in (pixels[:BATCH], pixels[BATCH:], pixels[:1]):
        found = other.caption(part, beam_width)
        assert_alike(found, captioner.caption(part, beam_width))


def test_a_decoder_is_converted_from_one_model_loaded_once(
    converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[Path] = []
    load = model.load_member

    def count(folder: Path, description: ModelConfig, member: Member) -> Decoder:
        loads.append(folder)
        return load(folder, description, member)

    monkeypatch.setattr(model, "load_member", count)
    folder = copied_artifacts(converted, tmp_path / "artifacts", with_graphs=True)
    assert len(list((folder / openvino_graphs.FOLDER).iterdir())) == 12
    decoders = list((folder / openvino_graphs.FOLDER).glob("decoder_*"))
    assert len(decoders) == 9
    for path in decoders:
        path.unlink()
    for _ in range(2):
        Captioner.load(folder, 1, "openvino")
    assert loads == [folder / "model"]


def test_with_its_graphs_a_photo_is_captioned_without_keras(
    converted: Path, tmp_path: Path
) -> None:
    write_photos(tmp_path, 3)
    code = (
        "from pathlib import Path\n"
        "from pipeline.captioner.captioner import Captioner\n"
        f"captioner = Captioner.load(Path({str(converted)!r}), 1, 'openvino')\n"
        f"pixels = captioner.decode(Path({str(tmp_path / '02.png')!r}).read_bytes())\n"
        "print(captioner.caption([pixels], 3)[0][0].caption)"
    )
    assert slow_imports(code) == (LEARNED[2], ["PIL", "numpy", "openvino"])


def test_an_unknown_decoder_is_refused_on_openvino_too(converted: Path, tmp_path: Path) -> None:
    folder = copied_artifacts(converted, tmp_path / "spoilt", with_graphs=True)
    change_json(folder / "model" / "model.json", {"decoder": {"name": "inject"}})
    refused(folder, "names an unknown decoder 'inject': run `dvc repro train`", "openvino")


def test_other_weights_of_the_decoder_are_refused_on_openvino_too(
    converted: Path, tmp_path: Path
) -> None:
    folder = copied_artifacts(converted, tmp_path / "spoilt", with_graphs=True)
    change_json(
        folder / "model" / "model.json",
        {"members": [{"seed": 2026, "weights_sha256": "0" * 64, "metadata": {}}]},
    )
    refused(folder, r"seed_2026\.weights\.h5 is not what .*: run `dvc repro train`", "openvino")


def test_a_grid_of_another_shape_is_refused_on_openvino_too(
    converted: Path, tmp_path: Path
) -> None:
    folder = copied_artifacts(converted, tmp_path / "spoilt", with_graphs=True)
    change_json(folder / "model" / "model.json", {"encoding": {"pooling": "grid"}})
    refused(folder, r"model\.json is damaged \(pooling 'grid' .*: run `dvc repro tr", "openvino")
