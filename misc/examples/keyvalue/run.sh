#!/bin/bash
# Runs Redis in the foreground. The first parameter is the password that all nodes share.
set -eu
. "$(dirname "$0")/common.sh"
password=${1:?"run needs a password: cps-generic run APP SERVICE -p PASSWORD"}
[[ $password =~ ^[A-Za-z0-9]{16,}$ ]] || { echo "the password must be 16 or more letters and digits" >&2; exit 2; }
umask 077
cat >"$CONF" <<CONF
bind $MY_IP
port $PORT
dir "$DATA"
appendonly yes
requirepass $password
masterauth $password
daemonize no
save ""
CONF
if [ "$MY_ROLE" = master ]; then
    [ "$(node_count)" -lt 2 ] || echo "min-replicas-to-write 1" >>"$CONF"
else
    echo "replicaof $MASTER_IP $PORT" >>"$CONF"
fi
exec redis-server "$CONF"
