"""The declared operations: whole, and with checks that a wrong result does not pass."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import gate, operations
from benchmarks.registry import DEVICES
from kempe_nb import kernels

DECLARED = {name: kernels.load(name) for name in kernels.names()}

each_operation = pytest.mark.parametrize("name", operations.names())


def test_every_operation_of_the_package_has_a_benchmark():
    assert set(DECLARED) <= set(operations.names())


@each_operation
def test_an_operation_is_declared_whole(name):
    operation = operations.load(name)
    assert operation.name == name
    names = [implementation.name for implementation in operation.implementations]
    assert len(names) == len(set(names))
    # A method may be defined by what a user would write.
    assert name not in DECLARED or names[0] == "kempe_nb definition"
    ours = [each for each in operation.implementations if each.name.startswith("kempe_nb")]
    if declared := DECLARED.get(name):
        assert len(ours) >= len(declared.implementations)
        assert {each.exact for each in ours} == {declared.exact}
        assert {getattr(torch, dtype) for dtype in operation.dtypes} <= set(declared.dtypes)
    # Ours and a peer on every kind of device.
    assert {device for each in ours for device in each.devices} == set(DEVICES)
    for device in DEVICES:
        assert set(operation.on(device)) - set(ours)
    for case in operation.cases:
        assert case.sizes.keys() == case.small.keys()
        assert set(case.over_a_minute_on_cpu) <= set(names)
        for dtype in operation.dtypes:
            assert operation.minimum_bytes(case.sizes, dtype) > 0


@each_operation
@pytest.mark.parametrize("device", DEVICES)
def test_the_tests_that_stand_before_a_benchmark_exist(name, device):
    files = gate.test_files(name, device)
    assert files and all((gate.ROOT / file).is_file() for file in files)
    own = Path("tests") / "kernels" / "gpu" / f"test_gpu_{name}.py"
    if device == "cuda" and name in DECLARED:
        # Without Triton code the general test on a GPU says nothing.
        assert own in files or "triton" in DECLARED[name].implementations


@each_operation
def test_ours_and_the_peers_pass_the_check_and_what_is_wrong_does_not(name):
    torch.set_num_threads(1)
    operation = operations.load(name)
    small, dtype = operation.cases[-1].small, operation.dtypes[-1]
    for implementation in operation.on("cpu"):
        # Compiling takes longer than all the rest; the gate of the benchmark does it.
        if "compiled" in implementation.name or implementation.obstacle(small, "cpu"):
            continue
        found = gate.outputs(implementation, small, dtype, "cpu")
        assert operation.check(found, small, dtype) == "", implementation.name
        for index in range(len(found)):
            wrong = [*found]
            wrong[index] = (found[index] * 1.1).astype(found[index].dtype) + (index > 0)
            assert operation.check(wrong, small, dtype), (implementation.name, index)
        assert operation.check([np.atleast_1d(each)[:-1] for each in found], small, dtype)


def test_the_table_peers_are_left_out_where_no_table_fits():
    operation = operations.load("zipf")
    large = next(case for case in operation.cases if case.sizes["vocabulary"] == 10**9)
    for implementation in operation.implementations:
        reason = implementation.obstacle(large.sizes, "cpu")
        assert reason == ("its table would take 7.5 GiB" if "table" in implementation.name else "")


def test_class_sums_that_do_not_fit_into_memory_are_left_out():
    operation = operations.load("class_moments")
    largest = operation.cases[-1].sizes
    refused = {i.name for i in operation.on("cpu") if i.obstacle(largest, "cpu")}
    assert "dense covariance, pinv" in refused and "one-hot product" in refused
    assert not any(name.startswith("kempe_nb") for name in refused)
