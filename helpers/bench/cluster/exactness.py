"""The same requests on whole workers, split in every way with every mover, and after a worker was lost.

Three checks, each of which has controls that it must catch: a digest of each (layer, page) at both ends of the
hand-off, the logits of every token against those of a run without hand-off, and the tokens.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace

from helpers.errors import InputError
from helpers.serving.cluster_backend import ClusterOptions, ClusterRun, workers_for
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet, parse_split
from helpers.simulator.disturbances import LoseWorker
from helpers.workload.request import Request, Workload

BOUND = 1e-5  # of the largest difference of a token's logits, over the largest of them; float32
BLOCK_TOKENS = 64  # and a page of KV is as large
SPLITS = ("1P1D", "1P2D", "2P1D", "2P2D")
MOVERS = ("blocking", "layerwise", "batched", "bounce", "group")
LOSSES = ("prefill", "decode")


@dataclass(frozen=True)
class Arm:
    """One run that is held against the whole one."""

    split: str
    mover: str
    tamper: str = ""
    lose: str = ""  # the role of a worker that is killed on the way

    @property
    def name(self) -> str:
        """In words."""
        wrong = f", {self.tamper}" if self.tamper else f", a {self.lose} worker lost" if self.lose else ""
        return f"{self.split} {self.mover}{wrong}"


@dataclass(frozen=True)
class Verdict:
    """What became of an arm. `logits_error` is relative, the largest of all tokens that can be compared."""

    arm: Arm
    hand_offs: int
    pages_checked: int
    pages_wrong: int
    logits_compared: int
    logits_error: float
    tokens_equal: int
    requests: int
    rerouted: int

    @property
    def same(self) -> bool:
        """Whether every check says that nothing has changed."""
        return not (self.pages_wrong or self.logits_error > BOUND) and self.tokens_equal == self.requests

    @property
    def caught(self) -> bool:
        """Whether digests and logits both say that something has."""
        return self.pages_wrong > 0 and self.logits_error > BOUND

    @property
    def as_wanted(self) -> bool:
        """A tampered run is caught, any other is the same and was really compared."""
        if self.arm.tamper:
            return self.caught
        compared = self.logits_compared > 0 and self.pages_checked > 0
        return self.same and compared and (not self.arm.lose or self.rerouted > 0)

    def record(self) -> dict:
        """As JSON."""
        found = {k: v for k, v in asdict(self).items() if k != "arm"}
        return {**asdict(self.arm), **found, "as_wanted": self.as_wanted}


def workload(requests: int = 8, output_tokens: int = 12, gap_s: float = 0.03) -> Workload:
    """Prompts below a page, of whole pages, one beyond, over several; every other one begins with a shared page."""
    lengths = (40, 64, 65, 200, 128, 300, 129, 255)
    made = tuple(
        Request(i, i * gap_s, lengths[i % len(lengths)], output_tokens, (1, 100 + i) if i % 2 else ())
        for i in range(requests)
    )
    return Workload("exactness", made, BLOCK_TOKENS)


def arms(splits: tuple[str, ...] = SPLITS, movers: tuple[str, ...] = MOVERS, losses: bool = True) -> list[Arm]:
    """Every split with every mover, the controls on one of them, and the losses, which need four workers and come
    last."""
    from helpers.cluster.movers import mover
    from helpers.cluster.tamper import KINDS

    for name in movers:
        mover(name)
    chosen = [Arm(split, name) for split in splits for name in movers]
    chosen += [Arm(splits[0], movers[0], tamper=kind) for kind in KINDS]
    return chosen + [Arm("2P2D", movers[0], lose=role) for role in (LOSSES if losses else ())]


def check(
    chosen: list[Arm],
    requests: int = 8,
    model: str = "tiny",
    device: str = "cpu",
    told: Callable[[Verdict], None] = lambda _: None,
) -> list[Verdict]:
    """Run the arms on processes of this machine, in float32, and judge each; `told` hears of each verdict as it is
    there."""
    if requests < 2:
        raise InputError(f"{requests} requests share no page; give 2 or more")
    asked = workload(requests)
    verdicts = []
    for group in _by_workers(chosen):
        count = len(parse_split(group[0].split))
        fleet = Fleet(workers=count, chunk_tokens=128, max_batch=16, kv_gib=0.02)
        options = ClusterOptions(model=model, device=device, dtype="fp32", verify=True, keep_logits=True)
        with workers_for(fleet, BLOCK_TOKENS, options) as crew:
            options = replace(options, workers=crew)
            whole = Experiment(asked, fleet).run(on="engine", engine=options)
            for arm in group:
                verdicts.append(judge(arm, whole, _run(arm, asked, fleet, options)))
                told(verdicts[-1])
    return verdicts


def _by_workers(chosen: list[Arm]) -> Iterator[list[Arm]]:
    """Arms that can use the same workers, one after another; a loss ends its workers, so it has its own."""
    for size in sorted({len(parse_split(arm.split)) for arm in chosen if not arm.lose}):
        yield [arm for arm in chosen if not arm.lose and len(parse_split(arm.split)) == size]
    yield from ([arm] for arm in chosen if arm.lose)


def _run(arm: Arm, asked: Workload, fleet: Fleet, options: ClusterOptions) -> ClusterRun:
    split = replace(fleet, split=arm.split)
    lost = (LoseWorker(split.roles.index(arm.lose), asked.requests[-1].arrival_s / 2),) if arm.lose else ()
    told = replace(options, mover=arm.mover, tamper=arm.tamper)
    return Experiment(asked, split, disturbances=lost).run(on="engine", engine=told)


def judge(arm: Arm, whole: ClusterRun, split: ClusterRun) -> Verdict:
    """Hold the run of an arm against a run on whole workers."""
    compared, error, equal = 0, 0.0, 0
    for request, tokens in whole.tokens.items():
        other = split.tokens.get(request, [])
        equal += other == tokens
        shared = next((i for i, (a, b) in enumerate(zip(tokens, other, strict=False)) if a != b), len(other) - 1) + 1
        rows = zip(whole.logits[request][:shared], split.logits.get(request, ())[:shared], strict=False)
        for a, b in rows:  # the token at which they part was drawn from logits that still had the same past
            error = max(error, relative_error(a, b))
            compared += 1
    rerouted = split.log.counts["rerouted"]
    return Verdict(
        arm, split.hand_offs, split.checked, split.wrong, compared, error, equal, len(whole.tokens), rerouted
    )


def relative_error(a: bytes, b: bytes) -> float:
    """The largest difference of two rows of float32, over the largest magnitude in the first."""
    import numpy as np

    first, second = np.frombuffer(a, np.float32), np.frombuffer(b, np.float32)
    return float(np.abs(first - second).max() / np.abs(first).max())
