import itertools
import math
import random
import re
from collections import Counter

import pytest

from benchmarks.claims import check_claims, is_true
from pipeline.datasets.sample.scenes import Scene, generate_scene
from pipeline.datasets.sample.wordings import caption_scene

Words = list[str]

TRAIN = [generate_scene(2026, "train", index) for index in range(360)]
TEST = [generate_scene(2026, "test", index) for index in range(80)]
ALL = [*TRAIN, *TEST, *(generate_scene(2026, "dev", index) for index in range(40))]


def corpus_bleu(references: list[list[Words]], hypotheses: list[Words]) -> float:
    """BLEU-4 of Papineni et al. (2002), unsmoothed."""
    matched, total = [0] * 4, [0] * 4
    reference_length = 0
    for scene_references, hypothesis in zip(references, hypotheses, strict=True):
        lengths = (len(reference) for reference in scene_references)
        reference_length += min(lengths, key=lambda n: (abs(n - len(hypothesis)), n))
        for order in range(4):
            reference_counts: Counter[tuple[str, ...]] = Counter()
            for reference in scene_references:
                reference_counts |= ngrams(reference, order + 1)
            counts = ngrams(hypothesis, order + 1)
            matched[order] += (counts & reference_counts).total()
            total[order] += counts.total()
    if 0 in matched:
        return 0.0
    precision = sum(math.log(m / t) for m, t in zip(matched, total, strict=True)) / 4
    return math.exp(precision + min(0.0, 1 - reference_length / total[0]))


def ngrams(words: Words, order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + order]) for i in range(len(words) - order + 1))


def tokens(scene: Scene) -> list[Words]:
    return [caption.lower().removesuffix(" .").split() for caption in caption_scene(scene)]


def test_bleu_matches_an_example_computed_by_hand() -> None:
    # Precisions 5/6, 3/5, 2/4, 1/3; lengths equal.
    reference, hypothesis = [*"abcdef"], [*"abcdxf"]
    expected = (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25
    assert corpus_bleu([[reference]], [hypothesis]) == pytest.approx(expected)


@pytest.mark.parametrize("scene", ALL, ids=lambda scene: scene.name)
def test_a_scene_has_five_different_true_captions(scene: Scene) -> None:
    captions = caption_scene(scene)
    assert len(set(captions)) == len(captions) == 5
    for caption in captions:
        assert set(check_claims(caption, scene).values()) == {True}, caption
        assert re.fullmatch(r"[A-Z][a-z]*( [a-z]+)+ \.", caption)


def test_captions_do_not_describe_other_scenes() -> None:
    # A checker that accepts everything would pass the test above, but not this one.
    rng = random.Random(0)
    for scene, other in itertools.combinations(rng.sample(ALL, 40), 2):
        same = (scene.relation, [(t.shape, t.colour, t.count) for t in scene.groups]) == (
            other.relation,
            [(t.shape, t.colour, t.count) for t in other.groups],
        )
        assert is_true(check_claims(caption_scene(scene)[0], other)) == same


def test_fixed_sentences_score_badly_and_humans_well() -> None:
    references = [tokens(scene) for scene in TEST]
    sentences = sorted({" ".join(words) for scene in TRAIN for words in tokens(scene)})
    sample = random.Random(0).sample(sentences, 200)
    floor = max(corpus_bleu(references, [words.split()] * len(references)) for words in sample)
    ceiling = [
        corpus_bleu(
            [captions[:left_out] + captions[left_out + 1 :] for captions in references],
            [captions[left_out] for captions in references],
        )
        for left_out in range(5)
    ]
    assert floor < 0.25
    assert min(ceiling) > 0.6


def test_every_word_is_frequent_enough_to_be_learned() -> None:
    counts = Counter(word for scene in TRAIN for words in tokens(scene) for word in words)
    assert min(counts.values()) >= 10
    assert 40 <= len(counts) <= 60
