"""URLs by which Label Studio's page, in a person's browser, loads the images of a review."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from maskscore.errors import InvalidDocumentError, JobError
from maskscore.schema import ImageInfo
from maskscore.storage import Objects, object_path

__all__ = ["ImageUnavailable", "ImageUrls", "open_image_urls"]


class ImageUnavailable(Exception):  # noqa: N818 - caught at once, and told in a sentence
    """An image cannot be shown: it is gone, or not the one that was scored. ``str(error)`` is a sentence."""


@dataclass(frozen=True, slots=True)
class ImageUrls:
    """Makes the URLs.

    ``s3_uris`` leaves ``s3://`` URIs as they are, for a project in Label Studio whose own cloud storage signs them;
    otherwise they become URLs that are valid for ``expires_s`` seconds. Files become Label Studio's local-files URLs,
    with paths below ``document_root`` (its ``LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT``).
    """

    objects: Objects
    document_root: Path
    expires_s: int
    s3_uris: bool

    def url_of(self, image: ImageInfo) -> str:
        """Return the image's URL, after a look at whether it is there.

        Raises :class:`ImageUnavailable`; :class:`~maskscore.errors.InvalidDocumentError` for a file that is not below
        the document root; and :class:`~maskscore.errors.JobError` (transient) where a store does not answer.
        """
        try:
            found = self.objects.etag(image.uri, what="image", version_id=image.version_id)
            if image.etag is not None and found.strip('"') != image.etag.strip('"'):
                raise ImageUnavailable(f"{image.uri} is not the image any more that was scored.")
            if image.uri.startswith("file:"):
                return self._local(image.uri)
            if self.s3_uris:
                return image.uri
            return self.objects.presigned_url(image.uri, expires_s=self.expires_s, version_id=image.version_id)
        except JobError as error:
            if error.input_may_be_fine:
                raise
            raise ImageUnavailable(str(error)) from error

    def _local(self, uri: str) -> str:
        path = Path(os.path.normpath(f"/{object_path(uri)}"))
        try:
            below = path.relative_to(os.path.normpath(self.document_root.absolute()))
        except ValueError:
            raise InvalidDocumentError(
                f"{unquote(uri)} is not below {self.document_root}, from which Label Studio serves local files. Give "
                "--document-root as its LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT."
            ) from None
        return f"/data/local-files/?d={quote(str(below))}"


@contextmanager
def open_image_urls(*, document_root: Path, expires_s: int, s3_uris: bool) -> Iterator[ImageUrls]:
    """Provide an :class:`ImageUrls` that reads with this process's own access to files and buckets."""
    objects = Objects(buckets=None, result_buckets=(), file_roots=[Path("/")])
    try:
        yield ImageUrls(objects, document_root, expires_s, s3_uris)
    finally:
        objects.close()
