"""OpenVINO graphs: Keras models converted for the OpenVINO runtime and cached on disk.

Graphs are in the folder `.graphs` of the artifacts, which git and DVC ignore: they are derived
from the artifacts and only save time. Loading a graph imports neither Keras nor its backend.
"""

import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.errors import InputError, collapsed_message
from pipeline.files import (
    atomic_path,
    check_disk_space,
    fingerprint,
    sha256_file,
    write_json,
    writing_in,
)
from pipeline.system.software import backend_name

FORMAT_VERSION = 2
FOLDER = ".graphs"  # in the folder of artifacts
_BYTES_PER_WEIGHT = 4
_MAX_OVERHEAD = 1 << 22  # bytes of a graph in addition to the weights
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
    return backend_name() == "tensorflow"


def is_enabled(artifacts: Path) -> bool:
    """Return whether graphs were converted for these artifacts before, and still can be."""
    return is_installed() and can_convert() and (artifacts / FOLDER).is_dir()


def code_sha256(*paths: Path) -> str:
    """Digest source files, and those in folders, whose code decides what a graph computes."""
    files = [file for path in paths for file in sorted(path.glob("*.py")) or [path]]
    return fingerprint([[file.name, sha256_file(file)] for file in files])


@dataclass(frozen=True)
class GraphFile:
    """A converted model on disk: NAME.xml and NAME.bin, with their checksums in NAME.json.

    Attributes:
        folder: the folder of the files.
        name: name of the model; another model of the same name replaces the files.
        key: fingerprint of all that decides what the model computes: its configuration, the
            digest of its weights, and the code that builds it.
        weights: the file of the model's weights. The graph is valid only beside the file that it
            was converted from.
    """

    folder: Path
    name: str
    key: str
    weights: Path | None = None

    @property
    def path(self) -> Path:
        """The graph's file, an OpenVINO IR."""
        return self.folder / f"{self.name}.xml"

    def is_valid(self) -> bool:
        """Return whether the files exist, undamaged, for this key and the installed versions.

        Prints a line if a graph for this key is there, but damaged.
        """
        if not self._manifest_path.is_file():  # a pipe would keep the reader waiting
            return False
        try:
            manifest = json.loads(self._manifest_path.read_text("utf-8"))
            if not isinstance(manifest, dict):
                return self._report_damage()
            source, checksums = manifest.pop("weights", None), manifest.pop("sha256", None)
            if manifest != self._identity() or not self._is_source(source):
                return False  # of another model
            files = self.path, self.path.with_suffix(".bin")
            is_whole = all(file.is_file() for file in files) and checksums == _checksums(self.path)
            return is_whole or self._report_damage()
        except (OSError, ValueError, RecursionError):
            return self._report_damage()

    def write(self, model: Any) -> None:
        """Convert a `keras.Model` and write the files.

        Raises:
            OSError: the folder cannot be written to, or the disk is full.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (
            writing_in(self.folder),
            tempfile.TemporaryDirectory(dir=self.folder, prefix=".tmp-") as scratch,
        ):
            exported = Path(scratch) / f"{self.name}.xml"
            # On a full disk the converter raises a RuntimeError, or leaves half a file.
            size = model.count_params() * _BYTES_PER_WEIGHT + _MAX_OVERHEAD
            check_disk_space(exported.with_suffix(".bin"), size)
            _export(model, exported)
            # Checksums of the exported files: another process may be replacing the final ones.
            checksums = _checksums(exported)
            # The manifest is removed first and written last: with it, the files are complete.
            self._manifest_path.unlink(missing_ok=True)
            for suffix in (".bin", ".xml"):
                with atomic_path(self.path.with_suffix(suffix)) as temporary:
                    exported.with_suffix(suffix).replace(temporary)
        source = None if self.weights is None else _file_state(self.weights)
        manifest = self._identity() | {"sha256": checksums, "weights": source}
        write_json(self._manifest_path, manifest)

    @property
    def _manifest_path(self) -> Path:
        return self.folder / f"{self.name}.json"

    def _identity(self) -> dict[str, Any]:
        versions = {name: version(name) for name in ("openvino", "keras", "tensorflow")}
        return {"format_version": FORMAT_VERSION, "key": self.key, "versions": versions}

    def _is_source(self, recorded: Any) -> bool:
        """Whether the file of the weights is the one that the graph was converted from."""
        if self.weights is None or not isinstance(recorded, dict):
            return self.weights is recorded
        if not self.weights.is_file():  # which the graph must not hide
            return False
        stat = self.weights.stat()
        if recorded.get("size") != stat.st_size:
            return False
        # Computing the checksum of an encoder's weights takes a fifth of a caption's time.
        if recorded.get("mtime_ns") == stat.st_mtime_ns:
            return True
        return bool(recorded.get("sha256") == sha256_file(self.weights))

    def _report_damage(self) -> bool:
        print(f"{self.path} is damaged or incomplete: converting it again", file=sys.stderr)
        return False


def _checksums(graph: Path) -> list[str]:
    return [sha256_file(graph.with_suffix(suffix)) for suffix in (".xml", ".bin")]


def _file_state(path: Path) -> dict[str, Any]:
    stat = path.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256_file(path)}


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

    If its folder cannot be written to, the graph is in the system's temporary folder, and is
    removed at the end of the context.

    Args:
        graph: the graph.
        build: returns the `keras.Model`; called only to convert it.

    Raises:
        NoRoomError: neither folder can be written to.
    """
    if graph.is_valid():
        yield graph.path
        return
    model = build()
    with ExitStack() as stack:
        try:
            graph.write(model)
        except OSError as error:
            graph = stack.enter_context(_temporary_graph(graph, model, error))
        yield graph.path


class NoRoomError(Exception):
    """A graph cannot be written anywhere; the model has to run on Keras."""


@contextmanager
def _temporary_graph(graph: GraphFile, model: Any, reason: OSError) -> Iterator[GraphFile]:
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="caption-graph-"))
            temporary = GraphFile(Path(folder), graph.name, graph.key)
            temporary.write(model)
        except OSError:
            print(
                f"note: {graph.folder} cannot hold {graph.name}.bin ({reason.strerror}); running "
                "it on Keras, which takes longer",
                file=sys.stderr,
            )
            raise NoRoomError from None
        yield temporary


def compile_graph(path: Path, properties: Mapping[str, str], batch_size: int | None = None) -> Any:
    """Compile a graph for the CPU.

    Args:
        path: the graph's file.
        properties: `LATENCY` or `THROUGHPUT`.
        batch_size: if set, the graph, which must have one input, is fixed to this batch size.

    Returns:
        An `openvino.CompiledModel`.

    Raises:
        InputError: OpenVINO cannot load it.
    """
    import openvino  # noqa: PLC0415  (an optional extra)

    try:
        core = openvino.Core()
        graph = core.read_model(path)
        if batch_size is not None:
            graph.reshape([batch_size, *list(graph.input(0).partial_shape)[1:]])
        return core.compile_model(graph, "CPU", properties)
    except RuntimeError as error:  # for instance if no file can be opened, or memory is short
        raise InputError(
            f"{path} cannot be loaded by OpenVINO ({collapsed_message(error)[:200]}): raise the "
            f"limits of open files and memory (`ulimit`), or remove {path.parent}, which is made "
            "again"
        ) from None
