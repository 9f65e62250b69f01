"""The command line, `python -m kempe_nb`: see `kempe_nb.publish.commands`."""

import sys


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status; say what is missing without the extra `book`."""
    try:
        from kempe_nb.publish import commands
    except ModuleNotFoundError as error:
        if error.name.split(".")[0] == "kempe_nb":
            raise
        print(
            f"kempe_nb: {error.name} is not installed; the commands need the extra book: "
            'pip install "kempe-nb[book]"',
            file=sys.stderr,
        )
        return 2
    return commands.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
