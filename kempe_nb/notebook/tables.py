"""What `figures.table` shows: the cells in words, the markup, and the same table as plain text."""

import html
import math
from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np

#: Digits of exponents in plain letters.
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
MINUS = "−"


def words(value, place: str) -> str:
    """Return a cell as the page shows it: a number with three significant digits.

    Integers stay whole, from five digits on with commas, and a text stays as it is.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, Integral):
        digits = f"{int(value):,}" if abs(int(value)) >= 10_000 else str(int(value))
        return digits.replace("-", MINUS)
    if not isinstance(value, Real) or not math.isfinite(value):
        raise ValueError(
            f"{place} is {value!r}; accepted are texts and finite numbers, so say it in words"
        )
    return three_digits(float(value))


def three_digits(value: float) -> str:
    """Return a number with three significant digits, very large and small ones as powers of ten."""
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.2e}".split("e")
    power = int(exponent)
    if -4 <= power < 6:
        shown = f"{float(f'{value:.2e}'):,.{max(0, 2 - power)}f}"
        # As for integers, four digits need no comma.
        shown = shown.replace(",", "") if power < 4 else shown
    else:
        shown = f"{mantissa}·10{str(power).translate(SUPERSCRIPT)}"
    return shown.replace("-", MINUS)


def checked(
    rows: Sequence[Sequence], head: Sequence[str], align: str | None, highlight
) -> tuple[list[list[str]], str, set[int]]:
    """Return the cells in words, the letters of the alignment and the rows to mark.

    Raises
    ------
    ValueError
        Names what is not accepted, and where.
    """
    head, rows = list(head), [list(row) for row in rows]
    if not head or not all(isinstance(name, str) and name.strip() for name in head):
        raise ValueError(f"head is {head!r}; accepted are the names of the columns, none empty")
    if not rows:
        raise ValueError("rows is empty; a table needs a row")
    for number, row in enumerate(rows):
        if len(row) != len(head):
            raise ValueError(
                f"row {number} has {len(row)} cells; head names {len(head)} columns {head!r}"
            )
    cells = [
        [words(value, f"row {number}, {name!r}") for name, value in zip(head, row, strict=True)]
        for number, row in enumerate(rows)
    ]
    if align is None:
        align = "".join(_side(column) for column in zip(*rows, strict=True))
    if not isinstance(align, str) or len(align) != len(head) or set(align) - set("lr"):
        raise ValueError(
            f"align is {align!r}; accepted is one letter, l or r, for each of {len(head)} columns"
        )
    marked = [] if highlight is None else np.atleast_1d(highlight).tolist()
    if any(type(n) is not int or not 0 <= n < len(rows) for n in marked):
        raise ValueError(
            f"highlight is {highlight!r}; accepted are numbers of rows from 0 to {len(rows) - 1}"
        )
    return cells, align, set(marked)


def markup(cells, head, *, caption: str, align: str, marked: set[int]) -> str:
    """Return the table in HTML, inside a region that scrolls where it does not fit.

    Alignment stands in the cells, because Jupyter aligns all of them to the right.
    """
    styles = {"l": "text-align:left", "r": "text-align:right;white-space:nowrap"}

    def line(row: Sequence[str], bold: bool, scope: str) -> str:
        found = []
        for place, (cell, side) in enumerate(zip(row, align, strict=True)):
            # A column's name may wrap; a number may not.
            style = f"text-align:{'left' if side == 'l' else 'right'}" if scope else styles[side]
            content = f"<strong>{html.escape(cell)}</strong>" if bold else html.escape(cell)
            header = f' scope="{scope or "row"}"' if scope or place == 0 else ""
            tag = "th" if header else "td"
            found.append(f'<{tag}{header} style="{style}">{content}</{tag}>')
        return f"<tr>{''.join(found)}</tr>"

    body = "".join(line(row, number in marked, "") for number, row in enumerate(cells))
    return (
        '<div class="kempe-scroll"><table class="table kempe-numbers" '
        'style="font-variant-numeric:tabular-nums">'
        f'<caption style="caption-side:top;text-align:left">{html.escape(caption)}</caption>'
        f"<thead>{line(head, False, 'col')}</thead><tbody>{body}</tbody></table></div>"
    )


def plain(cells, head, *, caption: str, align: str) -> str:
    """Return the table as text in columns."""
    lines = [list(head), *cells]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = [
        "  ".join(
            cell.rjust(width) if side == "r" else cell.ljust(width)
            for cell, width, side in zip(row, widths, align, strict=True)
        ).rstrip()
        for row in lines
    ]
    rule = "  ".join("-" * width for width in widths)
    return "\n".join([f"Table: {caption}", rows[0], rule, *rows[1:]])


def _side(column: Sequence) -> str:
    """Return r for a column of numbers."""
    numbers = [not isinstance(value, str | bool | np.bool_) for value in column]
    return "r" if all(numbers) else "l"
