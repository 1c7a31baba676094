from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

import pytest
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from fanfold.contracts import headers, keys, live
from fanfold.contracts.ids import new_id
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.integration.gateway.conftest import Rig

pytestmark = pytest.mark.integration


async def test_a_notification_reaches_its_user_and_nobody_else(rig: Rig) -> None:
    await rig.start()
    mine = await rig.open()
    other = new_id()
    await rig.redis.publish(keys.notifications(other), json.dumps({"id": str(new_id())}))
    first, second = new_id(), new_id()
    await rig.publish(first, kind="like")
    await rig.publish(second, kind="comment")
    assert await mine.message() == {"id": str(first), "kind": "like"}
    assert await mine.message() == {"id": str(second), "kind": "comment"}


async def test_two_devices_of_one_user_both_hear_and_one_may_leave(rig: Rig) -> None:
    await rig.start()
    phone = await rig.open()
    laptop = await rig.open()
    await rig.publish(first := new_id())
    assert (await phone.message())["id"] == (await laptop.message())["id"] == str(first)
    phone.send(CloseConnection(1000))
    assert (await phone.closed())[0] == 1000
    await rig.publish(second := new_id())
    assert (await laptop.message())["id"] == str(second)
    laptop.writer.close()

    async def nobody_listens() -> bool:
        return await rig.listeners() == 0

    await eventually(nobody_listens)
    assert await rig.metric("fanfold_gateway_websockets ") == 0


async def test_a_client_that_was_away_gets_what_it_missed_in_order_and_once(rig: Rig) -> None:
    ids = [new_id() for _ in range(5)]
    rig.missed = [{"id": str(one)} for one in ids[:4]]

    async def meanwhile() -> None:
        await rig.publish(ids[3])
        await rig.publish(ids[4])

    rig.before_listing = meanwhile
    await rig.start()
    socket = await rig.socket(f"?cursor={ids[0]}")
    assert [(await socket.message())["id"] for _ in range(4)] == [str(one) for one in ids[1:]]
    asked = rig.seen[0]
    assert asked.query_params["after"] == str(ids[0])
    assert asked.headers[headers.IDENTITY].startswith(f"v1.user:{rig.user}:{rig.session}.")
    await rig.publish(last := new_id())
    assert (await socket.message())["id"] == str(last)


async def test_several_pages_of_missed_notifications_come_whole_and_in_order(rig: Rig) -> None:
    ids = [new_id() for _ in range(251)]
    rig.missed = [{"id": str(one)} for one in ids]
    await rig.start()
    socket = await rig.socket(f"?cursor={ids[0]}")
    assert [(await socket.message())["id"] for _ in range(250)] == [str(one) for one in ids[1:]]


async def test_a_client_that_missed_too_much_reads_the_list_first(rig: Rig) -> None:
    ids = [new_id() for _ in range(502)]
    rig.missed = [{"id": str(one)} for one in ids]
    await rig.start()
    socket = await rig.socket(f"?cursor={ids[0]}")
    code, reason = await socket.closed()
    assert code == 1013
    assert "GET /v1/notifications" in reason


async def test_a_message_that_is_no_notification_is_passed_on(rig: Rig) -> None:
    await rig.start()
    socket = await rig.open()
    for _ in range(2):
        await rig.redis.publish(keys.notifications(rig.user), live.poll(10))
        assert await socket.message() == {"kind": "poll", "interval": 10}


async def test_when_what_was_missed_cannot_be_read_the_client_comes_again(rig: Rig) -> None:
    async def fail() -> None:
        raise ConnectionError

    rig.before_listing = fail
    await rig.start()
    socket = await rig.socket(f"?cursor={new_id()}")
    code, reason = await socket.closed()
    assert code == 1013
    assert "cursor" in reason


async def test_after_valkey_was_away_sockets_get_what_they_missed(rig: Rig) -> None:
    await rig.start()
    socket = await rig.open()
    await rig.publish(first := new_id())
    await socket.message()
    missed = new_id()
    rig.missed = [{"id": str(first)}, {"id": str(missed)}]
    killed = await rig.redis.client_kill_filter(_type="pubsub")
    assert killed == 1
    assert (await socket.message())["id"] == str(missed)
    await eventually(rig.listeners)
    await rig.publish(last := new_id())
    assert (await socket.message())["id"] == str(last)


@pytest.mark.parametrize("way", ["header", "subprotocol", "bare subprotocol", "query"])
async def test_a_token_may_come_in_three_ways(rig: Rig, way: str) -> None:
    await rig.start()
    token = rig.token()
    query, sent, chosen = {
        "header": ("", {"authorization": f"Bearer {token}"}, None),
        "subprotocol": ("", {"sec-websocket-protocol": f"fanfold.v1, bearer.{token}"}, "fanfold.v1"),
        "bare subprotocol": ("", {"sec-websocket-protocol": f"bearer.{token}"}, f"bearer.{token}"),
        "query": (f"?access_token={token}", {}, None),
    }[way]
    socket = await rig.socket(query, dict(sent))
    assert socket.status == 101
    assert socket.headers.get("sec-websocket-protocol") == chosen


@pytest.mark.parametrize(
    ("over", "status"),
    [
        ({"authorization": ""}, 401),
        ({"authorization": "Bearer nonsense"}, 401),
        ({"upgrade": "", "connection": ""}, 426),
        ({"connection": "keep-alive"}, 426),
        ({"sec-websocket-version": "8"}, 426),
        ({"sec-websocket-key": "short"}, 400),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "http://gateway.evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://gateway"}, 101),
        ({"origin": "https://friend.example"}, 101),
    ],
)
async def test_a_handshake_is_checked(rig: Rig, over: dict[str, str], status: int) -> None:
    await rig.start(websocket_origins=("https://friend.example",))
    socket = await rig.socket(headers={**rig.bearer(), **over})
    assert socket.status == status
    if status == 426:
        assert socket.headers["sec-websocket-version" if "sec-websocket-version" in over else "upgrade"]


async def test_a_malformed_cursor_is_refused(rig: Rig) -> None:
    await rig.start()
    assert (await rig.socket("?cursor=a%20b")).status == 400


async def test_pings_are_answered_and_sent(rig: Rig) -> None:
    await rig.start(websocket_ping_seconds=2)
    socket = await rig.open()
    socket.send(Ping(b"hello"))
    event = await socket.event()
    assert isinstance(event, Pong)
    assert bytes(event.payload) == b"hello"
    while socket.pings < 2:
        await rig.publish(one := new_id())
        assert (await socket.message())["id"] == str(one)  # answers pings on the way
        await asyncio.sleep(0.1)


async def test_a_client_that_answers_no_ping_is_dropped(rig: Rig) -> None:
    await rig.start(websocket_ping_seconds=0.3)
    socket = await rig.open()
    with pytest.raises(EOFError):
        await socket.event(answer_pings=False)
    assert await rig.metric('fanfold_gateway_websocket_closes_total{code="1011"}') == 1


async def test_a_client_that_says_too_much_is_closed_with_1009(rig: Rig) -> None:
    await rig.start()
    socket = await rig.open()
    socket.send(TextMessage("x" * 4096))
    socket.send(BytesMessage(b"x" * 3000, message_finished=False))
    socket.send(BytesMessage(b"x" * 3000))
    assert (await socket.closed())[0] == 1009


@pytest.mark.parametrize(
    ("frame", "code"), [(b"\x81\x02hi", 1002), (b"\xf1\x80\0\0\0\0", 1002), (b"\x81\x82\0\0\0\0\xff\xfe", 1007)]
)
async def test_a_client_that_breaks_the_protocol_is_closed_with_its_code(rig: Rig, frame: bytes, code: int) -> None:
    await rig.start()
    socket = await rig.open()
    socket.writer.write(frame)
    assert (await socket.closed())[0] == code


async def test_a_slow_reader_is_closed_with_1013_and_told_to_come_back(rig: Rig) -> None:
    await rig.start(websocket_max_buffer=20_000)
    socket = await rig.open()
    socket.reader._transport.pause_reading()  # type: ignore[attr-defined]

    async def closed() -> bool:
        for _ in range(100):
            await rig.publish(new_id(), filler="x" * 60_000)
        return await rig.metric('fanfold_gateway_websocket_closes_total{code="1013"}') == 1

    await eventually(closed)


async def test_a_logout_ends_the_sockets_of_its_session(rig: Rig) -> None:
    await rig.start()
    socket = await rig.open()
    await rig.redis.zadd(keys.REVOKED_SESSIONS, {rig.session.bytes: int(time.time()) + 900})
    assert await socket.closed() == (1008, "this session was logged out")


async def test_a_socket_ends_with_its_token(rig: Rig) -> None:
    await rig.start()
    socket = await rig.open(headers=rig.bearer(lifetime=-25))
    code, reason = await socket.closed()
    assert code == 1008
    assert "expired" in reason


async def test_a_gateway_that_shuts_down_tells_sockets_when_to_come_back(rig: Rig) -> None:
    await rig.start(grace_seconds=30)
    sockets = [await rig.open() for _ in range(3)]
    drained = asyncio.create_task(rig.stop())
    ends = [await socket.closed() for socket in sockets]
    await drained
    assert {code for code, _ in ends} == {1012}
    assert all(reason.startswith("reconnect after ") for _, reason in ends)
    assert len({reason for _, reason in ends}) > 1


async def test_a_frame_that_comes_with_the_handshake_is_not_lost(rig: Rig) -> None:
    await rig.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(
        b"GET /v1/ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
        b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nauthorization: Bearer %b\r\n\r\n"
        % rig.token().encode()
        + b"\x89\x80\0\0\0\0"
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head
    assert await reader.readexactly(2) == b"\x8a\x00"
    writer.close()
