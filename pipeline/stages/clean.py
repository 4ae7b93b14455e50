"""Stage clean: a data set's captions become the caption table and its summary."""

from pathlib import Path

from pipeline.datasets.annotations import Summary
from pipeline.datasets.caption_table import write_caption_table
from pipeline.datasets.formats import read
from pipeline.errors import InputError
from pipeline.files import write_json
from pipeline.params import load_params
from pipeline.stages.run import run_stage
from pipeline.text.cleaning import clean_captions

TABLE = Path("artifacts/captions.parquet")
SUMMARY = Path("artifacts/captions.json")


def main() -> None:
    """Read the captions that params.yaml names; write the table and the summary."""
    params = load_params()
    clean = params.clean
    annotations = read(
        params.dataset.format,
        Path(params.dataset.root),
        split_seed=clean.split_seed,
        dev_share=clean.dev_share,
        test_share=clean.test_share,
    )
    if few := annotations.summary.unmeasurable_splits():
        raise InputError(
            f"{params.dataset.root} leaves fewer than two photos for {few} (photos per split: "
            f"{annotations.summary.photos_per_split}): where its files give no splits, raise "
            "clean.dev_share or clean.test_share in params.yaml, or take another clean.split_seed; "
            "else add photos to its lists"
        )
    frame, summary = clean_captions(annotations, clean.style)
    made_by = {"dataset_format": params.dataset.format, "clean": clean.model_dump()}
    write_caption_table(TABLE, frame, made_by)
    write_json(SUMMARY, summary.as_dict())
    _show(summary)


def _show(summary: Summary) -> None:
    print(
        f"{summary.captions_kept} of {summary.captions_read} captions kept, "
        f"of {summary.photos_kept} of {summary.photos_there} photos"
    )
    for split, photos in summary.photos_per_split.items():
        print(f"  {split}: {photos} photos, {summary.captions_per_split[split]} captions")
    for title, counts in (
        ("dropped", summary.dropped),
        ("repaired", summary.repaired),
        ("noted", summary.noted),
    ):
        if counts:
            print(f"  {title}: {', '.join(f'{name} {count}' for name, count in counts.items())}")
    print(
        f"  {summary.distinct_words} distinct words, "
        f"the longest caption has {summary.longest_caption_words}; more in {SUMMARY}"
    )


if __name__ == "__main__":
    run_stage(main)
