"""Masks are judged on the pages of a report in a real browser, kept there, and saved as a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import CHROMIUM, Browser, browser
from drawn_entries import drawn_entries
from maskscore.report import ReportEntry, render, write_folder, write_report
from maskscore.review import Judgement, read_judgements
from waiting import until

IN_BROWSER = pytest.mark.needs("Chromium", CHROMIUM, optional=True)
MARKED = (
    "[...document.querySelectorAll('tr[data-judge]')].map((row) => row.querySelector('.verdict-of')?.textContent ?? '')"
)
COUNT = "document.querySelector('.judge .count').textContent"
CURRENT = "document.querySelector('tr[aria-current]')?.dataset.judge"


def entries(batch_id: str, count: int) -> list[ReportEntry]:
    drawn = drawn_entries(count)
    return [
        ReportEntry(one.job, one.result.model_copy(update={"batch_id": batch_id}), one.image, one.masks)
        for one in drawn
    ]


def scored_of(shown: list[ReportEntry]) -> list[tuple[str, str]]:
    return [
        (entry.result.image.uri, component.id)
        for entry in shown
        if entry.result.image is not None
        for component in entry.result.components
        if component.skipped is None
    ]


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    with browser() as running:
        yield running


def press(tab: Browser, keys: str) -> None:
    names = {"→": "ArrowRight", "←": "ArrowLeft"}
    for key in keys:
        name = names.get(key, key)
        for kind in ("keyDown", "keyUp"):
            tab.command("Input.dispatchKeyEvent", type=kind, key=name)


def click(tab: Browser, name: str) -> None:
    box = f"document.querySelector('.judge [data-do={name}]').getBoundingClientRect()"
    x, y = tab.evaluate(f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({box})")
    for kind in ("mousePressed", "mouseReleased"):
        tab.command("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


def saved(tab: Browser, folder: Path) -> list[Judgement]:
    folder.mkdir()
    tab.command("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    click(tab, "save")
    # Under another name until it is whole.
    until(lambda: any(path.suffix == ".json" for path in folder.iterdir()))
    [path] = folder.iterdir()
    return list(read_judgements(path))


@IN_BROWSER
def test_twenty_judgements_outlive_a_reload_an_undo_and_the_way_into_a_file(tab: Browser, tmp_path: Path) -> None:
    shown = entries("judged-file", 4)
    names = scored_of(shown)
    assert len(names) > 21
    write_report(tmp_path / "report.html", shown, title="Judge", judge=True)
    tab.look(tmp_path / "report.html", 1280)
    assert tab.evaluate(COUNT) == f"0 of {len(names)} judged: 0 keep, 0 drop"
    # The first key only shows the first mask: what nobody has looked at is not judged.
    press(tab, "k" + "kd" * 10)
    kept = ["keep", "drop"] * 10
    assert tab.evaluate(MARKED) == kept + [""] * (len(names) - 20)
    look = tab.look(tmp_path / "report.html", 1280)
    assert (look.complaints, tab.evaluate(MARKED)[:21]) == ([], [*kept, ""])
    press(tab, "u")
    assert tab.evaluate(COUNT) == f"19 of {len(names)} judged: 10 keep, 9 drop"
    assert tab.evaluate(CURRENT) == names[19][1]
    press(tab, "k←←d")
    expected = ["keep", "drop"] * 9 + ["drop", "keep"]
    assert tab.evaluate(MARKED)[:20] == expected
    judgements = saved(tab, tmp_path / "saved")
    job_ids = {one.image: one.job_id for one in judgements}
    assert judgements == [
        Judgement(image, mask_id, keep=verdict == "keep", job_id=job_ids[image])
        for (image, mask_id), verdict in zip(names, expected, strict=False)
    ]


@IN_BROWSER
def test_masks_of_one_id_in_two_images_of_a_shard_are_judged_each(tab: Browser, tmp_path: Path) -> None:
    [one] = entries("judged-shard", 1)
    assert one.result.image is not None
    image = one.result.image.model_copy(update={"uri": "s3://photos/other.jpg"})
    other = ReportEntry(one.job, one.result.model_copy(update={"image": image}), one.image, one.masks)
    write_report(tmp_path / "report.html", [one, other], title="Judge", judge=True)
    tab.look(tmp_path / "report.html", 1280)
    press(tab, "→k")
    marked = tab.evaluate(MARKED)
    assert marked == ["keep"] + [""] * (len(marked) - 1)


@IN_BROWSER
def test_undo_brings_back_what_a_mask_was_before(tab: Browser, tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", entries("judged-again", 1), title="Judge", judge=True)
    tab.look(tmp_path / "report.html", 1280)
    press(tab, "→k←d")
    assert tab.evaluate(MARKED)[0] == "drop"
    press(tab, "u")
    assert tab.evaluate(MARKED)[0] == "keep"
    press(tab, "uu")
    assert set(tab.evaluate(MARKED)) == {""}
    assert tab.evaluate("document.querySelector('[data-do=undo]').disabled")


@IN_BROWSER
@pytest.mark.parametrize("width", [1280, 390])
def test_buttons_do_what_keys_do_and_the_page_fits(tab: Browser, tmp_path: Path, width: int) -> None:
    write_report(tmp_path / "report.html", entries(f"judged-{width}", 3), title="Judge", judge=True)
    look = tab.look(tmp_path / "report.html", width)
    assert (look.scroll_width, look.sticking_out, look.complaints) == (width, [], [])
    for name in ("next", "keep", "drop", "next", "keep", "undo", "previous", "keep"):
        click(tab, name)
        # The row can be seen: neither the photo nor the bar of buttons covers it.
        seen = """(() => { const row = document.querySelector("tr[aria-current]"), box = row.getBoundingClientRect();
            return row.contains(document.elementFromPoint(Math.max(box.x, 0) + 80, box.y + box.height / 2)); })()"""
        assert tab.evaluate(seen), name
    assert tab.evaluate(MARKED)[:4] == ["keep", "drop", "keep", ""]


@IN_BROWSER
@pytest.mark.parametrize("width", [1280, 390])
def test_classes_have_keys_and_buttons_and_are_saved(tab: Browser, tmp_path: Path, width: int) -> None:
    shown, classes = entries(f"judged-class-{width}", 2), ["a cat", "<dog>", "neither"]
    names = scored_of(shown)
    write_report(tmp_path / "report.html", shown, title="Judge", judge=True, classes=classes)
    look = tab.look(tmp_path / "report.html", width)
    assert (look.scroll_width, look.sticking_out, look.complaints) == (width, [], [])
    # There is no class 4, and no mask to keep.
    press(tab, "→124k3")
    assert tab.evaluate(MARKED)[:4] == ["a cat", "<dog>", "neither", ""]
    assert tab.evaluate(COUNT) == f"3 of {len(names)} judged: 1 a cat, 1 <dog>, 1 neither"
    press(tab, "u")
    tab.evaluate("document.querySelectorAll('.judge [data-class]')[1].click()")
    tab.look(tmp_path / "report.html", width)
    judgements = saved(tab, tmp_path / "saved")
    assert [(one.mask_id, one.class_name, one.keep) for one in judgements] == [
        (mask_id, name, None) for (_, mask_id), name in zip(names, ["a cat", "<dog>", "<dog>"], strict=False)
    ]


@IN_BROWSER
def test_keys_are_the_searchs_while_one_types_there_and_the_browsers_with_ctrl(tab: Browser, tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", entries("judged-search", 1), title="Judge", judge=True)
    tab.look(tmp_path / "report.html", 1280)
    press(tab, "→")
    tab.command("Input.dispatchKeyEvent", type="keyDown", key="d", modifiers=2)
    tab.evaluate("document.querySelector('.search input').focus()")
    press(tab, "kd")
    assert set(tab.evaluate(MARKED)) == {""}


@IN_BROWSER
def test_masks_that_are_filtered_away_are_passed_over(tab: Browser, tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", entries("judged-filter", 3), title="Judge", judge=True)
    tab.look(tmp_path / "report.html", 1280)
    tab.evaluate("document.getElementById('show-m01').click()")
    press(tab, "k" * 200)
    left = (
        "[...document.querySelectorAll('tr[data-judge]')]"
        ".map((row) => [row.dataset.grade, !!row.querySelector('.verdict-of')])"
    )
    assert all(marked == (grade != "m01") for grade, marked in tab.evaluate(left))


@IN_BROWSER
def test_the_pages_of_a_folder_share_their_judgements(tab: Browser, tmp_path: Path) -> None:
    shown = entries("judged-folder", 22)
    index = write_folder(tmp_path / "report", shown, title="Judge", judge=True)
    tab.look(index.with_name("page-0001.html"), 1280)
    press(tab, "→kd")
    tab.look(index.with_name("page-0002.html"), 1280)
    assert tab.evaluate(COUNT).endswith("; 2 on other pages")
    press(tab, "→d")
    assert [one.keep for one in saved(tab, tmp_path / "saved")] == [True, False, False]
    assert tab.look(index, 1280).complaints == []


@IN_BROWSER
def test_a_browser_that_keeps_nothing_says_so_and_saves(tab: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(path, entries("judged-blocked", 1), title="Judge", judge=True)
    text = path.read_text("utf-8")
    refuse = "<head><script>Storage.prototype.setItem = () => { throw new Error('full'); };</script>"
    path.write_text(text.replace("<head>", refuse, 1))
    tab.look(path, 1280)
    press(tab, "→kd")
    trouble = tab.evaluate("document.querySelector('.judge .trouble').textContent")
    assert trouble == "This browser does not keep the judgements (full): save a file before you close this page."
    assert [one.keep for one in saved(tab, tmp_path / "saved")] == [True, False]


def test_only_a_report_that_is_asked_for_it_can_be_judged_on() -> None:
    shown = entries("<batch>", 8)
    plain, judged = render(shown, title="t"), render(shown, title="t", judge=True)
    assert "judge" not in plain
    assert 'data-batch="&lt;batch&gt;"' in judged
    assert judged.count(" data-judge=") == len(scored_of(shown)) < judged.count('<tr id="')
    # Nothing else is taken away or moved.
    lines = iter(judged.splitlines())
    for line in plain.splitlines():
        if not line.startswith(("<section", "<tr id=")):
            assert line in lines
