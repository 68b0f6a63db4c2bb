"""Open a page in headless Chromium, and collect what must not happen: errors on the console and network requests."""

import contextlib
import shutil

import pytest

WIDTHS = (360, 1280)
SCHEMES = ("light", "dark")


class Opened:
    """A page with its errors and requests. `page` is that of Playwright."""

    def __init__(self, page, path):
        self.page, self.errors, self.requests = page, [], []
        page.on("console", lambda message: message.type in ("error", "warning") and self.errors.append(message.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(path.as_uri())

    def check(self, allowed=("data:",)):
        """No errors, no requests but for the page itself and the allowed ones, no horizontal scrolling of the page."""
        assert self.errors == []
        assert [url for url in self.requests[1:] if not url.startswith(allowed)] == []
        assert self.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")

    def accessibility(self):
        """The serious and critical findings of axe-core, as text."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page).response["violations"]
        return [
            f"{each['id']}: {node['target']} {node['failureSummary']}"
            for each in found
            if each["impact"] in ("serious", "critical")
            for node in each["nodes"]
        ]


@contextlib.contextmanager
def chromium():
    """A browser; a test that needs one is skipped where Playwright or Chromium is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium is installed (on Debian: apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def opened(browser, path, *, width=1280, scheme="light"):
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    try:
        yield Opened(context.new_page(), path)
    finally:
        context.close()
