from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanfold.gateway import limits
from fanfold.gateway.limits import Policy, limits_of, network_of
from fanfold.gateway.metrics import GatewayStats
from fanfold.gateway.settings import GatewaySettings
from fanfold.kit.errors import TooManyRequests

if TYPE_CHECKING:
    from tests.unit.gateway.conftest import Rig


def admitted(policy: Policy, key: str, now: float) -> bool:
    try:
        policy.take(key, now)
    except TooManyRequests:
        return False
    return True


def test_a_burst_is_let_through_then_the_rate() -> None:
    policy = Policy("user", rate=2, burst=5)
    assert [admitted(policy, "a", 0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert [admitted(policy, "a", 1) for _ in range(3)] == [True, True, False]
    assert admitted(policy, "b", 1)


@given(st.lists(st.floats(0, 0.5), min_size=1, max_size=300), st.integers(1, 20), st.floats(0.5, 50))
def test_never_more_than_burst_and_rate_allow(pauses: list[float], burst: int, rate: float) -> None:
    policy = Policy("user", rate, burst)
    now, let_through = 0.0, 0
    for pause in pauses:
        now += pause
        let_through += admitted(policy, "a", now)
    assert let_through <= burst + rate * now + 1e-6


def test_the_answer_tells_what_is_left_and_the_refusal_when_to_come_back() -> None:
    policy = Policy("user", rate=0.5, burst=2)
    policy.take("a", 0)
    assert policy.take("a", 0) == b'ratelimit-policy: "user";q=2;w=4\r\nratelimit: "user";r=0;t=4\r\n'
    with pytest.raises(TooManyRequests) as refused:
        policy.take("a", 1)
    assert refused.value.headers == {
        "retry-after": "1",
        "ratelimit-policy": '"user";q=2;w=4',
        "ratelimit": '"user";r=0;t=1',
    }


def test_valkey_is_told_of_callers_who_took_an_eighth_and_of_nobody_else() -> None:
    policy = Policy("user", rate=10, burst=80)
    for _ in range(9):
        policy.take("quiet", 0)
    for _ in range(15):
        policy.take("busy", 0)
    assert [(key, bucket.untold) for key, bucket in policy.due()] == [("busy", 15)]
    assert policy.due() == []
    policy.take("busy", 0)
    assert [key for key, _ in policy.due()] == ["busy"]  # what is not told stays due


def test_buckets_that_are_full_again_are_forgotten_and_their_number_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy("user", rate=1, burst=10)
    policy.take("old", 0)
    policy.take("new", 5)
    policy.forget_full(11)
    assert len(policy) == 1
    monkeypatch.setattr(limits, "MAX_BUCKETS", 3)
    for key in range(10):
        policy.take(key, 12)
    assert len(policy) == 3


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::ffff", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("not:an:address", "not:an:address"),
    ],
)
def test_an_ipv6_customer_is_one_client(address: str, network: str) -> None:
    assert network_of(address) == network


def test_without_any_limit_there_is_nothing_to_ask() -> None:
    assert limits_of(GatewaySettings(snapshot_source="file:/x", user_rate=0), GatewayStats()) is None


async def statuses(rig: Rig, count: int, **how: Any) -> list[int]:
    return [(await rig.ask(**how)).status for _ in range(count)]


async def test_a_user_over_the_limit_is_told_and_others_are_not_held_up(rig: Rig) -> None:
    await rig.start(user_rate=0.01, user_burst=3)
    user = uuid4()
    request = b"GET /v1/feed HTTP/1.1\r\nhost: a\r\n" + rig.bearer(user) + b"\r\n"
    wire = await rig.send(request * 4)
    answers = [await wire.answer() for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert answers[0].headers["ratelimit"] == '"user";r=2;t=100'
    assert 90 <= int(answers[3].headers["retry-after"]) <= 100
    assert answers[3].problem["type"].endswith("too-many-requests")
    assert "connection" not in answers[3].headers
    assert len(rig.service.received) == 3
    assert await statuses(rig, 3) == [200] * 3  # each with a user of its own
    assert rig.stats.limited == {"user": 1}


async def test_an_address_over_the_limit_is_refused_before_its_token_is_looked_at(rig: Rig) -> None:
    await rig.start(address_rate=0.01, address_burst=2)
    wire = await rig.send(b"GET /v1/feed HTTP/1.1\r\nhost: a\r\nauthorization: Bearer nonsense\r\n\r\n" * 3)
    assert [(await wire.answer()).status for _ in range(3)] == [401, 401, 429]


async def test_login_has_a_limit_of_its_own(rig: Rig) -> None:
    await rig.start(login_rate=0.01, login_burst=1)
    for path in (b"POST /v1/sessions", b"POST /v1/accounts", b"POST /v1/sessions/refresh"):
        assert await statuses(rig, 1, line=path, body=b"{}") == [200 if path.endswith(b"/sessions") else 429]
    assert await statuses(rig, 3, line=b"GET /v1/media/x") == [200] * 3


async def test_behind_a_trusted_proxy_the_client_counts_and_not_what_it_claims(rig: Rig) -> None:
    await rig.start(address_rate=0.01, address_burst=1, trusted_proxies=["127.0.0.0/8", "10.0.0.0/8"])

    async def ask(chain: bytes) -> int:
        return (await statuses(rig, 1, line=b"GET /v1/media/x", headers=b"x-forwarded-for: " + chain + b"\r\n"))[0]

    assert await ask(b"198.51.100.1") == 200
    assert await ask(b"6.6.6.6, 198.51.100.1") == 429  # a made-up address in front changes nothing
    assert await ask(b"198.51.100.1, 10.1.1.1") == 429  # nor does a second proxy behind
    assert await ask(b"198.51.100.2") == 200


async def test_an_untrusted_client_cannot_choose_its_address(rig: Rig) -> None:
    await rig.start(address_rate=0.01, address_burst=1)
    for number, expected in ((1, 200), (2, 429)):
        chain = b"x-forwarded-for: 192.0.2.%d\r\n" % number
        assert await statuses(rig, 1, line=b"GET /v1/media/x", headers=chain) == [expected]
