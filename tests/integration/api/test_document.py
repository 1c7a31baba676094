"""The OpenAPI document against the platform behind it: what the one says, the other does, whatever is sent."""

from __future__ import annotations

import asyncio
import secrets
import sys
from typing import TYPE_CHECKING, Final

import httpx
import pytest

if TYPE_CHECKING:
    from pathlib import Path

from tests.integration.api.commands import outcome

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

SECONDS: Final = 300
EXAMPLES: Final = 2
"""Of fuzzing, for each operation."""
SEED: Final = 5
NOT_ASKED: Final = ("DELETE /v1/sessions", "DELETE /v1/sessions/current", "GET /v1/ws")
"""They would end the session that asks, or are no HTTP."""
CHECKS: Final = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "ignored_auth",
)


async def token(platform: str) -> str:
    body = {"username": f"curious.{secrets.token_hex(4)}", "password": "a long enough passphrase"}  # one for each phase
    async with httpx.AsyncClient(base_url=platform, timeout=60) as client:
        assert (await client.post("/v1/accounts", json=body)).status_code == 201
        return str((await client.post("/v1/sessions", json=body)).json()["access_token"])


@pytest.mark.parametrize("phase", ["fuzzing", pytest.param("coverage", marks=pytest.mark.long)])
async def test_the_platform_does_what_its_document_says(platform: str, tmp_path: Path, phase: str) -> None:
    """``coverage`` goes along every edge of every schema, which is two thousand calls."""
    excluded = [word for name in NOT_ASKED for word in ("--exclude-name", name)]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "schemathesis.cli",
        "run",
        f"{platform}/openapi.json",
        f"--header=Authorization: Bearer {await token(platform)}",
        f"--checks={','.join(CHECKS)}",
        f"--phases={phase}",
        f"--max-examples={EXAMPLES}",
        f"--seed={SEED}",
        "--generation-database=none",
        "--continue-on-failure",
        "--warnings=off",
        "--request-timeout=60",
        "--no-color",
        *excluded,
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    code, said = await outcome(process, SECONDS)
    assert code == 0, said[-20_000:]
