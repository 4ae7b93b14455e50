from pipeline.reporting.word_usage import WordUsage, compare_words

REFERENCES = ["A dog runs.", "Dogs run on the grass!", "a cat sits", "the cat, the mat"] * 5


def over_used(words: WordUsage) -> list[str]:
    return [word.word for word in words.over_used]


def test_over_used_words_are_ranked_by_the_ratio_of_frequencies() -> None:
    words = compare_words(["a red dog runs", "a red dog", "a red red cat"] * 2, REFERENCES)
    red, dog = words.over_used[:2]
    assert (red.word, red.in_captions, red.in_references) == ("red", 8, 0)
    assert (dog.word, dog.in_captions, dog.in_references) == ("dog", 4, 5)
    # 4 of 22 words in captions, 5 of 75 in references.
    assert abs(dog.ratio - (4.5 / 22.5) / (5.5 / 75.5)) < 1e-12
    assert red.ratio > dog.ratio
    assert "cat" not in over_used(words)  # 2 of 22 words, 10 of 75


def test_a_word_that_occurs_twice_may_be_chance() -> None:
    assert over_used(compare_words(["zebra", "zebra", "a dog"], REFERENCES)) == []
    assert over_used(compare_words(["zebra"] * 3, REFERENCES)) == ["zebra"]
    assert over_used(compare_words(["zebra"] * 3 + ["a dog runs"] * 197, REFERENCES)) == [
        "dog",
        "runs",
        "a",
    ]


def test_never_used_words_are_ranked_by_their_count_in_references() -> None:
    words = compare_words(["a dog runs", "a cat sits"], REFERENCES)
    assert [(word.word, word.in_references) for word in words.never_used] == [
        ("the", 15),
        *[(word, 5) for word in ("dogs", "grass", "mat", "on", "run")],
    ]
    assert (words.never_used_total, words.reference_words) == (6, 11)


def test_lists_are_short() -> None:
    words = compare_words([f"w{i} " * 3 for i in range(40)], [f"v{i}" for i in range(40)])
    assert len(words.over_used) == len(words.never_used) == 15
    assert words.never_used_total == 40


def test_captions_without_words_use_no_word() -> None:
    words = compare_words(["", ""], ["A dog."])
    assert words.over_used == []
    assert [word.word for word in words.never_used] == ["a", "dog"]
