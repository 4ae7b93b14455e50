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

_BATCH = 32  # photos that go through encoder and search together

# Search settings that differ from those of the last evaluation.
_search_options = all_of(
    click.option("--beam-width", type=click.IntRange(1, 100), help="Hypotheses kept."),
    click.option(
        "--guidance", type=Number(0, 10), help="Weight of classifier-free guidance; 0: none."
    ),
    click.option(
        "--word-logit-bias",
        type=Number(0, 10),
        help="How much detected words raise the logits; 0: not at all.",
    ),
    click.option(
        "--word-rerank-weight",
        type=Number(0, 100),
        help="How much detected words count in the ranking; 0: not at all.",
    ),
    click.option(
        "--ensemble/--no-ensemble",
        default=None,
        help="Let the decoders of all seeds vote, or use the first alone.",
    ),
)

_sampling_options = all_of(
    click.option("--sample", is_flag=True, help="Draw captions at random, without a search."),
    click.option(
        "--temperature",
        type=Number(0, min_open=True),
        default=1.0,
        show_default=True,
        help="With --sample: below 1, likely words become likelier.",
    ),
    click.option("--top-k", type=click.IntRange(1), help="With --sample: among so many words."),
    click.option(
        "--top-p",
        type=Number(0, 1, min_open=True),
        default=1.0,
        show_default=True,
        help="With --sample: among words that hold this share of the probability.",
    ),
    click.option("--seed", type=click.IntRange(0), default=0, help="With --sample."),
)


@click.command()
@click.argument("photos", nargs=-1, required=True, type=click.Path(allow_dash=True))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@click.option(
    "--top", type=click.IntRange(1, 100), default=1, show_default=True, help="Captions per photo."
)
@_search_options
@_sampling_options
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
    top: int,
    artifacts: Path,
    sample: bool,
    temperature: float,
    top_k: int | None,
    top_p: float,
    seed: int,
    **search: Any,
) -> None:
    """Caption PHOTOS: files, folders, or - for standard input.

    Prints a line per photo: its name, a tab, its caption. Standard input may be one
    photo, or a list of files, one per line. A photo that cannot be read is reported on
    standard error; the others are still captioned, and the exit code is 1.

    The search is the one that `dvc repro` evaluated, unless an option changes it.

    \b
    Examples:
      caption image holiday.jpg
      caption image --json --top 3 holiday.jpg
      caption image --guidance 0 --word-logit-bias 0 --word-rerank-weight 0 holiday.jpg
      caption image --sample --top 5 --temperature 0.8 holiday.jpg
      find . -name '*.png' | caption image -
    """  # noqa: D301  (click wants a real backspace)
    settings = {name: value for name, value in search.items() if value is not None}
    _check_options(settings, top, sample=sample)
    arguments = list(expand(photos))
    readable = [photo for photo in arguments if isinstance(photo, Photo)]
    for failure in arguments:
        if isinstance(failure, str):
            click.echo(failure, err=True)
    failed = len(arguments) - len(readable)
    if readable:
        from pipeline.captioner.captioner import Captioner  # noqa: PLC0415  (imports NumPy)

        captioner = Captioner.load(artifacts, min(_BATCH, len(readable)), **settings)
        if sample:
            from pipeline.captioner.generation.sampling import Sampling  # noqa: PLC0415  (NumPy)

            sampling = Sampling(temperature, top_k, top_p, seed)
            caption = partial(captioner.sample, count=top, sampling=sampling)
        else:
            width = settings.get("beam_width") or max(captioner.settings.beam_width, top)
            caption = partial(captioner.caption, beam_width=width)
        failed += _caption_all(captioner, caption, readable, top, as_json)
    if failed:
        raise SystemExit(1)


def _check_options(settings: dict[str, Any], top: int, *, sample: bool) -> None:
    """Refuse options that do not go together."""
    if settings.get("beam_width", top) < top:
        raise click.UsageError(f"--top {top} needs a --beam-width of {top} or more")
    if sample and ({"beam_width", "word_rerank_weight"} & set(settings)):
        raise click.UsageError(
            "--beam-width and --word-rerank-weight belong to a search, not to --sample"
        )
    if not sample and any(map(_is_given, ("temperature", "top_k", "top_p", "seed"))):
        raise click.UsageError("--temperature, --top-k, --top-p and --seed need --sample")


def _is_given(option: str) -> bool:
    """Whether an option is on the command line, with whatever value."""
    source = click.get_current_context().get_parameter_source(option)
    return source is click.core.ParameterSource.COMMANDLINE


def _caption_all(
    captioner: "Captioner",
    caption: Callable[[list[Any]], list[list["Caption"]]],
    photos: Sequence[Photo],
    top: int,
    as_json: bool,
) -> int:
    """Print every photo's captions in the order of `photos`; return how many photos failed."""
    from pipeline.features.photos import PhotoError, read_photo  # noqa: PLC0415  (imports NumPy)
    from pipeline.progress import Progress  # noqa: PLC0415

    failed = 0
    # A single batch is over before a bar could be read.
    total = len(photos) if len(photos) > _BATCH else 0
    with Progress("caption", total, "photos") as progress:
        for start in range(0, len(photos), _BATCH):
            batch = photos[start : start + _BATCH]
            pixels = {}
            for position, photo in enumerate(batch):
                try:
                    data = photo.data if photo.path is None else read_photo(photo.path)
                    pixels[position] = captioner.decode(data)
                except PhotoError as error:
                    with progress.hidden():
                        click.echo(f"{on_one_line(photo.name)}: {error}", err=True)
                    failed += 1
            if pixels:
                captions = caption(list(pixels.values()))
                with progress.hidden():
                    for position, of_photo in zip(pixels, captions, strict=True):
                        _print(batch[position].name, of_photo[:top], as_json)
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
