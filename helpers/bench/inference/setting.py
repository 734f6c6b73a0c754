"""On what the ladder is climbed: a fleet of one, the load that comes to it, and how much of it is served."""

from dataclasses import dataclass

from helpers.bench.inference.rungs import Load
from helpers.serving.fleet import Fleet


@dataclass(frozen=True)
class Setting:
    """A kind of device with a model: the limits of the engine, and the load.

    The load is near what static batches sustain, or beyond it, and below what the rungs with a prefix cache sustain.
    `first` requests are served before anything counts: kernels launched one by one are compiled anew for each alignment
    of what they are given, which takes a GPU a good many steps. `window` steps are profiled, from `window_from_s` on.
    So many requests at once show what is sustained: two batches for static ones, three for the others, as all prompts
    are computed first and a short burst flatters.
    """

    model: str
    device: str
    fleet: Fleet
    load: Load
    seeds: tuple[int, ...]
    window_from_s: float
    window: int
    first: int
    static_burst: int
    burst: int
    alone: int = 4  # requests that are served one at a time
    alone_tokens: int = 32


SETTINGS = {
    "cpu": Setting(
        "tiny", "cpu", Fleet(workers=1, chunk_tokens=256, max_batch=16, kv_gib=0.125),
        Load(16.0, 32, 128, "lognormal:200:0.3", "lognormal:12:0.5"),
        seeds=(0, 1, 2), window_from_s=0.5, window=24, first=4, static_burst=32, burst=48,
    ),
    "cuda": Setting(
        "llama-8b", "cuda", Fleet(workers=1, chunk_tokens=2048, max_batch=128, kv_gib=24.0),
        Load(32.0, 112, 512, "lognormal:900:0.4", "lognormal:120:0.5"),
        seeds=(0, 1, 2), window_from_s=2.5, window=32, first=112, static_burst=256, burst=384,
    ),
}  # fmt: skip
