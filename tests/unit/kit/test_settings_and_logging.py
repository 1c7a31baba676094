from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from fanfold.kit import logging as logs
from fanfold.kit.settings import Secrets, Settings, SettingsError, load


def test_a_malformed_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FANFOLD_TRAFFIC_PORT", "99999")
    with pytest.raises(SettingsError, match="FANFOLD_TRAFFIC_PORT"):
        load(Settings)


def test_a_missing_secret_is_named_with_its_folder(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"'database_url'.*No such file"):
        Secrets(tmp_path).read("database_url")


def test_an_empty_secret_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cursor_key").write_text("\n")
    with pytest.raises(SettingsError, match="empty"):
        Secrets(tmp_path).read("cursor_key")


def test_a_secret_never_shows_in_a_representation(tmp_path: Path) -> None:
    (tmp_path / "identity_key").write_text("deadbeef")
    assert "deadbeef" not in repr(Settings(secrets_dir=tmp_path))


def test_log_lines_are_json_with_service_and_request_id_and_without_secrets(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    logs.configure(Settings(service="post", instance="post-1"))
    token = logs.request_id.set("abc123")
    try:
        logs.get_logger("here").info("created", access_token="s3cret", post="p1")
    finally:
        logs.request_id.reset(token)
    line = json.loads(capsys.readouterr().out)
    assert line["event"] == "created"
    assert (line["service"], line["instance"], line["request_id"]) == ("post", "post-1", "abc123")
    assert line["access_token"] == logs.REDACTED
    assert line["post"] == "p1"
