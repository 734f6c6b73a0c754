"""`hybrid-serving simulate --config`: what the file says is what runs, and nothing beside it says the same."""

import json
from pathlib import Path

import pytest

from helpers.cli import main

SHIPPED = Path(__file__).resolve().parent.parent.parent / "data" / "dynamo_config.yaml"
FEW = ("--max-requests", "150")


def spoken(capsys, *arguments):
    """(exit code, lines of stdout, stderr) of `simulate`."""
    with pytest.raises(SystemExit) as left:
        main(["simulate", *map(str, arguments)])
    out, err = capsys.readouterr()
    return left.value.code or 0, out.splitlines(), err


def last_line(capsys, *arguments) -> dict:
    code, lines, err = spoken(capsys, *arguments)
    assert (code, err) == (0, "")
    return json.loads(lines[-1])


@pytest.fixture
def edited(tmp_path):
    """The shipped file with a text replaced by another."""

    def edit(old: str, new: str) -> Path:
        text = SHIPPED.read_text(encoding="utf-8")
        assert old in text
        path = tmp_path / "config.yaml"
        path.write_text(text.replace(old, new), encoding="utf-8")
        return path

    return edit


def test_what_the_file_says_is_what_runs(capsys):
    line = last_line(capsys, "--config", SHIPPED, *FEW)
    fleet = {key: line["fleet"][key] for key in ("model", "split", "workers", "tp")}
    assert fleet == {"model": "llama-3.1-70b", "split": "4P8D", "workers": 12, "tp": 4}
    policy = line["policy"]
    assert (policy["router"], policy["admission"], policy["scaler"]) == (
        "split_policy",
        "early_rejection",
        "thresholds",
    )
    assert policy["router.prefix_cache_weight"] == 10.0 and policy["admission.low_priority_threshold_ms"] == 500.0
    assert policy["scaler.kv_up"] == 0.75


def test_a_changed_file_runs_otherwise(capsys, edited):
    path = edited("enable_early_rejection: true", "enable_early_rejection: false")
    rejecting, accepting = last_line(capsys, "--config", SHIPPED, *FEW), last_line(capsys, "--config", path, *FEW)
    assert rejecting["rejected"] > 0 == accepting["rejected"]


def test_without_reuse_the_workload_says_so(capsys, edited):
    line = last_line(capsys, "--config", edited("reuse_prefix: true", "reuse_prefix: false"), *FEW)
    assert line["hit_rate"] == 0 and "no shared prefixes" in line["repairs"]
    shared = last_line(capsys, "--config", SHIPPED, *FEW)
    assert shared["hit_rate"] > 0 and shared["workload_sha256"] != line["workload_sha256"]


def test_what_the_file_does_not_say_can_be_said_beside_it(capsys):
    line = last_line(capsys, "--config", SHIPPED, *FEW, "--tp", "8", "--slo-ttft", "1", "--seed", "3")
    assert line["fleet"]["tp"] == 8 and line["seeds"] == [3] and line["slos"]["all"]["ttft_s"] == 1.0


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--model", "llama-3.1-8b"), ("--workers", "4"), ("--split", "2P2D"), ("--router", "random")),
        *(("--router-set", "a=1"), ("--admission", "none"), ("--admission-set", "a=1")),
        *(("--scaler", "fixed"), ("--scaler-set", "a=1")),
    ],
)
def test_what_the_file_says_cannot_be_said_twice(option, value, capsys):
    """Also where it is the default, which would not be heard."""
    code, lines, err = spoken(capsys, "--config", SHIPPED, option, value)
    assert (code, lines) == (
        2,
        [],
    ) and err == f"hybrid-serving: --config says what {option} would; leave one of them out\n"


def test_a_wrong_file_is_one_sentence(capsys, edited):
    path = edited("      queue_length: 8", "      queue_lenght: 8")
    code, lines, err = spoken(capsys, "--config", path)
    expected = f"{path}: autoscale.prefill.scale_up.queue_lenght is unknown; did you mean queue_length?"
    assert (code, lines, err) == (2, [], f"hybrid-serving: {expected}\n")
    code, _, err = spoken(capsys, "--config", "nowhere.yaml")
    assert code == 2 and "no such file" in err
