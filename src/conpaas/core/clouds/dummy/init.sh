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
# In a mount namespace of its own, the VM sees its disk in a place that users other than root reach too, whatever lies above the cloud's
# directory. Chosen once in the VM's life, as configurations name it from then on.
if [ ! -e "$directory/booted" ] && [ -n "${VM_MOUNT:-}" ]; then
    : > "$directory/mounted"
fi
if [ -e "$directory/mounted" ]; then
    mount --bind "$VM_ROOT" "${VM_MOUNT:?is not set, but this VM was set up with it}" || exit 1
    export VM_ROOT=$VM_MOUNT HOME=$VM_MOUNT/root
fi
unset VM_MOUNT
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
