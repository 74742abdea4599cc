"""Where the page is served: `[HOST:]PORT` read, the socket bound, and the hosts that a browser may ask for."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import re
import socket
from dataclasses import dataclass
from typing import Optional, Union

from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.text import one_line, printable

LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 8000
BACKLOG = 32  # connections that wait to be accepted
NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*\.?", re.IGNORECASE)
FORMS = "8000, 0.0.0.0:8000 or [::1]:8000"
IPAddress = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]


@dataclass(frozen=True)
class Address:
    """host: a name or an IP address of this machine, without brackets; port: 0 takes one that is free."""

    host: str = LOOPBACK
    port: int = DEFAULT_PORT

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        ip = _ip(self.host)
        return ip.is_loopback if ip is not None else self.host.lower().rstrip(".") == "localhost"

    @property
    def everywhere(self) -> bool:
        """Whether it stands for all networks of this machine."""
        ip = _ip(self.host)
        return ip is not None and ip.is_unspecified

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """The address that `[HOST:]PORT` names: "8000" is this machine alone, "0.0.0.0:8000" all its networks.

    Raises MisuseError, which says what to write instead.
    """
    shown = printable(text)[:60]
    host, colon, port = text.strip().rpartition(":")
    if not (port.isascii() and port.isdigit()):
        raise MisuseError(f"--view {shown} names no port: write {FORMS}")
    if len(port) > 5 or int(port) > 65535:
        raise MisuseError(f"--view {shown}: ports go up to 65535")
    if not colon:
        return Address(LOOPBACK, int(port))
    if not host:
        raise MisuseError(f"--view {shown} names no host: {port} is this machine alone, 0.0.0.0:{port} all its networks")
    if host.startswith("[") and host.endswith("]"):
        ip = _ip(host[1:-1])
        if ip is None or ip.version != 6:
            raise MisuseError(f"--view {shown}: there is no IPv6 address between the brackets")
        return Address(str(ip), int(port))
    if ":" in host:
        raise MisuseError(f"--view {shown}: an IPv6 address needs brackets, [{printable(host)[:60]}]:{port}")
    if _ip(host) is None and (not NAME.fullmatch(host) or host.replace(".", "").isdigit()):
        raise MisuseError(f"--view {shown} names no valid host: write {FORMS}")
    return Address(host, int(port))


def bind(address: Address) -> socket.socket:
    """A socket that listens at `address`. Raises AmpnetError that names the port when it cannot be had."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise AmpnetError(f"--view: host {printable(address.host)} is not known: name an address of this machine") from None
    family, _, _, _, place = min(found, key=lambda each: each[0] != socket.AF_INET)
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere the option would let two programs share the port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and address.everywhere:
            with contextlib.suppress(OSError, AttributeError):
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind(place)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise AmpnetError(f"--view {printable(address)}: {_refusal(error, address.port)}") from None
    return listening


def _refusal(error: OSError, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is in use; end the program that listens there or name another port"
    if error.errno == errno.EACCES:
        return f"port {port} is reserved for the system; name one from 1024 on"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine does not have that address; 0.0.0.0 stands for all that it has"
    return one_line(error.strerror or error)


def reachable_host(address: Address) -> str:
    """The host for a URL; of an address that stands for all networks, the one by which this machine reaches others."""
    if not address.everywhere:
        return f"[{address.host}]" if ":" in address.host else address.host
    with contextlib.suppress(OSError):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            # Sends nothing: it only makes the system choose. The address is nobody's (RFC 5737).
            asking.connect(("192.0.2.1", 9))
            return str(asking.getsockname()[0])
    return socket.gethostname()


def may_ask_for(host: str, address: Address) -> bool:
    """Whether a browser that sends this `Host` header (with or without a port) was meant to come here.

    A page of another site can point its own name at this machine (DNS rebinding) and would then count as the same origin.
    Such a request carries that name, so only names of this machine pass; an IP address cannot be rebound.
    """
    name = _without_port(host).lower().rstrip(".")
    if name in ("localhost", address.host.lower().rstrip(".")):
        return True
    ip = _ip(name)
    if address.loopback:
        return ip is not None and ip.is_loopback
    return ip is not None or name.split(".")[0] == socket.gethostname().lower().split(".")[0]


def _without_port(host: str) -> str:
    bracketed = re.fullmatch(r"\[([^\]]*)\](:\d*)?", host)
    return bracketed[1] if bracketed else re.sub(r":\d*$", "", host)


def _ip(host: str) -> Optional[IPAddress]:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
