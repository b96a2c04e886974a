import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from facejax.evals.identification import identify, nearest_in_gallery, normalize, one_photo_each, search


@pytest.fixture
def photos():
    rng = np.random.default_rng(0)
    identities = np.repeat(np.arange(30), rng.integers(1, 7, 30))
    return rng.normal(size=(30, 12))[identities] + rng.normal(0, 0.9, (len(identities), 12)), identities


def test_protocol_equals_scikit_learn_s_nearest_neighbour(photos):
    features, identities = photos
    result = identify(features, identities, repeats=4, seed=3)
    rows = features / np.linalg.norm(features, axis=1, keepdims=True)
    for accuracy, (train, test) in zip(result.accuracy, one_photo_each(identities, 4, 3), strict=True):
        neighbours = NearestNeighbors(n_neighbors=1).fit(rows[train]).kneighbors(rows[test], return_distance=False)
        assert accuracy == pytest.approx((identities[train][neighbours[:, 0]] == identities[test]).mean())
    assert result.mean == pytest.approx(np.mean(result.accuracy))
    assert result.std == pytest.approx(np.std(result.accuracy))
    assert 0.1 < result.mean < 1
    assert result.interval95[0] < result.mean < result.interval95[1]
    assert (result.rank5 >= result.accuracy).all()


def test_one_photo_a_person_and_all_others(photos):
    _, identities = photos
    several = [p for p in range(30) if (identities == p).sum() > 1]
    for train, test in one_photo_each(identities, 5, 0):
        assert sorted(identities[train]) == several
        assert not set(train) & set(test)
        assert sorted([*train, *test]) == np.flatnonzero(np.isin(identities, several)).tolist()
    with pytest.raises(ValueError, match="3 persons with one each"):
        list(one_photo_each(np.arange(3), 1, 0))


def test_nearest_in_gallery_equals_a_full_sort(photos):
    rows = normalize(photos[0])
    indices, similarity = nearest_in_gallery(rows[:20], rows[20:], 3)
    distances = np.linalg.norm(rows[20:, None] - rows[None, :20], axis=-1)
    np.testing.assert_array_equal(indices, np.argsort(distances, axis=1)[:, :3])
    np.testing.assert_allclose(2 - 2 * similarity, np.sort(distances, axis=1)[:, :3] ** 2, atol=1e-5)
    assert nearest_in_gallery(rows[:2], rows[:0], 9)[0].shape == (0, 2)


def test_open_set_search_by_hand():
    # Three persons with two photos; features on a circle. Whoever is enrolled, photos of one person are 1 degree apart.
    angles = np.radians([0, 1, 120, 121, 240, 241, 60])
    features, identities = np.stack([np.cos(angles), np.sin(angles)], axis=1), np.array([0, 0, 1, 1, 2, 2, 9])
    result = search(features, identities, repeats=3, false_alarms=(0.01, 0.9))
    assert (result.enrolled, result.known_probes, result.unknown_probes) == (1, 1, 5)
    assert result.rates == {0.01: 1.0, 0.9: 1.0}
    rng = np.random.default_rng(0)
    noise = search(rng.normal(size=(400, 4)), np.arange(400) // 4, repeats=3, false_alarms=(0.01, 1.0))
    assert noise.rates[0.01] < 0.05  # chance; with no threshold rank 1 alone decides
    assert noise.rates[1.0] >= noise.rates[0.01]
