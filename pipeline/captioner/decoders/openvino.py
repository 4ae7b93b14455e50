"""Compiled decoders: the search's graphs in the OpenVINO runtime.

For one photo from a cold shell: no Keras is imported, which takes longer than the search.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.captioner.model_config import Member, ModelConfig
from pipeline.files import fingerprint
from pipeline.storage import openvino_graphs
from pipeline.storage.openvino_graphs import GraphFile

if TYPE_CHECKING:
    from pipeline.captioner.decoders.decoder import Decoder

Array = npt.NDArray[Any]


class CompiledDecoder:
    """A decoder to search with, and nothing else; see `search.StepDecoder`."""

    def __init__(self, start: Path, blind: Path, step: Path) -> None:
        """Take the converted graphs."""
        self._start, self._blind, self._step = (
            openvino_graphs.compile_graph(path, openvino_graphs.LATENCY).create_infer_request()
            for path in (start, blind, step)
        )

    def begin(self, features: npt.NDArray[np.float32]) -> list[Array]:
        """Return the state before the first word."""
        return _run(self._start, [features])

    def begin_unconditional(self, features: npt.NDArray[np.float32]) -> list[Array]:
        """Return that state of photos that tell nothing; see `guidance.SupportsUnconditional`."""
        return _run(self._blind, [features])

    def advance(
        self, words: npt.NDArray[np.int32], state: list[Array]
    ) -> tuple[Array, list[Array]]:
        """Return the logits of the next word, and the state after `words`."""
        # After these a converted graph may tell more: what an operation inside left over.
        logits, *after = _run(self._step, [words, *state])[: 1 + len(state)]
        return logits, after


def load_compiled(
    artifacts: Path,
    description: ModelConfig,
    member: Member,
    load: Callable[[], "Decoder"],
) -> CompiledDecoder:
    """Load a decoder of the folder `artifacts`, converting it the first time.

    Args:
        artifacts: where the graphs are kept.
        description: of the model.
        member: which of its decoders.
        load: gives the decoder on Keras; called only to convert it.
    """
    key = fingerprint([asdict(description.decoder), member.weights_sha256])
    start, blind, step = (
        GraphFile(artifacts / openvino_graphs.FOLDER, f"decoder_{member.seed}_{part}", key)
        for part in ("start", "blind", "step")
    )
    with (
        openvino_graphs.converted_graph(start, lambda: load().graphs.start) as start_path,
        openvino_graphs.converted_graph(blind, lambda: load().unconditional_start()) as blind_path,
        openvino_graphs.converted_graph(step, lambda: load().graphs.step) as step_path,
    ):
        return CompiledDecoder(start_path, blind_path, step_path)


def _run(request: Any, inputs: list[Array]) -> list[Array]:
    found = request.infer(dict(enumerate(inputs)))
    return [found[position].copy() for position in range(len(found))]
