"""TensorBoard logs on any Keras backend, with the optional extra `tensorboard`."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipeline.errors import InputError


class TensorBoardWriter:
    """Writes scalars for `tensorboard --logdir`; a context manager."""

    def __init__(self, folder: Path) -> None:
        """Open an event file in `folder`.

        Raises:
            InputError: the extra is not installed.
        """
        try:
            from tensorboard.summary.writer.event_file_writer import (  # noqa: PLC0415  (optional)
                EventFileWriter,
            )
        except ModuleNotFoundError:
            raise InputError(
                "params.yaml: runtime.tensorboard is true, but TensorBoard is not installed: "
                "`pip install -e '.[tensorboard]'`, or set it to false"
            ) from None
        self._writer: Any = EventFileWriter(str(folder))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._writer.close()

    def write_scalars(self, step: int, wall_time: float, values: dict[str, float]) -> None:
        """Write one value for each tag at `step`; `wall_time` is in seconds since the epoch."""
        from tensorboard.compat.proto import event_pb2, summary_pb2  # noqa: PLC0415  (optional)

        summary = summary_pb2.Summary(
            value=[
                summary_pb2.Summary.Value(tag=tag, simple_value=value)
                for tag, value in values.items()
            ]
        )
        self._writer.add_event(event_pb2.Event(step=step, wall_time=wall_time, summary=summary))
