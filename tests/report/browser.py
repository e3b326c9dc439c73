"""The report's page in a real browser: `make browser`, which installs Debian's Chromium if there is none.

Not collected by a plain `pytest`, since it needs a browser.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright
from report_pages import HOSTILE, look, renamed
from session_harness import Net

import infold
from infold.report.page import render

SIZES = {"desktop": (1280, 900), "phone": (360, 740)}


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    assert path, "no chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="session")
def lenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    document = look(infold.load(files("infold.demo") / "lenet.onnx"), "onnxruntime", shapes={"image": (1, 1, 28, 28)})
    return written(tmp_path_factory, document)


@pytest.fixture(scope="session")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three hundred nodes: Conv, BatchNorm, Relu a hundred times, a third of the BatchNorms behind a Relu."""
    net = Net(0)
    value = net.input(1, 4, 6, 6)
    norms = lambda: (net.positive(4), net.normal(4), net.normal(4), net.positive(4))  # noqa: E731
    for layer in range(100):
        value = net("Conv", value, net.weight(4, 4, 1, 1))
        parts = ("Relu", "BatchNormalization") if layer % 3 == 0 else ("BatchNormalization", "Relu")
        for part in parts:
            value = net(part, value, *(norms() if part == "BatchNormalization" else ()))
    return written(tmp_path_factory, look(net.model(value)))


def written(folders: pytest.TempPathFactory, document: dict) -> Path:
    path = folders.mktemp("page") / "report.html"
    path.write_text(render(document), encoding="utf-8")
    return path


class Visit:
    """An open page, and what it did that it should not do: messages, errors, dialogs, requests."""

    def __init__(self, browser: Browser, path: Path, size: str = "desktop", scheme: str = "light", **options) -> None:
        width, height = SIZES[size]
        self.context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **options)
        self.page: Page = self.context.new_page()
        self.wrong: list[str] = []
        self.page.on("console", lambda message: self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.wrong.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: request.url == path.as_uri() or self.wrong.append(request.url))
        self.page.goto(path.as_uri())

    def __enter__(self) -> Page:
        return self.page

    def __exit__(self, *_) -> None:
        self.context.close()
        assert self.wrong == []


def column(page: Page, table: str, index: int) -> list[str]:
    """Sort keys of a column, from top to bottom."""
    return page.locator(f"{table} tbody tr").evaluate_all(
        "(rows, index) => rows.map((row) => row.cells[index].dataset.value ?? row.cells[index].textContent.trim())", index)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_loads_fits_and_is_accessible(browser: Browser, lenet: Path, size: str, scheme: str) -> None:
    with Visit(browser, lenet, size, scheme) as page:
        assert page.title() == "net.onnx: infold report" and page.locator("svg").count() == 3
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= SIZES[size][0], "the page scrolls sideways"
        brightness = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        assert (max(brightness) < 64) == (scheme == "dark")
    with Visit(browser, lenet, size, scheme, bypass_csp=True) as page:
        page.locator("details").evaluate_all("all => all.forEach((one) => { one.open = true; })")
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()


def test_tables_sort_by_click(browser: Browser, lenet: Path) -> None:
    with Visit(browser, lenet) as page:
        table, before = "#layers table", column(page, "#layers table", 2)
        head = page.locator(table).get_by_role("columnheader", name="ms", exact=True)
        assert head.get_attribute("aria-sort") == "none" and len(before) > 4
        for order, reverse in (("descending", True), ("ascending", False)):
            head.get_by_role("button").click()
            assert head.get_attribute("aria-sort") == order
            assert [float(ms) for ms in column(page, table, 2)] == sorted(map(float, before), reverse=reverse)
        page.locator(table).get_by_role("button", name="#").click()
        assert head.get_attribute("aria-sort") == "none" and column(page, table, 2) == before
        page.locator(table).get_by_role("button", name="operator").click()
        assert column(page, table, 8) == sorted(column(page, table, 8))


def test_tables_sort_by_keyboard(browser: Browser, lenet: Path) -> None:
    with Visit(browser, lenet) as page:
        names = page.locator("#accuracy table").get_by_role("button", name="infold's error")
        names.focus()
        for key, reverse in (("Enter", True), ("Space", False)):
            page.keyboard.press(key)
            errors = [float(error) for error in column(page, "#accuracy table", 2)]
            assert errors == sorted(errors, reverse=reverse) and errors[0] != errors[-1]


def test_a_layer_is_found(browser: Browser, deep: Path) -> None:
    with Visit(browser, deep) as page:
        nodes = page.locator("#graph tbody tr[id]:visible")
        assert nodes.count() == 300
        layer = page.locator("#layers tbody tr[data-name*=Conv]").nth(37)
        name = layer.locator("code").text_content()
        wanted = page.locator(f"#graph tr[data-name~='{name}'][data-name~=Conv]")
        page.keyboard.press("/")
        page.keyboard.type(f"{name} conv")
        assert wanted.is_visible() and 0 < nodes.count() < 20
        assert f"{nodes.count()} of 300 nodes" in page.locator("#found").text_content()
        assert layer.is_visible() and page.locator("#layers tbody tr:visible").count() < 20
        assert page.locator("#layers .marks a.dim").count() > 50
        page.keyboard.press("Control+a")
        page.keyboard.type("no such layer")
        assert nodes.count() == 0
        page.locator("#find").fill("")
        assert nodes.count() == 300
        page.get_by_label("BatchNorms only").check()
        assert nodes.count() == 100 and nodes.locator(".fate").count() == 100


def test_charts_by_keyboard(browser: Browser, deep: Path) -> None:
    with Visit(browser, deep) as page:
        figure = page.locator("#layers figure")
        marks = figure.locator(".marks a")
        assert marks.count() > 50 and figure.locator('.marks a[tabindex="0"]').count() == 1
        marks.first.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        told = page.evaluate("document.activeElement.getAttribute('aria-label')")
        assert told == marks.nth(2).get_attribute("aria-label") == figure.locator(".readout").text_content()
        assert marks.nth(2).get_attribute("tabindex") == "0" and figure.locator('.marks a[tabindex="0"]').count() == 1
        page.keyboard.press("Enter")
        row = page.locator("tr:target")
        row.wait_for()
        assert told.startswith(row.locator("code").text_content()) and row.is_visible()


def test_a_link_leads_to_what_was_filtered_away(browser: Browser, deep: Path) -> None:
    with Visit(browser, deep) as page:
        page.locator("#find").fill("no such layer")
        page.evaluate("location.hash = 'block-3'")
        page.locator("#block-3").wait_for(state="visible")
        assert page.locator("#find").input_value() == ""


def test_names_run_no_script(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> None:
    document = look(renamed(HOSTILE), shapes={"image": (1, 1, 28, 28)})
    path = written(tmp_path_factory, {**document, "model": HOSTILE})
    with Visit(browser, path) as page:
        assert page.locator("h1").text_content() == HOSTILE and page.locator("img").count() == 0
        page.locator("#layers .marks a").first.focus()
        assert HOSTILE in page.locator("#layers .readout").text_content()


def test_the_policy_stops_a_script_that_slipped_in(browser: Browser, lenet: Path, tmp_path: Path) -> None:
    path = tmp_path / "broken.html"
    injected = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    path.write_text(lenet.read_text(encoding="utf-8").replace("<main", f"{injected}<main"), encoding="utf-8")
    visit = Visit(browser, path)
    visit.context.close()
    assert sum("Content Security Policy" in message for message in visit.wrong) >= 2 and {"1", "2"}.isdisjoint(visit.wrong)
