"""Progress: one file, written whole, never lost, and left alone where nobody sits in front."""

import json
import multiprocessing
import os
import stat

import pytest

from helpers.lessons import progress
from helpers.lessons.progress import Progress, current, empty, place

ENTRY = {"lab": "x", "tries": 1, "passed_at": None}


def add(name: str):
    def edit(data: dict) -> None:
        data["exercises"][name] = dict(ENTRY)

    return edit


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def kept(tmp_path, told) -> Progress:
    return Progress(tmp_path / "a" / "progress.json", told.append)


def test_what_is_changed_is_there_for_the_next_kernel(kept):
    kept.change(add("TTFT"))
    assert set(Progress(kept.path).read()["exercises"]) == {"TTFT"}
    assert json.loads(kept.path.read_text(encoding="utf-8"))["version"] == 1


def test_looking_writes_nothing(kept):
    assert kept.read() == empty()
    assert not kept.path.parent.exists()


def test_without_a_path_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    memory = Progress(None)
    memory.change(add("TTFT"))
    assert set(memory.read()["exercises"]) == {"TTFT"} and list(tmp_path.iterdir()) == []


def test_what_is_handed_out_is_a_copy(kept):
    kept.change(add("TTFT"))["exercises"].clear()
    assert set(kept.read()["exercises"]) == {"TTFT"}
    memory = Progress(None)
    memory.change(add("TTFT"))["exercises"].clear()
    assert set(memory.read()["exercises"]) == {"TTFT"}


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"\xff\xfe\x00",
        b"[]",
        b'{"version": 2, "predictions": {}, "exercises": {}}',
        b'{"version": 1, "predictions": {}}',
        b'{"version": 1, "predictions": {"knee": 7}, "exercises": {}}',
        b'{"version": 1, "predictions": {"knee": {"attempts": [7]}}, "exercises": {}}',
        b'{"version": 1, "predictions": {"knee": {"attempts": [{"value": null, "late": false}]}}, "exercises": {}}',
        b'{"version": 1, "predictions": {}, "exercises": {"TTFT": {"tries": "two", "passed_at": null}}}',
    ],
)
def test_a_damaged_file_is_put_aside_and_nothing_of_it_is_lost(kept, told, damage):
    kept.path.parent.mkdir()
    kept.path.write_bytes(damage)
    kept.change(add("TTFT"))
    assert (kept.path.parent / "progress.damaged-1.json").read_bytes() == damage
    assert set(kept.read()["exercises"]) == {"TTFT"}
    (sentence,) = told
    assert "progress.damaged-1.json" in sentence and str(kept.path) in sentence


def test_a_second_damaged_file_does_not_replace_the_first(kept):
    kept.path.parent.mkdir()
    for damage in (b"one", b"two"):
        kept.path.write_bytes(damage)
        kept.read()
    found = [kept.path.with_name(f"progress.damaged-{n}.json").read_bytes() for n in (1, 2)]
    assert found == [b"one", b"two"]


def test_a_sound_file_is_not_put_aside(kept, told):
    kept.change(add("TTFT"))
    kept.read()
    assert told == [] and sorted(p.name for p in kept.path.parent.iterdir()) == [
        "progress.json",
        "progress.json.lock",
    ]


def test_an_edit_that_fails_changes_nothing(kept):
    kept.change(add("TTFT"))

    def half(data: dict) -> None:
        data["exercises"].clear()
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        kept.change(half)
    assert set(kept.read()["exercises"]) == {"TTFT"}


def test_a_write_that_fails_leaves_the_old_file_and_no_other(kept, told, monkeypatch):
    kept.change(add("TTFT"))
    before = kept.path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    kept.change(add("TPOT"))
    assert kept.path.read_bytes() == before
    assert sorted(p.name for p in kept.path.parent.iterdir()) == ["progress.json", "progress.json.lock"]
    (sentence,) = told
    assert "No space left" in sentence and progress.PLACE in sentence


def test_a_place_that_is_no_place_is_told_once_and_the_lesson_goes_on(tmp_path, told):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    lost = Progress(tmp_path / "file" / "progress.json", told.append)
    lost.change(add("TTFT"))
    lost.change(add("TPOT"))
    assert set(lost.read()["exercises"]) == {"TTFT", "TPOT"} and len(told) == 1


def test_a_lock_that_is_never_given_back_does_not_hold_the_lesson_up(kept, told, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(progress, "PATIENCE_S", 0.05)
    kept.change(add("TTFT"))
    with kept.path.with_name("progress.json.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        kept.change(add("TPOT"))
    assert len(told) == 1
    assert set(json.loads(kept.path.read_text(encoding="utf-8"))["exercises"]) == {"TTFT"}


def _kernel(path, who: int, rounds: int, ready) -> None:
    progress.PATIENCE_S = 60.0  # a slow machine may take its time
    ready.wait()
    for i in range(rounds):
        Progress(path).change(add(f"{who}-{i}"))


def test_kernels_at_the_same_time_keep_each_others_entries(tmp_path):
    """3 processes x 15 entries: all 45 are there at the end."""
    path, context = tmp_path / "progress.json", multiprocessing.get_context("spawn")
    ready = context.Barrier(3)
    kernels = [context.Process(target=_kernel, args=(path, who, 15, ready)) for who in range(3)]
    for kernel in kernels:
        kernel.start()
    for kernel in kernels:
        kernel.join(60)
    assert [kernel.exitcode for kernel in kernels] == [0, 0, 0]
    assert set(Progress(path).read()["exercises"]) == {f"{who}-{i}" for who in range(3) for i in range(15)}


def test_without_taking_turns_an_entry_is_lost(tmp_path):
    """The control: two changes that read before either writes. The one that writes first is gone."""
    path = tmp_path / "progress.json"
    first, second = empty(), empty()
    add("TTFT")(first)
    add("TPOT")(second)
    progress._replace(path, first)
    progress._replace(path, second)
    assert set(Progress(path).read()["exercises"]) == {"TPOT"}


def test_a_link_is_followed_and_not_replaced(tmp_path):
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    real.write_text(json.dumps(empty()), encoding="utf-8")
    link.symlink_to(real)
    Progress(link).change(add("TTFT"))
    assert link.is_symlink() and "TTFT" in real.read_text(encoding="utf-8")


def test_the_file_is_for_its_owner_only(kept):
    kept.change(add("TTFT"))
    assert stat.S_IMODE(kept.path.stat().st_mode) & 0o077 == 0


def test_the_place_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert place() == tmp_path / "hybrid-serving" / "progress.json"
    monkeypatch.setenv(progress.PLACE, str(tmp_path / "mine.json"))
    assert place() == tmp_path / "mine.json"


def test_only_with_somebody_in_front_is_anything_kept(learner, monkeypatch):
    current().change(add("TTFT"))
    assert learner.exists()
    monkeypatch.setenv("HYBRID_SERVING_FRONT_END", "0")
    assert not current().kept
    current().change(add("TPOT"))
    assert "TPOT" not in learner.read_text(encoding="utf-8")


def test_a_rehearsal_begins_empty_and_is_forgotten(learner):
    current().change(add("TTFT"))
    with progress.rehearsal():
        assert current().read() == empty()
        current().change(add("TPOT"))
    assert set(current().read()["exercises"]) == {"TTFT"}
