"""Step times that were measured, in place of the data sheet's: what `--cost FILE` and `--cost-steps` say."""

from dataclasses import replace
from pathlib import Path

from helpers.cost.calibration import read_calibration
from helpers.errors import InputError
from helpers.serving.fleet import Fleet


def calibrated(fleet: Fleet, cost: Path | None, steps: str | None) -> tuple[Fleet, dict]:
    """The fleet with the cost of a file, and what a record is to say of it: nothing where there is no file.

    Raises `InputError` for a cost that is not there, and for `steps` of no file.
    """
    if cost is None:
        if steps is not None:
            raise InputError(f"--cost-steps {steps} says which cost of a record is taken; give --cost FILE too")
        return fleet, {}
    found = read_calibration(cost, steps)
    return replace(fleet, cost=found.cost), {"calibration": found.origin}
