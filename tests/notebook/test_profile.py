"""The profile: refusals, reproducible streams, and the one line that it prints."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

from kempe_nb.notebook import profile, record


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_start_prints_one_line_that_says_what_runs_where(capsys):
    run = profile.start("cpu", seed=3, threads=1)
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert "Profile cpu" in printed and "seed 3" in printed and torch.__version__ in printed
    assert (run.device.type, torch.get_num_threads()) == ("cpu", 1)
    assert record._facts["device"] in printed
    assert plt.rcParams["svg.fonttype"] == "none"


def test_torch_generators_are_named_streams_too():
    def draws(seed, stream):
        return torch.rand(4, generator=profile.start("cpu", seed=seed).generator(stream)).tolist()

    assert draws(0, "a") == draws(0, "a")
    assert len({tuple(draws(seed, stream)) for seed in (0, 1) for stream in "ab"}) == 4


def test_a_value_is_picked_by_profile():
    cpu = profile.Profile("cpu", 0, torch.device("cpu"), 1)
    gpu = profile.Profile("gpu", 0, torch.device("cuda"), 1)
    assert (cpu.pick(cpu=1, gpu=2), gpu.pick(cpu=1, gpu=2)) == (1, 2)


def test_the_seed_fixes_torch_numpy_and_the_named_streams():
    def draws(seed):
        run = profile.start("cpu", seed=seed)
        legacy = torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()
        return *legacy, run.rng("x").random(3).tolist()

    assert draws(1) == draws(1)
    assert all(a != b for a, b in zip(draws(1), draws(2), strict=True))


def test_streams_differ_by_name_and_do_not_depend_on_the_order_of_calls():
    run = profile.start("cpu", seed=0)
    first = run.rng("a").random()
    run.rng("b").random(100)
    assert run.rng("a").random() == first != run.rng("b").random()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tpu", {}, "profile is 'tpu'; accepted are 'cpu', 'gpu'"),
        ("cpu", {"seed": -1}, "seed is -1"),
        ("cpu", {"seed": 2**32}, "seed is"),
        ("cpu", {"seed": 1.5}, "seed is 1.5"),
        ("cpu", {"threads": 0}, "threads is 0"),
    ],
)
def test_bad_input_is_refused_by_name(name, options, message):
    with pytest.raises(ValueError, match=message):
        profile.start(name, **options)


def test_a_missing_gpu_is_an_error_that_says_what_to_do(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="profile='cpu'.*CUDA build.*Colab"):
        profile.start("gpu")


def test_importing_the_package_needs_neither_torch_nor_triton():
    code = "import sys, kempe_nb; assert not {'torch', 'triton', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
