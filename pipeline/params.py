"""Typed params.yaml: an unknown, missing or invalid key is an error naming file and key."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.errors import InputError, collapsed_message
from pipeline.size_defaults import fill_nulls
from pipeline.system import dvc_cache

PARAMS_FILE = Path("params.yaml")

# Upper bounds are what no data set needs and what later stages can still count, allocate or wait
# for, so that a slip of the pen fails in the first stage and not hours later.
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Photos = Annotated[int, Field(ge=1, le=100_000)]
Size = Annotated[int, Field(ge=1, le=16_384)]
Words = Annotated[int, Field(ge=1, le=1000)]
BatchSize = Annotated[int, Field(ge=1, le=16_384)]
Workers = Annotated[int, Field(ge=1, le=1024)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, le=1e4)]  # above, training diverges in its first epoch


class _Section(BaseModel):
    """A section of params.yaml: every key is required, no other key or type is accepted.

    The docstring below each key is its description (`model_fields[key].description`).
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class DatasetParams(_Section):
    """The data set: its captions and photos."""

    format: Literal["flickr8k", "kaggle", "karpathy", "coco"]
    """Format of the caption files."""

    root: Annotated[str, Field(min_length=1)]
    """Folder with the photos and their captions."""


class SampleParams(_Section):
    """The sample data set: drawn scenes with five true captions each."""

    train: Photos
    """Number of training photos."""

    dev: Photos
    """Number of dev photos."""

    test: Photos
    """Number of test photos."""

    seed: Seed
    """Seed of the scenes and their captions."""


class CleanParams(_Section):
    """Caption cleaning, and splits for data sets without split lists."""

    style: Literal["default", "notebook"]
    """Cleaning style. `default` lower-cases the text and removes punctuation around words.
    `notebook` also removes it inside words, and drops one-letter words and words with digits."""

    split_seed: Seed
    """Seed for drawing the splits if the format has no split lists. All captions of a photo are in
    one split."""

    dev_share: Fraction
    """Share of photos drawn for the dev split."""

    test_share: Fraction
    """Share of photos drawn for the test split."""

    @model_validator(mode="after")
    def _leave_training_photos(self) -> "CleanParams":
        if self.dev_share + self.test_share >= 1:
            raise ValueError("dev_share and test_share leave no photo to train on")
        return self


class EncoderParams(_Section):
    """The encoder: a CNN of keras.applications and the source of its weights."""

    name: Annotated[str, Field(min_length=1)]
    """Name of any network in keras.applications."""

    weights: Annotated[str, Field(min_length=1)]
    """`imagenet` (the official weights), `random`, or the path of a weights file. DVC does not
    notice changes inside that file; run `dvc repro --force encoder` after one."""

    input_size: Annotated[int, Field(ge=32, le=4096)] | None
    """Side of the square input, in pixels; null uses the network's default (Xception: 299). The
    cost grows with the number of pixels; larger inputs may give better captions
    (docs/results.md)."""


class ExtractParams(_Section):
    """Feature extraction: the features stored for each photo, and which photos fail."""

    views: Literal["whole", "mirror", "crops"]
    """Views encoded per photo: `whole`: the photo; `mirror`: also its mirror image; `crops`: also
    five crops and their mirror images. The cost grows with the number of views. Training draws one
    view at random. Captioning uses the mean of all views with `average` pooling, and the whole
    photo with `quarters` or `grid`."""

    pooling: Literal["average", "quarters", "grid"]
    """Pooling of the feature maps: `average`: one vector per photo; `quarters`: one per quarter of
    the photo; `grid`: one per position of the last feature map (Xception: 10 x 10)."""

    scales: Annotated[int, Field(ge=1, le=16)]
    """Number of feature-map resolutions to pool, from the last backwards. 1 uses the last map
    alone; 2 adds the last map before the network's last downsampling; and so on."""

    dtype: Literal["float16", "float32"]
    """Number type of the stored features."""

    max_pixels: Annotated[int, Field(ge=1, le=1_000_000_000)]
    """Photos with more pixels fail by their header, before they are decoded."""

    max_failed_share: Annotated[float, Field(ge=0, le=1)]
    """The stage stops if more than this share of the photos failed. A single failed photo is
    tolerated, unless this is 0."""


class TokenizeParams(_Section):
    """The vocabulary."""

    min_count: Count
    """Words that occur less often in the training captions become `<unk>`. Null: 2, and 5 from
    10,000 training captions on."""


class TrainParams(_Section):
    """The decoder and its training by cross-entropy."""

    decoder: Literal["merge", "init_inject", "pre_inject", "par_inject", "attention"]
    """Architecture: `merge`, `init_inject`, `pre_inject`, `par_inject`, or `attention`, which needs
    `quarters` or `grid` pooling."""

    embedding_size: Size
    """Length of the word vectors."""

    units: Size
    """Number of LSTM units. Null: 256, and 512 from 10,000 training captions on."""

    dropout: Fraction
    """Dropout rate of the image features and the word vectors."""

    output_dropout: Fraction
    """Dropout rate before the logits; 0 reproduces the notebook's decoder."""

    tied_embeddings: bool
    """Whether the output layer shares its weights with the word embedding."""

    word_vectors: Literal["random", "captions"]
    """Initial word vectors: `random`, or computed from word co-occurrence in the training
    `captions`."""

    output_bias: Literal["zero", "frequency"]
    """Initial bias of the logits: `zero`, or the logarithm of each word's `frequency`."""

    feature_norm: Literal["none", "center", "l2"]
    """Normalization of the features: `none`; `center` subtracts the mean of the training photos;
    `l2` scales all vectors to the same length."""

    feature_noise: Annotated[float, Field(ge=0, le=1)]
    """Standard deviation of Gaussian noise added to the normalized features in training; 0 adds
    none. Keras accepts no more than 1."""

    spatial_residual_size: Annotated[int, Field(ge=0, le=1024)]
    """Number of features per position that describe its difference from the mean of all positions.
    Used by all decoders but `attention`, with `quarters` or `grid` pooling; 0 disables it."""

    max_words: Words
    """Training captions are truncated to this number of words, and validation captions have no
    more. The end of a caption is not counted."""

    batch_size: BatchSize
    """Captions per batch. Null: 64, and 128 from 10,000 training captions on."""

    learning_rate: Rate
    """Learning rate of Adam. Null: 0.001, and 0.002 from 10,000 training captions on."""

    schedule: Literal["constant", "cosine"]
    """Learning-rate schedule: `constant`, or `cosine` decay to 0 over all `epochs`. Null: constant,
    and cosine from 10,000 training captions on."""

    weight_decay: Fraction
    """Decoupled weight decay (AdamW), scaled by the learning rate; 0 disables it. Null: 0.3, and
    0.1 from 10,000 training captions on."""

    clip_norm: Annotated[float, Field(ge=1e-6, le=1e6)] | None
    """Gradients are clipped to this global norm; null disables clipping."""

    label_smoothing: Fraction
    """Share of the target probability that is spread evenly over all words."""

    condition_dropout: Fraction
    """Share of captions trained with null features in place of the photo's, as classifier-free
    guidance needs."""

    scheduled_sampling: Fraction
    """Share of input words that are replaced by the decoder's own predictions, reached linearly
    over the first ten epochs."""

    epochs: Count
    """Maximum number of epochs. Null: 100, and 12 from 10,000 training captions on."""

    patience: Count
    """Training stops after this many epochs without improvement."""

    select: Literal["cider", "loss"]
    """Criterion for the best epoch on the dev split: CIDEr-D, or the `loss` (cross-entropy)."""

    select_tolerance: Fraction
    """Epochs within this share of the best CIDEr-D are ranked by validation loss."""

    average_epochs: Count
    """Number of epochs over which the weights are averaged (exponentially) for validation and for
    the saved model; 1 disables averaging. Null: 4, and 1 from 10,000 training
    captions on."""

    select_beam_width: Annotated[int, Field(ge=1, le=100)]
    """Beam width for validation captions; 1 is greedy search."""

    seeds: Annotated[list[Seed], Field(min_length=1, max_length=100)]
    """One decoder is trained per seed. Several seeds show the variance and can form an ensemble."""

    sample_photos: Annotated[int, Field(ge=0, le=64)]
    """Number of dev photos captioned after each epoch, for artifacts/samples."""

    keep_every_epoch: bool
    """Whether to save the model of every epoch in artifacts/model/epochs."""

    @field_validator("seeds")
    @classmethod
    def _unique(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("two seeds are equal, so their decoders would be, too")
        return seeds


class DetectorParams(_Section):
    """The word detector: ridge regression from features to the words of the captions."""

    ridge_alpha: Annotated[float, Field(gt=0, le=1e6)]
    """Regularization strength of the ridge regression, relative to the mean squared error."""


class SelfCriticalParams(_Section):
    """The second training phase: self-critical training, which maximizes CIDEr-D directly."""

    epochs: Annotated[int, Field(ge=0, le=1_000_000)]
    """Maximum number of epochs; 0 disables the phase."""

    samples: Annotated[int, Field(ge=2, le=100)]
    """Captions sampled per photo."""

    batch_size: BatchSize
    """Photos per batch."""

    learning_rate: Rate
    """Learning rate of Adam."""


class EvaluateParams(_Section):
    """Evaluation: which searches are scored on the test split."""

    ensemble: bool
    """Whether the decoders of all seeds are evaluated as an ensemble; if not, only the first."""

    beam_widths: list[Annotated[int, Field(ge=2, le=100)]]
    """Beam widths to evaluate, in addition to greedy search. The widest is the primary search of
    metrics.json."""

    guidance: Annotated[float, Field(ge=0, le=10)]
    """Weight of classifier-free guidance; 0 disables it. Null: 0.2, and 0 from 10,000 training
    captions on."""

    word_logit_bias: Annotated[float, Field(ge=0, le=10)]
    """Weight of the word detector's log-odds, added to the logits; 0 disables it."""

    word_rerank_weight: Annotated[float, Field(ge=0, le=100)]
    """Weight of the agreement between a hypothesis and the detected words when hypotheses are
    reranked; 0 disables it."""

    neighbour_rerank_weight: Annotated[float, Field(ge=0, le=100)]
    """Weight of the agreement between a hypothesis and the captions of the nearest training photos
    when hypotheses are reranked; 0 disables it. Null: 0, and 1 from 10,000 training captions
    on."""

    max_words: Words
    """Maximum number of words in a caption; its end is not counted."""

    no_repeat_ngram_size: Annotated[int, Field(ge=0, le=1000)]
    """No n-gram of this size occurs twice in a caption; 0 sets no limit."""


class RuntimeParams(_Section):
    """Settings that do not change results beyond the last bits; no stage tracks them."""

    cache: Annotated[str, Field(min_length=1)]
    """Folder for computed features, downloaded weights and training checkpoints."""

    batch_size: BatchSize
    """Photos per encoder batch, computed in two passes; a kill loses at most one batch."""

    workers: Workers | None
    """Number of threads (with a GPU: processes) that decode photos; null uses one per core."""

    engine: Literal["auto", "keras", "openvino"]
    """Inference engine of the encoder. `auto` uses OpenVINO if it is installed and there is no
    GPU."""

    executor: Literal["local", "ray"]
    """Where the encoder runs: on this machine, or on a Ray cluster (docs/cluster.md)."""

    ray_address: Annotated[str, Field(min_length=1)] | None
    """Address of the cluster for `ray.init`; null uses RAY_ADDRESS, or this machine if it is not
    set."""

    ray_actors: Workers | None
    """Number of encoder processes on the cluster; null uses one per GPU or, without GPUs, one per
    machine."""

    tensorboard: bool
    """Whether to write logs to runs/ for `tensorboard --logdir runs`."""

    progress_seconds: Annotated[float, Field(gt=0, le=86_400)]
    """Seconds between lines of progress if the output is not a terminal."""

    @property
    def shared_cache(self) -> Path:
        """The folder `cache`, for what all checkouts share: vectors and downloads.

        In the workspace of an experiment, which DVC removes in the end, it is the folder of the
        project that the experiment belongs to.
        """
        return (dvc_cache.find_main_project() or Path()) / self.cache


class Params(_Section):
    """All sections of params.yaml."""

    dataset: DatasetParams
    sample: SampleParams
    clean: CleanParams
    encoder: EncoderParams
    extract: ExtractParams
    tokenize: TokenizeParams
    detector: DetectorParams
    train: TrainParams
    self_critical: SelfCriticalParams
    evaluate: EvaluateParams
    runtime: RuntimeParams

    @model_validator(mode="after")
    def _give_attention_positions(self) -> "Params":
        if self.train.decoder == "attention" and self.extract.pooling == "average":
            raise ValueError(
                "train.decoder attention needs positions to attend to: set extract.pooling to "
                "quarters or grid"
            )
        return self


def load_params(path: Path = PARAMS_FILE, training_captions: int = 0) -> Params:
    """Read and check params.yaml.

    It is read as YAML 1.2, as DVC does: `1e-3` is a number and `no` is a string.

    Args:
        path: the file.
        training_captions: the number of captions of training photos, by which `size_defaults`
            replaces null. A stage that reads such a key must pass it.

    Raises:
        InputError: the file is missing or not YAML, or a key is unknown, missing or invalid.
    """
    try:
        values = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{path} is not there: run this in the project's folder, or run `git checkout {path}`"
        ) from None
    # Values that do not match their YAML tag or form raise Python's built-in errors.
    except (OSError, ValueError, KeyError, RecursionError, YAMLError) as error:
        reason = collapsed_message(error)
        raise InputError(f"{path} cannot be read as YAML: {reason}") from None
    try:
        return Params.model_validate(fill_nulls(values, training_captions))
    except ValidationError as error:
        raise InputError(f"{path}: {_problems(error)}") from None


def _problems(error: ValidationError) -> str:
    """Return all problems as `key: problem`, on one line."""
    problems = []
    for detail in error.errors():
        key = ".".join(str(part) for part in detail["loc"]) or "the file"
        match detail["type"]:
            case "extra_forbidden":
                problem = "unknown key, remove it or correct its spelling"
            case "missing":
                problem = "missing key, add it"
            case "value_error":  # of our own rules, which name the values that matter
                problem = detail["msg"]
            case _:
                problem = f"{detail['msg']}, but it is {detail['input']!r}"
        problems.append(f"{key}: {problem}")
    return "; ".join(problems)
