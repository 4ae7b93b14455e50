import re
from dataclasses import replace
from itertools import pairwise

import pytest

from pipeline.captioner.decoders.decoder import DECODERS, build_decoder
from pipeline.captioner.model_config import ModelConfig
from pipeline.reporting.diagram import Box, Diagram, diagram
from tests.support.report import CONFIG, MODEL, grid_model

OTHER = replace(MODEL, decoder=replace(CONFIG, name="somebody's", dropout=0.0))


def model_of(name: str, *, grid: bool = False) -> ModelConfig:
    model = grid_model() if grid else MODEL
    return replace(model, decoder=replace(model.decoder, name=name))


INJECTS = [model_of(name, grid=grid) for name in list(DECODERS)[1:4] for grid in (False, True)]
ATTENTION = model_of("attention", grid=True)
MODELS = pytest.mark.parametrize(
    "model", [MODEL, grid_model(), *INJECTS, ATTENTION, OTHER], ids=lambda m: m.decoder.name
)


def details(drawn: Diagram) -> dict[str, str]:
    return {box.title: box.detail for box in drawn.boxes.values()}


def test_the_merge_decoder_has_its_layers_and_sizes() -> None:
    found = details(diagram(MODEL))
    assert found["MobileNet"] == "frozen; average"
    assert found["Features"] == "2,048 numbers"
    assert found["Embedding"] == "96 numbers, dropout 0.5"
    assert found["LSTM"] == "128 units, sees no photo"
    assert found["Dense, softmax"] == "over 1,470 words and marks"
    image, lstm = (diagram(MODEL).boxes[key] for key in ("image", "lstm"))
    assert (image.title, image.detail) == ("Dense, ReLU", "2,048, dropout 0.5, to 128")
    # They meet after the LSTM, which is what merge means.
    assert {("image", "add"), ("lstm", "add")} <= set(diagram(MODEL).arrows)
    assert ("image", "lstm") not in diagram(MODEL).arrows
    assert lstm.row == image.row


def test_a_grid_is_told_by_its_places() -> None:
    found = details(diagram(grid_model()))
    assert found["Features"] == "49 places of 576"
    # What is dropped is dropped from the mean.
    assert found["Mean: dense, ReLU"] == "576, dropout 0.5, to 128"


def default_model(name: str) -> ModelConfig:
    """Return what the default params make of Flickr8k's captions."""
    config = replace(
        CONFIG,
        name=name,
        vocabulary_size=7577,
        feature_shape=(4, 2776),
        embedding_size=256,
        units=256,
        dropout=0.3,
        spatial_residual_size=8,
    )
    encoding = replace(MODEL.encoding, encoder="InceptionResNetV2", pooling="quarters", scales=2)
    return replace(MODEL, decoder=config, encoding=encoding)


def test_a_layout_is_told_beside_the_mean() -> None:
    found = details(diagram(default_model("merge")))
    assert found["InceptionResNetV2"] == "frozen; quarters, 2 scales"
    assert found["Mean, layout, ReLU"] == "2,808, dropout 0.3, to 256"


@pytest.mark.parametrize("name", DECODERS)
def test_what_a_box_says_fits_into_it(name: str) -> None:
    # As much as was seen to fit in Chromium.
    for box in diagram(default_model(name)).boxes.values():
        assert len(box.detail) <= 28, box.detail
        assert len(box.title) <= 21, box.title


def into(drawn: Diagram, key: str) -> set[str]:
    return {start for start, end in drawn.arrows if end == key}


def test_init_inject_begins_with_the_photo_as_the_first_state() -> None:
    drawn = diagram(model_of("init_inject"))
    assert into(drawn, "lstm") == {"state", "embedding"}
    assert into(drawn, "state") == {"image"}
    assert into(drawn, "softmax") == {"lstm"}
    found = details(drawn)
    assert found["Dense, tanh"] == "2,048, dropout 0.5, to 128"  # units
    assert found["First state"] == "hidden; the cell begins at 0"
    assert found["LSTM"] == "128 units, dropout 0.25"


def test_pre_inject_reads_the_photo_before_the_first_word() -> None:
    drawn = diagram(model_of("pre_inject"))
    assert into(drawn, "lstm") == {"before", "embedding"}
    assert into(drawn, "before") == {"image"}
    assert into(drawn, "softmax") == {"lstm"}
    found = details(drawn)
    assert found["Dense, linear"] == "2,048, dropout 0.5, to 96"  # as long as a word's vector
    assert found["Word before the first"] == "96 numbers"
    assert found["LSTM"] == "128 units, dropout 0.25"


def test_par_inject_has_the_photo_beside_every_word() -> None:
    drawn = diagram(model_of("par_inject"))
    assert into(drawn, "inject") == {"image", "embedding"}
    assert into(drawn, "lstm") == {"inject"}
    assert into(drawn, "softmax") == {"lstm"}
    found = details(drawn)
    assert found["Dense, ReLU"] == "2,048, dropout 0.5, to 96"
    assert found["Concatenate"] == "96 + 96, at every word"


def test_attention_weighs_the_places_by_what_the_lstm_says() -> None:
    drawn = diagram(ATTENTION)
    assert into(drawn, "lstm") == {"embedding"}
    assert into(drawn, "look") == {"place", "lstm"}
    assert into(drawn, "image") == {"place"}
    assert into(drawn, "add") == {"look", "image", "lstm"}
    assert into(drawn, "joined") == {"add"}
    found = details(drawn)
    assert found["Places: dense, ReLU"] == "576, dropout 0.5, to 128"
    assert found["LSTM"] == "128 units, sees no photo"
    assert found["Attention"] == "weighs 49 places by word"
    assert found["Mean: dense, ReLU"] == "128 to 128"
    assert found["Dense, ReLU"] == "128, dropout 0.25"


@pytest.mark.parametrize("name", DECODERS)
def test_every_decoder_has_a_picture_of_its_own(name: str) -> None:
    assert "decoder" not in diagram(model_of(name, grid=True)).boxes


@pytest.mark.parametrize("model", [grid_model(), *INJECTS, ATTENTION], ids=lambda m: m.decoder.name)
def test_the_sizes_are_those_of_the_decoder_s_own_layers(model: ModelConfig) -> None:
    """A dense layer that is drawn is there, between such sizes and with such an activation."""
    network = build_decoder(model.decoder).network
    layers = {layer.name: layer for layer in network.layers}
    drawn = diagram(model)
    dense = [box for box in drawn.boxes.values() if box.key in {"image", "place"}]
    for box in dense:
        given, made = layers[box.key].kernel.shape
        sizes = [int(n.replace(",", "")) for n in re.findall(r"(?<![\d.])\d[\d,]*\d", box.detail)]
        assert sizes == [given, made]
        assert box.title.lower().endswith(layers[box.key].activation.__name__)
        assert ("mean_place" in layers) or not box.title.startswith("Mean")
    share = layers["output_dropout"].rate
    holder = drawn.boxes["joined" if "joined" in drawn.boxes else "lstm"]
    assert holder.detail.endswith(f", dropout {share}")


def test_a_decoder_nobody_has_drawn_gets_a_plain_picture() -> None:
    found = details(diagram(OTHER))
    assert found["somebody's decoder"] == "LSTM, 128 units"
    assert found["Embedding"] == "96 numbers"


@MODELS
def test_arrows_lead_from_box_to_box_and_no_boxes_touch(model: ModelConfig) -> None:
    drawn = diagram(model)
    boxes = list(drawn.boxes.values())
    assert {key for arrow in drawn.arrows for key in arrow} == set(drawn.boxes)
    for box in boxes:
        assert box.left >= 0
        assert box.left + box.width <= drawn.width
        assert 0 <= box.top < box.top + box.height <= drawn.height
    places = [(box.row, box.lane) for box in boxes]
    assert len(set(places)) == len(places)
    middle = {row for row, lane in places if lane == "both"}
    assert middle.isdisjoint(row for row, lane in places if lane != "both")


def crossed(path: str, boxes: list[Box]) -> list[str]:
    """Return the boxes that an arrow's path leads through."""
    x, y = map(int, re.findall(r"M(\d+) (\d+)", path)[0])
    points = [(x, y)]
    for way, number in re.findall(r"([HV])(\d+)", path):
        x, y = (int(number), y) if way == "H" else (x, int(number))
        points.append((x, y))
    return [
        box.key
        for box in boxes
        for (x, y), (to_x, to_y) in pairwise(points)
        if min(x, to_x) < box.left + box.width
        and max(x, to_x) > box.left
        and min(y, to_y) < box.top + box.height
        and max(y, to_y) > box.top
    ]


@MODELS
def test_arrows_lead_through_no_box(model: ModelConfig) -> None:
    drawn = diagram(model)
    for path, _ in drawn.paths:
        assert crossed(path, list(drawn.boxes.values())) == []


@MODELS
def test_paths_stay_in_the_picture(model: ModelConfig) -> None:
    drawn = diagram(model)
    assert [kind for _, kind in drawn.paths].count("back") == 1
    for path, _ in drawn.paths:
        assert re.fullmatch(r"M\d+ \d+([HV]\d+)+", path)
        assert all(0 <= int(number) <= drawn.height for number in re.findall(r"\d+", path))


def test_it_can_be_read_aloud() -> None:
    text = diagram(MODEL).text
    assert "Photo (32 x 32 pixels) to MobileNet (frozen; average); " in text
