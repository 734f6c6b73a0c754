"""A cost is of one model on one accelerator: another one is refused, and what was not named is taken from the file."""

import json
from dataclasses import replace

import pytest

from helpers.bench.splits import LOOSE, PROMPTS, Arm, Question, splits
from helpers.cost.calibration import COEFFICIENTS, DESIGNED, Calibration, cost_in, read_calibration, shape_record
from helpers.engine.config import PRESETS
from helpers.errors import InputError
from helpers.hardware import gpu_of
from helpers.models import model
from helpers.serving.calibrated import measured, note_for_policies, note_of, same_shape, served
from helpers.serving.fleet import Fleet
from tests.serving.test_simulate_command import run_main, simulated

NUMBERS = {"coefficients": dict.fromkeys(COEFFICIENTS, 0.0) | {"overhead_s": 0.01}}
LLAMA = NUMBERS | {"preset": "llama-8b", "device": "NVIDIA H200", "hardware_key": "h200"}
TINY = NUMBERS | {"model": "tiny", "hardware_key": "cpu_some_2c"}
OWN = TINY | {"model": "own", "shape": shape_record(PRESETS["tiny-moe"].shape)}


@pytest.fixture
def file_of(tmp_path):
    """Writes a record and returns its file."""

    def write(record, name="cost.json"):
        (tmp_path / name).write_text(json.dumps(record))
        return tmp_path / name

    return write


def calibration(record):
    return Calibration(cost_in(record, "cost.json"), DESIGNED, record, "cost.json")


def test_what_was_not_named_is_that_of_the_file(file_of, capsys):
    line = simulated(capsys, "--cost", file_of(LLAMA))
    assert (line["fleet"]["model"], line["fleet"]["hardware"]) == ("llama-3.1-8b", "h200")
    sheet = simulated(capsys, "--hardware", "h200")
    assert line["fleet"]["kv_gib_per_worker"] == sheet["fleet"]["kv_gib_per_worker"]
    assert line["fleet"]["kv_gib_per_worker"] > simulated(capsys)["fleet"]["kv_gib_per_worker"]  # control: an H100's
    assert line["calibration"]["model"] == "llama-8b" and line["calibration"]["memory_and_links"] == "h200"


@pytest.mark.parametrize(
    ("record", "named", "said"),
    [
        (
            LLAMA,
            ("--model", "qwen3-8b"),
            "cost.json: its steps are of llama-8b, and qwen3-8b is simulated; take a file",
        ),
        (TINY, ("--model", "llama-3.1-8b"), "its steps are of tiny, and llama-3.1-8b is simulated"),
        (LLAMA, ("--hardware", "h100"), "its steps are of NVIDIA H200, and h100 is simulated; take a file of h100, or"),
        (LLAMA, ("--tp", "2"), "its steps are of one accelerator a worker, and tp is 2; take tp 1"),
        (LLAMA, ("--config", "data/dynamo_config.yaml"), "its steps are of llama-8b, and llama-3.1-70b is simulated"),
        (TINY, ("--model", "tiny-moe"), "its steps are of tiny, and tiny-moe is simulated"),
        (LLAMA, ("--model", "nothing"), "unknown model 'nothing'"),
        (TINY | {"model": "a-folder"}, (), "it does not say of which shape a-folder is; make it again"),
        (OWN | {"shape": {"layers": 4}}, (), "its shape of a model is none"),
        (OWN | {"shape": 7}, (), "its shape of a model is none"),
    ],
)
def test_the_cost_of_another_is_refused_in_one_sentence(file_of, capsys, record, named, said):
    code, out, err = run_main(capsys, "simulate", "--max-requests", "20", "--cost", file_of(record), *named)
    assert code == 2 and not out and said in err and err.count("\n") == 1


def test_named_as_the_file_has_it_all_is_well(file_of, capsys):
    named = ("--model", "llama-3.1-8b", "--hardware", "H200", "--tp", "1")
    assert simulated(capsys, "--cost", file_of(LLAMA), *named)["calibration"]["file"] == "cost.json"


def test_a_model_that_the_table_does_not_have_is_simulated_with_its_own_shape(file_of, capsys):
    """A token of `tiny` takes 4 layers x 2 x 2 heads x 64 x 2 bytes = 2,048 bytes: 1 GiB holds 1,024 blocks of 512."""
    for record, key in ((TINY, "tiny"), (OWN, "own")):
        found = measured(Fleet(kv_gib=1.0), calibration(record))
        assert (found.model, found.kv_blocks(512)) == (key, 1024)
    assert measured(Fleet("tiny"), calibration(TINY), ("model",)).model == "tiny"
    assert measured(Fleet(kv_gib=1.0), calibration(LLAMA)).kv_blocks(512) == 16  # control: 64 times the bytes
    code, _, err = run_main(capsys, "simulate", "--cost", file_of(TINY))
    assert code == 2 and "exceed the context of 8192 tokens" in err


def test_the_shape_counts_and_not_the_name():
    assert same_shape(PRESETS["llama-8b"].shape, model("llama-3.1-8b"))
    for field in ("hidden", "kv_heads", "ffn"):
        other = replace(model("llama-3.1-8b"), **{field: 2 * getattr(model("llama-3.1-8b"), field)})
        assert not same_shape(PRESETS["llama-8b"].shape, other)
    again = calibration(json.loads(json.dumps(OWN))).shape
    assert same_shape(again, PRESETS["tiny-moe"].shape) and again.max_context == PRESETS["tiny-moe"].shape.max_context


def test_people_are_told_whose_steps_and_whose_memory(file_of, capsys):
    code, out, _ = run_main(capsys, "simulate", "--max-requests", "20", "--cost", file_of(LLAMA))
    assert code == 0 and "steps taken\tdesigned steps of cost.json (llama-8b on NVIDIA H200)\n" in out
    told = {"calibration": read_calibration(file_of(TINY)).origin | {"memory_and_links": "h100"}}
    assert note_of(told).endswith("(tiny on cpu_some_2c); memory and links of the data sheet of h100")
    two = ("--router", "round_robin", "--router", "random")
    code, out, _ = run_main(capsys, "simulate", "--max-requests", "20", "--cost", file_of(NUMBERS), *two)
    assert code == 0 and "cost.json (which does not say of what); memory and links" in out.splitlines()[0]


def test_the_endpoint_refuses_the_cost_of_another_model_and_says_of_another_machine(file_of):
    with pytest.raises(InputError, match=r"its steps are of llama-8b, and tiny is served; calibrate it here"):
        served(Fleet(), file_of(LLAMA), None, "tiny")
    fleet, told = served(Fleet(), file_of(TINY), None, "tiny")
    assert fleet.predictor().kv_bytes_per_token == 2048
    assert note_for_policies(told, "cpu_some_2c") == "policies predict with designed steps of cost.json"
    assert note_for_policies(told, "h100_80gb_hbm3").endswith("measured on cpu_some_2c and not here")
    assert served(Fleet(), None, None, "tiny") == (Fleet(), {})


def test_splits_are_those_of_the_machine_that_the_file_is_of():
    question = Question("q", PROMPTS, (LOOSE,), (Arm(None, 512),), workers=1)
    told = splits(calibration(LLAMA), (0, 1), (question,), 40)
    assert (told["setup"]["model"], told["setup"]["hardware"]) == ("llama-3.1-8b", "h200")
    with pytest.raises(InputError, match=r"its steps are of tiny, and llama-3\.1-8b is simulated"):
        splits(calibration(TINY), (0, 1), (question,), 40)


@pytest.mark.parametrize(("key", "part"), [("h100_80gb_hbm3", "h100"), ("h200", "h200"), ("cpu_amd_epyc_2c", None)])
def test_the_name_of_measurements_leads_back_to_the_table(key, part):
    assert gpu_of(key) == part
