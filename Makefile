# Everything is built in build/.
#
#   make              build/igpt, the tool, and the examples
#   make test         the tests that take four minutes on two cores; installs Debian's libstb-dev
#                     where it is missing, if it may
#   make test-all     everything there is: the above, and one by one what is listed at ALL below,
#                     the compilers, the sanitizers and the long forms of some tests
#   make demo         the main job, on CIFAR-10 if it can be had, in five minutes
#   make bench        how fast it is here; make bench-peers: beside what one would use instead
#   make sanitize     the C tests under the address and undefined-behaviour sanitizers
#   make tsan         those with threads under the thread sanitizer
#   make killed       a hundred kills of training runs (make test has twelve)
#   make fuzz         searches each of tests/fuzz with libFuzzer (clang) under these sanitizers for
#                     ten minutes (FUZZ_SECONDS); make test runs them over their corpus alone
#   make paper        every script of examples/paper for seconds (make test has two)
#   make test-clang   the C tests, compiled by clang
#   make cortex-m     images for a Cortex-M3 and a Cortex-M7 that complete a picture from weights in
#                     flash, run by QEMU (make test measures the same program on the host)
#   make compile      the header by itself: every build macro, a few dialects, 32 bits
#   make matrix       compilers, dialects, 32 bits, build macros, all of them
#   make analyze      gcc -fanalyzer, clang-tidy and cppcheck find nothing; what is not installed is
#                     skipped
#   make coverage     how much of igpt.h the C tests run (gcc, gcov and python3), with the generic
#                     kernels and with all; fails below 95 % of the lines and 85 % of the branches,
#                     or if tests/coverage/uncovered.txt, the rest with its reasons, is not right;
#                     BUILDS=generic does that alone
#   make machines     the C tests on other machines: aarch64, armv7, riscv64, s390x, x86-64 without
#                     AVX2 and i386, Windows and WebAssembly, by QEMU, Wine and Node where they can
#                     be had; MACHINES="wasm s390x" does these alone
#   make clean
#
# V=1 shows commands and the output of every test; CC, CFLAGS and B (the folder) can be given.

CC      ?= cc
CFLAGS   = -O2
WARN     = -Wall -Wextra -Wpedantic -Wshadow -Wconversion
LINK     = -lm -pthread
RUNNER   =
B        = build
Q        = $(if $(V),,@)

EXAMPLES = $(patsubst examples/%.c,%,$(wildcard examples/0*.c))
TESTS    = $(patsubst tests/%.c,%,$(wildcard tests/*.c))
BENCHES  = $(patsubst bench/%.c,%,$(wildcard bench/*.c))
SCRIPTS  = examples tool docs small fetch paper
SHARED   = $(wildcard examples/*.h)

# What reads pictures needs the stb headers.
NEED_STB = tool fetch docs paper $(shell grep -l '"\(image\|dataset\|plot\)\.h"\|examples/.*\.[ch]"' \
             tests/*.c 2>/dev/null | sed 's,tests/\(.*\)\.c,\1,')
STB     := $(shell CC="$(CC)" sh tests/need.sh check && echo yes)

# As many jobs as processors, unless make was told how many.
JOBS     = $(if $(findstring -j,$(MAKEFLAGS)),,-j$(shell nproc 2>/dev/null || echo 2))
AGAIN    = $(MAKE) --no-print-directory CC="$(CC)" CFLAGS="$(CFLAGS)" B="$(B)"

all: $(if $(STB),$(B)/igpt,no-stb) $(EXAMPLES:%=$(B)/%)

no-stb:
	@echo "build/igpt needs stb_image.h: apt-get install libstb-dev (make test and make demo do it)"

$(B)/igpt $(B)/fetch_cifar10 $(B)/plot_csv: $(B)/%: examples/%.c igpt.h $(SHARED)
	@mkdir -p $(@D)
	$(if $(V),,@echo "  $(CC) $@")
	$(Q)$(CC) -std=c99 $(CFLAGS) $(WARN) -I. -o $@ $< -lm -pthread

# As the first line of each example says, but for the place of the program and the warnings.
$(EXAMPLES:%=$(B)/%): $(B)/%: examples/%.c igpt.h
	@mkdir -p $(@D)
	$(if $(V),,@echo "  $(CC) $@")
	$(Q)$(CC) $(CFLAGS) $(WARN) -I. -o $@ $< -lm -pthread

# Tests of what everybody can call share one object of the library; those of internals have their own.
LINKED   = $(patsubst tests/%.c,%,$(shell grep -L IGPT_IMPLEMENTATION \
             $$(grep -l '"igpt.h"' tests/*.c)))

$(B)/igpt.o: igpt.h
	@mkdir -p $(@D)
	$(Q)$(CC) -std=c99 $(CFLAGS) $(WARN) -Werror -DIGPT_IMPLEMENTATION -x c -c -o $@ $<

# Where speed is not the subject, -O1 compiles in half the time, and the generic kernels alone in a
# third of that; that object is compiled as asked.
LIGHT    = edges failures files fuzz killed numbers palette probe threads
GENERIC  = failures files

$(LINKED:%=$(B)/tests/%): $(B)/igpt.o
$(TESTS:%=$(B)/tests/%): $(B)/tests/%: tests/%.c igpt.h $(SHARED) \
  $(wildcard tests/*.h tests/fixtures/*.h)
	@mkdir -p $(@D)
	$(Q)$(CC) -std=c99 $(CFLAGS) $(if $(filter $*,$(LIGHT)),-O1) \
	  $(if $(filter $*,$(GENERIC)),-DIGPT_NO_SIMD) $(WARN) -Werror -I. -o $@ $< \
	  $(if $(filter $*,$(LINKED)),$(B)/igpt.o) $(LINK)

$(B)/tests/fuzz: $(wildcard tests/fuzz/*.[ch])
$(B)/tests/killed: examples/igpt.c

$(BENCHES:%=$(B)/bench/%): $(B)/bench/%: bench/%.c igpt.h $(wildcard bench/*.h)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -I. -o $@ $< -lm -pthread

# ---- tests: a target a program; each leaves its numbers in $(B)/results --------------------------

RUN      = $(Q)CC="$(CC)" V="$(V)" sh tests/run.sh
# What takes longest comes first, so that no processor waits for it in the end.
LONGEST  = killed
PROGRAMS = $(filter $(LONGEST),$(TESTS)) $(filter-out $(LONGEST),$(TESTS))
UNITS    = $(SCRIPTS) $(PROGRAMS)
SKIPPED  = $(if $(STB),,$(filter $(NEED_STB),$(UNITS)))
RUNNING  = $(filter-out $(SKIPPED),$(UNITS))

$(SKIPPED:%=run-%): run-%:
	$(RUN) skip $(B)/results/$* "needs stb_image.h, which is not installed"

$(patsubst %,run-%,$(filter $(TESTS),$(RUNNING))): run-%: $(B)/tests/%
	$(RUN) one $(B)/results/$* $(RUNNER) $<

$(patsubst %,run-%,$(filter tool docs,$(RUNNING))): run-%: $(B)/igpt $(B)/igpt.o
	$(RUN) one $(B)/results/$* sh tests/$*.sh $(B)/igpt $(B)/igpt.o
$(patsubst %,run-%,$(filter fetch,$(RUNNING))): $(B)/tests/dataset
	$(RUN) one $(B)/results/fetch sh tests/fetch.sh $(B)/tests/dataset
$(patsubst %,run-%,$(filter examples,$(RUNNING))): $(EXAMPLES:%=$(B)/%)
	$(RUN) one $(B)/results/examples sh tests/examples.sh $(B)
$(patsubst %,run-%,$(filter paper,$(RUNNING))): $(B)/igpt $(B)/plot_csv
	$(RUN) one $(B)/results/paper sh tests/paper.sh $(B)/igpt $(B)/plot_csv a_depth e_together
$(patsubst %,run-%,$(filter small,$(RUNNING))):
	$(RUN) one $(B)/results/small sh tests/small.sh host $(B)/small

test: need
	@rm -rf $(B)/results && mkdir -p $(B)/results $(B)/tests
	@$(AGAIN) -k $(JOBS) $(UNITS:%=run-%) || :
	@sh tests/run.sh sum $(B)/results $(UNITS)

ctest: need
	@rm -rf $(B)/results && mkdir -p $(B)/results $(B)/tests build/tests
	@$(AGAIN) -k $(JOBS) $(PROGRAMS:%=run-%) || :
	@sh tests/run.sh sum $(B)/results $(TESTS)

need:
	@$(if $(STB),,CC="$(CC)" sh tests/need.sh || echo "the tests that need it are skipped")

test-clang:
	@$(MAKE) --no-print-directory ctest CC=clang B=build/clang

# Readers need no kernels but the generic ones, with which they are built in a sixth of the time.
sanitize:
	@$(MAKE) --no-print-directory ctest B=build/sanitize \
	  GENERIC="edges failures files killed numbers probe threads" \
	  CFLAGS="-O1 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all"

tsan:
	@$(MAKE) --no-print-directory ctest B=build/tsan TESTS="$(WITH_THREADS)" \
	  CFLAGS="-O1 -g1 -fsanitize=thread"
WITH_THREADS = threads runners

FUZZERS      = $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/*.c))
FUZZ_SECONDS = 600

$(FUZZERS:%=build/fuzz/%): build/fuzz/%: tests/fuzz/%.c tests/fuzz/fuzz.h igpt.h $(SHARED)
	@mkdir -p $(@D)
	$(Q)clang -std=c99 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -I. \
	  $(if $(filter kernels,$*),,-DIGPT_NO_SIMD) -o $@ $< -lm -pthread

fuzz: need $(FUZZERS:%=build/fuzz/%)
	@sh tests/fuzz/search.sh $(FUZZ_SECONDS) $(FUZZERS)

killed: need $(B)/tests/killed
	$(B)/tests/killed 100

paper: need $(B)/igpt $(B)/plot_csv
	sh tests/paper.sh $(B)/igpt $(B)/plot_csv

cortex-m:
	@CC="$(CC)" sh tests/small.sh boards $(B)/cortex-m

# What make test-all runs, each by a make of its own.
ALL = test test-clang matrix machines analyze coverage sanitize tsan killed cortex-m paper

test-all:
	@failed=; for part in $(ALL); do \
	  echo "==== make $$part"; $(MAKE) --no-print-directory $$part || failed="$$failed $$part"; \
	done; \
	if [ -z "$$failed" ]; then echo "==== all is well: $(ALL)"; \
	else echo "==== failed:$$failed"; exit 1; fi

machines:
	@MAKE="$(MAKE)" sh tests/machines.sh $(MACHINES)

compile:
	@CC="$(CC)" sh tests/compile/matrix.sh quick $(B)/compile

matrix:
	@CC="$(CC)" sh tests/compile/matrix.sh all $(B)/compile

analyze:
	@sh tests/compile/matrix.sh analyze $(B)/analyze

# -O1, since intrinsics take too long at -O0, but conditions and functions stay as they are written.
# Programs with threads count one at a time, which is slow: -pthread has it so. The tests left out
# run nothing of igpt.h that the others do not.
COUNTING = --coverage -O1 -fno-inline -fno-ssa-phiopt -fno-thread-jumps -fno-tree-dominator-opts \
           -fno-tree-forwprop --param logical-op-non-short-circuit=0 -Dalways_inline=unused
COUNTED  = $(filter-out dataset killed runners,$(TESTS))
THREADED = failures threads

coverage:
	@MAKE="$(MAKE) --no-print-directory" sh tests/coverage/coverage.sh "$(COUNTING)" "$(THREADED)" \
	  "$(filter-out $(THREADED),$(COUNTED))" $(BUILDS)

# ---- the rest ------------------------------------------------------------------------------------

demo:
	@start=$$(date +%s) && CC="$(CC)" sh tests/need.sh && $(AGAIN) $(B)/igpt && \
	  DEMO_START=$$start sh examples/demo.sh $(B)/igpt

bench: $(BENCHES:%=$(B)/bench/%)
	@for program in $^; do echo "== $$program"; $$program || exit 1; done

# The same work by PyTorch and scikit-learn, in one run beside ours.
bench-peers: $(B)/bench/matmul $(B)/bench/attention $(B)/bench/train $(B)/bench/sample \
  $(B)/bench/palette_probe
	@python3 -c "import torch, sklearn" || \
	  { echo "bench-peers needs python3 with torch and scikit-learn (pip install)"; exit 1; }
	$(B)/bench/matmul --race "python3 bench/peers/products.py torch" \
	  "python3 bench/peers/products.py torch --bf16" "python3 bench/peers/products.py scipy"
	$(B)/bench/attention --race "python3 bench/peers/products.py torch" \
	  "python3 bench/peers/products.py torch --bf16"
	$(B)/bench/train 7 -1 "python3 bench/peers/torch_step.py" \
	  "python3 bench/peers/torch_step.py --bf16" "python3 bench/peers/torch_step.py --compile" \
	  "python3 bench/peers/torch_step.py --bf16 --compile"
	for batch in 1 16; do $(B)/bench/sample $$batch 1024 "python3 bench/peers/torch_sample.py" \
	  "python3 bench/peers/torch_sample.py --bf16" || exit 1; done
	$(B)/bench/palette_probe --dump $(B)/peers --peer "python3 bench/peers/palette_probe.py"

clean:
	rm -rf $(B)

.PHONY: all no-stb test test-all ctest need test-clang sanitize tsan killed fuzz paper cortex-m \
        compile matrix machines analyze coverage demo bench bench-peers clean \
        $(UNITS:%=run-%)
.DELETE_ON_ERROR:
