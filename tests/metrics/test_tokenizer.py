import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.metrics.tokenizer import tokenize

# The tokens of PTBTokenizer of Stanford CoreNLP 3.4.1 (-preserveLines -lowerCase, from
# pycocoevalcap 1.2, on OpenJDK 17), without the punctuation that coco-caption drops.
CASES = [
    # sentences and commas
    ("A Dog RUNS .", "a dog runs"),
    ("a dog, a cat; and - oddly - a cow...", "a dog a cat and oddly a cow"),
    ("Is it? It is!", "is it it is"),
    ("a dog runs. a cat sits.", "a dog runs a cat sits"),
    ("A dog runs.The cat sits.", "a dog runs.the cat sits"),
    ("wait!what?no", "wait!what?no"),
    ("the kite is up.,the boy down", "the kite is up. the boy down"),
    ("a red ,blue and,green kite", "a red blue and green kite"),
    ("a kite..a boy.... the sea", "a kite a boy the sea"),
    ("What?! A whale!! Really ???", "what ?! a whale !! really ???"),
    ("the dog ... it sleeps … here", "the dog it sleeps here"),
    # abbreviations
    (
        "Mr. Fox and mrs. Hen on Elm St. at 5 p.m. sharp",
        "mr. fox and mrs. hen on elm st. at 5 p.m. sharp",
    ),
    (
        "a flag of the U.S. on a u.s. truck in Lima, D.C.",
        "a flag of the u.s. on a u.s. truck in lima d.c.",
    ),
    ("a goat vs. a ram, etc., i.e. two animals", "a goat vs. a ram etc. i.e. two animals"),
    ("the Toys Inc. van, Sam Jr. inside", "the toys inc. van sam jr. inside"),
    ("no. 5 and No.7 but no. no dogs here", "no. 5 and no. 7 but no no dogs here"),
    (
        "a pair weighs 3 lb. approx. on Sat. in Ill. or ill. health",
        "a pair weighs 3 lb approx on sat in ill. or ill health",
    ),
    (
        "vitamin b. The jar is open but vitamin c. sells",
        "vitamin b the jar is open but vitamin c. sells",
    ),
    ("Dr.Fox has a Ph.D. in art.", "dr.fox has a ph.d. in art"),
    # apostrophes
    ("the dog's ball, the dogs' ball", "the dog 's ball the dogs ball"),
    ("it\u2019s a boy\u2019s hat and don\u2019t", "it 's a boy 's hat and do n't"),
    (
        "he doesn't run, she'll stay, I'm late, they're off, we'd go, I've won",
        "he does n't run she 'll stay i 'm late they 're off we 'd go i 've won",
    ),
    ("you cannot, can't, CAN'T and won't", "you can not ca n't ca n't and wo n't"),
    ("they're gonna, wanna, gotta; lemme, gimme", "they 're gon na wan na got ta lem me gim me"),
    (
        "rock 'n' roll, rock n' roll, 'til the '90s and 1990's in '05",
        "rock 'n' roll rock n roll 'til the '90s and 1990 's in '05",
    ),
    ("O'Brien at ten o'clock, ma'am, y'all", "o'brien at ten o'clock ma'am y' all"),
    ("ol' Joe and 'em 'tis d'Arc", "ol' joe and 'em 't is d'arc"),
    ("the dog`s and dog\u00b4s tail", "the dog s and dog \u00b4 s tail"),
    # quotes
    ('a sign says "stop" or " go "', "a sign says stop or go"),
    ("a sign says 'stop' or ' go '", "a sign says stop or go"),
    ("a sign says \u201cstop\u201d or \u2018go\u2019", "a sign says stop or go"),
    ("a sign says ``stop'' or `go`", "a sign says stop or go"),
    # numbers
    (
        "1,000 fans, 3.5 miles, 1/2 mile, 1 1/2 pies, ½ pie",
        "1,000 fans 3.5 miles 1/2 mile 1 1/2 pies 1/2 pie",
    ),
    (
        "# 5 and #5 on $5 hats of £3 or 20¢ at 50% off",
        "# 5 and # 5 on $ 5 hats of # 3 or 20 cents at 50 % off",
    ),
    (
        "5'10\" tall, 5th of 5ft. at 10:30 or 10:30am, 4x4",
        "5 10 tall 5th of 5ft at 10:30 or 10:30 am 4x4",
    ),
    ("-5 to +5, 5-6, 2:1, 24/7 and 12/25/2010, 5.", "-5 to +5 5-6 2:1 24/7 and 12/25/2010 5"),
    # joined words
    ("a t-shirt, a 5-year-old, a self-", "a t-shirt a 5-year-old a self"),
    ("a 3.5-mile-long, 2,000-foot road", "a 3.5-mile-long 2,000-foot road"),
    (
        "man--woman, man -- woman, man \u2013 woman, man\u2014woman",
        "man woman man woman man woman man woman",
    ),
    (
        "a cat/dog, black-haired/white, a / b, w/ hats, w/o hats",
        "a cat/dog black-haired/white a / b w / hats w/o hats",
    ),
    ("A&B, AT&T, black&white, c & d, e &amp; f", "a&b at&t black & white c & d e & f"),
    (
        "snake_case _under_ *star* ** ~ a=b a+b @ 5 ^ |",
        "snake_case _ under _ * star * ** ~ a = b a + b @ 5 ^ |",
    ),
    # brackets
    (
        "a man (left) and a {small} boy [sic]",
        "a man -lrb- left -rrb- and a -lcb- small -rcb- boy -lsb- sic -rsb-",
    ),
    ("dog(s) ( two )", "dog -lrb- s -rrb- -lrb- two -rrb-"),
    (":) ;-) :( =) :D <3 ^_^", ":-rrb- ;--rrb- :-lrb- =-rrb- :d < 3 ^_^"),
    ("<b>bold</b> -> it", "<b> bold </b> > it"),
    # URLs and e-mail addresses
    (
        "www.example.com, example.org/map. http://example.com/a?b=c, me@example.com",
        "www.example.com example.org/map http://example.com/a?b=c me@example.com",
    ),
    ("@example and #hats", "@example and #hats"),
    # letters and white space
    ("ein Dackel läuft Übers Gras", "ein dackel läuft übers gras"),
    ("a café, naïve, jalapeño", "a café naïve jalapeño"),
    ("two  dogs\trun\xa0off\u200bhere \n", "two dogs run off here"),
    ("90° on 5 m² by Acme™", "90 ° on 5 m ² by acme ™"),
    ("A DOG\u2019S LIFE", "a dog 's life"),
    (" . ", ""),
    ("... !", ""),
    ("", ""),
]


@pytest.mark.parametrize(("caption", "tokens"), [*CASES, ("", "")])
def test_tokens_equal_those_of_coco_caption(caption: str, tokens: str) -> None:
    assert tokenize(caption) == tokens.split()


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("लड़की खड़ी है।", ["लड़की", "खड़ी", "है"]),
        ("كَلْبٌ يَجْرِي", ["كَلْبٌ", "يَجْرِي"]),
        ("ผู้ชาย ยืน", ["ผู้ชาย", "ยืน"]),
        ("q\u0307\u0323 y", ["q\u0323\u0307", "y"]),
    ],
    ids=["Hindi", "Arabic", "Thai", "marks"],
)
def test_combining_marks_belong_to_their_words(caption: str, words: list[str]) -> None:
    assert tokenize(caption) == words


def test_punctuation_is_dropped() -> None:
    tokens = tokenize("""It's ' "a" ` - b -- c ... d ; e , f : g ? h ! `` i '' .""")
    assert tokens == ["it", "'s", "a", "b", "c", "d", "e", "f", "g", "h", "i"]


def test_tokenizing_tokens_again_changes_nothing() -> None:
    tokens = tokenize("The dog's ball isn't red, it is (mostly) blue.")
    assert tokenize(" ".join(tokens)) == tokens


@given(st.text())
def test_tokens_of_any_text_are_lower_case_without_white_space(text: str) -> None:
    for token in tokenize(text):
        assert token == token.lower()
        assert token.split() == [token]


@pytest.mark.parametrize("part", ["a", "a,", "a.", "a-", "a'", "a_", "a@", "1/", ".", "-", "<a"])
def test_long_text_without_white_space_is_tokenized_quickly(part: str) -> None:
    start = time.process_time()
    tokenize(part * 5_000 + "!")
    assert time.process_time() - start < 2


HOSTILE = {
    "spaces": " ",
    "half an address": "a+",
    "marks": "\u0316\u0301",
    "dots": "a.",
    "quotes": "a'",
    "links": "www.",
    "tags": "<a",
    "references": "&#1",
    "numbers": "1,",
    "hyphens": "a-b_",
}


@pytest.mark.parametrize(
    ("unit", "size"),
    [
        *((HOSTILE[name], 100_000) for name in ("spaces", "half an address", "marks")),
        *(pytest.param(unit, 1_000_000, marks=pytest.mark.soak) for unit in HOSTILE.values()),
    ],
)
def test_the_time_does_not_grow_with_the_square_of_the_length(unit: str, size: int) -> None:
    caption = f"a{unit * (size // len(unit))}"
    start = time.process_time()
    tokenize(caption)
    # In the square of the length it would be minutes, or hours.
    assert time.process_time() - start < size * 1e-4


def test_numeric_references_of_any_length_are_read() -> None:
    assert tokenize("&#97; &#000000000000000097; &#x61;") == ["a", "a", "a"]
    assert tokenize(f"a &#{'9' * 5000}; dog") == tokenize("a \ufffd dog")
    assert tokenize(f"&#{'0' * 5000}97;") == ["a"]


def test_more_than_thirty_marks_on_a_letter_are_dropped() -> None:
    assert tokenize("e\u0301" + "\u0316" * 99) == tokenize("e\u0301" + "\u0316" * 29)
    assert tokenize("e\u0301") == ["é"]
