"""Load scenarios: people and posts are made by the demo's steps, the load by Locust in a process of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fanfold_loadtest.arrivals import DRAIN_SECONDS
from fanfold_loadtest.client import Api
from fanfold_loadtest.journey import Journey, Step
from fanfold_loadtest.plan import PLAN_VARIABLE, Plan, Reader, Result, result_path

if TYPE_CHECKING:
    from collections.abc import Callable

SCENARIOS: Final = {"browse": "Browse"}
"""Locust user class by scenario."""
START_SECONDS: Final = 30.0
"""For Locust to start and to end."""
TOKEN_MARGIN: Final = 60


class ScenarioError(Exception):
    """The load could not be made; the message says why, in one line."""


async def run_scenario(  # noqa: PLR0913 - the command's options
    name: str, url: str, *, rate: float, seconds: float, people: int, seed: int, tell: Callable[[Step], None]
) -> dict[str, Any]:
    """Make people and posts, then the load; the result as a JSON-ready document.

    Raises:
        ScenarioError: No such scenario, a run longer than a login, or Locust failed.
        JourneyError: People and posts could not be made.
    """
    if name not in SCENARIOS:
        raise ScenarioError(f"there is no scenario {name!r}; there are: {', '.join(SCENARIOS)}")
    async with Api(url) as api:
        journey = Journey(api, people, seed, tell)
        await journey.populate()
    plan = make_plan(journey, rate, seconds, seed)
    with TemporaryDirectory(prefix="fanfold-loadtest-") as folder:  # mode 0700: the plan holds tokens
        result = await _run_locust(SCENARIOS[name], url, plan, Path(folder))
    figures: dict[str, Any] = msgspec.to_builtins(result)
    return {"scenario": name, "url": url, "rate_per_second": rate, "seconds": seconds, **figures}


def make_plan(journey: Journey, rate: float, seconds: float, seed: int) -> Plan:
    """The plan on what a journey has made.

    Raises:
        ScenarioError: Logins would end before the load does.
    """
    life = min(person.expires_in for person in journey.people) - TOKEN_MARGIN
    if seconds > life:
        raise ScenarioError(f"access tokens of this platform live for {life + TOKEN_MARGIN} s: run at most {life} s")
    return Plan(
        rate=rate,
        seconds=seconds,
        seed=seed,
        readers=[Reader(person.id, person.token) for person in journey.people],
        authors=sorted({post.author for post in journey.posts}),
        posts=[post.id for post in journey.posts],
    )


async def _run_locust(user_class: str, url: str, plan: Plan, folder: Path) -> Result:
    plan_file = folder / "plan.json"
    plan_file.write_bytes(msgspec.json.encode(plan))
    command = [sys.executable, "-m", "locust", "-f", str(resources.files("fanfold_loadtest") / "locustfile.py")]
    command += [user_class, "--headless", "--users", "1", "--host", url, "--only-summary", "--loglevel", "WARNING"]
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,  # a locust.conf of the caller's folder is not for us
        env={**os.environ, PLAN_VARIABLE: str(plan_file)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(plan.seconds + DRAIN_SECONDS + START_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError as error:
        raise ScenarioError("Locust did not end in time") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        return msgspec.json.decode(result_path(plan_file).read_bytes(), type=Result)
    except FileNotFoundError as error:
        last = output.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise ScenarioError(f"Locust ended with {process.returncode} and no result: {last[0]}") from error
