"""The report's pages in a real browser: layout on desktop and phone, console messages, controls."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import CHROMIUM, Browser, browser
from drawn_entries import drawn_entries
from maskscore.report import ReportEntry, write_folder, write_report
from maskscore.report.compare_page import write_comparison
from maskscore.report.comparison import TREATMENTS, Comparison, comparison_jobs
from maskscore.schema.job import Mask

pytestmark = pytest.mark.needs("Chromium", CHROMIUM, optional=True)


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    write_report(folder / "report.html", map(long_names, drawn_entries(8)), title="A report " + "without a space " * 9)
    index = write_folder(folder / "folder", map(long_names, drawn_entries(51)), title="Many")
    [entry] = drawn_entries(1)
    entry = long_names(entry)
    assert entry.job is not None
    jobs = comparison_jobs(entry.job, TREATMENTS)
    write_comparison(folder / "compare.html", Comparison(TREATMENTS, [entry.result] * 6), jobs, entry, title="Compare")
    return {
        "file": folder / "report.html",
        "index": index,
        "page": index.with_name("page-0001.html"),
        "compare": folder / "compare.html",
    }


def test_what_does_not_fit_and_what_fails_is_seen(tab: Browser, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text(
        "<!DOCTYPE html><title>t</title><meta name=viewport content='width=device-width'>"
        "<p class=wide style='width:1400px'>wide</p>"
        "<div style='overflow:auto'><p style='width:3000px'>scrolls</p></div>"
        "<script>console.error('told'); nothing.at.all;</script>"
    )
    for width in (1280, 390):
        look = tab.look(path, width)
        assert look.scroll_width > 1300
        assert [element.partition(":")[0] for element in look.sticking_out] == ["P.wide"]
        assert ["told" in look.complaints[0], "ReferenceError" in look.complaints[1]] == [True, True]


def long_names(entry: ReportEntry) -> ReportEntry:
    """Names and prompts as long as some upstream tools make them."""
    components = [
        component.model_copy(
            update={"id": f"{component.id}-" + "f00dfeed" * 9, "s_pos_text": "a " + "wolpertinger" * 6}
        )
        for component in entry.result.components
    ]
    masks = [mask.model_copy(update={"id": "m" * 90}) if isinstance(mask, Mask) else mask for mask in entry.masks]
    result = entry.result.model_copy(update={"components": components})
    return ReportEntry(entry.job, result, entry.image, masks, entry.missing)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", ["file", "index", "page", "compare"])
def test_a_page_fits_and_complains_of_nothing(
    tab: Browser, pages: dict[str, Path], name: str, width: int, dark: bool
) -> None:
    look = tab.look(pages[name], width, dark=dark)
    assert (look.scroll_width, look.sticking_out, look.complaints) == (width, [], [])
    assert tab.evaluate("document.querySelectorAll('h1').length") == 1
    # Every picture is one.
    broken = "[...document.images].filter((one) => one.complete && !one.naturalWidth).length"
    assert tab.evaluate(broken) == 0


def test_text_is_large_enough_to_read(tab: Browser, pages: dict[str, Path]) -> None:
    smallest = """Math.min(...[...document.querySelectorAll("body *")].filter((one) => one.checkVisibility() &&
        [...one.childNodes].some((child) => child.nodeType === 3 && child.data.trim()))
        .map((one) => parseFloat(getComputedStyle(one).fontSize) * (one.closest("svg")
            ? one.closest("svg").getBoundingClientRect().width / one.closest("svg").viewBox.baseVal.width : 1)))"""
    for name in pages:
        tab.look(pages[name], 390)
        assert tab.evaluate(smallest) >= 10.5, name


def visible_rows(tab: Browser) -> list[str]:
    found = tab.evaluate(
        "[...document.querySelectorAll('tbody tr')].filter((row) => row.checkVisibility())"
        ".map((row) => row.dataset.grade)"
    )
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize("script", [True, False])
def test_grades_are_filtered_with_and_without_script(tab: Browser, pages: dict[str, Path], script: bool) -> None:
    tab.command("Emulation.setScriptExecutionDisabled", value=not script)
    try:
        for name in ("file", "page"):
            tab.look(pages[name], 1280)
            before = visible_rows(tab)
            assert {"m20", "m01"} < set(before)
            place = tab.evaluate(
                "(({x, y}) => [x + 4, y + 4])(document.getElementById('show-m01').getBoundingClientRect())"
            )
            for kind in ("mousePressed", "mouseReleased"):
                tab.command("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)
            assert visible_rows(tab) == [grade for grade in before if grade != "m01"]
    finally:
        tab.command("Emulation.setScriptExecutionDisabled", value=False)


def test_masks_are_found_by_their_prompt(tab: Browser, pages: dict[str, Path]) -> None:
    tab.look(pages["page"], 1280)
    rows = len(visible_rows(tab))
    tab.evaluate("document.querySelector('.search input').focus()")
    tab.command("Input.insertText", text="Grass")
    found = tab.evaluate(
        "[...document.querySelectorAll('tbody tr')].filter((row) => row.checkVisibility())"
        ".every((row) => /grass/i.test(row.textContent))"
    )
    assert found
    assert 0 < len(visible_rows(tab)) < rows
    assert tab.evaluate("document.querySelector('.search [role=status]').textContent").endswith(f" of {rows}")


@pytest.mark.parametrize("width", [1280, 390])
def test_a_card_leads_to_its_mask(tab: Browser, pages: dict[str, Path], width: int) -> None:
    tab.look(pages["index"], width)
    for number in (0, 15, 30):
        href = tab.evaluate(f"document.querySelectorAll('.cards a')[{number}].getAttribute('href')")
        name, _, anchor = href.partition("#")
        tab.look(pages["index"].with_name(name), width, fragment=f"#{anchor}")
        seen = f"""(() => {{ const row = document.getElementById("{anchor}"), box = row.getBoundingClientRect();
            const top = document.elementFromPoint(box.x + 80, box.y + box.height / 2);
            return [row.classList.contains("on"), box.top >= 0 && box.bottom <= innerHeight, row.contains(top),
              row.closest("section").querySelectorAll(".layer.on").length]; }})()"""
        assert tab.evaluate(seen) == [True, True, True, 1], href
        tab.look(pages["index"], width)
