"""Go's text/template, as much of it as `--format` is used with: the runner.

Values are foreign and are made safe for a terminal; the template's own text is the user's and stays as it is.
Data is what JSON gives (maps, lists, strings, numbers, null) and `Row`, a thing whose fields are
computed. Values print as Go's `%v` prints them.
"""

from __future__ import annotations

from bastide.cli.show import text
from bastide.cli.show.functions import BUILTIN, LAZY, show
from bastide.cli.show.template import Node, Operand, Pipe, TemplateError, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

# Fields that Docker's answers leave out when they are empty, though its templates know them.
_OMITTED: dict[str, Any] = {
    "Annotations": {},
    "ArgsEscaped": False,
    "ExposedPorts": None,
    "Health": None,
    "Healthcheck": None,
    "ImageManifestDescriptor": None,
    "Init": None,
    "MacAddress": "",
    "Mounts": [],
    "NetworkDisabled": False,
    "OnBuild": None,
    "Runtime": "",
    "Shell": [],
    "SizeRootFs": None,
    "SizeRw": None,
    "StopSignal": "",
    "StopTimeout": None,
    "StorageOpt": {},
    "Sysctls": {},
    "Tmpfs": {},
}


class Row:
    """A line of a listing: its fields are made when they are asked for.

    `kind` names the type in messages; a field that takes an argument (`.Label "x"`) is a function of one.
    """

    def __init__(self, kind: str, fields: Mapping[str, Callable[..., Any]]) -> None:
        self.kind, self.fields = kind, fields

    def values(self) -> dict[str, Any]:
        """All fields that take no argument, in order of their names."""
        return {name: make() for name, make in sorted(self.fields.items()) if name[0].isupper() and name != "Label"}


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


def render(source: str, data: Any) -> str:
    """Run a template over a value. Raises TemplateError."""
    return Template(source).render(data)


class Template:
    """A template that was read, to be run over many values.

    `headers`: the values are column titles, which functions leave as they are.
    """

    def __init__(self, source: str) -> None:
        self._nodes = parse(source)
        _check(self._nodes)

    def render(self, data: Any, headers: bool = False) -> str:
        """The text for one value. Raises TemplateError."""
        run = _Run(data, headers)
        run.nodes(self._nodes, data)
        return "".join(run.output)


def _check(nodes: list[Node]) -> None:
    """Raise TemplateError for a function that does not exist, before anything is printed."""
    for node in nodes:
        if node.pipe is not None:
            _check_pipe(node.pipe)
        _check(node.body)
        _check(node.otherwise)


def _check_pipe(pipe: Pipe) -> None:
    for command in pipe.commands:
        for operand in command:
            if operand.kind == "pipe":
                _check_pipe(operand.value)
            elif operand.kind == "name" and operand.text.partition(".")[0] not in (*BUILTIN, *LAZY):
                line = operand.where.rpartition(":")[0]
                raise TemplateError(f'template: {line}: function "{operand.text}" not defined')


class _Run:
    """One execution: the output so far, and the variables in sight."""

    def __init__(self, data: Any, headers: bool) -> None:
        self.output: list[str] = []
        self._scopes: list[dict[str, Any]] = [{"$": data}]
        self._headers = headers

    def nodes(self, nodes: list[Node], dot: Any) -> None:
        for node in nodes:
            if node.kind == "text":
                self.output.append(node.text)
            elif node.kind == "break":
                raise _Break
            elif node.kind == "continue":
                raise _Continue
            else:
                self._block(node, dot)

    def _block(self, node: Node, dot: Any) -> None:
        assert node.pipe is not None
        if node.kind == "action":
            value = self._pipe(node.pipe, dot)
            if not node.pipe.variables:
                self.output.append(text.for_output(show(value, top=True)))
            return
        self._scopes.append({})
        if node.kind == "range":
            self._range(node, dot)
        else:
            value = self._pipe(node.pipe, dot)
            inner = value if node.kind == "with" else dot
            if _true(value):
                self.nodes(node.body, inner)
            else:
                self.nodes(node.otherwise, dot)
        self._scopes.pop()

    def _range(self, node: Node, dot: Any) -> None:
        assert node.pipe is not None
        variables, node_pipe = node.pipe.variables, node.pipe
        value = self._commands(node_pipe, dot)
        empty = True
        for key, item in _items(value):
            empty = False
            if variables:
                self._scopes[-1][variables[-1]] = item
                if len(variables) > 1:
                    self._scopes[-1][variables[0]] = key
            try:
                self.nodes(node.body, item)
            except _Continue:
                continue
            except _Break:
                break
        if empty:
            self.nodes(node.otherwise, dot)

    def _pipe(self, pipe: Pipe, dot: Any) -> Any:
        value = self._commands(pipe, dot)
        for name in pipe.variables:
            scope = self._scopes[-1]
            if not pipe.declares:
                scope = next((s for s in reversed(self._scopes) if name in s), scope)
            scope[name] = value
        return value

    def _commands(self, pipe: Pipe, dot: Any) -> Any:
        value: list[Any] = []
        for command in pipe.commands:
            value = [self._command(command, dot, value)]
        return value[0]

    def _command(self, command: list[Operand], dot: Any, last: list[Any]) -> Any:
        """Run one command; `last` holds the value that a pipe hands on as its final argument."""
        first, *rest = command
        if first.kind == "name":
            if first.text in LAZY:
                return self._lazy(first.text, rest, dot, last)
            arguments = [self._operand(operand, dot) for operand in rest] + last
            return self._function(first, arguments)
        if rest or last:
            arguments = [self._operand(operand, dot) for operand in rest] + last
            return self._operand(first, dot, arguments)
        return self._operand(first, dot)

    def _lazy(self, name: str, operands: list[Operand], dot: Any, last: list[Any]) -> Any:
        """`and` and `or` stop at the first argument that decides."""
        value: Any = None
        for operand in operands:
            value = self._operand(operand, dot)
            if _true(value) == (name == "or"):
                return value
        return last[0] if last else value

    def _function(self, operand: Operand, arguments: list[Any]) -> Any:
        name = operand.text
        if self._headers and name in ("json", "lower", "title", "truncate", "upper", "pad", "join", "split"):
            return arguments[0] if arguments else ""
        try:
            return BUILTIN[name](*arguments)
        except TemplateError as error:
            raise self._failed(operand, f"error calling {name}: {error}") from None
        except (TypeError, ValueError, AttributeError) as error:
            problem = f"wrong number or type of args for {name}: {error}"
            raise self._failed(operand, problem) from None

    def _operand(self, operand: Operand, dot: Any, arguments: list[Any] | None = None) -> Any:
        if operand.kind == "dot":
            value = dot
        elif operand.kind == "variable":
            value = self._variable(operand)
        elif operand.kind == "pipe":
            value = self._pipe(operand.value, dot)
        elif operand.kind == "name":
            value = self._function(operand, arguments or [])
        else:
            return operand.value
        for index, name in enumerate(operand.fields):
            final = index == len(operand.fields) - 1
            value = self._field(operand, value, name, (arguments or []) if final else [])
        return value

    def _variable(self, operand: Operand) -> Any:
        name = operand.text.partition(".")[0]
        for scope in reversed(self._scopes):
            if name in scope:
                return scope[name]
        raise TemplateError(f'template: {operand.where.rpartition(":")[0]}: undefined variable "{name}"')

    def _field(self, operand: Operand, value: Any, name: str, arguments: list[Any]) -> Any:
        if isinstance(value, Row):
            make = value.fields.get(name)
            if make is None:
                raise self._failed(operand, f"can't evaluate field {name} in type *{value.kind}")
            try:
                return make(*arguments)
            except TypeError:
                raise self._failed(operand, f"wrong number of args for {name}") from None
        if isinstance(value, dict):
            if name in value:
                return _typed(name, value[name])
            if name in _OMITTED:
                return _typed(name, _OMITTED[name])
            raise self._failed(operand, f'map has no entry for key "{name}"')
        if value is None or isinstance(value, Nil):
            raise self._failed(operand, f"nil pointer evaluating interface {{}}.{name}")
        raise self._failed(operand, f"can't evaluate field {name} in type {_type(value)}")

    def _failed(self, operand: Operand, problem: str) -> TemplateError:
        return TemplateError(f'template: {operand.where}: executing "" at <{operand.text}>: {problem}')


class Nil:
    """A null whose type the field's name tells: it prints as Go prints an empty value of that type."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __bool__(self) -> bool:
        return False


_NIL_POINTERS = (
    "Health",
    "Healthcheck",
    "Init",
    "MemorySwappiness",
    "OomKillDisable",
    "SizeRootFs",
    "SizeRw",
    "PidsLimit",
    "StopTimeout",
)
_NIL_MAPS = ("Annotations", "DriverOpts", "ExposedPorts", "Labels", "Options", "PortBindings", "Ports", "Volumes")


def _typed(name: str, value: Any) -> Any:
    if value is not None:
        return value
    if name in _NIL_POINTERS:
        return Nil("<nil>")
    return Nil("map[]" if name in _NIL_MAPS else "[]")


def _true(value: Any) -> bool:
    return True if isinstance(value, Row) else bool(value)


def _items(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict):
        return iter(sorted(value.items()))
    if isinstance(value, list):
        return iter(enumerate(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return iter((index, index) for index in range(value))
    if value is None or isinstance(value, Nil):
        return iter(())
    raise TemplateError(f"range can't iterate over {show(value)}")


def _type(value: Any) -> str:
    kinds = {str: "string", bool: "bool", int: "int", float: "float64", list: "[]interface {}"}
    return kinds.get(type(value), "interface {}")
