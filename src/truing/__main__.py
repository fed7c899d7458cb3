"""`python -m truing` is `truing`."""

from truing.cli import main

main()
