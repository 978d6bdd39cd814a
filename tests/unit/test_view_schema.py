"""Views in job and result documents: old documents stay as they were, new ones say their view."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from maskscore import Job, JobResult, JobState, ScoringOptions
from maskscore.client.content_id import digest_of
from maskscore.errors import InvalidDocumentError
from maskscore.report.comparison import comparison_jobs
from maskscore.schema.job import Frame, Treatment, View
from maskscore.schema.result import ViewUsed
from maskscore.schema.views import SPECIFIED

# As the release before this part of the contract wrote it.
OLD = (
    '{"version":1,"job_id":"one","batch_id":null,"image":{"uri":"s3://b/a.jpg","etag":null,"version_id":null,'
    '"orientation":"auto"},"masks":[],"options":{"prompts":"default","treatment":"soft_mask","alpha":0.3,'
    '"method":"softmax","thresholds":{"reject_neg_sum":0.5,"strong_pos_sum":0.7,"strong_neg_sum":0.2,'
    '"accept_pos_sum":0.4},"min_area":1,"split_components":false,"top_k":0,"embeddings":false},"priority":"normal",'
    '"expires_in":null,"result_uri":null}'
)

VIEWS = st.builds(
    View,
    treatment=st.sampled_from(get_args(Treatment)),
    frame=st.sampled_from(get_args(Frame)),
    alpha=st.sampled_from([0.4, 0.25]),
    blur=st.sampled_from([0.1, 0.05]),
    context=st.sampled_from([0.25, 1.5]),
)


def test_an_old_document_is_read_and_written_as_it_was() -> None:
    job = Job.model_validate_json(OLD)
    assert job.options.views == (View(treatment="soft_mask", alpha=0.3),)
    assert job.model_dump_json() == OLD
    assert digest_of(job) == "b13a990d7441460bda50f605192004a4cad893ee85af638734e416f7f7f57fa4"


def test_a_specified_view_leaves_no_trace_in_documents() -> None:
    written = JobResult(job_id="j", state=JobState.SUCCEEDED).model_dump_json()
    assert '"views"' not in written
    assert '"frame"' not in ScoringOptions().model_dump_json()


def test_a_document_with_views_comes_back() -> None:
    options = ScoringOptions(
        treatment="blur",
        blur=0.2,
        frame="context",
        context=0.5,
        average_with=(View(treatment="raw_crop", frame="pad"),),
    )
    assert ScoringOptions.model_validate_json(options.model_dump_json()) == options
    assert [view.text for view in options.views] == ["blur=0.2/context=0.5", "raw_crop/pad"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"frame": "stretch"},
        {"treatment": "red_circle"},
        {"blur": 0},
        {"context": -0.1},
        {"average_with": [{"treatment": "blur", "colour": "red"}]},
        {"average_with": [{}] * 8},
    ],
)
def test_what_is_no_view_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ScoringOptions.model_validate(wrong)


def test_a_view_given_twice_is_refused_even_with_another_number_that_it_does_not_take() -> None:
    with pytest.raises(ValidationError, match="raw_crop/pad is given more than once"):
        ScoringOptions(
            treatment="blur",
            average_with=(View(treatment="raw_crop", frame="pad"), View(treatment="raw_crop", frame="pad", alpha=0.1)),
        )
    with pytest.raises(ValidationError, match="original is given more than once"):
        ScoringOptions(average_with=(View(),))


@given(VIEWS)
def test_the_text_of_a_view_is_read_as_that_view(view: View) -> None:
    assert View.parse(view.text).recipe == view.recipe
    assert ViewUsed(**view.recipe).text == view.text


def test_numbers_stand_in_for_what_the_text_does_not_say() -> None:
    numbers = {"alpha": 0.7, "context": 1.0}
    assert View.parse("soft_mask/context", **numbers) == View(treatment="soft_mask", frame="context", **numbers)
    assert View.parse("soft_mask=0.2/context=0.5", **numbers).text == "soft_mask=0.2/context=0.5"


@pytest.mark.parametrize(
    "text", ["", "blurr", "blur/x", "original=0.5", "blur/pad=0.5", "blur=many", "blur/context=x/y"]
)
def test_a_text_that_is_no_view_is_refused(text: str) -> None:
    with pytest.raises(InvalidDocumentError, match=r"The view"):
        View.parse(text)


def test_only_the_specifications_recipes_are_specified() -> None:
    views = [View(treatment=treatment, frame=frame) for treatment in get_args(Treatment) for frame in get_args(Frame)]
    assert [view.text for view in views if view.specified] == list(SPECIFIED)


def test_views_can_be_compared_side_by_side() -> None:
    asked = ["original", "blur,frame=context,context=0.5"]
    jobs = comparison_jobs(Job.model_validate_json(OLD), asked)
    assert [(job.options.views[0].text, job.options.method) for job in jobs] == [
        (text, method) for text in ("original", "blur/context=0.5") for method in ("softmax", "cosine")
    ]


def test_a_result_says_its_views_in_a_word() -> None:
    fields = {"job_id": "j", "state": JobState.SUCCEEDED, "treatment": "blur"}
    used = [ViewUsed(**view.recipe) for view in (View(treatment="blur", frame="pad"), View(treatment="raw_crop"))]
    assert JobResult.model_validate(fields).views_text == "blur"
    assert JobResult.model_validate({**fields, "views": used}).views_text == "blur/pad+raw_crop"
    assert JobResult(job_id="j", state=JobState.FAILED).views_text is None
