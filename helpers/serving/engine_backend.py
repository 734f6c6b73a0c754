"""`Experiment.run(on="engine")`: the workload on a real engine, by the real clock, as an open-loop client sends it.

The client and the engine share a thread: a request is sent at its scheduled arrival, or when the call of the
engine in progress returns. While the device is busy with a step the next one is launched as late as it can be
(`Engine.slack_s`), so that it takes what comes until then. Latencies count from the scheduled arrival, so a
client that is late makes no number better; how late it was is in the run.

torch is imported inside functions: this file can be imported anywhere.
"""

import gc
import heapq
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from math import inf
from time import sleep

from helpers.checkout import commit
from helpers.cost.samples import StepSample
from helpers.errors import InputError
from helpers.hardware import hardware_key, probe, probe_cpu
from helpers.metrics.audit import audit
from helpers.metrics.timeline import EventLog, Timeline, WorkerInfo
from helpers.scheduling.limits import Limits
from helpers.scheduling.sequence import Sequence
from helpers.serving import provenance as made
from helpers.serving.engine_admission import EngineGate, gate_of, refuse_what_needs_a_front_end
from helpers.serving.run import MEASURED, Provenance, Run
from helpers.simulator.cluster import no_collection
from helpers.simulator.record import timeline_of
from helpers.workload.request import Request, Workload

PRESETS = {"llama-3.1-8b": "llama-8b", "llama-3-8b": "llama-8b"}  # models of the table that a preset has the shape of
POLL_S = 2e-4  # between two looks at who has come, while the device is busy
SPIN_S = 2e-4  # sleeping wakes up late by about this much: the last bit is spent looking at the clock


@dataclass(frozen=True)
class EngineOptions:
    """What serves, and how much of the workload it gets.

    `model` is a preset or the folder of a checkpoint; empty: the fleet's model where a preset has its shape and
    there is a GPU, else `tiny`. `time_scale` 2 lets everything arrive at half the rate; `max_requests` keeps the
    first ones; after `limit_s` seconds the run ends: what was sent is unfinished, what was not is left out. All three
    are written into the workload's repairs or the notes. `overlap` None: the overlapped loop on a GPU.
    Raises `InputError` for values that cannot be.
    """

    model: str = ""
    device: str = "auto"
    dtype: str | None = None
    time_scale: float = 1.0
    max_requests: int | None = None
    limit_s: float = inf
    temperature: float = 0.0
    overlap: bool | None = None

    def __post_init__(self) -> None:
        if not 0 < self.time_scale < inf:
            raise InputError(f"time_scale is {self.time_scale}; give a finite number above 0")
        if self.max_requests is not None and self.max_requests < 1:
            raise InputError(f"max_requests is {self.max_requests}; give 1 or more")
        if not self.limit_s > 0:
            raise InputError(f"limit_s is {self.limit_s}; give seconds above 0")

    def workload(self, workload: Workload) -> Workload:
        """The part of the workload that is served, at its rate; what was changed is among its repairs."""
        if self.max_requests is not None and self.max_requests < len(workload):
            repairs = (*workload.repairs, f"first {self.max_requests} requests")
            workload = replace(workload, requests=workload.requests[: self.max_requests], repairs=repairs)
        return workload if self.time_scale == 1.0 else workload.at_rate(1 / self.time_scale)


@dataclass(frozen=True)
class MeasuredRun(Run):
    """A run of the engine, with what the cost model learns from: a sample a step.

    `lateness_s`: how long after its scheduled arrival each request was handed to the engine, by arrival; the
    rest of the step then in progress is part of it.
    """

    samples: tuple[StepSample, ...] = ()
    lateness_s: tuple[float, ...] = ()


def run(experiment, options: EngineOptions | None = None) -> MeasuredRun:
    """Serve the experiment's workload on one worker. Raises `InputError` for what the engine alone cannot do."""
    options = options or EngineOptions()
    _refuse_what_needs_a_cluster(experiment)
    workload = options.workload(experiment.workload)
    with _engine(experiment.fleet, workload.block_tokens, options) as engine:
        return measure(experiment, engine, workload, options)


def measure(experiment, engine, workload: Workload, options: EngineOptions) -> MeasuredRun:
    """Serve a workload on an engine that is there already; the engine is idle before and after."""
    warm_up(engine)
    gate = gate_of(experiment, engine)
    client = Client(engine, workload, options.limit_s, options.temperature, experiment.seed, gate)
    gc.collect()
    with no_collection():  # its pauses are none of the steps
        client.run()
    end_s = engine.now()
    info = WorkerInfo("mixed", kv_blocks=engine.limits.kv_blocks, block_tokens=engine.limits.block_tokens)
    log = EventLog(client.timelines(), (engine.log,), (info,), end_s)
    broken = audit(log)
    if broken:
        raise RuntimeError(f"the engine's record breaks its contract: {broken[0]}")
    about = provenance(experiment, engine, workload, options, client)
    return MeasuredRun(log, about, end_s, samples=tuple(engine.samples), lateness_s=tuple(client.lateness_s))


def _refuse_what_needs_a_cluster(experiment) -> None:
    if len(experiment.fleet.roles) != 1:
        raise InputError(f"the engine is one worker, and the fleet has {len(experiment.fleet.roles)}; give workers=1")
    if experiment.make_scaler() or experiment.disturbances:
        raise InputError("scaling and disturbances need a cluster, which one engine is not; leave them out")
    refuse_what_needs_a_front_end(experiment)


@contextmanager
def _engine(fleet, block_tokens: int, options: EngineOptions) -> Iterator:
    """An engine with the limits of the fleet's worker."""
    try:
        from helpers.engine.engine import Engine, limits_for
        from helpers.engine.load import device_of, load, use_threads
    except ModuleNotFoundError as error:
        raise InputError(f"the engine needs {error.name}; pip install -e '.[engine]'") from None

    on_gpu = device_of(options.device).type == "cuda"
    model = options.model or (PRESETS.get(fleet.model, "tiny") if on_gpu else "tiny")
    decoder = load(model, options.device, options.dtype)
    use_threads(decoder)
    limits: Limits = limits_for(decoder, block_tokens, fleet.chunk_tokens, fleet.max_batch, fleet.kv_gib)
    with Engine(decoder, limits, overlap=options.overlap) as engine:
        yield engine


def warm_up(engine) -> None:
    """Compile and capture before the clock starts, and leave nothing in the prefix cache."""
    engine.runner.warm_up()
    for request in warm_requests(engine):
        engine.submit(request)
        for _ in engine.stream():
            pass


def warm_requests(engine) -> list[Request]:
    """Requests after which an engine does nothing for the first time."""
    most = min(engine.limits.token_budget, engine.max_context - 4, engine.limits.kv_blocks * engine.limits.block_tokens)
    lengths = (17, 300, most) if engine.device.type == "cuda" else (17,)
    return [Request(0, 0.0, min(length, most - 4), 4) for length in lengths]


class Client:
    """Sends each request at its scheduled arrival, whatever the engine does; follow-ups after their parent."""

    def __init__(
        self, engine, workload: Workload, limit_s: float = inf, temperature: float = 0.0, seed: int = 0,
        gate: EngineGate | None = None,
    ) -> None:  # fmt: skip
        self.engine, self.limit_s, self.gate = engine, limit_s, gate
        self.temperature, self.seed = temperature, seed
        self.lateness_s: list[float] = []
        self.sequences: list[Sequence] = []
        self._due: list[tuple[float, int, Request]] = []
        self._children: dict[int, list[Request]] = {}
        for order, request in enumerate(workload):
            if request.parent is None:
                self._due.append((request.arrival_s, order, request))
            else:
                self._children.setdefault(request.parent, []).append(request)
        heapq.heapify(self._due)
        self._order = len(workload)
        self.never_came = 0  # requests that had not been sent when the run ended

    def run(self) -> None:
        """Until everything was served, or the limit has passed; leaves the engine idle."""
        engine = self.engine
        engine.restart_clock()
        while (self._due or engine.busy) and engine.now() < self.limit_s:
            self._send()
            slack_s = engine.slack_s()
            if slack_s > POLL_S:
                sleep(POLL_S)
            elif engine.busy:
                for g, _ in engine.step():
                    if g.ended:
                        self._left(g.request.id, g.finished_s)
            elif self._due:
                self._wait(min(self._due[0][0], self.limit_s))
        self._stop()

    def _send(self) -> None:
        """Hand over what is due."""
        from helpers.engine.sampling import Sampling

        while self._due and self._due[0][0] <= (now := self.engine.now()):
            due_s, _, request = heapq.heappop(self._due)
            self.lateness_s.append(now - due_s)
            if self.gate and (verdict := self.gate.verdict(request, now)).action != "accept":
                self._reject(request, due_s, verdict.reason)
                continue
            sampling = Sampling(self.temperature, seed=(self.seed * 1_000_003 + request.id) % 2**32)
            try:
                sequence = self.engine.submit(request, sampling=sampling)
            except InputError as error:
                self._reject(request, due_s, str(error))
                continue
            sequence.arrival_s, sequence.dispatched_s = due_s, now
            sequence.prefill_worker = sequence.decode_worker = 0
            self.sequences.append(sequence)

    def _wait(self, until_s: float) -> None:
        while (left_s := until_s - self.engine.now()) > 0:
            if left_s > SPIN_S:
                sleep(left_s - SPIN_S)

    def _left(self, request_id: int, ended_s: float) -> None:
        """A request is done: those that follow it come when their user has thought."""
        for child in self._children.pop(request_id, ()):
            due_s = max(child.arrival_s, ended_s + child.think_time_s)
            heapq.heappush(self._due, (due_s, self._order, child))
            self._order += 1

    def _reject(self, request: Request, due_s: float, reason: str) -> None:
        sequence = Sequence(request, 0, due_s)
        sequence.status, sequence.reason = "rejected", reason
        self.sequences.append(sequence)
        for child in self._children.pop(request.id, ()):
            self._reject(child, child.arrival_s, f"its parent {request.id} was rejected")

    def _stop(self) -> None:
        """What has not been served by now is unfinished."""
        for g in list(self.engine.live.values()):
            self.engine.cancel(g)
            g.reason = f"the run ended after {self.limit_s:g} s"
        while self.engine.busy:
            self.engine.step()
        self.never_came = len(self._due) + sum(map(len, self._children.values()))

    def timelines(self) -> tuple[Timeline, ...]:
        """One a request, by id."""
        return tuple(timeline_of(s) for s in sorted(self.sequences, key=lambda s: s.request.id))


def provenance(experiment, engine, workload: Workload, options: EngineOptions, client: Client) -> Provenance:
    """What a measured run says of itself: the machine, what was really served, what was left out."""
    device = probe() if engine.device.type == "cuda" else probe_cpu()
    packages = {name: version(name) for name in ("torch", "numpy")}
    return Provenance(
        kind=MEASURED,
        hardware_key=hardware_key(device),
        command="Experiment.run(on='engine')",
        commit=commit(),
        made=made.now_utc(),
        seeds=(experiment.seed,),
        workload=workload.name,
        workload_sha256=workload.sha256,
        repairs=workload.repairs,
        policy={
            **{k: v for k, v in experiment.provenance().policy.items() if k.startswith("admission")},
            "router": "one worker",
            "engine": {k: v for k, v in asdict(options).items() if v != inf},
        },
        fleet=describe(engine, hardware_key(device)),
        versions={**made.versions(), **packages},
        notes="; ".join(_notes(experiment, engine, client)),
    )


def describe(engine, hardware: str) -> dict:
    """The worker that served, in plain values, with the names of `Fleet.describe`."""
    limits = engine.limits
    return {
        "model": engine.config.name,
        "hardware": hardware,
        "workers": 1,
        "split": None,
        "tp": 1,
        "chunk_tokens": limits.token_budget,
        "max_batch": limits.max_batch,
        "kv_gib_per_worker": round(engine.pages.nbytes / 2**30, 3),
        "block_tokens": limits.block_tokens,
        "dtype": str(engine.decoder.dtype).removeprefix("torch."),
        "overlap": engine.overlap,
        "graphs": engine.runner.graphs,
        "cost": "measured",
    }


def _notes(experiment, engine, client: Client) -> Iterator[str]:
    late = sorted(client.lateness_s) or [0.0]
    yield (
        f"requests reached the engine {1e3 * late[len(late) // 2]:.3f} ms (median) to {1e3 * late[-1]:.3f} ms after "
        "their scheduled arrival, the rest of the step in progress included; latencies count from the arrival"
    )
    asked = experiment.fleet.model
    if engine.config.name != PRESETS.get(asked, asked):
        yield f"served {engine.config.name} in place of the fleet's {asked}"
    if client.never_came:
        yield f"{client.never_came} requests are left out: they had not been sent when the run ended"
