"""Stage `extract`: every photo through the encoder, once ever; into the feature store."""

from dataclasses import asdict
from functools import partial
from pathlib import Path

from pipeline.datasets import formats
from pipeline.errors import one_line
from pipeline.features.encoders.engines import load_engine
from pipeline.features.executors.local import LocalExecutor
from pipeline.features.executors.ray import RayExecutor
from pipeline.features.extractor import Executor, ExtractionResult, Extractor
from pipeline.features.feature_spec import FeatureSpec, read_encoder_config
from pipeline.files import write_json
from pipeline.params import RuntimeParams, load_params
from pipeline.stages.run import run_stage

ARTIFACTS = Path("artifacts")


def main() -> None:
    """Write artifacts/features.h5 and artifacts/extract.json."""
    params = load_params()
    root = Path(params.dataset.root)
    photos = formats.find_photos(params.dataset.format, root)
    encoder = read_encoder_config(ARTIFACTS / "encoder.json")
    wanted = params.extract
    encoding = encoder.encoding(wanted.views, wanted.pooling, wanted.scales, wanted.dtype)
    result = Extractor(
        encoding=encoding,
        executor=_executor(params.runtime, encoding),
        cache=Path(params.runtime.cache),
        max_pixels=params.extract.max_pixels,
        max_failed_share=params.extract.max_failed_share,
    ).extract(photos, root, ARTIFACTS / "features.h5")
    write_json(
        ARTIFACTS / "extract.json",
        {
            "encoding": asdict(encoding),
            "fingerprint": result.fingerprint,
            "photos": len(result.photos),
            "failed": result.failed,
            "paths": {image_id: path.as_posix() for image_id, path in photos.items()},
        },
    )
    _report(result)


def _executor(runtime: RuntimeParams, encoding: FeatureSpec) -> Executor:
    # One pass is under way while the one before it is written: a batch is the two of them,
    # so that no kill costs more. A cluster's passes are of the same size, for the same bits.
    photos = max(1, runtime.batch_size // 2)
    if runtime.executor == "local":
        engine = partial(load_engine, runtime.engine, ARTIFACTS, encoding, photos)
        return LocalExecutor(engine, runtime.workers, runtime.progress_seconds)
    # Workers of a cluster start in folders of their own.
    artifacts = ARTIFACTS.absolute()
    return RayExecutor(
        make_engine=partial(load_engine, runtime.engine, artifacts, encoding, photos),
        pass_size=photos,
        actors=runtime.ray_actors,
        address=runtime.ray_address,
        progress_seconds=runtime.progress_seconds,
    )


def _report(result: ExtractionResult) -> None:
    encoded = result.encoded
    copies = len(result.photos) - encoded.computed - result.known
    print(
        f"{len(result.photos)} photos: {encoded.computed} computed in {encoded.passes} passes, "
        + (f"{copies} copies of these, " if copies else "")
        + f"{result.known} known before, {len(result.failed)} failed"
    )
    if encoded.computed:
        print(
            f"{encoded.computed / encoded.seconds:.1f} photos/s; the encoder waited for photos "
            f"{encoded.waiting / encoded.seconds:.0%} of that time"
        )
    for image_id, reason in sorted(result.failed.items())[:10]:
        print(f"  failed: {one_line(image_id)}: {reason}")


if __name__ == "__main__":
    run_stage(main)
