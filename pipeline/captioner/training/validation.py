"""Validation: CIDEr-D of the captions that the decoder generates for dev photos."""

from collections.abc import Mapping, Sequence

from pipeline.captioner.generation.beam_search import search
from pipeline.captioner.generation.interfaces import StepDecoder
from pipeline.features.store import FeatureStore
from pipeline.metrics.cider import CiderD
from pipeline.metrics.references import References
from pipeline.metrics.tokenizer import tokenize
from pipeline.text.vocabulary import Vocabulary

_NO_REPEAT_NGRAM_SIZE = 3  # the default of `evaluate.no_repeat_ngram_size`


class Validation:
    """Captions photos and scores the captions, as often as needed."""

    def __init__(
        self,
        store: FeatureStore,
        vocabulary: Vocabulary,
        references: Mapping[str, Sequence[str]],
        beam_width: int,
        max_words: int,
    ) -> None:
        """Count the references' n-grams once.

        Args:
            store: the photos' features.
            vocabulary: the decoder's vocabulary.
            references: image_id to the photo's raw captions.
            beam_width: hypotheses kept for each photo.
            max_words: maximum number of words of a caption.
        """
        self._store = store
        self._vocabulary = vocabulary
        self._image_ids = list(references)
        self._beam_width = beam_width
        self._max_words = max_words
        groups = [[tokenize(raw) for raw in group] for group in references.values()]
        self._cider_d = CiderD(References(groups))

    def cider_d(self, decoder: StepDecoder) -> float:
        """Return the mean CIDEr-D of the decoder's captions, x100."""
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
