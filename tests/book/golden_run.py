"""Runs the core on requests from JSON, the same source in CPython and in the Python of a page: `given` to `found`."""

import json
from dataclasses import asdict

from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.widgets.explorers.registry import EXPLORERS, reply
from helpers.workload.request import Request, Workload

asked = json.loads(given)  # noqa: F821
rows = [Request(**{**row, "prefix_blocks": tuple(row["prefix_blocks"])}) for row in asked["requests"]]
workload = Workload(name="stored", requests=tuple(rows), block_tokens=asked["block_tokens"])
runs = {}
for router in asked["routers"]:
    log = Experiment(workload, Fleet(workers=4), router).cluster().run(workload.requests)
    runs[router] = {"timelines": [asdict(t) for t in log.timelines], "counts": log.counts, "end_s": log.end_s}
answers = {name: json.loads(reply(json.dumps({"explorer": name}))) for name in EXPLORERS}
found = json.dumps({"runs": runs, "answers": answers})
