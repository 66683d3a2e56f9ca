#!/bin/sh
# Becomes mariadbd. Whether it founds a cluster is a mark that is gone before it runs, so that no later start founds another one.
# Usage: start_mariadbd.sh DATA CONFIGURATION BOOTSTRAP_MARK IN_FORCE ERROR_LOG MARIADBD
set -u
data=$1 configuration=$2 mark=$3 in_force=$4 log=$5 program=$6

fail() {
    printf '%s 0 [ERROR] %s\n' "$(date '+%Y-%m-%d %H:%M:%S')" "$*" | tee -a -- "$log"
    exit 1
}

[ -d "$data" ] || fail "The data directory $data is not there; is its disk mounted?"
cd -- "$data" || fail "The data directory $data cannot be entered."
cp -- "$configuration" "$in_force" || fail "$in_force cannot be written."

set -- --defaults-file="$configuration"

# After a crash only the storage engine knows the last transaction, and without that a node is taken for an empty one.
if [ -e ibdata1 ] && [ ! -e sst_in_progress ] && grep -q '^seqno: *-1$' grastate.dat 2>/dev/null; then
    said=$in_force.recovery
    rm -f -- "$said"
    if "$program" "$@" --wsrep-recover --log-error="$said" >/dev/null 2>&1; then
        position=$(sed -n 's/.*Recovered position: *//p' "$said" | tail -n 1)
        case $position in
            '' | 00000000-0000-0000-0000-000000000000:*) ;;
            *) set -- "$@" --wsrep-start-position="$position" ;;
        esac
    fi
fi

if [ -e "$mark" ]; then
    if ! rm -f -- "$mark" || ! sync -- "${mark%/*}"; then
        fail "The mark $mark cannot be removed."
    fi
    set -- "$@" --wsrep-new-cluster
fi
exec "$program" "$@"
