"""What is read from the records of live runs: gaps, the way to a worker, the hand-over, and a cost that keeps time."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from helpers.bench.fidelity import calibrating, plan, table, terms
from helpers.bench.fidelity.ahead import lead_s
from helpers.bench.fidelity.setting import SETTINGS
from helpers.cost.first_rows import FirstRowsCost
from helpers.cost.iteration import AffineCost
from helpers.cost.samples import StepSample
from helpers.errors import InputError
from helpers.metrics.timeline import EventLog, Span, StepLog, Timeline, WorkerInfo
from helpers.simulator.views import Telemetry

DECODE = StepSample((), 1, 100, 0.010)


def rows(*steps):
    log = StepLog()
    for start_s, seconds, decoding in steps:
        log.append(start_s, 1, seconds, 0.0, decoding, 0)
    return log


def request(number, dispatched_s, first_token_s, finished_s, **more):
    kept = {"prefill_worker": 0, "decode_worker": 0, "prefill_start_s": dispatched_s, "arrival_s": dispatched_s, **more}
    return Timeline(
        number, prompt_tokens=100, output_tokens=3, status="finished", dispatched_s=dispatched_s,
        first_token_s=first_token_s, finished_s=finished_s, generated_tokens=3, **kept,
    )  # fmt: skip


def log_of(timelines, *logs, roles=("mixed",)):
    return EventLog(tuple(timelines), logs, tuple(WorkerInfo(role) for role in roles), 10.0)


# Steps from 0 to 10 ms, from 12 to 22 ms, and from 50 to 60 ms.
STEPS = rows((0.000, 0.010, 0), (0.012, 0.010, 1), (0.050, 0.010, 1))


def test_a_gap_counts_where_somebody_was_there_all_the_while():
    """A request is there until 22 ms, the next comes at 49 ms: 2 ms before the second step, none before the third."""
    log = log_of([request(0, 0.0, 0.010, 0.022), request(1, 0.049, 0.060, 0.070)], STEPS)
    assert [s.gap_s for s in terms.with_gaps(log, 0, [DECODE] * 3)] == pytest.approx([0.0, 0.002, 0.0])


def test_control_a_request_that_stays_makes_the_third_gap_count_and_one_that_left_none():
    stays = log_of([request(0, 0.0, 0.010, 0.060)], STEPS)
    assert [s.gap_s for s in terms.with_gaps(stays, 0, [DECODE] * 3)] == pytest.approx([0.0, 0.002, 0.028])
    left = log_of([request(0, 0.0, 0.010, 0.010)], STEPS)
    assert [s.gap_s for s in terms.with_gaps(left, 0, [DECODE] * 3)] == [0.0, 0.0, 0.0]


def test_samples_of_another_run_are_refused():
    with pytest.raises(InputError, match="3 rows and 2 samples"):
        terms.with_gaps(log_of([], STEPS), 0, [DECODE] * 2)


def test_the_way_to_a_worker_is_read_where_nobody_was_before():
    """The first came at 48 ms and began at 50 ms; the second came while the first was there."""
    first = request(0, 0.0485, 0.060, 0.080, arrival_s=0.048, prefill_start_s=0.050)
    second = request(1, 0.055, 0.070, 0.090, arrival_s=0.055, prefill_start_s=0.060)
    log = log_of([first, second], rows((0.050, 0.010, 0), (0.060, 0.010, 1)))
    assert terms.hops_s(log) == pytest.approx([0.002])
    busy = request(2, 0.001, 0.010, 0.100)  # control: with somebody there all the time nobody met an idle worker
    assert terms.hops_s(log_of([first, second, busy], rows((0.050, 0.010, 0), (0.060, 0.010, 1)))) == []


def test_a_hand_over_is_from_the_first_token_to_the_next_step():
    """The first token is out at 10 ms, the idle decode worker begins at 13 ms: 3 ms for 100 tokens."""
    decode = {"decode_worker": 1, "transfer_start_s": 0.011, "transfer_end_s": 0.0125, "spans": (Span(1, 0, 1),)}
    moved = request(0, 0.0, 0.010, 0.033, **decode)
    prefill, decoding = rows((0.0, 0.010, 0)), rows((0.013, 0.010, 1), (0.023, 0.010, 1))
    log = log_of([moved], prefill, decoding, roles=("prefill", "decode"))
    ((tokens, seconds),) = terms.hand_overs(log)
    assert (tokens, seconds) == (100, pytest.approx(0.003))
    other = request(1, 0.0, 0.002, 0.033, **{**decode, "transfer_end_s": 0.005})  # control: it is there before
    both = log_of([moved, other], prefill, decoding, roles=("prefill", "decode"))
    assert (100, pytest.approx(0.003)) not in terms.hand_overs(both)


def test_a_link_has_the_latency_and_the_rate_of_its_hand_overs():
    """2 ms for 100 tokens, 3 ms for 200: 10 us a token and 1 ms; less a gap of 0.4 ms."""
    link = terms.link_of([(100, 0.002), (200, 0.003)], kv_bytes_per_token=1000.0)
    assert (link.latency_s, link.bytes_per_s) == (pytest.approx(0.001), pytest.approx(1000.0 / 1e-5))
    assert terms.link_of([(100, 0.002), (200, 0.003)], 1000.0, gap_s=0.0004).latency_s == pytest.approx(0.0006)
    flat = terms.link_of([(100, 0.003), (200, 0.002)], 1000.0)  # control: no rate is negative
    assert flat.latency_s == pytest.approx(0.0025, rel=1e-3) and flat.bytes_per_s > 0


TRUE = AffineCost(0.003, 1e-4, 0.0, 3e-4, 1e-6)


def served(slow_every=0):
    """Steps of a known cost, of which each `slow_every`-th takes three times as long."""
    found = []
    for i in range(400):
        chunks = ((40 + i % 90, 0),) if i % 3 == 0 else ()
        decodes, kv_tokens = i % 7, 100 * (i % 7) + i % 13
        if not chunks and not decodes:
            continue
        slow = 3.0 if slow_every and i % slow_every == 1 else 1.0
        found.append(StepSample(chunks, decodes, kv_tokens, slow * TRUE.step(chunks, decodes, kv_tokens)))
    return found


def test_a_cost_is_found_again():
    found = terms.step_cost(served())
    assert found.overhead_s == pytest.approx(TRUE.overhead_s, rel=1e-3)
    assert found.per_prefill_token_s == pytest.approx(TRUE.per_prefill_token_s, rel=1e-3)


def test_disturbed_steps_take_as_long_in_all_as_they_took():
    """A fit of relative errors is short of the mean; control: that very fit, without the scale, is."""
    from helpers.cost.fit import fit

    samples = served(slow_every=5)
    assert terms.bias_of(terms.step_cost(samples), samples) == pytest.approx(0.0, abs=1e-9)
    assert terms.bias_of(fit(samples, draws=2).cost, samples) < -0.05


def test_the_first_rows_of_a_step_have_a_term_on_a_cpu_alone(monkeypatch):
    """2 ms, and 0.5 ms for each of the first two rows. A GPU, which launches ahead, keeps the affine cost."""
    true = FirstRowsCost(0.002, 1e-4, 0.0, 3e-4, 1e-6, per_first_row_s=5e-4)
    steps = [s._replace(seconds=true.step(s.chunks, s.decodes, s.kv_tokens)) for s in served()]
    monkeypatch.setattr(calibrating, "gapped", lambda run: [steps])
    monkeypatch.setattr(calibrating, "hops_s", lambda log: [0.001] * 20)
    monkeypatch.setattr(calibrating, "hand_overs", lambda log: [])
    runs = [SimpleNamespace(log=log_of([], STEPS))]
    cpu, gpu = (calibrating.terms_of(runs, ahead) for ahead in (False, True))
    assert cpu.cost.per_first_row_s == pytest.approx(5e-4, rel=1e-3)
    assert type(gpu.cost) is AffineCost
    assert terms.cost_from(cpu.record()["cost"]) == cpu.cost and terms.cost_from(gpu.record()["cost"]) == gpu.cost
    shown = [row[1] for row in table.term_rows({"terms": {"1": cpu.record()}})]
    assert "per_first_row" in shown and "per_decode" in shown


def test_a_fleet_that_is_full_has_the_cost_of_its_own_steps(monkeypatch):
    """Steps that take half as long again, in runs in which nobody meets an idle worker: the way is that of the fleet.

    Control: the fleet itself is learnt as before, and where only full runs are there nothing is known of the way.
    """
    usual, larger = served(), [s._replace(seconds=1.5 * s.seconds) for s in served()]
    steps = {"usual": usual, "larger": larger}
    monkeypatch.setattr(calibrating, "gapped", lambda run: [steps[run.kind]])
    monkeypatch.setattr(calibrating, "hops_s", lambda log: [0.001] * 20)
    monkeypatch.setattr(calibrating, "hand_overs", lambda log: [])
    run = {kind: SimpleNamespace(kind=kind, log=log_of([], STEPS)) for kind in steps}
    told = {plan.TWO.name: [run["usual"]], plan.BUSY.name: [run["larger"]], plan.FULL.name: [run["larger"]]}
    learned = calibrating.learn(50.0, told)
    full, fleet = (learned.of(replace(plan.TWO, load=load)) for load in (1.2, 1.0))
    assert fleet == calibrating.terms_of([run["usual"]])
    assert full.cost.overhead_s == pytest.approx(1.5 * fleet.cost.overhead_s, rel=1e-3)
    assert full.cost.per_decode_s == pytest.approx(1.5 * fleet.cost.per_decode_s, rel=1e-3)
    assert (full.hop_s, full.link) == (fleet.hop_s, fleet.link)
    assert full.counts == {**fleet.counts, "steps": 2 * len(larger)}
    assert max(map(abs, full.bias.values())) < 1e-6
    with pytest.raises(KeyError):
        calibrating.learn(50.0, {plan.FULL.name: [run["larger"]]})


def concave(rows):
    """6 ms, 0.05 ms for each of the first 20 decodes, and 0.01 ms for each decode; contexts of 800 tokens."""
    return StepSample((), rows, 800 * rows, 0.006 + 5e-5 * min(rows, 20) + 1e-5 * rows)


def test_a_burst_teaches_workers_of_a_gpu_what_the_largest_batches_cost(monkeypatch):
    """Decodes of 100 take 6 + 1 + 1 = 8 ms. A line through those of 1 to 28 makes them far too long, one that was
    fitted to a burst of 60 to 128 too does not; what else is known stays, and so does all of a split, none of whose
    workers does what the burst's did. Control: without a burst nothing changes.
    """
    slices = [concave(1 + i % 28) for i in range(200)]
    burst = [concave(60 + i % 69) for i in range(138)]
    monkeypatch.setattr(calibrating, "gapped", lambda run: [slices, *[[]] * (len(run.log.workers) - 1)])
    monkeypatch.setattr(calibrating, "hops_s", lambda log: [])
    monkeypatch.setattr(calibrating, "hand_overs", lambda log: [(100 + i, 0.003 + 1e-5 * i) for i in range(20)])
    monkeypatch.setattr(calibrating, "lead_s", lambda logs: 0.004)
    fleets = {"2": plan.TWO, "1P1D": plan.SPLIT}
    roles = {"2": ("mixed",), "1P1D": ("prefill", "decode")}
    runs = {one.name: [SimpleNamespace(log=log_of([], STEPS, roles=roles[name]))] for name, one in fleets.items()}
    asked = {name: (one,) for name, one in fleets.items()}
    alone = calibrating.learn(50.0, runs, asked, ahead=True)
    taught = calibrating.learn(50.0, runs, asked, ahead=True, burst=burst)

    def off(found):
        return found.of(plan.TWO).cost.step((), 100, 80_000) / 0.008 - 1

    assert off(alone) > 0.2 and abs(off(taught)) < 0.04
    assert taught.without_large_steps(plan.TWO) == alone.without_large_steps(plan.TWO) == alone.of(plan.TWO)
    assert taught.of(plan.TWO).counts == {**alone.of(plan.TWO).counts, "steps": 200 + 138}
    assert (taught.of(plan.TWO).hop_s, taught.of(plan.TWO).link) == (0.004, None)
    assert taught.of(plan.SPLIT) == alone.of(plan.SPLIT) == taught.without_large_steps(plan.SPLIT)
    assert not alone.smaller and list(taught.smaller) == ["2"]


def test_only_what_is_full_is_learnt_from_larger_batches():
    """Below what a fleet sustains nothing changes: the slices of a plan are those of its fleets."""
    from helpers.bench.fidelity.arms import ARMS

    assert calibrating.slices_for(plan.HELD_OUT) == (plan.ONE, plan.TWO, plan.SPLIT)
    needed = {name: calibrating.slices_for(arms) for name, arms in ARMS.items()}
    assert needed.pop("routers:early_rejection") == (plan.TWO, plan.BUSY, plan.FULL)
    assert list(needed.values()) == [(plan.TWO,)] * 2
    with pytest.raises(InputError, match="nothing is learnt about a fleet 1, full"):
        calibrating.slices_for([replace(plan.ONE, load=1.2)])


def test_reports_come_with_steps_where_none_is_launched_ahead():
    """On a CPU; a worker of a GPU has booked the step in flight when it reports, as the simulator's has."""
    limits = plan.described("2").cluster(64).workers[0].limits
    for device, by_step in (("cpu", True), ("cuda", False)):
        fleet = plan.fleet_of("2", limits, None, SETTINGS[device])
        assert fleet.telemetry == Telemetry(by_step=by_step)
    assert plan.fleet_of("2", limits, None).telemetry.by_step


def test_a_cost_that_is_higher_is_higher_everywhere():
    higher = terms.times(TRUE, 1.3)
    assert higher.step(((50, 0),), 3, 400) == pytest.approx(1.3 * TRUE.step(((50, 0),), 3, 400))
    assert higher.kind == TRUE.kind


def test_gaps_are_averaged_by_kind_where_there_are_some():
    some = [DECODE._replace(gap_s=0.002), DECODE, replace_chunks(DECODE)._replace(gap_s=0.004)]
    assert terms.gap_of(some, chunks=False) == pytest.approx(0.002)
    assert terms.gap_of(some, chunks=True) == pytest.approx(0.004)
    assert terms.gap_of([DECODE], chunks=True) == 0.0


def replace_chunks(sample):
    return sample._replace(chunks=((10, 0),))


def test_a_rejected_request_was_at_no_worker():
    gone = replace(request(0, 0.0, 0.010, 0.022), status="rejected")
    assert terms.stay_at(gone, 0) is None
    assert terms.stay_at(request(0, 0.0, 0.010, 0.022), 0) == (0.0, 0.022)
    assert terms.stay_at(request(0, 0.0, 0.010, 0.022), 1) is None


# -- the lead of steps that are launched ahead

BUSY = rows(*((0.010 * i, 0.010, 1) for i in range(40)))


def come(lead_ms, queued=0):
    """Requests that come 1 to 9 ms after the start of a step of 10 ms and must be there `lead_ms` before the next one.

    `queued` of them begin three steps later than they could.
    """
    found = []
    for number in range(27):
        step, after_ms = number, 1 + number % 9
        began = step + (1 if after_ms <= 10 - lead_ms else 2) + (3 if number < queued else 0)
        times = {"arrival_s": 0.010 * step + 0.001 * after_ms, "prefill_start_s": 0.010 * began}
        found.append(request(number, times["arrival_s"], 0.5, 0.6, **times))
    return log_of(found, BUSY)


@pytest.mark.parametrize("queued", [0, 7])
def test_a_lead_is_found_whoever_had_to_queue(queued):
    """Of a lead of 4 ms: who comes 6 ms after a start is in the next step, who comes after 7 ms is not: 3 to 4 ms."""
    assert 0.003 <= lead_s([come(4, queued)]) < 0.004
    assert 0.007 <= lead_s([come(8, queued)]) < 0.008


def test_control_without_a_lead_there_is_none():
    assert lead_s([come(0)]) < 0.001


def test_who_meets_a_worker_in_a_pause_begins_when_it_is_there():
    """Twelve requests alone, each 0.6 ms before its step of 10 ms: tried are multiples of 3 * 10 ms / 120."""
    steps = rows(*((0.1 * i + 0.0006, 0.010, 0) for i in range(12)))
    alone = [request(i, 0.1 * i, 0.1 * i + 0.02, 0.1 * i + 0.03, prefill_start_s=0.1 * i + 0.0006) for i in range(12)]
    assert lead_s([log_of(alone, steps)]) == pytest.approx(0.0005)
    with pytest.raises(InputError, match="9 requests were prefilled"):
        lead_s([log_of(alone[:9], steps)])
