"""A network of one local server, an empty cache, and a tiny published MNIST."""

import contextlib
import gzip
import http.server
import threading

import pytest

pytest.register_assert_rewrite("corpus_checks")

from tiny_sets import declare_mnist, mnist_arrays, pack  # noqa: E402


class Site:
    """What the server serves: content by path, and how much of it is really sent."""

    def __init__(self, address):
        self.address = address
        self.clear()

    def clear(self):
        self.content = {}
        self.cut_after = {}
        self.garbled = set()
        self.requests = []
        self.headers = {}
        self.packs = False


@pytest.fixture(scope="session")
def server():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            site.requests.append(self.path)
            if self.path in site.garbled:
                self.wfile.write(b"this is no HTTP\r\n\r\n")
                return
            content = site.content.get(self.path)
            if content and site.packs and "gzip" in self.headers.get("Accept-Encoding", ""):
                content = gzip.compress(content)
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            for name, value in site.headers.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(content[: site.cut_after.get(self.path)])

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        site = Site(f"http://127.0.0.1:{running.server_port}/")
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        yield site
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def site(server, monkeypatch):
    """The server, empty; proxies of the surroundings are not asked for it."""
    server.clear()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return server


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KEMPE_NB_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def mnist(site, monkeypatch):
    """A published MNIST of seven images; returns its arrays and its packed files."""
    arrays = mnist_arrays()
    packed = pack(arrays)
    declare_mnist(monkeypatch, packed, [site.address])
    site.content.update({f"/{name}": content for name, content in packed.items()})
    return arrays, packed
