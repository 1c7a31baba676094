"""The S3 object store, through the minio client (blocking: call it in a thread)."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import stamina
import urllib3
from minio import Minio
from minio.error import S3Error

if TYPE_CHECKING:
    from fanfold.kit.settings import ObjectStoreSettings


def connect(settings: ObjectStoreSettings) -> Minio:
    """A client with bounded waits.

    Raises:
        SettingsError: A key is missing.
    """
    endpoint = urlsplit(settings.s3_endpoint)
    return Minio(
        endpoint.netloc,
        access_key=settings.secrets.read("s3_access_key"),
        secret_key=settings.secrets.read("s3_secret_key"),
        secure=endpoint.scheme == "https",
        region=settings.s3_region,
        http_client=urllib3.PoolManager(
            maxsize=16, timeout=urllib3.Timeout(connect=2, read=30), retries=urllib3.Retry(3, backoff_factor=0.2)
        ),
    )


def ensure_bucket(settings: ObjectStoreSettings) -> None:
    """Make the bucket if it is not there; waits out a store that is just starting, for at most 60 s."""
    client = connect(settings)
    for attempt in stamina.retry_context(on=(urllib3.exceptions.HTTPError, S3Error), timeout=60, attempts=30):
        with attempt:
            if not client.bucket_exists(settings.s3_bucket):
                client.make_bucket(settings.s3_bucket)
