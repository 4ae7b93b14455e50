import json

from pipeline.datasets.annotations import SPLITS, Summary


def test_settle_counts_photos_and_captions_per_split() -> None:
    summary = Summary(captions_read=5, photos_there=4, photos_in_no_split=1)
    summary.finalize([("a.jpg", "train"), ("a.jpg", "train"), ("b.jpg", "dev")])
    assert summary.captions_kept == 3
    assert summary.photos_kept == 2
    assert summary.photos_without_captions == 1
    assert summary.photos_per_split == {"train": 1, "dev": 1, "test": 0}
    assert summary.captions_per_split == {"train": 2, "dev": 1, "test": 0}


def test_examples_are_the_first_few_on_one_line_and_short() -> None:
    summary = Summary()
    for number in range(9):
        summary.drop("malformed", f"f:{number}", "a\nb\ud800" + "c" * 500)
    assert summary.dropped == {"malformed": 9}
    assert [example[:4] for example in summary.examples["malformed"]] == ["f:0:", "f:1:", "f:2:"]
    assert all(
        "\n" not in example and len(example) < 130 for example in summary.examples["malformed"]
    )
    json.dumps(summary.as_dict(), ensure_ascii=False).encode()


def test_shortfall_names_what_is_lacking() -> None:
    summary = Summary()
    summary.finalize([])
    assert summary.why_untrainable() == "no captions in it"
    summary.captions_read = 2
    summary.drop("empty_caption", "f:1", "")
    assert "empty_caption: 1" in str(summary.why_untrainable())
    summary.finalize([("a.jpg", "dev")])
    assert "for training" in str(summary.why_untrainable())
    summary.finalize([("a.jpg", "train")])
    assert summary.why_untrainable() is None


def test_splits_that_nothing_can_be_measured_with_are_named() -> None:
    summary = Summary()
    train, dev, test = ([(f"{split}{n}.jpg", split) for n in (1, 2)] for split in SPLITS)
    for pairs, few in (
        (train, "dev and test"),
        ([*train, *dev], "test"),
        ([*train, *dev, test[0], test[0]], "test"),
        ([*train, dev[0], *test], "dev"),
        ([*train, *dev, *test], None),
    ):
        summary.finalize(pairs)
        assert summary.unmeasurable_splits() == few
