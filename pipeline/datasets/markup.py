"""Markup: captions that are not plain text, or have the markers of another tool."""

import re
from collections.abc import Sequence

from pipeline.datasets.annotations import Annotation, Summary

_SHARE = 0.5  # of the captions; a few may be about markup
_MAX_LENGTH = 10_000  # characters of a caption that are looked at
_MARKUP = re.compile(
    r"""
    </?[a-z][a-z0-9]*(?:\s[^<>]{0,500})?/?> # HTML, XML, <start>, <unk>, <s>
    | \b(?:startseq|endseq)\b               # the markers of many tutorials
    | \[(?:cls|sep|pad|mask|unk|start|end)\]
    | <\|[a-z_]{1,40}\|>
    | \#[0-9]{1,2}(?:\s|$)                  # a token file's caption number
    | \\[a-z]{2,20}\{ | \$[^$\s]{0,100}[\\^_][^$]{0,100}\$ # LaTeX
    | &(?:amp|lt|gt|quot|\#[0-9]{1,6});
    | https?://
    | ^\s*[\[{]\s*["'{\[]                   # JSON
    """,
    re.IGNORECASE | re.VERBOSE,
)


def note_markup(summary: Summary, rows: Sequence[Annotation]) -> None:
    """Note in `summary` how many captions have markup, if most have."""
    marked = [row for row in rows if _MARKUP.search(row.raw[:_MAX_LENGTH])]
    if len(marked) > _SHARE * len(rows):
        summary.note("markup", marked[0].image_id, marked[0].raw, len(marked))
