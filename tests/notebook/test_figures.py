"""Figures: their texts are required, their SVG is self-contained, their colours can be seen."""

import html
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import pyplot as plt

from kempe_nb.notebook import figures, record


@pytest.fixture
def shown(monkeypatch):
    """Collect what `figures.show` displays."""
    outputs = []
    monkeypatch.setattr(figures, "display", lambda data, **kw: outputs.append((data, kw)))
    return outputs


def line_figure(y=(0.1, 0.175)):
    fig, ax = plt.subplots()
    ax.plot([1, 2], y)
    ax.set_yticks([0.025, 0.175])
    return fig


def test_the_description_and_the_caption_reach_the_markup_escaped(shown):
    figures.show(line_figure(), alt='Rises to {top} & "stops"', caption="A <line>.", top=2)
    ((data, options),) = shown
    assert 'aria-label="Rises to 2 &amp; &quot;stops&quot;"' in data["text/html"]
    assert "<figcaption>A &lt;line&gt;.</figcaption>" in data["text/html"]
    assert options["metadata"]["kempe_nb"]["frames"] == [{"top": 2}]
    assert record._facts["figures"] == 1


@pytest.mark.parametrize("value", [float("nan"), np.float64("inf"), (1, 2), None])
def test_a_value_that_the_notebook_would_not_keep_is_refused(value, shown):
    with pytest.raises(ValueError, match="top is .*accepted are words and finite numbers"):
        figures.show(line_figure(), alt="To {top}", caption="c", top=value)


def test_numpy_numbers_become_plain_ones(shown):
    figures.show(line_figure(), alt="To {top!r}", caption="c", top=np.float64(0.5))
    ((data, options),) = shown
    assert 'aria-label="To 0.5"' in data["text/html"]
    assert type(options["metadata"]["kempe_nb"]["frames"][0]["top"]) is float


def test_a_name_is_kept_with_the_figure_and_with_the_run(shown):
    figures.show(line_figure(), alt="A line.", caption="c", name="two-slopes")
    figures.show(line_figure(), alt="A line.", caption="c")
    named, nameless = (options["metadata"]["kempe_nb"] for _, options in shown)
    assert named["name"] == "two-slopes" and "name" not in nameless
    assert record._facts["figure_names"] == ["two-slopes"]


@pytest.mark.parametrize("name", ["", "Two", "two_slopes", "-a", "a b", 3])
def test_a_name_that_is_not_made_of_words_is_refused(name, shown):
    with pytest.raises(ValueError, match=f"name is {name!r}; accepted are lower-case words"):
        figures.show(line_figure(), alt="A line.", caption="c", name=name)
    assert shown == []


def test_a_name_is_given_once_in_a_published_run_and_again_in_a_live_one(shown, monkeypatch):
    for _ in range(2):
        figures.show(line_figure(), alt="A line.", caption="c", name="slope")
    monkeypatch.setenv(record.VARIABLE, "file")
    with pytest.raises(ValueError, match="name 'slope' is taken by another figure of this run"):
        figures.show(line_figure(), alt="A line.", caption="c", name="slope")


@pytest.mark.parametrize("alt", ["a {", "a {x:q}", "a {x.y}"])
def test_a_text_that_cannot_be_filled_is_named(alt, shown):
    with pytest.raises(ValueError, match="alt is 'a {"):
        figures.show(line_figure(), alt=alt, caption="c", x=1)


def test_a_shown_figure_is_closed(shown):
    figures.show(line_figure(), alt="A line.", caption="A line.")
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"alt": "", "caption": "c"}, "alt is ''"),
        ({"alt": "  ", "caption": "c"}, "alt is"),
        ({"alt": None, "caption": "c"}, "alt is None"),
        ({"alt": "a", "caption": ""}, "caption is ''"),
        ({"alt": "a {missing}", "caption": "c"}, "missing"),
    ],
)
def test_a_figure_without_its_texts_is_refused(texts, message, shown):
    with pytest.raises(ValueError, match=message):
        figures.show(line_figure(), **texts)
    assert shown == []


def test_alt_is_not_optional():
    with pytest.raises(TypeError, match="alt"):
        figures.show(line_figure(), caption="c")


def test_a_title_inside_the_axes_and_an_empty_figure_are_refused():
    fig, axes = plt.subplots(2)
    axes[1].set_title("no")
    with pytest.raises(ValueError, match="title inside its axes"):
        figures.show(fig, alt="a", caption="c")
    with pytest.raises(ValueError, match="no axes"):
        figures.show(plt.figure(), alt="a", caption="c")


def test_the_svg_is_well_formed_and_neutral_parts_follow_the_page():
    svg = figures.to_svg(line_figure(), "salt")
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg") and root.get("viewBox")
    assert root.get("width") is None and root.get("height") is None
    assert "currentColor" in svg and figures._INK not in svg
    assert "<style" not in svg and "<image" not in svg


def test_rounding_coordinates_leaves_the_numbers_on_the_axes():
    root = ElementTree.fromstring(figures.to_svg(line_figure(), "salt"))
    texts = [node.text for node in root.iter() if node.tag.endswith("text")]
    assert {"0.025", "0.175"} <= set(texts)


def test_two_figures_share_no_identity():
    first, second = (figures.to_svg(line_figure(), salt) for salt in ("one", "two"))
    identities = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (first, second)]
    assert identities[0] and identities[1]
    assert not identities[0] & identities[1]
    for svg, own in zip((first, second), identities, strict=True):
        assert set(re.findall(r'(?:url\(#|href="#)([\w.-]+)', svg)) <= own


def test_the_same_figure_gives_the_same_bytes():
    assert figures.to_svg(line_figure(), "s") == figures.to_svg(line_figure(), "s")


def test_log_axes_are_labelled_with_plain_powers():
    fig, ax = plt.subplots()
    ax.loglog([1e-3, 1e5], [1, 1e4])
    svg = figures.to_svg(fig, "log")
    assert "10⁻³" in svg and "10⁵" in svg
    assert "mathdefault" not in svg


@pytest.mark.parametrize(
    ("value", "text"), [(1, "1"), (10, "10"), (1e-7, "10⁻⁷"), (1e12, "10¹²"), (30, "30"), (0, "0")]
)
def test_power_of_ten(value, text):
    assert figures.power_of_ten(value) == text


def test_a_heavy_figure_is_rasterised_inside_vector_axes():
    fig, ax = plt.subplots()
    ax.scatter(*np.random.default_rng(0).normal(size=(2, 5_000)))
    svg = figures.to_svg(fig, "heavy")
    assert "<image" in svg and "<text" in svg
    assert len(svg) < figures.MAX_SVG_BYTES


def luminance(colour):
    """Relative luminance of WCAG 2.1."""
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.03928, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("theme", figures.BACKGROUNDS)
@pytest.mark.parametrize("name", figures.COLORS)
def test_every_data_colour_has_a_contrast_of_three_in_both_themes(name, theme):
    pair = sorted(luminance(c) for c in (figures.COLORS[name], figures.BACKGROUNDS[theme]))
    assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 3


def test_no_two_lines_are_told_apart_by_colour_alone():
    styles = plt.rcParams["axes.prop_cycle"].by_key()["linestyle"]
    assert len(set(map(str, styles))) == len(figures.COLORS)


def test_escaped_texts_survive_a_round_trip():
    markup = figures.figure_html("<svg></svg>", alt="a < b & c", caption="ok")
    label = re.search(r'aria-label="([^"]*)"', markup)[1]
    assert html.unescape(label) == "a < b & c"


def test_a_spread_is_the_mean_with_two_standard_deviations_and_crosses_for_the_live_run():
    runs = np.array([[1.0, 2.0], [3.0, 2.0], [5.0, 2.0]])
    fig, ax = plt.subplots()
    figures.draw_spread(ax, [10, 20], runs, live=[4.0, 2.5], label="law")
    (bars,) = ax.containers
    np.testing.assert_allclose(bars.lines[0].get_ydata(), [3, 2])
    (segments,) = bars.lines[2]
    ends = [segment[:, 1].tolist() for segment in segments.get_segments()]
    np.testing.assert_allclose(ends, [[3 - 4, 3 + 4], [2, 2]])
    assert ax.lines[-1].get_ydata().tolist() == [4.0, 2.5]
    assert ax.get_legend_handles_labels()[1] == ["law"]
    plt.close(fig)


@pytest.mark.parametrize(
    ("runs", "live"), [([[1.0, 2.0]], None), ([[1.0], [2.0]], None), ([[1.0, 2.0]] * 3, [1.0])]
)
def test_a_spread_of_one_run_or_of_other_lengths_is_refused(runs, live):
    fig, ax = plt.subplots()
    with pytest.raises(ValueError, match="runs has shape"):
        figures.draw_spread(ax, [10, 20], runs, live)
    plt.close(fig)
