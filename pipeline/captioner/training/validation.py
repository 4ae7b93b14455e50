"""Validation by what counts: CIDEr-D of dev captions, found by a small search of the decoder."""

from collections.abc import Mapping, Sequence

from pipeline.captioner.generation.beam_search import search
from pipeline.captioner.generation.interfaces import StepDecoder
from pipeline.features.store import FeatureStore
from pipeline.metrics.cider import CiderD
from pipeline.metrics.references import References
from pipeline.metrics.tokenizer import tokenize
from pipeline.text.vocabulary import Vocabulary

_NO_REPEAT_NGRAM_SIZE = 3  # as the searches of `evaluate` by default


class Validation:
    """Captions photos and scores what comes out, as often as asked."""

    def __init__(
        self,
        store: FeatureStore,
        vocabulary: Vocabulary,
        references: Mapping[str, Sequence[str]],
        beam_width: int,
        max_words: int,
    ) -> None:
        """Count the references once.

        Args:
            store: features of the photos.
            vocabulary: of the decoder.
            references: image_id to the photo's captions as people wrote them.
            beam_width: of the search.
            max_words: a caption's words, at most.
        """
        self._store = store
        self._vocabulary = vocabulary
        self._image_ids = list(references)
        self._beam_width = beam_width
        self._max_words = max_words
        groups = [[tokenize(raw) for raw in group] for group in references.values()]
        self._cider_d = CiderD(References(groups))

    def cider_d(self, decoder: StepDecoder) -> float:
        """Return what the decoder's captions score, x100."""
        captions = [
            self._vocabulary.decode(hypotheses[0].ids)
            for _, features in self._store.read_chunks(self._image_ids)
            for hypotheses in search(
                decoder,
                features,
                self._beam_width,
                self._max_words,
                no_repeat_ngram_size=_NO_REPEAT_NGRAM_SIZE,
            )
        ]
        return float(self._cider_d.scores([tokenize(text) for text in captions]).mean())
