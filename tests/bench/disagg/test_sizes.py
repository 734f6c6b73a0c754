"""On how many workers a live target is run, what may be timed there, and what cannot be asked for."""

import pytest

from helpers import cli
from helpers.bench import order
from helpers.bench.order import BASELINE, IDENTICAL, SLOW, Cell
from helpers.bench.report import NOT_JUDGED, record_of
from helpers.bench.runner import Plan, Results
from helpers.bench.targets import commands, sizes
from helpers.bench.targets.disagg import LADDER, RUNGS, TARGETS, TOGETHER
from helpers.bench.targets.registry import load, places
from helpers.bench.targets.sizes import refuse_together, sized
from helpers.bench.targets.target import Sample, changes
from helpers.errors import InputError


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(sizes, "cores", lambda: 2)


def test_what_is_declared_stays_where_nothing_is_asked():
    target = sized(LADDER)
    assert target.scenarios == LADDER.scenarios and target.hypothesis == LADDER.hypothesis
    assert target.timing and target.where.startswith("2 workers (1P1D")
    simulated = load(places(["routing_static"])[0])
    assert sized(simulated) is simulated


@pytest.mark.parametrize(
    ("nproc", "ranks", "split"), [(2, None, "1P1D"), (4, None, "2P2D"), (4, 1, "1P3D"), (3, 2, "2P1D")]
)
def test_a_fleet_is_split_as_asked_and_its_rival_has_as_many_workers(nproc, ranks, split):
    (scenario,) = sized(LADDER, nproc, ranks).scenarios
    assert {one.fleet.split for one in (scenario.baseline, scenario.planted)} == {split}
    rival = scenario.variants[TOGETHER].fleet
    assert (rival.workers, rival.split) == (nproc, None)
    found = [changes(scenario.baseline, one) for one in scenario.variants.values()]
    assert found == [*[["mover"]] * (len(RUNGS) - 1), ["fleet.split"]]


def test_more_workers_than_cores_are_not_timed(monkeypatch):
    """4 workers on 2 cores; control: the same 4 on 4."""
    target = sized(LADDER, 4)
    assert not target.timing and "without timing" in target.where
    assert [one.unit for one in target.statistics] == ["MB"]
    labels = " ".join(task.label for task in order.ordered(target, (0, 1), 0))
    assert IDENTICAL not in labels and SLOW not in labels
    monkeypatch.setattr(sizes, "cores", lambda: 4)
    timed = sized(LADDER, 4)
    assert timed.timing and timed.statistics == LADDER.statistics
    assert SLOW in " ".join(task.label for task in order.ordered(timed, (0, 1), 0))
    assert timed.scenarios[0].predicted == {}  # what was written down was about two workers
    monkeypatch.setattr(sizes, "cores", lambda: 1)
    assert not sized(LADDER).timing


def test_seconds_of_a_run_that_is_not_timed_are_kept_nowhere(monkeypatch):
    values = {"second_token_s": 1.0, "moved_mb": 2.0, "tokens_per_s": 3.0, "exposed_mean_s": None}
    whole = lambda *asked: Sample(values, "w", {}, (), (0.1,), {"answers": ["a"]})  # noqa: E731
    (scenario,) = LADDER.scenarios
    planted = sizes.replace(LADDER, scenarios=(sizes.replace(scenario, timed=whole),))
    kept = sized(planted, 4).scenarios[0].timed(None, None, 0, 1)
    assert kept.values == {"moved_mb": 2.0} and kept.series == {"answers": ["a"]}
    assert sized(planted, 2).scenarios[0].timed(None, None, 0, 1).values == values


def results(target, second=1.0):
    """Two seeds of every arm with the same answers; the arms differ in what they moved."""
    (scenario,) = target.scenarios
    plan = Plan((0, 1))
    samples = {
        Cell(arm, scenario.name, seed): Sample(
            {target.primary.name: second + i}, "w", {}, (), (0.1,), {"answers": ["a", "b"]}
        )
        for i, arm in enumerate((BASELINE, *scenario.variants, IDENTICAL, SLOW))
        for seed in plan.seeds
    }
    return Results(
        target,
        plan,
        order.ordered(target, plan.seeds, 0),
        "c",
        {scenario.name: {0: "w", 1: "w"}},
        samples,
        unnoticed=[],
    )


def test_no_effect_is_judged_where_nothing_is_timed():
    """Arms that move ever more would be told apart; control: on two cores they are."""
    record = record_of(results(sized(LADDER, 4)))
    arms = record["scenarios"][0]["arms"][1:]
    assert {arm["verdict"] for arm in arms} == {NOT_JUDGED}
    assert not any("difference" in arm for arm in arms) and "steps" not in record
    assert record["kind"] == "served without timing" and not record["timing"]
    assert [one["name"] for one in record["controls"]] == ["damaged KV is noticed"]
    timed = record_of(results(sized(LADDER, 2)))
    assert {arm["verdict"] for arm in timed["scenarios"][0]["arms"][1:]} == {"higher"}
    assert len(timed["controls"]) == 3 and timed["steps"]


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_on_one_device_all_arms_are_there_and_other_things_are_expected(target):
    shared = sized(target, 1)
    (scenario,) = shared.scenarios
    assert all(one.one_device for one in (scenario.baseline, scenario.planted, *scenario.variants.values()))
    assert not any(one.one_device for one in target.scenarios[0].variants.values())
    assert "two roles sharing one device" in shared.where and shared.timing
    assert shared.hypothesis != target.hypothesis
    assert set(scenario.predicted) <= set(scenario.variants) and scenario.predicted
    assert changes(scenario.baseline, scenario.variants.get(TOGETHER, scenario.baseline)) in ([], ["fleet.split"])


def test_one_engine_stays_one():
    one = load(places(["inference_full"])[0])
    for nproc in (None, 1, 2, 4):
        target = sized(one, nproc)
        assert target.scenarios == one.scenarios and target.timing and target.where.startswith("one engine")


@pytest.mark.parametrize(
    ("nproc", "ranks", "said"),
    [
        (0, None, "--nproc 0 serves nothing"),
        (-1, None, "--nproc -1 serves nothing"),
        (9, None, "more than 2 cores can show; give 8 or fewer"),
        (1, 1, "leave out --prefill-ranks"),
        (2, 2, "leaves none to decode; give 1 to 1"),
        (4, 5, "leaves none to decode; give 1 to 3"),
        (3, 0, "leaves none to prefill; give 1 to 2"),
        (None, 2, "leaves none to decode"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(nproc, ranks, said):
    with pytest.raises(InputError) as refused:
        sized(LADDER, nproc, ranks)
    sentence = str(refused.value)
    assert said in sentence and "\n" not in sentence and ". " not in sentence


def test_a_gpu_has_its_own_form_of_a_target_or_none():
    """The load, the model and the rung of captured steps are a GPU's; control: no word of a device is the CPU."""
    one = load(places(["inference_full"])[0])
    there = sized(one, device="cuda")
    scenario = there.scenarios[0]
    assert there.where == "one engine, on one GPU" and "CUDA graphs" in scenario.variants
    assert {(arm.model, arm.device) for arm in (scenario.baseline, scenario.planted)} == {("llama-8b", "cuda")}
    assert all(changes(scenario.baseline, arm) == ["rung"] for arm in scenario.variants.values())
    assert scenario.workload(0, there.requests).sha256.startswith(there.frozen[scenario.name])
    assert "CUDA graphs" not in sized(one).scenarios[0].variants
    for target, device, said in ((LADDER, "cuda", "not measured on a GPU"), (one, "tpu", "'tpu' is none; give cpu or")):
        with pytest.raises(InputError, match=said):
            sized(target, device=device)


def test_a_simulated_target_has_no_workers():
    with pytest.raises(InputError, match="is simulated"):
        sized(load(places(["routing_static"])[0]), 2, 1)
    nothing_said = sizes.replace(LADDER, on_one_device=None)
    with pytest.raises(InputError, match="says nothing of one device"):
        sized(nothing_said, 1)


def test_a_gpu_that_is_not_there_is_refused_before_anything_starts(monkeypatch, capsys):
    monkeypatch.setattr(commands, "run_targets", lambda *_: pytest.fail("it began"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit) as left:
        cli.main(["bench", "run", "--targets", "inference_full", "--device", "cuda"])
    out = capsys.readouterr()
    assert left.value.code == 2 and "there is no GPU that torch can use" in out.err and "disagg:" not in out.out


def test_the_command_refuses_before_it_declares_or_starts_anything(monkeypatch, capsys):
    monkeypatch.setattr(commands, "run_targets", lambda *_: pytest.fail("it began"))
    with pytest.raises(SystemExit) as left:
        cli.main(["bench", "run", "--targets", "disagg", "--nproc", "2", "--prefill-ranks", "2"])
    out = capsys.readouterr()
    assert left.value.code == 2 and "leaves none to decode" in out.err and "disagg:" not in out.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["inference_full", "prefill_decode_disagg", "--device", "cuda"], "name disagg:inference_full alone, or use"),
        (
            ["routers", "--device", "cuda"],
            "dynamic_routing, routers:early_rejection, routers:routing_static; leave out",
        ),
        (
            ["inference_full", "--nproc", "2"],
            "--nproc 2 changes nothing: disagg:inference_full is measured on one engine",
        ),
        (["inference_full", "--prefill-ranks", "1"], "--prefill-ranks 1 changes nothing"),
        (["disagg", "--seeds", "-3"], "-3 seeds give no interval"),
    ],
)
def test_what_a_target_cannot_take_is_refused_before_any_of_them_runs(words, said, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["bench", "run", "--targets", *words])
    out, err = capsys.readouterr()
    assert (left.value.code, out, err.count("\n")) == (2, "", 1) and said in err


def test_a_group_takes_what_one_of_it_can_take():
    group = [load(place) for place in places(["disagg"])]
    refuse_together(group, 2, 1, "cpu")
    refuse_together([load(place) for place in places(["inference_full"])], 1, None, "cuda")
