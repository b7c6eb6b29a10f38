"""`vultus health`: asks the server of these settings whether it serves, for containers and monitors."""

from __future__ import annotations

import http.client
import ssl
from ipaddress import ip_address
from typing import Annotated

import typer

from vultus.cli.common import err, load_settings, out
from vultus.errors import SetupError
from vultus.settings import ServerSettings

TIMEOUT_S = 5.0


def check_health(
    live: Annotated[
        bool, typer.Option("--live", help="Only whether the process answers, not whether it can serve.")
    ] = False,
) -> None:
    """Ask the running server whether it can serve requests; exit code 1 if not."""
    server = load_settings().server
    if server.port == 0:
        raise SetupError("VULTUS_SERVER__PORT is 0, so the server's port is not known here; set it to a number.")
    path = f"/v1/health/{'live' if live else 'ready'}"
    connection = _open_connection(server)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        err.print(f"Nothing serves at {connection.host}:{connection.port}: {error}")
        raise typer.Exit(1) from None
    finally:
        connection.close()
    if status != http.HTTPStatus.OK:
        err.print(f"{path} answers {status}: `vultus doctor` and the server's log say why.")
        raise typer.Exit(1)
    out.print("ok")


def _open_connection(server: ServerSettings) -> http.client.HTTPConnection:
    """Return a connection to the server's own address, not yet open."""
    host = server.host
    try:
        if (address := ip_address(host)).is_unspecified:
            host = "127.0.0.1" if address.version == 4 else "::1"
    except ValueError:
        pass  # a name
    if server.tls_certificate is None:
        return http.client.HTTPConnection(host, server.port, timeout=TIMEOUT_S)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # no secret is sent, and no answer believed
    return http.client.HTTPSConnection(host, server.port, timeout=TIMEOUT_S, context=context)
