"""The traces that ship with the course: they can be made again, and they are like what they imitate."""

import gzip
import hashlib
import re

import pytest

from helpers.paths import DATA
from helpers.workload.commands import length_rows, report_rows
from helpers.workload.generate import SHIPPED, generate, open_workload
from helpers.workload.generators import fits
from helpers.workload.hygiene import describe, find_ticks
from helpers.workload.traces import save

FOLDER = DATA / "traces"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(
    r"^python -m helpers trace generate (\w+) --requests (\d+) --seed (\d+) --format (\w+) --out data/traces/(\S+)$",
    README,
    re.MULTILINE,
)
# Published statistics of the trace imitated, and the relative tolerance the fit is held to.
FIT = {
    "conversation": {
        "rate_per_s": (3.40, 0.05),
        "gap_cv": (1.01, 0.04),  # of the real trace, its ticks spread
        "dispersion_60s": (2.9, 0.25),
        "prompt p50": (6_909, 0.08),
        "prompt p90": (27_367, 0.05),
        "prompt mean": (12_035, 0.05),
        "output p50": (350, 0.03),
        "output p99": (1_120, 0.05),
        "root share": (1.0, 0.0),
        "hit blocks": (0.366, 0.03),
        "hit tokens": (0.374, 0.03),
        "controllable": (0.325, 0.03),
        "round robin 4": (0.192, 0.08),
        "round robin 16": (0.099, 0.1),
        "reuse p50": (114, 0.08),
        "reuse p90": (519, 0.08),
    },
    "code": {
        "rate_per_s": (2.57, 0.05),
        "gap_cv": (13.15, 0.1),
        "dispersion_60s": (164, 0.15),
        "peak 10 s": (12.8, 0.1),
        "peak 60 s": (4.18, 0.2),
        "prompt p50": (1_469, 0.05),
        "prompt p90": (5_194, 0.05),
        "prompt mean": (2_048, 0.05),
        "output p50": (13, 0.0),
        "output mean": (28, 0.05),
    },
    "chat": {
        "rate_per_s": (5.53, 0.05),
        "gap_cv": (1.09, 0.03),
        "dispersion_60s": (16, 0.15),
        "peak 10 s": (1.77, 0.05),
        "peak 60 s": (1.52, 0.06),
        "prompt p50": (1_020, 0.02),
        "prompt p90": (2_735, 0.03),
        "prompt mean": (1_155, 0.03),
        "output p50": (129, 0.05),
        "output mean": (211, 0.05),
        "correlation": (-0.11, 0.2),
    },
}


@pytest.fixture(scope="module")
def reports():
    return {name: describe(open_workload(name)[0]) for name in SHIPPED}


def content(path):
    return hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()


def measured(report):
    found = {
        "rate_per_s": report.rate_per_s,
        "gap_cv": report.gap_cv,
        "dispersion_60s": report.dispersion_60s,
        "peak 10 s": report.peak_to_mean_10s,
        "peak 60 s": report.peak_to_mean_60s,
        "correlation": report.correlation,
    }
    for label, lengths in (("prompt", report.prompt_tokens), ("output", report.output_tokens)):
        found |= {f"{label} {key}": getattr(lengths, key) for key in ("p50", "p90", "p99", "mean")}
    if report.reuse is not None:
        reuse = report.reuse
        found |= {"root share": reuse.root_share, "hit blocks": reuse.hit_blocks, "hit tokens": reuse.hit_tokens}
        found |= {f"round robin {n}": share for n, share in reuse.round_robin}
        found |= {"controllable": reuse.controllable_blocks}
        found |= {"reuse p50": reuse.reuse_interval_p50_s, "reuse p90": reuse.reuse_interval_p90_s}
    return found


def misfits(found, expected):
    return {k: (found[k], v) for k, (v, rel) in expected.items() if found[k] != pytest.approx(v, rel=max(rel, 1e-9))}


def test_every_shipped_trace_has_its_command():
    assert {name: file for name, _, _, _, file in COMMANDS} == SHIPPED


@pytest.mark.parametrize(("name", "requests", "seed", "format", "file"), COMMANDS)
def test_the_command_makes_the_shipped_content_again(tmp_path, name, requests, seed, format, file):
    made = generate(name, requests=int(requests), seed=int(seed))
    assert content(save(made, tmp_path / "again.gz", format)) == content(FOLDER / file)
    other = generate(name, requests=200, seed=int(seed) + 1)
    whole = gzip.decompress((FOLDER / file).read_bytes())
    assert not whole.startswith(gzip.decompress(save(other, tmp_path / "other.gz", format).read_bytes()))


def test_the_files_are_small_and_carry_no_time():
    sizes = {name: (FOLDER / file).stat().st_size for name, file in SHIPPED.items()}
    assert sizes["conversation"] < 900_000
    assert sum(sizes.values()) < 1_500_000
    assert all((FOLDER / file).read_bytes()[4:8] == bytes(4) for file in SHIPPED.values())


@pytest.mark.parametrize("name", SHIPPED)
def test_the_statistics_fit_the_trace_imitated(reports, name):
    assert misfits(measured(reports[name]), FIT[name]) == {}


def test_the_fit_can_fail(reports):
    assert "dispersion_60s" in misfits(measured(reports["chat"]), FIT["code"])
    poisson = measured(describe(generate("poisson", requests=9000, rate_per_s=2.57)))
    assert {"gap_cv", "dispersion_60s", "peak 10 s", "prompt p50"} <= misfits(poisson, FIT["code"]).keys()


def test_the_generated_hour_has_no_ticks():
    workload, report = open_workload("conversation")
    assert find_ticks([r.arrival_s for r in workload]).tick_s is None
    assert report.out_of_order == 0 and report.skipped == ()


def test_the_table_of_the_readme_is_what_describe_prints(reports):
    printed = {}
    for name, report in reports.items():
        rows = dict(report_rows(report))
        for label, p50, p90, p99, top, mean in length_rows(report):
            rows[f"{label} tokens p50 / p90 / p99 / max"] = f"{p50} / {p90} / {p99} / {top}"
            rows[f"{label} tokens, mean"] = mean
        printed[name] = rows
    tables = [
        [cell.strip() for cell in line.strip("| ").split(" | ")] for line in README.splitlines() if line[:2] == "| "
    ]
    compared = 0
    for label, *cells in tables:
        if label in printed["conversation"] and len(cells) in (2, 6):
            for name, cell in zip(reports, cells[1::2], strict=False):
                assert cell == printed[name][label], (name, label)
                compared += 1
    assert compared == 13 * 3 + 22


def test_fits_name_their_sources():
    for name in SHIPPED:
        assert re.search(r"at [0-9a-f]{8} \((Apache-2.0|CC-BY-4.0)\)", fits(name)["source"])
