from hypothesis import given
from hypothesis import strategies as st

from pipeline.datasets.annotations import Summary
from pipeline.datasets.splits import draw, unite


def test_shares_come_out_as_asked() -> None:
    drawn = [draw(f"{n}.jpg", 1, dev_share=0.1, test_share=0.2) for n in range(5000)]
    assert abs(drawn.count("dev") - 500) < 100
    assert abs(drawn.count("test") - 1000) < 120


def test_a_draw_never_changes() -> None:
    drawn = "".join(draw(f"{n}.jpg", 7, dev_share=0.3, test_share=0.3)[0] for n in range(20))
    assert drawn == "dtdtddtdttttdtdtttdd"


@given(st.text(alphabet=st.characters(codec="utf-8")), st.integers(0, 2**32 - 1))
def test_shares_at_their_ends(image_id: str, seed: int) -> None:
    assert draw(image_id, seed, dev_share=0, test_share=0) == "train"
    assert draw(image_id, seed, dev_share=1, test_share=0) == "dev"
    assert draw(image_id, seed, dev_share=0, test_share=1) == "test"


def test_the_seed_matters() -> None:
    halves = {"dev_share": 0.5, "test_share": 0.5}
    drawn = [[draw(f"{n}.jpg", seed, **halves) for n in range(50)] for seed in (1, 2)]
    assert drawn[0] != drawn[1]


def test_a_photo_in_several_lists_is_no_training_photo() -> None:
    summary = Summary()
    lists = {"train": ["a", "b", "c", "a"], "dev": ["b", "c"], "test": ["c"]}
    assert unite(lists, "lists", summary) == {"a": "train", "b": "dev", "c": "test"}
    assert summary.photos_in_two_splits == 2
    assert summary.noted == {"photo_in_two_splits": 2}
