# shellcheck shell=bash
# The demo application of scripts/quickstart: a service of each simple kind. Sourced after deploy.sh.

keyvalue_running() { ask "all(s['run.sh'] == 'RUNNING' for s in reply['agents'].values())" generic get_script_status demo keyvalue; }

run_keyvalue() {
    local secret=$STATE/demo/keyvalue.password
    [ -s "$secret" ] || (umask 077 && openssl rand -hex 16 >"$secret.new" && mv "$secret.new" "$secret")
    [ "$(keyvalue_running)" = True ] || cps generic run demo keyvalue -p "$(cat "$secret")"
}

pack_example() { tar -czf "$2" -C "$ROOT/misc/examples/$1" .; } # pack_example EXAMPLE ARCHIVE

deploy_demo() {
    local APP=demo
    mkdir -p "$STATE/demo"
    ensure_application
    ensure_service helloworld hello
    ensure_nodes hello 3
    ensure_service generic keyvalue
    ensure_nodes keyvalue 3
    deploy_code generic keyvalue pack_example keyvalue
    run_keyvalue
    check_keyvalue
    deploy_site
}

deploy_site() { # all is set before the service starts, so that its first node comes up with it
    ensure_added php site
    deploy_code php site pack_example php-site
    [ "$(ask "'GREETING' in reply['environment']" php env demo site)" = True ] || cps php env demo site GREETING=Welcome
    ensure_service php site
    say "Checking the site"
    wait_until 30 site_answers || die "The site at $(site_url) does not answer." "Look at:  $(quoted cps-tools) logs demo site --file error"
    note "$(site_url) answers"
}

site_url() { ask "reply[0]" php open demo site; }
site_answers() { curl --silent --fail --max-time 5 --noproxy '*' "$(site_url)" | grep -q '<h1>'; }

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
