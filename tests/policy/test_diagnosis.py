"""Each named failure is provoked and found once, at an update where it is sure; healthy and noisy rows give none."""

import random
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from truing.policy.diagnosis import CHECKS, CRITIC_PATIENCE, GAP_TOLERANCE, RATIO_TOLERANCE, WINDOW, best_update, diagnose, fatal

Row = dict[str, float]


def healthy(updates: int = 60, *, seed: int = 0, samples: int = 32) -> list[Row]:
    """A run that goes well: the score rises from 0 to 1.5 and KL to 5 nats, with the noise of batches of `samples`."""
    noise = random.Random(seed)
    rows = []
    for update in range(1, updates + 1):
        way = update / updates
        drift = noise.gauss(0, 1) / samples**0.5
        rows.append(
            {
                "update": float(update),
                "objective/scores": 1.5 * way + drift,
                "objective/scores_lower": 1.0 * way + drift - 0.3 + noise.gauss(0, 0.05),
                "objective/scores_std": noise.uniform(0.8, 1.2),
                "objective/kl": 5 * way + noise.gauss(0, 2) / samples**0.5,
                "objective/beta": 0.05,
                "objective/kl_stderr": 2 / samples**0.5,
                "objective/entropy": (2 - way) * noise.uniform(0.9, 1.1),
                "response/length": 40 * (1 + 0.3 * way) * noise.uniform(0.85, 1.15),
                "response/eos_rate": sum(noise.random() < 0.8 for _ in range(samples)) / samples,
                "response/distinct2": 0.7 * noise.uniform(0.9, 1.1),
                "value/explained_variance": 0.4 - 0.8 * 0.9**update + noise.gauss(0, 0.2),  # worse than a constant at first
                "policy/first_ratio_error": 0.0,
            }
        )
    return rows


def changed(change: Callable[[Row, float], None], *, since: int = 20) -> list[Row]:
    """Healthy rows on which `change(row, updates since then)` was worked from an update on."""
    rows = healthy()
    for row in rows[since:]:
        change(row, row["update"] - since)
    return rows


def hacked(row: Row, age: float) -> None:
    row["objective/scores"] = 0.5 + 0.1 * age
    row["objective/scores_lower"] = 0.5 - 0.1 * age


def ends_at_once(row: Row, age: float) -> None:
    row["response/length"] = max(1.0, 40 * 0.7**age)


def never_ends(row: Row, age: float) -> None:
    row["response/length"] = min(200.0, 40 * 1.2**age)
    row["response/eos_rate"] = max(0.0, 0.8 - 0.05 * age)


def one_answer(row: Row, age: float) -> None:
    row["objective/entropy"] = 2 * 0.8**age
    row["response/distinct2"] = max(0.05, 0.7 * 0.9**age)


def far_off(row: Row, age: float) -> None:
    row["objective/kl"] = 2.0 * age


def below_zero(row: Row, age: float) -> None:
    row["objective/kl"] = -1.5


def constant_critic(row: Row, age: float) -> None:
    row["value/explained_variance"] = -0.05


def dropout(row: Row, age: float) -> None:
    row["policy/first_ratio_error"] = 0.02


@pytest.mark.parametrize(
    ("failure", "change", "found_by"),
    [
        ("reward hacking", hacked, 40),
        ("EOS collapse", ends_at_once, 28),
        ("length run-away", never_ends, 32),
        ("mode collapse", one_answer, 36),
        ("KL blow-up", far_off, 32),
        ("negative KL", below_zero, 23),
        ("dead critic", constant_critic, 32),
        ("stale ratios", dropout, 21),
    ],
)
def test_each_failure_is_found_once_soon_after_it_began(failure: str, change: Callable[[Row, float], None], found_by: int) -> None:
    (found,) = diagnose(changed(change))
    assert found.failure == failure
    assert 20 < found.update <= found_by
    assert re.search(r"\d", found.sign), "a sign is in numbers"


def test_every_check_is_provoked_above() -> None:
    marks = test_each_failure_is_found_once_soon_after_it_began.pytestmark  # type: ignore[attr-defined]
    assert {case[0] for case in marks[0].args[1]} == set(CHECKS)


def test_healthy_runs_have_no_findings() -> None:
    found = {seed: diagnose(healthy(100, seed=seed)) for seed in range(20)}
    assert not {seed: findings for seed, findings in found.items() if findings}


@pytest.mark.parametrize("updates", [0, 1, 2, 5])
def test_a_short_run_is_not_judged_by_its_noise(updates: int) -> None:
    assert diagnose(healthy(updates)) == []


@pytest.mark.parametrize("change", [ends_at_once, never_ends, one_answer, far_off, below_zero])
def test_one_odd_batch_is_not_a_failure(change: Callable[[Row, float], None]) -> None:
    rows = healthy()
    change(rows[30], 7.0)
    assert diagnose(rows) == []


def test_rows_without_critic_or_ensemble_are_fine() -> None:
    rows = [{name: value for name, value in row.items() if not name.startswith("value/") and name != "objective/scores_lower"} for row in healthy()]
    assert diagnose(rows) == []


def test_a_score_that_rises_with_its_lower_bound_is_no_hacking() -> None:
    def both_rise(row: Row, age: float) -> None:
        row["objective/scores"], row["objective/scores_lower"] = 0.5 + 0.1 * age, 0.2 + 0.1 * age

    assert diagnose(changed(both_rise)) == []


def test_a_lower_bound_that_only_lags_behind_is_no_hacking() -> None:
    """It stays where it is, with the noise of batches, while the score rises."""
    noise = random.Random(1)

    def lags(row: Row, age: float) -> None:
        row["objective/scores"], row["objective/scores_lower"] = 0.5 + 0.1 * age, 0.2 + noise.gauss(0, 0.15)

    assert diagnose(changed(lags)) == []


def test_a_sure_policy_whose_answers_differ_has_not_collapsed() -> None:
    def sure(row: Row, age: float) -> None:
        row["objective/entropy"] = 0.05

    assert diagnose(changed(sure)) == []


def test_reward_hacking_names_the_update_to_stop_at() -> None:
    (found,) = diagnose(changed(hacked))
    best = int(re.findall(r"tune\.updates=(\d+)", found.say)[0])
    assert 18 <= best <= 22, "the lower bound peaked at the change"


def test_kl_is_measured_against_the_runs_own_target() -> None:
    """KL ends at 5 nats: too far for a target of 1, near for one of 4."""
    for target, failures in ((1.0, ["KL blow-up"]), (4.0, [])):
        rows = [{**row, "objective/kl_target": target} for row in healthy()]
        assert [found.failure for found in diagnose(rows)] == failures


def test_long_answers_may_have_more_kl_where_there_is_no_target() -> None:
    """25 nats are far for 40 tokens (customary: 6 nats), not for 300 (0.1 a token: 30)."""

    def at_25_nats(row: Row, age: float) -> None:
        row["objective/kl"] = 25.0

    assert [found.failure for found in diagnose(changed(at_25_nats))] == ["KL blow-up"]
    assert diagnose([{**row, "response/length": 300.0} for row in changed(at_25_nats)]) == []


def test_kl_within_its_standard_error_of_zero_is_not_negative() -> None:
    def near_zero(row: Row, age: float) -> None:
        row["objective/kl"] = -0.5  # three batches pooled: standard error 2 / sqrt(96) = 0.2; three of them are 0.61

    assert diagnose(changed(near_zero)) == []


def test_the_critic_has_time_to_learn() -> None:
    rows = [{**row, "value/explained_variance": -0.5} for row in healthy()]
    assert diagnose(rows[: CRITIC_PATIENCE - 1]) == []
    assert [(found.failure, found.update) for found in diagnose(rows)] == [("dead critic", CRITIC_PATIENCE)]


@pytest.mark.parametrize(("error", "failures"), [(RATIO_TOLERANCE, []), (1.1 * RATIO_TOLERANCE, ["stale ratios"])])
def test_rounding_is_not_a_stale_ratio(error: float, failures: list[str]) -> None:
    rows = [{**row, "policy/first_ratio_error": error} for row in healthy(WINDOW)]
    assert [found.failure for found in diagnose(rows)] == failures


@pytest.mark.parametrize(("gap", "failures"), [(GAP_TOLERANCE, []), (1.1 * GAP_TOLERANCE, ["stale ratios"])])
def test_answers_drawn_from_another_distribution_than_is_learned_from_are_stale(gap: float, failures: list[str]) -> None:
    rows = [{**row, "policy/sampling_gap": gap} for row in healthy(WINDOW)]
    assert [found.failure for found in diagnose(rows)] == failures
    assert diagnose(rows[:-1]) == []  # an estimate is proof only after a few updates


def test_an_update_that_fails_is_never_the_best_however_well_it_scores() -> None:
    """Not even by a failure that comes at once, without a half of the way."""
    rows = healthy(20)
    dropout(rows[9], 0)
    rows[9]["objective/scores_lower"] += 100.0
    assert best_update(rows[:10]) < 10


def test_findings_stand_in_the_order_in_which_they_showed() -> None:
    rows = changed(constant_critic)
    for row in rows[:2]:
        dropout(row, 0)
    assert [found.failure for found in diagnose(rows)] == ["stale ratios", "dead critic"]


def test_remedies_name_settings_that_exist() -> None:
    from truing.policy.algorithms.ppo import PPOSettings

    says = [found.say for change in (hacked, ends_at_once, never_ends, one_answer, far_off, constant_critic) for found in diagnose(changed(change))]
    says += [found.say for found in diagnose([{**row, "objective/kl_target": 0.5} for row in healthy()])]
    named = {name for say in says for name in re.findall(r"tune\.([a-z_]+)", say)}
    assert {"beta", "lr", "critic_warmup", "truncation_penalty", "kl_target_nats", "kl_horizon"} <= named
    assert named <= set(PPOSettings.model_fields)


def test_diagnosis_needs_no_torch() -> None:
    code = "import sys, truing.policy.diagnosis; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- what to stop for, and what to go back to ----


@pytest.mark.parametrize(
    ("failure", "change"),
    [("reward hacking", hacked), ("EOS collapse", ends_at_once), ("length run-away", never_ends)],
)
def test_the_best_update_is_before_a_failure_has_come_half_of_its_way(failure: str, change: Callable[[Row, float], None]) -> None:
    """However high the score of what is failing."""
    rows = changed(change)
    for row in rows[20:]:
        row["objective/scores"] += 5.0
        if failure != "reward hacking":
            row["objective/scores_lower"] += 5.0
    sure = next(end for end in range(1, 61) if fatal(rows[:end]))
    assert 15 <= best_update(rows) < sure
    found = fatal(rows[:sure])
    assert found is not None
    assert (found.failure, found.update) == (failure, sure)


def test_a_healthy_run_is_at_its_best_near_its_end_and_a_short_one_at_its_start() -> None:
    assert best_update(healthy()) > 50
    assert best_update([]) == best_update(healthy()[: WINDOW - 1]) == 0
    assert fatal([]) is None


def test_the_price_of_kl_counts() -> None:
    rows = healthy(20)
    for row in rows:
        row["objective/beta"] = 1.0 if row["update"] > 10 else 0.0
    assert best_update(rows) == 10


def test_a_dead_critic_is_no_reason_to_stop() -> None:
    rows = healthy()
    for row in rows:
        row["value/explained_variance"] = -1.0
    assert [found.failure for found in diagnose(rows)] == ["dead critic"]
    assert fatal(rows) is None
