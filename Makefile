# SPDX-License-Identifier: Apache-2.0
# The front door. meson does the building; this installs what it needs and names the usual errands.

BUILD ?= build
DEPS := packaging/install-deps.sh

.DEFAULT_GOAL := help
.PHONY: help run build test bench lint asan clean

help:
	@echo "make run      install what is missing, build, and see culvert at work"
	@echo "make build    install what is missing and build: $(BUILD)/culvert"
	@echo "make test     every test: unit, simulator, in namespaces, sanitizers, lint"
	@echo "make lint     format, clang, clang-tidy, cppcheck, layers, headers"
	@echo "make asan     the tests that run code, under AddressSanitizer and UBSan"
	@echo "make bench    culvert beside slirp4netns, pasta, dnsmasq and plain loopback"
	@echo "make clean    remove what was built"

build:
	@$(DEPS) build
	@test -f $(BUILD)/build.ninja || meson setup $(BUILD) -Dtests=false
	@ninja -C $(BUILD)
	@ln -sfn src/cli/culvert $(BUILD)/culvert

run:
	@$(DEPS) demo
	@$(MAKE) --no-print-directory build
	@examples/demo.sh $(CURDIR)/$(BUILD)/culvert

test:
	@$(DEPS) build test
	@python3 tests/run.py --build $(BUILD)

lint:
	@$(DEPS) build test
	@python3 tests/run.py --build $(BUILD) lint

asan:
	@$(DEPS) build test
	@python3 tests/run.py --build $(BUILD) asan

bench:
	@$(DEPS) bench
	@$(MAKE) --no-print-directory build
	@python3 bench/run.py --build-dir $(CURDIR)/$(BUILD) --culvert $(CURDIR)/$(BUILD)/culvert

clean:
	rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-clang
