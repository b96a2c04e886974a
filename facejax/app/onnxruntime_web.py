"""Provides onnxruntime-web for the static site: a pinned version whose files are checked by SHA-256."""

import hashlib
import pathlib
import shutil
import subprocess
import tarfile
import tempfile

VERSION = "1.30.0"
# Paths in the npm package: its own build for the CPU (WebAssembly, no WebGPU). MIT licence.
_SCRIPT, _WASM = "dist/ort.wasm.bundle.min.mjs", "dist/ort-wasm-simd-threaded.wasm"
SHA256 = {
    _SCRIPT: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    _WASM: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
# Renamed from .mjs: static hosts serve .js with a MIME type that browsers execute.
NAMES = {_SCRIPT: "ort.wasm.bundle.min.js", _WASM: "ort-wasm-simd-threaded.wasm"}


def copy_runtime(destination: pathlib.Path, package: pathlib.Path | None = None) -> None:
    """Writes the two files of onnxruntime-web to a folder.

    Args:
        destination: The folder, which is created.
        package: Folder of the npm package (``node_modules/onnxruntime-web``) of `VERSION`. None: downloaded by
            ``npm pack`` from the registry that npm is configured for.

    Raises:
        FileNotFoundError: npm is not installed, or a file is missing.
        ConnectionError: npm could not download the package.
        ValueError: A file is not the one of `VERSION`.
    """
    contents = {name: _read(package / name) for name in SHA256} if package else _fetch()
    destination.mkdir(parents=True)
    for name, data in contents.items():
        if hashlib.sha256(data).hexdigest() != SHA256[name]:
            raise ValueError(f"{name} is not the one of onnxruntime-web {VERSION}: its SHA-256 differs")
        (destination / NAMES[name]).write_bytes(data)


def _read(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileNotFoundError(
            f"no file {path}: pass the folder of the npm package onnxruntime-web {VERSION}, which contains dist/"
        ) from error


def _fetch() -> dict[str, bytes]:
    hint = f"or pass --onnxruntime-web FOLDER with the npm package onnxruntime-web {VERSION}"
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError(f"npm, which downloads onnxruntime-web, is not installed: install it, {hint}")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", "--silent", f"onnxruntime-web@{VERSION}"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        archives = list(pathlib.Path(folder).glob("*.tgz"))
        if done.returncode or len(archives) != 1:
            raise ConnectionError(
                f"npm could not download onnxruntime-web: {done.stderr.strip()[-300:]}; fix that, {hint}"
            )
        contents = {}
        with tarfile.open(archives[0]) as archive:
            for name in SHA256:
                file = archive.extractfile(f"package/{name}")
                if file is None:
                    raise ValueError(f"{archives[0].name} does not contain {name}")
                contents[name] = file.read()
        return contents
