"""The built pages, as files and in a real browser: offline, operable by keyboard, readable."""

import functools
import re
from urllib.parse import unquote, urldefrag, urljoin

import pytest
import yaml
from bs4 import BeautifulSoup

from tests.site.accessibility import serious_violations
from tests.site.conftest import HTML, PAGES

OLD_FORM = [page for page in PAGES if re.fullmatch(r"chapters/[^/]+", page)]
OPENINGS = [page for page in PAGES if re.fullmatch(r"chapters/[^/]+/index", page)]
LESSONS = [page for page in PAGES if re.fullmatch(r"chapters/[^/]+/\d+_[^/]+", page)]


def each(pages):
    return pytest.mark.parametrize("name", pages)


each_page, each_chapter = each(PAGES), each([*OLD_FORM, *LESSONS])
each_old_form, each_opening, each_lesson = each(OLD_FORM), each(OPENINGS), each(LESSONS)
each_theme = pytest.mark.parametrize("theme", ["light", "dark"])
#: Widths of a small and of a usual phone.
each_phone = pytest.mark.parametrize("width", [320, 390])
#: The light theme keeps all rules of axe; the dark one is the same page in other colours.
ONLY = {"light": None, "dark": "color-contrast"}

#: The theme declares this variable twice; it is its own, and harmless.
HARMLESS = "Identifier 'THEBE_JS_URL' has already been declared"


@functools.cache
def soup(name):
    return BeautifulSoup((HTML / f"{name}.html").read_text(), "html.parser")


@functools.cache
def anchors(file):
    return {node["id"] for node in soup(file.removesuffix(".html")).find_all(id=True)}


def test_every_page_of_the_table_of_contents_was_built():
    toc = yaml.safe_load((HTML.parent.parent / "_toc.yml").read_text())
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    chapters += [section for chapter in chapters for section in chapter.get("sections", [])]
    files = {chapter["file"] for chapter in chapters if "file" in chapter}
    globs = [chapter["glob"] for chapter in chapters if "glob" in chapter]
    book = HTML.parent.parent / "book"
    found = {
        str(path.relative_to(book).with_suffix(""))
        for pattern in globs
        for kind in (".md", ".ipynb")
        for path in book.glob(pattern + kind)
    }
    assert globs and found
    assert {toc["root"], *files, *found} <= set(PAGES)


def test_every_page_of_a_chapter_is_of_one_kind():
    below = {page for page in PAGES if page.startswith("chapters/")}
    assert {*OLD_FORM, *OPENINGS, *LESSONS} == below
    assert {page.rpartition("/")[0] for page in LESSONS} == {
        page.rpartition("/")[0] for page in OPENINGS
    }


@each_page
def test_a_page_weighs_at_most_two_megabytes_and_a_lesson_one(name):
    most = 2**20 if name in LESSONS else 2 * 2**20
    assert (HTML / f"{name}.html").stat().st_size <= most


BOX = re.compile(r"^(?:HOLDS|FAILS|DIFFERS)  ", re.M)


def boxes_of_claims(name):
    """Return the outputs on a page that are boxes of claims."""
    outputs = [node.get_text() for node in soup(name).select(".cell_output")]
    return [text for text in outputs if BOX.search(text)]


@each_lesson
def test_a_lesson_shows_no_box_of_a_claim(name):
    assert boxes_of_claims(name) == []
    assert "claims.check(" not in "".join(n.get_text() for n in soup(name).select(".cell_input"))


@each_old_form
def test_the_search_for_boxes_of_claims_finds_those_of_the_old_form(name):
    assert len(boxes_of_claims(name)) > 20


@each_opening
def test_an_opening_page_says_what_is_true_and_lists_its_lessons(name):
    page = soup(name)
    (true,) = page.select("table.kempe-true")
    assert 5 <= len(true.select("tbody tr")) <= 10
    assert true.select(".kempe-badge") and true.select(".kempe-verdict")
    (lessons,) = page.select("table.kempe-lessons")
    listed = [row.select_one("a[href]")["href"] for row in lessons.select("tbody tr")]
    folder = name.rpartition("/")[0]
    assert [f"{folder}/{link.removesuffix('.html')}" for link in listed] == [
        page for page in LESSONS if page.rpartition("/")[0] == folder
    ]
    assert page.select(".kempe-figure")


def test_the_first_page_has_a_card_for_each_paper():
    cards = soup("intro").select(".kempe-cards > li")
    papers = {page.split("/")[1] for page in (*OLD_FORM, *OPENINGS)}
    linked = {
        link["href"].removesuffix(".html").split("/")[1]
        for card in cards
        for link in card.select(".kempe-card-title a[href]")
    }
    assert linked == papers


@each_page
def test_every_link_inside_the_site_leads_somewhere(name):
    broken = []
    for link in soup(name).find_all("a", href=True):
        address = link["href"]
        if re.match(r"[a-z]+:", address):
            continue
        target, anchor = urldefrag(urljoin(f"{name}.html", address))
        path = HTML / unquote(target)
        known = anchors(target) if path.is_file() and path.suffix == ".html" else {unquote(anchor)}
        if not path.is_file() or (anchor and unquote(anchor) not in known):
            broken.append(address)
    assert broken == []


@each_page
def test_every_picture_says_what_it_shows(name):
    for image in soup(name).find_all("img"):
        assert image.get("alt"), image
        assert "_images/" not in image["alt"], image
    for picture in soup(name).find_all(attrs={"role": "img"}):
        assert len(picture["aria-label"]) > 20


@each_chapter
def test_buttons_derive_from_the_one_repository_setting(name):
    setting = yaml.safe_load((HTML.parent.parent / "_config.yml").read_text())["repository"]
    owner = setting["url"].removeprefix("https://github.com/")
    links = [a["href"] for a in soup(name).select(".article-header-buttons a[href]")]
    file = f"{setting['path_to_book']}/{name}.ipynb"
    branch = setting["branch"]
    assert f"https://colab.research.google.com/github/{owner}/blob/{branch}/{file}" in links
    assert any(x.startswith(f"https://mybinder.org/v2/gh/{owner}/{branch}") for x in links)
    downloads = [link for link in links if link.endswith(".ipynb") and "_sources" in link]
    assert downloads and (HTML / "_sources" / f"{name}.ipynb").is_file()


@each_page
@pytest.mark.browser
def test_a_page_asks_no_other_host_and_raises_no_error(name, look, site):
    seen = look(name)
    seen.page.wait_for_load_state("networkidle")
    outside = [url for url in seen.requests if not url.startswith((site, "data:", "blob:"))]
    assert outside == []
    assert [error for error in seen.errors if error != HARMLESS] == []


@each_chapter
@pytest.mark.browser
def test_formulas_are_set_by_the_site_itself(name, look):
    page = look(name).page
    formulas = page.locator("mjx-container").count()
    # A lesson may do without formulas; those that its source has are all set.
    assert formulas == len(soup(name).select("article .math"))
    assert formulas > 20 or name in LESSONS
    assert page.locator("mjx-merror").count() == 0


#: What a box of sliders says and shows; `pictures` counts those that differ since it was last asked
#: for with `fresh`.
READ = """(box, fresh) => {
  const frames = [...box.querySelectorAll('.kempe-frame:not([hidden]) > [role=img]')];
  const svg = box.querySelector('.kempe-frame:not([hidden]) svg');
  if (fresh) box.seen = new Set();
  box.seen.add(svg.innerHTML);
  const sliders = [...box.querySelectorAll('input[type=range]')];
  return {
    spoken: box.querySelector('[aria-live]').innerText,
    labels: frames.map((frame) => frame.getAttribute('aria-label')),
    drawn: svg.checkVisibility() && svg.getBoundingClientRect().width > 0,
    pictures: box.seen.size,
    values: sliders.map((slider) => slider.getAttribute('aria-valuetext')),
    outputs: sliders.map((slider) => slider.parentElement.querySelector('output').innerText),
  };
}"""


@each_chapter
@pytest.mark.browser
def test_every_slider_moves_by_keyboard_with_the_network_cut(name, visit):
    page = visit(name).page
    page.context.set_offline(True)
    boxes = page.locator(".kempe-explore")
    assert boxes.count() >= (1 if name in LESSONS else 3)
    for box in boxes.all():
        for slider in box.locator("input[type=range]").all():
            slider.focus()
            page.keyboard.press("Home")
            steps, readings = int(slider.get_attribute("max")), []
            for step in range(steps + 1):
                # A box unpacks its pictures when the first of them is asked for.
                box.locator(".kempe-frame:not([hidden]) svg").wait_for(state="attached")
                now = box.evaluate(READ, step == 0)
                assert now["labels"] == [now["spoken"]] and now["drawn"]
                assert now["values"] == now["outputs"]
                readings.append(now["spoken"])
                page.keyboard.press("ArrowRight")
            assert len(set(readings)) == now["pictures"] == steps + 1
            page.keyboard.press("Home")
            assert box.evaluate(READ, True)["spoken"] == readings[0]


@each_chapter
@pytest.mark.browser
def test_sliders_are_reached_by_the_tab_key_and_have_names(name, look):
    page = look(name).page
    for box in page.locator(".kempe-explore").all():
        sliders = box.locator("input[type=range]")
        sliders.first.focus()
        for index in range(sliders.count()):
            focused = page.evaluate("document.activeElement.labels[0].innerText")
            assert focused.strip()
            assert sliders.nth(index).evaluate("node => node === document.activeElement")
            page.keyboard.press("Tab")


@each_page
@each_theme
@pytest.mark.browser
def test_no_serious_accessibility_violation(name, theme, look):
    page = look(name, theme).page
    assert serious_violations(page, sampled=True, only=ONLY[theme]) == []


@each_page
@each_phone
@pytest.mark.browser
def test_a_phone_does_not_scroll_sideways(name, width, look):
    page = look(name, width=width).page
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@each_chapter
@pytest.mark.browser
def test_letters_in_figures_can_be_read_on_a_phone(name, look):
    page = look(name, width=390).page
    sizes = page.evaluate(
        """() => [...document.querySelectorAll('.kempe-figure svg')]
        .filter((svg) => svg.getBoundingClientRect().width > 0)
        .flatMap((svg) => [...svg.querySelectorAll('text')].map((text) =>
            parseFloat(getComputedStyle(text).fontSize)
            * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width))"""
    )
    least = 9 if name in LESSONS else 7.5
    # A hundredth of a pixel is rounding.
    assert sizes and min(sizes) >= least - 0.01


@each_chapter
@each_theme
@pytest.mark.browser
def test_figures_take_the_colours_of_the_page(name, theme, look):
    page = look(name, theme).page
    svg = page.locator(".kempe-figure svg text").first
    colour = svg.evaluate("node => getComputedStyle(node).fill")
    assert colour == page.locator("article p").first.evaluate("n => getComputedStyle(n).color")
    plates = page.evaluate(
        """() => [...document.querySelectorAll('.text_html:has(.kempe-figure)')]
        .map((node) => getComputedStyle(node).backgroundColor)"""
    )
    assert set(plates) == {"rgba(0, 0, 0, 0)"}


@each_chapter
@pytest.mark.browser
def test_solutions_are_folded_until_they_are_asked_for(name, visit):
    page = visit(name).page
    solutions = page.locator(".solution.dropdown")
    assert solutions.count() >= (3 if name in LESSONS else 5)
    content = solutions.first.locator("section").first
    assert not content.is_visible()
    solutions.first.locator("button.toggle-button").focus()
    page.keyboard.press("Enter")
    content.wait_for(state="visible")


@each_chapter
@pytest.mark.browser
def test_a_badge_opens_and_leads_to_its_row_in_the_ledger(name, visit):
    page = visit(name).page
    page.locator("a.kempe-badge").first.click()
    page.locator(".kempe-details:popover-open a").first.click()
    page.wait_for_url("**/claims.html#*")
    target = page.evaluate("decodeURIComponent(location.hash.slice(1))")
    assert page.locator(f"[id='{target}']").is_visible()
    assert page.locator(f"[id='{target}']").evaluate("n => n.closest('table') !== null")


@each_lesson
@pytest.mark.browser
def test_a_lesson_is_a_page_of_one_sitting_that_opens_with_a_picture(name, look):
    page = look(name).page
    assert page.evaluate("document.documentElement.scrollHeight") <= 25_000
    # Within the first two screens.
    first = page.locator("article .kempe-figure").first
    assert first.evaluate("n => n.getBoundingClientRect().top + window.scrollY") <= 2 * 900


@each([page for page in PAGES if page.startswith("kernels/")])
@pytest.mark.browser
def test_a_table_of_times_fits_a_screen(name, look):
    page = look(name).page
    for region in page.locator(".kempe-scroll").all():
        assert region.evaluate("n => n.scrollWidth <= n.clientWidth")


@pytest.mark.browser
def test_the_search_finds_a_chapter(visit):
    page = visit("search", query="?q=Zipf").page
    page.wait_for_selector("#search-results li a")
    texts = page.locator("#search-results li a").all_inner_texts()
    assert any("Model collapse" in text for text in texts)
