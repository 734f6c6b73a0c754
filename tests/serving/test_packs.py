"""Packs: what was written comes back, and nothing is read that is damaged or has no origin."""

import gzip
import json
from dataclasses import asdict, replace
from random import Random

import pytest

from helpers.errors import InputError
from helpers.metrics.audit import audit
from helpers.metrics.series import Window
from helpers.metrics.summary import summarize
from helpers.metrics.timeline import ROW, token_times
from helpers.serving.experiment import Experiment
from helpers.serving.fleet import Fleet
from helpers.serving.packs import REQUIRED, TIMES, read_pack, write_pack
from helpers.workload.generate import generate
from helpers.workload.slo import SLO

NANOSECOND = 1e-9
SLO_2S = SLO(ttft_s=2.0, tpot_s=0.05)


@pytest.fixture(scope="module")
def run():
    """A split fleet with little memory: hand-offs, preemptions and cache hits are in the pack."""
    workload = generate("conversation", requests=60, rate_per_s=4.0, seed=3, block_tokens=64)
    fleet = Fleet(workers=4, split="2P1D1M", kv_gib=6.0)
    made = Experiment(workload, fleet, "least_requests", seed=5).run()
    return replace(made, provenance=replace(made.provenance, commit="c" * 40))


@pytest.fixture
def pack(run, tmp_path):
    return write_pack(run, tmp_path / "run.json.gz")


def edited(path, change):
    """The pack with its record changed by a function."""
    record = json.loads(gzip.decompress(path.read_bytes()))
    change(record)
    path.write_bytes(gzip.compress(json.dumps(record).encode()))
    return path


def refused(path, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        read_pack(path)
    text = str(error.value)
    assert text.startswith(str(path)) and "\n" not in text and len(text) < 500
    return text


# -- there and back


def test_a_fleet_that_changed_comes_back(tmp_path):
    """Three workers wanted of two, up after 2 s: the pack knows since when, and what it cost."""
    workload = generate("poisson", requests=80, rate_per_s=4.0, seed=3, block_tokens=64)
    wanted = {"mixed": 3, "period_s": 5.0}
    made = Experiment(workload, Fleet(workers=2), scaler="fixed", scaler_parameters=wanted, startup_s=2.0).run()
    made = replace(made, provenance=replace(made.provenance, commit="c" * 40))
    read = read_pack(write_pack(made, tmp_path / "run.json"))
    assert [(w.start_s, w.ready_s, w.stop_s) for w in read.workers] == [(0.0, 0.0, None)] * 2 + [(5.0, 7.0, None)]
    assert read.log.counts == made.log.counts == {"workers_start": 1, "workers_stop": 0, "workers_change": 0}
    assert summarize(read.log, SLO_2S)["gpu_s"] == pytest.approx(3 * made.end_s - 5.0, abs=1e-6)


def test_the_run_has_what_a_pack_must_hold(run):
    assert any(t.transfer_end_s for t in run.timelines)
    assert any(t.cached_tokens for t in run.timelines)
    assert any(t.status == "rejected" for t in run.timelines)
    assert audit(run.log) == []


@pytest.mark.parametrize("name", ["run.json", "run.json.gz", "new/folder/run.json.gz"])
def test_a_pack_comes_back(run, tmp_path, name):
    again = read_pack(write_pack(run, tmp_path / name))
    assert again.provenance == run.provenance
    assert again.workers == run.workers
    assert again.wall_s == run.wall_s
    assert again.end_s == pytest.approx(run.end_s, abs=NANOSECOND)
    for a, b in zip(again.timelines, run.timelines, strict=True):
        assert {k: v for k, v in asdict(a).items() if k not in TIMES} == {
            k: v for k, v in asdict(b).items() if k not in TIMES
        }
        assert a.spans == b.spans
        for name in TIMES:
            assert getattr(a, name) == pytest.approx(getattr(b, name), abs=NANOSECOND)
        assert token_times(a, again.step_logs) == pytest.approx(token_times(b, run.step_logs), abs=NANOSECOND)
    for a, b in zip(again.step_logs, run.step_logs, strict=True):
        assert [list(getattr(a, name)) for name in ROW] == [list(getattr(b, name)) for name in ROW]
    assert audit(again.log) == []


def test_reading_back_gives_the_same_summary(run, pack):
    summary, again = summarize(run.log, SLO_2S), summarize(read_pack(pack).log, SLO_2S)
    for name in ("requests", "completed", "rejected", "attainment", "hit_rate", "output_tokens", "preemptions"):
        assert again[name] == summary[name]
    for name in ("ttft_s", "tpot_s", "itl_s", "e2e_s"):
        assert again[name] == pytest.approx(summary[name], abs=NANOSECOND)


def test_the_same_run_gives_the_same_bytes(run, tmp_path):
    one, two = (write_pack(run, tmp_path / name).read_bytes() for name in ("a.json.gz", "b.json.gz"))
    assert one == two
    other = replace(run, wall_s=run.wall_s + 1)
    assert write_pack(other, tmp_path / "c.json.gz").read_bytes() != one  # control


def test_without_steps_latencies_stay_and_token_times_go(run, tmp_path):
    path = write_pack(run, tmp_path / "small.json.gz", steps=False)
    assert path.stat().st_size < 0.6 * write_pack(run, tmp_path / "large.json.gz").stat().st_size
    small = read_pack(path)
    assert small.step_logs == () and not any(t.spans for t in small.timelines)
    whole, told = summarize(run.log, SLO_2S), summarize(small.log, SLO_2S)
    assert told["ttft_s"] == pytest.approx(whole["ttft_s"], abs=NANOSECOND)
    assert told["attainment"] == whole["attainment"]
    assert told["output_tokens"] == whole["output_tokens"]
    assert told["throughput_tokens_per_s"] == pytest.approx(whole["throughput_tokens_per_s"])
    assert told["itl_s"]["n"] == 0 < whole["itl_s"]["n"]
    assert told["imbalance"] is None and told["balance"] == {}
    part = summarize(small.log, SLO_2S, Window(1.0, 5.0))
    assert part["output_tokens"] is None and part["throughput_tokens_per_s"] is None  # nobody knows when they came
    assert part["ttft_s"]["n"] > 0


# -- refused


@pytest.mark.parametrize("field", REQUIRED)
def test_a_run_without_its_origin_is_neither_written_nor_read(run, pack, tmp_path, field):
    empty = {"seeds": (), "versions": {}}.get(field, "")
    nameless = replace(run, provenance=replace(run.provenance, **{field: empty}))
    with pytest.raises(InputError, match=f"the provenance lacks {field}"):
        write_pack(nameless, tmp_path / "nameless.json")
    assert not (tmp_path / "nameless.json").exists()
    refused(edited(pack, lambda record: record["provenance"].pop(field)), f"the provenance lacks {field}")
    refused(edited(pack, lambda record: record["provenance"].update({field: empty})), f"the provenance lacks {field}")


def test_an_unknown_commit_or_kind_is_refused(run, tmp_path, pack):
    for changed, sentence in (({"commit": "unknown"}, "the commit is unknown"), ({"kind": "guessed"}, "'guessed'")):
        with pytest.raises(InputError, match=sentence):
            write_pack(replace(run, provenance=replace(run.provenance, **changed)), tmp_path / "x.json")
        refused(edited(pack, lambda record, changed=changed: record["provenance"].update(changed)), sentence)


def test_what_is_no_pack_is_refused(tmp_path, pack):
    refused(tmp_path / "missing.json.gz", "there is no such pack")
    for name, text in (("a.json", "[1, 2]"), ("b.json", '{"format": "another 1"}'), ("c.json", '"text"')):
        (tmp_path / name).write_text(text)
        refused(tmp_path / name, "this is no 'hybrid-serving pack 1' file")
    (tmp_path / "d.json").write_text("{half")
    refused(tmp_path / "d.json", "the pack cannot be read")
    (tmp_path / "e.json").write_bytes(b"\xff\xfe\x00")
    refused(tmp_path / "e.json", "the pack cannot be read")
    (tmp_path / "f.json.gz").write_text('{"format": "not compressed"}')
    refused(tmp_path / "f.json.gz", "the pack cannot be read")
    refused(tmp_path, "the pack cannot be read")
    refused(edited(pack, lambda record: record.pop("provenance")), "the pack has no provenance")


@pytest.mark.parametrize("keep", [0, 1, 10, 100, 0.5, -8, -1])
def test_a_truncated_pack_is_refused(pack, keep):
    data = pack.read_bytes()
    pack.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    refused(pack, "the pack cannot be read|no 'hybrid-serving pack 1' file")


def test_a_flipped_bit_is_always_noticed(pack):
    data, rng = pack.read_bytes(), Random(1)
    intact = read_pack(pack)
    for _ in range(60):
        position = rng.randrange(10, len(data))  # behind the header, whose time stamp means nothing
        broken = bytearray(data)
        broken[position] ^= 1 << rng.randrange(8)
        pack.write_bytes(broken)
        refused(pack, "the pack cannot be read")
    pack.write_bytes(data)
    assert read_pack(pack).timelines == intact.timelines  # control: the bits did it


def shorter(column):
    def change(record):
        values = record["timelines"][column]
        record["timelines"][column] = {"values": 1} if isinstance(values, dict) else values[:-1]

    return change


def swapped(record):
    """Two requests exchange their spans."""
    spans = record["timelines"]["spans"]
    i, j = [n for n, s in enumerate(spans) if s][:2]
    spans[i], spans[j] = spans[j], spans[i]


CORRUPTIONS = {
    "a column shorter": shorter("arrival_s"),
    "a column without a value": shorter("tenant"),
    "a column missing": lambda r: r["timelines"].pop("first_token_s"),
    "no timelines": lambda r: r.pop("timelines"),
    "the count is wrong": lambda r: r["timelines"].update(count=r["timelines"]["count"] + 1),
    "the count is text": lambda r: r["timelines"].update(count="many"),
    "text where a time should be": lambda r: r["timelines"]["arrival_s"].__setitem__(0, "soon"),
    "nothing where a time must be": lambda r: r["timelines"]["arrival_s"].__setitem__(0, None),
    "a fraction of a token": lambda r: r["timelines"]["prompt_tokens"].__setitem__(0, 3.5),
    "a list for a status": lambda r: r["timelines"].update(status={"all": ["finished"]}),
    "an unknown status": lambda r: r["timelines"].update(status={"all": "lost"}),
    "not a number": lambda r: r["timelines"]["arrival_s"].__setitem__(0, float("nan")),
    "an arrival after its end": lambda r: r["timelines"]["arrival_s"].__setitem__(0, 1e6),
    "spans exchanged": swapped,
    "a span too far": lambda r: next(s for s in r["timelines"]["spans"] if s)[0].__setitem__(2, 10**6),
    "a span of two numbers": lambda r: next(s for s in r["timelines"]["spans"] if s)[0].pop(),
    "rows of unequal length": lambda r: r["step_logs"][0]["start_s"].pop(),
    "a step log with a column less": lambda r: r["step_logs"][0].pop("decoding"),
    "half a step": lambda r: r["step_logs"][0]["steps"].__setitem__(0, 1.5),
    "a step log missing": lambda r: r["step_logs"].pop(),
    "decodes that nobody did": lambda r: r["step_logs"][0]["decoding"].__setitem__(0, 7),
    "a worker with an unknown field": lambda r: r["workers"][0].update(speed=3),
    "an end in words": lambda r: r.update(end_s="late"),
    "an end too early": lambda r: r.update(end_s=0.5),
    "a time in words": lambda r: r.update(wall_s="long"),
    "provenance with an unknown field": lambda r: r["provenance"].update(mood="good"),
    "provenance without repairs": lambda r: r["provenance"].pop("repairs"),
}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corrupted_column_is_refused(pack, name):
    refused(edited(pack, CORRUPTIONS[name]), "the pack is damaged|the pack cannot be read")


def test_an_untouched_record_passes_the_same_way(pack, run):
    assert len(read_pack(edited(pack, lambda record: None)).timelines) == len(run.timelines)


def test_a_place_that_cannot_be_written_is_one_sentence(run, tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "run.json"):
        with pytest.raises(InputError, match=r"cannot be written \(.*\); give a place you may write"):
            write_pack(run, path)
