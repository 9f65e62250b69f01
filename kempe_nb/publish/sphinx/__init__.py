"""The Sphinx extension of the book; all that it shows comes from the records of runs.

`claims` renders claims in prose and `ledger` all of them on one page; `cost` says what a run took
and where; `chapters` makes the opening pages of the book and of a paper; `speed` and
`speed_summary` show the benchmarks; `numbering` begins the numbers of theorems again on each page.
"""

import hashlib
from pathlib import Path

from sphinx.application import Sphinx

from kempe_nb.notebook import figures
from kempe_nb.publish.sphinx import chapters, claims, cost, ledger, numbering, speed, speed_summary
from kempe_nb.publish.sphinx.records import names_of_records


def _sources_hash(folder: Path) -> str:
    """Return the hash of what all pages depend on: this extension and the site's static files.

    The names of the records belong to it: a name in prose may mean another page when there is a
    new one.
    """
    own = [*sorted(Path(__file__).parent.glob("*.py")), Path(figures.__file__)]
    files = [*own, *sorted(p for p in folder.glob("_static/**/*") if p.is_file())]
    content = b"".join(file.read_bytes() for file in files)
    return hashlib.sha256(content + repr(names_of_records(folder)).encode()).hexdigest()


def _mend_bibliography(app: Sphinx, page: str, template: str, context: dict, doctree) -> None:
    """Drop the role "list" that docutils gives a bibliography: its entries are no list items."""
    markup = '<div role="list" class="citation-list">'
    if "body" in context:
        context["body"] = context["body"].replace(markup, "<div>")


def setup(app: Sphinx) -> dict:
    """Register everything."""
    # Sphinx rebuilds when a configuration value changes; it does not watch these files.
    app.add_config_value("kempe_nb_sources", _sources_hash(Path(app.confdir)), "env", types=[str])
    for module in (chapters, claims, cost, ledger, numbering, speed, speed_summary):
        module.setup(app)
    app.connect("html-page-context", _mend_bibliography)
    return {"version": "2", "parallel_read_safe": True, "parallel_write_safe": True}
