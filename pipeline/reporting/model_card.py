"""The model card (Mitchell et al. 2019, "Model cards for model reporting"), as Markdown."""

from collections.abc import Iterable, Mapping

from pipeline.captioner.model_config import ModelConfig
from pipeline.metrics.scorer import METRICS
from pipeline.reporting.evaluation import Evaluation

_BLIND = (
    "**The model hardly looks**: with each photo's features swapped for another photo's, its "
    "captions score nearly as well."
)


def model_card(found: Evaluation, model: ModelConfig) -> str:
    """Write what the model is, what it was made of, and what it scores."""
    sections = [
        "# Model card: an image captioner",
        _intended(model),
        "## Scores",
        _scores(found),
        "## What it was made of",
        _table(("what", "which"), found.provenance.items()),
        "## How it was trained",
        _table(("param", "value"), sorted(model.metadata["params"].items())),
    ]
    return "\n\n".join(sections) + "\n"


def _intended(model: ModelConfig) -> str:
    config, encoding = model.decoder, model.encoding
    return (
        f"A `{config.name}` LSTM decoder of {config.units} units over {encoding.encoder} features, "
        "which describes a photo in one sentence, in the words of those it learned from.\n\n"
        "It has seen photos and captions like those it was trained on, and no others. Of anything "
        "else it says what would be likely there. Captions are not fit for decisions about people: "
        "they guess at sex, age and occupation from looks, as the captions it learned from do."
    )


def _scores(found: Evaluation) -> str:
    photos = f"{len(found.image_ids)} photos of the split {_plain(found.provenance['split'])}"
    rows = [(name, *_numbers(search.corpus)) for name, search in found.searches.items()]
    rows += [
        (f"{row.name} “{row.caption}”" if row.caption else row.name, *_numbers(row.corpus))
        for row in found.baselines
    ]
    primary_search = found.searches[found.primary_search]
    low, high = primary_search.intervals["CIDEr-D"]
    beside = [
        ("CIDEr-D with other photos, 95 %", f"{low:.1f} to {high:.1f}"),
        ("METEOR 1.5", "n/a" if primary_search.meteor is None else f"{primary_search.meteor:.1f}"),
        ("different captions", f"{primary_search.distinct:.1f} %"),
        ("vocabulary used", f"{primary_search.words_used:.1f} %"),
        ("copied from the training captions", f"{primary_search.copied:.1f} %"),
        ("words a caption", f"{primary_search.mean_length:.1f}"),
        ("unfinished", f"{primary_search.unfinished:.1f} %"),
        ("words of the references it does not know", f"{found.unknown_words:.1f} %"),
        ("perplexity", f"{found.perplexity:.2f}"),
    ]
    warning = "" if found.uses_image else f"{_BLIND}\n\n"
    return (
        f"{warning}Of {photos}, x100, computed as coco-caption does.\n\n"
        f"{_table(('captions', *METRICS), rows)}\n\n{_over_seeds(found)}"
        f"Of {found.primary_search}:\n\n{_table(('what', 'value'), beside)}"
    )


def _over_seeds(found: Evaluation) -> str:
    rows = [
        (name, *(f"{row[metric].mean:.2f} ± {row[metric].deviation:.2f}" for metric in METRICS))
        for name, row in found.over_seeds.items()
    ]
    if not rows:
        return ""
    said = f"Each of {len(found.seeds)} seeds alone, mean and deviation:"
    return f"{said}\n\n{_table(('captions', *METRICS), rows)}\n\n"


def _numbers(corpus: Mapping[str, float]) -> list[str]:
    return [f"{corpus[name]:.2f}" for name in METRICS]


def _table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table; what a cell holds is shown as it stands."""
    lines = [[*header]]
    lines.append(["---"] * len(lines[0]))
    lines += [[_plain(str(cell)) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """Take from a stranger's text what Markdown, or HTML in it, would act upon."""
    escaped = "".join(f"\\{c}" if c in r"\`*_{}[]<>#|~!" else c for c in text)
    return " ".join(escaped.split())
