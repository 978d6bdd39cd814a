"""Fetches a model's weights and configuration from the Hugging Face hub."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from huggingface_hub import HfFileMetadata, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # documented, not re-exported

from maskscore.errors import WeightsError
from maskscore_worker.weights.folder import CONFIG_FILE, PICKLED, SAFETENSORS, digest_of

__all__ = ["DEFAULT_REPO", "pull"]

DEFAULT_REPO = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Faults of the disk among the OSErrors, most of which are the network's.
_DISK = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EFBIG,
    errno.EIO,
    errno.EISDIR,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}


def pull(folder: Path, *, repo: str | None = None, revision: str | None = None) -> str:
    """Fetch a model's weights and configuration into ``folder`` and return the weights' digest (``sha256:…``).

    ``repo`` is a repository on the hub; :data:`DEFAULT_REPO` where it is ``None``.

    Progress is shown by huggingface_hub's own bars, on stderr. Both files are of one commit. A download that was cut
    off goes on where it stopped when this is called again; weights that are there already are not fetched again. The
    digest is compared with the hub's before the file gets its name. Raises :class:`~maskscore.errors.WeightsError` when
    the hub cannot be reached, has no such file or names no SHA-256 for it, when the digest differs, or when the folder
    cannot be written to.
    """
    repo = repo or DEFAULT_REPO
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _pull(folder, repo, revision)
    except WeightsError:
        raise
    # The library's HTTP client, and with it the errors, differ between its releases.
    except Exception as error:
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            raise WeightsError(f"{repo} on the hub is not an open_clip model: {_first_line(error)}") from error
        if isinstance(error, OSError) and error.errno in _DISK:
            raise WeightsError(f"{folder} cannot be written to: {_first_line(error)}") from error
        raise WeightsError(
            f"The hub ({os.environ.get('HF_ENDPOINT', 'Hugging Face')}) could not be reached, or refused: "
            f"{_first_line(error)} Run the command again to go on where it stopped, or set HF_ENDPOINT to a mirror; "
            f"where there is no network, copy {CONFIG_FILE} and {SAFETENSORS} of {repo} into {folder} from a machine "
            "that has one."
        ) from error


def _pull(folder: Path, repo: str, revision: str | None) -> str:
    config = hf_hub_url(repo, CONFIG_FILE, revision=revision)
    config_metadata = get_hf_file_metadata(config)
    commit = config_metadata.commit_hash or revision
    name, url, metadata = _weights_of(repo, commit)
    if not _SHA256.fullmatch(metadata.etag or ""):
        raise WeightsError(
            f"The hub names no SHA-256 for {name} of {repo}, so it could not be checked; nothing was fetched."
        )
    if name == PICKLED and (folder / SAFETENSORS).exists():
        raise WeightsError(
            f"{repo} holds {name} only, but {folder} has a {SAFETENSORS}, which would be read in its place. "
            "Pull into another folder."
        )
    part = folder / f".{CONFIG_FILE}.part"
    part.unlink(missing_ok=True)  # its name says nothing of its contents, unlike that of the weights below
    _download(config, config_metadata, part, CONFIG_FILE).replace(folder / CONFIG_FILE)
    expected = f"sha256:{metadata.etag}"
    if (folder / name).is_file() and digest_of(folder / name) == expected:
        return expected
    part = folder / f".{name}.{metadata.etag}.part"
    digest = digest_of(_download(url, metadata, part, name))
    if digest != expected:
        part.unlink()
        raise WeightsError(
            f"What the hub sent as {name} has the digest {digest}, but the hub names {expected}; it was not kept. "
            "Pull again."
        )
    part.replace(folder / name)
    for abandoned in folder.glob(f".{name}.*.part"):
        abandoned.unlink()
    return digest


def _weights_of(repo: str, commit: str | None) -> tuple[str, str, HfFileMetadata]:
    url = hf_hub_url(repo, SAFETENSORS, revision=commit)
    try:
        return SAFETENSORS, url, get_hf_file_metadata(url)
    except LocalEntryNotFoundError:
        raise
    except EntryNotFoundError:
        url = hf_hub_url(repo, PICKLED, revision=commit)
        return PICKLED, url, get_hf_file_metadata(url)


def _download(url: str, metadata: HfFileMetadata, part: Path, shown: str) -> Path:
    """Fetch one file into ``part``, going on with what an earlier call left there.

    ``hf_hub_download`` begins anew after it was cut off, so the library's transfer alone is used. As there, the
    user's token is sent to the hub itself, never to where it redirects.
    """
    at_the_hub = urlsplit(metadata.location)[:2] == urlsplit(url)[:2]
    part.touch()
    with part.open("r+b") as file:
        there = file.seek(0, os.SEEK_END)
        if metadata.size is None or there > metadata.size:
            there = file.seek(0)
            file.truncate()
        http_get(
            metadata.location,
            file,
            resume_size=there,
            expected_size=metadata.size,
            headers=build_hf_headers() if at_the_hub else None,
            displayed_filename=shown,
        )
    return part


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".") + "."
