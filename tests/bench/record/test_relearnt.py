"""What today's code learns from a recorded fidelity, and what the simulator then says of the same live runs."""

from dataclasses import replace

import pytest

from helpers.bench.fidelity.compared import INSIDE, MISSED
from helpers.bench.fidelity.terms import LEAST_IDLE, cost_from, hops_s
from helpers.bench.record import relearnt
from helpers.bench.record.files import read_record
from helpers.bench.record.relearnt import Relearnt, unrounded
from helpers.cost.warm import WarmCost
from helpers.errors import InputError
from helpers.paths import DATA
from helpers.serving.packs import read_pack

FOLDER = DATA / "packs" / "2x_h200"
RECORD = read_record(FOLDER / "engine_llama-8b_fidelity.json")
SPLIT = "1P1D"


@pytest.fixture(scope="module")
def found():
    return Relearnt(RECORD, FOLDER)


@pytest.mark.parametrize(("section", "fleet"), [("one worker", "1"), ("two workers", "2"), (SPLIT, SPLIT)])
def test_what_was_learnt_then_is_learnt_again(found, section, fleet):
    """The cost that all steps share comes out as recorded, to the six digits to which the steps are kept. Control: the
    cost of another fleet is another one."""
    now = found.learned(section).of(next(one for one in found.asked.held_out if one.fleet == fleet))
    kept = RECORD["parts"][section]["terms"][fleet]
    assert now.counts == kept["counts"]
    assert now.cost.overhead_s == pytest.approx(kept["cost"]["overhead_s"], rel=1e-6)
    assert now.cost.per_prefill_token_s == pytest.approx(kept["cost"]["per_prefill_token_s"], rel=1e-6)
    others = [
        cost_from(part["terms"][name]["cost"]) for part in RECORD["parts"].values() for name in part.get("terms", ())
    ]
    assert sum(one.overhead_s == pytest.approx(now.cost.overhead_s, rel=1e-4) for one in others) == 1


@pytest.mark.parametrize("section", ["one worker", "two workers"])
def test_workers_that_do_both_are_simulated_as_recorded(found, section):
    """Nothing is new there. Control: the figures of a split are not those of the record."""
    for name, errors in errors_of(found.compared(section)).items():
        assert errors == pytest.approx(kept_errors(section)[name], abs=2e-4)
    assert errors_of(found.compared(SPLIT))["1P1D at 0.7"] != pytest.approx(kept_errors(SPLIT)["1P1D at 0.7"], abs=0.05)


def errors_of(compared):
    return {name: {one.name: one.error for one in figures.values()} for name, figures in compared.items()}


def kept_errors(section):
    return {h["name"]: {f["name"]: f["error"] for f in h["figures"]} for h in RECORD["parts"][section]["held_out"]}


def test_the_mean_ttft_of_a_split_is_within_its_goal(found):
    """Control: with the one line that prefills share with decodes, or on a GPU that is always cold, it is not."""
    learned = found.learned(SPLIT)
    terms = learned.terms[SPLIT]
    assert type(terms.prefill_cost) is WarmCost and terms.prefill_cost.per_recent_token_s > 0

    def verdicts(terms):
        figures = found.compared(SPLIT, replace(learned, terms={SPLIT: terms})).values()
        return [one["TTFT mean"].verdict for one in figures]

    assert verdicts(terms) == [INSIDE, INSIDE]
    assert verdicts(replace(terms, prefill_cost=None)) == [MISSED, MISSED]
    cold = replace(terms.prefill_cost, per_recent_token_s=0.0)
    assert verdicts(replace(terms, prefill_cost=cold)) == [MISSED, MISSED]


def test_nothing_is_learnt_from_what_is_held_out(found, monkeypatch):
    """Packs of other slices are not even read."""
    read = []
    monkeypatch.setattr(relearnt, "read_pack", lambda path: read.append(path.name) or read_pack(path))
    found.learned(SPLIT)
    assert read == ["live_llama-8b_steps_of_a_split.json.gz", "live_llama-8b_hand-overs.json.gz"]


def test_times_of_a_pack_are_those_of_its_rows_again(found):
    """Who met an idle worker is seen by equal times. Control: by the rounded ones nearly nobody did."""
    log = found.run_of(SPLIT, "steps of a split").log
    assert len(hops_s(log)) < LEAST_IDLE < len(hops_s(unrounded(log)))
    ends = {start + base for start, base in zip(log.step_logs[0].start_s, log.step_logs[0].base_s, strict=True)}
    assert all(t.first_token_s in ends for t in unrounded(log).timelines)
    assert not all(t.first_token_s in ends for t in log.timelines)


def test_other_requests_than_were_served_are_refused(found):
    """At another rate a slice has other arrivals. Control: at its own it is compared."""
    parts = {
        **found.parts,
        SPLIT: {**found.parts[SPLIT], "sustained_per_s": 1.01 * found.parts[SPLIT]["sustained_per_s"]},
    }
    other = Relearnt({**RECORD, "parts": parts}, FOLDER)
    with pytest.raises(InputError, match=r"^1P1D at 0\.4: no draw has the digest of what was served"):
        other.compared(SPLIT, found.learned(SPLIT))
    assert found.compared(SPLIT)
