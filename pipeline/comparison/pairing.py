"""Pairing: matches candidates with the references of their photos and reports every mismatch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.comparison.caption_files import Captions, shorten
from pipeline.comparison.image_ids import unify_ids
from pipeline.errors import InputError, one_line
from pipeline.metrics.ngrams import Tokens
from pipeline.metrics.tokenizer import tokenize

_MAX_LISTED = 3  # image_ids in a message
_STANDARD_REFERENCES = 5  # per photo, in the data sets that papers report


@dataclass(frozen=True)
class Pairing:
    """Photos that have references, and a candidate in every run.

    Attributes:
        image_ids: the photos, sorted.
        candidates: for each run its caption of each photo, as tokens.
        references: for each photo its references, as tokens.
        notes: what affects the interpretation of the scores, one line each.
    """

    image_ids: list[str]
    candidates: list[list[Tokens]]
    references: list[list[Tokens]]
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
        runs: for each run its name, for messages, and its captions, one per photo.
        reference_path: the file of the references, for messages.
        references: image_id to captions.
        subset: whether to leave out photos that one of the files lacks, with a note. Without
            it they are an error, because a corpus score is defined for all its photos.

    Raises:
        InputError: photos are missing, or a photo has two candidates in a run.
    """
    for path, captions in runs:
        _check_one_each(path, captions)
    *unified, references = unify_ids([*(captions for _, captions in runs), references])
    renamed = [
        path for (path, old), new in zip(runs, unified, strict=True) if old.keys() != new.keys()
    ]
    runs = [(path, captions) for (path, _), captions in zip(runs, unified, strict=True)]
    files = [*runs, (reference_path, references)]
    image_ids = sorted(set.intersection(*(set(captions) for _, captions in files)))
    if not image_ids:
        examples = ", ".join(f"{path} has {_printable(min(captions))}" for path, captions in files)
        raise InputError(
            f"no photo is in every file ({examples}): use the same photo names in all of them"
        )
    gaps = list(_find_gaps(runs, reference_path, references))
    if gaps and not subset:
        raise InputError(f"{gaps[0]}: add what is missing, or leave such photos out with --subset")
    pairing = Pairing(
        image_ids=image_ids,
        candidates=[[tokenize(captions[i][0]) for i in image_ids] for _, captions in runs],
        references=[[tokenize(raw) for raw in references[i]] for i in image_ids],
        notes=[
            *(
                f"{path} names photos differently: matched by number or bare name"
                for path in renamed
            ),
            *(f"left out: {gap}" for gap in gaps),
        ],
    )
    pairing.notes.extend(_find_caveats([path for path, _ in runs], pairing))
    return pairing


def _check_one_each(path: Path, run: Captions) -> None:
    duplicates = [image_id for image_id, captions in run.items() if len(captions) > 1]
    if duplicates:
        raise InputError(
            f"{path} has more than one caption for {_photo_list(duplicates)}: "
            "keep one candidate per photo, and give candidates before references"
        )


def _find_gaps(
    runs: Sequence[tuple[Path, Captions]], reference_path: Path, references: Captions
) -> Iterator[str]:
    """Yield a phrase for each file that lacks photos of the others."""
    for path, captions in runs:
        if missing := sorted(references.keys() - captions.keys()):
            yield f"{path} has no candidate for {_photo_list(missing)}"
    candidates = {image_id for _, captions in runs for image_id in captions}
    if missing := sorted(candidates - references.keys()):
        yield f"{reference_path} has no reference for {_photo_list(missing)}"


def _find_caveats(paths: Sequence[Path], pairing: Pairing) -> Iterator[str]:
    """Yield a line for each property of the data that makes its scores unusual."""
    for path, candidates in zip(paths, pairing.candidates, strict=True):
        empty = [i for i, tokens in zip(pairing.image_ids, candidates, strict=True) if not tokens]
        if empty:
            yield f"{path} has candidates without a word, scored 0: {_photo_list(empty)}"
    empty = [
        image_id
        for image_id, references in zip(pairing.image_ids, pairing.references, strict=True)
        if not all(references)
    ]
    if empty:
        yield f"there are references without a word, scored as they are: {_photo_list(empty)}"
    counts = sorted({len(references) for references in pairing.references})
    if counts[0] < _STANDARD_REFERENCES:
        numbers = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
        plural = "s" * (counts[-1] > 1)
        yield (
            f"{numbers} reference{plural} per photo: scores rise with the number of references, "
            f"papers use {_STANDARD_REFERENCES}"
        )
    if len(pairing.image_ids) == 1:
        yield (
            "CIDEr-D is n/a for a single photo, because it weights words by how many photos have "
            "them"
        )


def _photo_list(image_ids: Sequence[str]) -> str:
    listed = ", ".join(map(_printable, image_ids[:_MAX_LISTED]))
    n_more = len(image_ids) - _MAX_LISTED
    plural = "s" * (len(image_ids) > 1)
    return f"{len(image_ids)} photo{plural} ({listed}{f' and {n_more} more' if n_more > 0 else ''})"


def _printable(image_id: str) -> str:
    return one_line(shorten(image_id))
