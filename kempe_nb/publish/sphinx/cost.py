"""What a run cost, where and when: `{measured}`, `{stored}` and `{status}`."""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from kempe_nb.publish.sphinx.markup import link, table, text
from kempe_nb.publish.sphinx.records import all_facts, facts_of, load_stored, paper_of

logger = logging.getLogger(__name__)


class MeasuredDirective(SphinxDirective):
    """The line that says what executing this page cost, where and when."""

    def run(self) -> list[nodes.Node]:
        facts = facts_of(self.env, self.env.docname)
        if facts is None:
            logger.warning("this page was not executed", location=self.get_location())
            return []
        line = (
            f"Measured: {duration(facts['seconds'])} and {facts['peak_mib']:.0f} MiB on "
            f"{machine(facts)} (profile {facts['profile']}, {facts['date']}, "
            f"commit {facts['commit']}, kempe_nb on torch {facts['versions']['torch']})."
        )
        return [nodes.paragraph(text=line, classes=["kempe-measured"])]


class StoredDirective(SphinxDirective):
    """The line that says how a stored file of this chapter was made, and whether it still holds."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = f"{paper_of(self.env.docname)}/{self.arguments[0]}"
        told = load_stored(self.env).get(name)
        if told is None:
            logger.warning("no stored runs %r", name, location=self.get_location())
            return []
        line = nodes.paragraph(text=f"Stored runs: {provenance(told)}", classes=["kempe-measured"])
        if told["stale"]:
            line += nodes.strong(text=f" Out of date: {told['stale']}; make results mends it.")
        return [line]


class StatusDirective(SphinxDirective):
    """The table of all executed pages, and the versions that they ran with."""

    def run(self) -> list[nodes.Node]:
        facts = all_facts(self.env)
        head = ("Page", "Cost", "Where and when", "Contents")
        rows = [self._row(docname, entry) for docname, entry in facts.items()]
        versions = {n: v for entry in facts.values() for n, v in entry["versions"].items()}
        listed = [[text(name), text(version)] for name, version in sorted(versions.items())]
        tables = [table(head, rows), table(("Library", "Version"), listed)]
        if stored := load_stored(self.env):
            runs = [
                [text(name), text(provenance(told)), text(told["stale"] or "as its code is")]
                for name, told in stored.items()
            ]
            tables.append(table(("Stored runs", "How they were made", "State"), runs))
        return tables

    def _row(self, docname: str, facts: dict) -> list[list[nodes.Node]]:
        held = sum(claim["verdict"] == "holds" for claim in facts["claims"])
        name = docname.removeprefix("chapters/")
        return [
            [nodes.paragraph("", "", link(self.env, docname, "", name))],
            text(f"{duration(facts['seconds'])}, {facts['peak_mib']:.0f} MiB"),
            text(
                f"{machine(facts)}, profile {facts['profile']}; {facts['date']}, "
                f"commit {facts['commit']}"
            ),
            text(
                f"{held} of {len(facts['claims'])} claims hold; {facts.get('figures', 0)} figures, "
                f"{facts.get('sliders', 0)} figures with sliders"
            ),
        ]


def duration(seconds: float) -> str:
    """Return seconds, or minutes from two of them on."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def machine(facts: dict) -> str:
    """Return the device and the number of CPU cores of a run."""
    cores = facts["cores"]
    return f"{cores} CPU core{'s' if cores != 1 else ''} ({facts.get('device', 'unknown')})"


def provenance(told: dict) -> str:
    """Return in one line how a stored file was made."""
    grid = ", ".join(f"{name} {_span(values)}" for name, values in told["grid"].items())
    cores = max(told["cores"])
    versions = sorted({version["torch"] for version in told["versions"]})
    return (
        f"{told['runs']} runs ({grid}), profile {told['profile']}, {duration(told['seconds'])} in "
        f"all on {', '.join(told['device'])} with {cores} cores, {', '.join(told['date'])}, commit "
        f"{', '.join(told['commit'])}, torch {', '.join(versions)}."
    )


def _span(values: list[str]) -> str:
    """Return "0 to 9" for many integers in a row, and the values themselves otherwise."""
    numbers = [int(value) for value in values if value.lstrip("-").isdigit()]
    in_a_row = numbers == list(range(numbers[0], numbers[0] + len(values))) if numbers else False
    return f"{values[0]} to {values[-1]}" if in_a_row and len(values) > 2 else " and ".join(values)


def setup(app: Sphinx) -> None:
    """Register the directives."""
    app.add_directive("measured", MeasuredDirective)
    app.add_directive("status", StatusDirective)
    app.add_directive("stored", StoredDirective)
