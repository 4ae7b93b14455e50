"""Stage `tokenize`: build the vocabulary from the training captions alone."""

from pathlib import Path

from pipeline.datasets.caption_table import read_caption_table
from pipeline.errors import InputError
from pipeline.files import remove_temporary_files
from pipeline.params import load_params
from pipeline.stages.run import run_stage
from pipeline.text.vocabulary import Vocabulary

ARTIFACTS = Path("artifacts")


def main() -> None:
    """Write artifacts/vocabulary.json."""
    table = read_caption_table(ARTIFACTS / "captions.parquet")
    texts = table.texts("train")
    min_count = load_params(training_captions=len(texts)).tokenize.min_count
    vocabulary = Vocabulary.build(texts, min_count, table.fingerprint)
    if not vocabulary.words:
        raise InputError(
            f"params.yaml: no word of the training captions occurs tokenize.min_count "
            f"{min_count} times: lower it"
        )
    remove_temporary_files(ARTIFACTS, "vocabulary.json")  # of a killed run; DVC runs one at a time
    vocabulary.save(ARTIFACTS / "vocabulary.json")
    unknown_share = vocabulary.unknown_count / (vocabulary.unknown_count + sum(vocabulary.counts))
    print(
        f"{len(vocabulary.words)} words occur {min_count} times or more; rarer words "
        f"({unknown_share:.1%} of the text) become <unk>"
    )


if __name__ == "__main__":
    run_stage(main)
