#!/bin/bash
# Deletes this node's data.
set -eu
. "$(dirname "$0")/common.sh"
rm -rf -- "$DATA"
mkdir -p -m 700 "$DATA"
