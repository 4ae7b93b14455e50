from dataclasses import replace

from pipeline.captioner.model_config import DecoderConfig, Member, ModelConfig
from pipeline.reporting.baselines import CONSTANT_CAPTION, Baseline
from pipeline.reporting.evaluation import Evaluation
from pipeline.reporting.model_card import model_card
from tests.conftest import FEATURE_SPEC
from tests.reporting.test_evaluation import GOOD, evaluation
from tests.support.report import FLAT

MODEL = ModelConfig(
    DecoderConfig("merge", 99, (2048,), 256, 128, 0.5, 0.5),
    (Member(7, "c" * 64, {}),),
    FEATURE_SPEC,
    "d" * 64,
    {"params": {"units": 128, "decoder": "merge"}},
)


def card(result: Evaluation) -> list[str]:
    return model_card(result, MODEL).splitlines()


def test_the_card_has_the_scores_and_the_baselines() -> None:
    result = evaluation(GOOD, GOOD)
    lines = card(result)
    assert lines[0] == "# Model card: an image captioner"
    rows = [line.split(" | ") for line in lines if line.startswith("| ")]
    names = [row[0].removeprefix("| ") for row in rows]
    assert {"greedy", r"beam\_3", "random captions", "shuffled features"} <= {*names}
    (greedy,) = (row for row in rows if row[0] == "| greedy")
    assert greedy[-1] == f"{result.searches['greedy'].corpus['CIDEr-D']:.2f} |"
    assert "| METEOR 1.5 | n/a |" in lines
    assert "- human agreement: one reference scored against the photo's other references" in lines
    assert "| units | 128 |" in lines


def test_the_card_warns_if_the_model_hardly_uses_the_image() -> None:
    warning = "**The model hardly uses the image**"
    assert not any(line.startswith(warning) for line in card(evaluation(GOOD)))
    assert any(line.startswith(warning) for line in card(evaluation(["a dog runs"] * 3)))


def test_untrusted_text_is_escaped() -> None:
    result = replace(
        evaluation(GOOD),
        baselines=[Baseline(CONSTANT_CAPTION, FLAT, "<b>*x*</b> | [y](z)")],
        provenance={"split": "a|b\n# c"},
    )
    text = model_card(result, MODEL)
    assert r"constant caption “\<b\>\*x\*\</b\> \| \[y\](z)”" in text
    assert r"a\|b \# c" in text
    assert "\n# c" not in text
