"""The LSTM of all decoders: Keras' own, with a quicker gradient where there is no accelerator.

Hochreiter and Schmidhuber (1997) with the forget gate of Gers et al. (2000). Keras goes through
the words one by one, and the gradient of its loop makes at every word a product as large as the
kernels, of few rows, only to add them up: half the time of a training step on a CPU. Here the
words' products with the kernel are one before the loop; the loop back finds only what must be
found in order, the gradients of hidden and cell; all else is one product over all words again.
"""

from typing import Any

from pipeline.backend import has_accelerator, keras

ops = keras.ops


class LSTM(keras.layers.LSTM):  # type: ignore[misc]  # Keras has no types
    """`keras.layers.LSTM` as decoders use it: its usual gates, all of its outputs."""

    def __init__(self, units: int, *, return_state: bool = False, name: str) -> None:
        """Make the layer.

        Args:
            units: of hidden and cell.
            return_state: whether the last hidden and cell are returned beside the outputs.
            name: of the layer.
        """
        super().__init__(units, return_sequences=True, return_state=return_state, name=name)

    def inner_loop(
        self, sequences: Any, initial_state: list[Any], mask: Any, training: bool = False
    ) -> tuple[Any, Any, list[Any]]:
        """Follow sequences (B, T, D); see Keras' method of this name.

        Returns:
            The last output (B, units), all outputs (B, T, units), the last [hidden, cell].
        """
        if mask is not None or not _ours():
            return super().inner_loop(sequences, initial_state, mask, training)  # type: ignore[no-any-return]
        in_time = ops.transpose(sequences, (1, 0, 2))
        told = ops.matmul(in_time, self.cell.kernel) + self.cell.bias
        kernel = ops.copy(self.cell.recurrent_kernel)  # an array: it is told its gradient
        hidden, cell = _recur(told, kernel, *initial_state)
        return hidden[-1], ops.transpose(hidden, (1, 0, 2)), [hidden[-1], cell]


def _ours() -> bool:
    """Whether the gradient below is to be taken: cuDNN and PyTorch have quick ones of their own."""
    return keras.config.backend() != "torch" and not has_accelerator()


@ops.custom_gradient  # type: ignore[untyped-decorator]
def _recur(told: Any, kernel: Any, hidden: Any, cell: Any) -> tuple[Any, Any]:
    """Follow what the words alone add to the gates, `told` (T, B, 4 units), in Keras' order.

    Returns:
        (hidden (T, B, units), the last cell (B, units)), and what makes gradients of theirs
        those of the arguments.
    """

    def follow(state: tuple[Any, ...], told_now: Any) -> tuple[Any, Any]:
        before, kept, _ = state
        sums = told_now + ops.matmul(before, kernel)
        enter, forget, new, out = _gates(sums)
        kept = forget * kept + enter * new
        state = (out * ops.tanh(kept), kept, sums)
        return state, state

    # Keras' scan stores what it carries on, so that the sums, which go nowhere, are carried too.
    (_, last, _), (hiddens, cells, sums) = ops.scan(follow, (hidden, cell, told[0]), told)

    def gradient(*of: Any) -> tuple[Any, ...]:
        # TensorFlow gives the two gradients one by one, JAX as one pair.
        of_hiddens, of_last = of[0] if len(of) == 1 else of
        before = ops.concatenate([hidden[None], hiddens[:-1]])
        kept = ops.concatenate([cell[None], cells[:-1]])
        enter, forget, new, out = _gates(sums)
        shown = ops.tanh(cells)
        # What a gate's sum changes: three of them the cell, the output's the hidden.
        slopes = ops.concatenate(
            [
                new * enter * (1 - enter),
                kept * forget * (1 - forget),
                enter * (1 - new * new),
                shown * out * (1 - out),
            ],
            axis=-1,
        )
        shows = out * (1 - shown * shown)
        back = ops.transpose(kernel)

        def follow_back(after: tuple[Any, Any], now: Any) -> tuple[Any, Any]:
            of_hidden, of_cell = after
            of_hidden += of_hiddens[now]
            of_cell += of_hidden * shows[now]
            of_sums = _of_gates(of_hidden, of_cell) * slopes[now]
            return (ops.matmul(of_sums, back), of_cell * forget[now]), (of_hidden, of_cell)

        end, words = (ops.zeros_like(hidden), of_last), ops.arange(ops.shape(told)[0])
        (of_first, of_start), of_states = ops.scan(follow_back, end, words, reverse=True)
        of_told = _of_gates(*of_states) * slopes
        rows = ops.reshape(of_told, (-1, of_told.shape[-1]))
        of_kernel = ops.matmul(ops.transpose(ops.reshape(before, (-1, before.shape[-1]))), rows)
        return of_told, of_kernel, of_first, of_start

    return (hiddens, last), gradient


def _gates(sums: Any) -> tuple[Any, Any, Any, Any]:
    """Return the input gate, the forget gate, the new content and the output gate."""
    enter, forget, new, out = ops.split(sums, 4, axis=-1)
    return ops.sigmoid(enter), ops.sigmoid(forget), ops.tanh(new), ops.sigmoid(out)


def _of_gates(of_hidden: Any, of_cell: Any) -> Any:
    """Return the gradients of what the four gates change, side by side."""
    return ops.concatenate([of_cell, of_cell, of_cell, of_hidden], axis=-1)
