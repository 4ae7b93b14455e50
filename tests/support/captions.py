"""Made-up captions for tests of scores."""

from pipeline.comparison.caption_files import Captions

WORDS = ["red", "green", "blue", "white", "dog", "cat", "horse", "runs", "sits", "on", "grass"]


def make_captions(n_photos: int) -> Captions:
    """Caption photos with six words, each a little different from the next."""
    return {
        str(photo): [" ".join(WORDS[photo * (position + 1) % len(WORDS)] for position in range(6))]
        for photo in range(n_photos)
    }


def damage_captions(captions: Captions, step: int, first: int = 0) -> Captions:
    """Replace the first word of every `step`-th caption."""
    damaged = range(first, len(captions), step)
    return {
        image_id: [f"what {caption.partition(' ')[2]}" if int(image_id) in damaged else caption]
        for image_id, (caption,) in captions.items()
    }
