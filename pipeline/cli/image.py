"""`caption image`: captions photos with a trained model."""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import FiniteFloatRange, combine_options
from pipeline.cli.output import printable_name
from pipeline.cli.photo_arguments import Notice, Photo, expand_photo_arguments
from pipeline.errors import InputError, one_line

if TYPE_CHECKING:
    from pipeline.captioner.captioner import Caption, Captioner

# Photos that are encoded and captioned together: few at first, so that captions appear at once.
# Batches of 32 take three quarters of the time of these, and print every few seconds only.
_FIRST_BATCH, _MAX_BATCH = 4, 16
_MAX_LISTED = 10  # failed photos, at the end
_ONLY_SEARCHES = {"beam_width", "word_rerank_weight", "neighbour_rerank_weight"}

_GenerateCaptions = Callable[[list[Any]], list[list["Caption"]]]

# Each option replaces a setting of search.json; without it, the setting stays.
_search_options = combine_options(
    click.option(
        "--beam-width",
        type=click.IntRange(1, 100),
        help="Captions that the search keeps while it adds words; 1: greedy.",
    ),
    click.option(
        "--guidance",
        type=FiniteFloatRange(0, 10),
        help="How much the photo counts against habit; 0: no more than usual.",
    ),
    click.option(
        "--word-logit-bias",
        type=FiniteFloatRange(0, 10),
        help="How much detected words are favoured; 0: not at all.",
    ),
    click.option(
        "--word-rerank-weight",
        type=FiniteFloatRange(0, 100),
        help="How much detected words count in the choice; 0: not at all.",
    ),
    click.option(
        "--neighbour-rerank-weight",
        type=FiniteFloatRange(0, 100),
        help="How much captions of similar training photos count in it; 0: not at all.",
    ),
    click.option(
        "--ensemble/--no-ensemble",
        default=None,
        help="Average the models of all seeds, or use only the first.",
    ),
)

_sampling_options = combine_options(
    click.option("--sample", is_flag=True, help="Sample captions at random instead of searching."),
    click.option(
        "--temperature",
        type=FiniteFloatRange(0, min_open=True),
        default=1.0,
        show_default=True,
        help="With --sample: below 1, likely words become likelier.",
    ),
    click.option(
        "--top-k", type=click.IntRange(1), help="With --sample: sample from the K likeliest words."
    ),
    click.option(
        "--top-p",
        type=FiniteFloatRange(0, 1, min_open=True),
        default=1.0,
        show_default=True,
        help="With --sample: sample from the likeliest words with this share of the probability.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help="With --sample: another seed gives other captions.",
    ),
)


@click.command(short_help="Caption photos with the trained model.")
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
    help="The folder that `dvc repro` writes to.",
)
def image(
    photos: tuple[str, ...],
    as_json: bool,
    top: int,
    artifacts: Path,
    sample: bool,
    **options: Any,
) -> None:
    """Caption PHOTOS: files, folders, or - for standard input.

    Prints a line per photo as soon as it is captioned: its name, a tab, its caption.
    Standard input may be one photo, or a list of files, one per line. What a file is, its
    content decides, not its name. A photo that fails, also one of another format than JPEG,
    PNG and WebP, is named on standard error, and again at the end if there are many; the
    others are still captioned, and the exit code is 1.

    The search settings travel with the model, in search.json: those of the last
    evaluation, whatever params.yaml says now. Options override them.

    With --json, log_probability is the natural logarithm of the caption's probability
    under the model: the nearer to 0, the surer. It compares captions of one photo, not
    photos. Detected words are those that a word detector, trained with the model,
    expects in captions of the photo.

    \b
    Examples:
      caption image holiday.jpg
      caption image --json --top 3 holiday.jpg
      caption image --beam-width 5 --guidance 0 holiday.jpg
      caption image --sample --top 5 --temperature 0.8 holiday.jpg
      find . -name '*.png' | caption image -
    """  # noqa: D301  (click wants a real backspace)
    sampling = {name: options.pop(name) for name in ("temperature", "top_k", "top_p", "seed")}
    overrides = {name: value for name, value in options.items() if value is not None}
    _check_options(overrides, list(sampling), top, sample=sample)
    arguments = list(expand_photo_arguments(photos))
    readable = [photo for photo in arguments if isinstance(photo, Photo)]
    notices = [notice for notice in arguments if isinstance(notice, Notice)]
    for notice in notices:
        click.echo(notice.line, err=True)
    failures = [notice for notice in notices if notice.is_failure]
    count = len(readable) + len(failures)
    if readable:
        from pipeline.captioner.captioner import Captioner  # noqa: PLC0415  (imports NumPy)

        captioner = Captioner.load(artifacts, min(_MAX_BATCH, len(readable)), **overrides)
        generate = _generator(captioner, top, sampling if sample else None)
        failures += _caption_all(captioner, generate, readable, top, as_json)
    if failures:
        if count > _MAX_BATCH:  # their lines may be far away by now
            failed = list(dict.fromkeys(failure.name for failure in failures))
            names = ", ".join(map(printable_name, failed[:_MAX_LISTED]))
            n_more = len(failed) - _MAX_LISTED
            more = f" and {n_more} more" if n_more > 0 else ""
            click.echo(f"{len(failures)} of {count} failed: {names}{more}", err=True)
        raise SystemExit(1)


def _check_options(
    overrides: dict[str, Any], sampling_options: list[str], top: int, *, sample: bool
) -> None:
    """Refuse options that do not go together."""
    if overrides.get("beam_width", top) < top:
        raise click.UsageError(f"--top {top} needs a --beam-width of {top} or more")
    if sample and (_ONLY_SEARCHES & set(overrides)):
        raise click.UsageError(
            "--beam-width, --word-rerank-weight and --neighbour-rerank-weight do not work with "
            "--sample"
        )
    if not sample and any(map(_is_given, sampling_options)):
        raise click.UsageError("--temperature, --top-k, --top-p and --seed need --sample")


def _is_given(option: str) -> bool:
    """Whether an option is on the command line, even with its default value."""
    source = click.get_current_context().get_parameter_source(option)
    return source is click.core.ParameterSource.COMMANDLINE


def _generator(
    captioner: "Captioner", top: int, sampling: dict[str, Any] | None
) -> _GenerateCaptions:
    """Return the function that captions decoded photos: by sampling, or else by search."""
    if sampling is None:
        # A wider beam if `top` captions are more than the settings' beam width gives.
        return partial(captioner.caption, beam_width=max(captioner.settings.beam_width, top))
    from pipeline.captioner.generation.sampling import Sampling  # noqa: PLC0415  (imports NumPy)

    return partial(captioner.sample, count=top, sampling=Sampling(**sampling))


def _caption_all(
    captioner: "Captioner",
    generate: _GenerateCaptions,
    photos: Sequence[Photo],
    top: int,
    as_json: bool,
) -> list[Notice]:
    """Print every photo's captions, in the order of `photos`; return the photos that failed."""
    from pipeline.features.decoding.photos import PhotoError, read_photo  # noqa: PLC0415  (imports NumPy)
    from pipeline.progress import Progress  # noqa: PLC0415

    failures: list[Notice] = []
    # The captions of a few photos show the progress themselves.
    total = len(photos) if len(photos) > _MAX_BATCH else 0
    with Progress("caption", total, "photos") as progress:
        for batch in _batches(photos):
            images = {}
            for position, photo in enumerate(batch):
                try:
                    data = photo.data if photo.path is None else read_photo(photo.path)
                    images[position] = captioner.decode(data)
                except (PhotoError, InputError) as error:
                    failures.append(Notice(photo.name, str(error)))
                    with progress.hidden():
                        click.echo(failures[-1].line, err=True)
            if images:
                results = generate(list(images.values()))
                with progress.hidden():
                    for position, captions in zip(images, results, strict=True):
                        _print(batch[position].name, captions[:top], as_json)
            if total:
                progress.advance(len(batch))
    return failures


def _batches(photos: Sequence[Photo]) -> Iterator[Sequence[Photo]]:
    """Yield batches that grow from `_FIRST_BATCH` to `_MAX_BATCH` photos."""
    start, size = 0, _FIRST_BATCH
    while start < len(photos):
        yield photos[start : start + size]
        start += size
        size = min(2 * size, _MAX_BATCH)


def _print(name: str, captions: Sequence["Caption"], as_json: bool) -> None:
    if as_json:
        best, *others = [
            {"caption": c.text, "log_probability": round(c.log_probability, 4)} for c in captions
        ]
        line = {"photo": name, **best, "alternatives": others}
        # ASCII, so that a name that is not valid UTF-8 survives.
        click.echo(json.dumps(line))
    else:
        for caption in captions:
            click.echo(f"{printable_name(name)}\t{one_line(caption.text)}")
