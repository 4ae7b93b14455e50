from pathlib import Path

import pytest

from pipeline.comparison.caption_files import Captions
from pipeline.comparison.pairing import Pairing, pair
from pipeline.errors import InputError

FIRST, SECOND, REFERENCES = Path("first.json"), Path("second.json"), Path("references.json")
FIVE = ["a dog", "the dog", "one dog", "dogs", "a brown dog"]


def pair_runs(*runs: Captions, references: Captions, subset: bool = False) -> Pairing:
    named = list(zip([FIRST, SECOND], runs, strict=False))
    return pair(named, REFERENCES, references, subset=subset)


def pairing_error(*runs: Captions, references: Captions, subset: bool = False) -> str:
    with pytest.raises(InputError) as caught:
        pair_runs(*runs, references=references, subset=subset)
    return str(caught.value)


def test_photos_are_paired_by_name_in_any_order() -> None:
    pairing = pair_runs(
        {"2": ["A cat."], "1": ["a dog"]},
        {"1": ["dogs"], "2": [""]},
        references={"1": FIVE, "2": FIVE},
    )
    assert pairing.image_ids == ["1", "2"]
    assert pairing.candidates == [[["a", "dog"], ["a", "cat"]], [["dogs"], []]]
    assert [len(captions) for captions in pairing.references] == [5, 5]
    assert pairing.references[0][4] == ["a", "brown", "dog"]


def test_a_usual_corpus_has_no_notes() -> None:
    assert pair_runs({"1": ["a"], "2": ["b"]}, references={"1": FIVE, "2": FIVE}).notes == []


FIX = "add what is missing, or leave such photos out with --subset"


@pytest.mark.parametrize(
    ("runs", "references", "message"),
    [
        (["12"], "123", "first.json has no candidate for 1 photo (3)"),
        (["1"], "123456", "first.json has no candidate for 5 photos (2, 3, 4 and 2 more)"),
        (["123"], "12", "references.json has no reference for 1 photo (3)"),
        (["123", "12"], "123", "second.json has no candidate for 1 photo (3)"),
        (["12", "123"], "123", "first.json has no candidate for 1 photo (3)"),
        (["12", "123"], "12", "references.json has no reference for 1 photo (3)"),
    ],
)
def test_missing_photos_are_an_error_or_left_out_with_a_note(
    runs: list[str], references: str, message: str
) -> None:
    candidates: list[Captions] = [{i: [f"photo {i}"] for i in run} for run in runs]
    five_each = dict.fromkeys(references, FIVE)
    assert pairing_error(*candidates, references=five_each) == f"{message}: {FIX}"
    pairing = pair_runs(*candidates, references=five_each, subset=True)
    assert f"left out: {message}" in pairing.notes
    assert pairing.image_ids == sorted(set(references).intersection(*runs))
    for candidates_of_run in pairing.candidates:
        assert candidates_of_run == [["photo", i] for i in pairing.image_ids]
    assert len(pairing.references) == len(pairing.image_ids)


def test_the_notes_list_the_missing_photos_of_each_run() -> None:
    captions: Captions = {i: [i] for i in "1234"}
    first = {i: captions[i] for i in "124"}
    second = {i: captions[i] for i in "123"}
    pairing = pair_runs(first, second, references=captions, subset=True)
    assert pairing.image_ids == ["1", "2"]
    assert pairing.notes[:2] == [
        "left out: first.json has no candidate for 1 photo (3)",
        "left out: second.json has no candidate for 1 photo (4)",
    ]


@pytest.mark.parametrize("subset", [False, True])
def test_files_without_common_photos_are_refused_with_an_example_of_each(subset: bool) -> None:
    message = pairing_error({"c.jpg": ["x"]}, references={"a": ["x"], "b": ["y"]}, subset=subset)
    assert message == (
        "no photo is in every file (first.json has c.jpg, references.json has a): "
        "use the same photo names in all of them"
    )


def test_a_second_candidate_of_a_photo_is_refused() -> None:
    message = pairing_error(
        {"1": ["a"], "2": ["b"]}, {"1": ["a", "a"], "2": ["b"]}, references={"1": FIVE}
    )
    assert (
        message
        == "second.json has more than one caption for 1 photo (1): keep one candidate per photo, "
        "and give candidates before references"
    )


def test_strange_names_are_printed_short_and_in_one_line() -> None:
    strange: Captions = {"a\n\x1b[2J": ["x"], "b" * 10**6: ["y"], "c": ["z"]}
    message = pairing_error({"c": ["z"]}, references=strange)
    assert message == (
        rf"first.json has no candidate for 2 photos (a\n\x1b[2J, {'b' * 100}...): {FIX}"
    )
    message = pairing_error({"z": ["z"]}, references={"b" * 10**6: ["y"]})
    assert f"(first.json has z, references.json has {'b' * 100}...)" in message


@pytest.mark.parametrize(
    ("counts", "numbers"),
    [
        ((1, 1), "1 reference per photo"),
        ((4, 4), "4 references per photo"),
        ((1, 2), "1 to 2 references per photo"),
        ((3, 7), "3 to 7 references per photo"),
    ],
)
def test_fewer_references_than_in_papers_are_noted(counts: tuple[int, int], numbers: str) -> None:
    references = {str(i): ["a dog"] * count for i, count in enumerate(counts)}
    pairing = pair_runs({i: ["a dog"] for i in references}, references=references)
    assert pairing.notes == [f"{numbers}: scores rise with the number of references, papers use 5"]


def test_captions_without_words_are_noted_with_their_file() -> None:
    references = dict.fromkeys("12", FIVE) | {"3": [*FIVE, " . "]}
    run = {"1": [""], "2": ["a dog"], "3": ["...!"]}
    pairing = pair_runs(run, {i: ["dog"] for i in "123"}, references=references)
    assert pairing.candidates[0] == [[], ["a", "dog"], []]
    assert pairing.notes == [
        "first.json has candidates without a word, scored 0: 2 photos (1, 3)",
        "there are references without a word, scored as they are: 1 photo (3)",
    ]


def test_a_single_photo_is_noted() -> None:
    (note,) = pair_runs({"1": ["a"]}, references={"1": FIVE}).notes
    assert note.startswith(
        "CIDEr-D is n/a for a single photo, because it weights words by how many"
    )
