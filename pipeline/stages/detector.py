"""Stage `detector`: which words people use of what the CNN saw, from the training photos alone."""

from pathlib import Path

from pipeline.captioner.detector import fit_detector
from pipeline.captions.vocabulary import MARKERS, Vocabulary
from pipeline.datasets.table import read_table
from pipeline.errors import InputError, run_stage
from pipeline.features.store import FeatureStore
from pipeline.params import load_params

ARTIFACTS = Path("artifacts")


def main() -> None:
    """Write artifacts/detector.h5."""
    penalty = load_params().detector.penalty
    table = read_table(ARTIFACTS / "captions.parquet")
    vocabulary = Vocabulary.load(ARTIFACTS / "vocabulary.json", table.fingerprint)
    store = FeatureStore.open(ARTIFACTS / "features.h5")
    captions: dict[str, list[list[int]]] = {}
    for image_id, text in store.usable(table.captions("train"), "train"):
        captions.setdefault(image_id, []).append(vocabulary.encode(text))
    try:
        detector = fit_detector(captions, store.read, len(vocabulary), penalty)
    except ValueError as error:
        raise InputError(f"params.yaml: detector.penalty {penalty:g}: {error}: raise it") from None
    detector.save(ARTIFACTS / "detector.h5", vocabulary, store.encoding)
    print(f"{len(vocabulary) - len(MARKERS)} words, of {len(captions)} photos")


if __name__ == "__main__":
    run_stage(main)
