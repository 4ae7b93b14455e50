"""Charts: where their lines and bars go, in percent; charts.html draws them as SVG.

Percent, so that a chart is as wide as its screen while its text keeps its size.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

from pipeline.captioner.training.history import Epoch, SelfCriticalEpoch
from pipeline.errors import InputError
from pipeline.reporting.baselines import (
    CONSTANT_CAPTION,
    HUMAN_AGREEMENT,
    RANDOM_CAPTIONS,
    SHUFFLED_FEATURES,
)
from pipeline.reporting.evaluation import Evaluation, SearchMetrics
from pipeline.reporting.lengths import LengthGroup
from pipeline.reporting.word_usage import Word

_TICKS = 4  # about so many steps


class History(NamedTuple):
    """A row of history.csv or self_critical.csv, see `training.Epoch`.

    Attributes:
        learned: the loss, or the reward.
    """

    seed: int
    epoch: int
    learned: float
    validation_loss: float
    validation_cider_d: float


@dataclass(frozen=True)
class Bar:
    """A value of a chart, with a line of its own.

    Attributes:
        label: what it is of.
        value: None where there is none.
        text: the value as it is read.
        note: said in small print below the text.
        interval: where the value may lie.
        kind: how it is drawn: "primary", "search", "floor", "shuffled", "human" or "bar".
    """

    label: str
    value: float | None
    text: str
    note: str = ""
    interval: tuple[float, float] | None = None
    kind: str = "bar"


@dataclass(frozen=True)
class BarChart:
    """Values below each other on one scale that starts at 0.

    Attributes:
        title: of the chart.
        rows: from the top.
        lines: values marked through all rows: kind to value.
    """

    title: str
    rows: Sequence[Bar]
    lines: Mapping[str, float]

    @property
    def ticks(self) -> list[float]:
        """Round values along the scale, 0 first; the last is its end."""
        highest = [row.interval[1] for row in self.rows if row.interval]
        highest += [row.value for row in self.rows if row.value is not None]
        return ticks(0, max(highest, default=0))

    def place(self, value: float) -> str:
        """Return where a value is, in percent of the width."""
        return _percent(value, 0, self.ticks[-1])


@dataclass(frozen=True)
class Line:
    """A kind of line of a chart.

    Attributes:
        kind: what it shows and how it is drawn: "training" or "validation".
        lines: one for each seed: places in percent, "x,y x,y ...", y from the top.
    """

    kind: str
    lines: Sequence[str]


@dataclass(frozen=True)
class LineChart:
    """Learning curves on one scale.

    Attributes:
        title: what is drawn.
        curves: over epochs.
        epochs: (label, place) along the bottom.
        values: (label, place) along the left side, from the top.
        best: the epoch of the best value, and its place.
        said: the same in words.
    """

    title: str
    curves: Sequence[Line]
    epochs: Sequence[tuple[str, str]]
    values: Sequence[tuple[str, str]]
    best: tuple[str, str]
    said: str


def of_metric(found: Evaluation, metric: str) -> BarChart:
    """Return the chart of a metric: every search and every baseline."""
    rows = [_of_search(name, search, metric, found) for name, search in found.searches.items()]
    kinds = {
        SHUFFLED_FEATURES: "shuffled" if found.uses_image else "shuffled failed",
        HUMAN_AGREEMENT: "human",
    }
    rows += [
        Bar(
            baseline.name,
            baseline.corpus[metric],
            f"{baseline.corpus[metric]:.1f}",
            kind=kinds.get(baseline.name, "floor"),
        )
        for baseline in found.baselines
    ]
    floors = (CONSTANT_CAPTION, RANDOM_CAPTIONS)
    lines = {"floor": max(b.corpus[metric] for b in found.baselines if b.name in floors)}
    if found.human_agreement is not None:
        lines["human"] = found.human_agreement[metric]
    return BarChart(metric, rows, lines)


def of_lengths(groups: Sequence[LengthGroup]) -> list[BarChart]:
    """Return the charts of scores by caption length, one a metric."""
    cider_d = [_of_length(group, group.cider_d) for group in groups]
    rouge_l = [_of_length(group, group.rouge_l) for group in groups]
    return [BarChart("Mean CIDEr-D", cider_d, {}), BarChart("Mean ROUGE-L", rouge_l, {})]


def of_over_used(words: Sequence[Word]) -> BarChart:
    """Return the chart of words that captions have too often."""
    rows = [
        Bar(
            word.word,
            math.log2(word.ratio),
            f"{word.ratio:.1f} times",
            f"{word.said:,} said, {word.written:,} written",
        )
        for word in words
    ]
    return BarChart("Said too often", rows, {})


def of_never_used(words: Sequence[Word]) -> BarChart:
    """Return the chart of words that captions never have."""
    rows = [Bar(word.word, word.written, f"{word.written:,}") for word in words]
    return BarChart("Never said", rows, {})


def read_history(path: Path) -> list[History]:
    """Read history.csv or self_critical.csv; nothing if it is not there.

    Raises:
        InputError: it is damaged.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        expected = [
            ["seed", *(column.name for column in fields(row))] for row in (Epoch, SelfCriticalEpoch)
        ]
        if header not in expected:
            raise ValueError(f"its columns are {header}")
        return [
            History(int(seed), int(epoch), *map(float, values)) for seed, epoch, *values in rows
        ]
    except FileNotFoundError:
        return []
    except (OSError, TypeError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): run `dvc repro train`") from None


def of_history(history: Sequence[History]) -> list[LineChart]:
    """Return the learning curves, of losses and of scores; none where nothing is to be drawn."""
    shown = _finite(history)
    if not shown:
        return []
    least = min(shown, key=lambda row: row.validation_loss)
    return [
        _curves(
            "Loss, in nats a word",
            shown,
            {"training": "learned", "validation": "validation_loss"},
            least,
            f"least validation loss: {least.validation_loss:.3f} at epoch {least.epoch}",
        ),
        _of_scores("CIDEr-D of captions of dev photos", shown, ["validation"]),
    ]


def of_rewards(history: Sequence[History]) -> list[LineChart]:
    """Return the curve of self-critical training; none where there was no such phase."""
    shown = _finite(history)
    title = "Self-critical phase: CIDEr-D of captions, drawn of training photos and found of dev's"
    return [_of_scores(title, shown, ["training", "validation"])] if shown else []


def _finite(history: Sequence[History]) -> list[History]:
    # A training that has run away has losses that are not numbers.
    return [row for row in history if all(map(math.isfinite, row))]


def _of_scores(title: str, shown: Sequence[History], kinds: Sequence[str]) -> LineChart:
    columns = {"training": "learned", "validation": "validation_cider_d"}
    most = max(shown, key=lambda row: row.validation_cider_d)
    said = f"highest: {most.validation_cider_d:.1f} at epoch {most.epoch}"
    return _curves(title, shown, {kind: columns[kind] for kind in kinds}, most, said)


def _curves(
    title: str, shown: Sequence[History], columns: Mapping[str, str], best: History, said: str
) -> LineChart:
    """Draw columns by their kind, "training" or "validation", a line for each seed.

    `best` is marked in the last of them.
    """
    seeds = list(dict.fromkeys(row.seed for row in shown))
    first, last = (f(row.epoch for row in shown) for f in (min, max))
    drawn = [getattr(row, column) for row in shown for column in columns.values()]
    values = ticks(min(drawn), max(drawn))
    low, high = values[0], values[-1]

    def place(epoch: float, value: float) -> tuple[str, str]:
        return _percent(epoch, first, last), _percent(high - value, 0, high - low)

    def points(column: str, seed: int) -> str:
        of_seed = [row for row in shown if row.seed == seed]
        return " ".join(",".join(place(row.epoch, getattr(row, column))) for row in of_seed)

    steps = [step for step in ticks(first, last) if first <= step <= last and step % 1 == 0]
    return LineChart(
        title=title,
        curves=[
            Line(kind, [points(column, seed) for seed in seeds]) for kind, column in columns.items()
        ],
        epochs=[(f"{step:g}", place(step, low)[0]) for step in steps],
        values=[(f"{value:g}", place(first, value)[1]) for value in reversed(values)],
        best=place(best.epoch, getattr(best, columns["validation"])),
        said=f"{said}, of seed {best.seed}" if len(seeds) > 1 else said,
    )


def ticks(low: float, high: float) -> list[float]:
    """Return round values at equal steps, from at most `low` to at least `high`."""
    span = high - low or 1
    power = 10 ** math.floor(math.log10(span / _TICKS))
    step = next(s * power for s in (1, 2, 5, 10) if s * power * _TICKS >= span * (1 - 1e-9))
    # A rounding error is no reason for one more step.
    begin = math.floor(low / step + 1e-9)
    end = max(math.ceil(high / step - 1e-9), begin + 1)
    # Rounded: three steps of 0.1 are 0.30000000000000004.
    return [round(i * step, 9) for i in range(begin, end + 1)]


def _of_search(name: str, search: SearchMetrics, metric: str, found: Evaluation) -> Bar:
    low, high = search.intervals[metric]
    return Bar(
        label=name.replace("_", " "),
        value=search.corpus[metric],
        text=f"{search.corpus[metric]:.1f}",
        note=f"{low:.1f} to {high:.1f}",
        interval=(low, high),
        kind="headline" if name == found.primary_search else "search",
    )


def _of_length(group: LengthGroup, value: float) -> Bar:
    several = group.longest > group.shortest
    words = f"{group.shortest} to {group.longest}" if several else f"{group.shortest}"
    captions = "1 caption" if group.captions == 1 else f"{group.captions:,} captions"
    return Bar(words, value, f"{value:.1f}", captions)


def _percent(value: float, low: float, high: float) -> str:
    return f"{100 * (value - low) / (high - low or 1):.2f}"
