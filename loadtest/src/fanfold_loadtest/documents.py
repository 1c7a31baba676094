"""YAML files that people write, read strictly: an error names file, line and field, and says what is allowed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import msgspec
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

Document = TypeVar("Document")

_LOCATION = re.compile(r" - at (?:`key` in )?`\$(?P<path>[^`]*)`$")
_STEP = re.compile(r"\.(?P<name>[^.\[]+)|\[(?P<index>\d+|\.\.\.)\]")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>[^`]+)`")
MAX_BYTES = 1 << 20


class DocumentError(Exception):
    """A file cannot be used; the message is one line: file, line, field, and what is allowed."""


def parse(text: str, kind: type[Document], source: str) -> Document:
    """Read a YAML document as a `msgspec.Struct` that forbids unknown fields.

    Args:
        text: The document.
        kind: What it must be.
        source: What errors call it, a file's name for example.

    Raises:
        DocumentError: No YAML, too large, or not of this kind.
    """
    if len(text) > MAX_BYTES:
        raise DocumentError(f"{source}: more than {MAX_BYTES} characters")
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise DocumentError(f"{source}{line}: no YAML: {getattr(error, 'problem', None) or error}") from error
    if root is None:
        raise DocumentError(f"{source}: empty")
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise DocumentError(_explained(str(error), root, kind, source)) from error


def _explained(message: str, root: yaml.Node, kind: type, source: str) -> str:
    found = _LOCATION.search(message)
    path = found.group("path") if found else ""
    what = message[: found.start()] if found else message
    unknown = _UNKNOWN.match(what)
    allowed = ""
    if unknown:
        path = f"{path}.{unknown.group('name')}"
        what = "no such field"
        names = _fields_at(kind, path)
        allowed = f"; there are: {', '.join(names)}" if names else ""
    node = _node_at(root, path)
    return f"{source}:{node.start_mark.line + 1}: {path.lstrip('.') or 'document'}: {what}{allowed}"


def _steps(path: str) -> Iterator[str | int]:
    for match in _STEP.finditer(path):
        index = match.group("index")
        yield match.group("name") if index is None else (0 if index == "..." else int(index))


def _node_at(node: yaml.Node, path: str) -> yaml.Node:
    """The innermost node on this path; for a field of a mapping, its key."""
    for step in _steps(path):
        inner: yaml.Node | None = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(step):
                    inner = value if isinstance(value, yaml.CollectionNode) else key
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            inner = node.value[step]
        if inner is None:
            return node
        node = inner
    return node


def _fields_at(kind: Any, path: str) -> list[str]:
    """Names of the fields of the struct that holds the last step of a path."""
    candidates = [kind]
    for step in list(_steps(path))[:-1]:
        candidates = [inner for one in candidates for inner in _inside(one, step)]
    structs = [one for one in candidates if isinstance(one, type) and issubclass(one, msgspec.Struct)]
    return sorted({name for struct in structs for name in struct.__struct_encode_fields__})


def _inside(kind: Any, step: str | int) -> list[Any]:
    """What may stand at a step inside a kind: alternatives of a union each for itself."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        types = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
        return _alternatives(types.get(str(step)))
    arguments = get_args(kind)
    return _alternatives(arguments[-1]) if arguments else []


def _alternatives(kind: Any) -> list[Any]:
    if isinstance(kind, type) or not get_args(kind):
        return [kind]
    origin = getattr(kind, "__origin__", None)
    if origin in {list, dict, tuple}:
        return [kind]
    return [inner for one in get_args(kind) for inner in _alternatives(one)]
