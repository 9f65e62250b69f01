"""The Hessian in a plane of fifty directions, beside libraries that multiply by the Hessian."""

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.peers import hessian_planes
from benchmarks.registry import Case, Implementation, Operation, Sizes, ours
from kempe_nb.kernels import projected_curvature as module
from kempe_nb.kernels.projected_curvature.directions import sparse_directions
from kempe_nb.networks.homogeneous import homogeneous_perceptron

#: LeNet-300-100 without biases, on images of FashionMNIST's size.
WIDTHS = 784, 300, 100, 10
#: Samples of a batch, for those that take batches.
BATCH = 1_000
#: Relative error in the Frobenius norm that passes; all sum float32 in another order.
TOLERANCE = 1e-4

DENSE = "kempe_nb contraction, dense directions"
GENERAL = "kempe_nb definition"
PEERS = {
    "double backward, a loop": hessian_planes.double_backward,
    "vmap(jvp(grad))": hessian_planes.vmap_jvp_grad,
    "curvlinops": hessian_planes.curvlinops,
    "PyHessian": hessian_planes.pyhessian,
}


def _case(samples: int, *too_long: str) -> Case:
    small = {"samples": 70, "directions": 5}
    return Case({"samples": samples, "directions": 50}, small, too_long)


CASES = (_case(1_000), _case(10_000), _case(60_000, GENERAL, DENSE, *PEERS))


def inputs(sizes: Sizes, dtype: str, device: str):
    """Return model, inputs, labels and sparse directions; the same in every call."""
    kind = getattr(torch, dtype)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = homogeneous_perceptron(WIDTHS)
        x = torch.randn(sizes["samples"], WIDTHS[0], dtype=kind)
        y = torch.randint(WIDTHS[-1], (sizes["samples"],))
        size = sum(p.numel() for p in model.parameters())
        directions = sparse_directions(size, sizes["directions"], dtype=kind)
    return model.to(device, kind), x.to(device), y.to(device), directions.to(device)


def minimum_bytes(sizes: Sizes, dtype: str) -> int:
    """Return the bytes of samples, parameters, expected nonzeros with two indices, and results."""
    size = sum(a * b for a, b in zip(WIDTHS[:-1], WIDTHS[1:], strict=True))
    directions = sizes["directions"]
    nonzeros, itemsize = round(directions * size**0.5), np.dtype(dtype).itemsize
    return module.OPERATION.minimum_bytes(
        sizes["samples"], WIDTHS[0], size, directions, nonzeros, itemsize
    )


def check(found: list[np.ndarray], sizes: Sizes, dtype: str) -> str:
    """Hold P^T H P to double backward in float64, and the Gauss-Newton part to one direction."""
    model, x, y, directions = inputs(sizes, dtype, "cpu")
    model, x, plane = model.double(), x.double(), directions.to_dense().double()
    hessian = hessian_planes.double_backward(model, [(x, y)], plane).detach().numpy()
    for name, matrix in zip(("P^T H P", "the Gauss-Newton part"), found, strict=False):
        if matrix.shape != hessian.shape:
            return f"{name} has shape {matrix.shape}; expected is {hessian.shape}"
    errors = {"P^T H P": np.linalg.norm(found[0] - hessian) / np.linalg.norm(hessian)}
    if len(found) > 1:
        errors["the Gauss-Newton part"] = abs(found[1][0, 0] / _variance(model, x, plane) - 1)
    wrong = [f"{name} is off by {error:.2g}" for name, error in errors.items() if error > TOLERANCE]
    return f"{wrong[0]}; accepted is {TOLERANCE:g}" if wrong else ""


def _variance(model, x, plane) -> float:
    """Return the mean variance under p of how the logits change along the first direction."""
    values = {name: p.detach() for name, p in model.named_parameters()}
    shares = plane[:, 0].split([p.numel() for p in values.values()])
    tangent = {
        name: share.view(p.shape) for (name, p), share in zip(values.items(), shares, strict=True)
    }
    z, moved = torch.func.jvp(
        lambda state: torch.func.functional_call(model, state, (x,)), (values,), (tangent,)
    )
    p = z.softmax(1)
    return float(((p * moved**2).sum(1) - (p * moved).sum(1) ** 2).mean())


def _ours(impl: str, *, dense: bool | None = None):
    """Return the `prepare` of an implementation; the definition takes dense directions."""
    dense = impl == "definition" if dense is None else dense

    def prepare(sizes: Sizes, dtype: str, device: str):
        model, x, y, directions = inputs(sizes, dtype, device)
        plane = directions.to_dense() if dense else directions

        def call():
            found = module.projected_curvature(model, F.cross_entropy, (x, y), plane, impl=impl)
            return found.hessian.matrix, found.gauss_newton.matrix

        return call

    return prepare


def _peer(function):
    def prepare(sizes: Sizes, dtype: str, device: str):
        model, x, y, directions = inputs(sizes, dtype, device)
        batches = list(zip(x.split(BATCH), y.split(BATCH), strict=True))
        dense = directions.to_dense()
        return lambda: function(model, batches, dense).detach()

    return prepare


OPERATION = Operation(
    name=module.OPERATION.name,
    dtypes=("float32",),
    cases=CASES,
    implementations=(
        # The byte meter takes no sparse tensors.
        *ours(module.OPERATION, _ours, uncounted=("contraction",)),
        Implementation(DENSE, _ours("contraction", dense=True)),
        *(Implementation(name, _peer(function), eager=False) for name, function in PEERS.items()),
    ),
    minimum_bytes=minimum_bytes,
    check=check,
)
