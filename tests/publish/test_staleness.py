"""What makes an executed copy stale, and what does not."""

import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook

from kempe_nb.publish import staleness as fp

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
