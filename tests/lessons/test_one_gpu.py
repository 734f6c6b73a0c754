"""What the page on one GPU takes from its records."""

import pytest

from helpers.cost.iteration import AffineCost
from helpers.cost.samples import StepSample
from helpers.errors import InputError
from helpers.lessons import one_gpu

# A millisecond a step, and nothing else.
COST = AffineCost(1e-3, 0.0, 0.0, 0.0, 0.0)


def test_full_steps_are_those_that_fill_the_budget():
    chunk = lambda tokens, decodes, ms: StepSample(((tokens, 0),), decodes, 0, ms / 1e3)  # noqa: E731
    full = [chunk(2048, 0, 50), chunk(1985, 0, 40), chunk(1900, 148, 60)]
    others = [chunk(1984, 0, 1), chunk(2048, 1, 1), StepSample((), 2000, 0, 0.001)]
    assert one_gpu.full_steps(full + others) == (pytest.approx(50.0), 3)
    assert one_gpu.full_steps([*full, chunk(2000, 0, 1), chunk(2000, 0, 1)])[0] == pytest.approx(40.0)


def test_errors_of_steps_are_by_kind_and_rare_kinds_are_left_out():
    decodes = [StepSample((), 1, 0, 0.002)] * 3
    steps = {"some": [*decodes, StepSample(((8, 0),), 0, 0, 0.004)]}
    found = one_gpu.step_errors(steps, {"a": COST}, least=2)
    assert [(one.kind, one.n, one.bias) for one in found["some"]["a"]] == [("decode", 3, pytest.approx(-0.5))]
    both = one_gpu.step_errors(steps, {"a": COST}, least=1)
    assert [one.kind for one in both["some"]["a"]] == ["decode", "prefill"]


def test_the_largest_error_keeps_its_sign():
    points = [{"name": "TTFT mean", "errors": {"a": e, "b": 0.0}} for e in (0.1, -0.3, 0.2)]
    told = {"parts": {str(i): {"points": [one]} for i, one in enumerate(points)}}
    assert (one_gpu.largest(told, "a", "TTFT mean"), one_gpu.largest(told, "b", "TTFT mean")) == (-0.3, 0.0)


def test_the_worst_means_are_sizes_over_all_loads_ttft_first():
    def load(ttft, tpot):
        return {"points": [{"name": f"{k} mean", "errors": {"a": e}} for k, e in (("TTFT", ttft), ("TPOT", tpot))]}

    told = {"parts": {"x": load(0.1, -0.05), "y": load(-0.2, 0.01)}}
    assert one_gpu.worst_means(told, "a") == (0.2, 0.05)


def test_errors_of_a_load_are_of_one_cost():
    points = [{"name": n, "errors": {"a": e, "b": -e}} for n, e in (("TTFT mean", 0.2), ("TPOT mean", -0.1))]
    told = {"parts": {"none at 1.2": {"points": points}, "none at 0.7": {"points": []}}}
    assert one_gpu.errors_at(told, "none at 1.2", "b") == {"TTFT mean": -0.2, "TPOT mean": 0.1}


def test_halves_are_medians_in_the_order_of_time():
    assert one_gpu.halves({"name": "loop", "samples": [9.0, 4.0, 5.0, 3.0, 1.0, 2.0]}) == (5.0, 2.0)  # not sorted
    with pytest.raises(InputError, match="1 samples"):
        one_gpu.halves({"name": "loop", "samples": [9.0]})


def test_loads_come_by_policy_and_rise(monkeypatch):
    monkeypatch.setattr(one_gpu, "_again", lambda record, name, costs: name)
    names = ("none at 1.2", "queue_cap at 0.95", "none at 0.7", "queue_cap at 0.7")
    parts = {name: {"pack": "x"} for name in names} | {"saturated": {}, "training": {}}
    assert list(one_gpu.served_again({"parts": parts}, {})) == [names[2], names[0], names[3], names[1]]
    with pytest.raises(InputError, match=r"no held-out load"):
        one_gpu.served_again({"parts": {"saturated": {}}}, {})


def machine(copy, steps):
    """A record with a ceiling and the loop of each batch: measured milliseconds and their floor."""
    loops = [
        {"name": f"batch {n} overlapped loop", "value": value, "floor": floor, "unit": "ms/step", "n": 2}
        for n, (value, floor) in steps.items()
    ]
    return {"parts": {"ceilings": {"points": [{"name": "copy", "value": copy}]}, "decode": {"points": loops}}}


def test_a_step_is_carried_over_whole_or_by_its_floor_alone():
    slow, fast = machine(3000.0, {1: (6.0, 4.0), 8: (9.0, 6.0)}), machine(6000.0, {1: (3.5, 2.0), 8: (4.5, 3.0)})
    assert one_gpu.ratio(slow, fast, "copy") == 2.0 and one_gpu.ratio(fast, slow, "copy") == 0.5
    found = one_gpu.carried_steps(slow, fast, (1, 8))
    # Half of 6 ms; or a floor of 2 ms and the 2 ms above the slow one's. Of the batch of 8: 4.5, or 3 + 3.
    assert [one[2:] for one in found.values()] == [(3.0, 4.0), (4.5, 6.0)]
    assert one_gpu.misses_of_rule("all_scales", found) == pytest.approx([3 / 3.5 - 1, 0.0])
    assert one_gpu.misses_of_rule("excess_stays", found) == pytest.approx([4 / 3.5 - 1, 6 / 4.5 - 1])
    assert [(one.first["value"], one.second["value"]) for one in found.values()] == [(6.0, 3.5), (9.0, 4.5)]
    turned = one_gpu.carried_steps(fast, slow, (1,))[1]
    assert turned[2:] == (7.0, 5.5)  # control: which machine is which matters
    with pytest.raises(InputError, match="no point 'batch 32 overlapped loop'"):
        one_gpu.carried_steps(slow, fast, (32,))
