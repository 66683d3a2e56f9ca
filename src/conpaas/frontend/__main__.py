"""`python -m conpaas.frontend`: the command `cpsfrontend`."""

from conpaas.frontend.main import main

main()
