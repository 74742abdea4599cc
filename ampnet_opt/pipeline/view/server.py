"""The page's server: a thread of this process, which the pipeline never waits for."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import threading
from fractions import Fraction
from typing import Any, Mapping, Optional, Sequence

import numpy as np

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.core.installing import install_command
from ampnet_opt.core.text import describe
from ampnet_opt.pipeline.frames import FrameResult
from ampnet_opt.pipeline.view.address import DEFAULT_PORT, LOOPBACK, Address, bind, reachable_host
from ampnet_opt.pipeline.view.feed import Feed

FAREWELL = 0.3  # seconds that browsers get to read the end
GRACE = 1.0  # seconds for the server's thread to end
MOST_CONNECTIONS = 64


class View:
    """One page that shows what the pipeline sees.

    Args:
        host: name or address to serve at; only this machine can reach the default.
        port: 0 takes one that is free.
        token: what a browser must know; by default a random one, and none on a loopback address.
        classes: in the order of the probabilities.
        about: what the page says about the run, by name: {"Engine": "cpu-int8", "Precision": "INT8"}.
        stored: files that the run writes; the page names them, because people in view have to know.
    """

    def __init__(
        self,
        *,
        host: str = LOOPBACK,
        port: int = DEFAULT_PORT,
        token: Optional[str] = None,
        classes: Sequence[str],
        about: Optional[Mapping[str, str]] = None,
        stored: Sequence[str] = (),
    ) -> None:
        self._bound = Address(host, port)
        self._token = token or (None if self._bound.loopback else secrets.token_urlsafe())
        self._feed = Feed(classes, about or {}, stored)
        self._thread: Optional[threading.Thread] = None
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._closing: Optional[asyncio.Event] = None
        self._ready = threading.Event()
        self._failure: Optional[BaseException] = None

    @property
    def address(self) -> str:
        """The URL to open in a browser, with the token if there is one; the port is known after `start`."""
        url = f"http://{reachable_host(self._bound)}:{self._bound.port}/"
        return url if self._token is None else f"{url}?token={self._token}"

    def start(self) -> None:
        """Bind the port and serve from a thread.

        Raises:
            AmpnetError: the port is in use, the host is not of this machine, or a package is missing.
        """
        _require_packages()
        listening = bind(self._bound)
        self._bound = Address(self._bound.host, listening.getsockname()[1])
        self._thread = threading.Thread(target=self._run, args=(listening,), name="view", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise AmpnetError(f"the page cannot be served ({describe(self._failure)})")

    def publish(
        self, result: FrameResult, image: np.ndarray, *, dropped: int = 0, pixel_aspect: Optional[Fraction] = None
    ) -> None:
        """Show a frame. Returns at once; a frame that no browser asked for is never encoded.

        Args:
            result: the frame's faces and times.
            image: uint8 [H, W, 3] RGB, as it is to be shown; it must not change afterwards.
            dropped: frames that the source has left out so far.
            pixel_aspect: width of a pixel by its height, None for 1: the page stretches the picture by it.
        """
        self._feed.publish(result, image, dropped, pixel_aspect)

    def end(self, reason: str = "The source has ended.") -> None:
        """Tell browsers, in a sentence, why no more frames will come; the page stays open."""
        self._feed.end(reason)

    def close(self) -> None:
        """Send browsers away and free the port; takes less than a second."""
        self._feed.end("The run has ended.")
        if self._thread is None or self._loop is None or self._closing is None:
            return
        with contextlib.suppress(RuntimeError):  # its thread has ended already
            self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(GRACE)
        self._thread = None

    def __enter__(self) -> View:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, listening: socket.socket) -> None:
        try:
            asyncio.run(self._serve(listening))
        except BaseException as error:  # of a library: `start` raises it, if it still waits
            self._failure = error
        finally:
            listening.close()
            self._ready.set()

    async def _serve(self, listening: socket.socket) -> None:
        import uvicorn

        from ampnet_opt.pipeline.view.app import application

        self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
        self._feed.attach()
        config = uvicorn.Config(
            application(self._feed, self._bound, self._token, self._closing),
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",  # a browser that leaves is no error
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)  # installs no signal handlers outside the main thread
        serving = asyncio.ensure_future(server.serve(sockets=[listening]))
        while not (server.started or serving.done()):
            await asyncio.sleep(0.005)
        self._ready.set()
        closing = asyncio.ensure_future(self._closing.wait())
        await asyncio.wait({serving, closing}, return_when=asyncio.FIRST_COMPLETED)
        closing.cancel()
        self._feed.detach()
        await _disconnect(server)
        await serving


async def _disconnect(server: Any) -> None:
    """Let browsers read the end of their streams, then cut off those that do not."""
    server.should_exit = True
    await asyncio.sleep(FAREWELL)
    for connection in list(server.server_state.connections):
        connection.transport.abort()


def _require_packages() -> None:
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise AmpnetError(f"the page of --view needs Starlette and uvicorn: {install_command('view')}") from None
