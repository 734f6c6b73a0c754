"""Which commit this code is, for whoever prints or stores a number."""

import subprocess

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
