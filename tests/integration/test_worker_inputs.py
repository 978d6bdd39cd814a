"""Bad and unusual images and masks: the code and sentence of each, and that the worker goes on."""

from __future__ import annotations

import io
import json
import os
import struct
import uuid
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from maskscore import Client, ClientSettings, JobResult, JobState
from maskscore.broker.redis_connection import connect
from maskscore.devstack import LocalServices
from maskscore.ledger import Ledger, Submission
from maskscore.masks import encode_mask
from maskscore_worker.demo.run import DEMO_WEIGHTS
from worker_process import WorkerProcess, start_worker

HEIGHT, WIDTH = 48, 64
SQUARE = {"id": "1", "segmentation": [[10, 10, 40, 10, 40, 30, 10, 30]]}


@dataclass
class Desk:
    """A worker to send things to, raw documents included, as a producer in another language would."""

    client: Client
    worker: WorkerProcess
    ledger: Ledger
    files: Path

    def upload(self, data: bytes, name: str = "image", bucket: str = "inputs") -> str:
        key = f"{uuid.uuid4().hex}/{name}"
        boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=data)
        return f"s3://{bucket}/{key}"

    def ask(self, document: dict[str, Any]) -> JobResult:
        document = {"version": 1, "options": {"prompts": "demo"}, **document}
        job_id = uuid.uuid4().hex
        packed = zlib.compress(json.dumps({**document, "job_id": job_id}).encode())
        self.ledger.submit([Submission(job_id, packed, job_id, None, "normal", None)])
        return next(self.client.as_completed([self.client.handle(job_id)], timeout=60))


@pytest.fixture(scope="module")
def desk(services: LocalServices, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    files = tmp_path_factory.mktemp("allowed")
    namespace = f"bad-input-{uuid.uuid4().hex[:8]}"
    for bucket in ("inputs", "closed"):
        services.create_bucket(bucket)
    environment = {
        **services.environment(),
        "MASKSCORE_NAMESPACE": namespace,
        "MASKSCORE_WEIGHTS": str(DEMO_WEIGHTS),
        "MASKSCORE_PROMPTS": "demo",
        "MASKSCORE_BUCKETS": "inputs,no-such-bucket",
        "MASKSCORE_RESULT_BUCKETS": "xy",
        "MASKSCORE_FILE_ROOTS": str(files),
        "MASKSCORE_MAX_IMAGE_BYTES": "1000000",
        "MASKSCORE_MAX_PIXELS": "4000000",
        "MASKSCORE_MAX_MASKS": "5000",
    }
    settings = ClientSettings(redis_url=services.redis.url, namespace=namespace)
    with start_worker(environment) as worker, Client(settings) as client:
        yield Desk(client, worker, Ledger(connect(settings), namespace=namespace, ttl_s=600), files)


def pixels(height: int = HEIGHT, width: int = WIDTH) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 255, (height, width, 3), dtype=np.uint8)


def encoded(format_: str = "PNG", image: Image.Image | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image or Image.fromarray(pixels())).save(buffer, format_, **options)
    return buffer.getvalue()


def bomb(width: int = 30_000, height: int = 30_000) -> bytes:
    """A PNG of a few bytes whose header promises 900 million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def assert_goes_on(desk: Desk) -> None:
    result = desk.ask({"image": desk.upload(encoded()), "masks": [SQUARE]})
    assert result.state is JobState.SUCCEEDED, result.error
    assert result.components[0].semantic_multiplier is not None
    assert desk.worker.alive()


def rle(mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    return {"id": "1", "segmentation": encode_mask(mask).model_dump()}


Document = Callable[[Desk], dict[str, Any]]

FAILURES: dict[str, tuple[Document, str, str]] = {
    "missing object": (lambda d: {"image": "s3://inputs/nothing.jpg"}, "image_not_found", "nothing.jpg"),
    "missing bucket": (lambda d: {"image": "s3://no-such-bucket/a.jpg"}, "image_not_found", "no-such-bucket"),
    "bucket not allowed": (
        lambda d: {"image": d.upload(encoded(), bucket="closed")},
        "uri_not_allowed",
        "MASKSCORE_BUCKETS",
    ),
    "masks object missing": (lambda d: {"masks": "s3://inputs/nothing.json"}, "masks_not_found", "nothing.json"),
    "file outside the roots": (lambda d: {"image": "file:///etc/passwd"}, "uri_not_allowed", "MASKSCORE_FILE_ROOTS"),
    "file that climbs out": (
        lambda d: {"image": f"file://{d.files}/../../etc/passwd"},
        "uri_not_allowed",
        "MASKSCORE_FILE_ROOTS",
    ),
    "unknown scheme": (lambda d: {"image": "https://example.org/a.jpg"}, "uri_invalid", "https"),
    "oversized object": (lambda d: {"image": d.upload(os.urandom(1_000_001))}, "image_too_large", "1,000,000"),
    "decompression bomb": (lambda d: {"image": d.upload(bomb())}, "image_too_large", "30000"),
    "zero bytes": (lambda d: {"image": d.upload(b"")}, "image_undecodable", "empty"),
    "HTML error page": (
        lambda d: {"image": d.upload(b"<!DOCTYPE html><html><body>404</body></html>")},
        "image_undecodable",
        "HTML",
    ),
    "text": (lambda d: {"image": d.upload(b"hello, this is not an image")}, "image_undecodable", "text"),
    "random bytes": (lambda d: {"image": d.upload(bytes(range(256)) * 9)}, "image_undecodable", "image"),
    "truncated JPEG": (
        lambda d: {"image": d.upload(encoded("JPEG")[:-400])},
        "image_truncated",
        "truncated",
    ),
    "truncated PNG": (lambda d: {"image": d.upload(encoded("PNG")[:-4000])}, "image_truncated", "truncated"),
    "all masks of another size": (
        lambda d: {"masks": [rle(np.ones((9, 9), bool))]},
        "mask_size_mismatch",
        "9",
    ),
    "too many masks": (
        lambda d: {"masks": [{**SQUARE, "id": str(n)} for n in range(5001)]},
        "too_many_masks",
        "5,000",
    ),
    "duplicate ids": (lambda d: {"masks": [SQUARE, SQUARE]}, "document_invalid", "more than once"),
    "masks object that is not JSON": (lambda d: {"masks": d.upload(b"\x00\x01")}, "masks_invalid", "JSON"),
    "masks object of no known layout": (lambda d: {"masks": d.upload(b'{"a": 1}')}, "masks_invalid", ""),
    "empty prompt list": (
        lambda d: {"options": {"prompts": {"name": "x", "positive": [], "negative": ["sky"]}}},
        "document_invalid",
        "positive",
    ),
    "prompt longer than the context": (
        lambda d: {
            "options": {"prompts": {"name": "x", "positive": ["a very " * 60 + "big cat"], "negative": ["sky"]}}
        },
        "prompt_too_long",
        "tokens",
    ),
    "unknown prompt set": (lambda d: {"options": {"prompts": "nope"}}, "prompt_set_unknown", "'nope'"),
    "unknown field": (lambda d: {"treatmnet": "original"}, "document_invalid", "treatmnet"),
    "another version": (lambda d: {"version": 99}, "document_version_unsupported", "99"),
    "infinite expiry": (lambda d: {"expires_in": float("inf")}, "document_invalid", "expires_in"),
    "result bucket not allowed": (lambda d: {"result_uri": "s3://inputs/r/"}, "result_forbidden", "RESULT_BUCKETS"),
    # SeaweedFS makes missing buckets by itself, but not one whose name is too short.
    "result bucket refused": (lambda d: {"result_uri": "s3://xy/r/"}, "uri_invalid", "s3://xy/r/"),
    "another object than the one submitted for": (
        lambda d: {"image": {"uri": d.upload(encoded()), "etag": '"0123"'}},
        "image_changed",
        "",
    ),
}


@pytest.mark.parametrize("case", FAILURES)
def test_the_job_fails_with_a_code_and_a_sentence(desk: Desk, case: str) -> None:
    make, code, words = FAILURES[case]
    document = make(desk)
    document = {"image": desk.upload(encoded()) if "image" not in document else document["image"], **document}
    result = desk.ask({"masks": [SQUARE], **document})
    assert result.state is JobState.FAILED
    assert result.error is not None
    assert result.error.code == code, result.error
    assert words in result.error.message
    assert len(result.error.message) > 25
    assert result.components == []
    assert_goes_on(desk)


def test_a_forbidden_bucket(services: LocalServices) -> None:
    """A worker whose credentials the store refuses: it is not the job's fault, and the worker stays up."""
    namespace = f"forbidden-{uuid.uuid4().hex[:8]}"
    services.create_bucket("inputs")
    environment = {
        **services.environment(),
        "AWS_SECRET_ACCESS_KEY": "not the secret",
        "MASKSCORE_NAMESPACE": namespace,
        "MASKSCORE_WEIGHTS": str(DEMO_WEIGHTS),
        "MASKSCORE_PROMPTS": "demo",
        "MASKSCORE_BUCKETS": "inputs",
        # By default it would be tried again, by another worker.
        "MASKSCORE_MAX_RETRIES": "0",
    }
    settings = ClientSettings(redis_url=services.redis.url, namespace=namespace)
    with start_worker(environment) as worker, Client(settings) as client:
        desk = Desk(client, worker, Ledger(connect(settings), namespace=namespace, ttl_s=600), Path())
        for document in (
            {"image": "s3://inputs/a.jpg", "masks": [SQUARE]},
            {"image": "s3://inputs/a.jpg", "masks": "s3://inputs/a.json"},
        ):
            result = desk.ask(document)
            assert result.error is not None
            assert result.error.code == "storage_unavailable", result.error
            assert "SignatureDoesNotMatch" in result.error.message
            assert "inputs" in result.error.message
        assert len(client.dead_letters()) == 2
        assert worker.alive()


FULL = np.ones((HEIGHT, WIDTH), bool)
SKIPS: dict[str, tuple[Any, str, str]] = {
    "mask of another size": (rle(np.ones((9, 9), bool))["segmentation"], "mask_size_mismatch", "9"),
    "empty mask": (rle(~FULL)["segmentation"], "empty_mask", ""),
    "wrong total": ({"size": [HEIGHT, WIDTH], "counts": [5, 5]}, "mask_invalid", "10"),
    "negative run": ({"size": [HEIGHT, WIDTH], "counts": [-5, HEIGHT * WIDTH + 5]}, "mask_invalid", "negative"),
    "not ASCII": ({"size": [HEIGHT, WIDTH], "counts": "Ünïcode"}, "mask_invalid", "ASCII"),
    "two points": ([[1, 1, 5, 5]], "mask_invalid", "three points"),
    "odd number of coordinates": ([[1, 1, 5, 5, 9, 9, 3]], "mask_invalid", ""),
    "no parts": ([], "mask_invalid", ""),
    "NaN": ([[float("nan"), 1, 5, 5, 9, 1]], "mask_invalid", "finite"),
    "infinite": ([[float("inf"), 1, 5, 5, 9, 1]], "mask_invalid", "finite"),
    "outside the image": ([[100, 100, 120, 100, 120, 120]], "outside_image", ""),
}


@pytest.mark.parametrize("case", SKIPS)
def test_one_bad_mask_is_skipped_and_its_neighbours_are_scored(desk: Desk, case: str) -> None:
    segmentation, code, words = SKIPS[case]
    good = rle(FULL)["segmentation"]
    masks = [
        {"id": "before", "segmentation": good},
        {"id": "bad", "segmentation": segmentation, "predicted_iou": 0.25},
        {"id": "after", "segmentation": good},
    ]
    image = desk.upload(encoded())
    for given in (masks, desk.upload(json.dumps(masks).encode(), "masks.json")):
        result = desk.ask({"image": image, "masks": given})
        assert result.state is JobState.SUCCEEDED, result.error
        assert [component.id for component in result.components] == ["before", "bad", "after"]
        before, bad, after = result.components
        assert bad.skipped is not None
        assert bad.skipped.code == code, bad.skipped
        assert words in bad.skipped.message
        assert (bad.s_pos, bad.semantic_multiplier, bad.upstream) == (None, None, {"predicted_iou": 0.25})
        assert before.s_pos == pytest.approx(after.s_pos)
    assert_goes_on(desk)


def test_of_equal_ids_in_an_object_the_first_is_scored(desk: Desk) -> None:
    masks = [SQUARE, {**SQUARE, "id": 1}, {"id": None, "segmentation": SQUARE["segmentation"]}]
    result = desk.ask({"image": desk.upload(encoded()), "masks": desk.upload(json.dumps(masks).encode())})
    assert result.state is JobState.SUCCEEDED, result.error
    assert [(component.id, component.s_pos is not None) for component in result.components] == [
        ("1", True),
        ("1", False),
        ("2", True),
    ]
    assert result.components[1].skipped is not None
    assert result.components[1].skipped.code == "mask_invalid"
    assert "entry 0" in result.components[1].skipped.message


def region(rows: slice, columns: slice) -> npt.NDArray[np.bool_]:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[rows, columns] = True
    return mask


ODD_MASKS = {
    "one pixel": (region(slice(7, 8), slice(9, 10)), (9, 7, 1, 1)),
    "one row": (region(slice(7, 8), slice(0, WIDTH)), (0, 7, WIDTH, 1)),
    "one column": (region(slice(0, HEIGHT), slice(9, 10)), (9, 0, 1, HEIGHT)),
    "touching every edge": (FULL, (0, 0, WIDTH, HEIGHT)),
}


@pytest.mark.parametrize("case", ODD_MASKS)
def test_odd_but_good_masks_are_scored(desk: Desk, case: str) -> None:
    mask, box = ODD_MASKS[case]
    result = desk.ask({"image": desk.upload(encoded()), "masks": [rle(mask)]})
    (component,) = result.components
    assert (component.box, component.area) == (box, mask.sum())
    assert component.semantic_multiplier in (0.1, 0.5, 1.0, 2.0)


def test_no_masks_are_a_success_with_a_warning(desk: Desk) -> None:
    result = desk.ask({"image": desk.upload(encoded()), "masks": []})
    assert (result.state, result.components) == (JobState.SUCCEEDED, [])
    assert [warning.code for warning in result.warnings] == ["no_masks"]


def test_what_is_left_out_of_masks_or_may_be_meant_otherwise_is_a_warning(desk: Desk) -> None:
    polygons = [[[1, 1]], [[2, 2, 30, 2, 30, 20], [9, 9]]]
    masks = [{"id": str(n), "segmentation": parts} for n, parts in enumerate(polygons)]
    result = desk.ask({"image": desk.upload(encoded()), "masks": masks})
    assert [component.skipped is None for component in result.components] == [False, True]
    (warning,) = result.warnings
    assert (warning.code, "'1' (1 of 2)" in warning.message) == ("polygons_left_out", True)
    labels = np.full((HEIGHT, WIDTH), 3, np.uint8)
    labels[9:20, 9:20] = 7
    file = io.BytesIO()
    Image.fromarray(labels).save(file, "PNG")
    result = desk.ask({"image": desk.upload(encoded()), "masks": desk.upload(file.getvalue())})
    assert ([c.id for c in result.components], [w.code for w in result.warnings]) == (["3", "7"], ["masks_doubtful"])


def test_five_thousand_masks_come_back_in_order(desk: Desk) -> None:
    masks = [
        {
            "id": f"m{n}",
            "segmentation": {"size": [HEIGHT, WIDTH], "counts": [n % 3000, 9, HEIGHT * WIDTH - 9 - n % 3000]},
        }
        for n in range(5000)
    ]
    result = desk.ask({"image": desk.upload(encoded()), "masks": desk.upload(json.dumps(masks).encode())})
    assert [component.id for component in result.components] == [mask["id"] for mask in masks]
    assert all(component.s_pos is not None for component in result.components)
    # The same mask twice gives the same scores, wherever in the batches it stood.
    assert result.components[0].s_pos == pytest.approx(result.components[3000].s_pos, abs=1e-5)


def oriented(tag: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = tag
    return encoded("JPEG", exif=exif)


def animation() -> bytes:
    frames = [Image.fromarray(pixels()), Image.fromarray(255 - pixels())]
    return encoded("GIF", frames[0], save_all=True, append_images=frames[1:])


def mode(name: str) -> Image.Image:
    return Image.fromarray(pixels()).convert(name)


ODD_IMAGES: dict[str, tuple[Callable[[], bytes], str, list[str]]] = {
    "CMYK": (lambda: encoded("JPEG", mode("CMYK")), "JPEG", []),
    "grey": (lambda: encoded("PNG", mode("L")), "PNG", []),
    "grey with alpha": (lambda: encoded("PNG", mode("LA")), "PNG", []),
    "RGBA": (lambda: encoded("PNG", mode("RGBA")), "PNG", []),
    "palette": (lambda: encoded("PNG", mode("P")), "PNG", []),
    "one bit": (lambda: encoded("PNG", mode("1")), "PNG", []),
    "16 bits": (
        lambda: encoded("PNG", Image.fromarray(pixels()[..., 0].astype(np.uint16) * 257)),
        "PNG",
        [],
    ),
    "WebP": (lambda: encoded("WEBP"), "WEBP", []),
    "TIFF": (lambda: encoded("TIFF"), "TIFF", []),
    "animated GIF": (animation, "GIF", ["first_frame_only"]),
    "turned by EXIF to the masks' frame": (lambda: oriented(3), "JPEG", ["orientation_ambiguous"]),
}


@pytest.mark.parametrize("case", ODD_IMAGES)
def test_odd_but_good_images_are_scored(desk: Desk, case: str) -> None:
    make, format_, warnings = ODD_IMAGES[case]
    # The name lies on purpose: the content decides.
    result = desk.ask({"image": desk.upload(make(), "liar.txt"), "masks": [rle(FULL)]})
    assert result.state is JobState.SUCCEEDED, result.error
    assert result.image is not None
    assert (result.image.width, result.image.height, result.image.format) == (WIDTH, HEIGHT, format_)
    assert [warning.code for warning in result.warnings] == warnings
    assert result.components[0].semantic_multiplier is not None


@pytest.mark.parametrize(("shape", "applied"), [((WIDTH, HEIGHT), True), ((HEIGHT, WIDTH), False)])
def test_the_masks_decide_which_way_up_a_turned_photo_is(desk: Desk, shape: tuple[int, int], applied: bool) -> None:
    result = desk.ask({"image": desk.upload(oriented(6)), "masks": [rle(np.ones(shape, bool))]})
    assert result.image is not None
    assert (result.image.height, result.image.width) == shape
    assert (result.image.exif_orientation, result.image.orientation_applied) == (6, applied)
    assert result.warnings == []


def test_files_inside_an_allowed_root_are_read(desk: Desk) -> None:
    path = desk.files / "a photo.png"
    path.write_bytes(encoded())
    result = desk.ask({"image": path.as_uri(), "masks": [SQUARE]})
    assert result.state is JobState.SUCCEEDED, result.error
