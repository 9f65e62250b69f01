"""One figure style that reads well in the light and the dark theme; figures and small tables.

A figure enters the page as inline SVG. Its neutral parts (text, axes, ticks, grid) are written as
`currentColor`, so they take the colour of the page's own text in either theme, and its letters stay
text. The data colours are mid-tones with a contrast of at least 3:1 against both backgrounds.
"""

import html
import math
import re
from collections.abc import Mapping, Sequence
from io import BytesIO

import matplotlib as mpl
import numpy as np
from cycler import cycler
from IPython.display import display
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogFormatter, NullLocator

from kempe_nb.notebook import record, tables

#: Data colours, by name. tests/notebook/test_figures.py checks their contrast.
COLORS = {
    "blue": "#2f80d1",
    "orange": "#cf6a12",
    "green": "#2b9160",
    "purple": "#a15fd1",
    "red": "#d9485f",
    "grey": "#7a828c",
}
#: Backgrounds of the two themes of the site.
BACKGROUNDS = {"light": "#ffffff", "dark": "#14181e"}
#: A figure heavier than this is drawn with rasterised data inside vector axes.
MAX_SVG_BYTES = 150_000

# A colour that no data series uses; it is replaced by `currentColor` in the finished SVG.
_INK = "#010203"
_FLUID = (
    'style="width:100%;height:auto;stroke-linejoin:round;stroke-linecap:butt" '
    'aria-hidden="true" focusable="false"'
)

_STYLE = {
    "figure.figsize": (5.2, 3.3),
    "figure.constrained_layout.use": True,
    "font.size": 10.5,
    "axes.labelsize": 10.5,
    "legend.fontsize": 10,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _INK,
    "grid.alpha": 0.15,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "axes.unicode_minus": True,
    "mathtext.default": "regular",
    "svg.fonttype": "none",
    # Colour and dash change together, so that no line is told apart by its colour alone.
    "axes.prop_cycle": cycler(color=list(COLORS.values()))
    + cycler(linestyle=["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1))]),
}


def use_style() -> None:
    """Make the book's style the default of every figure drawn from now on."""
    mpl.rcParams.update(_STYLE)


def show(fig: Figure, *, alt: str, caption: str, name: str | None = None, **values) -> None:
    """Display a figure with its alternative text and its caption, and close it.

    Parameters
    ----------
    fig : matplotlib.figure.Figure
        Drawn in the book's style; without a title inside the axes.
    alt : str
        What the figure shows, for a reader who does not see it. Fields in braces are filled from
        `values` as by `str.format`. Write it as a plain literal: the book then takes a changed text
        without executing the chapter again.
    caption : str
        The visible caption, with fields like `alt`.
    name : str, optional
        Lower-case words joined by hyphens, once in a run. The opening page of a paper and the map
        of the book can then show this figure, too.
    **values
        Numbers and words for the fields.

    Raises
    ------
    ValueError
        For an empty `alt` or `caption`, a field without a value, a malformed or repeated name, a
        figure without axes, or a title inside the axes.
    """
    refuse_bad_figure(fig)
    _refuse_bad_name(name)
    values = plain_values(values)
    texts = fill({"alt": alt, "caption": caption}, values)
    record.count("figures")
    markup = figure_html(to_svg(fig, salt=texts["alt"]), **texts)
    plt.close(fig)
    data = {"text/html": markup, "text/plain": f"Figure: {texts['alt']}"}
    metadata = text_metadata({"alt": alt, "caption": caption}, [values])
    if name is not None:
        metadata["kempe_nb"]["name"] = name
        record.note("figure_names", [*record.fact("figure_names", []), name])
    display(data, raw=True, metadata=metadata)


def table(
    rows: Sequence[Sequence],
    head: Sequence[str],
    *,
    caption: str,
    align: str | None = None,
    highlight: int | Sequence[int] | None = None,
) -> None:
    """Display a small table of results.

    Parameters
    ----------
    rows : sequence of sequences
        The cells: texts as they are, numbers with three significant digits (integers whole). The
        first cell of a row names it.
    head : sequence of str
        The names of the columns, with their units.
    caption : str
        What the table shows.
    align : str, optional
        One letter for each column, l or r; by default numbers stand to the right.
    highlight : int or sequence of int, optional
        The rows, counted from 0, that are set in bold.

    Raises
    ------
    ValueError
        For an empty caption, rows that do not fit the head, a cell that is neither a text nor a
        finite number, or an alignment or a row that does not exist.
    """
    if not isinstance(caption, str) or not caption.strip():
        raise ValueError(
            f"caption is {caption!r}; every table needs a text that says what it shows"
        )
    cells, align, marked = tables.checked(rows, head, align, highlight)
    record.count("tables_shown")
    data = {
        "text/html": tables.markup(cells, head, caption=caption, align=align, marked=marked),
        "text/plain": tables.plain(cells, head, caption=caption, align=align),
    }
    # Its texts are computed by the run: there is no template to fill in again.
    display(data, raw=True, metadata=text_metadata({}, []))


def draw_spread(axes, x, runs, live=None, *, label: str = "", **style) -> None:
    """Draw mean and two standard deviations of stored runs, and the live run as crosses on them.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    x : array_like [N]
    runs : array_like [runs, N]
        At least two runs.
    live : array_like [N], optional
        The page's own run, in red.
    label : str
        For the legend; the crosses have none.
    **style
        For `Axes.errorbar`.

    Raises
    ------
    ValueError
        For fewer than two runs, or lengths that differ.
    """
    runs = np.asarray(runs, dtype=float)
    lengths = {len(x), *runs.shape[1:], *([] if live is None else [len(live)])}
    if runs.ndim != 2 or len(runs) < 2 or len(lengths) > 1:
        raise ValueError(
            f"runs has shape {runs.shape} for {len(x)} places; accepted are two runs or more of "
            "the same length as x and live"
        )
    axes.errorbar(x, runs.mean(0), 2 * runs.std(0, ddof=1), label=label or None, **style)
    if live is not None:
        axes.plot(x, live, "x", ls="none", color=COLORS["red"])


def _refuse_bad_name(name: str | None) -> None:
    if name is None:
        return
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise ValueError(f"name is {name!r}; accepted are lower-case words like 'two-slopes'")
    # In a live notebook a cell may run again.
    if record.is_published() and name in record.fact("figure_names", []):
        raise ValueError(f"name {name!r} is taken by another figure of this run")


def fill(templates: Mapping[str, str], values: Mapping) -> dict[str, str]:
    """Fill the fields of the texts of a figure; refuse an empty text or an unknown field."""
    filled = {}
    for name, template in templates.items():
        if not isinstance(template, str) or not template.strip():
            raise ValueError(f"{name} is {template!r}; every figure needs a text that says it")
        try:
            filled[name] = template.format(**values)
        except (KeyError, IndexError) as error:
            raise ValueError(
                f"{name} has the field {error} but the values given are {sorted(values)}"
            ) from None
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{name} is {template!r}, which cannot be filled: {error}") from None
    return filled


def plain_values(values: Mapping) -> dict:
    """Return the values of fields as plain Python, which the notebook's JSON keeps as it is.

    Raises
    ------
    ValueError
        For anything but words and finite numbers.
    """
    plain = {}
    for name, value in values.items():
        plain[name] = value.item() if isinstance(value, np.generic) else value
        number = isinstance(plain[name], int | float) and math.isfinite(plain[name])
        if not number and not isinstance(plain[name], str):
            raise ValueError(f"{name} is {value!r}; accepted are words and finite numbers")
    return plain


def text_metadata(templates: Mapping[str, str], frames: list[Mapping]) -> dict:
    """Return the output metadata from which a changed text can be filled in again."""
    return {"kempe_nb": {"templates": dict(templates), "frames": frames}}


def figure_html(svg: str, *, alt: str, caption: str) -> str:
    """Return the markup of one figure: the picture with its description, and the caption."""
    return (
        '<figure class="kempe-figure" style="max-width:40rem;margin:1rem 0">'
        f'<div role="img" aria-label="{html.escape(alt)}">{svg}</div>'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def to_svg(fig: Figure, salt: str) -> str:
    """Return the figure as compact inline SVG whose neutral parts follow the page's text colour.

    `salt` makes the identities inside the SVG its own, so that many figures share a page. Data of a
    figure above `MAX_SVG_BYTES` is rasterised at 150 dots per inch; its axes and text stay vector.
    """
    _plain_log_ticks(fig)
    svg = _render(fig, salt)
    if len(svg) > MAX_SVG_BYTES:
        for axes in fig.axes:
            for artist in (*axes.collections, *axes.lines, *axes.images, *axes.patches):
                artist.set_rasterized(True)
        svg = _render(fig, salt)
    return svg


def _render(fig: Figure, salt: str) -> str:
    buffer = BytesIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context({"svg.hashsalt": salt}):
        fig.savefig(buffer, format="svg", metadata=metadata, dpi=150)
    return _compact(buffer.getvalue().decode())


def _compact(svg: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = svg.replace(_INK, "currentColor")
    # The letters take the page's own font: the family names matplotlib writes are not on the site.
    svg = re.sub(r"font: ([^;\"]*?)([\d.]+px) [^;\"]*", r"font-size: \2", svg)
    svg = re.sub(r"font-family:[^;\"]*;?", "", svg)
    # A style element would apply to the whole page, and an identity nobody refers to may repeat.
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.S)
    used = set(re.findall(r"#([\w.-]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", svg)
    svg = re.sub(r' transform="rotate\(-?0 [^"]*"', "", svg)
    # Two decimals of a point are finer than any screen.
    svg = re.sub(r"<[^>]*>", lambda tag: _rounded(tag[0]), svg)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', rf"\1 {_FLUID}", svg, count=1)
    return re.sub(r"\s*\n\s*", " ", svg).strip()


def _rounded(tag: str) -> str:
    """Round the coordinates inside one tag; the text between tags holds the numbers of the axes.

    The scale factors of a matrix multiply hundreds of pixels and stay as they are.
    """
    if "matrix(" in tag:
        return tag
    return re.sub(r"(?<![\w#])-?\d+\.\d{3,}(?=[^\w%])", lambda m: f"{float(m[0]):.2f}", tag)


def _plain_log_ticks(fig: Figure) -> None:
    """Label decades as 10⁻³ in plain letters; mathtext in SVG needs a font that readers lack."""
    for axes in fig.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if isinstance(axis.get_major_formatter(), LogFormatter):
                axis.set_major_formatter(FuncFormatter(power_of_ten))
                # Minor ticks between decades weigh more than the data of a curve.
                axis.set_minor_locator(NullLocator())


def power_of_ten(value: float, _position=None) -> str:
    """Return a decade as 1, 10 or 10ⁿ, and other numbers in short decimal form."""
    if value <= 0:
        return f"{value:g}"
    exponent = np.log10(value)
    if abs(exponent - round(exponent)) > 1e-9:
        return f"{value:g}"
    exponent = round(exponent)
    return {0: "1", 1: "10"}.get(exponent, "10" + str(exponent).translate(tables.SUPERSCRIPT))


def refuse_bad_figure(fig: Figure) -> None:
    """Raise ValueError unless this is a figure with axes and without a title inside them."""
    if not isinstance(fig, Figure):
        raise ValueError(f"fig is a {type(fig).__name__}; accepted is a matplotlib Figure")
    if not fig.axes:
        raise ValueError("fig has no axes: nothing would be shown")
    if any(axes.get_title() for axes in fig.axes):
        raise ValueError("fig has a title inside its axes; put it into caption")
