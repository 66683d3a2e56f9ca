# shellcheck shell=bash
# Settings that the five scripts share. HOME, MY_IP, MY_ROLE, MASTER_IP and AGENTS_JSON come from the platform.
PORT=6390
DATA=$HOME/keyvalue
CONF=$DATA/redis.conf

node_count() { python3 -c 'import json, sys; print(len(json.load(open(sys.argv[1]))))' "$AGENTS_JSON"; }

ask() { # ask COMMAND… — one command to this node's own Redis, the password read from its configuration
    REDISCLI_AUTH=$(sed -n 's/^requirepass //p' "$CONF") redis-cli -h "$MY_IP" -p "$PORT" "$@"
}
