# The commands of this project. `make` alone lists them.

.PHONY: help setup build run test check
.DEFAULT_GOAL := help

help: ## lists these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' Makefile

setup: ## installs Rust's targets, the Envoys, Prometheus and OpenAI's client, into rustup and .build/
	@sh envoy-test/setup/rust.sh
	@sh envoy-test/setup/envoy.sh
	@sh envoy-test/setup/prometheus.sh
	@sh envoy-test/setup/openai_client.sh

build: ## builds the plugin: target/wasm32-wasip1/release/inference_picker.wasm
	@sh envoy-test/setup/rust.sh
	cargo build --locked --package inference-picker --release --target wasm32-wasip1

run: build ## runs the plugin in a real Envoy and shows what it picks: make run [SERVER=llama.cpp] [ENDPOINTS=ip:port,ip:port]
	@$(if $(ENDPOINTS),,$(if $(filter llama.cpp,$(SERVER)),sh envoy-test/real-llama-cpp/setup.sh))
	@envoy=$$(sh envoy-test/setup/envoy_to_run.sh) && \
	ENVOY_PATH=$$envoy cargo run --locked --package envoy-test --bin run -- \
		$(if $(SERVER),--server $(SERVER)) $(if $(ENDPOINTS),--endpoints $(ENDPOINTS)) $(ARGUMENTS)

.PHONY: top
top: build ## shows pods and models live, in the terminal: make top [ADMIN=http://127.0.0.1:9901]
	@envoy=$$(sh envoy-test/setup/envoy_to_run.sh) && \
	ENVOY_PATH=$$envoy cargo run --locked --quiet --package envoy-test --bin top -- \
		$(if $(ADMIN),--admin $(ADMIN)) $(ARGUMENTS)

test: ## runs every check and test; says what it skipped and why
	@sh envoy-test/setup/test.sh

check: ## formatting, lints and documentation only
	@sh envoy-test/setup/rust.sh
	@sh envoy-test/setup/test.sh formatting lints lints_of_the_plugin documentation

.PHONY: bench
bench: build ## measures what the plugin costs, natively and in Envoy, and writes docs/benchmarks.md: make bench [PARTS=requests]; all takes a quarter of an hour
	@sh envoy-test/setup/envoy.sh
	$(if $(PARTS),,cargo bench --locked --package inference-picker --bench '*' -- --warm-up-time 1 --measurement-time 2)
	cargo build --locked --release --package lock-watch
	cargo run --locked --release --package envoy-test --bin bench -- --write $(PARTS) $(ARGUMENTS)

.PHONY: bench-overload
bench-overload: build ## shows what each class of traffic gets from saturated pods, without and with the gateway's queue
	@sh envoy-test/setup/envoy.sh
	cargo run --locked --release --package envoy-test --bin overload

.PHONY: test-vllm
test-vllm: build ## tests the plugin in front of two real vLLM servers on the CPU; takes 6.3 GB of disk, 4 GB of memory
	@sh envoy-test/setup/envoy.sh
	@sh envoy-test/real-vllm/setup.sh
	cargo test --locked --package envoy-test --test real_servers -- --ignored --nocapture --test-threads 1 vllm::

.PHONY: test-llama-cpp
test-llama-cpp: build ## tests the plugin in front of three real llama.cpp servers on the CPU; builds them once, for 12 minutes
	@sh envoy-test/setup/envoy.sh
	@sh envoy-test/real-llama-cpp/setup.sh
	cargo test --locked --package envoy-test --test real_servers -- --ignored --nocapture --test-threads 1 llama_cpp::

.PHONY: bench-routing
bench-routing: build ## compares picks behind a real Envoy and writes docs/routing-live.md, or measures GATEWAY=url [ENDPOINTS=ip:port,ip:port]
	@sh envoy-test/setup/envoy.sh
	cargo run --locked --release --package envoy-test --bin bench-routing -- \
		$(if $(GATEWAY),--gateway $(GATEWAY) $(if $(ENDPOINTS),--endpoints $(ENDPOINTS)),--write) $(ARGUMENTS)

.PHONY: bench-peers
bench-peers: build ## compares the plugin with other gateways, also the endpoint picker at EPP=path, and writes docs/peers.md; takes twenty minutes
	@sh envoy-test/setup/envoy.sh
	@sh envoy-test/setup/peers.sh
	cargo run --locked --release --package envoy-test --bin bench-peers -- --write $(if $(EPP),--epp $(EPP)) $(ARGUMENTS)
	cargo run --locked --release --package envoy-test --bin bench -- --write $(if $(EPP),--epp $(EPP)) peers

.PHONY: simulate-routing
simulate-routing: ## compares picks in a simulation and writes docs/routing.md; takes an hour or more: ARGUMENTS="--requests 1000 --runs 1" is shorter
	cargo run --locked --release --package envoy-test --bin routing -- --write $(ARGUMENTS)
	cargo run --locked --release --package envoy-test --bin routing -- --objective --write

.PHONY: simulate-disaggregation
simulate-disaggregation: ## simulates disaggregated prefill and writes docs/disaggregation.md; takes some minutes
	cargo run --locked --release --package envoy-test --bin disaggregation -- --write $(ARGUMENTS)

.PHONY: simulate-promises
simulate-promises: ## simulates requests with a promised time to first token and writes docs/promises.md; takes a minute
	cargo run --locked --release --package envoy-test --bin routing -- --promises --write $(ARGUMENTS)

.PHONY: simulate-real-servers
simulate-real-servers: ## replays traces of real vLLM and llama.cpp in the simulation and writes docs/simulated-servers.md: how far off it is; takes a minute
	cargo run --locked --release --package envoy-test --bin routing -- --replay --write

.PHONY: record-real-servers
record-real-servers: ## records what real vLLM and llama.cpp on the CPU make of traffic, into envoy-test/traces; takes a quarter of an hour, on an idle machine
	@sh envoy-test/real-vllm/setup.sh
	@sh envoy-test/real-llama-cpp/setup.sh
	cargo run --locked --release --package envoy-test --bin record-real-servers -- --server vllm --write $(ARGUMENTS)
	cargo run --locked --release --package envoy-test --bin record-real-servers -- --server llama.cpp --write $(ARGUMENTS)

.PHONY: bench-scale
bench-scale: ## simulates large pools and writes docs/scale.md; takes a few minutes
	cargo run --locked --release --package envoy-test --bin scale -- --write

.PHONY: image
image: build ## packs the plugin as an image for Istio and Envoy Gateway: target/image, an OCI layout to push
	@cargo run --locked --quiet --package plugin-image -- \
		$${CARGO_TARGET_DIR:-target}/wasm32-wasip1/release/inference_picker.wasm $${CARGO_TARGET_DIR:-target}/image

.PHONY: image-of-controller
image-of-controller: ## packs the controller for Kubernetes as an image: target/image-of-controller
	@sh istio/image/controller.sh

.PHONY: fuzz
fuzz: ## runs every fuzz target for a minute, or SECONDS=600 TARGETS="request usage"; needs a C++ compiler
	@sh fuzz/run.sh $(or $(SECONDS),60) $(TARGETS)

.PHONY: mutants
mutants: ## mutation testing of the code that decides picks, shows which mutants survive: FILES="src/queue.rs"; all takes hours
	@sh envoy-test/setup/cargo_mutants.sh $(FILES)

.PHONY: release
release: ## makes what a release consists of, from the last commit: target/release-of-VERSION; takes some ten minutes
	@sh envoy-test/setup/rust.sh
	@sh release/release.sh

.PHONY: test-istio
test-istio: build ## tests the deployments for Istio with istiod's own generators, without Kubernetes; needs Go
	@sh envoy-test/setup/envoy.sh
	@sh envoy-test/setup/test.sh istio

.PHONY: bench-faults
bench-faults: build ## injects one fault after another under load, and writes docs/reliability.md; takes three minutes
	@sh envoy-test/setup/envoy.sh
	cargo run --locked --package envoy-test --bin faults -- --write $(ARGUMENTS)

.PHONY: soak
soak: build ## high load with churn for ten minutes, or SECONDS=120: what clients see, what memory Envoy holds, what is left in flight
	@sh envoy-test/setup/envoy.sh
	cargo run --locked --release --package envoy-test --bin soak -- $(if $(SECONDS),--seconds $(SECONDS)) $(ARGUMENTS)

.PHONY: request-path-picture
request-path-picture: ## draws docs/request-path.svg, the path of a request, from docs/request-path.txt
	cargo run --locked --quiet --package envoy-test --bin request-path-picture

.PHONY: dashboard-picture
dashboard-picture: build ## draws docs/dashboard.svg, the dashboard's main panels, from a real run; takes two minutes
	@sh envoy-test/setup/envoy.sh
	@sh envoy-test/setup/prometheus.sh
	cargo run --locked --package envoy-test --bin dashboard-picture

.PHONY: test-kubernetes
test-kubernetes: build ## tests the controller with a real Kubernetes API server, istiod and Envoy, built from source once (10 minutes); needs Go
	@sh controller/api-server/test.sh
