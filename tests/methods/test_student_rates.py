"""Learned rates of students: the descent of PyTorch, also of those that join later."""

import math

import pytest
import torch
from hypothesis import given, strategies as st

from kempe_nb.methods.student_rates import Rates, is_log_alpha

STEPS = st.lists(st.tuples(st.integers(0, 3), st.floats(-2.0, 2.0), st.booleans()), max_size=25)


@given(STEPS, st.floats(0.0, 0.9))
def test_rates_descend_as_in_torch_and_new_ones_start_at_rest(steps, momentum):
    rates = Rates.begin(0.3, 1)
    theirs = [torch.tensor(math.log(0.3), dtype=torch.float64)]
    descent = torch.optim.SGD(theirs, momentum=momentum)
    for start, gradient, grows in steps:
        rates = rates.moved(start, gradient, 0.1, momentum)
        descent.zero_grad()
        # Each of K rates has K times the rate.
        for group in descent.param_groups:
            group["lr"] = 0.1 * len(theirs)
        theirs[min(start, len(theirs) - 1)].grad = torch.tensor(gradient, dtype=torch.float64)
        descent.step()
        if grows:
            theirs.append(theirs[-1].clone())
            descent.add_param_group({"params": theirs[-1:]})
            rates = rates.joined(len(theirs))
        assert rates.logs == pytest.approx([each.item() for each in theirs], abs=1e-12)
        assert rates.log_alpha(99) == rates.logs[-1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_log_alpha_is_one_of_a_number_of_the_type(dtype):
    limit = torch.finfo(dtype)
    assert is_log_alpha(0.0, dtype) and is_log_alpha(math.log(limit.tiny) + 1e-3, dtype)
    for log_alpha in (math.log(limit.tiny) - 1, math.log(limit.max) + 1, math.nan, math.inf):
        assert not is_log_alpha(log_alpha, dtype)
