"""`hybrid-serving lessons …`: builds, finds drift, shows and forgets progress, and asks before it does."""

import json

import pytest
from typer.testing import CliRunner

from helpers.cli import application, main
from helpers.lessons import building, check, predict, reconcile
from tests.lessons.small_lab import NAME, SMALL, know, write


@pytest.fixture
def labs(tmp_path, monkeypatch):
    """A course whose labs lie here."""
    folder = tmp_path / "labs"
    write(folder)
    for function, defaults in ((building.chosen, (folder,)), (building.build, (folder,)), (building.drift, (folder,))):
        monkeypatch.setattr(function, "__defaults__", defaults)
    monkeypatch.setattr(building.strays, "__defaults__", (folder,))
    monkeypatch.setattr(building.source_paths, "__defaults__", (folder,))
    return folder


def lessons(capsys, *words):
    """(exit code, last line as JSON or None, error stream) of a command."""
    with pytest.raises(SystemExit) as left:
        main(["lessons", *words])
    out, err = capsys.readouterr()
    return left.value.code or 0, json.loads(out.splitlines()[-1]) if out else None, err


def test_a_build_writes_and_a_check_then_finds_nothing(labs, capsys):
    code, found, err = lessons(capsys, "build")
    assert code == 0 and len(found["written"]) == 4 and err == ""
    code, found, err = lessons(capsys, "build", "--check")
    assert (code, found["written"], found["drifted"], err) == (0, [], [], "")


def test_a_check_writes_nothing_and_exits_with_1_and_a_sentence_per_file(labs, capsys):
    code, found, err = lessons(capsys, "build", "--check", NAME)
    assert code == 1 and len(found["drifted"]) == 4 and not (labs / f"{NAME}.ipynb").exists()
    assert len(err.splitlines()) == 4 and all(line.startswith("hybrid-serving: labs/") for line in err.splitlines())


def test_a_check_finds_a_stray_file(labs, capsys):
    lessons(capsys, "build")
    (labs / "97_old_lab.ipynb").write_text("{}", encoding="utf-8")
    code, _, err = lessons(capsys, "build", "--check")
    assert code == 1 and "97_old_lab.ipynb has no source" in err and len(err.splitlines()) == 1


def test_a_bad_source_exits_with_2_and_one_sentence(labs, capsys):
    path = write(labs, SMALL.replace('"solution"', '"solutions"'))
    code, found, err = lessons(capsys, "build")
    assert code == 2 and found is None and len(err.splitlines()) == 1 and f"{path}:" in err
    assert list(labs.glob("*.ipynb")) == []


def test_an_unknown_lab_exits_with_2(labs, capsys):
    code, _, err = lessons(capsys, "build", "97_old")
    assert code == 2 and NAME in err


@pytest.fixture
def some(learner, monkeypatch):
    """A learner who guessed 8 where 4 is true, and passed an exercise."""
    know(monkeypatch)
    guess = predict("knee", "requests/s", 8, default=6)
    reconcile(guess, own=4.0)
    predict("knee", "requests/s", 4, default=6)
    check("double", lambda x: 2 * x)
    return learner


def test_progress_is_shown(some, capsys):
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["lessons", "progress"])
    out = capsys.readouterr().out
    assert "knee\trequests/s\t8\t4\t2.00\t4" in out and "98_small_lab\tdouble\tpassed on 2" in out and str(some) in out


def test_progress_of_a_newcomer_is_empty_and_writes_nothing(learner, capsys):
    code, found, _ = lessons(capsys, "progress")
    assert code == 0 and found["predictions"] == found["exercises"] == {} and not learner.exists()


def test_a_reset_asks_and_a_no_keeps_everything(some, capsys):
    before = some.read_bytes()
    done = CliRunner().invoke(application(), ["lessons", "reset"], input="n\n")
    assert "Forget all 2 guesses and exercises" in done.output and some.read_bytes() == before
    done = CliRunner().invoke(application(), ["lessons", "reset"], input="y\n")
    assert done.exit_code == 0 and json.loads(some.read_text(encoding="utf-8"))["predictions"] == {}


def test_a_reset_with_nobody_to_answer_keeps_everything(some):
    before = some.read_bytes()
    CliRunner().invoke(application(), ["lessons", "reset"], input="")
    assert some.read_bytes() == before


def test_one_name_is_forgotten_and_the_rest_stays(some, capsys):
    capsys.readouterr()
    code, found, _ = lessons(capsys, "reset", "knee", "--yes")
    kept = json.loads(some.read_text(encoding="utf-8"))
    assert (
        code == 0
        and found["forgotten"] == ["knee"]
        and kept["predictions"] == {}
        and set(kept["exercises"]) == {"double"}
    )
    assert predict("knee", "requests/s", 4, default=6).later is None


def test_forgetting_an_unknown_name_exits_with_2(some, capsys):
    capsys.readouterr()
    code, _, err = lessons(capsys, "reset", "trouble", "--yes")
    assert code == 2 and "knee, double" in err


def test_a_damaged_file_is_put_aside_with_one_sentence(learner, capsys):
    learner.parent.mkdir()
    learner.write_bytes(b"{")
    code, found, err = lessons(capsys, "progress")
    assert code == 0 and found["exercises"] == {} and len(err.splitlines()) == 1 and "damaged-1" in err
