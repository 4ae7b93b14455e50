"""The layer table: the layers of a decoder's Keras network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LayerRow:
    """One layer of a network.

    Attributes:
        name: the layer's name.
        kind: its class.
        output_shapes: the different shapes of its outputs; None is a size that varies (batch,
            words). A layer that the network calls twice, like a tied embedding, has the shapes
            of both calls.
        parameters: number of its parameters.
        inputs: names of the layers that it is connected from.
    """

    name: str
    kind: str
    output_shapes: Sequence[tuple[int | None, ...]]
    parameters: int
    inputs: Sequence[str]


@dataclass(frozen=True)
class LayerTable:
    """A network's layers.

    Attributes:
        rows: one per layer, in the network's order.
        parameters: the network's parameters. Fewer than the sum over the rows if layers share
            weights, like an LSTM and its cell.
    """

    rows: Sequence[LayerRow]
    parameters: int

    @property
    def shares_weights(self) -> bool:
        """Whether some layers share weights."""
        return sum(row.parameters for row in self.rows) > self.parameters


def layer_table(network: Any) -> LayerTable:
    """Return the layers of a functional `keras.Model`."""
    # A decoder's graphs share their layers, and Keras has no public API that returns only the
    # calls in one of them: `layer.input` is the first call. `Model.summary` uses these, too.
    nodes = {
        id(node)
        for depth in network._nodes_by_depth.values()  # noqa: SLF001  (no public equivalent)
        for node in depth
    }
    rows = []
    for layer in network.layers:
        calls = [
            node
            for node in layer._inbound_nodes  # noqa: SLF001  (no public equivalent)
            if id(node) in nodes
        ]
        rows.append(_row(layer, calls))
    return LayerTable(rows, network.count_params())


def _row(layer: Any, calls: Sequence[Any]) -> LayerRow:
    outputs = [tensor for call in calls for tensor in call.output_tensors]
    sources = [
        tensor._keras_history.operation.name  # noqa: SLF001  (no public equivalent)
        for call in calls
        for tensor in call.input_tensors
    ]
    return LayerRow(
        name=layer.name,
        kind=type(layer).__name__.removeprefix("_"),
        output_shapes=list(dict.fromkeys(tuple(tensor.shape) for tensor in outputs)),
        parameters=layer.count_params(),
        inputs=list(dict.fromkeys(sources)),
    )
