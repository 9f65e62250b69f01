"""The command line: `python -m kempe_nb run`, `site` and `accept`."""

import argparse
import subprocess
import sys

from kempe_nb.notebook.profile import PROFILES
from kempe_nb.publish.accept import accept
from kempe_nb.publish.execute import plan, run
from kempe_nb.publish.project import Project, UsageError
from kempe_nb.publish.site import build_site


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status: 0 good, 1 failed, 2 misused, 130 interrupted."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except UsageError as error:
        print(f"kempe_nb: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(f"kempe_nb: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("kempe_nb: interrupted; finished chapters are kept", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace) -> int:
    parameters = dict(_pair(text) for text in options.parameter)
    tasks = plan(Project.find(), options.chapter, options.profile, parameters)
    return 0 if run(tasks, jobs=options.jobs, force=options.force) else 1


def _site(options: argparse.Namespace) -> int:
    project = Project.find()
    page = build_site(project, plan(project, [], options.profile, {}))
    print(f"The book is at {page.as_uri()}")
    return 0


def _accept(options: argparse.Namespace) -> int:
    for task in plan(Project.find(), options.chapter, "cpu", {}):
        print(f"{task.name}: kept the outputs of {accept(task)} claim cells")
    return 0


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (equals and name):
        raise UsageError(f"parameter is {text!r}; accepted is name=value")
    return name, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m kempe_nb", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    executor = commands.add_parser("run", help="execute the chapters that are out of date")
    executor.add_argument("chapter", nargs="*", help="names of chapters; all by default")
    executor.add_argument("--profile", default="cpu", help=" or ".join(PROFILES))
    executor.add_argument(
        "-p", dest="parameter", action="append", default=[], metavar="name=value", help="repeatable"
    )
    executor.add_argument("--jobs", type=int, default=1, help="chapters at a time (CPU only)")
    executor.add_argument("--force", action="store_true", help="execute what is up to date, too")
    executor.set_defaults(command=_run)

    site = commands.add_parser("site", help="build the static site from the executed copies")
    site.add_argument("--profile", default="cpu", help=" or ".join(PROFILES))
    site.set_defaults(command=_site)

    keep = commands.add_parser("accept", help="keep the claim texts of the last run in the sources")
    keep.add_argument("chapter", nargs="*", help="names of chapters; all by default")
    keep.set_defaults(command=_accept)
    return parser


if __name__ == "__main__":
    sys.exit(main())
