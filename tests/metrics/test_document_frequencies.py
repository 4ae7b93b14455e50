import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.metrics.cider import CiderD
from pipeline.metrics.document_frequencies import DocumentFrequencies
from pipeline.metrics.ngrams import MAX_ORDER, NgramIndex
from pipeline.metrics.references import References

CAPTION = st.lists(st.sampled_from("0123"), max_size=8)
IMAGES = st.lists(st.lists(CAPTION, min_size=1, max_size=3), min_size=1, max_size=5)


@given(IMAGES, st.lists(CAPTION, min_size=1, max_size=3))
def test_the_idf_of_any_ngram_is_that_of_the_corpus(
    images: list[list[list[str]]], captions: list[list[str]]
) -> None:
    frequencies = DocumentFrequencies.count(References(images))
    index = NgramIndex(captions)
    for order in range(1, MAX_ORDER + 1):
        ngrams = [tuple(index.words[word] for word in row) for row in index.ngrams(order)]
        expected = [
            len(images) / max(1, sum(any(ngram in grams(c, order) for c in i) for i in images))
            for ngram in ngrams
        ]
        np.testing.assert_allclose(frequencies.idf(index, order), np.log(expected))
        assert set(ngrams) == {ngram for c in captions for ngram in grams(c, order)}


def grams(caption: list[str], order: int) -> list[tuple[str, ...]]:
    return [tuple(caption[i : i + order]) for i in range(len(caption) - order + 1)]


@given(IMAGES, CAPTION)
def test_cider_d_with_the_idf_of_a_corpus_is_that_of_the_whole_corpus(
    images: list[list[list[str]]], candidate: list[str]
) -> None:
    corpus = DocumentFrequencies.count(References(images))
    whole = CiderD(References(images)).scores([candidate] * len(images))
    for group, score in zip(images, whole, strict=True):
        part = CiderD(References([group, [candidate]]), corpus).scores([candidate])
        np.testing.assert_allclose(part, score, atol=1e-9)


def test_tables_are_sorted_and_without_ngrams_of_one_image() -> None:
    corpus = DocumentFrequencies.count(References([[["7", "7"], ["8"]], [["7", "8"]], [["9"]]]))
    assert corpus.n_images == 3
    assert corpus.counts.tolist() == [2, 2]
    assert (corpus.keys[1:] > corpus.keys[:-1]).all()
