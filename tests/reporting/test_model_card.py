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
    same = ["a dog runs"]
    assert not any(line.startswith(warning) for line in card(evaluation(GOOD * 10, times=10)))
    assert any(line.startswith(warning) for line in card(evaluation(same * 30, times=10)))


def test_the_card_of_few_photos_says_so_and_nothing_else() -> None:
    few = "3 test photos cannot show how good the model is"
    interval = "| CIDEr-D, 95 % interval over photos |"
    lines = card(evaluation(["a dog runs"] * 3))
    assert any(line.startswith(few) for line in lines)
    assert not any(line.startswith((interval, "**")) for line in lines)
    enough = card(evaluation(GOOD * 10, times=10))
    assert not any("cannot show" in line for line in enough)
    assert any(line.startswith(interval) for line in enough)


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


def test_text_that_hides_or_reorders_itself_is_visible() -> None:
    result = replace(evaluation(GOOD), provenance={"split": "a\u202egpj.\x1b[2J"})
    text = model_card(result, MODEL)
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert r"a\\u202egpj.\\x1b\[2J" in text
