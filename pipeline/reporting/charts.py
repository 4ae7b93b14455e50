"""Charts: the positions of their bars, lines and ticks, in percent; charts.html draws the SVG.

With percentages, a chart fills the width of the screen and its text keeps its size.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

from pipeline.captioner.model_config import Member
from pipeline.captioner.training.history import CrossEntropyEpoch, SelfCriticalEpoch
from pipeline.errors import InputError, collapsed_message
from pipeline.files import check_regular, raise_system_error
from pipeline.reporting.baselines import (
    CONSTANT_CAPTION,
    HUMAN_AGREEMENT,
    MODEL_LEAVE_ONE_OUT,
    RANDOM_CAPTIONS,
    SHUFFLED_FEATURES,
)
from pipeline.reporting.evaluation import Evaluation, SearchMetrics
from pipeline.reporting.length_groups import LengthGroup
from pipeline.reporting.tables import search_label
from pipeline.reporting.word_usage import WordCount

_TICKS = 4  # approximate number of intervals on a scale


class HistoryRow(NamedTuple):
    """A row of history.csv or self_critical.csv, see `history.CrossEntropyEpoch`.

    Attributes:
        training: the training loss in history.csv, the reward in self_critical.csv.
    """

    seed: int
    epoch: int
    training: float
    validation_loss: float
    validation_cider_d: float


@dataclass(frozen=True)
class Bar:
    """One value of a bar chart, in a row of its own.

    Attributes:
        label: what the value belongs to.
        value: None for an empty row.
        text: the value as text.
        note: small print below the text.
        interval: the ends of the value's 95 % interval.
        kind: how it is drawn: "primary", "search", "baseline", "shuffled", "human" or "bar".
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
        title: the chart's title.
        bars: from top to bottom.
        marks: values marked by a line through all rows: kind to value.
    """

    title: str
    bars: Sequence[Bar]
    marks: Mapping[str, float]

    @property
    def ticks(self) -> list[float]:
        """Round values along the scale, from 0 to the end of the scale."""
        highest = [bar.interval[1] for bar in self.bars if bar.interval]
        highest += [bar.value for bar in self.bars if bar.value is not None]
        return ticks(0, max(highest, default=0))

    def position(self, value: float) -> str:
        """Return a value's position from the left, in percent of the width."""
        return _percent(value, 0, self.ticks[-1])


@dataclass(frozen=True)
class Series:
    """A series of a line chart, with a line for each seed.

    Attributes:
        kind: what it shows and how it is drawn: "training" or "validation".
        lines: each line's points in percent, "x,y x,y ...", y from the top.
    """

    kind: str
    lines: Sequence[str]


@dataclass(frozen=True)
class LineChart:
    """Learning curves on one scale.

    Attributes:
        title: the chart's title.
        series: values over epochs.
        x_ticks: (label, position) of epochs, from the left.
        y_ticks: (label, position) of values, from the top.
        kept: position (x, y) of each kept epoch on the validation lines.
        summary: the kept epochs and their values as text.
    """

    title: str
    series: Sequence[Series]
    x_ticks: Sequence[tuple[str, str]]
    y_ticks: Sequence[tuple[str, str]]
    kept: Sequence[tuple[str, str]]
    summary: str


def metric_chart(evaluation: Evaluation, metric: str) -> BarChart:
    """Return the chart of one metric: every search and every baseline."""
    bars = [
        _search_bar(name, search, metric, evaluation)
        for name, search in evaluation.searches.items()
    ]
    kinds = {
        SHUFFLED_FEATURES: "shuffled failed" if evaluation.uses_image is False else "shuffled",
        MODEL_LEAVE_ONE_OUT: "search",
        HUMAN_AGREEMENT: "human",
    }
    bars += [
        Bar(
            baseline.name,
            baseline.corpus[metric],
            f"{baseline.corpus[metric]:.1f}",
            kind=kinds.get(baseline.name, "baseline"),
        )
        for baseline in evaluation.baselines
    ]
    without_model = [
        baseline.corpus[metric]
        for baseline in evaluation.baselines
        if baseline.name in {CONSTANT_CAPTION, RANDOM_CAPTIONS}
    ]
    marks = {"baseline": max(without_model)}
    if evaluation.human_agreement is not None:
        marks["human"] = evaluation.human_agreement[metric]
    return BarChart(metric, bars, marks)


def length_charts(groups: Sequence[LengthGroup]) -> list[BarChart]:
    """Return the charts of scores by caption length, one per metric."""
    cider_d = [_length_bar(group, group.cider_d) for group in groups]
    rouge_l = [_length_bar(group, group.rouge_l) for group in groups]
    return [BarChart("Mean CIDEr-D", cider_d, {}), BarChart("Mean ROUGE-L", rouge_l, {})]


def data_lengths_chart(lengths: Sequence[tuple[str, int]]) -> BarChart:
    """Return the chart of training captions by their number of words."""
    bars = [Bar(label, captions, f"{captions:,}") for label, captions in lengths]
    return BarChart("Training captions by number of words", bars, {})


def over_used_chart(words: Sequence[WordCount]) -> BarChart:
    """Return the chart of words that captions use too often."""
    bars = [
        Bar(
            word.word,
            math.log2(word.ratio),
            f"{word.ratio:.1f} times",
            f"{word.in_captions:,} vs. {word.in_references:,}",
        )
        for word in words
    ]
    return BarChart("Used too often", bars, {})


def never_used_chart(words: Sequence[WordCount]) -> BarChart:
    """Return the chart of words that captions never use."""
    bars = [Bar(word.word, word.in_references, f"{word.in_references:,}") for word in words]
    return BarChart("Never used", bars, {})


def read_history(path: Path) -> list[HistoryRow]:
    """Read history.csv or self_critical.csv; a missing file has no rows.

    Raises:
        InputError: the file is damaged.
    """
    fix = "run `dvc repro train`"
    if not path.exists():
        return []
    check_regular(path, fix)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        expected = [
            ["seed", *(column.name for column in fields(row))]
            for row in (CrossEntropyEpoch, SelfCriticalEpoch)
        ]
        if header not in expected:
            raise ValueError(f"its columns are {header}")
        return [
            HistoryRow(int(seed), int(epoch), *map(float, values)) for seed, epoch, *values in rows
        ]
    except (OSError, TypeError, ValueError, csv.Error) as error:
        raise_system_error(error, path)
        raise InputError(f"{path} cannot be read ({collapsed_message(error)}): {fix}") from None


def kept_epochs(members: Sequence[Member]) -> tuple[dict[int, int], dict[int, int]]:
    """Return seed to kept epoch: first those of history.csv, then those of self_critical.csv."""
    first: dict[int, int] = {}
    second: dict[int, int] = {}
    for member in members:
        # Its row in the history: only the self-critical phase has rewards.
        best = member.metadata.get("best", {})
        if "epoch" in best:
            (second if "reward" in best else first)[member.seed] = best["epoch"]
    return first, second


def learning_curves(history: Sequence[HistoryRow], kept: Mapping[int, int]) -> list[LineChart]:
    """Return the charts of loss and of CIDEr-D; none if no row has finite values.

    Args:
        history: the rows of history.csv.
        kept: seed to the epoch whose weights were kept, if it is in this phase.
    """
    rows = _finite(history)
    if not rows:
        return []
    losses = {"training": "training", "validation": "validation_loss"}
    return [
        _line_chart("Loss (nats per word)", rows, losses, kept),
        _line_chart(
            "CIDEr-D of captions of dev photos", rows, {"validation": "validation_cider_d"}, kept
        ),
    ]


def self_critical_curves(history: Sequence[HistoryRow], kept: Mapping[int, int]) -> list[LineChart]:
    """Return the chart of self-critical training; none if there was no such phase."""
    rows = _finite(history)
    title = (
        "Self-critical phase: CIDEr-D of captions sampled for training photos and of captions "
        "searched for dev photos"
    )
    columns = {"training": "training", "validation": "validation_cider_d"}
    return [_line_chart(title, rows, columns, kept)] if rows else []


def _finite(history: Sequence[HistoryRow]) -> list[HistoryRow]:
    # A diverged training has losses that are NaN or infinite.
    return [row for row in history if all(map(math.isfinite, row))]


def _line_chart(
    title: str,
    rows: Sequence[HistoryRow],
    columns: Mapping[str, str],
    kept: Mapping[int, int],
) -> LineChart:
    """Return a chart of columns by their kind, "training" or "validation".

    Each kind has a line for each seed; the kept epochs are marked on the validation lines.
    """
    kept_rows = [row for row in rows if kept.get(row.seed) == row.epoch]
    seeds = list(dict.fromkeys(row.seed for row in rows))
    epochs = [row.epoch for row in rows]
    first, last = min(epochs), max(epochs)
    values = [getattr(row, column) for row in rows for column in columns.values()]
    y_ticks = ticks(min(values), max(values))
    low, high = y_ticks[0], y_ticks[-1]

    def position(epoch: float, value: float) -> tuple[str, str]:
        return _percent(epoch, first, last), _percent(high - value, 0, high - low)

    def line(column: str, seed: int) -> str:
        seed_rows = [row for row in rows if row.seed == seed]
        return " ".join(",".join(position(row.epoch, getattr(row, column))) for row in seed_rows)

    x_ticks = [epoch for epoch in ticks(first, last) if first <= epoch <= last and epoch % 1 == 0]
    return LineChart(
        title=title,
        series=[
            Series(kind, [line(column, seed) for seed in seeds]) for kind, column in columns.items()
        ],
        x_ticks=[(f"{epoch:g}", position(epoch, low)[0]) for epoch in x_ticks],
        y_ticks=[(f"{value:g}", position(first, value)[1]) for value in reversed(y_ticks)],
        kept=[position(row.epoch, getattr(row, columns["validation"])) for row in kept_rows],
        summary=_kept_summary(kept_rows, columns["validation"], len(seeds)),
    )


def _kept_summary(kept: Sequence[HistoryRow], column: str, n_seeds: int) -> str:
    digits = 3 if column == "validation_loss" else 1
    epochs = [
        f"epoch {row.epoch}{f' of seed {row.seed}' if n_seeds > 1 else ''} "
        f"({getattr(row, column):.{digits}f})"
        for row in kept
    ]
    return f"kept: {', '.join(epochs)}" if epochs else "no epoch of this phase was kept"


def ticks(low: float, high: float) -> list[float]:
    """Return round values at equal steps, from at most `low` to at least `high`."""
    span = high - low or 1
    power = 10 ** math.floor(math.log10(span / _TICKS))
    step = next(s * power for s in (1, 2, 5, 10) if s * power * _TICKS >= span * (1 - 1e-9))
    # The tolerance keeps a rounding error from adding a step.
    begin = math.floor(low / step + 1e-9)
    end = max(math.ceil(high / step - 1e-9), begin + 1)
    # Rounded, because three steps of 0.1 are 0.30000000000000004.
    return [round(i * step, 9) for i in range(begin, end + 1)]


def _search_bar(name: str, search: SearchMetrics, metric: str, evaluation: Evaluation) -> Bar:
    low, high = search.intervals[metric]
    has_interval = evaluation.has_enough_photos
    return Bar(
        label=search_label(name),
        value=search.corpus[metric],
        text=f"{search.corpus[metric]:.1f}",
        note=f"{low:.1f} to {high:.1f}" if has_interval else "",
        interval=(low, high) if has_interval else None,
        kind="primary" if name == evaluation.primary_search else "search",
    )


def _length_bar(group: LengthGroup, value: float) -> Bar:
    is_range = group.longest > group.shortest
    words = f"{group.shortest} to {group.longest}" if is_range else f"{group.shortest}"
    captions = "1 caption" if group.captions == 1 else f"{group.captions:,} captions"
    return Bar(words, value, f"{value:.1f}", captions)


def _percent(value: float, low: float, high: float) -> str:
    return f"{100 * (value - low) / (high - low or 1):.2f}"
