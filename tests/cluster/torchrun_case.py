"""A program for torchrun: rank 0 serves a few requests on workers that its ranks hold, and says what came out.

Arguments: the mover, and `leave`, or `sleep` to stay until somebody ends it.
"""

import json
import os
import sys
import time
from dataclasses import replace

from helpers.cluster.launch import run
from helpers.errors import InputError
from helpers.serving.cluster_backend import ClusterOptions, workers_for
from helpers.serving.experiment import Experiment
from tests.cluster.conftest import TWO, workload

SPLIT = replace(TWO, split="1P1D")


def command():
    mover, mode = sys.argv[1:]
    options = ClusterOptions(device="cpu", mover=mover, limit_s=300, hang_s=120, verify=True)
    with workers_for(TWO, 64, options) as crew:
        say(pids=[fact["pid"] for fact in crew.facts], rank=os.getpid())
        for name in (mover, "layerwise"):
            told = replace(options, workers=crew, mover=name)
            try:
                done = Experiment(workload(4), SPLIT).run(on="engine", engine=told)
            except InputError as error:
                say(mover=name, refused=str(error))
                continue
            late = [t.transfer_start_s - t.prefill_start_s for t in done.timelines]
            say(mover=name, tokens=done.tokens, checked=done.checked, wrong=done.wrong, late_s=late)
        if mode == "sleep":
            time.sleep(600)


def say(**what):
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    sys.exit(run(command))
