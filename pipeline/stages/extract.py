"""Stage `extract`: every photo through the encoder, once ever; into the feature store."""

from dataclasses import asdict
from pathlib import Path

from pipeline.datasets import formats
from pipeline.errors import run_stage
from pipeline.features.encoders import read_encoder
from pipeline.features.engines import Engine, make_engine
from pipeline.features.extraction import Extraction, Extractor
from pipeline.features.weights import load_encoder
from pipeline.files import write_json
from pipeline.params import load_params

ARTIFACTS = Path("artifacts")


def main() -> None:
    """Write artifacts/features.h5 and artifacts/extract.json."""
    params = load_params()
    root = Path(params.dataset.root)
    photos = formats.photos(params.dataset.format, root)
    encoder = read_encoder(ARTIFACTS / "encoder.json")
    encoding = encoder.encoding(params.extract.pooling, params.extract.dtype)

    def engine() -> Engine:
        network = load_encoder(ARTIFACTS, params.extract.pooling)
        runtime = params.runtime
        return make_engine(runtime.engine, network, encoder.encoder, runtime.batch_size)

    result = Extractor(
        encoding=encoding,
        make_engine=engine,
        cache=Path(params.runtime.cache),
        max_pixels=params.extract.max_pixels,
        max_failed_share=params.extract.max_failed_share,
        workers=params.runtime.workers,
        progress_seconds=params.runtime.progress_seconds,
    ).extract(photos, root, ARTIFACTS / "features.h5")
    write_json(
        ARTIFACTS / "extract.json",
        {
            "encoding": asdict(encoding),
            "fingerprint": result.fingerprint,
            "photos": len(result.photos),
            "failed": result.failed,
        },
    )
    _report(result)


def _report(result: Extraction) -> None:
    seconds = result.seconds
    print(
        f"{len(result.photos)} photos: {result.computed} computed in {result.passes} passes, "
        f"{result.known} known before, {len(result.failed)} failed"
    )
    if result.computed:
        rate = result.computed / sum(seconds.values())
        share = seconds["waiting"] / sum(seconds.values())
        print(f"{rate:.1f} photos/s; the encoder waited for photos {share:.0%} of that time")
    for image_id, reason in sorted(result.failed.items())[:10]:
        print(f"  failed: {image_id}: {reason}")


if __name__ == "__main__":
    run_stage(main)
