"""The algorithms, by name. A new one is a module, a word here and a page in the docs."""

from truing.policy.algorithms import best_of_n, dpo, grpo, ppo, q_learning, reinforce, rloo, sft

ONLINE = {algorithm.NAME: algorithm for algorithm in (ppo, reinforce, rloo, grpo, best_of_n)}
REPLAY = {q_learning.NAME: q_learning}
OFFLINE = {algorithm.NAME: algorithm for algorithm in (dpo, sft)}
ALGORITHMS = ONLINE | REPLAY | OFFLINE
