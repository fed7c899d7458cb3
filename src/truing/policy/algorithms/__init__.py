"""The algorithms, by name. A new one is a module, a word here and a page in the docs."""

from truing.policy.algorithms import ppo, rloo

ALGORITHMS = {algorithm.NAME: algorithm for algorithm in (ppo, rloo)}
