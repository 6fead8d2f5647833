"""What a control group allows counts where a store is larger than the page cache may become."""

import pytest

from datamodules import memory_limits
from datamodules.columns import is_cached


@pytest.fixture
def group(tmp_path, monkeypatch):
    def place(line, files):
        (tmp_path / "cgroup").write_text(line)
        for name, text in files.items():
            path = tmp_path / "root" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.setattr(memory_limits, "_GROUPS", tmp_path / "cgroup")
        monkeypatch.setattr(memory_limits, "_ROOT", tmp_path / "root")

    return place


def test_version_2_with_a_limit_around_it(group):
    group("0::/a/b\n", {"a/memory.max": "4000\n", "a/b/memory.max": "max\n"})
    assert list(memory_limits.memory_limits()) == [4000]
    assert is_cached(1999)
    assert not is_cached(2000)


def test_version_1_and_other_controllers(group):
    files = {"memory/job/memory.limit_in_bytes": "6000\n", "memory/memory.limit_in_bytes": "9223372036854771712\n"}
    group("9:cpu,cpuacct:/other\n4:memory:/job\n0::/\n", files)
    assert list(memory_limits.memory_limits()) == [6000, 9223372036854771712]
    assert not is_cached(3000)


def test_without_groups(group, tmp_path, monkeypatch):
    group("0::/\n", {})
    assert list(memory_limits.memory_limits()) == []
    monkeypatch.setattr(memory_limits, "_GROUPS", tmp_path / "nowhere")
    assert list(memory_limits.memory_limits()) == []
