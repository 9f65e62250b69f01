"""Tables of results: numbers are shortened, words kept, and the markup is a real table."""

import math

import numpy as np
import pytest
from bs4 import BeautifulSoup

from kempe_nb.notebook import figures, record, tables


@pytest.fixture
def shown(monkeypatch):
    """Collect what `figures.table` displays."""
    outputs = []
    monkeypatch.setattr(figures, "display", lambda data, **kw: outputs.append((data, kw)))
    return outputs


ROWS = [["trained & tested", 0.51234, 1200], ["<random>", 12.0, 34567]]
HEAD = ["network", "error in %", "steps"]


def parsed(shown):
    ((data, _),) = shown
    return BeautifulSoup(data["text/html"], "html.parser").table


def test_a_table_has_a_caption_and_headers_of_columns_and_rows(shown):
    figures.table(ROWS, HEAD, caption="Errors & <steps>.")
    table = parsed(shown)
    assert table.caption.get_text() == "Errors & <steps>."
    assert [th.get_text() for th in table.select("thead th[scope=col]")] == HEAD
    assert [th.get_text() for th in table.select("tbody th[scope=row]")] == [r[0] for r in ROWS]
    assert [[td.get_text() for td in tr.select("td")] for tr in table.select("tbody tr")] == [
        ["0.512", "1200"],
        ["12.0", "34,567"],
    ]
    assert record._facts["tables_shown"] == 1 and "figures" not in record._facts


def test_numbers_stand_to_the_right_and_do_not_wrap(shown):
    figures.table(ROWS, HEAD, caption="c")
    table = parsed(shown)
    assert "tabular-nums" in table["style"]
    for row in table.select("tr"):
        sides = [cell["style"].split(";")[0] for cell in row.find_all(["th", "td"])]
        assert sides == ["text-align:left", "text-align:right", "text-align:right"]
    assert all("nowrap" in cell["style"] for cell in table.select("td"))


def test_alignment_and_rows_to_mark_can_be_chosen(shown):
    figures.table(ROWS, HEAD, caption="c", align="rll", highlight=[1])
    table = parsed(shown)
    assert [th["style"] for th in table.select("thead th")] == [
        *("text-align:right", "text-align:left", "text-align:left"),
    ]
    bold = [
        [bool(cell.strong) for cell in row.find_all(["th", "td"])] for row in table.select("tr")
    ]
    assert bold == [[False] * 3, [False] * 3, [True] * 3]


def test_the_plain_text_is_in_columns(shown):
    figures.table(ROWS, HEAD, caption="Errors.", highlight=0)
    assert shown[0][0]["text/plain"].splitlines() == [
        "Table: Errors.",
        "network           error in %   steps",
        "----------------  ----------  ------",
        "trained & tested       0.512    1200",
        "<random>                12.0  34,567",
    ]


def test_staging_finds_no_text_to_fill_in_again(shown):
    figures.table(ROWS, HEAD, caption="c")
    assert shown[0][1]["metadata"]["kempe_nb"] == {"templates": {}, "frames": []}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0.0, "0"), (1.0, "1.00"), (-0.5, "−0.500"), (99.96, "100"), (999.7, "1000")),
        *((1234.5, "1230"), (12345.6, "12,300"), (999999.0, "1.00·10⁶"), (2.98e-16, "2.98·10⁻¹⁶")),
        *((0.000512, "0.000512"), (0.0000999, "9.99·10⁻⁵"), (np.float32(0.25), "0.250")),
        *((3, "3"), (-7, "−7"), (9999, "9999"), (np.int64(1234567), "1,234,567")),
        *((True, "yes"), (np.bool_(False), "no"), ("1.23456", "1.23456"), ("", "")),
    ],
)
def test_numbers_have_three_digits_and_texts_stay(value, text):
    assert tables.words(value, "cell") == text


@pytest.mark.parametrize("value", [math.nan, math.inf, None, [1], 1j])
def test_a_cell_that_is_no_text_and_no_number_is_named(value, shown):
    with pytest.raises(ValueError, match="row 1, 'steps' is .*say it in words"):
        figures.table([["a", 1], ["b", value]], ["network", "steps"], caption="c")
    assert shown == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"caption": " "}, "caption is ' '"),
        ({"caption": None}, "caption is None"),
        ({"rows": []}, "rows is empty"),
        ({"rows": [["a", 1], ["b"]]}, "row 1 has 1 cells; head names 2 columns"),
        ({"head": []}, "head is"),
        ({"head": ["a", ""]}, "head is"),
        ({"head": ["a", 1]}, "head is"),
        ({"align": "l"}, "align is 'l'"),
        ({"align": "lx"}, "align is 'lx'"),
        ({"align": ["l", "r"]}, "align is"),
        ({"highlight": 1}, "highlight is 1; accepted are numbers of rows from 0 to 0"),
        ({"highlight": [-1]}, "highlight is"),
        ({"highlight": "a"}, "highlight is 'a'"),
        ({"highlight": [False]}, "highlight is \\[False\\]"),
    ],
)
def test_bad_input_is_named(arguments, message, shown):
    good = {"rows": [["a", 1]], "head": ["network", "steps"], "caption": "c"}
    with pytest.raises(ValueError, match=message):
        figures.table(**good | arguments)
    assert shown == [] and "tables_shown" not in record._facts
