"""Several sentences per prompt: their documents, and their features in the demo model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from maskscore.errors import JobError
from maskscore.prompts import load_builtin, read_prompt_set
from maskscore.schema.prompt_set import PromptSet
from maskscore_worker.features.prompt_features import PromptFeatureCache
from maskscore_worker.model.clip import ClipModel

GROUPS: dict[str, Any] = {"name": "s", "positive": ("a dog", "a cat"), "negative": ("sky",)}


def test_a_prompt_stands_for_its_own_sentences_or_the_templates_or_itself() -> None:
    prompts = PromptSet(
        **GROUPS, templates=("{}", "a photo of {}."), sentences={"sky": ("sky", "clouds", "a photo of the sky")}
    )
    assert prompts.texts == ("a dog", "a cat", "sky")
    assert prompts.sentences_of("a dog") == ("a dog", "a photo of a dog.")
    assert prompts.sentences_of("sky") == ("sky", "clouds", "a photo of the sky")
    assert PromptSet(**GROUPS).sentences_of("a dog") == ("a dog",)


def test_old_sets_keep_their_digests_and_documents() -> None:
    # As the release before sentences computed them.
    assert load_builtin("default").digest == "sha256:03fa139e66e33cbe6c69bfe12d710ed9737cd8cacd8d68b0014c154c91ae42a3"
    assert load_builtin("demo").digest == "sha256:07e311fb8053d678c66f0df4685d5e3b85c9376b204c5f9695ee1119a8a38567"
    assert "sentences" not in PromptSet(**GROUPS).model_dump_json()
    assert "templates" not in PromptSet(**GROUPS).model_dump_json()


def test_the_digest_is_that_of_what_is_encoded() -> None:
    plain = PromptSet(**GROUPS)
    assert PromptSet(**GROUPS, templates=("{}",)).digest == plain.digest
    assert PromptSet(**GROUPS, sentences={"sky": ("sky",)}).digest == plain.digest
    others = [
        PromptSet(**GROUPS, templates=("a photo of {}",)),
        PromptSet(**GROUPS, templates=("a picture of {}",)),
        PromptSet(**GROUPS, templates=("{}", "a photo of {}")),
        PromptSet(**GROUPS, sentences={"sky": ("sky", "clouds")}),
        PromptSet(**GROUPS, sentences={"a cat": ("sky with a cat", "a kitten")}),
    ]
    assert len({plain.digest, *(other.digest for other in others)}) == 6
    again = PromptSet.model_validate_json(others[-1].model_dump_json())
    assert (again, again.digest) == (others[-1], others[-1].digest)
    other = again.model_copy(update={"negative": ("sky", "fog")})
    assert other.digest == PromptSet(**{**again.model_dump(), "negative": ("sky", "fog")}).digest != again.digest


def test_a_file_may_have_both(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    fields = {**{name: value if isinstance(value, str) else list(value) for name, value in GROUPS.items()}}
    path.write_text(yaml.safe_dump({**fields, "templates": ["a photo of {}"], "sentences": {"sky": ["sky", "clouds"]}}))
    assert [read_prompt_set(path).sentences_of(text) for text in ("a dog", "sky")] == [
        ("a photo of a dog",),
        ("sky", "clouds"),
    ]


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"templates": ("a photo",)}, "must have one {}"),
        ({"templates": ("{} and {}",)}, "must have one {}"),
        ({"templates": ("{}", "{}")}, "given more than once"),
        ({"sentences": {"a horse": ("a horse",)}}, "no prompt of the set"),
        ({"sentences": {"sky": ()}}, "must not be blank"),
        ({"sentences": {"sky": (" ",)}}, "must not be blank"),
        ({"sentences": {"sky": ("a dog",)}}, "given more than once"),
        ({"templates": tuple(f"{n} {{}}" for n in range(201))}, "at most 200"),
        ({"sentences": {"sky": tuple(f"sky {n}" for n in range(10_000))}}, "at most 10,000"),
        ({"sentences": dict.fromkeys(map(str, range(10_001)), 5)}, "at most 10,000"),
    ],
)
def test_what_does_not_fit_is_refused(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        PromptSet(**GROUPS, **wrong)


def test_features_of_a_prompts_sentences_are_averaged_as_clips_authors_do(demo: ClipModel) -> None:
    prompts = PromptSet(**GROUPS, templates=("{}", "a photo of {}"), sentences={"sky": ("sky",)})
    features = PromptFeatureCache(demo, capacity=2).get(prompts)
    assert features.shape == (3, 64)
    assert features.dtype == np.float32
    for row, text in enumerate(("a dog", "a cat")):
        mean = demo.encode_texts([text, f"a photo of {text}"]).astype(np.float64).mean(axis=0)
        np.testing.assert_allclose(features[row], mean / np.linalg.norm(mean), atol=1e-6)
    np.testing.assert_allclose(features[2], demo.encode_texts(["sky"])[0], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-6)


def test_sets_of_single_sentences_are_encoded_to_the_bit_as_before(demo: ClipModel) -> None:
    cache = PromptFeatureCache(demo, capacity=2)
    np.testing.assert_array_equal(cache.get(PromptSet(**GROUPS)), demo.encode_texts(["a dog", "a cat", "sky"]))


def test_a_sentence_that_is_too_long_is_named(demo: ClipModel) -> None:
    with pytest.raises(JobError, match="tokens"):
        PromptFeatureCache(demo, capacity=1).get(PromptSet(**GROUPS, templates=("{}" + " very" * 40,)))
