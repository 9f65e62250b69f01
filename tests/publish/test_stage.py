"""What Sphinx reads: present text and code with the outputs of the last run."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from kempe_nb.__main__ import main
from kempe_nb.notebook import figures
from kempe_nb.publish.execute import plan
from kempe_nb.publish.project import UsageError, write_atomically, write_if_changed
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
    assert staged == [f"{RECORDS}/chapter.json", "chapters/chapter.ipynb", "intro.md"]
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


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kempe_nb.publish.project.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_same_content_is_not_written_again(tmp_path):
    path = tmp_path / "file"
    write_if_changed(path, b"x")
    before = path.stat()
    write_if_changed(path, b"x")
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    write_if_changed(path, b"y")
    assert path.read_bytes() == b"y"
