"""What commands write: refused before the work where it cannot be, never half there, and no earlier file is lost."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

from helpers.errors import InputError
from helpers.outputs import PART, Growing, check_writable, write_bytes, write_json, write_packed, write_text
from tests.test_cli import run_main

KEPT = "what was there before\n"


@pytest.fixture
def kept(tmp_path):
    """A file of an earlier run."""
    path = tmp_path / "r.json"
    path.write_text(KEPT)
    return path


def files(folder):
    return sorted(one.name for one in folder.iterdir())


# -- files


def test_a_file_is_written_whole_with_its_rights_and_nothing_is_left_beside_it(kept):
    kept.chmod(0o640)
    write_text(kept, "new é\n")
    assert kept.read_text(encoding="utf-8") == "new é\n" and kept.stat().st_mode & 0o777 == 0o640
    write_json(kept, {"a": 1}, None)
    assert kept.read_text() == '{"a":1}\n'
    write_json(None, {"a": object()})  # nothing was asked for
    assert files(kept.parent) == ["r.json"]


def test_what_cannot_be_said_leaves_the_earlier_file(kept):
    with pytest.raises(ValueError, match="nan"):
        write_json(kept, {"a": float("nan")})
    assert kept.read_text() == KEPT


def test_a_write_that_breaks_off_leaves_the_earlier_file(kept, monkeypatch):
    def full(self, data):
        with self.open("wb") as half:
            half.write(data[:3])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"r\.json: it cannot be written \(No space left on device\); give a place"):
        write_bytes(kept, b"something new")
    assert kept.read_text() == KEPT and files(kept.parent) == ["r.json"]


def test_a_link_stays_one_and_a_pipe_is_written_to(kept, tmp_path):
    link = tmp_path / "link.json"
    link.symlink_to(kept)
    write_text(link, "new\n")
    assert link.is_symlink() and kept.read_text() == "new\n"
    read, write = os.pipe()
    check_writable(Path(f"/dev/fd/{write}"))
    write_text(Path(f"/dev/fd/{write}"), "through\n")
    os.close(write)
    assert os.read(read, 100) == b"through\n"
    os.close(read)


def test_the_same_bytes_give_the_same_packed_file(tmp_path):
    for name in ("a.gz", "b.gz"):
        write_packed(tmp_path / name, b"x" * 1000)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    write_packed(tmp_path / "plain", b"x" * 1000)
    assert len((tmp_path / "a.gz").read_bytes()) < 100 < len((tmp_path / "plain").read_bytes())


@pytest.mark.parametrize("place", [".", "no/r.json", "r.json/r.json", "x" * 300])
def test_places_where_nothing_can_be_written(kept, place):
    with pytest.raises(InputError, match=r"cannot be written|nothing can be written there"):
        check_writable(None, kept.parent / place)
    check_writable(None, kept, kept.parent / "new.json")  # the control
    assert files(kept.parent) == ["r.json"]


def test_two_outputs_do_not_go_to_one_file(kept, capsys):
    code, out, err = run_main(["simulate", "--json", str(kept), "--pack", f"{kept.parent}/./r.json"], capsys)
    assert (code, out) == (2, "") and "two outputs cannot go to one file; give each its own" in err
    assert kept.read_text() == KEPT
    check_writable(kept, kept.with_name("other.json"))  # the control
    check_writable(Path("/dev/null"), Path("/dev/null"))


def test_a_folder_that_takes_no_files_is_found_out_before(kept, monkeypatch):
    def refused(**how):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("helpers.outputs.TemporaryFile", refused)
    with pytest.raises(InputError, match=r"it cannot be written \(Permission denied\); give a place you may write"):
        check_writable(kept)


# -- runs that go on


@pytest.mark.parametrize("goes_on", [False, True])
def test_an_earlier_file_stays_until_the_run_is_over_unless_it_goes_on_with_it(kept, goes_on):
    file = Growing(kept, goes_on)
    file.write("some\n", whole=False)
    assert kept.read_text() == ("some\n" if goes_on else KEPT)
    assert files(kept.parent) == (["r.json"] if goes_on else ["r.json", f"r.json{PART}"])
    assert file.place.read_text() == "some\n"
    file.write("all\n", whole=True)
    assert kept.read_text() == "all\n" and files(kept.parent) == ["r.json"]


def test_where_there_was_no_file_it_grows_in_its_place(tmp_path):
    Growing(None).write("nobody asked", whole=True)
    file = Growing(tmp_path / "new.json")
    file.write("some\n", whole=False)
    assert (tmp_path / "new.json").read_text() == "some\n" and files(tmp_path) == ["new.json"]


# -- commands

SLOW = {
    "simulate": ["simulate", "--json"],
    "simulate --pack": ["simulate", "--pack"],
    "simulate --trace-log": ["simulate", "--trace-log"],
    "price": ["price", "staleness", "--json"],
    "calibrate": ["calibrate", "--json"],
    "fidelity": ["fidelity", "--json"],
    "trace describe": ["trace", "describe", "conversation", "--json"],
    "trace generate": ["trace", "generate", "poisson", "--out"],
    "lessons slides": ["lessons", "slides", "01_load_and_latency", "--to"],
    "bench cases": ["bench", "cases", "--json"],
    "bench engine": ["bench", "engine", "--preset", "tiny", "--json"],
    "bench exactness": ["bench", "exactness", "--json"],
    "bench faults": ["bench", "faults", "--json"],
    "bench fleet-sizes": ["bench", "fleet-sizes", "--json"],
    "bench mooncake-fig5": ["bench", "mooncake-fig5", "--json"],
    "bench pages": ["bench", "pages", "--json"],
    "bench run": ["bench", "run", "--targets", "routers", "--json"],
    "bench run --on engine": ["bench", "run", "--targets", "routers", "--on", "engine", "--json"],
    "bench run --trace": ["bench", "run", "--targets", "routers", "--trace"],
    "bench splits": ["bench", "splits", "--calibration", "data/packs/h200/engine_llama-8b_calibrate.json", "--json"],
}


@pytest.mark.parametrize("name", SLOW)
def test_every_command_refuses_before_it_works(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("helpers.engine.load.load", _never)
    monkeypatch.setattr("helpers.workload.generate.generate", _never)
    (tmp_path / "file").write_text(KEPT)
    code, out, err = run_main([*SLOW[name], str(tmp_path / "file" / "r.jsonl")], capsys)
    assert (code, out) == (2, "") and re.search("cannot be written|nothing can be written there", err), err
    assert err.count("\n") == 1 and (tmp_path / "file").read_text() == KEPT


def _never(*given, **named):
    raise AssertionError("the work has begun")


def test_an_arm_that_fails_leaves_the_earlier_record(kept, capsys, monkeypatch):
    """Two arms in this process, the second of which breaks off; what the first gave lies beside the earlier record."""
    asked = ["simulate", "--max-requests", "50", "--router", "round_robin", "--router", "random", "--jobs", "1"]
    code, _, _ = run_main([*asked, "--json", str(kept)], capsys)
    whole = json.loads(kept.read_text())
    assert code == 0 and whole["complete"] and len(whole["arms"]) == 2 and files(kept.parent) == ["r.json"]
    from helpers.serving import contest

    ask, calls = contest.outcome_of, []

    def broken(experiment, *given, **named):
        calls.append(experiment.router)
        if experiment.router == "random":
            raise KeyboardInterrupt
        return ask(experiment, *given, **named)

    monkeypatch.setattr(contest, "outcome_of", broken)
    code, _, _ = run_main([*asked, "--json", str(kept)], capsys)
    assert code == 130 and "random" in calls and json.loads(kept.read_text()) == whole
    half = json.loads((kept.parent / f"r.json{PART}").read_text())
    assert not half["complete"] and len(half["arms"]) == 1


def test_without_a_commit_no_pack_is_begun(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("helpers.serving.packs.commit", lambda: "unknown")
    code, out, err = run_main(["simulate", "--pack", str(tmp_path / "p.json")], capsys)
    assert (code, out) == (2, "") and "the commit is unknown; run from a checkout" in err
    assert sys.exc_info() == (None, None, None) and not (tmp_path / "p.json").exists()
