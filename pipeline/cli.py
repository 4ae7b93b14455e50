"""`caption`, the command line: a thin skin over the rooms."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.errors import InputError
from pipeline.photo_arguments import Photo, expand, on_one_line

if TYPE_CHECKING:
    from pipeline.captioner.captioning import Caption, Captioner
    from pipeline.status import StageStatus

_SHOWN = 4  # reasons, or failed photos, of many
_BEAM_WIDTH = 20  # as the widest of `evaluate`
_BATCH = 32  # photos that go through encoder and search together


class _Commands(click.Group):
    """Shows an `InputError` as one line, like any other misuse."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            raise click.ClickException(str(error)) from None


class _Number(click.FloatRange):
    """A finite number: "nan" passes every range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="caption-pipeline")
def main() -> None:
    """Caption photos with the model that `dvc repro` trained, and score captions."""


_Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def _all_of(*options: _Decorator) -> _Decorator:
    """Return what adds options to a command, the first one on top."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


# What counts beside the decoder's own opinion.
_weighed = _all_of(
    click.option(
        "--guidance",
        type=_Number(0, 10),
        default=0.2,
        show_default=True,
        help="How much more counts what the photo makes likelier.",
    ),
    click.option(
        "--word-bias",
        type=_Number(0, 10),
        default=0.3,
        show_default=True,
        help="How much likelier detected words get, and others less likely.",
    ),
    click.option(
        "--word-agreement",
        type=_Number(0, 100),
        default=3.0,
        show_default=True,
        help="Of a search: how much counts that a caption says detected words.",
    ),
)

# How captions are drawn at random.
_drawn = _all_of(
    click.option("--sample", is_flag=True, help="Draw captions at random, no beam search."),
    click.option(
        "--temperature",
        type=_Number(0, min_open=True),
        default=1.0,
        show_default=True,
        help="Of --sample: below 1 keeps to likely words.",
    ),
    click.option("--top-k", type=click.IntRange(1), help="Of --sample: from so many words."),
    click.option(
        "--top-p",
        type=_Number(0, 1, min_open=True),
        default=1.0,
        show_default=True,
        help="Of --sample: from words that hold this share of the probability.",
    ),
    click.option("--seed", type=click.IntRange(0), default=0, help="Of --sample."),
)


@main.command()
@click.argument("photos", nargs=-1, required=True, type=click.Path(allow_dash=True))
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--beam-width", type=click.IntRange(1, 100), help="Hypotheses kept. [default: 20]")
@click.option(
    "--top", type=click.IntRange(1, 100), default=1, show_default=True, help="Captions a photo."
)
@_weighed
@_drawn
@click.option(
    "--ensemble/--no-ensemble",
    default=True,
    help="Ask the decoders of all seeds, or the first alone.  [default: all]",
)
@click.option(
    "--artifacts",
    type=click.Path(path_type=Path),
    default=Path("artifacts"),
    show_default=True,
    help="The folder that `dvc repro` fills.",
)
def image(
    photos: tuple[str, ...],
    as_json: bool,
    beam_width: int | None,
    top: int,
    guidance: float,
    word_bias: float,
    word_agreement: float,
    artifacts: Path,
    sample: bool,
    ensemble: bool,
    **drawing: Any,
) -> None:
    """Caption PHOTOS: files, folders, or - for standard input.

    Prints a line for each photo: its name, a tab, its caption. Standard input may be one
    photo, or a list of files, one a line. A photo that cannot be read is reported on
    standard error; the others are still captioned and the exit code is 1.

    \b
    Examples:
      caption image holiday.jpg
      caption image --json --top 3 holiday.jpg
      caption image --guidance 0 --word-bias 0 --word-agreement 0 holiday.jpg
      caption image --sample --top 5 --temperature 0.8 holiday.jpg
      find . -name '*.png' | caption image -
    """  # noqa: D301  (click wants a real backspace)
    width = max(_BEAM_WIDTH, top) if beam_width is None else beam_width
    if width < top:
        raise click.UsageError(f"--top {top} needs a --beam-width of {top} or more")
    if sample and any(map(_given, ("beam_width", "word_agreement"))):
        raise click.UsageError(
            "--sample draws captions, --beam-width and --word-agreement are of a search"
        )
    if not sample and drawing != {"temperature": 1.0, "top_k": None, "top_p": 1.0, "seed": 0}:
        raise click.UsageError("--temperature, --top-k, --top-p and --seed are of --sample")
    asked = list(expand(photos))
    readable = [photo for photo in asked if isinstance(photo, Photo)]
    for failure in asked:
        if isinstance(failure, str):
            click.echo(failure, err=True)
    failed = len(asked) - len(readable)
    if readable:
        from pipeline.captioner.captioning import Captioner  # noqa: PLC0415  (imports NumPy)

        captioner = Captioner.load(
            artifacts,
            min(_BATCH, len(readable)),
            ensemble=ensemble,
            guidance=guidance,
            word_bias=word_bias,
            word_agreement=word_agreement,
        )
        if sample:
            from pipeline.captioner.sampling import Sampling  # noqa: PLC0415  (imports NumPy)

            say = partial(captioner.sample, count=top, sampling=Sampling(**drawing))
        else:
            say = partial(captioner.caption, beam_width=width)
        failed += _caption_all(captioner, say, readable, top, as_json)
    if failed:
        raise SystemExit(1)


def _given(option: str) -> bool:
    """Whether an option is on the command line, with whatever value."""
    source = click.get_current_context().get_parameter_source(option)
    return source is click.core.ParameterSource.COMMANDLINE


@main.command()
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
        **asdict(store.encoding),
        "fingerprint": store.fingerprint,
        "vectors' sha256": vectors,
    }
    for name, value in facts.items():
        click.echo(f"  {name:22}{value}")
    for image_id, reason in store.failed.items():
        click.echo(f"  failed: {on_one_line(image_id)}: {reason}")


@main.command()
def status() -> None:
    """Say what `dvc repro` would run and why, and how many photos are computed.

    \b
    Examples:
      caption status
    """  # noqa: D301  (click wants a real backspace)
    from pipeline.params import load_params  # noqa: PLC0415  (imports pydantic)
    from pipeline.status import photo_status, stage_statuses  # noqa: PLC0415

    params = load_params()
    for stage in stage_statuses():
        click.echo(f"{stage.name:10}{_stage_line(stage)}")
    click.echo()
    try:
        photos = photo_status(params, Path("artifacts"))
    except InputError as error:
        click.echo(f"photos    unknown: {error}")
        return
    click.echo(
        f"photos    {photos.computed} computed, {photos.new} new, {len(photos.failed)} unreadable"
    )
    for image_id, reason in list(photos.failed.items())[:_SHOWN]:
        click.echo(f"          {on_one_line(image_id)}: {reason}")
    if len(photos.failed) > _SHOWN:
        click.echo(f"          and {len(photos.failed) - _SHOWN} more")


# Which captions are scored.
_scored_against = _all_of(
    click.option("--split", help="Of the references, where the file has several."),
    click.option("--subset", is_flag=True, help="Leave out photos that a file lacks."),
)


@main.command()
@click.argument("candidates", type=click.Path(path_type=Path))
@click.argument("references", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object, x100.")
@click.option("--search", help="Of the candidates, where the file has several.")
@_scored_against
def score(
    candidates: Path,
    references: Path,
    as_json: bool,
    search: str | None,
    split: str | None,
    subset: bool,
) -> None:
    """Score the captions of the file CANDIDATES against those of REFERENCES.

    As coco-caption does, without Java. Either file may be a JSON object of ids to
    captions, COCO results or annotations, JSON Lines, CSV or Parquet.

    \b
    Examples:
      caption score candidates.json references.json
      caption score --json results.json captions_val2014.json
      caption score --search beam_20 --split test predictions.parquet captions.parquet
    """  # noqa: D301  (click wants a real backspace)
    from pipeline.scorecard import score_files  # noqa: PLC0415  (imports NumPy)

    card = score_files(candidates, references, split, search, subset=subset)
    for note in card.pairing.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(json.dumps(card.corpus) if as_json else "\n".join(card.lines()))


@main.command()
@click.argument("runs", nargs=2, metavar="RUN RUN")
@click.option(
    "--references",
    type=click.Path(path_type=Path),
    default=Path("artifacts/captions.parquet"),
    show_default=True,
    help="Captions by people of the same photos.",
)
@click.option("--search", help="Of the runs, where they have several. [default: beam_20]")
@_scored_against
def compare(
    runs: tuple[str, str], references: Path, search: str | None, split: str | None, subset: bool
) -> None:
    """Say whether two runs' captions of the same photos score differently, or by chance.

    A RUN is a git revision or an experiment of this project, a folder with
    predictions.parquet, or a file of captions. Photos are those of the test split, where
    the references have splits and no other is asked for.

    \b
    Examples:
      caption compare HEAD artifacts
      caption compare main cogged-burr --search greedy
      caption compare ours.json theirs.json --references references.json
    """  # noqa: D301  (click wants a real backspace)
    from pipeline.scorecard import USUAL, compare_runs, difference_lines  # noqa: PLC0415

    pairing, found = compare_runs(runs, references, split, search, subset=subset)
    for note in pairing.notes:
        click.echo(f"note: {note}", err=True)
    searched = search or USUAL["search"]
    click.echo(f"{len(pairing.image_ids)} photos; {searched}, where a run has several searches")
    click.echo("\n".join(difference_lines([on_one_line(run) for run in runs], found)))


def _stage_line(stage: "StageStatus") -> str:
    if stage.reasons:
        shown = "; ".join(stage.reasons[:_SHOWN])
        more = len(stage.reasons) - _SHOWN
        return f"would run: {shown}" + (f"; and {more} more" if more > 0 else "")
    if stage.after:
        return f"would run if the outputs of {' or '.join(stage.after)} change"
    return "up to date"


def _caption_all(
    captioner: "Captioner",
    say: Callable[[list[Any]], list[list["Caption"]]],
    photos: Sequence[Photo],
    top: int,
    as_json: bool,
) -> int:
    """Print every photo's captions in the order asked for; return how many photos failed."""
    from pipeline.features.photos import PhotoError, read_photo  # noqa: PLC0415  (imports NumPy)
    from pipeline.progress import Progress  # noqa: PLC0415

    failed = 0
    # A single batch is over before a bar could be read.
    total = len(photos) if len(photos) > _BATCH else 0
    with Progress("caption", total, "photos") as progress:
        for start in range(0, len(photos), _BATCH):
            batch = photos[start : start + _BATCH]
            decoded = {}
            for position, photo in enumerate(batch):
                try:
                    data = photo.data if photo.path is None else read_photo(photo.path)
                    decoded[position] = captioner.decode(data)
                except PhotoError as error:
                    click.echo(f"{on_one_line(photo.name)}: {error}", err=True)
                    failed += 1
            if decoded:
                found = say(list(decoded.values()))
                for position, captions in zip(decoded, found, strict=True):
                    _print(batch[position].name, captions[:top], as_json)
            if total:
                progress.advance(len(batch))
    return failed


def _print(name: str, captions: Sequence["Caption"], as_json: bool) -> None:
    if as_json:
        best, *others = [
            {"caption": c.caption, "log_probability": round(c.log_probability, 4)} for c in captions
        ]
        line = {"photo": name, **best, "alternatives": others}
        click.echo(json.dumps(line))  # ASCII: a name that is no UTF-8 comes through unharmed
    else:
        for caption in captions:
            click.echo(f"{on_one_line(name)}\t{caption.caption}")
