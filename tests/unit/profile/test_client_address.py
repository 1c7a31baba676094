from __future__ import annotations

import pytest
from starlette.requests import Request

from fanfold.profile.routes import client_address


@pytest.mark.parametrize(
    ("header", "address"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("203.0.113.9, 10.0.0.1", "203.0.113.9"),
        ("made up, 203.0.113.9, 10.0.0.1", "203.0.113.9"),
        ("", ""),
    ],
)
def test_the_client_is_whom_the_last_trusted_hop_saw(header: str, address: str) -> None:
    scope = {"type": "http", "headers": [(b"x-forwarded-for", header.encode())]}
    assert client_address(Request(scope)) == address
