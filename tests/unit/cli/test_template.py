"""Go templates. The expected texts were printed by Docker 28 (see https://pkg.go.dev/text/template for the rules)."""

from __future__ import annotations

import pytest

from bastide.cli.show.evaluate import Row, Template, render
from bastide.cli.show.template import TemplateError

DATA = {
    "Name": "web",
    "Id": "abcdef0123456789",
    "Count": 3,
    "Size": 2.5,
    "Up": True,
    "Empty": "",
    "Nothing": None,
    "Labels": {"b": "2", "a": "<1>", "com.x": "y"},
    "List": ["one", "two"],
    "State": {"Running": True, "Paused": False, "Pid": 42},
    "Mounts": [{"Type": "bind", "Destination": "/a"}, {"Type": "volume", "Destination": "/b"}],
    "Binds": None,
    "PidsLimit": None,
    "Volumes": None,
}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("plain", "plain"),
        ("{{.Name}}", "web"),
        ("a{{ .Name }}b{{.Count}}", "awebb3"),
        ("{{.State.Pid}}", "42"),
        ("{{.Up}} {{.Size}} {{.Empty}}|", "true 2.5 |"),
        ("{{.List}}", "[one two]"),
        ("{{.Labels}}", "map[a:<1> b:2 com.x:y]"),
        ("{{json .Labels}}", '{"b":"2","a":"\\u003c1\\u003e","com.x":"y"}'),
        ("{{json .Nothing}} {{json .Name}}", 'null "web"'),
        ("{{.Binds}} {{.PidsLimit}} {{.Volumes}}", "[] <nil> map[]"),
        ("{{.State.Health}}", "<nil>"),
        ("{{if .Up}}yes{{else}}no{{end}}", "yes"),
        ("{{if .Empty}}a{{else if .Count}}b{{else}}c{{end}}", "b"),
        ("{{if and .Up (not .State.Paused)}}x{{end}}", "x"),
        ("{{if or .Empty .Binds}}x{{else}}y{{end}}", "y"),
        ('{{if eq .Name "db" "web"}}same{{end}}', "same"),
        ('{{ne .Name "web"}} {{lt .Count 4}} {{ge .Count 4}}', "false true false"),
        ("{{range .List}}<{{.}}>{{end}}", "<one><two>"),
        ("{{range .Mounts}}{{.Type}}:{{.Destination}} {{end}}", "bind:/a volume:/b "),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}", "a=<1>;b=2;com.x=y;"),
        ("{{range $i, $e := .List}}{{$i}}{{$e}}{{end}}", "0one1two"),
        ("{{range .Binds}}x{{else}}none{{end}}", "none"),
        ("{{range .List}}{{break}}x{{end}}|", "|"),
        ("{{with .State}}{{.Pid}} {{$.Name}}{{end}}", "42 web"),
        ("{{with .Empty}}x{{else}}y{{end}}", "y"),
        ("{{$x := .Name}}{{$x}}{{$x = .Count}}{{$x}}", "web3"),
        ('{{index .Labels "com.x"}} {{index .List 1}}', "y two"),
        ("{{(index .Mounts 0).Type}}", "bind"),
        ('{{index .Labels "missing"}}', "<no value>"),
        ('{{join .List ", "}} {{upper .Name}} {{title .Name}} {{lower "ABC"}}', "one, two WEB Web abc"),
        ('{{split .Name "e"}} {{len .List}} {{len .Name}}', "[w b] 2 3"),
        (
            '{{printf "%s-%d|%5s|%-5s|%q|%05d|%v|%%" .Name .Count .Name .Name .Name .Count .Up}}',
            'web-3|  web|web  |"web"|00003|true|%',
        ),
        ('{{printf "%d" .Name}} {{printf "%s"}}', "%!d(web) %!s(MISSING)"),
        ('{{.Name | printf "%s %s" .Count | upper}}', "3 WEB"),
        ("{{print 1 2 .Name 3}} {{println 1 .Name}}", "1 2web3 1 web\n"),
        ("{{slice .Id 0 4}} {{truncate .Id 6}} {{pad .Name 1 2}}|", "abcd abcdef  web  |"),
        ("a {{- .Name -}} b", "awebb"),
        ("{{/* nothing */}}x{{- /* trim */ -}} y", "xy"),
        ('{{"quo\\"ted"}}{{`raw\\`}}', 'quo"tedraw\\'),
        ("{{true}} {{1.5}} {{'a'}}", "true 1.5 97"),
    ],
)
def test_values(source: str, expected: str) -> None:
    assert render(source, DATA) == expected


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{.Id", "template: :1: unclosed action"),
        ("{{foo .Id}}", 'template: :1: function "foo" not defined'),
        ("{{.Missing}}", 'template: :1:2: executing "" at <.Missing>: map has no entry for key "Missing"'),
        ("{{.Name.Foo}}", "can't evaluate field Foo in type string"),
        ("{{.Nothing.Foo}}", "nil pointer evaluating interface {}.Foo"),
        ("{{index .List 5}}", "error calling index: index out of range: 5"),
        ("{{slice .Name 0 9}}", "error calling slice: index out of range: 9"),
        ("{{if .Up}}x", "unexpected EOF"),
        ("x{{end}}", "unexpected {{end}}"),
        ("{{if}}x{{end}}", "missing value for if"),
        ('{{"open}}', "unterminated quoted string"),
        ("{{(.Name}}", "unclosed left paren"),
        ("{{.Name)}}", "unexpected right paren"),
        ("{{$x}}", 'undefined variable "$x"'),
        ("{{/* open", "unclosed comment"),
        ("{{upper}}", "wrong number or type of args for upper"),
        ("{{}}x{{|}}", "missing value for command"),
        ("{{#}}", "unexpected '#'"),
    ],
)
def test_errors(source: str, message: str) -> None:
    with pytest.raises(TemplateError) as raised:
        render(source, DATA)
    assert message in str(raised.value)


def test_a_row_makes_only_the_fields_that_are_asked_for() -> None:
    def never() -> str:
        raise AssertionError("not asked for")

    row = Row("formatter.ContainerContext", {"Names": lambda: "web", "Size": never, "Label": lambda name: f"<{name}>"})
    assert render('{{.Names}} {{.Label "x"}}', row) == "web <x>"
    with pytest.raises(TemplateError, match="can't evaluate field Foo in type"):
        render("{{.Foo}}", row)
    with pytest.raises(TemplateError, match="wrong number of args for Label"):
        render("{{.Label}}", row)


def test_a_template_is_read_once_for_many_values() -> None:
    template = Template("{{.Name}};")
    assert [template.render({"Name": name}) for name in "ab"] == ["a;", "b;"]
