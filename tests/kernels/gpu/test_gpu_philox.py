"""Philox on a GPU: the bits of the definition."""

import pytest
import torch

from kempe_nb import dispatch
from kempe_nb.kernels.philox import integers, random_bits, uniform

READY = torch.cuda.is_available() and dispatch.triton_version()
pytestmark = pytest.mark.skipif(not READY, reason="no CUDA device with Triton")

DRAWS = {
    "bits": (random_bits, {}),
    "float32": (uniform, {}),
    "float64": (uniform, {"dtype": torch.float64}),
    "small integers": (integers, {"low": -3, "high": 7}),
    "all integers": (integers, {"low": -(2**63), "high": 2**63}),
    "rejected integers": (integers, {"high": 2**62 + 1}),
}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("size", [0, 1, 1024, 100_003])
@pytest.mark.parametrize(
    ("seed", "offset"),
    [(0, 1), (2**31, 2**31), (2**63, 2**63 - 1), (2**64 - 2**31, 2), (2**64 - 1, 2**64 - 400_000)],
)
def test_equals_the_definition(name, size, seed, offset):
    draw, settings = DRAWS[name]
    found = draw(size, seed, offset=offset, stream=9, device="cuda", impl="triton", **settings)
    expected = draw(size, seed, offset=offset, stream=9, **settings)
    assert torch.equal(found.cpu(), expected)


@pytest.mark.parametrize("name", DRAWS)
def test_two_runs_are_equal(name):
    draw, settings = DRAWS[name]
    one, other = (draw(10**6, 5, device="cuda", impl="triton", **settings) for _ in range(2))
    assert torch.equal(one, other)


def test_more_numbers_than_an_int32_counts():
    size, last = 2**31 + 5, 100
    if torch.cuda.mem_get_info()[0] < 10 * 2**30:
        pytest.skip("less than 10 GiB free")
    found = uniform(size, 3, device="cuda", impl="triton")
    assert torch.equal(found[:last].cpu(), uniform(last, 3))
    assert torch.equal(found[-last:].cpu(), uniform(last, 3, offset=size - last))
