"""Predictions: every search's captions of the test split, as a Parquet table."""

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
from pipeline.progress import Progress
from pipeline.text.vocabulary import Vocabulary


def _list_type(element: pa.DataType) -> pa.DataType:
    """Return a list type without nulls; Parquet itself names the elements "element"."""
    return pa.list_(pa.field("element", element, nullable=False))


SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("search", pa.string(), nullable=False),
        pa.field("caption", pa.string(), nullable=False),
        pa.field("log_probability", pa.float64(), nullable=False),
        pa.field("finished", pa.bool_(), nullable=False),
        pa.field("maps", _list_type(_list_type(pa.uint8()))),
    ]
)


@dataclass(frozen=True)
class Prediction:
    """One search's best caption of one photo.

    Attributes:
        image_id: the photo.
        search: see `search_name`.
        caption: its words, joined by spaces.
        log_probability: natural logarithm of its probability.
        finished: whether the model ended the caption; otherwise it was cut off at the word limit.
        maps: the attention map of each word: a weight for each position of the grid, row by
            row, scaled so that the largest is 255; None for a decoder without attention.
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
    name = search_name(beam_width)
    with Progress(name, len(image_ids), "photos") as progress:
        for chunk_ids, features in store.read_chunks(image_ids):
            beams = search(
                decoder,
                features,
                beam_width,
                max_words,
                no_repeat_ngram_size=no_repeat_ngram_size,
                advance=progress.advance,
            )
            best = [hypotheses[0] for hypotheses in beams]
            ids = [hypothesis.ids for hypothesis in best]
            maps = compute_attention_maps(decoder, features, ids)
            predictions += [
                Prediction(
                    image_id=image_id,
                    search=name,
                    caption=vocabulary.decode(hypothesis.ids),
                    log_probability=hypothesis.log_probability,
                    finished=hypothesis.finished,
                    maps=None if word_maps is None else word_maps.tolist(),
                )
                for image_id, hypothesis, word_maps in zip(chunk_ids, best, maps, strict=True)
            ]
    return predictions


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write predictions as Parquet, sorted by photo and search; equal input gives equal bytes."""
    rows = sorted(astuple(prediction) for prediction in predictions)
    columns = zip(*rows, strict=True)
    names = [field.name for field in fields(Prediction)]
    table = pa.table(dict(zip(names, map(list, columns), strict=True)), schema=SCHEMA)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)
