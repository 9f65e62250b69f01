"""The leapfrog: reversible, of second order, keeping volumes; energies as sums of differences."""

import pytest
import torch
from densities import DOUBLE, ERRORS, normals, standard, wave

from kempe_nb.methods.leapfrog import evaluate, leapfrog, log_ratio


def test_trajectories_are_reversible():
    start, momentum = evaluate(wave, normals(20, 2)), normals(20, 2, seed=1)
    end, flown = leapfrog(wave, start, momentum, 0.05, 40)
    assert (end.position - start.position).abs().amax() > 0.5
    back, returned = leapfrog(wave, end, -flown, 0.05, 40)
    torch.testing.assert_close(back.position, start.position, rtol=0, atol=1e-10)
    torch.testing.assert_close(-returned, momentum, rtol=0, atol=1e-10)


def test_the_error_of_the_energy_falls_with_the_square_of_the_step():
    start, momentum = evaluate(wave, normals(50, 2)), normals(50, 2, seed=1)

    def error(step, steps):
        end, flown = leapfrog(wave, start, momentum, step, steps)
        return log_ratio(start, end, momentum, flown).square().mean().sqrt()

    # Four, but for what grows with the fourth power, a thousandth of it at these steps.
    assert error(2e-3, 400) / error(1e-3, 800) == pytest.approx(4.0, rel=5e-3)


def test_trajectories_keep_volumes():
    """The determinant of the derivative of the end in the start, by central differences."""
    at, delta = normals(4, seed=2), 1e-5
    ends = []
    for sign in (1, -1):
        moved = at + sign * delta * torch.eye(4, dtype=DOUBLE)
        end, flown = leapfrog(wave, evaluate(wave, moved[:, :2]), moved[:, 2:], 0.1, 15)
        ends.append(torch.cat([end.position, flown], 1))
    jacobian = (ends[0] - ends[1]) / (2 * delta)
    assert torch.linalg.matrix_norm(jacobian - torch.eye(4), ord=2) > 1
    # The error of the differences is about 1e-10 times the third derivatives.
    assert torch.linalg.det(jacobian).item() == pytest.approx(1.0, abs=1e-6)


def test_many_chains_go_as_each_would_alone():
    q, momentum, step = normals(6, 2), normals(6, 2, seed=1), 0.05 + 0.05 * normals(6, 1).abs()
    start = evaluate(wave, q)
    end, flown = leapfrog(wave, start, momentum, step, 20)
    ratios = log_ratio(start, end, momentum, flown)
    for c in range(6):
        alone, row = evaluate(wave, q[c : c + 1]), slice(c, c + 1)
        last, left = leapfrog(wave, alone, momentum[row], step[row], 20)
        # A column of one and one of six may be rounded apart in their last digit.
        torch.testing.assert_close(last.position, end.position[row], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(left, flown[row], rtol=1e-12, atol=1e-12)
        ratio = log_ratio(alone, last, momentum[row], left)
        torch.testing.assert_close(ratio, ratios[row], rtol=0, atol=1e-12)


def test_a_lost_chain_does_not_touch_another():
    def steep(q):
        return torch.where(q > 90, q.pow(20), standard(q))

    start, momentum = normals(3, 2), normals(3, 2, seed=1)
    alone, _ = leapfrog(steep, evaluate(steep, start[:2]), momentum[:2], 0.1, 9)
    start[2] = 1e30
    together, _ = leapfrog(steep, evaluate(steep, start), momentum, 0.1, 9)
    assert not together.position[2].isfinite().all()
    torch.testing.assert_close(together.position[:2], alone.position, rtol=1e-12, atol=1e-12)


# Energies


def test_differences_of_terms_are_right_where_the_difference_of_sums_is_not():
    """Residuals of 4,000 data around 7: energies of 1e5 in float32, differences of 1."""
    x, offset = normals(4000, 5, seed=3), 7 + normals(4000, seed=4)

    def residuals(q):
        return (q @ x.to(q).mT - offset.to(q)).square() / -2

    q, momentum = 0.01 * normals(50, 5).float(), normals(50, 5, seed=1).float()
    before = evaluate(residuals, q)
    after, flown = leapfrog(residuals, before, momentum, 0.003, 5)
    pair = (evaluate(residuals, point.position.double()) for point in (before, after))
    truth = log_ratio(*pair, momentum.double(), flown.double())
    assert truth.abs().amax() < 10 and before.log_density.amax() < -9e4

    def energy(point, p):
        return -point.terms.sum(1) + p.square().sum(1) / 2

    ours = (log_ratio(before, after, momentum, flown) - truth).abs()
    naive = (energy(before, momentum) - energy(after, flown) - truth).abs()
    # A term is about 25, with steps of 2e-6; a sum about 1e5, with steps of 8e-3.
    assert ours.amax() < 4000**0.5 * 2e-6 * ERRORS
    assert naive.mean() > 4e-3 and naive.amax() > 10 * ours.amax()


@pytest.mark.parametrize("kept", [0.0, 1.0])
def test_kinetic_energies_are_differences_too(kept):
    """Of momenta that have nothing in common, and of momenta that have nearly all in common."""
    momentum, other = normals(2, 200_000).float(), normals(2, 200_000, seed=1).float()
    flown = other if kept == 0 else momentum * (1 + 1e-6 * other)
    still = evaluate(standard, torch.zeros(2, 1))
    truth = (momentum.double().square() - flown.double().square()).sum(1) / 2
    found = log_ratio(still, still, momentum, flown)
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-8)
    naive = (momentum.square().sum(1) - flown.square().sum(1)) / 2
    assert (naive - truth).abs().amax() > 1e-4
