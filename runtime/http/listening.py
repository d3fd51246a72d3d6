"""Where a server listens: whether it can, before anything is loaded, and who reaches it there."""

from __future__ import annotations

import socket
from ipaddress import ip_address


class CannotServeError(RuntimeError):
    """The server cannot be started, or has failed; the message says what to do."""


def listening(host: str, port: int) -> socket.socket:
    """A socket that is bound there, to a free port where it is 0. Raises CannotServeError."""
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host.strip("[]"), port))
    except OSError as error:
        made.close()
        raise CannotServeError(
            f"nothing can listen on {host}:{port} ({error.strerror}): give another --port"
        ) from error
    return made


def check_port(host: str, port: int) -> None:
    """Raises CannotServeError where nothing can listen there."""
    listening(host, port).close()


def is_loopback(host: str) -> bool:
    """Whether that is an address of this machine for itself."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def url_of(host: str, port: int) -> str:
    """Where this machine reaches a server that listens there."""
    bare = host.strip("[]")
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bare, bare)
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"
