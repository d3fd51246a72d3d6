"""Whether a server can listen where it is told to, before anything is loaded."""

from __future__ import annotations

import socket


class CannotServeError(RuntimeError):
    """The server cannot be started, or has failed; the message says what to do."""


def check_port(host: str, port: int) -> None:
    """Raises CannotServeError where nothing can listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError as error:
            raise CannotServeError(
                f"nothing can listen on {host}:{port} ({error.strerror}): give another --port"
            ) from error


def url_of(host: str, port: int) -> str:
    """Where this machine reaches a server that listens there."""
    bare = host.strip("[]")
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bare, bare)
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"
