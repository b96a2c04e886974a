"""Clips: expressions that come and go on heads that drift, blink and talk; one person (AFEW) or a group (VGAF)."""

import dataclasses

import numpy as np
from jaxtyping import Float, UInt8

from facejax.datasets.people.background import sample_background
from facejax.datasets.people.camera import Camera
from facejax.datasets.people.expression import STRONGEST, VISEMES, Expression, both_sides, sample_expression
from facejax.datasets.people.identity import Identity, sample_identity
from facejax.datasets.people.light import sample_light
from facejax.datasets.people.outfit import sample_outfit
from facejax.datasets.people.render import Look, Person, draw, make_person
from facejax.datasets.people.scene import finish, put, sample_camera, sample_exposure, sample_finish, sample_hair
from facejax.tasks import EMOTION8

# Expressions of the members of a group, by its emotion.
_MEMBERS = {
    "positive": ("happiness", "happiness", "happiness", "surprise"),
    "neutral": ("neutral",),
    "negative": ("anger", "sadness", "fear", "disgust"),
}
ABSENT, COMPANION = 0.05, 0.2  # share of one-person clips without anybody, and with a smaller second face


@dataclasses.dataclass(frozen=True)
class Actor:
    """A person in a clip.

    Attributes:
        identity: Who it is.
        emotion: Index in EMOTION8 of the expression at its apex.
        camera: Pose in the first frame.
    """

    identity: Identity
    emotion: int
    camera: Camera


@dataclasses.dataclass(frozen=True)
class ClipMaker:
    """Renders one clip; small, picklable and independent of all others.

    Attributes:
        actors: The people, far ones first.
        key: Seeds of everything else.
        num_frames: Frames of the clip.
        size: Rows and columns.
    """

    actors: tuple[Actor, ...]
    key: tuple[int, ...]
    num_frames: int
    size: tuple[int, int]

    def __call__(self) -> UInt8[np.ndarray, "frames rows columns 3"]:
        """The frames, uint8 RGB."""
        rng = np.random.default_rng(self.key)
        light, camera_finish, exposure = sample_light(rng), sample_finish(rng), sample_exposure(rng)
        background = sample_background(rng, *self.size)
        cast = [(_prepare(actor, rng), moments(actor, self.num_frames, rng)) for actor in self.actors]
        frames = []
        for t in range(self.num_frames):
            image = background.copy()
            for (person, look), track in cast:
                expression, camera = track[t]
                layer = draw(person, expression, camera, light, look, self.size, exposure)
                if layer is not None:
                    put(image, layer)
            frames.append(finish(image, camera_finish, rng))
        return np.stack(frames)


def _prepare(actor: Actor, rng: np.random.Generator) -> tuple[Person, Look]:
    person = make_person(actor.identity)
    return person, Look(sample_hair(person, rng), sample_outfit(rng, person.skin.base))


def envelope(num_frames: int, rng: np.random.Generator) -> Float[np.ndarray, " frames"]:
    """Strength of an expression over time, 0 to 1: onset, apex and offset, each smooth."""
    onset, apex, offset = rng.uniform(0.0, 0.25), rng.uniform(0.25, 0.45), rng.uniform(0.65, 1.3)
    end = offset + rng.uniform(0.2, 0.4)
    time = np.linspace(0, 1, num_frames)
    strength = np.interp(time, [onset, apex, offset, end], [rng.uniform(0, 0.3), 1.0, 1.0, rng.uniform(0.1, 0.5)])
    return strength * strength * (3 - 2 * strength)


def moments(actor: Actor, num_frames: int, rng: np.random.Generator) -> list[tuple[Expression, Camera]]:
    """Face and pose of an actor in every frame."""
    apex = sample_expression(rng, actor.emotion)
    rest = sample_expression(rng, EMOTION8.index("neutral"))
    strength = envelope(num_frames, rng)
    drift = _wander(num_frames, 5, rng) * np.array([0.10, 0.06, 0.04, 0.06, 0.04])
    gaze = _wander(num_frames, 2, rng) * 0.25
    blinks = _blinks(num_frames, rng)
    speech = [both_sides(VISEMES[i]) for i in rng.integers(len(VISEMES), size=num_frames // 3 + 2)]
    loud = float(rng.uniform(0.3, 0.8)) if rng.random() < 0.5 else 0.0
    track = []
    for t in range(num_frames):
        names = set(apex.units) | set(rest.units)
        units = {n: rest.units.get(n, 0.0) * (1 - strength[t]) + apex.units.get(n, 0.0) * strength[t] for n in names}
        step, part = divmod(t / 3, 1)
        for share, viseme in ((1 - part, speech[int(step)]), (part, speech[int(step) + 1])):
            for name, weight in viseme.items():
                units[name] = units.get(name, 0.0) + weight * share * loud * 0.7
        for side in ("Left", "Right"):
            units["eyeBlink" + side] = max(units.get("eyeBlink" + side, 0.0), float(blinks[t]))
        units = {name: float(min(units[name], STRONGEST)) for name in sorted(units)}
        look_at = (apex.gaze[0] + float(gaze[t, 0]), apex.gaze[1] + float(gaze[t, 1]))
        expression = Expression(actor.emotion, apex.intensity * float(strength[t]), units, look_at)
        at, (yaw, pitch, roll, x, y) = actor.camera, drift[t].tolist()
        center = at.center[0] + x * at.size, at.center[1] + y * at.size
        camera = dataclasses.replace(at, yaw=at.yaw + yaw, pitch=at.pitch + pitch, roll=at.roll + roll, center=center)
        track.append((expression, camera))
    return track


def _wander(num_frames: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth paths that start at 0: sums of slow sines with random phase."""
    time = np.arange(num_frames)[:, None, None] / 30
    speed = rng.uniform(0.3, 3.0, (1, 3, count))
    phase = rng.uniform(0, 2 * np.pi, (1, 3, count))
    path = (np.sin(speed * 2 * np.pi * time + phase) / speed * rng.normal(0, 1, (1, 3, count))).sum(1)
    return path - path[:1]


def _blinks(num_frames: int, rng: np.random.Generator) -> np.ndarray:
    time = np.arange(num_frames)
    closed = np.zeros(num_frames)
    for at in rng.integers(0, num_frames, size=rng.poisson(num_frames / 40)):
        closed = np.maximum(closed, np.exp(-(((time - at) / 1.3) ** 2)))
    return closed


def sample_solo(
    rng: np.random.Generator, key: tuple[int, ...], emotion: int, size: int
) -> tuple[tuple[Actor, ...], tuple[int, int]]:
    """Cast and frame size of an AFEW-like clip: one main person, sometimes a smaller second face, sometimes nobody."""
    camera = sample_camera(rng, size)
    actors = [Actor(sample_identity((*key, 0)), emotion, camera)]
    if rng.random() < COMPANION:
        side = float(rng.choice([0.17, 0.83])) * size
        small = dataclasses.replace(camera, size=camera.size * float(rng.uniform(0.4, 0.7)), center=(side, 0.45 * size))
        actors.insert(0, Actor(sample_identity((*key, 1)), int(rng.integers(len(EMOTION8))), small))
    if rng.random() < ABSENT:
        actors = []
    return tuple(actors), (size, size)


def sample_group(
    rng: np.random.Generator, key: tuple[int, ...], emotion: str, size: int
) -> tuple[tuple[Actor, ...], tuple[int, int]]:
    """Cast and frame size of a VGAF-like clip: three to seven people, most of whom show the same emotion."""
    rows, columns = size, size * 4 // 3
    count = int(rng.integers(3, 8))
    actors = []
    for member in range(count):
        names = _MEMBERS[emotion] if rng.random() < 0.8 else ("neutral", "happiness", "surprise", "sadness")
        feeling = EMOTION8.index(str(rng.choice(names)))
        face = float(rng.uniform(0.17, 0.26)) * rows
        x = (member + 0.5 + float(rng.normal(0, 0.12))) / count * columns
        y = rows * float(rng.uniform(0.3, 0.55) if count < 5 else rng.uniform(0.25, 0.7))
        pose = sample_camera(rng, size)
        camera = dataclasses.replace(pose, size=face, center=(x, y))
        actors.append(Actor(sample_identity((*key, member)), feeling, camera))
    return tuple(sorted(actors, key=lambda actor: actor.camera.center[1])), (rows, columns)
