"""The page's web application: its three files, one stream of pictures, one of numbers, and who may see them."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from pathlib import Path
from typing import Any, AsyncGenerator, Callable, Optional, Set

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ampnet_opt.pipeline.view.address import Address, may_ask_for
from ampnet_opt.pipeline.view.feed import Feed

MOST_STREAMS = 16  # at once: a browser's tab has two
PATIENCE = 10.0  # seconds that a browser may take for one part before it counts as gone
PICTURES_A_SECOND, NUMBERS_A_SECOND = 25.0, 8.0  # at most
HEARTBEAT = 1.0  # seconds between numbers when no frame comes
BOUNDARY = b"frame"
POLICY = (
    "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # a page's address may hold the token
    "Cross-Origin-Resource-Policy": "same-origin",  # no other site shows the picture
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
FILES = {"index.html": "text/html", "style.css": "text/css", "script.js": "text/javascript"}
WRONG_HOST = "This host name is not this machine's: use the address that the terminal printed.\n"
NO_TOKEN = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>Token needed - ampnet-opt</title>
<link rel="icon" href="data:,"></head><body><h1>This page needs its token</h1>
<p>It shows a camera, so only people who were given its address may see it.</p>
<p>Open the whole address that the terminal printed: it ends in <code>?token=...</code></p></body></html>"""


class Stream:
    """A response without end. It ends when the browser leaves, does not read for PATIENCE seconds, or its parts are over.

    It is in `open_streams` while it lasts.
    """

    def __init__(self, kind: str, parts: AsyncGenerator[bytes, None], open_streams: Set[Stream]) -> None:
        self._kind, self._parts, self._open_streams = kind, parts, open_streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as an ASGI application."""
        self._open_streams.add(self)
        tasks = {asyncio.ensure_future(self._write(send)), asyncio.ensure_future(_gone(receive))}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._open_streams.discard(self)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._parts.aclose()

    async def _write(self, send: Send) -> None:
        headers = [(b"content-type", self._kind.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for part in self._parts:
            await asyncio.wait_for(send({"type": "http.response.body", "body": part, "more_body": True}), PATIENCE)
        await asyncio.wait_for(send({"type": "http.response.body", "body": b""}), PATIENCE)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Guard:
    """Refuses what is not for this page: other hosts, other sites, other methods, and browsers without the token."""

    def __init__(self, app: ASGIApp, address: Address, token: Optional[str]) -> None:
        self._app, self._address, self._token = app, address, token
        self._cookie = f"ampnet-opt-{address.port}"  # cookies do not tell ports apart

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        if scope["type"] != "http":
            return
        request = Request(scope)
        given = request.query_params.get("token", "")
        answer = self._refusal(request, given)
        keep = self._token is not None and answer is None and self._right(given)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = dict(HEADERS)
                if keep:
                    extra["Set-Cookie"] = f"{self._cookie}={self._token}; HttpOnly; SameSite=Strict; Path=/"
                lines = [(name.lower().encode(), value.encode()) for name, value in extra.items()]
                message = {**message, "headers": [*message.get("headers", []), *lines]}
            await send(message)

        await (answer or self._app)(scope, receive, with_headers)

    def _refusal(self, request: Request, given: str) -> Optional[Response]:
        if not may_ask_for(request.headers.get("host", ""), self._address):
            return PlainTextResponse(WRONG_HOST, 421)
        if request.method != "GET":
            return PlainTextResponse("This page is only read: GET.\n", 405, {"Allow": "GET"})
        navigates = request.headers.get("sec-fetch-mode") == "navigate"
        if request.headers.get("sec-fetch-site") in ("cross-site", "same-site") and not navigates:
            return PlainTextResponse("Other sites may not use this page.\n", 403)
        if self._token is not None and not (self._right(given) or self._right(request.cookies.get(self._cookie, ""))):
            return HTMLResponse(NO_TOKEN, 401, {"WWW-Authenticate": "Token"})
        return None

    def _right(self, token: str) -> bool:
        return self._token is not None and hmac.compare_digest(token.encode(), self._token.encode())


def application(feed: Feed, address: Address, token: Optional[str], closing: asyncio.Event) -> ASGIApp:
    """The application of a feed that is served at `address`; its streams end when `closing` is set."""
    open_streams: Set[Stream] = set()

    def stream(kind: str, parts: Callable[[], AsyncGenerator[bytes, None]]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Any:
            if len(open_streams) >= MOST_STREAMS:
                return PlainTextResponse("Too many browsers watch: close another tab of this page.\n", 503)
            return Stream(kind, parts(), open_streams)

        return endpoint

    async def pictures() -> AsyncGenerator[bytes, None]:
        yield b"--" + BOUNDARY + b"\r\n"
        seen = 0
        while not closing.is_set():
            before, seen = seen, await feed.newer(seen, HEARTBEAT)
            picture = feed.jpeg() if seen != before else b""
            if picture:
                head = b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture)
                # The boundary follows at once: a browser shows a picture only when it has seen its end.
                yield head + picture + b"\r\n--" + BOUNDARY + b"\r\n"
                await _pause(closing, 1 / PICTURES_A_SECOND)

    async def numbers() -> AsyncGenerator[bytes, None]:
        yield _event("start", feed.start())
        seen = -1
        while not closing.is_set():
            seen = await feed.newer(seen, HEARTBEAT)
            yield _event("numbers", feed.numbers())
            await _pause(closing, 1 / NUMBERS_A_SECOND)
        yield _event("numbers", feed.numbers())

    async def still(request: Request) -> Response:
        picture = feed.jpeg()
        return Response(picture, media_type="image/jpeg") if picture else PlainTextResponse("No picture yet.\n", 404)

    def file(name: str, kind: str) -> Callable[[Request], Response]:
        content = Path(__file__).with_name(name).read_bytes()
        return lambda request: Response(content, media_type=kind)

    async def words(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        return PlainTextResponse("There is nothing at this address.\n" if status == 404 else "This did not work.\n", status)

    routes = [Route("/" if name == "index.html" else f"/{name}", file(name, kind)) for name, kind in FILES.items()]
    routes.append(Route("/pictures", stream(f"multipart/x-mixed-replace; boundary={BOUNDARY.decode()}", pictures)))
    routes.append(Route("/numbers", stream("text/event-stream; charset=utf-8", numbers)))
    routes.append(Route("/picture.jpg", still))
    return Guard(Starlette(routes=routes, exception_handlers={HTTPException: words}), address, token)


def _event(name: str, data: str) -> bytes:
    return f"event: {name}\ndata: {data}\n\n".encode()


async def _pause(closing: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(closing.wait(), seconds)
