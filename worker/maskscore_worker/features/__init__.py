"""Features of crops and of prompts, computed or taken from the cache."""

from __future__ import annotations

from maskscore_worker.features.cache import FeatureCache, open_feature_cache
from maskscore_worker.features.extractor import FeatureExtractor, region_portions
from maskscore_worker.features.prompt_features import PromptFeatureCache
from maskscore_worker.features.prompt_sets import resolve_prompt_set

__all__ = [
    "FeatureCache",
    "FeatureExtractor",
    "PromptFeatureCache",
    "open_feature_cache",
    "region_portions",
    "resolve_prompt_set",
]
