"""Seeds that nobody chose: where they come from, and what is told of them."""

import pytest

from kempe_nb.__main__ import main
from kempe_nb.publish import seeds as module
from kempe_nb.publish.execute import plan
from kempe_nb.publish.project import UsageError
from kempe_nb.publish.seeds import table_of_verdicts, unseen_seeds

#: Holds at the first of the two seeds that the test chooses, and not at the second.
BY_SEED = (
    'claims.check("even", "The seed is even.", seed % 2, at_most=0, source="a test"); '
    'claims.check("small", "One is at most two.", 1, at_most=2, source="a test")'
)


@pytest.fixture
def chosen(monkeypatch):
    """Choose the seeds, in place of the commit."""

    def chosen(*seeds):
        monkeypatch.setattr(module, "unseen_seeds", lambda text, count: list(seeds)[:count])

    return chosen


def test_a_commit_has_its_seeds_and_another_one_others():
    first, again, other = unseen_seeds("a" * 40, 5), unseen_seeds("a" * 40, 5), unseen_seeds("b", 5)
    assert first == again and not set(first) & set(other)
    assert unseen_seeds("a" * 40, 2) == first[:2]


def test_seeds_are_different_and_none_is_one_that_people_choose():
    many = unseen_seeds("a commit", 1_000)
    assert len(set(many)) == 1_000
    assert all(1_000 <= seed < 2**31 for seed in many)


@pytest.mark.parametrize("count", [0, -1, 1_001])
def test_a_number_of_seeds_out_of_range_is_refused(count):
    with pytest.raises(UsageError, match=f"seeds is {count}; accepted is an integer from 1 to"):
        unseen_seeds("a commit", count)


def test_seeds_follow_from_the_whole_commit_and_change_with_it(project, write, git, monkeypatch):
    write("paper/1_start")
    asked = []
    monkeypatch.setattr(module, "run", lambda tasks, **_: asked.append(tasks) or True)
    monkeypatch.setattr(module, "table_of_verdicts", lambda tasks: [])

    def seeds():
        assert main(["run", "--seeds", "3"]) == 0
        return [task.parameters["seed"] for task in asked[-1]]

    first = seeds()
    assert first == unseen_seeds(git("rev-parse", "HEAD"), 3) == seeds()
    # How many digits a short name has is a matter of the clone.
    git("config", "core.abbrev", "20")
    assert seeds() == first
    (project.root / "_toc.yml").write_text("format: jb-book\nroot: other\n")
    assert seeds() == first
    git("commit", "-q", "-a", "-m", "second")
    assert not set(seeds()) & set(first)


def test_force_and_jobs_reach_the_runs(project, write, git, monkeypatch):
    write("paper/1_start")
    given = {}
    monkeypatch.setattr(module, "run", lambda tasks, **options: given.update(options) or True)
    monkeypatch.setattr(module, "table_of_verdicts", lambda tasks: [])
    assert main(["run", "--seeds", "1", "--jobs", "2", "--force"]) == 0
    assert given == {"jobs": 2, "force": True}


@pytest.mark.slow
def test_a_verdict_that_depends_on_the_seed_is_told_and_fails(project, write, git, chosen, capfd):
    write("paper/1_start", claim=BY_SEED)
    write("paper/2_sure")
    chosen(2000, 2001)
    assert main(["run", "--seeds", "2"]) == 1
    out = capfd.readouterr().out
    assert f"seeds of commit {git('rev-parse', '--short', 'HEAD')}: 2000, 2001" in out
    assert "paper/1_start@seed=2001: FAILED" in out
    assert "paper/1_start: 2 seeds\n  even: otherwise in 1 of 2; seed 2001: 1 (required ≤ 0)" in out
    assert "paper/2_sure: 2 seeds\n  all 1 claims as expected at every seed" in out
    chosen(2000, 2002)
    assert main(["run", "paper/1_start", "--seeds", "2"]) == 0
    out = capfd.readouterr().out
    assert "paper/1_start@seed=2000: up to date" in out
    assert "paper/1_start: 2 seeds\n  all 2 claims as expected at every seed" in out


@pytest.mark.slow
def test_what_an_earlier_run_told_is_not_told_again(project, write, git, chosen, capfd):
    chosen(2000, 2001)
    write("paper/1_start", claim=BY_SEED)
    assert main(["run", "--seeds", "2"]) == 1
    # Now both runs stop before a claim; a good copy and the facts of a failed run lie there.
    write("paper/1_start", "1 / 0", claim=BY_SEED)
    capfd.readouterr()
    assert main(["run", "--seeds", "2"]) == 1
    out = capfd.readouterr().out
    assert "stopped before its claims were told, at seed 2000, 2001" in out
    assert "otherwise in" not in out and "as expected" not in out
    tasks = [plan(project, [], "cpu", {"seed": seed})[0] for seed in ("2000", "2001")]
    assert [task.copy.exists() for task in tasks] == [True, False]
    assert table_of_verdicts(tasks)[1:] == [
        "  stopped before its claims were told, at seed 2000, 2001"
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["paper/2_plain"], "paper/2_plain declares no parameter 'seed'; accepted with --seeds"),
        (["other"], "other/1_plain declares no parameter 'seed'"),
        (["paper/1_start", "paper/2_plain"], "paper/2_plain declares no parameter 'seed'"),
        (["paper/1_start", "-p", "seed=3"], "--seeds chooses the seed; leave out -p seed="),
        (["nowhere"], "notebook is 'nowhere'"),
    ],
)
def test_what_has_no_seed_to_choose_is_refused(project, write, git, capfd, arguments, message):
    write("paper/1_start")
    for name in ("paper/2_plain", "other/1_plain"):
        write(name, parameters='profile = "cpu"')
    assert main(["run", *arguments, "--seeds", "2"]) == 2
    assert message in capfd.readouterr().err
    assert not project.build.exists()


def test_without_a_commit_there_is_nothing_to_derive_them_from(project, write, capfd):
    write("paper/1_start")
    assert main(["run", "--seeds", "2"]) == 2
    assert "--seeds needs a commit to derive them from" in capfd.readouterr().err
