import re
from dataclasses import replace

import pytest

from pipeline.captioner.description import ModelDescription
from pipeline.reporting.diagram import Diagram, diagram
from tests.report_fixtures import CONFIG, MODEL, grid_model

OTHER = replace(MODEL, config=replace(CONFIG, name="somebody's", dropout=0.0))
MODELS = pytest.mark.parametrize("model", [MODEL, grid_model(), OTHER])


def details(drawn: Diagram) -> dict[str, str]:
    return {box.title: box.detail for box in drawn.boxes.values()}


def test_the_merge_decoder_has_its_layers_and_sizes() -> None:
    found = details(diagram(MODEL))
    assert found["MobileNet"] == "frozen; average pooling"
    assert found["Features"] == "2,048 numbers, dropout 0.5"
    assert found["Embedding"] == "96 numbers, dropout 0.5"
    assert found["LSTM"] == "128 units, sees no photo"
    assert found["Dense, softmax"] == "over 1,470 words and marks"
    image, lstm = (diagram(MODEL).boxes[key] for key in ("image", "lstm"))
    assert (image.title, image.detail) == ("Dense, ReLU", "2,048 to 128")
    # They meet after the LSTM, which is what merge means.
    assert {("image", "add"), ("lstm", "add")} <= set(diagram(MODEL).arrows)
    assert ("image", "lstm") not in diagram(MODEL).arrows
    assert lstm.row == image.row


def test_a_grid_is_told_by_its_places() -> None:
    found = details(diagram(grid_model()))
    assert found["Features"] == "49 places of 576, dropout 0.5"
    assert found["Mean place, dense, ReLU"] == "576 to 128"


def test_a_decoder_nobody_has_drawn_gets_a_plain_picture() -> None:
    found = details(diagram(OTHER))
    assert found["somebody's decoder"] == "LSTM, 128 units"
    assert found["Embedding"] == "96 numbers"


@MODELS
def test_arrows_lead_from_box_to_box_and_no_boxes_touch(model: ModelDescription) -> None:
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


@MODELS
def test_paths_stay_in_the_picture(model: ModelDescription) -> None:
    drawn = diagram(model)
    assert [kind for _, kind in drawn.paths].count("back") == 1
    for path, _ in drawn.paths:
        assert re.fullmatch(r"M\d+ \d+([HV]\d+)+", path)
        assert all(0 <= int(number) <= drawn.height for number in re.findall(r"\d+", path))


def test_it_can_be_read_aloud() -> None:
    text = diagram(MODEL).text
    assert "Photo (32 x 32 pixels) to MobileNet (frozen; average pooling); " in text
