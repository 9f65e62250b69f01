"""The page of the benchmarks says what the CSV holds: wins, losses, gaps, and where it was run."""

import csv
import io
import re

import pytest

from benchmarks.results import COLUMNS

PAGE = "# Speed\n\n```{speed} chain\n```\n"
SMALL, LARGE = "atoms=10000 seeds=1 beta=1.5", "atoms=1000000 seeds=64 beta=1.5"


def row(implementation, shape=SMALL, median="2", **changes):
    """Return a row with a spread of ten percent around its median."""
    return dict.fromkeys(COLUMNS, "") | {
        "operation": "chain",
        "implementation": implementation,
        "shape": shape,
        "dtype": "float64",
        "device": "cpu: Some CPU",
        "threads": "1",
        "repetitions": "11",
        "median_ms": median,
        "p20_ms": str(0.9 * float(median)),
        "p80_ms": str(1.1 * float(median)),
        "peak_mib": "80.25",
        "minimum_bytes": {SMALL: "80000", LARGE: "8000000"}[shape],
        "gb_per_s": "0.04",
        "copy_gb_per_s": "12.5",
        "share_of_copy": "0.0032",
        "launches": "7",
        "launch_bound": "no",
        "torch": "2.13.0",
        "numpy": "2.4.6",
        "python": "3.11.7",
        "commit": "abc1234",
        "date": "2026-01-02",
        **changes,
    }


def missing(implementation, reason, shape=SMALL):
    """Return a row that was not run."""
    measured = ("repetitions", "median_ms", "p20_ms", "p80_ms", "peak_mib", "share_of_copy")
    empty = dict.fromkeys((*measured, "gb_per_s", "launches", "launch_bound"), "")
    return row(implementation, shape) | empty | {"note": f"not run: {reason}"}


ROWS = [
    row("kempe_nb definition", median="6", repetitions="1"),
    row("library loop", median="2", launches="", peak_mib="0.2"),
    row("slow library", median="2000", launch_bound="yes"),
    row("kempe_nb definition", LARGE, median="10"),
    row("library loop", LARGE, median="125"),
    missing("slow library", "over 60 s", LARGE),
]


def text_of(rows):
    lines = io.StringIO()
    writer = csv.DictWriter(lines, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    return lines.getvalue()


@pytest.fixture
def build(build_pages):
    """Build the page of some rows; return it and the warnings."""

    def build(rows, page=PAGE):
        pages, warnings = build_pages({"index.md": page, "_records/chain.csv": text_of(rows)})
        return pages["index"], warnings

    return build


def cells(page, table=0):
    """Return the texts of the rows of a table."""
    body = page.select("table.kempe-table")[table].tbody
    return [[c.get_text(" ", strip=True) for c in tr.find_all("td")] for tr in body.find_all("tr")]


def test_a_table_has_the_rows_of_each_shape_the_fastest_first(build):
    page, warnings = build(ROWS)
    assert warnings == ""
    rows = cells(page)
    assert [row[0] for row in rows] == [
        "atoms 10⁴, seeds 1",
        *("library loop", "kempe_nb definition (ours)", "slow library"),
        "atoms 10⁶, seeds 64",
        *("kempe_nb definition (ours)", "library loop", "slow library"),
    ]
    assert "In all rows: beta 1.5, dtype float64." in page.get_text()
    assert rows[1][1:] == ["2.00 ms (1.80 to 2.20)", "0.33 ×", "0.32 %", "–", "< 1 MiB"]
    assert rows[2][1:] == ["6.00 ms (once)", "✗ loses by 3.0 ×", "0.32 %", "7", "80.2 MiB"]
    assert rows[3][1] == "2.00 s (1.80 to 2.20) launch-bound"
    assert rows[7] == ["slow library", "not run: over 60 s"]


@pytest.mark.parametrize(
    ("operation", "said"),
    [
        (
            "zipf",
            "Implementations: definition and Triton, for int64. They return the same bits, on "
            "every device.",
        ),
        (
            "projected_curvature",
            "Implementations: definition and contraction, for float32, float64. They agree up to "
            "rounding.",
        ),
    ],
)
def test_the_page_says_what_the_operation_declares(build_pages, operation, said):
    rows = [{**each, "operation": operation} for each in ROWS]
    pages, warnings = build_pages(
        {
            "index.md": f"# Speed\n\n```{{speed}} {operation}\n```\n",
            f"_records/{operation}.csv": text_of(rows),
        }
    )
    assert warnings == ""
    assert said in pages["index"].get_text()


def test_where_we_lose_is_said_in_words_and_marked(build):
    page, _ = build(ROWS)
    rows = cells(page)
    assert rows[2][2] == "✗ loses by 3.0 ×" and rows[5][2] == "✓ wins by 12 ×"
    marks = [set(mark["class"]) for mark in page.select(".kempe-verdict")]
    assert marks == [{"kempe-verdict", "kempe-fails"}, {"kempe-verdict", "kempe-holds"}]
    ours = [tag.get_text() for tag in page.select("td strong") if "(ours)" in tag.get_text()]
    assert ours == ["kempe_nb definition (ours)"] * 2


def test_a_table_scrolls_by_keyboard_inside_a_region_with_a_name(build):
    region = build(ROWS)[0].select_one("div.kempe-scroll")
    assert region["role"] == "region" and region["tabindex"] == "0"
    assert region["aria-label"] == "Times of chain on Some CPU, 1 CPU thread"
    assert region.select_one("table.kempe-speed") is not None


def test_times_whose_ranges_overlap_are_even(build):
    page, _ = build([row("kempe_nb definition", median="2"), row("peer", median="2.1")])
    assert cells(page)[1][2] == "≈ even"


def test_without_a_peer_or_without_ours_nothing_is_compared(build):
    page, _ = build([row("kempe_nb definition"), row("peer", LARGE)])
    assert [cells(page)[index][2] for index in (1, 3)] == ["–", "–"]


def test_the_picture_says_what_it_shows(build):
    page, _ = build(ROWS)
    picture = page.select_one("figure.kempe-figure [role=img]")
    assert picture["aria-label"] == (
        "Median time over minimum bytes, both axes logarithmic. kempe_nb definition takes 6.00 ms "
        "to 10.0 ms; library loop takes 2.00 ms to 125 ms; slow library takes 2.00 s. The floor of "
        "a copy rises from 6.40 µs to 640 µs; nearest to it is kempe_nb definition with 0.32 % of "
        "the bandwidth of the copy."
    )
    labels = {text.get_text() for text in picture.select("svg text")}
    assert {"library loop", "copy at 12.5 GB/s", "minimum bytes", "median time in ms"} <= labels
    assert "currentColor" in str(picture) and "#000000" not in str(picture)
    caption = page.select_one("figure.kempe-figure figcaption").get_text()
    assert caption.startswith("chain on Some CPU, 1 CPU thread: one point for each shape")


def test_an_implementation_has_a_colour_and_a_marker_of_its_own(build):
    names = ["kempe_nb definition", *(f"peer {letter}" for letter in "abcde")]
    page, _ = build([row(name) for name in names])
    colours = re.findall(r"stroke: (#[0-9a-f]{6})", str(page.select_one("figure svg")))
    assert len(set(colours)) == len(names)


def test_the_numbers_say_where_they_come_from(build):
    page, _ = build(ROWS)
    assert page.select_one(".kempe-measured").get_text() == (
        "Measured: 2026-01-02, torch 2.13.0, NumPy 2.4.6, Python 3.11.7, commit abc1234. "
        "A copy moved 12.5 GB/s in the same run."
    )


def test_what_no_gpu_has_measured_is_said(build):
    assert "Not yet measured on a GPU." in build(ROWS)[0].get_text()


def test_every_machine_has_a_table_of_its_own(build):
    on_gpu = [each | {"device": "cuda: Some GPU", "driver": "580.1"} for each in ROWS[:3]]
    two = [each | {"threads": "2"} for each in ROWS[:2]]
    page, warnings = build(on_gpu + two + ROWS)
    assert warnings == ""
    assert [rubric.get_text() for rubric in page.select(".rubric")] == [
        "Some CPU, 1 CPU thread",
        "Some CPU, 2 CPU threads",
        "Some GPU",
    ]
    assert [len(cells(page, table)) for table in range(3)] == [8, 3, 4]
    assert "driver 580.1" in page.select(".kempe-measured")[2].get_text()
    assert "Not yet measured" not in page.get_text()
    assert len(page.select("figure.kempe-figure")) == 3


def test_a_machine_on_which_nothing_could_run_has_a_table_and_no_picture(build):
    page, warnings = build([missing("kempe_nb Triton", "no compiler")])
    assert warnings == ""
    assert cells(page)[1] == ["kempe_nb Triton (ours)", "not run: no compiler"]
    assert page.select("figure.kempe-figure") == []


def test_a_new_run_reaches_the_page_of_an_incremental_build(build):
    build(ROWS)
    page, _ = build([row("kempe_nb definition", median="42")])
    assert "42.0 ms" in cells(page)[1][1]


@pytest.mark.parametrize("page", ["# Speed\n\n```{speed} other\n```\n", PAGE])
def test_an_operation_without_results_is_a_warning(build, page):
    _, warnings = build([], page)
    name = "other" if "other" in page else "chain"
    assert f"operation '{name}' has no results; run python -m benchmarks {name}" in warnings


SUMMARY = "# Speed\n\n```{speed-summary}\n```\n\n```{toctree}\nkernels/chain\n```\n"


@pytest.fixture
def build_summary(build_pages):
    """Build the page of all operations, each given by its rows; return it and the warnings."""

    def build_summary(**operations):
        files = {f"_records/{name}.csv": text_of(rows) for name, rows in operations.items()}
        pages = {"index.md": SUMMARY, "kernels/chain.md": "# The chain\n\n```{speed} chain\n```\n"}
        pages, warnings = build_pages(pages | files)
        return pages["index"], warnings

    return build_summary


OTHER = [
    row(name, median=median, operation="other", device="cuda: Some GPU")
    for name, median in (("kempe_nb Triton", "2"), ("kempe_nb definition", "9"), ("peer", "2.1"))
]


def test_the_summary_has_a_line_for_each_operation_on_each_machine(build_summary):
    page, warnings = build_summary(chain=ROWS, other=OTHER)
    assert warnings == ""
    assert cells(page) == [
        ["chain", "Some CPU, 1 CPU thread", "1", "0", "1", "12 × faster", "3.0 × slower"],
        ["other", "Some GPU", "0", "1", "0", "even", "even"],
    ]
    # A page of its own, where there is one.
    assert [a["href"] for a in page.select("td a")] == ["kernels/chain.html"]


def test_the_picture_of_the_summary_says_what_it_shows(build_summary):
    picture = build_summary(chain=ROWS, other=OTHER)[0].select_one("figure [role=img]")
    assert picture["aria-label"] == (
        "Of 3 shapes ours wins 1, is even in 1 and loses 1. chain on Some CPU, 1 CPU thread is "
        "between 12 × faster and 3.0 × slower than the fastest peer and reaches 0.32 % of a copy; "
        "other on Some GPU is between 1.1 × faster and 1.1 × faster than the fastest peer and "
        "reaches 0.32 % of a copy."
    )
    labels = {text.get_text() for text in picture.select("svg text")}
    assert {"chain", "other", "Some GPU", "time of ours / time of the fastest peer"} <= labels
    assert "currentColor" in str(picture)


def test_a_shape_without_ours_or_without_a_peer_is_no_verdict(build_summary):
    page, warnings = build_summary(chain=[row("kempe_nb definition"), row("peer", LARGE)])
    assert "no operation was measured beside a peer" in warnings
    assert page.select("table") == []


def test_a_new_operation_reaches_the_summary_of_an_incremental_build(build_summary):
    build_summary(chain=ROWS)
    page, _ = build_summary(chain=ROWS[:3], other=OTHER)
    assert [line[0] for line in cells(page)] == ["chain", "other"]
    assert cells(page)[0][2:5] == ["0", "0", "1"]
