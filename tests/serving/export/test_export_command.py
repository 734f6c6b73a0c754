"""`hybrid-serving export`: shell that can be pasted, YAML that can be read, comments, and the last line."""

import json
import shlex

import pytest
import yaml

from helpers.cli import main


def spoken(capsys, *arguments):
    """(exit code, lines of stdout, stderr) of `export`."""
    with pytest.raises(SystemExit) as left:
        main(["export", *arguments])
    out, err = capsys.readouterr()
    return left.value.code or 0, out.splitlines(), err


def commands(lines: list[str]) -> list[list[str]]:
    """The commands among the lines, as a shell would split them."""
    text = "\n".join(line for line in lines if not line.startswith("#")).replace("\\\n", " ")
    return [shlex.split(line) for line in text.splitlines() if line.startswith(("python ", "vllm"))]


def test_the_commands_hold_the_flags_of_the_last_line(capsys):
    given = ("--for", "dynamo", "--router", "dynamo", "--router-set", "temperature=0.25", "--split", "1P2D")
    code, lines, err = spoken(capsys, *given)
    assert (code, err) == (0, "")
    line = json.loads(lines[-1])
    frontend, prefill, decode = commands(lines[:-1])
    assert frontend[frontend.index("--router-temperature") + 1] == "0.25"
    assert [c["count"] for c in line["components"]] == [1, 1, 2]
    assert decode[decode.index("--disaggregation-mode") + 1] == "decode"
    assert json.loads(prefill[prefill.index("--kv-transfer-config") + 1])["kv_role"] == "kv_both"
    for typed, one in zip((frontend, prefill, decode), line["components"], strict=True):
        assert set(one["flags"]) <= set(typed)


def test_the_document_is_yaml_and_that_of_the_last_line(capsys):
    code, lines, _ = spoken(capsys, "--for", "llm-d", "--router", "llm_d", "--admission", "probabilistic")
    assert code == 0
    start = lines.index("apiVersion: llm-d.ai/v1alpha1")
    document = yaml.safe_load("\n".join(lines[start:-1]))
    assert document == json.loads(lines[-1])["document"]
    assert not any("&id" in line or "*id" in line for line in lines)  # references would puzzle readers
    admitter = next(p for p in document["plugins"] if p["type"] == "probabilistic-admitter")
    assert repr(admitter["parameters"]["queueDepthThreshold"]) == "5"  # a whole number stays one


def test_what_has_no_word_is_a_comment_and_in_the_last_line(capsys):
    _, lines, _ = spoken(capsys, "--for", "sglang", "--router", "mooncake")
    missing = json.loads(lines[-1])["missing"]
    assert missing and all(f"# no equivalent: {one}" in lines for one in missing)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "--for"),
        (["--for", "tgi"], "--for 'tgi' is unknown; use one of dynamo, sglang, llm-d, vllm"),
        (["--for", "vllm", "--router", "luck"], "router 'luck' is unknown"),
        (["--for", "vllm", "--admission", "luck"], "admission 'luck' is unknown"),
        (["--for", "vllm", "--router", "dynamo", "--router-set", "heat=1"], "parameter 'heat' is unknown"),
        (["--for", "vllm", "--router", "dynamo", "--router-set", "temperature=hot"], "temperature"),
        (["--for", "vllm", "--split", "2P"], "split '2P'"),
        (["--for", "vllm", "--split", "2P2D", "--workers", "3"], "3 were asked for"),
        (["--for", "vllm", "--model", "gpt-9"], "gpt-9"),
        (["--for", "vllm", "--model", "llama-3.1-405b"], "raise tp"),
    ],
)
def test_bad_input_is_one_sentence(arguments, sentence, capsys):
    code, lines, err = spoken(capsys, *arguments)
    assert (code, lines) == (2, [])
    assert sentence in err and err.startswith("hybrid-serving: ") and err.count("\n") == 1
