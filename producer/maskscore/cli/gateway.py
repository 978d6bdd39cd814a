"""``gateway``: the client's operations over HTTP."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from maskscore.cli.exit_codes import Exit
from maskscore.cli.optional_dependencies import needs_extra
from maskscore.cli.worker import refuse_unknown_variables
from maskscore.observability import log_json_early, log_to_stderr
from maskscore.settings import GatewaySettings, load_settings

__all__ = ["gateway_command"]


@click.command("gateway")
@click.option("--host", help="Address to listen on.  [MASKSCORE_GATEWAY_HOST; default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port.  [MASKSCORE_GATEWAY_PORT; default: 8080]")
@click.option(
    "--tokens-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File with a NAME=TOKEN per line.  [MASKSCORE_GATEWAY_TOKENS_FILE]",
)
@click.option("--no-auth", is_flag=True, help="Serve without tokens.  [MASKSCORE_GATEWAY_AUTH=false]")
@click.option("--openapi", is_flag=True, help="Print the OpenAPI document and exit.")
def gateway_command(host: str | None, port: int | None, tokens_file: Path | None, no_auth: bool, openapi: bool) -> None:
    """Serve the client's operations over HTTP, for other languages.

    Requests carry one of the tokens of MASKSCORE_GATEWAY_TOKENS (NAME=TOKEN,...) or of a file. Without tokens, the
    gateway listens only on this machine. /openapi.json describes every path; /livez, /readyz and /metrics need no
    token. `maskscore settings` lists its limits. SIGTERM or Ctrl-C ends it.
    """
    with needs_extra("gateway"):
        log_json_early()
    refuse_unknown_variables()
    settings = load_settings(
        GatewaySettings,
        gateway_host=host,
        gateway_port=port,
        gateway_tokens_file=tokens_file,
        gateway_auth=False if no_auth else None,
    )
    with needs_extra("gateway"):
        from maskscore.gateway import make_app, openapi_document, run_gateway
    if openapi:
        click.echo(json.dumps(openapi_document(make_app(settings, None)), indent=2))
        return
    log_to_stderr(settings.log_level, settings.log_format)
    # Of logs that are read by machines, stdout is a part; that it serves is in them.
    run_gateway(settings, started=click.echo if settings.log_format == "text" else lambda _: None)
    sys.exit(Exit.OK)
