# shellcheck shell=bash
# The demo application of scripts/quickstart, deployed with the commands that anybody would type. Sourced after platform.sh.
# Every step looks first, so that a second run, or a run after an interruption, does only what is missing.

cps() { # cps OBJECT VERB … — one command of the command line, shown to the user
    note "cps-$*"
    "$STATE/bin/cps-tools" "$@"
}

ask() { # ask PYTHON-EXPRESSION OBJECT VERB … — evaluates the expression over the command's JSON output, called `reply`
    local expression=$1
    shift
    "$STATE/bin/cps-tools" --output json "$@" | "$STATE/venv/bin/python" -c "import json, sys; reply = json.load(sys.stdin); print($expression)"
}

application_status() { ask "next((a['status'] for a in reply if a['name'] == 'demo'), 'ABSENT')" application list; }
service_status() { ask "next((s['status'] for s in reply if s['name'] == '$1'), 'ABSENT')" service list -a demo; }
node_count() { ask "len({n['agent_id'] for n in reply})" service list_nodes demo "$1"; }

ensure_service() { # ensure_service TYPE NAME
    local sid
    if [ "$(service_status "$2")" = ABSENT ]; then
        cps "$1" add demo
        sid=$(ask "max(s['sid'] for s in reply if s['type'] == '$1')" service list -a demo)
        cps service rename demo "$sid" "$2"
    fi
    case $(service_status "$2") in
        RUNNING) ;;
        *) cps service start demo "$2" ;;
    esac
}

ensure_nodes() { # ensure_nodes NAME COUNT
    local missing=$(($2 - $(node_count "$1")))
    [ "$missing" -le 0 ] || cps service add_nodes demo "$1" --count "$missing"
}

deploy_keyvalue_code() {
    local archive=$STATE/demo/keyvalue.tar.gz version
    [ "$(ask "any(v['filename'] == 'keyvalue.tar.gz' and v['current'] for v in reply)" generic list_codes demo keyvalue)" = False ] || return 0
    tar -czf "$archive" -C "$ROOT/misc/examples/keyvalue" .
    cps generic upload_code demo keyvalue "$archive"
    version=$(ask "next(v['codeVersionId'] for v in reply if v['filename'] == 'keyvalue.tar.gz')" generic list_codes demo keyvalue)
    cps generic enable_code demo keyvalue "$version"
}

keyvalue_running() { ask "all(s['run.sh'] == 'RUNNING' for s in reply['agents'].values())" generic get_script_status demo keyvalue; }

run_keyvalue() {
    local secret=$STATE/demo/keyvalue.password
    [ -s "$secret" ] || (umask 077 && openssl rand -hex 16 >"$secret")
    [ "$(keyvalue_running)" = True ] || cps generic run demo keyvalue -p "$(cat "$secret")"
}

deploy_demo() {
    mkdir -p "$STATE/demo"
    if [ "$(application_status)" = RUNNING ]; then
        note "The application 'demo' runs already."
    else
        say "Deploying the application 'demo'"
        [ "$(application_status)" != ABSENT ] || cps application create demo
        cps application start demo
    fi
    ensure_service helloworld hello
    ensure_nodes hello 3
    ensure_service generic keyvalue
    ensure_nodes keyvalue 3
    deploy_keyvalue_code
    run_keyvalue
    check_keyvalue
}

check_keyvalue() { # writes through the primary and reads from every replica
    local addresses
    addresses=$(ask "' '.join(n['ip'] for n in sorted(reply, key=lambda n: n['role'] != 'master'))" service list_nodes demo keyvalue)
    say "Checking the key-value store"
    # shellcheck disable=SC2086 # one word per address
    wait_until 30 replicated $addresses || die "The key-value store does not replicate." "Look at:  $STATE/bin/cps-generic get_script_status demo keyvalue"
    # shellcheck disable=SC2086
    note "$("$ROOT/misc/examples/keyvalue/keyvalue-check" "$(cat "$STATE/demo/keyvalue.password")" $addresses)"
}

replicated() { "$ROOT/misc/examples/keyvalue/keyvalue-check" "$(cat "$STATE/demo/keyvalue.password")" "$@" >/dev/null 2>&1; }
