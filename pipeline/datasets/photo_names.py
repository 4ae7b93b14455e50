"""Photo names: which photo a caption file means, also where a name misses by a little.

A name that is no photo's exact name is compared by its *key*: in one case and one Unicode form,
without percent escapes, `./`, drive, host and the name of a photo folder in front, with `/` for
backslashes and one suffix for all of JPEG's. If no photo has that key, the folders in front and
the suffix may differ. A photo is only taken if nothing else could be meant: no second photo
fits the name, and no second name fits the photo.
"""

import difflib
import re
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from unicodedata import normalize
from urllib.parse import unquote

from pipeline.datasets.photo_folders import PHOTO_FOLDERS, is_safe_name, match_photo

PhotoNames = tuple[str, ...]  # possible names of one photo, the likeliest first

_JPEG_SUFFIXES = ("jpg", "jpeg", "jpe", "jfif")
_SUFFIX = re.compile(
    rf"\.({'|'.join(_JPEG_SUFFIXES)}|png|webp|heic|heif|avif|gif|bmp|tiff?)\Z", re.IGNORECASE
)
_HOST = re.compile(r"[a-z][a-z0-9+.-]{1,20}://[^/]*/", re.IGNORECASE)
_DRIVE = re.compile(r"[a-z]:", re.IGNORECASE)
_PHOTO_FOLDERS = frozenset(name.lower() for name in PHOTO_FOLDERS)
_MAX_LENGTH = 4096  # characters of a name; no system takes longer paths
_MAX_FOLDERS = 32  # of a name; a hostile one could have a million
_NEIGHBOURS = 20  # names on each side in alphabetical order that are compared letter by letter


@dataclass(frozen=True, slots=True)
class Match:
    """What a caption file's name of a photo refers to.

    Attributes:
        image_id: the photo; None if there is none.
        repair: how the name was repaired: "stray_suffix" or "photo_name"; "" if it was not.
        reason: why there is no photo: "unsafe_name", "photo_not_there",
            "photo_name_ambiguous" or "photo_of_other_type"; "" if there is one.
        has_stray_suffix: whether the name ends in a suffix such as `.jpg.1`.
    """

    image_id: str | None
    repair: str = ""
    reason: str = ""
    has_stray_suffix: bool = False

    def describe_repair(self, name: str) -> str:
        """Return the name and, if it is not part of the name, the photo, for an example."""
        return f"{name} -> {self.image_id}" if self.repair == "photo_name" else name


_AMBIGUOUS = Match(None, reason="photo_name_ambiguous")


class PhotoIndex(Collection[str]):
    """The image_ids of a data set, and the search for the photo that a name means."""

    def __init__(self, image_ids: Iterable[str], other_files: Iterable[str] = ()) -> None:
        """Index the photos.

        Args:
            image_ids: the photos.
            other_files: names of the files in the photo folder that are no photos.
        """
        self._image_ids = dict.fromkeys(image_ids)
        self._other_files = frozenset(other_files)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._image_ids

    def __iter__(self) -> Iterator[str]:
        return iter(self._image_ids)

    def __len__(self) -> int:
        return len(self._image_ids)

    def match_all(self, names: Iterable[PhotoNames]) -> dict[PhotoNames, Match]:
        """Match all names of one caption file; they have to be together, as they may compete."""
        matches: dict[PhotoNames, Match] = {}
        sure: set[str] = set()  # photos that a name surely means
        guesses: dict[PhotoNames, str] = {}
        for candidate in dict.fromkeys(names):
            match = self._match_spelling(candidate)
            similar = () if match else self._similar(candidate[0])
            if match and match.image_id:
                sure.add(match.image_id)
            elif len(similar) == 1:
                guesses[candidate] = similar[0]
            elif similar:
                match = _AMBIGUOUS
            matches[candidate] = match or self._missing(candidate)
        keys: dict[str, set[str | None]] = {}
        for candidate, image_id in guesses.items():
            keys.setdefault(image_id, set()).add(_key_of_name(candidate[0]))
        for candidate, image_id in guesses.items():
            if image_id not in sure:
                is_only = len(keys[image_id]) == 1
                matches[candidate] = Match(image_id, "photo_name") if is_only else _AMBIGUOUS
        return matches

    def nearest(self, name: str) -> str | None:
        """Return the image_id that is most like a name; None if there are no photos."""
        key = _key_of_name(name) or ""
        neighbours: set[str] = set()
        for keys, wanted in (
            (self._sorted_keys, key),
            (self._sorted_reversed_keys, key[::-1]),
        ):
            place = bisect_left(keys, (wanted, ""))
            around = keys[max(0, place - _NEIGHBOURS) : place + _NEIGHBOURS]
            neighbours.update(image_id for _, image_id in around)
        matcher = difflib.SequenceMatcher(b=key[:255])
        ratios = []
        for image_id in neighbours:
            matcher.set_seq1(_key(image_id))
            ratios.append((-matcher.ratio(), image_id))
        return min(ratios)[1] if ratios else None

    def _match_spelling(self, names: PhotoNames) -> Match | None:
        """Match a name that is right, or the right one written in another way."""
        if all(map(is_safe_name, names)):
            image_id, has_stray_suffix = match_photo(names, self)
            if image_id is not None:
                return Match(image_id, "stray_suffix" if has_stray_suffix else "")
        for key in map(_key_of_name, names):
            spelled = self._by_key.get(key, ()) if key else ()
            if spelled:
                return Match(spelled[0], "photo_name") if len(spelled) == 1 else _AMBIGUOUS
        return None

    def _similar(self, name: str) -> tuple[str, ...]:
        """Return photos whose names have fewer or more folders in front, or another suffix."""
        key = _key_of_name(name)
        if not key:
            return ()
        for path, by_path, by_tail in (
            (key, self._by_key, self._by_tail),
            (_stem(key), self._by_stem, self._by_stem_tail),
        ):
            similar = dict.fromkeys(by_path.get(path, ()) + by_tail.get(path, ()))
            for tail in _tails(path):
                similar.update(dict.fromkeys(by_path.get(tail, ())))
            if similar:
                return tuple(similar)
        return ()

    def _missing(self, names: PhotoNames) -> Match:
        stem = _stem(_key_of_name(names[0]) or "")
        stems, tails = self._other_stems
        if stem in stems or stem in tails or any(tail in stems for tail in _tails(stem)):
            return Match(None, reason="photo_of_other_type")
        if not all(map(is_safe_name, names)):
            return Match(None, reason="unsafe_name")
        _, has_stray_suffix = match_photo(names, self)
        return Match(None, reason="photo_not_there", has_stray_suffix=has_stray_suffix)

    # Indices are made once, and only if a name needs them. Two photos of a key are enough to know
    # that it is ambiguous.

    @cached_property
    def _by_key(self) -> dict[str, tuple[str, ...]]:
        return _group((_key(image_id), image_id) for image_id in self)

    @cached_property
    def _by_stem(self) -> dict[str, tuple[str, ...]]:
        return _group((_stem(_key(image_id)), image_id) for image_id in self)

    @cached_property
    def _by_tail(self) -> dict[str, tuple[str, ...]]:
        return _group((tail, image_id) for image_id in self for tail in _tails(_key(image_id)))

    @cached_property
    def _by_stem_tail(self) -> dict[str, tuple[str, ...]]:
        return _group(
            (tail, image_id) for image_id in self for tail in _tails(_stem(_key(image_id)))
        )

    @cached_property
    def _other_stems(self) -> tuple[frozenset[str], frozenset[str]]:
        stems = frozenset(_stem(_key(name)) for name in self._other_files)
        return stems, frozenset(tail for stem in stems for tail in _tails(stem))

    @cached_property
    def _sorted_keys(self) -> list[tuple[str, str]]:
        return sorted((_key(image_id), image_id) for image_id in self)

    @cached_property
    def _sorted_reversed_keys(self) -> list[tuple[str, str]]:
        return sorted((_key(image_id)[::-1], image_id) for image_id in self)


def _group(pairs: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    groups: dict[str, tuple[str, ...]] = {}
    for key, image_id in pairs:
        group = groups.get(key, ())
        if len(group) < 2 and image_id not in group:  # noqa: PLR2004  (see above)
            groups[key] = (*group, image_id)
    return groups


def _key_of_name(name: str) -> str | None:
    """Return the key of a caption file's name; None if it is no name, or leads upwards."""
    if len(name) > _MAX_LENGTH or "\0" in name:
        return None
    if any("\ud800" <= character <= "\udfff" for character in name):
        return None
    path = name.strip().replace("\\", "/")
    if host := _HOST.match(path):
        path = path[host.end() :].partition("?")[0]
    path = _DRIVE.sub("", path, count=1) if _DRIVE.match(path) else path
    key = _key(path.strip("/"))
    parts = key.split("/")
    return None if ".." in parts or not parts[-1] or len(parts) > _MAX_FOLDERS else key


def _key(path: str) -> str:
    if "%" in path:
        path = unquote(path)
    key = normalize("NFC", normalize("NFC", path).casefold())
    parts = [part for part in key.split("/") if part not in {"", "."}]
    while len(parts) > 1 and parts[0] in _PHOTO_FOLDERS:
        parts = parts[1:]
    if not parts:
        return ""
    suffix = _SUFFIX.search(parts[-1])
    if suffix and suffix[1] in _JPEG_SUFFIXES:
        parts[-1] = f"{parts[-1][: suffix.start()]}.jpg"
    return "/".join(parts)


def _stem(key: str) -> str:
    return _SUFFIX.sub("", key)


def _tails(key: str) -> Iterator[str]:
    """Yield the key without its first folder, without its first two, and so on."""
    parts = key.split("/")[-_MAX_FOLDERS:]
    for start in range(1, len(parts)):
        yield "/".join(parts[start:])
