"""The command ``fanfold``: runs components, migrations, the development platform and repairs."""

from __future__ import annotations

import asyncio
import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fanfold.contracts.components import BY_NAME, MIGRATED, MIGRATION_REFUSED
from fanfold.contracts.events import TOPICS
from fanfold.contracts.roles import MODERATOR, ROLES

if TYPE_CHECKING:
    from types import ModuleType

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
dead_letters = typer.Typer(no_args_is_help=True, help="Messages given up on: list, replay or drop them.")
app.add_typer(dead_letters, name="deadletters")
roles = typer.Typer(no_args_is_help=True, help="Who may moderate: grant, revoke or list roles.")
app.add_typer(roles, name="roles")

console = Console()
errors = Console(stderr=True)


def _fail(message: str, code: int = 2) -> typer.Exit:
    errors.print(f"fanfold: {message}", style="red", highlight=False)
    return typer.Exit(code)


def _module(component: str) -> ModuleType:
    """``feed-worker`` lives in ``fanfold.feed.worker``, ``feed`` in ``fanfold.feed.app``."""
    room, _, role = component.partition("-")
    return importlib.import_module(f"fanfold.{room}.{role or 'app'}")


@app.command()
def run(component: Annotated[str, typer.Argument(help="One of: " + ", ".join(BY_NAME))]) -> None:
    """Run one component until SIGTERM."""
    if component not in BY_NAME:
        raise _fail(f"no component {component!r}; there are: {', '.join(BY_NAME)}")
    os.environ.setdefault("FANFOLD_SERVICE", component)
    from fanfold.kit.runtime import run as run_component  # noqa: PLC0415 - loads all libraries; other commands need none

    module = _module(component)
    raise typer.Exit(run_component(module.build, module.SETTINGS))


@app.command()
def migrate() -> None:
    """Bring every room's schema to its newest revision and make the bucket. Safe to repeat.

    Ends with 3 and changes nothing where this version and the schemas, or what runs now, cannot work together.
    """
    from fanfold.kit import logging as logs  # noqa: PLC0415
    from fanfold.kit.compatibility import IncompatibleError  # noqa: PLC0415
    from fanfold.kit.migrations import check, upgrade  # noqa: PLC0415
    from fanfold.kit.objects import ensure_bucket  # noqa: PLC0415
    from fanfold.kit.settings import ObjectStoreSettings, SettingsError, load  # noqa: PLC0415

    try:
        settings = load(ObjectStoreSettings)
        logs.configure(settings)
        url = settings.secrets.read("database_url")
        check(MIGRATED, url)
        for room in MIGRATED:
            upgrade(room, url)
            console.print(f"migrated {room}")
        ensure_bucket(settings)
        console.print(f"bucket {settings.s3_bucket} is there")
    except SettingsError as error:
        raise _fail(str(error)) from error
    except IncompatibleError as error:
        raise _fail(str(error), code=MIGRATION_REFUSED) from error


@app.command()
def dev(  # noqa: PLR0917 - options of a command
    folder: Annotated[Path, typer.Option(help="Data, secrets and logs; kept between runs.")] = Path(".fanfold/dev"),
    services: Annotated[str, typer.Option(help="Components to run, with commas between them; all without it.")] = "",
    port: Annotated[int, typer.Option(help="The gateway's port; 0 for any that is free.", min=0, max=65535)] = 8080,
    once: Annotated[bool, typer.Option("--once", help="Stop as soon as everything is ready.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Do not show the components' logs.")] = False,
    ready_seconds: Annotated[float, typer.Option(help="Longest wait until everything is ready.", min=1)] = 180,
) -> None:
    """Run the platform on this machine, with real PostgreSQL, Valkey and S3, until Ctrl-C."""
    from fanfold.dev.plan import PlanError  # noqa: PLC0415
    from fanfold.dev.platform import Options, run  # noqa: PLC0415
    from fanfold.dev.process import ProcessError  # noqa: PLC0415

    names = tuple(name.strip() for name in services.split(",") if name.strip())
    options = Options(folder=folder, services=names, port=port, once=once, quiet=quiet, ready_seconds=ready_seconds)
    try:
        run(options, lambda text: console.print(f"fanfold dev: {text}", highlight=False), colour=console.is_terminal)
    except (PlanError, ProcessError) as error:
        raise _fail(str(error), code=1) from error


@app.command("media-key")
def media_key() -> None:
    """Print the keys that sign addresses of photos, in hex, for a CDN that verifies them. The first signs."""
    from fanfold.kit.keyring import Keyring  # noqa: PLC0415
    from fanfold.kit.media import LABEL  # noqa: PLC0415
    from fanfold.kit.settings import Settings, SettingsError, load  # noqa: PLC0415

    try:
        secret = load(Settings).secrets.read("identity_key")
    except SettingsError as error:
        raise _fail(str(error)) from error
    for key in Keyring(secret, LABEL).keys:
        typer.echo(key.hex())


def _streams_command(work: Any) -> Any:
    """Run ``work(redis)`` with a client made from the settings."""
    from fanfold.kit.cluster import connect_redis  # noqa: PLC0415
    from fanfold.kit.settings import Settings, SettingsError, load  # noqa: PLC0415

    async def main() -> Any:
        redis = connect_redis(load(Settings).secrets.read("valkey_url"))
        async with redis:
            return await work(redis)

    try:
        return asyncio.run(main())
    except SettingsError as error:
        raise _fail(str(error)) from error


def _checked_topic(topic: str) -> str:
    if topic not in TOPICS and not topic.startswith("fanout-"):
        raise _fail(f"no topic {topic!r}; there are: {', '.join(TOPICS)} and fanout-<lane>")
    return topic


@dead_letters.command("list")
def list_dead_letters(topic: str, limit: int = 20) -> None:
    """Show the newest dead letters of a topic."""
    from fanfold.kit.streams import list_dead  # noqa: PLC0415

    letters = _streams_command(lambda redis: list_dead(redis, _checked_topic(topic), limit))
    table = Table("id", "stream", "group", "reason")
    for letter in letters:
        table.add_row(letter.id, letter.stream, letter.group, letter.reason)
    console.print(table)


@dead_letters.command("replay")
def replay_dead_letters(topic: str, limit: int = 1_000) -> None:
    """Put the oldest dead letters back on their streams; consumers are idempotent."""
    from fanfold.kit.streams import replay_dead  # noqa: PLC0415

    console.print(f"replayed {_streams_command(lambda redis: replay_dead(redis, _checked_topic(topic), limit))}")


@dead_letters.command("drop")
def drop_dead_letters(topic: str) -> None:
    """Delete all dead letters of a topic for good."""
    from fanfold.kit.streams import drop_dead  # noqa: PLC0415

    console.print(f"dropped {_streams_command(lambda redis: drop_dead(redis, _checked_topic(topic)))}")


def _roles_command(work: Any) -> Any:
    """Run ``work(roles)`` on the database and Valkey of the settings."""
    from fanfold.kit.errors import Problem  # noqa: PLC0415
    from fanfold.kit.settings import SettingsError, load  # noqa: PLC0415
    from fanfold.profile.app import roles_of  # noqa: PLC0415
    from fanfold.profile.settings import ProfileSettings  # noqa: PLC0415

    async def main() -> Any:
        async with roles_of(load(ProfileSettings)) as opened:
            return await work(opened)

    try:
        return asyncio.run(main())
    except SettingsError as error:
        raise _fail(str(error)) from error
    except Problem as problem:
        raise _fail(problem.detail, code=1) from problem


Reason = Annotated[str, typer.Option(help="Why; it stands in the log.")]


@roles.command("grant")
def grant_role(username: str, role: str = MODERATOR, reason: Reason = "") -> None:
    """Give a user a role: tokens have it from the next login or refresh on."""
    if role not in ROLES:
        raise _fail(f"no role {role!r}; there are: {', '.join(ROLES)}")
    _roles_command(lambda opened: opened.grant(username, role, reason))
    console.print(f"{username} is a {role}")


@roles.command("revoke")
def revoke_role(username: str, reason: Reason = "") -> None:
    """Take a user's role, and end all their sessions."""
    _roles_command(lambda opened: opened.revoke(username, reason))
    console.print(f"{username} has no role")


@roles.command("list")
def list_roles() -> None:
    """Show who has a role."""
    table = Table("user", "id", "role")
    for user in _roles_command(lambda opened: opened.holders()):
        table.add_row(user.username, str(user.id), user.role)
    console.print(table)


def main() -> None:
    """Entry point of the command ``fanfold``."""
    app()
