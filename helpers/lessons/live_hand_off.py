"""Part 1 of lab 3 on running workers: what arrives, and when, if layers go as an answer says.

Four workers are started once in a session, each a process with a tiny model. They serve as 2P2D where bytes, logits and
tokens are compared. Where times are taken two of them serve as 1P1D, one core each, and the others are idle.
"""

import atexit
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from statistics import median
from time import perf_counter

from helpers.bench.cluster import exactness
from helpers.bench.cluster.exactness import BLOCK_TOKENS, Arm, Verdict
from helpers.bench.disagg.figures import exposed_s
from helpers.engine.config import PRESETS
from helpers.errors import InputError
from helpers.lessons.hand_off import Case, Starts, blocking_starts, cases, right_starts
from helpers.lessons.verdict import NOT_YET, answer
from helpers.metrics.latency import defined, ttft_s
from helpers.serving.cluster_backend import ClusterOptions, ClusterRun, workers_for
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet, parse_split
from helpers.workload.request import Request, Workload

LARGEST, TIMED = "2P2D", "1P1D"
WORKERS = len(parse_split(LARGEST))
# A prompt of a timed run is one step: its layers are computed one after the other, once.
FLEET = Fleet(workers=WORKERS, chunk_tokens=512, max_batch=16, kv_gib=0.02)
# A busy machine may keep a worker silent for long; no time is judged here.
OPTIONS = ClusterOptions(model="tiny", device="cpu", dtype="fp32", hang_s=90.0)
LAYERS = PRESETS["tiny"].layers
PROMPT, ANSWER, REQUESTS, GAP_S = 448, 3, 8, 0.2
TICKS = 2**16  # of a second
LINK_SHARE = 0.8  # of the seconds of a prefill that the transfer of its KV takes
BLOCKING, YOURS = "all after the prefill", "by your schedule"

Release = Sequence[int]
_open: list[tuple[ExitStack, object]] = []


def crew():
    """The running workers of this session, started again when one is gone; they end with it."""
    if not (_open and _open[0][1].whole):
        close()
        stack = ExitStack()
        _open.append((stack, stack.enter_context(workers_for(FLEET, BLOCK_TOKENS, OPTIONS))))
        atexit.register(close)
    return _open[0][1]


def close() -> None:
    """End the workers."""
    while _open:
        _open.pop()[0].close()


# What arrives


@dataclass(frozen=True)
class Live:
    """Runs of the same requests on processes of this machine, by name, and what became of each hand-off.

    `clock_s` is the time of each run on the clock of the wall, in the order in which they ran; the first one also
    counts what the workers took to start (`startup_s`).
    """

    split: str
    runs: dict[str, ClusterRun]
    clock_s: dict[str, float]
    verdicts: tuple[Verdict, ...]
    startup_s: float


@cache
def live(split: str = LARGEST) -> Live:
    """Serve eight requests with each hand-off, and with damaged ones, beside the same without any; once in a session.

    Raises `InputError` for more workers than there are, and where the packages of the engine are missing.
    """
    count = len(parse_split(split))
    if count > WORKERS:
        raise InputError(f"{split} has {count} workers, and the lab starts {WORKERS}; give a smaller split")
    asked, running = exactness.workload(), crew()
    arms = [Arm(split, "blocking"), Arm(split, "layerwise")]
    arms += [Arm(split, "layerwise", tamper=kind) for kind in ("corrupt_page", "zero_cache")]
    fleet = replace(FLEET, workers=count)
    options = replace(OPTIONS, verify=True, keep_logits=True, workers=running)
    runs, clock_s = {}, {}
    for arm in arms:
        began_s = perf_counter()
        told = replace(options, mover=arm.mover, tamper=arm.tamper)
        runs[arm.name] = Experiment(asked, replace(fleet, split=split)).run(on="engine", engine=told)
        clock_s[arm.name] = perf_counter() - began_s
    clock_s[arms[0].name] += running.startup_s
    whole = Experiment(asked, fleet).run(on="engine", engine=options)
    verdicts = tuple(exactness.judge(arm, whole, runs[arm.name]) for arm in arms)
    return Live(split, runs | {"whole": whole}, clock_s, verdicts, running.startup_s)


# When it arrives


def in_ticks(case: Case) -> Case:
    """A case in whole parts of a second, whose sums are exact in whatever order they are added."""
    times = ([max(1, round(s * TICKS)) / TICKS for s in some] for some in (case.compute_s, case.transfer_s))
    return Case(*map(tuple, times))


def right_release(starts_s: Sequence[float], case: Case) -> list[int]:
    """How many layers are computed when the transfer of each one starts."""
    return [sum(ready_s <= start_s for ready_s in case.ready_s) for start_s in starts_s]


def exposed_by(release: Release, case: Case) -> float:
    """Seconds that stay exposed if layer i goes once `release[i]` are computed, in the order in which they may go."""
    ready_s, free_s = case.ready_s, 0.0
    for layer in sorted(range(len(release)), key=lambda i: (release[i], i)):
        free_s = max(free_s, ready_s[release[layer] - 1]) + case.transfer_s[layer]
    return free_s - ready_s[-1]


def judge_release(release) -> str | None:
    """Whether a function says after how many computed layers each one goes, from its start."""
    for case in map(in_ticks, cases(60)):
        layers = len(case.compute_s)
        for starts_s in (right_starts(case), blocking_starts(case.compute_s, case.transfer_s)):
            own = answer(release(list(starts_s), list(case.compute_s)))
            if hint := _unlike(own, layers) or _other(own, right_release(starts_s, case), starts_s, case):
                return hint
    return None


def _unlike(own: object, layers: int) -> str | None:
    if not isinstance(own, Sequence) or isinstance(own, str) or len(own) != layers:
        return f"for {layers} layers it gives {own!r}; return a list with a whole number for each layer"
    if not all(isinstance(one, int) for one in own):
        return f"for {layers} layers it gives {own!r}; every one is a whole number of layers"
    return None


def _other(own: Release, right: Release, starts_s: Sequence[float], case: Case) -> str | None:
    if list(own) == list(right):
        return None
    layers = len(right)
    early = next((i for i, stored in enumerate(own) if stored <= i), None)
    if early is not None:
        return (
            f"layer {early} would go after {own[early]} layers, and is not computed then: a layer that ends at the "
            "very moment of a start counts, and the first one counts as 1"
        )
    if max(own) > layers:
        return f"a layer would go after {max(own)} of {layers} layers: never"
    if list(own) == [layers] * layers:
        return "every layer waits for the whole prefill, whatever its start: that is the blocking hand-off"
    if list(own) == list(range(1, layers + 1)):
        return "every layer goes as soon as it is computed, also where its start is later: the starts are not obeyed"
    at = next(i for i, (a, b) in enumerate(zip(own, right, strict=True)) if a != b)
    return (
        f"layer {at} starts at {1e3 * starts_s[at]:.1f} ms and would go after {own[at]} layers; these are computed at "
        f"{', '.join(f'{1e3 * ready_s:.1f}' for ready_s in case.ready_s)} ms"
    )


@dataclass(frozen=True)
class Sent:
    """What two workers made of one schedule: seconds by request, and the answers that are as without a hand-off."""

    release: tuple[int, ...]
    exposed_s: tuple[float, ...]
    ttft_s: tuple[float, ...]
    equal: int
    predicted_s: float


@dataclass(frozen=True)
class Timed:
    """Schedules on 1P1D by name, over a link whose rate was set by the prefill that was measured before."""

    case: Case
    link_bytes_per_s: float
    ways: dict[str, Sent]
    problem: str = ""  # why an answer was not served


def timed(starts: Starts, release) -> Timed:
    """Serve prompts one at a time on 1P1D: their KV all after the prefill, and as the answers say.

    The sender of the prefill worker lets a layer go once so many layers are stored as the answers say.
    """
    case, link, _ = measured()
    ways = {BLOCKING: (LAYERS,) * LAYERS}
    own = _released(starts, release, case)
    problem = own if isinstance(own, str) else ""
    if isinstance(own, tuple):
        ways[YOURS] = own
    return Timed(case, link, {name: sent(one) for name, one in ways.items()}, problem)


def _released(starts: Starts, release, case: Case) -> tuple[int, ...] | str | None:
    """What two answers come to for a case: a schedule, why it is none, None while an answer is missing."""
    from helpers.cluster.movers import checked_release, mover

    try:
        own = starts(list(case.compute_s), list(case.transfer_s))
        found = NOT_YET if own is NOT_YET else release(list(own), list(case.compute_s))
    except Exception as error:
        return f"an answer stops with {type(error).__name__}: {error}"
    if found is NOT_YET:
        return None
    if hint := _unlike(found, LAYERS):
        return hint
    try:
        return checked_release(tuple(found), LAYERS, mover("layerwise"))
    except InputError as error:
        return str(error)


@cache
def measured() -> tuple[Case, float, dict[int, list[int]]]:
    """Layers of a prompt on this machine, the rate of the link in bytes/s, and answers of one worker without hand-off.

    The layers are taken for equal: each is its share of the median prefill. Served twice: what is used for the first
    time takes longer.
    """
    _serve(replace(FLEET, workers=1))
    run = _serve(replace(FLEET, workers=1))
    compute_s = median(t.first_token_s - t.prefill_start_s for t in run.timelines) / LAYERS
    transfer_s = LINK_SHARE * compute_s
    config = PRESETS["tiny"]
    layer_bytes = 2 * config.kv_heads * config.head_dim * 4 * PROMPT  # keys and values in float32
    case = in_ticks(Case((compute_s,) * LAYERS, (transfer_s,) * LAYERS))
    return case, layer_bytes / transfer_s, run.tokens


@cache
def sent(release: tuple[int, ...]) -> Sent:
    """Serve the prompts with a schedule; once in a session."""
    case, link, alone = measured()
    run = _serve(replace(FLEET, workers=2, split=TIMED), mover="layerwise", send_after=release, link_bytes_per_s=link)
    exposed, ttft = defined(exposed_s, run.timelines), defined(ttft_s, run.timelines)
    equal = sum(run.tokens[i] == tokens for i, tokens in alone.items())
    return Sent(release, tuple(exposed), tuple(ttft), equal, exposed_by(release, case))


def _serve(fleet: Fleet, **told: object) -> ClusterRun:
    asked = Workload("one by one", tuple(Request(i, GAP_S * i, PROMPT, ANSWER) for i in range(REQUESTS)), BLOCK_TOKENS)
    return Experiment(asked, fleet).run(on="engine", engine=replace(OPTIONS, workers=crew(), **told))
