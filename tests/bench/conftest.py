"""The simulator, at a pace of its own, in place of live workers."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest

from helpers.bench.fidelity import recorder
from helpers.bench.fidelity.calibrating import Learned
from helpers.bench.fidelity.plan import LEARNT_FROM, experiment
from helpers.bench.fidelity.terms import MODE, Terms, times
from helpers.bench.targets import on_engine
from helpers.cost.iteration import AffineCost
from helpers.cost.transfer import Link
from helpers.scheduling.limits import Limits

LIMITS = Limits(245, 64, 512, 32)
COST = AffineCost(3e-3, 1e-4, 0.0, 3e-4, 1e-6)
TERMS = Terms(COST, 3e-4, Link(1e-3, 5e10, MODE), {"steps": 1}, {})


@pytest.fixture
def pretended(monkeypatch):
    """Let the simulator, at a pace of its own, stand in for live workers; returns a function that sets that pace."""
    paces = {"factor": 1.0}
    noise = iter([0.99, 1.0, 1.01] * 100)

    def live(bench, one, workload, terms=None):
        factor = paces["factor"] * next(noise)
        run = experiment(one, workload, LIMITS, replace(TERMS, cost=times(COST, factor))).run()
        return SimpleNamespace(log=run.log, timelines=run.timelines, worker_samples=(), lateness_s=(0.0,))

    monkeypatch.setattr(recorder.Bench, "live", live)
    monkeypatch.setattr(recorder, "workers_for", lambda *_: nullcontext(SimpleNamespace(limits=LIMITS)))
    monkeypatch.setattr(recorder, "learn", lambda rate, runs: Learned(rate, dict.fromkeys(LEARNT_FROM, TERMS)))
    for module in (recorder, on_engine):
        monkeypatch.setattr(module, "refuse_what_cannot_be_timed", lambda fleets: None)
    return lambda factor: paces.update(factor=factor)
