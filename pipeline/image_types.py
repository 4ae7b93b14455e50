"""Image types: what a file is, by its first bytes. A file's name may say anything.

Signatures are those of the formats' specifications; for ISO media files (HEIC, AVIF, videos)
the brands of their first box, ISO/IEC 14496-12.
"""

import codecs
import re
import stat
from dataclasses import dataclass
from pathlib import Path

# Bytes from the start of a file that `identify` needs.
SIGNATURE_LENGTH = 1024


@dataclass(frozen=True)
class FileType:
    """A type of file, as users read it.

    Attributes:
        name: the noun with its article; plural with an s.
        fix: what to do to have such a photo captioned; empty if it is decoded as it is.
        is_picture: whether someone may expect a caption for such a file.
    """

    name: str
    fix: str = ""
    is_picture: bool = True

    @property
    def is_decodable(self) -> bool:
        """Whether photos of this type are decoded."""
        return self in DECODABLE

    @property
    def plural(self) -> str:
        """The noun in the plural, without an article."""
        return f"{self.name.partition(' ')[2]}s"

    @property
    def reason(self) -> str:
        """Why such a file is no photo that can be decoded, and the fix."""
        return f"{self.name}: {self.fix}"

    def count(self, number: int) -> str:
        """Return the noun with a number instead of its article."""
        return f"{number} {self.name.partition(' ')[2] if number == 1 else self.plural}"


JPEG, PNG, WEBP = FileType("a JPEG photo"), FileType("a PNG image"), FileType("a WebP image")
DECODABLE = (JPEG, PNG, WEBP)

_CONVERT = "convert to JPEG with heif-convert, sips (macOS) or magick"
_CONVERT_TO_PNG = "convert to PNG, for example with magick"
_DEVELOP = "develop to JPEG with the camera's program, darktable or RawTherapee"

_HEIC = FileType("a HEIC photo", _CONVERT)
_HEIF = FileType("a HEIF photo", _CONVERT)
_AVIF = FileType("an AVIF image", _CONVERT)
_RAW = FileType("a raw photo", _DEVELOP)
_JPEG_XL = FileType("a JPEG XL image", "convert to JPEG with djxl or magick")
_JPEG_2000 = FileType("a JPEG 2000 image", _CONVERT_TO_PNG)
_VIDEO = FileType("a video", "save a frame as JPEG, for example with ffmpeg")
_ARCHIVE = FileType("an archive", "unpack and move the photos here", is_picture=False)
_SVG = FileType("an SVG drawing", _CONVERT_TO_PNG)
_WEB_PAGE = FileType("a web page", "download the photo itself", is_picture=False)
_LFS_POINTER = FileType("a Git LFS pointer", "run `git lfs pull`")
_TEXT = FileType("a text file", "download the photo again", is_picture=False)
EMPTY = FileType("an empty file", "copy or download again")
UNKNOWN = FileType(
    "an unknown file", "only JPEG, PNG and WebP photos are decoded", is_picture=False
)
NOT_A_FILE = FileType("a special file", "only regular files are read", is_picture=False)

_BY_SIGNATURE = [
    (re.compile(signature, re.DOTALL), file_type)
    for signature, file_type in (
        (rb"\xff\xd8\xff", JPEG),
        (rb"\x89PNG\r\n\x1a\n", PNG),
        (rb"RIFF....WEBP", WEBP),
        (rb"GIF8[79]a", FileType("a GIF image", _CONVERT_TO_PNG)),
        # "BM" alone may begin a text; the size of the second header is one of these.
        (rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", FileType("a BMP image", _CONVERT_TO_PNG)),
        # Canon, Olympus, Panasonic, Fujifilm, Sigma, Minolta.
        (rb"II\*\0....CR|IIR[OS]|MMOR|IIU\0|FUJIFILMCCD-RAW|FOVb|\0MRM", _RAW),
        # The raw files of Nikon, Sony, Pentax and Adobe (DNG) are TIFF files, too.
        (
            rb"II\*\0|MM\0\*|II\+\0|MM\0\+",
            FileType(
                "a TIFF image or raw photo",
                "convert to PNG, for example with magick (TIFF) or darktable (raw)",
            ),
        ),
        (rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", _JPEG_XL),
        (rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n", _JPEG_2000),
        (rb"8BPS", FileType("a Photoshop file", "export as JPEG")),
        (rb"gimp xcf", FileType("a GIMP file", "export as JPEG")),
        (rb"%PDF-", FileType("a PDF document", "save the pictures as JPEG", is_picture=False)),
        (rb"\0\0[\x01\x02]\0", FileType("an icon", _CONVERT_TO_PNG)),
        (rb"P[1-7]\s", FileType("a PNM image", _CONVERT_TO_PNG)),
        (rb"RIFF....AVI |\x1aE\xdf\xa3|\0\0\x01[\xb3\xba]|FLV", _VIDEO),
        (rb"....(moov|mdat|wide|free|skip)", _VIDEO),
        (rb"PK\x03\x04|\x1f\x8b|Rar!|7z\xbc\xaf|BZh|\xfd7zXZ", _ARCHIVE),
        (
            rb"\x00\x05\x16\x07",
            FileType("a macOS metadata file", "copy the photo beside it", is_picture=False),
        ),
        (rb"version https://git-lfs", _LFS_POINTER),
    )
]
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), _AVIF),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), _HEIC),
    b"crx ": _RAW,
}
_HEIF_BRANDS = {b"mif1", b"mif2", b"msf1"}
_HTML = re.compile(rb"<(!doctype html|html|head|body|script|meta)\b", re.IGNORECASE)
_BYTE_ORDER_MARK_AND_SPACE = re.compile(rb"(\xef\xbb\xbf)?\s*")
_CONTROL_BYTES = re.compile(rb"[\0-\x08\x0e-\x1a\x1c-\x1f]")


def identify(head: bytes) -> FileType:
    """Identify a file by its first `SIGNATURE_LENGTH` bytes, or all of them if it is shorter."""
    if not head:
        return EMPTY
    for signature, file_type in _BY_SIGNATURE:
        if signature.match(head):
            return file_type
    if head[4:8] == b"ftyp":
        return _identify_by_brands(head)
    return _identify_text(head)


def identify_file(path: Path) -> FileType:
    """Identify a file by its first bytes, without waiting for a pipe.

    Raises:
        OSError: it cannot be read.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        return NOT_A_FILE
    with path.open("rb") as file:
        return identify(file.read(SIGNATURE_LENGTH))


def _identify_by_brands(head: bytes) -> FileType:
    """Identify an ISO media file: the main brand decides, then the compatible ones."""
    end = min(int.from_bytes(head[:4]), len(head))
    brands = [head[8:12], *(head[start : start + 4] for start in range(16, end, 4))]
    for brand in brands:
        if brand in _BRANDS:
            return _BRANDS[brand]
    return _HEIF if _HEIF_BRANDS & set(brands) else _VIDEO


def _identify_text(head: bytes) -> FileType:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return _TEXT
    start = _BYTE_ORDER_MARK_AND_SPACE.sub(b"", head, count=1)
    if start.startswith(b"<") and re.search(rb"<svg[\s>]", head):
        return _SVG
    if _HTML.match(start) or (start.startswith(b"<") and _HTML.search(head)):
        return _WEB_PAGE
    if _CONTROL_BYTES.search(head):
        return UNKNOWN
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        return UNKNOWN
    return _TEXT
