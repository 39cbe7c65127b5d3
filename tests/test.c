/* test.c - all tests in one program, which is also the one user of the implementation, so that
 * private functions can be tested. Build and run: make test; a part of it: make unit FILTER=text.
 * DATA=folder says where the shared test data are, REQUIRE_DATA=1 makes missing ones a failure. */

#ifdef HAVE_STB
#define STB_SPRINTF_IMPLEMENTATION
#define STB_SPRINTF_NOUNALIGNED
#include <stb_sprintf.h>
#endif

#define SMALLMIND_IMPLEMENTATION
#include "../smallmind.h"

/* From here on the references are IEEE arithmetic, whatever the flags. The library, above, has to
 * see to that by itself. */
#if defined(__clang__)
#pragma clang diagnostic ignored "-Wignored-pragmas" /* old ones have it for x86 only */
#pragma float_control(precise, on)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("no-fast-math", "fp-contract=off")
#endif

#include "check.h"

#include "build_gguf.h"

#include "test_numbers.c"

#include "test_kernels.c"

#include "test_memory.c"

#include "test_files.c"

#include "test_tokenizer.c"

#include "test_words.c"

#include "test_bpe.c"

#include "test_model.c"

#include "test_eval.c"

#include "test_families.c"

#include "test_kv.c"

#include "test_shift.c"

#include "test_threads.c"

#include "test_gen.c"

#include "test_grammar.c"

#include "test_sampler.c"

#include "test_adapter.c"

#include "test_embed.c"

#include "test_schema.c"

#ifndef SMALLMIND_NO_CHAT
#include "test_template.c"

#include "test_chat.c"
#endif

#ifndef SMALLMIND_NO_WRITER
#include "test_write.c"
#endif
#include "test_train.c"

#include "test_lora.c"

#include "test_moe.c"

int main(int argc, char **argv) {
    static const suite suites[] = {
        SUITE(tests_numbers),
        SUITE(tests_kernels),
        SUITE(tests_memory),
        SUITE(tests_files),
        SUITE(tests_tokenizer),
        SUITE(tests_words),
        SUITE(tests_bpe),
        SUITE(tests_model),
        SUITE(tests_eval),
        SUITE(tests_families),
        SUITE(tests_kv),
        SUITE(tests_shift),
        SUITE(tests_threads),
        SUITE(tests_gen),
        SUITE(tests_grammar),
        SUITE(tests_sampler),
        SUITE(tests_adapter),
        SUITE(tests_embed),
        SUITE(tests_schema),
#ifndef SMALLMIND_NO_CHAT
        SUITE(tests_template),
        SUITE(tests_chat),
#endif
#ifndef SMALLMIND_NO_WRITER
        SUITE(tests_write),
#endif
        SUITE(tests_train),
        SUITE(tests_lora),
        SUITE(tests_moe),
    };
    return check_main(argc, argv, suites, sizeof suites / sizeof *suites);
}
