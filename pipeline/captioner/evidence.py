"""Evidence: words that are detected in a photo count when it is captioned.

Detected words are a little likelier at every step of a search; and of the finished hypotheses
those come first that say what was detected: Fang et al. 2015, "From captions to visual concepts
and back", rank theirs so too, there by a learned similarity. docs/experiments.md has what it
brings.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.captioner.detector import WordDetector
from pipeline.captioner.maps import Looks
from pipeline.captioner.search import Array, Hypothesis, Scores, Steps


@dataclass(frozen=True)
class Informed:
    """A decoder that hears of detected words; see `search.Steps` and `search.Ranks`.

    Attributes:
        decoder: trained; or several together, guided or not.
        detector: of its vocabulary, for features like its own.
        bias: what is added to a word's logit, times the logarithm of how much likelier than
            usual it was detected to be, or less likely; one that is said is not wanted again.
        agreement: what is added to a hypothesis' mean log-probability, times the cosine between
            its words and those detected, rare words counting more.
    """

    decoder: Steps
    detector: WordDetector
    bias: float
    agreement: float

    def begin(self, features: npt.NDArray[np.float32]) -> list[Array]:
        """Return what is to be added to logits, and after it the decoder's state."""
        shares = self.detector.detect(features)
        return [self.bias * self.detector.surprise(shares), *self.decoder.begin(features)]

    def advance(
        self, words: npt.NDArray[np.int32], state: list[Array]
    ) -> tuple[Array, list[Array]]:
        """Return logits with what is added to them, and the state after `words`."""
        added = state[0].copy()
        said = np.arange(len(words)), words
        added[said] = np.minimum(added[said], 0)
        logits, after = self.decoder.advance(words, state[1:])
        return logits + added, [added, *after]

    def rank(
        self, features: npt.NDArray[np.float32], found: Sequence[Sequence[Hypothesis]]
    ) -> list[list[Hypothesis]]:
        """Return each photo's hypotheses, likely ones that say what is detected first."""
        weighed = self.detector.detect(features) * self.detector.rarity
        return [
            self._ranked(hypotheses, of_photo)
            for hypotheses, of_photo in zip(found, weighed, strict=True)
        ]

    def look(self, features: npt.NDArray[np.float32], ids: npt.NDArray[np.int32]) -> Array | None:
        """Return where the decoder looks; see `maps.Looks`."""
        return self.decoder.look(features, ids) if isinstance(self.decoder, Looks) else None

    def _ranked(self, hypotheses: Sequence[Hypothesis], detected: Array) -> list[Hypothesis]:
        agree = _cosines([h.ids for h in hypotheses], detected, self.detector.rarity)
        scores = [h.score + self.agreement * a for h, a in zip(hypotheses, agree, strict=True)]
        order = sorted(
            range(len(hypotheses)),
            key=lambda i: (-hypotheses[i].finished, -scores[i], hypotheses[i].ids),
        )
        return [hypotheses[i] for i in order]


def informed(decoder: Steps, detector: WordDetector, bias: float, agreement: float) -> Steps:
    """Return the decoder with evidence, or itself where that counts for nothing."""
    return Informed(decoder, detector, bias, agreement) if bias or agreement else decoder


def _cosines(captions: Sequence[Sequence[int]], detected: Array, rarity: Array) -> Scores:
    """Return the cosine of each caption's words, (C,), with detected ones, (V,), all weighed."""
    whole = float(np.linalg.norm(detected))
    cosines = np.zeros(len(captions))
    for row, caption in enumerate(captions):
        words = list(set(caption))
        length = whole * float(np.linalg.norm(rarity[words]))
        if length:
            cosines[row] = float(detected[words] @ rarity[words]) / length
    return cosines
