"""Early launch against waiting: which process runs how, and what is made of what they say. Nothing here is timed."""

import pytest

from helpers.bench.record import early_launch


def test_two_processes_that_differ_in_the_switch_are_compared(monkeypatch):
    asked = []

    def lines_of(words, limit_s, settings):
        asked.append((words[3:], settings))
        early = settings["ENGINE_EARLY_LAUNCH"] == "1"
        yield {"name": "checks", "failed": ["decode"] if early else [], "of": 9, "early": early}
        yield {"name": "batch 1", "samples": [6.0, 5.0, 7.0] if early else [8.0, 8.0, 7.0]}
        if not early:
            yield {"name": "batch 8", "samples": [9.0]}

    monkeypatch.setattr(early_launch, "lines_of", lines_of)
    points = {one["name"]: one for one in early_launch.compared("tiny", "cpu")}
    assert asked == [(["tiny", "cpu"], {"ENGINE_EARLY_LAUNCH": "0"}), (["tiny", "cpu"], {"ENGINE_EARLY_LAUNCH": "1"})]
    assert (points["checks, off"]["value"], points["checks, on"]["value"]) == (0, 1)
    assert points["checks, on"]["names"] == ["decode"] and points["checks, on"]["early"]
    assert points["batch 1, on / off"]["value"] == pytest.approx(6.0 / 8.0)
    assert "batch 8, on / off" not in points  # one that only one of them has is compared with nothing


def test_a_process_checks_first_and_then_times_its_decodes(monkeypatch):
    for room in ("kernel_checks.run", "checks.model_checks", "loop_checks.run"):
        monkeypatch.setattr(f"helpers.engine.{room}", lambda *_: [])
    checked, *timed = early_launch.measure("tiny", "cpu")
    assert checked == {"name": "checks", "failed": [], "of": 0, "early": False}
    assert [line["name"] for line in timed] == ["batch 1"]
    assert len(timed[0]["samples"]) == 60
