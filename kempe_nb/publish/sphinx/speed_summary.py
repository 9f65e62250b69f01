"""All benchmarks at a glance: `{speed-summary}` is one picture and one table of verdicts.

For every shape the fastest implementation of ours stands beside the fastest peer. The page of an
operation (`{speed}`) has the rows behind it.
"""

import math
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
from docutils import nodes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from kempe_nb.notebook import figures
from kempe_nb.publish.sphinx import speed
from kempe_nb.publish.sphinx.markup import link, table, text
from kempe_nb.publish.sphinx.records import KERNELS
from kempe_nb.publish.stage import RECORDS

logger = logging.getLogger(__name__)

HEAD = ("Operation", "Device", "✓ won", "≈ even", "✗ lost", "Best shape", "Worst shape")
OUTCOMES = ("✓ wins", speed.EVEN, "✗ loses")


class Pair(NamedTuple):
    """Ours beside the fastest peer, for one shape on one machine."""

    operation: str
    machine: str
    outcome: str
    #: The time of ours over that of the peer.
    ratio: float
    #: The bandwidth of ours over that of a copy.
    share: float


class SpeedSummaryDirective(SphinxDirective):
    """The picture and the table of all operations that were measured."""

    def run(self) -> list[nodes.Node]:
        files = sorted((Path(self.env.srcdir) / RECORDS).glob("*.csv"))
        for file in files:
            self.env.note_dependency(str(file))
        pairs = [pair for file in files for pair in pairs_of(speed.read_rows(file))]
        if not pairs:
            logger.warning(
                "no operation was measured beside a peer; run python -m benchmarks",
                location=self.get_location(),
            )
            return []
        rows = [self._row(group) for group in grouped(pairs)]
        return [
            nodes.raw("", picture(pairs), format="html"),
            table(HEAD, rows, classes=["kempe-verdicts"]),
        ]

    def _row(self, pairs: list[Pair]) -> list[list[nodes.Node]]:
        operation, machine = pairs[0].operation, pairs[0].machine
        page = f"{KERNELS}/{operation}"
        known = page in self.env.found_docs
        name = link(self.env, page, "", operation) if known else nodes.Text(operation)
        counts = Counter(pair.outcome for pair in pairs)
        pairs = sorted(pairs, key=lambda pair: pair.ratio)
        best, worst = (
            "even" if pair.outcome == speed.EVEN else in_words(pair.ratio)
            for pair in (pairs[0], pairs[-1])
        )
        return [
            [nodes.paragraph("", "", name)],
            text(machine),
            *(text(str(counts[outcome])) for outcome in OUTCOMES),
            text(best),
            text(worst),
        ]


def pairs_of(rows: list[speed.Row]) -> list[Pair]:
    """Return the pairs of the shapes that ours and a peer have both run."""
    found = []
    for group in speed.by_machine(rows):
        for case in speed.by_case(group):
            measured = [row for row in case if speed.is_measured(row)]
            ours = next((row for row in measured if speed.is_ours(row)), None)
            peer = next((row for row in measured if not speed.is_ours(row)), None)
            if ours is None or peer is None:
                continue
            ratio = float(ours["median_ms"]) / float(peer["median_ms"])
            outcome, _ = speed.outcome(ours, peer)
            share = float(ours["share_of_copy"])
            found.append(Pair(ours["operation"], speed.machine(ours), outcome, ratio, share))
    return found


def grouped(pairs: list[Pair]) -> list[list[Pair]]:
    """Return the pairs of each operation on each machine."""
    groups: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        groups.setdefault((pair.operation, pair.machine), []).append(pair)
    return list(groups.values())


def in_words(ratio: float) -> str:
    """Return the time of ours over that of a peer in words, "2.0 × faster"."""
    if ratio <= 1:
        return f"{speed.digits(1 / ratio, 2)} × faster"
    return f"{speed.digits(ratio, 2)} × slower"


def picture(pairs: list[Pair]) -> str:
    """Return the markup of the picture: times beside the best peer, and shares of the limit."""
    caption = (
        "One point for each shape. Above: the time of ours over that of the fastest peer; left of "
        "the line we win. Below: the minimum bytes at the time of ours, as a share of what a copy "
        "moves."
    )
    alt = describe(pairs)
    with mpl.rc_context():
        figures.use_style()
        svg = figures.to_svg(_drawn(pairs), salt=alt)
    return figures.figure_html(svg, alt=alt, caption=caption)


def _drawn(pairs: list[Pair]) -> Figure:
    """Draw a line of points for each operation, twice; machines differ in colour and marker."""
    operations = list(dict.fromkeys(pair.operation for pair in pairs))
    machines = list(dict.fromkeys(pair.machine for pair in pairs))
    figure = Figure(figsize=(4.5, 1.8 + 0.5 * len(operations)))
    above, below = figure.subplots(2)
    colors = list(figures.COLORS.values())
    heights = _places(pairs)
    for index, machine in enumerate(machines):
        own = [pair for pair in pairs if pair.machine == machine]
        places = [
            place for pair, place in zip(pairs, heights, strict=True) if pair.machine == machine
        ]
        style = {
            "linestyle": "none",
            "marker": speed.MARKERS[index % len(speed.MARKERS)],
            "markerfacecolor": "none",
            "color": colors[index % len(colors)],
        }
        above.plot([pair.ratio for pair in own], places, label=machine, **style)
        below.plot([100 * pair.share for pair in own], places, **style)
    above.axvline(1, color=mpl.rcParams["text.color"], linestyle="--", linewidth=1.2)
    labels = {
        above: "time of ours / time of the fastest peer",
        below: "share of the bandwidth of a copy in %",
    }
    for axes, label in labels.items():
        axes.set(xscale="log", xlabel=label)
        axes.set_yticks(range(len(operations)), operations, fontsize=10)
        axes.set_ylim(len(operations) - 0.5, -0.5)
        axes.tick_params(axis="x", labelsize=10)
        _widen(axes)
        axes.xaxis.set_major_locator(LogLocator(base=10, numticks=7))
        axes.xaxis.set_major_formatter(FuncFormatter(figures.power_of_ten))
        axes.xaxis.set_minor_locator(NullLocator())
    if len(machines) > 1:
        figure.legend(loc="outside lower center", ncols=1, fontsize=10)
    return figure


def _places(pairs: list[Pair]) -> list[float]:
    """Return the height of each point.

    The machines of an operation, and the shapes of a machine, stand below each other: no mark
    covers another one.
    """
    operations = list(dict.fromkeys(pair.operation for pair in pairs))
    found = []
    for pair in pairs:
        near = sorted(
            (other for other in pairs if other.operation == pair.operation),
            key=lambda other: other.machine,
        )
        step = 0.7 / len(near)
        place = next(n for n, other in enumerate(near) if other is pair)
        found.append(operations.index(pair.operation) - 0.35 + step * (place + 0.5))
    return found


def _widen(axes) -> None:
    """Let the axis begin and end at powers of ten, so that it has two ticks at least."""
    low, high = axes.get_xlim()
    low, high = math.floor(math.log10(low)), math.ceil(math.log10(high))
    axes.set_xlim(10.0**low, 10.0 ** max(high, low + 1))


def describe(pairs: list[Pair]) -> str:
    """Return what the picture shows, for a reader who does not see it."""
    counts = Counter(pair.outcome for pair in pairs)
    spans = []
    for group in grouped(pairs):
        ratios = [pair.ratio for pair in group]
        best = speed.digits(100 * max(pair.share for pair in group), 2)
        spans.append(
            f"{group[0].operation} on {group[0].machine} is between {in_words(min(ratios))} and "
            f"{in_words(max(ratios))} than the fastest peer and reaches {best} % of a copy"
        )
    return (
        f"Of {len(pairs)} shapes ours wins {counts[OUTCOMES[0]]}, is even in "
        f"{counts[OUTCOMES[1]]} and loses {counts[OUTCOMES[2]]}. {'; '.join(spans)}."
    )


def setup(app: Sphinx) -> None:
    """Register the directive."""
    app.add_directive("speed-summary", SpeedSummaryDirective)
