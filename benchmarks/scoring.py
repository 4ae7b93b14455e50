"""Scoring 1,000 captions with 5 references each, against pycocoevalcap if it is installed."""

import importlib
import importlib.util
import json
import statistics
import tempfile
from pathlib import Path

from benchmarks.harness import (
    Row,
    caption_command,
    make_timer,
    measure_interleaved,
    median_ratio,
    time_command,
)
from pipeline.datasets.sample.scenes import generate_scene
from pipeline.datasets.sample.wordings import caption_scene
from pipeline.metrics.cider import CiderD
from pipeline.metrics.references import References
from pipeline.metrics.scorer import Scorer
from pipeline.metrics.tokenizer import tokenize

_PHOTOS = 1000


def run(_: Path) -> list[Row]:
    """Time all metrics, CIDEr-D against pycocoevalcap's, and `caption score`."""
    references = {str(i): caption_scene(generate_scene(0, "test", i)) for i in range(_PHOTOS)}
    candidates = {str(i): caption_scene(generate_scene(1, "test", i))[0] for i in range(_PHOTOS)}
    reference_tokens = [[tokenize(raw) for raw in group] for group in references.values()]
    candidate_tokens = [tokenize(raw) for raw in candidates.values()]
    measures = {
        "all metrics, s": make_timer(lambda: Scorer(reference_tokens).score(candidate_tokens)),
        "CIDEr-D, s": make_timer(
            lambda: CiderD(References(reference_tokens)).scores(candidate_tokens)
        ),
    }
    if importlib.util.find_spec("pycocoevalcap") is not None:
        cider = importlib.import_module("pycocoevalcap.cider.cider").Cider
        joined_references = {
            i: [" ".join(tokens) for tokens in group]
            for i, group in zip(references, reference_tokens, strict=True)
        }
        joined_candidates = {
            i: [" ".join(tokens)] for i, tokens in zip(candidates, candidate_tokens, strict=True)
        }
        measures["pycocoevalcap's CIDEr-D, s"] = make_timer(
            lambda: cider().compute_score(joined_references, joined_candidates)
        )
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("candidates.json", "references.json")]
        for file, content in zip(files, (candidates, references), strict=True):
            file.write_text(json.dumps(content), "utf-8")
        command = caption_command("score", *map(str, files))
        measures["caption score, s"] = lambda: time_command(command, Path.cwd())
        values = measure_interleaved(measures)
    return _make_rows(values)


def _make_rows(values: dict[str, list[float]]) -> list[Row]:
    all_metrics_s, cider_s, *pycocoevalcap_s, command_s = values.values()
    comparison = (
        f", x {median_ratio(pycocoevalcap_s[0], cider_s):.0f} as fast as pycocoevalcap's"
        if pycocoevalcap_s
        else "; `pip install pycocoevalcap` to compare"
    )
    median = statistics.median
    return [
        Row("all metrics of 1,000 captions x 5", f"{median(all_metrics_s):.2f} s", "1 s"),
        Row("their CIDEr-D alone", f"{median(cider_s):.3f} s{comparison}", "x 10"),
        Row("`caption score`, with intervals", f"{median(command_s):.2f} s"),
    ]
