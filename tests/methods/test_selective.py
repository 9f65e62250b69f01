"""Selective accuracy: closed forms, ties, and agreement with a count by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from kempe_nb.methods.selective import area_under_selective_accuracy, selective_accuracy


def test_a_score_that_knows_all_keeps_what_is_right():
    correct = torch.arange(1000) < 600
    coverage, accuracy = selective_accuracy(1 - correct.double(), correct)
    assert coverage[-1] == 1 and accuracy[-1] == pytest.approx(0.6)
    assert (accuracy[coverage <= 0.6] == 1).all()
    # Beyond a share a = 0.6 the accuracy is a / r, and the area is a - a log a.
    expected = 100 * (0.6 - 0.6 * np.log(0.6))
    assert area_under_selective_accuracy(1 - correct.double(), correct) == pytest.approx(
        expected, abs=0.02
    )


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=30))
def test_what_is_kept_is_counted(pairs):
    value = torch.tensor([float(v) for v, _ in pairs])
    correct = torch.tensor([right for _, right in pairs])
    coverage, accuracy = selective_accuracy(value, correct)
    for k, (r, a) in enumerate(zip(coverage.tolist(), accuracy.tolist(), strict=True), 1):
        edge = value.sort().values[k - 1]
        below, at = value < edge, value == edge
        share = correct[at].double().mean()
        right = correct[below].sum() + (k - below.sum()) * share
        assert r == pytest.approx(k / len(pairs))
        assert a == pytest.approx(float(right) / k)


@given(st.permutations(range(12)))
def test_the_order_of_the_inputs_does_not_matter(order):
    value = torch.tensor([0.0, 0, 1, 1, 1, 2, 3, 3, 4, 4, 4, 5])
    correct = torch.arange(12) % 3 > 0
    expected = selective_accuracy(value, correct)[1]
    found = selective_accuracy(value[list(order)], correct[list(order)])[1]
    torch.testing.assert_close(found, expected)


def test_a_score_without_knowledge_has_the_area_of_the_accuracy():
    correct = torch.arange(500) % 4 > 0
    assert area_under_selective_accuracy(torch.zeros(500), correct) == pytest.approx(75)
    assert area_under_selective_accuracy(torch.zeros(500), correct | True) == 100
    # Not -0.0, which pages would print.
    assert str(area_under_selective_accuracy(torch.zeros(500), correct & False)) == "0.0"


def test_a_reversed_score_is_worse_than_none():
    correct = torch.arange(500) % 4 > 0
    assert area_under_selective_accuracy(correct.double(), correct) < 60


@pytest.mark.parametrize(
    ("uncertainty", "correct", "message"),
    [
        (torch.zeros(3), torch.zeros(2, dtype=torch.bool), r"correct is torch.bool \(2,\); a"),
        (torch.zeros(3), torch.zeros(3), r"correct is torch.float32 \(3,\); accepted is bool"),
        (torch.zeros(3).long(), torch.zeros(3).bool(), "uncertainty is torch.int64"),
        (torch.zeros(0), torch.zeros(0).bool(), r"\(0,\); accepted are .* N at least 1"),
        (torch.tensor([0.0, torch.nan]), torch.zeros(2).bool(), "uncertainty holds 1 elements"),
    ],
)
def test_bad_input_is_refused(uncertainty, correct, message):
    with pytest.raises(ValueError, match=message):
        selective_accuracy(uncertainty, correct)
