"""How fast the workers scored the masks of one candidate, and what a million masks cost."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ScoringSpeed"]


@dataclass(frozen=True, slots=True)
class ScoringSpeed:
    """A timed run: from the first submission until the last result was read, with nothing else of ours under way.

    ``masks`` are those that were scored in ``seconds``, by ``workers`` live workers of the model. ``unusable`` says why
    the run tells nothing of the model's speed, as where features came from a cache; ``masks_per_s`` and the cost are
    then ``None``.
    """

    masks: int
    seconds: float
    workers: int
    price_per_hour: float | None = None
    unusable: str | None = None
    masks_per_s: float | None = None
    cost_per_million: float | None = None

    @classmethod
    def of_run(
        cls, masks: int, seconds: float, *, workers: int, cached: int, others: int, price_per_hour: float | None
    ) -> ScoringSpeed:
        """Return the speed of a run; ``cached`` masks were not computed, ``others`` are jobs that were under way."""
        unusable = None
        if not masks:
            unusable = "no mask was scored after the first images, which are not timed"
        elif cached:
            unusable = f"{cached:,} of {masks:,} masks came from the workers' cache of features"
        elif others:
            unusable = f"{others:,} jobs of others were waiting or running"
        rate = masks / seconds if masks and unusable is None else None
        cost = None if rate is None or price_per_hour is None else price_per_hour / 3600 / rate * 1e6
        return cls(masks, seconds, workers, price_per_hour, unusable, rate, cost)
