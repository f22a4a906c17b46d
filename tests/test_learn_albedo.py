"""How much of strangers' albedo is explained, where the answer is known."""
import numpy as np
import pytest

from fitting.learn_albedo import explained_of_strangers, learn

SAME = np.arange(8)                       # a mirror that changes nothing
PEOPLE = 6


def albedos(shared, private):
    """Four pictures of each person: both ways along one direction that all have, and along one of their own."""
    pictures, names = [], []
    for person in range(PEOPLE):
        for size, direction in ((shared, 0), (private, 1 + person)):
            for sign in (-1, 1):
                offset = np.zeros(24)
                offset[direction] = sign * size
                pictures.append(0.5 + offset.reshape(8, 3))
                names.append(f"p{person}")
    return np.array(pictures), names


@pytest.mark.parametrize(("shared", "private", "share"), [(0.2, 0.0, 1.0), (0.0, 0.2, 0.0), (0.1, 0.2, 0.2),
                                                          (0.2, 0.1, 0.8)])
def test_only_what_people_share_is_explained(shared, private, share):
    pictures, names = albedos(shared, private)
    components = PEOPLE - 1 if private else 1            # as many directions as there are, or nearly
    found = explained_of_strangers(pictures, names, SAME, components, folds=PEOPLE)
    assert found.shape == (PEOPLE,)
    np.testing.assert_allclose(found, share, atol=1e-9)


def test_pictures_of_a_person_are_never_on_both_sides():
    """What a person repeats in every picture would be explained if one of them were learned from."""
    pictures, names = albedos(0.0, 0.2)
    order = np.random.default_rng(0).permutation(len(names))
    found = explained_of_strangers(pictures[order], [names[i] for i in order], SAME, 4, folds=3)
    np.testing.assert_allclose(found, 0, atol=1e-9)


def test_people_come_in_the_order_of_their_names():
    pictures, names = albedos(0.2, 0.1)
    last = np.array(names) == "p5"
    pictures[last] = 0.5 + 2 * (pictures[last] - 0.5) * (np.abs(pictures[last] - 0.5) < 0.15)    # their own only
    found = explained_of_strangers(pictures, names, SAME, PEOPLE - 1, folds=PEOPLE)
    np.testing.assert_allclose(found, [0.8] * 5 + [0.0], atol=1e-9)


def test_components_are_those_of_numpy_and_alike_on_both_sides():
    rng = np.random.default_rng(0)
    mirror = np.array([1, 0, 3, 2, 4, 6, 5, 7])
    data = rng.uniform(0.4, 0.6, (20, 8, 3))
    mean, basis, kept = learn(data, mirror, 5)
    both = np.concatenate([data, data[:, mirror]]).reshape(40, -1)
    np.testing.assert_allclose(mean.ravel(), both.mean(axis=0))
    np.testing.assert_allclose(mean[mirror], mean)
    values, vectors = np.linalg.eigh(np.cov(both.T))
    flat = basis.reshape(5, -1)
    np.testing.assert_allclose((flat ** 2).sum(axis=1), values[::-1][:5])
    np.testing.assert_allclose(np.abs(np.diag(flat @ vectors[:, ::-1][:, :5])), np.sqrt(values[::-1][:5]))
    assert kept == pytest.approx(values[::-1][:5].sum() / values.sum())
