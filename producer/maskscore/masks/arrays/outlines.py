"""A mask as one closed outline through the middles of its border pixels, as ``cv2.fillPoly`` draws it back.

Borders are followed along the edges between pixels inside and outside, with pixels that touch by a corner in one piece
(8-connected), so each border is the one that ``cv2.findContours`` finds. Formats with one polygon per object, such as
Ultralytics', want all borders in one line: a hole is joined to the border above it by a cut through the mask, there and
back, which changes no pixel; separate parts are joined by lines between near points, as ``merge_multi_segment`` in
https://github.com/ultralytics/ultralytics (``ultralytics/data/converter.py``) does, which add the pixels under them.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from maskscore.masks.arrays.runs import Bits, Ints

__all__ = ["joined_outline"]

# The sides of a pixel in clockwise order: top, right, bottom, left; (row, column) of the step along the side, with the
# pixel on the right hand, and of the step outwards.
_ALONG = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])
_OUT = np.array([(-1, 0), (0, 1), (1, 0), (0, -1)])
_TOP, _BOTTOM = 0, 2
# So many points of each part are compared to find near ones.
_COMPARED = 64


@dataclass(slots=True)
class _Sides:
    """The sides of pixels inside that have no pixel inside beyond them, in the order of ``keys``."""

    keys: Ints
    side: Ints
    row: Ints
    column: Ints
    shape: tuple[int, int]

    def find(self, side: Ints | int, row: Ints, column: Ints) -> Ints:
        """Return the positions of sides that there are."""
        height, width = self.shape
        return np.asarray(np.searchsorted(self.keys, (side * height + row) * width + column))


@dataclass(slots=True)
class _Border:
    """A closed border: positions of its sides, clockwise around a part, the other way around a hole."""

    sides: list[int]
    children: dict[int, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    """Place in ``sides`` → the borders that are joined there, each with the place in its own sides."""


def joined_outline(bits: Bits) -> npt.NDArray[np.int64]:
    """Return one closed outline, ``(N, 2)`` of x and y in pixels from the middle of the first pixel, of all borders.

    ``bits`` are ``(h, w)`` bool with at least one pixel inside. Filled as :func:`filled_outline_runs` does, the outline
    of a mask in one piece, with any holes, is the mask; of a mask in several pieces the mask and the lines that join
    them. N is at least 3: points of smaller outlines are repeated.
    """
    padded = np.pad(bits, 1)
    sides = _sides(padded)
    borders, border_of, place_of = _borders(padded, sides)
    roots = []
    for number, border in enumerate(borders):
        above = _border_above(padded, sides, border)
        if above is None:
            roots.append(number)
        else:
            side, own_place = above
            borders[border_of[side]].children[place_of[side]].append((number, own_place))
    _join_parts(sides, borders, roots)
    points = _without_straight_runs(_walk(sides, borders, roots[0]))
    return np.asarray((points * 3)[: max(3, len(points))], np.int64)


def _sides(padded: Bits) -> _Sides:
    found = []
    for side, (rows, columns) in enumerate(_OUT):
        beyond = np.roll(padded, (-rows, -columns), (0, 1))
        row, column = np.nonzero(padded & ~beyond)
        found.append((np.full(len(row), side), row, column))
    sides, all_rows, all_columns = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    height, width = padded.shape
    keys = (sides * height + all_rows) * width + all_columns
    return _Sides(keys, sides, all_rows, all_columns, (height, width))


def _borders(padded: Bits, sides: _Sides) -> tuple[list[_Border], list[int], list[int]]:
    """Return the borders, and of each side its border and its place in that."""
    (along_rows, along_columns), (out_rows, out_columns) = _ALONG[sides.side].T, _OUT[sides.side].T
    ahead = sides.row + along_rows, sides.column + along_columns
    corner = ahead[0] + out_rows, ahead[1] + out_columns
    # A pixel beyond the corner comes first, so that pixels that touch by a corner are in one piece.
    turns_out, goes_on = padded[corner], padded[ahead]
    row = np.select([turns_out, goes_on], [corner[0], ahead[0]], sides.row)
    column = np.select([turns_out, goes_on], [corner[1], ahead[1]], sides.column)
    side = np.select([turns_out, goes_on], [sides.side + 3, sides.side], sides.side + 1) % 4
    behind = sides.find(side, row, column).tolist()
    borders: list[_Border] = []
    border_of, place_of = [-1] * len(behind), [0] * len(behind)
    for start in range(len(behind)):
        if border_of[start] >= 0:
            continue
        own: list[int] = []
        position = start
        while border_of[position] < 0:
            border_of[position], place_of[position] = len(borders), len(own)
            own.append(position)
            position = behind[position]
        borders.append(_Border(own))
    return borders, border_of, place_of


def _border_above(padded: Bits, sides: _Sides, border: _Border) -> tuple[int, int] | None:
    """Return the side above a hole's highest pixel, straight up through the mask, and the place below it in the hole.

    ``None`` for the border of a part. What lies above a hole's highest row is no pixel of this hole, so that joining
    each hole to the border above it makes a tree.
    """
    own = np.asarray(border.sides)
    side, row = sides.side[own], sides.row[own]
    if (row[side == _BOTTOM] + 1).sum() > row[side == _TOP].sum():
        return None
    # The hole's upper edges are the lower sides of pixels.
    lower = np.flatnonzero(side == _BOTTOM)
    place = int(lower[row[lower].argmin()])
    top, column = int(row[place]), int(sides.column[own[place]])
    outside = np.flatnonzero(~padded[:top, column])
    return int(sides.find(_TOP, outside[-1:] + 1, np.asarray([column]))[0]), place


def _join_parts(sides: _Sides, borders: list[_Border], roots: list[int]) -> None:
    """Join every part but the first to a near point of one before it."""
    points: list[Ints] = []
    owners: list[tuple[int, int]] = []
    for number, root in enumerate(roots):
        own = np.asarray(borders[root].sides)
        places = np.linspace(0, len(own) - 1, min(len(own), _COMPARED)).astype(int)
        here = np.stack([sides.row[own[places]], sides.column[own[places]]], axis=1)
        if number:
            before = np.concatenate(points)
            squares = ((before[:, None] - here[None]) ** 2).sum(axis=2)
            near, nearest = np.unravel_index(squares.argmin(), squares.shape)
            other, place = owners[int(near)]
            borders[other].children[place].append((root, int(places[nearest])))
        points.append(here)
        owners += [(root, int(place)) for place in places]


def _walk(sides: _Sides, borders: list[_Border], root: int) -> list[tuple[int, int]]:
    """Return the points of the outline, in pixels without the padding: all borders, each from where it is joined."""
    xs, ys = (sides.column - 1).tolist(), (sides.row - 1).tolist()
    points: list[tuple[int, int]] = []

    def add(side: int) -> None:
        point = xs[side], ys[side]
        if not points or points[-1] != point:
            points.append(point)

    # A border, its first place, how many sides are done, and how many of the children there.
    stack = [[root, 0, 0, 0]]
    while stack:
        border, (first, done, joined) = borders[stack[-1][0]], stack[-1][1:]
        place = (first + done) % len(border.sides)
        add(border.sides[place])
        children = border.children.get(place, ()) if done < len(border.sides) else ()
        if joined < len(children):
            stack[-1][3] += 1
            stack.append([*children[joined], 0, 0])
        elif done < len(border.sides):
            stack[-1][2:] = [done + 1, 0]
        else:
            stack.pop()
    return points[:-1] if len(points) > 1 and points[0] == points[-1] else points


def _without_straight_runs(points: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the points without those at which the outline goes straight on."""
    if len(points) < 3:
        return points
    array = np.asarray(points)
    come, go = array - np.roll(array, 1, axis=0), np.roll(array, -1, axis=0) - array
    straight = (come[:, 0] * go[:, 1] == come[:, 1] * go[:, 0]) & ((come * go).sum(axis=1) > 0)
    return [tuple(point) for point in array[~straight].tolist()]
