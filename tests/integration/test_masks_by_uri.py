"""Masks by URI in other tools' formats: the worker scores the masks that the tool has written."""

from __future__ import annotations

import base64
import gzip
import io
import json
import subprocess
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from PIL import Image

from command_line import run_command
from mask_files import Bits, brush_of, cvat_runs, label_map, png
from maskscore import Client, ClientSettings, Job, JobFailed, MasksRef, ScoringOptions
from maskscore.devstack import LocalServices
from maskscore.masks import encode_mask
from maskscore.schema.job import MasksFormat
from maskscore_worker.demo.scenes import draw_scene

DEMO = ScoringOptions(prompts="demo")
SCENE = draw_scene(880_001)
HEIGHT, WIDTH = SCENE.image.shape[:2]
# A map has one value per pixel, so that masks that overlap would not all be whole there.
LABELS = label_map([mask.mask for mask in SCENE.masks], range(1, len(SCENE.masks) + 1))
BITS: list[Bits] = [np.equal(LABELS, value) for value in np.unique(LABELS[LABELS > 0])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the user's, which the worker may read."""
    return tmp_path_factory.mktemp("user")


@pytest.fixture(scope="module")
def client(services: LocalServices, demo_worker: dict[str, str]) -> Iterator[Client]:
    services.create_bucket("by-uri")
    buffer = io.BytesIO()
    Image.fromarray(SCENE.image).save(buffer, "PNG")
    boto3.client("s3").put_object(Bucket="by-uri", Key="scene.png", Body=buffer.getvalue())
    settings = ClientSettings(redis_url=services.redis.url, namespace=demo_worker["MASKSCORE_NAMESPACE"])
    with Client(settings) as client:
        yield client


def npz(stack: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, masks=stack)
    return file.getvalue()


def cvat() -> bytes:
    masks = []
    for bits in BITS:
        runs, left, top, width, height = cvat_runs(bits)
        masks.append(f'<mask label="a" rle="{runs}" left="{left}" top="{top}" width="{width}" height="{height}"/>')
    image = f'<image id="3" name="x/scene.png" width="{WIDTH}" height="{HEIGHT}">{"".join(masks)}</image>'
    other = '<image id="4" name="x/other.png" width="5" height="5"/>'
    return f"<annotations>{image}{other}</annotations>".encode()


def label_studio() -> bytes:
    results = [
        {
            "id": f"r{index}",
            "type": "brushlabels",
            "original_width": WIDTH,
            "original_height": HEIGHT,
            "value": {"format": "rle", "rle": brush_of(bits), "brushlabels": ["a"]},
        }
        for index, bits in enumerate(BITS)
    ]
    return json.dumps(
        [{"id": 1, "data": {"image": "s3://by-uri/scene.png"}, "annotations": [{"result": results}]}]
    ).encode()


def label_studio_min() -> bytes:
    (task,) = json.loads(label_studio())
    regions = [
        {**result["value"], "original_width": WIDTH, "original_height": HEIGHT}
        for result in task["annotations"][0]["result"]
    ]
    return json.dumps([{**task["data"], "id": 1, "tag": regions, "annotator": 1, "annotation_id": 2}]).encode()


def mmdet() -> bytes:
    columns = {"labels": [1] * len(BITS), "scores": [0.5] * len(BITS), "bboxes": [[0, 0, 1, 1]] * len(BITS)}
    return json.dumps({**columns, "masks": RLES}).encode()


def grounded_sam2() -> bytes:
    return json.dumps({"image_path": "x.png", "annotations": [{"segmentation": rle} for rle in RLES]}).encode()


def whole_png(bits: Bits) -> bytes:
    return png(bits.astype(np.uint8))


def labelme() -> bytes:
    corners = [[0, 0], [WIDTH - 1, HEIGHT - 1]]
    shapes = [
        {"label": "a", "shape_type": "mask", "points": corners, "mask": base64.b64encode(whole_png(bits)).decode()}
        for bits in BITS
    ]
    fields = {"imagePath": "x.png", "imageHeight": HEIGHT, "imageWidth": WIDTH}
    return json.dumps({**fields, "shapes": shapes}).encode()


def supervisely() -> bytes:
    bitmaps = [base64.b64encode(zlib.compress(whole_png(bits))).decode() for bits in BITS]
    objects = [{"geometryType": "bitmap", "bitmap": {"data": data, "origin": [0, 0]}} for data in bitmaps]
    return json.dumps({"size": {"height": HEIGHT, "width": WIDTH}, "objects": objects}).encode()


def kitti_mots() -> bytes:
    lines = [f"7 {1000 + number} 1 {HEIGHT} {WIDTH} {rle['counts']}" for number, rle in enumerate(RLES)]
    return "\n".join(lines).encode()


def tiff() -> bytes:
    file = io.BytesIO()
    Image.fromarray(LABELS).save(file, "TIFF", compression="tiff_lzw")
    return file.getvalue()


def zipped(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations.xml", data)
    return file.getvalue()


RLES = [encode_mask(bits).model_dump(mode="json") for bits in BITS]
LINES = "\n".join(json.dumps({"segmentation": rle}) for rle in RLES).encode()
FILES: dict[str, tuple[MasksFormat, bytes]] = {
    "png": ("png-labels", png(LABELS)),
    "tiff": ("png-labels", tiff()),
    "npz": ("npz", npz(np.stack(BITS))),
    "npz of (H, W, N)": ("npz", npz(np.stack(BITS, axis=-1))),
    "cvat": ("cvat", cvat()),
    "cvat's zip": ("cvat", zipped(cvat())),
    "label-studio": ("label-studio", label_studio()),
    "label-studio-min": ("label-studio-min", label_studio_min()),
    "mmdet": ("mmdet", mmdet()),
    "grounded-sam2": ("grounded-sam2", grounded_sam2()),
    "labelme": ("labelme", labelme()),
    "supervisely": ("supervisely", supervisely()),
    "kitti-mots": ("kitti-mots", kitti_mots()),
    "JSON Lines in gzip": ("maskscore", gzip.compress(LINES)),
}


@pytest.mark.parametrize("said", [True, False])
@pytest.mark.parametrize(("format_", "data"), FILES.values(), ids=FILES)
def test_masks_in_a_tools_format_are_scored(client: Client, format_: MasksFormat, data: bytes, said: bool) -> None:
    boto3.client("s3").put_object(Bucket="by-uri", Key="masks", Body=data)
    masks = MasksRef(uri="s3://by-uri/masks", format=format_ if said else None)
    result = client.submit(Job(image="s3://by-uri/scene.png", masks=masks, options=DEMO)).wait(timeout=60)
    assert [component.area for component in result.components] == [int(bits.sum()) for bits in BITS]
    assert all(component.s_pos is not None for component in result.components)


def test_normalised_polygons_take_the_images_size(client: Client) -> None:
    lines = b"1 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75\n"
    boto3.client("s3").put_object(Bucket="by-uri", Key="labels.txt", Body=lines)
    job = Job(image="s3://by-uri/scene.png", masks="s3://by-uri/labels.txt", options=DEMO)
    (component,) = client.submit(job).wait(timeout=60).components
    assert component.box is not None
    expected = (WIDTH / 4, HEIGHT / 4, WIDTH / 2, HEIGHT / 2)
    # What lies under an outline is inside: a pixel more than between its sides.
    assert np.abs(np.subtract(tuple(component.box), expected)).max() <= 2
    assert component.upstream == {"class": 1}


def test_a_file_is_found_by_its_name_on_disk(client: Client, folder: Path) -> None:
    Image.fromarray(SCENE.image).save(folder / "a scene.png")
    file = cvat().replace(b"x/scene.png", b"x/a scene.png")
    boto3.client("s3").put_object(Bucket="by-uri", Key="masks", Body=file)
    job = Job(image=(folder / "a scene.png").as_uri(), masks="s3://by-uri/masks", options=DEMO)
    result = client.submit(job).wait(timeout=60)
    assert [component.area for component in result.components] == [int(bits.sum()) for bits in BITS]


def test_a_format_that_does_not_fit_is_the_jobs_failure(client: Client) -> None:
    boto3.client("s3").put_object(Bucket="by-uri", Key="masks", Body=png(LABELS))
    masks = MasksRef(uri="s3://by-uri/masks", format="cvat")
    with pytest.raises(JobFailed, match=r"masks_invalid.*they are a PNG"):
        client.submit(Job(image="s3://by-uri/scene.png", masks=masks, options=DEMO)).wait(timeout=60)


@pytest.mark.usefixtures("client")
def test_the_command_line_takes_a_format(demo_worker: dict[str, str], folder: Path) -> None:
    Image.fromarray(SCENE.image).save(folder / "scene.png")
    (folder / "labels.txt").write_text("1 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75\n")
    # Of one mask by what is said, of as many as there are values by what it looks like.
    boto3.client("s3").put_object(Bucket="by-uri", Key="map.png", Body=png(LABELS))

    def submit(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ("submit", *arguments, "--prompts", "demo", "--wait", "--json")
        return run_command(*command, environment=demo_worker, folder=folder)

    by_uri = submit("--image", "scene.png", "--masks", "s3://by-uri/map.png", "--format", "png-binary")
    (component,) = json.loads(by_uri.stdout)["components"]
    assert component["area"] == int((LABELS > 0).sum())
    inline = submit("--image", "scene.png", "--masks", "labels.txt", "--format", "yolo")
    (component,) = json.loads(inline.stdout)["components"]
    assert component["box"][2:] == pytest.approx([WIDTH / 2, HEIGHT / 2], abs=2)
    unknown = submit("--image", "s3://by-uri/scene.png", "--masks", "labels.txt")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "give `size`" in unknown.stderr
