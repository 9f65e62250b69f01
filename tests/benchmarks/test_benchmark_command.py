"""The command: the gate before every number, what it leaves behind, and what it refuses."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_operation import OURS, doubling

from benchmarks import __main__ as command, results

NUMBER = re.compile(r"\d ms|GB/s|%")


def refused(bench, capsys, message):
    """Run the command, which has to stop at its gate, and leave the old file alone."""
    bench.csv.parent.mkdir()
    bench.csv.write_text("old")
    assert bench.run() == 1
    printed = capsys.readouterr()
    assert message in printed.err
    assert not NUMBER.search(printed.out)
    assert bench.csv.read_text() == "old"


def test_a_green_run_leaves_a_row_for_each_combination(bench, capsys):
    assert bench.run() == 0
    rows = results.read(bench.csv)
    assert [(row["implementation"], row["shape"]) for row in rows] == [
        ("kempe_nb definition", "numbers=1000"),
        ("peer", "numbers=1000"),
        ("kempe_nb definition", "numbers=2000"),
        ("peer", "numbers=2000"),
    ]
    first = rows[0]
    assert tuple(first) == results.COLUMNS
    assert int(first["repetitions"]) >= 3
    assert float(first["p20_ms"]) <= float(first["median_ms"]) <= float(first["p80_ms"])
    assert first["device"].startswith("cpu: ") and first["threads"] == "1"
    assert first["torch"] == torch.__version__ and first["numpy"] == np.__version__
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", first["date"]) and first["commit"]
    assert first["launch_bound"] == "yes" and first["launches"] == "1"
    assert rows[1]["launches"] == ""
    out = capsys.readouterr().out
    assert "doubling: tests and checks are green" in out and "launch-bound" in out


def test_a_copy_without_git_is_told_its_commit(bench):
    assert bench.run() == 0
    assert {row["commit"] for row in results.read(bench.csv)} == {"unknown"}
    assert bench.run("--commit", "abc1234") == 0
    assert {row["commit"] for row in results.read(bench.csv)} == {"abc1234"}


def test_what_git_says_about_the_commit_stands(bench, monkeypatch):
    monkeypatch.setattr(command, "commit", lambda folder: "def5678-dirty")
    assert bench.run("--commit", "abc1234") == 0
    assert {row["commit"] for row in results.read(bench.csv)} == {"def5678-dirty"}


def test_what_would_take_too_long_is_a_row_with_the_reason(bench, capsys):
    assert bench.run() == 0
    last = results.read(bench.csv)[-1]
    assert last["note"] == "not run: over 60 s" and last["median_ms"] == ""
    assert "peer: not run: over 60 s" in capsys.readouterr().out


def test_what_cannot_run_is_a_row_with_the_reason(bench):
    bench.peer(obstacle=lambda sizes, device: "no compiler")
    assert bench.run() == 0
    assert results.read(bench.csv)[1]["note"] == "not run: no compiler"


def test_a_red_test_stops_everything(bench, capsys):
    bench.test_file("def test_it():\n    assert 1 + 1 == 3\n")
    refused(bench, capsys, "assert (1 + 1) == 3")


@pytest.mark.parametrize("text", ["", "import pytest\npytest.skip(allow_module_level=True)\n"])
def test_tests_that_did_not_run_are_no_proof(bench, capsys, text):
    bench.test_file(text)
    refused(bench, capsys, "test_doubling.py is not green")


def test_an_operation_without_tests_is_not_measured(bench, capsys):
    (bench.root / "tests/kernels/definition/test_doubling.py").unlink()
    refused(bench, capsys, "test_doubling.py is not green")


def test_a_peer_that_computes_something_else_stops_everything(bench, capsys):
    bench.peer(prepare=lambda *_: lambda: np.full(4, 3.0))
    refused(bench, capsys, "doubling: peer at {'numbers': 4}, float32: the mean is 3.0")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (doubling(factor=2.0000002), "output 0 differs from the definition in 4 of 4 values"),
        (doubling(kind=torch.float64), "output 0 is float64 (4,); the definition's is float32"),
    ],
)
def test_ours_has_to_give_the_bits_of_the_definition(bench, capsys, prepare, message):
    bench.operation = replace(
        bench.operation,
        implementations=(OURS, replace(OURS, name="kempe_nb Triton", prepare=prepare)),
    )
    refused(bench, capsys, message)


def test_the_gates_of_all_operations_come_before_the_first_number(bench, capsys, monkeypatch):
    monkeypatch.setattr(command.operations, "names", lambda: ["doubling", "other"])
    other = replace(bench.operation, name="other")
    monkeypatch.setattr(
        command.operations, "load", lambda name: other if name == "other" else bench.operation
    )
    refused(bench, capsys, "test_other.py is not green")


def test_a_quick_run_measures_the_first_case_and_writes_nothing(bench, capsys):
    assert bench.run("--quick") == 0
    out = capsys.readouterr().out
    assert "numbers=1000" in out and "numbers=2000" not in out
    assert not bench.csv.exists()


def test_a_run_that_is_interrupted_keeps_the_old_file(bench, capsys):
    assert bench.run() == 0
    before = bench.csv.read_bytes()

    def stop(sizes, dtype, device):
        if sizes["numbers"] == 1000:
            raise KeyboardInterrupt
        return lambda: np.full(4, 2.0)

    bench.peer(prepare=stop)
    assert bench.run() == 130
    assert "interrupted" in capsys.readouterr().out
    assert bench.csv.read_bytes() == before
    assert [file.name for file in bench.csv.parent.iterdir()] == ["doubling.csv"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["halving"], "operation is 'halving'; accepted are doubling"),
        (["--device", "tpu"], "device is 'tpu'; accepted are cpu, cuda"),
        (["--device", "cuda"], "device is 'cuda', but torch sees no GPU"),
        (["--threads", "0"], "threads is 0; accepted is a positive integer"),
    ],
)
def test_what_does_not_exist_is_refused_before_anything_starts(
    bench, capsys, monkeypatch, arguments, message
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    bench.test_file("open('started', 'w')\n")
    with pytest.raises(SystemExit) as stopped:
        bench.run(*arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(bench.root.rglob("started"))
