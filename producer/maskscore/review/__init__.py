"""Masks for a person to judge, as tasks of Label Studio, and the judgements that come back."""

from __future__ import annotations

from maskscore.review.image_urls import ImageUrls, open_image_urls
from maskscore.review.judgements import Judgement, judgements_in, read_judgements
from maskscore.review.mask_sampling import MARGIN, DoubtMeasure
from maskscore.review.review_run import ReviewCounts, ReviewOptions, check_review_output, write_review

__all__ = [
    "MARGIN",
    "DoubtMeasure",
    "ImageUrls",
    "Judgement",
    "ReviewCounts",
    "ReviewOptions",
    "check_review_output",
    "judgements_in",
    "open_image_urls",
    "read_judgements",
    "write_review",
]
