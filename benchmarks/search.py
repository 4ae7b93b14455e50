"""Search: photos captioned per second from their features, with the decoders of a finished run."""

import statistics
from dataclasses import replace
from pathlib import Path

from benchmarks.harness import Measure, Row, make_timer, measure_interleaved
from pipeline.captioner.artifacts import Artifacts
from pipeline.captioner.generation.beam_search import search
from pipeline.captioner.generation.settings import SEARCH_FILE, SearchSettings

_PHOTOS = 1000  # at most
_WIDTHS = (1, 3, 5)  # besides the beam width of the run's own search
_ROUNDS = 3


def run(folder: Path) -> list[Row]:
    """Caption the test and dev photos by searches of several widths, and without guidance."""
    artifacts = Artifacts.open(
        folder, "captions.parquet", "features.h5", "detector.h5", "model/model.json", SEARCH_FILE
    )
    settings = artifacts.search_settings
    unguided = replace(
        settings,
        guidance=0.0,
        word_logit_bias=0.0,
        word_rerank_weight=0.0,
        neighbour_rerank_weight=0.0,
    )
    image_ids = [*artifacts.references("test"), *artifacts.references("dev")][:_PHOTOS]
    searches = {
        f"beam of {width}": replace(settings, beam_width=width)
        for width in sorted({*_WIDTHS, settings.beam_width})
    }
    searches[f"beam of {settings.beam_width}, neither guidance nor detector"] = unguided
    measures = {
        name: _make_search(artifacts, image_ids, search_settings)
        for name, search_settings in searches.items()
    }
    for measure in measures.values():
        measure()  # builds graphs
    seconds = measure_interleaved(measures, _ROUNDS)
    return [_make_row(name, len(image_ids), values) for name, values in seconds.items()]


def _make_search(artifacts: Artifacts, image_ids: list[str], settings: SearchSettings) -> Measure:
    """Return a function that captions the photos and returns its seconds."""
    decoders = artifacts.decoders if settings.ensemble else artifacts.decoders[:1]
    decoder = artifacts.combine_decoders(settings, decoders)

    def caption_photos() -> None:
        for _, features in artifacts.store.read_chunks(image_ids):
            search(
                decoder,
                features,
                settings.beam_width,
                settings.max_words,
                no_repeat_ngram_size=settings.no_repeat_ngram_size,
            )

    return make_timer(caption_photos)


def _make_row(name: str, n_photos: int, seconds: list[float]) -> Row:
    median = statistics.median(seconds)
    return Row(
        f"captions of {n_photos:,} photos, {name}",
        f"{n_photos / median:.0f} photos/s ({median:.1f} s)",
    )
