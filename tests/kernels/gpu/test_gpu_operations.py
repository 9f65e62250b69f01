"""Every operation with Triton code, on a GPU, at the small shapes of its benchmark.

What else an operation promises of its device code stands in a file of its own.
"""

import pytest
import torch

from benchmarks import gate, operations
from kempe_nb import dispatch, kernels

READY = torch.cuda.is_available() and dispatch.triton_version()
pytestmark = pytest.mark.skipif(not READY, reason="no CUDA device with Triton")

WITH_TRITON = [name for name in kernels.names() if "triton" in kernels.load(name).implementations]


@pytest.mark.parametrize("name", WITH_TRITON)
def test_device_code_agrees(name):
    operation = operations.load(name)
    definition = operation.implementations[0]
    (device_code,) = [i for i in operation.implementations if i.name == "kempe_nb Triton"]
    for small, dtype in gate.small_cases(operation):
        found = gate.outputs(device_code, small, dtype, "cuda")
        assert operation.check(found, small, dtype) == ""
        if device_code.exact:
            assert gate.difference(found, gate.outputs(definition, small, dtype, "cpu")) == ""
