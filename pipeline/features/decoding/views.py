"""Views: which parts of a photo the encoder sees: the whole photo or crops, also mirrored.

Training on several views makes a decoder depend less on the position of objects in the photo.
The mean over views describes a photo better than any single view (Krizhevsky et al. 2012,
"ImageNet classification with deep convolutional neural networks", section 4.1).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps


@dataclass(frozen=True)
class View:
    """A rectangle of a photo.

    Attributes:
        left, top, right, bottom: its edges, as shares of the photo's width and height.
        mirrored: whether it is flipped horizontally.
    """

    left: float = 0.0
    top: float = 0.0
    right: float = 1.0
    bottom: float = 1.0
    mirrored: bool = False

    def crop(self, image: Image.Image, size: int) -> npt.NDArray[np.uint8]:
        """Return the view's pixels, (size, size, 3), stretched to a square."""
        width, height = image.size
        box = self.left * width, self.top * height, self.right * width, self.bottom * height
        square = image.resize((size, size), Image.Resampling.BICUBIC, box)
        return np.asarray(ImageOps.mirror(square) if self.mirrored else square, np.uint8)


def _with_mirror_images(*boxes: tuple[float, float, float, float]) -> list[View]:
    return [View(*box, mirrored=mirrored) for box in boxes for mirrored in (False, True)]


_WHOLE = (0.0, 0.0, 1.0, 1.0)
# The centre and the four corners, each three quarters of the photo's sides.
_CROPS = [(x, y, x + 0.75, y + 0.75) for x, y in ((0.125, 0.125), (0, 0), (0.25, 0),
                                                  (0, 0.25), (0.25, 0.25))]  # fmt: skip

# The whole photo is the first view of each.
VIEWS: Mapping[str, Sequence[View]] = {
    "whole": [View()],
    "mirror": _with_mirror_images(_WHOLE),
    "crops": _with_mirror_images(_WHOLE, *_CROPS),
}


def merge_views(views: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Merge the vectors of all views, (n, V, ...), into one per photo, (n, ...).

    Decoders trained on single views get this as the input at inference. Pooled vectors are
    averaged. The positions of a grid, or of quarters, show other parts of the photo in every
    view and cannot be averaged: those of the first view, the whole photo, are returned.
    """
    pooled = views.ndim == 3  # noqa: PLR2004  (photos, views, dimensions)
    return views.mean(axis=1) if pooled else views[:, 0]
