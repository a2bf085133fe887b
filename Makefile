# `make demo` is all a newcomer needs: Python 3.11 or newer, pip and make. `make help` lists the rest.

PYTHON ?= python3
VENV ?= .venv
RESULTS ?= results/quickstart
WORKERS ?= 2
SITE ?= leaderboard/site
DATA ?= $(AFFECTBENCH_DATA)
REAL ?= real

PY := $(VENV)/bin/python
TORCH := $(shell grep '^torch==' constraints.txt)

# Threads that spin while they wait starve each other on a busy machine.
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help demo run site real test check bench install dev clean

help: ## Show this list
	@grep -hE '^[a-z]+:.*## ' Makefile | sed 's/:.*## /\t/' | expand -t 10

demo: run site ## Install, run the quick start, build the site, print the headline of every cell
	@echo
	@COLUMNS=160 $(PY) harness.py table --operating --top 24 $(RESULTS)
	@echo
	@echo "All numbers:  $(PY) harness.py table $(RESULTS)"
	@echo "The site:     $(SITE)/index.html   (opens from disk)"

run: $(VENV)/.installed ## Run the quick start; finished cells are kept
	$(PY) harness.py run quickstart --workers $(WORKERS) --output $(RESULTS)

site: $(VENV)/.installed ## Build the site from the records of the quick start
	$(PY) harness.py leaderboard --results $(RESULTS) --output $(SITE)

real: $(VENV)/.installed ## Train on EmoDB and GoEmotions in DATA=folder, run the ESN suites, build a site; see docs/real.md
	@test -n "$(DATA)" || { echo "say where the corpora are: make real DATA=path/to/data  (docs/real.md)"; exit 2; }
	test -f $(REAL)/models/trained-emodb.yaml || $(PY) harness.py train emodb --data $(DATA) --output $(REAL)
	test -f $(REAL)/models/trained-goemotions.yaml || $(PY) harness.py train goemotions --data $(DATA) --output $(REAL)
	$(PY) harness.py run real-speech --include $(REAL) --data $(DATA) --output $(REAL)/results
	$(PY) harness.py run real-speech-budget --include $(REAL) --data $(DATA) --output $(REAL)/results
	$(PY) harness.py run real-text --include $(REAL) --data $(DATA) --output $(REAL)/results
	$(PY) harness.py run real-text-budget --include $(REAL) --data $(DATA) --output $(REAL)/results
	$(PY) harness.py leaderboard --results $(REAL)/results --output $(REAL)/site

test: $(VENV)/.dev ## Run all tests
	$(PY) -m pytest

check: $(VENV)/.dev ## Lint, formatting, types, and all shipped content
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) harness.py check

bench: $(VENV)/.bench ## Time the engine beside others (about 20 minutes); see benchmarks/README.md
	$(PY) -m benchmarks

install: $(VENV)/.installed ## Install what a run needs
dev: $(VENV)/.dev ## Install what development needs too

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "affectbench needs Python 3.11 or newer; set PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	@# torch first and alone: its version decides how many gigabytes the rest brings along.
	$(PY) -m pip install --quiet -c constraints.txt $(TORCH)
	$(PY) -m pip install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(PY) -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

$(VENV)/.bench: $(VENV)/.installed
	$(PY) -m pip install --quiet -c constraints.txt -e '.[bench]'
	@touch $@

clean: ## Remove the environment, the site and caches; results are kept
	rm -rf $(VENV) $(SITE) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
