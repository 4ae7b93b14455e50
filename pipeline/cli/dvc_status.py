"""Status: what `dvc repro` would run and why, and how many photos are already computed."""

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.datasets import formats
from pipeline.errors import InputError
from pipeline.features.extractor import digest_photos
from pipeline.features.feature_spec import read_encoder_config
from pipeline.features.shard_cache import ShardCache
from pipeline.files import read_json
from pipeline.params import Params

_STAGE = re.compile(r'"([^"]+)"')


@dataclass(frozen=True)
class StageStatus:
    """What DVC knows of a stage.

    Attributes:
        name: as in dvc.yaml.
        reasons: why it would run, a phrase each; none where nothing of its own changed.
        after: stages before it that would run: it follows if their outputs change.
    """

    name: str
    reasons: list[str]
    after: list[str]


@dataclass(frozen=True)
class PhotoStatus:
    """How far the encoder has come.

    Attributes:
        computed: photos whose vectors are there.
        new: photos that the encoder has not seen.
        failed: image_id to the reason of every photo that cannot be read, or could not be decoded
            at the last extraction.
    """

    computed: int
    new: int
    failed: dict[str, str]


def stage_statuses() -> list[StageStatus]:
    """Ask DVC about every stage, in the order in which they would run.

    Raises:
        InputError: DVC cannot say; with its reason.
    """
    with ThreadPoolExecutor(2) as pool:  # each is a process that takes a second to start
        status, dag = pool.map(_dvc, (["status", "--json"], ["dag", "--dot"]))
    before: dict[str, set[str]] = {}
    for line in dag.splitlines():  # "stage"; or "stage" -> "another";
        stages = _STAGE.findall(line)
        for stage in stages:
            before.setdefault(stage, set())
        for stage in stages[1:]:
            before[stage].add(stages[0])
    # `dvc status` says more on lines before its JSON, of a first run say.
    changed = json.loads(status.splitlines()[-1] if status.strip() else "{}")
    statuses: list[StageStatus] = []
    running: set[str] = set()
    for name in _in_order(before):
        reasons = _reasons(changed.get(name, []))
        after = sorted(before[name] & running)
        if reasons or after:
            running.add(name)
        statuses.append(StageStatus(name, reasons, after))
    return statuses


def photo_status(params: Params, artifacts: Path) -> PhotoStatus:
    """Count photos by what the encoder has done with their bytes; reads every one.

    Raises:
        InputError: no data set is there, or no encoder.
    """
    root = Path(params.dataset.root)
    photos = formats.photos(params.dataset.format, root)
    encoder = read_encoder_config(artifacts / "encoder.json")
    wanted = params.extract
    feature_spec = encoder.feature_spec(wanted.views, wanted.pooling, wanted.scales, wanted.dtype)
    found, failed = digest_photos(photos, root)
    known = ShardCache(Path(params.runtime.cache), feature_spec.fingerprint).index(
        remove_damaged=False
    )
    without = [image_id for image_id, sha in found.items() if sha not in known]
    last = artifacts / "extract.json"
    refused = read_json(last, "run `dvc repro extract`").get("failed", {}) if last.exists() else {}
    again = {i: f"{refused[i]} (at the last extraction)" for i in without if i in refused}
    failed = dict(sorted((failed | again).items()))
    return PhotoStatus(len(found) - len(without), len(without) - len(again), failed)


def _dvc(arguments: list[str]) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  (no user's word is in it)
    if run.returncode:
        reason = " ".join(run.stderr.split()) or f"exit code {run.returncode}"
        raise InputError(f"`dvc {' '.join(arguments)}` failed: {reason}")
    return run.stdout


def _in_order(before: dict[str, set[str]]) -> list[str]:
    """Sort stages so that each follows those before it, else by how dvc.yaml lists them."""
    ordered: list[str] = []
    while len(ordered) < len(before):
        ordered.append(next(s for s in before if s not in ordered and before[s] <= set(ordered)))
    return ordered


def _reasons(entries: list[str | dict[str, dict[str, Any]]]) -> list[str]:
    """Put what `dvc status --json` says of a stage in words; what people change first."""
    params: list[str] = []
    files: list[str] = []
    code: list[str] = []
    for entry in entries:
        if isinstance(entry, str):  # "changed command"
            files.append(entry)
            continue
        for kind, changes in entry.items():
            for path, how in changes.items():
                if isinstance(how, dict):
                    params += [f"{path}: {key} {change}" for key, change in how.items()]
                elif path.endswith(".py"):
                    code.append(path)
                else:
                    files.append(f"{'output ' if kind == 'changed outs' else ''}{path} {how}")
    if len(code) > 1:
        code = [f"{code[0]} and {len(code) - 1} more files of code changed"]
    elif code:
        code = [f"{code[0]} changed"]
    return [*params, *files, *code]
