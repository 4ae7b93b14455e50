"""Maps: at which places of its photo a decoder looked for each word of a caption."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from pipeline.captioner.generation.interfaces import Array, StepDecoder, SupportsAttentionMaps
from pipeline.text.vocabulary import PAD, START

Map = npt.NDArray[np.uint8]

GREATEST = 255  # what the place that counted most for a word has
_PHOTOS = 64  # that one pass looks at: a grid of Xception is 0.8 MB of each


def caption_maps(
    decoder: StepDecoder, features: npt.NDArray[np.float32], captions: Sequence[Sequence[int]]
) -> list[Map | None]:
    """Return where a decoder looked for each word of its captions.

    Args:
        decoder: the decoder.
        features: (N, P, D) or (N, D), of the captions' photos.
        captions: the ids of each one's words, without markers.

    Returns:
        For each caption (n_words, P): a place's share of the word's attention, 255 for the
        word's greatest; None where the decoder does not look at places, or cannot say.
    """
    if not isinstance(decoder, SupportsAttentionMaps):
        return [None] * len(captions)
    ids = _words_before(captions)
    found: list[Map | None] = []
    for rows in _parts(len(captions)):
        shares = decoder.attention_maps(features[rows], ids[rows])
        if shares is None:
            return [None] * len(captions)
        found += [
            _scaled(of_photo[: len(captions[row])])
            for row, of_photo in zip(rows, shares, strict=True)
        ]
    return found[: len(captions)]


def _words_before(captions: Sequence[Sequence[int]]) -> npt.NDArray[np.int32]:
    """Return what stands before each word, (N, T): <start> and all words but the last."""
    longest = max(map(len, captions), default=0)
    ids = np.full((len(captions), max(longest, 1)), PAD, np.int32)
    ids[:, 0] = START
    for row, words in enumerate(captions):
        ids[row, 1 : len(words)] = words[:-1]
    return ids


def _parts(count: int) -> Iterator[npt.NDArray[np.int_]]:
    """Yield rows in parts of one size, the last filled up from the first: one compiled shape."""
    size = min(count, _PHOTOS)
    for start in range(0, count, _PHOTOS):
        yield np.arange(start, start + size) % count


def _scaled(shares: Array) -> Map:
    """Return whole numbers of shares (n_words, P), each word's greatest `GREATEST`."""
    greatest = shares.max(axis=-1, keepdims=True)
    scaled: Map = np.rint(GREATEST * (shares / greatest)).astype(np.uint8)
    return scaled
