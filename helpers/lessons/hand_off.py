"""Part 1 of lab 3: when each layer of a prompt's KV may be sent, and what of it is exposed.

The layers of a prompt are computed one after the other, and sent in that order over a link that carries one at a time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import isclose, isfinite
from random import Random

from helpers.cost.iteration import AffineCost
from helpers.cost.service import prefill_s
from helpers.cost.split import moved_bytes
from helpers.cost.transfer import Link
from helpers.lessons.verdict import NOT_YET, answer
from helpers.models import model

# Fitted to the steps of this course's engine under load on one H100 with Llama-3.1-8B (data/packs/h100_80gb_hbm3,
# engine_llama-8b_serve.json, 2026-11-26), rounded and frozen, so that an answer does not change with a recording.
COST = AffineCost(5.873e-3, 1.946e-5, 1.749e-9, 7.162e-6, 4.121e-8)
MODEL = model("llama-3.1-8b")
PROMPT_TOKENS = 8192
CARD_BYTES_PER_S = 12.5e9 * 0.75  # one 100 Gbit/s card, at the share that large transfers reach
SAME = 1e-9

Starts = Callable[[Sequence[float], Sequence[float]], Sequence[float]]
Exposed = Callable[[Sequence[float], Sequence[float], Sequence[float]], float]


@dataclass(frozen=True)
class Case:
    """Seconds to compute and to send each layer of a prompt."""

    compute_s: tuple[float, ...]
    transfer_s: tuple[float, ...]

    @property
    def ready_s(self) -> list[float]:
        """When each layer is computed, from the start of the prefill on."""
        return list(accumulate(self.compute_s))


# The link is faster than some layers and slower than others, so it idles at first and queues at the end.
DRAWN = Case((0.020, 0.030, 0.030, 0.010, 0.010, 0.020), (0.012, 0.012, 0.024, 0.024, 0.012, 0.012))


def blocking_starts(compute_s: Sequence[float], transfer_s: Sequence[float]) -> list[float]:
    """When each layer is sent by a sender that first computes the whole prompt."""
    start_s, found = sum(compute_s), []
    for seconds in transfer_s:
        found.append(start_s)
        start_s += seconds
    return found


def prompt_case(bytes_per_s: float = CARD_BYTES_PER_S, tokens: int = PROMPT_TOKENS) -> Case:
    """A prompt of Llama-3.1-8B on one H100: equal layers, step times fitted, the transfer from bytes over rate."""
    layers = MODEL.layers
    compute_s = prefill_s(COST, tokens) / layers
    transfer_s = moved_bytes(MODEL, tokens) / bytes_per_s / layers
    return Case((compute_s,) * layers, (transfer_s,) * layers)


def bound_s(bytes_per_s: float = CARD_BYTES_PER_S, tokens: int = PROMPT_TOKENS) -> float:
    """The exposed transfer of `prompt_case` in closed form (`helpers.cost.transfer.Link.wire_s`)."""
    link = Link(0.0, bytes_per_s, "layerwise")
    return link.wire_s(moved_bytes(MODEL, tokens), prefill_s(COST, tokens), MODEL.layers)


def exposed_s(starts: Starts, exposed: Exposed, bytes_per_s: float = CARD_BYTES_PER_S) -> float:
    """What two answers make of the transfer of `prompt_case`."""
    case = prompt_case(bytes_per_s)
    return exposed(starts(case.compute_s, case.transfer_s), case.compute_s, case.transfer_s)


def schedules(starts: Starts) -> tuple[Case, dict[str, list[float]]]:
    """The drawn case, and when its layers are sent by the blocking sender and, once there is one, by an answer."""
    found = {"blocking": blocking_starts(DRAWN.compute_s, DRAWN.transfer_s)}
    try:
        own = starts(DRAWN.compute_s, DRAWN.transfer_s)
    except Exception:  # its check says what it was
        own = NOT_YET
    if own is not NOT_YET and _unlike(own, DRAWN) is None:
        found["yours"] = list(own)
    return DRAWN, found


# The judge


def cases(count: int = 200) -> list[Case]:
    """Cases by hand, of one layer, of a link that is never or always the slower one; then `count` by chance."""
    hand = [
        DRAWN,
        Case((0.02,), (0.03,)),
        Case((0.03,) * 4, (0.01,) * 4),
        Case((0.01,) * 4, (0.03,) * 4),
        Case((0.05, 0.01, 0.01), (0.01, 0.04, 0.01)),
    ]
    rng = Random(3)

    def times(layers: int) -> tuple[float, ...]:
        return tuple(rng.uniform(0.001, 0.05) for _ in range(layers))

    sizes = [rng.randint(1, 12) for _ in range(count)]
    return hand + [Case(times(size), times(size)) for size in sizes]


def right_starts(case: Case) -> list[float]:
    """Each layer as soon as it is computed and the layer before it has been sent."""
    found, free_s = [], 0.0
    for ready_s, seconds in zip(case.ready_s, case.transfer_s, strict=True):
        found.append(max(ready_s, free_s))
        free_s = found[-1] + seconds
    return found


def right_exposed_s(case: Case) -> float:
    """The time from the end of the prefill until the last layer has arrived."""
    return right_starts(case)[-1] + case.transfer_s[-1] - case.ready_s[-1]


def judge_hand_off(starts: Starts, exposed: Exposed) -> str | None:
    """Whether the layers go out as early as they may, and the exposed time is what is left after the prefill."""
    tried = cases()
    found = [answer(starts(list(case.compute_s), list(case.transfer_s))) for case in tried]
    for case, own in zip(tried, found, strict=True):
        hint = _unlike(own, case) or _too_early(own, case)
        if hint:
            return hint
    late = [(case, own) for case, own in zip(tried, found, strict=True) if not _close(own, right_starts(case))]
    if late:
        return _too_late(late)
    for case in tried:
        hint = _exposure(answer(exposed(right_starts(case), list(case.compute_s), list(case.transfer_s))), case)
        if hint:
            return hint
    return None


def _unlike(own: object, case: Case) -> str | None:
    """Why a value is no list of starts, None when it is one."""
    layers = len(case.compute_s)
    if not isinstance(own, Sequence) or isinstance(own, str) or len(own) != layers:
        return f"for {layers} layers it gives {own!r}; return a list with the start of each transfer, in seconds"
    if not all(isinstance(one, int | float) and isfinite(one) for one in own):
        return f"for {layers} layers it gives {own!r}; every start is a number of seconds"
    return None


def _too_early(own: Sequence[float], case: Case) -> str | None:
    for layer, (start_s, ready_s) in enumerate(zip(own, case.ready_s, strict=True)):
        if start_s < ready_s - SAME:
            return (
                f"layer {layer} is sent at {_ms(start_s)}, before it is computed at {_ms(ready_s)}: the receiver gets "
                "whatever lay in its pages"
            )
        if layer and start_s < (free_s := own[layer - 1] + case.transfer_s[layer - 1]) - SAME:
            return (
                f"layer {layer} is sent at {_ms(start_s)}, while the link is busy with layer {layer - 1} until "
                f"{_ms(free_s)}: it carries one at a time"
            )
    return None


def _too_late(late: list[tuple[Case, Sequence[float]]]) -> str:
    if all(own[0] >= case.ready_s[-1] - SAME for case, own in late):
        return "layer 0 waits for the whole prefill: that is the blocking hand-off, and all of its transfer is exposed"
    case, own = late[0]
    layer = next(i for i, (a, b) in enumerate(zip(own, right_starts(case), strict=True)) if a > b + SAME)
    return (
        f"layer {layer} of {len(own)} is computed and the link is idle, and it is sent at {_ms(own[layer])} only, "
        f"with {_list(case.compute_s)} to compute and {_list(case.transfer_s)} to send the layers"
    )


def _exposure(own: object, case: Case) -> str | None:
    if not isinstance(own, int | float) or not isfinite(own):
        return f"the exposed time is {own!r}; return a number of seconds"
    if isclose(own, right_exposed_s(case), abs_tol=SAME):
        return None
    told = f"the starts are right, the exposed time is not ({_ms(own)} in a case with {len(case.compute_s)} layers)"
    if isclose(own, right_starts(case)[-1] - case.ready_s[-1], abs_tol=SAME):
        return f"{told}: the transfer of the last layer is left out, and nothing is left to compute that could hide it"
    if isclose(own, sum(case.transfer_s), abs_tol=SAME):
        return f"{told}: that is the whole transfer, and a part of it lies behind the computation"
    if isclose(own, right_starts(case)[-1] + case.transfer_s[-1], abs_tol=SAME):
        return f"{told}: it counts from the start of the prefill; what comes after its end is exposed"
    if isclose(own, max(0.0, sum(case.transfer_s) - sum(case.compute_s)), abs_tol=SAME):
        return f"{told}: the link idles until the first layer is there, so the two sums do not tell it"
    return f"{told}: when has the last layer arrived, and when does the prefill end?"


def _close(a: Sequence[float], b: Sequence[float]) -> bool:
    return all(isclose(x, y, abs_tol=SAME) for x, y in zip(a, b, strict=True))


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.1f} ms"


def _list(seconds: Sequence[float]) -> str:
    return ", ".join(_ms(one) for one in seconds)
