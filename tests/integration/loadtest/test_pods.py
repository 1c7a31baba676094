"""Runs as the operator starts them: master and workers as processes of their own, a real gateway, a real S3."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from minio import Minio

from fanfold.dev.process import free_ports
from fanfold_loadtest.uploads import UploadError, upload
from fanfold_loadtest.verdict import Verdict
from fanfold_operator.planning.outcome import METRICS, Live, Summary, live
from fanfold_operator.scrape import Scrape, parse

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

SCENARIO = """\
name: short
description: A few seconds of reading feeds.
people: 5
mix: {feed: 1}
phases: [{name: steady, seconds: SECONDS, rate: 20}]
slos: [{kind: errors, at_most_percent: 50}]
"""
LIMIT = 200
COMMAND = [sys.executable, "-c", "from fanfold_loadtest.cli import main; main()"]


@asynccontextmanager
async def started(log: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(*COMMAND, *arguments, stdout=output, stderr=output)
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def figures(port: int) -> Live:
    """What the admin port tells once the load has begun."""
    seen: Live | None = None
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client, asyncio.timeout(LIMIT):
        while seen is None or not seen.requests or not seen.rps:
            await asyncio.sleep(0.5)
            try:
                text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
            except httpx.TransportError:
                continue
            seen = live(Scrape("x", parse(text, METRICS)), asyncio.get_running_loop().time(), seen)
    return seen


class Pods:
    """Arguments of a run's processes, and where their words and files go."""

    def __init__(self, folder: Path, url: str, stores: Any, bucket: str) -> None:
        self.admin, self.crew = free_ports(2)
        self.folder, self.url = folder, url
        self._stores, self._bucket = stores, bucket
        (folder / "s3_access_key").write_text(stores.s3_access_key)
        (folder / "s3_secret_key").write_text(stores.s3_secret_key)
        self.location = f"s3://{bucket}/loadtests/{folder.name}"
        self.log = folder / "pod.log"

    def master(self, seconds: int, *more: str) -> list[str]:
        file = self.folder / "short.yaml"
        file.write_text(SCENARIO.replace("SECONDS", str(seconds)))
        store = [f"--upload={self.location}", f"--s3-endpoint={self._stores.s3_endpoint}"]
        places = [
            f"--secrets={self.folder}",
            f"--results={self.folder / 'out'}",
            f"--last-words={self.folder / 'last'}",
        ]
        admin = f"--admin=127.0.0.1:{self.admin}"
        return ["pod", str(file), f"--url={self.url}", admin, *store, *places, *more]

    def worker(self, index: int) -> list[str]:
        return ["worker", f"--master=http://127.0.0.1:{self.crew}", f"--url={self.url}", f"--index={index}"]

    def summary(self) -> Summary:
        return msgspec.json.decode((self.folder / "last").read_bytes(), type=Summary)

    def kept(self, name: str) -> bytes:
        """A file of the report, from the object store."""
        stores = self._stores
        host = stores.s3_endpoint.removeprefix("http://")
        client = Minio(endpoint=host, access_key=stores.s3_access_key, secret_key=stores.s3_secret_key, secure=False)
        path = f"{self.location.removeprefix(f's3://{self._bucket}/')}/{name}"
        answer = client.get_object(bucket_name=self._bucket, object_name=path)
        try:
            return bytes(answer.read())
        finally:
            answer.close()
            answer.release_conn()


@pytest.fixture
def pods(platform: str, stores: Any, bucket: str, tmp_path: Path) -> Pods:
    return Pods(tmp_path, platform, stores, bucket)


async def test_workers_share_a_run_and_what_they_measured_adds_up(pods: Pods, house: Any) -> None:
    await house.start("image-worker", image_processes=1)
    master = pods.master(12, "--workers=2", f"--crew=127.0.0.1:{pods.crew}")
    async with (
        started(pods.folder / "0.log", *pods.worker(0)) as first,
        started(pods.folder / "1.log", *pods.worker(1)) as second,
        started(pods.log, *master) as process,
        asyncio.timeout(LIMIT),
    ):
        seen = await figures(pods.admin)
        assert seen.progress is not None
        assert 0 < seen.progress <= 1
        code = await process.wait()
        assert (await first.wait(), await second.wait()) == (0, 0)
    said, content = pods.summary(), json.loads(pods.kept("result.json"))
    assert said.verdict == content["verdict"] == Verdict(code).name.lower(), pods.log.read_text()
    assert said.verdict in {"passed", "void"}, "void where the machine is busy with other things"
    assert said.location == pods.location
    assert len(content["cpu_percent"]) == 2
    assert sum(row["requests"] for row in content["figures"]) == content["share"]["arrivals"] > 100
    assert said.per_second == pytest.approx(content["share"]["arrivals"] / 12, rel=0.01)
    assert pods.kept("report.html").startswith(b"<!doctype html>")


async def test_told_to_end_it_keeps_its_report_marked_as_interrupted(pods: Pods, house: Any) -> None:
    await house.start("image-worker", image_processes=1)
    async with started(pods.log, *pods.master(300)) as process, asyncio.timeout(LIMIT):
        await figures(pods.admin)
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            assert (await client.post(f"http://127.0.0.1:{pods.admin}/cancel")).status_code == 204
        assert await process.wait() == Verdict.VOID, pods.log.read_text()
    said = pods.summary()
    assert (said.verdict, said.interrupted, said.reasons[0]) == ("void", True, "the run was interrupted")
    assert json.loads(pods.kept("result.json"))["interrupted"] is True


async def test_what_cannot_be_run_is_broken_and_says_where(stores: Any, bucket: str, tmp_path: Path) -> None:
    pods = Pods(tmp_path, "http://127.0.0.1:9", stores, bucket)
    master = pods.master(2)
    (tmp_path / "short.yaml").write_text(SCENARIO.replace("SECONDS", "0"))
    async with started(pods.log, *master) as process, asyncio.timeout(120):
        assert await process.wait() == Verdict.BROKEN
    assert pods.summary().verdict == "broken"
    assert pods.summary().reasons[0].startswith("short.yaml:5: phases[0].seconds: ")


def test_a_store_that_refuses_or_is_not_there_is_told_in_one_line(stores: Any, bucket: str, tmp_path: Path) -> None:
    pods = Pods(tmp_path, "http://127.0.0.1:9", stores, bucket)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "result.json").write_text("{}")
    upload(tmp_path / "out", pods.location, stores.s3_endpoint, "us-east-1", tmp_path)
    assert pods.kept("result.json") == b"{}"
    (tmp_path / "s3_secret_key").write_text("wrong")
    away = f"http://127.0.0.1:{free_ports(1)[0]}"
    for endpoint in (stores.s3_endpoint, away):
        with pytest.raises(UploadError, match=rf"^the report could not be kept at {pods.location}: [^\n]+$"):
            upload(tmp_path / "out", pods.location, endpoint, "us-east-1", tmp_path)
    (tmp_path / "s3_secret_key").unlink()
    with pytest.raises(UploadError, match="s3_secret_key"):
        upload(tmp_path / "out", pods.location, away, "us-east-1", tmp_path)
