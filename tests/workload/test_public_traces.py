"""The real traces, where they are at hand: loaders and hygiene give the published statistics."""

import gzip
import hashlib
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random

import pytest

from helpers.workload.fetch import SOURCES
from helpers.workload.hygiene import describe, spread_ticks
from helpers.workload.reuse import describe_reuse
from helpers.workload.traces import load

FILES = {
    "mooncake_conversation": "mooncake_conversation.jsonl.gz",
    "mooncake_synthetic": "mooncake_synthetic.jsonl.gz",
    "azure2023_code": "azure2023_code.csv.gz",
    "azure2023_conv": "azure2023_conv.csv.gz",
}
# Computed from the originals independently of this code; percentiles by nearest rank.
STATISTICS = """
rows               | 12031  | 3993   | 8819  | 19366
span_s             | 3537   | 1022   | 3436  | 3502
rate_per_s         | 3.40   | 3.91   | 2.57  | 5.53
gap_cv             | 3.03   | 1.01   | 13.15 | 1.09
dispersion_60s     | 2.9    | 1.2    | 164   | 16
peak_to_mean_10s   | 1.97   | 1.41   | 12.8  | 1.77
peak_to_mean_60s   | 1.21   | 1.17   | 4.18  | 1.52
prompt p50         | 6909   | 11587  | 1469  | 1020
prompt p90         | 27367  | 38615  | 5194  | 2735
prompt p99         | 85401  | 66458  | 7436  | 4142
prompt max         | 126195 | 191378 | 7437  | 14050
prompt mean        | 12035  | 15325  | 2048  | 1155
output p50         | 350    | 69     | 13    | 129
output p90         | 597    | 389    | 55    | 424
output p99         | 1120   | 769    | 252   | 601
output max         | 2000   | 893    | 1899  | 1000
output mean        | 343    | 149    | 28    | 211
correlation        | 0.07   | -0.37  | 0.00  | -0.11
tick_s             | 3.000  |        |       |
distinct           | 1180   |        |       |
hit_blocks         | 0.366  | 0.640  |       |
hit_tokens         | 0.374  | 0.651  |       |
round robin 4      | 0.192  | 0.365  |       |
round robin 16     | 0.099  | 0.136  |       |
lru 1.5            | 0.065  | 0.191  |       |
lru 5.1            | 0.212  | 0.424  |       |
lru 15.4           | 0.326  | 0.624  |       |
kv Mtokens         | 93.6   | 22.5   |       |
reuse p50          | 114    | 59     |       |
reuse p90          | 519    | 282    |       |
block references   | 288500 |        |       |
unique blocks      | 182790 |        |       |
controllable       | 0.325  |        |       |
reusing            | 0.387  |        |       |
uncached p50       | 2470   |        |       |
uncached p90       | 19012  |        |       |
uncached mean      | 7538   |        |       |
distinct roots     | 1      | 2211   |       |
unchained          | 0      | 0      |       |
"""


def published(column: int) -> dict[str, str]:
    rows = [[cell.strip() for cell in line.split("|")] for line in STATISTICS.strip().splitlines()]
    return {key: cells[column] for key, *cells in rows if cells[column]}


@cache
def workload(folder: Path, name: str):
    return load(folder / FILES[name])[0]


@cache
def measured(folder: Path, name: str) -> dict:
    report = describe(workload(folder, name))
    found = {"rows": report.n, "tick_s": report.ticks.tick_s, "distinct": report.ticks.distinct}
    for key in ("span_s", "rate_per_s", "gap_cv", "dispersion_60s", "peak_to_mean_10s", "peak_to_mean_60s"):
        found[key] = getattr(report, key)
    found["correlation"] = report.correlation
    for label, lengths in (("prompt", report.prompt_tokens), ("output", report.output_tokens)):
        found |= {f"{label} {key}": getattr(lengths, key) for key in ("p50", "p90", "p99", "max", "mean")}
    if report.reuse is not None:
        found |= reused(report.reuse)
    return found


def reused(reuse) -> dict:
    lru = [share for _, share in reuse.lru]
    return {
        "hit_blocks": reuse.hit_blocks,
        "hit_tokens": reuse.hit_tokens,
        "round robin 4": dict(reuse.round_robin)[4],
        "round robin 16": dict(reuse.round_robin)[16],
        "lru 1.5": lru[0],
        "lru 5.1": lru[1],
        "lru 15.4": lru[2],
        "kv Mtokens": reuse.distinct_kv_tokens / 1e6,
        "reuse p50": reuse.reuse_interval_p50_s,
        "reuse p90": reuse.reuse_interval_p90_s,
        "block references": reuse.block_references,
        "unique blocks": reuse.unique_blocks,
        "controllable": reuse.controllable_blocks,
        "reusing": reuse.reusing_share,
        "uncached p50": reuse.uncached_tokens_p50,
        "uncached p90": reuse.uncached_tokens_p90,
        "uncached mean": reuse.uncached_tokens_mean,
        "distinct roots": reuse.distinct_roots,
        "unchained": reuse.unchained_blocks,
    }


def as_printed(value: float, text: str) -> bool:
    """Whether a value rounds to what was printed: half a unit of the last printed digit."""
    return abs(value - float(text)) <= 0.5001 * 10 ** -len(text.partition(".")[2])


@pytest.mark.parametrize(("column", "name"), list(enumerate(FILES)))
def test_the_published_statistics_come_out(traces_dir, column, name):
    found, expected = measured(traces_dir, name), published(column)
    assert len(expected) >= 18
    assert not {key: (found[key], text) for key, text in expected.items() if not as_printed(found[key], text)}


def test_the_comparison_can_fail(traces_dir):
    found = measured(traces_dir, "mooncake_conversation")
    assert not [key for key, text in published(0).items() if as_printed(found[key] * 1.05 + 0.6, text)]
    assert not as_printed(0.3654, "0.366") and as_printed(0.3656, "0.366")


@pytest.mark.parametrize("name", ["mooncake_synthetic", "azure2023_code", "azure2023_conv"])
def test_no_tick_is_seen_where_there_is_none(traces_dir, name):
    assert measured(traces_dir, name)["tick_s"] is None


def test_spreading_the_ticks_leaves_poisson_like_gaps(traces_dir):
    recorded = workload(traces_dir, "mooncake_conversation")
    for seed in (0, 1):
        spread = spread_ticks(recorded, seed)
        assert describe(spread).gap_cv == pytest.approx(1.01, abs=0.03)
        assert "ticks of 3 s spread uniformly" in spread.repairs[-1]
    assert measured(traces_dir, "mooncake_conversation")["gap_cv"] > 3  # without the repair


def test_shuffled_blocks_break_the_bound(traces_dir):
    recorded = workload(traces_dir, "mooncake_conversation")
    rng = Random(0)
    shuffled = tuple(
        replace(r, prefix_blocks=tuple(rng.sample(r.prefix_blocks, len(r.prefix_blocks)))) for r in recorded
    )
    broken = describe_reuse(replace(recorded, requests=shuffled), workers=(4,), pool_tokens=())
    assert broken.hit_blocks < 0.25
    assert broken.unchained_blocks > 10_000


def test_files_are_the_originals_that_fetch_would_check(traces_dir):
    for name, file in FILES.items():
        content = gzip.decompress((traces_dir / file).read_bytes())
        assert hashlib.sha256(content).hexdigest() == SOURCES[name].sha256
        assert len(workload(traces_dir, name)) == SOURCES[name].rows
