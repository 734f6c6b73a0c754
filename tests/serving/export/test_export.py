"""The flags that are exported, typed by hand, and that nothing of a choice is dropped without a word."""

from dataclasses import replace

import pytest

from helpers.errors import InputError
from helpers.policies.catalogue import KINDS
from helpers.serving.export import dynamo, llm_d, sglang, vllm
from helpers.serving.export.answer import OURS, Choice, answer
from helpers.serving.export.commands import SYSTEMS
from helpers.serving.fleet import Fleet

FOUR = Fleet(workers=4)
TWO_POOLS = Fleet(workers=4, split="2P2D", tp=2)
HAND_OVER = '\'{"kv_connector":"NixlConnector","kv_role":"kv_both"}\''


def flags(exported, title: str) -> dict:
    """The flags of the component whose title starts so."""
    return dict(next(one.flags for one in exported.components if one.title.startswith(title)))


def plugin(exported, name: str) -> dict:
    """The entry of a plugin in the configuration of llm-d."""
    return next(one for one in exported.document["plugins"] if one["type"] == name)


# -- Dynamo


def test_dynamos_router_in_its_own_words():
    one = dynamo.export(Choice("dynamo", fleet=FOUR, router_parameters={"temperature": 0.5, "overlap_decay": 1.0}))
    assert flags(one, "frontend") == {
        "--router-mode": "kv",
        "--router-kv-overlap-score-credit": 1.0,
        "--router-kv-overlap-score-credit-decay": 1.0,
        "--router-temperature": 0.5,
        "--router-prefill-load-scale": 1.0,
    }
    assert one.missing == ("router dynamo: active_request_weight = 0",)
    guessing = dynamo.export(Choice("dynamo", fleet=FOUR, router_parameters={"kv_events": False, "ttl_s": 60.0}))
    assert flags(guessing, "frontend")["--no-router-kv-events"] is None
    assert flags(guessing, "frontend")["--router-ttl-secs"] == 60.0


def test_dynamo_by_its_modes():
    for ours, theirs in (("random", "random"), ("round_robin", "round-robin"), ("least_requests", "least-loaded")):
        assert flags(dynamo.export(Choice(ours)), "frontend") == {"--router-mode": theirs}


def test_dynamos_cost_with_our_weights():
    """1 x (uncached + 0.1 x running) - 2 x overlap, over 0.1: 10 x (uncached - 2 x overlap) + running."""
    one = dynamo.export(Choice("prefix_exact", router_parameters={"overlap_weight": 2.0}))
    assert flags(one, "frontend") == {
        "--router-mode": "kv",
        "--router-kv-overlap-score-credit": 2.0,
        "--router-prefill-load-scale": 10.0,
    }
    halved = dynamo.export(Choice("prefix_exact", router_parameters={"load_weight": 2.0, "kv_weight": 0.5}))
    assert flags(halved, "frontend")["--router-kv-overlap-score-credit"] == 0.5
    assert flags(halved, "frontend")["--router-prefill-load-scale"] == 2.0
    alone = dynamo.export(Choice("prefix_exact", router_parameters={"load_weight": 0.0}))
    assert flags(alone, "frontend") == {} and "cannot be scaled" in alone.missing[0]


def test_dynamo_leaves_short_prompts_to_decode_workers():
    """There the uncached part must be *below* the threshold, here at most at it: 256 becomes 257."""
    one = dynamo.export(Choice("split_policy", fleet=TWO_POOLS))
    assert flags(one, "frontend") == {
        "--router-mode": "kv",
        "--router-conditional-disagg": None,
        "--router-conditional-disagg-policy": "isl_bounding",
        "--router-conditional-disagg-eff-isl-threshold": 257,
    }
    assert "router split_policy: prefix_cache_weight = 10" in one.missing
    assert not any("prompt_length_threshold" in m for m in one.missing)
    together = dynamo.export(Choice("split_policy", fleet=FOUR))  # nothing to leave to: then the threshold is missing
    assert flags(together, "frontend") == {"--router-mode": "kv"}
    assert "router split_policy: prompt_length_threshold = 256" in together.missing


def test_dynamos_queue():
    given = {"threshold": 2.0, "order": "wspt"}
    one = dynamo.export(Choice("dynamo", "router_queue", admission_parameters=given))
    assert flags(one, "frontend")["--router-queue-threshold"] == 2.0
    assert flags(one, "frontend")["--router-queue-policy"] == "wspt"
    assert not any("belongs to" in n for n in one.notes)
    elsewhere = dynamo.export(Choice("round_robin", "router_queue"))
    assert any("belongs to --router-mode kv" in n for n in elsewhere.notes)


def test_dynamos_workers():
    one = dynamo.export(Choice("round_robin", fleet=replace(TWO_POOLS, chunk_tokens=4096, max_batch=64)))
    engine = {"--tensor-parallel-size": 2, "--max-num-batched-tokens": 4096, "--max-num-seqs": 64}
    assert flags(one, "prefill") == {**engine, "--disaggregation-mode": "prefill", "--kv-transfer-config": HAND_OVER}
    assert flags(one, "decode") == {**engine, "--disaggregation-mode": "decode", "--kv-transfer-config": HAND_OVER}
    assert [(c.title, c.count) for c in one.components[1:]] == [("prefill worker", 2), ("decode worker", 2)]
    assert [(c.title, c.count) for c in dynamo.export(Choice("random")).components[1:]] == [("mixed worker", 4)]


# -- SGLang


def test_sglangs_policy_in_its_own_words():
    given = {"cache_threshold": 0.5, "balance_abs_threshold": 32}
    one = sglang.export(Choice("sglang_cache_aware", fleet=Fleet(workers=2), router_parameters=given))
    assert flags(one, "gateway") == {
        "--policy": "cache_aware",
        "--cache-threshold": 0.5,
        "--balance-abs-threshold": 32,
        "--balance-rel-threshold": 1.5,
        "--max-tree-size": 67108864,
        "--worker-urls": "$WORKER_0 $WORKER_1",
    }
    assert one.missing == ()
    tree = sglang.export(Choice("sglang_cache_aware", router_parameters={"smallest_tree": True}))
    assert tree.missing == ("router sglang_cache_aware: smallest_tree = true",)


def test_sglang_in_two_pools():
    one = sglang.export(Choice("power_of_two", "queue_cap", TWO_POOLS))
    assert flags(one, "gateway") == {
        "--policy": "power_of_two",
        "--pd-disaggregation": None,
        "--prefill": "$PREFILL_0 --prefill $PREFILL_1",
        "--decode": "$DECODE_0 --decode $DECODE_1",
    }
    engine = {"--tp-size": 2, "--chunked-prefill-size": 2048, "--max-running-requests": 256}
    assert flags(one, "prefill") == {**engine, "--disaggregation-mode": "prefill"}
    assert "ignored with --disaggregation-mode" in one.missing[0]
    together = sglang.export(Choice("power_of_two", "queue_cap", FOUR, admission_parameters={"max_waiting": 7}))
    assert flags(together, "mixed")["--max-queued-requests"] == 7 and together.missing == ()


def test_sglangs_least_loaded_is_a_match_that_never_comes():
    assert flags(sglang.export(Choice("least_requests")), "gateway")["--cache-threshold"] == 1.0


# -- vLLM


def test_vllms_router_and_engines():
    one = vllm.export(Choice("round_robin", "queue_cap", Fleet(workers=2)))
    assert flags(one, "router") == {
        "--routing-logic": "roundrobin",
        "--service-discovery": "static",
        "--static-backends": "$WORKER_0,$WORKER_1",
        "--static-models": "$MODEL,$MODEL",
    }
    # It counts running ones too: 256 that run at most, and 64 that wait.
    assert flags(one, "mixed") == {
        "--tensor-parallel-size": 1,
        "--max-num-batched-tokens": 2048,
        "--max-num-seqs": 256,
        "--max-num-queued-reqs": 320,
    }


def test_vllms_two_pools_have_a_logic_of_their_own():
    one = vllm.export(Choice("round_robin", fleet=TWO_POOLS))
    assert flags(one, "router")["--routing-logic"] == "disaggregated_prefill"
    assert flags(one, "router")["--static-model-labels"] == "prefill,prefill,decode,decode"
    assert flags(one, "prefill")["--kv-transfer-config"] == HAND_OVER
    assert any("a split fleet has a logic of its own" in m for m in one.missing)


def test_vllms_token_cap_needs_a_number():
    given = Choice("round_robin", "token_cap", admission_parameters={"max_tokens": 9000})
    assert flags(vllm.export(given), "mixed")["--max-num-queued-tokens"] == 9000
    assert "give max_tokens" in vllm.export(Choice("round_robin", "token_cap")).missing[0]


# -- llm-d


def test_llm_ds_default_is_that_of_its_precise_configuration():
    """deploy/config/epp-precise-prefix-cache-config.yaml: prefix 2, KV 1, queue 1, the highest score."""
    one = llm_d.export(Choice("llm_d", fleet=FOUR))
    assert one.document["schedulingProfiles"] == [
        {
            "name": "default",
            "plugins": [
                {"pluginRef": "decode-filter"},
                {"pluginRef": "prefix-cache-scorer", "weight": 2.0},
                {"pluginRef": "kv-cache-utilization-scorer", "weight": 1.0},
                {"pluginRef": "queue-scorer", "weight": 1.0},
                {"pluginRef": "max-score-picker"},
            ],
        }
    ]
    assert plugin(one, "prefix-cache-scorer")["parameters"] == {
        "prefixMatchInfoProducerName": "precise-prefix-cache-producer"
    }
    assert one.document["kind"] == "EndpointPickerConfig" and "dataLayer" in one.document


def test_llm_ds_gate_filter_and_latency():
    given = {
        "latency_weight": 1.0,
        "queue_weight": 0.0,
        "affinity_gate": True,
        "saturation_filter": True,
        "most_headroom": True,
    }
    one = llm_d.export(Choice("llm_d", router_parameters=given))
    assert plugin(one, "latency-scorer")["parameters"] == {
        "ttftWeight": 0.8,
        "tpotWeight": 0.2,
        "headroomSelectionStrategy": "most",
    }
    assert plugin(one, "prefix-cache-affinity-filter")["parameters"] == {
        "affinityThreshold": 0.8,
        "explorationProbability": 0.01,
        "maxTTFTPenaltyMs": 5000.0,
        "ttftSource": "latencyPredictor",
    }
    assert plugin(one, "utilization-detector")["parameters"] == {
        "queueDepthThreshold": 5,
        "kvCacheUtilThreshold": 0.8,
        "metricsStalenessThreshold": "200ms",
    }
    named = [p["pluginRef"] for p in one.document["schedulingProfiles"][0]["plugins"]]
    assert "queue-scorer" not in named and "inflight-load-producer" not in named
    assert "inflight-load-producer" in [p["type"] for p in one.document["plugins"]]


def test_llm_ds_two_pools_and_short_prompts():
    """It disaggregates from so many uncached tokens *on*, we above so many: 256 becomes 257."""
    one = llm_d.export(Choice("split_policy", fleet=TWO_POOLS))
    assert plugin(one, "prefix-based-pd-decider")["parameters"] == {"nonCachedTokens": 257}
    assert [profile["name"] for profile in one.document["schedulingProfiles"]] == ["prefill", "decode"]
    always = llm_d.export(Choice("random", fleet=TWO_POOLS))
    assert plugin(always, "disagg-profile-handler")["parameters"] == {
        "deciders": {"prefill": "always-disagg-pd-decider"}
    }


def test_llm_ds_shedding_by_chance():
    one = llm_d.export(Choice("random", "probabilistic", admission_parameters={"power": 3.0}))
    assert plugin(one, "probabilistic-admitter")["parameters"] == {
        "queueDepthThreshold": 5.0,
        "kvCacheUtilThreshold": 0.8,
        "power": 3.0,
        "k": 300.0,
    }
    assert one.document["flowControl"] == {"saturationDetector": {"pluginRef": "utilization-detector"}}
    unknown = llm_d.export(Choice("round_robin", "probabilistic"))
    assert unknown.document is None and any("needs a router" in m for m in unknown.missing)


# -- nothing is dropped


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("kind", ["router", "admission"])
def test_every_policy_of_the_catalogue_is_answered(system, kind):
    """With flags, plugins, or a sentence that says that there is nothing, and why; never by the general one."""
    rules = SYSTEMS[system].ROUTERS if kind == "router" else SYSTEMS[system].ADMISSIONS
    for name in KINDS[kind]:
        choice = Choice(**{"router": "round_robin", kind: name})
        found, missing = answer(rules, kind, choice)
        said = found.flags or found.engine or found.parts
        assert said or missing or name == "none", f"{system}: {kind} {name} is dropped without a word"
        assert name in rules, f"{system}: give {kind} {name} a rule, or say why it has no equivalent"


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("kind", ["router", "admission"])
def test_every_parameter_is_carried_or_missing(system, kind):
    """A parameter that is switched on is used by the rule or named as missing."""
    rules = SYSTEMS[system].ROUTERS if kind == "router" else SYSTEMS[system].ADMISSIONS
    for name, entry in KINDS[kind].items():
        choice = Choice(**{"router": "round_robin", kind: name})
        found, missing = answer(rules, kind, choice)
        for one in entry.parameters:
            on = one.name not in OURS and one.default is not False and one.default is not None
            named = any(f": {one.name} = " in m for m in missing)
            whole = any(m.startswith(f"{kind} {name}: ") and " = " not in m for m in missing)
            assert not on or named or whole or one.name in found.used


def test_a_policy_without_a_rule_is_missing_and_not_forgotten():
    """The control of the two tests above: rules that know nothing."""
    found, missing = answer({}, "router", Choice("dynamo"))
    assert not found.flags and missing == ("router dynamo: none was looked for",)


def test_mixed_workers_beside_two_pools_are_not_forgotten():
    beside = Fleet(workers=3, split="1P1D1M")
    for module in SYSTEMS.values():
        assert any("1P1D1M" in m for m in module.export(Choice("random", fleet=beside)).missing)


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match="router 'luck' is unknown"):
        dynamo.export(Choice("luck"))
