"""Stage `encoder`: fetch the CNN's weights once and record where they came from."""

import shutil
from dataclasses import asdict
from pathlib import Path

from pipeline.errors import one_line
from pipeline.features.encoders import pretrained
from pipeline.features.encoders.networks import default_input_size, make_encoder_config
from pipeline.features.feature_spec import read_encoder_config
from pipeline.files import atomic_path, write_json
from pipeline.params import EncoderParams, load_params
from pipeline.stages.run import run_stage
from pipeline.storage import keras_weights

ARTIFACTS = Path("artifacts")
WEIGHTS_FILE = "encoder.weights.h5"
CONFIG_FILE = "encoder.json"


def main() -> None:
    """Write artifacts/encoder.weights.h5 and artifacts/encoder.json."""
    params = load_params()
    encoder = params.encoder
    input_size = encoder.input_size or default_input_size(encoder.name)
    # DVC deletes the stage's outputs before it runs, so downloads are also kept in the cache.
    cached = params.runtime.shared_cache / "encoders" / f"{encoder.name}-{input_size}"
    for folder in (ARTIFACTS, cached):
        source = pretrained.existing_official_source(
            folder, encoder.name, encoder.weights, input_size
        )
        if source:
            _reuse(folder)
            print(one_line(f"{encoder.name}: reused the weights in {folder}: {source}"))
            return
    source = _fetch_encoder(encoder, input_size)
    if encoder.weights == "imagenet":
        for name in (WEIGHTS_FILE, CONFIG_FILE):
            _copy(ARTIFACTS / name, cached / name)
    print(f"{encoder.name}, {input_size} x {input_size} pixels, weights: {source}")


def _fetch_encoder(encoder: EncoderParams, input_size: int) -> str:
    """Write the encoder's two files; return the source of its weights."""
    network, source = pretrained.fetch_encoder(encoder.name, encoder.weights, input_size)
    config = make_encoder_config(encoder.name, input_size, source, keras_weights.digest(network))
    keras_weights.save(network, ARTIFACTS / WEIGHTS_FILE)
    write_json(ARTIFACTS / CONFIG_FILE, asdict(config))
    return source


def _reuse(folder: Path) -> None:
    """Take the weights in `folder`, and describe the graph that the present code builds."""
    config = read_encoder_config(folder / CONFIG_FILE)
    if folder != ARTIFACTS:
        _copy(folder / WEIGHTS_FILE, ARTIFACTS / WEIGHTS_FILE)
    present = make_encoder_config(
        config.encoder, config.input_size, config.weights_source, config.weights_sha256
    )
    write_json(ARTIFACTS / CONFIG_FILE, asdict(present))


def _copy(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


if __name__ == "__main__":
    run_stage(main)
