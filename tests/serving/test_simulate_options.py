"""`hybrid-serving simulate`: blocks of another size, options without effect, and what a table tells of its figures."""

from pathlib import Path

import pytest

from helpers.serving.simulate import rows
from helpers.workload.generate import generate
from tests.serving.command import last_line, run_main


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_trace_with_blocks_of_another_size_is_simulated(folder, capsys):
    """Twelve prompts of 100 tokens begin with 48 of the same: three blocks of 16, and no block of 512."""
    rows = [f"{i * 10},100,2,1 2 3 {' '.join(str(10 + 4 * i + j) for j in range(4))}" for i in range(12)]
    Path("own.csv").write_text("\n".join(["arrival_s,prompt_tokens,output_tokens,prefix_blocks", *rows]) + "\n")
    asked = ("--trace", "own.csv", "--workers", "1")
    _, out, _ = run_main(capsys, "simulate", *asked, "--block-tokens", "16")
    assert last_line(out)["hit_rate"] == pytest.approx(11 * 48 / 1200)  # all but the first find 48 of 100 tokens
    code, _, err = run_main(capsys, "simulate", *asked)  # control: as blocks of 512 the same ids are refused
    assert code == 2 and "not one block id per 512 prompt tokens ('7 ids for 100 tokens')" in err


def test_a_generator_takes_knobs_and_is_redrawn_for_each_seed(folder, capsys):
    asked = ("simulate", "--trace", "generated:poisson", "--max-requests", 40)
    own = ("--knob", "prompt_tokens=700", "--knob", "output_tokens=lognormal:20:0.5")
    _, out, _ = run_main(capsys, *asked, *own, "--seeds", 2)
    line = last_line(out)
    made = generate("poisson", requests=40, prompt_tokens="700", output_tokens="lognormal:20:0.5")
    assert line["workload_sha256"] == made.sha256 and {r.prompt_tokens for r in made} == {700}
    assert line["mean"]["ttft_s.p50"]["n"] == 2
    other = last_line(run_main(capsys, *asked, "--seeds", 2)[1])
    assert other["workload_sha256"] != made.sha256  # control: the generator's own lengths


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--knob", "prompt_tokens=700"), "conversation is a recorded trace: prompt_tokens belong to generators"),
        (("--trace", "generated:poisson", "--knob", "size=3"), "generator poisson has no knob 'size'; it has prompt_"),
        (("--trace", "generated:poisson", "--knob", "prompt_tokens"), "write each knob once, as NAME=VALUE"),
    ],
)
def test_knobs_that_cannot_be_are_one_sentence(arguments, sentence, folder, capsys):
    code, out, err = run_main(capsys, "simulate", "--max-requests", 20, *arguments)
    assert (code, out) == (2, "") and sentence in err


@pytest.mark.parametrize("routers", [["round_robin"], ["round_robin", "random"]])
def test_a_table_says_which_slo_it_counts(routers, folder, capsys):
    """A bound that was meant in another unit is seen beside the figure it makes."""
    chosen = [word for name in routers for word in ("--router", name)]
    for given, shown in (("2", "TTFT <= 2 s, TPOT <= 0.05 s"), ("2000", "TTFT <= 2000 s, TPOT <= 0.05 s")):
        _, out, _ = run_main(capsys, "simulate", "--max-requests", 20, "--slo-ttft", given, *chosen)
        heading = "# Routers on conversation" if len(routers) > 1 else "attainment of "
        (told,) = [row for row in out.splitlines() if row.startswith(heading)]
        assert shown in told


@pytest.mark.parametrize(
    "used",
    [
        ("--target", 0.5, "--knee"),
        ("--knee-requests", 20, "--regret", 2),
        ("--startup", 9, "--scaler", "thresholds", "--split", "4P4D"),
        ("--no-pack-steps", "--pack", "run.json.gz"),
    ],
)
def test_an_option_that_has_an_effect_is_taken(used, folder, capsys):
    """The controls of the options that are refused alone; see `tests/test_cli.py`."""
    assert run_main(capsys, "simulate", "--max-requests", 40, *used)[0] == 0


@pytest.mark.parametrize(
    ("times", "sentence"),
    [
        ([3 * (n // 10) for n in range(60)], "own: timestamps fall on 3 s ticks: 6 distinct values for 60 requests"),
        ([3600.5 + n for n in range(60)], "own: nothing arrives before 3600.5 s"),
        ([125 * n for n in range(60)], "own: requests come 123 s apart"),  # 59 gaps of 125 s over 60 requests
        ([0.7 * n for n in range(60)], None),  # the control: nothing to say
    ],
)
@pytest.mark.parametrize("routers", [(), ("--router", "random", "--router", "round_robin")])
def test_times_that_would_mislead_are_told_and_served(times, sentence, routers, folder, capsys):
    rows = [f"{time},100,2" for time in times]
    Path("own.csv").write_text("\n".join(["arrival_s,prompt_tokens,output_tokens", *rows]) + "\n")
    code, out, err = run_main(capsys, "simulate", "--trace", "own.csv", *routers)
    assert code == 0 and last_line(out)["requests"] == 60
    assert err == "" if sentence is None else err.startswith(f"hybrid-serving: {sentence}") and err.count("\n") == 1


def test_no_steps_without_a_pack_is_refused(folder, capsys):
    code, _, err = run_main(capsys, "simulate", "--max-requests", 40, "--no-pack-steps")
    assert code == 2 and "--pack-steps has no effect here; give --pack too" in err


def test_what_a_prediction_assumes_is_told(folder, capsys):
    _, out, _ = run_main(capsys, "simulate", "--max-requests", 20)
    assumed = last_line(out)["fleet"]["efficiency"]
    (told,) = [row for row in out.splitlines() if row.startswith("assumed\t")]
    assert f"memory {assumed['memory']:g}" in told and "1 ms of host a step, 10 us an all-reduce" in told
    fitted = dict(last_line(out), fleet=dict(last_line(out)["fleet"], efficiency=None))
    assert "assumed" in dict(rows(last_line(out))) and "assumed" not in dict(rows(fitted))  # control: nothing predicted


def test_a_worker_of_more_gpus_than_one_fabric_joins_is_told(folder, capsys):
    """Eight H100 share one NVLink: a prediction for 16 takes it for granted among all of them, one for 8 does not."""
    sixteen, eight = (
        dict(rows(last_line(run_main(capsys, "simulate", "--max-requests", 20, "--tp", n)[1])))["assumed"]
        for n in (16, 8)
    )
    assert "the 16 GPUs of a worker as if on one NVLink 4, which joins 8" in sixteen
    assert "as if" not in eight
