"""The page in a real headless Chromium with the server: user actions and errors."""

import base64
import re

import cv2
import numpy as np
import PIL.Image
import pytest
from playwright import sync_api
from starlette.responses import HTMLResponse

from facejax.app.limits import Limits
from facejax.app.server import create_app
from tests.app.conftest import served
from tests.video.webm import write_webm

WAIT = 60_000  # ms: the first photo compiles


@pytest.fixture(scope="module")
def address(analyzer):
    with served(create_app(analyzer)) as address:
        yield address


@pytest.fixture
def page(browser, address):
    """The opened page; any error in its console fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    problems, elsewhere = [], []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: message.type == "error" and problems.append(message.text))
    page.on("request", lambda request: request.url.startswith((address, "blob:")) or elsewhere.append(request.url))
    page.goto(address)
    wait_until_ready(page)
    yield page
    context.close()
    assert elsewhere == []
    # Chromium logs every error response; the page itself shows them.
    assert [text for text in problems if "Failed to load resource" not in text] == []


def choose(page, path) -> None:
    page.set_input_files("#file", path)


def wait_until_ready(page) -> None:
    sync_api.expect(page.locator("#camera")).to_be_enabled(timeout=WAIT)


def wait_for_faces(page, count: int) -> None:
    sync_api.expect(page.locator(".face")).to_have_count(count, timeout=WAIT)


def test_a_photo_is_chosen(page, photo, analyzer):
    choose(page, photo)
    wait_for_faces(page, 2)
    face = analyzer.analyze(photo).faces[0]
    card = page.locator(".face").first
    assert f"{face.age:.0f}" in card.locator(".age").inner_text()
    rows = card.locator("dt").all_inner_texts()
    assert {"female", "male", "white", "happiness", "anger", "pleasant"} <= set(rows)
    best = [label.lower() for label in card.locator("dt.best").all_inner_texts()]
    assert best == [face.gender.label, face.ethnicity.label, face.emotion.label]
    # The box is on the face: it covers the same part of the stage as of the photo.
    stage, box = (page.locator(name).first.bounding_box() for name in ("#picture", ".box"))
    expected = face.box / [512, 256, 512, 256]
    got = [
        (box["x"] - stage["x"]) / stage["width"],
        (box["y"] - stage["y"]) / stage["height"],
        (box["x"] + box["width"] - stage["x"]) / stage["width"],
        (box["y"] + box["height"] - stage["y"]) / stage["height"],
    ]
    np.testing.assert_allclose(got, expected, atol=0.005)  # CSS rounds to fractions of a pixel
    assert page.locator("#status").inner_text() == "2 faces."


def test_keyboard_and_screen_reader(page, photo):
    choose(page, photo)
    wait_for_faces(page, 2)
    assert page.get_by_role("status").inner_text() == "2 faces."
    button = page.get_by_role("button", name=re.compile(r"^Face 1: perceived age \d+, perceived gender"))
    button.focus()
    page.keyboard.press("Enter")
    assert "chosen" in page.locator(".face").first.get_attribute("class")
    page.get_by_role("button", name="Clear").press("Enter")
    assert page.locator(".face").count() == 0
    assert page.get_by_label("Choose a photo or clip").evaluate("input => input === document.activeElement")


def test_nothing_moves_for_those_who_want_it_still(page):
    page.emulate_media(reduced_motion="reduce")
    assert page.locator("#busy").evaluate("bar => getComputedStyle(bar).animationName") == "none"
    page.emulate_media(reduced_motion="no-preference")
    assert page.locator("#busy").evaluate("bar => getComputedStyle(bar).animationName") == "pass"


def test_a_photo_is_dropped(page, photo):
    data = base64.b64encode(photo.read_bytes()).decode()
    transfer = page.evaluate_handle(
        """data => {
            const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], '<img src=x onerror=alert(1)>.png', { type: 'image/png' }));
            return transfer;
        }""",
        data,
    )
    page.dispatch_event("#stage", "drop", {"dataTransfer": transfer})
    wait_for_faces(page, 2)


@pytest.mark.parametrize(
    ("orientation", "turn", "blank"),
    [(1, None, False), (3, PIL.Image.Transpose.ROTATE_180, True), (6, PIL.Image.Transpose.ROTATE_90, True)],
)
def test_boxes_lie_on_no_picture_that_lies_otherwise(page, photo, tmp_path, orientation, turn, blank):
    """The server rotates a WebP by its EXIF orientation, Chromium does not."""
    exif = PIL.Image.Exif()
    exif[0x010F] = "a maker, before it"
    exif[0x0112] = orientation
    lying = PIL.Image.open(photo)
    lying = lying if turn is None else lying.transpose(turn)
    lying.save(tmp_path / "turned.webp", lossless=True, exif=exif)
    choose(page, tmp_path / "turned.webp")
    wait_for_faces(page, 2)
    shown = page.locator("#picture").evaluate(
        """canvas => {
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            return { size: [canvas.width, canvas.height], colours: new Set(new Uint32Array(data.buffer)).size };
        }"""
    )
    assert shown["size"] == [512, 256]
    assert (shown["colours"] == 1) == blank


def test_no_face(page, tmp_path):
    cv2.imwrite(str(tmp_path / "grey.jpg"), np.full((200, 300, 3), 127, np.uint8))
    choose(page, tmp_path / "grey.jpg")
    page.get_by_text("No face was found.").wait_for(timeout=WAIT)
    assert page.locator(".face").count() == 0


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("notes.jpg", b"no photo at all", "This file cannot be read as a photo"),
        ("huge.jpg", b"\xff" * (32 * 2**20 + 1), "This file has 33 MB; the limit for a photo is 32 MB."),
        ("empty.png", b"", "The file is empty."),
        ("broken.mp4", b"\0\0\0\x18ftypmp42" + b"\0" * 99, "This clip cannot be read"),
        ("notes.mp4", b"no clip at all", "This file is not a supported clip"),
    ],
)
def test_what_cannot_be_read_is_said(page, tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    choose(page, tmp_path / name)
    alarm = page.get_by_role("alert")
    alarm.wait_for(timeout=WAIT)
    assert words in alarm.inner_text()
    assert page.locator("#busy").is_hidden()


def test_the_server_says_too_large_itself(page):
    """Even if the page did not check it."""
    answer = page.evaluate(
        """async () => {
            const body = new Blob([new Uint8Array(33 * 2 ** 20)]);
            const answer = await fetch('api/photo', { method: 'POST', body });
            return [answer.status, (await answer.json()).error.code];
        }"""
    )
    assert answer == [413, "too_large"]


def test_a_clip_is_played_with_its_faces(page, clip):
    choose(page, clip)
    page.get_by_text("Play the clip to see them.").wait_for(timeout=WAIT)
    wait_for_faces(page, 1)
    left = []
    for time in (0, 0.9):
        page.evaluate("time => { document.getElementById('video').currentTime = time; }", time)
        page.wait_for_timeout(400)
        left.append(page.locator(".box").bounding_box()["x"])
    assert left[1] > left[0] + 5  # the box follows the face


def test_a_clip_is_followed_as_far_as_it_was_looked_at(browser, analyzer, heads, tmp_path):
    write_webm(tmp_path / "long.webm", [heads[0]] * 30, [100 * index for index in range(30)])
    with served(create_app(analyzer, Limits(clip_seconds=1))) as address:
        page = browser.new_page()
        page.goto(address)
        wait_until_ready(page)
        choose(page, tmp_path / "long.webm")
        page.get_by_text("frames of the first 1 s, at most 1 face in one. Play the clip").wait_for(timeout=WAIT)
        boxes = page.locator(".box")
        for time, count in ((2.5, 0), (0.5, 1), (1.2, 1), (2, 0)):
            page.evaluate("time => { document.getElementById('video').currentTime = time; }", time)
            sync_api.expect(boxes).to_have_count(count)
        # After seeking during playback there is still only one loop: one call per animation frame.
        calls = page.evaluate(
            """async () => {
                const video = document.getElementById('video');
                const [request, picture] = [window.requestAnimationFrame.bind(window), () => new Promise(request)];
                let calls = 0;
                window.requestAnimationFrame = (step) => { calls += 1; return request(step); };
                video.loop = true;
                await video.play();
                for (let move = 0; move < 6; move++) {
                    const there = new Promise((resolve) => video.addEventListener('seeked', resolve, { once: true }));
                    video.currentTime = 0.1 * move;
                    await there;
                }
                calls = 0;
                for (let step = 0; step < 20; step++) await picture();
                return calls;
            }"""
        )
        assert 10 <= calls <= 25
        page.close()


def test_the_camera(page):
    page.get_by_role("button", name="Use the camera").click()
    wait_for_faces(page, 1)
    stop = page.get_by_role("button", name="Stop the camera")
    assert "running" in stop.get_attribute("class").split()
    stop.click()
    assert page.locator(".face").count() == 0
    assert page.evaluate("document.getElementById('video').srcObject") is None


def test_a_phone(browser, address, photo):
    """At 360 pixels nothing is cut off or scrolls sideways, and buttons are large enough for a thumb."""
    context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(address)
    wait_until_ready(page)
    choose(page, photo)
    wait_for_faces(page, 2)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    for button in page.locator(".button:visible").all():
        box = button.bounding_box()
        assert box["height"] >= 44
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
    cut = (
        "[...document.querySelectorAll('dt, dd.value, h2, p')].filter((e) => e.scrollWidth > e.clientWidth + 1).length"
    )
    assert page.evaluate(cut) == 0
    context.close()


def test_another_site_gets_nothing(browser, analyzer):
    """A page of another origin (here: another port) can neither post nor read."""
    app, statuses = create_app(analyzer), []

    async def recorded(scope, receive, send):
        async def record(message):
            if message["type"] == "http.response.start":
                statuses.append((scope["path"], message["status"]))
            await send(message)

        await app(scope, receive, record)

    async def other(scope, receive, send):
        if scope["type"] == "http":
            await HTMLResponse("other")(scope, receive, send)

    with served(recorded) as address, served(other) as elsewhere:
        page = browser.new_page()
        page.goto(elsewhere)
        ask = """async (address) => {
            const refused = () => 'refused';
            return [
                await fetch(address + 'api/photo', { method: 'POST', body: 'x', mode: 'no-cors' }).catch(refused),
                await fetch(address + 'config.json').catch(refused),
            ];
        }"""
        assert page.evaluate(ask, address) == ["refused", "refused"]
        page.close()
    assert statuses == [("/api/photo", 403), ("/config.json", 403)]
