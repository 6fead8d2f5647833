"""An import that is killed goes on, and its store is the same to the byte."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from chunk_files import chunk_arrays
from tensordict_pickles import save_tensordict

from datamodules import EpisodeStore
from datamodules.importing import import_data
from datamodules.partial_store import PartialStore
from lit_pwm.errors import LitPWMError


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three chunks of 40 episodes."""
    folder = tmp_path / "chunks"
    folder.mkdir()
    for number in range(3):
        save_tensordict(folder / f"chunk_{number}.pt", chunk_arrays([0, 4, 8, 3] * 10, 30, seed=number), number != 1)
    return folder


def in_small_blocks(monkeypatch, rows=600):
    monkeypatch.setattr("datamodules.plan_writing._BLOCK_ROWS", rows)
    monkeypatch.setattr("datamodules.plan_writing._NOTE_SECONDS", 0.0)


@pytest.mark.parametrize("stop_at", [1, 4])
def test_an_interrupted_import_goes_on_where_it_was(folder, tmp_path, monkeypatch, stop_at):
    whole = import_data([folder], tmp_path / "whole.h5", progress=False)
    in_small_blocks(monkeypatch)
    append, calls, written = PartialStore.append, [], []

    def stopping(self, block):
        calls.append(self.done)
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        append(self, block)

    monkeypatch.setattr(PartialStore, "append", stopping)
    with pytest.raises(KeyboardInterrupt):
        import_data([folder], tmp_path / "s.h5", progress=False)
    assert not (tmp_path / "s.h5").exists()
    monkeypatch.setattr(PartialStore, "append", lambda self, block: (written.append(self.done), append(self, block)))
    import_data([folder], tmp_path / "s.h5", progress=False)
    assert written[0] == calls[-1]  # not from the beginning
    assert (tmp_path / "s.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "chunks", "s.h5", "s.json", "whole.h5", "whole.json",
    ]  # fmt: skip
    assert len(whole) == 120


@pytest.mark.parametrize("moment", ["unlinked", "published"])
def test_a_kill_while_the_store_gets_its_name_is_mended(folder, tmp_path, monkeypatch, moment):
    import_data([folder], tmp_path / "whole.h5", progress=False)

    def killed(self, **_):
        raise KeyboardInterrupt

    if moment == "published":
        monkeypatch.setattr("datamodules.partial_store.ImportFolder._remove", killed)
    else:
        monkeypatch.setattr("datamodules.partial_store.ImportFolder.publish", lambda self, path: killed(self))
    with pytest.raises(KeyboardInterrupt):
        import_data([folder], tmp_path / "s.h5", progress=False)
    monkeypatch.undo()
    assert (tmp_path / "s.h5").exists() == (moment == "published")
    import_data([folder], tmp_path / "s.h5", progress=False)
    assert (tmp_path / "s.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert not (tmp_path / "s.h5.importing").exists()


def test_rows_that_were_not_noted_are_written_again(folder, tmp_path, monkeypatch):
    import_data([folder], tmp_path / "whole.h5", progress=False)
    in_small_blocks(monkeypatch)

    def noting(self):
        raise KeyboardInterrupt

    note = PartialStore.note
    monkeypatch.setattr(PartialStore, "note", lambda self: note(self) if self.done < 60 else noting(self))
    with pytest.raises(KeyboardInterrupt):
        import_data([folder], tmp_path / "s.h5", progress=False)
    partial = tmp_path / "s.h5.importing" / "partial.h5"
    noted = json.loads((tmp_path / "s.h5.importing" / "progress.json").read_text())["episodes"]
    assert 0 < noted < 60
    row = int(EpisodeStore(tmp_path / "whole.h5").offset[noted])
    with h5py.File(tmp_path / "whole.h5") as file, partial.open("r+b") as torn:  # what a crash may leave after the note
        for name in ("obs", "action", "reward"):
            width = int(np.prod(file[name].shape[1:]))
            torn.seek(file[name].id.get_offset() + 4 * width * row)
            torn.write(b"\xff" * (4 * width * (len(file[name]) - row)))
    monkeypatch.setattr(PartialStore, "note", note)
    import_data([folder], tmp_path / "s.h5", progress=False)
    assert (tmp_path / "s.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_other_files_or_options_are_not_mixed_in(folder, tmp_path, monkeypatch):
    in_small_blocks(monkeypatch)
    append = PartialStore.append

    def stopping(self, block):
        if self.done > 30:
            raise KeyboardInterrupt
        append(self, block)

    monkeypatch.setattr(PartialStore, "append", stopping)
    with pytest.raises(KeyboardInterrupt):
        import_data([folder], tmp_path / "s.h5", progress=False)
    monkeypatch.undo()
    with pytest.raises(LitPWMError, match=r"unfinished run with other settings: limit was None and is now 50"):
        import_data([folder], tmp_path / "s.h5", progress=False, limit=50)
    save_tensordict(folder / "chunk_2.pt", chunk_arrays([0, 4, 8, 3] * 10, 30, seed=9))
    with pytest.raises(LitPWMError, match=r"unfinished run with other settings: files was"):
        import_data([folder], tmp_path / "s.h5", progress=False)
