"""Decoding images: formats, orientation, transparency, and damaged or hostile files."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps, TiffImagePlugin

from in_memory_files import image_file
from maskscore.client.image_header import image_size
from maskscore.errors import JobError
from maskscore.formats.picture_decoding import decode_png
from maskscore.formats.read_context import ReadContext
from maskscore.imaging.decode_limits import MAX_PIECES, MAX_SCANS
from maskscore_worker.inputs.images import DecodedImage, ImageFile, decode_image, header_size

# Pillow warns of what is damaged before it refuses it, or reads the rest.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

HEIGHT, WIDTH = 20, 30
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
# As ImageMagick writes it: three lines, then hexadecimal digits, here of a TIFF header and one entry.
RAW_EXIF = (
    b"\nexif\n      32\n" + (b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\x08\0\0\0" + bytes(4)).hex().encode()
)


def picture() -> npt.NDArray[np.uint8]:
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([rows * 12, columns * 8, (rows + columns) * 5], axis=-1).astype(np.uint8)


def encoded(image: Image.Image | None = None, format_: str = "PNG", **options: Any) -> bytes:
    return image_file(image or Image.fromarray(picture()), format_, **options)


def fitting(shape: tuple[int, int], height: int, width: int) -> int:
    return 3 * ((height, width) == shape)


def decode(data: bytes, orientation: Any = "auto", fits: Callable[[int, int], int] | None = None) -> DecodedImage:
    file = ImageFile(data, "s3://b/x")
    # As a worker does, which reads the masks first.
    header_size(file, orientation, max_pixels=100_000)
    return decode_image(
        file,
        orientation=orientation,
        count_fitting=fits or (lambda height, width: int((height, width) == (HEIGHT, WIDTH))),
        max_pixels=100_000,
    )


def test_a_picture_is_opened_once_and_not_kept_when_it_is_decoded() -> None:
    file = ImageFile(encoded(), "s3://b/x")
    first = file.open()
    assert file.open() is first
    decode_image(file, orientation="auto", count_fitting=lambda height, width: 0, max_pixels=100_000)
    assert file.open() is not first


@pytest.mark.parametrize("format_", ["PNG", "BMP", "TIFF", "GIF", "WEBP"])
def test_lossless_formats_give_the_very_pixels(format_: str) -> None:
    image = Image.fromarray(picture())
    options = {"lossless": True} if format_ == "WEBP" else {}
    decoded = decode(encoded(image.convert("P") if format_ == "GIF" else image, format_, **options))
    expected = np.asarray(image.convert("P").convert("RGB")) if format_ == "GIF" else picture()
    np.testing.assert_array_equal(decoded.pixels, expected)
    assert (decoded.format, decoded.notices, decoded.pixels.flags["C_CONTIGUOUS"]) == (format_, [], True)


LOSSLESS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "TIFF through libtiff": {"compression": "tiff_lzw"},
}


@pytest.mark.parametrize("tag", range(2, 9))
@pytest.mark.parametrize("name", LOSSLESS)
def test_exif_orientations_are_applied_ignored_or_decided_by_the_masks(name: str, tag: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = tag
    # What a viewer shows, from a format that Pillow does not turn by itself.
    turned = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded(exif=exif)))))
    stored = picture()
    data = encoded(None, name.split()[0], exif=exif, **LOSSLESS[name])
    for orientation, expected in (("apply", turned), ("ignore", stored)):
        decoded = decode(data, orientation)
        np.testing.assert_array_equal(decoded.pixels, expected)
        assert (decoded.exif_orientation, decoded.orientation_applied) == (tag, orientation == "apply")
        assert decoded.notices == []
    if tag >= 5:
        for shape, expected in (((HEIGHT, WIDTH), stored), ((WIDTH, HEIGHT), turned)):
            decoded = decode(data, fits=partial(fitting, shape))
            np.testing.assert_array_equal(decoded.pixels, expected)
            assert decoded.notices == []
    undecided = decode(data, fits=lambda height, width: 0)
    np.testing.assert_array_equal(undecided.pixels, turned)
    assert [notice.code for notice in undecided.notices] == ["orientation_ambiguous"]


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("tag", [1, 3, 6, 8])
def test_the_header_says_the_size_of_the_picture_the_right_way_up(format_: str, tag: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = tag
    data = encoded(None, format_, exif=exif)
    for orientation in ("auto", "apply"):
        assert (
            header_size(ImageFile(data, ""), orientation, max_pixels=100_000) == decode(data, "apply").pixels.shape[:2]
        )
    assert (
        header_size(ImageFile(data, ""), "ignore", max_pixels=100_000)
        == decode(data, "ignore").pixels.shape[:2]
        == (HEIGHT, WIDTH)
    )


def test_what_is_no_image_has_no_size() -> None:
    assert header_size(ImageFile(b"", ""), "auto", max_pixels=100_000) is None
    assert header_size(ImageFile(b"no image", ""), "auto", max_pixels=100_000) is None


def test_an_orientation_written_as_a_fraction_is_a_number_in_the_result() -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags.tagtype[0x0112] = 5
    tags[0x0112] = TiffImagePlugin.IFDRational(6, 1)
    decoded = decode(encoded(None, "TIFF", tiffinfo=tags))
    assert (type(decoded.exif_orientation), decoded.exif_orientation) == (int, 6)
    np.testing.assert_array_equal(decoded.pixels, picture())


def test_a_jpeg_photo_is_turned() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decode(encoded(None, "JPEG", exif=exif, quality=100, subsampling=0), "apply")
    assert np.abs(decoded.pixels.astype(int) - np.rot90(picture(), -1)).max() < 12


def test_transparency_lies_on_grey() -> None:
    rgba = np.dstack([picture(), np.tile(np.array([0, 255] * (WIDTH // 2), np.uint8), (HEIGHT, 1))])
    pixels = decode(encoded(Image.fromarray(rgba))).pixels
    assert (pixels[:, 0::2] == 128).all()
    np.testing.assert_array_equal(pixels[:, 1::2], picture()[:, 1::2])
    grey = Image.fromarray(np.full((HEIGHT, WIDTH, 2), [200, 0], np.uint8), "LA")
    assert (decode(encoded(grey)).pixels == 128).all()
    palette = Image.new("P", (WIDTH, HEIGHT), 3)
    palette.putpalette([10, 20, 30] * 256)
    assert (decode(encoded(palette, transparency=3)).pixels == 128).all()
    assert (decode(encoded(palette)).pixels == [10, 20, 30]).all()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def deep_png(values: npt.NDArray[np.uint16], colour_type: int) -> bytes:
    """A PNG of 16 bits, ``(H, W, channels)``, which Pillow does not write in colour."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return PNG_MAGIC + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "kind", ["grey PNG", "grey TIFF", "grey PPM", "grey JPEG2000", "RGB PNG", "RGB PPM", "RGBA PNG"]
)
def test_of_sixteen_bits_the_upper_eight_are_taken_in_grey_as_in_colour(kind: str) -> None:
    mode, format_ = kind.split()
    deep = np.linspace(0, 65535, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)
    if mode == "grey":
        data = encoded(Image.fromarray(deep), format_)
    elif format_ == "PPM":
        data = b"P6 %d %d 65535\n" % (WIDTH, HEIGHT) + np.dstack([deep] * 3).astype(">u2").tobytes()
    else:
        opaque = [np.full_like(deep, 65535)] if mode == "RGBA" else []
        data = deep_png(np.dstack([deep] * 3 + opaque), {"RGB": 2, "RGBA": 6}[mode])
    pixels = decode(data).pixels
    np.testing.assert_array_equal(pixels, np.dstack([(deep >> 8).astype(np.uint8)] * 3))


def test_floats_are_scaled_and_what_is_not_finite_is_black() -> None:
    values = np.full((HEIGHT, WIDTH), 0.5, np.float32)
    values[0, 0] = np.nan
    pixels = decode(encoded(Image.fromarray(values), "TIFF")).pixels
    assert (pixels[1:] == 128).all()
    assert (pixels[0, 0] == 0).all()


def cmyk_profile() -> bytes:
    """An output profile (ICC.1:2010) of the smallest kind: one 8-bit table that makes pure cyan ink a red."""

    def lab(lightness: float, a: float, b: float) -> bytes:
        return bytes([round(lightness * 2.55), round(a) + 128, round(b) + 128])

    # Corners of the ink cube, the last channel (black) varying fastest.
    corners = [lab(100, 0, 0)] * 16
    corners[8] = lab(53, 80, 67)
    identity = bytes(range(256))
    matrix = struct.pack(">9i", *[65536 * (row == column) for row in range(3) for column in range(3)])
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + identity * 4 + b"".join(corners) + identity * 3
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    start = 128 + 4 + 2 * 12
    tags = struct.pack(">I", 2) + b"A2B0" + struct.pack(">II", start, len(table))
    tags += b"wtpt" + struct.pack(">II", start + len(table), len(white))
    body = tags + table + white
    header = struct.pack(">I", 128 + len(body)) + b"test" + struct.pack(">I", 0x02400000) + b"prtrCMYKLab "
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp"
    header = header.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + body


@pytest.mark.parametrize("format_", ["JPEG", "TIFF"])
def test_cmyk_goes_through_its_own_profile(format_: str) -> None:
    cyan = Image.new("CMYK", (WIDTH, HEIGHT), (255, 0, 0, 0))
    plain = decode(encoded(cyan, format_)).pixels[5, 5].astype(int)
    assert plain[0] < 40
    assert plain[2] > 200
    profiled = decode(encoded(cyan, format_, icc_profile=cmyk_profile()))
    assert profiled.notices == []
    red, green, blue = profiled.pixels[5, 5].astype(int)
    assert red > 220
    assert max(green, blue) < 60


def test_a_profile_of_rgb_is_left_alone() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"tmp ", 1).replace(b"bXYZ", b"rXYZ", 1).replace(b"tmp ", b"bXYZ", 1)
    assert swapped != profile
    for mode in ("RGB", "RGBA"):
        decoded = decode(encoded(Image.fromarray(picture()).convert(mode), "PNG", icc_profile=swapped))
        np.testing.assert_array_equal(decoded.pixels, picture())
        assert [notice.code for notice in decoded.notices] == ["profile_ignored"]
    # A profile that ends too early is not sRGB's, either; sRGB's is no news, and none of grey has colours.
    assert [notice.code for notice in decode(encoded(icc_profile=swapped[:140])).notices] == ["profile_ignored"]
    assert decode(encoded(icc_profile=profile)).notices == []
    grey = profile[:16] + b"GRAY" + swapped[20:]
    assert decode(encoded(icc_profile=grey)).notices == []


def test_ycck_as_adobe_writes_it() -> None:
    ink = np.full((HEIGHT, WIDTH, 3), (200, 40, 90), np.uint8)
    stored = np.asarray(Image.fromarray(ink).convert("YCbCr"))
    black = np.full((HEIGHT, WIDTH, 1), 0, np.uint8)
    # Pillow writes CMYK inverted, and its decoder turns YCC to inverted inks.
    data = encoded(Image.fromarray(np.dstack([255 - stored, black]), "CMYK"), "JPEG", quality=100)
    marker = data.index(b"Adobe")
    assert data[marker + 11] == 0
    ycck = data[: marker + 11] + b"\x02" + data[marker + 12 :]
    inks = np.asarray(Image.open(io.BytesIO(ycck))).astype(int)
    assert np.abs(inks[..., :3] - ink).max() < 4
    assert np.abs(decode(ycck).pixels.astype(int) - (255 - ink)).max() < 4


def test_cmyk_is_converted_and_a_broken_profile_said() -> None:
    cmyk = Image.fromarray(picture()).convert("CMYK")
    for profile, codes in ((None, []), (b"nonsense", ["profile_ignored"])):
        options = {"icc_profile": profile} if profile else {}
        decoded = decode(encoded(cmyk, "JPEG", quality=100, subsampling=0, **options))
        assert np.abs(decoded.pixels.astype(int) - picture()).mean() < 4
        assert [notice.code for notice in decoded.notices] == codes


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_frames_the_first_is_taken_with_a_warning(format_: str) -> None:
    frames = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("#ff0000", "#00ff00")]
    options = {"lossless": True} if format_ == "WEBP" else {}
    decoded = decode(encoded(frames[0], format_, save_all=True, append_images=frames[1:], **options))
    assert (decoded.pixels == [255, 0, 0]).all()
    assert [notice.code for notice in decoded.notices] == ["first_frame_only"]


def test_a_damaged_second_frame_is_no_harm_and_a_million_frames_are_not_read() -> None:
    first = encoded(Image.new("P", (WIDTH, HEIGHT), 3), "GIF")
    frame = first[first.index(b"," + bytes(4)) : -1]
    for rest in (b"!\xff\xff,", frame[:12], frame * 100_000 + b";"):
        decoded = decode(first[:-1] + rest)
        np.testing.assert_array_equal(decoded.pixels, decode(first).pixels)


def test_a_multi_picture_jpeg_gives_its_first_picture() -> None:
    frames = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("#c80000", "#00c800")]
    decoded = decode(encoded(frames[0], "MPO", save_all=True, append_images=frames[1:]))
    assert decoded.format == "MPO"
    assert decoded.pixels[..., 0].min() > 150
    assert decoded.pixels[..., 1].max() < 60


CUT: dict[str, dict[str, Any]] = {
    "JPEG": {},
    "JPEG progressive": {"progressive": True},
    "PNG": {},
    "WEBP": {},
    "WEBP lossless": {"lossless": True},
    "TIFF": {},
    "TIFF through libtiff": {"compression": "tiff_lzw"},
    "TIFF with JPEG inside": {"compression": "jpeg"},
    "GIF": {},
    "BMP": {},
    "PPM": {},
    "JPEG2000": {},
    "AVIF": {},
}


@pytest.mark.parametrize("name", CUT)
def test_cut_off_images_are_named_so_wherever_they_are_cut(name: str) -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    format_ = name.split()[0]
    data = encoded(noise.convert("P") if format_ == "GIF" else noise, format_, **CUT[name])
    for share in np.linspace(0.02, 0.98, 25):
        with pytest.raises(JobError, match="truncated: it ends too early") as caught:
            decode(data[: int(len(data) * share)])
        assert caught.value.code == "image_truncated"


def test_a_tiff_whose_directory_comes_first_is_named_truncated_too() -> None:
    """As tifffile and GDAL write it; Pillow's own writer leaves a compressed file's directory to the end."""
    strip = encoded(None, "TIFF", compression="tiff_lzw")
    with TiffImagePlugin.TiffImageFile(io.BytesIO(strip)) as image:
        (offset,), (size,) = image.tag_v2[273], image.tag_v2[279]
        compressed = strip[offset : offset + size]
        predictor = image.tag_v2.get(317, 1)
    entries = [
        (256, WIDTH),
        (257, HEIGHT),
        (258, 8),
        (259, 5),
        (262, 2),
        (273, 0),
        (277, 3),
        (278, HEIGHT),
        (279, size),
    ]
    entries.append((317, predictor))
    start = 8 + 2 + 12 * len(entries) + 4
    entries[5] = (273, start)
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    whole = b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4) + compressed
    np.testing.assert_array_equal(decode(whole).pixels, picture())
    for share in (0.4, 0.7, 0.95):
        with pytest.raises(JobError) as caught:
            decode(whole[: start + int(size * share)])
        assert caught.value.code == "image_truncated"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"<html><body>Not found</body></html>", "HTML"),
        (b'<?xml version="1.0"?><Error/>', "XML"),
        (b'{"error": 404}', "JSON"),
        (b"just some text", "text"),
        (b"\xef\xbb\xbf<html><body>Not found</body></html>", "HTML"),
        (("x" * 511 + "é" * 9).encode(), "text"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 30 20\n%%EndComments\nshowpage\n", "PostScript"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3", "PDF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), "HEIC"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp41" + bytes(99), "film"),
        (b"PK\x03\x04" + bytes(99), "ZIP"),
        (bytes(range(256)), "known format"),
    ],
)
def test_what_is_no_image_is_called_what_it_looks_like(data: bytes, words: str) -> None:
    with pytest.raises(JobError) as caught:
        decode(data)
    assert caught.value.code == "image_undecodable"
    assert words in str(caught.value)
    assert "s3://b/x" in str(caught.value)


def test_the_size_is_checked_before_decoding() -> None:
    data = bytearray(encoded())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    for hostile in (bytes(data), encoded(Image.new("1", (5000, 5000)))):
        with pytest.raises(JobError) as caught:
            decode(hostile)
        assert caught.value.code in ("image_too_large", "image_undecodable")
    with pytest.raises(JobError, match="5000 x 5000"):
        decode(encoded(Image.new("1", (5000, 5000))))


@pytest.mark.parametrize("wrapping", ["ICO", "ICNS"])
def test_a_large_picture_wrapped_in_a_small_one_is_not_decoded(wrapping: str) -> None:
    inner = encoded(Image.new("1", (9000, 9000)))
    if wrapping == "ICO":
        data = struct.pack("<3H4BHHII", 0, 1, 1, WIDTH, HEIGHT, 0, 0, 1, 8, len(inner), 22) + inner
    else:
        data = b"icns" + struct.pack(">I", 16 + len(inner)) + b"icp4" + struct.pack(">I", 8 + len(inner)) + inner
    with pytest.raises(JobError, match="icon") as caught:
        decode(data)
    assert caught.value.code == "image_undecodable"


def test_postscript_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(JobError, match="PostScript"):
        decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 30 20\n%%EndComments\nshowpage\n%%EOF\n")
    assert not (tmp_path / "ran").exists()


def test_threads_do_not_disturb_each_other() -> None:
    grey = Image.new("LA", (WIDTH, HEIGHT), (200, 0))
    inputs = [*SEEDS, encoded(grey), SEEDS[0][:200], b"<html>"] * 20

    def outcome(data: bytes) -> bytes | str:
        try:
            return decode(data).pixels.tobytes()
        except JobError as error:
            return str(error)

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(outcome, inputs)) == [outcome(data) for data in inputs]


def text(keyword: bytes, words: bytes, kind: bytes = b"zTXt") -> bytes:
    """A chunk with a compressed text."""
    between = {b"zTXt": b"\0\0", b"iTXt": b"\0\1\0\0\0", b"iCCP": b"\0\0"}[kind]
    return chunk(kind, keyword + between + zlib.compress(words))


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
@pytest.mark.parametrize("behind", [False, True])
def test_a_png_with_large_metadata_is_its_pixels(kind: bytes, behind: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = encoded(exif=exif)
    large = text(b"any", b"a" * 3_000_000, kind) + text(b"XML:com.adobe.xmp", b"a" * 3_000_000, b"iTXt")
    place = len(plain) - 12 if behind else 33
    assert chunk(b"IEND", b"") == plain[-12:]
    data = plain[:place] + large + plain[place:]
    decoded = decode(data, "ignore")
    np.testing.assert_array_equal(decoded.pixels, picture())
    assert decoded.exif_orientation == 6
    assert (
        header_size(ImageFile(data, ""), "auto", max_pixels=100_000) == image_size(io.BytesIO(data)) == (WIDTH, HEIGHT)
    )
    masks = encoded(Image.fromarray((picture()[..., 0] > 100).astype(np.uint8) * 255))
    with_metadata = masks[:33] + large + masks[33:]
    np.testing.assert_array_equal(decode_png(with_metadata, ReadContext())[0], decode_png(masks, ReadContext())[0])


def test_a_png_keeps_the_orientation_that_stands_in_its_xmp() -> None:
    plain = encoded()
    for xmp in (text(b"XML:com.adobe.xmp", b'tiff:Orientation="8"', b"iTXt"), text(b"Raw profile type exif", RAW_EXIF)):
        assert decode(plain[:33] + text(b"Comment", b"words") + xmp + plain[33:]).exif_orientation == 8


def test_a_compressed_text_bomb_does_not_fill_the_memory() -> None:
    plain = encoded()
    bomb = plain[:33] + text(b"bomb", b"a" * 80_000_000) * 20 + plain[33:]
    tracemalloc.start()
    try:
        np.testing.assert_array_equal(decode(bomb).pixels, picture())
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_a_large_png_is_not_decoded_for_the_size_in_its_header() -> None:
    assert header_size(ImageFile(encoded(Image.new("1", (5000, 5000))), ""), "auto", max_pixels=100_000) is None


def many_scans(width: int, height: int, scans: int) -> bytes:
    """A progressive JPEG (ITU-T T.81, B.2 and G.1.2) of scans that each say nothing in a few bytes."""

    def segment(marker: int, data: bytes) -> bytes:
        return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data

    one_code = bytes([1, *[0] * 15])
    start = segment(0xDB, b"\0" + b"\x10" * 64)
    start += segment(0xC2, struct.pack(">BHHB", 8, height, width, 1) + b"\1\x11\0")
    start += segment(0xC4, b"\0" + one_code + b"\0") + segment(0xC4, b"\x10" + one_code + b"\xe0")
    blocks = -(-width // 8) * -(-height // 8)
    first = segment(0xDA, b"\1\1\0\0\0\1") + bytes(-(-blocks // 8))
    # One run of 2¹⁴ blocks and more without a coefficient.
    further = segment(0xDA, b"\1\1\0\1\x3f\0") + b"\x7f\xff" * -(-blocks // 2**14)
    return b"\xff\xd8" + start + first + further * (scans - 1) + b"\xff\xd9"


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded() -> None:
    assert decode(many_scans(WIDTH, HEIGHT, MAX_SCANS)).pixels.shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(JobError, match="more than 100 scans") as caught:
        decode(many_scans(300, 300, 50_000))
    assert caught.value.code == "image_too_large"


def test_behind_the_only_scan_of_a_sequential_jpeg_no_scans_are_counted_nor_decoded() -> None:
    scans = b"\xff\xda\0\x08\1\1\0\0\x3f\0\0" * 1000
    for image in (Image.fromarray(picture()), Image.fromarray(picture()).convert("L")):
        data = encoded(image, "JPEG")
        assert data[-2:] == b"\xff\xd9"
        with pytest.raises(JobError, match="broken data stream"):
            decode(data[:-2] + scans + data[-2:])
    # Says that each scan has one component of three.
    several = many_scans(300, 300, MAX_SCANS + 1).replace(b"\xff\xc2", b"\xff\xc0")
    frame = several.index(b"\xff\xc0")
    several = several[: frame + 9] + b"\3" + several[frame + 10 :]
    with pytest.raises(JobError, match="more than 100 scans"):
        decode(several)


def test_bytes_that_look_like_scans_in_a_jpegs_metadata_are_none() -> None:
    exif = Image.Exif()
    exif[0x010E] = "\xff\xda" * 1000
    data = encoded(format_="JPEG", exif=exif.tobytes(), comment=b"\xff\xda" * 30_000, progressive=True)
    assert decode(data, "ignore").pixels.shape == (HEIGHT, WIDTH, 3)


def gif_of_blocks() -> bytes:
    plain = encoded(format_="GIF")
    start = 13 + (3 << ((plain[10] & 7) + 1))
    return plain[:start] + b"!\xfe" + b"\1a" * (MAX_PIECES + 1) + b"\0" + plain[start:]


def tiff_of(*entries: tuple[int, int, int, int]) -> bytes:
    """A TIFF of one directory; each entry is a tag, a type, a count and a value."""
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + bytes(300)


SMALL = ((256, 4, 1, 16), (257, 4, 1, 16), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1))
COSTLY = {
    "JPEG segments": b"\xff\xd8" + b"\xff\xfe\0\2" * (MAX_PIECES + 1),
    "PNG chunks": PNG_MAGIC + chunk(b"abCd", b"") * (MAX_PIECES + 1),
    "GIF blocks": gif_of_blocks(),
    "TIFF strips": tiff_of(*SMALL, (273, 4, MAX_PIECES + 1, 8), (278, 4, 1, 1), (279, 4, MAX_PIECES + 1, 8)),
    "TIFF tiles": tiff_of(*SMALL, (322, 4, 1, 32768), (323, 4, 1, 32768), (324, 4, 1, 200), (325, 4, 1, 9)),
    "plain PPM": b"P2 200 200 255\n" + b"1 " * (9 << 20),
}


@pytest.mark.parametrize("what", COSTLY)
def test_what_costs_more_than_its_pixels_is_refused_before_it_is_decoded(what: str) -> None:
    with pytest.raises(JobError, match=r"Save it") as caught:
        decode(COSTLY[what])
    assert caught.value.code == "image_too_large"


@pytest.mark.parametrize("format_", ["QOI", "PCX", "SGI"])
def test_formats_that_are_not_read_are_named(format_: str) -> None:
    with pytest.raises(JobError, match=r"which is not read: convert it to JPEG, PNG, WebP or TIFF") as caught:
        decode(encoded(format_=format_))
    assert caught.value.code == "image_undecodable"


SEEDS = [encoded(format_=format_) for format_ in ("JPEG", "PNG", "WEBP", "GIF")]
SEEDS.append(encoded(format_="TIFF", compression="tiff_lzw"))


@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=12))
def test_flipped_bytes_are_decoded_or_refused(seed: bytes, flips: list[tuple[int, int]]) -> None:
    data = bytearray(seed)
    for position, value in flips:
        data[position % len(data)] = value
    with contextlib.suppress(JobError):
        decoded = decode(bytes(data))
        assert decoded.pixels.dtype == np.uint8
        assert decoded.pixels.ndim == 3


JPEGS = [
    encoded(format_="JPEG", quality=60, **options)
    for options in ({}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True}, {"keep_rgb": True})
]


@given(st.sampled_from(JPEGS), st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=2))
def test_a_jpeg_has_the_pixels_that_pillow_gives_it(jpeg: bytes, flips: list[tuple[int, int]]) -> None:
    data = bytearray(jpeg)
    for position, value in flips:
        data[position % len(data)] = value
    with contextlib.suppress(JobError):
        found = decode(bytes(data))
        if not found.orientation_applied:
            expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
            np.testing.assert_array_equal(found.pixels, expected)


def test_a_jpeg_is_decoded_into_the_memory_that_is_given_for_it() -> None:
    given: list[npt.NDArray[np.uint8]] = []

    def memory(shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
        given.append(np.empty(shape, np.uint8))
        return given[-1]

    for data in (encoded(None, "JPEG"), encoded(None, "PNG")):
        decoded = decode_image(
            ImageFile(data, "x"), orientation="auto", count_fitting=lambda h, w: 0, max_pixels=100_000, memory=memory
        )
        np.testing.assert_array_equal(decoded.pixels, np.asarray(Image.open(io.BytesIO(data))))
    (of_jpeg,) = given
    np.testing.assert_array_equal(of_jpeg, np.asarray(Image.open(io.BytesIO(encoded(None, "JPEG")))))


@given(st.binary(max_size=300))
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    with pytest.raises(JobError):
        decode(data)
