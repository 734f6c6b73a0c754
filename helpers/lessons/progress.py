"""What a learner guessed and passed, in one file on this machine.

The file is JSON and is read by people too. It is never sent anywhere: nothing in this room opens a connection.
Kernels that run at the same time take turns through a lock beside it, and a change is written to a new file that
then takes the place of the old one, so no reader ever sees half of it.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from tempfile import NamedTemporaryFile

from helpers.lessons.front_end import has_front_end

# Names another file than the usual one.
PLACE = "HYBRID_SERVING_PROGRESS"
VERSION = 1
PATIENCE_S = 5.0


def place() -> Path:
    """Where progress is kept: the file that `HYBRID_SERVING_PROGRESS` names, else one in the user's data folder."""
    told = os.environ.get(PLACE)
    if told:
        return Path(told).expanduser()
    home = os.environ.get("XDG_DATA_HOME")
    data = Path(home) if home else Path.home() / ".local" / "share"
    return data / "hybrid-serving" / "progress.json"


def empty() -> dict:
    """Progress before anything happened."""
    return {"version": VERSION, "predictions": {}, "exercises": {}}


def is_sound(data: object) -> bool:
    """True when the data have the shape that this module writes."""
    if not isinstance(data, dict) or data.get("version") != VERSION:
        return False
    for part in ("predictions", "exercises"):
        entries = data.get(part)
        if not isinstance(entries, dict) or not all(isinstance(one, dict) for one in entries.values()):
            return False
    return all(_is_prediction(one) for one in data["predictions"].values()) and all(
        isinstance(one.get("tries"), int) and isinstance(one.get("passed_at"), str | None)
        for one in data["exercises"].values()
    )


def _is_prediction(entry: dict) -> bool:
    attempts = entry.get("attempts")
    return isinstance(attempts, list) and all(
        isinstance(one, dict) and isinstance(one.get("value"), int | float | str) and isinstance(one.get("late"), bool)
        for one in attempts
    )


class Progress:
    """The entries of one learner; `path` None keeps them in memory only.

    `tell` gets one sentence when the file cannot be used; the lesson goes on either way.
    """

    def __init__(self, path: Path | None, tell: Callable[[str], None] = print) -> None:
        self.path = path
        self._tell = tell
        self._told: set[str] = set()
        self._memory = empty()

    @property
    def kept(self) -> bool:
        """True when entries outlive this process."""
        return self.path is not None

    def read(self) -> dict:
        """A copy of all entries; looks only, unless the file is damaged."""
        if self.path is not None and not self.path.exists():
            return deepcopy(self._memory)
        return self.change(lambda data: None)

    def change(self, edit: Callable[[dict], None]) -> dict:
        """Let `edit` change the entries in place while no other kernel can, keep them, and return a copy of them."""
        if self.path is None:
            edit(self._memory)
            return deepcopy(self._memory)
        try:
            return self._change_file(self.path, edit)
        except OSError as error:
            why = error.strerror or str(error)
            self._say(f"progress is not kept, {self.path} cannot be used ({why}); name another file in {PLACE}")
            edit(self._memory)
            return deepcopy(self._memory)

    def _change_file(self, path: Path, edit: Callable[[dict], None]) -> dict:
        path = path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_name(path.name + ".lock")):
            before = self._load(path)
            after = deepcopy(before)
            edit(after)
            if after != before:
                _replace(path, after)
            return after

    def _load(self, path: Path) -> dict:
        try:
            data = json.loads(path.read_bytes())
        except FileNotFoundError:
            return empty()
        except ValueError:  # no JSON, or no UTF-8
            data = None
        if is_sound(data):
            return data
        aside = _free_name(path)
        path.rename(aside)
        self._say(f"{path} could not be read as progress; it was put aside as {aside.name}, and a new one is begun")
        return empty()

    def _say(self, sentence: str) -> None:
        if sentence not in self._told:
            self._told.add(sentence)
            self._tell(sentence)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file; raises `OSError` when another process holds it for longer than a few seconds."""
    try:
        import fcntl
    except ImportError:  # no such locks here: the last writer wins
        yield
        return
    with path.open("a") as file:
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)
        yield


def _replace(path: Path, data: dict) -> None:
    text = json.dumps(data, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    with NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=path.name, delete=False) as file:
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def _free_name(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.stem}.damaged-{number}{path.suffix}")).exists():
        number += 1
    return aside


def now() -> str:
    """This moment, for an entry."""
    return datetime.now(UTC).isoformat(timespec="seconds")


_current = Progress(None)


def current() -> Progress:
    """The progress that a cell reads and changes: the file where a person sits in front, else this process's memory."""
    global _current
    path = place() if has_front_end() and not _rehearsing else None
    if path != _current.path:
        _current = Progress(path)
    return _current


_rehearsing = False


@contextmanager
def rehearsal() -> Iterator[None]:
    """Inside, entries begin empty and are forgotten at the end: no learner's file is read or changed."""
    global _current, _rehearsing
    before = _current, _rehearsing
    _current, _rehearsing = Progress(None), True
    try:
        yield
    finally:
        _current, _rehearsing = before
