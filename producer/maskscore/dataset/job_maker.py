"""Builds the job of an image and its masks."""

from __future__ import annotations

import hashlib
import io
import mimetypes
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from maskscore.client import image_size
from maskscore.dataset.local_masks import LocalMasks, read_local_masks, usable_masks
from maskscore.dataset.mask_folders import read_folder, read_pictures
from maskscore.dataset.pairing import Pair
from maskscore.dataset.run_options import RunOptions
from maskscore.dataset.storage_roots import StorageRoot
from maskscore.errors import InvalidDocumentError, JobError, MaskscoreError
from maskscore.formats import VOS
from maskscore.schema import Job, explain
from maskscore.storage import ObjectRole, Objects

__all__ = ["JobMaker", "MadeJob"]


@dataclass(frozen=True, slots=True)
class MadeJob:
    """A job, and a sentence for each masks entry that was left out (only of masks that are read here)."""

    job: Job
    left_out: list[str]


@dataclass(frozen=True, slots=True)
class JobMaker:
    """Builds jobs; the same input always gives the same job.

    Parameters
    ----------
    images, masks: where the files are; ``masks`` is the dataset file's path, or ``None`` where they lie together.
    objects: reads what goes inline, and writes what is uploaded.
    batch_id: a part of each job's id, with the image's URI.
    run_options: the options of every job; with ``content_id``, jobs carry the ETags of the listing.
    format: the layout of the masks files, where their content does not say.
    """

    images: StorageRoot
    masks: StorageRoot | Path | None
    objects: Objects
    batch_id: str
    run_options: RunOptions = field(default_factory=RunOptions)
    format: str | None = None

    def job_id(self, pair: Pair) -> str:
        """Return the id of a pair's job: that of the same image in the same batch is the same."""
        parts = [self.batch_id, self.images.uri_of(pair.image)]
        if pair.inline is not None and pair.inline.image_id is not None:
            parts.append(str(pair.inline.image_id))
        return f"run-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:40]}"

    def reads(self, pair: Pair) -> bool:
        """Say whether making the pair's job reads or writes files, so that it is worth a thread."""
        if pair.inline is not None:
            return self.run_options.upload is not None
        return pair.folder or self.run_options.upload is not None or self._masks_root.local is not self.images.local

    def make_or_refuse(self, pair: Pair) -> MadeJob | MaskscoreError:
        """Return the pair's job, with its files uploaded where that is asked, or why it has none.

        Raises :class:`~maskscore.errors.JobError` for what concerns every image: of the store, or of the place for
        uploads.
        """
        try:
            made = self.make(pair)
            self.upload(pair)
        except MaskscoreError as error:
            if isinstance(error, JobError) and (error.input_may_be_fine or error.about.stops_run == "at once"):
                raise
            return error
        return made

    def make(self, pair: Pair) -> MadeJob:
        """Return the pair's job, with its masks read where they go inline.

        Raises :class:`~maskscore.errors.MaskscoreError` for masks that cannot be read, such as
        :class:`~maskscore.errors.NothingToScore` where every entry would be left out.
        """
        rest = dict(self.run_options.fields)
        image: dict[str, Any] = {"uri": self.image_uri(pair), "orientation": rest.pop("orientation", "auto")}
        if self.run_options.content_id and self.run_options.upload is None and pair.etag is not None:
            image["etag"] = pair.etag
        masks = self._masks(pair)
        document = {
            "job_id": self.job_id(pair),
            "batch_id": self.batch_id,
            "image": image,
            "masks": masks.masks if isinstance(masks, LocalMasks) else masks,
            "options": self.run_options.options,
            **rest,
        }
        try:
            return MadeJob(Job.model_validate(document), masks.left_out if isinstance(masks, LocalMasks) else [])
        except ValidationError as error:
            raise InvalidDocumentError(f"{pair.image}: the job is not valid: {explain(error)}.") from error

    def image_uri(self, pair: Pair) -> str:
        """Return where workers read the image."""
        if self.run_options.upload is None or not self.images.local:
            return self.images.uri_of(pair.image)
        return self._uploaded(pair.image, "images/")

    def upload(self, pair: Pair) -> None:
        """Upload the pair's files, where that is asked, to where its job says that they are."""
        if self.run_options.upload is None:
            return
        if self.images.local:
            self._put(self.images, pair.image, self.image_uri(pair), "image")
        if self._masks_are_uploaded(pair):
            assert pair.masks is not None
            self._put(self._masks_root, pair.masks, self._uploaded(pair.masks, "masks/"), "masks")

    def _masks_are_uploaded(self, pair: Pair) -> bool:
        in_a_file = pair.inline is None and not pair.folder
        return self.run_options.upload is not None and in_a_file and self._masks_root.local

    def _masks(self, pair: Pair) -> LocalMasks | dict[str, Any]:
        """Return the masks, or where they are."""
        if pair.inline is not None:
            return usable_masks(pair.inline.masks, pair.image)
        root = self._masks_root
        assert pair.masks is not None
        if pair.pictures:
            return usable_masks(read_pictures(root, pair.pictures, self.format), pair.pictures[0])
        if pair.folder:
            return usable_masks(read_folder(root, pair.masks, self.format), pair.masks)
        if root.local and not (self.images.local or self.run_options.upload):
            return self._read_here(root, pair)
        uri = self._uploaded(pair.masks, "masks/") if self._masks_are_uploaded(pair) else root.uri_of(pair.masks)
        pinned = self.run_options.content_id and pair.masks_etag is not None and uri == root.uri_of(pair.masks)
        # A folder's format says nothing of a file, but that a frame's picture is a label map.
        format_ = "png-labels" if self.format == VOS.name else self.format
        return {"uri": uri, "format": format_, "etag": pair.masks_etag if pinned else None}

    def _read_here(self, root: StorageRoot, pair: Pair) -> LocalMasks:
        """Read the masks of an image that lies elsewhere: no worker can be counted on to see this machine's files."""
        assert pair.masks is not None

        def size() -> tuple[int, int] | None:
            orientation = self.run_options.fields.get("orientation", "auto")
            return image_size(io.BytesIO(self.images.read(pair.image, "image")), orientation)

        data = root.read(pair.masks, "masks")
        read = read_local_masks(data, pair.masks, image_name=pair.image, format=self.format, size=size)
        for doubt in read.doubts:
            warnings.warn(f"{pair.masks}: {doubt}", stacklevel=2)
        return read

    @property
    def _masks_root(self) -> StorageRoot:
        assert not isinstance(self.masks, Path)
        return self.images if self.masks is None else self.masks

    def _uploaded(self, name: str, below: str) -> str:
        return f"{self.run_options.upload}{'' if self.masks is None else below}{name}"

    def _put(self, root: StorageRoot, name: str, uri: str, what: ObjectRole) -> None:
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        self.objects.write(uri, root.read(name, what), content_type=kind)
