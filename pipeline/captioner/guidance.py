"""Guidance: what a photo makes likelier than no photo would counts for more.

Classifier-free guidance (Ho and Salimans 2022), of captions as in Kornblith et al. (2023),
"Guiding image captioning models toward more specific captions". A decoder that learned from few
photos listens more to language than to what it sees; at every word it is asked twice, of the
photo and of a photo that tells nothing, and the difference is added once more in part.
"""

from typing import Any

from pipeline.backend import keras
from pipeline.captioner.decoder import Decoder


def guided(decoder: Decoder, strength: float) -> Decoder:
    """Return the decoder with guidance in its steps; whole sequences stay as they are.

    Args:
        decoder: trained.
        strength: the share of the difference of logits, with the photo and without one, that is
            added to those with the photo; 0 returns the decoder itself.
    """
    if not strength:
        return decoder
    start, step = decoder.graphs.start, decoder.graphs.step
    features = keras.Input(decoder.config.feature_shape, name="features")
    nothing = keras.layers.Rescaling(0.0, offset=decoder.nothing, name="no_photo")(features)
    states = [*_listed(start(features)), *_listed(start(nothing))]

    word = keras.Input((), dtype="int32", name="word")
    given = [
        keras.Input(array.shape[1:], name=f"state_{number}") for number, array in enumerate(states)
    ]
    half = len(given) // 2
    logits, *seeing = step([word, *given[:half]])
    blind_logits, *blind = step([word, *given[half:]])
    more = keras.layers.Rescaling(1 + strength, name="more")(logits)
    less = keras.layers.Rescaling(strength, name="less")(blind_logits)
    told = keras.layers.Subtract(name="guided")([more, less])
    graphs = decoder.graphs._replace(
        start=keras.Model(features, states, name="guided_start"),
        step=keras.Model([word, *given], [told, *seeing, *blind], name="guided_step"),
    )
    return Decoder(decoder.config, graphs)


def _listed(state: Any) -> list[Any]:
    return state if isinstance(state, list) else [state]
