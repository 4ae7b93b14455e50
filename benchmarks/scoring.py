"""Scoring 1,000 captions with 5 references each, beside pycocoevalcap where it is installed."""

import importlib
import importlib.util
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import Row, caption, interleaved, ratio, seconds
from pipeline.datasets.sample.scenes import generate_scene
from pipeline.datasets.sample.wordings import caption_scene
from pipeline.metrics.cider import CiderD
from pipeline.metrics.references import References
from pipeline.metrics.scorer import Scorer
from pipeline.metrics.tokenizer import tokenize

_PHOTOS = 1000


def rows(_: Path) -> list[Row]:
    """Time all metrics, CIDEr-D beside pycocoevalcap's, and `caption score`."""
    references = {str(i): caption_scene(generate_scene(0, "test", i)) for i in range(_PHOTOS)}
    candidates = {str(i): caption_scene(generate_scene(1, "test", i))[0] for i in range(_PHOTOS)}
    groups = [[tokenize(raw) for raw in group] for group in references.values()]
    tokens = [tokenize(raw) for raw in candidates.values()]

    def ours() -> None:
        CiderD(References(groups)).scores(tokens)

    measures = {
        "all metrics, s": _timed(lambda: Scorer(groups).score(tokens)),
        "CIDEr-D, s": _timed(ours),
    }
    if importlib.util.find_spec("pycocoevalcap") is not None:
        cider = importlib.import_module("pycocoevalcap.cider.cider").Cider
        joined = {
            i: [" ".join(t) for t in group] for i, group in zip(references, groups, strict=True)
        }
        told = {i: [" ".join(t)] for i, t in zip(candidates, tokens, strict=True)}
        measures["pycocoevalcap's CIDEr-D, s"] = _timed(lambda: cider().compute_score(joined, told))
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("candidates.json", "references.json")]
        for file, content in zip(files, (candidates, references), strict=True):
            file.write_text(json.dumps(content), "utf-8")
        command = caption("score", *map(str, files))
        measures["caption score, s"] = lambda: seconds(command, Path.cwd())
        found = interleaved(measures)
    of_all, cider_d, *theirs, command_line = found.values()
    beside = (
        f", x {ratio(theirs[0], cider_d):.0f} as fast as pycocoevalcap's"
        if theirs
        else "; `pip install pycocoevalcap` to compare"
    )
    return [
        Row("scoring 1,000 captions x 5", f"{statistics.median(of_all):.2f} s", "1 s"),
        Row("CIDEr-D of them", f"{statistics.median(cider_d):.3f} s{beside}", "x 10"),
        Row("caption score, of them, with intervals", f"{statistics.median(command_line):.2f} s"),
    ]


def _timed(work: Callable[[], object]) -> Callable[[], float]:
    def measure() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return measure
