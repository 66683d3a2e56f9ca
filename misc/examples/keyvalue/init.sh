#!/bin/bash
# Prepares a node: Redis must be installed, and the data needs a place that outlives a change of the code.
set -eu
. "$(dirname "$0")/common.sh"
command -v redis-server >/dev/null || { echo "redis-server is not installed on $MY_IP" >&2; exit 1; }
umask 077 && mkdir -p "$DATA"
echo "$MY_IP is ready as ${MY_ROLE}"
