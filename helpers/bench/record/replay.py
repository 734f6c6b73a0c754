"""What live workers were asked, made again for the simulator: the same requests, workers of equal limits.

`held_out` is a slice of the part `serve`, `routed` a draw of the part `routing`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from helpers.bench.fidelity.plan import Slice, experiment
from helpers.bench.fidelity.setting import SETTINGS
from helpers.bench.record.calibrating import LIMITS
from helpers.bench.record.live import SUSTAINED
from helpers.bench.record.routing import FLEET, SIZES, TRAINING, terms_from
from helpers.bench.record.serving import HELD_OUT_SEED, TRAFFIC, fleet_of, parameters_of, workload_of
from helpers.errors import InputError
from helpers.policies.view import Decision, Event, Views
from helpers.scheduling.limits import Limits
from helpers.serving.experiment import Experiment
from helpers.serving.run import Run
from helpers.workload.request import Request

MOST_LEFT_OUT = 64  # requests that were too long for the engine: the record does not say how many


def kind_of(record: Mapping) -> str:
    """The kind of device that a record is of, by which settings and sizes are kept: `cpu` or `cuda`."""
    return "cpu" if record["hardware_key"].startswith("cpu_") else "cuda"


def limits_of(run: Run) -> Limits:
    """The limits of the workers of a live run, which are all equal."""
    fleet, blocks = run.provenance.fleet, run.workers[0]
    return Limits(blocks.kv_blocks, blocks.block_tokens, fleet["chunk_tokens"], fleet["max_batch"])


def held_out(record: dict, section: str, run: Run) -> Experiment:
    """What was asked of the engine in a section of a record, given the pack of that section.

    `replace(asked, fleet=replace(asked.fleet, cost=cost)).run()` is then what the record calls predicted with that
    cost. Raises `InputError` when no draw has the digest of the requests that were served.
    """
    told, kind, limits = record["parts"][section], kind_of(record), limits_of(run)
    traffic, longest = TRAFFIC[kind], LIMITS[kind][-1]
    for left_out in range(MOST_LEFT_OUT):
        asked = len(run.timelines) + left_out
        drawn = workload_of(traffic, told["offered_per_s"], HELD_OUT_SEED, asked, limits.block_tokens, longest)
        if drawn.sha256 == told["sha256"]:
            break
    else:
        raise InputError(f"{section}: no draw has the digest of what was served; it was recorded by other code")
    policy = run.provenance.policy["admission"]
    parameters = parameters_of(traffic, policy)
    return Experiment(drawn, fleet_of(limits), admission=policy, admission_parameters=parameters)


@dataclass(frozen=True, slots=True)
class AsBefore:
    """A router that sends each request to the worker that it went to in an earlier run."""

    name: ClassVar[str] = "as_before"
    observes: ClassVar[frozenset[type]] = frozenset()
    workers: Mapping[int, int]  # by request

    def route(self, request: Request, views: Views, now: float, rng: Random) -> Decision:
        worker = self.workers[request.id]
        return Decision(worker, worker)

    def observe(self, event: Event, now: float) -> None:
        """Nothing that happens changes where the rest goes."""


def routed(record: dict, told: Mapping, run: Run) -> Experiment:
    """A draw that two live workers were asked, by the terms in the record; `run` is the pack that `told` names.

    `replace(asked, router=lambda _: as_live(run))` sends each request where the live router sent it. Raises
    `InputError` when these are not the requests that were served.
    """
    kind, parts = kind_of(record), record["parts"]
    size = SIZES[kind]
    where = told["load"], size.requests, told["seed"], told["router"]
    one = Slice(told["name"], FLEET, *where, lengths=size.lengths)
    drawn = one.workload(parts[SUSTAINED]["points"][0]["value"])
    if drawn.sha256 != told["sha256"]:
        raise InputError(f"{one.name}, seed {one.seed}: no draw has the digest of what was served")
    return experiment(one, drawn, limits_of(run), terms_from(parts[TRAINING]["terms"]), SETTINGS[kind])


def as_live(run: Run) -> AsBefore:
    """The decisions of a live run, as a router."""
    return AsBefore({one.id: one.prefill_worker for one in run.timelines})
