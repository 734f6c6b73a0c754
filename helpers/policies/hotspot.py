"""Hot spots: no worker of a fleet is to have much more than the mean load.

A rule that follows something else than load (a cached prefix, a session) can send everything to one
worker. This is the correction behind it, for any router: it takes the router's choice and the loads,
and moves on only what would go to a hot spot.
"""

from collections.abc import Callable, Sequence
from math import fsum, inf

from helpers.errors import InputError


def avoid_hot_spot(
    chosen: int,
    allowed: Sequence[int],
    load: Callable[[int], float],
    hotspot_factor: float,
    slack: float = 0.0,
) -> int:
    """`chosen`, unless its load is above `hotspot_factor` x mean + `slack`: then the least loaded of `allowed`.

    The mean is over `allowed`, which holds `chosen`; the lowest id wins among equals. `load(worker)` is
    in any unit, the request to be placed not counted, and is asked of each allowed worker once. With
    `slack` (in that unit) a nearly idle fleet has no hot spot: without it, one request on one of four
    idle workers is four times the mean.

    Idea: consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, SODA 2018), where a key
    goes on to the next worker on the ring; here it goes to the least loaded. Raises `InputError` for a
    factor below 1 (somebody is always at or above the mean) or not finite, and for a negative slack.
    """
    if not 1 <= hotspot_factor < inf:
        raise InputError(f"hotspot_factor is {hotspot_factor}; give a number of 1 or more, as someone has the mean")
    if not 0 <= slack < inf:
        raise InputError(f"the slack of a hot spot is {slack}; give a load of 0 or more")
    loads = {worker: load(worker) for worker in allowed}
    mean = fsum(loads.values()) / len(loads)
    if loads[chosen] <= hotspot_factor * mean + slack:
        return chosen
    return min(loads, key=lambda worker: (loads[worker], worker))
