"""The split calculator: bounds and small runs are those of the formulas and the simulator, and it can be moved."""

import json

import pytest

from helpers.cost.iteration import AffineCost
from helpers.cost.split import Work, apart, link_of, together
from helpers.errors import InputError
from helpers.hardware import gpu
from helpers.metrics.goodput import goodput
from helpers.models import model
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.widgets.explorer import answer, checked
from helpers.widgets.explorers import split
from helpers.widgets.explorers.candidates import CHUNKS, Candidate, attainment, point_of
from helpers.widgets.explorers.registry import find, reply
from helpers.workload.generate import generate

# A step of 7 ms, 15 microseconds a prompt token, no token of it free: small chunks cost a step each.
COEFFICIENTS = {
    "overhead_s": 7e-3,
    "per_prefill_token_s": 15e-6,
    "per_attention_pair_s": 2e-9,
    "per_decode_s": 6e-6,
    "per_kv_token_s": 4e-8,
}
RECORD = {"hardware_key": "h100_80gb_hbm3", "device": "NVIDIA H100 80GB HBM3", "coefficients": COEFFICIENTS}
MINE = {"hardware": "mine"}


def told(**values):
    found = answer(find("split"), MINE | values, RECORD)
    return found, {one["label"]: one["text"] for one in found["readouts"]}


def point(**values):
    return point_of(checked(find("split"), MINE | values, RECORD), RECORD)


def test_the_bars_are_the_closed_forms():
    found, _ = told()
    bars = {row[1]: float(row[2]) for row in found["figures"][0]["rows"] if row[0] == "bound"}
    cost, work, served = AffineCost(**COEFFICIENTS), Work(3600, 180), model("llama-3.1-8b")
    kv_tokens = Fleet().kv_blocks(64) * 64
    pools = apart(cost, link_of(gpu("h100"), "network"), served, work, 0.015, kv_tokens=kv_tokens)
    assert bars["5P3D"] == pytest.approx(pools.per_s(5, 3) / 8, rel=1e-4)
    assert bars["5P3D"] != pytest.approx(pools.per_s(3, 5) / 8, rel=1e-2)
    for chunk in (512, 2048):
        wanted = together(cost, work, 0.015, chunk, kv_tokens).per_s
        assert bars[f"chunk {chunk:,}"] == pytest.approx(wanted, rel=1e-4)


def test_the_evidence_is_a_run_of_the_simulator():
    at, fleet = point(), Candidate("4P4D", 2048, 0.0)
    mean = 1.1331484530668263  # e^(0.5^2 / 2): of a lognormal length with median 1 and sigma 0.5
    lengths = {
        "prompt_tokens": f"lognormal:{round(3600 / mean)}:0.5",
        "output_tokens": f"lognormal:{round(180 / mean)}:0.5",
    }
    draw = generate("poisson", rate_per_s=48.0, requests=400, seed=0, block_tokens=64, exact_rate=True, **lengths)
    assert sum(r.prompt_tokens for r in draw) / 400 == pytest.approx(3600, rel=0.06)
    own = Fleet(workers=8, split="4P4D", cost=AffineCost(**COEFFICIENTS))
    run = Experiment(draw, own, "least_tokens").run()
    assert attainment(at, fleet, 48.0) == goodput(run.log, at.slo).attainment
    assert attainment(at, fleet, 48.0) != attainment(at, Candidate("2P6D", 2048, 0.0), 48.0)


def test_a_tight_pace_splits_and_a_loose_one_does_not():
    assert told(slo_tpot_ms=10.0)[1]["recommended"] == "4P4D"
    assert told(slo_tpot_ms=100.0)[1]["recommended"].startswith("together")
    found, readouts = told(slo_tpot_ms=10.0)
    near_ms = float(readouts["TPOT that would change it"].removeprefix("near ").removesuffix(" ms"))
    (below, above) = (point(slo_tpot_ms=near_ms * by).best() for by in (0.8, 1.25))
    assert below[1].bound > below[0].bound and above[1].bound < above[0].bound
    assert found["summary"].endswith("take 4P4D.")


def test_short_prompts_do_not_split():
    _, readouts = told(prompt_tokens=64, output_tokens=1000, slo_tpot_ms=12.0)
    assert readouts["recommended"].startswith("together")


def test_a_slow_link_is_named():
    _, readouts = told(slo_tpot_ms=10.0)
    rate = float(readouts["link that would change it"].split()[1]) * 1e9
    at = point(slo_tpot_ms=10.0)
    together = max(one.bound for one in at.together())

    def best(bytes_per_s):
        slower = split.replace(at, link=split.replace(at.link, bytes_per_s=bytes_per_s))
        return max(one.bound for one in slower.splits())

    assert best(1.2 * rate) > together > best(rate / 1.2)


def test_where_two_kinds_cross():
    assert split._crossings([(1, 0, 2), (2, 0, 1), (4, 3, 1), (5, 3, 2)]) == [pytest.approx(2 + 2 / 3)]
    assert split._crossings([(1, 0, 1), (2, 0, 1)]) == []


@pytest.mark.parametrize(
    ("bounds", "met", "taken"),
    [
        ((5.0, 6.0), (0.5, 0.9), 1),
        ((6.0, 5.0), (0.5, 0.9), 1),  # a run outweighs a bound
        ((5.0, 6.0), (0.95, 0.96), 1),  # equal in the run: more room
        ((5.9, 6.0), (0.95, 0.96), 0),  # equal in both: no hand-off
        ((5.0, 6.0), (0.99, 0.9), 0),
    ],
)
def test_who_is_recommended(bounds, met, taken):
    both = Candidate(None, 512, bounds[0]), Candidate("4P4D", 2048, bounds[1])
    assert split._taken(dict(zip(both, met, strict=True))) is both[taken]


@pytest.mark.parametrize(("met", "chunk"), [((0.6, 0.9, 0.7), 512), ((0.9, 0.6, 0.7), 256), ((0.9, 0.91, 0.92), 512)])
def test_a_run_outweighs_the_bound_of_a_chunk_size_too(met, chunk):
    """The highest bound is that of 512, which counts where runs are equal."""
    rivals = [Candidate(None, *one) for one in ((256, 5.0), (512, 6.0), (1024, 5.5))]
    assert (
        split._taken(dict(zip(rivals, met, strict=True)) | {Candidate("4P4D", 2048, 1.0): 0.1}) == rivals[chunk // 512]
    )


@pytest.mark.parametrize(("values", "chunks"), [({}, [256, 512, 1024]), ({"slo_tpot_ms": 10.0}, [256, 512])])
def test_the_chunk_sizes_next_to_the_best_bound_are_simulated(values, chunks):
    found, readouts = told(**values)
    (evidence,) = (text for label, text in readouts.items() if label.startswith("evidence"))
    bars = [row[1] for row in found["figures"][0]["rows"] if row[0].startswith("goodput") and row[2] != "not stated"]
    best = max(point(**values).together(), key=lambda one: one.bound)
    assert best.chunk_tokens in chunks and evidence.count("in time") == len(chunks) + 1
    for chunk in CHUNKS:
        assert (f"chunks of {chunk:,}:" in evidence) == (f"chunk {chunk:,}" in bars) == (chunk in chunks)


def test_a_chunk_size_with_a_lower_bound_can_be_the_best_of_its_kind():
    """A mean prompt of 20,000 tokens takes just over the TTFT bound in chunks of 512, so that their bound is none; yet
    most prompts are shorter, and more of them come in time than in chunks of 1,024, the best by its bound."""
    at = point_of(checked(find("split"), {"prompt_tokens": 20_000, "output_tokens": 1000, "gpus": 16}), None)
    met = {one.chunk_tokens: attainment(at, one, 0.85 * 0.376 * 16) for one in at.rivals() if one.split is None}
    assert at.best()[0].chunk_tokens == 1024 and sorted(met) == [512, 1024, 2048]
    assert met[512] > met[1024] + 0.02 > met[2048] + 0.02
    own, other = (one for one in at.together() if one.chunk_tokens in (512, 1024))
    assert split._taken({own: met[512], other: met[1024], at.best()[1]: 0.0}) == own


def test_a_loose_pace_does_not_count_more_decodes_than_there_are():
    """Fourteen requests/s with answers of 1,000 tokens in steps of some 12 ms are 170 decodes at once, not the 1,400 of
    steps as long as the SLO of 100 ms allows: a prompt beside those would have no room in a chunk of 512."""
    at = point(slo_tpot_ms=100.0, prompt_tokens=200, output_tokens=1000)
    bounds = [one.bound for one in at.together() if one.chunk_tokens >= 512]
    assert min(bounds) > 0.9 * max(bounds) > 0


def test_an_slo_that_nothing_meets_is_said():
    found, readouts = told(slo_ttft_s=0.05)
    assert readouts["recommended"] == "none: relax the SLO"
    assert "no fleet meets this SLO" in found["summary"] and len(found["figures"]) == 1


def test_a_cached_share_is_moved_and_not_computed():
    plain, cached = point().pools(), point(cached=0.75).pools()
    assert cached.prefill_per_s > 3 * plain.prefill_per_s
    assert "0.472 GB" in told(cached=0.75)[1]["one hand-off"]


def test_large_models_take_several_gpus_and_the_step_times_of_the_data_sheet():
    at = point(model="llama-3.1-70b", gpus=15)
    assert (at.tp, at.workers, at.used) == (4, 3, 12) and "data sheet" in at.words
    assert at.link.bytes_per_s == 4 * link_of(gpu("h100"), "network").bytes_per_s
    assert point().words == "step times calibrated on H100 80GB HBM3"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"model": "llama-3.1-70b", "gpus": 7}, "needs 4 H100 SXM a worker, so that 7 hold 1"),
        ({"model": "qwen3-235b-a22b", "hardware": "rtx5090", "link": "pcie"}, "does not fit on 8"),
        ({"hardware": "rtx5090"}, "has no network"),
        ({"model": "qwen3-30b-a3b", "hardware": "h200", "prompt_tokens": 32_000, "output_tokens": 4000}, None),
    ],
)
def test_what_does_not_go_together_is_one_sentence(values, sentence):
    if sentence is None:
        assert "error" not in json.loads(reply(json.dumps({"explorer": "split", "values": values | {"gpus": 16}})))
        return
    with pytest.raises(InputError, match=sentence):
        answer(find("split"), values)
