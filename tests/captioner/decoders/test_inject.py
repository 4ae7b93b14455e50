from typing import Any

import numpy as np

from pipeline.captioner.decoders.decoder import Decoder
from pipeline.text.vocabulary import START
from tests.support.captioner import logits_of, make_decided_decoder, vectors

IDS = [[START, 4, 5, 6], [START, 9, 7, 4]]


def sigmoid(values: Any) -> Any:
    return 1 / (1 + np.exp(-values))


def lstm(inputs: Any, state: tuple[Any, Any], kernel: Any, recurrent: Any, bias: Any) -> Any:
    """Follow an LSTM over (B, T, D); return its outputs (B, T, units) and its last state."""
    hidden, cell = state
    outputs = []
    for word in np.swapaxes(inputs, 0, 1):
        gates = word @ kernel + hidden @ recurrent + bias
        into, forget, candidate, out = np.split(gates, 4, axis=1)
        cell = sigmoid(forget) * cell + sigmoid(into) * np.tanh(candidate)
        hidden = sigmoid(out) * np.tanh(cell)
        outputs.append(hidden)
    return np.stack(outputs, axis=1), (hidden, cell)


def parts(name: str) -> tuple[Decoder, dict[str, Any], Any, tuple[Any, ...], Any]:
    decoder = make_decided_decoder(name=name)
    weights = {
        w.path: v
        for w, v in zip(decoder.network.weights, decoder.network.get_weights(), strict=True)
    }
    features = vectors()[:2]
    image = features @ weights["image/kernel"] + weights["image/bias"]
    inside = tuple(value for path, value in weights.items() if path.startswith("lstm"))
    return decoder, weights, image, inside, weights["embedding/embeddings"][np.array(IDS)]


def check(decoder: Decoder, weights: dict[str, Any], hidden: Any) -> None:
    expected = hidden @ weights["logits/kernel"] + weights["logits/bias"]
    np.testing.assert_allclose(logits_of(decoder, vectors()[:2], IDS), expected, atol=1e-4)


def test_init_inject_begins_with_the_image_as_its_state() -> None:
    decoder, weights, image, inside, words = parts("init_inject")
    hidden, _ = lstm(words, (np.tanh(image), np.zeros_like(image)), *inside)
    check(decoder, weights, hidden)


def test_pre_inject_reads_the_image_before_the_first_word() -> None:
    decoder, weights, image, inside, words = parts("pre_inject")
    null_features = np.zeros((2, inside[1].shape[0]))
    _, seen = lstm(image[:, None], (null_features, null_features), *inside)
    hidden, _ = lstm(words, seen, *inside)
    check(decoder, weights, hidden)


def test_par_inject_reads_the_image_beside_every_word() -> None:
    decoder, weights, image, inside, words = parts("par_inject")
    null_features = np.zeros((2, inside[1].shape[0]))
    beside = np.repeat(np.maximum(image, 0)[:, None], words.shape[1], axis=1)
    hidden, _ = lstm(
        np.concatenate([words, beside], axis=2), (null_features, null_features), *inside
    )
    check(decoder, weights, hidden)
