"""Stage `evaluate`: caption the test split by every search, score it, write the report."""

from pathlib import Path

from pipeline.captioner.description import ModelDescription
from pipeline.captioner.model import Model
from pipeline.captions.vocabulary import Vocabulary
from pipeline.datasets import formats
from pipeline.datasets.table import read_table
from pipeline.errors import InputError, run_stage
from pipeline.features.store import FeatureStore
from pipeline.files import write_json
from pipeline.params import load_params
from pipeline.reporting.metrics import Scores, score
from pipeline.reporting.predictions import Prediction, predict, search_name, write_predictions
from pipeline.reporting.report import write_report

ARTIFACTS = Path("artifacts")
EVALUATION = ARTIFACTS / "evaluation"


def main() -> None:
    """Write metrics.json, predictions.parquet and report.html to artifacts/evaluation/."""
    params = load_params()
    vocabulary = Vocabulary.load(ARTIFACTS / "vocabulary.json")
    model = Model.load(ARTIFACTS / "model", vocabulary)
    store = FeatureStore.open(ARTIFACTS / "features.h5")
    model.description.check_encoding(store.encoding, store.path)
    table = read_table(ARTIFACTS / "captions.parquet")
    if model.description.facts.get("captions") != table.fingerprint:
        raise InputError(
            "artifacts/model was trained on other captions, perhaps on what is the test split "
            "now, than artifacts/captions.parquet holds: run `dvc repro train`"
        )
    references = table.references("test")
    image_ids = [image_id for image_id in references if image_id in store.rows]
    if not image_ids:
        raise InputError(
            "no test photo has both captions and features: "
            "artifacts/captions.json and artifacts/extract.json say why"
        )
    scores: dict[str, Scores] = {}
    predictions: list[Prediction] = []
    for width in (1, *sorted(set(params.evaluate.beam_widths))):
        found = predict(
            model.decoder,
            store,
            vocabulary,
            image_ids,
            beam_width=width,
            max_words=params.evaluate.max_words,
            repeat_trigrams=params.evaluate.repeat_trigrams,
        )
        scores[search_name(width)] = score(found, references)
        predictions += found
    root = Path(params.dataset.root)
    write_predictions(EVALUATION / "predictions.parquet", predictions)
    write_report(
        EVALUATION / "report.html",
        scores,
        predictions,
        references,
        photos=formats.photos(params.dataset.format, root) if root.is_dir() else {},
        provenance=_provenance(model.description, store, vocabulary, table.fingerprint),
    )
    write_json(EVALUATION / "metrics.json", {"photos": len(image_ids), **scores})
    _show(scores, len(image_ids), len(references) - len(image_ids))


def _provenance(
    model: ModelDescription, store: FeatureStore, vocabulary: Vocabulary, captions: str
) -> dict[str, str]:
    config, encoding, best = model.config, store.encoding, model.facts["best"]
    return {
        "decoder": f"{config.name}, {config.units} units, {len(vocabulary.words)} words",
        "training": (
            f"epoch {best['epoch']} of {model.facts['epochs']} kept, validation loss "
            f"{best['validation_loss']:.4f} nats a word; {model.facts['stopped']}"
        ),
        "encoder": (
            f"{encoding.encoder} at {encoding.input_size} x {encoding.input_size} pixels, "
            f"{encoding.pooling} pooling, weights {encoding.weights_sha256}"
        ),
        "captions": captions,
        "vocabulary": vocabulary.fingerprint,
        "features": store.fingerprint,
    }


def _show(scores: dict[str, Scores], photos: int, left_out: int) -> None:
    """Print the scores as a table, and where the report is."""
    names = list(next(iter(scores.values())))
    without = f" ({left_out} failed photos left out)" if left_out else ""
    print(f"{photos} test photos{without}")
    print(f"{'':10}" + "".join(f"{name:>10}" for name in names))
    for search, values in scores.items():
        print(f"{search:10}" + "".join(f"{value:10.2f}" for value in values.values()))
    print(f"report: {EVALUATION / 'report.html'}")


if __name__ == "__main__":
    run_stage(main)
