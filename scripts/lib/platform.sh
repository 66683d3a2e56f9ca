# shellcheck shell=bash
# Starts and stops the platform of scripts/quickstart: the Director under runit, one user, the command line's configuration.
# Sourced after bootstrap.sh. Everything is under $STATE:
#   venv/      the installed package          service/     runit: one service, the Director
#   director/  its database, CA, log, cloud   client/      the command line's configuration and certificates
#   bin/       the commands, configured       credentials  the user's name and password

PACKAGES=(python3-venv runit openssh-server openssh-client git curl openssl redis-tools util-linux e2fsprogs "${WEB_PACKAGES[@]}" "${MYSQL_PACKAGES[@]}")
MEGABYTES=1100 # of disk that a first run needs
DEFAULT_ADDRESS=127.0.0.1:5555
DEFAULT_NETWORK=127.100.0.0/16
ADDRESS='' # of the Director, HOST:PORT, when the person named one
NETWORK='' # of the VMs, likewise

place_platform() { # to be called when STATE is settled
    DIRECTOR=$STATE/director
    CLIENT=$STATE/client
    SERVICE=$STATE/service/cpsdirector
}

setting() { sed -n "s/^$1 *= *//p" "$DIRECTOR/director.cfg" 2>/dev/null | head -n 1; }
credential() { sed -n "s/^$1 *= *//p" "$STATE/credentials"; }
director_url() { setting DIRECTOR_URL; }
frontend_setting() { sed -n "/^\[frontend\]/,/^\[/s/^$1 *= *//p" "$DIRECTOR/director.cfg" 2>/dev/null | head -n 1; }
ports() { "$PYTHON" "$ROOT/scripts/lib/ports.py" "$@"; }

supervisor_pid() { # prints the process id of the runsvdir of this state directory, and only of this one
    local pid argv
    pid=$(cat "$STATE/runsvdir.pid" 2>/dev/null) && [ -n "$pid" ] || return 1
    mapfile -d '' -t argv 2>/dev/null <"/proc/$pid/cmdline" || return 1
    [ ${#argv[@]} -gt 1 ] && [ "${argv[0]##*/} ${argv[1]}" = "runsvdir $STATE/service" ] || return 1
    printf '%s' "$pid"
}

director_supervised() { sv status "$SERVICE" 2>/dev/null | grep -q '^run:'; }

director_answers() {
    curl --silent --fail --max-time 5 --noproxy '*' --cacert "$DIRECTOR/certs/ca_cert.pem" --output /dev/null "$(director_url)/version"
}

frontend_url() { # where people find the web pages; fails if this Director has none
    local host port
    case $(frontend_setting ENABLED) in no | false | off | 0) return 1 ;; esac
    host=$(frontend_setting BIND) port=$(frontend_setting PORT)
    printf 'http://%s:%s/' "${host:-$(frontend_host "$(director_url)")}" "${port:-8080}"
}

frontend_host() { # frontend_host URL — the Director's address, if it is a loopback address
    local host=${1#https://}
    host=${host%:*}
    case $host in 127.*) printf '%s' "$host" ;; *) printf 127.0.0.1 ;; esac
}

frontend_answers() { curl --silent --fail --max-time 5 --noproxy '*' --output /dev/null "$(frontend_url)health"; }

platform_runs() { [ -s "$DIRECTOR/director.cfg" ] && supervisor_pid >/dev/null && director_supervised && director_answers; }

# --- set-up -----------------------------------------------------------------------------------------------------------

write_commands() { # one small command per entry point, which knows this state's configuration whatever the caller's environment
    local command name
    mkdir -p "$STATE/bin"
    for command in "$STATE"/venv/bin/cps* "$STATE"/venv/bin/default-cps*; do
        name=${command##*/}
        {
            printf '#!/bin/bash\nunset CPS_DIRECTOR_URL CPS_USERNAME PYTHONPATH PYTHONHOME\n'
            printf 'export CPS_CONFIG=%q DIRECTOR_CFG=%q\nexec %q "$@"\n' "$CLIENT/cps-tools.conf" "$DIRECTOR/director.cfg" "$command"
        } >"$STATE/bin/.$name"
        chmod 755 "$STATE/bin/.$name"
        mv "$STATE/bin/.$name" "$STATE/bin/$name"
    done
}

free_ports() { # sets manager_port and agent_port: the usual ones, unless this user may not have them or a server listens on all addresses
    manager_port=$(ports usable "$1" 443 8443 9443 10443) || die "No port is free for managers on the addresses of $1 (tried 443, 8443, 9443, 10443)." "Choose other addresses:  $PROGRAM --network 127.X.0.0/16"
    agent_port=$(ports usable "$1" 5555 5556 15555) || die "No port is free for agents on the addresses of $1 (tried 5555, 5556, 15555)." "Choose other addresses:  $PROGRAM --network 127.X.0.0/16"
}

configure_director() { # writes director.cfg, once
    local address=${ADDRESS:-$DEFAULT_ADDRESS} network=${NETWORK:-$DEFAULT_NETWORK} manager_port agent_port pages pages_port
    if [ -s "$DIRECTOR/director.cfg" ]; then
        [ -z "$ADDRESS" ] || [ "https://$ADDRESS" = "$(director_url)" ] || die "The Director in $STATE is at $(director_url), not at $ADDRESS." "Begin anew:  $PROGRAM --reset,  or keep another one beside it:  --state DIR"
        [ -z "$NETWORK" ] || [ "$NETWORK" = "$(setting NETWORK)" ] || die "The VMs in $STATE have addresses of $(setting NETWORK), not of $NETWORK." "Begin anew:  $PROGRAM --reset,  or keep another one beside it:  --state DIR"
        return
    fi
    check_address "$address"
    free_ports "$network"
    pages=$(frontend_host "https://$address")
    pages_port=$(free_frontend_port "$pages") || die "No port is free for the web pages at $pages (tried 8080 and some others)." "Choose another address for the Director:  $PROGRAM --address 127.0.0.2:5555"
    (umask 027 && mkdir -p "$DIRECTOR")
    (
        umask 077
        cat >"$DIRECTOR/director.cfg.new" <<CONFIGURATION
# Written by scripts/quickstart; config/director/director.cfg.example explains every key.
# After a change: \`cpsdirector check-config\`, then scripts/quickstart --stop and scripts/quickstart.

[conpaas]
DEPLOYMENT_NAME = conpaas

[director]
DIRECTOR_URL = https://$address
STATE_DIR = $DIRECTOR
MANAGER_PORT = $manager_port
AGENT_PORT = $agent_port

[frontend]
BIND = $pages
PORT = $pages_port

[iaas]
DRIVER = dummy
NETWORK = $network
CONFIGURATION
    )
    mv "$DIRECTOR/director.cfg.new" "$DIRECTOR/director.cfg"
}

free_frontend_port() { # free_frontend_port HOST — prints a port for the web pages; fails if none is free
    local port status
    for port in 8080 8088 8089 8180 8181 8880 8881; do
        status=0
        ports holder "$1" "$port" >/dev/null 2>&1 || status=$?
        [ "$status" -ne 1 ] || { printf '%s' "$port" && return; }
    done
    return 1
}

check_address() { # check_address HOST:PORT — dies naming what is in the way
    local found status=0
    found=$(ports holder "${1%:*}" "${1##*:}" 2>&1) || status=$?
    case $status in
        1) ;;
        *) die "$found" "Choose another address for the Director:  $PROGRAM --address 127.0.0.2:5555" ;;
    esac
}

# --- start ------------------------------------------------------------------------------------------------------------

supervise_director() {
    mkdir -p "$SERVICE/log" "$DIRECTOR/log/console"
    printf '#!/bin/bash\nexec 2>&1\nexport DIRECTOR_CFG=%q\nexec %q serve\n' "$DIRECTOR/director.cfg" "$STATE/venv/bin/cpsdirector" >"$SERVICE/run.new"
    printf '#!/bin/bash\nexec svlogd -tt %q\n' "$DIRECTOR/log/console" >"$SERVICE/log/run.new"
    chmod 755 "$SERVICE/run.new" "$SERVICE/log/run.new"
    mv "$SERVICE/run.new" "$SERVICE/run"
    mv "$SERVICE/log/run.new" "$SERVICE/log/run"
    rm -f "$SERVICE/down"
    if ! supervisor_pid >/dev/null; then
        # It writes down its own id before it becomes runsvdir, so that there is never one that nobody knows.
        # shellcheck disable=SC2016 # expanded by the inner shell
        setsid sh -c 'echo $$ >"$1/runsvdir.pid" && cd / && exec runsvdir "$1/service"' sh "$STATE" 9>&- </dev/null >>"$STATE/runsvdir.log" 2>&1 &
        disown
    fi
    wait_until 15 test -p "$SERVICE/supervise/ok" || die "runit does not supervise $SERVICE." "Its words are in $STATE/runsvdir.log."
    sv up "$SERVICE" >/dev/null || true # one that is coming up anyway
}

start_director() {
    if platform_runs; then
        note "The Director runs already: $(director_url)"
        return
    fi
    if ! director_supervised; then
        local address
        address=$(director_url)
        check_address "${address#https://}"
    fi
    "$STATE/bin/cpsdirector" init --state "$DIRECTOR" >>"$STATE/init.log" 2>&1 || die "The Director could not be set up in $DIRECTOR: $(tail -n 1 "$STATE/init.log")" "All its words are in $STATE/init.log."
    supervise_director
    wait_until 60 director_answers || die "The Director does not answer at $(director_url)." "Its last words are in $DIRECTOR/log/console/current."
    note "The Director answers at $(director_url)"
    if frontend_url >/dev/null; then
        wait_until 30 frontend_answers || note "The web pages at $(frontend_url) do not answer; $DIRECTOR/log/cpsdirector.log says why."
    fi
}

# The password is on disk before the user exists, so that an interruption between the two loses neither.
create_user() {
    local admin=$STATE/bin/cpsdirector log=$STATE/init.log
    [ -s "$STATE/credentials" ] || {
        (umask 077 && printf 'username = demo\npassword = %s\n' "$(openssl rand -hex 12)" >"$STATE/credentials.new")
        mv "$STATE/credentials.new" "$STATE/credentials"
    }
    if ! "$admin" user list | grep -qxF "$(credential username)"; then
        credential password | "$admin" user create "$(credential username)" --email demo@localhost.localdomain --credit 10000 --password-file - >>"$log" 2>&1 ||
            die "The user '$(credential username)' could not be created: $(tail -n 1 "$log")" "All the words are in $log."
    fi
    "$STATE/bin/cps-tools" whoami >/dev/null 2>&1 || sign_in
}

sign_in() {
    local fingerprint log=$STATE/init.log
    fingerprint=$(openssl x509 -in "$DIRECTOR/certs/ca_cert.pem" -noout -fingerprint -sha256 | cut -d= -f2)
    (umask 077 && mkdir -p "$CLIENT")
    credential password | "$STATE/bin/cps-tools" --username "$(credential username)" login "$(director_url)" --password-stdin --fingerprint "$fingerprint" >>"$log" 2>&1 ||
        die "The user '$(credential username)' could not sign in at $(director_url): $(tail -n 1 "$log")" "If its password was changed, write the new one into $STATE/credentials."
}

start_platform() {
    install_packages "${PACKAGES[@]}"
    make_venv "$STATE/venv"
    write_commands
    say "Starting the Director"
    configure_director
    start_director
    create_user
}

# --- stop -------------------------------------------------------------------------------------------------------------

anything_made() { [ -e "$DIRECTOR" ] || [ -e "$SERVICE" ]; }

# Not only what the records say: a supervisor without its pid file, a Director without its configuration and VMs without either are ended too.
stop_platform() {
    local pid
    if ! anything_made; then
        note "Nothing was ever started under $STATE."
        return
    fi
    say "Stopping the Director and its nodes"
    if pid=$(supervisor_pid); then
        kill -TERM "$pid" # runsvdir alone; it would start again what the next line ends
        wait_until 30 gone "$pid" || die "runsvdir (process $pid) does not end." "Look at it:  ps -fp $pid"
    fi
    if [ -p "$SERVICE/supervise/ok" ] && command -v sv >/dev/null && sv status "$SERVICE" >/dev/null 2>&1; then
        sv -w 60 force-shutdown "$SERVICE" >/dev/null || true # what matters is the next line
        wait_until 30 unsupervised || die "The Director does not stop." "Look at $DIRECTOR/log/console/current."
    fi
    rm -f "$STATE/runsvdir.pid"
    on_cloud halt || die "Some nodes could not be stopped." "Run the same command again."
    note "Nothing of it runs any more; the next quickstart goes on from here."
}

gone() { [ ! -e "/proc/$1" ]; }
unsupervised() { ! sv status "$SERVICE" >/dev/null 2>&1; }

on_cloud() { # on_cloud halt|destroy — works without director.cfg too, and without the environment that somebody deleted
    [ -d "$DIRECTOR" ] || return 0
    "$STATE/venv/bin/python" -c 'import conpaas.director.main' 2>/dev/null || make_venv "$STATE/venv"
    env -u DIRECTOR_CFG "$STATE/venv/bin/cpsdirector" --state "$DIRECTOR" cloud "$1"
}

delete_state() {
    local part
    on_cloud destroy || die "Some nodes could not be deleted." "Run the same command again."
    for part in bin service director client credentials credentials.new init.log pip.log apt.log new-units runsvdir.log demo wordpress venv; do rm -rf -- "${STATE:?}/$part"; done
    rm -f -- "$STATE/lock"
    rmdir --ignore-fail-on-non-empty -- "$STATE" 2>/dev/null || true
    say "Deleted everything that quickstart made under $STATE"
}
