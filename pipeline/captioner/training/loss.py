"""The loss: the mean negative log-likelihood of a word, in nats, by teacher forcing."""

from collections.abc import Callable, Iterable
from typing import Any

from pipeline.backend import JIT_COMPILE, keras
from pipeline.captioner.decoders.decoder import Decoder
from pipeline.captioner.training.batches import Batch, Batches
from pipeline.text.vocabulary import PAD


def compile_network(network: Any, optimizer: Any, label_smoothing: float = 0.0) -> None:
    """Make a decoder's network ready to learn, or to be tested, with that loss.

    Args:
        network: see `DecoderGraphs`.
        optimizer: a `keras.optimizers.Optimizer`, or its name.
        label_smoothing: the share of the target that all words have in common (Szegedy et al.
            2016, "Rethinking the Inception architecture", section 7).
    """
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=PAD)
    if label_smoothing:
        loss = _Smoothed(label_smoothing)
    network.compile(optimizer=optimizer, loss=loss, jit_compile=JIT_COMPILE)


def mean_loss(decoder: Decoder, batches: Batches) -> float:
    """Return the loss of a word of `batches`, dropout off; its exponential is the perplexity."""
    return mean_of(build_eval_model(decoder).test_on_batch, batches.in_order())


def build_eval_model(decoder: Decoder) -> Any:
    """Return a network with the decoder's layers, to be tested: training may have another loss."""
    network = decoder.network
    tested = keras.Model(network.inputs, network.outputs, name=network.name)
    compile_network(tested, "sgd")  # Keras wants one; it is not used
    return tested


def mean_of(run: Callable[[list[Any], Any], Any], batches: Iterable[Batch]) -> float:
    """Run over all batches; return the mean loss of a word, whatever batch it was in."""
    total, words = 0.0, 0
    for batch in batches:
        loss = run([batch.features, batch.inputs], batch.targets)
        total += float(loss) * batch.words
        words += batch.words
    return total / words


class _Smoothed(keras.losses.Loss):  # type: ignore[misc]  # Keras has no types
    """Takes a share of the target from the word that follows and gives it to all words."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self._share = share

    def call(self, targets: Any, logits: Any) -> Any:
        ops = keras.ops
        targets = ops.cast(targets, "int32")  # Keras makes numbers of the logits' kind of them
        told = ops.log_softmax(logits, axis=-1)
        of_word = ops.take_along_axis(told, targets[..., None], axis=-1)[..., 0]
        lost = -(1 - self._share) * of_word - self._share * ops.mean(told, axis=-1)
        words = ops.cast(targets != PAD, lost.dtype)
        # The mean over all words; Keras then takes the mean of this one number.
        return ops.sum(lost * words) / ops.sum(words)
