from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
import msgspec
import pytest
from PIL import Image

from fanfold.contracts import events, internal, keys
from fanfold.contracts.blobs import UserBlob
from fanfold.contracts.ids import new_id
from fanfold.dev.process import free_ports
from fanfold.kit.peers import PeerProblem
from fanfold.kit.users import Users
from fanfold.profile.models import Credential, User
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.integration.conftest import House, SchemaDifferences
    from tests.integration.profile.conftest import Join

pytestmark = pytest.mark.integration

PASSWORD = "tr0ubador&3"


async def test_models_and_migrations_agree(schema_differences: SchemaDifferences) -> None:
    assert await schema_differences("profile") == []


async def test_registering_answers_the_new_user_and_never_the_password(
    house: House, profile: httpx.AsyncClient
) -> None:
    account = {"username": "Ada.Lovelace", "password": PASSWORD, "display_name": "Ada"}
    answer = await profile.post("/v1/accounts", json=account, headers=house.anonymous())
    assert answer.status_code == 201
    body = answer.json()
    assert body == {
        "id": body["id"],
        "username": "ada.lovelace",
        "display_name": "Ada",
        "bio": "",
        "picture_url": None,
        "private": False,
        "created_at": body["created_at"],
    }
    assert body["created_at"].endswith("Z")
    assert UUID(body["id"]).version == 7


async def test_a_username_is_taken_once_even_by_two_at_the_same_moment(
    house: House, profile: httpx.AsyncClient
) -> None:
    names = ["Racer", "racer", "RACER", "racer"]
    answers = await asyncio.gather(
        *(
            profile.post("/v1/accounts", json={"username": name, "password": PASSWORD}, headers=house.anonymous())
            for name in names
        )
    )
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    refused = next(answer for answer in answers if answer.status_code == 409)
    assert refused.json()["type"].endswith("/username-taken")


@pytest.mark.parametrize(
    ("account", "told"),
    [
        ({"username": "a", "password": PASSWORD}, "3 to 30"),
        ({"username": "fine_name", "password": "password1"}, "guessed"),
        ({"username": "fine_name", "password": "short"}, "8 to 128"),
        ({"username": "fine_name"}, "password"),
        ({"username": "fine_name", "password": PASSWORD, "admin": True}, "admin"),
    ],
)
async def test_bad_registrations_are_refused_with_what_to_change(
    house: House, profile: httpx.AsyncClient, account: dict[str, Any], told: str
) -> None:
    answer = await profile.post("/v1/accounts", json=account, headers=house.anonymous())
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert told in answer.json()["detail"]
    assert "short" not in answer.text
    assert "password1" not in answer.text


async def test_the_password_is_stored_as_an_argon2id_hash(house: House, join: Join) -> None:
    person = await join()
    async with house.runtimes["profile"].database.reading() as session:
        credential = await session.get(Credential, UUID(person.id))
    assert credential is not None
    assert credential.password_hash.startswith("$argon2id$")


async def test_users_read_and_change_their_own_profile(profile: httpx.AsyncClient, join: Join) -> None:
    person = await join()
    changed = await profile.patch(
        "/v1/users/me", json={"display_name": "Countess", "bio": "Notes"}, headers=person.headers
    )
    assert changed.status_code == 200
    assert (changed.json()["display_name"], changed.json()["bio"]) == ("Countess", "Notes")
    partly = await profile.patch("/v1/users/me", json={"bio": ""}, headers=person.headers)
    assert (partly.json()["display_name"], partly.json()["bio"]) == ("Countess", "")
    assert (await profile.get("/v1/users/me", headers=person.headers)).json() == partly.json()


async def test_an_edit_of_what_somebody_else_changed_meanwhile_is_refused(
    house: House, profile: httpx.AsyncClient, join: Join
) -> None:
    person = await join()
    tag = (await profile.get("/v1/users/me", headers=person.headers)).headers["etag"]
    expected = person.headers | {"If-Match": tag}
    changed = await profile.patch("/v1/users/me", json={"bio": "one"}, headers=expected)
    assert (changed.status_code, changed.headers["etag"] == tag) == (200, False)
    late = await profile.patch("/v1/users/me", json={"bio": "two"}, headers=expected)
    assert (late.status_code, late.json()["type"].rpartition("/")[2]) == (412, "precondition-failed")
    assert (await profile.get("/v1/users/me", headers=person.headers)).json()["bio"] == "one"
    strict = await house.start("profile", require_if_match=True, traffic_port=free_ports(1)[0])
    assert (await strict.patch("/v1/users/me", json={"bio": "two"}, headers=person.headers)).status_code == 428
    known = person.headers | {"If-Match": changed.headers["etag"]}
    assert (await strict.patch("/v1/users/me", json={"bio": "two"}, headers=known)).status_code == 200


async def test_others_are_found_by_id_and_by_name_in_any_case(
    house: House, profile: httpx.AsyncClient, join: Join
) -> None:
    reader, other = await join(), await join("Some.Body")
    for person in (reader, other):
        await house.redis.set(keys.blocks(UUID(person.id)), b"")
    by_id = await profile.get(f"/v1/users/{other.id}", headers=reader.headers)
    assert by_id.json()["username"] == "some.body"
    by_name = await profile.get("/v1/users", params={"username": "SOME.body"}, headers=reader.headers)
    assert by_name.json() == {"items": [by_id.json()], "next_cursor": None}
    nobody = await profile.get("/v1/users", params={"username": "no.body"}, headers=reader.headers)
    assert nobody.json() == {"items": [], "next_cursor": None}
    assert (await profile.get(f"/v1/users/{new_id()}", headers=reader.headers)).status_code == 404
    assert (await profile.get("/v1/users/not-an-id", headers=reader.headers)).status_code == 422


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/users/me"),
        ("PATCH", "/v1/users/me"),
        ("DELETE", "/v1/users/me"),
        ("PUT", "/v1/users/me/picture"),
        ("DELETE", "/v1/users/me/picture"),
        ("GET", "/v1/users/me/export"),
        ("GET", "/v1/users?username=somebody"),
        ("GET", f"/v1/users/{UUID(int=7)}"),
        ("DELETE", "/v1/sessions/current"),
    ],
)
async def test_nobody_does_what_needs_a_user(house: House, profile: httpx.AsyncClient, method: str, path: str) -> None:
    body = {
        "PATCH": {"bio": "x"},
        "DELETE": {"password": "x"},
        "PUT": {"image_id": str(UUID(int=7))},
    }.get(method)
    for headers, status in [({}, 401), (house.anonymous(), 401), (house.as_service("feed"), 401)]:
        answer = await profile.request(method, path, json=body, headers=headers)
        assert answer.status_code == status, (method, path, headers)
        assert answer.headers["content-type"] == "application/problem+json"


async def test_internal_calls_are_for_services_only(house: House, profile: httpx.AsyncClient, join: Join) -> None:
    person = await join()
    body = msgspec.msgpack.encode(internal.Ids([UUID(person.id).bytes]))
    for headers, status in [
        (person.headers, 403),
        (house.anonymous(), 403),
        ({}, 401),
        (house.as_service("feed"), 200),
    ]:
        answer = await profile.post(internal.USERS.path, content=body, headers=headers)
        assert answer.status_code == status


async def test_services_get_packed_users_in_a_batch_and_the_cache_is_refilled(house: House, join: Join) -> None:
    people = [await join() for _ in range(3)]
    ids = [UUID(person.id) for person in people]
    await house.redis.flushall()
    answer = await house.peers.call(internal.USERS, internal.Ids([*(item.bytes for item in ids), new_id().bytes]))
    assert set(answer.blobs) == {item.bytes for item in ids}
    for person, user_id in zip(people, ids, strict=True):
        cached = await house.redis.get(keys.user(user_id))
        assert cached == answer.blobs[user_id.bytes]
        assert msgspec.msgpack.decode(cached, type=UserBlob).username == person.username


async def test_names_resolve_to_ids_in_a_batch(house: House, join: Join) -> None:
    person = await join("Mentioned.One")
    answer = await house.peers.call(internal.USER_IDS, internal.Usernames(["mentioned.one", "nobody.here"]))
    assert answer.ids == {"mentioned.one": UUID(person.id).bytes}


async def test_a_batch_over_the_limit_is_refused(house: House, profile: httpx.AsyncClient) -> None:
    with pytest.raises(PeerProblem) as caught:
        await house.peers.call(internal.USERS, internal.Ids([new_id().bytes] * (internal.MAX_BATCH + 1)))
    assert caught.value.status == 422


async def test_a_changed_name_is_seen_by_readers_at_once(house: House, profile: httpx.AsyncClient, join: Join) -> None:
    person = await join()
    users = Users(house.runtimes["profile"].valkey, house.peers, "https://cdn.example/")
    assert (await users.authors([UUID(person.id)]))[UUID(person.id)].display_name == person.username
    await profile.patch("/v1/users/me", json={"display_name": "New Name"}, headers=person.headers)
    assert (await users.authors([UUID(person.id)]))[UUID(person.id)].display_name == "New Name"


async def test_a_refill_never_overwrites_what_is_newer_and_the_deleted_stay_deleted(
    house: House, profile: httpx.AsyncClient, join: Join
) -> None:
    person = await join()
    key = keys.user(UUID(person.id))
    await house.redis.set(key, b"newer")
    await house.peers.call(internal.USERS, internal.Ids([UUID(person.id).bytes]))
    assert await house.redis.get(key) == b"newer"
    await profile.request("DELETE", "/v1/users/me", json={"password": PASSWORD}, headers=person.headers)
    await house.peers.call(internal.USERS, internal.Ids([UUID(person.id).bytes]))
    assert await house.redis.get(key) == keys.TOMBSTONE
    users = Users(house.runtimes["profile"].valkey, house.peers, "/v1/media")
    assert await users.blobs([UUID(person.id)]) == {}


async def test_changes_of_one_profile_reach_the_cache_in_the_order_of_their_commits(
    house: House, profile: httpx.AsyncClient, join: Join
) -> None:
    person = await join()
    names = [f"Name {number}" for number in range(12)]
    await asyncio.gather(
        *(profile.patch("/v1/users/me", json={"display_name": name}, headers=person.headers) for name in names)
    )
    stored = (await profile.get("/v1/users/me", headers=person.headers)).json()["display_name"]
    cached = msgspec.msgpack.decode(await house.redis.get(keys.user(UUID(person.id))), type=UserBlob)
    assert cached.display_name == stored


async def test_two_changes_at_once_are_both_in_the_cache(house: House, profile: httpx.AsyncClient, join: Join) -> None:
    person = await join()
    user_id = UUID(person.id)
    for number in range(8):
        async with house.runtimes["profile"].database.transaction() as session:
            user = await session.get(User, user_id)
            assert user is not None
            user.picture_id, user.picture_path = new_id(), "me.jpeg"
        await asyncio.gather(
            profile.patch("/v1/users/me", json={"display_name": f"Name {number}"}, headers=person.headers),
            profile.delete("/v1/users/me/picture", headers=person.headers),
        )
        cached = msgspec.msgpack.decode(await house.redis.get(keys.user(user_id)), type=UserBlob)
        assert (cached.display_name, cached.picture_path) == (f"Name {number}", "")


async def test_deleting_an_account_needs_its_password(house: House, profile: httpx.AsyncClient, join: Join) -> None:
    person = await join()
    wrong = await profile.request("DELETE", "/v1/users/me", json={"password": "not it"}, headers=person.headers)
    assert wrong.status_code == 403
    assert (await profile.get("/v1/users/me", headers=person.headers)).status_code == 200


async def test_a_deleted_account_is_gone_told_to_all_and_its_sessions_are_refused(
    house: House, profile: httpx.AsyncClient, join: Join, log_in: Join
) -> None:
    person = await join()
    second = await log_in(person.username)
    answer = await profile.request("DELETE", "/v1/users/me", json={"password": PASSWORD}, headers=person.headers)
    assert answer.status_code == 204
    assert (await profile.get("/v1/users/me", headers=person.headers)).status_code == 404
    for session in (person, second):
        assert await house.redis.zscore(keys.REVOKED_SESSIONS, UUID(session.session_id).bytes)
        refreshed = await profile.post(
            "/v1/sessions/refresh", json={"refresh_token": session.refresh_token}, headers=house.anonymous()
        )
        assert refreshed.status_code == 401
    event = events.AccountDeleted(user_id=UUID(person.id))
    stream = keys.stream(event.topic, event.partition)

    async def published() -> bool:
        return events.encode(event) in [fields[b"event"] for _, fields in await house.redis.xrange(stream)]

    await eventually(published, "the event of the account's end")
    again = await profile.request("DELETE", "/v1/users/me", json={"password": PASSWORD}, headers=person.headers)
    assert again.status_code == 404


async def test_no_archive_begins_while_a_room_does_not_answer(profile: httpx.AsyncClient, join: Join) -> None:
    person = await join()
    answer = await profile.get("/v1/users/me/export", headers=person.headers)
    assert answer.status_code == 503
    assert answer.headers["retry-after"]


async def test_choosing_a_picture_without_the_image_service_changes_nothing(
    profile: httpx.AsyncClient, join: Join
) -> None:
    person = await join()
    chosen = await profile.put("/v1/users/me/picture", json={"image_id": str(new_id())}, headers=person.headers)
    assert chosen.status_code == 503
    assert chosen.headers["retry-after"]
    assert (await profile.get("/v1/users/me", headers=person.headers)).json()["picture_url"] is None


@pytest.fixture
async def images(house: House, bucket: str) -> httpx.AsyncClient:
    return await house.start("image")


async def upload(images: httpx.AsyncClient, headers: dict[str, str], colour: str = "teal") -> str:
    file = io.BytesIO()
    Image.new("RGB", (700, 500), colour).save(file, "JPEG")
    answer = await images.post("/v1/images", files={"file": ("me.jpg", file.getvalue())}, headers=headers)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def picture_url(profile: httpx.AsyncClient, headers: dict[str, str]) -> str | None:
    url: str | None = (await profile.get("/v1/users/me", headers=headers)).json()["picture_url"]
    return url


async def test_a_picture_shows_when_its_variants_are_made_and_readers_see_it(
    house: House, profile: httpx.AsyncClient, images: httpx.AsyncClient, join: Join
) -> None:
    person = await join()
    image_id = await upload(images, person.headers)
    chosen = await profile.put("/v1/users/me/picture", json={"image_id": image_id}, headers=person.headers)
    assert (chosen.status_code, chosen.json()["picture_url"]) == (200, None)
    await house.start("image-worker")

    async def shown() -> bool:
        return await picture_url(profile, person.headers) is not None

    await eventually(shown, "the picture")
    url = await picture_url(profile, person.headers)
    served = await images.get(str(url), headers=house.anonymous())
    assert (served.status_code, served.headers["content-type"]) == (200, "image/jpeg")
    users = Users(house.runtimes["profile"].valkey, house.peers, "/v1/media")
    assert (await users.authors([UUID(person.id)]))[UUID(person.id)].picture_url == url
    assert (await profile.delete("/v1/users/me/picture", headers=person.headers)).status_code == 204
    assert await picture_url(profile, person.headers) is None
    again = await profile.put("/v1/users/me/picture", json={"image_id": image_id}, headers=person.headers)
    assert again.json()["picture_url"] == url


async def test_nobody_takes_another_users_image_as_picture(
    profile: httpx.AsyncClient, images: httpx.AsyncClient, join: Join
) -> None:
    owner, thief = await join(), await join()
    image_id = await upload(images, owner.headers, "red")
    for body in ({"image_id": image_id}, {"image_id": str(new_id())}):
        answer = await profile.put("/v1/users/me/picture", json=body, headers=thief.headers)
        assert answer.status_code == 422
    assert await picture_url(profile, thief.headers) is None
