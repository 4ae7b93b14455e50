from pathlib import Path

import pytest

from pipeline.comparison.caption_files import Captions
from pipeline.comparison.run_comparison import compare_runs, difference_lines
from pipeline.errors import InputError
from pipeline.metrics.significance import Difference, few_images_note
from tests.comparison.test_caption_files import write_caption_json
from tests.support.captions import damage_captions, make_captions


def compare_captions(
    tmp_path: Path, first: Captions, second: Captions, references: Captions, *, subset: bool = False
) -> tuple[list[str], dict[str, Difference]]:
    """Compare two runs; return the notes and differences."""
    for name, captions in (("first", first), ("second", second), ("references", references)):
        write_caption_json(tmp_path / f"{name}.json", captions)
    runs = str(tmp_path / "first.json"), str(tmp_path / "second.json")
    path = tmp_path / "references.json"
    pairing, differences = compare_runs(runs, path, None, None, subset=subset)
    return [note.replace(f"{tmp_path}/", "") for note in pairing.notes], differences


def test_a_run_that_is_worse_everywhere_differs_significantly(tmp_path: Path) -> None:
    captions = make_captions(40)
    _, differences = compare_captions(tmp_path, captions, damage_captions(captions, 1), captions)
    bleu_1 = differences["BLEU-1"]
    assert (bleu_1.first, bleu_1.second) == pytest.approx((100, 500 / 6))
    assert all(d.second < d.first and d.p_value < 0.01 for d in differences.values())
    assert difference_lines(["a", "b"], differences, 40)[-1] == (
        "significant (p < 0.05): BLEU-1, BLEU-2, BLEU-3, BLEU-4, ROUGE-L, CIDEr-D"
    )


def test_a_difference_by_chance_is_not_significant(tmp_path: Path) -> None:
    captions = make_captions(40)
    # Each run is worse on the same number of photos.
    _, differences = compare_captions(
        tmp_path, damage_captions(captions, 2), damage_captions(captions, 2, first=1), captions
    )
    assert all(d.p_value > 0.05 for d in differences.values())
    assert any(d.first != d.second for d in differences.values())
    lines = difference_lines(["one", "another"], differences, 40)
    assert lines[-1] == "no significant difference (p < 0.05)"


def test_exchanging_the_runs_changes_only_the_signs(tmp_path: Path) -> None:
    captions = make_captions(20)
    _, forward = compare_captions(tmp_path, captions, damage_captions(captions, 3), captions)
    _, backward = compare_captions(tmp_path, damage_captions(captions, 3), captions, captions)
    for name, difference in forward.items():
        opposite = backward[name]
        low, high = difference.interval
        assert (opposite.first, opposite.second) == (difference.second, difference.first)
        assert opposite.interval == pytest.approx((-high, -low))
        assert opposite.p_value == pytest.approx(difference.p_value)


def test_the_lines_show_scores_differences_intervals_and_p_values() -> None:
    differences = {
        "BLEU-4": Difference(20.0, 18.5, (-2.25, -0.75), 0.0005),
        "CIDEr-D": Difference(100.0, 101.0, (-1.0, 3.0), 0.06),
    }
    assert difference_lines(["HEAD", "a long name"], differences, 30) == [
        "              HEAD  a long name  difference  95 %              p",
        "BLEU-4       20.00        18.50       -1.50  -2.25 to -0.75    0.0005",
        "CIDEr-D     100.00       101.00       +1.00  -1.00 to +3.00    0.0600",
        "significant (p < 0.05): BLEU-4",
    ]


def test_too_few_photos_show_scores_and_say_that_nothing_can_be_said() -> None:
    differences = {"BLEU-4": Difference(20.0, 18.5, (-2.25, -0.75), 0.0005)}
    assert difference_lines(["first", "second"], differences, 29) == [
        "             first    second  difference",
        "BLEU-4       20.00     18.50       -1.50",
        few_images_note(29),
    ]


def test_photos_that_one_run_lacks_are_left_out_of_both_with_subset(tmp_path: Path) -> None:
    captions = make_captions(6)
    fewer = {i: captions[i] for i in "01234"}
    with pytest.raises(InputError, match=r"second.json has no candidate for 1 photo \(5\)"):
        compare_captions(tmp_path, captions, fewer, captions)
    notes, differences = compare_captions(tmp_path, captions, fewer, captions, subset=True)
    assert notes[0] == "left out: second.json has no candidate for 1 photo (5)"
    assert differences == compare_captions(tmp_path, fewer, fewer, fewer)[1]
    # A photo that is listed without captions is missing too.
    assert (notes, differences) == compare_captions(
        tmp_path, captions, fewer | {"5": []}, captions, subset=True
    )


def test_notes_cover_both_runs(tmp_path: Path) -> None:
    captions = make_captions(3)
    notes, _ = compare_captions(tmp_path, captions | {"1": ["."]}, captions | {"2": [""]}, captions)
    assert notes[:2] == [
        "first.json has candidates without a word, scored 0: 1 photo (1)",
        "second.json has candidates without a word, scored 0: 1 photo (2)",
    ]


def test_one_photo_cannot_be_compared(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one photo cannot show a significant difference"):
        compare_captions(tmp_path, make_captions(1), make_captions(1), make_captions(1))
