#!/bin/bash
# The first process of a VM of the dummy cloud: runs the user-data once in the VM's life, then supervises its services.
# Arguments: the VM's directory, seconds to wait before the user-data, "skip" to never run it or "run", and descriptors
# that belong to the VM's guard and are not for the processes inside.
directory=$1 delay=$2 mode=$3
shift 3
for descriptor in "$@"; do
    exec {descriptor}>&-
done
umask 022
cd "$VM_ROOT/root" || exit 1
if [ ! -e "$directory/booted" ]; then
    [ "$delay" = 0 ] || sleep "$delay"
    : > "$directory/booted"
    if [ "$mode" = run ]; then
        bash "$directory/user-data" || echo "user-data ended with status $?"
    fi
fi
# runsvdir waits for input on its own log, so that the supervisor module can wake it up; a service directory that changed in this very
# second would cost it a second's sleep.
mkdir -p "$VM_ROOT/service"
echo $$ > "$VM_ROOT/service/.runsvdir.pid"
touch -d @1000000000 "$VM_ROOT/service"
exec runsvdir -P "$VM_ROOT/service" "log: $(printf '.%.0s' {1..400})"
