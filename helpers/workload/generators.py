"""The named generators: their knobs, their makers, and the registry that `generate.py` reads."""

import math
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from random import Random

from helpers.errors import InputError
from helpers.paths import data_file
from helpers.workload import arrivals
from helpers.workload.lengths import Constant, Exponential, Lognormal, Mixture, Pairs, Quantiles, Tokens
from helpers.workload.lengths import parse as parse_length
from helpers.workload.prefixes import BlockIds, Level, PrefixTree, Sessions, SessionShape
from helpers.workload.request import Request


@dataclass(frozen=True)
class Seeds:
    """Independent streams of randomness, so that a knob of one does not shift the draws of another."""

    name: str
    seed: int

    def stream(self, purpose: str) -> Random:
        return Random(f"{self.name}/{purpose}/{self.seed}")


@dataclass(frozen=True)
class Plain:
    """Knobs of generators without sessions. Lengths are written as in `lengths.parse`.

    With `blocks` every prompt has block ids. With `shared_tokens` too, and so many tokens are common
    to all requests; a prompt then has at least one token more than that.
    """

    prompt_tokens: str = "1000"
    output_tokens: str = "100"
    shared_tokens: int = 0
    blocks: bool = False


@dataclass(frozen=True)
class Poisson(Plain):
    """`burstiness` is the gamma shape of the gaps: 1 is Poisson, lower is burstier."""

    burstiness: float = 1.0


@dataclass(frozen=True)
class Bursts(Plain):
    """On and off periods of exponential length; all requests arrive in on periods."""

    on_s: float = 10.0
    off_s: float = 30.0


@dataclass(frozen=True)
class Step(Plain):
    """The rate is multiplied by `factor` from `at_s` to `back_s`."""

    at_s: float = 600.0
    back_s: float = math.inf
    factor: float = 2.0


@dataclass(frozen=True)
class Conversation:
    """Knobs of multi-turn conversations.

    `warmup_s` of sessions run before the clock starts; when negative, an hour or the time of
    50,000 requests, whichever is shorter. With `causal`, a turn waits for the previous answer
    (`parent`, think time); without, arrival times are fixed, as in a recorded trace.
    """

    causal: bool = False
    warmup_s: float = -1.0
    max_prompt_tokens: int = 126_195


@dataclass(frozen=True)
class Agents:
    """Tool loops: `kinds` of agents with their own instructions after a common prompt, short think times.

    `burstiness` is the gamma shape of the gaps between the starts of loops, as in `Poisson`.
    """

    causal: bool = True
    warmup_s: float = 0.0
    kinds: int = 8
    mean_calls: float = 12.0
    system_tokens: int = 1_500
    kind_tokens: str = "lognormal:2500:0.5"
    task_tokens: str = "lognormal:300:0.8"
    tool_tokens: str = "lognormal:350:1.2"
    output_tokens: str = "lognormal:90:0.8"
    tool_s: str = "lognormal:1.5:0.8"
    max_prompt_tokens: int = 100_000
    burstiness: float = 1.0


@dataclass(frozen=True)
class Documents:
    """Questions about shared documents: system prompt, then one of `tenants`, then one of its `documents`.

    `burstiness` is the gamma shape of the gaps, as in `Poisson`.
    """

    system_tokens: int = 600
    tenants: int = 10
    tenant_tokens: str = "lognormal:1200:0.4"
    documents: int = 40
    document_tokens: str = "lognormal:6000:0.7"
    skew: float = 0.9
    question_tokens: str = "lognormal:40:0.6"
    output_tokens: str = "lognormal:180:0.7"
    burstiness: float = 1.0


@dataclass(frozen=True)
class Observed:
    """Generators matched to a trace without prefixes have no knobs: their parameters are in data/traces/fits.toml."""


@dataclass(frozen=True)
class Generator:
    """A named generator: what it makes, its rate unless told otherwise, its knobs and its maker."""

    name: str
    summary: str
    rate_per_s: float
    knobs: type
    make: Callable[[Seeds, float, int, object], Iterator[Request]] = field(repr=False)


def fits(name: str) -> dict:
    """What is known of the trace that a generator imitates (data/traces/fits.toml)."""
    with data_file("traces", "fits.toml").open("rb") as f:
        return tomllib.load(f)[name]


def _mixture(parts: list[list[float]]) -> Mixture:
    return Mixture(tuple((weight, Lognormal(median, sigma)) for weight, median, sigma in parts))


def _plain(seeds: Seeds, times: Iterator[float], block_tokens: int, knobs: Plain) -> Iterator[Request]:
    rng = seeds.stream("lengths")
    prompt, output = Tokens(parse_length(knobs.prompt_tokens)), Tokens(parse_length(knobs.output_tokens))
    if knobs.shared_tokens < 0:
        raise InputError(f"shared_tokens is {knobs.shared_tokens}; use 0 or more")
    ids = BlockIds(block_tokens)
    shared, blocks = PrefixTree(ids, (Level(Constant(knobs.shared_tokens)),)).draw(rng)
    for number, arrival_s in enumerate(times):
        tokens = max(prompt.draw(rng), shared + 1 if shared else 0)
        carried = ids.extend(blocks, shared, tokens) if shared or knobs.blocks else ()
        yield Request(number, arrival_s, tokens, output.draw(rng), carried)


def _steady(seeds: Seeds, rate: float, block_tokens: int, knobs: Plain) -> Iterator[Request]:
    return _plain(seeds, arrivals.steady(rate), block_tokens, knobs)


def _poisson(seeds: Seeds, rate: float, block_tokens: int, knobs: Poisson) -> Iterator[Request]:
    times = arrivals.gamma(seeds.stream("arrivals"), rate, knobs.burstiness)
    return _plain(seeds, times, block_tokens, knobs)


def _bursts(seeds: Seeds, rate: float, block_tokens: int, knobs: Bursts) -> Iterator[Request]:
    on, off = Exponential(knobs.on_s), Exponential(knobs.off_s)
    peak = Constant(rate * (knobs.on_s + knobs.off_s) / knobs.on_s)
    return _plain(seeds, arrivals.on_off(seeds.stream("arrivals"), peak, on, off), block_tokens, knobs)


def _step(seeds: Seeds, rate: float, block_tokens: int, knobs: Step) -> Iterator[Request]:
    plan = [(0.0, rate), (knobs.at_s, rate * knobs.factor)]
    if knobs.back_s < math.inf:
        plan.append((knobs.back_s, rate))
    return _plain(seeds, arrivals.step(seeds.stream("arrivals"), plan), block_tokens, knobs)


def _conversation(seeds: Seeds, rate: float, block_tokens: int, knobs: Conversation) -> Iterator[Request]:
    fit = fits("conversation")
    common = SessionShape(
        first_tokens=_mixture(fit["first_tokens"]),
        new_tokens=tuple(_mixture(parts) for parts in fit["new_tokens"]),
        output_tokens=Tokens(Quantiles(tuple(fit["levels"]), tuple(fit["output"]))),
        interval_s=_mixture(fit["interval_s"]),
        continue_shares=tuple(fit["continue_shares"]),
        edit_share=fit["edit_share"],
        resend_share=fit["resend_share"],
        fade=fit["fade"],
        max_prompt_tokens=knobs.max_prompt_tokens,
        causal=knobs.causal,
    )
    steadfast = fit["steadfast"]
    long = replace(
        common,
        first_tokens=_mixture(steadfast["first_tokens"]),
        new_tokens=(_mixture(steadfast["new_tokens"]),),
        interval_s=_mixture(steadfast["interval_s"]),
        continue_shares=(steadfast["continue_share"],),
        edit_share=steadfast["edit_share"],
    )
    kinds = ((1 - steadfast["share"], common), (steadfast["share"], long))
    drift = (fit["drift_spread"], fit["drift_correlation_s"])
    starts = arrivals.drift(seeds.stream("arrivals"), rate / fit["mean_turns"], *drift)
    levels = (Level(Constant(fit["system_tokens"])),)
    warmup_s = knobs.warmup_s if knobs.warmup_s >= 0 else min(3600.0, 50_000 / rate)
    return _sessions(seeds, starts, kinds, levels, block_tokens, warmup_s)


def _agents(seeds: Seeds, rate: float, block_tokens: int, knobs: Agents) -> Iterator[Request]:
    if not knobs.mean_calls >= 1:
        raise InputError(f"mean_calls is {knobs.mean_calls}; use 1 or more")
    shape = SessionShape(
        first_tokens=parse_length(knobs.task_tokens),
        new_tokens=(parse_length(knobs.tool_tokens),),
        output_tokens=Tokens(parse_length(knobs.output_tokens)),
        interval_s=parse_length(knobs.tool_s),
        interval_includes_answer=False,
        continue_shares=(1 - 1 / knobs.mean_calls,),
        max_prompt_tokens=knobs.max_prompt_tokens,
        causal=knobs.causal,
    )
    levels = (Level(Constant(knobs.system_tokens)), Level(parse_length(knobs.kind_tokens), knobs.kinds, skew=1.0))
    starts = arrivals.gamma(seeds.stream("arrivals"), rate / shape.mean_turns, knobs.burstiness)
    return _sessions(seeds, starts, ((1.0, shape),), levels, block_tokens, knobs.warmup_s)


def _sessions(
    seeds: Seeds,
    starts: Iterator[float],
    kinds: tuple[tuple[float, SessionShape], ...],
    levels: tuple[Level, ...],
    block_tokens: int,
    warmup_s: float,
) -> Iterator[Request]:
    if not 0 <= warmup_s < math.inf:
        raise InputError(f"warmup_s is {warmup_s}; use 0 or more")
    return iter(Sessions(seeds.stream("sessions"), starts, kinds, levels, BlockIds(block_tokens), from_s=warmup_s))


def _documents(seeds: Seeds, rate: float, block_tokens: int, knobs: Documents) -> Iterator[Request]:
    rng, ids = seeds.stream("sessions"), BlockIds(block_tokens)
    levels = (
        Level(Constant(knobs.system_tokens)),
        Level(parse_length(knobs.tenant_tokens), knobs.tenants, knobs.skew),
        Level(parse_length(knobs.document_tokens), knobs.documents, knobs.skew),
    )
    tree = PrefixTree(ids, levels)
    question, output = Tokens(parse_length(knobs.question_tokens)), Tokens(parse_length(knobs.output_tokens))
    for number, arrival_s in enumerate(arrivals.gamma(seeds.stream("arrivals"), rate, knobs.burstiness)):
        shared, blocks = tree.draw(rng)
        prompt = shared + question.draw(rng)
        yield Request(number, arrival_s, prompt, output.draw(rng), ids.extend(blocks, shared, prompt))


def _code(seeds: Seeds, rate: float, block_tokens: int, knobs: Observed) -> Iterator[Request]:
    fit = fits("code")
    on, off = Exponential(fit["on_mean_s"]), _mixture(fit["off_s"])
    off_mean = math.fsum(weight * part.mean for weight, part in off.parts)
    peak = rate * (on.mean + off_mean) / on.mean
    rates = Lognormal(peak * math.exp(-(fit["rate_sigma"] ** 2) / 2), fit["rate_sigma"])
    times = arrivals.on_off(seeds.stream("arrivals"), rates, on, off, burstiness=fit["burstiness"])
    levels = tuple(fit["levels"])
    pairs = Pairs(((1.0, Quantiles(levels, tuple(fit["prompt"])), Quantiles(levels, tuple(fit["output"]))),))
    return _paired(seeds, times, pairs)


def _chat(seeds: Seeds, rate: float, block_tokens: int, knobs: Observed) -> Iterator[Request]:
    fit = fits("chat")
    levels = tuple(fit["levels"])
    bands = tuple(
        (b["weight"], Quantiles(levels, tuple(b["prompt"])), Quantiles(levels, tuple(b["output"])))
        for b in fit["bands"]
    )
    drift = (fit["drift_spread"], fit["drift_correlation_s"], fit["burstiness"])
    return _paired(seeds, arrivals.drift(seeds.stream("arrivals"), rate, *drift), Pairs(bands))


def _paired(seeds: Seeds, times: Iterator[float], pairs: Pairs) -> Iterator[Request]:
    rng = seeds.stream("lengths")
    for number, arrival_s in enumerate(times):
        yield Request(number, arrival_s, *pairs.draw(rng))


GENERATORS: dict[str, Generator] = {
    g.name: g
    for g in (
        Generator("steady", "fixed spacing, constant lengths", 4.0, Plain, _steady),
        Generator("poisson", "Poisson or gamma arrivals", 4.0, Poisson, _poisson),
        Generator("bursts", "on and off periods", 4.0, Bursts, _bursts),
        Generator("step", "the rate steps up, and back if asked", 4.0, Step, _step),
        Generator("conversation", "matched to the Mooncake conversation trace", 3.4, Conversation, _conversation),
        Generator("code", "matched to the Azure 2023 code trace: bursty", 2.57, Observed, _code),
        Generator("chat", "matched to the Azure 2023 conversation trace: slowly varying", 5.53, Observed, _chat),
        Generator("agents", "tool loops with short think times", 4.0, Agents, _agents),
        Generator("documents", "questions about shared documents: a prefix tree", 4.0, Documents, _documents),
    )
}
