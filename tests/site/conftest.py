"""The built site behind a local server, and a real browser."""

import contextlib
import functools
import http.server
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kempe_nb.publish.project import Project
from tests.conftest import page_of
from tests.site.sample import write_sample

HTML = Project.find(Path(__file__).parent).build / "html"
#: Made by Sphinx and its extensions: a redirect, indices, and parts of other pages.
NOT_OURS = {"genindex.html", "index.html", "prf-prf.html", "search.html"}
#: Pages by name, without their suffix.
PAGES = sorted(
    str(path.relative_to(HTML).with_suffix(""))
    for path in HTML.rglob("*.html")
    if "_static" not in path.relative_to(HTML).parts
    # The opening page of a paper is an index.html, too.
    and str(path.relative_to(HTML)) not in NOT_OURS
)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Print nothing."""


@contextlib.contextmanager
def serving(folder):
    """Serve a folder and give its address."""
    handler = functools.partial(_Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="session")
def site():
    """Serve the built site and return its address."""
    if not PAGES:
        pytest.fail("there is no built site: run make book first")
    with serving(HTML) as address:
        yield address


@pytest.fixture(scope="session")
def sample(tmp_path_factory):
    """Build the small book with the configuration of the book; return its folder of pages."""
    project = Project.find(Path(__file__).parent)
    folder = tmp_path_factory.mktemp("sample")
    source = folder / "source"
    source.mkdir()
    write_sample(source, project.book)
    command = [
        *(str(Path(sys.executable).with_name("jupyter-book")), "build", str(source), "--quiet"),
        *("--config", str(project.root / "_config.yml"), "--path-output", str(folder)),
        *("--toc", str(source / "_toc.yml"), "-W", "-n", "--keep-going"),
    ]
    built = subprocess.run(command, capture_output=True, text=True, cwd=project.root)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "_build" / "html"


@pytest.fixture(scope="session")
def sample_site(sample):
    """Serve the small book and return its address."""
    with serving(sample) as address:
        yield address


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium that is the system's own."""
    from playwright.sync_api import sync_playwright

    from tests.conftest import find_browser

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_browser(),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


class Visit:
    """A page opened in a fresh context, with everything that it asked for and complained about."""

    def __init__(self, context, address):
        self.requests, self.errors = [], []
        self.page = context.new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on(
            "console",
            lambda message: self.errors.append(message.text) if message.type == "error" else None,
        )
        self.page.goto(address, wait_until="load")
        if self.page.locator(".math").count() and self.page.evaluate("'MathJax' in window"):
            self.page.wait_for_selector("mjx-container", state="attached")


def visitor(chromium, address):
    """Give a function that opens a page of a site, in a theme, at a width, with other options."""
    contexts = []

    def visit(name, theme="light", width=1280, query="", **options):
        context = chromium.new_context(viewport={"width": width, "height": 900}, **options)
        context.add_init_script(
            f"localStorage.setItem('mode', '{theme}'); localStorage.setItem('theme', '{theme}')"
        )
        contexts.append(context)
        return Visit(context, f"{address}/{name}.html{query}")

    try:
        yield visit
    finally:
        for context in contexts:
            context.close()


@pytest.fixture
def visit(site, chromium):
    """Open a page of the site, fresh: for a test that operates it."""
    yield from visitor(chromium, site)


@pytest.fixture(scope="session")
def look(site, chromium):
    """Open a page of the site for a test that only reads it; tests of one page share it."""
    opened, closing, shown = {}, contextlib.ExitStack(), None

    def look(name, theme="light", width=1280):
        nonlocal shown
        if name != shown:
            closing.close()
            opened.clear()
            shown = name
        if (theme, width) not in opened:
            visits = visitor(chromium, site)
            opened[theme, width] = next(visits)(name, theme, width)
            closing.callback(visits.close)
        return opened[theme, width]

    with closing:
        yield look


def pytest_collection_modifyitems(items):
    """Put the tests of the pages in the order of the pages, so that a page is opened once."""
    places = [i for i, item in enumerate(items) if "test_pages.py::" in item.nodeid]
    ordered = sorted((items[i] for i in places), key=lambda item: page_of(item.nodeid))
    for place, item in zip(places, ordered, strict=True):
        items[place] = item


@pytest.fixture
def visit_sample(sample_site, chromium):
    """Open a page of the small book."""
    yield from visitor(chromium, sample_site)
