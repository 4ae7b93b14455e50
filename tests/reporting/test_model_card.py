from dataclasses import replace

from pipeline.captioner.model_config import DecoderConfig, Member, ModelConfig
from pipeline.reporting.baselines import CONSTANT_CAPTION, Baseline
from pipeline.reporting.evaluation import Evaluation
from pipeline.reporting.model_card import model_card
from tests.conftest import ENCODING
from tests.reporting.test_evaluation import GOOD, evaluation
from tests.support.report import FLAT

MODEL = ModelConfig(
    DecoderConfig("merge", 99, (2048,), 256, 128, 0.5, 0.5),
    (Member(7, "c" * 64, {}),),
    ENCODING,
    "d" * 64,
    {"params": {"units": 128, "decoder": "merge"}},
)


def card(found: Evaluation) -> list[str]:
    return model_card(found, MODEL).splitlines()


def test_it_tells_the_scores_beside_what_they_are_worth() -> None:
    found = evaluation(GOOD, GOOD)
    lines = card(found)
    assert lines[0] == "# Model card: an image captioner"
    rows = [line.split(" | ") for line in lines if line.startswith("| ")]
    names = [row[0].removeprefix("| ") for row in rows]
    assert {"greedy", r"beam\_3", "random captions", "shuffled features"} <= {*names}
    (greedy,) = (row for row in rows if row[0] == "| greedy")
    assert greedy[-1] == f"{found.searches['greedy'].corpus['CIDEr-D']:.2f} |"
    assert "| METEOR 1.5 | n/a |" in lines
    assert "| units | 128 |" in lines


def test_it_warns_of_a_model_that_does_not_look() -> None:
    warning = "**The model hardly looks**"
    assert not any(line.startswith(warning) for line in card(evaluation(GOOD)))
    assert any(line.startswith(warning) for line in card(evaluation(["a dog runs"] * 3)))


def test_a_strangers_text_stays_text() -> None:
    found = replace(
        evaluation(GOOD),
        baselines=[Baseline(CONSTANT_CAPTION, FLAT, "<b>*x*</b> | [y](z)")],
        provenance={"split": "a|b\n# c"},
    )
    text = model_card(found, MODEL)
    assert r"constant caption “\<b\>\*x\*\</b\> \| \[y\](z)”" in text
    assert r"a\|b \# c" in text
    assert "\n# c" not in text
