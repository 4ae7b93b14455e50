import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.files import write_json
from pipeline.storage import openvino_graphs
from pipeline.storage.openvino_graphs import LATENCY, THROUGHPUT, GraphFile, compile_graph, ready
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
    """Convert a network; return the files."""
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


def never() -> Any:
    raise AssertionError("it is converted again")


def test_a_graph_is_found_again_and_does_what_the_model_does(
    graph: GraphFile, network: Any
) -> None:
    assert sorted(path.name for path in graph.folder.iterdir()) == FILES
    assert graph.is_there()
    with ready(graph, never) as path:
        assert path == graph.path
        np.testing.assert_allclose(run(path), network.predict_on_batch(INPUTS), atol=1e-6)


def test_openvino_tells_nobody(graph: GraphFile, tmp_path: Path) -> None:
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


def test_a_graph_can_take_batches_of_one_size_alone(graph: GraphFile, network: Any) -> None:
    compiled = compile_graph(graph.path, THROUGHPUT, 2)
    assert list(compiled.output(0).shape) == [2, 3]
    np.testing.assert_allclose(run(graph.path, 2), network.predict_on_batch(INPUTS[:2]), atol=1e-6)


@pytest.mark.parametrize("properties", [LATENCY, THROUGHPUT])
def test_numbers_stay_as_precise_as_the_models(graph: GraphFile, properties: Any) -> None:
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
    "no facts": lambda g: (g.folder / "small.json").unlink(),
    "half of the facts": lambda g: (g.folder / "small.json").write_text("{"),
    "no object": lambda g: (g.folder / "small.json").write_text("[]"),
    "deep facts": lambda g: (g.folder / "small.json").write_text("[" * 100_000),
    "no UTF-8": lambda g: (g.folder / "small.json").write_bytes(b"\xff"),
    "another key": lambda g: change_json(g.folder / "small.json", {"key": "other"}),
    "another OpenVINO": lambda g: change_json(g.folder / "small.json", {"openvino": "1.0"}),
    "another format": lambda g: change_json(g.folder / "small.json", {"format_version": 0}),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_graph_that_is_not_as_it_was_written_is_not_there(graph: GraphFile, damage: str) -> None:
    DAMAGES[damage](graph)
    assert not graph.is_there()


@dataclass
class Stand:
    """Stands for a model: it is exported as files of few bytes."""

    name: str
    exports: int = 0

    def export(self, path: str, *, format: str, verbose: bool) -> None:  # noqa: A002  (as Keras has it)
        assert (format, verbose) == ("openvino", False)
        self.exports += 1
        Path(path).write_text(f"graph of {self.name}", "utf-8")
        Path(path).with_suffix(".bin").write_text(f"weights of {self.name}", "utf-8")


def read(path: Path) -> list[str]:
    return [path.with_suffix(suffix).read_text("utf-8") for suffix in (".xml", ".bin")]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_graph_that_is_not_there_is_converted_once(graph: GraphFile, damage: str) -> None:
    DAMAGES[damage](graph)
    model = Stand("model")
    for _ in range(2):
        with ready(graph, lambda: model) as path:
            assert path == graph.path
            assert read(path) == ["graph of model", "weights of model"]
    assert model.exports == 1
    assert sorted(path.name for path in graph.folder.iterdir()) == FILES


def test_another_model_of_the_same_name_takes_its_place(graph: GraphFile) -> None:
    other = replace(graph, key="other")
    with ready(other, lambda: Stand("other")) as path:
        assert read(path)[0] == "graph of other"
    assert other.is_there()
    assert not graph.is_there()


def test_another_name_leaves_it_where_it_is(graph: GraphFile) -> None:
    with ready(replace(graph, name="step"), lambda: Stand("step")):
        pass
    assert graph.is_there()


@pytest.mark.parametrize("what", ["a file in its place", "a folder in the weights' place"])
def test_where_it_cannot_be_kept_a_graph_lives_as_long_as_it_is_used(
    tmp_path: Path, what: str
) -> None:
    folder = tmp_path / ".graphs"
    if what == "a file in its place":
        folder.write_text("mine")
    else:
        (folder / "small.bin" / "mine").mkdir(parents=True)
    graph = GraphFile(folder, "small", "key")
    for name in ("one", "two"):
        with ready(graph, lambda name=name: Stand(name)) as path:  # type: ignore[misc]
            assert path != graph.path
            assert read(path) == [f"graph of {name}", f"weights of {name}"]
        assert not path.parent.exists()
    assert not graph.is_there()
    assert list(tmp_path.rglob(".tmp-*")) == []


def test_a_conversion_that_fails_leaves_what_was_there(graph: GraphFile) -> None:
    class Fails(Stand):
        def export(self, path: str, *, format: str, verbose: bool) -> None:  # noqa: A002
            super().export(path, format=format, verbose=verbose)
            raise RuntimeError("an operation that is not known")

    with (
        pytest.raises(RuntimeError, match="not known"),
        ready(replace(graph, key="other"), lambda: Fails("model")),
    ):
        pass
    assert graph.is_there()
    assert sorted(path.name for path in graph.folder.iterdir()) == FILES


def test_one_writer_never_vouches_for_what_another_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = GraphFile(tmp_path, "small", "mine"), GraphFile(tmp_path, "small", "other")
    vouch = write_json

    def overtaken(path: Path, facts: Any) -> None:
        monkeypatch.setattr(openvino_graphs, "write_json", vouch)
        other.write(Stand("other"))
        vouch(path, facts)

    monkeypatch.setattr(openvino_graphs, "write_json", overtaken)
    mine.write(Stand("mine"))
    assert read(mine.path) == ["graph of other", "weights of other"]
    assert not mine.is_there()


WRITER = """
import sys
from pathlib import Path
from pipeline.storage.openvino_graphs import GraphFile
from tests.storage.test_openvino_graphs import Stand
for _ in range(100):
    GraphFile(Path(sys.argv[1]), "small", sys.argv[2]).write(Stand(sys.argv[2]))
"""


@pytest.mark.parametrize("keys", [["one", "one"], ["one", "two"]])
def test_two_processes_may_write_at_once(tmp_path: Path, keys: list[str]) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), key], cwd=ROOT)
        for key in keys
    ]
    assert [process.wait() for process in processes] == [0, 0]
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES
    for key in keys:
        with ready(GraphFile(tmp_path, "small", key), lambda key=key: Stand(key)) as path:  # type: ignore[misc]
            assert read(path) == [f"graph of {key}", f"weights of {key}"]


def test_whether_there_is_a_runtime_and_it_was_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert openvino_graphs.installed()
    assert not openvino_graphs.in_use(tmp_path)
    (tmp_path / openvino_graphs.FOLDER).mkdir()
    assert openvino_graphs.in_use(tmp_path)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert not openvino_graphs.in_use(tmp_path)
    monkeypatch.setenv("KERAS_BACKEND", "")  # says nothing
    assert openvino_graphs.in_use(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert not openvino_graphs.installed()
    assert not openvino_graphs.in_use(tmp_path)
