"""Claims in prose: a badge that opens, the table of a chapter, and the check that all are told.

A badge is a link to the claim's row in the ledger. `claims.js` makes it a button that opens the
details, which stand hidden beside it.
"""

from html import escape

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

from kempe_nb.publish.sphinx.markup import address, table, text
from kempe_nb.publish.sphinx.records import (
    CHAPTERS,
    KERNELS,
    facts_of,
    load_facts,
    paper_of,
)

logger = logging.getLogger(__name__)

MARKS = {"holds": "✓", "differs": "≠", "fails": "✗"}
#: What a kind of claim says; only a measurement is evidence. Old claims have no kind yet.
KINDS = {
    "measurement": "it could have come out otherwise",
    "identity": "true by algebra; it guards the code",
    "consistency": "two computations of ours agree",
    "": "",
}
UNSORTED = "not yet sorted"
#: The page with the directive `{ledger}`.
LEDGER = "claims"


class ClaimRole(SphinxRole):
    """``{claim}`id` `` on the claim's own page; elsewhere the id behind its lesson or paper."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        docname, claim = find_claim(self.env, self.text)
        if claim is None:
            warn_of_unknown(self.text, docname, self.get_location())
            return [nodes.inline(text=self.text)], []
        _references(self.env).setdefault(self.env.docname, set()).add((docname, claim["id"]))
        return [claim_badge(self.env, docname, claim)], []


class ClaimsDirective(SphinxDirective):
    """The table of the claims of a page: of its own, or of the one named as in the role."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        where = self.arguments[0] if self.arguments else ""
        docname = page_of(self.env, where)
        facts = facts_of(self.env, docname)
        if facts is None:
            logger.warning("%r was not executed", docname, location=self.get_location())
            return []
        rows = [self._row(claim) for claim in facts["claims"]]
        return [table(("Claim", "Measured (required)"), rows)]

    def _row(self, claim: dict) -> list[list[nodes.Node]]:
        name = nodes.literal(text=claim["id"])
        source = nodes.emphasis(text=f"Source: {claim['source']}.")
        statement = nodes.paragraph("", "", name, nodes.Text(f" {claim['sentence']} "), source)
        value = f"{claim['shown']} ({claim['condition']})"
        measured = [nodes.paragraph("", "", verdict(claim["verdict"])), *text(value)]
        if claim["paper"]:
            measured += text(f"The paper: {claim['paper']}.")
        return [[statement], measured]


def page_of(env: BuildEnvironment, where: str) -> str:
    """Return the page that a name means: a lesson beside this page before a paper."""
    if not where:
        return env.docname
    if where.startswith(f"{KERNELS}/"):
        return where
    found = load_facts(env)
    paper = paper_of(env.docname)
    places = [f"{CHAPTERS}/{where}"]
    if env.docname.startswith(f"{CHAPTERS}/{paper}/"):
        places.insert(0, f"{CHAPTERS}/{paper}/{where}")
    return next((place for place in places if place in found), places[0])


def find_claim(env: BuildEnvironment, name: str) -> tuple[str, dict | None]:
    """Return the page that a name means and its claim, None where it was not executed."""
    where, _, claim_id = name.rpartition("/")
    docname = page_of(env, where)
    facts = facts_of(env, docname) or {"claims": []}
    return docname, next((c for c in facts["claims"] if c["id"] == claim_id), None)


def warn_of_unknown(name: str, docname: str, location) -> None:
    """Warn that a name means no executed claim."""
    claim_id = name.rpartition("/")[2]
    logger.warning("no executed claim %r on page %r", claim_id, docname, location=location)


def claim_badge(env: BuildEnvironment, docname: str, claim: dict) -> nodes.Node:
    """Return a badge with mark, verdict and measured value, and its details beside it."""
    row = address(env, LEDGER, f"claim-{anchor_of(docname, claim['id'])}")
    badge = nodes.reference("", "", internal=True, refuri=row, classes=["kempe-badge"])
    badge += verdict(claim["verdict"])
    if claim["shown"] != "yes":
        badge += nodes.Text(f" {claim['shown']}")
    details = nodes.raw("", _details(env, docname, claim, row), format="html")
    return nodes.inline("", "", badge, details, classes=["kempe-claim"])


def anchor_of(docname: str, claim_id: str) -> str:
    """Return the part of an anchor in the ledger that tells one claim from all others."""
    return f"{docname.replace('/', '-')}-{claim_id}"


def _details(env: BuildEnvironment, docname: str, claim: dict, row: str) -> str:
    """Return what a badge opens, made of spans because it stands inside a paragraph."""
    kind = claim.get("kind", "")
    lines = {
        "": escape(claim["sentence"]),
        "Measured": f"{escape(claim['shown'])} (required: {required(claim)}), "
        + verdict_html(claim["verdict"]),
        "The paper": escape(claim["paper"]),
        "Kind": kind and f"{kind}, {KINDS[kind]}",
        "Source": escape(claim["source"]),
    }
    body = "".join(
        f"<span><b>{name}:</b> {content}</span>" if name else f"<span>{content}</span>"
        for name, content in lines.items()
        if content
    )
    links = f'<a href="{row}">In the ledger</a>'
    if claim.get("code"):
        code = address(env, LEDGER, f"code-{anchor_of(docname, claim['id'])}")
        links += f' <a href="{code}">Code</a>'
    return f'<span class="kempe-details" hidden>{body}<span>{links}</span></span>'


def required(claim: dict) -> str:
    """Return the condition of a claim in HTML, its sign on one line with its bound."""
    return (
        escape(claim["condition"])
        .replace("≤ ", "≤\N{NO-BREAK SPACE}")
        .replace("≥ ", "≥\N{NO-BREAK SPACE}")
    )


def verdict(name: str) -> nodes.Node:
    """Return a verdict as a mark and a word."""
    words = f"{MARKS[name]} {name}"
    return nodes.inline(text=words, classes=["kempe-verdict", f"kempe-{name}"])


def verdict_html(name: str) -> str:
    """Return a verdict as a mark and a word, in HTML."""
    return f'<span class="kempe-verdict kempe-{name}">{MARKS[name]} {name}</span>'


def check_every_claim_is_told(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn about executed claims that the prose of their own page does not refer to."""
    for docname, facts in load_facts(env).items():
        if docname not in env.all_docs:
            continue
        told = _references(env).get(docname, set())
        for claim in facts["claims"]:
            if (docname, claim["id"]) not in told:
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


def _merge_pages(app: Sphinx, env: BuildEnvironment, docnames, other: BuildEnvironment) -> None:
    _references(env).update(_references(other))


def setup(app: Sphinx) -> None:
    """Register the role, the directive and the check."""
    app.add_role("claim", ClaimRole())
    app.add_directive("claims", ClaimsDirective)
    app.connect("env-purge-doc", _forget_page)
    app.connect("env-merge-info", _merge_pages)
    app.connect("env-check-consistency", check_every_claim_is_told)
