"""The task of the greatest common divisor, against plain integer arithmetic."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy import stats

from kempe_nb.methods import gcd_task
from kempe_nb.methods.gcd_task import GcdTask
from kempe_nb.networks.transformer import Shape, Transformer, generate

tasks = st.builds(GcdTask, st.integers(2, 36), st.integers(1, 5))
few = settings(max_examples=30, deadline=None)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def digits_of(number, task):
    """Return the digits of an integer, the most significant one first, by repeated division."""
    digits = []
    for _ in range(task.digits):
        number, digit = divmod(number, task.base)
        digits.append(digit)
    assert number == 0
    return digits[::-1]


def number_of(digits, task):
    number = 0
    for digit in digits:
        number = number * task.base + int(digit)
    return number


# Examples


@given(tasks, st.data())
@few
def test_an_example_holds_the_digits_of_both_operands_and_of_their_divisor(task, data):
    operand = st.integers(1, task.largest)
    pairs = data.draw(st.lists(st.tuples(operand, operand), min_size=1, max_size=8))
    tokens = task.encode(torch.tensor(pairs))
    assert tokens.dtype == torch.int64 and tokens.shape == (len(pairs), task.length)
    for (left, right), row in zip(pairs, tokens.tolist(), strict=True):
        numbers = left, right, math.gcd(left, right)
        assert row == [digit for number in numbers for digit in digits_of(number, task)]


@given(tasks, st.data())
@few
def test_decoding_gives_back_what_was_encoded(task, data):
    number = st.integers(0, task.largest)
    triples = data.draw(st.lists(st.tuples(number, number, number), min_size=1, max_size=8))
    numbers = torch.tensor(triples)
    tokens = task.encode(numbers[:, :2], numbers[:, 2])
    assert ((tokens >= 0) & (tokens < task.base)).all()
    for triple, row in zip(triples, tokens, strict=True):
        parts = row.split(task.digits)
        assert tuple(number_of(part, task) for part in parts) == triple
    assert len(tokens[0, : task.given]) == 2 * task.digits


def test_the_largest_operands_do_not_overflow():
    task = GcdTask(2, 31)
    assert task.largest == 2**31 - 1
    tokens = task.encode(torch.tensor([[task.largest, task.largest]]))
    assert (tokens == 1).all() and tokens.shape == (1, 93)


def test_the_default_is_two_digits_in_base_sixty():
    task = GcdTask()
    assert (task.largest, task.length, task.given) == (3599, 6, 4)
    tokens = task.encode(torch.tensor([[61, 3599]]))
    # 3599 is 59 times 61.
    assert tokens.tolist() == [[1, 1, 59, 59, 1, 1]]


# Draws


@pytest.mark.parametrize(("base", "digits"), [(2, 1), (2, 2), (3, 2), (13, 1)])
def test_operands_are_uniform_from_one_to_the_largest(base, digits):
    task = GcdTask(base, digits)
    pairs = task.draw(20_000, seeded())
    assert pairs.shape == (20_000, 2) and pairs.dtype == torch.int64
    assert pairs.min() == 1 and pairs.max() == task.largest
    cells = (pairs[:, 0] - 1) * task.largest + pairs[:, 1] - 1
    counts = np.bincount(cells, minlength=task.largest**2)
    assert len(counts) == 1 or stats.chisquare(counts).pvalue > 1e-3


@given(tasks, st.integers(0, 2**32))
@few
def test_operands_are_never_zero_and_never_too_large(task, seed):
    pairs = task.draw(200, seeded(seed))
    assert pairs.min() >= 1 and pairs.max() <= task.largest


def test_draws_depend_on_the_seed_alone():
    task = GcdTask()
    for draw in (task.draw, lambda *rest: task.draw_with_gcd(3, *rest)):
        assert torch.equal(draw(50, seeded(1)), draw(50, seeded(1)))
        assert not torch.equal(draw(50, seeded(1)), draw(50, seeded(2)))


@given(tasks, st.data())
@few
def test_pairs_drawn_with_a_divisor_have_exactly_that_one(task, data):
    divisor = data.draw(st.integers(1, task.largest))
    pairs = task.draw_with_gcd(divisor, 40, seeded(data.draw(st.integers(0, 99))))
    assert pairs.shape == (40, 2)
    assert pairs.min() >= 1 and pairs.max() <= task.largest
    assert {math.gcd(*pair) for pair in pairs.tolist()} == {divisor}


@pytest.mark.parametrize("divisor", [1, 2, 3, 6, 12])
def test_pairs_with_a_divisor_are_uniform_among_all_there_are(divisor):
    task = GcdTask(5, 2)
    inside = range(1, task.largest + 1)
    there = [pair for pair in itertools.product(inside, inside) if math.gcd(*pair) == divisor]
    drawn = task.draw_with_gcd(divisor, 30_000, seeded(divisor)).tolist()
    counts = dict.fromkeys(there, 0)
    for pair in drawn:
        counts[tuple(pair)] += 1
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_a_divisor_above_half_the_largest_leaves_one_pair():
    task = GcdTask(10, 2)
    assert task.draw_with_gcd(99, 3, seeded()).tolist() == [[99, 99]] * 3
    assert task.draw_with_gcd(50, 3, seeded()).tolist() == [[50, 50]] * 3
    assert set(task.draw_with_gcd(49, 200, seeded()).flatten().tolist()) == {49, 98}


@pytest.mark.parametrize("divisor", range(1, 9))
def test_a_divisor_is_as_frequent_as_the_zipf_law_with_exponent_two_says(divisor):
    # Below 10^9 the law of large operands holds up to about log(N)/N = 2e-8.
    task, count = GcdTask(1000, 3), 200_000
    share = 6 / (math.pi * divisor) ** 2
    pairs = task.draw(count, seeded(divisor))
    found = (torch.gcd(pairs[:, 0], pairs[:, 1]) == divisor).sum().item()
    assert abs(found - count * share) < 4 * math.sqrt(count * share * (1 - share))


# Answers


class Answers:
    """Stand in for `generate`: write the digits of what a function of the operands says."""

    def __init__(self, task, rule):
        self.task, self.rule, self.calls = task, rule, []

    def __call__(self, model, prompt, length, generator, **options):
        self.calls.append((model, prompt, length, generator, options))
        written = []
        for row in prompt:
            left, right = row.split(self.task.digits)
            answer = self.rule(number_of(left, self.task), number_of(right, self.task))
            written.append(digits_of(answer, self.task))
        return torch.tensor(written)


@given(tasks, st.data())
@few
def test_an_answer_is_the_number_that_the_model_wrote(task, data):
    number = st.integers(1, task.largest)
    pairs = data.draw(st.lists(st.tuples(number, number), min_size=1, max_size=6))
    stub = Answers(task, lambda left, right: (7 * left + 3 * right) % (task.largest + 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gcd_task, "generate", stub)
        answers = task.answer(None, torch.tensor(pairs), seeded())
    assert answers.dtype == torch.int64
    assert answers.tolist() == [stub.rule(*pair) for pair in pairs]


def test_the_model_is_shown_the_operands_alone_and_asked_for_the_digits(monkeypatch):
    task, stub, generator = GcdTask(10, 3), Answers(GcdTask(10, 3), math.gcd), seeded()
    monkeypatch.setattr(gcd_task, "generate", stub)
    task.answer("a model", torch.tensor([[120, 45]]), generator)
    task.answer("a model", torch.tensor([[120, 45]]), generator, temperature=0.5)
    for (model, prompt, length, passed, options), temperature in zip(
        stub.calls, (0.0, 0.5), strict=True
    ):
        assert model == "a model" and passed is generator
        assert prompt.tolist() == [[1, 2, 0, 0, 4, 5]] and length == 3
        assert options == {"temperature": temperature}


def test_a_real_model_answers_with_what_it_generates():
    task = GcdTask(7, 2)
    model = Transformer(Shape(task.base, task.length - 1, 8, 1, 2), seeded())
    pairs = task.draw(30, seeded(1))
    prompt = torch.tensor([digits_of(a, task) + digits_of(b, task) for a, b in pairs.tolist()])
    for temperature in (0.0, 1.0):
        written = generate(model, prompt, 2, seeded(2), temperature=temperature)
        expected = [number_of(row, task) for row in written]
        assert task.answer(model, pairs, seeded(2), temperature).tolist() == expected


def test_the_share_of_right_answers_is_counted_for_each_divisor(monkeypatch):
    def rule(left, right):
        # The larger the divisor, the more often wrong.
        divisor = math.gcd(left, right)
        return divisor if left >= 400 * divisor else 0

    task, divisors, stub = GcdTask(), [5, 2, 1, 8], Answers(GcdTask(), rule)
    monkeypatch.setattr(gcd_task, "generate", stub)
    shares = task.share_right(None, divisors, seeded(), count=40)
    right = {divisor: [] for divisor in divisors}
    for row in torch.cat([prompt for _, prompt, *_ in stub.calls]):
        operands = [number_of(part, task) for part in row.split(task.digits)]
        right[math.gcd(*operands)].append(rule(*operands) > 0)
    assert [len(right[divisor]) for divisor in divisors] == [40] * 4
    expected = [np.mean(right[divisor]) for divisor in divisors]
    assert len(set(expected)) == 4
    np.testing.assert_allclose(shares, expected, rtol=1e-12)


@pytest.mark.parametrize(("rule", "share"), [(math.gcd, 1.0), (lambda *_: 0, 0.0)])
def test_all_answers_right_or_all_wrong(monkeypatch, rule, share):
    task = GcdTask(10, 2)
    monkeypatch.setattr(gcd_task, "generate", Answers(task, rule))
    shares = task.share_right(None, [1, 7, 99], seeded(), count=25)
    assert shares.tolist() == [share] * 3


# Refusals


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GcdTask(1, 2), "base is 1; accepted is an integer from 2 up"),
        (lambda: GcdTask(-10, 2), "base is -10"),
        (lambda: GcdTask(10.0, 2), "base is 10.0"),
        (lambda: GcdTask(True, 2), "base is True"),
        (lambda: GcdTask(10, 0), "digits is 0; accepted is an integer from 1 up"),
        (lambda: GcdTask(10, 1.5), "digits is 1.5"),
        (lambda: GcdTask(10, True), "digits is True"),
        (lambda: GcdTask(2, 32), "digits is 32 at base 2; accepted are operands below 2"),
        (lambda: GcdTask(60, 6), "digits is 6 at base 60"),
        (
            lambda: GcdTask(10, 2).draw_with_gcd(0, 5, seeded()),
            "divisor is 0; accepted are 1 to 99",
        ),
        (lambda: GcdTask(10, 2).draw_with_gcd(100, 5, seeded()), "divisor is 100"),
        (lambda: GcdTask(10, 2).draw_with_gcd(2.0, 5, seeded()), "divisor is 2.0"),
        (lambda: GcdTask(10, 2).share_right(None, [3, -1], seeded()), "divisor is -1"),
    ],
)
def test_bad_input_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_number_that_does_not_fit_is_refused_and_not_cut():
    task = GcdTask(base=10, digits=2)
    with pytest.raises(ValueError, match="hold 1 to 100; accepted are 0 to 99"):
        task.encode(torch.tensor([[100, 1]]), torch.tensor([1]))
    assert task.encode(torch.empty((0, 2), dtype=torch.int64)).shape == (0, 6)


def test_a_bool_is_no_divisor():
    with pytest.raises(ValueError, match="divisor is True"):
        GcdTask().draw_with_gcd(True, 3, torch.Generator())
