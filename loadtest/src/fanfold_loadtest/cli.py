"""The command ``fanfold-loadtest``: the demo journey and load scenarios against a gateway."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.console import Console

from fanfold_loadtest.client import Api
from fanfold_loadtest.journey import Journey, JourneyError, Outcome, Step
from fanfold_loadtest.report import outcome_document, print_outcome, print_result, write_json
from fanfold_loadtest.scenarios import SCENARIOS, ScenarioError, run_scenario

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
console = Console()
errors = Console(stderr=True)


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise typer.BadParameter("give the gateway's base URL, e.g. http://127.0.0.1:30080")
    return url.rstrip("/")


Url = Annotated[str, typer.Option(help="Base URL of the gateway.", callback=_checked_url)]
People = Annotated[int, typer.Option(min=5, max=2_000, help="How many people join.")]
Seed = Annotated[int, typer.Option(help="Of the graph, of who likes what, and of arrivals.")]
Rate = Annotated[float, typer.Option(min=0.1, max=100_000, help="Requests a second that begin, answered or not.")]
Seconds = Annotated[float, typer.Option(min=1, max=86_400, help="How long the load lasts.")]
Json = Annotated[Path | None, typer.Option("--json", help="Also write the result to this file, readable by you only.")]


@app.command()
def demo(
    *, url: Url, people: People = 40, seed: Seed = 1, rate: Rate = 50, seconds: Seconds = 10, json: Json = None
) -> None:
    """Fill a platform with people and real photographs, check what they see, and measure feed reads.

    Safe to repeat: every run makes people with fresh names.
    """
    console.print(f"Fanfold demo at {url}", highlight=False)
    try:
        outcome = asyncio.run(_demo(url, people, seed, rate, seconds))
    except JourneyError as error:
        raise _failed(str(error)) from error
    print_outcome(console, outcome)
    if json is not None:
        write_json(json, outcome_document(outcome, rate))


async def _demo(url: str, people: int, seed: int, rate: float, seconds: float) -> Outcome:
    async with Api(url) as api:
        return await Journey(api, people, seed, _tell).run(rate, seconds)


def _tell(step: Step) -> None:
    console.print(
        f"  [green]✓[/] {step.name:28} {step.seconds:6.1f} s   {step.detail}", highlight=False, soft_wrap=True
    )


@app.command()
def run(
    *,
    scenario: Annotated[str, typer.Argument(help="One of: " + ", ".join(SCENARIOS))],
    url: Url,
    rate: Rate = 50,
    seconds: Seconds = 30,
    people: People = 40,
    seed: Seed = 1,
    json: Json = None,
) -> None:
    """Put load on a platform: people and posts are made first, then requests arrive by a seeded Poisson process.

    Latencies count from the time a request was meant to begin.
    """
    try:
        document = asyncio.run(
            run_scenario(scenario, url, rate=rate, seconds=seconds, people=people, seed=seed, tell=_tell)
        )
    except (JourneyError, ScenarioError) as error:
        raise _failed(str(error)) from error
    print_result(console, document)
    if json is not None:
        write_json(json, document)
    if document["failures"]:
        raise _failed(f"{document['failures']} requests failed: {document['first_failure']}")


def _failed(message: str) -> typer.Exit:
    errors.print(f"fanfold-loadtest: {message}", style="red", highlight=False, soft_wrap=True)
    return typer.Exit(1)


def main() -> None:
    """Entry point of the command ``fanfold-loadtest``."""
    app()
