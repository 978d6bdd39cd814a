"""Output files keep links, modes, FIFOs and devices as they are, and a failure leaves the earlier file."""

from __future__ import annotations

import os
import stat
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from maskscore.errors import OutputError
from maskscore.storage.output import check_output, output_file, write_text


def test_a_link_stays_a_link_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    real = tmp_path / "sub" / "real.jsonl"
    real.write_text("old")
    for link, target in (("one", "sub/real.jsonl"), ("two", "one"), ("dangling", "sub/new.jsonl")):
        (tmp_path / link).symlink_to(target)
    write_text(tmp_path / "two", "new")
    write_text(tmp_path / "dangling", "made")
    assert (tmp_path / "two").is_symlink()
    assert (tmp_path / "dangling").is_symlink()
    assert real.read_text() == "new"
    assert (tmp_path / "sub" / "new.jsonl").read_text() == "made"
    assert sorted(path.name for path in (tmp_path / "sub").iterdir()) == ["new.jsonl", "real.jsonl"]
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OutputError, match="loop cannot be written"):
        write_text(tmp_path / "loop", "x")


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o755])
def test_an_existing_file_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("old")
    file.chmod(mode)
    write_text(file, "new")
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("new", mode)


def test_a_fifo_is_written_into(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_text()))
    reader.start()
    write_text(fifo, "lines")
    reader.join()
    assert read == ["lines"]
    assert stat.S_ISFIFO(fifo.lstat().st_mode)
    assert list(tmp_path.iterdir()) == [fifo]


def test_a_name_of_an_open_pipe_is_written_into(tmp_path: Path) -> None:
    """``-o /dev/stdout`` in a pipeline."""
    reading, writing = os.pipe()
    link = tmp_path / "stdout"
    link.symlink_to(f"/dev/fd/{writing}")
    write_text(link, "lines")
    os.close(writing)
    with os.fdopen(reading) as lines:
        assert lines.read() == "lines"
    assert link.is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_a_device_is_written_into_and_a_disk_refused(tmp_path: Path) -> None:
    null, disk = tmp_path / "null", tmp_path / "disk"
    try:
        os.mknod(null, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        os.mknod(disk, 0o600 | stat.S_IFBLK, os.makedev(7, 250))
    except PermissionError:
        pytest.skip("not allowed here")
    with pytest.raises(OutputError, match="is a disk"):
        write_text(disk, "x")
    assert stat.S_ISCHR(null.lstat().st_mode)
    # Of a file system that allows no devices; it is what it was all the same.
    with suppress(OutputError):
        write_text(null, "x")
    assert stat.S_ISCHR(null.lstat().st_mode)


def test_what_fails_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("old")
    with suppress(ZeroDivisionError), output_file(file) as path:
        path.write_text("half")
        _ = 1 / 0
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_what_cannot_be_is_said_before_the_work(tmp_path: Path) -> None:
    file = tmp_path / "a.html"
    check_output(file, named=False)
    file.touch()
    check_output(file)
    with pytest.raises(OutputError, match=r"a\.html exists\. Give `-o .*a\.html` to replace it"):
        check_output(file, named=False)
    with pytest.raises(OutputError, match="is a folder"):
        check_output(tmp_path)
    with pytest.raises(OutputError, match="There is no folder"):
        check_output(tmp_path / "none" / "a.html")
