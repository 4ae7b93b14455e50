"""Evidence: words that are detected in a photo count when it is captioned.

Detected words are a little likelier at every step of a search; and of the finished hypotheses
those come first that say what was detected: Fang et al. 2015, "From captions to visual concepts
and back", rank theirs so too, there by a learned similarity. docs/results.md has what it
brings.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipeline.captioner.generation.interfaces import (
    Array,
    Hypothesis,
    LogProbs,
    StepDecoder,
    SupportsAttentionMaps,
)
from pipeline.captioner.word_detector import WordDetector


@dataclass
class WordGuided:
    """A decoder that hears of detected words; see `search.StepDecoder` and `search.Reranker`.

    Attributes:
        decoder: trained; or several together, guided or not.
        detector: of its vocabulary, for features like its own.
        logit_bias: what is added to a word's logit, times the logarithm of how much likelier than
            usual it was detected to be, or less likely; one that is said is not wanted again.
        rerank_weight: what is added to a hypothesis' mean log-probability, times the cosine between
            its words and those detected, rare words counting more.
    """

    decoder: StepDecoder
    detector: WordDetector
    logit_bias: float
    rerank_weight: float
    _last: tuple[npt.NDArray[np.float32], Array] | None = field(default=None, repr=False)

    def begin(self, features: npt.NDArray[np.float32]) -> list[Array]:
        """Return what is to be added to logits, and after it the decoder's state."""
        shares = self._detect(features)
        return [self.logit_bias * self.detector.log_odds(shares), *self.decoder.begin(features)]

    def advance(
        self, words: npt.NDArray[np.int32], state: list[Array]
    ) -> tuple[Array, list[Array]]:
        """Return logits with what is added to them, and the state after `words`."""
        added = state[0].copy()
        said = np.arange(len(words)), words
        added[said] = np.minimum(added[said], 0)
        logits, after = self.decoder.advance(words, state[1:])
        return logits + added, [added, *after]

    def rerank(
        self, features: npt.NDArray[np.float32], found: Sequence[Sequence[Hypothesis]]
    ) -> list[list[Hypothesis]]:
        """Return each photo's hypotheses, likely ones that say what is detected first."""
        weighed = self._detect(features) * self.detector.idf
        return [
            self._ranked(hypotheses, of_photo)
            for hypotheses, of_photo in zip(found, weighed, strict=True)
        ]

    def attention_maps(
        self, features: npt.NDArray[np.float32], ids: npt.NDArray[np.int32]
    ) -> Array | None:
        """Return where the decoder looks; see `maps.SupportsAttentionMaps`."""
        return (
            self.decoder.attention_maps(features, ids)
            if isinstance(self.decoder, SupportsAttentionMaps)
            else None
        )

    def _detect(self, features: npt.NDArray[np.float32]) -> Array:
        """Detect words once per batch: `rerank` gets the features that `begin` had."""
        if self._last is None or self._last[0] is not features:
            self._last = features, self.detector.detect(features)
        return self._last[1]

    def _ranked(self, hypotheses: Sequence[Hypothesis], detected: Array) -> list[Hypothesis]:
        agree = _cosines([h.ids for h in hypotheses], detected, self.detector.idf)
        scores = [h.score + self.rerank_weight * a for h, a in zip(hypotheses, agree, strict=True)]
        order = sorted(
            range(len(hypotheses)),
            key=lambda i: (-hypotheses[i].finished, -scores[i], hypotheses[i].ids),
        )
        return [hypotheses[i] for i in order]


def with_word_guidance(
    decoder: StepDecoder, detector: WordDetector, logit_bias: float, rerank_weight: float
) -> StepDecoder:
    """Return the decoder with evidence, or itself where that counts for nothing."""
    return (
        WordGuided(decoder, detector, logit_bias, rerank_weight)
        if logit_bias or rerank_weight
        else decoder
    )


def _cosines(captions: Sequence[Sequence[int]], detected: Array, idf: Array) -> LogProbs:
    """Return the cosine of each caption's words, (C,), with detected ones, (V,), all weighed."""
    whole = float(np.linalg.norm(detected))
    cosines = np.zeros(len(captions))
    for row, caption in enumerate(captions):
        words = list(set(caption))
        length = whole * float(np.linalg.norm(idf[words]))
        if length:
            cosines[row] = float(detected[words] @ idf[words]) / length
    return cosines
