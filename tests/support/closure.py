"""The import closure of a module: the project files that running it reads."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]


def closure(module: str) -> set[str]:
    """Return the project files that `module` imports, itself included, as POSIX paths.

    `__init__.py` files are left out: they hold no code, as tests/test_dvc_yaml.py asserts.
    """
    seen: set[str] = set()
    queue = [module]
    while queue:
        name = queue.pop()
        path = ROOT / f"{name.replace('.', '/')}.py"
        if name in seen or not path.is_file():
            continue
        seen.add(name)
        queue += _imports(path)
    return {f"{name.replace('.', '/')}.py" for name in seen}


def _imports(path: Path) -> Iterator[str]:
    """Yield the imports of a file, at the top or in a function; some names may be attributes."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
