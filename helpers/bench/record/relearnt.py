"""What the simulator says of a recorded fidelity by the terms that today's code learns from it.

A record has the steps of the slices that were learnt from, and beside it are the whole logs of these slices and of the
first run of each slice that is held out. So a new way to learn can be held against live runs of before.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from helpers.bench.fidelity.calibrating import Learned, learn
from helpers.bench.fidelity.compared import Compared, compare, figures
from helpers.bench.fidelity.plan import Slice, experiment
from helpers.bench.fidelity.setting import SETTINGS, Setting
from helpers.bench.record.calibrating import samples_of
from helpers.bench.record.fidelity import ASKED, SECTIONS, Asked
from helpers.bench.record.live import SUSTAINED, steps_kept
from helpers.bench.record.replay import kind_of, limits_of
from helpers.errors import InputError
from helpers.metrics.timeline import EventLog, Timeline
from helpers.serving.cluster_backend import ClusterRun
from helpers.serving.packs import read_pack
from helpers.serving.run import Run


class Relearnt:
    """A record of the part `fidelity` whose `folder` has its packs."""

    def __init__(self, record: Mapping, folder: Path) -> None:
        kind = kind_of(record)
        self.asked: Asked = ASKED[kind]
        self.setting: Setting = SETTINGS[kind]
        self.parts, self._folder = record["parts"], folder

    def learned(self, section: str) -> Learned:
        """What is learnt of the fleet of a section, from nothing that is held out."""
        part, fleet = self.parts[section], SECTIONS[section]
        slices = [one for one in self.asked.learnt_from if one.fleet == fleet]
        runs = {one.name: [self._learnt_from(part, one.name)] for one in slices}
        burst = steps_kept(self.parts[SUSTAINED]["samples"]) if self.asked.learns_burst else ()
        return learn(part["sustained_per_s"], runs, {fleet: slices}, self.setting.ahead, burst)

    def compared(self, section: str, learned: Learned | None = None) -> dict[str, dict[str, Compared]]:
        """Each slice of a section that is held out: its figures, live runs of before beside what `learned` says now."""
        learned = learned or self.learned(section)
        found = {}
        for one in self.asked.held_out:
            if one.fleet != SECTIONS[section]:
                continue
            said = figures(self._simulated(section, one, learned))
            kept = next(kept for kept in self.parts[section]["held_out"] if kept["name"] == one.name)["figures"]
            live = [dict(zip((x["name"] for x in kept), values, strict=True)) for values in _by_run(kept)]
            found[one.name] = {x.name: x for x in compare(live, said)}
        return found

    def run_of(self, section: str, name: str) -> Run:
        """The log of a slice's first live run."""
        pack = next(
            p["pack"] for p in self.parts[section]["points"] if "pack" in p and p["name"].startswith(f"{name}, ")
        )
        return read_pack(self._folder / pack)

    def _learnt_from(self, part: Mapping, name: str) -> ClusterRun:
        point = next(p for p in part["points"] if p["name"] == f"{name}, learnt from")
        run = read_pack(self._folder / point["pack"])
        samples = tuple(tuple(samples_of(columns)) for columns in part["samples"][name])
        return ClusterRun(unrounded(run.log), run.provenance, run.wall_s, worker_samples=samples)

    def _simulated(self, section: str, one: Slice, learned: Learned) -> Run:
        run = self.run_of(section, one.name)
        workload = one.workload(self.parts[section]["sustained_per_s"], self.asked.most)
        if workload.sha256 != run.provenance.workload_sha256:
            raise InputError(f"{one.name}: no draw has the digest of what was served; it was recorded by other code")
        return experiment(one, workload, limits_of(run), learned.of(one), self.setting).run()


def _by_run(kept: list[Mapping]) -> list[tuple[float, ...]]:
    return list(zip(*(figure["samples"] for figure in kept), strict=True))


def unrounded(log: EventLog) -> EventLog:
    """A log from a pack, whose timelines are rounded to a nanosecond, with the times of its rows, which are not."""
    exact = {}
    for rows in log.step_logs:
        for start_s, base_s in zip(rows.start_s, rows.base_s, strict=True):
            exact |= {round(start_s, 9): start_s, round(start_s + base_s, 9): start_s + base_s}

    def of(t: Timeline) -> Timeline:
        times = {name: getattr(t, name) for name in ("prefill_start_s", "first_token_s", "finished_s")}
        return replace(t, **{name: exact.get(time, time) for name, time in times.items()})

    return replace(log, timelines=tuple(map(of, log.timelines)))
