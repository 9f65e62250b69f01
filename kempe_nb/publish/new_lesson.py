"""The skeleton of a new lesson, and its entries in the lists that name lessons and papers.

A skeleton has the anatomy that every lesson has. Its gaps are marked TODO; what a lesson has to
hold stands in CONTRIBUTING.md and in tests/notebooks.
"""

import json
import re
import uuid
from pathlib import Path

import nbformat
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from kempe_nb.publish.project import Project, UsageError

_LESSON = re.compile(r"([a-z][a-z0-9_]*)/([1-9]\d*)_([a-z][a-z0-9_]*)")
#: What a lesson fetches on Colab; a test holds it to the address in _config.yml.
_COLAB = """# On Colab, fetch the package that this notebook imports and the stored runs.
import sys

if "google.colab" in sys.modules:
    !git clone --quiet --depth 1 {url}
    %pip install -q ./{name}
    %cd -q {name}/book/chapters/{paper}"""
_IMPORTS = """import numpy as np
from matplotlib import pyplot as plt

from kempe_nb.notebook import claims, figures, profile as profiles, sliders

run = profiles.start(profile, seed=seed)"""
_SLIDER = """def draw(power):
    x = np.linspace(0, 1, 50)
    fig, ax = plt.subplots(figsize=(5.2, 3.6))
    ax.plot(x, x**power)
    ax.set(xlabel="x", ylabel="TODO")
    return fig, {"middle": 0.5**power}


sliders.explore(
    draw,
    alt="TODO: a curve from 0 to 1 that is {middle:.2f} in the middle, for the power {power}.",
    caption="TODO: what to see.",
    labels={"power": "power"},
    start={"power": 1},
    power=[1, 2, 3],
)"""
_OPENING = """TODO: what to do with the slider, and what happens.

::::{{grid}} 1 1 2 2
:::{{grid-item-card}} You will learn
* TODO
:::
:::{{grid-item-card}} You should know
* TODO
:::
::::

```{{measured}}
```

A badge, like {{claim}}`{label}-first`, opens on a click and says what was checked.

## TODO: the first section

The middle is at {{claim}}`{label}-first`."""
_CLAIM = """_ = claims.check(
    "{label}-first",
    "TODO: the sentence that is checked.",
    0.5**1,
    at_most=0.5,
    kind="identity",
    source="definition",
)"""
_EXERCISE = """```{{exercise}}
:label: {label}-ex-{name}
*({kind}.)* {statement}
```

```{{solution-start}} {label}-ex-{name}
:class: dropdown
```

TODO: the answer."""
_EXERCISES = (
    ("write", "Routine", "TODO: write the square of a number as `square(x)`."),
    ("predict", "Predict first", "TODO: what will happen, and does it?"),
    ("research", "Research", "TODO: a question whose answer surprises."),
)
_GRADED = (
    ('def square(x):\n    """Return the square of a number."""\n    return x * x', "answer"),
    ("assert square(3) == 9", "check"),
    ("assert square(-2) == 4", "hidden-check"),
)
_INDEX = """# TODO: the title of the paper

*After "TODO" by TODO.*

TODO: the question of the paper in three sentences.

## The lessons

```{{lessons}}
{entry}
```
"""


def write_lesson(project: Project, name: str, title: str, question: str) -> list[Path]:
    """Write a lesson "PAPER/N_name" and its entries; return the files that were written.

    The lesson comes last among those of its paper. A new paper gets an opening page, a place in
    _toc.yml, a card in intro.md and a section in teach.md.

    Raises
    ------
    UsageError
        For a name that is no lesson's or is taken, or a number that is not the next one, before
        anything is written.
    """
    paper, number = _checked(project, name)
    folder = project.book / "chapters" / paper
    index = folder / "index.md"
    own = name.partition("/")[2]
    entry = f"- lesson: {own}\n  question: {_quoted(question)}\n  needs: TODO"
    texts = {project.root / "_toc.yml": _with_toc_entry(project, name)}
    if index.exists():
        texts[index] = _with_lesson(index.read_text(encoding="utf-8"), entry)
    else:
        texts[index] = _INDEX.format(entry=entry)
        for page, change in (("intro.md", _with_card), ("teach.md", _with_plan)):
            path = project.book / page
            texts[path] = change(path.read_text(encoding="utf-8"), paper, question)
    notebook = skeleton(project, name, number, title)
    folder.mkdir(parents=True, exist_ok=True)
    place = project.book / "chapters" / f"{name}.ipynb"
    nbformat.write(notebook, place)
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    return [place, *texts]


def _checked(project: Project, name: str) -> tuple[str, int]:
    """Return paper and number of a lesson that may be written."""
    match = _LESSON.fullmatch(name)
    if not match:
        raise UsageError(f"lesson is {name!r}; accepted is PAPER/N_name in small letters")
    paper, number = match[1], int(match[2])
    if (project.book / "chapters" / f"{paper}.ipynb").exists():
        raise UsageError(
            f"lesson is {name!r}, and {paper} is still one notebook; accepted is a paper in lessons"
        )
    known = [each for each in project.notebooks() if each.startswith(f"{paper}/")]
    if number != len(known) + 1:
        raise UsageError(f"lesson is {name!r}; accepted is the next number, {len(known) + 1}")
    return paper, number


def skeleton(project: Project, name: str, number: int, title: str) -> nbformat.NotebookNode:
    """Return the notebook of a new lesson, whose gaps are marked TODO."""
    paper = name.partition("/")[0]
    label = "".join(word[0] for word in paper.split("_")) + str(number)
    config = yaml.safe_load((project.root / "_config.yml").read_text(encoding="utf-8"))
    url = config["repository"]["url"]
    colab = _COLAB.format(url=url, name=url.rpartition("/")[2], paper=paper)
    claim_tags = ["keep_output", "nbval-check-output"]
    cells = [
        _text(f"# {title}\n\n*Lesson {number} of [TODO](index.md).*\n\nTODO: one paragraph."),
        _code(colab, "remove-cell"),
        _code('profile = "cpu"\nseed = 0', "parameters", "hide-input"),
        _code(_IMPORTS, "hide-input", "remove-output"),
        _code(_SLIDER, "hide-input"),
        _text(_OPENING.format(label=label)),
        _code(_CLAIM.format(label=label), *claim_tags),
        _text("## Exercises"),
    ]
    for exercise, kind, statement in _EXERCISES:
        told = {"label": label, "name": exercise, "kind": kind, "statement": statement}
        cells.append(_text(_EXERCISE.format(**told)))
        if exercise == "write":
            cells += [_code(source, tag) for source, tag in _GRADED]
        else:
            cells.append(_code("assert True  # TODO"))
        cells.append(_text("```{solution-end}\n```"))
    cells += [_text("## What we saw\n\n* TODO"), _code("claims.close()", *claim_tags)]
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return new_notebook(cells=cells, metadata=metadata)


def _quoted(text: str) -> str:
    """Return a text as YAML takes it, whatever it holds; a string of JSON is one of YAML."""
    return json.dumps(text, ensure_ascii=False)


def _text(source: str) -> nbformat.NotebookNode:
    return new_markdown_cell(source, id=uuid.uuid4().hex[:8])


def _code(source: str, *tags: str) -> nbformat.NotebookNode:
    metadata = {"tags": list(tags)} if tags else {}
    return new_code_cell(source, id=uuid.uuid4().hex[:8], metadata=metadata)


def _with_toc_entry(project: Project, name: str) -> str:
    """Return _toc.yml with the lesson behind the others of its paper."""
    text = (project.root / "_toc.yml").read_text(encoding="utf-8")
    paper, line = name.partition("/")[0], f"          - file: chapters/{name}\n"
    own = list(re.finditer(rf"^ +- file: chapters/{paper}/\d.*\n", text, re.M))
    if own:
        return text[: own[-1].end()] + line + text[own[-1].end() :]
    last = list(re.finditer(r"^ +- file: chapters/.*\n", text, re.M))[-1].end()
    opening = f"      - file: chapters/{paper}/index\n        sections:\n"
    return text[:last] + opening + line + text[last:]


def _with_lesson(text: str, entry: str) -> str:
    """Return an opening page with one more entry in its list of lessons."""
    start = text.index("```{lessons}")
    end = text.index("\n```", start)
    return text[:end] + "\n" + entry + text[end:]


def _with_card(text: str, paper: str, question: str) -> str:
    """Return intro.md with a card of the paper, which may have been planned."""
    own = re.search(rf"^- chapter: {paper}\n(?:  .*\n)*", text, re.M)
    if own:
        return text[: own.start()] + own[0].replace("  planned: true\n", "") + text[own.end() :]
    end = text.index("\n```", text.index("```{chapters}"))
    card = f"\n- chapter: {paper}\n  title: TODO\n  question: {_quoted(question)}"
    return text[:end] + card + text[end:]


def _with_plan(text: str, paper: str, question: str) -> str:
    """Return teach.md with a section on the paper."""
    link = f"The [chapter](chapters/{paper}/index.md) asks: {question}"
    return f"{text.rstrip()}\n\n## Lessons on TODO\n\n{link}\n\nTODO: objectives and a plan.\n"
