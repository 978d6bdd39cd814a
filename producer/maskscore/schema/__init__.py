"""The contract: documents of jobs, options, masks, prompts and results."""

from __future__ import annotations

from maskscore.schema.document import (
    MOST_LEVELS,
    Document,
    deeper,
    explain,
    pack,
    unpack,
)
from maskscore.schema.job import (
    JOB_ID_PATTERN,
    RLE,
    Frame,
    ImageRef,
    Job,
    JobId,
    Mask,
    MasksFormat,
    MasksRef,
    Method,
    Orientation,
    Polygons,
    Priority,
    ScoringOptions,
    SigmoidThresholds,
    Thresholds,
    parse_fields,
    parse_job,
)
from maskscore.schema.plain_ids import (
    id_key,
    plain_id,
)
from maskscore.schema.prompt_set import (
    PromptSet,
)
from maskscore.schema.result import (
    Box,
    Component,
    Failure,
    ImageInfo,
    JobResult,
    JobState,
    ModelIdentity,
    Notice,
    PromptScore,
    PromptSetIdentity,
    Skipped,
    Timings,
    ViewUsed,
)
from maskscore.schema.rle_text import (
    counts_from_text,
    text_from_counts,
)
from maskscore.schema.scoring_options import thresholds_by_method
from maskscore.schema.views import (
    SPECIFIED,
    Treatment,
    View,
)

__all__ = [
    "JOB_ID_PATTERN",
    "MOST_LEVELS",
    "RLE",
    "SPECIFIED",
    "Box",
    "Component",
    "Document",
    "Failure",
    "Frame",
    "ImageInfo",
    "ImageRef",
    "Job",
    "JobId",
    "JobResult",
    "JobState",
    "Mask",
    "MasksFormat",
    "MasksRef",
    "Method",
    "ModelIdentity",
    "Notice",
    "Orientation",
    "Polygons",
    "Priority",
    "PromptScore",
    "PromptSet",
    "PromptSetIdentity",
    "ScoringOptions",
    "SigmoidThresholds",
    "Skipped",
    "Thresholds",
    "Timings",
    "Treatment",
    "View",
    "ViewUsed",
    "counts_from_text",
    "deeper",
    "explain",
    "id_key",
    "pack",
    "parse_fields",
    "parse_job",
    "plain_id",
    "text_from_counts",
    "thresholds_by_method",
    "unpack",
]
