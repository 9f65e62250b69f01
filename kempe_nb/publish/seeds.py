"""Run notebooks at seeds that nobody chose: a page has to give the same verdicts at any of them."""

import hashlib
from collections.abc import Mapping

from kempe_nb.publish.checkout import commit
from kempe_nb.publish.execute import Task, plan, read_facts, run
from kempe_nb.publish.project import Project, UsageError, declared_parameters


def unseen_seeds(text: str, count: int) -> list[int]:
    """Return seeds that follow from a text, the commit: nobody can have tried them before.

    Parameters
    ----------
    text : str
    count : int
        From 1 to 1,000.

    Returns
    -------
    list of int
        Different ones, from 1,000 to 2^31 - 1: smaller ones are for runs that are chosen by hand.
    """
    if not 1 <= count <= 1_000:
        raise UsageError(f"seeds is {count}; accepted is an integer from 1 to 1000")
    seeds: dict[int, None] = {}
    number = 0
    while len(seeds) < count:
        digest = hashlib.sha256(f"{text} {number}".encode()).digest()
        seeds[1_000 + int.from_bytes(digest[:8], "big") % (2**31 - 1_000)] = None
        number += 1
    return list(seeds)


def run_at_unseen_seeds(
    project: Project,
    names: list[str],
    count: int,
    profile: str = "cpu",
    parameters: Mapping[str, str] | None = None,
    jobs: int = 1,
) -> bool:
    """Run notebooks at seeds derived from the commit, print the verdicts, tell if all are expected.

    Without names, all notebooks that declare a seed are run.
    """
    parameters = dict(parameters or {})
    if "seed" in parameters:
        raise UsageError("--seeds chooses the seed; leave out -p seed=...")
    chosen = project.select(names)
    seeded = [name for name, path in chosen.items() if "seed" in declared_parameters(path)]
    if not seeded:
        raise UsageError(f"{', '.join(chosen)} declares no parameter 'seed'")
    name = commit(project.root)
    seeds = unseen_seeds(name.removesuffix("-dirty"), count)
    print(f"seeds of commit {name}: {', '.join(map(str, seeds))}", flush=True)
    tasks = [
        task
        for s in seeds
        for task in plan(project, seeded, profile, parameters | {"seed": str(s)})
    ]
    good = run(tasks, jobs=jobs)
    for name in seeded:
        for line in table_of_verdicts([task for task in tasks if task.name == name]):
            print(line, flush=True)
    return good


def table_of_verdicts(tasks: list[Task]) -> list[str]:
    """Return lines that tell how often each claim of a notebook turned out as it expects."""
    runs = [(task, read_facts(task.facts) or read_facts(task.partial_facts)) for task in tasks]
    stopped = [task.parameters["seed"] for task, facts in runs if not (facts or {}).get("claims")]
    told = [(task.parameters["seed"], facts) for task, facts in runs if (facts or {}).get("claims")]
    lines = [f"{tasks[0].name}: {len(tasks)} seeds"]
    if stopped:
        lines.append(
            f"  stopped before its claims were told, at seed {', '.join(map(str, stopped))}"
        )
    surprises: dict[str, list[str]] = {}
    for seed, facts in told:
        for claim in facts["claims"]:
            if claim["verdict"] != claim["expected"]:
                case = f"seed {seed}: {claim['shown']} (required {claim['condition']})"
                surprises.setdefault(claim["id"], []).append(case)
    for claim, cases in surprises.items():
        lines.append(f"  {claim}: otherwise in {len(cases)} of {len(told)}; {'; '.join(cases)}")
    if not surprises and not stopped:
        lines.append(f"  all {len(told[0][1]['claims'])} claims as expected at every seed")
    return lines
