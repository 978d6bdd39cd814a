"""Bearer tokens with names, which callers of the gateway present: from a setting, or a file that may change.

Each is ``NAME=TOKEN``, and behind it, with spaces between, what holds for it: ``admin`` (it opens the jobs of all
tenants), ``tenant=NAME`` (whose its jobs are; its own name without it), ``rate=N`` (requests per second) and
``requests=N`` (concurrent requests).
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from maskscore.errors import SettingsError
from maskscore.schema import JOB_ID_PATTERN
from maskscore.settings import GatewaySettings

__all__ = ["RELOAD_INTERVAL_S", "Identity", "Tokens", "is_loopback", "open_tokens"]

log = logging.getLogger(__name__)

_SHORTEST: Final = 16
RELOAD_INTERVAL_S: Final = 2.0
"""Least seconds between two checks of the file of tokens."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A token, as it was known when a request came: its name, its SHA-256, and what holds for it.

    ``rate`` (requests per second) and ``requests`` (concurrent ones) are ``None`` where the settings decide.
    """

    name: str
    digest: bytes = field(repr=False)
    tenant: str = ""
    admin: bool = False
    rate: float | None = None
    requests: int | None = None


class Tokens:
    """The tokens by their names; only their SHA-256 is kept.

    Parameters
    ----------
    given: ``NAME=TOKEN`` each, with options behind it.
    file: with further ones, one per line; empty lines and those that begin with ``#`` are left out. It is read again
        when it has changed; as long as what it holds then cannot be used, the tokens stay as they were.

    Raises :class:`~maskscore.errors.SettingsError`, which never shows a token.
    """

    def __init__(self, given: Iterable[str], file: Path | None = None) -> None:
        self._given = _identities(given, "MASKSCORE_GATEWAY_TOKENS")
        self._file = file
        self._seen: tuple[int, int, int] | None = None
        self._looked = time.monotonic()
        self._all = self._given
        if file is not None:
            self._seen, self._all = self._read(file)

    def __len__(self) -> int:
        return len(self._all)

    def identify(self, token: str) -> Identity | None:
        """Return whose token this is; ``None`` for an unknown one. Takes the same time for each."""
        self.reload_if_changed()
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        found = None
        for known in self._all.values():
            if hmac.compare_digest(known.digest, digest):
                found = known
        return found

    def knows(self, identity: Identity) -> bool:
        """Whether the token is still one of these, under the same name, and may open the same jobs."""
        known = self._all.get(identity.name)
        return known is not None and (known.digest, known.tenant, known.admin) == (
            identity.digest,
            identity.tenant,
            identity.admin,
        )

    def reload_if_changed(self) -> None:
        """Read the file again if it has changed; no more often than every :data:`RELOAD_INTERVAL_S`."""
        if self._file is None or time.monotonic() - self._looked < RELOAD_INTERVAL_S:
            return
        self._looked = time.monotonic()
        try:
            if _stamp(self._file) != self._seen:
                self._seen, self._all = self._read(self._file)
                log.info("%s was read again: %d tokens", self._file, len(self._all))
        except (OSError, SettingsError) as error:
            log.warning("the tokens stay as they were: %s", error)

    def _read(self, file: Path) -> tuple[tuple[int, int, int], dict[str, Identity]]:
        try:
            stamp, text = _stamp(file), file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"MASKSCORE_GATEWAY_TOKENS_FILE: {file} cannot be read: {error}.") from None
        lines = [line.strip() for line in text.splitlines()]
        named = [line for line in lines if line and not line.startswith("#")]
        return stamp, {**self._given, **_identities(named, str(file))}


def open_tokens(settings: GatewaySettings) -> Tokens | None:
    """Return the tokens; ``None`` where none is required.

    Raises :class:`~maskscore.errors.SettingsError` where there are none and other machines can reach the gateway.
    """
    given = settings.gateway_tokens.get_secret_value().split(",") if settings.gateway_tokens else []
    tokens = Tokens((each.strip() for each in given if each.strip()), settings.gateway_tokens_file)
    if not settings.gateway_auth:
        log.warning("no token is required: every caller that reaches %s may use the gateway", settings.gateway_host)
        return None
    if not len(tokens):
        if settings.gateway_tokens_file is not None:
            raise SettingsError(
                f"MASKSCORE_GATEWAY_TOKENS_FILE: {settings.gateway_tokens_file} has no token. Write NAME=TOKEN lines "
                "into it, or say --no-auth where everybody on this machine may use the gateway."
            )
        if not is_loopback(settings.gateway_host):
            raise SettingsError(
                f"The gateway would listen on {settings.gateway_host} without any token. Set MASKSCORE_GATEWAY_TOKENS "
                "(NAME=TOKEN) or MASKSCORE_GATEWAY_TOKENS_FILE, or listen on 127.0.0.1, or say --no-auth where "
                "something else keeps strangers out."
            )
        log.warning("no tokens are set: every user of this machine may use the gateway")
        return None
    return tokens


def _identities(named: Iterable[str], where: str) -> dict[str, Identity]:
    identities: dict[str, Identity] = {}
    for number, each in enumerate(named, start=1):
        name, equals, rest = (part.strip() for part in each.partition("="))
        if not equals or not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise SettingsError(
                f"{where}: entry {number} is not NAME=TOKEN; a name has letters, digits, '-', '_', '.'."
            )
        token, *options = rest.split() or [""]
        if len(token) < _SHORTEST:
            raise SettingsError(
                f"{where}: the token of {name!r} is shorter than {_SHORTEST} characters. `openssl rand -hex 32` makes "
                "a good one."
            )
        if name in identities:
            raise SettingsError(f"{where}: there are two tokens of the name {name!r}.")
        given = _options(options, f"{where}: behind the token of {name!r}")
        given.setdefault("tenant", name)
        if not JOB_ID_PATTERN.fullmatch(given["tenant"]):
            raise SettingsError(
                f"{where}: {given['tenant']!r} cannot be a tenant, whose name begins with a letter or digit of ASCII. "
                f"Add tenant=NAME behind the token of {name!r}."
            )
        identities[name] = Identity(name, hashlib.sha256(token.encode()).digest(), **given)
    return identities


def _options(options: Iterable[str], where: str) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for option in options:
        name, _, value = option.partition("=")
        try:
            if option == "admin":
                given["admin"] = True
            elif name == "tenant" and value:
                given["tenant"] = value
            elif name == "rate" and 0 < float(value) < float("inf"):
                given["rate"] = float(value)
            elif name == "requests" and int(value) > 0:
                given["requests"] = int(value)
            else:
                raise ValueError
        except ValueError:
            # Perhaps a part of a token with a space in it: it is not shown.
            raise SettingsError(
                f"{where}, there is something that is not `admin`, `tenant=NAME`, `rate=N` (requests per second) or "
                "`requests=N` (concurrent ones)."
            ) from None
    return given


def _stamp(file: Path) -> tuple[int, int, int]:
    status = file.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


def is_loopback(host: str) -> bool:
    """Whether this address or name is this machine's own, which no other machine can reach."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
