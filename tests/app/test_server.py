"""The server's responses, in process: accepted and rejected requests, error messages, leftovers."""

import asyncio
import dataclasses
import json
import pathlib
import socket
import tempfile
import threading

import cv2
import httpx2
import numpy as np
import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

from facejax.app import server
from facejax.app.clips import analyze_clip
from facejax.app.errors import RequestError
from facejax.app.limits import Limits
from facejax.app.serve import listen
from facejax.app.server import create_app
from facejax.app.turns import Turns
from facejax.app.uploads import read_body
from facejax.inference import FaceAnalyzer
from tests.app.conftest import served
from tests.inference.toy import FixedDetector, noise, toy_model
from tests.video.webm import write_webm

ADDRESS = "http://127.0.0.1:8765"
SMALL = Limits(photo_bytes=200_000, clip_bytes=400_000, clip_seconds=1, clip_fps=4, clip_side=128, waiting=1)


@pytest.fixture(scope="module")
def toy():
    return FaceAnalyzer([toy_model("gender", "emotion7")], FixedDetector([[2, 2, 30, 30]]))


@pytest.fixture
def client(toy):
    return TestClient(create_app(toy, SMALL), base_url=ADDRESS)


def encoded(image: np.ndarray, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, image[..., ::-1])[1].tobytes()


def test_a_photo_is_answered_as_the_package_answers(client, toy):
    data = encoded(noise(40, 50))
    answer = client.post("/api/photo", content=data)
    assert answer.status_code == 200
    expected = toy.analyze(data).to_dict()
    assert answer.json() == expected
    assert len(expected["faces"]) == 1
    assert "embedding" not in answer.text


def test_real_detector_on_rendered_people(analyzer, photo):
    answer = TestClient(create_app(analyzer), base_url=ADDRESS).post("/api/photo", content=photo.read_bytes()).json()
    assert len(answer["faces"]) == 2
    assert {"perceived_age", "perceived_gender", "perceived_ethnicity", "expression", "valence"} <= set(
        answer["faces"][0]
    )


def test_no_face(client):
    answer = client.post("/api/photo", content=encoded(noise(10, 10)))
    assert answer.json() == {"width": 10, "height": 10, "faces": []}


def test_a_clip_is_answered_frame_by_frame_and_leaves_nothing(client, clip, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    answer = client.post("/api/clip", content=clip.read_bytes())
    assert answer.status_code == 200
    frames = [json.loads(line) for line in answer.text.splitlines()]
    assert [frame["time"] for frame in frames] == pytest.approx([0, 0.25, 0.5, 0.75])  # 12 frames a second, 4 wanted
    assert {(frame["width"], frame["height"]) for frame in frames} == {(128, 128)}
    assert {face["track"] for frame in frames for face in frame["faces"]} == {1}
    assert list(tmp_path.iterdir()) == []


def test_frames_of_a_recorded_clip_are_chosen_by_their_times(client, heads, tmp_path):
    times = [50 * index + (0, 7, -6, 11, -9)[index % 5] for index in range(20)]
    write_webm(tmp_path / "recorded.webm", [heads[0]] * len(times), times)
    assert cv2.VideoCapture(str(tmp_path / "recorded.webm")).get(cv2.CAP_PROP_FPS) == 1000  # the clock's
    answer = client.post("/api/clip", content=(tmp_path / "recorded.webm").read_bytes())
    frames = [json.loads(line) for line in answer.text.splitlines()]
    assert [frame["time"] for frame in frames] == pytest.approx([0, 0.25, 0.5, 0.75])  # 4 a second are wanted
    assert {face["track"] for frame in frames for face in frame["faces"]} == {1}


def test_a_long_clip_is_looked_at_up_to_its_limit(client, heads, tmp_path):
    times = [0, 500, 1000, 1500, 2000]
    write_webm(tmp_path / "long.webm", [heads[0]] * len(times), times)
    answer = client.post("/api/clip", content=(tmp_path / "long.webm").read_bytes())
    assert [json.loads(line)["time"] for line in answer.text.splitlines()] == pytest.approx([0, 0.5, 1])


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/api/photo", b"x" * 200_001, 413, "too_large"),
        ("/api/photo", b"no photo", 415, "not_a_photo"),
        ("/api/photo", encoded(noise(9, 9))[:60], 415, "not_a_photo"),
        # A header that states 2 gigapixels.
        ("/api/photo", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\xb0\0\0\0\xb0\0\x08\2\0\0\0", 415, "not_a_photo"),
        ("/api/photo", b"", 400, "empty"),
        ("/api/clip", b"x" * 400_001, 413, "too_large"),
        ("/api/clip", b"no clip", 415, "not_a_clip"),
        ("/api/clip", b"no clip" * 40_000, 415, "not_a_clip"),  # longer than a photo may be
        # Lists of other files and addresses, which FFmpeg would follow.
        ("/api/clip", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", 415, "not_a_clip"),
        ("/api/clip", b"#EXTM3U\n\x1aE\xdf\xa3\n#EXTINF:1,\nfile:///etc/passwd\n", 415, "not_a_clip"),
        ("/api/clip", b"#EXTM3U\nftyp\n#EXTINF:1,\nfile:///etc/passwd\n", 415, "not_a_clip"),
        ("/api/clip", b"ffconcat version 1.0\nfile /etc/passwd\n", 415, "not_a_clip"),
        ("/api/clip", b"#EXTM3U\nAVI \n#EXTINF:1,\nfile:///etc/passwd\n", 415, "not_a_clip"),
        ("/api/clip", b"v=0\na=b\nAVI \nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n", 415, "not_a_clip"),
        ("/api/clip", b'<MPD x="AVI " type="static"><BaseURL>/etc/passwd</BaseURL></MPD>', 415, "not_a_clip"),
        ("/api/clip", b"RIFF\n\n\n\nAVI " + b"\0" * 99, 415, "unreadable_clip"),
        ("/api/clip", b"\0\0\0\x18ftypmp42" + b"\0" * 99, 415, "unreadable_clip"),
        ("/api/clip", b"\x1aE\xdf\xa3" + b"\0" * 99, 415, "unreadable_clip"),
    ],
)
def test_bad_uploads_are_told_apart(client, path, body, status, code, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    answer = client.post(path, content=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert error["message"].endswith(".")
    assert answer.headers["connection"] == "close"  # the rest of the upload is not read
    assert str(tmp_path) not in answer.text
    assert list(tmp_path.iterdir()) == []


def test_a_length_that_lies_is_cut_off(client):
    parts = (b"x" * 50_000 for _ in range(10))  # chunked: no length is stated
    assert client.post("/api/photo", content=parts).status_code == 413


def test_a_length_that_is_too_large_is_refused_before_it_is_sent(client):
    sent = []

    def parts():
        for part in (b"x", b"y"):
            sent.append(part)
            yield part

    answer = client.post("/api/photo", content=parts(), headers={"Content-Length": "200001"})
    assert (answer.status_code, sent) == (413, [])


def test_an_upload_that_breaks_off_is_no_photo():
    messages = iter(({"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}))

    async def receive():
        return next(messages)

    request = Request({"type": "http", "headers": []}, receive)
    with pytest.raises(RequestError, match="cut short"):
        asyncio.run(read_body(request, 100, 10))


def test_an_upload_in_many_small_parts_is_cut_off_at_the_limit():
    taken = []

    async def receive():
        taken.append(10)
        return {"type": "http.request", "body": bytes(10), "more_body": len(taken) < 20}

    request = Request({"type": "http", "headers": []}, receive)
    with pytest.raises(RequestError, match="larger than"):
        asyncio.run(read_body(request, 100, 10))
    assert sum(taken) == 110


def test_a_clip_holds_its_place_and_turn_until_it_is_answered(toy, clip, monkeypatch):
    turns, held = [], []

    class Noted(Turns):
        def __init__(self, waiting):
            super().__init__(waiting)
            turns.append(self)

    def frames(analyzer, path, limits):
        for number in range(2):
            held.append((turns[0]._free, turns[0]._lock.locked(), path.exists()))
            yield {"frame": number}

    monkeypatch.setattr(server, "Turns", Noted)
    monkeypatch.setattr(server, "analyze_clip", frames)
    client = TestClient(create_app(toy, SMALL), base_url=ADDRESS)
    for _ in range(2):
        assert client.post("/api/clip", content=clip.read_bytes()).status_code == 200
        assert (turns[0]._free, turns[0]._lock.locked()) == (2, False)
    assert held == [(1, True, True)] * 4


def test_frames_of_too_many_pixels_are_refused_by_the_header(toy, clip):
    enough = dataclasses.replace(SMALL, clip_pixels=256 * 256)
    assert len(list(analyze_clip(toy, clip, enough))) == 4
    too_few = dataclasses.replace(SMALL, clip_pixels=256 * 256 - 1)
    with pytest.raises(ValueError, match="65536 pixels; 1 to 65535 are allowed"):
        next(analyze_clip(toy, clip, too_few))


@pytest.mark.parametrize("path", ["/api/photo", "/api/clip"])
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_wrong_method_is_told_the_right_one(client, path, method):
    answer = client.request(method, ADDRESS + path)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json()["error"]["code"] == "http"


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {}, 200),
        ("GET", "/", {"Host": "localhost:8765"}, 200),
        ("GET", "/", {"Host": "evil.example"}, 421),  # DNS rebinding
        ("GET", "/config.json", {"Host": "evil.example:8765"}, 421),
        ("GET", "/", {"Host": "127.0.0.1.evil.example"}, 421),
        ("GET", "/", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),  # a link
        ("GET", "/config.json", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ("GET", "/config.json", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403),
        ("GET", "/", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ("GET", "/main.js", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}, 403),  # another port
        ("POST", "/api/photo", {"Origin": "https://evil.example"}, 403),
        ("POST", "/api/photo", {"Origin": "null"}, 403),
        ("POST", "/api/photo", {"Origin": "http://127.0.0.1:9999"}, 403),
        ("POST", "/api/photo", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("POST", "/api/photo", {"Origin": ADDRESS, "Sec-Fetch-Site": "same-origin"}, 200),
        ("GET", "/api/nothing", {}, 404),
        ("GET", "/nothing", {}, 404),
        ("GET", "/../server.py", {}, 404),
        ("GET", "/%2e%2e/server.py", {}, 404),
        ("GET", "/..%2fserver.py", {}, 404),
        ("GET", "//etc/passwd", {}, 404),
    ],
)
def test_who_is_answered(client, method, path, headers, status):
    answer = client.request(
        method, ADDRESS + path, headers=headers, content=encoded(noise(30, 30)) if method == "POST" else None
    )
    assert answer.status_code == status
    assert "'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    for rule in ("base-uri", "form-action", "frame-ancestors"):  # default-src does not include them
        assert f"{rule} 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["permissions-policy"] == "camera=(self), microphone=(), geolocation=()"
    assert answer.headers["referrer-policy"] == "no-referrer"
    for name in ("opener", "resource"):
        assert answer.headers[f"cross-origin-{name}-policy"] == "same-origin"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in answer.headers
    if status >= 400:
        assert set(answer.json()["error"]) == {"code", "message"}


def test_only_programs_on_this_machine_can_connect():
    with listen(0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_the_limits_are_the_documented_ones():
    limits, docs = Limits(), (pathlib.Path(__file__).parents[2] / "docs" / "app.md").read_text()
    for words in (
        f"photos up to {limits.photo_bytes // 2**20} MB",
        f"clips up to {limits.clip_bytes // 2**20} MB",
        f"the first {limits.clip_seconds} seconds, about {limits.clip_fps} frames a second",
        f"frames reduced to {limits.clip_side} pixels",
        f"An upload may take {limits.upload_seconds} seconds, and so may the client for each line",
    ):
        assert words in docs
    assert (limits.waiting, limits.answer_seconds) == (8, limits.upload_seconds)


def test_one_at_a_time_and_few_that_wait():
    """While one photo is processed, one may wait and the next is rejected; afterwards all places are free again."""
    running, most, go = 0, 0, threading.Event()
    lock = threading.Lock()

    class Slow(FixedDetector):
        def detect(self, images):
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            go.wait(10)
            with lock:
                running -= 1
            return super().detect(images)

    app = create_app(FaceAnalyzer([toy_model("gender")], Slow([])), SMALL)

    async def ask() -> list[int]:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=ADDRESS) as client:
            data = encoded(noise(20, 20))
            asked = [asyncio.create_task(client.post("/api/photo", content=data)) for _ in range(4)]
            done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED, timeout=10)
            assert {task.result().json()["error"]["code"] for task in done} == {"busy"}
            go.set()
            codes = [answer.status_code for answer in await asyncio.gather(*asked)]
            return [*codes, (await client.post("/api/photo", content=data)).status_code]

    assert sorted(asyncio.run(ask())) == [200, 200, 200, 503, 503]
    assert most == 1


def test_a_photo_that_was_given_up_while_it_waited_is_not_looked_at(monkeypatch):
    looked, working, go, all_wait = [], threading.Event(), threading.Event(), threading.Event()
    asked = 0

    class Counted(Turns):
        def turn(self, request):
            nonlocal asked
            asked += 1
            if asked == 3:
                all_wait.set()
            return super().turn(request)

    class Slow(FixedDetector):
        def detect(self, images):
            looked.append(images[0].shape[0])
            working.set()
            go.wait(10)
            return super().detect(images)

    def post(height: int) -> socket.socket:
        data = encoded(noise(height, 20))
        connection = socket.create_connection(("127.0.0.1", int(address.rstrip("/").rsplit(":", 1)[1])))
        head = f"POST /api/photo HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(data)}\r\n\r\n"
        connection.sendall(head.encode() + data)
        return connection

    monkeypatch.setattr(server, "Turns", Counted)
    app = create_app(FaceAnalyzer([toy_model("gender")], Slow([])), Limits())
    with served(app) as address:
        first = post(20)
        assert working.wait(10)
        post(21).close()
        last = post(22)
        assert all_wait.wait(10)
        go.set()
        for connection in (first, last):
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
            connection.close()
    assert looked == [20, 22]


def test_a_client_that_does_not_take_its_answer_gives_up_its_turn(toy, clip, monkeypatch):
    """It would keep the only turn for as long as it stays connected."""
    ended = threading.Event()

    def frames(*_):
        try:
            for number in range(100):
                yield {"frame": number, "padding": "x" * 500_000}
        finally:
            ended.set()

    monkeypatch.setattr(server, "analyze_clip", frames)
    data = clip.read_bytes()
    with served(create_app(toy, Limits(answer_seconds=0.5))) as address:
        stalled = socket.socket()
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.connect(("127.0.0.1", int(address.rstrip("/").rsplit(":", 1)[1])))
        head = f"POST /api/clip HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(data)}\r\n\r\n"
        stalled.sendall(head.encode() + data)
        assert stalled.recv(20).startswith(b"HTTP/1.1 200")
        answer = httpx2.post(f"{address}api/photo", content=encoded(noise(20, 20)), timeout=20)
        assert answer.status_code == 200
        assert ended.wait(10)
        stalled.close()


def test_an_upload_that_never_ends_is_given_up(toy):
    app = create_app(toy, Limits(upload_seconds=0))

    async def endless():
        while True:
            yield b"x"
            await asyncio.sleep(0.01)

    async def ask():
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=ADDRESS) as client:
            return await client.post("/api/photo", content=endless())

    answer = asyncio.run(ask())
    assert answer.json()["error"]["code"] == "too_slow"


def test_an_error_of_ours_is_told_without_its_insides(toy, monkeypatch, caplog):
    def broken(data):
        raise RuntimeError("secret /path")

    monkeypatch.setattr(toy, "analyze", broken)
    answer = TestClient(create_app(toy), base_url=ADDRESS, raise_server_exceptions=False).post(
        "/api/photo", content=b"x"
    )
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "secret /path" in caplog.text


def test_the_page_knows_what_stands_behind_it(client):
    config = client.get("/config.json").json()
    assert config["engine"] == "server"
    assert config["models"][0]["name"] == "mobilenet_v1.toy"
    assert config["limits"] == {"photo_bytes": 200_000, "clip_bytes": 400_000, "clip_seconds": 1, "clip_fps": 4}
    assert config.keys() == {"engine", "models", "limits"}


def test_the_page_says_what_it_must_and_loads_nothing_from_elsewhere(client):
    page = pathlib.Path(__file__).parents[2] / "facejax" / "app" / "page"
    text = client.get("/").text
    assert "Art. 5(1)(f)" in text
    assert "prohibited in the EU" in text
    for file in page.iterdir():
        for line in file.read_text().splitlines():
            assert "://" not in line.replace("http://www.w3.org/2000/svg", ""), f"{file.name}: {line}"
            assert "innerHTML" not in line, f"{file.name}: {line}"
