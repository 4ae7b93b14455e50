"""The error for unusable input: its message names the cause and the fix."""

import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class InputError(Exception):
    """Something the user provided is unusable.

    The message is one line: the file (with row or key if there is one), what is wrong with
    it, and how to fix it. It is shown unchanged, without a traceback.
    """

    def __init__(self, message: str) -> None:
        # The message may contain a file name from an untrusted source.
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """Return text on one line, with line breaks and terminal control characters escaped."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def collapsed_message(error: Exception) -> str:
    """Return the message of an error with line breaks and repeated spaces collapsed."""
    return " ".join(str(error).split())
