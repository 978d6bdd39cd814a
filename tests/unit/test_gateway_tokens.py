"""The gateway's access tokens: names, files that change, and error messages that do not show a token."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from maskscore.errors import SettingsError
from maskscore.gateway import access_tokens as module
from maskscore.gateway.access_tokens import Tokens, open_tokens
from maskscore.settings import GatewaySettings, load_settings

ONE, TWO = "one-token-of-enough-length", "another-token-of-enough-length"


def name_of(tokens: Tokens, token: str) -> str | None:
    identity = tokens.identify(token)
    return identity.name if identity else None


def test_a_token_has_a_name() -> None:
    tokens = Tokens([f"upstream-a={ONE}", f"upstream_b.2 = {TWO}=="])
    assert len(tokens) == 2
    assert name_of(tokens, ONE) == "upstream-a"
    assert name_of(tokens, f"{TWO}==") == "upstream_b.2"
    for wrong in ("", ONE[:-1], f"{ONE} ", ONE.upper(), "\udc80"):
        assert name_of(tokens, wrong) is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([ONE], "entry 1 is not NAME=TOKEN"),
        ([f"a={ONE}", f"={TWO}"], "entry 2 is not NAME=TOKEN"),
        (["a=short-secret"], "the token of 'a' is shorter than 16"),
        ([f"a={ONE}", f"a={TWO}"], "two tokens of the name 'a'"),
    ],
)
def test_wrong_tokens_are_named_and_not_shown(given: list[str], words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        Tokens(given)
    for secret in (ONE, TWO, "short-secret"):
        assert secret not in str(caught.value)


def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RELOAD_INTERVAL_S", 0.0)
    file = tmp_path / "tokens"
    file.write_text(f"# of the upstream services\n\na={ONE}\n")
    tokens = Tokens([], file)
    assert (name_of(tokens, ONE), name_of(tokens, TWO)) == ("a", None)
    # As Kubernetes does it: another file takes the name.
    (tmp_path / "next").write_text(f"b={TWO}\n")
    (tmp_path / "next").replace(file)
    assert (name_of(tokens, ONE), name_of(tokens, TWO)) == (None, "b")
    file.write_text("b=short\n")
    assert name_of(tokens, TWO) == "b"
    file.unlink()
    assert name_of(tokens, TWO) == "b"
    file.write_text(f"a={ONE}\n")
    assert (name_of(tokens, ONE), name_of(tokens, TWO)) == ("a", None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "gateway.internal"])
def test_strangers_need_a_token_or_it_is_said_that_they_need_none(host: str) -> None:
    with pytest.raises(SettingsError, match="--no-auth"):
        open_tokens(GatewaySettings(gateway_host=host))
    assert open_tokens(GatewaySettings(gateway_host=host, gateway_auth=False)) is None
    tokens = open_tokens(GatewaySettings(gateway_host=host, gateway_tokens=SecretStr(f"a={ONE},")))
    assert tokens is not None
    assert name_of(tokens, ONE) == "a"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_alone_needs_none(host: str) -> None:
    assert open_tokens(GatewaySettings(gateway_host=host)) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
@pytest.mark.parametrize("text", ["", "# not yet\n\n"])
def test_a_file_without_tokens_opens_the_gateway_to_nobody(tmp_path: Path, host: str, text: str) -> None:
    """A secret that is not filled in yet must not open the gateway to everybody."""
    file = tmp_path / "tokens"
    file.write_text(text)
    with pytest.raises(SettingsError, match=r"tokens has no token.*--no-auth"):
        open_tokens(GatewaySettings(gateway_host=host, gateway_tokens_file=file))
    assert open_tokens(GatewaySettings(gateway_auth=False, gateway_tokens_file=file)) is None


def test_a_token_is_not_shown_with_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "MASKSCORE_GATEWAY_TOKENS", f"a={ONE}")
    settings = load_settings(GatewaySettings)
    assert ONE not in repr(settings)
    with pytest.raises(SettingsError, match="MASKSCORE_GATEWAY_PORT") as caught:
        load_settings(GatewaySettings, gateway_port=-1)
    assert ONE not in str(caught.value)
