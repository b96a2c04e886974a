import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from facejax.evals import identification
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
    train, test = next(one_photo_each(identities, 1, 3))
    five = NearestNeighbors(n_neighbors=5).fit(rows[train]).kneighbors(rows[test], return_distance=False)
    assert result.rank5[0] == (identities[train][five] == identities[test][:, None]).any(axis=1).mean()


def test_rows_of_any_length_are_normalised():
    np.testing.assert_allclose(normalize(np.array([[3e-3, -4e-3], [0, 0]])), [[0.6, -0.8], [0, 0]], rtol=1e-6)


def test_the_interval_is_of_photos_not_of_persons():
    """Twenty people with two equal photos are always found, twenty with eleven photos of noise hardly ever."""
    rng = np.random.default_rng(0)
    identities = np.concatenate([np.repeat(np.arange(20), 2), np.repeat(np.arange(20, 40), 11)])
    features = rng.normal(size=(len(identities), 30))
    features[1:40:2] = features[:40:2]
    result = identify(features, identities, repeats=3)
    assert 0.09 < result.mean < 0.2
    assert result.interval95[0] < result.mean < result.interval95[1]


def test_one_photo_a_person_and_all_others(photos):
    _, identities = photos
    several = [p for p in range(30) if (identities == p).sum() > 1]
    for train, test in one_photo_each(identities, 5, 0):
        assert sorted(identities[train]) == several
        assert not set(train) & set(test)
        assert sorted([*train, *test]) == np.flatnonzero(np.isin(identities, several)).tolist()
    with pytest.raises(ValueError, match="3 people with one each"):
        list(one_photo_each(np.arange(3), 1, 0))


@pytest.mark.parametrize("block", [7, 4096])
def test_nearest_in_gallery_equals_a_full_sort(photos, monkeypatch, block):
    monkeypatch.setattr(identification, "_BLOCK", block)
    rows = normalize(photos[0])
    indices, similarity = nearest_in_gallery(rows[:20], rows[20:], 3)
    distances = np.linalg.norm(rows[20:, None] - rows[None, :20], axis=-1)
    np.testing.assert_array_equal(indices, np.argsort(distances, axis=1)[:, :3])
    np.testing.assert_allclose(2 - 2 * similarity, np.sort(distances, axis=1)[:, :3] ** 2, atol=1e-5)
    assert nearest_in_gallery(rows[:2], rows[:0], 9)[0].shape == (0, 2)


def test_open_set_search_by_hand():
    # Three people with two photos; features on a circle. Whoever is enrolled, photos of one person are 1 degree apart.
    angles = np.radians([0, 1, 120, 121, 240, 241, 60])
    features, identities = np.stack([np.cos(angles), np.sin(angles)], axis=1), np.array([0, 0, 1, 1, 2, 2, 9])
    result = search(features, identities, repeats=3, false_alarms=(0.01, 0.9))
    assert (result.enrolled, result.known_probes, result.unknown_probes) == (1, 1, 5)
    assert result.rates == {0.01: 1.0, 0.9: 1.0}
    rng = np.random.default_rng(0)
    rows, who = (
        normalize(rng.normal(size=(25, 6))[np.arange(100) // 4] + rng.normal(size=(100, 6))),
        np.arange(100) // 4,
    )
    draw, rates, alarms = np.random.default_rng(5), [], (0.05, 0.2)
    for train, _ in one_photo_each(who, 2, 5):
        gallery = draw.permutation(train)[:12]
        others = np.setdiff1d(np.arange(100), gallery)
        similarity = rows[others] @ rows[gallery].T
        best, known = similarity.max(axis=1), np.isin(who[others], who[gallery])
        right = who[gallery][similarity.argmax(axis=1)] == who[others]
        # The lowest threshold at which no more strangers are identified than allowed.
        bars = [min(bar for bar in best if (best[~known] > bar).mean() <= alarm) for alarm in alarms]
        rates.append([(right & (best > bar))[known].mean() for bar in bars])
    found = search(rows, who, repeats=2, seed=5, false_alarms=alarms)
    assert (found.enrolled, list(found.rates.values())) == (12, pytest.approx(np.mean(rates, axis=0)))
    noise = search(rng.normal(size=(400, 4)), np.arange(400) // 4, repeats=3, false_alarms=(0.01, 1.0))
    assert noise.rates[0.01] < 0.05  # chance; with no threshold rank 1 alone decides
    assert noise.rates[1.0] >= noise.rates[0.01]
