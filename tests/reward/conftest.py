"""What tests of several kinds of reward models share."""

import pytest


@pytest.fixture
def short_audits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The audits read thousands of texts and have tests of their own: here each reads the first few of its templates."""
    from truing.reward.card import audit, red_team

    (forms, against), requests = audit.read_forms(), red_team.read_requests()
    first = {family: sorted({form.template for form in forms if form.family == family})[:3] for family in {form.family for form in forms}}
    few = [form for form in forms if form.template in first[form.family]]
    some = [one for place, one in enumerate(requests) if sum(other[:2] == one[:2] for other in requests[:place]) < 2]
    monkeypatch.setattr(audit, "read_forms", lambda: (few, against))
    monkeypatch.setattr(red_team, "read_requests", lambda: some)
