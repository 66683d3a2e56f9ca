# shellcheck shell=bash
# Shared by scripts/quickstart and scripts/test: OS packages, a virtual environment, messages.
# Sourced by bash, never run. Expects ROOT (the checkout) and STATE (where everything made is kept).

PYTHON=${PYTHON:-/usr/bin/python3}

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    BOLD=$'\e[1m' GREEN=$'\e[32m' RED=$'\e[31m' DIM=$'\e[2m' PLAIN=$'\e[0m'
else
    BOLD='' GREEN='' RED='' DIM='' PLAIN=''
fi

say() { printf '%s==>%s %s\n' "$GREEN$BOLD" "$PLAIN" "$*"; }
note() { printf '    %s%s%s\n' "$DIM" "$*" "$PLAIN"; }
die() { # die "what went wrong" ["the way out"]
    printf '%serror:%s %s\n' "$RED$BOLD" "$PLAIN" "$1" >&2
    [ -z "${2:-}" ] || printf '       %s\n' "$2" >&2
    exit 1
}

# --- OS packages ------------------------------------------------------------------------------------------------------

package_installed() { dpkg-query -W -f='${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed; }

missing_packages() { # prints those of its arguments that are not installed
    local package
    for package in "$@"; do package_installed "$package" || printf '%s\n' "$package"; done
}

# The packages bring daemons that Debian starts and enables by itself. ConPaaS runs its own copies on addresses of its own, so those
# of the packages are neither started now nor enabled at the next boot; daemons that were there before are left as they are.
install_packages() { # install_packages PACKAGE…
    local root_command=() deny='' package unit missing
    mapfile -t missing < <(missing_packages "$@")
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" -ne 0 ]; then
        if sudo -n true 2>/dev/null; then
            root_command=(sudo -n)
        else
            die "These Debian packages are missing: ${missing[*]}." "Ask for them once with:  sudo apt-get install --no-install-recommends ${missing[*]}"
        fi
    fi
    say "Installing Debian packages: ${missing[*]}"
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        deny=/usr/sbin/policy-rc.d
        printf '#!/bin/sh\nexit 101\n' | "${root_command[@]}" tee "$deny" >/dev/null
        "${root_command[@]}" chmod 755 "$deny"
    fi
    local log=$STATE/apt.log status=0
    mkdir -p "$STATE"
    {
        "${root_command[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq &&
            "${root_command[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
    } >"$log" 2>&1 || status=$?
    [ -z "$deny" ] || "${root_command[@]}" rm -f "$deny"
    [ "$status" -eq 0 ] || die "apt-get could not install ${missing[*]}." "Its own words are in $log."
    [ -d /run/systemd/system ] || return 0
    for package in "${missing[@]}"; do
        unit=${package/#openssh-server/ssh} unit=${unit/#mariadb-server/mariadb}
        case $unit in ssh | redis-server | postgresql | mariadb) "${root_command[@]}" systemctl disable --now "$unit" >>"$log" 2>&1 || note "Could not disable $unit." ;; esac
    done
}

# --- virtual environment ----------------------------------------------------------------------------------------------

check_python() {
    command -v "$PYTHON" >/dev/null || die "There is no $PYTHON." "Install Python 3.11 or newer, or name one:  PYTHON=/path/to/python3 $0"
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "$PYTHON is $("$PYTHON" --version 2>&1); ConPaaS needs Python 3.11 or newer." "Name another one:  PYTHON=/path/to/python3 $0"
}

# make_venv DIR EXTRA — a virtual environment in DIR with this checkout installed in it, with the exact versions of
# constraints.txt. Does nothing when nothing that it is made of has changed since.
make_venv() {
    local venv=$1 extra=${2:-} stamp fingerprint
    stamp=$venv/.conpaas-installed
    fingerprint=$(cd "$ROOT" && cat setup.py constraints.txt | sha256sum | cut -d' ' -f1)-$extra-$ROOT
    if [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$fingerprint" ]; then
        return 0
    fi
    check_python
    say "Installing ConPaaS into $venv"
    "$PYTHON" -m venv "$venv" >/dev/null || die "Could not make a virtual environment in $venv." "On Debian:  apt-get install python3-venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --constraint "$ROOT/constraints.txt" --editable "$ROOT${extra:+[$extra]}" \
        >"$STATE/pip.log" 2>&1 || die "pip could not install ConPaaS into $venv." "Its own words are in $STATE/pip.log."
    printf '%s' "$fingerprint" >"$stamp"
}
