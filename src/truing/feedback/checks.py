"""Check questions for pairs: the right answer is known by construction, whatever one's taste."""

import random
import re

from sqlalchemy import select
from sqlalchemy.orm import Session

from truing.feedback.pairs import Ask
from truing.store.clock import now
from truing.store.ids import content_id, seed_from
from truing.store.tables import Prompt, Sample

CHECK_AUTHOR = "check"  # who wrote the damaged response of a check question
LEAST_CHECK_WORDS = 8  # a shorter response is too little for a check question


def check_questions(session: Session, batch: str, round_id: int | None, seed: int, n: int) -> list[Ask]:
    """At most n check questions: a whole response to the prompt against half a response to another prompt.

    The damaged half is a sample of its own, by author "check", in a batch of its own.
    """
    draw = random.Random(seed_from("gold", batch, seed))
    check_batch = f"{CHECK_AUTHOR}:{content_id(batch, round_id, seed)}"
    found = session.execute(select(Sample, Prompt.text).join(Prompt).where(Sample.batch == batch).order_by(Prompt.id, Sample.position)).all()
    rows = draw.sample(found, len(found))
    long_enough = [sample for sample, _ in rows if len(sample.text.split()) >= LEAST_CHECK_WORDS]
    soundness = {sample.id: _soundness(sample, prompt) for sample, prompt in rows}
    whole: dict[str, Sample] = {}
    for sample in sorted(long_enough, key=lambda sample: -soundness[sample.id]):  # stable: the order is drawn but for soundness
        whole.setdefault(sample.prompt_id, sample)
    asks = []
    for good in list(whole.values())[:n]:
        others = [sample for sample in long_enough if sample.prompt_id != good.prompt_id]
        if not others:
            break
        bad = _half(draw.choice(others), good.prompt_id, check_batch)
        better = draw.getrandbits(1)
        asks.append(Ask((bad, good) if better else (good, bad), "gold", {"better": better}))
    return asks


def _soundness(sample: Sample, prompt_text: str) -> int:
    """0 to 4: how plainly a response is a whole answer to its prompt. Check questions are built on the soundest, so that nobody honest fails them."""
    asked, said = (set(re.findall(r"\w{4,}", text.lower())) for text in (prompt_text, sample.text))
    ends_well = re.search(r"[.!?][\"'”’]?$", sample.text.strip()) is not None
    answers = not re.search(r"\b(?:ai|smollm|chatbot|assist|help|here for you|i'm sorry)\b|\n", sample.text.strip().lower())
    return 2 * (sample.finished and ends_well) + bool(asked & said and len(said - asked) >= 4) + answers


def _half(sample: Sample, prompt_id: str, batch: str) -> Sample:
    """The first half of a response, put under another prompt."""
    words = sample.text.split()
    return Sample(
        id=content_id("sample", prompt_id, batch, 0), prompt_id=prompt_id, policy_id=None, author=CHECK_AUTHOR, batch=batch, position=0,
        text=" ".join(words[: len(words) // 2]), token_ids=None, logprobs=None, finished=False, temperature=None, seed=None, base_logprob=None,
        created_at=now(),
    )  # fmt: skip
