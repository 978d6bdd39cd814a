"""Frames and treatments of crops: their formulas, and that worker, device, reference and report agree."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from scipy import ndimage

from maskscore.imaging import ClipTransform
from maskscore.imaging.frames import fitted_size, window
from maskscore.imaging.treatments import MEAN, blurred
from maskscore.masks import encode_mask
from maskscore.report.page_pictures import crop_picture
from maskscore.schema.job import Frame, Mask, Treatment, View
from maskscore.schema.result import Interpolation, ResizeMode
from maskscore_worker.crops.cpu_cropper import CpuCropper, make_crop, treat, widened
from maskscore_worker.crops.crop_plan import DevicePlan
from maskscore_worker.crops.device_cropper import DeviceCropper
from maskscore_worker.crops.reference_cropper import reference_crop
from maskscore_worker.masks.regions import Region, find_regions

Pixels = npt.NDArray[np.uint8]
Bits = npt.NDArray[np.bool_]
Box = tuple[int, int, int, int]

WIDTH, HEIGHT = 90, 70
VIEWS = [View(treatment=treatment, frame=frame) for treatment in get_args(Treatment) for frame in get_args(Frame)]
NEW = [view for view in VIEWS if not view.specified]


def noise(height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def ragged(box: Box, seed: int = 1) -> Bits:
    """Bits that touch all four sides of their box."""
    bits: Bits = np.random.default_rng(seed).random((box[3], box[2])) < 0.6
    bits[[0, -1]] = bits[:, [0, -1]] = True
    return bits


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    x, y = draw(st.integers(0, WIDTH - 1)), draw(st.integers(0, HEIGHT - 1))
    return x, y, draw(st.integers(1, WIDTH - x)), draw(st.integers(1, HEIGHT - y))


def by_reference(pixels: Pixels, box: Box, bits: Bits, view: View, transform: ClipTransform) -> Pixels:
    config = PreprocessCfg(
        size=transform.size,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        interpolation=transform.interpolation,
        resize_mode=transform.resize_mode,
        fill_color=transform.fill,  # a colour is taken, too
    )
    plain = image_transform_v2(config, is_train=False)
    made = reference_crop(pixels, box, bits, view, plain, transform).numpy()
    crop: Pixels = np.rint(made * 255).astype(np.uint8).transpose(1, 2, 0)
    return crop


@st.composite
def transforms(draw: st.DrawFn) -> ClipTransform:
    mode = draw(st.sampled_from(get_args(ResizeMode)))
    interpolation = draw(st.sampled_from(get_args(Interpolation)))
    return ClipTransform(draw(st.sampled_from([24, 56])), mode, interpolation, (7, 90, 201))


EDGES: list[Box] = [
    (0, 0, 1, 1),  # one pixel, in a corner
    (WIDTH - 1, HEIGHT - 1, 1, 1),
    (40, 30, 1, 1),
    (0, 10, 2, 60),  # slivers, along the border and across the image
    (0, 69, 90, 1),
    (10, 0, 70, 3),
    (0, 0, WIDTH, HEIGHT),
    (0, 20, 30, 30),
]


@pytest.mark.parametrize("view", NEW, ids=lambda view: view.text)
@given(box=boxes(), transform=transforms(), seed=st.integers(0, 9))
@example(box=(3, 0, 1, 48), transform=ClipTransform(24, "longest"), seed=0)
@example(box=(3, 0, 1, 47), transform=ClipTransform(24, "longest"), seed=0)
def test_worker_reference_and_report_give_the_same_crop(
    view: View, box: Box, transform: ClipTransform, seed: int
) -> None:
    check_agreement(view, box, transform, seed)


@pytest.mark.parametrize("box", EDGES)
@pytest.mark.parametrize("view", NEW, ids=lambda view: view.text)
def test_they_agree_at_the_border_on_slivers_and_on_one_pixel(view: View, box: Box) -> None:
    check_agreement(view, box, ClipTransform(32), 0)


def check_agreement(view: View, box: Box, transform: ClipTransform, seed: int) -> None:
    pixels, bits = noise(seed=seed), ragged(box, seed)
    crop = make_crop(pixels, box, bits, view, transform=transform)
    assert crop.shape == (transform.size, transform.size, 3)
    inside = Image.fromarray(bits * np.uint8(255))
    shown = crop_picture(Image.fromarray(pixels), inside, box, view=view, transform=transform)
    np.testing.assert_array_equal(np.asarray(shown), crop)
    expected = by_reference(pixels, box, bits, view, transform)
    difference = np.abs(crop.astype(int) - expected)
    # Of a sliver the usual path makes the middle alone; see the tests of `cut`.
    sliver = view.frame == "cut" and transform.is_sliver(*box[2:])
    assert difference.max() <= (2 if sliver else 0)


@pytest.mark.parametrize("frame", get_args(Frame))
@given(box=boxes())
def test_where_the_mask_covers_all_nothing_is_blurred_or_filled(frame: Any, box: Box) -> None:
    whole = np.ones((box[3], box[2]), bool)
    views = [View(treatment=treatment, frame=frame, context=0) for treatment in ("raw_crop", "blur", "mean_fill")]
    if frame == "context" and window(box, views[0], (WIDTH, HEIGHT)) != box:
        return
    raw, *others = (make_crop(noise(), box, whole, view, transform=ClipTransform(32)) for view in views)
    for other in others:
        np.testing.assert_array_equal(other, raw)


@given(box=boxes(), context=st.floats(0, 4))
@example(box=(0, 0, 10, 10), context=0.25)
@example(box=(10, 10, 3, 4), context=0.5)
def test_a_context_window_holds_the_box_and_real_pixels(box: Box, context: float) -> None:
    x, y, width, height = window(box, View(frame="context", context=context), (WIDTH, HEIGHT))
    assert 0 <= x <= box[0]
    assert 0 <= y <= box[1]
    assert box[0] + box[2] <= x + width <= WIDTH
    assert box[1] + box[3] <= y + height <= HEIGHT
    longer = max(box[2:])
    side = longer + 2 * int(context * longer + 0.5)
    assert (width, height) == (min(side, WIDTH), min(side, HEIGHT))
    if x > 0 and x + width < WIDTH:
        assert abs((2 * box[0] + box[2]) - (2 * x + width)) <= 1
    if y > 0 and y + height < HEIGHT:
        assert abs((2 * box[1] + box[3]) - (2 * y + height)) <= 1


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((40, 30, 20, 10), (35, 20, 30, 30)),  # 20 and a quarter of it on each side
        ((0, 0, 20, 10), (0, 0, 30, 30)),  # moved away from the corner
        ((70, 60, 20, 10), (60, 40, 30, 30)),
        ((10, 0, 60, 70), (0, 0, 90, 70)),  # larger than the image: all of it
        ((5, 40, 50, 3), (0, 0, 76, 70)),  # as wide as it is, higher than the image
    ],
)
def test_context_windows(box: Box, expected: Box) -> None:
    assert window(box, View(frame="context"), (WIDTH, HEIGHT)) == expected


def test_a_context_crop_treats_all_that_is_outside_the_mask() -> None:
    pixels, box = noise(), (40, 30, 20, 10)
    crop = make_crop(
        pixels, box, np.ones((10, 20), bool), View(frame="context", treatment="mean_fill"), transform=ClipTransform(30)
    )
    expected = np.full((30, 30, 3), MEAN, np.uint8)
    expected[10:20, 5:25] = pixels[30:40, 40:60]
    np.testing.assert_array_equal(crop, expected)


def test_padding_keeps_the_ends_that_cutting_loses() -> None:
    pixels = np.full((20, 200, 3), 60, np.uint8)
    pixels[:, :20], pixels[:, -20:] = (255, 0, 0), (0, 0, 255)
    box, bits = (0, 0, 200, 20), np.ones((20, 200), bool)
    cut = make_crop(pixels, box, bits, View(treatment="raw_crop"), transform=ClipTransform(40))
    padded = make_crop(pixels, box, bits, View(treatment="raw_crop", frame="pad"), transform=ClipTransform(40))
    assert (cut == 60).all()
    assert padded[20, 0].tolist() == [255, 0, 0]
    assert padded[20, -1].tolist() == [0, 0, 255]
    # 200 × 20 becomes 40 × 4, with 18 rows of padding above and below.
    assert (padded[:18] == MEAN).all()
    assert (padded[22:] == MEAN).all()


@pytest.mark.parametrize(
    ("treatment", "colour"),
    [
        ("original", (128, 128, 128)),
        ("soft_mask", (128, 128, 128)),
        ("raw_crop", MEAN),
        ("blur", MEAN),
        ("mean_fill", MEAN),
    ],
)
@pytest.mark.parametrize("frame", ["pad", "context"])
def test_what_is_missing_of_the_square_has_the_treatments_colour(treatment: Any, colour: Any, frame: Any) -> None:
    box = (0, 0, 10, HEIGHT)
    view = View(treatment=treatment, frame=frame, context=4)
    crop = make_crop(noise(), box, np.ones((HEIGHT, 10), bool), view, transform=ClipTransform(45))
    # Padded: 10 × 70 becomes 6 × 45. With context: 90 × 70 becomes 45 × 35.
    outside = crop[:, :19] if frame == "pad" else crop[:5]
    assert (outside == colour).all()


@given(width=st.integers(1, 3000), height=st.integers(1, 3000), size=st.sampled_from([32, 64, 224]))
def test_a_fitted_crop_fits(width: int, height: int, size: int) -> None:
    fitted = fitted_size(width, height, size)
    assert max(fitted) == size
    assert min(fitted) >= 1
    assert abs(min(fitted) - max(1, size * min(width, height) / max(width, height))) <= 0.5


@given(box=boxes(), context=st.floats(0, 2))
def test_widened_bits_are_the_masks_in_the_image(box: Box, context: float) -> None:
    whole, bits = np.zeros((HEIGHT, WIDTH), bool), ragged(box)
    whole[box[1] : box[1] + box[3], box[0] : box[0] + box[2]] = bits
    x, y, width, height = seen = window(box, View(frame="context", context=context), (WIDTH, HEIGHT))
    np.testing.assert_array_equal(widened(bits, box, seen), whole[y : y + height, x : x + width])


@pytest.mark.parametrize("sigma", [1.5, 6.0, 15.9, 16.0, 35.0])
@pytest.mark.parametrize("size", [(241, 317), (240, 320)])
def test_the_blur_is_a_gaussian(sigma: float, size: tuple[int, int]) -> None:
    height, width = size
    smooth = ndimage.gaussian_filter(noise(height, width, 3).astype(float), (3, 3, 0))
    pixels = ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)
    view = View(treatment="blur", blur=sigma / width)
    made = treat(pixels, np.zeros(size, bool), view, longer_side=width)
    expected = ndimage.gaussian_filter(pixels.astype(float), (sigma, sigma, 0), mode="nearest", truncate=6)
    # Three box filters are nearly a Gaussian, but continue the edge anew before each: compared away from it.
    edge = min(110, int(3 * sigma))
    difference = np.abs(made.astype(float) - expected)[edge:-edge, edge:-edge]
    assert difference.max() <= 4
    assert difference.mean() <= 1


@pytest.mark.parametrize("sigma", [1.5, 6.0, 15.9, 16.0, 25.0, 35.0])
@pytest.mark.parametrize("radius", [20, 30, None])
def test_the_blur_of_black_and_white_is_as_near_to_a_gaussian_as_documented(sigma: float, radius: int | None) -> None:
    """A disc, or without a radius a straight edge."""
    y, x = np.mgrid[:400, :400]
    inside = x >= 203 if radius is None else (y - 200) ** 2 + (x - 200) ** 2 < radius**2
    pixels = np.where(inside[..., None], 255, 0).astype(np.uint8).repeat(3, 2)
    made = np.asarray(blurred(Image.fromarray(pixels), sigma), float)
    expected = ndimage.gaussian_filter(pixels.astype(float), (sigma, sigma, 0), mode="nearest", truncate=6)
    edge = int(3 * sigma)
    assert np.abs(made - expected)[edge:-edge, edge:-edge].max() <= (8 if radius else 4)


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (3, 900), (127, 129)])
def test_a_strong_blur_of_any_shape_keeps_its_size_and_its_plain_colour(size: tuple[int, int]) -> None:
    plain = Image.new("RGB", size, (10, 200, 90))
    for sigma in (0.3, 17.0, 90.0, 900.0):
        assert blurred(plain, sigma).getcolors() == [(size[0] * size[1], (10, 200, 90))]


def test_a_blur_leaves_the_inside_as_it_is_and_blurs_more_the_larger_the_box() -> None:
    pixels, bits = noise(60, 60), np.zeros((60, 60), bool)
    bits[20:40, 20:40] = True
    before = pixels.copy()
    little, much = (treat(pixels, bits, View(treatment="blur"), longer_side=side) for side in (10, 60))
    for made in (little, much):
        np.testing.assert_array_equal(made[bits], pixels[bits])
    assert much[~bits].std() < little[~bits].std() < pixels[~bits].std()
    np.testing.assert_array_equal(pixels, before)


def test_the_mean_colour_is_what_clip_subtracts() -> None:
    from open_clip.constants import OPENAI_DATASET_MEAN

    assert [round(255 * mean) for mean in OPENAI_DATASET_MEAN] == list(MEAN)
    pixels = noise(8, 8)
    made = treat(pixels, np.eye(8, dtype=bool), View(treatment="mean_fill"), longer_side=8)
    np.testing.assert_array_equal(made, np.where(np.eye(8, dtype=bool)[..., None], pixels, MEAN))


def regions_of(boxes: list[Box], *, split: bool = False) -> list[Region]:
    masks = []
    for number, box in enumerate(boxes):
        whole = np.zeros((HEIGHT, WIDTH), bool)
        whole[box[1] : box[1] + box[3], box[0] : box[0] + box[2]] = ragged(box, number)
        masks.append(Mask(id=str(number), segmentation=encode_mask(whole)))
    found = find_regions(masks, height=HEIGHT, width=WIDTH, min_area=1, split_components=split)
    return [region for region in found if isinstance(region, Region)]


def nothing() -> None:
    pass


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.text)
@pytest.mark.parametrize("mode", get_args(ResizeMode))
def test_crops_for_a_device_are_the_workers(mode: Any, view: View, split: bool) -> None:
    # Squares inside the image, at its border, and larger than it.
    boxes: list[Box] = [(10, 20, 30, 20), (0, 0, 12, 9), (0, 10, 80, 40), (89, 69, 1, 1), (60, 2, 6, 40)]
    regions = regions_of(boxes, split=split)
    pixels = noise()
    transform = ClipTransform(32, mode, "bicubic" if split else "bilinear", (7, 90, 201))
    made = DeviceCropper(transform, torch.device("cpu")).open(pixels).make(regions, view, nothing)
    assert isinstance(made, torch.Tensor)
    expected = CpuCropper(transform, exact=True).open(pixels).make(regions, view, nothing)
    np.testing.assert_array_equal(made.numpy(), expected)


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.text)
def test_the_device_makes_all_but_blurs(view: View) -> None:
    cropper = DeviceCropper(ClipTransform(32), torch.device("cpu"))
    make, asked = cropper.make_crops, []

    def counted(image: torch.Tensor, plan: DevicePlan, *rest: Any) -> torch.Tensor:
        asked.append(len(plan.host))
        return make(image, plan, *rest)

    cropper.make_crops = counted
    regions = regions_of([(10, 20, 30, 20), (0, 10, 80, 40), (0, 0, 12, 9)])
    cropper.open(noise()).make(regions, view, nothing)
    assert asked == ([] if view.treatment == "blur" else [3])


def test_where_the_devices_memory_is_full_new_recipes_are_made_on_the_cpu() -> None:
    cropper = DeviceCropper(ClipTransform(32), torch.device("cpu"))

    def full(*_: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("full")

    cropper.make_crops = full
    view, regions = View(treatment="mean_fill", frame="context"), regions_of([(10, 20, 30, 20), (0, 10, 80, 40)])
    made = cropper.open(noise()).make(regions, view, nothing)
    np.testing.assert_array_equal(
        made.numpy(), CpuCropper(ClipTransform(32), exact=True).open(noise()).make(regions, view, nothing)
    )
