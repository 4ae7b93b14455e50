"""Compiled decoders: the search's two graphs in the OpenVINO runtime.

For one photo from a cold shell: no Keras is imported, which takes longer than the search.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.captioner.description import Member, ModelDescription
from pipeline.features import graphs
from pipeline.features.graphs import GraphFile
from pipeline.files import fingerprint

if TYPE_CHECKING:
    from pipeline.captioner.decoder import Decoder

Array = npt.NDArray[Any]

# Of the decoders that are converted ahead, as params.yaml has it for `evaluate`: an exported
# folder lacks that file.
GUIDANCE = 0.2


class CompiledDecoder:
    """A decoder to search with, and nothing else; see `search.Steps`."""

    def __init__(self, start: Path, step: Path) -> None:
        """Take the converted graphs."""
        self._start = graphs.compile_graph(start, graphs.LATENCY).create_infer_request()
        self._step = graphs.compile_graph(step, graphs.LATENCY).create_infer_request()

    def begin(self, features: npt.NDArray[np.float32]) -> list[Array]:
        """Return the state before the first word."""
        return _run(self._start, [features])

    def advance(
        self, words: npt.NDArray[np.int32], state: list[Array]
    ) -> tuple[Array, list[Array]]:
        """Return the logits of the next word, and the state after `words`."""
        logits, *after = _run(self._step, [words, *state])
        return logits, after


def load_compiled(
    artifacts: Path,
    description: ModelDescription,
    member: Member,
    guidance: float,
    load: Callable[[], "Decoder"],
) -> CompiledDecoder:
    """Load a decoder of the folder `artifacts`, converting it the first time.

    Args:
        artifacts: where the graphs are kept.
        description: of the model.
        member: which of its decoders.
        guidance: the strength of that which is in its steps, see `guided`.
        load: gives the decoder on Keras, so guided; called only to convert it.
    """
    key = fingerprint([asdict(description.config), member.weights_sha256, guidance])
    start, step = (
        GraphFile(artifacts / graphs.FOLDER, f"decoder_{member.seed}_{part}", key)
        for part in ("start", "step")
    )
    with (
        graphs.ready(start, lambda: load().graphs.start) as start_path,
        graphs.ready(step, lambda: load().graphs.step) as step_path,
    ):
        return CompiledDecoder(start_path, step_path)


def _run(request: Any, inputs: list[Array]) -> list[Array]:
    found = request.infer(dict(enumerate(inputs)))
    return [found[position].copy() for position in range(len(found))]
