"""`caption image`: captions photos with a trained model."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import Number, all_of
from pipeline.cli.output import on_one_line
from pipeline.cli.photo_arguments import Photo, expand

if TYPE_CHECKING:
    from pipeline.captioner.captioner import Caption, Captioner

_BEAM_WIDTH = 20  # as the widest of `evaluate`
_BATCH = 32  # photos that go through encoder and search together

# What counts beside the decoder's own opinion.
_weighed = all_of(
    click.option(
        "--guidance",
        type=Number(0, 10),
        default=0.2,
        show_default=True,
        help="How much more counts what the photo makes likelier.",
    ),
    click.option(
        "--word-logit-bias",
        type=Number(0, 10),
        default=0.3,
        show_default=True,
        help="How much likelier detected words get, and others less likely.",
    ),
    click.option(
        "--word-rerank-weight",
        type=Number(0, 100),
        default=3.0,
        show_default=True,
        help="Of a search: how much counts that a caption says detected words.",
    ),
)

# How captions are drawn at random.
_drawn = all_of(
    click.option("--sample", is_flag=True, help="Draw captions at random, no beam search."),
    click.option(
        "--temperature",
        type=Number(0, min_open=True),
        default=1.0,
        show_default=True,
        help="Of --sample: below 1 keeps to likely words.",
    ),
    click.option("--top-k", type=click.IntRange(1), help="Of --sample: from so many words."),
    click.option(
        "--top-p",
        type=Number(0, 1, min_open=True),
        default=1.0,
        show_default=True,
        help="Of --sample: from words that hold this share of the probability.",
    ),
    click.option("--seed", type=click.IntRange(0), default=0, help="Of --sample."),
)


@click.command()
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
    word_logit_bias: float,
    word_rerank_weight: float,
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
      caption image --guidance 0 --word-logit-bias 0 --word-rerank-weight 0 holiday.jpg
      caption image --sample --top 5 --temperature 0.8 holiday.jpg
      find . -name '*.png' | caption image -
    """  # noqa: D301  (click wants a real backspace)
    width = max(_BEAM_WIDTH, top) if beam_width is None else beam_width
    if width < top:
        raise click.UsageError(f"--top {top} needs a --beam-width of {top} or more")
    if sample and any(map(_given, ("beam_width", "word_rerank_weight"))):
        raise click.UsageError(
            "--sample draws captions, --beam-width and --word-rerank-weight are of a search"
        )
    if not sample and any(map(_given, drawing)):
        raise click.UsageError("--temperature, --top-k, --top-p and --seed are of --sample")
    asked = list(expand(photos))
    readable = [photo for photo in asked if isinstance(photo, Photo)]
    for failure in asked:
        if isinstance(failure, str):
            click.echo(failure, err=True)
    failed = len(asked) - len(readable)
    if readable:
        from pipeline.captioner.captioner import Captioner  # noqa: PLC0415  (imports NumPy)

        captioner = Captioner.load(
            artifacts,
            min(_BATCH, len(readable)),
            ensemble=ensemble,
            guidance=guidance,
            word_logit_bias=word_logit_bias,
            word_rerank_weight=word_rerank_weight,
        )
        if sample:
            from pipeline.captioner.generation.sampling import Sampling  # noqa: PLC0415  (imports NumPy)

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
                    with progress.hidden():
                        click.echo(f"{on_one_line(photo.name)}: {error}", err=True)
                    failed += 1
            if decoded:
                found = say(list(decoded.values()))
                with progress.hidden():
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
