"""Decodes photos ahead in threads and detects faces in groups; unreadable photos yield an error message."""

import collections
import itertools
import os
import pathlib
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from facejax.inference import PhotoResult, read_image

if TYPE_CHECKING:
    from facejax.inference import FaceAnalyzer

# Photos decoded ahead; photos per detection group; pixels per group.
_AHEAD, _GROUP, _GROUP_PIXELS = 8, 16, 1 << 24


def analyze_files(
    analyzer: "FaceAnalyzer", paths: Iterable[pathlib.Path]
) -> Iterator[tuple[pathlib.Path, PhotoResult | str, np.ndarray | None]]:
    """Yields each path with its result and image, or with the reason why it cannot be read."""
    group, pixels = [], 0
    for path, image in _decoded(paths):
        group.append((path, image))
        pixels += 0 if isinstance(image, str) else image.size // 3
        if len(group) >= _GROUP or pixels >= _GROUP_PIXELS:
            yield from _analyzed(analyzer, group)
            group, pixels = [], 0
    yield from _analyzed(analyzer, group)


def _decoded(paths: Iterable[pathlib.Path]) -> Iterator[tuple[pathlib.Path, np.ndarray | str]]:
    paths = iter(paths)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        waiting: collections.deque[tuple[pathlib.Path, Future]] = collections.deque()
        waiting.extend((path, pool.submit(_read, path)) for path in itertools.islice(paths, _AHEAD))
        while waiting:
            path, future = waiting.popleft()
            yield path, future.result()
            waiting.extend((path, pool.submit(_read, path)) for path in itertools.islice(paths, 1))


def _read(path: pathlib.Path) -> np.ndarray | str:
    try:
        return read_image(path)
    except (OSError, ValueError) as error:
        return str(error)


def _analyzed(analyzer, group) -> Iterator[tuple[pathlib.Path, PhotoResult | str, np.ndarray | None]]:
    images = [image for _, image in group if not isinstance(image, str)]
    found = iter(analyzer.faces(images) if images else [])
    for path, image in group:
        if isinstance(image, str):
            yield path, image, None
        else:
            yield path, PhotoResult(tuple(next(found)), image.shape[1], image.shape[0], path), image
