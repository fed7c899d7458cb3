"""The numbers of a tuning run that are worth looking at: what each means, what is normal, how it went. Without torch.

What a bound is and where it comes from is said in `diagnosis.py`, which names a failure once it is sure of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from truing.policy.diagnosis import NATS_PER_RESPONSE, NATS_PER_TOKEN
from truing.policy.record import Record

MOST_POINTS = 200  # of a curve; a longer run is drawn as means of neighbouring updates
FORMS = {"signed": "{:+.2f}", "decimal": "{:.2f}", "fine": "{:.3f}", "whole": "{:.0f}", "percent": "{:.0f} %"}

Point = tuple[float, float]  # an update (from 1) and a value


class Figure(NamedTuple):
    """One number over the updates.

    Attributes:
        key: its name in metrics.jsonl.
        name: the same for people.
        unit: of the value; empty for a share.
        form: one of `FORMS`.
        means: what it is, in a sentence.
        normal: what is usual, in a sentence.
        failures: what `diagnosis` names by its help.
        points: at least one.
        now: the newest value.
        target: what the run steers it to, or the bound it should stay under; None where there is none.
        beside: (name, points) of another curve on the same axis.
    """

    key: str
    name: str
    unit: str
    form: str
    means: str
    normal: str
    failures: tuple[str, ...] = ()
    points: Sequence[Point] = ()
    now: float = 0.0
    target: float | None = None
    beside: tuple[str, Sequence[Point]] | None = None

    @property
    def value(self) -> str:
        """The newest value in words, its unit left out."""
        return FORMS[self.form].format(100 * self.now if self.form == "percent" else self.now)


SCORE = Figure(
    "objective/scores", "Score", "standard deviations", "signed",
    "What the reward model says of the answers, on average: 0 is an answer of the base, 1 a standard deviation better.",
    "rises, then flattens. The further KL goes with it, the less the reward model has seen such answers.", ("reward hacking",),
)  # fmt: skip
ONLINE = (
    SCORE,
    Figure(
        "objective/kl", "KL from the base", "nats per response", "decimal",
        "How far the answers have moved from what the base model would say.", "", ("KL blow-up", "negative KL"),
    ),
    Figure(
        "objective/entropy", "Entropy", "nats per token", "decimal",
        "How many ways to go on the policy still keeps open at each token.",
        "falls slowly. Under a tenth of its start, with answers that repeat themselves, the policy has collapsed.", ("mode collapse",),
    ),
    Figure(
        "response/length", "Length", "tokens", "whole",
        "How long an answer is, on average.",
        "moves a little as the score rises. A fall to a quarter says that the reward model likes short answers.", ("EOS collapse", "length run-away"),
    ),
    Figure(
        "response/eos_rate", "Answers that end", "", "percent",
        "The share of answers that came to an end by themselves, before the length limit cut them off.",
        "rises. Falling while answers grow longer, it says that they run away.", ("length run-away",),
    ),
    Figure(
        "response/distinct2", "Variety", "", "percent",
        "The share of pairs of neighbouring tokens that are different, over all answers of an update.",
        "steady, or slightly falling. A fall by a fifth with the entropy near nothing is a collapse.", ("mode collapse",),
    ),
    Figure(
        "policy/clipfrac", "Clip fraction", "", "percent",
        "The share of tokens whose probability moved as far as an update may move it.",
        "up to some 30 %. Above, the steps are too large: lower tune.lr. At 0, the policy hardly moves.",
    ),
    Figure(
        "value/explained_variance", "Explained variance", "", "decimal",
        "How much of the returns the critic foresees: 1 is all, 0 is no better than a constant.",
        "rises above 0 within 20 updates, noisily.", ("dead critic",),
    ),
    Figure("policy/grad_norm", "Gradient norm", "", "decimal", "The length of the gradient before it is cut.", ""),
)  # fmt: skip
DPO = (
    Figure(
        "policy/loss", "Loss", "nats per preference", "fine",
        "How much the policy is surprised by what people preferred, against the base.",
        "starts at ln 2 = 0.693 (tune.loss = sigmoid) and falls, noisily.",
    ),
    Figure(
        "policy/accuracy", "Agreement", "", "percent",
        "The share of a batch's preferences whose preferred response became likelier than the other one, against the base.",
        "rises from about a half. Nearly all of them right, epoch after epoch, is learning by heart.",
    ),
    Figure(
        "policy/margin", "Margin", "nats", "decimal",
        "By how much, in log-odds, the preferred response has moved away from the other one.", "starts at 0 and rises.",
    ),
    Figure(
        "policy/chosen_reward", "Preferred responses", "nats", "signed",
        "How much likelier than under the base the preferred responses are, times beta.",
        "around 0, or slightly falling: the other ones must fall faster. A steep fall says that the policy forgets both; lower tune.lr or raise tune.beta.",
    ),
    Figure(
        "policy/rejected_reward", "Other responses", "nats", "signed",
        "The same for the responses that were not preferred.", "falls, faster than the preferred ones.",
    ),
)  # fmt: skip
SFT = (
    Figure(
        "policy/loss", "Loss", "nats per token", "fine",
        "How much the policy is surprised by each token of the demonstrations.", "falls, then flattens; by steps where a new epoch begins.",
    ),
)  # fmt: skip
Q_LEARNING = Figure(
    "policy/loss", "Loss", "", "fine", "Half the squared distance of what every token was worth from what the slower copy says it should be.",
    "falls, and rises again for a while when the copy is made anew.",
)  # fmt: skip


def figures(record: Record) -> list[Figure]:
    """What is worth drawing of a run, in the order in which to look at it; empty before the first update."""
    found = (_drawn(figure, record) for figure in _wanted(record))
    return [figure for figure in found if figure is not None]


def _wanted(record: Record) -> Iterator[Figure]:
    """The figures of the run's algorithm; where nothing tells which that is, of the numbers that are there."""
    algorithm, newest = record.settings.get("algorithm", ""), record.rows[-1] if record.rows else {}
    norm = _gradient_norm(record.settings)
    if "policy/accuracy" in newest:
        yield from (*DPO, norm)
    elif "objective/scores" not in newest:
        yield from (*SFT, norm)
    else:
        for figure in ONLINE:
            if figure.key == "objective/kl":
                yield _kl(figure, record)
            elif figure.key == "policy/grad_norm":
                yield norm
            elif figure.key == "policy/clipfrac" and algorithm == "q-learning":
                yield Q_LEARNING  # which has no ratio that could be clipped
            else:
                yield figure
            if figure is SCORE:
                yield from _objectives(newest)


def _objectives(newest: Mapping[str, float]) -> Iterator[Figure]:
    """The score of each objective, where the reward is made of several."""
    for key in sorted(newest):
        name = key.removeprefix("objective/scores/")
        if name != key:
            yield SCORE._replace(key=key, name=f"Score: {name}", means=f"What the objective “{name}” says of the answers, on average.", failures=())


def _kl(figure: Figure, record: Record) -> Figure:
    newest = record.rows[-1]
    target, beta = newest.get("objective/kl_target"), newest.get("objective/beta", record.settings.get("beta"))
    if target is not None:
        follows = f": beta follows, {beta:.3f} now" if beta is not None else ""
        return figure._replace(normal=f"comes near its target of {target:g}{follows}. Three times the target is a blow-up.", target=target)
    priced = f" A nat costs {beta:g} of the score (beta, fixed)." if beta is not None else ""
    customary = max(NATS_PER_RESPONSE, NATS_PER_TOKEN * newest.get("response/length", 0.0))
    return figure._replace(normal=f"rises from 0 to a few nats.{priced} Over {3 * customary:.0f} is a blow-up.")


def _gradient_norm(settings: Mapping[str, Any]) -> Figure:
    cut = settings.get("grad_clip")
    at = f" What is beyond tune.grad_clip = {cut:g} is cut." if cut is not None else ""
    return ONLINE[-1]._replace(normal=f"about steady. A jump tells of an odd batch, a lasting rise of too large steps.{at}")


def _drawn(figure: Figure, record: Record) -> Figure | None:
    points = _points(record.rows, figure.key)
    if not points:
        return None
    lower = _points(record.rows, "objective/scores_lower") if figure is SCORE else []
    now = next(row[figure.key] for row in reversed(record.rows) if figure.key in row)
    return figure._replace(points=points, now=now, beside=("the ensemble's lower bound", lower) if lower else None)


def _points(rows: Sequence[Mapping[str, float]], key: str) -> list[Point]:
    """A number over the updates: as it was logged, or, of a long run, means of neighbouring updates at the last of them."""
    points = [(row["update"], row[key]) for row in rows if key in row]
    step = -(-len(points) // MOST_POINTS)
    if step <= 1:
        return points
    groups = [points[max(0, end - step) : end] for end in range(len(points), 0, -step)][::-1]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]
