"""The report: every component a row, the crops' very pixels, and nothing of what it shows taken as HTML."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from maskscore.job import Job, Mask, ScoringOptions
from maskscore.masks import encode_mask
from maskscore.report import ReportEntry, render
from maskscore.result import Component, Failure, ImageInfo, JobResult, JobState, ModelIdentity, Skipped
from reference import treated

SIZE = 64
MODEL = ModelIdentity(architecture="a", weights_digest="sha256:0", image_size=SIZE, precision="fp32", crop_mode="fast")


class Page(HTMLParser):
    """Rows and pictures of a report."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows = 0
        self.crops: list[npt.NDArray[np.uint8]] = []
        self.layers: list[Image.Image] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.add(tag)
        self.rows += tag == "tr" and "data-mask" in given
        if tag == "img":
            kind, _, data = given["src"].partition(";base64,")
            assert kind in ("data:image/png", "data:image/jpeg")
            picture = Image.open(io.BytesIO(base64.b64decode(data)))
            if given.get("title") == "the crop as the model saw it":
                self.crops.append(np.asarray(picture.convert("RGB")))
            if given.get("class") == "layer":
                self.layers.append(picture)

    def handle_data(self, data: str) -> None:
        self.text += data


def entry(options: ScoringOptions, *components: Component, masks: list[Mask] | None = None) -> ReportEntry:
    job = Job.model_validate({"image": "s3://b/<i>.png", "masks": masks or [], "options": options, "job_id": "j1"})
    buffer = io.BytesIO()
    Image.fromarray(pixels()).save(buffer, "PNG")
    result = JobResult(
        job_id="j1",
        state=JobState.SUCCEEDED,
        image=ImageInfo(uri="s3://b/<i>.png", width=90, height=70, format="PNG"),
        model=ModelIdentity(
            architecture="a", weights_digest="sha256:0", image_size=SIZE, precision="fp32", crop_mode="fast"
        ),
        components=list(components),
    )
    return ReportEntry(job, result, buffer.getvalue(), list(masks or []))


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
    for colour in ("#0072b2", "#56b4e9", "#f0e442", "#d55e00"):
        assert 'multiplier" data-value' in text
        assert f'background: {colour}"' in text
    for words in ("empty_mask", "honest", "surely an object"):
        assert words in page.text


def test_nothing_that_is_shown_is_taken_as_html() -> None:
    evil = "<script>alert(1)</script>"
    component = scored(evil, 0, 2.0, (0, 0, 5, 5))
    text = render([entry(ScoringOptions(), component)], title=evil, note=evil)
    assert evil not in text
    assert "s3://b/<i>.png" not in text
    assert Page(text).text.count(evil) >= 3
    assert "<b>dog" not in text
    assert not re.search(r"(src|href)=\"https?:", text)


def test_jobs_without_a_picture_or_a_result_are_shown_as_what_they_are() -> None:
    good = entry(ScoringOptions(), scored("m", 0, 2.0, (0, 0, 5, 5)))
    gone = ReportEntry(good.job, good.result, None, missing="There is no object s3://b/i.png.")
    failure = Failure(code="image_not_found", message="There is no such image.")
    failed = ReportEntry(good.job, JobResult(job_id="j2", state=JobState.FAILED, error=failure), None)
    damaged = ReportEntry(good.job, good.result, b"not an image")
    page = Page(render([gone, failed, damaged], title="t"))
    assert page.rows == 2
    for words in ("no object s3://b/i.png", "image_not_found", "There is no such image", "cannot be shown"):
        assert words in page.text
