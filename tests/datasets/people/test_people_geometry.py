"""The renderer's fast forms against the plain ones: normals, neighbours, turns, and what a camera does to colours."""

import dataclasses

import cv2
import numpy as np
import pytest

from facejax.datasets.people.assets import load_pack
from facejax.datasets.people.camera import NECK, PIVOT, Camera, turn
from facejax.datasets.people.scene import CLEAN, finish, sample_finish


@pytest.fixture(scope="module")
def bent():
    """A head without any symmetry that would make it easy."""
    vertices = load_pack().vertices
    return (vertices + 0.1 * np.sin(3 * vertices[:, [1, 2, 0]])).astype(np.float32)


def test_normals(bent):
    pack = load_pack()
    a, b, c = bent[pack.triangles].transpose(1, 0, 2).astype(np.float64)
    face = np.cross(b - a, c - a)
    expected = np.zeros(bent.shape)
    for corner in range(3):
        np.add.at(expected, pack.triangles[:, corner], face)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True) + 1e-9
    np.testing.assert_allclose(pack.normals(bent), expected, atol=2e-4)


def test_neighbour_mean(bent):
    pack = load_pack()
    edges = {frozenset((t[i], t[j])) for t in pack.triangles.tolist() for i, j in ((0, 1), (1, 2), (2, 0))}
    around = [[] for _ in bent]
    for one, other in map(tuple, edges):
        around[one].append(other)
        around[other].append(one)
    expected = np.array([bent[near].mean(0) for near in around])
    np.testing.assert_allclose(pack.neighbour_mean(bent), expected, atol=1e-5)
    np.testing.assert_allclose(pack.neighbour_mean(bent[:, 1]), expected[:, 1], atol=1e-5)


@pytest.mark.parametrize("pivot", [True, False])
def test_the_head_turns_and_the_shoulders_follow(bent, pivot):
    camera = Camera(0.5, -0.2, 0.3, 100.0, (0.0, 0.0), 5.0, body_yaw=-0.4)
    height = load_pack().vertices[:, 1]
    body = dataclasses.replace(camera, yaw=camera.body_yaw, pitch=camera.pitch * 0.15, roll=camera.roll * 0.2)
    origin = PIVOT if pivot else np.zeros(3)
    turned = turn(bent, height, camera, pivot=pivot)
    for part, rotation in ((height > NECK[1], camera.rotation), (height < NECK[0], body.rotation)):
        expected = (bent[part] - origin) @ rotation.astype(np.float64).T + origin
        np.testing.assert_allclose(turned[part], expected, atol=1e-5)
    between = turned[(height > NECK[0]) & (height < NECK[1])]
    assert np.isfinite(between).all()
    assert len(between) > 50


@pytest.mark.parametrize("seed", range(3))
def test_colours_of_a_camera(seed):
    """Tint, brightness, saturation and contrast, one after another, without blur and grain."""
    rng = np.random.default_rng(seed)
    camera = dataclasses.replace(sample_finish(rng), blur=0.01, motion=(0.0, 0.0), noise=0.0, shrink=1.0, quality=100)
    coarse = rng.uniform(40, 200, (6, 6, 3)).astype(np.float32)
    image = cv2.resize(coarse, (48, 48), interpolation=cv2.INTER_CUBIC)
    expected = image * np.array(camera.tint, np.float32) * camera.brightness
    grey = expected @ np.array([0.299, 0.587, 0.114])
    expected = grey[..., None] + (expected - grey[..., None]) * (0 if camera.grey else camera.saturation)
    expected = ((expected - 118) * camera.contrast + 118).clip(0, 255)
    # JPEG halves the resolution of colour; it keeps a smooth picture.
    assert np.abs(finish(image, camera, rng) - expected).mean() < 1.5
    assert finish(image, CLEAN, rng).dtype == np.uint8
