"""Search settings, shared by the report and by `caption image`.

`evaluate` copies them from params.yaml to search.json. `caption image` takes its defaults from
that file, so that it captions a photo as the report did.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from pipeline.captioner.generation.ensemble import make_ensemble
from pipeline.captioner.generation.guidance import with_guidance
from pipeline.captioner.generation.interfaces import StepDecoder, SupportsUnconditional
from pipeline.captioner.generation.word_guidance import with_word_guidance
from pipeline.captioner.neighbours import Neighbours
from pipeline.captioner.word_detector import WordDetector
from pipeline.errors import InputError
from pipeline.files import read_json, record_from_json, write_json

SEARCH_FILE = "search.json"
_FIX = "run `dvc repro evaluate`"
_MIN = {"beam_width": 1, "max_words": 1}  # the minimum of all other settings is 0
_MAX = {"beam_width": 1000, "max_words": 10_000}  # the maximum of all other settings is 10^6


@dataclass(frozen=True)
class SearchSettings:
    """The settings of the primary search.

    Attributes:
        beam_width: hypotheses kept for each photo; 1 is greedy search.
        max_words: maximum number of words in a caption.
        no_repeat_ngram_size: no run of this many words occurs twice in a caption; 0 allows it.
        guidance: weight of classifier-free guidance; 0 turns it off.
        word_logit_bias: how much detected words raise logits; 0 turns it off.
        word_rerank_weight: how much detected words count when hypotheses are reranked; 0 turns
            it off.
        neighbour_rerank_weight: how much the captions of the nearest training photos count then;
            0 turns it off.
        ensemble: whether the decoders of all seeds are averaged; if not, only the first is used.
    """

    beam_width: int
    max_words: int
    no_repeat_ngram_size: int
    guidance: float
    word_logit_bias: float
    word_rerank_weight: float
    neighbour_rerank_weight: float
    ensemble: bool

    def combine_decoders(
        self,
        decoders: Sequence[SupportsUnconditional],
        detector: WordDetector,
        neighbours: Neighbours | None,
    ) -> StepDecoder:
        """Combine decoders for a search: an ensemble of guided decoders, with word guidance.

        Args:
            decoders: the decoders.
            detector: the word detector.
            neighbours: the nearest training photos; None if their weight is 0.
        """
        return with_word_guidance(
            make_ensemble([with_guidance(decoder, self.guidance) for decoder in decoders]),
            detector,
            self.word_logit_bias,
            self.word_rerank_weight,
            neighbours,
            self.neighbour_rerank_weight,
        )

    def write(self, path: Path) -> None:
        """Write search.json."""
        write_json(path, asdict(self))


def read_search_settings(path: Path) -> SearchSettings:
    """Read search.json.

    Raises:
        InputError: the file is missing or damaged.
    """
    values = read_json(path, _FIX)
    names = {field.name for field in fields(SearchSettings)}
    try:
        settings = record_from_json(SearchSettings, {n: values.get(n) for n in names})
    except ValueError as error:
        raise InputError(f"{path}: {error}: {_FIX}") from None
    for name, value in asdict(settings).items():
        if not _MIN.get(name, 0) <= value <= _MAX.get(name, 1_000_000):
            raise InputError(f"{path}: {name} is {value!r:.40}: {_FIX}")
    return settings
