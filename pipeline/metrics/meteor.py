"""METEOR 1.5 (Denkowski and Lavie, 2014), by its authors' own Java, as coco-caption runs it.

Nothing else gives its figures: they come from a table of paraphrases that is a part of the
Java program. The package pycocoevalcap (the extra `meteor`) brings both.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from pipeline.errors import InputError
from pipeline.metrics.ngrams import Tokens

_BETWEEN = " ||| "


def meteor(candidates: Sequence[Tokens], groups: Sequence[Sequence[Tokens]]) -> float | None:
    """Return what the candidates score together, x100; None without Java or the package.

    Args:
        candidates: a caption of each photo, as `tokenize` gives it.
        groups: each photo's references, likewise.

    Raises:
        InputError: Java fails.
        ValueError: no candidate, or not one candidate for each group of references.
    """
    if not candidates:
        raise ValueError("there has to be a candidate")
    jar, java = _jar(), shutil.which("java")
    if jar is None or java is None:
        return None
    lines = [
        _BETWEEN.join(["SCORE", *map(_text, group), _text(candidate)])
        for candidate, group in zip(candidates, groups, strict=True)
    ]
    command = [java, "-Dfile.encoding=UTF-8", "-Xmx2G", "-jar", str(jar)]
    command += ["-", "-", "-stdio", "-l", "en", "-norm"]
    # A file takes all that Java complains of; nobody reads a pipe meanwhile.
    with tempfile.TemporaryFile("w+", errors="replace") as complaints:
        try:
            return 100 * _ask(command, lines, complaints)
        except (BrokenPipeError, ValueError) as error:
            complaints.seek(0)
            said = complaints.readline().strip() or str(error)
            raise InputError(f"{jar}: METEOR fails: {said}: try {java} -jar on it") from error


def _jar() -> Path | None:
    """Return where the package keeps METEOR, without importing it; None if it is not there."""
    spec = find_spec("pycocoevalcap")
    for folder in spec.submodule_search_locations or () if spec else ():
        jar = Path(folder, "meteor", "meteor-1.5.jar")
        if jar.is_file():
            return jar
    return None


def _text(tokens: Iterable[str]) -> str:
    """Return tokens as METEOR reads them: one line, without the mark between captions."""
    return " ".join(" ".join(tokens).replace("|||", " ").split())


def _ask(command: Sequence[str], lines: Iterable[str], complaints: IO[str]) -> float:
    """Return the corpus score, 0 to 1, of lines that ask for a caption's statistics each.

    Raises:
        BrokenPipeError: the program has ended early.
        ValueError: it answers with something else than numbers.
    """
    with subprocess.Popen(  # noqa: S603  (our own words; captions go by the pipe)
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=complaints,
        encoding="utf-8",
    ) as java:
        if java.stdin is None or java.stdout is None:
            raise ValueError("no pipes")
        found = []
        # Question, answer, question: neither side ever waits to write while the other does.
        for line in lines:
            print(line, file=java.stdin, flush=True)
            found.append(java.stdout.readline().strip())
            _numbers(found[-1])
        print(_BETWEEN.join(["EVAL", *found]), file=java.stdin, flush=True)
        for _ in found:
            _numbers(java.stdout.readline())
        return _numbers(java.stdout.readline())[0]


def _numbers(answer: str) -> list[float]:
    """Return the numbers of an answer; ValueError if it has something else, or nothing."""
    numbers = [float(word) for word in answer.split()]
    if not numbers:
        raise ValueError("no answer")
    return numbers
