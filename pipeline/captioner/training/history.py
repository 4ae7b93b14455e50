"""The history of a training: a row for each epoch, and the table of them."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from pipeline.files import write_text


@dataclass(frozen=True)
class Epoch:
    """A row of the history.

    Attributes:
        epoch: from 1.
        loss: what training lowers, the mean negative log-likelihood of a training word, in
            nats, dropout on, labels smoothed if asked.
        validation_loss: that of a dev word, dropout off, labels as they are.
        validation_cider_d: CIDEr-D of dev captions, x100, see `Validation`.
    """

    epoch: int
    loss: float
    validation_loss: float
    validation_cider_d: float


@dataclass(frozen=True)
class SelfCriticalEpoch:
    """A row of the self-critical phase's history.

    Attributes:
        epoch: from 1.
        reward: mean CIDEr-D of captions drawn of training photos, x100.
        validation_loss: as `Epoch` has it.
        validation_cider_d: as `Epoch` has it.
    """

    epoch: int
    reward: float
    validation_loss: float
    validation_cider_d: float


EpochRow = Epoch | SelfCriticalEpoch


def write_history(
    path: Path, rows: Sequence[tuple[int, EpochRow]], kind: type[EpochRow] = Epoch
) -> None:
    """Write seeds and epochs as CSV; without any, the names of the columns of `kind`."""
    text = io.StringIO()
    columns = ["seed", *(field.name for field in fields(rows[0][1] if rows else kind))]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({"seed": seed, **asdict(epoch)} for seed, epoch in rows)
    write_text(path, text.getvalue())
