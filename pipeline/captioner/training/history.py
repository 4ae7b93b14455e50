"""The history of a training run: a row for each epoch, written as CSV."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

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
