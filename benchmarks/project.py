"""A project folder in which benchmarks run stages."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]


def make_project(
    folder: Path, artifacts: Path | None = None, **sections: Mapping[str, Any]
) -> Path:
    """Make a project with this project's code and changed params; return its folder.

    Args:
        folder: an empty folder.
        artifacts: if given, its encoder is copied, with the converted graphs.
        sections: params to change, by section.
    """
    shutil.copytree(
        ROOT / "pipeline", folder / "pipeline", ignore=shutil.ignore_patterns("__pycache__")
    )
    (folder / ".dvc").mkdir()
    for name in ("dvc.yaml", "params.yaml", ".dvcignore", ".dvc/config"):
        shutil.copyfile(ROOT / name, folder / name)
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    params["dataset"]["root"] = "data/mine"
    for section, values in sections.items():
        params[section].update(values)
    yaml.dump(params, folder / "params.yaml")
    if artifacts is not None:
        (folder / "artifacts").mkdir()
        for path in artifacts.glob("encoder*"):
            shutil.copyfile(path, folder / "artifacts" / path.name)
        if (artifacts / ".graphs").is_dir():
            shutil.copytree(artifacts / ".graphs", folder / "artifacts" / ".graphs")
    return folder
