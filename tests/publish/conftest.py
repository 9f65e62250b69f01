"""A small project of its own for the tests of the executor, and a small site for the extension."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from bs4 import BeautifulSoup
from facts_of_a_run import FACTS
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils

from kempe_nb.publish.accept import CLAIM_TAGS
from kempe_nb.publish.checkout import write_if_changed
from kempe_nb.publish.project import Project

#: Seconds after which a process is taken to hang; a slow machine is no fault.
PATIENCE = 600

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
        path.parent.mkdir(exist_ok=True)
        nbformat.write(chapter(*code, **options), path)
        return path

    return write


@pytest.fixture(scope="session")
def scheduler(tmp_path_factory):
    """Arguments that send a sweep to one scheduler with two workers, which serves all files.

    A worker imports the code once. A test that kills workers, or that is about the cluster which a
    sweep starts by itself, does without.
    """
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        memory_limit=0,
        dashboard_address=":0",
        local_directory=tmp_path_factory.mktemp("dask"),
    ) as cluster:
        yield ["--scheduler", cluster.scheduler_address]


@pytest.fixture
def git(project):
    """Run git in the project, which becomes a repository with one commit of what is there."""

    def git(*words):
        who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        ran = subprocess.run(
            ["git", *who, *words], cwd=project.root, check=True, capture_output=True, text=True
        )
        return ran.stdout.strip()

    (project.root / ".gitignore").write_text("_build/\nlog\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    return git


@pytest.fixture
def start(project):
    """Start a command in a process group of its own, as a terminal does; none outlives the test."""
    started = []

    def start(*arguments, until):
        """Return the process when a cell of its chapter has written the file `until`."""
        # Behind nohup or & SIGINT is ignored, and a child inherits that; a handler it does not.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "kempe_nb", *arguments],
                cwd=project.root,
                start_new_session=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        finally:
            signal.signal(signal.SIGINT, before)
        started.append(process)
        deadline = time.monotonic() + PATIENCE
        while not until.exists():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, f"{until} never came"
            time.sleep(0.05)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def build_pages(tmp_path):
    """Build a site from files by name, again and again; return its pages and its warnings."""

    def build_pages(files):
        source = tmp_path / "source"
        extensions = "extensions = ['myst_parser', 'kempe_nb.publish.sphinx']\n"
        for name, content in {"conf.py": extensions, **files}.items():
            write_if_changed(source / name, content.encode())
        warnings = io.StringIO()
        with patch_docutils(), docutils_namespace():
            app = Sphinx(
                *map(str, (source, source, tmp_path / "out", tmp_path / "doctrees")),
                "html",
                status=None,
                warning=warnings,
            )
            app.build()
        pages = {
            name: BeautifulSoup((tmp_path / "out" / f"{name}.html").read_text(), "html.parser")
            for name in (file.removesuffix(".md") for file in files if file.endswith(".md"))
        }
        return pages, warnings.getvalue()

    return build_pages


@pytest.fixture
def build(build_pages):
    """Build a small site of a chapter and return its pages and its warnings."""

    def build(chapter, index="# Index\n\n```{toctree}\nchapters/one\n```\n", facts=FACTS):
        return build_pages(
            {
                "index.md": index,
                "chapters/one.md": chapter,
                "_records/chapters/one.json": json.dumps(facts),
            }
        )

    return build
