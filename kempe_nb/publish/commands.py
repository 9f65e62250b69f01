"""The commands: `python -m kempe_nb run`, `site`, `sweep`, `results`, `accept` and `new`."""

import argparse
import functools
import os
import subprocess
import sys

from kempe_nb.notebook.profile import PROFILES
from kempe_nb.notebook.results import ResultsError
from kempe_nb.publish.accept import accept
from kempe_nb.publish.confirm import remake
from kempe_nb.publish.execute import plan, run
from kempe_nb.publish.new_lesson import write_lesson
from kempe_nb.publish.project import Project, UsageError
from kempe_nb.publish.seeds import run_at_unseen_seeds
from kempe_nb.publish.site import build_site
from kempe_nb.publish.sweep import plan_sweeps, run_sweep

#: What a command takes.
NAMES = "PAPER, PAPER/N_name or kernels/OPERATION; all by default"


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status: 0 good, 1 failed, 2 misused, 130 interrupted."""
    options = _parser().parse_args(arguments)
    try:
        if os.environ.get("PYTHONOPTIMIZE", "0") not in ("", "0"):
            # Every solution checks itself by an assertion.
            raise UsageError(
                f"PYTHONOPTIMIZE is {os.environ['PYTHONOPTIMIZE']!r}, and kernels would leave out "
                "assertions; accepted is to leave it unset"
            )
        return options.command(options)
    except (UsageError, ResultsError) as error:
        print(f"kempe_nb: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(f"kempe_nb: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("kempe_nb: interrupted; what is finished is kept", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace) -> int:
    parameters = dict(_pair(text) for text in options.parameter)
    project = Project.find()
    if options.seeds is not None:
        good = run_at_unseen_seeds(
            project,
            options.notebook,
            options.seeds,
            profile=options.profile,
            parameters=parameters,
            jobs=options.jobs,
            force=options.force,
        )
        return 0 if good else 1
    tasks = plan(project, options.notebook, options.profile, parameters)
    return 0 if run(tasks, jobs=options.jobs, force=options.force) else 1


def _site(options: argparse.Namespace) -> int:
    project = Project.find()
    page = build_site(project, plan(project, [], options.profile, {}))
    print(f"The book is at {page.as_uri()}")
    return 0


def _sweep(options: argparse.Namespace) -> int:
    project = Project.find()
    grid = dict(_pair(text) for text in options.parameter)
    sweeps = plan_sweeps(
        project,
        options.notebook,
        grid,
        table=options.table,
        profile=options.profile,
        file_name=options.name,
    )
    cluster = {"scheduler": options.scheduler, "jobs": options.jobs}
    return 0 if all([run_sweep(sweep, **cluster) for sweep in sweeps]) else 1


def _results(options: argparse.Namespace) -> int:
    return 0 if remake(Project.find(), scheduler=options.scheduler, jobs=options.jobs) else 1


def _accept(options: argparse.Namespace) -> int:
    for task in plan(Project.find(), options.notebook, "cpu", {}):
        print(f"{task.name}: kept the outputs of {accept(task)} claim cells")
    return 0


def _new(options: argparse.Namespace) -> int:
    for path in write_lesson(Project.find(), options.lesson, options.title, options.question):
        print(f"{path}: written; its gaps are marked TODO")
    return 0


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (equals and name):
        raise UsageError(f"parameter is {text!r}; accepted is name=value")
    return name, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m kempe_nb", description=__doc__)
    # An option is written out: --seed is no --seeds.
    whole = functools.partial(argparse.ArgumentParser, allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=whole)

    executor = commands.add_parser("run", help="execute the notebooks that are out of date")
    executor.add_argument("notebook", nargs="*", help=NAMES)
    executor.add_argument("--profile", default="cpu", help=" or ".join(PROFILES))
    executor.add_argument(
        "-p", dest="parameter", action="append", default=[], metavar="name=value", help="repeatable"
    )
    executor.add_argument("--jobs", type=int, default=1, help="notebooks at a time (CPU only)")
    executor.add_argument("--force", action="store_true", help="execute what is up to date, too")
    executor.add_argument(
        "--seeds", type=int, metavar="N", help="execute at N seeds that nobody chose, and compare"
    )
    executor.set_defaults(command=_run)

    site = commands.add_parser("site", help="build the static site from the executed copies")
    site.add_argument("--profile", default="cpu", help=" or ".join(PROFILES))
    site.set_defaults(command=_site)

    sweep = commands.add_parser("sweep", help="run a notebook over a grid and store what it kept")
    sweep.add_argument("notebook", help="PAPER, or PAPER/N_name")
    sweep.add_argument("--table", help="one table and the cells that it needs; all by default")
    sweep.add_argument("--name", help="name of the file; by default that of the table")
    sweep.add_argument("--profile", default="cpu", help=" or ".join(PROFILES))
    sweep.add_argument(
        *("-p", "--parameter"),
        action="append",
        default=[],
        metavar="name=v1,v2",
        help="repeatable; low:high stands for integers, high excluded",
    )
    sweep.set_defaults(command=_sweep)

    again = commands.add_parser(
        "results", help="confirm what is out of date by a row, or store it again"
    )
    again.set_defaults(command=_results)
    for command in (sweep, again):
        command.add_argument("--scheduler", metavar="ADDRESS", help="a Dask scheduler")
        command.add_argument("--jobs", type=int, help="processes of the local cluster")

    keep = commands.add_parser("accept", help="keep the claim texts of the last run in the sources")
    keep.add_argument("notebook", nargs="*", help=NAMES)
    keep.set_defaults(command=_accept)

    new = commands.add_parser("new", help="write the skeleton of a lesson and its entries")
    new.add_argument("lesson", help="PAPER/N_name")
    new.add_argument("--title", required=True, help="of the lesson")
    new.add_argument("--question", required=True, help="the one that the lesson answers")
    new.set_defaults(command=_new)
    return parser
