"""A self-contained HTML page: one template, the shared style and one script."""

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.reporting.visible_text import visible_value

_PACKAGE = "pipeline.reporting"


def render_page(
    template: str,
    scripts: Sequence[str],
    values: Mapping[str, Any],
    filters: Mapping[str, Callable[..., Any]] = MappingProxyType({}),
) -> str:
    """Return a page; all text in `values` is escaped and visible.

    Args:
        template: a template of this package, which contains `style` and `script`.
        scripts: files of this package that make up the page's one script, in order.
        values: the template's other values.
        filters: filters that the template uses.
    """
    script = "".join(map(_source, scripts))
    environment = Environment(
        loader=PackageLoader(_PACKAGE, ""),
        autoescape=True,
        finalize=visible_value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    return environment.get_template(template).render(
        values, style=_source("report.css"), script=script, script_sha256=_csp_digest(script)
    )


def _source(name: str) -> str:
    """Return a file of this package as it is; it holds no untrusted text."""
    return files(_PACKAGE).joinpath(name).read_text("utf-8")


def _csp_digest(script: str) -> str:
    """Return the digest by which the Content-Security-Policy allows the page's one script."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return base64.b64encode(digest).decode("ascii")
