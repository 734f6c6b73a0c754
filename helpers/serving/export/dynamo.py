"""Dynamo: flags of its frontend, and of the vLLM workers behind it."""

from helpers.serving.export.answer import Carried, Choice, Component, Export, Nothing, Rule, answer, nothing
from helpers.serving.export.vllm_engine import NIXL, SPLIT_NOTE, engine_flags

SOURCES = (
    "ai-dynamo/dynamo docs/components/frontend/configuration.md at 04277994",
    "docs/components/router/router-configuration.md at 057096c3",
    "docs/components/router/router-disaggregated-serving.md at 2e4735e3",
    "docs/components/router/router-concepts.md at 03037af0",
    "examples/backends/vllm/launch/disagg.sh at 11bc2e86",
)
ANOTHER = "it is the rule of another system"
PREDICTS = "its routers predict no latency (the AIC load model shortens a known queue)"


def mode(name: str, note: str = "") -> Rule:
    """A router that is one of the modes."""
    return lambda p, choice: Carried({"--router-mode": name}, notes=(note,) if note else ())


def _kv(p: dict, choice: Choice) -> Carried:
    """`dynamo`: the flags are its own."""
    flags = {
        "--router-mode": "kv",
        "--router-kv-overlap-score-credit": p["overlap_credit"],
        "--router-kv-overlap-score-credit-decay": p["overlap_decay"],
        "--router-temperature": p["temperature"],
    }
    used = ["overlap_credit", "overlap_decay", "temperature", "kv_events", "ttl_s", "predicted_ttl_s"]
    if not p["kv_events"]:
        flags |= {"--no-router-kv-events": None, "--router-ttl-secs": p["ttl_s"]}
    elif p["predicted_ttl_s"] is not None:
        flags["--router-predicted-ttl-secs"] = p["predicted_ttl_s"]
    if "prefill_load_scale" in p:
        flags["--router-prefill-load-scale"] = p["prefill_load_scale"]
        used.append("prefill_load_scale")
    return Carried(flags, used)


def _lmetric(p: dict, choice: Choice) -> Carried:
    found = _kv(p, choice)
    note = "set router_selection_policy=lmetric as well; the documents name it, but no flag of the frontend for it"
    return Carried(found.flags, found.used, (note,))


def _prefix(p: dict, choice: Choice) -> Carried | Nothing:
    """`prefix_exact`, `prefix_approx`: uncached prompt + load, scaled so that a running token costs 1 as there.

    Ours: load_weight x (uncached + kv_weight x running) - overlap_weight x overlap, in tokens. Divided by
    load_weight x kv_weight it is scale x (prefill - credit x overlap) + decode.
    """
    if not p["load_weight"] or not p["kv_weight"]:
        return Nothing("its cost always has a decode term, against which prefill cannot be scaled without limit")
    flags = {
        "--router-mode": "kv",
        "--router-kv-overlap-score-credit": p["overlap_weight"] / p["load_weight"],
        "--router-prefill-load-scale": 1 / p["kv_weight"],
    }
    used = ["load_weight", "overlap_weight", "kv_weight"]
    if "ttl_s" in p:
        flags["--no-router-kv-events"] = None
        if p["ttl_s"] is not None:
            flags["--router-ttl-secs"] = p["ttl_s"]
            used.append("ttl_s")
    return Carried(flags, used, ("loads count in blocks and, there, once for the prompt being computed and once held",))


def _least_tokens(p: dict, choice: Choice) -> Carried | Nothing:
    if not p["kv_weight"]:
        return Nothing("its cost always has a decode term")
    flags = {"--load-aware": None, "--router-prefill-load-scale": 1 / p["kv_weight"]}
    return Carried(flags, ("kv_weight",), ("it knows the blocks of its own requests, not the views of the workers",))


def _session(p: dict, choice: Choice) -> Carried | Nothing:
    if p["ttl_s"] is None:
        return Nothing("--router-session-affinity-ttl-secs needs a number; give ttl_s")
    flags = {"--router-mode": "least-loaded", "--router-session-affinity-ttl-secs": p["ttl_s"]}
    notes = ("a session never leaves its worker for load", "requests must carry the header X-Dynamo-Session-ID")
    return Carried(flags, ("ttl_s",), notes)


def _split_policy(p: dict, choice: Choice) -> Carried:
    flags: dict[str, object] = {"--router-mode": "kv"}
    if not p["reuse_prefix"]:
        flags = {"--load-aware": None}
    notes = ["its KV router costs blocks; it has no points for a hit, a waiting and a running request"]
    if choice.split and p["prompt_length_threshold"]:
        flags |= {
            "--router-conditional-disagg": None,
            "--router-conditional-disagg-policy": "isl_bounding",
            "--router-conditional-disagg-eff-isl-threshold": p["prompt_length_threshold"] + 1,
        }
        notes.append("there the uncached part must also be below --router-conditional-disagg-eff-isl-ratio-threshold")
    used = ("prompt_length_threshold", "reuse_prefix") if choice.split else ("reuse_prefix",)
    return Carried(flags, used, notes)


ROUTERS = {
    "random": mode("random"),
    "round_robin": mode("round-robin"),
    "static_shard": nothing("no mode hashes a key to a worker; --router-session-affinity-ttl-secs keeps a session"),
    "least_requests": mode("least-loaded", "it counts connections of its own"),
    "least_tokens": _least_tokens,
    "power_of_two": nothing("no mode draws two workers"),
    "prefix_approx": _prefix,
    "prefix_exact": _prefix,
    "mooncake": nothing("no mode predicts TTFT or copies a prefix from another worker's cache"),
    "split_policy": _split_policy,
    "dynamo": _kv,
    "dynamo_lmetric": _lmetric,
    "sglang_cache_aware": nothing(ANOTHER),
    "llm_d": nothing(ANOTHER),
    "aibrix": nothing(ANOTHER),
    "aibrix_preble": nothing(ANOTHER),
    "production_stack": nothing(ANOTHER),
    "production_stack_kvaware": nothing(ANOTHER),
    "vllm_dp": nothing(ANOTHER),
    "vllm_dp_inflight": nothing(ANOTHER),
    "session": _session,
    "predicted_ttft": nothing(PREDICTS),
    "feedback": nothing("no mode reacts to measured latencies; the planner does, by scaling"),
}


def _router_queue(p: dict, choice: Choice) -> Carried:
    flags = {"--router-queue-threshold": p["threshold"], "--router-queue-policy": p["order"]}
    notes = ("lcfs is for comparisons only; one version of the documents takes it from a policy file alone",)
    return Carried(flags, ("threshold", "order"), notes if p["order"] == "lcfs" else ())


def _token_cap(p: dict, choice: Choice) -> Carried | Nothing:
    if p["max_tokens"] is None:
        return Nothing("its thresholds are numbers, not derived from an SLO; give max_tokens")
    note = "a worker above the threshold is passed over; a request is refused when all are"
    return Carried({"--active-prefill-tokens-threshold": p["max_tokens"]}, ("max_tokens",), (note,))


PREDICTED = "it rejects nothing by prediction (asked for in its DEP 8189)"
ADMISSIONS = {
    "none": lambda p, choice: Carried(),
    "queue_cap": nothing("it caps its own queue, not a worker's: request_queue_limit_per_worker in a policy file"),
    "token_cap": _token_cap,
    "probabilistic": nothing("it sheds nothing by chance"),
    "predicted_slo": nothing(PREDICTED),
    "predicted_load": nothing(PREDICTED),
    "measured_slo": nothing(PREDICTED),
    "self_exciting": nothing(PREDICTED),
    "early_rejection": nothing(PREDICTED),
    "priority_tiers": nothing("its tiers order the queue (nvext.agent_hints); they keep no reserve"),
    "fair": nothing("its policy classes share by deficit round robin, not by tokens served to each tenant"),
    "router_queue": _router_queue,
}


def export(choice: Choice) -> Export:
    """The frontend with the router and the admission, and the workers."""
    router, lost = answer(ROUTERS, "router", choice)
    admission, refused = answer(ADMISSIONS, "admission", choice)
    needs_kv = "--router-queue-threshold" in admission.flags and router.flags.get("--router-mode") not in (None, "kv")
    notes = ("its queue belongs to --router-mode kv; in another mode the two queue flags do nothing",) * needs_kv
    frontend = Component("frontend", ("python", "-m", "dynamo.frontend"), {**router.flags, **admission.flags})
    workers = []
    for role in ("mixed", "prefill", "decode"):
        if count := choice.count(role):
            flags = {
                **engine_flags(choice.fleet),
                **({} if role == "mixed" else {"--disaggregation-mode": role, **NIXL}),
            }
            words = ("python", "-m", "dynamo.vllm", "--model", '"$MODEL"')
            workers.append(Component(f"{role} worker", words, flags, count))
    notes += SPLIT_NOTE if choice.split else ()
    return Export(
        "dynamo",
        SOURCES,
        (frontend, *workers),
        None,
        (*router.notes, *admission.notes, *notes),
        lost + refused + choice.beside,
    )
