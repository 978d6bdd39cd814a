"""Fetches a model's weights, configuration and tokenizer from the Hugging Face hub."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from huggingface_hub import HfFileMetadata, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # documented, not re-exported

from maskscore.errors import WeightsError
from maskscore_worker.weights.folder import (
    CONFIG_FILE,
    PICKLED,
    SAFETENSORS,
    TOKENIZER_SETTINGS,
    VOCABULARIES,
    digest_of,
)
from maskscore_worker.weights.pretrained import Pretrained, find_pretrained, open_clip_config

__all__ = ["DEFAULT_MODEL", "Pulled", "pull"]

DEFAULT_MODEL: Final = "ViT-B-32:laion2b_s34b_b79k"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")
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


@dataclass(frozen=True, slots=True)
class Pulled:
    """What was fetched: the weights' digest (``sha256:…``), and open_clip's row of them where they were named by it."""

    digest: str
    row: Pretrained | None


def pull(folder: Path, *, model: str | None = None, repo: str | None = None, revision: str | None = None) -> Pulled:
    """Fetch a model's weights, configuration and, where it has one of its own, tokenizer into ``folder``.

    ``model`` is ``ARCHITECTURE[:TAG]`` of open_clip's table, whose preprocessing goes into the configuration; ``repo``
    is any open_clip repository on the hub, taken as it is. :data:`DEFAULT_MODEL` where neither is given.

    Progress is shown by huggingface_hub's own bars, on stderr. All files of a repository are of one commit. A download
    that was cut off goes on where it stopped when this is called again; what is there already is not fetched again. The
    digest is compared with the hub's before a file gets its name. Raises :class:`~maskscore.errors.WeightsError` when
    there is no such model, when the hub cannot be reached, has no such file or names no SHA-256 of the weights, when a
    digest differs, or when the folder cannot be written to.
    """
    row = find_pretrained(model or DEFAULT_MODEL) if repo is None else None
    source = repo or (row.hub if row else "")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if row is None:
            digest = _Pull(folder, source, revision).repository()
        else:
            digest = _pull_row(folder, row, open_clip_config(row), revision)
    except WeightsError:
        raise
    # The library's HTTP client, and with it the errors, differ between its releases.
    except Exception as error:
        if isinstance(error, EntryNotFoundError | RepositoryNotFoundError) and not _unreachable(error):
            raise WeightsError(f"{source} on the hub is not an open_clip model: {_first_line(error)}") from error
        if isinstance(error, OSError) and error.errno in _DISK:
            raise WeightsError(f"{folder} cannot be written to: {_first_line(error)}") from error
        raise WeightsError(
            f"The hub ({os.environ.get('HF_ENDPOINT', 'Hugging Face')}) could not be reached, or refused: "
            f"{_first_line(error)} Run the command again to go on where it stopped, or set HF_ENDPOINT to a mirror; "
            f"where there is no network, copy {CONFIG_FILE} and {SAFETENSORS} of {source} into {folder} from a machine "
            "that has one."
        ) from error
    return Pulled(digest, row)


def _pull_row(folder: Path, row: Pretrained, config: Mapping[str, Any], revision: str | None) -> str:
    owner, name, *file = row.hub.split("/")
    pulling = _Pull(folder, f"{owner}/{name}", revision)
    weights = pulling.weights(file[0] if file and file[0] else PICKLED)
    pulling.tokenizer(config)
    digest = pulling.fetch(weights)
    # Last: beside other weights of the same architecture it would be believed, with another mean or activation.
    part = folder / f".{CONFIG_FILE}.part"
    part.write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    part.replace(folder / CONFIG_FILE)
    return digest


@dataclass(frozen=True, slots=True)
class _File:
    """A file of a repository, and the name that it gets in the folder."""

    name: str
    save_as: str
    url: str
    metadata: HfFileMetadata


class _Pull:
    """Fetches the files of one repository at one commit."""

    def __init__(self, folder: Path, repo: str, revision: str | None) -> None:
        self._folder = folder
        self._repo = repo
        self._revision = revision

    def repository(self) -> str:
        """Fetch an open_clip repository with its own configuration; return the weights' digest."""
        configuration = self.find(CONFIG_FILE, f".{CONFIG_FILE}.part")
        weights = self.weights(PICKLED)
        path, part = self._folder / CONFIG_FILE, self._folder / configuration.save_as
        try:
            if not _has_digest(path, configuration.metadata.etag or ""):
                self.fetch(configuration)
            try:
                config = json.loads((part if part.exists() else path).read_text("utf-8"))
            except ValueError as error:
                raise WeightsError(f"{CONFIG_FILE} of {self._repo} is no JSON: {error}.") from error
            self.tokenizer(config)
            digest = self.fetch(weights)
            if part.exists():
                part.replace(path)  # last, as in `_pull_row`
        finally:
            part.unlink(missing_ok=True)
        return digest

    def find(self, name: str, save_as: str | None = None) -> _File:
        """Ask the hub for a file; the first answer says which commit the rest are taken of."""
        url = hf_hub_url(self._repo, name, revision=self._revision)
        metadata = get_hf_file_metadata(url)
        self._revision = metadata.commit_hash or self._revision
        return _File(name, save_as or name, url, metadata)

    def weights(self, pickled: str) -> _File:
        """Find the weights, as safetensors first, under the names that open_clip looks for; fetch nothing yet."""
        safetensors = SAFETENSORS if pickled == PICKLED else f"{Path(pickled).stem}.safetensors"
        try:
            found = self.find(safetensors, SAFETENSORS)
        except EntryNotFoundError as error:
            if _unreachable(error):
                raise
            found = self.find(pickled, PICKLED)
        if not _SHA256.fullmatch(found.metadata.etag or ""):
            raise WeightsError(
                f"The hub names no SHA-256 for {found.name} of {self._repo}, so it could not be checked; nothing was "
                "fetched."
            )
        if found.save_as == PICKLED and (self._folder / SAFETENSORS).exists():
            raise WeightsError(
                f"{self._repo} holds {found.name} only, but {self._folder} has a {SAFETENSORS}, which would be read in "
                "its place. Pull into another folder."
            )
        return found

    def tokenizer(self, config: Mapping[str, Any]) -> None:
        """Fetch the tokenizer's files where the configuration names a tokenizer: the model's own, else that one's."""
        model = config.get("model_cfg")
        text = model.get("text_cfg") if isinstance(model, dict) else None
        name = text.get("hf_tokenizer_name") if isinstance(text, dict) else None
        if not name:
            return
        for pulling in (self, _Pull(self._folder, str(name), None)):
            # The first of these holds all that is needed.
            vocabulary = next((file for file in map(pulling._found, VOCABULARIES) if file is not None), None)
            if vocabulary is not None:
                for file in (vocabulary, *map(pulling._found, TOKENIZER_SETTINGS)):
                    if file is not None:
                        pulling.fetch(file)
                return
        raise WeightsError(f"Neither {self._repo} nor {name} on the hub holds a tokenizer ({', '.join(VOCABULARIES)}).")

    def _found(self, name: str) -> _File | None:
        try:
            return self.find(name)
        except (EntryNotFoundError, RepositoryNotFoundError) as error:
            if _unreachable(error):
                raise
            return None

    def fetch(self, file: _File) -> str:
        """Fetch a file unless it is there, check it, and return its digest: ``sha256:…``, or Git's of a small file."""
        target = self._folder / file.save_as
        expected = file.metadata.etag or ""
        if not _SHA256.fullmatch(expected) and not _SHA1.fullmatch(expected):
            # Some mirrors name no digest of small files: their length alone is checked then.
            part = self._folder / f".{file.save_as}.part"
            part.unlink(missing_ok=True)
            _download(file, part).replace(target)
            return ""
        if _has_digest(target, expected):
            return _shown(expected)
        part = self._folder / f".{file.save_as}.{expected}.part"
        digest = _hub_digest(_download(file, part), expected)
        if digest != expected:
            part.unlink()
            raise WeightsError(
                f"What the hub sent as {file.name} has the digest {_shown(digest)}, but the hub names "
                f"{_shown(expected)}; it was not kept. Pull again."
            )
        part.replace(target)
        for abandoned in self._folder.glob(f".{file.save_as}.*.part"):
            abandoned.unlink()
        return _shown(digest)


def _has_digest(path: Path, expected: str) -> bool:
    return bool(expected) and path.is_file() and _hub_digest(path, expected) == expected


def _hub_digest(path: Path, like: str) -> str:
    """Return a file's digest as the hub names it: SHA-256 of a large file, of a small one Git's SHA-1 of a blob."""
    if len(like) == 64:
        return digest_of(path).removeprefix("sha256:")
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _shown(digest: str) -> str:
    return f"{'sha256' if len(digest) == 64 else 'git'}:{digest}"


def _download(file: _File, part: Path) -> Path:
    """Fetch one file into ``part``, going on with what an earlier call left there.

    ``hf_hub_download`` begins anew after it was cut off, so the library's transfer alone is used. As there, the
    user's token is sent to the hub itself, never to where it redirects.
    """
    metadata = file.metadata
    at_the_hub = urlsplit(metadata.location)[:2] == urlsplit(file.url)[:2]
    part.touch()
    with part.open("r+b") as stream:
        there = stream.seek(0, os.SEEK_END)
        if metadata.size is None or there > metadata.size:
            there = stream.seek(0)
            stream.truncate()
        http_get(
            metadata.location,
            stream,
            resume_size=there,
            expected_size=metadata.size,
            headers=build_hf_headers() if at_the_hub else None,
            displayed_filename=file.name,
        )
    return part


def _unreachable(error: Exception) -> bool:
    # A kind of EntryNotFoundError: not there, and not fetched either.
    return isinstance(error, LocalEntryNotFoundError)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".") + "."
