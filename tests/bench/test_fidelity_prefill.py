"""The terms of a worker that only prefills: a cost of its own that knows of a warm device, and the way to it."""

from dataclasses import replace
from math import exp
from types import SimpleNamespace

import pytest

from helpers.bench.fidelity import calibrating, plan, table, terms
from helpers.cost.iteration import AffineCost
from helpers.cost.samples import StepSample
from helpers.cost.warm import WarmCost, seconds_of
from helpers.metrics.timeline import EventLog, StepLog, Timeline, WorkerInfo
from helpers.scheduling.limits import Limits

DECODE = StepSample((), 1, 100, 0.010)
DECODES = AffineCost(0.003, 1e-4, 0.0, 3e-4, 1e-6)


def log_of(*roles, timelines=(), starts_s=()):
    """A log of workers with these roles, the first of which began a step of 10 ms at each of these times."""
    rows = StepLog()
    for start_s in starts_s:
        rows.append(start_s, 1, 0.010, 0.0, 1, 0)
    return EventLog(tuple(timelines), (rows,), tuple(map(WorkerInfo, roles)), 10.0)


OWN = WarmCost(0.006, 2e-5, 0.0, 0.0, 0.0, per_recent_token_s=1e-9)


def prefilled(cost=OWN, count=120):
    """Steps of prompts alone after few or many recent tokens, as a cost says."""
    found = []
    for i in range(count):
        sample = StepSample(((20 + 331 * i % 2000, 0),), 0, 0, 1.0, recent_tokens=float(700 * i % 3100))
        found.append(sample._replace(seconds=seconds_of(cost, sample)))
    return found


def split_run(monkeypatch, prefills, hops=(0.001,) * 20, lead=0.004):
    """A run of a worker that prefills and one that decodes, by the cost `DECODES`."""
    decodes = [StepSample((), 1 + i % 7, 90 + i, DECODES.step((), 1 + i % 7, 90 + i)) for i in range(400)]
    monkeypatch.setattr(calibrating, "gapped", lambda run: [prefills, decodes])
    monkeypatch.setattr(calibrating, "hops_s", lambda log: list(hops))
    monkeypatch.setattr(calibrating, "hand_overs", lambda log: [(100 + i, 0.003 + 1e-5 * i) for i in range(20)])
    monkeypatch.setattr(calibrating, "lead_s", lambda logs: lead)
    return [SimpleNamespace(log=log_of("prefill", "decode"))]


def test_a_worker_that_only_prefills_has_a_cost_of_its_own(monkeypatch):
    """6 ms, 20 us a token and 1 ns for each pair of a new and a recent token, found again beside decodes of 3 ms.

    Controls: by the line of all steps a small one takes little more than half as long; a fleet that is not split has no
    such cost, nor a CPU one that warms; a planted slowness is in both costs.
    """
    runs = split_run(monkeypatch, prefilled())
    found = calibrating.terms_of(runs, ahead=True)
    assert found.prefill_cost.overhead_s == pytest.approx(0.006, rel=1e-3)
    assert found.prefill_cost.per_prefill_token_s == pytest.approx(2e-5, rel=1e-3)
    assert found.prefill_cost.per_recent_token_s == pytest.approx(1e-9, rel=1e-3)
    assert found.biases(prefilled()) == {"prefill": pytest.approx(0.0, abs=1e-9)}
    assert seconds_of(found.cost, prefilled()[0]) < 0.6 * prefilled()[0].seconds
    assert type(calibrating.terms_of(runs).prefill_cost) is AffineCost
    slow = found.slowed(1.3)
    assert slow.prefill_cost.per_recent_token_s == pytest.approx(1.3e-9, rel=1e-3)
    assert slow.cost.overhead_s == pytest.approx(1.3 * found.cost.overhead_s)
    mixed = [SimpleNamespace(log=log_of("mixed"))]
    monkeypatch.setattr(calibrating, "gapped", lambda run: [prefilled()])
    assert calibrating.terms_of(mixed, ahead=True).prefill_cost is None


def test_a_record_keeps_the_cost_of_a_prefill_worker(monkeypatch):
    """One without it is as before; the fleet of a split has it, that of workers that do both does not."""
    found = calibrating.terms_of(split_run(monkeypatch, prefilled()), ahead=True)
    kept = found.record()
    assert terms.cost_from(kept["prefill_cost"]) == found.prefill_cost and terms.cost_from(kept["cost"]) == found.cost
    shown = [row[1] for row in table.term_rows({"terms": {"1P1D": kept}})]
    assert {"per_recent_token", "overhead"} <= {n.removeprefix("prefill worker: ") for n in shown if n[:7] == "prefill"}
    assert "prefill_cost" not in replace(found, prefill_cost=None).record()
    limits = Limits(64, 64, 2048, 16)
    costs = [w.cost for w in plan.fleet_of("1P1D", limits, found).cluster(64).workers]
    assert costs == [found.prefill_cost, found.cost]
    assert [w.cost for w in plan.fleet_of("2", limits, found).cluster(64).workers] == [found.cost] * 2


@pytest.mark.parametrize(("hops", "way_s"), [((0.001,) * 20, 0.0009), ((0.001,) * 9, 0.004)])
def test_the_way_where_steps_are_launched_ahead_is_read_from_idle_workers_where_enough_were_met(
    monkeypatch, hops, way_s
):
    """A gap of 0.2 ms before each second step: 1 ms less a mean of 0.1 ms, as the cost has it. Of nine requests nothing
    is read; then the lead is the way. Control: the mean of the gaps that are there would give 0.8 ms.
    """
    steps = [s._replace(gap_s=0.0002 * (i % 2)) for i, s in enumerate(prefilled())]
    found = calibrating.terms_of(split_run(monkeypatch, steps, hops), ahead=True)
    assert found.hop_s == pytest.approx(way_s)
    assert terms.gap_of(steps, chunks=True) == pytest.approx(0.0002)


def test_steps_know_what_was_computed_just_before():
    """Steps of 800, 0 and 200 tokens from 0, 20 and 100 ms, of 10 ms each. 50 ms leave 1/e: 800 at 10 ms are
    800 / e^0.2 at 20 ms and 800 / e^1.8 at 100 ms; a step of decodes adds nothing. Control: another order has others.
    """
    steps = [StepSample(((800, 0),), 0, 0, 0.010), DECODE, StepSample(((150, 0), (50, 9)), 1, 100, 0.010)]
    found = terms.warmed([0.0, 0.020, 0.100], steps)
    assert [s.recent_tokens for s in found] == pytest.approx([0.0, 800 * exp(-0.2), 800 * exp(-1.8)])
    again = terms.warmed([0.0, 0.020, 0.100], steps[::-1])
    assert [s.recent_tokens for s in again] == pytest.approx([0.0, 200 * exp(-0.2), 200 * exp(-1.8)])
    log = log_of("mixed", timelines=[Timeline(0, 0.0, 9, 1, "unfinished")], starts_s=[0.0, 0.020, 0.100])
    assert [s.recent_tokens for s in terms.with_gaps(log, 0, steps)] == [s.recent_tokens for s in found]
