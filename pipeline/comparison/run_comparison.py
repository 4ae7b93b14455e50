"""The comparison of two runs, and how `caption compare` prints it."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.comparison.caption_files import read_captions
from pipeline.comparison.pairing import Pairing, pair
from pipeline.comparison.run_captions import read_run
from pipeline.errors import InputError
from pipeline.metrics.scorer import Scorer
from pipeline.metrics.significance import (
    SIGNIFICANCE_LEVEL,
    Difference,
    few_images_note,
    paired_differences,
)

# The split used by default, where the references have several.
DEFAULT_SPLIT = "test"


def compare_runs(
    runs: tuple[str, str], references: Path, split: str | None, search: str | None, *, subset: bool
) -> tuple[Pairing, dict[str, Difference]]:
    """Compare the captions of two runs.

    Args:
        runs: each a caption file, a folder with predictions.parquet, or a git revision or
            DVC experiment of this project.
        references: a caption file.
        split: which references to use; None means DEFAULT_SPLIT, if their file has several.
        search: which captions to use; None means DEFAULT_SEARCH, if a run has several.
        subset: whether photos that one of the files lacks are left out.

    Returns:
        The captions and references that were compared, and the difference in each of METRICS.

    Raises:
        InputError: a run does not exist, the photos differ, or there is only one photo.
    """
    reference_captions = read_captions(references, {"split": DEFAULT_SPLIT}, split=split)
    with tempfile.TemporaryDirectory(prefix="caption-") as scratch:
        run_captions = [(Path(run), read_run(run, search, Path(scratch))) for run in runs]
    pairing = pair(run_captions, references, reference_captions, subset=subset)
    if len(pairing.image_ids) == 1:
        raise InputError("one photo cannot show a significant difference: compare more photos")
    if pairing.candidates[0] == pairing.candidates[1]:
        pairing.notes.append("the two runs have the same captions")
    scorer = Scorer(pairing.references)
    first, second = map(scorer.score, pairing.candidates)
    return pairing, paired_differences(first, second)


def difference_lines(
    runs: Sequence[str], differences: Mapping[str, Difference], n_photos: int
) -> list[str]:
    """Return a comparison as lines of text; without intervals and p-values for too few photos.

    Args:
        runs: the two runs' names.
        differences: by metric.
        n_photos: number of photos compared.
    """
    too_few = few_images_note(n_photos)
    widths = [max(8, len(run)) for run in runs]
    first, second = (run.rjust(width) for run, width in zip(runs, widths, strict=True))
    lines = [f"{'':8}  {first}  {second}  difference{'' if too_few else '  95 %              p'}"]
    for name, result in differences.items():
        low, high = result.interval
        interval = f"{low:+.2f} to {high:+.2f}"
        lines.append(
            f"{name:8}  {result.first:{widths[0]}.2f}  {result.second:{widths[1]}.2f}  "
            f"{result.second - result.first:+10.2f}"
            + ("" if too_few else f"  {interval:16}  {result.p_value:.4f}")
        )
    return [*lines, too_few or _verdict(differences)]


def _verdict(differences: Mapping[str, Difference]) -> str:
    significant = [name for name, result in differences.items() if result.significant]
    if significant:
        return f"significant (p < {SIGNIFICANCE_LEVEL}): {', '.join(significant)}"
    return f"no significant difference (p < {SIGNIFICANCE_LEVEL})"
