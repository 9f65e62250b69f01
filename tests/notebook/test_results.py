"""Stored runs: what may be kept, what comes back, and how far a new run is from old ones."""

import csv
import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from kempe_nb.notebook import record, results


def write_pair(folder, rows, name="chapter/laws"):
    """Write rows as a sweep does, and return the folder."""
    chapter, _, table = name.partition("/")
    place = folder / chapter / "results" / f"{table}.csv"
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    digest = hashlib.sha256(place.read_bytes()).hexdigest()
    place.with_suffix(".json").write_text(json.dumps({"sha256": digest}))
    return folder


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(finite, finite, st.integers(-(2**62), 2**62)), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_what_is_kept_comes_back_exactly(tmp_path_factory, runs):
    rows = []
    for first, second, count in runs:
        results.keep("laws", error=np.array([first, second]), count=count)
        rows.append(record.fact("tables", {})["laws"])
    folder = write_pair(tmp_path_factory.mktemp("results"), rows)
    stored = results.stored("chapter/laws", folder)
    np.testing.assert_array_equal(stored["error"], [run[:2] for run in runs])
    assert stored["count"].tolist() == [run[2] for run in runs]
    assert len(stored) == len(runs)


def test_axes_are_kept(tmp_path):
    values = np.arange(24.0).reshape(2, 3, 4) / 7
    results.keep("laws", values=values, word="as is")
    folder = write_pair(tmp_path, [record.fact("tables", {})["laws"]] * 2)
    stored = results.stored("chapter/laws", folder)
    np.testing.assert_array_equal(stored["values"], [values, values])
    assert stored["word"].tolist() == ["as is", "as is"]


def test_two_tables_of_one_run_stand_side_by_side():
    results.keep("laws", a=1)
    results.keep("memory", b=2.5)
    results.keep("laws", a=3)
    assert record.fact("tables", {}) == {"laws": {"a": 3}, "memory": {"b": 2.5}}


@pytest.mark.parametrize(
    ("table", "values", "message"),
    [
        ("Laws", {"a": 1}, "table is named 'Laws'"),
        ("laws", {}, "no values to keep"),
        ("laws", {"A": 1}, "a value is named 'A'"),
        ("laws", {"a": float("nan")}, "a is nan"),
        ("laws", {"a": [1, np.inf]}, "a is "),
        ("laws", {"a": []}, "a is "),
        ("laws", {"a": [1, "b"]}, "a is "),
        ("laws", {"a": None}, "a is None"),
        ("laws", {"a": "two\nlines"}, "without line breaks"),
    ],
)
def test_what_cannot_be_stored_is_refused(table, values, message):
    with pytest.raises(ValueError, match=message):
        results.keep(table, **values)
    assert record.fact("tables", {}) == {}


def test_runs_are_selected_by_their_columns(tmp_path):
    rows = [{"rate": r, "seed": s, "error": r + s} for r in (0.5, 2.0) for s in range(3)]
    stored = results.stored("chapter/laws", write_pair(tmp_path, rows))
    assert stored.where(rate=2.0)["error"].tolist() == [2, 3, 4]
    assert stored.where(rate=0.5, seed=1)["error"].tolist() == [1.5]
    with pytest.raises(results.ResultsError, match="no run of chapter/laws"):
        stored.where(rate=1.0)
    with pytest.raises(KeyError, match="no column 'mistake'; it has rate, seed, error"):
        stored["mistake"]


def test_the_folder_is_found_from_inside_the_book(tmp_path, monkeypatch):
    write_pair(tmp_path / "book" / "chapters", [{"a": 1}])
    monkeypatch.chdir(tmp_path / "book" / "chapters")
    assert results.stored("chapter/laws")["a"].tolist() == [1]
    with pytest.raises(results.ResultsError, match="other.csv cannot be read"):
        results.stored("chapter/other")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "book").rename(tmp_path / "moved")
    with pytest.raises(results.ResultsError, match="start the notebook inside a clone"):
        results.stored("chapter/laws")


def test_a_file_that_is_not_the_one_of_its_provenance_is_refused(tmp_path):
    write_pair(tmp_path, [{"a": 1}])
    (tmp_path / "chapter" / "results" / "laws.csv").write_text("a\n2\n")
    with pytest.raises(results.ResultsError, match="not the file"):
        results.stored("chapter/laws", tmp_path)


def test_the_distance_has_its_nominal_tail():
    # Of numbers that do come from the law of the stored ones, the share beyond z is that of a
    # normal variable, however few runs there are.
    rng = np.random.default_rng(5)
    for count in (3, 5, 20):
        draws = rng.normal(2, 3, (4_000, count + 1))
        beyond = np.mean([results.distance(d[0], d[1:]) > 2 for d in draws])
        assert abs(beyond - 0.0455) < 4 * np.sqrt(0.0455 * 0.9545 / 4_000)


def test_the_distance_of_a_mean_has_its_nominal_tail_and_finds_a_bias():
    rng = np.random.default_rng(6)
    draws = rng.normal(2, 3, (4_000, 8))
    beyond = np.mean([results.distance_of_mean(2.0, d) > 2 for d in draws])
    assert abs(beyond - 0.0455) < 4 * np.sqrt(0.0455 * 0.9545 / 4_000)
    assert results.distance_of_mean(3.0, rng.normal(2, 3, 1_000)) > 6


def test_the_largest_distance_of_all_numbers_counts():
    runs = np.array([[0.0, 0.0], [1.0, 0.1], [2.0, 0.2]])
    alone = results.distance([50.0], runs[:, :1])
    assert results.distance([50.0, 0.1], runs) == alone > results.distance([1.0, 0.1], runs)


def test_a_number_that_never_varied_has_to_be_met():
    runs = np.full((4, 1), 12.0)
    assert results.distance([12.0], runs) == 0
    assert results.distance([11.0], runs) == np.inf


@pytest.mark.parametrize(("live", "shape"), [([1.0], (2, 1)), ([1.0, 2.0], (5, 1)), (1.0, (5, 2))])
def test_too_few_runs_and_other_shapes_are_refused(live, shape):
    with pytest.raises(ValueError, match="runs has shape"):
        results.distance(live, np.zeros(shape))
