import importlib.metadata

import click
import pytest
from click.testing import CliRunner

from pipeline.cli.main import main
from tests.conftest import slow_imports


def test_help_imports_neither_numpy_nor_keras() -> None:
    commands = [[], *([name] for name in main.commands)]
    code = "from pipeline.cli.main import main\n" + "\n".join(
        f"main({[*command, '--help']}, standalone_mode=False)" for command in commands
    )
    output, modules = slow_imports(code)
    assert output.count("Usage: ") == len(commands)
    assert modules == []


@pytest.mark.parametrize("name", main.commands)
def test_every_command_and_option_has_help_and_every_command_an_example(name: str) -> None:
    assert main.help
    assert "image" in main.commands
    options = [p for p in main.commands[name].params if isinstance(p, click.Option)]
    assert all(option.help for option in options)
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    examples = result.stdout.partition("\n  Examples:\n")[2].partition("\n\n")[0]
    # Each is one line, ready to be typed.
    assert examples
    assert all(line.count(f"caption {name}") == 1 for line in examples.splitlines())
    assert "\\b" not in result.stdout
    assert CliRunner().invoke(main, [name, "-h"]).stdout == result.stdout


def test_the_list_of_commands_cuts_no_line_off() -> None:
    output = CliRunner().invoke(main, ["--help"], terminal_width=80).stdout
    commands = output.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in commands] == sorted(main.commands)
    assert all(line.endswith(".") and not line.endswith("...") for line in commands)


@pytest.mark.parametrize("name", main.commands)
def test_help_fits_a_terminal_of_80_columns(name: str) -> None:
    output = CliRunner().invoke(main, [name, "--help"], terminal_width=80).stdout
    assert max(map(len, output.splitlines())) <= 80


def test_version_is_that_of_the_package() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert importlib.metadata.version("caption-pipeline") in result.stdout
    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(24, "Too many open files", "a"), 1, "Error: a: Too many open files: raise"),
        (MemoryError(), 1, "Error: there is not enough memory: "),
    ],
)
def test_an_interrupt_and_errors_of_the_system_are_one_line(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, line: str
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(main.commands["inspect"], "callback", fail)
    result = CliRunner().invoke(main, ["inspect", "a.h5"])
    assert result.exit_code == code
    assert result.stderr.startswith(line)
    assert result.stderr.count("\n") == 1
