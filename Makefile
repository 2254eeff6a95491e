# `make demo` and `make test` are all that a newcomer needs: each sets up what it uses, on a machine with Python 3.11+.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Where other libraries are installed, to be measured and for their tests.
BENCH := .venv-bench
BENCH_READY := $(BENCH)/.ready

# The frameworks that people train with, for the tests of the hooks: large, and outside `make test`.
FRAMEWORKS := .venv-frameworks
FRAMEWORKS_READY := $(FRAMEWORKS)/.ready

.PHONY: help demo test test-others test-frameworks faults soak fuzz check docs format generate lock serve bench bench-services bench-stats bench-kernels accuracy image-test clean

help:  ## show what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# Everything comes from the lock, with hashes; the project itself is installed in place.
$(READY): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

$(BENCH_READY): benchmarks/requirements.txt pyproject.toml
	test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt --editable '.[server]'
	touch $@

$(FRAMEWORKS_READY): tests/frameworks/requirements.txt pyproject.toml
	test -x $(FRAMEWORKS)/bin/python || $(PYTHON) -m venv $(FRAMEWORKS)
	$(FRAMEWORKS)/bin/python -m pip install --quiet --disable-pip-version-check -r tests/frameworks/requirements.txt --editable '.[server]'
	touch $@

demo: $(READY)  ## train a small network on real digits, every activation computed by the service
	$(BIN)/actserve demo --output out/demo.png

test: $(READY)  ## run the tests
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

fuzz: $(READY)  ## send a million made-up formulas to their parser (an hour)
	$(BIN)/python -m pytest tests/formulas/test_language.py -k whatever --fuzz-examples 1000000 --timeout 14400

faults: $(READY)  ## kill a server fifty times in the middle of 2 GB streams, in every mode (a quarter of an hour)
	$(BIN)/python -m pytest tests/system/test_faults.py --kills 50 --kill-mib 2000 --timeout 7200

soak: $(READY)  ## send 20 GB through one stream, and see that memory does not grow (some minutes)
	$(BIN)/python -m pytest tests/system/test_soak.py -s --soak-gb 20 --timeout 7200

test-others: $(BENCH_READY)  ## run the tests of NumPy, SciPy, ONNX and Keras through the client, and hold penalties to PyTorch's autograd and to Keras
	$(BENCH)/bin/python -m pytest tests/others

test-frameworks: $(FRAMEWORKS_READY)  ## run the tests of the hooks in PyTorch and Keras (installs both)
	KERAS_BACKEND=torch $(FRAMEWORKS)/bin/python -m pytest tests/frameworks

check: $(READY)  ## format, lint, types, import contracts, proto lint, freshness of generated code and page
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/generate.py --check
	$(BIN)/python tools/render_activations.py --check
	$(BIN)/python tools/render_regularization.py --check
	$(BIN)/python tools/generate.py --image build/actserve.binpb
	$(BIN)/buf lint build/actserve.binpb --config protos/buf.yaml

format: $(READY)  ## format the code, and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY)  ## write docs/activations.md with its curves, and docs/regularization.md, from the records
	$(BIN)/python tools/render_activations.py
	$(BIN)/python tools/render_regularization.py

generate: $(READY)  ## write the generated code from the .proto files
	$(BIN)/python tools/generate.py

COMPILE := uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --no-annotate

lock:  ## resolve the dependencies anew (needs uv)
	$(COMPILE) --upgrade --extra server --extra demo --group dev pyproject.toml --output-file requirements.lock
	$(COMPILE) --extra server --constraint requirements.lock pyproject.toml --output-file deploy/requirements-server.lock
	$(COMPILE) --extra demo --constraint requirements.lock pyproject.toml --output-file deploy/requirements-demo.lock

serve: $(READY)  ## run a server on 127.0.0.1:50051
	$(BIN)/actserve serve

bench: $(READY)  ## measure the transport against plain gRPC services, with two streams, and how it overlaps with compute
	$(BIN)/python benchmarks/transport.py

# An environment for each service of others, as they don't agree on what they need.
.venv-peers/%/.ready: benchmarks/peers/services/requirements/%.txt
	test -x .venv-peers/$*/bin/python || $(PYTHON) -m venv .venv-peers/$*
	.venv-peers/$*/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

bench-services: $(READY) $(patsubst benchmarks/peers/services/requirements/%.txt,.venv-peers/%/.ready,$(wildcard benchmarks/peers/services/requirements/*.txt))  ## measure services of others beside ours: Arrow Flight, Triton, Connect, MLServer, Ray Serve (installs them)
	$(BIN)/python benchmarks/services.py

bench-stats: $(READY)  ## measure the neuron statistics against NumPy
	$(BIN)/python benchmarks/stats.py

bench-kernels: $(BENCH_READY)  ## measure the kernels beside NumPy, PyTorch, ONNX Runtime, JAX and numexpr (an hour)
	$(BENCH)/bin/python benchmarks/kernels.py

accuracy: $(BENCH_READY)  ## measure the kernels' errors beside PyTorch, JAX and SciPy, and write docs/accuracy.json
	$(BENCH)/bin/python benchmarks/accuracy.py

image-test:  ## build the image and run it confined, on a Debian machine without a Docker engine; needs root
	deploy/image-test.sh

clean:  ## remove what make made
	rm -rf $(VENV) $(BENCH) $(FRAMEWORKS) .venv-peers build dist out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
