import sys
from pathlib import Path

import pytest

from pipeline.captioner.training.tensorboard import TensorBoardWriter
from pipeline.errors import InputError


def test_scalars_can_be_read_back(tmp_path: Path) -> None:
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="the extra `tensorboard` is not installed",
    )
    with TensorBoardWriter(tmp_path / "runs") as writer:
        writer.write_scalars(1, 100.0, {"loss": 3.5, "validation_loss": 4.0})
        writer.write_scalars(2, 160.0, {"loss": 2.5, "validation_loss": 3.0})
    events = reader.EventAccumulator(str(tmp_path / "runs")).Reload()
    assert sorted(events.Tags()["scalars"]) == ["loss", "validation_loss"]
    losses = [(event.step, event.wall_time, event.value) for event in events.Scalars("loss")]
    assert losses == [(1, 100.0, 3.5), (2, 160.0, 2.5)]
    assert [event.value for event in events.Scalars("validation_loss")] == [4.0, 3.0]


def test_without_the_extra_the_error_names_the_command_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.event_file_writer", None)
    with pytest.raises(
        InputError,
        match=r"params\.yaml: runtime\.tensorboard .*`pip install -e '\.\[tensorboard\]'`",
    ):
        TensorBoardWriter(tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []
