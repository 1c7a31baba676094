"""Whether a live object still is what was applied: pure comparison, so that a steady state needs no write."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec
import xxhash

from fanfold_operator.kinds import Manifest

APPLIED_ANNOTATION: Final = "fanfold.dev/applied"
"""Digest of the manifest last applied: finds fields we no longer set, which a comparison of values cannot."""

_SUFFIXES: Final = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"),
    "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12), "P": Decimal(10**15),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40), "Pi": Decimal(2**50),
}  # fmt: skip


def stamped(manifest: Manifest) -> Manifest:
    """The manifest with the digest of itself as an annotation."""
    digest = xxhash.xxh3_64_hexdigest(msgspec.json.encode(manifest, order="sorted"))
    annotations = {**manifest["metadata"].get("annotations", {}), APPLIED_ANNOTATION: digest}
    return {**manifest, "metadata": {**manifest["metadata"], "annotations": annotations}}


def contains(observed: Any, desired: Any) -> bool:
    """Whether every value of `desired` stands in `observed`, which may hold more: defaults, and others' fields.

    Lists of objects with names are matched by name, other lists element by element; quantities by value; an empty
    object or list equals a missing one, which is how the API server stores it.
    """
    if isinstance(desired, dict):
        if not isinstance(observed, dict):
            return observed is None and not desired
        return all(contains(observed.get(name), value) for name, value in desired.items())
    if isinstance(desired, list):
        return _contains_list(observed or [], desired)
    return bool(observed == desired) or _same_quantity(observed, desired)


def _contains_list(observed: list[Any], desired: list[Any]) -> bool:
    if desired and all(isinstance(item, dict) and "name" in item for item in desired):
        by_name = {item.get("name"): item for item in observed}
        return all(item["name"] in by_name and contains(by_name[item["name"]], item) for item in desired)
    return len(observed) == len(desired) and all(map(contains, observed, desired))


def _same_quantity(left: Any, right: Any) -> bool:
    """Kubernetes writes quantities in canonical form: 0.5 comes back as 500m."""
    if isinstance(left, bool) or isinstance(right, bool):
        return False
    try:
        return quantity(left) == quantity(right)
    except ValueError:
        return False


def quantity(value: str | int) -> Decimal:
    """A Kubernetes quantity as a number: ``500m`` is 0.5, ``1Gi`` is 1073741824.

    Raises:
        ValueError: No quantity.
    """
    text = str(value)
    suffix = next((text[-size:] for size in (2, 1) if text[-size:] in _SUFFIXES), "")
    try:
        return Decimal(text.removesuffix(suffix)) * _SUFFIXES.get(suffix, Decimal(1))
    except InvalidOperation as error:
        raise ValueError(f"{value!r} is no quantity") from error
