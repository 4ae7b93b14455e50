"""OpenVINO graphs: Keras models converted for the OpenVINO runtime and cached on disk.

Graphs are in the folder `.graphs` of the artifacts, which git and DVC ignore: they are derived
from the artifacts and only save time. Loading a graph imports neither Keras nor its backend.
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
FOLDER = ".graphs"  # in the folder of artifacts
LATENCY = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
THROUGHPUT = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}

# With this package, which pip installs as a dependency, OpenVINO reports each import and each
# conversion to Google Analytics: it forks the process for every report, waits up to three seconds
# for it, and stores an identifier in the home folder. Without the package it uses a stub.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def is_installed() -> bool:
    """Return whether the OpenVINO runtime is installed."""
    return importlib.util.find_spec("openvino") is not None


def can_convert() -> bool:
    """Return whether OpenVINO 2026.4 can convert models of Keras' backend: only TensorFlow's."""
    return (os.environ.get("KERAS_BACKEND") or "tensorflow") == "tensorflow"


def is_enabled(artifacts: Path) -> bool:
    """Return whether graphs were converted for these artifacts before, and still can be."""
    return is_installed() and can_convert() and (artifacts / FOLDER).is_dir()


@dataclass(frozen=True)
class GraphFile:
    """A converted model on disk: NAME.xml and NAME.bin, with their checksums in NAME.json.

    Attributes:
        folder: the folder of the files.
        name: name of the model; another model of the same name replaces the files.
        key: fingerprint of the model and its weights.
    """

    folder: Path
    name: str
    key: str

    @property
    def path(self) -> Path:
        """The graph's file, an OpenVINO IR."""
        return self.folder / f"{self.name}.xml"

    def is_valid(self) -> bool:
        """Return whether the files exist, undamaged, for this key and this OpenVINO version."""
        try:
            manifest = json.loads(self._manifest_path.read_text("utf-8"))
            return bool(manifest == self._manifest(self.path))
        except (OSError, ValueError, RecursionError):
            return False

    def write(self, model: Any) -> None:
        """Convert a `keras.Model` and write the files.

        Raises:
            OSError: the folder cannot be written to.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".tmp-") as scratch:
            exported = Path(scratch) / f"{self.name}.xml"
            _export(model, exported)
            # Checksums of the exported files: another process may be replacing the final ones.
            manifest = self._manifest(exported)
            # The manifest is removed first and written last: with it, the files are complete.
            self._manifest_path.unlink(missing_ok=True)
            for suffix in (".bin", ".xml"):
                with atomic_path(self.path.with_suffix(suffix)) as temporary:
                    exported.with_suffix(suffix).replace(temporary)
        write_json(self._manifest_path, manifest)

    @property
    def _manifest_path(self) -> Path:
        return self.folder / f"{self.name}.json"

    def _manifest(self, graph: Path) -> dict[str, Any]:
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

        # OpenVINO 2026.4's own function ends in `exec("del tensorflow")`, which fails since
        # Python 3.13 (PEP 667). Only this version of its result is used.
        utils.get_environment_setup = lambda _: {
            "tensorflow": sys.modules["tensorflow"].__version__
        }
    model.export(str(path), format="openvino", verbose=False)


@contextmanager
def converted_graph(graph: GraphFile, build: Callable[[], Any]) -> Iterator[Path]:
    """Yield the path of a graph, converting the model first if the graph is not valid.

    If its folder cannot be written to, the graph is removed at the end of the context.

    Args:
        graph: the graph.
        build: returns the `keras.Model`; called only to convert it.
    """
    if graph.is_valid():
        yield graph.path
        return
    model = build()
    try:
        graph.write(model)
    except OSError:
        with tempfile.TemporaryDirectory(prefix="caption-graph-") as folder:
            temporary = GraphFile(Path(folder), graph.name, graph.key)
            temporary.write(model)
            yield temporary.path
    else:
        yield graph.path


def compile_graph(path: Path, properties: Mapping[str, str], batch_size: int | None = None) -> Any:
    """Compile a graph for the CPU.

    Args:
        path: the graph's file.
        properties: `LATENCY` or `THROUGHPUT`.
        batch_size: if set, the graph, which must have one input, is fixed to this batch size.

    Returns:
        An `openvino.CompiledModel`.
    """
    import openvino  # noqa: PLC0415  (an optional extra)

    core = openvino.Core()
    graph = core.read_model(path)
    if batch_size is not None:
        graph.reshape([batch_size, *list(graph.input(0).partial_shape)[1:]])
    return core.compile_model(graph, "CPU", properties)
