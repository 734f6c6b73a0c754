"""No key is for show: each one, changed alone, changes the experiment, and in a fitting place what happens in a run."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from helpers.errors import InputError
from helpers.serving.config import changed, experiment, least_tp, read_config
from helpers.serving.config_schema import leaves
from helpers.serving.fleet import Fleet
from helpers.workload.generate import generate
from helpers.workload.request import Workload
from helpers.workload.slo import SLO

SHIPPED = read_config(Path(__file__).resolve().parent.parent.parent / "data" / "dynamo_config.yaml")

# A smaller deployment for the runs: 2 to 3 workers of each role, with little memory and small steps.
SMALL = {
    "model": "llama-3.1-8b",
    "split_policy.prompt_length_threshold": 300,
    "cache.min_cache_hit_ratio": 0.5,
    "autoscale.prefill.min_replicas": 2,
    "autoscale.prefill.max_replicas": 3,
    "autoscale.decode.min_replicas": 2,
    "autoscale.decode.max_replicas": 3,
}
WORKERS = Fleet("llama-3.1-8b", kv_gib=14.0, chunk_tokens=512)
NOBODY_REJECTED = {"qos.enable_early_rejection": False}
BUSY_ALONE = {"autoscale.prefill.scale_up.queue_length": 1e6}  # only utilisation lets the prefill pool grow
QUEUE_ALONE = {
    "autoscale.prefill.scale_up.gpu_utilization": 100.0,
    "autoscale.prefill.scale_down.gpu_utilization": 99.0,
}
ON_DECODE = {"split_policy.prompt_length_threshold": 100_000}  # decode workers prefill too, so that requests wait there

# Each key: another value, what else is set for the key to matter, and the workload of the run.
CHANGES = {
    "model": ("qwen3-8b", {}, "steady"),
    "split_policy.prompt_length_threshold": (0, {}, "steady"),
    "split_policy.prefix_cache_weight": (0.5, NOBODY_REJECTED, "steady"),
    "split_policy.queue_length_weight": (0.1, NOBODY_REJECTED, "steady"),
    "split_policy.decode_load_weight": (5.0, {}, "steady"),
    "split_policy.enable_hotspot_prevention": (
        False,
        NOBODY_REJECTED | {"split_policy.queue_length_weight": 0.0, "split_policy.decode_load_weight": 0.0},
        "burst",
    ),
    "cache.reuse_prefix": (False, {}, "steady"),
    "cache.min_cache_hit_ratio": (1.0, NOBODY_REJECTED, "steady"),
    "autoscale.prefill.min_replicas": (3, {}, "steady"),
    "autoscale.prefill.max_replicas": (2, NOBODY_REJECTED, "burst"),
    "autoscale.prefill.scale_up.queue_length": (1e6, NOBODY_REJECTED | QUEUE_ALONE, "burst"),
    "autoscale.prefill.scale_up.gpu_utilization": (100.0, NOBODY_REJECTED | BUSY_ALONE, "steady"),
    "autoscale.prefill.scale_down.queue_length": (0.0, NOBODY_REJECTED | QUEUE_ALONE, "burst"),
    "autoscale.prefill.scale_down.gpu_utilization": (
        0.0,
        NOBODY_REJECTED | {"split_policy.decode_load_weight": 0.0},
        "burst",
    ),
    "autoscale.decode.min_replicas": (3, {}, "steady"),
    "autoscale.decode.max_replicas": (2, NOBODY_REJECTED, "burst"),
    "autoscale.decode.scale_up.queue_length": (
        1e6,
        NOBODY_REJECTED | ON_DECODE | {"autoscale.decode.scale_up.kv_cache_usage": 100.0},
        "burst",
    ),
    "autoscale.decode.scale_up.kv_cache_usage": (100.0, NOBODY_REJECTED, "burst"),
    "autoscale.decode.scale_down.queue_length": (
        15.0,
        NOBODY_REJECTED | ON_DECODE | {"autoscale.decode.scale_down.kv_cache_usage": 74.0},
        "burst",
    ),
    "autoscale.decode.scale_down.kv_cache_usage": (0.0, NOBODY_REJECTED, "burst"),
    "qos.enable_early_rejection": (False, {}, "steady"),
    "qos.low_priority_threshold_ms": (5000.0, {}, "steady"),
    "qos.reject_on_slo_violation": (False, {}, "steady"),
}


def set_all(deployment, values: dict):
    for path, value in values.items():
        deployment = changed(deployment, path, value)
    return deployment


def requests(rate_per_s: float, count: int, seed: int) -> tuple:
    """Conversations, every third prompt cut to a short one, every second request of low priority."""
    drawn = generate("conversation", rate_per_s=rate_per_s, requests=count, seed=seed, block_tokens=64)
    made = []
    for r in drawn:
        short = {"prompt_tokens": min(r.prompt_tokens, 200), "prefix_blocks": r.prefix_blocks[:3]}
        made.append(replace(r, priority=r.id % 2, **(short if r.id % 3 == 0 else {})))
    return tuple(made)


@cache
def workload(kind: str) -> Workload:
    """`steady`: 300 requests at one rate. `burst`: 600 in half a minute, then 600 at a quarter of that rate."""
    if kind == "steady":
        return Workload("steady", requests(5.0, 300, 4), 64)
    first, calm = requests(20.0, 600, 4), requests(5.0, 600, 5)
    end_s = first[-1].arrival_s
    later = tuple(replace(r, id=r.id + 10_000, arrival_s=r.arrival_s + end_s, parent=None) for r in calm)
    return Workload("burst", first + later, 64)


@cache
def happened(settings: tuple, kind: str) -> tuple:
    """Who was served where and when, and which workers there were, under the small deployment so changed."""
    deployment = set_all(SHIPPED, SMALL | dict(settings))
    run = experiment(deployment, workload(kind), WORKERS, slo=SLO(2.0, 0.05), startup_s=5.0).run()
    served = [(t.reason, t.prefill_worker, t.decode_worker, t.first_token_s, t.finished_s) for t in run.timelines]
    return tuple(served), run.workers


def described(deployment) -> tuple:
    """What an experiment is made of."""
    one = experiment(deployment, workload("steady"))
    policies = (one.router_parameters, one.admission, one.admission_parameters, one.scaler, one.scaler_parameters)
    return one.fleet, one.workload.sha256, *policies


def test_every_key_has_a_change():
    assert list(CHANGES) == list(leaves())


@pytest.mark.parametrize("path", CHANGES)
def test_every_key_changes_the_experiment(path):
    small = set_all(SHIPPED, SMALL)
    assert described(changed(small, path, CHANGES[path][0])) != described(small)


@pytest.mark.parametrize("path", CHANGES)
def test_every_key_changes_what_happens(path):
    value, others, kind = CHANGES[path]
    before = happened(tuple(others.items()), kind)
    assert happened((*others.items(), (path, value)), kind) != before


def test_the_same_values_change_nothing():
    """The control: what differs above is the key and not the run."""
    happened.cache_clear()
    first = happened((), "steady")
    happened.cache_clear()
    assert happened((), "steady") == first


def test_the_experiment_that_ships():
    one = experiment(SHIPPED, workload("steady"))
    assert one.fleet.roles == ("prefill",) * 4 + ("decode",) * 8
    assert (one.fleet.model, one.fleet.tp, one.router, one.admission, one.scaler) == (
        *("llama-3.1-70b", 4, "split_policy", "early_rejection", "thresholds"),
    )
    assert one.router_parameters == {
        "prompt_length_threshold": 256,
        "prefix_cache_weight": 10.0,
        "queue_length_weight": 1.5,
        "decode_load_weight": 0.5,
        "enable_hotspot_prevention": True,
        "reuse_prefix": True,
        "min_cache_hit_ratio": 0.75,
    }
    assert one.admission_parameters == {"low_priority_threshold_ms": 500.0, "reject_on_slo_violation": True}
    assert one.scaler_parameters == {
        "prefill_min": 4,
        "prefill_max": 12,
        "prefill_queue_up": 8,
        "prefill_queue_down": 2,
        "utilisation_up": 0.8,
        "utilisation_down": 0.4,
        "decode_min": 8,
        "decode_max": 24,
        "decode_queue_up": 16,
        "decode_queue_down": 4,
        "kv_up": 0.75,
        "kv_down": 0.3,
    }


def test_without_reuse_no_worker_finds_anything_in_its_cache():
    def cached(reuse: bool) -> int:
        deployment = set_all(SHIPPED, SMALL | NOBODY_REJECTED | {"cache.reuse_prefix": reuse})
        return sum(t.cached_tokens for t in experiment(deployment, workload("steady"), WORKERS).run().timelines)

    assert cached(False) == 0 < cached(True)


def test_gpus_a_worker_by_hand():
    """70.6 billion parameters in bf16 take 141 GB. Two H100s have 144 GB of use, four have 288: 147 GB are left."""
    assert least_tp("llama-3.1-70b") == 4
    assert least_tp("llama-3.1-8b") == 1
    with pytest.raises(InputError, match="unknown model"):
        least_tp("gpt-9")
