"""`caption image` in this process, and what it said."""

import json
from typing import Any

from click.testing import CliRunner, Result

from pipeline.cli.main import main


def image(*arguments: object, data: bytes = b"") -> Result:
    """Run `caption image` in this process."""
    return CliRunner().invoke(main, ["image", *map(str, arguments)], input=data)


def lines(result: Result) -> list[list[str]]:
    """Return the lines on standard output, each [name, caption]."""
    return [line.split("\t") for line in result.stdout.splitlines()]


def captions(result: Result) -> list[str]:
    return [caption for _, caption in lines(result)]


def objects(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.split("\n")[:-1]]


def succeeded(result: Result) -> None:
    assert (result.exit_code, result.stderr) == (0, "")


def failed(result: Result, *messages: str) -> None:
    """Assert exit code 1 and these lines, alone, on standard error."""
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == list(messages)
