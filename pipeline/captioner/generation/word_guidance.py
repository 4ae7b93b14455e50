"""Word guidance: what training photos with similar features are captioned with guides captions.

At each step of a search the logits of the words that the detector finds in a photo are raised a
little. Finished hypotheses are reranked by how well their words agree with the detected ones, and
by how much they resemble the captions of the nearest training photos. Fang et al. 2015, "From
captions to visual concepts and back", rerank hypotheses too, by a learned similarity.
docs/results.md reports the effect of detected words, docs/decisions.md that of neighbours.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.captioner.generation.interfaces import (
    Array,
    Hypothesis,
    Ids,
    LogProbs,
    Positions,
    StepDecoder,
    attention_maps_of,
    rank,
)
from pipeline.captioner.neighbours import Neighbours
from pipeline.captioner.word_detector import WordDetector


@dataclass
class WordGuided:
    """A `StepDecoder` and `Reranker` that applies word guidance to a decoder.

    Attributes:
        decoder: the trained decoder, or an ensemble, with classifier-free guidance or without.
        detector: the word detector, for the same vocabulary and the same features.
        logit_bias: weight of the log-odds of a detected word, which are added to the word's logit
            at each step. The logit of a word that the caption already has is not raised.
        rerank_weight: weight of the cosine similarity between the words of a hypothesis and the
            detected words (both weighted by idf), which is added to the hypothesis' score.
        neighbours: the nearest training photos, for the same features; None if they do not count.
        neighbour_weight: weight of a hypothesis' consensus with their captions, which is added to
            its score too.
    """

    decoder: StepDecoder
    detector: WordDetector
    logit_bias: float
    rerank_weight: float
    neighbours: Neighbours | None = None
    neighbour_weight: float = 0.0
    # The latest features array, and the words detected in it.
    _memo: tuple[npt.NDArray[np.float32], Array] | None = field(default=None, repr=False)

    def begin(self, features: npt.NDArray[np.float32]) -> tuple[Array, Any]:
        """Return the bias of each word's logit, (P, V), and the decoder's state."""
        bias = self.logit_bias * self.detector.log_odds(self._detect(features))
        return bias, self.decoder.begin(features)

    def advance(
        self, ids: Ids, photos: Positions, parents: Positions, state: tuple[Array, Any]
    ) -> tuple[Array, tuple[Array, Any]]:
        """Return the biased logits, and the state after the words."""
        bias, decoder_state = state
        logits, decoder_state = self.decoder.advance(ids, photos, parents, decoder_state)
        used_words = np.arange(len(ids))[:, None], ids
        used_logits = logits[used_words] + np.minimum(bias[photos[:, None], ids], 0)
        for photo in np.unique(photos):
            first, end = np.searchsorted(photos, [photo, photo + 1])
            logits[first:end] += bias[photo]
        logits[used_words] = used_logits
        return logits, (bias, decoder_state)

    def rerank(
        self, features: npt.NDArray[np.float32], beams: Sequence[Sequence[Hypothesis]]
    ) -> list[list[Hypothesis]]:
        """Return each photo's hypotheses by score plus weighted similarities, best first."""
        detected = self._detect(features) * self.detector.idf
        scores = [self._word_scores(*pair) for pair in zip(beams, detected, strict=True)]
        if self.neighbours is not None and max(map(len, beams), default=0) > 1:
            ids = [[hypothesis.ids for hypothesis in beam] for beam in beams]
            consensus = self.neighbours.consensus(self.detector.directions(features), ids)
            pairs = zip(scores, consensus, strict=True)
            scores = [score + self.neighbour_weight * term for score, term in pairs]
        return [rank(beam, row.tolist()) for beam, row in zip(beams, scores, strict=True)]

    def attention_maps(
        self, features: npt.NDArray[np.float32], ids: npt.NDArray[np.int32]
    ) -> Array | None:
        """Return the decoder's maps; see `SupportsAttentionMaps`."""
        return attention_maps_of(self.decoder, features, ids)

    def _detect(self, features: npt.NDArray[np.float32]) -> Array:
        """Detect words (B, V), once per features array.

        A search passes the same array to `begin` and `rerank`, so the memo holds one entry and
        compares arrays by identity.
        """
        if self._memo is None or self._memo[0] is not features:
            self._memo = features, self.detector.detect(features)
        return self._memo[1]

    def _word_scores(self, beam: Sequence[Hypothesis], detected: Array) -> LogProbs:
        """Return each hypothesis' score plus weighted similarity to detected words (V,)."""
        similarities = _cosine_similarities(
            [hypothesis.ids for hypothesis in beam], detected, self.detector.idf
        )
        scores = np.array([hypothesis.score for hypothesis in beam])
        return scores + self.rerank_weight * similarities


def with_word_guidance(
    decoder: StepDecoder,
    detector: WordDetector,
    logit_bias: float,
    rerank_weight: float,
    neighbours: Neighbours | None = None,
    neighbour_weight: float = 0.0,
) -> StepDecoder:
    """Return the decoder with word guidance, or the decoder itself if all weights are 0."""
    if not logit_bias and not rerank_weight and neighbours is None:
        return decoder
    return WordGuided(decoder, detector, logit_bias, rerank_weight, neighbours, neighbour_weight)


def _cosine_similarities(
    captions: Sequence[Sequence[int]], detected: Array, idf: Array
) -> LogProbs:
    """Compare each caption's set of words with the detected words.

    Args:
        captions: the word ids of C captions.
        detected: (V,), weighted by idf.
        idf: (V,), the weight of a caption's words.

    Returns:
        (C,) cosines; 0 if the caption or the detection is empty.
    """
    detected_norm = float(np.linalg.norm(detected))
    cosines = np.zeros(len(captions))
    for row, caption in enumerate(captions):
        words = list(set(caption))
        norms = detected_norm * float(np.linalg.norm(idf[words]))
        if norms:
            cosines[row] = float(detected[words] @ idf[words]) / norms
    return cosines
