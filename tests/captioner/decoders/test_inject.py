from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.captioner.decoders.decoder import Decoder
from pipeline.text.vocabulary import START
from tests.support.captioner import make_peaked_decoder, sequence_logits, vectors

IDS = [[START, 4, 5, 6], [START, 9, 7, 4]]


def sigmoid(values: Any) -> Any:
    return 1 / (1 + np.exp(-values))


def lstm(inputs: Any, state: tuple[Any, Any], kernel: Any, recurrent: Any, bias: Any) -> Any:
    """Run an LSTM over (B, T, D); return its outputs (B, T, units) and its last state."""
    hidden, cell = state
    outputs = []
    for word in np.swapaxes(inputs, 0, 1):
        gates = word @ kernel + hidden @ recurrent + bias
        input_gate, forget_gate, candidate, output_gate = np.split(gates, 4, axis=1)
        cell = sigmoid(forget_gate) * cell + sigmoid(input_gate) * np.tanh(candidate)
        hidden = sigmoid(output_gate) * np.tanh(cell)
        outputs.append(hidden)
    return np.stack(outputs, axis=1), (hidden, cell)


@dataclass
class Parts:
    """A decoder, its weights by path, and what the formulas start from.

    Attributes:
        image: the photos' vectors before the activation, (B, size).
        embeddings: the words' vectors, (B, T, embedding_size).
        lstm_weights: kernel, recurrent kernel and bias.
        zeros: an empty hidden state, or cell.
    """

    decoder: Decoder
    weights: dict[str, Any]
    image: Any
    embeddings: Any
    lstm_weights: tuple[Any, ...]
    zeros: Any

    def check_logits(self, hidden: Any) -> None:
        expected = hidden @ self.weights["logits/kernel"] + self.weights["logits/bias"]
        np.testing.assert_allclose(
            sequence_logits(self.decoder, vectors()[:2], IDS), expected, atol=1e-4
        )


def make_parts(name: str) -> Parts:
    decoder = make_peaked_decoder(name=name)
    values = decoder.network.get_weights()
    paths = [weight.path for weight in decoder.network.weights]
    weights = dict(zip(paths, values, strict=True))
    image = vectors()[:2] @ weights["image/kernel"] + weights["image/bias"]
    embeddings = weights["embedding/embeddings"][np.array(IDS)]
    lstm_weights = tuple(value for path, value in weights.items() if path.startswith("lstm"))
    zeros = np.zeros((2, lstm_weights[1].shape[0]))
    return Parts(decoder, weights, image, embeddings, lstm_weights, zeros)


def test_init_inject_starts_with_the_image_as_its_hidden_state() -> None:
    parts = make_parts("init_inject")
    hidden, _ = lstm(parts.embeddings, (np.tanh(parts.image), parts.zeros), *parts.lstm_weights)
    parts.check_logits(hidden)


def test_pre_inject_reads_the_image_before_the_first_word() -> None:
    parts = make_parts("pre_inject")
    _, state = lstm(parts.image[:, None], (parts.zeros, parts.zeros), *parts.lstm_weights)
    hidden, _ = lstm(parts.embeddings, state, *parts.lstm_weights)
    parts.check_logits(hidden)


def test_par_inject_reads_the_image_with_every_word() -> None:
    parts = make_parts("par_inject")
    images = np.repeat(np.maximum(parts.image, 0)[:, None], parts.embeddings.shape[1], axis=1)
    inputs = np.concatenate([parts.embeddings, images], axis=2)
    hidden, _ = lstm(inputs, (parts.zeros, parts.zeros), *parts.lstm_weights)
    parts.check_logits(hidden)
