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
    module._find_jar() is None or shutil.which("java") is None,
    reason="needs Java and the extra `meteor`",
)

# Scores a caption by its length, and the corpus by the mean of its captions.
LENGTH_SCORER = """
import sys

for line in sys.stdin:
    print(line, end="", file=sys.stderr)
    request, *arguments = line.rstrip("\\n").split(" ||| ")
    if request == "SCORE":
        print(len(arguments[-1].split()), "0.0", flush=True)
    else:
        scores = [float(statistics.split()[0]) for statistics in arguments]
        print(*scores, sum(scores) / len(scores), sep="\\n", flush=True)
"""

InstallJava = Callable[[str], None]


@pytest.fixture
def install_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InstallJava:
    """Return a function that replaces Java by a Python program."""

    def install(program: str) -> None:
        java = tmp_path / "java"
        java.write_text(f"#!{sys.executable}\n{program}", encoding="utf-8")
        java.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(module, "_find_jar", lambda: "meteor-1.5.jar")

    return install


def test_the_corpus_score_is_the_last_answer(install_java: InstallJava) -> None:
    install_java(LENGTH_SCORER)
    references = [[["a", "dog"], ["dogs"]], [["cat"]]]
    assert meteor([["a", "dog"], ["a", "cat", "sits"]], references) == 250


def test_a_request_has_the_references_and_then_the_candidate(install_java: InstallJava) -> None:
    install_java(
        "import sys\nline = sys.stdin.readline()\n"
        "sys.exit(line != 'SCORE ||| a dog ||| dogs ||| d\\u00f6g\\n')"
    )
    with pytest.raises(InputError, match="no answer"):
        meteor([["dög"]], [[["a", "dog"], ["dogs"]]])


def test_java_reads_captions_as_utf_8(install_java: InstallJava) -> None:
    program = "import sys\nassert '-Dfile.encoding=UTF-8' in sys.argv, sys.argv\n"
    install_java(program + LENGTH_SCORER)
    assert meteor([["dög"]], [[["a", "dog"]]]) == 100


@pytest.mark.parametrize("tokens", [["a", "|||", "dog"], ["a|||dog"], ["a\n", "dog"]])
def test_a_request_is_always_one_line(install_java: InstallJava, tokens: list[str]) -> None:
    install_java(LENGTH_SCORER)
    assert meteor([tokens], [[tokens]]) == 200


def test_many_and_long_captions_do_not_block(install_java: InstallJava) -> None:
    install_java(LENGTH_SCORER)
    caption = ["dog"] * 100_000
    assert meteor([caption] * 3 + [["dog"]] * 3_000, [[caption]] * 3 + [[["dog"]]] * 3_000)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("raise SystemExit('no memory')", "no memory"),
        ("import sys; sys.stdin.close(); print('no memory', file=sys.stderr)", "no memory"),
        ("input(); print('Error: what?')", "Error"),
        ("input(); print('1.0 2.0', flush=True); input()", "no answer"),
    ],
)
def test_the_error_of_a_failing_java_is_reported(
    install_java: InstallJava, program: str, reason: str
) -> None:
    install_java(program)
    with pytest.raises(InputError, match=reason):
        meteor([["dog"]], [[["dog"]]])


def test_the_score_is_none_without_java_or_the_package(
    install_java: InstallJava, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install_java(LENGTH_SCORER)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert meteor([["dog"]], [[["dog"]]]) is None
    install_java(LENGTH_SCORER)
    assert meteor([["dog"]], [[["dog"]]]) is not None
    monkeypatch.setattr(module, "_find_jar", lambda: None)
    assert meteor([["dog"]], [[["dog"]]]) is None


def test_the_jar_is_found_only_where_the_package_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_package(_: str) -> Path:
        raise ModuleNotFoundError

    monkeypatch.setattr(module, "files", lambda _: tmp_path)
    assert module._find_jar() is None
    (tmp_path / "meteor").mkdir()
    jar = tmp_path / "meteor" / "meteor-1.5.jar"
    jar.touch()
    assert module._find_jar() == str(jar)
    monkeypatch.setattr(module, "files", find_package)
    assert module._find_jar() is None


def test_each_photo_needs_one_candidate(install_java: InstallJava) -> None:
    install_java(LENGTH_SCORER)
    with pytest.raises(ValueError, match="longer"):
        meteor([["dog"]], [[["dog"]], [["cat"]]])
    with pytest.raises(ValueError, match="must be at least one candidate"):
        meteor([], [])


@needs_java
def test_a_caption_equal_to_its_reference_scores_100() -> None:
    caption = tokenize("a brown dog runs across the wide green field")
    assert meteor([caption], [[caption]]) == pytest.approx(100, abs=0.01)


@needs_java
@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="needs ../shared/coco_caption")
def test_the_score_is_that_of_coco_caption() -> None:
    references = json.loads((PUBLISHED / "references.json").read_text(encoding="utf-8"))
    candidates = json.loads((PUBLISHED / "candidates.json").read_text(encoding="utf-8"))
    score = meteor(
        [tokenize(candidates[name]) for name in references],
        [[tokenize(caption) for caption in group] for group in references.values()],
    )
    assert score == pytest.approx(19.48, abs=0.01)
