import codecs

import pytest

from pipeline.datasets.encodings import decode_utf8, guess_encodings, is_not_utf8, without_mark

RUSSIAN = "Собака бежит по траве, мальчик стоит возле стены ."
TEXTS = {
    "CP1251": RUSSIAN,
    "KOI8-R": RUSSIAN,
    "SHIFT_JIS": "犬が草の上を走っている。",
    "EUC-JP": "犬が草の上を走っている。",
    "GB18030": "一只狗在草地上奔跑",
    "BIG5": "一隻狗在草地上奔跑",
    "EUC-KR": "개가 풀밭에서 뛰고 있다",
    "CP1252": "Un garçon près d'une fenêtre",
    "MACINTOSH": "Un garçon près d'une fenêtre",
    "CP437": "Un garçon près d'une fenêtre",
    "CP1250": "Chłopiec stoi przy ścianie, żółty pies biegnie",
    "CP1253": "Ένας σκύλος τρέχει",
    "CP1256": "كلب يركض على العشب",
}


def lines(text: str, count: int = 10) -> str:
    return "".join(f"photo{number}.jpg,{text}\n" for number in range(count))


@pytest.mark.parametrize("name", TEXTS)
def test_the_encoding_of_a_text_is_among_the_suggested_ones(name: str) -> None:
    codec = {"MACINTOSH": "mac_roman"}.get(name, name)
    data = lines(TEXTS[name]).encode(codec)
    assert is_not_utf8(data)
    examples = {guess.name: guess.example for guess in guess_encodings(data)}
    assert TEXTS[name][:12] in examples[name] or TEXTS[name][5:20] in examples[name]


def test_slips_in_a_utf8_file_are_no_other_encoding() -> None:
    good = lines("café") * 100
    assert not is_not_utf8(good.encode())
    assert not is_not_utf8(good.encode() + b"caf\xe9\n" * 10)
    assert not is_not_utf8(lines("a dog", 10_000).encode() + b"caf\xe9 na\xefve \x93ok\x94\n")
    assert not is_not_utf8(b"caf\xe9 \xe9")


def test_only_the_wrong_bytes_are_read_as_windows_1252() -> None:
    data = "é ü ".encode() + b"caf\xe9 \x93ok\x94 \x81 " + "日本 ñ".encode()
    assert decode_utf8(data) == "é ü café “ok” \x81 日本 ñ"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("text", ["A dog runs", RUSSIAN, "一只狗在草地上奔跑", "犬が草の上を"])
def test_wide_encodings_are_recognised_without_a_byte_order_mark(encoding: str, text: str) -> None:
    assert without_mark(f"image,caption\n{lines(text)}".encode(encoding)) == encoding


@pytest.mark.parametrize("data", [b"", b"\0", b"a\0b\0", b"a\0" + b"abcdefgh" * 9, b"\0" * 99])
def test_stray_nuls_are_no_wide_encoding(data: bytes) -> None:
    assert without_mark(data) is None


def test_utf8_is_no_wide_encoding() -> None:
    for text in TEXTS.values():
        assert without_mark(lines(text).encode()) is None
    assert without_mark(codecs.BOM_UTF8 + b"abc") is None
