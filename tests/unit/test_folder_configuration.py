"""A folder of weights without a configuration, or with a tokenizer of its own: what a worker makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.tokenizer import HFTokenizer
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from command_line import run_command
from maskscore.errors import PretrainedUnset, WeightsError
from maskscore.settings import WorkerSettings
from maskscore_worker.model.clip import load_model
from maskscore_worker.model.configuration import read_configuration
from maskscore_worker.model.tokens import count_tokens, load_tokenizer, token_counter
from maskscore_worker.pipeline import check_weights
from maskscore_worker.weights.pretrained import find_pretrained, open_clip_config

SIGLIP2 = "ViT-B-32-SigLIP2-256"


@pytest.fixture
def tokenizer_folder(tmp_path: Path) -> Path:
    """A folder with a small tokenizer, which ends a text with a mark, as SigLIP's do."""
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2, "a": 3, "cat": 4, "dog": 5}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", None, [("</s>", 1)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    kind = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(kind))
    return tmp_path


def test_an_architecture_with_one_preprocessing_gets_it_and_another_is_refused(tmp_path: Path) -> None:
    found = read_configuration(tmp_path, architecture="MobileCLIP2-S0")
    assert (found.preprocessing["mean"], found.preprocessing["interpolation"]) == ((0.0,) * 3, "bilinear")
    with pytest.raises(PretrainedUnset, match=r"MASKSCORE_PRETRAINED.*`maskscore weights pull ViT-L-14:TAG DIR`"):
        read_configuration(tmp_path, architecture="ViT-L-14")
    chosen = read_configuration(tmp_path, architecture="ViT-L-14", pretrained="dfn2b")
    assert (chosen.name, chosen.preprocessing["resize_mode"]) == ("ViT-L-14-quickgelu", "shortest")


def test_a_configuration_and_a_tag_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    config = {"model_cfg": open_clip.get_model_config("ViT-B-32"), "preprocess_cfg": {"mean": [0.5] * 3}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    assert read_configuration(tmp_path, architecture="").name == "ViT-B-32"
    with pytest.raises(WeightsError, match="contradict each other in mean"):
        read_configuration(tmp_path, architecture="", pretrained="openai")


def test_of_architectures_with_one_configuration_the_stated_one_is_named(tmp_path: Path) -> None:
    older, newer = find_pretrained("MobileCLIP-B:datacompdr_lt"), find_pretrained("MobileCLIP2-B")
    path, config = tmp_path / "open_clip_config.json", dict(open_clip_config(older))
    assert config["model_cfg"] == open_clip_config(newer)["model_cfg"]
    path.write_text(json.dumps(config))
    assert read_configuration(tmp_path, architecture="MobileCLIP2-B").name == "MobileCLIP-B"  # what was pulled
    del config["architecture"]
    path.write_text(json.dumps(config))
    for name in ("MobileCLIP-B", "MobileCLIP2-B"):
        assert read_configuration(tmp_path, architecture=name).name == name
    for row in (older, newer):
        assert read_configuration(tmp_path, architecture="", pretrained=row.tag).name == row.architecture
    assert read_configuration(tmp_path, architecture="", pretrained="datacompdr-LT").name == "MobileCLIP-B"


def test_a_folders_own_tokenizer_is_read_and_counted_as_open_clip_does(tokenizer_folder: Path) -> None:
    tokenizer = load_tokenizer(read_configuration(tokenizer_folder, architecture=SIGLIP2), tokenizer_folder)
    theirs = HFTokenizer(str(tokenizer_folder), context_length=64, clean="canonicalize", local_files_only=True)
    assert tokenizer(["a cat.", "dog"]).tolist() == theirs(["a cat.", "dog"]).tolist()
    assert count_tokens(tokenizer, "a cat") == 3
    counter = token_counter(SIGLIP2, tokenizer_folder)
    assert (counter.context_length, counter.why_estimated) == (64, None)
    assert [counter.count(" ".join(["cat"] * words)) for words in (63, 64)] == [64, 65]


def test_a_siglip_folder_gives_open_clips_features_and_its_bias(tokenizer_folder: Path) -> None:
    """All of SigLIP's parts, small: timm's tower with attention pooling, no causal mask, a tokenizer of its own."""
    config = open_clip.get_model_config("ViT-B-16-SigLIP")
    config["embed_dim"] = 96
    config["vision_cfg"] |= {"timm_model_name": "test_vit3", "image_size": 160}
    config["text_cfg"] |= {"vocab_size": 6, "width": 32, "heads": 2, "layers": 2}
    preprocessing = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash", "interpolation": "bicubic"}
    document = {"model_cfg": config, "preprocess_cfg": preprocessing}
    (tokenizer_folder / "open_clip_config.json").write_text(json.dumps(document))
    theirs, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tokenizer_folder}", load_weights=False)
    theirs.eval()
    save_file(theirs.state_dict(), tokenizer_folder / "open_clip_model.safetensors")
    model = load_model(tokenizer_folder, architecture="", device=torch.device("cpu"))
    assert (model.logit_bias, model.context_length, model.preprocessing.foreign) == (-10, 64, None)
    picture, texts = Image.effect_noise((90, 70), 90).convert("RGB"), ["a cat", "A dog."]
    tokens = open_clip.get_tokenizer(f"local-dir:{tokenizer_folder}")(texts)
    with torch.inference_mode():
        images = theirs.encode_image(torch.stack([transform(picture)]), normalize=True)
        prompts = theirs.encode_text(tokens, normalize=True)
    crop = np.asarray(model.preprocessing.known.square(picture))
    np.testing.assert_allclose(model.encode_images(crop[None]), images, atol=1e-5)
    np.testing.assert_allclose(model.encode_texts(texts), prompts, atol=1e-5)


def test_all_that_a_folder_lacks_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"lacks 2 things\..*open_clip_model.safetensors.*tokenizer.json"):
        check_weights(WorkerSettings(weights=tmp_path, model=SIGLIP2, device="cpu"))


def test_prompts_are_checked_with_the_folders_own_tokenizer(tokenizer_folder: Path) -> None:
    texts = [" ".join(["cat"] * words) for words in (63, 64)]
    prompts = tokenizer_folder / "cats.yaml"
    prompts.write_text(json.dumps({"name": "cats", "positive": texts, "negative": ["a dog"]}))
    options = ("--model", SIGLIP2, "--weights", str(tokenizer_folder), "--json")
    checked = json.loads(run_command("prompts", "check", str(prompts), *options).stdout)
    assert (checked["estimated"], checked["context_length"]) == (None, 64)
    assert [problem["prompts"] for problem in checked["problems"] if problem["code"] == "too_long"] == [[texts[1]]]


def test_prompts_are_checked_for_a_folder_that_needs_the_tag_of_its_weights(tmp_path: Path) -> None:
    config = {"model_cfg": open_clip.get_model_config("ViT-L-14")}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    command = ("prompts", "check", "demo", "--weights", str(tmp_path), "--json")
    refused = run_command(*command)
    assert "MASKSCORE_PRETRAINED" in refused.stderr
    for option, environment in (((), {"MASKSCORE_PRETRAINED": "dfn2b"}), (("--pretrained", "dfn2b"), {})):
        checked = run_command(*command, *option, environment=environment)
        assert (json.loads(checked.stdout)["estimated"], checked.stderr) == (None, "")
