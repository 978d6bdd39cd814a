"""The report of one image: a row per component, the crops' pixels, and escaping of all text."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from in_memory_files import image_file
from maskscore.masks import encode_mask
from maskscore.report import ReportEntry, render, write_report
from maskscore.schema.job import Job, Mask, ScoringOptions
from maskscore.schema.result import (
    Component,
    Failure,
    ImageInfo,
    JobResult,
    JobState,
    ModelIdentity,
    PromptSetIdentity,
    Skipped,
)
from reference import treated

SIZE = 64
MODEL = ModelIdentity(architecture="a", weights_digest="sha256:0", image_size=SIZE, precision="fp32", crop_mode="fast")


class Page(HTMLParser):
    """Rows and pictures of a report."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows = 0
        self.ids: set[str] = set()
        self.leads: list[str] = []
        self.in_link = False
        self.headings: list[str] = []
        self.linked: list[str] = []
        self.crops: list[npt.NDArray[np.uint8]] = []
        self.layers: list[Image.Image] = []
        self.tags: set[str] = set()
        self.text = ""
        self.in_heading = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.add(tag)
        self.rows += tag == "tr" and "data-mask" in given
        linked = [given[name] for name in ("src", "href", "srcset", "action", "data") if name in given]
        # The contact sheet's cards lead to rows of the same page, and have a small picture each.
        self.in_link |= tag == "a"
        self.ids |= {given["id"]} if "id" in given else set()
        self.leads += [link for link in linked if tag == "a"]
        self.linked += [link for link in linked if not self.in_link]
        self.in_heading = tag in ("th", "button")
        if tag == "img":
            kind, _, data = given["src"].partition(";base64,")
            assert kind in ("data:image/png", "data:image/jpeg")
            picture = Image.open(io.BytesIO(base64.b64decode(data)))
            if given["alt"].startswith("crop of mask"):
                self.crops.append(np.asarray(picture.convert("RGB")))
            if given.get("class") == "layer":
                self.layers.append(picture)

    def handle_endtag(self, tag: str) -> None:
        self.in_heading = False
        self.in_link &= tag != "a"

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.in_heading and data.strip():
            self.headings.append(data.strip())


def entry(options: ScoringOptions, *components: Component, masks: list[Mask] | None = None) -> ReportEntry:
    job = Job.model_validate({"image": "s3://b/<i>.png", "masks": masks or [], "options": options, "job_id": "j1"})
    result = JobResult(
        job_id="j1",
        state=JobState.SUCCEEDED,
        image=ImageInfo(uri="s3://b/<i>.png", width=90, height=70, format="PNG"),
        model=MODEL,
        components=list(components),
    )
    return ReportEntry(job, result, image_file(pixels()), list(masks or []))


def pixels() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(4).integers(0, 256, (70, 90, 3), dtype=np.uint8)


def scored(mask_id: str, index: int, multiplier: float | None, box: tuple[int, int, int, int]) -> Component:
    return Component(
        id=mask_id,
        index=index,
        box=box,
        area=10,
        s_pos=0.6,
        s_neg=0.4,
        s_pos_text="a <b>dog</b>",
        s_neg_text="sky",
        p_pos_sum=None if multiplier is None else 0.6,
        semantic_multiplier=multiplier,
    )


def disc() -> npt.NDArray[np.bool_]:
    rows, columns = np.mgrid[0:70, 0:90]
    inside: npt.NDArray[np.bool_] = (rows - 30) ** 2 + (columns - 40) ** 2 < 400
    return inside


@pytest.mark.parametrize("treatment", ["original", "raw_crop", "soft_mask"])
def test_a_crop_is_shown_as_the_model_saw_it(treatment: str) -> None:
    options = ScoringOptions.model_validate({"treatment": treatment})
    mask = disc()
    rows, columns = np.nonzero(mask)
    box = (int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1)
    masks = [Mask.model_validate({"id": "m", "segmentation": encode_mask(mask)})]
    page = Page(render([entry(options, scored("m", 0, 2.0, box), masks=masks)], title="t"))
    area = (slice(box[1], box[1] + box[3]), slice(box[0], box[0] + box[2]))
    expected = Image.fromarray(treated(pixels()[area], mask[area], treatment, 0.4)).resize(
        (SIZE, SIZE), Image.Resampling.BICUBIC
    )
    np.testing.assert_array_equal(page.crops[0], np.asarray(expected))
    # Inside the disc the layer is there, at its box's corner it is not.
    alpha = np.asarray(page.layers[0].convert("RGBA"))[..., 3]
    assert alpha[len(alpha) // 2, len(alpha) // 2] > 50
    assert alpha[0, 0] == 0


def test_every_component_is_a_row_coloured_by_its_multiplier() -> None:
    box = (5, 5, 20, 20)
    square = Mask(id="0", segmentation=[[5, 5, 24, 5, 24, 24, 5, 24]])
    masks = [square.model_copy(update={"id": str(n)}) for n in range(6)]
    components = [scored(str(n), n, m, box) for n, m in enumerate((2.0, 1.0, 0.5, 0.1, None))]
    skipped = Component(id="5", index=5, skipped=Skipped(code="empty_mask", message="The mask has no pixel."))
    text = render([entry(ScoringOptions(), *components, skipped, masks=masks)], title="t", note="honest")
    page = Page(text)
    assert (page.rows, len(page.crops), len(page.layers)) == (6, 5, 5)
    # Each colour is in the legend, on its bar, and on the one row that has that multiplier.
    for name, colour in (("2.0", "#0072b2"), ("1.0", "#56b4e9"), ("0.5", "#f0e442"), ("0.1", "#d55e00")):
        key = f"m{name[0]}{name[2]}"
        assert text.count(f'class="bar" style="background:{colour}') == 1
        assert (text.count(f'data-grade="{key}">'), text.count(f'data-grade="{key}" ')) == (0, 2)
        assert f'id="show-{key}"' in text
        assert re.search(f'data-value="{name}"><span class="swatch" style="background:{colour}"></span>{name}<', text)
    for words in ("empty_mask", "honest", "surely an object"):
        assert words in page.text


def test_nothing_that_is_shown_is_taken_as_html() -> None:
    evil = "<script>alert(1)</script>"
    component = scored(evil, 0, 2.0, (0, 0, 5, 5))
    text = render([entry(ScoringOptions(), component)], title=evil, note=evil)
    assert evil not in text
    assert "s3://b/<i>.png" not in text
    page = Page(text)
    assert page.text.count(evil) >= 3
    assert "<b>dog" not in text
    assert text.count("<script") == 1


def test_the_page_fetches_nothing() -> None:
    masks = [Mask(id="m", segmentation=[[5, 5, 24, 5, 24, 24, 5, 24]])]
    text = render([entry(ScoringOptions(), scored("m", 0, 2.0, (5, 5, 19, 19)), masks=masks)], title="t", note="n")
    page = Page(text)
    assert len(page.linked) == 3
    assert all(uri.startswith("data:image/") for uri in page.linked)
    assert {lead.removeprefix("#") for lead in page.leads} <= page.ids
    assert not re.search(r"https?:|//[a-z]+\.|url\(|@import|fetch\(|XMLHttpRequest", text)
    assert "Content-Security-Policy" in text
    assert "default-src 'none'; img-src data:;" in text


def test_jobs_without_a_picture_or_a_result_are_shown_as_what_they_are() -> None:
    good = entry(ScoringOptions(), scored("m", 0, 2.0, (0, 0, 5, 5)))
    gone = ReportEntry(good.job, good.result, None, missing="There is no object s3://b/i.png.")
    failure = Failure(code="image_not_found", message="There is no such image.")
    failed = ReportEntry(good.job, JobResult(job_id="j2", state=JobState.FAILED, error=failure), None)
    damaged = ReportEntry(good.job, good.result, b"not an image")
    page = Page(render([gone, failed, damaged], title="t"))
    assert page.rows == 2
    for words in ("no object s3://b/i.png", "image_not_found", "There is no such image", "The image cannot be read: "):
        assert words in page.text


def test_what_is_gone_leaves_what_is_there() -> None:
    good = entry(ScoringOptions(), scored("m", 0, 2.0, (0, 0, 5, 5)))
    no_masks = ReportEntry(good.job, good.result, good.image, missing="The masks cannot be read any more.")
    page = Page(render([no_masks], title="t"))
    assert (page.rows, len(page.linked), page.layers, page.crops) == (1, 1, [], [])
    assert "The masks cannot be read any more." in page.text
    no_document = ReportEntry(None, good.result, None, missing="The job's document is gone.")
    page = Page(
        render([no_document, ReportEntry(None, JobResult(job_id="j3", state=JobState.EXPIRED), None)], title="t")
    )
    assert page.rows == 1
    for words in ("s3://b/<i>.png", "The job's document is gone.", "expired", "job j3"):
        assert words in page.text
    # Masks that were replaced by others of another image give no picture, rather than a wrong one.
    other = ReportEntry(good.job, good.result, good.image, [Mask(id="m", segmentation=encode_mask(np.ones((9, 9))))])
    assert (Page(render([other], title="t")).layers, Page(render([other], title="t")).rows) == ([], 1)


def test_cosines_are_coloured_by_their_difference() -> None:
    differences = (0.03, 0.02, 0.01, 0.0, -0.01, -0.02, -0.03)
    components = [
        scored(str(n), n, None, (0, 0, 5, 5)).model_copy(update={"s_pos": 0.25 + difference, "s_neg": 0.25})
        for n, difference in enumerate(differences)
    ]
    good = entry(ScoringOptions(method="cosine"), *components)
    result = good.result.model_copy(update={"method": "cosine"})
    text = render([ReportEntry(good.job, result, good.image)], title="t")
    page = Page(text)
    colours = re.findall(r'data-value="[^"]+"><span class="swatch" style="background:(#\w+)"></span>', text)
    blue, sky, yellow, vermilion = "#0072b2", "#56b4e9", "#f0e442", "#d55e00"
    assert [colours[0], *colours[2:5], colours[6]] == [blue, sky, yellow, yellow, vermilion]
    assert {"multiplier", "Σ pos", "Σ neg"}.isdisjoint(page.headings)
    assert "s_pos − s_neg" in page.headings
    assert "clearly negative" in page.text
    assert "surely an object" not in page.text


def test_independent_probabilities_have_no_sums_and_their_unclear_masks_fit_no_prompt() -> None:
    components = [
        scored(str(n), n, multiplier, (0, 0, 5, 5)).model_copy(
            update={"s_pos": s_pos, "s_neg": 1e-4, "p_pos_sum": None, "p_neg_sum": None}
        )
        for n, (multiplier, s_pos) in enumerate(((2.0, 0.4), (0.5, 1e-6)))
    ]
    good = entry(ScoringOptions(method="sigmoid"), *components)
    result = good.result.model_copy(update={"method": "sigmoid"})
    page = Page(render([ReportEntry(good.job, result, good.image)], title="t"))
    assert {"Σ pos", "Σ neg"}.isdisjoint(page.headings)
    assert "multiplier" in page.headings
    for words in ("no prompt fits", "log₁₀ s_pos", "s_pos − s_neg"):
        assert words in page.text
    assert "unclear" not in page.text


def test_both_scales_are_explained_where_both_are_used() -> None:
    good = entry(ScoringOptions(), scored("m", 0, 2.0, (0, 0, 5, 5)))
    results = [good.result.model_copy(update={"method": method}) for method in ("softmax", "cosine")]
    page = Page(render([ReportEntry(good.job, result, None) for result in results], title="t"))
    assert "clearly negative" in page.text
    assert "surely an object" in page.text


def test_numbers_have_three_decimals_and_upstream_fields_a_column_where_they_are() -> None:
    component = scored("m", 0, 1.0, (0, 0, 5, 5)).model_copy(update={"p_neg_sum": 1 / 3})
    plain = Page(render([entry(ScoringOptions(), component)], title="t"))
    assert "predicted iou" not in plain.headings
    assert "0.333" in plain.text
    for given, shown in ((0.98765, "0.988"), ("n/a <b>", "n/a <b>"), (None, ""), (True, "True")):
        upstream = component.model_copy(update={"upstream": {"predicted_iou": given}})
        page = Page(render([entry(ScoringOptions(), upstream, component)], title="t"))
        assert "predicted iou" in page.headings
        assert "stability score" not in page.headings
        assert shown in page.text


def test_the_batch_is_named_and_a_path_breaks_behind_its_slashes() -> None:
    good = entry(ScoringOptions(), scored("m", 0, 2.0, (0, 0, 5, 5)))
    result = good.result.model_copy(update={"batch_id": "nightly<1>"})
    text = render([ReportEntry(good.job, result, good.image, masks=good.masks)], title="t")
    assert "· batch nightly&lt;1&gt;" in text
    assert "<dt>Batch</dt>\n<dd>nightly&lt;1&gt;</dd>" in text
    assert "<h2>s3:/<wbr>/<wbr>b/<wbr>&lt;i&gt;.png</h2>" in text


def test_the_summary_says_what_computed_the_scores() -> None:
    good = entry(ScoringOptions(), scored("m", 0, 2.0, (0, 0, 5, 5)))
    prompts = PromptSetIdentity(name="mine", digest="sha256:abc", positive=3, negative=2, neutral=1)
    result = good.result.model_copy(update={"prompts": prompts, "treatment": "soft_mask", "method": "softmax"})
    other = result.model_copy(update={"model": MODEL.model_copy(update={"weights_digest": "sha256:1"})})
    page = Page(render([ReportEntry(good.job, one, None) for one in (result, result, other)], title="t"))
    for words in ("3 jobs (3 succeeded), 3 masks", "mine: 3 positive, 2 negative, 1 neutral", "sha256:abc"):
        assert words in page.text
    for words in ("a, 64 px, fp32, fast crops", "sha256:0", "sha256:1", "(2 jobs)", "(1 job)", "soft_mask, softmax"):
        assert words in page.text


def test_the_report_needs_neither_numpy_nor_torch() -> None:
    code = "import sys, maskscore.report; sys.exit(bool({'numpy', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_report_file_is_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(path, [], title="Übersicht ✓")
    assert "<h1>Übersicht ✓</h1>" in path.read_text("utf-8")
    assert "0 jobs" in Page(path.read_text("utf-8")).text
