"""Views: how a region of an image becomes the square that the model sees; data only.

``docs/reference/treatments.md`` has the formulas.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field, ValidationError

from maskscore.errors import InvalidDocumentError
from maskscore.schema.document import Document, explain

__all__ = ["ALPHA", "BLUR", "CONTEXT", "SPECIFIED", "Frame", "Treatment", "View"]

Treatment = Literal["original", "raw_crop", "soft_mask", "blur", "mean_fill"]
"""What happens outside the mask, at full resolution."""

Frame = Literal["cut", "pad", "context"]
"""How the crop becomes a square."""

SPECIFIED: Final = ("original", "raw_crop", "soft_mask")
"""The specification's own treatments; with ``cut`` they are its recipes."""

ALPHA: Final = 0.4
BLUR: Final = 0.1
CONTEXT: Final = 0.25

# Raised when a recipe gives other pixels than before, so that results and kept features of both can be told apart.
_TREATMENT_VERSIONS: Final[dict[Treatment, int]] = {
    "original": 1,
    "raw_crop": 1,
    "soft_mask": 1,
    "blur": 1,
    "mean_fill": 1,
}
_FRAME_VERSIONS: Final[dict[Frame, int]] = {"cut": 1, "pad": 1, "context": 1}


class View(Document):
    """One recipe: a treatment and a frame, with the numbers that they take."""

    treatment: Treatment = "original"
    frame: Frame = "cut"
    alpha: float = Field(ALPHA, ge=0, le=1, description="Strength of `soft_mask`'s fill outside the mask.")
    blur: float = Field(BLUR, gt=0, le=1, description="Standard deviation of `blur`, in the box's longer sides.")
    context: float = Field(CONTEXT, ge=0, le=4, description="Margin of `context` on each side, in the longer sides.")

    @property
    def recipe(self) -> dict[str, Any]:
        """What makes the pixels: names, versions, and the numbers that are used; equal views have equal ones."""
        used = (
            {"soft_mask": "alpha", "blur": "blur"}.get(self.treatment),
            "context" if self.frame == "context" else None,
        )
        return {
            "treatment": self.treatment,
            "treatment_version": _TREATMENT_VERSIONS[self.treatment],
            "frame": self.frame,
            "frame_version": _FRAME_VERSIONS[self.frame],
            **{name: getattr(self, name) for name in used if name},
        }

    @property
    def specified(self) -> bool:
        """Whether it is one of the specification's recipes."""
        return self.frame == "cut" and self.treatment in SPECIFIED

    @property
    def text(self) -> str:
        """The view in a word, as :meth:`parse` reads it: ``blur/context``, ``soft_mask=0.6``."""
        recipe = self.recipe
        treatment, frame = self.treatment, self.frame
        numbers = {"alpha": ALPHA, "blur": BLUR}
        strength = next(
            (f"={recipe[name]:g}" for name in numbers if recipe.get(name, numbers[name]) != numbers[name]), ""
        )
        margin = f"={self.context:g}" if frame == "context" and self.context != CONTEXT else ""
        return f"{treatment}{strength}" + (f"/{frame}{margin}" if frame != "cut" else "")

    @classmethod
    def parse(cls, text: str, **numbers: float) -> View:
        """Read ``TREATMENT[=STRENGTH][/FRAME[=MARGIN]]``; ``numbers`` are for what the text does not say.

        The strength is ``soft_mask``'s alpha or ``blur``'s standard deviation, the margin ``context``'s. Raises
        :class:`~maskscore.errors.InvalidDocumentError`.
        """
        treatment, _, frame = text.partition("/")
        treatment, _, strength = treatment.partition("=")
        frame, _, margin = frame.partition("=")
        fields: dict[str, Any] = {**numbers, "treatment": treatment, "frame": frame or "cut"}
        if strength:
            name = {"soft_mask": "alpha", "blur": "blur"}.get(treatment)
            if name is None:
                raise InvalidDocumentError(f"The view {text!r:.60}: {treatment!r:.60} takes no strength.")
            fields[name] = strength
        if margin:
            if frame != "context":
                raise InvalidDocumentError(f"The view {text!r:.60}: {frame!r:.60} takes no margin.")
            fields["context"] = margin
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise InvalidDocumentError(f"The view {text!r:.60} is not valid: {explain(error)}.") from error
