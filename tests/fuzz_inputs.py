"""Inputs for fuzzing: valid files, random mutations of them, and hand-made hostile segmentations and documents."""

from __future__ import annotations

import json
import os
import struct
import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from in_memory_files import image_file
from maskscore.masks import encode_mask

HEIGHT, WIDTH = 48, 64
ROUNDS = int(os.environ.get("HOSTILE_ROUNDS", "1"))
"""How many times as many inputs as usual are tried; set the variable for a long search."""

_MODES = ("RGB", "P", "L", "1", "CMYK", "RGBA", "LA", "I;16", "I", "F")
# Pillow hands these to other programs, or writes what it does not read.
_NOT_WRITTEN = ("EPS", "PDF", "PALM", "BUFR", "GRIB", "HDF5", "WMF", "XV", "BLP", "ICNS", "ICO")
_VARIANTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("JPEG", {"progressive": True, "quality": 30}),
    ("JPEG", {"subsampling": 2, "comment": b"words"}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("TIFF", {"compression": "jpeg"}),
    ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ("TIFF", {"compression": "packbits"}),
    ("WEBP", {"lossless": True}),
    ("PNG", {"optimize": True}),
    ("PNG", {"save_all": True}),
    ("GIF", {"save_all": True}),
)


def picture() -> Image.Image:
    """A photo-like picture: smooth, with some noise."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    smooth = np.stack([rows * 5, columns * 4, rows + columns], axis=-1)
    noise = np.random.default_rng(5).integers(0, 9, (HEIGHT, WIDTH, 3))
    return Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8))


def encoded(format_: str = "PNG", mode: str = "RGB", **options: Any) -> bytes:
    image = picture().convert("I").convert(mode) if mode == "I;16" else picture().convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    if options.get("save_all"):
        options = {**options, "append_images": [image.rotate(90), image.rotate(180)]}
    return image_file(image, format_, **({"exif": exif} if format_ in ("JPEG", "WEBP", "TIFF") else {}), **options)


def real_images() -> dict[str, bytes]:
    """Whole files in every format that Pillow writes, in the modes it has, and in some that it only reads."""
    Image.init()
    files = {}
    with warnings.catch_warnings():
        # Of formats that Pillow will give up.
        warnings.simplefilter("ignore", DeprecationWarning)
        for format_ in sorted(set(Image.SAVE) - set(_NOT_WRITTEN)):
            for mode in _MODES:
                try:
                    files[f"{format_} {mode}"] = encoded(format_, mode)
                except (OSError, ValueError, KeyError):
                    continue  # not every format has every mode
    for number, (format_, options) in enumerate(_VARIANTS):
        files[f"{format_} variant {number}"] = encoded(format_, **options)
    return {**files, **_only_read()}


def _only_read() -> dict[str, bytes]:
    pixels = picture().tobytes()
    grey = picture().convert("L").tobytes()
    psd = b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHHIIIH", 3, HEIGHT, WIDTH, 8, 3, 0, 0, 0, 0) + grey * 3
    sun = struct.pack(">8I", 0x59A66A95, WIDTH, HEIGHT, 24, len(pixels), 1, 0, 0) + pixels
    cards = ("SIMPLE = T", "BITPIX = 8", "NAXIS = 2", f"NAXIS1 = {WIDTH}", f"NAXIS2 = {HEIGHT}", "END")
    fits = "".join(f"{card.split(' = ')[0]:8}= {card.split(' = ')[-1]:>20}".ljust(80) for card in cards[:-1])
    fits = (fits + "END".ljust(80)).ljust(2880)
    brush = struct.pack(">5I4sI", 28, 2, WIDTH, HEIGHT, 1, b"GIMP", 10) + grey
    pixar = (b"\200\350\0\0" + bytes(412) + struct.pack("<HH", HEIGHT, WIDTH)).ljust(424, b"\0")
    pixar = (pixar + struct.pack("<HH", 14, 2)).ljust(1024, b"\0") + pixels
    cursor = struct.pack("<HHH", 0, 2, 1) + struct.pack("<BBBBHHII", WIDTH, HEIGHT, 0, 0, 1, 1, 9999, 22)
    bitmap = bytearray(encoded("DIB"))
    bitmap[8:12] = struct.pack("<I", 2 * HEIGHT)
    pages = struct.pack("<III", 0x3ADE68B1, 12, 0) + encoded("PCX")
    xpm = b'/* XPM */\nstatic char *a[] = {\n"2 2 2 1",\n"a c #ff0000",\n"b c #00ff00",\n"ab",\n"ba",\n};\n'
    film = struct.pack("<IHHHHHH", 0, 0xAF12, 1, WIDTH, HEIGHT, 8, 3).ljust(128, b"\0")
    frame = struct.pack("<IHH8x", 6 + len(grey) + 16, 0xF1FA, 1) + struct.pack("<IH", 6 + len(grey), 16) + grey
    return {
        "PSD": psd,
        "SUN": sun,
        "FITS": fits.encode() + grey,
        "GBR": brush,
        "PIXAR": pixar,
        "CUR": cursor + bytes(bitmap),
        "DCX": pages,
        "XPM": xpm,
        "FLI": struct.pack("<I", 128 + len(frame)) + film[4:] + frame,
    }


def mutated_bytes(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Return the bytes with a few flips, cuts, repeats and pieces of other files; more often near the beginning."""
    mutated = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4, 16))):
        if not mutated:
            break
        place = random.randrange(min(len(mutated), 200) if random.random() < 0.5 else len(mutated))
        kind = random.randrange(8)
        if kind < 2:
            mutated[place] ^= 1 << random.randrange(8)
        elif kind == 2:
            mutated[place] = random.choice((0, 127, 128, 255, random.randrange(256)))
        elif kind == 3:
            extremes = (b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\xff\xff\xff\x7f", b"\1\0\0\0")
            mutated[place : place + 4] = random.choice(extremes)
        elif kind == 4:
            del mutated[place : place + random.choice((1, 2, 8, 64))]
        elif kind == 5:
            start = random.randrange(len(mutated))
            mutated[place:place] = mutated[start : start + random.choice((1, 4, 64, 512))]
        elif kind == 6:
            del mutated[place:]
        else:
            other = random.choice(others)
            start = random.randrange(len(other))
            mutated[place : place + random.choice((4, 64, 100_000))] = other[
                start : start + random.choice((4, 64, 4096))
            ]
    return bytes(mutated)


def blob(seed: int) -> npt.NDArray[np.bool_]:
    """One mask: an ellipse somewhere."""
    random = np.random.default_rng(seed)
    row, column, high, wide = random.uniform((8, 8, 3, 3), (HEIGHT - 8, WIDTH - 8, 16, 20))
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    inside: npt.NDArray[np.bool_] = ((rows - row) / high) ** 2 + ((columns - column) / wide) ** 2 <= 1
    return inside


def _entries() -> list[dict[str, Any]]:
    rles = [encode_mask(blob(seed)).model_dump(mode="json") for seed in range(4)]
    triangle = [[3.5, 4.0, 50.25, 6.0, 30.0, 40.0], [1, 1, 9, 1, 9, 9]]
    segmentations = [*rles, triangle, {"size": [HEIGHT, WIDTH], "counts": [100, 7, HEIGHT * WIDTH - 107]}]
    return [
        {"id": number, "segmentation": segmentation, "predicted_iou": 0.9, "point_coords": [[1.5, 2.0]]}
        for number, segmentation in enumerate(segmentations)
    ]


def masks_documents() -> dict[str, Any]:
    """Valid masks documents of each layout."""
    entries = _entries()
    image = {"image_id": 1, "width": WIDTH, "height": HEIGHT, "file_name": "image"}
    return {
        "list": entries,
        "SAM": [{name: value for name, value in entry.items() if name != "id"} for entry in entries],
        "object": {"masks": entries},
        "SA-1B": {"image": image, "annotations": entries},
        "COCO": {
            "images": [{"id": 1, "file_name": "image"}, {"id": 2, "file_name": "other"}],
            "annotations": [{**entry, "image_id": 1 + entry["id"] % 2} for entry in entries],
        },
    }


def zigzag(edges: int, far: float) -> list[float]:
    """A polygon of long edges, each across the whole image and out of it."""
    points = ((WIDTH * (n % 2), far * HEIGHT * (-1) ** n) for n in range(edges))
    return [float(value) for point in points for value in point]


def hostile_segmentations() -> dict[str, Any]:
    """Segmentations that are valid JSON and no good; ``nan`` and ``inf`` included, which Python writes as JSON."""
    pixels, nan, inf = HEIGHT * WIDTH, float("nan"), float("inf")
    size = [HEIGHT, WIDTH]
    return {
        "zigzag": [zigzag(20_000, 10)],
        "more than is drawn": [zigzag(70_000, 1)],
        "many parts": [[n % 60, n % 40, n % 60 + 3, n % 40, n % 60, n % 40 + 3] for n in range(4000)],
        "one point": [[5.0] * 2000],
        "far": [[1e9, -1e9, 1e9, 1e9, -1e9, 0]],
        "farther": [[1e308, -1e308, 1e308, 1e308, -1e308, 0]],
        "NaN": [[nan, 1, 5, 5, 9, 1]],
        "infinite": [[inf, 1, -inf, 5, 9, 1]],
        "integers beyond floats": [[10**400, 1, 5, 5, 9, 1]],
        "no parts": [],
        "empty part": [[]],
        "texts": [["a", "b", "c", "d", "e", "f"]],
        "no list of lists": [1, 2, 3, 4, 5, 6],
        "a number": 7,
        "nothing": None,
        "words": "zebra",
        "no counts": {"size": size},
        "no size": {"counts": [pixels]},
        "unknown field": {"size": size, "counts": [pixels], "order": "F"},
        "a thousand fields": {str(n): n for n in range(1000)},
        "size of one": {"size": [HEIGHT], "counts": [pixels]},
        "size of zero": {"size": [0, 0], "counts": []},
        "a huge size": {"size": [2**40, 2**40], "counts": [2**80]},
        "a huge run": {"size": size, "counts": [2**80]},
        "a run below the least": {"size": size, "counts": [-(2**80)]},
        "runs that overflow a sum": {"size": size, "counts": [2**62] * 8},
        "runs of nothing": {"size": size, "counts": [0] * 100_000 + [pixels]},
        "fractions": {"size": size, "counts": [0.5, 0.5]},
        "truths": {"size": size, "counts": [True, False]},
        "text cut": {"size": size, "counts": "PPPPP"},
        "text of one long run": {"size": size, "counts": "o" * 10_000},
        "text of small runs": {"size": size, "counts": "0" * 100_000},
        "text outside its alphabet": {"size": size, "counts": "\x00\x7fÿ€"},
    }


def hostile_documents(image: str, masks: object) -> dict[str, Any]:
    """Job documents without ``job_id`` that are JSON and no jobs, or hardly."""
    job = {"image": image, "masks": masks, "options": {"prompts": "demo"}}
    deep: Any = 1
    for _ in range(150):
        deep = [deep]
    words = {"name": "x", "positive": ["a thing"], "negative": ["sky"]}
    long = "x" * 100_000
    return {
        "no fields": {},
        "nothing": {**job, "image": None, "masks": None},
        "wrong types": {**job, "options": [], "priority": 1, "batch_id": {}},
        "deep masks": {**job, "masks": deep},
        "deep options": {**job, "options": deep},
        "a deep field": {**job, "masks": [{"id": "1", "segmentation": [[1, 1, 9, 1, 9, 9]], "deep": deep}]},
        "many unknown fields": {**job, **{f"field{n}": n for n in range(20_000)}},
        "a long unknown field": {**job, long: long},
        "a long URI": {**job, "image": f"s3://inputs/{long}"},
        "a long file name": {**job, "image": f"file:///{long}"},
        "NUL in a URI": {**job, "image": "file:///tmp/\0"},
        "NUL in a key": {**job, "image": "s3://inputs/a\0b"},
        "a lone percent sign": {**job, "image": "file:///%"},
        "an ETag with a line break": {**job, "image": {"uri": "s3://inputs/a", "etag": 'a"\r\nX: y'}},
        "a long prompt": {**job, "options": {"prompts": {**words, "positive": [long]}}},
        "a long word": {**job, "options": {"prompts": {**words, "positive": ["x" * 1999]}}},
        "a long prompt set name": {**job, "options": {"prompts": long}},
        "a prompt set elsewhere": {**job, "options": {"prompts": "../../etc/passwd"}},
        "a NUL prompt": {**job, "options": {"prompts": {**words, "positive": ["a\0b"]}}},
        "many prompts": {**job, "options": {"prompts": {**words, "positive": [f"a {n}" for n in range(20_000)]}}},
        "numbers as prompts": {**job, "options": {"prompts": {**words, "positive": list(range(50_000))}}},
        "a version as large as can be": {**job, "version": 10**4000},
        "a version of many parts": {**job, "version": list(range(10_000))},
        "another alpha": {**job, "options": {"alpha": float("nan"), "treatment": "soft_mask"}},
        "an area that is none": {**job, "options": {"min_area": 10**30}},
        "a huge expiry": {**job, "expires_in": 1e300},
        "a hundred thousand numbers as masks": {**job, "masks": [0] * 100_000},
        "an image id that is an object": {**job, "masks": {"uri": "file:///a", "image_id": {}}},
        "a huge image id": {**job, "masks": {"uri": "file:///a", "image_id": 10**4000}},
    }


def mutated_document(random: Random, document: Mapping[str, Any]) -> Any:
    """Return the document with one value somewhere in it replaced, removed or doubled."""
    copy = json.loads(json.dumps(document))
    odd: tuple[Any, ...] = (
        None,
        True,
        -1,
        0,
        1e300,
        2**70,
        "",
        "x" * 300,
        "\0",
        [],
        {},
        [[]],
        {"a": 1},
        float("nan"),
        [None] * 9,
    )
    for _ in range(random.choice((1, 1, 2, 3))):
        node = copy
        while True:
            keys: list[Any] = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = random.choice(keys)
            if isinstance(node[key], dict | list) and node[key] and random.random() < 0.85:
                node = node[key]
                continue
            kind = random.randrange(4)
            if kind == 0:
                del node[key]
            elif kind == 1 and isinstance(node, list):
                node.append(deepcopy(node[key]))
            elif kind == 2 and isinstance(node, dict):
                node[str(key) + "_"] = deepcopy(node[key])
            else:
                node[key] = deepcopy(random.choice(odd))
            break
    return copy
