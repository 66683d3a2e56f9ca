# shellcheck shell=bash
# Starts and stops the platform of scripts/quickstart: the Director under runit, one user, the command line's configuration.
# Sourced after bootstrap.sh. Everything is under $STATE:
#   venv/      the installed package          service/   runit: one service, the Director
#   director/  its database, CA, log, cloud   client/    the command line's configuration and certificates
#   bin/       the commands, configured       credentials  the user's name and password

PACKAGES=(python3-venv runit openssh-server openssh-client git curl openssl redis-server redis-tools util-linux e2fsprogs)
DIRECTOR=$STATE/director
CLIENT=$STATE/client

director_url() { sed -n 's/^DIRECTOR_URL *= *//p' "$DIRECTOR/director.cfg"; }

supervisor_pid() { # prints the process id of the runsvdir of this state directory, and only of this one
    local pid
    pid=$(cat "$STATE/runsvdir.pid" 2>/dev/null) || return 1
    tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "runsvdir $STATE/service" || return 1
    printf '%s' "$pid"
}

director_answers() { curl --silent --fail --max-time 5 --cacert "$DIRECTOR/certs/ca_cert.pem" --output /dev/null "$(director_url)/version"; }

platform_runs() { [ -s "$DIRECTOR/director.cfg" ] && supervisor_pid >/dev/null && director_answers; }

wait_until() { # wait_until SECONDS COMMAND… — polls ten times a second
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.1
    done
}

write_commands() { # one small command per entry point, which knows this state's configuration
    local command name
    mkdir -p "$STATE/bin"
    for command in "$STATE"/venv/bin/cps* "$STATE"/venv/bin/default-cps*; do
        name=${command##*/}
        printf '#!/bin/sh\nexport CPS_CONFIG=%q DIRECTOR_CFG=%q\nexec %q "$@"\n' "$CLIENT/cps-tools.conf" "$DIRECTOR/director.cfg" "$command" >"$STATE/bin/$name"
        chmod 755 "$STATE/bin/$name"
    done
}

start_director() {
    if platform_runs; then
        note "The Director runs already: $(director_url)"
        return
    fi
    if [ ! -s "$DIRECTOR/director.cfg" ]; then
        "$STATE/bin/cpsdirector" init --state "$DIRECTOR" >"$STATE/init.log" 2>&1 || die "The Director could not be set up in $DIRECTOR." "Its own words are in $STATE/init.log."
    fi
    local service=$STATE/service/cpsdirector
    mkdir -p "$service/log" "$DIRECTOR/log/console"
    printf '#!/bin/sh\nexec 2>&1\nexport DIRECTOR_CFG=%q\nexec %q serve\n' "$DIRECTOR/director.cfg" "$STATE/venv/bin/cpsdirector" >"$service/run"
    printf '#!/bin/sh\nexec svlogd -tt %q\n' "$DIRECTOR/log/console" >"$service/log/run"
    chmod 755 "$service/run" "$service/log/run"
    if ! supervisor_pid >/dev/null; then
        setsid runsvdir "$STATE/service" </dev/null >"$STATE/runsvdir.log" 2>&1 &
        printf '%s' $! >"$STATE/runsvdir.pid"
        disown
    fi
    wait_until 30 director_answers || die "The Director does not answer at $(director_url)." "Its last words are in $DIRECTOR/log/console/current."
    note "The Director answers at $(director_url)"
}

create_user() {
    local credentials=$STATE/credentials
    if [ ! -s "$credentials" ]; then
        (umask 077 && printf 'username = demo\npassword = %s\n' "$(openssl rand -hex 12)" >"$credentials.new")
        sed -n 's/^password = //p' "$credentials.new" |
            "$STATE/bin/cpsdirector" user create demo --email demo@localhost.localdomain --credit 10000 --password-file - >>"$STATE/init.log" 2>&1 ||
            die "The user 'demo' could not be created." "The Director's words are in $STATE/init.log."
        mv "$credentials.new" "$credentials"
    fi
    if [ ! -s "$CLIENT/cert.pem" ]; then
        (umask 077 && mkdir -p "$CLIENT")
        sed -n 's/^password = //p' "$credentials" |
            "$STATE/bin/cps-tools" --username "$(sed -n 's/^username = //p' "$credentials")" login "$(director_url)" --password-stdin \
                --fingerprint "$(openssl x509 -in "$DIRECTOR/certs/ca_cert.pem" -noout -fingerprint -sha256 | cut -d= -f2)" >>"$STATE/init.log" 2>&1 ||
            die "The user 'demo' could not sign in at $(director_url)." "The command line's words are in $STATE/init.log."
    fi
}

start_platform() {
    mkdir -p "$STATE"
    install_packages "${PACKAGES[@]}"
    make_venv "$STATE/venv"
    write_commands
    say "Starting the Director"
    start_director
    create_user
}

stop_platform() {
    local pid
    if [ ! -e "$DIRECTOR/director.cfg" ]; then
        note "Nothing was ever started under $STATE."
        return
    fi
    say "Stopping the Director and its nodes"
    if pid=$(supervisor_pid); then
        kill -HUP "$pid" # runsvdir: TERM to every runsv, which stops its service, then exit
        wait_until 30 gone "$pid" || die "The Director does not stop." "Look at $DIRECTOR/log/console/current; its supervisor is process $pid."
        wait_until 30 director_gone || die "The Director does not stop." "Look at $DIRECTOR/log/console/current."
    fi
    rm -f "$STATE/runsvdir.pid"
    "$STATE/bin/cpsdirector" cloud halt || die "Some nodes could not be stopped." "Run the same command again."
    note "Nothing of it runs any more; the next quickstart goes on from here."
}

gone() { ! kill -0 "$1" 2>/dev/null; }
director_gone() { ! director_answers 2>/dev/null; }

delete_state() {
    local part
    if [ -e "$DIRECTOR/director.cfg" ]; then
        "$STATE/bin/cpsdirector" cloud destroy || die "Some nodes could not be deleted." "Run the same command again."
    fi
    for part in venv bin service director client credentials init.log pip.log apt.log runsvdir.log demo; do rm -rf -- "${STATE:?}/$part"; done
    rmdir --ignore-fail-on-non-empty "$STATE" 2>/dev/null || true
    say "Deleted everything that quickstart made under $STATE"
}
