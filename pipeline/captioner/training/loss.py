"""The loss: mean negative log-likelihood of a word, in nats, with teacher forcing."""

from collections.abc import Callable, Iterable
from typing import Any

from pipeline.backend import JIT_COMPILE, keras
from pipeline.captioner.decoders.decoder import Decoder
from pipeline.captioner.training.batches import Batch, Batches
from pipeline.text.vocabulary import PAD


def compile_network(network: Any, optimizer: Any, label_smoothing: float = 0.0) -> None:
    """Compile a decoder's network with this loss, for training or evaluation.

    Args:
        network: see `DecoderGraphs`.
        optimizer: a `keras.optimizers.Optimizer`, or its name.
        label_smoothing: share of the target distribution that is spread evenly over the
            vocabulary (Szegedy et al. 2016, "Rethinking the Inception architecture", section 7).
    """
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=PAD)
    if label_smoothing:
        loss = _SmoothedCrossEntropy(label_smoothing)
    network.compile(optimizer=optimizer, loss=loss, jit_compile=JIT_COMPILE)


def mean_loss(decoder: Decoder, batches: Batches) -> float:
    """Return the mean loss of a word of `batches`, without dropout.

    Its exponential is the perplexity.
    """
    return mean_over_words(build_eval_model(decoder).test_on_batch, batches.eval_batches())


def build_eval_model(decoder: Decoder) -> Any:
    """Return a network that shares the decoder's layers and has the loss without smoothing.

    It is a model of its own because the decoder's network may be compiled with another loss.
    """
    network = decoder.network
    eval_model = keras.Model(network.inputs, network.outputs, name=network.name)
    compile_network(eval_model, "sgd")  # Keras requires an optimizer; it is not used
    return eval_model


def mean_over_words(run_batch: Callable[[list[Any], Any], Any], batches: Iterable[Batch]) -> float:
    """Run all batches; return the mean loss of a word, however large its batch was."""
    total, words = 0.0, 0
    for batch in batches:
        loss = run_batch([batch.features, batch.inputs], batch.targets)
        total += float(loss) * batch.word_count
        words += batch.word_count
    return total / words


class _SmoothedCrossEntropy(keras.losses.Loss):  # type: ignore[misc]  # Keras has no types
    """Cross-entropy with label smoothing, over the targets that are not <pad>."""

    def __init__(self, smoothing: float) -> None:
        super().__init__()
        self._smoothing = smoothing

    def call(self, targets: Any, logits: Any) -> Any:
        ops = keras.ops
        targets = ops.cast(targets, "int32")  # Keras casts them to the dtype of the logits
        log_probs = ops.log_softmax(logits, axis=-1)
        target_log_probs = ops.take_along_axis(log_probs, targets[..., None], axis=-1)[..., 0]
        mean_log_probs = ops.mean(log_probs, axis=-1)
        losses = -(1 - self._smoothing) * target_log_probs - self._smoothing * mean_log_probs
        mask = ops.cast(targets != PAD, losses.dtype)
        # The mean over all words; Keras then takes the mean of this single number.
        return ops.sum(losses * mask) / ops.sum(mask)
