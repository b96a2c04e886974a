"""Fixtures: toy networks with the real detector, rendered people as photos, and a headless Chromium if available."""

import contextlib
import dataclasses
import itertools
import os
import pathlib
import shutil
import threading
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import uvicorn
from playwright import sync_api

from facejax.app.onnxruntime_web import NAMES, copy_runtime
from facejax.app.serve import listen
from facejax.datasets.people.reader import People
from facejax.inference import FaceAnalyzer, LoadedModel
from tests.inference.toy import toy_model


@pytest.fixture(scope="session")
def analyzer() -> FaceAnalyzer:
    person, look = toy_model("age", "gender", "ethnicity"), toy_model("emotion8", "valence_arousal", seed=1)
    renamed = LoadedModel(dataclasses.replace(look.cfg, tag="toy_look"), look.variables)
    return FaceAnalyzer([person, renamed])


@pytest.fixture(scope="session")
def heads() -> list[np.ndarray]:
    """Rendered people, one per photo of 256 pixels."""
    records = itertools.islice(People().records(None, num_train=4, num_validation=0), 4)
    return [record.image() for record in records]


@pytest.fixture(scope="session")
def photo(heads, tmp_path_factory) -> pathlib.Path:
    """Two people side by side; lossless, so that every decoder gives the same pixels."""
    path = tmp_path_factory.mktemp("photos") / "two.png"
    cv2.imwrite(str(path), np.concatenate(heads[:2], axis=1)[..., ::-1])
    return path


@pytest.fixture(scope="session")
def clip(heads, tmp_path_factory) -> pathlib.Path:
    """One second of a moving head, in VP8, which OpenCV can write and Chromium can play."""
    path = tmp_path_factory.mktemp("clips") / "clip.webm"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"VP80"), 12, (256, 256))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no VP8")
    for shift in range(12):
        writer.write(np.roll(heads[0], 2 * shift, axis=1)[..., ::-1])
    writer.release()
    return path


@contextlib.contextmanager
def served(app) -> Iterator[str]:
    """The address of an ASGI app served on loopback in a thread."""
    with listen(0) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join(10)


@pytest.fixture(scope="session")
def onnxruntime_web(tmp_path_factory) -> pathlib.Path:
    """Folder of the npm package: ONNXRUNTIME_WEB if set, otherwise downloaded by npm."""
    if folder := os.environ.get("ONNXRUNTIME_WEB"):
        return pathlib.Path(folder)
    fetched, package = tmp_path_factory.mktemp("npm"), tmp_path_factory.mktemp("package")
    try:
        copy_runtime(fetched / "files")
    except (ConnectionError, FileNotFoundError) as error:
        pytest.skip(f"needs onnxruntime-web (ONNXRUNTIME_WEB=FOLDER, or npm and its registry): {error}")
    (package / "dist").mkdir()
    for source, name in NAMES.items():
        shutil.move(fetched / "files" / name, package / source)
    return package


@pytest.fixture(scope="session")
def camera_file(heads, tmp_path_factory) -> pathlib.Path:
    """Half a second of a head as Chromium's camera input."""
    path = tmp_path_factory.mktemp("camera") / "camera.y4m"
    canvas = np.full((480, 640, 3), 90, np.uint8)
    canvas[40:440, 120:520] = cv2.resize(heads[0], (400, 400), interpolation=cv2.INTER_CUBIC)
    planes = cv2.cvtColor(canvas, cv2.COLOR_RGB2YUV_I420).tobytes()
    path.write_bytes(b"YUV4MPEG2 W640 H480 F10:1 Ip A1:1 C420jpeg\n" + 5 * (b"FRAME\n" + planes))
    return path


@pytest.fixture(scope="module")
def browser(camera_file):
    """The system's Chromium, headless, with a face in its camera; skips if it is not installed.

    Not session-scoped: playwright keeps an event loop in this thread, and `asyncio.run` fails while one is running.
    """
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    arguments = [
        "--no-sandbox",  # it needs rights that containers do not give; the only pages opened are our own
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={camera_file}",
    ]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()
