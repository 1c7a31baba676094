"""``make loadtest``: a scenario against whatever runs here, ``make dev`` or a cluster's platform.

Environment: ``SCENARIO`` (celebrity), ``PROFILE`` (small), ``URL`` (found without it), ``ARGS`` (more options).
"""

from __future__ import annotations

import os
import shlex
import urllib.error
import urllib.request
from typing import Final

from tools.local.clusters import Kubectl, choose
from tools.local.up import NAMESPACE, PLATFORM, gateway_url
from tools.progress import StageError, fail, say

DEV_URL: Final = "http://127.0.0.1:8080"
PROBE_SECONDS: Final = 2.0
_HINT: Final = "start one with `make dev` or `make up`, or give URL=http://..."


def main() -> None:
    """Find the platform and become ``fanfold-loadtest run``, whose exit code is the verdict."""
    arguments, environment = command(dict(os.environ))
    say(f"$ {shlex.join(arguments)}")
    os.execvpe(arguments[0], arguments, environment)  # noqa: S606 - our own command


def command(environment: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """What to run, and in which environment.

    Raises:
        SystemExit: No platform runs here.
    """
    url, more = environment.get("URL", ""), shlex.split(environment.get("ARGS", ""))
    if not url and answers(DEV_URL):
        url = DEV_URL
    elif not url:
        try:
            environment = choose().environment()
            url = gateway_url(Kubectl(environment, NAMESPACE))
        except StageError as error:
            fail(f"no platform runs here ({str(error).splitlines()[0]}): {_HINT}", 3)
        more += ["--platform", f"{NAMESPACE}/{PLATFORM}"]
    scenario, profile = environment.get("SCENARIO") or "celebrity", environment.get("PROFILE") or "small"
    return ["fanfold-loadtest", "run", scenario, "--url", url, "--profile", profile, *more], environment


def answers(url: str) -> bool:
    """Whether a Fanfold gateway listens there: without a token it says 401."""
    try:
        urllib.request.urlopen(f"{url}/v1/users/me", timeout=PROBE_SECONDS).close()  # noqa: S310 - http, from above
    except urllib.error.HTTPError as error:
        return error.code == 401
    except OSError:
        return False
    return False


if __name__ == "__main__":
    main()
