"""The keys of a deployment's configuration, such as `data/dynamo_config.yaml`: types, ranges, meanings.

A class is a group of keys and a field is a key; every key must be given, so that nothing decides unseen.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from math import inf

from helpers.errors import InputError


def key(meaning: str, low: float = 0, high: float = inf) -> object:
    """A key with its meaning and the least and the greatest value allowed, where it is a number."""
    return field(metadata={"meaning": meaning, "low": low, "high": high})


@dataclass(frozen=True, slots=True)
class SplitPolicyKeys:
    """Parameters of the router `split_policy` under their own names."""

    prompt_length_threshold: int = key("uncached tokens up to which a decode worker prefills")
    prefix_cache_weight: float = key("points for a wholly cached prompt")
    queue_length_weight: float = key("points off for each waiting request")
    decode_load_weight: float = key("points off for each running request")
    enable_hotspot_prevention: bool = key("move on what would go to a worker far above the mean load")


@dataclass(frozen=True, slots=True)
class CacheKeys:
    """Whether and when the prefix caches count."""

    reuse_prefix: bool = key("let workers keep prompts for later ones, and the router look at them")
    min_cache_hit_ratio: float = key("share of a prompt below which its cached part earns no points", high=1)


@dataclass(frozen=True, slots=True)
class PrefillThresholds:
    """Means over the prefill workers."""

    queue_length: float = key("requests waiting on a worker")
    gpu_utilization: float = key("per cent of the time that a worker is in a step", high=100)


@dataclass(frozen=True, slots=True)
class DecodeThresholds:
    """Means over the decode workers."""

    queue_length: float = key("requests waiting for a worker, or on it")
    kv_cache_usage: float = key("per cent of a worker's KV blocks that are in use", high=100)


@dataclass(frozen=True, slots=True)
class PrefillPool:
    """The prefill workers: at first as few as allowed."""

    min_replicas: int = key("the fewest prefill workers, and those at the start", low=1)
    max_replicas: int = key("the most prefill workers", low=1)
    scale_up: PrefillThresholds  # one worker more when either is reached
    scale_down: PrefillThresholds  # one worker less when neither is passed


@dataclass(frozen=True, slots=True)
class DecodePool:
    """The decode workers: at first as few as allowed."""

    min_replicas: int = key("the fewest decode workers, and those at the start", low=1)
    max_replicas: int = key("the most decode workers", low=1)
    scale_up: DecodeThresholds  # one worker more when either is reached
    scale_down: DecodeThresholds  # one worker less when neither is passed


@dataclass(frozen=True, slots=True)
class AutoscaleKeys:
    """The two pools."""

    prefill: PrefillPool  # the prefill workers
    decode: DecodePool  # the decode workers


@dataclass(frozen=True, slots=True)
class QosKeys:
    """Who is turned away."""

    enable_early_rejection: bool = key("reject at all; false: the two others say nothing")
    low_priority_threshold_ms: float = key("predicted TTFT above which low priorities are rejected", low=1e-3)
    reject_on_slo_violation: bool = key("reject anybody who is predicted to miss his SLO")


@dataclass(frozen=True, slots=True)
class Deployment:
    """A whole configuration. Raises `InputError` for bounds and thresholds that exclude each other."""

    model: str = key("a model of `hybrid-serving models`")
    split_policy: SplitPolicyKeys  # the router
    cache: CacheKeys  # the prefix caches
    autoscale: AutoscaleKeys  # the fleet and its scaler
    qos: QosKeys  # the admission

    def __post_init__(self) -> None:
        for role in ("prefill", "decode"):
            pool, where = getattr(self.autoscale, role), f"autoscale.{role}"
            if pool.min_replicas > pool.max_replicas:
                raise InputError(
                    f"{where}.min_replicas is {pool.min_replicas}, above max_replicas {pool.max_replicas}; "
                    "let the least be at most the most"
                )
            for one in fields(pool.scale_up):
                up, down = getattr(pool.scale_up, one.name), getattr(pool.scale_down, one.name)
                if not down < up:
                    raise InputError(
                        f"{where}.scale_down.{one.name} is {down:g}, not below that of scale_up, {up:g}; "
                        "leave a gap, or the fleet grows and shrinks at once"
                    )


def leaves(group: type = Deployment, path: str = "") -> Iterator[str]:
    """The path of every key that has a value, such as `cache.reuse_prefix`, in order."""
    for one in fields(group):
        below = f"{path}{one.name}"
        if is_dataclass(one.type):
            yield from leaves(one.type, f"{below}.")
        else:
            yield below
