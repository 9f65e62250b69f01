"""Opening pages: the map of the book and the first page of a paper, filled from the records.

`{chapters}` makes the cards of the book's first page. On the first page of a paper `{is-it-true}`
puts what the paper says beside what the claims found, `{lessons}` lists the lessons with the time
that they took, and `{picture}` shows a figure that a lesson made. The content of the first three is
YAML; its texts may hold roles.
"""

import re
from collections import Counter
from collections.abc import Iterable

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from kempe_nb.publish.sphinx.claims import MARKS, find_claim, page_of, warn_of_unknown
from kempe_nb.publish.sphinx.cost import duration
from kempe_nb.publish.sphinx.markup import link, table, text
from kempe_nb.publish.sphinx.records import (
    CHAPTERS,
    facts_of,
    lessons_of,
    paper_of,
    paper_page,
    title_of,
)

logger = logging.getLogger(__name__)

#: Verdicts on what a paper says: those of its claims, and two that only several or none can have.
SAID = MARKS | {"partly": "◐", "not tested": "○"}
#: How a number of claims with a verdict is said.
COUNTED = {"holds": "hold", "differs": "differ", "fails": "fail"}


class _FromYaml(SphinxDirective):
    """A directive whose content is a list of entries in YAML."""

    has_content = True
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    def entries(self) -> list[dict]:
        """Return the entries; a mistake in them is an error of the build that names it."""
        try:
            found = yaml.safe_load("\n".join(self.content))
        except yaml.YAMLError as error:
            raise self.error(f"{self.name}: {error}") from None
        if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
            raise self.error(f"{self.name} needs a list of entries, each with {self.required}")
        for number, entry in enumerate(found, start=1):
            missing = [name for name in self.required if not entry.get(name)]
            unknown = sorted(set(entry) - {*self.required, *self.optional})
            if missing or unknown:
                accepted = ", ".join((*self.required, *self.optional))
                raise self.error(
                    f"{self.name}, entry {number}: missing {missing}, unknown {unknown}; "
                    f"accepted are {accepted}"
                )
        return found

    def inline(self, content: str) -> list[nodes.Node]:
        """Return a paragraph of a text that may hold roles."""
        parsed, messages = self.state.inline_text(str(content).strip(), self.lineno)
        return [nodes.paragraph("", "", *parsed), *messages]

    def warn(self, message: str, *values) -> None:
        logger.warning(message, *values, location=self.get_location())


class IsItTrueDirective(_FromYaml):
    """What a paper says, what we found, and the verdict of the claims that tested it.

    A claim in `against` says the opposite of the paper: where it holds, the paper's statement
    differs from what we found; where it does not, neither side has it, and the verdict is "partly".
    """

    required = ("paper", "known", "found")
    optional = ("claims", "against", "verdict")

    def run(self) -> list[nodes.Node]:
        head = ("The paper says", "We found", "Verdict", "Where")
        rows = [self._row(entry) for entry in self.entries()]
        return [table(head, rows, classes=["kempe-true", "kempe-stacked"])]

    def _row(self, entry: dict) -> list[list[nodes.Node]]:
        names, against = entry.get("claims") or [], entry.get("against") or []
        tested = names or against
        if entry.get("verdict", "not tested") != "not tested" or (tested and entry.get("verdict")):
            raise self.error(
                f"verdict is {entry['verdict']!r}: the claims decide; accepted is only "
                "'not tested', and no claims beside it"
            )
        if both := set(names) & set(against):
            raise self.error(f"{sorted(both)} in claims and in against; accepted is one of the two")
        found = {name: find_claim(self.env, name) for name in (*names, *against)}
        for name, (docname, claim) in found.items():
            if claim is None:
                warn_of_unknown(name, docname, self.get_location())
        known = {name: place for name, place in found.items() if place[1]}
        verdict = verdict_of(
            against_paper(claim["verdict"]) if name in against else claim["verdict"]
            for name, (_, claim) in known.items()
        )
        mark = nodes.inline(
            text=f"{SAID[verdict]} {verdict}",
            classes=["kempe-verdict", f"kempe-{verdict.replace(' ', '-')}"],
        )
        pages = dict.fromkeys(docname for docname, _ in known.values())
        where = [
            nodes.paragraph("", "", link(self.env, page, "", title_of(self.env, page)))
            for page in pages
        ]
        said = self.inline(entry["paper"])
        said += [nodes.paragraph(text=f"Known from: {entry['known']}.", classes=["kempe-known"])]
        return [said, self.inline(entry["found"]), [nodes.paragraph("", "", mark)], where]


def against_paper(verdict: str) -> str:
    """Return what the verdict of a claim that says the opposite is for the paper's statement."""
    return "differs" if verdict == "holds" else "partly"


def verdict_of(verdicts: Iterable[str]) -> str:
    """Return the common verdict of claims, "partly" for a mixture, "not tested" for none."""
    different = set(verdicts)
    if not different:
        return "not tested"
    return different.pop() if len(different) == 1 else "partly"


class LessonsDirective(_FromYaml):
    """The lessons of a paper with the time that each took."""

    required = ("lesson", "question")
    optional = ("needs",)

    def run(self) -> list[nodes.Node]:
        rows = [row for entry in self.entries() if (row := self._row(entry))]
        head = ("Lesson", "Question", "Time", "You need first")
        return [table(head, rows, classes=["kempe-lessons", "kempe-stacked"])]

    def _row(self, entry: dict) -> list[list[nodes.Node]] | None:
        docname = f"{CHAPTERS}/{paper_of(self.env.docname)}/{entry['lesson']}"
        facts = facts_of(self.env, docname)
        if facts is None:
            self.warn("lesson %r was not executed", docname)
            return None
        name = link(self.env, docname, "", title_of(self.env, docname))
        return [
            [nodes.paragraph("", "", name)],
            self.inline(entry["question"]),
            text(duration(facts["seconds"])),
            self.inline(entry["needs"]) if entry.get("needs") else text("nothing"),
        ]


class ChaptersDirective(_FromYaml):
    """The cards of the chapters: picture, title, question, time, and how its claims came out."""

    required = ("chapter", "title", "question")
    optional = ("picture", "paper", "planned")

    def run(self) -> list[nodes.Node]:
        cards = nodes.bullet_list(classes=["kempe-cards"])
        cards += [nodes.list_item("", *self._card(entry)) for entry in self.entries()]
        return [cards]

    def _card(self, entry: dict) -> list[nodes.Node]:
        paper, title = entry["chapter"], entry["title"]
        facts = {} if entry.get("planned") else lessons_of(self.env, paper)
        if not facts and not entry.get("planned"):
            self.warn("chapter %r was not executed", paper)
        name = link(self.env, paper_page(self.env, paper), "", title) if facts else None
        card: list[nodes.Node] = []
        if facts and entry.get("picture"):
            card += self._picture(paper, entry["picture"])
        name = name or nodes.Text(title)
        card.append(nodes.paragraph("", "", name, classes=["kempe-card-title"]))
        card += self.inline(entry["question"])
        if entry.get("paper"):
            card += self.inline(entry["paper"])
        line = "Planned." if entry.get("planned") else _outcome(facts)
        return [*card, nodes.paragraph(text=line, classes=["kempe-measured"])]

    def _picture(self, paper: str, name: str) -> list[nodes.Node]:
        lesson, _, figure = name.rpartition("/")
        docname = "/".join(filter(None, (CHAPTERS, paper, lesson)))
        markup = figure_markup(self, docname, figure)
        if markup is None:
            return []
        # A card has the picture and its description; the caption belongs to the lesson.
        bare = re.sub(r"<figcaption>.*?</figcaption>", "", markup, flags=re.S)
        bare = re.sub(r"<figure [^>]*>", '<div class="kempe-card-picture">', bare)
        return [nodes.raw("", bare.replace("</figure>", "</div>"), format="html")]


def _outcome(facts: dict[str, dict]) -> str:
    """Return in one line what executing a chapter took and how its claims came out."""
    claims = [claim for entry in facts.values() for claim in entry["claims"]]
    # Claims of other kinds cannot come out otherwise; old claims have no kind.
    measured = [claim for claim in claims if claim.get("kind") == "measurement"]
    verdicts = Counter(claim["verdict"] for claim in measured or claims)
    counts = ", ".join(
        f"{MARKS[verdict]} {verdicts[verdict]} {verdict if verdicts[verdict] == 1 else many}"
        for verdict, many in COUNTED.items()
        if verdicts[verdict]
    )
    seconds = duration(sum(entry["seconds"] for entry in facts.values()))
    ran = f"{len(facts)} lessons ran" if len(facts) > 1 else "Ran"
    kind = "measurement" if measured else "claim"
    number = f"{verdicts.total()} {kind}{'' if verdicts.total() == 1 else 's'}"
    return f"{ran} in {seconds}. Of {number}: {counts}."


class PictureDirective(SphinxDirective):
    """A figure that another page made and named, with its caption: `N_name/figure-name`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        where, _, name = self.arguments[0].rpartition("/")
        markup = figure_markup(self, page_of(self.env, where), name)
        return [] if markup is None else [nodes.raw("", markup, format="html")]


def figure_markup(directive: SphinxDirective, docname: str, name: str) -> str | None:
    """Return the markup of a named figure; warn where the page has none of this name."""
    facts = facts_of(directive.env, docname) or {}
    figures = facts.get("figure_markup", {})
    if name not in figures:
        known = ", ".join(map(repr, figures)) or "none"
        logger.warning(
            "no figure %r on page %r; named there: %s",
            *(name, docname, known),
            location=directive.get_location(),
        )
    return figures.get(name)


def setup(app: Sphinx) -> None:
    """Register the directives."""
    app.add_directive("chapters", ChaptersDirective)
    app.add_directive("is-it-true", IsItTrueDirective)
    app.add_directive("lessons", LessonsDirective)
    app.add_directive("picture", PictureDirective)
