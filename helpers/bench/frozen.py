"""The workloads of a target, drawn once before anything runs and read by every process.

A file of requests is made by this process for its own children and gone when they are: it is never anybody else's.
"""

import pickle
from collections.abc import Sequence
from pathlib import Path

from helpers.bench.targets.target import Scenario, Target
from helpers.errors import InputError
from helpers.workload.request import Workload


def freeze(folder: Path, target: Target, seeds: Sequence[int], requests: int) -> dict[str, dict[int, str]]:
    """Draw the workload of each scenario and seed into `folder`; returns their digests by scenario and seed."""
    found: dict[str, dict[int, str]] = {}
    for scenario in target.scenarios:
        for seed in seeds:
            drawn = scenario.workload(seed, requests)
            _file(folder, target, scenario, seed).write_bytes(pickle.dumps(drawn, pickle.HIGHEST_PROTOCOL))
            found.setdefault(scenario.name, {})[seed] = drawn.sha256
    return found


def thawed(folder: Path, target: Target, scenario: Scenario, seed: int) -> Workload:
    """The frozen workload; raises `InputError` when there is none."""
    path = _file(folder, target, scenario, seed)
    if not path.exists():
        raise InputError(f"{target.name}, {scenario.name}: the workload of seed {seed} was not frozen; draw it first")
    return pickle.loads(path.read_bytes())


def _file(folder: Path, target: Target, scenario: Scenario, seed: int) -> Path:
    number = [one.name for one in target.scenarios].index(scenario.name)
    return folder / f"{target.group}-{target.name}-{number}-{seed}.pickle"
