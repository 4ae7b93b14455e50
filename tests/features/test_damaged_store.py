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
from tests.conftest import FEATURE_SPEC
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


def other_spec(file: Any) -> None:
    values = asdict(replace(FEATURE_SPEC, weights_sha256="c" * 64))
    file.attrs["feature_spec"] = np.bytes_(json.dumps(values))


def spec_with_another_field(file: Any) -> None:
    file.attrs["feature_spec"] = np.bytes_(json.dumps(asdict(FEATURE_SPEC) | {"more": 1}))


def invalid_json(file: Any) -> None:
    file.attrs["feature_spec"] = np.bytes_("{")


def variable_length_text(file: Any) -> None:
    file.attrs["feature_spec"] = json.dumps(asdict(FEATURE_SPEC))


def changed_id(file: Any) -> None:
    file["image_id"][0] = b"0.jpg"


def swapped_ids(file: Any) -> None:
    file["image_id"][:2] = file["image_id"][:2][::-1]


def duplicate_ids(file: Any) -> None:
    file["image_id"][1] = file["image_id"][0]


def invalid_utf8(file: Any) -> None:
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


def unallocated(file: Any) -> None:
    del file["features"]
    file.create_dataset("features", (len(IDS), 6), "f4")


def huge(name: str, kind: str, *shape: int) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        del file[name]
        # The dataset is written at the end of the file, which is shorter than the shape says.
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
    ("change", "message"),
    [
        (other_version, "format version 1, not 6"),
        (no_version, "is not a valid feature store"),
        (other_fingerprint, "its fingerprint does not match its rows"),
        (other_spec, "its fingerprint does not match its rows"),
        (spec_with_another_field, "is not a valid feature store"),
        (invalid_json, "is not a valid feature store"),
        (variable_length_text, "feature_spec is not a fixed-length string"),
        (changed_id, "its fingerprint does not match its rows"),
        (swapped_ids, "its ids are not unique and sorted"),
        (duplicate_ids, "its ids are not unique and sorted"),
        (invalid_utf8, "is not a valid feature store"),
        (swapped_photos, "its fingerprint does not match its rows"),
        (replaced("image_id", data=np.array(IDS_UTF8[:-1])), "zip() argument 2 is longer"),
        (replaced("image_id", data=IDS), "does not hold fixed-length strings"),
        (replaced("failed/reason", data=np.array([b"one"])), "zip() argument 2 is shorter"),
        (without("features"), "is not a valid feature store"),
        (without("failed"), "is not a valid feature store"),
        (a_group, "is not a valid feature store"),
        (replaced("features", compression="gzip"), "not one contiguous row per id"),
        (replaced("features", chunks=(1, 6)), "not one contiguous row per id"),
        (replaced("features", data=np.ones((7, 6), "f4")), "not one contiguous row"),
        (replaced("features", data=np.ones((8, 6), "f2")), "not one contiguous row"),
        (replaced("features", data=np.ones((8, 6), ">f4")), "not one contiguous row"),
        (without("vector_sha256"), "is not a valid feature store"),
        (
            replaced("vector_sha256", data=np.array(["0" * 64] * 7, "S")),
            "it does not have one digest per id",
        ),
        (replaced("vector_sha256", data=["0" * 64] * 8), "does not hold fixed-length strings"),
        (unallocated, "not one contiguous row per id"),
        (huge("image_id", "S9", 1 << 40), "/image_id is larger than the file"),
        (external, "/features takes its data from another file"),
        (virtual, "/features takes its data from another file"),
        (soft_link, "/other is a link"),
    ],
)
def test_an_invalid_store_is_refused(
    tmp_path: Path, change: Callable[[Any], None], message: str
) -> None:
    path = write(tmp_path / "a.h5")
    FeatureStore.open(path)
    with h5py.File(path, "r+") as file:
        change(file)
    assert message in refusal(path)


def test_absent_empty_and_truncated_stores_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    assert "is not there" in refusal(path)
    data = write(path).read_bytes()
    for length in (0, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        assert "is not a readable HDF5 file" in refusal(path)


def verify(path: Path) -> str:
    return FeatureStore.open(path).verify()


def test_damage_is_found_when_opening_or_when_verifying(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    good = write(path).read_bytes()
    rng = random.Random(0)
    refused = refuted = harmless = 0
    for _ in range(300):
        data = bytearray(good)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
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
            refuted += 1
        else:
            assert np.array_equal(store.features, vectors(6))
            harmless += 1
    assert refused > refuted > 0
    assert harmless < 5  # bytes without a meaning


@pytest.mark.parametrize("shape", [(6,), (4, 6)])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_digest_of_a_verified_store_covers_every_row(
    tmp_path: Path, dtype: str, shape: tuple[int, ...]
) -> None:
    feature_spec = replace(FEATURE_SPEC, dtype=dtype)
    stored = vectors(*shape).astype(dtype)
    path = write(tmp_path / "a.h5", feature_spec=feature_spec, rows=[(ALL, stored)])
    digests = [hashlib.sha256(vector.tobytes()).hexdigest() for vector in stored]
    assert FeatureStore.open(path).vector_digests == digests
    assert [vector_sha256(vector) for vector in stored] == digests
    assert verify(path) == hashlib.sha256(bytes.fromhex("".join(digests))).hexdigest()


def test_stores_with_other_vectors_have_other_digests(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    other = vectors(6)
    other[3, 3] += 1
    swapped = vectors(6)[[1, 0, *ALL[2:]]]
    digests = {verify(write(path, rows=[(ALL, rows)])) for rows in (vectors(6), other, swapped)}
    assert len(digests) == 3
    by_rows = [([row], vectors(6)[[row]]) for row in reversed(ALL)]
    assert verify(write(path, rows=by_rows)) in digests


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
    ("change", "row", "message"),
    [
        (flipped_bit, 2, "is not as it was written"),
        (swapped_vectors, 0, "is not as it was written"),
        (filled(1, np.nan), 1, "has NaN or infinite numbers"),
        (filled(7, np.inf), 7, "has NaN or infinite numbers"),
        (filled(0, 0.0), 0, "is all zeros"),
    ],
    ids=["flipped bit", "swapped", "NaN", "infinity", "zeros"],
)
def test_verifying_names_the_first_bad_row(
    tmp_path: Path, change: Callable[[Any], None], row: int, message: str
) -> None:
    path = write(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        change(file)
    assert refusal(path, verify).startswith(f"{path}: the row of {IDS[row]} {message}")
