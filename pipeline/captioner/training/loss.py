"""The loss: mean negative log-likelihood of a word, in nats, with teacher forcing.

The logits of all words, (B, T, V), are the largest array of a training step: after its matrix
products, reading and writing them took most of its time. Here the last layer, the softmax and the
cross-entropy are one function with a gradient of its own, which is simple: the difference between
predicted and target probabilities.
"""

from collections.abc import Callable, Iterable
from typing import Any

from pipeline.backend import JIT_COMPILE, keras
from pipeline.captioner.decoders.decoder import Decoder
from pipeline.captioner.training.batches import Batch, Batches
from pipeline.text.vocabulary import PAD

ops = keras.ops

_MIN_PROBABILITY = 1e-37  # nearly the least that float32 has with all its digits


class LossModel(keras.Model):  # type: ignore[misc]  # Keras has no types
    """A decoder's network that ends in its loss; `train_on_batch` and `test_on_batch` return it."""

    def __init__(
        self,
        decoder: Decoder,
        optimizer: Any = "sgd",
        label_smoothing: float = 0.0,
        *,
        dropout: bool = True,
    ) -> None:
        """Compile the model; it shares the decoder's layers.

        Args:
            decoder: the decoder to train or evaluate.
            optimizer: a `keras.optimizers.Optimizer`. Keras requires one for evaluation too.
            label_smoothing: share of the target distribution that is spread evenly over the
                vocabulary (Szegedy et al. 2016, "Rethinking the Inception architecture",
                section 7).
            dropout: whether training uses dropout and noise.
        """
        super().__init__(name=decoder.network.name)
        self._network = decoder.network  # Keras finds the weights here
        self._decoder = decoder
        self._label_smoothing = label_smoothing
        self._dropout = dropout
        self.compile(optimizer=optimizer, jit_compile=JIT_COMPILE)

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Return the vectors (B, T, N) from which the logits are computed."""
        return self._decoder.graphs.output.vectors(inputs, training=training and self._dropout)

    def compute_loss(
        self,
        x: Any = None,  # noqa: ARG002  (Keras passes it)
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,  # noqa: ARG002
    ) -> Any:
        """Return the sum of the words' losses with these weights, by default their mean.

        Args:
            x: the inputs; not used.
            y: targets (B, T).
            y_pred: vectors (B, T, N).
            sample_weight: the words' weights (B, T), 0 for <pad>.
            training: not used.
        """
        targets = ops.cast(ops.reshape(y, (-1,)), "int32")
        if sample_weight is None:
            mask = ops.cast(targets != PAD, "float32")
            weights = mask / ops.sum(mask)
        else:
            weights = ops.cast(ops.reshape(sample_weight, (-1,)), "float32")
        vectors = ops.reshape(y_pred, (-1, y_pred.shape[-1]))
        kernel, bias = self._decoder.graphs.output.weights()
        return _cross_entropy(vectors, kernel, bias, targets, weights, self._label_smoothing)


def mean_loss(decoder: Decoder, batches: Batches) -> float:
    """Return the mean loss of a word of `batches`, without dropout or label smoothing.

    Its exponential is the perplexity.
    """
    return mean_over_words(LossModel(decoder).test_on_batch, batches.eval_batches())


def mean_over_words(run_batch: Callable[[list[Any], Any], Any], batches: Iterable[Batch]) -> float:
    """Run all batches; return the mean loss of a word, however large its batch was."""
    total, words = 0.0, 0
    for batch in batches:
        loss = run_batch([batch.features, batch.inputs], batch.targets)
        total += float(loss) * batch.word_count
        words += batch.word_count
    return total / words


def _cross_entropy(
    vectors: Any, kernel: Any, bias: Any, targets: Any, weights: Any, smoothing: float
) -> Any:
    """Return the weighted sum of the words' losses, a scalar.

    Args:
        vectors: (n, N).
        kernel: (N, V).
        bias: (V,).
        targets: ids (n,).
        weights: the words' weights (n,).
        smoothing: share of the target distribution that is spread evenly.
    """
    share = smoothing / kernel.shape[-1]  # of each word

    @ops.custom_gradient  # type: ignore[untyped-decorator]
    def loss(vectors: Any, kernel: Any, bias: Any) -> tuple[Any, Any]:
        columns = targets[:, None]
        logits = ops.matmul(vectors, kernel) + bias
        probs = ops.softmax(logits, axis=-1)
        target_probs = ops.take_along_axis(probs, columns, axis=-1)
        target_logits = ops.take_along_axis(logits, columns, axis=-1)
        losses = ops.cond(
            ops.min(target_probs) > _MIN_PROBABILITY,
            lambda: -ops.log(target_probs),
            # Right for all, and slower.
            lambda: ops.logsumexp(logits, axis=-1, keepdims=True) - target_logits,
        )
        if smoothing:
            # The same as the targets' share of the loss and the mean over all words.
            mean_kernel = ops.mean(kernel, axis=-1, keepdims=True)
            mean_logits = ops.matmul(vectors, mean_kernel) + ops.mean(bias)
            losses += smoothing * (target_logits - mean_logits)

        def gradient(*d_losses: Any, upstream: Any = None) -> tuple[Any, Any, Any]:
            (d_loss,) = d_losses if upstream is None else (upstream,)
            d_logits = probs - share if smoothing else probs
            d_targets = target_probs[:, 0] - (1 - smoothing + share)
            rows = ops.arange(ops.shape(targets)[0], dtype="int32")
            indices = ops.stack([rows, targets], axis=1)
            d_logits = ops.scatter_update(d_logits, indices, d_targets)
            return _gradients(vectors, kernel, d_logits, (weights * d_loss)[:, None])

        return ops.sum(losses[:, 0] * weights), gradient

    # A custom gradient works for tensors only: variables would get no gradient.
    return loss(vectors, ops.copy(kernel), ops.copy(bias))


def _gradients(vectors: Any, kernel: Any, d_logits: Any, weights: Any) -> tuple[Any, Any, Any]:
    """Return the gradients of vectors, kernel and bias; the weights of the rows are (n, 1)."""
    return (
        ops.matmul(d_logits, ops.transpose(kernel)) * weights,
        ops.matmul(ops.transpose(vectors * weights), d_logits),
        ops.matmul(ops.transpose(weights), d_logits)[0],
    )
