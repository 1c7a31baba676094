"""`fanfold.kit.users` against the profile service that answers it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

import httpx
import pytest

from fanfold.contracts import keys
from fanfold.contracts.ids import new_id
from fanfold.contracts.internal import MAX_BATCH
from fanfold.kit.errors import Unavailable
from fanfold.kit.peers import Peers
from fanfold.kit.users import Users
from fanfold.profile.models import User

if TYPE_CHECKING:
    from tests.integration.conftest import House

pytestmark = pytest.mark.integration


@pytest.fixture
async def users(house: House, profile: httpx.AsyncClient) -> Users:
    return Users(house.runtimes["profile"].valkey, house.peers, "https://cdn.example/media/")


async def insert(house: House, count: int) -> list[UUID]:
    """Users without the API: their passwords would take minutes."""
    ids = [new_id() for _ in range(count)]
    async with house.runtimes["profile"].database.transaction() as session:
        session.add_all(
            User(
                id=user_id,
                username=user_id.hex[:30][::-1],
                display_name="Somebody",
                picture_path="me.jpeg",
                created_at=datetime.now(UTC),
            )
            for user_id in ids
        )
    return ids


async def test_more_users_than_a_batch_holds_are_read_and_each_once(house: House, users: Users) -> None:
    ids = await insert(house, MAX_BATCH + 5)
    assert set(await users.blobs([*ids, *ids, new_id()])) == set(ids)


async def test_a_picture_is_a_url_under_the_media_base(house: House, users: Users) -> None:
    (user_id,) = await insert(house, 1)
    assert (await users.authors([user_id]))[user_id].picture_url == "https://cdn.example/media/me.jpeg"


async def test_what_is_cached_needs_no_profile_service_and_what_is_not_says_so(house: House, users: Users) -> None:
    known, unknown = await insert(house, 2)
    await users.blobs([known])
    signer = house.runtimes["profile"].signer
    cut_off = Peers({}, signer, "test")
    try:
        reader = Users(house.runtimes["profile"].valkey, cut_off, "/v1/media")
        assert await reader.exists(known)
        assert await reader.blobs([]) == {}
        with pytest.raises(Unavailable):
            await reader.blobs([known, unknown])
    finally:
        await cut_off.close()


async def test_an_unknown_user_is_not_remembered_as_unknown(house: House, users: Users) -> None:
    (user_id,) = await insert(house, 1)
    stranger = new_id()
    assert await users.exists(user_id)
    assert not await users.exists(stranger)
    assert not await house.redis.exists(keys.user(stranger))
