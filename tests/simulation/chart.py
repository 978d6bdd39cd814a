"""The picture of a day, as SVG: what arrived, how long it waited, and the GPUs that were paid for."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from simulation.day import DAY_S, Arrival
from simulation.world import Outcome

__all__ = ["draw"]

_WIDTH, _LEFT, _RIGHT, _GAP = 800, 56, 24, 34
_TALL, _LOW = 110, 64
_BIN_S = 240.0
_BINS = int(DAY_S / _BIN_S)
_COLOURS = ("#0969da", "#bc4c00", "#1a7f37", "#8250df")
_STYLE = "font:12px system-ui,sans-serif;fill:#24292f"


def draw(arrivals: Sequence[Arrival], outcomes: Sequence[Outcome]) -> str:
    """Return the SVG document: arrivals and waits in one panel each, then a panel of GPUs per setting."""
    colours = dict(zip((outcome.scaling.name for outcome in outcomes), _COLOURS, strict=False))
    submitted = [0.0] * _BINS
    for arrival in arrivals:
        submitted[min(_BINS - 1, int(arrival.at / _BIN_S))] += 60 / _BIN_S
    ages = [_largest([(sample.at, sample.oldest_s / 60) for sample in outcome.samples]) for outcome in outcomes]
    pods = [_largest([(sample.at, float(sample.pods)) for sample in outcome.samples]) for outcome in outcomes]
    top, parts = 28, []
    parts.append(_panel(top, _TALL, "jobs submitted per minute", [(submitted, "#57606a", True)]))
    top += _TALL + _GAP
    lines = [(age, colours[outcome.scaling.name], False) for age, outcome in zip(ages, outcomes, strict=True)]
    parts.append(_panel(top, _TALL, "age of the oldest waiting job, minutes", lines))
    top += _TALL + _GAP
    most = max((max(series) for series in pods), default=1.0)
    for series, outcome in zip(pods, outcomes, strict=True):
        scaling = outcome.scaling
        name = scaling.name
        title = (
            f"{name}: {scaling.least} to {scaling.most} GPUs, one per {scaling.target:,.0f} jobs; in all "
            f"{outcome.pod_s / 3600:.1f} GPU-hours, {outcome.starts} starts"
        )
        parts.append(_panel(top, _LOW, title, [(series, colours[name], True)], most=most))
        top += _LOW + _GAP
    for hour in range(0, 25, 3):
        x = _x(hour * 3600 / DAY_S)
        parts.append(f'<text x="{x:.0f}" y="{top - 14}" text-anchor="middle">{hour}:00</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" width="{_WIDTH}" height="{top}" '
        f'style="{_STYLE}"><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _largest(points: Sequence[tuple[float, float]]) -> list[float]:
    """The largest value of each bin: an average would hide what hurts."""
    bins = [0.0] * _BINS
    for at, value in points:
        if at < DAY_S:
            bins[int(at / _BIN_S)] = max(bins[int(at / _BIN_S)], value)
    return bins


def _panel(
    top: int, height: int, title: str, series: Sequence[tuple[list[float], str, bool]], *, most: float | None = None
) -> str:
    most = _round_up(most or max((max(values) for values, _, _ in series), default=1.0))
    bottom = top + height
    parts = [f'<text x="{_LEFT}" y="{top - 8}" font-weight="600">{escape(title)}</text>']
    for share in (0.0, 0.5, 1.0):
        y = bottom - share * height
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{share * most:,.4g}</text>')
    for values, colour, filled in series:
        path = _steps(values, most, bottom, height)
        if filled:
            area = f"{path}V{bottom}H{_LEFT}Z"
            parts.append(f'<path d="{area}" fill="{colour}" fill-opacity=".25"/>')
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    return "".join(parts)


def _steps(values: Sequence[float], most: float, bottom: int, height: int) -> str:
    """A path that changes only where the value does."""
    path, before = "", None
    for index, value in enumerate(values):
        if value != before:
            y = bottom - value / most * height
            x = _x(index / _BINS)
            path += f"H{x:.1f}V{y:.1f}" if path else f"M{x:.1f} {y:.1f}"
            before = value
    return f"{path}H{_WIDTH - _RIGHT}"


def _x(share: float) -> float:
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _round_up(value: float) -> float:
    """The next number that halves well: 2, 4, 6, 8 or 10, times a power of ten."""
    power = 1.0
    while value > 10 * power:
        power *= 10
    return next(step * power for step in (1, 2, 4, 6, 8, 10) if step * power >= value)
