"""The room of Numba code: the decorator, its cache, threads, and what the compiler made."""

import multiprocessing
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from kempe_nb import dispatch, ensemble_moments, ensemble_nll

if dispatch.numba_version():
    import numba

    from kempe_nb.kernels import numba as room
    from kempe_nb.kernels.numba import ensemble_moments as code

pytestmark = pytest.mark.numba
LABELS = torch.arange(700) % 10


@pytest.fixture
def logits():
    return 3 * torch.randn(9, 700, 10, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def results(logits):
    loss = ensemble_nll(logits, LABELS, objective="margin", impl="numba")
    return [*ensemble_moments(logits, impl="numba"), *loss]


def same_bits(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_any_number_of_threads_gives_the_same_bits(logits):
    one = results(logits)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        assert same_bits(results(logits), one)


def test_an_input_has_the_same_bits_in_any_company(logits):
    whole = ensemble_moments(logits, impl="numba")
    for part in (slice(0, 1), slice(3, 300), slice(650, 700)):
        alone = ensemble_moments(logits[:, part], impl="numba")
        assert same_bits(alone, [each[part] for each in whole])


def test_two_threads_of_python_at_once(logits):
    torch.set_num_threads(2)
    one, found = results(logits), {}
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: results(logits)})) for i in range(4)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(found) == 4 and all(same_bits(each, one) for each in found.values())


def test_a_forked_child_has_threads_of_its_own(logits):
    torch.set_num_threads(2)
    one = results(logits)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()

    def child():
        queue.put(same_bits([ensemble_moments(logits, impl="numba").log_mean], one[:1]))

    process = context.Process(target=child)
    process.start()
    process.join(60)
    if process.is_alive():
        process.kill()
        pytest.fail("the child waits for threads that its parent had")
    assert process.exitcode == 0 and queue.get()


def test_an_error_in_a_thread_is_raised():
    def work(start, stop):
        if start:
            raise KeyError(start)

    torch.set_num_threads(2)
    with pytest.raises(KeyError):
        room.in_threads(work, 100, 10)


@pytest.mark.parametrize(
    ("size", "grain", "threads"), [(0, 8, 2), (5, 8, 2), (100, 7, 3), (9, 1, 2)]
)
def test_the_parts_are_the_whole(size, grain, threads):
    torch.set_num_threads(threads)
    parts = []
    room.in_threads(lambda start, stop: parts.append((start, stop)), size, grain)
    parts.sort()
    assert [start for start, _ in parts] == [0, *(stop for _, stop in parts[:-1])]
    assert parts[-1][1] == size
    assert all(stop - start >= grain for start, stop in parts[:-1])


@pytest.mark.parametrize("name", ["_write_odds", "_add_others", "_add_weighted", "_add_products"])
def test_inner_loops_are_vector_instructions(name):
    """A change that hides from the compiler that arrays do not overlap costs a factor of ten."""
    function = getattr(code, name).py_func
    block, row = torch.zeros(10, 64).numpy(), torch.zeros(3, 64).numpy()
    arguments = {
        "_write_odds": (block, row, 0, block, 0, 10),
        "_add_others": (block, row, 0, block, row, 0, 10),
        "_add_weighted": (block, row, 0, block, row, 0, 10),
        "_add_products": (block, row[0], block),
    }[name]
    # Compiled anew: what comes from a cache has no assembly.
    fresh = numba.njit(nogil=True, error_model="numpy")(function)
    fresh(*arguments)
    (assembly,) = fresh.inspect_asm().values()
    packed = re.findall(r"\b(?:v?(?:add|mul|sub)ps|fmul\s+v\d+\.4s|fadd\s+v\d+\.4s)\b", assembly)
    assert len(packed) >= 2
    assert not re.findall(r"\bvfn?m(?:add|sub)\d", assembly)


def test_what_was_compiled_is_kept_and_an_edit_of_any_file_is_seen(tmp_path):
    """Numba itself does not see that a function which is called has changed in another file."""
    package = tmp_path / "kempe_nb" / "kernels" / "numba"
    package.mkdir(parents=True)
    for folder in (tmp_path / "kempe_nb", package.parent):
        (folder / "__init__.py").write_text("")
    (package / "__init__.py").write_text(Path(room.__file__).read_text())
    constants = package.parent / "constants.py"
    constants.write_text("ONE = 1\n")
    (package / "helper.py").write_text(
        "from kempe_nb.kernels.numba import compiled\n"
        "from kempe_nb.kernels.constants import ONE\n\n"
        "@compiled\ndef helper(x):\n    return x + ONE\n"
    )
    (package / "caller.py").write_text(
        "from kempe_nb.kernels.numba import compiled\n"
        "from kempe_nb.kernels.numba.helper import helper\n\n"
        "@compiled\ndef caller(x):\n    return helper(x)\n"
    )
    command = (
        "from kempe_nb.kernels.numba.caller import caller; "
        "print(caller(1), sum(caller.stats.cache_hits.values()))"
    )

    def run():
        ran = subprocess.run(
            [sys.executable, "-c", command],
            cwd=tmp_path,
            env={"PATH": "", "HOME": str(tmp_path), "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.split()

    assert run() == ["2", "0"]
    assert run() == ["2", "1"]
    edited = package / "helper.py"
    edited.write_text(edited.read_text().replace("x + ONE", "x + 4 + ONE"))
    assert run() == ["6", "0"]
    # Compiled code has the value of a constant in it, and Numba does not see where it came from.
    constants.write_text("ONE = 2\n")
    assert run() == ["7", "0"]


def test_a_home_that_cannot_be_written_costs_the_cache_and_nothing_else():
    command = (
        "import torch, kempe_nb; logits = torch.zeros(2, 3, 4); "
        "print(kempe_nb.ensemble_moments(logits, impl='numba').total_entropy[0].item())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", command],
        cwd=Path(room.__file__).parents[3],
        env={"PATH": "", "HOME": "/proc/nowhere", "XDG_CACHE_HOME": "/proc/nowhere"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert float(ran.stdout) == pytest.approx(1.386294, rel=1e-5)
