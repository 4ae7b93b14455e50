import math

import pytest

from pipeline.metrics.perplexity import adjusted_perplexity


def unigram_perplexity(text: str, probabilities: dict[str, float]) -> float:
    """Compute the perplexity of a text whose unknown words are written as <unk>."""
    words = text.split()
    known = [word if word in probabilities else "<unk>" for word in words]
    loss = -sum(math.log(probabilities[word]) for word in known) / len(words)
    unknown = {word for word in words if word not in probabilities}
    return adjusted_perplexity(loss, known.count("<unk>") / len(words), len(unknown))


def test_without_unknown_words_it_is_the_perplexity() -> None:
    assert adjusted_perplexity(math.log(7), 0.0, 0) == pytest.approx(7)


def test_a_model_gains_nothing_by_forgetting_equally_likely_words() -> None:
    text = "a dog runs a cat sleeps"
    full = {"a": 0.4, "dog": 0.15, "cat": 0.15, "runs": 0.15, "sleeps": 0.15}
    expected = unigram_perplexity(text, full)
    assert unigram_perplexity(text, {"a": 0.4, "<unk>": 0.6}) == pytest.approx(expected)
    few = {"a": 0.4, "dog": 0.15, "cat": 0.15, "<unk>": 0.3}
    assert unigram_perplexity(text, few) == pytest.approx(expected)


def test_a_model_that_knows_no_word_is_as_uncertain_as_the_text_has_words() -> None:
    assert unigram_perplexity("a b c d", {"<unk>": 1.0}) == pytest.approx(4)
