"""How evenly the work fell on the workers, and how much of the hardware it used."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from helpers.errors import InputError
from helpers.metrics.series import Window
from helpers.metrics.steps import row_duration_s, steps_in
from helpers.metrics.timeline import EventLog, StepLog, WorkerInfo

Span = tuple[float, float]  # from, to; seconds


@dataclass(frozen=True, slots=True)
class WorkerLoad:
    """What one worker did: prompt tokens computed, tokens decoded, and seconds spent in steps.

    `there_s` are the seconds in which it could do anything: from when it was ready to when it stopped.
    """

    worker: int
    role: str
    prefilled_tokens: int
    decoded_tokens: int
    busy_s: float
    there_s: float

    @property
    def tokens(self) -> int:
        """Tokens computed, of either kind."""
        return self.prefilled_tokens + self.decoded_tokens


def worker_loads(log: EventLog, window: Window | None = None) -> list[WorkerLoad]:
    """The load of each worker, from its step log; tokens count by the end of their step.

    `busy_s` counts a run of steps in the share of its steps that end in the window. A worker
    that did nothing is in the list with zeros; of a recording without steps nothing is known, and
    the list is empty.
    """
    if not log.step_logs:
        return []
    if log.workers and len(log.workers) != len(log.step_logs):
        raise InputError(
            f"the event log has {len(log.workers)} workers but {len(log.step_logs)} step logs; it is damaged"
        )
    infos = log.workers or (WorkerInfo(),) * len(log.step_logs)
    span = _span(log, window)
    return [
        _load(w, info, steps, window, span) for w, (info, steps) in enumerate(zip(infos, log.step_logs, strict=True))
    ]


def _load(worker: int, info: WorkerInfo, steps: StepLog, window: Window | None, span: Span) -> WorkerLoad:
    prefilled = decoded = 0
    busy: list[float] = []
    for row in range(len(steps)):
        inside = steps_in(steps, row, window)
        if inside:
            prefilled += steps.prefilled[row]
            decoded += inside * steps.decoding[row]
            busy.append(row_duration_s(steps, row) * (inside / steps.steps[row]))
    there_s = _overlap_s(info.ready_s, info.stop_s, span)
    return WorkerLoad(worker, info.role, prefilled, decoded, math.fsum(busy), there_s)


def _span(log: EventLog, window: Window | None) -> Span:
    """The start and end of a window, or of the whole run."""
    return (0.0, log.end_s) if window is None else (window.start_s, window.end_s)


def _overlap_s(start_s: float | None, stop_s: float | None, span: Span) -> float:
    """Seconds of a span in which something was there that came at `start_s` (None: never) and left at `stop_s`."""
    if start_s is None:
        return 0.0
    end_s = span[1] if stop_s is None else min(stop_s, span[1])
    return max(0.0, end_s - max(start_s, span[0]))


def gpu_s(log: EventLog, window: Window | None = None) -> float:
    """GPU-seconds that the workers occupied, from their start (start-up included) to their stop; `tp` x `pp` GPUs each.

    Over the window, else from 0 to the end of the run. 0 for a recording that does not know its workers.
    """
    span = _span(log, window)
    return math.fsum(w.tp * w.pp * _overlap_s(w.start_s, w.stop_s, span) for w in log.workers)


def jain(loads: Sequence[float]) -> float | None:
    """Jain's index, (sum x)^2 / (n sum x^2): 1 when all loads are equal, 1/n when one worker has everything.

    None when nobody has any. Source: Jain, Chiu, Hawe, DEC-TR-301 (1984). Raises InputError on
    no loads or a negative one.
    """
    _check_loads(loads)
    squares = math.fsum(x * x for x in loads)
    return math.fsum(loads) ** 2 / (len(loads) * squares) if squares else None


def imbalance(loads: Sequence[float]) -> float | None:
    """The largest load over the mean: 1 when all are equal, n when one worker has everything. None when all are 0.

    Raises InputError on no loads or a negative one.
    """
    _check_loads(loads)
    total = math.fsum(loads)
    return max(loads) * len(loads) / total if total else None


def _check_loads(loads: Sequence[float]) -> None:
    if not loads:
        raise InputError("the balance of no workers is not defined; give the load of at least one")
    if min(loads) < 0:
        raise InputError(f"a worker load is {min(loads)}; loads are 0 or more")


@dataclass(frozen=True, slots=True)
class Balance:
    """Jain's index and max/mean over the tokens computed by the workers of one role."""

    workers: int
    jain: float | None
    imbalance: float | None


def balance_by_role(loads: Sequence[WorkerLoad]) -> dict[str, Balance]:
    """The balance within each role; prefill and decode workers do different work and are not compared.

    When workers came and went, what is compared is the tokens a second that each was there, weighted by
    these seconds, so that whoever was there for a tenth of the time is not called idle. With s_w the share
    of worker w in all seconds and r_w its rate: Jain's index is (sum s r)^2 / sum s r^2, and the imbalance
    is max r / sum s r. Equal times give the plain formulas. Whoever was never there is left out.
    """
    pools: dict[str, list[WorkerLoad]] = {}
    for load in loads:
        pools.setdefault(load.role, []).append(load)
    return {role: _balance([one for one in pool if one.there_s] or pool) for role, pool in pools.items()}


def _balance(pool: Sequence[WorkerLoad]) -> Balance:
    tokens = [load.tokens for load in pool]
    if len({load.there_s for load in pool}) == 1:
        return Balance(len(pool), jain(tokens), imbalance(tokens))
    whole_s, total = math.fsum(load.there_s for load in pool), sum(tokens)
    if not total:
        return Balance(len(pool), None, None)
    rates = [load.tokens / load.there_s for load in pool]
    squares = math.fsum(load.there_s * rate * rate for load, rate in zip(pool, rates, strict=True))
    return Balance(len(pool), total * total / (whole_s * squares), max(rates) * whole_s / total)


def mfu(flop: float, seconds: float, peak_flop_per_s: float) -> float:
    """Model FLOP utilisation: FLOP that the model needed in `seconds`, over what the devices can do in them.

    `peak_flop_per_s` is of all devices used together, dense, at the dtype used. Raises InputError
    as `utilisation` does.
    """
    return utilisation("MFU", flop, seconds, peak_flop_per_s)


def mbu(read_bytes: float, seconds: float, peak_bytes_per_s: float) -> float:
    """Model bandwidth utilisation: bytes that the model had to move in `seconds`, over what the memory can move.

    For a decode step: weights read once and the KV of all its requests. Raises InputError as `utilisation` does.
    """
    return utilisation("MBU", read_bytes, seconds, peak_bytes_per_s)


def utilisation(name: str, amount: float, seconds: float, peak_per_s: float) -> float:
    """amount / (seconds * peak_per_s), between 0 and 1.

    Raises InputError on a duration or peak that is not above 0, a negative amount, and a result
    above 1: a device does not exceed its peak, so one of the three numbers is wrong.
    """
    if not (seconds > 0 and peak_per_s > 0 and amount >= 0):
        raise InputError(
            f"{name} of {amount:g} in {seconds:g} s at a peak of {peak_per_s:g}/s is not defined; "
            "give a duration and a peak above 0 and an amount of 0 or more"
        )
    share = amount / (seconds * peak_per_s)
    if share > 1 + 1e-9:
        raise InputError(
            f"{name} comes out as {share:.3g}, above 1: {amount:g} in {seconds:g} s is more than the peak of "
            f"{peak_per_s:g}/s allows; check the amount, the duration and the number of devices"
        )
    return share
