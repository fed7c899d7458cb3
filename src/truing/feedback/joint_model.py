"""One likelihood for all that annotators say.

Every response has a reward r ~ N(0, 1): a difference of sqrt(2) is typical. Annotator j sees r_first - r_second with skill s_j >= 0 and answers

    a choice      Davidson's model of lead = s_j (r_first - r_second) + side bias b_j and tie width t_j
    its strength  a cumulative logit of lead = s_j l (difference, towards the chosen) + o_j, given the choice
    a ranking     the choices that Plackett and Luce's model is made of (likelihoods.py), without a side
    a rating      a cumulative logit of lead = s_j l_aspect r + o_j,aspect, with cut-points of the aspect's; thumbs are an aspect with two points

A prior says that a tenth of annotators answer without looking (s_j = 0: then nothing they say bears on any reward) and that the others' skills are
log-normal around the crowd's; nobody's skill is negative, so nobody's word is ever reversed. b, t, o and loadings l have normal priors, which those with few
answers keep. A check question is a choice that was made by someone who errs hardly ever.

Shapes: J annotators, S responses, N choices, M answers on scales, K nodes of averaging, G points of the skills' grid.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from truing.feedback.evidence import PAIR, RANKING, Evidence
from truing.feedback.likelihoods import ChoiceTerms, Floats, Ints, LevelTerms, cumulative_logit, cumulative_logit_log_p, davidson, davidson_log_p
from truing.feedback.rewards_posterior import Belief, Rewards, gauss_hermite

TYPICAL = 2**0.5  # standard deviation of the difference of two rewards under the prior
CHECK_SKILL = 5.0  # of a check question's right answer: wrong one time in 150 about a difference of 1
RATIOS: Floats = np.exp(np.linspace(-2.25, 1.5, 11))  # skill as a multiple of the crowd's, where it isn't 0
GRID: Floats = np.concatenate([[0.0], RATIOS])
CURVATURE = 0.15  # of an answer's log-likelihood, in nats: at most 1/4
TYPICAL_NODES = 15


class Priors(NamedTuple):
    """What is believed before anyone answered; standard deviations are in nats unless said otherwise."""

    accuracy: float = 0.8  # how often someone who looks names the better of two typical responses, ties aside
    crowd_sd: float = 1.0  # of the log of the crowd's skill
    skill_sd: float = 0.6  # of the log of a person's skill around it
    guessers: float = 0.1  # share who answer without looking
    side_sd: float = 1.0
    tie_sd: float = 1.0  # of a person's log tie width around the form's
    offset_sd: float = 1.0
    wide_sd: float = 3.0  # of tie widths of forms, and of cut-points
    loading_sd: float = 0.5  # of the log of an aspect's loading


DEFAULT = Priors()


@dataclass(frozen=True)
class Layout:
    """Where in the vector of parameters each kind stands."""

    crowd: slice  # log of the crowd's skill
    forms: slice
    side: slice
    tie: slice
    loadings: slice
    cuts: slice  # of each scale: its lowest cut-point, then the logs of the gaps to the next
    offsets: slice

    @classmethod
    def of(cls, evidence: Evidence) -> "Layout":
        """The layout that this evidence needs."""
        n = len(evidence.annotators)
        sizes = (1, len(evidence.forms), n, n, len(evidence.scales), sum(points - 1 for points in evidence.points), len(evidence.offsets))
        ends = np.cumsum(sizes)
        return cls(*(slice(int(end - size), int(end)) for size, end in zip(sizes, ends, strict=True)))

    @property
    def size(self) -> int:
        """How many parameters there are."""
        return int(self.offsets.stop)


class Model:
    """The likelihood of some evidence, as a function of parameters, skills and rewards."""

    def __init__(self, evidence: Evidence, priors: Priors) -> None:
        self.evidence, self.priors, self.layout = evidence, priors, Layout.of(evidence)
        self.first_cut = np.cumsum([0, *(points - 1 for points in evidence.points)])  # where each scale's parameters of cut-points begin
        self.pair_form = evidence.forms.index(PAIR) if PAIR in evidence.forms else None
        self.mean, self.sd = self._prior()
        self.n = len(evidence.choices.annotator)
        self.ranking = np.array([form == RANKING for form in evidence.forms], dtype=bool)
        self.look, self.look_annotator = self._looks()
        weight = np.concatenate([evidence.choices.weight, evidence.levels.weight])
        self.look_weight = np.bincount(self.look, weight) / np.maximum(np.bincount(self.look), 1)
        self.stiffness = self._stiffness()

    def _looks(self) -> tuple[Ints, Ints]:
        """(N + M,) which rows are one annotator's look at the same responses: a choice and its strength, the aspects of a rating; and whose looks they are."""
        parts = [[getattr(rows, name) for rows in (self.evidence.choices, self.evidence.levels)] for name in ("annotator", "first", "second")]
        table, look = np.unique(np.stack([np.concatenate(part) for part in parts], 1), axis=0, return_inverse=True)
        return np.asarray(look, dtype=np.intp).ravel(), table[:, 0]

    def _prior(self) -> tuple[Floats, Floats]:
        """Mean and standard deviation of each parameter."""
        priors, layout = self.priors, self.layout
        mean, sd = np.zeros(layout.size), np.ones(layout.size)
        mean[layout.crowd], sd[layout.crowd] = np.log(skill_of_accuracy(priors.accuracy)), priors.crowd_sd
        for part, width in ((layout.forms, priors.wide_sd), (layout.side, priors.side_sd), (layout.tie, priors.tie_sd), (layout.loadings, priors.loading_sd)):
            sd[part] = width
        sd[layout.offsets], sd[layout.cuts] = priors.offset_sd, 1.0
        for start, points in zip(self.first_cut, self.evidence.points, strict=False):
            lowest = layout.cuts.start + int(start)
            mean[lowest], sd[lowest] = -(points - 2) / 2, priors.wide_sd
        return mean, sd

    def _stiffness(self) -> Floats:
        """About the square root of the curvature in each parameter: what the optimiser needs to take all in strides of one length."""
        chosen, rated, evidence, layout = self.evidence.choices, self.evidence.levels, self.evidence, self.layout
        answers = np.zeros(layout.size)
        answers[layout.crowd] = len(self.look)
        answers[layout.forms] = np.bincount(chosen.form, minlength=len(evidence.forms))
        answers[layout.side] = answers[layout.tie] = np.bincount(chosen.annotator, minlength=len(evidence.annotators))
        of_scale = np.bincount(rated.scale, minlength=len(evidence.scales))
        answers[layout.loadings] = of_scale
        answers[layout.cuts] = np.repeat(of_scale, np.array(evidence.points, dtype=np.intp) - 1)
        answers[layout.offsets] = np.bincount(rated.offset, minlength=len(evidence.offsets))
        return np.asarray(np.sqrt(1 / self.sd**2 + CURVATURE * answers))

    def crowd(self, parameters: Floats) -> float:
        """The crowd's skill, in nats a unit of reward."""
        return float(np.exp(parameters[self.layout.crowd][0]))

    # ---- the terms of the likelihood ----

    def choice_terms(self, parameters: Floats, skill: Floats, x: Floats, *, log_p_alone: bool = False) -> ChoiceTerms:
        """Of every choice, (N, K), from what was seen and the skill of each, (N, 1); without derivatives if log_p is wanted alone."""
        rows = self.evidence.choices
        lead = skill * x + (rows.side * parameters[self.layout.side][rows.annotator])[:, None]
        tie = parameters[self.layout.forms][rows.form] + parameters[self.layout.tie][rows.annotator]
        if log_p_alone:
            log_p = davidson_log_p(lead, tie[:, None], rows.choice[:, None])
            return ChoiceTerms(log_p, log_p, log_p, log_p)
        return davidson(lead, tie[:, None], rows.choice[:, None])

    def level_terms(self, parameters: Floats, skill: Floats, x: Floats, *, log_p_alone: bool = False) -> LevelTerms:
        """Of every answer on a scale, (M, K)."""
        rows = self.evidence.levels
        loading = np.exp(parameters[self.layout.loadings])[rows.scale] * rows.sign
        lead = skill * loading[:, None] * x + parameters[self.layout.offsets][rows.offset][:, None]
        low, high = self._cuts(parameters)
        if log_p_alone:
            log_p = cumulative_logit_log_p(lead, low[:, None], high[:, None])
            return LevelTerms(log_p, log_p, log_p, log_p, log_p)
        return cumulative_logit(lead, low[:, None], high[:, None])

    def _cuts(self, parameters: Floats) -> tuple[Floats, Floats]:
        """(M,) cut-points below and above each answer."""
        rows, table = self.evidence.levels, []
        for start, points in zip(self.first_cut, self.evidence.points, strict=False):
            own = parameters[self.layout.cuts][start : start + points - 1]
            table.append(np.concatenate([[-np.inf, own[0]], own[0] + np.exp(own[1:]).cumsum(), [np.inf]]))
        flat, begins = np.concatenate([*table, np.zeros(0)]), np.cumsum([0, *(len(cuts) for cuts in table)])
        at = begins[rows.scale] + rows.level
        return flat[at], flat[at + 1]

    def slopes(self, parameters: Floats, skill: Floats, x: Floats) -> tuple[Floats, Floats]:
        """Derivatives of everything said by what was seen; the rows are choices, answers on scales and check questions, in this order."""
        chosen, rated = self.evidence.choices, self.evidence.levels
        n, m = self.n, len(rated.annotator)
        own, owns = skill[chosen.annotator][:, None], skill[rated.annotator][:, None]
        one, other = self.choice_terms(parameters, own, x[:n]), self.level_terms(parameters, owns, x[n : n + m])
        owns = owns * (np.exp(parameters[self.layout.loadings])[rated.scale] * rated.sign)[:, None]
        check = davidson(CHECK_SKILL * x[n + m :], np.array(-np.inf), np.array(1))
        weight, heft = chosen.weight[:, None], rated.weight[:, None]
        first = (weight * own * one.by_lead, heft * owns * other.by_lead, CHECK_SKILL * check.by_lead)
        second = (weight * own**2 * one.by_lead_twice, heft * owns**2 * other.by_lead_twice, CHECK_SKILL**2 * check.by_lead_twice)
        return np.concatenate(first), np.concatenate(second)

    # ---- the parts of a round ----

    def grid(self, parameters: Floats, x: Floats, average: Floats) -> Floats:
        """(J, G) the posterior of each annotator's multiple of the crowd's skill, on 0 and RATIOS."""
        spread = -((np.log(RATIOS) / self.priors.skill_sd) ** 2) / 2
        looking = np.log1p(-self.priors.guessers) + spread - np.log(np.exp(spread).sum())
        prior = np.concatenate([[np.log(self.priors.guessers)], looking])
        count = len(self.evidence.annotators)
        found = [
            p + self._log_likelihoods(parameters, np.full(count, self.crowd(parameters) * ratio), x, average) for p, ratio in zip(prior, GRID, strict=True)
        ]
        log_q = np.stack(found, 1)
        q = np.exp(log_q - log_q.max(1, keepdims=True))
        return np.asarray(q / q.sum(1, keepdims=True))

    def _log_likelihoods(self, parameters: Floats, skill: Floats, x: Floats, average: Floats) -> Floats:
        """(J,) of what each one said, averaged over what they may have seen."""
        chosen, rated = self.evidence.choices, self.evidence.levels
        one = self.choice_terms(parameters, skill[chosen.annotator][:, None], x[: self.n], log_p_alone=True)
        other = self.level_terms(parameters, skill[rated.annotator][:, None], x[self.n :], log_p_alone=True)
        of_look = self.look_weight * _log_mean(self._of_looks(np.concatenate([one.log_p, other.log_p])), average)
        return np.asarray(np.bincount(self.look_annotator, of_look, len(skill)), dtype=np.float64)

    def consistent(self, rewards: Rewards) -> Belief:
        """What may have been seen, by all answers but those of the same look; of rankings, which can't contradict themselves, by other people's alone."""
        others, rest = rewards.of_others(), rewards.without(self.look)
        ranked = np.concatenate([self.ranking[self.evidence.choices.form], np.zeros(len(self.look) - self.n, dtype=bool)])
        return Belief(*(np.where(ranked, one[: len(self.look)], other) for one, other in zip(others, rest, strict=True)))

    def _of_looks(self, rows: Floats) -> Floats:
        """(L, K) sums of the rows of one annotator's look at the same responses."""
        count = len(self.look_annotator)
        return np.stack([np.bincount(self.look, column, count) for column in rows.T], 1)

    def objective(self, parameters: Floats, ratio: Floats, x: Floats, average: Floats) -> tuple[float, Floats]:
        """Minus the log posterior of the parameters, averaged over what may have been seen, and its gradient.

        Args:
            ratio:   (J,) skills as multiples of the crowd's.
            x:       (N + M, K) what may have been seen, alike for all rows of one look.
            average: (K,) weights of the K.
        """
        away = (parameters - self.mean) / self.sd
        chosen, rated = self.evidence.choices, self.evidence.levels
        skill = self.crowd(parameters) * ratio
        own, owns = skill[chosen.annotator][:, None], skill[rated.annotator][:, None]
        one, other = self.choice_terms(parameters, own, x[: self.n]), self.level_terms(parameters, owns, x[self.n :])
        log_p = self._of_looks(np.concatenate([one.log_p, other.log_p]))
        of_look = _log_mean(log_p, average)
        likely = average * np.exp(log_p - of_look[:, None])  # (L, K) how likely each is to be what they saw, given what they said
        share = (self.look_weight[:, None] * likely)[self.look]
        gradient = away / self.sd
        self._add_choices(gradient, one, share[: self.n], own * x[: self.n])
        self._add_levels(gradient, parameters, other, share[self.n :], owns * x[self.n :])
        return float(away @ away) / 2 - float(self.look_weight @ of_look), gradient

    def _add_choices(self, gradient: Floats, terms: ChoiceTerms, share: Floats, seen: Floats) -> None:
        """Take the derivatives of the choices' log-likelihood off the gradient."""
        rows, layout = self.evidence.choices, self.layout
        by_lead, by_tie = share * terms.by_lead, (share * terms.by_tie).sum(1)
        gradient[layout.crowd] -= (by_lead * seen).sum()
        gradient[layout.side] -= np.bincount(rows.annotator, rows.side * by_lead.sum(1), len(self.evidence.annotators))
        gradient[layout.tie] -= np.bincount(rows.annotator, by_tie, len(self.evidence.annotators))
        gradient[layout.forms] -= np.bincount(rows.form, by_tie, len(self.evidence.forms))

    def _add_levels(self, gradient: Floats, parameters: Floats, terms: LevelTerms, share: Floats, seen: Floats) -> None:
        """The same of the answers on scales."""
        rows, layout, evidence = self.evidence.levels, self.layout, self.evidence
        if not len(rows.annotator):
            return
        loading = np.exp(parameters[layout.loadings])[rows.scale] * rows.sign
        by_lead = share * terms.by_lead
        by_log_skill = loading * (by_lead * seen).sum(1)
        gradient[layout.crowd] -= by_log_skill.sum()
        gradient[layout.loadings] -= np.bincount(rows.scale, by_log_skill, len(evidence.scales))
        gradient[layout.offsets] -= np.bincount(rows.offset, by_lead.sum(1), len(evidence.offsets))
        gradient[layout.cuts] -= self._by_cuts(parameters, (share * terms.by_low).sum(1), (share * terms.by_high).sum(1))

    def _by_cuts(self, parameters: Floats, by_low: Floats, by_high: Floats) -> Floats:
        """Derivatives by the parameters of cut-points, from those by the cut-points beside each answer, (M,)."""
        rows, found = self.evidence.levels, []
        for scale, (start, points) in enumerate(zip(self.first_cut, self.evidence.points, strict=False)):
            mine = rows.scale == scale
            level, own = rows.level[mine], parameters[self.layout.cuts][start : start + points - 1]
            # cut-point c lies above answer c and below answer c + 1
            by_cut = np.bincount(level, by_high[mine], points)[:-1] + np.bincount(level, by_low[mine], points)[1:]
            found.append(np.concatenate([[by_cut.sum()], np.exp(own[1:]) * by_cut[::-1].cumsum()[::-1][1:]]))
        return np.concatenate(found)


# ---- what skill is worth ----


def typical_pull(skill: Floats, side: float, tie: float) -> Floats:
    """P(names the better) - P(names the worse) of two typical responses, by skill (G,); each order of showing them is as likely."""
    points, average = gauss_hermite(2 * TYPICAL_NODES)
    better = skill[:, None] * np.abs(TYPICAL * points)  # (G, K)
    pulls = []
    for leaning in (side, -side):
        right, wrong = (np.exp(davidson_log_p(better + leaning, np.array(tie), np.array(choice))) for choice in (1, -1))
        pulls.append((right - wrong) @ average)
    found: Floats = (pulls[0] + pulls[1]) / 2
    return found


def skill_of_accuracy(accuracy: float) -> float:
    """The skill with which someone who never ties names the better of two typical responses this often."""
    skills = np.exp(np.linspace(-7, 7, 1401))
    return float(np.interp(2 * accuracy - 1, typical_pull(skills, 0.0, -np.inf), skills))


def _log_mean(log_p: Floats, average: Floats) -> Floats:
    """(L,) log of the mean of exp(log_p) (L, K)."""
    top = log_p.max(1)
    return np.asarray(top + np.log(np.exp(log_p - top[:, None]) @ average))
