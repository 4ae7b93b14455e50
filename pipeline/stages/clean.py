"""Stage `clean`: write the caption table and its summary from a data set's captions."""

from pathlib import Path

from pipeline.datasets import reasons
from pipeline.datasets.annotations import Summary
from pipeline.datasets.caption_table import write_caption_table
from pipeline.datasets.formats import read_annotations
from pipeline.datasets.splits import MIN_PHOTOS_PER_SPLIT
from pipeline.errors import InputError, one_line
from pipeline.files import write_json
from pipeline.params import load_params
from pipeline.stages.run import run_stage
from pipeline.text.cleaning import clean_captions

# Those that a user will want to look into.
_REASONS_WITH_EXAMPLE = frozenset(
    {"photo_name", "photo_name_ambiguous", "same_photo_in_two_splits", "markup", "malformed"}
)
TABLE = Path("artifacts/captions.parquet")
SUMMARY = Path("artifacts/captions.json")


def main() -> None:
    """Read the data set that params.yaml names; write the table and the summary."""
    params = load_params()
    clean = params.clean
    annotations = read_annotations(
        params.dataset.format,
        Path(params.dataset.root),
        split_seed=clean.split_seed,
        dev_share=clean.dev_share,
        test_share=clean.test_share,
    )
    if splits := annotations.summary.undersized_splits():
        raise InputError(
            f"{params.dataset.root} has fewer than {MIN_PHOTOS_PER_SPLIT} photos for {splits} "
            f"(photos per split: {annotations.summary.photos_per_split}): if its files list the "
            "splits, add photos to the lists; if not, raise clean.dev_share or clean.test_share in "
            "params.yaml, or change clean.split_seed"
        )
    frame, summary = clean_captions(annotations, clean.style)
    provenance = {"dataset_format": params.dataset.format, "clean": clean.model_dump()}
    write_caption_table(TABLE, frame, provenance)
    write_json(SUMMARY, summary.as_dict())
    _print_summary(summary)


def _print_summary(summary: Summary) -> None:
    print(
        f"kept {summary.captions_kept} of {summary.captions_read} captions "
        f"and {summary.photos_kept} of {summary.photos_there} photos"
    )
    for split, photos in summary.photos_per_split.items():
        print(f"  {split}: {photos} photos, {summary.captions_per_split[split]} captions")
    print(
        f"  {summary.distinct_words} distinct words, longest caption "
        f"{summary.longest_caption_words} words"
    )
    for title, counts, meanings in (
        ("dropped", summary.dropped, reasons.DROPPED),
        ("repaired", summary.repaired, reasons.REPAIRED),
        ("noted", summary.noted, reasons.NOTED),
    ):
        for reason, count in counts.items():
            print(f"  {title}: {reason} {count} ({meanings[reason]})")
            if reason in _REASONS_WITH_EXAMPLE:
                print(f"    for example {one_line(summary.examples[reason][0])}")
    for name, nearest in summary.nearest_photos.items():
        print(f"    not there: {name!r}; the photo most like it: {nearest!r}")
    for file_types, entry in summary.other_files.items():
        print(f"  no photos: {file_types}: {entry['count']} ({entry['fix']})")
    print(f"details, with the names of all photos and files that were left out: {SUMMARY}")


if __name__ == "__main__":
    run_stage(main)
