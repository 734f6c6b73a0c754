"""The part `disagg`: two workers handing KV over in every way, held against two workers that share their load.

On a single GPU two roles share it, and are held against one engine. Each section runs in a process of its own, with a
limit: one that hangs costs its section.
"""

from collections.abc import Iterator, Sequence
from statistics import median

from helpers.bench.disagg.child import PROCESSES, ROLES, sections, supervised
from helpers.bench.disagg.figures import LEGS
from helpers.bench.disagg.one_device import WHERE
from helpers.bench.engine.report import point

SEEDS, GROUP_SEEDS = 2, 1
# Seconds at most.
LIMITS_S = {"link": 30.0, "ladder": 155.0, "group": 50.0, "movers and controls": 60.0, ROLES: 150.0}
RIVAL_S = 60.0
EXPOSED_GOAL = 0.01  # of TTFT
FIGURES = {
    "ttft_mean_s": "s", "ttft_p90_s": "s", "tpot_mean_s": "s", "itl_p90_s": "s", "longest_gap_s": "s",
    "tokens_per_s": "output tok/s", "exposed_mean_s": "s", "exposed_p90_s": "s", "hidden_mean_s": "s",
    "exposed_of_ttft": "share", **{f"{leg}_leg_s": "s" for leg in LEGS},
}  # fmt: skip
HIDING = ("layerwise", "slabs")


def disagg(session, report) -> None:
    """Fill in the sections of `helpers.bench.disagg.child.sections`, as far as the time goes."""
    device = device_of(session)
    report.head["workers"] = about(device, gpus())
    for section in sections(device, gpus()):
        report.run(section, lambda s=section: section_points(s, device, session.preset, report))


def about(device: str, count: int) -> str:
    """What is measured on what; with one GPU nothing is measured on two devices."""
    if device == "cuda" and count < 2:
        return f"{ROLES}: {WHERE[device]}; {PROCESSES} are compared and not timed"
    two = f"two workers, one {'GPU' if device == 'cuda' else 'core'} each"
    return f"{two}; {ROLES}: {WHERE[device]}" if ROLES in sections(device, count) else two


def device_of(session) -> str:
    """`cuda` or `cpu`."""
    from helpers.engine.load import device_of

    return device_of(session.device).type


def gpus() -> int:
    """GPUs that torch can use."""
    import torch

    return torch.cuda.device_count()


def section_points(section: str, device: str, model: str, report) -> Iterator[dict]:
    """What a section's process sends, and the arms summed up, also when it had to be ended."""
    limit_s = min(LIMITS_S.get(section, RIVAL_S), report.left_s)
    found: list[dict] = []
    try:
        for one in supervised(section, device, model, limit_s, GROUP_SEEDS if section == "group" else SEEDS):
            found.append(one)
            yield one
    finally:
        report.note(section, summary=list(summed_up(found, device)))
    yield from report.parts[section]["summary"]


def summed_up(found: Sequence[dict], device: str) -> Iterator[dict]:
    """The figures of each arm: the median over its seeds, with all of them. The goal is one of GPUs."""
    runs: dict[str, list[dict]] = {}
    for one in found:
        if "run" in one and "seed" in one["name"]:
            runs.setdefault(one["arm"], []).append(one["run"])
    for arm, ones in runs.items():
        for name, unit in FIGURES.items():
            samples = [one[name] for one in ones if one.get(name) is not None]
            if samples:
                goal = {"target": EXPOSED_GOAL, "at_least": False}
                told = goal if device == "cuda" and name == "exposed_of_ttft" and arm in HIDING else {}
                yield point(f"{arm}: {name}", median(samples), unit, samples, **told)
