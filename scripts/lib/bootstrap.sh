# shellcheck shell=bash
# Shared by scripts/quickstart and scripts/test: messages, the lock, OS packages, a virtual environment.
# Sourced by bash, never run. Expects ROOT (the checkout), STATE (where everything made is kept) and PROGRAM (what the person typed).

PYTHON=${PYTHON:-/usr/bin/python3}
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin # of an ordinary user it lacks the daemons
export LC_ALL=C.UTF-8
unset PYTHONPATH PYTHONHOME

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

CLEANUP=() # functions to call at the end, whatever it is
at_exit() {
    local command
    for command in "${CLEANUP[@]}"; do "$command"; done
}
trap at_exit EXIT
trap 'printf "\n" >&2; note "Interrupted. The same command again goes on from here." >&2; exit 130' INT
trap 'note "Ended. The same command again goes on from here." >&2; exit 143' TERM HUP

# --- the state directory ----------------------------------------------------------------------------------------------

check_state() { # check_state — STATE as a full path, usable, or an error that says why not
    STATE=$(realpath -m -- "$STATE") || die "'$STATE' is not the name of a directory."
    case $STATE in
        / | "${HOME:-/}" | "$ROOT") die "$STATE is no place for it: --reset deletes from there." "Name a directory of its own:  --state DIR" ;;
        *[$'\n\t:?%"\'\\$`']*) die "The name of the state directory holds a character that cannot be in it (quotes, line breaks, or one of : ? % $ \`)." "Name another one:  --state DIR" ;;
    esac
}

prepare_state() { # prepare_state MEGABYTES VENV — makes STATE, with room for a VENV that is not there yet, and takes the lock
    local free reason
    reason=$(mkdir -p -- "$STATE" 2>&1) || die "$STATE cannot be made: ${reason##*: }." "Name a place where you may write:  --state DIR"
    [ -w "$STATE" ] || die "$STATE belongs to somebody else ($(stat -c %U "$STATE"))." "Name a place where you may write:  --state DIR"
    free=$(df -Pm -- "$STATE" | awk 'NR == 2 { print $4 }')
    [ -x "$STATE/$2/bin/python" ] || [ "${free:-$1}" -ge "$1" ] || die "$STATE has $free MB left on its disk; about $1 MB are needed." "Make room, or name another place:  --state DIR"
    take_lock
}

take_lock() { # what an interrupted run began (a package being installed) holds the lock too, until it ends
    exec 9>>"$STATE/lock"
    flock --nonblock 9 || die "Another run is at work on $STATE, or what an interrupted one began is still under way." "Wait for it, or look:  fuser -v $(printf %q "$STATE/lock")"
}

release_lock() { exec 9>&-; }

wait_until() { # wait_until SECONDS COMMAND… — polls ten times a second
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.1
    done
}

# --- OS packages ------------------------------------------------------------------------------------------------------

# What web hosting runs on: nginx, php-fpm with the extensions that applications expect, Tomcat with a compiler for JSP, Redis for sessions.
# shellcheck disable=SC2034 # used by those who source this
WEB_PACKAGES=(nginx-light php8.2-fpm php8.2-cli php8.2-bcmath php8.2-curl php8.2-gd php8.2-intl php8.2-mbstring php8.2-mysql php8.2-sqlite3 php8.2-xml
    php8.2-zip php-redis tomcat10-user libecj-java openjdk-17-jre-headless redis-server logrotate)

# What databases run on: MariaDB with Galera and what its transfers of data need, HAProxy, compression of dumps.
# shellcheck disable=SC2034 # used by those who source this
MYSQL_PACKAGES=(mariadb-server galera-4 mariadb-backup stunnel4 socat rsync haproxy zstd xz-utils iproute2 procps logrotate)

package_installed() { dpkg-query -W -f='${db:Status-Status}\n' "$1" 2>/dev/null | grep -qxE 'installed|triggers-(pending|awaited)'; }

missing_packages() { # prints those of its arguments that are not installed
    local package
    for package in "$@"; do package_installed "$package" || printf '%s\n' "$package"; done
}

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi; }

# The packages bring daemons that Debian starts and enables by itself. ConPaaS runs its own copies on addresses of its own, so those
# of the packages are neither started now nor enabled at the next boot; daemons that were there before are left as they are.
UNIT_PLACES=${UNIT_PLACES:-/etc/systemd/system /lib/systemd/system}
SYSTEMD=${SYSTEMD:-/run/systemd/system} # is there where systemd runs

units_of() { # units_of PACKAGE… — the units that come with packages, or with those that they bring along
    local package
    for package in "$@"; do
        case $package in
            openssh-server) echo ssh ;;
            mariadb-server) echo mariadb ;;
            nginx-light) echo nginx ;;
            redis-server | postgresql | php8.2-fpm | haproxy | stunnel4 | rsync) echo "$package" ;;
        esac
    done
}

new_units() { # new_units PACKAGE… — those of the packages' units that this machine does not have yet
    local unit place
    for unit in $(units_of "$@"); do
        for place in $UNIT_PLACES; do [ ! -e "$place/$unit.service" ] || continue 2; done
        printf '%s\n' "$unit"
    done
}

POLICY=${POLICY:-/usr/sbin/policy-rc.d}
POLICY_MARK='# of ConPaaS, while it installs packages'

deny_starts() {
    [ ! -e "$POLICY" ] || grep -qxF "$POLICY_MARK" "$POLICY" || return 0
    # It means nothing any more when the process that wrote it is gone, however that ended.
    printf '#!/bin/sh\n%s\n[ -d /proc/%s ] && exit 101\nexit 0\n' "$POLICY_MARK" $$ | as_root tee "$POLICY" >/dev/null
    as_root chmod 755 "$POLICY"
}

allow_starts() {
    [ ! -e "$POLICY" ] || ! grep -qxF "$POLICY_MARK" "$POLICY" || as_root rm -f "$POLICY"
}

apt_get() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" </dev/null; }

get_packages() { # get_packages PACKAGE… — mends first what an interrupted installation left, if that is in the way
    apt_get install -y --no-install-recommends "$@" && return
    as_root env DEBIAN_FRONTEND=noninteractive dpkg --configure -a </dev/null && apt_get install -y --no-install-recommends "$@"
}

install_packages() { # install_packages PACKAGE…
    local missing units log=$STATE/apt.log status=0
    command -v dpkg-query >/dev/null && command -v apt-get >/dev/null ||
        die "This is not Debian or a relative of it: there is no apt-get." "Use a machine or a container with Debian 12 or newer."
    mapfile -t missing < <(missing_packages "$@")
    if [ ${#missing[@]} -eq 0 ]; then
        disable_units >>"$log" 2>&1
        return
    fi
    mapfile -t units < <(new_units "${missing[@]}")
    if [ "$(id -u)" -ne 0 ] && ! sudo -n true 2>/dev/null; then
        die "These Debian packages are missing: ${missing[*]}." "Ask for them once with:  sudo apt-get install --no-install-recommends ${missing[*]}$(disabling "${units[@]}")"
    fi
    say "Installing Debian packages: ${missing[*]}"
    CLEANUP+=(allow_starts)
    deny_starts
    : >"$log"
    [ ${#units[@]} -eq 0 ] || printf '%s\n' "${units[@]}" >>"$STATE/new-units"
    apt_get update >>"$log" 2>&1 || note "apt-get update had trouble (see $log); going on with the lists that there are."
    get_packages "${missing[@]}" >>"$log" 2>&1 || status=$?
    allow_starts
    [ "$status" -eq 0 ] || die "apt-get could not install ${missing[*]}: $(grep '^E: ' "$log" | tail -n 1 | grep . || tail -n 1 "$log")" "All its words are in $log."
    disable_units >>"$log" 2>&1
}

disabling() { # disabling UNIT… — what to add to the command that somebody else is to type
    [ $# -eq 0 ] || [ ! -d "$SYSTEMD" ] || printf ' && sudo systemctl disable --now %s' "$*"
}

disable_units() { # the units in $STATE/new-units, which were not there before; an interrupted run leaves them to the next one
    local unit
    [ -e "$STATE/new-units" ] || return 0
    while read -r unit && [ -d "$SYSTEMD" ]; do
        as_root systemctl disable --now "$unit" </dev/null || note "Could not disable the service $unit."
    done <"$STATE/new-units"
    rm -f "$STATE/new-units"
}

# --- virtual environment ----------------------------------------------------------------------------------------------

check_python() {
    command -v "$PYTHON" >/dev/null || die "There is no $PYTHON." "Install Python 3.11 or newer, or name one:  PYTHON=/path/to/python3 $PROGRAM"
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "$PYTHON is $("$PYTHON" --version 2>&1); ConPaaS needs Python 3.11 or newer." "Name another one:  PYTHON=/path/to/python3 $PROGRAM"
}

# make_venv DIR EXTRA — a virtual environment in DIR with this checkout installed in it, with the exact versions of
# constraints.txt. Does nothing when nothing that it is made of has changed since. One that was never finished is made anew; one
# that was is brought up to date in place, as programs may be running from it.
make_venv() {
    local venv=$1 extra=${2:-} stamp fingerprint log=$STATE/pip.log
    check_python
    stamp=$venv/.conpaas-installed
    fingerprint=$(cd "$ROOT" && cat setup.py constraints.txt | sha256sum | cut -d' ' -f1)-$extra-$("$PYTHON" --version)-$ROOT
    if [ "$(cat "$stamp" 2>/dev/null)" = "$fingerprint" ] && "$venv/bin/python" -c 'import conpaas' 2>/dev/null; then
        return 0
    fi
    say "Installing ConPaaS into $venv (about a minute)"
    if [ ! -e "$stamp" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        rm -rf -- "$venv"
        "$PYTHON" -m venv -- "$venv" >"$log" 2>&1 || die "Python could not make a virtual environment in $venv: $(tail -n 1 "$log")" "Are the package python3-venv and room on the disk there? All its words are in $log."
    fi
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --constraint "$ROOT/constraints.txt" \
        --editable "$ROOT${extra:+[$extra]}" </dev/null >"$log" 2>&1 ||
        die "pip could not install ConPaaS into $venv: $(grep -m1 '^ERROR: ' "$log" || tail -n 1 "$log")" "All its words are in $log."
    printf '%s' "$fingerprint" >"$stamp"
}
