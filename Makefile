# make run      install into .venv, run the default study, print its leaderboard
# make quick    install into .venv, run the tests that are not slow: in a few minutes, without network
# make test     install into .venv, run all tests
# make install  the set-up alone, with the versions of constraints.txt
# make check    what the continuous integration checks besides the tests
# make docs     the documentation as a site, build/site; broken links fail
# make constraints   write constraints.txt anew from the newest releases
# make browser  chromium from Debian's archive (needs root), for the tests of a study's page
# make latex    pdflatex from Debian's archive (needs root), for the tests of tables in a paper
# make slurm    Slurm from Debian's archive (needs root), and the tests of a study on a real one, which no other target runs
# make data     Fashion-MNIST from Debian's archive (needs root), for studies/fashion.yaml

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
# faiss comes in two exclusive extras; nothing needs faiss-gpu, which is of one version of CUDA and of x86-64 alone.
FAISS ?= cpu
BIN := .venv/bin

.PHONY: run quick test install check docs constraints browser latex slurm data

run: .venv/runs
	PYTHONDONTWRITEBYTECODE= $(BIN)/oodbench run benchmark.yaml --workers auto

# Compiled files are kept, whatever the shell says: two workers and every command that a test starts read them.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2

quick: install
	$(PYTEST) -m 'not slow'

test: install
	$(PYTEST)

install: .venv/installed

.venv/installed: .venv/runs
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[$(FAISS),dev,docs]'
	touch $@

# Python compiles what it imports; pip would compile everything, which takes a minute.
.venv/runs: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed; say which: make PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[$(FAISS)]'
	touch $@

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(MAKE) docs

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --config-file docs/site/mkdocs.yml

constraints:
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet -e '.[cpu,dev,docs]'
	{ sed '/^$$/q' constraints.txt; $(BIN)/python -m pip list --format=freeze --exclude-editable | \
		grep -vE '^(pip|torch|torchvision|triton|nvidia-.*|cuda-.*)=='; } > constraints.new
	mv constraints.new constraints.txt

browser:
	command -v chromium chromium-browser google-chrome >/dev/null || \
		{ apt-get update && apt-get install -y --no-install-recommends chromium fonts-dejavu-core; }

latex:
	command -v pdflatex >/dev/null && kpsewhich booktabs.sty >/dev/null || \
		{ apt-get update && apt-get install -y --no-install-recommends texlive-latex-base texlive-latex-recommended; }

slurm: install
	{ command -v slurmctld && command -v slurmd && command -v munged && command -v srun; } >/dev/null || \
		{ apt-get update && apt-get install -y --no-install-recommends \
			slurmctld slurmd slurm-client munge slurm-wlm-basic-plugins; }
	OODBENCH_SLURM=1 $(PYTEST) -n 1 -m slurm

data:
	test -f /usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz || \
		{ apt-get update && apt-get install -y dataset-fashion-mnist; }
