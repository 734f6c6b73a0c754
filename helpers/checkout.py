"""Which commit this code is, for whoever prints or stores a number."""

import os
import re
import subprocess

from helpers.errors import InputError
from helpers.paths import ROOT

# For a copy of the tree without its history: whoever makes the copy says which commit it is.
TOLD = "HYBRID_SERVING_COMMIT"


def commit() -> str:
    """The commit of this checkout, `-dirty` when files differ from it, `unknown` outside one (or in a page).

    The environment variable `HYBRID_SERVING_COMMIT` comes first where it is set. Raises `InputError` when it is no
    commit of 40 hex digits, with or without `-dirty`.
    """
    told = os.environ.get(TOLD)
    if told:
        if not re.fullmatch(r"[0-9a-f]{40}(-dirty)?", told):
            raise InputError(
                f"{TOLD} is {told!r}; give the 40 hex digits of a commit, -dirty after them if files differ"
            )
        return told
    try:
        head = _git("rev-parse", "HEAD")
        return head + ("-dirty" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
