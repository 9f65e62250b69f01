"""What a run leaves behind, and for whom it behaves live."""

import json
import os
import platform
import sys
from pathlib import Path

import ipywidgets
import pytest
from matplotlib import pyplot as plt

import kempe_nb
from kempe_nb.notebook import claims, record, sliders
from kempe_nb.notebook.machine import processor


@pytest.fixture
def facts(tmp_path, monkeypatch):
    """Ask for a record, and return what it holds."""
    file = tmp_path / "facts.json"
    monkeypatch.setenv(record.VARIABLE, str(file))
    monkeypatch.delenv(record.LIVE, raising=False)

    def facts():
        record.write([])
        return json.loads(file.read_text(encoding="utf-8"))

    return facts


def draw(k):
    fig, axes = plt.subplots()
    axes.plot([0, k])
    return fig


@pytest.fixture
def shown(monkeypatch):
    """What a slider displays."""
    found = []
    monkeypatch.setattr(sliders, "display", lambda item, **_: found.append(item))
    return found


def explore():
    sliders.explore(draw, alt="k is {k}", caption="A line.", k=[1, 2])


@pytest.mark.parametrize(("live", "widget"), [(None, False), ("1", True)])
def test_a_live_notebook_that_is_asked_for_its_record_behaves_live_and_writes_it(
    facts, shown, monkeypatch, live, widget
):
    if live:
        monkeypatch.setenv(record.LIVE, live)
    assert record.is_published() is not widget
    explore()
    assert any(isinstance(item, ipywidgets.Widget) for item in shown) is widget
    assert any("text/html" in item for item in shown if isinstance(item, dict)) is not widget
    claims.check("small", "One is at most two.", 1, at_most=2, source="a test")
    if live:
        # A reader may run a cell twice.
        claims.check("small", "One is at most two.", 1, at_most=2, source="a test")
    claims.close()
    found = json.loads(Path(os.environ[record.VARIABLE]).read_text(encoding="utf-8"))
    assert [claim["id"] for claim in found["claims"]] == ["small"]


def test_the_record_tells_cost_machine_and_kernel(facts):
    record.note("device", platform.machine())
    assert sum(i * i for i in range(600_000))
    found = facts()
    assert 0 < found["cpu_seconds"] < 100_000 and found["peak_mib"] > 1
    assert found["device"] == processor() and found["device"]
    assert found["kernel"] == {
        "environment": os.path.realpath(sys.prefix),
        "package": str(Path(kempe_nb.__file__).resolve().parent),
        "optimize": 0,
    }


def test_a_gpu_is_the_device_where_the_run_noted_one(facts):
    record.note("device", "NVIDIA H200")
    assert facts()["device"] == "NVIDIA H200"


def test_the_processor_is_its_model_where_the_system_tells_it():
    if not Path("/proc/cpuinfo").exists():
        pytest.skip("only Linux tells the model in a file")
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    assert processor() == (models[0] if models else platform.processor() or platform.machine())
