import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.captioner.generation.beam_search import search
from pipeline.captioner.generation.ensemble import Ensemble, make_ensemble
from pipeline.captioner.generation.guidance import Guided, with_guidance
from pipeline.captioner.generation.settings import SearchSettings, read_search_settings
from pipeline.captioner.generation.word_guidance import WordGuided, with_word_guidance
from pipeline.captioner.neighbours import fit_neighbours
from pipeline.captioner.word_detector import WordDetector
from pipeline.errors import InputError
from tests.support.captioner import make_peaked_decoder, make_vocabulary, vectors

SETTINGS = SearchSettings(
    beam_width=5,
    max_words=6,
    no_repeat_ngram_size=3,
    guidance=0.2,
    word_logit_bias=0.3,
    word_rerank_weight=3.0,
    neighbour_rerank_weight=0.5,
    ensemble=True,
)


def make_detector() -> WordDetector:
    size = len(make_vocabulary())
    rng = np.random.default_rng(0)
    return WordDetector(
        np.zeros(6, np.float32),
        rng.normal(size=(6, size)).astype(np.float32),
        np.full(size, 0.3, np.float32),
        np.ones(size, np.float32),
    )


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        replace(SETTINGS, no_repeat_ngram_size=0, guidance=0.0, ensemble=False),
        SearchSettings(1, 1, 0, 0.0, 0.0, 0.0, 0.0, ensemble=False),
    ],
)
def test_settings_are_read_back_as_they_were_written(
    settings: SearchSettings, tmp_path: Path
) -> None:
    settings.write(tmp_path / "search.json")
    assert read_search_settings(tmp_path / "search.json") == settings


def test_a_whole_number_is_accepted_as_a_weight(tmp_path: Path) -> None:
    path = tmp_path / "search.json"
    path.write_text(json.dumps(asdict(SETTINGS) | {"guidance": 1}))
    assert read_search_settings(path) == replace(SETTINGS, guidance=1)


def check_refused(path: Path, reason: str) -> None:
    with pytest.raises(InputError) as error:
        read_search_settings(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert reason in message
    assert message.endswith("run `dvc repro evaluate`")


INVALID = [None, "1", [1], -1, math.nan, math.inf]
ODD_VALUES: dict[str, list[Any]] = {
    "beam_width": [*INVALID, 0, 2.0, True, 1_001],
    "max_words": [*INVALID, 0, 2.0, True, 10_001],
    "no_repeat_ngram_size": [*INVALID, 0.5, True],
    "guidance": [*INVALID, -0.1, True, 1e9],
    "word_logit_bias": [*INVALID, -0.1, True, 1e9],
    "word_rerank_weight": [*INVALID, -0.1, True, 1e9],
    "neighbour_rerank_weight": [*INVALID, -0.1, True, 1e9],
    "ensemble": [*INVALID, 0, 1, "true"],
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in ODD_VALUES.items() for value in values]
)
def test_a_value_of_another_type_or_out_of_range_is_refused(
    key: str, value: Any, tmp_path: Path
) -> None:
    path = tmp_path / "search.json"
    path.write_text(json.dumps(asdict(SETTINGS) | {key: value}))
    check_refused(path, f": {key} is {value!r}: ")


@pytest.mark.parametrize("key", ODD_VALUES)
def test_a_missing_setting_is_refused(key: str, tmp_path: Path) -> None:
    path = tmp_path / "search.json"
    path.write_text(json.dumps({k: v for k, v in asdict(SETTINGS).items() if k != key}))
    check_refused(path, f": {key} is None: ")


def test_every_setting_is_checked() -> None:
    assert ODD_VALUES.keys() == asdict(SETTINGS).keys()


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff"])
def test_a_missing_or_damaged_file_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "search.json"
    if content is not None:
        path.write_bytes(content)
    check_refused(path, "")


def test_combine_decoders_builds_an_ensemble_of_guided_decoders_with_word_guidance() -> None:
    decoders, detector = [make_peaked_decoder(seed=seed) for seed in (1, 2)], make_detector()
    neighbours = fit_neighbours({"a": [[4, 5]]}, lambda _: vectors(count=1), detector)
    with_neighbours = SETTINGS.combine_decoders(decoders, detector, neighbours)
    assert isinstance(with_neighbours, WordGuided)
    assert (with_neighbours.neighbours, with_neighbours.neighbour_weight) == (neighbours, 0.5)
    decoder = SETTINGS.combine_decoders(decoders, detector, None)
    assert isinstance(decoder, WordGuided)
    assert isinstance(decoder.decoder, Ensemble)
    expected = with_word_guidance(
        make_ensemble([with_guidance(member, 0.2) for member in decoders]), detector, 0.3, 3.0
    )
    features = vectors()
    assert search(decoder, features, 5, 6) == search(expected, features, 5, 6)
    unguided = with_word_guidance(make_ensemble(decoders), detector, 0.3, 3.0)
    assert search(decoder, features, 5, 6) != search(unguided, features, 5, 6)


def test_combine_decoders_leaves_out_what_is_turned_off() -> None:
    decoder, detector = make_peaked_decoder(), make_detector()
    off = replace(
        SETTINGS,
        guidance=0.0,
        word_logit_bias=0.0,
        word_rerank_weight=0.0,
        neighbour_rerank_weight=0.0,
    )
    assert off.combine_decoders([decoder], detector, None) is decoder
    assert replace(off, guidance=0.5).combine_decoders([decoder], detector, None) == Guided(
        decoder, 0.5
    )
    assert replace(off, word_logit_bias=0.5).combine_decoders(
        [decoder], detector, None
    ) == WordGuided(decoder, detector, 0.5, 0.0)
