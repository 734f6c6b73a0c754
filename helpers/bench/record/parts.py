"""The parts of a recording: what each measures, and which sections its file has when it is complete."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from helpers.bench.disagg.child import sections
from helpers.bench.engine.speed import bench_engine
from helpers.bench.record.calibrating import calibrate
from helpers.bench.record.ceilings import ceilings
from helpers.bench.record.disagg import device_of, disagg, gpus
from helpers.bench.record.fidelity import fidelity
from helpers.bench.record.fidelity import sections as fidelity_sections
from helpers.bench.record.files import PartReport
from helpers.bench.record.inference import inference
from helpers.bench.record.inference import sections as inference_sections
from helpers.bench.record.notebooks import notebooks
from helpers.bench.record.routing import routing
from helpers.bench.record.routing import sections as routing_sections
from helpers.bench.record.serving import RUNS, serve

PEERS_S = 480.0  # all peers together: a compiler takes its minutes (gpt-fast was not through in two)
ENGINE = ("ceilings", "decode", "prefill", "mixed", "end to end", "loops", "scheduler", "kernels", "moe")


@dataclass
class Session:
    """What the parts of one recording share: what is asked for, and what parts before have found.

    `ours` are rates that peers are held against; `cost` is the cost of a step as `calibrate` fitted it.
    """

    preset: str
    device: str
    peers: tuple[str, ...]
    folder: Path
    command: str
    ours: dict[str, float] = field(default_factory=dict)
    cost: dict[str, float] | None = None


@dataclass(frozen=True)
class Part:
    """A part: how it runs, the sections that it needs to be complete, and how many GPUs it uses where they are."""

    run: Callable[[Session, PartReport], object]
    sections: Callable[[Session], tuple[str, ...]]
    gpus: int = 1


def _engine(session: Session, report: PartReport) -> None:
    bench_engine(session.preset, session.device, only=ENGINE, report=report)


def _check(session: Session, report: PartReport) -> None:
    bench_engine(session.preset, session.device, only=("check",), report=report)


def _peers(session: Session, report: PartReport) -> None:
    report.budget_s = min(report.budget_s, PEERS_S)
    bench_engine(session.preset, session.device, session.peers, ("peers",), report=report, ours=session.ours)


def _peer_sections(session: Session) -> tuple[str, ...]:
    return tuple(f"peer {name.partition('=')[0]}" for name in session.peers)


def _hand_offs(session: Session) -> tuple[str, ...]:
    """The sections of `disagg`: on a single GPU those in which two roles share it."""
    return sections(device_of(session), gpus())


# In the order of their value: when the time is over, what is left is worth least.
PARTS = {
    "ceilings": Part(ceilings, lambda _: ("ceilings", "triad", "matmul by dtype")),
    "engine": Part(_engine, lambda _: ENGINE),
    "calibrate": Part(calibrate, lambda _: ("calibrate",)),
    "peers": Part(_peers, _peer_sections),
    "serve": Part(serve, lambda _: ("saturated", "training", *(run.name for run in RUNS))),
    "inference": Part(inference, inference_sections),
    "check": Part(_check, lambda _: ("check",)),
    "notebooks": Part(notebooks, lambda _: ("notebooks",)),
    "disagg": Part(disagg, _hand_offs, gpus=2),
    "routing": Part(routing, routing_sections, gpus=2),
    "fidelity": Part(fidelity, fidelity_sections, gpus=2),
}


def in_order(names: tuple[str, ...]) -> Iterator[tuple[str, Part]]:
    """The parts of these names (all without), the most valuable first."""
    for name, part in PARTS.items():
        if not names or name in names:
            yield name, part
