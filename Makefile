# SPDX-License-Identifier: Apache-2.0
# Copyright the swift-qcow2 authors.

PREFIX ?= /usr/local
RELEASE = swift build -c release -Xswiftc -static-executable -Xlinker -s --scratch-path .build-release

.PHONY: all demo test lint coverage proof-mutants proof-attacks proof-lives power-cuts bench bench-kernels bench-reads fuzz install install-qemu-img-link clean packages packages-build

all:
	swift build

# What the build needs; what the tests need on top.
packages-build:
	@Scripts/install-packages.sh build

packages:
	@Scripts/install-packages.sh build test

demo: packages-build
	@swift build --quiet --product qsnap
	@swift build --quiet --product read-state
	@Scripts/demo.sh .build/debug

test: packages
	swift build --build-tests
	@Scripts/test.sh

lint:
	@Scripts/lint.sh

# What the tests notice of changes that break the library on purpose: COUNT mutants more, all without.
COUNT ?=
proof-mutants: packages
	Scripts/mutants.py $(COUNT)

# Every command on MUTANTS damaged images, and LIVES lives of 200 steps; see CONTRIBUTING.md.
MUTANTS ?= 2000
proof-attacks: packages
	swift build --build-tests
	QCOW2_ATTACKS=$(MUTANTS) Scripts/test.sh --filter AttackTests

LIVES ?= 2000
proof-lives: packages
	swift build --build-tests
	QCOW2_LIVES=$(LIVES) Scripts/test.sh --filter LifeTests

# What a power cut leaves under a real kernel, in STATES states; see Scripts/power-cuts/run.py.
STATES ?= 1500
power-cuts:
	@Scripts/install-packages.sh build test power
	$(RELEASE) --product qsnap
	Scripts/power-cuts/run.py .build-release/release/qsnap $(STATES)

# Line and region coverage per folder.
coverage: packages
	@Scripts/coverage.sh

bench:
	@Scripts/install-packages.sh build test bench
	$(RELEASE) --product qsnap
	@Scripts/bench.sh $(BENCH)

# Reads through a view of IMAGE, beside qemu-io.
bench-reads:
	@Scripts/install-packages.sh build test
	swift build --package-path Benchmarks --scratch-path .build-benchmarks -c release --product reads
	.build-benchmarks/release/reads $(IMAGE)

# The hot loops of the library, beside a copy of memory.
bench-kernels:
	@Scripts/install-packages.sh build bench
	@Scripts/kernels.sh --instructions $(BENCH)

# Fuzzes every target for SECONDS altogether, or those in FUZZ; see Scripts/fuzz.sh.
SECONDS ?= 60
fuzz: packages-build
	@Scripts/fuzz.sh $(SECONDS) $(FUZZ)

install: packages-build
	$(RELEASE) --product qsnap
	install -D -m 755 .build-release/release/qsnap $(DESTDIR)$(PREFIX)/bin/qsnap

# Beside no other qemu-img by default: whoever wants the link puts its folder in front in PATH.
LINKDIR ?= $(PREFIX)/lib/qsnap/bin
install-qemu-img-link:
	install -d $(DESTDIR)$(LINKDIR)
	ln -sf $(PREFIX)/bin/qsnap $(DESTDIR)$(LINKDIR)/qemu-img

clean:
	rm -rf .build .build-release .build-fuzz .build-coverage .build-mutants
