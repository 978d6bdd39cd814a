"""Thousands of damaged inputs each give a result or a code (``HOSTILE_ROUNDS=50``: fifty times as many)."""

from __future__ import annotations

import json
import tracemalloc
import zlib
from collections.abc import Callable
from random import Random
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz_inputs import (
    HEIGHT,
    ROUNDS,
    WIDTH,
    encoded,
    hostile_documents,
    hostile_segmentations,
    masks_documents,
    mutated_bytes,
    mutated_document,
    real_images,
)
from maskscore.errors import FailureCode, JobError, SkipCode
from maskscore.formats import MasksDocumentError, Orphans, UnreadableMask, read_masks
from maskscore.masks import count_fitting
from maskscore.schema.document import Document, pack, unpack
from maskscore.schema.job import Job, Mask, parse_job
from maskscore.schema.result import Component, JobResult, JobState
from maskscore_worker.inputs.images import DecodedImage, ImageFile, decode_image
from maskscore_worker.masks.regions import Region, SkippedRegion, check_sizes, find_regions

T = TypeVar("T")

# The worker has the same filter; pytest sets its own.
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")
IMAGES = real_images()
IMAGE_CODES = (FailureCode.IMAGE_UNDECODABLE, FailureCode.IMAGE_TRUNCATED, FailureCode.IMAGE_TOO_LARGE)
LONGEST = 2500
MOST_PIXELS = 1_000_000


def outcome(step: Callable[[], T]) -> T | JobError | MasksDocumentError:
    """Return what the step gives, or the error with a code that it raises; anything else fails the test."""
    try:
        return step()
    except (JobError, MasksDocumentError) as error:
        return error


def assert_code(error: JobError | MasksDocumentError, *codes: FailureCode) -> None:
    assert error.code in map(str, codes)
    assert 10 < len(str(error)) <= LONGEST


def image_or_code(data: bytes) -> str:
    """Decode; return ``"ok"`` or the code."""
    image = outcome(
        lambda: decode_image(
            ImageFile(data, "s3://a/b"), orientation="auto", count_fitting=lambda h, w: h, max_pixels=MOST_PIXELS
        )
    )
    if isinstance(image, JobError):
        assert_code(image, *IMAGE_CODES)
        return image.code
    assert isinstance(image, DecodedImage)
    assert image.pixels.dtype == np.uint8
    assert image.pixels.ndim == 3
    assert image.pixels.shape[2] == 3
    assert 0 < image.pixels.shape[0] * image.pixels.shape[1] <= MOST_PIXELS
    return "ok"


def test_the_whole_files_are_images() -> None:
    formats = {name.split()[0] for name in IMAGES}
    read = {"AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF", "WEBP"}
    assert read < formats
    wrong = [
        (name, outcome)
        for name, data in IMAGES.items()
        if (outcome := image_or_code(data)) != ("ok" if name.split()[0] in read else "image_undecodable")
    ]
    assert wrong == []


@pytest.mark.parametrize("seed", range(4))
def test_mutated_images_give_pixels_or_a_code(seed: int) -> None:
    random = Random(seed)
    names, files = list(IMAGES), list(IMAGES.values())
    codes = set()
    for _ in range(2500 * ROUNDS):
        codes.add(image_or_code(mutated_bytes(random, IMAGES[random.choice(names)], files)))
    assert {"ok", "image_undecodable", "image_truncated"} <= codes


def test_cut_images_give_pixels_or_a_code() -> None:
    random = Random(9)
    for data in IMAGES.values():
        for _ in range(6 * ROUNDS):
            image_or_code(data[: random.randrange(len(data))])


@given(st.binary(max_size=300), st.sampled_from([data[:24] for data in IMAGES.values()]))
def test_any_bytes_behind_any_magic_give_pixels_or_a_code(data: bytes, magic: bytes) -> None:
    image_or_code(data)
    image_or_code(magic + data)


def assert_found(masks: list[Mask | UnreadableMask]) -> None:
    """Find the regions; each mask has one, or a code, and the result can be written and read."""
    count_fitting(masks, HEIGHT, WIDTH)
    mismatch = outcome(lambda: check_sizes(masks, HEIGHT, WIDTH))
    if isinstance(mismatch, JobError):
        assert_code(mismatch, FailureCode.MASK_SIZE_MISMATCH)
    found = list(find_regions(masks, height=HEIGHT, width=WIDTH, min_area=1, split_components=False))
    assert [region.index for region in found] == list(range(len(masks)))
    for region in found:
        if isinstance(region, SkippedRegion):
            assert region.code in SkipCode
            assert 5 < len(region.message) <= LONGEST
            continue
        x, y, width, height = region.box
        assert 0 <= x < x + width <= WIDTH
        assert 0 <= y < y + height <= HEIGHT
        assert region.bits.shape == (height, width)
        assert region.area == np.count_nonzero(region.bits) > 0
    components = [Component(id=mask.id, index=index, upstream=mask.upstream) for index, mask in enumerate(masks)]
    result = JobResult(job_id="j", state=JobState.SUCCEEDED, components=components)
    # Compared as text: what is not a finite number comes back as null.
    document = unpack(pack(result)).decode()
    assert JobResult.model_validate_json(document).model_dump_json() == document


def masks_or_refusal(data: bytes) -> bool:
    masks = outcome(lambda: read_masks(data, image_name="image", orphans=Orphans()))
    if not isinstance(masks, list):
        assert_code(masks, FailureCode.MASKS_INVALID)
        return False
    assert_found(masks)
    return True


DOCUMENTS = {name: json.dumps(document).encode() for name, document in masks_documents().items()}


@pytest.mark.parametrize("layout", DOCUMENTS)
def test_mutated_masks_documents_give_regions_or_a_code(layout: str) -> None:
    random = Random(3)
    others = [*DOCUMENTS.values(), b'[[[[{{{{""""', b"\xff\xfe\x00\x01", b"1e999,NaN,-Infinity,\\ud800,\\u0000"]
    assert masks_or_refusal(DOCUMENTS[layout])
    outcomes = {masks_or_refusal(mutated_bytes(random, DOCUMENTS[layout], others)) for _ in range(400 * ROUNDS)}
    assert outcomes == {True, False}


@pytest.mark.parametrize("layout", DOCUMENTS)
def test_mutated_entries_give_regions_or_a_code(layout: str) -> None:
    random = Random(4)
    document = masks_documents()[layout]
    wrapped = {"document": document}
    outcomes = [
        masks_or_refusal(json.dumps(mutated_document(random, wrapped).get("document")).encode())
        for _ in range(400 * ROUNDS)
    ]
    assert sum(outcomes) > len(outcomes) / 2


SEGMENTATIONS = hostile_segmentations()


@pytest.mark.parametrize("case", SEGMENTATIONS)
def test_a_hostile_segmentation_costs_its_own_mask_alone(case: str) -> None:
    good = masks_documents()["list"][0]["segmentation"]
    entries = [
        {"id": "a", "segmentation": good},
        {"id": "b", "segmentation": SEGMENTATIONS[case]},
        {"id": "c", "segmentation": good},
    ]
    masks = read_masks(json.dumps(entries).encode())
    assert_found(masks)
    first, _, last = find_regions(masks, height=HEIGHT, width=WIDTH, min_area=1, split_components=False)
    assert isinstance(first, Region)
    assert isinstance(last, Region)
    np.testing.assert_array_equal(first.bits, last.bits)
    job_or_code(json.dumps({"image": "s3://a/b", "masks": entries}))


numbers = st.integers() | st.floats() | st.integers(-(10**40), 10**40)
scalars = st.none() | st.booleans() | numbers | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=8), inner, max_size=5)
)
rles = st.fixed_dictionaries(
    {"size": st.just([HEIGHT, WIDTH]) | anything, "counts": st.lists(numbers, max_size=6) | anything}
)
entries = anything | st.fixed_dictionaries(
    {}, optional={"id": anything, "segmentation": anything | rles | st.lists(st.lists(numbers)), "more": anything}
)


def utf8(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode(errors="replace")


@settings(max_examples=300 * ROUNDS)
@given(st.lists(entries, max_size=5))
def test_a_list_of_anything_is_read_entry_by_entry(document: list[Any]) -> None:
    assert masks_or_refusal(utf8(document))


@given(
    st.dictionaries(
        st.sampled_from(["masks", "images", "image", "annotations"]), anything | st.lists(entries, max_size=3)
    )
)
def test_any_object_is_read_or_refused(document: dict[str, Any]) -> None:
    masks_or_refusal(utf8(document))


def job_or_code(data: bytes | str) -> Job | None:
    job = outcome(lambda: parse_job(data))
    if not isinstance(job, Job):
        assert_code(job, FailureCode.DOCUMENT_INVALID, FailureCode.DOCUMENT_VERSION_UNSUPPORTED)
        return None
    if isinstance(job.masks, list):
        assert_found(list(job.masks))
    return job


JOB = {
    "version": 1,
    "job_id": "j1",
    "batch_id": "b1",
    "image": {"uri": "s3://a/b", "etag": "e", "version_id": "v", "orientation": "auto"},
    "masks": masks_documents()["list"],
    "options": {
        "prompts": {"name": "x", "positive": ["a cat", "a dog"], "negative": ["sky"], "neutral": []},
        "treatment": "soft_mask",
        "alpha": 0.5,
        "thresholds": {"reject_neg_sum": 0.5},
        "top_k": 3,
    },
    "priority": "high",
    "expires_in": 60.0,
    "result_uri": "s3://a/b/",
}


def test_mutated_job_documents_give_a_job_or_a_code() -> None:
    random = Random(6)
    data = json.dumps(JOB).encode()
    assert job_or_code(data) is not None
    for _ in range(1000 * ROUNDS):
        job_or_code(mutated_bytes(random, data, [data, *DOCUMENTS.values()]))
        job_or_code(json.dumps(mutated_document(random, JOB)))


@pytest.mark.parametrize("case", hostile_documents("s3://a/b", []))
def test_hostile_job_documents_give_a_job_or_a_code(case: str) -> None:
    job_or_code(json.dumps(hostile_documents("s3://a/b", [])[case]))


@settings(max_examples=200 * ROUNDS)
@given(st.dictionaries(st.sampled_from([*Job.model_fields, "other"]), anything))
def test_any_object_as_a_job_gives_a_job_or_a_code(document: dict[str, Any]) -> None:
    job_or_code(utf8(document))


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, '{"version": 1' + "0" * 5000 + "}", "", "nul", "{}{}"]
)
def test_text_that_is_no_document_is_refused(text: str) -> None:
    assert job_or_code(text) is None


def refusal(data: bytes, **options: Any) -> str:
    with pytest.raises(JobError) as caught:
        unpack(data, **options)
    assert caught.value.code == FailureCode.DOCUMENT_INVALID
    return caught.value.message


def test_a_compressed_bomb_does_not_go_off() -> None:
    bomb = zlib.compress(bytes(300 << 20), level=1)
    assert len(bomb) < 3 << 20
    tracemalloc.start()
    try:
        assert "unpacks to more than 67,108,864" in refusal(bomb)
        assert "unpacks to more than 1,000" in refusal(bomb, max_bytes=1000)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


class _Text(Document):
    text: str


def test_packed_documents_have_an_end_and_nothing_behind_it() -> None:
    document = _Text(text="words " * 100)
    data = pack(document)
    size = len(document.model_dump_json())
    assert _Text.model_validate_json(unpack(data, max_bytes=size)) == document
    assert "more than" in refusal(data, max_bytes=size - 1)
    assert "goes on after its end" in refusal(data + b"x")
    for end in range(len(data)):
        refusal(data[:end])
    random = Random(8)
    for _ in range(500 * ROUNDS):
        mutated = mutated_bytes(random, data, [data])
        unpacked = outcome(lambda mutated=mutated: unpack(mutated))  # type: ignore[misc]
        if isinstance(unpacked, JobError):
            assert_code(unpacked, FailureCode.DOCUMENT_INVALID)


def test_real_images_are_not_what_a_masks_document_is() -> None:
    # A picture of two colours cannot be told from a mask, and has one by its bytes.
    taken = {name for name, data in IMAGES.items() if masks_or_refusal(data)}
    assert taken == {f"{kind} 1" for kind in ("BMP", "GIF", "JPEG", "MPO", "PNG", "TIFF")}
    assert not masks_or_refusal(encoded("JPEG"))
