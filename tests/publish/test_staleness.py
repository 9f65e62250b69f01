"""What makes an executed copy stale, and what does not."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook

from kempe_nb.__main__ import main
from kempe_nb.notebook import sliders
from kempe_nb.publish import staleness as fp
from kempe_nb.publish.execute import is_fresh, plan

SHOW = 'figures.show(fig, alt="old {x}", caption="old", x=1)'


def key(*code, parameters=None):
    cells = [new_code_cell(source) for source in code]
    return fp.fingerprint(new_notebook(cells=cells), parameters or {"profile": "cpu"})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x = 1", "x = 1  # a comment"),
        ("x = f(1, 2)", "x = f(\n    1,\n    2,\n)"),
        (SHOW, SHOW.replace("old", "new")),
        (
            'sliders.explore(d, alt="a", caption="b", k=[1])',
            'sliders.explore(d, alt="c", caption="d", k=[1])',
        ),
    ],
)
def test_a_change_that_computes_the_same_changes_nothing(before, after):
    assert key(before) == key(after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x = 1", "x = 2"),
        (SHOW, SHOW.replace("x=1", "x=2")),
        (SHOW, SHOW.replace('alt="old {x}"', "alt=text")),
        ("print('alt')", "print('other')"),
        ("%timeit x", "%timeit y"),
        ("x", "x;"),
        ('other.show(alt="a")', 'other.show(alt="b")'),
        ('figures.check(alt="a")', 'figures.check(alt="b")'),
        ("x = (", "x = ["),
    ],
)
def test_a_change_of_code_changes_the_key(before, after):
    assert key(before) != key(after)


def test_parameters_profiles_versions_and_the_order_of_cells_count(monkeypatch):
    base = key("x = 1", "y = 2")
    assert key("y = 2", "x = 1") != base
    assert key("x = 1", "y = 2", parameters={"profile": "gpu"}) != base
    monkeypatch.setattr(fp, "versions", lambda: {"numpy": "0"})
    assert key("x = 1", "y = 2") != base


def test_tags_and_papermills_own_cell_do_not_count():
    plain = new_notebook(cells=[new_code_cell("x = 1")])
    tagged = new_notebook(cells=[new_code_cell("x = 1", metadata={"tags": ["hide-input"]})])
    injected = new_code_cell("x = 5", metadata={"tags": ["injected-parameters"]})
    tagged.cells.append(injected)
    assert fp.fingerprint(plain, {}) == fp.fingerprint(tagged, {})


def test_texts_are_found_in_the_order_in_which_they_stand():
    source = SHOW + '\nfigures.show(b, caption="c2", alt="a2")'
    assert fp.literal_texts(source) == [
        ("alt", "old {x}"),
        ("caption", "old"),
        ("caption", "c2"),
        ("alt", "a2"),
    ]


def test_the_versions_that_results_depend_on_are_part_of_the_key():
    found = fp.versions()
    assert found["torch"] == torch.__version__ and found["numpy"] == np.__version__


def test_modules_are_hashed_by_name_with_their_scripts(tmp_path, monkeypatch):
    package = tmp_path / "kempe_nb"
    (package / "methods").mkdir(parents=True)
    for file in ("__init__.py", "methods/__init__.py", "methods/thing.py", "methods/other.py"):
        (package / file).write_text("x = 1\n")
    monkeypatch.setattr(fp.kempe_nb, "__file__", str(package / "__init__.py"))
    before = fp.code_hashes()
    assert set(before) == {
        "kempe_nb",
        "kempe_nb.methods",
        "kempe_nb.methods.thing",
        "kempe_nb.methods.other",
    }
    (package / "methods" / "other.py").write_text("x = 2\n")
    (package / "methods" / "thing.js").write_text("let x = 1;\n")
    after = fp.code_hashes()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"kempe_nb.methods.thing", "kempe_nb.methods.other"}


#: Code that some version of Python from 3.11 to 3.13 tells otherwise by `ast.dump`, and its
#: neighbours. The texts are the same on all of them; one that fails on another version would make
#: every stored table suspect there.
FIXED = json.loads(Path(__file__).with_name("code_texts.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("fixed", FIXED, ids=lambda fixed: fixed["source"][0][:20])
def test_the_text_of_code_is_the_same_on_every_python(fixed):
    assert fp.dump(ast.parse("\n".join(fixed["source"]))) == fixed["text"]


def test_an_empty_part_and_a_mark_of_unicode_in_an_f_string_are_nothing():
    # Python 3.12 writes the first, 3.13 the second.
    tree = ast.parse('f"{a:>{w}}"').body[0].value
    text = fp.dump(tree)
    tree.values[0].format_spec.values.append(ast.Constant(""))
    assert fp.dump(tree) == text
    assert fp.dump(ast.Constant("a", kind="u")) == fp.dump(ast.Constant("a"))
    assert fp.dump(ast.parse('[""]')) != fp.dump(ast.parse("[]"))


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Put a copy of a module, changed, in its place for whoever asks for its hash."""

    def module(name, change=lambda text: text, script=None):
        original = real[name]
        copy = tmp_path / "modules" / original.name
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(change(original.read_text(encoding="utf-8")), encoding="utf-8")
        copy.with_suffix(".js").unlink(missing_ok=True)
        if script is not None:
            copy.with_suffix(".js").write_text(script, encoding="utf-8")
        monkeypatch.setattr(fp, "module_files", lambda: real | {name: copy})

    real = fp.module_files()
    return module


def with_comment(text):
    return text + "# one more thing\n"


def with_docstring(text):
    return text.replace('"""', '"""Now: ', 1)


def with_code(text):
    return text + "one_more_thing = 1\n"


@pytest.mark.slow
def test_a_copy_depends_on_what_its_modules_compute_and_on_the_letters_that_it_shows(
    project, write, module
):
    shown = "kempe_nb.kernels.triton.philox"
    write(
        "chapter",
        "from kempe_nb.notebook import sliders\n"
        "from kempe_nb.notebook.source import show_source\n"
        f"show_source('{shown}:read_kernel')\n"
        "show_source(claims.clear)",
    )
    assert main(["run"]) == 0
    (task,) = plan(project, [], "cpu", {})
    facts = json.loads(task.facts.read_text())
    assert shown not in facts["modules"]
    assert sorted(facts["shown"]) == [shown, "kempe_nb.notebook.claims"]
    # Imported, and not shown: what it computes counts.
    for change, fresh in ((str, True), (with_comment, True), (with_docstring, True)):
        module("kempe_nb.notebook.figures", change)
        assert is_fresh(task) is fresh
    module("kempe_nb.notebook.figures", with_code)
    assert not is_fresh(task)
    # Shown, imported or not: every letter counts.
    for name in (shown, "kempe_nb.notebook.claims"):
        module(name)
        assert is_fresh(task)
        for change in (with_comment, with_docstring, with_code):
            module(name, change)
            assert not is_fresh(task)
    # Neither: nothing counts.
    module("kempe_nb.kernels.triton.softmax_hessian", with_code)
    assert is_fresh(task)
    # The script of a module belongs to it.
    script = Path(sliders.__file__).with_suffix(".js").read_text(encoding="utf-8")
    module("kempe_nb.notebook.sliders", script=script)
    assert is_fresh(task)
    module("kempe_nb.notebook.sliders", script=script + " ")
    assert not is_fresh(task)


def test_stored_numbers_depend_on_all_but_what_shows_them():
    computes = ["kempe_nb.kernels", "kempe_nb.kernels.triton.philox", "kempe_nb.networks.deep"]
    computes += ["kempe_nb.checks", "kempe_nb.data.digits", "kempe_nb.notebook.profile"]
    shows = ["kempe_nb", "kempe_nb.__main__", "kempe_nb.notebook", "kempe_nb.notebook.figures"]
    shows += ["kempe_nb.publish.sweep", "kempe_nb.notebook.profiles"]
    assert fp.computing([*shows, *computes]) == computes


def test_a_module_that_somebody_is_writing_stops_no_command(module):
    before = fp.code_hashes()
    module("kempe_nb.notebook.figures", lambda text: text + "def (:\n")
    changed = fp.code_hashes()
    assert {n for n in before if before[n] != changed[n]} == {"kempe_nb.notebook.figures"}
