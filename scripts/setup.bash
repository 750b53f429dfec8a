# What the scripts share: progress, one-line errors, packages and environments. To be sourced.

set -euo pipefail

SOURCE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PROGRAM=scripts/$(basename "$0")
SUPPORTED="debian-12 debian-13 ubuntu-24.04"
SYSTEM_PYTHON=/usr/bin/python3

die() {
    echo "$PROGRAM: $*" >&2
    exit 1
}

say() {
    echo "$*" >&2
}

need_root() {
    [[ $EUID == 0 ]] || die "must run as root: it $1; try: sudo $PROGRAM"
}

# Says which of the supported distributions this is: `debian-12`.
distribution() {
    local found
    found=$(. /etc/os-release 2>/dev/null && echo "${ID:-unknown}-${VERSION_ID:-unknown}") || found=unknown
    [[ " $SUPPORTED " == *" $found "* ]] || die "unsupported distribution $found: it runs on ${SUPPORTED// /, }"
    echo "$found"
}

# The file that takes what long steps print.
open_log() {
    if [[ $EUID == 0 ]]; then LOG=/var/log/bastide-setup.log; else LOG=$(mktemp -t bastide-setup.XXXXXX); fi
    : >"$LOG"
}

# step WHAT COMMAND…: runs it with its output in the log and shows that it goes on, and for how long.
step() {
    local what=$1 began=$SECONDS ticker='' status=0 reason
    shift
    if [[ -t 2 ]]; then
        while sleep 1; do printf '\r\033[K  %s … %d s' "$what" $((SECONDS - began)) >&2; done &
        ticker=$!
    else
        say "  $what …"
    fi
    # A subshell with its own `set -e`, waited for, so that a failure within is seen and not fatal here.
    (set -e; "$@") >>"$LOG" 2>&1 </dev/null & wait $! || status=$?
    if [[ -n $ticker ]]; then
        kill "$ticker"
        wait "$ticker" 2>/dev/null || true
        printf '\r\033[K' >&2
    fi
    if ((status)); then
        reason=$(grep -E '^(E|ERROR|error|fatal):? ' "$LOG" | tail -n 1) || reason=$(tail -n 1 "$LOG")
        die "$what failed: ${reason:-exit status $status} (its output: $LOG)"
    fi
    say "  $what: $((SECONDS - began)) s"
}

# packages PURPOSE…: the names for this distribution.
packages() {
    local here purpose package where _why
    here=$(distribution) || exit 1
    while read -r purpose package where _why; do
        [[ " $* " == *" $purpose "* ]] || continue
        [[ $where == '*' || ",$where," == *",$here,"* ]] && echo "$package"
    done < <(grep -v '^#' "$SOURCE/packaging/packages.txt") | sort -u
}

missing_packages() {
    local installed
    installed=$(dpkg-query --show --showformat '${db:Status-Status} ${Package}\n' | sed -n 's/^installed //p' | sort -u)
    comm -23 <(packages "$@") <(echo "$installed")
}

# install_packages PURPOSE…: what is missing, and nothing when nothing is.
install_packages() {
    local missing
    distribution >/dev/null
    missing=$(missing_packages "$@" | tr '\n' ' ')
    [[ -n ${missing// /} ]] || return 0
    need_root "installs packages ($missing)"
    step "package lists" apt-get update
    # shellcheck disable=SC2086  # a list of names
    step "packages $missing" env DEBIAN_FRONTEND=noninteractive apt-get install --yes \
        --no-install-recommends -o DPkg::Lock::Timeout=600 $missing
}

# environment FOLDER LOCK…: a virtual environment with exactly what the locks name, kept while they stay the same.
environment() {
    local folder=$1 key
    shift
    key=$(environment_key "$@")
    [[ $(cat "$folder/locks" 2>/dev/null) == "$key" ]] && return 0
    rm -rf "$folder"
    step "virtual environment" "$SYSTEM_PYTHON" -m venv "$folder"
    step "Python packages" "$folder/bin/python" -m pip install --disable-pip-version-check --no-input \
        --only-binary :all: --require-hashes "${@/#/--requirement=}"
    echo "$key" >"$folder/locks"
}

environment_key() {
    { "$SYSTEM_PYTHON" --version && cat "$@"; } | sha256sum | cut -c -12
}

# One text for a state of the sources: sources_key PATH…
sources_key() {
    (cd "$SOURCE" && find "$@" -type f ! -name '*.pyc' ! -path '*/build/*' -print0 | sort -z | xargs -0 sha256sum) |
        sha256sum | cut -c -12
}
