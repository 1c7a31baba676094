"""Addresses of photos: what a signature is good for, how long, and under which key."""

from __future__ import annotations

import base64
import hmac
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from typer.testing import CliRunner

from fanfold.cli import app
from fanfold.contracts.blobs import CountsBlob, ImageBlob, PostBlob, UserBlob, VariantsBlob
from fanfold.contracts.ids import new_id
from fanfold.kit.fragments import Fragments, counts_json
from fanfold.kit.keyring import Keyring
from fanfold.kit.media import LABEL, MediaSigner, MediaUrls
from fanfold.kit.warm import WarmPosts

KEY = os.urandom(32).hex()
PHOTO = "ab" * 32
HOUR = 3600
NOON = 1_790_000_000 // HOUR * HOUR
SIGNER = MediaSigner(Keyring(KEY, LABEL))
pack = msgspec.msgpack.encode


def parts(query: str) -> tuple[str, str]:
    found = parse_qs(query)
    return found["expires"][0], found["signature"][0]


def left(query: str, now: float, media: str = PHOTO, signer: MediaSigner = SIGNER) -> int:
    return signer.seconds_left(media, *parts(query), now)


def test_an_address_is_the_same_for_an_hour_and_good_for_one_more() -> None:
    first, last = SIGNER.query(PHOTO, NOON), SIGNER.query(PHOTO, NOON + HOUR - 0.001)
    assert first == last != SIGNER.query(PHOTO, NOON + HOUR)
    assert left(first, NOON) == 2 * HOUR
    assert left(last, NOON + HOUR - 0.001) == HOUR + 1
    assert left(first, NOON + 2 * HOUR - 1) == 1
    assert left(first, NOON + 2 * HOUR) == 0


def test_a_signature_is_of_one_photo_and_one_end() -> None:
    expires, signature = parts(SIGNER.query(PHOTO, NOON))
    assert SIGNER.seconds_left("cd" * 32, expires, signature, NOON) == 0
    assert SIGNER.seconds_left(PHOTO, str(int(expires) + HOUR), signature, NOON) == 0


@pytest.mark.parametrize("expires", ["", "-1", "1e9", "٣", "9" * 13, "x"])
@pytest.mark.parametrize("signature", ["", "AAAA", "A" * 22, "A" * 44, "é" * 22, "=", "%%"])
def test_garbage_is_no_signature(expires: str, signature: str) -> None:
    good = parts(SIGNER.query(PHOTO, NOON))
    assert SIGNER.seconds_left(PHOTO, expires, good[1], NOON) == 0
    assert SIGNER.seconds_left(PHOTO, good[0], signature, NOON) == 0


def test_the_key_is_changed_without_a_refusal() -> None:
    new = os.urandom(32).hex()
    texts = (KEY, f"{KEY}\n{new}", f"{new}\n{KEY}", new)
    steps = [MediaSigner(Keyring(text, LABEL)) for text in texts]
    for before, after in itertools.pairwise(steps):
        assert left(before.query(PHOTO, NOON), NOON, signer=after)
        assert left(after.query(PHOTO, NOON), NOON, signer=before)
    assert left(steps[0].query(PHOTO, NOON), NOON, signer=steps[-1]) == 0


def test_the_key_of_addresses_signs_nothing_else() -> None:
    assert Keyring(KEY, LABEL).keys != Keyring(KEY).keys
    assert Keyring(KEY, LABEL).keys != Keyring(KEY, b"another").keys


@pytest.mark.parametrize(
    ("urls", "public", "private"),
    [
        (MediaUrls("/m", SIGNER), False, True),
        (MediaUrls("/m", SIGNER, everything=True), True, True),
        (MediaUrls("/m"), False, False),
    ],
    ids=["private", "all", "none"],
)
def test_the_setting_says_whose_photos_are_signed(urls: MediaUrls, public: bool, private: bool) -> None:
    assert (urls.closed(private=False), urls.closed(private=True)) == (public, private)


def test_a_cdn_that_is_given_the_printed_key_verifies_as_documented(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "identity_key").write_text(f"{KEY}\n{'00' * 32}\n")
    monkeypatch.setenv("FANFOLD_SECRETS_DIR", str(tmp_path))
    printed = CliRunner().invoke(app, ["media-key"])
    assert printed.exit_code == 0
    key = bytes.fromhex(printed.stdout.split()[0])
    expires, signature = parts(SIGNER.query(PHOTO, NOON))
    mac = hmac.digest(key, f"{PHOTO}.{expires}".encode(), "sha256")[:16]
    assert base64.urlsafe_b64encode(mac).decode().rstrip("=") == signature
    assert len(printed.stdout.split()) == 2
    (tmp_path / "identity_key").unlink()
    assert CliRunner().invoke(app, ["media-key"]).exit_code == 2


# ---- in posts -------------------------------------------------------------------------------------------------------


def post_of(*, private: bool) -> tuple[bytes, bytes, tuple[bytes, bytes, bytes]]:
    """A post's id, its author's, and the blobs of the post, its author and its counts."""
    post_id, author_id = new_id().bytes, new_id().bytes
    photo = ImageBlob(
        new_id().bytes, 4000, 3000, "L", "", VariantsBlob(f"{PHOTO}/{{width}}.{{format}}", [150], ["avif"])
    )
    post = PostBlob(post_id, author_id, "a {width}.{format} of its own", 1_700_000_000_000, [photo])
    user = UserBlob(author_id, "ann", "Ann", f"{PHOTO}/320.jpeg", private)
    return post_id, author_id, (pack(post), pack(user), pack(CountsBlob(1, 2, 9_999_999_999_999)))


def template(post: bytes) -> str:
    found: str = json.loads(post)["images"][0]["variants"]["url"]
    return found


@pytest.mark.parametrize("private", [False, True])
def test_photos_of_private_accounts_have_a_signed_template_and_profile_pictures_none(private: bool) -> None:
    fragments = Fragments(MediaUrls("https://cdn.example/p/", SIGNER))
    post_id, author_id, (post, user, _) = post_of(private=private)
    made = fragments.posts.of(post_id, post).json(fragments.authors.of(author_id, user), counts_json(1, 2), liked=False)
    address = urlsplit(template(made))
    assert address.path == f"/p/{PHOTO}/{{width}}.{{format}}"
    assert bool(address.query) is private
    if private:
        assert HOUR - 60 <= left(address.query, time.time()) <= 2 * HOUR  # it may have been made in the hour before
    assert json.loads(made)["author"]["picture_url"] == f"https://cdn.example/p/{PHOTO}/320.jpeg"
    assert json.loads(made)["caption"] == "a {width}.{format} of its own"


class Clock:
    """Stands at noon until it is moved."""

    def __init__(self) -> None:
        self.now = float(NOON)

    def time(self) -> float:
        return self.now


@pytest.mark.parametrize("everything", [False, True])
def test_a_remembered_post_gets_new_addresses_before_the_old_ones_expire(
    monkeypatch: pytest.MonkeyPatch, everything: bool
) -> None:
    clock = Clock()
    for module in ("fragments", "media"):
        monkeypatch.setattr(f"fanfold.kit.{module}.time", clock)
    warm = WarmPosts(Fragments(MediaUrls("/m", SIGNER, everything=everything)))
    shown: dict[bool, list[str]] = {False: [], True: []}
    posts = {private: post_of(private=private) for private in (False, True)}
    for clock.now in (NOON, NOON + HOUR - 1, NOON + HOUR + 6, NOON + 5 * HOUR):
        for private, (post_id, author_id, (post, user, counts)) in posts.items():
            for scores in ([b"0", None], [b"0", b"1"]):
                blobs: Any = ([post], {author_id: user}, [counts])
                page = warm.page([post_id + author_id], [post_id], blobs, scores, clock.now * 1000 - 5_000)
                assert page is not None
                shown[private].append(template(page[0]))
    first, same, second, last = (shown[True][at] for at in (0, 2, 4, 6))
    assert first == same != second != last
    assert shown[True][1::2] == shown[True][::2]  # liked or not
    for address, now in zip((first, same, second, last), (0, HOUR - 1, HOUR + 6, 5 * HOUR), strict=True):
        assert left(urlsplit(address).query, NOON + now) > HOUR - 10
    assert len(set(shown[False])) == (3 if everything else 1)
