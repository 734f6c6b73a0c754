"""What every test may use: the real request traces, and hypothesis without a clock."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# No deadline: a busy machine is not a failed property.
settings.register_profile("course", deadline=None, print_blob=True)
settings.load_profile("course")

# A shell starts what runs in its background with SIGINT ignored, and processes of tests would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> list[str]:
    pages = os.environ.get("BOOK_HTML") or "not checked in this run; `make pages` opens every page of the built book"
    traces = os.environ.get("TRACES_DIR") or "none; tests on real request traces are skipped (TRACES_DIR names them)"
    return [f"pages of the book: {pages}", f"request traces: {traces}"]


@pytest.fixture(scope="session")
def traces_dir() -> Path:
    """The folder with the public request traces, which are never part of the repository."""
    folder = os.environ.get("TRACES_DIR", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("no real request traces: set TRACES_DIR to the folder that holds them")
    return Path(folder)
