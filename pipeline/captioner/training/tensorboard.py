"""TensorBoard logs, by the optional extra, on any backend of Keras."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipeline.errors import InputError


class TensorBoard:
    """Writes scalars for `tensorboard --logdir`, as a context manager."""

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
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()

    def scalars(self, step: int, seconds: float, values: dict[str, float]) -> None:
        """Write one value for each tag at `step`; `seconds` is the wall clock."""
        from tensorboard.compat.proto import event_pb2, summary_pb2  # noqa: PLC0415  (optional)

        summary = summary_pb2.Summary(
            value=[
                summary_pb2.Summary.Value(tag=tag, simple_value=value)
                for tag, value in values.items()
            ]
        )
        self._writer.add_event(event_pb2.Event(step=step, wall_time=seconds, summary=summary))
