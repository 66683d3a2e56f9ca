#!/bin/bash
# Stops Redis in order; what was acknowledged is in its append-only file.
set -eu
. "$(dirname "$0")/common.sh"
ask shutdown || echo "Redis does not run on $MY_IP"
