"""Small pieces of pages that several directives are made of."""

from docutils import nodes
from sphinx.environment import BuildEnvironment


def text(content: str) -> list[nodes.Node]:
    """Return a paragraph, as the content of a cell."""
    return [nodes.paragraph(text=content)]


def link(env: BuildEnvironment, docname: str, anchor: str, content: str) -> nodes.reference:
    """Return a link to a place on a page."""
    return nodes.reference("", content, internal=True, refuri=address(env, docname, anchor))


def address(env: BuildEnvironment, docname: str, anchor: str = "") -> str:
    """Return the address of a place on a page, seen from the page that is being read."""
    if docname == env.docname:
        return "#" + anchor
    page = env.app.builder.get_relative_uri(env.docname, docname)
    return f"{page}#{anchor}" if anchor else page


def table(head, rows, classes=()) -> nodes.table:
    """Return a docutils table of a header and rows of cells.

    A cell is a list of nodes, or an `entry` where it has to span several columns.
    """
    group = nodes.tgroup(cols=len(head))
    group += [nodes.colspec(colwidth=1) for _ in head]
    group += nodes.thead("", _row([text(name) for name in head]))
    group += nodes.tbody("", *[_row(row) for row in rows])
    return nodes.table("", group, classes=["kempe-table", "colwidths-auto", *classes])


def _row(cells) -> nodes.row:
    entries = [c if isinstance(c, nodes.entry) else nodes.entry("", *c) for c in cells]
    return nodes.row("", *entries)
