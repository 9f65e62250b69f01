"""Sliders that work in the static page with no kernel, and compute in-between values in a live one.

When the book is built, every frame is drawn while the notebook runs, and a few lines of JavaScript
show the one that the sliders point to. They are the browser's own range inputs: operable by
keyboard, labelled, and without any library. The first frame stands in the page as it is; all of
them stand there compressed, a tenth of their size, and the browser unpacks them. In a live notebook
the same call gives ipywidgets whose frames are drawn on demand, on a grid four times as fine.
"""

import base64
import gzip
import html
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files

import ipywidgets
import numpy as np
from IPython.display import display
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from kempe_nb.notebook import figures, record

MAX_FRAMES = 120
MAX_BYTES = 450_000
#: In-between values that a live notebook offers for each step of a numeric grid.
REFINEMENT = 4


def explore(
    draw: Callable[..., Figure | tuple[Figure, Mapping]],
    *,
    alt: str,
    caption: str,
    start: Mapping | None = None,
    labels: Mapping[str, str] | None = None,
    max_frames: int = MAX_FRAMES,
    max_bytes: int = MAX_BYTES,
    live: bool | None = None,
    **grids: Sequence,
) -> None:
    """Display a figure with one to three sliders.

    Parameters
    ----------
    draw : callable
        Takes one value of each grid by name; returns a figure, or a figure and a mapping of values
        for the fields of `alt`.
    alt : str
        Description of one frame for readers who do not see it, with fields in braces; the grid
        values and what `draw` returned are available.
    caption : str
        The visible caption; the same for all frames, without fields.
    start : mapping, optional
        First position, by grid name; by default the first value of each grid.
    labels : mapping, optional
        The words beside a slider, by grid name; by default the name itself.
    max_frames, max_bytes : int
        How many frames there may be, and how much they may weigh together before they are packed;
        a grid above either is refused, with both named.
    live : bool, optional
        Whether a kernel will be there when a slider moves; by default, whether the notebook runs
        outside the executor of the book.
    **grids : sequences
        One to three, each with at least two different values, numbers or strings.

    Raises
    ------
    ValueError
        For bad grids, a missing text, or a grid over a budget.
    """
    start = dict(start or {})
    _refuse_bad_grids(grids, start)
    _refuse_bad_texts(alt, caption, labels or {}, grids)
    filled = figures.fill({"caption": caption}, {})["caption"]
    names = {name: (labels or {}).get(name, name) for name in grids}
    live = not record.is_published() if live is None else live
    if live:
        _display_live(draw, alt, filled, start, names, grids)
        return
    markup, frames = _static_markup(draw, alt, filled, start, names, grids, max_frames, max_bytes)
    record.count("sliders")
    described = figures.fill({"alt": alt}, frames[0])["alt"]
    data = {"text/html": markup, "text/plain": f"Figure with sliders {list(grids)}: {described}"}
    metadata = figures.text_metadata({"alt": alt, "caption": caption}, frames)
    display(data, raw=True, metadata=metadata)


def refine(values: Sequence, steps: int = REFINEMENT) -> list:
    """Return the grid with `steps - 1` values between neighbours; words stay as they are.

    Between positive numbers that at least double, the new values are geometric, otherwise
    arithmetic; integers stay integers.
    """
    if not all(isinstance(v, int | float | np.number) for v in values):
        return list(values)
    integers = all(isinstance(v, int | np.integer) for v in values)
    geometric = all(a > 0 and b >= 2 * a for a, b in itertools.pairwise(values))
    fine = []
    for low, high in itertools.pairwise(values):
        between = np.geomspace if geometric else np.linspace
        fine += list(between(low, high, steps, endpoint=False))
    fine.append(values[-1])
    if integers:
        return sorted({round(v) for v in fine}, reverse=values[0] > values[-1])
    return [float(v) for v in fine]


def _static_markup(draw, alt, caption, start, names, grids, max_frames, max_bytes):
    """Return the markup with all frames, and the values of each frame."""
    points = [
        dict(zip(grids, values, strict=True)) for values in itertools.product(*grids.values())
    ]
    _refuse_frames(grids, len(points), max_frames, max_bytes)
    first = tuple(start.get(name, values[0]) for name, values in grids.items())
    frames, drawn, filled, total = [], [], [], 0
    for number, point in enumerate(points):
        svg, values = _frame(draw, point, salt=f"{caption} {number}")
        total += len(svg)
        # Frames of one figure weigh alike: the first tells whether all fit, before all are drawn.
        expected = max(total, len(svg) * len(points)) if number == 0 else total
        _refuse_bytes(grids, len(points), expected, max_frames, max_bytes)
        description = figures.fill({"alt": alt}, values)["alt"]
        shown = tuple(point.values()) == first
        frames.append(
            f'<div class="kempe-frame"{"" if shown else " hidden"}><div role="img" '
            f'aria-label="{html.escape(description)}">{svg if shown else ""}</div></div>'
        )
        drawn.append(svg)
        filled.append(values)
    controls = "".join(
        _control(names[name], values, start.get(name, values[0])) for name, values in grids.items()
    )
    script = files("kempe_nb.notebook").joinpath("sliders.js").read_text(encoding="utf-8")
    markup = (
        '<div class="kempe-explore" style="max-width:40rem;margin:1rem 0">'
        f'<div class="kempe-controls">{controls}</div><figure class="kempe-figure">'
        f"{''.join(frames)}<figcaption>{html.escape(caption)}</figcaption></figure>"
        '<p class="kempe-reading" aria-live="polite"></p>'
        f'<script type="application/gzip" class="kempe-packed">{packed(drawn)}</script>'
        f"<noscript>The sliders need JavaScript.</noscript><script>{script}</script></div>"
    )
    return markup, filled


def packed(frames: Sequence[str]) -> str:
    """Return frames as one text: JSON, compressed by gzip, in base64."""
    content = json.dumps(frames, ensure_ascii=False).encode()
    # Without a time of its own, the same frames give the same page.
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


def _display_live(draw, alt, caption, start, names, grids) -> None:
    picture = ipywidgets.HTML()
    sliders = {}
    for name, values in grids.items():
        options = [(_label(value), value) for value in refine(values)]
        sliders[name] = ipywidgets.SelectionSlider(
            options=options, value=start.get(name, options[0][1]), description=names[name]
        )

    def redraw(_change=None):
        point = {name: slider.value for name, slider in sliders.items()}
        svg, values = _frame(draw, point, salt=caption)
        description = figures.fill({"alt": alt}, values)["alt"]
        picture.value = figures.figure_html(svg, alt=description, caption=caption)

    for slider in sliders.values():
        slider.observe(redraw, names="value")
    redraw()
    display(ipywidgets.VBox([*sliders.values(), picture]))


def _frame(draw, point, salt) -> tuple[str, dict]:
    drawn = draw(**point)
    fig, values = drawn if isinstance(drawn, tuple) else (drawn, {})
    figures.refuse_bad_figure(fig)
    svg = figures.to_svg(fig, salt=salt)
    plt.close(fig)
    return svg, figures.plain_values({**point, **values})


def _control(name, values, initial) -> str:
    labels = [_label(value) for value in values]
    position = list(values).index(initial)
    return (
        f'<label><span>{html.escape(name)}</span> <input type="range" min="0" '
        f'max="{len(values) - 1}" step="1" value="{position}" '
        f'aria-valuetext="{html.escape(labels[position])}" '
        f'data-labels="{html.escape(json.dumps(labels))}"> '
        f"<output>{html.escape(labels[position])}</output></label>"
    )


def _label(value) -> str:
    if isinstance(value, float | np.floating):
        decade = value > 0 and abs(math.log10(value) - round(math.log10(value))) < 1e-9
        wide = value >= 1e4 or 0 < value < 1e-3
        return figures.power_of_ten(value) if decade and wide else f"{value:.4g}"
    return str(value)


def _refuse_bad_grids(grids, start) -> None:
    if not 1 <= len(grids) <= 3:
        raise ValueError(
            f"{len(grids)} grids given ({', '.join(grids)}); accepted are one to three"
        )
    for name, values in grids.items():
        if isinstance(values, str) or not isinstance(values, Sequence):
            raise ValueError(f"{name} is {values!r}; accepted is a list of values")
        if len(set(map(repr, values))) != len(values) or len(values) < 2:
            raise ValueError(f"{name} is {values!r}; accepted are two or more different values")
    for name, value in start.items():
        if name not in grids or value not in grids[name]:
            known = {key: list(values) for key, values in grids.items()}
            raise ValueError(f"start has {name}={value!r}; accepted are values of {known}")


def _refuse_bad_texts(alt, caption, labels, grids) -> None:
    for name, text in (("alt", alt), ("caption", caption)):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{name} is {text!r}; every figure needs a text that says it")
    if unknown := set(labels) - set(grids):
        raise ValueError(f"labels names {sorted(unknown)}; the grids are {list(grids)}")


def _refuse_frames(grids, count, max_frames, max_bytes) -> None:
    if count > max_frames:
        raise ValueError(
            f"the grid {_size(grids)} has {count} frames; accepted are max_frames={max_frames} "
            f"and max_bytes={max_bytes}: thin out a grid"
        )


def _refuse_bytes(grids, count, total, max_frames, max_bytes) -> None:
    if total > max_bytes:
        raise ValueError(
            f"the grid {_size(grids)} with {count} frames weighs {total} bytes or more; accepted "
            f"are max_bytes={max_bytes} and max_frames={max_frames}: thin out a grid or draw less"
        )


def _size(grids) -> str:
    return " x ".join(f"{len(values)} {name}" for name, values in grids.items())
