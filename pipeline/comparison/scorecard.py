"""The scorecard: the scores of a caption file against references, for `caption score`."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.comparison.caption_files import read_captions
from pipeline.comparison.pairing import Pairing, pair
from pipeline.metrics.scorer import METRICS, Scorer, Scores
from pipeline.metrics.significance import bootstrap_intervals, few_images_note


@dataclass(frozen=True)
class Scorecard:
    """The scores of one file of captions.

    Attributes:
        pairing: the captions and references that were scored.
        scores: the scores of each caption.
    """

    pairing: Pairing
    scores: Scores

    @property
    def corpus(self) -> dict[str, float | None]:
        """METRICS, x100; CIDEr-D is None for a single photo, where its idf is always 0."""
        corpus = self.scores.corpus
        single = len(self.pairing.image_ids) == 1
        return {
            name: None if single and name == "CIDEr-D" else round(corpus[name], 2)
            for name in METRICS
        }

    def lines(self) -> list[str]:
        """Return the scorecard as lines of text."""
        n_photos = len(self.pairing.image_ids)
        if too_few := few_images_note(n_photos):
            scores = [_score_text(name, value) for name, value in self.corpus.items()]
            return [f"{n_photos} photo{'s' * (n_photos > 1)}; x100", *scores, too_few]
        lines = [f"{n_photos} photos; x100, with 95 % bootstrap intervals"]
        intervals = bootstrap_intervals(self.scores)
        for name, value in self.corpus.items():
            low, high = intervals[name]
            lines.append(f"{_score_text(name, value)}   {low:.2f} to {high:.2f}")
        return lines


def score_files(
    candidates: Path, references: Path, split: str | None, search: str | None, *, subset: bool
) -> Scorecard:
    """Score the captions of a file.

    Args:
        candidates: a caption file.
        references: a caption file.
        split: which references to use, if their file has several splits.
        search: which candidates to use, if their file has several searches.
        subset: whether photos that one of the files lacks are left out.

    Raises:
        InputError: a file cannot be read, or the files do not match; see `read_captions`
            and `pair`.
    """
    run = candidates, read_captions(candidates, search=search)
    pairing = pair([run], references, read_captions(references, split=split), subset=subset)
    return Scorecard(pairing, Scorer(pairing.references).score(pairing.candidates[0]))


def _score_text(name: str, value: float | None) -> str:
    return f"{name:8}{'n/a':>8}" if value is None else f"{name:8}{value:8.2f}"
