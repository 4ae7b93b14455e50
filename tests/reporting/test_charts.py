import math
from pathlib import Path

import pytest

from pipeline.captioner.model_config import Member
from pipeline.errors import InputError
from pipeline.metrics.significance import MIN_IMAGES
from pipeline.reporting.baselines import SHUFFLED_FEATURES, Baseline
from pipeline.reporting.charts import (
    Bar,
    BarChart,
    HistoryRow,
    kept_epochs,
    learning_curves,
    length_charts,
    metric_chart,
    never_used_chart,
    over_used_chart,
    read_history,
    self_critical_curves,
    ticks,
)
from pipeline.reporting.length_groups import LengthGroup
from pipeline.reporting.word_usage import WordCount
from tests.support.report import BASELINES, evaluation

PAIR = [["a dog runs here", "the dog runs"], ["a cat sat", "one cat"]]
REFERENCES = {f"{row}": PAIR[row % 2] for row in range(MIN_IMAGES)}
HEADER = "seed,epoch,loss,validation_loss,validation_cider_d\n"
SELF_CRITICAL_HEADER = "seed,epoch,reward,validation_loss,validation_cider_d\n"
CAPTIONS = {
    "greedy": ["a cat", "a dog"] * (MIN_IMAGES // 2),
    "beam_3": ["a dog runs", "a cat sat"] * (MIN_IMAGES // 2),
}


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 34.8, [0, 10, 20, 30, 40]),
        (0, 0, [0, 0.5]),
        (0, 541, [0, 200, 400, 600]),
        (0, 1, [0, 0.5, 1]),
        (0, 0.3, [0, 0.1, 0.2, 0.3]),
        (2.4, 5.7, [2, 3, 4, 5, 6]),
        (3, 3, [3, 3.5]),
        (1, 31, [0, 10, 20, 30, 40]),
    ],
)
def test_ticks_are_round_and_cover_all_values(
    low: float, high: float, expected: list[float]
) -> None:
    assert ticks(low, high) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("high", [10.0**power * x for power in range(-3, 5) for x in (1, 3.3, 9.9)])
def test_ticks_are_few(high: float) -> None:
    values = ticks(0, high)
    assert 2 <= len(values) <= 6
    assert values[0] == 0
    assert values[-2] < high <= values[-1] * (1 + 1e-9)


def test_a_metric_chart_has_searches_and_baselines() -> None:
    result = evaluation(CAPTIONS, REFERENCES)
    chart = metric_chart(result, "CIDEr-D")
    assert [(bar.label, bar.kind) for bar in chart.bars] == [
        ("greedy", "search"),
        ("beam 3", "primary"),
        ("constant caption", "baseline"),
        ("random captions", "baseline"),
        ("shuffled features", "shuffled"),
        ("model leave-one-out", "search"),
        ("human agreement", "human"),
    ]
    assert chart.marks == {"baseline": 1.5, "human": 222.0}
    beam = result.searches["beam_3"]
    assert chart.bars[1].value == beam.corpus["CIDEr-D"]
    assert chart.bars[1].interval == beam.intervals["CIDEr-D"]
    assert chart.bars[6].text == "222.0"


def test_few_photos_have_no_intervals() -> None:
    few = {image_id: REFERENCES[image_id] for image_id in list(REFERENCES)[:-1]}
    captions = {name: texts[:-1] for name, texts in CAPTIONS.items()}
    chart = metric_chart(evaluation(captions, few), "CIDEr-D")
    assert {(bar.interval, bar.note) for bar in chart.bars} == {(None, "")}


def test_a_model_that_ignores_the_image_is_marked_and_missing_baselines_are_left_out() -> None:
    shuffled = Baseline(
        SHUFFLED_FEATURES, evaluation(CAPTIONS, REFERENCES).searches["beam_3"].corpus
    )
    chart = metric_chart(
        evaluation(CAPTIONS, REFERENCES, baselines=[*BASELINES[:2], shuffled]),
        "BLEU-4",
    )
    assert [bar.kind for bar in chart.bars][2:] == ["baseline", "baseline", "shuffled failed"]
    assert "human" not in chart.marks
    without = evaluation(CAPTIONS, REFERENCES, baselines=[*BASELINES[:2], BASELINES[-1]])
    assert len(metric_chart(without, "BLEU-4").bars) == 5


def test_every_value_is_positioned_inside_the_chart() -> None:
    chart = metric_chart(evaluation(CAPTIONS, REFERENCES), "CIDEr-D")
    values = [bar.value for bar in chart.bars if bar.value is not None]
    values += [end for bar in chart.bars if bar.interval for end in bar.interval]
    assert all(0 <= float(chart.position(value)) <= 100 for value in values)
    assert chart.position(0) == "0.00"
    assert chart.position(chart.ticks[-1]) == "100.00"


def test_empty_charts_have_a_scale() -> None:
    assert BarChart("", [], {}).position(0) == "0.00"
    assert BarChart("", [Bar("a", 0.0, "0")], {}).position(0) == "0.00"


def test_lengths_and_words_become_bars() -> None:
    groups = [LengthGroup(4, 4, 1, 10.04, 20.0), LengthGroup(5, 7, 1200, 30.0, 40.0)]
    cider_d, rouge_l = length_charts(groups)
    assert [(row.label, row.text, row.note) for row in cider_d.bars] == [
        ("4", "10.0", "1 caption"),
        ("5 to 7", "30.0", "1,200 captions"),
    ]
    assert [row.value for row in rouge_l.bars] == [20.0, 40.0]
    words = [WordCount("shirt", 63, 1021, 8.0)]
    (often,), (never,) = over_used_chart(words).bars, never_used_chart(words).bars
    assert (often.value, often.text, often.note) == (3.0, "8.0 times", "63 vs. 1,021")
    assert (never.value, never.text) == (1021, "1,021")


def history(folder: Path, text: str) -> Path:
    path = folder / "history.csv"
    path.write_text(text, "utf-8")
    return path


def test_the_history_is_read(tmp_path: Path) -> None:
    path = history(tmp_path, HEADER + "7,1,3.5,3.25,0.5\n7,2,3.0,nan,1\n")
    first, second = read_history(path)
    assert first == HistoryRow(7, 1, 3.5, 3.25, 0.5)
    assert second[:3] == (7, 2, 3.0)
    assert math.isnan(second.validation_loss)
    assert read_history(tmp_path / "missing.csv") == []


@pytest.mark.parametrize(
    "text",
    [
        *("", "epoch,loss\n1,2\n", f"{HEADER}7,1,2\n", f"{HEADER}7,a,2,3,4\n"),
        *(f"{HEADER}7,1,,3,4\n", f"{HEADER}7,1,{'2' * 140_000},3,4\n", f'{HEADER}7,1,"2,3\r,4\n'),
    ],
)
def test_a_damaged_history_is_reported_with_its_path_and_fix(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"history\.csv cannot be read .*dvc repro train"):
        read_history(history(tmp_path, text))


def test_curves_are_drawn_from_left_to_right_with_the_kept_epoch() -> None:
    rows = [HistoryRow(7, 1, 4, 3, 0), HistoryRow(7, 2, 2, 2, 5), HistoryRow(7, 3, 1, 2.5, 10)]
    losses, scores = learning_curves(rows, {7: 3})
    training, validation = losses.series
    assert training.lines == ["0.00,0.00 50.00,66.67 100.00,100.00"]
    assert validation.lines == ["0.00,33.33 50.00,66.67 100.00,50.00"]
    # Neither chart marks another epoch, though epoch 2 has the lowest loss.
    assert losses.kept == [("100.00", "50.00")]
    assert losses.summary == "kept: epoch 3 (2.500)"
    assert losses.y_ticks[0] == ("4", "0.00")
    assert losses.y_ticks[-1] == ("1", "100.00")
    assert losses.x_ticks == [("1", "0.00"), ("2", "50.00"), ("3", "100.00")]
    assert [series.lines for series in scores.series] == [["0.00,100.00 50.00,50.00 100.00,0.00"]]
    assert (scores.kept, scores.summary) == ([("100.00", "0.00")], "kept: epoch 3 (10.0)")


def test_the_kept_epoch_belongs_to_the_phase_whose_weights_were_kept() -> None:
    members = [
        Member(1, "a" * 64, {"best": {"epoch": 4, "loss": 2.0}}),
        Member(2, "b" * 64, {"best": {"epoch": 9, "reward": 80.0}}),
        Member(3, "c" * 64, {}),
    ]
    assert kept_epochs(members) == ({1: 4}, {2: 9})
    (losses, _) = learning_curves([HistoryRow(2, 1, 4, 3, 0)], {})
    assert (losses.kept, losses.summary) == ([], "no epoch of this phase was kept")


def test_a_single_epoch_is_drawn_and_losses_that_are_not_finite_are_left_out() -> None:
    assert learning_curves([], {}) == []
    infinite = [HistoryRow(7, 1, math.nan, 3, 1), HistoryRow(7, 2, math.inf, 1, 1)]
    assert learning_curves(infinite, {7: 1}) == []
    rows = [HistoryRow(7, 1, 2.5, 2.5, 3), HistoryRow(7, 2, math.nan, math.nan, 9)]
    for chart in learning_curves(rows, {7: 1}):
        assert chart.summary.startswith("kept: epoch 1 ")
        assert not any("nan" in line for series in chart.series for line in series.lines)


def test_each_seed_has_a_line_of_its_own() -> None:
    rows = [HistoryRow(1, 1, 4, 3, 0), HistoryRow(1, 2, 2, 2, 5), HistoryRow(2, 1, 3, 3, 9)]
    losses, scores = learning_curves(rows, {1: 2, 2: 1})
    assert [len(series.lines) for series in losses.series] == [2, 2]
    assert [line.count(",") for line in losses.series[0].lines] == [2, 1]
    assert len(scores.kept) == 2
    assert scores.summary == "kept: epoch 2 of seed 1 (5.0), epoch 1 of seed 2 (9.0)"


def test_self_critical_training_has_a_chart_if_there_was_such_a_phase(tmp_path: Path) -> None:
    path = history(tmp_path, SELF_CRITICAL_HEADER)
    assert self_critical_curves(read_history(path), {}) == []
    text = f"{SELF_CRITICAL_HEADER}7,1,30,3,20\n7,2,40,3,24\n"
    (chart,) = self_critical_curves(read_history(history(tmp_path, text)), {7: 2})
    assert [series.kind for series in chart.series] == ["training", "validation"]
    assert chart.summary == "kept: epoch 2 (24.0)"
