# `make` alone lists all targets. Everything is kept in .venv and .cache; nothing global changes.

PYTHON ?= python3
BIN := .venv/bin
# The environment is made again when the content of its sources changes, not their dates.
STAMP := .venv/.installed-$(shell cat pyproject.toml requirements/*.txt tools/install.py | cksum | tr ' ' '-')

# Compiled modules are kept, whatever the environment says: without them each start of an engine compiles vLLM, twice.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo demo-console screenshots test test-fast lint format requirements contracts reference sentences docs demo-model eval-demo-model bench-pipeline bench-decisions plan bench-plan bench bench-engine bench-step bench-serving bench-frameworks bench-capacity bench-gpu bench-grouping bench-scale bench-backfill bench-lanes bench-latency bench-takeover bench-console soak fuzz first-hour chart bench-cascade bench-formats bench-reload cost image image-gpu image-reproducible image-check compose-check chart-live sbom audit clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' Makefile

# One expression that old Pythons can read, too.
define CHECK_PYTHON
import sys; v = sys.version_info; v >= (3, 11) or sys.exit("Stream Guard needs Python 3.11 or newer; %s is %d.%d.\nName another, for example: make PYTHON=python3.12" % (sys.executable, v[0], v[1]))
endef

$(STAMP):
	@$(PYTHON) -c '$(CHECK_PYTHON)'
	@$(PYTHON) tools/install.py $(STAMP)

install: $(STAMP) ## make .venv and install everything into it (CPU build)

demo: $(STAMP) ## start a broker and the engine, send posts, show verdicts; ends by itself
	@$(BIN)/python -m stream_guard.cli.demo

demo-console: $(STAMP) ## start a broker, the engine and the console, print its address, and send posts until Ctrl-C
	@$(BIN)/python -m stream_guard.cli.demo.console

# The inner loop, and what needs neither an engine nor a cluster.
INNER_LOOP := tests/unit tests/contract tests/simulation
FAST := $(INNER_LOOP) tests/packaging tests/helm
PYTEST = $(BIN)/python -m pytest --durations=20
WORKERS ?= 2
# One more than processors: tests with a broker wait for its timeouts, most of the time.
INTEGRATION_WORKERS ?= 3

test: lint ## lint, then run all tests, the fast ones first; shows the slowest twenty
	$(PYTEST) $(FAST) --numprocesses $(WORKERS) --dist loadfile
	$(PYTEST) tests/integration --numprocesses $(INTEGRATION_WORKERS)

test-fast: $(STAMP) ## the inner loop: the tests of units, contracts and simulations alone
	$(PYTEST) $(INNER_LOOP) --numprocesses $(WORKERS) --dist loadfile

lint: $(STAMP) ## run ruff, mypy and import-linter only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## let ruff fix and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo-model: $(STAMP) ## train the demo model, measure it, write its card (about two hours on two cores; continues if interrupted)
	@$(BIN)/python -m tools.demo_model make

eval-demo-model: $(STAMP) ## measure the shipped demo model by the product's own path, on held-out policies
	@$(BIN)/python -m tools.demo_model evaluate

bench-pipeline: $(STAMP) ## compare with a bare aiokafka loop: two rates and their ratio
	@$(BIN)/python -m benchmarks.pipeline

bench-decisions: $(STAMP) ## measure what a million decisions of people cost (ARGS="--decisions 100000")
	@$(BIN)/python -m benchmarks.decisions $(ARGS)

plan: $(STAMP) ## plan processes, partitions, GPUs and bytes on paper (ARGS="--posts-per-day 1e9 --policies 40")
	@$(BIN)/python -m benchmarks.plan $(ARGS)

bench-plan: $(STAMP) ## hold the plan's simulation of a rolling update against three real replicas
	@$(BIN)/python -m benchmarks.plan_run $(ARGS)

bench: $(STAMP) ## run all benchmarks that have targets, on an idle machine (ARGS=--quick)
	@$(BIN)/python -m benchmarks $(ARGS)

bench-engine: $(STAMP) ## compare with LLM.generate of vLLM on the same prompts, and on_retry with always (ARGS=--quick)
	@$(BIN)/python -m benchmarks.engine_feed $(ARGS)

bench-step: $(STAMP) ## measure the host's work in a step of vLLM by part, before and after (ARGS="--posts 256 --profile stacks")
	@$(BIN)/python -m benchmarks.step $(ARGS)

bench-serving: $(STAMP) ## compare with consumers of vllm serve on the same cores: posts/s, and latency over load
	@$(BIN)/python -m benchmarks.serving $(ARGS)

bench-frameworks: $(STAMP) ## compare the pipeline alone with a bare loop, FastStream and Arroyo
	@$(BIN)/python -m benchmarks.frameworks $(ARGS)

bench-grouping: $(STAMP) ## measure grouping with 1 to 64 policies: grouped, first come first served, sorted
	@$(BIN)/python -m benchmarks.grouping $(ARGS)

bench-scale: $(STAMP) ## measure 1 to 3 processes, growing counts of records, start-up, and a backlog of duplicates
	@$(BIN)/python -m benchmarks.scale $(ARGS)

bench-backfill: $(STAMP) ## compare a backfill by two actors with classify: posts per core-second (ARGS="--posts 2000")
	@$(BIN)/python -m benchmarks.backfill $(ARGS)

bench-latency: $(STAMP) ## measure p50 and p99 at half load by stage, and the lag of the event loop at saturation
	@$(BIN)/python -m benchmarks.latency $(ARGS)

bench-takeover: $(STAMP) ## measure how soon a new process goes on in exactly once, after a stop and after kill -9
	@$(BIN)/python -m benchmarks.takeover $(ARGS)

bench-console: $(STAMP) ## measure the console's first paint, and how far it is behind 10,000 verdicts a second (ARGS="--seconds 30")
	@$(BIN)/python -m benchmarks.console $(ARGS)

bench-capacity: $(STAMP) ## predict posts/s of an engine from the tokens of a post, and compare with a run
	@$(BIN)/python -m benchmarks.capacity $(ARGS)

bench-gpu: $(STAMP) ## run the benchmarks with an engine on a GPU, in the shapes of gpt-oss-20b
	@$(BIN)/python -m benchmarks.gpu $(ARGS)

cost: $(STAMP) ## count the calls and bytes of a record by stage; no times
	@$(BIN)/python -m benchmarks.cost

bench-lanes: $(STAMP) ## simulate a thousand histories of lanes and tenants, and measure their cost and a real flood (ARGS=--quick)
	@$(BIN)/python -m benchmarks.lanes $(ARGS)

bench-cascade: $(STAMP) ## measure posts/s of each cheap tier on a core, and what each settles of the demo
	@$(BIN)/python -m benchmarks.cascade

bench-formats: $(STAMP) ## measure records/s of each format on a core, and of a stream of 80 % not-posts against a bare loop
	@$(BIN)/python -m benchmarks.formats $(ARGS)

bench-reload: $(STAMP) ## measure how soon an edited policy shows in verdicts, with the real engine
	@$(BIN)/python -m benchmarks.reload

SEEDS ?= 1,2,3
POSTS ?= 100000
FAULTS ?= 100
MODE ?= both
ENGINE ?= scripted
CONSTRAINT ?= always
soak: $(STAMP) ## break a cluster and its consumers, and check that nothing is lost (SEEDS=1,2,3 POSTS= FAULTS= MODE=at_least_once ENGINE=demo CONSTRAINT=on_retry)
	@$(BIN)/python -m tests.soak run --seeds $(SEEDS) --posts $(POSTS) --faults $(FAULTS) --mode $(MODE) --engine $(ENGINE) --constraint $(CONSTRAINT)

SECONDS_EACH ?= 60
fuzz: $(STAMP) ## give broken bytes to every parser of foreign bytes (SECONDS_EACH=600)
	@$(BIN)/python -m tests.fuzz --seconds $(SECONDS_EACH)

first-hour: $(STAMP) ## play the first hour of three users, and print what each step took
	@$(BIN)/python -m tools.first_hour

reference: $(STAMP) ## write docs/reference from the code
	@$(BIN)/python tools/reference.py

sentences: $(STAMP) ## pick sentences at random to read aloud (ARGS="10 --seed 1", --long, --banned)
	@$(BIN)/python -m tools.sentences $(ARGS)

screenshots: $(STAMP) ## take pictures of the console's pages for the guide, into docs/images/console
	@$(BIN)/python -m tools.screenshots

docs: $(STAMP) ## build the documentation into site/; strict
	$(BIN)/mkdocs build --strict

contracts: $(STAMP) ## copy the published schemas to docs/contracts
	@$(BIN)/python tools/contracts.py

sbom: $(STAMP) ## write what is installed to dist/stream-guard.cdx.json (CycloneDX 1.6)
	@mkdir -p dist && $(BIN)/python -I deploy/image/sbom.py > dist/stream-guard.cdx.json
	@echo "dist/stream-guard.cdx.json"

# pip-audit is no dependency: it is installed for one run. Without --strict it ends with 0 if it could look up no package.
audit: $(STAMP) ## ask the Python Packaging Advisory Database about every pinned package (needs pypi.org)
	@$(BIN)/uv tool run pip-audit==2.9.0 --strict --disable-pip --require-hashes -r requirements/cpu.txt -r requirements/torch.txt || { \
		echo "make audit: a package has a known vulnerability, or could not be looked up; see above. The data is on https://pypi.org alone:" \
			"a mirror of packages has none of it. Run the audit on a machine that reaches pypi.org." >&2; exit 1; }

requirements: $(STAMP) ## write requirements/*.txt again (UPGRADE=1: with the newest versions)
	tools/compile_requirements.sh

image: $(STAMP) ## build the CPU image with podman, buildah or docker (CA_CERT= INDEX_URL= PYTHON_IMAGE= BUILD_FLAGS=)
	@$(BIN)/python -m tools.machines.image cpu

image-gpu: $(STAMP) ## build the GPU image (the same variables)
	@$(BIN)/python -m tools.machines.image gpu

image-reproducible: $(STAMP) ## build the CPU image again without a cache, and compare it with the first (the same variables)
	@$(BIN)/python -m tools.machines.image_reproducible

image-check: $(STAMP) ## run the CPU image as a cluster would, and print a table (IMAGE=)
	@$(BIN)/python -m tools.machines.image_check

compose-check: $(STAMP) ## run docker-compose.yml, and print a table (SERVICES="kafka topics stream-guard")
	@$(BIN)/python -m tools.machines.compose_check

chart-live: $(STAMP) ## install, change and break the chart on a cluster, and print a table (KUBECONFIG= BROKER_ADDRESS= IMAGE=)
	@$(BIN)/python -m tools.machines.chart_live

chart: $(STAMP) ## write the chart's schema and README again from settings and values.yaml (needs Go)
	$(BIN)/python tools/chart_schema.py
	go run github.com/norwoodj/helm-docs/cmd/helm-docs@v1.14.2 --chart-search-root helm --sort-values-order file

clean: ## remove the environment, the caches, and what the demo and the soak wrote
	rm -rf .venv .cache build dist bench-output demo-output soak-output .mypy_cache .ruff_cache .pytest_cache .hypothesis
