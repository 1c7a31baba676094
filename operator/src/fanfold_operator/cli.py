"""The command ``fanfold-operator``."""

from __future__ import annotations

import asyncio
import sys
from importlib.metadata import version as distribution_version
from typing import Annotated

import typer
import uvloop

from fanfold_operator import logs
from fanfold_operator.api import ApiError, LoginError
from fanfold_operator.leadership import election
from fanfold_operator.operator import NotInstalledError, Operator, Options
from fanfold_operator.planning.actions import Images
from fanfold_operator.removal import StillThereError, remove_platforms

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)

_ENV = "FANFOLD_OPERATOR_"


@app.command()
def run(  # noqa: PLR0917 - typer calls it by keyword
    namespace: Annotated[
        str | None, typer.Option(envvar=_ENV + "NAMESPACE", help="Serve this namespace only. Without it: all.")
    ] = None,
    all_namespaces: Annotated[
        bool, typer.Option("--all-namespaces", help="Serve all namespaces (the default; excludes --namespace).")
    ] = False,
    image_prefix: Annotated[
        str, typer.Option(envvar=_ENV + "IMAGE_PREFIX", help="Repository of images, without name and tag.")
    ] = "localhost/fanfold",
    image_version: Annotated[
        str | None,
        typer.Option(
            envvar=_ENV + "IMAGE_VERSION", help="Version of Platforms that name none. Default: the operator's."
        ),
    ] = None,
    admin_host: Annotated[
        str, typer.Option(envvar=_ENV + "ADMIN_HOST", help="Address of health and metrics.")
    ] = "0.0.0.0",  # noqa: S104 - probes come from the node, scrapes from Prometheus
    admin_port: Annotated[int, typer.Option(envvar=_ENV + "ADMIN_PORT", min=0, max=65535)] = 9000,
    admin_service: Annotated[
        str,
        typer.Option(
            envvar=_ENV + "ADMIN_SERVICE",
            help="NAME.NAMESPACE.svc of the admin port's headless Service: an embedded Prometheus asks it for targets.",
        ),
    ] = "",
    workers: Annotated[
        int, typer.Option(envvar=_ENV + "WORKERS", min=1, max=64, help="Resources reconciled at once.")
    ] = 8,
    resync_seconds: Annotated[
        float, typer.Option(envvar=_ENV + "RESYNC_SECONDS", min=10, help="Between full listings.")
    ] = 300.0,
    leader_elect: Annotated[
        bool,
        typer.Option(
            "--leader-elect/--no-leader-elect",
            envvar=_ENV + "LEADER_ELECT",
            help="Write only while holding a Lease, so that several may run. Without it, nothing else may run beside.",
        ),
    ] = True,
    lease_namespace: Annotated[
        str | None,
        typer.Option(
            envvar=_ENV + "LEASE_NAMESPACE", help="Where the Lease is. Default: the pod's, or --namespace, or default."
        ),
    ] = None,
    lease_name: Annotated[
        str, typer.Option(envvar=_ENV + "LEASE_NAME", help="The Lease. Operators that serve the same share it.")
    ] = "fanfold-operator",
    log_level: Annotated[str, typer.Option(envvar=_ENV + "LOG_LEVEL", help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
) -> None:
    """Run until SIGTERM: deploy, heal and scale the Platforms of one namespace or of all."""
    if namespace and all_namespaces:
        raise _fail("give either --namespace or --all-namespaces")
    if log_level.upper() not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
        raise _fail(f"--log-level is DEBUG, INFO, WARNING or ERROR, not {log_level!r}")
    logs.configure(log_level.upper(), console=sys.stdout.isatty())
    options = Options(
        images=Images(image_prefix.rstrip("/"), image_version or distribution_version("fanfold-operator")),
        namespace=namespace,
        admin_host=admin_host,
        admin_port=admin_port,
        admin_service=admin_service,
        workers=workers,
        resync_seconds=resync_seconds,
        election=election(lease_namespace or namespace, lease_name) if leader_elect else None,
    )
    try:
        uvloop.run(_run(options))
    except (LoginError, NotInstalledError) as error:
        raise _fail(str(error)) from error
    except ApiError as error:
        raise _fail(f"the API server refused: {error.message}", code=1) from error


@app.command()
def delete_platforms(
    namespace: Annotated[str | None, typer.Option(envvar=_ENV + "NAMESPACE", help="Those of this namespace.")] = None,
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", help="Those of all namespaces.")] = False,
    seconds: Annotated[float, typer.Option(min=1, help="Most time to wait.")] = 240.0,
) -> None:
    """Delete Platforms and wait until all that belongs to them is gone. Data stays where deletionPolicy is Retain."""
    if bool(namespace) == all_namespaces:
        raise _fail("give --namespace or --all-namespaces, and not both")
    logs.configure("INFO", console=sys.stdout.isatty())
    try:
        count = asyncio.run(remove_platforms(namespace, seconds))
    except LoginError as error:
        raise _fail(str(error)) from error
    except StillThereError as error:
        raise _fail(str(error), code=1) from error
    except ApiError as error:
        raise _fail(f"the API server refused: {error.message}", code=1) from error
    typer.echo(f"{count} Platforms are gone")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(distribution_version("fanfold-operator"))


async def _run(options: Options) -> None:
    await Operator(options).run()


def _fail(message: str, code: int = 2) -> typer.Exit:
    typer.secho(f"fanfold-operator: {message}", fg="red", err=True)
    return typer.Exit(code)


def main() -> None:
    """Entry point."""
    app()
