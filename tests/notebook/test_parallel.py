"""Computations in processes of their own: a loop's results, and a loop where none can start."""

import os

import pytest
import torch

from kempe_nb.notebook import parallel
from kempe_nb.notebook.parallel import map_in_processes

SEEN = []


def trained(seed):
    """Return a network that a few steps have changed, its loss, and the process that did it."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = torch.nn.Linear(5, 3)
    for _ in range(3):
        loss = model(torch.randn(8, 5, generator=generator)).square().sum()
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 1e-3 * parameter.grad
    SEEN.append(seed)
    return model, loss.item(), os.getpid()


def failing(item):
    raise ArithmeticError(f"item {item} cannot be computed")


@pytest.fixture(autouse=True)
def _nothing_seen():
    SEEN.clear()


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_the_results_are_those_of_a_loop_in_order(jobs):
    found = map_in_processes(trained, range(5), jobs=jobs)
    for seed, (model, loss, _) in enumerate(found):
        expected, same_loss, _ = trained(seed)
        assert loss == same_loss
        pairs = zip(model.parameters(), expected.parameters(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


def test_processes_are_others_and_change_nothing_here():
    state = torch.get_rng_state()
    processes = {process for *_, process in map_in_processes(trained, range(4), jobs=2)}
    assert os.getpid() not in processes
    assert SEEN == [] and torch.equal(torch.get_rng_state(), state)


def test_one_job_is_a_loop_in_this_process():
    assert [process for *_, process in map_in_processes(trained, range(2), jobs=1)] == [
        os.getpid(),
        os.getpid(),
    ]
    assert SEEN == [0, 1]


@pytest.mark.parametrize("obstacle", ["gpu", "daemon", "no fork"])
def test_it_is_a_loop_where_no_fork_is_safe(monkeypatch, obstacle):
    if obstacle == "gpu":
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    elif obstacle == "daemon":
        monkeypatch.setitem(parallel.multiprocessing.current_process()._config, "daemon", True)
    else:
        monkeypatch.setattr(parallel.multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    assert map_in_processes(trained, [7], jobs=2)[0][2] == os.getpid()
    map_in_processes(trained, [8, 9], jobs=2)
    assert SEEN == [7, 8, 9]


def test_an_error_comes_back_as_it_was_raised():
    with pytest.raises(ArithmeticError, match="item 0 cannot be computed"):
        map_in_processes(failing, range(3), jobs=2)


def test_no_items_are_no_work():
    assert map_in_processes(failing, []) == []


@pytest.mark.parametrize("jobs", [0, -1, 1.5, True])
def test_jobs_that_are_none_are_refused(jobs):
    with pytest.raises(ValueError, match="jobs is"):
        map_in_processes(trained, [1], jobs=jobs)
