"""Stage `train`: the decoder, from cached features only."""

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.backend import keras
from pipeline.captioner.batches import Batches
from pipeline.captioner.checkpoint import Checkpoint
from pipeline.captioner.compiled import load_compiled
from pipeline.captioner.decoder import Decoder, build_decoder
from pipeline.captioner.description import DecoderConfig
from pipeline.captioner.diary import Diary
from pipeline.captioner.model import Model
from pipeline.captioner.samples import choose
from pipeline.captioner.tensorboard import TensorBoard
from pipeline.captioner.training import Training
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


def main() -> None:
    """Write artifacts/model/, artifacts/history.csv and artifacts/samples/."""
    params = load_params()
    inputs = _read_inputs()
    with sole_writer(Path(params.runtime.cache) / "training", "training"):
        _train(params, inputs)


def _train(params: Params, inputs: Inputs) -> None:
    checkpoint = Checkpoint(Path(params.runtime.cache), _training_fingerprint(params, inputs))
    # Sets the seeds of Python, NumPy and the backend, so it comes before the first weight.
    keras.utils.set_random_seed(params.train.seed)
    decoder = _build(params, inputs)
    with ExitStack() as stack:
        diary = _open_diary(params, inputs, decoder, checkpoint, stack)
        training = Training(
            decoder=decoder,
            train=_batches(params, inputs, "train"),
            dev=_batches(params, inputs, "dev"),
            cider_d=_validation(params, inputs).cider_d,
            learning_rate=params.train.learning_rate,
            epochs=params.train.epochs,
            patience=params.train.patience,
            select=params.train.select,
            seed=params.train.seed,
            checkpoint=checkpoint,
            after_epoch=diary.write,
        )
        training.run()
    best = training.best
    facts: dict[str, Any] = {
        "params": params.train.model_dump(),
        "captions": inputs.table.fingerprint,
        "features": inputs.store.fingerprint,
        "epochs": len(training.history),
        "best": asdict(best),
        "stopped": training.stopped,
    }
    diary.show()
    model = Model.of(decoder, inputs.store.encoding, inputs.vocabulary.fingerprint, facts)
    model.save(ARTIFACTS / "model")
    if graphs.in_use(ARTIFACTS):
        # Now, with the decoder at hand, so that the first `caption image` need not.
        load_compiled(ARTIFACTS, model.description, lambda: decoder)
    print(
        f"{training.stopped}; kept epoch {best.epoch}, validation {best.validation_loss:.4f}, "
        f"CIDEr-D {best.validation_cider_d:.1f}"
    )
    if training.interrupted:
        print("to go on from here later: dvc repro --force --single-item train")
    else:
        checkpoint.remove()


def _read_inputs() -> Inputs:
    table = read_table(ARTIFACTS / "captions.parquet")
    vocabulary = Vocabulary.load(ARTIFACTS / "vocabulary.json")
    if vocabulary.captions != table.fingerprint:
        raise InputError(
            "artifacts/vocabulary.json was built from other captions than "
            "artifacts/captions.parquet holds: run `dvc repro tokenize`"
        )
    return Inputs(table, vocabulary, FeatureStore.open(ARTIFACTS / "features.h5"))


def _training_fingerprint(params: Params, inputs: Inputs) -> str:
    code = sorted(Path(__file__).parent.parent.glob("captioner/*.py"))
    return fingerprint(
        [
            params.train.model_dump(),
            inputs.table.fingerprint,
            inputs.vocabulary.fingerprint,
            inputs.store.fingerprint,
            [sha256_file(path) for path in code],
            [keras.__version__, keras.config.backend()],
        ]
    )


def _build(params: Params, inputs: Inputs) -> Decoder:
    return build_decoder(
        DecoderConfig(
            name=params.train.decoder,
            vocabulary_size=len(inputs.vocabulary),
            feature_shape=inputs.store.shape,
            embedding_size=params.train.embedding_size,
            units=params.train.units,
            dropout=params.train.dropout,
            output_dropout=params.train.output_dropout,
        )
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
    references = inputs.table.references("dev")
    return Validation(
        inputs.store,
        inputs.vocabulary,
        {i: group for i, group in references.items() if i in inputs.store.rows},
        beam_width=params.train.select_beam_width,
        max_words=params.train.max_words,
    )


def _open_diary(
    params: Params, inputs: Inputs, decoder: Decoder, checkpoint: Checkpoint, stack: ExitStack
) -> Diary:
    root = Path(params.dataset.root)
    photos = formats.photos(params.dataset.format, root) if root.is_dir() else {}
    dev = [i for i in inputs.table.image_ids("dev") if i in inputs.store.rows]
    chosen = choose(dev, params.train.sample_photos, params.train.seed)
    board = None
    if params.runtime.tensorboard:
        board = stack.enter_context(TensorBoard(LOGS / checkpoint.folder.name))
    return Diary(
        folder=checkpoint.folder / "diary",
        artifacts=ARTIFACTS,
        decoder=decoder,
        vocabulary=inputs.vocabulary,
        store=inputs.store,
        samples={image_id: photos.get(image_id) for image_id in chosen},
        max_words=params.train.max_words,
        keep_every_epoch=params.train.keep_every_epoch,
        board=board,
    )


if __name__ == "__main__":
    run_stage(main)
