"""Listings: rows under column titles, or in the user's own format."""

from __future__ import annotations

from bastide.cli.grammar import CommandError
from bastide.cli.show import text
from bastide.cli.show.template import TemplateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from bastide.cli.show.evaluate import Row

_NARROWEST, _GAP = 10, 3  # text/tabwriter as Docker sets it


def align(lines: Sequence[Sequence[str]]) -> str:
    """Cells under one another: each column as wide as its widest cell and a gap, at least ten."""
    widths: list[int] = []
    for line in lines:
        for index, cell in enumerate(line[:-1]):
            if index == len(widths):
                widths.append(_NARROWEST)
            widths[index] = max(widths[index], len(cell) + _GAP)
    return "\n".join(
        ["".join([f"{cell:<{widths[i]}}" for i, cell in enumerate(line[:-1])]) + line[-1] for line in lines]
    )


def columns(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a plain table. Cells lose their tabs and line breaks: a name cannot forge a row."""
    text.out(align([titles, *([_cell(cell) for cell in row] for row in rows)]))


def _cell(value: str) -> str:
    return value if value.isprintable() else value.replace("\t", " ").replace("\n", " ")


class Listing:
    """How a noun is listed: the fields of a row, their titles, and which are shown unless told otherwise."""

    def __init__(self, kind: str, titles: Mapping[str, str], shown: Sequence[str]) -> None:
        self.kind, self.titles, self.shown = kind, titles, shown

    def print(self, form: str, items: Sequence[Mapping[str, Callable[..., Any]]]) -> None:
        """Print items (their fields by name) as `--format` says. Raises CommandError."""
        if form in ("", "table"):
            made = [[str(item[name]()) for name in self.shown] for item in items]
            columns([self.titles[name] for name in self.shown], made)
            return
        from bastide.cli.show.evaluate import Row

        rows = [Row(self.kind, item) for item in items]
        if form == "json":
            form = "{{json .}}"
        if form.startswith("table"):
            self._table(form[len("table") :].strip(), rows)
        else:
            for line in each(form, rows):
                text.out_made_safe(line)

    def _table(self, form: str, rows: Sequence[Row]) -> None:
        from bastide.cli.show.evaluate import Row, Template

        titles = {name: _constant(title) for name, title in self.titles.items()}
        titles["Label"] = _label_title
        source = form.replace("\\t", "\t").replace("\\n", "\n")
        try:
            template = Template(source)
        except TemplateError as error:
            raise CommandError(f"failed to parse template: {error}") from None
        try:
            lines = [template.render(Row(self.kind, titles), headers=True)]
            lines += [template.render(row) for row in rows]
        except TemplateError as error:
            raise CommandError(f"failed to execute template: {error}") from None
        text.out_made_safe(align([line.split("\t") for line in lines]))


def each(form: str, values: Sequence[Any]) -> list[str]:
    """A line for each value, in a format of the user's. Raises CommandError with Docker's text."""
    from bastide.cli.show.evaluate import Template

    source = form.replace("\\t", "\t").replace("\\n", "\n")
    try:
        template = Template(source)
    except TemplateError as error:
        raise CommandError(f"failed to parse template: {error}") from None
    try:
        return [template.render(value) for value in values]
    except TemplateError as error:
        raise CommandError(f"failed to execute template: {error}") from None


def _label_title(name: str) -> str:
    """The title over `.Label "com.example.some-key"`: its last part, in words."""
    return name.rpartition(".")[2].replace("-", " ").replace("_", " ")


def _constant(title: str) -> Callable[..., str]:
    return lambda *_arguments: title
