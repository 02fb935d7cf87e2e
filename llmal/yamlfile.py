"""YAML 1.2 as plain data that remembers where each value stands; unsafe or ambiguous YAML is refused."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from llmal.errors import SpecError

MAX_NODES = 20_000
"""Values one file may hold after aliases are followed: a 400-byte alias bomb expands to gigabytes."""

Place = tuple[str | int, ...]
"""Keys and list positions from the top of the file down to a value."""

# Shapes of common providers' keys; a key in a file ends up in version control.
_KEY_LITERAL = re.compile(
    r"\b(sk-[A-Za-z0-9_-]{16,}|hf_[A-Za-z0-9]{20,}|gsk_[A-Za-z0-9]{20,}|xai-[A-Za-z0-9]{20,}|ghp_[A-Za-z0-9]{20,}"
    r"|AIza[A-Za-z0-9_-]{30,}|AKIA[A-Z0-9]{16}|Bearer\s+[A-Za-z0-9._-]{16,})"
)
_TAGS = {"str": str, "int": int, "float": float, "bool": bool, "null": type(None)}


class Document(NamedTuple):
    """A file as data and places.

    Attributes:
        name: what to call the file in messages.
        data: dicts, lists, strings, numbers, booleans, None.
        places: where each value starts: (line, column), both 1-based; for a mapping entry, where its key
            starts.
    """

    name: str
    data: Any
    places: dict[Place, tuple[int, int]]

    def where(self, place: Place) -> str:
        """`file:line:column` of a value, or of the nearest enclosing one."""
        while place and place not in self.places:
            place = place[:-1]
        line, column = self.places.get(place, (1, 1))
        return f"{self.name}:{line}:{column}"


def read_yaml(text: str, name: str, *, first_line: int = 1) -> Document:
    """Parse YAML without constructing anything but plain data.

    Args:
        text: the YAML.
        name: file name for messages.
        first_line: line of the file on which the text starts (front matter starts below its marker).

    Raises:
        SpecError: every problem found: syntax, duplicate keys, tags, key literals, aliases without end.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        node = YAML(typ="rt", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        at = f"{name}:{mark.line + first_line}:{mark.column + 1}" if mark else name
        raise SpecError(
            [f"{at}: not YAML: {error.problem or error.context}. {_tab_hint(text)}".rstrip(". ")]
        ) from error
    except (YAMLError, RecursionError) as error:
        raise SpecError([f"{name}: not YAML: {str(error).splitlines()[0]}"]) from error
    reader = _Reader(name, first_line)
    try:
        data = reader.plain(node, ()) if node is not None else None
    except RecursionError as error:
        raise SpecError(
            [f"{name}: values nested without end; an alias that holds itself is refused"]
        ) from error
    if reader.problems:
        raise SpecError(reader.problems)
    return Document(name, data, reader.places)


def _tab_hint(text: str) -> str:
    return "Indent with blanks, not tabs" if re.search(r"^ *\t", text, re.MULTILINE) else ""


class _Reader:
    def __init__(self, name: str, first_line: int) -> None:
        self.name = name
        self.first_line = first_line
        self.problems: list[str] = []
        self.places: dict[Place, tuple[int, int]] = {}
        self._left = MAX_NODES

    def plain(self, node: Any, place: Place) -> Any:
        """Plain data of a node, its place noted unless the key above noted it."""
        self.places.setdefault(place, self._at(node))
        self._left -= 1
        if self._left < 0:
            if self._left == -1:
                self._complain(
                    node, f"more than {MAX_NODES} values; aliases that repeat each other are refused"
                )
            return None
        tag = str(node.tag or "").removeprefix("tag:yaml.org,2002:")
        kind = type(node).__name__
        if kind == "MappingNode" and tag == "map":
            return self._mapping(node, place)
        if kind == "SequenceNode" and tag == "seq":
            return [self.plain(child, (*place, i)) for i, child in enumerate(node.value)]
        if kind == "ScalarNode" and tag in _TAGS:
            return self._scalar(node, tag)
        if tag == "timestamp":
            return self._complain(node, "a date is not text; put it in quotes")
        return self._complain(node, f"the tag '{node.tag}' is not allowed: a pipeline file holds plain data")

    def _mapping(self, node: Any, place: Place) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = self.plain(key_node, (*place, "\0key"))
            self.places.pop((*place, "\0key"), None)
            if not isinstance(key, (str, int, float, bool, type(None))):
                self._complain(key_node, "a key must be a plain word")
                continue
            if key in found:
                self._complain(key_node, f"'{key}' stands twice; YAML would silently keep one of them")
            self.places[(*place, key if isinstance(key, (str, int)) else str(key))] = self._at(key_node)
            found[key] = self.plain(value_node, (*place, key if isinstance(key, (str, int)) else str(key)))
        return found

    def _scalar(self, node: Any, tag: str) -> Any:
        text = node.value
        if _KEY_LITERAL.search(text):
            return self._complain(
                node,
                "this looks like a secret key; "
                "write the name of an environment variable under api_key_env instead",
            )
        if tag == "null":
            return None
        if tag == "bool":
            return text.lower() == "true"
        try:
            return int(text.replace("_", ""), 0) if tag == "int" else _TAGS[tag](text)
        except ValueError:
            return text  # a number only YAML understands (012, 1:30): left as text for the field to judge

    def _at(self, node: Any) -> tuple[int, int]:
        return node.start_mark.line + self.first_line, node.start_mark.column + 1

    def _complain(self, node: Any, words: str) -> None:
        line, column = self._at(node)
        self.problems.append(f"{self.name}:{line}:{column}: {words}")
