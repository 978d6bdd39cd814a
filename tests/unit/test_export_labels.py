"""Files of classes, and which label a mask gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from maskscore.errors import InvalidDocumentError
from maskscore.export import ExportCounts, Labelling, Selection, read_classes
from maskscore.export.categories import Categories
from maskscore.export.mask_buffer import open_mask_buffer
from maskscore.export.yolo_writer import _write as write_files
from maskscore.heads import HeadApplication
from maskscore.schema import Component, Head


def classes(folder: Path, text: str) -> dict[str, str | None]:
    (folder / "classes.yaml").write_text(text)
    return read_classes(folder / "classes.yaml")


def test_a_file_of_classes(tmp_path: Path) -> None:
    found = classes(tmp_path, "a photo of a dog: dog\n'a puppy': dog\na wall: null\na seven: 7\n")
    assert found == {"a photo of a dog": "dog", "a puppy": "dog", "a wall": None, "a seven": "7"}
    assert Labelling(classes=found).names == ("dog", "7")
    assert classes(tmp_path, '{"a dog": "dog", "a cat": "cat"}') == {"a dog": "dog", "a cat": "cat"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no list of `prompt: class`"),
        ("- a dog", "no list of `prompt: class`"),
        ("a dog: [dog, animal]", r"line 1: the class of 'a dog' is \['dog', 'animal'\]; it must be text"),
        ("a dog: dog\na yes: yes", "line 2: the class of 'a yes' is True; it must be text"),
        ("a dog: ' '", "line 1: the class of 'a dog' is empty"),
        ("no: dog", "the prompt False is not text; put it in quotes"),
        ("a dog: null", "has no class, only null"),
        ("a dog: dog\na dog: cat", "line 2: `a dog` is given a second time"),
    ],
)
def test_what_is_wrong_with_a_file_of_classes_is_said(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidDocumentError, match=said):
        classes(tmp_path, text)


def test_a_label_is_the_best_prompt_or_its_class() -> None:
    mask = Component(id="1", index=0, s_pos=0.4, s_pos_text="a puppy")
    assert Labelling().text_of(mask) == "a puppy"
    assert Labelling(min_score=0.4).text_of(mask) == "a puppy"
    assert Labelling(min_score=0.41).text_of(mask) is None
    assert Labelling(min_score=0.1).text_of(Component(id="1", index=0)) is None
    by_class = Labelling(classes={"a puppy": "dog", "a wall": None})
    assert (by_class.label_of("a puppy"), by_class.label_of("a wall")) == ("dog", None)
    assert by_class.check_texts(["a puppy"]) == ("a wall",)
    from_head = Labelling(source="head", min_score=0.5, classes={"puppy": "dog", "wall": None})
    sure = Component(id="1", index=0, s_pos=0.1, s_pos_text="a wall", p_keep=0.6, head_class="puppy")
    assert from_head.text_of(sure) == "puppy"
    assert from_head.text_of(sure.model_copy(update={"p_keep": 0.4})) is None
    with pytest.raises(InvalidDocumentError, match="no entry for 1 class that masks are labelled with: 'cat'"):
        from_head.check_texts(["cat"])
    with pytest.raises(InvalidDocumentError, match="no entry for 1 prompt that masks are labelled with: 'a pupy'"):
        by_class.check_texts(["a pupy", "a wall"])
    with pytest.raises(InvalidDocumentError, match="'s_pos_txt'; did you mean `s_pos_text`"):
        Labelling(source="s_pos_txt")


def test_names_of_classes_come_back_from_the_yaml_of_yolo(tmp_path: Path) -> None:
    named = ["yes", "3", "a: b", "\N{DOG FACE} \N{LATIN SMALL LETTER O WITH DIAERESIS}", "a\x85b\x7f", "long " * 40]
    entries: dict[int, dict[str, Any]] = {number: {"name": name} for number, name in enumerate(named, start=7)}
    categories = Categories(entries | {90: {"supercategory": "animal"}}, fallback=91, ids=None)
    with open_mask_buffer(Selection()) as buffer:
        buffer.fill([], ExportCounts())
        write_files(tmp_path, buffer, categories)
    dataset = yaml.safe_load((tmp_path / "data.yaml").read_text(encoding="utf-8"))
    assert dataset == {"train": "images", "val": "images", "names": dict(enumerate([*named, "90"]))}


def test_labels_from_a_head_are_its_classes_that_are_kept() -> None:
    about = {"name": "v1", "threshold": 0.5, "weights_digest": "sha256:w", "views": "original"}
    rows: dict[str, Any] = {"kind": "probe", "weights": [[1.0], [2.0], [3.0]], "biases": [0.0] * 3}
    named = {"classes": ["dog", "wall", "cat"], "drop_classes": ["wall"]}
    by_class = Head.model_validate({**about, "model": rows, **named})
    selection = Selection(head=HeadApplication(by_class), labelling=Labelling(source="head"))
    assert selection.needs_decisions
    assert selection.label_names == ("dog", "cat")
    assert Selection(labelling=Labelling(source="head")).label_names is None
    binary = Head.model_validate({**about, "model": {"kind": "probe", "weights": [[1.0]], "biases": [0.0]}})
    with pytest.raises(InvalidDocumentError, match="The head v1 does not tell classes apart"):
        Selection(head=HeadApplication(binary), labelling=Labelling(source="head"))


def test_thresholds_of_copies_and_parts_are_checked() -> None:
    for wrong in ({"nms": 0.0}, {"drop_parts": 1.1}, {"drop_wholes": float("nan")}):
        with pytest.raises(InvalidDocumentError, match="it must be above 0, and at most 1"):
            Selection(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidDocumentError, match="give one of them"):
        Selection(drop_parts=0.9, drop_wholes=0.9)
    assert not Selection().needs_all
    assert Selection(nms=0.8).needs_all
