"""The status of the DVC stages and of the photos, for `caption status`."""

import json
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.datasets import formats
from pipeline.errors import InputError
from pipeline.features.earlier_stores import EarlierStores
from pipeline.features.extractor import digest_photos, locate_vectors
from pipeline.features.feature_spec import read_encoder_config
from pipeline.features.shard_cache import ShardCache
from pipeline.files import read_texts
from pipeline.params import Params
from pipeline.system import dvc_cache
from pipeline.system.dvc import DvcError, run_dvc

_CODE = "pipeline/"  # how files and folders of code begin in dvc.yaml
_STAGE_NAME = re.compile(r'"([^"]+)"')


@dataclass(frozen=True)
class StageStatus:
    """Whether and why `dvc repro` would run a stage.

    Attributes:
        name: as in dvc.yaml.
        reasons: what changed since its last run, a phrase each; empty if nothing did.
        upstream: upstream stages that would run: if their outputs change, this stage would
            run too.
    """

    name: str
    reasons: list[str]
    upstream: list[str]


@dataclass(frozen=True)
class PhotoStatus:
    """How many photos are encoded.

    Attributes:
        computed: number of photos whose vector is in the shard cache or in a feature store.
        new: number of photos that the encoder has not seen.
        failed: image_id to reason, for photos that cannot be read or that could not be decoded
            in the last extraction.
    """

    computed: int
    new: int
    failed: dict[str, str]


def stage_statuses() -> list[StageStatus]:
    """Query DVC for the status of every stage, in the order in which they would run.

    Raises:
        InputError: DVC fails; the message has its reason.
    """
    with ThreadPoolExecutor(2) as pool:  # each is a process that takes a second to start
        status, dag = pool.map(_run_dvc, (["status", "--json"], ["dag", "--dot"]))
    upstream = _parse_dag(dag)
    # Before its JSON, `dvc status` may print other lines, on the first run for instance.
    changes = json.loads(status.splitlines()[-1] if status.strip() else "{}")
    statuses: list[StageStatus] = []
    would_run: set[str] = set()
    for name in _topological_order(upstream):
        reasons = _describe_changes(changes.get(name, []))
        running_upstream = sorted(upstream[name] & would_run)
        if reasons or running_upstream:
            would_run.add(name)
        statuses.append(StageStatus(name, reasons, running_upstream))
    return statuses


def photo_status(params: Params, artifacts: Path) -> PhotoStatus:
    """Count the photos that are encoded, new and failed; reads every photo.

    Raises:
        InputError: there is no data set, or no encoder.
    """
    root = Path(params.dataset.root)
    photos = formats.find_photos(params.dataset.format, root)
    encoder = read_encoder_config(artifacts / "encoder.json")
    extract = params.extract
    feature_spec = encoder.feature_spec(
        extract.views, extract.pooling, extract.scales, extract.dtype
    )
    digests, failed = digest_photos(photos, root)
    vectors = locate_vectors(
        set(digests.values()),
        ShardCache(params.runtime.shared_cache, feature_spec.fingerprint),
        EarlierStores(dvc_cache.find_copies(artifacts / "features.h5"), feature_spec.fingerprint),
        remove_damaged=False,
    )
    uncached = [image_id for image_id, sha256 in digests.items() if sha256 not in vectors]
    last_failures = _last_failures(artifacts / "extract.json")
    failed_again = {
        image_id: f"{last_failures[image_id]} (at the last extraction)"
        for image_id in uncached
        if image_id in last_failures
    }
    return PhotoStatus(
        computed=len(digests) - len(uncached),
        new=len(uncached) - len(failed_again),
        failed=dict(sorted((failed | failed_again).items())),
    )


def _last_failures(path: Path) -> Mapping[str, str]:
    """Return image_id to reason, of the photos that failed in the last extraction."""
    if not path.exists():
        return {}
    return read_texts(path, "failed", "run `dvc repro extract`")


def _run_dvc(arguments: list[str]) -> str:
    try:
        return run_dvc(arguments)
    except DvcError as error:
        if "not a git repository" in str(error):
            raise InputError(
                f"{Path.cwd()} is no git repository, which DVC needs: `git init && git add . && "
                'git commit -m "as downloaded"`'
            ) from None
        raise InputError(f"`dvc {' '.join(arguments)}` failed: {error}") from None


def _parse_dag(dot: str) -> dict[str, set[str]]:
    """Return each stage's direct upstream stages, from DVC's DOT output."""
    upstream: dict[str, set[str]] = {}
    for line in dot.splitlines():  # "stage"; or "stage" -> "downstream stage";
        stages = _STAGE_NAME.findall(line)
        for stage in stages:
            upstream.setdefault(stage, set())
        for stage in stages[1:]:
            upstream[stage].add(stages[0])
    return upstream


def _topological_order(upstream: Mapping[str, set[str]]) -> list[str]:
    """Sort stages so that each follows its upstream stages; ties keep the order of dvc.yaml."""
    order: list[str] = []
    while len(order) < len(upstream):
        order.append(next(s for s in upstream if s not in order and upstream[s] <= set(order)))
    return order


def _describe_changes(entries: list[str | dict[str, dict[str, Any]]]) -> list[str]:
    """Describe a stage's entries in `dvc status --json`; the most frequent causes come first."""
    params: list[str] = []
    files: list[str] = []
    code: list[str] = []
    for entry in entries:
        if isinstance(entry, str):  # "changed command"
            files.append(entry)
            continue
        for kind, changes in entry.items():
            for path, change in changes.items():
                if isinstance(change, dict):
                    params += [f"{path}: {key} {how}" for key, how in change.items()]
                elif path.startswith(_CODE):
                    code.append(path)
                else:
                    files.append(f"{'output ' if kind == 'changed outs' else ''}{path} {change}")
    if len(code) > 1:
        code = [f"{code[0]} and {len(code) - 1} more of the code changed"]
    elif code:
        code = [f"{code[0]} changed"]
    return [*params, *files, *code]
