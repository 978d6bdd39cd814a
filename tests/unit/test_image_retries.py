"""Shards of failed images of tar files: their names, their numbers, and the version of the tar."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from maskscore.dataset.image_retries import FailedImage, retry_shards_of_tars
from maskscore.schema import Shard, TarSource
from maskscore.storage import Objects
from shard_tars import write_tar


def test_failed_images_of_a_tar_are_members_of_numbered_shards(objects: Objects, tmp_path: Path) -> None:
    uris = {name: write_tar(tmp_path / f"{name}.tar", []).as_uri() for name in ("a #1", "b")}
    etags = {name: objects.etag(uri, what="image") for name, uri in uris.items()}

    def shard_of(source: TarSource, name: str) -> Shard:
        return Shard(source=source, name=name, output_uri="s3://scores/")

    def images(tar: str, *names: str, etag: str = "") -> list[FailedImage]:
        found = [f"{uris[tar]}!/{quote(name)}" for name in names]
        return [FailedImage(n, uri, None, etag or etags[tar]) for n, uri in enumerate(found)]

    many = [f"x/{n} %.jpg" for n in range(1500)]
    lonely = FailedImage(7, None, f"{uris['b']}!/lonely.json", etags["b"])
    damage = FailedImage(8, None, None, etags["b"])
    failed = [
        (shard_of(TarSource(uri=uris["a #1"]), "a_1"), images("a #1", *many)),
        (shard_of(TarSource(uri=uris["b"], etag='"1"'), "b"), [*images("b", "b.jpg", etag='"1"'), lonely, damage]),
        (shard_of(TarSource(uri=uris["b"], etag='"2"'), "b.retry-00009"), images("b", "c.jpg", etag='"2"')),
        (shard_of(TarSource(uri="file:///gone.tar"), "gone"), [damage]),
    ]
    said: list[str] = []
    earlier = ["a_1.retry-00000", "b.retry-00009", "b.retry-00010"]
    made = list(retry_shards_of_tars(failed, earlier, said.append, objects=objects, shard_of=shard_of))
    sources = {shard.name: shard.source for shard in made}
    assert list(sources) == ["a_1.retry-00001", "a_1.retry-00002", "b.retry-00011"]
    first, second, of_b = (source for source in sources.values() if isinstance(source, TarSource))
    assert ([*(first.members or []), *(second.members or [])], first.etag) == (many, None)
    assert (of_b.members, of_b.uri, of_b.etag) == (["b.jpg", "lonely.json", "c.jpg"], uris["b"], etags["b"])
    assert [sentence.partition(" was replaced")[0] for sentence in said] == [uris["b"]]
