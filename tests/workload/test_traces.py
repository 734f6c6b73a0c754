import gzip
from dataclasses import replace

import pytest

from helpers.errors import InputError
from helpers.workload.formats import BadRow, azure_ticks
from helpers.workload.generate import generate
from helpers.workload.request import Request, Workload
from helpers.workload.traces import load, save
from tests.workload.trace_samples import (
    AZURE_2023,
    AZURE_2024,
    BURSTGPT_6,
    BURSTGPT_8,
    MOONCAKE,
    OWN_CSV,
    OWN_JSONL,
    loaded,
    written,
)


def test_mooncake(tmp_path):
    workload, report = loaded(tmp_path, MOONCAKE)
    assert (report.format, report.rows, report.loaded, report.skipped, report.out_of_order) == ("mooncake", 3, 3, (), 0)
    assert workload.requests == (
        Request(0, 0.0, 1000, 50, (0, 1)),
        Request(1, 2.5, 1300, 60, (0, 2, 3)),
        Request(2, 3.0, 512, 7, (0,)),
    )
    assert workload.block_tokens == 512 and workload.repairs == ()


def test_azure_2023_keeps_seven_digits_and_starts_at_zero(tmp_path):
    workload, report = loaded(tmp_path, AZURE_2023)
    assert report.format == "azure"
    assert [r.arrival_s for r in workload] == [0.0, 0.0520001, 86400.0]
    assert [(r.prompt_tokens, r.output_tokens) for r in workload] == [(4808, 10), (3180, 8), (110, 27)]
    assert report.first_recorded.startswith("2023-11-16T18:17:03")


def test_azure_2024_reads_offsets_and_missing_fractions(tmp_path):
    workload, report = loaded(tmp_path, AZURE_2024)
    assert report.format == "azure"
    assert [r.arrival_s for r in workload] == [0.0, 0.001163, 10.0]


def test_azure_ticks_are_exact():
    base = azure_ticks("2023-11-16 18:17:03")
    assert azure_ticks("2023-11-16 18:17:03.9799600") - base == 9_799_600
    assert azure_ticks("2023-11-16 18:17:03.0000001") - base == 1
    assert azure_ticks("2023-11-16 19:17:03+01:00") == base
    stamp = "2023-11-16 18:17:03"
    for text in ("", stamp[:10], "yesterday", f"{stamp}.", f"{stamp}.12x", "2023-13-16 18:17:03"):
        with pytest.raises(BadRow):
            azure_ticks(text)


def test_burstgpt_of_six_columns(tmp_path):
    workload, report = loaded(tmp_path, BURSTGPT_6)
    assert report.format == "burstgpt" and report.first_recorded == "5.0"
    assert [(r.arrival_s, r.prompt_tokens, r.output_tokens, r.session) for r in workload] == [
        (0.0, 472, 18, None),
        (40.0, 1087, 230, None),
        (113.0, 417, 276, None),
    ]


def test_burstgpt_of_eight_columns_numbers_its_sessions(tmp_path):
    workload, _ = loaded(tmp_path, BURSTGPT_8)
    assert [(r.arrival_s, r.session) for r in workload] == [(0.0, 0), (51.5, 1), (60.0, 0), (82.0, None)]


def test_own_csv(tmp_path):
    workload, report = loaded(tmp_path, OWN_CSV)
    assert report.format == "own-csv"
    assert workload.requests == (
        Request(0, 0.5, 600, 10, (7, 8), session=3, tenant="gold", slo_class="interactive", priority=-1),
        Request(1, 1.25, 512, 20, (7,), tenant="free", slo_class="batch", priority=2),
    )


def test_own_jsonl_with_parents(tmp_path):
    workload, report = loaded(tmp_path, OWN_JSONL)
    assert report.format == "own-jsonl"
    assert [(r.id, r.parent, r.think_time_s) for r in workload] == [(4, None, 0.0), (9, 4, 1.5)]


def test_parents_without_ids_count_rows_from_zero(tmp_path):
    rows = "arrival_s,prompt_tokens,output_tokens,parent,think_time_s\n5,10,1,,\n0,10,1,,\n7,10,1,0,2\n"
    workload, _ = loaded(tmp_path, rows)
    assert [(r.id, r.arrival_s, r.parent) for r in workload] == [(1, 0.0, None), (0, 5.0, None), (2, 7.0, 0)]


@pytest.mark.parametrize("content", [MOONCAKE, AZURE_2023, AZURE_2024, BURSTGPT_6, BURSTGPT_8, OWN_CSV, OWN_JSONL])
def test_every_format_reads_the_same_gzipped_with_crlf_bom_and_blank_lines(tmp_path, content):
    plain, _ = loaded(tmp_path, content)
    zipped, _ = load(written(tmp_path, gzip.compress(content.encode()), "t.gz"))
    misnamed, _ = load(written(tmp_path, gzip.compress(content.encode()), "t.csv"))
    dressed, _ = loaded(tmp_path, "\ufeff" + content.replace("\n", "\r\n") + "\r\n\r\n")
    assert plain.sha256 == zipped.sha256 == misnamed.sha256 == dressed.sha256


def test_a_named_format_is_held_to(tmp_path):
    assert loaded(tmp_path, MOONCAKE, format="mooncake")[0].requests
    with pytest.raises(InputError, match="fit no trace format"):
        loaded(tmp_path, MOONCAKE, format="own-jsonl")
    with pytest.raises(InputError, match="'parquet' is unknown"):
        loaded(tmp_path, MOONCAKE, format="parquet")


def test_rows_out_of_order_are_sorted_and_reported(tmp_path):
    lines = MOONCAKE.splitlines(keepends=True)
    workload, report = loaded(tmp_path, lines[2] + lines[0] + lines[1])
    in_order, _ = loaded(tmp_path, MOONCAKE)
    assert workload.sha256 == in_order.sha256
    assert report.out_of_order == 1
    assert workload.repairs == ("sorted by arrival (1 rows were out of order)",)


def test_max_requests_reads_no_further(tmp_path):
    workload, report = loaded(tmp_path, MOONCAKE + "garbage\n", max_requests=2)
    assert len(workload) == report.rows == 2
    with pytest.raises(InputError, match="line 4"):
        loaded(tmp_path, MOONCAKE + "garbage\n", max_requests=4)
    with pytest.raises(InputError, match="max_requests is 0"):
        loaded(tmp_path, MOONCAKE, max_requests=0)


def test_other_block_sizes(tmp_path):
    row = '{"timestamp": 0, "input_length": 40, "output_length": 5, "hash_ids": [0, 1, 2]}\n'
    workload, _ = loaded(tmp_path, row, block_tokens=16)
    assert workload.block_tokens == 16
    with pytest.raises(InputError, match="not one block id per 512"):
        loaded(tmp_path, row)


def test_own_jsonl_keeps_every_field(tmp_path):
    requests = (
        Request(3, 0.1, 600, 7, (1, 2), session=5, tenant="gold", slo_class="batch", priority=-2, deadline_s=9.5),
        Request(4, 1 / 3, 700, 8, (1, 3), session=5, parent=3, think_time_s=0.2),
        Request(5, 1 / 3, 10, 1, (9,)),
    )
    workload = Workload("w", requests)
    back, _ = load(save(workload, tmp_path / "w.jsonl"))
    assert back.requests == requests and back.sha256 == workload.sha256
    changed = replace(workload, requests=(replace(requests[0], deadline_s=9.0), *requests[1:]))
    assert load(save(changed, tmp_path / "w.jsonl"))[0].sha256 != workload.sha256


@pytest.mark.parametrize("name", ["agents", "conversation", "poisson", "chat"])
def test_generated_workloads_survive_a_file(tmp_path, name):
    workload = generate(name, requests=300, seed=2)
    assert load(save(workload, tmp_path / "w.jsonl.gz"))[0].sha256 == workload.sha256


def test_mooncake_and_azure_files_round_times_to_what_they_can_hold(tmp_path):
    conversation, chat = generate("conversation", requests=300, seed=2), generate("chat", requests=300, seed=2)
    back, report = load(save(conversation, tmp_path / "c.jsonl", "mooncake"))
    assert report.format == "mooncake"
    assert [r.prefix_blocks for r in back] == [r.prefix_blocks for r in conversation]
    assert all(abs(a.arrival_s - b.arrival_s) <= 5.01e-4 for a, b in zip(back, conversation, strict=True))
    back, report = load(save(chat, tmp_path / "c.csv", "azure"))
    assert report.format == "azure"
    start = chat.requests[0].arrival_s
    assert all(abs(a.arrival_s - (b.arrival_s - start)) <= 1.01e-7 for a, b in zip(back, chat, strict=True))
    assert [r.output_tokens for r in back] == [r.output_tokens for r in chat]


def test_gzipped_files_have_the_same_bytes_every_time(tmp_path):
    workload = generate("chat", requests=50, seed=2)
    one, two = (save(workload, tmp_path / n, "azure").read_bytes() for n in ("a.csv.gz", "b.csv.gz"))
    assert one == two
    assert one[4:8] == bytes(4)  # no modification time
    assert b"a.csv" not in one


@pytest.mark.parametrize(
    ("name", "format", "sentence"),
    [
        ("agents", "mooncake", "cannot hold parents"),
        ("agents", "azure", "cannot hold parents"),
        ("poisson", "mooncake", "needs prefix blocks of 512"),
        ("conversation", "azure", "cannot hold prefix blocks"),
        ("poisson", "own-csv", "cannot write the format"),
    ],
)
def test_a_format_refuses_what_it_cannot_hold(tmp_path, name, format, sentence):
    with pytest.raises(InputError, match=sentence):
        save(generate(name, requests=40, seed=2), tmp_path / "w", format)


def test_saving_refuses_nothing_and_nowhere(tmp_path):
    with pytest.raises(InputError, match="nothing to write"):
        save(Workload("w", ()), tmp_path / "w")
    with pytest.raises(InputError, match="cannot be written"):
        save(generate("poisson", requests=3), tmp_path / "no" / "folder.jsonl")
