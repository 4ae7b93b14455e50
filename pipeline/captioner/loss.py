"""The loss: the mean negative log-likelihood of a word, in nats, by teacher forcing."""

from collections.abc import Callable, Iterable
from typing import Any

from pipeline.backend import JIT_COMPILE, keras
from pipeline.captioner.batches import Batch, Batches
from pipeline.captioner.decoder import Decoder
from pipeline.captions.vocabulary import PAD


def compile_network(network: Any, optimizer: Any) -> None:
    """Make a decoder's network ready to learn, or to be tested, with that loss."""
    network.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=PAD),
        jit_compile=JIT_COMPILE,
    )


def mean_loss(decoder: Decoder, batches: Batches) -> float:
    """Return the loss of a word of `batches`, dropout off; its exponential is the perplexity."""
    compile_network(decoder.network, "sgd")  # Keras wants one; it is not used
    return mean_of(decoder.network.test_on_batch, batches.in_order())


def mean_of(run: Callable[[list[Any], Any], Any], batches: Iterable[Batch]) -> float:
    """Run over all batches; return the mean loss of a word, whatever batch it was in."""
    total, words = 0.0, 0
    for batch in batches:
        loss = run([batch.features, batch.inputs], batch.targets)
        total += float(loss) * batch.words
        words += batch.words
    return total / words
