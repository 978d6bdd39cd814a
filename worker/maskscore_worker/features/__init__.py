"""Features of crops and of prompts, computed or taken from the cache."""

from __future__ import annotations

from maskscore_worker.features.cache import (
    FeatureCache,
    open_feature_cache,
)
from maskscore_worker.features.extractor import (
    ViewedFeatures,
)
from maskscore_worker.features.prompt_features import (
    PromptFeatureCache,
)
from maskscore_worker.features.prompt_sets import (
    resolve_prompt_set,
)
from maskscore_worker.features.reuse import (
    features_identity,
)

__all__ = [
    "FeatureCache",
    "PromptFeatureCache",
    "ViewedFeatures",
    "features_identity",
    "open_feature_cache",
    "resolve_prompt_set",
]
