"""Completion scripts. Everything in them but the names of containers, images, … is written out beforehand."""

from __future__ import annotations

from bastide.cli import commands
from bastide.cli.grammar import ON, SWITCH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# What the first arguments of a command are; the words are asked from the daemon when they are wanted.
_SOURCES = {
    "container": "ps -a --format '{{.Names}}'",
    "running": "ps --format '{{.Names}}'",
    "image": "images --format '{{.Repository}}:{{.Tag}}' --filter dangling=false",
    "network": "network ls --format '{{.Name}}'",
    "volume": "volume ls -q",
}
_TAKES = {
    "running": "attach exec kill pause port restart stats stop top unpause wait",
    "container": "clone commit cp diff export inspect logs rename rm start update container_inspect "
    "snapshot_create snapshot_inspect snapshot_ls snapshot_restore snapshot_rm",
    "image": "create history push rmi run save tag image_inspect",
    "network": "network_connect network_disconnect network_inspect network_rm",
    "volume": "volume_inspect volume_rm",
}


def _kind(name: str) -> str:
    key = name.replace(" ", "_")
    return next((kind for kind, names in _TAKES.items() if key in names.split()), "")


def _commands() -> list[tuple[str, str, str]]:
    """Every spelling of every command: its words, the command that it is, and what that is for."""
    rows = [(name, name, summary) for name, (_, summary) in commands.COMMANDS.items()]
    rows += [(alias, target, commands.COMMANDS[target][1]) for alias, target in commands.ALIASES.items()]
    return sorted(row for row in rows if row[1] != "system dial-stdio")


def _flags(name: str) -> list[tuple[str, str, bool, str]]:
    """Long, short, whether a value follows, and the text of each flag of a command."""
    return [
        (long, short, kind not in (SWITCH, ON), summary)
        for long, short, kind, summary in (*commands.load(name).flags, ("help", "", SWITCH, "Print usage"))
    ]


def bash() -> str:
    """The script for bash (also read by zsh through bashcompinit)."""
    top = sorted({name.partition(" ")[0] for name, _, _ in _commands()} | {"help"})
    lines = ["# bash completion for bastide", "_bastide_words() {", '    case "$1" in']
    for group in commands.GROUPS:
        lines.append(f"        {group}) echo {' '.join(commands.members(group))} ;;")
    lines += ["    esac", "}", "_bastide_flags() {", '    case "$1" in']
    seen: dict[str, list[str]] = {}
    for name, target, _ in _commands():
        seen.setdefault(target, []).append(f'"{name}"')
    for target, names in seen.items():
        words = [f"--{long}" for long, _, _, _ in _flags(target)]
        words += [f"-{short}" for _, short, _, _ in _flags(target) if short]
        lines.append(f"        {'|'.join(names)}) echo {' '.join(words)} ;;")
    lines += ["    esac", "}", "_bastide_names() {", '    case "$1" in']
    for kind, source in _SOURCES.items():
        names = [n for target, spelled in seen.items() if _kind(target) == kind for n in spelled]
        lines.append(f"        {'|'.join(names)}) bastide {source} 2>/dev/null ;;")
    lines += ["    esac", "}", _BASH_BODY.replace("@TOP@", " ".join(top))]
    return "\n".join(lines)


_BASH_BODY = """_bastide() {
    local current="${COMP_WORDS[COMP_CWORD]}" name="" word index words
    COMPREPLY=()
    for ((index = 1; index < COMP_CWORD; index++)); do
        word="${COMP_WORDS[index]}"
        [[ $word == -* ]] && continue
        if [[ -z $name ]]; then
            name="$word"
            [[ -n $(_bastide_words "$name") ]] || break
        else
            name="$name $word"
            break
        fi
    done
    if [[ -z $name ]]; then
        words="@TOP@"
    elif [[ $current == -* ]]; then
        words="$(_bastide_flags "$name")"
    else
        words="$(_bastide_words "$name")"
        [[ -n $words ]] || words="$(_bastide_names "$name")"
    fi
    if [[ -z $words ]]; then
        compopt -o default 2>/dev/null
    else
        # Names come from the daemon: nothing is expanded, and what a shell would act upon is left out.
        local -
        set -f
        for word in $words; do
            if [[ $word == "$current"* && $word =~ ^[[:alnum:]_.:/@-]+$ ]]; then
                COMPREPLY+=("$word")
            fi
        done
        [[ ${#COMPREPLY[@]} -gt 0 ]] && __ltrim_colon_completions "$current" 2>/dev/null
    fi
    return 0
}
complete -F _bastide bastide
"""


def zsh() -> str:
    """The script for zsh."""
    groups = [f"{name}:{_zsh(summary)}" for name, summary in commands.GROUPS.items()]
    tops = [f"{name}:{_zsh(summary)}" for name, _, summary in _commands() if " " not in name]
    lines = ["#compdef bastide", "_bastide() {", "    local -a top verbs", "    local name"]
    lines += ["    top=(", *(f"        '{entry}'" for entry in sorted(groups + tops)), "    )"]
    lines.append("    if (( CURRENT == 2 )); then _describe command top; return; fi")
    lines.append("    name=${words[2]}")
    lines.append("    case $name in")
    for group in commands.GROUPS:
        lines.append(f"        {group})")
        lines.append("            verbs=(")
        lines += [f"                '{verb}:{_zsh(about)}'" for verb, about in commands.members(group).items()]
        lines += [
            "            )",
            "            if (( CURRENT == 3 )); then _describe command verbs; return; fi",
            '            name="$name ${words[3]}"; shift words; (( CURRENT-- ))',
            "            ;;",
        ]
    lines += ["    esac", "    shift words; (( CURRENT-- ))", '    case "$name" in']
    spelled: dict[str, list[str]] = {}
    for name, target, _ in _commands():
        spelled.setdefault(target, []).append(f"'{name}'")
    for target, names in spelled.items():
        lines.append(f"        {'|'.join(names)})")
        lines.append("            _arguments -s \\")
        for long, short, value, about in _flags(target):
            tail = ":value:_files" if value else ""
            lines.append(f"                '--{long}{'=' if value else ''}[{_zsh(about)}]{tail}' \\")
            if short:
                lines.append(f"                '-{short}{'+' if value else ''}[{_zsh(about)}]{tail}' \\")
        kind = _kind(target)
        lines.append(f"                '*:argument:{'_bastide_' + kind if kind else '_files'}'")
        lines.append("            ;;")
    lines += ["    esac", "}"]
    for kind, source in _SOURCES.items():
        lines += [
            f"_bastide_{kind}() {{",
            f'    local -a names; names=(${{(f)"$(bastide {source} 2>/dev/null)"}})',
            f"    names=(${{names//:/\\\\:}}); _describe {kind} names",
            "}",
        ]
    lines.append('if [[ ${funcstack[1]} == _bastide ]]; then _bastide "$@"; else compdef _bastide bastide; fi')
    return "\n".join(lines) + "\n"


def _zsh(summary: str) -> str:
    for letter in "\\[]:":
        summary = summary.replace(letter, f"\\{letter}")
    return summary.replace("'", "'\\''")


def fish() -> str:
    """The script for fish."""
    lines = ["# fish completion for bastide", _FISH_BODY, "complete -c bastide -f"]
    for name, summary in commands.GROUPS.items():
        lines.append(f"complete -c bastide -n '__bastide_at \"\"' -a {name} -d {_fish(summary)}")
        for verb, about in commands.members(name).items():
            lines.append(f"complete -c bastide -n '__bastide_at {name}' -a {verb} -d {_fish(about)}")
    for name, target, summary in _commands():
        if " " not in name:
            lines.append(f"complete -c bastide -n '__bastide_at \"\"' -a {name} -d {_fish(summary)}")
        condition = f"-n '__bastide_at \"{name}\"'" if " " in name else f"-n '__bastide_at {name}'"
        for long, short, value, about in _flags(target):
            tail = " -r" if value else ""
            head = f" -s {short}" if short else ""
            lines.append(f"complete -c bastide {condition} -l {long}{head}{tail} -d {_fish(about)}")
        kind = _kind(target)
        source = _SOURCES.get(kind, "").replace("'", '"')
        lines.append(f"complete -c bastide {condition} " + (f"-a '(bastide {source} 2>/dev/null)'" if kind else "-F"))
    return "\n".join(lines) + "\n"


_FISH_BODY = """function __bastide_at
    set -l words
    for word in (commandline -opc)[2..]
        string match -q -- '-*' $word; or set -a words $word
    end
    set -l groups @GROUPS@
    if not set -q words[1]
        test -z "$argv[1]"
    else if contains -- $words[1] $groups
        if set -q words[2]
            test "$words[1] $words[2]" = "$argv[1]"
        else
            test "$words[1]" = "$argv[1]"
        end
    else
        test "$words[1]" = "$argv[1]"
    end
end""".replace("@GROUPS@", " ".join(commands.GROUPS))


def _fish(summary: str) -> str:
    return "'" + summary.replace("\\", "\\\\").replace("'", "\\'") + "'"


SHELLS: dict[str, Callable[[], str]] = {"bash": bash, "fish": fish, "zsh": zsh}
