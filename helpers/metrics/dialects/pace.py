"""The pace of decoding in the words of other tools: one run, several definitions.

Read in their sources: vLLM `bench serve`, AIPerf (2025-10), guidellm (2026-08), MLPerf LoadGen, and the
Mooncake paper (FAST'25). TPOT and pooled ITL as this course means them are in `latency`.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import fmean

from helpers.metrics.latency import tpot_s
from helpers.metrics.timeline import StepLog, Timeline, token_times

PER_REQUEST = "TPOT (vLLM, MLPerf), ITL (AIPerf, guidellm)"
POOLED = "ITL, gaps pooled (vLLM)"
GUIDELLM = "TPOT (guidellm)"
MOONCAKE = "TBT (Mooncake)"
LONGEST_SHARE = 0.1


def guidellm_tpot_s(timeline: Timeline) -> float | None:
    """guidellm's TPOT, (last token - start) / n, which contains TTFT; None unless finished."""
    if timeline.status != "finished" or timeline.finished_s is None or timeline.output_tokens < 1:
        return None
    return (timeline.finished_s - timeline.arrival_s) / timeline.output_tokens


def mooncake_tbt_s(gaps: Sequence[float]) -> float | None:
    """Mooncake's TBT of one request: the mean of the longest tenth of its gaps (at least one); None without gaps."""
    longest = sorted(gaps)[-max(1, int(LONGEST_SHARE * len(gaps))) :]
    return fmean(longest) if longest else None


def paces(timelines: Iterable[Timeline], step_logs: Sequence[StepLog]) -> dict[str, list[float]]:
    """The values, in seconds, of each definition over finished requests of two tokens or more.

    Expands every token: take a sample of a long run. All definitions see the same requests.
    """
    chosen = [t for t in timelines if t.status == "finished" and t.output_tokens > 1]
    gaps = [[b - a for a, b in pairwise(token_times(t, step_logs))] for t in chosen]
    return {
        PER_REQUEST: [tpot_s(t) for t in chosen],
        POOLED: [gap for one in gaps for gap in one],
        GUIDELLM: [guidellm_tpot_s(t) for t in chosen],
        MOONCAKE: [mooncake_tbt_s(one) for one in gaps],
    }
