"""Views: what of a photo the encoder is shown, the whole of it or several parts, mirrored too.

Several views teach a decoder that little depends on where things stand; their mean tells
more of a photo than any of them (Krizhevsky et al. 2012, "ImageNet classification with deep
convolutional neural networks", section 4.1).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps


@dataclass(frozen=True)
class View:
    """A part of a photo.

    Attributes:
        left, top, right, bottom: its edges, as shares of the photo's width and height.
        mirrored: whether left and right are exchanged.
    """

    left: float = 0.0
    top: float = 0.0
    right: float = 1.0
    bottom: float = 1.0
    mirrored: bool = False

    def show(self, image: Image.Image, size: int) -> npt.NDArray[np.uint8]:
        """Return its pixels, (size, size, 3), stretched to the square."""
        width, height = image.size
        box = self.left * width, self.top * height, self.right * width, self.bottom * height
        square = image.resize((size, size), Image.Resampling.BICUBIC, box)
        return np.asarray(ImageOps.mirror(square) if self.mirrored else square, np.uint8)


def _with_mirror_images(*edges: tuple[float, float, float, float]) -> list[View]:
    return [View(*edge, mirrored=mirrored) for edge in edges for mirrored in (False, True)]


_WHOLE = (0.0, 0.0, 1.0, 1.0)
# The middle and the corners, three quarters of each side.
_PARTS = [(x, y, x + 0.75, y + 0.75) for x, y in ((0.125, 0.125), (0, 0), (0.25, 0),
                                                  (0, 0.25), (0.25, 0.25))]  # fmt: skip

# The whole photo comes first in each.
VIEWS: Mapping[str, Sequence[View]] = {
    "whole": [View()],
    "mirror": _with_mirror_images(_WHOLE),
    "crops": _with_mirror_images(_WHOLE, *_PARTS),
}


def join(views: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return what a decoder that learned from views, (n, V, ...), is shown of photos, (n, ...).

    The mean of pooled vectors. Places, a grid's or quarters, are elsewhere in each view: of
    those the first, the whole photo.
    """
    pooled = views.ndim == 3  # noqa: PLR2004  (photos, views, numbers)
    return views.mean(axis=1) if pooled else views[:, 0]
