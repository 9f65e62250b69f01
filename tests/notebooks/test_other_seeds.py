"""Notebooks at another seed: the same verdicts from other numbers.

Only a notebook whose code a submission changes is run: the same code gave the same verdicts when
its base was tested. A lesson runs at a seed that follows from the commit, so that nobody can have
tried it before; pytest prints the seed in its first lines. A chapter of the old form, which would
fail there, runs at seed 1. Good copies are kept.
"""

import functools

import pytest

from kempe_nb.publish.changed import base_commit, changed_notebooks
from kempe_nb.publish.checkout import commit_id
from kempe_nb.publish.execute import plan, read_facts, run
from kempe_nb.publish.parameters import declared_parameters
from kempe_nb.publish.seeds import table_of_verdicts, unseen_seeds
from tests.notebooks.book import LESSONS, NOTEBOOKS, OLD_FORM, PROJECT, each_old_form, facts_of

pytestmark = pytest.mark.slow


@functools.cache
def changed():
    return changed_notebooks(PROJECT)


def run_at(name, seed):
    """Run a notebook at a seed and print what it found; return its facts, None if it failed."""
    tasks = plan(PROJECT, [name], "cpu", {"seed": str(seed)})
    good = run(tasks, progress=False)
    print("\n".join(table_of_verdicts(tasks)))
    return read_facts(tasks[0].facts) if good else None


def verdicts(facts):
    return [(claim["id"], claim["verdict"]) for claim in facts["claims"]]


def measured(facts):
    return [claim["measured"] for claim in facts["claims"]]


def skip_if_unchanged(name):
    if name not in changed():
        pytest.skip(f"{name}: its code is that of the base, {base_commit(PROJECT)[:10]}")


@each_old_form
def test_a_changed_chapter_in_the_old_form_gives_the_same_verdicts_at_seed_1(name, capsys):
    skip_if_unchanged(name)
    default, other = facts_of(name), run_at(name, 1)
    assert other is not None, f"what changed: {changed()[name]}\n{capsys.readouterr().out}"
    assert verdicts(other) == verdicts(default)
    assert measured(other) != measured(default)


@pytest.mark.parametrize("name", [name for name in NOTEBOOKS if name not in OLD_FORM])
def test_changed_code_gives_the_expected_verdicts_at_a_seed_that_nobody_chose(name, capsys):
    if "seed" not in declared_parameters(NOTEBOOKS[name]):
        assert name not in LESSONS, "a lesson declares a seed"
        pytest.skip(f"{name} declares no seed")
    skip_if_unchanged(name)
    default = facts_of(name)
    (seed,) = unseen_seeds(commit_id(PROJECT.root), 1)
    other = run_at(name, seed)
    because = f"seed {seed}; what changed: {changed()[name]}"
    assert other is not None, f"{because}\n{capsys.readouterr().out}"
    assert verdicts(other) == verdicts(default)
    assert measured(other) != measured(default)
