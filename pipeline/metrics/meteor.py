"""METEOR 1.5 (Denkowski and Lavie, 2014), computed by its authors' Java, as in coco-caption.

Its scores cannot be computed in another way: they depend on a paraphrase table that ships with the
Java program. The package pycocoevalcap (the extra `meteor`) contains both.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import IO

from pipeline.errors import InputError
from pipeline.metrics.ngrams import Tokens
from pipeline.progress import track

_SEPARATOR = " ||| "


def meteor(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> float | None:
    """Return the corpus METEOR of the candidates, x100; None without Java or the package.

    Args:
        candidates: one caption per image, as `tokenize` returns it.
        references: for each image its references, likewise.

    Raises:
        InputError: the Java program fails.
        ValueError: there are no candidates, or not one for each image.
    """
    if not candidates:
        raise ValueError("there must be at least one candidate")
    jar, java = _find_jar(), shutil.which("java")
    if jar is None or java is None:
        return None
    requests = [
        _SEPARATOR.join(["SCORE", *map(_join_tokens, group), _join_tokens(candidate)])
        for candidate, group in zip(candidates, references, strict=True)
    ]
    command = [java, "-Dfile.encoding=UTF-8", "-Xmx2G", "-jar", jar]
    command += ["-", "-", "-stdio", "-l", "en", "-norm"]
    # Java's errors go to a file: nobody would read a pipe in the meantime, and it could fill up.
    with tempfile.TemporaryFile("w+", errors="replace") as java_errors:
        try:
            tracked = track(requests, "METEOR", len(requests), "captions")
            return 100 * _run_meteor(command, tracked, java_errors)
        except (BrokenPipeError, ValueError) as error:
            java_errors.seek(0)
            reason = java_errors.readline().strip() or str(error)
            raise InputError(f"{jar}: METEOR fails: {reason}: try {java} -jar on it") from error


def _find_jar() -> str | None:
    """Return the path of METEOR's jar in the package; None if it is not installed."""
    try:
        jar = files("pycocoevalcap") / "meteor" / "meteor-1.5.jar"
    except ModuleNotFoundError:
        return None
    return str(jar) if jar.is_file() else None


def _join_tokens(tokens: Iterable[str]) -> str:
    """Return tokens as METEOR reads them: one line, without the separator between captions."""
    return " ".join(" ".join(tokens).replace("|||", " ").split())


def _run_meteor(command: Sequence[str], requests: Iterable[str], java_errors: IO[str]) -> float:
    """Return the corpus score, 0 to 1.

    Args:
        command: starts METEOR in its interactive mode.
        requests: one line per caption that requests its statistics.
        java_errors: the file for Java's standard error.

    Raises:
        BrokenPipeError: the program ends early.
        ValueError: it answers with something other than numbers.
    """
    with subprocess.Popen(  # noqa: S603  (our own arguments; captions go through the pipe)
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=java_errors,
        encoding="utf-8",
    ) as process:
        if process.stdin is None or process.stdout is None:
            raise ValueError("no pipes")
        statistics = []
        # Each request is followed by its answer, so that the two sides never both block on a write.
        for request in requests:
            print(request, file=process.stdin, flush=True)
            statistics.append(process.stdout.readline().strip())
            _parse_numbers(statistics[-1])
        print(_SEPARATOR.join(["EVAL", *statistics]), file=process.stdin, flush=True)
        for _ in statistics:  # a score for each caption, then that of the corpus
            _parse_numbers(process.stdout.readline())
        return _parse_numbers(process.stdout.readline())[0]


def _parse_numbers(line: str) -> list[float]:
    """Return the numbers of an answer; raise ValueError if it has none, or anything else."""
    numbers = [float(word) for word in line.split()]
    if not numbers:
        raise ValueError("no answer")
    return numbers
