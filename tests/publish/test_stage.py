"""What Sphinx reads: present text and code with the outputs of the last run."""

import hashlib
import json
import re
import stat

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from kempe_nb.__main__ import main
from kempe_nb.notebook import figures
from kempe_nb.publish.accept import CLAIM_TAGS, is_claim_cell
from kempe_nb.publish.checkout import write_atomically, write_if_changed
from kempe_nb.publish.execute import plan
from kempe_nb.publish.project import UsageError, tags_of
from kempe_nb.publish.stage import (
    RECORDS,
    code_of_claim,
    fold_together,
    graft,
    hide_claims,
    record_of,
    stage,
)


def figure_output(alt, caption, **values):
    """Return the output that `figures.show` leaves in a notebook."""
    texts = figures.fill({"alt": alt, "caption": caption}, values)
    return new_output(
        "display_data",
        data={"text/html": figures.figure_html("<svg>old</svg>", **texts)},
        metadata=figures.text_metadata({"alt": alt, "caption": caption}, [values]),
    )


def call(alt, caption):
    return f"figures.show(fig, alt={alt!r}, caption={caption!r}, top=2)"


def test_a_changed_text_reaches_the_page_with_the_values_of_the_run():
    ran = new_code_cell(call("old {top}", "old"), execution_count=3)
    ran.outputs = [figure_output("old {top}", "old", top=2)]
    source = new_code_cell(call("new & {top:.1f}", "newer"))
    page = graft(new_notebook(cells=[source]), new_notebook(cells=[ran]))
    markup = page.cells[0].outputs[0].data["text/html"]
    assert 'aria-label="new &amp; 2.0"' in markup
    assert "<figcaption>newer</figcaption>" in markup
    # Only the texts are replaced, not the same letters elsewhere.
    assert "<svg>old</svg>" in markup
    assert page.cells[0].execution_count == 3


def test_each_frame_of_a_slider_gets_its_own_text():
    old = {"alt": "Same for all.", "caption": "old"}
    frames = [{"a": value} for value in (1, 2, 3)]
    picture = f'<div role="img" aria-label="{old["alt"]}"></div>'
    markup = picture * 3 + "<figcaption>old</figcaption>"
    ran = new_code_cell('sliders.explore(d, alt="Same for all.", caption="old", a=[1, 2, 3])')
    ran.outputs = [
        new_output(
            "display_data",
            data={"text/html": markup},
            metadata=figures.text_metadata(old, frames),
        )
    ]
    source = new_code_cell('sliders.explore(d, alt="a is {a}", caption="new", a=[1, 2, 3])')
    page = graft(new_notebook(cells=[source]), new_notebook(cells=[ran]))
    found = page.cells[0].outputs[0].data["text/html"]
    assert re.findall('aria-label="([^"]*)"', found) == ["a is 1", "a is 2", "a is 3"]
    assert "<figcaption>new</figcaption>" in found


def test_texts_that_follow_each_other_are_not_replaced_twice():
    frames = [{"a": 1, "b": 2}, {"a": 2, "b": 3}]
    markup = "".join(f'<div role="img" aria-label="{frame["a"]}"></div>' for frame in frames)
    ran = new_code_cell('sliders.explore(d, alt="{a}", caption="c")')
    metadata = figures.text_metadata({"alt": "{a}", "caption": "c"}, frames)
    ran.outputs = [new_output("display_data", data={"text/html": markup}, metadata=metadata)]
    source = new_code_cell('sliders.explore(d, alt="{b}", caption="c")')
    page = graft(new_notebook(cells=[source]), new_notebook(cells=[ran]))
    found = page.cells[0].outputs[0].data["text/html"]
    assert re.findall('aria-label="([^"]*)"', found) == ["2", "3"]


def test_a_figure_shown_by_a_function_of_another_cell_gets_its_text():
    def pair(alt):
        define = f"def plot():\n    figures.show(fig, alt={alt!r}, caption='c')"
        return [new_code_cell(define), new_code_cell("plot()")]

    ran = pair("old")
    ran[1].outputs = [figure_output("old", "c")]
    page = graft(new_notebook(cells=pair("new")), new_notebook(cells=ran))
    assert 'aria-label="new"' in page.cells[1].outputs[0].data["text/html"]


def test_two_equal_texts_of_one_cell_that_part_are_refused():
    old = new_code_cell(call("same", "c") + "\n" + call("same", "c"))
    new = new_code_cell(call("one", "c") + "\n" + call("two", "c"))
    with pytest.raises(UsageError, match="had the same alt 'same'"):
        graft(new_notebook(cells=[new]), new_notebook(cells=[old]))


def test_prose_and_code_are_the_present_ones_and_papermills_cell_is_gone():
    source = new_notebook(cells=[new_markdown_cell("new prose"), new_code_cell("x = 1  # new")])
    injected = new_code_cell("p = 1", metadata={"tags": ["injected-parameters"]})
    ran = new_code_cell("x = 1", outputs=[new_output("stream", text="out")])
    page = graft(source, new_notebook(cells=[new_markdown_cell("old"), injected, ran]))
    assert [cell.source for cell in page.cells] == ["new prose", "x = 1  # new"]
    assert page.cells[1].outputs[0].text == "out"


def test_a_field_that_the_run_did_not_record_is_refused():
    ran = new_code_cell(call("old", "c"), outputs=[figure_output("old", "c", top=2)])
    source = new_code_cell(call("{bottom}", "c"))
    with pytest.raises(ValueError, match="bottom"):
        graft(new_notebook(cells=[source]), new_notebook(cells=[ran]))


@pytest.mark.slow
def test_staging_needs_a_fresh_copy_and_forgets_deleted_pages(project, write):
    write("chapter", "x = 1")
    (project.book / "intro.md").write_text("# Intro")
    tasks = plan(project, [], "cpu", {})
    with pytest.raises(UsageError, match="chapter has no up-to-date executed copy"):
        stage(project, tasks)
    assert main(["run"]) == 0
    target = stage(project, tasks)
    staged = sorted(str(p.relative_to(target)) for p in target.rglob("*") if p.is_file())
    assert staged == [f"{RECORDS}/chapters/chapter.json", "chapters/chapter.ipynb", "intro.md"]
    before = (target / "chapters" / "chapter.ipynb").stat().st_mtime_ns
    (project.book / "intro.md").unlink()
    stage(project, tasks)
    assert not (target / "intro.md").exists()
    # An unchanged page keeps its time, so that Sphinx does not read it again.
    assert (target / "chapters" / "chapter.ipynb").stat().st_mtime_ns == before
    write("chapter", "x = 1", prose="Other prose.")
    stage(project, tasks)
    page = nbformat.read(target / "chapters" / "chapter.ipynb", 4)
    assert "Other prose." in page.cells[0].source
    assert "HOLDS" in page.cells[-2].outputs[0].text


@pytest.mark.slow
def test_the_claims_of_a_lesson_are_not_on_its_page_and_its_record_shows_their_code(project, write):
    show = (
        "from matplotlib import pyplot as plt\nfrom kempe_nb.notebook import figures\n"
        "fig, axes = plt.subplots()\n_ = axes.plot([1, 2])\n"
        'figures.show(fig, alt="A line.", caption="old")'
    )
    for name in ("paper/1_start", "old_form"):
        write(name, show)
    stored = project.results("paper") / "laws.csv"
    stored.parent.mkdir()
    stored.write_text("a\n1\n")
    digest = hashlib.sha256(stored.read_bytes()).hexdigest()
    told = {"notebook": "paper/1_start", "table": "laws", "profile": "cpu", "grid": {}}
    told |= {"commit": ["a"], "code": "c", "modules": {}, "sha256": digest}
    stored.with_suffix(".json").write_text(json.dumps(told))
    (project.book / "chapters" / "paper" / "index.md").write_text("# Paper")
    # A page of the book may be called results; it is a folder of tables in a chapter only.
    (project.book / "results").mkdir()
    (project.book / "results" / "page.md").write_text("# Results")
    assert main(["run"]) == 0
    target = stage(project, plan(project, [], "cpu", {}))
    staged = sorted(str(p.relative_to(target)) for p in target.rglob("*") if p.is_file())
    assert staged == [
        *(f"{RECORDS}/chapters/old_form.json", f"{RECORDS}/chapters/paper/1_start.json"),
        *(f"{RECORDS}/stored_runs", "chapters/old_form.ipynb", "chapters/paper/1_start.ipynb"),
        *("chapters/paper/index.md", "results/page.md"),
    ]
    for name, shown in (("paper/1_start", 0), ("old_form", 2)):
        page = nbformat.read(target / "chapters" / f"{name}.ipynb", 4)
        claims_here = [cell for cell in page.cells if is_claim_cell(cell)]
        assert len(claims_here) == shown
        assert not any("remove-cell" in tags_of(cell) for cell in page.cells)
        # What is no claim stays on either page.
        assert any("figures.show" in cell.source for cell in page.cells)
        record = json.loads((target / RECORDS / "chapters" / f"{name}.json").read_text())
        assert record["notebook"] == name
        assert record["claims"][0]["code"].startswith('_ = claims.check("small"')
        assert record["figure_markup"] == {}
    # The executed copy and the source keep their cells as they are.
    assert "remove-cell" not in (project.book / "chapters" / "paper" / "1_start.ipynb").read_text()


def test_folded_cells_that_follow_each_other_are_one_fold_and_lose_no_code_and_no_output():
    def cell(source, *tags, shows=""):
        made = new_code_cell(source, metadata={"tags": list(tags)})
        made.outputs = [new_output("stream", name="stdout", text=shows)] if shows else []
        return made

    folded, claim = ("hide-input",), ("remove-cell",)
    notebook = new_notebook(
        cells=[
            cell("a = 1", *folded, "remove-output", shows="noise"),
            cell("claim", *claim),
            cell("b = 2", *folded),
            cell("print(c)", *folded, shows="3"),
            cell("d = 4", *folded),
            new_markdown_cell("Prose."),
            cell("e = 5", *folded),
            cell("f = 6"),
        ]
    )
    fold_together(notebook)
    texts = [(c.source, [o.text for o in c.get("outputs", [])]) for c in notebook.cells]
    assert texts == [
        # A fold ends with what it shows; prose and open code end it, too.
        ("a = 1\n\n\nb = 2\n\n\nprint(c)", ["3"]),
        ("d = 4", []),
        ("Prose.", []),
        ("e = 5", []),
        ("f = 6", []),
    ]


def test_a_record_holds_the_markup_of_the_figures_that_have_a_name(project, write):
    write("paper/1_start")
    (task,) = plan(project, [], "cpu", {})
    task.facts.parent.mkdir(parents=True)
    task.facts.write_text(json.dumps({"claims": []}))
    named, plain = figure_output("a", "b"), figure_output("c", "d")
    named.metadata["kempe_nb"]["name"] = "answer"
    cells = [new_code_cell("x", outputs=[plain, named, new_output("stream", text="t")])]
    assert record_of(task, new_notebook(cells=cells))["figure_markup"] == {
        "answer": named.data["text/html"]
    }


def test_the_code_of_a_claim_is_the_cell_that_checks_it():
    def cell(source, tags=CLAIM_TAGS):
        return new_code_cell(source, metadata={"tags": list(tags)})

    other = cell('claims.check("other", "Beside.", 1, at_most=2, source="see \\"small\\"")')
    speaks = cell('about = ["small"]; claims.check("third", "x", True, source=about[0])')
    untagged = cell('claims.check("small", ...)', tags=())
    checks = cell("claims.check(\n    'small', \"One.\", 1, at_most=2, source='t')")
    page = new_notebook(cells=[other, speaks, untagged, checks])
    assert code_of_claim(page, "small") == checks.source
    assert code_of_claim(page, "nowhere") == code_of_claim(page, "sm") == ""
    hide_claims(page)
    assert [("remove-cell" in tags_of(c)) for c in page.cells] == [True, True, False, True]


def test_the_results_of_the_benchmarks_are_staged_with_the_facts(project):
    project.benchmarks.mkdir(parents=True)
    (project.benchmarks / "operation.csv").write_text("device\n")
    staged = stage(project, []) / RECORDS / "operation.csv"
    assert staged.read_text() == "device\n"


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kempe_nb.publish.checkout.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_written_file_keeps_its_permissions(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    path.chmod(0o640)
    write_atomically(path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_the_same_content_is_not_written_again(tmp_path):
    path = tmp_path / "file"
    write_if_changed(path, b"x")
    before = path.stat()
    write_if_changed(path, b"x")
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    write_if_changed(path, b"y")
    assert path.read_bytes() == b"y"
