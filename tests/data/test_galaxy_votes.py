"""Votes make classes as the published tree does, and the surest galaxies of each are kept."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from kempe_nb.data.galaxies import CLASSES
from kempe_nb.data.galaxy_votes import VOTES, class_scores, curated


def rng(seed=0):
    return np.random.default_rng(seed)


def votes(**given):
    """Return fractions of galaxies of which the named answers are given, the rest zero."""
    count = len(next(iter(given.values())))
    return {name: np.zeros(count) for name in VOTES} | {
        name.replace("_", " ").replace("edge on", "edge-on"): np.array(each)
        for name, each in given.items()
    }


def test_scores_are_products_along_the_tree():
    given = votes(featured=[0.9], not_edge_on=[0.8], bar=[0.6], spiral=[0.7])
    scores = class_scores(given)
    assert scores.shape == (1, 10) and scores[0].argmax() == CLASSES.index("barred spiral")
    assert scores[0, 5] == pytest.approx(0.9 * 0.8 * 0.6 * 0.7)
    given = votes(featured=[0.5], edge_on=[1.0], rounded_bulge=[0.3], boxy_bulge=[0.2])
    assert class_scores(given)[0, 3] == pytest.approx(0.25)


@given(st.integers(0, 99), st.integers(1, 20))
def test_scores_of_complete_answers_sum_to_one(seed, count):
    draw = rng(seed)
    given = {}
    for answers in (
        ("smooth", "featured", "artifact"),
        ("round", "in between", "cigar"),
        ("edge-on", "not edge-on"),
        ("rounded bulge", "boxy bulge", "no bulge"),
        ("bar", "no bar"),
        ("spiral", "no spiral"),
    ):
        given |= dict(zip(answers, draw.dirichlet(np.ones(len(answers)), count).T, strict=True))
    np.testing.assert_allclose(class_scores(given).sum(1), 1)


def test_the_surest_galaxies_of_each_class_are_kept():
    draw = rng()
    scores = draw.random((400, 10))
    rows, labels = curated(scores, 7)
    assert len(rows) == 63 and len(set(rows.tolist())) == 63
    assert (labels == np.repeat(np.arange(9), 7)).all()
    best = scores.argmax(1)
    assert (best[rows] == labels).all()
    for number in range(9):
        kept = scores[rows[labels == number], number]
        left = np.setdiff1d(np.flatnonzero(best == number), rows)
        assert (np.diff(kept) <= 0).all() and scores[left, number].max() <= kept.min()


def test_bad_votes_are_refused():
    good = votes(smooth=[1.0])
    with pytest.raises(ValueError, match="lack the column 'bar'"):
        class_scores({name: each for name, each in good.items() if name != "bar"})
    with pytest.raises(ValueError, match=r"'smooth' has shape \(1, 1\); accepted is \[N\]"):
        class_scores({name: [[0.5]] for name in VOTES})
    with pytest.raises(ValueError, match="'bar' holds .*1.5"):
        class_scores(good | {"bar": [1.5]})
    with pytest.raises(ValueError, match="'bar' holds .*nan"):
        class_scores(good | {"bar": [np.nan]})
    with pytest.raises(ValueError, match=r"'bar' has shape \(2,\)"):
        class_scores(good | {"bar": [0.5, 0.5]})
    with pytest.raises(ValueError, match="'smooth, in between' has 0 galaxies"):
        curated(class_scores(votes(smooth=[1.0], round=[1.0])), 2)
    # A galaxy without a score above zero is of no class.
    with pytest.raises(ValueError, match="'smooth, round' has 0 galaxies"):
        curated(np.zeros((20, 10)), 1)
    with pytest.raises(ValueError, match="not finite"):
        curated(np.full((3, 10), np.nan))
    with pytest.raises(ValueError, match="scores have shape"):
        curated(np.ones((3, 9)))
