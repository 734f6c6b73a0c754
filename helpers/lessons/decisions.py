"""How much of a simulator's error is its routers' decisions: the same draws, each request sent where it went live."""

from dataclasses import replace
from statistics import fmean

from helpers.bench.record.replay import as_live, routed
from helpers.bench.record.routing import SEEDS, cached_share, seed_section
from helpers.errors import InputError
from helpers.lessons.records import ROUTING, record
from helpers.metrics.latency import distribution, ttft_s
from helpers.paths import data_file
from helpers.serving.packs import read_pack


def with_live_decisions(folder: str, arm: str) -> tuple[float, float]:
    """The error of the mean TTFT, and by how much another share of the prompts is cached, over the draws of an arm.

    `arm` is a router at a load, such as `least_requests at 1`, of the record of routing in `folder`. Raises
    `InputError` for one that it has not.
    """
    told = record(folder, ROUTING)
    draws = [one for seed in SEEDS for one in told["parts"][seed_section(seed)]["points"] if one["name"] == arm]
    if not draws:
        raise InputError(f"{folder} has no live run of {arm}; name a router at a load, such as `round_robin at 1`")
    found = []
    for one in draws:
        live = read_pack(data_file("packs", folder, one["pack"]))
        made = replace(routed(told, one, live), router=lambda _, live=live: as_live(live)).run()
        found.append((one["live"], made))
    ttft = fmean(distribution(ttft_s, made.timelines).mean for _, made in found)
    cached = fmean(cached_share(made) - live["cached"] for live, made in found)
    return ttft / fmean(live["TTFT mean"] for live, _ in found) - 1, cached
