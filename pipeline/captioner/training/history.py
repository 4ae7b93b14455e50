"""The history of a training run: a row for each epoch, written as CSV."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any

from pipeline.files import write_text


@dataclass(frozen=True)
class CrossEntropyEpoch:
    """An epoch of the cross-entropy phase.

    Attributes:
        epoch: number, from 1.
        loss: mean negative log-likelihood of a training word, in nats, with dropout and with
            smoothed labels where they are configured: what training minimizes.
        validation_loss: the same for dev captions, without dropout and without smoothing.
        validation_cider_d: CIDEr-D of the captions of dev photos, x100, see `Validation`.
    """

    epoch: int
    loss: float
    validation_loss: float
    validation_cider_d: float


@dataclass(frozen=True)
class SelfCriticalEpoch:
    """An epoch of the self-critical phase.

    Attributes:
        epoch: number, from 1.
        reward: mean CIDEr-D of the captions sampled for training photos, x100.
        validation_loss: as in `CrossEntropyEpoch`.
        validation_cider_d: as in `CrossEntropyEpoch`.
    """

    epoch: int
    reward: float
    validation_loss: float
    validation_cider_d: float


EpochRow = CrossEntropyEpoch | SelfCriticalEpoch


def read_rows(values: Any, row_type: type[EpochRow]) -> list[EpochRow]:
    """Return the rows of a checkpoint's history, which may come from anywhere.

    Args:
        values: the rows, as `dataclasses.asdict` and JSON made them.
        row_type: the class of the rows.

    Raises:
        TypeError: it is no list of objects, or a row has other columns.
        ValueError: it has no rows, they are not numbered from 1, or one has a column that is no
            number.
    """
    rows = [row_type(**row) for row in values]
    if not rows or [row.epoch for row in rows] != list(range(1, len(rows) + 1)):
        raise ValueError("its epochs are not numbered from 1")
    if not all(type(value) in (int, float) for row in rows for value in astuple(row)):
        raise ValueError("its history has a value that is no number")
    return rows


def write_history(
    path: Path, rows: Sequence[tuple[int, EpochRow]], row_type: type[EpochRow] = CrossEntropyEpoch
) -> None:
    """Write seeds and epochs as CSV; without rows, write only the column names of `row_type`."""
    text = io.StringIO()
    columns = ["seed", *(field.name for field in fields(rows[0][1] if rows else row_type))]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({"seed": seed, **asdict(row)} for seed, row in rows)
    write_text(path, text.getvalue())
