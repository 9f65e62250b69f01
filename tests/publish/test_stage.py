"""What Sphinx reads: present text and code with the outputs of the last run."""

import re
import stat

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from kempe_nb.__main__ import main
from kempe_nb.notebook import figures
from kempe_nb.publish.checkout import write_atomically, write_if_changed
from kempe_nb.publish.execute import plan
from kempe_nb.publish.project import UsageError
from kempe_nb.publish.stage import RECORDS, graft, stage


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
