"""Recorded functions: the same numbers, fewer operations, and what is left as it was."""

import pytest
import torch
from torch.nn import functional as F

from kempe_nb import Traffic
from kempe_nb.methods.traced import Traced, record
from kempe_nb.methods.unrolled import Loss
from kempe_nb.networks.convnet import convnet
from kempe_nb.networks.flat import FlatNetwork


def targets(module):
    return [str(node.target) for node in module.graph.nodes if node.op == "call_function"]


def test_same_numbers_for_other_arguments_of_the_same_shape():
    traced = Traced(lambda a, b: (a @ b, (a * a).sum()))
    for scale in (1.0, 3.0):
        a, b = scale * torch.ones(2, 3), torch.arange(6.0).view(3, 2)
        torch.testing.assert_close(traced(a, b), (a @ b, (a * a).sum()))


def test_each_shape_and_dtype_is_recorded_once():
    calls = []

    def function(x):
        calls.append(x.shape)
        return 2 * x

    traced = Traced(function)
    for x in (torch.ones(2), torch.zeros(2), torch.ones(3), torch.ones(2).double()):
        assert torch.equal(traced(x), 2 * x) and traced(x).dtype == x.dtype
    assert len(calls) == 3


def test_each_layout_in_memory_is_recorded_by_itself():
    traced = Traced(lambda x: x.view(-1) if x.is_contiguous() else x.reshape(-1))
    x = torch.arange(6.0).view(2, 3)
    for each in (x, x.T.contiguous().T, x.T.contiguous().T, x):
        assert torch.equal(traced(each), x.flatten())


def test_repetitions_are_merged():
    module = record(lambda x: x.exp() + x.exp() * x.exp(), torch.ones(3))
    assert sum("exp" in name for name in targets(module)) == 1
    torch.testing.assert_close(
        module(torch.ones(3)), torch.ones(3).exp() + torch.ones(3).exp() ** 2
    )


def test_numbers_of_two_types_are_two_things():
    module = record(lambda x: (x * 2, x * 2.0, x * True), torch.ones(3, dtype=torch.int64))
    one, two, three = module(torch.ones(3, dtype=torch.int64))
    assert one.dtype == torch.int64 and two.dtype == torch.float32 and three[0] == 1


def test_random_draws_are_not_merged():
    module = record(lambda x: torch.rand_like(x) - torch.rand_like(x), torch.ones(50))
    assert module(torch.ones(50)).abs().max() > 0


def test_what_changes_memory_is_left_in_its_order():
    def function(x):
        y = x.clone()
        before = y.sum()
        y.mul_(2)
        return before, y.sum()

    before, after = record(function, torch.ones(3))(torch.ones(3))
    assert (before, after) == (3, 6)

    def through_a_view(x):
        y = x.clone()
        view = y.view(-1)
        before = view.sum()
        y.mul_(2)
        return before, view.sum()

    # Merged, the second sum would be the first one.
    before, after = record(through_a_view, torch.ones(3))(torch.ones(3))
    assert (before, after) == (3, 6)


def test_constants_from_outside_are_seen_when_they_are_written_to():
    constant = torch.ones(3)
    traced = Traced(lambda x: x + constant)
    assert torch.equal(traced(torch.zeros(3)), torch.ones(3))
    constant.fill_(5)
    assert torch.equal(traced(torch.zeros(3)), 5 * torch.ones(3))


@pytest.fixture(scope="module")
def losses():
    """Return the loss of a ConvNet on ten images, plain and traced, with arguments."""
    network = FlatNetwork(convnet((1, 8, 8), 3, width=6, depth=2))
    rng = torch.Generator().manual_seed(0)
    theta = network.initial(rng, dtype=torch.float64)
    images = torch.randn(10, 1, 8, 8, generator=rng, dtype=torch.float64)
    classes = torch.arange(10) % 3
    q = torch.randn(network.size, generator=rng, dtype=torch.float64)
    loss = lambda theta, images: F.cross_entropy(network(theta, images), classes)  # noqa: E731
    return Loss(loss), Loss(loss, trace=True), theta, images, q


def test_gradients_and_products_have_the_same_bits(losses):
    plain, traced, theta, images, q = losses
    for _ in range(2):
        firsts = (each.value_and_gradient(theta, images) for each in (plain, traced))
        assert all(torch.equal(one, other) for one, other in zip(*firsts, strict=True))
        pairs = zip(
            plain.products(q, theta, images), traced.products(q, theta, images), strict=True
        )
        assert all(torch.equal(one, other) for one, other in pairs)


def test_products_normalise_each_layer_once(losses):
    """Eagerly each order of derivatives normalises again: four times two layers."""
    plain, traced, theta, images, q = losses

    def normalisations(loss):
        with Traffic() as traffic:
            loss.products(q, theta, images)
        rows = {row.operation: row.launches for row in traffic.table()}
        return rows["aten.native_group_norm"], traffic.launches

    traced.products(q, theta, images)
    (eagerly, all_eager), (once, all_traced) = normalisations(plain), normalisations(traced)
    assert (eagerly, once) == (8, 2)
    assert all_traced < all_eager - 6


def test_convolutions_leave_out_what_nobody_uses(losses):
    *_, theta, images, q = losses
    plain = losses[0]
    module = record(plain.products, q, theta, images)
    masks = [
        node.args[10] for node in module.graph.nodes if "convolution_backward" in str(node.target)
    ]
    # On the way back for the first time, no derivative of the weights is used: they are known.
    assert [True, False, False] in masks and [True, True, True] in masks


def test_a_branch_on_a_value_is_refused_and_not_recorded():
    with pytest.raises(RuntimeError, match="data-dependent"):
        Traced(lambda x: x if x.sum() > 0 else -x)(torch.ones(2))


def test_the_two_zeros_are_not_merged():
    traced = Traced(lambda x: (1 / (x * 0.0), 1 / (x * -0.0)))
    assert [float(each) for each in traced(torch.ones(1))] == [torch.inf, -torch.inf]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[x > 0].mean(),
        lambda x: x.nonzero().sum(),
        lambda x: x.masked_select(x > 0).sum(),
    ],
)
def test_shapes_that_depend_on_values_are_refused(function):
    with pytest.raises(ValueError, match="a shape that depends on values; accepted"):
        Traced(function)(torch.tensor([1.0, -1.0, 2.0]))


def test_indices_as_integers_are_taken():
    traced = Traced(lambda x, places: x[places].sum())
    assert traced(torch.arange(4.0), torch.tensor([0, 3])) == 3
    assert traced(torch.arange(4.0), torch.tensor([1, 1])) == 2


def test_casts_of_autocast_are_not_replayed_outside():
    traced = Traced(lambda x: x @ x)
    x = torch.eye(3)
    with torch.autocast("cpu", torch.bfloat16):
        assert traced(x).dtype == torch.bfloat16
    assert traced(x).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert traced(x).dtype == torch.bfloat16
