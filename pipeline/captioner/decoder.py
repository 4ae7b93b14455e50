"""The interface of decoders: whole sequences to learn from, single steps to search with."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.captioner import merge


@dataclass(frozen=True)
class DecoderConfig:
    """All that is needed to rebuild a decoder's graph.

    Attributes:
        name: of the decoder, a key of `DECODERS`.
        vocabulary_size: ids, markers included.
        feature_shape: of one photo's vectors: (D,) or (P, D).
        embedding_size: length of a word's vector.
        units: of the LSTM.
        dropout: share of the image's and the words' numbers dropped while learning.
        output_dropout: the same of what the next word is told from.
    """

    name: str
    vocabulary_size: int
    feature_shape: tuple[int, ...]
    embedding_size: int
    units: int
    dropout: float
    output_dropout: float


@dataclass(frozen=True)
class Decoder:
    """One set of weights in three graphs, each a `keras.Model`.

    Attributes:
        config: what it was built from.
        network: [features (B, D) or (B, P, D), ids (B, T)] to logits (B, T, V): at each
            position the next word, given the words up to there (teacher forcing).
        start: features to the state before the first word, a list of arrays (B, ...).
        step: [ids (B,), *state] to [logits (B, V), *state].
    """

    config: DecoderConfig
    network: Any
    start: Any
    step: Any


# A decoder is a function of a `DecoderConfig`'s fields, less the name, to the three graphs.
DECODERS: Mapping[str, Callable[..., tuple[Any, Any, Any]]] = {"merge": merge.build}


def build_decoder(config: DecoderConfig) -> Decoder:
    """Build a decoder with initial weights, drawn from Keras' global seed."""
    sizes = asdict(config)
    return Decoder(config, *DECODERS[sizes.pop("name")](**sizes))
