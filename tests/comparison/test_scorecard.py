import math
import shutil
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.comparison import scorecard
from pipeline.comparison.caption_files import Captions
from pipeline.comparison.scorecard import Scorecard, compare_runs, difference_lines, score_files
from pipeline.errors import InputError
from pipeline.metrics.significance import Difference
from tests.comparison.test_caption_files import WRITERS, write_json

PUBLISHED = Path(__file__).parents[2].parent / "shared" / "coco_caption"

CANDIDATES: Captions = {"1": ["The cat sat."], "2": ["a dog ran"]}
REFERENCES: Captions = {"1": ["the cat sat on"], "2": ["A dog ran!"]}


def score(candidates: Path, references: Path) -> Scorecard:
    return score_files(candidates, references, None, None, subset=False)


def scored(tmp_path: Path, candidates: Captions, references: Captions) -> Scorecard:
    write_json(tmp_path / "candidates.json", candidates)
    write_json(tmp_path / "references.json", references)
    return score(tmp_path / "candidates.json", tmp_path / "references.json")


def test_a_small_corpus_scores_what_one_works_out_by_hand(tmp_path: Path) -> None:
    # All n-grams match, there is no 4-gram, and 6 words stand against 7.
    brevity = 100 * math.exp(1 - 7 / 6)
    # Of the first photo precision is 1 and recall 3 / 4; of the second both are 1.
    rouge_l = 100 * ((1 + 1.2**2) * 0.75 / (0.75 + 1.2**2) + 1) / 2
    # Every n-gram is of one photo, so that all weigh alike: cosines of counts. A word's
    # difference in length costs the first photo a little.
    cosines = 3 / math.sqrt(3 * 4) + 2 / math.sqrt(2 * 3) + 1 / math.sqrt(1 * 2)
    cider_d = 1000 * (cosines / 4 * math.exp(-1 / (2 * 6**2)) + 3 / 4) / 2
    expected = [brevity, brevity, brevity, 0, rouge_l, cider_d]
    found = scored(tmp_path, CANDIDATES, REFERENCES).corpus
    assert list(found) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr-D"]
    assert list(found.values()) == [round(value, 2) for value in expected]


@pytest.mark.parametrize("name", WRITERS)
def test_the_scores_are_the_same_whatever_the_form_of_the_files(tmp_path: Path, name: str) -> None:
    expected = scored(tmp_path, CANDIDATES, REFERENCES)
    candidates, references = tmp_path / f"ours-{name}", tmp_path / f"people-{name}"
    WRITERS[name](candidates, CANDIDATES)
    WRITERS[name](references, REFERENCES)
    assert score(candidates, references).corpus == expected.corpus
    assert score(candidates, tmp_path / "references.json").lines() == expected.lines()


def test_photos_count_alike_whichever_way_their_names_accents_are_typed(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    perfect = scored(
        tmp_path,
        {decomposed: [f"a {composed} here"], "2": ["犬 が 走る"]},
        {composed: [f"a {decomposed} here"], "2": ["犬 が 走る"]},
    )
    assert perfect.corpus["BLEU-1"] == perfect.corpus["ROUGE-L"] == 100


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the captions of ../shared are not there")
def test_the_published_captions_score_what_coco_caption_gives_them() -> None:
    card = score(PUBLISHED / "candidates.json", PUBLISHED / "references.json")
    assert list(card.corpus.values()) == [60.76, 41.90, 27.90, 18.27, 44.70, 47.91]
    assert card.pairing.notes == []
    first, *lines = card.lines()
    assert first == "1000 photos; x100, and 95 % of resampled photo sets"
    for line in lines:
        _, value, low, _, high = line.split()
        assert float(low) < float(value) < float(high)
        assert float(high) - float(low) < 7


def test_of_one_photo_neither_cider_nor_an_interval_is_told(tmp_path: Path) -> None:
    card = scored(tmp_path, {"1": ["a dog"]}, {"1": ["a dog", "the dog"]})
    assert card.corpus["CIDEr-D"] is None
    assert card.lines() == [
        "1 photo; x100",
        "BLEU-1    100.00",
        "BLEU-2    100.00",
        "BLEU-3      0.00",
        "BLEU-4      0.00",
        "ROUGE-L   100.00",
        "CIDEr-D      n/a",
    ]
    assert any("of one photo CIDEr-D is n/a" in note for note in card.pairing.notes)


def test_captions_without_a_word_score_nothing(tmp_path: Path) -> None:
    empty = scored(tmp_path, {"1": [""], "2": ["."]}, REFERENCES)
    assert set(empty.corpus.values()) == {0}
    assert set(scored(tmp_path, CANDIDATES, {"1": [""], "2": ["", "?"]}).corpus.values()) == {0}


# Two runs.


WORDS = ["red", "green", "blue", "white", "dog", "cat", "horse", "runs", "sits", "on", "grass"]


def people(photos: int) -> Captions:
    """Caption photos, each a little different from the next."""
    return {
        str(photo): [" ".join(WORDS[photo * (place + 1) % len(WORDS)] for place in range(6))]
        for photo in range(photos)
    }


def worse(captions: Captions, every: int, first: int = 0) -> Captions:
    """Spoil the first word of every so many captions."""
    spoilt = range(first, len(captions), every)
    return {
        image_id: [f"what {caption.partition(' ')[2]}" if int(image_id) in spoilt else caption]
        for image_id, (caption,) in captions.items()
    }


def compared(
    tmp_path: Path, ours: Captions, theirs: Captions, references: Captions, *, subset: bool = False
) -> tuple[list[str], dict[str, Difference]]:
    """Compare two runs' files; return notes and differences."""
    for name, captions in (("ours", ours), ("theirs", theirs), ("people", references)):
        write_json(tmp_path / f"{name}.json", captions)
    runs = str(tmp_path / "ours.json"), str(tmp_path / "theirs.json")
    pairing, found = compare_runs(runs, tmp_path / "people.json", None, None, subset=subset)
    return [note.replace(f"{tmp_path}/", "") for note in pairing.notes], found


def test_a_run_that_is_worse_everywhere_differs_by_more_than_chance(tmp_path: Path) -> None:
    captions = people(40)
    _, found = compared(tmp_path, captions, worse(captions, 1), captions)
    bleu_1 = found["BLEU-1"]
    assert (bleu_1.ours, bleu_1.theirs) == pytest.approx((100, 500 / 6))
    assert all(of.theirs < of.ours and of.p_value < 0.01 for of in found.values())
    assert difference_lines(["a", "b"], found)[-1] == (
        "more than chance would do (p < 0.05): BLEU-1, BLEU-2, BLEU-3, BLEU-4, ROUGE-L, CIDEr-D"
    )


def test_a_difference_of_noise_is_called_that(tmp_path: Path) -> None:
    captions = people(40)
    # Each is worse on as many photos.
    _, found = compared(tmp_path, worse(captions, 2), worse(captions, 2, first=1), captions)
    assert all(of.p_value > 0.05 for of in found.values())
    assert any(of.ours != of.theirs for of in found.values())
    assert difference_lines(["one", "another"], found)[-1] == (
        "no difference is more than chance would do (p < 0.05)"
    )


def test_a_comparison_turned_round_is_the_same_with_the_signs_changed(tmp_path: Path) -> None:
    captions = people(20)
    _, there = compared(tmp_path, captions, worse(captions, 3), captions)
    _, back = compared(tmp_path, worse(captions, 3), captions, captions)
    for name, of in there.items():
        assert (back[name].ours, back[name].theirs) == (of.theirs, of.ours)
        assert back[name].interval == pytest.approx((-of.interval[1], -of.interval[0]))
        assert back[name].p_value == pytest.approx(of.p_value)


def test_the_lines_have_both_scores_their_difference_and_what_chance_does() -> None:
    found = {
        "BLEU-4": Difference(20.0, 18.5, (-2.25, -0.75), 0.0005),
        "CIDEr-D": Difference(100.0, 101.0, (-1.0, 3.0), 0.05),
    }
    assert difference_lines(["HEAD", "a long name"], found) == [
        "              HEAD  a long name  difference  95 %              p",
        "BLEU-4       20.00        18.50       -1.50  -2.25 to -0.75    0.0005",
        "CIDEr-D     100.00       101.00       +1.00  -1.00 to +3.00    0.0500",
        "more than chance would do (p < 0.05): BLEU-4",
    ]


def test_photos_that_one_run_lacks_are_left_out_of_both_when_asked_for(tmp_path: Path) -> None:
    captions = people(6)
    fewer = {i: captions[i] for i in "01234"}
    with pytest.raises(InputError, match=r"theirs.json has no candidate for 1 photo \(5\)"):
        compared(tmp_path, captions, fewer, captions)
    notes, found = compared(tmp_path, captions, fewer, captions, subset=True)
    assert notes[0] == "left out: theirs.json has no candidate for 1 photo (5)"
    assert found == compared(tmp_path, fewer, fewer, fewer)[1]
    # A photo that is named, and has no caption, is lacking too.
    assert (notes, found) == compared(tmp_path, captions, fewer | {"5": []}, captions, subset=True)


def test_notes_are_of_both_runs(tmp_path: Path) -> None:
    captions = people(3)
    notes, _ = compared(tmp_path, captions | {"1": ["."]}, captions | {"2": [""]}, captions)
    assert notes[:2] == [
        "ours.json has candidates without a word, scored 0: 1 photo (1)",
        "theirs.json has candidates without a word, scored 0: 1 photo (2)",
    ]


def test_of_one_photo_no_difference_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one photo tells no difference from chance"):
        compared(tmp_path, people(1), people(1), people(1))


# What a run may be.


def read(run: str, references: Path, search: str | None = None) -> dict[str, float]:
    """Compare a run with itself; return its scores."""
    _, found = compare_runs((run, run), references, None, search, subset=False)
    return {name: of.ours for name, of in found.items()}


def write_searches(path: Path, **searches: Captions) -> None:
    """Write predictions as the stage evaluate does, of searches."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"image_id": image_id, "search": search, "caption": caption}
        for search, captions in searches.items()
        for image_id, (caption,) in captions.items()
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.fixture
def references(tmp_path: Path) -> Path:
    """Write captions by people, of two splits."""
    captions = people(6)
    rows = [
        {"image_id": image_id, "split": "test" if image_id < "4" else "dev", "raw": caption}
        for image_id, (caption,) in captions.items()
    ]
    path = tmp_path / "people.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("place", scorecard._IN_A_FOLDER)
def test_a_run_may_be_a_folder_with_predictions(
    tmp_path: Path, references: Path, place: str
) -> None:
    captions = people(4)
    write_searches(tmp_path / place, beam_20=captions, greedy=worse(captions, 1))
    run = str(tmp_path)
    assert read(run, references)["BLEU-1"] == 100
    assert read(run, references, "greedy")["BLEU-1"] == pytest.approx(500 / 6)
    with pytest.raises(
        InputError, match="no captions of search 'beam_5', it has beam_20 and greedy"
    ):
        read(run, references, "beam_5")


def test_a_run_may_have_a_single_search_whichever_it_is(tmp_path: Path, references: Path) -> None:
    write_searches(tmp_path / "predictions.parquet", greedy=people(4))
    assert read(str(tmp_path), references)["BLEU-1"] == 100


@pytest.mark.parametrize("name", WRITERS)
def test_a_run_may_be_a_file_without_searches(tmp_path: Path, references: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path, people(4))
    assert read(str(path), references)["BLEU-1"] == 100


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_references_need_not_have_splits(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path, people(4))
    assert read(str(path), path)["ROUGE-L"] == 100


def test_a_folder_without_predictions_is_told(tmp_path: Path, references: Path) -> None:
    with pytest.raises(InputError, match=r" holds no predictions.parquet: run `dvc repro` there"):
        read(str(tmp_path), references)


def a_dvc_that(
    monkeypatch: pytest.MonkeyPatch, code: int, errors: str, fetched: Path | None = None
) -> list[list[str]]:
    """Put another `dvc` in the place of the real one; return the commands to be run."""
    commands = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        if fetched is not None:
            shutil.copyfile(fetched, command[-1])
        return subprocess.CompletedProcess(command, code, "", errors)

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_what_is_no_file_is_asked_of_dvc_as_a_revision(
    tmp_path: Path, references: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_searches(tmp_path / "kept.parquet", beam_20=people(4))
    commands = a_dvc_that(monkeypatch, 0, "", tmp_path / "kept.parquet")
    runs = "HEAD", "-x"
    _, found = compare_runs(runs, references, None, None, subset=False)
    assert found["BLEU-1"].ours == found["BLEU-1"].theirs == 100
    # A revision is no option, whatever it is called; no file takes another's place.
    assert [next(a for a in c if a.startswith("--rev")) for c in commands] == [
        "--rev=HEAD",
        "--rev=-x",
    ]
    targets = [Path(command[-1]) for command in commands]
    assert targets[0] != targets[1]
    assert not any(target.parent.exists() for target in targets)


def test_a_revision_is_named_where_its_captions_are_not_taken(
    tmp_path: Path, references: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_searches(tmp_path / "kept.parquet", greedy=people(4), beam_3=people(4))
    a_dvc_that(monkeypatch, 0, "", tmp_path / "kept.parquet")
    with pytest.raises(InputError) as caught:
        read("HEAD~3", references)
    assert str(caught.value) == (
        "HEAD~3:artifacts/evaluation/predictions.parquet has the captions of several searches: "
        "choose one by --search, beam_3 or greedy"
    )


@pytest.mark.parametrize(
    ("errors", "reason"),
    [("ERROR: no\n  such revision\n", "ERROR: no such revision"), ("", "exit code 5")],
)
@pytest.mark.parametrize("run", ["absent.json", "x" * 300, "loop"])
def test_what_dvc_does_not_have_is_told_in_a_line(
    tmp_path: Path,
    references: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: str,
    errors: str,
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    a_dvc_that(monkeypatch, 5, errors)
    with pytest.raises(InputError) as caught:
        read(run, references)
    assert str(caught.value) == (
        f"{run} is no file, no folder, and no revision whose predictions DVC has ({reason}): "
        "`git log` and `dvc exp show` list revisions"
    )
