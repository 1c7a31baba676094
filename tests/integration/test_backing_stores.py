"""The stores of development and tests: they keep what they acknowledged, and leave nothing behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import asyncpg
import pytest
import redis
import urllib3
from minio import Minio
from minio.error import S3Error

from fanfold.dev.process import ChildProcess, ProcessError, end_stale
from fanfold.dev.stores import BackingStores
from fanfold.dev.valkey import Valkey
from tests.waiting import until

pytestmark = pytest.mark.integration

OWNER = """
import sys, time
from pathlib import Path
from fanfold.dev.stores import BackingStores
with BackingStores(Path(sys.argv[1])) as stores:
    print(*(store.process.pid for store in stores.stores), flush=True)
    time.sleep(300)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that PostgreSQL's user can reach; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(prefix="fanfold-test-") as name:
        Path(name).chmod(0o711)
        yield Path(name) / "stores"


def sql(stores: BackingStores, *statements: str) -> list[object]:
    async def run() -> list[object]:
        connection = await asyncpg.connect(stores.database_url.replace("+asyncpg", ""), timeout=60)
        try:
            return [await connection.fetchval(statement, timeout=60) for statement in statements]
        finally:
            await connection.close(timeout=60)

    return asyncio.run(run())


def objects(stores: BackingStores, secret_key: str | None = None) -> Minio:
    pool = urllib3.PoolManager(timeout=60, retries=False)
    address = stores.s3_endpoint.removeprefix("http://")
    key = secret_key or stores.s3_secret_key
    return Minio(address, stores.s3_access_key, key, secure=False, region="us-east-1", http_client=pool)


def remember(stores: BackingStores) -> None:
    sql(stores, "CREATE TABLE kept (value text)", "INSERT INTO kept VALUES ('row') RETURNING value")
    with redis.Redis.from_url(stores.valkey_url) as valkey:
        valkey.xadd("kept", {"value": "message"})
        valkey.execute_command("WAITAOF", 1, 0, 5_000)
    client = objects(stores)
    client.make_bucket("kept")
    client.put_object("kept", "object", BytesIO(b"picture"), 7)


def recall(stores: BackingStores) -> tuple[object, object, object]:
    [row] = sql(stores, "SELECT value FROM kept")
    with redis.Redis.from_url(stores.valkey_url) as valkey:
        messages = valkey.xrange("kept")
    answer = objects(stores).get_object("kept", "object")
    try:
        return row, messages[0][1][b"value"], answer.read()
    finally:
        answer.release_conn()


KEPT = ("row", b"message", b"picture")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_what_was_acknowledged_is_there_after_a_stop_and_after_a_crash(folder: Path) -> None:
    with BackingStores(folder) as stores:
        remember(stores)
        assert recall(stores) == KEPT
    with BackingStores(folder) as stores:
        assert recall(stores) == KEPT
        for store in stores.stores:
            store.process.kill()
    with BackingStores(folder) as stores:
        assert recall(stores) == KEPT
        objects(stores).put_object("kept", "another", BytesIO(b"at once"), 7)


def test_they_leave_no_process_and_no_temporary_folder(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    folder.mkdir(mode=0o711)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    with BackingStores() as stores:
        pids = [store.process.pid for store in stores.stores]
        assert all(alive(pid) for pid in pids)
        assert list(folder.iterdir())
    assert not any(alive(pid) for pid in pids)
    assert not list(folder.iterdir())


def test_nobody_gets_in_without_the_password(stores: BackingStores) -> None:
    async def connect() -> None:
        url = stores.database_url.replace("+asyncpg", "")
        secret = url.split(":")[2].split("@")[0]
        await asyncpg.connect(url.replace(secret, "guess"), timeout=60)

    with pytest.raises(asyncpg.InvalidPasswordError):
        asyncio.run(connect())
    address = stores.valkey_url.rpartition("@")[2]
    with redis.Redis.from_url(f"redis://{address}") as valkey, pytest.raises(redis.AuthenticationError):
        valkey.ping()
    with pytest.raises(S3Error, match=r"SignatureDoesNotMatch|AccessDenied"):
        objects(stores, secret_key="guess").bucket_exists("fanfold")


def test_no_command_line_shows_a_password(stores: BackingStores) -> None:
    shown = b"".join(Path(f"/proc/{store.process.pid}/cmdline").read_bytes() for store in stores.stores)
    for secret in (stores.s3_secret_key, stores.valkey_url.split(":")[2].split("@")[0]):
        assert secret.encode() not in shown


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has somebody else to run PostgreSQL as")
def test_postgresql_does_not_run_as_root(stores: BackingStores) -> None:
    postgres = next(store for store in stores.stores if store.name == "PostgreSQL")
    assert Path(f"/proc/{postgres.process.pid}").stat().st_uid != 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has folders that PostgreSQL's user cannot reach")
def test_a_folder_closed_to_others_serves_too_and_a_deleted_one_takes_its_data_along(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fanfold.dev.postgres.HOMES", folder.parent / "homes")
    closed = folder / "closed"
    for _ in range(2):
        closed.mkdir(mode=0o700, parents=True)
        with BackingStores(closed / "stores") as stores:
            remember(stores)
        with BackingStores(closed / "stores") as stores:
            assert recall(stores) == KEPT
        shutil.rmtree(closed)


def test_a_second_user_of_the_folder_is_refused(folder: Path) -> None:
    with BackingStores(folder), pytest.raises(ProcessError, match=f"another process runs the stores in {folder}"):
        BackingStores(folder).__enter__()


def test_the_stores_end_when_their_owner_is_killed_and_the_next_owner_starts_them_again(folder: Path) -> None:
    command = [sys.executable, "-c", OWNER, str(folder)]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        pids = [int(word) for word in owner.stdout.readline().split()]
        assert len(pids) == 3
    finally:
        owner.kill()
        owner.communicate(timeout=60)
    with BackingStores(folder) as stores:
        assert sql(stores, "SELECT 1") == [1]
        assert not any(alive(pid) for pid in pids)


def test_a_server_that_outlived_its_owner_is_ended_by_the_next_start(tmp_path: Path) -> None:
    left = Valkey(tmp_path, "secret", durable=True)
    left.start()
    left.wait()
    following = Valkey(tmp_path, "secret", durable=True)
    following.start()
    try:
        following.wait()
        assert not left.process.running()
    finally:
        following.stop()


def test_a_stranger_who_inherited_the_process_id_is_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "log"
    stranger = ChildProcess("stranger", ["sleep", "60"], log=tmp_path / "other")
    try:
        (tmp_path / "log.pid").write_text(f"{stranger.pid} 12345")
        end_stale(log)
        assert stranger.running()
        assert not (tmp_path / "log.pid").exists()
    finally:
        stranger.stop()


def test_a_server_that_cannot_start_names_and_quotes_its_log(folder: Path) -> None:
    with BackingStores(folder):
        pass
    (folder / "postgres" / "data" / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(ProcessError, match=r"PostgreSQL ended with code 1(?s:.)*postgres/log(?s:.)*9\.6"):
        BackingStores(folder).__enter__()


def test_one_that_ignores_its_stop_signal_is_killed(tmp_path: Path) -> None:
    deaf = ChildProcess("deaf", ["sh", "-c", "trap '' TERM; echo deaf; sleep 60 & wait; wait"], log=tmp_path / "log")
    until(lambda: "deaf" in (tmp_path / "log").read_text(), "its word that it is deaf")
    deaf.stop(seconds=0.2)
    assert deaf.returncode == -signal.SIGKILL
