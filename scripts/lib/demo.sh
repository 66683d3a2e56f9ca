# shellcheck shell=bash
# The demo application of scripts/quickstart, deployed with the commands that anybody would type. Sourced after platform.sh.
# Every step looks first, so that a second run, or a run after an interruption, does only what is missing.

FIRST_APPLICATION='New Application' # what every new user has

cps() { # cps OBJECT VERB … — one command of the command line, shown to the user
    note "cps-$1$(printf ' %q' "${@:2}")"
    "$STATE/bin/cps-tools" "$@"
}

ask() { # ask PYTHON-EXPRESSION OBJECT VERB … — evaluates the expression over the command's JSON output, called `reply`
    local expression=$1 reply
    shift
    reply=$("$STATE/bin/cps-tools" --output json "$@") || return
    "$STATE/venv/bin/python" -c "import json, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); reply = json.load(sys.stdin); print($expression)" <<<"$reply"
}

application_status() { ask "next((a['status'] for a in reply if a['name'] == '${1:-demo}'), 'ABSENT')" application list; }
service_status() { ask "next((s['status'] for s in reply if s['name'] == '$1'), 'ABSENT')" service list -a demo; }
node_count() { ask "len({n['agent_id'] for n in reply})" service list_nodes demo "$1"; }

settled() { # settled COMMAND… — whether the status that the command prints is none of those that pass by themselves
    local now
    now=$("$@" 2>/dev/null) || return
    case $now in INIT | STOPPED | RUNNING | ERROR | ABSENT) ;; *) return 1 ;; esac
}

settle() { # settle WHAT COMMAND… — an interrupted run may have left an operation under way; wait for its end
    local what=$1
    shift
    settled "$@" && return
    note "$what is not ready ($("$@" 2>/dev/null)); waiting"
    wait_until 300 settled "$@" || die "$what stays $("$@" 2>/dev/null)." "See what is going on:  $(quoted cps-tools) history demo;  or begin anew:  $PROGRAM --reset"
}

quoted() { printf %q "$STATE/bin/$1"; }

ensure_application() {
    settle "The application 'demo'" application_status
    case $(application_status) in
        RUNNING)
            note "The application 'demo' runs already."
            return
            ;;
        ABSENT)
            say "Deploying the application 'demo'"
            if [ "$(application_status "$FIRST_APPLICATION")" = INIT ]; then
                cps application rename "$FIRST_APPLICATION" demo
            else
                cps application create demo
            fi
            ;;
        *) say "Starting the application 'demo'" ;;
    esac
    cps application start demo
}

ensure_service() { # ensure_service TYPE NAME
    local sid
    if [ "$(service_status "$2")" = ABSENT ]; then
        sid=$(unnamed_service "$1")
        if [ -z "$sid" ]; then
            cps "$1" add demo
            sid=$(unnamed_service "$1")
        fi
        cps service rename demo "$sid" "$2"
    fi
    settle "The service '$2'" service_status "$2"
    case $(service_status "$2") in
        RUNNING) ;;
        ERROR) die "The service '$2' of the demo is in ERROR." "See why, then recover it:  $(quoted cps-service) get_history demo $2;  $(quoted cps-service) recover demo $2" ;;
        *) cps service start demo "$2" ;;
    esac
}

unnamed_service() { # the newest service of the type that still has the name that it was given when it was added
    ask "max((s['sid'] for s in reply if s['type'] == '$1' and s['name'].startswith('New ')), default='')" service list -a demo
}

ensure_nodes() { # ensure_nodes NAME COUNT
    local missing=$(($2 - $(node_count "$1")))
    [ "$missing" -le 0 ] || cps service add_nodes demo "$1" --count "$missing"
}

code_version() { # code_version CONDITION — the newest version of the demo's code for which it holds
    ask "next((v['codeVersionId'] for v in reply if v['filename'] == 'keyvalue.tar.gz' and $1), '')" generic list_codes demo keyvalue
}

deploy_keyvalue_code() {
    local archive=$STATE/demo/keyvalue.tar.gz version
    [ -z "$(code_version "v['current']")" ] || return 0
    version=$(code_version True)
    if [ -z "$version" ]; then
        tar -czf "$archive" -C "$ROOT/misc/examples/keyvalue" .
        cps generic upload_code demo keyvalue "$archive"
        version=$(code_version True)
    fi
    cps generic enable_code demo keyvalue "$version"
}

keyvalue_running() { ask "all(s['run.sh'] == 'RUNNING' for s in reply['agents'].values())" generic get_script_status demo keyvalue; }

run_keyvalue() {
    local secret=$STATE/demo/keyvalue.password
    [ -s "$secret" ] || (umask 077 && openssl rand -hex 16 >"$secret.new" && mv "$secret.new" "$secret")
    [ "$(keyvalue_running)" = True ] || cps generic run demo keyvalue -p "$(cat "$secret")"
}

deploy_demo() {
    mkdir -p "$STATE/demo"
    ensure_application
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
    wait_until 60 replicated $addresses || die "The key-value store does not replicate." "Look at:  $(quoted cps-generic) get_script_status demo keyvalue"
    # shellcheck disable=SC2086
    note "$("$ROOT/misc/examples/keyvalue/keyvalue-check" "$(cat "$STATE/demo/keyvalue.password")" $addresses)"
}

replicated() { "$ROOT/misc/examples/keyvalue/keyvalue-check" "$(cat "$STATE/demo/keyvalue.password")" "$@" >/dev/null 2>&1; }
