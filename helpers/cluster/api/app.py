"""The HTTP interface: `/v1/completions`, `/v1/chat/completions`, `/v1/models`, `/health`, `/metrics`."""

import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from math import ceil

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from helpers.cluster.api.answering import LEFT, Answering, Closed
from helpers.cluster.api.answers import Named, error, event, usage_of
from helpers.cluster.api.asks import ask_of
from helpers.cluster.api.gateway import Gateway
from helpers.cluster.api.metrics import Metrics
from helpers.engine.tokenizer import Tokenizer
from helpers.errors import InputError

MOST_WAIT_S = 30
DONE = "[DONE]"


class Refusal(Exception):
    """A request that is not served, with its HTTP status; with `retry_after_s` its client is told to come again."""

    def __init__(
        self, status: int, message: str, kind: str = "invalid_request_error", retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.kind = status, kind
        self.headers = {} if retry_after_s is None else {"Retry-After": retry_after(retry_after_s)}


def retry_after(seconds: float) -> str:
    """The header's value: whole seconds (RFC 9110, section 10.2.3), rounded up, from 1 to 30.

    What an admission policy predicts is an estimate of the backlog now, and others come meanwhile: one that is too
    short costs a client a further refusal, one that is too long keeps it away from a server with room, hence the
    bound (llm-d plans the same one). Where nothing was predicted it is one second.
    """
    return str(ceil(min(MOST_WAIT_S, max(1.0, seconds))))


class Endpoint:
    """The handlers of one server. With an `api_key` everything under /v1 asks for it.

    With `hosts` it answers to these names only: a page that lets its own name point to this machine is no client.
    """

    def __init__(
        self,
        gateway: Gateway,
        tokenizer: Tokenizer,
        model: str,
        api_key: str | None = None,
        most_body_bytes: int = 2**20,
        most_tokens: int = 4096,
        hosts: tuple[str, ...] = (),
    ) -> None:
        self._gateway, self._tokenizer, self._model = gateway, tokenizer, model
        self._key, self._hosts, self._most_body_bytes = api_key, hosts, most_body_bytes
        self._most_tokens = min(most_tokens, gateway.max_context)
        self._metrics = Metrics(gateway)
        self._created = int(time.time())

    def application(self) -> Starlette:
        """The application; its start starts the cluster's thread, its end ends it."""
        routes = [
            Route("/v1/completions", self.completions, methods=["POST"]),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/models", self.models),
            Route("/health", self.health),
            Route("/metrics", self.metrics),
        ]
        handlers = {Refusal: _refused, HTTPException: _not_here}
        return Starlette(routes=routes, lifespan=self._life, exception_handlers=handlers)

    @asynccontextmanager
    async def _life(self, _: Starlette) -> AsyncIterator[None]:
        self._gateway.start()
        try:
            yield
        finally:
            self._gateway.close()

    # -- answers

    async def completions(self, request: Request) -> Response:
        """Text that follows a prompt."""
        return await self._answer(request, chat=False)

    async def chat(self, request: Request) -> Response:
        """The next message of a conversation."""
        return await self._answer(request, chat=True)

    async def _answer(self, request: Request, chat: bool) -> Response:
        self._check_client(request)
        body = await self._body(request)
        if self._gateway.failed is not None:
            raise Refusal(503, "the cluster behind this server has ended; start it again", "server_error")
        if self._gateway.inside >= self._gateway.most:
            raise Refusal(429, f"{self._gateway.most} requests are being served; come again later", "overloaded", 0.0)
        try:
            ask = ask_of(body, chat, self._tokenizer, self._model, self._most_tokens, self._gateway.max_context)
            gone = partial(_gone, request)
            answering = Answering(ask, self._gateway, self._tokenizer, self._metrics, gone)
        except LookupError as wrong:
            raise Refusal(404, str(wrong.args[0])) from None
        except InputError as wrong:
            raise Refusal(400, str(wrong)) from None
        named = Named(answering.number, int(time.time()), self._model, ask)
        if not ask.stream:
            return await _whole(named, answering)
        parts = answering.parts()
        first = await anext(parts)  # a request that is turned away is an error of HTTP, not of the stream
        if isinstance(first, Closed) and first.error:
            raise _turned_away(first)
        return StreamingResponse(_stream(named, first, parts), media_type="text/event-stream")

    async def _body(self, request: Request) -> object:
        if request.headers.get("content-type", "").split(";")[0].strip() != "application/json":
            raise Refusal(415, "send application/json")
        body = bytearray()
        try:
            async for part in request.stream():
                body += part
                if len(body) > self._most_body_bytes:
                    raise Refusal(413, f"the body is larger than {self._most_body_bytes} bytes; send less")
        except ClientDisconnect:
            raise Refusal(LEFT.status, LEFT.error) from None
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise Refusal(400, "the body is not JSON") from None

    def _check_client(self, request: Request) -> None:
        if self._hosts and request.url.hostname not in self._hosts:
            raise Refusal(403, f"this server does not answer to {request.url.hostname}", "permission_error")
        if self._key is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secrets.compare_digest(given.strip().encode(), self._key.encode()):
            raise Refusal(401, "give the key of this server as 'Authorization: Bearer KEY'", "authentication_error")

    # -- what is here

    async def models(self, request: Request) -> Response:
        """The model that is served."""
        self._check_client(request)
        one = {"id": self._model, "object": "model", "created": self._created, "owned_by": "hybrid-serving"}
        return JSONResponse({"object": "list", "data": [{**one, "max_model_len": self._gateway.max_context}]})

    async def health(self, _: Request) -> Response:
        """200 while requests can be served; which workers are there."""
        alive = self._gateway.alive()
        views = self._gateway.cluster.views
        serves = self._gateway.failed is None and bool(views.prefill and views.decode)
        state = "down" if not serves else "ok" if all(alive) else "degraded"
        return JSONResponse({"status": state, "workers": alive}, 200 if serves else 503)

    async def metrics(self, _: Request) -> Response:
        """For Prometheus."""
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _refused(_: Request, refusal: Refusal) -> Response:
    return JSONResponse(error(str(refusal), refusal.kind), refusal.status, refusal.headers)


def _turned_away(closed: Closed) -> Refusal:
    return Refusal(closed.status, closed.error, "overloaded", closed.retry_after_s)


async def _not_here(_: Request, wrong: HTTPException) -> Response:
    return JSONResponse(error(wrong.detail, "invalid_request_error"), wrong.status_code, wrong.headers)


async def _gone(request: Request) -> None:
    """Comes to an end when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _whole(named: Named, answering: Answering) -> Response:
    text, closed = "", None
    async for part in answering.parts():
        if isinstance(part, Closed):
            closed = part
        else:
            text += part
    if closed.error:
        raise _turned_away(closed)
    usage = usage_of(len(named.ask.prompt), closed.generated, closed.cached)
    return JSONResponse(named.whole(text, closed.reason, usage))


async def _stream(named: Named, first: str | Closed, parts: AsyncIterator) -> AsyncIterator[str]:
    """The events of a stream."""
    try:
        if named.ask.chat:
            yield event(named.chunk("", first=True))
        part = first
        while not isinstance(part, Closed):
            yield event(named.chunk(part))
            part = await anext(parts)
        if part.error:
            yield event(error(part.error, "server_error"))
        else:
            yield event(named.chunk(None, part.reason))
            if named.ask.usage:
                yield event(named.counts(usage_of(len(named.ask.prompt), part.generated, part.cached)))
        yield event(DONE)
    finally:
        await parts.aclose()
