"""Where the data that ships with the course lies: beside the package, never relative to the cwd."""

from pathlib import Path

from helpers.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"


def data_file(*parts: str) -> Path:
    """The path of a shipped data file; raises `InputError` when the checkout lacks it."""
    path = DATA.joinpath(*parts)
    if not path.is_file():
        raise InputError(f"{path}: the data file is missing; run from a full checkout of the course")
    return path
