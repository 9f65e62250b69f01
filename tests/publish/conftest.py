"""A small project of its own for the tests of the executor."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from kempe_nb.publish.accept import CLAIM_TAGS
from kempe_nb.publish.project import Project

GOOD_CLAIM = 'claims.check("small", "One is at most two.", 1, at_most=2, source="a test")'


def chapter(*code, parameters='profile = "cpu"\nseed = 0', claim=GOOD_CLAIM, prose="Prose."):
    """Return a chapter: parameters, the given cells, one claim, and the closing cell."""
    cells = [new_markdown_cell(f"# Title\n\n{prose}\n\nSee {{claim}}`small`.")]
    if parameters is not None:
        cells.append(new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    cells.append(new_code_cell("from kempe_nb.notebook import claims"))
    cells += [new_code_cell(source) for source in code]
    cells += [
        new_code_cell(source, metadata={"tags": list(CLAIM_TAGS)})
        for source in (f"_ = {claim}", "claims.close()")
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project in the current folder."""
    (tmp_path / "book" / "chapters").mkdir(parents=True)
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: intro\n")
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


@pytest.fixture
def write(project):
    """Write a chapter into the project."""

    def write(name, *code, **options):
        path = project.book / "chapters" / f"{name}.ipynb"
        nbformat.write(chapter(*code, **options), path)
        return path

    return write
