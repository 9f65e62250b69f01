"""The arithmetic of the benchmarks, and what can be said of a measurement without timing it."""

import sys

import numpy as np
import pytest
import torch
from small_operation import OPERATION, OURS

from benchmarks import machine, measure, results
from benchmarks.measure import Footprint, Timing
from benchmarks.registry import Combination, shape_text, within_five_errors

CIRCUMSTANCES = results.Circumstances(
    device="cpu: a model",
    threads="1",
    copy_gb_per_s=10.0,
    torch="2",
    triton="",
    numpy="2",
    python="3",
    driver="",
    commit="abc1234",
    date="2026-01-02",
)


def row(**changes):
    combination = Combination(OPERATION, OURS, OPERATION.cases[0], "float32", "cpu")
    timing = Timing(repetitions=5, median_ms=0.004, p20_ms=0.003, p80_ms=0.005)
    return results.row(combination, CIRCUMSTANCES, (timing, Footprint(1.5, None))) | changes


def test_bandwidth_is_minimum_bytes_over_the_median():
    # 8000 bytes in 4 µs are 2 GB/s, a fifth of the copy.
    found = row()
    assert found["minimum_bytes"] == "8000"
    assert float(found["gb_per_s"]) == 2.0 and float(found["share_of_copy"]) == 0.2
    assert found["peak_mib"] == "1.5" and found["launches"] == ""
    assert found["shape"] == shape_text({"numbers": 1000}) == "numbers=1000"


@pytest.mark.parametrize(("median", "bound"), [(0.0199, True), (0.0201, False)])
def test_a_call_under_twenty_microseconds_is_launch_bound(median, bound):
    assert Timing(3, median, median, median).launch_bound is bound


@pytest.mark.parametrize(
    ("one_ms", "budget_ms", "expected"),
    [(1, 100, 100), (60, 100, 3), (9_999, 100, 3), (10_001, 100, 1), (0, 100, 1000)],
)
def test_repetitions_fill_a_budget_within_bounds(one_ms, budget_ms, expected):
    assert measure.repetitions(one_ms, budget_ms) == expected


def test_a_copy_has_a_bandwidth(monkeypatch):
    monkeypatch.setitem(measure.COPY_BYTES, "cpu", 2**20)
    assert 0 < measure.copy_gb_per_s("cpu", 1) < np.inf


def test_a_call_is_warmed_up_and_timed():
    calls = []
    found = measure.timing(lambda: calls.append(1), "cpu", 0.0)
    assert found.repetitions == 3 and len(calls) == 4
    assert found.p20_ms <= found.median_ms <= found.p80_ms


def test_the_operations_of_a_call_are_counted_where_they_can_be():
    x = torch.ones(4)
    assert measure.footprint(lambda: (x + x) * x, "cpu", eager=True).launches == 2
    assert measure.footprint(lambda: x + x, "cpu", eager=False).launches is None


def peak_mib(call):
    return measure.footprint(call, "cpu", eager=False).peak_mib


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset the peak")
def test_the_memory_of_a_call_is_seen_and_that_of_its_inputs_is_not():
    inputs = np.ones(2**24)
    assert 120 < peak_mib(lambda: inputs + 1) < 140
    assert peak_mib(lambda: inputs[0]) < 8


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset the peak")
def test_memory_that_a_call_frees_again_counts_once():
    x = torch.ones(2**21)

    def loop():
        for _ in range(20):
            (x + 1).mul_(2).sum()

    # Eight MiB at a time.
    assert peak_mib(loop) < 24


def test_without_proc_there_is_no_peak(monkeypatch):
    monkeypatch.setattr(measure.ctypes, "CDLL", lambda _: object())
    assert peak_mib(lambda: None) is None


def test_a_run_replaces_the_rows_of_its_device_and_threads_only():
    gpu, two = row(device="cuda: a GPU"), row(threads="2")
    gone, new = row(shape="numbers=7"), row(median_ms="9")
    assert results.merge([gpu, row(), two, gone], [new]) == [gpu, two, new]


def test_what_is_written_is_read_again(tmp_path):
    path = tmp_path / "results" / "doubling.csv"
    assert results.read(path) == []
    rows = [row(note='a "reason", with a comma'), row(threads="2")]
    results.write(path, rows)
    assert results.read(path) == rows
    assert path.read_text().splitlines()[0] == ",".join(results.COLUMNS)


def test_a_mean_may_miss_by_five_standard_errors_and_no_more():
    assert within_five_errors("x", 1.49, 1.0, 1.0, 100) == ""
    fault = within_five_errors("x", [1.0, 1.51], 1.0, 1.0, 100)
    assert fault == "x is 1.51; expected is 1 up to 5 standard errors, 0.5"
    assert within_five_errors("x", float("nan"), 1.0, 1.0, 100)
    # What does not vary has to be right, up to rounding.
    assert within_five_errors("x", 1e9 + 1e-6, 1e9, 0.0, 1) == ""
    assert within_five_errors("x", 1.001, 1.0, 0.0, 1)


def test_a_device_is_named_with_its_kind(monkeypatch):
    assert machine.device_name("cpu").startswith("cpu: ")
    assert len(machine.device_name("cpu")) > len("cpu: ")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    assert machine.device_name("cuda") == "cuda: NVIDIA H200"


def test_a_gpu_without_nvidia_smi_has_an_unknown_driver(monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(machine.subprocess, "run", missing)
    assert machine.driver("cuda") == "unknown" and machine.driver("cpu") == ""
