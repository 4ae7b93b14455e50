import pytest

from pipeline.scoring.tokens import PUNCTUATION, tokenize


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("A Dog RUNS .", "a dog runs"),
        ("A dog, a cat; and - oddly - a cow...", "a dog a cat and oddly a cow"),
        ("Is it? It is!", "is it it is"),
        ("a man (left) and a {small} boy", "a man left and a small boy"),
        ("the dog's ball", "the dog 's ball"),
        ("the dogs' ball", "the dogs ball"),
        ("he doesn't run", "he does n't run"),
        ('a sign says "stop"', "a sign says stop"),
        ("a t-shirt", "a t-shirt"),
        ("two  dogs\trun\n", "two dogs run"),
        ("ein Dackel läuft Übers Gras", "ein dackel läuft übers gras"),
        ("3 dogs", "3 dogs"),
        ("... !", ""),
        ("", ""),
    ],
)
def test_captions_become_the_scorers_tokens(caption: str, tokens: str) -> None:
    assert tokenize(caption) == tokens.split()


def test_no_punctuation_is_left() -> None:
    tokens = tokenize("""It's ( "a" ) - b -- {c} ... d ; e , f : g ? h !""")
    assert not {token.upper() for token in tokens} & PUNCTUATION
    assert tokens == ["it", "'s", "a", "b", "c", "d", "e", "f", "g", "h"]


def test_tokens_are_stable_when_tokenized_again() -> None:
    tokens = tokenize("The dog's ball isn't red, it is (mostly) blue.")
    assert tokenize(" ".join(tokens)) == tokens
