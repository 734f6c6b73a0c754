"""The file of a part of a recording: what it keeps when it is cut short, and what is refused without its origin."""

import json
import math

import pytest

from helpers.bench.engine.report import point
from helpers.bench.record.files import (
    FORMAT,
    REQUIRED,
    PartReport,
    as_text,
    code_sha256,
    complete,
    earlier_of,
    read_record,
)
from helpers.errors import InputError

HEAD = {
    "format": FORMAT,
    "kind": "measured",
    "part": "engine",
    "preset": "tiny",
    "hardware_key": "h100_80gb_hbm3",
    "device": "NVIDIA H100 80GB HBM3",
    "command": "hybrid-serving record",
    "commit": "a" * 40,
    "code_sha256": "b" * 64,
    "made": "2026-01-02T03:04:05+00:00",
    "seeds": [0],
    "versions": {"torch": "2"},
    "gpu": {"driver_version": "1", "power.limit": "700 W"},
}


def two_points(first=1.0):
    yield point("one", first, "ms", [first, first + 1])
    yield point("two", 2.0, "ms")


def stops(before=2.0):
    yield point("one", before, "ms")
    raise KeyboardInterrupt


def filled(path, earlier=None, **changes):
    report = PartReport(path, 100.0, {**HEAD, **changes}, earlier=earlier or {})
    report.run("decode", two_points)
    return report


def test_a_whole_section_is_not_measured_again(tmp_path):
    first = filled(tmp_path / "a.json")
    again = PartReport(tmp_path / "b.json", 100.0, dict(HEAD), earlier=read_record(first.path)["parts"])
    again.run("decode", lambda: pytest.fail("measured again"))
    assert again.record()["parts"] == first.record()["parts"]


def test_floors_are_measured_in_every_run(tmp_path):
    report = PartReport(None, 100.0, dict(HEAD), earlier={"ceilings": {"points": [point("old", 9.0, "x")], "count": 1}})
    report.run("ceilings", two_points)
    assert [one["name"] for one in report.record()["parts"]["ceilings"]["points"]] == ["one", "two"]


def test_a_section_without_one_of_its_points_is_measured_again(tmp_path):
    earlier = read_record(filled(tmp_path / "a.json").path)["parts"]
    assert complete(earlier["decode"])
    lost = {"decode": {**earlier["decode"], "points": earlier["decode"]["points"][:1]}}
    assert not complete(lost["decode"])
    report = PartReport(tmp_path / "b.json", 100.0, dict(HEAD), earlier=lost)
    report.run("decode", lambda: two_points(first=5.0))
    found = read_record(report.path)["parts"]["decode"]
    assert [one["value"] for one in found["points"]] == [5.0, 2.0]


@pytest.mark.parametrize("point_of", [lambda: point("one", 0.0, "ms", failed="planted"), None])
def test_what_failed_is_not_complete(point_of):
    report = PartReport(None, 100.0, dict(HEAD))
    report.run("decode", lambda: iter([point_of()]) if point_of else iter(()))
    assert not complete(report.parts["decode"])


def test_an_interrupted_section_keeps_its_points_old_and_new(tmp_path):
    path = tmp_path / "a.json"
    report = PartReport(path, 100.0, dict(HEAD))
    with pytest.raises(KeyboardInterrupt):
        report.run("decode", stops)
    kept = read_record(path)["parts"]["decode"]
    assert [one["name"] for one in kept["points"]] == ["one"] and not complete(kept)

    old = read_record(filled(tmp_path / "b.json").path)["parts"]
    del old["decode"]["count"]  # as it is when a run ended before its last word
    again = PartReport(path, 100.0, dict(HEAD), earlier=old)
    with pytest.raises(KeyboardInterrupt):
        again.run("decode", lambda: stops(before=7.0))
    points = read_record(path)["parts"]["decode"]["points"]
    assert [(one["name"], one["value"], one.get("kept")) for one in points] == [("one", 7.0, None), ("two", 2.0, True)]

    last = PartReport(path, 100.0, dict(HEAD), earlier=read_record(path)["parts"])
    last.run("decode", lambda: iter([point("one", 8.0, "ms")]))
    assert [one["name"] for one in read_record(path)["parts"]["decode"]["points"]] == ["one"]  # whole: nothing is kept


def test_sections_that_were_not_reached_stay(tmp_path):
    old = read_record(filled(tmp_path / "a.json").path)["parts"]
    report = PartReport(tmp_path / "b.json", 100.0, dict(HEAD), earlier=old)
    report.run("prefill", two_points)
    assert set(read_record(report.path)["parts"]) == {"decode", "prefill"}


@pytest.mark.parametrize("name", [n for n in REQUIRED if n not in ("wall_s", "parts")])
def test_a_record_without_its_origin_is_refused(tmp_path, name):
    path = filled(tmp_path / "a.json", **{name: ""}).path
    with pytest.raises(InputError, match=f"lacks {name}"):
        read_record(path)
    assert read_record(filled(tmp_path / "b.json").path)  # control: with all of it, it is read


@pytest.mark.parametrize("commit", ["unknown", "a" * 39, "A" * 40, "a" * 40 + "-changed"])
def test_a_record_without_a_commit_is_refused(tmp_path, commit):
    with pytest.raises(InputError, match="the commit is"):
        read_record(filled(tmp_path / "a.json", commit=commit).path)
    assert read_record(filled(tmp_path / "b.json", commit="a" * 40 + "-dirty").path)


def test_a_gpu_says_its_driver_and_power_and_a_cpu_need_not(tmp_path):
    with pytest.raises(InputError, match="gpu \\(driver, clocks"):
        read_record(filled(tmp_path / "a.json", gpu={}).path)
    assert read_record(filled(tmp_path / "b.json", gpu={}, hardware_key="cpu_some_2c").path)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "another"}'])
def test_what_is_no_record_is_refused(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InputError):
        read_record(path)
    with pytest.raises(InputError, match="no such record"):
        read_record(tmp_path / "nowhere.json")


@pytest.mark.parametrize("name", ["part", "preset", "hardware_key", "commit", "code_sha256"])
def test_only_the_same_code_on_the_same_hardware_goes_on(tmp_path, name):
    path = filled(tmp_path / "a.json").path
    assert set(earlier_of(HEAD, [tmp_path / "nowhere.json", path])) == {"decode"}
    assert earlier_of({**HEAD, name: "c" * 40}, [path]) == {}


def test_text_is_compact_and_holds_what_is_no_number_as_null():
    record = {"samples": [1.0, 2e-7, -3], "names": ["a, 1", "b"], "floor": math.nan, "none": []}
    text = as_text(record)
    assert '"samples": [1.0,2e-07,-3]' in text
    assert json.loads(text) == {**record, "floor": None}


def test_the_digest_of_the_code_changes_with_it(tmp_path):
    source = tmp_path / "helpers" / "room"
    source.mkdir(parents=True)
    (source / "a.py").write_text("x = 1\n")
    one = code_sha256(tmp_path)
    (tmp_path / "other.py").write_text("not of the helpers\n")
    assert code_sha256(tmp_path) == one
    (source / "a.py").write_text("x = 2\n")
    changed = code_sha256(tmp_path)
    (source / "a.py").rename(source / "b.py")
    assert len({one, changed, code_sha256(tmp_path)}) == 3
