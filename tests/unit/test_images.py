"""Odd images, damaged images, hostile images: what each gets."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin

from maskscore.errors import JobError
from maskscore_worker.images import DecodedImage, decode_image

HEIGHT, WIDTH = 20, 30


def picture() -> npt.NDArray[np.uint8]:
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([rows * 12, columns * 8, (rows + columns) * 5], axis=-1).astype(np.uint8)


def encoded(image: Image.Image | None = None, format_: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image or Image.fromarray(picture())).save(buffer, format_, **options)
    return buffer.getvalue()


def fitting(shape: tuple[int, int], height: int, width: int) -> int:
    return 3 * ((height, width) == shape)


def decode(data: bytes, orientation: Any = "auto", fits: Callable[[int, int], int] | None = None) -> DecodedImage:
    return decode_image(
        data,
        uri="s3://b/x",
        orientation=orientation,
        count_fitting=fits or (lambda height, width: int((height, width) == (HEIGHT, WIDTH))),
        max_pixels=100_000,
    )


@pytest.mark.parametrize("format_", ["PNG", "BMP", "TIFF", "GIF", "WEBP"])
def test_lossless_formats_give_the_very_pixels(format_: str) -> None:
    image = Image.fromarray(picture())
    options = {"lossless": True} if format_ == "WEBP" else {}
    decoded = decode(encoded(image.convert("P") if format_ == "GIF" else image, format_, **options))
    expected = np.asarray(image.convert("P").convert("RGB")) if format_ == "GIF" else picture()
    np.testing.assert_array_equal(decoded.pixels, expected)
    assert (decoded.format, decoded.notices, decoded.pixels.flags["C_CONTIGUOUS"]) == (format_, [], True)


@pytest.mark.parametrize("tag", range(2, 9))
def test_exif_orientations_are_applied_ignored_or_decided_by_the_masks(tag: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = tag
    image = Image.open(io.BytesIO(encoded(exif=exif)))
    stored, turned = picture(), np.asarray(ImageOps.exif_transpose(image))
    data = encoded(exif=exif)
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


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled(format_: str) -> None:
    deep = np.linspace(0, 65535, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)
    pixels = decode(encoded(Image.fromarray(deep), format_)).pixels
    np.testing.assert_array_equal(pixels[..., 0], np.rint(deep / 257).astype(np.uint8))
    assert (pixels.min(), pixels.max()) == (0, 255)


def test_floats_are_scaled_and_what_is_not_finite_is_black() -> None:
    values = np.full((HEIGHT, WIDTH), 0.5, np.float32)
    values[0, 0] = np.nan
    pixels = decode(encoded(Image.fromarray(values), "TIFF")).pixels
    assert (pixels[1:] == 128).all()
    assert (pixels[0, 0] == 0).all()


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


def test_a_multi_picture_jpeg_gives_its_first_picture() -> None:
    frames = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("#c80000", "#00c800")]
    decoded = decode(encoded(frames[0], "MPO", save_all=True, append_images=frames[1:]))
    assert decoded.format == "MPO"
    assert decoded.pixels[..., 0].min() > 150
    assert decoded.pixels[..., 1].max() < 60


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_cut_off_images_fail_wherever_they_are_cut(format_: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), format_)
    for share in (0.3, 0.6, 0.9):
        with pytest.raises(JobError) as caught:
            decode(data[: int(len(data) * share)])
        assert caught.value.code in ("image_truncated", "image_undecodable")
        if format_ in ("JPEG", "PNG"):
            assert caught.value.code == "image_truncated"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"<html><body>Not found</body></html>", "HTML"),
        (b'<?xml version="1.0"?><Error/>', "XML"),
        (b'{"error": 404}', "JSON"),
        (b"just some text", "text"),
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


def test_a_compressed_text_bomb_does_not_fill_the_memory() -> None:
    information = PngImagePlugin.PngInfo()
    information.add_text("bomb", "a" * 80_000_000, zip=True)
    with pytest.raises(JobError) as caught:
        decode(encoded(pnginfo=information))
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


@given(st.binary(max_size=300))
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    with pytest.raises(JobError):
        decode(data)
