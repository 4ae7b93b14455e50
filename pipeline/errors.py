"""The error for unusable input: its message names the cause and the fix."""

import re

# Control characters of terminals, line and paragraph separators, marks that change the direction
# of text (Boucher and Anderson 2021, "Trojan Source"), byte order marks, and surrogates, which no
# encoding can write. Joiners (U+200C, U+200D) stay: Persian, Hindi and emoji need them.
_UNPRINTABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


class InputError(Exception):
    """Something the user provided is unusable.

    The message is one line: the file (with row or key if there is one), what is wrong with
    it, and how to fix it. It is shown unchanged, without a traceback.
    """

    def __init__(self, message: str) -> None:
        # The message may contain a file name from an untrusted source.
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """Return text as one line that is safe to print, with everything else in it escaped.

    For all text that comes from files: names, captions, words, reasons.
    """
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def collapsed_message(error: Exception) -> str:
    """Return the message of an error with line breaks and repeated spaces collapsed."""
    return " ".join(str(error).split())
