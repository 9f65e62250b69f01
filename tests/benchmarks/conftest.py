"""The command of the benchmarks over a small operation, in a folder of its own."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from small_operation import OPERATION, OURS, PEER

from benchmarks import __main__ as command, gate, measure, operations, results
from benchmarks.registry import Operation

GREEN = "def test_it():\n    pass\n"


@dataclass
class Bench:
    """The command over one operation in a folder of its own."""

    root: Path
    operation: Operation = OPERATION

    @property
    def csv(self) -> Path:
        return self.root / "results" / "doubling.csv"

    def test_file(self, text: str) -> None:
        """Write the operation's test file."""
        file = self.root / gate.test_files("doubling", "cpu")[0]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def peer(self, **changes) -> None:
        """Change the peer of the operation."""
        peer = replace(PEER, **changes)
        self.operation = replace(self.operation, implementations=(OURS, peer))

    def run(self, *arguments: str) -> int:
        return command.main(list(arguments))


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """A green operation, measured in a hurry."""
    bench = Bench(tmp_path)
    bench.test_file(GREEN)
    # The gate starts pytest for every run; without plugins that takes half the time.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setattr(gate, "ROOT", tmp_path)
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    monkeypatch.setattr(operations, "names", lambda: ["doubling"])
    monkeypatch.setattr(operations, "load", lambda name: bench.operation)
    monkeypatch.setattr(command, "BUDGET_MS", 1)
    monkeypatch.setitem(measure.COPY_BYTES, "cpu", 2**20)
    return bench
