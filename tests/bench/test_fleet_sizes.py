"""`bench fleet-sizes`: paired by seed, stated for one worker, and told apart from sizes that were mixed up."""

import json

import pytest
import typer
from typer.testing import CliRunner

from helpers.bench.commands import register
from helpers.bench.fleet_sizes import REFERENCE, Setup, fleet_sizes, rows_of
from helpers.errors import InputError

SHORT = Setup(duration_s=60.0, warmup_s=20.0, requests=48)


def raw(workers, router, goodputs, knees):
    of = {"attainment": 0.9, "hit_rate": 0.1, "imbalance": 1.0}
    pairs = enumerate(zip(goodputs, knees, strict=True))
    return [
        {"workers": workers, "router": router, "seed": seed, "goodput_per_s": g, "knee_per_s": k, **of}
        for seed, (g, k) in pairs
    ]


def by_name(rows):
    return {(row["workers"], row["router"]): row for row in rows}


def test_rates_are_those_of_one_worker_and_differences_are_paired():
    """4 workers: 2 and 4 requests/s are 0.5 and 1 each; 3 and 5 are 0.25 more in each seed, so the interval is 0."""
    found = by_name(rows_of(raw(4, REFERENCE, (2.0, 4.0), (2.0, 4.0)) + raw(4, "other", (3.0, 5.0), (2.8, 4.8))))
    assert found[4, REFERENCE]["goodput_per_s"]["mean"] == pytest.approx(0.75)
    difference = found[4, "other"]["goodput_per_s_difference"]
    assert [difference[key] for key in ("mean", "low", "high")] == pytest.approx([0.25, 0.25, 0.25])
    assert found[4, "other"]["knee_per_s_difference"]["mean"] == pytest.approx(0.2)


def test_the_pairing_is_by_seed():
    """The control: with the seeds of one router swapped, the same means have an interval."""
    swapped = raw(4, REFERENCE, (4.0, 2.0), (4.0, 2.0)) + raw(4, "other", (3.0, 5.0), (2.8, 4.8))
    difference = by_name(rows_of(swapped))[4, "other"]["goodput_per_s_difference"]
    assert difference["mean"] == pytest.approx(0.25) and difference["high"] - difference["low"] > 1


def test_a_size_is_compared_with_round_robin_on_that_size():
    rows = raw(4, REFERENCE, (2.0, 4.0), (2.0, 4.0)) + raw(8, REFERENCE, (8.0, 8.0), (8.0, 8.0))
    rows += raw(8, "other", (12.0, 12.0), (12.0, 12.0))
    assert by_name(rows_of(rows))[8, "other"]["goodput_per_s_difference"]["mean"] == pytest.approx(0.5)


def test_a_knee_that_one_seed_does_not_have_is_no_number():
    found = by_name(rows_of(raw(4, REFERENCE, (2.0, 4.0), (2.0, 4.0)) + raw(4, "other", (3.0, 5.0), (2.8, None))))
    assert found[4, "other"]["knee_per_s"] is None and found[4, "other"]["knee_per_s_difference"] is None
    assert found[4, "other"]["goodput_per_s"] is not None


def test_a_larger_fleet_gets_more_users_and_every_router_the_same_ones():
    record = fleet_sizes((1, 3), (REFERENCE, "least_tokens"), (0, 1), SHORT)
    draws = {(one["workers"], one["seed"]): one["workload_sha256"] for one in record["raw"]}
    assert len(set(draws.values())) == 4 and len(record["raw"]) == 8
    few, many = (sum(one["requests"] for one in record["raw"] if one["workers"] == n) for n in (1, 3))
    assert 2 < many / few < 4.5
    assert record["setup"]["rate_per_s"] == 0.8 and "workers" not in record["fleet"]


def test_a_small_fleet_is_watched_longer():
    """48 requests are 60 s of one worker; 96 are asked for, so that one worker is watched longer and three are not."""
    longer = Setup(duration_s=60.0, warmup_s=20.0, requests=96)
    assert [len(SHORT.draw(1, 0)), len(longer.draw(1, 0)), len(longer.draw(3, 0))] == [48, 96, 144]


def test_without_the_reference_nothing_can_be_compared():
    with pytest.raises(InputError, match="compares with round_robin"):
        fleet_sizes((1,), ("least_tokens",), (0, 1), SHORT)


def test_the_command_writes_the_record(tmp_path):
    app = typer.Typer()
    register(app)
    file = tmp_path / "sizes.json"
    words = [
        "--workers",
        "1",
        "--router",
        REFERENCE,
        "--seeds",
        "2",
        "--duration-s",
        "60",
        "--requests",
        "48",
        "--json",
        str(file),
    ]
    result = CliRunner().invoke(app, ["bench", "fleet-sizes", *words])
    assert result.exit_code == 0
    assert json.loads(file.read_text()).items() <= json.loads(result.output.splitlines()[-1]).items()
    refused = CliRunner().invoke(app, ["bench", "fleet-sizes", "--seeds", "1"])
    assert isinstance(refused.exception, InputError) and "use 2 or more" in str(refused.exception)
