"""The model card (Mitchell et al. 2019, "Model cards for model reporting"), as Markdown."""

from collections.abc import Iterable, Mapping

from pipeline.captioner.model_config import ModelConfig
from pipeline.metrics.scorer import METRICS
from pipeline.reporting.baselines import EXPLANATIONS
from pipeline.reporting.evaluation import Evaluation
from pipeline.reporting.tables import (
    caption_statistics,
    few_photos_text,
    image_use_text,
    meteor_text,
)
from pipeline.reporting.visible_text import visible


def model_card(evaluation: Evaluation, model_config: ModelConfig) -> str:
    """Return the card: intended use, scores, provenance and training params."""
    sections = [
        "# Model card: an image captioner",
        _intended_use(model_config),
        "## Scores",
        _scores(evaluation),
        "## Provenance",
        _table(("input", "value"), evaluation.provenance.items()),
        "## Training params",
        _table(("param", "value"), sorted(model_config.metadata["params"].items())),
    ]
    return "\n\n".join(sections) + "\n"


def _intended_use(model_config: ModelConfig) -> str:
    decoder, feature_spec = model_config.decoder, model_config.feature_spec
    return (
        f"A `{decoder.name}` LSTM decoder with {decoder.units} units over {feature_spec.encoder} "
        "features. It describes a photo in one sentence, in the words of its training captions.\n\n"
        "It knows only photos and captions like those it was trained on. For any other photo it "
        "writes what would be likely among those. Do not use its captions for decisions about "
        "people: like the captions it was trained on, they guess sex, age and occupation from "
        "looks."
    )


def _scores(evaluation: Evaluation) -> str:
    split = _escape(evaluation.provenance["split"])
    photos = f"{len(evaluation.image_ids)} photos of the split {split}"
    rows = [(name, *_numbers(search.corpus)) for name, search in evaluation.searches.items()]
    rows += [
        (f"{row.name} “{row.caption}”" if row.caption else row.name, *_numbers(row.corpus))
        for row in evaluation.baselines
    ]
    low, high = evaluation.primary.intervals["CIDEr-D"]
    interval = ("CIDEr-D, 95 % interval over photos", f"{low:.1f} to {high:.1f}")
    statistics = [
        *([interval] if evaluation.has_enough_photos else []),
        ("METEOR 1.5", meteor_text(evaluation.primary)),
        *caption_statistics(evaluation.primary).items(),
        ("words of the references outside the vocabulary", f"{evaluation.unknown_words:.1f} %"),
        ("perplexity", f"{evaluation.perplexity:.2f}"),
    ]
    parts = [
        few_photos_text(evaluation),
        _first_bold(image_use_text(evaluation)) if evaluation.uses_image is False else "",
        f"Scores on {photos}, x100, computed like coco-caption.",
        _table(("captions", *METRICS), rows),
        "\n".join(f"- {row.name}: {EXPLANATIONS[row.name]}" for row in evaluation.baselines),
        _seed_scores(evaluation),
        f"Statistics of {evaluation.primary_search}:",
        _table(("statistic", "value"), statistics),
    ]
    return "\n\n".join(part for part in parts if part)


def _seed_scores(evaluation: Evaluation) -> str:
    rows = [
        (name, *(f"{row[metric].mean:.2f} ± {row[metric].deviation:.2f}" for metric in METRICS))
        for name, row in evaluation.over_seeds.items()
    ]
    if not rows:
        return ""
    caption = f"Each of {len(evaluation.seeds)} seeds alone, mean and standard deviation:"
    return f"{caption}\n\n{_table(('captions', *METRICS), rows)}"


def _first_bold(text: str) -> str:
    """Return text with its first sentence in bold."""
    first, _, rest = text.partition(". ")
    return f"**{first}**. {rest}"


def _numbers(corpus: Mapping[str, float]) -> list[str]:
    return [f"{corpus[name]:.2f}" for name in METRICS]


def _table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table; cells are escaped."""
    lines = [[*header]]
    lines.append(["---"] * len(lines[0]))
    lines += [[_escape(str(cell)) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escape(text: str) -> str:
    """Escape untrusted text, so that Markdown and the HTML in it show it as it is."""
    escaped = "".join(f"\\{c}" if c in r"\`*_{}[]<>#|~!" else c for c in visible(text))
    return " ".join(escaped.split())
