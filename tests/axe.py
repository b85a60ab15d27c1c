"""What axe-core, the checker that ships with `axe-playwright-python`, finds wrong for people who cannot see a page."""

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

BAD = ("serious", "critical")
# A fade shows colours that belong to no theme; without it only the end is measured.
STILL = """async () => {
  document.getAnimations().forEach((one) => one.effect.getComputedTiming().endTime < Infinity && one.finish());
  await new Promise((done) => requestAnimationFrame(done));
}"""


def violations(page: Page) -> list[str]:
    """A line for each element of the page that breaks a rule seriously: the rule, the element, and what is wrong."""
    page.evaluate(STILL)
    found = Axe().run(page).response["violations"]
    return [
        f"{rule['id']}: {node['html'][:160]} {_reason(node['failureSummary'])}"
        for rule in found
        if rule["impact"] in BAD
        for node in rule["nodes"]
    ]


def _reason(summary: str) -> str:
    """The first thing to fix; what stands before it only says that something is."""
    return (summary.splitlines() + [""])[1].strip()
