"""A private Redis and a private S3 server on this machine, for the demo, the tests and ``maskscore up``.

    with LocalServices() as services:
        environment = {**os.environ, **services.environment()}

Both servers listen on 127.0.0.1 only, on free ports, with random credentials, and end with this process: by
`LocalServices.close`, by ``KeyboardInterrupt`` at any moment, at interpreter exit, and on Linux even when
this process is killed (if the servers were started from its main thread).

A process that may be sent SIGTERM should turn it into an exception, for example
``signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))``. Under the default action Python runs no
clean-up: the temporary directory stays, and outside Linux the servers do too.

They are for one machine and its user: SeaweedFS checks signatures on its S3 port, but its internal ports on
127.0.0.1 take requests from every local user.
"""

from __future__ import annotations

from maskscore.devstack.local_services import LocalServices, write_for_owner
from maskscore.devstack.local_worker import start_worker
from maskscore.devstack.redis_server import LocalRedis, RedisServer
from maskscore.devstack.s3_server import LocalS3, S3Server
from maskscore.devstack.server_process import LocalServiceError

__all__ = [
    "LocalRedis",
    "LocalS3",
    "LocalServiceError",
    "LocalServices",
    "RedisServer",
    "S3Server",
    "start_worker",
    "write_for_owner",
]
