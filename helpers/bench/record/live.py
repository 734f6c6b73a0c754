"""Running workers in a part of a recording: started once, warmed up, and asked what they sustain."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from helpers.bench.engine.report import point
from helpers.bench.fidelity.calibrating import gapped, sustained
from helpers.bench.fidelity.plan import Slice, described
from helpers.bench.fidelity.recorder import Bench
from helpers.bench.fidelity.setting import BLOCK_TOKENS, SETTINGS, Setting
from helpers.bench.record.calibrating import columns, samples_of
from helpers.bench.record.disagg import device_of, gpus
from helpers.cost.samples import StepSample
from helpers.serving.cluster_backend import ClusterRun, workers_for
from helpers.serving.processes import cores
from helpers.workload.request import Request, Workload

FIRST_TOKENS = (17, 300, 1500, 70)  # of the prompts with which everything is used for the first time
SUSTAINED = "sustained"


def most_workers(session) -> int:
    """How many live workers this machine can time: each needs a GPU, or a core, of its own."""
    return gpus() if device_of(session) == "cuda" else cores()


def setting_of(session, **limits: object) -> Setting:
    """What serves in this session."""
    return replace(SETTINGS[device_of(session)], model=session.preset, **limits)


@contextmanager
def running(session, report, setting: Setting, workers: int) -> Iterator[Bench]:
    """So many workers, which have served before; what they took to start is in the record."""
    with workers_for(described(str(workers), setting), BLOCK_TOKENS, setting.options()) as crew:
        place = "GPU" if setting.device == "cuda" else "core"
        report.head["workers"] = f"{workers}, one {place} each"
        report.head["startup_s"] = crew.startup_s
        yield Bench(crew, setting=setting)


def use_first(bench: Bench, fleets: tuple[str, ...]) -> None:
    """Serve a few requests that nobody counts on each of these fleets: what is compiled or connected is so now."""
    for fleet in fleets:
        one = Slice("first use", fleet, 1.0, 1, 0)
        tokens = [n for n in FIRST_TOKENS for _ in range(one.workers)]
        asked = tuple(Request(i, 0.05 * i, n, 4) for i, n in enumerate(tokens))
        bench.live(one, Workload(one.name, asked, BLOCK_TOKENS))


def burst_points(bench: Bench, burst: Slice, report) -> Iterator[dict]:
    """The rate of one worker between the first and the last quarter of a burst; its steps are kept beside it."""
    run = bench.live(burst, burst.workload(1.0))
    rate = sustained(run) / burst.workers
    yield point(SUSTAINED, rate, "requests/s a worker", n=len(run.timelines), sha256=burst.sha256())
    report.note(SUSTAINED, samples=columns_of(run))


def columns_of(run: ClusterRun) -> list[dict]:
    """The steps of each worker of a run, with what the host took before them, as a record keeps them."""
    return [columns(steps) for steps in gapped(run)]


def steps_kept(kept: Sequence[dict]) -> list[StepSample]:
    """All steps that `columns_of` wrote."""
    return [step for worker in kept for step in samples_of(worker)]


def told_by(run: ClusterRun, session, report) -> ClusterRun:
    """The run with the origin of this recording."""
    key = report.head["hardware_key"]
    return replace(run, provenance=replace(run.provenance, hardware_key=key, command=session.command))
