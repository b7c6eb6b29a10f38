"""`python -m vultus` is `vultus`."""

from vultus.cli.app import main

main()
