"""Which code, on which machine, when: what a run says of its making."""

import platform
import subprocess
from datetime import UTC, datetime

from helpers import __version__
from helpers.paths import ROOT


def commit() -> str:
    """The commit of this checkout, `-dirty` when files differ from it, `unknown` outside one (or in a page)."""
    try:
        head = _git("rev-parse", "HEAD")
        return head + ("-dirty" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def now_utc() -> str:
    """The time, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """The software that matters to a simulation."""
    return {"python": platform.python_version(), "hybrid-serving": __version__}
