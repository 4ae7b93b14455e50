"""The scorecard: what `caption score` and `caption compare` say."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.comparison.caption_files import Captions, read_captions
from pipeline.comparison.pairing import Pairing, pair
from pipeline.errors import InputError
from pipeline.metrics.scorer import METRICS, Scorer, Scores
from pipeline.metrics.significance import Difference, differences, intervals

_PREDICTIONS = Path("artifacts/evaluation/predictions.parquet")
_IN_A_FOLDER = ("predictions.parquet", "evaluation/predictions.parquet", str(_PREDICTIONS))
_BY_CHANCE = 0.05
# What is compared unless said otherwise: captions as `caption image` makes them.
DEFAULTS = {"search": "beam_20", "split": "test"}


@dataclass(frozen=True)
class Scorecard:
    """A corpus, scored.

    Attributes:
        pairing: what was scored.
        scores: of each caption.
    """

    pairing: Pairing
    scores: Scores

    @property
    def corpus(self) -> dict[str, float | None]:
        """METRICS, x100; CIDEr-D is None of a single photo, of which it means nothing."""
        of_all = self.scores.corpus
        single = len(self.pairing.image_ids) == 1
        return {
            name: None if single and name == "CIDEr-D" else round(of_all[name], 2)
            for name in METRICS
        }

    def lines(self) -> list[str]:
        """Return the card as text."""
        photos = len(self.pairing.image_ids)
        if photos == 1:
            # Of a single one all samples are the same: that interval would say certainty.
            return ["1 photo; x100", *(_scored(name, of) for name, of in self.corpus.items())]
        lines = [f"{photos} photos; x100, and 95 % of resampled photo sets"]
        spans = intervals(self.scores)
        for name, value in self.corpus.items():
            low, high = spans[name]
            lines.append(f"{_scored(name, value)}   {low:.2f} to {high:.2f}")
        return lines


def _scored(name: str, value: float | None) -> str:
    return f"{name:8}{'n/a':>8}" if value is None else f"{name:8}{value:8.2f}"


def score_files(
    candidates: Path, references: Path, split: str | None, search: str | None, *, subset: bool
) -> Scorecard:
    """Score the captions of a file; see `read_captions` and `pair`.

    Raises:
        InputError: of either.
    """
    run = candidates, read_captions(candidates, search=search)
    pairing = pair([run], references, read_captions(references, split=split), subset=subset)
    return Scorecard(pairing, Scorer(pairing.groups).score(pairing.candidates[0]))


def compare_runs(
    runs: tuple[str, str], references: Path, split: str | None, search: str | None, *, subset: bool
) -> tuple[Pairing, dict[str, Difference]]:
    """Compare the captions of two runs.

    Args:
        runs: each a caption file, a folder with predictions.parquet, or a git revision or
            DVC experiment of this project.
        references: of their photos.
        split: of the references; None is the USUAL one, where the file tells splits apart.
        search: whose captions; None is the USUAL one, where a run tells searches apart.
        subset: whether photos that are not in all files are left out.

    Returns:
        What was compared, and the difference in each of METRICS.

    Raises:
        InputError: a run is not found, the photos are not the same, or there is only one.
    """
    of_photos = read_captions(references, DEFAULTS, split=split)
    with tempfile.TemporaryDirectory(prefix="caption-") as scratch:
        found = [(Path(run), _captions(run, search, Path(scratch))) for run in runs]
    pairing = pair(found, references, of_photos, subset=subset)
    if len(pairing.image_ids) == 1:
        raise InputError("one photo tells no difference from chance: compare captions of more")
    scorer = Scorer(pairing.groups)
    ours, theirs = map(scorer.score, pairing.candidates)
    return pairing, differences(ours, theirs)


def difference_lines(runs: Sequence[str], found: dict[str, Difference]) -> list[str]:
    """Return a comparison as text."""
    widths = [max(8, len(run)) for run in runs]
    first, second = (run.rjust(width) for run, width in zip(runs, widths, strict=True))
    lines = [f"{'':8}  {first}  {second}  difference  95 %              p"]
    for name, of in found.items():
        low, high = of.interval
        span = f"{low:+.2f} to {high:+.2f}"
        lines.append(
            f"{name:8}  {of.ours:{widths[0]}.2f}  {of.theirs:{widths[1]}.2f}  "
            f"{of.theirs - of.ours:+10.2f}  {span:16}  {of.p_value:.4f}"
        )
    real = [name for name, of in found.items() if of.p_value < _BY_CHANCE]
    lines.append(
        f"more than chance would do (p < {_BY_CHANCE}): {', '.join(real)}"
        if real
        else f"no difference is more than chance would do (p < {_BY_CHANCE})"
    )
    return lines


def _captions(run: str, search: str | None, scratch: Path) -> Captions:
    """Read a run's captions; those of a revision are fetched to `scratch`."""
    path = _file(run)
    if path is not None:
        return read_captions(path, DEFAULTS, search=search)
    path = _fetch(run, scratch)
    try:
        return read_captions(path, DEFAULTS, search=search)
    except InputError as error:
        # As git names it: the fetched file is gone before anyone could look.
        named = str(error).replace(str(path), f"{run}:{_PREDICTIONS}")
        raise InputError(named) from None


def _file(run: str) -> Path | None:
    """Return the file of a run's captions; None if the run is neither file nor folder."""
    path = Path(run)
    # os.path never raises, pathlib does, of names that are too long.
    if os.path.isfile(run):  # noqa: PTH113
        return path
    if not os.path.isdir(run):  # noqa: PTH112
        return None
    there = [path / name for name in _IN_A_FOLDER if (path / name).is_file()]
    if not there:
        raise InputError(f"{run} holds no predictions.parquet: run `dvc repro` there")
    return there[0]


def _fetch(revision: str, scratch: Path) -> Path:
    target = scratch / f"{len(list(scratch.iterdir()))}.parquet"
    command = [sys.executable, "-m", "dvc", "get", ".", str(_PREDICTIONS)]
    command += [f"--rev={revision}", "--out", str(target)]
    got = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  (a revision, after --rev)
    if got.returncode:
        reason = " ".join(got.stderr.split()) or f"exit code {got.returncode}"
        raise InputError(
            f"{revision} is no file, no folder, and no revision whose predictions DVC has "
            f"({reason}): `git log` and `dvc exp show` list revisions"
        )
    return target
