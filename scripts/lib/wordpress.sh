# shellcheck shell=bash
# WordPress on a php and a mysql service, for `scripts/quickstart --with wordpress`. Sourced after deploy.sh.
# Its files come out of Debian's packages, which are unpacked and not installed: no Apache, and no root, is needed for that.

# shellcheck disable=SC2034 # used by scripts/quickstart
WORDPRESS_TOOLS=(ca-certificates) # what WordPress checks other sites with
# shellcheck disable=SC2034 # likewise
WORDPRESS_MEGABYTES=600

# The files become a ready-made application of this Director, so that every user can deploy WordPress by a click, too.
prepare_wordpress() { "$STATE/bin/cpsdirector" ready-made prepare wordpress >"$1" 2>&1; }

pack_wordpress() { # pack_wordpress ARCHIVE
    local log=$STATE/ready-made.log
    note "Downloading and packing Debian's package wordpress"
    if ! prepare_wordpress "$log" && { [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null; }; then
        apt_get update >>"$STATE/apt.log" 2>&1 || note "apt-get update had trouble (see $STATE/apt.log); going on with the lists that there are."
        prepare_wordpress "$log" || true
    fi
    grep -q 'can deploy WordPress now' "$log" ||
        die "WordPress cannot be prepared: $(sed -n 's/^ERROR: //p' "$log" | grep . || tail -n 1 "$log")" "If the lists of packages are old:  sudo apt-get update"
    cp -- "$DIRECTOR/ready-made/wordpress.tar.gz" "$1.new"
    mv -- "$1.new" "$1"
}

wordpress_url() { ask "reply[0]" php open wordpress site; }

ensure_secret() { # the secret is never on a command line; it is kept by the service alone
    [ "$(ask "'WORDPRESS_SECRET' in reply['secrets']" php env "$APP" site)" = True ] || openssl rand -hex 32 | cps php env "$APP" site --secret WORDPRESS_SECRET
}

ensure_binding() {
    local sid
    sid=$(ask "next(s['sid'] for s in reply if s['name'] == 'site')" service list -a "$APP")
    [ "$(ask "any(b['service'] == $sid and b['given'] for b in reply)" mysql bindings "$APP" db)" = True ] || cps mysql bind "$APP" db site --database wordpress
}

deploy_wordpress() { # all is set before the site starts, so that its first node comes up with it
    local APP=wordpress
    mkdir -p "$STATE/wordpress"
    ensure_application
    ensure_service mysql db
    ensure_added php site
    ensure_secret
    ensure_binding
    deploy_code php site pack_wordpress
    ensure_service php site
    say "Checking WordPress"
    wait_until 60 wordpress_answers || die "WordPress at $(wordpress_url) does not answer." "Look at:  $(quoted cps-tools) logs wordpress site --file error"
    note "$(wordpress_url) answers"
}

wordpress_page() { curl --silent --fail --max-time 15 --noproxy '*' "$(wordpress_url)wp-admin/install.php"; }
wordpress_answers() { wordpress_shows 'WordPress'; }
wordpress_asks() { wordpress_shows 'id="setup"'; } # whether the set-up form is still to be filled in
wordpress_shows() { # wordpress_shows TEXT
    local page
    page=$(wordpress_page) && [[ $page == *"$1"* ]]
}

wordpress_invitation() {
    if wordpress_asks; then
        printf '\nFill in the set-up form of WordPress: %s\n' "$(wordpress_url)wp-admin/install.php"
    else
        printf '\nWordPress is set up: %s\n' "$(wordpress_url)"
    fi
}
