"""`python -m truing` is `truing`."""

from truing.cli.app import main

main()
