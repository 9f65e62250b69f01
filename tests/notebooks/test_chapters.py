"""Every chapter: its anatomy and measure, its kept claim texts, and that it runs the same twice."""

import io
import json
import re
import statistics
import subprocess
import sys
import tokenize
from pathlib import Path

import nbformat
import pytest
import yaml
from IPython.core.inputtransformer2 import TransformerManager
from nbformat.v4 import new_code_cell, new_notebook, new_output

from kempe_nb.__main__ import main
from kempe_nb.notebook.results import FEWEST_RUNS
from kempe_nb.publish.accept import CLAIM_TAGS, is_claim_cell
from kempe_nb.publish.execute import plan
from kempe_nb.publish.project import Project, code_cells, read_notebook
from kempe_nb.publish.select import tables_of

PROJECT = Project.find(Path(__file__).parent)
CHAPTERS = PROJECT.notebooks()
#: Names of arguments whose values are prose.
TEXT_NAMES = ("alt", "caption", "source", "paper", "unit")
SECTIONS = [
    "Parameters",
    "The theory",
    "The experiments",
    "Play",
    "Make it fast",
    "Beside the paper",
    "What the paper does not show",
    "Exercises",
    "At full scale",
    "Claims of this chapter",
    "References",
]

each_chapter = pytest.mark.parametrize("name", CHAPTERS)


def prose(notebook):
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def lines_of(cell):
    return [line for line in cell.source.splitlines() if line.strip()]


def kept_text_problems(notebook):
    """Return what is wrong with the outputs that a source notebook keeps; nbval overlooks some."""
    problems = []
    for cell in code_cells(notebook):
        claims_here = re.findall(r"claims\.(?:check|close)\(", cell.source)
        stored = "".join(output.get("text", "") for output in cell.outputs)
        if bool(claims_here) != is_claim_cell(cell):
            problems.append(f"tags {CLAIM_TAGS} and claims disagree in {lines_of(cell)[0]!r}")
        if not claims_here and (cell.outputs or cell.execution_count is not None):
            problems.append(f"outputs are kept in {lines_of(cell)[0]!r}")
        if claims_here:
            verdicts = re.findall(r"^(?:HOLDS|FAILS|DIFFERS)  [a-z0-9-]+$", stored, re.M)
            closing = re.findall(r"^\d+ claims: ", stored, re.M)
            if len(verdicts) + len(closing) != len(claims_here) or cell.execution_count is None:
                problems.append(f"a kept claim text is missing in {lines_of(cell)[0]!r}")
    return problems


@each_chapter
def test_the_claim_texts_are_kept_and_nothing_else_is(name):
    notebook = read_notebook(CHAPTERS[name])
    assert kept_text_problems(notebook) == []
    assert "widgets" not in notebook.metadata


@each_chapter
def test_a_removed_claim_text_is_noticed(name):
    notebook = read_notebook(CHAPTERS[name])
    cells = [cell for cell in code_cells(notebook) if is_claim_cell(cell)]
    kept, cells[0].outputs, cells[0].execution_count = cells[0].outputs, [], None
    assert len(kept_text_problems(notebook)) == 1
    cells[0].outputs, cells[0].execution_count = kept, 1
    assert kept_text_problems(notebook) == []


def lines_of_code(cell):
    """Return how many lines of a cell hold a name, a keyword or a number.

    The sentences of claims and the texts of figures are prose that happens to stand in a cell, and
    where the formatter puts a bracket says nothing about length: neither counts.
    """
    source = TransformerManager().transform_cell(cell.source)
    words = (tokenize.NAME, tokenize.NUMBER)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return len({t.start[0] for t in tokens if t.type in words and t.string not in TEXT_NAMES})


@each_chapter
def test_the_cells_are_short_and_there_is_prose_around_them(name):
    notebook = read_notebook(CHAPTERS[name])
    lengths = [lines_of_code(cell) for cell in code_cells(notebook)]
    assert statistics.median(lengths) <= 8
    assert statistics.quantiles(lengths, n=10)[-1] <= 20
    words = len(re.findall(r"[A-Za-z’']{2,}", prose(notebook)))
    assert 8 <= words / sum(lengths) <= 15


@each_chapter
def test_the_sections_stand_in_the_order_of_all_chapters(name):
    headings = re.findall(r"^## (.+)$", prose(read_notebook(CHAPTERS[name])), re.M)
    assert headings == SECTIONS


@each_chapter
def test_every_exercise_has_a_folded_executed_solution(name):
    notebook = read_notebook(CHAPTERS[name])
    exercises = re.findall(r"\{exercise\}\n:label: (\S+)", prose(notebook))
    assert len(exercises) >= 5
    for label in exercises:
        start = next(
            i for i, c in enumerate(notebook.cells) if f"{{solution-start}} {label}\n" in c.source
        )
        assert ":class: dropdown" in notebook.cells[start].source
        body = []
        for cell in notebook.cells[start + 1 :]:
            if "{solution-end}" in cell.source:
                break
            body.append(cell)
        code = [cell.source for cell in body if cell.cell_type == "code"]
        assert any(re.search(r"^\s*(assert |np\.testing\.)", text, re.M) for text in code), label


@each_chapter
def test_the_install_cell_names_the_repository_of_the_one_setting(name):
    repository = yaml.safe_load((PROJECT.root / "_config.yml").read_text())["repository"]["url"]
    first = code_cells(read_notebook(CHAPTERS[name]))[0]
    # A clone, not the package alone: the stored runs of the chapter stand beside it.
    clone = repository.rsplit("/", 1)[-1]
    assert f"    !git clone --quiet --depth 1 {repository}\n" in first.source
    assert first.source.endswith(f"    %pip install -q ./{clone}\n    %cd -q {clone}/book/chapters")


@each_chapter
def test_the_executed_copy_shows_what_the_chapter_promises(name):
    (task,) = plan(PROJECT, [name], "cpu", {})
    facts = json.loads(task.facts.read_text())
    source = "\n".join(cell.source for cell in code_cells(read_notebook(CHAPTERS[name])))
    assert facts["cells_executed"] == len(code_cells(read_notebook(CHAPTERS[name])))
    assert facts["figures"] == len(re.findall(r"figures\.show\(", source))
    assert facts["sliders"] == len(re.findall(r"sliders\.explore\(", source)) >= 3
    assert len(facts["claims"]) == len(re.findall(r"claims\.check\(", source))
    assert all(claim["verdict"] == claim["expected"] for claim in facts["claims"])
    assert facts["seconds"] <= 120 and facts["peak_mib"] <= 4096


@each_chapter
@pytest.mark.slow
def test_the_same_seed_gives_the_same_values_and_another_seed_the_same_verdicts(
    name, capfd, monkeypatch
):
    monkeypatch.chdir(PROJECT.root)
    (default,) = plan(PROJECT, [name], "cpu", {})
    claims = json.loads(default.facts.read_text())["claims"]
    for seed in ("0", "1"):
        (task,) = plan(PROJECT, [name], "cpu", {"seed": seed})
        assert main(["run", name, "-p", f"seed={seed}"]) == 0, capfd.readouterr().out
        again = json.loads(task.facts.read_text())["claims"]
        task.copy.unlink(), task.facts.unlink()
        assert [(c["id"], c["verdict"]) for c in again] == [(c["id"], c["verdict"]) for c in claims]
        if seed == "0":
            assert [c["measured"] for c in again] == [c["measured"] for c in claims]
        else:
            assert [c["measured"] for c in again] != [c["measured"] for c in claims]


@each_chapter
def test_every_stored_file_is_read_by_the_page_which_tells_where_it_comes_from(name):
    stored = sorted(file.stem for file in PROJECT.results(name).glob("*.csv"))
    facts = json.loads(plan(PROJECT, [name], "cpu", {})[0].facts.read_text())
    assert sorted(facts.get("stored", {})) == [f"{name}/{table}" for table in stored]
    told = re.findall(r"```\{stored\} (\S+)", prose(read_notebook(CHAPTERS[name])))
    assert sorted(told) == stored


def stored_runs(chapter, table):
    """Return how many runs of a table are stored for the default profile."""
    lines = (PROJECT.book / "results" / chapter / f"{table}.csv").read_text().splitlines()
    return len(lines) - 1


@each_chapter
def test_a_chapter_with_stored_runs_compares_its_own_run_with_each_table_of_ten(name):
    notebook = read_notebook(CHAPTERS[name])
    source = "\n".join(cell.source for cell in code_cells(notebook))
    kept = re.findall(r"results\.keep\(\s*[\"'](\w+)", source)
    assert sorted(kept) == sorted(tables_of(notebook))
    # With fewer runs a comparison that could fail is not to be had, and `distance` refuses it.
    enough = [table for table in kept if stored_runs(name, table) >= FEWEST_RUNS]
    assert len(re.findall(r"results\.distance\(", source)) >= len(enough)


def nbval(path):
    """Run nbval on one notebook in a process of its own; return its exit status and its output."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval-lax"]
    ran = subprocess.run(
        [*command, "--rootdir", str(path.parent), "-c", "/dev/null", str(path)],
        capture_output=True,
        text=True,
        cwd=path.parent,
    )
    return ran.returncode, ran.stdout


@each_chapter
@pytest.mark.slow
def test_nbval_passes_on_the_kept_claim_texts(name):
    status, output = nbval(CHAPTERS[name])
    assert status == 0, output


CHECK = (
    'from kempe_nb.notebook import claims\n_ = claims.check("a", "One.", 1, at_most=2, source="t")'
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "status"),
    [("HOLDS  a\n  One.\n", 0), ("FAILS  a\n  One.\n", 1), ("HOLDS  a\n  Two.\n", 1), (None, 1)],
)
def test_nbval_fails_when_a_kept_text_is_changed_or_removed(tmp_path, text, status):
    cell = new_code_cell(CHECK, metadata={"tags": list(CLAIM_TAGS)}, execution_count=1)
    cell.outputs = [] if text is None else [new_output("stream", name="stdout", text=text)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = tmp_path / "chapter.ipynb"
    nbformat.write(new_notebook(cells=[cell], metadata={"kernelspec": kernel}), path)
    found, output = nbval(path)
    assert found == status, output
