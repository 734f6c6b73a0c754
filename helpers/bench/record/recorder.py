"""`record`: the parts in the order of their value, each in its file, none measured twice by the same code."""

import gc
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from helpers.bench.engine import peers as engine_peers
from helpers.bench.engine.speed import gpu_facts, provenance, rates_of
from helpers.bench.record.disagg import gpus
from helpers.bench.record.files import FORMAT, PartReport, code_sha256, complete, earlier_of
from helpers.bench.record.parts import PARTS, Part, Session, in_order
from helpers.checkout import TOLD
from helpers.cost.calibration import COEFFICIENTS, LAUNCH
from helpers.errors import InputError
from helpers.paths import DATA

LEAST_S = 5.0  # with less than this left no further part begins


def record(
    command: str,
    preset: str = "llama-8b",
    device: str = "auto",
    only: Sequence[str] = (),
    peer: Sequence[str] = (),
    budget_s: float = 480.0,
    out: Path | None = None,
    again: bool = False,
) -> dict[str, dict]:
    """Measure what is missing of the parts named in `only` (all) and return the record of each part.

    Records lie in `<out>/<hardware_key>/`; `out` is `data/packs` unless told, which is looked into for earlier ones
    too. What fails is in the records. Raises `InputError` for names that do not exist, and for code whose commit
    nobody knows.
    """
    start = perf_counter()
    for name in only:
        if name not in PARTS:
            raise InputError(f"record: part {name!r} is unknown; use one of {', '.join(PARTS)}")
    for name in peer:
        engine_peers.check(name)
    if not budget_s > 0:
        raise InputError(f"record: a budget of {budget_s:g} s measures nothing; give seconds above 0")
    head = head_of(command, preset, device, peer)
    home = DATA / "packs" / head["hardware_key"]
    folder = home if out is None else out / head["hardware_key"]
    session = Session(preset, device, tuple(peer), folder, command)
    session.folder.mkdir(parents=True, exist_ok=True)
    if not again:
        look_up(session, head, (session.folder, home))
    found = {}
    for name, part in in_order(tuple(only)):
        left_s = budget_s - (perf_counter() - start)
        key = key_of(head["hardware_key"], part)
        folders = [where.with_name(key) for where in (session.folder, home)]
        about = {**head, "part": name, "hardware_key": key}
        found[name] = one_part(session, name, part, about, folders, left_s, again)
        learn(session, name, found[name])
    return found


def head_of(command: str, preset: str, device: str, peer: Sequence[str]) -> dict:
    """What all parts say of their making."""
    from helpers.engine.config import preset as preset_of

    preset_of(preset)
    head = {"format": FORMAT, **provenance(preset, device, peer), "command": command, "seeds": [0]}
    if not re.fullmatch(r"[0-9a-f]{40}(-dirty)?", head["commit"]):
        raise InputError(f"the commit of this code is {head['commit']}; record from a checkout, or set {TOLD}")
    return {**head, "code_sha256": code_sha256()}


def key_of(hardware_key: str, part: Part) -> str:
    """The key of the hardware with the devices that a part uses; a CPU is one device."""
    used = 1 if hardware_key.startswith("cpu_") else min(part.gpus, max(1, gpus()))
    return hardware_key if used == 1 else f"{used}x_{hardware_key}"


def path_of(folder: Path, preset: str, part: str) -> Path:
    """Where the record of a part lies."""
    return folder / f"engine_{preset}_{part}.json"


def one_part(
    session: Session, name: str, part: Part, head: dict, folders: Sequence[Path], left_s: float, again: bool
) -> dict:
    """The record of a part: the one that is there, else a new one, as far as the time goes."""
    paths = [path_of(folder, session.preset, name) for folder in folders]
    earlier = {} if again else earlier_of(head, paths)
    sections = part.sections(session)
    if sections and all(complete(earlier.get(section, {})) for section in sections):
        say(f"{name}: recorded before by this code on this machine; --again measures it again")
        return {**head, "parts": earlier}
    if not sections or left_s < LEAST_S:
        why = f"{max(0.0, left_s):.0f} s of the budget are left" if sections else absent(name)
        say(f"{name}: skipped, {why}")
        return {**head, "parts": {**earlier, name: {"points": [], "skipped": why}}}
    say(f"{name}: {left_s:.0f} s are left")
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    report = PartReport(paths[0], left_s, dict(head), earlier=earlier)
    try:
        part.run(session, report)
    except Exception as error:  # what comes after is worth having all the same
        say(f"{name}: {type(error).__name__}: {error}")
        report.parts.setdefault(name, {"points": []})["failed"] = f"{type(error).__name__}: {error}"[:500]
    release()
    if "gpu" in report.head:
        report.head["gpu_after"] = gpu_facts().get("gpu")
    record = report.record()
    failed = any("failed" in section for section in record["parts"].values())
    whole = not failed and all(complete(record["parts"].get(section, {})) for section in sections)
    report.write(whole)
    if not whole and report.file.place != paths[0]:
        say(f"{name}: not complete, so the earlier {paths[0].name} stays; this one is in {report.file.place.name}")
    return record


def absent(part: str) -> str:
    """What a part lacks that has nothing to measure here."""
    return "no peer was named (--peers)" if part == "peers" else "it needs two GPUs (on a CPU, two cores)"


def learn(session: Session, name: str, record: dict) -> None:
    """Keep what later parts need of a part."""
    if name == "engine":
        session.ours = rates_of(record["parts"])
    if name == "calibrate":
        points = {one["name"]: one["value"] for one in record["parts"].get("calibrate", {}).get("points", ())}
        if all(key in points for key in COEFFICIENTS):
            session.cost = {key: points[key] for key in (*COEFFICIENTS, LAUNCH) if key in points}


def look_up(session: Session, head: dict, folders: Sequence[Path]) -> None:
    """Learn from what this code recorded on this machine before, for parts that are not asked for now."""
    for name in ("engine", "calibrate"):
        paths = [path_of(folder, session.preset, name) for folder in folders]
        learn(session, name, {"parts": earlier_of({**head, "part": name}, paths)})


def release() -> None:
    """Give back what a part has left on the device: the next one, or a peer's process, needs it."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def say(text: str) -> None:
    """A word on the error stream."""
    print(f"== {text}", file=sys.stderr, flush=True)
