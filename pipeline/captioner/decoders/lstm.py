"""The LSTM of all decoders: Keras' own, with a faster forward and backward pass on a CPU.

Hochreiter and Schmidhuber (1997) with the forget gate of Gers et al. (2000). Keras takes the
words one by one, and the gradient of its loop computes, for each word, a product as large as the
kernels from few rows, only to sum these products: half the time of a training step on a CPU.
Here all words are multiplied by the kernel at once before the loop. The backward loop computes
only the gradients of the gates' pre-activations, which depend on each other in order; the other
gradients are again one product over all words. Inside both loops a caption is a column, since
a product of a large matrix and a few columns is faster than one of a few rows and that matrix.
"""

from typing import Any

from pipeline.backend import has_accelerator, keras

ops = keras.ops


class LSTM(keras.layers.LSTM):  # type: ignore[misc]  # Keras has no types
    """`keras.layers.LSTM` as decoders use it: default activations, outputs for all words."""

    def __init__(self, units: int, *, return_state: bool = False, name: str) -> None:
        """Create the layer.

        Args:
            units: the size of hidden and cell.
            return_state: whether to return the last hidden and cell too, after the outputs.
            name: the layer's name.
        """
        super().__init__(units, return_sequences=True, return_state=return_state, name=name)
        # Keras calls every cell "lstm_cell", which no model may contain twice.
        self.cell.name = f"{name}_cell"

    def inner_loop(
        self, sequences: Any, initial_state: list[Any], mask: Any, training: bool = False
    ) -> tuple[Any, Any, list[Any]]:
        """Run over sequences (B, T, D); see Keras' method of this name.

        Returns:
            The last output (B, units), all outputs (B, T, units), the last [hidden, cell].
        """
        if mask is not None or not _uses_custom_gradient():
            return super().inner_loop(sequences, initial_state, mask, training)  # type: ignore[no-any-return]
        weights = self.cell.kernel, self.cell.recurrent_kernel, self.cell.bias
        # A custom gradient works for tensors only: variables would get no gradient.
        tensors = [ops.copy(weight) for weight in weights]
        time_major = ops.transpose(sequences, (1, 0, 2))
        hiddens, cell = _run_lstm(time_major, *tensors, *initial_state)
        return hiddens[-1], ops.transpose(hiddens, (1, 0, 2)), [hiddens[-1], cell]


def _uses_custom_gradient() -> bool:
    """Whether to use the gradient below: cuDNN and PyTorch have fast ones of their own."""
    return keras.config.backend() != "torch" and not has_accelerator()


@ops.custom_gradient  # type: ignore[untyped-decorator]
def _run_lstm(
    words: Any, kernel: Any, recurrent_kernel: Any, bias: Any, hidden: Any, cell: Any
) -> tuple[Any, Any]:
    """Run over word vectors (T, B, D) from hidden and cell (B, units), gates in Keras' order.

    Here and below `d_x` is the gradient of the loss with respect to `x`, and "columns" are
    arrays whose last axis is the batch.

    Returns:
        (all hidden states (T, B, units), the last cell (B, units)), and the function from their
        gradients to those of the arguments.
    """
    steps, batch, size = ops.shape(words)
    rows = ops.reshape(words, (-1, size))
    projections = ops.matmul(rows, kernel) + bias
    projections = _transpose_each(ops.reshape(projections, (steps, batch, kernel.shape[1])))
    initial_cell = ops.transpose(cell)
    hiddens, cells, preactivations, last_cell = _forward(
        projections, recurrent_kernel, ops.transpose(hidden), initial_cell
    )
    hiddens = _transpose_each(hiddens)

    def gradient(*d_outputs: Any) -> tuple[Any, ...]:
        # TensorFlow passes the two gradients one by one, JAX as one pair.
        d_hiddens, d_last_cell = d_outputs[0] if len(d_outputs) == 1 else d_outputs
        previous_cells = ops.concatenate([initial_cell[None], cells[:-1]])
        derivatives = _derivatives(preactivations, previous_cells, ops.tanh(cells))
        d_preactivations, d_hidden, d_cell = _backward(
            _transpose_each(d_hiddens), ops.transpose(d_last_cell), recurrent_kernel, derivatives
        )
        d_projections = ops.reshape(_transpose_each(d_preactivations), (-1, kernel.shape[1]))
        previous_hiddens = ops.concatenate([hidden[None], hiddens[:-1]])
        previous_hiddens = ops.reshape(previous_hiddens, (-1, recurrent_kernel.shape[0]))
        # The gradients of both kernels at once: one product is faster than two.
        cell_inputs = ops.concatenate([rows, previous_hiddens], axis=1)
        d_kernels = ops.matmul(ops.transpose(cell_inputs), d_projections)
        return (
            ops.reshape(ops.matmul(d_projections, ops.transpose(kernel)), ops.shape(words)),
            d_kernels[:size],
            d_kernels[size:],
            ops.sum(d_projections, axis=0),
            ops.transpose(d_hidden),
            ops.transpose(d_cell),
        )

    return (hiddens, ops.transpose(last_cell)), gradient


def _forward(
    projections: Any, recurrent_kernel: Any, hidden: Any, cell: Any
) -> tuple[Any, Any, Any, Any]:
    """Run the loop over the words, in columns.

    Args:
        projections: the words' products with the kernel, with the bias, (T, 4 units, B).
        recurrent_kernel: (units, 4 units).
        hidden: the initial hidden state, (units, B).
        cell: the initial cell, (units, B).

    Returns:
        For each word hidden and cell (T, units, B) and the gates' pre-activations
        (T, 4 units, B), and the last cell (units, B).
    """
    recurrent_kernel = ops.transpose(recurrent_kernel)  # it multiplies columns from the left

    def step(state: tuple[Any, ...], word: Any) -> tuple[Any, Any]:
        hidden, cell, _ = state
        preactivations = projections[word] + ops.matmul(recurrent_kernel, hidden)
        input_gate, forget_gate, candidate, output_gate = _gates(preactivations)
        cell = forget_gate * cell + input_gate * candidate
        state = (output_gate * ops.tanh(cell), cell, preactivations)
        return state, state

    # Keras' scan collects only what is in the state, so the pre-activations are in it.
    initial_state = (hidden, cell, projections[0])
    order = ops.arange(ops.shape(projections)[0])
    (_, last_cell, _), (hiddens, cells, preactivations) = ops.scan(step, initial_state, order)
    return hiddens, cells, preactivations, last_cell


def _backward(
    d_hiddens: Any, d_last_cell: Any, recurrent_kernel: Any, derivatives: tuple[Any, Any, Any]
) -> tuple[Any, Any, Any]:
    """Run the loop back over the words, in columns.

    Args:
        d_hiddens: (T, units, B).
        d_last_cell: (units, B).
        recurrent_kernel: (units, 4 units).
        derivatives: see `_derivatives`.

    Returns:
        The gradients of the pre-activations (T, 4 units, B), and of the initial hidden state
        and cell (units, B).
    """
    gate_slopes, hidden_slopes, forget_gates = derivatives

    def step(d_state: tuple[Any, ...], word: Any) -> tuple[Any, Any]:
        d_hidden, d_cell, _ = d_state
        d_hidden += d_hiddens[word]
        d_cell += d_hidden * hidden_slopes[word]
        # The gradients of the gates' outputs: the cell for three gates, the hidden state for one.
        d_targets = ops.concatenate([d_cell, d_cell, d_cell, d_hidden])
        d_preactivations = d_targets * gate_slopes[word]
        d_previous_hidden = ops.matmul(recurrent_kernel, d_preactivations)
        d_state = (d_previous_hidden, d_cell * forget_gates[word], d_preactivations)
        return d_state, d_state

    d_final_state = (ops.zeros_like(d_last_cell), d_last_cell, ops.zeros_like(gate_slopes[0]))
    order = ops.arange(ops.shape(gate_slopes)[0])
    (d_hidden, d_cell, _), (_, _, d_preactivations) = ops.scan(
        step, d_final_state, order, reverse=True
    )
    return d_preactivations, d_hidden, d_cell


def _transpose_each(matrices: Any) -> Any:
    """Transpose the matrix of each step, (T, M, N) to (T, N, M)."""
    return ops.transpose(matrices, (0, 2, 1))


def _gates(preactivations: Any) -> tuple[Any, Any, Any, Any]:
    """Return input gate, forget gate, candidate and output gate from (..., 4 units, B)."""
    input_gate, forget_gate, candidate, output_gate = ops.split(preactivations, 4, axis=-2)
    return (
        ops.sigmoid(input_gate),
        ops.sigmoid(forget_gate),
        ops.tanh(candidate),
        ops.sigmoid(output_gate),
    )


def _derivatives(preactivations: Any, previous_cells: Any, tanh_cells: Any) -> tuple[Any, Any, Any]:
    """Compute the derivatives that the backward loop needs, for all words at once.

    Args:
        preactivations: pre-activations of the gates, (T, 4 units, B).
        previous_cells: the cell before each word, (T, units, B).
        tanh_cells: the hyperbolic tangent of the cell after each word, (T, units, B).

    Returns:
        Three derivatives: with respect to the pre-activations (T, 4 units, B), of the cell for
        the first three gates and of the hidden state for the output gate; of the hidden state
        with respect to the cell; of the cell with respect to the previous cell, which is the
        forget gate.
    """
    input_gate, forget_gate, candidate, output_gate = _gates(preactivations)
    gate_slopes = [
        candidate * input_gate * (1 - input_gate),
        previous_cells * forget_gate * (1 - forget_gate),
        input_gate * (1 - candidate * candidate),
        tanh_cells * output_gate * (1 - output_gate),
    ]
    return (
        ops.concatenate(gate_slopes, axis=1),
        output_gate * (1 - tanh_cells * tanh_cells),
        forget_gate,
    )
