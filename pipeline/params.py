"""Typed params.yaml: an unknown, missing or unfit key is an error that names file and key."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.errors import InputError, collapsed

PARAMS_FILE = Path("params.yaml")

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0)]


class _Section(BaseModel):
    """A section of params.yaml: every key required, no other key, no silent conversion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DatasetParams(_Section):
    """Which captions and photos."""

    format: Literal["flickr8k", "kaggle", "karpathy", "coco"]
    root: Annotated[str, Field(min_length=1)]


class SampleParams(_Section):
    """How many scenes the embedded data set has, and which."""

    train: Count
    dev: Count
    test: Count
    seed: Seed


class CleanParams(_Section):
    """How captions become words, and how photos are split where no list says so."""

    style: Literal["default", "notebook"]
    split_seed: Seed
    dev_share: Fraction
    test_share: Fraction

    @model_validator(mode="after")
    def _leave_some_to_train(self) -> "CleanParams":
        if self.dev_share + self.test_share >= 1:
            raise ValueError("dev_share and test_share leave no photo to train on")
        return self


class EncoderParams(_Section):
    """The CNN: a network of keras.applications and where its weights come from."""

    name: Annotated[str, Field(min_length=1)]
    weights: Annotated[str, Field(min_length=1)]
    input_size: Annotated[int, Field(ge=32, le=4096)] | None


class ExtractParams(_Section):
    """What is stored of each photo, and which photos are refused."""

    views: Literal["whole", "mirror", "crops"]
    pooling: Literal["average", "quarters", "grid"]
    scales: Count
    dtype: Literal["float16", "float32"]
    max_pixels: Count
    max_failed_share: Annotated[float, Field(ge=0, le=1)]


class TokenizeParams(_Section):
    """Which words the vocabulary has."""

    min_count: Count


class TrainParams(_Section):
    """The decoder and how it learns."""

    decoder: Annotated[str, Field(min_length=1)]
    embedding_size: Count
    units: Count
    dropout: Fraction
    output_dropout: Fraction
    tied_embeddings: bool
    word_vectors: Literal["random", "captions"]
    output_bias: Literal["zero", "frequency"]
    feature_norm: Literal["none", "center", "l2"]
    feature_noise: Annotated[float, Field(ge=0)]
    spatial_residual_size: Annotated[int, Field(ge=0)]
    max_words: Count
    batch_size: Count
    learning_rate: Rate
    schedule: Literal["constant", "cosine"]
    weight_decay: Fraction
    clip_norm: Annotated[float, Field(gt=0)] | None
    label_smoothing: Fraction
    condition_dropout: Fraction
    scheduled_sampling: Fraction
    epochs: Count
    patience: Count
    select: Literal["cider", "loss"]
    select_tolerance: Fraction
    average_epochs: Count
    select_beam_width: Annotated[int, Field(ge=1, le=100)]
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=100)]
    sample_photos: Annotated[int, Field(ge=0, le=64)]
    keep_every_epoch: bool

    @field_validator("seeds")
    @classmethod
    def _different(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("two seeds are equal, and so would be their decoders")
        return seeds


class DetectorParams(_Section):
    """The regression from features to words."""

    ridge_alpha: Annotated[float, Field(gt=0)]


class SelfCriticalParams(_Section):
    """The second phase of training, on CIDEr-D; no epochs, no second phase."""

    epochs: Annotated[int, Field(ge=0)]
    samples: Annotated[int, Field(ge=2, le=100)]
    batch_size: Count
    learning_rate: Rate


class EvaluateParams(_Section):
    """The searches that are scored; greedy always is."""

    ensemble: bool
    beam_widths: list[Annotated[int, Field(ge=2, le=100)]]
    guidance: Annotated[float, Field(ge=0, le=10)]
    word_logit_bias: Annotated[float, Field(ge=0, le=10)]
    word_rerank_weight: Annotated[float, Field(ge=0, le=100)]
    max_words: Count
    no_repeat_ngram_size: Annotated[int, Field(ge=0)]


class RuntimeParams(_Section):
    """What changes no result; no stage tracks it."""

    cache: Annotated[str, Field(min_length=1)]
    batch_size: Count
    workers: Count | None
    engine: Literal["auto", "keras", "openvino"]
    executor: Literal["local", "ray"]
    ray_address: Annotated[str, Field(min_length=1)] | None
    ray_actors: Count | None
    tensorboard: bool
    progress_seconds: Annotated[float, Field(gt=0)]


class Params(_Section):
    """params.yaml, one attribute per section."""

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


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check params.yaml.

    YAML 1.2, as DVC reads it: `1e-3` is a number, `no` a word.

    Raises:
        InputError: the file is absent, is no YAML, or a key is unknown, missing or unfit.
    """
    try:
        values = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{path} is not there: run this in the project's folder, or `git checkout {path}`"
        ) from None
    # Values that YAML tags or shapes promise and that are not there raise Python's own errors.
    except (OSError, ValueError, KeyError, RecursionError, YAMLError) as error:
        reason = collapsed(error)
        raise InputError(f"{path} cannot be read as YAML: {reason}") from None
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{path}: {_describe(error)}") from None


def _describe(error: ValidationError) -> str:
    """Every complaint as `key: what is wrong`, in one line."""
    complaints = []
    for detail in error.errors():
        key = ".".join(str(part) for part in detail["loc"]) or "the file"
        match detail["type"]:
            case "extra_forbidden":
                complaint = "unknown key, remove it or mend its spelling"
            case "missing":
                complaint = "missing key, add it"
            case _:
                complaint = f"{detail['msg']}, but it is {detail['input']!r}"
        complaints.append(f"{key}: {complaint}")
    return "; ".join(complaints)
