"""How Redis errors are reported, and how often a command is sent again."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest
import redis
from redis._parsers.base import BaseParser

from maskscore.broker.redis_connection import connect, is_transient, redis_errors
from maskscore.errors import ServiceUnavailable
from maskscore.settings import ClientSettings


def error_of(answer: str, *, in_pipeline: bool) -> redis.RedisError:
    """As redis-py makes it of Redis's answer."""
    parser: Any = BaseParser
    error: redis.RedisError = parser.parse_error(answer)
    if in_pipeline:
        pipeline: Any = redis.Redis().pipeline()
        pipeline.annotate_exception(error, 1, ["EVALSHA", "BUSY"])
    return error


@pytest.mark.parametrize("in_pipeline", [False, True])
@pytest.mark.parametrize(
    "answer",
    [
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        "LOADING Redis is loading the dataset in memory",
        "READONLY You can't write against a read only replica.",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "CLUSTERDOWN The cluster is down",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "NOREPLICAS Not enough good replicas to write.",
        "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
        "OOM command not allowed when used memory > 'maxmemory'. script: 1, on @user_script:1.",
        "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
        "ERR max number of clients reached",
    ],
)
def test_what_redis_cannot_do_just_now_passes(answer: str, in_pipeline: bool) -> None:
    assert is_transient(error_of(answer, in_pipeline=in_pipeline))


@pytest.mark.parametrize("in_pipeline", [False, True])
@pytest.mark.parametrize(
    "answer",
    [
        "WRONGPASS invalid username-password pair or user is disabled.",
        "NOAUTH Authentication required.",
        "NOPERM this user has no permissions to run the 'evalsha' command",
        "WRONGTYPE Operation against a key holding the wrong kind of value",
        "ERR unknown command 'NONSENSE'",
        "BUSYKEY Target key name already exists.",
        "ERR string exceeds maximum allowed size (proto-max-bulk-len)",
    ],
)
def test_what_redis_refuses_does_not(answer: str, in_pipeline: bool) -> None:
    assert not is_transient(error_of(answer, in_pipeline=in_pipeline))


def test_a_right_that_is_missing_is_said_with_where_the_rule_is() -> None:
    error = error_of("NOPERM this user has no permissions to run the 'zadd' command", in_pipeline=False)
    said = r"'zadd' command\. docs/how-to/redis\.md"
    with pytest.raises(ServiceUnavailable, match=said), redis_errors(ClientSettings()):
        raise error


def test_a_silent_redis_is_waited_for_once() -> None:
    accepted = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    accepted.append(server.accept())
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        url = f"redis://127.0.0.1:{server.getsockname()[1]}/0"
        with connect(ClientSettings(redis_url=url, redis_timeout_s=0.1)) as client, pytest.raises(redis.TimeoutError):
            client.ping()
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    # A second try would be a second connection, and twice the time that the setting says.
    assert len(accepted) == 1
    for connection, _ in accepted:
        connection.close()
