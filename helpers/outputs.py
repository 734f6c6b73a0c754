"""Files that a run leaves: a place where none can be written is refused before the work, and none is ever half there.

A file is written beside its place and renamed when it is whole, so that one which was there stays as it is until then.
What is no file (a device, a pipe) is written to as it is.
"""

import gzip
import io
import json
import os
import traceback
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile, mkstemp

from helpers.errors import InputError

PART = ".part"  # beside an earlier file: what a run that goes on has so far


def check_writable(*paths: Path | None) -> None:
    """Raise `InputError`, before anything runs, for places where nothing can be written, and for a file named twice."""
    places: set[Path] = set()
    for path in paths:
        if path is None:
            continue
        try:
            if _is_stream(path):
                if not os.access(path, os.W_OK):
                    raise PermissionError(13, "Permission denied")
                continue
            place = path.resolve()
            if place.is_dir() or not place.parent.is_dir():
                raise InputError(f"{path}: nothing can be written there; give a file in a folder that exists")
            if place in places:
                raise InputError(f"{path}: two outputs cannot go to one file; give each its own")
            places.add(place)
            TemporaryFile(dir=place.parent).close()
        except OSError as error:
            raise _cannot(path, error) from None


def write_text(path: Path, text: str) -> None:
    """Put a text in a file; raises `InputError` where that cannot be."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Put bytes in a file; raises `InputError` where that cannot be."""
    try:
        if _is_stream(path):
            with path.open("wb") as there:
                there.write(data)
            return
        place = path.resolve()
        half = place.with_name(f".{os.getpid()}{PART}")
        try:
            half.write_bytes(data)
            if place.exists():
                half.chmod(place.stat().st_mode & 0o7777)
            half.replace(place)
        finally:
            half.unlink(missing_ok=True)
    except OSError as error:
        raise _cannot(path, error) from None


def write_packed(path: Path, data: bytes) -> None:
    """`write_bytes`, compressed where the name ends in .gz; the same bytes give the same file."""
    if path.suffix != ".gz":
        write_bytes(path, data)
        return
    packed = io.BytesIO()
    with gzip.GzipFile("", "wb", 9, packed, mtime=0) as file:
        file.write(data)
    write_bytes(path, packed.getvalue())


def write_json(path: Path | None, record: object, indent: int | None = 1) -> None:
    """Put a record in a file as JSON, on one line without `indent`; nothing happens where no file was asked for."""
    if path:
        write_text(path, as_json(record, indent))


def as_json(record: object, indent: int | None = 1) -> str:
    """A record as the text of a file."""
    between = (",", ":") if indent is None else None
    return json.dumps(record, indent=indent, separators=between, allow_nan=False) + "\n"


class Growing:
    """A file that is written again and again while a run goes on.

    Where there was a file already, it stays until the run has come to its end, and what is there so far goes beside it
    (`place`). `goes_on`: that file is an earlier part of the same run, so it is the one that grows.
    """

    def __init__(self, path: Path | None, goes_on: bool = False) -> None:
        self._path = path
        beside = path is not None and not goes_on and path.is_file()
        self.place = path.with_name(path.name + PART) if beside else path

    def write(self, text: str, whole: bool) -> None:
        """Everything so far; `whole`: nothing more comes."""
        if self._path is None:
            return
        write_text(self._path if whole else self.place, text)
        if whole and self.place != self._path:
            with suppress(OSError):
                self.place.unlink(missing_ok=True)


def keep_traceback(error: BaseException, name: str, folder: Path | None = None) -> str:
    """Put the traceback of an error in a file of its own, in a folder or among temporary files; says where it is."""
    text = "".join(traceback.format_exception(error))
    try:
        handle, path = mkstemp(prefix=f"hybrid-serving-{name}-", suffix=".log", dir=folder)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError:
        return "its traceback could not be written anywhere"
    return f"its traceback is in {path}"


def _is_stream(path: Path) -> bool:
    """Whether something is there that is neither a file nor a folder; raises `OSError` for a name that cannot be."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _cannot(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: it cannot be written ({error.strerror or error}); give a place you may write")
