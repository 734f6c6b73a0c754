import gzip
import json

import pytest

from helpers.errors import InputError
from helpers.workload.traces import load
from tests.workload.trace_samples import AZURE_2023, BURSTGPT_6, MOONCAKE, OWN_CSV, OWN_JSONL, loaded, written


def bad(content, old, new):
    assert old in content
    return content.replace(old, new)


# What is wrong, where it must be said to be, and what must be said of it.
BAD_ROWS = {
    "json": (bad(MOONCAKE, '"input_length": 1300,', '"input_length": 1300'), "line 2", "malformed JSON"),
    "cut off": (MOONCAKE[:-20], "line 3", "malformed JSON"),
    "array": (MOONCAKE + "[1, 2]\n", "line 4", "not a JSON object"),
    "missing": (bad(MOONCAKE, '"output_length": 60, ', ""), "line 2, field output_length", "missing"),
    "unknown": (bad(MOONCAKE, '"output_length": 60', '"output_length": 60, "model": 1'), "field model", "not a field"),
    "text": (bad(MOONCAKE, "1300", '"many"'), "line 2, field input_length", "not a whole number"),
    "half": (bad(MOONCAKE, "1300", "1300.5"), "line 2, field input_length", "not a whole number"),
    "boolean": (bad(MOONCAKE, "1300", "true"), "line 2, field input_length", "not a whole number"),
    "negative": (bad(MOONCAKE, "1300", "-1300"), "line 2, field input_length", "negative length"),
    "zero output": (bad(MOONCAKE, "60", "0"), "line 2, field output_length", "zero length"),
    "early": (bad(MOONCAKE, "2500", "-1"), "line 2, field timestamp", "negative time"),
    "infinite": (bad(MOONCAKE, "2500", "1e999"), "line 2, field timestamp", "not a number"),
    "nan": (bad(MOONCAKE, "2500", "NaN"), "line 2, field timestamp", "not a number"),
    "blocks missing": (bad(MOONCAKE, "[0, 2, 3]", "[0, 2]"), "line 2, field hash_ids", "not one block id per 512"),
    "blocks twice": (bad(MOONCAKE, "[0, 2, 3]", "[0, 2, 2]"), "line 2, field hash_ids", "occurs twice"),
    "blocks text": (bad(MOONCAKE, "[0, 2, 3]", '["a", "b", "c"]'), "line 2, field hash_ids", "not a list of whole"),
    "blocks none": (bad(MOONCAKE, "[0, 2, 3]", "null"), "line 2, field hash_ids", "not a list of whole"),
    "date": (bad(AZURE_2023, "2023-11-16 18:17:04.0319601", "16 Nov"), "line 3, field TIMESTAMP", "not a date"),
    "columns": (bad(AZURE_2023, ",3180,8", ",3180"), "line 3", "not 3 columns"),
    "context": (bad(AZURE_2023, "3180", "x"), "line 3, field ContextTokens", "not a whole number"),
    "failed": (bad(BURSTGPT_6, "1087,230", "0,0"), "line 3, field Request tokens", "zero length"),
    "answerless": (bad(BURSTGPT_6, "1087,230", "1087,0"), "line 3, field Response tokens", "zero length"),
    "seconds": (bad(BURSTGPT_6, "45,", "soon,"), "line 3, field Timestamp", "not a number"),
    "own priority": (bad(OWN_CSV, ",2,7", ",high,7"), "line 3, field priority", "not a whole number"),
    "own blocks": (bad(OWN_CSV, "7 8", "7;8"), "line 2, field prefix_blocks", "separated by spaces"),
    "own parent": (bad(OWN_JSONL, '"parent": 4', '"parent": 5'), "line 2, field parent", "not the id of a request"),
    "own itself": (bad(OWN_JSONL, '"parent": 4', '"parent": 9'), "line 2, field parent", "not the id of a request"),
    "own twice": (bad(OWN_JSONL, '"id": 9', '"id": 4'), "line 2, field id", "used twice"),
    "own without": (bad(OWN_JSONL, '"id": 9, ', ""), "line 2, field id", "missing, though"),
    "own tenant": (bad(OWN_JSONL, '"parent": 4', '"tenant": 4'), "line 2, field tenant", "not text"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_bad_row_is_one_sentence_with_file_line_field_and_reason(tmp_path, case):
    content, where, reason = BAD_ROWS[case]
    with pytest.raises(InputError) as caught:
        loaded(tmp_path, content)
    sentence = str(caught.value)
    assert "trace.txt, " + (where if where.startswith("line") else "line 2, " + where) in sentence
    assert reason in sentence
    assert "--skip-bad" in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_bad_row_is_skipped_and_counted_when_asked(tmp_path, case):
    content, _, reason = BAD_ROWS[case]
    workload, report = loaded(tmp_path, content, skip_bad=True)
    assert sum(n for _, n in report.skipped) == 1
    assert reason in report.skipped[0][0]
    assert len(report.first_skipped) == 1 and reason in report.first_skipped[0]
    assert report.loaded == len(workload) == report.rows - 1
    assert workload.repairs == (f"1 of {report.rows} rows skipped",)


def test_skipping_counts_by_reason_and_takes_children_along(tmp_path):
    rows = [
        {"id": 0, "arrival_s": 0, "prompt_tokens": 0, "output_tokens": 1},
        {"id": 1, "arrival_s": 1, "prompt_tokens": 5, "output_tokens": 1, "parent": 0},
        {"id": 2, "arrival_s": 2, "prompt_tokens": 5, "output_tokens": 1, "parent": 1},
        {"id": 3, "arrival_s": 3, "prompt_tokens": -5, "output_tokens": 1},
        {"id": 4, "arrival_s": 4, "prompt_tokens": -6, "output_tokens": 1},
        {"id": 5, "arrival_s": 5, "prompt_tokens": 6, "output_tokens": 1},
    ]
    workload, report = loaded(tmp_path, "".join(json.dumps(r) + "\n" for r in rows), skip_bad=True)
    assert [r.id for r in workload] == [5]
    assert dict(report.skipped) == {
        "prompt_tokens: zero length (a failed request)": 1,
        "parent: not the id of a request that arrives before this one": 2,
        "prompt_tokens: negative length": 2,
    }


def test_a_prompt_beyond_the_context_is_refused_or_skipped(tmp_path):
    with pytest.raises(InputError, match=r"line 2, field input_length: prompt \+ output exceed the context of 1359"):
        loaded(tmp_path, MOONCAKE, max_context=1359)
    assert len(loaded(tmp_path, MOONCAKE, max_context=1360)[0]) == 3
    workload, report = loaded(tmp_path, MOONCAKE, max_context=1359, skip_bad=True)
    assert [r.prompt_tokens for r in workload] == [1000, 512]
    assert dict(report.skipped) == {"input_length: prompt + output exceed the context of 1359 tokens": 1}


ZIPPED = gzip.compress(MOONCAKE.encode(), mtime=0)
UNREADABLE = {
    "empty": (b"", "t.jsonl", "the trace is empty"),
    "blank": (b"\n\n \n", "t.jsonl", "the trace is empty"),
    "header only": (AZURE_2023.splitlines()[0].encode(), "t.csv", "no usable row among 0"),
    "empty gzip": (gzip.compress(b""), "t.gz", "the trace is empty"),
    "empty file called gz": (b"", "t.gz", "the trace is empty"),
    "truncated gzip": (ZIPPED[:-10], "t.gz", "truncated"),
    "corrupt gzip": (ZIPPED[:30] + bytes(10) + ZIPPED[40:], "t.gz", "corrupt"),
    "wrong checksum": (ZIPPED[:-8] + bytes(4) + ZIPPED[-4:], "t.gz", "corrupt"),
    "gz by name only": (MOONCAKE.encode(), "t.jsonl.gz", "not gzip"),
    "binary": (bytes(range(128, 256)) * 10, "t.csv", "not UTF-8"),
    "wrong columns": (b"time,input,output\n1,2,3\n", "t.csv", "line 1: columns 'time', 'input', 'output' fit no"),
    "twice": (b"arrival_s,prompt_tokens,output_tokens,session,session\n", "t.csv", "fit no trace format"),
    "extra column": (bad(OWN_CSV, "tenant", "tenand").encode(), "t.csv", "fit no trace format"),
    "not a trace": (b"hello world\n", "t.txt", "fit no trace format"),
    "broken first line": (b'{"timestamp": 0,\n', "t.jsonl", "line 1, field (line): malformed JSON"),
    "wrong keys": (b'{"a": 1}\n', "t.jsonl", "columns 'a' fit no trace format ("),
    "one name off": (
        b"timestamp,prompt_tokens,output_tokens\n",
        "t.csv",
        "the nearest, own-csv, misses 'arrival_s' and has no 'timestamp' (",
    ),
    "one field short": (
        b'{"timestamp": 0, "input_length": 5, "output_length": 5}\n',
        "t.jsonl",
        "the nearest, mooncake, misses 'hash_ids' (",
    ),
    "one column more": (
        b"TIMESTAMP,ContextTokens,GeneratedTokens,model\n",
        "t.csv",
        "the nearest, azure, has no 'model' (",
    ),
    "a JSON list": (b'[{"arrival_s": 0, "prompt_tokens": 5, "output_tokens": 5}]\n', "t.json", "this is a JSON list"),
    "dates in s": (
        b"arrival_s,prompt_tokens,output_tokens\n1700000000.5,5,5\n",
        "t.csv",
        "a date, not the time since the trace began",
    ),
    "dates in ms": (
        b'{"timestamp": 1700000000500, "input_length": 5, "output_length": 5, "hash_ids": [0]}\n',
        "t.jsonl",
        "a date, not the time since the trace began",
    ),
}


def test_a_time_of_years_is_still_no_date(tmp_path):
    """The control of the two dates above: 99,999,999 s, three years and two months, may be a time since a start."""
    text = "arrival_s,prompt_tokens,output_tokens\n99999999,5,5\n"
    assert load(written(tmp_path, text.encode(), "t.csv"))[0].requests[0].arrival_s == 99_999_999


@pytest.mark.parametrize("case", UNREADABLE)
@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_file_that_cannot_be_used_is_refused_even_when_skipping(tmp_path, case, skip_bad):
    content, name, sentence = UNREADABLE[case]
    path = written(tmp_path, content, name)
    with pytest.raises(InputError) as caught:
        load(path, skip_bad=skip_bad)
    assert str(path) in str(caught.value)
    assert sentence in str(caught.value)


def test_nothing_left_after_skipping_is_refused_with_the_reasons(tmp_path):
    content = "Timestamp,Model,Request tokens,Response tokens\n1,m,0,0\n2,m,5,0\n"
    with pytest.raises(InputError, match=r"no usable row among 2: Request tokens: zero.* \(1\); Response tokens"):
        loaded(tmp_path, content, skip_bad=True)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(InputError, match="there is no such trace file"):
        load(tmp_path / "none.csv")
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path)
