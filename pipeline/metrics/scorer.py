"""Scores: what each caption of a corpus gets, and what follows for the whole."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.metrics.bleu import COUNTS, bleu, bleu_counts
from pipeline.metrics.cider import CiderD
from pipeline.metrics.ngrams import Ints, Tokens
from pipeline.metrics.references import References
from pipeline.metrics.rouge import rouge_l

Floats = npt.NDArray[np.float64]

METRICS = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr-D")


@dataclass(frozen=True)
class Scores:
    """A candidate for each photo, scored.

    Attributes:
        bleu_counts: (C, COUNTS), see `bleu.bleu_counts`.
        rouge_l: (C,), x100.
        cider_d: (C,), x100.
    """

    bleu_counts: Ints
    rouge_l: Floats
    cider_d: Floats

    @property
    def corpus(self) -> dict[str, float]:
        """Each of METRICS, x100, of all captions together."""
        everyone = np.ones((1, len(self.rouge_l)))
        return dict(zip(METRICS, self.weighted(everyone)[0].tolist(), strict=True))

    def weighted(self, weights: Floats) -> Floats:
        """Return METRICS of corpora, (S, 6), in which caption i is weights[s, i] times.

        CIDEr-D keeps the word weights of the whole corpus.

        Args:
            weights: (S, C).
        """
        sums = weights @ self.addends()
        means = sums[:, COUNTS:] / weights.sum(axis=1, keepdims=True)
        return np.concatenate([bleu(sums[:, :COUNTS]), means], axis=1)

    def mixed(self, others: "Scores", theirs: npt.NDArray[np.bool_]) -> Floats:
        """Return METRICS of corpora, (S, 6), that take caption i from `others` if theirs[s, i].

        Args:
            others: of the same photos, in the same order.
            theirs: (S, C).
        """
        ours = self.addends()
        sums = ours.sum(axis=0) + theirs @ (others.addends() - ours)
        return np.concatenate([bleu(sums[:, :COUNTS]), sums[:, COUNTS:] / len(ours)], axis=1)

    def addends(self) -> Floats:
        """Return what each caption adds to the sums that METRICS follow from, (C, COUNTS + 2)."""
        return np.column_stack([self.bleu_counts, self.rouge_l, self.cider_d])


class Scorer:
    """Scores captions as coco-caption does (Chen et al. 2015), without its Java."""

    def __init__(self, groups: Sequence[Sequence[Tokens]]) -> None:
        """Count references once, for any number of candidates.

        Args:
            groups: each photo's references, as tokens (`tokens.tokenize`), at least one.

        Raises:
            ValueError: no photo, or a photo without references.
        """
        self.references = References(groups)
        self._cider_d = CiderD(self.references)

    def score(self, candidates: Sequence[Tokens]) -> Scores:
        """Score a candidate for each photo, in order.

        Raises:
            ValueError: there are more or fewer.
        """
        groups = self.references.groups
        if len(candidates) != len(groups):
            raise ValueError(f"{len(candidates)} candidates for {len(groups)} photos")
        photo = np.arange(len(candidates))
        grams = self.references.lexicon.read(candidates)
        return Scores(
            bleu_counts=bleu_counts(self.references, grams, photo),
            rouge_l=rouge_l(candidates, groups),
            cider_d=self._cider_d.of_grams(grams, photo),
        )
