"""Where signatures lie beside a registry: containers-registries.d(5).

Those files are YAML, of which they use nested mappings of plain words; anything more is refused.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bastide.images.reference import Reference
from bastide.model.errors import InvalidArgument

_QUOTED = r'"[^"]*"|\'[^\']*\''
_PLAIN = r"[^\s\"'#\-\[\]{}&*!|>%@`]"
_LINE = re.compile(rf"( *)({_QUOTED}|{_PLAIN}[^\s#]*?):(?:\s+({_QUOTED}|{_PLAIN}[^#]*?))?\s*(?:#.*)?")


def parse(text: str, name: str) -> dict[str, Any]:
    """Nested mappings of one file. Raises InvalidArgument."""
    root: dict[str, Any] = {}
    stack: list[tuple[int, dict[str, Any]]] = [(-1, root)]
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#") or line.strip() == "---":
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            raise InvalidArgument(f"{name}, line {number}: only mappings of plain words are understood")
        indent, key, value = len(found[1]), found[2].strip("\"'"), found[3]
        while stack[-1][0] >= indent:
            stack.pop()
        parent = stack[-1][1]
        if key in parent:
            raise InvalidArgument(f"{name}, line {number}: {key} is there twice")
        if value is None:
            parent[key] = {}
            stack.append((indent, parent[key]))
        else:
            parent[key] = value.strip("\"'")
    return root


class Lookaside:
    """Every file of the directory, joined."""

    def __init__(self, directory: Path) -> None:
        self._default: dict[str, Any] = {}
        self._scopes: dict[str, dict[str, Any]] = {}
        for path in sorted(directory.glob("*.yaml")) if directory.is_dir() else []:
            document = parse(path.read_text(), str(path))
            self._default = document.get("default-docker") or self._default
            for scope, entry in (document.get("docker") or {}).items():
                if not isinstance(entry, dict):
                    raise InvalidArgument(f"{path}: {scope} is not a mapping")
                self._scopes[scope] = entry

    def _find(self, reference: Reference, *keys: str) -> str:
        """The first of some words in the narrowest scope that has one."""
        name = str(reference)
        candidates = [name, reference.name]
        while name := candidates[-1].rpartition("/")[0]:
            candidates.append(name)
        for entry in (*(self._scopes.get(candidate, {}) for candidate in candidates), self._default):
            for key in keys:
                if key in entry:
                    return str(entry[key])
        return ""

    def url(self, reference: Reference, digest: str) -> str:
        """The URL before `/signature-N` for a manifest; "" when no place is named."""
        base = self._find(reference, "lookaside", "sigstore")
        path = f"{reference.name}@{digest.replace(':', '=')}"
        return f"{base.rstrip('/')}/{path}" if base else ""

    def attachments(self, reference: Reference) -> bool:
        """Whether sigstore's attachments in the registry itself are to be read."""
        return self._find(reference, "use-sigstore-attachments") == "true"
