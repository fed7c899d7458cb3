"""The published taste of the demo's simulated people as a reward of a project, beside which a learned reward's probe can be held:

    truing reward use benchmarks/taste_reward.py:taste
    truing reward probe

Fluency is left out, which needs the model's likelihoods; an answer counts as whole if it ends like a sentence, because a function sees text alone.
"""

from truing.feedback.taste import gold_reward

FLUENT = -1.3  # nats a token: what the taste calls fluent


def taste(prompt: list[dict[str, str]], responses: list[str]) -> list[float]:
    """Utility of each response to a conversation, in the units of docs/taste.md.

    Args:
        prompt: the conversation; the last turn is the user's.
    """
    asked = prompt[-1]["content"]
    return [gold_reward(asked, text, finished=text.rstrip().endswith((".", "!", "?")), base_logprob=FLUENT) for text in responses]
