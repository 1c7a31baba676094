from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fanfold.kit.runtime import ListenError

if TYPE_CHECKING:
    from tests.integration.conftest import House

pytestmark = pytest.mark.integration


async def test_a_component_whose_port_is_taken_says_which_and_stops(house: House) -> None:
    follow = await house.start("follow")
    port = follow.base_url.port
    with pytest.raises(ListenError, match=f"127.0.0.1:{port}"):
        await house.start("follow")
    assert (await follow.get("/v1/users/me/following", headers={})).status_code == 401
