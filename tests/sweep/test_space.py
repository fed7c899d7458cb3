"""What may be swept, and what is said of what may not, before anything is tuned."""

import pytest

from truing.errors import SettingError
from truing.store.project import Project
from truing.sweep.space import command, in_words, parse_space


def test_every_combination_in_the_order_given(project: Project) -> None:
    space = parse_space(project, "rloo", ["tune.lr=1e-4,3e-4", "tune.beta=0.02, 0.05"])
    assert space.choices() == [{"lr": lr, "beta": beta} for lr in (1e-4, 3e-4) for beta in (0.02, 0.05)]
    assert {settings.algorithm for settings in space.settings} == {"rloo"}


def test_values_are_as_the_settings_hold_them(project: Project) -> None:
    space = parse_space(project, None, ["tune.beta=1,1.0,0.5", "tune.kl_target_nats=none,6", "tune.unfit=true"])
    assert space.values == {"beta": (1.0, 0.5), "kl_target_nats": (None, 6.0), "unfit": (True,)}
    assert len(space.settings) == 4
    assert in_words(space.choices()[0]) == "tune.beta=1.0 tune.kl_target_nats=none tune.unfit=true"


def test_algorithms_are_swept_each_with_its_own_settings(project: Project) -> None:
    space = parse_space(project, "grpo", ["tune.algorithm=ppo,rloo"])
    assert [type(settings).__name__ for settings in space.settings] == ["PPOSettings", "RLOOSettings"]
    assert command(space.choices()[1], "grpo", []) == "truing tune --set tune.algorithm=rloo"


def test_the_command_that_takes_a_trial_says_all_that_was_said(project: Project) -> None:
    choice = parse_space(project, None, ["tune.lr=0.001"]).choices()[0]
    assert command(choice, "rloo", ["samples.temperature=1.0"]) == "truing tune --algorithm rloo --set samples.temperature=1.0 --set tune.lr=0.001"


@pytest.mark.parametrize(
    ("options", "what", "fix"),
    [
        ([], "nothing to sweep", "--sweep tune.beta="),
        (["tune.lr"], "not of the form tune.KEY=A,B,C", "tune.beta="),
        (["tune.lr="], "empty value", "tune.lr=A,B,C"),
        (["tune.lr=1e-4,,3e-4"], "empty value", "tune.lr=A,B,C"),
        (["tune.lrr=1,2"], "no setting tune.lrr", "`lr`"),
        (["tune.lr=1e-4,fast"], "tune.lr = 'fast'", "learning rate"),
        (["tune.lr=1e-4,-1"], "tune.lr = -1", "learning rate"),
        (["tune.algorithm=ppo,pppo"], "no algorithm 'pppo'", "rloo"),
        (["tune.algorithm=ppo,rloo", "tune.gae_lambda=0.9,1"], "no setting tune.gae_lambda", ""),
        (["samples.temperature=0.7,1"], "isn't about tuning", "--set"),
        (["tune.tracker=none,wandb"], "shapes no policy", "--set"),
        (["tune.lr=1e-4", "tune.lr=3e-4"], "twice", "tune.lr=A,B,C"),
        (["tune.at_least={}"], "tables or lists", "--set"),
        ([f"tune.{key}={','.join(map(str, range(1, 60)))}" for key in ("rank", "updates", "epochs")], "205,379 combinations", "fewer"),
    ],
)  # fmt: skip
def test_a_slip_is_told_with_its_remedy(project: Project, options: list[str], what: str, fix: str) -> None:
    with pytest.raises(SettingError) as caught:
        parse_space(project, None, options)
    assert what in caught.value.what
    assert fix in caught.value.fix
