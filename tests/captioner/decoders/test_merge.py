from pathlib import Path
from typing import Any

import numpy as np

from pipeline.captioner.decoders import merge
from pipeline.captioner.decoders.decoder import Decoder
from pipeline.captioner.model_config import DecoderConfig
from pipeline.storage import keras_weights
from pipeline.text.vocabulary import START
from tests.support.captioner import (
    make_decoder,
    make_peaked_decoder,
    sequence_logits,
    vectors,
)


def weight_paths(decoder: Decoder) -> list[str]:
    return [weight.path for weight in decoder.network.weights]


def layer_names(decoder: Decoder) -> list[list[str]]:
    graphs = decoder.graphs[:3]
    return [[graph.name, *(layer.name for layer in graph.layers)] for graph in graphs]


def test_the_notebook_s_sizes_give_the_notebook_s_number_of_parameters() -> None:
    config = DecoderConfig("merge", 7577, (2048,), 256, 256, dropout=0.5, output_dropout=0.0)
    assert merge.build(config).network.count_params() == 5_002_649


def test_two_decoders_have_the_same_layer_and_weight_names() -> None:
    first, second = make_decoder(), make_decoder()
    assert weight_paths(first) == weight_paths(second)
    assert layer_names(first) == layer_names(second)
    assert [path.split("/")[0] for path in weight_paths(first)] == [
        *("embedding", "image", "image", "lstm", "lstm", "lstm"),
        *("fusion", "fusion", "logits", "logits"),
    ]


def test_equal_weights_are_saved_as_equal_bytes(tmp_path: Path) -> None:
    first, second = make_decoder(seed=1), make_decoder(seed=2)
    second.network.set_weights(first.network.get_weights())
    keras_weights.save(first.network, tmp_path / "1.weights.h5")
    keras_weights.save(second.network, tmp_path / "2.weights.h5")
    assert (tmp_path / "1.weights.h5").read_bytes() == (tmp_path / "2.weights.h5").read_bytes()
    assert keras_weights.digest(first.network) == keras_weights.digest(second.network)


def test_a_grid_is_averaged() -> None:
    pooled, grid = make_peaked_decoder(), make_peaked_decoder(feature_shape=(4, 6))
    features = vectors((4, 6), 3)
    ids = [[START, 4, 5]] * 3
    np.testing.assert_allclose(
        sequence_logits(grid, features, ids),
        sequence_logits(pooled, features.mean(axis=1), ids),
        atol=1e-5,
    )


def sigmoid(values: Any) -> Any:
    return 1 / (1 + np.exp(-values))


def expected_logits(decoder: Decoder, features: Any, ids: Any) -> Any:
    """Compute Tanti et al. in NumPy: an LSTM over the words, and the photo added to its output."""
    embedding, image_w, image_b, kernel, recurrent, bias, fusion_w, fusion_b, out_w, out_b = (
        decoder.network.get_weights()
    )
    image = np.maximum(features @ image_w + image_b, 0)
    hidden = cell = np.zeros((len(features), recurrent.shape[0]))
    logits = []
    for words in np.asarray(ids).T:
        gates = embedding[words] @ kernel + hidden @ recurrent + bias
        input_gate, forget_gate, candidate, output_gate = np.split(gates, 4, axis=1)
        cell = sigmoid(forget_gate) * cell + sigmoid(input_gate) * np.tanh(candidate)
        hidden = sigmoid(output_gate) * np.tanh(cell)
        logits.append(np.maximum((hidden + image) @ fusion_w + fusion_b, 0) @ out_w + out_b)
    return np.stack(logits, axis=1)


def test_logits_equal_the_formulas_of_the_paper() -> None:
    decoder = make_peaked_decoder()
    ids = [[START, 4, 5, 6], [START, 9, 7, 4]]
    features = vectors()[:2]
    np.testing.assert_allclose(
        sequence_logits(decoder, features, ids), expected_logits(decoder, features, ids), atol=1e-4
    )


def test_the_first_state_is_the_image_and_zeros() -> None:
    decoder = make_peaked_decoder()
    image, hidden, cell = decoder.graphs.start.predict_on_batch(vectors()[:3])
    kernel, bias = decoder.network.get_weights()[1:3]
    np.testing.assert_allclose(image, np.maximum(vectors()[:3] @ kernel + bias, 0), atol=1e-5)
    assert hidden.shape == cell.shape == (3, 8)
    assert not hidden.any()
    assert not cell.any()


def test_weights_and_outputs_have_the_configured_sizes() -> None:
    config = DecoderConfig("merge", 11, (3, 6), 5, 7, dropout=0.0, output_dropout=0.0)
    network, start, step, logits, *_ = merge.build(config)
    shapes = {weight.path: tuple(weight.shape) for weight in network.weights}
    assert shapes["embedding/embeddings"] == (11, 5)
    assert shapes["image/kernel"] == (6, 7)
    assert shapes["logits/kernel"] == (7, 11)
    assert [tuple(output.shape) for output in start.outputs] == [(None, 7)] * 3
    assert [tuple(output.shape) for output in step.outputs] == [(None, 7)] * 3
    assert [tuple(output.shape) for output in logits.outputs] == [(None, 11)]
