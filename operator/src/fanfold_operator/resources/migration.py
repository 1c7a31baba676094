"""The Job that brings the database's schemas and the bucket to a version. Its name says what it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import xxhash

from fanfold.contracts.components import MIGRATION_REFUSED
from fanfold_operator.kinds import JOB
from fanfold_operator.resources import meta
from fanfold_operator.resources.pods import MOUNTS, pod_template, resources, scratch, secrets_volume

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fanfold.contracts.resources import SecretFile
    from fanfold_operator.kinds import Manifest

CONTAINER: Final = "migrate"
DEADLINE_SECONDS: Final = 1800
"""Longer than any migration should take; one that needs more is to be run by hand."""
REFUSED: Final = "PodFailurePolicy"
"""Reason of a Job that failed because its pod refused: trying again is of no use."""


def migration(  # noqa: PLR0913 - all that the Job is made of, by keyword
    owner: Manifest,
    *,
    version: str,
    image: str,
    pull_policy: str,
    env: Mapping[str, str],
    files: Iterable[SecretFile],
) -> Manifest:
    """A Job named after the digest of what it would run: anything new makes another Job, as a Job cannot be changed."""
    platform = owner["metadata"]["name"]
    container = {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": pull_policy,
        "args": ["migrate"],
        "env": [{"name": name, "value": value} for name, value in env.items()],
        "resources": resources({"cpu": "50m", "memory": "128Mi"}, {"memory": "512Mi"}),
        "volumeMounts": MOUNTS,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    labels = meta.labels(platform, meta.MIGRATIONS, version)
    volumes = [secrets_volume(files), scratch("64Mi")]
    spec: dict[str, Any] = {
        "backoffLimit": 4,
        "activeDeadlineSeconds": DEADLINE_SECONDS,
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "FailJob",
                    "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [MIGRATION_REFUSED]},
                }
            ]
        },
        "template": pod_template(labels, container, volumes, restartPolicy="Never"),
    }
    digest = xxhash.xxh3_64_hexdigest(msgspec.json.encode(spec, order="sorted"))[:10]
    name = meta.child_name(platform, f"migrate-{digest}")
    return meta.manifest(JOB, owner, name, platform=platform, component=meta.MIGRATIONS, version=version, spec=spec)
