"""The memory of limited size: against the literal matrix, closed forms and simulation."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import integrate, special

from kempe_nb.methods import associative_memory as associative

few = settings(max_examples=30, deadline=None)
frequencies = st.lists(st.integers(0, 50), min_size=1, max_size=20).map(np.array)


def zipf_law(inputs, beta=1.5):
    law = np.arange(1.0, inputs + 1) ** -beta
    return law / law.sum()


# What is stored


@given(frequencies.filter(np.any))
@few
def test_by_frequency_weights_are_shares(seen):
    weights = associative.storage_weights(seen, "frequency")
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-12)
    np.testing.assert_allclose(weights * seen.sum(), seen, rtol=1e-12)
    # Counts and shares give the same.
    np.testing.assert_allclose(
        associative.storage_weights(seen / seen.sum(), "frequency"), weights, rtol=1e-12
    )


@given(frequencies)
@few
def test_equal_weights_go_to_what_was_seen(seen):
    weights = associative.storage_weights(seen, "equal")
    assert weights.dtype == np.float64
    assert weights.tolist() == [float(count > 0) for count in seen]


@given(frequencies, st.integers(1, 30))
@few
def test_above_a_threshold_the_most_frequent_are_kept_and_no_other(seen, kept):
    weights = associative.storage_weights(seen, "threshold", kept)
    stored = weights == 1
    assert (stored | (weights == 0)).all()
    assert stored.sum() == min(kept, (seen > 0).sum())
    assert not (seen[stored] == 0).any()
    assert min(seen[stored], default=0) >= max(seen[~stored], default=0)


def test_among_equals_the_first_are_kept():
    weights = associative.storage_weights([2, 5, 2, 2], "threshold", 2)
    assert weights.tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("scheme", ["frequency", "equal"])
def test_nothing_seen_is_nothing_stored(scheme):
    assert associative.storage_weights([0, 0, 0], scheme).tolist() == [0, 0, 0]
    assert associative.storage_weights([0, 0, 0], "threshold", 2).tolist() == [0, 0, 0]


# Scores


@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 9), st.integers(0, 99))
@few
def test_scores_are_those_of_the_literal_matrix(inputs, classes, width, seed):
    rng = np.random.default_rng(seed)
    labels, weights = rng.integers(0, classes, inputs), rng.random(inputs)
    scores = associative.memory_scores(
        labels, weights, width, classes, np.random.default_rng(seed + 1)
    )
    again = np.random.default_rng(seed + 1)
    e = again.standard_normal((inputs, width)) / np.sqrt(width)
    u = again.standard_normal((classes, width)) / np.sqrt(width)
    matrix = np.zeros((width, width))
    for i in range(inputs):
        matrix += weights[i] * np.outer(e[i], u[labels[i]])
    expected = [[e[i] @ matrix @ u[y] for y in range(classes)] for i in range(inputs)]
    assert scores.shape == (inputs, classes)
    np.testing.assert_allclose(scores, expected, rtol=1e-9, atol=1e-12)


def test_embeddings_have_length_one_on_average():
    # With one pair the score of its class is |e|^2 |u|^2, two independent chi-squares over d.
    rng, width, trials = np.random.default_rng(0), 10, 4_000
    one = np.zeros(1, int), np.ones(1), width, 1
    scores = [associative.memory_scores(*one, rng).item() for _ in range(trials)]
    variance = (1 + 2 / width) ** 2 - 1
    assert abs(np.mean(scores) - 1) < 4 * np.sqrt(variance / trials)


# Errors of one memory


@given(st.integers(1, 15), st.integers(1, 4), st.integers(1, 20), st.integers(0, 99))
@few
def test_an_error_is_the_mass_of_the_inputs_whose_best_class_is_wrong(inputs, classes, width, seed):
    rng = np.random.default_rng(seed)
    law, weights = zipf_law(inputs), rng.random(inputs)
    labels = rng.integers(0, classes, inputs)
    error = associative.recall_error(law, labels, weights, width, np.random.default_rng(seed))
    assert -1e-12 <= error <= 1 + 1e-12
    scores = associative.memory_scores(
        labels, weights, width, labels.max() + 1, np.random.default_rng(seed)
    )
    wrong = 0.0
    for i, row in enumerate(scores):
        wrong += law[i] * (max(row) > row[labels[i]])
    assert error == pytest.approx(wrong, abs=1e-12)
    # Twice the weights are twice the scores.
    assert error == associative.recall_error(
        law, labels, 2 * weights, width, np.random.default_rng(seed)
    )


def test_one_class_is_never_missed():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        assert associative.recall_error(zipf_law(5), [0] * 5, [1, 0, 1, 0, 0], 3, rng) == 0


def test_without_anything_stored_the_first_class_wins():
    law, labels = zipf_law(6), np.array([1, 0, 2, 0, 1, 2])
    error = associative.recall_error(law, labels, np.zeros(6), 50, np.random.default_rng(0))
    assert error == pytest.approx(law[labels != 0].sum(), rel=1e-12)


def test_a_wide_memory_recalls_all_that_is_stored():
    # 20 pairs in 4000 dimensions: noise of sqrt(20/4000) = 0.07 against one, 14 spreads.
    law = zipf_law(100)
    labels = np.arange(100) % 7
    weights = associative.storage_weights(law, "threshold", 20)
    stored = np.where(weights > 0, law, 0)
    rng = np.random.default_rng(1)
    assert associative.recall_error(stored, labels, weights, 4_000, rng) == 0
    error = associative.recall_error(law, labels, weights, 4_000, rng)
    assert 0 < error < law[20:].sum()


@pytest.mark.parametrize("classes", [2, 5])
def test_one_pair_in_a_wide_memory_answers_others_by_the_sign_of_their_overlap(classes):
    # An input that is not stored overlaps with the stored one by s, of either sign. The class of
    # the stored pair scores s |u|^2, all others s times a small overlap: it wins for s > 0; for
    # s < 0 the other classes share the victory. So inputs of the class of the stored pair are
    # right with probability 1/2, the others with 1/2/(classes - 1).
    inputs, trials, rng = 20 * classes + 1, 60, np.random.default_rng(classes)
    labels = np.append(0, np.arange(inputs - 1) % classes)
    weights = np.eye(1, inputs)[0]
    groups = {"stored": np.arange(inputs) == 0}
    groups["same class"] = (labels == 0) & ~groups["stored"]
    groups["other class"] = labels > 0
    found = {name: [] for name in groups}
    for seed in rng.integers(2**32, size=trials):
        for name, group in groups.items():
            error = associative.recall_error(
                group / group.sum(), labels, weights, 500, np.random.default_rng(seed)
            )
            found[name].append(error)
    assert not any(found["stored"])
    expected = {"same class": 1 / 2, "other class": 1 - 1 / 2 / (classes - 1)}
    for name, mean in expected.items():
        spread = np.std(found[name], ddof=1) / np.sqrt(trials)
        assert abs(np.mean(found[name]) - mean) < 4 * spread, name


# The formula


def spreads_of(labels, weights, width, i):
    """Return the standard deviations of the noise in the scores of input i, pair by pair."""
    variance = np.zeros(labels.max() + 1)
    for j in range(len(labels)):
        if j != i:
            for y in range(len(variance)):
                variance[y] += weights[j] ** 2 / width ** (1 if labels[j] == y else 2)
    # The input's own pair is heard by the other classes through u . u'.
    variance[np.arange(len(variance)) != labels[i]] += weights[i] ** 2 / width
    return np.sqrt(variance)


def formula_by_integration(law, labels, weights, width):
    """Return the formula with an adaptive integral for each input."""
    error = 0.0
    for i, y in enumerate(labels):
        spreads = spreads_of(labels, weights, width, i)
        others = np.delete(spreads, y)

        def wins(z, i=i, own=spreads[y], others=others):
            return np.exp(-z * z / 2) * special.ndtr((weights[i] + own * z) / others).prod()

        # The other classes, all centred, are beaten from here on.
        edge = np.clip(-weights[i] / spreads[y], -9, 9)
        right = integrate.quad(wins, -10, edge)[0] + integrate.quad(wins, edge, 10)[0]
        error += law[i] * (1 - right / np.sqrt(2 * np.pi))
    return error


@given(
    st.lists(st.floats(0.01, 1), min_size=2, max_size=10),
    st.integers(2, 4),
    st.integers(2, 500),
)
@settings(max_examples=8, deadline=None)
def test_the_formula_is_the_integral_over_the_score_of_the_right_class(one, classes, width):
    # The same weights in each class, so that all are about as noisy.
    weights, labels = np.repeat(one, classes), np.tile(np.arange(classes), len(one))
    law = zipf_law(len(weights))
    np.testing.assert_allclose(
        associative.expected_recall_error(law, labels, weights, width),
        formula_by_integration(law, labels, weights, width),
        rtol=1e-6,
        atol=1e-8,
    )


def two_class_error(law, labels, weights, width):
    """Return the formula for two classes: the difference of two normals is a normal."""
    spreads = [spreads_of(labels, weights, width, i) for i in range(len(law))]
    return law @ special.ndtr(-weights / np.linalg.norm(spreads, axis=1))


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=20), st.integers(2, 2_000))
@few
def test_for_two_classes_the_formula_has_a_closed_form(one, width):
    weights, labels = np.repeat(one, 2), np.tile([0, 1], len(one))
    law = zipf_law(len(weights))
    np.testing.assert_allclose(
        associative.expected_recall_error(law, labels, weights, width),
        two_class_error(law, labels, weights, width),
        rtol=1e-6,
        atol=1e-9,
    )


@pytest.mark.parametrize("level", [0.3, 0.7, 1.1, 1.5])
def test_the_formula_holds_where_the_right_class_is_the_noisy_one(level):
    # A weak pair in the class of a strong one, and nothing in the other class: the score of the
    # right class has a spread of 1/sqrt(d), the other one of 1/d.
    width = 1_000
    law, labels = np.array([0.0, 1.0, 0.0]), np.array([0, 0, 1])
    weights = np.array([1.0, level / np.sqrt(width), 0.0])
    np.testing.assert_allclose(
        associative.expected_recall_error(law, labels, weights, width),
        two_class_error(law, labels, weights, width),
        rtol=1e-6,
    )


def simulated(law, labels, weights, width, trials, seed=0):
    rng = np.random.default_rng(seed)
    errors = [associative.recall_error(law, labels, weights, width, rng) for _ in range(trials)]
    return np.mean(errors), np.std(errors) / np.sqrt(trials)


# The formula takes scores for independent normals. They are not quite: all inputs share the lengths
# and overlaps of the embeddings of classes, what one pair adds to the scores of two classes depends
# on the same overlap of inputs, and lengths of embeddings vary by 1/sqrt(d). So a standard error is
# no bound; a tenth is taken, with trials enough for a standard error of a fortieth, and half the
# width, and twice, have to be outside.
@pytest.mark.parametrize(
    ("inputs", "classes", "width", "scheme", "kept", "trials"),
    [
        (60, 5, 100, "frequency", None, 600),
        (100, 8, 300, "frequency", None, 600),
        (300, 10, 100, "equal", None, 600),
        (200, 5, 50, "equal", None, 600),
        (100, 4, 60, "threshold", 40, 3_000),
    ],
)
def test_the_formula_is_the_mean_error_of_memories(inputs, classes, width, scheme, kept, trials):
    law, labels = zipf_law(inputs), np.arange(inputs) % classes
    weights = associative.storage_weights(law, scheme, kept)
    mean, spread = simulated(law, labels, weights, width, trials)
    assert spread < 0.025 * mean
    formula = {
        factor: associative.expected_recall_error(law, labels, weights, round(factor * width))
        for factor in (0.5, 1, 2)
    }
    assert abs(formula[1] / mean - 1) < 0.1
    assert formula[0.5] > 1.1 * mean and formula[2] < 0.9 * mean


def test_the_formula_is_the_mean_error_of_memories_with_many_classes():
    # One pair a class: what the class of a pair has in common with another one, u . u', is the
    # largest part of the noise.
    law, labels, weights = np.full(60, 1 / 60), np.arange(60), np.ones(60)
    mean, spread = simulated(law, labels, weights, 25, 300)
    assert spread < 0.025 * mean
    assert abs(associative.expected_recall_error(law, labels, weights, 25) / mean - 1) < 0.1


def test_without_anything_stored_the_formula_guesses_and_the_memory_answers_class_zero():
    law, labels = np.array([0.7, 0.3]), np.array([0, 1])
    rng = np.random.default_rng(0)
    assert associative.expected_recall_error(law, labels, np.zeros(2), 10) == pytest.approx(0.5)
    assert associative.recall_error(law, labels, np.zeros(2), 10, rng) == pytest.approx(0.3)


instances = st.integers(2, 20).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 3), min_size=n, max_size=n).map(np.array),
        st.lists(st.floats(0, 1), min_size=n, max_size=n).map(np.array),
        st.permutations(range(n)).map(np.array),
    )
)


@given(instances, st.integers(1, 300))
@few
def test_the_order_of_inputs_does_not_matter(instance, width):
    labels, weights, order = instance
    law = zipf_law(len(labels))
    np.testing.assert_allclose(
        associative.expected_recall_error(law[order], labels[order], weights[order], width),
        associative.expected_recall_error(law, labels, weights, width),
        rtol=1e-9,
        atol=1e-12,
    )


@given(st.permutations(range(4)), st.integers(1, 300))
@few
def test_the_names_of_classes_do_not_matter(names, width):
    law, labels = zipf_law(20), np.arange(20) % 4
    np.testing.assert_allclose(
        associative.expected_recall_error(law, np.array(names)[labels], law, width),
        associative.expected_recall_error(law, labels, law, width),
        rtol=1e-9,
    )


@given(instances, st.floats(1e-3, 1e3), st.integers(1, 300))
@few
def test_the_scale_of_the_weights_does_not_matter(instance, scale, width):
    labels, weights, _ = instance
    law, weights = zipf_law(len(labels)), weights + 0.01
    np.testing.assert_allclose(
        associative.expected_recall_error(law, labels, scale * weights, width),
        associative.expected_recall_error(law, labels, weights, width),
        rtol=1e-9,
        atol=1e-12,
    )


@given(instances, st.integers(1, 300))
@few
def test_an_expected_error_is_a_probability(instance, width):
    labels, weights, _ = instance
    error = associative.expected_recall_error(zipf_law(len(labels)), labels, weights, width)
    assert -1e-12 <= error <= 1 + 1e-12


# Refusals


def recall(law=(0.5, 0.5), labels=(0, 1), weights=(1.0, 1.0), width=3):
    return associative.recall_error(law, labels, weights, width, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: associative.storage_weights([1, 2], "loud"), "scheme is 'loud'; accepted are 'fr"),
        (lambda: associative.storage_weights([1, 2], "threshold"), "kept is None with scheme"),
        (lambda: associative.storage_weights([1, 2], "equal", 1), "kept is 1 with scheme 'equal'"),
        (lambda: associative.storage_weights([1, 2], "frequency", 1), "it belongs to 'threshold'"),
        (lambda: associative.storage_weights([1, 2], "threshold", 0), "kept is 0; accepted is a"),
        (lambda: associative.storage_weights([1, 2], "threshold", 1.0), "kept is 1.0"),
        (lambda: associative.storage_weights([1, 2], "threshold", True), "kept is True"),
        (lambda: associative.storage_weights([1, -2], "equal"), r"frequencies is \[1, -2\]"),
        (lambda: associative.storage_weights([], "equal"), r"frequencies is \[\]"),
        (lambda: associative.storage_weights([[1.0]], "equal"), r"frequencies is \[\[1.0\]\]"),
        (lambda: associative.storage_weights([np.nan], "equal"), "frequencies is"),
        (lambda: associative.storage_weights([np.inf, 1], "equal"), "frequencies is"),
        (lambda: recall(law=[1.0]), "lengths 1, 2 and 2; accepted are equal ones"),
        (lambda: recall(labels=[0, 1, 1]), "lengths 2, 3 and 2"),
        (lambda: recall(weights=[1.0]), "lengths 2, 2 and 1"),
        (lambda: recall(labels=[0, -1]), "labels is .*-1.*; accepted are integers from 0 up"),
        (lambda: recall(labels=[0.5, 1]), "labels is .*0.5"),
        (lambda: recall(width=0), "width is 0; accepted is an integer from 1 up"),
        (lambda: recall(width=2.0), "width is 2.0"),
        (lambda: recall(width=True), "width is True"),
    ],
)
def test_bad_input_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@given(st.integers(0, 2**32 - 1))
@few
def test_inputs_that_are_never_asked_about_disturb_the_others_all_the_same(seed):
    law = np.random.default_rng(seed).dirichlet(np.ones(40))
    labels, weights = np.arange(40) % 3, associative.storage_weights(zipf_law(40), "frequency")
    # The expected error is linear in the law of the questions, also where that is zero.
    halves = [np.where(np.arange(40) % 2 == half, law, 0) for half in (0, 1)]
    whole, *parts = (
        associative.expected_recall_error(each, labels, weights, 16) for each in (law, *halves)
    )
    np.testing.assert_allclose(sum(parts), whole, rtol=1e-12)
