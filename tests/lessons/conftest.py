"""A learner's file and front end for a test, and never those of the person who runs it."""

from pathlib import Path

import pytest

from helpers.lessons import front_end, progress

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(autouse=True)
def nobody_in_front(monkeypatch):
    """No front end, so nothing is kept; entries of one test are unknown to the next."""
    monkeypatch.setenv(front_end.TOLD, "0")
    monkeypatch.delenv(progress.PLACE, raising=False)
    monkeypatch.setattr(progress, "_current", progress.Progress(None))


@pytest.fixture
def learner(monkeypatch, tmp_path) -> Path:
    """Somebody sits in front, and progress is kept in this file."""
    path = tmp_path / "data" / "progress.json"
    monkeypatch.setenv(front_end.TOLD, "1")
    monkeypatch.setenv(progress.PLACE, str(path))
    return path


@pytest.fixture
def fresh_kernel(monkeypatch):
    """Forget what this process holds, as a restarted kernel does; the file stays."""

    def restart() -> None:
        monkeypatch.setattr(progress, "_current", progress.Progress(None))

    return restart
