"""Diagrams: a decoder's layers as boxes and arrows, on a grid two lanes wide."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.captioner.model_config import ModelConfig

Lane = Literal["photo", "words", "both"]

_WIDTH, _BOX_WIDTH, _BOX_HEIGHT, _ROW = 420, 186, 48, 76
_TOP = 6
_CENTRES: dict[Lane, int] = {"photo": 99, "words": 299, "both": 199}


@dataclass(frozen=True)
class Box:
    """A layer, or what goes in or comes out.

    Attributes:
        key: what arrows call it.
        title: what it is.
        detail: its sizes.
        lane: the photo's, the words', or the middle, where both have met.
        row: from 0, at the top.
        kind: "data" or "layer".
    """

    key: str
    title: str
    detail: str
    lane: Lane
    row: int
    kind: Literal["data", "layer"] = "layer"

    @property
    def centre(self) -> int:
        """The middle, from the left."""
        return _CENTRES[self.lane]

    @property
    def left(self) -> int:
        """The left edge."""
        return self.centre - self.width // 2

    @property
    def top(self) -> int:
        """The upper edge."""
        return _TOP + self.row * _ROW

    @property
    def width(self) -> int:
        """From edge to edge."""
        return _BOX_WIDTH

    @property
    def height(self) -> int:
        """From edge to edge."""
        return _BOX_HEIGHT


@dataclass(frozen=True)
class Diagram:
    """A decoder's picture.

    Attributes:
        boxes: by key, in reading order.
        arrows: pairs of keys; one that points upwards is what a step hands to the next.
    """

    boxes: Mapping[str, Box]
    arrows: Sequence[tuple[str, str]]

    @property
    def width(self) -> int:
        """Of the picture."""
        return _WIDTH

    @property
    def height(self) -> int:
        """Of the picture."""
        return max(box.top + box.height for box in self.boxes.values()) + _TOP

    @property
    def text(self) -> str:
        """The picture in words, for those who cannot see it."""
        named = {key: f"{box.title} ({box.detail})" for key, box in self.boxes.items()}
        return "; ".join(f"{named[start]} to {named[end]}" for start, end in self.arrows)

    @property
    def paths(self) -> list[tuple[str, str]]:
        """Each arrow's SVG path, and whether it points "down" or "back"."""
        return list(self._paths())

    def _paths(self) -> Iterator[tuple[str, str]]:
        for start, end in self.arrows:
            above, below = self.boxes[start], self.boxes[end]
            if below.row > above.row:
                begin, stop = above.top + above.height, below.top - 1
                # A bend halfway down the last gap, where no box is.
                bend = below.top - (_ROW - _BOX_HEIGHT) // 2
                yield f"M{above.centre} {begin}V{bend}H{below.centre}V{stop}", "down"
            else:
                begin, stop = above.left + above.width, below.left + below.width + 1
                middles = above.top + above.height // 2, below.top + below.height // 2
                yield f"M{begin} {middles[0]}H{_WIDTH - 8}V{middles[1]}H{stop}", "back"


def diagram(model: ModelConfig) -> Diagram:
    """Return the picture of a model; a plain one for a decoder that has none of its own."""
    boxes, arrows = _DRAWN.get(model.decoder.name, _plain)(model)
    return Diagram({box.key: box for box in boxes}, arrows)


Drawn = tuple[list[Box], list[tuple[str, str]]]


def _merge(model: ModelConfig) -> Drawn:
    units = f"{model.decoder.units:,}"
    boxes = [
        *_inputs(model),
        _image(model, "ReLU", model.decoder.units),
        Box("lstm", "LSTM", f"{units} units, sees no photo", "words", 3),
        Box("add", "Add", f"{units}, where both meet", "both", 4),
        _joined(model, 5),
        *_outputs(model, 6),
    ]
    arrows = [*_INPUT_ARROWS, ("features", "image"), ("embedding", "lstm")]
    arrows += [("image", "add"), ("lstm", "add"), ("add", "joined"), ("joined", "softmax")]
    return boxes, [*arrows, *_OUTPUT_ARROWS]


def _init_inject(model: ModelConfig) -> Drawn:
    state = Box("state", "First state", "hidden; the cell begins at 0", "photo", 4, "data")
    return _begun(model, _image(model, "tanh", model.decoder.units), state)


def _pre_inject(model: ModelConfig) -> Drawn:
    size = model.decoder.embedding_size
    word = Box("before", "Word before the first", f"{size:,} numbers", "photo", 4, "data")
    return _begun(model, _image(model, "linear", size), word)


def _begun(model: ModelConfig, image: Box, first: Box) -> Drawn:
    """Return the picture of an LSTM that has seen the photo, as `first`, before any word."""
    boxes = [*_inputs(model), image, first, _lstm(model, 5), *_outputs(model, 6)]
    arrows = [*_INPUT_ARROWS, ("features", "image"), ("image", first.key), (first.key, "lstm")]
    return boxes, [*arrows, ("embedding", "lstm"), ("lstm", "softmax"), *_OUTPUT_ARROWS]


def _par_inject(model: ModelConfig) -> Drawn:
    size = f"{model.decoder.embedding_size:,}"
    inject = Box("inject", "Concatenate", f"{size} + {size}, at every word", "both", 4)
    boxes = [
        *_inputs(model),
        _image(model, "ReLU", model.decoder.embedding_size),
        inject,
        _lstm(model, 5),
        *_outputs(model, 6),
    ]
    arrows = [*_INPUT_ARROWS, ("features", "image"), ("image", "inject"), ("embedding", "inject")]
    return boxes, [*arrows, ("inject", "lstm"), ("lstm", "softmax"), *_OUTPUT_ARROWS]


def _attention(model: ModelConfig) -> Drawn:
    config = model.decoder
    units = f"{config.units:,}"
    boxes = [
        *_inputs(model),
        Box("place", "Places: dense, ReLU", _learned(model, config.units), "photo", 3),
        Box("lstm", "LSTM", f"{units} units, sees no photo", "words", 3),
        Box("look", "Attention", f"weighs {config.feature_shape[0]:,} places by word", "both", 4),
        Box("image", "Mean: dense, ReLU", f"{units} to {units}", "photo", 5),
        Box("add", "Add", f"{units}, where all three meet", "both", 6),
        _joined(model, 7),
        *_outputs(model, 8),
    ]
    arrows = [*_INPUT_ARROWS, ("features", "place"), ("embedding", "lstm"), ("place", "look")]
    arrows += [("lstm", "look"), ("place", "image"), ("look", "add"), ("image", "add")]
    arrows += [("lstm", "add"), ("add", "joined"), ("joined", "softmax")]
    return boxes, [*arrows, *_OUTPUT_ARROWS]


def _plain(model: ModelConfig) -> Drawn:
    config = model.decoder
    decoder = Box("decoder", f"{config.name} decoder", f"LSTM, {config.units:,} units", "both", 3)
    arrows = [*_INPUT_ARROWS, ("features", "decoder"), ("embedding", "decoder")]
    arrows += [("decoder", "softmax"), *_OUTPUT_ARROWS]
    return [*_inputs(model), decoder, *_outputs(model, 4)], arrows


def _inputs(model: ModelConfig) -> list[Box]:
    config, encoding = model.decoder, model.encoding
    side = encoding.input_size
    *places, size = config.feature_shape
    shape = f"{places[0]:,} places of {size:,}" if places else f"{size:,} numbers"
    embedded = f"{config.embedding_size:,} numbers{_dropped(config.dropout)}"
    scales = f", {encoding.scales} scales" if encoding.scales > 1 else ""
    vocabulary = f"{config.vocabulary_size:,}, marks included"
    return [
        Box("photo", "Photo", f"{side} x {side} pixels", "photo", 0, "data"),
        Box("words", "Words so far", f"of {vocabulary}", "words", 0, "data"),
        Box("encoder", encoding.encoder, f"frozen; {encoding.pooling}{scales}", "photo", 1),
        Box("embedding", "Embedding", embedded, "words", 2),
        Box("features", "Features", shape, "photo", 2, "data"),
    ]


def _image(model: ModelConfig, activation: str, size: int) -> Box:
    """Return what is learned to be seen in a photo as a whole, see `layers.image_vector`."""
    *places, _ = model.decoder.feature_shape
    layout = math.prod(places) * model.decoder.spatial_residual_size if places else 0
    layers = "Mean, layout" if layout else "Mean: dense" if places else "Dense"
    return Box("image", f"{layers}, {activation}", _learned(model, size, layout), "photo", 3)


def _learned(model: ModelConfig, size: int, layout: int = 0) -> str:
    """Return the sizes of the first layer that learns, which is where features are dropped."""
    given = model.decoder.feature_shape[-1] + layout
    return f"{given:,}{_dropped(model.decoder.dropout)}, to {size:,}"


def _lstm(model: ModelConfig, row: int) -> Box:
    detail = f"{model.decoder.units:,} units{_dropped(model.decoder.output_dropout)}"
    return Box("lstm", "LSTM", detail, "both", row)


def _joined(model: ModelConfig, row: int) -> Box:
    detail = f"{model.decoder.units:,}{_dropped(model.decoder.output_dropout)}"
    return Box("joined", "Dense, ReLU", detail, "both", row)


def _outputs(model: ModelConfig, row: int) -> list[Box]:
    size = f"over {model.decoder.vocabulary_size:,} words and marks"
    return [
        Box("softmax", "Dense, softmax", size, "both", row),
        Box("next", "Next word", "until the end mark", "both", row + 1, "data"),
    ]


def _dropped(share: float) -> str:
    return f", dropout {share:g}" if share else ""


_INPUT_ARROWS = [("photo", "encoder"), ("encoder", "features"), ("words", "embedding")]
_OUTPUT_ARROWS = [("softmax", "next"), ("next", "words")]
_DRAWN: Mapping[str, Callable[[ModelConfig], Drawn]] = {
    "merge": _merge,
    "init_inject": _init_inject,
    "pre_inject": _pre_inject,
    "par_inject": _par_inject,
    "attention": _attention,
}
