"""The facts that runs left behind: which page they belong to, and which pages show them.

The facts of an executed notebook stand in a file with the notebook's own path below `_records`, so
their key is the name of the page, as `chapters/PAPER/1_name` or `kernels/OPERATION`.
"""

import functools
import json
import re
from pathlib import Path

from sphinx.environment import BuildEnvironment

from kempe_nb.publish.stage import RECORDS, STORED

#: The folders of the pages that are executed.
CHAPTERS, KERNELS = "chapters", "kernels"


def load_facts(env: BuildEnvironment) -> dict[str, dict]:
    """Return the facts of all staged notebooks by the names of their pages."""
    folder = Path(env.srcdir) / RECORDS
    files = {_docname(file, folder): file for file in folder.rglob("*.json")}
    return {name: _read(file) for name, file in sorted(files.items())}


def facts_of(env: BuildEnvironment, docname: str) -> dict | None:
    """Return the facts of one page, if it was executed; the page being read depends on them."""
    file = Path(env.srcdir) / RECORDS / f"{docname}.json"
    # A page that depends on a file that is not there would be read at every build; when the file
    # appears, all pages are read again (`names_of_records`).
    if not file.exists():
        return None
    env.note_dependency(str(file))
    return _read(file)


def all_facts(env: BuildEnvironment) -> dict[str, dict]:
    """Return all facts in the order of the table of contents; the page depends on all of them."""
    found = load_facts(env)
    order = {name: place for place, name in enumerate(_table_of_contents(env))}
    names = sorted(found, key=lambda name: (order.get(name, len(order)), name))
    return {name: facts_of(env, name) for name in names}


def load_stored(env: BuildEnvironment) -> dict[str, dict]:
    """Return the provenance of the stored runs by "chapter/name"; the page depends on it."""
    file = Path(env.srcdir) / RECORDS / STORED
    env.note_dependency(str(file))
    return _read(file) if file.exists() else {}


def names_of_records(folder: Path) -> list[str]:
    """Return the names of all records below a folder of sources, runs and benchmarks."""
    records = folder / RECORDS
    return sorted(file.relative_to(records).as_posix() for file in records.rglob("*.*"))


def paper_of(docname: str) -> str:
    """Return the paper that a page below chapters/ belongs to, or an empty string.

    A paper is one page, or a folder of lessons with an opening page.
    """
    folder, *rest = docname.split("/")
    return rest[0] if folder == CHAPTERS and rest else ""


def lessons_of(env: BuildEnvironment, paper: str) -> dict[str, dict]:
    """Return the facts of all executed pages of a paper."""
    return {name: facts for name, facts in all_facts(env).items() if paper_of(name) == paper}


def title_of(env: BuildEnvironment, docname: str) -> str:
    """Return the first heading of an executed page, or its name while no heading is known."""
    return (facts_of(env, docname) or {}).get("title") or docname.rpartition("/")[2]


def paper_page(env: BuildEnvironment, paper: str) -> str:
    """Return the page that a paper begins with."""
    index = f"{CHAPTERS}/{paper}/index"
    return index if _markdown(env, index).exists() else f"{CHAPTERS}/{paper}"


def paper_title(env: BuildEnvironment, paper: str) -> str:
    """Return the heading of the page that a paper begins with."""
    page = paper_page(env, paper)
    source = _markdown(env, page)
    if facts_of(env, page) or not source.exists():
        return title_of(env, page)
    env.note_dependency(str(source))
    heading = re.search(r"^# +(.+)$", source.read_text(encoding="utf-8"), flags=re.M)
    return heading[1].strip() if heading else paper


def _markdown(env: BuildEnvironment, docname: str) -> Path:
    return Path(env.srcdir) / f"{docname}.md"


def _docname(file: Path, folder: Path) -> str:
    return file.relative_to(folder).with_suffix("").as_posix()


def _read(file: Path) -> dict:
    return _parsed(file, file.stat().st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _parsed(file: Path, _time: int) -> dict:
    # A page asks for the same facts at every claim.
    return json.loads(file.read_text(encoding="utf-8"))


def _table_of_contents(env: BuildEnvironment) -> list[str]:
    """Return the pages in the order of _toc.yml; none where Sphinx's own toctrees are used."""
    site_map = getattr(env, "external_site_map", None)
    if site_map is None:
        return []
    found, ahead = [], [site_map.root.docname]
    while ahead:
        name = ahead.pop()
        found.append(re.sub(r"\.(md|ipynb)$", "", name))
        ahead += reversed(site_map[name].child_files() if name in site_map else [])
    return found
