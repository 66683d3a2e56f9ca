# Completion of the ConPaaS commands for bash; load it with: eval "$(cps-tools completion bash)"
_conpaas() {
    local name
    COMPREPLY=()
    while IFS= read -r name; do
        COMPREPLY+=("$(printf '%q' "$name")")
    done < <(_CPS_COMPLETE=bash_complete COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD "$1" 2>/dev/null | sed -n 's/^plain,//p')
}
complete -o bashdefault -o default -F _conpaas cps-tools cps-user cps-cloud cps-application cps-service cps-director cps-generic cps-helloworld cps-java cps-mysql cps-php
