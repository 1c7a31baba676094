from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import msgspec
from pydantic import BaseModel

from fanfold.contracts import api
from fanfold.contracts.blobs import ImageBlob, PostBlob, UserBlob, VariantsBlob
from fanfold.contracts.ids import new_id
from fanfold.kit.fragments import Fragments, Remembered, counts_json
from fanfold.kit.media import MediaUrls
from fanfold.kit.views import PostView, author_view, encode, encode_page, format_id, post_view

MEDIA = MediaUrls("/v1/media")
AUTHOR = UserBlob(new_id().bytes, "ada", "Ada L.", "pictures/ada.webp")
VARIANTS = VariantsBlob("abc/{width}.{format}", [150, 320], ["avif", "jpeg"])
IMAGE = ImageBlob(new_id().bytes, 4000, 3000, "LEHV6nWB2yk8", "a lake", VARIANTS)
POST = PostBlob(new_id().bytes, AUTHOR.id, "hello", 1_750_000_000_123, [IMAGE])


def _view(post: PostBlob = POST, author: UserBlob = AUTHOR) -> PostView:
    return post_view(post, author_view(author, MEDIA), MEDIA, closed=False, counts=(3, 2), liked=True)


def _shape(kind: Any) -> Any:
    """Field names of a model or struct in order, with the shapes of the models inside."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: _shape(item.annotation) for name, item in kind.model_fields.items()}
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return {item.name: _shape(item.type) for item in msgspec.structs.fields(kind)}
    inner = [_shape(argument) for argument in getattr(kind, "__args__", ())]
    return next((shape for shape in inner if isinstance(shape, dict)), None)


def test_the_fast_post_has_the_fields_of_the_public_one_in_the_same_order() -> None:
    assert json.dumps(_shape(PostView)) == json.dumps(_shape(api.Post))
    assert list(_shape(PostView)["images"]["variants"]) == ["url", "widths", "formats"]


def test_the_fast_post_encodes_to_what_the_public_one_encodes_to() -> None:
    for author in (AUTHOR, msgspec.structs.replace(AUTHOR, picture_path="")):
        encoded = encode(_view(author=author))
        assert json.loads(api.Post.model_validate_json(encoded).model_dump_json()) == json.loads(encoded)


def test_a_page_encodes_to_what_the_public_page_encodes_to() -> None:
    for cursor in ("abc", None):
        encoded = encode_page([encode(_view()), encode(_view())], cursor)
        page = api.Page[api.Post].model_validate_json(encoded)
        assert json.loads(page.model_dump_json()) == json.loads(encoded)


def test_urls_stand_under_the_media_base() -> None:
    view = _view()
    assert view.images[0].variants is not None
    assert view.images[0].variants.url == "/v1/media/abc/{width}.{format}"
    assert view.author.picture_url == "/v1/media/pictures/ada.webp"


def test_ids_are_formatted_as_uuids() -> None:
    identifier = uuid4()
    assert format_id(identifier.bytes) == str(identifier)


def test_a_post_joined_from_fragments_is_the_encoded_post_byte_for_byte() -> None:
    fragments = Fragments(MEDIA)
    for caption in ("hello", 'a "quote", a \\ and a line\nbreak', "čaj ☕", ""):
        for images in ([], [IMAGE], [IMAGE, msgspec.structs.replace(IMAGE, variants=None)]):
            post = msgspec.structs.replace(POST, caption=caption, images=images)
            author = fragments.authors.of(AUTHOR.id, msgspec.msgpack.encode(AUTHOR))
            made = fragments.posts.of(post.id, msgspec.msgpack.encode(post))
            assert made.json(author, counts_json(3, 2), liked=True) == encode(_view(post))


def test_another_blob_makes_other_pieces() -> None:
    fragments = Fragments(MEDIA)
    edited = msgspec.structs.replace(POST, caption="edited", version=1)
    author = fragments.authors.of(AUTHOR.id, msgspec.msgpack.encode(AUTHOR))
    for post in (POST, edited, POST):
        made = fragments.posts.of(post.id, msgspec.msgpack.encode(post)).json(author, b"", liked=False)
        assert json.loads(made.replace(b",,", b","))["caption"] == post.caption


def test_no_more_is_remembered_than_the_limit_and_the_oldest_goes_first() -> None:
    made: list[bytes] = []

    def make(blob: bytes) -> bytes:
        made.append(blob)
        return blob

    remembered = Remembered(make, limit=2)
    for identifier in (b"a", b"b", b"a", b"c", b"b", b"a"):
        assert remembered.of(identifier, b"of " + identifier) == b"of " + identifier
    assert made == [b"of a", b"of b", b"of c", b"of a"]
