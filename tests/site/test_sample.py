"""Every piece of our extension in a real browser: by mouse, touch and keyboard, and without script.

The pages are those of a small book (`sample`), so that nothing here depends on what a chapter says.
"""

import re

import pytest
from bs4 import BeautifulSoup

from tests.site.accessibility import serious_violations
from tests.site.test_pages import HARMLESS

FIRST, INDEX = "chapters/paper/1_first", "chapters/paper/index"
PAGES = ["intro", INDEX, FIRST, "chapters/paper/2_second", "claims"]
OPEN = ".kempe-details:popover-open"
each_page = pytest.mark.parametrize("name", PAGES)
each_theme = pytest.mark.parametrize("theme", ["light", "dark"])
pytestmark = pytest.mark.browser


def badge(page, number=0):
    return page.locator("a.kempe-badge").nth(number)


def opened(page):
    """Return the sentence of the details that are shown; None where none are."""
    shown = page.locator(OPEN)
    return shown.first.locator("span").first.inner_text() if shown.count() else None


def focused(page):
    return page.evaluate("document.activeElement.textContent")


@pytest.mark.parametrize("key", ["click", "Enter", " "])
def test_a_badge_opens_by_mouse_and_by_keyboard_and_closes_again(key, visit_sample):
    page = visit_sample(FIRST).page
    first = badge(page)

    def act():
        if key == "click":
            first.click()
        else:
            first.focus()
            page.keyboard.press(key)

    assert first.get_attribute("aria-expanded") == "false" and opened(page) is None
    act()
    assert opened(page) == "One is at most two."
    assert first.get_attribute("aria-expanded") == "true"
    act()
    assert opened(page) is None and first.get_attribute("aria-expanded") == "false"
    assert page.url.endswith(f"{FIRST}.html")


def test_a_badge_opens_by_touch_and_closes_by_touching_elsewhere(visit_sample):
    page = visit_sample(FIRST, width=390, has_touch=True, is_mobile=True).page
    badge(page).tap()
    page.locator(OPEN).wait_for()
    page.locator("article h1").tap()
    assert opened(page) is None


def test_a_badge_opens_under_the_mouse_after_a_while_and_closes_when_it_leaves(visit_sample):
    page = visit_sample(FIRST).page
    badge(page).hover()
    assert opened(page) is None
    page.wait_for_selector(OPEN)
    # The mouse may go on to the details and stay there.
    page.locator(OPEN).hover()
    page.wait_for_timeout(600)
    assert opened(page) is not None
    page.locator("article h1").hover()
    page.wait_for_selector(OPEN, state="detached")


def test_a_mouse_that_crosses_a_text_full_of_badges_opens_none(visit_sample):
    page = visit_sample(FIRST).page
    page.evaluate(
        """() => { window.toggled = 0; for (const d of document.querySelectorAll('.kempe-details'))
        d.addEventListener('toggle', () => { window.toggled += 1; }); }"""
    )
    for number in (0, 1, 2, 1, 0):
        badge(page, number).hover()
        page.wait_for_timeout(50)
    page.locator("article h1").hover()
    page.wait_for_timeout(800)
    assert page.evaluate("window.toggled") == 0


def test_what_was_clicked_open_stays_when_the_mouse_leaves(visit_sample):
    page = visit_sample(FIRST).page
    badge(page).click()
    page.locator("article h1").hover()
    page.wait_for_timeout(800)
    assert opened(page) is not None


def test_one_badge_at_a_time_is_open_and_a_click_elsewhere_closes_it(visit_sample):
    page = visit_sample(FIRST).page
    badge(page, 0).click()
    badge(page, 1).click()
    assert page.locator(OPEN).count() == 1
    assert "twice as much" in page.locator(OPEN).inner_text()
    assert badge(page, 0).get_attribute("aria-expanded") == "false"
    page.locator("article h1").click()
    assert opened(page) is None


def test_escape_closes_and_the_keyboard_goes_on_from_the_badge(visit_sample):
    page = visit_sample(FIRST).page
    badge(page).focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert focused(page) == "In the ledger"
    page.keyboard.press("Tab")
    assert focused(page) == "Code"
    page.keyboard.press("Escape")
    assert opened(page) is None
    assert badge(page).evaluate("node => node === document.activeElement")
    # What the mouse opened closes by the key, too.
    badge(page, 1).hover()
    page.wait_for_selector(OPEN)
    page.keyboard.press("Escape")
    assert opened(page) is None


def test_the_tab_key_passes_through_the_details_and_closes_them_behind_it(visit_sample):
    page = visit_sample(FIRST).page
    badge(page).focus()
    page.keyboard.press("Enter")
    for _ in range(3):
        page.keyboard.press("Tab")
    assert badge(page, 1).evaluate("node => node === document.activeElement")
    assert opened(page) is None
    page.keyboard.press("Shift+Tab")
    assert badge(page).evaluate("node => node === document.activeElement")


def test_a_badge_is_read_out_with_the_sentence_of_its_claim(visit_sample):
    page = visit_sample(FIRST).page
    for each in page.locator("a.kempe-badge").all():
        assert each.get_attribute("role") == "button"
        described = each.get_attribute("aria-describedby")
        assert page.locator(f"#{described}").text_content() == "One is at most two."
        assert page.locator(f"#{each.get_attribute('aria-controls')}").count() == 1


@pytest.mark.parametrize(("link", "name"), [("In the ledger", "claim"), ("Code", "code")])
def test_the_links_of_the_details_lead_into_the_ledger(link, name, visit_sample):
    page = visit_sample(FIRST).page
    badge(page, 1).click()
    page.locator(OPEN).get_by_role("link", name=link).click()
    page.wait_for_url("**/claims.html#*")
    target = page.locator(f"#{name}-chapters-paper-1_first-large")
    assert target.is_visible()
    assert target.evaluate("n => n.getBoundingClientRect().top < innerHeight")


@pytest.mark.parametrize("key", ["click", "Enter"])
def test_whoever_asks_for_a_new_tab_gets_the_ledger(key, visit_sample):
    page = visit_sample(FIRST).page
    with page.context.expect_page() as found:
        if key == "click":
            badge(page).click(modifiers=["Control"])
        else:
            badge(page).focus()
            page.keyboard.press("Control+Enter")
    assert "claims.html#claim-chapters-paper-1_first-small" in found.value.url
    # A pointer that rests on a badge opens its details sooner or later; a key leaves none there.
    assert key == "click" or opened(page) is None


def test_without_script_a_badge_is_a_link_and_its_details_are_hidden(visit_sample):
    page = visit_sample(FIRST, java_script_enabled=False).page
    assert not any(box.is_visible() for box in page.locator(".kempe-details").all())
    badge(page).click()
    page.wait_for_url("**/claims.html#claim-chapters-paper-1_first-small")
    assert page.locator(".kempe-claims tbody tr").count() == 3
    assert all(row.is_visible() for row in page.locator(".kempe-claims tbody tr").all())
    assert not page.locator(".kempe-filter").is_visible()


@pytest.mark.parametrize("width", [1280, 390, 320])
def test_the_details_stay_inside_the_window(width, visit_sample):
    page = visit_sample(FIRST, width=width).page
    for number in range(page.locator("a.kempe-badge").count()):
        for block in ("start", "end"):
            # At the upper and at the lower edge of the window.
            badge(page, number).evaluate(
                f"n => n.scrollIntoView({{block: '{block}', behavior: 'instant'}})"
            )
            badge(page, number).evaluate("n => n.click()")
            box = page.locator(OPEN).bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= width
            assert box["y"] >= 0 and box["y"] + box["height"] <= 900
            mark = badge(page, number).bounding_box()
            apart = box["y"] >= mark["y"] + mark["height"] or box["y"] + box["height"] <= mark["y"]
            assert apart
            page.keyboard.press("Escape")


@each_theme
def test_open_details_have_no_accessibility_violation(theme, visit_sample):
    page = visit_sample(FIRST, theme).page
    for number in range(4):
        badge(page, number).click()
        page.wait_for_timeout(300)
        assert serious_violations(page) == []
        page.keyboard.press("Escape")


FAINT = {"light": "#888", "dark": "#555"}
#: Twenty words in one setting, as in a listing.
LISTING = """document.querySelector('article section').insertAdjacentHTML('beforeend',
    '<div class="listing">' + '<span>word</span> '.repeat(20) + '</div>')"""


@each_theme
def test_one_element_for_each_setting_is_enough_to_find_a_faint_word(theme, visit_sample):
    page = visit_sample(FIRST, theme).page
    page.evaluate(LISTING)
    assert serious_violations(page, sampled=True, only="color-contrast") == []
    for element in (".listing span", "p", "td"):
        last = page.locator(f"article {element}:visible").last
        last.evaluate(
            "(node, to) => node.style.setProperty('color', to, 'important')", FAINT[theme]
        )
        found = serious_violations(page, sampled=True, only="color-contrast")
        assert found and set(found) <= set(serious_violations(page, only="color-contrast"))
        last.evaluate("(node) => node.style.removeProperty('color')")


@each_page
@each_theme
def test_no_serious_accessibility_violation(name, theme, visit_sample):
    for width in (1280, 390):
        page = visit_sample(name, theme, width).page
        page.wait_for_load_state("networkidle")
        page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        assert serious_violations(page) == []


@each_page
@pytest.mark.parametrize("width", [390, 320])
def test_a_narrow_window_does_not_scroll_sideways(name, width, visit_sample):
    page = visit_sample(name, width=width).page
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@each_page
def test_a_page_asks_no_other_host_and_raises_no_error(name, visit_sample, sample_site):
    seen = visit_sample(name)
    seen.page.wait_for_load_state("networkidle")
    outside = [url for url in seen.requests if not url.startswith((sample_site, "data:", "blob:"))]
    assert outside == []
    assert [error for error in seen.errors if error != HARMLESS] == []


def shown_rows(page):
    return page.locator(".kempe-claims tbody tr:visible").count()


def test_the_ledger_is_filtered_by_keyboard_and_says_how_many_rows_are_left(visit_sample):
    page = visit_sample("claims").page
    count = page.locator(".kempe-count")
    assert count.get_attribute("role") == "status"
    assert count.inner_text() == "3 of 3 claims are shown."
    page.get_by_label("Kind").focus()
    page.keyboard.press("ArrowDown")
    assert page.get_by_label("Kind").input_value() == "measurement"
    assert count.inner_text() == "1 of 3 claims are shown." and shown_rows(page) == 1
    page.get_by_label("Verdict").select_option("fails")
    assert count.inner_text() == "0 of 3 claims are shown." and shown_rows(page) == 0
    # Headings without rows are gone as well.
    assert page.locator(".kempe-ledger:visible").count() == 0
    page.get_by_label("Kind").select_option("")
    assert count.inner_text() == "1 of 3 claims are shown."
    assert page.locator(".kempe-ledger h3:visible").all_inner_texts()[0].startswith("The second")
    page.get_by_label("Chapter").select_option("paper")
    assert shown_rows(page) == 1


def test_a_link_to_a_row_that_the_filter_hides_shows_it(visit_sample):
    page = visit_sample("claims").page
    page.get_by_label("Kind").select_option("identity")
    page.evaluate("location.hash = 'code-chapters-paper-1_first-small'")
    code = page.locator("#code-chapters-paper-1_first-small")
    code.wait_for(state="visible")
    assert "claims.check" in code.inner_text() and shown_rows(page) == 3


def wide(page):
    return page.locator(".kempe-wide")


def test_what_does_not_fit_is_reached_by_keyboard_and_says_so(visit_sample):
    page = visit_sample(FIRST, width=390).page
    wide(page).nth(2).wait_for()
    assert wide(page).count() == page.locator(".kempe-scroll-hint").count() == 3
    names = [region.get_attribute("aria-label") for region in wide(page).all()]
    assert names == [
        "Formula, scrolls sideways",
        "Table, scrolls sideways",
        "Table: Wide., scrolls sideways",
    ]
    for region in wide(page).all():
        assert (region.get_attribute("tabindex"), region.get_attribute("role")) == ("0", "group")
        assert "gradient" in region.evaluate("n => getComputedStyle(n).maskImage")
        region.focus()
        for _ in range(60):
            page.keyboard.press("ArrowRight")
        page.wait_for_function(
            "n => n.classList.contains('kempe-at-end')", arg=region.element_handle()
        )
        assert region.evaluate("n => n.scrollLeft") > 0
        # At the end nothing fades.
        assert region.evaluate("n => getComputedStyle(n).maskImage") == "none"


def test_what_fits_is_left_alone_also_after_the_window_grows(visit_sample):
    page = visit_sample(FIRST, width=390).page
    wide(page).nth(2).wait_for()
    narrow = page.locator(".kempe-scroll").first
    assert narrow.get_attribute("tabindex") is None and narrow.get_attribute("role") is None
    formula = page.locator("mjx-container[display]").first
    assert formula.get_attribute("tabindex") is None
    page.set_viewport_size({"width": 2200, "height": 900})
    page.wait_for_function("document.querySelectorAll('.kempe-wide').length < 3")
    page.wait_for_timeout(300)
    for region in page.locator(".kempe-scroll, .pst-scrollable-table-container").all():
        wider = region.evaluate("n => n.scrollWidth > n.clientWidth + 1")
        assert (region.get_attribute("tabindex") == "0") == wider
    assert page.locator(".kempe-scroll-hint").count() == wide(page).count()


def test_formulas_are_no_stops_of_the_tab_key_and_have_no_menu(visit_sample):
    page = visit_sample(FIRST, width=1280).page
    page.wait_for_load_state("networkidle")
    first = page.locator("mjx-container[display]").first
    assert (
        first.get_attribute("tabindex") is None and first.get_attribute("ctxtmenu_counter") is None
    )
    # Those who hear the page still get the formula.
    assert first.locator("mjx-assistive-mml math").count() == 1


def test_a_small_table_fits_a_phone_and_its_numbers_stand_in_line(visit_sample):
    page = visit_sample(FIRST, width=390).page
    table = page.locator("table.kempe-numbers").first
    assert table.bounding_box()["width"] <= 358
    assert table.locator("caption").inner_text() == "Narrow."
    edges = table.locator("td:nth-of-type(1)").evaluate_all(
        """nodes => nodes.map((n) => { const r = document.createRange(); r.selectNodeContents(n);
        return Math.round(r.getBoundingClientRect().right); })"""
    )
    assert len(edges) == 2 and len(set(edges)) == 1


@each_theme
def test_a_table_takes_the_colours_of_the_page(theme, visit_sample):
    page = visit_sample(FIRST, theme).page
    output = page.locator(".text_html:has(table.kempe-numbers)").first
    assert output.evaluate("n => getComputedStyle(n).backgroundColor") == "rgba(0, 0, 0, 0)"


def test_a_notebook_is_downloaded_and_not_shown(visit_sample):
    page = visit_sample(FIRST).page
    link = page.locator("a.btn-download-source-button[href$='.ipynb']")
    assert link.evaluate("n => n.hasAttribute('download')")
    other = page.locator("a[href*='colab.research']")
    assert not other.evaluate("n => n.hasAttribute('download')")


def test_a_command_is_copied_without_its_prompt(visit_sample):
    page = visit_sample("intro", permissions=["clipboard-read", "clipboard-write"]).page
    page.locator(".highlight-console").hover()
    page.locator(".highlight-console button.copybtn").click()
    page.wait_for_selector("button.copybtn.success")
    assert page.evaluate("navigator.clipboard.readText()") == "make book"


def test_paper_has_no_folds_and_light_colours(visit_sample):
    page = visit_sample(FIRST, "dark").page
    folded = page.locator("article details").first
    assert folded.get_attribute("open") is None
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert folded.get_attribute("open") is not None
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert folded.get_attribute("open") is None
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


@pytest.mark.parametrize("width", [1280, 390])
def test_the_paper_and_what_we_found_can_be_read_at_every_width(width, visit_sample):
    page = visit_sample(INDEX, width=width).page
    table = page.locator("table.kempe-true")
    box = table.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= width
    cells = table.locator("tbody tr").first.locator("td")
    lefts = {round(cells.nth(n).bounding_box()["x"] / 4) for n in range(4)}
    # On a phone the cells stand below each other, each with the name of its column.
    assert len(lefts) == (4 if width == 1280 else 1)
    label = cells.nth(1).evaluate("n => getComputedStyle(n, '::before').content")
    assert label == ("none" if width == 1280 else '"We found"')


def test_a_card_leads_to_its_chapter_and_keeps_the_links_inside(visit_sample):
    page = visit_sample("intro").page
    card = page.locator(".kempe-cards > li").first
    card.locator("a.kempe-badge").click()
    assert opened(page) == "One is at most two." and page.url.endswith("intro.html")
    page.keyboard.press("Escape")
    card.click(position={"x": 5, "y": 5})
    page.wait_for_url("**/chapters/paper/index.html")


def test_a_page_without_claims_and_tables_is_as_the_theme_makes_it(sample):
    soup = BeautifulSoup(
        (sample / "chapters" / "paper" / "2_second.html").read_text(), "html.parser"
    )
    assert soup.select(".kempe-scroll-hint, .kempe-filter") == []
    assert re.search(r"Theorem\s+1", soup.select_one(".theorem .admonition-title").get_text())
