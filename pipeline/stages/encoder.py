"""Stage `encoder`: fetch the CNN's weights once; record where they came from."""

import shutil
from dataclasses import asdict
from pathlib import Path

from pipeline.features.encoders import pretrained
from pipeline.features.encoders.networks import default_input_size, make_encoder_config
from pipeline.files import atomic_path, write_json
from pipeline.params import EncoderParams, load_params
from pipeline.stages.run import run_stage
from pipeline.storage import keras_weights

ARTIFACTS = Path("artifacts")
FILES = ("encoder.weights.h5", "encoder.json")


def main() -> None:
    """Write artifacts/encoder.weights.h5 and artifacts/encoder.json."""
    params = load_params()
    asked = params.encoder
    input_size = asked.input_size or default_input_size(asked.name)
    # DVC deletes the stage's outputs before it runs; what was downloaded is kept here.
    kept = Path(params.runtime.cache) / "encoders" / f"{asked.name}-{input_size}"
    for folder in (ARTIFACTS, kept):
        source = pretrained.existing_official_source(folder, asked.name, asked.weights, input_size)
        if source:
            _copy(folder, ARTIFACTS)
            print(f"{asked.name} is here already, in {folder}: {source}")
            return
    source = _fetch(asked, input_size)
    if asked.weights == "imagenet":
        _copy(ARTIFACTS, kept)
    print(f"{asked.name}, {input_size} x {input_size} pixels, weights: {source}")


def _fetch(asked: EncoderParams, input_size: int) -> str:
    network, source = pretrained.fetch_encoder(asked.name, asked.weights, input_size)
    description = make_encoder_config(asked.name, input_size, source, keras_weights.digest(network))
    keras_weights.save(network, ARTIFACTS / "encoder.weights.h5")
    write_json(ARTIFACTS / "encoder.json", asdict(description))
    return source


def _copy(source: Path, target: Path) -> None:
    if source == target:
        return
    for name in FILES:
        with atomic_path(target / name) as temporary:
            shutil.copyfile(source / name, temporary)


if __name__ == "__main__":
    run_stage(main)
