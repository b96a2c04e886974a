"""Allows one inference at a time, and a bounded number of requests waiting for their turn."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.requests import Request

from facejax.app.errors import RequestError


class Turns:
    """A request first takes a place in the queue, where it may upload, and then waits for its turn."""

    def __init__(self, waiting: int):
        """`waiting`: places in addition to that of the request whose turn it is."""
        self._free = waiting + 1
        self._lock = asyncio.Lock()

    @contextlib.contextmanager
    def place(self):
        """Takes a place in the queue.

        Raises:
            RequestError: All places are taken.
        """
        if not self._free:
            raise RequestError(503, "busy", "Too many requests are waiting. Try again in a moment.")
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1

    @contextlib.asynccontextmanager
    async def turn(self, request: Request) -> AsyncIterator[None]:
        """Waits until no other request has the turn, and takes it.

        Raises:
            RequestError: The client has disconnected in the meantime, as for another photo.
        """
        async with self._lock:
            if await request.is_disconnected():
                raise RequestError(400, "broken_off", "The client has disconnected.")
            yield
