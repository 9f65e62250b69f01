"""The pages that list papers name the same ones: contents, first page, teaching, claims."""

import re

import yaml

from kempe_nb.publish.project import KERNELS, chapter_of
from tests.notebooks.book import NOTEBOOKS, PROJECT

PAPERS = {chapter_of(name) for name in NOTEBOOKS} - {KERNELS}


def text_of(page):
    return (PROJECT.book / page).read_text(encoding="utf-8")


def test_the_contents_name_every_paper():
    toc = yaml.safe_load((PROJECT.root / "_toc.yml").read_text(encoding="utf-8"))
    files = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    listed = [file.split("/")[1] for file in files if file.startswith("chapters/")]
    assert sorted(listed) == sorted(PAPERS)


def test_the_first_page_has_a_card_for_every_paper_and_calls_no_other_one_finished():
    block = re.search(r"```\{chapters\}\n(.*?)\n```", text_of("intro.md"), re.S)[1]
    cards = yaml.safe_load(block)
    finished = [card["chapter"] for card in cards if not card.get("planned")]
    assert sorted(finished) == sorted(PAPERS)


def test_every_paper_can_be_taught():
    linked = re.findall(r"\(chapters/([a-z_]+)(?:\.ipynb|/)", text_of("teach.md"))
    assert set(linked) == PAPERS


def test_the_ledger_shows_every_paper():
    # Without a filter it lists all claims of all notebooks.
    assert "```{ledger}\n```" in text_of("claims.md")
