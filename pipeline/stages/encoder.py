"""Stage `encoder`: fetch the CNN's weights once; record where they came from."""

import shutil
from dataclasses import asdict
from pathlib import Path

from pipeline.errors import run_stage
from pipeline.features import weights
from pipeline.features.encoders import default_input_size, describe_encoder
from pipeline.files import atomic_path, write_json
from pipeline.params import Encoder, load_params

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
        source = weights.already_there(folder, asked.name, asked.weights, input_size)
        if source:
            _copy(folder, ARTIFACTS)
            print(f"{asked.name} is here already, in {folder}: {source}")
            return
    source = _fetch(asked, input_size)
    if asked.weights == "imagenet":
        _copy(ARTIFACTS, kept)
    print(f"{asked.name}, {input_size} x {input_size} pixels, weights: {source}")


def _fetch(asked: Encoder, input_size: int) -> str:
    network, source = weights.fetch(asked.name, asked.weights, input_size)
    description = describe_encoder(asked.name, input_size, source, weights.digest(network))
    weights.save(network, ARTIFACTS / "encoder.weights.h5")
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
