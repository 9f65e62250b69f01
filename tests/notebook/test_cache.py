"""What lessons share: computed once, never taken from an entry that is torn or another's."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kempe_nb.notebook import cache
from kempe_nb.notebook.cache import remembered

calls = []


def trained(seed, width=2, *, name="a"):
    calls.append((seed, width, name))
    return {"weights": torch.full((3, width), float(seed)), "name": name, "sizes": [1, (2, 3)]}


def untrained(seed, width=2, *, name="a"):
    calls.append("untrained")
    return {"weights": torch.zeros(3, width), "name": name, "sizes": []}


def failing(seed):
    calls.append(seed)
    raise RuntimeError("no convergence")


def strange(seed):
    return {"generator": iter([seed])}


def total_of(values):
    calls.append(values)
    return float(values.sum())


def collected(*sizes, **names):
    calls.append((sizes, names))
    return sum(sizes)


def told(*values):
    calls.append(values)
    return repr(values)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty cache, and a process that began after all code was written."""
    calls.clear()
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "_BEGAN", float("inf"))
    return tmp_path / "cache"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small package in place of the real one."""
    home = tmp_path / "kempe_nb"
    names = ("kernels/op.py", "networks/deep.py", "notebook/profile.py", "notebook/figures.py")
    for file in (*names, "data/digits.py", "dispatch.py", "__main__.py"):
        (home / file).parent.mkdir(parents=True, exist_ok=True)
        (home / file).write_text("x = 1\n")
    monkeypatch.setattr(cache, "_package", lambda: home)
    return home


def entries(folder):
    return sorted(folder.rglob("output.pkl"))


def test_equal_arguments_compute_once_and_give_what_was_computed():
    first, second = (remembered(trained)(3, width=4, name="b") for _ in range(2))
    assert calls == [(3, 4, "b")]
    for found in (first, second):
        assert torch.equal(found["weights"], torch.full((3, 4), 3.0))
        assert (found["name"], found["sizes"]) == ("b", [1, (2, 3)])


def test_a_result_is_a_new_one_at_every_call():
    remembered(trained)(3)["weights"].zero_()
    assert remembered(trained)(3)["weights"].sum() == 18


@pytest.mark.parametrize("other", [(4,), (3.0,), (True,), ("3",), ((3,),), (None,), (3, 5)])
def test_another_argument_computes_again(other):
    assert remembered(told)(3) == "(3,)"
    assert remembered(told)(*other) == repr(other)
    assert calls == [(3,), other]


def test_two_functions_with_equal_arguments_never_share():
    assert remembered(trained)(3)["weights"].sum() == 18
    assert remembered(untrained)(3)["weights"].sum() == 0
    assert calls == [(3, 2, "a"), "untrained"]


def test_two_functions_of_one_name_in_two_modules_never_share(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for name, value in (("first_module", 1), ("second_module", 2)):
        (tmp_path / f"{name}.py").write_text(f"def trained(seed):\n    return {value}\n")
    import first_module
    import second_module

    assert [remembered(m.trained)(0) for m in (first_module, second_module)] == [1, 2]
    for name in ("first_module", "second_module"):
        del sys.modules[name]


@pytest.mark.parametrize(
    "file",
    [
        *("kernels/op.py", "networks/deep.py", "notebook/profile.py", "data/digits.py"),
        *("dispatch.py", "methods/new.py"),
    ],
)
def test_changed_code_that_computes_computes_again(package, file):
    remembered(trained)(3)
    (package / file).parent.mkdir(exist_ok=True)
    (package / file).write_text("x = 2\n")
    remembered(trained)(3)
    assert len(calls) == 2


@pytest.mark.parametrize("file", ["notebook/figures.py", "__main__.py", "kernels/notes.txt"])
def test_changed_code_that_only_shows_computes_nothing_again(package, file):
    remembered(trained)(3)
    (package / file).write_text("x = 2\n")
    remembered(trained)(3)
    assert len(calls) == 1


def test_a_changed_file_of_the_function_itself_computes_again(tmp_path, monkeypatch):
    module = sys.modules[__name__]
    copy = tmp_path / "copy.py"
    copy.write_bytes(Path(module.__file__).read_bytes())
    monkeypatch.setattr(module, "__file__", str(copy))
    remembered(trained)(3)
    copy.write_text(copy.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    remembered(trained)(3)
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("_version", lambda library: "0" if library == "numpy" else "1"),
        ("processor", lambda: "another processor"),
        ("LIBRARIES", ("numpy",)),
    ],
)
def test_other_versions_and_another_processor_compute_again(monkeypatch, name, other):
    remembered(trained)(3)
    monkeypatch.setattr(cache, name, other)
    remembered(trained)(3)
    assert len(calls) == 2


def test_another_implementation_computes_again(monkeypatch):
    monkeypatch.delenv("KEMPE_NB_IMPL", raising=False)
    remembered(trained)(3)
    monkeypatch.setenv("KEMPE_NB_IMPL", "definition")
    remembered(trained)(3)
    assert len(calls) == 2


def test_code_that_changed_since_the_process_began_keeps_nothing(package, folder, monkeypatch):
    # The process still has the old code in memory, and the file would vouch for the new one.
    newest = max(path.stat().st_mtime for path in package.rglob("*.py"))
    monkeypatch.setattr(cache, "_BEGAN", newest - 1)
    # A copy may bring the date of its original, but it cannot hide when it came.
    for path in package.rglob("*.py"):
        os.utime(path, (0, 0))
    assert remembered(trained)(3)["weights"].sum() == 18
    remembered(trained)(3)
    assert len(calls) == 2 and not folder.exists()


def test_a_process_begins_before_it_imports_its_code():
    code = "import time; began = time.time(); from kempe_nb.notebook import cache\n"
    code += "print(began - cache._BEGAN)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # Clocks tell the start of a process to about a second.
    assert -1.5 < float(ran.stdout) < 60


def test_an_entry_is_used_only_as_it_was_written(folder):
    remembered(trained)(3)
    (file,) = entries(folder)
    good = file.read_bytes()
    assert len(good) > 500
    broken = [good[: len(good) // 2], b"", good[:-1], b"not a pickle"]
    for position in range(0, len(good), 37):
        flipped = bytearray(good)
        flipped[position] ^= 1 << (position % 8)
        broken.append(bytes(flipped))
    for content in broken:
        file.write_bytes(content)
        assert torch.equal(remembered(trained)(3)["weights"], torch.full((3, 2), 3.0))
    # What is broken inside the result is computed again and mended.
    calls.clear()
    flipped = bytearray(good)
    flipped[good.index(torch.full((3, 2), 3.0).numpy().tobytes())] ^= 1
    file.write_bytes(bytes(flipped))
    assert torch.equal(remembered(trained)(3)["weights"], torch.full((3, 2), 3.0))
    remembered(trained)(3)
    assert len(calls) == 1


def test_a_torn_entry_is_mended_without_a_word(folder, capfd, caplog):
    # What a cell of a page writes to stderr fails it.
    level = logging.getLogger("joblib").level
    remembered(trained)(3)
    (file,) = entries(folder)
    file.write_bytes(file.read_bytes()[:100])
    remembered(trained)(3)
    assert capfd.readouterr() == ("", "") and caplog.records == []
    # What the caller has set for joblib is as it was.
    assert logging.getLogger("joblib").level == level


@pytest.mark.parametrize(
    "value",
    [
        torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
        torch.tensor([1.0, 2.0]).to(torch.float8_e4m3fn),
        torch.tensor([1 + 2j, 3 - 1j]).conj(),
        torch.tensor(1.5),
        torch.arange(12).reshape(3, 4).T,
        torch.zeros(0, 3),
    ],
    ids=["bfloat16", "float8", "conjugated", "0-d", "transposed", "empty"],
)
def test_tensors_of_every_kind_name_an_entry(value):
    compute = remembered(told)
    compute(value)
    compute(value.clone())
    assert len(calls) == 1


def test_an_editors_lock_in_the_package_does_no_harm(package):
    (package / "kernels" / ".#toy.py").symlink_to("nobody@nowhere.1234")
    remembered(trained)(3)
    remembered(trained)(3)
    assert len(calls) == 1


def test_the_entry_of_another_key_is_not_used(folder):
    remembered(trained)(3)
    (first,) = entries(folder)
    remembered(trained)(4)
    (second,) = set(entries(folder)) - {first}
    second.write_bytes(first.read_bytes())
    calls.clear()
    assert remembered(trained)(4)["weights"].sum() == 24
    assert len(calls) == 1
    assert remembered(trained)(3)["weights"].sum() == 18
    assert len(calls) == 1


def test_two_processes_at_once_get_right_results(tmp_path, folder):
    (tmp_path / "slow_module.py").write_text(
        "import time\nimport torch\n\n\ndef slow(seed):\n    time.sleep(0.2)\n"
        "    return torch.full((1000,), float(seed))\n"
    )
    os.utime(tmp_path / "slow_module.py", (1, 1))
    code = (
        "import slow_module\nfrom kempe_nb.notebook import cache\n"
        "cache._BEGAN = float('inf')\n"
        "for seed in (0, 1, 0, 2, 1):\n"
        "    found = cache.remembered(slow_module.slow)(seed)\n"
        "    assert found.tolist() == [float(seed)] * 1000\n"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code],
            env=os.environ | {"PYTHONPATH": path},
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in started:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
    assert len(entries(folder)) == 3


def test_without_a_checkout_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.delenv(cache.VARIABLE)
    monkeypatch.chdir(tmp_path)
    remembered(trained)(3)
    remembered(trained)(3)
    assert len(calls) == 2 and list(tmp_path.iterdir()) == []


def test_an_empty_variable_switches_it_off_and_by_default_it_is_in_the_checkout(
    tmp_path, monkeypatch
):
    (tmp_path / "_toc.yml").touch()
    lesson = tmp_path / "book" / "chapters" / "paper"
    lesson.mkdir(parents=True)
    monkeypatch.chdir(lesson)
    monkeypatch.setenv(cache.VARIABLE, "")
    assert cache.cache_folder() is None
    remembered(trained)(3)
    remembered(trained)(3)
    assert len(calls) == 2 and not (tmp_path / "_build").exists()
    monkeypatch.delenv(cache.VARIABLE)
    assert cache.cache_folder() == tmp_path / "_build" / "cache"
    remembered(trained)(3)
    assert len(entries(tmp_path / "_build" / "cache")) == 1


def test_a_folder_that_cannot_be_made_costs_the_cache_and_not_the_result(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "file" / "cache"))
    assert remembered(trained)(3)["weights"].sum() == 18


def test_an_error_is_raised_and_not_kept(folder):
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no convergence"):
            remembered(failing)(3)
    assert calls == [3, 3] and entries(folder) == []


@pytest.mark.parametrize(
    ("arguments", "named", "message"),
    [
        ((print,), {}, r"trained: seed is <built-in function print>, a builtin_function"),
        ((1,), {"width": [1, 2]}, r"trained: width is \[1, 2\], a list; accepted are tensors, num"),
        ((1,), {"name": {"a": 1}}, r"trained: name is \{'a': 1\}, a dict"),
        (((1, (2, {3})),), {}, r"trained: seed is \(1, \(2, \{3\}\)\), a tuple"),
    ],
)
def test_an_argument_that_names_no_entry_is_refused_by_name(folder, arguments, named, message):
    with pytest.raises(TypeError, match=message):
        remembered(trained)(*arguments, **named)
    assert calls == [] and not folder.exists()


def test_a_tensor_is_told_from_another_by_its_content(folder):
    ones, twos = torch.ones(3), 2 * torch.ones(3)
    remember = remembered(total_of)
    assert [remember(t) for t in (ones, twos, ones.clone(), ones.double())] == [3, 6, 3, 3]
    assert len(calls) == 3


def test_arguments_without_names_of_their_own_are_checked_too():
    assert remembered(collected)(1, 2, word="w") == 3
    with pytest.raises(TypeError, match="collected: word is"):
        remembered(collected)(1, word=print)


def test_a_result_that_could_not_be_read_back_is_refused(folder):
    with pytest.raises(TypeError, match="accepted are tensors, numbers, words"):
        remembered(strange)(3)
    assert entries(folder) == []


def test_functions_whose_code_has_no_file_or_no_name_are_refused():
    def inner(seed):
        return seed

    for function in (inner, lambda seed: seed, torch.nn.Linear.forward, print):
        with pytest.raises(TypeError, match="accepted is a function at the top level of a module"):
            remembered(function)
