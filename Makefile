# The only commands to remember: run, demo, test, check, bench, chaos, clean.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# One worker more than cores, because some tests wait; each has a PostgreSQL of its own. A worker takes neighbouring
# tests, which share fixtures. The contracts are a part of `check`; containers, the documentation's pictures and the short
# forms of chaos take minutes, and are tested by themselves.
PARALLEL = -n $(or $(WORKERS),$(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)) --maxprocesses 8 --dist worksteal \
  --ignore tests/contracts --ignore tests/containers --ignore tests/browser/test_pictures.py \
  --ignore tests/chaos/test_short_figures.py

# A program started a hundred times, as by the tests, is compiled once.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run demo test check manual pictures openapi bench chaos containers sbom lock clean

run: $(VENV)/.runtime  ## start PostgreSQL and the API on 127.0.0.1:8000
	@$(BIN)/vultus serve

demo: $(VENV)/.runtime  ## show everything with drawn people and a drawn camera; nothing of it stays
	@$(BIN)/vultus demo $(ARGS)

test: $(VENV)/.dev  ## run the whole test suite and print what it does not reach, or in one process what ARGS names
	@$(BIN)/python -m pytest $(or $(ARGS),$(PARALLEL) --cov)

check: $(VENV)/.dev  ## style, types, layers, documents
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/deptry src
	@$(BIN)/python -m pytest -q tests/contracts

manual: $(VENV)/.dev  ## build the manual anew, which the server shows at /manual, after a change of docs/
	@$(BIN)/python hatch_build.py

pictures: $(VENV)/.dev  ## take the pictures of README and documents anew, of the demo in Chromium
	@$(BIN)/python -m tools.pictures $(ARGS)

openapi: $(VENV)/.dev  ## write docs/openapi.json and docs/asyncapi.json anew, after a change of the API
	@$(BIN)/python -m tests.snapshot

bench: $(VENV)/.dev  ## answer the questions in benchmarks/
	@$(BIN)/python -m benchmarks $(ARGS)

chaos: $(VENV)/.dev  ## break things on purpose, and print what held (docs/trust.md)
	@$(BIN)/python -m chaos $(ARGS)

containers: $(VENV)/.dev  ## build the image and test it, where Podman and Buildah are
	@$(BIN)/python -m pytest tests/containers

sbom: $(VENV)/.dev  ## write report/sbom.json (CycloneDX) and docs/licences.md
	@$(BIN)/python -m tests.sbom report/sbom.json

lock: $(VENV)/.dev  ## resolve the dependencies of pyproject.toml anew
	@$(BIN)/python -m pip install --quiet uv
	@for kind in runtime dev; do \
	  $(BIN)/uv pip compile pyproject.toml --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
	    --no-annotate --no-strip-extras $$([ $$kind = dev ] && echo --group dev) -o requirements/$$kind.txt; done
	@$(BIN)/uv pip compile --group build --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-annotate --constraint requirements/runtime.txt -o requirements/build.txt

clean:  ## remove the environment and every cache
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.* htmlcov report

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Vultus needs Python 3.11 or newer; set PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.runtime: requirements/runtime.txt requirements/build.txt pyproject.toml | $(VENV)/bin/python
	@echo "Installing Vultus into $(VENV) (about a minute, once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/runtime.txt -r requirements/build.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt pyproject.toml | $(VENV)/bin/python
	@echo "Installing Vultus and its test tools into $(VENV) (about a minute, once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@ $(VENV)/.runtime
