"""The battery that every algorithm passes, and what is each one's own."""

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from truing.errors import SettingError
from truing.models.generate import Response
from truing.models.trunk import Trunk
from truing.policy.algorithms import ALGORITHMS, ONLINE, best_of_n, dpo, grpo, ppo, q_learning, reinforce, rloo
from truing.policy.losses import Average, clipped_surrogate, denominators
from truing.policy.rollout import Forward, Rollout
from truing.policy.settings import TuneSettings
from truing.policy.targets import Losses, Targets
from truing.policy.train import tune_settings
from truing.store.project import Project, create_project, open_project
from tuning import learner_for, settings_for


def rollout_of(rewards: list[list[float]], values: list[list[float]] | None = None) -> Rollout:
    """A rollout of answers with these rewards on their tokens, and nothing else of interest."""
    longest = max(len(row) for row in rewards)
    padded = torch.tensor([row + [0.0] * (longest - len(row)) for row in rewards], dtype=torch.float64)
    mask = torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in rewards])
    state = None if values is None else torch.tensor([row + [0.0] * (longest - len(row)) for row in values], dtype=torch.float64)
    zeros, flat = torch.zeros_like(padded), torch.zeros(len(rewards))
    responses = [Response([1] * len(row), [0.0] * len(row), [0.0] * len(row), True) for row in rewards]
    parts = [list(range(len(rewards)))]
    return Rollout([[1]] * len(rewards), responses, parts, [[0]], mask, zeros, zeros, zeros, state, flat, None, flat, padded, zeros, [None])


def scored(rewards: list[list[float]], values: list[list[float]] | None = None) -> Rollout:
    """The same, with each answer's rewards together as its score."""
    rollout = rollout_of(rewards, values)
    return replace(rollout, scores=rollout.rewards.sum(1))


def test_every_algorithm_says_who_it_is() -> None:
    assert set(ALGORITHMS) == {"ppo", "reinforce", "rloo", "grpo", "best-of-n", "q-learning", "dpo", "sft"}
    for name, algorithm in ALGORITHMS.items():
        assert name == algorithm.NAME
        assert issubclass(algorithm.Settings, TuneSettings)
        assert all(field.description for field in algorithm.Settings.model_fields.values())
        assert algorithm.Settings(algorithm=name).algorithm == name


@pytest.mark.slow
@pytest.mark.parametrize("name", ONLINE)
def test_the_best_arm_is_learned(trunk: Trunk, name: str) -> None:
    """One-token answers, a third of them right by chance: after some dozens of updates the policy is right nine times out of ten."""
    settings = settings_for(name, lr=2e-2, updates=24 if name in ("ppo", "rloo", "grpo") else 48, samples=32, group_size=4, microbatch=32, beta=0.0)
    learner = learner_for(trunk, settings, max_new_tokens=1)
    for _ in range(settings.updates):
        learner.update()
    scores = [row["objective/scores"] for row in learner.rows]
    assert scores[0] < 0.6
    assert sum(scores[-5:]) / 5 > 0.9


@pytest.mark.parametrize("name", ONLINE)
def test_a_wrong_sign_would_be_seen(name: str) -> None:
    """One step down the loss makes the rewarded answer likelier and its sibling less likely."""
    algorithm, settings = ONLINE[name], settings_for(name, gae_lambda=1.0) if name == "ppo" else settings_for(name)
    rollout = scored([[0.0, 1.0], [0.0, -1.0]], [[0.0, 0.0], [0.0, 0.0]] if algorithm.NEEDS_VALUES else None)
    logprobs = torch.full((2, 2), -1.0, dtype=torch.float64, requires_grad=True)
    losses: Losses = algorithm.loss(
        Forward(logprobs, logprobs.detach(), rollout.values), Forward(logprobs.detach(), logprobs.detach(), rollout.values),
        algorithm.targets(rollout, settings, []), rollout.mask, settings, torch.full((2, 1), 4.0),
    )  # fmt: skip
    (gradient,) = torch.autograd.grad(losses.total, logprobs)
    assert (gradient[0] < 0).all()
    assert (gradient[1] >= 0 if name == "best-of-n" else gradient[1] > 0).all()


@pytest.mark.parametrize("average", ["tokens", "responses", "constant"])
@pytest.mark.parametrize("name", ONLINE)
def test_losses_of_parts_add_up_to_the_minibatchs(name: str, average: Average) -> None:
    """Answers of unequal lengths, so that averaging the parts' own means would give something else."""
    algorithm, settings = ONLINE[name], settings_for(name)
    rewards = [[0.1, 0.2, 1.0], [0.5], [-1.0, 0.3], [0.0, 0.0, 0.7]]
    divisor = denominators(torch.tensor([3, 1, 2, 3]), average, limit=5)
    rollout = scored(rewards, [[0.3] * len(row) for row in rewards] if algorithm.NEEDS_VALUES else None)
    targets = algorithm.targets(rollout, settings, [])
    new = Forward(*(torch.randn(4, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) / 9 for seed in range(3)))
    old = Forward(torch.zeros(4, 3).double(), torch.zeros(4, 3).double(), rollout.values)

    def loss_of(rows: list[int]) -> Tensor:
        def some(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[rows]

        cut = [Forward(pair.logprobs[rows], pair.entropy[rows], some(pair.values)) for pair in (new, old)]
        goal = Targets(targets.advantages[rows], some(targets.returns), some(targets.ref_logprobs))
        losses: Losses = algorithm.loss(*cut, goal, rollout.mask[rows], settings, divisor[rows])
        return losses.total

    whole = loss_of([0, 1, 2, 3])
    for split in ([[0], [1], [2], [3]], [[0, 1, 2], [3]], [[3, 1], [2, 0]]):
        assert float(sum(loss_of(rows) for rows in split)) == pytest.approx(float(whole), abs=1e-12)


def test_rloo_by_hand() -> None:
    """Rewards 1, 2, 6: the siblings' means are 4, 7/2 and 3/2. An answer's reward is the sum over its tokens, its KL price included."""
    settings = rloo.RLOOSettings(algorithm="rloo", samples=6, group_size=3)
    rollout = rollout_of([[0.25, 0.75], [2.0], [5.0, 1.0], [1.0], [1.0], [1.0]])
    targets = rloo.targets(rollout, settings, [])
    assert targets.returns is None
    expected = [Fraction(-3), Fraction(-3, 2), Fraction(9, 2), 0, 0, 0]
    for row, advantage in zip(targets.advantages.tolist(), expected, strict=True):
        assert row == [float(advantage)] * 2


def test_grpo_by_hand() -> None:
    """Rewards 1, 3 and then 1, 1, 5, -3: means 2 and 1, deviations 1 and sqrt 8. Without the division the differences stay."""
    rollout = scored([[0.0, 1.0], [3.0], [1.0], [1.0], [5.0], [-3.0]])
    pairs = grpo.targets(replace(rollout, scores=rollout.scores[:2], mask=rollout.mask[:2]), grpo.GRPOSettings(algorithm="grpo", group_size=2), []).advantages
    assert pairs.tolist() == [[pytest.approx(-1, abs=1e-3)] * 2, [pytest.approx(1, abs=1e-3)] * 2]
    four = replace(rollout, scores=rollout.scores[2:], mask=rollout.mask[2:])
    plain = grpo.targets(four, grpo.GRPOSettings(algorithm="grpo", group_size=4, scale=False), [])
    assert plain.advantages[:, 0].tolist() == [0, 0, 4, -4]
    assert plain.ref_logprobs is four.ref_logprobs


def test_grpos_price_of_kl_stands_in_the_loss_or_on_the_reward() -> None:
    """One token, log p 1 above the reference: k2 is 1/2, its price at beta 1/5 is 1/10, and its gradient 1/5."""
    rollout, settings = scored([[1.0], [1.0]]), grpo.GRPOSettings(algorithm="grpo", group_size=2, beta=0.2)
    logprobs = torch.ones(2, 1, dtype=torch.float64, requires_grad=True)
    new, old = Forward(logprobs, logprobs, None), Forward(logprobs.detach(), logprobs.detach(), None)
    losses = grpo.loss(new, old, grpo.targets(rollout, settings, []), rollout.mask, settings, torch.full((2, 1), 2.0))
    assert losses.kl is not None
    assert float(losses.kl.detach()) == pytest.approx(0.1)
    assert float(losses.total.detach()) == pytest.approx(0.1), "equal rewards: no advantage"
    assert torch.autograd.grad(losses.total, logprobs)[0].tolist() == [[pytest.approx(0.1)]] * 2
    other = grpo.GRPOSettings(algorithm="grpo", group_size=2, beta=0.2, kl_in="reward")
    assert grpo.loss(new, old, grpo.targets(rollout, other, []), rollout.mask, other, torch.full((2, 1), 2.0)).kl is None


def test_q_is_the_value_and_what_the_policy_adds() -> None:
    """V 1, log p 2 above the reference, beta 1/2: Q is 2; half the squared distance from 3/2 is 1/8, and pulls V and log p down."""
    settings = q_learning.QLearningSettings(algorithm="q-learning", beta=0.5)
    logprobs, values = (torch.tensor([[x]], dtype=torch.float64, requires_grad=True) for x in (-1.0, 1.0))
    reference, goal = torch.tensor([[-3.0]], dtype=torch.float64), torch.tensor([[1.5]], dtype=torch.float64)
    found = q_learning.loss(Forward(logprobs, logprobs, values), reference, goal, torch.tensor([[True]]), settings, torch.ones(1, 1))
    assert float(found.detach()) == pytest.approx(0.125)
    assert [float(slope) for slope in torch.autograd.grad(found, (logprobs, values))] == pytest.approx([0.25, 0.5])


def test_reinforce_credits_a_token_with_what_comes_after_it() -> None:
    """Rewards -1/4, 0, 1 and 2: from each token on 3/4, 1, 1 and 2; the answers' mean is 11/8."""
    rollout = rollout_of([[-0.25, 0.0, 1.0], [2.0]])
    both = (reinforce.REINFORCESettings(algorithm="reinforce", baseline=kind) for kind in ("zero", "mean"))
    none, mean = (reinforce.targets(rollout, settings, []).advantages for settings in both)
    assert none[rollout.mask].tolist() == [0.75, 1.0, 1.0, 2.0]
    assert mean[rollout.mask].tolist() == [0.75 - 1.375, 1.0 - 1.375, 1.0 - 1.375, 2.0 - 1.375]


def test_reinforces_running_baseline_knows_only_earlier_updates() -> None:
    """After one update it is that update's mean; after 1 and then 2: (0.09 x 1 + 0.1 x 2) / 0.19."""
    settings, rewards = reinforce.REINFORCESettings(algorithm="reinforce", baseline="running"), torch.tensor([100.0, 300.0])
    rows = [{"objective/reward": 1.0}, {"objective/reward": 2.0}]
    found = [reinforce.baseline(rewards, settings, rows[:n]) for n in range(3)]
    assert found == [0.0, pytest.approx(1.0), pytest.approx(0.29 / 0.19)]


def test_best_of_n_learns_from_the_best_alone() -> None:
    """Of 1, 2 and 6 the last; of 1, 1 and 0 the first two, half each. The weights' mean is 1."""
    settings = best_of_n.BestOfNSettings(algorithm="best-of-n", samples=6, group_size=3)
    rollout = rollout_of([[0.25, 0.75], [2.0], [5.0, 1.0], [1.0], [1.0], [0.0]])
    weights = best_of_n.targets(rollout, settings, []).advantages
    assert weights[:, 0].tolist() == [0, 0, 3, 1.5, 1.5, 0]
    assert weights[:, 1].tolist() == weights[:, 0].tolist()


def test_ppos_rewards_can_be_whitened() -> None:
    """With lambda 1, gamma 1 and a critic that says 0, what an answer's first token should have said is its whole reward: mean kept, variance 1."""
    rollout = rollout_of([[1.0], [3.0], [5.0]], [[0.0], [0.0], [0.0]])
    returns = ppo.targets(rollout, ppo.PPOSettings(gae_lambda=1.0, whiten_rewards=True), []).returns
    assert returns is not None
    assert returns[:, 0].tolist() == pytest.approx([3 - 1.5**0.5, 3, 3 + 1.5**0.5])


def test_ppos_advantages_are_gae_whitened_over_real_tokens() -> None:
    """gamma 1, lambda 1/2. First answer: rewards 0 0 1, values 1/2 each: 1/8, 1/4, 1/2. Second: reward 1, value 1: 0. Then mean 0, variance 1 over all four."""
    settings = ppo.PPOSettings(gamma=1.0, gae_lambda=0.5)
    rollout = rollout_of([[0.0, 0.0, 1.0], [1.0]], [[0.5, 0.5, 0.5], [1.0]])
    targets = ppo.targets(rollout, settings, [])
    assert targets.returns is not None
    assert targets.returns.tolist() == [[5 / 8, 3 / 4, 1.0], [1.0, 0.0, 0.0]]
    real = targets.advantages[rollout.mask]
    assert float(real.mean()) == pytest.approx(0, abs=1e-12)
    assert float(real.var(correction=0)) == pytest.approx(1, abs=1e-6)
    assert (real[1] - real[0]) * 2 == pytest.approx(float(real[2] - real[1]), abs=1e-12), "1/8 and 1/4 apart, scaled alike"


def test_ppos_value_loss_is_weighted() -> None:
    """Values 0, returns 1 and 3, one token each: half of the mean square is 5/2; the weight is 1/5."""
    settings = ppo.PPOSettings(value_weight=0.2, value_clip=10.0)
    rollout = rollout_of([[1.0], [3.0]], [[0.0], [0.0]])
    zeros = torch.zeros(2, 1).double()
    new = Forward(zeros, zeros, zeros)
    losses = ppo.loss(new, new, ppo.targets(rollout, settings, []), rollout.mask, settings, torch.full((2, 1), 2.0))
    assert losses.value is not None
    assert float(losses.value) == pytest.approx(0.5)
    surrogate = clipped_surrogate(zeros, zeros, ppo.targets(rollout, settings, []).advantages, rollout.mask, clip=0.2)
    assert float(losses.total) == pytest.approx(float(surrogate.loss) + 0.5)


# Settings ----------------------------------------------------------------------------------------------------------


def project_with(project: Project, toml: str) -> Project:
    return open_project(create_project(project.root / "inner", settings=toml))


def test_the_settings_class_is_the_algorithms_own(project: Project) -> None:
    assert isinstance(tune_settings(project), ppo.PPOSettings)
    assert isinstance(tune_settings(project, "rloo"), rloo.RLOOSettings)
    chosen = tune_settings(project_with(project, '[tune]\nalgorithm = "rloo"\nbeta = 0.2\n'))
    assert isinstance(chosen, rloo.RLOOSettings)
    assert chosen.beta == 0.2


def test_another_algorithm_than_the_files_leaves_out_what_it_has_no_use_for(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """The demo's settings are PPO's, and whoever tries another algorithm there shouldn't have to take them out by hand."""
    inside = project_with(project, "[tune]\nupdates = 5\nvalue_clip = 0.1\nclip = 0.1\nlr = 1e-4\nclipp = 3\n")
    with pytest.raises(SettingError, match=r"no setting tune\.clipp"):
        tune_settings(inside, "dpo")
    inside.settings_file().write_text("[tune]\nupdates = 5\nvalue_clip = 0.1\nclip = 0.1\nlr = 1e-4\nrank = 4\nbeta = 0.07\n")
    again = open_project(inside.root)
    for _ in range(2):
        preferred = tune_settings(again, "dpo")
        assert isinstance(preferred, dpo.DPOSettings)
        assert (preferred.rank, preferred.lr, preferred.beta) == (4, 5e-5, 0.1), "its learning rate and beta are of another kind than PPO's"
    assert capsys.readouterr().out.count("dpo leaves out what [tune] in truing.toml says for ppo alone: beta, clip, lr, updates, value_clip\n") == 1
    learned = tune_settings(again, "q-learning")
    assert isinstance(learned, q_learning.QLearningSettings)
    assert (learned.updates, learned.clip, learned.lr, learned.beta) == (5, 0.2, 1e-4, 0.07)
    typed = open_project(inside.root, ["tune.updates=7", "tune.algorithm=dpo"])
    with pytest.raises(SettingError, match=r"no setting tune\.updates"):
        tune_settings(typed)
    with pytest.raises(SettingError, match=r"no setting tune\.updates"):
        tune_settings(again, "dpo", {"updates": 9})


@pytest.mark.parametrize(
    ("toml", "what", "fix"),
    [
        ('algorithm = "trpo"', "no algorithm 'trpo'", "known ones: ppo, reinforce, rloo, grpo, best-of-n, q-learning, dpo, sft"),
        ("clipp = 0.1", "no setting tune.clipp", "did you mean `clip`"),
        ('algorithm = "rloo"\nvalue_clip = 0.1', "no setting tune.value_clip", "clip"),
        ("clip = 0", "greater than 0", "half-width"),
        ("samples = 10", "not a multiple of group_size", "tune"),
        ("samples = 8\nminibatches = 9", "more than samples", "tune"),
        ('algorithm = "rloo"\ngroup_size = 1', "rloo needs group_size >= 2", "tune"),
        ('algorithm = "grpo"\ngroup_size = 1', "grpo needs group_size >= 2", "tune"),
        ('algorithm = "grpo"\nkl_target_nats = 6', "steers the price on the reward", "tune"),
        ('algorithm = "best-of-n"\ngroup_size = 1', "best-of-n needs group_size >= 2", "tune"),
        ("beta = 0.0\nkl_target_nats = 6", "can't start from beta = 0", "under [tune]"),
        ("kl_target_nats = 6\nsamples = 40\nkl_horizon = 8", "kl_horizon = 8: an update could bring beta to 0", "under [tune]"),
        ('algorithm = "q-learning"\nmax_kl_old = 0.1', "does nothing under q-learning: leave it at 0.2", "under [tune]"),
        ('algorithm = "dpo"\nwatch = true', "there is nothing to watch", "--watch"),
        ('algorithm = "reinforce"\nclip_high = 0.3', "does nothing under reinforce: leave it at None", "under [tune]"),
    ],
)
def test_a_wrong_setting_is_explained(project: Project, toml: str, what: str, fix: str) -> None:
    with pytest.raises(SettingError) as caught:
        tune_settings(project_with(project, f"[tune]\n{toml}\n"))
    assert what in caught.value.what
    assert fix in caught.value.fix
