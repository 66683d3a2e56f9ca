"""`completion bash|zsh|fish`: the script that makes a shell complete every cps-* command."""

from __future__ import annotations

import re

import click

from conpaas.client import grammar, runtime, session

# All three ask the program itself in the format for bash, lines of `plain,NAME`; without an answer they offer files.
BASH = """\
# Completion of the ConPaaS commands for bash; load it with: eval "$(cps-tools completion bash)"
_conpaas() {
    local name
    COMPREPLY=()
    while IFS= read -r name; do
        COMPREPLY+=("$(printf '%%q' "$name")")
    done < <(%(variable)s=bash_complete COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD "$1" 2>/dev/null | sed -n 's/^plain,//p')
}
complete -o bashdefault -o default -F _conpaas %(programs)s
"""

ZSH = """\
#compdef %(programs)s
# Completion of the ConPaaS commands for zsh; load it with: source <(cps-tools completion zsh)
_conpaas_ask() {
    %(variable)s=bash_complete COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT - 1)) "$1" 2>/dev/null
}
_conpaas() {
    local -a names
    names=(${(f)"$(_conpaas_ask "${words[1]}" | sed -n 's/^plain,//p')"})
    if (( $#names )); then
        compadd -a names
    else
        _files
    fi
}
if [[ $funcstack[1] == _conpaas || $funcstack[1] == _cps-tools ]]; then
    _conpaas "$@"
else
    compdef _conpaas %(programs)s
fi
"""

FISH = """\
# Completion of the ConPaaS commands for fish; load it with: cps-tools completion fish | source
function __conpaas
    set -l words (commandline -opc)
    set -lx %(variable)s bash_complete
    set -lx COMP_WORDS (commandline -cp | string collect)
    set -lx COMP_CWORD (count $words)
    $words[1] 2>/dev/null | string replace -rf '^plain,' ''
end
for program in %(programs)s
    complete --command $program --arguments '(__conpaas)'
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
