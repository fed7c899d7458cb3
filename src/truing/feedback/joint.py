"""Whom to trust: the joint likelihood of everything said (joint_model.py), fitted by all of it at once.

The fit goes round in three steps until skills settle.

1. Rewards: the Gaussian nearest to what all answers and skills say of them (rewards_posterior.py).
2. The crowd's skill, side biases, tie widths, cut-points, ...: the likeliest, where each answer is foretold by what all *other* answers say of the rewards.
3. Skills: a distribution on a grid, where each answer is foretold by what *other people's* answers say.

So nobody vouches for themselves: where nobody else answered, someone's skill is the crowd's, and as unsure as before. The crowd's, though, shows in how well
a person's own answers about the same responses fit together. (How often they tie or take the left, and how strongly they prefer, tells too: hundreds of answers
without a tie are hardly a guesser's, whom others' widths let tie.)

With a flat prior, one skill and neither ties nor sides, `likeliest_rewards` is Bradley and Terry's maximum likelihood. Expectation propagation (Minka 2001)
takes answers out of a Gaussian in the same way.

Shapes: J annotators, S responses, N choices, M answers on scales, K nodes of averaging, G points of the skills' grid.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from truing.feedback.descent import descend
from truing.feedback.evidence import ORACLE, Evidence
from truing.feedback.joint_model import DEFAULT, GRID, RATIOS, TYPICAL_NODES, Model, Priors, typical_pull
from truing.feedback.likelihoods import Floats, davidson_log_p
from truing.feedback.rewards_posterior import NO_ONE, Belief, Rewards, gauss_hermite

SETTLED = 0.04  # change of every skill, as a share of the crowd's, at which the fit stops
ROUNDS, STEPS, CLIMBS = 40, 2, 5  # at most so many rounds, each with so many steps for the rewards and at most so many of the optimiser
FURTHEST = 1.0  # nats by which the crowd's skill may change in a round
LONGEST = 2.0  # nats by which a parameter may move in a step
LOOK_NODES = 7  # of averaging over what one look may have seen


class Skill(NamedTuple):
    """What is believed of an annotator."""

    trust: float  # P(names the better) - P(names the worse) of two typical responses, shown in either order; in [0, 1)
    low: float  # 95 % credible bounds
    high: float
    skill: float  # posterior mean of s, >= 0
    side_bias: float  # b: nats for the left
    tie_width: float  # t: log width of ties of pairs


@dataclass(frozen=True)
class Fit:
    """What was found.

    Attributes:
        model, parameters, rewards: as they stand at the end.
        posterior: (J, G) of each annotator's multiple of the crowd's skill, on 0 and RATIOS.
    """

    model: Model
    parameters: Floats
    rewards: Rewards
    posterior: Floats

    @property
    def crowd_skill(self) -> float:
        """The crowd's skill, in nats a unit of reward."""
        return self.model.crowd(self.parameters)

    def skill_of(self, annotator: str) -> Skill:
        """What is believed of an annotator."""
        place = self.model.evidence.annotators.index(annotator)
        grid = self.crowd_skill * GRID
        side, own = (float(self.parameters[part][place]) for part in (self.model.layout.side, self.model.layout.tie))
        tie = own + self.pair_tie
        pull = typical_pull(grid, side, tie)
        q = self.posterior[place]
        low, high = (float(np.interp(bound, _mid_cumulative(q), pull)) for bound in (0.025, 0.975))
        return Skill(float(q @ pull), low, high, float(q @ grid), side, tie)

    @property
    def pair_tie(self) -> float:
        """Log width of ties of pairs for an annotator like the others; that of rankings, where nobody was asked about a pair; else 0."""
        widths = self.parameters[self.model.layout.forms]
        return float(widths[self.model.pair_form or 0]) if len(widths) else 0.0

    def reward(self) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation of each response's reward."""
        sds = np.sqrt(self.rewards.variances())
        return {name: (float(mean), float(sd)) for name, mean, sd in zip(self.model.evidence.samples, self.rewards.mean, sds, strict=True)}

    def probabilities(self, annotator: str, belief: Belief, side: Floats) -> Floats:
        """(P, 3) how likely an annotator chooses the first, ties, or chooses the second.

        Args:
            belief: of the differences of rewards, first less second; `rewards.pairs` knows them.
            side:   (P,) 1 where the first stands on the left, -1 on the right, 0 unknown.
        """
        place = self.model.evidence.annotators.index(annotator)
        own, tie = (float(self.parameters[part][place]) for part in (self.model.layout.side, self.model.layout.tie))
        points, average = gauss_hermite(TYPICAL_NODES)
        lead = belief.at(points)[:, :, None] * (self.crowd_skill * GRID) + (side * own)[:, None, None]
        width = np.array(tie + self.pair_tie)
        found = [np.exp(davidson_log_p(lead, width, np.array(choice))) for choice in (1, 0, -1)]
        return np.stack([np.einsum("nkg,k,g->n", p, average, self.posterior[place]) for p in found], 1)


def fit(evidence: Evidence, priors: Priors = DEFAULT, *, prior_mean: Floats | None = None) -> Fit:
    """Fit everything; the same evidence gives the same fit.

    Args:
        prior_mean: (S,) what is expected of each reward; None: 0.
    """
    model = Model(evidence, priors)
    rewards = _rewards(evidence, prior_mean, 1.0)
    parameters, ratio, skill = model.mean.copy(), np.ones(len(evidence.annotators)), np.zeros(len(evidence.annotators))
    sure = [place for place, name in enumerate(evidence.annotators) if name == ORACLE]
    points, average = gauss_hermite(LOOK_NODES)
    posterior = model.grid(parameters, rewards.of_others().at(points)[: len(model.look)], average)
    crowd, share, way = model.layout.crowd, 1.0, np.zeros(model.layout.size)
    for _ in range(ROUNDS):
        ratio[sure] = RATIOS[-1]
        before, skill = skill, model.crowd(parameters) * ratio
        if np.abs(skill - before).max(initial=0.0) < SETTLED * share * model.crowd(parameters):
            break
        for _ in range(STEPS):
            rewards.step(partial(model.slopes, parameters, skill))
        x = rewards.of_others().at(points)[: len(model.look)]
        # What is likeliest for these rewards may lead to others for which it isn't: where the crowd's skill turns back, steps become shorter.
        last, way = way, _climb(model, parameters, ratio, model.consistent(rewards).at(points), average) - parameters
        share = share / 2 if (last[crowd] * way[crowd] < 0).any() else min(1.0, 1.5 * share)
        parameters = parameters + way * share / max(1.0, float(np.abs(way[crowd]).max()) / FURTHEST)
        posterior = model.grid(parameters, x, average)
        ratio = posterior @ GRID
    return Fit(model, parameters, rewards, posterior)


def likeliest_rewards(evidence: Evidence, skill: Floats, *, prior_sd: float, tie: float = -np.inf) -> Floats:
    """(S,) the most likely rewards for given skills (J,), with neither side bias nor a width of ties of anyone's own.

    With skills of 1, no ties and a wide prior this is Bradley and Terry's maximum likelihood.
    """
    model = Model(evidence, Priors())
    parameters = model.mean.copy()
    parameters[model.layout.forms] = tie
    rewards = _rewards(evidence, None, prior_sd)
    for _ in range(100):
        if rewards.step(partial(model.slopes, parameters, skill), nodes=1) * prior_sd < 1e-10:
            break
    return rewards.mean


def _rewards(evidence: Evidence, prior_mean: Floats | None, prior_sd: float) -> Rewards:
    first = np.concatenate([evidence.choices.first, evidence.levels.first, evidence.better])
    second = np.concatenate([evidence.choices.second, evidence.levels.second, evidence.worse])
    expected = np.zeros(len(evidence.samples)) if prior_mean is None else prior_mean
    annotator = np.concatenate([evidence.choices.annotator, evidence.levels.annotator, np.full(len(evidence.better), NO_ONE)])
    return Rewards(first, second, annotator, prior_mean=expected, prior_sd=prior_sd)


def _climb(model: Model, parameters: Floats, ratio: Floats, x: Floats, average: Floats) -> Floats:
    def stretched(y: Floats) -> tuple[float, Floats]:
        value, gradient = model.objective(y / model.stiffness, ratio, x, average)
        return value, gradient / model.stiffness

    return np.asarray(descend(stretched, parameters * model.stiffness, CLIMBS, LONGEST * model.stiffness) / model.stiffness)


def _mid_cumulative(q: Floats) -> Floats:
    """The distribution function at the middle of each point's mass, rising strictly."""
    found: Floats = q.cumsum() - q / 2 + np.arange(len(q)) * 1e-12
    return found
