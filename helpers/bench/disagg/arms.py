"""What is put to live workers: an experiment with the ways of handing KV over, or of running one engine, as a field.

What serves in a process serves one cell after another; it is started once, and its start is no part of any number.
"""

import atexit
import hashlib
from dataclasses import dataclass, replace

from helpers.bench.disagg.figures import hand_offs, latencies, mean, second_token_s
from helpers.bench.disagg.one_device import OneDeviceCrew, SharedRun, Size
from helpers.bench.targets.target import Sample
from helpers.bench.verification import breaches
from helpers.errors import InputError
from helpers.metrics.latency import defined
from helpers.serving.cluster_backend import ClusterOptions, ClusterRun, serve
from helpers.serving.experiment import Experiment
from helpers.workload.request import Request, Workload

BLOCK_TOKENS = 64
LIMIT_S = 60.0  # of one run; what is not served by then is a breach
WARM = Workload("first use", tuple(Request(i, 0.05 * i, 70 + 60 * i, 4) for i in range(3)), BLOCK_TOKENS)


@dataclass(frozen=True)
class LiveExperiment(Experiment):
    """An experiment on live workers: how KV is handed over (`helpers.cluster.movers`), on a link of which speed.

    The speed paces the arrival of what was copied in memory, in bytes per second; 0: as fast as memory is copied.
    On `one_device` there are no workers: the two roles of a split share it, and without a split one engine serves
    there with the memory of both.
    """

    mover: str = "layerwise"
    link_bytes_per_s: float = 0.0
    one_device: bool = False


_crews: dict[tuple, object] = {}


def crew_for(fleet):
    """Running workers for a fleet, those of this process; they end with it."""
    from helpers.cluster.workers import Workers, WorkersSpec

    key = (len(fleet.roles), fleet.chunk_tokens, fleet.max_batch, fleet.kv_gib)
    if key not in _crews or not _crews[key].whole:
        close_crews()
        spec = WorkersSpec(key[0], "tiny", "cpu", None, BLOCK_TOKENS, *key[1:])
        _crews[key] = Workers(spec)
        atexit.register(close_crews)
    return _crews[key]


def shared_crew_for(fleet) -> OneDeviceCrew:
    """What serves on one device in place of a fleet of two, in this process."""
    key = ("one device", fleet.chunk_tokens, fleet.max_batch, fleet.kv_gib)
    if key not in _crews:
        close_crews()
        _crews[key] = OneDeviceCrew(Size("tiny", "cpu", BLOCK_TOKENS, *key[1:]))
    return _crews[key]


def close_crews() -> None:
    """End all workers of this process."""
    while _crews:
        _crews.popitem()[1].close()


def run_live(experiment: LiveExperiment, workload: Workload, **told: object) -> ClusterRun | SharedRun:
    """Serve a workload; what is used for the first time is used before, by requests that nobody counts."""
    if experiment.one_device:
        return _run_shared(experiment, workload, **told)
    crew = crew_for(experiment.fleet)
    options = ClusterOptions(
        model="tiny", device="cpu", mover=experiment.mover, link_bytes_per_s=experiment.link_bytes_per_s,
        workers=crew, limit_s=LIMIT_S, **told,
    )  # fmt: skip
    if not getattr(crew, "used", False):
        serve(replace(experiment, workload=WARM), crew, WARM, replace(options, link_bytes_per_s=0.0))
        crew.used = True
    return serve(replace(experiment, workload=workload), crew, workload, options)


def _run_shared(experiment: LiveExperiment, workload: Workload, **told: object) -> SharedRun:
    """The same on one device."""
    crew = shared_crew_for(experiment.fleet)

    def run(load: Workload, link_bytes_per_s: float) -> SharedRun:
        if experiment.fleet.split:
            return crew.split(experiment.mover, load, LIMIT_S, link_bytes_per_s=link_bytes_per_s, **told)
        return crew.together(replace(experiment, workload=load), LIMIT_S)

    if not crew.used:
        run(WARM, 0.0)
        crew.used = True
    return run(workload, experiment.link_bytes_per_s)


def timed(experiment: LiveExperiment, workload: Workload, seed: int, iterations: int) -> Sample:
    """A cell: the last of `iterations` runs, with the answers that came out."""
    walls, run = [], None
    for _ in range(iterations):
        run = run_live(replace(experiment, seed=seed), workload)
        walls.append(run.wall_s)
    values = {
        **latencies(run.log),
        **hand_offs(run.log),
        "second_token_s": mean(defined(second_token_s(run.log), run.log.timelines)),
        "moved_mb": None if run.moved_bytes is None else run.moved_bytes / 1e6,
    }
    found = breaches(run.log, workload, workload.sha256)
    kept = {"answers": answers(run.tokens), "startup_s": round(run.startup_s, 2)}
    return Sample(values, workload.sha256, {}, found, tuple(walls), kept)


def answers(tokens: dict[int, list[int]]) -> list[str]:
    """A digest of each answer, by the id of its request."""
    return [hashlib.sha256(repr(list(tokens[i])).encode()).hexdigest()[:12] for i in sorted(tokens)]


def unnoticed(experiment: LiveExperiment, workload: Workload) -> list[str]:
    """Damage to KV that the digests of the hand-off do not notice, and a sound hand-off that they do not pass.

    Raises `InputError` for a fleet without hand-offs.
    """
    from helpers.cluster.tamper import KINDS

    if experiment.fleet.split is None:
        raise InputError("a run without hand-offs has no KV to damage; give the control a split")
    experiment = replace(experiment, link_bytes_per_s=0.0)
    few = replace(workload, requests=workload.requests[:4])
    wrong = {kind: run_live(experiment, few, verify=True, tamper=kind) for kind in ("", *KINDS)}
    missed = [kind for kind in KINDS if not wrong[kind].wrong]
    if wrong[""].wrong or not wrong[""].checked:
        missed.append("a sound hand-off does not pass")
    return missed
