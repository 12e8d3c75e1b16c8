# Everything is built in build/.
#
#   make              build/igpt, the tool, and the examples
#   make test         all tests; installs Debian's libstb-dev where it is missing, if it may
#   make demo         the main job, on CIFAR-10 if it can be had, in five minutes
#   make bench        how fast it is here; make bench-peers: beside what one would use instead
#   make sanitize     the C tests under the address and undefined-behaviour sanitizers
#   make tsan         those with threads under the thread sanitizer
#   make test-clang   the C tests, compiled by clang
#   make matrix       compilers, dialects and build macros, all of them (make test has a quick part)
#   make clean
#
# V=1 shows commands and the output of every test; CC, CFLAGS and B (the folder) can be given.

CC      ?= cc
CFLAGS   = -O2
WARN     = -Wall -Wextra -Wpedantic -Wshadow -Wconversion
B        = build
Q        = $(if $(V),,@)

EXAMPLES = $(patsubst examples/%.c,%,$(wildcard examples/0*.c))
TESTS    = $(patsubst tests/%.c,%,$(wildcard tests/*.c))
BENCHES  = $(patsubst bench/%.c,%,$(wildcard bench/*.c))
SCRIPTS  = tool fetch examples docs compile
SHARED   = $(wildcard examples/*.h)

# What reads pictures needs the stb headers.
NEED_STB = tool fetch docs $(shell grep -l '"\(image\|dataset\|plot\)\.h"\|examples/.*\.h"' \
             tests/*.c 2>/dev/null | sed 's,tests/\(.*\)\.c,\1,')
STB     := $(shell CC="$(CC)" sh tests/need.sh check && echo yes)

# As many jobs as processors, unless make was told how many.
JOBS     = $(if $(findstring -j,$(MAKEFLAGS)),,-j$(shell nproc 2>/dev/null || echo 2))
AGAIN    = $(MAKE) --no-print-directory CC="$(CC)" CFLAGS="$(CFLAGS)" B="$(B)"

all: $(if $(STB),$(B)/igpt,no-stb) $(EXAMPLES:%=$(B)/%)

no-stb:
	@echo "build/igpt needs stb_image.h: apt-get install libstb-dev (make test and make demo do it)"

$(B)/igpt $(B)/fetch_cifar10: $(B)/%: examples/%.c igpt.h $(SHARED)
	@mkdir -p $(@D)
	$(if $(V),,@echo "  $(CC) $@")
	$(Q)$(CC) -std=c99 $(CFLAGS) $(WARN) -I. -o $@ $< -lm -pthread

# As the first line of each example says, but for the place of the program and the warnings.
$(EXAMPLES:%=$(B)/%): $(B)/%: examples/%.c igpt.h
	@mkdir -p $(@D)
	$(if $(V),,@echo "  $(CC) $@")
	$(Q)$(CC) $(CFLAGS) $(WARN) -I. -o $@ $< -lm -pthread

$(TESTS:%=$(B)/tests/%): $(B)/tests/%: tests/%.c igpt.h $(SHARED) \
  $(wildcard tests/*.h tests/fixtures/*.h)
	@mkdir -p $(@D)
	$(Q)$(CC) -std=c99 $(CFLAGS) $(WARN) -Werror -I. -o $@ $< -lm -pthread

$(BENCHES:%=$(B)/bench/%): $(B)/bench/%: bench/%.c igpt.h $(wildcard bench/*.h)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -I. -o $@ $< -lm -pthread

# ---- tests: a target a program; each leaves its numbers in $(B)/results --------------------------

RUN      = $(Q)CC="$(CC)" V="$(V)" sh tests/run.sh
UNITS    = $(TESTS) $(SCRIPTS)
SKIPPED  = $(if $(STB),,$(filter $(NEED_STB),$(UNITS)))
RUNNING  = $(filter-out $(SKIPPED),$(UNITS))

$(SKIPPED:%=run-%): run-%:
	$(RUN) skip $(B)/results/$* "needs stb_image.h, which is not installed"

$(patsubst %,run-%,$(filter $(TESTS),$(RUNNING))): run-%: $(B)/tests/%
	$(RUN) one $(B)/results/$* $<

$(patsubst %,run-%,$(filter tool docs,$(RUNNING))): run-%: $(B)/igpt
	$(RUN) one $(B)/results/$* sh tests/$*.sh $(B)/igpt
$(patsubst %,run-%,$(filter fetch,$(RUNNING))): $(B)/tests/dataset
	$(RUN) one $(B)/results/fetch sh tests/fetch.sh $(B)/tests/dataset
$(patsubst %,run-%,$(filter examples,$(RUNNING))): $(EXAMPLES:%=$(B)/%)
	$(RUN) one $(B)/results/examples sh tests/examples.sh $(B)
$(patsubst %,run-%,$(filter compile,$(RUNNING))):
	$(RUN) one $(B)/results/compile sh tests/compile/matrix.sh quick $(B)/compile

test: need
	@rm -rf $(B)/results && mkdir -p $(B)/results $(B)/tests
	@$(AGAIN) -k $(JOBS) $(UNITS:%=run-%) || :
	@sh tests/run.sh sum $(B)/results $(UNITS)

ctest: need
	@rm -rf $(B)/results && mkdir -p $(B)/results $(B)/tests build/tests
	@$(AGAIN) -k $(JOBS) $(TESTS:%=run-%) || :
	@sh tests/run.sh sum $(B)/results $(TESTS)

need:
	@CC="$(CC)" sh tests/need.sh || echo "the tests that need it are skipped"

test-clang:
	@$(MAKE) --no-print-directory ctest CC=clang B=build/clang

sanitize:
	@$(MAKE) --no-print-directory ctest B=build/sanitize \
	  CFLAGS="-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all"

tsan:
	@$(MAKE) --no-print-directory ctest B=build/tsan TESTS="$(WITH_THREADS)" \
	  CFLAGS="-O1 -g -fsanitize=thread"
WITH_THREADS = threads network

matrix:
	@CC="$(CC)" sh tests/compile/matrix.sh all $(B)/compile

# ---- the rest ------------------------------------------------------------------------------------

demo:
	@start=$$(date +%s) && CC="$(CC)" sh tests/need.sh && $(AGAIN) $(B)/igpt && \
	  DEMO_START=$$start sh examples/demo.sh $(B)/igpt

bench: $(BENCHES:%=$(B)/bench/%)
	@for program in $^; do echo "== $$program"; $$program || exit 1; done

# The same work by PyTorch and scikit-learn, in one run beside ours.
bench-peers: $(B)/bench/train $(B)/bench/palette_probe
	@python3 -c "import torch, sklearn" || \
	  { echo "bench-peers needs python3 with torch and scikit-learn (pip install)"; exit 1; }
	@mkdir -p $(B)/peers
	$(B)/bench/train 7 -1 "python3 bench/peers/torch_step.py"
	$(B)/bench/palette_probe --dump $(B)/peers --peer "python3 bench/peers/palette_probe.py"

clean:
	rm -rf $(B)

.PHONY: all no-stb test ctest need test-clang sanitize tsan matrix demo bench bench-peers clean \
        $(UNITS:%=run-%)
.DELETE_ON_ERROR:
