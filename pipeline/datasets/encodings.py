"""Encodings of text: UTF-8 with slips, and which others could fit if it is not UTF-8.

Every byte string is valid in some single-byte encoding, so that the right one cannot be proven:
the user has to recognise the text.
"""

import codecs
import re
import unicodedata
from dataclasses import dataclass

_NON_ASCII = re.compile(rb"[\x80-\xff]+")
# A file is in another encoding if at least this many stretches of non-ASCII bytes are not UTF-8,
# which are at least this share of all of them, and at least this share of the file's bytes. What
# is less are slips, for example a few captions pasted from elsewhere.
_FEWEST_STRETCHES = 3
_SHARE_OF_STRETCHES = 0.9
_SHARE_OF_BYTES = 0.001
_SAMPLE_BYTES = 1 << 16
_EXAMPLE_LENGTH = 30  # characters
_SUGGESTIONS = 5
_MAX_ACCENTS = 3  # side by side in a word of Latin letters

# Python's name and iconv's, the more frequent first.
_CANDIDATES = (
    ("cp1252", "CP1252"),
    ("cp1251", "CP1251"),
    ("shift_jis", "SHIFT_JIS"),
    ("gb18030", "GB18030"),
    ("big5", "BIG5"),
    ("euc_kr", "EUC-KR"),
    ("euc_jp", "EUC-JP"),
    ("koi8_r", "KOI8-R"),
    ("cp1250", "CP1250"),
    ("cp1253", "CP1253"),
    ("cp1254", "CP1254"),
    ("cp1255", "CP1255"),
    ("cp1256", "CP1256"),
    ("latin_1", "ISO-8859-1"),
    ("mac_roman", "MACINTOSH"),
    ("cp437", "CP437"),
)


@dataclass(frozen=True)
class EncodingGuess:
    """An encoding in which a text would read well.

    Attributes:
        name: iconv's name of the encoding.
        example: a line with non-ASCII characters, decoded.
    """

    name: str
    example: str


def without_mark(data: bytes) -> str | None:
    """Return the UTF-16 or UTF-32 encoding of a text without a byte order mark; None if neither.

    The line ends, spaces and file names of any language have NUL bytes in fixed places there.
    """
    sample = data[: _SAMPLE_BYTES & ~3]
    if len(sample) < 8 or len(data) % 2:  # noqa: PLR2004  (two characters of UTF-32)
        return None
    nuls = [sample[offset::4].count(0) * 4 / len(sample) for offset in range(4)]
    if min(nuls[2:]) > 0.9 and nuls[0] < 0.1:  # noqa: PLR2004
        return "utf-32-le"
    if min(nuls[:2]) > 0.9 and nuls[3] < 0.1:  # noqa: PLR2004
        return "utf-32-be"
    even, odd = (nuls[0] + nuls[2]) / 2, (nuls[1] + nuls[3]) / 2
    # Even Chinese captions have a file name of ten characters for each forty of text.
    if odd > 0.1 and even < odd / 10:  # noqa: PLR2004
        return "utf-16-le"
    if even > 0.1 and odd < even / 10:  # noqa: PLR2004
        return "utf-16-be"
    return None


def is_not_utf8(data: bytes) -> bool:
    """Return whether a text is in another encoding than UTF-8, rather than damaged in places."""
    stretches = wrong = wrong_bytes = 0
    for match in _NON_ASCII.finditer(data):
        stretches += 1
        try:
            match[0].decode("utf-8")
        except UnicodeDecodeError:
            wrong += 1
            wrong_bytes += len(match[0])
    return (
        wrong >= _FEWEST_STRETCHES
        and wrong >= _SHARE_OF_STRETCHES * stretches
        and wrong_bytes >= _SHARE_OF_BYTES * len(data)
    )


def guess_encodings(data: bytes) -> list[EncodingGuess]:
    """Return the encodings in which a text reads best, the best first, each with an example."""
    lines = [line for line in re.split(rb"[\r\n]+", data) if _NON_ASCII.search(line)]
    sample = b"\n".join(lines)[:_SAMPLE_BYTES]
    ranked: list[tuple[float, int, EncodingGuess]] = []
    seen: set[str] = set()
    for position, (codec, name) in enumerate(_CANDIDATES):
        try:
            # The sample may end within a character.
            text = codecs.getincrementaldecoder(codec)().decode(sample)
        except UnicodeDecodeError:
            continue
        if text not in seen:
            seen.add(text)
            ranked.append((_oddness(text), position, EncodingGuess(name, _example(text))))
    return [guess for *_, guess in sorted(ranked, key=lambda entry: entry[:2])[:_SUGGESTIONS]]


def decode_utf8(data: bytes) -> str:
    """Decode UTF-8; bytes that are not UTF-8 become their Windows-1252 characters, one by one."""
    return data.decode("utf-8", errors="windows_1252")


def _oddness(text: str) -> float:
    """Return the share of non-ASCII characters that are strange where they stand."""
    odd = total = run = 0
    previous = " "
    for character in text:
        run = 0 if character.isascii() else run + 1
        if run:
            total += 1
            is_row_of_accents = run > _MAX_ACCENTS and _script(character) == "LATIN"
            odd += is_row_of_accents or _is_odd(character, previous)
        previous = character
    return odd / max(total, 1)


def _is_odd(character: str, previous: str) -> bool:
    category = unicodedata.category(character)
    if category not in {"Lu", "Ll", "Lo", "Mn", "Pd", "Pi", "Pf", "Po"}:
        return True  # symbols and control characters
    if category == "Lu" and previous.islower():
        return True  # a capital within a word
    both_letters = character.isalpha() and previous.isalpha()
    return both_letters and _script(character) != _script(previous)


def _script(letter: str) -> str:
    script = unicodedata.name(letter, "?").split(" ", 1)[0].split("-", 1)[0]
    # Japanese mixes three scripts; half-width letters are what other encodings are mistaken for.
    return "CJK" if script in {"HIRAGANA", "KATAKANA"} else script


def _example(text: str) -> str:
    line = text.split("\n", 1)[0]
    start = next((index for index, letter in enumerate(line) if not letter.isascii()), 0)
    return line[max(0, start - 5) : start + _EXAMPLE_LENGTH - 5].strip()


def _replace_by_windows_1252(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    wrong = error.object[error.start : error.end]
    # Five bytes are undefined in Windows-1252.
    text = "".join(
        bytes([byte]).decode("latin-1" if byte in b"\x81\x8d\x8f\x90\x9d" else "cp1252")
        for byte in wrong
    )
    return text, error.end


codecs.register_error("windows_1252", _replace_by_windows_1252)
