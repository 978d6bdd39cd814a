"""What is shown of a URL that may hold a password, and of texts that may hold such a URL: one place for all of them."""

from __future__ import annotations

import re
from typing import Final

from maskscore.broker.sentinel import parse_sentinel_url
from maskscore.errors import SettingsError

__all__ = ["public_url", "redacted"]

_HIDDEN: Final = "***"
_URL: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)
_HOST: Final = r"(?:\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]*)(?::[0-9]{1,5})?"
_PLACE: Final = re.compile(rf"(?P<hosts>{_HOST}(?:,{_HOST})*)(?P<path>/[^?#]*)?(?:[?#].*)?", re.DOTALL)
# A password that is not percent-encoded may hold whatever a URL may: of a broker's URL all that precedes its last '@'
# is hidden. In the URLs of objects an '@' is an ordinary character; their credentials end before the first '/'.
_IN_TEXT: Final = re.compile(
    r"(?P<scheme>\b(?:rediss?|sentinel\w*|unix|valkeys?|amqps?|sqs)://)[^\s'\"<>`]*@|(?P<web>\bhttps?://)[^\s'\"<>`/]*@",
    re.IGNORECASE,
)
# A server that does not know the command answers with its arguments.
_ARGUMENTS: Final = re.compile(r"(unknown command\W{0,2}(?:AUTH|HELLO)\b\W{0,2}).*", re.IGNORECASE | re.DOTALL)


def public_url(url: str) -> str:
    """Return a URL without credentials and options, fit for a message or a log.

    Of a URL that does not parse, nothing is shown of what stands between ``//`` and the last ``@``. Never raises.
    """
    try:
        sentinel = parse_sentinel_url(url)
    except SettingsError:
        sentinel = None
    if sentinel:
        return sentinel.public_url
    found = _URL.fullmatch(url)
    if found is None:
        return _HIDDEN
    hidden, at, place = found["rest"].rpartition("@")
    told = _PLACE.fullmatch(place)
    broken = at and re.search(r"[/?#]", hidden)
    credentials = f"{_HIDDEN}@" if broken else ""
    return f"{found['scheme']}://{credentials}{told['hosts'] + (told['path'] or '') if told else _HIDDEN}"


def redacted(text: str) -> str:
    """Return a text without the credentials of the URLs in it, and without the arguments of a refused ``AUTH``."""
    text = _IN_TEXT.sub(lambda found: f"{found['scheme'] or found['web']}{_HIDDEN}@", text)
    return _ARGUMENTS.sub(rf"\1{_HIDDEN}", text)
