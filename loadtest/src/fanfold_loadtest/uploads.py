"""Keeps a run's files in an S3 bucket."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.error import MinioException

KINDS: Final = {".json": "application/json", ".xml": "application/xml", ".html": "text/html; charset=utf-8"}
SECONDS: Final = 20.0


class UploadError(Exception):
    """Files could not be kept; the message says why, in one line."""


def upload(folder: Path, location: str, endpoint: str, region: str, secrets: Path) -> None:
    """Put every file of a folder to ``s3://bucket/prefix``, in place of what is there under its name.

    Args:
        folder: What to keep.
        location: Where.
        endpoint: URL of the S3 service.
        region: Its region.
        secrets: Folder with the files ``s3_access_key`` and ``s3_secret_key``.

    Raises:
        UploadError: It is not reached, or refuses.
    """
    where, server = urlsplit(location), urlsplit(endpoint)
    try:
        access, secret = ((secrets / name).read_text().strip() for name in ("s3_access_key", "s3_secret_key"))
        client = Minio(
            endpoint=server.netloc,
            access_key=access,
            secret_key=secret,
            secure=server.scheme == "https",
            region=region,
            http_client=urllib3.PoolManager(timeout=SECONDS, retries=urllib3.Retry(3, backoff_factor=0.5)),
        )
        for file in sorted(folder.iterdir()):
            name = f"{where.path.strip('/')}/{file.name}"
            kind = KINDS.get(file.suffix, "application/octet-stream")
            client.fput_object(bucket_name=where.netloc, object_name=name, file_path=str(file), content_type=kind)
    except (MinioException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        why = " ".join(str(error).split())
        raise UploadError(f"the report could not be kept at {location}: {why}") from error
