"""Folders of weights: the names of their files, and fetching one from the Hugging Face hub. Nothing loads PyTorch here.

``download``, which needs the hub's library, is found by its entry point alone (``maskscore weights pull``).
"""

from __future__ import annotations

from maskscore_worker.weights.folder import CONFIG_FILE, digest_of, weights_file

__all__ = ["CONFIG_FILE", "digest_of", "weights_file"]
