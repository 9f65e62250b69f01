"""Which notebooks compute something else than before: what a submission has to try at a new seed.

A submission is compared with its base. Only code counts: a notebook has changed when its code cells
have, or a module that its last run imported, and all have when the pinned libraries have. Prose,
comments and layout change nothing.
"""

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

import nbformat

from kempe_nb.publish.checkout import without_git
from kempe_nb.publish.execute import plan, read_facts
from kempe_nb.publish.project import Project, UsageError, read_notebook
from kempe_nb.publish.staleness import code_hash, fingerprint

#: The commit to compare with; for a submission that none of the rules of `base_commit` finds.
VARIABLE = "KEMPE_NB_BASE"
#: The branch that a pull request is for, as GitHub's runners say it.
PULL_REQUEST = "GITHUB_BASE_REF"
#: The file that pins the libraries.
PINS = "requirements.txt"
#: Seconds within which commits are taken for one submission.
SUBMISSION = 6 * 3600


def changed_notebooks(project: Project, base: str | None = None) -> dict[str, str]:
    """Return the notebooks whose code differs from that of the base, and what differs in each.

    The files as they lie here are compared, so what is not yet committed counts, too.

    Parameters
    ----------
    base : str, optional
        A commit; by default that of `base_commit`. Without one every notebook counts as changed.

    Raises
    ------
    UsageError
        When `base`, or the commit that `KEMPE_NB_BASE` names, is not in this clone.
    """
    base = _known(project, base, "base") if base else base_commit(project)
    found = {}
    for task in plan(project, [], "cpu", {}):
        if base is None:
            found[task.name] = "there is no base to compare with"
        elif reason := _difference(project, base, task.source, read_facts(task.facts)):
            found[task.name] = reason
    return found


def base_commit(project: Project) -> str | None:
    """Return the commit that a submission is compared with, or None where there is none.

    It is the one that `KEMPE_NB_BASE` names; for a pull request, the commit at which it left its
    target; else the last commit of the first parents that is six hours older than the newest one.
    """
    if named := os.environ.get(VARIABLE):
        return _known(project, named, VARIABLE)
    target = os.environ.get(PULL_REQUEST)
    # A shallow clone has no common ancestor, perhaps not even the branch.
    if target and (left := _git(project, "merge-base", "HEAD", f"origin/{target}")):
        return left.decode().strip()
    log = (
        _git(project, "log", "--no-show-signature", "--first-parent", "--format=%H %ct", "HEAD")
        or b""
    ).decode()
    commits = [(name, int(date)) for name, date in map(str.split, log.splitlines())]
    for name, date in commits:
        if date <= commits[0][1] - SUBMISSION:
            return name
    return None


def _known(project: Project, name: str, what: str) -> str:
    found = _git(project, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    if found is None:
        raise UsageError(f"{what} is {name!r}; accepted is a commit of this clone")
    return found.decode().strip()


def _difference(project: Project, base: str, source: Path, facts: Mapping | None) -> str:
    """Return what of a notebook differs from its base, in words; nothing for an equal one."""
    pins = project.root / PINS
    if _git(project, "show", f"{base}:./{PINS}") != (pins.read_bytes() if pins.exists() else None):
        return PINS
    path = source.relative_to(project.root).as_posix()
    before = _git(project, "show", f"{base}:./{path}")
    if before is None:
        return "it is new"
    try:
        old = nbformat.reads(before.decode(), as_version=4)
    except (AttributeError, KeyError, TypeError, ValueError, nbformat.ValidationError):
        return "it was no notebook"
    if fingerprint(old, {}) != fingerprint(read_notebook(source), {}):
        return "its code cells"
    if facts is None or not isinstance(facts.get("modules"), dict):
        return "unknown: no run has told which modules it imports"
    other = [name for name in facts["modules"] if _has_changed(project, base, name)]
    return f"it imports {', '.join(other)}" if other else ""


def _has_changed(project: Project, base: str, module: str) -> bool:
    def then(path: PurePosixPath) -> bytes | None:
        return _git(project, "show", f"{base}:./{path}")

    def now(path: PurePosixPath) -> bytes | None:
        file = project.root / path
        return file.read_bytes() if file.is_file() else None

    return _module_hash(module, then) != _module_hash(module, now)


def _module_hash(module: str, read: Callable[[PurePosixPath], bytes | None]) -> str | None:
    """Return the hash of what a module computes, or None where there is none of this name."""
    place = PurePosixPath(*module.split("."))
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        source = read(path)
        if source is not None:
            return code_hash(source.decode(), read(path.with_suffix(".js")) or b"")
    return None


def _git(project: Project, *words: str) -> bytes | None:
    """Return what git prints in the folder of the project, None where it fails or is missing."""
    how = {"cwd": project.root, "capture_output": True, "env": without_git()}
    try:
        ran = subprocess.run(["git", *words], **how)
    except OSError:
        return None
    return ran.stdout if ran.returncode == 0 else None
