"""The cost of a step on one machine, carried over to another by the ratios of their ceilings."""

from dataclasses import replace
from math import inf

from helpers.cost.iteration import AffineCost
from helpers.errors import InputError

BY_MEMORY = ("overhead_s", "per_decode_s", "per_kv_token_s")
BY_ARITHMETIC = ("per_prefill_token_s", "per_attention_pair_s")


def carried_over(cost: AffineCost, memory: float, arithmetic: float) -> AffineCost:
    """What the other machine would take if every step there were as near to its ceilings as here: *predicted*.

    `memory` and `arithmetic` are how many times as fast the other one copies and multiplies. Weights are read in every
    step, so the time of an empty one goes with memory; `launch_s` is the host's and stays. Raises `InputError` for a
    ratio that is not positive.
    """
    for name, ratio in (("memory", memory), ("arithmetic", arithmetic)):
        if not 0 < ratio < inf:
            raise InputError(f"the ratio of {name} is {ratio}; give how many times as fast the other machine is")
    slower = dict.fromkeys(BY_MEMORY, memory) | dict.fromkeys(BY_ARITHMETIC, arithmetic)
    return replace(cost, **{name: getattr(cost, name) / ratio for name, ratio in slower.items()}, kind="predicted")
