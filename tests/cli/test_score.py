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
def caption_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change to a folder with candidates, references, and a worse run."""
    monkeypatch.chdir(tmp_path)
    write_file("candidates.json", CANDIDATES)
    write_file("references.json", REFERENCES)
    write_file("worse.json", {"1": "a horse", "2": "a tree"})


def write_file(name: str, value: object) -> None:
    Path(name).write_text(json.dumps(value), "utf-8")


def run_caption(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def run_score(*options: str, candidates: str = "candidates.json") -> Result:
    return run_caption("score", *options, candidates, "references.json")


def run_compare(*arguments: str) -> Result:
    return run_caption("compare", "--references", "references.json", *arguments)


# caption score


def test_json_is_one_object_with_the_scores() -> None:
    result = run_score("--json")
    succeeded(result)
    (line,) = result.stdout.splitlines()
    scores = json.loads(line)
    assert list(scores) == NAMES
    assert scores["BLEU-1"] == 100
    assert scores["BLEU-4"] < 4  # there is no 4-gram
    assert scores["CIDEr-D"] > scores["ROUGE-L"] == 100


def write_thirty_photos() -> None:
    """Repeat the two photos of candidates and references until they suffice for intervals."""
    photos = [str(photo) for photo in range(30)]
    for name, captions in (("candidates.json", CANDIDATES), ("references.json", REFERENCES)):
        write_file(name, {photo: captions[str(1 + int(photo) % 2)] for photo in photos})


def test_few_photos_get_scores_without_intervals() -> None:
    result = run_score()
    succeeded(result)
    first, *lines, last = result.stdout.splitlines()
    assert first == "2 photos; x100"
    assert [line.split()[0] for line in lines] == NAMES
    assert lines[0] == "BLEU-1    100.00"
    assert last.startswith("2 photos are too few to tell a difference from chance")


def test_text_has_each_score_with_its_interval() -> None:
    write_thirty_photos()
    result = run_score()
    succeeded(result)
    first, *lines = result.stdout.splitlines()
    assert first == "30 photos; x100, with 95 % bootstrap intervals"
    assert [line.split()[0] for line in lines] == NAMES
    assert lines[0] == "BLEU-1    100.00   100.00 to 100.00"
    assert re.fullmatch(r"ROUGE-L +(\d+\.\d\d) {3}\d+\.\d\d to \d+\.\d\d", lines[4])


def test_the_output_is_deterministic() -> None:
    assert run_score().stdout == run_score().stdout
    assert run_compare("candidates.json", "worse.json").stdout == (
        run_compare("candidates.json", "worse.json").stdout
    )


def test_cider_of_one_photo_is_null_with_a_note_on_standard_error() -> None:
    write_file("references.json", {"1": FIVE})
    result = run_score("--json", "--subset")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["CIDEr-D"] is None
    left_out, single = result.stderr.splitlines()
    assert left_out == "note: left out: references.json has no reference for 1 photo (2)"
    assert single.startswith("note: CIDEr-D is n/a for a single photo, because it weights words")
    assert "CIDEr-D      n/a" in run_score("--subset").stdout.splitlines()


@pytest.mark.parametrize(
    ("candidates", "references", "message"),
    [
        # Missing.
        ({"1": "a"}, REFERENCES, "candidates.json has no candidate for 1 photo (2): add what"),
        ({"1": "a", "2": []}, REFERENCES, "candidates.json has no candidate for 1 photo (2)"),
        (CANDIDATES, REFERENCES | {"2": []}, "references.json has no reference for 1 photo (2)"),
        # Extra.
        (CANDIDATES | {"3": "a"}, REFERENCES, "references.json has no reference for 1 photo (3)"),
        ({"9": "a"}, REFERENCES, "no photo is in every file (candidates.json has 9, "),
        # Duplicate.
        ({"1": ["a", "a"], "2": "b"}, REFERENCES, "has more than one caption for 1 photo (1): "),
        # Invalid captions.
        (
            {"1": None, "2": "b"},
            REFERENCES,
            "candidates.json, key 1: captions is not text: make it",
        ),
        ({"\ud800\n\x1b[2J": None}, REFERENCES, r"key \ud800\n\x1b[2J: captions is not text"),
        ({}, REFERENCES, "candidates.json contains no captions: give a file that does"),
        (CANDIDATES, {}, "references.json contains no captions: give a file that does"),
    ],
)
def test_files_that_cannot_be_scored_are_refused_in_one_line(
    candidates: object, references: object, message: str
) -> None:
    write_file("candidates.json", candidates)
    write_file("references.json", references)
    result = run_score("--json")
    assert isinstance(result.exception, SystemExit)
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert message in line


def test_photos_are_left_out_with_a_note_and_the_others_are_scored() -> None:
    complete = json.loads(run_score("--json").stdout)
    write_file("candidates.json", CANDIDATES | {"3": "more"})
    write_file("references.json", REFERENCES | {"4": ["more"]})
    result = run_score("--json", "--subset")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == complete
    assert result.stderr.splitlines() == [
        "note: left out: candidates.json has no candidate for 1 photo (4)",
        "note: left out: references.json has no reference for 1 photo (3)",
    ]


def test_empty_captions_are_scored_with_a_note() -> None:
    write_file("candidates.json", CANDIDATES | {"2": ""})
    result = run_score("--json")
    assert result.exit_code == 0
    assert 0 < json.loads(result.stdout)["ROUGE-L"] < 60
    assert result.stderr == (
        "note: candidates.json has candidates without a word, scored 0: 1 photo (2)\n"
    )


def test_a_single_reference_is_noted() -> None:
    write_file("references.json", {"1": "a dog runs", "2": "a cat sits"})
    result = run_score("--json")
    assert json.loads(result.stdout)["BLEU-1"] == 100
    assert result.stderr == (
        "note: 1 reference per photo: scores rise with the number of references, papers use 5\n"
    )


def test_the_output_of_caption_image_is_scored_by_file_name() -> None:
    lines = [
        {"photo": f"some/where/{photo}", "caption": text, "alternatives": [{"caption": "else"}]}
        for photo, text in CANDIDATES.items()
    ]
    Path("output.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    assert run_score("--json", candidates="output.jsonl").stdout == run_score("--json").stdout


def test_a_split_or_search_is_selected_by_its_option() -> None:
    Path("searches.csv").write_text(
        "image_id,search,caption\n1,greedy,x\n1,beam_40,a dog runs\n2,greedy,x\n"
        "2,beam_40,a cat sits\n"
    )
    failed(
        run_score(candidates="searches.csv"),
        "Error: searches.csv has captions of several searches: choose one with --search: "
        "beam_40 or greedy",
    )
    selected = run_score("--json", "--search", "beam_40", candidates="searches.csv")
    assert selected.stdout == run_score("--json").stdout
    failed(
        run_score("--split", "test"),
        "Error: references.json has no captions of split 'test', it has no split",
    )


@pytest.mark.parametrize("name", ["absent.json", "folder.json", "candidates", "-", ""])
def test_a_path_that_is_not_a_file_is_refused_in_one_line(name: str) -> None:
    Path("folder.json").mkdir()
    result = run_score(candidates=name)
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code != 0
    assert result.stderr.startswith(f"Error: {name or '.'} ")
    assert len(result.stderr.splitlines()) == 1


# caption compare


def test_two_runs_are_compared_in_every_score() -> None:
    result = run_compare("candidates.json", "worse.json")
    succeeded(result)
    first, header, *rows, last = result.stdout.splitlines()
    assert first == "2 photos; beam_40, where a run has several searches"
    assert header.split()[:2] == ["candidates.json", "worse.json"]
    assert [row.split()[0] for row in rows] == NAMES
    assert rows[0].split()[1:4] == ["100.00", "50.00", "-50.00"]
    assert last.startswith("2 photos are too few to tell a difference from chance")


def test_a_clearly_worse_run_differs_significantly() -> None:
    photos = [str(photo) for photo in range(30)]
    write_file("references.json", dict.fromkeys(photos, FIVE))
    write_file("candidates.json", dict.fromkeys(photos, "a dog runs"))
    write_file("worse.json", dict.fromkeys(photos, "a dog sits"))
    result = run_compare("candidates.json", "worse.json")
    succeeded(result)
    assert "significant (p < 0.05): BLEU-1, BLEU-2, BLEU-3" in result.stdout
    same = run_compare("candidates.json", "candidates.json")
    assert "no significant difference (p < 0.05)" in same.stdout
    assert same.stderr == "note: the two runs have the same captions\n"


def test_notes_about_either_run_are_on_standard_error() -> None:
    write_file("candidates.json", CANDIDATES | {"1": ""})
    result = run_compare("candidates.json", "worse.json")
    assert result.exit_code == 0
    assert result.stderr == (
        "note: candidates.json has candidates without a word, scored 0: 1 photo (1)\n"
    )


def test_a_comparison_of_one_photo_is_refused() -> None:
    write_file("candidates.json", {"1": "a"})
    failed(
        run_compare("candidates.json", "worse.json"),
        "Error: candidates.json has no candidate for 1 photo (2): add what is missing, or leave "
        "such photos out with --subset",
    )
    failed(
        run_compare("--subset", "candidates.json", "worse.json"),
        "Error: one photo cannot show a significant difference: compare more photos",
    )


def test_any_file_name_of_a_run_fits_its_column() -> None:
    name = os.fsdecode(b"caf\xe9\n.json")
    try:
        write_file(name, CANDIDATES)
    except OSError:
        pytest.skip("this file system does not allow such names")
    # A terminal refuses unpaired surrogates; CliRunner's output would not.
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


def test_a_revision_outside_a_project_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The folder may still be inside some other repository.
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(Path.cwd().parent))
    result = run_compare("HEAD", "worse.json")
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line == (
        "Error: HEAD is not a file or a folder, and there is no git repository here: run this in "
        "the project's folder, or name folders"
    )


def test_a_revision_or_an_experiment_is_compared_with_a_folder(
    project: Project, tmp_path: Path
) -> None:
    # The run in the folder has perfect captions: the references themselves.
    references = pq.read_table(project.folder / "artifacts/captions.parquet").to_pylist()
    captions = {row["image_id"]: row["raw"] for row in references if row["split"] == "test"}
    perfect = [{"image_id": i, "search": "greedy", "caption": raw} for i, raw in captions.items()]
    pq.write_table(pa.Table.from_pylist(perfect), tmp_path / "predictions.parquet")
    status = project.run("git", "status", "--short").output
    saved = project.run("dvc", "exp", "save", "--name", "saved")
    assert saved.code == 0, saved.output
    try:
        for revision in ("HEAD", "saved"):
            run = project.run("caption", "compare", revision, str(tmp_path), "--search", "greedy")
            assert run.code == 0, run.output
            rows = dict(line.split(maxsplit=1) for line in run.output.splitlines())
            first, second = map(float, rows["BLEU-1"].split()[:2])
            assert first < second == 100, run.output
    finally:
        project.run("dvc", "exp", "remove", "saved")
    absent = project.run("caption", "compare", "HEAD", "no-such-branch", "--search", "greedy")
    assert absent.code == 1
    (line,) = absent.output.splitlines()
    assert line == (
        "Error: no-such-branch is not a file, a folder, a git revision or an experiment: "
        "`git log` and `dvc exp list` list them"
    )
    assert project.run("git", "status", "--short").output == status


# Both commands


SLOW_IMPORTS = ("dvc", "h5py", "keras", "nltk", "pandas", "scipy", "tensorflow")


@pytest.mark.parametrize("name", ["object.json", "table.csv", "table.parquet"])
def test_neither_command_imports_slow_packages(name: str) -> None:
    captions = {photo: [text] for photo, text in CANDIDATES.items()}
    WRITERS[name](Path(name), captions)
    code = f"""
import contextlib, io, sys
from pipeline.cli.main import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    main(["score", "{name}", "references.json"], standalone_mode=False)
    main(["compare", "{name}", "{name}", "--references", "references.json"], standalone_mode=False)
print(sorted({{*{SLOW_IMPORTS}}} & set(sys.modules)))
"""
    output, modules = slow_imports(code)
    assert (output, modules) == ("[]", ["numpy"])
