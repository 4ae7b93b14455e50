import json

from pipeline.datasets.annotations import Summary
from pipeline.datasets.splits import SPLITS


def test_finalize_counts_photos_and_captions_per_split() -> None:
    summary = Summary(captions_read=5, photos_there=4, photos_in_no_split=1)
    summary.finalize([("a.jpg", "train"), ("a.jpg", "train"), ("b.jpg", "dev")])
    assert summary.captions_kept == 3
    assert summary.photos_kept == 2
    assert summary.photos_without_captions == 1
    assert summary.photos_per_split == {"train": 1, "dev": 1, "test": 0}
    assert summary.captions_per_split == {"train": 2, "dev": 1, "test": 0}


def test_the_first_examples_of_a_reason_are_kept_short_and_on_one_line() -> None:
    summary = Summary()
    for number in range(9):
        summary.drop("malformed", f"f:{number}", "a\nb\ud800" + "c" * 500)
    assert summary.dropped == {"malformed": 9}
    assert [example[:4] for example in summary.examples["malformed"]] == ["f:0:", "f:1:", "f:2:"]
    assert all(
        "\n" not in example and len(example) < 130 for example in summary.examples["malformed"]
    )
    json.dumps(summary.as_dict(), ensure_ascii=False).encode()


def test_the_reason_a_data_set_is_untrainable_is_named() -> None:
    summary = Summary()
    summary.finalize([])
    assert summary.why_untrainable() == "no captions"
    summary.captions_read = 2
    summary.drop("empty_caption", "f:1", "")
    assert summary.why_untrainable() == "no usable captions: all 2 were dropped (empty_caption: 1)"
    summary.finalize([("a.jpg", "dev")])
    assert "for training" in str(summary.why_untrainable())
    summary.finalize([("a.jpg", "train")])
    assert summary.why_untrainable() is None


def test_splits_with_too_few_photos_are_named() -> None:
    summary = Summary()
    train, dev, test = ([(f"{split}{n}.jpg", split) for n in (1, 2)] for split in SPLITS)
    for pairs, undersized in (
        (train, "dev and test"),
        ([*train, *dev], "test"),
        ([*train, *dev, test[0], test[0]], "test"),
        ([*train, dev[0], *test], "dev"),
        ([*train, *dev, *test], None),
    ):
        summary.finalize(pairs)
        assert summary.undersized_splits() == undersized
