import errno
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.files import write_json
from pipeline.storage import openvino_graphs
from pipeline.storage.openvino_graphs import (
    LATENCY,
    THROUGHPUT,
    GraphFile,
    NoRoomError,
    code_sha256,
    compile_graph,
    converted_graph,
)
from tests.conftest import change_json, small_network
from tests.support.project import ROOT

openvino = pytest.importorskip("openvino", reason="the extra `openvino` is not installed")

INPUTS = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
FILES = ["small.bin", "small.json", "small.xml"]


@pytest.fixture(scope="module")
def network() -> Any:
    return small_network()


@pytest.fixture(scope="module")
def converted(network: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Convert a network; return the contents of the files by name."""
    folder = tmp_path_factory.mktemp("graphs") / "new" / "folder"
    GraphFile(folder, "small", "key").write(network)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def graph(converted: dict[str, bytes], tmp_path: Path) -> GraphFile:
    for name, data in converted.items():
        (tmp_path / name).write_bytes(data)
    return GraphFile(tmp_path, "small", "key")


def run(path: Path, batch_size: int | None = None) -> Any:
    request = compile_graph(path, LATENCY, batch_size).create_infer_request()
    return request.infer([INPUTS[:batch_size]])[0]


def fail_to_build() -> Any:
    raise AssertionError("the graph is converted again")


def test_a_graph_is_reused_and_gives_the_output_of_the_model(
    graph: GraphFile, network: Any
) -> None:
    assert sorted(path.name for path in graph.folder.iterdir()) == FILES
    assert graph.is_valid()
    with converted_graph(graph, fail_to_build) as path:
        assert path == graph.path
        np.testing.assert_allclose(run(path), network.predict_on_batch(INPUTS), atol=1e-6)


def test_openvino_sends_no_usage_data(graph: GraphFile, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from pipeline.storage.openvino_graphs import LATENCY, compile_graph\n"
        f"compile_graph(Path({str(graph.path)!r}), LATENCY)\n"
        "print(sys.modules['openvino_telemetry'], 'openvino' in sys.modules)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"HOME": str(home), "LOCALAPPDATA": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == ["None", "True"]
    assert not list(home.iterdir())


def test_a_graph_can_be_fixed_to_a_batch_size(graph: GraphFile, network: Any) -> None:
    compiled = compile_graph(graph.path, THROUGHPUT, 2)
    assert list(compiled.output(0).shape) == [2, 3]
    np.testing.assert_allclose(run(graph.path, 2), network.predict_on_batch(INPUTS[:2]), atol=1e-6)


@pytest.mark.parametrize("properties", [LATENCY, THROUGHPUT])
def test_graphs_compute_in_float32(graph: GraphFile, properties: Any) -> None:
    compiled = compile_graph(graph.path, properties)
    assert compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32
    hint = compiled.get_property("PERFORMANCE_HINT")
    assert properties["PERFORMANCE_HINT"] in str(hint)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[GraphFile], Any]] = {
    "a flipped bit of the graph": lambda g: flip(g.path),
    "a flipped bit of the weights": lambda g: flip(g.folder / "small.bin"),
    "no graph": lambda g: g.path.unlink(),
    "no weights": lambda g: (g.folder / "small.bin").unlink(),
    "no manifest": lambda g: (g.folder / "small.json").unlink(),
    "half of the manifest": lambda g: (g.folder / "small.json").write_text("{"),
    "not an object": lambda g: (g.folder / "small.json").write_text("[]"),
    "deeply nested manifest": lambda g: (g.folder / "small.json").write_text("[" * 100_000),
    "not UTF-8": lambda g: (g.folder / "small.json").write_bytes(b"\xff"),
    "another key": lambda g: change_json(g.folder / "small.json", {"key": "other"}),
    "another OpenVINO": lambda g: change_json(
        g.folder / "small.json", {"versions": {"openvino": "1.0"}}
    ),
    "another Keras": lambda g: change_json(g.folder / "small.json", {"versions": {"keras": "3"}}),
    "another format": lambda g: change_json(g.folder / "small.json", {"format_version": 0}),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_graph_is_not_valid(graph: GraphFile, damage: str) -> None:
    DAMAGES[damage](graph)
    assert not graph.is_valid()


@dataclass
class FakeModel:
    """A model that is exported as small text files."""

    name: str
    exports: int = 0

    def count_params(self) -> int:
        return 1

    def export(self, path: str, *, format: str, verbose: bool) -> None:  # noqa: A002  (as Keras has it)
        assert (format, verbose) == ("openvino", False)
        self.exports += 1
        Path(path).write_text(f"graph of {self.name}", "utf-8")
        Path(path).with_suffix(".bin").write_text(f"weights of {self.name}", "utf-8")


def read(path: Path) -> list[str]:
    return [path.with_suffix(suffix).read_text("utf-8") for suffix in (".xml", ".bin")]


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_invalid_graph_is_converted_once(graph: GraphFile, damage: str) -> None:
    DAMAGES[damage](graph)
    model = FakeModel("model")
    for _ in range(2):
        with converted_graph(graph, lambda: model) as path:
            assert path == graph.path
            assert read(path) == ["graph of model", "weights of model"]
    assert model.exports == 1
    assert sorted(path.name for path in graph.folder.iterdir()) == FILES


def test_another_model_of_the_same_name_replaces_the_graph(graph: GraphFile) -> None:
    other = replace(graph, key="other")
    with converted_graph(other, lambda: FakeModel("other")) as path:
        assert read(path)[0] == "graph of other"
    assert other.is_valid()
    assert not graph.is_valid()


def test_a_model_of_another_name_does_not_replace_the_graph(graph: GraphFile) -> None:
    with converted_graph(replace(graph, name="step"), lambda: FakeModel("step")):
        pass
    assert graph.is_valid()


@pytest.mark.parametrize("obstacle", ["a file in its place", "a folder in the weights' place"])
def test_a_graph_that_cannot_be_cached_exists_only_in_the_context(
    tmp_path: Path, obstacle: str
) -> None:
    folder = tmp_path / ".graphs"
    if obstacle == "a file in its place":
        folder.write_text("mine")
    else:
        (folder / "small.bin" / "mine").mkdir(parents=True)
    graph = GraphFile(folder, "small", "key")
    for name in ("one", "two"):
        with converted_graph(graph, lambda name=name: FakeModel(name)) as path:  # type: ignore[misc]
            assert path != graph.path
            assert read(path) == [f"graph of {name}", f"weights of {name}"]
        assert not path.parent.exists()
    assert not graph.is_valid()
    assert list(tmp_path.rglob(".tmp-*")) == []


def test_a_damaged_graph_is_reported_in_one_line(
    graph: GraphFile, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not replace(graph, key="other").is_valid()  # not damaged, but of another model
    assert not replace(graph, name="new").is_valid()
    assert capsys.readouterr().err == ""
    flip(graph.path)
    assert not graph.is_valid()
    message = f"{graph.path} is damaged or incomplete: converting it again\n"
    assert capsys.readouterr().err == message


@pytest.fixture
def graph_of_weights(tmp_path: Path) -> GraphFile:
    """Write a graph beside the file of the weights that it was converted from."""
    weights = tmp_path / "small.weights.h5"
    weights.write_bytes(b"weights")
    graph = GraphFile(tmp_path / "graphs", "small", "key", weights)
    graph.write(FakeModel("model"))
    return graph


def test_a_graph_is_valid_beside_the_weights_that_it_was_converted_from(
    graph_of_weights: GraphFile,
) -> None:
    weights = graph_of_weights.weights
    assert weights is not None
    assert graph_of_weights.is_valid()
    os.utime(weights, ns=(0, 0))  # a copy
    assert graph_of_weights.is_valid()
    weights.write_bytes(b"another")
    assert not graph_of_weights.is_valid()
    weights.write_bytes(b"weights")
    assert graph_of_weights.is_valid()
    weights.write_bytes(b"weights and more")
    assert not graph_of_weights.is_valid()
    weights.unlink()
    assert not graph_of_weights.is_valid()
    assert not replace(graph_of_weights, weights=None).is_valid()


def test_a_change_in_code_changes_the_digest(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "step.py").write_text("x = 1")
    (tmp_path / "b.py").write_text("y = 1")
    paths = (tmp_path / "a", tmp_path / "b.py")
    digests = {code_sha256(*paths)}
    for file in (tmp_path / "a" / "step.py", tmp_path / "b.py"):
        file.write_text("z = 2")
        digests.add(code_sha256(*paths))
    (tmp_path / "a" / "new.py").touch()
    digests.add(code_sha256(*paths))
    assert len(digests) == 4


def full_disk(folder: Path) -> Callable[[Path, int], None]:
    """Return a replacement for `check_disk_space` for which the disk of `folder` is full."""

    def check(path: Path, _: int) -> None:
        if path.is_relative_to(folder):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    return check


def test_on_a_full_disk_the_graph_exists_only_in_the_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_graphs, "check_disk_space", full_disk(tmp_path / "artifacts"))
    graph = GraphFile(tmp_path / "artifacts", "small", "key")
    with converted_graph(graph, lambda: FakeModel("one")) as path:
        assert read(path) == ["graph of one", "weights of one"]
    assert list((tmp_path / "artifacts").iterdir()) == []


def test_if_every_disk_is_full_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(openvino_graphs, "check_disk_space", full_disk(Path("/")))
    graph = GraphFile(tmp_path, "small", "key")
    with pytest.raises(NoRoomError), converted_graph(graph, lambda: FakeModel("one")):
        pass
    assert capsys.readouterr().err == (
        f"note: {tmp_path} cannot hold small.bin (No space left on device); running it on Keras, "
        "which takes longer\n"
    )


KILLED_WRITER = """
import os, sys
from pathlib import Path
from pipeline.storage.openvino_graphs import GraphFile
from tests.storage.test_openvino_graphs import FakeModel
class Killed(FakeModel):
    def export(self, path, **options):
        super().export(path, **options)
        os.kill(os.getpid(), 15)
GraphFile(Path(sys.argv[1]), "small", "key").write(Killed("killed"))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs locks on folders")
def test_the_next_writer_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED_WRITER, str(tmp_path)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGTERM
    assert [path.name[:5] for path in tmp_path.iterdir()] == [".tmp-"]
    GraphFile(tmp_path, "small", "key").write(FakeModel("next"))
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES


def test_a_failed_conversion_leaves_the_old_graph(graph: GraphFile) -> None:
    class FailingModel(FakeModel):
        def export(self, path: str, *, format: str, verbose: bool) -> None:  # noqa: A002
            super().export(path, format=format, verbose=verbose)
            raise RuntimeError("an unknown operation")

    with (
        pytest.raises(RuntimeError, match="unknown operation"),
        converted_graph(replace(graph, key="other"), lambda: FailingModel("model")),
    ):
        pass
    assert graph.is_valid()
    assert sorted(path.name for path in graph.folder.iterdir()) == FILES


def test_a_writer_never_validates_the_files_of_another_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = GraphFile(tmp_path, "small", "mine"), GraphFile(tmp_path, "small", "other")
    write_manifest = write_json

    def write_late(path: Path, manifest: Any) -> None:
        monkeypatch.setattr(openvino_graphs, "write_json", write_manifest)
        other.write(FakeModel("other"))
        write_manifest(path, manifest)

    monkeypatch.setattr(openvino_graphs, "write_json", write_late)
    mine.write(FakeModel("mine"))
    assert read(mine.path) == ["graph of other", "weights of other"]
    assert not mine.is_valid()


WRITER = """
import sys
from pathlib import Path
from pipeline.storage.openvino_graphs import GraphFile
from tests.storage.test_openvino_graphs import FakeModel
for _ in range(100):
    GraphFile(Path(sys.argv[1]), "small", sys.argv[2]).write(FakeModel(sys.argv[2]))
"""


@pytest.mark.parametrize("keys", [["one", "one"], ["one", "two"]])
def test_two_processes_can_write_at_once(tmp_path: Path, keys: list[str]) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), key], cwd=ROOT)
        for key in keys
    ]
    assert [process.wait() for process in processes] == [0, 0]
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES
    for key in keys:
        graph = GraphFile(tmp_path, "small", key)
        with converted_graph(graph, lambda key=key: FakeModel(key)) as path:  # type: ignore[misc]
            assert read(path) == [f"graph of {key}", f"weights of {key}"]


def test_graphs_are_enabled_with_openvino_tensorflow_and_earlier_graphs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert openvino_graphs.is_installed()
    assert not openvino_graphs.is_enabled(tmp_path)
    (tmp_path / openvino_graphs.FOLDER).mkdir()
    assert openvino_graphs.is_enabled(tmp_path)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert not openvino_graphs.is_enabled(tmp_path)
    monkeypatch.setenv("KERAS_BACKEND", "")  # the same as unset
    assert openvino_graphs.is_enabled(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert not openvino_graphs.is_installed()
    assert not openvino_graphs.is_enabled(tmp_path)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("suffix", [".json", ".bin", ".xml"])
def test_a_pipe_in_the_place_of_a_file_is_replaced(
    graph: GraphFile, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = graph.path.with_suffix(suffix)
    path.unlink()
    os.mkfifo(path)
    assert not graph.is_valid()
    assert bool(capsys.readouterr().err) == (suffix != ".json")


def test_a_graph_that_openvino_cannot_load_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("no graph")
    with pytest.raises(
        InputError, match=rf"a\.xml cannot be loaded by OpenVINO .* remove {tmp_path}"
    ):
        compile_graph(tmp_path / "a.xml", LATENCY)
