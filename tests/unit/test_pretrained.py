"""The table of pretrained weights equals open_clip's own, and ``maskscore weights list`` shows it."""

from __future__ import annotations

import json

import open_clip
import pytest
from open_clip.pretrained import _PRETRAINED

from command_line import run_command
from maskscore.errors import PretrainedUnset, WeightsError
from maskscore_worker.weights import Preprocessing, find_pretrained, preprocessing_of, pretrained_models, tags_of
from maskscore_worker.weights.pretrained import open_clip_config
from pretrained_table import counted, licence, tags


def listed(*arguments: str) -> list[dict[str, object]]:
    done = run_command("weights", "list", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_table_is_the_installed_open_clips() -> None:
    """Another release of open_clip: run tests/pretrained_table.py."""
    rows = [
        {
            "architecture": row.architecture,
            "tag": row.tag,
            "hub": row.hub,
            "quick_gelu": row.quick_gelu,
            "mean": list(row.preprocessing.mean),
            "std": list(row.preprocessing.std),
            "interpolation": row.preprocessing.interpolation,
            "resize_mode": row.preprocessing.resize_mode,
        }
        for row in pretrained_models()
    ]
    assert rows == tags()
    for row in pretrained_models():
        assert (row.licence, row.licence_from) == licence(row.hub), row.name
    for architecture, of_architecture in _PRETRAINED.items():
        assert [row.tag for row in tags_of(architecture)] == list(of_architecture)


def test_a_quick_gelu_tag_is_written_as_the_architecture_with_it() -> None:
    for row in pretrained_models():
        config = open_clip_config(row)
        own = open_clip.get_model_config(row.architecture)
        with_it = open_clip.get_model_config(f"{row.architecture}-quickgelu")
        assert config["model_cfg"] == (with_it if row.quick_gelu and with_it else own), row.name


def test_flops_are_counted_as_open_clip_counts_them() -> None:
    for architecture in ("ViT-B-32", "RN50"):
        row = tags_of(architecture)[0]
        parameters, gflops = counted(architecture)
        assert not row.counted
        assert (parameters / 1e6, gflops) == pytest.approx((row.mparams, row.gflops), abs=0.005)


def test_preprocessing_is_known_or_asked_for() -> None:
    assert preprocessing_of("MobileCLIP2-S0", None) == Preprocessing((0.0,) * 3, (1.0,) * 3, "bilinear", "shortest")
    assert preprocessing_of("ViT-S-32", None) == Preprocessing()
    assert preprocessing_of("ViT-L-14", "laion2b_s32b_b82k").mean == (0.5,) * 3
    assert preprocessing_of("ViT-L-14", "openai") == Preprocessing()
    with pytest.raises(PretrainedUnset, match=r"MASKSCORE_PRETRAINED") as caught:
        preprocessing_of("ViT-L-14", None)
    assert "laion2b_s32b_b82k: shortest bicubic, mean 0.5, 0.5, 0.5, std 0.5, 0.5, 0.5" in str(caught.value)
    assert caught.value.code == "pretrained_unset"
    with pytest.raises(WeightsError, match="name one of"):
        preprocessing_of("ViT-L-14", "laion")


def test_tags_are_read_as_open_clip_reads_them() -> None:
    assert find_pretrained("ViT-B-32:LAION2B-s34b-b79k").tag == "laion2b_s34b_b79k"
    assert find_pretrained("ViT-B-32-quickgelu:openai").name == "ViT-B-32:openai"
    with pytest.raises(WeightsError, match="has no weights 'laion2b_s34b_b79k'"):
        find_pretrained("ViT-B-32-quickgelu:laion2b_s34b_b79k")


def test_lists_are_filtered_and_sorted() -> None:
    assert len(listed()) == len(pretrained_models())
    rows = listed("--max-gflops", "40", "--min-accuracy", "70", "--licence", "mit")
    accuracies = [row["imagenet"] for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)  # type: ignore[type-var]
    assert rows
    for row in rows:
        assert row["licence"] == "mit"
        assert row["gflops"] <= 40  # type: ignore[operator]
        assert row["imagenet"] >= 0.7  # type: ignore[operator]
    assert [row["best_under_gflops"] for row in rows] == [[40.0], *([[]] * (len(rows) - 1))]
    names = [row["architecture"] for row in listed("siglip2", "--sort", "gflops")]
    assert names[0] == "ViT-B-32-SigLIP2-256"
    assert {row["licence"] for row in listed("--licence", "unknown")} == {None}


def test_a_table_fits_80_columns_and_names_are_whole() -> None:
    done = run_command("weights", "list")
    assert done.returncode == 0, done.stderr
    table = done.stdout.split("\n\n")[0].splitlines()
    assert max(map(len, table)) <= 80
    folded = "".join(line[: table[0].index("M") - 4].strip() for line in table)
    for row in pretrained_models():
        assert row.name in folded
    assert "fast" in table[1]
    assert "of 56 open_clip publishes no accuracy" in done.stdout
    assert "Best under 10 GFLOPs: ViT-B-32:datacomp_xl_s13b_b90k (69.2 %, 8.82 GFLOPs" in done.stdout
    wide = run_command("weights", "list", "mobileclip2-s0", "--wide").stdout
    assert "timm/MobileCLIP2-S0-OpenCLIP/" in wide
    assert "shortest bilinear, mean 0, 0, 0, std 1, 1, 1" in wide
    assert " unknown " in wide
