"""The sources of a small book that holds every piece of our extension, whatever the book holds."""

import json
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from kempe_nb.notebook import figures, tables
from tests.publish.facts_of_a_run import CLAIM, FACTS

TOC = """format: jb-book
root: intro
chapters:
  - file: chapters/paper/index
    sections:
      - file: chapters/paper/1_first
      - file: chapters/paper/2_second
  - file: claims
"""

INTRO = """# A small book

One claim, {claim}`paper/1_first/small`, and a command:

```console
$ make book
```

```{chapters}
- chapter: paper
  title: The paper
  question: Does it rise, {claim}`paper/1_first/large`?
  picture: 1_first/two-slopes
- chapter: later
  title: A later paper
  question: Will it rise?
  planned: true
```
"""

INDEX = """# The paper

```{picture} 1_first/two-slopes
```

```{is-it-true}
- paper: Everything rises, for every size of network that anybody has tried so far.
  known: abstract
  claims: [1_first/small, 2_second/small]
  found: It rises, {claim}`1_first/small`, and again {claim}`2_second/small`.
- paper: On a large machine, too.
  known: Table 3
  verdict: not tested
  found: We have none.
```

```{lessons}
- lesson: 1_first
  question: Does it rise?
  needs: a course on rising things
- lesson: 2_second
  question: And then?
```
"""

FIRST = """# The first lesson

## Claims

Two in one sentence, {claim}`small` and {claim}`large`, and a third one of another page,
{claim}`2_second/small`.

| where | what |
|---|---|
| in a cell | {claim}`small` |
| without | words |

A word of code that a phone has no room for:
`python -m kempe_nb sweep chapter -p text=wikitext2_valid.txt+wikitext2_test.txt+another_file.txt`.

## Formulas and tables

$$a = b$$

$$
\\underbrace{a_1 + a_2 + a_3 + a_4 + a_5 + a_6 + a_7 + a_8 + a_9 + a_{10} + a_{11} + a_{12} + a_{13}
+ a_{14} + a_{15} + a_{16} + a_{17} + a_{18} + a_{19} + a_{20}}_{\\text{more than a phone has room
for}} = b
$$

| a long name of a column | another long name | a third long name | a fourth | a fifth | a sixth |
|---|---|---|---|---|---|
| 1234567890123 | 1234567890123 | 1234567890123 | 1234567890 | 123456789 | 1234567890 |
"""

SECOND = """# The second lesson

{claim}`small`

```{prf:theorem}
:label: second-theorem

It rises.
```
"""


def claim(name, **changes):
    code = f'claims.check("{name}", "One is at most two.", 1.25, at_most=2)\n' * 3
    return CLAIM | {"id": name, "code": code} | changes


FIGURE = figures.figure_html(
    '<svg viewBox="0 0 100 40" style="width:100%"><text x="5" y="20">a picture</text></svg>',
    alt="A line that rises & stops.",
    caption="A line.",
)
FIGURE_METADATA = figures.text_metadata({"alt": "a", "caption": "c"}, [{}])

CLAIMS = {
    "1_first": [
        claim("small"),
        claim("large", verdict="differs", paper="twice as much, " * 20, kind="consistency"),
    ],
    "2_second": [claim("small", verdict="fails", kind="identity")],
}


def table(rows, head, caption):
    """Return the output of `figures.table`."""
    cells, align, marked = tables.checked(rows, head, None, 0)
    markup = tables.markup(cells, head, caption=caption, align=align, marked=marked)
    return new_output("display_data", data={"text/html": markup})


def first_lesson():
    narrow = table(
        [["trained", 0.5, 12], ["random", 0.25, 3]], ["network", "error", "n"], "Narrow."
    )
    head = [f"long name {number}" for number in range(9)]
    wide = table([[1234567.0 + number for number in range(9)]], head, "Wide.")
    picture = new_output("display_data", data={"text/html": FIGURE}, metadata=FIGURE_METADATA)
    code = new_code_cell("1 + 1", outputs=[picture, narrow, wide], execution_count=1)
    folded = new_code_cell("2 + 2", metadata={"tags": ["hide-input"]}, execution_count=2)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    language = {"name": "python", "pygments_lexer": "ipython3"}
    metadata = {"kernelspec": kernel, "language_info": language}
    return new_notebook(cells=[new_markdown_cell(FIRST), code, folded], metadata=metadata)


def write_sample(folder: Path, book: Path) -> None:
    """Write the sources, with the static files and the bibliography of the book."""
    files = {
        "intro.md": INTRO,
        "claims.md": "# Every checked claim\n\n```{ledger}\n```\n",
        "chapters/paper/index.md": INDEX,
        "chapters/paper/1_first.ipynb": nbformat.writes(first_lesson()),
        "chapters/paper/2_second.md": SECOND,
        "_toc.yml": TOC,
        "references.bib": (book / "references.bib").read_text(encoding="utf-8"),
    }
    for name, claims in CLAIMS.items():
        title = f"The {name[2:]} lesson"
        facts = {"claims": claims, "title": title, "figure_markup": {"two-slopes": FIGURE}}
        files[f"_records/chapters/paper/{name}.json"] = json.dumps(FACTS | facts)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    static = folder / "_static"
    static.mkdir()
    for file in (book / "_static").iterdir():
        (static / file.name).write_bytes(file.read_bytes())
