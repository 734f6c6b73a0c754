"""Prefill and decode on workers of their own, measured live: the ladder of hand-offs, and the rival without any.

Two workers, each a process with one thread, on the CPU: `tiny` in float32, 4 KiB of KV a token. The link is paced to
50 MB/s, at which the KV of 300 tokens takes 25 ms; memory alone would carry it at once, and there would be nothing to
hide. All times are taken inside the workers, by one clock. With `--nproc 1` the two roles take turns on one core, over
a link of the same pace, and their rival is one engine with the memory of both; see `helpers.bench.disagg.one_device`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from helpers.bench.disagg.arms import BLOCK_TOKENS, LiveExperiment, timed, unnoticed
from helpers.bench.disagg.live import RUNGS, TOGETHER
from helpers.bench.disagg.report import steps_of
from helpers.bench.targets.latencies import GAP, LATENCIES, TTFT
from helpers.bench.targets.target import UNDRAWN, Expectation, Scenario, Statistic, Target
from helpers.serving.fleet import Fleet
from helpers.workload.generate import generate
from helpers.workload.request import Workload

LINK_BYTES_PER_S = 50e6
SLOWER = 10.0  # times: the planted link
MARGIN = 0.05  # of the baseline: what two live runs of the same differ by is more than that of two simulations
CHUNK, BATCH, KV_GIB = 128, 16, 0.125
FLEET = Fleet(workers=2, split="1P1D", chunk_tokens=CHUNK, max_batch=BATCH, kv_gib=KV_GIB)
WHOLE = replace(FLEET, split=None)

SECOND = Statistic("second_token_s", "s", "mean of arrival to second token: queue, prefill, exposed hand-off", "lower")
EXPOSED = Statistic("exposed_mean_s", "s", "mean from the end of a prefill to KV that is all there", "lower")
HAND_OFFS = (
    Statistic("hidden_mean_s", "s", "mean time of a hand-off during its own prefill"),
    Statistic("exposed_p90_s", "s", "p90 of the exposed time", "lower"),
    Statistic("exposed_of_ttft", "share", "exposed time over TTFT, of the means", "lower"),
    Statistic("moved_mb", "MB", "KV handed over"),
)
# Those that some target decides by first.
ALL = (SECOND, TTFT, GAP, EXPOSED, *(one for one in LATENCIES if one not in (TTFT, GAP)), *HAND_OFFS)
# The draws of seed 0.
FROZEN = {
    "ladder": "a46693b6fd21544f",
    "several chunks": "d69bda1442df02c4",
    "short prompts at once": "5eb54d9b319b189e",
    "long prompts": "7e761f71137e5b4d",
    "long answers": "d9b53338e2aaa2ec",
}


def drawn(prompt: str, output: str, rate_per_s: float) -> Callable[[int, int], Workload]:
    """Open-loop arrivals with prompts that share nothing."""
    return lambda seed, requests: generate(
        "poisson", requests=requests, rate_per_s=rate_per_s, seed=seed, exact_rate=True, block_tokens=BLOCK_TOKENS,
        prompt_tokens=prompt, output_tokens=output,
    )  # fmt: skip


def asked(mover: str, fleet: Fleet = FLEET) -> LiveExperiment:
    """An arm."""
    return LiveExperiment(UNDRAWN, fleet, "least_tokens", mover=mover, link_bytes_per_s=LINK_BYTES_PER_S)


def live(
    name: str, about: str, draw, mover: str, others: Sequence[str], predicted: dict[str, str], waits: bool = False
) -> Scenario:
    """A regime in which the movers `others` are held against `mover`; `together` is the fleet without a split.

    The planted fault is a slow link, and a sender that `waits` for it where the statistic ends before a hand-off.
    """
    base = asked(mover)
    variants = {one: asked(mover, WHOLE) if one == TOGETHER else asked(one) for one in others}
    planted = replace(base, link_bytes_per_s=LINK_BYTES_PER_S / SLOWER, mover="blocking" if waits else mover)
    return Scenario(name, about, draw, base, variants, mover, predicted=predicted, timed=timed, planted=planted)


def target(
    name: str, question: str, hypothesis: str, primary: Statistic, scenario: Scenario, shared: Expectation, **more
) -> Target:
    """A live target of one scenario; `shared` is what is expected where both roles are on one device."""
    waits = "" if scenario.planted.mover == scenario.baseline.mover else ", and a sender that waits for it"
    statistics = (primary, *(one for one in ALL if one is not primary))
    return Target(
        name, "disagg", question, hypothesis, statistics, (scenario,), scenario.name, _unused, requests=12,
        margin=MARGIN, live=True, frozen={scenario.name: FROZEN[scenario.name]}, unnoticed=unnoticed,
        planted_about=f"a link {SLOWER:g} times as slow{waits}", on_one_device=shared, **more,
    )  # fmt: skip


def _unused(run, experiment, scenario) -> dict:
    return {}


MIXED = drawn("lognormal:300:0.4", "lognormal:16:0.3", 6.0)
TARGETS = {
    "prefill_decode_disagg": target(
        "prefill_decode_disagg",
        "What does each way of handing KV over cost, and what does a fleet without hand-offs do on the same cores?",
        "Not waiting is worth most, then sending early; slabs change nothing where steps end one prefill. Two workers "
        "that prefill and decode give their second token sooner than one that only prefills.",
        SECOND,
        live(
            "ladder",
            "prompts of about 300 tokens, answers of about 16, 6 requests/s",
            MIXED,
            RUNGS[0],
            (*RUNGS[1:], TOGETHER),
            {"asynchronous": "lower", "layerwise": "lower", "slabs": "lower"},
        ),
        Expectation(
            "Not waiting is worth something, sending early more. One engine is ahead of all of them: it hands nothing "
            "over, and its chunks carry the decodes along, where two roles read the weights once each.",
            {"asynchronous": "lower", "layerwise": "lower", "slabs": "lower", TOGETHER: "lower"},
        ),
        extra=steps_of,
    ),
    "prefill_decode_disagg_overlap": target(
        "prefill_decode_disagg_overlap",
        "How much of a hand-off hides behind the prefill that makes it?",
        "Of a prompt of several chunks all but the last crosses while the next ones compute: what is exposed falls.",
        EXPOSED,
        live(
            "several chunks",
            "prompts of about 500 tokens in chunks of 128, 3 requests/s",
            drawn("lognormal:500:0.2", "6", 3.0),
            "asynchronous",
            ("layerwise",),
            {"layerwise": "lower"},
        ),
        Expectation(
            "The link carries while the core computes, whoever's turn it is: what is exposed falls here too.",
            {"layerwise": "lower"},
        ),
    ),
    "prefill_decode_disagg_batched": target(
        "prefill_decode_disagg_batched",
        "Is it worth sending the layers of all requests of a step together?",
        "On a link whose bytes cost and whose messages do not, it is not: no effect.",
        EXPOSED,
        live(
            "short prompts at once",
            "prompts of 40 tokens, 12 requests/s, so that steps end several prefills",
            drawn("40", "6", 12.0),
            "layerwise",
            ("slabs",),
            {"slabs": "no effect"},
        ),
        Expectation("No effect here either.", {"slabs": "no effect"}),
    ),
    "prefill_decode_disagg_ttft": target(
        "prefill_decode_disagg_ttft",
        "Which gives the first token sooner on two workers: a split, or chunks beside decodes?",
        "Together, as both workers prefill; the split has one for it.",
        TTFT,
        live(
            "long prompts",
            "prompts of about 400 tokens, short answers, 4 requests/s",
            drawn("lognormal:400:0.3", "6", 4.0),
            "layerwise",
            (TOGETHER,),
            {TOGETHER: "lower"},
            waits=True,
        ),
        Expectation(
            "Together: between two chunks of a prefill the split takes a whole turn for decodes.", {TOGETHER: "lower"}
        ),
    ),
    "prefill_decode_disagg_tpot_long": target(
        "prefill_decode_disagg_tpot_long",
        "Which lets long answers flow: a split, or chunks beside decodes?",
        "The split: a decode never waits for a chunk, so the longest gap is that of a decode step.",
        GAP,
        live(
            "long answers",
            "prompts of about 250 tokens, answers of 40, 4 requests/s",
            drawn("lognormal:250:0.4", "40", 4.0),
            "layerwise",
            (TOGETHER,),
            {TOGETHER: "higher"},
        ),
        Expectation(
            "Together: on one core a decode of the split waits for a chunk all the same, and for the hand-off besides.",
            {TOGETHER: "lower"},
        ),
    ),
}
LADDER, OVERLAP, BATCHED, FIRST, LONG = TARGETS.values()
