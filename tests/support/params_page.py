"""docs/params.md, generated from pipeline/params.py and params.yaml: `make docs`."""

from collections.abc import Iterator
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from ruamel.yaml import YAML

from pipeline.params import Params
from tests.support.closure import ROOT

_HEAD = """# Params

Every key of params.yaml: its default, the values it takes, and what it does. A stage reruns when a
key of a section that it tracks changes; `runtime` changes no result, and no stage tracks it.
This page is generated from `pipeline/params.py`: `make docs`.
"""
_KINDS = {int: "integer", float: "number", bool: "true, false", str: "text"}


def params_page() -> str:
    """Return the page as Markdown."""
    defaults = YAML(typ="safe").load((ROOT / "params.yaml").read_text("utf-8"))
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text("utf-8"))["stages"]
    lines = [_HEAD]
    for section, field in Params.model_fields.items():
        model: Any = field.annotation
        tracking = [name for name, stage in stages.items() if section in stage["params"]]
        lines += [
            f"## {section}",
            "",
            _one_line(model.__doc__),
            f"Tracked by: {', '.join(tracking) or 'no stage'}.",
            "",
            "| key | default | values | meaning |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| `{key}` | `{_yaml(defaults[section][key])}` | {_values(info)} | "
            f"{_one_line(info.description or '')} |"
            for key, info in model.model_fields.items()
        ]
        lines.append("")
    return "\n".join(lines)


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def _yaml(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "null" if value is None else str(value).lower()
    return str(value)


def _values(info: Any) -> str:
    """Describe the values that a key takes: its type and its bounds."""
    annotation, bounds = info.annotation, list(_bounds(info.metadata))
    options = [kind for kind in get_args(annotation) if kind is not NoneType]
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{option}`" for option in options)
    if get_origin(annotation) is list:
        return f"list of {_inner(options[0])}"
    if NoneType in get_args(annotation):
        return f"{_inner(options[0])}; null"
    return " ".join([_KINDS[annotation], *bounds])


def _inner(kind: Any) -> str:
    base, *metadata = get_args(kind) or (kind,)
    return " ".join([_KINDS[base], *_bounds(metadata)])


def _bounds(metadata: Any) -> Iterator[str]:
    """Yield the bounds of a value; pydantic keeps them as annotated-types, or in a Field."""
    for bound in metadata:
        match bound:
            case Ge(ge):
                yield f"≥ {ge}"
            case Gt(gt):
                yield f"> {gt}"
            case Le(le):
                yield f"≤ {le}"
            case Lt(lt):
                yield f"< {lt}"
            case MinLen():
                pass
            case _ if hasattr(bound, "metadata"):
                yield from _bounds(bound.metadata)


if __name__ == "__main__":
    (ROOT / "docs" / "params.md").write_text(params_page(), "utf-8")
