import re
import shutil
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.comparison import run_captions
from pipeline.comparison.caption_files import Captions
from pipeline.comparison.run_comparison import compare_runs
from pipeline.errors import InputError
from tests.comparison.test_caption_files import WRITERS
from tests.support.captions import damage_captions, make_captions


def score_run(run: str, references: Path, search: str | None = None) -> dict[str, float]:
    """Compare a run with itself; return its scores."""
    _, differences = compare_runs((run, run), references, None, search, subset=False)
    return {name: difference.first for name, difference in differences.items()}


def write_searches(path: Path, **searches: Captions) -> None:
    """Write the predictions of several searches, as the stage evaluate does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"image_id": image_id, "search": search, "caption": caption}
        for search, captions in searches.items()
        for image_id, (caption,) in captions.items()
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.fixture
def references(tmp_path: Path) -> Path:
    """Write references of two splits."""
    captions = make_captions(6)
    rows = [
        {"image_id": image_id, "split": "test" if image_id < "4" else "dev", "raw": caption}
        for image_id, (caption,) in captions.items()
    ]
    path = tmp_path / "references.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("name", run_captions._PATHS_IN_FOLDER)
def test_a_run_may_be_a_folder_with_predictions(
    tmp_path: Path, references: Path, name: str
) -> None:
    captions = make_captions(4)
    write_searches(tmp_path / name, beam_40=captions, greedy=damage_captions(captions, 1))
    run = str(tmp_path)
    assert score_run(run, references)["BLEU-1"] == pytest.approx(100)
    assert score_run(run, references, "greedy")["BLEU-1"] == pytest.approx(500 / 6)
    with pytest.raises(
        InputError, match="no captions of search 'beam_5', it has beam_40 and greedy"
    ):
        score_run(run, references, "beam_5")


def test_a_run_may_have_any_single_search(tmp_path: Path, references: Path) -> None:
    write_searches(tmp_path / "predictions.parquet", greedy=make_captions(4))
    assert score_run(str(tmp_path), references)["BLEU-1"] == pytest.approx(100)


@pytest.mark.parametrize("name", WRITERS)
def test_a_run_may_be_a_file_without_searches(tmp_path: Path, references: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path, make_captions(4))
    assert score_run(str(path), references)["BLEU-1"] == pytest.approx(100)


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_references_need_not_have_splits(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path, make_captions(4))
    assert score_run(str(path), path)["ROUGE-L"] == 100


def test_a_folder_without_predictions_is_refused(tmp_path: Path, references: Path) -> None:
    with pytest.raises(
        InputError,
        match=r" contains no predictions.parquet: name the artifacts folder of a finished run, or "
        "run `dvc repro` there",
    ):
        score_run(str(tmp_path), references)


def replace_dvc(
    monkeypatch: pytest.MonkeyPatch, code: int, errors: str, fetched: Path | None = None
) -> list[list[str]]:
    """Replace `dvc` by a stand-in; return the list that will hold the commands it is given."""
    commands = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        if fetched is not None:
            shutil.copyfile(fetched, command[-1])
        return subprocess.CompletedProcess(command, code, "", errors)

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_a_run_that_is_not_a_path_is_fetched_as_a_revision(
    tmp_path: Path, references: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_searches(tmp_path / "fetched.parquet", beam_40=make_captions(4))
    commands = replace_dvc(monkeypatch, 0, "", tmp_path / "fetched.parquet")
    runs = "HEAD", "-x"
    _, differences = compare_runs(runs, references, None, None, subset=False)
    assert differences["BLEU-1"].first == differences["BLEU-1"].second == pytest.approx(100)
    # A revision is never taken for an option, and fetched files do not overwrite each other.
    assert [next(a for a in c if a.startswith("--rev")) for c in commands] == [
        "--rev=HEAD",
        "--rev=-x",
    ]
    targets = [Path(command[-1]) for command in commands]
    assert targets[0] != targets[1]
    assert not any(target.parent.exists() for target in targets)


def test_an_error_about_fetched_captions_names_the_revision(
    tmp_path: Path, references: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_searches(tmp_path / "fetched.parquet", greedy=make_captions(4), beam_3=make_captions(4))
    replace_dvc(monkeypatch, 0, "", tmp_path / "fetched.parquet")
    with pytest.raises(InputError) as caught:
        score_run("HEAD~3", references)
    assert str(caught.value) == (
        "HEAD~3:artifacts/evaluation/predictions.parquet has captions of several searches: "
        "choose one with --search: beam_3 or greedy"
    )


_SUPPORT = "\n\nHaving any troubles? Hit us up at https://dvc.org/support, we are happy to help!\n"
_FILE = "artifacts/evaluation/predictions.parquet"


@pytest.mark.parametrize(
    ("errors", "message"),
    [
        (
            f"ERROR: failed to get '{_FILE}' from '.' - unknown Git revision 'x'\n",
            "is not a file, a folder, a git revision or an experiment: `git log` and",
        ),
        (
            f"ERROR: failed to get '{_FILE}' from '.' - /x is not a git repository\n",
            "is not a file or a folder, and there is no git repository here: run this in",
        ),
        (
            f"ERROR: unexpected error - [Errno 2] No storage files available: '{_FILE}'{_SUPPORT}",
            "has no predictions that DVC can fetch: its commit lacks dvc.lock, or the cache",
        ),
        (f"ERROR: unexpected error - ['{_FILE}']{_SUPPORT}", "has no predictions that DVC can"),
        (
            f"WARNING: experiment/ studio/ VS code\nERROR: no\n  luck{_SUPPORT}",
            "cannot be fetched (no luck): try `dvc exp list`",
        ),
        ("", "cannot be fetched (exit code 5): try `dvc exp list`"),
    ],
)
@pytest.mark.parametrize("run", ["absent.json", "x" * 300, "loop"])
def test_a_revision_that_dvc_cannot_fetch_is_explained_in_one_line(
    tmp_path: Path,
    references: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: str,
    errors: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    replace_dvc(monkeypatch, 5, errors)
    with pytest.raises(InputError) as caught:
        score_run(run, references)
    assert run in str(caught.value)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert not {"ERROR", "Errno", "troubles", "studio", "unexpected"} & set(
        re.findall(r"\w+", str(caught.value))
    )
