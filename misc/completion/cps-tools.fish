# Completion of the ConPaaS commands for fish; load it with: cps-tools completion fish | source
function __conpaas
    set -l words (commandline -opc)
    set -lx _CPS_COMPLETE bash_complete
    set -lx COMP_WORDS (commandline -cp | string collect)
    set -lx COMP_CWORD (count $words)
    $words[1] 2>/dev/null | string replace -rf '^plain,' ''
end
for program in cps-tools cps-user cps-cloud cps-application cps-service cps-director cps-generic cps-helloworld cps-java cps-mysql cps-php
    complete --command $program --arguments '(__conpaas)'
end
