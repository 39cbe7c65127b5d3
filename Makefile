# smallmind.h: programs, tests and benchmarks. Everything is built in build/.
#
#: make            all programs: build/generate chat game_loop gguf_info quantize bench_*
#: make run        the tavern; or text: MODEL=file.gguf [TOKENIZER=tok.bin] [PROMPT=...]
#: make model      trains the tavern's model anew (half an hour), and lets it play 20 scenes
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
$(addprefix $(BUILD)/bench_,blas sample tokens): LIBS += -ldl
$(BUILD)/perplexity: LIBS += -lm

# A level is forced on the tests by leaving out what is better.
ISA_OFF_sse41 = -DSMALLMIND_NO_AVX512 -DSMALLMIND_NO_AVX2
ISA_OFF_scalar = $(ISA_OFF_sse41) -DSMALLMIND_NO_SSE41 -DSMALLMIND_NO_NEON
ISA_OFF_avx2 = -DSMALLMIND_NO_AVX512
# A level that the processor lacks can be emulated; that file is read before the tests.
TEST_FLAGS = $(ISA_OFF_$(ISA)) $(if $(EMULATE),-include tests/emulate_$(EMULATE).h)

EXAMPLES = $(patsubst examples/%.c,$(BUILD)/%,$(filter-out %_mpi.c,$(wildcard examples/*.c)))
# train_llmc.c is built in a clone of llm.c: see there.
BENCHES = $(patsubst bench/%.c,$(BUILD)/%,$(filter-out %_llmc.c,$(wildcard bench/*.c)))

WHOLE = $(addprefix $(BUILD)/bench_,blas kernels mask seeds)

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

# The implementation is compiled once and linked to every program; without -DCOMMON_LINKED, as in
# the first lines of each example, a program has it in itself. It has its own stb_sprintf.
STB_INSIDE = -include stb_sprintf.h $(addprefix -DSTB_SPRINTF_,IMPLEMENTATION STATIC NOUNALIGNED)
$(BUILD)/smallmind.o: smallmind.h $(BUILD)/flags
	$(CC) -x c $(FLAGS) $(if $(findstring HAVE_STB,$(STB)),$(STB) $(STB_INSIDE)) \
	    -DSMALLMIND_IMPLEMENTATION -c smallmind.h -o $@

LINKED = -DCOMMON_LINKED $< -x none $(BUILD)/smallmind.o

$(EXAMPLES): $(BUILD)/%: examples/%.c examples/common.h $(BUILD)/smallmind.o
	$(CC) $(FLAGS) $(STB) $(LINKED) -o $@ $(LIBS)

$(BUILD)/tavern_corpus: examples/tavern_words.h

$(BUILD)/train_mpi: examples/train_mpi.c examples/common.h $(BUILD)/smallmind.o
	mpicc $(FLAGS) $(STB) $(LINKED) -o $@ $(LIBS)

$(BENCHES): $(BUILD)/%: bench/%.c $(wildcard bench/*.h) examples/common.h $(BUILD)/smallmind.o
	$(CC) $(FLAGS) $(STB) $(LINKED) -o $@ $(LIBS)

# These call what the header keeps private.
$(WHOLE): LINKED = $<

# What the scripts that compare with other programs run.
$(addprefix $(BUILD)/,decode embeddings ids render shifted train_dump): $(BUILD)/%: tests/%.c \
    $(BUILD)/smallmind.o
	$(CC) $(FLAGS) $(LINKED) -o $@ $(LIBS)

# It needs what the header keeps private, but no kernels.
$(BUILD)/mkmodels: tests/mkmodels.c tests/build_gguf.h smallmind.h $(BUILD)/flags
	$(CC) $(FLAGS) -DSMALLMIND_NO_AVX2 $< -o $@ $(LIBS)

$(BUILD)/test: $(wildcard tests/*.c tests/*.h) smallmind.h $(BUILD)/flags
	$(CC) $(FLAGS) $(STB) $(TEST_FLAGS) tests/test.c -o $@ $(LIBS) -lm

TAVERN = examples/tavern.gguf
MODEL_ARGS = -m '$(or $(MODEL),$(TAVERN))' $(if $(ISA),--isa $(ISA))

QUOTED = '$(subst ','\'',$(PROMPT))'

# Without MODEL and PROMPT: the model that comes along plays an evening in a tavern.
run: $(BUILD)/generate $(BUILD)/tavern
	@if [ -n '$(MODEL)' ] || [ -n '$(filter command environment,$(origin PROMPT))' ]; then \
	    printf '%s' $(QUOTED); \
	    exec $(RUNNER) $(BUILD)/generate $(MODEL_ARGS) \
	        $(if $(TOKENIZER),-z '$(TOKENIZER)') -p $(QUOTED) -n 200; \
	else \
	    $(RUNNER) $(BUILD)/tavern -m $(TAVERN) && echo && \
	    echo 'Be the guest:     $(BUILD)/tavern -m $(TAVERN) --talk' && \
	    echo 'Another model:    make run MODEL=file.gguf PROMPT="Once upon a time"'; \
	fi

# The model that comes along: from the scenes, by this recipe, to the last bit.
RECIPE = --end '<|end|>' --vocab 2048 --dim 160 --heads 5 --kv-heads 1 --layers 5 --ff 448 \
    --context 256 --batch 16 --steps 3200 --rate 0.004 --final 0.0001 --warmup 100 \
    --eval 200 --save 200 --sample 1600 --seed 1 --name Tavern
SCENES = --seed 7 --scenes 20 --held-out

model: $(BUILD)/train $(BUILD)/tavern_corpus $(BUILD)/tavern
	@mkdir -p $(BUILD)/model
	$(BUILD)/tavern_corpus --scenes 40000 --seed 1 --end '<|end|>' >$(BUILD)/model/scenes.txt
	$(BUILD)/tavern_corpus --scenes 1000 --seed 1 --held-out --end '<|end|>' >$(BUILD)/model/held.txt
	$(BUILD)/train --data $(BUILD)/model/scenes.txt --val $(BUILD)/model/held.txt $(RECIPE) \
	    --out $(BUILD)/model/tavern.gguf
	cp $(BUILD)/model/tavern.gguf $(TAVERN)
	$(BUILD)/tavern_corpus $(SCENES) >$(BUILD)/model/ask.txt
	$(BUILD)/tavern -m $(TAVERN) $(BUILD)/model/ask.txt >examples/tavern.txt

bench: $(BUILD)/bench_model $(BUILD)/bench_kernels $(BUILD)/bench_seeds
	$(BUILD)/bench_model $(MODEL_ARGS) $(or $(BENCH),-p 128 -n 128)

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

test: unit $(addprefix $(BUILD)/,tavern_corpus tavern train generate perplexity chat)
	BUILD='$(BUILD)' RUNNER='$(RUNNER)' sh tests/tavern.sh
	BUILD='$(BUILD)' RUNNER='$(RUNNER)' bash tests/train.sh
	BUILD='$(BUILD)' RUNNER='$(RUNNER)' sh tests/perplexity.sh
	BUILD='$(BUILD)' sh tests/chat.sh
	BUILD='$(BUILD)' sh tests/options.sh
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
.PHONY: all run model bench bench-peer unit test mpi check san fuzz matrix clean help FORCE
