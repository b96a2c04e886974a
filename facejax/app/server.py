"""The app's server: the page and its API. All processing is local to this process, and nothing is stored."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Send

from facejax.app.clips import analyze_clip
from facejax.app.errors import RequestError
from facejax.app.guard import Guard
from facejax.app.limits import Limits
from facejax.app.page_files import PAGE, page_config
from facejax.app.turns import Turns
from facejax.app.uploads import clip_file, read_body
from facejax.inference import FaceAnalyzer

_log = logging.getLogger(__name__)


def create_app(analyzer: FaceAnalyzer, limits: Limits | None = None) -> Any:
    """The app as an ASGI callable.

    ``GET /`` is the page, ``GET /config.json`` its configuration. ``POST /api/photo`` takes a photo file as its body
    and returns `PhotoResult.to_dict`; ``POST /api/clip`` takes a clip and streams one line of JSON per frame
    (`facejax.app.clips.analyze_clip`). Errors are ``{"error": {"code", "message"}}``. Embeddings are never sent.

    Args:
        analyzer: Detects the faces and predicts their attributes.
        limits: None for the defaults.
    """
    routes = _Routes(analyzer, limits or Limits())
    app = Starlette(
        routes=[
            Route("/config.json", routes.config),
            # Mounted, as a wrong method of a plain route would fall through to the page's files and be answered by 404.
            Mount(
                "/api",
                routes=[
                    Route("/photo", routes.photo, methods=["POST"]),
                    Route("/clip", routes.clip, methods=["POST"]),
                ],
            ),
            Mount("/", StaticFiles(directory=PAGE, html=True)),
        ],
        exception_handlers={RequestError: _handle_error, HTTPException: _http, Exception: _unexpected},
    )
    return Guard(app)


class _Routes:
    def __init__(self, analyzer: FaceAnalyzer, limits: Limits):
        self._analyzer, self._limits = analyzer, limits
        self._turns = Turns(limits.waiting)
        self._config = page_config("server", analyzer.models, limits)

    async def config(self, request: Request) -> Response:
        return JSONResponse(self._config)

    async def photo(self, request: Request) -> Response:
        with self._turns.place():
            data = await read_body(request, self._limits.photo_bytes, self._limits.upload_seconds)
            async with self._turns.turn(request):
                try:
                    result: Any = await run_in_threadpool(self._analyzer.analyze, data)
                except ValueError as error:
                    words = f"This file cannot be read as a photo ({error})."
                    raise RequestError(415, "not_a_photo", words) from error
        return JSONResponse(result.to_dict())

    async def clip(self, request: Request) -> Response:
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(self._turns.place())
            seconds = self._limits.upload_seconds
            path = await stack.enter_async_context(clip_file(request, self._limits.clip_bytes, seconds))
            await stack.enter_async_context(self._turns.turn(request))
            frames = analyze_clip(self._analyzer, path, self._limits)
            stack.push_async_callback(run_in_threadpool, frames.close)  # closes the decoder before the file is removed
            try:
                # Before the response starts, so that an unreadable clip can still change its status.
                first = await run_in_threadpool(next, frames, None)
            except ValueError as error:
                words = "This clip cannot be read: it is damaged, or in a format that OpenCV does not support."
                raise RequestError(415, "unreadable_clip", words) from error
            return _Lines(_lines(first, frames, stack.pop_all()), self._limits.answer_seconds)


class _Lines(StreamingResponse):
    """Streams lines of JSON; disconnects clients that are slow to receive one, as they block all others."""

    def __init__(self, lines: AsyncGenerator[str], seconds: float):
        super().__init__(lines, media_type="application/x-ndjson")
        self._generator, self._seconds = lines, seconds

    async def stream_response(self, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(self._seconds):
                await send(message)

        try:
            await super().stream_response(send_in_time)
        except TimeoutError:
            _log.warning("a client did not receive its response within %g s and was disconnected", self._seconds)
        finally:
            await self._generator.aclose()  # releases the turn now, not when the generator is garbage-collected


async def _lines(
    first: dict[str, Any] | None, frames: Iterator[dict[str, Any]], stack: contextlib.AsyncExitStack
) -> AsyncGenerator[str]:
    """Yields one line of JSON per frame; at the end, `stack` releases the place, the turn and the file."""
    async with stack:
        frame = first
        while frame is not None:
            yield json.dumps(frame) + "\n"
            frame = await run_in_threadpool(next, frames, None)


async def _handle_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return error.response()


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = RequestError(error.status_code, "http", f"{error.detail}.").response()
    response.headers.update(error.headers or {})  # such as Allow
    return response


async def _unexpected(request: Request, error: Exception) -> Response:
    _log.exception("a request failed", exc_info=error)
    return RequestError(500, "failed", "Something went wrong; see the terminal that runs facejax.").response()
