# rds-csi-operator. `make help` lists the targets.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VERSION ?= 0.1.0-dev
CACHE   := .cache
# The environment's GOFLAGS may fit other projects only.
export GOFLAGS := -mod=readonly
LDFLAGS := -X main.version=$(VERSION)
TOOLS   := test/tools

# The packages of ordinary tests; the lab's own and the end-to-end tests start
# whole control planes and are bounded in how many run at once.
UNIT = $$(go list ./... | grep -vE '/test/(lab|e2e|dataplane|alerts|images|install|olm)(/|$$)')
LAB  = ./test/lab/... ./test/install ./test/e2e/...

.PHONY: help
help: ## Show this help
	@grep -hE '^[a-zA-Z_-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-18s %s\n", $$1, $$2}'

.PHONY: build
build: ## Build the operator and the CSI plugin into bin/
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

.PHONY: demo
demo: lab-binaries ## Watch three live migrations on real control planes (KEEP=1 leaves them running)
	@go run ./test/demo $(if $(KEEP),--keep)

.PHONY: test
test: test-unit test-lab ## Run all tests that need no more than Go and a C compiler

.PHONY: test-unit
test-unit: ## Run the tests that start no control plane, with the race detector
	go test -race -timeout 10m $(UNIT)

.PHONY: test-lab
test-lab: lab-binaries ## Run the tests against real control planes
	@go run ./test/lab/cmd/lab-build cdi
	go test -race -timeout 45m -p 2 $(LAB)

.PHONY: test-latency
test-latency: lab-binaries ## Measure how soon a migration's conditions follow, on a machine that does nothing else
	go test -race ./test/e2e -run '^(TestLatencyAndWrites|TestAMigrationThatHangs)$$' -v -count=1 -timeout 20m -args -bars

STEADY ?= 5m
VMS    ?= 1000
.PHONY: test-scale
test-scale: lab-binaries ## Measure the operator among VMS (1000) VMs: 50 migrations at once, then nothing for STEADY (5m)
	go test ./test/scale -run TestScale -v -count=1 -timeout 60m -args -vms $(VMS) -steady $(STEADY)

SOAK ?= 10m
SEED ?= 0
.PHONY: soak
soak: lab-binaries ## Live through migrations, faults and kills for SOAK (10m), by the plan of SEED (random, printed)
	go test ./test/soak -run TestSoak -v -count=1 -timeout 24h -args -soak $(SOAK) -seed $(SEED)

.PHONY: test-dataplane
test-dataplane: ## Run the tests over real NVMe/TCP in three QEMU guests (installs Debian packages)
	test/dataplane/prerequisites.sh
	CI=true go test -race ./test/dataplane -v -count=1 -timeout 20m

.PHONY: test-alerts
test-alerts: lab-binaries ## Run the alerts by promtool, and by Prometheus and Alertmanager (unpacks Debian packages)
	test/alerts/prerequisites.sh
	go test ./test/alerts -v -count=1 -timeout 10m

CONTAINER_TOOL ?= docker
REGISTRY       ?= git.srvlab.io/whiskey
TAG            ?= dev
.PHONY: images
images: ## Build the images of the operator and the plugin (CONTAINER_TOOL=docker, podman or buildah; REGISTRY, TAG)
	$(CONTAINER_TOOL) build --build-arg VERSION=$(VERSION) --target operator -t $(REGISTRY)/rds-csi-operator:$(TAG) .
	$(CONTAINER_TOOL) build --build-arg VERSION=$(VERSION) --target csi-plugin -t $(REGISTRY)/rds-csi-plugin:$(TAG) .

.PHONY: test-images
test-images: ## Build the images and start them, by buildah and on bases of its own (installs Debian packages, needs root)
	test/images/prerequisites.sh
	go test ./test/images -v -count=1 -timeout 20m

.PHONY: test-olm
test-olm: ## Install, upgrade and remove by the real Operator Lifecycle Manager (5 minutes; builds OLM once)
	@go run ./test/lab/cmd/lab-build olm
	go test ./test/olm -v -count=1 -timeout 15m

.PHONY: lab-binaries
lab-binaries: ## Build etcd, Kubernetes, the CSI sidecars and KubeVirt for the lab, where missing (MORE=cdi olm: those, too)
	@go run ./test/lab/cmd/lab-build $(MORE)

.PHONY: bench
bench: ## Print round trips per RPC and volumes per second against the simulator
	go run ./test/bench

FUZZTIME ?= 1m
.PHONY: fuzz
fuzz: ## Fuzz quoting, tokenizer and decoding, FUZZTIME (1m) each
	@for target in $$(grep -rhoE --include='*_test.go' '^func Fuzz[A-Za-z]+' . | awk '{print $$2}' | sort -u); do \
	  package=$$(grep -rlE --include='*_test.go' "^func $$target\(" . | head -n 1 | xargs dirname); \
	  echo "== $$package $$target"; \
	  go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) "$$package"; \
	done

.PHONY: generate
generate: ## Generate the CRD and the deep copies of its types
	@go -C $(TOOLS)/generate build -o $(CURDIR)/$(CACHE)/controller-gen sigs.k8s.io/controller-tools/cmd/controller-gen
	@$(CACHE)/controller-gen object crd paths=./controllers/driver/v1alpha1 output:crd:dir=config/crd

BUNDLE_IMAGE ?= git.srvlab.io/whiskey/rds-csi-operator-bundle:v$(VERSION)
.PHONY: bundle
bundle: ## Generate the OLM bundle and its catalog from config/olm (RELEASE=1 refuses images without digests)
	cd $(TOOLS)/bundle && go run . -config $(CURDIR)/config -out $(CURDIR)/bundle -version $(VERSION) -image $(BUNDLE_IMAGE) $(if $(RELEASE),-pinned)

.PHONY: verify-bundle
verify-bundle: ## Check that the bundle is fresh, and valid by all of OLM's validators
	cd $(TOOLS)/bundle && go vet . && go test -count=1 .

.PHONY: verify
verify: tidy format vet generate verify-bundle lint clean-tree ## Check that all is tidy, formatted, linted and committed as generated

.PHONY: tidy
tidy: ## Check that go.mod and go.sum are what the code needs
	@go mod tidy -diff

.PHONY: format
format: ## Check the formatting
	@unformatted=$$(git ls-files '*.go' | xargs gofmt -l); \
	  if [ -n "$$unformatted" ]; then echo "run gofmt on:" $$unformatted; exit 1; fi

.PHONY: vet
vet: ## Run go vet
	go vet ./...

LINT = $(CACHE)/lint/golangci-lint-$(shell cat $(TOOLS)/lint/go.sum | cksum | cut -d' ' -f1)
$(LINT):
	@mkdir -p $(CACHE)/lint
	@echo "building the linter (some minutes, once)"
	cd $(TOOLS)/lint && go build -o $(CURDIR)/$(LINT) github.com/golangci/golangci-lint/v2/cmd/golangci-lint

.PHONY: lint
lint: $(LINT) ## Lint, import directions included
	$(LINT) run ./...

.PHONY: clean-tree
clean-tree: ## Check that nothing above changed a tracked file
	@git diff --exit-code --stat

.PHONY: clean
clean: ## Remove what was built
	rm -rf bin $(CACHE)
