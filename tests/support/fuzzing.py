"""Mutations of files, and a reader in another process that survives what they do to it."""

import json
import os
import random
import select
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.support.project import ROOT

_TIMEOUT = 20.0  # seconds that a reader may take for a small file

_ODD_BYTES = (b"\0", b"\xff", b"\x7f", b"\x80", b"\n", b'"', b",", b"\x1b", b"\xed\xa0\x80")
# Of HDF5: a heap with texts of variable length, an attribute, a group's header; of zip: an entry.
_LANDMARKS = (b"GCOL", b"format_version", b"TREE", b"OHDR", b"PK\1\2")
_ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**9, 10**400, 0.5, -0.0),
    *(float("inf"), float("nan"), "", " ", "a\nb", "\ud800", "\0", "\x1b[31m", "x" * 70_000),
    *([], {}, [None], [[]], {"": None}, [1, 2], ["a"]),
)


def mutate_bytes(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """Flip bits, overwrite, cut, repeat or splice a file, once or a few times."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if not changed:
            break
        at = _position(changed, rng)
        length = rng.choice((1, 1, 2, 4, 8, 64))
        kind = rng.randrange(9)
        if kind < 3:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 3:
            changed[at : at + length] = rng.randbytes(length)
        elif kind == 4:
            changed[at : at + length] = rng.choice(_ODD_BYTES) * length
        elif kind == 5:
            number = rng.choice((len(data), rng.randrange(len(data)), 2**31 - 1, 2**62))
            changed[at : at + length] = number.to_bytes(8, rng.choice(("little", "big")))[:length]
        elif kind == 6:
            del changed[at : at + rng.choice((length, len(changed)))]
        elif kind == 7:
            changed[at:at] = changed[at : at + length] * rng.choice((1, 2, 100))
        else:
            other = rng.choice([*others, data])
            start = rng.randrange(len(other))
            changed[at : at + length] = other[start : start + rng.choice((length, 1000))]
    return bytes(changed)


def _position(data: bytearray, rng: random.Random) -> int:
    """Return a position, more often one where formats keep what matters: ends and landmarks."""
    last, distance = len(data) - 1, int(rng.expovariate(1 / 40))
    kind = rng.random()
    if kind < 0.3:
        return max(0, min(last, rng.choice((distance, last - distance))))
    if kind < 0.6:
        landmark = data.find(rng.choice(_LANDMARKS))
        if landmark >= 0:
            return min(last, landmark + distance)
    return rng.randrange(len(data))


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """Replace, remove, add or copy a value somewhere in a JSON document."""
    root = [json.loads(data)]
    for _ in range(rng.choice((1, 1, 2))):
        container: Any = root
        while True:
            keys = list(container) if isinstance(container, dict) else range(len(container))
            if not keys:
                break
            key = rng.choice(list(keys))
            if isinstance(container[key], dict | list) and rng.random() < 0.8:
                container = container[key]
                continue
            value = deepcopy(rng.choice((*_ODD_VALUES, rng.choice([container[k] for k in keys]))))
            if rng.random() < 0.15 and container is not root:
                del container[key]
            elif rng.random() < 0.1 and isinstance(container, dict):
                container["another"] = value
            else:
                container[key] = value
            break
    return json.dumps(root[0]).encode()


def mutate_hdf5(path: Path, rng: random.Random) -> None:
    """Give a member or an attribute of an HDF5 file another type, shape, storage or value."""
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        if rng.random() < 0.4 and len(file.attrs):
            name = rng.choice(list(file.attrs))
            del file.attrs[name]
            if rng.random() < 0.9:
                _create_odd(lambda **k: file.attrs.create(name, **k), rng, attribute=True)
            return
        name = rng.choice(names)
        other = rng.choice([name, f"{name}_2", "failed/more" if "failed" in file else "more"])
        if rng.random() < 0.15:
            file.move(name, f"{name}_moved")
            return
        if other == name:
            del file[name]
        if other not in file:
            _create_odd(lambda **k: file.create_dataset(other, **k), rng, attribute=False)


def _create_odd(create: Callable[..., Any], rng: random.Random, *, attribute: bool) -> None:
    values: list[dict[str, Any]] = [
        {"data": "text of variable length"},
        {"data": np.bytes_("text")},
        {"data": ["a", "b"]},
        {"data": np.int64(7)},
        {"data": np.arange(8)},
        {"data": np.zeros((8, 2, 3), "f2")},
        {"data": np.full(8, np.nan)},
        {"data": np.bool_(True)},
        {"data": np.complex64(1j)},
        {"data": np.zeros(8, "f4,i4")},
        {"data": h5py.Empty("f4")},
        {"data": np.float128(1)},
        {"data": b"\xff\xfe"},
        {"data": np.array([b"\xff"] * 8)},
        {"data": b"x" * 60_000},
    ]
    if not attribute:
        values += [
            {"shape": (3,), "dtype": h5py.vlen_dtype("i4")},
            {"shape": (2,), "dtype": h5py.ref_dtype},
            {"shape": (2**20,), "dtype": "S1000"},
            {"shape": (2**34,), "dtype": "f4"},
            {"shape": (2**34,), "dtype": "f4", "chunks": (2**10,), "compression": "gzip"},
            {"shape": (8,), "maxshape": (None,), "dtype": "f4", "chunks": (2**28,)},
            {"data": np.zeros(2**20), "chunks": (2**10,), "compression": "gzip"},
            {"data": np.arange(8.0), "chunks": (4,), "shuffle": True, "fletcher32": True},
            {"shape": (0,), "dtype": "f4"},
            {"shape": (2**31, 0), "dtype": "f4"},
        ]
    create(**rng.choice(values))


@dataclass
class Reader:
    """A process of `fuzz_reader`, which is started again when a file has ended it.

    Attributes:
        folder: where the artefacts are that a reader needs beside the file.
        scratch: an empty folder for damaged files and their readers.
    """

    folder: Path
    scratch: Path
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def read(self, kind: str, path: Path) -> str:
        """Return the reader's line about a file; "failed ..." too if it crashes or hangs."""
        if self._process is None:
            command = [sys.executable, "-m", "tests.support.fuzz_reader", str(self.folder)]
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"TMPDIR": str(self.scratch)},
            )
            self._answer(f"search {os.devnull}", 120.0)  # once its imports are done
        # TensorFlow is imported, and graphs are converted, for the first photo.
        return self._answer(f"{kind} {path}", 240.0 if kind == "image" else _TIMEOUT)

    def _answer(self, line: str, timeout: float) -> str:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{line}\n".encode())
        process.stdin.flush()
        if not select.select([process.stdout], [], [], timeout)[0]:
            self.close()
            return "failed hangs"
        if answer := process.stdout.readline().decode().rstrip("\n"):
            return answer
        code = process.wait()
        self.close()
        return f"failed ends with exit code {code}"

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
