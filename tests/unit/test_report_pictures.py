"""The report's pictures, made with Pillow alone, equal those that the worker computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms
from pycocotools import mask as coco

from in_memory_files import image_file
from maskscore.imaging import ClipTransform
from maskscore.imaging.mask_pictures import component_bits
from maskscore.masks import encode_mask
from maskscore.masks.polygons import polygon_runs
from maskscore.report.page_pictures import PhotoError, crop_picture, crop_uri, layer, open_photo
from maskscore.schema.job import Mask, Treatment, View
from maskscore.schema.result import Component, ImageInfo
from maskscore_worker.crops.cpu_cropper import make_crop
from maskscore_worker.inputs.images import ImageFile, decode_image
from maskscore_worker.masks.regions import Region, find_regions

HEIGHT, WIDTH = 37, 53


def noise(height: int, width: int, channels: int = 3) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, (height, width, channels), dtype=np.uint8)


corner = st.one_of(st.integers(-10, 70), st.floats(-10, 70, allow_nan=False))


@given(st.lists(st.tuples(corner, corner), min_size=3, max_size=12))
def test_polygons_are_drawn_as_coco_draws_them(corners: list[tuple[float, float]]) -> None:
    polygon = [float(value) for corner in corners for value in corner]
    runs = polygon_runs(polygon, HEIGHT, WIDTH)
    assert sum(runs) == HEIGHT * WIDTH
    drawn = np.repeat(np.arange(len(runs)) % 2, runs).reshape(WIDTH, HEIGHT).T
    np.testing.assert_array_equal(drawn, coco.decode(coco.frPyObjects([polygon], HEIGHT, WIDTH))[..., 0])


def assert_bits_of_all_regions(mask: Mask, *, split: bool) -> int:
    regions = list(find_regions([mask], height=HEIGHT, width=WIDTH, min_area=1, split_components=split))
    for region in regions:
        assert isinstance(region, Region)
        component = Component(id=region.id, index=0, part=region.part, box=region.box, area=region.area)
        mask_picture = component_bits(mask, component, region.box, (WIDTH, HEIGHT))
        np.testing.assert_array_equal(np.asarray(mask_picture), region.bits * np.uint8(255))
    return len(regions)


@pytest.mark.parametrize("density", [0.05, 0.2, 0.4, 0.9])
def test_components_are_the_workers(density: float) -> None:
    inside = np.random.default_rng(6).random((HEIGHT, WIDTH)) < density
    mask = Mask(id="m", segmentation=encode_mask(inside))
    assert assert_bits_of_all_regions(mask, split=False) == 1
    assert assert_bits_of_all_regions(mask, split=True) > (1 if density < 0.4 else 0)


def test_polygons_of_several_parts_are_the_workers() -> None:
    parts = [
        [2.0, 2.0, 20.5, 3.0, 11.2, 18.9],
        [8.0, 8.0, 50.0, 9.5, 47.0, 30.0, 12.0, 33.3],
        [40.0, 1.0, 50, 1, 45, 6],
    ]
    mask = Mask(id="m", segmentation=parts)
    assert assert_bits_of_all_regions(mask, split=False) == 1
    assert assert_bits_of_all_regions(mask, split=True) == 2


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [WIDTH, HEIGHT], "counts": [0, WIDTH * HEIGHT]},
        {"size": [HEIGHT, WIDTH], "counts": [0, 5]},
        {"size": [HEIGHT, WIDTH], "counts": [10, -10, WIDTH * HEIGHT]},
        {"size": [HEIGHT, WIDTH], "counts": [0, 10**15]},
        {"size": [HEIGHT, WIDTH], "counts": "0ä"},
    ],
)
def test_masks_that_are_not_of_the_image_are_refused(segmentation: object) -> None:
    mask = Mask.model_validate({"id": "m", "segmentation": segmentation})
    with pytest.raises(ValueError, match=r"."):
        component_bits(mask, Component(id="m", index=0), (0, 0, 5, 5), (WIDTH, HEIGHT))


def test_a_component_that_the_mask_does_not_hold_is_refused() -> None:
    mask = Mask(id="m", segmentation=encode_mask(np.eye(HEIGHT, WIDTH)))
    for area, box in ((29, (0, 0, 30, 30)), (30, (1, 0, 30, 30))):
        component = Component(id="m", index=0, part=1, area=area)
        with pytest.raises(ValueError, match="does not hold"):
            component_bits(mask, component, box, (WIDTH, HEIGHT))


@pytest.mark.parametrize("treatment", ["original", "raw_crop", "soft_mask"])
@pytest.mark.parametrize(("height", "width"), [(40, 40), (90, 33), (20, 61), (1, 1), (130, 200), (64, 640)])
def test_crops_are_the_workers_to_the_bit(treatment: Treatment, height: int, width: int) -> None:
    ours, theirs = crops(treatment, height, width)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("height", "width"), [(3, 90), (120, 7), (1, 600), (500, 2)])
def test_crops_of_slivers_are_the_workers_give_or_take_two_levels(height: int, width: int) -> None:
    ours, theirs = crops("original", height, width)
    assert np.abs(ours.astype(int) - theirs).max() <= 2


def crops(treatment: Treatment, height: int, width: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    pixels, box = noise(height + 9, width + 9), (4, 5, width, height)
    mask_picture = np.random.default_rng(7).random((height, width)) < 0.7
    picture = Image.fromarray(mask_picture * np.uint8(255))
    view = View(treatment=treatment, alpha=0.3)
    ours = crop_picture(Image.fromarray(pixels), picture, box, view=view, transform=ClipTransform(64))
    theirs = make_crop(pixels, box, mask_picture, view, transform=ClipTransform(64))
    return np.asarray(ours), theirs


def test_small_crops_stay_lossless_and_large_ones_small() -> None:
    assert crop_uri(Image.fromarray(noise(64, 64))).startswith("data:image/png;base64,")
    assert crop_uri(Image.new("RGB", (224, 224), (128, 128, 128))).startswith("data:image/png;base64,")
    assert crop_uri(Image.fromarray(noise(224, 224))).startswith("data:image/jpeg;base64,")


def test_a_layer_is_translucent_inside_outlined_at_the_edge_and_clear_outside() -> None:
    mask_picture = np.zeros((40, 60), np.uint8)
    mask_picture[:, :30] = 255
    pixels = np.asarray(layer(Image.fromarray(mask_picture), "#d55e00", 0.5).convert("RGBA"))
    assert pixels.shape == (20, 30, 4)
    assert (pixels[:, 16:, 3] == 0).all()
    assert (pixels[:, 14, 3] > 200).all()
    assert (np.abs(pixels[5:15, 5:10, 3].astype(int) - 107) < 15).all()
    np.testing.assert_allclose(pixels[10, 7, :3], (0xD5, 0x5E, 0x00), atol=6)


def grey_ramp(mode: str, factor: float) -> Image.Image:
    ramp = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) * factor
    return Image.fromarray(ramp.astype(np.uint16 if mode == "I;16" else np.float32))


def photos() -> dict[str, bytes]:
    rgb, rgba = Image.fromarray(noise(HEIGHT, WIDTH)), Image.fromarray(noise(HEIGHT, WIDTH, 4))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return {
        "rgb": image_file(rgb),
        "jpeg": image_file(rgb, "JPEG"),
        "grey": image_file(rgb.convert("L")),
        "palette": image_file(rgb.convert("P")),
        "transparent palette": image_file(rgb.quantize(8), transparency=3),
        "rgba": image_file(rgba),
        "grey with alpha": image_file(rgba.convert("LA")),
        "cmyk": image_file(rgb.convert("CMYK"), "JPEG"),
        "cmyk with a profile that is none of its": image_file(rgb.convert("CMYK"), "JPEG", icc_profile=srgb),
        "16 bits": image_file(grey_ramp("I;16", 33)),
        "floats to 1": image_file(grey_ramp("F", 1 / 2000), "TIFF"),
        "floats to 255": image_file(grey_ramp("F", 0.1), "TIFF"),
    }


@pytest.mark.parametrize("kind", photos())
def test_photos_are_the_workers(kind: str) -> None:
    data = photos()[kind]
    decoded = decode_image(ImageFile(data, "x"), orientation="ignore", count_fitting=lambda h, w: 1, max_pixels=10**6)
    photo = open_photo(data, ImageInfo(uri="x", width=WIDTH, height=HEIGHT, format=decoded.format))
    # Of floats, those exactly between two grey levels may be rounded the other way.
    levels = 1 if kind.startswith("floats") else 0
    assert np.abs(np.asarray(photo).astype(int) - decoded.pixels).max() <= levels


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("orientation", ["apply", "ignore"])
def test_photos_are_turned_as_the_result_says(tag: int, orientation: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = tag
    data = image_file(noise(HEIGHT, WIDTH), exif=exif)
    decoded = decode_image(
        ImageFile(data, "x"), orientation=orientation, count_fitting=lambda h, w: 1, max_pixels=10**6
    )
    height, width = decoded.pixels.shape[:2]
    info = ImageInfo(
        uri="x",
        width=width,
        height=height,
        format="PNG",
        exif_orientation=decoded.exif_orientation,
        orientation_applied=decoded.orientation_applied,
    )
    np.testing.assert_array_equal(np.asarray(open_photo(data, info)), decoded.pixels)


def test_what_cannot_be_shown_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    data = image_file(noise(HEIGHT, WIDTH))
    info = ImageInfo(uri="x", width=WIDTH, height=HEIGHT, format="PNG")
    for bad in (b"", b"not an image", data[: len(data) // 2]):
        with pytest.raises(PhotoError, match="cannot be read"):
            open_photo(bad, info)
    with pytest.raises(PhotoError, match=f"{WIDTH} × {HEIGHT} pixels now, the scored one was of 9 × {HEIGHT}"):
        open_photo(data, info.model_copy(update={"width": 9}))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(PhotoError, match="decompression bomb"):
        open_photo(data, info)
