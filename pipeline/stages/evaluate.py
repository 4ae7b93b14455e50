"""Stage `evaluate`: caption the test split by every search, score it, write the report."""

import math
import statistics
from dataclasses import dataclass
from pathlib import Path

from pipeline.captioner.generation.ensemble import make_ensemble
from pipeline.captioner.generation.guidance import with_guidance
from pipeline.captioner.generation.interfaces import StepDecoder
from pipeline.captioner.generation.word_guidance import with_word_guidance
from pipeline.captioner.model_config import Member
from pipeline.captioner.model_folder import Model
from pipeline.captioner.training.batches import Batches
from pipeline.captioner.training.loss import mean_loss
from pipeline.captioner.word_detector import WordDetector
from pipeline.datasets import formats
from pipeline.datasets.caption_table import CaptionTable, read_caption_table
from pipeline.errors import InputError
from pipeline.features.store import FeatureStore
from pipeline.files import fingerprint, write_json, write_text
from pipeline.metrics import tokenizer
from pipeline.metrics.scorer import METRICS
from pipeline.params import EvaluateParams, Params, load_params
from pipeline.reporting.evaluation import Evaluation, evaluate
from pipeline.reporting.model_card import model_card
from pipeline.reporting.predictions import Prediction, predict, search_name, write_predictions
from pipeline.reporting.report import write_report
from pipeline.stages.run import run_stage
from pipeline.text.vocabulary import Vocabulary

ARTIFACTS = Path("artifacts")
EVALUATION = ARTIFACTS / "evaluation"
SPLIT = "test"
_BATCH_SIZE = 64  # captions, for perplexity
_DETECTED = 6  # words of a photo that the report shows


@dataclass(frozen=True)
class Inputs:
    """What the earlier stages left, checked to belong together."""

    table: CaptionTable
    vocabulary: Vocabulary
    store: FeatureStore
    model: Model
    detector: WordDetector
    captions: list[tuple[str, str]]  # (image_id, text) of the split's photos that have features

    @property
    def image_ids(self) -> list[str]:
        """The photos of `captions`."""
        return list(dict.fromkeys(image_id for image_id, _ in self.captions))


def main() -> None:
    """Write metrics.json, predictions.parquet, report.html and model_card.md."""
    params = load_params()
    inputs = _read_inputs()
    found = _evaluate(params, inputs)
    predictions = [p for search in found.searches.values() for p in search.predictions]
    photos = formats.photos_left(params.dataset.format, Path(params.dataset.root))
    write_predictions(EVALUATION / "predictions.parquet", predictions)
    write_report(
        EVALUATION / "report.html",
        found,
        photos,
        ARTIFACTS,
        inputs.model.description,
    )
    write_text(EVALUATION / "model_card.md", model_card(found, inputs.model.description))
    write_json(EVALUATION / "metrics.json", found.as_json())
    _show(found)


def _read_inputs() -> Inputs:
    vocabulary = Vocabulary.load(ARTIFACTS / "vocabulary.json")
    model = Model.load(ARTIFACTS / "model", vocabulary)
    store = FeatureStore.open(ARTIFACTS / "features.h5")
    model.description.check_feature_spec(store.feature_spec, store.path)
    table = read_caption_table(ARTIFACTS / "captions.parquet")
    if model.description.facts.get("captions") != table.fingerprint:
        raise InputError(
            "artifacts/model was trained on other captions, perhaps on what is the test split "
            "now, than artifacts/captions.parquet holds: run `dvc repro train`"
        )
    detector = WordDetector.load(
        ARTIFACTS / "detector.h5",
        vocabulary,
        store.feature_spec,
        store.shape[-1],
        table.fingerprint,
    )
    captions = store.usable(table.captions(SPLIT), SPLIT)
    return Inputs(table, vocabulary, store, model, detector, captions)


def _evaluate(params: Params, inputs: Inputs) -> Evaluation:
    table, image_ids, model = inputs.table, inputs.image_ids, inputs.model
    references = table.references(SPLIT)
    training = [raw for group in table.references("train").values() for raw in group]
    longest = model.description.facts["params"]["max_words"]
    batches = Batches(inputs.captions, inputs.store, inputs.vocabulary, _BATCH_SIZE, longest)
    seeds = [member.seed for member in model.description.members]
    guides = [with_guidance(decoder, params.evaluate.guidance) for decoder in model.decoders]
    alone = {
        seed: _predict(params, inputs, decoder)
        for seed, decoder in zip(seeds, guides, strict=True)
        if len(seeds) > 1 or not params.evaluate.ensemble
    }
    asked = model.decoders if params.evaluate.ensemble else model.decoders[:1]
    predictions = (
        _predict(params, inputs, make_ensemble(guides))
        if params.evaluate.ensemble
        else alone[seeds[0]]
    )
    return evaluate(
        predictions,
        primary_search=_headline(params.evaluate),
        references={image_id: references[image_id] for image_id in image_ids},
        training=training,
        vocabulary=inputs.vocabulary,
        clean_references=[text for _, text in inputs.captions],
        perplexity=math.exp(statistics.mean(mean_loss(decoder, batches) for decoder in asked)),
        detected=_detected(inputs),
        provenance={
            **_provenance(inputs, len(asked), {i: references[i] for i in image_ids}),
            "guidance": f"{params.evaluate.guidance:g}",
            "evidence": (
                f"word bias {params.evaluate.word_logit_bias:g}, "
                f"agreement {params.evaluate.word_rerank_weight:g}, "
                f"detector {inputs.detector.digest}"
            ),
        },
        by_seed=alone if len(seeds) > 1 else {},
    )


def _detected(inputs: Inputs) -> dict[str, list[str]]:
    """Return the words that tell most of each photo."""
    return {
        image_id: inputs.vocabulary.decode(ids).split()
        for some, features in inputs.store.read_chunks(inputs.image_ids)
        for image_id, ids in zip(some, inputs.detector.top_words(features, _DETECTED), strict=True)
    }


def _headline(wanted: EvaluateParams) -> str:
    """Name the search that figures without a name are of: the widest."""
    return search_name(max(wanted.beam_widths, default=1))


def _predict(params: Params, inputs: Inputs, decoder: StepDecoder) -> dict[str, list[Prediction]]:
    """Caption the split by every search."""
    wanted = params.evaluate
    decoder = with_word_guidance(
        decoder, inputs.detector, wanted.word_logit_bias, wanted.word_rerank_weight
    )
    return {
        search_name(width): predict(
            decoder,
            inputs.store,
            inputs.vocabulary,
            inputs.image_ids,
            beam_width=width,
            max_words=wanted.max_words,
            repeat_trigrams=wanted.repeat_trigrams,
        )
        for width in dict.fromkeys([1, *wanted.beam_widths])
    }


def _provenance(inputs: Inputs, decoders: int, references: dict[str, list[str]]) -> dict[str, str]:
    model, spec = inputs.model.description, inputs.store.feature_spec
    config, asked = model.config, model.members[:decoders]
    kind = f"{config.name}, {config.units} units, {len(inputs.vocabulary.words)} words"
    together_of = f"{decoders} decoders together: " if decoders > 1 else ""
    return {
        "tokenizer": tokenizer.NAME,
        "split": SPLIT,
        "references": fingerprint(references),
        "decoder": f"{together_of}{kind}",
        "training": "; ".join(_training(member) for member in asked),
        "model": " ".join(member.weights_sha256 for member in asked),
        "encoder": (
            f"{spec.encoder} at {spec.input_size} x {spec.input_size} pixels, "
            f"{spec.pooling} pooling, scales: {spec.scales}, views: {spec.views}, "
            f"weights {spec.weights_sha256}"
        ),
        "captions": inputs.table.fingerprint,
        "vocabulary": inputs.vocabulary.fingerprint,
        "features": inputs.store.fingerprint,
    }


def _training(member: Member) -> str:
    best = member.facts["best"]
    return (
        f"seed {member.seed}: epoch {best['epoch']} of {member.facts['epochs']} kept, validation "
        f"loss {best['validation_loss']:.4f} nats a word, CIDEr-D "
        f"{best['validation_cider_d']:.1f}; {member.facts['stopped']}"
    )


def _show(found: Evaluation) -> None:
    """Print the scores beside what they are worth, and where the report is."""
    print(f"{len(found.image_ids)} test photos")
    width = 11 if found.over_seeds else 9
    print(f"{'':20}" + "".join(f"{name:>{width}}" for name in (*METRICS, "distinct")))
    for name, search in found.searches.items():
        values = [*search.corpus.values(), search.distinct]
        print(f"{name:20}" + "".join(f"{value:{width}.2f}" for value in values))
    for name, row in found.over_seeds.items():
        spreads = [f"{row[metric].mean:.1f}±{row[metric].deviation:.1f}" for metric in METRICS]
        print(f"{name + ', each seed':20}" + "".join(f"{spread:>{width}}" for spread in spreads))
    beside = {
        "a constant caption": found.constant_floor,
        "random captions": found.random_floor,
        "features swapped": found.shuffled_features,
        "a person": found.human_agreement,
    }
    for name, corpus in beside.items():
        if corpus is not None:
            print(f"{name:20}" + "".join(f"{value:{width}.2f}" for value in corpus.values()))
    if not found.uses_image:
        print("the model hardly looks: its captions score as well for other photos")
    print(f"report: {EVALUATION / 'report.html'}")


if __name__ == "__main__":
    run_stage(main)
