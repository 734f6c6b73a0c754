"""The folder of a running cluster: its sockets, and the memory that its processes share.

It lies in memory where the system has such a place. Once every process has opened what it needs, nobody needs
the names any more: they are removed while everything runs, so that no crash can leave them behind. What a crash
before that leaves behind is swept away when the next cluster starts.
"""

import mmap
import os
import shutil
import tempfile
from pathlib import Path

from helpers.errors import InputError

PREFIX = "hybrid-serving-"
MEMORY = Path("/dev/shm")


def base() -> Path:
    """Where such folders are made."""
    return MEMORY if os.access(MEMORY, os.W_OK) else Path(tempfile.gettempdir())


def make() -> Path:
    """A fresh folder for this process, which only its user can enter; leftovers of dead processes are removed."""
    sweep()
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=base()))


def remove(folder: Path) -> None:
    """Remove the folder with everything in it; memory that is mapped stays as long as it is."""
    shutil.rmtree(folder, ignore_errors=True)


def sweep() -> None:
    """Remove the folders whose process is no more."""
    for folder in base().glob(f"{PREFIX}*-*"):
        owner = folder.name.removeprefix(PREFIX).split("-")[0]
        if owner.isdigit() and not alive(int(owner)):
            remove(folder)


def alive(pid: int) -> bool:
    """Whether a process of this number exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def create_memory(path: Path, size: int) -> mmap.mmap:
    """`size` bytes of zeros that other processes can open by `path`; raises `InputError` where there is no room."""
    with path.open("xb") as file:
        try:
            file.truncate(size)
            if hasattr(os, "posix_fallocate"):  # or the first write to a page that is not there ends the process
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise InputError(
                f"{path.parent} has no room for {size / 2**20:.0f} MiB of shared KV ({error.strerror}); "
                "give the workers less KV memory (kv_gib)"
            ) from None
    return open_memory(path)


def open_memory(path: Path) -> mmap.mmap:
    """The memory at `path`, shared with whoever else has opened it."""
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), 0)
