import random
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.captioner.generation import beam_search
from pipeline.captioner.generation.attention_maps import compute_attention_maps
from pipeline.captioner.generation.beam_search import search
from pipeline.features.store import FeatureStore
from pipeline.reporting.predictions import (
    SCHEMA,
    Prediction,
    predict,
    search_name,
    write_predictions,
)
from pipeline.text.vocabulary import END
from tests.support.captioner import (
    PHOTOS,
    add_to_logit,
    log_probability,
    make_peaked_decoder,
    make_store,
    make_vocabulary,
)

PREDICTIONS = [
    Prediction("1.jpg", "greedy", "a dog", -1.25, finished=True),
    Prediction("1.jpg", "beam_3", "a dog", -0.1234567890123456, True, [[0, 7, 255], [9, 255, 1]]),
    Prediction("über 犬.png", "greedy", 'a "quoted",\ncaption <b>', -7.0, finished=False),
    Prediction("a/0.webp", "greedy", "", -1e-9, finished=True, maps=[]),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return make_store(tmp_path_factory.mktemp("store") / "features.h5")


def test_predictions_are_read_back_sorted_by_photo_and_search(tmp_path: Path) -> None:
    path = tmp_path / "new" / "predictions.parquet"
    write_predictions(path, PREDICTIONS)
    rows = [Prediction(**row) for row in pq.read_table(path).to_pylist()]
    assert rows == [PREDICTIONS[1], PREDICTIONS[0], PREDICTIONS[3], PREDICTIONS[2]]
    assert list(path.parent.iterdir()) == [path]


def test_the_file_has_the_schema_and_no_metadata_about_its_writer(tmp_path: Path) -> None:
    path = tmp_path / "predictions.parquet"
    write_predictions(path, PREDICTIONS)
    schema = pq.read_schema(path)
    assert schema.equals(SCHEMA, check_metadata=True)
    assert schema.names == list(asdict(PREDICTIONS[0]))
    assert [field.type for field in schema] == [
        *[pa.string()] * 3,
        pa.float64(),
        pa.bool_(),
        SCHEMA.field("maps").type,
    ]
    assert schema.field("maps").type.value_type.value_type == pa.uint8()
    assert [field.name for field in schema if field.nullable] == ["maps"]


def test_equal_predictions_give_equal_bytes_in_any_order(tmp_path: Path) -> None:
    contents = set()
    for seed in range(4):
        shuffled = random.Random(seed).sample(PREDICTIONS, len(PREDICTIONS))
        write_predictions(tmp_path / f"{seed}.parquet", shuffled)
        contents.add((tmp_path / f"{seed}.parquet").read_bytes())
    assert len(contents) == 1
    other = replace(PREDICTIONS[0], log_probability=-1.2500000000000002)
    write_predictions(tmp_path / "other.parquet", [other, *PREDICTIONS[1:]])
    assert (tmp_path / "other.parquet").read_bytes() not in contents


def test_a_failed_write_leaves_the_existing_file(tmp_path: Path) -> None:
    path = tmp_path / "predictions.parquet"
    write_predictions(path, PREDICTIONS)
    original = path.read_bytes()
    with pytest.raises(pa.ArrowInvalid):
        write_predictions(path, [replace(PREDICTIONS[0], log_probability="likely")])  # type: ignore[arg-type]
    with pytest.raises(pa.ArrowInvalid, match="256"):
        write_predictions(path, [replace(PREDICTIONS[0], maps=[[256]])])
    assert path.read_bytes() == original
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("width", "name"), [(1, "greedy"), (2, "beam_2"), (3, "beam_3")])
def test_every_search_has_its_name(store: FeatureStore, width: int, name: str) -> None:
    assert search_name(width) == name
    predictions = predict(make_peaked_decoder(), store, make_vocabulary(), PHOTOS[:2], width, 5)
    assert [p.search for p in predictions] == [name] * 2


@pytest.mark.parametrize("part", [2, 256], ids=["in parts", "at once"])
def test_there_is_one_prediction_per_photo_in_the_order_of_the_ids(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    monkeypatch.setattr("pipeline.features.store._CHUNK", part)
    decoder, vocabulary = make_peaked_decoder(), make_vocabulary()
    image_ids = ["5.jpg", "0.jpg", "7.jpg", "2.jpg", "3.jpg"]
    predictions = predict(decoder, store, vocabulary, image_ids, 3, 6)
    assert [p.image_id for p in predictions] == image_ids
    one_by_one = [p for i in image_ids for p in predict(decoder, store, vocabulary, [i], 3, 6)]
    assert [p.caption for p in predictions] == [p.caption for p in one_by_one]
    # If all captions were equal, their order would not matter.
    assert len({p.caption for p in predictions}) > 1


def test_every_batch_of_a_search_advances_the_progress(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.progress._SECONDS", 0.0)
    monkeypatch.setattr(beam_search, "ROWS_PER_STEP", 9)  # photos with 3 hypotheses each
    predict(make_peaked_decoder(), store, make_vocabulary(), PHOTOS, 3, 6)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" photos")[0] for line in lines] == [
        *("beam_3: 3 of 8", "beam_3: 6 of 8", "beam_3: 8 of 8")
    ]


def test_a_prediction_is_the_best_hypothesis_in_words(store: FeatureStore) -> None:
    decoder, vocabulary = make_peaked_decoder(), make_vocabulary()
    predictions = predict(decoder, store, vocabulary, PHOTOS, 3, 6)
    hypotheses = search(decoder, store.read(PHOTOS), 3, 6)
    for prediction, (best, *_) in zip(predictions, hypotheses, strict=True):
        assert prediction.caption.split() == [vocabulary.words[i - 4] for i in best.ids]
        assert (prediction.log_probability, prediction.finished) == (
            best.log_probability,
            best.finished,
        )
        ids = vocabulary.encode(prediction.caption)
        (features,) = store.read([prediction.image_id])
        assert prediction.log_probability == pytest.approx(
            log_probability(decoder, features, ids), abs=1e-4
        )


def test_captions_end_at_the_word_limit(store: FeatureStore) -> None:
    predictions = predict(make_peaked_decoder(), store, make_vocabulary(), PHOTOS, 1, 2)
    assert all(len(p.caption.split()) == 2 for p in predictions if not p.finished)
    assert all(len(p.caption.split()) <= 2 for p in predictions)
    assert not all(p.finished for p in predictions)


def test_each_word_of_a_decoder_with_attention_has_its_map(tmp_path: Path) -> None:
    store = make_store(tmp_path / "features.h5", shape=(4, 6))
    decoder, vocabulary = (
        make_peaked_decoder(feature_shape=(4, 6), name="attention"),
        make_vocabulary(),
    )
    add_to_logit(decoder, END, 5.0)  # captions of several lengths
    predictions = predict(decoder, store, vocabulary, PHOTOS, 3, 6)
    expected = compute_attention_maps(
        decoder, store.read(PHOTOS), [vocabulary.encode(p.caption) for p in predictions]
    )
    assert len({len(p.caption.split()) for p in predictions}) > 1
    for prediction, maps in zip(predictions, expected, strict=True):
        assert maps is not None
        assert prediction.maps == maps.tolist()
        assert len(maps) == len(prediction.caption.split())
    write_predictions(tmp_path / "predictions.parquet", predictions)
    rows = pq.read_table(tmp_path / "predictions.parquet").to_pylist()
    assert [Prediction(**row) for row in rows] == predictions


def test_a_decoder_without_attention_has_no_maps(store: FeatureStore) -> None:
    predictions = predict(make_peaked_decoder(), store, make_vocabulary(), PHOTOS, 1, 6)
    assert [p.maps for p in predictions] == [None] * len(PHOTOS)
