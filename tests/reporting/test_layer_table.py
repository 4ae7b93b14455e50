import json
from typing import Any

import pytest

from pipeline.backend import keras
from pipeline.captioner.decoders.decoder import DECODERS, build_decoder
from pipeline.captioner.model_config import DecoderConfig
from pipeline.reporting.layer_table import LayerRow, layer_table

OPTIONS: list[dict[str, Any]] = [
    {},
    {
        "tied_embeddings": True,
        "feature_norm": "center",
        "spatial_residual_size": 2,
        "feature_noise": 0.1,
    },
]


def make_network(name: str, **options: Any) -> Any:
    return build_decoder(DecoderConfig(name, 50, (4, 6), 8, 12, 0.5, 0.5, **options)).network


def inbound_layers(node: Any) -> list[str]:
    """Return the names in Keras' serialized node, in their order."""
    if isinstance(node, dict):
        if "keras_history" in node:
            return [node["keras_history"][0]]
        node = list(node.values())
    return [name for item in node for name in inbound_layers(item)] if type(node) is list else []


@pytest.mark.parametrize("options", OPTIONS, ids=["defaults", "tied"])
@pytest.mark.parametrize("name", DECODERS)
def test_every_decoder_has_the_rows_that_keras_has(name: str, options: dict[str, Any]) -> None:
    network = make_network(name, **options)
    table = layer_table(network)
    rows = table.rows
    assert [row.name for row in rows] == [layer.name for layer in network.layers]
    assert [row.parameters for row in rows] == [layer.count_params() for layer in network.layers]
    assert table.parameters == network.count_params()
    assert table.shares_weights == (name == "pre_inject")  # its LSTM also reads word by word
    kinds = [type(layer).__name__.lstrip("_") for layer in network.layers]
    assert [row.kind for row in rows] == kinds
    # Keras serializes the connections of this network alone, though it shares its layers.
    config = json.loads(json.dumps(network.get_config(), default=list))
    expected = {
        layer["name"]: list(dict.fromkeys(inbound_layers(layer["inbound_nodes"])))
        for layer in config["layers"]
    }
    assert {row.name: list(row.inputs) for row in rows} == expected


def test_rows_of_the_merge_decoder() -> None:
    rows = {row.name: row for row in layer_table(make_network("merge")).rows}
    assert rows["features"] == LayerRow("features", "InputLayer", [(None, 4, 6)], 0, [])
    assert rows["image"] == LayerRow("image", "Dense", [(None, 12)], 84, ["image_dropout"])
    assert rows["logits"].output_shapes == [(None, None, 50)]
    # Image and language meet after the LSTM, which never sees the photo.
    assert rows["lstm"].inputs == ["word_dropout"]
    assert rows["merge"].inputs == ["lstm", "image_broadcast"]


def test_a_layer_that_is_called_twice_has_both_inputs_and_both_outputs() -> None:
    rows = {row.name: row for row in layer_table(make_network("merge", tied_embeddings=True)).rows}
    assert rows["embedding"].output_shapes == [(None, None, 8), (None, None, 50)]
    assert len(rows["embedding"].inputs) == 2
    assert rows["embedding"].parameters == 50 * 8


def test_a_layer_with_several_outputs_has_all_their_shapes() -> None:
    features = keras.Input((3, 5))
    outputs = keras.layers.LSTM(7, return_sequences=True, return_state=True, name="lstm")(features)
    *_, lstm = layer_table(keras.Model(features, outputs)).rows
    assert lstm.output_shapes == [(None, 3, 7), (None, 7)]
