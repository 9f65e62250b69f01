"""Run notebooks at seeds that nobody chose: a page has to give the same verdicts at any of them."""

import hashlib
from collections.abc import Mapping

from kempe_nb.publish.checkout import commit, commit_id
from kempe_nb.publish.execute import Task, is_fresh, plan, read_facts, run
from kempe_nb.publish.parameters import declared_parameters
from kempe_nb.publish.project import Project, UsageError


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
    *,
    profile: str = "cpu",
    parameters: Mapping[str, str] | None = None,
    jobs: int = 1,
    force: bool = False,
) -> bool:
    """Run notebooks at seeds derived from the commit, print the verdicts, tell if all are expected.

    Of a chapter, and of the whole book, those notebooks are run that declare a seed.

    Raises
    ------
    UsageError
        When there is no commit, when a notebook that was named declares no seed, or for a number
        of seeds out of range.
    """
    parameters = dict(parameters or {})
    if "seed" in parameters:
        raise UsageError("--seeds chooses the seed; leave out -p seed=...")
    chosen = project.select(names)
    seeded = [name for name, path in chosen.items() if "seed" in declared_parameters(path)]
    without = [name for name in names if name in chosen and name not in seeded]
    if without or not seeded:
        raise UsageError(
            f"{', '.join(without or chosen) or 'the book'} declares no parameter 'seed'; accepted "
            "with --seeds are notebooks that do"
        )
    # All digits: how many a short name has depends on the clone.
    identity = commit_id(project.root)
    if identity == "unknown":
        raise UsageError("--seeds needs a commit to derive them from, and this folder has none")
    seeds = unseen_seeds(identity, count)
    print(f"seeds of commit {commit(project.root)}: {', '.join(map(str, seeds))}", flush=True)
    tasks = [
        task
        for s in seeds
        for task in plan(project, seeded, profile, parameters | {"seed": str(s)})
    ]
    good = run(tasks, jobs=jobs, force=force)
    for name in seeded:
        for line in table_of_verdicts([task for task in tasks if task.name == name]):
            print(line, flush=True)
    return good


def table_of_verdicts(tasks: list[Task]) -> list[str]:
    """Return lines that tell how often each claim of a notebook turned out as it expects."""
    told: list[tuple[int, list[dict]]] = []
    stopped = []
    for task in tasks:
        # A copy that is no longer fresh is that of an earlier run.
        facts = read_facts(task.facts if is_fresh(task) else task.partial_facts)
        claims = (facts or {}).get("claims", [])
        if claims:
            told.append((task.parameters["seed"], claims))
        else:
            stopped.append(str(task.parameters["seed"]))
    lines = [f"{tasks[0].name}: {len(tasks)} seeds"]
    if stopped:
        lines.append(f"  stopped before its claims were told, at seed {', '.join(stopped)}")
    surprises: dict[str, list[str]] = {}
    for seed, claims in told:
        for claim in claims:
            if claim["verdict"] != claim["expected"]:
                case = f"seed {seed}: {claim['shown']} (required {claim['condition']})"
                surprises.setdefault(claim["id"], []).append(case)
    for claim, cases in surprises.items():
        lines.append(f"  {claim}: otherwise in {len(cases)} of {len(told)}; {'; '.join(cases)}")
    if not surprises and not stopped:
        lines.append(f"  all {len(told[0][1])} claims as expected at every seed")
    return lines
