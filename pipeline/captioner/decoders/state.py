"""The state of a decoder during a search: what it knows of photos, and of the words so far."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Positions = npt.NDArray[np.int_]
RunStep = Callable[[list[Array]], Sequence[Array]]


class DecoderState(NamedTuple):
    """The inputs of `DecoderGraphs.step` besides the words.

    Attributes:
        context: what the decoder knows of the photos, arrays (P, ...), which no word changes.
        hidden: the LSTM's hidden state after each hypothesis, (R, units).
        cell: its cell, (R, units).
    """

    context: list[Array]
    hidden: Array
    cell: Array

    def step(
        self,
        run: RunStep,
        words: npt.NDArray[np.int32],
        photos: Positions,
        parents: Positions,
        *,
        few_shapes: bool = False,
    ) -> tuple[Array, "DecoderState"]:
        """Run the step graph for R hypotheses.

        Args:
            run: runs the graph.
            words: the last word of each hypothesis, (R,).
            photos: the photo of each hypothesis, (R,), ascending.
            parents: the row of this state that each hypothesis extends, (R,).
            few_shapes: whether sizes of slots are powers of two: a graph that is compiled for
                every shape is then compiled a few times only.

        Returns:
            The vectors that predict the next words, (R, N), and the state after `words`.
        """
        hidden, cell = self.hidden[parents], self.cell[parents]
        if any(array.ndim > 2 for array in self.context):  # noqa: PLR2004  (a vector per position)
            layout = _SlotLayout(photos, few_shapes=few_shapes)
            context = [array[layout.photos] for array in self.context]
            inputs = [layout.spread(words), *context, layout.spread(hidden), layout.spread(cell)]
            vectors, hidden, cell = (layout.collect(array) for array in run(inputs))
        else:
            context = [array[photos] for array in self.context]
            vectors, hidden, cell = run([words, *context, hidden, cell])
        return vectors, DecoderState(self.context, hidden, cell)


class SteppedDecoder(ABC):
    """A decoder whose steps give vectors, from which logits follow: the same on every runtime."""

    @abstractmethod
    def step(
        self,
        ids: npt.NDArray[np.int32],
        photos: Positions,
        parents: Positions,
        state: DecoderState,
    ) -> tuple[Array, DecoderState]:
        """Extend hypotheses; see `interfaces.SupportsUnconditional`."""

    @abstractmethod
    def logits(self, vectors: Array) -> Array:
        """Return the logits (R, V) that vectors (R, N) stand for."""

    def advance(
        self,
        ids: npt.NDArray[np.int32],
        photos: Positions,
        parents: Positions,
        state: DecoderState,
    ) -> tuple[Array, DecoderState]:
        """Return the logits of the next word and the next state; see `interfaces.StepDecoder`."""
        vectors, next_state = self.step(ids, photos, parents, state)
        return self.logits(vectors), next_state


def next_power_of_two(number: int) -> int:
    """Return the smallest power of two that is not less than a number of 1 or more."""
    return 1 << (number - 1).bit_length()


class _SlotLayout:
    """Gives every photo equally many slots for its hypotheses.

    Attention then reads the positions of a photo once for all of them. A copy of a grid for each
    hypothesis would take more time than all products of the step.
    """

    def __init__(self, photos: Positions, *, few_shapes: bool) -> None:
        """Take the photo of each hypothesis, (R,), ascending; see `DecoderState.step`."""
        self.photos, photo_rows = np.unique(photos, return_inverse=True)
        slots = np.arange(len(photos)) - np.searchsorted(photos, photos)
        count, width = len(self.photos), int(slots.max()) + 1
        if few_shapes:
            count, width = next_power_of_two(count), next_power_of_two(width)
        self._size, self._rows = count * width, photo_rows * width + slots

    def spread(self, array: Array) -> Array:
        """Return an array (R, ...) with a row for each slot; those of empty slots are 0."""
        result = np.zeros((self._size, *array.shape[1:]), array.dtype)
        result[self._rows] = array
        return result

    def collect(self, array: Array) -> Array:
        """Return the rows of the hypotheses from an array with a row for each slot."""
        return array[self._rows]
