"""`caption inspect`: verifies a feature store."""

from dataclasses import asdict
from pathlib import Path

import click

from pipeline.cli.output import on_one_line


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
def inspect(file: Path) -> None:
    """Verify the feature store FILE, artifacts/features.h5 say, and tell what it holds.

    Reads every vector and compares it with its digest. Exit code 1 if anything is wrong.

    \b
    Examples:
      caption inspect artifacts/features.h5
    """  # noqa: D301  (click wants a real backspace)
    from pipeline.features.store import FeatureStore  # noqa: PLC0415  (imports NumPy, h5py)

    store = FeatureStore.open(file)
    vectors = store.verify()
    click.echo(f"{file}: sound")
    facts = {
        "photos": f"{len(store.image_ids)}, and {len(store.failed)} that failed",
        "vectors": f"{' x '.join(map(str, store.shape))} numbers a photo",
        **asdict(store.feature_spec),
        "fingerprint": store.fingerprint,
        "vectors' sha256": vectors,
    }
    for name, value in facts.items():
        click.echo(f"  {name:22}{value}")
    for image_id, reason in store.failed.items():
        click.echo(f"  failed: {on_one_line(image_id)}: {reason}")
