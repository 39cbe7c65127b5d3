# smallmind.h: programs, tests and benchmarks. Everything is built in build/.
#
#: make            all programs: build/generate chat game_loop gguf_info quantize bench_*
#: make run        text from a small model: MODEL=file.gguf [TOKENIZER=tok.bin] [PROMPT=...]
#: make test       the tests, the corpus, the checks of the header; FILTER=text: a part of the tests
#: make bench      a model's speed: MODEL=file.gguf [BENCH="-p 512 -n 128 -t 2"]
#: make bench-peer speed beside llama.cpp's: MODELS ISAS THREADS PAIRS P N REPS as in bench/peer.sh
#: make mpi        trains on 1, 2 and 4 ranks, where Open MPI is, and compares
#: make check      the header's rules: contents page, columns, symbols, macros, the README's code
#: make san        the tests under address, undefined-behaviour and thread sanitizers
#: make fuzz       libFuzzer (clang) on every tests/fuzz_*.c, RUNS=20000 runs each
#: make matrix     compilers x standards x optimisation x instruction sets, and ARM64 under qemu
#: make clean      remove what was built, and look for stb_sprintf again
#:
#: Axes: CC=clang  STD=c99|c11|c++17  OPT=-O2  SAN=address,undefined|thread
#:       ISA=scalar|sse41|avx2|avx512|neon (run and bench: force it; test: leave the better ones out)
#:       EMULATE=avx512|amx|avxvnni (test: these kernels on a processor with AVX2)
#: Data: DATA=../shared/data; REQUIRE_DATA=1 makes missing test data a failure

STD ?= c99
OPT ?= -O2
BUILD ?= build
DATA ?= ../shared/data
RUNS ?= 20000
PROMPT ?= Once upon a time

WARN = -Wall -Wextra -Wconversion -Wshadow
LANGUAGE = -std=$(STD) $(if $(findstring c++,$(STD)),-x c++ -fno-exceptions -fno-rtti)
SANITIZE = $(if $(SAN),-g -fno-omit-frame-pointer -fsanitize=$(SAN) -fno-sanitize-recover=all)
FLAGS = $(LANGUAGE) $(OPT) $(WARN) $(WERROR) $(SANITIZE) $(CFLAGS)
LIBS = $(LDFLAGS) -lpthread
$(BUILD)/bench_blas: LIBS += -ldl

# A level is forced on the tests by leaving out what is better.
ISA_OFF_sse41 = -DSMALLMIND_NO_AVX512 -DSMALLMIND_NO_AVX2
ISA_OFF_scalar = $(ISA_OFF_sse41) -DSMALLMIND_NO_SSE41 -DSMALLMIND_NO_NEON
ISA_OFF_avx2 = -DSMALLMIND_NO_AVX512
# A level that the processor lacks can be emulated; that file is read before the tests.
TEST_FLAGS = $(ISA_OFF_$(ISA)) $(if $(EMULATE),-include tests/emulate_$(EMULATE).h)

EXAMPLES = $(patsubst examples/%.c,$(BUILD)/%,$(filter-out %_mpi.c,$(wildcard examples/*.c)))
BENCHES = $(patsubst bench/%.c,$(BUILD)/%,$(wildcard bench/*.c))

# `STB = -DHAVE_STB -isystem DIR` or `STB = -DNO_STB`: found out once, by tests/setup.sh.
ifneq ($(filter-out clean help,$(or $(MAKECMDGOALS),all)),)
-include build/stb.mk
endif

all: $(EXAMPLES) $(BENCHES)

build/stb.mk:
	@CC='$(CC)' sh tests/setup.sh $@

# The flags of the last build: another CC, STD, OPT, SAN, ISA or EMULATE builds anew.
$(BUILD)/flags: FORCE
	@mkdir -p $(BUILD)
	@echo '$(CC) $(FLAGS) $(STB) $(TEST_FLAGS)' >$@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@

$(EXAMPLES): $(BUILD)/%: examples/%.c examples/common.h smallmind.h $(BUILD)/flags
	$(CC) $(FLAGS) $(STB) $< -o $@ $(LIBS)

$(BUILD)/tavern_corpus: examples/tavern_words.h

$(BUILD)/train_mpi: examples/train_mpi.c examples/common.h smallmind.h $(BUILD)/flags
	mpicc $(FLAGS) $(STB) $< -o $@ $(LIBS)

$(BENCHES): $(BUILD)/%: bench/%.c bench/bench.h examples/common.h smallmind.h $(BUILD)/flags
	$(CC) $(FLAGS) $(STB) $< -o $@ $(LIBS)

$(BUILD)/test: $(wildcard tests/*.c tests/*.h) smallmind.h $(BUILD)/flags
	$(CC) $(FLAGS) $(STB) $(TEST_FLAGS) tests/test.c -o $@ $(LIBS) -lm

MODEL_260K = $(DATA)/models/stories260K/stories260K.gguf
MODEL_ARGS = -m '$(or $(MODEL),$(MODEL_260K))' $(if $(ISA),--isa $(ISA))

QUOTED = '$(subst ','\'',$(PROMPT))'

run: $(BUILD)/generate
	@if [ -n '$(MODEL)' ] || [ -f '$(MODEL_260K)' ]; then \
	    printf '%s' $(QUOTED); \
	    exec $(RUNNER) $(BUILD)/generate $(MODEL_ARGS) $(if $(TOKENIZER),-z '$(TOKENIZER)') \
	        -p $(QUOTED) -n 200; \
	else \
	    echo 'No model here. Take any GGUF file of a supported family (llama, mistral, smollm,'; \
	    echo 'qwen2, qwen3, gpt2 in F32, F16, BF16, Q8_0 or Q4_0) and say  make run MODEL=file.gguf'; \
	    echo 'Small ones on Hugging Face: the Q8_0 GGUF files of SmolLM2-135M-Instruct (145 MB) and'; \
	    echo 'Qwen2.5-0.5B-Instruct, or karpathy/tinyllamas, folder stories260K (1 MB), with'; \
	    echo 'make run MODEL=stories260K.bin TOKENIZER=tok512.bin'; \
	fi

bench: $(BUILD)/bench_model $(BUILD)/bench_kernels $(BUILD)/bench_seeds
	@if [ -n '$(MODEL)' ] || [ -f '$(MODEL_260K)' ]; then \
	    exec $(BUILD)/bench_model $(MODEL_ARGS) $(or $(BENCH),-p 128 -n 128); \
	else echo 'No model here: make bench MODEL=file.gguf (see make run). Without one:'; \
	    echo '$(BUILD)/bench_kernels, $(BUILD)/bench_seeds'; fi

PEER ?= build/peer/node_modules/@node-llama-cpp/linux-x64/bins/linux-x64
RESULTS ?= bench/results/

# What peer.sh takes besides comes to it through the environment, from the command line too.
bench-peer: $(BUILD)/bench_model | $(PEER)
	@CC='$(CC)' BUILD='$(BUILD)' PEER='$(PEER)' RESULTS='$(RESULTS)' bash bench/peer.sh

# llama.cpp's own published builds; nothing of the package is run while it is installed.
build/peer/%:
	@mkdir -p build/peer
	@cd build/peer && npm install --prefix . --ignore-scripts --no-audit --no-fund \
	    @node-llama-cpp/linux-x64 >npm.log 2>&1 && [ -d '$*' ] || { \
	    echo "llama.cpp's libraries could not be fetched: see build/peer/npm.log"; exit 1; }

# The tests alone; `make test` adds the checks of the header.
unit: $(BUILD)/test
	DATA='$(DATA)' $(RUNNER) $(BUILD)/test $(FILTER)

test: unit $(BUILD)/tavern_corpus $(BUILD)/train $(BUILD)/generate
	BUILD='$(BUILD)' RUNNER='$(RUNNER)' sh tests/tavern.sh
	BUILD='$(BUILD)' RUNNER='$(RUNNER)' bash tests/train.sh
	CC='$(CC)' BUILD='$(BUILD)' DATA='$(DATA)' sh tests/check_header.sh

# Parallel training, where Open MPI is.
mpi:
	BUILD='$(BUILD)' DATA='$(DATA)' bash tests/mpi.sh

check:
	CC='$(CC)' BUILD='$(BUILD)' DATA='$(DATA)' sh tests/check_header.sh

san fuzz matrix:
	@CC='$(CC)' DATA='$(DATA)' RUNS='$(RUNS)' FILTER='$(FILTER)' bash tests/matrix.sh $@

clean:
	rm -rf build

help:
	@sed -n 's/^#: \{0,1\}//p' Makefile

FORCE:
.DELETE_ON_ERROR:
.PHONY: all run bench bench-peer unit test mpi check san fuzz matrix clean help FORCE
