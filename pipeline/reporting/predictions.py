"""Predictions: the test split's captions by every search, as a Parquet table."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.captioner.generation.attention_maps import compute_attention_maps
from pipeline.captioner.generation.beam_search import search
from pipeline.captioner.generation.interfaces import StepDecoder
from pipeline.features.store import FeatureStore
from pipeline.files import atomic_path
from pipeline.text.vocabulary import Vocabulary


def _list_of(kind: pa.DataType) -> pa.DataType:
    """Return the type of a list as Parquet itself names its elements, none of them null."""
    return pa.list_(pa.field("element", kind, nullable=False))


SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("search", pa.string(), nullable=False),
        pa.field("caption", pa.string(), nullable=False),
        pa.field("log_probability", pa.float64(), nullable=False),
        pa.field("finished", pa.bool_(), nullable=False),
        pa.field("maps", _list_of(_list_of(pa.uint8()))),
    ]
)


@dataclass(frozen=True)
class Prediction:
    """One photo's best caption by one search.

    Attributes:
        image_id: the photo.
        search: see `search_name`.
        caption: its words, joined by spaces.
        log_probability: natural logarithm of what the model gives it.
        finished: whether the model ended it, rather than the limit of words.
        maps: for each word where the decoder looked: each of its places, row by row,
            from 0 to 255, which the place that counted most has; None where it does not
            look at places.
    """

    image_id: str
    search: str
    caption: str
    log_probability: float
    finished: bool
    maps: Sequence[Sequence[int]] | None = None


def search_name(beam_width: int) -> str:
    """Return the name of a search in metrics, predictions and reports: "greedy", "beam_3"."""
    return "greedy" if beam_width == 1 else f"beam_{beam_width}"


def predict(
    decoder: StepDecoder,
    store: FeatureStore,
    vocabulary: Vocabulary,
    image_ids: Sequence[str],
    beam_width: int,
    max_words: int,
    *,
    no_repeat_ngram_size: int = 0,
) -> list[Prediction]:
    """Caption photos from their cached features, in the order of `image_ids`."""
    predictions: list[Prediction] = []
    for some, features in store.parts(image_ids):
        found = search(
            decoder, features, beam_width, max_words, no_repeat_ngram_size=no_repeat_ngram_size
        )
        best = [hypotheses[0] for hypotheses in found]
        maps = compute_attention_maps(decoder, features, [hypothesis.ids for hypothesis in best])
        predictions += [
            Prediction(
                image_id=image_id,
                search=search_name(beam_width),
                caption=vocabulary.decode(hypothesis.ids),
                log_probability=hypothesis.log_probability,
                finished=hypothesis.finished,
                maps=None if looked is None else looked.tolist(),
            )
            for image_id, hypothesis, looked in zip(some, best, maps, strict=True)
        ]
    return predictions


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write predictions as Parquet, sorted by photo and search: equal input, equal bytes."""
    rows = sorted(astuple(prediction) for prediction in predictions)
    columns = zip(*rows, strict=True)
    names = [field.name for field in fields(Prediction)]
    table = pa.table(dict(zip(names, map(list, columns), strict=True)), schema=SCHEMA)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)
