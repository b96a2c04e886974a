"""The static site in a real headless Chromium: the same page, with the networks in the browser and no server."""

import hashlib
import json
import pathlib

import cv2
import numpy as np
import pytest
import skimage.data
from playwright import sync_api
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from facejax.app import onnxruntime_web as runtime
from facejax.app.guard import CONTENT_SECURITY_POLICY
from facejax.app.page_files import PAGE
from facejax.app.static_site import write_site
from facejax.detect import crop_face
from facejax.inference import Face, FaceAnalyzer, LoadedModel, read_image
from facejax.weights.convert import convert_file
from tests.app.conftest import served
from tests.inference.toy import noise, toy_model

WAIT = 90_000  # ms

# The detector gets identical inputs, so boxes (pixels) differ only by the rounding in `to_dict`. Crops differ by a grey
# level here and there: OpenCV rotates and resizes in fixed point, the page with doubles. Six faces of a real photo
# differed by 0.005 pixels, 0.013 years and 0.0034 of a probability (docs/app.md).
BOX, AGE, PROBABILITY = 0.02, 0.1, 0.02


class Policy:
    """Sends the policy that docs/app.md recommends for static hosts, so that it is tested."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def with_policy(message):
            if message["type"] == "http.response.start":
                policy = CONTENT_SECURITY_POLICY.replace("script-src 'self'", "script-src 'self' 'wasm-unsafe-eval'")
                message["headers"].append((b"content-security-policy", policy.encode()))
            await send(message)

        await self.app(scope, receive, with_policy)


def host(folder: pathlib.Path):
    return served(
        Starlette(routes=[Mount("/", StaticFiles(directory=folder, html=True))], middleware=[Middleware(Policy)])
    )


@pytest.fixture(scope="module")
def site(analyzer, heads, onnxruntime_web, tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("site") / "site"
    write_site(analyzer.models, folder, heads[:2], onnxruntime_web)
    return folder


@pytest.fixture(scope="module")
def page(site, browser):
    with host(site) as address:
        page = browser.new_page(viewport={"width": 1000, "height": 800})
        problems, elsewhere = [], []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: message.type == "error" and problems.append(message.text))
        page.on("request", lambda request: request.url.startswith((address, "blob:")) or elsewhere.append(request.url))
        page.goto(address)
        sync_api.expect(page.locator("#file")).to_be_enabled(timeout=WAIT)
        yield page
        page.close()
        assert problems == []
        assert elsewhere == []


def analyze(page, path: pathlib.Path) -> list[dict]:
    """The browser engine's result for a photo, computed by the page's own modules."""
    page.evaluate(
        """() => {
            window.worker ??= import('./browser_engine.js').then(async ({ BrowserEngine }) => {
                const engine = new BrowserEngine(await (await fetch('config.json')).json());
                await engine.open(() => {});
                return engine;
            });
        }"""
    )
    with page.expect_file_chooser() as chooser:
        page.evaluate(
            """() => {
                const input = Object.assign(document.createElement('input'), { type: 'file' });
                window.given = new Promise((resolve) => { input.onchange = () => resolve(input.files[0]); });
                input.click();
            }"""
        )
    chooser.value.set_files(path)
    return page.evaluate(
        """async () => {
            const [engine, file] = [await window.worker, await window.given];
            const picture = await createImageBitmap(file, { colorSpaceConversion: 'none' });
            return (await engine.photo(file, picture, new AbortController().signal)).faces;
        }"""
    )


def agree(got: list[dict], expected: tuple[Face, ...], box: float = BOX) -> None:
    """Raises AssertionError if the browser's results differ from the package's."""
    assert len(got) == len(expected)
    for face, told in zip(expected, got, strict=True):
        wanted = face.to_dict()
        assert told.keys() == wanted.keys()
        np.testing.assert_allclose(told["box"], face.box, atol=box)
        np.testing.assert_allclose([*told["landmarks"].values()], face.landmarks, atol=box)
        assert told["score"] == pytest.approx(face.score, abs=1e-3)
        for name in ("perceived_gender", "perceived_ethnicity", "expression"):
            if name in wanted:
                assert told[name]["probabilities"] == pytest.approx(wanted[name]["probabilities"], abs=PROBABILITY)
        for name, tolerance in {"perceived_age": AGE, "valence": PROBABILITY, "arousal": PROBABILITY}.items():
            if name in wanted:
                assert told[name] == pytest.approx(wanted[name], abs=tolerance)


def test_the_page_works_without_a_server(page, photo):
    assert "in this browser" in page.locator("#place").inner_text()
    page.set_input_files("#file", photo)
    sync_api.expect(page.locator(".face")).to_have_count(2, timeout=WAIT)
    assert page.locator(".face .age").count() == 2


def test_browser_and_package_agree_on_rendered_people(page, photo, analyzer):
    agree(analyze(page, photo), analyzer.analyze(photo).faces)


def test_browser_and_package_agree_on_a_photo(page, analyzer, tmp_path):
    astronaut = skimage.data.astronaut()
    cv2.imwrite(str(tmp_path / "photo.png"), astronaut[..., ::-1])
    expected = analyzer.analyze(astronaut).faces
    assert len(expected) >= 1
    agree(analyze(page, tmp_path / "photo.png"), expected)


def test_a_clip_in_the_browser(page, clip):
    page.set_input_files("#file", clip)
    page.get_by_text("Play the clip to see them.").wait_for(timeout=WAIT)
    sync_api.expect(page.locator(".face")).to_have_count(1, timeout=WAIT)
    assert "6 frames" in page.locator("#status").inner_text()


@pytest.mark.parametrize(("name", "words"), [("a.jpg", "cannot read this file as a photo"), ("a.mp4", "This clip")])
def test_what_cannot_be_read_is_said(page, tmp_path, name, words):
    (tmp_path / name).write_bytes(b"nothing of the kind")
    page.set_input_files("#file", tmp_path / name)
    sync_api.expect(page.get_by_role("alert")).to_contain_text(words, timeout=WAIT)


def test_a_clip_whose_pictures_the_browser_cannot_see_is_told(page):
    """It has sound only, like a clip in a new video format in an older browser."""
    transfer = page.evaluate_handle(
        """async () => {
            const context = new AudioContext(), target = context.createMediaStreamDestination();
            const tone = context.createOscillator();
            tone.connect(target);
            tone.start();
            const recorder = new MediaRecorder(target.stream, { mimeType: "audio/webm" }), parts = [];
            recorder.ondataavailable = (event) => parts.push(event.data);
            const stopped = new Promise((resolve) => (recorder.onstop = resolve));
            recorder.start();
            setTimeout(() => recorder.stop(), 500);
            await stopped;
            const transfer = new DataTransfer();
            transfer.items.add(new File(parts, "talk.webm", { type: "video/webm" }));
            return transfer;
        }"""
    )
    page.dispatch_event("#stage", "drop", {"dataTransfer": transfer})
    page.get_by_text("This browser cannot decode the video of this clip.").wait_for(timeout=WAIT)


def test_the_folder_is_whole(site):
    files = {str(path.relative_to(site)) for path in site.rglob("*") if path.is_file()}
    assert {path.name for path in PAGE.iterdir()} <= files
    manifest = json.loads((site / "bundle" / "manifest.json").read_text())
    entries = [*(manifest["detector"][name] for name in ("pnet", "rnet", "onet")), *manifest["models"]]
    for entry in entries:
        data = (site / "bundle" / entry["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]
    assert json.loads((site / "config.json").read_text())["engine"] == "browser"
    assert {f"onnxruntime/{name}" for name in runtime.NAMES.values()} <= files


def test_another_runtime_is_refused_and_nothing_is_written(analyzer, tmp_path):
    (tmp_path / "package" / "dist").mkdir(parents=True)
    for name in runtime.SHA256:
        (tmp_path / "package" / name).write_bytes(b"something else")
    with pytest.raises(ValueError, match="not the one of onnxruntime-web"):
        write_site(analyzer.models, tmp_path / "site", [noise(9, 9)], tmp_path / "package")
    with pytest.raises(FileNotFoundError, match="contains dist/"):
        write_site(analyzer.models, tmp_path / "site", [noise(9, 9)], tmp_path / "nowhere")
    assert [path.name for path in tmp_path.iterdir()] == ["package"]


def test_kernels_that_the_page_lacks_are_refused(tmp_path):
    with pytest.raises(ValueError, match="bicubic"):
        write_site([toy_model("gender", interpolation="bicubic")], tmp_path / "site", [noise(9, 9)])


def test_without_npm_the_mend_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="--onnxruntime-web FOLDER"):
        runtime.copy_runtime(tmp_path / "files")


@pytest.mark.slow
def test_browser_and_package_agree_with_official_weights(shared_dir, onnxruntime_web, browser, tmp_path):
    """Real faces, lossless: the published age and gender network and the whole cascade."""
    file = shared_dir / "weights" / "age_gender_tf2_new-01-0.14-0.92_quantized.pb"
    variables, cfg = convert_file("hsemotion", file)
    analyzer = FaceAnalyzer([LoadedModel(cfg, variables)])
    image = read_image(shared_dir / "data" / "photos" / "facenet_pytorch" / "data_multiface.jpg")
    expected = analyzer.analyze(image).faces
    assert len(expected) >= 3
    cv2.imwrite(str(tmp_path / "photo.png"), image[..., ::-1])
    write_site(analyzer.models, tmp_path / "site", [crop_face(image, expected[0].box)], onnxruntime_web)
    with host(tmp_path / "site") as address:
        page = browser.new_page()
        page.goto(address)
        agree(analyze(page, tmp_path / "photo.png"), expected)
        page.close()
