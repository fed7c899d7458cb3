"""Every format of judgements, by the name that `--format` takes. `guess` tries them in this order.

A format is a small module of pure functions: rows in, records out (record.py), and back.
"""

from truing.feedback.formats.arena import ARENA
from truing.feedback.formats.argilla import ARGILLA
from truing.feedback.formats.helpsteer import HELPSTEER
from truing.feedback.formats.label_studio import LABEL_STUDIO
from truing.feedback.formats.oasst import OASST
from truing.feedback.formats.openai import SUMMARIES, WEBGPT
from truing.feedback.formats.pairs import HH, TRL
from truing.feedback.formats.record import Format
from truing.feedback.formats.research import FINEGRAINED, LLMFAO
from truing.feedback.formats.tables import CROWD_KIT, MTURK, TABLE, TOLOKA
from truing.feedback.formats.ultrafeedback import ULTRAFEEDBACK
from truing.feedback.formats.unpaired import HALUEVAL, UNPAIRED

RECORD_FORMATS: dict[str, Format] = {
    "hh-rlhf": HH,
    "trl": TRL,
    "trl-unpaired": UNPAIRED,
    "summarize-from-feedback": SUMMARIES,
    "webgpt": WEBGPT,
    "helpsteer": HELPSTEER,
    "ultrafeedback": ULTRAFEEDBACK,
    "oasst": OASST,
    "arena": ARENA,
    "label-studio": LABEL_STUDIO,
    "argilla": ARGILLA,
    "mturk": MTURK,
    "toloka": TOLOKA,
    "llmfao": LLMFAO,
    "finegrained-rlhf": FINEGRAINED,
    "halueval": HALUEVAL,
    "crowd-kit": CROWD_KIT,
    "table": TABLE,
}
