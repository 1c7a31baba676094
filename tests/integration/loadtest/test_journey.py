"""The demo and a scenario through a real gateway and all services; and that the demo notices what is broken."""

from __future__ import annotations

from typing import Any

import pytest

from fanfold_loadtest import journey
from fanfold_loadtest.checks import Expected
from fanfold_loadtest.client import Api
from fanfold_loadtest.journey import Journey, JourneyError, Step

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

PEOPLE = 8


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journey, "UPLOADS", 4)
    monkeypatch.setattr(journey, "POSTS", 12)
    monkeypatch.setattr(journey, "READERS", 3)


async def demo(url: str, steps: list[Step]) -> journey.Outcome:
    async with Api(url) as api:
        return await Journey(api, PEOPLE, seed=1, tell=steps.append).run(rate=20, seconds=1)


async def test_the_demo_passes_twice_on_one_platform_and_its_user_can_log_in(platform: str, house: Any) -> None:
    await house.start("image-worker", image_processes=1)
    names = set()
    for _ in range(2):
        steps: list[Step] = []
        outcome = await demo(platform, steps)
        assert [step.name for step in steps][-1] == "measure feed reads"
        assert outcome.feed_reads.failures == []
        names.add(outcome.username)
    assert len(names) == 2
    async with Api(platform) as api:
        person = await api.login(outcome.username, outcome.password)
        assert (await person.feed()).items


async def test_the_demo_notices_that_no_variants_are_made(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journey, "VARIANTS_SECONDS", 1.0)
    steps: list[Step] = []
    with pytest.raises(JourneyError, match=r"^wait for variants: image .* is still pending"):
        await demo(platform, steps)
    assert steps[-1].name == "upload photographs"


async def test_the_demo_notices_a_like_that_is_not_counted(
    platform: str, house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.start("image-worker", image_processes=1)
    monkeypatch.setattr(journey, "SETTLE_SECONDS", 1.0)
    react = Journey._react

    async def forget(self: Journey) -> str:
        told = await react(self)
        for post in self.posts:
            post.liked_by.add("somebody the platform never heard of")
        return told

    monkeypatch.setattr(Journey, "_react", forget)
    with pytest.raises(JourneyError, match=r"^check feeds: feed of .*like_count"):
        await demo(platform, [])


async def test_what_is_measured_begins_when_the_preparations_own_posts_have_arrived(
    platform: str, house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.start("image-worker", image_processes=1)
    steps: list[Step] = []
    async with Api(platform) as api:
        made = Journey(api, PEOPLE, seed=1, tell=steps.append)
        await made.populate(watchers=5)
        newest = [post.id for post in made.posts if post.author == made.people[0].id][-1]
        for person in made.people[-5:]:
            assert newest in {post.id for post in (await person.feed()).items}
    assert (steps[-1].name, made.undrained) == ("wait for fan-out", "")
    monkeypatch.setattr(journey, "FANOUT_SECONDS", 0.5)
    react = Journey._react

    async def forget(self: Journey) -> str:
        told = await react(self)
        self.posts.append(Expected("not published", self.people[0].id, ""))
        return told

    monkeypatch.setattr(Journey, "_react", forget)
    async with Api(platform) as api:
        late = Journey(api, PEOPLE, seed=1, tell=steps.append)
        await late.populate(watchers=5)
    assert late.undrained.startswith("its own fan-out was under way when the load began: ")
    assert "does not see the newest" in steps[-1].detail
