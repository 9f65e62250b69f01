"""What holds for every notebook of the book: kept claim texts, install cell, facts, stored runs."""

import json
import re

import pytest
import yaml

from kempe_nb.notebook.results import FEWEST_RUNS
from kempe_nb.publish.accept import CLAIM_TAGS, is_claim_cell
from kempe_nb.publish.project import chapter_of, code_cells, read_notebook
from kempe_nb.publish.select import tables_of
from tests.notebooks.book import (
    NOTEBOOKS,
    PROJECT,
    each_notebook,
    facts_of,
    first_line_of,
    prose,
)


def kept_text_problems(notebook):
    """Return what is wrong with the outputs that a source notebook keeps; nbval overlooks some."""
    problems = []
    for cell in code_cells(notebook):
        claims_here = re.findall(r"claims\.(?:check|close)\(", cell.source)
        stored = "".join(output.get("text", "") for output in cell.outputs)
        if bool(claims_here) != is_claim_cell(cell):
            problems.append(f"tags {CLAIM_TAGS} and claims disagree in {first_line_of(cell)!r}")
        if not claims_here and (cell.outputs or cell.execution_count is not None):
            problems.append(f"outputs are kept in {first_line_of(cell)!r}")
        if claims_here:
            verdicts = re.findall(r"^(?:HOLDS|FAILS|DIFFERS)  [a-z0-9-]+$", stored, re.M)
            closing = re.findall(r"^\d+ claims: ", stored, re.M)
            if len(verdicts) + len(closing) != len(claims_here) or cell.execution_count is None:
                problems.append(f"a kept claim text is missing in {first_line_of(cell)!r}")
    return problems


@each_notebook
def test_the_claim_texts_are_kept_and_nothing_else_is(name):
    notebook = read_notebook(NOTEBOOKS[name])
    assert kept_text_problems(notebook) == []
    assert "widgets" not in notebook.metadata


@each_notebook
def test_a_removed_claim_text_is_noticed(name):
    notebook = read_notebook(NOTEBOOKS[name])
    before = len(kept_text_problems(notebook))
    kept_here = [cell for cell in code_cells(notebook) if is_claim_cell(cell) and cell.outputs]
    assert kept_here, "no claim text is kept at all"
    cell = kept_here[0]
    kept, cell.outputs, cell.execution_count = cell.outputs, [], None
    assert len(kept_text_problems(notebook)) == before + 1
    cell.outputs, cell.execution_count = kept, 1
    assert len(kept_text_problems(notebook)) == before


@each_notebook
def test_the_install_cell_names_the_repository_of_the_one_setting(name):
    repository = yaml.safe_load((PROJECT.root / "_config.yml").read_text())["repository"]["url"]
    first = code_cells(read_notebook(NOTEBOOKS[name]))[0]
    # A clone, not the package alone: the stored runs of the chapter stand beside it.
    clone = repository.rsplit("/", 1)[-1]
    folder = f"{clone}/{NOTEBOOKS[name].parent.relative_to(PROJECT.root).as_posix()}"
    assert f"    !git clone --quiet --depth 1 {repository}\n" in first.source
    assert first.source.endswith(f"    %pip install -q ./{clone}\n    %cd -q {folder}")


@each_notebook
def test_the_executed_copy_shows_what_the_notebook_promises(name):
    facts = facts_of(name)
    source = "\n".join(cell.source for cell in code_cells(read_notebook(NOTEBOOKS[name])))
    assert facts["cells_executed"] == len(code_cells(read_notebook(NOTEBOOKS[name])))
    # A notebook without any counted none.
    assert facts.get("figures", 0) == len(re.findall(r"figures\.show\(", source))
    assert facts.get("sliders", 0) == len(re.findall(r"sliders\.explore\(", source))
    assert len(facts["claims"]) == len(re.findall(r"claims\.check\(", source))
    assert all(claim["verdict"] == claim["expected"] for claim in facts["claims"])
    assert facts["peak_mib"] <= 4096


@pytest.mark.parametrize("chapter", dict.fromkeys(map(chapter_of, NOTEBOOKS)))
def test_every_stored_table_is_read_by_a_page_which_tells_where_it_comes_from(chapter):
    tables = sorted(file.stem for file in PROJECT.results(chapter).glob("*.csv"))
    read, told = set(), set()
    for name in (name for name in NOTEBOOKS if chapter_of(name) == chapter):
        here = {table.removeprefix(f"{chapter}/") for table in facts_of(name).get("stored", {})}
        said = re.findall(r"```\{stored\} (\S+)", prose(read_notebook(NOTEBOOKS[name])))
        # A page tells of what it reads and of nothing else, once.
        assert sorted(said) == sorted(here), name
        read |= here
        told |= set(said)
    assert sorted(read) == sorted(told) == tables


def stored_runs(chapter, table):
    """Return how many runs of a table are stored for the default profile; 0 without a file."""
    file = PROJECT.results(chapter) / f"{table}.csv"
    return len(file.read_text().splitlines()) - 1 if file.is_file() else 0


def is_on_other_data(chapter, table):
    """Return whether a table's runs were given data, which the page's own run does not have."""
    record = json.loads((PROJECT.results(chapter) / f"{table}.json").read_text())
    return "dataset" in record["grid"]


@each_notebook
def test_each_table_that_is_kept_is_stored_and_compared_where_there_are_ten_runs(name):
    notebook = read_notebook(NOTEBOOKS[name])
    source = "\n".join(cell.source for cell in code_cells(notebook))
    kept = re.findall(r"results\.keep\(\s*[\"'](\w+)", source)
    assert sorted(kept) == sorted(tables_of(notebook))
    runs = {table: stored_runs(chapter_of(name), table) for table in kept}
    assert [table for table in kept if not runs[table]] == []
    # With fewer runs a comparison that could fail is not to be had, and `distance` refuses it.
    enough = [
        table
        for table in kept
        if runs[table] >= FEWEST_RUNS and not is_on_other_data(chapter_of(name), table)
    ]
    assert len(re.findall(r"results\.distance\(", source)) >= len(enough)
