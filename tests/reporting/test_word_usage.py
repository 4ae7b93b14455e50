from pipeline.reporting.word_usage import WordUsage, compare_words

REFERENCES = ["A dog runs.", "Dogs run on the grass!", "a cat sits", "the cat, the mat"] * 5


def said(words: WordUsage) -> list[str]:
    return [word.word for word in words.over_used]


def test_words_said_too_often_come_first_by_their_share() -> None:
    words = compare_words(["a red dog runs", "a red dog", "a red red cat"] * 2, REFERENCES)
    red, dog = words.over_used[:2]
    assert (red.word, red.said, red.written) == ("red", 8, 0)
    assert (dog.word, dog.said, dog.written) == ("dog", 4, 5)
    # Of 22 words 4, against 5 of 75.
    assert abs(dog.ratio - (4.5 / 22.5) / (5.5 / 75.5)) < 1e-12
    assert red.ratio > dog.ratio
    assert "cat" not in said(words)  # 2 of 22 words, 10 of 75


def test_a_word_said_twice_is_chance() -> None:
    assert said(compare_words(["zebra", "zebra", "a dog"], REFERENCES)) == []
    assert said(compare_words(["zebra"] * 3, REFERENCES)) == ["zebra"]
    assert said(compare_words(["zebra"] * 3 + ["a dog runs"] * 197, REFERENCES)) == [
        "dog",
        "runs",
        "a",
    ]


def test_words_never_said_come_by_how_often_people_wrote_them() -> None:
    words = compare_words(["a dog runs", "a cat sits"], REFERENCES)
    assert [(word.word, word.written) for word in words.never_used] == [
        ("the", 15),
        *[(word, 5) for word in ("dogs", "grass", "mat", "on", "run")],
    ]
    assert (words.missing, words.written) == (6, 11)


def test_lists_are_short() -> None:
    words = compare_words([f"w{i} " * 3 for i in range(40)], [f"v{i}" for i in range(40)])
    assert len(words.over_used) == len(words.never_used) == 15
    assert words.missing == 40


def test_nothing_said() -> None:
    words = compare_words(["", ""], ["A dog."])
    assert words.over_used == []
    assert [word.word for word in words.never_used] == ["a", "dog"]
