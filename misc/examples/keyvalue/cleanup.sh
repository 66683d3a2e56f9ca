#!/bin/bash
# Deletes this node's data.
set -eu
. "$(dirname "$0")/common.sh"
rm -rf -- "$DATA"
umask 077 && mkdir -p "$DATA"
