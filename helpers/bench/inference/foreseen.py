"""What a rung is expected to do, from the cost of a step and from what the host takes for one: said before it is run.

The scheduler of the rung serves the same requests with step times of a formula. Launched kernel by kernel, a step takes
what the host needs for its launches, if that is longer; the plain loop adds what the host does between two steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from helpers.bench.disagg.figures import latencies
from helpers.bench.inference.rungs import AHEAD, GRAPHS, RUNGS, scheduler_of
from helpers.bench.record.files import read_record
from helpers.cost.calibration import SERVED, read_cost
from helpers.cost.iteration import AffineCost
from helpers.metrics.latency import defined, e2e_s
from helpers.metrics.timeline import EventLog
from helpers.paths import DATA
from helpers.scheduling.limits import Limits
from helpers.scheduling.sequence import Sequence as Serving
from helpers.simulator.record import timeline_of
from helpers.simulator.spec import WorkerSpec
from helpers.simulator.stepwise import StepWorker
from helpers.workload.request import Workload

EAGER_DECODE = ("decode", "batch 8 eager")  # small enough that the host is what it waits for
EAGER_CHUNK = ("mixed", "128 tokens beside 32 decodes, kernel by kernel")
TO_THE_END_S = 1e6


@dataclass(frozen=True)
class Host:
    """Seconds of the host for the launches of a decode step and of one with a chunk, kernel by kernel, and between two
    steps of the plain loop."""

    decode_s: float
    chunk_s: float
    between_s: float


@dataclass(frozen=True)
class RungCost:
    """The cost of a step at a rung."""

    device: AffineCost
    host: Host
    rung: str
    kind: str = "fitted"

    def step(self, chunks: Sequence[tuple[int, int]], decodes: int, kv_tokens: int) -> float:
        """Seconds of a step, with the pause before the next one."""
        at, seconds = RUNGS.index(self.rung), self.device.step(chunks, decodes, kv_tokens)
        if at < RUNGS.index(GRAPHS):
            seconds = max(seconds, self.host.chunk_s if chunks else self.host.decode_s)
        return seconds + (self.host.between_s if at < RUNGS.index(AHEAD) else 0.0)


def recorded(hardware_key: str, preset: str) -> tuple[AffineCost, Host] | None:
    """The cost of a step and the host's times, as this kind of machine was recorded with; None without records."""
    folder = DATA / "packs" / hardware_key
    engine, serve = (folder / f"engine_{preset}_{part}.json" for part in ("engine", "serve"))
    if not (engine.is_file() and serve.is_file()):
        return None
    values = {(s, p["name"]): p["value"] for s, one in read_record(engine)["parts"].items() for p in one["points"]}
    plain, ahead = (values["loops", f"{name} loop"] for name in ("plain", "overlapped"))
    between_s = 32 * (1 / plain - 1 / ahead)  # of a batch of 32
    host = Host(values[EAGER_DECODE] / 1e3, values[EAGER_CHUNK] / 1e3, between_s)
    return read_cost(serve, SERVED), host


def foreseen(rung: str, workload: Workload, limits: Limits, device: AffineCost, host: Host) -> dict[str, float | None]:
    """The latencies of a workload at a rung, and the mean E2E."""
    done: list[Serving] = []
    worker = StepWorker(0, WorkerSpec(limits, RungCost(device, host, rung)), done)
    worker.scheduler = scheduler_of(rung, limits)
    asked = [Serving(r, number, r.arrival_s) for number, r in enumerate(workload)]
    for sequence in asked:
        sequence.dispatched_s, sequence.prefill_worker, sequence.decode_worker = sequence.arrival_s, 0, 0
        worker.submit(sequence, sequence.arrival_s)
    worker.advance(TO_THE_END_S)
    log = EventLog(tuple(map(timeline_of, asked)), (worker.log,), (worker.spec.info(),), worker.t)
    ends = defined(e2e_s, log.timelines)
    return {"e2e_mean_s": sum(ends) / len(ends), **latencies(log)}
