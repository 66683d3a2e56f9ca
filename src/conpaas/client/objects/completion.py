"""`completion bash|zsh|fish`: the script that makes a shell complete every cps-* command."""

from __future__ import annotations

import re

import click

from conpaas.client import grammar, runtime, session

BASH = """\
# Completion of the ConPaaS commands for bash; load it with: eval "$(cps-tools completion bash)"
_cps_completion() {
    local IFS=$'\\n' response completion type value
    response=$(env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD %(variable)s=bash_complete "$1" 2>/dev/null)
    for completion in $response; do
        IFS=',' read -r type value <<< "$completion"
        if [[ $type == dir ]]; then
            COMPREPLY=()
            compopt -o dirnames
        elif [[ $type == file ]]; then
            COMPREPLY=()
            compopt -o default
        elif [[ $type == plain ]]; then
            COMPREPLY+=("$(printf '%%q' "$value")")
        fi
    done
    return 0
}
complete -o nosort -F _cps_completion %(programs)s
"""

ZSH = """\
#compdef %(programs)s
# Completion of the ConPaaS commands for zsh; load it with: eval "$(cps-tools completion zsh)"
_cps_completion() {
    local -a described plain response
    local type key description
    response=("${(@f)$(env COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) %(variable)s=zsh_complete "${words[1]}" 2>/dev/null)}")
    for type key description in ${response}; do
        if [[ $type == plain ]]; then
            if [[ $description == _ ]]; then
                plain+=("$key")
            else
                described+=("$key:$description")
            fi
        elif [[ $type == dir ]]; then
            _path_files -/
        elif [[ $type == file ]]; then
            _path_files -f
        fi
    done
    [[ -n $described ]] && _describe -V unsorted described -U
    [[ -n $plain ]] && compadd -U -V unsorted -a plain
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _cps_completion "$@"
else
    compdef _cps_completion %(programs)s
fi
"""

FISH = """\
# Completion of the ConPaaS commands for fish; load it with: cps-tools completion fish | source
function _cps_completion
    set -l program (commandline -opc)[1]
    set -lx %(variable)s fish_complete
    set -lx COMP_WORDS (commandline -cp | string collect)
    set -lx COMP_CWORD (commandline -t)
    for completion in ($program 2>/dev/null)
        set -l parts (string split "," $completion)
        switch $parts[1]
            case dir
                __fish_complete_directories $parts[2]
            case file
                __fish_complete_path $parts[2]
            case plain
                echo $parts[2]
        end
    end
end
for program in %(programs)s
    complete --no-files --command $program --arguments "(_cps_completion)"
end
"""

SHELLS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def completion(name: str) -> grammar.Verb:
    """`completion SHELL`."""
    shell = grammar.argument("shell", type=click.Choice(tuple(SHELLS)))
    return grammar.Verb(name, params=[shell], callback=_completion, help="Print the script that makes a shell complete these commands.")


def _completion(run: session.Session, shell: str) -> None:
    from conpaas.client import main

    run.out.text(script(shell, main.programs()))


def script(shell: str, programs: tuple[str, ...]) -> str:
    """The completion script of a shell for all programs."""
    names = " ".join(name for name in programs if re.fullmatch(r"[a-z0-9_-]+", name))
    return SHELLS[shell] % {"variable": runtime.COMPLETE_VARIABLE, "programs": names}
