"""Job, result and prompt documents: which are accepted, how others are refused, and that JSON keeps all of it."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from maskscore import (
    Component,
    Job,
    JobResult,
    JobState,
    Mask,
    MasksRef,
    PromptSet,
    ScoringOptions,
    SigmoidThresholds,
    Thresholds,
)
from maskscore.errors import JobError
from maskscore.formats import FORMATS
from maskscore.schema.document import assembled, pack, unpack
from maskscore.schema.job import RLE, ImageRef, MasksFormat, parse_job
from maskscore.schema.result import (
    Failure,
    ImageInfo,
    ModelIdentity,
    Notice,
    PromptScore,
    PromptSetIdentity,
    Skipped,
    Timings,
)

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
versions = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)
shares = st.floats(0, 1)
finite = st.floats(allow_nan=False, allow_infinity=False)
ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,20}", fullmatch=True)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | finite | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
upstreams = st.dictionaries(texts.filter(lambda name: name not in {"id", "segmentation"}), json_values, max_size=3)
rles = st.builds(
    RLE,
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    counts=st.lists(st.integers(0, 9)) | st.text("0O1N2", max_size=9),
)
polygons = st.lists(st.lists(finite, max_size=8), max_size=3)


@st.composite
def masks(draw: st.DrawFn) -> Mask:
    fields = draw(upstreams)
    return Mask(
        id=draw(texts), segmentation=draw(rles | polygons), **{k: v for k, v in fields.items() if k.isidentifier()}
    )


@st.composite
def prompt_sets(draw: st.DrawFn) -> PromptSet:
    prompts = draw(st.lists(texts.filter(str.strip), unique=True, min_size=2, max_size=6))
    cut = draw(st.integers(1, len(prompts) - 1))
    return PromptSet(name="own", positive=tuple(prompts[:cut]), negative=tuple(prompts[cut:]))


sigmoid_options = st.builds(
    ScoringOptions,
    prompts=ids,
    method=st.just("sigmoid"),
    sigmoid_thresholds=st.builds(SigmoidThresholds, fit=shares, strong_pos=shares, strong_neg=shares),
)
options = sigmoid_options | st.builds(
    ScoringOptions,
    prompts=ids | prompt_sets(),
    treatment=st.sampled_from(["original", "raw_crop", "soft_mask"]),
    alpha=shares,
    method=st.sampled_from(["softmax", "cosine"]),
    thresholds=st.builds(
        Thresholds, reject_neg_sum=shares, strong_pos_sum=shares, strong_neg_sum=shares, accept_pos_sum=shares
    ),
    min_area=st.integers(1, 99),
    nms=st.none() | st.floats(0, 1, exclude_min=True),
    drop_parts=st.none() | st.floats(0, 1, exclude_min=True),
    split_components=st.booleans(),
    top_k=st.integers(0, 100),
    embeddings=st.booleans(),
    model=st.none() | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
)
jobs = st.builds(
    Job,
    job_id=ids,
    batch_id=st.none() | ids,
    image=st.builds(
        ImageRef, uri=texts, etag=st.none() | versions, orientation=st.sampled_from(["auto", "apply", "ignore"])
    ),
    masks=st.lists(masks(), max_size=4, unique_by=lambda mask: mask.id)
    | st.builds(
        MasksRef,
        uri=texts,
        image_id=st.none() | st.integers() | texts,
        format=st.none() | st.sampled_from(get_args(MasksFormat)),
    ),
    options=options,
    priority=st.sampled_from(["high", "normal", "low"]),
    expires_in=st.none() | st.floats(1e-3, 1e6),
)
components = st.builds(
    Component,
    id=texts,
    index=st.integers(0, 99),
    part=st.none() | st.integers(0, 9),
    box=st.none() | st.tuples(*[st.integers(0, 99)] * 4),
    s_pos=st.none() | shares,
    s_pos_text=st.none() | texts,
    semantic_multiplier=st.none() | st.sampled_from([0.1, 0.5, 1.0, 2.0]),
    top_k=st.none() | st.lists(st.builds(PromptScore, text=texts, group=st.just("neutral"), score=shares), max_size=2),
    skipped=st.none() | st.builds(Skipped, code=texts, message=texts),
    upstream=upstreams,
)
results = st.builds(
    JobResult,
    job_id=ids,
    state=st.sampled_from(list(JobState)),
    error=st.none() | st.builds(Failure, code=texts, message=texts),
    image=st.none() | st.builds(ImageInfo, uri=texts, width=st.integers(1), height=st.integers(1), format=texts),
    model=st.none()
    | st.builds(
        ModelIdentity,
        architecture=texts,
        weights_digest=texts,
        image_size=st.integers(1),
        precision=texts,
        crop_mode=texts,
    ),
    prompts=st.none()
    | st.builds(PromptSetIdentity, name=texts, digest=texts, positive=st.integers(1), negative=st.integers(1)),
    components=st.lists(components, max_size=3),
    warnings=st.lists(st.builds(Notice, code=texts, message=texts), max_size=2),
    timings=st.none() | st.builds(Timings, **dict.fromkeys(Timings.model_fields, st.floats(0, 1e6))),
    finished_at=st.none() | st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
)


@given(jobs)
def test_a_job_survives_json(job: Job) -> None:
    assert parse_job(job.model_dump_json()) == job
    assert parse_job(unpack(pack(job))) == job
    assert parse_job(unpack(pack(job, preset=True))) == job


@given(texts, upstreams)
def test_a_mask_that_is_assembled_is_the_one_that_is_validated(mask_id: str, upstream: dict[str, Any]) -> None:
    rle = {"size": [4, 6], "counts": "02\\3"}
    expected = Mask.model_validate({"id": mask_id, "segmentation": rle, **upstream})
    found = Mask.of_compressed(mask_id, (4, 6), "02\\3", upstream)
    assert (found, found.upstream, found.model_fields_set) == (expected, expected.upstream, expected.model_fields_set)
    assert found.model_dump_json() == expected.model_dump_json()


def test_a_copy_of_an_assembled_document_has_fields_of_its_own() -> None:
    one, other = (assembled(Component, {"id": name, "index": 0, "upstream": {}}) for name in "ab")
    changed = one.model_copy(update={"area": 5})
    assert changed.model_fields_set == {"id", "index", "upstream", "area"}
    assert one.model_fields_set == other.model_fields_set == {"id", "index", "upstream"}


def test_what_zlib_begins_with_never_changes() -> None:
    """Documents that wait in Redis name it by its checksum (RFC 1950, DICTID), and no other unpacks them."""
    job = Job.model_validate({"job_id": "a", "image": "s3://images/a.jpg", "masks": "s3://masks/a.json"})
    assert pack(job, preset=True)[2:6].hex() == "08a61df7"


@given(results)
def test_a_result_survives_json_and_is_strict_json(result: JobResult) -> None:
    text = result.model_dump_json()
    assert JobResult.model_validate_json(text) == result
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


@given(prompt_sets())
def test_a_prompt_set_survives_json_and_its_digest_knows_only_the_prompts(prompts: PromptSet) -> None:
    assert PromptSet.model_validate_json(prompts.model_dump_json()) == prompts
    assert prompts.model_copy(update={"name": "other", "version": 9}).digest == prompts.digest
    swapped = PromptSet(name=prompts.name, positive=prompts.negative, negative=prompts.positive)
    assert swapped.digest != prompts.digest


def test_not_a_number_travels_to_the_worker_which_skips_that_mask() -> None:
    job = Job(image="s3://b/i", masks=[Mask(id="1", segmentation=[[math.nan, math.inf, 1, 1, 2, 2]])])
    sent = parse_job(job.model_dump_json())
    assert isinstance(sent.masks, list)
    points = sent.masks[0].segmentation
    assert isinstance(points, list)
    assert math.isnan(points[0][0])
    assert math.isinf(points[0][1])


def test_bytes_counts_and_number_ids_are_accepted_and_extra_fields_kept() -> None:
    mask = Mask.model_validate({"id": 7, "segmentation": {"size": [2, 2], "counts": b"04"}, "predicted_iou": 0.5})
    assert mask.id == "7"
    assert isinstance(mask.segmentation, RLE)
    assert mask.segmentation.counts == "04"
    assert mask.upstream == {"predicted_iou": 0.5}


SQUARE: dict[str, Any] = {"id": "1", "segmentation": [[0, 0, 5, 0, 5, 5]]}


@pytest.mark.parametrize(
    ("document", "code", "words"),
    [
        (b"\xff\xfe", "document_invalid", "not JSON"),
        ("[1]", "document_invalid", "JSON object"),
        ('{"version": 2}', "document_version_unsupported", "version 2"),
        ({"image": "s3://a/b", "masks": [SQUARE, SQUARE]}, "document_invalid", "more than once: ['1']"),
        ({"image": "s3://a/b", "masks": [SQUARE], "maks": 1}, "document_invalid", "maks: Extra inputs"),
        ({"image": "s3://a/b"}, "document_invalid", "masks: Field required"),
        ({"image": "s3://a/b", "masks": [], "options": {"treatment": "x"}}, "document_invalid", "options.treatment"),
        ({"image": "s3://a/b", "masks": [], "job_id": "../x"}, "document_invalid", "job_id"),
        (
            {
                "image": "s3://a/b",
                "masks": [],
                "options": {"prompts": {"name": "x", "positive": [], "negative": ["a"]}},
            },
            "document_invalid",
            "positive",
        ),
        (
            {
                "image": "s3://a/b",
                "masks": [],
                "options": {"prompts": {"name": "x", "positive": ["a"], "negative": ["a"]}},
            },
            "document_invalid",
            "'a' is given more than once",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(document: Any, code: str, words: str) -> None:
    text = document if isinstance(document, str | bytes) else json.dumps(document)
    with pytest.raises(JobError) as caught:
        parse_job(text)
    assert caught.value.code == code
    assert words in str(caught.value)


def test_masks_without_a_format_are_written_as_before_there_were_formats() -> None:
    job = Job(job_id="a", image="s3://b/i.jpg", masks="s3://b/m.json")
    assert json.loads(job.model_dump_json())["masks"] == {"uri": "s3://b/m.json", "etag": None, "image_id": None}
    assert parse_job(job.model_dump_json()) == job
    named = Job(image="s3://b/i.jpg", masks=MasksRef(uri="s3://b/m.png", format="png-labels"))
    assert json.loads(named.model_dump_json())["masks"]["format"] == "png-labels"


def test_the_contracts_formats_are_those_that_a_file_can_have() -> None:
    files = {name for name, layout in FORMATS.items() if layout.scope != "folder"}
    assert files == set(get_args(MasksFormat))


def test_a_producer_learns_of_duplicate_ids_when_it_builds_the_job() -> None:
    mask = Mask(id="1", segmentation=[[0, 0, 5, 0, 5, 5]])
    with pytest.raises(ValidationError, match="unique"):
        Job(image=ImageRef(uri="s3://a/b"), masks=[mask, mask])


def test_the_embedding_comes_back_as_half_floats() -> None:
    import base64

    feature = np.linspace(-1, 1, 8, dtype="<f2")
    component = Component(id="1", index=0, embedding=base64.b64encode(feature.tobytes()).decode())
    vector = component.embedding_vector()
    assert vector is not None
    np.testing.assert_array_equal(vector, feature)
    assert Component(id="1", index=0).embedding_vector() is None


def test_a_model_is_written_only_where_one_is_asked_for_and_default_asks_for_none() -> None:
    plain = ScoringOptions()
    assert "model" not in plain.model_dump_json()
    assert ScoringOptions.model_validate({"model": "default"}) == plain
    asked = ScoringOptions(model="siglip-b16")
    assert ScoringOptions.model_validate_json(asked.model_dump_json()) == asked != plain


@pytest.mark.parametrize("name", ["", "a:b", ".hidden", "two words", "x" * 65, "a\n", "ä"])
def test_names_of_models_fit_into_keys_and_queues(name: str) -> None:
    with pytest.raises(ValidationError):
        ScoringOptions(model=name)
