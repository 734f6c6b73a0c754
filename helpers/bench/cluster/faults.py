"""What becomes of requests under load when something fails: every one is answered once, or fails with a reason."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace

from helpers.cluster.faults import Disconnect, Fault, Hang, SlowLink
from helpers.errors import InputError
from helpers.metrics.percentiles import percentile
from helpers.serving.cluster_backend import ClusterOptions, ClusterRun, workers_for
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet, parse_split
from helpers.simulator.disturbances import Disturbance, LoseWorker, SlowWorker
from helpers.workload.request import Request, Workload

BLOCK_TOKENS = 64
AT_S = 0.4  # when a fault happens; requests come for about three times as long
HANG_S = 6.0  # a worker that is silent for so long is lost
LIMIT_S = 180.0
GAP_S = 0.03  # between two requests
ROOMY_GIB, SCARCE_GIB = 0.02, 0.008  # KV of a worker: for all requests at once, and for about ten of them


@dataclass(frozen=True)
class Case:
    """One thing that fails, in a fleet of some split."""

    name: str
    split: str
    faults: tuple[Disturbance | Fault, ...] = ()
    kv_gib: float = ROOMY_GIB
    transfer_limit_s: float = 30.0
    gap_s: float = GAP_S
    too_long: bool = False  # one request is longer than any worker's KV
    damages: bool = False  # workers are lost


CASES = (
    Case("nothing fails", "2P2D"),
    Case("a client leaves", "2P2D", tuple(Disconnect(i, AT_S) for i in range(1, 40, 4))),
    Case("a slow link", "2P2D", (SlowLink(3, AT_S, 4e6, 0.01),)),
    Case("a link too slow", "2P2D", (SlowLink(3, AT_S, 2e4),), transfer_limit_s=2.0),
    Case("a slow worker", "2P2D", (SlowWorker(0, AT_S, 2 * AT_S, 5.0),)),
    Case("a full KV pool", "2P2D", kv_gib=SCARCE_GIB, gap_s=0.0),
    Case("a request too long", "2P2D", kv_gib=SCARCE_GIB, too_long=True),
    Case("a prefill worker killed", "2P2D", (LoseWorker(0, AT_S),), damages=True),
    Case("a decode worker killed", "2P2D", (LoseWorker(3, AT_S),), damages=True),
    Case("a prefill worker hangs", "2P2D", (Hang(1, AT_S),), damages=True),
    Case("a decode worker hangs", "2P2D", (Hang(2, AT_S),), damages=True),
    Case("the only decode worker killed", "1P1D", (LoseWorker(1, AT_S),), damages=True),
)


@dataclass(frozen=True)
class Outcome:
    """What became of the requests of a case. `same` of those that finished have the tokens of an undisturbed run."""

    case: str
    split: str
    sent: int
    finished: int
    failed: int
    lost: int  # neither finished nor failed with a reason
    twice: int  # answered with more tokens than asked for, or by two workers at once
    rerouted: int
    ignored_tokens: int  # of tries that had been given up, kept from the client
    workers_lost: int
    same: int
    preemptions: int
    kv_peak_share: float  # of the blocks of the fullest worker
    ttft_p90_s: float | None
    transfer_p90_s: float | None  # from the first piece sent to the last one stored
    end_s: float
    reasons: dict[str, int] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        """Nothing lost, nothing answered twice, and every answer the right one."""
        return not self.lost and not self.twice and self.same == self.finished

    def record(self) -> dict:
        """As JSON."""
        return {**asdict(self), "sound": self.sound}


def named(names: list[str] | None) -> list[Case]:
    """The cases whose name holds one of `names`, all without any; raises `InputError` for one that none holds."""
    if not names:
        return list(CASES)
    for name in names:
        if not any(name in case.name for case in CASES):
            raise InputError(f"no fault is called {name!r}; they are: {', '.join(case.name for case in CASES)}")
    return [case for case in CASES if any(name in case.name for name in names)]


def load(requests: int, gap_s: float = GAP_S, too_long: bool = False) -> Workload:
    """Requests in an open loop, one each `gap_s`; the last one too long for a worker with scarce KV, if asked for."""
    made = [Request(i, gap_s * i, 70 + 23 * (i % 7), 10 + i % 5, (1, 100 + i)) for i in range(requests)]
    if too_long:
        made[-1] = replace(made[-1], prompt_tokens=4000, prefix_blocks=())
    return Workload("faults", tuple(made), BLOCK_TOKENS)


def run_cases(cases: list[Case], requests: int = 40, told: Callable[[Outcome], None] = lambda _: None) -> list[Outcome]:
    """Run the cases on processes of this machine's CPU; `told` hears of each outcome as it is there."""
    if requests < 20:
        raise InputError(f"{requests} requests are no load; give 20 or more")
    options = ClusterOptions(model="tiny", device="cpu", verify=True, hang_s=HANG_S, limit_s=LIMIT_S)
    undisturbed, outcomes = None, []
    for group in _groups(cases):
        fleet = Fleet(workers=len(parse_split(group[0].split)), split=group[0].split, chunk_tokens=128, max_batch=16)
        fleet = replace(fleet, kv_gib=group[0].kv_gib)
        with workers_for(fleet, BLOCK_TOKENS, options) as crew:
            told_crew = replace(options, workers=crew)
            if undisturbed is None:
                undisturbed = Experiment(load(requests), fleet).run(on="engine", engine=told_crew)
            for case in group:
                limits = replace(told_crew, transfer_limit_s=case.transfer_limit_s, faults=case.faults)
                asked = load(requests, case.gap_s, case.too_long)
                run = Experiment(asked, fleet, "least_requests").run(on="engine", engine=limits)
                outcomes.append(outcome(case, asked, run, undisturbed.tokens))
                told(outcomes[-1])
    return outcomes


def _groups(cases: list[Case]) -> list[list[Case]]:
    """Cases that can use the same workers; the first of all has room for the run that the others are held against."""
    whole = [case for case in cases if not case.damages]
    rooms = sorted({case.kv_gib for case in whole}, reverse=True)
    groups = [[case for case in whole if case.kv_gib == room] for room in rooms]
    return groups + [[case] for case in cases if case.damages]


def outcome(case: Case, asked: Workload, run: ClusterRun, tokens: dict[int, list[int]]) -> Outcome:
    """Count what became of the requests of a run; `tokens` are those of an undisturbed one."""
    timelines = {t.id: t for t in run.timelines}
    finished = [t for t in run.timelines if t.status == "finished"]
    failed = [t for t in run.timelines if t.status != "finished" and t.reason]
    wanted = {r.id: r.output_tokens for r in asked}
    ended = sum(len(run.tokens.get(t.id, ())) != wanted[t.id] for t in finished)
    again = len(run.timelines) - len(timelines)
    return Outcome(
        case=case.name,
        split=case.split,
        sent=len(asked),
        finished=len(finished),
        failed=len(failed),
        lost=len(asked) - len(finished) - len(failed),
        twice=ended + again,
        rerouted=run.log.counts["rerouted"],
        ignored_tokens=run.log.counts["ignored_tokens"],
        workers_lost=run.log.counts["workers_lost"],
        same=sum(run.tokens.get(t.id) == tokens.get(t.id) for t in finished),
        preemptions=sum(t.preemptions for t in run.timelines),
        kv_peak_share=max(run.kv_peak_share),
        ttft_p90_s=_p90([t.first_token_s - t.arrival_s for t in finished]),
        transfer_p90_s=_p90([t.transfer_end_s - t.transfer_start_s for t in finished if t.transfer_end_s is not None]),
        end_s=run.end_s,
        reasons=dict(Counter(t.reason for t in failed)),
    )


def _p90(values: list[float]) -> float | None:
    return percentile(values, 90).value if values else None
