"""Stage `dataset`: check that the data set is there, before DVC looks for it.

DVC reports a missing dependency by its path alone. Its output is in no cache, so the stage runs
once in every checkout: in clones and in the workspaces of experiments, too.
"""

from pathlib import Path

from pipeline.errors import InputError
from pipeline.files import write_json
from pipeline.params import load_params
from pipeline.stages.run import run_stage
from pipeline.system import dvc_cache

OUTPUT = Path("artifacts/dataset.json")
SAMPLE = Path("data/sample")  # which the stage `sample` draws


def main() -> None:
    """Write artifacts/dataset.json: the `dataset` section of params.yaml."""
    dataset = load_params().dataset
    root = Path(dataset.root)
    if root != SAMPLE and not root.is_dir():
        raise InputError(f"params.yaml: dataset.root: {root} is not {_explain(root)}")
    write_json(OUTPUT, dataset.model_dump())


def _explain(root: Path) -> str:
    """Return the end of the error: what the missing folder is not, and what to do."""
    if root.exists():
        return "a folder: set it to the folder that holds the captions and the photos"
    tracked = root.with_name(f"{root.name}.dvc")
    if tracked.is_file():
        return f"here, but {tracked} is: run `dvc pull {tracked}`, or `dvc checkout {tracked}`"
    if dvc_cache.find_main_project() is not None:
        return (
            "in this experiment's workspace, which has only what git and DVC track: run "
            f"`dvc add {root}` and `git add {tracked} {root.parent / '.gitignore'}` in the project "
            "and queue it again, or set dataset.root to an absolute path"
        )
    return (
        "here: set it to the folder that holds the captions and the photos, relative to the "
        "project, or copy that folder here; stages whose inputs are unchanged need no photos with "
        "`dvc repro --allow-missing`"
    )


if __name__ == "__main__":
    run_stage(main)
