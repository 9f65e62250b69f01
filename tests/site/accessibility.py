"""What axe finds on a page, in a time that grows little with the length of the page.

The rule on contrast takes most of axe's time, and on a long page asks the same question of ten
thousand words in the same setting. So `sampled` shows it one element for each setting: for each
path of tags, classes, colours, sizes and weights down to some text.
"""

from axe_playwright_python.base import AXE_SCRIPT
from axe_playwright_python.sync_playwright import Axe

#: Axe whose rule on contrast sees marked elements only.
SAMPLING = AXE_SCRIPT + (
    "\naxe.configure({rules: [{id: 'color-contrast', selector: '[data-setting]'}]});"
)
#: Marks one element with text of its own for each setting, and returns how many there are.
MARK = """() => {
  const settings = new Map();
  const setting = (node) => {
    if (!node) return '';
    if (!settings.has(node)) {
      const style = getComputedStyle(node);
      const own = [node.localName, node.getAttribute('class'), style.color, style.opacity,
        style.fill, style.backgroundColor, style.backgroundImage, style.fontSize,
        style.fontWeight];
      settings.set(node, setting(node.parentElement) + '>' + own.join());
    }
    return settings.get(node);
  };
  const seen = new Set();
  for (const node of document.querySelectorAll('article *')) {
    const text = [...node.childNodes].some((c) => c.nodeType === Node.TEXT_NODE && c.data.trim());
    if (!(text || node.matches('input, button, select, textarea'))) continue;
    if (!node.checkVisibility() || seen.has(setting(node))) continue;
    seen.add(setting(node));
    node.setAttribute('data-setting', '');
  }
  return seen.size;
}"""


def serious_violations(page, *, sampled=False, only=None) -> list[tuple[str, str, str]]:
    """Return rule, element and reason of each serious violation inside the article of a page.

    Parameters
    ----------
    sampled : bool
        Look at the contrast of one element for each setting.
    only : str, optional
        The one rule to apply; by default all.
    """
    options = {"resultTypes": ["violations"]}
    if only:
        options["runOnly"] = {"type": "rule", "values": [only]}
    if sampled:
        assert page.evaluate(MARK), "a page without text"
    axe = Axe(SAMPLING) if sampled else Axe()
    results = axe.run(page, context="article", options=options)
    return [
        (violation["id"], node["html"][:120], node.get("failureSummary", "")[:200])
        for violation in results.response["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]
