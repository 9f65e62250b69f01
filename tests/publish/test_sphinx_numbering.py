"""Theorems and exercises are numbered by page, and references follow."""

import pytest

CONF = """extensions = [
    "myst_parser", "sphinx_proof", "sphinx_exercise", "kempe_nb.publish.sphinx",
]
"""
ONE = """# The first page

:::{prf:theorem}
:label: one-a

Content.
:::

:::{prf:theorem}
:label: one-b

See {prf:ref}`one-a` and {prf:ref}`two-b`, {prf:ref}`in words <two-b>`, {ref}`two-ex`.
:::

:::{exercise}
:label: one-ex

Do it.
:::
"""
TWO = """# A second page

:::{prf:theorem}
:label: two-a

Content.
:::

:::{prf:lemma}
:label: two-lemma

Content.
:::

:::{prf:theorem}
:label: two-b

See {prf:ref}`two-a`, {prf:ref}`two-lemma`, {prf:ref}`one-b`, {ref}`two-ex`, {ref}`one-ex`.
:::

:::{exercise}
:label: two-zero

Do it.
:::

:::{exercise}
:label: two-ex

Do it.
:::

:::{solution} two-ex
:label: two-answer

Done.
:::
"""


@pytest.fixture
def build(build_pages):
    """Build two pages; return the titles of their boxes, their references and the warnings."""

    def build(one=ONE, two=TWO):
        index = "# I\n\n```{toctree}\none\nfolder/two\n```\n"
        pages, warnings = build_pages(
            {
                "conf.py": CONF + "myst_enable_extensions = ['colon_fence']\n",
                "index.md": index,
                "one.md": one,
                "folder/two.md": two,
            }
        )
        titles = {
            name: [
                " ".join(title.get_text().split()) for title in page.select("p.admonition-title")
            ]
            for name, page in pages.items()
        }
        links = {
            name: [
                (link.get_text(), link["href"])
                for link in page.select(".body .proof p a.reference")
            ]
            for name, page in pages.items()
        }
        return titles, links, warnings

    return build


def test_each_page_counts_from_one(build):
    titles, _, warnings = build()
    assert warnings == ""
    assert titles["one"] == ["Theorem 1", "Theorem 2", "Exercise 1"]
    assert titles["folder/two"] == [
        *("Theorem 1", "Lemma 1", "Theorem 2"),
        *("Exercise 1", "Exercise 2", "Solution to Exercise 2"),
    ]


def test_a_reference_to_another_page_names_it(build):
    _, links, _ = build()
    assert links["one"] == [
        ("Theorem 1", "#one-a"),
        ("Theorem 2 of A second page", "folder/two.html#two-b"),
        ("in words", "folder/two.html#two-b"),
        ("Exercise 2 of A second page", "folder/two.html#two-ex"),
    ]
    assert links["folder/two"] == [
        ("Theorem 1", "#two-a"),
        ("Lemma 1", "#two-lemma"),
        ("Theorem 2 of The first page", "../one.html#one-b"),
        ("Exercise 2", "#two-ex"),
        ("Exercise 1 of The first page", "../one.html#one-ex"),
    ]


def test_a_new_theorem_reaches_the_other_page_of_an_incremental_build(build):
    build()
    before = ":::{prf:theorem}\n:label: new\n\nContent.\n:::\n\n:::{prf:lemma}"
    titles, links, warnings = build(two=TWO.replace(":::{prf:lemma}", before))
    assert warnings == ""
    assert titles["folder/two"][:4] == ["Theorem 1", "Theorem 2", "Lemma 1", "Theorem 3"]
    assert links["one"][1] == ("Theorem 3 of A second page", "folder/two.html#two-b")
