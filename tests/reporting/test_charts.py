import math
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.reporting.baselines import SHUFFLED_FEATURES, Baseline
from pipeline.reporting.charts import (
    Bar,
    BarChart,
    History,
    of_history,
    of_lengths,
    of_metric,
    of_never_used,
    of_over_used,
    of_rewards,
    read_history,
    ticks,
)
from pipeline.reporting.lengths import LengthGroup
from pipeline.reporting.word_usage import Word
from tests.support.report import BASELINES, evaluation

REFERENCES = {"a": ["a dog runs here", "the dog runs"], "b": ["a cat sat", "one cat"]}
HEADER = "seed,epoch,loss,validation_loss,validation_cider_d\n"
REWARDS = "seed,epoch,reward,validation_loss,validation_cider_d\n"
SAID = {"greedy": ["a cat", "a dog"], "beam_3": ["a dog runs", "a cat sat"]}


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
def test_ticks_are_round_and_reach_beyond(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("high", [10.0**power * x for power in range(-3, 5) for x in (1, 3.3, 9.9)])
def test_ticks_are_few(high: float) -> None:
    found = ticks(0, high)
    assert 2 <= len(found) <= 6
    assert found[0] == 0
    assert found[-2] < high <= found[-1] * (1 + 1e-9)


def test_searches_stand_beside_floors_and_ceiling() -> None:
    found = evaluation(SAID, REFERENCES)
    chart = of_metric(found, "CIDEr-D")
    assert [(row.label, row.kind) for row in chart.rows] == [
        ("greedy", "search"),
        ("beam 3", "headline"),
        ("constant caption", "floor"),
        ("random captions", "floor"),
        ("shuffled features", "shuffled"),
        ("human agreement", "human"),
    ]
    assert chart.lines == {"floor": 1.5, "human": 222.0}
    beam = found.searches["beam_3"]
    assert chart.rows[1].value == beam.corpus["CIDEr-D"]
    assert chart.rows[1].interval == beam.intervals["CIDEr-D"]
    assert chart.rows[5].text == "222.0"


def test_a_blind_model_is_marked_and_what_there_is_not_is_left_out() -> None:
    shuffled = Baseline(SHUFFLED_FEATURES, evaluation(SAID, REFERENCES).searches["beam_3"].corpus)
    chart = of_metric(
        evaluation(SAID, REFERENCES, baselines=[*BASELINES[:2], shuffled]),
        "BLEU-4",
    )
    assert [row.kind for row in chart.rows][2:] == ["floor", "floor", "shuffled failed"]
    assert "human" not in chart.lines
    without = evaluation(SAID, REFERENCES, baselines=[*BASELINES[:2], BASELINES[3]])
    assert len(of_metric(without, "BLEU-4").rows) == 5


def test_everything_has_its_place_in_the_picture() -> None:
    chart = of_metric(evaluation(SAID, REFERENCES), "CIDEr-D")
    values = [row.value for row in chart.rows if row.value is not None]
    values += [end for row in chart.rows if row.interval for end in row.interval]
    assert all(0 <= float(chart.place(value)) <= 100 for value in values)
    assert chart.place(0) == "0.00"
    assert chart.place(chart.ticks[-1]) == "100.00"


def test_rows_of_nothing() -> None:
    assert BarChart("", [], {}).place(0) == "0.00"
    assert BarChart("", [Bar("a", 0.0, "0")], {}).place(0) == "0.00"


def test_lengths_and_words_become_bars() -> None:
    groups = [LengthGroup(4, 4, 1, 10.04, 20.0), LengthGroup(5, 7, 1200, 30.0, 40.0)]
    cider_d, rouge_l = of_lengths(groups)
    assert [(row.label, row.text, row.note) for row in cider_d.rows] == [
        ("4", "10.0", "1 caption"),
        ("5 to 7", "30.0", "1,200 captions"),
    ]
    assert [row.value for row in rouge_l.rows] == [20.0, 40.0]
    words = [Word("shirt", 63, 1021, 8.0)]
    (often,), (never,) = of_over_used(words).rows, of_never_used(words).rows
    assert (often.value, often.text, often.note) == (3.0, "8.0 times", "63 said, 1,021 written")
    assert (never.value, never.text) == (1021, "1,021")


def history(folder: Path, text: str) -> Path:
    path = folder / "history.csv"
    path.write_text(text, "utf-8")
    return path


def test_the_history_is_read(tmp_path: Path) -> None:
    path = history(tmp_path, HEADER + "7,1,3.5,3.25,0.5\n7,2,3.0,nan,1\n")
    first, second = read_history(path)
    assert first == History(7, 1, 3.5, 3.25, 0.5)
    assert second[:3] == (7, 2, 3.0)
    assert math.isnan(second.validation_loss)
    assert read_history(tmp_path / "gone.csv") == []


@pytest.mark.parametrize(
    "text",
    ["", "epoch,loss\n1,2\n", f"{HEADER}7,1,2\n", f"{HEADER}7,a,2,3,4\n", f"{HEADER}7,1,,3,4\n"],
)
def test_a_damaged_history_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"history\.csv cannot be read .*dvc repro train"):
        read_history(history(tmp_path, text))


def test_curves_are_drawn_from_left_to_right_with_the_best_epoch() -> None:
    rows = [History(7, 1, 4, 3, 0), History(7, 2, 2, 2, 5), History(7, 3, 1, 2.5, 10)]
    curves, scores = of_history(rows)
    training, validation = curves.curves
    assert training.lines == ["0.00,0.00 50.00,66.67 100.00,100.00"]
    assert validation.lines == ["0.00,33.33 50.00,66.67 100.00,50.00"]
    assert curves.best == ("50.00", "66.67")
    assert curves.said == "least validation loss: 2.000 at epoch 2"
    assert curves.values[0] == ("4", "0.00")
    assert curves.values[-1] == ("1", "100.00")
    assert curves.epochs == [("1", "0.00"), ("2", "50.00"), ("3", "100.00")]
    assert [curve.lines for curve in scores.curves] == [["0.00,100.00 50.00,50.00 100.00,0.00"]]
    assert (scores.best, scores.said) == (("100.00", "0.00"), "highest: 10.0 at epoch 3")


def test_a_single_epoch_and_losses_that_are_no_numbers() -> None:
    assert of_history([]) == []
    assert of_history([History(7, 1, math.nan, 3, 1), History(7, 2, math.inf, 1, 1)]) == []
    for curves in of_history([History(7, 1, 2.5, 2.5, 3), History(7, 2, math.nan, math.nan, 9)]):
        assert curves.said.endswith("at epoch 1")
        assert not any("nan" in line for curve in curves.curves for line in curve.lines)


def test_each_seed_has_a_line_of_its_own() -> None:
    rows = [History(1, 1, 4, 3, 0), History(1, 2, 2, 2, 5), History(2, 1, 3, 3, 9)]
    losses, scores = of_history(rows)
    assert [len(curve.lines) for curve in losses.curves] == [2, 2]
    assert [line.count(",") for line in losses.curves[0].lines] == [2, 1]
    assert scores.said == "highest: 9.0 at epoch 1, of seed 2"


def test_rewards_have_a_chart_where_there_was_a_second_phase(tmp_path: Path) -> None:
    path = history(tmp_path, REWARDS)
    assert of_rewards(read_history(path)) == []
    (chart,) = of_rewards(read_history(history(tmp_path, f"{REWARDS}7,1,30,3,20\n7,2,40,3,24\n")))
    assert [curve.kind for curve in chart.curves] == ["training", "validation"]
    assert chart.said == "highest: 24.0 at epoch 2"
