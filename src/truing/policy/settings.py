"""What every algorithm can be told. An algorithm's own settings stand in its module and add to these."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from truing.config import Settings
from truing.policy.kl import MAX_ERROR
from truing.policy.losses import Average


class TuneSettings(Settings):
    """Tuning the policy. Defaults are for LoRA on a small model; docs/tune.md says why each."""

    UNUSED: ClassVar[tuple[str, ...]] = ()  # what an algorithm makes no use of: setting it is a mistake

    algorithm: Literal["ppo", "reinforce", "rloo", "grpo", "best-of-n", "q-learning", "dpo", "sft"] = Field(
        "ppo",
        description="from answers of its own that a reward model scores: ppo (learned value head), reinforce (a plain baseline), rloo and grpo (siblings as "
        "baseline), best-of-n (the best sibling), q-learning (again and again, by a slower copy). From what people said, without a reward model: dpo "
        "(preferences), sft (demonstrations and edits)",
    )
    weights: Literal["lora", "full"] = Field(
        "lora", description="what is learned: lora, a low-rank adapter; full, every weight of these layers, in fp32, with a learning rate of 1e-6 to 1e-5"
    )
    lr: float = Field(3e-4, gt=0, description="learning rate at the start; falls linearly to 0 (LoRA: 1e-5 to 5e-4)")
    rank: int = Field(16, ge=1, description="rank of the LoRA adapter")
    layers: Literal["all", "top-half"] = Field("all", description="which transformer layers are learned; all, with full, is the embeddings too")
    grad_clip: float = Field(1.0, gt=0, description="largest gradient norm of an optimiser step")
    tracker: Literal["tensorboard", "wandb", "trackio"] | None = Field(  # excluded: who is told shapes no policy, so that it is in none's inputs
        None, exclude=True, description="who is told of every update beside the project itself: tensorboard, wandb, trackio, or none"
    )


class OnlineSettings(TuneSettings):
    """Learning from answers of its own."""

    unfit: bool = Field(False, description="tune even against a reward model whose card says that it is not fit")
    watch: bool = Field(False, description="stop once a named failure is certain, and keep the policy of the best update before it")
    updates: int = Field(20, ge=1, description="how often new answers are drawn and learned from")
    samples: int = Field(32, ge=2, description="answers drawn for an update")
    group_size: int = Field(4, ge=1, description="answers drawn for each prompt; samples must be a multiple")
    epochs: int = Field(2, ge=1, description="passes over an update's answers")
    minibatches: int = Field(1, ge=1, description="optimiser steps in an epoch")
    microbatch: int = Field(8, ge=1, description="answers that are learned from at a time; changes speed and memory, not the result")
    clip: float = Field(0.2, gt=0, description="half-width of the trusted probability ratio")
    clip_high: float | None = Field(None, gt=0, description="the same above 1, where unlikely tokens become likely; none = clip")
    average: Average = Field(
        "tokens", description="whose mean a loss is: tokens (all weigh alike), responses (all weigh alike), or constant (a token weighs 1 / the length limit)"
    )
    entropy_weight: float = Field(0.0, ge=0, description="weight of the entropy, nats per token, that is maximised beside")
    beta: float = Field(0.05, ge=0, description="price of a nat of KL from the base, in units of the normalised score")
    kl_target_nats: float | None = Field(None, gt=0, description="KL per response that an adaptive beta steers to; none = beta stays fixed")
    kl_horizon: int = Field(10_000, ge=1, description="episodes over which an adaptive beta moves")
    score: Literal["mean", "lower", "worst"] = Field(
        "mean", description="what the reward ensemble says: its mean, the mean less a standard deviation over its members, or its worst member"
    )
    at_least: dict[str, float] = Field(
        {}, description="objectives of a combined reward model and the mean that each must keep, in its normalised unit; their prices are learned"
    )
    at_least_lr: float = Field(0.1, gt=0, description="how fast such a price rises, each update, for a unit that its objective is short")
    at_least_price: float = Field(1.0, ge=0, description="what such a price is at the start")
    truncation: Literal["set", "subtract", "keep"] = Field("set", description="score of a cut-off answer: set to -penalty, less the penalty, or kept")
    truncation_penalty: float = Field(1.0, ge=0, description="that penalty, in standard deviations of the reward")
    score_clip: float = Field(10.0, gt=0, description="normalised scores are held within plus or minus this; hits are counted")
    max_kl_old: float = Field(0.2, gt=0, description="an update stops early once KL(old || new) passes this, nats per token")

    @model_validator(mode="after")
    def _whole_groups(self) -> "OnlineSettings":
        if self.samples % self.group_size:
            raise ValueError(f"samples = {self.samples} is not a multiple of group_size = {self.group_size}")
        if self.minibatches > self.samples:
            raise ValueError(f"minibatches = {self.minibatches} is more than samples = {self.samples}")
        return self

    @model_validator(mode="after")
    def _beta_can_follow(self) -> "OnlineSettings":
        if self.kl_target_nats is None:
            return self
        if self.beta == 0:
            raise ValueError("an adaptive beta (kl_target_nats) can't start from beta = 0, where it would stay")
        if self.samples * MAX_ERROR >= self.kl_horizon:
            raise ValueError(f"samples = {self.samples} are too many for kl_horizon = {self.kl_horizon}: an update could bring beta to 0")
        return self

    @model_validator(mode="after")
    def _nothing_without_use(self) -> "OnlineSettings":
        for name in self.UNUSED:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} = {getattr(self, name)} does nothing under {self.algorithm}: leave it at {type(self).model_fields[name].default}")
        return self


class OfflineSettings(TuneSettings):
    """Learning from a fixed set of examples."""

    epochs: int = Field(1, ge=1, description="passes over the examples")
    batch: int = Field(16, ge=1, description="examples in an optimiser step, more where a prompt has more")
    row_tokens: int = Field(1024, ge=1, description="tokens in memory at a time; changes speed and memory, not the result")
    max_tokens: int = Field(512, ge=2, description="an example whose prompt and response are longer together is left out, and counted")
