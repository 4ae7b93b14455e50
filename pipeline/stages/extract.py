"""Stage `extract`: encode the photos that are not cached, and write the feature store."""

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
from pipeline.system import dvc_cache

ARTIFACTS = Path("artifacts")
STORE = ARTIFACTS / "features.h5"


def main() -> None:
    """Write artifacts/features.h5 and artifacts/extract.json."""
    params = load_params()
    root = Path(params.dataset.root)
    photos = formats.find_photos(params.dataset.format, root)
    encoder = read_encoder_config(ARTIFACTS / "encoder.json")
    options = params.extract
    feature_spec = encoder.feature_spec(
        options.views, options.pooling, options.scales, options.dtype
    )
    result = Extractor(
        feature_spec=feature_spec,
        executor=_make_executor(params.runtime, feature_spec),
        cache=params.runtime.shared_cache,
        max_pixels=options.max_pixels,
        max_failed_share=options.max_failed_share,
        earlier_stores=dvc_cache.find_copies(STORE),
    ).extract(photos, root, STORE)
    write_json(
        ARTIFACTS / "extract.json",
        {
            "feature_spec": asdict(feature_spec),
            "fingerprint": result.fingerprint,
            "photos": len(result.photos),
            "failed": result.failed,
            "paths": {image_id: path.as_posix() for image_id, path in photos.items()},
        },
    )
    _print_summary(result)


def _make_executor(runtime: RuntimeParams, feature_spec: FeatureSpec) -> Executor:
    # One pass runs while the one before it is written. A batch is these two passes, so that a
    # kill costs no more than a batch. On a cluster passes have the same size: the last bits of
    # the vectors depend on it.
    pass_size = max(1, runtime.batch_size // 2)
    if runtime.executor == "local":
        engine = partial(load_engine, runtime.engine, ARTIFACTS, feature_spec, pass_size)
        return LocalExecutor(engine, runtime.workers, runtime.progress_seconds)
    # Workers of a cluster start in folders of their own, so the path must be absolute.
    artifacts = ARTIFACTS.absolute()
    return RayExecutor(
        make_engine=partial(load_engine, runtime.engine, artifacts, feature_spec, pass_size),
        pass_size=pass_size,
        actors=runtime.ray_actors,
        address=runtime.ray_address,
        progress_seconds=runtime.progress_seconds,
    )


def _print_summary(result: ExtractionResult) -> None:
    stats = result.stats
    duplicates = len(result.photos) - stats.computed - result.cached
    print(
        f"{len(result.photos)} photos: {stats.computed} computed in {stats.passes} passes, "
        + (f"{duplicates} duplicates of these, " if duplicates else "")
        + f"{result.cached} cached, {len(result.failed)} failed"
    )
    if stats.computed:
        print(
            f"{stats.computed / stats.seconds:.1f} photos/s; the encoder waited for photos "
            f"{stats.idle_seconds / stats.seconds:.0%} of that time"
        )
    for image_id, reason in sorted(result.failed.items())[:10]:
        print(one_line(f"  failed: {image_id}: {reason}"))


if __name__ == "__main__":
    run_stage(main)
