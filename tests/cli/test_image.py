import itertools
import os
import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from pipeline.captioner.captioner import Captioner
from pipeline.cli.main import main
from tests.conftest import encoded
from tests.support.artifacts import LEARNED, drawn, write_photos
from tests.support.cli import captions, failed, image, lines, objects, succeeded

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def loaded(artifacts: Path) -> Captioner:
    return Captioner.load(artifacts, 32, "keras", guidance=0.0)


@pytest.fixture
def caption(
    artifacts: Path, loaded: Captioner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Run:
    """Return a function that runs `image` in an empty folder, with a loaded captioner."""

    def load(*_: object, **overrides: Any) -> Captioner:
        return replace(loaded, settings=replace(loaded.settings, **overrides))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Captioner, "load", staticmethod(load))

    def run(*arguments: object, data: bytes = b"") -> Result:
        return image("--artifacts", artifacts, *arguments, data=data)

    return run


# What is captioned.


def test_photos_are_captioned_in_the_order_of_the_arguments_a_line_each(caption: Run) -> None:
    write_photos(Path(), 4)
    result = caption("03.png", "00.png", "02.png", "03.png")
    succeeded(result)
    assert lines(result) == [[f"{seed:02}.png", LEARNED[seed]] for seed in (3, 0, 2, 3)]


def test_a_folder_means_all_photos_in_it_and_its_subfolders_sorted(caption: Run) -> None:
    names = ["a/b/z.WEBP", "a/c.JPG", "b.jpeg", "a.png"]
    for seed, name in enumerate(names):
        path = Path("folder", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(drawn(seed), "PNG"))
    for name in ("notes.txt", "a/old.gif", "jpg", "a/.png"):
        Path("folder", name).write_text("no photo", "utf-8")
    Path("folder/album.png").mkdir()
    result = caption("folder")
    assert result.exit_code == 0
    assert result.stderr == "folder: 3 text files are not captioned (a/old.gif, jpg, notes.txt)\n"
    assert [name for name, _ in lines(result)] == [
        str(Path("folder", name)) for name in sorted(names, key=lambda name: Path(name).parts)
    ]
    assert captions(result) == [LEARNED[0], LEARNED[1], LEARNED[3], LEARNED[2]]


def test_a_folder_without_photos_is_reported(caption: Run) -> None:
    write_photos(Path(), 1)
    Path("empty").mkdir()
    result = caption("empty", "00.png")
    failed(result, "empty: no JPEG, PNG or WebP photo in this folder")
    assert lines(result) == [["00.png", LEARNED[0]]]


def test_the_bytes_of_a_folder_s_files_decide_and_not_their_names(caption: Run) -> None:
    names = ["a.jfif", "b.jpe", "c.jpg_large", "d", "e.heic", "q.jpg?w=640"]
    Path("folder/deep").mkdir(parents=True)
    for seed, name in enumerate(names):
        Path("folder", name).write_bytes(encoded(drawn(seed), "PNG"))
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    for name in ("1.HEIC", "2.HEIC", "3.heic", "deep/4.jpeg.heic"):
        Path("folder", name).write_bytes(heic)
    Path("folder/film.mov").write_bytes(b"\0\0\0\x14ftypqt  \0\0\0\0qt  ")
    Path("folder/named.jpg").write_bytes(heic)
    Path("folder/captions.csv").write_text("image,caption\n", "utf-8")
    if hasattr(os, "mkfifo"):
        os.mkfifo("folder/pipe")
    result = caption("folder")
    assert result.exit_code == 1
    assert captions(result) == LEARNED[:6]
    convert = "convert to JPEG with heif-convert, sips (macOS) or magick"
    examples = "(1.HEIC, 2.HEIC, 3.heic and 1 more)"
    frame = "save a frame as JPEG, for example with ffmpeg"
    special = ["folder: 1 special file is not captioned (pipe)"] if hasattr(os, "mkfifo") else []
    assert sorted(result.stderr.splitlines()) == sorted(
        [
            f"folder: 4 HEIC photos are not captioned {examples}: {convert}",
            "folder: 1 text file is not captioned (captions.csv)",
            f"folder: 1 video is not captioned (film.mov): {frame}",
            f"{Path('folder/named.jpg')}: a HEIC photo: {convert}",
            *special,
        ]
    )


@pytest.mark.parametrize("url", ["https://example.org/a b.jpg?w=1&h=2", "HTTP://example.org/"])
def test_a_photo_on_the_web_is_not_fetched_but_how_to_do_that_is_shown(
    caption: Run, url: str
) -> None:
    write_photos(Path(), 1)
    for result in (caption(url, "00.png"), caption("-", data=f"{url}\n00.png\n".encode())):
        failed(
            result,
            f"{url}: only files are read: download the photo with "
            f"`curl -L -o photo.jpg {shlex.quote(url)}` and caption photo.jpg",
        )
        assert captions(result) == LEARNED[:1]


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("WEBP", {"lossless": True}), ("JPEG", {"quality": 100, "subsampling": 0})],
)
def test_standard_input_may_be_a_photo(caption: Run, kind: str, options: dict[str, Any]) -> None:
    result = caption("-", data=encoded(drawn(0), kind, **options))
    succeeded(result)
    assert lines(result) == [["-", LEARNED[0]]]


def test_standard_input_may_be_a_list_of_files(caption: Run) -> None:
    write_photos(Path("some photos"), 3)
    # A name that starts like a WebP file, and one with a line separator of Unicode.
    for name, seed in (("RIFF.png", 3), ("one\u2028name.png", 4)):
        drawn(seed).save(name)
    file_list = "RIFF.png\nsome photos/01.png\r\n\n  \none\u2028name.png\nsome photos/00.png"
    result = caption("-", "some photos/02.png", data=file_list.encode())
    succeeded(result)
    assert captions(result) == [LEARNED[seed] for seed in (3, 1, 4, 0, 2)]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n \n",
        b"\x00\xff\xfe\x01",
        b"a.png\0b.png\0",
    ],
    ids=["nothing", "blank", "bytes", "NUL"],
)
def test_standard_input_of_another_kind_is_reported(caption: Run, data: bytes) -> None:
    result = caption("-", data=data)
    failed(result, "-: standard input is neither a photo nor a list of files")
    assert result.stdout == ""


@pytest.mark.parametrize("kind", ["GIF", "BMP"])
def test_standard_input_of_another_format_is_reported_with_the_fix(caption: Run, kind: str) -> None:
    result = caption("-", data=encoded(drawn(0), kind))
    failed(result, f"-: a {kind} image: convert to PNG, for example with magick")
    assert result.stdout == ""


def test_a_closed_standard_input_is_reported(caption: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.cli.photo_arguments.sys", SimpleNamespace(stdin=None))
    failed(caption("-"), "-: standard input is neither a photo nor a list of files")


def test_a_list_may_contain_names_that_are_not_utf_8(caption: Run) -> None:
    write_photos(Path(), 1)
    name = os.fsdecode(b"caf\xe9.png")
    shutil.copyfile("00.png", name)
    result = caption("-", data=b"00.png\n" + os.fsencode(name) + b"\n")
    succeeded(result)
    assert captions(result) == [LEARNED[0]] * 2


def test_endless_standard_input_is_not_read_to_its_end(
    caption: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.features.decoding.photos.MAX_BYTES", 1000)
    result = caption("-", data=bytes(1001))
    failed(result, "-: more than 1000 bytes, more than any photo has")


def test_a_damaged_photo_on_standard_input_is_reported(caption: Run) -> None:
    result = caption("-", data=encoded(drawn(0), "PNG")[:100])
    assert re.fullmatch(r"-: damaged image: .+\n", result.stderr)
    assert (result.exit_code, result.stdout) == (1, "")


def test_names_that_no_file_can_have_are_reported(caption: Run) -> None:
    long = "x" * 300
    result = caption(long, "")
    failed(
        result,
        f"{long}: cannot be read: File name too long",
        ": not a file",
    )


def _photos_of_every_kind() -> dict[str, bytes]:
    photo = drawn(6)
    deep = Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 256)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held sideways
    frames = [drawn(1), drawn(2)]
    return {
        "plain": encoded(photo, "PNG"),
        "opaque RGBA": encoded(photo.convert("RGBA"), "PNG"),
        "animated WebP": encoded(photo, "WEBP", save_all=True, append_images=frames, lossless=True),
        "turned": encoded(photo.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif),
        "grey": encoded(photo.convert("L"), "PNG"),
        "16-bit grey": encoded(deep, "PNG"),
        "grey JPEG": encoded(photo.convert("L"), "JPEG", quality=100),
        "CMYK": encoded(photo.convert("CMYK"), "JPEG", quality=100),
        "palette": encoded(photo.convert("P"), "PNG"),
        "two colours": encoded(photo.convert("1"), "PNG"),
    }


def test_photos_of_every_kind_are_captioned(caption: Run) -> None:
    kinds = _photos_of_every_kind()
    for name, data in kinds.items():
        Path(name).write_bytes(data)
    result = caption("--json", *kinds)
    succeeded(result)
    results = {
        line["photo"]: (line["caption"], line["log_probability"]) for line in objects(result)
    }
    assert list(results) == list(kinds)
    assert all(words for words, _ in results.values())
    best, log_probability = results["plain"]
    assert best == LEARNED[6]
    for same in ("opaque RGBA", "animated WebP", "turned"):
        assert results[same] == (best, pytest.approx(log_probability, rel=1e-3))
    assert results["grey"] != results["plain"]
    assert results["16-bit grey"] == (
        results["grey"][0],
        pytest.approx(results["grey"][1], rel=1e-3),
    )


def test_a_photo_rotated_by_its_exif_gets_the_caption_of_its_upright_original(caption: Run) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways = drawn(7).transpose(Image.Transpose.ROTATE_90)
    options: dict[str, Any] = {"quality": 100, "subsampling": 0}
    drawn(7).save("upright.png")
    sideways.save("turned.jpg", exif=exif, **options)
    sideways.save("sideways.jpg", **options)
    result = caption("--json", "upright.png", "turned.jpg", "sideways.jpg")
    succeeded(result)
    upright, turned, without_exif = objects(result)
    assert turned["caption"] == upright["caption"] == LEARNED[7]
    assert turned["log_probability"] == pytest.approx(upright["log_probability"], rel=0.2)
    # If the tag were ignored, the comparison above would fail.
    assert without_exif["log_probability"] != pytest.approx(upright["log_probability"], rel=0.5)


def test_photos_that_cannot_be_read_are_reported_and_the_others_captioned(caption: Run) -> None:
    write_photos(Path(), 3)
    Path("empty.jpg").touch()
    Path("letter.jpg").write_text("Dear photo", "utf-8")
    Path("half.png").write_bytes(encoded(drawn(0), "PNG")[:-40])
    arguments = ["gone.jpg", "00.png", "empty.jpg", "letter.jpg", "01.png", "half.png", "02.png"]
    result = caption(*arguments)
    assert result.exit_code == 1
    assert lines(result) == [[f"{seed:02}.png", LEARNED[seed]] for seed in range(3)]
    *first, last = result.stderr.splitlines()
    assert first == [
        "gone.jpg: cannot be read: No such file or directory",
        "empty.jpg: empty file",
        "letter.jpg: a text file: download the photo again",
    ]
    assert re.fullmatch("half.png: damaged image: .+", last)


def test_several_batches_are_captioned_in_order_with_progress(
    caption: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(step=10)
    monkeypatch.setattr("pipeline.progress.time", SimpleNamespace(monotonic=lambda: next(clock)))
    paths = write_photos(Path("photos"), 40)
    Path("photos/33.png").write_text("damaged", "utf-8")
    result = caption("--json", "photos")
    captioned = objects(result)
    assert [line["photo"] for line in captioned] == [str(p) for p in paths if p.stem != "33"]
    assert [line["caption"] for line in captioned[:12]] == LEARNED
    alone = objects(caption("--json", *paths[34:]))
    assert [line["caption"] for line in captioned[33:]] == [line["caption"] for line in alone]
    np.testing.assert_allclose(
        [line["log_probability"] for line in captioned[33:]],
        [line["log_probability"] for line in alone],
        rtol=1e-4,
    )
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "caption: 4 of 40 photos, 0.4 photos/s, 90 s left",
        "caption: 12 of 40 photos, 0.6 photos/s, 47 s left",
        "caption: 28 of 40 photos, 0.9 photos/s, 13 s left",
        "photos/33.png: a text file: download the photo again",
        "caption: 40 of 40 photos, 1.0 photos/s, 0 s left",
        "1 of 40 failed: photos/33.png",
    ]


# What is printed.


def test_json_has_the_best_caption_and_the_alternatives(caption: Run) -> None:
    write_photos(Path(), 2)
    one = objects(caption("--json", "00.png", "01.png"))
    assert [line.pop("log_probability") < 0 for line in one] == [True, True]
    assert one == [
        {"photo": f"{seed:02}.png", "caption": LEARNED[seed], "alternatives": []}
        for seed in range(2)
    ]
    result = caption("--json", "--top", "3", "00.png")
    succeeded(result)
    (line,) = objects(result)
    assert list(line) == ["photo", "caption", "log_probability", "alternatives"]
    assert [set(other) for other in line["alternatives"]] == [{"caption", "log_probability"}] * 2
    assert len({line["caption"], *(other["caption"] for other in line["alternatives"])}) == 3


AWKWARD = ['a "quoted" name.png', "two\nlines.png", "a\ttab.png", "Überfluß 犬.png", "back\\slash"]


def test_json_keeps_any_name_unchanged(caption: Run) -> None:
    for name in AWKWARD:
        drawn(0).save(name, "PNG")
    result = caption("--json", *AWKWARD)
    succeeded(result)
    assert [line["photo"] for line in objects(result)] == AWKWARD


def test_a_photo_whose_name_is_not_utf_8_is_captioned(caption: Run) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    try:
        drawn(0).save(name)
    except OSError:
        pytest.skip("this file system does not allow such names")
    result = caption("--json", name)
    succeeded(result)
    assert [line["photo"] for line in objects(result)] == [name]
    assert lines(caption(name)) == [["caf\ufffd.png", LEARNED[0]]]


def test_a_name_with_line_breaks_is_printed_on_one_line(caption: Run) -> None:
    drawn(0).save("a\nb\rc\td\u2028e \x1b[2J é.png")
    result = caption(next(Path().iterdir()), "gone\r\n\x1b.png")
    assert lines(result) == [[r"a\nb\rc\td\u2028e \x1b[2J é.png", LEARNED[0]]]
    failed(result, r"gone\r\n\x1b.png: cannot be read: No such file or directory")


def test_words_that_could_control_a_terminal_are_escaped(
    caption: Run, loaded: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [f"{n}\x1b[31m\n\u202e" for n in range(len(loaded.vocabulary.words))]
    evil = replace(loaded, vocabulary=replace(loaded.vocabulary, words=tuple(words)))
    monkeypatch.setattr(Captioner, "load", staticmethod(lambda *_, **__: evil))
    write_photos(Path(), 1)
    result = caption("00.png")
    succeeded(result)
    (line,) = result.stdout.splitlines()
    assert re.fullmatch(r"00\.png\t(\d+\\x1b\[31m\\n\\u202e ?)+", line)
    json_line = caption("--json", "00.png").stdout
    assert json_line.isascii()
    assert json_line.removesuffix("\n").isprintable()


def test_few_photos_are_not_listed_again_at_the_end_but_many_are(caption: Run) -> None:
    write_photos(Path("photos"), 3)
    few = caption("photos/00.png", "gone.jpg", "photos/01.png")
    failed(few, "gone.jpg: cannot be read: No such file or directory")
    gone = [f"gone\n{n:02}.jpg" for n in range(14)]
    many = caption(*gone, "photos")
    assert many.exit_code == 1
    assert captions(many) == LEARNED[:3]
    *_, last = many.stderr.splitlines()
    names = ", ".join(rf"gone\n{n:02}.jpg" for n in range(10))
    assert last == f"14 of 17 failed: {names} and 4 more"


def test_top_prints_several_captions_per_photo_best_first(caption: Run) -> None:
    write_photos(Path(), 2)
    result = caption("--top", "3", "00.png", "01.png")
    succeeded(result)
    assert [name for name, _ in lines(result)] == ["00.png"] * 3 + ["01.png"] * 3
    assert [captions(result)[0], captions(result)[3]] == LEARNED[:2]
    assert len(set(captions(result)[:3])) == 3
    (line,) = objects(caption("--json", "--top", "3", "00.png"))
    assert [line["caption"], *(other["caption"] for other in line["alternatives"])] == captions(
        result
    )[:3]


def test_top_alone_widens_the_beam(caption: Run) -> None:
    write_photos(Path(), 1)
    assert len(set(captions(caption("--top", "5", "00.png")))) == 5


def test_the_beam_width_is_that_of_the_settings_or_of_the_option(
    caption: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photos(Path(), 1)
    widths = []

    def spy(_: Captioner, photos: Sequence[Any], beam_width: int) -> list[Any]:
        widths.append(beam_width)
        return [[] for _ in photos]

    monkeypatch.setattr(Captioner, "caption", spy)
    for arguments in ([], ["--beam-width", "1"], ["--beam-width", "7", "--top", "2"], ["--top", 4]):
        succeeded(caption(*arguments, "00.png"))
    assert widths == [20, 1, 7, 20]
    widths.clear()
    succeeded(caption("--top", "30", "00.png"))
    assert widths == [30]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {}),
        (["--beam-width", "7"], {"beam_width": 7}),
        (["--guidance", "0"], {"guidance": 0.0}),
        (["--word-logit-bias", "1"], {"word_logit_bias": 1.0}),
        (["--word-rerank-weight", "0"], {"word_rerank_weight": 0.0}),
        (["--neighbour-rerank-weight", "0"], {"neighbour_rerank_weight": 0.0}),
        (["--ensemble"], {"ensemble": True}),
        (["--no-ensemble"], {"ensemble": False}),
        (
            ["--guidance", "0", "--word-logit-bias", "1", "--word-rerank-weight", "2"],
            {"guidance": 0.0, "word_logit_bias": 1.0, "word_rerank_weight": 2.0},
        ),
        (["--sample", "--top-k", "3", "--no-ensemble"], {"ensemble": False}),
    ],
)
def test_only_the_options_given_override_settings(
    caption: Run,
    loaded: Captioner,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    expected: dict[str, Any],
) -> None:
    write_photos(Path(), 1)
    calls = []

    def load(*_: object, **overrides: Any) -> Captioner:
        calls.append(overrides)
        return loaded

    monkeypatch.setattr(Captioner, "load", staticmethod(load))
    succeeded(caption(*arguments, "00.png"))
    assert calls == [expected]


def test_captions_can_be_sampled(caption: Run) -> None:
    write_photos(Path(), 2)
    samples = caption("--sample", "--top", "20", "--temperature", "3", "00.png", "01.png")
    succeeded(samples)
    assert [name for name, _ in lines(samples)] == ["00.png"] * 20 + ["01.png"] * 20
    assert len(set(captions(samples))) > 10
    again = caption("--sample", "--top", "20", "--temperature", "3", "00.png", "01.png")
    other = caption("--sample", "--top", "20", "--temperature", "3", "--seed", "1", "00.png")
    assert captions(again) == captions(samples)
    assert captions(other) != captions(samples)[:20]
    likeliest = caption("--sample", "--top-k", "1", "00.png")
    assert captions(likeliest) == captions(caption("--beam-width", "1", "00.png"))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--top", "4", "--beam-width", "3", "a.jpg"], "--top 4 needs a --beam-width of 4 or more"),
        (["--top", "0", "a.jpg"], "Invalid value for '--top'"),
        (["--beam-width", "101", "a.jpg"], "Invalid value for '--beam-width'"),
        (["--beam", "3", "a.jpg"], "No such option"),
        ([], "Missing argument 'PHOTOS...'"),
        (
            ["--sample", "--beam-width", "3", "a.jpg"],
            "--neighbour-rerank-weight do not work with --sample",
        ),
        (
            ["--sample", "--neighbour-rerank-weight", "3", "a.jpg"],
            "--beam-width, --word-rerank-weight and --neighbour-rerank-weight do not work with",
        ),
        (
            ["--sample", "--word-rerank-weight", "3", "a.jpg"],
            "--neighbour-rerank-weight do not work with --sample",
        ),
        (
            ["--top-k", "3", "a.jpg"],
            "--temperature, --top-k, --top-p and --seed need --sample",
        ),
        (
            ["--seed", "0", "a.jpg"],
            "--temperature, --top-k, --top-p and --seed need --sample",
        ),
        (["--sample", "--temperature", "0", "a.jpg"], "Invalid value for '--temperature'"),
        (["--sample", "--temperature", "inf", "a.jpg"], "inf is not a finite number"),
        (["--sample", "--top-p", "nan", "a.jpg"], "nan is not a finite number"),
        (["--guidance", "nan", "a.jpg"], "nan is not a finite number"),
        (["--guidance", "-1", "a.jpg"], "Invalid value for '--guidance'"),
        (["--word-logit-bias", "nan", "a.jpg"], "nan is not a finite number"),
        (["--word-rerank-weight", "101", "a.jpg"], "Invalid value for '--word-rerank-weight'"),
    ],
)
def test_misuse_is_reported_before_anything_is_read(arguments: list[str], problem: str) -> None:
    result = image("--artifacts", "nowhere", *arguments)
    assert result.exit_code == 2
    assert problem in result.stderr
    assert result.stdout == ""


def test_the_examples_are_not_misuse(caption: Run) -> None:
    write_photos(Path(), 1)
    shutil.copyfile("00.png", "holiday.jpg")
    help_text = CliRunner().invoke(main, ["image", "--help"]).stdout
    examples = re.findall(r"^ +(?:.*\| )?caption image (.*)$", help_text, re.MULTILINE)
    assert len(examples) == 5
    for arguments in examples:
        succeeded(caption(*arguments.split(), data=b"00.png\n"))
