"""``maskscore report`` of a batch and ``maskscore compare`` with a real worker, and their pages in a browser."""

from __future__ import annotations

import json
import re
import subprocess
import uuid
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from browser import CHROMIUM, browser
from command_line import run_command
from maskscore import Client, Job
from maskscore.masks import encode_mask
from maskscore_worker.demo.scenes import draw_scene
from process_environment import patched_environment


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("looking")
    for number in range(3):
        scene = draw_scene(610_001 + number)
        Image.fromarray(scene.image).save(folder / f"scene-{number}.png")
        drawn = [(mask.id, mask.mask) for mask in scene.masks]
        # What is around a shape, in its box: only a treatment that hides the rest shows that it is not the shape.
        drawn += [(f"around-{mask.id}", around(mask.mask)) for mask in scene.masks if mask.kind == "object"]
        masks = [{"id": name, "segmentation": encode_mask(bits).model_dump()} for name, bits in drawn]
        masks.append({"id": "bad", "segmentation": {"size": list(scene.image.shape[:2]), "counts": [1]}})
        (folder / f"masks-{number}.json").write_text(json.dumps(masks))
    return folder


def around(bits: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    rows, columns = np.nonzero(bits)
    box = np.zeros_like(bits)
    box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    ring: npt.NDArray[np.bool_] = box & ~bits
    return ring


@pytest.fixture(scope="module")
def environment(demo_worker: dict[str, str]) -> dict[str, str]:
    return demo_worker


def run(environment: dict[str, str], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_command(*arguments, environment=environment, folder=folder)


def job(folder: Path, number: int, image: str | None = None) -> Job:
    return Job.model_validate(
        {
            "image": (folder / (image or f"scene-{number}.png")).as_uri(),
            "masks": (folder / f"masks-{number}.json").as_uri(),
            "options": {"prompts": "demo"},
        }
    )


def test_a_batch_of_few_images_is_one_file_and_of_many_a_folder(environment: dict[str, str], folder: Path) -> None:
    few = [job(folder, 0), job(folder, 1), job(folder, 2, image="nothing.png")]
    many = [job(folder, number % 3) for number in range(51)]
    with patched_environment(environment), Client() as client:
        client.submit_many(few, batch_id="few").wait(60)
        client.submit_many(many, batch_id="many").wait(120)
    small = run(environment, folder, "report", "few")
    assert (small.returncode, small.stdout) == (0, f"{folder / 'report.html'}\n")
    assert small.stderr == "maskscore: drawing 3 jobs\n"
    text = (folder / "report.html").read_text("utf-8")
    for words in ("3 jobs (2 succeeded, 1 failed)", "image_not_found", "mask_invalid", "Best", "Worst"):
        assert words in text
    assert text.count('<section id="j') == 3
    # What nobody named is not replaced; what was named is.
    again = run(environment, folder, "report", "few", "--title", "Again")
    assert (again.returncode, "report.html exists. Give `-o report.html`" in again.stderr) == (2, True), again.stderr
    assert (folder / "report.html").read_text("utf-8") == text
    assert run(environment, folder, "report", "few", "--title", "Again", "-o", "report.html").returncode == 0
    assert "Again" in (folder / "report.html").read_text("utf-8")
    large = run(environment, folder, "report", "--batch", "many", "--title", "Many")
    assert (large.returncode, large.stdout) == (0, f"{folder / 'report' / 'index.html'}\n"), large.stderr
    pages = sorted(path.name for path in (folder / "report").iterdir())
    assert pages == ["index.html", "page-0001.html", "page-0002.html", "page-0003.html"]
    counts = [len(re.findall('<section id="j', (folder / "report" / page).read_text("utf-8"))) for page in pages]
    assert counts == [0, 20, 20, 11]
    assert "51 jobs (51 succeeded)" in (folder / "report" / "index.html").read_text("utf-8")
    # A file that is named is one file, also of many.
    named = run(environment, folder, "report", "many", "-o", "all.html")
    assert (named.returncode, "51 images in one file" in named.stderr) == (0, True)
    assert (folder / "all.html").read_text("utf-8").count('<section id="j') == 51


def test_what_has_not_ended_is_shown_as_what_it_is(environment: dict[str, str], folder: Path) -> None:
    idle = {**environment, "MASKSCORE_NAMESPACE": f"idle-{uuid.uuid4().hex[:8]}"}
    with patched_environment(idle), Client() as client:
        client.submit_many([job(folder, 0), job(folder, 1)], batch_id="waits")
    shown = run(idle, folder, "report", "--batch", "waits", "-o", "waits.html")
    assert shown.returncode == 0, shown.stderr
    assert "2 jobs (2 queued), 0 masks" in (folder / "waits.html").read_text("utf-8")
    unknown = run(idle, folder, "report", "--batch", "nobody")
    assert unknown.returncode == 5
    assert run(idle, folder, "report").returncode == 2
    for output, words in (("nowhere/report.html", "no folder nowhere"), ("scene-0.png", "scene-0.png is a file")):
        refused = run(idle, folder, "report", "waits", "-o", output)
        assert (refused.returncode, words in refused.stderr) == (2, True), refused.stderr


COMPARE = ("compare", "scene-0.png", "--masks", "masks-0.json", "--prompts", "demo")


def test_treatments_side_by_side(environment: dict[str, str], folder: Path) -> None:
    shown = run(environment, folder, *COMPARE, "--timeout", "120")
    assert shown.returncode == 0, shown.stderr
    assert all(len(line) <= 80 for line in shown.stdout.splitlines()[:-1]), shown.stdout
    text = (folder / "compare.html").read_text("utf-8")
    again = run(environment, folder, *COMPARE)
    assert (again.returncode, "compare.html exists" in again.stderr) == (2, True), again.stderr
    masks = json.loads((folder / "masks-0.json").read_text())
    assert text.count('<section class="compared"') == len(masks)
    assert text.count('alt="crop of mask') == 3 * (len(masks) - 1)
    assert "mask_invalid" in text
    assert not re.search(r'(src|href)="(?!data:)', text)


def test_masks_that_differ_come_first_and_treatments_are_free(environment: dict[str, str], folder: Path) -> None:
    treatments = ("--treatment", "raw_crop", "--treatment", "soft_mask,alpha=1")
    shown = run(environment, folder, *COMPARE, *treatments, "--json", "-o", "two.html")
    assert shown.returncode == 0, shown.stderr
    masks = [json.loads(line) for line in shown.stdout.splitlines()]
    assert {tuple(mask["treatments"]) for mask in masks} == {("raw_crop", "soft_mask,alpha=1")}
    order = [(not mask["differs"], not mask["methods_differ"]) for mask in masks]
    assert order == sorted(order)
    for mask in masks:
        softmax = [scores["softmax"] for scores in mask["treatments"].values()]
        assert mask["differs"] == (len({scores["semantic_multiplier"] for scores in softmax}) > 1)
        # The cosines of the same crop, by the same model: the best prompt of each group is the same.
        for scores in mask["treatments"].values():
            if scores["softmax"]["s_pos"] is not None:
                assert scores["cosine"]["s_pos_text"] == scores["softmax"]["s_pos_text"]
                assert abs(scores["cosine"]["s_pos"]) <= 1
    # A fill of all that is outside makes a difference to an untouched crop.
    assert any(mask["differs"] for mask in masks)


def test_a_table_of_long_names_keeps_to_80_columns(environment: dict[str, str], folder: Path) -> None:
    names = ("raw_crop", "soft_mask,alpha=1", "soft_mask,alpha=0.25")
    treatments = [part for name in (*names, names[0]) for part in ("--treatment", name)]
    lines = run(environment, folder, *COMPARE, *treatments, "-o", "three.html").stdout.splitlines()
    assert lines[0].split() == ["mask", "(1)", "(2)", "(3)"]
    for number, name in enumerate(names, 1):
        assert f"({number}) {name}" in lines
    assert lines[1].startswith("≠")
    assert max(map(len, lines[:-1])) <= 80


def test_what_cannot_be_compared_says_why(environment: dict[str, str], folder: Path) -> None:
    assert run(environment, folder, *COMPARE, "-o", "nowhere/compare.html").returncode == 2
    wrong = run(environment, folder, *COMPARE, "--treatment", "polish", "-o", "wrong.html")
    assert (wrong.returncode, "polish" in wrong.stderr) == (2, True)
    gone = run(
        *(environment, folder, "compare", "nothing.png", "--masks", "masks-0.json"),
        *("--prompts", "demo", "-o", "gone.html"),
    )
    assert (gone.returncode, "image_not_found" in gone.stderr) == (1, True), gone.stderr
    idle = {**environment, "MASKSCORE_NAMESPACE": f"idle-{uuid.uuid4().hex[:8]}"}
    late = run(idle, folder, *COMPARE, "--timeout", "0.1", "-o", "late.html")
    assert late.returncode == 3
    with patched_environment(idle), Client() as client:
        assert client.dead_letters() == []
    assert "0 waiting" in run(idle, folder, "top", "--once").stdout


@pytest.mark.needs("Chromium", CHROMIUM, optional=True)
def test_pages_of_the_real_service_fit_in_a_browser(environment: dict[str, str], folder: Path) -> None:
    assert run(environment, folder, *COMPARE, "-o", "look.html").returncode == 0
    with browser() as tab:
        for width in (1280, 390):
            look = tab.look(folder / "look.html", width)
            assert (look.scroll_width, look.sticking_out, look.complaints) == (width, [], [])
