"""Runs `caption image` in this process, and reads its output."""

import json
from typing import Any

from click.testing import CliRunner, Result

from pipeline.cli.main import main


def image(*arguments: object, data: bytes = b"") -> Result:
    """Run `caption image` in this process."""
    return CliRunner().invoke(main, ["image", *map(str, arguments)], input=data)


def lines(result: Result) -> list[list[str]]:
    """Return the lines of standard output, each as [name, caption]."""
    return [line.split("\t") for line in result.stdout.splitlines()]


def captions(result: Result) -> list[str]:
    """Return the captions on standard output."""
    return [caption for _, caption in lines(result)]


def objects(result: Result) -> list[dict[str, Any]]:
    """Return the lines of standard output as JSON objects."""
    return [json.loads(line) for line in result.stdout.split("\n")[:-1]]


def succeeded(result: Result) -> None:
    """Assert exit code 0 and nothing on standard error."""
    assert (result.exit_code, result.stderr) == (0, "")


def failed(result: Result, *messages: str) -> None:
    """Assert exit code 1 and exactly these lines on standard error."""
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == list(messages)
