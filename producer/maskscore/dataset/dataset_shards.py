"""A dataset as shards: one of each tar file, or one of each list of its pairs."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pydantic import ValidationError

from maskscore.dataset.image_retries import Failed, retry_shards_of_lists, retry_shards_of_tars
from maskscore.dataset.job_maker import JobMaker
from maskscore.dataset.open_dataset import Dataset
from maskscore.dataset.pair_list_shards import PAIRS_PER_LIST, PairListShards
from maskscore.dataset.pairing_counts import PairingCounts
from maskscore.dataset.result_counts import FailureCounts
from maskscore.dataset.run_options import RunOptions, default_batch_id, slug_of
from maskscore.dataset.tar_files import find_tars, is_tar, tar_stem
from maskscore.errors import InvalidDocumentError
from maskscore.results import RETRY, retry_number
from maskscore.schema import PairsSource, Shard, TarSource, explain
from maskscore.storage import Objects

__all__ = ["OpenShards", "open_shards", "shards", "shards_identity"]

_FOLDERS: Final = ("masks", "images", "lists")


@dataclass(frozen=True, slots=True)
class OpenShards:
    """The shards of a dataset; ``shards`` can be iterated once, and writes lists meanwhile.

    ``names`` matches the names of the shards. The counts are those of a dataset without tar files: of its files, of
    images whose masks cannot be read here, by code, and of masks that cannot be read of other images. ``categories``
    are those of a dataset file of COCO's kinds, as it has them. ``retried`` makes shards of failed images, given the
    names of those that did before: see :mod:`maskscore.dataset.image_retries`.
    """

    shards: Iterable[Shard]
    names: re.Pattern[str]
    retried: Callable[[Failed, Collection[str], Callable[[str], None]], Iterator[Shard]]
    pairing_counts: PairingCounts | None = None
    refused: dict[str, FailureCounts] = field(default_factory=dict)
    left_out: FailureCounts = field(default_factory=FailureCounts)
    categories: Iterable[Any] = ()


@contextmanager
def open_shards(
    dataset: Dataset,
    output_uri: str,
    objects: Objects,
    run_options: RunOptions,
    *,
    batch_id: str,
    pairs_per_list: int = PAIRS_PER_LIST,
    known: Iterable[Shard] = (),
    limit: int | None = None,
    seen: Callable[[int], None] | None = None,
) -> Iterator[OpenShards]:
    """List a dataset, and yield its shards; parameters and errors are those of :func:`shards`."""
    shard_of = partial(_shard, dataset, output_uri, run_options, batch_id)
    known = list(known)
    if is_tar(dataset.images):
        tars = _by_name(find_tars(dataset.images, objects))
        _check_apart(output_uri, {tar.uri.rpartition("/")[0] + "/" for tar in tars.values()}, around=False)
        names = re.compile(rf"({'|'.join(map(re.escape, tars))})({re.escape(RETRY)}\d{{5,}})?")
        found = (
            (shard_of(tar, name) for name, tar in tars.items())
            if run_options.upload is None
            else _uploaded(tars, shard_of, run_options.upload, objects, known)
        )
        again = (shard for shard in known if retry_number(shard.name) is not None)
        yield OpenShards(chain(found, again), names, partial(retry_shards_of_tars, objects=objects, shard_of=shard_of))
        return
    places = dataset.identity(objects)
    roots = [f"{places[name].rstrip('/')}/" for name in ("images", "masks") if name in places]
    _check_apart(output_uri, roots, around=True)
    with dataset.opened(objects, limit=limit, seen=seen) as opened:
        # The lists have images and masks only; all else is the shards'.
        own = {name: value for name, value in run_options.fields.items() if name == "orientation"}
        of_pairs = replace(run_options, fields=own, content_id=False)
        maker = JobMaker(opened.images, opened.masks, objects, batch_id, of_pairs, dataset.format)
        name = slug_of(opened.images.uri)
        lists = PairListShards(
            opened.pairing, maker, output_uri, shard_of, name=name, pairs_per_list=pairs_per_list, known=known
        )
        names = re.compile(rf"{re.escape(name)}(-|{re.escape(RETRY)})\d{{5,}}")
        pairing = opened.pairing
        retried = partial(
            retry_shards_of_lists,
            name=name,
            output_uri=output_uri,
            objects=objects,
            shard_of=shard_of,
            pairs_per_list=pairs_per_list,
        )
        yield OpenShards(lists, names, retried, pairing.counts, lists.refused, lists.left_out, pairing.categories())


def shards(
    dataset: Dataset | str,
    output_uri: str,
    objects: Objects,
    run_options: RunOptions | None = None,
    *,
    batch_id: str | None = None,
    pairs_per_list: int = PAIRS_PER_LIST,
    known: Iterable[Shard] = (),
) -> Iterator[Shard]:
    """Yield a shard of each tar file of a dataset, or of each list of its pairs, which is written before.

    Parameters
    ----------
    dataset: images and their masks; or, as ``images``, tar files (a path or ``s3://bucket/path/*.tar``).
    output_uri: ``s3://bucket/prefix/`` or ``file:///folder/`` of the parts; the lists are written beside them, as
        ``lists/NAME-00000.jsonl``.
    objects: reads and writes them, as :attr:`maskscore.Client.objects` does.
    run_options: how the images are scored. Local files are uploaded with ``upload``; ``content_id`` is ignored.
    batch_id: the batch of the shards, which is a part of their ids; derived from the rest where it is not given.
    pairs_per_list: a list has so many pairs, or fewer where they take 64 MiB.
    known: shards that were yielded before. Those of lists are yielded first, and further lists have only pairs that are
        not in theirs; tar files that were uploaded are not uploaded again.

    The same call yields the same shards. Warns of images and masks that cannot be read here, which no list has. Raises
    :class:`~maskscore.errors.InvalidDocumentError` where there are no tar files or no pairs, two tar files have the
    same name, or the output is within the dataset; :class:`~maskscore.errors.JobError` where a store cannot be read or
    written.
    """
    dataset = Dataset(dataset) if isinstance(dataset, str) else dataset
    run_options = run_options or RunOptions()
    batch_id = batch_id or default_batch_id(run_options.fingerprint(shards_identity(dataset, output_uri, objects)))
    with open_shards(
        dataset, output_uri, objects, run_options, batch_id=batch_id, pairs_per_list=pairs_per_list, known=known
    ) as opened:
        yield from opened.shards
    for counts in [*opened.refused.values(), opened.left_out]:
        for name, message in counts.examples:
            warnings.warn(f"{name} is left out ({counts.count:,} in all): {message}", stacklevel=2)


def shards_identity(dataset: Dataset, output_uri: str, objects: Objects) -> dict[str, Any]:
    """Return what makes shards those of this dataset and output."""
    if is_tar(dataset.images):
        return {"images": dataset.images, "output": output_uri, "format": dataset.format}
    return {**dataset.identity(objects), "output": output_uri}


def _shard(
    dataset: Dataset,
    output_uri: str,
    run_options: RunOptions,
    batch_id: str,
    source: TarSource | PairsSource,
    name: str,
) -> Shard:
    plain = f"{batch_id}-{name}"
    document = {
        "shard_id": plain if len(plain) <= 128 else f"shard-{hashlib.sha256(plain.encode()).hexdigest()[:40]}",
        "batch_id": batch_id,
        "source": source,
        "name": name,
        "output_uri": output_uri,
        "options": run_options.options,
        # Pairs have theirs in their list.
        "masks_format": dataset.format if isinstance(source, TarSource) else None,
        **{field: value for field, value in run_options.fields.items() if field != "result_uri"},
    }
    try:
        return Shard.model_validate(document)
    except ValidationError as error:
        raise InvalidDocumentError(f"{source.uri}: the shard is not valid: {explain(error)}.") from error


def _by_name(tars: Iterable[TarSource]) -> dict[str, TarSource]:
    names: dict[str, TarSource] = {}
    for tar in tars:
        name = re.sub(r"[^A-Za-z0-9._-]", "_", tar_stem(tar.uri)).lstrip("._-")[:200] or "tar"
        if name in names:
            raise InvalidDocumentError(
                f"{names[name].uri} and {tar.uri} have the same name, {name}, by which their parts are called. Run "
                "them into different outputs."
            )
        names[name] = tar
    return names


def _uploaded(
    tars: dict[str, TarSource],
    shard_of: Callable[[TarSource, str], Shard],
    upload: str,
    objects: Objects,
    known: Iterable[Shard],
) -> Iterator[Shard]:
    before = {shard.name: shard for shard in known}
    for name, tar in tars.items():
        if name in before:
            yield before[name]
            continue
        if tar.uri.startswith("file:"):
            path = Path(url2pathname(urlsplit(tar.uri).path))
            uri = f"{upload}{path.name}"
            objects.upload(uri, path, content_type="application/x-tar")
            tar = TarSource(uri=uri, etag=objects.etag(uri, what="image"))
        yield shard_of(tar, name)


def _check_apart(output_uri: str, roots: Iterable[str], *, around: bool) -> None:
    """Raise where parts would lie among the files of the dataset: below it, or in one folder with it."""
    for root in roots:
        for folder in _FOLDERS:
            place = f"{output_uri}{folder}/"
            if root.startswith(place) or (around and place.startswith(root)):
                raise InvalidDocumentError(
                    f"The output {output_uri} is not apart from the dataset: {place} would be "
                    f"{'within' if place.startswith(root) else 'around'} {root}. Choose another output."
                )
