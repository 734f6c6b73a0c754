"""What is served: slices to calibrate on, and configurations that are held out, named and frozen before anything runs.

A load is a share of what one worker sustains, for each worker that takes prompts; so the requests are frozen at one a
second, and only their pace depends on the machine.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from helpers.bench.fidelity.setting import BLOCK_TOKENS, BOUND, CPU, PREDICTED, Setting, lengths_of
from helpers.bench.fidelity.terms import MODE, Terms
from helpers.cost.transfer import Link
from helpers.errors import InputError
from helpers.scheduling.limits import Limits
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet, parse_split
from helpers.serving.processes import cores
from helpers.workload.generate import generate
from helpers.workload.request import Workload

CPU_LENGTHS = "cpu"
LARGER = "larger fleets run with `bench exactness`, without times"


@dataclass(frozen=True, slots=True)
class Slice:
    """Traffic for a fleet: `fleet` is a number of mixed workers or a split, `load` a share of a worker's rate.

    `told`: its policies predict, and are told the terms as far as they are measured. `lengths` names those of the
    requests (`helpers.bench.fidelity.setting.LENGTHS`).
    """

    name: str
    fleet: str
    load: float
    requests: int
    seed: int
    router: str = "round_robin"
    admission: str = "none"
    admission_parameters: dict = field(default_factory=dict)
    told: bool = False
    lengths: str = CPU_LENGTHS

    @property
    def workers(self) -> int:
        """How many there are."""
        return len(described(self.fleet).roles)

    @property
    def regime(self) -> str:
        """The fleet, and whether it is full: more comes than it sustains, and batches are as large as they may be."""
        return f"{self.fleet}, full" if self.load > 1 else self.fleet

    def frozen(self, most: int | None = None) -> Workload:
        """The requests, one a second on average."""
        return drawn(self.requests if most is None else min(most, self.requests), self.seed, self.lengths)

    def sha256(self) -> str:
        """A digest of everything that was decided: the fleet, its policies, the load, the requests."""
        policies = (self.router, self.admission, sorted(self.admission_parameters.items()))
        words = (self.name, self.fleet, self.load, *policies)
        return hashlib.sha256(f"{words} {self.frozen().sha256}".encode()).hexdigest()

    def record(self) -> dict:
        """As JSON; the usual lengths go without saying."""
        return {k: v for k, v in asdict(self).items() if (k, v) != ("lengths", CPU_LENGTHS)}

    def workload(self, sustained_per_s: float, most: int | None = None) -> Workload:
        """The requests at the pace of this machine."""
        takers = sum(role != "decode" for role in described(self.fleet).roles)
        return self.frozen(most).at_rate(self.load * takers * sustained_per_s)


# The rate of one worker comes from a burst. A slice for each fleet gives the cost of its steps and the way to a worker:
# two workers at a time share caches and memory, and those of a split do other work and hand KV over. All three are
# served again in each repeat, so that a drift of the machine is on both sides.
BURST = Slice("burst", "1", 1e4, 240, 1)
ONE, TWO = Slice("steps of one", "1", 0.45, 450, 2), Slice("steps of two", "2", 0.45, 900, 3)
SPLIT = Slice("steps of a split", "1P1D", 0.45, 400, 4)
# Of a fleet to which more comes than it sustains the slice above says little: batches of 32 are extrapolated from 1 to
# 8, and a step that is 5 % too long makes TTFT a fifth too long. The cost comes from slices with larger batches.
BUSY = Slice("busy steps of two", "2", 0.8, 600, 5)
FULL = Slice("full steps of two", "2", 1.0, 600, 6)
LEARNT_FROM = {"1": (ONE,), "2": (TWO,), "1P1D": (SPLIT,), "2, full": (BUSY, FULL)}  # by `Slice.regime`

# Other loads, other routers. Where workers are busy nearly all the time, a cost that is off by 4 % makes TPOT off by
# 17 %, and live runs differ by as much: loads are below that. Routers are compared on the same requests.
HELD_OUT = (
    Slice("one worker at 0.3", "1", 0.3, 350, 21),
    Slice("one worker at 0.55", "1", 0.55, 500, 22),
    Slice("two workers at 0.4", "2", 0.4, 3000, 23),
    Slice("random at 0.55", "2", 0.55, 1200, 24, "random"),
    Slice("round robin at 0.55", "2", 0.55, 1200, 24),
    Slice("least requests at 0.55", "2", 0.55, 1200, 24, "least_requests"),
    Slice("1P1D at 0.3", "1P1D", 0.3, 300, 25),
    Slice("1P1D at 0.8", "1P1D", 0.8, 600, 26),
)
# The beginning of the digest of each slice: whoever changes one has to change it here, in plain sight.
FROZEN = {
    "burst": "220e3a6da77a4eeb",
    "steps of one": "edb180c23148b687",
    "steps of two": "e1353e96cd01c464",
    "steps of a split": "11efb555e7a57a45",
    "busy steps of two": "9aa593af53e02ac0",
    "full steps of two": "fad1796a763b334d",
    "one worker at 0.3": "433759301d8db069",
    "one worker at 0.55": "077675eacb707ccb",
    "two workers at 0.4": "15e270cdbaf25ec9",
    "random at 0.55": "14e80ada9d915987",
    "round robin at 0.55": "f96972b5d283d30a",
    "least requests at 0.55": "cc5ada3038ecc8bf",
    "1P1D at 0.3": "8af0676f6fd1fd8c",
    "1P1D at 0.8": "8b3127afb108f8ca",
}


def drawn(requests: int, seed: int, lengths: str = CPU_LENGTHS) -> Workload:
    """Requests at one a second on average, with lengths of this name."""
    how = lengths_of(lengths)
    return generate(how.generator, rate_per_s=1.0, requests=requests, seed=seed, block_tokens=BLOCK_TOKENS, **how.knobs)


def described(fleet: str, setting: Setting = CPU) -> Fleet:
    """The fleet of a slice, before anything about it was measured; raises `InputError` for what is none."""
    if fleet.isdigit():
        limits = {"chunk_tokens": setting.token_budget, "max_batch": setting.max_batch, "kv_gib": setting.kv_gib}
        return Fleet(workers=int(fleet), cost=PREDICTED, **limits)
    return replace(described(str(len(parse_split(fleet))), setting), split=fleet, link=Link(1e-3, 1e9, MODE))


def refuse_what_cannot_be_timed(fleets: Sequence[str], available: int | None = None) -> None:
    """Raise `InputError` for a fleet with more workers than this machine has cores."""
    available = cores() if available is None else available
    for fleet in fleets:
        workers = len(described(fleet).roles)
        if workers > available:
            raise InputError(
                f"the {workers} workers of {fleet} cannot be timed on {available} cores, as each needs one of its own; "
                f"time one of {', '.join(timed(available))}; {LARGER}"
            )


def timed(available: int) -> list[str]:
    """The fleets of the plan that a machine with so many cores can time."""
    known = dict.fromkeys(one.fleet for one in HELD_OUT)
    return [fleet for fleet in known if len(described(fleet).roles) <= available]


def fleet_of(fleet: str, limits: Limits, terms: Terms | None, setting: Setting = CPU) -> Fleet:
    """The fleet with the very limits of the running workers, with their reports, and what was measured of them."""
    made = replace(described(fleet).with_limits(limits), telemetry=setting.telemetry)
    if terms is None:
        return made
    link = terms.link if made.split else None
    return replace(made, cost=terms.cost, hop_s=terms.hop_s, link=link, prefill_cost=terms.prefill_cost)


def experiment(
    one: Slice, workload: Workload, limits: Limits, terms: Terms | None, setting: Setting = CPU
) -> Experiment:
    """The slice as a question that either backend answers."""
    return Experiment(
        workload,
        fleet_of(one.fleet, limits, terms, setting),
        one.router,
        admission=one.admission,
        admission_parameters=one.admission_parameters,
        slo=BOUND,
        seed=one.seed,
    )
