"""Stage `detector`: which words people use of what the CNN saw, from the training photos alone."""

from pathlib import Path

from pipeline.captioner.word_detector import fit_detector
from pipeline.datasets.caption_table import read_caption_table
from pipeline.errors import InputError
from pipeline.features.store import FeatureStore
from pipeline.params import load_params
from pipeline.stages.run import run_stage
from pipeline.text.vocabulary import MARKERS, Vocabulary

ARTIFACTS = Path("artifacts")


def main() -> None:
    """Write artifacts/detector.h5."""
    ridge_alpha = load_params().detector.ridge_alpha
    table = read_caption_table(ARTIFACTS / "captions.parquet")
    vocabulary = Vocabulary.load(ARTIFACTS / "vocabulary.json", table.fingerprint)
    store = FeatureStore.open(ARTIFACTS / "features.h5")
    captions: dict[str, list[list[int]]] = {}
    for image_id, text in store.usable(table.captions("train"), "train"):
        captions.setdefault(image_id, []).append(vocabulary.encode(text))
    try:
        detector = fit_detector(captions, store.read, len(vocabulary), ridge_alpha)
    except ValueError as error:
        raise InputError(
            f"params.yaml: detector.ridge_alpha {ridge_alpha:g}: {error}: raise it"
        ) from None
    detector.save(ARTIFACTS / "detector.h5", vocabulary, store.feature_spec)
    print(f"{len(vocabulary) - len(MARKERS)} words, of {len(captions)} photos")


if __name__ == "__main__":
    run_stage(main)
