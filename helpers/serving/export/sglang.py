"""SGLang: flags of its gateway, and of the servers behind it."""

from helpers.serving.export.answer import Carried, Choice, Component, Export, Nothing, Rule, answer, nothing
from helpers.serving.fleet import Fleet

SOURCES = (
    "sgl-project/sglang sgl-model-gateway/bindings/python/src/sglang_router/router_args.py at 05e589ad",
    "docs/advanced_features/pd_disaggregation.md at 08edc506",
)
ANOTHER = "it is the rule of another system"
BOTH = "--policy serves both pools; ours takes the decode worker with the fewest KV tokens or requests"


def policy(name: str) -> Rule:
    """A router that is one of the policies."""
    return lambda p, choice: Carried({"--policy": name})


def _cache_aware(p: dict, choice: Choice) -> Carried:
    flags = {
        "--policy": "cache_aware",
        "--cache-threshold": p["cache_threshold"],
        "--balance-abs-threshold": p["balance_abs_threshold"],
        "--balance-rel-threshold": p["balance_rel_threshold"],
        "--max-tree-size": p["max_tree_chars"],
    }
    return Carried(flags, ("cache_threshold", "balance_abs_threshold", "balance_rel_threshold", "max_tree_chars"))


def _least_requests(p: dict, choice: Choice) -> Carried:
    note = "no policy says so, but a match is never above 1, and who does not match goes to the least loaded"
    return Carried({"--policy": "cache_aware", "--cache-threshold": 1.0}, notes=(note,))


def _session(p: dict, choice: Choice) -> Carried:
    flags: dict[str, object] = {"--policy": "manual", "--assignment-mode": "min_load"}
    if p["ttl_s"] is not None:
        flags["--max-idle-secs"] = p["ttl_s"]
    note = "manual keeps a routing key, which the client must send, where it was first put, whatever the load"
    return Carried(flags, ("ttl_s",), (note,))


AFFINITY = "cache_aware follows a match by a threshold, it does not weigh it against the load"
ROUTERS = {
    "random": policy("random"),
    "round_robin": policy("round_robin"),
    "static_shard": nothing("no policy of the flags hashes a key; manual remembers where a key was put"),
    "least_requests": _least_requests,
    "least_tokens": nothing("its policies count requests, not tokens"),
    "power_of_two": policy("power_of_two"),
    "prefix_approx": nothing(AFFINITY),
    "prefix_exact": nothing("the gateway remembers what it sent; it is not told what the engines evict"),
    "mooncake": nothing("no policy predicts TTFT or copies a prefix from another worker's cache"),
    "split_policy": nothing("no policy has weights, and none leaves a short prompt to the decode server"),
    "dynamo": nothing(ANOTHER),
    "dynamo_lmetric": nothing(ANOTHER),
    "sglang_cache_aware": _cache_aware,
    "llm_d": nothing(ANOTHER),
    "aibrix": nothing(ANOTHER),
    "aibrix_preble": nothing(ANOTHER),
    "production_stack": nothing(ANOTHER),
    "production_stack_kvaware": nothing(ANOTHER),
    "vllm_dp": nothing(ANOTHER),
    "vllm_dp_inflight": nothing(ANOTHER),
    "session": _session,
    "predicted_ttft": nothing("no policy predicts latencies"),
    "feedback": nothing("no policy reacts to measured latencies"),
}


def _queue_cap(p: dict, choice: Choice) -> Carried | Nothing:
    if choice.split:
        return Nothing("--max-queued-requests of a server is ignored with --disaggregation-mode")
    return Carried(engine={"--max-queued-requests": p["max_waiting"]}, used=("max_waiting",))


GATEWAY = "the gateway limits requests under way (--max-concurrent-requests) and its own queue (--queue-size) alone"
ADMISSIONS = {
    "none": lambda p, choice: Carried(),
    "queue_cap": _queue_cap,
    "token_cap": nothing(GATEWAY),
    "probabilistic": nothing("it sheds nothing by chance"),
    "predicted_slo": nothing("it rejects nothing by prediction"),
    "predicted_load": nothing("it rejects nothing by prediction"),
    "measured_slo": nothing("it rejects nothing by prediction"),
    "self_exciting": nothing("it rejects nothing by prediction"),
    "early_rejection": nothing("it rejects nothing by prediction"),
    "priority_tiers": nothing("a server may order its queue by priority; nothing keeps a reserve"),
    "fair": nothing("nothing counts tokens by tenant"),
    "router_queue": nothing(GATEWAY),
}


def export(choice: Choice) -> Export:
    """The gateway with the router and the admission, and the servers."""
    router, lost = answer(ROUTERS, "router", choice)
    admission, refused = answer(ADMISSIONS, "admission", choice)
    flags: dict[str, object] = {**router.flags, **admission.flags}
    flags |= _urls(choice)
    gateway = Component("gateway", ("python", "-m", "sglang_router.launch_router"), flags)
    servers = []
    for role in ("mixed", "prefill", "decode"):
        if count := choice.count(role):
            mode = {} if role == "mixed" else {"--disaggregation-mode": role}
            words = ("python", "-m", "sglang.launch_server", "--model-path", '"$MODEL"')
            servers.append(
                Component(f"{role} server", words, {**engine_flags(choice.fleet), **mode, **admission.engine}, count)
            )
    notes = (*router.notes, *admission.notes, *((BOTH,) if choice.split and router.flags else ()))
    return Export("sglang", SOURCES, (gateway, *servers), None, notes, lost + refused + choice.beside)


def engine_flags(fleet: Fleet) -> dict[str, object]:
    """Parallelism and the limits of a step; chunks of a prompt are not counted together with decodes there."""
    return {
        "--tp-size": fleet.tp,
        "--chunked-prefill-size": fleet.chunk_tokens,
        "--max-running-requests": fleet.max_batch,
    }


def _urls(choice: Choice) -> dict[str, object]:
    if not choice.split:
        return {"--worker-urls": " ".join(f"$WORKER_{i}" for i in range(choice.count("mixed")))}
    flags: dict[str, object] = {"--pd-disaggregation": None}
    for role in ("prefill", "decode"):
        urls = [f"$%s_{i}" % role.upper() for i in range(choice.count(role))]
        flags[f"--{role}"] = f" --{role} ".join(urls)  # the flag is given once for each server
    return flags
