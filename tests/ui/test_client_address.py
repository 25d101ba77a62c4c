from __future__ import annotations

import pytest
from starlette.requests import Request

from skinclip.ui.client_address import TRUSTED_PROXIES, client_address, trusted_networks


def request(peer: str, *forwarded: str) -> Request:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    return Request({"type": "http", "client": (peer, 1), "headers": headers})


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "address"),
    [
        ("", "192.0.2.1", ["198.51.100.7"], "192.0.2.1"),  # anybody can send the header
        ("", "127.0.0.1", ["198.51.100.7"], "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("127.0.0.1", "192.0.2.1", ["198.51.100.7"], "192.0.2.1"),  # past the proxy
        ("127.0.0.1", "127.0.0.1", ["203.0.113.9, 198.51.100.7"], "198.51.100.7"),  # the first was made up
        ("127.0.0.1", "127.0.0.1", ["203.0.113.9", "198.51.100.7"], "198.51.100.7"),
        ("127.0.0.1, 10.0.0.0/8", "127.0.0.1", ["198.51.100.7, 10.2.3.4"], "198.51.100.7"),
        ("127.0.0.1", "127.0.0.1", [], "127.0.0.1"),
        ("::1", "::1", ["2001:db8::1"], "2001:db8::1"),
    ],
)
def test_only_a_trusted_proxy_names_the_visitor(
    trusted: str, peer: str, forwarded: list[str], address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TRUSTED_PROXIES, trusted)
    assert client_address(request(peer, *forwarded)) == address


def test_a_setting_that_names_no_network_is_told() -> None:
    with pytest.raises(ValueError, match="write addresses or networks"):
        trusted_networks("my proxy")


def test_a_request_without_an_address_has_none() -> None:
    assert client_address(Request({"type": "http", "client": None, "headers": []})) == ""
