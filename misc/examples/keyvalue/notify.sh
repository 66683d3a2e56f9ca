#!/bin/bash
# Nodes came or went. A node that runs takes over its part: the primary learns how many replicas a write needs, a replica its primary.
set -eu
. "$(dirname "$0")/common.sh"
if ! { [ -s "$CONF" ] && ask ping >/dev/null 2>&1; }; then
    echo "Redis does not run on $MY_IP: nothing to change"
    exit 0
fi
if [ "$MY_ROLE" = master ]; then
    [ "$(node_count)" -lt 2 ] && replicas=0 || replicas=1
    ask config set min-replicas-to-write "$replicas"
else
    ask replicaof "$MASTER_IP" "$PORT"
fi
