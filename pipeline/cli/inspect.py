"""`caption inspect`: verifies a feature store."""

from dataclasses import asdict
from pathlib import Path

import click

from pipeline.cli.output import printable_name


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
def inspect(file: Path) -> None:
    """Verify the feature store FILE, such as artifacts/features.h5, and describe it.

    Reads every vector and compares it with its digest. The exit code is 1 if anything is
    wrong.

    \b
    Examples:
      caption inspect artifacts/features.h5
    """  # noqa: D301  (click wants a real backspace)
    from pipeline.features.store import FeatureStore  # noqa: PLC0415  (imports NumPy, h5py)

    store = FeatureStore.open(file)
    vectors_sha256 = store.verify()
    click.echo(f"{file}: sound")
    properties = {
        "photos": f"{len(store.image_ids)}, and {len(store.failed)} that failed",
        "vectors": f"{' x '.join(map(str, store.shape))} numbers a photo",
        **asdict(store.feature_spec),
        "fingerprint": store.fingerprint,
        "vectors' sha256": vectors_sha256,
    }
    for name, value in properties.items():
        click.echo(f"  {name:22}{value}")
    for image_id, reason in store.failed.items():
        click.echo(f"  failed: {printable_name(image_id)}: {reason}")
