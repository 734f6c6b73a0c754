"""When, and with which software: what a run says of its making."""

import platform
from datetime import UTC, datetime

from helpers import __version__


def now_utc() -> str:
    """The time, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """The software that matters to a simulation."""
    return {"python": platform.python_version(), "hybrid-serving": __version__}
