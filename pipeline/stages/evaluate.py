"""Stage `evaluate`: caption the test photos with every search, score them, write the report."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline.captioner.artifacts import Artifacts
from pipeline.captioner.decoders.decoder import Decoder
from pipeline.captioner.generation.settings import SEARCH_FILE, SearchSettings
from pipeline.captioner.model_config import Member
from pipeline.captioner.training.batches import Batches
from pipeline.captioner.training.loss import mean_loss
from pipeline.datasets.caption_table import read_caption_table
from pipeline.files import fingerprint, write_json, write_text
from pipeline.metrics import tokenizer
from pipeline.metrics.perplexity import adjusted_perplexity
from pipeline.metrics.scorer import METRICS
from pipeline.params import EvaluateParams, load_params
from pipeline.reporting.baselines import HUMAN_AGREEMENT, MODEL_LEAVE_ONE_OUT
from pipeline.reporting.data_summary import read_data_summary
from pipeline.reporting.evaluation import Evaluation, evaluate
from pipeline.reporting.layer_table import layer_table
from pipeline.reporting.model_card import model_card
from pipeline.reporting.predictions import Prediction, predict, search_name, write_predictions
from pipeline.reporting.report import write_report
from pipeline.reporting.tables import few_photos_text, image_use_text
from pipeline.stages.run import run_stage
from pipeline.text.vocabulary import UNK

ARTIFACTS = Path("artifacts")
EVALUATION = ARTIFACTS / "evaluation"
SPLIT = "test"
_BATCH_SIZE = 64  # captions in a batch, for the perplexity
_DETECTED_WORDS = 6  # shown for each photo in the report


def main() -> None:
    """Write search.json, metrics.json, predictions.parquet, report.html and model_card.md."""
    table = read_caption_table(ARTIFACTS / "captions.parquet")
    params = load_params(training_captions=len(table.texts("train"))).evaluate
    settings = _search_settings(params)
    # Written first, so that `caption image` works even if the evaluation fails.
    settings.write(ARTIFACTS / SEARCH_FILE)
    artifacts = Artifacts.open(
        ARTIFACTS,
        *(
            "captions.parquet",
            "captions.json",
            "vocabulary.json",
            "features.h5",
            "extract.json",
            "detector.h5",
        ),
        "model/model.json",
    )
    artifacts.check_training_metadata()
    run = _EvaluateRun(params.beam_widths, settings, artifacts, artifacts.captions(SPLIT))
    evaluation = run.evaluate()
    searches = evaluation.searches.values()
    write_predictions(
        EVALUATION / "predictions.parquet", [p for search in searches for p in search.predictions]
    )
    write_report(
        EVALUATION / "report.html",
        evaluation,
        artifacts.image_paths,
        ARTIFACTS,
        artifacts.model_config,
        layer_table(artifacts.decoders[0].network),
        read_data_summary(ARTIFACTS, artifacts.table),
    )
    write_text(EVALUATION / "model_card.md", model_card(evaluation, artifacts.model_config))
    write_json(EVALUATION / "metrics.json", evaluation.as_json())
    _print_scores(evaluation)


def _search_settings(params: EvaluateParams) -> SearchSettings:
    return SearchSettings(
        beam_width=max(params.beam_widths, default=1),
        max_words=params.max_words,
        no_repeat_ngram_size=params.no_repeat_ngram_size,
        guidance=params.guidance,
        word_logit_bias=params.word_logit_bias,
        word_rerank_weight=params.word_rerank_weight,
        neighbour_rerank_weight=params.neighbour_rerank_weight,
        ensemble=params.ensemble,
    )


@dataclass(frozen=True)
class _EvaluateRun:
    """One run of the stage.

    Attributes:
        beam_widths: the beam widths to evaluate, in addition to greedy search.
        settings: the settings that all searches share.
        artifacts: the outputs of earlier stages.
        captions: (image_id, clean text) pairs of the split's photos that have features.
    """

    beam_widths: Sequence[int]
    settings: SearchSettings
    artifacts: Artifacts
    captions: Sequence[tuple[str, str]]

    @cached_property
    def references(self) -> dict[str, list[str]]:
        """image_id to raw captions for the photos of `captions`."""
        return self.artifacts.references(SPLIT)

    @cached_property
    def image_ids(self) -> list[str]:
        """The photos of `captions`."""
        return list(self.references)

    @property
    def members(self) -> Sequence[Member]:
        """The decoders in the ensemble, or the first alone."""
        members = self.artifacts.model_config.members
        return members if self.settings.ensemble else members[:1]

    def evaluate(self) -> Evaluation:
        """Caption the split with the ensemble and with each decoder alone, and score both."""
        decoders = self.artifacts.decoders
        seeds = [member.seed for member in self.artifacts.model_config.members]
        by_seed = {
            seed: self._predict([decoder])
            for seed, decoder in zip(seeds, decoders, strict=True)
            if len(seeds) > 1
        }
        ensemble = decoders[: len(self.members)]
        reuse_first = len(ensemble) == 1 and seeds[0] in by_seed
        training = self.artifacts.table.references("train").values()
        return evaluate(
            by_seed[seeds[0]] if reuse_first else self._predict(ensemble),
            primary_search=search_name(self.settings.beam_width),
            references=self.references,
            training=[raw for group in training for raw in group],
            vocabulary=self.artifacts.vocabulary,
            clean_references=[text for _, text in self.captions],
            perplexity=self._perplexity(ensemble),
            detected=self._detected_words(),
            provenance=self._provenance(),
            by_seed=by_seed,
        )

    def _predict(self, decoders: Sequence[Decoder]) -> dict[str, list[Prediction]]:
        """Caption the split with every search."""
        decoder = self.artifacts.combine_decoders(self.settings, decoders)
        return {
            search_name(width): predict(
                decoder,
                self.artifacts.store,
                self.artifacts.vocabulary,
                self.image_ids,
                beam_width=width,
                max_words=self.settings.max_words,
                no_repeat_ngram_size=self.settings.no_repeat_ngram_size,
            )
            for width in dict.fromkeys([1, *self.beam_widths])
        }

    def _perplexity(self, decoders: Sequence[Decoder]) -> float:
        """Return the geometric mean of the decoders' perplexities; see `adjusted_perplexity`."""
        batches = Batches(
            self.captions,
            self.artifacts.store,
            self.artifacts.vocabulary,
            _BATCH_SIZE,
            self.artifacts.model_config.metadata["params"]["max_words"],
        )
        words = {word for _, text in self.captions for word in text.split()}
        unknown_words = words - self.artifacts.vocabulary.ids.keys()
        loss = statistics.mean(mean_loss(decoder, batches) for decoder in decoders)
        return adjusted_perplexity(loss, batches.target_share(UNK), len(unknown_words))

    def _detected_words(self) -> dict[str, list[str]]:
        """Return each photo's most informative detected words."""
        vocabulary, detector = self.artifacts.vocabulary, self.artifacts.detector
        return {
            image_id: vocabulary.decode(ids).split()
            for image_ids, features in self.artifacts.store.read_chunks(self.image_ids)
            for image_id, ids in zip(
                image_ids, detector.top_words(features, _DETECTED_WORDS), strict=True
            )
        }

    def _provenance(self) -> dict[str, str]:
        """Return the inputs and settings that determine these captions."""
        artifacts, settings = self.artifacts, self.settings
        architecture, spec = artifacts.model_config.decoder, artifacts.store.feature_spec
        decoder = (
            f"{architecture.name}, {architecture.units} units, "
            f"{len(artifacts.vocabulary.words)} words"
        )
        ensemble = f"ensemble of {len(self.members)}: " if len(self.members) > 1 else ""
        return {
            "tokenizer": tokenizer.NAME,
            "split": SPLIT,
            "references": fingerprint(self.references),
            "decoder": f"{ensemble}{decoder}",
            "training": "; ".join(_training_summary(member) for member in self.members),
            "model": " ".join(member.weights_sha256 for member in self.members),
            "encoder": (
                f"{spec.encoder} at {spec.input_size} x {spec.input_size} pixels, "
                f"{spec.pooling} pooling, scales: {spec.scales}, views: {spec.views}, "
                f"weights {spec.weights_sha256}"
            ),
            "captions": artifacts.table.fingerprint,
            "vocabulary": artifacts.vocabulary.fingerprint,
            "features": artifacts.store.fingerprint,
            "guidance": f"{settings.guidance:g}",
            "word guidance": (
                f"logit bias {settings.word_logit_bias:g}, "
                f"rerank weight {settings.word_rerank_weight:g}, "
                f"detector {artifacts.detector.digest}"
            ),
            "neighbours": (
                f"rerank weight {settings.neighbour_rerank_weight:g}, {artifacts.neighbours.digest}"
                if settings.neighbour_rerank_weight
                else "none"
            ),
        }


def _training_summary(member: Member) -> str:
    best = member.metadata["best"]
    return (
        f"seed {member.seed}: epoch {best['epoch']} of {member.metadata['epochs']} kept, "
        f"validation loss {best['validation_loss']:.4f} nats a word, CIDEr-D "
        f"{best['validation_cider_d']:.1f}; {member.metadata['stopped']}"
    )


def _print_scores(evaluation: Evaluation) -> None:
    """Print the scores, the baselines, what they show, and the path of the report."""
    print(f"{len(evaluation.image_ids)} test photos")
    width = 11 if evaluation.over_seeds else 9
    print(f"{'':20}" + "".join(f"{name:>{width}}" for name in (*METRICS, "distinct")))
    for name, search in evaluation.searches.items():
        values = [*search.corpus.values(), search.distinct]
        print(f"{name:20}" + "".join(f"{value:{width}.2f}" for value in values))
    for name, row in evaluation.over_seeds.items():
        spreads = [f"{row[metric].mean:.1f}±{row[metric].deviation:.1f}" for metric in METRICS]
        print(f"{name + ', each seed':20}" + "".join(f"{spread:>{width}}" for spread in spreads))
    for baseline in evaluation.baselines:
        values = list(baseline.corpus.values())
        print(f"{baseline.name:20}" + "".join(f"{value:{width}.2f}" for value in values))
    if evaluation.human_agreement:
        print(f"{MODEL_LEAVE_ONE_OUT} and {HUMAN_AGREEMENT}: against one reference fewer")
    if few_photos := few_photos_text(evaluation):
        print(few_photos)
    if evaluation.uses_image is not True and (image_use := image_use_text(evaluation)):
        print(image_use)
    print(f"report: {EVALUATION / 'report.html'}")


if __name__ == "__main__":
    run_stage(main)
