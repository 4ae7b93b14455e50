"""Decoders in the OpenVINO runtime, for search only.

They make `caption image` fast for a single photo: importing Keras takes longer than the search.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.captioner.decoders.state import Array, DecoderState, Positions, SteppedDecoder
from pipeline.captioner.model_config import Member, ModelConfig, weights_file
from pipeline.files import fingerprint
from pipeline.storage import openvino_graphs
from pipeline.storage.openvino_graphs import GraphFile

if TYPE_CHECKING:
    from pipeline.captioner.decoders.decoder import Decoder

# Inputs of a step besides the context, and its outputs; see `DecoderGraphs`.
_STEP_INPUTS = len(("ids", "hidden", "cell"))
_STEP_OUTPUTS = len(("vectors", "hidden", "cell"))


class OpenVINODecoder(SteppedDecoder):
    """A decoder for search only; see `interfaces.SupportsUnconditional`."""

    def __init__(self, start: Path, unconditional_start: Path, step: Path, logits: Path) -> None:
        """Compile the converted graphs."""
        self._start, self._unconditional_start, self._step, self._logits = (
            openvino_graphs.compile_graph(path, openvino_graphs.LATENCY).create_infer_request()
            for path in (start, unconditional_start, step, logits)
        )
        self._context_size = len(self._step.model_inputs) - _STEP_INPUTS

    def begin(self, features: npt.NDArray[np.float32]) -> DecoderState:
        """Return the state before the first word."""
        return self._begin(self._start, features)

    def begin_unconditional(self, features: npt.NDArray[np.float32]) -> DecoderState:
        """Return the state before the first word for as many photos without information."""
        return self._begin(self._unconditional_start, features)

    def step(
        self,
        ids: npt.NDArray[np.int32],
        photos: Positions,
        parents: Positions,
        state: DecoderState,
    ) -> tuple[Array, DecoderState]:
        """Return the vectors of the next word; see `interfaces.SupportsUnconditional`."""
        run = partial(_infer, self._step, n_outputs=_STEP_OUTPUTS)
        return state.step(run, ids[:, -1], photos, parents)

    def logits(self, vectors: Array) -> Array:
        """Return the logits that vectors stand for."""
        return _infer(self._logits, [vectors], n_outputs=1)[0]

    def _begin(self, request: Any, features: npt.NDArray[np.float32]) -> DecoderState:
        n_outputs = self._context_size + 2
        *context, hidden, cell = _infer(request, [features], n_outputs=n_outputs)
        return DecoderState(context, hidden, cell)


def load_openvino_decoder(
    artifacts: Path,
    model_config: ModelConfig,
    member: Member,
    load_decoder: Callable[[], "Decoder"],
) -> "OpenVINODecoder | Decoder":
    """Load a decoder from the folder `artifacts`; the first time, convert it.

    Where the graphs cannot be written to any disk, the decoder runs on Keras.

    Args:
        artifacts: the folder of artifacts; converted graphs are cached in it.
        model_config: the contents of model.json.
        member: the decoder of the model to load.
        load_decoder: returns the decoder on Keras; called only for a conversion.
    """
    code = openvino_graphs.code_sha256(Path(__file__).parent)
    key = fingerprint([asdict(model_config.decoder), member.weights_sha256, code])
    folder = artifacts / openvino_graphs.FOLDER
    weights = weights_file(artifacts / "model", member.seed)
    start, unconditional_start, step, logits = (
        GraphFile(folder, f"decoder_{member.seed}_{graph}", key, weights)
        for graph in ("start", "unconditional_start", "step", "logits")
    )
    with (
        suppress(openvino_graphs.NoRoomError),
        openvino_graphs.converted_graph(start, lambda: load_decoder().graphs.start) as start_path,
        openvino_graphs.converted_graph(
            unconditional_start, lambda: load_decoder().unconditional_start()
        ) as unconditional_start_path,
        openvino_graphs.converted_graph(step, lambda: load_decoder().graphs.step) as step_path,
        openvino_graphs.converted_graph(
            logits, lambda: load_decoder().graphs.logits
        ) as logits_path,
    ):
        return OpenVINODecoder(start_path, unconditional_start_path, step_path, logits_path)
    return load_decoder()


def _infer(request: Any, inputs: list[Array], n_outputs: int) -> list[Array]:
    """Run a graph; it may have further outputs, left over from operations inside it."""
    outputs = request.infer(dict(enumerate(inputs)))
    return [outputs[position].copy() for position in range(n_outputs)]
