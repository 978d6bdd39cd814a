"""The masks of parts that a person should judge: chosen by DuckDB as ``sample_masks`` chooses among masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, get_args

from maskscore.export import ExportedMask
from maskscore.review.mask_sampling import (
    MARGIN,
    SCORES,
    DoubtMeasure,
    MaskSample,
    SampledMask,
    no_mask_has,
    without_drawn,
)
from maskscore.schema import ScoreName

if TYPE_CHECKING:
    from maskscore.export import SelectedParts

__all__ = ["sample_parts"]

_MARGIN: Final = "case when p_pos_sum is not null then p_pos_sum - p_neg_sum else s_pos - s_neg end"
# What a task says of a mask, and what its image is found by.
_COLUMNS: Final = (
    *("image", "image_width", "image_height", "job_id", "batch_id", "mask_id", "mask_index", "part"),
    *("semantic_multiplier", "s_pos", "s_neg", "s_pos_text", "s_neg_text"),
)


def sample_parts(masks: SelectedParts, measure: DoubtMeasure, *, doubtful: int, random: int, seed: int) -> MaskSample:
    """Choose as :func:`~maskscore.review.mask_sampling.sample_masks` does, which says what it raises, the same masks.

    No more of them are held than are asked for twice over, with what a task says of them.
    """
    if measure.name == MARGIN:
        number = _MARGIN
    elif measure.name in SCORES or measure.name in get_args(ScoreName):
        # The name of a score is its expression, too.
        number = measure.name
    else:
        number = masks.query.upstream_number(measure.name)
    value = f"(case when isfinite({number}) then {number} end)"
    # The text and the digest of `sampling_key`: hexadecimal, its digits are in the order of the number.
    names = f"'{seed}', image, mask_id, coalesce(part::varchar, 'None')"
    columns = {
        **{name: name for name in _COLUMNS},
        "value": value,
        "doubt": f"abs({value} - {measure.threshold!r}::double)",
        "key": f"substr(sha256(concat_ws(chr(0), {names})), 1, 16)",
    }

    def first(order: str, most: int, *, at_random: bool) -> list[SampledMask]:
        return [
            SampledMask(
                ExportedMask.model_construct(**{name: row[name] for name in _COLUMNS}),
                at_random,
                row["value"],
                row["doubt"],
                int(row["key"], 16),
            )
            for row in masks.rows(columns, order=order, most=most)
        ]

    drawn = first("key", random, at_random=True)
    # Some of the most doubtful ones will be of the random share.
    nearest = first("doubt, key", doubtful + random, at_random=False)
    nearest = [item for item in nearest if item.doubt is not None]
    numbers = {name: f"count({name})" for name in SCORES} | {
        MARGIN: f"count({_MARGIN})",
        "of measure": f"count({value})",
    }
    (counts,) = masks.rows(numbers)
    measured = counts.pop("of measure")
    if masks.kept and not measured:
        raise no_mask_has(measure, {*masks.upstream_kinds, *(name for name, count in counts.items() if count)})
    return MaskSample(without_drawn(nearest, drawn)[:doubtful], drawn, masks.kept, measured)
