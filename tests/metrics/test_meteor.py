import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.metrics import meteor as module
from pipeline.metrics.meteor import meteor
from pipeline.metrics.tokenizer import tokenize

PUBLISHED = Path(__file__).parents[2].parent / "shared" / "coco_caption"

needs_java = pytest.mark.skipif(
    module._jar() is None or shutil.which("java") is None,
    reason="needs Java and the extra `meteor`",
)

# Answers a caption with its length, and all captions with the mean of their answers.
COUNTING = """
import sys

for line in sys.stdin:
    print(line, end="", file=sys.stderr)
    order, *rest = line.rstrip("\\n").split(" ||| ")
    if order == "SCORE":
        print(len(rest[-1].split()), "0.0", flush=True)
    else:
        found = [float(answer.split()[0]) for answer in rest]
        print(*found, sum(found) / len(found), sep="\\n", flush=True)
"""

Install = Callable[[str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return what puts a program in the place of Java."""

    def put(program: str) -> None:
        java = tmp_path / "java"
        java.write_text(f"#!{sys.executable}\n{program}", encoding="utf-8")
        java.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(module, "_jar", lambda: Path("meteor-1.5.jar"))

    return put


def test_the_corpus_score_is_the_last_answer(install: Install) -> None:
    install(COUNTING)
    groups = [[["a", "dog"], ["dogs"]], [["cat"]]]
    assert meteor([["a", "dog"], ["a", "cat", "sits"]], groups) == 250


def test_a_question_has_the_references_then_the_candidate(install: Install) -> None:
    install(
        "import sys\nline = sys.stdin.readline()\n"
        "sys.exit(line != 'SCORE ||| a dog ||| dogs ||| d\\u00f6g\\n')"
    )
    with pytest.raises(InputError, match="no answer"):
        meteor([["dög"]], [[["a", "dog"], ["dogs"]]])


@pytest.mark.parametrize("tokens", [["a", "|||", "dog"], ["a|||dog"], ["a\n", "dog"]])
def test_a_caption_never_breaks_its_line(install: Install, tokens: list[str]) -> None:
    install(COUNTING)
    assert meteor([tokens], [[tokens]]) == 200


def test_long_captions_and_many_do_not_block(install: Install) -> None:
    install(COUNTING)
    caption = ["dog"] * 100_000
    assert meteor([caption] * 3 + [["dog"]] * 3_000, [[caption]] * 3 + [[["dog"]]] * 3_000)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("raise SystemExit('no memory')", "no memory"),
        ("import sys; sys.stdin.close(); print('no memory', file=sys.stderr)", "no memory"),
        ("input(); print('Error: what?')", "Error"),
        ("input(); print('1.0 2.0', flush=True); input()", "no answer"),
    ],
)
def test_a_failing_java_is_told(install: Install, program: str, said: str) -> None:
    install(program)
    with pytest.raises(InputError, match=said):
        meteor([["dog"]], [[["dog"]]])


def test_without_java_or_the_package_there_is_no_score(
    install: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(COUNTING)
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert meteor([["dog"]], [[["dog"]]]) is None
    monkeypatch.undo()
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    assert meteor([["dog"]], [[["dog"]]]) is None


def test_candidates_and_references_have_to_pair(install: Install) -> None:
    install(COUNTING)
    with pytest.raises(ValueError, match="longer"):
        meteor([["dog"]], [[["dog"]], [["cat"]]])
    with pytest.raises(ValueError, match="has to be a candidate"):
        meteor([], [])


@needs_java
def test_a_caption_that_is_its_reference_scores_full() -> None:
    caption = tokenize("a brown dog runs across the wide green field")
    assert meteor([caption], [[caption]]) == pytest.approx(100, abs=0.01)


@needs_java
@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="needs ../shared/coco_caption")
def test_it_is_the_published_figure() -> None:
    references = json.loads((PUBLISHED / "references.json").read_text(encoding="utf-8"))
    candidates = json.loads((PUBLISHED / "candidates.json").read_text(encoding="utf-8"))
    score = meteor(
        [tokenize(candidates[name]) for name in references],
        [[tokenize(caption) for caption in group] for group in references.values()],
    )
    assert score == pytest.approx(19.48, abs=0.01)
