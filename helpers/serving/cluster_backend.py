"""`Experiment.run(on="engine")` with several workers: the workload on a live cluster, by the real clock.

Each worker is a process with an engine of its own, and the front end in this process asks the very routers and
admission policies that a simulation asks. The client is open-loop: a request is sent at its scheduled arrival,
whatever the workers do.

torch is imported inside functions: this file can be imported anywhere.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from math import inf

from helpers.checkout import commit
from helpers.cost.samples import StepSample
from helpers.errors import InputError
from helpers.hardware import hardware_key, probe, probe_cpu
from helpers.metrics.audit import audit
from helpers.serving import provenance as made
from helpers.serving.engine_backend import PRESETS, EngineOptions, MeasuredRun
from helpers.serving.run import MEASURED, Provenance
from helpers.simulator.cluster import no_collection

DEPENDENCIES = "a live cluster needs {}; pip install -e '.[engine,serve]'"


@dataclass(frozen=True)
class ClusterOptions(EngineOptions):
    """What serves on a live cluster, beyond `EngineOptions`.

    `mover` is how KV is handed over (helpers.cluster.movers; empty: the fleet's link mode). `verify` compares each
    page that arrives with what was sent; `keep_logits` keeps those of every token; `tamper` damages what arrives.
    A hand-off may take `transfer_limit_s`, workers `start_limit_s` to start; a worker may be silent for `hang_s`, and
    none make a step for `stall_s` while requests are there. `link_bytes_per_s` and `link_latency_s`
    slow the hand-off down (0: as fast as memory is copied). `send_after[i]` layers have to be stored before the mover
    `layerwise` sends layer i (empty: its own i + 1). `faults` are what only a live cluster knows
    (helpers.cluster.faults). `workers` are running ones (`workers_for`), to be used for several runs.
    """

    mover: str = ""
    verify: bool = False
    keep_logits: bool = False
    tamper: str = ""
    transfer_limit_s: float = 30.0
    hang_s: float = 20.0
    stall_s: float = inf
    start_limit_s: float = 120.0
    link_bytes_per_s: float = 0.0
    link_latency_s: float = 0.0
    stage_mib: float = 16.0
    send_after: tuple[int, ...] = ()
    faults: tuple = ()
    workers: object = None


@dataclass(frozen=True)
class ClusterRun(MeasuredRun):
    """A run of a live cluster: besides the log, what came out and what moved.

    `tokens` and `logits` (float32 as bytes, one a token) by request; `worker_samples` the steps of each worker;
    `startup_s` what the workers took to start, which is no part of the run; `moved_bytes` of KV in `hand_offs`, of
    which `checked` (layer, page)s were compared and `wrong` ones differed. `kv_peak_share` is the largest share of
    its KV blocks that each worker has shown in use. `legs` are those of each hand-off (helpers.cluster.receiver.Legs).
    """

    tokens: dict[int, list[int]] = field(default_factory=dict)
    logits: dict[int, list[bytes]] = field(default_factory=dict)
    worker_samples: tuple[tuple[StepSample, ...], ...] = ()
    startup_s: float = 0.0
    moved_bytes: int = 0
    hand_offs: int = 0
    checked: int = 0
    wrong: int = 0
    kv_peak_share: tuple[float, ...] = ()
    legs: dict[int, list] = field(default_factory=dict)


def options_of(options: EngineOptions | None) -> ClusterOptions:
    """Options of an engine as those of a cluster."""
    if isinstance(options, ClusterOptions):
        return options
    return ClusterOptions(**asdict(options)) if options else ClusterOptions()


def run(experiment, options: EngineOptions | None = None) -> ClusterRun:
    """Serve the experiment's workload on a live cluster. Raises `InputError` for what it cannot do."""
    options = options_of(options)
    _refuse(experiment)
    workload = options.workload(experiment.workload)
    owned = options.workers is None
    with (
        workers_for(experiment.fleet, workload.block_tokens, options) if owned else nullcontext(options.workers) as crew
    ):
        return serve(experiment, crew, workload, options)


def _refuse(experiment) -> None:
    if experiment.make_scaler():
        raise InputError("a live cluster keeps its workers, so it has no scaler; leave it out")
    if experiment.fleet.telemetry.noise:
        raise InputError("telemetry of a live cluster is as noisy as it is; leave its noise out")


@contextmanager
def workers_for(fleet, block_tokens: int, options: EngineOptions | None = None) -> Iterator:
    """Running workers for a fleet, to be given to several runs as `ClusterOptions.workers`; closed at the end.

    Raises `InputError` where a package is missing and for what a worker refuses, `WorkerError` for one that fails.
    """
    options = options_of(options)
    try:
        from helpers.cluster.workers import Workers, WorkersSpec
        from helpers.engine.load import device_of
    except ModuleNotFoundError as error:
        raise InputError(DEPENDENCIES.format(error.name)) from None

    device = device_of(options.device).type if options.device == "auto" else options.device
    model = options.model or (PRESETS.get(fleet.model, "tiny") if device.startswith("cuda") else "tiny")
    spec = WorkersSpec(
        len(fleet.roles), model, device, options.dtype, block_tokens, fleet.chunk_tokens, fleet.max_batch,
        fleet.kv_gib, options.stage_mib, start_limit_s=options.start_limit_s,
    )  # fmt: skip
    with Workers(spec) as crew:
        yield crew


def parts_of(experiment, options: ClusterOptions) -> list:
    """What each worker plays."""
    from helpers.cluster.movers import mover
    from helpers.cluster.orders import Part
    from helpers.cluster.tamper import checked

    fleet = experiment.fleet
    name = mover(options.mover or (fleet.link.mode if fleet.link else fleet.link_mode)).name
    return [
        Part(
            role, name, fleet.telemetry.period_s, options.verify, options.keep_logits, options.transfer_limit_s,
            options.link_bytes_per_s, options.link_latency_s, checked(options.tamper), send_after=options.send_after,
        )
        for role in fleet.roles
    ]  # fmt: skip


def serve(experiment, crew, workload, options: ClusterOptions) -> ClusterRun:
    """Serve a workload on running workers, which are idle before and after."""
    from helpers.cluster.live import LiveCluster
    from helpers.cluster.movers import checked_release, mover
    from helpers.cluster.stand_ins import Payload
    from helpers.serving.experiment import recorder

    parts = parts_of(experiment, options)
    checked_release(options.send_after, crew.facts[0]["shape"][0], mover(parts[0].mover))
    decisions: list[dict] = []
    facts = replace(experiment.facts(), kv_blocks=crew.limits.kv_blocks)  # those of the workers that are there
    cluster = LiveCluster(
        crew,
        parts,
        experiment.make_routers(facts),
        experiment.make_admissions(facts),
        experiment.seed,
        disturbances=(*experiment.disturbances, *options.faults),
        closed_loop=any(r.parent is not None for r in workload),
        on_decision=recorder(decisions),
        telemetry_delay_s=experiment.fleet.telemetry.delay_s,
        hang_s=options.hang_s,
        stall_s=options.stall_s,
    )
    if options.temperature:
        for r in workload:
            seed = (experiment.seed * 1_000_003 + r.id) % 2**32  # as a single engine is given
            cluster.payloads[r.id] = Payload(sampling=(options.temperature, 1.0, 0, seed))
    gc.collect()
    with no_collection():
        log = cluster.run(workload.requests, options.limit_s)
    broken = audit(log)
    if broken:
        raise RuntimeError(f"the cluster's record breaks its contract: {broken[0]}")
    books = cluster.books
    samples = tuple(map(tuple, books.samples))
    return ClusterRun(
        log, provenance(experiment, crew, workload, options, cluster), log.end_s, tuple(decisions),
        samples=tuple(s for one in samples for s in one), lateness_s=tuple(cluster.lateness_s),
        tokens=books.tokens, logits=books.logits, worker_samples=samples, startup_s=crew.startup_s,
        moved_bytes=books.moved_bytes, hand_offs=books.hand_offs, checked=books.checked, wrong=books.wrong,
        kv_peak_share=tuple(cluster.views.kv_peak_share), legs=books.legs,
    )  # fmt: skip


def provenance(experiment, crew, workload, options: ClusterOptions, cluster) -> Provenance:
    """What a run of a live cluster says of itself."""
    device = probe() if crew.spec.device.startswith("cuda") else probe_cpu()
    told = {k: v for k, v in asdict(_plain(options)).items() if v not in (inf, (), None, "")}
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
        policy={**experiment.provenance().policy, "engine": told, "faults": [repr(one) for one in options.faults]},
        fleet=describe(experiment, crew, options, hardware_key(device)),
        versions={**made.versions(), **{name: version(name) for name in ("torch", "numpy", "pyzmq")}},
        notes="; ".join(_notes(experiment, crew, cluster)),
    )


def _plain(options: ClusterOptions) -> ClusterOptions:
    """The options without what is no plain value."""
    return replace(options, workers=None, faults=())


def describe(experiment, crew, options: ClusterOptions, hardware: str) -> dict:
    """The workers that served, in plain values, with the names of `Fleet.describe`."""
    spec, fleet, limits = crew.spec, experiment.fleet, crew.limits
    pool = crew.facts[0]["shape"]
    return {
        "model": spec.model,
        "hardware": hardware,
        "workers": spec.count,
        "split": fleet.split,
        "tp": 1,
        "chunk_tokens": limits.token_budget,
        "max_batch": limits.max_batch,
        "kv_blocks_per_worker": limits.kv_blocks,
        "block_tokens": limits.block_tokens,
        "pool": pool,
        "telemetry": [fleet.telemetry.period_s, fleet.telemetry.delay_s, 0.0],
        "mover": parts_of(experiment, options)[0].mover if fleet.split else None,
        "dtype": crew.facts[0]["dtype"],
        "cost": "measured",
    }


def _notes(experiment, crew, cluster) -> Iterator[str]:
    late = sorted(cluster.lateness_s) or [0.0]
    yield (
        f"requests reached the front end {1e3 * late[len(late) // 2]:.3f} ms (median) to {1e3 * late[-1]:.3f} ms after "
        "their scheduled arrival; latencies count from the arrival"
    )
    yield f"the workers took {crew.startup_s:.1f} s to start, which is no part of the run"
    asked = experiment.fleet.model
    if crew.spec.model != PRESETS.get(asked, asked):
        yield f"served {crew.spec.model} in place of the fleet's {asked}"
    if cluster.never_came:
        yield f"{cluster.never_came} requests are left out: they had not been sent when the run ended"
    if cluster.hand_off.asked:
        yield f"{cluster.hand_off.asked} copies between prefix caches were asked for, and the prefixes computed instead"
