"""llm-d: the configuration of its endpoint picker, and the vLLM engines behind it."""

from helpers.serving.export.answer import Carried, Choice, Component, Export, Nothing, Rule, answer, nothing
from helpers.serving.export.llm_d_plugins import BEST, DATA_LAYER, DRAWN, IN_FLIGHT, PRECISE, PREFIX, Plugin
from helpers.serving.export.vllm_engine import NIXL, SPLIT_NOTE, engine_flags

SOURCES = (
    "llm-d/llm-d-router deploy/config and the READMEs of its plugins at ebab6879 (2026-08-22)",
    "vllm-project/vllm docs/features/nixl_connector_usage.md at 026c83f9",
)
ANOTHER = "it is the rule of another system"
ALPHA = "needs `--allow-experimental-plugins` on the endpoint picker"


def _llm_d(p: dict, choice: Choice) -> Carried:
    kv_weight = p["kv_weight"] if p["kv_weight"] is not None else 0.0 if choice.split else 1.0
    scored = (
        ("prefix-cache-scorer", p["prefix_weight"], PREFIX),
        ("kv-cache-utilization-scorer", kv_weight, {}),
        ("queue-scorer", p["queue_weight"], {}),
        ("load-aware-scorer", p["load_aware_weight"], {"threshold": p["load_aware_threshold"]}),
        ("token-load-scorer", p["token_load_weight"], {"queueThresholdTokens": p["token_load_threshold"]}),
        ("no-hit-lru-scorer", p["no_hit_lru_weight"], {}),
        ("latency-scorer", p["latency_weight"], _latency(p)),
    )
    plugins, notes = list(PRECISE), []
    if p["token_load_weight"] or p["affinity_gate"]:
        plugins.append(IN_FLIGHT)
    if p["latency_weight"]:
        plugins.append(Plugin("predicted-latency-producer"))
        notes.append("its latencies come from models trained online beside the picker, ours from a cost model")
    if p["saturation_filter"]:
        limits = {"queueDepthThreshold": p["max_waiting"], "kvCacheUtilThreshold": p["max_kv_share"]}
        plugins.append(
            Plugin("utilization-detector", {**limits, "metricsStalenessThreshold": f"{1000 * p['max_age_s']:g}ms"})
        )
    if p["affinity_gate"]:
        plugins.append(Plugin("prefix-cache-affinity-filter", _affinity(p)))
    plugins += [Plugin(name, parameters, weight) for name, weight, parameters in scored if weight]
    left = {"prefix_relative", "latency_explore"}
    return Carried(used=[name for name in p if name not in left], notes=notes, parts=(*plugins, BEST))


def _latency(p: dict) -> dict:
    strategy = "most" if p["most_headroom"] else "least"
    return {"ttftWeight": p["ttft_weight"], "tpotWeight": p["tpot_weight"], "headroomSelectionStrategy": strategy}


def _affinity(p: dict) -> dict:
    return {
        "affinityThreshold": p["affinity_threshold"],
        "explorationProbability": p["affinity_explore"],
        "maxTTFTPenaltyMs": 1000 * p["affinity_penalty_s"],
        "ttftSource": "latencyPredictor" if p["latency_weight"] else "prefillThroughput",
    }


def _split_policy(p: dict, choice: Choice) -> Carried:
    """Our weights are points for a whole hit and for one request; there every score lies between 0 and 1."""
    scored = (
        ("prefix-cache-scorer", p["prefix_cache_weight"] if p["reuse_prefix"] else 0, PREFIX),
        ("queue-scorer", p["queue_length_weight"], {}),
        ("running-requests-size-scorer", p["decode_load_weight"], {}),
    )
    plugins = [Plugin(name, parameters, weight) for name, weight, parameters in scored if weight]
    used = ["prefix_cache_weight", "queue_length_weight", "decode_load_weight", "reuse_prefix"]
    used += ["prompt_length_threshold"] if choice.split else []
    note = (
        "queue and running requests are scaled between the workers there, so that a weight is not points for a request"
    )
    return Carried(used=used, notes=(note,), parts=(*PRECISE, *plugins, BEST))


def _session(p: dict, choice: Choice) -> Carried:
    kept = {"sessionIdConfig": {"evictionTtlSeconds": p["ttl_s"]}} if p["ttl_s"] is not None else {}
    bound = Plugin("session-affinity-filter", {"strategy": "session_id", **kept})
    parts = (IN_FLIGHT, bound, Plugin("active-request-scorer", weight=1.0), BEST)
    return Carried(used=("ttl_s",), notes=(STICKY, f"session-affinity-filter {ALPHA}"), parts=parts)


def scored_by(name: str, *before: Plugin, note: str = "") -> Rule:
    """A router that is one scorer and the highest score."""
    return lambda p, choice: Carried(parts=(*before, Plugin(name, weight=1.0), BEST), notes=(note,) if note else ())


WEIGHS = "its scores lie between 0 and 1 and are weighed by hand; tokens are not set against tokens"
STICKY = "a session never leaves its worker for load; the header x-session-id carries it"
ROUTERS = {
    "random": lambda p, choice: Carried(parts=(DRAWN,)),
    "round_robin": nothing("no picker takes turns"),
    "static_shard": nothing(
        "no plugin hashes a key to a worker; session-affinity-scorer remembers where a session was"
    ),
    "least_requests": scored_by("active-request-scorer", IN_FLIGHT, note="it counts the requests that it sent itself"),
    "least_tokens": scored_by(
        "token-load-scorer", IN_FLIGHT, note="prompt tokens under way alone, scaled to 4,194,304"
    ),
    "power_of_two": nothing("no picker draws two"),
    "prefix_approx": nothing(WEIGHS),
    "prefix_exact": nothing(WEIGHS),
    "mooncake": nothing("no plugin copies a prefix because it is the fastest way to the first token"),
    "split_policy": _split_policy,
    "dynamo": nothing(ANOTHER),
    "dynamo_lmetric": nothing(ANOTHER),
    "sglang_cache_aware": nothing(ANOTHER),
    "llm_d": _llm_d,
    "aibrix": nothing(ANOTHER),
    "aibrix_preble": nothing(ANOTHER),
    "production_stack": nothing(ANOTHER),
    "production_stack_kvaware": nothing(ANOTHER),
    "vllm_dp": nothing(ANOTHER),
    "vllm_dp_inflight": nothing(ANOTHER),
    "session": _session,
    "predicted_ttft": lambda p, choice: Carried(
        parts=(
            Plugin("predicted-latency-producer"),
            Plugin("latency-scorer", {"ttftWeight": 1.0, "tpotWeight": 0.0}, 1.0),
            BEST,
        ),
        notes=("without SLO headers the lowest predicted latency wins; the predictions are learned online there",),
    ),
    "feedback": nothing("no plugin reacts to measured latencies but the online training of the predictor"),
}


def _probabilistic(p: dict, choice: Choice) -> Carried | Nothing:
    parameters = {
        "queueDepthThreshold": p["queue_depth"],
        "kvCacheUtilThreshold": p["kv_use"],
        "power": p["power"],
        "k": p["gain"],
    }
    never = {"queueDepthThreshold": 999999999, "kvCacheUtilThreshold": 1.0}
    parts = (
        Plugin("probabilistic-admitter", parameters, listed=False),
        Plugin("utilization-detector", never, listed=False),
    )
    note = "there a priority below 0 may be shed, here one above sheddable_above"
    return Carried(used=("queue_depth", "kv_use", "power", "gain", "sheddable_above"), parts=parts, notes=(note,))


def _predicted_slo(p: dict, choice: Choice) -> Carried | Nothing:
    if not p["anywhere"]:
        return Nothing("latency-slo-admitter asks whether any worker would do: that is anywhere=true")
    note = "only priorities below 0 are rejected there; each request carries its SLO in headers"
    parts = (Plugin("predicted-latency-producer"), Plugin("latency-slo-admitter", listed=False))
    return Carried(used=("anywhere", "sheddable_above"), parts=parts, notes=(note,))


ADMISSIONS = {
    "none": lambda p, choice: Carried(),
    "queue_cap": nothing(
        "utilization-detector takes a worker with a long queue out of the choice; it rejects nobody by one"
    ),
    "token_cap": nothing("concurrency-detector counts tokens under way, not those that wait on the chosen worker"),
    "probabilistic": _probabilistic,
    "predicted_slo": _predicted_slo,
    "predicted_load": nothing("it predicts latencies for now, not the decode load at the end of the prefill"),
    "measured_slo": nothing("latency-slo-admitter predicts, with models trained online"),
    "self_exciting": nothing("a counter-example"),
    "early_rejection": nothing(
        "latency-slo-admitter knows one SLO a request, and no other patience for low priorities"
    ),
    "priority_tiers": nothing(
        "priority-holdback-policy holds low priorities back by saturation, not by tokens under way"
    ),
    "fair": nothing("its flow control is fair in turns, not in tokens served"),
    "router_queue": nothing(
        "its flow control holds requests while the pool is saturated, by queue and KV, not prompt tokens"
    ),
}


def export(choice: Choice) -> Export:
    """The picker's configuration with the router and the admission, and the engines."""
    router, lost = answer(ROUTERS, "router", choice)
    admission, refused = answer(ADMISSIONS, "admission", choice)
    engines = []
    for role in ("mixed", "prefill", "decode"):
        if count := choice.count(role):
            flags = {**engine_flags(choice.fleet), **({} if role == "mixed" else NIXL)}
            label = "" if role == "mixed" else f", label llm-d.ai/role: {role}"
            engines.append(Component(f"{role} engine{label}", ("vllm", "serve", '"$MODEL"'), flags, count))
    document = _document(choice, router, admission) if router.parts else None
    if admission.parts and document is None:
        refused += (f"admission {choice.admission}: it needs a router that the picker knows",)
    if {"utilization-detector"} <= {p.type for p in admission.parts} & {p.type for p in router.parts}:
        refused += (f"admission {choice.admission}: saturation_filter is the same plugin, and keeps its own limits",)
    notes = (*router.notes, *admission.notes, *(SPLIT_NOTE if choice.split else ()))
    return Export("llm-d", SOURCES, tuple(engines), document, notes, lost + refused + choice.beside)


def _document(choice: Choice, router: Carried, admission: Carried) -> dict:
    """An EndpointPickerConfig: each plugin once, then the profiles that use them."""
    plugins = {plugin.type: plugin for plugin in (*admission.parts, *router.parts)}
    handlers = _handlers(choice)
    filters = {role: Plugin(f"{role}-filter") for role in (("prefill", "decode") if choice.split else ("decode",))}
    listed = [plugin.named() for plugin in plugins.values() if plugin.listed]
    profiles = [
        {"name": role if choice.split else "default", "plugins": [one.named(), *listed]}
        for role, one in filters.items()
    ]
    document = {
        "apiVersion": "llm-d.ai/v1alpha1",
        "kind": "EndpointPickerConfig",
        "plugins": [one.declared() for one in (*plugins.values(), *filters.values(), *handlers)],
        "schedulingProfiles": profiles,
    }
    if "precise-prefix-cache-producer" in plugins:
        document["dataLayer"] = DATA_LAYER
    if "probabilistic-admitter" in plugins:
        document["flowControl"] = {"saturationDetector": {"pluginRef": "utilization-detector"}}
    return document


def _handlers(choice: Choice) -> tuple[Plugin, ...]:
    """Who decides which profiles run: one, or decode and, unless the prompt is short, prefill."""
    if not choice.split:
        return (Plugin("single-profile-handler"),)
    threshold = choice.parameters("router").get("prompt_length_threshold", 0)
    decider = Plugin("always-disagg-pd-decider")
    if threshold:
        decider = Plugin("prefix-based-pd-decider", {"nonCachedTokens": threshold + 1})
    return decider, Plugin("disagg-profile-handler", {"deciders": {"prefill": decider.type}})
