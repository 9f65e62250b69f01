"""Every operation with Triton code, in the interpreter, at a tiny shape of its benchmark.

What else an operation promises of its device code stands in a file of its own.
"""

import pytest
from guard import guarded

from benchmarks import gate, operations
from kempe_nb import kernels

WITH_TRITON = [name for name in kernels.names() if "triton" in kernels.load(name).implementations]
#: The interpreter takes a tenth of a second for a program of random numbers.
LARGEST_SIZE = 20


@pytest.mark.parametrize("name", WITH_TRITON)
def test_device_code_agrees_and_stays_inside_its_tensors(name):
    operation = operations.load(name)
    tiny = {key: min(size, LARGEST_SIZE) for key, size in operation.cases[0].small.items()}
    dtype = operation.dtypes[-1]
    definition = operation.implementations[0]
    (device_code,) = [i for i in operation.implementations if i.name == "kempe_nb Triton"]
    with guarded() as moved:
        found = gate.outputs(device_code, tiny, dtype, "cpu")
    assert moved.written or moved.atomics
    if device_code.exact:
        # A check of the law would need more numbers; bits need none.
        assert gate.difference(found, gate.outputs(definition, tiny, dtype, "cpu")) == ""
    else:
        assert operation.check(found, tiny, dtype) == ""
