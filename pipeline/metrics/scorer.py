"""The scorer: all metrics of each caption, and of the corpus."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.metrics.bleu import COUNTS, bleu, bleu_counts
from pipeline.metrics.cider import CiderD
from pipeline.metrics.ngrams import Floats, Ints, Tokens
from pipeline.metrics.references import References
from pipeline.metrics.rouge import rouge_l

METRICS = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr-D")


@dataclass(frozen=True)
class Scores:
    """The scores of one candidate per image.

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
        """METRICS of the whole corpus, x100."""
        all_once = np.ones((1, len(self.rouge_l)))
        return dict(zip(METRICS, self.resampled(all_once)[0].tolist(), strict=True))

    def resampled(self, weights: Floats) -> Floats:
        """Return METRICS of resampled corpora, (S, 6): corpus s has caption i weights[s, i] times.

        CIDEr-D keeps the idf of the original corpus.

        Args:
            weights: (S, C).
        """
        sums = weights @ self.sufficient_statistics()
        means = sums[:, COUNTS:] / weights.sum(axis=1, keepdims=True)
        return np.concatenate([bleu(sums[:, :COUNTS]), means], axis=1)

    def sufficient_statistics(self) -> Floats:
        """Return what each caption adds to the sums behind METRICS, (C, COUNTS + 2)."""
        return np.column_stack([self.bleu_counts, self.rouge_l, self.cider_d])


class Scorer:
    """Scores captions as coco-caption does (Chen et al. 2015), without its Java."""

    def __init__(self, references: Sequence[Sequence[Tokens]]) -> None:
        """Count the references once, for any number of candidates.

        Args:
            references: for each image its references, as tokens (`tokenizer.tokenize`).

        Raises:
            ValueError: there is no image, or an image has no references.
        """
        self.references = References(references)
        self._cider_d = CiderD(self.references)

    def score(self, candidates: Sequence[Tokens]) -> Scores:
        """Score one candidate per image, in order.

        Raises:
            ValueError: there are more or fewer candidates than images.
        """
        references = self.references.by_image
        if len(candidates) != len(references):
            raise ValueError(f"{len(candidates)} candidates for {len(references)} photos")
        image = np.arange(len(candidates))
        ngrams = self.references.ngrams.count(candidates)
        return Scores(
            bleu_counts=bleu_counts(self.references, ngrams, image),
            rouge_l=rouge_l(candidates, references),
            cider_d=self._cider_d.score_ngrams(ngrams, image),
        )
