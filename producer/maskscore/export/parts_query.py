"""The query in DuckDB's SQL that filters, labels and ranks the masks of parts, as ``Selection`` does one mask."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from maskscore.export.labels import LABEL_SOURCES
from maskscore.export.query_engine import quoted, quoted_text
from maskscore.export.ranking import SCORES
from maskscore.export.selection import Selection

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["PartsQuery"]


class PartsQuery:
    """Expressions for a selection over a table ``parts`` with the columns of ``schema``.

    ``in_all_parts`` are the columns that each part has: a field of upstream tools that is one of them is in no part's
    JSON of other fields, which need not be read for it. ``segmentation_required`` leaves out masks that have none.
    """

    def __init__(
        self, schema: pa.Schema, selection: Selection, *, in_all_parts: Collection[str], segmentation_required: bool
    ) -> None:
        self._schema, self._in_all_parts = schema, in_all_parts
        self._selection = selection
        self._required = segmentation_required

    @property
    def passed(self) -> str:
        """What all kept masks fulfil of a table's own columns: conditions by which DuckDB leaves out rows unread."""
        if self._selection.include_skipped:
            return "true"
        return " and ".join(["skipped is null", *(f"({holds})" for _, holds in self._filters())])

    @property
    def judged(self) -> str:
        """All masks with ``rank_score``, ``label``, ``label_text``, and ``reason``: the filter that leaves them out.

        It is ``unwritable`` for a mask whose segmentation is required, and not known although the mask has a box.
        """
        text = f"select *, {self._factors()} as product, {self._label_text()} as label_text from parts"
        # What overflows is still a number, and 0 times infinity is no best mask.
        rank = "case when isnan(product) then 0 else least(product, 1e300) end"
        text = f"select * exclude (product), case when skipped is null then {rank} end as rank_score from ({text})"
        labelled = f"select *, {self._label()} as label from ({text})"
        return f"(select *, {self._reason()} as reason from ({labelled}))"

    def has_field(self, name: str) -> str:
        """Say whether a mask has a field of the upstream tool."""
        column = f"upstream_{name}"
        if column in self._in_all_parts:
            return f"({quoted(column)} is not null)"
        stored = f"coalesce(json_valid(upstream) and json_exists(upstream, {_pointer(name)}), false)"
        return f"({quoted(column)} is not null or {stored})" if column in self._schema.names else stored

    def factor(self, name: str) -> str:
        """Return a finite factor of the ranking; null for a mask that does not have it."""
        if name in SCORES:
            value = quoted(SCORES[name])
        elif name == "area":
            value = "area / nullif(image_width::bigint * image_height::bigint, 0)"
        else:
            value = self.upstream_number(name)
        return f"(case when isfinite({value}) then {value} end)"

    def _factors(self) -> str:
        """Return the product that masks are ranked by, before it is bounded."""
        factors = ["1.0::double"]
        for name, weight in self._selection.ranking.weights.items():
            base = f"greatest(coalesce({self.factor(name)}, 1), 0)"
            factors.append(base if weight == 1 else f"pow({base}, {weight!r}::double)")
        return " * ".join(factors)

    def upstream_number(self, name: str) -> str:
        """Return a field of the upstream tool as a number; null for a mask that does not have it as one."""
        import pyarrow as pa

        types = "('BIGINT', 'UBIGINT', 'HUGEINT', 'DOUBLE')"
        pointer = _pointer(name)
        # What is of one kind in one part may be mixed in another, and is then among the others.
        stored = (
            f"(case when json_valid(upstream) and json_type(upstream, {pointer}) in {types} "
            f"then json_extract(upstream, {pointer})::double end)"
        )
        column = f"upstream_{name}"
        if column not in self._schema.names:
            return stored
        kind = self._schema.field(column).type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            return stored
        own = f"{quoted(column)}::double"
        return own if column in self._in_all_parts else f"coalesce({own}, {stored})"

    def _label_text(self) -> str:
        labelling = self._selection.labelling
        if labelling is None:
            return "null::varchar"
        source = LABEL_SOURCES[labelling.source]
        enough = "true" if labelling.min_score is None else f"{source.score} >= {labelling.min_score!r}::double"
        return f"case when skipped is null and {enough} then {source.text} end"

    def _label(self) -> str:
        labelling = self._selection.labelling
        if labelling is None or labelling.classes is None:
            return "label_text"
        names = [(text, label) for text, label in labelling.classes.items() if label is not None]
        texts, labels = (", ".join(quoted_text(value) for value in values) for values in zip(*names, strict=True))
        return f"map([{texts}], [{labels}])[label_text]"

    def _reason(self) -> str:
        selection = self._selection
        skipped = "null" if selection.include_skipped else "'skipped'"
        cases = [f"when skipped is not null then {skipped}"]
        if selection.include_skipped and self._required:
            cases.insert(0, "when skipped is not null and segmentation is null then 'skipped'")
        conditions = self._filters()
        if selection.labelling is not None:
            no_text = "label-from" if selection.labelling.min_score is None else "min-score"
            conditions += [(no_text, "label_text is not null"), ("classes", "label is not null")]
        cases += [f"when not coalesce({holds}, false) then {quoted_text(name)}" for name, holds in conditions]
        if self._required:
            cases.append("when segmentation is null then 'unwritable'")
        return f"case {' '.join(cases)} end"

    def _filters(self) -> list[tuple[str, str]]:
        """Return what a mask with a score must fulfil to be kept, by the filter's name; labels aside."""
        selection = self._selection
        conditions: list[tuple[str, str]] = []
        if selection.min_multiplier is not None:
            conditions.append(("min-multiplier", f"semantic_multiplier >= {selection.min_multiplier!r}::double"))
        if selection.max_neg is not None:
            conditions.append(("max-neg", f"p_neg_sum <= {selection.max_neg!r}::double"))
        if selection.min_area is not None:
            conditions.append(("min-area", f"area >= {selection.min_area}"))
        if selection.keep:
            conditions.append(("keep", "keep"))
        if selection.min_p_keep is not None:
            conditions.append(("min-p-keep", f"p_keep >= {selection.min_p_keep!r}::double"))
        for name, least in selection.at_least.items():
            number = self.upstream_number(name)
            conditions.append((f"min {name}", f"not isnan({number}) and {number} >= {least!r}::double"))
        return conditions


def _pointer(name: str) -> str:
    """Return a key of an object as a JSON pointer (RFC 6901)."""
    return quoted_text("/" + name.replace("~", "~0").replace("/", "~1"))
