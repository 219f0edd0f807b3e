"""The report in a real browser: it loads nothing, complains of nothing, sorts, filters, and obeys no model.

Skipped where there is no Chromium (Debian: apt-get install chromium) or no playwright (pip install playwright).
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from azr_mlx import report
from tests.report.runs import make_run

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium: apt-get install chromium")

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


class Visit:
    """A page that is open, with what it said and asked for."""

    def __init__(self, browser: Any, path: Path, viewport: dict[str, int] = DESKTOP, scheme: str = "light") -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page = browser.new_page(viewport=viewport, color_scheme=scheme)
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        began = time.monotonic()
        self.page.goto(path.as_uri())
        self.seconds = time.monotonic() - began

    def column(self, name: str) -> list[str]:
        found: list[str] = self.page.locator(f"#list .row .{name}").all_inner_texts()
        return found

    def sort(self, name: str) -> None:
        self.page.click(f".head button[data-sort={name}]")


@pytest.fixture(scope="module")
def page(finished: Path) -> Path:
    return report.write(finished)


@pytest.fixture(scope="module")
def wild(hostile: Path) -> Path:
    return report.write(hostile)


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_in_silence_and_fits(browser: Any, page: Path, viewport: dict[str, int], scheme: str) -> None:
    visit = Visit(browser, page, viewport, scheme)
    assert visit.complaints == []
    assert visit.requests == [page.as_uri()]
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= viewport["width"], "it scrolls sideways"
    dark = visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 19, 21)"
    assert dark == (scheme == "dark")


def test_the_button_turns_the_light_on_and_off(browser: Any, page: Path) -> None:
    visit = Visit(browser, page, scheme="dark")
    visit.page.click("#theme")
    assert visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(247, 247, 245)"


def test_sorting(browser: Any, page: Path) -> None:
    visit = Visit(browser, page)
    assert visit.column("step")[0] == "29", "the newest stand first"
    visit.sort("rate")
    rates = [int(text.split()[0]) for text in visit.column("rate") if "%" in text]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == 100
    visit.sort("rate")
    rates = [int(text.split()[0]) for text in visit.column("rate") if "%" in text]
    assert rates == sorted(rates)
    assert rates[0] == 0
    visit.sort("kind")
    assert visit.column("kind")[0] == "induction"


def test_filtering_and_searching(browser: Any, page: Path) -> None:
    visit = Visit(browser, page)
    visit.page.select_option("#kind", "abduction")
    assert set(visit.column("kind")) == {"abduction"}
    visit.page.select_option("#verdict", "refused")
    assert "valid" not in visit.column("why")
    visit.page.select_option("#verdict", "learnable")
    assert set(visit.column("why")) == {"valid"}
    visit.page.fill("#find", "sorted(set(x))")
    assert visit.page.locator("#list .row").count() > 0
    assert all("sorted(set(x))" in text for text in visit.page.locator("#list .row code").all_inner_texts())
    visit.page.fill("#find", "no such thing anywhere")
    assert visit.page.locator("#list .row").count() == 0
    assert visit.page.inner_text("#count").startswith("0 of ")


def test_a_task_opens_with_its_attempts_and_more_are_shown_on_request(browser: Any, page: Path) -> None:
    visit = Visit(browser, page)
    visit.page.select_option("#verdict", "learnable")
    visit.page.locator("#list .row").first.click()
    detail = visit.page.inner_text(".detail")
    for word in (
        "program",
        "input → output",
        "the proposer's own words",
        "attempts of the solver",
        "right",
        "reward",
    ):
        assert word in detail
    visit.page.locator("#list .row").first.click()
    assert visit.page.locator(".detail").count() == 0
    before = visit.page.locator("#list .row").count()
    visit.page.click("#more")
    assert visit.page.locator("#list .row").count() > before


def test_the_legend_tells_the_value_under_the_pointer(browser: Any, page: Path) -> None:
    visit = Visit(browser, page)
    curve = visit.page.locator(".curve", has_text="Entropy").first
    assert curve.locator(".at").inner_text() == "step 29"
    chart = curve.locator("svg").first
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    visit.page.mouse.move(box["x"] + box["width"] * 40 / 360 + 1, box["y"] + box["height"] / 2)
    assert curve.locator(".at").inner_text() == "step 0"
    assert (
        curve.locator(".legend b").first.inner_text() == "0.5" or curve.locator(".legend b").first.inner_text() > "0.4"
    )


def test_a_hostile_run_is_only_text(browser: Any, wild: Path) -> None:
    visit = Visit(browser, wild)
    for row in visit.page.locator("#list .row").all()[:30]:
        row.click()
    visit.page.fill("#find", "<script>")
    assert visit.page.title() == "hostile · azr report", "a script of the model has run"
    assert visit.page.locator("main img, main iframe, main script").count() == 0
    assert "<script>document.title='owned'</script>" in visit.page.inner_text("#tasks")
    assert visit.complaints == []
    assert visit.requests == [wild.as_uri()]


def test_the_policy_stops_a_script_that_somebody_put_in(browser: Any, page: Path, tmp_path: Path) -> None:
    tampered = tmp_path / "tampered.html"
    text = page.read_text(encoding="utf-8")
    tampered.write_text(text.replace("</main>", "<script>document.title='owned'</script></main>"), encoding="utf-8")
    assert "owned" not in Visit(browser, tampered).page.title()


def test_a_following_page_keeps_what_the_reader_chose(browser: Any, finished: Path, tmp_path: Path) -> None:
    following = report.write(
        finished, tmp_path / "following.html", refresh=6
    )  # long enough to read the page in between on a busy machine
    visit = Visit(browser, following)
    visit.page.select_option("#kind", "induction")
    visit.page.wait_for_event("load", timeout=30000)
    assert visit.page.input_value("#kind") == "induction"
    assert set(visit.column("kind")) == {"induction"}


def test_several_runs_open_too(browser: Any, finished: Path, hostile: Path, tmp_path: Path) -> None:
    visit = Visit(browser, report.write([finished, hostile], tmp_path / "both.html"), PHONE)
    assert visit.complaints == []
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


@pytest.mark.slow
def test_500_steps_open_in_under_two_seconds(browser: Any, tmp_path: Path) -> None:
    page = report.write(make_run(tmp_path / "long", 500))
    fastest = min(Visit(browser, page).seconds for _ in range(3))
    assert fastest < 2 * float(os.environ.get("AZR_SLOWNESS", "1"))
