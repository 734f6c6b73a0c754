"""The timeline explorer: what is drawn lies in the window, names its requests, and follows the controls."""

import re

import pytest

from helpers.errors import InputError
from helpers.widgets.explorer import answer
from helpers.widgets.explorers.timeline import EXPLORER, MOST_REQUESTS
from helpers.widgets.style import MARK

SPLIT = {"prefill_workers": 2, "workers": 4}


def ask(**values):
    return answer(EXPLORER, values)


def bars(found, figure=0):
    return {one["name"]: one for one in found["figures"][figure]["spec"]["data"]}


def within(found, start_s, end_s):
    return all(
        start_s - 1e-6 <= base and base + length <= end_s + 1e-6
        for figure in found["figures"]
        for trace in figure["spec"]["data"]
        for base, length in zip(trace["base"], trace["x"], strict=True)
    )


def test_every_bar_lies_in_the_window():
    assert within(ask(start_s=3.0, length_s=1.5), 3.0, 4.5)
    assert not within(ask(start_s=3.5, length_s=1.5), 3.0, 4.5)


def test_a_mixed_fleet_has_steps_of_both_kinds_and_no_hand_offs():
    found = ask(shared=0.0, prompt_tokens=4000)
    assert set(bars(found)) <= {"prefill", "prefill and decode", "decode", "idle"}
    assert "prefill and decode" in bars(found)
    assert found["figures"][0]["spec"]["layout"]["yaxis"]["categoryarray"] == [f"{w} mixed" for w in range(4)]


def test_a_split_fleet_sends_from_its_prefill_workers_and_never_mixes():
    found = ask(**SPLIT)
    drawn = bars(found)
    assert "prefill and decode" not in drawn
    assert set(drawn["transfer"]["y"]) == {"0 sends", "1 sends"}
    assert set(drawn["prefill"]["y"]) == {"0 prefill", "1 prefill"}
    assert set(drawn["decode"]["y"]) == {"2 decode", "3 decode"}
    assert "transfer" in bars(found, 1)


def test_a_blocking_hand_off_lets_the_sender_idle():
    """With `blocking` no prefill overlaps a transfer of the same worker; with `batched` some do."""

    def overlap(mode):
        drawn = bars(ask(**SPLIT, handoff=mode, rate_per_s=20.0, length_s=5.0))
        spans = {
            name: [(y[0], b, b + x) for y, b, x in zip(one["y"], one["base"], one["x"], strict=True)]
            for name, one in drawn.items()
        }
        return sum(
            max(0.0, min(end, stop) - max(start, begin))
            for lane, start, end in spans["transfer"]
            for other, begin, stop in spans["prefill"]
            if lane == other
        )

    assert overlap("blocking") < 1e-6 < overlap("batched")


def test_the_text_beside_the_pointer_names_the_requests_of_the_window():
    found = ask(rate_per_s=3.0)
    texts = [text for trace in bars(found).values() for text in trace["hovertext"] if text != "idle"]
    named = {int(one) for text in texts for one in re.findall(r"\d+", re.sub(r": [\d,]+ tokens", "", text))}
    lanes = found["figures"][1]["spec"]["layout"]["yaxis"]["categoryarray"]
    assert 3 <= len(lanes) <= MOST_REQUESTS and lanes[0].startswith("request ")
    assert named == {int(lane.split()[1]) for lane in lanes}


def test_many_requests_are_counted_and_not_all_named():
    texts = bars(ask(rate_per_s=30.0))["decode"]["hovertext"]
    assert any(re.search(r"and \d+ more", text) for text in texts)


def test_a_kind_keeps_its_colour_when_another_is_missing():
    mixed, split = bars(ask()), bars(ask(**SPLIT))
    assert set(mixed) != set(split)
    assert mixed["decode"]["marker"] == split["decode"]["marker"]
    assert split["idle"]["marker"]["color"] == MARK != split["decode"]["marker"]["color"]


def test_a_shared_beginning_leaves_less_to_prefill():
    def prefilled(shared):
        drawn = bars(
            ask(shared=shared, prompt_tokens=8000, rate_per_s=4.0, router="prefix_exact", start_s=20.0, length_s=5.0)
        )
        return sum(sum(drawn[kind]["x"]) for kind in ("prefill", "prefill and decode") if kind in drawn)

    assert prefilled(0.9) < 0.6 * prefilled(0.0)


def test_longer_prompts_and_more_arrivals_leave_less_idle():
    def idle(**values):
        text = ask(start_s=5.0, length_s=5.0, **values)["readouts"][0]["text"]
        return int(re.search(r"(\d+)% idle", text)[1])

    assert idle(rate_per_s=1.0) > idle(rate_per_s=4.0) > idle(rate_per_s=30.0)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"rate_per_s": 200.0, "start_s": 40.0}, "start earlier"),
        ({"workers": 3, "prefill_workers": 3}, "none decodes"),
        ({"hardware": "rtx4090", "prefill_workers": 1}, "cannot be handed over"),
    ],
)
def test_what_does_not_go_together_is_refused(values, sentence):
    with pytest.raises(InputError, match=sentence):
        ask(**values)
