"""Workers that change sides: from prefill to decode and back, as the workload shifts."""

from dataclasses import dataclass, field
from math import ceil, fsum, inf
from typing import ClassVar

from helpers.cost.predictor import CostPredictor
from helpers.errors import InputError
from helpers.policies.routing import STATE, parameter
from helpers.policies.scaling.capacity import own_prefill_s
from helpers.policies.scaling.demand import DEMAND_EVENTS, Demand, RecentDemand
from helpers.policies.scaling.pools import Pool, check_period, in_flight, pools_of
from helpers.policies.view import Event, FleetViews, Plan


@dataclass(frozen=True, slots=True)
class Roles:
    """A worker changes its role when that lowers the pressure of the pool under more pressure.

    Pressure is 1 where a pool is at its limit:
    prefill = (rate x prefill of the mean prompt + prefill of what waits / horizon) / workers
    decode  = max(predicted ITL / ITL bound, share of KV blocks in use)

    Both are predicted for the pools as they are and for either change, the load of a pool spread over the
    workers that it would have. A change is made when the larger of the two pressures would fall by at least
    `hysteresis` (a share of it) and has promised to for `dwell_s`, at each look; the worker with the fewest
    requests changes, the highest id among equals. While one is under way nothing is decided, and each pool
    keeps a worker. The number of workers stays.

    The idea is that of DistServe's replanning and of instances without a fixed role (Arrow, arXiv
    2505.11916); the formula is this course's. Mixed workers are left as they are.
    """

    name: ClassVar[str] = "roles"
    observes: ClassVar[frozenset[type]] = DEMAND_EVENTS
    predictor: CostPredictor
    itl_s: float = parameter(0.05, "ITL at which a decode pool is at its limit, seconds")
    horizon_s: float = parameter(30.0, "seconds in which a queue is to be worked off")
    hysteresis: float = parameter(0.1, "share by which the larger pressure must fall")
    dwell_s: float = parameter(10.0, "seconds for which a change must have looked better")
    period_s: float = parameter(5.0, "seconds between two looks at the fleet")
    recent: RecentDemand = field(default_factory=RecentDemand, **STATE)
    _better: dict[str, float] = field(
        default_factory=dict, **STATE
    )  # role to change from -> since when it looks better

    def __post_init__(self) -> None:
        if self.predictor is None:
            raise InputError("scaler roles predicts times; give it a predictor, such as Fleet(...).predictor()")
        check_period(self.name, self.period_s)
        for name in ("itl_s", "horizon_s"):
            if not 0 < getattr(self, name) < inf:
                raise InputError(f"scaler roles: {name} is {getattr(self, name)}; give a number above 0")
        if not (0 <= self.hysteresis < 1 and 0 <= self.dwell_s < inf):
            raise InputError(
                f"scaler roles: hysteresis {self.hysteresis} and dwell_s {self.dwell_s}; "
                "give a share of 0 or more below 1, and seconds of 0 or more"
            )

    def observe(self, event: Event, now: float) -> None:
        self.recent.observe(event, now)

    def scale(self, views: FleetViews, now: float) -> Plan:
        pools, demand = pools_of(views, []), self.recent.at(now)
        prefill, decode = pools.get("prefill"), pools.get("decode")
        if demand is None or not (prefill and prefill.open and decode and decode.open) or in_flight(pools):
            self._better.clear()
            return Plan({}, "nothing is decided")
        here, there = len(prefill.open), len(decode.open)
        worst = self._worst(prefill, decode, demand, 0)
        moves = [(self._worst(prefill, decode, demand, 1), "decode", decode)] if there > 1 else []
        moves += [(self._worst(prefill, decode, demand, -1), "prefill", prefill)] if here > 1 else []
        after, old, pool = min(moves, default=(inf, "", prefill), key=lambda move: move[0])
        if after > (1 - self.hysteresis) * worst:
            self._better.clear()
            return Plan({}, f"pressure {worst:.2f}, {after:.2f} with a change")
        since = self._better.get(old, now)
        self._better.clear()
        if now - since < self.dwell_s:
            self._better[old] = since
            return Plan({}, f"pressure {worst:.2f}, {after:.2f} with one {old} worker less, since {now - since:.0f} s")
        least = min(pool.open, key=lambda view: (view.requests, -view.worker))
        new = "prefill" if old == "decode" else "decode"
        return Plan({}, f"pressure {worst:.2f}, {after:.2f} with one {old} worker less", ((least.worker, new),))

    def _worst(self, prefill: Pool, decode: Pool, demand: Demand, moved: int) -> float:
        """The larger pressure when `moved` workers have gone from decode to prefill."""
        return max(
            self.prefill_pressure(prefill, demand, len(prefill.open) + moved),
            self.decode_pressure(decode, len(decode.open) - moved),
        )

    def prefill_pressure(self, pool: Pool, demand: Demand, workers: int) -> float:
        """The pressure of a prefill pool with its load on so many workers."""
        waiting_s = fsum(self.predictor.queue_s(view) for view in pool.open)
        return (demand.rate_per_s * own_prefill_s(self.predictor, demand) + waiting_s / self.horizon_s) / workers

    def decode_pressure(self, pool: Pool, workers: int) -> float:
        """The pressure of a decode pool with its load on so many workers."""
        running = sum(view.running for view in pool.open)
        base, slope = self.predictor.cost.decode(max(1, ceil(running / workers)))
        itl_s = base + slope * sum(view.kv_tokens for view in pool.open) / workers if running else 0.0
        blocks = fsum(view.kv_total_blocks for view in pool.open) / len(pool.open)
        used = fsum(view.kv_used_blocks for view in pool.open) / (workers * blocks)
        return max(itl_s / self.itl_s, used)
