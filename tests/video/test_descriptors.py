import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facejax.video.descriptors import AFEW, VGAF, Descriptor, describe_clips


def afew_of_the_text(features):
    """Paper section 3.3, word by word: mean, max, min and standard deviation of each feature, together L2-normed."""
    columns = features.T.tolist()
    mean = [sum(c) / len(c) for c in columns]
    std = [(sum((x - m) ** 2 for x in c) / len(c)) ** 0.5 for c, m in zip(columns, mean, strict=True)]
    vector = mean + [max(c) for c in columns] + [min(c) for c in columns] + std
    length = sum(x * x for x in vector) ** 0.5
    return [x / length for x in vector]


def vgaf_of_the_text(features, frames):
    """Mean and deviation of the faces of each frame; mean and deviation of these over the frames; L2-normed."""
    rows = []
    for frame in sorted(set(frames.tolist())):
        faces = [features[i].tolist() for i in range(len(features)) if frames[i] == frame]
        mean = [sum(c) / len(c) for c in zip(*faces, strict=True)]
        var = [sum((x - m) ** 2 for x in c) / len(c) for c, m in zip(zip(*faces, strict=True), mean, strict=True)]
        rows.append(mean + [v**0.5 for v in var])
    mean = [sum(c) / len(c) for c in zip(*rows, strict=True)]
    var = [sum((x - m) ** 2 for x in c) / len(c) for c, m in zip(zip(*rows, strict=True), mean, strict=True)]
    vector = mean + [v**0.5 for v in var]
    length = sum(x * x for x in vector) ** 0.5
    return [x / length for x in vector]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 12), st.integers(1, 6), st.integers(0, 2**31))
def test_descriptors_equal_the_paper_s_text(faces, width, seed):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(faces, width)).astype(np.float32)
    frames = np.sort(rng.integers(0, 5, faces))
    np.testing.assert_allclose(AFEW(features, frames), afew_of_the_text(features.astype(float)), atol=1e-6)
    np.testing.assert_allclose(VGAF(features, frames), vgaf_of_the_text(features.astype(float), frames), atol=1e-6)


def test_sizes_and_clips_without_faces():
    nothing = np.zeros((0, 1280), np.float32), np.zeros(0, np.int64)
    for descriptor in (AFEW, VGAF):
        assert descriptor.size(1280) == 5120  # the paper's B0
        vector = descriptor(*nothing)
        assert vector.shape == (5120,)
        assert not vector.any()
    assert describe_clips([nothing, nothing], AFEW).shape == (2, 5120)
    assert not AFEW(np.zeros((2, 3), np.float32), np.arange(2)).any()


def test_unknown_statistics():
    with pytest.raises(ValueError, match="did you mean 'mean'"):
        Descriptor("frames", ("meen",))
    with pytest.raises(ValueError, match="levels"):
        Descriptor("frame", ("mean",))
