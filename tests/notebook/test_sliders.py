"""Sliders: every frame is there, described and found by its controls; budgets refuse early."""

import base64
import gzip
import itertools
import json
import re
from html.parser import HTMLParser

import ipywidgets
import pytest
from hypothesis import given, strategies as st
from matplotlib import pyplot as plt

from kempe_nb.notebook import record, sliders


class Page(HTMLParser):
    """The controls and the frames of the markup."""

    def __init__(self, markup):
        super().__init__()
        self.inputs, self.frames, self.labels, self._open = [], [], [], False
        self.feed(markup)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "input":
            self.inputs.append(attrs)
        elif attrs.get("class") == "kempe-frame":
            self.frames.append({"hidden": "hidden" in attrs})
        elif attrs.get("role") == "img" and self.frames:
            self.frames[-1].setdefault("label", attrs["aria-label"])
        elif tag == "label":
            self.labels.append(attrs)


@pytest.fixture
def static(monkeypatch):
    """Call `explore` as the executor does and return the page that it displays."""
    outputs = []
    monkeypatch.setenv(record.VARIABLE, "unused")
    monkeypatch.setattr(sliders, "display", lambda data, **kw: outputs.append((data, kw)))

    def explore(draw=None, alt="a={a}", caption="A caption.", **options):
        sliders.explore(draw or draw_point, alt=alt, caption=caption, **options)
        return Page(outputs[-1][0]["text/html"]), outputs[-1]

    return explore


def draw_point(**values):
    fig, ax = plt.subplots()
    ax.plot([0, 1], [0, 1])
    return fig


GRIDS = {"a": [1, 2, 3], "b": ["x", "y"], "c": [0.5, 0.25]}


@pytest.mark.parametrize("names", ["a", "ab", "abc"])
def test_the_frame_of_each_position_is_found_by_counting_in_row_major_order(static, names):
    grids = {name: GRIDS[name] for name in names}
    alt = " ".join(f"{name}={{{name}}}" for name in names)
    page, _ = static(alt=alt, **grids)
    expected = [
        " ".join(f"{n}={v}" for n, v in zip(names, values, strict=True))
        for values in itertools.product(*grids.values())
    ]
    assert [frame["label"] for frame in page.frames] == expected
    assert [int(control["max"]) + 1 for control in page.inputs] == [len(v) for v in grids.values()]
    assert [json.loads(c["data-labels"]) for c in page.inputs] == [
        [str(v) for v in values] for values in grids.values()
    ]


def test_exactly_the_frame_of_the_start_is_visible(static):
    page, _ = static(alt="{a} {b}", a=[1, 2, 3], b=["x", "y"], start={"a": 2, "b": "y"})
    visible = [frame["label"] for frame in page.frames if not frame["hidden"]]
    assert visible == ["2 y"]
    assert [control["value"] for control in page.inputs] == ["1", "1"]
    assert [control["aria-valuetext"] for control in page.inputs] == ["2", "y"]


def test_each_control_is_a_native_range_input_inside_a_label(static):
    page, (data, _) = static(a=[1, 2], labels={"a": "the size <a>"})
    assert page.inputs[0]["type"] == "range"
    assert len(page.labels) == 1
    assert "<span>the size &lt;a&gt;</span>" in data["text/html"]


def test_what_draw_returns_fills_the_description(static):
    def draw(a):
        return draw_point(), {"square": a * a}

    page, (_, options) = static(draw=draw, alt="{a} squared is {square:.1f}", a=[2, 3])
    assert [frame["label"] for frame in page.frames] == ["2 squared is 4.0", "3 squared is 9.0"]
    assert options["metadata"]["kempe_nb"]["frames"][1] == {"a": 3, "square": 9}


def test_the_markup_has_its_script_its_escaped_texts_and_is_counted(static):
    _, (data, _) = static(alt="<{a}>", caption="A & B", a=[1, 2])
    markup = data["text/html"]
    assert 'box.querySelectorAll("input[type=range]")' in markup
    assert "<figcaption>A &amp; B</figcaption>" in markup
    assert 'aria-label="&lt;2&gt;"' in markup
    assert record._facts["sliders"] == 1
    assert plt.get_fignums() == []


def unpacked(markup):
    """Return the frames as the browser unpacks them."""
    text = re.search(r'class="kempe-packed">([^<]+)<', markup)[1]
    return json.loads(gzip.decompress(base64.b64decode(text)))


def test_every_frame_is_there_packed_and_the_first_one_as_it_is(static):
    _, (data, _) = static(a=[1, 2, 3], start={"a": 2})
    markup = data["text/html"]
    frames = unpacked(markup)
    assert len(frames) == 3 and all(frame.startswith("<svg") for frame in frames)
    assert frames[1] in markup and frames[0] not in markup and frames[2] not in markup
    assert len(markup) < sum(map(len, frames))


def test_the_same_frames_give_the_same_page(static):
    first, second = (static(a=[1, 2, 3])[1][0]["text/html"] for _ in range(2))
    assert first == second


def test_no_two_frames_share_an_identity(static):
    _, (data, _) = static(a=[1, 2, 3])
    identities = re.findall(r'\bid="([^"]+)"', "".join(unpacked(data["text/html"])))
    assert len(identities) == len(set(identities)) > 0


def test_a_caption_has_no_fields_and_a_frame_no_title(static):
    with pytest.raises(ValueError, match="caption has the field 'a'"):
        static(caption="For {a}.", a=[1, 2])

    def titled(a):
        fig = draw_point()
        fig.axes[0].set_title("no")
        return fig

    with pytest.raises(ValueError, match="title inside its axes"):
        static(draw=titled, a=[1, 2])
    with pytest.raises(ValueError, match="fig is a NoneType"):
        static(draw=lambda a: None, a=[1, 2])


def test_nothing_in_the_markup_asks_another_host(static):
    _, (data, _) = static(a=[1, 2])
    addresses = data["text/html"].replace("http://www.w3.org/", "")
    assert "http://" not in addresses and "https://" not in addresses


def test_a_grid_over_the_frame_budget_is_refused_before_anything_is_drawn(static):
    drawn = []
    with pytest.raises(ValueError, match=r"5 a x 30 b.*150 frames.*max_frames=120.*max_bytes="):
        static(draw=drawn.append, a=list(range(5)), b=list(range(30)))
    assert drawn == []


def test_a_grid_over_the_byte_budget_is_refused_after_one_frame(static):
    drawn = []

    def draw(a):
        drawn.append(a)
        return draw_point()

    with pytest.raises(ValueError, match=r"4 a.*max_bytes=9000.*max_frames=120"):
        static(draw=draw, a=[1, 2, 3, 4], max_bytes=9_000)
    assert drawn == [1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "0 grids"),
        ({"a": [1, 2], "b": [1, 2], "c": [1, 2], "d": [1, 2]}, "4 grids"),
        ({"a": [1]}, "two or more"),
        ({"a": [1, 1]}, "different values"),
        ({"a": "xy"}, "accepted is a list"),
        ({"a": 3}, "accepted is a list"),
        ({"a": [1, 2], "start": {"a": 5}}, "start has a=5"),
        ({"a": [1, 2], "labels": {"z": "?"}}, r"labels names \['z'\]"),
        ({"a": [1, 2], "alt": " "}, "alt is"),
        ({"a": [1, 2], "caption": ""}, "caption is"),
        ({"a": [1, 2], "alt": "{nothing}"}, "nothing"),
    ],
)
def test_bad_input_is_refused_by_name(static, options, message):
    with pytest.raises(ValueError, match=message):
        static(**options)


@pytest.fixture
def live(monkeypatch):
    """Call `explore` as in a live notebook and return the widgets."""
    boxes = []
    monkeypatch.delenv(record.VARIABLE, raising=False)
    monkeypatch.setattr(sliders, "display", boxes.append)

    def explore(**options):
        sliders.explore(draw_point, alt="a={a}", caption="A caption.", **options)
        return boxes[-1].children

    return explore


def test_a_live_notebook_draws_in_between_values_on_demand(live):
    slider, picture = live(a=[0.0, 1.0])
    assert isinstance(slider, ipywidgets.SelectionSlider)
    assert 'aria-label="a=0.0"' in picture.value
    slider.value = 0.5
    assert 'aria-label="a=0.5"' in picture.value


def test_a_live_slider_starts_where_it_is_told(live):
    slider, picture = live(a=[1, 10, 100], start={"a": 10})
    assert slider.value == 10 and 'aria-label="a=10"' in picture.value


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=6, unique=True).map(sorted))
def test_refining_keeps_every_value_in_order_and_integers_whole(values):
    fine = sliders.refine(values)
    assert set(values) <= set(fine)
    assert fine == sorted(fine)
    assert all(isinstance(value, int) for value in fine)


def test_refining_is_geometric_between_decades_and_leaves_words_alone():
    fine = sliders.refine([1.0, 100.0], steps=2)
    assert fine == pytest.approx([1, 10, 100])
    assert sliders.refine(["x", "y"]) == ["x", "y"]
