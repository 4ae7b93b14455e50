"""Decoders in the OpenVINO runtime, for search only.

They make `caption image` fast for a single photo: importing Keras takes longer than the search.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.captioner.model_config import Member, ModelConfig, weights_file
from pipeline.files import fingerprint
from pipeline.storage import openvino_graphs
from pipeline.storage.openvino_graphs import GraphFile

if TYPE_CHECKING:
    from pipeline.captioner.decoders.decoder import Decoder

Array = npt.NDArray[Any]


class OpenVINODecoder:
    """A decoder for search only; see `interfaces.SupportsUnconditional`."""

    def __init__(self, start: Path, unconditional_start: Path, step: Path) -> None:
        """Compile the converted graphs."""
        self._start, self._unconditional_start, self._step = (
            openvino_graphs.compile_graph(path, openvino_graphs.LATENCY).create_infer_request()
            for path in (start, unconditional_start, step)
        )

    def begin(self, features: npt.NDArray[np.float32]) -> list[Array]:
        """Return the state before the first word."""
        return _infer(self._start, [features])

    def begin_unconditional(self, features: npt.NDArray[np.float32]) -> list[Array]:
        """Return the state before the first word for as many photos without information."""
        return _infer(self._unconditional_start, [features])

    def advance(
        self, words: npt.NDArray[np.int32], state: list[Array]
    ) -> tuple[Array, list[Array]]:
        """Return the logits of the next word, and the state after `words`."""
        # A converted graph may have further outputs, left over from operations inside it.
        logits, *next_state = _infer(self._step, [words, *state])[: 1 + len(state)]
        return logits, next_state


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
    start, unconditional_start, step = (
        GraphFile(folder, f"decoder_{member.seed}_{graph}", key, weights)
        for graph in ("start", "unconditional_start", "step")
    )
    with (
        suppress(openvino_graphs.NoRoomError),
        openvino_graphs.converted_graph(start, lambda: load_decoder().graphs.start) as start_path,
        openvino_graphs.converted_graph(
            unconditional_start, lambda: load_decoder().unconditional_start()
        ) as unconditional_start_path,
        openvino_graphs.converted_graph(step, lambda: load_decoder().graphs.step) as step_path,
    ):
        return OpenVINODecoder(start_path, unconditional_start_path, step_path)
    return load_decoder()


def _infer(request: Any, inputs: list[Array]) -> list[Array]:
    outputs = request.infer(dict(enumerate(inputs)))
    return [outputs[position].copy() for position in range(len(outputs))]
