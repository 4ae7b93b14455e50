"""Stage `train`: the decoder, from cached features only."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.backend import keras
from pipeline.captioner.batches import Batches
from pipeline.captioner.checkpoint import Checkpoint
from pipeline.captioner.compiled import load_compiled
from pipeline.captioner.decoder import Decoder, build_decoder
from pipeline.captioner.description import DecoderConfig
from pipeline.captioner.diary import Diary, write_table
from pipeline.captioner.initial import set_output_bias, set_word_vectors
from pipeline.captioner.model import Model
from pipeline.captioner.optimizer import Optimization
from pipeline.captioner.samples import choose
from pipeline.captioner.self_critical import SelfCritical
from pipeline.captioner.teacher_forcing import TeacherForcing
from pipeline.captioner.tensorboard import TensorBoard
from pipeline.captioner.training import Phase, SelfCriticalEpoch, Training
from pipeline.captioner.validation import Validation
from pipeline.captions.vocabulary import Vocabulary
from pipeline.datasets import formats
from pipeline.datasets.table import CaptionTable, read_table
from pipeline.errors import InputError, run_stage
from pipeline.features import graphs
from pipeline.features.store import FeatureStore
from pipeline.files import fingerprint, sha256_file, sole_writer
from pipeline.params import Params, load_params

ARTIFACTS = Path("artifacts")
LOGS = Path("runs")


@dataclass(frozen=True)
class Inputs:
    """What the earlier stages left, checked to belong together."""

    table: CaptionTable
    vocabulary: Vocabulary
    store: FeatureStore

    def references(self, split: str) -> dict[str, list[str]]:
        """Return the captions, as people wrote them, of a split's photos that have features."""
        groups = self.table.references(split)
        return {i: group for i, group in groups.items() if i in self.store.rows}


def main() -> None:
    """Write artifacts/model/, history.csv, self_critical.csv and samples/."""
    params = load_params()
    inputs = _read_inputs()
    with sole_writer(Path(params.runtime.cache) / "training", "training"):
        _train(params, inputs)


def _train(params: Params, inputs: Inputs) -> None:
    members: dict[int, Apprentice] = {}
    for seed in params.train.seeds:
        if len(params.train.seeds) > 1:
            print(f"seed {seed}", flush=True)
        members[seed] = member = _train_member(params, inputs, seed, members)
        if member.interrupted:
            break
    if all(len(member.trainings) == 1 for member in members.values()):
        # A table without rows: DVC wants every output.
        write_table(ARTIFACTS / "self_critical.csv", [], SelfCriticalEpoch)
    facts: dict[str, Any] = {
        "params": params.train.model_dump(),
        "self_critical": params.self_critical.model_dump() if params.self_critical.epochs else None,
        "captions": inputs.table.fingerprint,
        "features": inputs.store.fingerprint,
    }
    model = Model.of(
        {seed: (member.decoder, member.facts) for seed, member in members.items()},
        inputs.store.encoding,
        inputs.vocabulary.fingerprint,
        facts,
    )
    model.save(ARTIFACTS / "model")
    if graphs.in_use(ARTIFACTS):
        # Now, with the decoders at hand, so that the first `caption image` need not.
        for decoder, told in zip(model.decoders, model.description.members, strict=True):
            load_compiled(ARTIFACTS, model.description, told, partial(_same, decoder))
    if any(member.interrupted for member in members.values()):
        print("to go on from here later: dvc repro --force --single-item train")
    else:
        for member in members.values():
            member.forget()


def _same(decoder: Decoder) -> Decoder:
    return decoder


@dataclass(frozen=True)
class Apprentice:
    """The training from one seed: one phase or two."""

    decoder: Decoder
    trainings: Sequence[Training]
    kept: Training

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it."""
        return any(training.interrupted for training in self.trainings)

    @property
    def facts(self) -> dict[str, Any]:
        """How it went, for model.json."""
        return {
            "epochs": sum(len(training.history) for training in self.trainings),
            "best": asdict(self.kept.best),
            "stopped": self.kept.stopped,
        }

    def forget(self) -> None:
        """Remove what a killed training would have gone on from."""
        for training in self.trainings:
            training.checkpoint.remove()


def _train_member(
    params: Params, inputs: Inputs, seed: int, earlier: Mapping[int, Apprentice]
) -> Apprentice:
    # Sets the seeds of Python, NumPy and the backend, so it comes before the first weight.
    keras.utils.set_random_seed(seed)
    train = _batches(params, inputs, "train")
    decoder = _build(params, inputs, train)
    phase = TeacherForcing(
        decoder,
        train,
        _optimization(params),
        params.train.epochs,
        seed,
        label_smoothing=params.train.label_smoothing,
        scheduled_sampling=params.train.scheduled_sampling,
    )
    first = _run(params, inputs, Run("history", seed, decoder, phase, params.train.epochs), earlier)
    if not params.self_critical.epochs or first.interrupted:
        return Apprentice(decoder, [first], first)
    return _criticize(params, inputs, seed, first, earlier)


def _criticize(
    params: Params, inputs: Inputs, seed: int, first: Training, earlier: Mapping[int, Apprentice]
) -> Apprentice:
    """Go through the second phase; keep what it made only where that is better."""
    decoder, wanted = first.decoder, params.self_critical
    taught = decoder.network.get_weights()
    phase = SelfCritical(
        decoder,
        inputs.store,
        inputs.vocabulary,
        inputs.references("train"),
        samples=wanted.samples,
        batch_size=wanted.batch_size,
        learning_rate=wanted.learning_rate,
        max_words=params.train.max_words,
        seed=seed,
    )
    run = Run("self_critical", seed, decoder, phase, wanted.epochs)
    second = _run(params, inputs, run, earlier)
    if second.best.validation_cider_d > first.best.validation_cider_d:
        return Apprentice(decoder, [first, second], second)
    print("the second phase made nothing better: kept is what the first one did")
    decoder.network.set_weights(taught)
    return Apprentice(decoder, [first, second], first)


@dataclass(frozen=True)
class Run:
    """A phase of the training from one seed."""

    name: str
    seed: int
    decoder: Decoder
    phase: Phase
    epochs: int


def _run(params: Params, inputs: Inputs, run: Run, earlier: Mapping[int, Apprentice]) -> Training:
    checkpoint = Checkpoint(Path(params.runtime.cache), _fingerprint(params, inputs, run))
    with ExitStack() as stack:
        diary = _open_diary(params, inputs, run, checkpoint, earlier, stack)
        training = Training(
            decoder=run.decoder,
            phase=run.phase,
            dev=_batches(params, inputs, "dev"),
            cider_d=_validation(params, inputs).cider_d,
            epochs=run.epochs,
            patience=params.train.patience,
            select=params.train.select if run.name == "history" else "cider",
            checkpoint=checkpoint,
            after_epoch=diary.write,
        )
        training.run()
    diary.show()
    best = training.best
    print(
        f"{training.stopped}; kept epoch {best.epoch}, validation {best.validation_loss:.4f}, "
        f"CIDEr-D {best.validation_cider_d:.1f}"
    )
    return training


def _read_inputs() -> Inputs:
    table = read_table(ARTIFACTS / "captions.parquet")
    vocabulary = Vocabulary.load(ARTIFACTS / "vocabulary.json")
    if vocabulary.captions != table.fingerprint:
        raise InputError(
            "artifacts/vocabulary.json was built from other captions than "
            "artifacts/captions.parquet holds: run `dvc repro tokenize`"
        )
    return Inputs(table, vocabulary, FeatureStore.open(ARTIFACTS / "features.h5"))


def _fingerprint(params: Params, inputs: Inputs, run: Run) -> str:
    """Digest all that decides a training, but not which other seeds there are."""
    code = sorted(Path(__file__).parent.parent.glob("captioner/*.py"))
    wanted = params.train.model_dump(exclude={"seeds"})
    return fingerprint(
        [
            [wanted, run.seed, run.name],
            params.self_critical.model_dump() if run.name == "self_critical" else None,
            inputs.table.fingerprint,
            inputs.vocabulary.fingerprint,
            inputs.store.fingerprint,
            [sha256_file(path) for path in code],
            [keras.__version__, keras.config.backend()],
        ]
    )


def _build(params: Params, inputs: Inputs, train: Batches) -> Decoder:
    wanted = params.train
    decoder = build_decoder(
        DecoderConfig(
            name=wanted.decoder,
            vocabulary_size=len(inputs.vocabulary),
            feature_shape=inputs.store.shape,
            embedding_size=wanted.embedding_size,
            units=wanted.units,
            dropout=wanted.dropout,
            output_dropout=wanted.output_dropout,
            tied_embeddings=wanted.tied_embeddings,
            feature_norm=wanted.feature_norm,
            feature_noise=wanted.feature_noise,
        )
    )
    if wanted.word_vectors == "captions":
        set_word_vectors(decoder, train.sequences)
    if wanted.output_bias == "frequency":
        set_output_bias(decoder, train.word_counts(len(inputs.vocabulary)))
    return decoder


def _optimization(params: Params) -> Optimization:
    wanted = params.train
    return Optimization(
        wanted.learning_rate, wanted.schedule, wanted.weight_decay, wanted.clip_norm
    )


def _batches(params: Params, inputs: Inputs, split: str) -> Batches:
    """Return a split's captions; those of photos without features are left out."""
    captions = inputs.table.captions(split)
    usable = [pair for pair in captions if pair[0] in inputs.store.rows]
    if not usable:
        raise InputError(
            f"no {split} caption has a photo with features: "
            "artifacts/captions.json and artifacts/extract.json say why"
        )
    if len(usable) < len(captions):
        print(f"{split}: {len(captions) - len(usable)} captions of failed photos left out")
    return Batches(
        usable,
        inputs.store,
        inputs.vocabulary,
        batch_size=params.train.batch_size,
        max_words=params.train.max_words,
    )


def _validation(params: Params, inputs: Inputs) -> Validation:
    return Validation(
        inputs.store,
        inputs.vocabulary,
        inputs.references("dev"),
        beam_width=params.train.select_beam_width,
        max_words=params.train.max_words,
    )


def _open_diary(
    params: Params,
    inputs: Inputs,
    run: Run,
    checkpoint: Checkpoint,
    earlier: Mapping[int, Apprentice],
    stack: ExitStack,
) -> Diary:
    root = Path(params.dataset.root)
    photos = formats.photos(params.dataset.format, root) if root.is_dir() else {}
    dev = [i for i in inputs.table.image_ids("dev") if i in inputs.store.rows]
    taught = run.name == "history"
    chosen = choose(dev, params.train.sample_photos, params.train.seeds[0]) if taught else []
    board = None
    if params.runtime.tensorboard:
        board = stack.enter_context(TensorBoard(LOGS / checkpoint.folder.name))
    before = [
        (seed, row)
        for seed, member in earlier.items()
        for row in member.trainings[0 if taught else 1].history
    ]
    return Diary(
        folder=checkpoint.folder / "diary",
        artifacts=ARTIFACTS,
        name=run.name,
        seed=run.seed,
        earlier=before,
        decoder=run.decoder,
        vocabulary=inputs.vocabulary,
        store=inputs.store,
        samples={image_id: photos.get(image_id) for image_id in chosen},
        max_words=params.train.max_words,
        keep_every_epoch=params.train.keep_every_epoch and taught,
        board=board,
    )


if __name__ == "__main__":
    run_stage(main)
