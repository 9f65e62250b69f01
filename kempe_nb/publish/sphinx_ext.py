"""The Sphinx extension of the book: claims in prose, their tables, and what a run measured.

`{claim}` renders the verdict and the value of an executed claim; `{claims}` the table of a chapter;
`{measured}` the line of cost at the top of a chapter; `{status}` the table of all runs; `{speed}`
(in `speed`) the benchmarks of an operation; `{stored}` where a stored file comes from. All of them
read the facts that a run wrote, so nothing here is typed by hand.
"""

import hashlib
import json
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

from kempe_nb.publish.stage import RECORDS, STORED

logger = logging.getLogger(__name__)

MARKS = {"holds": "✓", "differs": "≠", "fails": "✗"}


def load_facts(app: Sphinx) -> dict[str, dict]:
    """Return the facts of all staged chapters by name."""
    files = sorted((Path(app.srcdir) / RECORDS).glob("*.json"))
    return {file.stem: json.loads(file.read_text()) for file in files}


def load_stored(env: BuildEnvironment) -> dict[str, dict]:
    """Return the provenance of the stored runs by "chapter/name"; the page depends on it."""
    file = Path(env.srcdir) / RECORDS / STORED
    env.note_dependency(str(file))
    return json.loads(file.read_text()) if file.exists() else {}


def chapter_of(env: BuildEnvironment, docname: str) -> str:
    """Return the chapter's name of a page below chapters/, or an empty string."""
    folder, _, name = docname.rpartition("/")
    return name if folder == "chapters" else ""


class _Facts:
    """What the role and the directives share: the facts, and the page's dependence on them."""

    def facts(self, chapter: str) -> dict | None:
        file = Path(self.env.srcdir) / RECORDS / f"{chapter}.json"
        self.env.note_dependency(str(file))
        return load_facts(self.env.app).get(chapter)

    def own_chapter(self) -> str:
        return chapter_of(self.env, self.env.docname)


class ClaimRole(_Facts, SphinxRole):
    """``{claim}`id` `` in a chapter, ``{claim}`chapter/id` `` elsewhere."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        chapter, _, claim_id = self.text.rpartition("/")
        chapter = chapter or self.own_chapter()
        facts = self.facts(chapter)
        claim = next((c for c in (facts or {}).get("claims", []) if c["id"] == claim_id), None)
        if claim is None:
            logger.warning(
                "no executed claim %r in chapter %r",
                claim_id,
                chapter,
                location=self.get_location(),
            )
            return [nodes.inline(text=self.text)], []
        _references(self.env).setdefault(self.env.docname, set()).add((chapter, claim_id))
        return [claim_badge(self.env, chapter, claim)], []


class ClaimsDirective(_Facts, SphinxDirective):
    """The table of the claims of a chapter: of the page's own, or of the one named."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        chapter = self.arguments[0] if self.arguments else self.own_chapter()
        facts = self.facts(chapter)
        if facts is None:
            logger.warning("chapter %r was not executed", chapter, location=self.get_location())
            return []
        own = chapter == self.own_chapter()
        rows = [self._row(claim, own) for claim in facts["claims"]]
        return [table(("Claim", "Measured (required)"), rows)]

    def _row(self, claim: dict, own: bool) -> list[list[nodes.Node]]:
        name = nodes.literal(text=claim["id"])
        source = nodes.emphasis(text=f"Source: {claim['source']}.")
        statement = nodes.paragraph("", "", name, nodes.Text(f" {claim['sentence']} "), source)
        if own:
            statement["ids"].append(f"claim-{claim['id']}")
        value = f"{claim['shown']} ({claim['condition']})"
        measured = [nodes.paragraph("", "", _verdict(claim)), *_text(value)]
        if claim["paper"]:
            measured += _text(f"The paper: {claim['paper']}.")
        return [[statement], measured]


class MeasuredDirective(_Facts, SphinxDirective):
    """The line that says what executing this page cost, where and when."""

    def run(self) -> list[nodes.Node]:
        facts = self.facts(self.own_chapter())
        if facts is None:
            logger.warning("this page was not executed", location=self.get_location())
            return []
        text = (
            f"Measured: {duration(facts['seconds'])} and {facts['peak_mib']:.0f} MiB on "
            f"{machine(facts)} (profile {facts['profile']}, {facts['date']}, "
            f"commit {facts['commit']}, kempe_nb on torch {facts['versions']['torch']})."
        )
        return [nodes.paragraph(text=text, classes=["kempe-measured"])]


class StoredDirective(_Facts, SphinxDirective):
    """The line that says how a stored file of this chapter was made, and whether it still holds."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = f"{self.own_chapter()}/{self.arguments[0]}"
        told = load_stored(self.env).get(name)
        if told is None:
            logger.warning("no stored runs %r", name, location=self.get_location())
            return []
        line = nodes.paragraph(text=f"Stored runs: {provenance(told)}", classes=["kempe-measured"])
        if told["stale"]:
            line += nodes.strong(text=f" Out of date: {told['stale']}; make results mends it.")
        return [line]


class StatusDirective(SphinxDirective):
    """The table of all executed chapters, and the versions that they ran with."""

    def run(self) -> list[nodes.Node]:
        facts = load_facts(self.env.app)
        for chapter in facts:
            self.env.note_dependency(str(Path(self.env.srcdir) / RECORDS / f"{chapter}.json"))
        head = ("Chapter", "Cost", "Where and when", "Contents")
        rows = [self._row(chapter, entry) for chapter, entry in facts.items()]
        versions = {n: v for entry in facts.values() for n, v in entry["versions"].items()}
        listed = [[_text(name), _text(version)] for name, version in sorted(versions.items())]
        tables = [table(head, rows), table(("Library", "Version"), listed)]
        if stored := load_stored(self.env):
            runs = [
                [_text(name), _text(provenance(told)), _text(told["stale"] or "as its code is")]
                for name, told in stored.items()
            ]
            tables.append(table(("Stored runs", "How they were made", "State"), runs))
        return tables

    def _row(self, chapter: str, facts: dict) -> list[list[nodes.Node]]:
        held = sum(claim["verdict"] == "holds" for claim in facts["claims"])
        link = _link(self.env, f"chapters/{chapter}", "", chapter)
        return [
            [nodes.paragraph("", "", link)],
            _text(f"{duration(facts['seconds'])}, {facts['peak_mib']:.0f} MiB"),
            _text(
                f"{machine(facts)}, profile {facts['profile']}; {facts['date']}, "
                f"commit {facts['commit']}"
            ),
            _text(
                f"{held} of {len(facts['claims'])} claims hold; {facts.get('figures', 0)} figures, "
                f"{facts.get('sliders', 0)} figures with sliders"
            ),
        ]


def claim_badge(env: BuildEnvironment, chapter: str, claim: dict) -> nodes.Node:
    """Return the badge of a claim: mark, verdict and measured value, linked to its table row."""
    badge = _link(env, f"chapters/{chapter}", f"claim-{claim['id']}", "")
    badge["reftitle"] = f"{claim['sentence']} Required: {claim['condition']}."
    badge["classes"].append("kempe-badge")
    badge += _verdict(claim)
    if claim["shown"] != "yes":
        badge += nodes.Text(f" {claim['shown']}")
    return badge


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


def table(head, rows) -> nodes.table:
    """Return a docutils table of a header and rows of cells.

    A cell is a list of nodes, or an `entry` where it has to span several columns.
    """
    group = nodes.tgroup(cols=len(head))
    group += [nodes.colspec(colwidth=1) for _ in head]
    group += nodes.thead("", _table_row([_text(name) for name in head]))
    group += nodes.tbody("", *[_table_row(row) for row in rows])
    return nodes.table("", group, classes=["kempe-table", "colwidths-auto"])


def check_every_claim_is_told(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn about executed claims that the prose of their chapter does not refer to."""
    told = _references(env)
    for chapter, facts in load_facts(app).items():
        docname = f"chapters/{chapter}"
        if docname not in env.all_docs:
            continue
        for claim in facts["claims"]:
            if (chapter, claim["id"]) not in told.get(docname, set()):
                logger.warning(
                    "the claim %r is executed but no {claim} role refers to it",
                    claim["id"],
                    location=docname,
                )


def _references(env: BuildEnvironment) -> dict[str, set]:
    """Return the claims that each page refers to; kept with Sphinx's own environment."""
    if not hasattr(env, "kempe_claims_told"):
        env.kempe_claims_told = {}
    return env.kempe_claims_told


def _forget_page(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    _references(env).pop(docname, None)


def _sources_hash(folder: Path) -> str:
    """Return the hash of this extension, of the site's static files and of the chapters' names."""
    own = [Path(__file__), Path(__file__).with_name("speed.py")]
    files = [*own, *sorted(p for p in folder.glob("_static/**/*") if p.is_file())]
    chapters = [file.name for file in sorted((folder / RECORDS).glob("*.json"))]
    content = b"".join(file.read_bytes() for file in files) + repr(chapters).encode()
    return hashlib.sha256(content).hexdigest()


def _mend_bibliography(app: Sphinx, page: str, template: str, context: dict, doctree) -> None:
    """Drop the role "list" that docutils gives a bibliography: its entries are no list items."""
    markup = '<div role="list" class="citation-list">'
    if "body" in context:
        context["body"] = context["body"].replace(markup, "<div>")


def _merge_pages(app: Sphinx, env: BuildEnvironment, docnames, other: BuildEnvironment) -> None:
    _references(env).update(_references(other))


def _verdict(claim: dict) -> nodes.Node:
    text = f"{MARKS[claim['verdict']]} {claim['verdict']}"
    return nodes.inline(text=text, classes=["kempe-verdict", f"kempe-{claim['verdict']}"])


def _link(env: BuildEnvironment, docname: str, anchor: str, text: str) -> nodes.reference:
    address = env.app.builder.get_relative_uri(env.docname, docname)
    address = "#" + anchor if docname == env.docname else f"{address}#{anchor}".rstrip("#")
    return nodes.reference("", text, internal=True, refuri=address)


def _text(text: str) -> list[nodes.Node]:
    return [nodes.paragraph(text=text)]


def _table_row(cells) -> nodes.row:
    entries = [c if isinstance(c, nodes.entry) else nodes.entry("", *c) for c in cells]
    return nodes.row("", *entries)


def setup(app: Sphinx) -> dict:
    """Register the role, the directives and the check."""
    # Sphinx rebuilds when a configuration value changes; it does not watch these files.
    app.add_config_value("kempe_nb_sources", _sources_hash(Path(app.confdir)), "env", types=[str])
    app.add_role("claim", ClaimRole())
    app.add_directive("claims", ClaimsDirective)
    app.add_directive("measured", MeasuredDirective)
    app.add_directive("status", StatusDirective)
    app.add_directive("stored", StoredDirective)
    app.setup_extension("kempe_nb.publish.speed")
    app.connect("env-purge-doc", _forget_page)
    app.connect("env-merge-info", _merge_pages)
    app.connect("env-check-consistency", check_every_claim_is_told)
    app.connect("html-page-context", _mend_bibliography)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
