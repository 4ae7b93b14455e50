import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from pipeline.cli.main import main
from tests.comparison.test_caption_files import WRITERS
from tests.conftest import slow_imports
from tests.support.cli import failed, succeeded
from tests.support.project import Project

FIVE = ["a dog runs", "the dog runs", "one dog", "dogs", "a brown dog runs fast"]
REFERENCES = {"1": FIVE, "2": ["a cat", "the cat sits", "cats", "one cat", "a cat that sits"]}
CANDIDATES = {"1": "a dog runs", "2": "a cat sits"}
NAMES = ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr-D"]


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be in a folder with candidates, references, and a worse run."""
    monkeypatch.chdir(tmp_path)
    write("candidates.json", CANDIDATES)
    write("references.json", REFERENCES)
    write("worse.json", {"1": "a horse", "2": "a tree"})


def write(name: str, value: object) -> None:
    Path(name).write_text(json.dumps(value), "utf-8")


def caption(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def score(*options: str, candidates: str = "candidates.json") -> Result:
    return caption("score", *options, candidates, "references.json")


def compare(*arguments: str) -> Result:
    return caption("compare", "--references", "references.json", *arguments)


# caption score


def test_json_is_one_object_of_the_scores() -> None:
    result = score("--json")
    succeeded(result)
    (line,) = result.stdout.splitlines()
    found = json.loads(line)
    assert list(found) == NAMES
    assert found["BLEU-1"] == 100
    assert found["BLEU-4"] == 0
    assert found["CIDEr-D"] > found["ROUGE-L"] == 100


def test_text_has_each_score_and_where_95_percent_of_resampled_photo_sets_lie() -> None:
    result = score()
    succeeded(result)
    first, *lines = result.stdout.splitlines()
    assert first == "2 photos; x100, and 95 % of resampled photo sets"
    assert [line.split()[0] for line in lines] == NAMES
    assert lines[0] == "BLEU-1    100.00   100.00 to 100.00"
    assert re.fullmatch(r"ROUGE-L +(\d+\.\d\d) {3}\d+\.\d\d to \d+\.\d\d", lines[4])


def test_the_same_files_print_the_same_every_time() -> None:
    assert score().stdout == score().stdout
    assert compare("candidates.json", "worse.json").stdout == (
        compare("candidates.json", "worse.json").stdout
    )


def test_of_one_photo_cider_is_null_and_the_reason_is_on_standard_error() -> None:
    write("references.json", {"1": FIVE})
    result = score("--json", "--subset")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["CIDEr-D"] is None
    left_out, why = result.stderr.splitlines()
    assert left_out == "note: left out: references.json has no reference for 1 photo (2)"
    assert why.startswith("note: of one photo CIDEr-D is n/a, as it weighs words")
    assert "CIDEr-D      n/a" in score("--subset").stdout.splitlines()


@pytest.mark.parametrize(
    ("candidates", "references", "told"),
    [
        # Missing.
        ({"1": "a"}, REFERENCES, "candidates.json has no candidate for 1 photo (2): complete it,"),
        ({"1": "a", "2": []}, REFERENCES, "candidates.json has no candidate for 1 photo (2)"),
        (CANDIDATES, REFERENCES | {"2": []}, "references.json has no reference for 1 photo (2)"),
        # Extra.
        (CANDIDATES | {"3": "a"}, REFERENCES, "references.json has no reference for 1 photo (3)"),
        ({"9": "a"}, REFERENCES, "no photo is in every file (candidates.json has 9, "),
        # Twice.
        ({"1": ["a", "a"], "2": "b"}, REFERENCES, "has more than one caption for 1 photo (1): "),
        # No caption.
        ({"1": None, "2": "b"}, REFERENCES, "candidates.json, key 1: captions is no text: make it"),
        ({"\ud800\n\x1b[2J": None}, REFERENCES, r"key \ud800\n\x1b[2J: captions is no text"),
        ({}, REFERENCES, "candidates.json holds no captions: give a file that does"),
        (CANDIDATES, {}, "references.json holds no captions: give a file that does"),
    ],
)
def test_files_that_cannot_be_scored_are_told_in_a_line(
    candidates: object, references: object, told: str
) -> None:
    write("candidates.json", candidates)
    write("references.json", references)
    result = score("--json")
    assert isinstance(result.exception, SystemExit)
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert told in line


def test_photos_left_out_are_noted_and_the_others_scored() -> None:
    whole = json.loads(score("--json").stdout)
    write("candidates.json", CANDIDATES | {"3": "more"})
    write("references.json", REFERENCES | {"4": ["more"]})
    result = score("--json", "--subset")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == whole
    assert result.stderr.splitlines() == [
        "note: left out: candidates.json has no candidate for 1 photo (4)",
        "note: left out: references.json has no reference for 1 photo (3)",
    ]


def test_empty_captions_are_scored_and_noted() -> None:
    write("candidates.json", CANDIDATES | {"2": ""})
    result = score("--json")
    assert result.exit_code == 0
    assert 0 < json.loads(result.stdout)["ROUGE-L"] < 60
    assert result.stderr == (
        "note: candidates.json has candidates without a word, scored 0: 1 photo (2)\n"
    )


def test_a_single_reference_is_noted() -> None:
    write("references.json", {"1": "a dog runs", "2": "a cat sits"})
    result = score("--json")
    assert json.loads(result.stdout)["BLEU-1"] == 100
    assert result.stderr == (
        "note: 1 reference a photo: scores rise with their number, papers have 5\n"
    )


def test_what_caption_image_prints_is_scored_by_the_photos_names() -> None:
    lines = [
        {"photo": f"some/where/{photo}", "caption": said, "alternatives": [{"caption": "else"}]}
        for photo, said in CANDIDATES.items()
    ]
    Path("said.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    assert score("--json", candidates="said.jsonl").stdout == score("--json").stdout


def test_a_split_or_search_is_chosen_by_its_option() -> None:
    Path("said.csv").write_text(
        "image_id,search,caption\n1,greedy,x\n1,beam_20,a dog runs\n2,greedy,x\n"
        "2,beam_20,a cat sits\n"
    )
    failed(
        score(candidates="said.csv"),
        "Error: said.csv has the captions of several searches: choose one by --search, "
        "beam_20 or greedy",
    )
    chosen = score("--json", "--search", "beam_20", candidates="said.csv")
    assert chosen.stdout == score("--json").stdout
    failed(
        score("--split", "test"),
        "Error: references.json has no captions of split 'test', it has no split",
    )


@pytest.mark.parametrize("name", ["absent.json", "folder.json", "candidates", "-", ""])
def test_what_is_no_file_is_told_in_a_line(name: str) -> None:
    Path("folder.json").mkdir()
    result = score(candidates=name)
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code != 0
    assert result.stderr.startswith(f"Error: {name or '.'} ")
    assert len(result.stderr.splitlines()) == 1


# caption compare


def test_two_runs_are_compared_score_by_score() -> None:
    result = compare("candidates.json", "worse.json")
    succeeded(result)
    first, header, *rows, last = result.stdout.splitlines()
    assert first == "2 photos; beam_20, where a run has several searches"
    assert header.split()[:2] == ["candidates.json", "worse.json"]
    assert [row.split()[0] for row in rows] == NAMES
    assert rows[0].split()[1:4] == ["100.00", "50.00", "-50.00"]
    # Of two photos nothing can be told.
    assert last == "no difference is more than chance would do (p < 0.05)"


def test_a_run_that_is_clearly_worse_is_told() -> None:
    photos = [str(photo) for photo in range(20)]
    write("references.json", dict.fromkeys(photos, FIVE))
    write("candidates.json", dict.fromkeys(photos, "a dog runs"))
    write("worse.json", dict.fromkeys(photos, "a dog sits"))
    result = compare("candidates.json", "worse.json")
    succeeded(result)
    assert "more than chance would do (p < 0.05): BLEU-1, BLEU-2, BLEU-3" in result.stdout
    same = compare("candidates.json", "candidates.json").stdout
    assert "no difference is more than chance would do" in same


def test_notes_are_of_both_runs_and_on_standard_error() -> None:
    write("candidates.json", CANDIDATES | {"1": ""})
    result = compare("candidates.json", "worse.json")
    assert result.exit_code == 0
    assert result.stderr == (
        "note: candidates.json has candidates without a word, scored 0: 1 photo (1)\n"
    )


def test_a_comparison_that_tells_nothing_is_refused() -> None:
    write("candidates.json", {"1": "a"})
    failed(
        compare("candidates.json", "worse.json"),
        "Error: candidates.json has no candidate for 1 photo (2): complete it, or leave such "
        "photos out by --subset",
    )
    failed(
        compare("--subset", "candidates.json", "worse.json"),
        "Error: one photo tells no difference from chance: compare captions of more",
    )


def test_a_run_s_name_stays_in_its_column_whatever_it_holds() -> None:
    name = os.fsdecode(b"caf\xe9\n.json")
    try:
        write(name, CANDIDATES)
    except OSError:
        pytest.skip("this file system has no such names")
    # A terminal takes no half characters; CliRunner's output would.
    command = "import sys; from pipeline.cli.main import main; main(sys.argv[1:])"
    arguments = ["compare", "--references", "references.json", name, "worse.json"]
    run = subprocess.run(
        [sys.executable, "-c", command, *arguments],
        capture_output=True,
        check=False,
        env=os.environ | {"PYTHONIOENCODING": "utf-8:strict"},
    )
    assert (run.returncode, run.stderr) == (0, b"")
    assert run.stdout.decode("utf-8").splitlines()[1].split()[0] == "caf\ufffd\\n.json"


def test_outside_of_a_project_a_revision_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    # The folder may lie inside a repository all the same.
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(Path.cwd().parent))
    result = compare("HEAD", "worse.json")
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: HEAD is no file, no folder, and no revision whose predictions")
    assert line.endswith(": `git log` and `dvc exp show` list revisions")


@pytest.mark.large
def test_a_revision_or_an_experiment_is_compared_with_a_folder(
    project: Project, tmp_path: Path
) -> None:
    # Words of people instead of the model's.
    people = pq.read_table(project.folder / "artifacts/captions.parquet").to_pylist()
    said = {row["image_id"]: row["raw"] for row in people if row["split"] == "test"}
    perfect = [{"image_id": i, "search": "greedy", "caption": raw} for i, raw in said.items()]
    pq.write_table(pa.Table.from_pylist(perfect), tmp_path / "predictions.parquet")
    before = project.run("git", "status", "--short").output
    saved = project.run("dvc", "exp", "save", "--name", "saved")
    assert saved.code == 0, saved.output
    try:
        for revision in ("HEAD", "saved"):
            run = project.run("caption", "compare", revision, str(tmp_path), "--search", "greedy")
            assert run.code == 0, run.output
            rows = dict(line.split(maxsplit=1) for line in run.output.splitlines())
            ours, theirs = map(float, rows["BLEU-1"].split()[:2])
            assert ours < theirs == 100, run.output
    finally:
        project.run("dvc", "exp", "remove", "saved")
    absent = project.run("caption", "compare", "HEAD", "no-such-branch", "--search", "greedy")
    assert absent.code == 1
    (line,) = absent.output.splitlines()
    assert line.startswith("Error: no-such-branch is no file, no folder, and no revision whose")
    assert project.run("git", "status", "--short").output == before


# Both


HEAVY = ("dvc", "h5py", "keras", "nltk", "pandas", "scipy", "tensorflow")


@pytest.mark.parametrize("name", ["object.json", "table.csv", "table.parquet"])
def test_neither_command_imports_what_takes_seconds(name: str) -> None:
    captions = {photo: [said] for photo, said in CANDIDATES.items()}
    WRITERS[name](Path(name), captions)
    code = f"""
import contextlib, io, sys
from pipeline.cli.main import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    main(["score", "{name}", "references.json"], standalone_mode=False)
    main(["compare", "{name}", "{name}", "--references", "references.json"], standalone_mode=False)
print(sorted({{*{HEAVY}}} & set(sys.modules)))
"""
    said, modules = slow_imports(code)
    assert (said, modules) == ("[]", ["numpy"])
