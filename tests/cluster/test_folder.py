"""The folder of a cluster: memory that two can see, and nothing that stays behind."""

import os
import subprocess
import sys

import pytest

from helpers.cluster import folder
from helpers.errors import InputError


def test_two_openings_see_the_same_memory(tmp_path):
    mine = folder.create_memory(tmp_path / "kv", 1000)
    assert mine[:] == bytes(1000)
    theirs = folder.open_memory(tmp_path / "kv")
    mine[10:13] = b"abc"
    assert theirs[10:13] == b"abc"
    (tmp_path / "kv").unlink()
    theirs[0:1] = b"z"
    assert mine[0:1] == b"z"  # without a name it is there as long as somebody has it


def test_no_room_is_one_sentence(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(InputError, match="give the workers less KV memory"):
        folder.create_memory(tmp_path / "kv", 1000)


def test_only_leftovers_of_the_dead_are_swept(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "base", lambda: tmp_path)
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    dead = tmp_path / f"{folder.PREFIX}{int(gone.stdout)}-x"
    dead.mkdir()
    (dead / "kv").write_bytes(b"1")
    other = tmp_path / f"{folder.PREFIX}notes-x"
    other.mkdir()
    mine = folder.make()
    assert not dead.exists()
    assert mine.exists() and other.exists()
    assert mine.stat().st_mode & 0o077 == 0  # for its user alone
    folder.remove(mine)
    assert not mine.exists()
