# shellcheck shell=bash
# Read by the scripts that copy the data of a cluster to a new member (as their BASH_ENV): shorter pauses, where those are known to be
# longer than anybody needs. The pause of ten seconds lets the other side begin to listen; socat itself tries again until it does.
sleep() {
    case $1:${FUNCNAME[1]-} in
        10:main) command sleep 0.1 ;;
        1:main) if [ -n "${TRANSFER_PID-}" ]; then command sleep 0.1; else command sleep 1; fi ;;
        0.5:cleanup_pid) command sleep 0.05 ;;
        *) command sleep "$@" ;;
    esac
}
