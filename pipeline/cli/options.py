"""Options that several commands share, and option types beyond click's own."""

import math
from collections.abc import Callable
from typing import Any

import click

Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def combine_options(*options: Decorator) -> Decorator:
    """Return a decorator that adds several options to a command, in this order."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


# Which captions `score` and `compare` use.
pairing_options = combine_options(
    click.option("--split", help="Which references to use, if the file has several splits."),
    click.option("--subset", is_flag=True, help="Leave out photos that one of the files lacks."),
)


class FiniteFloatRange(click.FloatRange):
    """A finite number in a range: click lets "nan" pass every range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number; fail with a usage error if it is not finite."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number
