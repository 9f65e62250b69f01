"""Votes on galaxies, read from small catalogues in both published layouts."""

import gzip
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from galaxy_tables import (
    FIRST,
    LAYOUTS,
    PATHS,
    columns_of,
    counts_of,
    fractions_of,
    small_counts,
    write,
)
from hypothesis import given, strategies as st

from kempe_nb.data.errors import DataError
from kempe_nb.data.galaxies import CLASSES
from kempe_nb.data.galaxy_catalogue import GALAXY_DATASETS, WILLETT, votes_from_catalogue
from kempe_nb.data.galaxy_votes import VOTES, class_scores, curated

#: Votes and columns as they were read in the published sources, one by one.
WILLETT_COLUMNS = """
smooth: t01_smooth_or_features_a01_smooth_fraction
featured: t01_smooth_or_features_a02_features_or_disk_fraction
artifact: t01_smooth_or_features_a03_star_or_artifact_fraction
round: t07_rounded_a16_completely_round_fraction
in between: t07_rounded_a17_in_between_fraction
cigar: t07_rounded_a18_cigar_shaped_fraction
edge-on: t02_edgeon_a04_yes_fraction
not edge-on: t02_edgeon_a05_no_fraction
rounded bulge: t09_bulge_shape_a25_rounded_fraction
boxy bulge: t09_bulge_shape_a26_boxy_fraction
no bulge: t09_bulge_shape_a27_no_bulge_fraction
bar: t03_bar_a06_bar_fraction
no bar: t03_bar_a07_no_bar_fraction
spiral: t04_spiral_a08_spiral_fraction
no spiral: t04_spiral_a09_no_spiral_fraction
"""
GALAXY_DATASETS_COLUMNS = """
smooth: smooth-or-featured-gz2_smooth_fraction
featured: smooth-or-featured-gz2_featured-or-disk_fraction
artifact: smooth-or-featured-gz2_artifact_fraction
round: how-rounded-gz2_round_fraction
in between: how-rounded-gz2_in-between_fraction
cigar: how-rounded-gz2_cigar_fraction
edge-on: disk-edge-on-gz2_yes_fraction
not edge-on: disk-edge-on-gz2_no_fraction
rounded bulge: bulge-shape-gz2_round_fraction
boxy bulge: bulge-shape-gz2_boxy_fraction
no bulge: bulge-shape-gz2_no-bulge_fraction
bar: bar-gz2_yes_fraction
no bar: bar-gz2_no_fraction
spiral: has-spiral-arms-gz2_yes_fraction
no spiral: has-spiral-arms-gz2_no_fraction
"""


@pytest.mark.parametrize(
    "layout, columns, count",
    [
        (WILLETT, WILLETT_COLUMNS, "t09_bulge_shape_a26_boxy_count"),
        (GALAXY_DATASETS, GALAXY_DATASETS_COLUMNS, "bulge-shape-gz2_boxy"),
    ],
    ids=["willett", "galaxy-datasets"],
)
def test_columns_are_those_of_the_published_tables(layout, columns, count):
    published = dict(line.split(": ") for line in columns.strip().splitlines())
    assert layout.columns("_fraction") == published and tuple(published) == VOTES
    assert layout.columns(layout.count)["boxy bulge"] == count


@given(st.integers(0, 999), st.lists(st.sampled_from(PATHS), min_size=1, max_size=6))
def test_both_layouts_give_the_shares_of_the_votes(tmp_path_factory, seed, paths):
    counts = counts_of(np.random.default_rng(seed), paths, most=1 + seed % 50)
    for layout in LAYOUTS:
        path = tmp_path_factory.mktemp("layout") / "gz2.csv.gz"
        fractions, ids = votes_from_catalogue(write(path, columns_of(layout, counts)))
        assert tuple(fractions) == VOTES and ids.dtype == np.int64
        assert ids.tolist() == [FIRST + 11 * row for row in range(len(paths))]
        for vote, expected in fractions_of(counts).items():
            np.testing.assert_array_equal(fractions[vote], expected, vote)


def test_a_barred_spiral_of_which_many_are_unsure_is_one(tmp_path):
    given = {"featured": 90, "smooth": 10, "not edge-on": 80, "edge-on": 20, "bar": 60}
    given |= {"no bar": 40, "spiral": 70, "no spiral": 30, "rounded bulge": 20}
    counts = {vote: np.array([given.get(vote, 0)]) for vote in VOTES}
    for layout in LAYOUTS:
        path = write(tmp_path / "gz2.csv", columns_of(layout, counts))
        scores = class_scores(votes_from_catalogue(path)[0])
        assert scores.argmax() == CLASSES.index("barred spiral")
        assert scores.max() == pytest.approx(0.3024)


def test_a_question_that_nobody_reached_makes_no_score(tmp_path):
    counts = {vote: np.array([5 if vote == "artifact" else 0]) for vote in VOTES}
    for layout in LAYOUTS:
        path = write(tmp_path / "gz2.csv", columns_of(layout, counts))
        scores = class_scores(votes_from_catalogue(path)[0])
        assert scores.tolist() == [[0] * 9 + [1]]


def test_a_galaxy_that_nobody_saw_is_of_no_class(tmp_path):
    counts = small_counts()
    for each in counts.values():
        each[0] = 0
    path = write(tmp_path / "gz2.csv", columns_of(GALAXY_DATASETS, counts))
    scores = class_scores(votes_from_catalogue(path)[0])
    assert (scores[0] == 0).all() and 0 not in curated(scores, 4)[0]


def changed(tmp_path, layout, **new):
    """Return a catalogue with cells of one row, or columns, replaced."""
    columns = columns_of(layout, small_counts())
    for name, cells in new.items():
        old = list(columns[name])
        columns[name] = cells if isinstance(cells, list) else [*old[:2], cells, *old[3:]]
    return write(tmp_path / "changed.csv", columns)


def test_missing_columns_are_named(tmp_path):
    columns = columns_of(WILLETT, small_counts())
    columns = {
        name: cells
        for name, cells in columns.items()
        if name not in ("t03_bar_a06_bar_fraction", "t02_edgeon_a05_no_fraction")
    }
    said = "lacks the columns t02_edgeon_a05_no_fraction, t03_bar_a06_bar_fraction; accepted.*raw"
    with pytest.raises(DataError, match=said):
        votes_from_catalogue(write(tmp_path / "gz2.csv", columns))
    columns = columns_of(GALAXY_DATASETS, small_counts())
    del columns["bar-gz2_no_fraction"]
    with pytest.raises(DataError, match="lacks the columns bar-gz2_no_fraction; .*galaxy-datasets"):
        votes_from_catalogue(write(tmp_path / "gz2.csv", columns))
    columns = columns_of(GALAXY_DATASETS, small_counts())
    del columns["id_str"]
    with pytest.raises(DataError, match="lacks the galaxies' numbers; accepted .*dr7objid.*id_str"):
        votes_from_catalogue(write(tmp_path / "gz2.csv", columns))


@pytest.mark.parametrize("ending", ["_debiased", "_weighted_fraction"])
def test_other_fractions_under_the_name_of_raw_ones_are_noticed(tmp_path, ending):
    columns = columns_of(WILLETT, small_counts())
    # Close to raw ones, and with a sum of one: only the votes tell them apart.
    raw = np.array(columns["t04_spiral_a08_spiral_fraction"], float)
    other = np.where((raw > 0) & (raw < 1), 0.95 * raw + 0.025, raw)
    columns["t04_spiral_a08_spiral" + ending] = other.tolist()
    columns["t04_spiral_a09_no_spiral" + ending] = np.where(raw > 0, 1 - other, 0).tolist()
    for answer in ("a08_spiral", "a09_no_spiral"):
        columns[f"t04_spiral_{answer}_fraction"] = columns[f"t04_spiral_{answer}{ending}"]
    said = "t04_spiral_a0._.*fraction is not the share of its votes in .* of 20 rows; .*neither"
    with pytest.raises(DataError, match=said):
        votes_from_catalogue(write(tmp_path / "gz2.csv", columns))


def test_without_numbers_of_votes_fractions_have_to_sum_to_one(tmp_path):
    columns = columns_of(WILLETT, small_counts())
    columns = {name: cells for name, cells in columns.items() if not name.endswith("_count")}
    votes_from_catalogue(write(tmp_path / "gz2.csv", columns))
    columns["t03_bar_a06_bar_fraction"] = columns["t03_bar_a06_bar_debiased"]
    said = r"t03_bar_a06_bar_fraction \+ t03_bar_a07_no_bar_fraction is not 1 in .* rows"
    with pytest.raises(DataError, match=said):
        votes_from_catalogue(write(tmp_path / "gz2.csv", columns))


def test_published_fractions_are_rounded(tmp_path):
    columns = columns_of(WILLETT, small_counts())
    exact, _ = votes_from_catalogue(write(tmp_path / "gz2.csv", columns))
    for name in WILLETT.columns("_fraction").values():
        columns[name] = [f"{float(each):.3f}" for each in columns[name]]
    found, _ = votes_from_catalogue(write(tmp_path / "gz2.csv", columns))
    assert max(np.abs(found[vote] - exact[vote]).max() for vote in VOTES) <= 0.0005


BAR = "t03_bar_a06_bar_fraction"


@pytest.mark.parametrize(
    "layout, name, cell, said",
    [
        (WILLETT, BAR, "1.2", f"row 3, galaxy {FIRST + 22}: {BAR} is 1.2; accepted is 0 to 1"),
        (WILLETT, BAR, "-0.1", f"row 3, .*{BAR} is -0.1; accepted is 0 to 1"),
        (WILLETT, BAR, "inf", f"row 3, .*{BAR} is inf"),
        (WILLETT, BAR, "", f"row 3, .*{BAR} is nan; .* none for all answers to the question"),
        (WILLETT, BAR, "many", f"row 3: {BAR} is 'many'; accepted are numbers"),
        (
            WILLETT,
            "dr7objid",
            "5.87722981741363E+17",
            "row 3: dr7objid is '5.87.*; accepted are all",
        ),
        (GALAXY_DATASETS, "id_str", "", "row 3: id_str is ''"),
        (GALAXY_DATASETS, "id_str", str(2**63), "row 3: id_str is '9223372036854775808'"),
        (
            GALAXY_DATASETS,
            "smooth-or-featured-gz2_smooth_fraction",
            "nan",
            "row 3, .*smooth_fraction is nan",
        ),
    ],
)
def test_a_wrong_cell_is_named_by_its_row(tmp_path, layout, name, cell, said):
    with pytest.raises(DataError, match=said):
        votes_from_catalogue(changed(tmp_path, layout, **{name: cell}))


def test_what_is_no_table_is_refused(tmp_path):
    catalogue = write(tmp_path / "gz2.csv", columns_of(WILLETT, small_counts()))
    path = tmp_path / "broken.csv"
    with pytest.raises(DataError, match="broken.csv cannot be read"):
        votes_from_catalogue(path)
    lines = catalogue.read_text().splitlines()
    for content, said in (
        (b"", "lacks the columns"),
        ((lines[0] + "\n").encode(), "has no rows"),
        (catalogue.read_bytes()[:-30], "row 45 has .* cells; accepted are 62, as in the header"),
        (b"\xff\xfe\x00", "is not a readable table"),
        (gzip.compress(catalogue.read_bytes())[:-40], "is not a readable table"),
        (b"\x1f\x8b\x08\x00" + bytes(40), "is not a readable table"),
        (b"SIMPLE  =                    T", "is FITS; accepted is CSV, as of astropy"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=said):
            votes_from_catalogue(path)


def test_parquet_without_pyarrow_is_refused_with_the_way_to_convert_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "gz2_train_catalog.parquet").write_bytes(b"PAR1" + bytes(8) + b"PAR1")
    with pytest.raises(DataError, match=r"is parquet, which pyarrow.*accepted is CSV.*to_csv"):
        votes_from_catalogue(tmp_path / "gz2_train_catalog.parquet")


def parquet_of(columns):
    """Return a stand-in for pyarrow that knows one table: numbers, NaN, and strings of digits."""

    def column(name):
        numbers = [float(each) if each != "" else np.nan for each in columns[name]]
        return SimpleNamespace(to_numpy=lambda: np.array(numbers), to_pylist=lambda: columns[name])

    def read_table(path, columns):
        return SimpleNamespace(column={name: column(name) for name in columns}.__getitem__)

    schema = SimpleNamespace(names=list(columns))
    return SimpleNamespace(
        parquet=SimpleNamespace(read_schema=lambda path: schema, read_table=read_table)
    )


def test_parquet_with_pyarrow_gives_the_same_votes(tmp_path, monkeypatch):
    columns = columns_of(GALAXY_DATASETS, small_counts())
    expected, numbers = votes_from_catalogue(write(tmp_path / "gz2.csv", columns))
    (tmp_path / "gz2.parquet").write_bytes(b"PAR1")
    for ids in (columns["id_str"], [str(each) for each in columns["id_str"]]):
        monkeypatch.setitem(sys.modules, "pyarrow", parquet_of(columns | {"id_str": ids}))
        found, own = votes_from_catalogue(tmp_path / "gz2.parquet")
        assert (own == numbers).all()
        assert all((found[vote] == expected[vote]).all() for vote in VOTES)
    floats = [float(each) for each in columns["id_str"]]
    monkeypatch.setitem(sys.modules, "pyarrow", parquet_of(columns | {"id_str": floats}))
    with pytest.raises(DataError, match="row 1: id_str is '5.87.*accepted are all of its digits"):
        votes_from_catalogue(tmp_path / "gz2.parquet")
