"""The one error a user is meant to read: it names the thing and the mend."""

import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class InputError(Exception):
    """Something the user gave is unusable.

    The message is one line: the file (with row or key where there is one), what is
    wrong with it, and what to do. It is shown as it stands, without a traceback.
    """

    def __init__(self, message: str) -> None:
        # It may name a stranger's file.
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """Return text that may have line breaks, or orders to a terminal, as one plain line."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def collapsed(error: Exception) -> str:
    """Return what an error says, over several lines perhaps, as a phrase."""
    return " ".join(str(error).split())
