# Two commands set everything up on a fresh machine: `make demo` and `make test`.
# PYTHON chooses the interpreter, VENV the folder of the virtual environment, WEIGHTS (for the demo) a folder of real
# weights, ARGS further arguments for the demo, pytest or the benchmarks (their names), FULL=1 longer benchmarks,
# PROCESSES how many run the tests.

PYTHON ?= python3
VENV ?= .venv
WEIGHTS ?=
ARGS ?=
FULL ?=
PROCESSES ?= 2
BIN := $(VENV)/bin
# Progress for a person, silence for a log.
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input $(if $(shell test -t 2 && echo terminal),,--quiet)

.PHONY: help demo test chaos bench images label-studio lint format docs site clean

help:
	@echo "make demo    score drawn scenes end to end, with a Redis, an S3 server and a worker of its own"
	@echo "make test    run all tests (ARGS='-k name' for some)"
	@echo "make chaos   kill, cut off and fill what the service stands on, for long and with the default settings"
	@echo "make bench   measure it on this machine, a few minutes (FULL=1 longer; ARGS='crops service' for some)"
	@echo "make images  build the container images without a daemon, and score a job in them (as root, on Debian)"
	@echo "make label-studio  send a review through a real Label Studio (some 1 GB of packages; ARGS='--venv DIR' for one that is there)"
	@echo "make lint    ruff, mypy, import contracts and hadolint"
	@echo "make format  let ruff rewrite what it can"
	@echo "make docs    write the generated parts of the documentation"
	@echo "make site    build the documentation as a site in build/site"
	@echo "make clean   remove the virtual environment and build products"

# What `make test` has installed is enough for the demo.
demo: $(firstword $(wildcard $(VENV)/.installed-dev) $(VENV)/.installed-demo)
	@$(BIN)/python -m maskscore_worker.demo $(if $(WEIGHTS),--weights $(WEIGHTS)) $(ARGS)

# In two processes, each with services of its own (PROCESSES=0: in one). What takes longest comes first.
test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n $(PROCESSES) --no-loadscope-reorder $(ARGS)

# The short profile of these is a part of `make test`.
chaos: $(VENV)/.installed-dev
	MASKSCORE_CHAOS=long $(BIN)/python -m pytest tests/chaos -s $(ARGS)

# Only the benchmark `peers` needs infinity.
bench: $(VENV)/.installed-bench $(if $(ARGS),$(if $(findstring peers,$(ARGS)),$(VENV)-infinity/.installed),$(VENV)-infinity/.installed)
	@PYTHONPATH=tests $(BIN)/python -m bench $(if $(FULL),--full) $(ARGS)

# Wants buildah and debootstrap; ARGS='--base IMAGE' and others: see tests/images/build.py.
images: $(VENV)/.installed-dev
	PYTHONPATH=tests $(BIN)/python -m images.build $(ARGS)

# In build/, with a virtual environment of its own; LABEL_STUDIO_VENV or ARGS='--venv DIR' name another.
label-studio: $(VENV)/.installed-dev
	PYTHONPATH=tests $(BIN)/python -m label_studio_round_trip $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/*.Dockerfile

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed-dev
	$(BIN)/maskscore settings --markdown > docs/reference/settings.md
	$(BIN)/python -c 'import sys, yaml; yaml.safe_dump(yaml.safe_load(sys.stdin)["spec"], sys.stdout, sort_keys=False)' \
		< deploy/components/monitoring/alerts.yaml > docker/prometheus/alerts.yaml
	$(BIN)/maskscore metrics --markdown > docs/reference/metrics.md
	$(BIN)/python -c 'from maskscore.codes import codes_markdown; print(codes_markdown(), end="")' > docs/reference/codes.md
	PYTHONPATH=tests $(BIN)/python -m licences > docs/reference/licences.md

site: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) $(VENV)-infinity build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

# One stamp per extra: a second run installs nothing and needs no network.
$(VENV)/.installed-%: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "maskscore needs Python 3.11 or newer; this is $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing maskscore[$*] into $(VENV); the first time this fetches PyTorch and takes some minutes ..."
	@$(PIP) install --constraint constraints.txt --editable '.[$*]'
	@touch $@

# infinity, which the benchmarks compare with, wants older libraries than maskscore's. So it has an environment of its
# own, which finds PyTorch in the first one. Without it the benchmarks go on.
$(VENV)-infinity/.installed: | $(VENV)/.installed-bench
	@echo "Installing infinity into $(VENV)-infinity, to compare with ..."
	@$(BIN)/python -m venv $(VENV)-infinity
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> $$($(VENV)-infinity/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/zz-maskscore.pth
	@$(VENV)-infinity/bin/python -m pip --disable-pip-version-check --no-input --quiet install \
		'infinity-emb[torch,server,vision]>=0.0.77' aiohttp 2>/dev/null && touch $@ \
		|| { rm -rf $(VENV)-infinity; echo "infinity cannot be installed here; going on without it."; }
