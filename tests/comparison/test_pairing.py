from pathlib import Path

import pytest

from pipeline.comparison.caption_files import Captions
from pipeline.comparison.pairing import Pairing, pair
from pipeline.errors import InputError

OURS, THEIRS, REFERENCES = Path("ours.json"), Path("theirs.json"), Path("references.json")
FIVE = ["a dog", "the dog", "one dog", "dogs", "a brown dog"]


def paired(*runs: Captions, references: Captions, subset: bool = False) -> Pairing:
    named = list(zip([OURS, THEIRS], runs, strict=False))
    return pair(named, REFERENCES, references, subset=subset)


def refusal(*runs: Captions, references: Captions, subset: bool = False) -> str:
    with pytest.raises(InputError) as caught:
        paired(*runs, references=references, subset=subset)
    return str(caught.value)


def test_photos_are_paired_by_name_whatever_their_order() -> None:
    found = paired(
        {"2": ["A cat."], "1": ["a dog"]},
        {"1": ["dogs"], "2": [""]},
        references={"1": FIVE, "2": FIVE},
    )
    assert found.image_ids == ["1", "2"]
    assert found.candidates == [[["a", "dog"], ["a", "cat"]], [["dogs"], []]]
    assert [len(group) for group in found.groups] == [5, 5]
    assert found.groups[0][4] == ["a", "brown", "dog"]


def test_of_what_papers_score_there_is_nothing_to_note() -> None:
    assert paired({"1": ["a"], "2": ["b"]}, references={"1": FIVE, "2": FIVE}).notes == []


FIX = "complete it, or leave such photos out by --subset"


@pytest.mark.parametrize(
    ("runs", "references", "told"),
    [
        (["12"], "123", "ours.json has no candidate for 1 photo (3)"),
        (["1"], "123456", "ours.json has no candidate for 5 photos (2, 3, 4 and 2 more)"),
        (["123"], "12", "references.json has no reference for 1 photo (3)"),
        (["123", "12"], "123", "theirs.json has no candidate for 1 photo (3)"),
        (["12", "123"], "123", "ours.json has no candidate for 1 photo (3)"),
        (["12", "123"], "12", "references.json has no reference for 1 photo (3)"),
    ],
)
def test_photos_that_a_file_lacks_are_an_error_or_left_out_and_noted(
    runs: list[str], references: str, told: str
) -> None:
    candidates: list[Captions] = [{i: [f"photo {i}"] for i in run} for run in runs]
    of_photos = dict.fromkeys(references, FIVE)
    assert refusal(*candidates, references=of_photos) == f"{told}: {FIX}"
    found = paired(*candidates, references=of_photos, subset=True)
    assert f"left out: {told}" in found.notes
    assert found.image_ids == sorted(set(references).intersection(*runs))
    for of_run in found.candidates:
        assert of_run == [["photo", i] for i in found.image_ids]
    assert len(found.groups) == len(found.image_ids)


def test_each_run_is_told_what_it_alone_lacks() -> None:
    captions: Captions = {i: [i] for i in "1234"}
    ours = {i: captions[i] for i in "124"}
    theirs = {i: captions[i] for i in "123"}
    found = paired(ours, theirs, references=captions, subset=True)
    assert found.image_ids == ["1", "2"]
    assert found.notes[:2] == [
        "left out: ours.json has no candidate for 1 photo (3)",
        "left out: theirs.json has no candidate for 1 photo (4)",
    ]


@pytest.mark.parametrize("subset", [False, True])
def test_files_of_different_photos_are_told_with_what_they_call_them(subset: bool) -> None:
    told = refusal({"a.jpg": ["x"]}, references={"a": ["x"], "b": ["y"]}, subset=subset)
    assert told == (
        "no photo is in every file (ours.json has a.jpg, references.json has a): "
        "name photos alike in all of them"
    )


def test_a_second_candidate_of_a_photo_is_told() -> None:
    told = refusal({"1": ["a"], "2": ["b"]}, {"1": ["a", "a"], "2": ["b"]}, references={"1": FIVE})
    assert (
        told == "theirs.json has more than one caption for 1 photo (1): leave one candidate a photo"
    )


def test_strange_names_are_told_in_one_line_and_not_at_length() -> None:
    strange: Captions = {"a\n\x1b[2J": ["x"], "b" * 10**6: ["y"], "c": ["z"]}
    told = refusal({"c": ["z"]}, references=strange)
    assert told == (rf"ours.json has no candidate for 2 photos (a\n\x1b[2J, {'b' * 100}...): {FIX}")
    told = refusal({"z": ["z"]}, references={"b" * 10**6: ["y"]})
    assert f"(ours.json has z, references.json has {'b' * 100}...)" in told


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ((1, 1), "1 reference a photo"),
        ((4, 4), "4 references a photo"),
        ((1, 2), "1 to 2 references a photo"),
        ((3, 7), "3 to 7 references a photo"),
    ],
)
def test_fewer_references_than_in_papers_are_noted(sizes: tuple[int, int], said: str) -> None:
    references = {str(i): ["a dog"] * size for i, size in enumerate(sizes)}
    found = paired({i: ["a dog"] for i in references}, references=references)
    assert found.notes == [f"{said}: scores rise with their number, papers have 5"]


def test_captions_without_a_word_are_noted_with_their_file() -> None:
    references = dict.fromkeys("12", FIVE) | {"3": [*FIVE, " . "]}
    run = {"1": [""], "2": ["a dog"], "3": ["...!"]}
    found = paired(run, {i: ["dog"] for i in "123"}, references=references)
    assert found.candidates[0] == [[], ["a", "dog"], []]
    assert found.notes == [
        "ours.json has candidates without a word, scored 0: 2 photos (1, 3)",
        "references without a word, scored as they are: of 1 photo (3)",
    ]


def test_a_single_photo_is_noted() -> None:
    (note,) = paired({"1": ["a"]}, references={"1": FIVE}).notes
    assert note.startswith("of one photo CIDEr-D is n/a, as it weighs words by how many photos")
