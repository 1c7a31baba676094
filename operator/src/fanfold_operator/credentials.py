"""The generated Secret of a Platform: made once, completed when a new version needs more, never changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from fanfold_operator import kinds
from fanfold_operator.api import ApiError
from fanfold_operator.apply import CREDENTIALS_MANAGER, PLATFORM_MANAGER
from fanfold_operator.kinds import Key, Manifest
from fanfold_operator.resources import credentials, meta, stores

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fanfold_operator.api import Api
    from fanfold_operator.apply import Writer

log = structlog.stdlib.get_logger(__name__)


class Credentials:
    """Reads and completes the Secret. Its values stay in this module: nothing returns or logs them."""

    def __init__(self, api: Api, writer: Writer) -> None:
        self._api = api
        self._writer = writer

    async def ensure(self, resource: Manifest, embedded: Iterable[str], *, retain: bool) -> tuple[str, ...]:
        """See that the Secret is whole. Where it is gone but volumes made with it are not, make none and name them.

        Args:
            resource: The Platform.
            embedded: Names of its embedded stores.
            retain: Whether the Secret outlives the Platform, as its volumes do.
        """
        platform, namespace = resource["metadata"]["name"], resource["metadata"]["namespace"]
        key = Key(kinds.SECRET.kind, namespace, meta.credentials_name(platform))
        secret = await self._find(key)
        if secret is None:
            claims = [Key(kinds.VOLUME_CLAIM.kind, namespace, stores.claim_name(platform, name)) for name in embedded]
            lost = tuple([claim.name for claim in claims if await self._find(claim)])
            if lost:
                return lost
            secret = await self._create(key, platform)
        else:
            secret = await self._complete(key, secret, platform)
        await self._writer.apply(credentials.head(resource, owned=not retain), PLATFORM_MANAGER, observed=secret)
        return ()

    async def _create(self, key: Key, platform: str) -> Manifest:
        data = credentials.encode(credentials.complete({}, platform))
        metadata = {"name": key.name, "namespace": key.namespace}
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": data}
        log.info("credentials_generated", object=str(key))
        # Create, never apply: if another one was faster, its values stand and the next reconcile reads them.
        return await self._api.create(key, body, CREDENTIALS_MANAGER)

    async def _complete(self, key: Key, secret: Manifest, platform: str) -> Manifest:
        known = credentials.decode(secret.get("data") or {})
        whole = credentials.complete(known, platform)
        new = {name: value for name, value in whole.items() if known.get(name) != value}
        if not new:
            return secret
        log.info("credentials_completed", object=str(key), keys=sorted(new))
        version = {"resourceVersion": secret["metadata"]["resourceVersion"]}
        return await self._api.merge(key, {"metadata": version, "data": credentials.encode(new)}, CREDENTIALS_MANAGER)

    async def _find(self, key: Key) -> Manifest | None:
        try:
            return await self._api.get(key)
        except ApiError as error:
            if error.missing:
                return None
            raise
