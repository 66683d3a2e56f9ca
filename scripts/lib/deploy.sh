# shellcheck shell=bash
# What applications of scripts/quickstart are deployed with: the commands that anybody would type. Sourced after platform.sh.
# Every step looks first, so that a second run, or a run after an interruption, does only what is missing.
# APP is the name of the application, set by the function that deploys it.

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

application_status() { ask "next((a['status'] for a in reply if a['name'] == '${1:-$APP}'), 'ABSENT')" application list; }
service_status() { ask "next((s['status'] for s in reply if s['name'] == '$1'), 'ABSENT')" service list -a "$APP"; }
node_count() { ask "len({n['agent_id'] for n in reply})" service list_nodes "$APP" "$1"; }

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
    wait_until 300 settled "$@" || die "$what stays $("$@" 2>/dev/null)." "See what is going on:  $(quoted cps-tools) history $APP;  or begin anew:  $PROGRAM --reset"
}

quoted() { printf %q "$STATE/bin/$1"; }

ensure_application() {
    settle "The application '$APP'" application_status
    case $(application_status) in
        RUNNING)
            note "The application '$APP' runs already."
            return
            ;;
        ABSENT)
            say "Deploying the application '$APP'"
            if [ "$(application_status "$FIRST_APPLICATION")" = INIT ]; then
                cps application rename "$FIRST_APPLICATION" "$APP"
            else
                cps application create "$APP"
            fi
            ;;
        *) say "Starting the application '$APP'" ;;
    esac
    cps application start "$APP"
}

ensure_added() { # ensure_added TYPE NAME
    local sid
    if [ "$(service_status "$2")" = ABSENT ]; then
        sid=$(unnamed_service "$1")
        if [ -z "$sid" ]; then
            cps "$1" add "$APP"
            sid=$(unnamed_service "$1")
        fi
        cps service rename "$APP" "$sid" "$2"
    fi
    settle "The service '$2'" service_status "$2"
}

ensure_service() { # ensure_service TYPE NAME
    ensure_added "$@"
    case $(service_status "$2") in
        RUNNING) ;;
        ERROR) die "The service '$2' of the application '$APP' is in ERROR." "See why, then recover it:  $(quoted cps-service) get_history $APP $2;  $(quoted cps-service) recover $APP $2" ;;
        *) cps service start "$APP" "$2" ;;
    esac
}

unnamed_service() { # the newest service of the type that still has the name that it was given when it was added
    ask "max((s['sid'] for s in reply if s['type'] == '$1' and s['name'].startswith('New ')), default='')" service list -a "$APP"
}

ensure_nodes() { # ensure_nodes NAME COUNT
    local missing=$(($2 - $(node_count "$1")))
    [ "$missing" -le 0 ] || cps service add_nodes "$APP" "$1" --count "$missing"
}

code_version() { # code_version TYPE NAME CONDITION — the newest version of the service's code for which it holds
    ask "next((v['codeVersionId'] for v in reply if v['filename'] == '$2.tar.gz' and $3), '')" "$1" list_codes "$APP" "$2"
}

deploy_code() { # deploy_code TYPE NAME MAKE ARGUMENT… — unless the service has code already, `MAKE ARGUMENT… ARCHIVE` makes it
    local archive=$STATE/$APP/$2.tar.gz version
    [ -z "$(code_version "$1" "$2" "v['current']")" ] || return 0
    version=$(code_version "$1" "$2" True)
    if [ -z "$version" ]; then
        "${@:3}" "$archive"
        cps "$1" upload_code "$APP" "$2" "$archive"
        version=$(code_version "$1" "$2" True)
    fi
    cps "$1" enable_code "$APP" "$2" "$version"
}
