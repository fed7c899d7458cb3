"""The managers' half of the studio: the loop, questions, people, quality, data and rounds. One module for each room."""

from fastapi import APIRouter

from truing.studio.manage import adjudicate, browse, home, imports, people, quality, rounds, set_form, sets, tokens, tuning

router = APIRouter(include_in_schema=False)
for room in (home, set_form, sets, imports, people, tokens, adjudicate, quality, browse, rounds, tuning):
    router.include_router(room.router)
