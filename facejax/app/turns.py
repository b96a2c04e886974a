"""One inference at a time, and a bounded number of requests that wait for it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from facejax.app.errors import RequestError


class Turns:
    """A request first takes a place, in which it may upload, and then waits for its turn."""

    def __init__(self, waiting: int):
        """`waiting`: places beside that of the request whose turn it is."""
        self._free = waiting + 1
        self._lock = asyncio.Lock()

    @contextlib.contextmanager
    def place(self):
        """Holds a place.

        Raises:
            RequestError: All are taken.
        """
        if not self._free:
            raise RequestError(503, "busy", "Too much is waiting already. Try again in a moment.")
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Waits until nobody else has the turn, and holds it."""
        async with self._lock:
            yield
