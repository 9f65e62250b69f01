"""Numbers of theorems, exercises and figures begin again on each page.

Sphinx numbers them through the whole book. Here they are counted once more when it has done so, and
a reference from another page says which page it means.
"""

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment


def _restore(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Give Sphinx its own numbers back before it counts: it rewrites pages whose numbers differ."""
    env.kempe_page_numbers = env.toc_fignumbers
    env.toc_fignumbers = getattr(env, "kempe_book_numbers", {})
    return []


def _count_by_page(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Count again by page; where a number has changed, every page may refer to it."""
    env.kempe_book_numbers = env.toc_fignumbers
    env.toc_fignumbers = {
        docname: {
            kind: {name: (place,) for place, name in enumerate(numbers, start=1)}
            for kind, numbers in kinds.items()
        }
        for docname, kinds in env.kempe_book_numbers.items()
    }
    before, env.kempe_page_numbers = env.kempe_page_numbers, None
    return [] if before == env.toc_fignumbers else sorted(env.found_docs)


def _name_the_page(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Write "Theorem 2 of TITLE" where the theorem stands on another page."""
    numbered = {
        f"{app.builder.get_relative_uri(docname, other)}#{name}": other
        for other, kinds in app.env.toc_fignumbers.items()
        if other != docname
        for numbers in kinds.values()
        for name in numbers
    }
    for reference in doctree.findall(nodes.reference):
        other = numbered.get(reference.get("refuri"))
        if other and re.fullmatch(r"[A-Z][a-z]+\.? \d+", reference.astext()):
            reference += nodes.Text(f" of {app.env.titles[other].astext()}")


def setup(app: Sphinx) -> None:
    """Count after Sphinx has counted; its own handler has the priority 500."""
    app.connect("env-get-updated", _restore, priority=100)
    app.connect("env-get-updated", _count_by_page, priority=900)
    app.connect("doctree-resolved", _name_the_page)
