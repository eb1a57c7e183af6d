# One command each; tests/testbed/ holds the scripts. "make help" lists them.
CLUSTERS ?= east west
PROFILE ?= dev-image
export PROFILE
BED := tests/testbed

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: tools
tools: ## kubectl, kind, helm, etcd and Kubernetes' programs, built into the cache
	@$(BED)/prerequisites.sh tools
	@$(BED)/tools.sh
	@$(BED)/prometheus.sh
	@$(BED)/protocol-tools.sh

.PHONY: clusters
clusters: ## real multi-node clusters: CLUSTERS="east west" unless told
	@$(BED)/clusters.sh $(CLUSTERS)

.PHONY: env
env: ## what a shell needs to use them: eval "$(make -s env)"
	@$(BED)/env.sh

.PHONY: images
images: ## the product's images, built and brought to the clusters that are up
	cargo build --profile $(PROFILE) --bins
	@$(BED)/images.sh

.PHONY: test
test: ## every test, fast ones first
	@$(BED)/test.sh $(CLUSTERS)

.PHONY: test-availability
test-availability: clusters images ## what a client sees while parts are restarted, killed and cut off: some 25 min
	LINKSPAN_AVAILABILITY=$${LINKSPAN_AVAILABILITY:-all} LINKSPAN_PREVIOUS_CHARTS=$$($(BED)/previous.sh) \
	  cargo test -p linkspan-tests --profile dev-image --features clusters --test clusters_availability -- --nocapture

.PHONY: bench-mirroring
bench-mirroring: ## the control plane at scale on two API servers, as root, some 15 min; BENCH_ARGS="--mirrors 1000"
	cargo build --release -p linkspan-mirror-controller -p link-cli --bins
	cargo bench -p linkspan-tests --bench mirroring -- $(BENCH_ARGS)

.PHONY: fuzz
fuzz: ## every parser of what others write under libFuzzer, FUZZ_SECONDS=60 each
	@tests/fuzz/run.sh

BENCH_PROFILE ?= release
BENCH_OUT ?= target/bench

.PHONY: bench-programs
bench-programs:
	@tests/bench/peers.sh
	cargo build --profile $(BENCH_PROFILE) -p linkspan-gateway -p linkspan-bench --bins

.PHONY: bench
bench: bench-programs ## CPU, memory and latency beside other proxies, as root, some 25 min; BENCH_ARGS="--help" tells more
	@$(BED)/program.sh $(BENCH_PROFILE) linkspan-bench run --out $(BENCH_OUT) $(BENCH_ARGS)

.PHONY: bench-quick
bench-quick: bench-programs ## our ratios to the floor against tests/bench/baseline.json, in three minutes
	@$(BED)/program.sh $(BENCH_PROFILE) linkspan-bench run --out $(BENCH_OUT) --chains floor,linkspan --rounds 5 \
		--only bulk,keep-alive,new-connection,flow-memory --baseline tests/bench/baseline.json $(BENCH_ARGS)

.PHONY: bench-micro
bench-micro: ## what single decisions cost
	cargo bench -p linkspan-bench --features micro

.PHONY: demo
demo: clusters images ## two linked clusters, and a page in one whose backend is in the other
	@tests/demo/demo.sh

.PHONY: clean
clean: ## the clusters are deleted, the cache stays
	@$(BED)/clean.sh

.PHONY: distclean
distclean: ## the clusters, the images and the cache are deleted
	@$(BED)/clean.sh all
