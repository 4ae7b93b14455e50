"""Untrusted text in pages: characters that hide or reorder text are shown as escapes."""

import json
import re
from typing import Any

from markupsafe import Markup

# Control characters (a page shows none of them), characters that reorder or hide the text after
# them (Unicode TR36, "Unicode security considerations", 2.9.2), and half surrogates, which UTF-8
# cannot encode. White space stays, and so do the joiners and direction marks of many scripts.
_INVISIBLE = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
    r"\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    r"""Return text with invisible characters as escapes, like "\u202e"."""
    return _INVISIBLE.sub(
        lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), text
    )


def visible_value(value: Any) -> Any:
    """Return a value of a template, with text made visible; markup of our own is unchanged."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def json_for_script(value: Any) -> str:
    """Return a value as JSON that is safe inside a script element, whatever text it holds."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # Without these characters no text can end the element or begin a comment in it.
    for character in "&<>":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
