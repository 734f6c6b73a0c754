"""Small targets for the tests of the runner, loaded by its processes from here."""

import os
import time
from dataclasses import replace
from pathlib import Path
from random import SystemRandom

from helpers.bench.targets.measures import GOODPUT, SERVICE, service
from helpers.bench.targets.target import UNDRAWN, Sample, Scenario, Target, routed
from helpers.policies.routing import RoundRobin
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.workload.generate import generate
from helpers.workload.slo import SLO

SHORT = {"prompt_tokens": "lognormal:1500:0.5", "output_tokens": "20"}
ASKED = Experiment(UNDRAWN, Fleet(workers=2), "round_robin", slo=SLO(ttft_s=0.5, tpot_s=0.05))


def draw(seed, requests):
    return generate("poisson", requests=requests, rate_per_s=30.0, seed=seed, exact_rate=True, **SHORT)


def measure(run, experiment, scenario):
    return service(run, experiment)


class FirstWorker(RoundRobin):
    """Sends everything to worker 0: a planted loss."""

    def route(self, request, views, now, rng):
        return self.pairing(views, 0, now)


class Dies(RoundRobin):
    """Ends its process at the request with this id, as a crash would."""

    def route(self, request, views, now, rng):
        if request.id == 5:
            raise RuntimeError("planted: this router gives up")
        return RoundRobin.route(self, request, views, now, rng)


class Vanishes(RoundRobin):
    """Takes its process with it, without a word."""

    def route(self, request, views, now, rng):
        os._exit(9)


SEEN = "PLANTED_SEEN"  # names a file that a hanging router makes, so that a test knows that it is at work


class Hangs(RoundRobin):
    """Never answers."""

    def route(self, request, views, now, rng):
        if SEEN in os.environ:
            Path(os.environ[SEEN]).touch()
        while True:
            time.sleep(0.01)


class Wavers(RoundRobin):
    """Is another one in each run: its dice are nobody's seed."""

    def route(self, request, views, now, rng):
        return self.pairing(views, SystemRandom().randrange(2), now)


def first_worker(workers):
    return FirstWorker()


def dies(workers):
    return Dies()


def vanishes(workers):
    return Vanishes()


def hangs(workers):
    return Hangs()


def wavers(workers):
    return Wavers()


def target(variants, scenarios=("only",), **more):
    """A target with these variants in each scenario."""
    made = tuple(Scenario(name, "short requests", draw, ASKED, variants, "round_robin") for name in scenarios)
    stated = {"question": "Does the harness work?", "hypothesis": "It does.", "measure": measure, "requests": 60}
    return Target(
        **{"name": "planted", "group": "routers", "statistics": (GOODPUT, *SERVICE), "scenarios": made,
           "control": scenarios[0], **stated, **more}
    )  # fmt: skip


def own(function):
    return replace(ASKED, router=function)


SOUND = target({"worse": own(first_worker), **routed(ASKED, ["least_requests", "random"])}, ("one", "two"))
DYING = target({"dies": own(dies), **routed(ASKED, ["random"])})
DYING_LATER = replace(
    DYING,
    scenarios=tuple(
        Scenario(name, "a few requests, or more", draw, ASKED, {"dies": own(dies)}, "round_robin", scale=scale)
        for name, scale in (("short", 5 / 60), ("long", 1.0))
    ),
    control="long",
)
VANISHING = target({"vanishes": own(vanishes), **routed(ASKED, ["random"])})
HANGING = target({"hangs": own(hangs)})
HALF_HANGING = target({"hangs": own(hangs), **routed(ASKED, ["random", "least_requests", "power_of_two"])})
WAVERING = target({"wavers": own(wavers)})


ALONE = "PLANTED_ALONE"  # names a folder
PATIENCE_S = "PLANTED_PATIENCE_S"  # seconds for which a process waits there for another one


def alone(experiment, workload, seed, iterations):
    """Fails when another process is here, or comes while this one waits; all that come after fail too, at once."""
    folder = Path(os.environ[ALONE])
    here, met = folder / f"{os.getpid()}.here", folder / "met"
    here.touch()
    try:
        end = time.monotonic() + float(os.environ[PATIENCE_S])
        while time.monotonic() < end and not met.exists():
            if set(folder.glob("*.here")) - {here}:
                met.touch()
            time.sleep(0.01)
        if met.exists():
            raise FileExistsError(f"{here.name} is not alone")
    finally:
        here.unlink()
    return Sample({"goodput_per_s": 1.0}, workload.sha256, {}, (), (0.2,))


OTHERS = routed(ASKED, ["least_requests", "random"])
ALONE_WITH_THE_CLOCK = replace(
    SOUND,
    scenarios=(
        SOUND.scenarios[0],
        Scenario("timed", "seconds", draw, ASKED, OTHERS, "round_robin", timed=alone),
    ),
)


def forgets(run, experiment, scenario):
    """A measure that leaves the primary statistic out for one seed."""
    found = service(run, experiment)
    return {**found, "goodput_per_s": None if experiment.seed == 1 else found["goodput_per_s"]}


FORGETFUL = target(routed(ASKED, ["random"]), measure=forgets)


def blind(run, experiment, scenario):
    """A statistic that cannot tell a slow worker from a fast one."""
    return {**service(run, experiment), "goodput_per_s": 1.0}


BLIND = target(routed(ASKED, ["random"]), measure=blind)
