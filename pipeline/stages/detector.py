"""Stage `detector`: fit the word detector to the training photos' features and captions.

It keeps the photos' directions and captions too, as the neighbours of other photos.
"""

from pathlib import Path

from pipeline.captioner.neighbours import fit_neighbours
from pipeline.captioner.training_artifacts import TrainingArtifacts
from pipeline.captioner.word_detector import fit_detector, fit_memory
from pipeline.errors import InputError
from pipeline.files import remove_temporary_files
from pipeline.params import load_params
from pipeline.stages.run import run_stage
from pipeline.system.memory import check_memory
from pipeline.text.vocabulary import SPECIAL_TOKENS

ARTIFACTS = Path("artifacts")


def main() -> None:
    """Write artifacts/detector.h5 and neighbours.h5."""
    ridge_alpha = load_params().detector.ridge_alpha
    artifacts = TrainingArtifacts.open(
        ARTIFACTS, "captions.parquet", "vocabulary.json", "features.h5"
    )
    vocabulary, store = artifacts.vocabulary, artifacts.store
    check_memory(
        fit_memory(store.shape[-1], len(vocabulary)),
        f"the word detector for {store.shape[-1]} features and {len(vocabulary)} words",
        "raise tokenize.min_count, or lower extract.scales",
    )
    captions: dict[str, list[list[int]]] = {}
    for image_id, text in artifacts.captions("train"):
        captions.setdefault(image_id, []).append(vocabulary.encode(text))
    try:
        detector = fit_detector(captions, store.read, len(vocabulary), ridge_alpha)
    except ValueError as error:
        raise InputError(
            f"params.yaml: detector.ridge_alpha {ridge_alpha:g}: {error}: raise it"
        ) from None
    neighbours = fit_neighbours(captions, store.read, detector)
    for name in ("detector.h5", "neighbours.h5"):
        remove_temporary_files(ARTIFACTS, name)  # of a killed run; DVC runs one at a time
    detector.save(ARTIFACTS / "detector.h5", vocabulary, store.feature_spec)
    neighbours.save(ARTIFACTS / "neighbours.h5", vocabulary, detector)
    print(f"{len(vocabulary) - len(SPECIAL_TOKENS)} words, fitted on {len(captions)} photos")


if __name__ == "__main__":
    run_stage(main)
