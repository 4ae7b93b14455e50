"""The LSTM of all decoders: Keras' own, with a quicker way there and back on a processor.

Hochreiter and Schmidhuber (1997) with the forget gate of Gers et al. (2000). Keras goes through
the words one by one, and the gradient of its loop makes at every word a product as large as the
kernels, of few rows, only to add them up: half the time of a training step on a CPU. Here the
words' products with the kernel are one before the loop; the loop back finds only what must be
found in order, the gradients of the gates' sums; all else is one product over all words again.
Inside both loops a caption is a column: few rows make slow products, many short ones quick ones.
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
        weights = self.cell.kernel, self.cell.recurrent_kernel, self.cell.bias
        arrays = [ops.copy(weight) for weight in weights]  # which are told their gradients
        in_time = ops.transpose(sequences, (1, 0, 2))
        hiddens, cell = _follow(in_time, *arrays, *initial_state)
        return hiddens[-1], ops.transpose(hiddens, (1, 0, 2)), [hiddens[-1], cell]


def _ours() -> bool:
    """Whether the gradient below is to be taken: cuDNN and PyTorch have quick ones of their own."""
    return keras.config.backend() != "torch" and not has_accelerator()


@ops.custom_gradient  # type: ignore[untyped-decorator]
def _follow(
    words: Any, kernel: Any, recurrent: Any, bias: Any, hidden: Any, cell: Any
) -> tuple[Any, Any]:
    """Follow words (T, B, D) from hidden and cell (B, units), gates in Keras' order.

    Returns:
        (hidden (T, B, units), the last cell (B, units)), and what makes gradients of theirs
        those of the arguments.
    """
    count, batch, size = ops.shape(words)
    rows = ops.reshape(words, (-1, size))
    told = ops.reshape(ops.matmul(rows, kernel) + bias, (count, batch, kernel.shape[1]))
    told = _turned(told)
    left = ops.transpose(recurrent)  # of columns, where rows have it on the right

    def follow(state: tuple[Any, ...], now: Any) -> tuple[Any, Any]:
        before, kept, _ = state
        sums = told[now] + ops.matmul(left, before)
        enter, forget, new, out = _gates(sums)
        kept = forget * kept + enter * new
        state = (out * ops.tanh(kept), kept, sums)
        return state, state

    # Keras' scan stores what it carries on, so that the sums, which go nowhere, are carried too.
    begin, order = (ops.transpose(hidden), ops.transpose(cell), told[0]), ops.arange(count)
    (_, last, _), (hiddens, cells, sums) = ops.scan(follow, begin, order)
    hiddens = _turned(hiddens)

    def gradient(*of: Any) -> tuple[Any, ...]:
        # TensorFlow gives the two gradients one by one, JAX as one pair.
        of_hiddens, of_last = of[0] if len(of) == 1 else of
        of_hiddens = _turned(of_hiddens)
        kept = ops.concatenate([begin[1][None], cells[:-1]])
        slopes, shows, forget = _slopes(sums, kept, ops.tanh(cells))

        def follow_back(after: tuple[Any, ...], now: Any) -> tuple[Any, Any]:
            of_hidden, of_cell, _ = after
            of_hidden += of_hiddens[now]
            of_cell += of_hidden * shows[now]
            changed = ops.concatenate([of_cell, of_cell, of_cell, of_hidden])
            of_sums = changed * slopes[now]
            state = (ops.matmul(recurrent, of_sums), of_cell * forget[now], of_sums)
            return state, state

        end = ops.zeros_like(begin[0]), ops.transpose(of_last), ops.zeros_like(told[0])
        (of_first, of_start, _), (_, _, of_sums) = ops.scan(follow_back, end, order, reverse=True)
        of_told = ops.reshape(_turned(of_sums), (-1, kernel.shape[1]))
        before = ops.concatenate([hidden[None], hiddens[:-1]])
        seen = ops.concatenate([rows, ops.reshape(before, (-1, recurrent.shape[0]))], axis=1)
        of_kernels = ops.matmul(ops.transpose(seen), of_told)  # one product is quicker than two
        return (
            ops.reshape(ops.matmul(of_told, ops.transpose(kernel)), ops.shape(words)),
            of_kernels[:size],
            of_kernels[size:],
            ops.sum(of_told, axis=0),
            ops.transpose(of_first),
            ops.transpose(of_start),
        )

    return (hiddens, ops.transpose(last)), gradient


def _turned(arrays: Any) -> Any:
    """Return the arrays of all words with rows for columns: (T, B, N) of (T, N, B)."""
    return ops.transpose(arrays, (0, 2, 1))


def _gates(sums: Any) -> tuple[Any, Any, Any, Any]:
    """Return input gate, forget gate, new content and output gate of sums (..., 4 units, B)."""
    enter, forget, new, out = ops.split(sums, 4, axis=-2)
    return ops.sigmoid(enter), ops.sigmoid(forget), ops.tanh(new), ops.sigmoid(out)


def _slopes(sums: Any, kept: Any, shown: Any) -> tuple[Any, Any, Any]:
    """Return what the sums, the cell and the cell before it change, all words at once.

    Args:
        sums: of the gates, (T, 4 units, B).
        kept: the cell before each word, (T, units, B).
        shown: the hyperbolic tangent of the cell after it.

    Returns:
        (slopes of the sums' gates: three change the cell, the last the hidden; of the hidden by
        the cell; of the cell by the cell before, which is the forget gate).
    """
    enter, forget, new, out = _gates(sums)
    slopes = [
        new * enter * (1 - enter),
        kept * forget * (1 - forget),
        enter * (1 - new * new),
        shown * out * (1 - out),
    ]
    return ops.concatenate(slopes, axis=1), out * (1 - shown * shown), forget
