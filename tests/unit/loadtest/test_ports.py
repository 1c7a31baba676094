"""The ports of a run in a cluster, over HTTP."""

from __future__ import annotations

import httpx
import pytest

from fanfold_loadtest import ports
from fanfold_loadtest.errands import Errands


@pytest.fixture
def client() -> httpx.Client:
    return httpx.Client(trust_env=False, timeout=60)


def test_the_admin_port_tells_metrics_and_takes_an_end(client: httpx.Client) -> None:
    heard: list[bool] = []
    port = ports.serving("127.0.0.1:0", ports.admin(lambda: heard.append(True), Errands().handle))
    url = f"http://127.0.0.1:{port}"
    with client:
        assert "python_info" in client.get(f"{url}/metrics").text
        assert client.get(f"{url}/livez").status_code == 200
        assert client.get(f"{url}/cancel").status_code == 404
        assert not heard
        assert client.post(f"{url}/cancel").status_code == 204
        assert client.put(f"{url}/acts", content=b"[]").json() == []
        assert client.put(f"{url}/acts", content=b"{").status_code == 400
    assert heard == [True]


def test_a_body_comes_whole_and_one_that_is_too_large_is_refused(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str, int]] = []

    def handle(method: str, path: str, body: bytes) -> ports.Answer:
        seen.append((method, path, len(body)))
        return 200, b"true"

    monkeypatch.setattr(ports, "LIMIT_BYTES", 1 << 20)
    url = f"http://127.0.0.1:{ports.serving('127.0.0.1:0', handle)}"
    with client:
        assert client.put(f"{url}/share/1", content=b"x" * (1 << 20)).json() is True
        assert client.put(f"{url}/share/1", content=b"x" * ((1 << 20) + 1)).status_code == 413
    assert seen == [("PUT", "/share/1", 1 << 20)]
