"""Takes pictures of every page, wide and phone, light and dark, into ./screenshots; run by hand on a server that runs.

    python -m tests.e2e.screens http://localhost:8000 EMAIL PASSWORD [--team SLUG] [NAME …]

Of each kind of thing the first one that a list links to is taken. It says which pages are wider than their window and
what the browser complains about.
"""

import argparse
import re
import sys
from itertools import product
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

FOLDER = Path("screenshots")
SIZES = {"wide": {"width": 1440, "height": 900}, "phone": {"width": 390, "height": 844}}
UUID = r"[0-9a-f-]{36}"
PLAIN = {"login": "/accounts/login/", "reset": "/accounts/password/reset/", "lost": "/nowhere/"}
PAGES = {
    "home": "/", "datasets": "/datasets/", "dataset-new": "/datasets/new/", "jobs": "/jobs/", "job-new": "/jobs/new/",
    "adapters": "/adapters/", "chat": "/chat/", "base-models": "/models/", "base-add": "/models/add/",
    "machines": "/machines/", "teams": "/teams/", "settings": "/settings/", "missing": "/nowhere/",
}  # fmt: skip
FIRST = {
    "dataset": ("/datasets/", rf"/datasets/{UUID}/"),
    "job": ("/jobs/", rf"/jobs/{UUID}/"),
    "adapter": ("/adapters/", rf"/adapters/{UUID}/"),
    "conversation": ("/chat/", rf"/chat/{UUID}/"),
    "base-model": ("/models/", rf"/models/{UUID}/"),
    "team": ("/teams/", r"/teams/[\w-]+/"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("email")
    parser.add_argument("password")
    parser.add_argument("names", nargs="*", help="only these pages")
    parser.add_argument("--team", help="the team to look at; else the one that comes up")
    asked = parser.parse_intermixed_args()
    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        state = log_in(browser, asked)
        for size, theme in product(SIZES, ("light", "dark")):
            take(new_context(browser, size, theme), asked, PLAIN, f"{size}-{theme}")
            inside = new_context(browser, size, theme)
            inside.add_cookies(state)
            take(inside, asked, PAGES | first_ones(inside, asked.address), f"{size}-{theme}")
        browser.close()


def log_in(browser: Browser, asked: argparse.Namespace) -> list[Any]:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{asked.address}/accounts/login/")
    page.fill("input[name=login]", asked.email)
    page.fill("input[name=password]", asked.password)
    page.click("main button[type=submit]")
    page.wait_for_selector("#rail", state="attached")
    if asked.team:
        page.click(".team-menu summary")
        page.click(f'form[action="/teams/{asked.team}/switch/"] button')
        page.wait_for_load_state()
    return context.cookies()


def new_context(browser: Browser, size: str, theme: str) -> BrowserContext:
    phone = size == "phone"
    return browser.new_context(
        viewport=SIZES[size],
        color_scheme=theme,
        is_mobile=phone,
        has_touch=phone,
        device_scale_factor=2 if phone else 1,
    )


def first_ones(context: BrowserContext, address: str) -> dict[str, str]:
    page, found = context.new_page(), {}
    for name, (path, pattern) in FIRST.items():
        page.goto(address + path)
        links = page.eval_on_selector_all("main a[href]", "links => links.map(link => link.getAttribute('href'))")
        if match := next((link for link in links if re.fullmatch(pattern, link)), None):
            found[name] = match
    page.close()
    return found


def take(context: BrowserContext, asked: argparse.Namespace, paths: dict[str, str], label: str) -> None:
    page = context.new_page()
    page.on("console", lambda message: report(page, message.type, message.text))
    page.on("pageerror", lambda error: report(page, "error", str(error)))
    for name, path in paths.items():
        if asked.names and name not in asked.names:
            continue
        page.goto(asked.address + path)
        page.wait_for_timeout(500)
        if (over := page.evaluate("document.documentElement.scrollWidth - innerWidth")) > 0:
            report(page, "wide", f"{over} px beyond the window ({label})")
        page.screenshot(path=FOLDER / f"{name}-{label}.png", full_page=True)
    context.close()


def report(page: Page, kind: str, text: str) -> None:
    if kind in ("error", "warning", "wide") and "404 (Not Found)" not in text:
        sys.stderr.write(f"{kind}: {page.url}: {text[:300]}\n")


if __name__ == "__main__":
    main()
