#!/bin/bash
# Every script of the code version that a new service begins with: writes down what it was given.
{
    date
    echo "Executing script $(basename "$0")"
    echo "Parameters ($#): $*"
    echo "My IP is $MY_IP"
    echo "My role is $MY_ROLE"
    echo "My master IP is $MASTER_IP"
    echo "Information about other agents is stored at $AGENTS_JSON"
    cat "$AGENTS_JSON"
    printf '\n\n'
} | tee -a "$HOME/generic.out"
