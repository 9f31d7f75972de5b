# make demo: run the default study. make test: check everything. Both set up .venv first, from PyPI alone.
PYTHON ?= python3.11
BIN := .venv/bin
CORES ?= $(shell getconf _NPROCESSORS_ONLN)
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo check test test-real-size golden lint types docs bench soak zoo clean

demo: .venv/ready
	snakemake --cores $(CORES)
	@echo "Open results/mini/summary.html: the findings, with figures and links to all tables."

check: lint # and the tests that start no whole programs: three minutes on two cores
	python -m pytest -n $(CORES) --dist loadfile -m "not slow"

test: lint docs # two at a time, for many run whole studies; those on a cluster alone
	export LOSSMAP_FINISHED=$$(mktemp -d) && trap 'rm -rf "$$LOSSMAP_FINISHED"' EXIT \
	  && python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slurm and not real_size" \
	  && python -m pytest -m slurm tests/test_slurm.py

test-real-size: .venv/ready # vision sides of published models, random: hours of a core, 8 GB; writes results/real-size.csv
	python -m pytest -m real_size tests/test_real_size.py

golden: .venv/ready # records what costly products hold, where a version was raised or a family is new
	python tests/golden_values.py

lint: .venv/ready types
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile rules
	snakemake --lint

types: .venv/ready # of the package; strictly, of what a user calls
	mypy

docs: .venv/ready # the documentation as a site, in site/; a link that leads nowhere is an error
	NO_MKDOCS_2_WARNING=1 python -m mkdocs build --strict --quiet

bench: .venv/ready
	python tests/bench/run.py

soak: .venv/ready # kills a study again and again, fills its disk, and compares every byte; as root, half an hour
	python tests/soak/run.py

zoo: zoo-llava zoo-idefics2 zoo-qwen2_5_vl zoo-internvl # trains the miniature models anew, on one core each (make -j2 zoo: two at once)

zoo-%: .venv/ready # a killed training continues
	python -m lossmap train_zoo --model $* --folder workflow/zoo/$* --work results/zoo/$*

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "The pinned versions are for Python 3.11: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

clean: # results of every study, and the site; .venv stays
	rm -rf results/*/ .snakemake site
