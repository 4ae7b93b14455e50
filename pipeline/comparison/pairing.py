"""Pairing: candidates with the references of their photos, and every mismatch told."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.comparison.caption_files import Captions, brief
from pipeline.errors import InputError, one_line
from pipeline.metrics.ngrams import Tokens
from pipeline.metrics.tokenizer import tokenize

_SHOWN = 3  # image_ids of many
_USUAL = 5  # references a photo, in the data sets that papers score


@dataclass(frozen=True)
class Pairing:
    """Photos that have references, and a candidate in every run.

    Attributes:
        image_ids: the photos, sorted.
        candidates: of each run, of each photo, as tokens.
        groups: each photo's references, as tokens.
        notes: what a reader of the scores has to know, a line each.
    """

    image_ids: list[str]
    candidates: list[list[Tokens]]
    groups: list[list[Tokens]]
    notes: list[str]


def pair(
    runs: Sequence[tuple[Path, Captions]],
    reference_path: Path,
    references: Captions,
    *,
    subset: bool,
) -> Pairing:
    """Pair the captions of runs with the references of their photos.

    Args:
        runs: each a name, for messages, and image_id to one caption.
        reference_path: of the references, for messages.
        references: image_id to captions.
        subset: whether photos that one of the files lacks are left out, with a note; a
            corpus' score is of all its photos, so that otherwise they are an error.

    Raises:
        InputError: photos are missing, or a photo has two candidates in a run.
    """
    for path, captions in runs:
        if several := [image_id for image_id, found in captions.items() if len(found) > 1]:
            raise InputError(
                f"{path} has more than one caption for {_some(several)}: "
                "leave one candidate a photo"
            )
    files = [*runs, (reference_path, references)]
    image_ids = sorted(set.intersection(*(set(captions) for _, captions in files)))
    if not image_ids:
        names = ", ".join(f"{path} has {_shown(min(captions))}" for path, captions in files)
        raise InputError(f"no photo is in every file ({names}): name photos alike in all of them")
    lacks = list(_lacks(runs, reference_path, references))
    if lacks and not subset:
        raise InputError(f"{lacks[0]}: complete it, or leave such photos out by --subset")
    pairing = Pairing(
        image_ids=image_ids,
        candidates=[[tokenize(captions[i][0]) for i in image_ids] for _, captions in runs],
        groups=[[tokenize(raw) for raw in references[i]] for i in image_ids],
        notes=[f"left out: {told}" for told in lacks],
    )
    pairing.notes.extend(_cautions([path for path, _ in runs], pairing))
    return pairing


def _lacks(
    runs: Sequence[tuple[Path, Captions]], reference_path: Path, references: Captions
) -> Iterator[str]:
    for path, captions in runs:
        if missing := sorted(references.keys() - captions.keys()):
            yield f"{path} has no candidate for {_some(missing)}"
    candidates = {image_id for _, captions in runs for image_id in captions}
    if missing := sorted(candidates - references.keys()):
        yield f"{reference_path} has no reference for {_some(missing)}"


def _cautions(paths: Sequence[Path], pairing: Pairing) -> Iterator[str]:
    """Say what makes the scores other than a reader would take them for."""
    for path, candidates in zip(paths, pairing.candidates, strict=True):
        empty = [i for i, c in zip(pairing.image_ids, candidates, strict=True) if not c]
        if empty:
            yield f"{path} has candidates without a word, scored 0: {_some(empty)}"
    wordless = [
        i for i, group in zip(pairing.image_ids, pairing.groups, strict=True) if not all(group)
    ]
    if wordless:
        yield f"references without a word, scored as they are: of {_some(wordless)}"
    sizes = sorted({len(group) for group in pairing.groups})
    if sizes[0] < _USUAL:
        span = f"{sizes[0]} to {sizes[-1]}" if len(sizes) > 1 else f"{sizes[0]}"
        plural = "s" * (sizes[-1] > 1)
        yield f"{span} reference{plural} a photo: scores rise with their number, papers have 5"
    if len(pairing.image_ids) == 1:
        yield (
            "of one photo CIDEr-D is n/a, as it weighs words by how many photos have them, and "
            "nothing tells what another photo would score"
        )


def _some(image_ids: Sequence[str]) -> str:
    shown = ", ".join(map(_shown, image_ids[:_SHOWN]))
    more = len(image_ids) - _SHOWN
    plural = "s" * (len(image_ids) > 1)
    return f"{len(image_ids)} photo{plural} ({shown}{f' and {more} more' if more > 0 else ''})"


def _shown(image_id: str) -> str:
    return one_line(brief(image_id))
