"""Reads request bodies within limits on size and time; file names sent by the client are never used."""

import asyncio
import contextlib
import pathlib
import re
import tempfile
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request

from facejax.app.errors import RequestError

# Magic bytes of the accepted containers. FFmpeg also opens playlists and scripts that refer to further files and
# addresses, so it only gets files that start like a clip.
_CLIPS = {"mp4, m4v, mov": rb"(?s:.{4})ftyp", "webm, mkv": rb"\x1aE\xdf\xa3", "avi": rb"RIFF(?s:.{4})AVI "}


async def read_body(request: Request, limit: int, seconds: int) -> bytes:
    """Reads the whole body.

    Raises:
        RequestError: It is longer than `limit` bytes, takes longer than `seconds`, is empty, or was cut short.
    """
    return b"".join([part async for part in _parts(request, limit, seconds)])


@contextlib.asynccontextmanager
async def clip_file(request: Request, limit: int, seconds: int) -> AsyncIterator[pathlib.Path]:
    """Writes the body to a temporary file, which is always removed at the end of the block.

    Raises:
        RequestError: As in `read_body`, or the file does not start like a clip.
    """
    with tempfile.TemporaryDirectory(prefix="facejax-app-") as folder:
        path = pathlib.Path(folder) / "clip"
        with path.open("wb") as file:
            async for part in _parts(request, limit, seconds):
                file.write(part)
        with path.open("rb") as file:
            head = file.read(12)
        if not any(re.match(magic, head) for magic in _CLIPS.values()):
            raise RequestError(415, "not_a_clip", f"This file is not a supported clip ({', '.join(_CLIPS)}).")
        yield path


async def _parts(request: Request, limit: int, seconds: int) -> AsyncIterator[bytes]:
    too_large = RequestError(413, "too_large", f"This file is larger than {limit / 2**20:.0f} MB.")
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > limit:
        raise too_large
    length = 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                length += len(part)
                if length > limit:
                    raise too_large
                yield part
    except TimeoutError as error:
        raise RequestError(408, "too_slow", f"The upload took longer than {seconds} seconds.") from error
    except ClientDisconnect as error:
        raise RequestError(400, "broken_off", "The upload was cut short.") from error
    if not length:
        raise RequestError(400, "empty", "The file is empty.")
