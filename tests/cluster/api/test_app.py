"""The HTTP interface, held against what clients of it expect; the cluster is a script here."""

import pytest

from helpers.cluster.api.app import Endpoint
from helpers.cluster.api.gateway import End
from helpers.cluster.messages import pack
from helpers.engine.tokenizer import ByteTokenizer
from tests.cluster.api.calls import Script, call

HELLO = [ord(c) for c in "hello"]


def server(gateway=None, **how):
    gateway = gateway or Script(HELLO)
    return gateway, Endpoint(gateway, ByteTokenizer(), "tiny", **how).application()


def test_a_completion():
    gateway, app = server()
    body = {"model": "tiny", "prompt": "say", "max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "seed": 7}
    answer = call(app, "/v1/completions", body)
    assert answer.status == 200
    assert answer.json["object"] == "text_completion"
    assert answer.json["choices"] == [{"index": 0, "text": "hello", "logprobs": None, "finish_reason": "length"}]
    assert answer.json["usage"]["prompt_tokens"] == 3
    assert answer.json["usage"]["completion_tokens"] == 5
    assert answer.json["usage"]["total_tokens"] == 8
    assert gateway.asked == [([115, 97, 121], 5, (0.5, 0.9, 0, 7), (257,))]
    assert gateway.left == [0]


def test_a_conversation():
    gateway, app = server(Script([*HELLO, 257]))
    messages = [{"role": "system", "content": "be"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    answer = call(app, "/v1/chat/completions", {"messages": messages})
    (choice,) = answer.json["choices"]
    assert choice["message"] == {"role": "assistant", "content": "hello"}
    assert choice["finish_reason"] == "stop"  # the end token came, and is no text
    assert bytes(gateway.asked[0][0]) == b"system: be\nuser: hi\nassistant:"


def test_a_stream_says_the_same_in_parts():
    _, app = server(Script(HELLO, End("finished", "", 2)))
    body = {"prompt": "say", "max_tokens": 5, "stream": True, "stream_options": {"include_usage": True}}
    answer = call(app, "/v1/completions", body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *parts, end, counts, done = answer.events
    assert done == "[DONE]"
    assert "".join(p["choices"][0]["text"] for p in parts) == "hello"
    assert len(parts) == 5
    assert [p["choices"][0]["finish_reason"] for p in (*parts, end)] == [None] * 5 + ["length"]
    assert (counts["choices"], counts["usage"]["completion_tokens"]) == ([], 5)
    assert counts["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}
    assert len({p["id"] for p in (*parts, end, counts)}) == 1
    plain = call(app, "/v1/completions", {**body, "stream_options": None}).events
    assert not any("usage" in p for p in plain[:-1])  # control: nobody asked for counts


def test_a_conversation_streams_its_role_first():
    _, app = server()
    body = {"messages": [{"role": "user", "content": "x"}], "stream": True, "max_tokens": 5}
    first, *rest, end, done = call(app, "/v1/chat/completions", body).events
    assert first["object"] == "chat.completion.chunk"
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(p["choices"][0]["delta"]["content"] for p in rest) == "hello"
    assert end["choices"][0]["delta"] == {} and done == "[DONE]"


def test_a_stop_text_ends_an_answer_and_frees_its_place():
    gateway, app = server(Script(HELLO, waits=True))
    answer = call(app, "/v1/completions", {"prompt": "say", "max_tokens": 5, "stop": ["ello"]})
    assert answer.json["choices"][0]["text"] == "h"
    assert answer.json["choices"][0]["finish_reason"] == "stop"
    assert gateway.left == [0]


@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_is_taken_out(stream):
    gateway, app = server(Script(HELLO, waits=True))
    body = {"prompt": "say", "max_tokens": 50, "stream": stream}
    call(app, "/v1/completions", body, leave_after=2 if stream else 0)
    assert gateway.left == [0]


def test_who_leaves_before_his_body_is_there_asks_for_nothing():
    gateway, app = server()
    assert call(app, "/v1/completions", GOOD, half=True).status == 499  # nobody reads it; what counts is no exception
    assert gateway.asked == []
    assert call(app, "/v1/completions", GOOD).status == 200  # control


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("end", "status"),
    [
        (End("rejected", "the queue is full", 0), 429),
        (End("rejected", "no worker is left that could serve it", 0), 503),
        (End("unfinished", "worker 1 was lost", 0), 503),
    ],
)
def test_who_is_turned_away_is_told_why(end, status, stream):
    _, app = server(Script((), end))
    answer = call(app, "/v1/completions", {"prompt": "say", "stream": stream})
    assert answer.status == status
    assert answer.json["error"]["message"] == end.reason
    counted = {429: "rejected", 503: "failed"}[status]
    assert f'hybrid_serving_requests_total{{status="{counted}"}} 1.0' in call(app, "/metrics").text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("end", "told"),
    [
        (End("rejected", "late", 0, 2.1), "3"),  # whole seconds, rounded up
        (End("rejected", "late", 0, 0.01), "1"),
        (End("rejected", "late", 0, float("inf")), "30"),
        (End("rejected", "the queue is full", 0), "1"),  # a policy that predicts nothing
        (End("unfinished", "worker 1 was lost", 0), "1"),
        (End("rejected", "no worker is left that could serve it", 0), None),  # to wait does not help
        (End("unfinished", "the server has ended", 0), None),
    ],
)
def test_who_is_turned_away_is_told_when_to_come_again(end, told, stream):
    _, app = server(Script((), end))
    answer = call(app, "/v1/completions", {"prompt": "say", "stream": stream})
    assert (answer.status in (429, 503), answer.headers.get("retry-after")) == (True, told)


def test_a_full_server_and_a_wrong_request():
    gateway, app = server()
    gateway.inside = gateway.most
    full = call(app, "/v1/completions", GOOD)
    assert (full.status, full.headers["retry-after"]) == (429, "1")
    gateway.inside = 0
    wrong, good = (call(app, "/v1/completions", body) for body in ({"prompt": ""}, GOOD))
    assert (wrong.status, good.status) == (400, 200)  # the controls: neither gets better by waiting
    assert "retry-after" not in {*wrong.headers, *good.headers}


def test_a_stream_that_breaks_off_says_so():
    _, app = server(Script(HELLO[:2], End("unfinished", "worker 1 was lost", 0)))
    *_, broken, done = call(app, "/v1/completions", {"prompt": "say", "stream": True}).events
    assert broken["error"]["message"] == "worker 1 was lost" and done == "[DONE]"


GOOD = {"prompt": "say"}
WRONG = [
    ({}, 400, "prompt is neither"),
    ({"prompt": ""}, 400, "empty"),
    ({"prompt": [1, "x"]}, 400, "neither"),
    ({**GOOD, "model": "gpt-9"}, 404, "not served here"),
    ({**GOOD, "max_tokens": 0}, 400, "max_tokens is 0"),
    ({**GOOD, "max_tokens": True}, 400, "max_tokens"),
    ({**GOOD, "max_tokens": 101}, 400, "from 1 to 100"),
    ({**GOOD, "n": 2}, 400, "one answer"),
    ({**GOOD, "logprobs": 3}, 400, "logprobs"),
    ({**GOOD, "logprobs": 0}, 400, "logprobs"),
    ({**GOOD, "frequency_penalty": 0.5}, 400, "frequency_penalty"),
    ({**GOOD, "repetition_penalty": 1.2}, 400, "repetition_penalty"),
    ({**GOOD, "response_format": {"type": "json_object"}}, 400, "response_format"),
    ({**GOOD, "max_tokens": 5, "min_tokens": 3}, 400, "min_tokens is 3"),
    ({**GOOD, "top_k": 1.5}, 400, "whole number"),
    ({"prompt": "\ud800"}, 400, "surrogate"),
    ({**GOOD, "temperature": "hot"}, 400, "temperature"),
    ({**GOOD, "temperature": -1}, 400, "temperature"),
    ({**GOOD, "top_p": 0}, 400, "top_p"),
    ({**GOOD, "stop": ["a"] * 5}, 400, "at most 4"),
    ({**GOOD, "stream": "yes"}, 400, "true or false"),
    ([1], 400, "not a JSON object"),
    (b"{", 400, "not JSON"),
    (b"[" * 100_000, 400, "not JSON"),
    ({"prompt": "x" * 450}, 400, "beyond the context"),
]


@pytest.mark.parametrize(("body", "status", "said"), WRONG)
def test_a_wrong_request_gets_one_sentence(body, status, said):
    gateway, app = server(most_tokens=100, most_body_bytes=200_000)
    if body == {"prompt": "x" * 450}:
        body["max_tokens"] = 100
    answer = call(app, "/v1/completions", body)
    assert (answer.status, said in answer.json["error"]["message"]) == (status, True), answer.text
    assert gateway.asked == []
    assert call(app, "/v1/completions", GOOD).status == 200  # control


@pytest.mark.parametrize(
    "more",
    [
        {"frequency_penalty": 0, "repetition_penalty": 1.0, "logprobs": None, "response_format": {"type": "text"}},
        {"user": "me", "metadata": {"a": 1}, "logit_bias": {}, "tools": [], "n": 1},
    ],
)
def test_what_asks_for_nothing_is_no_reason_to_refuse(more):
    _, app = server()
    assert call(app, "/v1/completions", {**GOOD, "max_tokens": 5, **more}).json["choices"][0]["text"] == "hello"


def test_either_name_of_the_most_tokens_counts():
    for more, most in (
        ({"max_tokens": 2}, 2),
        ({"max_completion_tokens": 3, "max_tokens": 2}, 3),
        ({"max_completion_tokens": None, "max_tokens": 2}, 2),
        ({"max_completion_tokens": None, "max_tokens": None}, 16),
    ):
        gateway, app = server()
        assert call(app, "/v1/completions", {**GOOD, **more}).status == 200
        assert gateway.asked[0][1] == most


def test_load_generators_get_all_the_tokens_they_want():
    """In either way of saying so the end token of the model (257) ends no answer."""
    for more, ends in (({}, (257,)), ({"ignore_eos": True}, ()), ({"min_tokens": 5}, ()), ({"min_tokens": 0}, (257,))):
        gateway, app = server()
        assert call(app, "/v1/completions", {**GOOD, "max_tokens": 5, **more}).status == 200
        assert gateway.asked[0][3] == ends


def test_a_number_beyond_those_of_a_machine_reaches_no_worker():
    """It could not be written into a message to one, and whoever tries to has ended."""
    gateway, app = server()
    for top_k in (10**30, 2**40, -1):
        assert call(app, "/v1/completions", {**GOOD, "top_k": top_k, "seed": 10**40, "temperature": 1}).status == 200
    for _, _, (*_, top_k, seed), _ in gateway.asked:
        assert 0 <= top_k < 2**31 and 0 <= seed < 2**32
        pack({"kind": "submit", "sampling": [top_k, seed]})
    with pytest.raises(OverflowError):
        pack({"kind": "submit", "sampling": [10**30]})  # control


def test_nobody_waits_for_a_cluster_that_has_ended():
    gateway, app = server(Script((), waits=True))
    gateway.failed = OverflowError("a worker cannot be told")
    answer = call(app, "/v1/completions", GOOD)
    assert (answer.status, gateway.asked) == (503, [])
    assert "start it again" in answer.json["error"]["message"]
    gateway.failed, gateway.waits = None, False
    assert call(app, "/v1/completions", GOOD).status == 200  # control


@pytest.mark.parametrize(
    "messages", [None, [], [{"role": "user"}], [{"role": "judge", "content": "x"}], [{"role": "user", "content": [{}]}]]
)
def test_wrong_messages_are_refused(messages):
    _, app = server()
    assert call(app, "/v1/chat/completions", {"messages": messages}).status == 400


def test_a_body_has_a_size_and_a_type():
    _, app = server(most_body_bytes=100)
    assert call(app, "/v1/completions", {"prompt": "x" * 200}).status == 413
    plain = call(app, "/v1/completions", GOOD, headers={"content-type": "text/plain"})
    assert plain.status == 415  # what a page of another origin can send without asking
    assert call(app, "/v1/completions", GOOD).status == 200


def test_a_key_is_asked_for():
    _, app = server(api_key="secret")
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Basic secret"},
        {"authorization": "secret"},
    ):
        assert call(app, "/v1/completions", GOOD, headers).status == 401
        assert call(app, "/v1/models", headers=headers).status == 401
    right = {"authorization": "Bearer secret"}
    assert call(app, "/v1/completions", GOOD, right).status == 200
    assert call(app, "/v1/models", headers=right).status == 200
    assert call(app, "/health").status == 200  # for who watches over it


def test_only_a_name_of_this_machine_is_answered():
    """A page of another site can make its name point here, and its browser then thinks that both are one."""
    _, app = server(hosts=("localhost", "127.0.0.1", "::1"))
    for host in ("localhost:8000", "127.0.0.1:8000", "[::1]:8000"):
        assert call(app, "/v1/completions", GOOD, {"host": host}).status == 200
    for host in ("example.org", "localhost.example.org:8000"):
        assert call(app, "/v1/completions", GOOD, {"host": host}).status == 403
        assert call(app, "/v1/models", headers={"host": host}).status == 403
    _, app = server()
    assert call(app, "/v1/models", headers={"host": "example.org"}).status == 200  # control: with a key it may be


def test_too_many_at_once_are_turned_away():
    gateway, app = server()
    gateway.inside = 4
    assert call(app, "/v1/completions", GOOD).status == 429
    gateway.inside = 3
    assert call(app, "/v1/completions", GOOD).status == 200


def test_the_model_health_and_counts():
    gateway, app = server()
    (model,) = call(app, "/v1/models").json["data"]
    assert (model["id"], model["max_model_len"]) == ("tiny", 512)
    assert call(app, "/health").json == {"status": "ok", "workers": [True]}
    call(app, "/v1/completions", {"prompt": "say", "max_tokens": 3})
    text = call(app, "/metrics").text
    for line in (
        'hybrid_serving_requests_total{status="finished"} 1.0',
        "hybrid_serving_prompt_tokens_total 3.0",
        "hybrid_serving_generation_tokens_total 3.0",
        "hybrid_serving_time_to_first_token_seconds_count 1.0",
        "hybrid_serving_time_per_output_token_seconds_count 1.0",
        'hybrid_serving_worker_kv_used_share{role="mixed",worker="0"} 0.5',
        'hybrid_serving_worker_waiting_tokens{role="mixed",worker="0"} 30.0',
    ):
        assert line in text
    gateway.cluster.views.decode = ()
    assert (call(app, "/health").status, call(app, "/health").json["status"]) == (503, "down")
    gateway.cluster.views.decode = (0,)


def test_other_paths_and_methods_are_not_there():
    _, app = server()
    for answer, status in (
        (call(app, "/v1/embeddings", GOOD), 404),
        (call(app, "/v1/completions", method="GET"), 405),
    ):
        assert answer.status == status
        assert answer.json["error"]["type"] == "invalid_request_error"  # clients read errors as JSON
