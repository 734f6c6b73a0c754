"""Admission before one real engine: the policy is asked at the moment a request is handed over.

It sees the worker as it stands between two steps, which is what a front end beside the engine would see. Who is
rejected never enters. A policy that holds requests, or learns from what became of them, needs a front end.
"""

from random import Random

from helpers.errors import InputError
from helpers.policies.view import Decision, Verdict, WorkerView
from helpers.simulator.frontend import FIRST_GATE, SEED_STRIDE
from helpers.workload.request import Request

ONLY_WORKER = Decision(0, 0)


class EngineViews:
    """One mixed worker, seen live."""

    prefill = decode = (0,)

    def __init__(self, engine) -> None:
        self._engine = engine

    def __getitem__(self, worker: int) -> WorkerView:
        scheduler = self._engine.scheduler
        kv_tokens = sum(s.computed for s in scheduler.running)
        pool, waiting_tokens = scheduler.pool, scheduler.waiting_tokens()
        return WorkerView(
            worker, "mixed", 0.0, len(scheduler.running), len(scheduler.waiting), waiting_tokens, kv_tokens,
            pool.used, pool.total,
        )  # fmt: skip


class EngineGate:
    """One admission policy before one engine, with the randomness that the simulator would give it."""

    def __init__(self, admission, engine, seed: int) -> None:
        self._admission, self._views = admission, EngineViews(engine)
        self._rng = Random(seed * SEED_STRIDE + FIRST_GATE)

    def verdict(self, request: Request, now: float) -> Verdict:
        """What the policy says of a request that would enter now."""
        return self._admission.admit(request, self._views, ONLY_WORKER, now, self._rng)


def gate_of(experiment, engine) -> EngineGate | None:
    """The gate of an experiment, None where everything is accepted anyway."""
    admissions = experiment.make_admissions()
    return EngineGate(admissions[0], engine, experiment.seed) if admissions else None


def refuse_what_needs_a_front_end(experiment) -> None:
    """Raise `InputError` for admission that one engine cannot carry out."""
    admissions = experiment.make_admissions()
    if len(admissions) > 1:
        raise InputError(f"the engine has one front end, and the experiment {len(admissions)}; give routers=1")
    for admission in admissions:
        if getattr(admission, "queues", False) or getattr(admission, "observes", ()):
            raise InputError(
                f"admission {admission.name} holds requests or listens to what becomes of them, which needs a front "
                "end that one engine lacks; take one that only looks, such as queue_cap"
            )
