"""The ledger: one page with all claims of the book, which `ledger.js` can filter."""

import ast
from collections import Counter
from html import escape

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from kempe_nb.publish.sphinx.claims import (
    KINDS,
    MARKS,
    UNSORTED,
    anchor_of,
    required,
    verdict_html,
)
from kempe_nb.publish.sphinx.markup import link, table, text
from kempe_nb.publish.sphinx.records import (
    KERNELS,
    all_facts,
    paper_of,
    paper_page,
    paper_title,
    title_of,
)

#: The words beside the counts of a kind; a measurement comes first, as the only evidence.
TOTALS = {
    "measurement": "Measurements (they could have come out otherwise)",
    "identity": "Identities (true by algebra; they guard the code)",
    "consistency": "Consistency checks (two computations of ours agree)",
    "": f"{UNSORTED.capitalize()} (claims older than the kinds)",
}


class LedgerDirective(SphinxDirective):
    """All claims of all notebooks, by chapter and lesson, with their totals before them."""

    def run(self) -> list[nodes.Node]:
        groups = self._groups()
        claims = [c for pages in groups.values() for facts in pages.values() for c in facts]
        titles = {paper: self._title(paper) for paper in groups}
        return [
            totals(claims),
            nodes.raw("", _filter(titles, claims), format="html"),
            *(self._section(paper, titles[paper], pages) for paper, pages in groups.items()),
        ]

    def _groups(self) -> dict[str, dict[str, list[dict]]]:
        """Return the claims by paper and by page; kernels are a group of their own."""
        groups: dict[str, dict[str, list[dict]]] = {}
        for docname, facts in all_facts(self.env).items():
            groups.setdefault(paper_of(docname) or KERNELS, {})[docname] = facts["claims"]
        return groups

    def _title(self, paper: str) -> str:
        return "Kernels" if paper == KERNELS else paper_title(self.env, paper)

    def _section(self, paper: str, title: str, pages: dict[str, list[dict]]) -> nodes.section:
        page = f"{KERNELS}/index" if paper == KERNELS else paper_page(self.env, paper)
        section = self._headed(f"ledger-{paper}", page, title)
        for docname, claims in pages.items():
            content = nodes.raw("", _rows(docname, paper, claims), format="html")
            if docname == page:
                section += content
            else:
                name = f"ledger-{docname.replace('/', '-')}"
                section += self._headed(name, docname, title_of(self.env, docname))
                section[-1] += content
        return section

    def _headed(self, name: str, page: str, title: str) -> nodes.section:
        # A group of pages may have no page of its own.
        known = page in self.env.found_docs
        heading = link(self.env, page, "", title) if known else nodes.Text(title)
        section = nodes.section(
            "", nodes.title("", "", heading), ids=[name], classes=["kempe-ledger"]
        )
        self.state.document.note_explicit_target(section)
        return section


def totals(claims: list[dict]) -> nodes.table:
    """Return the table of how many claims of each kind have each verdict."""
    counts = Counter((claim.get("kind", ""), claim["verdict"]) for claim in claims)
    rows = [
        [text(words), *(text(str(counts[kind, verdict])) for verdict in MARKS)]
        for kind, words in TOTALS.items()
        if any(counts[kind, verdict] for verdict in MARKS)
    ]
    head = ("Claims", *(f"{mark} {verdict}" for verdict, mark in MARKS.items()))
    return table(head, rows, classes=["kempe-totals"])


def _filter(titles: dict[str, str], claims: list[dict]) -> str:
    """Return the controls of the filter, hidden until the script that serves them runs."""
    kinds = {kind or "unsorted": kind or UNSORTED for kind in KINDS}
    choices = {
        "chapter": ("Chapter", titles),
        "kind": ("Kind", kinds),
        "verdict": ("Verdict", {name: f"{mark} {name}" for name, mark in MARKS.items()}),
    }
    controls = "".join(
        f'<label><span>{label}</span> <select name="{name}"><option value="">all</option>'
        + "".join(
            f'<option value="{escape(value)}">{escape(words)}</option>'
            for value, words in options.items()
        )
        + "</select></label>"
        for name, (label, options) in choices.items()
    )
    count = f"{len(claims)} of {len(claims)} claims are shown."
    return (
        f'<form class="kempe-filter" aria-label="Filter the claims" hidden>{controls}</form>'
        f'<p class="kempe-count" role="status" hidden>{count}</p>'
    )


def _rows(docname: str, paper: str, claims: list[dict]) -> str:
    """Return the table of the claims of one page."""
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Claim", "Measured (required)"))
    body = "".join(_row(docname, paper, claim) for claim in claims)
    return (
        '<table class="table kempe-table kempe-claims kempe-stacked">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def own_code(code: str, claim_id: str) -> str:
    """Return the code of a cell without the statements that check its other claims.

    A cell may check a dozen of them, and the ledger would show each a dozen times. Code that does
    not name the claim is returned whole: it makes the name, in a loop for example.
    """
    lines = code.splitlines()
    for statement in reversed(ast.parse(code).body):
        call = getattr(statement, "value", None)
        if (
            isinstance(call, ast.Call)
            and ast.unparse(call.func) == "claims.check"
            and ast.literal_eval(call.args[0]) != claim_id
        ):
            del lines[statement.lineno - 1 : statement.end_lineno]
            # The blank line that stood behind it goes as well.
            if lines[statement.lineno - 1 : statement.lineno] == [""]:
                del lines[statement.lineno - 1]
    kept = "\n".join(lines).strip()
    return kept if claim_id in kept else code.strip()


def _row(docname: str, paper: str, claim: dict) -> str:
    """Return the row of a claim, with its code folded."""
    name, kind = anchor_of(docname, claim["id"]), claim.get("kind", "")
    code = ""
    if claim.get("code"):
        # The anchor stands inside: a browser opens the details that a link leads into.
        code = (
            f"<details><summary>Code</summary><pre><code id='code-{name}'>"
            f"{escape(own_code(claim['code'], claim['id']))}</code></pre></details>"
        )
    said = f"<p>The paper: {escape(claim['paper'])}.</p>" if claim["paper"] else ""
    return (
        f'<tr id="claim-{name}" data-chapter="{escape(paper)}" data-kind="{kind or "unsorted"}" '
        f'data-verdict="{claim["verdict"]}">'
        f"<td><p><code>{claim['id']}</code> {escape(claim['sentence'])} "
        f"<em>Source: {escape(claim['source'])}.</em></p>{code}</td>"
        f"<td><p>{verdict_html(claim['verdict'])}</p>"
        f"<p>{escape(claim['shown'])} ({required(claim)})</p>{said}"
        f'<p class="kempe-kind">{kind or UNSORTED}</p></td></tr>'
    )


def setup(app: Sphinx) -> None:
    """Register the directive."""
    app.add_directive("ledger", LedgerDirective)
