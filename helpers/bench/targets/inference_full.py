"""One engine from a synchronous loop with static batches to the one that serves, a change at a time.

End to end under an open-loop load: on a CPU with `tiny` in float32, on a GPU with `llama-8b` in bfloat16. Each rung
keeps what those before it brought. Captured steps (CUDA graphs) are a rung on a GPU alone: a CPU has none to capture.
"""

from collections.abc import Mapping
from dataclasses import replace

from helpers.bench.disagg.arms import answers
from helpers.bench.disagg.report import steps_of
from helpers.bench.inference.rungs import AHEAD, CONTINUOUS, GRAPHS, PREFIX, STATIC, EngineExperiment, rungs_on, served
from helpers.bench.inference.setting import SETTINGS, Setting
from helpers.bench.inference.where import figures
from helpers.bench.targets.latencies import LATENCIES
from helpers.bench.targets.target import UNDRAWN, Sample, Scenario, Statistic, Target
from helpers.bench.verification import breaches, unnoticed
from helpers.workload.request import Workload

ONE = "one engine"
SLOWER = 4.0  # the planted engine


def timed(experiment: EngineExperiment, workload: Workload, seed: int, iterations: int) -> Sample:
    """A cell: the last of `iterations` runs."""
    walls, found = [], None
    for _ in range(iterations):
        found = served(replace(experiment, seed=seed), workload)
        walls.append(found.run.wall_s)
    wrong = breaches(found.run.log, workload, workload.sha256)
    return Sample(figures(found), workload.sha256, {}, wrong, tuple(walls), {"answers": answers(found.tokens)})


def not_noticed(experiment: EngineExperiment, workload: Workload) -> list[str]:
    """Damage to the log of a run that the verification does not notice."""
    return unnoticed(served(experiment, workload).run.log, workload, workload.sha256)


E2E = Statistic("e2e_mean_s", "s", "mean of arrival to last token", "lower")
QUESTION = "What does each part of an engine bring to requests that come when they like?"


def target_on(setting: Setting, hypothesis: str, predicted: Mapping[str, str], digest: str, **more: object) -> Target:
    """The target on a kind of device."""
    base = EngineExperiment(UNDRAWN, setting.fleet, rung=STATIC, model=setting.model, device=setting.device)
    load, rungs = setting.load, rungs_on(setting.device)
    left_out = "" if GRAPHS in rungs else "; CUDA graphs are left out: this is a CPU"
    scenario = Scenario(
        ONE,
        f"prompts {load.prompt_tokens} tokens, of which {load.shared_tokens} are shared, answers {load.output_tokens}, "
        f"{load.rate_per_s:g} requests/s{left_out}",
        load.draw,
        base,
        {rung: replace(base, rung=rung) for rung in rungs[1:]},
        STATIC,
        predicted=predicted,
        timed=timed,
        planted=replace(base, slower=SLOWER),
    )
    return Target(
        name="inference_full", group="disagg", question=QUESTION, hypothesis=hypothesis, statistics=(E2E, *LATENCIES),
        scenarios=(scenario,), control=ONE, measure=lambda run, experiment, scenario: {}, requests=load.requests,
        margin=0.05, extra=steps_of, frozen={ONE: digest}, live=True, unnoticed=not_noticed,
        planted_about=f"an engine whose steps take {SLOWER:g} times as long", **more,
    )  # fmt: skip


ON_A_GPU = target_on(
    SETTINGS["cuda"],
    # From the cost of a step and the host's times that an H100 was recorded with (`helpers.bench.inference.foreseen`).
    "Continuous batching brings most: static batches cannot keep up with this load, and E2E halves (-51 %), though "
    "TPOT rises, as prompts are computed beside decodes. The prefix cache saves half of the prompt tokens (E2E -30 %). "
    "Captured steps take the host's launches away (-10 %), and scheduling ahead what is left between steps (-4 %).",
    {CONTINUOUS: "lower", PREFIX: "lower", GRAPHS: "lower", AHEAD: "lower"},
    "434d20f7aad25d11",
    least_equal=0.0,  # told, and not asked for: bfloat16 rounds otherwise in every other batch
)
TARGET = target_on(
    SETTINGS["cpu"],
    "Continuous batching brings most, as nobody waits for a batch to end; then the prefix cache, as prompts share "
    "128 tokens; scheduling ahead brings nothing on a CPU, where a launch is the work itself.",
    {CONTINUOUS: "lower", PREFIX: "lower", AHEAD: "lower"},
    "d953fa4f038ebde0",
    on_a_gpu=ON_A_GPU,
)
