"""A secured listener behind a proxy: clients are told the proxy's ports, and the broker listens on its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_guard.testing import BrokerSecurity, SecuredListener
from stream_guard.testing.broker import Secured

if TYPE_CHECKING:
    from pathlib import Path


def test_clients_are_told_the_advertised_ports(tmp_path: Path) -> None:
    listeners = (SecuredListener("PROXIED", advertised_ports=(1, 2, 3)), SecuredListener("DIRECT"))
    secured = Secured(BrokerSecurity(listeners=listeners), tmp_path)
    secured.set_servers([[11, 21], [12, 22], [13, 23]])
    assert secured.servers("PROXIED") == "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3"
    assert secured.ports("PROXIED") == [11, 12, 13]
    assert secured.servers("DIRECT") == "127.0.0.1:21,127.0.0.1:22,127.0.0.1:23"
    second = secured.node([12, 22], 1)
    assert second.addresses == ["PROXIED://127.0.0.1:12", "DIRECT://127.0.0.1:22"]
    assert second.advertised == ["PROXIED://127.0.0.1:2", "DIRECT://127.0.0.1:22"]
