"""What the operator remembers of the cluster, and whom an observation concerns."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from fanfold_operator.handlers.observer import Observer
from fanfold_operator.handlers.routing import concerned
from fanfold_operator.kinds import DEPLOYMENT, ENDPOINT_SLICE, PLATFORM, SERVICE, Key
from fanfold_operator.store import Store

DEMO = Key("Platform", "prod", "demo")
FEED = Key("PlatformService", "prod", "demo-feed")
RING = Key("HashRing", "prod", "demo")


def thing(kind: Any, name: str, version: int, owner: Key | None = None, uid: str = "u", **metadata: Any) -> Any:
    head: dict[str, Any] = {"name": name, "namespace": "prod", "uid": uid, "resourceVersion": str(version), **metadata}
    if owner:
        api = "fanfold.dev/v1alpha1"
        head["ownerReferences"] = [{"apiVersion": api, "kind": owner.kind, "name": owner.name, "controller": True}]
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": head}


def test_older_copies_are_refused() -> None:
    store = Store()
    assert store.put(thing(DEPLOYMENT, "x", 10))
    assert not store.put(thing(DEPLOYMENT, "x", 9))
    assert not store.put(thing(DEPLOYMENT, "x", 10)), "the echo of our own write"
    assert store.put(thing(DEPLOYMENT, "x", 11))


def test_a_late_deletion_does_not_remove_a_namesake() -> None:
    store = Store()
    store.put(thing(DEPLOYMENT, "x", 12, uid="new"))
    assert not store.remove(thing(DEPLOYMENT, "x", 11, uid="old"))
    assert store.get(Key("Deployment", "prod", "x"))


def test_a_listing_finds_what_a_broken_watch_missed() -> None:
    store = Store()
    store.put(thing(DEPLOYMENT, "gone", 5, FEED))
    store.put(thing(DEPLOYMENT, "newer-than-the-list", 30, FEED))
    listed, changed = store.take(DEPLOYMENT, [thing(DEPLOYMENT, "missed", 15, FEED)])
    assert {key.name for key in listed} == {key.name for key in changed} == {"missed"}
    assert {key.name for key in store.keep(DEPLOYMENT, listed, 20)} == {"gone"}
    assert [one["metadata"]["name"] for one in store.owned(FEED)] == ["missed", "newer-than-the-list"]


def test_an_owner_that_changes_is_followed() -> None:
    store = Store()
    store.put(thing(DEPLOYMENT, "x", 1, FEED))
    store.put(thing(DEPLOYMENT, "x", 2, DEMO))
    assert store.owned(FEED) == []
    assert len(store.owned(DEMO)) == 1


def test_platforms_are_told_apart_by_label_and_namespace() -> None:
    store = Store()
    store.put(thing(SERVICE, "a", 1, labels={"fanfold.dev/platform": "demo"}))
    store.put(thing(SERVICE, "b", 1, labels={"fanfold.dev/platform": "other"}))
    assert [one["metadata"]["name"] for one in store.of_platform(SERVICE, "prod", "demo")] == ["a"]
    assert store.of_platform(SERVICE, "test", "demo") == []


def test_managed_fields_are_not_kept() -> None:
    store = Store()
    store.put(thing(SERVICE, "a", 1, managedFields=[{"manager": "x"}]))
    assert "managedFields" not in store.get(Key("Service", "prod", "a"))["metadata"]  # type: ignore[index]


def test_children_concern_their_owner_endpoints_the_ring_and_services_the_url() -> None:
    labels = {"fanfold.dev/platform": "demo"}
    assert set(concerned(thing(DEPLOYMENT, "demo-feed", 1, FEED, labels=labels))) == {FEED}
    assert set(concerned(thing(ENDPOINT_SLICE, "demo-feed-x", 1, labels=labels))) == {RING}
    assert set(concerned(thing(SERVICE, "demo-feed", 1, FEED, labels=labels))) == {FEED, DEMO}
    assert set(concerned(thing(PLATFORM, "demo", 1))) == {DEMO}
    assert concerned(thing(ENDPOINT_SLICE, "demo-feed-x", 1, labels=labels))[RING] > 0, "bursts are taken together"


def test_pausing_a_platform_concerns_its_services() -> None:
    asked: list[Key] = []
    store = Store()
    observer = Observer(store, lambda key, _: asked.append(key))
    observer.observe(thing(PLATFORM, "demo", 1))
    service = thing(PLATFORM, "demo-feed", 2, DEMO) | {"kind": "PlatformService"}
    observer.observe(service)
    asked.clear()
    observer.observe(thing(PLATFORM, "demo", 3, annotations={"fanfold.dev/paused": "true"}))
    assert FEED in asked
    asked.clear()
    observer.observe(thing(PLATFORM, "demo", 4, annotations={"fanfold.dev/paused": "true", "other": "x"}))
    assert asked == [DEMO]


def test_events_out_of_order_end_in_the_newest_state() -> None:
    store = Store()
    observer = Observer(store, lambda *_: None)
    observer.event("MODIFIED", thing(DEPLOYMENT, "x", 7, FEED))
    observer.event("ADDED", thing(DEPLOYMENT, "x", 3, FEED))
    observer.event(None, thing(DEPLOYMENT, "x", 5, FEED))
    assert store.get(Key("Deployment", "prod", "x"))["metadata"]["resourceVersion"] == "7"  # type: ignore[index]
    observer.event("DELETED", thing(DEPLOYMENT, "x", 8, FEED))
    assert store.get(Key("Deployment", "prod", "x")) is None


def test_equal_strings_of_different_objects_are_one() -> None:
    store = Store()
    for name in ("a", "b"):
        manifest = thing(SERVICE, name, 1) | {"spec": {"selector": {"app": ["a long text with blanks"]}}}
        store.put(msgspec.json.decode(msgspec.json.encode(manifest)))
    first, second = (store.get(Key("Service", "prod", name)) for name in ("a", "b"))
    assert first is not None
    assert second is not None
    assert first["spec"]["selector"]["app"][0] == "a long text with blanks"
    assert first["spec"]["selector"]["app"][0] is second["spec"]["selector"]["app"][0]


async def test_a_listing_in_pages_brings_nothing_back_that_was_deleted_meanwhile() -> None:
    store = Store()
    observer = Observer(store, lambda *_: None)
    first, second = thing(DEPLOYMENT, "a", 5, FEED), thing(DEPLOYMENT, "b", 6, FEED)
    observer.event("ADDED", first)
    observer.event("ADDED", second)

    class Pages:
        async def pages(self, *_: object) -> AsyncIterator[dict[str, Any]]:
            yield {"metadata": {"resourceVersion": "9"}, "items": [first]}
            observer.event("DELETED", second)
            yield {"metadata": {"resourceVersion": "9"}, "items": [second]}

    await observer.resync(Pages(), None, [DEPLOYMENT])  # type: ignore[arg-type]
    assert [key.name for key in store.keys(DEPLOYMENT)] == ["a"]


def test_a_watch_that_keeps_back_what_is_known_is_noticed_until_it_tells() -> None:
    observer = Observer(Store(), lambda *_: None)
    observer.observe(thing(DEPLOYMENT, "x", 5, FEED))
    assert observer.silent_seconds() > 0
    observer.event("MODIFIED", thing(DEPLOYMENT, "x", 4, FEED))
    assert observer.silent_seconds() > 0, "that was older news"
    observer.event("MODIFIED", thing(DEPLOYMENT, "x", 6, FEED))
    assert observer.silent_seconds() == 0
    observer.observe(thing(DEPLOYMENT, "x", 7, FEED))
    observer.event("DELETED", thing(DEPLOYMENT, "x", 8, FEED))
    assert observer.silent_seconds() == 0


def test_a_watch_that_begins_with_a_listing_asks_for_another_one() -> None:
    observer = Observer(Store(), lambda *_: None)
    observer.event("ADDED", thing(DEPLOYMENT, "x", 5, FEED))
    assert not observer.begun_anew.is_set()
    observer.event(None, thing(DEPLOYMENT, "x", 5, FEED))
    assert observer.begun_anew.is_set()
