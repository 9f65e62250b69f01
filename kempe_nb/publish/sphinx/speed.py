"""The page of the benchmarks: tables and pictures of what `python -m benchmarks` left behind.

`{speed}` shows the rows of one operation: what it declares of itself, and for each device a table,
in which the shapes where we lose are marked, a picture of the times over the physical floor, and
where the numbers come from.
"""

import csv
import math
from collections.abc import Iterator
from html import escape
from importlib import import_module
from pathlib import Path

import matplotlib as mpl
from docutils import nodes
from matplotlib.figure import Figure
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from kempe_nb import kernels
from kempe_nb.dispatch import Operation
from kempe_nb.notebook import figures
from kempe_nb.publish.sphinx.markup import table
from kempe_nb.publish.stage import RECORDS

logger = logging.getLogger(__name__)

#: How the names of our own implementations begin.
OURS = "kempe_nb"
#: What cannot be counted or was not measured.
NOTHING = "–"
EVEN = "≈ even"
HEAD = (
    *("Implementation", "Median (p20 to p80)", "Beside ours"),
    *("Share of copy", "Launches", "Memory"),
)
#: Names of implementations that are names of compilers.
PROPER = {"numba": "Numba", "triton": "Triton"}
MARKERS = "os^Dv*PXh<>"

Row = dict[str, str]


class SpeedDirective(SphinxDirective):
    """The measurements of the operation that is named."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        operation = self.arguments[0]
        file = Path(self.env.srcdir) / RECORDS / f"{operation}.csv"
        self.env.note_dependency(str(file))
        rows = read_rows(file)
        if not rows:
            logger.warning(
                "operation %r has no results; run python -m benchmarks %s",
                operation,
                operation,
                location=self.get_location(),
            )
            return []
        found = []
        if operation in kernels.names():
            self.env.note_dependency(import_module(f"{kernels.__name__}.{operation}").__file__)
            found.append(nodes.paragraph(text=declaration(kernels.load(operation))))
        found += [node for group in by_machine(rows) for node in _machine_nodes(group)]
        if not any(row["device"].startswith("cuda") for row in rows):
            found.append(nodes.paragraph(text="Not yet measured on a GPU."))
        return found


def declaration(operation: Operation) -> str:
    """Return what an operation says of itself, in a sentence or two."""
    *names, last = (PROPER.get(name, name) for name in operation.implementations)
    names = f"{', '.join(names)} and {last}" if names else last
    dtypes = ", ".join(str(dtype).removeprefix("torch.") for dtype in operation.dtypes)
    if len(operation.implementations) == 1:
        agreement = ""
    elif operation.exact:
        agreement = " They return the same bits, on every device."
    else:
        agreement = " They agree up to rounding."
    return f"Implementations: {names}, for {dtypes}.{agreement}"


def read_rows(file: Path) -> list[Row]:
    """Return the rows of a CSV file, none where there is no file."""
    if not file.exists():
        return []
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def by_machine(rows: list[Row]) -> list[list[Row]]:
    """Return the rows of each device and number of threads, the CPUs first."""
    machines = sorted({(row["device"], int(row["threads"])) for row in rows})
    return [
        [row for row in rows if (row["device"], int(row["threads"])) == machine]
        for machine in machines
    ]


def _machine_nodes(rows: list[Row]) -> list[nodes.Node]:
    """Return heading, table, picture and provenance of the rows of one machine."""
    found = [nodes.rubric(text=machine(rows[0]))]
    shapes = [sizes(row) for row in rows]
    common = {name: value for name, value in shapes[0].items() if all_have(shapes, name, value)}
    if common:
        found.append(nodes.paragraph(text=f"In all rows: {shape_text(common)}."))
    found += _scrolling(
        table(HEAD, [line for case in by_case(rows) for line in _case_lines(case, common)]),
        f"Times of {rows[0]['operation']} on {machine(rows[0])}",
    )
    if any(is_measured(row) for row in rows):
        found.append(nodes.raw("", roofline(rows), format="html"))
    found.append(nodes.paragraph(text=provenance(rows), classes=["kempe-measured"]))
    return found


def _scrolling(content: nodes.table, label: str) -> list[nodes.Node]:
    """Return a table inside a region that scrolls sideways, with the keyboard too."""
    content["classes"].append("kempe-speed")
    region = f'<div class="kempe-scroll" role="region" tabindex="0" aria-label="{escape(label)}">'
    return [nodes.raw("", region, format="html"), content, nodes.raw("", "</div>", format="html")]


def by_case(rows: list[Row]) -> list[list[Row]]:
    """Return the rows of each shape and dtype, the fastest first and those not run last."""
    cases: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        cases.setdefault((row["shape"], row["dtype"]), []).append(row)
    return [sorted(case, key=_milliseconds) for case in cases.values()]


def sizes(row: Row) -> dict[str, str]:
    """Return the sizes of a row's shape and its dtype, by name, as the page writes them."""
    pairs = (pair.split("=") for pair in row["shape"].split())
    named = {name: figures.power_of_ten(float(value)) for name, value in pairs}
    return named | {"dtype": row["dtype"]}


def all_have(shapes: list[dict[str, str]], name: str, value: str) -> bool:
    """Tell whether a size is the same in all shapes, of which there are several."""
    return len(shapes) > 1 and all(shape.get(name) == value for shape in shapes)


def shape_text(shape: dict[str, str]) -> str:
    """Return "atoms 10⁶, seeds 64"."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in shape.items())


def _case_lines(case: list[Row], common: dict[str, str]) -> Iterator[list]:
    """Return the lines of one shape: its sizes, then a line for each implementation."""
    own = {name: value for name, value in sizes(case[0]).items() if name not in common}
    yield [_spanning(nodes.strong(text=shape_text(own)), len(HEAD))]
    measured = [row for row in case if is_measured(row)]
    ours = next((row for row in measured if is_ours(row)), None)
    peer = next((row for row in measured if not is_ours(row)), None)
    for row in case:
        if is_measured(row):
            yield [_name(row), _time(row), _beside(row, ours, peer), *_costs(row)]
        else:
            yield [_name(row), _spanning(nodes.Text(row["note"]), len(HEAD) - 1)]


def _spanning(content: nodes.Node, columns: int) -> nodes.entry:
    """Return a cell over several columns."""
    return nodes.entry("", nodes.paragraph("", "", content), morecols=columns - 1)


def _name(row: Row) -> list[nodes.Node]:
    """Return the name of an implementation; ours is marked."""
    if not is_ours(row):
        return _text(row["implementation"])
    return [nodes.paragraph("", "", nodes.strong(text=f"{row['implementation']} (ours)"))]


def _time(row: Row) -> list[nodes.Node]:
    """Return the time of a row, and the mark of one that is bound by its launch."""
    return _text(spread(row)) + (_text("launch-bound") if row["launch_bound"] == "yes" else [])


def _beside(row: Row, ours: Row | None, peer: Row | None) -> list[nodes.Node]:
    """Return how a row compares: ours with the best peer in words, a peer with ours."""
    if ours is None or peer is None:
        return _text(NOTHING)
    if not is_ours(row):
        return _text(f"{ratio(row, ours)} ×")
    verdict, kind = outcome(row, peer)
    mark = nodes.inline(text=verdict, classes=["kempe-verdict", f"kempe-{kind}"])
    slower, faster = sorted((row, peer), key=_milliseconds, reverse=True)
    by = "" if verdict == EVEN else f" by {ratio(slower, faster)} ×"
    return [nodes.paragraph("", "", mark, nodes.Text(by))]


def outcome(ours: Row, peer: Row) -> tuple[str, str]:
    """Return in words whether ours wins, and the class of that verdict.

    Times whose ranges from p20 to p80 overlap are even.
    """
    if float(ours["p80_ms"]) < float(peer["p20_ms"]):
        return "✓ wins", "holds"
    if float(peer["p80_ms"]) < float(ours["p20_ms"]):
        return "✗ loses", "fails"
    return EVEN, "differs"


def spread(row: Row) -> str:
    """Return median and percentiles, "174 ms (172 to 180)", in one unit."""
    unit, size = unit_of(float(row["median_ms"]))
    median, low, high = (
        digits(float(row[name]) / size, 3) for name in ("median_ms", "p20_ms", "p80_ms")
    )
    around = "once" if row["repetitions"] == "1" else f"{low} to {high}"
    return f"{median} {unit} ({around})"


def _costs(row: Row) -> tuple[list[nodes.Node], ...]:
    """Return the cells of share of the copy, launches and memory."""
    share = f"{digits(100 * float(row['share_of_copy']), 2)} %"
    return _text(share), _text(row["launches"] or NOTHING), _text(_memory(row["peak_mib"]))


def _memory(mebibytes: str) -> str:
    """Return a peak of memory; the pages of a process do not tell less than one MiB."""
    if not mebibytes:
        return NOTHING
    return f"{digits(float(mebibytes), 3)} MiB" if float(mebibytes) >= 1 else "< 1 MiB"


def roofline(rows: list[Row]) -> str:
    """Return the markup of the picture: time over minimum bytes, and the floor of a copy."""
    measured = [row for row in rows if is_measured(row)]
    alt = describe(measured)
    caption = (
        f"{rows[0]['operation']} on {machine(rows[0])}: one point for each shape, ours filled. "
        "The dashed line is the floor, the minimum bytes at the bandwidth of a copy."
    )
    with mpl.rc_context():
        figures.use_style()
        return figures.figure_html(
            figures.to_svg(_picture(measured), salt=alt), alt=alt, caption=caption
        )


def _picture(rows: list[Row]) -> Figure:
    """Draw one marker and colour for each implementation, and the floor."""
    figure = Figure(figsize=(5.2, 4.2))
    axes = figure.subplots()
    colors = list(figures.COLORS.values())
    for index, (name, points) in enumerate(by_implementation(rows).items()):
        color = colors[index % len(colors)]
        axes.plot(
            [float(row["minimum_bytes"]) for row in points],
            [_milliseconds(row) for row in points],
            linestyle="none",
            marker=MARKERS[index % len(MARKERS)],
            markersize=7,
            color=color,
            markerfacecolor=color if is_ours(points[0]) else "none",
            label=name,
        )
    ends = [factor * _bytes(rows)[index] for index, factor in ((0, 0.5), (-1, 2))]
    floor = [_floor_ms(rows[0], end) for end in ends]
    label = f"copy at {digits(float(rows[0]['copy_gb_per_s']), 3)} GB/s"
    axes.plot(ends, floor, color=mpl.rcParams["text.color"], linestyle="--", label=label)
    axes.set(xscale="log", yscale="log", xlabel="minimum bytes", ylabel="median time in ms")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def describe(rows: list[Row]) -> str:
    """Return what the picture shows, for a reader who does not see it."""
    spans = []
    for name, points in by_implementation(rows).items():
        low, high = (duration(find(map(_milliseconds, points))) for find in (min, max))
        spans.append(f"{name} takes {low}" if low == high else f"{name} takes {low} to {high}")
    smallest, largest = (_bytes(rows)[end] for end in (0, -1))
    best = max(rows, key=lambda row: float(row["share_of_copy"]))
    return (
        f"Median time over minimum bytes, both axes logarithmic. {'; '.join(spans)}. The floor of "
        f"a copy rises from {duration(_floor_ms(rows[0], smallest))} to "
        f"{duration(_floor_ms(rows[0], largest))}; nearest to it is {best['implementation']} with "
        f"{digits(100 * float(best['share_of_copy']), 2)} % of the bandwidth of the copy."
    )


def by_implementation(rows: list[Row]) -> dict[str, list[Row]]:
    """Return the rows of each implementation by its name."""
    names = dict.fromkeys(row["implementation"] for row in rows)
    return {name: [row for row in rows if row["implementation"] == name] for name in names}


def machine(row: Row) -> str:
    """Return the device of a row, and the threads of a CPU: "AMD EPYC, 1 CPU thread"."""
    kind, _, model = row["device"].partition(": ")
    if kind != "cpu":
        return model
    return f"{model}, {row['threads']} CPU thread{'' if row['threads'] == '1' else 's'}"


def provenance(rows: list[Row]) -> str:
    """Return date, versions, commit and copy of the rows; several where they differ."""
    names = {"torch": "torch", "triton": "Triton", "numpy": "NumPy", "python": "Python"}
    names |= {"driver": "driver", "commit": "commit"}
    parts = [f"{word} {_values(rows, name)}" for name, word in names.items() if _values(rows, name)]
    return (
        f"Measured: {_values(rows, 'date')}, {', '.join(parts)}. "
        f"A copy moved {_values(rows, 'copy_gb_per_s')} GB/s in the same run."
    )


def duration(milliseconds: float) -> str:
    """Return a time with three digits in µs, ms or s."""
    unit, size = unit_of(milliseconds)
    return f"{digits(milliseconds / size, 3)} {unit}"


def unit_of(milliseconds: float) -> tuple[str, float]:
    """Return the unit that suits a time, and its size in ms."""
    for unit, size in (("s", 1e3), ("ms", 1.0)):
        if milliseconds >= size:
            return unit, size
    return "µs", 1e-3


def digits(value: float, count: int) -> str:
    """Return a number with so many significant digits and no exponent."""
    if value <= 0:
        return "0"
    return f"{value:.{max(0, count - 1 - math.floor(math.log10(value)))}f}"


def ratio(row: Row, other: Row) -> str:
    """Return the time of a row over that of another one."""
    return digits(_milliseconds(row) / _milliseconds(other), 2)


def is_measured(row: Row) -> bool:
    """Tell whether a row holds a time, and not the reason why there is none."""
    return bool(row["median_ms"])


def is_ours(row: Row) -> bool:
    """Tell whether a row is an implementation of this package."""
    return row["implementation"].startswith(OURS)


def _milliseconds(row: Row) -> float:
    return float(row["median_ms"] or "inf")


def _bytes(rows: list[Row]) -> list[float]:
    return sorted(float(row["minimum_bytes"]) for row in rows)


def _floor_ms(row: Row, count: float) -> float:
    """Return the time in which a copy moves so many bytes."""
    return count / float(row["copy_gb_per_s"]) / 1e6


def _values(rows: list[Row], name: str) -> str:
    return ", ".join(sorted({row[name] for row in rows} - {""}))


def _text(text: str) -> list[nodes.Node]:
    return [nodes.paragraph(text=text)]


def setup(app: Sphinx) -> None:
    """Register the directive."""
    app.add_directive("speed", SpeedDirective)
