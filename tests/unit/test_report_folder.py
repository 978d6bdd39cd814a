"""Reports of many images: summary, contact sheet, and the folder of pages."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from drawn_entries import drawn_entries
from maskscore.imaging.mask_pictures import component_bits
from maskscore.report import ReportEntry, render, write_folder, write_report
from maskscore.report.contact_sheet import ContactSheet
from maskscore.report.histogram import Histogram
from maskscore.report.job_sections import LIGHT, make_section
from maskscore.report.report_summary import ReportSummary
from maskscore.schema.job import Mask
from maskscore.schema.result import Component


def summary_of(entries: Iterator[ReportEntry]) -> tuple[ReportSummary, list[Component]]:
    summary, components = ReportSummary(), []
    for number, entry in enumerate(entries, 1):
        summary.add(make_section(entry, number, LIGHT), f"p{number}.html")
        components += entry.result.components
    return summary, components


def test_the_summary_counts_what_was_there() -> None:
    summary, components = summary_of(drawn_entries(52, different=4, size=(120, 160)))
    assert (summary.jobs, summary.masks) == (52, len(components))
    assert summary.states == {"succeeded": 51, "failed": 1}
    assert summary.scored == sum(component.skipped is None for component in components)
    [failure], [skipped] = summary.failures, summary.skipped
    assert (failure.code, failure.count) == ("image_not_found", 1)
    assert failure.examples == [("p50.html#j50", "s3://photos/part-000/scene-000049.jpg")]
    assert (skipped.code, skipped.count, skipped.examples[0][0]) == ("empty_mask", 2, "p8.html#j8m0")
    [scale] = summary.scales()
    assert sum(bar.count for bar in scale.bars) == len(components)
    assert scale.histogram.total == summary.scored


def test_the_sheet_has_the_best_the_worst_and_the_most_doubtful() -> None:
    summary, components = summary_of(drawn_entries(49, different=6, size=(120, 160)))
    groups = {group.name: group.cards for group in summary.scales()[0].sheet.groups()}
    assert {name: len(cards) for name, cards in groups.items()} == {"Best": 12, "Worst": 12, "Most doubtful": 12}
    scored = [c for c in components if c.p_pos_sum is not None]
    # What is shown is what decides the order.
    leans = [(c.p_pos_sum or 0) - (c.p_neg_sum or 0) for c in scored]
    shown = {name: [float(card.margin.replace("−", "-")) for card in cards] for name, cards in groups.items()}
    assert shown["Best"] == sorted(shown["Best"], reverse=True)
    assert shown["Worst"] == sorted(shown["Worst"])
    assert shown["Most doubtful"] == sorted(shown["Most doubtful"], key=abs)
    assert (shown["Best"][0], shown["Worst"][0]) == (round(max(leans), 3), round(min(leans), 3))
    assert abs(shown["Most doubtful"][0]) == round(min(map(abs, leans)), 3)
    for cards in groups.values():
        pages = [card.href.partition("#")[0] for card in cards]
        assert max(map(pages.count, pages)) <= 3
        assert all(card.picture and card.picture.startswith("data:image/jpeg") for card in cards)


def test_the_sheet_is_the_same_whatever_comes_first() -> None:
    entries = list(drawn_entries(20, different=3, size=(120, 160)))
    sections = [make_section(entry, number, LIGHT) for number, entry in enumerate(entries)]
    found = []
    for seed in (1, 2):
        random.Random(seed).shuffle(sections)
        sheet = ContactSheet("softmax")
        for section in sections:
            sheet.offer(section, "")
        found.append([[card.href for card in group.cards] for group in sheet.groups()])
    assert found[0] == found[1]


def test_cosines_have_a_sheet_and_a_histogram_of_their_own() -> None:
    [entry] = drawn_entries(1)
    components = [
        Component(id=str(n), index=n, s_pos=0.25 + d, s_neg=0.25, s_pos_text="a dog", s_neg_text="sky")
        for n, d in enumerate((0.2, 0.015, -0.03, -0.001))
    ]
    result = entry.result.model_copy(update={"method": "cosine", "components": components})
    [scale] = summary_of(iter([ReportEntry(entry.job, result, None)]))[0].scales()
    found = {group.name: [card.mask for card in group.cards] for group in scale.sheet.groups()}
    assert found == {"Best": ["0", "1"], "Worst": ["2", "3"], "Most doubtful": ["3", "1"]}
    assert scale.histogram.name.startswith("s_pos − s_neg")
    # 0.2 is beyond the scale, and counts at its end.
    assert (scale.histogram.counts[-1], scale.histogram.total) == (1, 4)


def test_a_histogram_says_in_words_what_it_draws() -> None:
    histogram = Histogram.of_method("softmax")
    for value in (0.0, 0.04, 0.5, 1.0, None, float("nan")):
        histogram.add(Component(id="m", index=0, p_pos_sum=value))
    assert (histogram.counts[0], histogram.counts[10], histogram.counts[19], histogram.total) == (2, 1, 1, 4)
    svg = ElementTree.fromstring(histogram.svg())
    assert svg.attrib["role"] == "img"
    assert svg.findtext("title") == "Histogram of p_pos_sum over 4 masks"
    assert svg.findtext("desc") == "0.00 to 0.05: 2; 0.50 to 0.55: 1; 0.95 to 1.00: 1."
    heights = [float(bar.attrib["height"]) for bar in svg.findall("rect")]
    assert len(heights) == 3
    assert heights[0] == pytest.approx(2 * heights[1], abs=0.1)


def links(path: Path) -> set[str]:
    return set(re.findall(r'href="([^"]*)"', path.read_text("utf-8")))


def ids(path: Path) -> set[str]:
    return set(re.findall(r' id="([^"]*)"', path.read_text("utf-8")))


def test_a_folder_has_every_image_once_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "report"
    index = write_folder(folder, drawn_entries(45, different=3, size=(120, 160)), title="Drawn <b>scenes</b>")
    pages = sorted(folder.iterdir())
    assert [path.name for path in pages] == ["index.html", "page-0001.html", "page-0002.html", "page-0003.html"]
    sections = [one for path in pages[1:] for one in sorted(ids(path), key=len) if re.fullmatch(r"j\d+", one)]
    assert sorted(sections) == sorted(f"j{number}" for number in range(1, 46))
    known = {"": set[str]()} | {path.name: ids(path) for path in pages}
    for path in pages:
        assert "Drawn <b>" not in path.read_text("utf-8")
        for link in links(path):
            name, _, anchor = link.partition("#")
            assert not anchor or anchor in known[name or path.name], (path.name, link)
            assert name in known
        assert not re.search(r'src="(?!data:)', path.read_text("utf-8"))
    assert links(pages[1]) == {"index.html", "page-0002.html"}
    assert links(pages[2]) == {"index.html", "page-0001.html", "page-0003.html"}
    assert links(pages[3]) == {"index.html", "page-0002.html"}
    assert index == folder / "index.html"
    assert {f"page-{(n + 19) // 20:04}.html#j{n}" for n in range(1, 46)} <= links(index)


def test_pages_are_written_while_entries_come(tmp_path: Path) -> None:
    written = []

    def watched() -> Iterator[ReportEntry]:
        for number, entry in enumerate(drawn_entries(45, different=2, size=(120, 160)), 1):
            written.append((number, len(list(tmp_path.iterdir()))))
            yield entry

    write_folder(tmp_path, watched(), title="t")
    assert [number for number, pages in written if pages == 1] == list(range(22, 42))
    assert written[-1] == (45, 2)


def test_more_than_a_thousand_images_are_listed_in_several_files(tmp_path: Path) -> None:
    plain = [ReportEntry(entry.job, entry.result, None) for entry in drawn_entries(2, different=2, size=(120, 160))]
    stale = tmp_path / "page-0100.html"
    stale.touch()
    mine = tmp_path / "notes.html"
    mine.touch()
    write_folder(tmp_path, (plain[n % 2] for n in range(2001)), title="t")
    assert len(list(tmp_path.glob("page-*.html"))) == 101
    assert stale.stat().st_size > 0
    lists = [tmp_path / name for name in ("index.html", "list-0002.html", "list-0003.html")]
    assert [path.read_text("utf-8").count('<span class="name whole"') for path in lists] == [1000, 1000, 1]
    assert {"list-0002.html", "list-0003.html"} <= links(lists[0])
    assert "images 2,001 to 2,001" in lists[2].read_text("utf-8")
    # A smaller report in the same place leaves none of the larger one, and what is not its own alone.
    write_folder(tmp_path, plain, title="t")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.html", "notes.html", "page-0001.html"]


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    assert "0 jobs, 0 masks" in write_folder(tmp_path, [], title="t").read_text("utf-8")


def test_a_file_is_the_page_that_is_rendered(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(path, drawn_entries(9), title="t", note="n")
    text = path.read_text("utf-8")
    assert len(text) > 1_100_000, "it must be written in more than one piece"
    assert text == render(drawn_entries(9), title="t", note="n")


@pytest.mark.parametrize(
    "polygons",
    [
        [[0.0, 0.0, 1e9, 0.0, 1e9, 1e9]],
        [[0.0, 0.0, 5.0, float("inf"), 5.0, 5.0]],
        [[0.0, 0.0, 5.0, float("nan"), 5.0, 5.0]],
        [[0.0, 0.0, 300.0, 0.0, 5.0, 300.0]] * 2000,
        [[0.0, 0.0, 5.0, 0.0, 5.0, 5.0]] * 70,
    ],
)
def test_polygons_that_would_take_too_long_have_no_picture(polygons: list[list[float]]) -> None:
    mask = Mask(id="m", segmentation=polygons)
    with pytest.raises(ValueError, match="too long to draw"):
        component_bits(mask, Component(id="m", index=0), (0, 0, 5, 5), (8000, 6000))
