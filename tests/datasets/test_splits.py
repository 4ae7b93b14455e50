from hypothesis import given
from hypothesis import strategies as st

from pipeline.datasets.splits import draw_split


def test_splits_have_about_the_given_shares() -> None:
    splits = [draw_split(f"{n}.jpg", 1, dev_share=0.1, test_share=0.2) for n in range(5000)]
    assert abs(splits.count("dev") - 500) < 100
    assert abs(splits.count("test") - 1000) < 120


def test_the_splits_of_a_seed_never_change() -> None:
    splits = [draw_split(f"{n}.jpg", 7, dev_share=0.3, test_share=0.3) for n in range(20)]
    assert "".join(split[0] for split in splits) == "dtdtddtdttttdtdtttdd"


@given(st.text(alphabet=st.characters(codec="utf-8")), st.integers(0, 2**32 - 1))
def test_a_share_of_one_takes_every_photo(image_id: str, seed: int) -> None:
    assert draw_split(image_id, seed, dev_share=0, test_share=0) == "train"
    assert draw_split(image_id, seed, dev_share=1, test_share=0) == "dev"
    assert draw_split(image_id, seed, dev_share=0, test_share=1) == "test"


def test_another_seed_gives_other_splits() -> None:
    halves = {"dev_share": 0.5, "test_share": 0.5}
    splits = [[draw_split(f"{n}.jpg", seed, **halves) for n in range(50)] for seed in (1, 2)]
    assert splits[0] != splits[1]
