"""A held-out slice of the part `serve`, made again for the simulator: the same requests, a worker of equal limits."""

from helpers.bench.record.calibrating import LIMITS
from helpers.bench.record.serving import HELD_OUT_SEED, TRAFFIC, fleet_of, parameters_of, workload_of
from helpers.errors import InputError
from helpers.scheduling.limits import Limits
from helpers.serving.experiment import Experiment
from helpers.serving.run import Run

MOST_LEFT_OUT = 64  # requests that were too long for the engine: the record does not say how many


def held_out(record: dict, section: str, run: Run) -> Experiment:
    """What was asked of the engine in a section of a record, given the pack of that section.

    `replace(asked, fleet=replace(asked.fleet, cost=cost)).run()` is then what the record calls predicted with that
    cost. Raises `InputError` when no draw has the digest of the requests that were served.
    """
    told, kind = record["parts"][section], "cpu" if record["hardware_key"].startswith("cpu_") else "cuda"
    fleet, traffic, longest = run.provenance.fleet, TRAFFIC[kind], LIMITS[kind][-1]
    blocks = run.workers[0]
    limits = Limits(blocks.kv_blocks, blocks.block_tokens, fleet["chunk_tokens"], fleet["max_batch"])
    for left_out in range(MOST_LEFT_OUT):
        asked = len(run.timelines) + left_out
        drawn = workload_of(traffic, told["offered_per_s"], HELD_OUT_SEED, asked, limits.block_tokens, longest)
        if drawn.sha256 == told["sha256"]:
            break
    else:
        raise InputError(f"{section}: no draw has the digest of what was served; it was recorded by other code")
    policy = run.provenance.policy["admission"]
    parameters = parameters_of(traffic, policy)
    return Experiment(drawn, fleet_of(limits), admission=policy, admission_parameters=parameters)
