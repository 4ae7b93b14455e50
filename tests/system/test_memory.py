import resource
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.system import memory
from pipeline.system.memory import check_memory, memory_limit


def test_what_fits_is_accepted_and_what_does_not_is_refused_with_both_sizes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "memory_limit", lambda: 2 * 10**9)
    check_memory(2 * 10**9, "x", "y")
    with pytest.raises(InputError) as caught:
        check_memory(3 * 10**9, "the training", "lower train.units")
    assert str(caught.value) == (
        "params.yaml: the training takes about 3.0 GB of memory, and 2.0 GB are there: lower "
        "train.units"
    )


def test_the_limit_is_the_machine_s_or_a_lower_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine = memory_limit()
    assert machine is not None
    assert 10**8 < machine < 10**15
    cgroup = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_CGROUP_LIMITS", (cgroup, tmp_path / "none"))
    for text, limit in (("max\n", machine), ("4096000\n", 4096000), (str(2**63), machine)):
        cgroup.write_text(text)
        assert memory_limit() == limit


def test_the_limit_of_the_shell_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (123456, resource.RLIM_INFINITY))
    assert memory_limit() == 123456


def test_where_nothing_is_known_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_limits", lambda: iter(()))
    assert memory_limit() is None
    check_memory(10**18, "x", "y")
