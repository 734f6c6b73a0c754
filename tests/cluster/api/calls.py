"""Calls to an application without a server, and a gateway that answers from a script."""

import asyncio
import json

from helpers.cluster.api.gateway import End, Token
from helpers.errors import InputError
from helpers.policies.view import WorkerView


class Views:
    prefill = decode = (0,)


class Script:
    """A gateway whose answers are given: `tokens`, then an `end`. `waits`: it never comes to the end by itself."""

    max_context, most, failed = 512, 4, None

    def __init__(self, tokens=(), end=None, waits=False):
        self.tokens, self.end, self.waits = list(tokens), end or End("finished", "", 0), waits
        self.asked, self.left = [], []
        self.inside = 0
        self.cluster = type("Cluster", (), {"views": Views()})()

    def start(self):
        pass

    def close(self):
        pass

    def ask(self, prompt, max_tokens, hear, sampling, stop):
        if len(prompt) + max_tokens > self.max_context:
            raise InputError("beyond the context")
        self.asked.append((prompt, max_tokens, sampling, stop))
        for token in self.tokens[:max_tokens]:
            hear(Token(token))
        if not self.waits:
            hear(self.end)
        return len(self.asked) - 1

    def leave(self, number):
        self.left.append(number)

    def views(self):
        return [WorkerView(0, "mixed", 0.0, 2, 1, 30, 40, 5, 10)]

    def alive(self):
        return [True]


class Answer:
    """The status, headers and body of a response."""

    def __init__(self, messages):
        self.status = messages[0]["status"]
        self.headers = {k.decode(): v.decode() for k, v in messages[0]["headers"]}
        self.parts = [m["body"] for m in messages[1:] if m["body"]]
        self.text = b"".join(self.parts).decode()

    @property
    def json(self):
        return json.loads(self.text)

    @property
    def events(self):
        """The data of each event of a stream."""
        found = [block.removeprefix("data: ") for block in self.text.split("\n\n") if block]
        return [one if one == "[DONE]" else json.loads(one) for one in found]


def call(app, path, body=None, headers=None, method=None, leave_after=None, half=False):
    """One request; `body` is sent as JSON unless it is bytes. The client leaves after so many parts of the answer, or
    when `half` of its body was sent."""
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    sent = {"content-type": "application/json", **(headers or {})}
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
        "method": method or ("GET" if body is None else "POST"), "path": path, "raw_path": path.encode(),
        "query_string": b"", "root_path": "", "scheme": "http", "server": ("127.0.0.1", 80), "client": ("c", 1),
        "headers": [(k.lower().encode(), v.encode()) for k, v in sent.items()],
    }  # fmt: skip

    async def run():
        messages, gone = [], asyncio.Event()
        if leave_after == 0 or half:
            gone.set()
        pending = [{"type": "http.request", "body": data[: len(data) // 2] if half else data, "more_body": half}]

        async def receive():
            if pending:
                return pending.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            messages.append(message)
            if leave_after is not None and len(messages) > leave_after:
                gone.set()

        await asyncio.wait_for(app(scope, receive, send), 30)
        return Answer(messages) if messages else None

    return asyncio.run(run())
