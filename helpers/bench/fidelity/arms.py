"""`bench run --on engine`: what of a target can be served live on two cores, beside the simulator.

The questions are those of the targets, the sizes are not: two workers of a tiny model in place of four of a large one.
Nothing here says how large an effect is there, but whether the simulator finds the effect that live workers show.
"""

from collections.abc import Callable

from helpers.bench.fidelity.plan import FROZEN, TWO, Slice
from helpers.bench.fidelity.recorder import record
from helpers.bench.targets.target import Target
from helpers.errors import InputError

REPEATS = 3


def routed(load: float, seed: int, *routers: str, told: tuple[str, ...] = ()) -> tuple[Slice, ...]:
    """Two workers under each of these routers."""
    return tuple(Slice(name, TWO.fleet, load, 700, seed, name, told=name in told) for name in routers)


def admitted(load: float, seed: int, rules: dict[str, dict], told: tuple[str, ...]) -> tuple[Slice, ...]:
    """Two workers under the shortest queue and each of these rules."""
    return tuple(
        Slice(name, TWO.fleet, load, 700, seed, "least_requests", name, how, name in told)
        for name, how in rules.items()
    )


# The baseline comes first.
ARMS = {
    "routers:dynamic_routing": routed(
        0.55, 31, "least_requests", "round_robin", "power_of_two", "predicted_ttft", told=("predicted_ttft",)
    ),
    "routers:early_rejection": admitted(
        1.2, 32, {"none": {}, "queue_cap": {"max_waiting": 2}, "predicted_slo": {}}, ("predicted_slo",)
    ),
    "routers:routing_static": routed(0.55, 33, "round_robin", "random", "static_shard", "least_requests"),
}
# The beginning of the digest of each arm.
WRITTEN = {
    "routers:dynamic_routing": {
        "least_requests": "b15c96130f47fb32",
        "round_robin": "7bf0b78fd934cb3a",
        "power_of_two": "8f593c44197c5aed",
        "predicted_ttft": "f17d089bb3f2fa75",
    },
    "routers:early_rejection": {
        "none": "418de48673b7d6a0",
        "queue_cap": "5601016d44221c2e",
        "predicted_slo": "66f0b6e9654c4d7d",
    },
    "routers:routing_static": {
        "round_robin": "9795a82942ee6cca",
        "random": "27a05364312be4ab",
        "static_shard": "4d82f8ff43f91a7e",
        "least_requests": "0c2d8d86510332ad",
    },
}
FIGURES = ("TTFT mean", "TPOT mean", "rejected", "attainment")


def arms_of(target: Target) -> tuple[Slice, ...]:
    """What is served of a target; raises `InputError` for one of which nothing can be timed here."""
    if target.full_name not in ARMS:
        raise InputError(
            f"target {target.full_name} cannot be timed on live workers of this machine; "
            f"those that can: {', '.join(ARMS)}"
        )
    return ARMS[target.full_name]


def run_live(
    target: Target,
    command: str,
    repeats: int = REPEATS,
    most: int | None = None,
    order_seed: int = 0,
    tick: Callable = lambda _: None,
) -> dict:
    """The record of a target's arms, live beside simulated; as `helpers.bench.fidelity.recorder.record`."""
    arms = arms_of(target)
    frozen = {**FROZEN, **WRITTEN[target.full_name]}
    found = record(arms, command, repeats, order_seed, most, shares=True, ranked=FIGURES, frozen=frozen, tick=tick)
    return {"target": target.full_name, "baseline": arms[0].name, "served": about(target), **found}


def about(target: Target) -> str:
    """What is served in place of what, in a sentence."""
    fleets = sorted({len(one.baseline.fleet.roles) for one in target.scenarios})
    most = f"{fleets[0]} to {fleets[-1]}" if len(fleets) > 1 else f"{fleets[0]}"
    arms = ARMS[target.full_name]
    return (
        f"two live workers of a tiny model at {arms[0].load:g} of what they sustain; the target's own scenarios, with "
        f"{most} workers of {target.scenarios[0].baseline.fleet.model}, cannot be timed here: the simulator has them"
    )
