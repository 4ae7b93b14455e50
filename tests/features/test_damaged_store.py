import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.features.store import FeatureStore, vector_sha256
from tests.conftest import ENCODING
from tests.support.store import ALL, IDS, IDS_UTF8, vectors, write


def refusal(path: Path, use: Callable[[Path], Any] = FeatureStore.open) -> str:
    with pytest.raises(InputError) as caught:
        use(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert message.endswith(": run `dvc repro extract`")
    assert "\n" not in message
    return message


def other_version(file: Any) -> None:
    file.attrs["format_version"] = 1


def no_version(file: Any) -> None:
    del file.attrs["format_version"]


def other_fingerprint(file: Any) -> None:
    file.attrs["fingerprint"] = np.bytes_("0" * 64)


def other_encoding(file: Any) -> None:
    values = asdict(replace(ENCODING, weights_sha256="c" * 64))
    file.attrs["encoding"] = np.bytes_(json.dumps(values))


def more_encoding(file: Any) -> None:
    file.attrs["encoding"] = np.bytes_(json.dumps(asdict(ENCODING) | {"more": 1}))


def no_json(file: Any) -> None:
    file.attrs["encoding"] = np.bytes_("{")


def text_of_variable_length(file: Any) -> None:
    file.attrs["encoding"] = json.dumps(asdict(ENCODING))


def other_ids(file: Any) -> None:
    file["image_id"][0] = b"0.jpg"


def swapped_ids(file: Any) -> None:
    file["image_id"][:2] = file["image_id"][:2][::-1]


def doubled_ids(file: Any) -> None:
    file["image_id"][1] = file["image_id"][0]


def no_utf8(file: Any) -> None:
    file["image_id"][-1] = b"\xff\xff.jpg"


def swapped_photos(file: Any) -> None:
    file["photo_sha256"][:2] = file["photo_sha256"][:2][::-1]


def replaced(name: str, **options: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        data = options.pop("data", None)
        data = file[name][:] if data is None else data
        del file[name]
        file.create_dataset(name, data=data, **options)

    return change


def without(name: str) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        del file[name]

    return change


def a_group(file: Any) -> None:
    del file["features"]
    file.create_group("features")


def nothing_stored(file: Any) -> None:
    del file["features"]
    file.create_dataset("features", (len(IDS), 6), "f4")


def endless(name: str, kind: str, *shape: int) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        del file[name]
        # Written at the end of the file, whatever the shape promises.
        space = h5py.h5s.create_simple(shape)
        h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(np.dtype(kind)), space)

    return change


def external(file: Any) -> None:
    del file["features"]
    source = [("other.bin", 0, h5py.h5f.UNLIMITED)]
    file.create_dataset("features", (len(IDS), 6), "f4", external=source)


def virtual(file: Any) -> None:
    del file["features"]
    layout = h5py.VirtualLayout((len(IDS), 6), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "features", (len(IDS), 6))
    file.create_virtual_dataset("features", layout)


def soft_link(file: Any) -> None:
    file["other"] = h5py.SoftLink("/features")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_version, "format version 1, not 4"),
        (no_version, "is no feature store"),
        (other_fingerprint, "its fingerprint does not fit its rows"),
        (other_encoding, "its fingerprint does not fit its rows"),
        (more_encoding, "is no feature store"),
        (no_json, "is no feature store"),
        (text_of_variable_length, "encoding is no string of fixed length"),
        (other_ids, "its fingerprint does not fit its rows"),
        (swapped_ids, "its ids are not unique and sorted"),
        (doubled_ids, "its ids are not unique and sorted"),
        (no_utf8, "is no feature store"),
        (swapped_photos, "its fingerprint does not fit its rows"),
        (replaced("image_id", data=np.array(IDS_UTF8[:-1])), "zip() argument 2 is longer"),
        (replaced("image_id", data=IDS), "no strings of fixed length"),
        (replaced("failed/reason", data=np.array([b"one"])), "zip() argument 2 is shorter"),
        (without("features"), "is no feature store"),
        (without("failed"), "is no feature store"),
        (a_group, "is no feature store"),
        (replaced("features", compression="gzip"), "not one contiguous row for each id"),
        (replaced("features", chunks=(1, 6)), "not one contiguous row for each id"),
        (replaced("features", data=np.ones((7, 6), "f4")), "not one contiguous row"),
        (replaced("features", data=np.ones((8, 6), "f2")), "not one contiguous row"),
        (replaced("features", data=np.ones((8, 6), ">f4")), "not one contiguous row"),
        (without("vector_sha256"), "is no feature store"),
        (
            replaced("vector_sha256", data=np.array(["0" * 64] * 7, "S")),
            "its digests are not one for each id",
        ),
        (replaced("vector_sha256", data=["0" * 64] * 8), "no strings of fixed length"),
        (nothing_stored, "not one contiguous row for each id"),
        (endless("image_id", "S9", 1 << 40), "/image_id is larger than the file"),
        (external, "/features takes its data from another file"),
        (virtual, "/features takes its data from another file"),
        (soft_link, "/other is a link"),
    ],
)
def test_what_is_no_store_of_ours_is_refused(
    tmp_path: Path, change: Callable[[Any], None], words: str
) -> None:
    path = write(tmp_path / "a.h5")
    FeatureStore.open(path)
    with h5py.File(path, "r+") as file:
        change(file)
    assert words in refusal(path)


def test_absent_empty_and_truncated_stores_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    assert "is not there" in refusal(path)
    data = write(path).read_bytes()
    for length in (0, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        assert "is no readable HDF5 file" in refusal(path)


def verified(path: Path) -> str:
    return FeatureStore.open(path).verify()


def test_damage_is_refused_at_once_or_when_verified(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    good = write(path).read_bytes()
    draw = random.Random(0)
    refused = verified = harmless = 0
    for _ in range(300):
        data = bytearray(good)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        try:
            store = FeatureStore.open(path)
        except InputError:
            refused += 1
            continue
        assert (store.image_ids, store.shape) == (IDS, (6,))
        try:
            store.verify()
        except InputError:
            verified += 1
        else:
            assert np.array_equal(store.features, vectors(6))
            harmless += 1
    assert refused > verified > 0
    assert harmless < 5  # bytes that mean nothing


@pytest.mark.parametrize("shape", [(6,), (4, 6)])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_store_verifies_and_its_digest_is_of_every_row(
    tmp_path: Path, dtype: str, shape: tuple[int, ...]
) -> None:
    encoding = replace(ENCODING, dtype=dtype)
    stored = vectors(*shape).astype(dtype)
    path = write(tmp_path / "a.h5", encoding=encoding, rows=[(ALL, stored)])
    digests = [hashlib.sha256(vector.tobytes()).hexdigest() for vector in stored]
    assert FeatureStore.open(path).vector_digests == digests
    assert [vector_sha256(vector) for vector in stored] == digests
    assert verified(path) == hashlib.sha256(bytes.fromhex("".join(digests))).hexdigest()


def test_the_digest_tells_stores_of_other_vectors_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    other = vectors(6)
    other[3, 3] += 1
    swapped = vectors(6)[[1, 0, *ALL[2:]]]
    found = {verified(write(path, rows=[(ALL, rows)])) for rows in (vectors(6), other, swapped)}
    assert len(found) == 3
    by_rows = [([place], vectors(6)[[place]]) for place in reversed(ALL)]
    assert verified(write(path, rows=by_rows)) in found


def filled(row: int, value: float) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        file["features"][row] = value
        file["vector_sha256"][row] = vector_sha256(file["features"][row]).encode()

    return change


def flipped_bit(file: Any) -> None:
    bits = file["features"][2].view("u4")
    bits[4] ^= 1
    file["features"][2] = bits.view("f4")


def swapped_vectors(file: Any) -> None:
    file["features"][:2] = file["features"][:2][::-1]


@pytest.mark.parametrize(
    ("change", "row", "words"),
    [
        (flipped_bit, 2, "is not as it was written"),
        (swapped_vectors, 0, "is not as it was written"),
        (filled(1, np.nan), 1, "holds what is no number"),
        (filled(7, np.inf), 7, "holds what is no number"),
        (filled(0, 0.0), 0, "holds nothing but zeros"),
    ],
    ids=["flipped bit", "swapped", "NaN", "infinity", "zeros"],
)
def test_verifying_names_the_first_row_that_is_wrong(
    tmp_path: Path, change: Callable[[Any], None], row: int, words: str
) -> None:
    path = write(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        change(file)
    assert refusal(path, verified).startswith(f"{path}: the row of {IDS[row]} {words}")
