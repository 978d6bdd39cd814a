"""docs/reference/formats has a page per format, an index of them, and examples that can be read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from maskscore.formats import FORMATS, detect, read_masks
from maskscore.schema.job import Mask

PAGES = Path(__file__).parents[2] / "docs" / "reference" / "formats"
OF = {"image": "one image", "dataset": "many images", "folder": "a folder"}


def test_each_format_has_a_page_and_a_line_in_the_index() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} == {*FORMATS, "README"}
    index = (PAGES / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| \[`(.+)`\]\((.+)\.md\) \| (.+) \| (.+) \|$", index, flags=re.MULTILINE)
    assert rows == [(name, name, layout.description, OF[layout.scope]) for name, layout in FORMATS.items()]


@pytest.mark.parametrize("name", FORMATS)
def test_a_page_says_its_formats_name_and_what_it_is(name: str) -> None:
    page = (PAGES / f"{name}.md").read_text("utf-8")
    assert f"\n\nFormat `{name}`: {FORMATS[name].description}.\n" in page
    assert re.findall(r"^## (.+)$", page, flags=re.MULTILINE) == ["Read it", "Fields", "Traps"]
    for link in re.findall(r"\]\(([a-z0-9-]+\.md)\)", page):
        assert (PAGES / link).is_file()


WITH_EXAMPLES = [
    *("maskscore", "sam", "sa1b", "coco", "lvis", "coco-panoptic", "detectron2", "ultralytics", "yolo"),
    *(
        "label-studio",
        "cvat",
        "grounded-sam2",
        "mmdet",
        "label-studio-min",
        "labelme",
        "via",
        "supervisely",
        "kitti-mots",
    ),
]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_a_pages_example_is_read(name: str) -> None:
    page = (PAGES / f"{name}.md").read_text("utf-8")
    example = re.findall(r"^```(?:json|xml|text)\n(.+?)^```$", page, flags=re.MULTILINE | re.DOTALL)[0].encode()
    assert detect(example).name == name
    if name != "coco-panoptic":
        masks = read_masks(example, size=(480, 640))
        assert masks
        assert all(isinstance(mask, Mask) for mask in masks), masks
