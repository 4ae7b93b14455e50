"""Graphs: Keras models converted for the OpenVINO runtime, kept where they are found again.

A graph stands beside the artefacts in `.graphs/`, which neither git nor DVC sees: it is
made from them and only saves time. Loading one imports neither Keras nor its backend.
"""

import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.files import atomic_path, sha256_file, write_json

FORMAT_VERSION = 1
FOLDER = ".graphs"  # in the folder of artefacts
LATENCY = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
THROUGHPUT = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}

# With this package, which pip installs beside it, OpenVINO tells Google Analytics of each import
# and each conversion: it forks the process for every report, waits up to three seconds for it,
# and leaves an identifier in the home folder. Where the package is missing it has a stub.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def installed() -> bool:
    """Whether there is an OpenVINO runtime."""
    return importlib.util.find_spec("openvino") is not None


def convertible() -> bool:
    """Whether Keras' backend is one whose models OpenVINO 2026.4 can convert: TensorFlow."""
    return (os.environ.get("KERAS_BACKEND") or "tensorflow") == "tensorflow"


def in_use(artifacts: Path) -> bool:
    """Whether this machine has converted graphs for the artefacts before, and still can."""
    return installed() and convertible() and (artifacts / FOLDER).is_dir()


@dataclass(frozen=True)
class GraphFile:
    """A converted model on disk: NAME.xml and NAME.bin, and NAME.json that vouches for them.

    Attributes:
        folder: where they are.
        name: what they are of; a model of the same name and another key replaces them.
        key: fingerprint of the model and its weights.
    """

    folder: Path
    name: str
    key: str

    @property
    def path(self) -> Path:
        """The graph, an OpenVINO IR."""
        return self.folder / f"{self.name}.xml"

    def is_there(self) -> bool:
        """Whether the files are there, of this key and this OpenVINO, and undamaged."""
        try:
            facts = json.loads((self.folder / f"{self.name}.json").read_text("utf-8"))
            return bool(facts == self._facts(self.path))
        except (OSError, ValueError, RecursionError):
            return False

    def write(self, model: Any) -> None:
        """Convert a `keras.Model`. Raises `OSError` where the folder cannot be written to."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".tmp-") as scratch:
            made = Path(scratch) / f"{self.name}.xml"
            _export(model, made)
            # Of what was made here: another process may be about to replace the files.
            facts = self._facts(made)
            # What vouches for the files goes first and comes last.
            (self.folder / f"{self.name}.json").unlink(missing_ok=True)
            for suffix in (".bin", ".xml"):
                with atomic_path(self.path.with_suffix(suffix)) as temporary:
                    made.with_suffix(suffix).replace(temporary)
        write_json(self.folder / f"{self.name}.json", facts)

    def _facts(self, graph: Path) -> dict[str, Any]:
        import openvino  # noqa: PLC0415  (an optional extra)

        return {
            "format_version": FORMAT_VERSION,
            "key": self.key,
            "openvino": openvino.__version__,
            "sha256": [sha256_file(graph.with_suffix(s)) for s in (".xml", ".bin")],
        }


def _export(model: Any, path: Path) -> None:
    if sys.version_info >= (3, 13):
        from openvino.frontend.tensorflow import utils  # noqa: PLC0415  (an optional extra)

        # OpenVINO 2026.4's own ends in `exec("del tensorflow")`, which finds nothing to delete
        # since Python 3.13 (PEP 667); nothing but this version is read of what it returns.
        utils.get_environment_setup = lambda _: {
            "tensorflow": sys.modules["tensorflow"].__version__
        }
    model.export(str(path), format="openvino", verbose=False)


@contextmanager
def ready(graph: GraphFile, build: Callable[[], Any]) -> Iterator[Path]:
    """Yield the path of a graph, converted first from what `build` returns if need be.

    Where its folder cannot be written to, the graph lives as long as the context only.
    """
    if graph.is_there():
        yield graph.path
        return
    model = build()
    try:
        graph.write(model)
    except OSError:
        with tempfile.TemporaryDirectory(prefix="caption-graph-") as folder:
            passing = GraphFile(Path(folder), graph.name, graph.key)
            passing.write(model)
            yield passing.path
    else:
        yield graph.path


def compile_graph(path: Path, properties: Mapping[str, str], batch_size: int | None = None) -> Any:
    """Make a graph ready to run on the CPU: an `openvino.CompiledModel`.

    Args:
        path: of the graph.
        properties: `LATENCY` or `THROUGHPUT`.
        batch_size: where set, the only one that the graph, of one input, will take.
    """
    import openvino  # noqa: PLC0415  (an optional extra)

    core = openvino.Core()
    graph = core.read_model(path)
    if batch_size is not None:
        graph.reshape([batch_size, *list(graph.input(0).partial_shape)[1:]])
    return core.compile_model(graph, "CPU", properties)
