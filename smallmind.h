/* smallmind.h - run small language models on the CPU. One file, C99 and C++11, no dependencies.
 * Version 0.1.0. MIT-0 or public domain, your choice: see the end of this file.
 *
 * MARK: [SM01] MANUAL
 *
 * Do this in ONE C or C++ file, and include the header plainly everywhere else:
 *
 *     #define SMALLMIND_IMPLEMENTATION
 *     #include "smallmind.h"
 *
 * QUICK START (compiled by the tests; link with -lpthread on old systems)
 *
 *     static int show(void *user, const char *piece, size_t bytes) {
 *         fwrite(piece, 1, bytes, (FILE *)user);
 *         return 0;                              // anything else stops the generation
 *     }
 *     sm_error error;
 *     sm_model *model = NULL;
 *     sm_ctx *ctx = NULL;
 *     sm_model_params mp = sm_model_default();
 *     sm_ctx_params cp = sm_ctx_default();
 *     sm_gen_params gp = sm_gen_default();
 *     mp.file.path = "model.gguf";
 *     gp.prompt = "Once upon a time";
 *     if (sm_model_open(&mp, &model, &error) || sm_ctx_create(model, &cp, &ctx, &error))
 *         return fprintf(stderr, "%s\n", error.text), 1;
 *     sm_generate(ctx, &gp, show, stdout, NULL);
 *     sm_ctx_destroy(ctx);
 *     sm_model_close(model);
 *
 * HOW IT WORKS, in five ideas
 *   The tape     A model's forward pass is compiled once, when a context is made, into a flat list
 *                of steps (EMBED, NORM, MATMUL, ROPE, ATTEND ...). Each step is cut into tiles.
 *                Running the model is walking the tape; the cursor (step, tile) is the whole state
 *                of a pass, so it can stop after any tile and go on in the next frame.
 *   The plan     Every object tells how many bytes it needs before it is made, can live in one
 *                block that you give, and never touches the heap after it was made.
 *   The bits     Logits depend on the model and the tokens only: not on threads, prompt chunks,
 *                neighbours in the batch, budgets or the instruction set. Every kernel's summation
 *                order is written down and all variants of it give the same bits.
 *   The kernels  For each operation a contract, a scalar truth that you can read, then SSE4.1,
 *                AVX2, AVX-512 and NEON versions beside it, chosen at run time. No -m flags needed.
 *   The files    Every number in a model file is an attacker's until it was checked.
 *
 * CONTENTS (grep for the tag in brackets)
 *   [SM01] MANUAL
 *   [SM02] CONFIG
 *   [SM03] STATUS API
 *   [SM04] HOST API
 *   [SM05] POOL API
 *   [SM06] TYPES AND ISA API
 *   [SM07] MODEL API
 *   [SM08] TOKENIZER API
 *   [SM09] CONTEXT API
 *   [SM10] SAMPLER API
 *   [SM11] GENERATION API
 *   [SM12] TRAINER API
 *   [SM13] WRITER API
 *   [SM14] TOKENIZER TRAINER API
 *   [SM20] PLATFORM
 *   [SM21] ERRORS
 *   [SM22] MEMORY
 *   [SM23] TEAM
 *   [SM24] NUMBERS
 *   [SM25] TYPES
 *   [SM26] KERNELS
 *   [SM27] DISPATCH
 *   [SM28] ARCHITECTURES
 *   [SM29] FILES
 *   [SM30] GGUF
 *   [SM31] LLAMA2.C AND SAFETENSORS
 *   [SM32] MODEL
 *   [SM33] UTF-8 AND UNICODE
 *   [SM34] TOKENIZER
 *   [SM35] TAPE
 *   [SM36] CONTEXT
 *   [SM37] STEPS
 *   [SM38] EVALUATION
 *   [SM39] SAMPLER
 *   [SM40] GENERATION
 *   [SM41] TRAINER
 *   [SM42] WRITER
 *   [SM43] TOKENIZER TRAINER
 * CONVENTIONS
 *   Shapes       [rows, columns], row-major, the last index is contiguous. Letters used throughout:
 *                T tokens, C channels (model width), H query heads, K key/value heads, D head
 *                width, F feed-forward width, V vocabulary, L layers.
 *   Units        _bytes, _us (microseconds), _ns; n_x counts, i_x indexes; token ids are int32_t.
 *   Errors       Functions that can fail return sm_status: SM_OK is 0, SM_PENDING is 1, errors are
 *                negative and leave the object as it was. sm_model_open and the create functions
 *                explain themselves in a caller-owned sm_error; a context keeps its last message
 *                (sm_ctx_error). The library never aborts, prints, or reads the environment.
 *   Memory       Only open and create functions allocate, through sm_allocator. Nothing after.
 *   Threads      A model may be used by any number of contexts at once; a context by one caller at
 *                a time; sm_cancel from anywhere. There is no global state.
 *   Params       Structs of parameters: zero means off, greedy or automatic. Start from
 *                sm_x_default(), so that new fields never break your code.
 *
 * BUILD FLAGS (define them before the implementation)
 *   SMALLMIND_STATIC          everything is static: several copies can live in one program
 *   SMALLMIND_NO_THREADS      no own threads (sm_jobs still works)
 *   SMALLMIND_NO_STDIO        no file access and no printf: models come from memory or callbacks,
 *                             messages are plain status texts
 *   SMALLMIND_NO_WRITER       no GGUF writer and no quantiser
 *   SMALLMIND_NO_TRAIN        no trainer, no vocabularies from text
 *   SMALLMIND_NO_AMX, _NO_AVX512, _NO_AVX2, _NO_SSE41, _NO_NEON   leave a level of kernels out
 *   SMALLMIND_VSNPRINTF       your vsnprintf; otherwise stb_sprintf's if stb_sprintf.h was included
 *                             before, else libc's
 *   SMALLMIND_ASSERT(x)       checks of what the library itself guarantees; off by default
 */
#ifndef SMALLMIND_H
#define SMALLMIND_H

#include <stddef.h>
#include <stdint.h>

/* ================================================================================================
 * MARK: [SM02] CONFIG
 * Version, linkage and the C++ bracket.
 * ============================================================================================== */

#define SMALLMIND_VERSION 100 /* major * 10000 + minor * 100 + patch */

#ifdef SMALLMIND_STATIC
#if defined(__GNUC__) || defined(__clang__)
#define SM_API __attribute__((unused)) static
#else
#define SM_API static
#endif
#else
#define SM_API extern
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ================================================================================================
 * MARK: [SM03] STATUS API
 * One list gives the enum and the texts.
 * ============================================================================================== */

#define SM_STATUS_LIST(X) \
    X(SM_OK, 0, "ok") \
    X(SM_PENDING, 1, "not finished yet: call again") \
    X(SM_ERR_ARG, -1, "a bad argument") \
    X(SM_ERR_NOMEM, -2, "the allocator gave no memory") \
    X(SM_ERR_IO, -3, "reading or writing failed") \
    X(SM_ERR_FORMAT, -4, "the file is malformed") \
    X(SM_ERR_UNSUPPORTED, -5, "well-formed, but not supported") \
    X(SM_ERR_FULL, -6, "no room: context, pool or buffer is full") \
    X(SM_ERR_BUSY, -7, "a pass is pending") \
    X(SM_ERR_CANCELLED, -8, "cancelled by the caller") \
    X(SM_ERR_SYSTEM, -9, "the operating system refused") \
    X(SM_ERR_NUMBER, -10, "a number is not finite")

#define SM_STATUS_ENUM(name, value, text) name = value,
typedef enum sm_status { SM_STATUS_LIST(SM_STATUS_ENUM) SM_STATUS_LAST_ = -11 } sm_status;
#undef SM_STATUS_ENUM

/* What went wrong, in words. Owned by the caller; written only on failure. */
typedef struct sm_error {
    sm_status status;
    char text[248]; /* names the file, tensor, key or argument; always terminated */
} sm_error;

/* A fixed sentence for a status (any int; unknown ones have a text too). */
SM_API const char *sm_status_text(int status);

/* ================================================================================================
 * MARK: [SM04] HOST API
 * What the host may lend: memory, worker threads, a place for log lines.
 * ============================================================================================== */

/* Memory. alloc returns at least `bytes` bytes at any alignment, or NULL; free gets the same size.
 * Only the thread that calls open/create/destroy calls them. All zero = malloc/free. */
typedef struct sm_allocator {
    void *(*alloc)(size_t bytes, void *user);
    void (*free)(void *memory, size_t bytes, void *user);
    void *user;
} sm_allocator;

/* A host's job system instead of threads of ours. dispatch asks for up to n calls of job(arg) on
 * other threads and may return before they ran; a job that starts late finds no work and returns at
 * once, so nothing waits for a job that never started. One dispatch is made per evaluation call.
 * Every job must have returned before the team is destroyed. */
typedef struct sm_jobs {
    void (*dispatch)(void *user, void (*job)(void *arg), void *arg, int n);
    void *user;
    int n_workers; /* how many jobs to ask for; 0 = none */
} sm_jobs;

/* A line for the log, without newline. level: 0 detail, 1 information, 2 warning. */
typedef void (*sm_log_fn)(void *user, int level, const char *text);

/* A team of worker threads, shared by any number of contexts (of any models). The thread that calls
 * sm_eval is a member too: n_threads = 4 starts three. Workers spin briefly, then sleep. */
typedef struct sm_team sm_team;
typedef struct sm_team_params {
    int n_threads; /* members with the caller; 0 = the machine's processors, at most 256 */
    sm_jobs jobs;  /* when jobs.dispatch is set, no thread is started */
    sm_allocator allocator;
} sm_team_params;

SM_API sm_team_params sm_team_default(void);
/* Returns SM_OK | SM_ERR_ARG | SM_ERR_NOMEM | SM_ERR_SYSTEM (a thread could not be started). */
SM_API sm_status sm_team_create(const sm_team_params *params, sm_team **team, sm_error *error);
/* Stops and joins the workers. No context may still use the team. NULL is allowed. */
SM_API void sm_team_destroy(sm_team *team);
/* Lend the calling thread's time: helps the passes that are running, returns when there is nothing
 * to do. For a host's idle worker; any number of threads may do it at once. */
SM_API void sm_team_lend(sm_team *team);

/* ================================================================================================
 * MARK: [SM05] POOL API
 * The tensor pool: blocks of a few fixed sizes, reference-counted, inside one piece of memory.
 * It hands out what lives longer than a step: KV blocks, rows of logits, snapshots.
 * ============================================================================================== */

#define SMALLMIND_POOL_CLASSES 4

typedef struct sm_pool_stats {
    uint64_t rents, returns;   /* calls that handed out a block; blocks that came back */
    size_t outstanding_blocks; /* rents - returns */
    size_t outstanding_bytes, peak_bytes, capacity_bytes;
} sm_pool_stats;

typedef struct sm_pool sm_pool;

/* Bytes that sm_pool_init needs for counts[i] blocks of sizes[i] bytes, i in [0, n_classes); every
 * block is 64-byte aligned. 0 = the sizes overflow, or n_classes is not in [1, 4]. */
SM_API size_t sm_pool_bytes(const size_t *sizes, const uint32_t *counts, int n_classes);
/* Lays a pool out in memory (any alignment) of that many bytes; NULL when it does not fit.
 * The pool needs no destroy: forget it, or free the memory. */
SM_API sm_pool *sm_pool_init(void *memory, size_t bytes, const size_t *sizes,
                             const uint32_t *counts, int n_classes);
/* A block of at least `bytes` bytes from the smallest class that has one free; NULL = none left.
 * Its count is 1; its content is whatever the last user left. O(classes). */
SM_API void *sm_pool_rent(sm_pool *pool, size_t bytes);
/* One more owner of a rented block. */
SM_API void sm_pool_retain(sm_pool *pool, void *block);
/* One owner less; the last one returns the block. NULL is allowed. */
SM_API void sm_pool_return(sm_pool *pool, void *block);
/* How many owners a rented block has. */
SM_API uint32_t sm_pool_owners(const sm_pool *pool, const void *block);
SM_API sm_pool_stats sm_pool_get_stats(const sm_pool *pool);

/* ================================================================================================
 * MARK: [SM06] TYPES AND ISA API
 * ============================================================================================== */

/* Element types, numbered as in GGUF. */
typedef enum sm_type {
    SM_TYPE_F32 = 0,
    SM_TYPE_F16 = 1,
    SM_TYPE_Q4_0 = 2,    /* Qn_0, Qn_1: blocks of 32 with a scale; Qn_1 with a minimum, too */
    SM_TYPE_Q4_1 = 3,
    SM_TYPE_Q5_0 = 6,
    SM_TYPE_Q5_1 = 7,
    SM_TYPE_Q8_0 = 8,
    SM_TYPE_Q2_K = 10,   /* Qn_K: superblocks of 256, whose parts have small scales of their own */
    SM_TYPE_Q3_K = 11,
    SM_TYPE_Q4_K = 12,
    SM_TYPE_Q5_K = 13,
    SM_TYPE_Q6_K = 14,
    SM_TYPE_IQ4_NL = 20, /* blocks of 32: four bits choose one of 16 uneven steps */
    SM_TYPE_IQ4_XS = 23, /* the same in superblocks */
    SM_TYPE_BF16 = 30,
    SM_TYPE_TQ1_0 = 34,  /* superblocks of -1, 0, 1: five of them in a byte */
    SM_TYPE_TQ2_0 = 35,  /* four in a byte */
    SM_TYPE_MXFP4 = 39,  /* blocks of 32 four-bit floats with a power of two (OCP MX 1.0) */
    SM_TYPE_AUTO = -1
} sm_type;

typedef struct sm_type_info {
    const char *name;          /* "Q8_0" */
    int block_elems;           /* elements of a block: 1 for the float types */
    int block_bytes;           /* bytes of a block */
} sm_type_info;

/* NULL for a type that this build does not know. */
SM_API const sm_type_info *sm_type_get_info(int type);
/* n elements (a multiple of block_elems) to f32; src may lie at any address. SM_ERR_ARG else. */
SM_API sm_status sm_type_decode(int type, const void *src, float *dst, size_t n);
/* n f32 elements to the type, as ggml's reference encoder does it. */
SM_API sm_status sm_type_encode(int type, const float *src, void *dst, size_t n);

/* Levels of kernels. All give the same bits. */
typedef enum sm_isa {
    SM_ISA_AUTO = 0,
    SM_ISA_SCALAR = 1,
    SM_ISA_SSE41 = 2,  /* with SSSE3 */
    SM_ISA_AVX2 = 3,   /* with FMA and F16C; AVX-VNNI when there */
    SM_ISA_AVX512 = 4, /* F, BW, DQ, VL and VNNI */
    SM_ISA_AMX = 5,    /* AVX-512, and INT8 tiles for 8 rows or more of quantised matmuls (prompts);
                          Linux only, and only when asked for: see sm_ctx_params.amx */
    SM_ISA_NEON = 6    /* dot-product and int8 matrix instructions when there */
} sm_isa;

SM_API const char *sm_isa_name(int isa);
/* The best level that this processor and this build have, but for SM_ISA_AMX, which takes a
 * permission that is not asked for here. */
SM_API sm_isa sm_isa_best(void);

/* ================================================================================================
 * MARK: [SM07] MODEL API
 * A model is what a file says: hyperparameters, vocabulary, views of the weights. Read-only after
 * sm_model_open, shared by threads and contexts.
 * ============================================================================================== */

typedef struct sm_model sm_model;

/* Where bytes come from: the first of path, data and read that is set. */
typedef struct sm_source {
    const char *path; /* UTF-8 */
    const void *data; /* in memory, any alignment; must outlive the model under SM_LOAD_MAP */
    /* read: fill dst with `bytes` bytes from offset; return 0, anything else is a failure. */
    int (*read)(void *user, uint64_t offset, void *dst, size_t bytes);
    void *user;
    uint64_t bytes; /* size of data, or of what read can read */
} sm_source;

typedef enum sm_load {
    SM_LOAD_MAP = 0, /* map the file / use the caller's memory: nothing is copied. Careful: when
                        another process cuts a mapped file short, reading it kills this one with
                        SIGBUS; use SM_LOAD_COPY where that can happen */
    SM_LOAD_COPY = 1 /* read everything into memory of the model's allocator */
} sm_load;

typedef struct sm_model_params {
    sm_source file;      /* .gguf (v1, v2, v3), llama2.c .bin (v0, v1, v2), .safetensors. In shards:
                            the path of the index ("model.safetensors.index.json"), of any shard
                            beside it, or of their folder (then model.safetensors will do, too) */
    sm_source tokenizer; /* llama2.c tokenizer.bin; not needed for GGUF */
    sm_source config;    /* HF config.json; when absent, a safetensors file has it beside it */
    int load;            /* sm_load */
    int vocab_only;      /* do not require tensors: for tokenizing only */
    /* Called while a file is read (SM_LOAD_COPY, callbacks; every shard begins at 0 again); a value
     * other than 0 cancels. */
    int (*progress)(void *user, uint64_t done_bytes, uint64_t total_bytes);
    void *progress_user;
    sm_log_fn log;
    void *log_user;
    sm_allocator allocator;
} sm_model_params;

SM_API sm_model_params sm_model_default(void);

/* Open a model.
 * Returns  SM_OK | SM_ERR_ARG | SM_ERR_IO | SM_ERR_FORMAT | SM_ERR_UNSUPPORTED | SM_ERR_NOMEM |
 *          SM_ERR_CANCELLED; on error *model is NULL and *error (may be NULL) names the culprit.
 * Memory   directory and vocabulary are allocated; weights only under SM_LOAD_COPY, and where the
 *          file's are not as we compute with them: a gpt2 safetensors has them transposed, a
 *          llama2.c v2 file in int8 groups that become F32 (4 bytes a weight).
 *          sm_model_close gives all back. */
SM_API sm_status sm_model_open(const sm_model_params *params, sm_model **model, sm_error *error);
/* No context may still use the model. NULL is allowed. */
SM_API void sm_model_close(sm_model *model);

typedef struct sm_model_info {
    const char *format; /* "GGUF v3", "llama2.c" (or "llama2.c v1", "v2"), "safetensors" */
    const char *arch;   /* "llama", "qwen2", "qwen3", "gpt2"; "" when only a vocabulary was read */
    const char *name;   /* general.name, or "" */
    int n_vocab, n_ctx_train, n_embd, n_layers, n_heads, n_kv_heads, head_dim, n_ff;
    int type;              /* sm_type of most weight bytes, or SM_TYPE_AUTO without tensors */
    int n_tensors, n_meta; /* for sm_model_tensor and sm_model_meta_at */
    uint64_t n_params;
    size_t weight_bytes;  /* of all tensors, where they are */
    size_t decode_bytes;  /* weight bytes that one token reads */
    size_t heap_bytes;    /* allocated by this model */
    size_t mapped_bytes;  /* mapped or used in place */
    int has_vocab;
    const char *tokenizer;           /* "spm", "bpe" or "" */
    int32_t bos, eos, eot, unk, pad; /* ids, or -1 */
} sm_model_info;

/* Valid until the model is closed. */
SM_API const sm_model_info *sm_model_get_info(const sm_model *model);

/* Metadata of the file as text. meta_at: the i-th key, i in [0, n_meta). meta: the value of a key,
 * numbers printed, arrays as "[type x count]"; NULL when there is none. buf [n] receives the text,
 * cut to fit; both return a pointer that lives as long as buf / the model. */
SM_API const char *sm_model_meta_at(const sm_model *model, int i, char *buf, size_t n);
SM_API const char *sm_model_meta(const sm_model *model, const char *key, char *buf, size_t n);

typedef struct sm_tensor {
    const char *name; /* NUL-terminated, GGUF naming whatever the file's own */
    int type;         /* sm_type */
    int n_dims;
    uint64_t dims[4]; /* dims[0] is contiguous, as GGUF has it */
    const void *data; /* any alignment */
    size_t bytes;
} sm_tensor;

/* The i-th tensor, i in [0, n_tensors); SM_ERR_ARG otherwise. */
SM_API sm_status sm_model_tensor(const sm_model *model, int i, sm_tensor *tensor);

/* A LoRA adapter of a model: for some of its matrices W [n, k] two small ones, A [rank, k] and
 * B [n, rank], so that W x becomes W x + scale * alpha / rank * B (A x). Read-only after
 * sm_adapter_open, shared by threads and contexts: sm_ctx_set_adapter. Hu et al. 2021
 * (arXiv:2106.09685). */
typedef struct sm_adapter sm_adapter;

/* Open an adapter for a model that is open, and stays so: a GGUF file as llama.cpp's tools and
 * sm_trainer_write_adapter make it. Of params file, load, progress and allocator count.
 * Returns as sm_model_open; SM_ERR_FORMAT also when A or B is missing, or has a shape that does not
 *         fit the other or the model, or a number that is not finite; SM_ERR_UNSUPPORTED when it is
 *         of another kind, or for another architecture.
 * Memory  A and B as F32; the file may go when sm_adapter_open returns. */
SM_API sm_status sm_adapter_open(const sm_model *model, const sm_model_params *params,
                                 sm_adapter **adapter, sm_error *error);
/* No context may still have it set. NULL is allowed. */
SM_API void sm_adapter_close(sm_adapter *adapter);
/* The largest rank of its pairs: what sm_ctx_params.max_lora_rank must be at least. */
SM_API int sm_adapter_rank(const sm_adapter *adapter);

/* ================================================================================================
 * MARK: [SM08] TOKENIZER API
 * Text to ids and back. SentencePiece-style (scores, byte fallback) and byte-level BPE (merges).
 * ============================================================================================== */

typedef struct sm_tokenizer sm_tokenizer;

enum sm_text_flags {
    SM_TEXT_BOS = 1,     /* put the BOS id in front if the vocabulary asks for one */
    SM_TEXT_SPECIAL = 2, /* text such as "<|im_end|>" in the input becomes its special id */
    SM_TEXT_RAW = 4      /* detokenize: also write the text of control tokens */
};

/* A tokenizer holds the workspace for texts of up to max_text_bytes bytes (about 50 bytes a byte).
 * Returns SM_OK | SM_ERR_ARG | SM_ERR_UNSUPPORTED (no vocabulary) | SM_ERR_NOMEM.
 * Threads one caller per tokenizer; the model is shared. */
SM_API sm_status sm_tokenizer_create(const sm_model *model, size_t max_text_bytes,
                                     const sm_allocator *allocator, sm_tokenizer **tokenizer,
                                     sm_error *error);
SM_API void sm_tokenizer_destroy(sm_tokenizer *tokenizer);

/* Text to ids.
 *   text   [bytes]  UTF-8; invalid bytes become byte tokens (or the unknown id)
 *   flags           SM_TEXT_BOS | SM_TEXT_SPECIAL
 *   ids    [max]    out, int32; NULL with max 0 = count only; 2 * bytes + 2 ids always suffice
 *   n_ids           out, how many ids the text has, also when max is too small (SM_ERR_FULL)
 * Control tokens are formed by SM_TEXT_SPECIAL only, never by merging. Bytes for which there is
 * neither a token nor an unknown id are dropped.
 * Returns SM_OK | SM_ERR_ARG | SM_ERR_FULL (more than max ids; or more text than the workspace,
 *         then *n_ids = 0).
 * Source  Sennrich et al. 2016 (arXiv:1508.07909), Kudo and Richardson 2018 (arXiv:1808.06226). */
SM_API sm_status sm_tokenize(sm_tokenizer *tokenizer, const char *text, size_t bytes, int flags,
                             int32_t *ids, int max, int *n_ids);

/* Ids to text, as it would be streamed: valid UTF-8, bad bytes become U+FFFD (one for each longest
 * beginning of a character that breaks off). Control and unknown tokens are silent without
 * SM_TEXT_RAW.
 *   text   [max]    out, NUL-terminated when max > 0; NULL with max 0 = count only
 *   bytes           out, length without the NUL, also on SM_ERR_FULL
 * Returns SM_OK | SM_ERR_ARG (an id out of range) | SM_ERR_FULL. */
SM_API sm_status sm_detokenize(const sm_model *model, const int32_t *ids, int n, int flags,
                               char *text, size_t max, size_t *bytes);

/* The raw bytes of one token (SentencePiece's U+2581 already a space); may be part of a character.
 * Not terminated; control tokens give their literal text. Valid while the model is open. NULL: id
 * out of range, or no vocabulary. */
SM_API const char *sm_token_text(const sm_model *model, int32_t id, size_t *bytes);
/* 1 when the id ends a generation (eos, eot and the like). */
SM_API int sm_token_is_end(const sm_model *model, int32_t id);

/* A streaming decoder: push tokens, get text that never ends inside a character. */
typedef struct sm_decoder {
    unsigned char tail[4]; /* the bytes of a character that is not complete yet */
    int n_tail;
    int started; /* whether the first token's leading space was dealt with */
} sm_decoder;

SM_API void sm_decoder_init(sm_decoder *decoder);
/* Writes the text of one token to out [max]; *bytes = how many. max >= 3 * its bytes + 12 always
 * suffices; SM_ERR_FULL writes nothing. */
SM_API sm_status sm_decoder_push(sm_decoder *decoder, const sm_model *model, int32_t id, int flags,
                                 char *out, size_t max, size_t *bytes);
/* What is left at the end: an incomplete character becomes U+FFFD. max >= 4. */
SM_API size_t sm_decoder_flush(sm_decoder *decoder, char *out, size_t max);

/* ================================================================================================
 * MARK: [SM09] CONTEXT API
 * A context owns the tape, the scratch memory, the KV cache and the rows of logits.
 * ============================================================================================== */

typedef struct sm_ctx sm_ctx;

/* What a trace callback sees: a step's output, rows of `width` floats. */
typedef struct sm_trace {
    const char *step; /* "embed", "attn_norm", "attend", "ffn_out" ... */
    int layer;        /* -1 outside the layers */
    int row0, rows;   /* batch entries that the rows belong to */
    int width;
    size_t stride;     /* floats from one row to the next */
    const float *data; /* [rows, width] */
} sm_trace;

typedef struct sm_ctx_params {
    int n_ctx;      /* tokens a sequence can hold; 0 = the model's training length, at most 4096 */
    int n_seqs;     /* sequences, numbered from 0; 0 = 1; at most 1024 */
    int n_batch;    /* tokens evaluated at once (longer batches are cut); 0 = automatic */
    int kv_tokens;  /* KV capacity shared by all sequences; 0 = n_ctx * n_seqs */
    int key_type, value_type; /* of the KV cache, SM_TYPE_: F32, F16, BF16, Q8_0 (8.5 bits an
                       element) or Q4_0 (4.5), the last two for models whose head_dim is a multiple
                       of 32; SM_TYPE_AUTO = F16 */
    int max_logits; /* rows of logits of one batch; 0 = n_seqs */
    int max_text;   /* bytes of text that prompts may have; 0 = 4 * n_ctx within [4096, 65536] */
    int max_lora_rank; /* of adapters that will be set; 0 = none will */
    int n_threads;  /* without team: members of a team of the context's own; 0 = processors */
    sm_team *team;  /* shared team, or NULL */
    int isa;        /* sm_isa: SM_ISA_AUTO, or a level to force */
    int amx;        /* 1: SM_ISA_AUTO may choose SM_ISA_AMX. For that sm_ctx_plan and sm_ctx_create
                       ask Linux to let this process use tiles (so does forcing the level), which
                       cannot be taken back: frames of signals grow by 8 KB, and a sigaltstack too
                       small for them fails. Not granted or not there: the next best level */
    int huge_pages; /* 1: ask for 2 MB pages (Linux, a hint) */
    int profile;    /* 1: time every step, see sm_ctx_profile */
    /* Called after every step with its output; makes a pass slow. NULL = off. */
    void (*trace)(void *user, const sm_trace *trace);
    void *trace_user;
    sm_log_fn log;
    void *log_user;
    sm_allocator allocator;
} sm_ctx_params;

/* Bytes of a context, by purpose. total is exact: what sm_ctx_create allocates. */
typedef struct sm_plan {
    size_t total_bytes;
    size_t kv_bytes, scratch_bytes, logits_bytes, tape_bytes, text_bytes, team_bytes;
    size_t weight_bytes;   /* of the model, mapped or copied; not part of total */
    /* What the automatic values became. */
    int n_ctx, n_seqs, n_batch, n_threads, isa, key_type, value_type;
} sm_plan;

SM_API sm_ctx_params sm_ctx_default(void);
/* How much memory a context would take. Allocates nothing.
 * Returns SM_OK | SM_ERR_ARG | SM_ERR_UNSUPPORTED (isa, types) | SM_ERR_FULL (sizes overflow). */
SM_API sm_status sm_ctx_plan(const sm_model *model, const sm_ctx_params *params, sm_plan *plan,
                             sm_error *error);
/* Make a context: one allocation of plan.total_bytes (plus what the system takes for threads). */
SM_API sm_status sm_ctx_create(const sm_model *model, const sm_ctx_params *params, sm_ctx **ctx,
                               sm_error *error);
/* The same inside memory of the caller's (any alignment); SM_ERR_FULL when bytes is too small.
 * The memory must stay until sm_ctx_destroy. */
SM_API sm_status sm_ctx_create_in(const sm_model *model, const sm_ctx_params *params, void *memory,
                                  size_t bytes, sm_ctx **ctx, sm_error *error);
/* Cancels a pending pass, joins the own threads, gives everything back. NULL is allowed. */
SM_API void sm_ctx_destroy(sm_ctx *ctx);
/* Why the last call on this context failed; "" when none did. Valid until the next call. */
SM_API const char *sm_ctx_error(const sm_ctx *ctx);
SM_API const sm_model *sm_ctx_model(const sm_ctx *ctx);
/* The context's own tokenizer, or NULL when the model has no vocabulary. */
SM_API sm_tokenizer *sm_ctx_tokenizer(sm_ctx *ctx);

/* Tokens to evaluate. Entry i appends tokens[i] to sequence seqs[i]; entries of a sequence are in
 * order; any number of sequences may share a batch. */
typedef struct sm_batch {
    int n;
    const int32_t *tokens; /* [n] ids in [0, n_vocab) */
    const int32_t *seqs;   /* [n] sequences, or NULL = all of them sequence 0 */
    const uint8_t *want;   /* [n] 1 = keep this entry's logits, or NULL = the last entry's only */
} sm_batch;

/* Evaluate a batch: blocks until it is done. A pass is a transaction: on any error, and when it is
 * cancelled, every sequence is as before.
 * Returns SM_OK | SM_ERR_ARG | SM_ERR_FULL (a sequence, the KV pool or the logits rows) |
 *         SM_ERR_BUSY (a pass is pending) | SM_ERR_CANCELLED. */
SM_API sm_status sm_eval(sm_ctx *ctx, const sm_batch *batch);
/* The same in slices: begin copies the batch, then step until it does not return SM_PENDING. */
SM_API sm_status sm_eval_begin(sm_ctx *ctx, const sm_batch *batch);
/* Work for about budget_us microseconds, at most one tile (about 100 us) longer; 0 = one tile;
 * negative = to the end. Returns SM_OK (done) | SM_PENDING | SM_ERR_CANCELLED | SM_ERR_ARG. */
SM_API sm_status sm_eval_step(sm_ctx *ctx, int64_t budget_us);
/* The number of the pass that is pending, or 0. From any thread. */
SM_API uint32_t sm_eval_pass(const sm_ctx *ctx);
/* Ask for the end of that pass (0 = whichever is pending); a pass that already ended is not
 * touched. From any thread; the pass ends within one tile. */
SM_API void sm_cancel(sm_ctx *ctx, uint32_t pass);
/* Logits [n_vocab] after batch entry i, unnormalised; negative i counts from the last entry (-1).
 * NULL when they were not wanted. Valid until the next pass begins. */
SM_API const float *sm_logits(const sm_ctx *ctx, int i);

/* From the next pass on, compute with an adapter of the context's model, which must stay open; or
 * without (NULL, or scale 0: to the bit as before). No weight is touched or copied, whatever its
 * type: each product y = W x + bias is followed by y += B ((scale * alpha / rank) (A x)), where A
 * and B are F32 matrices, summed in the order of all others, and y is what the product was written
 * or added to. Keys and values that a sequence holds stay those of the adapter that made them:
 * release or rewind what shall be computed anew.
 *   scale  in [-1e6, 1e6]
 * Returns SM_OK | SM_ERR_ARG (the adapter is another model's; the scale) | SM_ERR_FULL (its rank is
 *         above max_lora_rank) | SM_ERR_UNSUPPORTED (it has a pair for what is no product here,
 *         like token_embd) | SM_ERR_BUSY (a pass is pending); on error the old one stays. */
SM_API sm_status sm_ctx_set_adapter(sm_ctx *ctx, const sm_adapter *adapter, float scale);

/* Sequences. While a pass is pending the three that change something answer SM_ERR_BUSY. */
SM_API int sm_seq_length(const sm_ctx *ctx, int seq);
/* `to` becomes a copy of `from` that shares its blocks until one of them writes (copy on write). */
SM_API sm_status sm_seq_fork(sm_ctx *ctx, int from, int to);
/* Keep the first `length` tokens. */
SM_API sm_status sm_seq_rewind(sm_ctx *ctx, int seq, int length);
/* Forget the sequence and give its blocks back. */
SM_API sm_status sm_seq_release(sm_ctx *ctx, int seq);

typedef struct sm_ctx_stats {
    sm_plan plan;
    size_t used_bytes;    /* equals plan.total_bytes */
    uint64_t heap_calls;  /* calls of the allocator by this context: 1 or 0, however long it runs */
    sm_pool_stats pool;   /* KV blocks and rows of logits */
    uint64_t passes, tokens;
    int n_steps;          /* of the tape */
    const char *isa;      /* the kernels that were chosen */
} sm_ctx_stats;

SM_API sm_ctx_stats sm_ctx_get_stats(const sm_ctx *ctx);

/* One step of the tape and what it cost since the context was made (params.profile). */
typedef struct sm_profile {
    const char *step;
    int layer;
    uint64_t calls, ns;
    uint64_t bytes, ops; /* read and computed, by the step's shape */
} sm_profile;

/* The i-th step, i in [0, n_steps); SM_ERR_ARG otherwise. */
SM_API sm_status sm_ctx_profile(const sm_ctx *ctx, int i, sm_profile *profile);

/* ================================================================================================
 * MARK: [SM10] SAMPLER API
 * From logits to an id. Pure: the logits are const, the randomness is a function of numbers.
 * ============================================================================================== */

/* The order is: repetition penalty, top-k, top-p, min-p, temperature, draw. */
typedef struct sm_sampler {
    float temperature;    /* <= 0: greedy, the largest logit (lowest id on a tie) */
    int top_k;            /* keep the k most likely; 0 = off */
    float top_p;          /* keep the smallest set with this probability; 0 or >= 1 = off */
    float min_p;          /* keep what has this share of the best one's probability; 0 = off */
    float repeat_penalty; /* divides positive, multiplies negative logits of recent ids; 0, 1 = off.
                             Keskar et al. 2019 (arXiv:1909.05858) */
    int repeat_window;    /* how many recent ids; 0 = 64 */
    uint64_t seed;
} sm_sampler;

/* Bytes of workspace for sm_sample. */
#define SMALLMIND_SAMPLE_BYTES(n_vocab) ((size_t)(n_vocab) * 8u)

/* Choose an id.
 *   logits [n_vocab]  f32, const; NaN counts as -inf
 *   recent [n_recent] int32, the ids so far, latest last; NULL with 0
 *   index             number of the draw: the same (seed, stream, index) draws the same
 *   work              SMALLMIND_SAMPLE_BYTES(n_vocab) bytes, 4-byte aligned; NULL when greedy
 *                     without penalty
 * Returns the id, or -1 for a bad argument. */
SM_API int32_t sm_sample(const sm_sampler *sampler, const float *logits, int n_vocab,
                         const int32_t *recent, int n_recent, uint64_t stream, uint64_t index,
                         void *work);
/* 32 random bits as a function of (seed, stream, index): Philox4x32-10, Salmon et al. 2011. */
SM_API uint32_t sm_random(uint64_t seed, uint64_t stream, uint64_t index);

/* ================================================================================================
 * MARK: [SM11] GENERATION API
 * Prompt in, text out: whole, or in slices for a game loop.
 * ============================================================================================== */

typedef enum sm_finish {
    SM_FINISH_NONE = 0,  /* still running */
    SM_FINISH_END,       /* the model ended: an end id or one of stop_ids */
    SM_FINISH_STOP,      /* a stop string appeared; it is not part of the text */
    SM_FINISH_LENGTH,    /* max_tokens */
    SM_FINISH_FULL,      /* the context is full */
    SM_FINISH_CALLBACK,  /* on_piece returned non-zero */
    SM_FINISH_CANCELLED, /* sm_cancel */
    SM_FINISH_ERROR
} sm_finish;

#define SMALLMIND_MAX_STOPS 8       /* stop strings, and stop ids */
#define SMALLMIND_MAX_STOP_BYTES 64 /* of one stop string */

typedef struct sm_gen_params {
    const char *prompt;         /* UTF-8; or prompt_ids */
    size_t prompt_bytes;        /* 0 = strlen(prompt) */
    const int32_t *prompt_ids;  /* instead of prompt */
    int n_prompt_ids;
    int text_flags;             /* SM_TEXT_*: for the prompt */
    int max_tokens;             /* 0 = until the context is full */
    sm_sampler sampler;
    const char *const *stops;   /* stop strings */
    int n_stops;
    const int32_t *stop_ids;    /* besides the model's own end ids */
    int n_stop_ids;
    int ignore_end;             /* 1: go on after the model's own end ids */
    int seq;                    /* the sequence */
    int append;                 /* 1: after what the sequence holds (chat); 0: from an empty one */
    uint64_t stream;            /* number of the random stream; the sequence's when 0 */
} sm_gen_params;

typedef struct sm_gen_stats {
    int prompt_tokens, new_tokens; /* evaluated from the prompt; generated */
    sm_finish finish;
    uint64_t prompt_ns;      /* until the prompt's logits were there */
    uint64_t first_token_ns; /* until the first id was chosen */
    uint64_t decode_ns;      /* after that */
} sm_gen_stats;

typedef struct sm_gen sm_gen;

SM_API sm_gen_params sm_gen_default(void);

/* Start a generation: tokenizes the prompt, evaluates nothing yet. One generation per sequence; it
 * lives in the context until the next start on that sequence.
 * Returns SM_OK | SM_ERR_ARG | SM_ERR_FULL (prompt too long; nothing changed) | SM_ERR_BUSY. */
SM_API sm_status sm_gen_start(sm_ctx *ctx, const sm_gen_params *params, sm_gen **gen);
/* Work for about budget_us microseconds (see sm_eval_step; negative = until a token is there).
 * Returns after each token, and when the budget is spent: SM_PENDING = more to come, SM_OK =
 * finished, or an error. Between two steps the context belongs to this generation when a pass is
 * pending (sm_eval_pass != 0). */
SM_API sm_status sm_gen_step(sm_gen *gen, int64_t budget_us);
/* The text that the last step produced, NUL-terminated, whole characters; often empty. */
SM_API const char *sm_gen_piece(const sm_gen *gen, size_t *bytes);
/* The id that the last step chose, or -1. */
SM_API int32_t sm_gen_token(const sm_gen *gen);
SM_API sm_gen_stats sm_gen_get_stats(const sm_gen *gen);

/* Prompt in, text out: a loop over the three above. on_piece (may be NULL) gets every piece of
 * text; a value other than 0 stops. stats may be NULL. Returns as sm_gen_step; SM_OK = finished. */
SM_API sm_status sm_generate(sm_ctx *ctx, const sm_gen_params *params,
                             int (*on_piece)(void *user, const char *piece, size_t bytes),
                             void *user, sm_gen_stats *stats);

/* ================================================================================================
 * MARK: [SM12] TRAINER API
 * Learning: exact gradients for every architecture of the table, an optimiser, a schedule. All in
 * F32; the bits depend on the parameters, the tokens and the seed only, not on threads, levels of
 * kernels or checkpointing. SMALLMIND_NO_TRAIN leaves it out.
 * ============================================================================================== */

#ifndef SMALLMIND_NO_TRAIN

typedef enum sm_schedule {
    SM_SCHEDULE_CONSTANT = 0,    /* rate */
    SM_SCHEDULE_COSINE = 1,      /* half a cosine down to rate * final_ratio at total_steps */
    SM_SCHEDULE_STEP = 2,        /* times gamma after every every_steps steps */
    SM_SCHEDULE_EXPONENTIAL = 3, /* times gamma after every step */
    SM_SCHEDULE_ONE_CYCLE = 4    /* rate / 25 up to rate in warmup_steps, then down to
                                    rate * final_ratio at total_steps, both by half a cosine (Smith
                                    and Topin 2018, arXiv:1708.07120) */
} sm_schedule;

/* The learning rate as a function of the step, counted from 0. All schedules but the last begin
 * with a linear warm-up: rate * (step + 1) / warmup_steps; their own steps count from its end. */
typedef struct sm_rate {
    int schedule;    /* sm_schedule */
    float rate;      /* 0 = 0.0003 */
    int warmup_steps;
    int total_steps; /* COSINE, ONE_CYCLE; more than warmup_steps */
    float final_ratio;
    int every_steps; /* STEP; 0 = 1 */
    float gamma;     /* STEP, EXPONENTIAL; 0 = 0.1 and 0.999 */
} sm_rate;

SM_API float sm_rate_at(const sm_rate *rate, uint64_t step);

typedef enum sm_compute {
    SM_COMPUTE_F32 = 0,
    SM_COMPUTE_BF16 = 1, /* both factors of the products of linear layers, forward and backward, are
                            rounded to BF16 first (Kalamkar et al. 2019, arXiv:1905.12322). Sums,
                            weights, moments and all else stay F32; no loss scaling is needed */
    SM_COMPUTE_BF16_AMX = 2 /* the same by AMX's BF16 tiles, several times as fast. They sum pairs
                               in an order of their own and take denormals for 0, so that the bits
                               are those of this kind of processor, still on any number of threads.
                               Asks Linux for tiles as sm_ctx_params.amx does; SM_ERR_UNSUPPORTED
                               where there are none */
} sm_compute;

typedef enum sm_optimizer {
    SM_OPTIMIZER_ADAMW = 0, /* Loshchilov and Hutter 2019 (arXiv:1711.05101) */
    SM_OPTIMIZER_SGD = 1    /* with momentum */
} sm_optimizer;

/* The matrices of a layer that LoRA learns for. */
enum sm_lora_target {
    SM_LORA_Q = 1, /* any of the first three: gpt2's fused matrix of all three */
    SM_LORA_K = 2,
    SM_LORA_V = 4,
    SM_LORA_OUTPUT = 8, /* of attention */
    SM_LORA_GATE = 16,
    SM_LORA_UP = 32,
    SM_LORA_DOWN = 64
};

typedef struct sm_trainer_params {
    /* What to train: an opened model of F32, F16 or BF16 weights, which are copied ... */
    const sm_model *model; /* only needed until the trainer is made */
    /* ... or, without one, a model from scratch: */
    const char *arch;      /* "llama", "qwen2", "qwen3", "gpt2", "cs336"; NULL = "llama" */
    int n_vocab, n_embd, n_layers, n_heads;
    int n_kv_heads;        /* 0 = n_heads */
    int head_dim;          /* 0 = n_embd / n_heads */
    int n_ff;              /* 0 = 4 n_embd; of SwiGLU 8/3 n_embd, to a multiple of 32 */
    float norm_eps;        /* 0 = 1e-5 */
    float rope_base;       /* 0 = 10000 */
    int tied;              /* 1: the embedding is the output matrix too */
    uint64_t seed;         /* of the first weights, and of dropout */

    int n_ctx;             /* tokens of a sequence at most; 0 = the model's length */
    int n_batch;           /* sequences computed at once (a micro-batch); 0 = 1 */
    int n_accum;           /* micro-batches of a step at most; 0 = 1 */
    int checkpoint;        /* n: keep the activations of n layers only, compute the others again
                              (Chen et al. 2016, arXiv:1604.06174); 0 = keep all. Same bits */
    float dropout;         /* of the embedding and of every block's output; 0 = off */

    /* LoRA (Hu et al. 2021, arXiv:2106.09685): the model's weights, of any type, stay as they are
     * and where they are (it must stay open as long as the trainer lives); beside a matrix W [n, k]
     * the parameters are A [rank, k], random, and B [n, rank], zeros:
     * y = W x + lora_alpha / lora_rank * B (A x). W is what its blocks decode to. */
    int lora_rank;         /* 0 = off: all weights are trained */
    float lora_alpha;      /* 0 = 2 * lora_rank */
    int lora_targets;      /* of sm_lora_target, added up; 0 = all of them */

    int compute;           /* sm_compute */
    int optimizer;         /* sm_optimizer */
    sm_rate rate;
    float beta1, beta2;    /* ADAMW; 0 = 0.9 and 0.999 */
    float epsilon;         /* ADAMW; 0 = 1e-8 */
    float weight_decay;    /* decoupled; of matrices, not of norms and biases */
    float momentum;        /* SGD */
    float clip_norm;       /* scale gradients whose norm is larger; 0 = off */

    int n_threads;         /* without team: members of an own one; 0 = processors */
    sm_team *team;
    int isa;               /* sm_isa */
    int huge_pages;        /* 1: ask for 2 MB pages (Linux, a hint) */
    sm_allocator allocator;
} sm_trainer_params;

/* Bytes of a trainer, by purpose. total is exact. */
typedef struct sm_train_plan {
    size_t total_bytes;
    size_t param_bytes, grad_bytes, moment_bytes; /* each moment is as large as the parameters */
    size_t activation_bytes, scratch_bytes, team_bytes;
    uint64_t n_params;
    int n_tensors, n_ctx, n_batch, n_accum, n_threads, isa;
} sm_train_plan;

typedef struct sm_trainer sm_trainer;

SM_API sm_trainer_params sm_trainer_default(void);
/* Returns SM_OK | SM_ERR_ARG | SM_ERR_UNSUPPORTED (a quantised model without lora_rank, isa) |
 *         SM_ERR_FULL (sizes overflow). Allocates nothing. */
SM_API sm_status sm_trainer_plan(const sm_trainer_params *params, sm_train_plan *plan,
                                 sm_error *error);
/* Makes a trainer: one allocation of plan.total_bytes; nothing is allocated later.
 * Returns as sm_trainer_plan, and SM_ERR_NOMEM | SM_ERR_SYSTEM. */
SM_API sm_status sm_trainer_create(const sm_trainer_params *params, sm_trainer **trainer,
                                   sm_error *error);
/* NULL is allowed. */
SM_API void sm_trainer_destroy(sm_trainer *trainer);
/* Why the last call failed; "" when none did. */
SM_API const char *sm_trainer_error(const sm_trainer *trainer);
SM_API sm_train_plan sm_trainer_get_plan(const sm_trainer *trainer);
SM_API uint64_t sm_trainer_steps(const sm_trainer *trainer); /* that were applied */

/* Parameters, and gradients: one flat array each, with the same layout. Matrices come first, then
 * vectors; between tensors there may be zeros. */
SM_API float *sm_trainer_flat_params(sm_trainer *trainer, size_t *n);
SM_API float *sm_trainer_flat_grads(sm_trainer *trainer, size_t *n);
typedef struct sm_train_tensor {
    const char *name;      /* as in GGUF: "blk.0.attn_q.weight", of LoRA with ".lora_a" behind it */
    int rows, columns;     /* rows = 1 for a vector */
    float *params, *grads; /* [rows, columns] */
} sm_train_tensor;
/* The i-th tensor, i in [0, plan.n_tensors), and the one of a name; SM_ERR_ARG when there is none.
 */
SM_API sm_status sm_trainer_tensor_at(sm_trainer *trainer, int i, sm_train_tensor *tensor);
SM_API sm_status sm_trainer_tensor_find(sm_trainer *trainer, const char *name,
                                        sm_train_tensor *tensor);

typedef struct sm_train_batch {
    int n_seqs;             /* at most n_batch * n_accum; the last micro-batch may be shorter */
    int n_tokens;           /* of each sequence; 0 = n_ctx */
    const int32_t *tokens;  /* [n_seqs, n_tokens] */
    const int32_t *targets; /* [n_seqs, n_tokens] what follows each token; -1 = not learned */
    int n_targets;          /* what the loss's sum is divided by; 0 = the targets that count. For
                               gradients that are added up over several machines */
} sm_train_batch;

typedef struct sm_train_stats {
    double loss, perplexity; /* mean cross-entropy in nats; its exponential */
    double accuracy;         /* share of targets that were the most likely token */
    double grad_norm;        /* before clipping */
    double rate;             /* the learning rate used */
    int n_targets;
} sm_train_stats;

/* Loss of a batch, without dropout. stats may be NULL, here and below.
 * Returns SM_OK | SM_ERR_ARG | SM_ERR_NUMBER (a value is not finite: sm_trainer_error names the
 * first step of the tape that gave one). */
SM_API sm_status sm_trainer_eval(sm_trainer *trainer, const sm_train_batch *batch,
                                 sm_train_stats *stats);
/* Gradients of the mean loss of a batch, into flat_grads. */
SM_API sm_status sm_trainer_backward(sm_trainer *trainer, const sm_train_batch *batch,
                                     sm_train_stats *stats);
/* Clips and applies what is in flat_grads; SM_ERR_NUMBER: not finite, nothing was applied. */
SM_API sm_status sm_trainer_update(sm_trainer *trainer, sm_train_stats *stats);
/* Both. On any error parameters, moments and step count are as before. */
SM_API sm_status sm_trainer_step(sm_trainer *trainer, const sm_train_batch *batch,
                                 sm_train_stats *stats);

/* Parameters, moments and step count as bytes of this machine's order: a trainer made with the same
 * params goes on from them bit by bit. load checks them before it changes anything: SM_ERR_FORMAT
 * (damaged) | SM_ERR_UNSUPPORTED (of another shape) | SM_ERR_FULL (save: bytes is too small). */
SM_API size_t sm_trainer_state_bytes(const sm_trainer *trainer);
SM_API sm_status sm_trainer_state_save(sm_trainer *trainer, void *memory, size_t bytes);
SM_API sm_status sm_trainer_state_load(sm_trainer *trainer, const void *memory, size_t bytes);

#endif /* SMALLMIND_NO_TRAIN */

/* ================================================================================================
 * MARK: [SM13] WRITER API
 * GGUF files of version 3, written whole or not at all; and whole models in another type, or from
 * another format.
 * ============================================================================================== */

#ifndef SMALLMIND_NO_WRITER

/* What a metadata value is, numbered as in GGUF. */
typedef enum sm_meta_type {
    SM_META_U8 = 0, /* uint8_t, and so on */
    SM_META_I8 = 1,
    SM_META_U16 = 2,
    SM_META_I16 = 3,
    SM_META_U32 = 4,
    SM_META_I32 = 5,
    SM_META_F32 = 6,
    SM_META_BOOL = 7, /* uint8_t, 0 or 1 */
    SM_META_TEXT = 8, /* NUL-terminated UTF-8 */
    SM_META_U64 = 10,
    SM_META_I64 = 11,
    SM_META_F64 = 12
} sm_meta_type;

/* Where the file goes: path, or write. */
typedef struct sm_writer_params {
    /* UTF-8; the text must stay until the end. A temporary file "path.XXXXXXXX.tmp" is written,
     * flushed to the disk and renamed over path by sm_writer_finish: until then, and whatever
     * fails, path stays what it was. */
    const char *path;
    /* write: takes the next n bytes of the file; anything but 0 is a failure. */
    int (*write)(void *user, const void *bytes, size_t n);
    void *user;
    uint32_t alignment; /* of the tensors' data: a power of two in [8, 2^20]; 0 = 32 */
    sm_allocator allocator;
} sm_writer_params;

typedef struct sm_writer sm_writer;

SM_API sm_writer_params sm_writer_default(void);
/* Start a file: then declare metadata and tensors in any order, then give the tensors' data in the
 * order of their declaration, then finish. The first failure of a writer is final: it removes the
 * temporary file, and every later call returns the same status, so that it is enough to look at
 * what sm_writer_finish returns.
 * Returns SM_OK | SM_ERR_ARG | SM_ERR_NOMEM | SM_ERR_IO (no such folder, no right to write).
 * Memory  one block of 64 KB, and one that holds what was declared: 16 bytes more a key or tensor
 *         than in the file. It grows by half (for a moment there are two) while things are
 *         declared; beginning the data takes 24 bytes a key or tensor for a moment. Data are never
 *         kept: the last allocation is made before the first of them. */
SM_API sm_status sm_writer_open(const sm_writer_params *params, sm_writer **writer,
                                sm_error *error);
/* One value under a key. value: points to the C type that the type names; for text, the text.
 * Returns SM_OK | SM_ERR_ARG (a key that is empty or longer than 65,535 bytes, no such type,
 *         general.alignment, or data was given already) | SM_ERR_NOMEM. A key that is there twice
 *         is found when the data begins. */
SM_API sm_status sm_writer_value(sm_writer *writer, const char *key, int type, const void *value);
/* A list of n values (0 is allowed): an array of the C type; for text, of const char *. */
SM_API sm_status sm_writer_array(sm_writer *writer, const char *key, int type, const void *values,
                                 size_t n);
/* All metadata of a model but the n_except keys listed (and general.alignment, which is the
 * writer's own). A model from another format gets the keys that a GGUF of it has:
 * hyperparameters, and the vocabulary if there is one. SM_ERR_UNSUPPORTED: that one was opened
 * with vocab_only, or has Llama 3's rope scaling, which GGUF keeps in a tensor. */
SM_API sm_status sm_writer_copy(sm_writer *writer, const sm_model *model,
                                const char *const *except, int n_except);
/* The next tensor.
 *   name    1 to 63 bytes, which all readers take
 *   type    sm_type, or GGUF's number of any other type of fixed blocks
 *   dims    [n_dims] 1 to 4, each at least 1; dims[0] is contiguous, a multiple of the block
 * Returns SM_OK | SM_ERR_ARG | SM_ERR_FULL (the file would pass 2^63 bytes, or what this build can
 *         write) | SM_ERR_NOMEM. A name that is there twice is found when the data begins. */
SM_API sm_status sm_writer_tensor(sm_writer *writer, const char *name, int type, int n_dims,
                                  const uint64_t *dims);
/* The next bytes of the tensors' data, in pieces of any size: they may end within a tensor or go on
 * into the next. The padding between tensors is not part of them.
 * Returns SM_OK | SM_ERR_ARG (more than the tensors have; a key or a name is there twice) |
 *         SM_ERR_IO | SM_ERR_NOMEM. */
SM_API sm_status sm_writer_data(sm_writer *writer, const void *data, size_t bytes);
/* Why the writer failed; "" when it did not. Valid until finish or discard. */
SM_API const char *sm_writer_error(const sm_writer *writer);
/* Complete the file and put it in its place; the writer is gone, whatever is returned: SM_OK, what
 * failed first, or SM_ERR_ARG (data is missing) | SM_ERR_IO. The folder is asked to reach the disk
 * too; not every file system does that. */
SM_API sm_status sm_writer_finish(sm_writer *writer, sm_error *error);
/* Give up: no file is left behind. At any time; NULL is allowed. */
SM_API void sm_writer_discard(sm_writer *writer);

/* Which matrices get another type than the rest. */
typedef enum sm_mix {
    SM_MIX_NONE = 0, /* none */
    SM_MIX_S = 1,    /* Q4_K, Q5_K: as llama.cpp's Q4_K_S and Q5_K_S */
    SM_MIX_M = 2     /* as its Q4_K_M and Q5_K_M */
} sm_mix;

typedef struct sm_quantize_progress {
    sm_tensor tensor; /* as the model has it */
    int i_tensor, n_tensors;
    int type;     /* what it becomes */
    int finished; /* 1: all of it has been written */
    uint64_t done_bytes, total_bytes; /* of all tensors, as they become */
    double mse, mean_square; /* params.check, when finished: of its elements' errors, and of them */
} sm_quantize_progress;

typedef struct sm_quantize_params {
    sm_writer_params out;
    int type; /* sm_type; F32 (0), F16 and BF16 too; SM_TYPE_AUTO: every tensor keeps its own */
    int mix;  /* sm_mix */
    /* A rule of your own: gets a matrix and the type meant for it, returns the sm_type to use. */
    int (*choose)(void *user, const sm_tensor *tensor, int type);
    void *choose_user;
    /* Called after every megabyte or so; a value other than 0 cancels. */
    int (*progress)(void *user, const sm_quantize_progress *progress);
    void *progress_user;
    int check;     /* 1: measure the error of every tensor, for progress */
    /* A LoRA adapter, as sm_trainer_write_adapter and llama.cpp's tools write it, that is merged:
     * W becomes W + adapter_scale * alpha / rank * B A, then gets its type. */
    sm_source adapter;   /* a GGUF file; empty = none */
    float adapter_scale; /* 0 = 1 */
    sm_team *team; /* shares the encoding; NULL = the caller's thread alone */
    sm_log_fn log; /* tensors that get another type than asked for */
    void *log_user;
} sm_quantize_params;

SM_API sm_quantize_params sm_quantize_default(void);
/* Write a model in another type; or as GGUF at all (llama2.c and safetensors: the names are GGUF's
 * already, the rows of q and k are put into the order that llama files have, the keys are those of
 * sm_writer_copy). What is not a matrix, norms and learned positions become F32. A matrix whose
 * rows do not consist of whole blocks becomes Q8_0 instead of a K-quant, else F16. Tensors that
 * have their type already, or one that is not computed with here, are copied byte for byte. The
 * bytes do not depend on threads.
 * Returns SM_OK | SM_ERR_ARG | SM_ERR_UNSUPPORTED (a vocabulary only; an adapter of another kind or
 *         architecture) | SM_ERR_FORMAT (a NaN or an infinity for a block type; an adapter that is
 *         damaged, or does not fit the model) | SM_ERR_NOMEM | SM_ERR_IO | SM_ERR_FULL |
 *         SM_ERR_CANCELLED; on error there is no new file, and the old one is as it was.
 * Memory  from params.out.allocator, given back before it returns: the writer's, a buffer of 1 MB
 *         (at least one row), and the adapter as sm_adapter_open has it. */
SM_API sm_status sm_quantize(const sm_model *model, const sm_quantize_params *params,
                             sm_error *error);

#ifndef SMALLMIND_NO_TRAIN
/* What a trainer with lora_rank learned, as a GGUF adapter (F32) that llama.cpp and sm_quantize
 * read. The model may be closed already. Returns SM_OK | SM_ERR_ARG (no LoRA) and as the writer. */
SM_API sm_status sm_trainer_write_adapter(const sm_trainer *trainer, const sm_writer_params *out,
                                          sm_error *error);
#endif

#endif /* SMALLMIND_NO_WRITER */

/* ================================================================================================
 * MARK: [SM14] TOKENIZER TRAINER API
 * From text to a vocabulary: byte-level BPE, or the characters of the text. SMALLMIND_NO_TRAIN
 * leaves it out.
 * ============================================================================================== */

#ifndef SMALLMIND_NO_TRAIN

typedef struct sm_vocab_params {
    int n_vocab;         /* tokens wanted: 256 bytes, what is merged, the special ones; 0 = 4096.
                            There are fewer when no pair is left that occurs min_count times */
    int min_count;       /* rarer pairs are not merged; 0 = 2 */
    int max_token_bytes; /* longer tokens are not made; 0 = 64, at most 1024 */
    int characters;      /* 1: every distinct character of the text becomes a token, and nothing
                            longer. Bytes get tokens of their own only where the text has them;
                            characters beyond ASCII also take those of the bytes they are merged
                            from. n_vocab and the two above do not count then */
    const char *pre;     /* how text is cut into words, as tokenizer.ggml.pre has it: "gpt-2",
                            "llama-bpe", "qwen2", "smollm" ...; NULL = "gpt-2" */
    const char *const *specials; /* control tokens such as "<|endoftext|>"; they get the last ids,
                                    in this order. Where the text has one, it is cut there */
    int n_specials;
    const char *bos, *eos; /* which special ones begin and end a text, or NULL */
    /* Called now and then; a value other than 0 cancels. n_tokens is 0 while words are counted. */
    int (*progress)(void *user, int n_tokens, int n_vocab);
    void *progress_user;
    sm_allocator allocator;
} sm_vocab_params;

/* What a GGUF file says of a byte-level vocabulary (tokenizer.ggml.model = "gpt2"). Texts are
 * NUL-terminated, bytes written as GPT-2 does it. Ids are: the bytes in the order of GPT-2's
 * characters for them, the merged tokens in the order they were found, the special ones. */
typedef struct sm_vocab {
    const char *pre;           /* tokenizer.ggml.pre */
    const char *const *tokens; /* [n_tokens] */
    const int32_t *types;      /* [n_tokens] 1 = normal, 3 = control */
    const char *const *merges; /* [n_merges] "left right", best first */
    int n_tokens, n_merges;
    int32_t bos, eos; /* ids, or -1 */
} sm_vocab;

SM_API sm_vocab_params sm_vocab_default(void);
/* Make a vocabulary from text [bytes] (any bytes; it is only read, and only now). The most frequent
 * pair of neighbours in a word becomes a token, again and again; of equally frequent ones the pair
 * with the lower left id, then the lower right id. The same text gives the same vocabulary.
 * Returns  SM_OK | SM_ERR_ARG (also: too little text, n_vocab too small) | SM_ERR_NOMEM |
 *          SM_ERR_UNSUPPORTED (2 GB of distinct words, an unknown pre) | SM_ERR_CANCELLED; on error
 *          *vocab is NULL.
 * Memory   while it runs at most 80 bytes for each byte of a distinct word, 144 for each distinct
 *          word and 40 for each token; then the lists. sm_vocab_destroy gives all back.
 * Source   Sennrich et al. 2016 (arXiv:1508.07909); Radford et al. 2019 for the bytes. */
SM_API sm_status sm_vocab_train(const sm_vocab_params *params, const char *text, size_t bytes,
                                sm_vocab **vocab, sm_error *error);
/* NULL is allowed. */
SM_API void sm_vocab_destroy(sm_vocab *vocab);
/* A model that has this vocabulary and nothing else: for sm_tokenizer_create, sm_detokenize and the
 * like. It copies what it needs; sm_model_close closes it. allocator may be NULL.
 * Returns SM_OK | SM_ERR_ARG | SM_ERR_NOMEM. */
SM_API sm_status sm_vocab_open(const sm_vocab *vocab, const sm_allocator *allocator,
                               sm_model **model, sm_error *error);

#ifndef SMALLMIND_NO_WRITER

/* What was trained as a GGUF file: sm_writer_open, keys of your own, the calls below in this order,
 * sm_writer_finish. A trainer that was made from an opened model takes keys and vocabulary from it
 * by sm_writer_copy, and needs sm_writer_weights only.
 *   describe  the keys of the architecture: general.architecture, llama.block_count and so on
 *   vocab     the vocabulary's keys; NULL says that there is none
 *   weights   all tensors as F32, declared and given; sm_quantize makes other types of the file
 *   state     instead of weights: a tensor "trainer.state" of bytes, as sm_trainer_state_save gives
 *             them. A checkpoint: open it with sm_model_params.vocab_only, give what
 *             sm_model_tensor has to sm_trainer_state_load
 * They return as sm_writer_value, sm_writer_tensor and sm_writer_data. */
SM_API sm_status sm_writer_describe(sm_writer *writer, const sm_trainer *trainer);
SM_API sm_status sm_writer_vocab(sm_writer *writer, const sm_vocab *vocab);
SM_API sm_status sm_writer_weights(sm_writer *writer, const sm_trainer *trainer);
SM_API sm_status sm_writer_state(sm_writer *writer, const sm_trainer *trainer);

#endif /* SMALLMIND_NO_WRITER */

#endif /* SMALLMIND_NO_TRAIN */

#ifdef __cplusplus
}
#endif
#endif /* SMALLMIND_H */

#ifdef SMALLMIND_IMPLEMENTATION
#ifndef SM__IMPLEMENTED
#define SM__IMPLEMENTED

/* ================================================================================================
 * MARK: [SM20] PLATFORM
 * Compilers, instruction sets, system headers and the few system calls that strict C99 hides: those
 * are declared here under our own names. Nothing below this section looks at the platform again.
 * ============================================================================================== */

#include <stdarg.h>
#include <string.h>
#ifndef SMALLMIND_NO_STDIO
#include <stdio.h>
#endif
#include <stdlib.h> /* malloc, free: the default allocator */

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "smallmind.h: only little-endian machines are supported"
#endif

#if defined(__clang__)
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wunknown-warning-option"
#pragma clang diagnostic ignored "-Wreserved-identifier"
#endif

/* The bits must not depend on the host's -ffast-math: GCC is told so for the whole implementation,
 * clang for its plain C; its intrinsics are fenced where needed (SM__KEEP). */
#if defined(__clang__)
#pragma float_control(push)
#pragma float_control(precise, on)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC diagnostic push /* gcc 12's own AVX-512 header: "__Y may be used uninitialized" */
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC push_options
#pragma GCC optimize("no-fast-math", "fp-contract=off")
#endif

#if defined(__GNUC__) || defined(__clang__)
#define SM__INLINE static inline __attribute__((always_inline, unused))
#define SM__UNUSED __attribute__((unused))
#define SM__NOINLINE __attribute__((noinline))
#define SM__TARGET(isa) __attribute__((target(isa), unused))
#define SM__PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define SM__INLINE static __inline
#define SM__UNUSED
#define SM__NOINLINE __declspec(noinline)
#define SM__TARGET(isa)
#define SM__PRINTF(f, a)
#endif

#if defined(__x86_64__) || defined(_M_X64)
#define SM__X86 1
#define SM__X86_64 1
#elif (defined(__i386__) && defined(__SSE2__)) || (defined(_M_IX86_FP) && _M_IX86_FP >= 2)
#define SM__X86 1
#endif
#if defined(SM__X86)
#include <immintrin.h>
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#ifndef SMALLMIND_NO_SSE41
#define SM__HAS_SSE41 1
#endif
#if defined(SM__X86_64) && !defined(SMALLMIND_NO_AVX2)
#define SM__HAS_AVX2 1
#ifndef SMALLMIND_NO_AVX512
#define SM__HAS_AVX512 1
#endif
#endif
#if defined(SM__HAS_AVX512) && !defined(SMALLMIND_NO_AMX) && defined(__linux__)
#if defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11
#define SM__HAS_AMX 1
#endif
#endif
#elif defined(__aarch64__) || defined(_M_ARM64)
#define SM__ARM64 1
#include <arm_neon.h>
#ifndef SMALLMIND_NO_NEON
#define SM__HAS_NEON 1
#endif
#endif

#define SM__SSE41 SM__TARGET("sse4.1,ssse3")
#define SM__AVX2 SM__TARGET("avx2,fma,f16c")
#ifdef SM__EMULATED_AVX512 /* tests only: the intrinsics are functions on AVX2, defined before */
#define SM__AVX512 SM__AVX2
#define SM__AMX SM__AVX2
#else
#define SM__AVX512 SM__TARGET("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")
#define SM__AMX                                                                                    \
    SM__TARGET("amx-tile,amx-int8,amx-bf16,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,"        \
               "avx512bf16,avx2,fma,f16c")
#endif

/* AVX-VNNI: acc += dot products of four unsigned bytes of u with signed ones of s, in 32 bits. As
 * assembly, or functions that may use it could not share what is inlined with those that may not;
 * the braces are %-escaped because bare ones choose between dialects, here the operands' order. */
#if defined(SM__HAS_AVX2) && defined(SM__EMULATED_AVXVNNI) /* tests only: defined before */
#define SM__HAS_AVXVNNI 1
#elif defined(SM__HAS_AVX2) && (defined(__clang__) ? __clang_major__ >= 13 : __GNUC__ >= 11)
#define SM__HAS_AVXVNNI 1 /* the first compilers whose assemblers know it */
#define SM__DPBUSD(acc, u, s)                                                                      \
    __asm__("%{vex%} vpdpbusd {%2, %1, %0|%0, %1, %2}" : "+x"(acc) : "x"(u), "x"(s))
#endif

/* clang under -ffast-math would reorder vector sums and turn divisions into reciprocals: an empty
 * asm that "changes" the value stops it. Everywhere else this is nothing. */
#if defined(__clang__) && defined(__FAST_MATH__) && defined(SM__X86)
#define SM__KEEP(v) __asm__("" : "+x"(v))
#elif defined(__clang__) && defined(__FAST_MATH__) && defined(SM__ARM64)
#define SM__KEEP(v) __asm__("" : "+w"(v))
#else
#define SM__KEEP(v) ((void)0)
#endif

#ifndef SMALLMIND_ASSERT
#define SMALLMIND_ASSERT(x) ((void)0)
#endif

#ifdef _WIN32
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#define SM__UNDEF_LEAN
#endif
#include <windows.h>
#ifdef SM__UNDEF_LEAN
#undef WIN32_LEAN_AND_MEAN
#undef SM__UNDEF_LEAN
#endif
#else
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>
#ifndef SMALLMIND_NO_THREADS
#include <pthread.h>
#include <sched.h>
#endif
/* -std=c99 hides these; a label binds a name of ours to the system's symbol without a clash. */
#ifdef __APPLE__
#define SM__SYMBOL(name) __asm__("_" name)
#else
#define SM__SYMBOL(name) __asm__(name)
#endif
#ifdef __cplusplus
extern "C" {
#endif
typedef struct sm__timespec {
    long seconds, nanoseconds;
} sm__timespec;
extern int sm__clock_gettime(int clock, sm__timespec *t) SM__SYMBOL("clock_gettime");
extern int sm__madvise(void *memory, size_t bytes, int advice) SM__SYMBOL("madvise");
#ifdef SM__HAS_AMX
extern long sm__syscall(long number, ...) SM__SYMBOL("syscall");
#endif
#ifdef __cplusplus
}
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Monotonic time in nanoseconds. */
static uint64_t sm__now_ns(void) {
#ifdef _WIN32
    LARGE_INTEGER f, t;
    QueryPerformanceFrequency(&f);
    QueryPerformanceCounter(&t);
    return (uint64_t)(t.QuadPart / f.QuadPart) * 1000000000u +
           (uint64_t)(t.QuadPart % f.QuadPart) * 1000000000u / (uint64_t)f.QuadPart;
#else
    sm__timespec t = {0, 0};
#ifdef __APPLE__
    sm__clock_gettime(6, &t); /* CLOCK_MONOTONIC */
#else
    sm__clock_gettime(1, &t);
#endif
    return (uint64_t)t.seconds * 1000000000u + (uint64_t)t.nanoseconds;
#endif
}

SM__UNUSED static int sm__cpu_count(void) {
#ifdef _WIN32
    SYSTEM_INFO info;
    GetSystemInfo(&info);
    return (int)info.dwNumberOfProcessors;
#else
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > 256 ? 256 : (int)n;
#endif
}

/* The rounding mode and the flush-denormals bits belong to the host; while our arithmetic runs they
 * are ours (nearest even, no flushing), and they are put back after. */
SM__INLINE uint64_t sm__fp_enter(void) {
#if defined(SM__X86)
    unsigned old = _mm_getcsr();
    _mm_setcsr(0x1F80u);
    return old;
#elif defined(SM__ARM64) && !defined(_MSC_VER)
    uint64_t old, ours = 0;
    __asm__ __volatile__("mrs %0, fpcr" : "=r"(old));
    __asm__ __volatile__("msr fpcr, %0" : : "r"(ours));
    return old;
#else
    return 0;
#endif
}

SM__INLINE void sm__fp_leave(uint64_t old) {
#if defined(SM__X86)
    _mm_setcsr((unsigned)old);
#elif defined(SM__ARM64) && !defined(_MSC_VER)
    __asm__ __volatile__("msr fpcr, %0" : : "r"(old));
#else
    (void)old;
#endif
}

/* Atomics: the compilers' builtins, which C99 and C++ share, or Interlocked. All are sequentially
 * consistent unless the name says otherwise; they are far from the inner loops. */
#if defined(_MSC_VER) && !defined(__clang__)
SM__INLINE uint32_t sm__load32(const volatile uint32_t *p) {
    return (uint32_t)InterlockedOr((volatile LONG *)p, 0);
}
SM__INLINE void sm__store32(volatile uint32_t *p, uint32_t v) {
    InterlockedExchange((volatile LONG *)p, (LONG)v);
}
SM__INLINE uint32_t sm__add32(volatile uint32_t *p, uint32_t v) { /* returns the old value */
    return (uint32_t)InterlockedExchangeAdd((volatile LONG *)p, (LONG)v);
}
SM__INLINE uint64_t sm__load64(const volatile uint64_t *p) {
    return (uint64_t)InterlockedOr64((volatile LONG64 *)p, 0);
}
SM__INLINE uint64_t sm__swap64(volatile uint64_t *p, uint64_t v) {
    return (uint64_t)InterlockedExchange64((volatile LONG64 *)p, (LONG64)v);
}
SM__INLINE int sm__cas64(volatile uint64_t *p, uint64_t *expected, uint64_t v) {
    uint64_t old =
        (uint64_t)InterlockedCompareExchange64((volatile LONG64 *)p, (LONG64)v, (LONG64)*expected);
    int same = old == *expected;
    *expected = old;
    return same;
}
#else
SM__INLINE uint32_t sm__load32(const volatile uint32_t *p) {
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}
SM__INLINE void sm__store32(volatile uint32_t *p, uint32_t v) {
    __atomic_store_n(p, v, __ATOMIC_SEQ_CST);
}
SM__INLINE uint32_t sm__add32(volatile uint32_t *p, uint32_t v) { /* returns the old value */
    return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);
}
SM__INLINE uint64_t sm__load64(const volatile uint64_t *p) {
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}
SM__INLINE uint64_t sm__swap64(volatile uint64_t *p, uint64_t v) {
    return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);
}
SM__INLINE int sm__cas64(volatile uint64_t *p, uint64_t *expected, uint64_t v) {
    return __atomic_compare_exchange_n(p, expected, v, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}
#endif

/* A hint to the processor that this is a waiting loop. */
SM__INLINE void sm__relax(void) {
#if defined(SM__X86)
    _mm_pause();
#elif defined(SM__ARM64) && !defined(_MSC_VER)
    __asm__ __volatile__("yield");
#endif
}

SM__INLINE int sm__min(int a, int b) { return a < b ? a : b; }
SM__INLINE int sm__max(int a, int b) { return a > b ? a : b; }
SM__INLINE size_t sm__min_size(size_t a, size_t b) { return a < b ? a : b; }
SM__INLINE size_t sm__max_size(size_t a, size_t b) { return a > b ? a : b; }

/* ================================================================================================
 * MARK: [SM21] ERRORS
 * An error return is one line: return sm__fail(error, SM_ERR_FORMAT, "tensor %s: ...", name).
 * ============================================================================================== */

SM_API const char *sm_status_text(int status) {
#define SM__STATUS_TEXT(name, value, text)                                                         \
    if (status == (value)) return text;
    SM_STATUS_LIST(SM__STATUS_TEXT)
#undef SM__STATUS_TEXT
    return "unknown status";
}

#if !defined(SMALLMIND_VSNPRINTF) && !defined(SMALLMIND_NO_STDIO)
#ifdef STB_SPRINTF_H_INCLUDE
#define SMALLMIND_VSNPRINTF(buf, n, fmt, args) stbsp_vsnprintf(buf, (int)(n), fmt, args)
#else
#define SMALLMIND_VSNPRINTF(buf, n, fmt, args) vsnprintf(buf, n, fmt, args)
#endif
#endif

/* The formats used are %s %d %u %x %c %llu only. */
SM__PRINTF(3, 4)
static sm_status sm__fail(sm_error *error, sm_status status, const char *fmt, ...) {
    if (!error) return status;
    error->status = status;
#ifdef SMALLMIND_VSNPRINTF
    va_list args;
    va_start(args, fmt);
    SMALLMIND_VSNPRINTF(error->text, sizeof error->text, fmt, args);
    va_end(args);
#else
    (void)fmt;
    memset(error->text, 0, sizeof error->text);
    memcpy(error->text, sm_status_text(status), strlen(sm_status_text(status)));
#endif
    return status;
}

/* ================================================================================================
 * MARK: [SM22] MEMORY
 * Checked sizes, the host's allocator with 64-byte alignment, the arena that counts or places, and
 * the pool.
 * ============================================================================================== */

#define SM__ALIGN 64

/* *out = a * b; 1 = it overflows (then *out is SIZE_MAX, so that a later check fails too). */
SM__INLINE int sm__mul_size(size_t a, size_t b, size_t *out) {
    int overflow = b != 0 && a > SIZE_MAX / b;
    *out = overflow ? SIZE_MAX : a * b;
    return overflow;
}
SM__INLINE int sm__add_size(size_t a, size_t b, size_t *out) {
    int overflow = a > SIZE_MAX - b;
    *out = overflow ? SIZE_MAX : a + b;
    return overflow;
}
SM__INLINE size_t sm__round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

SM__INLINE unsigned char *sm__align_pointer(void *p) {
    unsigned char *c = (unsigned char *)p;
    return c + ((SM__ALIGN - ((uintptr_t)c & (SM__ALIGN - 1))) & (SM__ALIGN - 1));
}

/* The host's allocator, with a count. */
typedef struct sm__heap {
    sm_allocator host;
    uint64_t calls; /* alloc and free */
    size_t bytes;   /* held now */
} sm__heap;

typedef struct sm__heap_header { /* in the 64 bytes before what sm__heap_alloc returns */
    void *raw;
    size_t bytes; /* as asked from the host */
} sm__heap_header;

static sm__heap sm__heap_make(const sm_allocator *host) {
    sm__heap heap;
    memset(&heap, 0, sizeof heap);
    if (host) heap.host = *host;
    return heap;
}

/* 64-byte aligned, not cleared; NULL when there is none. */
static void *sm__heap_alloc(sm__heap *heap, size_t bytes) {
    size_t total;
    void *raw;
    unsigned char *p;
    sm__heap_header header;
    if (sm__add_size(bytes, 2 * SM__ALIGN, &total)) return NULL;
    heap->calls++;
    raw = heap->host.alloc ? heap->host.alloc(total, heap->host.user) : malloc(total);
    if (!raw) return NULL;
    p = sm__align_pointer((unsigned char *)raw + SM__ALIGN);
    header.raw = raw;
    header.bytes = total;
    memcpy(p - SM__ALIGN, &header, sizeof header);
    heap->bytes += total;
    return p;
}

static void sm__heap_free(sm__heap *heap, void *p) {
    sm__heap_header header;
    if (!p) return;
    memcpy(&header, (unsigned char *)p - SM__ALIGN, sizeof header);
    heap->calls++;
    heap->bytes -= header.bytes;
    if (heap->host.free) heap->host.free(header.raw, header.bytes, heap->host.user);
    else free(header.raw);
}

/* An allocator is either whole or absent. */
static int sm__allocator_ok(const sm_allocator *a) { return (!a->alloc) == (!a->free); }

/* A bump arena. With base NULL it only counts: the same layout code runs twice, once to plan and
 * once to place, so the plan cannot differ from what is used. Reset is used = 0. */
typedef struct sm__arena {
    unsigned char *base; /* 64-byte aligned, or NULL */
    size_t used;
    int overflow;
} sm__arena;

static void *sm__arena_take(sm__arena *arena, size_t count, size_t elem_bytes) {
    size_t bytes, end, at = arena->used;
    if (sm__mul_size(count, elem_bytes, &bytes) || sm__add_size(bytes, SM__ALIGN - 1, &bytes) ||
        sm__add_size(at, bytes / SM__ALIGN * SM__ALIGN, &end)) {
        arena->overflow = 1;
        return NULL;
    }
    arena->used = end;
    return arena->base ? arena->base + at : NULL;
}

/* --- the pool --------------------------------------------------------------------------------- */

typedef struct sm__pool_class {
    unsigned char *blocks;
    size_t size; /* of a block, a multiple of 64 */
    uint32_t count, n_free;
    uint32_t *free_list; /* [count] a stack of block numbers */
    uint32_t *owners;    /* [count] */
} sm__pool_class;

struct sm_pool {
    sm__pool_class classes[SMALLMIND_POOL_CLASSES];
    int n_classes;
    sm_pool_stats stats;
};

/* Counts (arena->base NULL, returns NULL) or places a pool. */
static sm_pool *sm__pool_layout(sm__arena *arena, const size_t *sizes, const uint32_t *counts,
                                int n_classes) {
    sm_pool *pool = (sm_pool *)sm__arena_take(arena, 1, sizeof *pool);
    int c;
    uint32_t i;
    if (pool) {
        memset(pool, 0, sizeof *pool);
        pool->n_classes = n_classes;
    }
    for (c = 0; c < n_classes; c++) {
        int huge = sizes[c] > SIZE_MAX - SM__ALIGN;
        size_t size = huge ? SIZE_MAX : sm__round_up(sizes[c], SM__ALIGN);
        uint32_t *owners = (uint32_t *)sm__arena_take(arena, counts[c], sizeof *owners);
        uint32_t *free_list = (uint32_t *)sm__arena_take(arena, counts[c], sizeof *free_list);
        unsigned char *blocks = (unsigned char *)sm__arena_take(arena, counts[c], size);
        if (!pool) continue;
        pool->classes[c].blocks = blocks;
        pool->classes[c].size = size;
        pool->classes[c].count = pool->classes[c].n_free = counts[c];
        pool->classes[c].owners = owners;
        pool->classes[c].free_list = free_list;
        pool->stats.capacity_bytes += size * counts[c];
        for (i = 0; i < counts[c]; i++) owners[i] = 0, free_list[i] = counts[c] - 1 - i;
    }
    return pool;
}

SM_API size_t sm_pool_bytes(const size_t *sizes, const uint32_t *counts, int n_classes) {
    sm__arena arena = {NULL, 0, 0};
    size_t bytes;
    if (!sizes || !counts || n_classes < 1 || n_classes > SMALLMIND_POOL_CLASSES) return 0;
    sm__pool_layout(&arena, sizes, counts, n_classes);
    return arena.overflow || sm__add_size(arena.used, SM__ALIGN, &bytes) ? 0 : bytes;
}

SM_API sm_pool *sm_pool_init(void *memory, size_t bytes, const size_t *sizes,
                             const uint32_t *counts, int n_classes) {
    size_t need = sm_pool_bytes(sizes, counts, n_classes);
    sm__arena arena = {NULL, 0, 0};
    if (!memory || !need || bytes < need) return NULL;
    arena.base = sm__align_pointer(memory);
    return sm__pool_layout(&arena, sizes, counts, n_classes);
}

static void *sm__pool_rent_class(sm_pool *pool, int c) {
    sm__pool_class *k = &pool->classes[c];
    uint32_t i;
    if (!k->n_free) return NULL;
    i = k->free_list[--k->n_free];
    k->owners[i] = 1;
    pool->stats.rents++;
    pool->stats.outstanding_blocks++;
    pool->stats.outstanding_bytes += k->size;
    if (pool->stats.outstanding_bytes > pool->stats.peak_bytes)
        pool->stats.peak_bytes = pool->stats.outstanding_bytes;
    return k->blocks + (size_t)i * k->size;
}

SM_API void *sm_pool_rent(sm_pool *pool, size_t bytes) {
    int c, best = -1;
    for (c = 0; c < pool->n_classes; c++)
        if (pool->classes[c].size >= bytes && pool->classes[c].n_free &&
            (best < 0 || pool->classes[c].size < pool->classes[best].size))
            best = c;
    return best < 0 ? NULL : sm__pool_rent_class(pool, best);
}

/* The class of a block and its number; NULL for a pointer that is no rented block of this pool. */
static sm__pool_class *sm__pool_find(const sm_pool *pool, const void *block, uint32_t *i) {
    int c;
    for (c = 0; c < pool->n_classes; c++) {
        const sm__pool_class *k = &pool->classes[c];
        uintptr_t at = (uintptr_t)block - (uintptr_t)k->blocks;
        if (k->size && (uintptr_t)block >= (uintptr_t)k->blocks && at / k->size < k->count) {
            *i = (uint32_t)(at / k->size);
            return at % k->size == 0 && k->owners[*i] ? (sm__pool_class *)k : NULL;
        }
    }
    return NULL;
}

SM_API void sm_pool_retain(sm_pool *pool, void *block) {
    uint32_t i;
    sm__pool_class *k = sm__pool_find(pool, block, &i);
    if (k) k->owners[i]++;
}

SM_API void sm_pool_return(sm_pool *pool, void *block) {
    uint32_t i;
    sm__pool_class *k = sm__pool_find(pool, block, &i);
    if (!k || --k->owners[i]) return;
    k->free_list[k->n_free++] = i;
    pool->stats.returns++;
    pool->stats.outstanding_blocks--;
    pool->stats.outstanding_bytes -= k->size;
}

SM_API uint32_t sm_pool_owners(const sm_pool *pool, const void *block) {
    uint32_t i;
    const sm__pool_class *k = sm__pool_find(pool, block, &i);
    return k ? k->owners[i] : 0;
}

SM_API sm_pool_stats sm_pool_get_stats(const sm_pool *pool) { return pool->stats; }

/* ================================================================================================
 * MARK: [SM23] TEAM
 * Worker threads that help whatever passes are open. A pass is driven by the thread that called
 * sm_eval; members of the team only make it faster, so nothing here can deadlock: no thread ever
 * waits for another one to start. The team knows passes only by their help function (EVAL).
 * ============================================================================================== */

typedef struct sm__pass sm__pass;
struct sm__pass {
    /* The tiles that are left of the current run: run << 32 | tiles left. Members take a tile by
     * compare-and-swap; SM__CLOSED has no tiles. */
    volatile uint64_t ticket;
    char pad0[SM__ALIGN - 8];
    volatile uint32_t inside; /* members that may hold a tile or be preparing the next run */
    volatile uint32_t done;   /* tiles finished of the current run */
    char pad1[SM__ALIGN - 8];
    volatile uint32_t pause;   /* the driver wants the pass to stand still */
    volatile uint32_t helpers; /* members attached: the pass must outlive them */
    void (*help)(sm__pass *pass, int slot);
    /* under the team's lock: */
    uint64_t slots[4]; /* which of the pass's working places are taken; 0 is the driver's */
    int n_slots;
};

#define SM__CLOSED 0xffffffff00000000u
#define SM__TEAM_PASSES 64
#define SM__SPIN_ROUNDS 3000 /* pauses before a member gives up waiting: 50 to 200 microseconds */

typedef struct sm__worker {
    struct sm_team *team;
#if !defined(SMALLMIND_NO_THREADS)
#ifdef _WIN32
    HANDLE thread;
#else
    pthread_t thread;
#endif
#endif
} sm__worker;

struct sm_team {
    sm__heap heap;
    int on_heap; /* made by sm_team_create; otherwise inside a context */
    int n_members, n_started;
    sm_jobs jobs;
    volatile uint32_t lock;  /* guards passes[] and their slots: held for nanoseconds */
    volatile uint32_t epoch; /* changes when there is new work */
    volatile uint32_t stop, parked;
    sm__pass *passes[SM__TEAM_PASSES];
    sm__worker *workers;
#if !defined(SMALLMIND_NO_THREADS)
#ifdef _WIN32
    CRITICAL_SECTION mutex;
    CONDITION_VARIABLE wake;
#else
    pthread_mutex_t mutex;
    pthread_cond_t wake;
#endif
#endif
};

/* Waiting politely: after a few pauses the processor is offered to others, so that more members
 * than processors do not collapse. */
static void sm__wait_a_little(int round) {
    sm__relax();
#if !defined(SMALLMIND_NO_THREADS)
    if (round > 64 && (round & 15) == 0) {
#ifdef _WIN32
        SwitchToThread();
#else
        sched_yield();
#endif
    }
#else
    (void)round;
#endif
}

static void sm__spin_lock(volatile uint32_t *lock) {
    int round = 0;
    while (sm__load32(lock) || sm__add32(lock, 1) != 0) { /* 1 is taken; more are stale attempts */
        sm__wait_a_little(round++);
    }
}
static void sm__spin_unlock(volatile uint32_t *lock) { sm__store32(lock, 0); }

/* Attach to an open pass that has a place left; NULL = none. */
static sm__pass *sm__team_attach(sm_team *team, int *slot) {
    int i, s;
    sm__pass *found = NULL;
    sm__spin_lock(&team->lock);
    for (i = 0; i < SM__TEAM_PASSES && !found; i++) {
        sm__pass *p = team->passes[i];
        if (!p) continue;
        for (s = 1; s < p->n_slots && (p->slots[s / 64] >> (s % 64) & 1); s++) {
        }
        if (s >= p->n_slots) continue;
        p->slots[s / 64] |= (uint64_t)1 << (s % 64);
        sm__add32(&p->helpers, 1);
        *slot = s;
        found = p;
    }
    sm__spin_unlock(&team->lock);
    return found;
}

static void sm__team_detach(sm_team *team, sm__pass *p, int slot) {
    sm__spin_lock(&team->lock);
    p->slots[slot / 64] &= ~((uint64_t)1 << (slot % 64));
    sm__spin_unlock(&team->lock);
    sm__add32(&p->helpers, (uint32_t)-1); /* last: the pass may go away now */
}

/* New work: spinning members see the epoch, sleeping ones are woken. */
static void sm__team_notify(sm_team *team) {
    sm__add32(&team->epoch, 1);
#if !defined(SMALLMIND_NO_THREADS)
    if (sm__load32(&team->parked)) {
#ifdef _WIN32
        EnterCriticalSection(&team->mutex);
        WakeAllConditionVariable(&team->wake);
        LeaveCriticalSection(&team->mutex);
#else
        pthread_mutex_lock(&team->mutex);
        pthread_cond_broadcast(&team->wake);
        pthread_mutex_unlock(&team->mutex);
#endif
    }
#endif
}

SM_API void sm_team_lend(sm_team *team) {
    sm__pass *pass;
    int slot = 0;
    while (team && (pass = sm__team_attach(team, &slot)) != NULL) {
        uint32_t epoch = sm__load32(&team->epoch);
        pass->help(pass, slot);
        sm__team_detach(team, pass, slot);
        if (epoch == sm__load32(&team->epoch)) break; /* it had nothing more, and nothing came */
    }
}

static void sm__team_job(void *team) { sm_team_lend((sm_team *)team); }

/* Offer a pass to the team: at the start of an evaluation, and again when a large run begins. */
static void sm__team_open(sm_team *team, sm__pass *pass) {
    int i;
    sm__spin_lock(&team->lock);
    for (i = 0; i < SM__TEAM_PASSES && team->passes[i]; i++) {
    }
    if (i < SM__TEAM_PASSES) team->passes[i] = pass; /* no room: the driver works alone */
    sm__spin_unlock(&team->lock);
    sm__team_notify(team);
    if (team->jobs.dispatch && team->jobs.n_workers > 0)
        team->jobs.dispatch(team->jobs.user, sm__team_job, team, team->jobs.n_workers);
}

static void sm__team_close(sm_team *team, sm__pass *pass) {
    int i;
    sm__spin_lock(&team->lock);
    for (i = 0; i < SM__TEAM_PASSES; i++)
        if (team->passes[i] == pass) team->passes[i] = NULL;
    sm__spin_unlock(&team->lock);
}

#if !defined(SMALLMIND_NO_THREADS)
/* Sleep until the epoch moves on from `seen`, or the team stops. */
static void sm__team_park(sm_team *team, uint32_t seen) {
#ifdef _WIN32
    EnterCriticalSection(&team->mutex);
    sm__add32(&team->parked, 1);
    while (sm__load32(&team->epoch) == seen && !sm__load32(&team->stop))
        SleepConditionVariableCS(&team->wake, &team->mutex, INFINITE);
    sm__add32(&team->parked, (uint32_t)-1);
    LeaveCriticalSection(&team->mutex);
#else
    pthread_mutex_lock(&team->mutex);
    sm__add32(&team->parked, 1);
    while (sm__load32(&team->epoch) == seen && !sm__load32(&team->stop))
        pthread_cond_wait(&team->wake, &team->mutex);
    sm__add32(&team->parked, (uint32_t)-1);
    pthread_mutex_unlock(&team->mutex);
#endif
}

static void sm__worker_run(sm_team *team) {
    while (!sm__load32(&team->stop)) {
        uint32_t seen = sm__load32(&team->epoch);
        int round = 0;
        sm_team_lend(team);
        while (sm__load32(&team->epoch) == seen && !sm__load32(&team->stop) &&
               round < SM__SPIN_ROUNDS)
            sm__wait_a_little(round++);
        if (sm__load32(&team->epoch) == seen) sm__team_park(team, seen);
    }
}

#ifdef _WIN32
static DWORD WINAPI sm__worker_main(LPVOID worker) {
    sm__worker_run(((sm__worker *)worker)->team);
    return 0;
}
#else
static void *sm__worker_main(void *worker) {
    sm__worker_run(((sm__worker *)worker)->team);
    return NULL;
}
#endif
#endif /* SMALLMIND_NO_THREADS */

static int sm__team_members(int n_threads) {
#ifdef SMALLMIND_NO_THREADS
    (void)n_threads;
    return 1;
#else
    return n_threads > 0 ? n_threads : sm__cpu_count();
#endif
}

/* Counts or places a team of n members; sm__team_start makes it live. */
static sm_team *sm__team_layout(sm__arena *arena, int n_members) {
    sm_team *team = (sm_team *)sm__arena_take(arena, 1, sizeof *team);
    sm__worker *workers =
        (sm__worker *)sm__arena_take(arena, (size_t)n_members, sizeof *workers);
    if (!team) return NULL;
    memset(team, 0, sizeof *team);
    team->workers = workers;
    team->n_members = n_members;
    return team;
}

/* Stops and joins the workers; the memory stays. */
static void sm__team_stop(sm_team *team) {
#if !defined(SMALLMIND_NO_THREADS)
    int i;
    sm__store32(&team->stop, 1);
    sm__team_notify(team);
    for (i = 0; i < team->n_started; i++) {
#ifdef _WIN32
        WaitForSingleObject(team->workers[i].thread, INFINITE);
        CloseHandle(team->workers[i].thread);
#else
        pthread_join(team->workers[i].thread, NULL);
#endif
    }
#ifdef _WIN32
    DeleteCriticalSection(&team->mutex);
#else
    pthread_cond_destroy(&team->wake);
    pthread_mutex_destroy(&team->mutex);
#endif
#else
    (void)team;
#endif
}

static sm_status sm__team_start(sm_team *team, sm_error *error) {
#if !defined(SMALLMIND_NO_THREADS)
    int i, failed = 0, n = team->jobs.dispatch ? 0 : team->n_members - 1;
#ifdef _WIN32
    InitializeCriticalSection(&team->mutex);
    InitializeConditionVariable(&team->wake);
#else
    pthread_mutex_init(&team->mutex, NULL);
    pthread_cond_init(&team->wake, NULL);
#endif
    for (i = 0; i < n && !failed; i++) {
        team->workers[i].team = team;
#ifdef _WIN32
        team->workers[i].thread =
            CreateThread(NULL, 0, sm__worker_main, &team->workers[i], 0, NULL);
        failed = !team->workers[i].thread;
#else
        failed = pthread_create(&team->workers[i].thread, NULL, sm__worker_main,
                                &team->workers[i]) != 0;
#endif
        if (!failed) team->n_started++;
    }
    if (failed) {
        int got = team->n_started;
        sm__team_stop(team);
        return sm__fail(error, SM_ERR_SYSTEM, "team: only %d of %d threads started", got, n);
    }
#else
    (void)team, (void)error;
#endif
    return SM_OK;
}

SM_API sm_team_params sm_team_default(void) {
    sm_team_params p;
    memset(&p, 0, sizeof p);
    return p;
}

SM_API sm_status sm_team_create(const sm_team_params *params, sm_team **out, sm_error *error) {
    sm__arena arena = {NULL, 0, 0};
    sm__heap heap;
    sm_team *team;
    sm_status status;
    int n;
    if (out) *out = NULL;
    if (!params || !out) return sm__fail(error, SM_ERR_ARG, "team: params and team are needed");
    if (params->n_threads < 0 || params->n_threads > 256 || params->jobs.n_workers < 0 ||
        params->jobs.n_workers > 255 || !sm__allocator_ok(&params->allocator))
        return sm__fail(error, SM_ERR_ARG, "team: n_threads and jobs.n_workers go up to 256, 255");
    n = params->jobs.dispatch ? params->jobs.n_workers + 1 : sm__team_members(params->n_threads);
    sm__team_layout(&arena, n);
    heap = sm__heap_make(&params->allocator);
    arena.base = (unsigned char *)sm__heap_alloc(&heap, arena.used);
    if (!arena.base) return sm__fail(error, SM_ERR_NOMEM, "team: no memory");
    arena.used = 0;
    team = sm__team_layout(&arena, n);
    team->heap = heap;
    team->jobs = params->jobs;
    team->on_heap = 1;
    status = sm__team_start(team, error);
    if (status != SM_OK) sm__heap_free(&heap, team);
    else *out = team;
    return status;
}

SM_API void sm_team_destroy(sm_team *team) {
    sm__heap heap;
    if (!team) return;
    heap = team->heap;
    sm__team_stop(team);
    if (team->on_heap) sm__heap_free(&heap, team);
}

/* ================================================================================================
 * MARK: [SM24] NUMBERS
 * Scalar arithmetic that every variant of a kernel must reproduce to the bit: fma, rounding, exp,
 * half floats; and the double-precision functions behind rotary tables. No libm: its bits differ
 * from system to system, and a header should not ask for -lm.
 * ============================================================================================== */

#define SM__INFINITY ((float)(1e300 * 1e300))

SM__INLINE uint32_t sm__bits(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}
SM__INLINE float sm__from_bits(uint32_t u) {
    float x;
    memcpy(&x, &u, 4);
    return x;
}
/* By bits, so that -ffast-math cannot assume it away. True for NaN too. */
SM__INLINE int sm__not_finite(float x) { return (sm__bits(x) & 0x7f800000u) == 0x7f800000u; }

/* clang's -ffast-math reaches even intrinsics, whatever the pragmas say: fma becomes a product when
 * its sum is zero, roots and quotients become estimates. Then these are the instructions. */
#if defined(__clang__) && defined(__FAST_MATH__) && (defined(SM__X86) || defined(SM__ARM64))
#define SM__FAST_CLANG 1
#endif

/* x * y + z, rounded once. The product of two floats is exact in double; the sum is rounded to odd
 * (Boldo and Melquiond 2008), so that the last rounding, to float, cannot round twice. */
SM__INLINE float sm__fma(float x, float y, float z) {
#if defined(SM__FAST_CLANG) && defined(SM__ARM64)
    __asm__("fmadd %s0, %s1, %s2, %s0" : "+w"(z) : "w"(x), "w"(y));
    return z;
#elif defined(SM__FAST_CLANG) && defined(__FMA__)
    __asm__("vfmadd231ss %2, %1, %0" : "+x"(z) : "x"(x), "x"(y));
    return z;
#elif defined(__FMA__) || (defined(SM__ARM64) && !defined(_MSC_VER))
    return __builtin_fmaf(x, y, z);
#elif defined(SM__ARM64)
    return vget_lane_f32(vfma_f32(vdup_n_f32(z), vdup_n_f32(x), vdup_n_f32(y)), 0);
#else
    double p = (double)x * y, c = z, s = p + c, b = s - p;
    double error = (p - (s - b)) + (c - b);
    uint64_t bits;
    memcpy(&bits, &s, 8);
    if (error != 0.0 && !(bits & 1) && (bits & 0x7ff0000000000000u) != 0x7ff0000000000000u) {
        bits += (error > 0.0) == (s > 0.0) ? 1u : (uint64_t)-1;
        memcpy(&s, &bits, 8);
    }
    return (float)s;
#endif
}

SM__INLINE float sm__sqrt(float x) {
#if defined(SM__FAST_CLANG) && defined(SM__X86)
    __asm__("sqrtss %0, %0" : "+x"(x));
    return x;
#elif defined(SM__X86)
    return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x)));
#elif defined(SM__FAST_CLANG)
    __asm__("fsqrt %s0, %s0" : "+w"(x));
    return x;
#elif defined(SM__ARM64)
    return vgetq_lane_f32(vsqrtq_f32(vdupq_n_f32(x)), 0);
#else /* the correctly rounded root, from a double Newton iteration */
    double r, d = x;
    uint64_t bits;
    int i;
    if (!(x > 0.0f) || sm__not_finite(x)) return x < 0.0f ? sm__from_bits(0x7fc00000u) : x;
    memcpy(&bits, &d, 8);
    bits = (bits >> 1) + ((uint64_t)0x1ff8 << 48); /* within 6 %: the exponent halved */
    memcpy(&r, &bits, 8);
    for (i = 0; i < 5; i++) r = 0.5 * (r + d / r);
    return (float)r;
#endif
}

SM__INLINE float sm__div(float x, float y) {
#if defined(SM__FAST_CLANG) && defined(SM__X86)
    __asm__("divss %1, %0" : "+x"(x) : "x"(y));
    return x;
#elif defined(SM__FAST_CLANG)
    __asm__("fdiv %s0, %s0, %s1" : "+w"(x) : "w"(y));
    return x;
#else
    return x / y;
#endif
}

/* To the nearest integer, ties to even; |x| < 2^31. */
SM__INLINE int32_t sm__round_even(float x) {
    int32_t i = (int32_t)x;
    float f = x - (float)i; /* exact */
    if (f > 0.5f || (f == 0.5f && (i & 1))) i++;
    if (f < -0.5f || (f == -0.5f && (i & 1))) i--;
    return i;
}

/* e^x, error below 2 ulp. 0 for x < -87.3 (no denormals) and for NaN, +inf above 88.72.
 * e^x = 2^n * e^r with n = round(x / ln 2), |r| <= ln 2 / 2, and e^r = 1 + r + r^2 * P(r). */
#define SM__EXP_MIN (-87.3f)
#define SM__EXP_MAX 88.72f
#define SM__LOG2E 1.44269502f
#define SM__LN2_HI 0.693147182f
#define SM__LN2_LO (-1.90465421e-9f)
#define SM__EXP_C0 0.5f
#define SM__EXP_C1 0.16666576266288757f
#define SM__EXP_C2 0.04166646674275398f
#define SM__EXP_C3 0.008363181725144386f
#define SM__EXP_C4 0.0013933652080595493f
static float sm__exp(float x) {
    float r, p;
    int n, half;
    if (x > SM__EXP_MAX) return SM__INFINITY;
    if (!(x >= SM__EXP_MIN)) return 0.0f;
    n = sm__round_even(x * SM__LOG2E);
    r = sm__fma((float)n, -SM__LN2_HI, x);
    r = sm__fma((float)n, -SM__LN2_LO, r);
    p = sm__fma(SM__EXP_C4, r, SM__EXP_C3);
    p = sm__fma(p, r, SM__EXP_C2);
    p = sm__fma(p, r, SM__EXP_C1);
    p = sm__fma(p, r, SM__EXP_C0);
    p = 1.0f + sm__fma(p, r * r, r);
    half = n >> 1; /* 2^n in two factors: n reaches 128 */
    p *= sm__from_bits((uint32_t)(half + 127) << 23);
    return p * sm__from_bits((uint32_t)(n - half + 127) << 23);
}

/* erfc(t) for t >= 0, relative error below 1e-6 where it is above 1e-7:
 * u * exp(-t^2 + P(u)), u = 2 / (2 + t), P fitted by us. */
#define SM__ERFC_LIST(X) /* from the highest power down */ \
    X(0.13754378259181976f)                                                                        \
    X(-0.6403201222419739f)                                                                        \
    X(1.060672402381897f)                                                                          \
    X(-0.5672950744628906f)                                                                        \
    X(-0.18796798586845398f)                                                                       \
    X(0.059099335223436356f)                                                                       \
    X(0.014693795703351498f)                                                                       \
    X(0.39086347818374634f)                                                                        \
    X(0.9981334209442139f)                                                                         \
    X(-1.2654229402542114f)
static float sm__erfc(float t) {
    float u = sm__div(2.0f, 2.0f + t), p = 0.0f;
#define SM__ERFC_STEP(c) p = sm__fma(p, u, c);
    SM__ERFC_LIST(SM__ERFC_STEP)
#undef SM__ERFC_STEP
    return u * sm__exp(sm__fma(-t, t, p));
}

/* IEEE half to float: exact; NaN keeps its payload and becomes quiet, as the hardware does it. */
static float sm__f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 31u, m = h & 0x3ffu;
    if (exponent == 31) return sm__from_bits(sign | 0x7f800000u | (m ? 0x400000u | (m << 13) : 0));
    if (exponent == 0) { /* zero or denormal: m * 2^-24 */
        float value = (float)m * sm__from_bits(0x33800000u);
        return sm__from_bits(sign | sm__bits(value));
    }
    return sm__from_bits(sign | ((exponent + 112u) << 23) | (m << 13));
}

/* Float to half, nearest even, overflow to infinity. */
static uint16_t sm__f32_to_f16(float x) {
    uint32_t u = sm__bits(x), sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu, rest, half, shift;
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | ((a >> 13) & 0x3ffu));
    if (a >= 0x47800000u) return (uint16_t)(sign | 0x7c00u); /* 2^16 and above */
    if (a >= 0x38800000u) {                                  /* normal: rebias, round at bit 13 */
        a -= 0x38000000u;
        shift = 13;
    } else { /* denormal: the whole significand shifted */
        if (a < 0x33000000u) return (uint16_t)sign;
        shift = 126u - (a >> 23);
        a = (a & 0x7fffffu) | 0x800000u;
    }
    half = a >> shift;
    rest = a & ((1u << shift) - 1u);
    if (rest > (1u << (shift - 1)) || (rest == (1u << (shift - 1)) && (half & 1u))) half++;
    return (uint16_t)(sign | half);
}

SM__INLINE float sm__bf16_to_f32(uint16_t h) { return sm__from_bits((uint32_t)h << 16); }

/* Nearest even; NaN stays NaN. */
static uint16_t sm__f32_to_bf16(float x) {
    uint32_t u = sm__bits(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 64u);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

/* The functions below run once per position or context, in double, with plain operations only: the
 * same bits wherever double is IEEE. Errors are below 1e-15 relative, far below a float's. */
static double sm__ldexp(double x, int n) {
    uint64_t bits = (uint64_t)(1023 + n) << 52; /* |n| < 1023 */
    double scale;
    memcpy(&scale, &bits, 8);
    return x * scale;
}

static double sm__exp_double(double x) { /* |x| < 700 */
    int n = (int)(x * 1.4426950408889634 + (x < 0 ? -0.5 : 0.5)), i;
    double r = (x - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10, e = 1.0;
    for (i = 18; i > 0; i--) e = 1.0 + e * r / i;
    return sm__ldexp(e, n);
}

static double sm__log_double(double x) { /* x > 0, normal */
    uint64_t bits;
    int n, i;
    double m, s, s2, sum = 0.0;
    memcpy(&bits, &x, 8);
    n = (int)((bits >> 52) & 0x7ffu) - 1023;
    bits = (bits & 0xfffffffffffffu) | (uint64_t)1023 << 52;
    memcpy(&m, &bits, 8);
    if (m > 1.4142135623730951) m *= 0.5, n++;
    s = (m - 1.0) / (m + 1.0); /* log m = 2 artanh s, |s| < 0.172 */
    s2 = s * s;
    for (i = 23; i > 0; i -= 2) sum = sum * s2 + 1.0 / i;
    return n * 0.6931471805599453 + 2.0 * s * sum;
}

/* sin and cos of a radian angle, |x| < 1e9, error below 1e-15 absolute: reduced by pi/2 in three
 * parts (Cody and Waite). The first has 33 bits, so its products with up to 20 bits are exact. */
static void sm__sincos_double(double x, double *sine, double *cosine) {
    double n = (double)(int64_t)(x * 0.6366197723675814 + (x < 0 ? -0.5 : 0.5)), r, r2, s, c;
    double high = (double)((int64_t)n & ~(int64_t)0x7fff);
    int quarter = (int)((int64_t)n & 3), i;
    r = x - high * 1.57079632673412561417e+00;
    r = r - (n - high) * 1.57079632673412561417e+00;
    r = r - n * 6.07710050630396597660e-11;
    r = r - n * 2.02226624879595063154e-21;
    r2 = r * r;
    s = c = 1.0;
    for (i = 18; i > 0; i -= 2) {
        s = 1.0 - s * r2 / (double)(i * (i + 1));
        c = 1.0 - c * r2 / (double)(i * (i - 1));
    }
    s *= r;
    *sine = quarter == 0 ? s : quarter == 1 ? c : quarter == 2 ? -s : -c;
    *cosine = quarter == 0 ? c : quarter == 1 ? -s : quarter == 2 ? -c : s;
}

/* ================================================================================================
 * MARK: [SM25] TYPES
 * One row per element type: sizes, how to decode and how to encode. A later type adds a row here
 * and a matmul in KERNELS. Blocks are read by memcpy: a file may put them at any address.
 * ============================================================================================== */

#define SM__QK 32    /* elements of a block of Q8_0 and Q4_0 */
#define SM__QK_K 256 /* elements of a superblock of the K-quants */

/* Q8_0, 34 bytes:  | d: f16 | q0 .. q31: int8 |   x_i = d * q_i */
typedef struct sm__block_q8_0 {
    uint16_t d;
    int8_t q[SM__QK];
} sm__block_q8_0;

/* Q4_0, 18 bytes:  | d: f16 | b0 .. b15 |   b_i = q_i | q_(i+16) << 4;  x_i = d * (q_i - 8) */
typedef struct sm__block_q4_0 {
    uint16_t d;
    uint8_t b[SM__QK / 2];
} sm__block_q4_0;

/* Q4_K, 144 bytes:  | d: f16 | dmin: f16 | scales: 12 | q: 128 |   x = d * sc_j * q - dmin * m_j
 * Eight sub-blocks j of 32, with 6 bits each for sc_j and m_j. Sub-blocks 2 c and 2 c + 1 are the
 * low and the high nibbles of q bytes 32 c .. 32 c + 31. Bits 0 - 5 of scales bytes 0 - 3 are
 * sc_0 .. sc_3, of bytes 4 - 7 m_0 .. m_3; bytes 8 - 11 hold the low four bits of sc_4 .. sc_7 and,
 * from bit 4 on, those of m_4 .. m_7, whose upper two bits are bits 6 - 7 of bytes 0 - 7. */
typedef struct sm__block_q4_k {
    uint16_t d, dmin;
    uint8_t scales[12], q[SM__QK_K / 2];
} sm__block_q4_k;

/* Q5_K, 176 bytes:  | d: f16 | dmin: f16 | scales: 12 | high: 32 | q: 128 |   as Q4_K; the fifth
 * bit of element i of sub-block j is bit j of high byte i. */
typedef struct sm__block_q5_k {
    uint16_t d, dmin;
    uint8_t scales[12], high[SM__QK_K / 8], q[SM__QK_K / 2];
} sm__block_q5_k;

/* Q6_K, 210 bytes:  | q: 128 | high: 64 | scales: 16 x int8 | d: f16 |   x = d * sc_j * (q - 32)
 * Sixteen sub-blocks j of 16. Each half of 128 elements has 64 bytes of q and 32 of high: element
 * 32 g + i of the half (g = 0 .. 3) is nibble g / 2 of q byte 32 (g % 2) + i, with bits 2 g and
 * 2 g + 1 of high byte i above it. */
typedef struct sm__block_q6_k {
    uint8_t q[SM__QK_K / 2], high[SM__QK_K / 4];
    int8_t scales[16];
    uint16_t d;
} sm__block_q6_k;

/* Q4_1, 20 bytes:  | d: f16 | m: f16 | b0 .. b15 |   b_i as of Q4_0;  x_i = d * q_i + m */
typedef struct sm__block_q4_1 {
    uint16_t d, m;
    uint8_t b[SM__QK / 2];
} sm__block_q4_1;

/* Q5_0, 22 bytes:  | d: f16 | high: u32 | b0 .. b15 |   as Q4_0; the fifth bit of q_i is bit i of
 * high;  x_i = d * (q_i - 16) */
typedef struct sm__block_q5_0 {
    uint16_t d;
    uint8_t high[4], b[SM__QK / 2];
} sm__block_q5_0;

/* Q5_1, 24 bytes:  | d: f16 | m: f16 | high: u32 | b0 .. b15 |   q_i as of Q5_0;
 * x_i = d * q_i + m */
typedef struct sm__block_q5_1 {
    uint16_t d, m;
    uint8_t high[4], b[SM__QK / 2];
} sm__block_q5_1;

/* IQ4_NL, 18 bytes:  | d: f16 | b0 .. b15 |   b_i as of Q4_0;  x_i = d * sm__iq4_steps[q_i] */
typedef sm__block_q4_0 sm__block_iq4_nl;

/* MXFP4, 17 bytes:  | e: u8 | b0 .. b15 |   b_i as of Q4_0;  x_i = 2^(e - 128) *
 * sm__mxfp4_steps[q_i], the steps being twice what the format's floats (sign, 2 bits of exponent,
 * 1 of mantissa) are, so that they are integers. */
typedef struct sm__block_mxfp4 {
    uint8_t e, b[SM__QK / 2];
} sm__block_mxfp4;

/* Q2_K, 84 bytes:  | scales: 16 | q: 64 | d: f16 | dmin: f16 |   x = d * sc_j * q - dmin * m_j
 * Sixteen sub-blocks j of 16: scales byte j is sc_j | m_j << 4. Each half of 128 elements has 32
 * bytes of q: element 32 g + i of the half (g = 0 .. 3) is bits 2 g and 2 g + 1 of byte i. */
typedef struct sm__block_q2_k {
    uint8_t scales[16], q[SM__QK_K / 4];
    uint16_t d, dmin;
} sm__block_q2_k;

/* Q3_K, 110 bytes:  | high: 32 | q: 64 | scales: 12 | d: f16 |   x = d * (sc_j - 32) * (q - 4)
 * The two lower bits of q are as in Q2_K; bit j / 2 of high byte i is the third bit of element i of
 * sub-blocks j and j + 1 (j even). Scales byte j (0 .. 7) holds the low four bits of sc_j and, from
 * bit 4 on, those of sc_(j+8); bits 2 g and 2 g + 1 of byte 8 + i are the upper two of sc_(4 g + i).
 */
typedef struct sm__block_q3_k {
    uint8_t high[SM__QK_K / 8], q[SM__QK_K / 4], scales[12];
    uint16_t d;
} sm__block_q3_k;

/* IQ4_XS, 136 bytes:  | d: f16 | scales_h: u16 | scales_l: 4 | b: 128 |
 * x = d * (sc_j - 32) * sm__iq4_steps[q].  Eight sub-blocks j of 32, 16 bytes each, as in Q4_0. The
 * low four bits of sc_j are nibble j of scales_l, the upper two bits 2 j and 2 j + 1 of scales_h. */
typedef struct sm__block_iq4_xs {
    uint16_t d, scales_h;
    uint8_t scales_l[SM__QK_K / 64], b[SM__QK_K / 2];
} sm__block_iq4_xs;

/* TQ2_0, 66 bytes:  | q: 64 | d: f16 |   q as in Q2_K;  x = d * (q - 1) */
typedef struct sm__block_tq2_0 {
    uint8_t q[SM__QK_K / 4];
    uint16_t d;
} sm__block_tq2_0;

/* TQ1_0, 54 bytes:  | q: 48 | last: 4 | d: f16 |   x = d * (t - 1)
 * A byte b is a number in base 3 with five digits t after the point: b * 3^g mod 256, times 3, has
 * digit g (0 .. 4) above its low byte. Elements 32 g + i are in q byte i (i = 0 .. 31), elements
 * 160 + 16 g + i in q byte 32 + i (i = 0 .. 15); elements 240 + 4 g + i (g = 0 .. 3) in last. */
typedef struct sm__block_tq1_0 {
    uint8_t q[48], last[4];
    uint16_t d;
} sm__block_tq1_0;

/* The 16 steps of IQ4_NL and IQ4_XS, and those of MXFP4. */
static const int8_t sm__iq4_steps[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                         1,    13,   25,  38,  53,  69,  89,  113};
static const int8_t sm__mxfp4_steps[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                           0, -1, -2, -3, -4, -6, -8, -12};

typedef char sm__assert_q4_1[sizeof(sm__block_q4_1) == 20 ? 1 : -1];
typedef char sm__assert_q5_0[sizeof(sm__block_q5_0) == 22 ? 1 : -1];
typedef char sm__assert_q5_1[sizeof(sm__block_q5_1) == 24 ? 1 : -1];
typedef char sm__assert_iq4_nl[sizeof(sm__block_iq4_nl) == 18 ? 1 : -1];
typedef char sm__assert_mxfp4[sizeof(sm__block_mxfp4) == 17 ? 1 : -1];
typedef char sm__assert_q2_k[sizeof(sm__block_q2_k) == 84 ? 1 : -1];
typedef char sm__assert_q3_k[sizeof(sm__block_q3_k) == 110 ? 1 : -1];
typedef char sm__assert_iq4_xs[sizeof(sm__block_iq4_xs) == 136 ? 1 : -1];
typedef char sm__assert_tq1_0[sizeof(sm__block_tq1_0) == 54 ? 1 : -1];
typedef char sm__assert_tq2_0[sizeof(sm__block_tq2_0) == 66 ? 1 : -1];
typedef char sm__assert_q8_0[sizeof(sm__block_q8_0) == 34 ? 1 : -1];
typedef char sm__assert_q4_0[sizeof(sm__block_q4_0) == 18 ? 1 : -1];
typedef char sm__assert_q4_k[sizeof(sm__block_q4_k) == 144 ? 1 : -1];
typedef char sm__assert_q5_k[sizeof(sm__block_q5_k) == 176 ? 1 : -1];
typedef char sm__assert_q6_k[sizeof(sm__block_q6_k) == 210 ? 1 : -1];

static void sm__decode_f32(const void *src, float *dst, size_t n) { memcpy(dst, src, n * 4); }

static void sm__decode_f16(const void *src, float *dst, size_t n) {
    size_t i;
    for (i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, (const uint8_t *)src + 2 * i, 2);
        dst[i] = sm__f16_to_f32(h);
    }
}

static void sm__decode_bf16(const void *src, float *dst, size_t n) {
    size_t i;
    for (i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, (const uint8_t *)src + 2 * i, 2);
        dst[i] = sm__bf16_to_f32(h);
    }
}

static void sm__decode_q8_0(const void *src, float *dst, size_t n) {
    size_t b;
    for (b = 0; b < n / SM__QK; b++) {
        sm__block_q8_0 block;
        float d;
        int i;
        memcpy(&block, (const uint8_t *)src + b * sizeof block, sizeof block);
        d = sm__f16_to_f32(block.d);
        for (i = 0; i < SM__QK; i++) *dst++ = d * (float)block.q[i];
    }
}

static void sm__decode_q4_0(const void *src, float *dst, size_t n) {
    size_t b;
    for (b = 0; b < n / SM__QK; b++, dst += SM__QK) {
        sm__block_q4_0 block;
        float d;
        int i;
        memcpy(&block, (const uint8_t *)src + b * sizeof block, sizeof block);
        d = sm__f16_to_f32(block.d);
        for (i = 0; i < SM__QK / 2; i++) {
            dst[i] = d * (float)((block.b[i] & 15) - 8);
            dst[i + SM__QK / 2] = d * (float)((block.b[i] >> 4) - 8);
        }
    }
}

/* A block of any other quantised type as plain integers: x_i = d * sc[i / 16] * q[i] - dmin *
 * m[i / 16]. Blocks of 32 have the first 32 numbers and scales of 1. */
typedef struct sm__plain {
    float d, dmin;
    int8_t q[SM__QK_K], sc[16];
    uint8_t m[16];
} sm__plain;

/* All but the numbers: one scale for all, no minima. */
static void sm__plain_begin(sm__plain *out, uint16_t d) {
    out->d = sm__f16_to_f32(d);
    out->dmin = 0.0f;
    memset(out->sc, 1, sizeof out->sc);
    memset(out->m, 0, sizeof out->m);
}

/* 32 nibbles, those of the fifth bits (NULL: none) above them; steps: NULL, or what they mean. */
static void sm__unpack_nibbles(const uint8_t *b, const uint8_t *high, const int8_t *steps, int bias,
                               int8_t *q) {
    int i;
    for (i = 0; i < SM__QK; i++) {
        int v = b[i % 16] >> (i / 16 * 4) & 15;
        if (high) v |= (high[i / 8] >> i % 8 & 1) << 4;
        q[i] = (int8_t)(steps ? steps[v] : v - bias);
    }
}

static void sm__unpack_q4_1(const void *src, sm__plain *out) {
    sm__block_q4_1 block;
    memcpy(&block, src, sizeof block);
    sm__plain_begin(out, block.d);
    out->dmin = -sm__f16_to_f32(block.m);
    out->m[0] = out->m[1] = 1;
    sm__unpack_nibbles(block.b, NULL, NULL, 0, out->q);
}

static void sm__unpack_q5_0(const void *src, sm__plain *out) {
    sm__block_q5_0 block;
    memcpy(&block, src, sizeof block);
    sm__plain_begin(out, block.d);
    sm__unpack_nibbles(block.b, block.high, NULL, 16, out->q);
}

static void sm__unpack_q5_1(const void *src, sm__plain *out) {
    sm__block_q5_1 block;
    memcpy(&block, src, sizeof block);
    sm__plain_begin(out, block.d);
    out->dmin = -sm__f16_to_f32(block.m);
    out->m[0] = out->m[1] = 1;
    sm__unpack_nibbles(block.b, block.high, NULL, 0, out->q);
}

static void sm__unpack_iq4_nl(const void *src, sm__plain *out) {
    sm__block_iq4_nl block;
    memcpy(&block, src, sizeof block);
    sm__plain_begin(out, block.d);
    sm__unpack_nibbles(block.b, NULL, sm__iq4_steps, 0, out->q);
}

/* 2^(e - 128); the two least are denormal. */
SM__INLINE float sm__mxfp4_scale(int e) {
    return sm__from_bits(e < 2 ? (uint32_t)0x200000 << e : (uint32_t)(e - 1) << 23);
}

static void sm__unpack_mxfp4(const void *src, sm__plain *out) {
    sm__block_mxfp4 block;
    memcpy(&block, src, sizeof block);
    sm__plain_begin(out, 0);
    out->d = sm__mxfp4_scale(block.e);
    sm__unpack_nibbles(block.b, NULL, sm__mxfp4_steps, 0, out->q);
}

/* 256 times two bits. */
static void sm__unpack_twos(const uint8_t *b, int bias, int8_t *q) {
    int i;
    for (i = 0; i < SM__QK_K; i++)
        q[i] = (int8_t)((b[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3) - bias);
}

static void sm__unpack_q2_k(const void *src, sm__plain *out) {
    sm__block_q2_k block;
    int j;
    memcpy(&block, src, sizeof block);
    out->d = sm__f16_to_f32(block.d);
    out->dmin = sm__f16_to_f32(block.dmin);
    for (j = 0; j < 16; j++) {
        out->sc[j] = (int8_t)(block.scales[j] & 15);
        out->m[j] = block.scales[j] >> 4;
    }
    sm__unpack_twos(block.q, 0, out->q);
}

static void sm__unpack_q3_k(const void *src, sm__plain *out) {
    sm__block_q3_k block;
    int i, j;
    memcpy(&block, src, sizeof block);
    sm__plain_begin(out, block.d);
    for (j = 0; j < 16; j++) {
        int low = block.scales[j % 8] >> (j / 8 * 4) & 15;
        out->sc[j] = (int8_t)((low | (block.scales[8 + j % 4] >> (j / 4 * 2) & 3) << 4) - 32);
    }
    sm__unpack_twos(block.q, 4, out->q);
    for (i = 0; i < SM__QK_K; i++)
        out->q[i] = (int8_t)(out->q[i] + 4 * (block.high[i % 32] >> i / 32 & 1));
}

static void sm__unpack_iq4_xs(const void *src, sm__plain *out) {
    sm__block_iq4_xs block;
    int j;
    memcpy(&block, src, sizeof block);
    sm__plain_begin(out, block.d);
    for (j = 0; j < 8; j++) {
        int low = block.scales_l[j / 2] >> (j % 2 * 4) & 15;
        low = (low | (block.scales_h >> 2 * j & 3) << 4) - 32;
        out->sc[2 * j] = out->sc[2 * j + 1] = (int8_t)low;
        sm__unpack_nibbles(block.b + 16 * j, NULL, sm__iq4_steps, 0, out->q + SM__QK * j);
    }
}

static void sm__unpack_tq2_0(const void *src, sm__plain *out) {
    sm__block_tq2_0 block;
    memcpy(&block, src, sizeof block);
    sm__plain_begin(out, block.d);
    sm__unpack_twos(block.q, 1, out->q);
}

/* Digit g of n bytes: q[n g + i]. */
static void sm__unpack_threes(const uint8_t *b, int n, int digits, int8_t *q) {
    static const uint8_t power[5] = {1, 3, 9, 27, 81};
    int g, i;
    for (g = 0; g < digits; g++)
        for (i = 0; i < n; i++)
            q[n * g + i] = (int8_t)(((b[i] * power[g] & 255) * 3 >> 8) - 1);
}

static void sm__unpack_tq1_0(const void *src, sm__plain *out) {
    sm__block_tq1_0 block;
    memcpy(&block, src, sizeof block);
    sm__plain_begin(out, block.d);
    sm__unpack_threes(block.q, 32, 5, out->q);
    sm__unpack_threes(block.q + 32, 16, 5, out->q + 160);
    sm__unpack_threes(block.last, 4, 4, out->q + 240);
}

static void sm__unpack_q4_q5(const uint8_t *scales, const uint8_t *q, const uint8_t *high,
                             sm__plain *out) {
    int i, j;
    for (j = 0; j < 8; j++) {
        int sc = scales[j] & 63, m = scales[(j + 4) % 12] & 63;
        if (j >= 4) {
            sc = (scales[j + 4] & 15) | scales[j - 4] >> 6 << 4;
            m = scales[j + 4] >> 4 | scales[j] >> 6 << 4;
        }
        out->sc[2 * j] = out->sc[2 * j + 1] = (int8_t)sc;
        out->m[2 * j] = out->m[2 * j + 1] = (uint8_t)m;
        for (i = 0; i < 32; i++) {
            int v = q[j / 2 * 32 + i] >> (j % 2 * 4) & 15;
            if (high) v |= (high[i] >> j & 1) << 4;
            out->q[32 * j + i] = (int8_t)v;
        }
    }
}

static void sm__unpack_q4_k(const void *src, sm__plain *out) {
    sm__block_q4_k block;
    memcpy(&block, src, sizeof block);
    out->d = sm__f16_to_f32(block.d);
    out->dmin = sm__f16_to_f32(block.dmin);
    sm__unpack_q4_q5(block.scales, block.q, NULL, out);
}

static void sm__unpack_q5_k(const void *src, sm__plain *out) {
    sm__block_q5_k block;
    memcpy(&block, src, sizeof block);
    out->d = sm__f16_to_f32(block.d);
    out->dmin = sm__f16_to_f32(block.dmin);
    sm__unpack_q4_q5(block.scales, block.q, block.high, out);
}

static void sm__unpack_q6_k(const void *src, sm__plain *out) {
    sm__block_q6_k block;
    int i, g, half;
    memcpy(&block, src, sizeof block);
    out->d = sm__f16_to_f32(block.d);
    out->dmin = 0.0f;
    memcpy(out->sc, block.scales, sizeof out->sc);
    memset(out->m, 0, sizeof out->m);
    for (half = 0; half < 2; half++)
        for (g = 0; g < 4; g++)
            for (i = 0; i < 32; i++) {
                int low = block.q[64 * half + 32 * (g % 2) + i] >> (g / 2 * 4) & 15;
                int high = block.high[32 * half + i] >> 2 * g & 3;
                out->q[128 * half + 32 * g + i] = (int8_t)((low | high << 4) - 32);
            }
}

/* A product to which nothing is fused: clang's -ffast-math would make it part of a fma. */
SM__INLINE float sm__times(float a, float b) {
    float product = a * b;
    SM__KEEP(product);
    return product;
}

static void sm__decode_plain(void (*unpack)(const void *, sm__plain *), int block_elems,
                             size_t block_bytes, const void *src, float *dst, size_t n) {
    size_t b;
    for (b = 0; b < n / (size_t)block_elems; b++, dst += block_elems) {
        sm__plain block;
        int i;
        unpack((const uint8_t *)src + b * block_bytes, &block);
        for (i = 0; i < block_elems; i++) {
            float scale = block.d * (float)block.sc[i / 16];
            dst[i] = sm__times(scale, (float)block.q[i]) -
                     sm__times(block.dmin, (float)block.m[i / 16]);
        }
    }
}
#define SM__DECODER(name, elems)                                                                   \
    static void sm__decode_##name(const void *src, float *dst, size_t n) {                         \
        sm__decode_plain(sm__unpack_##name, elems, sizeof(sm__block_##name), src, dst, n);         \
    }
SM__DECODER(q4_1, SM__QK)
SM__DECODER(q5_0, SM__QK)
SM__DECODER(q5_1, SM__QK)
SM__DECODER(iq4_nl, SM__QK)
SM__DECODER(mxfp4, SM__QK)
SM__DECODER(q2_k, SM__QK_K)
SM__DECODER(q3_k, SM__QK_K)
SM__DECODER(q4_k, SM__QK_K)
SM__DECODER(q5_k, SM__QK_K)
SM__DECODER(q6_k, SM__QK_K)
SM__DECODER(iq4_xs, SM__QK_K)
SM__DECODER(tq1_0, SM__QK_K)
SM__DECODER(tq2_0, SM__QK_K)
#undef SM__DECODER

static void sm__encode_f32(const float *src, void *dst, size_t n) { memcpy(dst, src, n * 4); }

static void sm__encode_f16(const float *src, void *dst, size_t n) {
    size_t i;
    for (i = 0; i < n; i++) {
        uint16_t h = sm__f32_to_f16(src[i]);
        memcpy((uint8_t *)dst + 2 * i, &h, 2);
    }
}

static void sm__encode_bf16(const float *src, void *dst, size_t n) {
    size_t i;
    for (i = 0; i < n; i++) {
        uint16_t h = sm__f32_to_bf16(src[i]);
        memcpy((uint8_t *)dst + 2 * i, &h, 2);
    }
}

/* Half away from zero, as the reference encoders of the block formats round. */
SM__INLINE int sm__round_away(float x) {
    int i = (int)x;
    float f = x - (float)i;
    return f >= 0.5f ? i + 1 : f <= -0.5f ? i - 1 : i;
}

static void sm__encode_q8_0(const float *src, void *dst, size_t n) {
    size_t b;
    for (b = 0; b < n / SM__QK; b++, src += SM__QK) {
        sm__block_q8_0 block;
        float amax = 0.0f, d, inverse;
        int i;
        for (i = 0; i < SM__QK; i++) {
            float a = src[i] < 0.0f ? -src[i] : src[i];
            if (a > amax) amax = a;
        }
        d = sm__div(amax, 127.0f);
        inverse = d != 0.0f ? sm__div(1.0f, d) : 0.0f;
        block.d = sm__f32_to_f16(d);
        for (i = 0; i < SM__QK; i++) {
            float q = src[i] * inverse;
            block.q[i] = (int8_t)(q > -128.0f && q < 128.0f ? sm__round_away(q) : 0);
        }
        memcpy((uint8_t *)dst + b * sizeof block, &block, sizeof block);
    }
}

static void sm__encode_q4_0(const float *src, void *dst, size_t n) {
    size_t b;
    for (b = 0; b < n / SM__QK; b++, src += SM__QK) {
        sm__block_q4_0 block;
        float amax = 0.0f, extreme = 0.0f, d, inverse;
        int i;
        for (i = 0; i < SM__QK; i++) {
            float a = src[i] < 0.0f ? -src[i] : src[i];
            if (a > amax) amax = a, extreme = src[i];
        }
        d = extreme * -0.125f; /* the extreme value becomes q = 0, that is -8 */
        inverse = d != 0.0f ? sm__div(1.0f, d) : 0.0f;
        block.d = sm__f32_to_f16(d);
        for (i = 0; i < SM__QK / 2; i++) {
            float lo = sm__times(src[i], inverse) + 8.5f;
            float hi = sm__times(src[i + SM__QK / 2], inverse) + 8.5f;
            int q0 = lo > 0.0f && lo < 100.0f ? sm__min(15, (int)lo) : 0;
            int q1 = hi > 0.0f && hi < 100.0f ? sm__min(15, (int)hi) : 0;
            block.b[i] = (uint8_t)(q0 | q1 << 4);
        }
        memcpy((uint8_t *)dst + b * sizeof block, &block, sizeof block);
    }
}

/* Nibble i of 32, and its fifth bit. */
SM__INLINE void sm__put_nibble(uint8_t *b, uint8_t *high, int i, int q) {
    b[i % 16] = (uint8_t)(b[i % 16] | (q & 15) << (i / 16 * 4));
    if (high) high[i / 8] = (uint8_t)(high[i / 8] | (q >> 4) << i % 8);
}

/* x [32] ~ d * q + m, q = 0 .. top: from the least to the largest. */
static void sm__encode_range(const float *x, int top, uint16_t *d_out, uint16_t *m_out, uint8_t *b,
                             uint8_t *high) {
    float low = x[0], most = x[0], d, inverse;
    int i;
    for (i = 1; i < SM__QK; i++) {
        if (x[i] < low) low = x[i];
        if (x[i] > most) most = x[i];
    }
    d = sm__div(most - low, (float)top);
    inverse = d != 0.0f ? sm__div(1.0f, d) : 0.0f;
    *d_out = sm__f32_to_f16(d);
    *m_out = sm__f32_to_f16(low);
    for (i = 0; i < SM__QK; i++) {
        float q = sm__times(x[i] - low, inverse) + 0.5f;
        sm__put_nibble(b, high, i, q > 0.0f && q < 100.0f ? sm__min(top, (int)q) : 0);
    }
}

static void sm__encode_q4_1(const float *src, void *dst, size_t n) {
    size_t b;
    for (b = 0; b < n / SM__QK; b++) {
        sm__block_q4_1 block;
        memset(&block, 0, sizeof block);
        sm__encode_range(src + b * SM__QK, 15, &block.d, &block.m, block.b, NULL);
        memcpy((uint8_t *)dst + b * sizeof block, &block, sizeof block);
    }
}

static void sm__encode_q5_1(const float *src, void *dst, size_t n) {
    size_t b;
    for (b = 0; b < n / SM__QK; b++) {
        sm__block_q5_1 block;
        memset(&block, 0, sizeof block);
        sm__encode_range(src + b * SM__QK, 31, &block.d, &block.m, block.b, block.high);
        memcpy((uint8_t *)dst + b * sizeof block, &block, sizeof block);
    }
}

/* Of n numbers the one that is furthest from 0; the first of several. */
static float sm__extreme(const float *x, int n) {
    float amax = 0.0f, extreme = 0.0f;
    int i;
    for (i = 0; i < n; i++) {
        float a = x[i] < 0.0f ? -x[i] : x[i];
        if (a > amax) amax = a, extreme = x[i];
    }
    return extreme;
}

static void sm__encode_q5_0(const float *src, void *dst, size_t n) {
    size_t b;
    for (b = 0; b < n / SM__QK; b++, src += SM__QK) {
        sm__block_q5_0 block;
        float d = sm__times(sm__extreme(src, SM__QK), -0.0625f), inverse; /* it becomes -16 */
        int i;
        memset(&block, 0, sizeof block);
        inverse = d != 0.0f ? sm__div(1.0f, d) : 0.0f;
        block.d = sm__f32_to_f16(d);
        for (i = 0; i < SM__QK; i++) {
            float q = sm__times(src[i], inverse) + 16.5f;
            sm__put_nibble(block.b, block.high, i, q > 0.0f && q < 99.0f ? sm__min(31, (int)q) : 0);
        }
        memcpy((uint8_t *)dst + b * sizeof block, &block, sizeof block);
    }
}

/* 2^e becomes the step before the last, 4: what is larger than 6 * 2^(e - 2) is cut. */
static void sm__encode_mxfp4(const float *src, void *dst, size_t n) {
    size_t b;
    for (b = 0; b < n / SM__QK; b++, src += SM__QK) {
        sm__block_mxfp4 block;
        int exponent = (int)(sm__bits(sm__extreme(src, SM__QK)) >> 23 & 255), i, q;
        float d;
        memset(&block, 0, sizeof block);
        block.e = (uint8_t)(exponent > 2 ? exponent - 2 : 0);
        d = sm__mxfp4_scale(block.e);
        for (i = 0; i < SM__QK; i++) {
            float best = 0.0f;
            int nearest = 0;
            for (q = 0; q < 16; q++) {
                float off = sm__times(d, (float)sm__mxfp4_steps[q]) - src[i];
                if (off < 0.0f) off = -off;
                if (q == 0 || off < best) best = off, nearest = q;
            }
            sm__put_nibble(block.b, NULL, i, nearest);
        }
        memcpy((uint8_t *)dst + b * sizeof block, &block, sizeof block);
    }
}

/* The K-quants' encoders search: for each sub-block several roundings are tried, the scale (and the
 * minimum) that fits each best by weighted least squares is computed, and the best of all is kept
 * (as ggml's reference encoders do it). */

static int sm__nearest(float x, int low, int high) {
    if (!(x > (float)low)) return low; /* NaN too */
    return x < (float)high ? sm__round_even(x) : high;
}

/* x [n] ~ scale * q + *least, n = 16 or 32, q = 0 .. top, *least <= 0; n_tries roundings are tried,
 * from `first` on, in tenths of a step beyond top. Which is best is told by errors' squares, for 16
 * by their sizes. Returns the scale. */
static float sm__fit_range(const float *x, int n, int top, float first, int n_tries,
                           float *least) {
    float weight[32], l[32], low = x[0], high = x[0], sum_w = 0.0f, sum_x = 0.0f, square = 0.0f;
    float scale = 0.0f, best = 0.0f;
    int i, attempt;
    for (i = 0; i < n && n == 32; i++) square += sm__times(x[i], x[i]);
    square = sm__sqrt(sm__div(square, 32.0f));
    for (i = 0; i < n; i++) {
        weight[i] = square + (x[i] < 0.0f ? -x[i] : x[i]);
        sum_w += weight[i];
        sum_x += sm__times(weight[i], x[i]);
        if (x[i] < low) low = x[i];
        if (x[i] > high) high = x[i];
    }
    if (low > 0.0f) low = 0.0f;
    *least = low;
    if (!(high > low)) return 0.0f;
    for (attempt = -1; attempt <= n_tries; attempt++) { /* -1: as the range has it */
        float steps = attempt < 0 ? (float)top
                                  : first + sm__times(0.1f, (float)attempt) + (float)top;
        float inverse = sm__div(steps, high - low), sum_l = 0.0f, sum_ll = 0.0f, sum_xl = 0.0f;
        float fit = sm__div(1.0f, inverse), min = low, error = 0.0f, divisor;
        for (i = 0; i < n; i++) {
            float part;
            l[i] = (float)sm__nearest(inverse * (x[i] - low), 0, top);
            part = sm__times(weight[i], l[i]);
            sum_l += part;
            sum_ll += sm__times(part, l[i]);
            sum_xl += sm__times(part, x[i]);
        }
        divisor = sm__times(sum_w, sum_ll) - sm__times(sum_l, sum_l);
        if (attempt >= 0) {
            if (!(divisor > 0.0f)) continue;
            fit = sm__div(sm__times(sum_w, sum_xl) - sm__times(sum_x, sum_l), divisor);
            min = sm__div(sm__times(sum_ll, sum_x) - sm__times(sum_l, sum_xl), divisor);
            if (min > 0.0f) min = 0.0f, fit = sm__div(sum_xl, sum_ll);
        }
        for (i = 0; i < n; i++) {
            float off = sm__times(fit, l[i]) + min - x[i];
            if (n == 16) error += sm__times(weight[i], off < 0.0f ? -off : off);
            else error += sm__times(sm__times(weight[i], off), off);
        }
        if (attempt >= 0 && !(error < best)) continue;
        best = error;
        scale = fit;
        low = *least = min; /* the next roundings start from here */
    }
    return scale;
}

/* x [16] ~ scale * q, q = -32 .. 31. Returns the scale. */
static float sm__fit_scale(const float *x) {
    float extreme = sm__extreme(x, 16), scale = 0.0f, best = 0.0f;
    int i, attempt;
    if (extreme < 1e-15f && extreme > -1e-15f) return 0.0f;
    for (attempt = 0; attempt < 19; attempt++) { /* first as the range has it */
        int tenths = attempt == 0 ? 0 : attempt <= 9 ? attempt - 10 : attempt - 9;
        float off = sm__times(0.1f, (float)tenths);
        float inverse = sm__div(-(32.0f + off), extreme), sum_xl = 0.0f, sum_ll = 0.0f;
        for (i = 0; i < 16; i++) { /* weighted by x^2 */
            float l = (float)sm__nearest(inverse * x[i], -32, 31);
            float square = sm__times(x[i], x[i]);
            sum_xl += sm__times(sm__times(square, x[i]), l);
            sum_ll += sm__times(sm__times(square, l), l);
        }
        if (attempt && !(sum_ll > 0.0f && sum_xl * sum_xl > best * sum_ll)) continue;
        scale = sum_ll > 0.0f ? sm__div(sum_xl, sum_ll) : 0.0f;
        best = scale * sum_xl;
    }
    return scale;
}

/* Q4_K (top = 15) and Q5_K (31): scales, q and high (NULL for Q4_K) of a superblock. */
static void sm__encode_q4_q5(const float *x, int top, uint16_t *d_out, uint16_t *dmin_out,
                             uint8_t *scales, uint8_t *q, uint8_t *high) {
    float scale[8], least[8], max_scale = 0.0f, max_least = 0.0f, up, up_min, d, dmin;
    int i, j;
    for (j = 0; j < 8; j++) {
        scale[j] = sm__fit_range(x + 32 * j, 32, top, top == 15 ? -1.0f : -0.5f,
                                 top == 15 ? 20 : 15, &least[j]);
        least[j] = -least[j];
        if (scale[j] > max_scale) max_scale = scale[j];
        if (least[j] > max_least) max_least = least[j];
    }
    up = max_scale > 0.0f ? sm__div(63.0f, max_scale) : 0.0f;
    up_min = max_least > 0.0f ? sm__div(63.0f, max_least) : 0.0f;
    *d_out = sm__f32_to_f16(sm__div(max_scale, 63.0f));
    *dmin_out = sm__f32_to_f16(sm__div(max_least, 63.0f));
    d = sm__f16_to_f32(*d_out);
    dmin = sm__f16_to_f32(*dmin_out);
    memset(scales, 0, 12);
    memset(q, 0, SM__QK_K / 2);
    if (high) memset(high, 0, SM__QK_K / 8);
    for (j = 0; j < 8; j++) {
        int sc = sm__nearest(up * scale[j], 0, 63), m = sm__nearest(up_min * least[j], 0, 63);
        float step = d * (float)sc, shift = sm__times(dmin, (float)m);
        if (j < 4) {
            scales[j] = (uint8_t)(scales[j] | sc);
            scales[j + 4] = (uint8_t)(scales[j + 4] | m);
        } else {
            scales[j + 4] = (uint8_t)((sc & 15) | (m & 15) << 4);
            scales[j - 4] = (uint8_t)(scales[j - 4] | (sc >> 4) << 6);
            scales[j] = (uint8_t)(scales[j] | (m >> 4) << 6);
        }
        for (i = 0; i < 32; i++) {
            float y = step != 0.0f ? sm__div(x[32 * j + i] + shift, step) : 0.0f;
            int l = sm__nearest(y, 0, top);
            uint8_t *at = &q[j / 2 * 32 + i];
            *at = (uint8_t)(*at | (l & 15) << (j % 2 * 4));
            if (high) high[i] = (uint8_t)(high[i] | (l >> 4) << j);
        }
    }
}

static void sm__encode_q4_k(const float *src, void *dst, size_t n) {
    size_t b;
    for (b = 0; b < n / SM__QK_K; b++, src += SM__QK_K) {
        sm__block_q4_k block;
        sm__encode_q4_q5(src, 15, &block.d, &block.dmin, block.scales, block.q, NULL);
        memcpy((uint8_t *)dst + b * sizeof block, &block, sizeof block);
    }
}

static void sm__encode_q5_k(const float *src, void *dst, size_t n) {
    size_t b;
    for (b = 0; b < n / SM__QK_K; b++, src += SM__QK_K) {
        sm__block_q5_k block;
        sm__encode_q4_q5(src, 31, &block.d, &block.dmin, block.scales, block.q, block.high);
        memcpy((uint8_t *)dst + b * sizeof block, &block, sizeof block);
    }
}

static void sm__encode_q6_k(const float *src, void *dst, size_t n) {
    size_t b;
    for (b = 0; b < n / SM__QK_K; b++, src += SM__QK_K) {
        sm__block_q6_k block;
        float scale[16], extreme = 0.0f, amax = 0.0f, up, d;
        int i, j;
        for (j = 0; j < 16; j++) {
            float a = scale[j] = sm__fit_scale(src + 16 * j);
            if (a < 0.0f) a = -a;
            if (a > amax) amax = a, extreme = scale[j];
        }
        memset(&block, 0, sizeof block);
        if (amax >= 1e-15f) {
            up = sm__div(-128.0f, extreme);
            block.d = sm__f32_to_f16(sm__div(1.0f, up));
            d = sm__f16_to_f32(block.d);
            for (j = 0; j < 16; j++)
                block.scales[j] = (int8_t)sm__nearest(up * scale[j], -128, 127);
            for (i = 0; i < SM__QK_K; i++) {
                float step = d * (float)block.scales[i / 16];
                int l = 32, half = i / 128, g = i % 128 / 32;
                uint8_t *q = &block.q[64 * half + 32 * (g % 2) + i % 32];
                uint8_t *high = &block.high[32 * half + i % 32];
                if (step != 0.0f) l += sm__nearest(sm__div(src[i], step), -32, 31);
                *q = (uint8_t)(*q | (l & 15) << (g / 2 * 4));
                *high = (uint8_t)(*high | (l >> 4) << 2 * g);
            }
        }
        memcpy((uint8_t *)dst + b * sizeof block, &block, sizeof block);
    }
}

static void sm__encode_q2_k(const float *src, void *dst, size_t n) {
    size_t b;
    for (b = 0; b < n / SM__QK_K; b++, src += SM__QK_K) {
        sm__block_q2_k block;
        float scale[16], least[16], max_scale = 0.0f, max_least = 0.0f, up, up_min;
        int i, j;
        memset(&block, 0, sizeof block);
        for (j = 0; j < 16; j++) {
            scale[j] = sm__fit_range(src + 16 * j, 16, 3, -0.5f, 15, &least[j]);
            least[j] = -least[j];
            if (scale[j] > max_scale) max_scale = scale[j];
            if (least[j] > max_least) max_least = least[j];
        }
        up = max_scale > 0.0f ? sm__div(15.0f, max_scale) : 0.0f;
        up_min = max_least > 0.0f ? sm__div(15.0f, max_least) : 0.0f;
        block.d = sm__f32_to_f16(sm__div(max_scale, 15.0f));
        block.dmin = sm__f32_to_f16(sm__div(max_least, 15.0f));
        for (j = 0; j < 16; j++) {
            int sc = sm__nearest(up * scale[j], 0, 15), m = sm__nearest(up_min * least[j], 0, 15);
            float step = sm__f16_to_f32(block.d) * (float)sc;
            float shift = sm__times(sm__f16_to_f32(block.dmin), (float)m);
            block.scales[j] = (uint8_t)(sc | m << 4);
            for (i = 16 * j; i < 16 * j + 16; i++) {
                float y = step != 0.0f ? sm__div(src[i] + shift, step) : 0.0f;
                uint8_t *at = &block.q[i / 128 * 32 + i % 32];
                *at = (uint8_t)(*at | sm__nearest(y, 0, 3) << (i / 32 % 4 * 2));
            }
        }
        memcpy((uint8_t *)dst + b * sizeof block, &block, sizeof block);
    }
}

/* x [16] ~ scale * q, q = -4 .. 3: from the nearest ones on, each q in turn becomes what fits best
 * to the others, up to five times. Weights are x^2. Returns the scale. */
static float sm__fit_three_bits(const float *x) {
    float extreme = sm__extreme(x, 16), inverse, sum_xl = 0.0f, sum_ll = 0.0f;
    int l[16], i, attempt, changed = 1;
    if (extreme < 1e-15f && extreme > -1e-15f) return 0.0f;
    inverse = sm__div(-4.0f, extreme);
    for (i = 0; i < 16; i++) {
        float square = sm__times(x[i], x[i]);
        l[i] = sm__nearest(inverse * x[i], -4, 3);
        sum_xl += sm__times(sm__times(square, x[i]), (float)l[i]);
        sum_ll += sm__times(sm__times(square, (float)l[i]), (float)l[i]);
    }
    for (attempt = 0; attempt < 5 && changed; attempt++)
        for (changed = 0, i = 0; i < 16; i++) {
            float square = sm__times(x[i], x[i]), weighted = sm__times(square, x[i]);
            float xl = sum_xl - sm__times(weighted, (float)l[i]), better;
            float ll = sum_ll - sm__times(sm__times(square, (float)l[i]), (float)l[i]);
            if (!(xl > 0.0f)) continue;
            better = (float)sm__nearest(sm__div(sm__times(x[i], ll), xl), -4, 3);
            xl += sm__times(weighted, better);
            ll += sm__times(sm__times(square, better), better);
            if ((int)better == l[i] || !(ll > 0.0f)) continue;
            if (!(sm__times(sm__times(xl, xl), sum_ll) > sm__times(sm__times(sum_xl, sum_xl), ll)))
                continue;
            l[i] = (int)better;
            sum_xl = xl;
            sum_ll = ll;
            changed = 1;
        }
    return sum_ll > 0.0f ? sm__div(sum_xl, sum_ll) : 0.0f;
}

static void sm__encode_q3_k(const float *src, void *dst, size_t n) {
    size_t b;
    for (b = 0; b < n / SM__QK_K; b++, src += SM__QK_K) {
        sm__block_q3_k block;
        float scale[16], extreme, up = 0.0f, d;
        int i, j;
        memset(&block, 0, sizeof block);
        for (j = 0; j < 16; j++) scale[j] = sm__fit_three_bits(src + 16 * j);
        extreme = sm__extreme(scale, 16);
        if (extreme != 0.0f) {
            up = sm__div(-32.0f, extreme);
            block.d = sm__f32_to_f16(sm__div(1.0f, up));
        }
        d = sm__f16_to_f32(block.d);
        for (j = 0; j < 16; j++) {
            int sc = sm__nearest(up * scale[j], -32, 31);
            float step = d * (float)sc;
            uint8_t *low = &block.scales[j % 8], *top = &block.scales[8 + j % 4];
            sc = extreme != 0.0f ? sc + 32 : 0;
            *low = (uint8_t)(*low | (sc & 15) << (j / 8 * 4));
            *top = (uint8_t)(*top | (sc >> 4) << (j / 4 * 2));
            for (i = 16 * j; i < 16 * j + 16; i++) {
                int l = step != 0.0f ? sm__nearest(sm__div(src[i], step), -4, 3) + 4 : 4;
                uint8_t *q = &block.q[i / 128 * 32 + i % 32], *high = &block.high[i % 32];
                *q = (uint8_t)(*q | (l & 3) << (i / 32 % 4 * 2));
                *high = (uint8_t)(*high | (l >> 2) << i / 32);
            }
        }
        memcpy((uint8_t *)dst + b * sizeof block, &block, sizeof block);
    }
}

/* The step that is nearest to x. */
static int sm__nearest_iq4(float x) {
    int low = 0, high = 15;
    if (!(x > -127.0f)) return 0;
    if (x >= 113.0f) return 15;
    while (high - low > 1) {
        int mid = (low + high) / 2;
        if (x < (float)sm__iq4_steps[mid]) high = mid;
        else low = mid;
    }
    return x - (float)sm__iq4_steps[low] < (float)sm__iq4_steps[high] - x ? low : high;
}

/* x [32] ~ scale * steps: as sm__fit_scale, by the 15 roundings that make the extreme value a step
 * of -127 - 7 .. -127 + 7. */
static float sm__fit_iq4(const float *x) {
    float extreme = sm__extreme(x, SM__QK), scale = 0.0f, best = 0.0f;
    int i, attempt;
    if (extreme < 1e-15f && extreme > -1e-15f) return 0.0f;
    for (attempt = 0; attempt < 16; attempt++) { /* first as the range has it */
        float inverse, sum_xq = 0.0f, sum_qq = 0.0f;
        if (attempt) inverse = sm__div((float)(attempt - 8 - 127), extreme);
        else inverse = sm__div(1.0f, sm__div(extreme, 127.0f));
        for (i = 0; i < SM__QK; i++) {
            float q = (float)sm__iq4_steps[sm__nearest_iq4(sm__times(inverse, x[i]))];
            float weighted = sm__times(sm__times(x[i], x[i]), q);
            sum_xq += sm__times(weighted, x[i]);
            sum_qq += sm__times(weighted, q);
        }
        if (attempt && !(sum_qq > 0.0f && sm__times(sum_xq, sum_xq) > sm__times(best, sum_qq)))
            continue;
        scale = sm__div(sum_xq, sum_qq);
        best = sm__times(scale, sum_xq);
    }
    return scale;
}

static void sm__encode_iq4_nl(const float *src, void *dst, size_t n) {
    size_t b;
    for (b = 0; b < n / SM__QK; b++, src += SM__QK) {
        sm__block_iq4_nl block;
        float d = sm__fit_iq4(src), inverse = d != 0.0f ? sm__div(1.0f, d) : 0.0f;
        int i;
        memset(&block, 0, sizeof block);
        block.d = sm__f32_to_f16(d);
        for (i = 0; i < SM__QK; i++)
            sm__put_nibble(block.b, NULL, i, sm__nearest_iq4(sm__times(inverse, src[i])));
        memcpy((uint8_t *)dst + b * sizeof block, &block, sizeof block);
    }
}

static void sm__encode_iq4_xs(const float *src, void *dst, size_t n) {
    size_t b;
    for (b = 0; b < n / SM__QK_K; b++, src += SM__QK_K) {
        sm__block_iq4_xs block;
        float scale[8], d, inverse;
        int i, j;
        memset(&block, 0, sizeof block);
        for (j = 0; j < 8; j++) scale[j] = sm__fit_iq4(src + SM__QK * j);
        d = sm__times(sm__extreme(scale, 8), -1.0f / 32);
        inverse = d != 0.0f ? sm__div(1.0f, d) : 0.0f;
        block.d = sm__f32_to_f16(d);
        for (j = 0; j < 8; j++) {
            int sc = sm__nearest(sm__times(inverse, scale[j]), -32, 31);
            float step = sm__times(d, (float)sc), up = step != 0.0f ? sm__div(1.0f, step) : 0.0f;
            uint8_t *low = &block.scales_l[j / 2];
            *low = (uint8_t)(*low | ((sc + 32) & 15) << (j % 2 * 4));
            block.scales_h = (uint16_t)(block.scales_h | ((sc + 32) >> 4) << 2 * j);
            for (i = 0; i < SM__QK; i++)
                sm__put_nibble(block.b + 16 * j, NULL, i,
                               sm__nearest_iq4(sm__times(up, src[SM__QK * j + i])));
        }
        memcpy((uint8_t *)dst + b * sizeof block, &block, sizeof block);
    }
}

/* x [256] as -1, 0 and 1 times the largest size, which is returned. */
static float sm__fit_three(const float *x, int8_t *t) {
    float d = sm__extreme(x, SM__QK_K), inverse;
    int i;
    if (d < 0.0f) d = -d;
    inverse = d != 0.0f ? sm__div(1.0f, d) : 0.0f;
    for (i = 0; i < SM__QK_K; i++) {
        float y = sm__times(x[i], inverse);
        t[i] = (int8_t)(y > -2.0f && y < 2.0f ? sm__round_away(y) : 0);
    }
    return d;
}

static void sm__encode_tq2_0(const float *src, void *dst, size_t n) {
    size_t b;
    for (b = 0; b < n / SM__QK_K; b++) {
        sm__block_tq2_0 block;
        int8_t t[SM__QK_K];
        int i;
        memset(&block, 0, sizeof block);
        block.d = sm__f32_to_f16(sm__fit_three(src + b * SM__QK_K, t));
        for (i = 0; i < SM__QK_K; i++) {
            uint8_t *at = &block.q[i / 128 * 32 + i % 32];
            *at = (uint8_t)(*at | (t[i] + 1) << (i / 32 % 4 * 2));
        }
        memcpy((uint8_t *)dst + b * sizeof block, &block, sizeof block);
    }
}

/* n bytes of five digits each, the last ones 0 if there are fewer. */
static void sm__pack_threes(const int8_t *t, int n, int digits, uint8_t *b) {
    int g, i;
    for (i = 0; i < n; i++) {
        int sum = 0;
        for (g = 0; g < 5; g++) sum = 3 * sum + (g < digits ? t[n * g + i] + 1 : 0);
        b[i] = (uint8_t)((sum * 256 + 242) / 243); /* after the point, rounded up */
    }
}

static void sm__encode_tq1_0(const float *src, void *dst, size_t n) {
    size_t b;
    for (b = 0; b < n / SM__QK_K; b++) {
        sm__block_tq1_0 block;
        int8_t t[SM__QK_K];
        block.d = sm__f32_to_f16(sm__fit_three(src + b * SM__QK_K, t));
        sm__pack_threes(t, 32, 5, block.q);
        sm__pack_threes(t + 160, 16, 5, block.q + 32);
        sm__pack_threes(t + 240, 4, 4, block.last);
        memcpy((uint8_t *)dst + b * sizeof block, &block, sizeof block);
    }
}

/* Dense numbers for the types of this build: SM__T_F32 ... index the table and the kernels. */
enum {
    SM__T_F32,
    SM__T_F16,
    SM__T_BF16,
    SM__T_Q8_0,
    SM__T_Q4_0,
    SM__T_Q4_K,
    SM__T_Q5_K,
    SM__T_Q6_K,
    SM__T_Q4_1,
    SM__T_Q5_0,
    SM__T_Q5_1,
    SM__T_IQ4_NL,
    SM__T_MXFP4,
    SM__T_Q2_K,
    SM__T_Q3_K,
    SM__T_IQ4_XS,
    SM__T_TQ1_0,
    SM__T_TQ2_0,
    SM__N_TYPES
};

/* Those that have no scalar matmul of their own. */
#define SM__PLAIN_LIST(X)                                                                          \
    X(q4_k, SM__T_Q4_K) X(q5_k, SM__T_Q5_K) X(q6_k, SM__T_Q6_K) X(q4_1, SM__T_Q4_1)                \
    X(q5_0, SM__T_Q5_0) X(q5_1, SM__T_Q5_1) X(iq4_nl, SM__T_IQ4_NL) X(mxfp4, SM__T_MXFP4)          \
    X(q2_k, SM__T_Q2_K) X(q3_k, SM__T_Q3_K) X(iq4_xs, SM__T_IQ4_XS) X(tq1_0, SM__T_TQ1_0)          \
    X(tq2_0, SM__T_TQ2_0)

typedef struct sm__type {
    int id; /* sm_type */
    sm_type_info info;
    int act_block; /* elements of a block of int8 activations that matmul wants; 0 = f32 */
    void (*decode)(const void *src, float *dst, size_t n);
    void (*encode)(const float *src, void *dst, size_t n);
} sm__type;

static const sm__type sm__types[SM__N_TYPES] = {
    {SM_TYPE_F32, {"F32", 1, 4}, 0, sm__decode_f32, sm__encode_f32},
    {SM_TYPE_F16, {"F16", 1, 2}, 0, sm__decode_f16, sm__encode_f16},
    {SM_TYPE_BF16, {"BF16", 1, 2}, 0, sm__decode_bf16, sm__encode_bf16},
    {SM_TYPE_Q8_0, {"Q8_0", SM__QK, 34}, SM__QK, sm__decode_q8_0, sm__encode_q8_0},
    {SM_TYPE_Q4_0, {"Q4_0", SM__QK, 18}, SM__QK, sm__decode_q4_0, sm__encode_q4_0},
    {SM_TYPE_Q4_K, {"Q4_K", SM__QK_K, 144}, SM__QK_K, sm__decode_q4_k, sm__encode_q4_k},
    {SM_TYPE_Q5_K, {"Q5_K", SM__QK_K, 176}, SM__QK_K, sm__decode_q5_k, sm__encode_q5_k},
    {SM_TYPE_Q6_K, {"Q6_K", SM__QK_K, 210}, SM__QK_K, sm__decode_q6_k, sm__encode_q6_k},
    {SM_TYPE_Q4_1, {"Q4_1", SM__QK, 20}, SM__QK, sm__decode_q4_1, sm__encode_q4_1},
    {SM_TYPE_Q5_0, {"Q5_0", SM__QK, 22}, SM__QK, sm__decode_q5_0, sm__encode_q5_0},
    {SM_TYPE_Q5_1, {"Q5_1", SM__QK, 24}, SM__QK, sm__decode_q5_1, sm__encode_q5_1},
    {SM_TYPE_IQ4_NL, {"IQ4_NL", SM__QK, 18}, SM__QK, sm__decode_iq4_nl, sm__encode_iq4_nl},
    {SM_TYPE_MXFP4, {"MXFP4", SM__QK, 17}, SM__QK, sm__decode_mxfp4, sm__encode_mxfp4},
    {SM_TYPE_Q2_K, {"Q2_K", SM__QK_K, 84}, SM__QK_K, sm__decode_q2_k, sm__encode_q2_k},
    {SM_TYPE_Q3_K, {"Q3_K", SM__QK_K, 110}, SM__QK_K, sm__decode_q3_k, sm__encode_q3_k},
    {SM_TYPE_IQ4_XS, {"IQ4_XS", SM__QK_K, 136}, SM__QK_K, sm__decode_iq4_xs, sm__encode_iq4_xs},
    {SM_TYPE_TQ1_0, {"TQ1_0", SM__QK_K, 54}, SM__QK_K, sm__decode_tq1_0, sm__encode_tq1_0},
    {SM_TYPE_TQ2_0, {"TQ2_0", SM__QK_K, 66}, SM__QK_K, sm__decode_tq2_0, sm__encode_tq2_0},
};

/* Row of the table for an sm_type, or -1. */
static int sm__type_index(int type) {
    int i;
    for (i = 0; i < SM__N_TYPES; i++)
        if (sm__types[i].id == type) return i;
    return -1;
}

SM_API const sm_type_info *sm_type_get_info(int type) {
    int i = sm__type_index(type);
    return i < 0 ? NULL : &sm__types[i].info;
}

SM_API sm_status sm_type_decode(int type, const void *src, float *dst, size_t n) {
    int i = sm__type_index(type);
    if (i < 0 || n % (size_t)sm__types[i].info.block_elems || (n && (!src || !dst)))
        return SM_ERR_ARG;
    if (n) sm__types[i].decode(src, dst, n);
    return SM_OK;
}

SM_API sm_status sm_type_encode(int type, const float *src, void *dst, size_t n) {
    int i = sm__type_index(type);
    if (i < 0 || n % (size_t)sm__types[i].info.block_elems || (n && (!src || !dst)))
        return SM_ERR_ARG;
    if (n) sm__types[i].encode(src, dst, n);
    return SM_OK;
}

/* Bytes of a row of n elements (n a multiple of the block); type is an index of sm__types. */
SM__INLINE size_t sm__row_bytes(int type, size_t n) {
    return n / (size_t)sm__types[type].info.block_elems * (size_t)sm__types[type].info.block_bytes;
}

/* ================================================================================================
 * MARK: [SM26] KERNELS
 * For each operation: the contract, the scalar truth, then SSE4.1, AVX2, AVX-512 and NEON versions
 * that give the same bits. Dispatch starts from scalar and lets each level overwrite what it
 * improves.
 * No kernel writes outside its outputs or reads outside its inputs; weights lie at any address.
 *
 * Two summation orders are used throughout:
 *   16 lanes  element k goes to lane k % 16; a lane is one fma chain from +0, k ascending; the
 *             lanes are added as a tree: l[i] += l[i + 8], then 4, 2, 1. Lanes without elements
 *             stay +0.
 *   blocks    acc = fma((float)isum_b, d_w * d_a, acc) from +0, b ascending; isum_b is the exact
 *             integer dot product of block b, d_w and d_a are the scales of weight and activation.
 *             Of a superblock, isum_b = sum over j of sc_j * (dot product of sub-block j); where it
 *             has minima, acc = fma(-(float)msum_b, dmin_w * d_a, acc) follows, msum_b = sum over j
 *             of m_j * (sum of the activations of sub-block j). The minimum of Q4_1 and Q5_1 is
 *             such a one: m_0 = 1, dmin_w = -m. In full, for each type: sm__plain.
 * ============================================================================================== */

/* Rows of activations as matmul reads them: f32 for float weights, int8 blocks for quantised. */
typedef struct sm__acts {
    const float *x; /* [rows, k], row stride x_stride floats */
    size_t x_stride;
    const int8_t *q; /* [rows, k] in [-127, 127], row stride q_stride bytes, rows 64-byte aligned */
    size_t q_stride;
    const float *d; /* [rows, k / 32 or k / 256] scales, row stride d_stride */
    size_t d_stride;
    const int16_t *s; /* [rows, k / 16] sums of 16 elements of q, row stride s_stride */
    size_t s_stride;
} sm__acts;

/* matmul: out[t, o] = sum over k of a[t, k] * w[o, k].
 *   w    [n, k]     of one type, row stride w_stride bytes, any address; n >= 1; k >= 1, a multiple
 *                   of the type's block
 *   a    [rows, k]  rows >= 1
 *   out  [rows, n]  f32, row stride out_stride floats
 *   scratch         SM__MATMUL_SCRATCH(k) bytes, 64-byte aligned, of the calling thread
 * Order: 16 lanes for F32, F16, BF16 (weights converted exactly); blocks for all others.
 * Error: 16 lanes     |got - exact| <= (k / 16 + 5) * 2^-24 * sum |a * w|
 *        blocks       |got - exact| <= (k / 32 + 2) * 2^-24 * sum_b |isum_b * d_w * d_a|;  with
 *                     minima (k / 16 + 3) * 2^-24 * as below
 *        superblocks  |got - exact| <= (k / 128 + 3) * 2^-24 * sum_b (|isum_b * d_w * d_a| +
 *                     |msum_b * dmin_w * d_a|);  exact being the product with the quantised
 *                     activations. */
typedef void (*sm__matmul_fn)(const void *w, size_t w_stride, int n, int k, const sm__acts *a,
                              int rows, float *out, size_t out_stride, void *scratch);
#define SM__MATMUL_SCRATCH(k) ((size_t)32 * ((size_t)(k) + 64) * 4)

/* One part (at most 256 keys) of one KV head, for some query rows. Keys and values are each of one
 * of the cache's types: F32, F16, BF16, or, where D is a multiple of 32, Q8_0 or Q4_0. Q8_0 is int8,
 * Q4_0 is 4 bits in two's complement; a byte holds elements 2 i and, in its high half, 2 i + 1 of a
 * key, or elements i and i + 16 of 32 of a value. A scale in f16 for every 32 elements of a key or
 * value is behind the block: [D / 32, 64] or [64, D / 32]. */
#define SM__KV_BLOCK 64 /* tokens of a KV block */
#define SM__PART 256    /* keys of a part: 4 blocks */
typedef struct sm__attend_args {
    const void *const *keys;   /* [4] blocks [D, 64]: a key a lane; 64-byte aligned */
    const void *const *values; /* [4] blocks [64, D]; 64-byte aligned */
    const void *next;          /* the block of keys that will be wanted after this part */
    const float *const *q;     /* [n_q] query rows [D] */
    const int *n_keys;         /* [n_q] 1 .. 256: the row sees no key of this part from it on */
    const int *first;          /* [n_q] < n_keys: nor one before it. NULL: zeros */
    int n_q, head_dim;         /* n_q <= SM__ATTEND_ROWS */
    float scale, cap;          /* cap: a soft cap of the scores; 0 = none */
    float *m, *s;    /* [n_q] out: largest score, sum of the weights */
    float *const *o; /* [n_q] out: rows [D], unnormalised */
    float *scores;   /* [n_q, 256] what attend_keys hands to attend_values; 64-byte aligned */
} sm__attend_args;
typedef void (*sm__attend_fn)(int type, const sm__attend_args *a);
#define SM__ATTEND_ROWS 64

#ifndef SMALLMIND_NO_TRAIN
/* gemm: out[i, j] = sum over k of a[i, k] b[k, j], for up to gemm_columns (16, or 32) columns j;
 * with add, out += that.
 *   a    rows in blocks of 12: a[i, k] is p[i / 12 * next + i % 12 * row + k * step]
 *   b    panels [k, 16] of 16 columns, one behind the other, 64-byte aligned
 *   out  [rows, gemm_columns]  row stride out_stride floats; of the last panel, columns from
 *        `columns` on get any value, or none
 * Order: one fma chain from +0, k ascending. k <= 256, so that
 * |got - exact| <= 256 * 2^-24 * sum |a * b|. */
typedef struct sm__factor {
    const float *p;
    size_t row, step, next;
} sm__factor;
typedef void (*sm__gemm_fn)(const sm__factor *a, int rows, const float *b, int k, int columns,
                            float *out, size_t out_stride, int add);
#define SM__GEMM_ROWS 12
#define SM__GEMM_COLS 16
#define SM__GEMM_PANELS 2 /* of 16 columns, that a level's gemm takes at most */

/* A factor of a product: element (i, k) is p[i * row + k * step], and one of row and step is 1. */
typedef struct sm__view {
    const float *p;
    size_t row, step;
} sm__view;

/* multiply_bf16: out[i, j] = sum over l of a(i, l) b(j, l), both rounded to BF16; with add, out +=
 * that. i < m <= 264, j < n, l < k; scratch: SM__MULTIPLY_FLOATS. AMX only, and outside the
 * contract of equal bits: a sum goes by pairs, whatever m and n are, so that |got - exact| <= k * 2^-24 * sum |a * b|, denormals taken for 0. */
typedef void (*sm__multiply_fn)(sm__view a, sm__view b, int m, int n, int k, float *out,
                                size_t stride, int add, float *scratch);
#define SM__TILE_ROWS 264 /* of a product, at most; a multiple of SM__GEMM_ROWS */

/* A member's scratch for a product, in floats: both factors packed, and a result that is not whole
 * panels wide. */
#define SM__PACKED_A ((size_t)(SM__TILE_ROWS + 16) * SM__GEMM_K)
#define SM__PANELS ((size_t)SM__GEMM_PANELS * SM__GEMM_COLS * SM__GEMM_K)
#define SM__MULTIPLY_FLOATS                                                                        \
    (SM__PACKED_A + SM__PANELS + SM__TILE_ROWS * SM__GEMM_PANELS * SM__GEMM_COLS)
#define SM__GEMM_K 256
#endif

/* What a context or trainer calls. One table each; filled by sm__kernels_init. */
typedef struct sm__kernels {
    int isa; /* sm_isa */
    sm__matmul_fn matmul[SM__N_TYPES];
    sm__attend_fn attend_keys, attend_values; /* one after the other, each with its own type */
    void (*merge)(float *m, float *s, float *o, float part_m, float part_s, const float *part_o,
                  int n);
    void (*quant)(const float *x, int k, int block, int8_t *q, float *d, int16_t *s);
    void (*rms_norm)(const float *x, const float *w, float *out, int n, float eps);
    void (*layer_norm)(const float *x, const float *w, const float *b, float *out, int n,
                       float eps);
    void (*softmax)(float *x, int n);
    void (*rope)(float *x, int n_heads, int head_dim, int n_rot, const float *cosines,
                 const float *sines, int half_split);
    void (*swiglu)(const float *gate, const float *up, float *out, int n);
    void (*gelu_tanh)(const float *x, float *out, int n);
    void (*gelu_erf)(const float *x, float *out, int n);
    void (*add)(const float *x, float *out, int n);
    void (*mul)(const float *x, float *out, int n);
    void (*scale)(float *x, float factor, int n);
    void (*soft_cap)(float *x, float scale, float cap, int n);
    void (*to_f16)(const float *x, uint16_t *out, int n);
#ifndef SMALLMIND_NO_TRAIN
    sm__gemm_fn gemm;
    int gemm_columns;
    sm__multiply_fn multiply_bf16; /* NULL without AMX */
#endif
} sm__kernels;

/* l[0..16) to one number by the tree 8, 4, 2, 1. */
static float sm__tree16(const float *l) {
    float a = (l[0] + l[8]) + (l[4] + l[12]), b = (l[1] + l[9]) + (l[5] + l[13]);
    float c = (l[2] + l[10]) + (l[6] + l[14]), d = (l[3] + l[11]) + (l[7] + l[15]);
    return (a + c) + (b + d);
}

/* --- the vocabulary of the vector kernels --------------------------------------------------------
 * Small helpers on one register: _xmm (SSE4.1, 4 floats), _ymm (AVX2, 8 floats) and _zmm (AVX-512,
 * 16 floats). Sums, products and quotients go through them because of clang's -ffast-math
 * (SM__KEEP); a multiply-add is always written as one. AVX-512 loops run to the end of a row by
 * masks; AVX2 and SSE4.1 loops leave what is behind the last whole register to scalar code. */

/* Before a loop over an array of registers: unrolled, the array lives in registers. */
#if defined(__clang__)
#define SM__UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define SM__UNROLL _Pragma("GCC unroll 32")
#else
#define SM__UNROLL
#endif

/* A loaded value that is used twice stays in its register: GCC would rather load it twice. */
#if defined(__GNUC__)
#define SM__PIN(v) __asm__("" : "+x"(v))
#else
#define SM__PIN(v) ((void)0)
#endif

#if defined(__GNUC__) || defined(__clang__)
#define SM__UNLIKELY(x) __builtin_expect((x) != 0, 0)
#else
#define SM__UNLIKELY(x) (x)
#endif

SM__INLINE int32_t sm__load_i32(const void *p) {
    int32_t v;
    memcpy(&v, p, 4);
    return v;
}
SM__INLINE uint16_t sm__load_u16(const void *p) {
    uint16_t v;
    memcpy(&v, p, 2);
    return v;
}

#ifdef SM__X86
SM__SSE41 SM__INLINE __m128 sm__add_xmm(__m128 a, __m128 b) {
    __m128 r = _mm_add_ps(a, b);
    SM__KEEP(r);
    return r;
}
#endif

#ifdef SM__HAS_SSE41
/* SSE4.1 has no fma, so it is made of doubles, four floats being two registers of them: the product
 * of two floats is exact, and its sum with a third is rounded to double, then to float. The second
 * rounding can only go wrong where the first one gave a number half way between two floats, though
 * the sum was not exact. Such a number ends in 28 zero bits, also where floats are denormal: where
 * none of the four does, all is well. Else the errors are looked at; if there is one, the sums are
 * rounded to odd, as in sm__fma. */
typedef struct sm__wide {
    __m128d lo, hi;
} sm__wide;

SM__SSE41 SM__INLINE sm__wide sm__widen(__m128 v) {
    sm__wide w;
    w.lo = _mm_cvtps_pd(v);
    w.hi = _mm_cvtps_pd(_mm_movehl_ps(v, v));
    SM__KEEP(w.lo);
    SM__KEEP(w.hi);
    return w;
}
SM__SSE41 SM__INLINE __m128d sm__add_pd(__m128d a, __m128d b) {
    __m128d r = _mm_add_pd(a, b);
    SM__KEEP(r);
    return r;
}
SM__SSE41 SM__INLINE __m128d sm__sub_pd(__m128d a, __m128d b) {
    __m128d r = _mm_sub_pd(a, b);
    SM__KEEP(r);
    return r;
}

/* p + c, rounded to odd: where there is an error and the last bit is 0, one step toward the exact
 * sum. Infinities and NaNs stay. */
SM__SSE41 SM__INLINE __m128d sm__add_odd_pd(__m128d p, __m128d c) {
    __m128d s = sm__add_pd(p, c), b = sm__sub_pd(s, p);
    __m128d error = sm__add_pd(sm__sub_pd(p, sm__sub_pd(s, b)), sm__sub_pd(c, b));
    __m128i u = _mm_castpd_si128(s), e = _mm_castpd_si128(error), one = _mm_set1_epi64x(1), step;
    __m128i all = _mm_set1_epi64x(0x7ff0000000000000), none = _mm_setzero_si128();
    __m128i stays = _mm_cmpeq_epi64(_mm_add_epi64(e, e), none); /* no error, odd, not finite */
    stays = _mm_or_si128(stays, _mm_cmpeq_epi64(_mm_and_si128(u, one), one));
    stays = _mm_or_si128(stays, _mm_cmpeq_epi64(_mm_and_si128(u, all), all));
    step = _mm_srai_epi32(_mm_shuffle_epi32(_mm_xor_si128(u, e), 0xf5), 31); /* signs differ: -1 */
    step = _mm_andnot_si128(stays, _mm_or_si128(step, one));
    return _mm_castsi128_pd(_mm_add_epi64(u, step));
}
SM__SSE41 SM__NOINLINE static __m128 sm__fma_odd_xmm(__m128d lo, __m128d hi, __m128 c) {
    sm__wide w = sm__widen(c);
    return _mm_movelh_ps(_mm_cvtpd_ps(sm__add_odd_pd(lo, w.lo)),
                         _mm_cvtpd_ps(sm__add_odd_pd(hi, w.hi)));
}

/* Whether s = p + c is exact. (Bits: -ffast-math thinks little of NaN. The sign of a zero does not
 * count.) */
SM__SSE41 SM__INLINE int sm__exact_pd(sm__wide p, sm__wide c, sm__wide s) {
    __m128d lo = sm__sub_pd(s.lo, p.lo), hi = sm__sub_pd(s.hi, p.hi);
    c.lo = _mm_or_pd(_mm_xor_pd(lo, c.lo), _mm_xor_pd(sm__sub_pd(s.lo, lo), p.lo));
    c.hi = _mm_or_pd(_mm_xor_pd(hi, c.hi), _mm_xor_pd(sm__sub_pd(s.hi, hi), p.hi));
    return _mm_testz_si128(_mm_castpd_si128(_mm_or_pd(c.lo, c.hi)),
                           _mm_set1_epi64x(0x7fffffffffffffff));
}

/* a * b + c, rounded once. few (a constant): b has 8 bits at most; then such ends are common and
 * errors so rare that they are looked at right away. */
SM__SSE41 SM__INLINE __m128 sm__fma_few(sm__wide a, sm__wide b, __m128 c, int few) {
    sm__wide p, w = sm__widen(c), s;
    __m128i ends = _mm_setzero_si128();
    p.lo = _mm_mul_pd(a.lo, b.lo);
    p.hi = _mm_mul_pd(a.hi, b.hi);
    s.lo = sm__add_pd(p.lo, w.lo);
    s.hi = sm__add_pd(p.hi, w.hi);
    if (!few)
        ends = _mm_castps_si128(_mm_shuffle_ps(_mm_castpd_ps(s.lo), _mm_castpd_ps(s.hi), 0x88));
    ends = _mm_cmpeq_epi32(_mm_slli_epi32(ends, 4), _mm_setzero_si128());
    if ((few || SM__UNLIKELY(_mm_movemask_epi8(ends))) && SM__UNLIKELY(!sm__exact_pd(p, w, s)))
        return sm__fma_odd_xmm(p.lo, p.hi, c);
    return _mm_movelh_ps(_mm_cvtpd_ps(s.lo), _mm_cvtpd_ps(s.hi));
}
SM__SSE41 SM__INLINE __m128 sm__fma_wide(sm__wide a, sm__wide b, __m128 c) {
    return sm__fma_few(a, b, c, 0);
}
SM__SSE41 SM__INLINE __m128 sm__fma_xmm(__m128 a, __m128 b, __m128 c) {
    return sm__fma_wide(sm__widen(a), sm__widen(b), c);
}
SM__SSE41 SM__INLINE __m128 sm__sub_xmm(__m128 a, __m128 b) {
    __m128 r = _mm_sub_ps(a, b);
    SM__KEEP(r);
    return r;
}
SM__SSE41 SM__INLINE __m128 sm__mul_xmm(__m128 a, __m128 b) {
    __m128 r = _mm_mul_ps(a, b);
    SM__KEEP(r);
    return r;
}
SM__SSE41 SM__INLINE __m128 sm__div_xmm(__m128 a, __m128 b) {
#ifdef SM__FAST_CLANG
    __asm__("divps %1, %0" : "+x"(a) : "x"(b));
    return a;
#else
    return _mm_div_ps(a, b);
#endif
}
SM__SSE41 SM__INLINE __m128 sm__negate_xmm(__m128 x) { return _mm_xor_ps(x, _mm_set1_ps(-0.0f)); }

/* The tree 8, 4, 2, 1 over 16 lanes in memory. */
SM__SSE41 SM__INLINE float sm__tree_xmm(const float *l) {
    __m128 a = sm__add_xmm(_mm_loadu_ps(l), _mm_loadu_ps(l + 8));
    a = sm__add_xmm(a, sm__add_xmm(_mm_loadu_ps(l + 4), _mm_loadu_ps(l + 12)));
    a = sm__add_xmm(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(sm__add_xmm(a, _mm_shuffle_ps(a, a, 1)));
}

/* NaN becomes -inf. */
SM__SSE41 SM__INLINE __m128 sm__no_nan_xmm(__m128 x) {
    __m128i a = _mm_and_si128(_mm_castps_si128(x), _mm_set1_epi32(0x7fffffff));
    __m128i nan = _mm_cmpgt_epi32(a, _mm_set1_epi32(0x7f800000));
    return _mm_blendv_ps(x, _mm_set1_ps(-SM__INFINITY), _mm_castsi128_ps(nan));
}

/* sm__exp, step by step. Its cases are told apart by bits. Seven multiply-adds are a lot of code:
 * not inlined. */
SM__SSE41 SM__NOINLINE static __m128 sm__exp_xmm(__m128 x) {
    __m128i u = _mm_castps_si128(x), a = _mm_and_si128(u, _mm_set1_epi32(0x7fffffff));
    __m128i over = _mm_cmpgt_epi32(u, _mm_set1_epi32((int)sm__bits(SM__EXP_MAX)));
    __m128i under = _mm_cmpgt_epi32(a, _mm_set1_epi32((int)sm__bits(-SM__EXP_MIN)));
    __m128i nan = _mm_cmpgt_epi32(a, _mm_set1_epi32(0x7f800000));
    __m128i n = _mm_cvtps_epi32(sm__mul_xmm(x, _mm_set1_ps(SM__LOG2E))), half;
    __m128 f = _mm_cvtepi32_ps(n), r, p;
    sm__wide w;
    under = _mm_or_si128(nan, _mm_and_si128(under, _mm_srai_epi32(u, 31)));
    r = sm__fma_xmm(f, _mm_set1_ps(-SM__LN2_HI), x);
    r = sm__fma_xmm(f, _mm_set1_ps(-SM__LN2_LO), r);
    w = sm__widen(r);
    p = sm__fma_wide(sm__widen(_mm_set1_ps(SM__EXP_C4)), w, _mm_set1_ps(SM__EXP_C3));
    p = sm__fma_wide(sm__widen(p), w, _mm_set1_ps(SM__EXP_C2));
    p = sm__fma_wide(sm__widen(p), w, _mm_set1_ps(SM__EXP_C1));
    p = sm__fma_wide(sm__widen(p), w, _mm_set1_ps(SM__EXP_C0));
    p = sm__add_xmm(_mm_set1_ps(1.0f), sm__fma_xmm(p, sm__mul_xmm(r, r), r));
    half = _mm_srai_epi32(n, 1);
    n = _mm_add_epi32(_mm_sub_epi32(n, half), _mm_set1_epi32(127));
    half = _mm_add_epi32(half, _mm_set1_epi32(127));
    p = sm__mul_xmm(p, _mm_castsi128_ps(_mm_slli_epi32(half, 23)));
    p = sm__mul_xmm(p, _mm_castsi128_ps(_mm_slli_epi32(n, 23)));
    p = _mm_blendv_ps(p, _mm_set1_ps(SM__INFINITY), _mm_castsi128_ps(over));
    return _mm_andnot_ps(_mm_castsi128_ps(under), p);
}
#endif

#ifdef SM__HAS_AVX2
SM__AVX2 SM__INLINE __m256 sm__add_ymm(__m256 a, __m256 b) {
    __m256 r = _mm256_add_ps(a, b);
    SM__KEEP(r);
    return r;
}
SM__AVX2 SM__INLINE __m256 sm__sub_ymm(__m256 a, __m256 b) {
    __m256 r = _mm256_sub_ps(a, b);
    SM__KEEP(r);
    return r;
}
SM__AVX2 SM__INLINE __m256 sm__mul_ymm(__m256 a, __m256 b) {
    __m256 r = _mm256_mul_ps(a, b);
    SM__KEEP(r);
    return r;
}
SM__AVX2 SM__INLINE __m256 sm__div_ymm(__m256 a, __m256 b) {
#if defined(__clang__) && defined(__FAST_MATH__) /* it would multiply by an estimate of 1 / b */
    __asm__("vdivps %1, %0, %0" : "+x"(a) : "x"(b));
    return a;
#else
    return _mm256_div_ps(a, b);
#endif
}
/* +0 that the compiler does not know: fma(a, b, 0) must not become a product, which may be -0. */
SM__AVX2 SM__INLINE __m256 sm__zero_ymm(void) {
    __m256 r = _mm256_setzero_ps();
    SM__KEEP(r);
    return r;
}
SM__AVX2 SM__INLINE __m256 sm__negate_ymm(__m256 x) {
    return _mm256_xor_ps(x, _mm256_set1_ps(-0.0f));
}

/* The last steps of the tree 8, 4, 2, 1: 8 lanes to one number. */
SM__AVX2 SM__INLINE float sm__tree_ymm(__m256 v) {
    __m128 x = sm__add_xmm(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = sm__add_xmm(x, _mm_movehl_ps(x, x));
    x = sm__add_xmm(x, _mm_shuffle_ps(x, x, 1));
    return _mm_cvtss_f32(x);
}

/* NaN becomes -inf: comparisons of floats are not trusted with NaN under -ffast-math. */
SM__AVX2 SM__INLINE __m256 sm__no_nan_ymm(__m256 x) {
    __m256i a = _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));
    __m256i nan = _mm256_cmpgt_epi32(a, _mm256_set1_epi32(0x7f800000));
    return _mm256_blendv_ps(x, _mm256_set1_ps(-SM__INFINITY), _mm256_castsi256_ps(nan));
}

/* sm__exp, step by step. Its cases are told apart by bits. */
SM__AVX2 SM__INLINE __m256 sm__exp_ymm(__m256 x) {
    __m256i u = _mm256_castps_si256(x), a = _mm256_and_si256(u, _mm256_set1_epi32(0x7fffffff));
    __m256i over = _mm256_cmpgt_epi32(u, _mm256_set1_epi32((int)sm__bits(SM__EXP_MAX)));
    __m256i under = _mm256_cmpgt_epi32(a, _mm256_set1_epi32((int)sm__bits(-SM__EXP_MIN)));
    __m256i nan = _mm256_cmpgt_epi32(a, _mm256_set1_epi32(0x7f800000));
    __m256i n = _mm256_cvtps_epi32(sm__mul_ymm(x, _mm256_set1_ps(SM__LOG2E))), half;
    __m256 f = _mm256_cvtepi32_ps(n), r, p;
    under = _mm256_or_si256(nan, _mm256_and_si256(under, _mm256_srai_epi32(u, 31)));
    r = _mm256_fmadd_ps(f, _mm256_set1_ps(-SM__LN2_HI), x);
    r = _mm256_fmadd_ps(f, _mm256_set1_ps(-SM__LN2_LO), r);
    p = _mm256_fmadd_ps(_mm256_set1_ps(SM__EXP_C4), r, _mm256_set1_ps(SM__EXP_C3));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(SM__EXP_C2));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(SM__EXP_C1));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(SM__EXP_C0));
    p = sm__add_ymm(_mm256_set1_ps(1.0f), _mm256_fmadd_ps(p, sm__mul_ymm(r, r), r));
    half = _mm256_srai_epi32(n, 1);
    n = _mm256_add_epi32(_mm256_sub_epi32(n, half), _mm256_set1_epi32(127));
    half = _mm256_add_epi32(half, _mm256_set1_epi32(127));
    p = sm__mul_ymm(p, _mm256_castsi256_ps(_mm256_slli_epi32(half, 23)));
    p = sm__mul_ymm(p, _mm256_castsi256_ps(_mm256_slli_epi32(n, 23)));
    p = _mm256_blendv_ps(p, _mm256_set1_ps(SM__INFINITY), _mm256_castsi256_ps(over));
    return _mm256_andnot_ps(_mm256_castsi256_ps(under), p);
}
#endif

#ifdef SM__HAS_AVX512
SM__AVX512 SM__INLINE __m512 sm__add_zmm(__m512 a, __m512 b) {
    __m512 r = _mm512_add_ps(a, b);
    SM__KEEP(r);
    return r;
}
SM__AVX512 SM__INLINE __m512 sm__sub_zmm(__m512 a, __m512 b) {
    __m512 r = _mm512_sub_ps(a, b);
    SM__KEEP(r);
    return r;
}
SM__AVX512 SM__INLINE __m512 sm__mul_zmm(__m512 a, __m512 b) {
    __m512 r = _mm512_mul_ps(a, b);
    SM__KEEP(r);
    return r;
}
SM__AVX512 SM__INLINE __m512 sm__div_zmm(__m512 a, __m512 b) {
#if defined(__clang__) && defined(__FAST_MATH__)
    __asm__("vdivps %1, %0, %0" : "+x"(a) : "x"(b));
    return a;
#else
    return _mm512_div_ps(a, b);
#endif
}
SM__AVX512 SM__INLINE __m512 sm__zero_zmm(void) {
    __m512 r = _mm512_setzero_ps();
    SM__KEEP(r);
    return r;
}
SM__AVX512 SM__INLINE __m512 sm__negate_zmm(__m512 x) {
    return _mm512_xor_ps(x, _mm512_set1_ps(-0.0f));
}

/* The first n lanes; all 16 if n is larger. */
SM__AVX512 SM__INLINE __mmask16 sm__mask_zmm(int n) {
    return (__mmask16)(n < 16 ? (1u << n) - 1u : 0xffffu);
}

SM__AVX512 SM__INLINE float sm__tree_zmm(__m512 v) {
    return sm__tree_ymm(sm__add_ymm(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1)));
}

SM__AVX512 SM__INLINE __m512 sm__no_nan_zmm(__m512 x) {
    __m512i a = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
    __mmask16 nan = _mm512_cmpgt_epi32_mask(a, _mm512_set1_epi32(0x7f800000));
    return _mm512_mask_mov_ps(x, nan, _mm512_set1_ps(-SM__INFINITY));
}

SM__AVX512 SM__INLINE __m512 sm__exp_zmm(__m512 x) {
    __m512i u = _mm512_castps_si512(x), a = _mm512_and_si512(u, _mm512_set1_epi32(0x7fffffff));
    __mmask16 over = _mm512_cmpgt_epi32_mask(u, _mm512_set1_epi32((int)sm__bits(SM__EXP_MAX)));
    __mmask16 under = _mm512_cmpgt_epi32_mask(a, _mm512_set1_epi32((int)sm__bits(-SM__EXP_MIN)));
    __mmask16 nan = _mm512_cmpgt_epi32_mask(a, _mm512_set1_epi32(0x7f800000));
    __m512i n = _mm512_cvtps_epi32(sm__mul_zmm(x, _mm512_set1_ps(SM__LOG2E)));
    __m512 f = _mm512_cvtepi32_ps(n), r, p;
    r = _mm512_fmadd_ps(f, _mm512_set1_ps(-SM__LN2_HI), x);
    r = _mm512_fmadd_ps(f, _mm512_set1_ps(-SM__LN2_LO), r);
    p = _mm512_fmadd_ps(_mm512_set1_ps(SM__EXP_C4), r, _mm512_set1_ps(SM__EXP_C3));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(SM__EXP_C2));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(SM__EXP_C1));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(SM__EXP_C0));
    p = sm__add_zmm(_mm512_set1_ps(1.0f), _mm512_fmadd_ps(p, sm__mul_zmm(r, r), r));
    p = _mm512_scalef_ps(p, f); /* exact, as the product with 2^n is */
    p = _mm512_mask_mov_ps(p, over, _mm512_set1_ps(SM__INFINITY));
    under = (__mmask16)(nan | (under & _mm512_movepi32_mask(u)));
    return _mm512_mask_mov_ps(p, under, _mm512_setzero_ps());
}
#endif

#ifdef SM__HAS_NEON
/* The vocabulary for NEON, suffix _neon, 4 floats a register.
 * clang's -ffast-math marks even intrinsics as fast and, on ARM, knows no pragma against
 * it: a multiply-add and a quotient are the instructions then, sums and products are fenced. */
SM__INLINE float32x4_t sm__fma_neon(float32x4_t acc, float32x4_t a, float32x4_t b) {
#ifdef SM__FAST_CLANG
    __asm__("fmla %0.4s, %1.4s, %2.4s" : "+w"(acc) : "w"(a), "w"(b));
    return acc;
#else
    return vfmaq_f32(acc, a, b);
#endif
}
SM__INLINE float32x4_t sm__add_neon(float32x4_t a, float32x4_t b) {
    float32x4_t r = vaddq_f32(a, b);
    SM__KEEP(r);
    return r;
}
SM__INLINE float32x4_t sm__sub_neon(float32x4_t a, float32x4_t b) {
    float32x4_t r = vsubq_f32(a, b);
    SM__KEEP(r);
    return r;
}
SM__INLINE float32x4_t sm__mul_neon(float32x4_t a, float32x4_t b) {
    float32x4_t r = vmulq_f32(a, b);
    SM__KEEP(r);
    return r;
}
SM__INLINE float32x4_t sm__div_neon(float32x4_t a, float32x4_t b) {
#ifdef SM__FAST_CLANG
    __asm__("fdiv %0.4s, %0.4s, %1.4s" : "+w"(a) : "w"(b));
    return a;
#else
    return vdivq_f32(a, b);
#endif
}
/* +0 that the compiler does not know. */
SM__INLINE float32x4_t sm__zero_neon(void) {
    float32x4_t r = vdupq_n_f32(0.0f);
    SM__KEEP(r);
    return r;
}
SM__INLINE float32x4_t sm__negate_neon(float32x4_t x) {
    return vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(0x80000000u)));
}

/* The tree 8, 4, 2, 1 over 16 lanes in 4 registers. */
SM__INLINE float sm__tree_neon(const float32x4_t v[4]) {
    float32x4_t s = sm__add_neon(sm__add_neon(v[0], v[2]), sm__add_neon(v[1], v[3]));
    s = sm__add_neon(s, vextq_f32(s, s, 2));
    return vgetq_lane_f32(sm__add_neon(s, vextq_f32(s, s, 1)), 0);
}

/* The same when the last n < 16 elements are still to come, by sm__fma or a sum: in memory. */
SM__INLINE void sm__lanes_neon(const float32x4_t v[4], float *lanes) {
    vst1q_f32(lanes, v[0]);
    vst1q_f32(lanes + 4, v[1]);
    vst1q_f32(lanes + 8, v[2]);
    vst1q_f32(lanes + 12, v[3]);
}

/* NaN becomes -inf. */
SM__INLINE float32x4_t sm__no_nan_neon(float32x4_t x) {
    uint32x4_t a = vandq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(0x7fffffffu));
    uint32x4_t nan = vcgtq_u32(a, vdupq_n_u32(0x7f800000u));
    return vreinterpretq_f32_u32(
        vbslq_u32(nan, vdupq_n_u32(0xff800000u), vreinterpretq_u32_f32(x)));
}

/* sm__exp, step by step. Its cases are told apart by bits. */
SM__INLINE float32x4_t sm__exp_neon(float32x4_t x) {
    int32x4_t u = vreinterpretq_s32_f32(x), a = vandq_s32(u, vdupq_n_s32(0x7fffffff));
    uint32x4_t over = vcgtq_s32(u, vdupq_n_s32((int32_t)sm__bits(SM__EXP_MAX)));
    uint32x4_t under = vcgtq_s32(a, vdupq_n_s32((int32_t)sm__bits(-SM__EXP_MIN)));
    uint32x4_t nan = vcgtq_s32(a, vdupq_n_s32(0x7f800000));
    int32x4_t n = vcvtnq_s32_f32(sm__mul_neon(x, vdupq_n_f32(SM__LOG2E))), half;
    float32x4_t f = vcvtq_f32_s32(n), r, p;
    under = vorrq_u32(nan, vandq_u32(under, vcltq_s32(u, vdupq_n_s32(0))));
    r = sm__fma_neon(x, f, vdupq_n_f32(-SM__LN2_HI));
    r = sm__fma_neon(r, f, vdupq_n_f32(-SM__LN2_LO));
    p = sm__fma_neon(vdupq_n_f32(SM__EXP_C3), vdupq_n_f32(SM__EXP_C4), r);
    p = sm__fma_neon(vdupq_n_f32(SM__EXP_C2), p, r);
    p = sm__fma_neon(vdupq_n_f32(SM__EXP_C1), p, r);
    p = sm__fma_neon(vdupq_n_f32(SM__EXP_C0), p, r);
    p = sm__add_neon(vdupq_n_f32(1.0f), sm__fma_neon(r, p, sm__mul_neon(r, r)));
    half = vshrq_n_s32(n, 1);
    n = vaddq_s32(vsubq_s32(n, half), vdupq_n_s32(127));
    half = vaddq_s32(half, vdupq_n_s32(127));
    p = sm__mul_neon(p, vreinterpretq_f32_s32(vshlq_n_s32(half, 23)));
    p = sm__mul_neon(p, vreinterpretq_f32_s32(vshlq_n_s32(n, 23)));
    over = vbslq_u32(over, vdupq_n_u32(0x7f800000u), vreinterpretq_u32_f32(p));
    return vreinterpretq_f32_u32(vbicq_u32(over, under));
}
#endif

/* --- matmul ----------------------------------------------------------------------------------- */

/* Float types, the truth: w is decoded 16 elements at a time. */
static void sm__matmul_float__scalar(int type, const void *w, size_t w_stride, int n, int k,
                                     const sm__acts *a, int rows, float *out, size_t out_stride) {
    size_t elem = (size_t)sm__types[type].info.block_bytes;
    int t, o, i, j;
    for (o = 0; o < n; o++)
        for (t = 0; t < rows; t++) {
            const uint8_t *row = (const uint8_t *)w + (size_t)o * w_stride;
            const float *x = a->x + (size_t)t * a->x_stride;
            float lanes[16] = {0}, v[16];
            for (i = 0; i < k; i += 16) {
                int m = sm__min(16, k - i);
                sm__types[type].decode(row + (size_t)i * elem, v, (size_t)m);
                for (j = 0; j < m; j++) lanes[j] = sm__fma(x[i + j], v[j], lanes[j]);
            }
            out[(size_t)t * out_stride + (size_t)o] = sm__tree16(lanes);
        }
}

static void sm__matmul_f32__scalar(const void *w, size_t w_stride, int n, int k, const sm__acts *a,
                                   int rows, float *out, size_t out_stride, void *scratch) {
    (void)scratch;
    sm__matmul_float__scalar(SM__T_F32, w, w_stride, n, k, a, rows, out, out_stride);
}
static void sm__matmul_f16__scalar(const void *w, size_t w_stride, int n, int k, const sm__acts *a,
                                   int rows, float *out, size_t out_stride, void *scratch) {
    (void)scratch;
    sm__matmul_float__scalar(SM__T_F16, w, w_stride, n, k, a, rows, out, out_stride);
}
static void sm__matmul_bf16__scalar(const void *w, size_t w_stride, int n, int k, const sm__acts *a,
                                    int rows, float *out, size_t out_stride, void *scratch) {
    (void)scratch;
    sm__matmul_float__scalar(SM__T_BF16, w, w_stride, n, k, a, rows, out, out_stride);
}

/* A product of long rows is computed in stretches of k, for which the activations of a tile stay in
 * L1 and 32 rows of weights in L2. Between stretches the lanes of every product wait in scratch, 16
 * floats each: they are the same sums as in one go. */
typedef struct sm__stretch {
    int from, to, k;
    float *lanes;
    size_t ahead; /* one row of a: as far behind w, bytes are prefetched; 0 = none */
} sm__stretch;
#define SM__STRETCH_ROWS 48 /* of a: their lanes with 32 rows of w fit scratch */
SM__UNUSED static int sm__stretch_length(int k) {
    int n = (k + 1023) / 1024;
    return ((k + n - 1) / n + 15) / 16 * 16;
}

#ifdef SM__HAS_SSE41
/* 4 halves, each in 32 bits, to floats. A product moves the exponent's bias, which makes denormals
 * right too; infinities and NaNs get theirs by force. */
SM__SSE41 SM__INLINE __m128 sm__halves_xmm(__m128i h) {
    __m128i a = _mm_and_si128(h, _mm_set1_epi32(0x7fff));
    __m128i sign = _mm_slli_epi32(_mm_xor_si128(h, a), 16);
    __m128i top = _mm_cmpgt_epi32(a, _mm_set1_epi32(0x7bff));
    __m128 bias = _mm_castsi128_ps(_mm_set1_epi32(0x77800000)); /* 2^112 */
    __m128 v = sm__mul_xmm(_mm_castsi128_ps(_mm_slli_epi32(a, 13)), bias);
    top = _mm_or_si128(sign, _mm_and_si128(top, _mm_set1_epi32(0x7f800000)));
    return _mm_or_ps(v, _mm_castsi128_ps(top));
}

/* 4 weights as f32, as sm__load_ymm. */
SM__SSE41 SM__INLINE __m128 sm__load_xmm(int type, const uint8_t *p) {
    __m128i h;
    if (type == SM__T_F32) return _mm_loadu_ps((const float *)(const void *)p);
    if (type == SM__T_Q8_0)
        return _mm_cvtepi32_ps(_mm_cvtepi8_epi32(_mm_cvtsi32_si128(sm__load_i32(p))));
    h = _mm_cvtepu16_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
    if (type == SM__T_F16) return sm__halves_xmm(h);
    return _mm_castsi128_ps(_mm_slli_epi32(h, 16));
}

/* n <= 4 floats of a register. */
SM__SSE41 SM__INLINE void sm__store_xmm(float *out, __m128 v, int n) {
    float all[4];
    _mm_storeu_ps(n < 4 ? all : out, v);
    if (n < 4) memcpy(out, all, (size_t)n * 4);
}

/* n_t rows of a, at most SM__ROWS_XMM, times 4 rows of w, of which n count. What a step reads of w
 * is widened once for all rows of a; the sums live in memory, lanes [n_t, 4, 16], which costs
 * nothing beside the multiply-adds. */
#define SM__ROWS_XMM 8
SM__SSE41 SM__INLINE void sm__tile_float_xmm(int type, int n_t, const uint8_t *w, size_t w_stride,
                                             int n, int k, const float *x, size_t x_stride,
                                             float *out, size_t out_stride, float *lanes) {
    size_t elem = type == SM__T_F32 ? 4 : 2;
    const uint8_t *row[4];
    int i, t, r;
    for (r = 0; r < 4; r++) row[r] = w + (size_t)sm__min(r, n - 1) * w_stride;
    memset(lanes, 0, (size_t)n_t * 64 * sizeof *lanes);
    for (i = 0; i + 4 <= k; i += 4) {
        sm__wide v[4];
        SM__UNROLL
        for (r = 0; r < 4; r++) v[r] = sm__widen(sm__load_xmm(type, row[r] + (size_t)i * elem));
        for (t = 0; t < n_t; t++) {
            sm__wide y = sm__widen(_mm_loadu_ps(x + (size_t)t * x_stride + i));
            float *sum = lanes + 64 * t + i % 16;
            SM__UNROLL
            for (r = 0; r < 4; r++)
                _mm_store_ps(sum + 16 * r, sm__fma_few(y, v[r], _mm_load_ps(sum + 16 * r),
                                                         type == SM__T_BF16));
        }
    }
    for (t = 0; t < n_t; t++)
        for (r = 0; r < n; r++) {
            const float *y = x + (size_t)t * x_stride;
            float *sum = lanes + 64 * t + 16 * r, last[4];
            int j;
            sm__types[type].decode(row[r] + (size_t)i * elem, last, (size_t)(k - i));
            for (j = i; j < k; j++)
                sum[j % 16] = sm__fma(y[j], last[j - i], sum[j % 16]);
            out[(size_t)t * out_stride + (size_t)r] = sm__tree_xmm(sum);
        }
}

SM__SSE41 SM__INLINE void sm__matmul_float_xmm(int type, const void *w, size_t w_stride, int n,
                                               int k, const sm__acts *a, int rows, float *out,
                                               size_t out_stride, void *scratch) {
    int o, t;
    for (o = 0; o < n; o += 4)
        for (t = 0; t < rows; t += SM__ROWS_XMM)
            sm__tile_float_xmm(type, sm__min(rows - t, SM__ROWS_XMM),
                               (const uint8_t *)w + (size_t)o * w_stride, w_stride,
                               sm__min(n - o, 4), k, a->x + (size_t)t * a->x_stride, a->x_stride,
                               out + (size_t)t * out_stride + o, out_stride, (float *)scratch);
}
SM__SSE41 static void sm__matmul_f32__sse41(const void *w, size_t w_stride, int n, int k,
                                            const sm__acts *a, int rows, float *out,
                                            size_t out_stride, void *scratch) {
    sm__matmul_float_xmm(SM__T_F32, w, w_stride, n, k, a, rows, out, out_stride, scratch);
}
SM__SSE41 static void sm__matmul_f16__sse41(const void *w, size_t w_stride, int n, int k,
                                            const sm__acts *a, int rows, float *out,
                                            size_t out_stride, void *scratch) {
    sm__matmul_float_xmm(SM__T_F16, w, w_stride, n, k, a, rows, out, out_stride, scratch);
}
SM__SSE41 static void sm__matmul_bf16__sse41(const void *w, size_t w_stride, int n, int k,
                                             const sm__acts *a, int rows, float *out,
                                             size_t out_stride, void *scratch) {
    sm__matmul_float_xmm(SM__T_BF16, w, w_stride, n, k, a, rows, out, out_stride, scratch);
}
#endif

#ifdef SM__HAS_AVX2
/* One row of a reads n rows of w once: memory gives most to several streams of whole rows, far
 * apart (measured: 29 GB/s to eight of them, 22 to one). A kernel of some lanes then takes rows
 * n / lanes apart, or one less where they would meet in the same sets of the cache. Streams too
 * short for the processor to foresee are not worth it: 1, neighbours. */
SM__INLINE int sm__lane_rows(int n, int lanes, size_t w_stride) {
    int apart = n / lanes;
    if (apart && (size_t)apart * w_stride % 1024 == 0) apart--;
    return (size_t)apart * w_stride >= 16384 ? apart : 1;
}

/* While neighbours are worked on, rows behind them are prefetched, in the order of their addresses:
 * the next ones, but at least 8 KB ahead, or memory answers too late. They go to L1, or, where so
 * many bytes would push out what is being used, to L2. */
SM__INLINE size_t sm__ahead(size_t bytes) {
    return bytes >= 8192 ? bytes : (8192 + bytes - 1) / bytes * bytes;
}
#define SM__TO_L2 16385
SM__INLINE void sm__prefetch(const uint8_t *p, size_t bytes, size_t ahead) { /* bytes: constant */
    size_t i;
    if (ahead < SM__TO_L2) {
        SM__UNROLL
        for (i = 0; i < bytes; i += 64) _mm_prefetch((const char *)p + i, _MM_HINT_T0);
    } else {
        SM__UNROLL
        for (i = 0; i < bytes; i += 64) _mm_prefetch((const char *)p + i, _MM_HINT_T1);
    }
}

/* 8 weights as f32; of Q8_0 (the KV cache's, int8 alone) without their scale. type is a constant at
 * every call, so a call is one load. */
SM__AVX2 SM__INLINE __m256 sm__load_ymm(int type, const uint8_t *p) {
    __m128i h;
    if (type == SM__T_F32) return _mm256_loadu_ps((const float *)(const void *)p);
    if (type == SM__T_Q8_0)
        return _mm256_cvtepi32_ps(
            _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
    h = _mm_loadu_si128((const __m128i *)(const void *)p);
    if (type == SM__T_F16) return _mm256_cvtph_ps(h);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

/* The end of a product if k is not a multiple of 16: n more elements, then the tree. */
SM__AVX2 static float sm__finish_float__avx2(int type, __m256 lo, __m256 hi, const uint8_t *w,
                                             const float *x, int n) {
    float lanes[16], v[16];
    int i;
    _mm256_storeu_ps(lanes, lo);
    _mm256_storeu_ps(lanes + 8, hi);
    sm__types[type].decode(w, v, (size_t)n);
    for (i = 0; i < n; i++) lanes[i] = sm__fma(x[i], v[i], lanes[i]);
    return sm__tree16(lanes);
}

/* n_t rows of a times n_r rows of w (both constants): two registers of 8 lanes for each product. */
SM__AVX2 SM__INLINE void sm__tile_float_ymm(int type, int n_t, int n_r, const uint8_t *w,
                                            size_t w_stride, int n, const sm__stretch *s,
                                            const float *x, size_t x_stride, float *out,
                                            size_t out_stride) {
    size_t elem = type == SM__T_F32 ? 4 : 2;
    const uint8_t *next = w + s->ahead;
    __m256 acc[3][4][2], v[4], y;
    const uint8_t *row[4];
    float *lanes = s->lanes;
    int i, t, r, h;
    for (r = 0; r < n_r; r++) row[r] = w + (size_t)sm__min(r, n - 1) * w_stride;
    SM__UNROLL
    for (t = 0; t < n_t; t++) {
        SM__UNROLL
        for (r = 0; r < n_r; r++) {
            SM__UNROLL
            for (h = 0; h < 2; h++)
                acc[t][r][h] = s->from ? _mm256_load_ps(lanes + 16 * (t * n_r + r) + 8 * h)
                                       : sm__zero_ymm();
        }
    }
    for (i = s->from; i + 16 <= s->to; i += 16) {
        SM__UNROLL
        for (h = 0; h < 2; h++) {
            SM__UNROLL
            for (r = 0; r < n_r; r++)
                v[r] = sm__load_ymm(type, row[r] + (size_t)(i + 8 * h) * elem);
            if (n_t == 1 && h == 0 && s->ahead) {
                sm__prefetch(next, 16 * (size_t)n_r * elem, s->ahead);
                next += 16 * (size_t)n_r * elem;
            }
            SM__UNROLL
            for (t = 0; t < n_t; t++) {
                y = _mm256_loadu_ps(x + (size_t)t * x_stride + i + 8 * h);
                SM__PIN(y);
                SM__UNROLL
                for (r = 0; r < n_r; r++) acc[t][r][h] = _mm256_fmadd_ps(y, v[r], acc[t][r][h]);
            }
        }
    }
    SM__UNROLL
    for (t = 0; t < n_t; t++) {
        SM__UNROLL
        for (r = 0; r < n_r; r++) {
            __m256 *both = acc[t][r];
            float sum;
            if (s->to < s->k) {
                _mm256_store_ps(lanes + 16 * (t * n_r + r), both[0]);
                _mm256_store_ps(lanes + 16 * (t * n_r + r) + 8, both[1]);
                continue;
            }
            sum = i == s->k ? sm__tree_ymm(sm__add_ymm(both[0], both[1]))
                            : sm__finish_float__avx2(type, both[0], both[1],
                                                     row[r] + (size_t)i * elem,
                                                     x + (size_t)t * x_stride + i, s->k - i);
            if (r < n) out[(size_t)t * out_stride + (size_t)r] = sum;
        }
    }
}

/* One stretch of rows of a from row t to row `end`, with up to 32 rows of w. */
SM__AVX2 SM__INLINE void sm__stretch_float_ymm(int type, const uint8_t *w, size_t w_stride, int n,
                                               sm__stretch s, const sm__acts *a, int t, int end,
                                               float *out, size_t out_stride) {
    int o;
    while (t < end) {
        const float *x = a->x + (size_t)t * a->x_stride;
        float *to = out + (size_t)t * out_stride;
        int many = end - t >= 3;
        for (o = 0; o < n; o += many ? 2 : 4) {
            const uint8_t *row = w + (size_t)o * w_stride;
            if (many)
                sm__tile_float_ymm(type, 3, 2, row, w_stride, n - o, &s, x, a->x_stride, to + o,
                                   out_stride);
            else
                sm__tile_float_ymm(type, 1, 4, row, w_stride, n - o, &s, x, a->x_stride, to + o,
                                   out_stride);
            s.lanes += many ? 6 * 16 : 4 * 16;
        }
        t += many ? 3 : 1;
    }
}

/* One row of a: 4 rows of w at a time, first the streams, then neighbours. */
SM__AVX2 SM__INLINE void sm__one_row_float_ymm(int type, const uint8_t *w, size_t w_stride, int n,
                                               sm__stretch s, const sm__acts *a, float *out) {
    int spread = sm__lane_rows(n, 4, w_stride), o = 0, j;
    size_t ahead = s.ahead;
    float sums[4];
    s.from = 0, s.to = s.k;
    while (o < n) {
        int apart = spread > 1 && o < spread ? spread : 1, m = apart > 1 ? 4 : sm__min(4, n - o);
        s.ahead = apart > 1 ? 0 : ahead;
        sm__tile_float_ymm(type, 1, 4, w + (size_t)o * w_stride, (size_t)apart * w_stride, m, &s,
                           a->x, 0, sums, 0);
        for (j = 0; j < m; j++) out[o + j * apart] = sums[j];
        if (apart == 1) o += m;
        else o = o + 1 < spread ? o + 1 : 4 * spread;
    }
}

SM__AVX2 SM__INLINE void sm__matmul_float_ymm(int type, const void *w, size_t w_stride, int n,
                                              int k, const sm__acts *a, int rows, float *out,
                                              size_t out_stride, void *scratch) {
    int first, t, step = rows < 3 ? k : sm__stretch_length(k);
    sm__stretch s;
    s.k = k;
    s.lanes = (float *)scratch;
    s.ahead = rows < 3 ? sm__ahead(4 * w_stride) : 0;
    if (rows == 1) {
        sm__one_row_float_ymm(type, (const uint8_t *)w, w_stride, n, s, a, out);
        return;
    }
    for (first = 0; first < n; first += 32)
        for (t = 0; t < rows; t += SM__STRETCH_ROWS)
            for (s.from = 0; s.from < k; s.from = s.to) {
                s.to = k - s.from > step ? s.from + step : k;
                sm__stretch_float_ymm(type, (const uint8_t *)w + (size_t)first * w_stride, w_stride,
                                      sm__min(32, n - first), s, a, t,
                                      sm__min(rows, t + SM__STRETCH_ROWS), out + first, out_stride);
            }
}
SM__AVX2 static void sm__matmul_f32__avx2(const void *w, size_t w_stride, int n, int k,
                                          const sm__acts *a, int rows, float *out,
                                          size_t out_stride, void *scratch) {
    sm__matmul_float_ymm(SM__T_F32, w, w_stride, n, k, a, rows, out, out_stride, scratch);
}
SM__AVX2 static void sm__matmul_f16__avx2(const void *w, size_t w_stride, int n, int k,
                                          const sm__acts *a, int rows, float *out,
                                          size_t out_stride, void *scratch) {
    sm__matmul_float_ymm(SM__T_F16, w, w_stride, n, k, a, rows, out, out_stride, scratch);
}
SM__AVX2 static void sm__matmul_bf16__avx2(const void *w, size_t w_stride, int n, int k,
                                           const sm__acts *a, int rows, float *out,
                                           size_t out_stride, void *scratch) {
    sm__matmul_float_ymm(SM__T_BF16, w, w_stride, n, k, a, rows, out, out_stride, scratch);
}
#endif

#ifdef SM__HAS_AVX512
/* 16 weights as f32, as sm__load_ymm. */
SM__AVX512 SM__INLINE __m512 sm__load_zmm(int type, const uint8_t *p) {
    __m256i h;
    if (type == SM__T_F32) return _mm512_loadu_ps(p);
    if (type == SM__T_Q8_0)
        return _mm512_cvtepi32_ps(
            _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
    h = _mm256_loadu_si256((const __m256i *)(const void *)p);
    if (type == SM__T_F16) return _mm512_cvtph_ps(h);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
SM__AVX512 SM__INLINE __m512 sm__load_mask_zmm(int type, const uint8_t *p, __mmask16 m) {
    __m256i h;
    if (type == SM__T_F32) return _mm512_maskz_loadu_ps(m, p);
    if (type == SM__T_Q8_0) return sm__load_zmm(type, p); /* its rows end with whole registers */
    h = _mm256_maskz_loadu_epi16(m, p);
    if (type == SM__T_F16) return _mm512_cvtph_ps(h);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

/* Four registers to their four sums, each by the tree 8, 4, 2, 1. */
SM__AVX512 SM__INLINE __m128 sm__tree4_zmm(const __m512 v[4]) {
    __m512 a = sm__add_zmm(_mm512_shuffle_f32x4(v[0], v[1], 0x44),
                           _mm512_shuffle_f32x4(v[0], v[1], 0xee)); /* 8 lanes of 0, 8 of 1 */
    __m512 b = sm__add_zmm(_mm512_shuffle_f32x4(v[2], v[3], 0x44),
                           _mm512_shuffle_f32x4(v[2], v[3], 0xee));
    __m512 c = sm__add_zmm(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
    c = sm__add_zmm(c, _mm512_permute_ps(c, 0x4e));
    c = sm__add_zmm(c, _mm512_permute_ps(c, 0xb1)); /* all four lanes of a quarter are its sum */
    return _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, c));
}

/* n_t (a constant) rows of a times up to 4 rows of w: a register of 16 lanes for each product. */
SM__AVX512 SM__INLINE void sm__tile_float_zmm(int type, int n_t, const uint8_t *w, size_t w_stride,
                                              int n, const sm__stretch *s, const float *x,
                                              size_t x_stride, float *out, size_t out_stride) {
    size_t elem = type == SM__T_F32 ? 4 : 2, ahead = 4 * w_stride; /* the next 4 rows of w */
    __mmask16 m = sm__mask_zmm((s->to - s->from) % 16);
    __m512 acc[6][4], v[4], y;
    const uint8_t *row[4];
    int i, t, r;
    for (r = 0; r < 4; r++) row[r] = w + (size_t)sm__min(r, n - 1) * w_stride;
    SM__UNROLL
    for (t = 0; t < n_t; t++) {
        SM__UNROLL
        for (r = 0; r < 4; r++)
            acc[t][r] = s->from ? _mm512_load_ps(s->lanes + 16 * (4 * t + r)) : sm__zero_zmm();
    }
    for (i = s->from; i + 16 <= s->to; i += 16) {
        SM__UNROLL
        for (r = 0; r < 4; r++) {
            v[r] = sm__load_zmm(type, row[r] + (size_t)i * elem);
            if (n_t < 4) _mm_prefetch((const char *)row[r] + ahead + (size_t)i * elem, _MM_HINT_T0);
        }
        SM__UNROLL
        for (t = 0; t < n_t; t++) {
            y = _mm512_loadu_ps(x + (size_t)t * x_stride + i);
            SM__UNROLL
            for (r = 0; r < 4; r++) acc[t][r] = _mm512_fmadd_ps(y, v[r], acc[t][r]);
        }
    }
    if (m) { /* the other lanes keep what they have, to the sign of a zero */
        SM__UNROLL
        for (r = 0; r < 4; r++) v[r] = sm__load_mask_zmm(type, row[r] + (size_t)i * elem, m);
        SM__UNROLL
        for (t = 0; t < n_t; t++) {
            y = _mm512_maskz_loadu_ps(m, x + (size_t)t * x_stride + i);
            SM__UNROLL
            for (r = 0; r < 4; r++) acc[t][r] = _mm512_mask3_fmadd_ps(y, v[r], acc[t][r], m);
        }
    }
    SM__UNROLL
    for (t = 0; t < n_t; t++, out += out_stride) {
        float sums[4];
        if (s->to < s->k) {
            SM__UNROLL
            for (r = 0; r < 4; r++) _mm512_store_ps(s->lanes + 16 * (4 * t + r), acc[t][r]);
        } else if (n >= 4) {
            _mm_storeu_ps(out, sm__tree4_zmm(acc[t]));
        } else {
            _mm_storeu_ps(sums, sm__tree4_zmm(acc[t]));
            for (r = 0; r < n; r++) out[r] = sums[r];
        }
    }
}

/* One stretch of rows of a from row t to row `end`, with up to 32 rows of w. */
SM__AVX512 SM__INLINE void sm__stretch_float_zmm(int type, const uint8_t *w, size_t w_stride, int n,
                                                 sm__stretch s, const sm__acts *a, int t, int end,
                                                 float *out, size_t out_stride) {
    int o;
    while (t < end) {
        const float *x = a->x + (size_t)t * a->x_stride;
        float *to = out + (size_t)t * out_stride;
        int left = end - t; /* 8 is 4 + 4 */
        int n_t = left >= 6 && left != 8 ? 6 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
        for (o = 0; o < n; o += 4, s.lanes += n_t * 4 * 16) {
            const uint8_t *row = w + (size_t)o * w_stride;
            if (n_t == 6)
                sm__tile_float_zmm(type, 6, row, w_stride, n - o, &s, x, a->x_stride, to + o,
                                   out_stride);
            else if (n_t == 4)
                sm__tile_float_zmm(type, 4, row, w_stride, n - o, &s, x, a->x_stride, to + o,
                                   out_stride);
            else if (n_t == 2)
                sm__tile_float_zmm(type, 2, row, w_stride, n - o, &s, x, a->x_stride, to + o,
                                   out_stride);
            else
                sm__tile_float_zmm(type, 1, row, w_stride, n - o, &s, x, a->x_stride, to + o,
                                   out_stride);
        }
        t += n_t;
    }
}

SM__AVX512 SM__INLINE void sm__matmul_float_zmm(int type, const void *w, size_t w_stride, int n,
                                                int k, const sm__acts *a, int rows, float *out,
                                                size_t out_stride, void *scratch) {
    int first, t, step = rows < 3 ? k : sm__stretch_length(k);
    sm__stretch s;
    s.k = k;
    s.lanes = (float *)scratch;
    for (first = 0; first < n; first += 32)
        for (t = 0; t < rows; t += SM__STRETCH_ROWS)
            for (s.from = 0; s.from < k; s.from = s.to) {
                s.to = k - s.from > step ? s.from + step : k;
                sm__stretch_float_zmm(type, (const uint8_t *)w + (size_t)first * w_stride, w_stride,
                                      sm__min(32, n - first), s, a, t,
                                      sm__min(rows, t + SM__STRETCH_ROWS), out + first, out_stride);
            }
}
SM__AVX512 static void sm__matmul_f32__avx512(const void *w, size_t w_stride, int n, int k,
                                              const sm__acts *a, int rows, float *out,
                                              size_t out_stride, void *scratch) {
    sm__matmul_float_zmm(SM__T_F32, w, w_stride, n, k, a, rows, out, out_stride, scratch);
}
SM__AVX512 static void sm__matmul_f16__avx512(const void *w, size_t w_stride, int n, int k,
                                              const sm__acts *a, int rows, float *out,
                                              size_t out_stride, void *scratch) {
    sm__matmul_float_zmm(SM__T_F16, w, w_stride, n, k, a, rows, out, out_stride, scratch);
}
SM__AVX512 static void sm__matmul_bf16__avx512(const void *w, size_t w_stride, int n, int k,
                                               const sm__acts *a, int rows, float *out,
                                               size_t out_stride, void *scratch) {
    sm__matmul_float_zmm(SM__T_BF16, w, w_stride, n, k, a, rows, out, out_stride, scratch);
}
#endif

#ifdef SM__HAS_NEON
/* 4 weights as f32; of Q8_0 (the KV cache's, int8 alone) without their scale. type is a constant at
 * every call, so a call is one load. */
SM__INLINE float32x4_t sm__load_neon(int type, const uint8_t *p) {
    if (type == SM__T_F32) return vreinterpretq_f32_u8(vld1q_u8(p));
    if (type == SM__T_Q8_0) {
        uint32_t word;
        memcpy(&word, p, 4);
        return vcvtq_f32_s32(
            vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(word))))));
    }
    if (type == SM__T_F16) return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(p)), 16));
}

/* The end of a product: the last n = k % 16 elements, then the tree. */
SM__INLINE float sm__finish_float_neon(int type, const float32x4_t acc[4], const uint8_t *w,
                                       const float *x, int n) {
    float lanes[16], v[16];
    int i;
    if (n == 0) return sm__tree_neon(acc);
    sm__lanes_neon(acc, lanes);
    sm__types[type].decode(w, v, (size_t)n);
    for (i = 0; i < n; i++) lanes[i] = sm__fma(x[i], v[i], lanes[i]);
    return sm__tree16(lanes);
}

/* n_t rows of a times n_r rows of w (both constants): 4 registers for the 16 lanes of a product. */
SM__INLINE void sm__tile_float_neon(int type, int n_t, int n_r, const uint8_t *w, size_t w_stride,
                                    int n, int k, const float *x, size_t x_stride, float *out,
                                    size_t out_stride) {
    size_t elem = type == SM__T_F32 ? 4 : 2;
    float32x4_t acc[3][4][4], v[4], y;
    const uint8_t *row[4];
    int i, t, r, h;
    for (r = 0; r < n_r; r++) row[r] = w + (size_t)sm__min(r, n - 1) * w_stride;
    SM__UNROLL
    for (t = 0; t < n_t; t++) {
        SM__UNROLL
        for (r = 0; r < n_r; r++) {
            SM__UNROLL
            for (h = 0; h < 4; h++) acc[t][r][h] = sm__zero_neon();
        }
    }
    for (i = 0; i + 16 <= k; i += 16) {
        SM__UNROLL
        for (h = 0; h < 4; h++) {
            SM__UNROLL
            for (r = 0; r < n_r; r++)
                v[r] = sm__load_neon(type, row[r] + (size_t)(i + 4 * h) * elem);
            SM__UNROLL
            for (t = 0; t < n_t; t++) {
                y = vld1q_f32(x + (size_t)t * x_stride + i + 4 * h);
                SM__UNROLL
                for (r = 0; r < n_r; r++) acc[t][r][h] = sm__fma_neon(acc[t][r][h], y, v[r]);
            }
        }
    }
    SM__UNROLL
    for (t = 0; t < n_t; t++) {
        SM__UNROLL
        for (r = 0; r < n_r; r++) {
            float sum = sm__finish_float_neon(type, acc[t][r], row[r] + (size_t)i * elem,
                                              x + (size_t)t * x_stride + i, k - i);
            if (r < n) out[(size_t)t * out_stride + (size_t)r] = sum;
        }
    }
}

/* Many rows of a times n rows of f32 w: a block of w that stays in L2. */
static void sm__panel_f32__neon(const uint8_t *w, size_t w_stride, int n, int k, const sm__acts *a,
                                int rows, float *out, size_t out_stride) {
    int t = 0, o;
    for (; t + 3 <= rows; t += 3)
        for (o = 0; o < n; o += 2)
            sm__tile_float_neon(SM__T_F32, 3, 2, w + (size_t)o * w_stride, w_stride, n - o, k,
                                a->x + (size_t)t * a->x_stride, a->x_stride,
                                out + (size_t)t * out_stride + o, out_stride);
    for (; t < rows; t++)
        for (o = 0; o < n; o += 4)
            sm__tile_float_neon(SM__T_F32, 1, 4, w + (size_t)o * w_stride, w_stride, n - o, k,
                                a->x + (size_t)t * a->x_stride, a->x_stride,
                                out + (size_t)t * out_stride + o, out_stride);
}

/* One row of a: straight from the weights. More: 32 rows of w at a time, halves as f32 in
 * scratch. */
SM__INLINE void sm__matmul_float_neon(int type, const void *w, size_t w_stride, int n, int k,
                                      const sm__acts *a, int rows, float *out, size_t out_stride,
                                      void *scratch) {
    const uint8_t *row = (const uint8_t *)w;
    size_t elem = type == SM__T_F32 ? 4 : 2, stride = sm__round_up((size_t)k, 16) + 16;
    int o, i, r;
    if (rows == 1) {
        for (o = 0; o < n; o += 4, row += 4 * w_stride)
            sm__tile_float_neon(type, 1, 4, row, w_stride, n - o, k, a->x, 0, out + o, 0);
        return;
    }
    for (o = 0; o < n; o += 32) {
        int m = sm__min(32, n - o);
        float *panel = (float *)scratch;
        if (type == SM__T_F32) {
            sm__panel_f32__neon(row + (size_t)o * w_stride, w_stride, m, k, a, rows, out + o,
                                out_stride);
            continue;
        }
        for (r = 0; r < m; r++, row += w_stride, panel += stride) {
            for (i = 0; i + 4 <= k; i += 4)
                vst1q_f32(panel + i, sm__load_neon(type, row + (size_t)i * elem));
            sm__types[type].decode(row + (size_t)i * elem, panel + i, (size_t)(k - i));
        }
        sm__panel_f32__neon((const uint8_t *)scratch, stride * 4, m, k, a, rows, out + o,
                            out_stride);
    }
}
static void sm__matmul_f32__neon(const void *w, size_t w_stride, int n, int k, const sm__acts *a,
                                 int rows, float *out, size_t out_stride, void *scratch) {
    sm__matmul_float_neon(SM__T_F32, w, w_stride, n, k, a, rows, out, out_stride, scratch);
}
static void sm__matmul_f16__neon(const void *w, size_t w_stride, int n, int k, const sm__acts *a,
                                 int rows, float *out, size_t out_stride, void *scratch) {
    sm__matmul_float_neon(SM__T_F16, w, w_stride, n, k, a, rows, out, out_stride, scratch);
}
static void sm__matmul_bf16__neon(const void *w, size_t w_stride, int n, int k, const sm__acts *a,
                                  int rows, float *out, size_t out_stride, void *scratch) {
    sm__matmul_float_neon(SM__T_BF16, w, w_stride, n, k, a, rows, out, out_stride, scratch);
}
#endif

static void sm__matmul_q8_0__scalar(const void *w, size_t w_stride, int n, int k, const sm__acts *a,
                                    int rows, float *out, size_t out_stride, void *scratch) {
    int t, o, b, i;
    (void)scratch;
    for (o = 0; o < n; o++)
        for (t = 0; t < rows; t++) {
            float acc = 0.0f;
            for (b = 0; b < k / SM__QK; b++) {
                sm__block_q8_0 block;
                const int8_t *q = a->q + (size_t)t * a->q_stride + (size_t)b * SM__QK;
                int32_t isum = 0;
                memcpy(&block, (const uint8_t *)w + (size_t)o * w_stride + (size_t)b * 34, 34);
                for (i = 0; i < SM__QK; i++) isum += block.q[i] * q[i];
                acc = sm__fma((float)isum,
                              sm__f16_to_f32(block.d) * a->d[(size_t)t * a->d_stride + (size_t)b],
                              acc);
            }
            out[(size_t)t * out_stride + (size_t)o] = acc;
        }
}

static void sm__matmul_q4_0__scalar(const void *w, size_t w_stride, int n, int k, const sm__acts *a,
                                    int rows, float *out, size_t out_stride, void *scratch) {
    int t, o, b, i;
    (void)scratch;
    for (o = 0; o < n; o++)
        for (t = 0; t < rows; t++) {
            float acc = 0.0f;
            for (b = 0; b < k / SM__QK; b++) {
                sm__block_q4_0 block;
                const int8_t *q = a->q + (size_t)t * a->q_stride + (size_t)b * SM__QK;
                int32_t isum = 0;
                memcpy(&block, (const uint8_t *)w + (size_t)o * w_stride + (size_t)b * 18, 18);
                for (i = 0; i < SM__QK / 2; i++)
                    isum += ((block.b[i] & 15) - 8) * q[i] + ((block.b[i] >> 4) - 8) * q[i + 16];
                acc = sm__fma((float)isum,
                              sm__f16_to_f32(block.d) * a->d[(size_t)t * a->d_stride + (size_t)b],
                              acc);
            }
            out[(size_t)t * out_stride + (size_t)o] = acc;
        }
}

/* Whether a type's blocks have minima: those of one without are not even subtracted. */
SM__INLINE int sm__has_minima(int type) {
    return type == SM__T_Q4_K || type == SM__T_Q5_K || type == SM__T_Q2_K || type == SM__T_Q4_1 ||
           type == SM__T_Q5_1;
}

/* The others, the truth: blocks as plain integers. A chain waits in its output while the other rows
 * of a meet the same block. */
static void sm__matmul_plain__scalar(int type, void (*unpack)(const void *, sm__plain *),
                                     const void *w, size_t w_stride, int n, int k,
                                     const sm__acts *a, int rows, float *out, size_t out_stride) {
    size_t bytes = (size_t)sm__types[type].info.block_bytes;
    int elems = sm__types[type].info.block_elems, t, o, b, i, j;
    sm__plain block;
    for (o = 0; o < n; o++)
        for (b = 0; b < k / elems; b++) {
            unpack((const uint8_t *)w + (size_t)o * w_stride + (size_t)b * bytes, &block);
            for (t = 0; t < rows; t++) {
                const int8_t *q = a->q + (size_t)t * a->q_stride + b * elems;
                const int16_t *s = a->s + (size_t)t * a->s_stride + b * elems / 16;
                float d = a->d[(size_t)t * a->d_stride + (size_t)b];
                float *acc = &out[(size_t)t * out_stride + (size_t)o];
                int32_t isum = 0, msum = 0;
                for (j = 0; j < elems / 16; j++) {
                    int32_t dot = 0;
                    for (i = 16 * j; i < 16 * j + 16; i++) dot += block.q[i] * q[i];
                    isum += block.sc[j] * dot;
                    msum += block.m[j] * s[j];
                }
                *acc = sm__fma((float)isum, block.d * d, b ? *acc : 0.0f);
                if (sm__has_minima(type)) *acc = sm__fma(-(float)msum, block.dmin * d, *acc);
            }
        }
}
#define SM__MATMUL(name, T)                                                                        \
    static void sm__matmul_##name##__scalar(const void *w, size_t w_stride, int n, int k,          \
                                            const sm__acts *a, int rows, float *out,               \
                                            size_t out_stride, void *scratch) {                    \
        (void)scratch;                                                                             \
        sm__matmul_plain__scalar(T, sm__unpack_##name, w, w_stride, n, k, a, rows, out,            \
                                 out_stride);                                                      \
    }
SM__PLAIN_LIST(SM__MATMUL)
#undef SM__MATMUL

/* The sum of 32 activations. */
SM__INLINE int32_t sm__sum32(const int16_t *s) { return s[0] + s[1]; }

/* The last n rows of w, copied and made up to `rows` by repeating the last one. */
SM__INLINE const uint8_t *sm__pad_rows(const uint8_t *w, size_t w_stride, size_t row_bytes, int n,
                                       int rows, uint8_t *copy) {
    int r;
    for (r = 0; r < rows; r++)
        memcpy(copy + (size_t)r * row_bytes, w + (size_t)sm__min(r, n - 1) * w_stride, row_bytes);
    return copy;
}

#ifdef SM__HAS_SSE41
/* Four rows of block weights are worked on together, a row a lane in the end. 32 weights of a row
 * become unsigned bytes in two registers, which meet all rows of a: many rows share the unpacking.
 * pmaddubsw takes unsigned times signed bytes: for Q8_0 |w| and a with the sign of w (2 * 128 * 127
 * fits 16 bits); Q4_0 and Q6_K are 8 and 32 too large, which the sums of a make good. */

SM__SSE41 SM__INLINE __m128i sm__load16_xmm(const void *p) {
    return _mm_loadu_si128((const __m128i *)p);
}

/* Of every byte the bits from `from` on, moved to bit `to`; the mask keeps what is wanted. */
SM__SSE41 SM__INLINE __m128i sm__bits_xmm(__m128i v, int from, int to, int mask) {
    v = _mm_slli_epi16(_mm_srli_epi16(v, from), to);
    return _mm_and_si128(v, _mm_set1_epi8((char)mask));
}

/* The 32 weights of sub-block j of a block: unsigned bytes, but for Q8_0 as they are. */
SM__SSE41 SM__INLINE void sm__bytes_xmm(int type, const uint8_t *block, int j, __m128i w[2]) {
    int i;
    if (type == SM__T_Q8_0 || type == SM__T_Q4_0) {
        w[0] = w[1] = sm__load16_xmm(block + 2);
        if (type == SM__T_Q8_0) w[1] = sm__load16_xmm(block + 18);
        else w[0] = sm__bits_xmm(w[0], 0, 0, 15), w[1] = sm__bits_xmm(w[1], 4, 0, 15);
        return;
    }
    SM__UNROLL
    for (i = 0; i < 2; i++, block += 16) {
        const uint8_t *q = block + (type == SM__T_Q4_K ? 16 : 48) + j / 2 * 32, *high = block + 16;
        __m128i top;
        if (type == SM__T_Q6_K) {
            q = block + j / 4 * 64 + j % 2 * 32;
            high = block + 128 + j / 4 * 32;
        }
        w[i] = sm__bits_xmm(sm__load16_xmm(q), (type == SM__T_Q6_K ? j / 2 : j) % 2 * 4, 0, 15);
        if (type == SM__T_Q4_K) continue;
        top = sm__load16_xmm(high);
        if (type == SM__T_Q5_K) top = sm__bits_xmm(top, j, 4, 16);
        else top = sm__bits_xmm(top, j % 4 * 2, 4, 48);
        w[i] = _mm_or_si128(w[i], top);
    }
}

/* acc + 32 weights times 32 activations, times sc[0] and sc[1] for the halves: 4 partial sums. */
SM__SSE41 SM__INLINE __m128i sm__dot32_xmm(int type, __m128i acc, const __m128i w[2],
                                           const int8_t *q, const __m128i sc[2]) {
    __m128i a = _mm_load_si128((const __m128i *)(const void *)q), b;
    b = _mm_load_si128((const __m128i *)(const void *)(q + 16));
    if (type == SM__T_Q8_0) {
        a = _mm_maddubs_epi16(_mm_abs_epi8(w[0]), _mm_sign_epi8(a, w[0]));
        b = _mm_maddubs_epi16(_mm_abs_epi8(w[1]), _mm_sign_epi8(b, w[1]));
    } else {
        a = _mm_maddubs_epi16(w[0], a);
        b = _mm_maddubs_epi16(w[1], b);
    }
    if (type != SM__T_Q8_0 && type != SM__T_Q6_K) /* one scale; 4 * 31 * 127 fits 16 bits */
        return _mm_add_epi32(acc, _mm_madd_epi16(_mm_add_epi16(a, b), sc[0]));
    a = _mm_add_epi32(_mm_madd_epi16(a, sc[0]), _mm_madd_epi16(b, sc[1]));
    return _mm_add_epi32(acc, a);
}

/* What multiplies every 16 weights of a superblock, sc, and the sums of 16 activations, m: the
 * minima, or 32 scales of Q6_K. */
SM__SSE41 SM__INLINE void sm__factors_xmm(int type, const uint8_t *block, __m128i sc[2],
                                          __m128i m[2]) {
    __m128i all, zero = _mm_setzero_si128();
    if (type == SM__T_Q6_K) {
        all = sm__load16_xmm(block + 192);
        sc[0] = _mm_cvtepi8_epi16(all);
        sc[1] = _mm_cvtepi8_epi16(_mm_srli_si128(all, 8));
        m[0] = _mm_slli_epi16(sc[0], 5);
        m[1] = _mm_slli_epi16(sc[1], 5);
    } else { /* 8 bytes of scales, 8 of minima; then each twice */
        int32_t x = sm__load_i32(block + 4), y = sm__load_i32(block + 8);
        int32_t z = sm__load_i32(block + 12);
        all = _mm_setr_epi32(x & 0x3f3f3f3f, (z & 0x0f0f0f0f) | (x >> 2 & 0x30303030),
                             y & 0x3f3f3f3f, (z >> 4 & 0x0f0f0f0f) | (y >> 2 & 0x30303030));
        m[0] = _mm_unpackhi_epi8(all, all);
        all = _mm_unpacklo_epi8(all, all);
        sc[0] = _mm_unpacklo_epi8(all, zero);
        sc[1] = _mm_unpackhi_epi8(all, zero);
        m[1] = _mm_unpackhi_epi8(m[0], zero);
        m[0] = _mm_unpacklo_epi8(m[0], zero);
    }
}

/* The sum over j of m_j * s_j: 4 partial sums. */
SM__SSE41 SM__INLINE __m128i sm__sums_xmm(const __m128i m[2], const int16_t *s) {
    return _mm_add_epi32(_mm_madd_epi16(m[0], sm__load16_xmm(s)),
                         _mm_madd_epi16(m[1], sm__load16_xmm(s + 8)));
}
/* Four sums of 4 numbers each, as floats. */
SM__SSE41 SM__INLINE __m128 sm__sum4_xmm(const __m128i v[4]) {
    return _mm_cvtepi32_ps(
        _mm_hadd_epi32(_mm_hadd_epi32(v[0], v[1]), _mm_hadd_epi32(v[2], v[3])));
}

/* Two f16 side by side in each of 4 rows: the low ones and the high ones. */
SM__SSE41 SM__INLINE void sm__scales_xmm(const uint8_t *const row[4], size_t at, __m128 *low,
                                         __m128 *high) {
    __m128i a = _mm_unpacklo_epi16(_mm_cvtsi32_si128(sm__load_i32(row[0] + at)),
                                   _mm_cvtsi32_si128(sm__load_i32(row[1] + at)));
    __m128i b = _mm_unpacklo_epi16(_mm_cvtsi32_si128(sm__load_i32(row[2] + at)),
                                   _mm_cvtsi32_si128(sm__load_i32(row[3] + at)));
    a = _mm_unpacklo_epi32(a, b);
    *low = sm__halves_xmm(_mm_cvtepu16_epi32(a));
    *high = sm__halves_xmm(_mm_cvtepu16_epi32(_mm_srli_si128(a, 8)));
}

/* The integer sums of one block of 4 rows of w with n_t rows of a, and, of a superblock, the
 * factors m that meet the sums of a. */
SM__SSE41 SM__INLINE void sm__isums_xmm(int type, int n_t, const uint8_t *const row[4], size_t at,
                                        const int8_t *q, size_t q_stride, const int16_t *s,
                                        size_t s_stride, __m128i isum[][4], __m128i m[4][2]) {
    int n = sm__types[type].act_block / SM__QK, t, r, j;
    for (r = 0; r < 4; r++) {
        union {
            __m128i v[2];
            int16_t i[16];
        } scales;
        scales.v[0] = scales.v[1] = _mm_set1_epi16(1);
        m[r][0] = _mm_set1_epi16(8);
        if (n > 1) sm__factors_xmm(type, row[r] + at, scales.v, m[r]);
        for (t = 0; t < n_t; t++) {
            isum[t][r] = _mm_setzero_si128();
            if (type == SM__T_Q4_0)
                isum[t][r] = _mm_madd_epi16(
                    _mm_cvtsi32_si128(sm__load_i32(s + (size_t)t * s_stride)), m[r][0]);
            if (type == SM__T_Q6_K) isum[t][r] = sm__sums_xmm(m[r], s + (size_t)t * s_stride);
            isum[t][r] = _mm_sub_epi32(_mm_setzero_si128(), isum[t][r]);
        }
        for (j = 0; j < n; j++) {
            __m128i w[2], sc[2];
            sm__bytes_xmm(type, row[r] + at, j, w);
            sc[0] = sc[1] = _mm_set1_epi16(scales.i[2 * j]);
            if (type == SM__T_Q6_K) sc[1] = _mm_set1_epi16(scales.i[2 * j + 1]);
            for (t = 0; t < n_t; t++)
                isum[t][r] = sm__dot32_xmm(type, isum[t][r], w,
                                           q + (size_t)t * q_stride + SM__QK * j, sc);
        }
    }
}

/* n_t rows of a, at most SM__ROWS_XMM, from row t on, times 4 rows of w, of which n count. */
SM__SSE41 SM__INLINE void sm__tile_quant_xmm(int type, int n_t, const uint8_t *w, size_t w_stride,
                                             int n, int k, const sm__acts *a, int t, float *out,
                                             size_t out_stride) {
    int block = sm__types[type].act_block, b, r, i;
    size_t bytes = (size_t)sm__types[type].info.block_bytes, at = 0;
    const uint8_t *row[4];
    __m128i isum[SM__ROWS_XMM][4], m[4][2];
    __m128 acc[SM__ROWS_XMM], d, dmin, d_a;
    for (r = 0; r < 4; r++) row[r] = w + (size_t)sm__min(r, n - 1) * w_stride;
    for (i = 0; i < n_t; i++) acc[i] = _mm_setzero_ps();
    for (b = 0; b < k / block; b++, at += bytes) {
        const int16_t *s = a->s + (size_t)t * a->s_stride + (size_t)b * (size_t)(block / 16);
        sm__isums_xmm(type, n_t, row, at,
                      a->q + (size_t)t * a->q_stride + (size_t)b * (size_t)block, a->q_stride, s,
                      a->s_stride, isum, m);
        if (type == SM__T_Q6_K) sm__scales_xmm(row, at + 206, &dmin, &d);
        else sm__scales_xmm(row, at, &d, &dmin);
        for (i = 0; i < n_t; i++, s += a->s_stride) {
            d_a = _mm_set1_ps(a->d[(size_t)(t + i) * a->d_stride + (size_t)b]);
            acc[i] = sm__fma_xmm(sm__sum4_xmm(isum[i]), sm__mul_xmm(d, d_a), acc[i]);
            if (type != SM__T_Q4_K && type != SM__T_Q5_K) continue;
            for (r = 0; r < 4; r++) isum[i][r] = sm__sums_xmm(m[r], s);
            acc[i] = sm__fma_xmm(sm__negate_xmm(sm__sum4_xmm(isum[i])), sm__mul_xmm(dmin, d_a),
                                 acc[i]);
        }
    }
    for (i = 0; i < n_t; i++) sm__store_xmm(out + (size_t)i * out_stride, acc[i], n);
}

SM__SSE41 SM__INLINE void sm__matmul_quant_xmm(int type, const void *w, size_t w_stride, int n,
                                               int k, const sm__acts *a, int rows, float *out,
                                               size_t out_stride) {
    int o, t;
    for (o = 0; o < n; o += 4)
        for (t = 0; t < rows; t += SM__ROWS_XMM)
            sm__tile_quant_xmm(type, sm__min(rows - t, SM__ROWS_XMM),
                               (const uint8_t *)w + (size_t)o * w_stride, w_stride,
                               sm__min(n - o, 4), k, a, t, out + (size_t)t * out_stride + o,
                               out_stride);
}
SM__SSE41 static void sm__matmul_q8_0__sse41(const void *w, size_t w_stride, int n, int k,
                                            const sm__acts *a, int rows, float *out,
                                            size_t out_stride, void *scratch) {
    (void)scratch;
    sm__matmul_quant_xmm(SM__T_Q8_0, w, w_stride, n, k, a, rows, out, out_stride);
}
SM__SSE41 static void sm__matmul_q4_0__sse41(const void *w, size_t w_stride, int n, int k,
                                            const sm__acts *a, int rows, float *out,
                                            size_t out_stride, void *scratch) {
    (void)scratch;
    sm__matmul_quant_xmm(SM__T_Q4_0, w, w_stride, n, k, a, rows, out, out_stride);
}
SM__SSE41 static void sm__matmul_q4_k__sse41(const void *w, size_t w_stride, int n, int k,
                                            const sm__acts *a, int rows, float *out,
                                            size_t out_stride, void *scratch) {
    (void)scratch;
    sm__matmul_quant_xmm(SM__T_Q4_K, w, w_stride, n, k, a, rows, out, out_stride);
}
SM__SSE41 static void sm__matmul_q5_k__sse41(const void *w, size_t w_stride, int n, int k,
                                            const sm__acts *a, int rows, float *out,
                                            size_t out_stride, void *scratch) {
    (void)scratch;
    sm__matmul_quant_xmm(SM__T_Q5_K, w, w_stride, n, k, a, rows, out, out_stride);
}
SM__SSE41 static void sm__matmul_q6_k__sse41(const void *w, size_t w_stride, int n, int k,
                                            const sm__acts *a, int rows, float *out,
                                            size_t out_stride, void *scratch) {
    (void)scratch;
    sm__matmul_quant_xmm(SM__T_Q6_K, w, w_stride, n, k, a, rows, out, out_stride);
}
#endif

#ifdef SM__HAS_AVX2
/* Eight rows of block weights are worked on together, a row a lane. vpmaddubsw takes unsigned times
 * signed bytes: for Q8_0 |w| and a with the sign of w (2 * 128 * 127 fits 16 bits), for Q4_0 the
 * nibble and a, from which 8 * s is taken at the end. vpdpbusd (vnni) does not go through 16 bits:
 * for Q8_0 it takes w + 128, and 128 * s is taken at the end. K-quants are left as they are: their
 * scales are applied in 16 bits, and in 32 would cost the multiplications that vpdpbusd saves. */

/* The first four bytes of 8 blocks. Loads that fill a register and blends are cheaper than
 * gathers. */
SM__AVX2 SM__INLINE __m256i sm__words_ymm(const uint8_t *p, size_t stride) {
    const uint8_t *p4 = p + 4 * stride;
    __m256i v = _mm256_set1_epi32(sm__load_i32(p)), w = _mm256_set1_epi32(sm__load_i32(p4));
    v = _mm256_blend_epi32(v, _mm256_set1_epi32(sm__load_i32(p + stride)), 0x02);
    w = _mm256_blend_epi32(w, _mm256_set1_epi32(sm__load_i32(p4 + stride)), 0x20);
    v = _mm256_blend_epi32(v, _mm256_set1_epi32(sm__load_i32(p + 2 * stride)), 0x04);
    w = _mm256_blend_epi32(w, _mm256_set1_epi32(sm__load_i32(p4 + 2 * stride)), 0x40);
    v = _mm256_blend_epi32(v, _mm256_set1_epi32(sm__load_i32(p + 3 * stride)), 0x08);
    w = _mm256_blend_epi32(w, _mm256_set1_epi32(sm__load_i32(p4 + 3 * stride)), 0x80);
    return _mm256_blend_epi32(v, w, 0xf0);
}

#if defined(__GNUC__) && !defined(__clang__) /* -O0: the intrinsic is a macro that converts */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wconversion"
#endif
/* The scales of 8 rows: d is the first two bytes of a block. */
SM__AVX2 SM__INLINE __m256 sm__scales_ymm(const uint8_t *block, size_t stride) {
    const uint8_t *p4 = block + 4 * stride;
    __m128i d = _mm_cvtsi32_si128(sm__load_i32(block));
    d = _mm_insert_epi16(d, sm__load_u16(block + stride), 1);
    d = _mm_insert_epi16(d, sm__load_u16(block + 2 * stride), 2);
    d = _mm_insert_epi16(d, sm__load_u16(block + 3 * stride), 3);
    d = _mm_insert_epi16(d, sm__load_u16(p4), 4);
    d = _mm_insert_epi16(d, sm__load_u16(p4 + stride), 5);
    d = _mm_insert_epi16(d, sm__load_u16(p4 + 2 * stride), 6);
    return _mm256_cvtph_ps(_mm_insert_epi16(d, sm__load_u16(p4 + 3 * stride), 7));
}
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

/* 16 bytes from each of two places. */
SM__AVX2 SM__INLINE __m256i sm__load2_ymm(const uint8_t *lo, const uint8_t *hi) {
    __m128i a = _mm_loadu_si128((const __m128i *)(const void *)lo);
    __m128i b = _mm_loadu_si128((const __m128i *)(const void *)hi);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1);
}

/* v[i] holds 4 numbers for each of 2 rows: i and 4 + i. Their 8 sums in order of rows. */
SM__AVX2 SM__INLINE __m256i sm__sum4_ymm(const __m256i v[4]) {
    __m256i a = _mm256_add_epi32(_mm256_unpacklo_epi32(v[0], v[1]),
                                 _mm256_unpackhi_epi32(v[0], v[1]));
    __m256i b = _mm256_add_epi32(_mm256_unpacklo_epi32(v[2], v[3]),
                                 _mm256_unpackhi_epi32(v[2], v[3]));
    return _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
}

/* 8 sums of 8 numbers each, in order of the registers. */
SM__AVX2 SM__INLINE __m256i sm__sum8_ymm(const __m256i v[8]) {
    __m256i lo = sm__sum4_ymm(v), hi = sm__sum4_ymm(v + 4); /* halves of 0 - 3, of 4 - 7 */
    return _mm256_add_epi32(_mm256_permute2x128_si256(lo, hi, 0x20),
                            _mm256_permute2x128_si256(lo, hi, 0x31));
}

/* acc + the dot products of four bytes each, unsigned in u, signed in s. */
SM__AVX2 SM__INLINE __m256i sm__dot4_ymm(int vnni, __m256i acc, __m256i u, __m256i s) {
#ifdef SM__HAS_AVXVNNI
    if (vnni) {
        SM__DPBUSD(acc, u, s);
        return acc;
    }
#endif
    (void)vnni;
    u = _mm256_madd_epi16(_mm256_maddubs_epi16(u, s), _mm256_set1_epi16(1));
    return _mm256_add_epi32(acc, u);
}

/* What weights that entered with a bias have added to the product with 32 activations. */
SM__AVX2 SM__INLINE __m256i sm__bias_ymm(const int16_t *s, int bias) {
    return _mm256_madd_epi16(_mm256_set1_epi32(sm__load_i32(s)), _mm256_set1_epi16((short)bias));
}

/* The dot products of 8 rows with one block of a, whole rows of w being stride bytes apart. */
SM__AVX2 SM__INLINE __m256i sm__dot8_q8_0_ymm(int vnni, const uint8_t *block, size_t stride,
                                              const int8_t *q, const int16_t *s) {
    __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)q), v[8];
    __m256i none = _mm256_setzero_si256(), top = _mm256_set1_epi8(-128);
    int i;
    SM__UNROLL
    for (i = 0; i < 8; i++) {
        const uint8_t *p = block + 2 + (size_t)i * stride;
        __m256i w = _mm256_loadu_si256((const __m256i *)(const void *)p);
        if (vnni) v[i] = sm__dot4_ymm(1, none, _mm256_xor_si256(w, top), a);
        else {
            SM__PIN(w);
            v[i] = sm__dot4_ymm(0, none, _mm256_abs_epi8(w), _mm256_sign_epi8(a, w));
        }
    }
    v[0] = sm__sum8_ymm(v);
    return vnni ? _mm256_sub_epi32(v[0], sm__bias_ymm(s, 128)) : v[0];
}
SM__AVX2 SM__INLINE __m256i sm__dot8_q4_0_ymm(int vnni, const uint8_t *block, size_t stride,
                                              const int8_t *q, const int16_t *s) {
    __m256i lo = sm__load2_ymm((const uint8_t *)q, (const uint8_t *)q);
    __m256i hi = sm__load2_ymm((const uint8_t *)q + 16, (const uint8_t *)q + 16), v[4], u;
    __m256i low = _mm256_set1_epi8(15), one = _mm256_set1_epi16(1);
    int i;
    SM__UNROLL
    for (i = 0; i < 4; i++) {
        const uint8_t *p = block + 2 + (size_t)i * stride;
        u = sm__load2_ymm(p, p + 4 * stride);
        v[i] = _mm256_and_si256(u, low);
        u = _mm256_and_si256(_mm256_srli_epi16(u, 4), low);
        if (vnni) {
            v[i] = sm__dot4_ymm(1, _mm256_setzero_si256(), v[i], lo);
            v[i] = sm__dot4_ymm(1, v[i], u, hi);
            continue;
        }
        v[i] = _mm256_maddubs_epi16(v[i], lo);
        v[i] = _mm256_add_epi16(v[i], _mm256_maddubs_epi16(u, hi)); /* 4 * 15 * 127 at most */
        v[i] = _mm256_madd_epi16(v[i], one);
    }
    /* 15 * 4 * 127 at most are in a number, then twice, then four times as much: 16 bits */
    v[0] = _mm256_madd_epi16(_mm256_packs_epi32(v[0], v[1]), one);
    v[2] = _mm256_madd_epi16(_mm256_packs_epi32(v[2], v[3]), one);
    v[0] = _mm256_madd_epi16(_mm256_packs_epi32(v[0], v[2]), one);
    return _mm256_sub_epi32(v[0], sm__bias_ymm(s, 8));
}

/* n <= 8 floats of a register. */
SM__AVX2 SM__INLINE void sm__store_ymm(float *out, __m256 v, int n) {
    float all[8];
    int i;
    if (n >= 8) _mm256_storeu_ps(out, v);
    else {
        _mm256_storeu_ps(all, v);
        for (i = 0; i < n; i++) out[i] = all[i];
    }
}

/* One row of a, 8 rows of w that are w_stride apart, straight from the file's blocks. ahead: as far
 * behind w, bytes are prefetched; 0 = none. */
SM__AVX2 SM__INLINE __m256 sm__gemv_block_ymm(int type, int vnni, const uint8_t *w, size_t w_stride,
                                              size_t ahead, int n_blocks, const sm__acts *a) {
    size_t bytes = type == SM__T_Q8_0 ? 34 : 18;
    const uint8_t *next = w + ahead;
    int b;
    __m256 acc = sm__zero_ymm(), d;
    __m256i isum;
    for (b = 0; b < n_blocks; b++, w += bytes, next += 8 * bytes) {
        const int8_t *q = a->q + (size_t)b * SM__QK;
        if (ahead) sm__prefetch(next, 8 * bytes, ahead);
        isum = type == SM__T_Q8_0 ? sm__dot8_q8_0_ymm(vnni, w, w_stride, q, a->s + 2 * b)
                                  : sm__dot8_q4_0_ymm(vnni, w, w_stride, q, a->s + 2 * b);
        d = sm__mul_ymm(sm__scales_ymm(w, w_stride), _mm256_set1_ps(a->d[b]));
        acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(isum), d, acc);
    }
    return acc;
}

/* A panel is 8 rows of w rearranged for many rows of a: for each block, the 8 scales and 8
 * registers of bytes (register j has bytes 4 j .. 4 j + 3 of row l in its lane l). Of Q8_0 these
 * are |w|, followed by 8 registers of masks, all ones where w < 0, and the sums of |w| there: a
 * with the sign of w is (a ^ mask) - mask, and - mask adds |w| to a product, whatever a is. With
 * vnni, they are w + 128, and nothing follows. */
#define SM__PANEL_BLOCK_YMM(type, vnni) ((type) == SM__T_Q8_0 && !(vnni) ? 576 : 288)

/* v[i] holds 4 words for each of 2 rows, as above. Word j of all rows becomes v[j]. */
SM__AVX2 SM__INLINE void sm__transpose4_ymm(__m256i v[4]) {
    __m256i a = _mm256_unpacklo_epi32(v[0], v[1]), b = _mm256_unpackhi_epi32(v[0], v[1]);
    __m256i c = _mm256_unpacklo_epi32(v[2], v[3]), d = _mm256_unpackhi_epi32(v[2], v[3]);
    v[0] = _mm256_unpacklo_epi64(a, c);
    v[1] = _mm256_unpackhi_epi64(a, c);
    v[2] = _mm256_unpacklo_epi64(b, d);
    v[3] = _mm256_unpackhi_epi64(b, d);
}

SM__AVX2 SM__INLINE void sm__pack_q8_0_ymm(int vnni, const uint8_t *block, size_t stride,
                                           __m256i *panel) {
    __m256i v[8], below = _mm256_setzero_si256(), top = _mm256_set1_epi8(-128), mask, size;
    int i;
    SM__UNROLL
    for (i = 0; i < 4; i++) { /* bytes 0 - 15 of rows i and 4 + i, then bytes 16 - 31 */
        const uint8_t *p = block + 2 + (size_t)i * stride, *p4 = p + 4 * stride;
        v[i] = sm__load2_ymm(p, p4);
        v[i + 4] = sm__load2_ymm(p + 16, p4 + 16);
    }
    sm__transpose4_ymm(v);
    sm__transpose4_ymm(v + 4);
    SM__UNROLL
    for (i = 0; i < 8; i++) {
        if (vnni) {
            _mm256_store_si256(panel + 1 + i, _mm256_xor_si256(v[i], top));
            continue;
        }
        mask = _mm256_cmpgt_epi8(_mm256_setzero_si256(), v[i]);
        size = _mm256_abs_epi8(v[i]);
        _mm256_store_si256(panel + 1 + i, size);
        _mm256_store_si256(panel + 9 + i, mask);
        size = _mm256_maddubs_epi16(_mm256_and_si256(size, mask), _mm256_set1_epi8(1));
        below = _mm256_add_epi16(below, size); /* 8 * 2 * 128 at most */
    }
    below = _mm256_madd_epi16(below, _mm256_set1_epi16(1));
    if (!vnni) _mm256_store_si256(panel + 17, below);
    _mm256_store_ps((float *)(void *)panel, sm__scales_ymm(block, stride));
}
SM__AVX2 SM__INLINE void sm__pack_q4_0_ymm(const uint8_t *block, size_t stride, __m256i *panel) {
    __m256i low = _mm256_set1_epi8(15), v[4];
    int i;
    SM__UNROLL
    for (i = 0; i < 4; i++) {
        const uint8_t *p = block + 2 + (size_t)i * stride;
        v[i] = sm__load2_ymm(p, p + 4 * stride);
    }
    sm__transpose4_ymm(v);
    SM__UNROLL
    for (i = 0; i < 4; i++) {
        _mm256_store_si256(panel + 1 + i, _mm256_and_si256(v[i], low));
        _mm256_store_si256(panel + 5 + i, _mm256_and_si256(_mm256_srli_epi16(v[i], 4), low));
    }
    _mm256_store_ps((float *)(void *)panel, sm__scales_ymm(block, stride));
}

/* n_t (a constant) rows of a, from row t on, times two panels, `next` bytes apart. Meanwhile the 16
 * rows of w that come next are prefetched, from `rows` on, unless it is NULL. */
SM__AVX2 SM__INLINE void sm__tile_block_ymm(int type, int vnni, int n_t, const uint8_t *panel,
                                            size_t next, const uint8_t *rows, int n, int n_blocks,
                                            const sm__acts *a, int t, float *out,
                                            size_t out_stride) {
    size_t bytes = type == SM__T_Q8_0 ? 34 : 18, block_bytes = SM__PANEL_BLOCK_YMM(type, vnni);
    const int8_t *q = a->q + (size_t)t * a->q_stride;
    const float *d = a->d + (size_t)t * a->d_stride;
    const int16_t *s = a->s + (size_t)t * a->s_stride;
    __m256i sum[3][2], v[2], mask[2], four, two, one = _mm256_set1_epi16(1);
    __m256 acc[3][2];
    int masks = type == SM__T_Q8_0 && !vnni, b, i, j, p;
    int bias = type == SM__T_Q4_0 ? 8 : vnni ? 128 : 0;
    SM__UNROLL
    for (i = 0; i < n_t; i++) acc[i][0] = acc[i][1] = sm__zero_ymm();
    for (b = 0; b < n_blocks; b++, panel += block_bytes, q += SM__QK, d++, s += 2) {
        const __m256i *both[2];
        both[0] = (const __m256i *)(const void *)panel;
        both[1] = (const __m256i *)(const void *)(panel + next);
        if (rows) {
            sm__prefetch(rows, 16 * bytes, SM__TO_L2);
            rows += 16 * bytes;
        }
        SM__UNROLL
        for (i = 0; i < n_t; i++) {
            SM__UNROLL
            for (p = 0; p < 2; p++)
                sum[i][p] = masks ? _mm256_load_si256(both[p] + 17) : _mm256_setzero_si256();
        }
        SM__UNROLL
        for (j = 0; j < 8; j++) {
            SM__UNROLL
            for (p = 0; p < 2; p++) {
                v[p] = _mm256_load_si256(both[p] + 1 + j);
                SM__PIN(v[p]);
                if (masks) {
                    mask[p] = _mm256_load_si256(both[p] + 9 + j);
                    SM__PIN(mask[p]);
                }
            }
            SM__UNROLL
            for (i = 0; i < n_t; i++) {
                four = _mm256_set1_epi32(sm__load_i32(q + (size_t)i * a->q_stride + 4 * j));
                SM__UNROLL
                for (p = 0; p < 2; p++) {
                    if (vnni) sum[i][p] = sm__dot4_ymm(1, sum[i][p], v[p], four);
                    else if (type == SM__T_Q4_0) { /* 8 * 2 * 15 * 127 still fits 16 bits */
                        two = _mm256_maddubs_epi16(v[p], four);
                        sum[i][p] = _mm256_add_epi16(sum[i][p], two);
                    } else {
                        two = _mm256_xor_si256(four, mask[p]);
                        sum[i][p] = sm__dot4_ymm(0, sum[i][p], v[p], two);
                    }
                    SM__PIN(sum[i][p]); /* GCC would add up in a tree, and spill */
                }
            }
        }
        SM__UNROLL
        for (i = 0; i < n_t; i++) {
            __m256 scale = _mm256_set1_ps(d[(size_t)i * a->d_stride]);
            four = sm__bias_ymm(s + (size_t)i * a->s_stride, bias);
            SM__UNROLL
            for (p = 0; p < 2; p++) {
                __m256 scales = sm__mul_ymm(_mm256_load_ps((const float *)(const void *)both[p]),
                                            scale);
                if (type == SM__T_Q4_0 && !vnni) sum[i][p] = _mm256_madd_epi16(sum[i][p], one);
                if (bias) sum[i][p] = _mm256_sub_epi32(sum[i][p], four);
                acc[i][p] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[i][p]), scales, acc[i][p]);
            }
        }
    }
    SM__UNROLL
    for (i = 0; i < n_t; i++) {
        sm__store_ymm(out + (size_t)i * out_stride, acc[i][0], n);
        sm__store_ymm(out + (size_t)i * out_stride + 8, acc[i][1], n - 8);
    }
}

/* --- K-quants: as above, with the sums of a superblock in integers ---- */

/* Two f16 of each row, side by side in a word of w: the low ones and the high ones. */
SM__AVX2 SM__INLINE void sm__halves_ymm(__m256i w, __m256 *low, __m256 *high) {
    __m256i d = _mm256_and_si256(w, _mm256_set1_epi32(0xffff));
    d = _mm256_permute4x64_epi64(_mm256_packus_epi32(d, _mm256_srli_epi32(w, 16)), 0xd8);
    *low = _mm256_cvtph_ps(_mm256_castsi256_si128(d));
    *high = _mm256_cvtph_ps(_mm256_extracti128_si256(d, 1));
}

/* The same 16 bytes in both halves: two rows, side by side, meet the same activations. */
SM__AVX2 SM__INLINE __m256i sm__both_ymm(const void *p) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)p));
}

/* The heads of 8 superblocks of Q4_K or Q5_K, 16 bytes: d, dmin and, in h[i] of rows i and 4 + i, a
 * byte for each of 8 scales and of 8 minima. */
SM__AVX2 SM__INLINE void sm__heads_ymm(const uint8_t *block, size_t stride, __m256i h[4], __m256 *d,
                                       __m256 *dmin) {
    static const uint8_t low_bytes[16] = {4, 5, 6, 7, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15};
    static const uint8_t top_bytes[16] = {128, 128, 128, 128, 4, 5, 6, 7, 128, 128, 128, 128,
                                          8,   9,   10,  11};
    __m256i low = sm__both_ymm(low_bytes), top = sm__both_ymm(top_bytes), a, b;
    __m256i down = _mm256_setr_epi32(0, 0, 0, 4, 0, 0, 0, 4), bits = _mm256_set1_epi8(48);
    __m256i mask = _mm256_set1_epi64x(0x0f0f0f0f3f3f3f3f);
    int i;
    SM__UNROLL
    for (i = 0; i < 4; i++)
        h[i] = sm__load2_ymm(block + (size_t)i * stride, block + (size_t)(i + 4) * stride);
    a = _mm256_unpacklo_epi32(h[0], h[1]); /* rows 0 1 | 4 5 */
    b = _mm256_unpacklo_epi32(h[2], h[3]);
    sm__halves_ymm(_mm256_unpacklo_epi64(a, b), d, dmin);
    SM__UNROLL
    for (i = 0; i < 4; i++) {
        a = _mm256_and_si256(_mm256_srlv_epi32(_mm256_shuffle_epi8(h[i], low), down), mask);
        b = _mm256_and_si256(_mm256_srli_epi16(_mm256_shuffle_epi8(h[i], top), 2), bits);
        h[i] = _mm256_or_si256(a, b);
    }
}

/* 32 weights of two rows each times 32 activations, times the rows' scales number j, added up. */
SM__AVX2 SM__INLINE __m256i sm__dot2_ymm(__m256i acc, __m256i w0, __m256i w1, const __m256i a[2],
                                         __m256i scales, int j) {
    __m256i sc = _mm256_shuffle_epi8(scales, _mm256_set1_epi16((short)(0x8000 | j)));
    __m256i sum = _mm256_add_epi16(_mm256_maddubs_epi16(w0, a[0]), _mm256_maddubs_epi16(w1, a[1]));
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(sum, sc));
    SM__PIN(acc); /* GCC would add up in a tree, and spill */
    return acc;
}

/* The sums of 8 rows of Q4_K or Q5_K, 4 numbers each, rows i and 4 + i in isum[i]; h[i] has their
 * scales. */
SM__AVX2 SM__INLINE void sm__dot8_q4_q5_ymm(int type, const uint8_t *block, size_t stride,
                                            const int8_t *q, const __m256i h[4], __m256i isum[4]) {
    __m256i four = _mm256_set1_epi8(15), fifth = _mm256_set1_epi8(16), a[4], lo[2], hi[2], high;
    int c, i, k;
    SM__UNROLL
    for (i = 0; i < 4; i++) isum[i] = _mm256_setzero_si256();
    SM__UNROLL
    for (c = 0; c < 4; c++) { /* sub-blocks 2 c and 2 c + 1 */
        SM__UNROLL
        for (k = 0; k < 4; k++) a[k] = sm__both_ymm(q + 64 * c + 16 * k);
        SM__UNROLL
        for (i = 0; i < 4; i++) {
            const uint8_t *row = block + (size_t)i * stride, *other = row + 4 * stride;
            int at = (type == SM__T_Q4_K ? 16 : 48) + 32 * c;
            SM__UNROLL
            for (k = 0; k < 2; k++) {
                hi[k] = sm__load2_ymm(row + at + 16 * k, other + at + 16 * k);
                lo[k] = _mm256_and_si256(hi[k], four);
                hi[k] = _mm256_and_si256(_mm256_srli_epi16(hi[k], 4), four);
                if (type == SM__T_Q4_K) continue;
                high = sm__load2_ymm(row + 16 + 16 * k, other + 16 + 16 * k);
                high =
                    c < 2 ? _mm256_slli_epi16(high, 4 - 2 * c) : _mm256_srli_epi16(high, 2 * c - 4);
                lo[k] = _mm256_or_si256(lo[k], _mm256_and_si256(high, fifth));
                high = _mm256_srli_epi16(high, 1);
                hi[k] = _mm256_or_si256(hi[k], _mm256_and_si256(high, fifth));
            }
            isum[i] = sm__dot2_ymm(isum[i], lo[0], lo[1], a, h[i], 2 * c);
            isum[i] = sm__dot2_ymm(isum[i], hi[0], hi[1], a + 2, h[i], 2 * c + 1);
        }
    }
}

/* 32 weights times 32 activations times the scales sc, added to acc. */
SM__AVX2 SM__INLINE __m256i sm__dot32_ymm(__m256i acc, __m256i w, const int8_t *q, __m256i sc) {
    __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)q);
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(w, a), sc));
    SM__PIN(acc);
    return acc;
}

/* One row of Q6_K; the weights enter as q + 32 (0 .. 63). */
SM__AVX2 SM__INLINE __m256i sm__dot_q6_k_ymm(const uint8_t *block, const int8_t *q,
                                             const int16_t *s) {
    __m128i order = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
    __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(block + 192));
    __m256i all = _mm256_cvtepi8_epi16(_mm_shuffle_epi8(bytes, order)), acc; /* even | odd */
    __m256i four = _mm256_set1_epi8(15), two = _mm256_set1_epi8(48), low[2], high, w[4], sc;
    int half, g;
    acc = _mm256_loadu_si256((const __m256i *)(const void *)s);
    acc = _mm256_madd_epi16(acc, _mm256_cvtepi8_epi16(bytes));
    acc = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32(acc, 5));
    SM__UNROLL
    for (half = 0; half < 2; half++, block += 64, q += 128) {
        low[0] = _mm256_loadu_si256((const __m256i *)(const void *)block);
        low[1] = _mm256_loadu_si256((const __m256i *)(const void *)(block + 32));
        high = _mm256_loadu_si256((const __m256i *)(const void *)(block + 128 - 32 * half));
        w[0] = _mm256_and_si256(_mm256_slli_epi16(high, 4), two);
        w[1] = _mm256_and_si256(_mm256_slli_epi16(high, 2), two);
        w[2] = _mm256_and_si256(high, two);
        w[3] = _mm256_and_si256(_mm256_srli_epi16(high, 2), two);
        SM__UNROLL
        for (g = 0; g < 4; g++) {
            __m256i l = g < 2 ? low[g] : _mm256_srli_epi16(low[g - 2], 4);
            l = _mm256_or_si256(_mm256_and_si256(l, four), w[g]);
            sc = _mm256_shuffle_epi8(all,
                                     _mm256_set1_epi16((short)(0x0100 + 0x0202 * (4 * half + g))));
            acc = sm__dot32_ymm(acc, l, q + 32 * g, sc);
        }
    }
    return acc;
}

/* Sums of 32 activations: 8 of a superblock, 16 bits each, in both halves. */
SM__AVX2 SM__INLINE __m256i sm__sums32_ymm(const int16_t *s) {
    __m128i lo = _mm_loadu_si128((const __m128i *)(const void *)s);
    __m128i hi = _mm_loadu_si128((const __m128i *)(const void *)(s + 8));
    return _mm256_broadcastsi128_si256(_mm_hadd_epi16(lo, hi));
}

/* The next superblock of 8 rows of Q4_K or Q5_K, one row of a. */
SM__AVX2 SM__INLINE __m256 sm__gemv_q4_q5_ymm(int type, const uint8_t *w, size_t w_stride,
                                              const int8_t *q, const int16_t *s, __m256 d_a,
                                              __m256 acc) {
    __m256i h[4], isum[4], msum[4], sums = sm__sums32_ymm(s);
    __m256 d, dmin;
    int i;
    sm__heads_ymm(w, w_stride, h, &d, &dmin);
    sm__dot8_q4_q5_ymm(type, w, w_stride, q, h, isum);
    SM__UNROLL
    for (i = 0; i < 4; i++) {
        h[i] = _mm256_unpackhi_epi8(h[i], _mm256_setzero_si256());
        msum[i] = _mm256_madd_epi16(h[i], sums);
    }
    acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sm__sum4_ymm(isum)), sm__mul_ymm(d, d_a), acc);
    return _mm256_fnmadd_ps(_mm256_cvtepi32_ps(sm__sum4_ymm(msum)), sm__mul_ymm(dmin, d_a), acc);
}

/* The same of Q6_K. */
SM__AVX2 SM__INLINE __m256 sm__gemv_q6_k_ymm(const uint8_t *w, size_t w_stride, const int8_t *q,
                                             const int16_t *s, __m256 d_a, __m256 acc) {
    __m256i v[8];
    __m256 none, d;
    int r;
    SM__UNROLL
    for (r = 0; r < 8; r++) { /* read back and forth: the processor does not foresee it */
        const uint8_t *row = w + (size_t)r * w_stride;
        sm__prefetch(row + 2 * 210, 210, 0);
        v[r] = sm__dot_q6_k_ymm(row, q, s);
    }
    sm__halves_ymm(sm__words_ymm(w + 206, w_stride), &none, &d);
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(sm__sum8_ymm(v)), sm__mul_ymm(d, d_a), acc);
}

/* As sm__gemv_block_ymm. */
SM__AVX2 SM__INLINE __m256 sm__gemv_super_ymm(int type, const uint8_t *w, size_t w_stride,
                                              size_t ahead, int n_blocks, const sm__acts *a) {
    size_t bytes = (size_t)sm__types[type].info.block_bytes;
    const uint8_t *next = w + ahead;
    __m256 acc = sm__zero_ymm();
    int b;
    for (b = 0; b < n_blocks; b++, w += bytes, next += 8 * bytes) {
        const int8_t *q = a->q + (size_t)b * SM__QK_K;
        const int16_t *s = a->s + (size_t)b * (SM__QK_K / 16);
        __m256 d_a = _mm256_set1_ps(a->d[b]);
        if (ahead) sm__prefetch(next, 8 * bytes, ahead);
        if (type == SM__T_Q6_K) acc = sm__gemv_q6_k_ymm(w, w_stride, q, s, d_a, acc);
        else acc = sm__gemv_q4_q5_ymm(type, w, w_stride, q, s, d_a, acc);
    }
    return acc;
}

/* A panel of 8 rows for many rows of a. For each superblock: 64 registers of unsigned bytes as
 * above (Q6_K: q + 32); 16 (Q4_K, Q5_K: 8) of a sub-block's scale twice in 16 bits; 8 (4) of two
 * neighbours' scales (minima), which meet the activations' sums; d and dmin. */
#define SM__PANEL_SCALES_YMM 64
#define SM__PANEL_PAIRS_YMM 80
#define SM__PANEL_D_YMM 88
#define SM__PANEL_SUPER_YMM (90 * 32)

/* Words first .. first + 3 of 8 rows, a row a lane. */
SM__AVX2 SM__INLINE void sm__words4_ymm(const uint8_t *p, size_t stride, __m256i v[4]) {
    int i;
    SM__UNROLL
    for (i = 0; i < 4; i++) {
        const uint8_t *row = p + (size_t)i * stride;
        v[i] = sm__load2_ymm(row, row + 4 * stride);
    }
    sm__transpose4_ymm(v);
}

/* Of each lane, byte i in both halves, or bytes i and i + 1: zero-extended. */
SM__AVX2 SM__INLINE __m256i sm__twice_ymm(__m256i v, int i) {
    return _mm256_shuffle_epi8(v, _mm256_add_epi32(_mm256_setr_epi32(
        (int)0x80008000u, (int)0x80048004u, (int)0x80088008u, (int)0x800c800cu, (int)0x80008000u,
        (int)0x80048004u, (int)0x80088008u, (int)0x800c800cu), _mm256_set1_epi32(0x00010001 * i)));
}
SM__AVX2 SM__INLINE __m256i sm__pair_ymm(__m256i v, int i) {
    return _mm256_shuffle_epi8(v, _mm256_add_epi32(_mm256_setr_epi32(
        (int)0x80018000u, (int)0x80058004u, (int)0x80098008u, (int)0x800d800cu, (int)0x80018000u,
        (int)0x80058004u, (int)0x80098008u, (int)0x800d800cu), _mm256_set1_epi32(0x00010001 * i)));
}

SM__AVX2 SM__INLINE void sm__pack_q4_q5_ymm(int type, const uint8_t *w, size_t stride,
                                            __m256i *panel) {
    __m256i four = _mm256_set1_epi8(15), fifth = _mm256_set1_epi8(16), high[8], v[4];
    int c, h, i;
    __m256 d, dmin;
    if (type == SM__T_Q5_K) {
        sm__words4_ymm(w + 16, stride, high);
        sm__words4_ymm(w + 32, stride, high + 4);
    }
    for (c = 0; c < 4; c++)
        for (h = 0; h < 2; h++) {
            __m128i left = _mm_cvtsi32_si128(4), down = _mm_cvtsi32_si128(2 * c);
            sm__words4_ymm(w + (type == SM__T_Q4_K ? 16 : 48) + 32 * c + 16 * h, stride, v);
            SM__UNROLL
            for (i = 0; i < 4; i++) {
                __m256i lo = _mm256_and_si256(v[i], four);
                __m256i hi = _mm256_and_si256(_mm256_srli_epi16(v[i], 4), four);
                if (type == SM__T_Q5_K) { /* bit 2 c, bit 2 c + 1 */
                    __m256i bits = _mm256_sll_epi16(_mm256_srl_epi16(high[4 * h + i], down), left);
                    lo = _mm256_or_si256(lo, _mm256_and_si256(bits, fifth));
                    bits = _mm256_srli_epi16(bits, 1);
                    hi = _mm256_or_si256(hi, _mm256_and_si256(bits, fifth));
                }
                _mm256_store_si256(panel + 16 * c + 4 * h + i, lo);
                _mm256_store_si256(panel + 16 * c + 4 * h + i + 8, hi);
            }
        }
    sm__heads_ymm(w, stride, v, &d, &dmin);
    sm__transpose4_ymm(v); /* scales 0 - 3 and 4 - 7, minima 0 - 3 and 4 - 7 */
    SM__UNROLL
    for (i = 0; i < 8; i++)
        _mm256_store_si256(panel + SM__PANEL_SCALES_YMM + i, sm__twice_ymm(v[i / 4], i % 4));
    SM__UNROLL
    for (i = 0; i < 4; i++)
        _mm256_store_si256(panel + SM__PANEL_PAIRS_YMM + i, sm__pair_ymm(v[2 + i / 2], i % 2 * 2));
    _mm256_store_ps((float *)(void *)(panel + SM__PANEL_D_YMM), d);
    _mm256_store_ps((float *)(void *)(panel + SM__PANEL_D_YMM + 1), dmin);
}

SM__AVX2 SM__INLINE void sm__pack_q6_k_ymm(const uint8_t *w, size_t stride, __m256i *panel) {
    __m256i four = _mm256_set1_epi8(15), two = _mm256_set1_epi8(48), low[2][4], high[4], v;
    int half, h, i, g;
    __m256 none, d;
    for (half = 0; half < 2; half++)
        for (h = 0; h < 2; h++) {
            sm__words4_ymm(w + 64 * half + 16 * h, stride, low[0]);
            sm__words4_ymm(w + 64 * half + 32 + 16 * h, stride, low[1]);
            sm__words4_ymm(w + 128 + 32 * half + 16 * h, stride, high);
            SM__UNROLL
            for (i = 0; i < 4; i++) {
                __m256i up[4];
                up[0] = _mm256_slli_epi16(high[i], 4);
                up[1] = _mm256_slli_epi16(high[i], 2);
                up[2] = high[i];
                up[3] = _mm256_srli_epi16(high[i], 2);
                SM__UNROLL
                for (g = 0; g < 4; g++) {
                    v = g < 2 ? low[g][i] : _mm256_srli_epi16(low[g - 2][i], 4);
                    v = _mm256_or_si256(_mm256_and_si256(v, four), _mm256_and_si256(up[g], two));
                    _mm256_store_si256(panel + 32 * half + 8 * g + 4 * h + i, v);
                }
            }
        }
    sm__words4_ymm(w + 192, stride, high);
    SM__UNROLL
    for (i = 0; i < 16; i++) { /* sign-extended: from the upper byte down */
        v = _mm256_slli_epi16(sm__twice_ymm(high[i / 4], i % 4), 8);
        _mm256_store_si256(panel + SM__PANEL_SCALES_YMM + i, _mm256_srai_epi16(v, 8));
    }
    SM__UNROLL
    for (i = 0; i < 8; i++) {
        v = _mm256_slli_epi16(sm__pair_ymm(high[i / 2], i % 2 * 2), 8);
        _mm256_store_si256(panel + SM__PANEL_PAIRS_YMM + i, _mm256_srai_epi16(v, 8));
    }
    sm__halves_ymm(sm__words_ymm(w + 206, stride), &none, &d);
    _mm256_store_ps((float *)(void *)(panel + SM__PANEL_D_YMM), d);
}

/* What the activations' sums contribute: for Q4_K and Q5_K sum of m_j * s_j, for Q6_K that of
 * sc_j * s_j, 8 rows. */
SM__AVX2 SM__INLINE __m256i sm__pairs_ymm(int type, const __m256i *panel, const int16_t *s) {
    int16_t sums[16];
    __m256i acc = _mm256_setzero_si256(), two;
    int n = type == SM__T_Q6_K ? 8 : 4, i;
    if (type == SM__T_Q6_K) memcpy(sums, s, sizeof sums);
    else _mm256_storeu_si256((__m256i *)(void *)sums, sm__sums32_ymm(s));
    SM__UNROLL
    for (i = 0; i < n; i++) {
        two = _mm256_set1_epi32(sm__load_i32(sums + 2 * i));
        two = _mm256_madd_epi16(two, _mm256_load_si256(panel + SM__PANEL_PAIRS_YMM + i));
        acc = _mm256_add_epi32(acc, two);
    }
    return acc;
}

/* n_t (a constant) rows of a, from row t on, times two panels, `next` bytes apart. `run` registers
 * of products fit 16 bits: 8 * 2 * 15 * 127, 4 * 2 * 31 * 127, 2 * 2 * 63 * 127. */
SM__AVX2 SM__INLINE void sm__tile_super_ymm(int type, int n_t, const uint8_t *packed, size_t next,
                                            const uint8_t *rows, int n, int n_blocks,
                                            const sm__acts *a, int t, float *out,
                                            size_t out_stride) {
    size_t bytes = (size_t)sm__types[type].info.block_bytes;
    int run = type == SM__T_Q4_K ? 8 : type == SM__T_Q5_K ? 4 : 2, b, i, j, g, h, p;
    __m256i isum[3][2], part[3][2], v[2], four;
    __m256 acc[3][2];
    SM__UNROLL
    for (i = 0; i < n_t; i++) acc[i][0] = acc[i][1] = sm__zero_ymm();
    for (b = 0; b < n_blocks; b++, packed += SM__PANEL_SUPER_YMM) {
        const int8_t *q = a->q + (size_t)t * a->q_stride + (size_t)b * SM__QK_K;
        const int16_t *s = a->s + (size_t)t * a->s_stride + (size_t)b * (SM__QK_K / 16);
        const float *d_a = a->d + (size_t)t * a->d_stride + b;
        const uint8_t *w = packed, *scales = packed + SM__PANEL_SCALES_YMM * 32;
        SM__UNROLL
        for (i = 0; i < n_t; i++) isum[i][0] = isum[i][1] = _mm256_setzero_si256();
        for (g = 0; g < 8; g++, w += 8 * 32, q += 32) {
            if (rows) {
                sm__prefetch(rows, 2 * bytes, SM__TO_L2);
                rows += 2 * bytes;
            }
            SM__UNROLL
            for (h = 0; h < 8; h += run) {
                SM__UNROLL
                for (j = h; j < h + run; j++) {
                    v[0] = _mm256_load_si256((const __m256i *)(const void *)(w + 32 * j));
                    v[1] = _mm256_load_si256((const __m256i *)(const void *)(w + 32 * j + next));
                    SM__UNROLL
                    for (i = 0; i < n_t; i++) {
                        four = _mm256_set1_epi32(sm__load_i32(q + (size_t)i * a->q_stride + 4 * j));
                        SM__UNROLL
                        for (p = 0; p < 2; p++) {
                            __m256i two = _mm256_maddubs_epi16(v[p], four);
                            part[i][p] = j == h ? two : _mm256_add_epi16(part[i][p], two);
                            SM__PIN(part[i][p]); /* GCC would add up in a tree, and spill */
                        }
                    }
                }
                SM__UNROLL
                for (p = 0; p < 2; p++) {
                    v[0] =
                        _mm256_load_si256((const __m256i *)(const void *)(scales + (p ? next : 0)));
                    SM__UNROLL
                    for (i = 0; i < n_t; i++)
                        isum[i][p] = _mm256_add_epi32(isum[i][p],
                                                      _mm256_madd_epi16(part[i][p], v[0]));
                }
                if (type == SM__T_Q6_K ? h % 4 == 2 : h + run == 8) scales += 32;
            }
        }
        SM__UNROLL
        for (p = 0; p < 2; p++) {
            const __m256i *panel = (const __m256i *)(const void *)(packed + (p ? next : 0));
            const __m256 *d = (const __m256 *)(const void *)(panel + SM__PANEL_D_YMM);
            SM__UNROLL
            for (i = 0; i < n_t; i++) {
                __m256 scale = _mm256_set1_ps(d_a[(size_t)i * a->d_stride]);
                v[0] = sm__pairs_ymm(type, panel, s + (size_t)i * a->s_stride);
                if (type == SM__T_Q6_K)
                    isum[i][p] = _mm256_sub_epi32(isum[i][p], _mm256_slli_epi32(v[0], 5));
                acc[i][p] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(isum[i][p]),
                                            sm__mul_ymm(d[0], scale), acc[i][p]);
                if (type != SM__T_Q6_K)
                    acc[i][p] = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(v[0]),
                                                 sm__mul_ymm(d[1], scale), acc[i][p]);
            }
        }
    }
    SM__UNROLL
    for (i = 0; i < n_t; i++) {
        sm__store_ymm(out + (size_t)i * out_stride, acc[i][0], n);
        sm__store_ymm(out + (size_t)i * out_stride + 8, acc[i][1], n - 8);
    }
}

/* --- all quantised types ---- */

/* 8 rows into a panel; panel_block: the bytes of a block in it. */
SM__AVX2 SM__INLINE void sm__pack_ymm(int type, int vnni, const uint8_t *w, size_t w_stride,
                                      int n_blocks, uint8_t *panel, size_t panel_block) {
    int b;
    for (b = 0; b < n_blocks; b++, panel += panel_block) {
        __m256i *to = (__m256i *)(void *)panel;
        switch (type) {
        case SM__T_Q8_0: sm__pack_q8_0_ymm(vnni, w, w_stride, to); break;
        case SM__T_Q4_0: sm__pack_q4_0_ymm(w, w_stride, to); break;
        case SM__T_Q6_K: sm__pack_q6_k_ymm(w, w_stride, to); break;
        default: sm__pack_q4_q5_ymm(type, w, w_stride, to); break;
        }
        w += sm__types[type].info.block_bytes;
    }
}

SM__AVX2 SM__INLINE void sm__tile_ymm(int type, int vnni, int n_t, const uint8_t *panel,
                                      size_t next, const uint8_t *rows, int n, int n_blocks,
                                      const sm__acts *a, int t, float *out, size_t out_stride) {
    if (sm__types[type].act_block == SM__QK_K)
        sm__tile_super_ymm(type, n_t, panel, next, rows, n, n_blocks, a, t, out, out_stride);
    else sm__tile_block_ymm(type, vnni, n_t, panel, next, rows, n, n_blocks, a, t, out, out_stride);
}

SM__AVX2 SM__INLINE __m256 sm__gemv_ymm(int type, int vnni, const uint8_t *w, size_t w_stride,
                                        size_t ahead, int n_blocks, const sm__acts *a) {
    if (sm__types[type].act_block == SM__QK_K)
        return sm__gemv_super_ymm(type, w, w_stride, ahead, n_blocks, a);
    return sm__gemv_block_ymm(type, vnni, w, w_stride, ahead, n_blocks, a);
}

/* One row of a: 8 rows of w at a time, in place: first the streams, then neighbours. */
SM__AVX2 SM__INLINE void sm__one_row_ymm(int type, int vnni, const uint8_t *w, size_t w_stride,
                                         int n, int k, const sm__acts *a, float *out,
                                         uint8_t *copy) {
    int n_blocks = k / sm__types[type].act_block, spread = sm__lane_rows(n, 8, w_stride), o = 0, j;
    float sums[8];
    while (o < n) {
        int apart = spread > 1 && o < spread ? spread : 1, m = apart > 1 ? 8 : sm__min(8, n - o);
        size_t lane = (size_t)apart * w_stride, ahead = apart > 1 ? 0 : sm__ahead(8 * w_stride);
        const uint8_t *first = w + (size_t)o * w_stride;
        if (m < 8) {
            lane = sm__row_bytes(type, (size_t)k);
            first = sm__pad_rows(first, w_stride, lane, m, 8, copy);
        }
        _mm256_storeu_ps(sums, sm__gemv_ymm(type, vnni, first, lane, ahead, n_blocks, a));
        for (j = 0; j < m; j++) out[o + j * apart] = sums[j];
        if (apart == 1) o += m;
        else o = o + 1 < spread ? o + 1 : 8 * spread;
    }
}

/* Many rows of a: 16 rows of w at a time make two panels in scratch. */
SM__AVX2 SM__INLINE void sm__matmul_quant_ymm(int type, int vnni, const void *w, size_t w_stride,
                                              int n, int k, const sm__acts *a, int rows, float *out,
                                              size_t out_stride, void *scratch) {
    int is_super = sm__types[type].act_block == SM__QK_K, n_blocks = k / sm__types[type].act_block;
    int o, m, t;
    size_t panel_block = is_super ? SM__PANEL_SUPER_YMM : SM__PANEL_BLOCK_YMM(type, vnni);
    size_t row_bytes = sm__row_bytes(type, (size_t)k), next = (size_t)n_blocks * panel_block;
    uint8_t *panel = (uint8_t *)scratch, *copy = panel + 2 * next;
    if (rows == 1) {
        sm__one_row_ymm(type, vnni, (const uint8_t *)w, w_stride, n, k, a, out, copy);
        return;
    }
    for (o = 0; o < n; o += 16, out += 16) {
        const uint8_t *row = (const uint8_t *)w + (size_t)o * w_stride;
        m = sm__min(16, n - o);
        if (m < 16) {
            row = sm__pad_rows(row, w_stride, row_bytes, m, 16, copy);
            w_stride = row_bytes;
        }
        sm__pack_ymm(type, vnni, row, w_stride, n_blocks, panel, panel_block);
        row += 8 * w_stride;
        sm__pack_ymm(type, vnni, row, w_stride, n_blocks, panel + next, panel_block);
        for (t = 0; t < rows;) {
            const uint8_t *coming = t == 0 ? row + 8 * w_stride : NULL;
            float *to = out + (size_t)t * out_stride;
            int left = rows - t, n_t = left == 4 ? 2 : sm__min(left, 3);
            if (n_t == 3)
                sm__tile_ymm(type, vnni, 3, panel, next, coming, m, n_blocks, a, t, to, out_stride);
            else if (n_t == 2)
                sm__tile_ymm(type, vnni, 2, panel, next, coming, m, n_blocks, a, t, to, out_stride);
            else
                sm__tile_ymm(type, vnni, 1, panel, next, coming, m, n_blocks, a, t, to, out_stride);
            t += n_t;
        }
    }
}
SM__AVX2 static void sm__matmul_q8_0__avx2(const void *w, size_t w_stride, int n, int k,
                                           const sm__acts *a, int rows, float *out,
                                           size_t out_stride, void *scratch) {
    sm__matmul_quant_ymm(SM__T_Q8_0, 0, w, w_stride, n, k, a, rows, out, out_stride, scratch);
}
SM__AVX2 static void sm__matmul_q4_0__avx2(const void *w, size_t w_stride, int n, int k,
                                           const sm__acts *a, int rows, float *out,
                                           size_t out_stride, void *scratch) {
    sm__matmul_quant_ymm(SM__T_Q4_0, 0, w, w_stride, n, k, a, rows, out, out_stride, scratch);
}
SM__AVX2 static void sm__matmul_q4_k__avx2(const void *w, size_t w_stride, int n, int k,
                                           const sm__acts *a, int rows, float *out,
                                           size_t out_stride, void *scratch) {
    sm__matmul_quant_ymm(SM__T_Q4_K, 0, w, w_stride, n, k, a, rows, out, out_stride, scratch);
}
SM__AVX2 static void sm__matmul_q5_k__avx2(const void *w, size_t w_stride, int n, int k,
                                           const sm__acts *a, int rows, float *out,
                                           size_t out_stride, void *scratch) {
    sm__matmul_quant_ymm(SM__T_Q5_K, 0, w, w_stride, n, k, a, rows, out, out_stride, scratch);
}
SM__AVX2 static void sm__matmul_q6_k__avx2(const void *w, size_t w_stride, int n, int k,
                                           const sm__acts *a, int rows, float *out,
                                           size_t out_stride, void *scratch) {
    sm__matmul_quant_ymm(SM__T_Q6_K, 0, w, w_stride, n, k, a, rows, out, out_stride, scratch);
}

#ifdef SM__HAS_AVXVNNI
SM__AVX2 static void sm__matmul_q8_0__avxvnni(const void *w, size_t w_stride, int n, int k,
                                              const sm__acts *a, int rows, float *out,
                                              size_t out_stride, void *scratch) {
    sm__matmul_quant_ymm(SM__T_Q8_0, 1, w, w_stride, n, k, a, rows, out, out_stride, scratch);
}
SM__AVX2 static void sm__matmul_q4_0__avxvnni(const void *w, size_t w_stride, int n, int k,
                                              const sm__acts *a, int rows, float *out,
                                              size_t out_stride, void *scratch) {
    sm__matmul_quant_ymm(SM__T_Q4_0, 1, w, w_stride, n, k, a, rows, out, out_stride, scratch);
}
#endif
#endif

#ifdef SM__HAS_AVX512
/* Sixteen rows of block weights are worked on together, a row a lane. The weights enter vpdpbusd as
 * unsigned bytes u = w + bias (Q8_0: bias 128, that is xor 0x80; Q4_0: 8, the nibble as it is), so
 * isum = sum of u * a - bias * s, and -bias * s is where the accumulator starts. */

/* 32 bytes from each of two places. */
SM__AVX512 SM__INLINE __m512i sm__load2_zmm(const uint8_t *lo, const uint8_t *hi) {
    __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)lo);
    __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)hi);
    return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
}

/* 16 bytes from each of four places, stride apart. */
SM__AVX512 SM__INLINE __m512i sm__load4_zmm(const uint8_t *p, size_t stride) {
    __m512i v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(const void *)p));
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(const void *)(p + stride)), 1);
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(const void *)(p + 2 * stride)), 2);
    return _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(const void *)(p + 3 * stride)),
                              3);
}

/* v[i] holds 4 numbers for each of 4 rows: 4 j + i in quarter j. Their 16 sums in order of rows. */
SM__AVX512 SM__INLINE __m512i sm__sum4_zmm(__m512i v0, __m512i v1, __m512i v2, __m512i v3) {
    __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(v0, v1), _mm512_unpackhi_epi32(v0, v1));
    __m512i b = _mm512_add_epi32(_mm512_unpacklo_epi32(v2, v3), _mm512_unpackhi_epi32(v2, v3));
    return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

/* The dot products of 16 rows with one block of a, whole rows of w being stride bytes apart. */
SM__AVX512 SM__INLINE __m512i sm__dot16_q8_0_zmm(const uint8_t *block, size_t stride,
                                                 const int8_t *q, int32_t s) {
    __m512i a = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(const void *)q));
    __m512i start = _mm512_set1_epi32(-16 * s), flip = _mm512_set1_epi8(-128), v[8], lo, hi;
    int i;
    SM__UNROLL
    for (i = 0; i < 8; i++) { /* rows 0, 4 | 1, 5 | 2, 6 | 3, 7 | 8, 12 | ... */
        const uint8_t *p = block + 2 + (size_t)(i < 4 ? i : i + 4) * stride;
        v[i] = _mm512_xor_si512(sm__load2_zmm(p, p + 4 * stride), flip);
        v[i] = _mm512_dpbusd_epi32(start, v[i], a);
    }
    lo = sm__sum4_zmm(v[0], v[1], v[2], v[3]); /* halves of rows 0 - 3, of 4 - 7 */
    hi = sm__sum4_zmm(v[4], v[5], v[6], v[7]);
    return _mm512_add_epi32(_mm512_shuffle_i32x4(lo, hi, 0x88),
                            _mm512_shuffle_i32x4(lo, hi, 0xdd));
}
SM__AVX512 SM__INLINE __m512i sm__dot16_q4_0_zmm(const uint8_t *block, size_t stride,
                                                 const int8_t *q, int32_t s) {
    __m512i lo = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)q));
    __m512i hi = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)(q + 16)));
    __m512i start = _mm512_set1_epi32(-2 * s), low = _mm512_set1_epi8(15), v[4], u;
    int i;
    SM__UNROLL
    for (i = 0; i < 4; i++) {
        u = sm__load4_zmm(block + 2 + (size_t)i * stride, 4 * stride);
        v[i] = _mm512_dpbusd_epi32(start, _mm512_and_si512(u, low), lo);
        v[i] = _mm512_dpbusd_epi32(v[i], _mm512_and_si512(_mm512_srli_epi16(u, 4), low), hi);
    }
    /* a number is 15 * 8 * 127 at most and so is half a row's sum 15 * 16 * 127: 16 bits */
    v[0] = _mm512_madd_epi16(_mm512_packs_epi32(v[0], v[1]), _mm512_set1_epi16(1));
    v[2] = _mm512_madd_epi16(_mm512_packs_epi32(v[2], v[3]), _mm512_set1_epi16(1));
    return _mm512_madd_epi16(_mm512_packs_epi32(v[0], v[2]), _mm512_set1_epi16(1));
}

/* The scales of 16 rows: rows 2 i are the low halves of words, rows 2 i + 1 the high ones. */
SM__AVX512 SM__INLINE __m512 sm__scales_zmm(const uint8_t *block, size_t stride) {
    __m256i even = sm__words_ymm(block, 2 * stride);
    __m256i odd = _mm256_slli_epi32(sm__words_ymm(block + stride, 2 * stride), 16);
    return _mm512_cvtph_ps(_mm256_blend_epi16(even, odd, 0xaa));
}

/* One row of a, 16 rows of w, straight from the file's blocks, n <= 16 of which are stored. The 16
 * rows that follow are prefetched meanwhile, in the order of their addresses. */
SM__AVX512 SM__INLINE void sm__gemv_block_zmm(int type, const uint8_t *w, size_t w_stride,
                                              int n_blocks, const sm__acts *a, float *out, int n) {
    size_t bytes = type == SM__T_Q8_0 ? 34 : 18, ahead = sm__ahead(16 * w_stride);
    const uint8_t *next = w + ahead;
    __m512 acc = sm__zero_zmm(), d;
    __m512i isum;
    int b;
    for (b = 0; b < n_blocks; b++, w += bytes, next += 16 * bytes) {
        const int8_t *q = a->q + (size_t)b * SM__QK;
        sm__prefetch(next, 16 * bytes, ahead);
        isum = type == SM__T_Q8_0 ? sm__dot16_q8_0_zmm(w, w_stride, q, sm__sum32(a->s + 2 * b))
                                  : sm__dot16_q4_0_zmm(w, w_stride, q, sm__sum32(a->s + 2 * b));
        d = sm__mul_zmm(sm__scales_zmm(w, w_stride), _mm512_set1_ps(a->d[b]));
        acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(isum), d, acc);
    }
    _mm512_mask_storeu_ps(out, sm__mask_zmm(n), acc);
}

/* A panel is 32 rows of w rearranged for many rows of a: for each block, twice (for 16 rows) 8
 * registers of unsigned bytes (register j has bytes 4 j .. 4 j + 3 of row l in its lane l) and the
 * 16 scales. */
#define SM__PANEL_ROWS 32
#define SM__PANEL_BLOCK 576

/* v[i] holds 4 words for each of 4 rows, as above. Word j of all rows becomes v[j]. */
SM__AVX512 SM__INLINE void sm__transpose4_zmm(__m512i v[4]) {
    __m512i a = _mm512_unpacklo_epi32(v[0], v[1]), b = _mm512_unpackhi_epi32(v[0], v[1]);
    __m512i c = _mm512_unpacklo_epi32(v[2], v[3]), d = _mm512_unpackhi_epi32(v[2], v[3]);
    v[0] = _mm512_unpacklo_epi64(a, c);
    v[1] = _mm512_unpackhi_epi64(a, c);
    v[2] = _mm512_unpacklo_epi64(b, d);
    v[3] = _mm512_unpackhi_epi64(b, d);
}

/* The bytes are weights + bias: 128 or, with their sign, 0; for Q4_0 8 or 0. */
SM__AVX512 SM__INLINE void sm__pack_q8_0_zmm(const uint8_t *block, size_t stride, int bias,
                                             uint8_t *panel) {
    __m512i flip = _mm512_set1_epi8((char)bias), v[8];
    int i;
    SM__UNROLL
    for (i = 0; i < 8; i++) {
        const uint8_t *p = block + 2 + (size_t)(i < 4 ? i : i + 4) * stride;
        v[i] = _mm512_xor_si512(sm__load2_zmm(p, p + 4 * stride), flip);
    }
    sm__transpose4_zmm(v);
    sm__transpose4_zmm(v + 4);
    SM__UNROLL
    for (i = 0; i < 4; i++) {
        _mm512_store_si512(panel + 64 * i, _mm512_shuffle_i32x4(v[i], v[i + 4], 0x88));
        _mm512_store_si512(panel + 64 * i + 256, _mm512_shuffle_i32x4(v[i], v[i + 4], 0xdd));
    }
    _mm512_store_ps(panel + 512, sm__scales_zmm(block, stride));
}
SM__AVX512 SM__INLINE void sm__pack_q4_0_zmm(const uint8_t *block, size_t stride, int bias,
                                             uint8_t *panel) {
    __m512i low = _mm512_set1_epi8(15), down = _mm512_set1_epi8((char)(8 - bias)), v[4], hi;
    int i;
    SM__UNROLL
    for (i = 0; i < 4; i++) v[i] = sm__load4_zmm(block + 2 + (size_t)i * stride, 4 * stride);
    sm__transpose4_zmm(v);
    SM__UNROLL
    for (i = 0; i < 4; i++) {
        hi = _mm512_and_si512(_mm512_srli_epi16(v[i], 4), low);
        v[i] = _mm512_and_si512(v[i], low);
        _mm512_store_si512(panel + 64 * i, _mm512_sub_epi8(v[i], down));
        _mm512_store_si512(panel + 64 * i + 256, _mm512_sub_epi8(hi, down));
    }
    _mm512_store_ps(panel + 512, sm__scales_zmm(block, stride));
}

/* n_t (a constant) rows of a, from row t on, times a panel, n <= 32 columns of which are stored. */
SM__AVX512 SM__INLINE void sm__tile_block_zmm(int type, int n_t, const uint8_t *panel, int n,
                                              int n_blocks, const sm__acts *a, int t, float *out,
                                              size_t out_stride) {
    const int8_t *q = a->q + (size_t)t * a->q_stride;
    const float *d = a->d + (size_t)t * a->d_stride;
    const int16_t *s = a->s + (size_t)t * a->s_stride;
    __m512i isum[6][2], lo, hi, four, start = _mm512_set1_epi16(type == SM__T_Q8_0 ? -128 : -8);
    __m512 acc[6][2], scale;
    int b, i, j;
    SM__UNROLL
    for (i = 0; i < n_t; i++) acc[i][0] = acc[i][1] = sm__zero_zmm();
    for (b = 0; b < n_blocks; b++, panel += 2 * SM__PANEL_BLOCK, q += SM__QK, d++, s += 2) {
        SM__UNROLL
        for (i = 0; i < n_t; i++) {
            four = _mm512_set1_epi32(sm__load_i32(s + (size_t)i * a->s_stride));
            isum[i][0] = isum[i][1] = _mm512_madd_epi16(four, start);
        }
        SM__UNROLL
        for (j = 0; j < 8; j++) {
            lo = _mm512_load_si512(panel + 64 * j);
            hi = _mm512_load_si512(panel + 64 * j + SM__PANEL_BLOCK);
            SM__UNROLL
            for (i = 0; i < n_t; i++) {
                four = _mm512_set1_epi32(sm__load_i32(q + (size_t)i * a->q_stride + 4 * j));
                isum[i][0] = _mm512_dpbusd_epi32(isum[i][0], lo, four);
                isum[i][1] = _mm512_dpbusd_epi32(isum[i][1], hi, four);
            }
        }
        SM__UNROLL
        for (j = 0; j < 2; j++) {
            scale = _mm512_load_ps(panel + j * SM__PANEL_BLOCK + 512);
            SM__UNROLL
            for (i = 0; i < n_t; i++) {
                __m512 both = sm__mul_zmm(scale, _mm512_set1_ps(d[(size_t)i * a->d_stride]));
                acc[i][j] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(isum[i][j]), both, acc[i][j]);
            }
        }
    }
    SM__UNROLL
    for (i = 0; i < n_t; i++, out += out_stride) {
        _mm512_mask_storeu_ps(out, sm__mask_zmm(n), acc[i][0]);
        if (n > 16) _mm512_mask_storeu_ps(out + 16, sm__mask_zmm(n - 16), acc[i][1]);
    }
}

/* --- K-quants, one row of a: vpdpbusd makes 16 sums of 4 products of 64 weights of a row. They fit
 * 16 bits, so neighbours are added by narrowing to 16 bits and vpmaddwd: with ones while the sums
 * fit (15 or 31 * 127 * 8, for Q6_K 32 * 127 * 8), the last time with the scales. ---- */

/* Neighbours of a and of b added up: of each quarter two sums of a, then two of b. */
SM__AVX512 SM__INLINE __m512i sm__halve_zmm(__m512i a, __m512i b) {
    return _mm512_madd_epi16(_mm512_packs_epi32(a, b), _mm512_set1_epi16(1));
}

/* v[i] holds, in each quarter, a number for each of rows 4 i .. 4 i + 3. The 16 rows' sums. */
SM__AVX512 SM__INLINE __m512i sm__sum_quarters_zmm(const __m512i v[4]) {
    __m512i a = _mm512_add_epi32(_mm512_shuffle_i32x4(v[0], v[1], 0x44),
                                 _mm512_shuffle_i32x4(v[0], v[1], 0xee));
    __m512i b = _mm512_add_epi32(_mm512_shuffle_i32x4(v[2], v[3], 0x44),
                                 _mm512_shuffle_i32x4(v[2], v[3], 0xee));
    return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
}

/* 8 numbers in one half, 8 in the other. */
SM__AVX512 SM__INLINE __m512i sm__two_zmm(int lo, int hi) {
    return _mm512_setr_epi32(lo, lo, lo, lo, lo, lo, lo, lo, hi, hi, hi, hi, hi, hi, hi, hi);
}

/* The first four words of 16 rows: v[i] is word i, a row a lane. */
SM__AVX512 SM__INLINE void sm__words4_zmm(const uint8_t *p, size_t stride, __m512i v[4]) {
    int i;
    SM__UNROLL
    for (i = 0; i < 4; i++) v[i] = sm__load4_zmm(p + (size_t)i * stride, 4 * stride);
    sm__transpose4_zmm(v);
}

/* What stands before the weights of 16 rows of Q4_K or Q5_K, a row a lane: d[0] is d, d[1] dmin;
 * the 6-bit scales and minima as of sm__scales6_ymm. */
SM__AVX512 SM__INLINE void sm__scales6_zmm(const uint8_t *block, size_t stride, __m512i sc[2],
                                           __m512i m[2], __m512 d[2]) {
    __m512i six = _mm512_set1_epi8(63), four = _mm512_set1_epi8(15), top = _mm512_set1_epi8(48);
    __m512i v[4], a, b;
    sm__words4_zmm(block, stride, v);
    d[0] = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v[0]));
    d[1] = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(v[0], 16)));
    sc[0] = _mm512_and_si512(v[1], six);
    m[0] = _mm512_and_si512(v[2], six);
    a = _mm512_and_si512(_mm512_srli_epi16(v[1], 2), top);
    b = _mm512_and_si512(_mm512_srli_epi16(v[2], 2), top);
    sc[1] = _mm512_ternarylogic_epi32(a, v[3], four, 0xf8); /* a | (v[3] & four) */
    m[1] = _mm512_ternarylogic_epi32(b, _mm512_srli_epi16(v[3], 4), four, 0xf8);
}

/* d of 16 rows of Q6_K, which is the last two bytes. */
SM__AVX512 SM__INLINE __m512 sm__scales_q6_k_zmm(const uint8_t *block, size_t stride) {
    __m256i even = _mm256_srli_epi32(sm__words_ymm(block + 206, 2 * stride), 16);
    __m256i odd = sm__words_ymm(block + stride + 206, 2 * stride);
    return _mm512_cvtph_ps(_mm256_blend_epi16(even, odd, 0xaa));
}

/* Bytes of each lane: which one comes to each place, the lowest place first; 0x80 is a zero. */
SM__AVX512 SM__INLINE __m512i sm__bytes_zmm(__m512i v, uint32_t which) {
    return _mm512_shuffle_epi8(v, _mm512_broadcast_i32x4(_mm_setr_epi32(
        (int)which, (int)(which + 0x04040404u), (int)(which + 0x08080808u),
        (int)(which + 0x0c0c0c0cu))));
}

/* Half h of a row of Q4_K or Q5_K: u[0] is sub-blocks 4 h and 4 h + 2, u[1] those after them. */
SM__AVX512 SM__INLINE void sm__unpack_q4_q5_zmm(int type, const uint8_t *block, int h,
                                                __m512i u[2]) {
    const uint8_t *p = block + (type == SM__T_Q4_K ? 16 : 48) + 64 * h;
    __m512i four = _mm512_set1_epi8(15), v = _mm512_loadu_si512((const void *)p), high;
    u[0] = _mm512_and_si512(v, four);
    u[1] = _mm512_srli_epi16(v, 4);
    if (type == SM__T_Q4_K) u[1] = _mm512_and_si512(u[1], four);
    else { /* the fifth bits: bit 4 for u[0], bit 5 for u[1] */
        high = _mm512_broadcast_i64x4(
            _mm256_loadu_si256((const __m256i *)(const void *)(block + 16)));
        high = h ? _mm512_srlv_epi32(high, sm__two_zmm(0, 2))
                 : _mm512_sllv_epi32(high, sm__two_zmm(4, 2));
        high = _mm512_and_si512(high, _mm512_set1_epi8(48));
        u[0] = _mm512_ternarylogic_epi32(u[0], high, _mm512_set1_epi8(16), 0xf8);
        high = _mm512_srli_epi16(high, 1); /* and then four ? u[1] : high */
        u[1] = _mm512_ternarylogic_epi32(four, u[1], high, 0xca);
    }
}

/* 4 rows of Q4_K or Q5_K: of each quarter 4 sums, one a row. 64 bytes apart at sc: the scales of
 * the first two rows, 8 bytes each, and those of the last two. */
SM__AVX512 SM__INLINE __m512i sm__dot4_q4_q5_zmm(int type, const uint8_t *w, size_t stride,
                                                 const __m512i a[4], const uint8_t *sc) {
    __m512i pick = _mm512_add_epi32(
        sm__two_zmm(0, 0x00020002),
        _mm512_broadcast_i32x4(_mm_setr_epi32((int)0x80008000u, (int)0x80018001u,
                                              (int)0x80088008u, (int)0x80098009u)));
    __m512i zero = _mm512_setzero_si512(), all, scales, u[2], v[2];
    __m512 acc[2];
    int e, h, r;
    SM__UNROLL
    for (e = 0; e < 2; e++) {
        __m512i sum = zero;
        all = _mm512_broadcast_i32x4(
            _mm_loadu_si128((const __m128i *)(const void *)(sc + 64 * e)));
        SM__UNROLL
        for (h = 0; h < 2; h++) {
            SM__UNROLL
            for (r = 0; r < 2; r++) {
                sm__unpack_q4_q5_zmm(type, w + (size_t)(2 * e + r) * stride, h, u);
                u[0] = _mm512_dpbusd_epi32(zero, u[0], a[2 * h]);
                u[1] = _mm512_dpbusd_epi32(zero, u[1], a[2 * h + 1]);
                v[r] = sm__halve_zmm(u[0], u[1]);
            }
            v[0] = _mm512_packs_epi32(v[0], v[1]);
            scales = _mm512_add_epi32(pick, _mm512_set1_epi32(0x00040004 * h));
            scales = _mm512_shuffle_epi8(all, scales);
            sum = h ? _mm512_dpwssd_epi32(sum, v[0], scales) : _mm512_madd_epi16(v[0], scales);
        }
        acc[e] = _mm512_castsi512_ps(sum);
    }
    return _mm512_add_epi32(_mm512_castps_si512(_mm512_shuffle_ps(acc[0], acc[1], 0x88)),
                            _mm512_castps_si512(_mm512_shuffle_ps(acc[0], acc[1], 0xdd)));
}

/* The next superblock of 16 rows of Q4_K or Q5_K, one row of a. */
SM__AVX512 SM__INLINE __m512 sm__gemv_q4_q5_zmm(int type, const uint8_t *w, size_t w_stride,
                                                const int8_t *q, const int16_t *s, __m512 d_a,
                                                __m512 acc) {
    __m512i sc[2], m[2], a[4], v[4], msum = _mm512_setzero_si512();
    uint8_t bytes[128];
    int16_t sums[16];
    __m512 d[2];
    int i;
    sm__scales6_zmm(w, w_stride, sc, m, d);
    _mm512_storeu_si512((void *)bytes, _mm512_unpacklo_epi32(sc[0], sc[1])); /* rows 0 1, 4 5 .. */
    _mm512_storeu_si512((void *)(bytes + 64), _mm512_unpackhi_epi32(sc[0], sc[1]));
    SM__UNROLL
    for (i = 0; i < 4; i++) {
        const uint8_t *p = (const uint8_t *)q + 128 * (i / 2) + 32 * (i % 2);
        a[i] = sm__load2_zmm(p, p + 64);
    }
    SM__UNROLL
    for (i = 0; i < 4; i++)
        v[i] = sm__dot4_q4_q5_zmm(type, w + (size_t)(4 * i) * w_stride, w_stride, a,
                                  bytes + 16 * i);
    acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sm__sum_quarters_zmm(v)), sm__mul_zmm(d[0], d_a),
                          acc);
    _mm256_storeu_si256((__m256i *)(void *)sums, sm__sums32_ymm(s));
    SM__UNROLL
    for (i = 0; i < 4; i++) { /* two minima and two sums at a time */
        v[i] = sm__bytes_zmm(m[i / 2], i % 2 ? 0x80038002u : 0x80018000u);
        msum = _mm512_dpwssd_epi32(msum, v[i], _mm512_set1_epi32(sm__load_i32(sums + 2 * i)));
    }
    return _mm512_fnmadd_ps(_mm512_cvtepi32_ps(msum), sm__mul_zmm(d[1], d_a), acc);
}

/* One row of Q6_K: 16 numbers to add up. The weights enter as q + 32, start being -32 times the
 * activations. */
SM__AVX512 SM__INLINE __m512i sm__dot_q6_k_zmm(const uint8_t *block, const __m512i a[4],
                                               const __m512i start[4]) {
    __m512i four = _mm512_set1_epi8(15), two = _mm512_set1_epi8(48), low, high, up, sc, v[2];
    __m512i order = _mm512_add_epi32( /* of lane l in quarter i: scale 4 l + i, in all bytes */
        _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c)),
        _mm512_setr_epi32(0, 0, 0, 0, 0x01010101, 0x01010101, 0x01010101, 0x01010101, 0x02020202,
                          0x02020202, 0x02020202, 0x02020202, 0x03030303, 0x03030303, 0x03030303,
                          0x03030303));
    int h;
    SM__UNROLL
    for (h = 0; h < 2; h++) {
        const uint8_t *p = block + 128 + 32 * h;
        high = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(const void *)p));
        low = _mm512_loadu_si512((const void *)(block + 64 * h));
        up = _mm512_and_si512(_mm512_srli_epi16(low, 4), four);
        low = _mm512_and_si512(low, four); /* low | (high & two) */
        low = _mm512_ternarylogic_epi32(low, _mm512_sllv_epi32(high, sm__two_zmm(4, 2)), two, 0xf8);
        up = _mm512_ternarylogic_epi32(up, _mm512_srlv_epi32(high, sm__two_zmm(0, 2)), two, 0xf8);
        v[h] = sm__halve_zmm(_mm512_dpbusd_epi32(start[2 * h], low, a[2 * h]),
                             _mm512_dpbusd_epi32(start[2 * h + 1], up, a[2 * h + 1]));
    }
    sc = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)(block + 192)));
    sc = _mm512_srai_epi16(_mm512_shuffle_epi8(sc, order), 8);
    return _mm512_madd_epi16(_mm512_packs_epi32(v[0], v[1]), sc);
}

/* The next superblock of 16 rows of Q6_K, one row of a. */
SM__AVX512 SM__INLINE __m512 sm__gemv_q6_k_zmm(const uint8_t *w, size_t w_stride, const int8_t *q,
                                               __m512 d_a, __m512 acc) {
    __m512i a[4], start[4], v[4], row[4], zero = _mm512_setzero_si512();
    int i, r;
    SM__UNROLL
    for (i = 0; i < 4; i++) {
        a[i] = _mm512_loadu_si512((const void *)(q + 64 * i));
        start[i] = _mm512_dpbusd_epi32(zero, _mm512_set1_epi8(32), a[i]);
        start[i] = _mm512_sub_epi32(zero, start[i]);
    }
    SM__UNROLL
    for (i = 0; i < 4; i++) {
        SM__UNROLL
        for (r = 0; r < 4; r++)
            row[r] = sm__dot_q6_k_zmm(w + (size_t)(4 * i + r) * w_stride, a, start);
        v[i] = sm__sum4_zmm(row[0], row[1], row[2], row[3]);
    }
    d_a = sm__mul_zmm(sm__scales_q6_k_zmm(w, w_stride), d_a);
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(sm__sum_quarters_zmm(v)), d_a, acc);
}

/* As sm__gemv_block_zmm. */
SM__AVX512 SM__INLINE void sm__gemv_super_zmm(int type, const uint8_t *w, size_t w_stride,
                                              int n_blocks, const sm__acts *a, float *out, int n) {
    size_t bytes = type == SM__T_Q4_K ? 144 : type == SM__T_Q5_K ? 176 : 210;
    size_t ahead = sm__ahead(16 * w_stride);
    const uint8_t *next = w + ahead;
    int b, j;
    __m512 acc = sm__zero_zmm();
    for (b = 0; b < n_blocks; b++, w += bytes) {
        const int8_t *q = a->q + (size_t)b * SM__QK_K;
        const int16_t *s = a->s + (size_t)b * (SM__QK_K / 16);
        __m512 d_a = _mm512_set1_ps(a->d[b]);
        for (j = 0; j < 4; j++, next += 4 * bytes) sm__prefetch(next, 4 * bytes, ahead);
        if (type == SM__T_Q6_K) acc = sm__gemv_q6_k_zmm(w, w_stride, q, d_a, acc);
        else acc = sm__gemv_q4_q5_zmm(type, w, w_stride, q, s, d_a, acc);
    }
    _mm512_mask_storeu_ps(out, sm__mask_zmm(n), acc);
}

/* --- K-quants, many rows of a: the sum of some products, made to fit 16 bits by a start of -bias
 * times their activations, is multiplied by the scale and added up by one vpdpwssd. bias is the
 * middle of the weights' range: 8, 16, 32, so 32, 16, 8 products fit, that is 8, 4, 2 words. (Sums
 * of two planes of bytes weight * scale would take no such step, but twice the products.)
 * A panel has for each superblock, twice (for 16 rows): 64 registers of unsigned bytes, as above;
 * 8 (Q6_K: 16) of a sub-block's scale in the low half of a lane; for Q4_K and Q5_K 4 of two
 * neighbours' scales and 4 of two neighbours' minima; d and dmin. ---- */
#define SM__PANEL_SCALES (64 * 64)
#define SM__PANEL_PAIRS (72 * 64)
#define SM__PANEL_D (80 * 64)
#define SM__PANEL_SUPER (82 * 64)

SM__AVX512 SM__INLINE void sm__pack_q4_q5_zmm(int type, const uint8_t *w, size_t stride,
                                              uint8_t *panel) {
    __m512i four = _mm512_set1_epi8(15), fifth = _mm512_set1_epi8(16), high[8], v[4], sc[2], m[2];
    __m512 d[2];
    int c, h, i;
    if (type == SM__T_Q5_K) {
        sm__words4_zmm(w + 16, stride, high);
        sm__words4_zmm(w + 32, stride, high + 4);
    }
    for (c = 0; c < 4; c++)
        for (h = 0; h < 2; h++) {
            uint8_t *to = panel + 64 * (16 * c + 4 * h);
            sm__words4_zmm(w + (type == SM__T_Q4_K ? 16 : 48) + 32 * c + 16 * h, stride, v);
            SM__UNROLL
            for (i = 0; i < 4; i++) {
                __m512i lo = _mm512_and_si512(v[i], four), *bits = high + 4 * h + i;
                __m512i hi = _mm512_and_si512(_mm512_srli_epi16(v[i], 4), four);
                if (type == SM__T_Q5_K) { /* the two lowest bits, which then make way */
                    lo = _mm512_ternarylogic_epi32(lo, _mm512_slli_epi16(*bits, 4), fifth, 0xf8);
                    hi = _mm512_ternarylogic_epi32(hi, _mm512_slli_epi16(*bits, 3), fifth, 0xf8);
                    *bits = _mm512_srli_epi16(*bits, 2);
                }
                _mm512_store_si512((void *)(to + 64 * i), lo);
                _mm512_store_si512((void *)(to + 64 * (i + 8)), hi);
            }
        }
    sm__scales6_zmm(w, stride, sc, m, d);
    SM__UNROLL
    for (i = 0; i < 8; i++)
        _mm512_store_si512((void *)(panel + SM__PANEL_SCALES + 64 * i),
                           sm__bytes_zmm(sc[i / 4], 0x80808000u + (uint32_t)i % 4));
    SM__UNROLL
    for (i = 0; i < 4; i++) {
        uint32_t pair = i % 2 ? 0x80038002u : 0x80018000u;
        uint8_t *to = panel + SM__PANEL_PAIRS + 64 * i;
        _mm512_store_si512((void *)to, sm__bytes_zmm(sc[i / 2], pair));
        _mm512_store_si512((void *)(to + 256), sm__bytes_zmm(m[i / 2], pair));
    }
    _mm512_store_ps((void *)(panel + SM__PANEL_D), d[0]);
    _mm512_store_ps((void *)(panel + SM__PANEL_D + 64), d[1]);
}

SM__AVX512 SM__INLINE void sm__pack_q6_k_zmm(const uint8_t *w, size_t stride, uint8_t *panel) {
    __m512i four = _mm512_set1_epi8(15), two = _mm512_set1_epi8(48), low[2][4], high[4], up, v;
    int half, h, i, g;
    for (half = 0; half < 2; half++)
        for (h = 0; h < 2; h++) {
            sm__words4_zmm(w + 64 * half + 16 * h, stride, low[0]);
            sm__words4_zmm(w + 64 * half + 32 + 16 * h, stride, low[1]);
            sm__words4_zmm(w + 128 + 32 * half + 16 * h, stride, high);
            SM__UNROLL
            for (i = 0; i < 4; i++) {
                SM__UNROLL
                for (g = 0; g < 4; g++) {
                    up = g == 0 ? _mm512_slli_epi16(high[i], 4)
                       : g == 1 ? _mm512_slli_epi16(high[i], 2)
                       : g == 2 ? high[i] : _mm512_srli_epi16(high[i], 2);
                    v = g < 2 ? low[g][i] : _mm512_srli_epi16(low[g - 2][i], 4);
                    v = _mm512_ternarylogic_epi32(_mm512_and_si512(v, four), up, two, 0xf8);
                    _mm512_store_si512((void *)(panel + 64 * (32 * half + 8 * g + 4 * h + i)), v);
                }
            }
        }
    sm__words4_zmm(w + 192, stride, high);
    SM__UNROLL
    for (i = 0; i < 16; i++) { /* sign-extended: from the upper byte down */
        v = sm__bytes_zmm(high[i / 4], 0x80800080u + ((uint32_t)i % 4 << 8));
        _mm512_store_si512((void *)(panel + SM__PANEL_SCALES + 64 * i), _mm512_srai_epi16(v, 8));
    }
    _mm512_store_ps((void *)(panel + SM__PANEL_D), sm__scales_q6_k_zmm(w, stride));
}

/* Where the sums of a superblock's activations start: for Q4_K 8 numbers, for Q5_K 16, for Q6_K 32
 * of 2 lanes each. */
SM__AVX512 SM__INLINE void sm__starts_zmm(int type, const int8_t *q, const int16_t *s,
                                          int32_t *start) {
    __m256i sums = _mm256_loadu_si256((const __m256i *)(const void *)s);
    __m512i v;
    int i;
    if (type == SM__T_Q4_K) {
        sums = _mm256_madd_epi16(sums, _mm256_set1_epi16(-8));
        _mm256_storeu_si256((__m256i *)(void *)start, sums);
    } else if (type == SM__T_Q5_K) {
        v = _mm512_madd_epi16(_mm512_cvtepi16_epi32(sums), _mm512_set1_epi32(0xfff0)); /* -16, 0 */
        _mm512_storeu_si512((void *)start, v);
    } else {
        SM__UNROLL
        for (i = 0; i < 4; i++) {
            v = _mm512_maddubs_epi16(_mm512_set1_epi8(32),
                                     _mm512_loadu_si512((const void *)(q + 64 * i)));
            v = _mm512_madd_epi16(v, _mm512_set1_epi16(-1));
            v = _mm512_add_epi32(v, _mm512_shuffle_epi32(v, (_MM_PERM_ENUM)0xb1));
            _mm512_storeu_si512((void *)(start + 16 * i), v);
        }
    }
}

/* The sum of 8 scales or minima times the 8 sums of 32 activations. */
SM__AVX512 SM__INLINE __m512i sm__pairs_zmm(const uint8_t *pairs, const int16_t *sums) {
    __m512i acc = _mm512_setzero_si512();
    int i;
    SM__UNROLL
    for (i = 0; i < 4; i++)
        acc = _mm512_dpwssd_epi32(acc, _mm512_load_si512((const void *)(pairs + 64 * i)),
                                  _mm512_set1_epi32(sm__load_i32(sums + 2 * i)));
    return acc;
}

/* What the starts have taken from the sum and is no part of it: for Q6_K nothing. */
SM__AVX512 SM__INLINE __m512i sm__bias_zmm(int type, const uint8_t *panel, const int16_t *sums) {
    if (type == SM__T_Q6_K) return _mm512_setzero_si512();
    return _mm512_slli_epi32(sm__pairs_zmm(panel + SM__PANEL_PAIRS, sums),
                             type == SM__T_Q4_K ? 3 : 4);
}

/* n_t (a constant) rows of a times one superblock of a panel. */
SM__AVX512 SM__INLINE void sm__tile_isum_zmm(int type, int n_t, const uint8_t *panel,
                                             const int8_t *q, size_t q_stride,
                                             int32_t (*start)[64], __m512i (*isum)[2]) {
    int run = type == SM__T_Q4_K ? 8 : type == SM__T_Q5_K ? 4 : 2, step = run == 2 ? 2 : 1;
    const uint8_t *scales = panel + SM__PANEL_SCALES;
    const int32_t *from = start[0];
    __m512i part[6][2], v[2], four;
    int g, h, i, j;
    for (g = 0; g < 8; g++, panel += 8 * 64, q += 32) {
        SM__UNROLL
        for (h = 0; h < 8; h += run, from += step) {
            SM__UNROLL
            for (i = 0; i < n_t; i++) part[i][0] = part[i][1] = _mm512_set1_epi32(from[64 * i]);
            SM__UNROLL
            for (j = h; j < h + run; j++) {
                v[0] = _mm512_load_si512((const void *)(panel + 64 * j));
                v[1] = _mm512_load_si512((const void *)(panel + 64 * j + SM__PANEL_SUPER));
                SM__UNROLL
                for (i = 0; i < n_t; i++) {
                    four = _mm512_set1_epi32(sm__load_i32(q + (size_t)i * q_stride + 4 * j));
                    part[i][0] = _mm512_dpbusd_epi32(part[i][0], v[0], four);
                    part[i][1] = _mm512_dpbusd_epi32(part[i][1], v[1], four);
                }
            }
            j = type == SM__T_Q6_K ? 2 * g + h / 4 : g;
            v[0] = _mm512_load_si512((const void *)(scales + 64 * j));
            v[1] = _mm512_load_si512((const void *)(scales + 64 * j + SM__PANEL_SUPER));
            SM__UNROLL
            for (i = 0; i < n_t; i++) {
                isum[i][0] = _mm512_dpwssd_epi32(isum[i][0], part[i][0], v[0]);
                isum[i][1] = _mm512_dpwssd_epi32(isum[i][1], part[i][1], v[1]);
            }
        }
    }
}

/* As sm__tile_block_zmm. */
SM__AVX512 SM__INLINE void sm__tile_super_zmm(int type, int n_t, const uint8_t *panel, int n,
                                              int n_blocks, const sm__acts *a, int t, float *out,
                                              size_t out_stride) {
    const int8_t *q = a->q + (size_t)t * a->q_stride;
    const int16_t *s = a->s + (size_t)t * a->s_stride;
    const float *d_a = a->d + (size_t)t * a->d_stride;
    int16_t sums[6][16];
    int32_t start[6][64];
    __m512i isum[6][2], msum;
    __m512 acc[6][2], d[2], scale;
    int b, i, j;
    SM__UNROLL
    for (i = 0; i < n_t; i++) acc[i][0] = acc[i][1] = sm__zero_zmm();
    for (b = 0; b < n_blocks; b++, panel += 2 * SM__PANEL_SUPER, q += SM__QK_K, s += 16, d_a++) {
        SM__UNROLL
        for (i = 0; i < n_t; i++) {
            const int16_t *s_i = s + (size_t)i * a->s_stride;
            sm__starts_zmm(type, q + (size_t)i * a->q_stride, s_i, start[i]);
            if (type != SM__T_Q6_K)
                _mm256_storeu_si256((__m256i *)(void *)sums[i], sm__sums32_ymm(s_i));
            isum[i][0] = sm__bias_zmm(type, panel, sums[i]);
            isum[i][1] = sm__bias_zmm(type, panel + SM__PANEL_SUPER, sums[i]);
        }
        sm__tile_isum_zmm(type, n_t, panel, q, a->q_stride, start, isum);
        SM__UNROLL
        for (j = 0; j < 2; j++) {
            const uint8_t *half = panel + j * SM__PANEL_SUPER;
            d[0] = _mm512_load_ps((const void *)(half + SM__PANEL_D));
            d[1] = _mm512_load_ps((const void *)(half + SM__PANEL_D + 64));
            SM__UNROLL
            for (i = 0; i < n_t; i++) {
                __m512 d_i = _mm512_set1_ps(d_a[(size_t)i * a->d_stride]);
                scale = sm__mul_zmm(d[0], d_i);
                acc[i][j] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(isum[i][j]), scale, acc[i][j]);
                if (type == SM__T_Q6_K) continue;
                msum = sm__pairs_zmm(half + SM__PANEL_PAIRS + 256, sums[i]);
                scale = sm__mul_zmm(d[1], d_i);
                acc[i][j] = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(msum), scale, acc[i][j]);
            }
        }
    }
    SM__UNROLL
    for (i = 0; i < n_t; i++, out += out_stride) {
        _mm512_mask_storeu_ps(out, sm__mask_zmm(n), acc[i][0]);
        if (n > 16) _mm512_mask_storeu_ps(out + 16, sm__mask_zmm(n - 16), acc[i][1]);
    }
}

/* --- AMX: a tile is up to 16 rows of 64 bytes. The product of n_t <= 16 rows of a with 16 rows of
 * w is a tile of sums: of one block of 32 weights, or of a superblock whose weights * scales v are
 * two planes of bytes, v & 127 and v >> 7 (|v| is at most 63 * 31 or 128 * 32), which are summed
 * apart: isum = low + 128 * high. The sums are stored, scaled and added to the chains, which wait
 * in memory, while the products that come next are computed. ---- */

/* The half of a panel for 16 rows. Of block types: as above, the bytes signed. Of K-quants, for
 * each superblock: two planes of 64 registers; 4 of two neighbours' minima; d and dmin. */
#define SM__PLANE_AMX (64 * 64)
#define SM__PANEL_AMX (2 * SM__PLANE_AMX + 6 * 64)
#define SM__ROWS_AMX 8 /* of a; for fewer, AVX-512 */

/* A superblock as sm__pack_q4_q5_zmm or sm__pack_q6_k_zmm left it, into planes. */
SM__AVX512 SM__INLINE void sm__fold_zmm(int type, const uint8_t *from, uint8_t *to) {
    __m512i bias = _mm512_set1_epi16(type == SM__T_Q6_K ? 32 : 0), upper = _mm512_set1_epi16(-256);
    __m512i sc, v, even, odd, low = _mm512_set1_epi8(127);
    int run = type == SM__T_Q6_K ? 4 : 8, i; /* registers of one scale */
    for (i = 0; i < 64; i++) { /* even bytes times scale, odd bytes times scale: 16 bits each */
        sc = _mm512_load_si512((const void *)(from + SM__PANEL_SCALES + 64 * (i / run)));
        sc = _mm512_or_si512(sc, _mm512_slli_epi32(sc, 16));
        v = _mm512_load_si512((const void *)(from + 64 * i));
        even = _mm512_sub_epi16(_mm512_andnot_si512(upper, v), bias);
        odd = _mm512_sub_epi16(_mm512_srli_epi16(v, 8), bias);
        even = _mm512_mullo_epi16(even, sc);
        odd = _mm512_mullo_epi16(odd, sc);
        v = _mm512_ternarylogic_epi32(upper, _mm512_slli_epi16(odd, 8), even, 0xca);
        _mm512_store_si512((void *)(to + 64 * i), _mm512_and_si512(v, low));
        v = _mm512_ternarylogic_epi32(upper, _mm512_slli_epi16(odd, 1),
                                      _mm512_srli_epi16(even, 7), 0xca);
        _mm512_store_si512((void *)(to + SM__PLANE_AMX + 64 * i), v);
    }
    /* what is left stands side by side */
    memcpy(to + 2 * SM__PLANE_AMX, from + SM__PANEL_PAIRS + 256, 6 * 64);
}

#ifdef SM__HAS_AMX
/* The thread's tiles: 0 - 3 are sums, 4 and 5 `depth` bytes of rows of a, 6 and 7 as many of 16
 * rows of w. */
SM__AMX SM__INLINE void sm__tiles_begin_amx(int n_t, int depth) {
    struct {
        uint8_t palette, start_row, zeros[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } shapes;
    int i;
    memset(&shapes, 0, sizeof shapes);
    shapes.palette = 1;
    for (i = 0; i < 8; i++) {
        shapes.row_bytes[i] = (uint16_t)(i == 4 || i == 5 ? depth : 64);
        shapes.rows[i] = (uint8_t)(i < 6 ? n_t : depth / 4);
    }
    /* gcc declares that only the first 8 bytes are read */
    __asm__ __volatile__("" : : "r"(&shapes) : "memory");
    _tile_loadconfig(&shapes);
}

/* One block or two: sums[2 * block + half of the panel]. */
SM__AMX SM__INLINE void sm__products_block_amx(const uint8_t *panel, int n_blocks, const int8_t *q,
                                               size_t q_stride, int32_t *sums) {
    _tile_loadd(4, q, q_stride);
    _tile_loadd(6, panel, 64);
    _tile_loadd(7, panel + SM__PANEL_BLOCK, 64);
    _tile_zero(0);
    _tile_zero(1);
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 7);
    _tile_stored(0, sums, 64);
    _tile_stored(1, sums + 256, 64);
    if (n_blocks == 1) return;
    panel += 2 * SM__PANEL_BLOCK;
    _tile_loadd(5, q + SM__QK, q_stride);
    _tile_loadd(6, panel, 64);
    _tile_loadd(7, panel + SM__PANEL_BLOCK, 64);
    _tile_zero(2);
    _tile_zero(3);
    _tile_dpbssd(2, 5, 6);
    _tile_dpbssd(3, 5, 7);
    _tile_stored(2, sums + 512, 64);
    _tile_stored(3, sums + 768, 64);
}

/* One superblock: sums[2 * half of the panel + plane]. */
SM__AMX SM__INLINE void sm__products_super_amx(const uint8_t *panel, const int8_t *q,
                                               size_t q_stride, int32_t *sums) {
    int i;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (i = 0; i < 4; i++, panel += 16 * 64, q += 64) {
        _tile_loadd(4, q, q_stride);
        _tile_loadd(6, panel, 64);
        _tile_loadd(7, panel + SM__PLANE_AMX, 64);
        _tile_dpbssd(0, 4, 6);
        _tile_dpbssd(1, 4, 7);
        _tile_loadd(6, panel + SM__PANEL_AMX, 64);
        _tile_loadd(7, panel + SM__PANEL_AMX + SM__PLANE_AMX, 64);
        _tile_dpbssd(2, 4, 6);
        _tile_dpbssd(3, 4, 7);
    }
    _tile_stored(0, sums, 64);
    _tile_stored(1, sums + 256, 64);
    _tile_stored(2, sums + 512, 64);
    _tile_stored(3, sums + 768, 64);
}

/* The float steps of n_blocks (a constant) blocks, for n_t rows of a from row t on. */
SM__AVX512 SM__INLINE void sm__scale_block_zmm(int n_blocks, const uint8_t *panel,
                                               const int32_t *sums, const sm__acts *a, int t,
                                               int n_t, int b, float *acc) {
    const float *d = a->d + (size_t)t * a->d_stride + b;
    __m512 scale[4], x;
    int i, j;
    SM__UNROLL
    for (i = 0; i < 2 * n_blocks; i++)
        scale[i] = _mm512_load_ps((const void *)(panel + i * SM__PANEL_BLOCK + 512));
    for (t = 0; t < n_t; t++, d += a->d_stride, sums += 16, acc += 32) {
        SM__UNROLL
        for (j = 0; j < 2; j++) {
            x = _mm512_load_ps(acc + 16 * j);
            SM__UNROLL
            for (i = j; i < 2 * n_blocks; i += 2) {
                __m512 isum = _mm512_cvtepi32_ps(_mm512_load_si512((const void *)(sums + 256 * i)));
                x = _mm512_fmadd_ps(isum, sm__mul_zmm(scale[i], _mm512_set1_ps(d[i / 2])), x);
            }
            _mm512_store_ps(acc + 16 * j, x);
        }
    }
}

/* The same of one superblock. */
SM__AVX512 SM__INLINE void sm__scale_super_zmm(int type, const uint8_t *panel,
                                               const int32_t *sums, const sm__acts *a, int t,
                                               int n_t, int b, float *acc) {
    const float *d = a->d + (size_t)t * a->d_stride + b;
    const int16_t *s = a->s + (size_t)t * a->s_stride + (size_t)b * (SM__QK_K / 16);
    int16_t sums32[16];
    __m512 x, d_a;
    __m512i v;
    int j;
    for (t = 0; t < n_t; t++, d += a->d_stride, s += a->s_stride, sums += 16, acc += 32) {
        d_a = _mm512_set1_ps(*d);
        if (type != SM__T_Q6_K) _mm256_storeu_si256((__m256i *)(void *)sums32, sm__sums32_ymm(s));
        SM__UNROLL
        for (j = 0; j < 2; j++) {
            const uint8_t *minima = panel + j * SM__PANEL_AMX + 2 * SM__PLANE_AMX;
            const float *scale = (const float *)(const void *)(minima + 256);
            v = _mm512_slli_epi32(_mm512_load_si512((const void *)(sums + 512 * j + 256)), 7);
            v = _mm512_add_epi32(v, _mm512_load_si512((const void *)(sums + 512 * j)));
            x = _mm512_load_ps(acc + 16 * j);
            x = _mm512_fmadd_ps(_mm512_cvtepi32_ps(v), sm__mul_zmm(_mm512_load_ps(scale), d_a), x);
            if (type != SM__T_Q6_K) {
                v = sm__pairs_zmm(minima, sums32);
                x = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(v),
                                     sm__mul_zmm(_mm512_load_ps(scale + 16), d_a), x);
            }
            _mm512_store_ps(acc + 16 * j, x);
        }
    }
}

/* Rows of a that make a tile: as even a cut of them as there is. */
SM__INLINE int sm__tile_rows_amx(int rows) {
    int n = (rows + 15) / 16;
    return (rows + n - 1) / n;
}

/* All rows of a times a panel, n <= 32 columns of which are stored. In scratch: the chains [16, 32]
 * and the sums of two steps. */
SM__AMX SM__NOINLINE static void sm__panel__amx(int type, const uint8_t *panel, int n,
                                                int n_blocks, const sm__acts *a, int rows,
                                                float *out, size_t out_stride, void *scratch) {
    int block = sm__types[type].act_block, is_super = block == SM__QK_K, step = is_super ? 1 : 2;
    int n_t = sm__tile_rows_amx(rows), t, b, i;
    size_t bytes = 2 * (size_t)(is_super ? SM__PANEL_AMX : SM__PANEL_BLOCK);
    float *acc = (float *)scratch;
    int32_t *sums = (int32_t *)scratch + 512, *last = sums + 1024, *swap;
    __asm__ __volatile__("" : : : "memory"); /* the panel is written: gcc sees no load of a tile */
    for (t = 0; t < rows; t += n_t) {
        const uint8_t *w = panel;
        t = sm__min(t, rows - n_t); /* the last tile is full, too: some rows are done twice */
        memset(acc, 0, 512 * sizeof *acc);
        for (b = 0; b < n_blocks + step; b += step, w += (size_t)step * bytes) {
            int left = n_blocks - b;
            if (left > 0) {
                const int8_t *q = a->q + (size_t)t * a->q_stride + (size_t)b * (size_t)block;
                if (is_super) sm__products_super_amx(w, q, a->q_stride, sums);
                else sm__products_block_amx(w, left, q, a->q_stride, sums);
            }
            if (b && is_super)
                sm__scale_super_zmm(type, w - bytes, last, a, t, n_t, b - 1, acc);
            else if (b && left >= 0)
                sm__scale_block_zmm(2, w - 2 * bytes, last, a, t, n_t, b - 2, acc);
            else if (b) sm__scale_block_zmm(1, w - 2 * bytes, last, a, t, n_t, b - 2, acc);
            swap = sums, sums = last, last = swap;
        }
        for (i = 0; i < n_t; i++) {
            float *to = out + (size_t)(t + i) * out_stride, *from = acc + 32 * i;
            _mm512_mask_storeu_ps(to, sm__mask_zmm(n), _mm512_load_ps(from));
            if (n > 16)
                _mm512_mask_storeu_ps(to + 16, sm__mask_zmm(n - 16), _mm512_load_ps(from + 16));
        }
    }
}
#endif

/* --- all quantised types ---- */

/* 16 rows into their half of a panel; panel_block: the bytes of a block in it. spare: for one
 * superblock. */
SM__AVX512 SM__INLINE void sm__pack_zmm(int type, int amx, const uint8_t *w, size_t w_stride,
                                        int n_blocks, uint8_t *panel, size_t panel_block,
                                        uint8_t *spare) {
    int is_super = sm__types[type].act_block == SM__QK_K, b;
    for (b = 0; b < n_blocks; b++, panel += 2 * panel_block) {
        uint8_t *to = amx && is_super ? spare : panel;
        switch (type) {
        case SM__T_Q8_0: sm__pack_q8_0_zmm(w, w_stride, amx ? 0 : 128, to); break;
        case SM__T_Q4_0: sm__pack_q4_0_zmm(w, w_stride, amx ? 0 : 8, to); break;
        case SM__T_Q6_K: sm__pack_q6_k_zmm(w, w_stride, to); break;
        default: sm__pack_q4_q5_zmm(type, w, w_stride, to); break;
        }
        if (amx && is_super) sm__fold_zmm(type, spare, panel);
        w += sm__types[type].info.block_bytes;
    }
}

SM__AVX512 SM__INLINE void sm__tile_zmm(int type, int n_t, const uint8_t *panel, int n,
                                        int n_blocks, const sm__acts *a, int t, float *out,
                                        size_t out_stride) {
    out += (size_t)t * out_stride;
    if (sm__types[type].act_block == SM__QK_K)
        sm__tile_super_zmm(type, n_t, panel, n, n_blocks, a, t, out, out_stride);
    else sm__tile_block_zmm(type, n_t, panel, n, n_blocks, a, t, out, out_stride);
}

/* One row of a: 16 rows of w at a time, in place. More: panels in scratch. amx (a constant): by
 * tiles, which the caller has prepared. */
SM__AVX512 SM__INLINE void sm__matmul_quant_zmm(int type, int amx, const void *w, size_t w_stride,
                                                int n, int k, const sm__acts *a, int rows,
                                                float *out, size_t out_stride, void *scratch) {
    int is_super = sm__types[type].act_block == SM__QK_K, n_blocks = k / sm__types[type].act_block;
    int step = !amx && rows == 1 ? 16 : SM__PANEL_ROWS, o, m, t;
    size_t half = !is_super ? SM__PANEL_BLOCK : amx ? SM__PANEL_AMX : SM__PANEL_SUPER;
    size_t row_bytes = sm__row_bytes(type, (size_t)k);
    uint8_t *panel = (uint8_t *)scratch, *copy = panel + (size_t)n_blocks * 2 * half;
    uint8_t *spare = copy + SM__PANEL_ROWS * row_bytes;
    for (o = 0; o < n; o += step, out += step) {
        const uint8_t *row = (const uint8_t *)w + (size_t)o * w_stride;
        m = sm__min(step, n - o);
        if (m < step) {
            row = sm__pad_rows(row, w_stride, row_bytes, m, step, copy);
            w_stride = row_bytes;
        }
        if (!amx && rows == 1) {
            if (is_super) sm__gemv_super_zmm(type, row, w_stride, n_blocks, a, out, m);
            else sm__gemv_block_zmm(type, row, w_stride, n_blocks, a, out, m);
            continue;
        }
        sm__pack_zmm(type, amx, row, w_stride, n_blocks, panel, half, spare);
        sm__pack_zmm(type, amx, row + 16 * w_stride, w_stride, n_blocks, panel + half, half, spare);
#ifdef SM__HAS_AMX
        if (amx) { /* the copy is in the panel: its place is free */
            sm__panel__amx(type, panel, m, n_blocks, a, rows, out, out_stride, copy);
            continue;
        }
#endif
        for (t = 0; t + 6 <= rows; t += 6)
            sm__tile_zmm(type, 6, panel, m, n_blocks, a, t, out, out_stride);
        for (; t + 3 <= rows; t += 3)
            sm__tile_zmm(type, 3, panel, m, n_blocks, a, t, out, out_stride);
        for (; t < rows; t++) sm__tile_zmm(type, 1, panel, m, n_blocks, a, t, out, out_stride);
    }
}
SM__AVX512 static void sm__matmul_q8_0__avx512(const void *w, size_t w_stride, int n, int k,
                                             const sm__acts *a, int rows, float *out,
                                             size_t out_stride, void *scratch) {
    sm__matmul_quant_zmm(SM__T_Q8_0, 0, w, w_stride, n, k, a, rows, out, out_stride, scratch);
}
SM__AVX512 static void sm__matmul_q4_0__avx512(const void *w, size_t w_stride, int n, int k,
                                             const sm__acts *a, int rows, float *out,
                                             size_t out_stride, void *scratch) {
    sm__matmul_quant_zmm(SM__T_Q4_0, 0, w, w_stride, n, k, a, rows, out, out_stride, scratch);
}
SM__AVX512 static void sm__matmul_q4_k__avx512(const void *w, size_t w_stride, int n, int k,
                                             const sm__acts *a, int rows, float *out,
                                             size_t out_stride, void *scratch) {
    sm__matmul_quant_zmm(SM__T_Q4_K, 0, w, w_stride, n, k, a, rows, out, out_stride, scratch);
}
SM__AVX512 static void sm__matmul_q5_k__avx512(const void *w, size_t w_stride, int n, int k,
                                             const sm__acts *a, int rows, float *out,
                                             size_t out_stride, void *scratch) {
    sm__matmul_quant_zmm(SM__T_Q5_K, 0, w, w_stride, n, k, a, rows, out, out_stride, scratch);
}
SM__AVX512 static void sm__matmul_q6_k__avx512(const void *w, size_t w_stride, int n, int k,
                                             const sm__acts *a, int rows, float *out,
                                             size_t out_stride, void *scratch) {
    sm__matmul_quant_zmm(SM__T_Q6_K, 0, w, w_stride, n, k, a, rows, out, out_stride, scratch);
}

#ifdef SM__HAS_AMX
/* `few`: the same for few rows of a. */
SM__AMX SM__INLINE void sm__matmul_quant_amx(sm__matmul_fn few, int type, const void *w,
                                             size_t w_stride, int n, int k, const sm__acts *a,
                                             int rows, float *out, size_t out_stride,
                                             void *scratch) {
    if (rows < SM__ROWS_AMX) {
        few(w, w_stride, n, k, a, rows, out, out_stride, scratch);
        return;
    }
    sm__tiles_begin_amx(sm__tile_rows_amx(rows), sm__min(sm__types[type].act_block, 64));
    sm__matmul_quant_zmm(type, 1, w, w_stride, n, k, a, rows, out, out_stride, scratch);
    _tile_release();
}
SM__AMX static void sm__matmul_q8_0__amx(const void *w, size_t w_stride, int n, int k,
                                       const sm__acts *a, int rows, float *out, size_t out_stride,
                                       void *scratch) {
    sm__matmul_quant_amx(sm__matmul_q8_0__avx512, SM__T_Q8_0, w, w_stride, n, k, a, rows, out,
                         out_stride, scratch);
}
SM__AMX static void sm__matmul_q4_0__amx(const void *w, size_t w_stride, int n, int k,
                                       const sm__acts *a, int rows, float *out, size_t out_stride,
                                       void *scratch) {
    sm__matmul_quant_amx(sm__matmul_q4_0__avx512, SM__T_Q4_0, w, w_stride, n, k, a, rows, out,
                         out_stride, scratch);
}
SM__AMX static void sm__matmul_q4_k__amx(const void *w, size_t w_stride, int n, int k,
                                       const sm__acts *a, int rows, float *out, size_t out_stride,
                                       void *scratch) {
    sm__matmul_quant_amx(sm__matmul_q4_k__avx512, SM__T_Q4_K, w, w_stride, n, k, a, rows, out,
                         out_stride, scratch);
}
SM__AMX static void sm__matmul_q5_k__amx(const void *w, size_t w_stride, int n, int k,
                                       const sm__acts *a, int rows, float *out, size_t out_stride,
                                       void *scratch) {
    sm__matmul_quant_amx(sm__matmul_q5_k__avx512, SM__T_Q5_K, w, w_stride, n, k, a, rows, out,
                         out_stride, scratch);
}
SM__AMX static void sm__matmul_q6_k__amx(const void *w, size_t w_stride, int n, int k,
                                       const sm__acts *a, int rows, float *out, size_t out_stride,
                                       void *scratch) {
    sm__matmul_quant_amx(sm__matmul_q6_k__avx512, SM__T_Q6_K, w, w_stride, n, k, a, rows, out,
                         out_stride, scratch);
}
#endif
#endif

#ifdef SM__HAS_NEON
/* Four rows of block weights are worked on together, a row a lane. The signed products of bytes are
 * summed by pairs in 16 bits (2 * 128 * 127 fits) or, where the processor has it (ARMv8.2), by
 * sdot, four to a lane: as assembly, since compilers hide the intrinsic behind flags for the whole
 * file. clang's -O0 leaves sdot in branches never taken, of functions that may not have it, and
 * refuses them. smmla (ARMv8.6) multiplies 8 bytes of two rows with 8 bytes of two others. */
#if defined(__clang__) && defined(__OPTIMIZE__)
#define SM__HAS_DOTPROD 1
#define SM__DOTPROD SM__TARGET("dotprod")
#define SM__SDOT(acc, w, q) __asm__("sdot %0.4s, %1.16b, %2.16b" : "+w"(acc) : "w"(w), "w"(q))
/* Every lane of w times word `word` of q. */
#define SM__SDOT_WORD(acc, w, q, word)                                                             \
    __asm__("sdot %0.4s, %1.16b, %2.4b[" #word "]" : "+w"(acc) : "w"(w), "w"(q))
#if __clang_major__ >= 13
#define SM__HAS_I8MM 1
#define SM__I8MM SM__TARGET("dotprod,i8mm")
/* acc += row 0 of q times rows 0 and 1 of w, then row 1 of q times both; rows of 8 bytes. */
#define SM__SMMLA(acc, q, w) __asm__("smmla %0.4s, %1.16b, %2.16b" : "+w"(acc) : "w"(q), "w"(w))
#endif
#elif defined(__GNUC__) && !defined(__clang__)
/* GCC can only raise the whole architecture of a function, which then inlines nothing that was made
 * for another one; and assemblers refuse. So the instruction is put together from its bits, with
 * the numbers of the registers that GCC chose (operands print as v0 .. v31). */
#define SM__HAS_DOTPROD 1
#define SM__HAS_I8MM 1
#define SM__DOTPROD SM__UNUSED
#define SM__I8MM SM__UNUSED
#define SM__INST_BITS(bits)                                                                        \
    ".irp i,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31" \
    "\n\t.set .Lsm__v\\i, \\i\n\t.endr\n\t"                                                        \
    ".inst " bits " + .Lsm__%0 + (.Lsm__%1 << 5) + (.Lsm__%2 << 16)"
#define SM__SDOT(acc, w, q) __asm__(SM__INST_BITS("0x4e809400") : "+w"(acc) : "w"(w), "w"(q))
#define SM__SMMLA(acc, q, w) __asm__(SM__INST_BITS("0x4e80a400") : "+w"(acc) : "w"(q), "w"(w))
#define SM__SDOT_WORD(acc, w, q, word)                                                             \
    __asm__(SM__INST_BITS("0x4f80e000 + ((" #word " & 1) << 21) + ((" #word " >> 1) << 11)")       \
            : "+w"(acc) : "w"(w), "w"(q))
#endif

/* Word j of the four rows becomes v[j]. */
SM__INLINE void sm__transpose4_neon(int32x4_t v[4]) {
    int64x2_t a = vreinterpretq_s64_s32(vtrn1q_s32(v[0], v[1]));
    int64x2_t b = vreinterpretq_s64_s32(vtrn2q_s32(v[0], v[1]));
    int64x2_t c = vreinterpretq_s64_s32(vtrn1q_s32(v[2], v[3]));
    int64x2_t d = vreinterpretq_s64_s32(vtrn2q_s32(v[2], v[3]));
    v[0] = vreinterpretq_s32_s64(vtrn1q_s64(a, c));
    v[1] = vreinterpretq_s32_s64(vtrn1q_s64(b, d));
    v[2] = vreinterpretq_s32_s64(vtrn2q_s64(a, c));
    v[3] = vreinterpretq_s32_s64(vtrn2q_s64(b, d));
}

/* The first n lanes of v, at most 4. */
SM__INLINE void sm__store_neon(float *out, float32x4_t v, int n) {
    float lanes[4];
    int r;
    if (n >= 4) {
        vst1q_f32(out, v);
        return;
    }
    vst1q_f32(lanes, v);
    for (r = 0; r < n; r++) out[r] = lanes[r];
}

/* 32 weights of a block: elements 0 - 15 and 16 - 31. */
SM__INLINE void sm__load_block_neon(int type, const uint8_t *block, int8x16_t w[2]) {
    if (type == SM__T_Q8_0) {
        w[0] = vreinterpretq_s8_u8(vld1q_u8(block + 2));
        w[1] = vreinterpretq_s8_u8(vld1q_u8(block + 18));
    } else {
        uint8x16_t b = vld1q_u8(block + 2);
        w[0] = vsubq_s8(vreinterpretq_s8_u8(vandq_u8(b, vdupq_n_u8(15))), vdupq_n_s8(8));
        w[1] = vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(b, 4)), vdupq_n_s8(8));
    }
}

/* The scales of 4 rows. */
SM__INLINE float32x4_t sm__scales_neon(const uint8_t *const block[4]) {
    uint64_t d = 0;
    uint16_t h;
    int r;
    SM__UNROLL
    for (r = 0; r < 4; r++) {
        memcpy(&h, block[r], 2);
        d |= (uint64_t)h << (16 * r);
    }
    return vcvt_f32_f16(vreinterpret_f16_u64(vcreate_u64(d)));
}

/* 32 products as 4 partial sums. */
SM__INLINE int32x4_t sm__dot_block_neon(int dotprod, const int8x16_t w[2], const int8x16_t q[2]) {
    int16x8_t a, b;
#ifdef SM__HAS_DOTPROD
    if (dotprod) {
        int32x4_t sum = vdupq_n_s32(0);
        SM__SDOT(sum, w[0], q[0]);
        SM__SDOT(sum, w[1], q[1]);
        return sum;
    }
#endif
    (void)dotprod;
    a = vmull_s8(vget_low_s8(w[0]), vget_low_s8(q[0]));
    b = vmull_s8(vget_low_s8(w[1]), vget_low_s8(q[1]));
    a = vmlal_s8(a, vget_high_s8(w[0]), vget_high_s8(q[0]));
    b = vmlal_s8(b, vget_high_s8(w[1]), vget_high_s8(q[1]));
    return vpadalq_s16(vpaddlq_s16(a), b);
}

/* n_t (a constant) rows of a, from row t on, times n <= 4 rows of w, straight from the file's
 * blocks; the last one stands in for those that are absent. */
SM__INLINE void sm__tile_block_neon(int type, int dotprod, int n_t, const uint8_t *w,
                                    size_t w_stride, int n, int n_blocks, const sm__acts *a, int t,
                                    float *out, size_t out_stride) {
    size_t bytes = type == SM__T_Q8_0 ? 34 : 18;
    const int8_t *q = a->q + (size_t)t * a->q_stride;
    const float *d = a->d + (size_t)t * a->d_stride;
    const uint8_t *row[4];
    float32x4_t acc[4], scales;
    int b, i, r;
    for (r = 0; r < 4; r++) row[r] = w + (size_t)sm__min(r, n - 1) * w_stride;
    SM__UNROLL
    for (i = 0; i < n_t; i++) acc[i] = sm__zero_neon();
    for (b = 0; b < n_blocks; b++, q += SM__QK, d++) {
        int8x16_t v[4][2], y[2];
        int32x4_t s[4];
        scales = sm__scales_neon(row);
        SM__UNROLL
        for (r = 0; r < 4; r++, row[r - 1] += bytes) sm__load_block_neon(type, row[r], v[r]);
        SM__UNROLL
        for (i = 0; i < n_t; i++) {
            y[0] = vld1q_s8(q + (size_t)i * a->q_stride);
            y[1] = vld1q_s8(q + (size_t)i * a->q_stride + 16);
            SM__UNROLL
            for (r = 0; r < 4; r++) s[r] = sm__dot_block_neon(dotprod, v[r], y);
            s[0] = vpaddq_s32(vpaddq_s32(s[0], s[1]), vpaddq_s32(s[2], s[3]));
            acc[i] = sm__fma_neon(
                acc[i], vcvtq_f32_s32(s[0]),
                sm__mul_neon(scales, vdupq_n_f32(d[(size_t)i * a->d_stride])));
        }
    }
    SM__UNROLL
    for (i = 0; i < n_t; i++) sm__store_neon(out + (size_t)i * out_stride, acc[i], n);
}

/* A row or two of a share what is read of w. */
SM__INLINE void sm__matmul_block_neon(int type, int dotprod, const void *w, size_t w_stride, int n,
                                      int k, const sm__acts *a, int rows, float *out,
                                      size_t out_stride) {
    int o, t, n_blocks = k / SM__QK;
    for (o = 0; o < n; o += 4) {
        const uint8_t *row = (const uint8_t *)w + (size_t)o * w_stride;
        for (t = 0; t + 2 <= rows; t += 2)
            sm__tile_block_neon(type, dotprod, 2, row, w_stride, n - o, n_blocks, a, t,
                                out + (size_t)t * out_stride + o, out_stride);
        for (; t < rows; t++)
            sm__tile_block_neon(type, dotprod, 1, row, w_stride, n - o, n_blocks, a, t,
                                out + (size_t)t * out_stride + o, out_stride);
    }
}
static void sm__matmul_q8_0__neon(const void *w, size_t w_stride, int n, int k, const sm__acts *a,
                                  int rows, float *out, size_t out_stride, void *scratch) {
    (void)scratch;
    sm__matmul_block_neon(SM__T_Q8_0, 0, w, w_stride, n, k, a, rows, out, out_stride);
}
static void sm__matmul_q4_0__neon(const void *w, size_t w_stride, int n, int k, const sm__acts *a,
                                  int rows, float *out, size_t out_stride, void *scratch) {
    (void)scratch;
    sm__matmul_block_neon(SM__T_Q4_0, 0, w, w_stride, n, k, a, rows, out, out_stride);
}

#ifdef SM__HAS_DOTPROD
/* A panel is 8 rows of w rearranged for many rows of a: for each block, 8 pairs of registers (pair
 * j has bytes 4 j .. 4 j + 3 of rows 0 - 3 and of rows 4 - 7, a row a lane), then the 8 scales. The
 * sums come out a row a lane: nothing is added across. For smmla, pairs 2 j and 2 j + 1 have bytes
 * 8 j .. 8 j + 7 of rows 0 1, 4 5 and of rows 2 3, 6 7. */
#define SM__PANEL_BLOCK_NEON 288

/* 16 bytes of each of four rows become four registers of a panel. */
SM__INLINE void sm__arrange_neon(int i8mm, int32x4_t v[4]) {
    int64x2_t a = vreinterpretq_s64_s32(v[0]), b = vreinterpretq_s64_s32(v[1]);
    int64x2_t c = vreinterpretq_s64_s32(v[2]), d = vreinterpretq_s64_s32(v[3]);
    if (!i8mm) {
        sm__transpose4_neon(v);
        return;
    }
    v[0] = vreinterpretq_s32_s64(vzip1q_s64(a, b));
    v[1] = vreinterpretq_s32_s64(vzip1q_s64(c, d));
    v[2] = vreinterpretq_s32_s64(vzip2q_s64(a, b));
    v[3] = vreinterpretq_s32_s64(vzip2q_s64(c, d));
}

/* n <= 8 rows into a panel; the last one stands in for those that are absent. */
SM__INLINE void sm__pack_block_neon(int type, int i8mm, const uint8_t *w, size_t w_stride, int n,
                                    int n_blocks, int8_t *panel) {
    size_t bytes = type == SM__T_Q8_0 ? 34 : 18;
    const uint8_t *row[8];
    int b, g, r, i;
    for (r = 0; r < 8; r++) row[r] = w + (size_t)sm__min(r, n - 1) * w_stride;
    for (b = 0; b < n_blocks; b++, panel += SM__PANEL_BLOCK_NEON) {
        for (g = 0; g < 2; g++) {
            int32x4_t lo[4], hi[4];
            float32x4_t scales = sm__scales_neon(row + 4 * g);
            SM__UNROLL
            for (r = 0; r < 4; r++) {
                int8x16_t v[2];
                sm__load_block_neon(type, row[4 * g + r], v);
                lo[r] = vreinterpretq_s32_s8(v[0]);
                hi[r] = vreinterpretq_s32_s8(v[1]);
                row[4 * g + r] += bytes;
            }
            sm__arrange_neon(i8mm, lo);
            sm__arrange_neon(i8mm, hi);
            SM__UNROLL
            for (i = 0; i < 4; i++) {
                vst1q_s8(panel + 32 * i + 16 * g, vreinterpretq_s8_s32(lo[i]));
                vst1q_s8(panel + 32 * i + 16 * g + 128, vreinterpretq_s8_s32(hi[i]));
            }
            vst1q_s8(panel + 256 + 16 * g, vreinterpretq_s8_f32(scales));
        }
    }
}

/* sums [2] += word `word` of q times pair `word` of the panel's half p. */
#define SM__STEP(sums, p, q, word)                                                                 \
    SM__SDOT_WORD((sums)[0], vld1q_s8((p) + 32 * (word)), q, word);                                \
    SM__SDOT_WORD((sums)[1], vld1q_s8((p) + 32 * (word) + 16), q, word)

/* The sums of n_t (a constant) rows of a with 8 of w: s += 16 activations a row times 4 pairs of
 * the panel. With smmla, until sm__rows_neon, s[i] and s[i + 1] have both rows' sums, i even: those
 * with rows 0 1 (4 5) of w and those with rows 2 3 (6 7). */
SM__INLINE void sm__dot16_neon(int i8mm, int n_t, const int8_t *p, const int8_t *q, size_t q_stride,
                               int32x4_t s[4][2]) {
    int i, pairs = i8mm ? n_t : 0;
#ifdef SM__HAS_I8MM
    SM__UNROLL
    for (i = 0; i < pairs; i += 2) { /* an odd row is its own neighbour */
        int j = sm__min(i + 1, n_t - 1), g;
        int64x2_t a = vreinterpretq_s64_s8(vld1q_s8(q + (size_t)i * q_stride));
        int64x2_t b = vreinterpretq_s64_s8(vld1q_s8(q + (size_t)j * q_stride));
        int8x16_t lo = vreinterpretq_s8_s64(vzip1q_s64(a, b));
        int8x16_t hi = vreinterpretq_s8_s64(vzip2q_s64(a, b));
        SM__UNROLL
        for (g = 0; g < 2; g++) {
            SM__SMMLA(s[i][g], lo, vld1q_s8(p + 16 * g));
            SM__SMMLA(s[i + 1][g], lo, vld1q_s8(p + 16 * g + 32));
            SM__SMMLA(s[i][g], hi, vld1q_s8(p + 16 * g + 64));
            SM__SMMLA(s[i + 1][g], hi, vld1q_s8(p + 16 * g + 96));
        }
    }
#endif
    if (pairs) return;
    SM__UNROLL
    for (i = 0; i < n_t; i++) {
        int8x16_t y = vld1q_s8(q + (size_t)i * q_stride);
        SM__STEP(s[i], p, y, 0);
        SM__STEP(s[i], p, y, 1);
        SM__STEP(s[i], p, y, 2);
        SM__STEP(s[i], p, y, 3);
    }
}
#undef SM__STEP

/* s[i] becomes the sums of row i, a row of w a lane. */
SM__INLINE void sm__rows_neon(int i8mm, int n_t, int32x4_t s[4][2]) {
    int i, g, pairs = i8mm ? n_t : 0;
    SM__UNROLL
    for (i = 0; i < pairs; i += 2) {
        SM__UNROLL
        for (g = 0; g < 2; g++) {
            int64x2_t a = vreinterpretq_s64_s32(s[i][g]), b = vreinterpretq_s64_s32(s[i + 1][g]);
            s[i][g] = vreinterpretq_s32_s64(vzip1q_s64(a, b));
            s[i + 1][g] = vreinterpretq_s32_s64(vzip2q_s64(a, b));
        }
    }
}

/* n_t (a constant) rows of a, from row t on, times a panel of n rows. */
SM__INLINE void sm__tile_panel_neon(int i8mm, int n_t, const int8_t *panel, int n, int n_blocks,
                                    const sm__acts *a, int t, float *out, size_t out_stride) {
    const int8_t *q = a->q + (size_t)t * a->q_stride;
    const float *d = a->d + (size_t)t * a->d_stride;
    float32x4_t acc[4][2], scales[2], y;
    float sums[8];
    int b, i, g, r;
    SM__UNROLL
    for (i = 0; i < n_t; i++) acc[i][0] = acc[i][1] = sm__zero_neon();
    for (b = 0; b < n_blocks; b++, panel += SM__PANEL_BLOCK_NEON, q += SM__QK, d++) {
        int32x4_t s[4][2];
        SM__UNROLL
        for (i = 0; i < 4; i++) s[i][0] = s[i][1] = vdupq_n_s32(0);
        sm__dot16_neon(i8mm, n_t, panel, q, a->q_stride, s);
        sm__dot16_neon(i8mm, n_t, panel + 128, q + 16, a->q_stride, s);
        sm__rows_neon(i8mm, n_t, s);
        scales[0] = vreinterpretq_f32_s8(vld1q_s8(panel + 256));
        scales[1] = vreinterpretq_f32_s8(vld1q_s8(panel + 272));
        SM__UNROLL
        for (i = 0; i < n_t; i++) {
            y = vdupq_n_f32(d[(size_t)i * a->d_stride]);
            SM__UNROLL
            for (g = 0; g < 2; g++) {
                float32x4_t both = sm__mul_neon(scales[g], y);
                acc[i][g] = sm__fma_neon(acc[i][g], vcvtq_f32_s32(s[i][g]), both);
            }
        }
    }
    SM__UNROLL
    for (i = 0; i < n_t; i++, out += out_stride) {
        vst1q_f32(sums, acc[i][0]);
        vst1q_f32(sums + 4, acc[i][1]);
        for (r = 0; r < n; r++) out[r] = sums[r];
    }
}

/* Few rows of a: straight from the blocks. More: from a panel, four at a time. */
SM__INLINE void sm__matmul_dotprod_neon(int type, int i8mm, const void *w, size_t w_stride, int n,
                                        int k, const sm__acts *a, int rows, float *out,
                                        size_t out_stride, void *scratch) {
    int8_t *panel = (int8_t *)scratch;
    int o, t, n_blocks = k / SM__QK;
    if (rows < 4) {
        sm__matmul_block_neon(type, 1, w, w_stride, n, k, a, rows, out, out_stride);
        return;
    }
    for (o = 0; o < n; o += 8) {
        int m = sm__min(8, n - o);
        sm__pack_block_neon(type, i8mm, (const uint8_t *)w + (size_t)o * w_stride, w_stride, m,
                            n_blocks, panel);
        for (t = 0; t + 4 <= rows; t += 4)
            sm__tile_panel_neon(i8mm, 4, panel, m, n_blocks, a, t,
                                out + (size_t)t * out_stride + o, out_stride);
        for (; t < rows; t++)
            sm__tile_panel_neon(i8mm, 1, panel, m, n_blocks, a, t,
                                out + (size_t)t * out_stride + o, out_stride);
    }
}
SM__DOTPROD static void sm__matmul_q8_0__dotprod(const void *w, size_t w_stride, int n, int k,
                                                 const sm__acts *a, int rows, float *out,
                                                 size_t out_stride, void *scratch) {
    sm__matmul_dotprod_neon(SM__T_Q8_0, 0, w, w_stride, n, k, a, rows, out, out_stride, scratch);
}
SM__DOTPROD static void sm__matmul_q4_0__dotprod(const void *w, size_t w_stride, int n, int k,
                                                 const sm__acts *a, int rows, float *out,
                                                 size_t out_stride, void *scratch) {
    sm__matmul_dotprod_neon(SM__T_Q4_0, 0, w, w_stride, n, k, a, rows, out, out_stride, scratch);
}
#ifdef SM__HAS_I8MM
SM__I8MM static void sm__matmul_q8_0__i8mm(const void *w, size_t w_stride, int n, int k,
                                           const sm__acts *a, int rows, float *out,
                                           size_t out_stride, void *scratch) {
    sm__matmul_dotprod_neon(SM__T_Q8_0, 1, w, w_stride, n, k, a, rows, out, out_stride, scratch);
}
SM__I8MM static void sm__matmul_q4_0__i8mm(const void *w, size_t w_stride, int n, int k,
                                           const sm__acts *a, int rows, float *out,
                                           size_t out_stride, void *scratch) {
    sm__matmul_dotprod_neon(SM__T_Q4_0, 1, w, w_stride, n, k, a, rows, out, out_stride, scratch);
}
#endif
#endif

/* --- K-quants: as above, with the sums of a superblock in integers; weights enter signed ---- */

/* What four rows' superblocks have besides weights, a row a lane. Q4_K and Q5_K have 8 scales, Q6_K
 * has 16 and neither m nor dmin. */
typedef struct sm__head_neon {
    int32_t sc[16][4];
    int16_t m[8][4];
    float d[4], dmin[4];
} sm__head_neon;

/* Byte i of each lane, sign-extended. */
SM__INLINE int32x4_t sm__byte_neon(int32x4_t v, int i) {
    return vshrq_n_s32(vshlq_s32(v, vdupq_n_s32(24 - 8 * i)), 24);
}

/* The first 16 bytes of four superblocks of Q4_K or Q5_K, word j of each in v[j]: d and dmin, and
 * the 6-bit scales, which become v[0] (sub-blocks 0 - 3) and v[1], a byte each. */
SM__INLINE void sm__head_q4_q5_neon(int32x4_t v[4], sm__head_neon *head) {
    uint8x16_t a = vreinterpretq_u8_s32(v[1]), b = vreinterpretq_u8_s32(v[2]);
    uint8x16_t c = vreinterpretq_u8_s32(v[3]), six = vdupq_n_u8(63), top = vdupq_n_u8(48);
    uint32x4_t both = vreinterpretq_u32_s32(v[0]);
    int32x4_t m[2];
    int j;
    vst1q_f32(head->d, vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32(both))));
    vst1q_f32(head->dmin, vcvt_f32_f16(vreinterpret_f16_u16(vshrn_n_u32(both, 16))));
    m[0] = vreinterpretq_s32_u8(vandq_u8(b, six));
    b = vorrq_u8(vandq_u8(vshrq_n_u8(b, 2), top), vshrq_n_u8(c, 4));
    m[1] = vreinterpretq_s32_u8(b);
    SM__UNROLL
    for (j = 0; j < 8; j++) vst1_s16(head->m[j], vmovn_s32(sm__byte_neon(m[j / 4], j % 4)));
    v[0] = vreinterpretq_s32_u8(vandq_u8(a, six));
    a = vorrq_u8(vandq_u8(vshrq_n_u8(a, 2), top), vandq_u8(c, vdupq_n_u8(15)));
    v[1] = vreinterpretq_s32_u8(a);
}

SM__INLINE void sm__head_super_neon(int type, const uint8_t *const block[4], sm__head_neon *head) {
    const uint8_t *end[4];
    int32x4_t v[4];
    int n = type == SM__T_Q6_K ? 16 : 8, r, j;
    SM__UNROLL
    for (r = 0; r < 4; r++)
        v[r] = vreinterpretq_s32_u8(vld1q_u8(block[r] + (type == SM__T_Q6_K ? 192 : 0)));
    sm__transpose4_neon(v);
    if (type == SM__T_Q6_K) {
        for (r = 0; r < 4; r++) end[r] = block[r] + 208;
        vst1q_f32(head->d, sm__scales_neon(end));
    } else sm__head_q4_q5_neon(v, head);
    SM__UNROLL
    for (j = 0; j < n; j++) vst1q_s32(head->sc[j], sm__byte_neon(v[j / 4], j % 4));
}

/* Chunk c (0 .. 3) of a superblock: what the low and the high nibbles of q bytes 32 c .. 32 c + 31
 * belong to, 32 elements each, from here on. */
SM__INLINE int sm__chunk_neon(int type, int c, int high) {
    if (type != SM__T_Q6_K) return 64 * c + 32 * high;
    return 128 * (c / 2) + 32 * (c % 2) + 64 * high;
}

/* A chunk's weights: of the low nibbles w[0] and w[1], of the high ones w[2] and w[3]. The bits
 * that belong above a nibble are brought to bit 0 of their bytes and inserted from bit 4 on. */
SM__INLINE void sm__load_super_neon(int type, const uint8_t *block, int c, int8x16_t w[4]) {
    const uint8_t *q = block + (type == SM__T_Q4_K ? 16 : type == SM__T_Q5_K ? 48 : 0) + 32 * c;
    const uint8_t *high = block + (type == SM__T_Q5_K ? 16 : 128 + 32 * (c / 2));
    int down = type == SM__T_Q5_K ? 2 * c : 2 * (c % 2), h;
    int8x16_t lo_down = vdupq_n_s8((int8_t)-down);
    int8x16_t hi_down = vdupq_n_s8((int8_t)(-down - (type == SM__T_Q5_K ? 1 : 4)));
    uint8x16_t mask = vdupq_n_u8(type == SM__T_Q4_K ? 15 : type == SM__T_Q5_K ? 31 : 63);
    SM__UNROLL
    for (h = 0; h < 2; h++) {
        uint8x16_t lo = vld1q_u8(q + 16 * h), hi = vshrq_n_u8(lo, 4), up;
        if (type != SM__T_Q4_K) {
            up = vld1q_u8(high + 16 * h);
            lo = vsliq_n_u8(lo, vshlq_u8(up, lo_down), 4);
            hi = vandq_u8(vsliq_n_u8(hi, vshlq_u8(up, hi_down), 4), mask);
        }
        w[h] = vreinterpretq_s8_u8(vandq_u8(lo, mask));
        w[h + 2] = vreinterpretq_s8_u8(hi);
        if (type == SM__T_Q6_K) {
            w[h] = vsubq_s8(w[h], vdupq_n_s8(32));
            w[h + 2] = vsubq_s8(w[h + 2], vdupq_n_s8(32));
        }
    }
}

/* n (1 or 2) registers, from number `at` on, of each of 4 rows times those of y: a row a lane. In
 * 16 bits 8 * 31 * 127 fits, and 4 * 32 * 127 where n is 1. */
SM__INLINE int32x4_t sm__dot_rows_neon(int dotprod, int n, int8x16_t w[4][4], const int8x16_t *y,
                                       int at) {
    int16x8_t p[4];
    int r;
#ifdef SM__HAS_DOTPROD
    if (dotprod) {
        int32x4_t s[4];
        SM__UNROLL
        for (r = 0; r < 4; r++) {
            s[r] = vdupq_n_s32(0);
            SM__SDOT(s[r], w[r][at], y[at]);
            if (n == 2) SM__SDOT(s[r], w[r][at + 1], y[at + 1]);
        }
        return vpaddq_s32(vpaddq_s32(s[0], s[1]), vpaddq_s32(s[2], s[3]));
    }
#endif
    (void)dotprod;
    SM__UNROLL
    for (r = 0; r < 4; r++) {
        p[r] = vmull_s8(vget_low_s8(w[r][at]), vget_low_s8(y[at]));
        p[r] = vmlal_s8(p[r], vget_high_s8(w[r][at]), vget_high_s8(y[at]));
        if (n == 1) continue;
        p[r] = vmlal_s8(p[r], vget_low_s8(w[r][at + 1]), vget_low_s8(y[at + 1]));
        p[r] = vmlal_s8(p[r], vget_high_s8(w[r][at + 1]), vget_high_s8(y[at + 1]));
    }
    p[0] = vpaddq_s16(p[0], p[1]);
    p[2] = vpaddq_s16(p[2], p[3]);
    return vpaddq_s32(vpaddlq_s16(p[0]), vpaddlq_s16(p[2]));
}

/* isum += chunk c of 4 rows times a superblock of activations. */
SM__INLINE int32x4_t sm__dot_chunk_neon(int type, int dotprod, int8x16_t w[4][4], const int8_t *q,
                                        int c, const sm__head_neon *head, int32x4_t isum) {
    int n = type == SM__T_Q6_K ? 1 : 2, h;
    int8x16_t y[4];
    SM__UNROLL
    for (h = 0; h < 2; h++) {
        int from = sm__chunk_neon(type, c, h), sub = from / (16 * n);
        int32x4_t dot;
        y[2 * h] = vld1q_s8(q + from);
        y[2 * h + 1] = vld1q_s8(q + from + 16);
        dot = sm__dot_rows_neon(dotprod, n, w, y, 2 * h);
        isum = vmlaq_s32(isum, dot, vld1q_s32(head->sc[sub]));
        if (n == 2) continue;
        dot = sm__dot_rows_neon(dotprod, n, w, y, 2 * h + 1);
        isum = vmlaq_s32(isum, dot, vld1q_s32(head->sc[sub + 1]));
    }
    return isum;
}

/* acc, when the sum isum of a superblock is known and d is the scale of its activations. */
SM__INLINE float32x4_t sm__add_super_neon(int type, float32x4_t acc, int32x4_t isum,
                                          const sm__head_neon *head, const int16_t *s, float d) {
    int32x4_t msum = vdupq_n_s32(0);
    float32x4_t y = vdupq_n_f32(d);
    int16x8_t sums;
    acc = sm__fma_neon(acc, vcvtq_f32_s32(isum), sm__mul_neon(vld1q_f32(head->d), y));
    if (type == SM__T_Q6_K) return acc;
    sums = vpaddq_s16(vld1q_s16(s), vld1q_s16(s + 8)); /* of 32 */
#define SM__MINIMUM(j) msum = vmlal_laneq_s16(msum, vld1_s16(head->m[j]), sums, j)
    SM__MINIMUM(0);
    SM__MINIMUM(1);
    SM__MINIMUM(2);
    SM__MINIMUM(3);
    SM__MINIMUM(4);
    SM__MINIMUM(5);
    SM__MINIMUM(6);
    SM__MINIMUM(7);
#undef SM__MINIMUM
    y = sm__mul_neon(vld1q_f32(head->dmin), y);
    return sm__fma_neon(acc, sm__negate_neon(vcvtq_f32_s32(msum)), y);
}

/* n_t (a constant) rows of a, from row t on, times n <= 4 rows of w, straight from the file's
 * superblocks; the last one stands in for those that are absent. */
SM__INLINE void sm__tile_super_neon(int type, int dotprod, int n_t, const uint8_t *w,
                                    size_t w_stride, int n, int n_blocks, const sm__acts *a, int t,
                                    float *out, size_t out_stride) {
    size_t bytes = (size_t)sm__types[type].info.block_bytes;
    const int8_t *q = a->q + (size_t)t * a->q_stride;
    const int16_t *s = a->s + (size_t)t * a->s_stride;
    const float *d = a->d + (size_t)t * a->d_stride;
    const uint8_t *row[4];
    sm__head_neon head;
    float32x4_t acc[4];
    int b, c, i, r;
    for (r = 0; r < 4; r++) row[r] = w + (size_t)sm__min(r, n - 1) * w_stride;
    SM__UNROLL
    for (i = 0; i < n_t; i++) acc[i] = sm__zero_neon();
    for (b = 0; b < n_blocks; b++, q += SM__QK_K, s += SM__QK_K / 16, d++) {
        int32x4_t isum[4];
        SM__UNROLL
        for (i = 0; i < n_t; i++) isum[i] = vdupq_n_s32(0);
        sm__head_super_neon(type, row, &head);
        for (c = 0; c < 4; c++) {
            int8x16_t v[4][4];
            SM__UNROLL
            for (r = 0; r < 4; r++) sm__load_super_neon(type, row[r], c, v[r]);
            SM__UNROLL
            for (i = 0; i < n_t; i++)
                isum[i] = sm__dot_chunk_neon(type, dotprod, v, q + (size_t)i * a->q_stride, c,
                                             &head, isum[i]);
        }
        SM__UNROLL
        for (i = 0; i < n_t; i++)
            acc[i] = sm__add_super_neon(type, acc[i], isum[i], &head, s + (size_t)i * a->s_stride,
                                        d[(size_t)i * a->d_stride]);
        SM__UNROLL
        for (r = 0; r < 4; r++) row[r] += bytes;
    }
    SM__UNROLL
    for (i = 0; i < n_t; i++) sm__store_neon(out + (size_t)i * out_stride, acc[i], n);
}

/* Without sdot there are no panels: then four rows of a share what is read of w. */
SM__INLINE void sm__matmul_super_neon(int type, int dotprod, const void *w, size_t w_stride, int n,
                                      int k, const sm__acts *a, int rows, float *out,
                                      size_t out_stride) {
    int o, t, n_blocks = k / SM__QK_K;
    for (o = 0; o < n; o += 4, out += 4) {
        const uint8_t *row = (const uint8_t *)w + (size_t)o * w_stride;
        for (t = 0; !dotprod && t + 4 <= rows; t += 4)
            sm__tile_super_neon(type, dotprod, 4, row, w_stride, n - o, n_blocks, a, t,
                                out + (size_t)t * out_stride, out_stride);
        for (; t + 2 <= rows; t += 2)
            sm__tile_super_neon(type, dotprod, 2, row, w_stride, n - o, n_blocks, a, t,
                                out + (size_t)t * out_stride, out_stride);
        if (t < rows)
            sm__tile_super_neon(type, dotprod, 1, row, w_stride, n - o, n_blocks, a, t,
                                out + (size_t)t * out_stride, out_stride);
    }
}
static void sm__matmul_q4_k__neon(const void *w, size_t w_stride, int n, int k, const sm__acts *a,
                                  int rows, float *out, size_t out_stride, void *scratch) {
    (void)scratch;
    sm__matmul_super_neon(SM__T_Q4_K, 0, w, w_stride, n, k, a, rows, out, out_stride);
}
static void sm__matmul_q5_k__neon(const void *w, size_t w_stride, int n, int k, const sm__acts *a,
                                  int rows, float *out, size_t out_stride, void *scratch) {
    (void)scratch;
    sm__matmul_super_neon(SM__T_Q5_K, 0, w, w_stride, n, k, a, rows, out, out_stride);
}
static void sm__matmul_q6_k__neon(const void *w, size_t w_stride, int n, int k, const sm__acts *a,
                                  int rows, float *out, size_t out_stride, void *scratch) {
    (void)scratch;
    sm__matmul_super_neon(SM__T_Q6_K, 0, w, w_stride, n, k, a, rows, out, out_stride);
}

#ifdef SM__HAS_DOTPROD
/* A superblock of a panel: 64 pairs of registers, as of the blocks above, and the two heads. */
typedef struct sm__panel_neon {
    int8_t q[SM__QK_K / 4][32];
    sm__head_neon head[2];
} sm__panel_neon;

/* n <= 8 rows into a panel; the last one stands in for those that are absent. */
SM__INLINE void sm__pack_super_neon(int type, int i8mm, const uint8_t *w, size_t w_stride, int n,
                                    int n_blocks, sm__panel_neon *panel) {
    size_t bytes = (size_t)sm__types[type].info.block_bytes;
    const uint8_t *row[8];
    int b, g, c, j, r;
    for (r = 0; r < 8; r++) row[r] = w + (size_t)sm__min(r, n - 1) * w_stride;
    for (b = 0; b < n_blocks; b++, panel++) {
        for (g = 0; g < 2; g++) {
            sm__head_super_neon(type, row + 4 * g, &panel->head[g]);
            for (c = 0; c < 4; c++) {
                int8x16_t v[4][4];
                SM__UNROLL
                for (r = 0; r < 4; r++) sm__load_super_neon(type, row[4 * g + r], c, v[r]);
                SM__UNROLL
                for (j = 0; j < 4; j++) {
                    int word = (sm__chunk_neon(type, c, j / 2) + j % 2 * 16) / 4;
                    int32x4_t four[4];
                    SM__UNROLL
                    for (r = 0; r < 4; r++) four[r] = vreinterpretq_s32_s8(v[r][j]);
                    sm__arrange_neon(i8mm, four);
                    SM__UNROLL
                    for (r = 0; r < 4; r++)
                        vst1q_s8(&panel->q[word + r][16 * g], vreinterpretq_s8_s32(four[r]));
                }
            }
        }
        for (r = 0; r < 8; r++) row[r] += bytes;
    }
}

/* isum += a superblock of 8 rows times those of n_t rows of activations; `run` registers of 16
 * activations have a scale in common. */
SM__INLINE void sm__dot_panel_neon(int type, int i8mm, int n_t, const sm__panel_neon *panel,
                                   const int8_t *q, size_t q_stride, int32x4_t isum[4][2]) {
    int run = type == SM__T_Q6_K ? 1 : 2, i, j, h;
    for (j = 0; j < 16; j += run) {
        int32x4_t s[4][2], lo = vld1q_s32(panel->head[0].sc[j / run]);
        int32x4_t hi = vld1q_s32(panel->head[1].sc[j / run]);
        SM__UNROLL
        for (i = 0; i < 4; i++) s[i][0] = s[i][1] = vdupq_n_s32(0);
        SM__UNROLL
        for (h = j; h < j + run; h++)
            sm__dot16_neon(i8mm, n_t, panel->q[4 * h], q + 16 * h, q_stride, s);
        sm__rows_neon(i8mm, n_t, s);
        SM__UNROLL
        for (i = 0; i < n_t; i++) {
            isum[i][0] = vmlaq_s32(isum[i][0], s[i][0], lo);
            isum[i][1] = vmlaq_s32(isum[i][1], s[i][1], hi);
        }
    }
}

/* n_t (a constant) rows of a, from row t on, times a panel of n rows. */
SM__INLINE void sm__tile_super_panel_neon(int type, int i8mm, int n_t, const sm__panel_neon *panel,
                                          int n, int n_blocks, const sm__acts *a, int t, float *out,
                                          size_t out_stride) {
    const int8_t *q = a->q + (size_t)t * a->q_stride;
    const int16_t *s = a->s + (size_t)t * a->s_stride;
    const float *d = a->d + (size_t)t * a->d_stride;
    float32x4_t acc[4][2];
    int b, i, g;
    SM__UNROLL
    for (i = 0; i < n_t; i++) acc[i][0] = acc[i][1] = sm__zero_neon();
    for (b = 0; b < n_blocks; b++, panel++, q += SM__QK_K, s += SM__QK_K / 16, d++) {
        int32x4_t isum[4][2];
        SM__UNROLL
        for (i = 0; i < n_t; i++) isum[i][0] = isum[i][1] = vdupq_n_s32(0);
        sm__dot_panel_neon(type, i8mm, n_t, panel, q, a->q_stride, isum);
        SM__UNROLL
        for (i = 0; i < n_t; i++) {
            SM__UNROLL
            for (g = 0; g < 2; g++)
                acc[i][g] = sm__add_super_neon(type, acc[i][g], isum[i][g], &panel->head[g],
                                               s + (size_t)i * a->s_stride,
                                               d[(size_t)i * a->d_stride]);
        }
    }
    SM__UNROLL
    for (i = 0; i < n_t; i++, out += out_stride) {
        sm__store_neon(out, acc[i][0], n);
        if (n > 4) sm__store_neon(out + 4, acc[i][1], n - 4);
    }
}

/* Few rows of a: straight from the superblocks. More: from a panel, four at a time. */
SM__INLINE void sm__matmul_super_dotprod_neon(int type, int i8mm, const void *w, size_t w_stride,
                                              int n, int k, const sm__acts *a, int rows, float *out,
                                              size_t out_stride, void *scratch) {
    sm__panel_neon *panel = (sm__panel_neon *)scratch;
    int o, t, n_blocks = k / SM__QK_K;
    if (rows < 4) {
        sm__matmul_super_neon(type, 1, w, w_stride, n, k, a, rows, out, out_stride);
        return;
    }
    for (o = 0; o < n; o += 8, out += 8) {
        int m = sm__min(8, n - o);
        sm__pack_super_neon(type, i8mm, (const uint8_t *)w + (size_t)o * w_stride, w_stride, m,
                            n_blocks, panel);
        for (t = 0; t + 4 <= rows; t += 4)
            sm__tile_super_panel_neon(type, i8mm, 4, panel, m, n_blocks, a, t,
                                      out + (size_t)t * out_stride, out_stride);
        for (; t < rows; t++)
            sm__tile_super_panel_neon(type, i8mm, 1, panel, m, n_blocks, a, t,
                                      out + (size_t)t * out_stride, out_stride);
    }
}
SM__DOTPROD static void sm__matmul_q4_k__dotprod(const void *w, size_t w_stride, int n, int k,
                                                 const sm__acts *a, int rows, float *out,
                                                 size_t out_stride, void *scratch) {
    sm__matmul_super_dotprod_neon(SM__T_Q4_K, 0, w, w_stride, n, k, a, rows, out, out_stride,
                                  scratch);
}
SM__DOTPROD static void sm__matmul_q5_k__dotprod(const void *w, size_t w_stride, int n, int k,
                                                 const sm__acts *a, int rows, float *out,
                                                 size_t out_stride, void *scratch) {
    sm__matmul_super_dotprod_neon(SM__T_Q5_K, 0, w, w_stride, n, k, a, rows, out, out_stride,
                                  scratch);
}
SM__DOTPROD static void sm__matmul_q6_k__dotprod(const void *w, size_t w_stride, int n, int k,
                                                 const sm__acts *a, int rows, float *out,
                                                 size_t out_stride, void *scratch) {
    sm__matmul_super_dotprod_neon(SM__T_Q6_K, 0, w, w_stride, n, k, a, rows, out, out_stride,
                                  scratch);
}
#ifdef SM__HAS_I8MM
SM__I8MM static void sm__matmul_q4_k__i8mm(const void *w, size_t w_stride, int n, int k,
                                           const sm__acts *a, int rows, float *out,
                                           size_t out_stride, void *scratch) {
    sm__matmul_super_dotprod_neon(SM__T_Q4_K, 1, w, w_stride, n, k, a, rows, out, out_stride,
                                  scratch);
}
SM__I8MM static void sm__matmul_q5_k__i8mm(const void *w, size_t w_stride, int n, int k,
                                           const sm__acts *a, int rows, float *out,
                                           size_t out_stride, void *scratch) {
    sm__matmul_super_dotprod_neon(SM__T_Q5_K, 1, w, w_stride, n, k, a, rows, out, out_stride,
                                  scratch);
}
SM__I8MM static void sm__matmul_q6_k__i8mm(const void *w, size_t w_stride, int n, int k,
                                           const sm__acts *a, int rows, float *out,
                                           size_t out_stride, void *scratch) {
    sm__matmul_super_dotprod_neon(SM__T_Q6_K, 1, w, w_stride, n, k, a, rows, out, out_stride,
                                  scratch);
}
#endif
#endif
#endif

/* --- soft_cap --------------------------------------------------------------------------------- */

/* soft_cap: x = cap * tanh(scale * x / cap), as fma(-2 cap, 1 / (1 + exp(x * (2 scale / cap))),
 * cap). |got - exact| <= 8 * 2^-24 * cap. */
static void sm__soft_cap__scalar(float *x, float scale, float cap, int n) {
    float k = sm__div(2.0f * scale, cap);
    int i;
    for (i = 0; i < n; i++)
        x[i] = sm__fma(-2.0f * cap, sm__div(1.0f, 1.0f + sm__exp(x[i] * k)), cap);
}

#ifdef SM__HAS_SSE41
SM__SSE41 static void sm__soft_cap__sse41(float *x, float scale, float cap, int n) {
    __m128 one = _mm_set1_ps(1.0f), k = _mm_set1_ps(sm__div(2.0f * scale, cap)), e;
    int i;
    for (i = 0; i + 4 <= n; i += 4) {
        e = sm__add_xmm(one, sm__exp_xmm(sm__mul_xmm(_mm_loadu_ps(x + i), k)));
        e = sm__fma_xmm(_mm_set1_ps(-2.0f * cap), sm__div_xmm(one, e), _mm_set1_ps(cap));
        _mm_storeu_ps(x + i, e);
    }
    sm__soft_cap__scalar(x + i, scale, cap, n - i);
}
#endif

#ifdef SM__HAS_AVX2
SM__AVX2 static void sm__soft_cap__avx2(float *x, float scale, float cap, int n) {
    __m256 one = _mm256_set1_ps(1.0f), k = _mm256_set1_ps(sm__div(2.0f * scale, cap)), e;
    int i;
    for (i = 0; i + 8 <= n; i += 8) {
        e = sm__add_ymm(one, sm__exp_ymm(sm__mul_ymm(_mm256_loadu_ps(x + i), k)));
        e = _mm256_fmadd_ps(_mm256_set1_ps(-2.0f * cap), sm__div_ymm(one, e), _mm256_set1_ps(cap));
        _mm256_storeu_ps(x + i, e);
    }
    sm__soft_cap__scalar(x + i, scale, cap, n - i);
}
#endif

#ifdef SM__HAS_AVX512
SM__AVX512 static void sm__soft_cap__avx512(float *x, float scale, float cap, int n) {
    __m512 one = _mm512_set1_ps(1.0f), k = _mm512_set1_ps(sm__div(2.0f * scale, cap)), e;
    int i;
    for (i = 0; i < n; i += 16) {
        __mmask16 m = sm__mask_zmm(n - i);
        e = sm__exp_zmm(sm__mul_zmm(_mm512_maskz_loadu_ps(m, x + i), k));
        e = sm__div_zmm(one, sm__add_zmm(one, e));
        e = _mm512_fmadd_ps(_mm512_set1_ps(-2.0f * cap), e, _mm512_set1_ps(cap));
        _mm512_mask_storeu_ps(x + i, m, e);
    }
}
#endif

#ifdef SM__HAS_NEON
static void sm__soft_cap__neon(float *x, float scale, float cap, int n) {
    float32x4_t one = vdupq_n_f32(1.0f), k = vdupq_n_f32(sm__div(2.0f * scale, cap)), e;
    int i;
    for (i = 0; i + 4 <= n; i += 4) {
        e = sm__add_neon(one, sm__exp_neon(sm__mul_neon(vld1q_f32(x + i), k)));
        e = sm__fma_neon(vdupq_n_f32(cap), vdupq_n_f32(-2.0f * cap), sm__div_neon(one, e));
        vst1q_f32(x + i, e);
    }
    sm__soft_cap__scalar(x + i, scale, cap, n - i);
}
#endif

/* --- attend, merge ---------------------------------------------------------------------------- */

/* attend: softmax(q k^T * scale) v over one part, not normalised (Dao et al. 2022,
 * arXiv:2205.14135). attend_keys:
 *   score[j] = (chain over d of fma(q[d], k[d][j], .) from +0) * scale, first <= j < n_keys;
 *              with a cap soft_cap(chain, scale, cap)
 *   m = the largest score (NaN is skipped; -inf if there is none; a zero is +0);
 *   p[j] = exp(score[j] - m); s = sum of p[j] by 16 lanes
 * attend_values:
 *   o[d] = chain over j of fma(p[j], v[j][d], .) from +0
 * Q8_0 and Q4_0, with scales for each group g of 32 elements:
 *   score[j] = (chain over g of fma(part_g[j], k_scale[g][j], .) from +0) * scale,
 *   part_g[j] = chain over d of group g of fma(q[d], (float)k[d][j], .) from +0
 *   o[d] = chain over j of fma(p[j] * v_scale[j][d / 32], (float)v[j][d], .) from +0
 * Keys at or beyond n_keys do not take part, whatever the memory holds. Those before `first` have
 * the weight 0: they must hold finite values. The kernels' bodies take the type as a constant. */
#define SM__BY_KV_TYPE(type, f, ...)                         \
    switch (type) {                                          \
    case SM__T_F32: f(SM__T_F32, __VA_ARGS__); break;        \
    case SM__T_F16: f(SM__T_F16, __VA_ARGS__); break;        \
    case SM__T_BF16: f(SM__T_BF16, __VA_ARGS__); break;      \
    case SM__T_Q8_0: f(SM__T_Q8_0, __VA_ARGS__); break;      \
    default: f(SM__T_Q4_0, __VA_ARGS__);                     \
    }

SM__INLINE int sm__kv_scaled(int type) { return type == SM__T_Q8_0 || type == SM__T_Q4_0; }
/* Bytes of an element; of Q4_0, of two. */
SM__INLINE size_t sm__kv_unit(int type) {
    return type == SM__T_F32 ? 4 : sm__kv_scaled(type) ? 1 : 2;
}
/* Where element d of all keys, and of a value, is. Of Q4_0 in the low or, where d & 1 or d & 16 is
 * not 0, in the high half of the bytes. */
SM__INLINE size_t sm__kv_key(int type, int d) {
    return (size_t)(type == SM__T_Q4_0 ? d / 2 : d) * sm__kv_unit(type) * SM__KV_BLOCK;
}
SM__INLINE size_t sm__kv_value(int type, int d) {
    return type == SM__T_Q4_0 ? (size_t)(d / 32 * 16 + d % 16) : (size_t)d * sm__kv_unit(type);
}
/* The scales behind the elements of a block. */
SM__INLINE const uint8_t *sm__kv_scales(int type, const void *block, int head_dim) {
    return (const uint8_t *)block + sm__kv_value(type, head_dim) * SM__KV_BLOCK;
}

/* An element; of Q8_0 and Q4_0 without its scale. */
static float sm__kv_element(int type, const uint8_t *p, int high) {
    float x;
    if (type == SM__T_Q8_0) return (float)(int8_t)*p;
    if (type == SM__T_Q4_0) return (float)(((*p >> (high ? 4 : 0) & 15) ^ 8) - 8);
    sm__types[type].decode(p, &x, 1);
    return x;
}

static void sm__attend_scores__scalar(const sm__attend_args *a, int i, float *p) {
    float m = -SM__INFINITY, lanes[16] = {0};
    int j, first = a->first ? a->first[i] : 0;
    if (a->cap != 0.0f) sm__soft_cap__scalar(p, a->scale, a->cap, a->n_keys[i]);
    for (j = 0; j < first; j++) p[j] = 0.0f;
    for (; j < a->n_keys[i]; j++) {
        if (a->cap == 0.0f) p[j] *= a->scale;
        if (p[j] > m) m = p[j];
    }
    for (j = first; j < a->n_keys[i]; j++) {
        p[j] = sm__exp(p[j] - m);
        lanes[j & 15] += p[j];
    }
    a->m[i] = m = m + 0.0f;
    a->s[i] = sm__tree16(lanes);
}

static void sm__attend_keys__scalar(int type, const sm__attend_args *a) {
    int scaled = sm__kv_scaled(type), group = scaled ? SM__QK : a->head_dim, i, j, d, end;
    for (i = 0; i < a->n_q; i++) {
        float *p = a->scores + (size_t)i * SM__PART;
        for (j = 0; j < a->n_keys[i]; j++) {
            const uint8_t *block = (const uint8_t *)a->keys[j / SM__KV_BLOCK];
            const uint8_t *k = block + (size_t)(j % SM__KV_BLOCK) * sm__kv_unit(type);
            const uint8_t *scale = sm__kv_scales(type, block, a->head_dim) + j % SM__KV_BLOCK * 2;
            for (p[j] = 0.0f, d = 0; d < a->head_dim; scale += SM__KV_BLOCK * 2) {
                float part = 0.0f;
                for (end = d + group; d < end; d++)
                    part = sm__fma(a->q[i][d],
                                   sm__kv_element(type, k + sm__kv_key(type, d), d & 1), part);
                p[j] = scaled ? sm__fma(part, sm__f16_to_f32(sm__load_u16(scale)), p[j]) : part;
            }
        }
        sm__attend_scores__scalar(a, i, p);
    }
}

/* Element d of an output row. */
static float sm__attend_value(int type, const sm__attend_args *a, int i, int d) {
    const float *p = a->scores + (size_t)i * SM__PART;
    float sum = 0.0f;
    int j;
    SM__KEEP(sum);
    for (j = 0; j < a->n_keys[i]; j++) {
        const uint8_t *block = (const uint8_t *)a->values[j / SM__KV_BLOCK], *v = block;
        const uint8_t *scale = sm__kv_scales(type, block, a->head_dim);
        float weight = p[j];
        v += (size_t)(j % SM__KV_BLOCK) * sm__kv_value(type, a->head_dim) + sm__kv_value(type, d);
        scale += (j % SM__KV_BLOCK * (a->head_dim / SM__QK) + d / SM__QK) * 2;
        if (sm__kv_scaled(type)) weight *= sm__f16_to_f32(sm__load_u16(scale));
        sum = sm__fma(weight, sm__kv_element(type, v, d & 16), sum);
    }
    return sum;
}

static void sm__attend_values__scalar(int type, const sm__attend_args *a) {
    int i, d;
    for (i = 0; i < a->n_q; i++)
        for (d = 0; d < a->head_dim; d++) a->o[i][d] = sm__attend_value(type, a, i, d);
}

/* merge: adds a part to the running (m, s, o [n]); parts come in order (Milakov and Gimelshein
 * 2018, arXiv:1805.02867). M = larger of the two m; x = exp(m - M), y = exp(part_m - M);
 * s = fma(part_s, y, s * x); o[d] = fma(part_o[d], y, o[d] * x). */
static void sm__merge__scalar(float *m, float *s, float *o, float part_m, float part_s,
                              const float *part_o, int n) {
    float largest = part_m > *m ? part_m : *m;
    float x = sm__exp(*m - largest), y = sm__exp(part_m - largest);
    int d;
    *s = sm__fma(part_s, y, *s * x);
    for (d = 0; d < n; d++) o[d] = sm__fma(part_o[d], y, o[d] * x);
    *m = largest;
}

/* Query rows that a kernel takes at once when so many are left: 4, 3, 2 or 1. */
SM__INLINE int sm__attend_turn(int left) { return left == 4 || left > 6 ? 4 : sm__min(left, 3); }

/* The last head_dim % 4 or 8 elements of an output row (none of Q8_0 and Q4_0). */
SM__UNUSED static void sm__attend_rest(int type, const sm__attend_args *a, int i, int d) {
    for (; d < a->head_dim; d++) a->o[i][d] = sm__attend_value(type, a, i, d);
}

#ifdef SM__HAS_SSE41
/* Lanes first .. n as a mask. */
SM__SSE41 SM__INLINE __m128 sm__seen_xmm(int first, int n) {
    __m128i lane = _mm_setr_epi32(0, 1, 2, 3);
    __m128i before = _mm_cmpgt_epi32(_mm_set1_epi32(first), lane);
    return _mm_castsi128_ps(_mm_andnot_si128(before, _mm_cmpgt_epi32(_mm_set1_epi32(n), lane)));
}

/* score to weight for one row, as sm__attend_scores__avx2. */
SM__SSE41 static void sm__attend_scores__sse41(const sm__attend_args *a, int i, float *p) {
    __m128 none = _mm_set1_ps(-SM__INFINITY), top = none, v;
    float lanes[16] = {0}, m = -SM__INFINITY;
    int n = a->n_keys[i], first = a->first ? a->first[i] : 0, j;
    float scale = a->scale;
    if (a->cap != 0.0f) sm__soft_cap__sse41(p, scale, a->cap, n), scale = 1.0f;
    for (j = 0; j < n; j += 4) {
        v = sm__mul_xmm(_mm_load_ps(p + j), _mm_set1_ps(scale));
        _mm_store_ps(p + j, v);
        v = _mm_blendv_ps(none, sm__no_nan_xmm(v), sm__seen_xmm(first - j, n - j));
        top = _mm_max_ps(top, v);
    }
    _mm_storeu_ps(lanes, top);
    for (j = 0; j < 4; j++) m = lanes[j] > m ? lanes[j] : m;
    a->m[i] = m = m + 0.0f;
    memset(lanes, 0, sizeof lanes);
    for (j = 0; j < n; j += 4) {
        v = sm__exp_xmm(sm__sub_xmm(_mm_load_ps(p + j), _mm_set1_ps(m)));
        v = _mm_and_ps(v, sm__seen_xmm(first - j, n - j));
        _mm_store_ps(p + j, v);
        _mm_storeu_ps(lanes + j % 16, sm__add_xmm(_mm_loadu_ps(lanes + j % 16), v));
    }
    a->s[i] = sm__tree_xmm(lanes);
}

/* A float in all four places, widened. */
SM__SSE41 SM__INLINE sm__wide sm__widen1(float x) {
    sm__wide w;
    w.lo = w.hi = _mm_cvtps_pd(_mm_set1_ps(x));
    return w;
}

/* 4 elements of the cache as floats, as sm__kv_load_ymm. */
SM__SSE41 SM__INLINE __m128 sm__kv_load_xmm(int type, const uint8_t *p, int high) {
    __m128i v;
    if (type != SM__T_Q4_0) return sm__load_xmm(type, p);
    v = _mm_cvtepi8_epi32(_mm_cvtsi32_si128(sm__load_i32(p)));
    return _mm_cvtepi32_ps(_mm_srai_epi32(_mm_slli_epi32(v, high ? 24 : 28), 28));
}

/* n_q query rows from row i on, times the first n keys of a block, of which key 0 is key j of the
 * part. As in matmul, the sums live in memory: as scores, or, where there are scales, in part until
 * a group is complete. */
SM__SSE41 SM__INLINE void sm__attend_keys_xmm(int type, int n_q, const sm__attend_args *a, int i,
                                              int j, int n) {
    int scaled = sm__kv_scaled(type), step = scaled ? SM__KV_BLOCK : SM__PART, d, c, r;
    const uint8_t *k = (const uint8_t *)a->keys[j / SM__KV_BLOCK];
    const uint8_t *scale = sm__kv_scales(type, k, a->head_dim);
    float *p = a->scores + i * SM__PART + j;
    float part[SM__ROWS_XMM * SM__KV_BLOCK], *sum = scaled ? part : p;
    for (r = 0; r < n_q; r++) memset(p + r * SM__PART, 0, SM__KV_BLOCK * sizeof *p);
    for (d = 0; d < a->head_dim; d++) {
        const uint8_t *row = k + sm__kv_key(type, d);
        sm__wide q[SM__ROWS_XMM];
        for (r = 0; r < n_q; r++) q[r] = sm__widen1(a->q[i + r][d]);
        if (scaled && d % SM__QK == 0) memset(part, 0, sizeof part);
        for (c = 0; c < n; c += 4, row += 4 * sm__kv_unit(type)) {
            sm__wide v = sm__widen(sm__kv_load_xmm(type, row, d & 1));
            for (r = 0; r < n_q; r++) {
                float *to = sum + r * step + c;
                _mm_storeu_ps(to, sm__fma_few(q[r], v, _mm_loadu_ps(to), scaled));
            }
        }
        if (!scaled || d % SM__QK != SM__QK - 1) continue;
        for (c = 0; c < n; c += 4) {
            sm__wide v = sm__widen(sm__load_xmm(SM__T_F16, scale + 2 * c));
            for (r = 0; r < n_q; r++) {
                sm__wide sums = sm__widen(_mm_loadu_ps(part + r * step + c));
                float *to = p + r * SM__PART + c;
                _mm_storeu_ps(to, sm__fma_wide(sums, v, _mm_loadu_ps(to)));
            }
        }
        scale += SM__KV_BLOCK * 2;
    }
}

/* The weights of n_q rows times the value of key j, which those rows see that have more keys. */
SM__SSE41 SM__INLINE void sm__attend_value_xmm(int type, int n_q, const sm__attend_args *a, int i,
                                               int j) {
    int dim = a->head_dim, lane = j % SM__KV_BLOCK, scaled = sm__kv_scaled(type), d, r;
    const uint8_t *v = (const uint8_t *)a->values[j / SM__KV_BLOCK];
    const uint8_t *scale = sm__kv_scales(type, v, dim) + lane * (dim / SM__QK) * 2;
    const float *p = a->scores + i * SM__PART + j;
    sm__wide weight[SM__ROWS_XMM];
    v += (size_t)lane * sm__kv_value(type, dim);
    for (d = 0; d + 4 <= dim; d += 4) {
        sm__wide y = sm__widen(sm__kv_load_xmm(type, v + sm__kv_value(type, d), d & 16));
        if (d == 0 || (scaled && d % SM__QK == 0)) {
            float unit = scaled ? sm__f16_to_f32(sm__load_u16(scale + d / SM__QK * 2)) : 1.0f;
            for (r = 0; r < n_q; r++) weight[r] = sm__widen1(p[r * SM__PART] * unit);
        }
        for (r = 0; r < n_q; r++) {
            float *o = a->o[i + r] + d;
            if (j < a->n_keys[i + r])
                _mm_storeu_ps(o, sm__fma_few(weight[r], y, _mm_loadu_ps(o), scaled));
        }
    }
}

SM__SSE41 SM__INLINE void sm__attend_xmm(int type, const sm__attend_args *a, int values) {
    int i, j, r, n_q, n;
    for (i = 0; i < a->n_q; i += n_q) {
        n_q = sm__min(a->n_q - i, SM__ROWS_XMM);
        for (r = n = 0; r < n_q; r++) n = sm__max(n, a->n_keys[i + r]);
        for (j = 0; !values && j < n; j += SM__KV_BLOCK)
            sm__attend_keys_xmm(type, n_q, a, i, j, sm__min(n - j, SM__KV_BLOCK));
        for (r = 0; r < n_q; r++) {
            if (!values) sm__attend_scores__sse41(a, i + r, a->scores + (i + r) * SM__PART);
            else memset(a->o[i + r], 0, (size_t)a->head_dim * sizeof **a->o);
        }
        for (j = 0; values && j < n; j++) sm__attend_value_xmm(type, n_q, a, i, j);
        for (r = 0; values && r < n_q; r++)
            sm__attend_rest(type, a, i + r, a->head_dim / 4 * 4);
    }
}
SM__SSE41 static void sm__attend_keys__sse41(int type, const sm__attend_args *a) {
    SM__BY_KV_TYPE(type, sm__attend_xmm, a, 0)
}
SM__SSE41 static void sm__attend_values__sse41(int type, const sm__attend_args *a) {
    SM__BY_KV_TYPE(type, sm__attend_xmm, a, 1)
}
#endif

#ifdef SM__HAS_AVX2
/* The first n lanes (all 8, none) as a mask. */
SM__AVX2 SM__INLINE __m256 sm__mask_ymm(int n) {
    __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane));
}

/* Lanes first .. n as a mask. */
SM__AVX2 SM__INLINE __m256 sm__seen_ymm(int first, int n) {
    return _mm256_andnot_ps(sm__mask_ymm(first), sm__mask_ymm(n));
}

/* score to weight for one row: p [n, padded to 16] in place. Fills m and s. Meanwhile `bytes` bytes
 * for each 16 keys are prefetched. */
SM__AVX2 static void sm__attend_scores__avx2(const sm__attend_args *a, int i, float *p,
                                             const char *ahead, size_t bytes) {
    __m256 none = _mm256_set1_ps(-SM__INFINITY), top = none, sum[2], v;
    float lanes[8], m = -SM__INFINITY;
    int n = a->n_keys[i], first = a->first ? a->first[i] : 0, j, h;
    float scale = a->scale;
    if (a->cap != 0.0f) sm__soft_cap__avx2(p, scale, a->cap, n), scale = 1.0f;
    for (j = 0; j < n; j += 8) {
        v = sm__mul_ymm(_mm256_load_ps(p + j), _mm256_set1_ps(scale));
        _mm256_store_ps(p + j, v);
        v = _mm256_blendv_ps(none, sm__no_nan_ymm(v), sm__seen_ymm(first - j, n - j));
        top = _mm256_max_ps(top, v);
    }
    _mm256_storeu_ps(lanes, top);
    for (j = 0; j < 8; j++) m = lanes[j] > m ? lanes[j] : m;
    a->m[i] = m = m + 0.0f;
    sum[0] = sum[1] = sm__zero_ymm();
    for (j = 0; j < n; j += 16, ahead += bytes)
        for (h = 0; h < 2; h++) {
            size_t at;
            for (at = h ? 64 : 0; at < bytes; at += 128) _mm_prefetch(ahead + at, _MM_HINT_T0);
            v = sm__sub_ymm(_mm256_load_ps(p + j + 8 * h), _mm256_set1_ps(m));
            v = _mm256_and_ps(sm__exp_ymm(v), sm__seen_ymm(first - j - 8 * h, n - j - 8 * h));
            _mm256_store_ps(p + j + 8 * h, v);
            sum[h] = sm__add_ymm(sum[h], v);
        }
    a->s[i] = sm__tree_ymm(sm__add_ymm(sum[0], sum[1]));
}

/* 8 elements of the cache as floats, of Q8_0 and Q4_0 without their scale; of Q4_0 those in the low
 * or in the high halves of 8 bytes. */
SM__AVX2 SM__INLINE __m256 sm__kv_load_ymm(int type, const uint8_t *p, int high) {
    __m256i v;
    if (type != SM__T_Q4_0) return sm__load_ymm(type, p);
    v = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
    return _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(v, high ? 24 : 28), 28));
}

/* The sums of a group become scores, which join those of the groups before it at p. */
SM__AVX2 SM__INLINE void sm__join_ymm(__m256 *acc, int n, const uint8_t *scale, const float *p,
                                      int joins) {
    int c;
    SM__UNROLL
    for (c = 0; c < n; c++)
        acc[c] = _mm256_fmadd_ps(acc[c], sm__load_ymm(SM__T_F16, scale + 16 * c),
                                 joins ? _mm256_load_ps(p + 8 * c) : sm__zero_ymm());
}

/* The scale of a value in all lanes. */
SM__AVX2 SM__INLINE __m256 sm__scale_ymm(const uint8_t *scale) {
    int16_t h;
    memcpy(&h, scale, 2);
    return _mm256_cvtph_ps(_mm_set1_epi16(h));
}

/* n_q (a constant) query rows from row i on, times 8 n_k (a constant) of the keys, from key j on.
 * For each element of the keys read, as many bytes are prefetched from `ahead` on. */
SM__AVX2 SM__INLINE void sm__attend_keys_ymm(int type, int n_q, int n_k, const sm__attend_args *a,
                                             int i, int j, const char *ahead) {
    size_t wide = 8 * sm__kv_unit(type), x;
    const uint8_t *k = (const uint8_t *)a->keys[j / SM__KV_BLOCK];
    const uint8_t *scale = sm__kv_scales(type, k, a->head_dim) + j % SM__KV_BLOCK * 2;
    int group = sm__kv_scaled(type) ? SM__QK : a->head_dim, d = 0, end, r, c, h;
    int halves = type == SM__T_Q4_0 ? 2 : 1; /* elements d and d + 1 share bytes */
    __m256 acc[4][4], v, q[4];
    k += (size_t)(j % SM__KV_BLOCK) * sm__kv_unit(type);
    for (end = group; d < a->head_dim; end += group, scale += SM__KV_BLOCK * 2) {
        SM__UNROLL
        for (r = 0; r < n_q; r++) {
            SM__UNROLL
            for (c = 0; c < n_k; c++) acc[r][c] = sm__zero_ymm();
        }
        for (; d < end; d += halves, k += 8 * wide, ahead += wide * (size_t)n_k) {
            for (x = 0; x < wide * (size_t)n_k; x += 64) _mm_prefetch(ahead + x, _MM_HINT_T0);
            SM__UNROLL
            for (h = 0; h < halves; h++) {
                SM__UNROLL
                for (r = 0; r < n_q; r++) q[r] = _mm256_set1_ps(a->q[i + r][d + h]);
                SM__UNROLL
                for (c = 0; c < n_k; c++) {
                    v = sm__kv_load_ymm(type, k + (size_t)c * wide, h);
                    SM__PIN(v);
                    SM__UNROLL
                    for (r = 0; r < n_q; r++) acc[r][c] = _mm256_fmadd_ps(q[r], v, acc[r][c]);
                }
            }
        }
        SM__UNROLL
        for (r = 0; r < n_q; r++) {
            float *p = a->scores + (i + r) * SM__PART + j;
            if (sm__kv_scaled(type)) sm__join_ymm(acc[r], n_k, scale, p, end > group);
            SM__UNROLL
            for (c = 0; c < n_k; c++) _mm256_store_ps(p + 8 * c, acc[r][c]);
        }
    }
}

/* acc [n_q][n_c] += weights of keys first .. last of one block times elements d .. of their values;
 * n_q and n_c are constants. */
SM__AVX2 SM__INLINE void sm__attend_sum_ymm(int type, int n_q, int n_c, const sm__attend_args *a,
                                            int i, int first, int last, int d, __m256 acc[][4],
                                            const char *ahead) {
    size_t stride = sm__kv_value(type, a->head_dim), bytes = 8 * sm__kv_unit(type) * (size_t)n_c, x;
    size_t groups = (size_t)a->head_dim / SM__QK, lane = (size_t)(first % SM__KV_BLOCK);
    const void *block = a->values[sm__min(first / SM__KV_BLOCK, 3)];
    const uint8_t *row = (const uint8_t *)block + lane * stride + sm__kv_value(type, d);
    const uint8_t *scale = sm__kv_scales(type, block, a->head_dim);
    const float *p = a->scores + i * SM__PART;
    __m256 v, weight[4], unit = sm__zero_ymm();
    int j, r, c;
    if (type == SM__T_Q4_0) bytes /= 2;
    scale += (lane * groups + (size_t)d / SM__QK) * 2;
    for (j = first; j < last; j++, row += stride, scale += groups * 2, ahead += bytes) {
        for (x = 0; x < bytes; x += 64) _mm_prefetch(ahead + x, _MM_HINT_T0);
        if (sm__kv_scaled(type)) unit = sm__scale_ymm(scale);
        SM__UNROLL
        for (r = 0; r < n_q; r++) {
            weight[r] = _mm256_set1_ps(p[r * SM__PART + j]);
            if (sm__kv_scaled(type)) weight[r] = sm__mul_ymm(weight[r], unit);
        }
        SM__UNROLL
        for (c = 0; c < n_c; c++) { /* a value at a time: 16 registers are enough */
            v = sm__kv_load_ymm(type, row + sm__kv_value(type, 8 * c), (n_c < 4 ? d : 8 * c) & 16);
            SM__PIN(v);
            SM__UNROLL
            for (r = 0; r < n_q; r++) acc[r][c] = _mm256_fmadd_ps(weight[r], v, acc[r][c]);
        }
    }
}

/* What the keys first .. last add to 8 n_c elements of one output row, in place. */
SM__AVX2 SM__INLINE void sm__attend_alone_ymm(int type, int n_c, const sm__attend_args *a, int i,
                                              int first, int last, int d) {
    __m256 acc[1][4];
    float *o = a->o[i] + d;
    int c;
    SM__UNROLL
    for (c = 0; c < n_c; c++) acc[0][c] = _mm256_loadu_ps(o + 8 * c);
    sm__attend_sum_ymm(type, 1, n_c, a, i, first, last, d, acc, (const char *)a->next);
    SM__UNROLL
    for (c = 0; c < n_c; c++) _mm256_storeu_ps(o + 8 * c, acc[0][c]);
}

/* Each of n_q rows goes on alone to its own last key: elements d .. d + n. */
SM__AVX2 static void sm__attend_tails__avx2(int type, const sm__attend_args *a, int i, int n_q,
                                            int first, int d, int n) {
    int r, c, last;
    for (r = i; r < i + n_q; r++) {
        last = sm__min(a->n_keys[r], (first / SM__KV_BLOCK + 1) * SM__KV_BLOCK);
        for (c = d; first < last && c < d + n; c += 8) {
            SM__BY_KV_TYPE(type, sm__attend_alone_ymm, 1, a, r, first, last, c)
        }
    }
}

/* What a block of values adds to elements d .. d + 8 n_c of the output rows: keys that all rows see
 * share their loads, then each row goes on alone to its own last key. */
SM__AVX2 SM__INLINE void sm__attend_values_ymm(int type, int n_q, int n_c,
                                               const sm__attend_args *a, int i, int d, int block,
                                               const char *ahead) {
    __m256 acc[4][4];
    int first = block * SM__KV_BLOCK, common = first + SM__KV_BLOCK, r, c;
    ahead += sm__kv_value(type, d) * SM__KV_BLOCK;
    SM__UNROLL
    for (r = 0; r < n_q; r++) {
        common = sm__min(common, sm__max(first, a->n_keys[i + r]));
        SM__UNROLL
        for (c = 0; c < n_c; c++)
            acc[r][c] = block ? _mm256_loadu_ps(a->o[i + r] + d + 8 * c) : sm__zero_ymm();
    }
    sm__attend_sum_ymm(type, n_q, n_c, a, i, first, common, d, acc, ahead);
    SM__UNROLL
    for (r = 0; r < n_q; r++) {
        SM__UNROLL
        for (c = 0; c < n_c; c++) _mm256_storeu_ps(a->o[i + r] + d + 8 * c, acc[r][c]);
    }
    if (n_q > 1 && common < first + SM__KV_BLOCK)
        sm__attend_tails__avx2(type, a, i, n_q, common, d, 8 * n_c);
}

/* n_q (a constant) rows together; three of them leave registers for 32 keys, or elements, at once:
 * whole cache lines of halves. While a block is worked on, one that is wanted later comes: the next
 * one for keys, and one more, during the scores, before the values. */
SM__AVX2 SM__INLINE void sm__attend_key_rows_ymm(int type, int n_q, const sm__attend_args *a,
                                                 int i, int blocks, int n) {
    size_t token = sm__kv_value(type, a->head_dim), part = SM__KV_BLOCK * token / (size_t)n_q;
    int wide = n_q > 3 ? 2 : 4, block, r;
    for (block = 0; block < blocks; block++) {
        const char *ahead = (const char *)(block + 1 < blocks ? a->keys[block + 1] : a->values[0]);
        int j = block * SM__KV_BLOCK, end = sm__min(n, j + SM__KV_BLOCK);
        for (; j < end; j += 8 * wide, ahead += token * 8 * (size_t)wide)
            sm__attend_keys_ymm(type, n_q, wide, a, i, j, ahead);
    }
    for (r = 0; r < n_q; r++) {
        const char *ahead = (const char *)(blocks > 1 ? a->values[1] : a->next);
        sm__attend_scores__avx2(a, i + r, a->scores + (i + r) * SM__PART, ahead + r * (int)part,
                                part / 16);
    }
}

SM__AVX2 SM__INLINE void sm__attend_value_rows_ymm(int type, int n_q, const sm__attend_args *a,
                                                   int i, int blocks) {
    int block, r, d = 0;
    for (block = 0; block < blocks; block++) {
        const char *ahead = (const char *)(block + 2 < blocks ? a->values[block + 2] : a->next);
        d = 0;
        if (n_q <= 3)
            for (; d + 32 <= a->head_dim; d += 32)
                sm__attend_values_ymm(type, n_q, 4, a, i, d, block, ahead);
        for (; d + 16 <= a->head_dim; d += 16)
            sm__attend_values_ymm(type, n_q, 2, a, i, d, block, ahead);
        for (; !sm__kv_scaled(type) && d + 8 <= a->head_dim; d += 8)
            sm__attend_values_ymm(type, n_q, 1, a, i, d, block, ahead);
    }
    for (r = 0; !sm__kv_scaled(type) && r < n_q; r++) sm__attend_rest(type, a, i + r, d);
}

SM__AVX2 SM__INLINE void sm__attend_rows_ymm(int type, int n_q, const sm__attend_args *a, int i,
                                             int values) {
    int n = 0, r, blocks;
    for (r = 0; r < n_q; r++) n = sm__max(n, a->n_keys[i + r]);
    blocks = (n + SM__KV_BLOCK - 1) / SM__KV_BLOCK;
    if (values) sm__attend_value_rows_ymm(type, n_q, a, i, blocks);
    else sm__attend_key_rows_ymm(type, n_q, a, i, blocks, n);
}

SM__AVX2 SM__INLINE void sm__attend_ymm(int type, const sm__attend_args *a, int values) {
    int i, n;
    for (i = 0; i < a->n_q; i += n) {
        n = sm__attend_turn(a->n_q - i);
        if (n == 4) sm__attend_rows_ymm(type, 4, a, i, values);
        else if (n == 3) sm__attend_rows_ymm(type, 3, a, i, values);
        else if (n == 2) sm__attend_rows_ymm(type, 2, a, i, values);
        else sm__attend_rows_ymm(type, 1, a, i, values);
    }
}
SM__AVX2 static void sm__attend_keys__avx2(int type, const sm__attend_args *a) {
    SM__BY_KV_TYPE(type, sm__attend_ymm, a, 0)
}
SM__AVX2 static void sm__attend_values__avx2(int type, const sm__attend_args *a) {
    SM__BY_KV_TYPE(type, sm__attend_ymm, a, 1)
}

/* merge's x and y in all lanes; m and s are updated. Both exponentials in one register: the scalar
 * one, whose fma is emulated here, would take longer than all the rest. */
SM__AVX2 SM__INLINE void sm__merge_weights_ymm(float *m, float *s, float part_m, float part_s,
                                               __m256 *x, __m256 *y) {
    float largest = part_m > *m ? part_m : *m;
    __m128 e = _mm256_castps256_ps128(sm__exp_ymm(
        _mm256_setr_ps(*m - largest, part_m - largest, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f)));
    *x = _mm256_broadcastss_ps(e);
    *y = _mm256_broadcastss_ps(_mm_movehdup_ps(e));
    *s = _mm256_cvtss_f32(
        _mm256_fmadd_ps(_mm256_set1_ps(part_s), *y, sm__mul_ymm(_mm256_set1_ps(*s), *x)));
    *m = largest;
}

SM__AVX2 static void sm__merge__avx2(float *m, float *s, float *o, float part_m, float part_s,
                                     const float *part_o, int n) {
    __m256 x, y;
    int d;
    sm__merge_weights_ymm(m, s, part_m, part_s, &x, &y);
    for (d = 0; d + 8 <= n; d += 8) {
        __m256 old = sm__mul_ymm(_mm256_loadu_ps(o + d), x);
        _mm256_storeu_ps(o + d, _mm256_fmadd_ps(_mm256_loadu_ps(part_o + d), y, old));
    }
    for (; d < n; d++)
        o[d] = sm__fma(part_o[d], _mm256_cvtss_f32(y), o[d] * _mm256_cvtss_f32(x));
}
#endif

#ifdef SM__HAS_AVX512
/* Lanes first .. n as a mask. */
SM__AVX512 SM__INLINE __mmask16 sm__seen_zmm(int first, int n) {
    return (__mmask16)(sm__mask_zmm(n) & ~sm__mask_zmm(sm__max(first, 0)));
}

/* score to weight for one row: p [n, padded to 16] in place. Fills m and s. */
SM__AVX512 static void sm__attend_scores__avx512(const sm__attend_args *a, int i, float *p) {
    int n = a->n_keys[i], first = a->first ? a->first[i] : 0, j;
    __m512 top = _mm512_set1_ps(-SM__INFINITY), sum = sm__zero_zmm(), v;
    float scale = a->scale;
    if (a->cap != 0.0f) sm__soft_cap__avx512(p, scale, a->cap, n), scale = 1.0f;
    for (j = 0; j < n; j += 16) {
        v = sm__mul_zmm(_mm512_load_ps(p + j), _mm512_set1_ps(scale));
        _mm512_store_ps(p + j, v);
        top = _mm512_mask_max_ps(top, sm__seen_zmm(first - j, n - j), top, sm__no_nan_zmm(v));
    }
    a->m[i] = _mm512_reduce_max_ps(top) + 0.0f;
    for (j = 0; j < n; j += 16) {
        v = sm__exp_zmm(sm__sub_zmm(_mm512_load_ps(p + j), _mm512_set1_ps(a->m[i])));
        v = _mm512_maskz_mov_ps(sm__seen_zmm(first - j, n - j), v);
        _mm512_store_ps(p + j, v);
        sum = sm__add_zmm(sum, v);
    }
    a->s[i] = sm__tree_zmm(sum);
}

/* 16 elements of the cache as floats, as sm__kv_load_ymm. */
SM__AVX512 SM__INLINE __m512 sm__kv_load_zmm(int type, const uint8_t *p, int high) {
    __m512 numbers = _mm512_setr_ps(0.0f, 1.0f, 2.0f, 3.0f, 4.0f, 5.0f, 6.0f, 7.0f, -8.0f, -7.0f,
                                    -6.0f, -5.0f, -4.0f, -3.0f, -2.0f, -1.0f);
    __m512i v;
    if (type != SM__T_Q4_0) return sm__load_zmm(type, p);
    v = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    if (high) v = _mm512_srli_epi32(v, 4);
    return _mm512_permutexvar_ps(v, numbers); /* by the low four bits */
}

/* As sm__join_ymm: 64 scores. */
SM__AVX512 SM__INLINE void sm__join_zmm(__m512 acc[4], const uint8_t *scale, const float *p,
                                        int joins) {
    int c;
    SM__UNROLL
    for (c = 0; c < 4; c++)
        acc[c] = _mm512_fmadd_ps(acc[c], sm__load_zmm(SM__T_F16, scale + 32 * c),
                                 joins ? _mm512_load_ps(p + 16 * c) : sm__zero_zmm());
}

/* The scale of a value in all lanes. */
SM__AVX512 SM__INLINE __m512 sm__scale_zmm(const uint8_t *scale) {
    int16_t h;
    memcpy(&h, scale, 2);
    return _mm512_cvtph_ps(_mm256_set1_epi16(h));
}

/* n_q (a constant) query rows from row i on, times one block of 64 keys: 64 scores each. */
SM__AVX512 SM__INLINE void sm__attend_keys_zmm(int type, int n_q, const sm__attend_args *a, int i,
                                               int block) {
    size_t wide = 16 * sm__kv_unit(type);
    const uint8_t *k = (const uint8_t *)a->keys[block];
    const uint8_t *scale = sm__kv_scales(type, k, a->head_dim);
    int group = sm__kv_scaled(type) ? SM__QK : a->head_dim, d = 0, end, r, c, h;
    int halves = type == SM__T_Q4_0 ? 2 : 1; /* elements d and d + 1 share bytes */
    __m512 acc[4][4], v[4], q;
    for (end = group; d < a->head_dim; end += group, scale += SM__KV_BLOCK * 2) {
        SM__UNROLL
        for (r = 0; r < n_q; r++) {
            SM__UNROLL
            for (c = 0; c < 4; c++) acc[r][c] = sm__zero_zmm();
        }
        for (; d < end; d += halves, k += 4 * wide) {
            SM__UNROLL
            for (h = 0; h < halves; h++) {
                SM__UNROLL
                for (c = 0; c < 4; c++) v[c] = sm__kv_load_zmm(type, k + (size_t)c * wide, h);
                SM__UNROLL
                for (r = 0; r < n_q; r++) {
                    q = _mm512_set1_ps(a->q[i + r][d + h]);
                    SM__UNROLL
                    for (c = 0; c < 4; c++) acc[r][c] = _mm512_fmadd_ps(q, v[c], acc[r][c]);
                }
            }
        }
        SM__UNROLL
        for (r = 0; r < n_q; r++) {
            float *p = a->scores + (i + r) * SM__PART + block * SM__KV_BLOCK;
            if (sm__kv_scaled(type)) sm__join_zmm(acc[r], scale, p, end > group);
            SM__UNROLL
            for (c = 0; c < 4; c++) _mm512_store_ps(p + 16 * c, acc[r][c]);
        }
    }
}

/* acc [n_q][n_c] += weights of keys first .. last times elements d .. of their values; n_q and n_c
 * are constants, m masks the last register. */
SM__AVX512 SM__INLINE void sm__attend_sum_zmm(int type, int n_q, int n_c, const sm__attend_args *a,
                                              int i, int first, int last, int d, __mmask16 m,
                                              __m512 acc[][4]) {
    size_t stride = sm__kv_value(type, a->head_dim), groups = (size_t)a->head_dim / SM__QK;
    const float *p = a->scores + i * SM__PART;
    __m512 v[4], unit[2], weight;
    int j, r, c;
    while (first < last) {
        int end = sm__min(last, (first / SM__KV_BLOCK + 1) * SM__KV_BLOCK);
        size_t lane = (size_t)(first % SM__KV_BLOCK);
        const void *block = a->values[first / SM__KV_BLOCK];
        const uint8_t *row = (const uint8_t *)block + lane * stride + sm__kv_value(type, d);
        const uint8_t *scale =
            sm__kv_scales(type, block, a->head_dim) + (lane * groups + (size_t)d / SM__QK) * 2;
        for (j = first; j < end; j++, row += stride, scale += groups * 2) {
            SM__UNROLL
            for (c = 0; c < n_c; c++) {
                const uint8_t *at = row + sm__kv_value(type, 16 * c);
                v[c] = sm__kv_scaled(type)
                           ? sm__kv_load_zmm(type, at, n_c > 1 ? c & 1 : d & 16)
                       : c < n_c - 1 ? sm__load_zmm(type, at)
                                     : sm__load_mask_zmm(type, at, m);
            }
            if (sm__kv_scaled(type)) {
                SM__UNROLL
                for (c = 0; c < n_c; c += 2) unit[c / 2] = sm__scale_zmm(scale + c);
            }
            SM__UNROLL
            for (r = 0; r < n_q; r++) {
                weight = _mm512_set1_ps(p[r * SM__PART + j]);
                SM__UNROLL
                for (c = 0; c < n_c; c++) {
                    if (sm__kv_scaled(type) && c % 2 == 0) /* 32 elements have a scale */
                        weight = sm__mul_zmm(_mm512_set1_ps(p[r * SM__PART + j]), unit[c / 2]);
                    acc[r][c] = _mm512_fmadd_ps(weight, v[c], acc[r][c]);
                }
            }
        }
        first = end;
    }
}

/* n_q rows go on, each alone, from key `first` to its own last key: elements d .. d + n. */
SM__AVX512 static void sm__attend_tails__avx512(int type, const sm__attend_args *a, int i, int n_q,
                                                int first, int d, int n) {
    int r, c, end = sm__min(d + n, a->head_dim);
    for (r = i; r < i + n_q; r++)
        for (c = d; c < end; c += 16) {
            __mmask16 m = sm__mask_zmm(end - c);
            __m512 acc[1][4];
            acc[0][0] = _mm512_maskz_loadu_ps(m, a->o[r] + c);
            SM__BY_KV_TYPE(type, sm__attend_sum_zmm, 1, 1, a, r, first, a->n_keys[r], c, m, acc)
            _mm512_mask_storeu_ps(a->o[r] + c, m, acc[0][0]);
        }
}

/* Elements d .. d + 16 n_c of the output rows: keys that all rows see share their loads, then each
 * row goes on alone to its own last key. */
SM__AVX512 SM__INLINE void sm__attend_values_zmm(int type, int n_q, int n_c,
                                                 const sm__attend_args *a, int i, int d) {
    __mmask16 m = sm__mask_zmm(a->head_dim - d - 16 * (n_c - 1));
    __m512 acc[4][4];
    int common = a->n_keys[i], most = common, r, c;
    for (r = 1; r < n_q; r++) {
        common = sm__min(common, a->n_keys[i + r]);
        most = sm__max(most, a->n_keys[i + r]);
    }
    SM__UNROLL
    for (r = 0; r < n_q; r++) {
        SM__UNROLL
        for (c = 0; c < n_c; c++) acc[r][c] = sm__zero_zmm();
    }
    sm__attend_sum_zmm(type, n_q, n_c, a, i, 0, common, d, m, acc);
    SM__UNROLL
    for (r = 0; r < n_q; r++) {
        SM__UNROLL
        for (c = 0; c < n_c - 1; c++) _mm512_storeu_ps(a->o[i + r] + d + 16 * c, acc[r][c]);
        _mm512_mask_storeu_ps(a->o[i + r] + d + 16 * c, m, acc[r][c]);
    }
    if (most > common) sm__attend_tails__avx512(type, a, i, n_q, common, d, 16 * n_c);
}

SM__AVX512 SM__INLINE void sm__attend_rows_zmm(int type, int n_q, const sm__attend_args *a, int i,
                                               int values) {
    int r, d = 0, n = 0;
    if (values) {
        for (; d + 64 <= a->head_dim; d += 64) sm__attend_values_zmm(type, n_q, 4, a, i, d);
        for (; d + 32 <= a->head_dim; d += 32) sm__attend_values_zmm(type, n_q, 2, a, i, d);
        for (; !sm__kv_scaled(type) && d < a->head_dim; d += 16)
            sm__attend_values_zmm(type, n_q, 1, a, i, d);
        return;
    }
    for (r = 0; r < n_q; r++) n = sm__max(n, a->n_keys[i + r]);
    for (r = 0; r * SM__KV_BLOCK < n; r++) sm__attend_keys_zmm(type, n_q, a, i, r);
    for (r = 0; r < n_q; r++) sm__attend_scores__avx512(a, i + r, a->scores + (i + r) * SM__PART);
}

SM__AVX512 SM__INLINE void sm__attend_zmm(int type, const sm__attend_args *a, int values) {
    int i, n;
    for (i = 0; i < a->n_q; i += n) {
        n = sm__attend_turn(a->n_q - i);
        if (n == 4) sm__attend_rows_zmm(type, 4, a, i, values);
        else if (n == 3) sm__attend_rows_zmm(type, 3, a, i, values);
        else if (n == 2) sm__attend_rows_zmm(type, 2, a, i, values);
        else sm__attend_rows_zmm(type, 1, a, i, values);
    }
}
SM__AVX512 static void sm__attend_keys__avx512(int type, const sm__attend_args *a) {
    SM__BY_KV_TYPE(type, sm__attend_zmm, a, 0)
}
SM__AVX512 static void sm__attend_values__avx512(int type, const sm__attend_args *a) {
    SM__BY_KV_TYPE(type, sm__attend_zmm, a, 1)
}

SM__AVX512 static void sm__merge__avx512(float *m, float *s, float *o, float part_m, float part_s,
                                         const float *part_o, int n) {
    __m256 x, y;
    __m512 all_x, all_y;
    int d;
    sm__merge_weights_ymm(m, s, part_m, part_s, &x, &y);
    all_x = _mm512_set1_ps(_mm256_cvtss_f32(x));
    all_y = _mm512_set1_ps(_mm256_cvtss_f32(y));
    for (d = 0; d < n; d += 16) {
        __mmask16 mask = sm__mask_zmm(n - d);
        __m512 old = sm__mul_zmm(_mm512_maskz_loadu_ps(mask, o + d), all_x);
        __m512 part = _mm512_maskz_loadu_ps(mask, part_o + d);
        _mm512_mask_storeu_ps(o + d, mask, _mm512_fmadd_ps(part, all_y, old));
    }
}
#endif

#ifdef SM__HAS_NEON
/* The first n of a register's lanes (all 4, none) as a mask. */
SM__INLINE uint32x4_t sm__mask_neon(int n) {
    static const int32_t lanes[4] = {0, 1, 2, 3};
    return vcgtq_s32(vdupq_n_s32(n), vld1q_s32(lanes));
}

/* Lanes first .. n as a mask. */
SM__INLINE uint32x4_t sm__seen_neon(int first, int n) {
    return vbicq_u32(sm__mask_neon(n), sm__mask_neon(first));
}

/* score to weight for one row: p [n, padded to 16] in place. Fills m and s. */
static void sm__attend_scores__neon(const sm__attend_args *a, int i, float *p) {
    float32x4_t top = vreinterpretq_f32_u32(vdupq_n_u32(0xff800000u)), none = top, sum[4], v, m;
    int n = a->n_keys[i], first = a->first ? a->first[i] : 0, j, h;
    float scale = a->scale;
    if (a->cap != 0.0f) sm__soft_cap__neon(p, scale, a->cap, n), scale = 1.0f;
    for (j = 0; j < n; j += 4) {
        v = sm__mul_neon(vld1q_f32(p + j), vdupq_n_f32(scale));
        vst1q_f32(p + j, v);
        top = vmaxq_f32(top, vbslq_f32(sm__seen_neon(first - j, n - j), sm__no_nan_neon(v), none));
    }
    m = sm__add_neon(vdupq_n_f32(vmaxvq_f32(top)), sm__zero_neon());
    a->m[i] = vgetq_lane_f32(m, 0);
    sum[0] = sum[1] = sum[2] = sum[3] = sm__zero_neon();
    for (j = 0; j < n; j += 16) {
        SM__UNROLL
        for (h = 0; h < 4; h++) {
            v = sm__exp_neon(sm__sub_neon(vld1q_f32(p + j + 4 * h), m));
            v = vreinterpretq_f32_u32(vandq_u32(
                vreinterpretq_u32_f32(v), sm__seen_neon(first - j - 4 * h, n - j - 4 * h)));
            vst1q_f32(p + j + 4 * h, v);
            sum[h] = sm__add_neon(sum[h], v);
        }
    }
    a->s[i] = sm__tree_neon(sum);
}

/* 4 elements of the cache as floats, as sm__kv_load_ymm. */
SM__INLINE float32x4_t sm__kv_load_neon(int type, const uint8_t *p, int high) {
    uint32_t word;
    int8x8_t v;
    if (type != SM__T_Q4_0) return sm__load_neon(type, p);
    memcpy(&word, p, 4);
    v = vreinterpret_s8_u32(vdup_n_u32(word));
    v = vshr_n_s8(high ? v : vshl_n_s8(v, 4), 4);
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(v))));
}

/* The sums of a group become scores, which join those of the groups before it at p. */
SM__INLINE void sm__join_neon(float32x4_t acc[4], const uint8_t *scale, const float *p,
                              int joins) {
    int h;
    SM__UNROLL
    for (h = 0; h < 4; h++)
        acc[h] = sm__fma_neon(joins ? vld1q_f32(p + 4 * h) : sm__zero_neon(), acc[h],
                              sm__load_neon(SM__T_F16, scale + 8 * h));
}

/* The scale of a value in all lanes. */
SM__INLINE float32x4_t sm__scale_neon(const uint8_t *scale) {
    uint16_t h;
    memcpy(&h, scale, 2);
    return vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(h)));
}

/* n_q (a constant) query rows from row i on, times 16 of the keys, from key j on. */
SM__INLINE void sm__attend_keys_neon(int type, int n_q, const sm__attend_args *a, int i, int j) {
    size_t wide = 4 * sm__kv_unit(type);
    const uint8_t *k = (const uint8_t *)a->keys[j / SM__KV_BLOCK];
    const uint8_t *scale = sm__kv_scales(type, k, a->head_dim) + j % SM__KV_BLOCK * 2;
    int group = sm__kv_scaled(type) ? SM__QK : a->head_dim, d = 0, end, r, h, half;
    int halves = type == SM__T_Q4_0 ? 2 : 1; /* elements d and d + 1 share bytes */
    float32x4_t acc[4][4], v[4], q;
    k += (size_t)(j % SM__KV_BLOCK) * sm__kv_unit(type);
    for (end = group; d < a->head_dim; end += group, scale += SM__KV_BLOCK * 2) {
        SM__UNROLL
        for (r = 0; r < n_q; r++) acc[r][0] = acc[r][1] = acc[r][2] = acc[r][3] = sm__zero_neon();
        for (; d < end; d += halves, k += 16 * wide) {
            SM__UNROLL
            for (half = 0; half < halves; half++) {
                SM__UNROLL
                for (h = 0; h < 4; h++) v[h] = sm__kv_load_neon(type, k + (size_t)h * wide, half);
                SM__UNROLL
                for (r = 0; r < n_q; r++) {
                    q = vdupq_n_f32(a->q[i + r][d + half]);
                    SM__UNROLL
                    for (h = 0; h < 4; h++) acc[r][h] = sm__fma_neon(acc[r][h], q, v[h]);
                }
            }
        }
        SM__UNROLL
        for (r = 0; r < n_q; r++) {
            float *p = a->scores + (i + r) * SM__PART + j;
            if (sm__kv_scaled(type)) sm__join_neon(acc[r], scale, p, end > group);
            sm__lanes_neon(acc[r], p);
        }
    }
}

/* acc [n_q][n_c] += weights of keys first .. last times elements d .. of their values; n_q and n_c
 * are constants. */
SM__INLINE void sm__attend_sum_neon(int type, int n_q, int n_c, const sm__attend_args *a, int i,
                                    int first, int last, int d, float32x4_t acc[][4]) {
    size_t stride = sm__kv_value(type, a->head_dim), groups = (size_t)a->head_dim / SM__QK;
    const float *p = a->scores + i * SM__PART;
    float32x4_t v[4], weight, unit = sm__zero_neon();
    int j, r, c;
    while (first < last) {
        int end = sm__min(last, (first / SM__KV_BLOCK + 1) * SM__KV_BLOCK);
        size_t lane = (size_t)(first % SM__KV_BLOCK);
        const void *block = a->values[first / SM__KV_BLOCK];
        const uint8_t *row = (const uint8_t *)block + lane * stride + sm__kv_value(type, d);
        const uint8_t *scale =
            sm__kv_scales(type, block, a->head_dim) + (lane * groups + (size_t)d / SM__QK) * 2;
        for (j = first; j < end; j++, row += stride, scale += groups * 2) {
            SM__UNROLL
            for (c = 0; c < n_c; c++)
                v[c] = sm__kv_load_neon(type, row + sm__kv_value(type, 4 * c), d & 16);
            if (sm__kv_scaled(type)) unit = sm__scale_neon(scale);
            SM__UNROLL
            for (r = 0; r < n_q; r++) {
                weight = vdupq_n_f32(p[r * SM__PART + j]);
                if (sm__kv_scaled(type)) weight = sm__mul_neon(weight, unit);
                SM__UNROLL
                for (c = 0; c < n_c; c++) acc[r][c] = sm__fma_neon(acc[r][c], weight, v[c]);
            }
        }
        first = end;
    }
}

/* Elements d .. d + 4 n_c of the output rows: keys that all rows see share their loads, then each
 * row goes on alone to its own last key. */
SM__INLINE void sm__attend_values_neon(int type, int n_q, int n_c, const sm__attend_args *a, int i,
                                       int d) {
    float32x4_t acc[4][4];
    int common = a->n_keys[i], r, c;
    for (r = 1; r < n_q; r++) common = sm__min(common, a->n_keys[i + r]);
    SM__UNROLL
    for (r = 0; r < n_q; r++) {
        SM__UNROLL
        for (c = 0; c < n_c; c++) acc[r][c] = sm__zero_neon();
    }
    sm__attend_sum_neon(type, n_q, n_c, a, i, 0, common, d, acc);
    SM__UNROLL
    for (r = 0; r < n_q; r++) {
        sm__attend_sum_neon(type, 1, n_c, a, i + r, common, a->n_keys[i + r], d, acc + r);
        SM__UNROLL
        for (c = 0; c < n_c; c++) vst1q_f32(a->o[i + r] + d + 4 * c, acc[r][c]);
    }
}

/* n_q (a constant) rows together. */
SM__INLINE void sm__attend_rows_neon(int type, int n_q, const sm__attend_args *a, int i,
                                     int values) {
    int most = 0, r, j, d = 0;
    if (values) {
        for (; d + 16 <= a->head_dim; d += 16) sm__attend_values_neon(type, n_q, 4, a, i, d);
        for (; !sm__kv_scaled(type) && d + 4 <= a->head_dim; d += 4)
            sm__attend_values_neon(type, n_q, 1, a, i, d);
        for (r = 0; r < n_q; r++) sm__attend_rest(type, a, i + r, d);
        return;
    }
    for (r = 0; r < n_q; r++) most = sm__max(most, a->n_keys[i + r]);
    for (j = 0; j < most; j += 16) sm__attend_keys_neon(type, n_q, a, i, j);
    for (r = 0; r < n_q; r++) sm__attend_scores__neon(a, i + r, a->scores + (i + r) * SM__PART);
}
SM__INLINE void sm__attend_neon(int type, const sm__attend_args *a, int values) {
    int i = 0;
    for (; i + 4 <= a->n_q; i += 4) sm__attend_rows_neon(type, 4, a, i, values);
    for (; i < a->n_q; i++) sm__attend_rows_neon(type, 1, a, i, values);
}
static void sm__attend_keys__neon(int type, const sm__attend_args *a) {
    SM__BY_KV_TYPE(type, sm__attend_neon, a, 0)
}
static void sm__attend_values__neon(int type, const sm__attend_args *a) {
    SM__BY_KV_TYPE(type, sm__attend_neon, a, 1)
}

static void sm__merge__neon(float *m, float *s, float *o, float part_m, float part_s,
                            const float *part_o, int n) {
    float32x4_t x, y;
    float m_old = *m;
    int d;
    sm__merge__scalar(m, s, o, part_m, part_s, part_o, n % 4);
    o += n % 4;
    part_o += n % 4;
    x = sm__exp_neon(sm__sub_neon(vdupq_n_f32(m_old), vdupq_n_f32(*m)));
    y = sm__exp_neon(sm__sub_neon(vdupq_n_f32(part_m), vdupq_n_f32(*m)));
    for (d = 0; d < n / 4; d++, o += 4, part_o += 4)
        vst1q_f32(o, sm__fma_neon(sm__mul_neon(vld1q_f32(o), x), vld1q_f32(part_o), y));
}
#endif

/* --- quant ------------------------------------------------------------------------------------ */

/* quant: a row to int8 blocks. amax = largest |x| of a block; d = amax / 127; q = x * (127 / amax)
 * to the nearest integer, ties to even; s = sums of 16 elements of q. A block with an infinity or
 * NaN gets d = NaN and q = 0, so that it shows in the output; amax below 1e-30 counts as zero
 * (d = 0, q = 0).
 *   x [k] f32; block 32 or 256, of which k is a multiple; q [k], d [k / block], s [k / 16] out */

/* d of a block whose largest |x| has these bits, and 127 / amax, or 0 when q is 0. */
SM__INLINE float sm__quant_scale(uint32_t top, float *inverse) {
    float amax = sm__from_bits(top);
    *inverse = 0.0f;
    if (top >= 0x7f800000u) return sm__from_bits(0x7fc00000u);
    if (amax < 1e-30f) return 0.0f;
    *inverse = sm__div(127.0f, amax);
    return sm__div(amax, 127.0f);
}

static void sm__quant__scalar(const float *x, int k, int block, int8_t *q, float *d, int16_t *s) {
    int i;
    float inverse = 0.0f;
    for (i = 0; i < k; i++) {
        if (i % block == 0) {
            uint32_t top = 0; /* |x| compared as bits: NaN is largest */
            int j;
            for (j = i; j < i + block; j++)
                if ((sm__bits(x[j]) & 0x7fffffffu) > top) top = sm__bits(x[j]) & 0x7fffffffu;
            *d++ = sm__quant_scale(top, &inverse);
        }
        if (i % 16 == 0) s[i / 16] = 0;
        q[i] = (int8_t)(inverse != 0.0f ? sm__round_even(x[i] * inverse) : 0);
        s[i / 16] = (int16_t)(s[i / 16] + q[i]);
    }
}

#ifdef SM__HAS_SSE41
SM__SSE41 static void sm__quant__sse41(const float *x, int k, int block, int8_t *q, float *d,
                                       int16_t *s) {
    int i, j;
    for (; k > 0; k -= block) {
        __m128i top = _mm_setzero_si128(), v[4];
        float inverse;
        for (i = 0; i < block; i += 4) {
            v[0] = _mm_castps_si128(_mm_loadu_ps(x + i));
            top = _mm_max_epi32(top, _mm_and_si128(v[0], _mm_set1_epi32(0x7fffffff)));
        }
        top = _mm_max_epi32(top, _mm_shuffle_epi32(top, 0x4e));
        top = _mm_max_epi32(top, _mm_shuffle_epi32(top, 0xb1));
        *d++ = sm__quant_scale((uint32_t)_mm_cvtsi128_si32(top), &inverse);
        for (i = 0; i < block; i += 16, x += 16, q += 16) {
            for (j = 0; j < 4; j++) { /* nearest even */
                v[j] = _mm_setzero_si128();
                if (inverse != 0.0f)
                    v[j] = _mm_cvtps_epi32(sm__mul_xmm(_mm_loadu_ps(x + 4 * j),
                                                       _mm_set1_ps(inverse)));
            }
            v[0] = _mm_packs_epi32(v[0], v[1]);
            v[1] = _mm_packs_epi32(v[2], v[3]);
            _mm_storeu_si128((__m128i *)(void *)q, _mm_packs_epi16(v[0], v[1]));
            v[0] = _mm_madd_epi16(_mm_add_epi16(v[0], v[1]), _mm_set1_epi16(1));
            v[0] = _mm_hadd_epi32(v[0], v[0]);
            *s++ = (int16_t)_mm_cvtsi128_si32(_mm_hadd_epi32(v[0], v[0]));
        }
    }
}
#endif

#ifdef SM__HAS_AVX2
SM__AVX2 SM__INLINE __m128i sm__fold_ymm(__m256i v) {
    return _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
}

SM__AVX2 static void sm__quant__avx2(const float *x, int k, int block, int8_t *q, float *d,
                                     int16_t *s) {
    __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7); /* undoes the packs' */
    int i, j;
    for (; k > 0; k -= block) {
        __m256i top = _mm256_setzero_si256(), v[4];
        __m128i most, sums;
        __m256 factor;
        float inverse;
        for (i = 0; i < block; i += 8) {
            v[0] = _mm256_castps_si256(_mm256_loadu_ps(x + i));
            top = _mm256_max_epi32(top, _mm256_and_si256(v[0], _mm256_set1_epi32(0x7fffffff)));
        }
        most = _mm_max_epi32(_mm256_castsi256_si128(top), _mm256_extracti128_si256(top, 1));
        most = _mm_max_epi32(most, _mm_shuffle_epi32(most, 0x4e));
        most = _mm_max_epi32(most, _mm_shuffle_epi32(most, 0xb1));
        *d++ = sm__quant_scale((uint32_t)_mm_cvtsi128_si32(most), &inverse);
        if (inverse == 0.0f) {
            memset(q, 0, (size_t)block);
            memset(s, 0, (size_t)block / 16 * sizeof *s);
            x += block, q += block, s += block / 16;
            continue;
        }
        factor = _mm256_set1_ps(inverse);
        for (i = 0; i < block; i += 32, x += 32, q += 32, s += 2) {
            for (j = 0; j < 4; j++) /* nearest even */
                v[j] = _mm256_cvtps_epi32(sm__mul_ymm(_mm256_loadu_ps(x + 8 * j), factor));
            sums = _mm_hadd_epi32(sm__fold_ymm(_mm256_add_epi32(v[0], v[1])),
                                  sm__fold_ymm(_mm256_add_epi32(v[2], v[3])));
            sums = _mm_hadd_epi32(sums, sums);
            s[0] = (int16_t)_mm_cvtsi128_si32(sums);
            s[1] = (int16_t)_mm_extract_epi32(sums, 1);
            v[0] = _mm256_packs_epi16(_mm256_packs_epi32(v[0], v[1]),
                                      _mm256_packs_epi32(v[2], v[3]));
            _mm256_storeu_si256((__m256i *)(void *)q, _mm256_permutevar8x32_epi32(v[0], order));
        }
    }
}
#endif

#ifdef SM__HAS_AVX512
SM__AVX512 static void sm__quant__avx512(const float *x, int k, int block, int8_t *q, float *d,
                                         int16_t *s) {
    int i;
    for (; k > 0; k -= block) {
        __m512i top = _mm512_setzero_si512(), v;
        float inverse;
        for (i = 0; i < block; i += 16) {
            v = _mm512_castps_si512(_mm512_loadu_ps(x + i));
            top = _mm512_max_epi32(top, _mm512_and_si512(v, _mm512_set1_epi32(0x7fffffff)));
        }
        *d++ = sm__quant_scale((uint32_t)_mm512_reduce_max_epi32(top), &inverse);
        for (i = 0; i < block; i += 16, x += 16, q += 16) {
            v = _mm512_setzero_si512();
            if (inverse != 0.0f) /* nearest even */
                v = _mm512_cvtps_epi32(sm__mul_zmm(_mm512_loadu_ps(x), _mm512_set1_ps(inverse)));
            *s++ = (int16_t)_mm512_reduce_add_epi32(v);
            _mm_storeu_si128((__m128i *)(void *)q, _mm512_cvtepi32_epi8(v));
        }
    }
}
#endif

#ifdef SM__HAS_NEON
static void sm__quant__neon(const float *x, int k, int block, int8_t *q, float *d, int16_t *s) {
    int i, j;
    for (; k > 0; k -= block) {
        uint32x4_t top = vdupq_n_u32(0);
        float inverse;
        for (i = 0; i < block; i += 4)
            top = vmaxq_u32(top, vreinterpretq_u32_f32(vabsq_f32(vld1q_f32(x + i))));
        *d++ = sm__quant_scale(vmaxvq_u32(top), &inverse);
        for (i = 0; i < block; i += 16, x += 16, q += 16) {
            int16x8_t v[2] = {vdupq_n_s16(0), vdupq_n_s16(0)};
            for (j = 0; j < 2 && inverse != 0.0f; j++) { /* nearest even */
                float32x4_t lo = sm__mul_neon(vld1q_f32(x + 8 * j), vdupq_n_f32(inverse));
                float32x4_t hi = sm__mul_neon(vld1q_f32(x + 8 * j + 4), vdupq_n_f32(inverse));
                v[j] = vcombine_s16(vmovn_s32(vcvtnq_s32_f32(lo)), vmovn_s32(vcvtnq_s32_f32(hi)));
            }
            vst1q_s8(q, vcombine_s8(vmovn_s16(v[0]), vmovn_s16(v[1])));
            *s++ = vaddvq_s16(vaddq_s16(v[0], v[1]));
        }
    }
}
#endif

/* --- norms ------------------------------------------------------------------------------------ */

/* rms_norm: out = (x * r) * w, r = 1 / sqrt(ss / n + eps), ss = sum of x^2 by 16 lanes (Zhang and
 * Sennrich 2019, arXiv:1910.07467). x, w, out [n]; out may be x. */
static void sm__rms_norm__scalar(const float *x, const float *w, float *out, int n, float eps) {
    float lanes[16] = {0}, r;
    int i;
    for (i = 0; i < n; i++) lanes[i & 15] = sm__fma(x[i], x[i], lanes[i & 15]);
    r = sm__div(1.0f, sm__sqrt(sm__div(sm__tree16(lanes), (float)n) + eps));
    for (i = 0; i < n; i++) out[i] = (x[i] * r) * w[i];
}

/* layer_norm: out = fma((x - mean) * r, w, b), r = 1 / sqrt(var + eps); the mean first, then the
 * variance of x - mean, so that nothing cancels; both by 16 lanes (Ba et al. 2016,
 * arXiv:1607.06450). b may be NULL: out = ((x - mean) * r) * w. out may be x. */
static void sm__layer_norm__scalar(const float *x, const float *w, const float *b, float *out,
                                   int n, float eps) {
    float lanes[16] = {0}, mean, r;
    int i;
    for (i = 0; i < n; i++) lanes[i & 15] += x[i];
    mean = sm__div(sm__tree16(lanes), (float)n);
    memset(lanes, 0, sizeof lanes);
    for (i = 0; i < n; i++) lanes[i & 15] = sm__fma(x[i] - mean, x[i] - mean, lanes[i & 15]);
    r = sm__div(1.0f, sm__sqrt(sm__div(sm__tree16(lanes), (float)n) + eps));
    for (i = 0; i < n; i++) {
        float y = (x[i] - mean) * r;
        out[i] = b ? sm__fma(y, w[i], b[i]) : y * w[i];
    }
}

#ifdef SM__HAS_SSE41
SM__SSE41 static void sm__rms_norm__sse41(const float *x, const float *w, float *out, int n,
                                          float eps) {
    float lanes[16] = {0}, r;
    int i;
    for (i = 0; i + 4 <= n; i += 4) {
        sm__wide v = sm__widen(_mm_loadu_ps(x + i));
        _mm_storeu_ps(lanes + i % 16, sm__fma_wide(v, v, _mm_loadu_ps(lanes + i % 16)));
    }
    for (; i < n; i++) lanes[i & 15] = sm__fma(x[i], x[i], lanes[i & 15]);
    r = sm__div(1.0f, sm__sqrt(sm__div(sm__tree_xmm(lanes), (float)n) + eps));
    for (i = 0; i + 4 <= n; i += 4) {
        __m128 v = sm__mul_xmm(_mm_loadu_ps(x + i), _mm_set1_ps(r));
        _mm_storeu_ps(out + i, sm__mul_xmm(v, _mm_loadu_ps(w + i)));
    }
    for (; i < n; i++) out[i] = (x[i] * r) * w[i];
}
#endif

#ifdef SM__HAS_AVX2
SM__AVX2 static void sm__rms_norm__avx2(const float *x, const float *w, float *out, int n,
                                        float eps) {
    __m256 lo = sm__zero_ymm(), hi = lo, v;
    float lanes[16], r;
    int i;
    for (i = 0; i + 16 <= n; i += 16) {
        v = _mm256_loadu_ps(x + i);
        lo = _mm256_fmadd_ps(v, v, lo);
        v = _mm256_loadu_ps(x + i + 8);
        hi = _mm256_fmadd_ps(v, v, hi);
    }
    _mm256_storeu_ps(lanes, lo);
    _mm256_storeu_ps(lanes + 8, hi);
    for (; i < n; i++) lanes[i & 15] = sm__fma(x[i], x[i], lanes[i & 15]);
    r = sm__div(1.0f, sm__sqrt(sm__div(sm__tree16(lanes), (float)n) + eps));
    for (i = 0; i + 8 <= n; i += 8) {
        v = sm__mul_ymm(_mm256_loadu_ps(x + i), _mm256_set1_ps(r));
        _mm256_storeu_ps(out + i, sm__mul_ymm(v, _mm256_loadu_ps(w + i)));
    }
    for (; i < n; i++) out[i] = (x[i] * r) * w[i];
}

SM__AVX2 static void sm__layer_norm__avx2(const float *x, const float *w, const float *b,
                                          float *out, int n, float eps) {
    __m256 lo = sm__zero_ymm(), hi = lo, m, v;
    float lanes[16], mean, r;
    int i;
    for (i = 0; i + 16 <= n; i += 16) {
        lo = sm__add_ymm(lo, _mm256_loadu_ps(x + i));
        hi = sm__add_ymm(hi, _mm256_loadu_ps(x + i + 8));
    }
    _mm256_storeu_ps(lanes, lo);
    _mm256_storeu_ps(lanes + 8, hi);
    for (; i < n; i++) lanes[i & 15] += x[i];
    mean = sm__div(sm__tree16(lanes), (float)n);
    m = _mm256_set1_ps(mean);
    lo = hi = sm__zero_ymm();
    for (i = 0; i + 16 <= n; i += 16) {
        v = sm__sub_ymm(_mm256_loadu_ps(x + i), m);
        lo = _mm256_fmadd_ps(v, v, lo);
        v = sm__sub_ymm(_mm256_loadu_ps(x + i + 8), m);
        hi = _mm256_fmadd_ps(v, v, hi);
    }
    _mm256_storeu_ps(lanes, lo);
    _mm256_storeu_ps(lanes + 8, hi);
    for (; i < n; i++) lanes[i & 15] = sm__fma(x[i] - mean, x[i] - mean, lanes[i & 15]);
    r = sm__div(1.0f, sm__sqrt(sm__div(sm__tree16(lanes), (float)n) + eps));
    for (i = 0; i + 8 <= n; i += 8) {
        v = sm__mul_ymm(sm__sub_ymm(_mm256_loadu_ps(x + i), m), _mm256_set1_ps(r));
        if (b) v = _mm256_fmadd_ps(v, _mm256_loadu_ps(w + i), _mm256_loadu_ps(b + i));
        else v = sm__mul_ymm(v, _mm256_loadu_ps(w + i));
        _mm256_storeu_ps(out + i, v);
    }
    for (; i < n; i++) {
        float y = (x[i] - mean) * r;
        out[i] = b ? sm__fma(y, w[i], b[i]) : y * w[i];
    }
}
#endif

#ifdef SM__HAS_AVX512
SM__AVX512 static void sm__rms_norm__avx512(const float *x, const float *w, float *out, int n,
                                            float eps) {
    __m512 ss = sm__zero_zmm(), v;
    float r;
    int i;
    for (i = 0; i < n; i += 16) {
        v = _mm512_maskz_loadu_ps(sm__mask_zmm(n - i), x + i);
        ss = _mm512_fmadd_ps(v, v, ss);
    }
    r = sm__div(1.0f, sm__sqrt(sm__div(sm__tree_zmm(ss), (float)n) + eps));
    for (i = 0; i < n; i += 16) {
        __mmask16 m = sm__mask_zmm(n - i);
        v = sm__mul_zmm(_mm512_maskz_loadu_ps(m, x + i), _mm512_set1_ps(r));
        _mm512_mask_storeu_ps(out + i, m, sm__mul_zmm(v, _mm512_maskz_loadu_ps(m, w + i)));
    }
}

SM__AVX512 static void sm__layer_norm__avx512(const float *x, const float *w, const float *b,
                                              float *out, int n, float eps) {
    __m512 sum = sm__zero_zmm(), ss = sum, mean, v;
    __mmask16 m;
    float r;
    int i;
    for (i = 0; i < n; i += 16)
        sum = sm__add_zmm(sum, _mm512_maskz_loadu_ps(sm__mask_zmm(n - i), x + i));
    mean = _mm512_set1_ps(sm__div(sm__tree_zmm(sum), (float)n));
    for (i = 0; i < n; i += 16) {
        m = sm__mask_zmm(n - i);
        v = _mm512_maskz_mov_ps(m, sm__sub_zmm(_mm512_maskz_loadu_ps(m, x + i), mean));
        ss = _mm512_fmadd_ps(v, v, ss);
    }
    r = sm__div(1.0f, sm__sqrt(sm__div(sm__tree_zmm(ss), (float)n) + eps));
    for (i = 0; i < n; i += 16) {
        __m512 scale = _mm512_maskz_loadu_ps(m = sm__mask_zmm(n - i), w + i);
        v = sm__sub_zmm(_mm512_maskz_loadu_ps(m, x + i), mean);
        v = sm__mul_zmm(v, _mm512_set1_ps(r));
        if (b) v = _mm512_fmadd_ps(v, scale, _mm512_maskz_loadu_ps(m, b + i));
        else v = sm__mul_zmm(v, scale);
        _mm512_mask_storeu_ps(out + i, m, v);
    }
}
#endif

#ifdef SM__HAS_NEON
static void sm__rms_norm__neon(const float *x, const float *w, float *out, int n, float eps) {
    float32x4_t v[4], y;
    float lanes[16], r;
    int i, h;
    v[0] = v[1] = v[2] = v[3] = sm__zero_neon();
    for (i = 0; i + 16 <= n; i += 16) {
        SM__UNROLL
        for (h = 0; h < 4; h++) {
            y = vld1q_f32(x + i + 4 * h);
            v[h] = sm__fma_neon(v[h], y, y);
        }
    }
    sm__lanes_neon(v, lanes);
    for (; i < n; i++) lanes[i & 15] = sm__fma(x[i], x[i], lanes[i & 15]);
    r = sm__div(1.0f, sm__sqrt(sm__div(sm__tree16(lanes), (float)n) + eps));
    for (i = 0; i + 4 <= n; i += 4) {
        y = sm__mul_neon(vld1q_f32(x + i), vdupq_n_f32(r));
        vst1q_f32(out + i, sm__mul_neon(y, vld1q_f32(w + i)));
    }
    for (; i < n; i++) out[i] = (x[i] * r) * w[i];
}

static void sm__layer_norm__neon(const float *x, const float *w, const float *b, float *out, int n,
                                 float eps) {
    float32x4_t v[4], y, shift;
    float lanes[16], mean, r;
    int i, h;
    v[0] = v[1] = v[2] = v[3] = sm__zero_neon();
    for (i = 0; i + 16 <= n; i += 16) {
        SM__UNROLL
        for (h = 0; h < 4; h++) v[h] = sm__add_neon(v[h], vld1q_f32(x + i + 4 * h));
    }
    sm__lanes_neon(v, lanes);
    for (; i < n; i++) lanes[i & 15] += x[i];
    mean = sm__div(sm__tree16(lanes), (float)n);
    shift = vdupq_n_f32(mean);
    v[0] = v[1] = v[2] = v[3] = sm__zero_neon();
    for (i = 0; i + 16 <= n; i += 16) {
        SM__UNROLL
        for (h = 0; h < 4; h++) {
            y = sm__sub_neon(vld1q_f32(x + i + 4 * h), shift);
            v[h] = sm__fma_neon(v[h], y, y);
        }
    }
    sm__lanes_neon(v, lanes);
    for (; i < n; i++) lanes[i & 15] = sm__fma(x[i] - mean, x[i] - mean, lanes[i & 15]);
    r = sm__div(1.0f, sm__sqrt(sm__div(sm__tree16(lanes), (float)n) + eps));
    for (i = 0; i + 4 <= n; i += 4) {
        y = sm__mul_neon(sm__sub_neon(vld1q_f32(x + i), shift), vdupq_n_f32(r));
        y = b ? sm__fma_neon(vld1q_f32(b + i), y, vld1q_f32(w + i))
              : sm__mul_neon(y, vld1q_f32(w + i));
        vst1q_f32(out + i, y);
    }
    for (; i < n; i++) {
        float z = (x[i] - mean) * r;
        out[i] = b ? sm__fma(z, w[i], b[i]) : z * w[i];
    }
}
#endif

/* scale: x *= factor. */
static void sm__scale__scalar(float *x, float factor, int n) {
    int i;
    for (i = 0; i < n; i++) x[i] *= factor;
}

/* softmax: x [n] in place: exp(x - max) * (1 / sum), the sum by 16 lanes; NaN gets 0. */
static void sm__softmax__scalar(float *x, int n) {
    float m = -SM__INFINITY, lanes[16] = {0}, r;
    int i;
    for (i = 0; i < n; i++)
        if (x[i] > m) m = x[i];
    for (i = 0; i < n; i++) {
        x[i] = sm__exp(x[i] - m);
        lanes[i & 15] += x[i];
    }
    r = sm__div(1.0f, sm__tree16(lanes));
    for (i = 0; i < n; i++) x[i] *= r;
}

#ifdef SM__HAS_SSE41
SM__SSE41 static void sm__softmax__sse41(float *x, int n) {
    __m128 top = _mm_set1_ps(-SM__INFINITY), v;
    float lanes[16] = {0}, m = -SM__INFINITY, r;
    int i, j;
    for (i = 0; i + 4 <= n; i += 4) top = _mm_max_ps(top, sm__no_nan_xmm(_mm_loadu_ps(x + i)));
    _mm_storeu_ps(lanes, top);
    for (j = 0; j < 4; j++) m = lanes[j] > m ? lanes[j] : m;
    for (; i < n; i++) m = x[i] > m ? x[i] : m;
    memset(lanes, 0, sizeof lanes);
    for (i = 0; i + 4 <= n; i += 4) {
        _mm_storeu_ps(x + i, v = sm__exp_xmm(sm__sub_xmm(_mm_loadu_ps(x + i), _mm_set1_ps(m))));
        _mm_storeu_ps(lanes + i % 16, sm__add_xmm(_mm_loadu_ps(lanes + i % 16), v));
    }
    for (; i < n; i++) lanes[i & 15] += x[i] = sm__exp(x[i] - m);
    r = sm__div(1.0f, sm__tree_xmm(lanes));
    for (i = 0; i + 4 <= n; i += 4)
        _mm_storeu_ps(x + i, sm__mul_xmm(_mm_loadu_ps(x + i), _mm_set1_ps(r)));
    for (; i < n; i++) x[i] *= r;
}
#endif

#ifdef SM__HAS_AVX2
SM__AVX2 static void sm__softmax__avx2(float *x, int n) {
    __m256 top = _mm256_set1_ps(-SM__INFINITY), lo = sm__zero_ymm(), hi = lo, v;
    float lanes[16], m = -SM__INFINITY, r;
    int i, j;
    for (i = 0; i + 8 <= n; i += 8)
        top = _mm256_max_ps(top, sm__no_nan_ymm(_mm256_loadu_ps(x + i)));
    _mm256_storeu_ps(lanes, top);
    for (j = 0; j < 8; j++) m = lanes[j] > m ? lanes[j] : m;
    for (; i < n; i++) m = x[i] > m ? x[i] : m;
    top = _mm256_set1_ps(m);
    for (i = 0; i + 16 <= n; i += 16) {
        _mm256_storeu_ps(x + i, v = sm__exp_ymm(sm__sub_ymm(_mm256_loadu_ps(x + i), top)));
        lo = sm__add_ymm(lo, v);
        _mm256_storeu_ps(x + i + 8, v = sm__exp_ymm(sm__sub_ymm(_mm256_loadu_ps(x + i + 8), top)));
        hi = sm__add_ymm(hi, v);
    }
    _mm256_storeu_ps(lanes, lo);
    _mm256_storeu_ps(lanes + 8, hi);
    for (; i < n; i++) lanes[i & 15] += x[i] = sm__exp(x[i] - m);
    r = sm__div(1.0f, sm__tree16(lanes));
    for (i = 0; i + 8 <= n; i += 8)
        _mm256_storeu_ps(x + i, sm__mul_ymm(_mm256_loadu_ps(x + i), _mm256_set1_ps(r)));
    for (; i < n; i++) x[i] *= r;
}
#endif

#ifdef SM__HAS_AVX512
SM__AVX512 static void sm__softmax__avx512(float *x, int n) {
    __m512 top = _mm512_set1_ps(-SM__INFINITY), sum = sm__zero_zmm(), v;
    __mmask16 m;
    float r;
    int i;
    for (i = 0; i < n; i += 16) {
        v = _mm512_mask_loadu_ps(top, m = sm__mask_zmm(n - i), x + i);
        top = _mm512_max_ps(top, sm__no_nan_zmm(v));
    }
    top = _mm512_set1_ps(_mm512_reduce_max_ps(top));
    for (i = 0; i < n; i += 16) {
        m = sm__mask_zmm(n - i);
        v = sm__exp_zmm(sm__sub_zmm(_mm512_maskz_loadu_ps(m, x + i), top));
        _mm512_mask_storeu_ps(x + i, m, v);
        sum = sm__add_zmm(sum, _mm512_maskz_mov_ps(m, v));
    }
    r = sm__div(1.0f, sm__tree_zmm(sum));
    for (i = 0; i < n; i += 16) {
        v = _mm512_maskz_loadu_ps(m = sm__mask_zmm(n - i), x + i);
        _mm512_mask_storeu_ps(x + i, m, sm__mul_zmm(v, _mm512_set1_ps(r)));
    }
}
#endif

#ifdef SM__HAS_NEON
static void sm__softmax__neon(float *x, int n) {
    float32x4_t v[4], top = vreinterpretq_f32_u32(vdupq_n_u32(0xff800000u)), y, shift;
    float lanes[16], m, r;
    int i, h;
    for (i = 0; i + 4 <= n; i += 4) top = vmaxq_f32(top, sm__no_nan_neon(vld1q_f32(x + i)));
    m = vmaxvq_f32(top);
    for (; i < n; i++)
        if (x[i] > m) m = x[i];
    shift = vdupq_n_f32(m);
    v[0] = v[1] = v[2] = v[3] = sm__zero_neon();
    for (i = 0; i + 16 <= n; i += 16) {
        SM__UNROLL
        for (h = 0; h < 4; h++) {
            y = sm__exp_neon(sm__sub_neon(vld1q_f32(x + i + 4 * h), shift));
            vst1q_f32(x + i + 4 * h, y);
            v[h] = sm__add_neon(v[h], y);
        }
    }
    sm__lanes_neon(v, lanes);
    for (; i < n; i++) {
        x[i] = sm__exp(x[i] - m);
        lanes[i & 15] += x[i];
    }
    r = sm__div(1.0f, sm__tree16(lanes));
    for (i = 0; i + 4 <= n; i += 4)
        vst1q_f32(x + i, sm__mul_neon(vld1q_f32(x + i), vdupq_n_f32(r)));
    for (; i < n; i++) x[i] *= r;
}
#endif

/* --- rope, activations, small things ---------------------------------------------------------- */

/* rope: rotates the pairs of the first n_rot elements of every head (Su et al. 2021,
 * arXiv:2104.09864). Pair i is (2i, 2i + 1), or (i, i + n_rot / 2) when half_split.
 *   x [n_heads, head_dim]; cosines, sines [n_rot / 2]; a' = fma(a, c, -(b * s)),
 *   b' = fma(a, s, b * c) */
static void sm__rope_pair(float *p, int step, float c, float s) {
    float a = p[0], b = p[step];
    p[0] = sm__fma(a, c, -(b * s));
    p[step] = sm__fma(a, s, b * c);
}
static void sm__rope__scalar(float *x, int n_heads, int head_dim, int n_rot, const float *cosines,
                             const float *sines, int half_split) {
    int h, i, n = n_rot / 2;
    for (h = 0; h < n_heads; h++, x += head_dim)
        for (i = 0; i < n; i++)
            sm__rope_pair(x + (half_split ? i : 2 * i), half_split ? n : 1, cosines[i], sines[i]);
}

/* swiglu: out = (g / (1 + exp(-g))) * u (Shazeer 2020, arXiv:2002.05202). out may be gate or up. */
static void sm__swiglu__scalar(const float *gate, const float *up, float *out, int n) {
    int i;
    for (i = 0; i < n; i++) out[i] = sm__div(gate[i], 1.0f + sm__exp(-gate[i])) * up[i];
}

/* gelu_tanh: x / (1 + exp(-u)), u = (1.59576912 x) * fma(0.044715 x, x, 1): the tanh form of GELU
 * (Hendrycks and Gimpel 2016, arXiv:1606.08415), since (1 + tanh v) / 2 = 1 / (1 + exp(-2v)). */
static void sm__gelu_tanh__scalar(const float *x, float *out, int n) {
    int i;
    for (i = 0; i < n; i++) {
        float u = (1.59576912f * x[i]) * sm__fma(0.044715f * x[i], x[i], 1.0f);
        out[i] = sm__div(x[i], 1.0f + sm__exp(-u));
    }
}

/* gelu_erf: x * Phi(x); with e = erfc(|x| / sqrt 2) / 2, Phi = e below 0 and 1 - e from 0 on. */
static void sm__gelu_erf__scalar(const float *x, float *out, int n) {
    int i;
    for (i = 0; i < n; i++) {
        float a = sm__from_bits(sm__bits(x[i]) & 0x7fffffffu);
        float e = 0.5f * sm__erfc(a * 0.707106769f);
        out[i] = x[i] * (x[i] < 0.0f ? e : 1.0f - e);
    }
}

/* add: out += x.  mul: out *= x.  to_f16: nearest even. */
static void sm__add__scalar(const float *x, float *out, int n) {
    int i;
    for (i = 0; i < n; i++) out[i] += x[i];
}
static void sm__mul__scalar(const float *x, float *out, int n) {
    int i;
    for (i = 0; i < n; i++) out[i] *= x[i];
}
static void sm__to_f16__scalar(const float *x, uint16_t *out, int n) {
    int i;
    for (i = 0; i < n; i++) out[i] = sm__f32_to_f16(x[i]);
}

#ifdef SM__HAS_SSE41
SM__SSE41 static void sm__swiglu__sse41(const float *gate, const float *up, float *out, int n) {
    __m128 one = _mm_set1_ps(1.0f), g;
    int i;
    for (i = 0; i + 4 <= n; i += 4) {
        g = _mm_loadu_ps(gate + i);
        g = sm__div_xmm(g, sm__add_xmm(one, sm__exp_xmm(sm__negate_xmm(g))));
        _mm_storeu_ps(out + i, sm__mul_xmm(g, _mm_loadu_ps(up + i)));
    }
    sm__swiglu__scalar(gate + i, up + i, out + i, n - i);
}

SM__SSE41 static void sm__gelu_tanh__sse41(const float *x, float *out, int n) {
    __m128 one = _mm_set1_ps(1.0f), v, u;
    int i;
    for (i = 0; i + 4 <= n; i += 4) {
        v = _mm_loadu_ps(x + i);
        u = sm__fma_xmm(sm__mul_xmm(_mm_set1_ps(0.044715f), v), v, one);
        u = sm__mul_xmm(sm__mul_xmm(_mm_set1_ps(1.59576912f), v), u);
        v = sm__div_xmm(v, sm__add_xmm(one, sm__exp_xmm(sm__negate_xmm(u))));
        _mm_storeu_ps(out + i, v);
    }
    sm__gelu_tanh__scalar(x + i, out + i, n - i);
}

SM__SSE41 static void sm__gelu_erf__sse41(const float *x, float *out, int n) {
    __m128 one = _mm_set1_ps(1.0f), two = _mm_set1_ps(2.0f);
    __m128 abs = _mm_castsi128_ps(_mm_set1_epi32(0x7fffffff));
    int i;
    for (i = 0; i + 4 <= n; i += 4) {
        __m128 v = _mm_loadu_ps(x + i), t, u, p = _mm_setzero_ps();
        t = sm__mul_xmm(_mm_and_ps(v, abs), _mm_set1_ps(0.707106769f));
        u = sm__div_xmm(two, sm__add_xmm(two, t));
#define SM__ERFC_STEP(c) p = sm__fma_xmm(p, u, _mm_set1_ps(c));
        SM__ERFC_LIST(SM__ERFC_STEP)
#undef SM__ERFC_STEP
        p = sm__mul_xmm(u, sm__exp_xmm(sm__fma_xmm(sm__negate_xmm(t), t, p)));
        p = sm__mul_xmm(_mm_set1_ps(0.5f), p);
        u = _mm_blendv_ps(sm__sub_xmm(one, p), p, v); /* by the sign of v */
        _mm_storeu_ps(out + i, sm__mul_xmm(v, u));
    }
    sm__gelu_erf__scalar(x + i, out + i, n - i);
}
#endif

#ifdef SM__HAS_AVX2
SM__AVX2 static void sm__rope__avx2(float *x, int n_heads, int head_dim, int n_rot,
                                    const float *cosines, const float *sines, int half_split) {
    __m256i twice = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
    int h, i, n = n_rot / 2;
    for (h = 0; h < n_heads; h++, x += head_dim) {
        i = 0;
        for (; half_split && i + 8 <= n; i += 8) {
            __m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + n + i);
            __m256 c = _mm256_loadu_ps(cosines + i), s = _mm256_loadu_ps(sines + i);
            _mm256_storeu_ps(x + i, _mm256_fmsub_ps(a, c, sm__mul_ymm(b, s)));
            _mm256_storeu_ps(x + n + i, _mm256_fmadd_ps(a, s, sm__mul_ymm(b, c)));
        }
        for (; !half_split && i + 4 <= n; i += 4) { /* 4 pairs a b a b ... */
            __m256 v = _mm256_loadu_ps(x + 2 * i), b;
            __m256 c = _mm256_castps128_ps256(_mm_loadu_ps(cosines + i));
            __m256 s = _mm256_castps128_ps256(_mm_loadu_ps(sines + i));
            c = _mm256_permutevar8x32_ps(c, twice);
            s = _mm256_permutevar8x32_ps(s, twice);
            b = sm__mul_ymm(_mm256_movehdup_ps(v), _mm256_blend_ps(s, c, 0xaa));
            v = _mm256_fmaddsub_ps(_mm256_moveldup_ps(v), _mm256_blend_ps(c, s, 0xaa), b);
            _mm256_storeu_ps(x + 2 * i, v); /* a c - b s, a s + b c */
        }
        for (; i < n; i++)
            sm__rope_pair(x + (half_split ? i : 2 * i), half_split ? n : 1, cosines[i], sines[i]);
    }
}

SM__AVX2 static void sm__swiglu__avx2(const float *gate, const float *up, float *out, int n) {
    __m256 one = _mm256_set1_ps(1.0f), g;
    int i;
    for (i = 0; i + 8 <= n; i += 8) {
        g = _mm256_loadu_ps(gate + i);
        g = sm__div_ymm(g, sm__add_ymm(one, sm__exp_ymm(sm__negate_ymm(g))));
        _mm256_storeu_ps(out + i, sm__mul_ymm(g, _mm256_loadu_ps(up + i)));
    }
    sm__swiglu__scalar(gate + i, up + i, out + i, n - i);
}

SM__AVX2 static void sm__gelu_tanh__avx2(const float *x, float *out, int n) {
    __m256 one = _mm256_set1_ps(1.0f), v, u;
    int i;
    for (i = 0; i + 8 <= n; i += 8) {
        v = _mm256_loadu_ps(x + i);
        u = _mm256_fmadd_ps(sm__mul_ymm(_mm256_set1_ps(0.044715f), v), v, one);
        u = sm__mul_ymm(sm__mul_ymm(_mm256_set1_ps(1.59576912f), v), u);
        v = sm__div_ymm(v, sm__add_ymm(one, sm__exp_ymm(sm__negate_ymm(u))));
        _mm256_storeu_ps(out + i, v);
    }
    sm__gelu_tanh__scalar(x + i, out + i, n - i);
}

SM__AVX2 static void sm__gelu_erf__avx2(const float *x, float *out, int n) {
    __m256 one = _mm256_set1_ps(1.0f), two = _mm256_set1_ps(2.0f);
    __m256 abs = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    int i;
    for (i = 0; i + 8 <= n; i += 8) {
        __m256 v = _mm256_loadu_ps(x + i), t, u, p = sm__zero_ymm();
        t = sm__mul_ymm(_mm256_and_ps(v, abs), _mm256_set1_ps(0.707106769f));
        u = sm__div_ymm(two, sm__add_ymm(two, t));
#define SM__ERFC_STEP(c) p = _mm256_fmadd_ps(p, u, _mm256_set1_ps(c));
        SM__ERFC_LIST(SM__ERFC_STEP)
#undef SM__ERFC_STEP
        p = sm__mul_ymm(u, sm__exp_ymm(_mm256_fnmadd_ps(t, t, p)));
        p = sm__mul_ymm(_mm256_set1_ps(0.5f), p);
        u = _mm256_blendv_ps(sm__sub_ymm(one, p), p, v); /* by the sign of v */
        _mm256_storeu_ps(out + i, sm__mul_ymm(v, u));
    }
    sm__gelu_erf__scalar(x + i, out + i, n - i);
}

SM__AVX2 static void sm__add__avx2(const float *x, float *out, int n) {
    int i;
    for (i = 0; i + 8 <= n; i += 8)
        _mm256_storeu_ps(out + i, sm__add_ymm(_mm256_loadu_ps(out + i), _mm256_loadu_ps(x + i)));
    sm__add__scalar(x + i, out + i, n - i);
}
SM__AVX2 static void sm__mul__avx2(const float *x, float *out, int n) {
    int i;
    for (i = 0; i + 8 <= n; i += 8)
        _mm256_storeu_ps(out + i, sm__mul_ymm(_mm256_loadu_ps(out + i), _mm256_loadu_ps(x + i)));
    sm__mul__scalar(x + i, out + i, n - i);
}
SM__AVX2 static void sm__scale__avx2(float *x, float factor, int n) {
    int i;
    for (i = 0; i + 8 <= n; i += 8)
        _mm256_storeu_ps(x + i, sm__mul_ymm(_mm256_loadu_ps(x + i), _mm256_set1_ps(factor)));
    sm__scale__scalar(x + i, factor, n - i);
}
SM__AVX2 static void sm__to_f16__avx2(const float *x, uint16_t *out, int n) {
    int i;
    for (i = 0; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(void *)(out + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
    sm__to_f16__scalar(x + i, out + i, n - i);
}
#endif

#ifdef SM__HAS_AVX512
SM__AVX512 static void sm__rope__avx512(float *x, int n_heads, int head_dim, int n_rot,
                                        const float *cosines, const float *sines, int half_split) {
    __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    int h, i, n = n_rot / 2;
    for (h = 0; h < n_heads; h++, x += head_dim) {
        for (i = 0; half_split && i < n; i += 16) {
            __mmask16 m = sm__mask_zmm(n - i);
            __m512 a = _mm512_maskz_loadu_ps(m, x + i), b = _mm512_maskz_loadu_ps(m, x + n + i);
            __m512 c = _mm512_maskz_loadu_ps(m, cosines + i);
            __m512 s = _mm512_maskz_loadu_ps(m, sines + i);
            _mm512_mask_storeu_ps(x + i, m, _mm512_fmsub_ps(a, c, sm__mul_zmm(b, s)));
            _mm512_mask_storeu_ps(x + n + i, m, _mm512_fmadd_ps(a, s, sm__mul_zmm(b, c)));
        }
        for (i = 0; !half_split && i < n; i += 8) { /* 8 pairs a b a b ... */
            __mmask16 m = sm__mask_zmm(2 * (n - i)), m8 = sm__mask_zmm(n - i) & 0xff;
            __m512 v = _mm512_maskz_loadu_ps(m, x + 2 * i);
            __m512 c = _mm512_permutexvar_ps(twice, _mm512_maskz_loadu_ps(m8, cosines + i));
            __m512 s = _mm512_permutexvar_ps(twice, _mm512_maskz_loadu_ps(m8, sines + i));
            __m512 cs = _mm512_mask_mov_ps(c, 0xaaaa, s), sc = _mm512_mask_mov_ps(s, 0xaaaa, c);
            __m512 b = sm__mul_zmm(_mm512_movehdup_ps(v), sc);
            v = _mm512_fmaddsub_ps(_mm512_moveldup_ps(v), cs, b); /* a c - b s, a s + b c */
            _mm512_mask_storeu_ps(x + 2 * i, m, v);
        }
    }
}

SM__AVX512 static void sm__swiglu__avx512(const float *gate, const float *up, float *out, int n) {
    __m512 one = _mm512_set1_ps(1.0f);
    int i;
    for (i = 0; i < n; i += 16) {
        __mmask16 m = sm__mask_zmm(n - i);
        __m512 g = _mm512_maskz_loadu_ps(m, gate + i), u = _mm512_maskz_loadu_ps(m, up + i);
        g = sm__div_zmm(g, sm__add_zmm(one, sm__exp_zmm(sm__negate_zmm(g))));
        _mm512_mask_storeu_ps(out + i, m, sm__mul_zmm(g, u));
    }
}

SM__AVX512 static void sm__gelu_tanh__avx512(const float *x, float *out, int n) {
    __m512 one = _mm512_set1_ps(1.0f);
    int i;
    for (i = 0; i < n; i += 16) {
        __mmask16 m = sm__mask_zmm(n - i);
        __m512 v = _mm512_maskz_loadu_ps(m, x + i);
        __m512 u = _mm512_fmadd_ps(sm__mul_zmm(_mm512_set1_ps(0.044715f), v), v, one);
        u = sm__mul_zmm(sm__mul_zmm(_mm512_set1_ps(1.59576912f), v), u);
        v = sm__div_zmm(v, sm__add_zmm(one, sm__exp_zmm(sm__negate_zmm(u))));
        _mm512_mask_storeu_ps(out + i, m, v);
    }
}

SM__AVX512 static void sm__gelu_erf__avx512(const float *x, float *out, int n) {
    __m512 one = _mm512_set1_ps(1.0f), two = _mm512_set1_ps(2.0f);
    int i;
    for (i = 0; i < n; i += 16) {
        __mmask16 m = sm__mask_zmm(n - i);
        __m512 v = _mm512_maskz_loadu_ps(m, x + i), t, u, p = sm__zero_zmm();
        t = sm__mul_zmm(_mm512_abs_ps(v), _mm512_set1_ps(0.707106769f));
        u = sm__div_zmm(two, sm__add_zmm(two, t));
#define SM__ERFC_STEP(c) p = _mm512_fmadd_ps(p, u, _mm512_set1_ps(c));
        SM__ERFC_LIST(SM__ERFC_STEP)
#undef SM__ERFC_STEP
        p = sm__mul_zmm(u, sm__exp_zmm(_mm512_fnmadd_ps(t, t, p)));
        p = sm__mul_zmm(_mm512_set1_ps(0.5f), p);
        u = _mm512_mask_mov_ps(sm__sub_zmm(one, p), _mm512_movepi32_mask(_mm512_castps_si512(v)),
                               p);
        _mm512_mask_storeu_ps(out + i, m, sm__mul_zmm(v, u));
    }
}

SM__AVX512 static void sm__add__avx512(const float *x, float *out, int n) {
    int i;
    for (i = 0; i < n; i += 16) {
        __mmask16 m = sm__mask_zmm(n - i);
        __m512 v = sm__add_zmm(_mm512_maskz_loadu_ps(m, out + i), _mm512_maskz_loadu_ps(m, x + i));
        _mm512_mask_storeu_ps(out + i, m, v);
    }
}
SM__AVX512 static void sm__mul__avx512(const float *x, float *out, int n) {
    int i;
    for (i = 0; i < n; i += 16) {
        __mmask16 m = sm__mask_zmm(n - i);
        __m512 v = sm__mul_zmm(_mm512_maskz_loadu_ps(m, out + i), _mm512_maskz_loadu_ps(m, x + i));
        _mm512_mask_storeu_ps(out + i, m, v);
    }
}
SM__AVX512 static void sm__scale__avx512(float *x, float factor, int n) {
    int i;
    for (i = 0; i < n; i += 16) {
        __mmask16 m = sm__mask_zmm(n - i);
        __m512 v = sm__mul_zmm(_mm512_maskz_loadu_ps(m, x + i), _mm512_set1_ps(factor));
        _mm512_mask_storeu_ps(x + i, m, v);
    }
}
SM__AVX512 static void sm__to_f16__avx512(const float *x, uint16_t *out, int n) {
    int i;
    for (i = 0; i < n; i += 16) {
        __mmask16 m = sm__mask_zmm(n - i);
        __m512 v = _mm512_maskz_loadu_ps(m, x + i); /* maskz: gcc's plain one warns at -O0 */
        __m256i h = _mm512_maskz_cvtps_ph(0xffff, v, _MM_FROUND_TO_NEAREST_INT);
        _mm256_mask_storeu_epi16(out + i, m, h);
    }
}
#endif

#ifdef SM__HAS_NEON
/* Pairs a, b rotated; 4 of them. */
SM__INLINE void sm__rotate_neon(float32x4_t *a, float32x4_t *b, const float *c, const float *s) {
    float32x4_t cosines = vld1q_f32(c), sines = vld1q_f32(s), x = *a;
    *a = sm__fma_neon(sm__negate_neon(sm__mul_neon(*b, sines)), x, cosines);
    *b = sm__fma_neon(sm__mul_neon(*b, cosines), x, sines);
}

static void sm__rope__neon(float *x, int n_heads, int head_dim, int n_rot, const float *cosines,
                           const float *sines, int half_split) {
    int h, i, n = n_rot / 2;
    for (h = 0; h < n_heads; h++, x += head_dim) {
        for (i = 0; i + 4 <= n; i += 4) {
            if (half_split) {
                float32x4_t a = vld1q_f32(x + i), b = vld1q_f32(x + n + i);
                sm__rotate_neon(&a, &b, cosines + i, sines + i);
                vst1q_f32(x + i, a);
                vst1q_f32(x + n + i, b);
            } else {
                float32x4x2_t p = vld2q_f32(x + 2 * i);
                sm__rotate_neon(&p.val[0], &p.val[1], cosines + i, sines + i);
                vst2q_f32(x + 2 * i, p);
            }
        }
        for (; i < n; i++)
            sm__rope_pair(x + (half_split ? i : 2 * i), half_split ? n : 1, cosines[i], sines[i]);
    }
}

static void sm__swiglu__neon(const float *gate, const float *up, float *out, int n) {
    float32x4_t one = vdupq_n_f32(1.0f), g, e;
    int i;
    for (i = 0; i + 4 <= n; i += 4) {
        g = vld1q_f32(gate + i);
        e = sm__add_neon(one, sm__exp_neon(sm__negate_neon(g)));
        vst1q_f32(out + i, sm__mul_neon(sm__div_neon(g, e), vld1q_f32(up + i)));
    }
    sm__swiglu__scalar(gate + i, up + i, out + i, n - i);
}

static void sm__gelu_tanh__neon(const float *x, float *out, int n) {
    float32x4_t one = vdupq_n_f32(1.0f), v, u;
    int i;
    for (i = 0; i + 4 <= n; i += 4) {
        v = vld1q_f32(x + i);
        u = sm__fma_neon(one, sm__mul_neon(vdupq_n_f32(0.044715f), v), v);
        u = sm__mul_neon(sm__mul_neon(vdupq_n_f32(1.59576912f), v), u);
        vst1q_f32(out + i, sm__div_neon(v, sm__add_neon(one, sm__exp_neon(sm__negate_neon(u)))));
    }
    sm__gelu_tanh__scalar(x + i, out + i, n - i);
}

static void sm__gelu_erf__neon(const float *x, float *out, int n) {
    float32x4_t one = vdupq_n_f32(1.0f), two = vdupq_n_f32(2.0f), v, t, u, p, e;
    int i;
    for (i = 0; i + 4 <= n; i += 4) {
        v = vld1q_f32(x + i);
        t = sm__mul_neon(vabsq_f32(v), vdupq_n_f32(0.707106769f));
        u = sm__div_neon(two, sm__add_neon(two, t));
        p = sm__zero_neon();
#define SM__ERFC_STEP(c) p = sm__fma_neon(vdupq_n_f32(c), p, u);
        SM__ERFC_LIST(SM__ERFC_STEP)
#undef SM__ERFC_STEP
        p = sm__exp_neon(sm__fma_neon(p, sm__negate_neon(t), t));
        e = sm__mul_neon(vdupq_n_f32(0.5f), sm__mul_neon(u, p));
        u = sm__sub_neon(one, e);
        e = vbslq_f32(vcltq_s32(vreinterpretq_s32_f32(v), vdupq_n_s32(0)), e, u);
        vst1q_f32(out + i, sm__mul_neon(v, e));
    }
    sm__gelu_erf__scalar(x + i, out + i, n - i);
}

static void sm__add__neon(const float *x, float *out, int n) {
    int i;
    for (i = 0; i + 4 <= n; i += 4)
        vst1q_f32(out + i, sm__add_neon(vld1q_f32(out + i), vld1q_f32(x + i)));
    sm__add__scalar(x + i, out + i, n - i);
}
static void sm__mul__neon(const float *x, float *out, int n) {
    int i;
    for (i = 0; i + 4 <= n; i += 4)
        vst1q_f32(out + i, sm__mul_neon(vld1q_f32(out + i), vld1q_f32(x + i)));
    sm__mul__scalar(x + i, out + i, n - i);
}
static void sm__scale__neon(float *x, float factor, int n) {
    int i;
    for (i = 0; i + 4 <= n; i += 4)
        vst1q_f32(x + i, sm__mul_neon(vld1q_f32(x + i), vdupq_n_f32(factor)));
    sm__scale__scalar(x + i, factor, n - i);
}

static void sm__to_f16__neon(const float *x, uint16_t *out, int n) {
    int i;
    for (i = 0; i + 4 <= n; i += 4)
        vst1_u16(out + i, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(x + i))));
    sm__to_f16__scalar(x + i, out + i, n - i);
}
#endif

/* --- products of the trainer ------------------------------------------------------------------ */

#ifndef SMALLMIND_NO_TRAIN

static void sm__gemm__scalar(const sm__factor *a, int rows, const float *b, int k, int columns,
                             float *out, size_t out_stride, int add) {
    int i, j, l;
    for (i = 0; i < rows; i++, out += out_stride) {
        const float *x = a->p + (size_t)(i / SM__GEMM_ROWS) * a->next +
                         (size_t)(i % SM__GEMM_ROWS) * a->row;
        for (j = 0; j < columns; j++) {
            float sum = 0.0f;
            for (l = 0; l < k; l++)
                sum = sm__fma(x[(size_t)l * a->step], b[l * SM__GEMM_COLS + j], sum);
            out[j] = add ? out[j] + sum : sum;
        }
    }
}

#ifdef SM__HAS_SSE41
SM__SSE41 static void sm__gemm__sse41(const sm__factor *a, int rows, const float *b, int k,
                                      int columns, float *out, size_t out_stride, int add) {
    int i, j, l, n = (columns + 3) / 4;
    for (i = 0; i < rows; i++, out += out_stride) {
        const float *x = a->p + (size_t)(i / SM__GEMM_ROWS) * a->next +
                         (size_t)(i % SM__GEMM_ROWS) * a->row;
        for (j = 0; j < n; j++) {
            __m128 sum = _mm_setzero_ps();
            for (l = 0; l < k; l++)
                sum = sm__fma_xmm(_mm_set1_ps(x[(size_t)l * a->step]),
                                  _mm_load_ps(b + l * SM__GEMM_COLS + 4 * j), sum);
            if (add) sum = sm__add_xmm(_mm_loadu_ps(out + 4 * j), sum);
            _mm_storeu_ps(out + 4 * j, sum);
        }
    }
}
#endif

#ifdef SM__HAS_AVX2
/* n rows, at most 6: 12 sums, which hide the latency of fma. */
SM__AVX2 SM__INLINE void sm__gemm_rows_ymm(int n, const float *x, size_t row, size_t step,
                                           const float *b, int k, float *out, size_t out_stride,
                                           int add) {
    __m256 sum[6][2], lo, hi, v;
    int i, l;
    SM__UNROLL
    for (i = 0; i < n; i++) sum[i][0] = sum[i][1] = sm__zero_ymm();
    for (l = 0; l < k; l++, x += step, b += SM__GEMM_COLS) {
        lo = _mm256_load_ps(b);
        hi = _mm256_load_ps(b + 8);
        SM__UNROLL
        for (i = 0; i < n; i++) {
            v = _mm256_broadcast_ss(x + (size_t)i * row);
            sum[i][0] = _mm256_fmadd_ps(v, lo, sum[i][0]);
            sum[i][1] = _mm256_fmadd_ps(v, hi, sum[i][1]);
        }
    }
    SM__UNROLL
    for (i = 0; i < n; i++, out += out_stride) {
        if (add) sum[i][0] = sm__add_ymm(_mm256_loadu_ps(out), sum[i][0]);
        if (add) sum[i][1] = sm__add_ymm(_mm256_loadu_ps(out + 8), sum[i][1]);
        _mm256_storeu_ps(out, sum[i][0]);
        _mm256_storeu_ps(out + 8, sum[i][1]);
    }
}

SM__AVX2 static void sm__gemm__avx2(const sm__factor *a, int rows, const float *b, int k,
                                    int columns, float *out, size_t out_stride, int add) {
    int i;
    (void)columns;
    for (i = 0; i < rows; i += 6, out += 6 * out_stride) {
        const float *x = a->p + (size_t)(i / SM__GEMM_ROWS) * a->next +
                         (size_t)(i % SM__GEMM_ROWS) * a->row;
        switch (sm__min(rows - i, 6)) {
        case 1: sm__gemm_rows_ymm(1, x, a->row, a->step, b, k, out, out_stride, add); break;
        case 2: sm__gemm_rows_ymm(2, x, a->row, a->step, b, k, out, out_stride, add); break;
        case 3: sm__gemm_rows_ymm(3, x, a->row, a->step, b, k, out, out_stride, add); break;
        case 4: sm__gemm_rows_ymm(4, x, a->row, a->step, b, k, out, out_stride, add); break;
        case 5: sm__gemm_rows_ymm(5, x, a->row, a->step, b, k, out, out_stride, add); break;
        default: sm__gemm_rows_ymm(6, x, a->row, a->step, b, k, out, out_stride, add); break;
        }
    }
}
#endif

#ifdef SM__HAS_AVX512
/* n rows by `panels` panels: with two, a number of a is loaded once for two fma. */
SM__AVX512 SM__INLINE void sm__gemm_rows_zmm(int n, int panels, const float *x, size_t row,
                                             size_t step, const float *b, int k, float *out,
                                             size_t out_stride, int add) {
    __m512 sum[SM__GEMM_ROWS][SM__GEMM_PANELS], v[SM__GEMM_PANELS], one;
    int i, j, l;
    SM__UNROLL
    for (i = 0; i < n; i++) sum[i][0] = sum[i][1] = sm__zero_zmm();
    for (l = 0; l < k; l++, x += step, b += SM__GEMM_COLS) {
        SM__UNROLL
        for (j = 0; j < panels; j++) v[j] = _mm512_load_ps(b + (size_t)(j * k) * SM__GEMM_COLS);
        SM__UNROLL
        for (i = 0; i < n; i++) {
            one = _mm512_set1_ps(x[(size_t)i * row]);
            SM__UNROLL
            for (j = 0; j < panels; j++) sum[i][j] = _mm512_fmadd_ps(one, v[j], sum[i][j]);
        }
    }
    SM__UNROLL
    for (i = 0; i < n; i++, out += out_stride)
        SM__UNROLL
        for (j = 0; j < panels; j++) {
            float *to = out + j * SM__GEMM_COLS;
            _mm512_storeu_ps(to, add ? sm__add_zmm(_mm512_loadu_ps(to), sum[i][j]) : sum[i][j]);
        }
}

SM__AVX512 SM__INLINE void sm__gemm_zmm(int panels, const sm__factor *a, int rows, const float *b,
                                        int k, float *out, size_t out_stride, int add) {
    int i, n;
    for (i = 0; i < rows; i += n, out += (size_t)n * out_stride) {
        const float *x = a->p + (size_t)(i / SM__GEMM_ROWS) * a->next +
                         (size_t)(i % SM__GEMM_ROWS) * a->row;
        n = rows - i >= SM__GEMM_ROWS ? SM__GEMM_ROWS : rows - i >= 4 ? 4 : 1;
        if (n == SM__GEMM_ROWS)
            sm__gemm_rows_zmm(SM__GEMM_ROWS, panels, x, a->row, a->step, b, k, out, out_stride,
                              add);
        else if (n == 4)
            sm__gemm_rows_zmm(4, panels, x, a->row, a->step, b, k, out, out_stride, add);
        else sm__gemm_rows_zmm(1, panels, x, a->row, a->step, b, k, out, out_stride, add);
    }
}

SM__AVX512 static void sm__gemm__avx512(const sm__factor *a, int rows, const float *b, int k,
                                        int columns, float *out, size_t out_stride, int add) {
    if (columns > SM__GEMM_COLS) sm__gemm_zmm(2, a, rows, b, k, out, out_stride, add);
    else sm__gemm_zmm(1, a, rows, b, k, out, out_stride, add);
}
#endif

#ifdef SM__HAS_AMX
/* --- AMX's BF16: a tile of sums is 16 x 16; one of a is 16 rows by 32 elements, one of b 16 pairs
 * of elements by 16 columns. Both are 16 registers of pairs, one the transpose of the other. ---- */
#define SM__DEPTH_BF16 512 /* of a packed factor */
#define SM__TILE_BF16 512  /* elements of a tile */

/* v[i] lane j <-> v[j] lane i */
SM__AVX512 SM__INLINE void sm__transpose16_zmm(__m512i v[16]) {
    __m512i u[16];
    int i;
    SM__UNROLL
    for (i = 0; i < 16; i += 2) {
        u[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        u[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
    SM__UNROLL
    for (i = 0; i < 16; i += 4) {
        v[i] = _mm512_unpacklo_epi64(u[i], u[i + 2]);
        v[i + 1] = _mm512_unpackhi_epi64(u[i], u[i + 2]);
        v[i + 2] = _mm512_unpacklo_epi64(u[i + 1], u[i + 3]);
        v[i + 3] = _mm512_unpackhi_epi64(u[i + 1], u[i + 3]);
    }
    SM__UNROLL
    for (i = 0; i < 4; i++) { /* quarters: of v[0, 4, 8, 12] + i */
        u[i] = _mm512_shuffle_i32x4(v[i], v[i + 4], 0x88);
        u[i + 4] = _mm512_shuffle_i32x4(v[i], v[i + 4], 0xdd);
        u[i + 8] = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0x88);
        u[i + 12] = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0xdd);
    }
    SM__UNROLL
    for (i = 0; i < 4; i++) {
        v[i] = _mm512_shuffle_i32x4(u[i], u[i + 8], 0x88);
        v[i + 4] = _mm512_shuffle_i32x4(u[i + 4], u[i + 12], 0x88);
        v[i + 8] = _mm512_shuffle_i32x4(u[i], u[i + 8], 0xdd);
        v[i + 12] = _mm512_shuffle_i32x4(u[i + 4], u[i + 12], 0xdd);
    }
}

#ifndef SM__EMULATED_AMX /* tests only: defined before */
#define SM__TO_BF16(low, high) ((__m512i)_mm512_cvtne2ps_pbh(high, low)) /* 16 and 16 */
#endif

/* Rows of a view, at most 16, by elements l .. l + 31 below k, as registers of pairs: a register a
 * pair, the rows in lanes, or a register a row. What is not there is 0. */
SM__AMX SM__INLINE void sm__pack_tile_bf16(sm__view a, int rows, int l, int k, int by_pair,
                                           void *to) {
    static const uint16_t pairs[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                       21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                       11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    __m512i order = _mm512_loadu_si512((const void *)pairs), v[16];
    __mmask16 first = sm__mask_zmm(sm__min(k - l, 16));
    __mmask16 second = sm__mask_zmm(sm__max(0, sm__min(k - l - 16, 16)));
    int i, along = a.step == 1;
    for (i = 0; i < 16; i++) {
        __m512 x = sm__zero_zmm(), y = x;
        int at = l + 2 * i;
        if (along && i < rows) {
            const float *p = a.p + (size_t)i * a.row + l;
            x = _mm512_maskz_loadu_ps(first, p);
            y = _mm512_maskz_loadu_ps(second, p + 16);
        } else if (!along && at < k) {
            const float *p = a.p + (size_t)at * a.step;
            x = _mm512_maskz_loadu_ps(sm__mask_zmm(rows), p);
            if (at + 1 < k) y = _mm512_maskz_loadu_ps(sm__mask_zmm(rows), p + a.step);
        }
        v[i] = SM__TO_BF16(x, y);
        if (!along) v[i] = _mm512_permutexvar_epi16(order, v[i]);
    }
    if (along == by_pair) sm__transpose16_zmm(v);
    for (i = 0; i < 16; i++) _mm512_store_si512((void *)((__m512i *)to + i), v[i]);
}

/* All tiles of `rows` rows of a view: [rows / 16, k / 32], both rounded up. */
SM__AMX SM__NOINLINE static void sm__pack_bf16__amx(sm__view a, int rows, int k, int by_pair,
                                                    uint16_t *to) {
    int i, l;
    for (i = 0; i < rows; i += 16)
        for (l = 0; l < k; l += 32, to += SM__TILE_BF16) {
            sm__view v = {a.p + (size_t)i * a.row, a.row, a.step};
            sm__pack_tile_bf16(v, sm__min(16, rows - i), l, k, by_pair, to);
        }
}

/* 16 or 32 rows by 16 or 32 columns. Tiles 0 - 3 are sums, 4 and 5 of a, 6 and 7 of b; `next`:
 * elements from one row of tiles to the next. */
SM__AMX SM__INLINE void sm__tiles_bf16(int tall, int wide, const uint16_t *a,
                                            const uint16_t *b, size_t next, float *out,
                                            size_t stride, int add) {
    const uint16_t *end = a + next;
    size_t bytes = stride * sizeof(float);
    float *low = out + 16 * stride;
    if (add) {
        _tile_loadd(0, out, bytes);
        if (wide) _tile_loadd(1, out + 16, bytes);
        if (tall) _tile_loadd(2, low, bytes);
        if (tall && wide) _tile_loadd(3, low + 16, bytes);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (; a < end; a += SM__TILE_BF16, b += SM__TILE_BF16) {
        _tile_loadd(4, a, 64);
        _tile_loadd(6, b, 64);
        _tile_dpbf16ps(0, 4, 6);
        if (wide) _tile_loadd(7, b + next, 64);
        if (wide) _tile_dpbf16ps(1, 4, 7);
        if (tall) _tile_loadd(5, a + next, 64);
        if (tall) _tile_dpbf16ps(2, 5, 6);
        if (tall && wide) _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, out, bytes);
    if (wide) _tile_stored(1, out + 16, bytes);
    if (tall) _tile_stored(2, low, bytes);
    if (tall && wide) _tile_stored(3, low + 16, bytes);
}

/* The same where rows < 32 or columns < 32 are whole tiles, or end inside one: then by way of
 * temp, [32, 32]. */
SM__AMX SM__NOINLINE static void sm__edge_bf16__amx(int rows, int columns, const uint16_t *a,
                                                    const uint16_t *b, size_t next, float *out,
                                                    size_t stride, int add, float *temp) {
    int whole = rows % 16 == 0 && columns % 16 == 0, i;
    size_t to_stride = whole ? stride : 32, bytes = (size_t)columns * sizeof(float);
    float *to = whole ? out : temp;
    for (i = 0; !whole && add && i < rows; i++)
        memcpy(temp + 32 * i, out + (size_t)i * stride, bytes);
    __asm__ __volatile__("" : : : "memory"); /* gcc does not see what a tile loads and stores */
    if (rows > 16 && columns > 16) sm__tiles_bf16(1, 1, a, b, next, to, to_stride, add);
    else if (rows > 16) sm__tiles_bf16(1, 0, a, b, next, to, to_stride, add);
    else if (columns > 16) sm__tiles_bf16(0, 1, a, b, next, to, to_stride, add);
    else sm__tiles_bf16(0, 0, a, b, next, to, to_stride, add);
    __asm__ __volatile__("" : : : "memory");
    for (i = 0; !whole && i < rows; i++) memcpy(out + (size_t)i * stride, temp + 32 * i, bytes);
}

SM__AMX static void sm__multiply_bf16__amx(sm__view a, sm__view b, int m, int n, int k,
                                                float *out, size_t stride, int add,
                                                float *scratch) {
    uint16_t *packed = (uint16_t *)(void *)scratch;
    uint16_t *panels = (uint16_t *)(void *)(scratch + SM__PACKED_A);
    float *temp = scratch + SM__PACKED_A + SM__PANELS;
    int l, i, j;
    sm__tiles_begin_amx(16, 64);
    for (l = 0; l < k; l += SM__DEPTH_BF16, add = 1) {
        int part = sm__min(SM__DEPTH_BF16, k - l);
        size_t next = (size_t)((part + 31) / 32) * SM__TILE_BF16;
        sm__view x = {a.p + (size_t)l * a.step, a.row, a.step};
        sm__pack_bf16__amx(x, m, part, 0, packed);
        for (j = 0; j < n; j += 32) {
            sm__view y = {b.p + (size_t)j * b.row + (size_t)l * b.step, b.row, b.step};
            sm__pack_bf16__amx(y, sm__min(32, n - j), part, 1, panels);
            __asm__ __volatile__("" : : : "memory");
            for (i = 0; i < m; i += 32) {
                float *to = out + (size_t)i * stride + j;
                const uint16_t *from = packed + (size_t)(i / 16) * next;
                if (m - i >= 32 && n - j >= 32)
                    sm__tiles_bf16(1, 1, from, panels, next, to, stride, add);
                else
                    sm__edge_bf16__amx(sm__min(32, m - i), sm__min(32, n - j), from, panels, next,
                                       to, stride, add, temp);
            }
        }
    }
    __asm__ __volatile__("" : : : "memory");
    _tile_release();
}
#endif

#ifdef SM__HAS_NEON
/* n rows, at most 6. */
SM__INLINE void sm__gemm_rows_neon(int n, const float *x, size_t row, size_t step, const float *b,
                                   int k, float *out, size_t out_stride, int add) {
    float32x4_t sum[6][4], w[4], v;
    int i, j, l;
    SM__UNROLL
    for (i = 0; i < n; i++) sum[i][0] = sum[i][1] = sum[i][2] = sum[i][3] = sm__zero_neon();
    for (l = 0; l < k; l++, x += step, b += SM__GEMM_COLS) {
        SM__UNROLL
        for (j = 0; j < 4; j++) w[j] = vld1q_f32(b + 4 * j);
        SM__UNROLL
        for (i = 0; i < n; i++) {
            v = vdupq_n_f32(x[(size_t)i * row]);
            SM__UNROLL
            for (j = 0; j < 4; j++) sum[i][j] = sm__fma_neon(sum[i][j], w[j], v);
        }
    }
    SM__UNROLL
    for (i = 0; i < n; i++, out += out_stride) {
        SM__UNROLL
        for (j = 0; j < 4; j++) {
            if (add) sum[i][j] = sm__add_neon(vld1q_f32(out + 4 * j), sum[i][j]);
            vst1q_f32(out + 4 * j, sum[i][j]);
        }
    }
}

static void sm__gemm__neon(const sm__factor *a, int rows, const float *b, int k, int columns,
                           float *out, size_t out_stride, int add) {
    int i, n;
    (void)columns;
    for (i = 0; i < rows; i += n, out += (size_t)n * out_stride) {
        const float *x = a->p + (size_t)(i / SM__GEMM_ROWS) * a->next +
                         (size_t)(i % SM__GEMM_ROWS) * a->row;
        n = rows - i >= 6 ? 6 : rows - i >= 2 ? 2 : 1; /* 2 divides 12: no pair across a block */
        if (n == 6) sm__gemm_rows_neon(6, x, a->row, a->step, b, k, out, out_stride, add);
        else if (n == 2) sm__gemm_rows_neon(2, x, a->row, a->step, b, k, out, out_stride, add);
        else sm__gemm_rows_neon(1, x, a->row, a->step, b, k, out, out_stride, add);
    }
}
#endif

#endif /* SMALLMIND_NO_TRAIN */

/* ================================================================================================
 * MARK: [SM27] DISPATCH
 * What the processor has, and the table of kernels for it.
 * ============================================================================================== */

SM_API const char *sm_isa_name(int isa) {
    static const char *const names[] = {"auto",   "scalar", "sse41", "avx2",
                                        "avx512", "amx",    "neon"};
    return isa >= 0 && isa <= SM_ISA_NEON ? names[isa] : "unknown";
}

#ifdef SM__X86
static void sm__cpuid(int leaf, int sub, uint32_t r[4]) {
#if defined(_MSC_VER)
    __cpuidex((int *)r, leaf, sub);
#else
    __cpuid_count(leaf, sub, r[0], r[1], r[2], r[3]);
#endif
}

/* Which registers the operating system saves (XCR0). */
static uint32_t sm__xgetbv(void) {
#if defined(_MSC_VER)
    return (uint32_t)_xgetbv(0);
#else
    uint32_t low, high;
    __asm__ __volatile__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
#endif
}

static sm_isa sm__isa_detect(void) {
    uint32_t r[4], last, os, leaf1, leaf7b, leaf7c;
    sm_isa floor;
    sm__cpuid(0, 0, r);
    last = r[0];
    sm__cpuid(1, 0, r);
    leaf1 = r[2];
    floor = (leaf1 >> 9 & 1) && (leaf1 >> 19 & 1) ? SM_ISA_SSE41 : SM_ISA_SCALAR; /* SSSE3 too */
    if (last < 7 || !(leaf1 >> 27 & 1)) return floor; /* OSXSAVE */
    os = sm__xgetbv();
    sm__cpuid(7, 0, r);
    leaf7b = r[1];
    leaf7c = r[2];
    /* AVX, FMA, F16C, and YMM state; AVX2 */
    if ((os & 6) != 6 || (leaf1 >> 28 & 1) == 0 || !(leaf1 >> 12 & 1) || !(leaf1 >> 29 & 1) ||
        !(leaf7b >> 5 & 1))
        return floor;
#ifdef SM__EMULATED_AVX512
    return SM_ISA_AVX512;
#endif
    /* ZMM state; F, DQ, BW, VL; VNNI */
    if ((os & 0xe6) == 0xe6 && (leaf7b >> 16 & 1) && (leaf7b >> 17 & 1) && (leaf7b >> 30 & 1) &&
        (leaf7b >> 31 & 1) && (leaf7c >> 11 & 1))
        return SM_ISA_AVX512;
    return SM_ISA_AVX2;
}
#endif

#ifdef SM__HAS_AMX
/* Whether tiles can be used: the processor has AMX-TILE and AMX-INT8, the operating system saves
 * their state (XCR0), and grants it to the process, which is asked here, and for good. */
static int sm__amx_request(void) {
#ifdef SM__EMULATED_AMX
    return 1;
#else
    uint32_t r[4];
    sm__cpuid(7, 0, r);
    if ((r[3] >> 24 & 3) != 3 || (sm__xgetbv() >> 17 & 3) != 3) return 0;
    return sm__syscall(158, 0x1023L, 18L) == 0; /* arch_prctl, ARCH_REQ_XCOMP_PERM, the tiles */
#endif
}
#endif

#if defined(SM__HAS_AMX) && !defined(SMALLMIND_NO_TRAIN)
static int sm__has_amx_bf16(void) {
#ifdef SM__EMULATED_AMX
    return 1;
#else
    uint32_t r[4];
    sm__cpuid(7, 0, r);
    if (!(r[3] >> 22 & 1)) return 0;
    sm__cpuid(7, 1, r); /* AVX512_BF16 */
    return r[0] >> 5 & 1;
#endif
}
#endif

SM_API sm_isa sm_isa_best(void) {
    sm_isa best = SM_ISA_SCALAR;
#if defined(SM__X86)
    best = sm__isa_detect();
#ifndef SM__HAS_AVX512
    if (best == SM_ISA_AVX512) best = SM_ISA_AVX2;
#endif
#ifndef SM__HAS_AVX2
    if (best == SM_ISA_AVX2) best = SM_ISA_SSE41;
#endif
#ifndef SM__HAS_SSE41
    if (best == SM_ISA_SSE41) best = SM_ISA_SCALAR;
#endif
#elif defined(SM__HAS_NEON)
    best = SM_ISA_NEON;
#endif
    return best;
}

static void sm__kernels_scalar(sm__kernels *k) {
    k->isa = SM_ISA_SCALAR;
    k->matmul[SM__T_F32] = sm__matmul_f32__scalar;
    k->matmul[SM__T_F16] = sm__matmul_f16__scalar;
    k->matmul[SM__T_BF16] = sm__matmul_bf16__scalar;
    k->matmul[SM__T_Q8_0] = sm__matmul_q8_0__scalar;
    k->matmul[SM__T_Q4_0] = sm__matmul_q4_0__scalar;
#define SM__MATMUL(name, T) k->matmul[T] = sm__matmul_##name##__scalar;
    SM__PLAIN_LIST(SM__MATMUL)
#undef SM__MATMUL
    k->attend_keys = sm__attend_keys__scalar;
    k->attend_values = sm__attend_values__scalar;
    k->merge = sm__merge__scalar;
    k->quant = sm__quant__scalar;
    k->rms_norm = sm__rms_norm__scalar;
    k->layer_norm = sm__layer_norm__scalar;
    k->softmax = sm__softmax__scalar;
    k->rope = sm__rope__scalar;
    k->swiglu = sm__swiglu__scalar;
    k->gelu_tanh = sm__gelu_tanh__scalar;
    k->gelu_erf = sm__gelu_erf__scalar;
    k->add = sm__add__scalar;
    k->mul = sm__mul__scalar;
    k->scale = sm__scale__scalar;
    k->soft_cap = sm__soft_cap__scalar;
    k->to_f16 = sm__to_f16__scalar;
#ifndef SMALLMIND_NO_TRAIN
    k->gemm = sm__gemm__scalar;
    k->gemm_columns = SM__GEMM_COLS;
    k->multiply_bf16 = NULL;
#endif
}

#ifdef SM__HAS_SSE41
static void sm__kernels_sse41(sm__kernels *k) {
    k->isa = SM_ISA_SSE41;
    k->matmul[SM__T_F32] = sm__matmul_f32__sse41;
    k->matmul[SM__T_F16] = sm__matmul_f16__sse41;
    k->matmul[SM__T_BF16] = sm__matmul_bf16__sse41;
    k->matmul[SM__T_Q8_0] = sm__matmul_q8_0__sse41;
    k->matmul[SM__T_Q4_0] = sm__matmul_q4_0__sse41;
    k->matmul[SM__T_Q4_K] = sm__matmul_q4_k__sse41;
    k->matmul[SM__T_Q5_K] = sm__matmul_q5_k__sse41;
    k->matmul[SM__T_Q6_K] = sm__matmul_q6_k__sse41;
    k->attend_keys = sm__attend_keys__sse41;
    k->attend_values = sm__attend_values__sse41;
    k->quant = sm__quant__sse41;
    k->rms_norm = sm__rms_norm__sse41;
    k->softmax = sm__softmax__sse41;
    k->soft_cap = sm__soft_cap__sse41;
    k->swiglu = sm__swiglu__sse41;
    k->gelu_tanh = sm__gelu_tanh__sse41;
    k->gelu_erf = sm__gelu_erf__sse41;
#ifndef SMALLMIND_NO_TRAIN
    k->gemm = sm__gemm__sse41;
#endif
}
#endif

#ifdef SM__HAS_AVXVNNI
/* Whether the processor has vpdpbusd on AVX2's registers: leaf 7's subleaf 1, if there is one. */
static int sm__has_avxvnni(void) {
#ifdef SM__EMULATED_AVXVNNI
    return 1;
#else
    uint32_t r[4];
    sm__cpuid(7, 0, r);
    if (r[0] < 1) return 0;
    sm__cpuid(7, 1, r);
    return (int)(r[0] >> 4 & 1);
#endif
}
#endif

#ifdef SM__HAS_AVX2
static void sm__kernels_avx2(sm__kernels *k) {
    k->isa = SM_ISA_AVX2;
    k->matmul[SM__T_F32] = sm__matmul_f32__avx2;
    k->matmul[SM__T_F16] = sm__matmul_f16__avx2;
    k->matmul[SM__T_BF16] = sm__matmul_bf16__avx2;
    k->matmul[SM__T_Q8_0] = sm__matmul_q8_0__avx2;
    k->matmul[SM__T_Q4_0] = sm__matmul_q4_0__avx2;
    k->matmul[SM__T_Q4_K] = sm__matmul_q4_k__avx2;
    k->matmul[SM__T_Q5_K] = sm__matmul_q5_k__avx2;
    k->matmul[SM__T_Q6_K] = sm__matmul_q6_k__avx2;
    k->attend_keys = sm__attend_keys__avx2;
    k->attend_values = sm__attend_values__avx2;
    k->merge = sm__merge__avx2;
    k->quant = sm__quant__avx2;
    k->rms_norm = sm__rms_norm__avx2;
    k->layer_norm = sm__layer_norm__avx2;
    k->softmax = sm__softmax__avx2;
    k->rope = sm__rope__avx2;
    k->swiglu = sm__swiglu__avx2;
    k->gelu_tanh = sm__gelu_tanh__avx2;
    k->gelu_erf = sm__gelu_erf__avx2;
    k->add = sm__add__avx2;
    k->mul = sm__mul__avx2;
    k->scale = sm__scale__avx2;
    k->soft_cap = sm__soft_cap__avx2;
    k->to_f16 = sm__to_f16__avx2;
#ifndef SMALLMIND_NO_TRAIN
    k->gemm = sm__gemm__avx2;
#endif
#ifdef SM__HAS_AVXVNNI
    if (sm__has_avxvnni()) {
        k->matmul[SM__T_Q8_0] = sm__matmul_q8_0__avxvnni;
        k->matmul[SM__T_Q4_0] = sm__matmul_q4_0__avxvnni;
    }
#endif
}
#endif

#ifdef SM__HAS_AVX512
static void sm__kernels_avx512(sm__kernels *k) {
    k->isa = SM_ISA_AVX512;
    k->matmul[SM__T_F32] = sm__matmul_f32__avx512;
    k->matmul[SM__T_F16] = sm__matmul_f16__avx512;
    k->matmul[SM__T_BF16] = sm__matmul_bf16__avx512;
    k->matmul[SM__T_Q8_0] = sm__matmul_q8_0__avx512;
    k->matmul[SM__T_Q4_0] = sm__matmul_q4_0__avx512;
    k->matmul[SM__T_Q4_K] = sm__matmul_q4_k__avx512;
    k->matmul[SM__T_Q5_K] = sm__matmul_q5_k__avx512;
    k->matmul[SM__T_Q6_K] = sm__matmul_q6_k__avx512;
    k->attend_keys = sm__attend_keys__avx512;
    k->attend_values = sm__attend_values__avx512;
    k->merge = sm__merge__avx512;
    k->quant = sm__quant__avx512;
    k->rms_norm = sm__rms_norm__avx512;
    k->layer_norm = sm__layer_norm__avx512;
    k->softmax = sm__softmax__avx512;
    k->rope = sm__rope__avx512;
    k->swiglu = sm__swiglu__avx512;
    k->gelu_tanh = sm__gelu_tanh__avx512;
    k->gelu_erf = sm__gelu_erf__avx512;
    k->add = sm__add__avx512;
    k->mul = sm__mul__avx512;
    k->scale = sm__scale__avx512;
    k->soft_cap = sm__soft_cap__avx512;
    k->to_f16 = sm__to_f16__avx512;
#ifndef SMALLMIND_NO_TRAIN
    k->gemm = sm__gemm__avx512;
    k->gemm_columns = SM__GEMM_PANELS * SM__GEMM_COLS;
#endif
}
#endif

#ifdef SM__HAS_AMX
static void sm__kernels_amx(sm__kernels *k) {
    k->isa = SM_ISA_AMX;
    k->matmul[SM__T_Q8_0] = sm__matmul_q8_0__amx;
    k->matmul[SM__T_Q4_0] = sm__matmul_q4_0__amx;
    k->matmul[SM__T_Q4_K] = sm__matmul_q4_k__amx;
    k->matmul[SM__T_Q5_K] = sm__matmul_q5_k__amx;
    k->matmul[SM__T_Q6_K] = sm__matmul_q6_k__amx;
#ifndef SMALLMIND_NO_TRAIN
    if (sm__has_amx_bf16()) k->multiply_bf16 = sm__multiply_bf16__amx;
#endif
}
#endif

#ifdef SM__HAS_NEON
#ifdef SM__HAS_DOTPROD
/* Whether the processor has sdot (FEAT_DotProd), and smmla (FEAT_I8MM). */
#if defined(__APPLE__)
extern int sm__sysctlbyname(const char *name, void *old, size_t *old_bytes, void *value,
                            size_t bytes) SM__SYMBOL("sysctlbyname");
static int sm__has_feature(const char *name) {
    int has = 0;
    size_t bytes = sizeof has;
    return sm__sysctlbyname(name, &has, &bytes, NULL, 0) == 0 && has;
}
static int sm__has_dotprod(void) { return sm__has_feature("hw.optional.arm.FEAT_DotProd"); }
SM__UNUSED static int sm__has_i8mm(void) { return sm__has_feature("hw.optional.arm.FEAT_I8MM"); }
#elif defined(__linux__)
extern unsigned long sm__getauxval(unsigned long type) SM__SYMBOL("getauxval");
static int sm__has_dotprod(void) {
    return (int)(sm__getauxval(16) >> 20 & 1); /* AT_HWCAP, HWCAP_ASIMDDP */
}
SM__UNUSED static int sm__has_i8mm(void) {
    return (int)(sm__getauxval(26) >> 13 & 1); /* AT_HWCAP2, HWCAP2_I8MM */
}
#elif defined(_WIN32)
static int sm__has_dotprod(void) {
    return IsProcessorFeaturePresent(43) != 0; /* PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE */
}
SM__UNUSED static int sm__has_i8mm(void) {
    return IsProcessorFeaturePresent(66) != 0; /* PF_ARM_V82_I8MM_INSTRUCTIONS_AVAILABLE */
}
#else
static int sm__has_dotprod(void) { return 0; }
SM__UNUSED static int sm__has_i8mm(void) { return 0; }
#endif
#endif

static void sm__kernels_neon(sm__kernels *k) {
    k->isa = SM_ISA_NEON;
    k->matmul[SM__T_F32] = sm__matmul_f32__neon;
    k->matmul[SM__T_F16] = sm__matmul_f16__neon;
    k->matmul[SM__T_BF16] = sm__matmul_bf16__neon;
    k->matmul[SM__T_Q8_0] = sm__matmul_q8_0__neon;
    k->matmul[SM__T_Q4_0] = sm__matmul_q4_0__neon;
    k->matmul[SM__T_Q4_K] = sm__matmul_q4_k__neon;
    k->matmul[SM__T_Q5_K] = sm__matmul_q5_k__neon;
    k->matmul[SM__T_Q6_K] = sm__matmul_q6_k__neon;
    k->attend_keys = sm__attend_keys__neon;
    k->attend_values = sm__attend_values__neon;
    k->merge = sm__merge__neon;
    k->quant = sm__quant__neon;
    k->rms_norm = sm__rms_norm__neon;
    k->layer_norm = sm__layer_norm__neon;
    k->softmax = sm__softmax__neon;
    k->rope = sm__rope__neon;
    k->swiglu = sm__swiglu__neon;
    k->gelu_tanh = sm__gelu_tanh__neon;
    k->gelu_erf = sm__gelu_erf__neon;
    k->add = sm__add__neon;
    k->mul = sm__mul__neon;
    k->scale = sm__scale__neon;
    k->soft_cap = sm__soft_cap__neon;
    k->to_f16 = sm__to_f16__neon;
#ifndef SMALLMIND_NO_TRAIN
    k->gemm = sm__gemm__neon;
#endif
#ifdef SM__HAS_DOTPROD
    if (sm__has_dotprod()) {
        k->matmul[SM__T_Q8_0] = sm__matmul_q8_0__dotprod;
        k->matmul[SM__T_Q4_0] = sm__matmul_q4_0__dotprod;
        k->matmul[SM__T_Q4_K] = sm__matmul_q4_k__dotprod;
        k->matmul[SM__T_Q5_K] = sm__matmul_q5_k__dotprod;
        k->matmul[SM__T_Q6_K] = sm__matmul_q6_k__dotprod;
    }
#endif
#ifdef SM__HAS_I8MM
    if (sm__has_dotprod() && sm__has_i8mm()) {
        k->matmul[SM__T_Q8_0] = sm__matmul_q8_0__i8mm;
        k->matmul[SM__T_Q4_0] = sm__matmul_q4_0__i8mm;
        k->matmul[SM__T_Q4_K] = sm__matmul_q4_k__i8mm;
        k->matmul[SM__T_Q5_K] = sm__matmul_q5_k__i8mm;
        k->matmul[SM__T_Q6_K] = sm__matmul_q6_k__i8mm;
    }
#endif
}
#endif

/* Fill the table for a level. SM_ERR_UNSUPPORTED: this processor or build does not have it. Only
 * for SM_ISA_AMX the operating system's permission is asked. */
static sm_status sm__kernels_init(sm__kernels *k, int isa) {
    sm_isa best = sm_isa_best();
#ifdef SM__HAS_AMX
    if (isa == SM_ISA_AMX && best == SM_ISA_AVX512 && sm__amx_request()) best = SM_ISA_AMX;
#endif
    if (isa == SM_ISA_AUTO) isa = (int)best;
    if (isa != SM_ISA_SCALAR && (isa > (int)best || (best == SM_ISA_NEON && isa != SM_ISA_NEON)))
        return SM_ERR_UNSUPPORTED;
#ifndef SM__HAS_SSE41
    if (isa == SM_ISA_SSE41) return SM_ERR_UNSUPPORTED;
#endif
    sm__kernels_scalar(k);
#ifdef SM__HAS_SSE41
    if (isa >= SM_ISA_SSE41) sm__kernels_sse41(k);
#endif
#ifdef SM__HAS_AVX2
    if (isa >= SM_ISA_AVX2) sm__kernels_avx2(k);
#endif
#ifdef SM__HAS_AVX512
    if (isa >= SM_ISA_AVX512) sm__kernels_avx512(k);
#endif
#ifdef SM__HAS_AMX
    if (isa == SM_ISA_AMX) sm__kernels_amx(k);
#endif
#ifdef SM__HAS_NEON
    if (isa == SM_ISA_NEON) sm__kernels_neon(k);
#endif
    return SM_OK;
}

/* ================================================================================================
 * MARK: [SM28] ARCHITECTURES
 * What a model is to the rest of the file: hyperparameters, a row of the architecture table,
 * tensors under GGUF names, a vocabulary. The readers below fill it in; the tape is made from it.
 * A model family adds a row here, not a function.
 * ============================================================================================== */

/* A piece of text that is not terminated. */
typedef struct sm__str {
    const char *p;
    size_t n;
} sm__str;

static int sm__str_is(sm__str s, const char *text) {
    size_t n = strlen(text);
    return s.n == n && memcmp(s.p, text, n) == 0;
}

enum { SM__NORM_RMS, SM__NORM_LAYER };
enum { SM__POS_LEARNED, SM__POS_ROPE_PAIRS, SM__POS_ROPE_HALF }; /* (2i, 2i+1); (i, i+D/2) */
/* gelu_tanh(gate) * up; relu(gate)^2 * up. */
enum { SM__FFN_SWIGLU, SM__FFN_GELU_TANH, SM__FFN_GELU_ERF, SM__FFN_GEGLU, SM__FFN_RELU2_GLU };
/* A bias that a row does not ask for is used when the file has it. */
enum {
    SM__ARCH_FUSED_QKV = 1 << 0,     /* attn_qkv [H*D + 2*K*D, C]; others may have it, too */
    SM__ARCH_QK_NORM = 1 << 1,       /* norm of every query and key head, one weight [D] */
    SM__ARCH_BIAS = 1 << 2,          /* every linear layer in the blocks has a bias */
    SM__ARCH_QKV_BIAS = 1 << 3,      /* q, k and v have one */
    SM__ARCH_NORM_BIAS = 1 << 4,     /* attn_norm, ffn_norm and output_norm have one */
    SM__ARCH_QK_NORM_ROW = 1 << 5,   /* norm of all query heads as one row, weight [H*D] */
    SM__ARCH_QK_NORM_HEADS = 1 << 6, /* of every head by its own weight [H, D], if there is one */
    SM__ARCH_NO_PRE_NORM = 1 << 7,   /* attention and MLP read x as it is */
    SM__ARCH_POST_NORM = 1 << 8,     /* what they give is normed before it is added to x */
    SM__ARCH_SUB_NORM = 1 << 9,      /* and what attn_output and ffn_down read */
    SM__ARCH_FUSED_GATE = 1 << 10,   /* ffn_up [2*F, C]: gate, then up */
    SM__ARCH_PARALLEL = 1 << 11,     /* attention and MLP read the same x; without an ffn_norm
                                        they share attn_norm */
    SM__ARCH_MAYBE_PARALLEL = 1 << 12, /* ... when use_parallel_residual says so */
    SM__ARCH_MAYBE_FFN_NORM = 1 << 13, /* ... when there is no ffn_norm */
    SM__ARCH_OUTPUT_BIAS = 1 << 14,  /* of output.weight, which must be there */
    SM__ARCH_SQRT_EMBED = 1 << 15,   /* embeddings are multiplied by sqrt(C) */
    SM__ARCH_LOGIT_DIVISOR = 1 << 16, /* logit_scale divides, and must be there */
    SM__ARCH_LOGIT_FACTOR = 1 << 17, /* logit_scale multiplies */
    SM__ARCH_SOFT_CAPS = 1 << 18,    /* caps of scores and logits, and a window, must be there */
    SM__ARCH_ALL_IS_BARE = 1 << 19   /* with a window: layers without it have no rotation */
};

/* How a family differs from the plainest model. Its sizes, scales and windows are in the file. */
typedef struct sm__arch {
    const char *name; /* general.architecture */
    uint8_t norm, pos, ffn;
    uint8_t all_every;   /* with a window: every n-th layer sees all; 0: none; SM__NO_WINDOW */
    uint8_t bare_every;  /* every n-th layer has no rotation (NoPE); 0: all have it */
    uint8_t wide_layers; /* a model of so many layers scales scores by (C / H)^-0.5, not D^-0.5 */
    uint16_t local_base; /* rope base of windowed layers, which then are never scaled, when
                            rope.freq_base_swa is missing; 1: rope.freq_base; 0: as all others */
    int flags;           /* SM__ARCH_* */
} sm__arch;

/* A row that knows no windows: the context stays within the one of the file. */
#define SM__NO_WINDOW 255

/* smollm's files are llama's by name and by structure, and so are most of mistral's. */
static const sm__arch sm__archs[] = {
    {"llama", SM__NORM_RMS, SM__POS_ROPE_PAIRS, SM__FFN_SWIGLU, 0, 0, 0, 0, 0},
    {"mistral", SM__NORM_RMS, SM__POS_ROPE_PAIRS, SM__FFN_SWIGLU, 0, 0, 0, 0, 0},
    {"qwen2", SM__NORM_RMS, SM__POS_ROPE_HALF, SM__FFN_SWIGLU, SM__NO_WINDOW, 0, 0, 0,
     SM__ARCH_QKV_BIAS},
    {"qwen3", SM__NORM_RMS, SM__POS_ROPE_HALF, SM__FFN_SWIGLU, SM__NO_WINDOW, 0, 0, 0,
     SM__ARCH_QK_NORM},
    {"gpt2", SM__NORM_LAYER, SM__POS_LEARNED, SM__FFN_GELU_TANH, SM__NO_WINDOW, 0, 0, 0,
     SM__ARCH_FUSED_QKV | SM__ARCH_BIAS | SM__ARCH_NORM_BIAS},
    /* Stanford's course model */
    {"cs336", SM__NORM_RMS, SM__POS_LEARNED, SM__FFN_GELU_ERF, SM__NO_WINDOW, 0, 0, 0, 0},
    {"phi2", SM__NORM_LAYER, SM__POS_ROPE_HALF, SM__FFN_GELU_TANH, SM__NO_WINDOW, 0, 0, 0,
     SM__ARCH_BIAS | SM__ARCH_NORM_BIAS | SM__ARCH_PARALLEL | SM__ARCH_OUTPUT_BIAS},
    {"phi3", SM__NORM_RMS, SM__POS_ROPE_HALF, SM__FFN_SWIGLU, 0, 0, 0, 0, SM__ARCH_FUSED_GATE},
    {"gemma", SM__NORM_RMS, SM__POS_ROPE_HALF, SM__FFN_GEGLU, SM__NO_WINDOW, 0, 0, 0,
     SM__ARCH_SQRT_EMBED},
    {"gemma2", SM__NORM_RMS, SM__POS_ROPE_HALF, SM__FFN_GEGLU, 2, 0, 46, 0,
     SM__ARCH_SQRT_EMBED | SM__ARCH_POST_NORM | SM__ARCH_SOFT_CAPS},
    {"gemma3", SM__NORM_RMS, SM__POS_ROPE_HALF, SM__FFN_GEGLU, 6, 0, 62, 10000,
     SM__ARCH_SQRT_EMBED | SM__ARCH_POST_NORM | SM__ARCH_QK_NORM},
    {"olmo2", SM__NORM_RMS, SM__POS_ROPE_HALF, SM__FFN_SWIGLU, 4, 0, 0, 1, /* and olmo3 */
     SM__ARCH_NO_PRE_NORM | SM__ARCH_POST_NORM | SM__ARCH_QK_NORM_ROW},
    {"granite", SM__NORM_RMS, SM__POS_ROPE_PAIRS, SM__FFN_SWIGLU, SM__NO_WINDOW, 0, 0, 0,
     SM__ARCH_LOGIT_DIVISOR},
    {"starcoder2", SM__NORM_LAYER, SM__POS_ROPE_HALF, SM__FFN_GELU_TANH, 0, 0, 0, 0,
     SM__ARCH_BIAS | SM__ARCH_NORM_BIAS},
    {"gptneox", SM__NORM_LAYER, SM__POS_ROPE_HALF, SM__FFN_GELU_TANH, SM__NO_WINDOW, 0, 0, 0,
     SM__ARCH_FUSED_QKV | SM__ARCH_BIAS | SM__ARCH_NORM_BIAS | SM__ARCH_MAYBE_PARALLEL},
    {"stablelm", SM__NORM_LAYER, SM__POS_ROPE_HALF, SM__FFN_SWIGLU, SM__NO_WINDOW, 0, 0, 0,
     SM__ARCH_NORM_BIAS | SM__ARCH_MAYBE_FFN_NORM | SM__ARCH_QK_NORM_HEADS},
    {"smollm3", SM__NORM_RMS, SM__POS_ROPE_PAIRS, SM__FFN_SWIGLU, SM__NO_WINDOW, 4, 0, 0, 0},
    {"bitnet", SM__NORM_RMS, SM__POS_ROPE_HALF, SM__FFN_SWIGLU, SM__NO_WINDOW, 0, 0, 0,
     SM__ARCH_SUB_NORM},
    {"internlm2", SM__NORM_RMS, SM__POS_ROPE_PAIRS, SM__FFN_SWIGLU, SM__NO_WINDOW, 0, 0, 0, 0},
    {"exaone", SM__NORM_RMS, SM__POS_ROPE_HALF, SM__FFN_SWIGLU, SM__NO_WINDOW, 0, 0, 0, 0},
    {"exaone4", SM__NORM_RMS, SM__POS_ROPE_HALF, SM__FFN_SWIGLU, 4, 0, 0, 0,
     SM__ARCH_NO_PRE_NORM | SM__ARCH_POST_NORM | SM__ARCH_QK_NORM | SM__ARCH_ALL_IS_BARE},
    {"command-r", SM__NORM_LAYER, SM__POS_ROPE_PAIRS, SM__FFN_SWIGLU, SM__NO_WINDOW, 0, 0, 0,
     SM__ARCH_PARALLEL | SM__ARCH_QK_NORM_HEADS | SM__ARCH_LOGIT_FACTOR},
    {"cohere2", SM__NORM_LAYER, SM__POS_ROPE_PAIRS, SM__FFN_SWIGLU, 4, 0, 0, 0,
     SM__ARCH_PARALLEL | SM__ARCH_LOGIT_FACTOR | SM__ARCH_ALL_IS_BARE},
};
#define SM__N_ARCHS ((int)(sizeof sm__archs / sizeof *sm__archs))

SM__INLINE int sm__ffn_gated(int ffn) {
    return ffn == SM__FFN_SWIGLU || ffn >= SM__FFN_GEGLU;
}

static const sm__arch *sm__arch_find(sm__str name) {
    int i;
    for (i = 0; i < SM__N_ARCHS; i++)
        if (sm__str_is(name, sm__archs[i].name)) return &sm__archs[i];
    return NULL;
}

/* Whether two rows have but other names, as llama and mistral. */
static int sm__arch_same(const sm__arch *a, const sm__arch *b) {
    return a->norm == b->norm && a->pos == b->pos && a->ffn == b->ffn && a->flags == b->flags &&
           a->all_every == b->all_every && a->bare_every == b->bare_every &&
           a->wide_layers == b->wide_layers && a->local_base == b->local_base;
}

enum { SM__SCALING_NONE, SM__SCALING_LINEAR, SM__SCALING_LLAMA3, SM__SCALING_YARN };

#define SM__MAX_DIM (1 << 20)    /* of any one hyperparameter but the vocabulary */
#define SM__MAX_VOCAB (1 << 24)
#define SM__MAX_LAYERS 1024

/* Everything here was checked by sm__hparams_check: the products below fit in 31 bits. */
typedef struct sm__hparams {
    int n_vocab, n_ctx, n_embd, n_layers, n_heads, n_kv_heads, head_dim, n_ff;
    int pos;            /* SM__POS_*: the row's, unless the file's layout differs (HF llama) */
    int ffn;            /* SM__FFN_*: the row's, unless the file names another */
    int parallel;       /* attention and MLP of a layer read the same x */
    int n_rot;          /* rotated elements of a head, even, <= head_dim */
    float norm_eps;
    /* multipliers; scores: 0 = head_dim^-0.5; caps: x = cap tanh(x / cap), 0 = none */
    double embed_scale, residual_scale, score_scale, logit_scale, score_cap, logit_cap;
    int window;         /* keys that a windowed layer sees, its own included; 0 = no such layers */
    uint32_t windowed[SM__MAX_LAYERS / 32]; /* a bit each, and layers without rotation */
    uint32_t bare[SM__MAX_LAYERS / 32];
    double rope_base;
    double local_base;  /* of windowed layers, unscaled; 0 = they rotate as the others */
    int scaling;        /* SM__SCALING_* */
    double scaling_factor, original_ctx;
    double low_freq_factor, high_freq_factor;                 /* llama3 */
    double beta_fast, beta_slow, ext_factor; /* YaRN */
    double attn_factor;                      /* of cos and sin; 0 = 1, or YaRN's formula */
} sm__hparams;

SM__INLINE int sm__layer_bit(const uint32_t *bits, int layer) {
    return (int)(bits[layer / 32] >> layer % 32 & 1);
}
/* How many keys a layer sees, its own included; 0 = all. */
SM__INLINE int sm__layer_window(const sm__hparams *hp, int layer) {
    return sm__layer_bit(hp->windowed, layer) ? hp->window : 0;
}

static void sm__hparams_default(sm__hparams *hp) {
    memset(hp, 0, sizeof *hp);
    hp->norm_eps = 1e-5f;
    hp->embed_scale = hp->residual_scale = hp->logit_scale = 1.0;
    hp->rope_base = 10000.0;
    hp->scaling_factor = 1.0;
    hp->low_freq_factor = 1.0;
    hp->high_freq_factor = 4.0;
    hp->beta_fast = 32.0;
    hp->beta_slow = 1.0;
    hp->ext_factor = 1.0;
}

enum { SM__VOCAB_NONE, SM__VOCAB_SPM, SM__VOCAB_BPE };
enum { /* token kinds, as GGUF numbers them */
    SM__TOKEN_NORMAL = 1,
    SM__TOKEN_UNKNOWN = 2,
    SM__TOKEN_CONTROL = 3,
    SM__TOKEN_USER = 4,
    SM__TOKEN_UNUSED = 5,
    SM__TOKEN_BYTE = 6
};

/* What the readers give (the first group) and what sm__vocab_build makes of it. */
typedef struct sm__vocab {
    int kind; /* SM__VOCAB_* */
    int n;
    sm__str *tokens;   /* [n] as in the file: views of it, or of the model's memory */
    float *scores;     /* [n] or NULL */
    uint8_t *kinds;    /* [n] SM__TOKEN_* */
    sm__str *merges;   /* [n_merges] "left right", best first (BPE) */
    int n_merges;
    sm__str pre;       /* tokenizer.ggml.pre, or empty */
    int32_t bos, eos, eot, unk, pad; /* -1 = none */
    int add_bos, add_eos;            /* what the file asks for; -1 = it does not say */
    int add_space_prefix;            /* SPM: a space before the text; -1 = it does not say */
    int plain_spaces;                /* SPM: pieces hold ' ' (llama2.c), not U+2581 */

    /* made by sm__vocab_build */
    struct sm__vocab_tables *tables;
    size_t max_token_bytes; /* of a token's decoded text */
} sm__vocab;

/* A metadata entry of a GGUF file: the value where it lies in the file. */
typedef struct sm__meta {
    sm__str key;
    int type;            /* GGUF value type */
    int elem_type;       /* of an array */
    uint64_t count;      /* elements of an array, else 1 */
    const uint8_t *data; /* first element; strings start at their length (model.length_bytes) */
    size_t bytes;        /* of all elements */
} sm__meta;

struct sm_model {
    sm__heap heap;
    sm_log_fn log;
    void *log_user;
    sm_model_info info;
    const sm__arch *arch; /* NULL: vocabulary only */
    sm__hparams hp;
    sm__vocab vocab;
    sm__meta *meta; /* [info.n_meta] */
    sm_tensor *tensors; /* [info.n_tensors] canonical names */
    struct sm__named *meta_index, *tensor_index; /* the same, sorted by name */
    int length_bytes; /* of the length of a GGUF string: 4 in version 1, else 8 */
    struct sm__weights *weights; /* bound by name, made by sm__model_bind */
    /* Memory of the readers: chunks from the heap, freed in sm_model_close. */
    void **chunks;
    int n_chunks, max_chunks;
    struct sm__mapping *mappings; /* of the files, the last one first */
};

static void sm__log(const sm_model *m, int level, const char *text) {
    if (m->log) m->log(m->log_user, level, text);
}

/* Memory that lives as long as the model; NULL when there is none. Not cleared. */
static void *sm__model_alloc(sm_model *m, size_t count, size_t elem_bytes) {
    size_t bytes;
    void *p;
    if (sm__mul_size(count, elem_bytes, &bytes)) return NULL;
    if (m->n_chunks == m->max_chunks) {
        int more = m->max_chunks * 2 + 16;
        void **chunks = (void **)sm__heap_alloc(&m->heap, (size_t)more * sizeof *chunks);
        if (!chunks) return NULL;
        if (m->n_chunks) memcpy(chunks, m->chunks, (size_t)m->n_chunks * sizeof *chunks);
        sm__heap_free(&m->heap, m->chunks);
        m->chunks = chunks;
        m->max_chunks = more;
    }
    p = sm__heap_alloc(&m->heap, bytes ? bytes : 1);
    if (p) m->chunks[m->n_chunks++] = p;
    return p;
}

/* Gives a chunk back early (temporary tables of a reader). */
static void sm__model_drop(sm_model *m, void *p) {
    int i;
    if (!p) return;
    for (i = m->n_chunks - 1; i >= 0 && m->chunks[i] != p; i--) {
    }
    if (i < 0) return;
    m->chunks[i] = m->chunks[--m->n_chunks];
    sm__heap_free(&m->heap, p);
}

/* ================================================================================================
 * MARK: [SM29] FILES
 * From an sm_source to bytes: a mapping, the caller's memory, or a copy that is read in pieces with
 * progress and cancel. Then what the readers of text formats share: numbers without a locale, and a
 * bounded JSON reader.
 * ============================================================================================== */

#ifdef _WIN32
#define SM__WINDOWS 1
#else
#define SM__WINDOWS 0
#endif

#define SM__READ_PIECE ((size_t)1 << 20) /* bytes between two progress calls */

/* Bytes that stay as long as the model does (or until sm__bytes_drop). */
typedef struct sm__bytes {
    const uint8_t *p;
    size_t n;
    void *owned; /* the chunk they were read into; NULL = mapped, or the caller's memory */
} sm__bytes;

/* Names in messages: at most 63 printable characters of a text that is not terminated. */
#define SM__QUOTE 68
static const char *sm__quote(char *buf, sm__str s) {
    size_t i, n = sm__min_size(s.n, SM__QUOTE - 5);
    for (i = 0; i < n; i++) buf[i] = s.p[i] < 32 || s.p[i] > 126 ? '?' : s.p[i];
    memcpy(buf + n, "...", 4);
    if (n == s.n) buf[n] = 0;
    return buf;
}

static sm__str sm__str_of(const char *text) {
    sm__str s;
    s.p = text;
    s.n = strlen(text);
    return s;
}

static int sm__str_same(sm__str a, sm__str b) {
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

/* A terminated copy in the model's memory; NULL when there is none. */
static char *sm__str_copy(sm_model *m, sm__str s) {
    char *copy = (char *)sm__model_alloc(m, s.n + 1, 1);
    if (!copy) return NULL;
    if (s.n) memcpy(copy, s.p, s.n);
    copy[s.n] = 0;
    return copy;
}

#ifndef SMALLMIND_NO_STDIO
/* An open regular file: the only code below that knows the operating system. */
#ifdef _WIN32
typedef struct sm__file {
    HANDLE handle;
    uint64_t bytes;
} sm__file;

static sm_status sm__file_open(sm_model *m, const char *path, sm__file *file, sm_error *error) {
    int n = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, NULL, 0);
    LARGE_INTEGER size;
    WCHAR *wide;
    if (n <= 0) return sm__fail(error, SM_ERR_ARG, "path is not UTF-8: %s", path);
    wide = (WCHAR *)sm__model_alloc(m, (size_t)n, sizeof *wide);
    if (!wide) return sm__fail(error, SM_ERR_NOMEM, "no memory to open %s", path);
    MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, wide, n);
    file->handle = CreateFileW(wide, GENERIC_READ, FILE_SHARE_READ, NULL, OPEN_EXISTING,
                               FILE_ATTRIBUTE_NORMAL, NULL);
    sm__model_drop(m, wide);
    if (file->handle == INVALID_HANDLE_VALUE)
        return sm__fail(error, SM_ERR_IO, "cannot open %s (error %u)", path,
                        (unsigned)GetLastError());
    if (GetFileType(file->handle) != FILE_TYPE_DISK || !GetFileSizeEx(file->handle, &size)) {
        CloseHandle(file->handle);
        return sm__fail(error, SM_ERR_IO, "not a regular file: %s", path);
    }
    file->bytes = (uint64_t)size.QuadPart;
    return SM_OK;
}

static void sm__file_close(sm__file *file) { CloseHandle(file->handle); }

/* The next n bytes; 0 = all of them came. */
static int sm__file_read(void *user, uint64_t offset, void *dst, size_t n) {
    DWORD got = 0;
    (void)offset; /* read in order */
    return !ReadFile(((sm__file *)user)->handle, dst, (DWORD)n, &got, NULL) || got != n;
}

static void *sm__file_map(sm__file *file) {
    HANDLE mapping = CreateFileMappingW(file->handle, NULL, PAGE_READONLY, 0, 0, NULL);
    void *p = mapping ? MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, (SIZE_T)file->bytes) : NULL;
    if (mapping) CloseHandle(mapping); /* the view keeps it alive */
    return p;
}

static void sm__file_unmap(void *p, size_t n) {
    (void)n;
    UnmapViewOfFile(p);
}
#else
typedef struct sm__file {
    int fd;
    uint64_t bytes;
} sm__file;

static sm_status sm__file_open(sm_model *m, const char *path, sm__file *file, sm_error *error) {
    struct stat info;
    (void)m;
    file->fd = open(path, O_RDONLY | O_NONBLOCK); /* a pipe must not make us wait */
    if (file->fd < 0) return sm__fail(error, SM_ERR_IO, "cannot open %s (errno %d)", path, errno);
    (void)fcntl(file->fd, F_SETFD, FD_CLOEXEC);
    if (fstat(file->fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size < 0) {
        close(file->fd);
        return sm__fail(error, SM_ERR_IO, "not a regular file: %s", path);
    }
    file->bytes = (uint64_t)info.st_size;
    return SM_OK;
}

static void sm__file_close(sm__file *file) { close(file->fd); }

/* The next n bytes; 0 = all of them came. */
static int sm__file_read(void *user, uint64_t offset, void *dst, size_t n) {
    unsigned char *to = (unsigned char *)dst;
    (void)offset; /* read in order */
    while (n) {
        ssize_t got = read(((sm__file *)user)->fd, to, n);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return 1; /* an error, or the file was cut meanwhile */
        to += got;
        n -= (size_t)got;
    }
    return 0;
}

static void *sm__file_map(sm__file *file) {
    void *p = mmap(NULL, (size_t)file->bytes, PROT_READ, MAP_PRIVATE, file->fd, 0);
    return p == MAP_FAILED ? NULL : p;
}

static void sm__file_unmap(void *p, size_t n) { munmap(p, n); }
#endif
#endif /* SMALLMIND_NO_STDIO */

typedef struct sm__mapping {
    void *p;
    size_t bytes;
    struct sm__mapping *next;
} sm__mapping;

static void sm__model_unmap(sm_model *m) {
#ifndef SMALLMIND_NO_STDIO
    const sm__mapping *map;
    for (map = m->mappings; map; map = map->next) sm__file_unmap(map->p, map->bytes);
#endif
    m->mappings = NULL;
}

/* n bytes through read, piece by piece, into a chunk of the model's. */
static sm_status sm__bytes_read(sm_model *m, const sm_model_params *params, const char *what,
                                int (*read)(void *, uint64_t, void *, size_t), void *user, size_t n,
                                sm__bytes *out, sm_error *error) {
    uint8_t *p = (uint8_t *)sm__model_alloc(m, n, 1);
    size_t at = 0;
    if (!p)
        return sm__fail(error, SM_ERR_NOMEM, "no memory for the %llu bytes of %s",
                        (unsigned long long)n, what);
    out->p = p;
    out->n = n;
    out->owned = p;
    while (at < n) {
        size_t piece = sm__min_size(n - at, SM__READ_PIECE);
        if (read(user, at, p + at, piece))
            return sm__fail(error, SM_ERR_IO, "reading byte %llu of %s failed",
                            (unsigned long long)at, what);
        at += piece;
        if (params->progress && params->progress(params->progress_user, at, n))
            return sm__fail(error, SM_ERR_CANCELLED, "cancelled while reading %s", what);
    }
    return SM_OK;
}

static int sm__memory_read(void *user, uint64_t offset, void *dst, size_t n) {
    memcpy(dst, (const uint8_t *)user + (size_t)offset, n);
    return 0;
}

static void sm__bytes_drop(sm_model *m, sm__bytes *bytes) {
    sm__model_drop(m, bytes->owned);
    memset(bytes, 0, sizeof *bytes);
}

static sm_status sm__size_check(uint64_t bytes, uint64_t cap, const char *what, sm_error *error) {
    if (bytes == 0) return sm__fail(error, SM_ERR_FORMAT, "%s is empty", what);
    if (bytes > SIZE_MAX / 2 || bytes > cap)
        return sm__fail(error, SM_ERR_UNSUPPORTED, "%s is too large here: %llu bytes", what,
                        (unsigned long long)bytes);
    return SM_OK;
}

static sm_status sm__path_bytes(sm_model *m, const sm_model_params *params, const char *path,
                                int load, uint64_t cap, sm__bytes *out, sm_error *error) {
#ifdef SMALLMIND_NO_STDIO
    (void)m, (void)params, (void)path, (void)load, (void)cap, (void)out;
    return sm__fail(error, SM_ERR_UNSUPPORTED, "built without file access: give data or read");
#else
    sm__file file;
    sm_status status = sm__file_open(m, path, &file, error);
    if (status) return status;
    status = sm__size_check(file.bytes, cap, path, error);
    if (!status && load == SM_LOAD_COPY) {
        status =
            sm__bytes_read(m, params, path, sm__file_read, &file, (size_t)file.bytes, out, error);
    } else if (!status) {
        sm__mapping *map = (sm__mapping *)sm__model_alloc(m, 1, sizeof *map);
        if (!map) status = sm__fail(error, SM_ERR_NOMEM, "no memory to map %s", path);
        else if ((map->p = sm__file_map(&file)) == NULL)
            status = sm__fail(error, SM_ERR_IO, "cannot map %s", path);
        if (!status) {
            out->p = (const uint8_t *)map->p;
            out->n = map->bytes = (size_t)file.bytes;
            map->next = m->mappings;
            m->mappings = map;
        }
    }
    sm__file_close(&file);
    return status;
#endif
}

/* A file's name in the folder of a path, or (inside) in the path itself; NULL when there is no
 * memory. */
static char *sm__path_beside(sm_model *m, const char *path, int inside, sm__str name) {
    size_t i, n = 0;
    char *p;
    for (i = 0; path[i]; i++)
        if (path[i] == '/' || (SM__WINDOWS && path[i] == '\\')) n = i + 1;
    if (inside) n = i;
    p = (char *)sm__model_alloc(m, n + name.n + 2, 1);
    if (!p) return NULL;
    memcpy(p, path, n);
    if (inside) p[n++] = '/';
    memcpy(p + n, name.p, name.n);
    p[n + name.n] = 0;
    return p;
}

static int sm__source_set(const sm_source *source) {
    return source->path || source->data || source->read;
}

/* The bytes of a source. */
static sm_status sm__source_bytes(sm_model *m, const sm_model_params *params,
                                  const sm_source *source, const char *what, int load, uint64_t cap,
                                  sm__bytes *out, sm_error *error) {
    sm_status status;
    memset(out, 0, sizeof *out);
    if (source->path) return sm__path_bytes(m, params, source->path, load, cap, out, error);
    status = sm__size_check(source->bytes, cap, what, error);
    if (status) return status;
    if (source->data && load == SM_LOAD_MAP) {
        out->p = (const uint8_t *)source->data;
        out->n = (size_t)source->bytes;
        return SM_OK;
    }
    if (source->data)
        return sm__bytes_read(m, params, what, sm__memory_read, (void *)(uintptr_t)source->data,
                              (size_t)source->bytes, out, error);
    return sm__bytes_read(m, params, what, source->read, source->user, (size_t)source->bytes, out,
                          error);
}

/* Little-endian values at any address. */
SM__INLINE uint32_t sm__get32(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}
SM__INLINE uint64_t sm__get64(const uint8_t *p) {
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}

/* Names to positions, found by halving. The sort is a heap sort: its worst case is n log n too, and
 * nothing that a file says can change that. */
typedef struct sm__named {
    sm__str name;
    int i;
} sm__named;

static int sm__str_order(sm__str a, sm__str b) {
    size_t n = sm__min_size(a.n, b.n);
    int c = n ? memcmp(a.p, b.p, n) : 0;
    return c ? c : a.n < b.n ? -1 : a.n > b.n;
}

static void sm__named_sift(sm__named *a, size_t root, size_t n) {
    sm__named moved = a[root];
    size_t child;
    for (; (child = 2 * root + 1) < n; root = child) {
        if (child + 1 < n && sm__str_order(a[child].name, a[child + 1].name) < 0) child++;
        if (sm__str_order(moved.name, a[child].name) >= 0) break;
        a[root] = a[child];
    }
    a[root] = moved;
}

/* Sorts by name; returns a name that is there twice, or one with p NULL. */
static sm__str sm__named_sort(sm__named *a, int count) {
    size_t i, n = (size_t)count;
    sm__str none = {NULL, 0};
    for (i = n / 2; i-- > 0;) sm__named_sift(a, i, n);
    for (i = n; i-- > 1;) {
        sm__named last = a[i];
        a[i] = a[0];
        a[0] = last;
        sm__named_sift(a, 0, i);
    }
    for (i = 1; i < n; i++)
        if (sm__str_same(a[i - 1].name, a[i].name)) return a[i].name;
    return none;
}

/* Position of a name, or -1. */
static int sm__named_find(const sm__named *a, int n, sm__str name) {
    int lo = 0, hi = n;
    while (lo < hi) {
        int mid = lo + (hi - lo) / 2, c = sm__str_order(a[mid].name, name);
        if (c == 0) return a[mid].i;
        if (c < 0) lo = mid + 1;
        else hi = mid;
    }
    return -1;
}

/* A decimal number as JSON writes it, at *p; moves *p behind it. 0 = there is none. The nearest
 * double for up to 15 digits and exponents within +-22, within 2 ulp otherwise. */
static int sm__parse_number(const uint8_t **p, const uint8_t *end, double *value) {
    const uint8_t *s = *p, *digits;
    uint64_t m = 0;
    int negative = s < end && *s == '-', scale = 0, exponent = 0, down = 0;
    double v, power = 1.0;
    s += negative;
    for (digits = s; s < end && *s >= '0' && *s <= '9'; s++) {
        if (m < 100000000000000000u) m = m * 10 + (uint64_t)(*s - '0');
        else if (scale < 10000) scale++;
    }
    if (s == digits || (s - digits > 1 && *digits == '0')) return 0;
    if (s < end && *s == '.') {
        for (digits = ++s; s < end && *s >= '0' && *s <= '9'; s++)
            if (m < 100000000000000000u && scale > -10000)
                m = m * 10 + (uint64_t)(*s - '0'), scale--;
        if (s == digits) return 0;
    }
    if (s < end && (*s == 'e' || *s == 'E')) {
        s++;
        down = s < end && *s == '-';
        if (s < end && (*s == '-' || *s == '+')) s++;
        for (digits = s; s < end && *s >= '0' && *s <= '9'; s++)
            if (exponent < 10000) exponent = exponent * 10 + (*s - '0');
        if (s == digits) return 0;
    }
    scale += down ? -exponent : exponent;
    v = (double)m;
    down = scale < 0;
    scale = m == 0 ? 0 : sm__min(down ? -scale : scale, 400);
    for (; scale >= 22; scale -= 22) v = down ? v / 1e22 : v * 1e22;
    for (; scale > 0; scale--) power *= 10.0;
    v = down ? v / power : v * power;
    *value = negative ? -v : v;
    *p = s;
    return 1;
}

/* ---- JSON: a reader that walks forward and allocates nothing. After the first mistake `bad` is
 * set and every call answers no, so that callers check once, at the end. ---- */

#define SM__JSON_DEPTH 64

typedef struct sm__json {
    const uint8_t *p, *end;
    int fresh; /* behind an opening bracket: no comma is due */
    int bad;
} sm__json;

static sm__json sm__json_make(const void *p, size_t n) {
    sm__json j;
    j.p = (const uint8_t *)p;
    j.end = j.p + n;
    j.fresh = j.bad = 0;
    return j;
}

static int sm__json_fail(sm__json *j) {
    j->bad = 1;
    return 0;
}

/* The next byte that is no white space; 0 at the end. */
static int sm__json_peek(sm__json *j) {
    while (j->p < j->end && (*j->p == ' ' || *j->p == '\n' || *j->p == '\r' || *j->p == '\t'))
        j->p++;
    return j->p < j->end && !j->bad ? *j->p : 0;
}

/* 1 = the value is an object ('{') or an array ('['), and it was entered. */
static int sm__json_enter(sm__json *j, int bracket) {
    if (sm__json_peek(j) != bracket) return sm__json_fail(j);
    j->p++;
    j->fresh = 1;
    return 1;
}

/* Inside an array: 1 = another element follows; 0 = the array was left. */
static int sm__json_item_before(sm__json *j, int close) {
    int c = sm__json_peek(j);
    if (j->bad) return 0;
    if (c == close) {
        j->p++;
        j->fresh = 0;
        return 0;
    }
    if (!j->fresh) {
        if (c != ',') return sm__json_fail(j);
        j->p++;
    }
    j->fresh = 0;
    return 1;
}
static int sm__json_item(sm__json *j) { return sm__json_item_before(j, ']'); }

static int sm__json_hex(int c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 32;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A string as it stands in the text, escapes unresolved but checked. */
static int sm__json_string(sm__json *j, sm__str *s) {
    if (sm__json_peek(j) != '"') return sm__json_fail(j);
    s->p = (const char *)++j->p;
    for (; j->p < j->end && *j->p >= 32; j->p++) {
        if (*j->p == '"') {
            s->n = (size_t)(j->p++ - (const uint8_t *)s->p);
            return 1;
        }
        if (*j->p != '\\') continue;
        if (++j->p == j->end || !*j->p || !strchr("\"\\/bfnrtu", *j->p)) break;
        if (*j->p == 'u') {
            int i;
            for (i = 0; i < 4; i++)
                if (++j->p == j->end || sm__json_hex(*j->p) < 0) return sm__json_fail(j);
        }
    }
    return sm__json_fail(j);
}

/* Inside an object: 1 = a member follows, its key was read; 0 = the object was left. */
static int sm__json_member(sm__json *j, sm__str *key) {
    if (!sm__json_item_before(j, '}') || !sm__json_string(j, key)) return 0;
    if (sm__json_peek(j) != ':') return sm__json_fail(j);
    j->p++;
    return 1;
}

/* One of the words, by number; -1 = none of them. */
static int sm__json_word(sm__json *j) {
    static const char *const words[] = {"false", "true", "null", "NaN", "Infinity", "-Infinity"};
    int i;
    sm__json_peek(j);
    for (i = 0; i < 6; i++) { /* the last three are Python's, not JSON's */
        size_t n = strlen(words[i]);
        if ((size_t)(j->end - j->p) >= n && memcmp(j->p, words[i], n) == 0) {
            j->p += n;
            return i;
        }
    }
    return -1;
}

static int sm__json_number(sm__json *j, double *value) {
    sm__json_peek(j);
    if (j->bad || !sm__parse_number(&j->p, j->end, value)) return sm__json_fail(j);
    return 1;
}

/* A whole number without sign, fraction or exponent; exact. */
static int sm__json_u64(sm__json *j, uint64_t *value) {
    const uint8_t *start;
    uint64_t v = 0;
    sm__json_peek(j);
    for (start = j->p; !j->bad && j->p < j->end && *j->p >= '0' && *j->p <= '9'; j->p++) {
        uint64_t digit = (uint64_t)(*j->p - '0');
        if (v > (UINT64_MAX - digit) / 10) return sm__json_fail(j);
        v = v * 10 + digit;
    }
    *value = v;
    return j->p != start ? 1 : sm__json_fail(j);
}

/* Over any value. The open brackets are bits, so nesting costs no stack. */
static void sm__json_skip(sm__json *j) {
    uint64_t objects = 0;
    int depth = 0;
    do {
        sm__str s;
        double v;
        int c = sm__json_peek(j);
        if (c == '{' || c == '[') {
            if (depth++ == SM__JSON_DEPTH) j->bad = 1;
            objects = objects << 1 | (c == '{');
            sm__json_enter(j, c);
        } else if (c == '"') {
            sm__json_string(j, &s);
        } else if (sm__json_word(j) < 0) {
            sm__json_number(j, &v);
        }
        while (depth && !j->bad && !(objects & 1 ? sm__json_member(j, &s) : sm__json_item(j))) {
            objects >>= 1;
            depth--;
        }
    } while (depth && !j->bad);
}

static unsigned sm__json_unit(const char *p) {
    unsigned v = 0;
    int i;
    for (i = 0; i < 4; i++) v = v << 4 | (unsigned)sm__json_hex((unsigned char)p[i]);
    return v;
}

/* The escape at s.p[i], of a string that sm__json_string checked: its code, and its length. Half a
 * surrogate pair becomes U+FFFD. */
static size_t sm__json_escape(sm__str s, size_t i, unsigned *code) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *p = s.p + i;
    if (p[1] != 'u') {
        *code = (unsigned char)to[strchr(from, p[1]) - from];
        return 2;
    }
    *code = sm__json_unit(p + 2);
    if ((*code & 0xfc00u) == 0xd800u && s.n - i >= 12 && p[6] == '\\' && p[7] == 'u') {
        unsigned low = sm__json_unit(p + 8);
        if ((low & 0xfc00u) == 0xdc00u) {
            *code = 0x10000u + ((*code & 0x3ffu) << 10 | (low & 0x3ffu));
            return 12;
        }
    }
    if ((*code & 0xf800u) == 0xd800u) *code = 0xfffdu;
    return 6;
}

/* The text of a string, escapes resolved to UTF-8, terminated, cut to n - 1 bytes (n > 0). Returns
 * the length of the whole text. */
static size_t sm__json_text(sm__str s, char *buf, size_t n) {
    size_t i = 0, out = 0, k, bytes;
    while (i < s.n) {
        unsigned char utf8[4] = {0, 0, 0, 0};
        unsigned code = 0;
        if (s.p[i] != '\\') {
            utf8[0] = (unsigned char)s.p[i++];
            bytes = 1;
        } else {
            i += sm__json_escape(s, i, &code);
            bytes = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
            for (k = bytes - 1; k > 0; k--, code >>= 6)
                utf8[k] = (unsigned char)(0x80u | (code & 0x3fu));
            utf8[0] = (unsigned char)((bytes > 1 ? 0xf00u >> bytes & 0xffu : 0u) | code);
        }
        for (k = 0; k < bytes; k++, out++)
            if (out + 1 < n) buf[out] = (char)utf8[k];
    }
    buf[sm__min_size(out, n - 1)] = 0;
    return out;
}

/* ================================================================================================
 * MARK: [SM30] GGUF
 * The container of llama.cpp: a header, typed metadata, a directory of tensors, then their data.
 *
 *   "GGUF" | version u32 | n_tensors | n_meta | meta... | directory... | padding | data
 *   meta        key string | type u32 | value
 *   directory   name string | n_dims u32 | dims | type u32 | offset u64 from the start of the data
 *   string      length | bytes
 *   array       type u32 | length | elements
 *   counts, lengths and dims are u64, in version 1 u32
 *
 * Counts are compared with the bytes that are left before anything is allocated, so memory stays
 * within a few times the file's size, and every item costs O(1). Refused besides what is malformed:
 * keys and names that are there twice, arrays of arrays, dimensions of 0, big-endian files.
 * ============================================================================================== */

enum {
    SM__GGUF_U8,
    SM__GGUF_I8,
    SM__GGUF_U16,
    SM__GGUF_I16,
    SM__GGUF_U32,
    SM__GGUF_I32,
    SM__GGUF_F32,
    SM__GGUF_BOOL,
    SM__GGUF_STRING,
    SM__GGUF_ARRAY,
    SM__GGUF_U64,
    SM__GGUF_I64,
    SM__GGUF_F64,
    SM__GGUF_N_TYPES
};

typedef struct sm__gguf_type {
    const char *name;
    uint8_t bytes; /* 0: not of fixed size */
    uint8_t is_int;
} sm__gguf_type;

static const sm__gguf_type sm__gguf_types[SM__GGUF_N_TYPES] = {
    {"u8", 1, 1},  {"i8", 1, 1},  {"u16", 2, 1},  {"i16", 2, 1},    {"u32", 4, 1},
    {"i32", 4, 1}, {"f32", 4, 0}, {"bool", 1, 0}, {"string", 0, 0}, {"array", 0, 0},
    {"u64", 8, 1}, {"i64", 8, 1}, {"f64", 8, 0},
};

#define SM__MAX_ITEMS (1 << 20) /* metadata entries, tensors */
#define SM__MAX_KEY 65535       /* the format's own limit */
#define SM__MAX_NAME 64         /* of a tensor; the format's own limit */
#define SM__MAX_TOKEN 65535     /* bytes of a token; longer ones have no use */
#define SM__MAX_ALIGNMENT (1u << 20)

/* Every element type that GGUF numbers, to find tensors' bounds: elements and bytes of a block, the
 * bytes as the parts of the block. Types that were taken back have no name. */
typedef struct sm__ggml_type {
    const char *name;
    uint16_t elems, bytes;
} sm__ggml_type;

static const sm__ggml_type sm__ggml_types[] = {
    {"F32", 1, 4},
    {"F16", 1, 2},
    {"Q4_0", 32, 2 + 16},
    {"Q4_1", 32, 2 + 2 + 16},
    {NULL, 0, 0},
    {NULL, 0, 0},
    {"Q5_0", 32, 2 + 4 + 16},
    {"Q5_1", 32, 2 + 2 + 4 + 16},
    {"Q8_0", 32, 2 + 32},
    {"Q8_1", 32, 2 + 2 + 32},
    {"Q2_K", 256, 16 + 64 + 2 + 2},
    {"Q3_K", 256, 32 + 64 + 12 + 2},
    {"Q4_K", 256, 2 + 2 + 12 + 128},
    {"Q5_K", 256, 2 + 2 + 12 + 32 + 128},
    {"Q6_K", 256, 128 + 64 + 16 + 2},
    {"Q8_K", 256, 4 + 256 + 32},
    {"IQ2_XXS", 256, 2 + 64},
    {"IQ2_XS", 256, 2 + 64 + 8},
    {"IQ3_XXS", 256, 2 + 96},
    {"IQ1_S", 256, 2 + 32 + 16},
    {"IQ4_NL", 32, 2 + 16},
    {"IQ3_S", 256, 2 + 64 + 8 + 32 + 4},
    {"IQ2_S", 256, 2 + 64 + 8 + 8},
    {"IQ4_XS", 256, 2 + 2 + 4 + 128},
    {"I8", 1, 1},
    {"I16", 1, 2},
    {"I32", 1, 4},
    {"I64", 1, 8},
    {"F64", 1, 8},
    {"IQ1_M", 256, 32 + 16 + 8},
    {"BF16", 1, 2},
    {NULL, 0, 0},
    {NULL, 0, 0},
    {NULL, 0, 0},
    {"TQ1_0", 256, 48 + 4 + 2},
    {"TQ2_0", 256, 64 + 2},
    {NULL, 0, 0},
    {NULL, 0, 0},
    {NULL, 0, 0},
    {"MXFP4", 32, 1 + 16},
    {"NVFP4", 64, 4 + 32},
};
#define SM__N_GGML_TYPES ((int)(sizeof sm__ggml_types / sizeof *sm__ggml_types))

static const char *sm__ggml_name(int type) {
    const char *name = type >= 0 && type < SM__N_GGML_TYPES ? sm__ggml_types[type].name : NULL;
    return name ? name : "unknown";
}

/* ---- text without printf: metadata as text, tensor names ---- */

typedef struct sm__text { /* cut to fit, always terminated */
    char *p;
    size_t n, at;
} sm__text;

static sm__text sm__text_make(char *p, size_t n) {
    sm__text t;
    t.p = p;
    t.n = n;
    t.at = 0;
    if (n) p[0] = 0;
    return t;
}

static void sm__put_bytes(sm__text *t, const char *p, size_t n) {
    size_t room = t->n > t->at ? t->n - t->at - 1 : 0;
    if (!t->n) return;
    n = sm__min_size(n, room);
    memcpy(t->p + t->at, p, n);
    t->at += n;
    t->p[t->at] = 0;
}

static void sm__put(sm__text *t, const char *text) { sm__put_bytes(t, text, strlen(text)); }

static void sm__put_u64(sm__text *t, uint64_t v) {
    char digits[20];
    int i = 20;
    do {
        digits[--i] = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    sm__put_bytes(t, digits + i, (size_t)(20 - i));
}

static void sm__put_i64(sm__text *t, int64_t v) {
    if (v < 0) sm__put(t, "-");
    sm__put_u64(t, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
}

static int sm__real_finite(double v) {
    uint64_t bits;
    memcpy(&bits, &v, 8);
    return (bits >> 52 & 0x7ffu) != 0x7ffu;
}

/* "3 tensors ..." to the log. */
static void sm__log_count(const sm_model *m, int n, const char *what) {
    char line[96];
    sm__text text = sm__text_make(line, sizeof line);
    sm__put_u64(&text, (uint64_t)n);
    sm__put(&text, what);
    sm__log(m, 0, line);
}

static double sm__scale10(double v, int e) { /* v * 10^e, in steps that stay exact when small */
    for (; e >= 22; e -= 22) v *= 1e22;
    for (; e <= -22; e += 22) v /= 1e22;
    if (e) {
        double power = 1.0;
        int i;
        for (i = e < 0 ? -e : e; i > 0; i--) power *= 10.0;
        v = e < 0 ? v / power : v * power;
    }
    return v;
}

/* The fewest digits that read back as the same number (as a float when single). */
static void sm__put_real(sm__text *t, double v, int single) {
    double a = v < 0 ? -v : v;
    int e = 0, n, i, most = single ? 9 : 17;
    char digits[24];
    uint64_t m = 0, ten = 1;
    if (!sm__real_finite(v)) {
        sm__put(t, v < 0 ? "-inf" : v > 0 ? "inf" : "nan");
        return;
    }
    while (e < 400 && sm__scale10(a, -e) >= 10.0) e++;
    while (e > -400 && a > 0 && sm__scale10(a, -e) < 1.0) e--;
    for (n = 1; n <= most; n++) {
        double back;
        m = (uint64_t)(sm__scale10(a, n - 1 - e) + 0.5);
        back = sm__scale10((double)m, e - n + 1);
        if (single ? (float)back == (float)a : back == a) break;
    }
    n = sm__min(n, most);
    for (i = 0; i < n; i++) ten *= 10;
    if (m >= ten) m /= 10, e++; /* rounded up to another digit */
    for (i = n - 1; i >= 0; i--, m /= 10) digits[i] = (char)('0' + m % 10);
    if (v < 0) sm__put(t, "-");
    if (e >= -4 && e < 0) sm__put_bytes(t, "0.000", (size_t)(1 - e));
    if (e >= 0 && e < 16) { /* plain */
        for (i = 0; i < n || i <= e; i++) {
            if (i == e + 1) sm__put(t, ".");
            sm__put_bytes(t, i < n ? digits + i : "0", 1);
        }
    } else if (e >= -4 && e < 0) {
        sm__put_bytes(t, digits, (size_t)n);
    } else {
        sm__put_bytes(t, digits, 1);
        if (n > 1) sm__put(t, ".");
        sm__put_bytes(t, digits + 1, (size_t)(n - 1));
        sm__put(t, "e");
        sm__put_i64(t, e);
    }
}

/* ---- walking through the file ---- */

typedef struct sm__cursor {
    const uint8_t *p, *end;
    int length_bytes;
    int bad; /* the file ended too early; everything read since is 0 */
} sm__cursor;

static size_t sm__left(const sm__cursor *c) { return c->bad ? 0 : (size_t)(c->end - c->p); }

static const uint8_t *sm__take(sm__cursor *c, size_t n) {
    static const uint8_t zero[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    const uint8_t *p = c->p;
    if (n > sm__left(c)) {
        c->bad = 1;
        return zero; /* for the fixed sizes below, all at most 8 */
    }
    c->p += n;
    return p;
}
static uint32_t sm__take32(sm__cursor *c) { return sm__get32(sm__take(c, 4)); }
static uint64_t sm__take64(sm__cursor *c) { return sm__get64(sm__take(c, 8)); }
static uint64_t sm__take_length(sm__cursor *c) {
    return c->length_bytes == 4 ? sm__take32(c) : sm__take64(c);
}
static sm__str sm__take_str(sm__cursor *c) {
    sm__str s = {"", 0};
    uint64_t n = sm__take_length(c);
    if (n > sm__left(c)) {
        c->bad = 1;
        return s;
    }
    s.n = (size_t)n;
    s.p = (const char *)sm__take(c, s.n);
    return s;
}

/* The value of a metadata entry: checks that it is there, and notes where. */
static sm_status sm__gguf_value(sm__cursor *c, sm__meta *meta, sm_error *error) {
    char q[SM__QUOTE];
    uint32_t type = sm__take32(c), elem = type;
    size_t bytes;
    meta->count = 1;
    if (type == SM__GGUF_ARRAY) {
        elem = sm__take32(c);
        meta->count = sm__take_length(c);
        if (elem == SM__GGUF_ARRAY)
            return sm__fail(error, SM_ERR_UNSUPPORTED, "key %s: an array of arrays",
                            sm__quote(q, meta->key));
    }
    if (type >= SM__GGUF_N_TYPES || elem >= SM__GGUF_N_TYPES)
        return sm__fail(error, SM_ERR_FORMAT, "key %s: value type %u does not exist",
                        sm__quote(q, meta->key), (unsigned)(type < SM__GGUF_N_TYPES ? elem : type));
    meta->type = (int)type;
    meta->elem_type = (int)elem;
    meta->data = c->p;
    bytes = elem == SM__GGUF_STRING ? (size_t)c->length_bytes : sm__gguf_types[elem].bytes;
    if (c->bad || meta->count > sm__left(c) / bytes)
        return sm__fail(error, SM_ERR_FORMAT, "key %s: the file ends before its %llu values",
                        sm__quote(q, meta->key), (unsigned long long)meta->count);
    if (elem == SM__GGUF_STRING) {
        uint64_t i;
        for (i = 0; i < meta->count && !c->bad; i++) sm__take_str(c);
        if (c->bad)
            return sm__fail(error, SM_ERR_FORMAT, "key %s: string %llu does not fit into the file",
                            sm__quote(q, meta->key), (unsigned long long)(i - 1));
    } else {
        c->p += (size_t)meta->count * bytes;
    }
    meta->bytes = (size_t)(c->p - meta->data);
    if (type == SM__GGUF_BOOL && meta->data[0] > 1)
        return sm__fail(error, SM_ERR_FORMAT, "key %s: %u is no bool", sm__quote(q, meta->key),
                        (unsigned)meta->data[0]);
    return SM_OK;
}

static sm_status sm__gguf_meta(sm_model *m, sm__cursor *c, uint64_t count, sm_error *error) {
    char q[SM__QUOTE];
    sm__str twice;
    int i, n;
    /* the smallest entry: a key of one byte, a type, a value of one byte */
    if (c->bad || count > sm__left(c) / ((size_t)c->length_bytes + 6) || count > SM__MAX_ITEMS)
        return sm__fail(error, SM_ERR_FORMAT, "%llu metadata entries do not fit into the file",
                        (unsigned long long)count);
    n = (int)count;
    m->meta = (sm__meta *)sm__model_alloc(m, (size_t)n, sizeof *m->meta);
    m->meta_index = (sm__named *)sm__model_alloc(m, (size_t)n, sizeof *m->meta_index);
    if (!m->meta || !m->meta_index)
        return sm__fail(error, SM_ERR_NOMEM, "no memory for %d metadata entries", n);
    for (i = 0; i < n; i++) {
        sm__meta *meta = &m->meta[i];
        sm_status status;
        meta->key = sm__take_str(c);
        if (c->bad || meta->key.n == 0 || meta->key.n > SM__MAX_KEY)
            return sm__fail(error, SM_ERR_FORMAT, "metadata entry %d: a bad key (%llu bytes)", i,
                            (unsigned long long)meta->key.n);
        status = sm__gguf_value(c, meta, error);
        if (status) return status;
        m->meta_index[i].name = meta->key;
        m->meta_index[i].i = i;
    }
    m->info.n_meta = n;
    twice = sm__named_sort(m->meta_index, n);
    if (twice.p)
        return sm__fail(error, SM_ERR_FORMAT, "key %s is there twice", sm__quote(q, twice));
    return SM_OK;
}

/* One entry of the directory; name and bytes are checked, data is set against [data, data + n). */
static sm_status sm__gguf_tensor(sm__cursor *c, sm_tensor *t, uint64_t *offset, int skip_unknown,
                                 sm_error *error) {
    const char *name = t->name;
    uint32_t n_dims = sm__take32(c), type, d;
    const sm__ggml_type *row;
    uint64_t elems = 1;
    size_t blocks;
    if (n_dims < 1 || n_dims > 4)
        return sm__fail(error, SM_ERR_FORMAT, "tensor %s: %u dimensions", name, (unsigned)n_dims);
    t->n_dims = (int)n_dims;
    for (d = 0; d < 4; d++) t->dims[d] = d < n_dims ? sm__take_length(c) : 1;
    type = sm__take32(c);
    *offset = sm__take64(c);
    if (c->bad) return sm__fail(error, SM_ERR_FORMAT, "tensor %s: the directory is cut", name);
    for (d = 0; d < 4; d++) {
        if (t->dims[d] == 0 || elems > (uint64_t)INT64_MAX / t->dims[d])
            return sm__fail(error, SM_ERR_FORMAT, "tensor %s: dimension %u is %llu", name,
                            (unsigned)d, (unsigned long long)t->dims[d]);
        elems *= t->dims[d];
    }
    t->type = type < (uint32_t)INT32_MAX ? (int)type : INT32_MAX;
    t->bytes = 0;
    row = type < (uint32_t)SM__N_GGML_TYPES ? &sm__ggml_types[type] : NULL;
    if (!row || !row->name) {
        if (skip_unknown) return SM_OK;
        return sm__fail(error, SM_ERR_UNSUPPORTED, "tensor %s has type %u, which is not known",
                        name, (unsigned)type);
    }
    if (t->dims[0] % row->elems)
        return sm__fail(error, SM_ERR_FORMAT,
                        "tensor %s: rows of %llu elements, %s has blocks of %u", name,
                        (unsigned long long)t->dims[0], row->name, (unsigned)row->elems);
    elems /= row->elems;
    blocks = elems > SIZE_MAX ? SIZE_MAX : (size_t)elems;
    if (sm__mul_size(blocks, row->bytes, &t->bytes))
        return sm__fail(error, SM_ERR_FORMAT, "tensor %s is too large", name);
    return SM_OK;
}

/* The directory. Names are copied, for their terminating zero. */
static sm_status sm__gguf_tensors(sm_model *m, sm__cursor *c, uint64_t count, int skip_unknown,
                                  uint64_t *offsets, sm_error *error) {
    char q[SM__QUOTE], *names;
    sm__str twice;
    int i, n = (int)count;
    names = (char *)sm__model_alloc(m, (size_t)n, SM__MAX_NAME + 1);
    m->tensors = (sm_tensor *)sm__model_alloc(m, (size_t)n, sizeof *m->tensors);
    m->tensor_index = (sm__named *)sm__model_alloc(m, (size_t)n, sizeof *m->tensor_index);
    if (!names || !m->tensors || !m->tensor_index)
        return sm__fail(error, SM_ERR_NOMEM, "no memory for a directory of %d tensors", n);
    for (i = 0; i < n; i++, names += SM__MAX_NAME + 1) {
        sm_tensor *t = &m->tensors[i];
        sm__str name = sm__take_str(c);
        sm_status status;
        if (c->bad || name.n == 0 || name.n > SM__MAX_NAME || memchr(name.p, 0, name.n))
            return sm__fail(error, SM_ERR_FORMAT, "tensor %d: a bad name: %s", i,
                            sm__quote(q, name));
        memcpy(names, name.p, name.n);
        names[name.n] = 0;
        memset(t, 0, sizeof *t);
        t->name = names;
        status = sm__gguf_tensor(c, t, &offsets[i], skip_unknown, error);
        if (status) return status;
        m->tensor_index[i].name = name;
        m->tensor_index[i].name.p = names;
        m->tensor_index[i].i = i;
    }
    m->info.n_tensors = n;
    twice = sm__named_sort(m->tensor_index, n);
    if (twice.p) return sm__fail(error, SM_ERR_FORMAT, "tensor %s is there twice", twice.p);
    return SM_OK;
}

static const sm__meta *sm__meta_find(const sm_model *m, const char *key) {
    int i = sm__named_find(m->meta_index, m->info.n_meta, sm__str_of(key));
    return i < 0 ? NULL : &m->meta[i];
}

static sm_status sm__gguf_alignment(const sm_model *m, uint32_t *alignment, sm_error *error) {
    const sm__meta *meta = sm__meta_find(m, "general.alignment");
    *alignment = 32;
    if (!meta) return SM_OK;
    if (meta->type != SM__GGUF_U32)
        return sm__fail(error, SM_ERR_FORMAT, "key general.alignment is no u32");
    *alignment = sm__get32(meta->data);
    if (*alignment == 0 || *alignment > SM__MAX_ALIGNMENT || (*alignment & (*alignment - 1)))
        return sm__fail(error, SM_ERR_FORMAT,
                        "key general.alignment: %u is no power of two <= 2^20",
                        (unsigned)*alignment);
    return SM_OK;
}

/* Puts every tensor's data into the bytes behind the directory. */
static sm_status sm__gguf_place(sm_model *m, const sm__bytes *file, size_t at,
                                const uint64_t *offsets, uint32_t alignment, sm_error *error) {
    size_t start, room;
    int i;
    if (sm__add_size(at, alignment - 1, &start)) start = SIZE_MAX;
    start = start / alignment * alignment;
    if (start > file->n)
        return sm__fail(error, SM_ERR_FORMAT, "the file ends before the tensors' data");
    room = file->n - start;
    for (i = 0; i < m->info.n_tensors; i++) {
        sm_tensor *t = &m->tensors[i];
        if (offsets[i] % alignment)
            return sm__fail(error, SM_ERR_FORMAT, "tensor %s: offset %llu is not aligned to %u",
                            t->name, (unsigned long long)offsets[i], (unsigned)alignment);
        if (offsets[i] > room || t->bytes > room - (size_t)offsets[i])
            return sm__fail(error, SM_ERR_FORMAT,
                            "tensor %s: %llu bytes at offset %llu, the data has %llu", t->name,
                            (unsigned long long)t->bytes, (unsigned long long)offsets[i],
                            (unsigned long long)room);
        if (t->bytes) t->data = file->p + start + (size_t)offsets[i];
    }
    return SM_OK;
}

/* ---- metadata by key ---- */

/* Element i as a double (exact below 2^53); 0 = it is no number. */
static int sm__meta_number(const sm__meta *meta, uint64_t i, double *value) {
    const uint8_t *p = meta->data + (size_t)i * sm__gguf_types[meta->elem_type].bytes;
    uint64_t u = 0;
    float f;
    if (meta->elem_type == SM__GGUF_STRING) return 0;
    memcpy(&u, p, sm__gguf_types[meta->elem_type].bytes);
    switch (meta->elem_type) {
    case SM__GGUF_I8: *value = (int8_t)u; break;
    case SM__GGUF_I16: *value = (int16_t)u; break;
    case SM__GGUF_I32: *value = (int32_t)u; break;
    case SM__GGUF_I64: *value = (double)(int64_t)u; break;
    case SM__GGUF_F32: *value = (memcpy(&f, p, 4), f); break;
    case SM__GGUF_F64: memcpy(value, p, 8); break;
    default: *value = (double)u;
    }
    return 1;
}

/* A string value; of anything else, and of NULL, an empty one. */
static sm__str sm__meta_text(const sm_model *m, const sm__meta *meta) {
    sm__str s = {"", 0};
    if (!meta || meta->type != SM__GGUF_STRING) return s;
    s.p = (const char *)meta->data + m->length_bytes;
    s.n = meta->bytes - (size_t)m->length_bytes;
    return s;
}

static sm__str sm__meta_string(const sm_model *m, const char *key) {
    return sm__meta_text(m, sm__meta_find(m, key));
}

/* A bool that may be missing: -1. */
static int sm__meta_bool(const sm_model *m, const char *key) {
    const sm__meta *meta = sm__meta_find(m, key);
    return meta && meta->type == SM__GGUF_BOOL ? meta->data[0] : -1;
}

SM_API const char *sm_model_meta_at(const sm_model *model, int i, char *buf, size_t n) {
    sm__text t = sm__text_make(buf, buf ? n : 0);
    if (!model || i < 0 || i >= model->info.n_meta) return NULL;
    sm__put_bytes(&t, model->meta[i].key.p, model->meta[i].key.n);
    return t.n ? buf : "";
}

SM_API const char *sm_model_meta(const sm_model *model, const char *key, char *buf, size_t n) {
    sm__text t = sm__text_make(buf, buf ? n : 0);
    const sm__meta *meta = model && key ? sm__meta_find(model, key) : NULL;
    double v = 0.0;
    if (!meta) return NULL;
    if (meta->type == SM__GGUF_ARRAY) {
        sm__put(&t, "[");
        sm__put(&t, sm__gguf_types[meta->elem_type].name);
        sm__put(&t, " x ");
        sm__put_u64(&t, meta->count);
        sm__put(&t, "]");
    } else if (meta->type == SM__GGUF_STRING) {
        sm__put_bytes(&t, (const char *)meta->data + model->length_bytes,
                      meta->bytes - (size_t)model->length_bytes);
    } else if (meta->type == SM__GGUF_BOOL) {
        sm__put(&t, meta->data[0] ? "true" : "false");
    } else if (meta->type == SM__GGUF_U64) {
        sm__put_u64(&t, sm__get64(meta->data));
    } else if (meta->type == SM__GGUF_I64) {
        sm__put_i64(&t, (int64_t)sm__get64(meta->data));
    } else {
        uint64_t fp = sm__fp_enter(); /* denormals have digits too */
        sm__meta_number(meta, 0, &v);
        if (sm__gguf_types[meta->type].is_int) sm__put_i64(&t, (int64_t)v);
        else sm__put_real(&t, v, meta->type == SM__GGUF_F32);
        sm__fp_leave(fp);
    }
    return t.n ? buf : "";
}

/* ---- hyperparameters ---- */

static int sm__tensor_at(const sm_model *m, const char *name) {
    return sm__named_find(m->tensor_index, m->info.n_tensors, sm__str_of(name));
}

/* lo <= v <= hi, and false for NaN even where the host asked for -ffast-math. */
static int sm__real_in(double v, double lo, double hi) {
    return sm__real_finite(v) && v >= lo && v <= hi;
}

static sm_status sm__scales_check(const sm__hparams *h, sm_error *error) {
    double scales[4];
    int i;
    scales[0] = h->embed_scale, scales[1] = h->residual_scale, scales[2] = h->logit_scale;
    scales[3] = h->score_scale != 0.0 ? h->score_scale : 1.0;
    for (i = 0; i < 4; i++)
        if (!sm__real_in(scales[i] < 0.0 ? -scales[i] : scales[i], 1e-6, 1e6))
            return sm__fail(error, SM_ERR_FORMAT, "the scale of %s is not within 1e-6 and 1e6",
                            i == 0   ? "embeddings"
                            : i == 1 ? "residuals"
                            : i == 2 ? "logits"
                                     : "attention");
    if ((h->score_cap != 0.0 && !sm__real_in(h->score_cap, 1e-3, 1e6)) ||
        (h->logit_cap != 0.0 && !sm__real_in(h->logit_cap, 1e-3, 1e6)))
        return sm__fail(error, SM_ERR_FORMAT, "a soft cap is not within 1e-3 and 1e6");
    return SM_OK;
}

/* The one place where hyperparameters are judged, whatever file they came from. After it
 * (n_heads + 2 * n_kv_heads) * head_dim and 2 * n_ff fit in 31 bits, nothing divides by zero, and
 * angles stay below 1e9. */
static sm_status sm__hparams_check(const sm_model *m, sm_error *error) {
    const sm__hparams *h = &m->hp;
    struct {
        const char *name;
        int value, max;
    } list[8];
    int i;
#define SM__ITEM(k, n, v, m) list[k].name = n, list[k].value = v, list[k].max = m
    SM__ITEM(0, "vocabulary size", h->n_vocab, SM__MAX_VOCAB);
    SM__ITEM(1, "context length", h->n_ctx, SM__MAX_DIM);
    SM__ITEM(2, "embedding length", h->n_embd, SM__MAX_DIM);
    SM__ITEM(3, "layer count", h->n_layers, SM__MAX_LAYERS);
    SM__ITEM(4, "head count", h->n_heads, SM__MAX_DIM);
    SM__ITEM(5, "key/value head count", h->n_kv_heads, h->n_heads);
    SM__ITEM(6, "head width", h->head_dim, SM__MAX_DIM);
    SM__ITEM(7, "feed-forward length", h->n_ff, SM__MAX_DIM);
#undef SM__ITEM
    for (i = 0; i < 8; i++)
        if (list[i].value < 1 || list[i].value > list[i].max)
            return sm__fail(error, SM_ERR_FORMAT, "%s %d is not within 1 and %d", list[i].name,
                            list[i].value, list[i].max);
    if (h->n_heads % h->n_kv_heads)
        return sm__fail(error, SM_ERR_FORMAT, "%d heads do not share %d key/value heads evenly",
                        h->n_heads, h->n_kv_heads);
    if ((int64_t)h->n_heads * h->head_dim > 1 << 24)
        return sm__fail(error, SM_ERR_FORMAT, "%d heads of width %d are too large", h->n_heads,
                        h->head_dim);
    if (h->pos != SM__POS_LEARNED && (h->n_rot < 2 || h->n_rot > h->head_dim || h->n_rot % 2))
        return sm__fail(error, SM_ERR_FORMAT, "%d rotated elements of a head of %d", h->n_rot,
                        h->head_dim);
    if (!sm__real_in(h->norm_eps, 1e-30, 1.0))
        return sm__fail(error, SM_ERR_FORMAT, "the norm's epsilon is not within 1e-30 and 1");
    if (!sm__real_in(h->rope_base, 1.0001, 1e15))
        return sm__fail(error, SM_ERR_FORMAT, "the rope's base is not within 1.0001 and 1e15");
    if (!sm__real_in(h->scaling_factor, 0.1, 1e6) || !sm__real_in(h->original_ctx, 0.0, 1e9) ||
        (h->scaling >= SM__SCALING_LLAMA3 && h->original_ctx < 1.0))
        return sm__fail(error, SM_ERR_FORMAT, "rope scaling: a bad factor or original context");
    if (!sm__real_in(h->low_freq_factor, 1e-3, 1e6) ||
        !sm__real_in(h->high_freq_factor, 1e-3, 1e6) || h->high_freq_factor <= h->low_freq_factor)
        return sm__fail(error, SM_ERR_FORMAT, "rope scaling: bad frequency factors");
    if (!sm__real_in(h->beta_fast, 1e-3, 1e6) || !sm__real_in(h->beta_slow, 1e-3, 1e6) ||
        !sm__real_in(h->ext_factor, 0.0, 1.0) || !sm__real_in(h->attn_factor, 0.0, 1e3))
        return sm__fail(error, SM_ERR_FORMAT, "rope scaling: bad YaRN parameters");
    if (h->local_base != 0.0 && !sm__real_in(h->local_base, 1.0001, 1e15))
        return sm__fail(error, SM_ERR_FORMAT, "the rope's local base is not in [1.0001, 1e15]");
    if (h->window < 0 || h->window > SM__MAX_DIM)
        return sm__fail(error, SM_ERR_FORMAT, "a sliding window of %d keys", h->window);
    return sm__scales_check(h, error);
}

static const sm__meta *sm__arch_find_key(const sm_model *m, const char *suffix) {
    char key[160];
    sm__text t = sm__text_make(key, sizeof key);
    sm__put(&t, m->info.arch);
    sm__put(&t, ".");
    sm__put(&t, suffix);
    return sm__meta_find(m, key);
}

/* An integer under "{arch}.suffix". A list with a value per layer must have equal ones. *out stays
 * as it is when the key is missing and need is 0. */
static sm_status sm__gguf_int(const sm_model *m, const char *suffix, int need, int *out,
                              sm_error *error) {
    const sm__meta *meta = sm__arch_find_key(m, suffix);
    uint64_t i;
    double v = 0.0, next;
    if (!meta && need)
        return sm__fail(error, SM_ERR_FORMAT, "key %s.%s is missing", m->info.arch, suffix);
    if (!meta) return SM_OK;
    if (!sm__gguf_types[meta->elem_type].is_int || meta->count == 0)
        return sm__fail(error, SM_ERR_FORMAT, "key %s.%s is no integer", m->info.arch, suffix);
    sm__meta_number(meta, 0, &v);
    for (i = 1; i < meta->count; i++) {
        sm__meta_number(meta, i, &next);
        if (next != v)
            return sm__fail(error, SM_ERR_UNSUPPORTED, "key %s.%s differs from layer to layer",
                            m->info.arch, suffix);
    }
    if (v < 0 || v > INT32_MAX)
        return sm__fail(error, SM_ERR_FORMAT, "key %s.%s is out of range", m->info.arch, suffix);
    *out = (int)v;
    return SM_OK;
}

/* A real number under "{arch}.suffix"; 1 = it was there. What is no number becomes -1, which no
 * range below contains. */
static int sm__gguf_real(const sm_model *m, const char *suffix, double *out) {
    const sm__meta *meta = sm__arch_find_key(m, suffix);
    if (!meta) return 0;
    if (meta->type == SM__GGUF_ARRAY || !sm__meta_number(meta, 0, out)) *out = -1.0;
    return 1;
}

/* Rotary scaling. A YaRN attention factor in GGUF multiplies the formula; ours replaces it. */
static sm_status sm__gguf_scaling(sm_model *m, sm_error *error) {
    sm__hparams *h = &m->hp;
    const sm__meta *meta = sm__arch_find_key(m, "rope.scaling.type");
    sm__str type = {"linear", 6}; /* what a factor alone means */
    double attn = 1.0, factor = 0.0;
    char q[SM__QUOTE];
    if (meta && meta->type == SM__GGUF_STRING) type = sm__meta_text(m, meta);
    if (!sm__gguf_real(m, "rope.scaling.factor", &factor))
        sm__gguf_real(m, "rope.scale_linear", &factor);
    if (factor == 0.0) factor = 1.0;
    h->scaling_factor = factor;
    h->original_ctx = h->n_ctx;
    sm__gguf_real(m, "rope.scaling.original_context_length", &h->original_ctx);
    if (sm__str_is(type, "none")) {
        h->scaling_factor = 1.0;
    } else if (sm__str_is(type, "linear")) {
        h->scaling = factor == 1.0 ? SM__SCALING_NONE : SM__SCALING_LINEAR;
    } else if (sm__str_is(type, "yarn")) {
        h->scaling = SM__SCALING_YARN;
        sm__gguf_real(m, "rope.scaling.yarn_ext_factor", &h->ext_factor);
        sm__gguf_real(m, "rope.scaling.yarn_beta_fast", &h->beta_fast);
        sm__gguf_real(m, "rope.scaling.yarn_beta_slow", &h->beta_slow);
        if (h->ext_factor < 0.0) h->ext_factor = 1.0;
        if (h->ext_factor == 0.0) h->attn_factor = 1.0;
        if (sm__gguf_real(m, "rope.scaling.attn_factor", &attn) ||
            sm__gguf_real(m, "rope.scaling.yarn_attn_factor", &attn)) {
            double formula = 1.0;
            if (h->ext_factor != 0.0 && sm__real_in(factor, 1.0, 1e6))
                formula = 1.0 + 0.1 * sm__log_double(factor);
            h->attn_factor = attn * formula;
        }
    } else if (sm__str_is(type, "longrope")) { /* the factors are tensors: sm__bind_rope_factors */
        h->scaling = factor == 1.0 ? SM__SCALING_NONE : SM__SCALING_LINEAR;
    } else {
        return sm__fail(error, SM_ERR_UNSUPPORTED, "rope scaling of type %s", sm__quote(q, type));
    }
    if (h->scaling != SM__SCALING_YARN)
        sm__gguf_real(m, "rope.scaling.attn_factor", &h->attn_factor);
    return SM_OK;
}

/* Windows, and layers without rotation. */
static sm_status sm__gguf_layers(sm_model *m, sm_error *error) {
    static const char *const pattern_key = "attention.sliding_window_pattern";
    const sm__arch *arch = m->arch;
    const sm__meta *list = sm__arch_find_key(m, pattern_key);
    sm__hparams *h = &m->hp;
    int every = arch->all_every, il, window = 0;
    sm_status status = sm__gguf_int(m, "attention.sliding_window",
                                    (arch->flags & SM__ARCH_SOFT_CAPS) != 0, &window, error);
    if (status) return status;
    if (every == SM__NO_WINDOW) {
        if (window) h->n_ctx = sm__min(h->n_ctx, window);
        window = 0;
    }
    if (list && list->type != SM__GGUF_ARRAY) list = NULL;
    if (window && list && (list->elem_type == SM__GGUF_STRING ||
                           list->count != (uint64_t)h->n_layers))
        return sm__fail(error, SM_ERR_FORMAT, "key %s.%s is no list of %d", arch->name, pattern_key,
                        h->n_layers);
    if (window && !list && (status = sm__gguf_int(m, pattern_key, 0, &every, error))) return status;
    for (il = 0; il < sm__min(h->n_layers, SM__MAX_LAYERS); il++) {
        uint32_t bit = (uint32_t)1 << il % 32;
        double windowed = !(every && il % every == every - 1);
        if (window && list) sm__meta_number(list, (uint64_t)il, &windowed);
        if (window && windowed != 0.0) h->windowed[il / 32] |= bit;
        if ((arch->bare_every && il % arch->bare_every == arch->bare_every - 1) ||
            (window && windowed == 0.0 && (arch->flags & SM__ARCH_ALL_IS_BARE)))
            h->bare[il / 32] |= bit;
    }
    h->window = window;
    if (window && arch->local_base)
        h->local_base = arch->local_base > 1 ? (double)arch->local_base : h->rope_base;
    if (window) sm__gguf_real(m, "rope.freq_base_swa", &h->local_base);
    return SM_OK;
}

/* A real number that must be there when `need`; it stays as it is when it is missing or 0. */
static sm_status sm__gguf_scale(const sm_model *m, const char *suffix, int need, double *out,
                                sm_error *error) {
    double v = 0.0;
    if (!sm__gguf_real(m, suffix, &v) && need)
        return sm__fail(error, SM_ERR_FORMAT, "key %s.%s is missing", m->info.arch, suffix);
    if (v != 0.0) *out = v;
    return SM_OK;
}

/* Scales, caps, and what else a file may say of its layers. */
static sm_status sm__gguf_scales(sm_model *m, sm_error *error) {
    int flags = m->arch->flags, caps = flags & SM__ARCH_SOFT_CAPS;
    const sm__meta *act = sm__arch_find_key(m, "hidden_activation");
    sm__hparams *h = &m->hp;
    sm_status status;
    char q[SM__QUOTE];
    if (flags & SM__ARCH_SQRT_EMBED) h->embed_scale = sm__sqrt((float)h->n_embd);
    if (m->arch->wide_layers && m->arch->wide_layers == h->n_layers && h->n_embd >= h->n_heads)
        h->score_scale = sm__div(1.0f, sm__sqrt((float)(h->n_embd / h->n_heads)));
    if ((status = sm__gguf_scale(m, "embedding_scale", 0, &h->embed_scale, error)) ||
        (status = sm__gguf_scale(m, "residual_scale", 0, &h->residual_scale, error)) ||
        (status = sm__gguf_scale(m, "attention.scale", 0, &h->score_scale, error)) ||
        (status = sm__gguf_scale(m, "attn_logit_softcapping", caps, &h->score_cap, error)) ||
        (status = sm__gguf_scale(m, "final_logit_softcapping", caps, &h->logit_cap, error)))
        return status;
    if (flags & (SM__ARCH_LOGIT_DIVISOR | SM__ARCH_LOGIT_FACTOR))
        status = sm__gguf_scale(m, "logit_scale", flags & SM__ARCH_LOGIT_DIVISOR, &h->logit_scale,
                                error);
    if (flags & SM__ARCH_LOGIT_DIVISOR) h->logit_scale = 1.0 / h->logit_scale;
    h->parallel = (flags & SM__ARCH_PARALLEL) != 0;
    if (flags & SM__ARCH_MAYBE_PARALLEL) {
        const sm__meta *parallel = sm__arch_find_key(m, "use_parallel_residual");
        if (!parallel || parallel->type != SM__GGUF_BOOL)
            return sm__fail(error, SM_ERR_FORMAT, "key %s.use_parallel_residual is no bool",
                            m->info.arch);
        h->parallel = parallel->data[0] != 0;
    }
    if (flags & SM__ARCH_MAYBE_FFN_NORM)
        h->parallel = sm__tensor_at(m, "blk.0.ffn_norm.weight") < 0;
    h->ffn = m->arch->ffn;
    if (act && (flags & SM__ARCH_SUB_NORM)) {
        sm__str name = sm__meta_text(m, act);
        if (sm__str_is(name, "relu2")) h->ffn = SM__FFN_RELU2_GLU;
        else if (!sm__str_is(name, "silu"))
            status = sm__fail(error, SM_ERR_UNSUPPORTED, "activation %s", sm__quote(q, name));
    }
    return status;
}

static sm_status sm__gguf_heads(sm_model *m, sm_error *error) {
    sm__hparams *h = &m->hp;
    sm_status status;
    int v_dim;
    if ((status = sm__gguf_int(m, "attention.head_count", 1, &h->n_heads, error))) return status;
    h->n_kv_heads = h->n_heads;
    if ((status = sm__gguf_int(m, "attention.head_count_kv", 0, &h->n_kv_heads, error)))
        return status;
    if ((status = sm__gguf_int(m, "attention.key_length", 0, &h->head_dim, error))) return status;
    if (h->head_dim == 0) {
        if (h->n_heads == 0 || h->n_embd % h->n_heads)
            return sm__fail(error, SM_ERR_FORMAT, "embedding length %d is no multiple of %d heads",
                            h->n_embd, h->n_heads);
        h->head_dim = h->n_embd / h->n_heads;
    }
    v_dim = h->head_dim;
    if ((status = sm__gguf_int(m, "attention.value_length", 0, &v_dim, error))) return status;
    if (v_dim != h->head_dim)
        return sm__fail(error, SM_ERR_UNSUPPORTED, "heads with keys of %d and values of %d",
                        h->head_dim, v_dim);
    h->n_rot = h->pos == SM__POS_LEARNED ? 0 : h->head_dim;
    if (h->pos == SM__POS_LEARNED) return SM_OK;
    return sm__gguf_int(m, "rope.dimension_count", 0, &h->n_rot, error);
}

static sm_status sm__gguf_hparams(sm_model *m, sm_error *error) {
    sm__hparams *h = &m->hp;
    sm_status status;
    double eps = 0.0;
    int experts = 0, embed = sm__tensor_at(m, "token_embd.weight");
    const char *eps_key = m->arch->norm == SM__NORM_RMS ? "attention.layer_norm_rms_epsilon"
                                                        : "attention.layer_norm_epsilon";
    h->pos = m->arch->pos;
    if ((status = sm__gguf_int(m, "block_count", 1, &h->n_layers, error)) ||
        (status = sm__gguf_int(m, "context_length", 1, &h->n_ctx, error)) ||
        (status = sm__gguf_int(m, "embedding_length", 1, &h->n_embd, error)) ||
        (status = sm__gguf_int(m, "feed_forward_length", 1, &h->n_ff, error)) ||
        (status = sm__gguf_int(m, "vocab_size", 0, &h->n_vocab, error)) ||
        (status = sm__gguf_int(m, "expert_count", 0, &experts, error)))
        return status;
    if (experts) return sm__fail(error, SM_ERR_UNSUPPORTED, "a mixture of %d experts", experts);
    if ((status = sm__gguf_heads(m, error))) return status;
    if (m->vocab.kind != SM__VOCAB_NONE) h->n_vocab = m->vocab.n;
    if (embed < 0 && m->info.n_tensors)
        return sm__fail(error, SM_ERR_FORMAT, "tensor token_embd.weight is missing");
    if (embed >= 0 && m->tensors[embed].dims[1] <= SM__MAX_VOCAB)
        h->n_vocab = (int)m->tensors[embed].dims[1];
    if (m->vocab.kind != SM__VOCAB_NONE && h->n_vocab != m->vocab.n)
        return sm__fail(error, SM_ERR_FORMAT, "%d tokens, but token_embd.weight has %d rows",
                        m->vocab.n, h->n_vocab);
    if (!sm__gguf_real(m, eps_key, &eps))
        return sm__fail(error, SM_ERR_FORMAT, "key %s.%s is missing", m->info.arch, eps_key);
    h->norm_eps = sm__real_in(eps, 0.0, 1.0) ? (float)eps : 0.0f;
    sm__gguf_real(m, "rope.freq_base", &h->rope_base);
    if ((status = sm__gguf_scaling(m, error)) || (status = sm__gguf_layers(m, error)) ||
        (status = sm__gguf_scales(m, error)))
        return status;
    if (h->pos != SM__POS_LEARNED) h->n_ctx = sm__min(h->n_ctx, SM__MAX_DIM);
    return sm__hparams_check(m, error);
}

/* ---- vocabulary ---- */

/* An array of strings as views of the file. */
static sm_status sm__gguf_strings(sm_model *m, const char *key, sm__str **out, int *n,
                                  sm_error *error) {
    const sm__meta *meta = sm__meta_find(m, key);
    sm__cursor c;
    int i;
    if (!meta) return sm__fail(error, SM_ERR_FORMAT, "key %s is missing", key);
    if (meta->type != SM__GGUF_ARRAY || meta->elem_type != SM__GGUF_STRING)
        return sm__fail(error, SM_ERR_FORMAT, "key %s is no array of strings", key);
    if (meta->count > SM__MAX_VOCAB)
        return sm__fail(error, SM_ERR_FORMAT, "key %s has too many strings", key);
    *n = (int)meta->count;
    *out = (sm__str *)sm__model_alloc(m, (size_t)*n, sizeof **out);
    if (!*out) return sm__fail(error, SM_ERR_NOMEM, "no memory for the %d strings of %s", *n, key);
    memset(&c, 0, sizeof c);
    c.p = meta->data;
    c.end = meta->data + meta->bytes;
    c.length_bytes = m->length_bytes;
    for (i = 0; i < *n; i++) {
        (*out)[i] = sm__take_str(&c);
        if ((*out)[i].n > SM__MAX_TOKEN)
            return sm__fail(error, SM_ERR_FORMAT, "key %s: string %d has %llu bytes", key, i,
                            (unsigned long long)(*out)[i].n);
    }
    return SM_OK;
}

/* An array with a number per token; NULL when the key is missing. */
static sm_status sm__gguf_per_token(const sm_model *m, const char *key, int want_int,
                                    const sm__meta **out, sm_error *error) {
    const sm__meta *meta = sm__meta_find(m, key);
    *out = meta;
    if (!meta) return SM_OK;
    if (meta->type != SM__GGUF_ARRAY ||
        (want_int ? meta->elem_type != SM__GGUF_I32 && meta->elem_type != SM__GGUF_U32
                  : meta->elem_type != SM__GGUF_F32))
        return sm__fail(error, SM_ERR_FORMAT, "key %s is no array of %s", key,
                        want_int ? "i32" : "f32");
    if (meta->count != (uint64_t)m->vocab.n)
        return sm__fail(error, SM_ERR_FORMAT, "key %s has %llu values for %d tokens", key,
                        (unsigned long long)meta->count, m->vocab.n);
    return SM_OK;
}

static sm_status sm__gguf_scores(sm_model *m, sm_error *error) {
    const sm__meta *meta;
    sm_status status = sm__gguf_per_token(m, "tokenizer.ggml.scores", 0, &meta, error);
    int i;
    if (status || !meta) return status;
    m->vocab.scores = (float *)sm__model_alloc(m, (size_t)m->vocab.n, sizeof(float));
    if (!m->vocab.scores) return sm__fail(error, SM_ERR_NOMEM, "no memory for the scores");
    memcpy(m->vocab.scores, meta->data, meta->bytes);
    for (i = 0; i < m->vocab.n; i++)
        if ((sm__bits(m->vocab.scores[i]) & 0x7fffffffu) > 0x7f800000u)
            return sm__fail(error, SM_ERR_FORMAT, "the score of token %d is no number", i);
    return SM_OK;
}

static sm_status sm__gguf_kinds(sm_model *m, sm_error *error) {
    const sm__meta *meta;
    sm_status status = sm__gguf_per_token(m, "tokenizer.ggml.token_type", 1, &meta, error);
    int i;
    if (status) return status;
    m->vocab.kinds = (uint8_t *)sm__model_alloc(m, (size_t)m->vocab.n, 1);
    if (!m->vocab.kinds) return sm__fail(error, SM_ERR_NOMEM, "no memory for the token types");
    for (i = 0; i < m->vocab.n; i++) {
        uint32_t kind = meta ? sm__get32(meta->data + 4 * (size_t)i) : 0;
        if (kind > SM__TOKEN_BYTE)
            return sm__fail(error, SM_ERR_FORMAT, "token %d has type %u", i, (unsigned)kind);
        m->vocab.kinds[i] = kind ? (uint8_t)kind : (uint8_t)SM__TOKEN_NORMAL; /* 0 = undefined */
    }
    return SM_OK;
}

/* A token id; what no token has is none (-1), as others read it, with a line in the log. */
static int32_t sm__gguf_id(const sm_model *m, const char *key, int32_t missing) {
    const sm__meta *meta = sm__meta_find(m, key);
    char line[128];
    sm__text text = sm__text_make(line, sizeof line);
    double v;
    if (!meta) return missing < m->vocab.n ? missing : -1;
    if (meta->type != SM__GGUF_ARRAY && sm__gguf_types[meta->type].is_int &&
        sm__meta_number(meta, 0, &v) && v >= 0 && v < m->vocab.n)
        return (int32_t)v;
    sm__put(&text, "key ");
    sm__put(&text, key);
    sm__put(&text, " names no token: ignored");
    sm__log(m, 0, line);
    return -1;
}

static sm_status sm__gguf_vocab(sm_model *m, sm_error *error) {
    sm__str model = sm__meta_string(m, "tokenizer.ggml.model");
    sm__vocab *v = &m->vocab;
    sm_status status;
    char q[SM__QUOTE];
    int spm;
    if (model.n == 0 || sm__str_is(model, "none")) return SM_OK;
    spm = sm__str_is(model, "llama");
    if (!spm && !sm__str_is(model, "gpt2"))
        return sm__fail(error, SM_ERR_UNSUPPORTED, "a tokenizer of kind %s", sm__quote(q, model));
    if ((status = sm__gguf_strings(m, "tokenizer.ggml.tokens", &v->tokens, &v->n, error)))
        return status;
    if (v->n == 0) return sm__fail(error, SM_ERR_FORMAT, "tokenizer.ggml.tokens is empty");
    v->kind = spm ? SM__VOCAB_SPM : SM__VOCAB_BPE;
    if ((status = sm__gguf_scores(m, error))) return status;
    if ((status = sm__gguf_kinds(m, error))) return status;
    if (!spm) {
        status = sm__gguf_strings(m, "tokenizer.ggml.merges", &v->merges, &v->n_merges, error);
        if (status) return status;
    }
    v->pre = sm__meta_string(m, "tokenizer.ggml.pre");
    v->bos = sm__gguf_id(m, "tokenizer.ggml.bos_token_id", spm ? 1 : -1);
    v->eos = sm__gguf_id(m, "tokenizer.ggml.eos_token_id", spm ? 2 : -1);
    v->unk = sm__gguf_id(m, "tokenizer.ggml.unknown_token_id", spm ? 0 : -1);
    v->eot = sm__gguf_id(m, "tokenizer.ggml.eot_token_id", -1);
    v->pad = sm__gguf_id(m, "tokenizer.ggml.padding_token_id", -1);
    v->add_bos = sm__meta_bool(m, "tokenizer.ggml.add_bos_token");
    v->add_eos = sm__meta_bool(m, "tokenizer.ggml.add_eos_token");
    v->add_space_prefix = sm__meta_bool(m, "tokenizer.ggml.add_space_prefix");
    return SM_OK;
}

/* general.architecture; a file without weights may have any, or none. */
static sm_status sm__gguf_arch(sm_model *m, int weights, sm_error *error) {
    sm__str arch = sm__meta_string(m, "general.architecture");
    sm__str name = sm__meta_string(m, "general.name");
    char q[SM__QUOTE];
    if (arch.n > SM__MAX_NAME || memchr(arch.p, 0, arch.n)) arch.n = 0;
    name.n = sm__min_size(name.n, 255);
    m->info.arch = sm__str_copy(m, arch);
    m->info.name = sm__str_copy(m, name);
    if (!m->info.arch || !m->info.name)
        return sm__fail(error, SM_ERR_NOMEM, "no memory for the model's name");
    m->arch = sm__arch_find(arch);
    if (weights && arch.n == 0)
        return sm__fail(error, SM_ERR_FORMAT, "key general.architecture is missing");
    if (weights && !m->arch)
        return sm__fail(error, SM_ERR_UNSUPPORTED, "architecture %s", sm__quote(q, arch));
    return SM_OK;
}

static int sm__is_gguf(const sm__bytes *file) {
    return file->n >= 4 && memcmp(file->p, "GGUF", 4) == 0;
}

/* Magic, version, counts. */
static sm_status sm__gguf_header(sm_model *m, sm__cursor *c, uint64_t *n_tensors, uint64_t *n_meta,
                                 sm_error *error) {
    static const char *const formats[] = {"GGUF v1", "GGUF v2", "GGUF v3"};
    uint32_t version;
    sm__take(c, 4);
    version = sm__take32(c);
    if (!c->bad && version && (version & 0xffffu) == 0)
        return sm__fail(error, SM_ERR_UNSUPPORTED, "a big-endian GGUF file");
    if (c->bad || version == 0)
        return sm__fail(error, SM_ERR_FORMAT, "the GGUF header is cut, or has no version");
    if (version > 3)
        return sm__fail(error, SM_ERR_UNSUPPORTED, "GGUF version %u", (unsigned)version);
    m->length_bytes = c->length_bytes = version == 1 ? 4 : 8;
    m->info.format = formats[version - 1];
    *n_tensors = sm__take_length(c);
    *n_meta = sm__take_length(c);
    if (c->bad) return sm__fail(error, SM_ERR_FORMAT, "the GGUF header is cut");
    return SM_OK;
}

/* Metadata and directory of a GGUF file. */
static sm_status sm__gguf_directory(sm_model *m, const sm__bytes *file, int skip_unknown,
                                    sm_error *error) {
    sm__cursor c;
    uint64_t n_tensors = 0, n_meta = 0, *offsets;
    uint32_t alignment = 32;
    sm_status status;
    memset(&c, 0, sizeof c);
    c.p = file->p;
    c.end = file->p + file->n;
    if ((status = sm__gguf_header(m, &c, &n_tensors, &n_meta, error))) return status;
    /* the smallest directory entry: a name of one byte, one dimension, type, offset */
    if (n_tensors > sm__left(&c) / (2 * (size_t)c.length_bytes + 17) || n_tensors > SM__MAX_ITEMS)
        return sm__fail(error, SM_ERR_FORMAT, "%llu tensors do not fit into the file",
                        (unsigned long long)n_tensors);
    if ((status = sm__gguf_meta(m, &c, n_meta, error))) return status;
    if ((status = sm__gguf_alignment(m, &alignment, error))) return status;
    if (n_tensors) {
        if (n_tensors > sm__left(&c) / (2 * (size_t)c.length_bytes + 17))
            return sm__fail(error, SM_ERR_FORMAT, "%llu tensors do not fit into the file",
                            (unsigned long long)n_tensors);
        offsets = (uint64_t *)sm__model_alloc(m, (size_t)n_tensors, sizeof *offsets);
        if (!offsets) return sm__fail(error, SM_ERR_NOMEM, "no memory for the directory");
        status = sm__gguf_tensors(m, &c, n_tensors, skip_unknown, offsets, error);
        if (!status)
            status = sm__gguf_place(m, file, (size_t)(c.p - file->p), offsets, alignment, error);
        sm__model_drop(m, offsets);
    }
    return status;
}

/* Fills the model from a GGUF file: metadata, directory, vocabulary, hyperparameters. */
static sm_status sm__gguf_read(sm_model *m, const sm__bytes *file, int vocab_only,
                               sm_error *error) {
    sm_status status = sm__gguf_directory(m, file, vocab_only, error);
    int n_tensors = m->info.n_tensors;
    if (status) return status;
    if ((status = sm__gguf_arch(m, n_tensors != 0 && !vocab_only, error))) return status;
    if ((status = sm__gguf_vocab(m, error))) return status;
    if (n_tensors && !vocab_only) return sm__gguf_hparams(m, error);
    if (m->vocab.kind == SM__VOCAB_NONE)
        return sm__fail(error, SM_ERR_FORMAT, "the file holds no %s",
                        vocab_only ? "vocabulary" : "tensors and no vocabulary");
    /* Only for sm_model_get_info: what the file tells about the model it belongs to. */
    if (m->arch && sm__gguf_hparams(m, NULL)) sm__hparams_default(&m->hp);
    m->hp.n_vocab = m->vocab.n;
    m->arch = NULL;
    return SM_OK;
}

/* ================================================================================================
 * MARK: [SM31] LLAMA2.C AND SAFETENSORS
 * Two simpler formats, brought to the names and the layout of GGUF: [out, in] matrices under names
 * like blk.0.attn_q.weight. What the file does not say (rotary base, epsilon) is what the programs
 * that wrote it assume.
 * ============================================================================================== */

#define SM__MAX_ST_HEADER ((uint64_t)100 << 20) /* the format's own limit */
#define SM__MAX_CONFIG ((uint64_t)16 << 20)
#define SM__MAX_TOKENIZER ((uint64_t)256 << 20)

/* Room for a directory of at most n tensors; sm__tensor_add fills it, sm__tensors_done sorts it. */
static sm_status sm__tensors_room(sm_model *m, int n, sm_error *error) {
    m->tensors = (sm_tensor *)sm__model_alloc(m, (size_t)n, sizeof *m->tensors);
    m->tensor_index = (sm__named *)sm__model_alloc(m, (size_t)n, sizeof *m->tensor_index);
    if (!m->tensors || !m->tensor_index)
        return sm__fail(error, SM_ERR_NOMEM, "no memory for a directory of %d tensors", n);
    return SM_OK;
}

/* A matrix [rows, cols] or, with rows 0, a vector. In the name '#' stands for the layer. */
static sm_status sm__tensor_add(sm_model *m, const char *name, int layer, int type, uint64_t cols,
                                uint64_t rows, const void *data, size_t bytes, sm_error *error) {
    sm_tensor *t = &m->tensors[m->info.n_tensors];
    char *copy = (char *)sm__model_alloc(m, SM__MAX_NAME + 1, 1);
    sm__text text = sm__text_make(copy, copy ? SM__MAX_NAME + 1 : 0);
    if (!copy) return sm__fail(error, SM_ERR_NOMEM, "no memory for a tensor's name");
    for (; *name; name++) {
        if (*name == '#') sm__put_u64(&text, (uint64_t)layer);
        else sm__put_bytes(&text, name, 1);
    }
    t->name = copy;
    t->type = type;
    t->n_dims = rows ? 2 : 1;
    t->dims[0] = cols;
    t->dims[1] = rows ? rows : 1;
    t->dims[2] = t->dims[3] = 1;
    t->data = data;
    t->bytes = bytes;
    m->tensor_index[m->info.n_tensors].name = sm__str_of(copy);
    m->tensor_index[m->info.n_tensors].i = m->info.n_tensors;
    m->info.n_tensors++;
    return SM_OK;
}

static sm_status sm__tensors_done(sm_model *m, sm_error *error) {
    sm__str twice = sm__named_sort(m->tensor_index, m->info.n_tensors);
    if (twice.p) return sm__fail(error, SM_ERR_FORMAT, "tensor %s is there twice", twice.p);
    return SM_OK;
}

/* ---- llama2.c ----
 * The three versions of its export; all are int32 and F32 in a fixed order, without names.
 *
 *   0   seven sizes | tensors; an untied classifier makes the vocabulary's size negative
 *   1   "ak42" | version | seven sizes | u8: classifier tied | zeros to byte 256 | tensors
 *   2   the same with an i32 group behind the u8, and every matrix as int8 [rows, cols], then an
 *       F32 scale for every group of them; rows do not matter to groups, so they may straddle
 *
 * No block type of GGUF holds those groups (their scales have 16 bits, their blocks end with the
 * row), so such matrices become F32 in the model's memory, each weight its one rounded product.
 * sm_quantize makes Q8_0 of them where that is too much. */

#define SM__LLAMA2C_MAGIC 0x616b3432u
#define SM__LLAMA2C_HEADER 256

typedef struct sm__llama2c {
    sm_model *m;
    sm_error *error;
    int version, untied;
    int group;         /* int8 weights with one scale; 0: the matrices are F32 */
    const uint8_t *at; /* NULL: only count */
    uint64_t bytes;    /* counted so far, header included; below 2^60, as the hyperparameters are */
    sm_status status;
} sm__llama2c;

/* n int8 and the scales behind them, as F32; NULL when there is no memory. */
static const float *sm__llama2c_decode(const sm__llama2c *r, uint64_t n) {
    float *out = n > SIZE_MAX / 4 ? NULL : (float *)sm__model_alloc(r->m, (size_t)n, sizeof *out);
    const uint8_t *scales = r->at + (size_t)n;
    size_t i, g, group = (size_t)r->group;
    for (g = 0; out && g < (size_t)n / group; g++) {
        float scale = sm__from_bits(sm__get32(scales + 4 * g));
        for (i = g * group; i < (g + 1) * group; i++) out[i] = (float)(int8_t)r->at[i] * scale;
    }
    return out;
}

/* Tensors [rows, cols] (vectors: rows 0) of all layers in a row, or one. */
static void sm__llama2c_tensor(sm__llama2c *r, const char *name, int rows, int cols) {
    int i, n = strchr(name, '#') ? r->m->hp.n_layers : 1, group = rows ? r->group : 0;
    uint64_t elems = (uint64_t)cols * (uint64_t)(rows ? rows : 1);
    uint64_t bytes = group ? elems + elems / (uint64_t)group * 4 : 4 * elems;
    if (group && elems % (uint64_t)group && !r->status)
        r->status = sm__fail(r->error, SM_ERR_FORMAT, "tensor %s: %llu weights in groups of %d",
                             name, (unsigned long long)elems, group);
    r->bytes += bytes * (uint64_t)n;
    if (!r->at) return;
    for (i = 0; i < n && !r->status; i++, r->at += (size_t)bytes) {
        const void *data = group ? (const void *)sm__llama2c_decode(r, elems) : r->at;
        if (data)
            r->status = sm__tensor_add(r->m, name, i, SM_TYPE_F32, (uint64_t)cols, (uint64_t)rows,
                                       data, 4 * (size_t)elems, r->error);
        else r->status = sm__fail(r->error, SM_ERR_NOMEM, "no memory for tensor %s as F32", name);
    }
}

static void sm__llama2c_tensors(sm__llama2c *r) {
    const sm__hparams *h = &r->m->hp;
    int c = h->n_embd, kv = h->n_kv_heads * h->head_dim, f = h->n_ff, later = r->version > 0;
    uint64_t tables = 4 * (uint64_t)h->n_ctx * (uint64_t)h->head_dim;
    if (!later) sm__llama2c_tensor(r, "token_embd.weight", h->n_vocab, c);
    sm__llama2c_tensor(r, "blk.#.attn_norm.weight", 0, c);
    if (later) { /* begins with the norms */
        sm__llama2c_tensor(r, "blk.#.ffn_norm.weight", 0, c);
        sm__llama2c_tensor(r, "output_norm.weight", 0, c);
        sm__llama2c_tensor(r, "token_embd.weight", h->n_vocab, c);
    }
    sm__llama2c_tensor(r, "blk.#.attn_q.weight", c, c);
    sm__llama2c_tensor(r, "blk.#.attn_k.weight", kv, c);
    sm__llama2c_tensor(r, "blk.#.attn_v.weight", kv, c);
    sm__llama2c_tensor(r, "blk.#.attn_output.weight", c, c);
    if (!later) sm__llama2c_tensor(r, "blk.#.ffn_norm.weight", 0, c);
    sm__llama2c_tensor(r, "blk.#.ffn_gate.weight", f, c);
    sm__llama2c_tensor(r, "blk.#.ffn_down.weight", c, f);
    sm__llama2c_tensor(r, "blk.#.ffn_up.weight", f, c);
    if (!later) {
        sm__llama2c_tensor(r, "output_norm.weight", 0, c);
        r->bytes += tables; /* rotary tables: we make our own */
        if (r->at) r->at += (size_t)tables;
    }
    if (r->untied) sm__llama2c_tensor(r, "output.weight", h->n_vocab, c);
}

/* What precedes the tensors, with all of its numbers checked. */
static sm_status sm__llama2c_header(sm__llama2c *r, const sm__bytes *file) {
    static const char *const formats[] = {"llama2.c", "llama2.c v1", "llama2.c v2"};
    sm__hparams *h = &r->m->hp;
    int32_t words[9], *head = words;
    memset(words, 0, sizeof words);
    memcpy(words, file->p, sm__min_size(file->n, sizeof words));
    r->bytes = 7 * sizeof *head;
    if ((uint32_t)words[0] == SM__LLAMA2C_MAGIC) {
        head += 2;
        r->bytes = SM__LLAMA2C_HEADER;
        r->version = words[1];
        if (r->version < 1 || r->version > 2)
            return sm__fail(r->error, SM_ERR_UNSUPPORTED,
                            "a llama2.c file of version %d: 0, 1 and 2 are read", r->version);
        if (file->n < SM__LLAMA2C_HEADER)
            return sm__fail(r->error, SM_ERR_FORMAT, "the header of the llama2.c file is cut");
        if (file->p[36] > 1)
            return sm__fail(r->error, SM_ERR_FORMAT, "llama2.c: %u says if the classifier is tied",
                            (unsigned)file->p[36]);
        r->untied = !file->p[36];
        if (r->version == 2) r->group = (int)(int32_t)sm__get32(file->p + 37);
        if (r->version == 2 && r->group < 1)
            return sm__fail(r->error, SM_ERR_FORMAT, "llama2.c: groups of %d weights", r->group);
    } else if (head[5] < 0 && head[5] > -SM__MAX_VOCAB) {
        r->untied = 1;
        head[5] = -head[5];
    }
    h->n_embd = head[0];
    h->n_ff = head[1];
    h->n_layers = head[2];
    h->n_heads = head[3];
    h->n_kv_heads = head[4];
    h->n_vocab = head[5];
    h->n_ctx = head[6];
    h->head_dim = h->n_rot = h->n_heads > 0 ? h->n_embd / h->n_heads : 0;
    h->pos = SM__POS_ROPE_PAIRS;
    if (r->version && sm__hparams_check(r->m, r->error)) return SM_ERR_FORMAT;
    if (r->bytes > file->n || sm__hparams_check(r->m, NULL)) /* version 0 has nothing else */
        return sm__fail(r->error, SM_ERR_FORMAT,
                        "neither a GGUF, a safetensors nor a llama2.c file");
    if (h->n_embd % h->n_heads)
        return sm__fail(r->error, SM_ERR_FORMAT, "llama2.c: width %d is no multiple of %d heads",
                        h->n_embd, h->n_heads);
    r->m->info.format = formats[r->version];
    return SM_OK;
}

static sm_status sm__llama2c_read(sm_model *m, const sm__bytes *file, sm_error *error) {
    sm__llama2c r;
    sm_status status;
    size_t start;
    memset(&r, 0, sizeof r);
    r.m = m;
    r.error = error;
    if ((status = sm__llama2c_header(&r, file))) return status;
    start = (size_t)r.bytes;
    sm__llama2c_tensors(&r);
    if (r.status) return r.status;
    if (r.bytes != file->n)
        return sm__fail(error, SM_ERR_FORMAT,
                        "a llama2.c file with this header has %llu bytes, this file %llu",
                        (unsigned long long)r.bytes, (unsigned long long)file->n);
    m->info.arch = "llama";
    m->arch = sm__arch_find(sm__str_of("llama"));
    if ((status = sm__tensors_room(m, 9 * m->hp.n_layers + 3, error))) return status;
    r.at = file->p + start;
    sm__llama2c_tensors(&r);
    return r.status ? r.status : sm__tensors_done(m, error);
}

/* llama2.c's tokenizer.bin: the longest length, then for every token score, length and bytes. It
 * does not say what a token is; the positions of the special ones are SentencePiece's for Llama. */
static sm_status sm__tokenizer_bin_read(sm_model *m, const sm__bytes *file, sm_error *error) {
    sm__vocab *v = &m->vocab;
    size_t at = 4;
    int i, n = m->hp.n_vocab;
    if (file->n < 4 || (size_t)n > (file->n - 4) / 8)
        return sm__fail(error, SM_ERR_FORMAT, "the tokenizer ends before its %d tokens", n);
    v->tokens = (sm__str *)sm__model_alloc(m, (size_t)n, sizeof *v->tokens);
    v->scores = (float *)sm__model_alloc(m, (size_t)n, sizeof *v->scores);
    v->kinds = (uint8_t *)sm__model_alloc(m, (size_t)n, 1);
    if (!v->tokens || !v->scores || !v->kinds)
        return sm__fail(error, SM_ERR_NOMEM, "no memory for %d tokens", n);
    for (i = 0; i < n; i++) {
        uint32_t bits, length;
        if (file->n - at < 8)
            return sm__fail(error, SM_ERR_FORMAT, "the tokenizer ends before token %d", i);
        bits = sm__get32(file->p + at);
        length = sm__get32(file->p + at + 4);
        at += 8;
        if (length > SM__MAX_TOKEN || length > file->n - at)
            return sm__fail(error, SM_ERR_FORMAT, "tokenizer: token %d has %u bytes", i,
                            (unsigned)length);
        if ((bits & 0x7fffffffu) > 0x7f800000u)
            return sm__fail(error, SM_ERR_FORMAT, "tokenizer: the score of token %d is no number",
                            i);
        v->scores[i] = sm__from_bits(bits);
        v->tokens[i].p = (const char *)file->p + at;
        v->tokens[i].n = length;
        v->kinds[i] = SM__TOKEN_NORMAL;
        if (i < 3) v->kinds[i] = i ? SM__TOKEN_CONTROL : SM__TOKEN_UNKNOWN;
        else if (i < 259 && length == 6 && memcmp(file->p + at, "<0x", 3) == 0)
            v->kinds[i] = SM__TOKEN_BYTE; /* sm__vocab_build checks the rest */
        at += length;
    }
    if (at != file->n)
        return sm__fail(error, SM_ERR_FORMAT, "the tokenizer has more than %d tokens", n);
    v->kind = SM__VOCAB_SPM;
    v->n = n;
    v->unk = 0;
    if (v->bos < 0 && n > 1) v->bos = 1; /* config.json may have named others */
    if (v->eos < 0 && n > 2) v->eos = 2;
    v->add_bos = v->add_space_prefix = v->plain_spaces = 1;
    return SM_OK;
}

/* ---- safetensors: u64 length of a JSON header, the header, the data. A large model is cut into
 * such files ("shards"), and an index says which tensor is in which:
 *
 *   {"metadata": {...}, "weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}}
 *
 * A shard is a plain file name in the index's folder. Of tensors that the index does not name
 * nothing is taken. ---- */

enum { SM__FAMILY_LLAMA = 1, SM__FAMILY_GPT2 = 2, SM__FAMILY_CS336 = 4 };

/* Names of Hugging Face and of the CS336 course, without "model." and "transformer."; '#' is the
 * layer. conv: a matrix that GPT-2's Conv1D stores as [in, out]. */
typedef struct sm__st_rule {
    const char *from, *to;
    uint8_t families, conv;
} sm__st_rule;

static const sm__st_rule sm__st_rules[] = {
    {"lm_head.weight", "output.weight", 7, 0},
    {"embed_tokens.weight", "token_embd.weight", SM__FAMILY_LLAMA, 0},
    {"norm.weight", "output_norm.weight", SM__FAMILY_LLAMA, 0},
    {"layers.#.input_layernorm.weight", "blk.#.attn_norm.weight", SM__FAMILY_LLAMA, 0},
    {"layers.#.self_attn.q_proj.weight", "blk.#.attn_q.weight", SM__FAMILY_LLAMA, 0},
    {"layers.#.self_attn.k_proj.weight", "blk.#.attn_k.weight", SM__FAMILY_LLAMA, 0},
    {"layers.#.self_attn.v_proj.weight", "blk.#.attn_v.weight", SM__FAMILY_LLAMA, 0},
    {"layers.#.self_attn.o_proj.weight", "blk.#.attn_output.weight", SM__FAMILY_LLAMA, 0},
    {"layers.#.self_attn.q_proj.bias", "blk.#.attn_q.bias", SM__FAMILY_LLAMA, 0},
    {"layers.#.self_attn.k_proj.bias", "blk.#.attn_k.bias", SM__FAMILY_LLAMA, 0},
    {"layers.#.self_attn.v_proj.bias", "blk.#.attn_v.bias", SM__FAMILY_LLAMA, 0},
    {"layers.#.self_attn.o_proj.bias", "blk.#.attn_output.bias", SM__FAMILY_LLAMA, 0},
    {"layers.#.self_attn.q_norm.weight", "blk.#.attn_q_norm.weight", SM__FAMILY_LLAMA, 0},
    {"layers.#.self_attn.k_norm.weight", "blk.#.attn_k_norm.weight", SM__FAMILY_LLAMA, 0},
    {"layers.#.post_attention_layernorm.weight", "blk.#.ffn_norm.weight", SM__FAMILY_LLAMA, 0},
    {"layers.#.mlp.gate_proj.weight", "blk.#.ffn_gate.weight", SM__FAMILY_LLAMA, 0},
    {"layers.#.mlp.up_proj.weight", "blk.#.ffn_up.weight", SM__FAMILY_LLAMA, 0},
    {"layers.#.mlp.down_proj.weight", "blk.#.ffn_down.weight", SM__FAMILY_LLAMA, 0},
    {"layers.#.mlp.gate_proj.bias", "blk.#.ffn_gate.bias", SM__FAMILY_LLAMA, 0},
    {"layers.#.mlp.up_proj.bias", "blk.#.ffn_up.bias", SM__FAMILY_LLAMA, 0},
    {"layers.#.mlp.down_proj.bias", "blk.#.ffn_down.bias", SM__FAMILY_LLAMA, 0},
    {"wte.weight", "token_embd.weight", SM__FAMILY_GPT2, 0},
    {"wpe.weight", "position_embd.weight", SM__FAMILY_GPT2, 0},
    {"ln_f.weight", "output_norm.weight", SM__FAMILY_GPT2, 0},
    {"ln_f.bias", "output_norm.bias", SM__FAMILY_GPT2, 0},
    {"h.#.ln_1.weight", "blk.#.attn_norm.weight", SM__FAMILY_GPT2, 0},
    {"h.#.ln_1.bias", "blk.#.attn_norm.bias", SM__FAMILY_GPT2, 0},
    {"h.#.attn.c_attn.weight", "blk.#.attn_qkv.weight", SM__FAMILY_GPT2, 1},
    {"h.#.attn.c_attn.bias", "blk.#.attn_qkv.bias", SM__FAMILY_GPT2, 0},
    {"h.#.attn.c_proj.weight", "blk.#.attn_output.weight", SM__FAMILY_GPT2, 1},
    {"h.#.attn.c_proj.bias", "blk.#.attn_output.bias", SM__FAMILY_GPT2, 0},
    {"h.#.ln_2.weight", "blk.#.ffn_norm.weight", SM__FAMILY_GPT2, 0},
    {"h.#.ln_2.bias", "blk.#.ffn_norm.bias", SM__FAMILY_GPT2, 0},
    {"h.#.mlp.c_fc.weight", "blk.#.ffn_up.weight", SM__FAMILY_GPT2, 1},
    {"h.#.mlp.c_fc.bias", "blk.#.ffn_up.bias", SM__FAMILY_GPT2, 0},
    {"h.#.mlp.c_proj.weight", "blk.#.ffn_down.weight", SM__FAMILY_GPT2, 1},
    {"h.#.mlp.c_proj.bias", "blk.#.ffn_down.bias", SM__FAMILY_GPT2, 0},
    {"token_embeddings.weight", "token_embd.weight", SM__FAMILY_CS336, 0},
    {"position_embeddings.weight", "position_embd.weight", SM__FAMILY_CS336, 0},
    {"layers.#.ln1.weight", "blk.#.attn_norm.weight", SM__FAMILY_CS336, 0},
    {"layers.#.attn.q_proj.weight", "blk.#.attn_q.weight", SM__FAMILY_CS336, 0},
    {"layers.#.attn.k_proj.weight", "blk.#.attn_k.weight", SM__FAMILY_CS336, 0},
    {"layers.#.attn.v_proj.weight", "blk.#.attn_v.weight", SM__FAMILY_CS336, 0},
    {"layers.#.attn.output_proj.weight", "blk.#.attn_output.weight", SM__FAMILY_CS336, 0},
    {"layers.#.ln2.weight", "blk.#.ffn_norm.weight", SM__FAMILY_CS336, 0},
    {"layers.#.ffn.w1.weight", "blk.#.ffn_up.weight", SM__FAMILY_CS336, 0},
    {"layers.#.ffn.w2.weight", "blk.#.ffn_down.weight", SM__FAMILY_CS336, 0},
    {"ln_final.weight", "output_norm.weight", SM__FAMILY_CS336, 0},
};
#define SM__N_ST_RULES ((int)(sizeof sm__st_rules / sizeof *sm__st_rules))

/* Whether a name fits a pattern; '#' takes a decimal number below SM__MAX_LAYERS. */
static int sm__st_fits(sm__str name, const char *pattern, int *layer) {
    size_t i = 0;
    *layer = 0;
    for (; *pattern; pattern++) {
        size_t start = i;
        if (*pattern != '#') {
            if (i == name.n || name.p[i++] != *pattern) return 0;
            continue;
        }
        for (; i < name.n && name.p[i] >= '0' && name.p[i] <= '9'; i++) {
            *layer = *layer * 10 + (name.p[i] - '0');
            if (*layer >= SM__MAX_LAYERS) return 0;
        }
        if (i == start || (i - start > 1 && name.p[start] == '0')) return 0;
    }
    return i == name.n;
}

typedef struct sm__st_entry {
    sm__str name; /* as in the header, escapes unresolved */
    int type;     /* sm_type, or -1: one that is not computed with */
    int n_dims;
    uint64_t dims[4]; /* in the file's order; of more than four dimensions the first ones */
    const uint8_t *data;
    size_t bytes;
    const sm__st_rule *rule; /* NULL: not part of a model that is known here */
    int layer;
    int file;   /* where it is */
    int listed; /* the index names it */
} sm__st_entry;

typedef struct sm__st_file {
    sm__str name; /* as the index has it */
    const uint8_t *header, *data;
    size_t header_bytes, data_bytes;
} sm__st_file;

typedef struct sm__st {
    sm_model *m;
    sm_error *error;
    sm__st_file *files;
    int n_files;
    sm__st_entry *entries;
    sm__named *index; /* the entries, sorted by name */
    int n, room;
    int family;
    int conv; /* matrices of Conv1D are [in, out] */
} sm__st;

static const sm__st_rule *sm__st_find_rule(sm__str name, int *layer) {
    static const char *const prefixes[] = {"model.", "transformer."};
    int i;
    for (i = 0; i < 2; i++) {
        size_t n = strlen(prefixes[i]);
        if (name.n > n && memcmp(name.p, prefixes[i], n) == 0) {
            name.p += n;
            name.n -= n;
            break;
        }
    }
    for (i = 0; i < SM__N_ST_RULES; i++)
        if (sm__st_fits(name, sm__st_rules[i].from, layer)) return &sm__st_rules[i];
    return NULL;
}

typedef struct sm__st_dtype {
    const char *name;
    int type, bytes;
} sm__st_dtype;

static const sm__st_dtype sm__st_dtypes[] = {
    {"F32", SM_TYPE_F32, 4}, {"F16", SM_TYPE_F16, 2}, {"BF16", SM_TYPE_BF16, 2},
    {"F64", -1, 8},          {"I64", -1, 8},          {"I32", -1, 4},
    {"I16", -1, 2},          {"I8", -1, 1},           {"U64", -1, 8},
    {"U32", -1, 4},          {"U16", -1, 2},          {"U8", -1, 1},
    {"BOOL", -1, 1},         {"F8_E4M3", -1, 1},      {"F8_E5M2", -1, 1},
};

/* {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]} */
static sm_status sm__st_read_entry(sm__st *st, sm__json *j, sm__st_entry *e) {
    const sm__st_file *f = &st->files[e->file];
    char q[SM__QUOTE], plain[128];
    sm__str key, dtype = {"", 0};
    uint64_t elems = 1, dim, offsets[2] = {1, 0}, expected;
    int i, n_offsets = 0, shaped = 0;
    sm__json_enter(j, '{');
    while (sm__json_member(j, &key)) {
        if (sm__str_is(key, "dtype")) {
            sm__json_string(j, &dtype);
        } else if (sm__str_is(key, "shape")) {
            e->n_dims = 0, elems = 1, shaped = 1;
            sm__json_enter(j, '[');
            while (sm__json_item(j) && sm__json_u64(j, &dim)) {
                if (dim && elems > (uint64_t)INT64_MAX / dim) j->bad = 1;
                else elems *= dim;
                if (e->n_dims < 4) e->dims[e->n_dims] = dim;
                if (e->n_dims++ == 64) j->bad = 1;
            }
        } else if (sm__str_is(key, "data_offsets")) {
            sm__json_enter(j, '[');
            for (n_offsets = 0; sm__json_item(j) && sm__json_u64(j, &dim); n_offsets++)
                if (n_offsets < 2) offsets[n_offsets] = dim;
        } else {
            sm__json_skip(j);
        }
    }
    if (j->bad || !shaped || n_offsets != 2)
        return sm__fail(st->error, SM_ERR_FORMAT, "tensor %s: a malformed entry of the header",
                        sm__quote(q, e->name));
    if (offsets[0] > offsets[1] || offsets[1] > f->data_bytes)
        return sm__fail(st->error, SM_ERR_FORMAT, "tensor %s: bytes %llu to %llu of %llu",
                        sm__quote(q, e->name), (unsigned long long)offsets[0],
                        (unsigned long long)offsets[1], (unsigned long long)f->data_bytes);
    e->data = f->data + (size_t)offsets[0];
    e->bytes = (size_t)(offsets[1] - offsets[0]);
    e->type = -1;
    for (i = 0; i < (int)(sizeof sm__st_dtypes / sizeof *sm__st_dtypes); i++) {
        if (!sm__str_is(dtype, sm__st_dtypes[i].name)) continue;
        e->type = sm__st_dtypes[i].type;
        expected = (uint64_t)sm__st_dtypes[i].bytes;
        if (e->bytes % expected || e->bytes / expected != elems)
            return sm__fail(st->error, SM_ERR_FORMAT, "tensor %s: %llu elements in %llu bytes",
                            sm__quote(q, e->name), (unsigned long long)elems,
                            (unsigned long long)e->bytes);
        break;
    }
    key = e->name;
    if (key.n && memchr(key.p, '\\', key.n)) { /* no known name is longer than the buffer */
        key.n = sm__min_size(sm__json_text(e->name, plain, sizeof plain), sizeof plain);
        key.p = plain;
    }
    e->rule = sm__st_find_rule(key, &e->layer);
    return SM_OK;
}

static int sm__is_safetensors(const sm__bytes *file) {
    return file->n >= 10 && sm__get32(file->p + 4) == 0 && file->p[8] == '{';
}

/* A file's parts, and room for its entries. */
static sm_status sm__st_header(sm__st *st, const sm__bytes *bytes, sm__st_file *f) {
    uint64_t n = bytes->n < 8 ? 0 : sm__get64(bytes->p);
    sm__json j;
    sm__str key;
    if (!sm__is_safetensors(bytes))
        return sm__fail(st->error, SM_ERR_FORMAT, "this is no safetensors file");
    if (n > bytes->n - 8 || n > SM__MAX_ST_HEADER)
        return sm__fail(st->error, SM_ERR_FORMAT, "a safetensors header of %llu bytes does not fit",
                        (unsigned long long)n);
    f->header = bytes->p + 8;
    f->header_bytes = (size_t)n;
    f->data = f->header + (size_t)n;
    f->data_bytes = bytes->n - 8 - (size_t)n;
    j = sm__json_make(f->header, f->header_bytes);
    sm__json_enter(&j, '{');
    for (; st->room <= SM__MAX_ITEMS && sm__json_member(&j, &key); st->room++) sm__json_skip(&j);
    sm__json_peek(&j);
    if (st->room > SM__MAX_ITEMS)
        return sm__fail(st->error, SM_ERR_UNSUPPORTED, "more than %d tensors", SM__MAX_ITEMS);
    if (j.bad || j.p != j.end)
        return sm__fail(st->error, SM_ERR_FORMAT,
                        "the safetensors header is malformed at byte %llu",
                        (unsigned long long)(j.p - f->header));
    return SM_OK;
}

/* The entries of a file; data that no tensor owns is refused. */
static sm_status sm__st_entries(sm__st *st, int file) {
    const sm__st_file *f = &st->files[file];
    sm__json j = sm__json_make(f->header, f->header_bytes);
    sm__str key;
    uint64_t owned = 0;
    sm__json_enter(&j, '{');
    while (sm__json_member(&j, &key)) {
        sm__st_entry *e = &st->entries[st->n];
        sm_status status;
        if (sm__str_is(key, "__metadata__")) {
            sm__json_skip(&j);
            continue;
        }
        e->name = key;
        e->file = file;
        status = sm__st_read_entry(st, &j, e);
        if (status) return status;
        owned += e->bytes; /* both are at most data_bytes: it cannot wrap */
        if (owned > f->data_bytes) break;
        st->index[st->n].name = key;
        st->index[st->n].i = st->n;
        st->n++;
    }
    if (owned != f->data_bytes)
        return sm__fail(st->error, SM_ERR_FORMAT, "%llu bytes of data, the tensors have %llu",
                        (unsigned long long)f->data_bytes, (unsigned long long)owned);
    return SM_OK;
}

/* A file of several is named in what it did wrong. */
static sm_status sm__st_blame(const sm__st *st, const sm__st_file *f, sm_status status) {
    char q[SM__QUOTE];
    sm_error why;
    if (!status || !f->name.n || !st->error) return status;
    why = *st->error;
    why.text[170] = 0;
    return sm__fail(st->error, status, "%s: %s", sm__quote(q, f->name), why.text);
}

/* All entries of all files, whose headers were read; a name that is there twice is refused. */
static sm_status sm__st_directory(sm__st *st) {
    sm_status status = SM_OK;
    sm__str twice;
    char q[SM__QUOTE];
    int i;
    st->entries = (sm__st_entry *)sm__model_alloc(st->m, (size_t)st->room, sizeof *st->entries);
    st->index = (sm__named *)sm__model_alloc(st->m, (size_t)st->room, sizeof *st->index);
    if (!st->entries || !st->index)
        return sm__fail(st->error, SM_ERR_NOMEM, "no memory for the headers' %d entries", st->room);
    memset(st->entries, 0, (size_t)st->room * sizeof *st->entries);
    for (i = 0; i < st->n_files && !status; i++)
        status = sm__st_blame(st, &st->files[i], sm__st_entries(st, i));
    if (status) return status;
    twice = sm__named_sort(st->index, st->n);
    if (twice.p)
        return sm__fail(st->error, SM_ERR_FORMAT, "tensor %s is there twice", sm__quote(q, twice));
    return SM_OK;
}

static sm_status sm__st_family(sm__st *st) {
    int i;
    for (i = 0; i < st->n && !st->family; i++)
        if (st->entries[i].rule && st->entries[i].rule->families != 7)
            st->family = st->entries[i].rule->families;
    if (!st->family)
        return sm__fail(st->error, SM_ERR_UNSUPPORTED, "no tensor has a name that is known here");
    return SM_OK;
}

/* ---- the index of shards ---- */

#define SM__MAX_SHARDS 1024

/* No number of a llama2.c file has four bytes that are not 0. */
static int sm__is_index(const sm__bytes *file) {
    return file->n >= 4 && file->p[0] == '{' && !memchr(file->p, 0, 4);
}

/* The next member of weight_map, which was entered: a tensor and its file. */
static int sm__index_next(sm__json *j, sm__str *name, sm__str *file) {
    return sm__json_member(j, name) && sm__json_string(j, file);
}

/* To the first member of weight_map. */
static int sm__index_enter(sm__json *j) {
    sm__str key;
    sm__json_enter(j, '{');
    while (sm__json_member(j, &key)) {
        if (sm__str_is(key, "weight_map")) return sm__json_enter(j, '{');
        sm__json_skip(j);
    }
    return 0;
}

/* A name without a folder: what is written in a file must not lead out of the index's folder. */
static int sm__index_name_ok(sm__str s) {
    size_t i;
    for (i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] < 32 || strchr("/\\:", s.p[i])) return 0;
    return s.n > 0 && s.n < 256 && s.p[0] != '.';
}

/* The files that the index names, each once, in st->files. */
static sm_status sm__index_files(sm__st *st, const sm__bytes *index) {
    sm__json j = sm__json_make(index->p, index->n);
    sm__str name, file, key;
    sm__named *list;
    char q[SM__QUOTE];
    int i = 0, n = 0, found = sm__index_enter(&j);
    while (found && n <= SM__MAX_ITEMS && sm__index_next(&j, &name, &file)) n++;
    while (found && sm__json_member(&j, &key)) /* a second one would leave us to guess */
        if (sm__str_is(key, "weight_map")) j.bad = 1;
        else sm__json_skip(&j);
    sm__json_peek(&j);
    if (!found || j.bad || j.p != j.end || n > SM__MAX_ITEMS)
        return sm__fail(st->error, SM_ERR_FORMAT, "the index %s",
                        found || j.bad ? "is malformed" : "has no weight_map");
    list = (sm__named *)sm__model_alloc(st->m, (size_t)n, sizeof *list);
    st->files = (sm__st_file *)sm__model_alloc(st->m, SM__MAX_SHARDS, sizeof *st->files);
    if (!list || !st->files)
        return sm__fail(st->error, SM_ERR_NOMEM, "no memory for the index's %d names", n);
    j = sm__json_make(index->p, index->n);
    for (sm__index_enter(&j); sm__index_next(&j, &name, &list[i].name); i++) list[i].i = i;
    sm__named_sort(list, n);
    for (i = 0; i < n; i++) {
        if (i && sm__str_same(list[i].name, list[i - 1].name)) continue;
        if (!sm__index_name_ok(list[i].name))
            return sm__fail(st->error, SM_ERR_FORMAT, "the index names %s, which is no plain file",
                            sm__quote(q, list[i].name));
        if (st->n_files == SM__MAX_SHARDS)
            return sm__fail(st->error, SM_ERR_UNSUPPORTED, "more than %d shards", SM__MAX_SHARDS);
        memset(&st->files[st->n_files], 0, sizeof *st->files);
        st->files[st->n_files++].name = list[i].name;
    }
    sm__model_drop(st->m, list);
    return SM_OK;
}

/* What the index says is where, must be there; what it does not name is not part of the model. */
static sm_status sm__index_check(sm__st *st, const sm__bytes *index) {
    sm__json j = sm__json_make(index->p, index->n);
    sm__str name, file;
    char q[SM__QUOTE], q2[SM__QUOTE];
    int i;
    for (sm__index_enter(&j); sm__index_next(&j, &name, &file);) {
        sm__st_entry *e;
        i = sm__named_find(st->index, st->n, name);
        e = i < 0 ? NULL : &st->entries[i];
        if (!e || !sm__str_same(st->files[e->file].name, file))
            return sm__fail(st->error, SM_ERR_FORMAT, "tensor %s is not in %s, as the index says",
                            sm__quote(q, name), sm__quote(q2, file));
        if (e->listed)
            return sm__fail(st->error, SM_ERR_FORMAT, "the index names tensor %s twice",
                            sm__quote(q, name));
        e->listed = 1;
    }
    for (i = 0; i < st->n; i++)
        if (!st->entries[i].listed) st->entries[i].rule = NULL;
    return SM_OK;
}

/* Maps or reads every shard. */
static sm_status sm__index_open(sm__st *st, const sm_model_params *params,
                                const sm__bytes *index) {
    sm_status status = sm__index_files(st, index);
    int i;
    for (i = 0; i < st->n_files && !status; i++) {
        sm__st_file *f = &st->files[i];
        char *path = sm__path_beside(st->m, params->file.path, 0, f->name);
        sm__bytes bytes;
        if (!path) return sm__fail(st->error, SM_ERR_NOMEM, "no memory for a shard's path");
        memset(&bytes, 0, sizeof bytes);
        status = sm__path_bytes(st->m, params, path, params->load, UINT64_MAX, &bytes, st->error);
        if (!status) status = sm__st_blame(st, f, sm__st_header(st, &bytes, f));
        if (!bytes.owned) st->m->info.mapped_bytes += bytes.n;
        sm__model_drop(st->m, path);
    }
    if (!status) status = sm__st_directory(st);
    return status ? status : sm__index_check(st, index);
}

/* ---- config.json ---- */

typedef struct sm__config { /* a number that is not there is -1 */
    double n_vocab, n_ctx, n_embd, n_layers, n_heads, n_kv_heads, head_dim, n_ff;
    double eps, rope_theta, rotary, window, use_window, tie, bos;
    double eos, eot; /* of a list of end ids the first two */
    double inverse_layer, scale_attn;
    double factor, low, high, original, beta_fast, beta_slow, attn, mscale;
    sm__str model_type, architecture, act, scaling;
} sm__config;

typedef struct sm__config_key {
    const char *key;
    char kind; /* 'n' number, bool or null; 's' string; 'o' object with rotary parameters */
    uint16_t offset;
} sm__config_key;

#define SM__KEY(name, kind, field) {name, kind, (uint16_t)offsetof(sm__config, field)}
static const sm__config_key sm__config_keys[] = {
    SM__KEY("model_type", 's', model_type),
    SM__KEY("architectures", 's', architecture),
    SM__KEY("vocab_size", 'n', n_vocab),
    SM__KEY("hidden_size", 'n', n_embd),
    SM__KEY("n_embd", 'n', n_embd),
    SM__KEY("d_model", 'n', n_embd),
    SM__KEY("num_hidden_layers", 'n', n_layers),
    SM__KEY("n_layer", 'n', n_layers),
    SM__KEY("num_layers", 'n', n_layers),
    SM__KEY("num_attention_heads", 'n', n_heads),
    SM__KEY("n_head", 'n', n_heads),
    SM__KEY("num_heads", 'n', n_heads),
    SM__KEY("num_key_value_heads", 'n', n_kv_heads),
    SM__KEY("head_dim", 'n', head_dim),
    SM__KEY("intermediate_size", 'n', n_ff),
    SM__KEY("n_inner", 'n', n_ff),
    SM__KEY("d_ff", 'n', n_ff),
    SM__KEY("max_position_embeddings", 'n', n_ctx),
    SM__KEY("n_positions", 'n', n_ctx),
    SM__KEY("block_size", 'n', n_ctx),
    SM__KEY("context_length", 'n', n_ctx),
    SM__KEY("rms_norm_eps", 'n', eps),
    SM__KEY("layer_norm_epsilon", 'n', eps),
    SM__KEY("hidden_act", 's', act),
    SM__KEY("activation_function", 's', act),
    SM__KEY("rope_theta", 'n', rope_theta),
    SM__KEY("partial_rotary_factor", 'n', rotary),
    SM__KEY("sliding_window", 'n', window),
    SM__KEY("use_sliding_window", 'n', use_window),
    SM__KEY("tie_word_embeddings", 'n', tie),
    SM__KEY("bos_token_id", 'n', bos),
    SM__KEY("eos_token_id", 'n', eos),
    SM__KEY("scale_attn_by_inverse_layer_idx", 'n', inverse_layer),
    SM__KEY("scale_attn_weights", 'n', scale_attn),
    SM__KEY("rope_scaling", 'o', scaling),
    SM__KEY("rope_parameters", 'o', scaling),
};
static const sm__config_key sm__rope_keys[] = {
    SM__KEY("type", 's', scaling),
    SM__KEY("rope_type", 's', scaling),
    SM__KEY("rope_theta", 'n', rope_theta),
    SM__KEY("partial_rotary_factor", 'n', rotary),
    SM__KEY("factor", 'n', factor),
    SM__KEY("low_freq_factor", 'n', low),
    SM__KEY("high_freq_factor", 'n', high),
    SM__KEY("original_max_position_embeddings", 'n', original),
    SM__KEY("beta_fast", 'n', beta_fast),
    SM__KEY("beta_slow", 'n', beta_slow),
    SM__KEY("attention_factor", 'n', attn),
    SM__KEY("mscale", 'n', mscale),
};
#undef SM__KEY
#define SM__N_CONFIG_KEYS ((int)(sizeof sm__config_keys / sizeof *sm__config_keys))
#define SM__N_ROPE_KEYS ((int)(sizeof sm__rope_keys / sizeof *sm__rope_keys))

/* A number, bool or null into *out; of a list the first element, the second into out[1] (the ids
 * that end a text). */
static void sm__config_number(sm__json *j, double *out) {
    int c = sm__json_peek(j), word, n = 0;
    double ignored;
    if (c == '[') {
        sm__json_enter(j, '[');
        for (; sm__json_item(j); n++) sm__json_number(j, n < 2 ? &out[n] : &ignored);
    } else if (c == '-' || (c >= '0' && c <= '9')) {
        if (sm__json_word(j) < 0) sm__json_number(j, out);
    } else {
        word = sm__json_word(j);
        if (word < 0) sm__json_fail(j);
        else if (word < 2) *out = word;
    }
}

/* A string; of a list the first one. null leaves *out as it is. */
static void sm__config_string(sm__json *j, sm__str *out) {
    int n = 0;
    sm__str ignored;
    if (sm__json_peek(j) == '[') {
        sm__json_enter(j, '[');
        for (; sm__json_item(j); n++) sm__json_string(j, n ? &ignored : out);
    } else if (sm__json_word(j) < 0) {
        sm__json_string(j, out);
    }
}

static sm_status sm__config_object(sm__json *j, sm__config *c, const sm__config_key *keys, int n,
                                   sm_error *error) {
    char q[SM__QUOTE];
    sm__str key;
    sm__json_enter(j, '{');
    while (sm__json_member(j, &key)) {
        sm_status status = SM_OK;
        int i = 0;
        while (i < n && !sm__str_is(key, keys[i].key)) i++;
        if (i == n) {
            sm__json_skip(j);
        } else if (keys[i].kind == 'n') {
            sm__config_number(j, (double *)(void *)((char *)c + keys[i].offset));
        } else if (keys[i].kind == 's') {
            sm__config_string(j, (sm__str *)(void *)((char *)c + keys[i].offset));
        } else if (sm__json_peek(j) == '{') { /* its own table has no objects: one level deep */
            status = sm__config_object(j, c, sm__rope_keys, SM__N_ROPE_KEYS, error);
        } else if (sm__json_word(j) != 2) {
            sm__json_fail(j);
        }
        if (status) return status;
        if (j->bad)
            return sm__fail(error, SM_ERR_FORMAT, "config.json: a bad value of %s",
                            sm__quote(q, key));
    }
    if (j->bad) return sm__fail(error, SM_ERR_FORMAT, "config.json is malformed");
    return SM_OK;
}

static sm_status sm__config_read(const sm__bytes *file, sm__config *c, sm_error *error) {
    sm__json j = sm__json_make(file->p, file->n);
    double *numbers = &c->n_vocab;
    size_t i;
    sm_status status;
    memset(c, 0, sizeof *c);
    for (i = 0; i < offsetof(sm__config, model_type) / sizeof(double); i++) numbers[i] = -1.0;
    c->model_type = c->architecture = c->act = c->scaling = sm__str_of("");
    status = sm__config_object(&j, c, sm__config_keys, SM__N_CONFIG_KEYS, error);
    if (!status && (sm__json_peek(&j), j.p != j.end))
        return sm__fail(error, SM_ERR_FORMAT, "config.json has something behind its object");
    return status;
}

/* A number of the config as an int; a fallback below 0 says that it must be there. */
static sm_status sm__config_int(double v, const char *name, int fallback, int *out,
                                sm_error *error) {
    *out = fallback;
    if (v < 0 && fallback < 0) return sm__fail(error, SM_ERR_FORMAT, "config.json has no %s", name);
    if (v < 0) return SM_OK;
    if (!sm__real_in(v, 0, INT32_MAX) || v != (double)(int)v)
        return sm__fail(error, SM_ERR_FORMAT, "config.json: %s is out of range", name);
    *out = (int)v;
    return SM_OK;
}

/* Which row of the table of architectures this is. */
static sm_status sm__config_arch(sm__st *st, const sm__config *c) {
    static const char *const types[][3] = {
        {"llama", "LlamaForCausalLM", "llama"},
        {"mistral", "MistralForCausalLM", "mistral"},
        {"qwen2", "Qwen2ForCausalLM", "qwen2"},
        {"qwen3", "Qwen3ForCausalLM", "qwen3"},
    };
    sm__str type = c->model_type.n ? c->model_type : c->architecture;
    const char *arch = st->family == SM__FAMILY_GPT2    ? "gpt2"
                       : st->family == SM__FAMILY_CS336 ? "cs336"
                                                        : NULL;
    char q[SM__QUOTE];
    int i;
    for (i = 0; i < 4 && !arch; i++)
        if (sm__str_is(type, types[i][0]) || sm__str_is(type, types[i][1])) arch = types[i][2];
    if (!arch)
        return sm__fail(st->error, SM_ERR_UNSUPPORTED, "config.json: model_type %s",
                        sm__quote(q, type));
    st->m->info.arch = arch;
    st->m->arch = sm__arch_find(sm__str_of(arch));
    return SM_OK;
}

/* What would change the computation and is not done here. */
static sm_status sm__config_refuse(const sm__st *st, const sm__config *c) {
    static const char *const acts[][3] = {{"silu", "swish", ""},
                                          {"gelu_new", "gelu_pytorch_tanh", "gelu_fast"},
                                          {"gelu", "gelu_python", ""}};
    int i, ok = c->act.n == 0;
    char q[SM__QUOTE];
    for (i = 0; i < 3; i++)
        if (sm__str_is(c->act, acts[st->m->arch->ffn][i])) ok = 1;
    if (!ok)
        return sm__fail(st->error, SM_ERR_UNSUPPORTED, "config.json: activation %s",
                        sm__quote(q, c->act));
    if (c->inverse_layer > 0 || c->scale_attn == 0.0)
        return sm__fail(st->error, SM_ERR_UNSUPPORTED, "config.json: attention with another scale");
    return SM_OK;
}

static sm_status sm__config_scaling(const sm__st *st, const sm__config *c) {
    sm__hparams *h = &st->m->hp;
    char q[SM__QUOTE];
    if (c->scaling.n == 0 || sm__str_is(c->scaling, "default") ||
        sm__str_is(c->scaling, "dynamic")) /* does nothing within the trained length */
        return SM_OK;
    if (c->factor < 0)
        return sm__fail(st->error, SM_ERR_FORMAT, "config.json: rope_scaling has no factor");
    h->scaling_factor = c->factor;
    h->original_ctx = c->original > 0 ? c->original : (double)h->n_ctx;
    if (sm__str_is(c->scaling, "linear")) {
        h->scaling = SM__SCALING_LINEAR;
    } else if (sm__str_is(c->scaling, "llama3")) {
        h->scaling = SM__SCALING_LLAMA3;
        if (c->low >= 0) h->low_freq_factor = c->low;
        if (c->high >= 0) h->high_freq_factor = c->high;
    } else if (sm__str_is(c->scaling, "yarn") && c->mscale < 0) {
        h->scaling = SM__SCALING_YARN;
        if (c->beta_fast >= 0) h->beta_fast = c->beta_fast;
        if (c->beta_slow >= 0) h->beta_slow = c->beta_slow;
        if (c->attn > 0) h->attn_factor = c->attn;
    } else {
        return sm__fail(st->error, SM_ERR_UNSUPPORTED, "rope scaling of type %s",
                        sm__quote(q, c->scaling));
    }
    return SM_OK;
}

static int32_t sm__config_id(double v, int n_vocab) {
    return sm__real_in(v, 0, (double)n_vocab - 1) ? (int32_t)v : -1;
}

/* The sizes that config.json must tell, and those that follow from them when it does not. */
static sm_status sm__config_sizes(const sm__st *st, const sm__config *c) {
    sm__hparams *h = &st->m->hp;
    sm_error *e = st->error;
    sm_status s;
    int heads, ff = -1;
    if ((s = sm__config_int(c->n_vocab, "vocab_size", -1, &h->n_vocab, e)) ||
        (s = sm__config_int(c->n_embd, "hidden_size", -1, &h->n_embd, e)) ||
        (s = sm__config_int(c->n_layers, "num_hidden_layers", -1, &h->n_layers, e)) ||
        (s = sm__config_int(c->n_heads, "num_attention_heads", -1, &h->n_heads, e)) ||
        (s = sm__config_int(c->n_ctx, "max_position_embeddings", -1, &h->n_ctx, e)))
        return s;
    heads = sm__max(h->n_heads, 1);
    if (st->family != SM__FAMILY_LLAMA && h->n_embd <= SM__MAX_DIM) ff = 4 * h->n_embd;
    if ((s = sm__config_int(c->n_kv_heads, "num_key_value_heads", heads, &h->n_kv_heads, e)) ||
        (s = sm__config_int(c->head_dim, "head_dim", h->n_embd / heads, &h->head_dim, e)) ||
        (s = sm__config_int(c->n_ff, "intermediate_size", ff, &h->n_ff, e)))
        return s;
    if (c->head_dim < 0 && h->n_embd % heads)
        return sm__fail(e, SM_ERR_FORMAT, "hidden_size %d is no multiple of %d heads", h->n_embd,
                        h->n_heads);
    return SM_OK;
}

/* Rotary positions: Hugging Face rotates the two halves of a head. */
static sm_status sm__config_rope(const sm__st *st, const sm__config *c) {
    sm__hparams *h = &st->m->hp;
    double rotary = c->rotary < 0 ? 1.0 : c->rotary;
    sm_status status;
    int window, windowed = c->use_window > 0;
    h->pos = SM__POS_ROPE_HALF;
    if (c->rope_theta >= 0) h->rope_base = c->rope_theta;
    if (!sm__real_in(rotary, 0.0, 1.0))
        return sm__fail(st->error, SM_ERR_FORMAT, "config.json: a bad partial_rotary_factor");
    h->n_rot = (int)(rotary * (double)h->head_dim);
    if ((status = sm__config_scaling(st, c))) return status;
    status = sm__config_int(c->window, "sliding_window", 0, &window, st->error);
    if (status) return status;
    if (c->use_window < 0) /* Qwen's default is not to have one */
        windowed = !sm__str_is(c->model_type, "qwen2") && !sm__str_is(c->model_type, "qwen3");
    /* Within one window nothing differs from full attention. */
    if (windowed && window > 0) h->n_ctx = sm__min(h->n_ctx, window);
    h->n_ctx = sm__min(h->n_ctx, SM__MAX_DIM);
    return SM_OK;
}

static sm_status sm__config_apply(sm__st *st, const sm__config *c) {
    sm_model *m = st->m;
    sm_status s;
    double eps = c->eps < 0 ? (st->family == SM__FAMILY_LLAMA ? 1e-6 : 1e-5) : c->eps;
    if ((s = sm__config_arch(st, c)) || (s = sm__config_refuse(st, c)) ||
        (s = sm__config_sizes(st, c)))
        return s;
    m->hp.norm_eps = sm__real_in(eps, 0.0, 1.0) ? (float)eps : 0.0f;
    m->hp.pos = SM__POS_LEARNED;
    m->hp.ffn = m->arch->ffn;
    if (m->arch->pos != SM__POS_LEARNED && (s = sm__config_rope(st, c))) return s;
    m->vocab.bos = sm__config_id(c->bos, m->hp.n_vocab);
    m->vocab.eos = sm__config_id(c->eos, m->hp.n_vocab);
    m->vocab.eot = sm__config_id(c->eot, m->hp.n_vocab);
    return sm__hparams_check(m, st->error);
}

/* ---- from entries to tensors ---- */

/* dst [cols, rows] = src [rows, cols] transposed, in tiles that stay in the cache. */
static void sm__transpose(const uint8_t *src, uint8_t *dst, size_t rows, size_t cols, size_t elem) {
    size_t r0, c0, r, c;
    for (r0 = 0; r0 < rows; r0 += 32)
        for (c0 = 0; c0 < cols; c0 += 32)
            for (r = r0; r < sm__min_size(rows, r0 + 32); r++)
                for (c = c0; c < sm__min_size(cols, c0 + 32); c++)
                    memcpy(dst + (c * rows + r) * elem, src + (r * cols + c) * elem, elem);
}

static sm_status sm__st_add(sm__st *st, const sm__st_entry *e, const char *to) {
    const uint8_t *data = e->data;
    uint64_t rows = e->n_dims == 2 ? e->dims[0] : 0, cols = e->dims[e->n_dims == 2];
    char q[SM__QUOTE];
    if (e->type < 0)
        return sm__fail(st->error, SM_ERR_UNSUPPORTED, "tensor %s is not F32, F16 or BF16",
                        sm__quote(q, e->name));
    if (e->n_dims < 1 || e->n_dims > 2 || e->bytes == 0)
        return sm__fail(st->error, SM_ERR_FORMAT, "tensor %s has %d dimensions and %llu bytes",
                        sm__quote(q, e->name), e->n_dims, (unsigned long long)e->bytes);
    if (e->rule->conv && st->conv && rows) {
        uint8_t *turned = (uint8_t *)sm__model_alloc(st->m, e->bytes, 1);
        if (!turned)
            return sm__fail(st->error, SM_ERR_NOMEM, "no memory to transpose tensor %s",
                            sm__quote(q, e->name));
        sm__transpose(e->data, turned, (size_t)rows, (size_t)cols, e->type == SM_TYPE_F32 ? 4 : 2);
        data = turned;
        rows = cols;
        cols = e->dims[0];
    }
    return sm__tensor_add(st->m, to, e->layer, e->type, cols, rows, data, e->bytes, st->error);
}

static sm_status sm__st_tensors(sm__st *st, const sm__config *c) {
    const sm__st_entry *embed = NULL, *head = NULL;
    uint64_t width = 3 * (uint64_t)st->m->hp.n_embd;
    sm_status status = sm__tensors_room(st->m, st->n + 1, st->error);
    int i, ignored = 0;
    for (i = 0; i < st->n; i++) { /* decides about Conv1D before any matrix is touched */
        const sm__st_entry *e = &st->entries[i];
        if (!e->rule || !(e->rule->families & st->family)) continue;
        if (strcmp(e->rule->to, "output.weight") == 0) head = e;
        if (strcmp(e->rule->to, "token_embd.weight") == 0) embed = e;
        if (strcmp(e->rule->to, "blk.#.attn_qkv.weight") == 0)
            st->conv = e->n_dims == 2 && e->dims[1] == width;
    }
    if (!status && embed && !head && c->tie == 0.0)
        return sm__fail(st->error, SM_ERR_FORMAT, "tensor lm_head.weight is missing");
    for (i = 0; i < st->n && !status; i++) {
        const sm__st_entry *e = &st->entries[i];
        const char *to = e->rule ? e->rule->to : "";
        if (!e->rule || !(e->rule->families & st->family)) {
            ignored++;
            continue;
        }
        if (e == head && embed && c->tie > 0.0) continue;  /* declared the same as the embedding */
        if (e == head && !embed) to = "token_embd.weight"; /* tied, stored under this name */
        status = sm__st_add(st, e, to);
    }
    if (ignored) sm__log_count(st->m, ignored, " tensors have names that are not known here");
    return status ? status : sm__tensors_done(st->m, st->error);
}

/* A safetensors file alone, or the index of several. */
static sm_status sm__safetensors_read(sm_model *m, const sm_model_params *params,
                                      const sm__bytes *file, int index,
                                      const sm__bytes *config, sm_error *error) {
    sm__config c;
    sm__st st;
    sm__st_file one;
    sm_status status;
    memset(&st, 0, sizeof st);
    memset(&one, 0, sizeof one);
    st.m = m;
    st.error = error;
    m->info.format = "safetensors";
    if (index) {
        status = sm__index_open(&st, params, file);
    } else {
        st.files = &one;
        st.n_files = 1;
        status = sm__st_header(&st, file, &one);
        if (!status) status = sm__st_directory(&st);
    }
    if (status || (status = sm__st_family(&st)) || (status = sm__config_read(config, &c, error)) ||
        (status = sm__config_apply(&st, &c)))
        return status;
    status = sm__st_tensors(&st, &c);
    sm__model_drop(m, st.index);
    sm__model_drop(m, st.entries);
    if (st.files != &one) sm__model_drop(m, st.files);
    return status;
}

/* The config of a safetensors file: params.config, or config.json beside the path. */
static sm_status sm__config_bytes(sm_model *m, const sm_model_params *params, sm__bytes *config,
                                  sm_error *error) {
    sm_source source = params->config;
    sm_status status;
    char *path = NULL;
    if (!sm__source_set(&source)) {
        if (!params->file.path)
            return sm__fail(error, SM_ERR_ARG, "a safetensors file needs params.config");
        path = sm__path_beside(m, params->file.path, 0, sm__str_of("config.json"));
        if (!path) return sm__fail(error, SM_ERR_NOMEM, "no memory for a path");
        source.path = path;
    }
    status =
        sm__source_bytes(m, params, &source, "config.json",
                         source.path ? SM_LOAD_COPY : params->load, SM__MAX_CONFIG, config, error);
    sm__model_drop(m, path);
    return status;
}

/* How long the name's start is, of a path such as "model-00001-of-00003.safetensors"; 0: it is none
 * of a shard. */
static size_t sm__shard_stem(const char *path) {
    static const char form[] = "-#####-of-#####.safetensors";
    size_t i, n = strlen(path), k = sizeof form - 1;
    if (n <= k) return 0;
    for (i = 0, path += n - k; i < k; i++)
        if (form[i] == '#' ? path[i] < '0' || path[i] > '9' : path[i] != form[i]) return 0;
    return n - k;
}

/* The model's file at a path that may not be there: that is SM_ERR_IO, and no message yet. */
static sm_status sm__model_try(sm_model *m, sm_model_params *params, const char *path,
                               sm__bytes *file, sm_error *error) {
    sm_error why;
    sm_status status = SM_ERR_NOMEM;
    params->file.path = path;
    if (!path) return sm__fail(error, status, "no memory for a path");
    status = sm__path_bytes(m, params, path, params->load, UINT64_MAX, file, &why);
    if (status && status != SM_ERR_IO && error) *error = why;
    return status;
}

/* The model's own file. params->file.path may be a shard or a folder: then it becomes the path of
 * the index, or of the one file in that folder. */
static sm_status sm__model_file(sm_model *m, sm_model_params *params, sm__bytes *file,
                                sm_error *error) {
    static const char *const names[] = {"model.safetensors.index.json", "model.safetensors"};
    static const char index[] = ".safetensors.index.json";
    const char *given = params->file.path;
    size_t stem = given ? sm__shard_stem(given) : 0;
    sm_status status = SM_ERR_IO;
    sm_error why;
    char *path;
    int i;
    memset(file, 0, sizeof *file);
    if (!given)
        return sm__source_bytes(m, params, &params->file, "the model", params->load, UINT64_MAX,
                                file, error);
    if (stem) {
        path = (char *)sm__model_alloc(m, stem + sizeof index, 1);
        if (path) memcpy(path, given, stem), memcpy(path + stem, index, sizeof index);
        status = sm__model_try(m, params, path, file, error);
    }
    if (status != SM_ERR_IO) return status;
    params->file.path = given;
    status = sm__path_bytes(m, params, given, params->load, UINT64_MAX, file, &why);
    for (i = 0; i < 2 && status == SM_ERR_IO; i++) {
        path = sm__path_beside(m, given, 1, sm__str_of(names[i]));
        if ((status = sm__model_try(m, params, path, file, error)) != SM_ERR_IO) return status;
    }
    if (status && error) *error = why;
    return status;
}

/* An index is read into memory and dropped, so that only shards stay mapped. */
static sm_status sm__index_bytes(sm_model *m, const sm_model_params *params, sm__bytes *index,
                                 sm_error *error) {
    if (!params->file.path)
        return sm__fail(error, SM_ERR_ARG, "an index of shards is opened by its path");
    if (index->owned) return SM_OK;
    sm__model_unmap(m);
    return sm__path_bytes(m, params, params->file.path, SM_LOAD_COPY, SM__MAX_ST_HEADER, index,
                          error);
}

/* ================================================================================================
 * MARK: [SM32] MODEL
 * Opening and closing, and binding: every tensor that the architecture wants is found by name, its
 * shape is compared with the hyperparameters, and views of it are put where the tape will look.
 * ============================================================================================== */

/* y [n] = w [n, k] x [k] + bias. Row i lies at data + i * stride, at any address. */
typedef struct sm__weight {
    int type; /* index of sm__types */
    int n, k; /* outputs, inputs */
    size_t stride;
    const uint8_t *data; /* NULL: the architecture has none */
    const float *bias;   /* [n] or NULL */
    float scale;         /* of w x, before the bias; 0: none */
    const sm_tensor *tensor; /* of the model; these are its rows from `row` on */
    int row;
} sm__weight;

typedef struct sm__layer { /* vectors are f32 copies, 64-byte aligned; NULL = none */
    const float *attn_norm, *attn_norm_bias; /* [C] */
    const float *ffn_norm, *ffn_norm_bias;   /* [C] */
    const float *q_norm, *k_norm;            /* [D], or [H*D] and [K*D]: SM__ARCH_QK_NORM... */
    const float *attn_post_norm, *ffn_post_norm; /* [C] */
    const float *attn_sub_norm, *ffn_sub_norm;   /* [H*D] [F] */
    sm__weight q, k, v, attn_out;            /* [H*D, C] [K*D, C] [K*D, C] [C, H*D] */
    sm__weight gate, up, down;               /* [F, C] [F, C] [C, F] */
} sm__layer;

typedef struct sm__weights {
    sm__weight embed, output; /* [V, C]; the same one when the file has no output.weight */
    sm__weight position;      /* [n_ctx, C] of learned positions, any type; else data NULL */
    const float *output_norm, *output_norm_bias; /* [C] */
    const float *rope_factors; /* [n_rot / 2] what to divide angles by, or NULL */
    const float *long_factors; /* the same in a context longer than original_ctx, or NULL */
    sm__layer *layers;
} sm__weights;

/* TEXT: checks the vocabulary that a reader gave and builds its tables. */
static sm_status sm__vocab_build(sm_model *m, sm_error *error);

typedef struct sm__binder {
    sm_model *m;
    sm_error *error;
    int layer;        /* -1: outside the layers */
    int used;         /* tensors found */
    sm_status status; /* of the first failure; nothing is done after it */
    char name[SM__MAX_NAME + 1];
} sm__binder;

/* "blk.3.attn_q" + ".weight" */
static const char *sm__bind_name(sm__binder *b, const char *stem, const char *suffix) {
    sm__text t = sm__text_make(b->name, sizeof b->name);
    if (b->layer >= 0) {
        sm__put(&t, "blk.");
        sm__put_u64(&t, (uint64_t)b->layer);
        sm__put(&t, ".");
    }
    sm__put(&t, stem);
    sm__put(&t, suffix);
    return b->name;
}

static void sm__put_shape(sm__text *t, uint64_t d0, uint64_t d1, uint64_t d2, uint64_t d3) {
    uint64_t dims[4];
    int i, n = d3 > 1 ? 4 : d2 > 1 ? 3 : d1 > 1 ? 2 : 1;
    dims[0] = d0, dims[1] = d1, dims[2] = d2, dims[3] = d3;
    for (i = 0; i < n; i++) {
        sm__put(t, i ? ", " : "[");
        sm__put_u64(t, dims[i]);
    }
    sm__put(t, "]");
}

/* The tensor of that name with rows of k elements and n rows, of a type that this build computes
 * with; NULL when it is not there (an error if it is needed), or something is wrong with it. */
static const sm_tensor *sm__bind_find(sm__binder *b, const char *stem, const char *suffix, int k,
                                      int n, int need) {
    const char *name = sm__bind_name(b, stem, suffix);
    const sm_tensor *t;
    int i;
    if (b->status) return NULL;
    i = sm__tensor_at(b->m, name);
    if (i < 0 && need) b->status = sm__fail(b->error, SM_ERR_FORMAT, "tensor %s is missing", name);
    if (i < 0) return NULL;
    b->used++;
    t = &b->m->tensors[i];
    if (sm__type_index(t->type) < 0) {
        b->status = sm__fail(b->error, SM_ERR_UNSUPPORTED, "tensor %s has the type %s", name,
                             sm__ggml_name(t->type));
        return NULL;
    }
    if (t->dims[0] != (uint64_t)k || t->dims[1] != (uint64_t)n || t->dims[2] != 1 ||
        t->dims[3] != 1) {
        char shapes[200];
        sm__text text = sm__text_make(shapes, sizeof shapes);
        sm__put_shape(&text, t->dims[0], t->dims[1], t->dims[2], t->dims[3]);
        sm__put(&text, ", expected ");
        sm__put_shape(&text, (uint64_t)k, (uint64_t)n, 1, 1);
        b->status = sm__fail(b->error, SM_ERR_FORMAT, "tensor %s is %s", name, shapes);
        return NULL;
    }
    return t;
}

/* A tensor as f32, in the model's memory. */
static const float *sm__bind_copy(sm__binder *b, const sm_tensor *t) {
    size_t n = t ? (size_t)(t->dims[0] * t->dims[1]) : 0;
    float *copy;
    if (!t) return NULL;
    copy = (float *)sm__model_alloc(b->m, n, sizeof *copy);
    if (!copy) b->status = sm__fail(b->error, SM_ERR_NOMEM, "no memory for tensor %s", b->name);
    else sm__types[sm__type_index(t->type)].decode(t->data, copy, n);
    return copy;
}

static const float *sm__bind_vector(sm__binder *b, const char *stem, const char *suffix, int n,
                                    int need) {
    return sm__bind_copy(b, sm__bind_find(b, stem, suffix, n, 1, need));
}

/* The weights of a norm for each of `rows` heads. */
static const float *sm__bind_vectors(sm__binder *b, const char *stem, int rows, int n, int need) {
    return sm__bind_copy(b, sm__bind_find(b, stem, ".weight", n, rows, need));
}

/* A matrix, and its bias when there is one (an error when need_bias and there is none). */
static sm__weight sm__bind_matrix(sm__binder *b, const char *stem, int n, int k, int need,
                                  int need_bias) {
    const sm_tensor *t = sm__bind_find(b, stem, ".weight", k, n, need);
    const float *scale;
    sm__weight w;
    memset(&w, 0, sizeof w);
    if (!t) return w;
    w.type = sm__type_index(t->type);
    w.n = n;
    w.k = k;
    w.stride = sm__row_bytes(w.type, (size_t)k);
    w.data = (const uint8_t *)t->data;
    w.tensor = t;
    w.bias = sm__bind_vector(b, stem, ".bias", n, need_bias);
    scale = b->m->arch->flags & SM__ARCH_SUB_NORM ? sm__bind_vector(b, stem, ".scale", 1, 0) : NULL;
    if (!scale) return w;
    w.scale = *scale;
    if (!sm__real_in(w.scale < 0.0f ? -w.scale : w.scale, 1e-12, 1e12))
        b->status = sm__fail(b->error, SM_ERR_FORMAT, "tensor %s.scale is no scale", stem);
    return w;
}

/* n rows of a matrix, from a row on. */
static sm__weight sm__weight_rows(const sm__weight *w, int row, int n) {
    sm__weight part = *w;
    part.n = n;
    part.row = w->row + row;
    part.data = w->data ? w->data + (size_t)row * w->stride : NULL;
    part.bias = w->bias ? w->bias + row : NULL;
    return part;
}

/* Whether the layer has such a tensor. */
static int sm__bind_has(sm__binder *b, const char *stem, const char *suffix) {
    return sm__tensor_at(b->m, sm__bind_name(b, stem, suffix)) >= 0;
}

/* q, k and v: in one matrix where the row says so, or the file has one. */
static void sm__bind_qkv(sm__binder *b, sm__layer *l) {
    const sm__hparams *h = &b->m->hp;
    int flags = b->m->arch->flags;
    int bias = (flags & (SM__ARCH_BIAS | SM__ARCH_QKV_BIAS)) != 0;
    int c = h->n_embd, q = h->n_heads * h->head_dim, kv = h->n_kv_heads * h->head_dim;
    if ((flags & SM__ARCH_FUSED_QKV) || sm__bind_has(b, "attn_qkv", ".weight")) {
        sm__weight qkv = sm__bind_matrix(b, "attn_qkv", q + 2 * kv, c, 1, bias);
        l->q = sm__weight_rows(&qkv, 0, q);
        l->k = sm__weight_rows(&qkv, q, kv);
        l->v = sm__weight_rows(&qkv, q + kv, kv);
    } else {
        l->q = sm__bind_matrix(b, "attn_q", q, c, 1, bias);
        l->k = sm__bind_matrix(b, "attn_k", kv, c, 1, bias);
        l->v = sm__bind_matrix(b, "attn_v", kv, c, 1, bias);
    }
    if (flags & SM__ARCH_QK_NORM) {
        l->q_norm = sm__bind_vector(b, "attn_q_norm", ".weight", h->head_dim, 1);
        l->k_norm = sm__bind_vector(b, "attn_k_norm", ".weight", h->head_dim, 1);
    } else if (flags & SM__ARCH_QK_NORM_ROW) {
        l->q_norm = sm__bind_vector(b, "attn_q_norm", ".weight", q, 1);
        l->k_norm = sm__bind_vector(b, "attn_k_norm", ".weight", kv, 1);
    } else if (flags & SM__ARCH_QK_NORM_HEADS) {
        int need = sm__bind_has(b, "attn_q_norm", ".weight");
        l->q_norm = sm__bind_vectors(b, "attn_q_norm", h->n_heads, h->head_dim, need);
        l->k_norm = sm__bind_vectors(b, "attn_k_norm", h->n_kv_heads, h->head_dim, need);
    }
}

static void sm__bind_norms(sm__binder *b, sm__layer *l) {
    const sm__hparams *h = &b->m->hp;
    int flags = b->m->arch->flags;
    int bias = (flags & SM__ARCH_NORM_BIAS) != 0, c = h->n_embd;
    if (!(flags & SM__ARCH_NO_PRE_NORM)) {
        l->attn_norm = sm__bind_vector(b, "attn_norm", ".weight", c, 1);
        if (bias) l->attn_norm_bias = sm__bind_vector(b, "attn_norm", ".bias", c, 1);
        l->ffn_norm = sm__bind_vector(b, "ffn_norm", ".weight", c,
                                      !h->parallel || (flags & SM__ARCH_MAYBE_PARALLEL));
        if (bias && l->ffn_norm) l->ffn_norm_bias = sm__bind_vector(b, "ffn_norm", ".bias", c, 1);
    }
    if (flags & SM__ARCH_POST_NORM) {
        l->attn_post_norm = sm__bind_vector(b, "post_attention_norm", ".weight", c, 1);
        l->ffn_post_norm = sm__bind_vector(b, "post_ffw_norm", ".weight", c, 1);
    }
    if (flags & SM__ARCH_SUB_NORM) {
        int q = h->n_heads * h->head_dim;
        l->attn_sub_norm = sm__bind_vector(b, "attn_sub_norm", ".weight", q, 1);
        l->ffn_sub_norm = sm__bind_vector(b, "ffn_sub_norm", ".weight", h->n_ff, 1);
    }
}

static void sm__bind_ffn(sm__binder *b, sm__layer *l) {
    const sm__hparams *h = &b->m->hp;
    int bias = (b->m->arch->flags & SM__ARCH_BIAS) != 0, c = h->n_embd, f = h->n_ff;
    if (b->m->arch->flags & SM__ARCH_FUSED_GATE) {
        sm__weight both = sm__bind_matrix(b, "ffn_up", 2 * f, c, 1, bias);
        l->gate = sm__weight_rows(&both, 0, f);
        l->up = sm__weight_rows(&both, f, f);
    } else {
        if (sm__ffn_gated(h->ffn)) l->gate = sm__bind_matrix(b, "ffn_gate", f, c, 1, bias);
        l->up = sm__bind_matrix(b, "ffn_up", f, c, 1, bias);
    }
    l->down = sm__bind_matrix(b, "ffn_down", c, f, 1, bias);
}

static void sm__bind_layer(sm__binder *b, sm__layer *l) {
    const sm__hparams *h = &b->m->hp;
    sm__bind_norms(b, l);
    sm__bind_qkv(b, l);
    l->attn_out = sm__bind_matrix(b, "attn_output", h->n_embd, h->n_heads * h->head_dim, 1,
                                  (b->m->arch->flags & SM__ARCH_BIAS) != 0);
    sm__bind_ffn(b, l);
}

/* What a tensor divides angles by. */
static const float *sm__bind_factors(sm__binder *b, const char *stem, int need) {
    int i, n = b->m->hp.n_rot / 2;
    const float *factors = sm__bind_vector(b, stem, ".weight", n, need);
    for (i = 0; factors && i < n; i++)
        if (!sm__real_in((double)factors[i], 0.1, 1e6))
            b->status =
                sm__fail(b->error, SM_ERR_FORMAT,
                         "tensor %s.weight: factor %d is not within 0.1 and 1e6", stem, i);
    return factors;
}

static void sm__bind_rope_factors(sm__binder *b, sm__weights *w) {
    if (b->m->hp.pos == SM__POS_LEARNED) return;
    if (sm__bind_has(b, "rope_factors_long", ".weight") ||
        sm__bind_has(b, "rope_factors_short", ".weight")) {
        w->rope_factors = sm__bind_factors(b, "rope_factors_short", 1);
        w->long_factors = sm__bind_factors(b, "rope_factors_long", 1);
    } else {
        w->rope_factors = sm__bind_factors(b, "rope_freqs", 0);
    }
}

/* Bytes of weights that one token reads: every matrix but the embedding, of which it is a row. */
static size_t sm__decode_bytes(const sm_model *m) {
    const sm__weights *w = m->weights;
    size_t bytes = (size_t)w->output.n * w->output.stride + w->embed.stride + w->position.stride;
    int i, j;
    for (i = 0; i < m->hp.n_layers; i++) {
        const sm__layer *l = &w->layers[i];
        const sm__weight *list[7];
        list[0] = &l->q, list[1] = &l->k, list[2] = &l->v, list[3] = &l->attn_out;
        list[4] = &l->gate, list[5] = &l->up, list[6] = &l->down;
        for (j = 0; j < 7; j++) bytes += (size_t)list[j]->n * list[j]->stride;
    }
    return bytes;
}

static sm_status sm__model_bind(sm_model *m, sm_error *error) {
    const sm__hparams *h = &m->hp;
    sm__weights *w;
    sm__binder b;
    int i, need_output = (m->arch->flags & SM__ARCH_OUTPUT_BIAS) != 0;
    memset(&b, 0, sizeof b);
    b.m = m;
    b.error = error;
    b.layer = -1;
    w = (sm__weights *)sm__model_alloc(m, 1, sizeof *w);
    if (!w) return sm__fail(error, SM_ERR_NOMEM, "no memory for the weights' table");
    memset(w, 0, sizeof *w);
    w->layers = (sm__layer *)sm__model_alloc(m, (size_t)h->n_layers, sizeof *w->layers);
    if (!w->layers) return sm__fail(error, SM_ERR_NOMEM, "no memory for the weights' table");
    memset(w->layers, 0, (size_t)h->n_layers * sizeof *w->layers);
    w->embed = sm__bind_matrix(&b, "token_embd", h->n_vocab, h->n_embd, 1, 0);
    w->output = sm__bind_matrix(&b, "output", h->n_vocab, h->n_embd, need_output, need_output);
    if (!w->output.data) w->output = w->embed;
    if (h->pos == SM__POS_LEARNED)
        w->position = sm__bind_matrix(&b, "position_embd", h->n_ctx, h->n_embd, 1, 0);
    w->output_norm = sm__bind_vector(&b, "output_norm", ".weight", h->n_embd, 1);
    if (m->arch->flags & SM__ARCH_NORM_BIAS)
        w->output_norm_bias = sm__bind_vector(&b, "output_norm", ".bias", h->n_embd, 1);
    sm__bind_rope_factors(&b, w);
    for (i = 0; i < h->n_layers && !b.status; i++) {
        b.layer = i;
        sm__bind_layer(&b, &w->layers[i]);
    }
    if (b.status) return b.status;
    if (b.used < m->info.n_tensors)
        sm__log_count(m, m->info.n_tensors - b.used, " tensors of the file are not used");
    m->weights = w;
    m->info.decode_bytes = sm__decode_bytes(m);
    return SM_OK;
}

/* ---- open and close ---- */

SM_API sm_model_params sm_model_default(void) {
    sm_model_params params;
    memset(&params, 0, sizeof params);
    return params;
}

/* An empty model; NULL when there is no memory. */
static sm_model *sm__model_new(const sm_allocator *allocator) {
    sm__heap heap = sm__heap_make(allocator);
    sm_model *m = (sm_model *)sm__heap_alloc(&heap, sizeof *m);
    if (!m) return NULL;
    memset(m, 0, sizeof *m);
    m->heap = heap;
    m->info.format = m->info.arch = m->info.name = m->info.tokenizer = "";
    sm__hparams_default(&m->hp);
    m->vocab.bos = m->vocab.eos = m->vocab.eot = m->vocab.unk = m->vocab.pad = -1;
    m->vocab.add_bos = m->vocab.add_eos = m->vocab.add_space_prefix = -1;
    return m;
}

/* The summary, from what was read and bound. */
static void sm__model_info(sm_model *m, const sm__bytes *file) {
    sm_model_info *info = &m->info;
    const sm__hparams *h = &m->hp;
    size_t best = 0, bytes[SM__N_TYPES];
    int i;
    memset(bytes, 0, sizeof bytes);
    info->n_vocab = h->n_vocab;
    info->n_ctx_train = h->n_ctx;
    info->n_embd = h->n_embd;
    info->n_layers = h->n_layers;
    info->n_heads = h->n_heads;
    info->n_kv_heads = h->n_kv_heads;
    info->head_dim = h->head_dim;
    info->n_ff = h->n_ff;
    info->type = SM_TYPE_AUTO;
    for (i = 0; i < info->n_tensors; i++) {
        const sm_tensor *t = &m->tensors[i];
        int type = sm__type_index(t->type);
        info->n_params += t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
        info->weight_bytes += t->bytes;
        if (type < 0) continue;
        bytes[type] += t->bytes;
        if (bytes[type] > best) best = bytes[type], info->type = t->type;
    }
    if (!file->owned) info->mapped_bytes += file->n; /* the shards are counted already */
    info->has_vocab = m->vocab.kind != SM__VOCAB_NONE;
    info->tokenizer = m->vocab.kind == SM__VOCAB_SPM   ? "spm"
                      : m->vocab.kind == SM__VOCAB_BPE ? "bpe"
                                                       : "";
    info->bos = m->vocab.bos;
    info->eos = m->vocab.eos;
    info->eot = m->vocab.eot;
    info->unk = m->vocab.unk;
    info->pad = m->vocab.pad;
    info->heap_bytes = m->heap.bytes;
}

/* The formats whose vocabulary, and maybe configuration, lie in files of their own. */
static sm_status sm__other_read(sm_model *m, const sm_model_params *params, sm__bytes *file,
                                sm__bytes *tokenizer, sm_error *error) {
    sm__bytes config = {NULL, 0, NULL};
    sm_status status = SM_OK;
    int index = sm__is_index(file);
    if (sm__is_safetensors(file) || index) {
        if (index) status = sm__index_bytes(m, params, file, error);
        if (!status) status = sm__config_bytes(m, params, &config, error);
        if (!status) status = sm__safetensors_read(m, params, file, index, &config, error);
        sm__bytes_drop(m, &config);
        if (index) sm__bytes_drop(m, file);
    } else {
        status = sm__llama2c_read(m, file, error);
    }
    if (!status && sm__source_set(&params->tokenizer)) {
        status = sm__source_bytes(m, params, &params->tokenizer, "the tokenizer",
                                  params->tokenizer.path ? SM_LOAD_COPY : params->load,
                                  SM__MAX_TOKENIZER, tokenizer, error);
        if (!status) status = sm__tokenizer_bin_read(m, tokenizer, error);
    }
    if (status || !params->vocab_only) return status;
    m->arch = NULL;
    if (m->vocab.kind == SM__VOCAB_NONE)
        return sm__fail(error, SM_ERR_FORMAT, "the file holds no vocabulary: params.tokenizer?");
    return SM_OK;
}

static sm_status sm__model_read(sm_model *m, const sm_model_params *given, sm_error *error) {
    sm__bytes file, tokenizer = {NULL, 0, NULL};
    sm_model_params params = *given;
    sm_status status = sm__model_file(m, &params, &file, error);
    if (status) return status;
    if (sm__is_gguf(&file)) status = sm__gguf_read(m, &file, params.vocab_only, error);
    else status = sm__other_read(m, &params, &file, &tokenizer, error);
    if (!status && m->vocab.kind != SM__VOCAB_NONE) status = sm__vocab_build(m, error);
    sm__bytes_drop(m, &tokenizer); /* the tables hold copies */
    if (!status && m->arch) status = sm__model_bind(m, error);
    if (!status) sm__model_info(m, &file);
    return status;
}

static sm_status sm__open_check(const sm_model_params *params, sm_error *error) {
    if (!params || !sm__source_set(&params->file))
        return sm__fail(error, SM_ERR_ARG, "no path, data or read in params.file");
    if (!sm__allocator_ok(&params->allocator))
        return sm__fail(error, SM_ERR_ARG, "the allocator has only one of alloc and free");
    if (params->load != SM_LOAD_MAP && params->load != SM_LOAD_COPY)
        return sm__fail(error, SM_ERR_ARG, "params.load is %d", params->load);
    return SM_OK;
}

SM_API sm_status sm_model_open(const sm_model_params *params, sm_model **model, sm_error *error) {
    sm_model *m;
    sm_status status;
    uint64_t fp;
    if (!model) return sm__fail(error, SM_ERR_ARG, "model is NULL");
    *model = NULL;
    if ((status = sm__open_check(params, error))) return status;
    m = sm__model_new(&params->allocator);
    if (!m) return sm__fail(error, SM_ERR_NOMEM, "no memory for a model");
    m->log = params->log;
    m->log_user = params->log_user;
    fp = sm__fp_enter();
    status = sm__model_read(m, params, error);
    sm__fp_leave(fp);
    if (status) sm_model_close(m);
    else *model = m;
    return status;
}

SM_API void sm_model_close(sm_model *model) {
    sm__heap heap;
    int i;
    if (!model) return;
    sm__model_unmap(model);
    for (i = model->n_chunks - 1; i >= 0; i--) sm__heap_free(&model->heap, model->chunks[i]);
    sm__heap_free(&model->heap, model->chunks);
    heap = model->heap; /* it must outlive what it frees */
    sm__heap_free(&heap, model);
}

SM_API const sm_model_info *sm_model_get_info(const sm_model *model) {
    return model ? &model->info : NULL;
}

SM_API sm_status sm_model_tensor(const sm_model *model, int i, sm_tensor *tensor) {
    if (!model || !tensor || i < 0 || i >= model->info.n_tensors) return SM_ERR_ARG;
    *tensor = model->tensors[i];
    return SM_OK;
}

/* ---- adapters ---- */

/* Hugging Face's llama rotates the halves of a head, GGUF's neighbours: how many rows of each head
 * change places in a tensor. */
static size_t sm__turned_rows(const sm__arch *arch, const sm__hparams *hp, const char *name) {
    int other = arch->pos == SM__POS_ROPE_PAIRS && hp->pos == SM__POS_ROPE_HALF;
    return other && (strstr(name, ".attn_q.") || strstr(name, ".attn_k.")) ? (size_t)hp->n_rot : 0;
}

/* Where row r of a GGUF file comes from. */
static size_t sm__turned_row(size_t r, size_t head_dim, size_t n_rot) {
    size_t i = n_rot ? r % head_dim : 0;
    return i < n_rot ? r - i + i % 2 * (n_rot / 2) + i / 2 : r;
}

/* What is added to the rows of a model's matrix: B A, times alpha / rank and the caller's scale. */
typedef struct sm__adapter_pair {
    const sm_tensor *tensor; /* the model's: [n, k] */
    const float *a, *b;      /* [rank, k] and [n, rank], B's rows in the order of the model's */
    int rank, n, k;
} sm__adapter_pair;

struct sm_adapter {
    sm__heap heap;
    const sm_model *model;
    sm__adapter_pair *pairs; /* [n_pairs] */
    int *pair_of;            /* [n_tensors of the model] index of its pair, or -1 */
    int n_pairs, max_rank;
    double alpha;            /* 0: there is none, and the products are not scaled */
};

/* The pair of a tensor; NULL = it has none. */
static const sm__adapter_pair *sm__adapter_pair_of(const sm_adapter *a, const sm_tensor *t) {
    int i = a && t ? a->pair_of[t - a->model->tensors] : -1;
    return i < 0 ? NULL : &a->pairs[i];
}

static double sm__adapter_scale(const sm_adapter *a, const sm__adapter_pair *p, double scale) {
    return a->alpha != 0.0 ? scale * a->alpha / p->rank : scale;
}

/* The tensor of an adapter's file that belongs to a model's; NULL = there is none. */
static const sm_tensor *sm__adapter_half(const sm_model *file, const char *name,
                                         const char *suffix) {
    char both[SM__MAX_NAME + 8];
    sm__text text = sm__text_make(both, sizeof both);
    int i;
    sm__put(&text, name);
    sm__put(&text, suffix);
    i = sm__tensor_at(file, both);
    return i < 0 ? NULL : &file->tensors[i];
}

/* What the adapter's keys say. An alpha of 0 counts as none: so does llama.cpp. */
static sm_status sm__adapter_keys(sm_adapter *a, const sm_model *file, sm_error *error) {
    const sm__meta *alpha = sm__meta_find(file, "adapter.lora.alpha");
    sm__str arch = sm__meta_string(file, "general.architecture");
    sm__str type = sm__meta_string(file, "general.type");
    sm__str kind = sm__meta_string(file, "adapter.type");
    const sm__arch *row = sm__arch_find(arch);
    char quoted[SM__QUOTE];
    if (!sm__str_is(type, "adapter"))
        return sm__fail(error, SM_ERR_FORMAT, "adapter: general.type is %s, not adapter",
                        sm__quote(quoted, type));
    if (!sm__str_is(kind, "lora"))
        return sm__fail(error, SM_ERR_UNSUPPORTED, "adapter: adapter.type is %s, not lora",
                        sm__quote(quoted, kind));
    if (!row || !sm__arch_same(row, a->model->arch))
        return sm__fail(error, SM_ERR_UNSUPPORTED, "adapter: made for %s, the model is of %s",
                        sm__quote(quoted, arch), a->model->info.arch);
    if (alpha && (alpha->type == SM__GGUF_ARRAY || !sm__meta_number(alpha, 0, &a->alpha) ||
                  !sm__real_in(a->alpha, -1e6, 1e6)))
        return sm__fail(error, SM_ERR_FORMAT, "adapter: adapter.lora.alpha is no usable number");
    return SM_OK;
}

/* A tensor of the file, the i-th: it belongs to one of the model, its other half is there, they
 * fit. An A becomes a pair, of which a and b are still NULL. */
static sm_status sm__adapter_take(sm_adapter *a, const sm_model *file, int i, sm_error *error) {
    const sm_tensor *t = &file->tensors[i], *w = NULL, *low = NULL, *up = NULL;
    char name[SM__MAX_NAME + 1];
    size_t n = strlen(t->name);
    sm__adapter_pair *p;
    int at = -1;
    if (n > 7 && (!strcmp(t->name + n - 7, ".lora_a") || !strcmp(t->name + n - 7, ".lora_b"))) {
        memcpy(name, t->name, n - 7);
        name[n - 7] = 0;
        at = sm__tensor_at(a->model, name);
        w = at < 0 ? NULL : &a->model->tensors[at];
        low = sm__adapter_half(file, name, ".lora_a");
        up = sm__adapter_half(file, name, ".lora_b");
    }
    if (!w || w->n_dims < 2)
        return sm__fail(error, SM_ERR_FORMAT, "adapter: the model has no matrix for tensor %s",
                        t->name);
    if (!low || !up)
        return sm__fail(error, SM_ERR_FORMAT, "adapter: tensor %s has no other half", t->name);
    if (sm__type_index(t->type) < 0 || sm__type_index(w->type) < 0)
        return sm__fail(error, SM_ERR_UNSUPPORTED, "adapter: tensor %s has the type %s, for %s",
                        t->name, sm__ggml_name(t->type), sm__ggml_name(w->type));
    if (low->dims[0] != w->dims[0] || up->dims[1] != w->dims[1] || low->dims[1] != up->dims[0] ||
        low->dims[1] > SM__MAX_DIM || w->dims[0] > INT32_MAX || w->dims[1] > INT32_MAX ||
        low->dims[2] * low->dims[3] * up->dims[2] * up->dims[3] * w->dims[2] * w->dims[3] != 1) {
        char shapes[200];
        sm__text text = sm__text_make(shapes, sizeof shapes);
        sm__put_shape(&text, low->dims[0], low->dims[1], low->dims[2], low->dims[3]);
        sm__put(&text, " and ");
        sm__put_shape(&text, up->dims[0], up->dims[1], up->dims[2], up->dims[3]);
        sm__put(&text, " for ");
        sm__put_shape(&text, w->dims[0], w->dims[1], w->dims[2], w->dims[3]);
        return sm__fail(error, SM_ERR_FORMAT, "adapter: tensor %s: shapes %s", name, shapes);
    }
    if (t != low) return SM_OK;
    a->pair_of[at] = a->n_pairs;
    p = &a->pairs[a->n_pairs++];
    memset(p, 0, sizeof *p);
    p->tensor = w;
    p->k = (int)low->dims[0];
    p->rank = (int)low->dims[1];
    p->n = (int)up->dims[1];
    a->max_rank = sm__max(a->max_rank, p->rank);
    return SM_OK;
}

/* Half of a pair as F32, row r of it from row sm__turned_row(r) of the file. */
static sm_status sm__adapter_decode(sm_adapter *a, const sm_tensor *t, size_t n_rot,
                                    const float **out, sm_error *error) {
    size_t k = (size_t)t->dims[0], n = (size_t)t->dims[1], bytes, r, i;
    int type = sm__type_index(t->type), endless = 0;
    float *all;
    if (sm__mul_size(k * n, sizeof *all, &bytes) ||
        !(all = (float *)sm__heap_alloc(&a->heap, bytes)))
        return sm__fail(error, SM_ERR_NOMEM, "no memory for tensor %s of the adapter", t->name);
    *out = all;
    for (r = 0; r < n; r++) {
        float *row = all + sm__turned_row(r, (size_t)a->model->hp.head_dim, n_rot) * k;
        sm__types[type].decode((const uint8_t *)t->data + r * (t->bytes / n), row, k);
        for (i = 0; i < k; i++) endless |= sm__not_finite(row[i]);
    }
    if (endless)
        return sm__fail(error, SM_ERR_FORMAT,
                        "adapter: tensor %s has a number that is not finite", t->name);
    return SM_OK;
}

/* Checks all of the file against the model, then takes what it has. */
static sm_status sm__adapter_read(sm_adapter *a, sm_model *file, const sm_model_params *params,
                                  sm_error *error) {
    const sm_model *m = a->model;
    sm__bytes bytes;
    sm_status status = sm__source_bytes(file, params, &params->file, "the adapter", params->load,
                                        UINT64_MAX, &bytes, error);
    int i, n;
    if (status) return status;
    if (!sm__is_gguf(&bytes))
        return sm__fail(error, SM_ERR_FORMAT, "adapter: this is no GGUF file");
    if ((status = sm__gguf_directory(file, &bytes, 0, error))) return status;
    if ((status = sm__adapter_keys(a, file, error))) return status;
    n = file->info.n_tensors;
    if (!n) return sm__fail(error, SM_ERR_FORMAT, "adapter: it has no tensors");
    a->pairs = (sm__adapter_pair *)sm__heap_alloc(&a->heap, (size_t)n * sizeof *a->pairs);
    a->pair_of = (int *)sm__heap_alloc(&a->heap, (size_t)m->info.n_tensors * sizeof(int));
    if (!a->pairs || !a->pair_of)
        return sm__fail(error, SM_ERR_NOMEM, "no memory for the %d tensors of an adapter", n);
    for (i = 0; i < m->info.n_tensors; i++) a->pair_of[i] = -1;
    for (i = 0; i < n && !status; i++) status = sm__adapter_take(a, file, i, error);
    for (i = 0; i < a->n_pairs && !status; i++) {
        sm__adapter_pair *p = &a->pairs[i];
        const char *name = p->tensor->name;
        status = sm__adapter_decode(a, sm__adapter_half(file, name, ".lora_a"), 0, &p->a, error);
        if (!status)
            status = sm__adapter_decode(a, sm__adapter_half(file, name, ".lora_b"),
                                        sm__turned_rows(m->arch, &m->hp, name), &p->b, error);
    }
    return status;
}

SM_API sm_status sm_adapter_open(const sm_model *model, const sm_model_params *params,
                                 sm_adapter **adapter, sm_error *error) {
    sm__heap heap;
    sm_adapter *a;
    sm_model *file;
    sm_status status;
    uint64_t fp;
    if (!adapter) return sm__fail(error, SM_ERR_ARG, "adapter is NULL");
    *adapter = NULL;
    if (!model) return sm__fail(error, SM_ERR_ARG, "adapter: for which model?");
    if (!model->arch)
        return sm__fail(error, SM_ERR_UNSUPPORTED, "adapter: the model has no weights");
    if ((status = sm__open_check(params, error))) return status;
    heap = sm__heap_make(&params->allocator);
    a = (sm_adapter *)sm__heap_alloc(&heap, sizeof *a);
    if (!a) return sm__fail(error, SM_ERR_NOMEM, "no memory for an adapter");
    memset(a, 0, sizeof *a);
    a->heap = heap;
    a->model = model;
    file = sm__model_new(&params->allocator);
    fp = sm__fp_enter();
    if (file) status = sm__adapter_read(a, file, params, error);
    else status = sm__fail(error, SM_ERR_NOMEM, "no memory for an adapter");
    sm__fp_leave(fp);
    sm_model_close(file);
    if (status) sm_adapter_close(a);
    else *adapter = a;
    return status;
}

SM_API void sm_adapter_close(sm_adapter *adapter) {
    sm__heap heap;
    int i;
    if (!adapter) return;
    for (i = 0; i < adapter->n_pairs; i++) {
        sm__heap_free(&adapter->heap, (void *)(uintptr_t)adapter->pairs[i].a);
        sm__heap_free(&adapter->heap, (void *)(uintptr_t)adapter->pairs[i].b);
    }
    sm__heap_free(&adapter->heap, adapter->pairs);
    sm__heap_free(&adapter->heap, adapter->pair_of);
    heap = adapter->heap;
    sm__heap_free(&heap, adapter);
}

SM_API int sm_adapter_rank(const sm_adapter *adapter) { return adapter ? adapter->max_rank : 0; }

/* ================================================================================================
 * MARK: [SM33] UTF-8 AND UNICODE
 * Text is bytes that should be UTF-8 and may be anything. One function reads a character; what is
 * none is answered with the length of the bad part, so that no caller can run past it. Of Unicode
 * only what the pre-tokenizers ask is kept: letter, number, white space, punctuation, or none.
 * ============================================================================================== */

#define SM__BAD_CHAR 0xFFFDu
static const char sm__bad_text[] = "\xEF\xBF\xBD"; /* U+FFFD, three bytes */

/* Reads one character of s [n], n >= 1, as RFC 3629 defines it: no overlong forms, no surrogates,
 * nothing above U+10FFFF. Returns
 *   1..4  its length; *code is the character
 *   0     s ends inside a character that is well-formed so far
 *   -1..-3  minus the length of an ill-formed part: the longest beginning of a character, or one
 *           byte that begins none ("maximal subpart", Unicode 14 section 3.9). Decoders write one
 *           U+FFFD for it. *code is U+FFFD. */
static int sm__utf8_read(const unsigned char *s, size_t n, uint32_t *code) {
    uint32_t c = s[0], value, low = 0x80, high = 0xBF;
    int i, length;
    *code = c;
    if (c < 0x80) return 1;
    *code = SM__BAD_CHAR;
    if (c < 0xC2 || c > 0xF4) return -1;
    length = c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
    if (c == 0xE0) low = 0xA0;  /* below: two bytes were enough */
    if (c == 0xED) high = 0x9F; /* above: surrogates */
    if (c == 0xF0) low = 0x90;  /* below: three bytes were enough */
    if (c == 0xF4) high = 0x8F; /* above: no character has this number */
    value = c & (0x7Fu >> length);
    for (i = 1; i < length; i++) {
        if ((size_t)i == n) return 0;
        if (s[i] < low || s[i] > high) return -i;
        value = value << 6 | (s[i] & 0x3Fu);
        low = 0x80;
        high = 0xBF;
    }
    *code = value;
    return length;
}

/* Classes of characters, as bits: sets of them are masks. `other` is everything else, also marks,
 * symbols, controls and what is not assigned. */
enum {
    SM__CHAR_OTHER = 1,
    SM__CHAR_LETTER = 2, /* categories L* */
    SM__CHAR_NUMBER = 4, /* N* */
    SM__CHAR_SPACE = 8,  /* the property White_Space */
    SM__CHAR_PUNCT = 16, /* P* */
    SM__CHAR_SIGN = SM__CHAR_OTHER | SM__CHAR_PUNCT /* [^\s\p{L}\p{N}] of the regular expressions */
};

/* BEGIN generated by tests/make_unicode.py */
/* Unicode 14.0.0. Runs of characters of one class, from U+0080 on: length << 3 | class. */
#define SM__CHARS_END 0x3134B /* from here on everything is of class other */
#define SM__CHAR_STEP 32
#define SM__CHAR_RUNS 1756
#define SM__CHAR_INDEX 55
static const uint16_t sm__char_runs[SM__CHAR_RUNS] = {
    40, 11, 208, 11, 12, 40, 12, 16, 9, 12, 48, 18, 8, 9, 20, 8, 10, 9, 12, 26, 12, 185, 8, 249, 8,
    3665, 32, 97, 112, 41, 56, 9, 8, 9, 1032, 41, 8, 17, 16, 33, 12, 9, 48, 9, 12, 25, 8, 9, 8,
    161, 8, 665, 8, 1113, 64, 1329, 8, 305, 16, 9, 52, 329, 20, 408, 12, 8, 12, 16, 12, 16, 12, 72,
    217, 32, 33, 20, 160, 20, 8, 20, 104, 12, 8, 28, 345, 168, 82, 36, 17, 8, 793, 12, 9, 120, 17,
    56, 17, 82, 25, 16, 9, 116, 16, 9, 8, 241, 232, 713, 88, 9, 112, 82, 265, 72, 17, 8, 28, 9, 40,
    177, 32, 9, 72, 9, 24, 9, 56, 124, 8, 201, 40, 12, 8, 89, 40, 193, 8, 49, 136, 337, 464, 433,
    24, 9, 144, 9, 56, 81, 16, 20, 82, 12, 129, 32, 65, 16, 17, 16, 177, 8, 57, 8, 9, 24, 33, 24,
    9, 128, 9, 104, 17, 8, 25, 32, 82, 17, 16, 50, 16, 9, 12, 56, 49, 32, 17, 16, 177, 8, 57, 8,
    17, 8, 17, 8, 17, 248, 33, 8, 9, 56, 82, 16, 25, 8, 12, 112, 73, 8, 25, 8, 177, 8, 57, 8, 17,
    8, 41, 24, 9, 144, 9, 120, 17, 32, 82, 12, 64, 9, 88, 65, 16, 17, 16, 177, 8, 57, 8, 17, 8, 41,
    24, 9, 240, 17, 8, 25, 32, 82, 8, 9, 50, 88, 9, 8, 49, 24, 25, 8, 33, 24, 17, 8, 9, 8, 17, 24,
    17, 24, 25, 24, 97, 176, 9, 168, 106, 144, 65, 8, 25, 8, 185, 8, 129, 24, 9, 208, 25, 16, 9,
    16, 17, 32, 82, 56, 12, 58, 8, 9, 24, 12, 65, 8, 25, 8, 185, 8, 81, 8, 41, 24, 9, 248, 17, 8,
    17, 32, 82, 8, 17, 136, 73, 8, 25, 8, 329, 16, 9, 128, 9, 40, 25, 8, 58, 25, 32, 154, 8, 49,
    40, 145, 24, 193, 8, 73, 8, 9, 16, 57, 248, 82, 32, 12, 96, 385, 8, 17, 96, 57, 64, 12, 82, 20,
    296, 17, 8, 9, 8, 41, 8, 193, 8, 9, 8, 81, 8, 17, 72, 9, 16, 41, 8, 9, 72, 82, 16, 33, 256, 9,
    24, 124, 8, 12, 88, 162, 48, 36, 16, 65, 8, 289, 192, 12, 16, 41, 536, 44, 32, 20, 296, 345,
    160, 9, 82, 52, 49, 32, 33, 24, 9, 24, 17, 56, 25, 32, 105, 96, 9, 8, 82, 48, 305, 8, 9, 40, 9,
    16, 345, 12, 2665, 8, 33, 16, 57, 8, 9, 8, 33, 16, 329, 8, 33, 16, 265, 8, 33, 16, 57, 8, 9, 8,
    33, 16, 121, 8, 457, 8, 33, 16, 537, 40, 76, 162, 24, 129, 128, 689, 16, 49, 16, 12, 4961, 8,
    12, 137, 11, 209, 20, 24, 601, 28, 26, 65, 56, 145, 104, 153, 24, 20, 72, 145, 112, 105, 8, 25,
    120, 417, 256, 28, 9, 28, 8, 9, 24, 82, 48, 82, 48, 92, 40, 82, 48, 713, 56, 41, 16, 273, 8, 9,
    40, 561, 80, 249, 296, 20, 82, 241, 16, 41, 88, 353, 32, 209, 48, 90, 296, 185, 56, 20, 425,
    344, 82, 48, 82, 48, 60, 9, 52, 696, 377, 136, 65, 24, 82, 60, 224, 20, 32, 241, 104, 17, 82,
    353, 176, 36, 289, 184, 44, 82, 24, 25, 82, 289, 20, 73, 56, 345, 16, 25, 68, 88, 12, 168, 33,
    8, 49, 8, 17, 24, 9, 40, 1537, 512, 2225, 16, 49, 16, 305, 16, 49, 16, 65, 8, 9, 8, 9, 8, 9, 8,
    249, 16, 425, 8, 57, 8, 9, 24, 25, 8, 57, 24, 33, 16, 49, 32, 105, 40, 25, 8, 57, 24, 91, 40,
    196, 19, 40, 11, 164, 8, 108, 8, 100, 11, 128, 10, 9, 16, 50, 24, 20, 9, 82, 24, 20, 8, 105,
    808, 9, 32, 9, 16, 81, 8, 9, 24, 41, 48, 9, 8, 9, 8, 9, 8, 33, 8, 89, 16, 33, 40, 41, 32, 9, 8,
    410, 17, 42, 3056, 36, 232, 20, 2472, 482, 624, 178, 4928, 116, 242, 392, 20, 248, 84, 3224,
    180, 504, 36, 256, 20, 4112, 1833, 48, 33, 24, 17, 40, 36, 10, 20, 305, 8, 9, 40, 9, 16, 449,
    56, 9, 12, 120, 185, 72, 57, 8, 57, 8, 57, 8, 57, 8, 57, 8, 57, 8, 57, 8, 57, 264, 380, 9, 260,
    16, 100, 3344, 11, 28, 8, 17, 10, 84, 16, 100, 8, 74, 48, 12, 41, 16, 26, 17, 12, 24, 689, 48,
    25, 12, 721, 12, 33, 40, 345, 8, 753, 24, 34, 80, 257, 384, 129, 256, 82, 240, 66, 8, 122, 256,
    82, 312, 122, 2560, 52737, 512, 65529, 65529, 46201, 536, 369, 20, 2153, 28, 129, 82, 17, 160,
    377, 32, 12, 80, 12, 249, 16, 561, 82, 16, 52, 248, 73, 16, 825, 16, 513, 40, 17, 8, 9, 8, 41,
    192, 129, 8, 25, 8, 33, 8, 185, 104, 50, 80, 417, 36, 80, 401, 208, 20, 82, 192, 49, 28, 9, 12,
    17, 8, 82, 225, 64, 20, 185, 192, 12, 233, 56, 377, 112, 108, 8, 9, 82, 32, 20, 41, 8, 81, 82,
    41, 8, 329, 184, 25, 8, 65, 32, 82, 16, 36, 185, 24, 9, 24, 401, 8, 9, 24, 17, 16, 41, 16, 9,
    8, 9, 192, 25, 20, 89, 40, 20, 25, 96, 49, 16, 49, 16, 49, 72, 57, 8, 57, 8, 345, 8, 113, 48,
    921, 64, 12, 32, 82, 48, 65529, 23849, 96, 185, 32, 393, 65528, 2088, 2929, 16, 849, 304, 57,
    96, 41, 40, 9, 8, 81, 8, 105, 8, 41, 8, 9, 8, 17, 8, 17, 8, 865, 264, 2905, 20, 128, 513, 16,
    433, 320, 97, 160, 84, 176, 284, 8, 116, 8, 12, 32, 12, 8, 20, 32, 41, 8, 1081, 32, 28, 8, 52,
    8, 36, 82, 20, 24, 20, 209, 28, 8, 12, 8, 209, 12, 8, 12, 8, 60, 713, 24, 49, 16, 49, 16, 49,
    16, 25, 280, 97, 8, 209, 8, 153, 8, 17, 8, 121, 16, 113, 272, 985, 40, 28, 32, 362, 96, 458,
    136, 18, 1952, 233, 24, 393, 128, 218, 32, 257, 34, 72, 161, 10, 65, 10, 40, 305, 80, 241, 8,
    12, 289, 32, 65, 12, 42, 336, 1265, 16, 82, 48, 289, 32, 289, 32, 321, 64, 417, 88, 12, 89, 8,
    121, 8, 57, 8, 17, 8, 89, 8, 121, 8, 57, 8, 17, 536, 2489, 72, 177, 80, 65, 192, 49, 8, 337, 8,
    73, 552, 49, 16, 9, 8, 353, 8, 17, 24, 9, 16, 185, 8, 12, 66, 185, 16, 58, 249, 64, 74, 384,
    153, 8, 17, 40, 42, 177, 50, 24, 12, 209, 40, 12, 512, 449, 32, 18, 17, 130, 16, 370, 9, 120,
    33, 8, 25, 8, 233, 80, 74, 56, 76, 56, 233, 18, 12, 233, 26, 256, 65, 8, 225, 48, 42, 60, 72,
    433, 24, 60, 177, 16, 66, 153, 40, 66, 145, 56, 36, 96, 58, 640, 585, 440, 409, 104, 409, 56,
    50, 289, 96, 82, 2352, 250, 8, 337, 24, 12, 16, 17, 624, 233, 82, 9, 64, 177, 88, 34, 44, 176,
    145, 32, 36, 304, 169, 58, 160, 185, 96, 425, 120, 60, 32, 242, 8, 17, 16, 9, 104, 361, 88, 20,
    8, 36, 112, 201, 56, 82, 72, 289, 120, 82, 36, 9, 16, 9, 64, 281, 8, 20, 9, 96, 385, 112, 33,
    36, 32, 12, 16, 82, 9, 12, 9, 28, 8, 162, 88, 145, 8, 201, 96, 52, 528, 57, 8, 9, 8, 33, 8,
    121, 8, 81, 12, 48, 377, 136, 82, 88, 65, 16, 17, 16, 177, 8, 57, 8, 17, 8, 41, 24, 9, 144, 9,
    96, 41, 1264, 425, 144, 33, 44, 82, 20, 8, 12, 8, 25, 240, 385, 160, 17, 12, 9, 64, 82, 1328,
    377, 144, 188, 33, 288, 385, 136, 28, 9, 88, 82, 48, 108, 152, 345, 104, 9, 12, 48, 82, 432,
    217, 168, 98, 28, 8, 57, 1480, 353, 120, 12, 800, 513, 154, 96, 65, 16, 9, 16, 65, 8, 17, 8,
    193, 120, 9, 8, 9, 16, 28, 72, 82, 560, 65, 16, 313, 128, 9, 12, 9, 224, 9, 80, 321, 56, 9, 32,
    68, 72, 9, 88, 369, 128, 28, 9, 44, 104, 585, 2104, 73, 8, 297, 136, 9, 44, 80, 234, 24, 20,
    241, 896, 57, 8, 17, 8, 305, 168, 9, 72, 82, 48, 49, 8, 17, 8, 257, 112, 9, 56, 82, 2480, 153,
    32, 20, 1464, 9, 120, 170, 336, 12, 7377, 816, 890, 8, 44, 88, 1569, 21088, 777, 20, 104, 8569,
    32392, 4665, 65528, 3536, 4553, 56, 249, 8, 82, 32, 20, 633, 8, 82, 48, 241, 56, 12, 80, 385,
    56, 44, 32, 33, 12, 88, 82, 8, 58, 8, 169, 40, 153, 5504, 513, 186, 36, 808, 601, 40, 9, 528,
    105, 512, 17, 12, 9, 224, 49089, 64, 9905, 336, 73, 65528, 5952, 33, 8, 57, 8, 17, 8, 2329,
    360, 25, 136, 33, 64, 3169, 18464, 857, 40, 105, 24, 73, 56, 81, 40, 12, 45568, 162, 864, 202,
    1080, 681, 8, 569, 8, 17, 16, 9, 16, 17, 16, 33, 8, 97, 8, 9, 8, 57, 8, 521, 8, 33, 16, 65, 8,
    57, 8, 225, 8, 33, 8, 41, 8, 9, 24, 57, 8, 2721, 16, 201, 8, 201, 8, 249, 8, 201, 8, 249, 8,
    201, 8, 249, 8, 201, 8, 249, 8, 201, 8, 65, 16, 402, 5176, 44, 9120, 249, 3848, 361, 80, 57,
    16, 82, 32, 9, 2568, 241, 144, 353, 32, 82, 10032, 57, 8, 33, 8, 17, 8, 121, 8, 1577, 16, 74,
    384, 545, 56, 9, 32, 82, 32, 20, 6280, 474, 8, 26, 8, 34, 608, 362, 8, 122, 1552, 33, 8, 217,
    8, 17, 8, 9, 16, 9, 8, 81, 8, 33, 8, 9, 8, 9, 48, 9, 32, 9, 8, 9, 8, 9, 8, 25, 8, 17, 8, 9, 16,
    9, 8, 9, 8, 9, 8, 9, 8, 9, 8, 17, 8, 9, 16, 33, 8, 57, 8, 33, 8, 33, 8, 9, 8, 81, 8, 137, 40,
    25, 8, 41, 8, 137, 4640, 106, 22296, 82, 8240, 65529, 65529, 65529, 65529, 65529, 14121, 256,
    33225, 56, 1777, 16, 46097, 112, 59785, 24824, 4337, 12048, 39513,
};
/* The first character of every SM__CHAR_STEP-th run. */
static const uint32_t sm__char_index[SM__CHAR_INDEX] = {
    128, 749, 1470, 1774, 2111, 2474, 2613, 2790, 2958, 3165, 3332, 3573, 3802, 4186, 4704, 5121,
    6109, 6619, 7227, 8008, 8192, 8469, 10088, 11633, 12308, 12880, 42744, 43256, 43588, 43793,
    64285, 65124, 65480, 66257, 66864, 67590, 67904, 68343, 69294, 69808, 70108, 70442, 71087,
    71904, 72250, 73030, 77809, 93026, 110592, 119977, 120540, 123536, 126209, 126545, 126625,
};
/* U+0000..007F, one by one. */
static const uint8_t sm__char_ascii[128] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 3, 3, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    3, 4, 4, 4, 0, 4, 4, 4, 4, 4, 4, 0, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 4, 4, 0, 0, 0, 4,
    4, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 4, 4, 4, 0, 4,
    0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 4, 0, 4, 0, 0,
};
/* END */

/* The class of a character: a binary search for the group of runs, then at most SM__CHAR_STEP
 * additions. */
static int sm__char_class(uint32_t code) {
    uint32_t at;
    int low = 0, high = SM__CHAR_INDEX, run;
    if (code < 128) return 1 << sm__char_ascii[code];
    if (code >= SM__CHARS_END) return SM__CHAR_OTHER;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (sm__char_index[middle] <= code) low = middle;
        else high = middle;
    }
    at = sm__char_index[low];
    for (run = low * SM__CHAR_STEP;; run++) {
        at += (uint32_t)sm__char_runs[run] >> 3;
        if (code < at) return 1 << (sm__char_runs[run] & 7);
    }
}

/* The character at s[at]. At the end of the text length and kind are 0; a byte that is no UTF-8 is
 * a character of its own, of class other. */
typedef struct sm__char {
    uint32_t code;
    int kind; /* SM__CHAR_* */
    size_t length;
} sm__char;

static sm__char sm__char_at(const unsigned char *s, size_t n, size_t at) {
    sm__char c = {0, 0, 0};
    int length;
    if (at >= n) return c;
    length = sm__utf8_read(s + at, n - at, &c.code);
    c.length = length > 0 ? (size_t)length : 1;
    c.kind = length > 0 ? sm__char_class(c.code) : SM__CHAR_OTHER;
    return c;
}

/* The end of the run of characters of the classes in mask, from `at`. */
static size_t sm__char_run(const unsigned char *s, size_t n, size_t at, int mask) {
    sm__char c = sm__char_at(s, n, at);
    while (c.kind & mask) {
        at += c.length;
        c = sm__char_at(s, n, at);
    }
    return at;
}

/* ================================================================================================
 * MARK: [SM34] TOKENIZER
 * Two ways from text to ids. Both begin with symbols (characters or bytes) and merge neighbours,
 * the best pair first, until no pair is left; they differ in what a pair is and what makes it good:
 *   SPM  SentencePiece's BPE (Kudo and Richardson 2018, arXiv:1808.06226): two neighbours merge
 *        when their text is a token; the highest score wins. Characters without a token become
 *        bytes.
 *   BPE  byte-level BPE (Sennrich et al. 2016, arXiv:1508.07909; Radford et al. 2019): the text is
 *        cut into words first; in a word, two neighbours merge when the file lists the pair; the
 *        first in the list wins.
 * Ties go to the left. A binary heap holds the candidates, so that n symbols take O(n log n) steps
 * whatever the text. Tables are made once, when the model is opened, from a vocabulary that may be
 * hostile: their memory is linear in it, a lookup has a fixed number of probes at most.
 * ============================================================================================== */

#define SM__MAX_TOKEN_BYTES 4096  /* the longest tokens of real vocabularies have some hundreds */
#define SM__MAX_SPECIAL_BYTES 512 /* of a control or user-defined token */
#define SM__MAX_MERGES (1 << 25)
#define SM__MAX_PROBES 512 /* of a hash table at most 2/3 full: only texts made for it need more */
#define SM__MAX_TEXT ((size_t)1 << 29)

/* How byte-level vocabularies cut text into words before merging (tokenizer.ggml.pre). The names
 * and what belongs to them are llama.cpp's. */
enum { SM__WORDS_GPT2, SM__WORDS_LLAMA3 };
enum { SM__SPLIT_NONE, SM__SPLIT_DIGIT, SM__SPLIT_DEFAULT };
enum {
    SM__PRE_WHOLE = 1, /* a word that is a token is not merged (ignore_merges) */
    SM__PRE_BOS = 2    /* BOS goes in front unless the file says no */
};

typedef struct sm__pre {
    const char *name;
    uint8_t words, split;
    uint8_t digits; /* SM__WORDS_LLAMA3: digits of a word at most */
    uint8_t flags;
} sm__pre;

static const sm__pre sm__pres[] = {
    {"default", SM__WORDS_GPT2, SM__SPLIT_DEFAULT, 0, 0}, /* the first: for files without a name */
    {"gpt-2", SM__WORDS_GPT2, SM__SPLIT_NONE, 0, 0},
    {"phi-2", SM__WORDS_GPT2, SM__SPLIT_NONE, 0, 0},
    {"mpt", SM__WORDS_GPT2, SM__SPLIT_NONE, 0, 0},
    {"olmo", SM__WORDS_GPT2, SM__SPLIT_NONE, 0, 0},
    {"exaone4", SM__WORDS_GPT2, SM__SPLIT_NONE, 0, 0},
    {"llama-bpe", SM__WORDS_LLAMA3, SM__SPLIT_NONE, 3, SM__PRE_WHOLE | SM__PRE_BOS},
    {"llama-v3", SM__WORDS_LLAMA3, SM__SPLIT_NONE, 3, SM__PRE_WHOLE | SM__PRE_BOS},
    {"llama3", SM__WORDS_LLAMA3, SM__SPLIT_NONE, 3, SM__PRE_WHOLE | SM__PRE_BOS},
    {"falcon3", SM__WORDS_LLAMA3, SM__SPLIT_NONE, 3, SM__PRE_WHOLE | SM__PRE_BOS},
    {"lfm2", SM__WORDS_LLAMA3, SM__SPLIT_NONE, 3, SM__PRE_WHOLE | SM__PRE_BOS},
    {"smaug-bpe", SM__WORDS_LLAMA3, SM__SPLIT_NONE, 3, 0},
    {"qwen2", SM__WORDS_LLAMA3, SM__SPLIT_NONE, 1, 0},
    {"deepseek-r1-qwen", SM__WORDS_LLAMA3, SM__SPLIT_NONE, 1, 0},
    {"stablelm2", SM__WORDS_LLAMA3, SM__SPLIT_NONE, 1, 0},
    {"megrez", SM__WORDS_LLAMA3, SM__SPLIT_NONE, 1, 0},
    {"smollm", SM__WORDS_GPT2, SM__SPLIT_DIGIT, 0, 0},
    {"starcoder", SM__WORDS_GPT2, SM__SPLIT_DIGIT, 0, 0},
    {"refact", SM__WORDS_GPT2, SM__SPLIT_DIGIT, 0, 0},
    {"command-r", SM__WORDS_GPT2, SM__SPLIT_DIGIT, 0, 0},
    {"codeshell", SM__WORDS_GPT2, SM__SPLIT_DIGIT, 0, 0},
    {"exaone", SM__WORDS_GPT2, SM__SPLIT_DIGIT, 0, 0},
};

typedef struct sm__slot { /* of the table text -> id */
    uint32_t tag;         /* high half of the hash */
    int32_t id;           /* -1 = free */
} sm__slot;

typedef struct sm__pair { /* of the table (left id, right id) -> merge */
    int32_t left, right;  /* left -1 = free */
    int32_t merged;
    uint32_t rank;
} sm__pair;

struct sm__vocab_tables {
    unsigned char *bytes; /* the decoded texts, one after another */
    uint32_t *offsets;    /* [n + 1] */
    sm__slot *slots;      /* [slot_mask + 1] decoded text of tokens that text can become */
    size_t slot_mask;
    sm__pair *pairs; /* [pair_mask + 1] BPE */
    size_t pair_mask;
    uint32_t *order;      /* [n] SPM: scores as integers, the best is the smallest */
    int space_inside;     /* SPM: some token has a space after another character */
    int32_t byte_id[256]; /* -1 = none */
    int16_t byte_of[324]; /* GPT-2's characters for bytes, back to the bytes; -1 = none */
    int32_t *specials;    /* [n_specials] control, unknown and user-defined tokens by their text */
    int n_specials;
    int32_t special_first[257];   /* those that begin with byte b: [first[b], first[b + 1]) */
    uint8_t special_start[256];   /* 1: a user-defined token begins so; 2: another special one */
    uint8_t *ends;                /* [(n + 7) / 8] bits: ids that end a generation */
    const sm__pre *pre;           /* BPE */
    int add_bos, space_prefix;    /* what the file says, or what the kind of vocabulary does */
};

/* --- Texts of tokens -------------------------------------------------------------------------- */

static sm__str sm__token_str(const struct sm__vocab_tables *t, int32_t id) {
    sm__str s;
    s.p = (const char *)t->bytes + t->offsets[id];
    s.n = t->offsets[id + 1] - t->offsets[id];
    return s;
}

static int sm__is_special(int kind) {
    return kind == SM__TOKEN_CONTROL || kind == SM__TOKEN_USER || kind == SM__TOKEN_UNKNOWN;
}

static int sm__hex_digit(int c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10
         : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte that a token "<0xHH>" stands for; -1 = it is not written exactly so. */
static int sm__byte_token(sm__str s) {
    int high, low;
    if (s.n != 6 || memcmp(s.p, "<0x", 3) != 0 || s.p[5] != '>') return -1;
    high = sm__hex_digit(s.p[3]);
    low = sm__hex_digit(s.p[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* GPT-2 writes bytes as characters that print: those that do already stand for themselves, the
 * other 68 follow at U+0100. */
static void sm__byte_map(int16_t *byte_of) {
    int b, next = 256;
    for (b = 0; b < 324; b++) byte_of[b] = -1;
    for (b = 0; b < 256; b++) {
        int prints = (b > 32 && b < 127) || (b > 160 && b != 173);
        byte_of[prints ? b : next++] = (int16_t)b;
    }
}

/* Byte-level text to its bytes, out [s.n]. Returns how many; -1: a character is none of the 256. */
static int sm__bytes_decode(const struct sm__vocab_tables *t, sm__str s, unsigned char *out) {
    size_t at = 0;
    int n = 0;
    while (at < s.n) {
        uint32_t code;
        int length = sm__utf8_read((const unsigned char *)s.p + at, s.n - at, &code);
        if (length <= 0 || code >= 324 || t->byte_of[code] < 0) return -1;
        out[n++] = (unsigned char)t->byte_of[code];
        at += (size_t)length;
    }
    return n;
}

/* A copy of s in out [s.n] with spaces for U+2581. Returns its length. */
static size_t sm__spaces_decode(const char *s, size_t n, unsigned char *out) {
    size_t i = 0, used = 0;
    while (i < n) {
        int mark = n - i >= 3 && memcmp(s + i, "\xE2\x96\x81", 3) == 0;
        out[used++] = mark ? (unsigned char)' ' : (unsigned char)s[i];
        i += mark ? 3 : 1;
    }
    return used;
}

/* The text that a token stands for, in out [its length in the file]. *plain = 1: text may become
 * this token; 0: only SM_TEXT_SPECIAL or the byte fallback give it. */
static size_t sm__token_decode(const sm__vocab *v, int id, unsigned char *out, int *plain) {
    sm__str s = v->tokens[id];
    int kind = v->kinds[id], n;
    *plain = 0;
    if (kind == SM__TOKEN_BYTE) {
        out[0] = (unsigned char)sm__byte_token(s);
        return 1;
    }
    if (!sm__is_special(kind)) {
        if (v->kind == SM__VOCAB_SPM) {
            *plain = 1;
            if (!v->plain_spaces) return sm__spaces_decode(s.p, s.n, out);
        } else {
            n = sm__bytes_decode(v->tables, s, out);
            *plain = n >= 0;
            if (n >= 0) return (size_t)n;
        }
    }
    if (s.n) memcpy(out, s.p, s.n); /* literally */
    return s.n;
}

/* --- Hash tables: open addressing, linear probing, powers of two ------------------------------ */

/* MurmurHash3's finalizer (Appleby 2011): every bit of h changes every bit of the result. */
static uint64_t sm__mix64(uint64_t h) {
    h = (h ^ (h >> 33)) * 0xFF51AFD7ED558CCDu;
    h = (h ^ (h >> 33)) * 0xC4CEB9FE1A85EC53u;
    return h ^ (h >> 33);
}

static uint64_t sm__hash_bytes(const unsigned char *s, size_t n) {
    uint64_t h = n * 0x9E3779B97F4A7C15u, word;
    for (; n >= 8; s += 8, n -= 8) {
        memcpy(&word, s, 8);
        h = (h ^ word) * 0x9FB21C651E98DF25u;
        h ^= h >> 29;
    }
    for (word = 0; n > 0; n--) word = word << 8 | s[n - 1];
    return sm__mix64(h ^ word);
}

/* The slot of a text, or the free one where it belongs; NULL after SM__MAX_PROBES. */
static sm__slot *sm__slot_find(const struct sm__vocab_tables *t, const unsigned char *s, size_t n) {
    uint64_t h = sm__hash_bytes(s, n);
    uint32_t tag = (uint32_t)(h >> 32);
    int probe;
    for (probe = 0; probe < SM__MAX_PROBES; probe++) {
        sm__slot *slot = &t->slots[(size_t)(h + (uint64_t)probe) & t->slot_mask];
        if (slot->id < 0) return slot;
        if (slot->tag == tag) {
            sm__str text = sm__token_str(t, slot->id);
            if (text.n == n && memcmp(text.p, s, n) == 0) return slot;
        }
    }
    return NULL;
}

/* The token with exactly this text (decoded), or -1. */
static int32_t sm__text_find(const struct sm__vocab_tables *t, const unsigned char *s, size_t n) {
    const sm__slot *slot = sm__slot_find(t, s, n);
    return slot ? slot->id : -1;
}

/* Adds a token's text unless it is there: the first one stays. 1 = the texts collide. */
static int sm__text_put(struct sm__vocab_tables *t, int32_t id) {
    sm__str text = sm__token_str(t, id);
    const unsigned char *s = (const unsigned char *)text.p;
    sm__slot *slot;
    if (text.n == 0) return 0;
    slot = sm__slot_find(t, s, text.n);
    if (!slot) return 1;
    if (slot->id < 0) {
        slot->id = id;
        slot->tag = (uint32_t)(sm__hash_bytes(s, text.n) >> 32);
    }
    return 0;
}

static sm__pair *sm__pair_find(const struct sm__vocab_tables *t, int32_t left, int32_t right) {
    uint64_t h = sm__mix64((uint64_t)(uint32_t)left << 32 | (uint32_t)right);
    int probe;
    for (probe = 0; probe < SM__MAX_PROBES; probe++) {
        sm__pair *pair = &t->pairs[(size_t)(h + (uint64_t)probe) & t->pair_mask];
        if (pair->left < 0 || (pair->left == left && pair->right == right)) return pair;
    }
    return NULL;
}

/* The slots of a table for n entries. */
static size_t sm__table_size(size_t n) {
    size_t size = 16;
    while (size < n + n / 2) size *= 2;
    return size;
}

/* --- Building the tables ---------------------------------------------------------------------- */

/* What the reader gave, before anything is made of it. */
static sm_status sm__vocab_check(const sm__vocab *v, sm_error *error) {
    const char *const names[] = {"bos", "eos", "eot", "unknown", "padding"};
    int32_t ids[5];
    int i;
    if (v->kind != SM__VOCAB_SPM && v->kind != SM__VOCAB_BPE)
        return sm__fail(error, SM_ERR_UNSUPPORTED, "tokenizer: kind %d is not known", v->kind);
    if (v->n < 1 || v->n > SM__MAX_VOCAB || !v->tokens)
        return sm__fail(error, SM_ERR_FORMAT, "tokenizer: %d tokens, 1 to %d are possible", v->n,
                        SM__MAX_VOCAB);
    if (v->n_merges < 0 || v->n_merges > SM__MAX_MERGES || (v->n_merges && !v->merges))
        return sm__fail(error, SM_ERR_FORMAT, "tokenizer: %d merges, at most %d are possible",
                        v->n_merges, SM__MAX_MERGES);
    ids[0] = v->bos, ids[1] = v->eos, ids[2] = v->eot, ids[3] = v->unk, ids[4] = v->pad;
    for (i = 0; i < 5; i++)
        if (ids[i] < -1 || ids[i] >= v->n)
            return sm__fail(error, SM_ERR_FORMAT, "tokenizer: the %s id is %d, there are %d tokens",
                            names[i], (int)ids[i], v->n);
    for (i = 0; i < v->n; i++) {
        int kind = SM__TOKEN_NORMAL;
        if (v->kinds) kind = v->kinds[i];
        if (v->tokens[i].n > SM__MAX_TOKEN_BYTES)
            return sm__fail(error, SM_ERR_FORMAT, "tokenizer: token %d has more than %d bytes", i,
                            SM__MAX_TOKEN_BYTES);
        if (kind == SM__TOKEN_BYTE && sm__byte_token(v->tokens[i]) < 0)
            return sm__fail(error, SM_ERR_FORMAT, "tokenizer: byte token %d is not <0xHH>", i);
        if (sm__is_special(kind) && v->tokens[i].n > SM__MAX_SPECIAL_BYTES)
            return sm__fail(error, SM_ERR_FORMAT,
                            "tokenizer: special token %d has more than %d bytes", i,
                            SM__MAX_SPECIAL_BYTES);
    }
    return SM_OK;
}

/* Whether a space follows another character in s [n]. */
static int sm__space_inside(const unsigned char *s, size_t n) {
    size_t i;
    for (i = 1; i < n; i++)
        if (s[i] == ' ' && s[i - 1] != ' ') return 1;
    return 0;
}

/* Decodes all texts into one block and enters those that text can become. Tokens that the user
 * defined come second: they are found before merging starts and must not hide a token of merges. */
static sm_status sm__vocab_texts(sm_model *m, sm_error *error) {
    sm__vocab *v = &m->vocab;
    struct sm__vocab_tables *t = v->tables;
    size_t total = 0, used = 0, n;
    int i, plain;
    for (i = 0; i < v->n; i++)
        if (sm__add_size(total, v->tokens[i].n, &total) || total > 0x7FFFFFFFu)
            return sm__fail(error, SM_ERR_UNSUPPORTED, "tokenizer: 2 GB of tokens");
    t->slot_mask = sm__table_size((size_t)v->n) - 1;
    t->bytes = (unsigned char *)sm__model_alloc(m, total, 1);
    t->offsets = (uint32_t *)sm__model_alloc(m, (size_t)v->n + 1, sizeof *t->offsets);
    t->slots = (sm__slot *)sm__model_alloc(m, t->slot_mask + 1, sizeof *t->slots);
    if (!t->bytes || !t->offsets || !t->slots)
        return sm__fail(error, SM_ERR_NOMEM, "tokenizer: no memory for %d tokens", v->n);
    memset(t->slots, 0xFF, (t->slot_mask + 1) * sizeof *t->slots);
    t->offsets[0] = 0;
    for (i = 0; i < v->n; i++) {
        n = sm__token_decode(v, i, t->bytes + used, &plain);
        if (plain || v->kinds[i] == SM__TOKEN_USER)
            t->space_inside |= sm__space_inside(t->bytes + used, n);
        used += n;
        t->offsets[i + 1] = (uint32_t)used;
        if (n > v->max_token_bytes) v->max_token_bytes = n;
        if (plain && sm__text_put(t, i))
            return sm__fail(error, SM_ERR_FORMAT, "tokenizer: token %d collides with many", i);
    }
    for (i = 0; i < v->n; i++)
        if (v->kinds[i] == SM__TOKEN_USER && sm__text_put(t, i))
            return sm__fail(error, SM_ERR_FORMAT, "tokenizer: token %d collides with many", i);
    return SM_OK;
}

/* byte -> id: the byte tokens of SPM, the tokens of one byte of BPE. */
static void sm__vocab_bytes(const sm__vocab *v) {
    struct sm__vocab_tables *t = v->tables;
    int i;
    for (i = 0; i < 256; i++) {
        unsigned char byte = (unsigned char)i;
        t->byte_id[i] = v->kind == SM__VOCAB_BPE ? sm__text_find(t, &byte, 1) : -1;
    }
    for (i = v->n - 1; i >= 0; i--) /* downwards: the lowest id stays */
        if (v->kinds[i] == SM__TOKEN_BYTE && v->kind == SM__VOCAB_SPM)
            t->byte_id[t->bytes[t->offsets[i]]] = i;
}

/* Scores as integers in the opposite order, so that a heap key is one number. Equal scores (also
 * -0 and +0) are equal; NaN counts as the worst score. */
static sm_status sm__vocab_scores(sm_model *m, sm_error *error) {
    sm__vocab *v = &m->vocab;
    uint32_t *order = (uint32_t *)sm__model_alloc(m, (size_t)v->n, sizeof *order);
    int i;
    if (!order) return sm__fail(error, SM_ERR_NOMEM, "tokenizer: no memory for %d scores", v->n);
    for (i = 0; i < v->n; i++) {
        uint32_t bits = 0;
        if (v->scores) memcpy(&bits, &v->scores[i], sizeof bits);
        if ((bits & 0x7FFFFFFFu) > 0x7F800000u) order[i] = 0xFFFFFFFFu;
        else if ((bits & 0x7FFFFFFFu) == 0) order[i] = 0x7FFFFFFFu;
        else order[i] = bits >> 31 ? bits : 0x7FFFFFFFu - bits;
    }
    v->tables->order = order;
    return SM_OK;
}

/* One line "left right" of the list. The first of equal pairs stays, as its rank is better. */
static sm_status sm__vocab_merge(const sm__vocab *v, int i, sm_error *error) {
    const struct sm__vocab_tables *t = v->tables;
    unsigned char text[SM__MAX_TOKEN_BYTES];
    sm__str line = v->merges[i], left = line, right;
    const char *space = line.n > 2 ? (const char *)memchr(line.p + 1, ' ', line.n - 1) : NULL;
    int n_left, n_right;
    sm__pair *pair, new_pair;
    if (!space || line.n > SM__MAX_TOKEN_BYTES)
        return sm__fail(error, SM_ERR_FORMAT, "tokenizer: merge %d is not \"left right\"", i);
    left.n = (size_t)(space - line.p);
    right.p = space + 1;
    right.n = line.n - left.n - 1;
    n_left = sm__bytes_decode(t, left, text);
    n_right = n_left > 0 ? sm__bytes_decode(t, right, text + n_left) : -1;
    if (n_right < 1)
        return sm__fail(error, SM_ERR_FORMAT, "tokenizer: merge %d is not byte-level text", i);
    new_pair.left = sm__text_find(t, text, (size_t)n_left);
    new_pair.right = sm__text_find(t, text + n_left, (size_t)n_right);
    new_pair.merged = sm__text_find(t, text, (size_t)(n_left + n_right));
    new_pair.rank = (uint32_t)i;
    if (new_pair.left < 0 || new_pair.right < 0 || new_pair.merged < 0)
        return sm__fail(error, SM_ERR_FORMAT, "tokenizer: merge %d: the %s is not a token", i,
                        new_pair.left < 0    ? "left side"
                        : new_pair.right < 0 ? "right side"
                                             : "result");
    pair = sm__pair_find(t, new_pair.left, new_pair.right);
    if (!pair) return sm__fail(error, SM_ERR_FORMAT, "tokenizer: merge %d collides with many", i);
    if (pair->left < 0) *pair = new_pair;
    return SM_OK;
}

static sm_status sm__vocab_merges(sm_model *m, sm_error *error) {
    sm__vocab *v = &m->vocab;
    struct sm__vocab_tables *t = v->tables;
    sm_status status;
    int i;
    t->pair_mask = sm__table_size((size_t)v->n_merges) - 1;
    t->pairs = (sm__pair *)sm__model_alloc(m, t->pair_mask + 1, sizeof *t->pairs);
    if (!t->pairs)
        return sm__fail(error, SM_ERR_NOMEM, "tokenizer: no memory for %d merges", v->n_merges);
    memset(t->pairs, 0xFF, (t->pair_mask + 1) * sizeof *t->pairs);
    for (i = 0; i < v->n_merges; i++) {
        status = sm__vocab_merge(v, i, error);
        if (status) return status;
    }
    return SM_OK;
}

/* What chat and instruct models end their turn with, besides the eos and eot ids: files often name
 * one id only. */
static const char *const sm__end_names[] = {
    "</s>",          "<eos>",          "<|endoftext|>",   "<|end_of_text|>", "<|im_end|>",
    "<|eot_id|>",    "<|eom_id|>",     "<|end|>",         "<end_of_turn>",   "<end_of_utterance>",
    "<|fim_pad|>",   "<|repo_name|>",  "<|file_sep|>",    "<EOT>",           "[EOT]",
};

/* Marks the ids that end a generation, by id and by name. A user-defined token with such a name is
 * a control token that was filed wrongly, and becomes one. */
static sm_status sm__vocab_ends(sm_model *m, sm_error *error) {
    sm__vocab *v = &m->vocab;
    size_t i, n = ((size_t)v->n + 7) / 8;
    uint8_t *ends = (uint8_t *)sm__model_alloc(m, n, 1);
    int id;
    if (!ends) return sm__fail(error, SM_ERR_NOMEM, "tokenizer: no memory for %d tokens", v->n);
    memset(ends, 0, n);
    v->tables->ends = ends;
    for (id = 0; id < v->n; id++) {
        int end = id == v->eos || id == v->eot;
        if (v->kinds[id] == SM__TOKEN_CONTROL || v->kinds[id] == SM__TOKEN_USER) {
            for (i = 0; i < sizeof sm__end_names / sizeof *sm__end_names && !end; i++)
                end = sm__str_is(v->tokens[id], sm__end_names[i]);
            if (end) v->kinds[id] = SM__TOKEN_CONTROL;
        }
        if (end) ends[id >> 3] = (uint8_t)(ends[id >> 3] | 1 << (id & 7));
    }
    return SM_OK;
}

/* The order of special tokens: by text; of equal texts user-defined ones first, then by id. */
static int sm__special_before(const sm__vocab *v, int32_t a, int32_t b) {
    sm__str s = sm__token_str(v->tables, a), t = sm__token_str(v->tables, b);
    int user_a = v->kinds[a] == SM__TOKEN_USER, user_b = v->kinds[b] == SM__TOKEN_USER;
    int order = memcmp(s.p, t.p, sm__min_size(s.n, t.n));
    if (order) return order < 0;
    if (s.n != t.n) return s.n < t.n;
    return user_a != user_b ? user_a : a < b;
}

/* Heap sort: no recursion, no memory, O(n log n) for whatever a file holds. */
static void sm__special_sort(const sm__vocab *v, int32_t *ids, int n) {
    int start = n / 2, end = n;
    while (end > 1) {
        int32_t id;
        int at, child;
        if (start > 0) id = ids[--start];
        else {
            id = ids[--end];
            ids[end] = ids[0];
        }
        for (at = start; (child = 2 * at + 1) < end; at = child) {
            if (child + 1 < end && sm__special_before(v, ids[child], ids[child + 1])) child++;
            if (!sm__special_before(v, id, ids[child])) break;
            ids[at] = ids[child];
        }
        ids[at] = id;
    }
}

/* The sorted list of special tokens, each text once, and where each first byte begins in it. */
static sm_status sm__vocab_specials(sm_model *m, sm_error *error) {
    sm__vocab *v = &m->vocab;
    struct sm__vocab_tables *t = v->tables;
    int i, n = 0, kept = 0, b = 0;
    for (i = 0; i < v->n; i++) n += sm__is_special(v->kinds[i]) && v->tokens[i].n;
    t->specials = (int32_t *)sm__model_alloc(m, (size_t)n, sizeof *t->specials);
    if (!t->specials) return sm__fail(error, SM_ERR_NOMEM, "tokenizer: no memory for %d tokens", n);
    for (i = 0, n = 0; i < v->n; i++)
        if (sm__is_special(v->kinds[i]) && v->tokens[i].n) t->specials[n++] = i;
    sm__special_sort(v, t->specials, n);
    for (i = 0; i < n; i++) {
        sm__str s = sm__token_str(t, t->specials[i]), last;
        if (kept) {
            last = sm__token_str(t, t->specials[kept - 1]);
            if (last.n == s.n && memcmp(last.p, s.p, s.n) == 0) continue;
        }
        for (; b <= (unsigned char)s.p[0]; b++) t->special_first[b] = kept;
        t->special_start[(unsigned char)s.p[0]] |=
            (uint8_t)(v->kinds[t->specials[i]] == SM__TOKEN_USER ? 1 : 2);
        t->specials[kept++] = t->specials[i];
    }
    for (; b <= 256; b++) t->special_first[b] = kept;
    t->n_specials = kept;
    return SM_OK;
}

static const sm__pre *sm__pre_find(sm__str name) {
    size_t i;
    for (i = 0; i < sizeof sm__pres / sizeof *sm__pres; i++)
        if (sm__str_is(name, sm__pres[i].name)) return &sm__pres[i];
    return NULL;
}

/* The row of the pre-tokenizer. An unknown one is an error: wrong words are wrong ids, silently. */
static sm_status sm__vocab_pre(sm_model *m, sm_error *error) {
    sm__vocab *v = &m->vocab;
    char name[64];
    size_t i, n;
    v->tables->pre = &sm__pres[0];
    if (v->pre.n == 0) {
        sm__log(m, 2, "tokenizer: the file names no pre-tokenizer; \"default\" may be wrong");
        return SM_OK;
    }
    v->tables->pre = sm__pre_find(v->pre);
    if (v->tables->pre) return SM_OK;
    n = sm__min_size(v->pre.n, sizeof name - 1);
    for (i = 0; i < n; i++) name[i] = v->pre.p[i] > ' ' && v->pre.p[i] < 127 ? v->pre.p[i] : '?';
    name[n] = 0;
    return sm__fail(error, SM_ERR_UNSUPPORTED, "tokenizer: pre-tokenizer \"%s\" is unknown", name);
}

/* The reader's lists are in the tables now: their memory goes back. */
static void sm__vocab_drop_lists(sm_model *m) {
    sm__vocab *v = &m->vocab;
    sm__model_drop(m, v->merges);
    sm__model_drop(m, v->scores);
    sm__model_drop(m, v->tokens);
    v->merges = NULL;
    v->scores = NULL;
    v->tokens = NULL;
}

/* Checks the vocabulary that a reader filled in and makes the tables; of what the reader made only
 * the kinds stay. Memory is the model's, also on failure. Without a vocabulary nothing is done. */
static sm_status sm__vocab_build(sm_model *m, sm_error *error) {
    sm__vocab *v = &m->vocab;
    struct sm__vocab_tables *t;
    sm_status status;
    int i;
    if (v->kind == SM__VOCAB_NONE) return SM_OK;
    status = sm__vocab_check(v, error);
    if (status) return status;
    t = (struct sm__vocab_tables *)sm__model_alloc(m, 1, sizeof *t);
    if (!v->kinds) {
        v->kinds = (uint8_t *)sm__model_alloc(m, (size_t)v->n, 1);
        if (v->kinds) memset(v->kinds, SM__TOKEN_NORMAL, (size_t)v->n);
    }
    if (!t || !v->kinds)
        return sm__fail(error, SM_ERR_NOMEM, "tokenizer: no memory for %d tokens", v->n);
    memset(t, 0, sizeof *t);
    v->tables = t;
    v->max_token_bytes = 0;
    for (i = 0; i < v->n && v->unk < 0; i++)
        if (v->kinds[i] == SM__TOKEN_UNKNOWN) v->unk = i;
    sm__byte_map(t->byte_of);
    status = sm__vocab_ends(m, error);
    if (!status) status = sm__vocab_texts(m, error);
    if (!status) status = sm__vocab_specials(m, error);
    if (!status && v->kind == SM__VOCAB_SPM) status = sm__vocab_scores(m, error);
    if (!status && v->kind == SM__VOCAB_BPE) status = sm__vocab_pre(m, error);
    if (!status && v->kind == SM__VOCAB_BPE) status = sm__vocab_merges(m, error);
    if (status) {
        v->tables = NULL;
        return status;
    }
    sm__vocab_bytes(v);
    sm__vocab_drop_lists(m);
    t->space_prefix = v->kind == SM__VOCAB_SPM && v->add_space_prefix != 0;
    t->add_bos = v->add_bos >= 0 ? v->add_bos : t->pre ? (t->pre->flags & SM__PRE_BOS) != 0 : 1;
    return SM_OK;
}

/* --- Words: what the regular expressions of the pre-tokenizers say, by hand ------------------- */

/* 's 't 'm 'd 're 've 'll at the start of s [n]: the length, or 0. */
static size_t sm__word_contraction(const unsigned char *s, size_t n, int any_case) {
    int a, b, fold = any_case ? 0x20 : 0;
    if (n < 2 || s[0] != '\'') return 0;
    a = s[1] | fold;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    if (n < 3) return 0;
    b = s[2] | fold;
    return ((a == 'r' || a == 'v') && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

/* \s+(?!\S)|\s+ : white space up to the end of the text, or without its last character, which
 * belongs to the word after it; a single one stands alone. */
static size_t sm__word_space(const unsigned char *s, size_t n) {
    sm__char c = sm__char_at(s, n, 0);
    size_t at = 0, last = 0;
    while (c.kind & SM__CHAR_SPACE) {
        last = at;
        at += c.length;
        c = sm__char_at(s, n, at);
    }
    return at == n || last == 0 ? at : last;
}

/* GPT-2: 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
static size_t sm__word_gpt2(const unsigned char *s, size_t n) {
    size_t length = sm__word_contraction(s, n, 0), at = s[0] == ' ';
    int kind = sm__char_at(s, n, at).kind;
    if (length) return length;
    if (kind & SM__CHAR_LETTER) return sm__char_run(s, n, at, SM__CHAR_LETTER);
    if (kind & SM__CHAR_NUMBER) return sm__char_run(s, n, at, SM__CHAR_NUMBER);
    if (kind & SM__CHAR_SIGN) return sm__char_run(s, n, at, SM__CHAR_SIGN);
    return sm__word_space(s, n);
}

/* Llama 3 and Qwen 2, which differ in the number of digits:
 * (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|
 * \s*[\r\n]+|\s+(?!\S)|\s+ */
static size_t sm__word_llama3(const unsigned char *s, size_t n, int digits) {
    size_t length = sm__word_contraction(s, n, 1), at, line_end = 0;
    sm__char c = sm__char_at(s, n, 0);
    if (length) return length;
    if (c.kind & SM__CHAR_LETTER) return sm__char_run(s, n, 0, SM__CHAR_LETTER);
    if (c.kind & SM__CHAR_NUMBER) {
        for (at = 0; (c.kind & SM__CHAR_NUMBER) && digits > 0; digits--) {
            at += c.length;
            c = sm__char_at(s, n, at);
        }
        return at;
    }
    if (c.code != '\r' && c.code != '\n' && (sm__char_at(s, n, c.length).kind & SM__CHAR_LETTER))
        return sm__char_run(s, n, c.length, SM__CHAR_LETTER);
    at = s[0] == ' ';
    if (sm__char_at(s, n, at).kind & SM__CHAR_SIGN) {
        at = sm__char_run(s, n, at, SM__CHAR_SIGN);
        while (at < n && (s[at] == '\r' || s[at] == '\n')) at++;
        return at;
    }
    for (at = 0; c.kind & SM__CHAR_SPACE; c = sm__char_at(s, n, at)) {
        at += c.length;
        if (c.code == '\r' || c.code == '\n') line_end = at;
    }
    return line_end ? line_end : sm__word_space(s, n);
}

/* SM__SPLIT_DIGIT: every \p{N} stands alone before words are looked for. */
static size_t sm__piece_digit(const unsigned char *s, size_t n) {
    sm__char c = sm__char_at(s, n, 0);
    if (c.kind & SM__CHAR_NUMBER) return c.length;
    return sm__char_run(s, n, 0, ~SM__CHAR_NUMBER);
}

/* SM__SPLIT_DEFAULT: runs of [\p{P}$+<=>^~|] stand alone before words are looked for ... */
static size_t sm__piece_default(const unsigned char *s, size_t n) {
    size_t at = 0;
    int first = -1;
    for (;;) {
        sm__char c = sm__char_at(s, n, at);
        int sign = (c.kind & SM__CHAR_PUNCT) ||
                   (c.code > 0 && c.code < 128 && strchr("$+<=>^~|", (int)c.code));
        if (first < 0) first = sign;
        if (!c.kind || sign != first) return at;
        at += c.length;
    }
}

/* ... and a word of digits is cut: off the space before it, then into [0-9][0-9][0-9]. */
static size_t sm__word_cut_digits(const unsigned char *s, size_t n) {
    size_t at = 0;
    if (s[0] == ' ' && (sm__char_at(s, n, 1).kind & SM__CHAR_NUMBER)) return 1;
    if (!(sm__char_at(s, n, 0).kind & SM__CHAR_NUMBER)) return n;
    for (; at + 3 <= n; at++)
        if (s[at] - 48u < 10 && s[at + 1] - 48u < 10 && s[at + 2] - 48u < 10)
            return at ? at : 3;
    return n;
}

/* The length of the word at the start of s [n], n >= 1. *piece is what is left of the piece that
 * the splits made; it is 0 at the start of the text. */
static size_t sm__word_next(const sm__pre *pre, const unsigned char *s, size_t n, size_t *piece) {
    size_t length;
    if (*piece == 0) {
        *piece = pre->split == SM__SPLIT_DIGIT     ? sm__piece_digit(s, n)
                 : pre->split == SM__SPLIT_DEFAULT ? sm__piece_default(s, n)
                                                   : n;
    }
    length = pre->words == SM__WORDS_LLAMA3 ? sm__word_llama3(s, *piece, pre->digits)
                                            : sm__word_gpt2(s, *piece);
    if (pre->split == SM__SPLIT_DEFAULT) length = sm__word_cut_digits(s, length);
    *piece -= length;
    return length;
}

/* --- Merging ---------------------------------------------------------------------------------- */

/* A symbol is n bytes of text; it stands in the array at the place of its first byte. */
typedef struct sm__symbol {
    int32_t prev, next; /* places, -1 = none */
    uint32_t n;         /* 0: part of another one */
    int32_t id;         /* -1 = none, or not looked up yet */
} sm__symbol;

/* Two neighbours that may merge. It is outdated when one of them has merged elsewhere: symbols only
 * grow, so the sum of their lengths tells. */
typedef struct sm__merge {
    uint64_t key; /* rank or order of the score << 32 | place of the left one */
    uint32_t n;   /* bytes of both */
    int32_t id;   /* the token they become */
} sm__merge;

struct sm_tokenizer {
    const sm_model *model;
    size_t max_text;
    sm__heap heap;       /* unused when somebody else owns the memory */
    sm__symbol *symbols; /* [max_text + 1] */
    sm__merge *queue;    /* [2 * (max_text + 1)] a heap: the smallest key first. Every symbol but
                            one begins with a candidate, a merge takes one and adds two at most */
    size_t n_queue;
    unsigned char *text; /* [max_text + 1] SPM: spaces for U+2581, one more in front */
    int32_t *ids;        /* of the call that runs */
    int max_ids, n_ids;
};

static void sm__queue_push(sm_tokenizer *t, uint64_t key, uint32_t n, int32_t id) {
    size_t at = t->n_queue++;
    sm__merge *q = t->queue;
    for (; at > 0 && key < q[(at - 1) / 2].key; at = (at - 1) / 2) q[at] = q[(at - 1) / 2];
    q[at].key = key;
    q[at].n = n;
    q[at].id = id;
}

static sm__merge sm__queue_pop(sm_tokenizer *t) {
    sm__merge *q = t->queue, top = q[0], last = q[--t->n_queue];
    size_t at = 0, child;
    for (; (child = 2 * at + 1) < t->n_queue; at = child) {
        if (child + 1 < t->n_queue && q[child + 1].key < q[child].key) child++;
        if (last.key <= q[child].key) break;
        q[at] = q[child];
    }
    q[at] = last;
    return top;
}

/* Puts the pair (left, the symbol after it) of text s into the queue when it can merge. */
static void sm__pair_try(sm_tokenizer *t, const unsigned char *s, int32_t left) {
    const struct sm__vocab_tables *v = t->model->vocab.tables;
    const sm__symbol *a = &t->symbols[left], *b;
    uint32_t n, order;
    int32_t id;
    if (a->next < 0) return;
    b = &t->symbols[a->next];
    n = a->n + b->n;
    if (v->pairs) {
        const sm__pair *pair = a->id < 0 || b->id < 0 ? NULL : sm__pair_find(v, a->id, b->id);
        if (!pair || pair->left < 0) return;
        id = pair->merged;
        order = pair->rank;
    } else {
        if (n > t->model->vocab.max_token_bytes) return;
        id = sm__text_find(v, s + left, n);
        if (id < 0) return;
        order = v->order[id];
    }
    sm__queue_push(t, (uint64_t)order << 32 | (uint32_t)left, n, id);
}

/* Merges the chain of symbols that begins at place 0 of text s until no pair is left. */
static void sm__symbols_merge(sm_tokenizer *t, const unsigned char *s) {
    int32_t at;
    t->n_queue = 0;
    for (at = 0; at >= 0; at = t->symbols[at].next) sm__pair_try(t, s, at);
    while (t->n_queue) {
        sm__merge merge = sm__queue_pop(t);
        int32_t left = (int32_t)(merge.key & 0xFFFFFFFFu), right = t->symbols[left].next;
        sm__symbol *a = &t->symbols[left], *b;
        if (a->n == 0 || right < 0) continue;
        b = &t->symbols[right];
        if (a->n + b->n != merge.n) continue;
        a->n = merge.n;
        a->id = merge.id;
        a->next = b->next;
        b->n = 0;
        if (a->next >= 0) t->symbols[a->next].prev = left;
        if (a->prev >= 0) sm__pair_try(t, s, a->prev);
        sm__pair_try(t, s, left);
    }
}

static void sm__emit(sm_tokenizer *t, int32_t id) {
    if (id < 0) return;
    if (t->n_ids < t->max_ids) t->ids[t->n_ids] = id;
    t->n_ids++;
}

/* What has no token of its own: its bytes when all of them have one, else the unknown id; nothing
 * when the vocabulary has neither. */
static void sm__emit_bytes(sm_tokenizer *t, const unsigned char *s, size_t n) {
    const sm__vocab *v = &t->model->vocab;
    size_t i;
    for (i = 0; i < n; i++)
        if (v->tables->byte_id[s[i]] < 0) {
            sm__emit(t, v->unk);
            return;
        }
    for (i = 0; i < n; i++) sm__emit(t, v->tables->byte_id[s[i]]);
}

static void sm__spm_word(sm_tokenizer *t, const unsigned char *s, size_t n) {
    const struct sm__vocab_tables *tables = t->model->vocab.tables;
    size_t at = 0;
    int32_t prev = -1, i;
    while (at < n) {
        size_t length = sm__char_at(s, n, at).length;
        sm__symbol *symbol = &t->symbols[at];
        symbol->prev = prev;
        symbol->n = (uint32_t)length;
        symbol->id = -1;
        prev = (int32_t)at;
        at += length;
        symbol->next = at < n ? (int32_t)at : -1;
    }
    sm__symbols_merge(t, s);
    for (i = 0; i >= 0; i = t->symbols[i].next) {
        int32_t id = t->symbols[i].id;
        if (id < 0) id = sm__text_find(tables, s + i, t->symbols[i].n);
        if (id >= 0) sm__emit(t, id);
        else sm__emit_bytes(t, s + i, t->symbols[i].n);
    }
}

/* A piece of text between special tokens. SentencePiece merges the piece as a whole; when no token
 * has a space inside, nothing can merge across the start of a word, and word by word gives the same
 * ids with a queue that stays in the cache. */
static void sm__spm_encode(sm_tokenizer *t, const unsigned char *s, size_t n) {
    const sm__vocab *v = &t->model->vocab;
    unsigned char *text = t->text;
    size_t used = 0, start = 0, end;
    if (n == 0) return;
    if (v->tables->space_prefix) text[used++] = ' ';
    if (v->plain_spaces) {
        memcpy(text + used, s, n);
        used += n;
    } else used += sm__spaces_decode((const char *)s, n, text + used);
    for (; start < used; start = end) {
        end = v->tables->space_inside ? used : start + 1;
        while (end < used && (text[end] != ' ' || text[end - 1] == ' ')) end++;
        sm__spm_word(t, text + start, end - start);
    }
}

/* One word of a byte-level vocabulary. */
static void sm__bpe_word(sm_tokenizer *t, const unsigned char *s, size_t n) {
    const sm__vocab *v = &t->model->vocab;
    const struct sm__vocab_tables *tables = v->tables;
    int32_t i, count = (int32_t)n;
    if ((tables->pre->flags & SM__PRE_WHOLE) && n <= v->max_token_bytes) {
        int32_t id = sm__text_find(tables, s, n);
        if (id >= 0) {
            sm__emit(t, id);
            return;
        }
    }
    for (i = 0; i < count; i++) {
        sm__symbol *symbol = &t->symbols[i];
        symbol->prev = i - 1;
        symbol->next = i + 1 < count ? i + 1 : -1;
        symbol->n = 1;
        symbol->id = tables->byte_id[s[i]];
    }
    sm__symbols_merge(t, s);
    for (i = 0; i >= 0; i = t->symbols[i].next)
        sm__emit(t, t->symbols[i].id >= 0 ? t->symbols[i].id : v->unk);
}

static void sm__bpe_encode(sm_tokenizer *t, const unsigned char *s, size_t n) {
    size_t at = 0, length, piece = 0;
    for (; at < n; at += length) {
        length = sm__word_next(t->model->vocab.tables->pre, s + at, n - at, &piece);
        sm__bpe_word(t, s + at, length);
    }
}

/* --- Special tokens in text ------------------------------------------------------------------- */

/* The first of specials[low, high) whose byte number `depth` is not below b. */
static int sm__special_bound(const struct sm__vocab_tables *t, int low, int high, size_t depth,
                             int b) {
    while (low < high) {
        int middle = low + (high - low) / 2;
        if ((unsigned char)sm__token_str(t, t->specials[middle]).p[depth] < b) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* The longest special token at the start of s [n], or -1: the sorted list is narrowed byte by byte.
 * `all` = 0: user-defined ones only. */
static int32_t sm__special_at(const sm__vocab *v, const unsigned char *s, size_t n, int all) {
    const struct sm__vocab_tables *t = v->tables;
    int low = t->special_first[s[0]], high = t->special_first[s[0] + 1];
    int32_t best = -1;
    size_t depth = 1;
    while (low < high) {
        int32_t id = t->specials[low];
        if (sm__token_str(t, id).n == depth) { /* a beginning of the others: it sorts first */
            if (all || v->kinds[id] == SM__TOKEN_USER) best = id;
            low++;
        } else {
            if (depth == n) break;
            low = sm__special_bound(t, low, high, depth, s[depth]);
            high = sm__special_bound(t, low, high, depth, s[depth] + 1);
            depth++;
        }
    }
    return best;
}

/* The place of the next special token in s [n], from `at`; n when there is none. */
static size_t sm__special_next(const sm__vocab *v, const unsigned char *s, size_t n, size_t at,
                               int all, int32_t *id) {
    int starts = all ? 3 : 1;
    for (; at < n; at++) {
        if (!(v->tables->special_start[s[at]] & starts)) continue;
        *id = sm__special_at(v, s + at, n - at, all);
        if (*id >= 0) return at;
    }
    return n;
}

/* --- The public functions --------------------------------------------------------------------- */

static size_t sm__tokenizer_layout(sm_tokenizer *t, size_t max_text, void *memory) {
    sm__arena arena = {NULL, 0, 0};
    sm_tokenizer scratch;
    if (max_text > SM__MAX_TEXT) return 0;
    arena.base = (unsigned char *)memory;
    if (!t) t = &scratch;
    sm__arena_take(&arena, 1, sizeof *t);
    t->symbols = (sm__symbol *)sm__arena_take(&arena, max_text + 1, sizeof *t->symbols);
    t->queue = (sm__merge *)sm__arena_take(&arena, max_text + 1, 2 * sizeof *t->queue);
    t->text = (unsigned char *)sm__arena_take(&arena, max_text + 1, 1);
    return arena.overflow ? 0 : arena.used;
}

/* Bytes of a tokenizer for texts of max_text bytes; 0 = no vocabulary, or too much text. */
static size_t sm__tokenizer_bytes(const sm_model *m, size_t max_text) {
    return m->vocab.tables ? sm__tokenizer_layout(NULL, max_text, NULL) : 0;
}

/* A tokenizer in memory of that many bytes, 64-byte aligned, that somebody else owns. */
static sm_tokenizer *sm__tokenizer_place(const sm_model *m, size_t max_text, void *memory) {
    sm_tokenizer *t = (sm_tokenizer *)memory;
    memset(t, 0, sizeof *t);
    t->model = m;
    t->max_text = max_text;
    sm__tokenizer_layout(t, max_text, memory);
    return t;
}

SM_API sm_status sm_tokenizer_create(const sm_model *model, size_t max_text_bytes,
                                     const sm_allocator *allocator, sm_tokenizer **tokenizer,
                                     sm_error *error) {
    sm__heap heap;
    void *memory;
    size_t bytes;
    if (!tokenizer) return sm__fail(error, SM_ERR_ARG, "tokenizer: nowhere to put it");
    *tokenizer = NULL;
    if (!model || (allocator && !sm__allocator_ok(allocator)))
        return sm__fail(error, SM_ERR_ARG, "tokenizer: %s",
                        model ? "the allocator is half a one" : "no model");
    if (!model->vocab.tables)
        return sm__fail(error, SM_ERR_UNSUPPORTED, "tokenizer: the model has no vocabulary");
    bytes = sm__tokenizer_bytes(model, max_text_bytes);
    if (!bytes)
        return sm__fail(error, SM_ERR_ARG, "tokenizer: texts of more than %u bytes",
                        (unsigned)SM__MAX_TEXT);
    heap = sm__heap_make(allocator);
    memory = sm__heap_alloc(&heap, bytes);
    if (!memory)
        return sm__fail(error, SM_ERR_NOMEM, "tokenizer: no memory for %llu bytes",
                        (unsigned long long)bytes);
    *tokenizer = sm__tokenizer_place(model, max_text_bytes, memory);
    (*tokenizer)->heap = heap;
    return SM_OK;
}

/* A tokenizer inside a context is the context's: its heap holds nothing, and this does nothing. */
SM_API void sm_tokenizer_destroy(sm_tokenizer *tokenizer) {
    sm__heap heap;
    if (!tokenizer || !tokenizer->heap.bytes) return;
    heap = tokenizer->heap;
    sm__heap_free(&heap, tokenizer);
}

/* Text is cut at special tokens, the longest at the leftmost place first. SPM's space goes in front
 * of what begins the text or follows a special token, as llama.cpp has it. */
static void sm__encode(sm_tokenizer *t, const unsigned char *s, size_t n, int flags) {
    const sm__vocab *v = &t->model->vocab;
    size_t at = 0;
    if ((flags & SM_TEXT_BOS) && v->tables->add_bos) sm__emit(t, v->bos);
    while (at < n) {
        int32_t id = -1;
        size_t next = sm__special_next(v, s, n, at, (flags & SM_TEXT_SPECIAL) != 0, &id);
        if (v->kind == SM__VOCAB_SPM) sm__spm_encode(t, s + at, next - at);
        else sm__bpe_encode(t, s + at, next - at);
        if (id < 0) break;
        sm__emit(t, id);
        at = next + sm__token_str(v->tables, id).n;
    }
}

SM_API sm_status sm_tokenize(sm_tokenizer *tokenizer, const char *text, size_t bytes, int flags,
                             int32_t *ids, int max, int *n_ids) {
    if (n_ids) *n_ids = 0;
    if (!tokenizer || (bytes && !text) || max < 0 || (max && !ids)) return SM_ERR_ARG;
    if (bytes > tokenizer->max_text) return SM_ERR_FULL;
    tokenizer->ids = ids;
    tokenizer->max_ids = max;
    tokenizer->n_ids = 0;
    sm__encode(tokenizer, (const unsigned char *)text, bytes, flags);
    tokenizer->ids = NULL;
    if (n_ids) *n_ids = tokenizer->n_ids;
    return tokenizer->n_ids > max && ids ? SM_ERR_FULL : SM_OK;
}

SM_API const char *sm_token_text(const sm_model *model, int32_t id, size_t *bytes) {
    sm__str s;
    if (bytes) *bytes = 0;
    if (!model || !model->vocab.tables || id < 0 || id >= model->vocab.n) return NULL;
    s = sm__token_str(model->vocab.tables, id);
    if (bytes) *bytes = s.n;
    return s.p;
}

SM_API int sm_token_is_end(const sm_model *model, int32_t id) {
    if (!model || id < 0) return 0;
    if (id == model->vocab.eos || id == model->vocab.eot) return 1; /* also without a vocabulary */
    if (!model->vocab.tables || id >= model->vocab.n) return 0;
    return model->vocab.tables->ends[id >> 3] >> (id & 7) & 1;
}

/* Where decoded text goes: whole characters until one does not fit, then they are only counted. */
typedef struct sm__sink {
    char *out;
    size_t max, n; /* n counts on beyond max */
    size_t written;
} sm__sink;

static void sm__sink_put(sm__sink *sink, const void *bytes, size_t n) {
    if (sink->n == sink->written && n <= sink->max - sink->n) {
        memcpy(sink->out + sink->n, bytes, n);
        sink->written += n;
    }
    sink->n += n;
}

/* Bytes of a token through the decoder: a character goes out when its last byte came; one U+FFFD
 * for every maximal subpart of what is no character (see sm__utf8_read). */
static void sm__decoder_bytes(sm_decoder *d, const char *s, size_t n, sm__sink *sink) {
    size_t i;
    uint32_t code;
    for (i = 0; i < n; i++) {
        d->tail[d->n_tail++] = (unsigned char)s[i];
        while (d->n_tail) {
            int used = sm__utf8_read(d->tail, (size_t)d->n_tail, &code);
            if (used == 0) break;
            if (used > 0) sm__sink_put(sink, d->tail, (size_t)used);
            else {
                sm__sink_put(sink, sm__bad_text, 3);
                used = -used;
            }
            d->n_tail -= used;
            memmove(d->tail, d->tail + used, (size_t)d->n_tail);
        }
    }
}

/* A token through the decoder. Control and unknown tokens are silent unless SM_TEXT_RAW. The space
 * that SPM puts in front of a text is taken off the first token that has text. */
static void sm__decoder_token(sm_decoder *d, const sm_model *m, int32_t id, int flags,
                              sm__sink *sink) {
    sm__str s = sm__token_str(m->vocab.tables, id);
    int kind = m->vocab.kinds[id];
    if ((kind == SM__TOKEN_CONTROL || kind == SM__TOKEN_UNKNOWN) && !(flags & SM_TEXT_RAW)) return;
    if (s.n == 0) return;
    if (!d->started && m->vocab.tables->space_prefix && s.p[0] == ' ' && !sm__is_special(kind)) {
        s.p++;
        s.n--;
    }
    d->started = 1;
    sm__decoder_bytes(d, s.p, s.n, sink);
}

SM_API void sm_decoder_init(sm_decoder *decoder) { memset(decoder, 0, sizeof *decoder); }

SM_API sm_status sm_decoder_push(sm_decoder *decoder, const sm_model *model, int32_t id, int flags,
                                 char *out, size_t max, size_t *bytes) {
    sm__sink sink = {NULL, 0, 0, 0};
    sm_decoder after;
    if (bytes) *bytes = 0;
    if (!decoder || (max && !out) || decoder->n_tail < 0 || decoder->n_tail > 3 ||
        !sm_token_text(model, id, NULL))
        return SM_ERR_ARG;
    after = *decoder;
    sm__decoder_token(&after, model, id, flags, &sink); /* counts */
    if (sink.n > max) return SM_ERR_FULL;
    sink.out = out;
    sink.max = max;
    sink.n = 0;
    sm__decoder_token(decoder, model, id, flags, &sink);
    if (bytes) *bytes = sink.n;
    return SM_OK;
}

SM_API size_t sm_decoder_flush(sm_decoder *decoder, char *out, size_t max) {
    if (!decoder || !decoder->n_tail || !out || max < 3) return 0;
    memcpy(out, sm__bad_text, 3);
    decoder->n_tail = 0;
    return 3;
}

SM_API sm_status sm_detokenize(const sm_model *model, const int32_t *ids, int n, int flags,
                               char *text, size_t max, size_t *bytes) {
    sm__sink sink = {NULL, 0, 0, 0};
    sm_decoder decoder;
    int i;
    if (bytes) *bytes = 0;
    if (n < 0 || (n && !ids) || (max && !text)) return SM_ERR_ARG;
    for (i = 0; i < n; i++)
        if (!sm_token_text(model, ids[i], NULL)) return SM_ERR_ARG;
    sink.out = text;
    sink.max = max ? max - 1 : 0; /* room for the NUL */
    sm_decoder_init(&decoder);
    for (i = 0; i < n; i++) sm__decoder_token(&decoder, model, ids[i], flags, &sink);
    if (decoder.n_tail) sm__sink_put(&sink, sm__bad_text, 3);
    if (max) text[sink.written] = 0;
    if (bytes) *bytes = sink.n;
    return text && (sink.n > sink.max || !max) ? SM_ERR_FULL : SM_OK;
}

/* ================================================================================================
 * MARK: [SM35] TAPE
 * The forward pass as data. sm__tape_emit walks the architecture row once and appends steps; while
 * it does, buffers are taken and dropped, so that their lifetimes give the scratch plan. Each step
 * is cut into tiles by sm__step_shape for the rows at hand; sm__step_tile does one tile.
 *
 *   EMBED    x[t] = row of the embedding (+ learned position)
 *   ROTARY   cos and sin of every pair's angle at the row's position, used by all layers
 *   NORM     x -> normed row (or x itself), f32 and/or int8 blocks
 *   MATMUL   up to three weights that read the same input (q k v; gate up); may add into x. Where
 *            adapters may come, two more behind it: lora_a (A x, times the scale) and lora_b, which
 *            adds B times that. They have weights, and so tiles, while an adapter is set
 *   KV_PUT   q and k: head norm, rotation; k and v into the cache
 *   ATTEND   softmax(q k^T) v by parts of 256 keys, those that no row's window reaches left out
 *   MERGE    the parts joined in order, divided by the sum, quantised
 *   ACT      SwiGLU or GELU, quantised
 *   ADD      x += scale * norm(y), where a product is not simply added
 *   LOGITS   MATMUL into the rented rows; scale and soft cap
 * ============================================================================================== */

enum {
    SM__OP_EMBED,
    SM__OP_ROTARY,
    SM__OP_NORM,
    SM__OP_MATMUL,
    SM__OP_KV_PUT,
    SM__OP_ATTEND,
    SM__OP_MERGE,
    SM__OP_ACT,
    SM__OP_ADD,
    SM__OP_LOGITS
};

/* A buffer in scratch: row r begins at + r * stride (bytes). */
typedef struct sm__buf {
    size_t at, stride;
    int width; /* floats (or bytes of q) used of a row */
} sm__buf;

/* A matmul's input: f32 rows, and their int8 blocks of 32 and of 256 elements, each when a weight
 * wants them (q.stride != 0). */
typedef struct sm__act_buf {
    sm__buf x;
    struct {
        sm__buf q, d, s;
    } blocks[2];
} sm__act_buf;

typedef struct sm__step {
    const char *name;
    uint8_t op, accumulate, wanted_rows; /* wanted_rows: only rows whose logits are wanted */
    uint8_t local;   /* ROTARY: the angles of windowed layers */
    uint8_t lora;    /* 1: this is lora_a; the matmul is the step before, lora_b the one behind */
    uint8_t finish;  /* LOGITS: scale and soft cap belong to this step */
    int layer;
    int window;      /* ATTEND, MERGE: keys that a row sees, its own included; 0 = all */
    sm__act_buf in;  /* MATMUL, LOGITS: input. ATTEND, KV_PUT: in.x = q. ADD: in.x = y */
    sm__act_buf out; /* NORM, MERGE, ACT: output. EMBED, ROTARY, ADD: out.x */
    sm__buf k, v;    /* KV_PUT: projections. ACT: k = up. ATTEND, MERGE: k = (m, s) pairs */
    sm__buf dst[3];
    const sm__weight *w[3];
    int n_w, in_step; /* in_step: floats from the input of a weight to that of the next one */
    const float *norm, *norm_bias, *k_norm;
    /* shape for the rows at hand, set by sm__step_shape */
    uint32_t tiles, phases;
    int tile_n, tile_t;
    uint64_t run_ns; /* estimate of one run */
    /* profile */
    uint64_t calls, ns, bytes, ops;
} sm__step;

typedef struct sm__emitter {
    const sm_model *model;
    sm__step *steps; /* NULL: count only, into dummy */
    sm__step dummy;
    int n_steps;
    size_t rows, wanted_rows; /* of a buffer */
    int max_lora_rank;
    sm__buf low; /* A x of up to three weights; stride 0: there will be no adapter */
    struct {
        size_t at, end;
    } live[24]; /* sorted by address */
    int n_live;
    size_t peak;
    int overflow;
} sm__emitter;

/* First fit among the live buffers; remembers the peak. */
static size_t sm__emit_take(sm__emitter *e, size_t rows, size_t stride) {
    size_t bytes, at = 0;
    int i, j;
    if (sm__mul_size(rows, stride, &bytes) || bytes > SIZE_MAX / 4) {
        e->overflow = 1;
        return 0;
    }
    bytes = sm__round_up(bytes, SM__ALIGN);
    for (i = 0; i < e->n_live && e->live[i].at - at < bytes; i++) at = e->live[i].end;
    SMALLMIND_ASSERT(e->n_live < 24);
    for (j = e->n_live++; j > i; j--) e->live[j] = e->live[j - 1];
    e->live[i].at = at;
    e->live[i].end = at + bytes;
    if (at + bytes > e->peak) e->peak = at + bytes;
    if (e->peak > SIZE_MAX / 4) e->overflow = 1;
    return at;
}

static void sm__emit_drop(sm__emitter *e, sm__buf buf) {
    int i;
    if (!buf.stride) return;
    for (i = 0; i < e->n_live && e->live[i].at != buf.at; i++) {
    }
    if (i == e->n_live) return;
    e->n_live--;
    for (; i < e->n_live; i++) e->live[i] = e->live[i + 1];
}

static sm__buf sm__emit_buf(sm__emitter *e, int wanted, int width, size_t elem_bytes) {
    sm__buf buf;
    buf.width = width;
    buf.stride = sm__round_up((size_t)width * elem_bytes, SM__ALIGN);
    /* Rows at the same place of their pages would push each other out of the caches. */
    if (buf.stride % 1024 == 0) buf.stride += SM__ALIGN;
    buf.at = sm__emit_take(e, wanted ? e->wanted_rows : e->rows, buf.stride);
    return buf;
}

static sm__buf sm__no_buf(void) {
    sm__buf none = {0, 0, 0};
    return none;
}

/* The int8 blocks beside x that the n weights which will read it want. */
static sm__act_buf sm__emit_acts(sm__emitter *e, int wanted, sm__buf x,
                                 const sm__weight *const *readers, int n) {
    sm__act_buf acts;
    int i, j;
    memset(&acts, 0, sizeof acts);
    acts.x = x;
    for (j = 0; j < 2; j++) {
        int block = j ? SM__QK_K : SM__QK;
        for (i = 0; i < n; i++)
            if (readers[i]->data && sm__types[readers[i]->type].act_block == block) break;
        if (i == n) continue;
        acts.blocks[j].q = sm__emit_buf(e, wanted, x.width, 1);
        acts.blocks[j].d = sm__emit_buf(e, wanted, x.width / block, sizeof(float));
        acts.blocks[j].s = sm__emit_buf(e, wanted, x.width / 16, sizeof(int16_t));
    }
    return acts;
}

static void sm__emit_drop_acts(sm__emitter *e, sm__act_buf acts) {
    int j;
    sm__emit_drop(e, acts.x);
    for (j = 0; j < 2; j++) {
        sm__emit_drop(e, acts.blocks[j].q);
        sm__emit_drop(e, acts.blocks[j].d);
        sm__emit_drop(e, acts.blocks[j].s);
    }
}

static sm__step *sm__emit_step(sm__emitter *e, int op, const char *name, int layer) {
    sm__step *s = e->steps ? &e->steps[e->n_steps] : &e->dummy;
    e->n_steps++;
    memset(s, 0, sizeof *s);
    s->op = (uint8_t)op;
    s->name = name;
    s->layer = layer;
    return s;
}

/* in -> up to three outputs; with `into` the one product is added to that buffer's rows. */
static sm__step *sm__emit_matmul(sm__emitter *e, const char *name, int layer, sm__act_buf in,
                                 const sm__weight *w0, sm__buf dst0) {
    sm__step *s = sm__emit_step(e, SM__OP_MATMUL, name, layer);
    s->in = in;
    s->w[0] = w0;
    s->dst[0] = dst0;
    s->n_w = 1;
    return s;
}

static void sm__matmul_also(sm__step *s, const sm__weight *w, sm__buf dst) {
    s->w[s->n_w] = w;
    s->dst[s->n_w++] = dst;
}

/* Floats of a weight's part of the low rows. */
static int sm__low_step(int rank) { return (int)sm__round_up((size_t)rank, 16); }

/* What an adapter will add to a matmul; its input is still there. */
static void sm__emit_lora(sm__emitter *e, const sm__step *matmul) {
    sm__step of = *matmul, *s;
    if (!e->low.stride) return;
    s = sm__emit_step(e, SM__OP_MATMUL, "lora_a", of.layer);
    s->lora = 1;
    s->in.x = of.in.x;
    s->wanted_rows = of.wanted_rows;
    s = sm__emit_step(e, of.op, "lora_b", of.layer);
    s->in.x = e->low;
    s->in_step = sm__low_step(e->max_lora_rank);
    s->accumulate = 1;
    s->wanted_rows = of.wanted_rows;
}

/* norm(x), or without a norm x, for n weights that read it. */
static sm__act_buf sm__emit_norm(sm__emitter *e, const char *name, int layer, int wanted, sm__buf x,
                                 const float *norm, const float *bias,
                                 const sm__weight *const *readers, int n) {
    sm__buf y = sm__emit_buf(e, wanted, x.width, sizeof(float));
    sm__act_buf out = sm__emit_acts(e, wanted, y, readers, n);
    sm__step *s = sm__emit_step(e, SM__OP_NORM, name, layer);
    s->wanted_rows = (uint8_t)wanted;
    s->in.x = x;
    s->out = out;
    s->norm = norm;
    s->norm_bias = bias;
    return out;
}

/* What reads y: w, through a norm of its own where the family has one. */
static sm__act_buf sm__emit_sub_norm(sm__emitter *e, const char *name, int layer, sm__act_buf y,
                                     const float *norm, const sm__weight *w) {
    sm__act_buf out;
    if (!norm) return y;
    out = sm__emit_norm(e, name, layer, 0, y.x, norm, NULL, &w, 1);
    sm__emit_drop_acts(e, y);
    return out;
}

/* x += scale * post_norm(w in): by the product itself where there is neither. Drops `in`. */
static void sm__emit_residual(sm__emitter *e, const char *name, int layer, sm__act_buf in,
                              const sm__weight *w, const float *post_norm, sm__buf x) {
    int plain = !post_norm && e->model->hp.residual_scale == 1.0;
    sm__buf y = plain ? x : sm__emit_buf(e, 0, x.width, sizeof(float));
    sm__step *s = sm__emit_matmul(e, name, layer, in, w, y);
    s->accumulate = (uint8_t)plain;
    sm__emit_lora(e, s);
    sm__emit_drop_acts(e, in);
    if (plain) return;
    s = sm__emit_step(e, SM__OP_ADD, "add", layer);
    s->in.x = y, s->out.x = x, s->norm = post_norm;
    sm__emit_drop(e, y);
}

/* What all layers share: x, cos and sin of full and of windowed layers, scratch of split
 * attention. */
typedef struct sm__emit_bufs {
    sm__buf x, rotary[2], parts;
} sm__emit_bufs;

/* x += attention(in). Keeps `in` for others when asked to. */
static void sm__emit_attention(sm__emitter *e, int il, const sm__emit_bufs *b, sm__act_buf in,
                               int keep) {
    const sm__hparams *hp = &e->model->hp;
    const sm__layer *l = &e->model->weights->layers[il];
    const sm__weight *reader = &l->attn_out;
    int q_dim = hp->n_heads * hp->head_dim, kv_dim = hp->n_kv_heads * hp->head_dim;
    int window = sm__layer_window(hp, il);
    sm__buf q = sm__emit_buf(e, 0, q_dim, sizeof(float));
    sm__buf k = sm__emit_buf(e, 0, kv_dim, sizeof(float));
    sm__buf v = sm__emit_buf(e, 0, kv_dim, sizeof(float)), o, ms;
    sm__act_buf out;
    sm__step *s = sm__emit_matmul(e, "qkv", il, in, &l->q, q);
    sm__matmul_also(s, &l->k, k);
    sm__matmul_also(s, &l->v, v);
    sm__emit_lora(e, s);
    if (!keep) sm__emit_drop_acts(e, in);

    s = sm__emit_step(e, SM__OP_KV_PUT, "kv_put", il);
    s->in.x = q, s->k = k, s->v = v;
    if (!sm__layer_bit(hp->bare, il)) s->out.x = b->rotary[window && hp->local_base != 0.0];
    s->norm = l->q_norm, s->k_norm = l->k_norm;
    sm__emit_drop(e, k);
    sm__emit_drop(e, v);

    o = sm__emit_buf(e, 0, q_dim, sizeof(float));
    ms = sm__emit_buf(e, 0, hp->n_heads * 2, sizeof(float));
    s = sm__emit_step(e, SM__OP_ATTEND, "attend", il);
    s->in.x = q, s->out.x = o, s->k = ms, s->v = b->parts, s->window = window;
    sm__emit_drop(e, q);

    out = sm__emit_acts(e, 0, o, &reader, l->attn_sub_norm ? 0 : 1);
    s = sm__emit_step(e, SM__OP_MERGE, "merge", il);
    s->out = out, s->k = ms, s->v = b->parts, s->window = window;
    sm__emit_drop(e, ms);
    out = sm__emit_sub_norm(e, "attn_sub_norm", il, out, l->attn_sub_norm, reader);
    sm__emit_residual(e, "attn_out", il, out, reader, l->attn_post_norm, b->x);
}

/* x += ffn(in) */
static void sm__emit_ffn(sm__emitter *e, int il, const sm__emit_bufs *b, sm__act_buf in) {
    const sm__hparams *hp = &e->model->hp;
    const sm__layer *l = &e->model->weights->layers[il];
    const sm__weight *reader = &l->down;
    int gated = sm__ffn_gated(hp->ffn);
    sm__buf up = sm__emit_buf(e, 0, hp->n_ff, sizeof(float)), gate = sm__no_buf();
    sm__act_buf out;
    sm__step *s = sm__emit_matmul(e, gated ? "gate_up" : "up", il, in, &l->up, up);
    if (gated) {
        gate = sm__emit_buf(e, 0, hp->n_ff, sizeof(float));
        sm__matmul_also(s, &l->gate, gate);
    }
    sm__emit_lora(e, s);
    sm__emit_drop_acts(e, in);
    out = sm__emit_acts(e, 0, up, &reader, l->ffn_sub_norm ? 0 : 1);
    s = sm__emit_step(e, SM__OP_ACT, "act", il);
    s->in.x = up, s->k = gate, s->out = out;
    sm__emit_drop(e, gate);
    out = sm__emit_sub_norm(e, "ffn_sub_norm", il, out, l->ffn_sub_norm, reader);
    sm__emit_residual(e, "ffn_out", il, out, reader, l->ffn_post_norm, b->x);
}

/* A layer: attention, then the MLP, which reads the new x or, in parallel, the old one. */
static void sm__emit_layer(sm__emitter *e, int il, const sm__emit_bufs *b) {
    const sm__layer *l = &e->model->weights->layers[il];
    int parallel = e->model->hp.parallel, shared = parallel && !l->ffn_norm;
    const sm__weight *readers[5];
    sm__act_buf in, ffn_in;
    readers[0] = &l->q, readers[1] = &l->k, readers[2] = &l->v;
    readers[3] = &l->up, readers[4] = &l->gate;
    in = sm__emit_norm(e, "attn_norm", il, 0, b->x, l->attn_norm, l->attn_norm_bias, readers,
                       shared ? 5 : 3);
    ffn_in = in;
    if (parallel && !shared)
        ffn_in = sm__emit_norm(e, "ffn_norm", il, 0, b->x, l->ffn_norm, l->ffn_norm_bias,
                               readers + 3, 2);
    sm__emit_attention(e, il, b, in, shared);
    if (!parallel)
        ffn_in = sm__emit_norm(e, "ffn_norm", il, 0, b->x, l->ffn_norm, l->ffn_norm_bias,
                               readers + 3, 2);
    sm__emit_ffn(e, il, b, ffn_in);
}

static sm__buf sm__emit_rotary(sm__emitter *e, int local) {
    sm__buf rotary = sm__emit_buf(e, 0, e->model->hp.n_rot, sizeof(float));
    sm__step *s = sm__emit_step(e, SM__OP_ROTARY, "rotary", -1);
    s->out.x = rotary, s->local = (uint8_t)local;
    return rotary;
}

/* The whole model. parts_bytes: for split attention (see sm__op_attend). */
static void sm__tape_emit(sm__emitter *e, size_t parts_bytes) {
    const sm__hparams *hp = &e->model->hp;
    const sm__weights *w = e->model->weights;
    const sm__weight *reader = &w->output;
    sm__emit_bufs b;
    sm__act_buf last;
    sm__step *s;
    int il;
    memset(&b, 0, sizeof b);
    b.x = sm__emit_buf(e, 0, hp->n_embd, sizeof(float));
    b.parts.stride = parts_bytes;
    b.parts.at = sm__emit_take(e, 1, parts_bytes);
    e->low = sm__no_buf();
    if (e->max_lora_rank)
        e->low = sm__emit_buf(e, 0, 3 * sm__low_step(e->max_lora_rank), sizeof(float));
    s = sm__emit_step(e, SM__OP_EMBED, "embed", -1);
    s->out.x = b.x;
    if (hp->pos != SM__POS_LEARNED) b.rotary[0] = sm__emit_rotary(e, 0);
    if (hp->pos != SM__POS_LEARNED && hp->local_base != 0.0) b.rotary[1] = sm__emit_rotary(e, 1);
    for (il = 0; il < hp->n_layers; il++) sm__emit_layer(e, il, &b);
    last = sm__emit_norm(e, "output_norm", -1, 1, b.x, w->output_norm, w->output_norm_bias, &reader,
                         1);
    s = sm__emit_step(e, SM__OP_LOGITS, "logits", -1);
    s->wanted_rows = 1;
    s->in = last;
    s->w[0] = reader;
    s->n_w = 1;
    s->finish = 1;
    sm__emit_lora(e, s);
}

/* --- rotary frequencies ----------------------------------------------------------------------- */

/* The angle of pair i at position p is p * freq[i]; cos and sin are multiplied by *magnitude. */
static double sm__yarn_pair(const sm__hparams *hp, double rotations) {
    double at = hp->original_ctx / (rotations * 6.283185307179586);
    return hp->n_rot * sm__log_double(at) / (2.0 * sm__log_double(hp->rope_base));
}

/* Frequencies are interpolated fully above the pair that turns beta_slow times over the original
 * context, not at all below the one that turns beta_fast times (Peng et al. 2023,
 * arXiv:2309.00071). */
static void sm__rope_yarn(const sm__hparams *hp, double *freq, double *magnitude) {
    double low = sm__yarn_pair(hp, hp->beta_fast), high = sm__yarn_pair(hp, hp->beta_slow);
    int i;
    low = low < 0 ? 0 : (double)(int)low;
    high = high < 0 ? 0 : (double)((int)high + (high > (int)high));
    if (high > hp->n_rot - 1) high = hp->n_rot - 1;
    for (i = 0; i < hp->n_rot / 2; i++) {
        double span = high - low < 0.001 ? 0.001 : high - low, ramp = (i - low) / span;
        ramp = (ramp < 0 ? 1 : ramp > 1 ? 0 : 1 - ramp) * hp->ext_factor;
        freq[i] = freq[i] / hp->scaling_factor * (1 - ramp) + freq[i] * ramp;
    }
    *magnitude = hp->attn_factor > 0 ? hp->attn_factor
                                     : 1.0 + 0.1 * sm__log_double(hp->scaling_factor);
}

/* Long wavelengths are interpolated, short ones kept, with a smooth step between (Llama 3.1). */
static void sm__rope_llama3(const sm__hparams *hp, double *freq) {
    int i;
    for (i = 0; i < hp->n_rot / 2; i++) {
        double turns = hp->original_ctx * freq[i] / 6.283185307179586;
        double smooth =
            (turns - hp->low_freq_factor) / (hp->high_freq_factor - hp->low_freq_factor);
        smooth = smooth < 0 ? 0 : smooth > 1 ? 1 : smooth;
        freq[i] = freq[i] / hp->scaling_factor * (1 - smooth) + freq[i] * smooth;
    }
}

/* Of a context of n_ctx positions, and of its windowed layers or all others. */
static void sm__rope_frequencies(const sm_model *m, int n_ctx, int local, double *freq,
                                 double *magnitude) {
    const sm__hparams *hp = &m->hp;
    const float *factors = m->weights->rope_factors;
    double log_base = sm__log_double(local ? hp->local_base : hp->rope_base);
    int i;
    *magnitude = !local && hp->attn_factor > 0.0 ? hp->attn_factor : 1.0;
    if (m->weights->long_factors && (double)n_ctx > hp->original_ctx)
        factors = m->weights->long_factors;
    for (i = 0; i < hp->n_rot / 2; i++) {
        freq[i] = sm__exp_double(-2.0 * i / hp->n_rot * log_base);
        if (factors && !local) freq[i] /= (double)factors[i];
    }
    if (local) return;
    if (hp->scaling == SM__SCALING_LINEAR)
        for (i = 0; i < hp->n_rot / 2; i++) freq[i] /= hp->scaling_factor;
    if (hp->scaling == SM__SCALING_YARN) sm__rope_yarn(hp, freq, magnitude);
    if (hp->scaling == SM__SCALING_LLAMA3) sm__rope_llama3(hp, freq);
}

/* ================================================================================================
 * MARK: [SM36] CONTEXT
 * The object that owns a tape and everything it works on, laid out in one block by one function
 * that runs twice: counting (sm_ctx_plan) and placing (sm_ctx_create).
 * ============================================================================================== */

/* A generation, see GENERATION. One per sequence, laid out with its two text buffers behind it. */
struct sm_gen {
    sm_ctx *ctx;
    int seq;
    int32_t *ids; /* [n_ctx + 1] the prompt, then what was generated */
    int n_ids, n_done; /* ids; evaluated ones */
    int pending, end_length; /* a pass is running; the sequence's length after the last one */
    int max_tokens, ignore_end;
    int32_t token;
    sm_sampler sampler;
    uint64_t stream, start;
    sm_gen_stats stats;
    sm_decoder decoder;
    char *text, *piece; /* held back; given out */
    size_t n_text, n_piece;
    int n_stops, n_stop_ids;
    size_t stop_bytes[SMALLMIND_MAX_STOPS];
    char stops[SMALLMIND_MAX_STOPS][SMALLMIND_MAX_STOP_BYTES];
    int32_t stop_ids[SMALLMIND_MAX_STOPS];
};

/* A text buffer takes what is held back, one more token (three bytes for a bad one), and the rest
 * of the decoder. */
static size_t sm__gen_text_bytes(const sm_model *m) {
    return sm__round_up(SMALLMIND_MAX_STOP_BYTES + 3 * m->vocab.max_token_bytes + 32, SM__ALIGN);
}
static size_t sm__gen_bytes(const sm_model *m) {
    return sm__round_up(sizeof(struct sm_gen), SM__ALIGN) + 2 * sm__gen_text_bytes(m);
}

static void sm__pass_help(sm__pass *pass, int slot);

/* Layers that cache alike share a table of blocks: sequence -> blocks of 64 tokens. (Today there is
 * one class, full attention; windowed layers will be another.)
 * A block holds, for each layer of the class and each KV head, keys [D, 64] and values [64, D], as
 * sm__attend_args has them. */
typedef struct sm__kv {
    int n_layers, pool_class;
    int blocks_per_seq;
    int key_type, value_type;                 /* SM__T_ */
    size_t block_bytes, key_bytes, head_bytes; /* of a block; in it one head's keys; with values */
    void **table;                             /* [n_seqs, blocks_per_seq] */
} sm__kv;

/* What a pending pass changed in the table, so that it can be undone. */
typedef struct sm__kv_change {
    int seq, index;
    void *before; /* NULL, or the shared block that was copied */
} sm__kv_change;

/* Rows of the chunk that follow each other in one sequence: they share keys. */
typedef struct sm__group {
    int row, n;
} sm__group;

struct sm_ctx {
    sm__pass pass; /* first: the team's help function finds the context through it */
    const sm_model *model;
    sm_ctx_params params; /* with automatic values filled in */
    sm_plan plan;
    sm__heap heap;
    size_t used_bytes;
    sm_error error;
    sm__kernels kernels;
    sm_team *team;
    int own_team, n_members;

    sm__step *steps;
    int n_steps;
    sm__weight *lora; /* [n_steps, 3] of the steps that compute an adapter; NULL: no room */
    unsigned char *scratch;
    unsigned char *member_scratch; /* [n_members] pieces of member_bytes */
    size_t member_bytes;
    double *rope_freq;       /* [2, n_rot / 2] of all layers, of windowed ones */
    float rope_magnitude[2]; /* of their cos and sin */
    float score_scale;
    int split_rows, max_parts; /* split attention: at most so many rows; parts of a full context */

    sm_pool *pool;
    sm__kv kv;
    int *seq_length; /* [n_seqs] committed tokens */

    /* the batch of the pending pass, [max_batch] each */
    int max_batch, n_batch;
    int32_t *tokens, *seqs;
    int *positions, *logits_row; /* logits_row: index into rows, or -1 */
    float **rows;                       /* [max_logits] rented */
    int n_rows;
    sm__kv_change *changes;
    int n_changes;
    int *seq_new; /* [n_seqs] tokens that the pass adds */

    /* the chunk of the batch that is being evaluated, and the run of the tape */
    int chunk, n_chunk; /* first entry, entries */
    int *wanted;        /* [n_batch rows] chunk rows whose logits are wanted */
    int n_wanted;
    sm__group *groups;
    int n_groups, split, n_parts, phase_parts;
    int window_part; /* the first part that a windowed layer's rows see */
    int shape[5]; /* what the steps were last shaped for */
    uint32_t run, next_run; /* step << 12 | phase */
    uint32_t resume_left;   /* tiles left of next_run, when the walk stands inside a run */
    volatile uint32_t handoff; /* next_run is to be prepared by whoever goes on */
    volatile uint32_t finished, pass_id, cancel_id;
    uint32_t pass_count;
    uint64_t run_start;

    uint64_t n_passes, n_tokens;
    sm_tokenizer *tokenizer;
    unsigned char *gens; /* [n_seqs] pieces of sm__gen_bytes */
    void *sample_work;
    int32_t *gen_ids;    /* [n_seqs, n_ctx + 1] prompt and history of each generation */
    int32_t *prompt_ids; /* [n_ctx + 1] of a prompt that is being looked at */
};

/* Estimated speeds of a level, for cutting tiles only: float and int8 operations, and bytes of
 * weights, per nanosecond; row work in elements per nanosecond. */
typedef struct sm__speed {
    double flops, int_ops, bytes, elems;
} sm__speed;

static const sm__speed sm__speeds[] = {
    {1, 1, 1, 1},       {0.1, 0.8, 0.2, 0.02}, /* auto (unused), scalar */
    {2, 15, 2, 0.1},    {30, 80, 8, 1},        /* sse41, avx2 */
    {60, 250, 10, 2},   {60, 500, 10, 2},      /* avx512, amx */
    {12, 40, 5, 0.5},                          /* neon */
};

#define SM__TILE_NS 70000.0 /* a tile's length: below the 100 us of the contract */

SM_API sm_ctx_params sm_ctx_default(void) {
    sm_ctx_params p;
    memset(&p, 0, sizeof p);
    p.key_type = p.value_type = SM_TYPE_AUTO;
    return p;
}

/* A type of the KV cache, for heads as the model has them. */
static sm_status sm__ctx_kv_type(sm_error *error, const char *name, int *type, int head_dim) {
    if (*type == SM_TYPE_AUTO) *type = SM_TYPE_F16;
    switch (*type) {
    case SM_TYPE_F32:
    case SM_TYPE_F16:
    case SM_TYPE_BF16: return SM_OK;
    case SM_TYPE_Q8_0:
    case SM_TYPE_Q4_0:
        if (head_dim % SM__QK == 0) return SM_OK;
        return sm__fail(error, SM_ERR_UNSUPPORTED,
                        "context: %s %s wants a head_dim that is a multiple of %d, not %d", name,
                        sm_type_get_info(*type)->name, SM__QK, head_dim);
    default:
        return sm__fail(error, SM_ERR_UNSUPPORTED,
                        "context: %s must be F32, F16, BF16, Q8_0 or Q4_0", name);
    }
}

static sm_status sm__ctx_range(sm_error *error, const char *name, int value, int low, int high) {
    if (value >= low && value <= high) return SM_OK;
    return sm__fail(error, SM_ERR_ARG, "context: %s is %d, not in [%d, %d]", name, value, low,
                    high);
}

/* Checks the parameters and replaces automatic values; *isa gets the level. */
static sm_status sm__ctx_resolve(const sm_model *m, const sm_ctx_params *in, sm_ctx_params *p,
                                 sm__kernels *kernels, sm_error *error) {
    const sm__hparams *hp;
    if (!m || !in) return sm__fail(error, SM_ERR_ARG, "context: model and params are needed");
    if (!m->weights)
        return sm__fail(error, SM_ERR_UNSUPPORTED, "context: the model has no weights");
    hp = &m->hp;
    *p = *in;
    if (!p->n_ctx) p->n_ctx = sm__min(hp->n_ctx, 4096);
    if (!p->n_seqs) p->n_seqs = 1;
    if (sm__ctx_range(error, "n_ctx", p->n_ctx, 1, 1 << 20) ||
        sm__ctx_range(error, "n_seqs", p->n_seqs, 1, 1024) ||
        sm__ctx_range(error, "n_threads", p->n_threads, 0, 256) ||
        sm__ctx_range(error, "kv_tokens", p->kv_tokens, 0, 1 << 30) ||
        sm__ctx_range(error, "max_logits", p->max_logits, 0, 1 << 24) ||
        sm__ctx_range(error, "max_text", p->max_text, 0, 1 << 28) ||
        sm__ctx_range(error, "max_lora_rank", p->max_lora_rank, 0, SM__MAX_DIM) ||
        sm__ctx_range(error, "n_batch", p->n_batch, 0, 1 << 16))
        return SM_ERR_ARG;
    if (hp->pos == SM__POS_LEARNED && p->n_ctx > hp->n_ctx)
        return sm__fail(error, SM_ERR_ARG, "context: n_ctx is %d, the model has %d positions",
                        p->n_ctx, hp->n_ctx);
    if (sm__ctx_kv_type(error, "key_type", &p->key_type, hp->head_dim) ||
        sm__ctx_kv_type(error, "value_type", &p->value_type, hp->head_dim))
        return SM_ERR_UNSUPPORTED;
    if (!p->n_batch) p->n_batch = sm__min(p->n_ctx, 256);
    if (!p->kv_tokens) {
        int64_t all = (int64_t)p->n_ctx * p->n_seqs;
        if (all > 1 << 30) return sm__fail(error, SM_ERR_ARG, "context: set kv_tokens (< 2^30)");
        p->kv_tokens = (int)all;
    }
    if (!p->max_logits) p->max_logits = p->n_seqs;
    if (!p->max_text) p->max_text = sm__min(sm__max(4 * sm__min(p->n_ctx, 16384), 4096), 65536);
    if (!sm__allocator_ok(&p->allocator))
        return sm__fail(error, SM_ERR_ARG, "context: allocator needs both alloc and free");
    if (p->isa == SM_ISA_AUTO && p->amx && sm__kernels_init(kernels, SM_ISA_AMX) == SM_OK)
        return SM_OK;
    if (sm__kernels_init(kernels, p->isa) != SM_OK)
        return sm__fail(error, SM_ERR_UNSUPPORTED, "context: no %s kernels on this machine",
                        sm_isa_name(p->isa));
    return SM_OK;
}

/* Scratch of one member: a matmul's panel, a tile's result, attention's scores and parts. */
#define SM__TILE_FLOATS 16384
static size_t sm__member_scratch(const sm_model *m, int max_lora_rank) {
    const sm__hparams *hp = &m->hp;
    int widest = sm__max(sm__max(hp->n_embd, hp->n_ff), hp->n_heads * hp->head_dim);
    size_t k = (size_t)sm__max(widest, max_lora_rank);
    size_t matmul = SM__MATMUL_SCRATCH(k) + SM__TILE_FLOATS * sizeof(float);
    size_t rows = SM__ATTEND_ROWS;
    size_t attend = rows * SM__PART * sizeof(float) + rows * ((size_t)hp->head_dim + 32) * 4;
    size_t put = (size_t)hp->head_dim * 4;
    size_t most = matmul > attend ? matmul : attend;
    return sm__round_up(most > put ? most : put, SM__ALIGN);
}

/* Split attention keeps (m, s, o[D]) of every part: rows that may be split, within 8 MB. */
static size_t sm__part_stride(const sm__hparams *hp) {
    return sm__round_up(((size_t)hp->head_dim + 2) * sizeof(float), SM__ALIGN);
}

static void sm__split_plan(const sm__hparams *hp, int n_ctx, int n_batch, int *rows, int *parts,
                           size_t *bytes) {
    size_t row;
    *parts = (n_ctx + SM__PART - 1) / SM__PART;
    row = (size_t)hp->n_heads * (size_t)*parts * sm__part_stride(hp);
    *rows = sm__min(n_batch, 8);
    while (*rows > 1 && (size_t)*rows * row > (size_t)8 << 20) --*rows;
    *bytes = (size_t)*rows * row;
}

static void sm__layout_tape(sm__arena *a, sm_ctx *ctx, const sm_model *m, const sm_ctx_params *p,
                            sm_plan *plan, int n_members) {
    sm__emitter e;
    size_t parts_bytes, start = a->used, member = sm__member_scratch(m, p->max_lora_rank);
    int split_rows, max_parts, n_steps;
    sm__weight *lora = NULL;
    sm__split_plan(&m->hp, p->n_ctx, p->n_batch, &split_rows, &max_parts, &parts_bytes);
    memset(&e, 0, sizeof e);
    e.model = m;
    e.rows = (size_t)p->n_batch;
    e.wanted_rows = (size_t)sm__min(p->n_batch, p->max_logits);
    e.max_lora_rank = p->max_lora_rank;
    sm__tape_emit(&e, parts_bytes);
    n_steps = e.n_steps;
    if (e.overflow) a->overflow = 1;
    e.steps = (sm__step *)sm__arena_take(a, (size_t)n_steps, sizeof(sm__step));
    if (p->max_lora_rank)
        lora = (sm__weight *)sm__arena_take(a, (size_t)n_steps, 3 * sizeof *lora);
    plan->tape_bytes = a->used - start;
    start = a->used;
    if (ctx) {
        ctx->steps = e.steps;
        ctx->n_steps = n_steps;
        ctx->lora = lora;
        ctx->split_rows = split_rows;
        ctx->max_parts = max_parts;
        ctx->member_bytes = member;
        e.n_steps = e.n_live = 0;
        e.peak = 0;
        sm__tape_emit(&e, parts_bytes);
        ctx->scratch = (unsigned char *)sm__arena_take(a, e.peak, 1);
        ctx->member_scratch = (unsigned char *)sm__arena_take(a, (size_t)n_members, member);
        ctx->rope_freq = (double *)sm__arena_take(a, (size_t)m->hp.n_rot + 1, sizeof(double));
    } else {
        sm__arena_take(a, e.peak, 1);
        sm__arena_take(a, (size_t)n_members, member);
        sm__arena_take(a, (size_t)m->hp.n_rot + 1, sizeof(double));
    }
    plan->scratch_bytes = a->used - start;
}

static void sm__layout_kv(sm__arena *a, sm_ctx *ctx, const sm_model *m, const sm_ctx_params *p,
                          sm_plan *plan) {
    const sm__hparams *hp = &m->hp;
    size_t sizes[2], start = a->used;
    uint32_t counts[2];
    int per_seq = (p->n_ctx + SM__KV_BLOCK - 1) / SM__KV_BLOCK;
    int key_type = sm__type_index(p->key_type), value_type = sm__type_index(p->value_type);
    size_t key_bytes = sm__row_bytes(key_type, (size_t)hp->head_dim) * SM__KV_BLOCK;
    size_t head_bytes =
        key_bytes + sm__row_bytes(value_type, (size_t)hp->head_dim) * SM__KV_BLOCK;
    sm_pool *pool;
    void **table;
    if (sm__mul_size(head_bytes, (size_t)hp->n_kv_heads, &sizes[0]) ||
        sm__mul_size(sizes[0], (size_t)hp->n_layers, &sizes[0]))
        a->overflow = 1;
    sizes[1] = (size_t)hp->n_vocab * sizeof(float);
    counts[0] = (uint32_t)((p->kv_tokens + SM__KV_BLOCK - 1) / SM__KV_BLOCK);
    if ((int64_t)p->kv_tokens == (int64_t)p->n_ctx * p->n_seqs) /* whole blocks for each */
        counts[0] = (uint32_t)(per_seq * p->n_seqs);
    counts[1] = (uint32_t)p->max_logits;
    pool = sm__pool_layout(a, sizes, counts, 2);
    plan->logits_bytes = (size_t)counts[1] * sm__round_up(sizes[1], SM__ALIGN);
    table = (void **)sm__arena_take(a, (size_t)per_seq * (size_t)p->n_seqs, sizeof *table);
    plan->kv_bytes = a->used - start - (a->overflow ? 0 : plan->logits_bytes);
    if (!ctx) return;
    ctx->pool = pool;
    ctx->kv.n_layers = hp->n_layers;
    ctx->kv.pool_class = 0;
    ctx->kv.blocks_per_seq = per_seq;
    ctx->kv.block_bytes = sizes[0];
    ctx->kv.key_type = key_type;
    ctx->kv.value_type = value_type;
    ctx->kv.key_bytes = key_bytes;
    ctx->kv.head_bytes = head_bytes;
    ctx->kv.table = table;
    memset(table, 0, (size_t)per_seq * (size_t)p->n_seqs * sizeof *table);
}

/* The pass: arrays for the largest batch, which is all tokens that the KV cache can take. */
static void sm__layout_batch(sm__arena *a, sm_ctx *ctx, const sm_ctx_params *p) {
    size_t n = (size_t)p->kv_tokens, rows = (size_t)p->n_batch, seqs = (size_t)p->n_seqs;
    size_t changes = n / SM__KV_BLOCK + 2 * seqs + 2;
    int32_t *tokens = (int32_t *)sm__arena_take(a, 2 * n, sizeof *tokens);
    int *batch = (int *)sm__arena_take(a, 2 * n, sizeof *batch);
    float **logits = (float **)sm__arena_take(a, (size_t)p->max_logits, sizeof *logits);
    sm__kv_change *undo = (sm__kv_change *)sm__arena_take(a, changes, sizeof *undo);
    int *lengths = (int *)sm__arena_take(a, 2 * seqs, sizeof *lengths);
    int *wanted = (int *)sm__arena_take(a, rows, sizeof *wanted);
    sm__group *groups = (sm__group *)sm__arena_take(a, rows, sizeof *groups);
    if (!ctx) return;
    ctx->max_batch = p->kv_tokens;
    ctx->tokens = tokens;
    ctx->seqs = tokens + n;
    ctx->positions = batch;
    ctx->logits_row = batch + n;
    ctx->rows = logits;
    ctx->changes = undo;
    ctx->seq_length = lengths;
    ctx->seq_new = lengths + seqs;
    ctx->wanted = wanted;
    ctx->groups = groups;
    memset(lengths, 0, 2 * seqs * sizeof *lengths);
}

static void sm__layout_text(sm__arena *a, sm_ctx *ctx, const sm_model *m, const sm_ctx_params *p) {
    size_t seqs = (size_t)p->n_seqs;
    unsigned char *gens = (unsigned char *)sm__arena_take(a, seqs, sm__gen_bytes(m));
    size_t room = (size_t)p->n_ctx + 1;
    int32_t *ids = (int32_t *)sm__arena_take(a, (seqs + 1) * room, sizeof *ids);
    void *work = sm__arena_take(a, SMALLMIND_SAMPLE_BYTES(m->hp.n_vocab), 1);
    void *text = NULL;
    size_t bytes = 0;
    if (m->vocab.kind != SM__VOCAB_NONE) {
        bytes = sm__tokenizer_bytes(m, (size_t)p->max_text);
        text = sm__arena_take(a, bytes, 1);
    }
    if (!ctx) return;
    ctx->gens = gens;
    ctx->gen_ids = ids;
    ctx->prompt_ids = ids + seqs * room;
    ctx->sample_work = work;
    if (text) ctx->tokenizer = sm__tokenizer_place(m, (size_t)p->max_text, text);
    memset(gens, 0, seqs * sm__gen_bytes(m));
}

/* The one layout: with arena->base NULL it counts, otherwise it places and returns the context. */
static sm_ctx *sm__ctx_layout(sm__arena *a, const sm_model *m, const sm_ctx_params *p,
                              sm_plan *plan) {
    sm_ctx *ctx = (sm_ctx *)sm__arena_take(a, 1, sizeof *ctx);
    int own = !p->team, members = own ? sm__team_members(p->n_threads) : p->team->n_members;
    size_t start;
    memset(plan, 0, sizeof *plan);
    if (ctx) memset(ctx, 0, sizeof *ctx);
    start = a->used;
    if (own && members > 1) {
        sm_team *team = sm__team_layout(a, members);
        if (ctx) ctx->team = team, ctx->own_team = 1;
    } else if (ctx) {
        ctx->team = p->team;
    }
    plan->team_bytes = a->used - start;
    sm__layout_tape(a, ctx, m, p, plan, members);
    sm__layout_kv(a, ctx, m, p, plan);
    start = a->used;
    sm__layout_batch(a, ctx, p);
    plan->tape_bytes += a->used - start;
    start = a->used;
    sm__layout_text(a, ctx, m, p);
    plan->text_bytes = a->used - start;
    plan->n_ctx = p->n_ctx;
    plan->n_seqs = p->n_seqs;
    plan->n_batch = p->n_batch;
    plan->n_threads = members;
    plan->key_type = p->key_type;
    plan->value_type = p->value_type;
    plan->weight_bytes = m->info.weight_bytes;
    plan->total_bytes = a->used + 2 * SM__ALIGN; /* with the header of sm__heap_alloc */
    if (ctx) ctx->n_members = members;
    return ctx;
}

SM_API sm_status sm_ctx_plan(const sm_model *model, const sm_ctx_params *params, sm_plan *plan,
                             sm_error *error) {
    sm__arena arena = {NULL, 0, 0};
    sm_ctx_params p;
    sm__kernels kernels;
    sm_status status;
    if (!plan) return sm__fail(error, SM_ERR_ARG, "context: plan is needed");
    status = sm__ctx_resolve(model, params, &p, &kernels, error);
    if (status != SM_OK) return status;
    sm__ctx_layout(&arena, model, &p, plan);
    plan->isa = kernels.isa;
    if (arena.overflow || arena.used > SIZE_MAX / 2)
        return sm__fail(error, SM_ERR_FULL, "context: it would not fit in the address space");
    return SM_OK;
}

/* Places a context in `base` (64-byte aligned) and starts its team. */
static sm_status sm__ctx_make(const sm_model *model, const sm_ctx_params *params,
                              unsigned char *base, sm_ctx **out, sm_error *error) {
    sm__arena arena = {NULL, 0, 0};
    sm_ctx_params p;
    sm_plan plan;
    sm__kernels kernels;
    double magnitude = 1.0;
    sm_ctx *ctx;
    uint64_t fp;
    int local;
    sm_status status = sm__ctx_resolve(model, params, &p, &kernels, error);
    if (status != SM_OK) return status;
    arena.base = base;
    ctx = sm__ctx_layout(&arena, model, &p, &plan);
    ctx->model = model;
    ctx->params = p;
    ctx->plan = plan;
    ctx->plan.isa = kernels.isa;
    ctx->used_bytes = arena.used + 2 * SM__ALIGN;
    ctx->kernels = kernels;
    fp = sm__fp_enter();
    ctx->score_scale = model->hp.score_scale != 0.0
                           ? (float)model->hp.score_scale
                           : sm__div(1.0f, sm__sqrt((float)model->hp.head_dim));
    for (local = 0; local < 2 && model->hp.pos != SM__POS_LEARNED; local++) {
        if (local && model->hp.local_base == 0.0) break;
        sm__rope_frequencies(model, p.n_ctx, local, ctx->rope_freq + local * model->hp.n_rot / 2,
                             &magnitude);
        ctx->rope_magnitude[local] = (float)magnitude;
    }
    sm__fp_leave(fp);
    ctx->pass.ticket = SM__CLOSED;
    ctx->pass.help = sm__pass_help;
    ctx->pass.n_slots = sm__min(ctx->n_members, 256);
    ctx->pass.slots[0] = 1;
    if (ctx->own_team) {
        status = sm__team_start(ctx->team, error);
        if (status != SM_OK) return status;
    }
    *out = ctx;
    return SM_OK;
}

static void sm__hint_huge_pages(void *memory, size_t bytes) {
#if defined(__linux__)
    uintptr_t first = ((uintptr_t)memory + 4095u) & ~(uintptr_t)4095u;
    uintptr_t end = ((uintptr_t)memory + bytes) & ~(uintptr_t)4095u;
    if (end > first) (void)sm__madvise((void *)first, end - first, 14); /* MADV_HUGEPAGE */
#else
    (void)memory, (void)bytes;
#endif
}

SM_API sm_status sm_ctx_create(const sm_model *model, const sm_ctx_params *params, sm_ctx **out,
                               sm_error *error) {
    sm_plan plan;
    sm__heap heap;
    sm_status status;
    unsigned char *block;
    if (out) *out = NULL;
    if (!out) return sm__fail(error, SM_ERR_ARG, "context: ctx is needed");
    status = sm_ctx_plan(model, params, &plan, error);
    if (status != SM_OK) return status;
    heap = sm__heap_make(&params->allocator);
    block = (unsigned char *)sm__heap_alloc(&heap, plan.total_bytes - 2 * SM__ALIGN);
    if (!block)
        return sm__fail(error, SM_ERR_NOMEM, "context: no memory for %llu bytes",
                        (unsigned long long)plan.total_bytes);
    if (params->huge_pages) sm__hint_huge_pages(block, plan.total_bytes - 2 * SM__ALIGN);
    status = sm__ctx_make(model, params, block, out, error);
    if (status != SM_OK) sm__heap_free(&heap, block);
    else (*out)->heap = heap;
    return status;
}

SM_API sm_status sm_ctx_create_in(const sm_model *model, const sm_ctx_params *params, void *memory,
                                  size_t bytes, sm_ctx **out, sm_error *error) {
    sm_plan plan;
    sm_status status;
    if (out) *out = NULL;
    if (!out || !memory) return sm__fail(error, SM_ERR_ARG, "context: ctx and memory are needed");
    status = sm_ctx_plan(model, params, &plan, error);
    if (status != SM_OK) return status;
    if (bytes < plan.total_bytes)
        return sm__fail(error, SM_ERR_FULL, "context: %llu bytes needed, %llu given",
                        (unsigned long long)plan.total_bytes, (unsigned long long)bytes);
    if (params->huge_pages) sm__hint_huge_pages(memory, bytes);
    return sm__ctx_make(model, params, sm__align_pointer(memory), out, error);
}

SM_API void sm_ctx_destroy(sm_ctx *ctx) {
    sm__heap heap;
    int round = 0;
    if (!ctx) return;
    if (ctx->team && !ctx->own_team) sm__team_close(ctx->team, &ctx->pass);
    if (ctx->own_team) sm__team_stop(ctx->team);
    while (sm__load32(&ctx->pass.helpers)) sm__wait_a_little(round++);
    heap = ctx->heap;
    if (heap.bytes) sm__heap_free(&heap, ctx);
}

SM_API const char *sm_ctx_error(const sm_ctx *ctx) { return ctx ? ctx->error.text : ""; }
SM_API const sm_model *sm_ctx_model(const sm_ctx *ctx) { return ctx ? ctx->model : NULL; }
SM_API sm_tokenizer *sm_ctx_tokenizer(sm_ctx *ctx) { return ctx ? ctx->tokenizer : NULL; }

SM_API sm_ctx_stats sm_ctx_get_stats(const sm_ctx *ctx) {
    sm_ctx_stats stats;
    memset(&stats, 0, sizeof stats);
    stats.plan = ctx->plan;
    stats.used_bytes = ctx->used_bytes;
    stats.heap_calls = ctx->heap.calls;
    stats.pool = sm_pool_get_stats(ctx->pool);
    stats.passes = ctx->n_passes;
    stats.tokens = ctx->n_tokens;
    stats.n_steps = ctx->n_steps;
    stats.isa = sm_isa_name(ctx->kernels.isa);
    return stats;
}

SM_API sm_status sm_ctx_profile(const sm_ctx *ctx, int i, sm_profile *profile) {
    const sm__step *s;
    if (!ctx || !profile || i < 0 || i >= ctx->n_steps) return SM_ERR_ARG;
    s = &ctx->steps[i];
    profile->step = s->name;
    profile->layer = s->layer;
    profile->calls = s->calls;
    profile->ns = s->ns;
    profile->bytes = s->bytes;
    profile->ops = s->ops;
    return SM_OK;
}

/* --- adapters --------------------------------------------------------------------------------- */

/* A matrix of an adapter as a weight: rows [row, row + n) of k floats each. */
static sm__weight sm__adapter_rows(const float *all, int row, int n, int k) {
    sm__weight w;
    memset(&w, 0, sizeof w);
    w.type = sm__type_index(SM_TYPE_F32);
    w.n = n;
    w.k = k;
    w.stride = (size_t)k * sizeof(float);
    w.data = (const uint8_t *)(all + (size_t)row * (size_t)k);
    return w;
}

/* Gives lora_a (step i) and lora_b the weights that belong to the matmul before them. */
static void sm__lora_fill(sm_ctx *ctx, int i, const sm_adapter *adapter, double scale) {
    sm__step *of = &ctx->steps[i - 1], *low = of + 1, *up = of + 2;
    sm__weight *a = ctx->lora + 3 * i, *b = a + 3;
    int j, n = 0;
    for (j = 0; j < of->n_w; j++) {
        const sm__weight *w = of->w[j];
        const sm__adapter_pair *p = sm__adapter_pair_of(adapter, w->tensor);
        float share = p ? (float)sm__adapter_scale(adapter, p, scale) : 0.0f;
        if (w->scale != 0.0f) share *= w->scale;
        if (share == 0.0f) continue;
        a[n] = sm__adapter_rows(p->a, 0, p->rank, p->k);
        a[n].scale = share;
        b[n] = sm__adapter_rows(p->b, w->row, w->n, p->rank);
        low->w[n] = &a[n];
        low->dst[n] = up->in.x;
        low->dst[n].at += (size_t)(n * up->in_step) * sizeof(float);
        low->dst[n].width = p->rank;
        up->w[n] = &b[n];
        up->dst[n++] = of->dst[j];
    }
    low->n_w = up->n_w = n;
    up->finish = of->op == SM__OP_LOGITS && n;
    of->finish = of->op == SM__OP_LOGITS && !n;
}

/* Every pair has a matmul that it belongs to, or the first that has none is named. (Of tied
 * embeddings the product is only half of it.) */
static sm_status sm__lora_check(sm_ctx *ctx, const sm_adapter *adapter) {
    const sm_tensor *embed = ctx->model->weights->embed.tensor;
    int i, j, p, used;
    for (p = 0; p < adapter->n_pairs; p++) {
        const sm_tensor *t = adapter->pairs[p].tensor;
        if (adapter->pairs[p].rank > ctx->params.max_lora_rank)
            return sm__fail(&ctx->error, SM_ERR_FULL,
                            "adapter: tensor %s has rank %d, max_lora_rank is %d", t->name,
                            adapter->pairs[p].rank, ctx->params.max_lora_rank);
        for (i = used = 0; i < ctx->n_steps && !used; i++)
            for (j = 0; ctx->steps[i].lora && j < ctx->steps[i - 1].n_w; j++)
                used |= ctx->steps[i - 1].w[j]->tensor == t && t != embed;
        if (!used)
            return sm__fail(&ctx->error, SM_ERR_UNSUPPORTED,
                            "adapter: tensor %s is no product: merge it", t->name);
    }
    return SM_OK;
}

SM_API sm_status sm_ctx_set_adapter(sm_ctx *ctx, const sm_adapter *adapter, float scale) {
    sm_status status = SM_OK;
    int i;
    if (!ctx) return SM_ERR_ARG;
    if (sm__load32(&ctx->pass_id))
        return sm__fail(&ctx->error, SM_ERR_BUSY, "adapter: a pass is pending");
    if (!sm__real_in((double)scale, -1e6, 1e6))
        return sm__fail(&ctx->error, SM_ERR_ARG, "adapter: scale is not within -1e6 and 1e6");
    if (adapter && adapter->model != ctx->model)
        return sm__fail(&ctx->error, SM_ERR_ARG, "adapter: opened for another model");
    if (adapter) status = sm__lora_check(ctx, adapter);
    if (status) return status;
    if (scale == 0.0f) adapter = NULL;
    for (i = 0; i < ctx->n_steps; i++)
        if (ctx->steps[i].lora) sm__lora_fill(ctx, i, adapter, (double)scale);
    memset(ctx->shape, 0, sizeof ctx->shape); /* the steps want shaping */
    return SM_OK;
}

/* --- sequences -------------------------------------------------------------------------------- */

SM__INLINE void **sm__kv_row(const sm_ctx *ctx, int seq) {
    return ctx->kv.table + (size_t)seq * (size_t)ctx->kv.blocks_per_seq;
}

static sm_status sm__seq_check(sm_ctx *ctx, int seq, const char *what) {
    if (seq < 0 || seq >= ctx->params.n_seqs)
        return sm__fail(&ctx->error, SM_ERR_ARG, "%s: sequence %d, not in [0, %d)", what, seq,
                        ctx->params.n_seqs);
    if (sm__load32(&ctx->pass_id))
        return sm__fail(&ctx->error, SM_ERR_BUSY, "%s: a pass is pending", what);
    return SM_OK;
}

SM_API int sm_seq_length(const sm_ctx *ctx, int seq) {
    return ctx && seq >= 0 && seq < ctx->params.n_seqs ? ctx->seq_length[seq] : 0;
}

SM_API sm_status sm_seq_rewind(sm_ctx *ctx, int seq, int length) {
    sm_status status;
    void **row;
    int i;
    if (!ctx) return SM_ERR_ARG;
    status = sm__seq_check(ctx, seq, "rewind");
    if (status != SM_OK) return status;
    if (length < 0 || length > ctx->seq_length[seq])
        return sm__fail(&ctx->error, SM_ERR_ARG, "rewind: to %d, sequence %d has %d tokens", length,
                        seq, ctx->seq_length[seq]);
    row = sm__kv_row(ctx, seq);
    i = (length + SM__KV_BLOCK - 1) / SM__KV_BLOCK;
    for (; i < ctx->kv.blocks_per_seq && row[i]; i++) {
        sm_pool_return(ctx->pool, row[i]);
        row[i] = NULL;
    }
    ctx->seq_length[seq] = length;
    return SM_OK;
}

SM_API sm_status sm_seq_release(sm_ctx *ctx, int seq) { return sm_seq_rewind(ctx, seq, 0); }

SM_API sm_status sm_seq_fork(sm_ctx *ctx, int from, int to) {
    sm_status status;
    void **source, **target;
    int i;
    if (!ctx) return SM_ERR_ARG;
    status = sm__seq_check(ctx, from, "fork");
    if (status == SM_OK) status = sm__seq_check(ctx, to, "fork");
    if (status != SM_OK) return status;
    if (from == to) return SM_OK;
    sm_seq_rewind(ctx, to, 0);
    source = sm__kv_row(ctx, from);
    target = sm__kv_row(ctx, to);
    for (i = 0; i < ctx->kv.blocks_per_seq && source[i]; i++) {
        sm_pool_retain(ctx->pool, source[i]);
        target[i] = source[i];
    }
    ctx->seq_length[to] = ctx->seq_length[from];
    return SM_OK;
}

/* ================================================================================================
 * MARK: [SM37] STEPS
 * How each step is cut into tiles for the rows of a chunk, and what a tile does. A tile reads what
 * earlier steps wrote and writes what no other tile of its step writes; how it is cut never changes
 * a bit, so the cuts follow the processor's speed and the number of members.
 * ============================================================================================== */

SM__INLINE float *sm__row_f32(const sm_ctx *ctx, sm__buf b, int row) {
    return (float *)(void *)(ctx->scratch + b.at + (size_t)row * b.stride);
}

/* Rows of an input from `row` on, as weights of a type read them. */
static sm__acts sm__acts_at(const sm_ctx *ctx, const sm__act_buf *in, int row, int type) {
    int j = sm__types[type].act_block == SM__QK_K;
    sm__buf q = in->blocks[j].q, d = in->blocks[j].d, s = in->blocks[j].s;
    sm__acts a;
    memset(&a, 0, sizeof a);
    a.x = sm__row_f32(ctx, in->x, row);
    a.x_stride = in->x.stride / sizeof(float);
    if (!sm__types[type].act_block) return a;
    a.q = (const int8_t *)ctx->scratch + q.at + (size_t)row * q.stride;
    a.q_stride = q.stride;
    a.d = sm__row_f32(ctx, d, row);
    a.d_stride = d.stride / sizeof(float);
    a.s = (const int16_t *)(const void *)sm__row_f32(ctx, s, row);
    a.s_stride = s.stride / sizeof(int16_t);
    return a;
}

/* The int8 blocks of one row, where a step's consumer wants them. */
static void sm__quant_row(sm_ctx *ctx, const sm__act_buf *b, int row) {
    int j;
    for (j = 0; j < 2; j++) {
        sm__buf q = b->blocks[j].q;
        if (!q.stride) continue;
        ctx->kernels.quant(sm__row_f32(ctx, b->x, row), b->x.width, j ? SM__QK_K : SM__QK,
                           (int8_t *)ctx->scratch + q.at + (size_t)row * q.stride,
                           sm__row_f32(ctx, b->blocks[j].d, row),
                           (int16_t *)(void *)sm__row_f32(ctx, b->blocks[j].s, row));
    }
}

/* --- shapes ----------------------------------------------------------------------------------- */

static int sm__ceil_div(int a, int b) { return (a + b - 1) / b; }

/* Row-wise steps: whole rows, as many as fit a tile's time. */
static void sm__shape_rows(const sm_ctx *ctx, sm__step *s, int rows, double row_ns) {
    double fit = SM__TILE_NS / (row_ns + 1.0);
    int share = sm__ceil_div(rows, ctx->n_members * 2);
    s->tile_t = sm__max(1, sm__min(fit > rows ? rows : (int)fit, share));
    if (row_ns * rows < 10000.0) s->tile_t = rows; /* not worth a barrier */
    s->tiles = rows ? (uint32_t)sm__ceil_div(rows, s->tile_t) : 0;
    s->run_ns = (uint64_t)(row_ns * rows);
}

/* MATMUL, LOGITS: tile_n outputs (of one weight) by tile_t rows. */
static void sm__shape_matmul(const sm_ctx *ctx, sm__step *s, int rows) {
    const sm__speed *speed = &sm__speeds[ctx->kernels.isa];
    int unit = ctx->kernels.isa == SM_ISA_SCALAR ? 1 : 32, i, n_max = 0, blocks; /* a panel */
    double total = 0.0, unit_ns = 0.0, target, weight_ns, math_ns = 0.0;
    s->tiles = 0;
    s->tile_t = rows;
    if (!rows || !s->n_w) return;
    for (i = 0; i < s->n_w; i++) {
        const sm__weight *w = s->w[i];
        double ops = 2.0 * unit * w->k / (sm__types[w->type].act_block ? speed->int_ops
                                                                         : speed->flops);
        weight_ns = (double)w->stride * unit / speed->bytes;
        if (ops > math_ns) math_ns = ops;
        if (weight_ns > unit_ns) unit_ns = weight_ns;
        total += (ops * rows > weight_ns ? ops * rows : weight_ns) * w->n / unit;
        n_max = sm__max(n_max, w->n);
    }
    while (s->tile_t > 16 &&
           (math_ns * s->tile_t > SM__TILE_NS || s->tile_t * unit > SM__TILE_FLOATS))
        s->tile_t = (s->tile_t + 1) / 2;
    if (math_ns * s->tile_t > unit_ns) unit_ns = math_ns * s->tile_t;
    target = ctx->n_members > 1 ? total / (ctx->n_members * 4) : SM__TILE_NS;
    if (target < 8000.0) target = 8000.0;
    if (target > SM__TILE_NS) target = SM__TILE_NS;
    blocks = sm__max(1, (int)(target / unit_ns > 1e6 ? 1e6 : target / unit_ns));
    if (total < 8000.0) blocks = sm__ceil_div(n_max, unit);
    if (s->accumulate || (s->op == SM__OP_LOGITS && rows > 1)) /* a result in member_scratch */
        blocks = sm__max(1, sm__min(blocks, SM__TILE_FLOATS / (unit * s->tile_t)));
    s->tile_n = blocks * unit;
    for (i = 0; i < s->n_w; i++)
        s->tiles += (uint32_t)(sm__ceil_div(s->w[i]->n, s->tile_n) * sm__ceil_div(rows, s->tile_t));
    s->run_ns = (uint64_t)total;
}

/* ATTEND: few rows: a tile per (row, KV head, part), joined in MERGE. Many rows: a tile per (group
 * of rows, KV head), the parts in phases of 1024 keys, each joining its parts in order. */
static void sm__shape_attend(sm_ctx *ctx, sm__step *s) {
    const sm__hparams *hp = &ctx->model->hp;
    const sm__speed *speed = &sm__speeds[ctx->kernels.isa];
    int n_parts = ctx->n_parts - (s->window ? ctx->window_part : 0);
    double row_ns = 4.0 * hp->n_heads * hp->head_dim * SM__PART * n_parts / speed->flops;
    if (ctx->split) {
        s->phases = 1;
        s->tiles = (uint32_t)(ctx->n_chunk * hp->n_kv_heads * n_parts);
    } else {
        s->phases = (uint32_t)sm__ceil_div(n_parts, ctx->phase_parts);
        s->tiles = (uint32_t)(ctx->n_groups * hp->n_kv_heads);
    }
    s->run_ns = (uint64_t)(row_ns * ctx->n_chunk / s->phases);
}

static void sm__step_shape(sm_ctx *ctx, sm__step *s) {
    const sm__hparams *hp = &ctx->model->hp;
    double elems = sm__speeds[ctx->kernels.isa].elems;
    int rows = s->wanted_rows ? ctx->n_wanted : ctx->n_chunk;
    s->phases = 1;
    switch (s->op) {
    case SM__OP_EMBED:
    case SM__OP_NORM: sm__shape_rows(ctx, s, rows, s->out.x.width / elems); break;
    case SM__OP_ROTARY: sm__shape_rows(ctx, s, rows, hp->n_rot * 20.0); break;
    case SM__OP_KV_PUT:
        sm__shape_rows(ctx, s, rows, (hp->n_heads + 3 * hp->n_kv_heads) * hp->head_dim / elems);
        break;
    case SM__OP_MERGE:
        sm__shape_rows(ctx, s, rows,
                       hp->n_heads * hp->head_dim * (ctx->split ? ctx->n_parts + 1 : 1) / elems);
        break;
    case SM__OP_ACT: sm__shape_rows(ctx, s, rows, 2.0 * hp->n_ff / elems); break;
    case SM__OP_ADD: sm__shape_rows(ctx, s, rows, 2.0 * hp->n_embd / elems); break;
    case SM__OP_ATTEND: sm__shape_attend(ctx, s); break;
    default: sm__shape_matmul(ctx, s, rows); break;
    }
}

/* --- tiles ------------------------------------------------------------------------------------ */

static void sm__tile_embed(sm_ctx *ctx, const sm__step *s, int row) {
    const sm__weight *w = &ctx->model->weights->embed, *pos = &ctx->model->weights->position;
    float *x = sm__row_f32(ctx, s->out.x, row), *other;
    int entry = ctx->chunk + row, i;
    sm__types[w->type].decode(w->data + (size_t)ctx->tokens[entry] * w->stride, x, (size_t)w->k);
    if (ctx->model->hp.embed_scale != 1.0)
        ctx->kernels.scale(x, (float)ctx->model->hp.embed_scale, w->k);
    if (ctx->model->hp.pos != SM__POS_LEARNED) return;
    for (i = 0; i < pos->k; i += SM__QK_K) { /* in pieces: no row-sized buffer on the stack */
        float piece[SM__QK_K];
        int n = sm__min(SM__QK_K, pos->k - i);
        const uint8_t *at = pos->data + (size_t)ctx->positions[entry] * pos->stride;
        other = piece;
        sm__types[pos->type].decode(at + sm__row_bytes(pos->type, (size_t)i), other, (size_t)n);
        ctx->kernels.add(other, x + i, n);
    }
}

static void sm__tile_rotary(sm_ctx *ctx, const sm__step *s, int row) {
    int i, half = ctx->model->hp.n_rot / 2;
    float *c = sm__row_f32(ctx, s->out.x, row), *sn = c + half;
    const double *freq = ctx->rope_freq + s->local * half;
    for (i = 0; i < half; i++) {
        double sine, cosine;
        sm__sincos_double(ctx->positions[ctx->chunk + row] * freq[i], &sine, &cosine);
        c[i] = (float)(cosine * (double)ctx->rope_magnitude[s->local]);
        sn[i] = (float)(sine * (double)ctx->rope_magnitude[s->local]);
    }
}

static void sm__norm_into(sm_ctx *ctx, const float *x, const float *w, const float *b, float *out,
                          int n) {
    if (!w) memcpy(out, x, (size_t)n * sizeof *x);
    else if (ctx->model->arch->norm == SM__NORM_RMS)
        ctx->kernels.rms_norm(x, w, out, n, ctx->model->hp.norm_eps);
    else ctx->kernels.layer_norm(x, w, b, out, n, ctx->model->hp.norm_eps);
}

static void sm__tile_norm(sm_ctx *ctx, const sm__step *s, int row) {
    int from = s->wanted_rows ? ctx->wanted[row] : row;
    sm__norm_into(ctx, sm__row_f32(ctx, s->in.x, from), s->norm, s->norm_bias,
                  sm__row_f32(ctx, s->out.x, row), s->in.x.width);
    sm__quant_row(ctx, &s->out, row);
}

/* The family's scale and cap of logits. */
static void sm__finish_logits(sm_ctx *ctx, float *logits, int n) {
    const sm__hparams *hp = &ctx->model->hp;
    float scale = (float)hp->logit_scale;
    if (hp->logit_cap != 0.0) ctx->kernels.soft_cap(logits, scale, (float)hp->logit_cap, n);
    else if (scale != 1.0f) ctx->kernels.scale(logits, scale, n);
}

static void sm__tile_matmul(sm_ctx *ctx, const sm__step *s, int tile, unsigned char *scratch) {
    int rows = s->wanted_rows ? ctx->n_wanted : ctx->n_chunk, i = 0, o0, n, t0, t, t_tiles, direct;
    float *temp = (float *)(void *)scratch, *out;
    void *rest = scratch + SM__TILE_FLOATS * sizeof(float);
    size_t stride;
    const sm__weight *w;
    sm__acts a;
    t_tiles = sm__ceil_div(rows, s->tile_t);
    for (; tile >= sm__ceil_div(s->w[i]->n, s->tile_n) * t_tiles; i++)
        tile -= sm__ceil_div(s->w[i]->n, s->tile_n) * t_tiles;
    w = s->w[i];
    o0 = tile / t_tiles * s->tile_n;
    n = sm__min(s->tile_n, w->n - o0);
    t0 = tile % t_tiles * s->tile_t;
    rows = sm__min(s->tile_t, rows - t0);
    a = sm__acts_at(ctx, &s->in, t0, w->type);
    a.x += i * s->in_step;
    direct = !s->accumulate && (s->op != SM__OP_LOGITS || rows == 1);
    if (s->op == SM__OP_LOGITS) out = ctx->rows[ctx->logits_row[ctx->chunk + ctx->wanted[t0]]] + o0;
    else out = sm__row_f32(ctx, s->dst[i], t0) + o0;
    stride = s->op == SM__OP_LOGITS ? 0 : s->dst[i].stride / sizeof(float);
    ctx->kernels.matmul[w->type](w->data + (size_t)o0 * w->stride, w->stride, n, w->k, &a, rows,
                                 direct ? out : temp, direct ? stride : (size_t)n, rest);
    for (t = 0; t < rows; t++) {
        float *got = direct ? out + (size_t)t * stride : temp + (size_t)t * (size_t)n;
        if (w->scale != 0.0f) ctx->kernels.scale(got, w->scale, n);
        if (w->bias) ctx->kernels.add(w->bias + o0, got, n);
        if (!direct) {
            float *to = out + (size_t)t * stride;
            if (s->op == SM__OP_LOGITS)
                to = ctx->rows[ctx->logits_row[ctx->chunk + ctx->wanted[t0 + t]]] + o0;
            if (s->accumulate) ctx->kernels.add(got, to, n);
            else memcpy(to, got, (size_t)n * sizeof(float));
            got = to;
        }
        if (s->finish) sm__finish_logits(ctx, got, n);
    }
}

/* Where the keys of a layer and KV head are in a block; the values follow at + key_bytes. */
SM__INLINE unsigned char *sm__kv_head(const sm_ctx *ctx, void *block, int layer, int head) {
    size_t i = (size_t)layer * (size_t)ctx->model->hp.n_kv_heads + (size_t)head;
    return (unsigned char *)block + i * ctx->kv.head_bytes;
}

/* A key or value of n elements as the cache has it: elements, as of a value, to out, scales to
 * scales. Q8_0 is the activations' format, of which, as ggml does it, only the scale is rounded to
 * f16, so that |x - q * scale| <= 0.57 scale (while the scale is a normal half: the largest |x| of
 * a group in [0.008, 8e6]); Q4_0 is ggml's but for the sign of its numbers, with a NaN for a scale
 * where x is not finite. temp: 5 n / 16 bytes (Q8_0), 2 n (Q4_0). */
static void sm__kv_convert(sm_ctx *ctx, int type, const float *x, int n, uint8_t *out,
                           uint16_t *scales, unsigned char *temp) {
    int i, b;
    if (type == SM__T_F16) {
        ctx->kernels.to_f16(x, (uint16_t *)(void *)out, n);
    } else if (type == SM__T_Q8_0) {
        float *d = (float *)(void *)temp;
        ctx->kernels.quant(x, n, SM__QK, (int8_t *)out, d, (int16_t *)(void *)(d + n / SM__QK));
        ctx->kernels.to_f16(d, scales, n / SM__QK);
    } else if (type == SM__T_Q4_0) {
        const sm__block_q4_0 *block = (const sm__block_q4_0 *)(void *)temp;
        sm__types[type].encode(x, temp, (size_t)n);
        for (b = 0; b < n / SM__QK; b++) {
            scales[b] = block[b].d;
            for (i = 0; i < SM__QK / 2; i++) *out++ = block[b].b[i] ^ 0x88;
            for (i = 0; i < SM__QK; i++, x++)
                if ((sm__bits(*x) & 0x7f800000u) == 0x7f800000u) scales[b] = 0x7e00;
        }
    } else {
        sm__types[type].encode(x, out, (size_t)n);
    }
}

/* Keys go in transposed (a token a lane), so that scores need no horizontal sums. */
static void sm__kv_put_key(sm_ctx *ctx, unsigned char *keys, int lane, const float *k,
                           unsigned char *temp) {
    int d, type = ctx->kv.key_type, n = ctx->model->hp.head_dim;
    uint8_t *at = temp, *to = keys + (size_t)lane * sm__kv_unit(type);
    uint16_t *scales = (uint16_t *)(void *)(temp + sm__kv_value(type, n));
    uint16_t *scale_to = (uint16_t *)(uintptr_t)sm__kv_scales(type, keys, n) + lane;
    sm__kv_convert(ctx, type, k, n, at, scales, (unsigned char *)(scales + n / SM__QK));
    for (d = 0; sm__kv_scaled(type) && d < n / SM__QK; d++) scale_to[d * SM__KV_BLOCK] = scales[d];
    switch (type) {
    case SM__T_F32:
        for (d = 0; d < n; d++)
            ((float *)(void *)to)[d * SM__KV_BLOCK] = ((float *)(void *)at)[d];
        break;
    case SM__T_Q8_0:
        for (d = 0; d < n; d++) to[d * SM__KV_BLOCK] = at[d];
        break;
    case SM__T_Q4_0: /* a value's bytes have elements i and i + 16, a key's 2 i and 2 i + 1 */
        for (d = 0; d < n; d += 2) {
            int half = d & 16 ? 4 : 0, i = d / 32 * 16 + d % 16;
            to[d / 2 * SM__KV_BLOCK] =
                (uint8_t)((at[i] >> half & 15) | (at[i + 1] >> half & 15) << 4);
        }
        break;
    default:
        for (d = 0; d < n; d++)
            ((uint16_t *)(void *)to)[d * SM__KV_BLOCK] = ((uint16_t *)(void *)at)[d];
    }
}

static void sm__kv_put_value(sm_ctx *ctx, unsigned char *values, int lane, const float *v,
                             unsigned char *temp) {
    int type = ctx->kv.value_type, n = ctx->model->hp.head_dim;
    uint16_t *scales = (uint16_t *)(uintptr_t)sm__kv_scales(type, values, n);
    sm__kv_convert(ctx, type, v, n, values + (size_t)lane * sm__kv_value(type, n),
                   scales + lane * (n / SM__QK), temp);
}

/* Queries or keys of one row: as SM__ARCH_QK_NORM... has it. */
static void sm__norm_heads(sm_ctx *ctx, float *x, const float *w, int n_heads) {
    int flags = ctx->model->arch->flags;
    int dim = ctx->model->hp.head_dim, h;
    if (flags & SM__ARCH_QK_NORM_ROW) dim *= n_heads, n_heads = 1;
    for (h = 0; h < n_heads; h++, x += dim) {
        sm__norm_into(ctx, x, w, NULL, x, dim);
        if (flags & SM__ARCH_QK_NORM_HEADS) w += dim;
    }
}

static void sm__tile_kv_put(sm_ctx *ctx, const sm__step *s, int row, unsigned char *scratch) {
    const sm__hparams *hp = &ctx->model->hp;
    int entry = ctx->chunk + row, at = ctx->positions[entry], h, dim = hp->head_dim;
    float *q = sm__row_f32(ctx, s->in.x, row), *k = sm__row_f32(ctx, s->k, row);
    float *v = sm__row_f32(ctx, s->v, row);
    void *block = sm__kv_row(ctx, ctx->seqs[entry])[at / SM__KV_BLOCK];
    if (s->norm) sm__norm_heads(ctx, q, s->norm, hp->n_heads);
    if (s->k_norm) sm__norm_heads(ctx, k, s->k_norm, hp->n_kv_heads);
    if (s->out.x.stride) {
        const float *c = sm__row_f32(ctx, s->out.x, row), *sn = c + hp->n_rot / 2;
        int half = hp->pos == SM__POS_ROPE_HALF;
        ctx->kernels.rope(q, hp->n_heads, dim, hp->n_rot, c, sn, half);
        ctx->kernels.rope(k, hp->n_kv_heads, dim, hp->n_rot, c, sn, half);
    }
    for (h = 0; h < hp->n_kv_heads; h++) {
        unsigned char *head = sm__kv_head(ctx, block, s->layer, h);
        sm__kv_put_key(ctx, head, at % SM__KV_BLOCK, k + h * dim, scratch);
        sm__kv_put_value(ctx, head + ctx->kv.key_bytes, at % SM__KV_BLOCK, v + h * dim, scratch);
    }
}

/* One part for up to SM__ATTEND_ROWS query rows: collected here, then handed to the kernel. */
typedef struct sm__attend_job {
    sm__attend_args args;
    const void *keys[4], *values[4];
    const float *q[SM__ATTEND_ROWS];
    int first[SM__ATTEND_ROWS], n_keys[SM__ATTEND_ROWS];
    float *o[SM__ATTEND_ROWS];   /* where the kernel writes */
    float *state[SM__ATTEND_ROWS]; /* NULL, or the running (m, s) that the part joins */
    float *sum[SM__ATTEND_ROWS]; /* the running o */
    float m[SM__ATTEND_ROWS], s[SM__ATTEND_ROWS];
    float *parts; /* [SM__ATTEND_ROWS, D] for results that join a running one */
} sm__attend_job;

static void sm__attend_begin(sm_ctx *ctx, sm__attend_job *job, int layer, int head, int seq,
                             int part, int last_key, unsigned char *scratch) {
    void **row = sm__kv_row(ctx, seq);
    int i, dim = ctx->model->hp.head_dim;
    for (i = 0; i < 4; i++) { /* blocks behind the last key are not touched: repeat one that is */
        int block = sm__min(part * 4 + i, last_key / SM__KV_BLOCK);
        unsigned char *keys = sm__kv_head(ctx, row[block], layer, head);
        job->keys[i] = keys;
        job->values[i] = keys + ctx->kv.key_bytes;
    }
    i = sm__min(part * 4 + 4, last_key / SM__KV_BLOCK);
    job->args.next = sm__kv_head(ctx, row[i], layer, head);
    job->args.keys = job->keys, job->args.values = job->values;
    job->args.q = job->q, job->args.o = job->o;
    job->args.first = job->first, job->args.n_keys = job->n_keys;
    job->args.m = job->m, job->args.s = job->s;
    job->args.n_q = 0;
    job->args.head_dim = dim;
    job->args.scale = ctx->score_scale;
    job->args.cap = (float)ctx->model->hp.score_cap;
    job->args.scores = (float *)(void *)scratch;
    job->parts = job->args.scores + SM__ATTEND_ROWS * SM__PART;
}

static void sm__attend_flush(sm_ctx *ctx, sm__attend_job *job) {
    int i, dim = job->args.head_dim;
    if (!job->args.n_q) return;
    ctx->kernels.attend_keys(ctx->kv.key_type, &job->args);
    ctx->kernels.attend_values(ctx->kv.value_type, &job->args);
    for (i = 0; i < job->args.n_q; i++) {
        float *state = job->state[i];
        if (job->o[i] != job->sum[i]) {
            ctx->kernels.merge(&state[0], &state[1], job->sum[i], job->m[i], job->s[i], job->o[i],
                               dim);
        } else {
            state[0] = job->m[i];
            state[1] = job->s[i];
        }
    }
    job->args.n_q = 0;
}

/* The first key that the row at a position sees. */
SM__INLINE int sm__first_key(const sm__step *s, int at) {
    return s->window ? sm__max(0, at + 1 - s->window) : 0;
}

/* A query row whose part goes to (state, sum): as the first one, or joining what is there. */
static void sm__attend_add(sm_ctx *ctx, sm__attend_job *job, const float *q, int first, int n_keys,
                           float *state, float *sum, int joins) {
    int i = job->args.n_q++, pad = (int)sm__round_up((size_t)job->args.head_dim, 16);
    job->q[i] = q;
    job->first[i] = first;
    job->n_keys[i] = n_keys;
    job->state[i] = state;
    job->sum[i] = sum;
    job->o[i] = joins ? job->parts + (size_t)i * (size_t)pad : sum;
    if (job->args.n_q == SM__ATTEND_ROWS) sm__attend_flush(ctx, job);
}

/* Split: (m, s, o[D]) of one part of one row and head. */
static float *sm__part_at(const sm_ctx *ctx, const sm__step *s, int row, int head, int part) {
    const sm__hparams *hp = &ctx->model->hp;
    size_t i = ((size_t)row * (size_t)hp->n_heads + (size_t)head) * (size_t)ctx->max_parts;
    return (float *)(void *)(ctx->scratch + s->v.at + (i + (size_t)part) * sm__part_stride(hp));
}

static void sm__tile_attend_split(sm_ctx *ctx, const sm__step *s, int tile,
                                  unsigned char *scratch) {
    const sm__hparams *hp = &ctx->model->hp;
    int skip = s->window ? ctx->window_part : 0, n_parts = ctx->n_parts - skip;
    int per_head = hp->n_heads / hp->n_kv_heads, part = skip + tile % n_parts, g;
    int head = tile / n_parts % hp->n_kv_heads, row = tile / n_parts / hp->n_kv_heads;
    int entry = ctx->chunk + row, at = ctx->positions[entry];
    int n = sm__min(at + 1 - part * SM__PART, SM__PART);
    int first = sm__max(0, sm__first_key(s, at) - part * SM__PART);
    sm__attend_job job;
    if (n <= 0 || first >= SM__PART) return; /* this row has fewer parts */
    sm__attend_begin(ctx, &job, s->layer, head, ctx->seqs[entry], part, at, scratch);
    for (g = head * per_head; g < (head + 1) * per_head; g++) {
        float *p = sm__part_at(ctx, s, row, g, part);
        const float *q = sm__row_f32(ctx, s->in.x, row) + g * hp->head_dim;
        sm__attend_add(ctx, &job, q, first, n, p, p + 2, 0);
    }
    sm__attend_flush(ctx, &job);
}

static void sm__tile_attend(sm_ctx *ctx, const sm__step *s, int phase, int tile,
                            unsigned char *scratch) {
    const sm__hparams *hp = &ctx->model->hp;
    int per_head = hp->n_heads / hp->n_kv_heads, head = tile % hp->n_kv_heads, part, row, g;
    sm__group group = ctx->groups[tile / hp->n_kv_heads];
    int end = group.row + group.n, last = ctx->positions[ctx->chunk + end - 1];
    int seq = ctx->seqs[ctx->chunk + group.row];
    int begin = phase * ctx->phase_parts + (s->window ? ctx->window_part : 0);
    sm__attend_job job;
    for (part = begin; part < begin + ctx->phase_parts && part * SM__PART <= last; part++) {
        if (sm__first_key(s, ctx->positions[ctx->chunk + group.row]) / SM__PART > part) continue;
        sm__attend_begin(ctx, &job, s->layer, head, seq, part, last, scratch);
        for (row = group.row; row < end; row++) {
            int at = ctx->positions[ctx->chunk + row], n = at + 1 - part * SM__PART;
            int first = sm__first_key(s, at) - part * SM__PART;
            if (n <= 0 || first >= SM__PART) continue;
            for (g = head * per_head; g < (head + 1) * per_head; g++)
                sm__attend_add(ctx, &job, sm__row_f32(ctx, s->in.x, row) + g * hp->head_dim,
                               sm__max(0, first), sm__min(n, SM__PART),
                               sm__row_f32(ctx, s->k, row) + 2 * g,
                               sm__row_f32(ctx, s->out.x, row) + g * hp->head_dim,
                               first < 0);
        }
        sm__attend_flush(ctx, &job);
    }
}

static void sm__tile_merge(sm_ctx *ctx, const sm__step *s, int row) {
    const sm__hparams *hp = &ctx->model->hp;
    int h, part, dim = hp->head_dim, at = ctx->positions[ctx->chunk + row];
    int first = sm__first_key(s, at) / SM__PART;
    for (h = 0; h < hp->n_heads; h++) {
        float *state = sm__row_f32(ctx, s->k, row) + 2 * h;
        float *o = sm__row_f32(ctx, s->out.x, row) + h * dim;
        for (part = first; ctx->split && part * SM__PART <= at; part++) {
            const float *p = sm__part_at(ctx, s, row, h, part);
            if (part == first) {
                memcpy(state, p, 2 * sizeof(float));
                memcpy(o, p + 2, (size_t)dim * sizeof(float));
            } else {
                ctx->kernels.merge(&state[0], &state[1], o, p[0], p[1], p + 2, dim);
            }
        }
        ctx->kernels.scale(o, sm__div(1.0f, state[1]), dim);
    }
    sm__quant_row(ctx, &s->out, row);
}

static void sm__tile_act(sm_ctx *ctx, const sm__step *s, int row) {
    float *up = sm__row_f32(ctx, s->in.x, row), *gate = sm__row_f32(ctx, s->k, row);
    int n = s->in.x.width, i;
    switch (ctx->model->hp.ffn) {
    case SM__FFN_SWIGLU: ctx->kernels.swiglu(gate, up, up, n); break;
    case SM__FFN_GELU_TANH: ctx->kernels.gelu_tanh(up, up, n); break;
    case SM__FFN_GELU_ERF: ctx->kernels.gelu_erf(up, up, n); break;
    case SM__FFN_GEGLU:
        ctx->kernels.gelu_tanh(gate, gate, n);
        ctx->kernels.mul(gate, up, n);
        break;
    default:
        for (i = 0; i < n; i++) gate[i] = gate[i] < 0.0f ? 0.0f : gate[i];
        ctx->kernels.mul(gate, up, n);
        ctx->kernels.mul(gate, up, n);
        break;
    }
    sm__quant_row(ctx, &s->out, row);
}

/* x += scale * norm(y) */
static void sm__tile_add(sm_ctx *ctx, const sm__step *s, int row) {
    float *y = sm__row_f32(ctx, s->in.x, row), scale = (float)ctx->model->hp.residual_scale;
    int n = s->in.x.width;
    if (s->norm) sm__norm_into(ctx, y, s->norm, NULL, y, n);
    if (scale != 1.0f) ctx->kernels.scale(y, scale, n);
    ctx->kernels.add(y, sm__row_f32(ctx, s->out.x, row), n);
}

static void sm__step_tile(sm_ctx *ctx, const sm__step *s, int phase, int tile, int member) {
    unsigned char *scratch = ctx->member_scratch + (size_t)member * ctx->member_bytes;
    int rows = s->wanted_rows ? ctx->n_wanted : ctx->n_chunk;
    int row = tile * s->tile_t, end = sm__min(row + s->tile_t, rows);
    switch (s->op) {
    case SM__OP_MATMUL:
    case SM__OP_LOGITS: sm__tile_matmul(ctx, s, tile, scratch); return;
    case SM__OP_ATTEND:
        if (ctx->split) sm__tile_attend_split(ctx, s, tile, scratch);
        else sm__tile_attend(ctx, s, phase, tile, scratch);
        return;
    default: break;
    }
    for (; row < end; row++) switch (s->op) {
        case SM__OP_EMBED: sm__tile_embed(ctx, s, row); break;
        case SM__OP_ROTARY: sm__tile_rotary(ctx, s, row); break;
        case SM__OP_NORM: sm__tile_norm(ctx, s, row); break;
        case SM__OP_KV_PUT: sm__tile_kv_put(ctx, s, row, scratch); break;
        case SM__OP_MERGE: sm__tile_merge(ctx, s, row); break;
        case SM__OP_ADD: sm__tile_add(ctx, s, row); break;
        default: sm__tile_act(ctx, s, row); break;
        }
}

/* ================================================================================================
 * MARK: [SM38] EVALUATION
 * A pass: reserve KV blocks, walk the tape for each chunk of the batch, commit the lengths. The
 * walk is a sequence of runs (step, phase). Members take tiles of the current run from the ticket;
 * whoever finishes a run's last tile prepares the next one, doing small runs on the spot, so that
 * they cost no barrier. The driver (the thread in sm_eval_step) watches time and cancellation; to
 * stop, it closes the ticket and waits for the tiles that are out, one tile at most.
 * ============================================================================================== */

#define SM__RUN_END 0xfffffffeu
#define SM__WALKING 0xfffffffd00000000u /* ticket: the driver prepares the next run */

/* Fills in the chunk that starts at entry `first`. */
static void sm__chunk_set(sm_ctx *ctx, int first) {
    const sm__hparams *hp = &ctx->model->hp;
    int n = sm__min(ctx->params.n_batch, ctx->n_batch - first), row, i, last = 0, limit;
    int low = ctx->positions[first];
    int shape[5];
    double key_ns;
    ctx->chunk = first;
    ctx->n_chunk = n;
    ctx->n_wanted = ctx->n_groups = 0;
    for (row = 0; row < n; row++) {
        if (ctx->logits_row[first + row] >= 0) ctx->wanted[ctx->n_wanted++] = row;
        last = sm__max(last, ctx->positions[first + row]);
        low = sm__min(low, ctx->positions[first + row]);
    }
    ctx->n_parts = last / SM__PART + 1;
    ctx->window_part = hp->window ? sm__max(0, low + 1 - hp->window) / SM__PART : 0;
    ctx->split = n <= ctx->split_rows;
    ctx->phase_parts = ctx->kernels.isa == SM_ISA_SCALAR ? 1 : 4;
    /* query rows that share a tile: bounded by the kernel and by a tile's time */
    key_ns = 4.0 * hp->n_heads / hp->n_kv_heads * hp->head_dim /
             sm__speeds[ctx->kernels.isa].flops;
    limit = (int)(SM__TILE_NS / (key_ns * SM__PART * sm__min(ctx->phase_parts, ctx->n_parts)));
    limit = sm__max(1, sm__min(limit, SM__ATTEND_ROWS * hp->n_kv_heads / hp->n_heads));
    for (row = 0; row < n; row++) {
        sm__group *g = ctx->n_groups ? &ctx->groups[ctx->n_groups - 1] : NULL;
        if (g && g->n < limit && ctx->seqs[first + g->row] == ctx->seqs[first + row]) {
            g->n++;
        } else {
            ctx->groups[ctx->n_groups].row = row;
            ctx->groups[ctx->n_groups++].n = 1;
        }
    }
    shape[0] = n, shape[1] = ctx->n_wanted, shape[2] = ctx->n_groups, shape[3] = ctx->n_parts;
    shape[4] = ctx->window_part;
    if (memcmp(shape, ctx->shape, sizeof shape) == 0) return; /* most decode steps */
    memcpy(ctx->shape, shape, sizeof shape);
    for (i = 0; i < ctx->n_steps; i++) sm__step_shape(ctx, &ctx->steps[i]);
}

/* The run after `run`; steps without tiles are passed over. The chunk's end starts the next one. */
static uint32_t sm__run_after(sm_ctx *ctx, uint32_t run) {
    uint32_t step = run >> 12, phase = (run & 0xfffu) + 1;
    if (phase >= ctx->steps[step].phases) step++, phase = 0;
    for (;; step++) {
        if (step == (uint32_t)ctx->n_steps) {
            if (ctx->chunk + ctx->n_chunk >= ctx->n_batch) return SM__RUN_END;
            sm__chunk_set(ctx, ctx->chunk + ctx->n_chunk);
            step = 0;
        }
        if (ctx->steps[step].tiles) return step << 12 | phase;
    }
}

static void sm__trace_step(sm_ctx *ctx, const sm__step *s) {
    sm_trace trace;
    int rows = s->wanted_rows ? ctx->n_wanted : ctx->n_chunk, i, r;
    memset(&trace, 0, sizeof trace);
    trace.step = s->name;
    trace.layer = s->layer;
    trace.row0 = ctx->chunk;
    for (i = 0; i < 3; i++) { /* a step shows each of its outputs; rows of logits one by one */
        sm__buf b = s->op == SM__OP_MATMUL ? s->dst[i] : i ? sm__no_buf() : s->out.x;
        if (s->op == SM__OP_KV_PUT) b = i == 0 ? s->in.x : i == 1 ? s->k : s->v;
        if (s->op == SM__OP_LOGITS || !b.stride) break;
        trace.rows = rows;
        trace.width = b.width;
        trace.stride = b.stride / sizeof(float);
        trace.data = sm__row_f32(ctx, b, 0);
        ctx->params.trace(ctx->params.trace_user, &trace);
    }
    for (r = 0; s->op == SM__OP_LOGITS && r < rows; r++) {
        trace.row0 = ctx->chunk + ctx->wanted[r];
        trace.rows = 1;
        trace.width = ctx->model->hp.n_vocab;
        trace.data = ctx->rows[ctx->logits_row[trace.row0]];
        ctx->params.trace(ctx->params.trace_user, &trace);
    }
}

static void sm__run_finished(sm_ctx *ctx) {
    sm__step *s = &ctx->steps[ctx->run >> 12];
    if (ctx->params.profile) {
        uint64_t now = sm__now_ns();
        uint64_t rows = (uint64_t)(s->wanted_rows ? ctx->n_wanted : ctx->n_chunk);
        int i;
        s->ns += now - ctx->run_start;
        s->calls++;
        ctx->run_start = now;
        for (i = 0; i < s->n_w; i++) {
            s->bytes += s->w[i]->stride * (uint64_t)s->w[i]->n;
            s->ops += 2u * (uint64_t)s->w[i]->n * (uint64_t)s->w[i]->k * rows;
        }
    }
    if (ctx->params.trace && (ctx->run & 0xfffu) + 1 == s->phases) sm__trace_step(ctx, s);
}

/* Called by the one member that holds the walk (no tile is out): goes on from `run`, doing runs of
 * one tile itself, until it has published a run of many tiles, finished, or the driver wants a
 * pause. `expected` is the ticket as this member left it: when the driver closed it meanwhile, the
 * walk is handed over to whoever resumes. */
static void sm__pass_advance(sm_ctx *ctx, uint32_t run, uint64_t expected, int member,
                             uint64_t deadline) {
    sm__pass *p = &ctx->pass;
    uint64_t ticket = SM__CLOSED;
    int worked = expected != SM__WALKING; /* a budget that is already spent buys one tile */
    for (; run != SM__RUN_END; run = sm__run_after(ctx, run)) {
        const sm__step *s = &ctx->steps[run >> 12];
        ctx->run = run;
        if (s->tiles > 1) {
            ticket = (uint64_t)run << 32 | s->tiles;
            sm__store32(&p->done, 0);
            break;
        }
        if (sm__load32(&p->pause) || sm__load32(&ctx->cancel_id) == ctx->pass_id ||
            (worked && deadline && sm__now_ns() >= deadline))
            break;
        sm__step_tile(ctx, s, (int)(run & 0xfffu), 0, member);
        sm__run_finished(ctx);
        worked = 1;
    }
    ctx->next_run = run;
    if (run == SM__RUN_END) {
        sm__store32(&ctx->finished, 1);
    } else if (ticket == SM__CLOSED || !sm__cas64(&p->ticket, &expected, ticket)) {
        sm__store32(&ctx->handoff, 1); /* the driver may be looking */
    } else if (ctx->team && ctx->steps[run >> 12].run_ns > 200000) {
        sm__team_notify(ctx->team);
    }
}

/* Take one tile and do it. 0 = there was none. */
static int sm__pass_work(sm_ctx *ctx, int member, uint64_t deadline) {
    sm__pass *p = &ctx->pass;
    uint64_t ticket = sm__load64(&p->ticket);
    const sm__step *s;
    uint32_t run, left, tiles;
    if ((uint32_t)ticket == 0) return 0;
    sm__add32(&p->inside, 1);
    ticket = sm__load64(&p->ticket);
    do {
        if ((uint32_t)ticket == 0) {
            sm__add32(&p->inside, (uint32_t)-1);
            return 0;
        }
    } while (!sm__cas64(&p->ticket, &ticket, ticket - 1));
    run = (uint32_t)(ticket >> 32);
    left = (uint32_t)ticket;
    s = &ctx->steps[run >> 12];
    tiles = s->tiles; /* once our tile counts as done, another member may shape the next chunk */
    sm__step_tile(ctx, s, (int)(run & 0xfffu), (int)(tiles - left), member);
    if (sm__add32(&p->done, 1) + 1 == tiles) {
        sm__run_finished(ctx);
        sm__pass_advance(ctx, sm__run_after(ctx, run), (uint64_t)run << 32, member, deadline);
    }
    sm__add32(&p->inside, (uint32_t)-1);
    return 1;
}

/* A team member's part: work until the pass stands still, or there was nothing for a while. */
static void sm__pass_help(sm__pass *pass, int slot) {
    sm_ctx *ctx = (sm_ctx *)(void *)pass;
    uint64_t fp = sm__fp_enter();
    int round = 0;
    while (round < SM__SPIN_ROUNDS && sm__load64(&pass->ticket) != SM__CLOSED) {
        if (sm__pass_work(ctx, slot, 0)) round = 0;
        else sm__wait_a_little(round++);
    }
    sm__fp_leave(fp);
}

/* The driver stops the walk: no new tiles, and those that are out are waited for. */
static uint64_t sm__pass_pause(sm_ctx *ctx) {
    sm__pass *p = &ctx->pass;
    uint64_t old;
    int round = 0;
    sm__store32(&p->pause, 1);
    old = sm__swap64(&p->ticket, SM__CLOSED);
    while (sm__load32(&p->inside)) sm__wait_a_little(round++);
    sm__store32(&p->pause, 0);
    return old;
}

/* Undo the reservations of a pass that did not happen. */
static void sm__kv_rollback(sm_ctx *ctx) {
    int i;
    for (i = ctx->n_changes - 1; i >= 0; i--) {
        sm__kv_change c = ctx->changes[i];
        void **row = sm__kv_row(ctx, c.seq);
        sm_pool_return(ctx->pool, row[c.index]);
        row[c.index] = c.before;
    }
    ctx->n_changes = 0;
}

static void sm__rows_return(sm_ctx *ctx) {
    int i;
    for (i = 0; i < ctx->n_rows; i++) sm_pool_return(ctx->pool, ctx->rows[i]);
    ctx->n_rows = ctx->n_batch = 0;
}

static void sm__pass_rollback(sm_ctx *ctx) {
    sm__kv_rollback(ctx);
    sm__rows_return(ctx);
    sm__store32(&ctx->pass_id, 0);
}

static void sm__pass_commit(sm_ctx *ctx) {
    int i;
    for (i = 0; i < ctx->n_changes; i++) sm_pool_return(ctx->pool, ctx->changes[i].before);
    for (i = 0; i < ctx->params.n_seqs; i++) ctx->seq_length[i] += ctx->seq_new[i];
    ctx->n_changes = 0;
    ctx->n_passes++;
    ctx->n_tokens += (uint64_t)ctx->n_batch;
    sm__store32(&ctx->pass_id, 0);
}

/* Whether a sequence may write behind its tokens in a block: when it is the only owner, or the only
 * one left: all others were given copies in this pass and, should it be undone, get back a block
 * whose tokens are untouched, because theirs end no later. */
static int sm__kv_writable(const sm_ctx *ctx, int seq, const void *block) {
    uint32_t left = sm_pool_owners(ctx->pool, block);
    int i;
    for (i = 0; i < ctx->n_changes && left > 1; i++)
        if (ctx->changes[i].before == block &&
            ctx->seq_length[ctx->changes[i].seq] <= ctx->seq_length[seq])
            left--;
    return left == 1;
}

/* Makes block `index` of a sequence present and its own. */
static sm_status sm__kv_reserve(sm_ctx *ctx, int seq, int index) {
    void **row = sm__kv_row(ctx, seq), *block;
    sm__kv_change *c = &ctx->changes[ctx->n_changes];
    if (row[index] && sm__kv_writable(ctx, seq, row[index])) return SM_OK;
    block = sm__pool_rent_class(ctx->pool, ctx->kv.pool_class);
    if (!block)
        return sm__fail(&ctx->error, SM_ERR_FULL, "eval: no free KV block (%d in all)",
                        (int)ctx->pool->classes[ctx->kv.pool_class].count);
    c->seq = seq;
    c->index = index;
    c->before = row[index];
    ctx->n_changes++;
    if (row[index]) memcpy(block, row[index], ctx->kv.block_bytes);
    row[index] = block;
    return SM_OK;
}

/* Checks a batch; changes nothing but the counts in seq_new. */
static sm_status sm__batch_check(sm_ctx *ctx, const sm_batch *b) {
    int i, n_rows = 0;
    if (b->n < 1 || !b->tokens)
        return sm__fail(&ctx->error, SM_ERR_ARG, "eval: an empty batch");
    memset(ctx->seq_new, 0, (size_t)ctx->params.n_seqs * sizeof *ctx->seq_new);
    for (i = 0; i < b->n; i++) {
        int seq = b->seqs ? b->seqs[i] : 0;
        n_rows += b->want ? b->want[i] != 0 : i == b->n - 1;
        if (b->tokens[i] < 0 || b->tokens[i] >= ctx->model->hp.n_vocab)
            return sm__fail(&ctx->error, SM_ERR_ARG, "eval: token %d is %d, not in [0, %d)", i,
                            (int)b->tokens[i], ctx->model->hp.n_vocab);
        if (seq < 0 || seq >= ctx->params.n_seqs)
            return sm__fail(&ctx->error, SM_ERR_ARG, "eval: entry %d: sequence %d, not in [0, %d)",
                            i, seq, ctx->params.n_seqs);
        if (ctx->seq_length[seq] + ctx->seq_new[seq]++ >= ctx->params.n_ctx)
            return sm__fail(&ctx->error, SM_ERR_FULL, "eval: sequence %d is full (%d tokens)", seq,
                            ctx->params.n_ctx);
    }
    if (n_rows > ctx->params.max_logits)
        return sm__fail(&ctx->error, SM_ERR_FULL, "eval: %d rows of logits, max_logits is %d",
                        n_rows, ctx->params.max_logits);
    if (b->n > ctx->max_batch)
        return sm__fail(&ctx->error, SM_ERR_FULL, "eval: %d tokens, the KV cache takes %d", b->n,
                        ctx->max_batch);
    return SM_OK;
}

/* The blocks that a checked batch writes; all or none. Sequences that end early in a block come
 * first: so the last owner of a shared block can keep it (sm__kv_writable). */
static sm_status sm__batch_reserve(sm_ctx *ctx) {
    sm_status status = SM_OK;
    int n = ctx->params.n_seqs, turns = n > 1 ? SM__KV_BLOCK : 1, turn, seq, i;
    ctx->n_changes = 0;
    for (turn = 0; turn < turns; turn++)
        for (seq = 0; seq < n && status == SM_OK; seq++) {
            int from = ctx->seq_length[seq], to = from + ctx->seq_new[seq];
            if (from == to || from % turns != turn) continue;
            for (i = from / SM__KV_BLOCK; i * SM__KV_BLOCK < to && status == SM_OK; i++)
                status = sm__kv_reserve(ctx, seq, i);
        }
    if (status != SM_OK) sm__kv_rollback(ctx);
    return status;
}

/* Copies a checked batch and rents its rows of logits; the last pass's rows go back. */
static void sm__batch_take(sm_ctx *ctx, const sm_batch *b) {
    int i;
    sm__rows_return(ctx);
    memset(ctx->seq_new, 0, (size_t)ctx->params.n_seqs * sizeof *ctx->seq_new);
    for (i = 0; i < b->n; i++) {
        int seq = b->seqs ? b->seqs[i] : 0, want = b->want ? b->want[i] != 0 : i == b->n - 1;
        ctx->tokens[i] = b->tokens[i];
        ctx->seqs[i] = seq;
        ctx->positions[i] = ctx->seq_length[seq] + ctx->seq_new[seq]++;
        ctx->logits_row[i] = want ? ctx->n_rows : -1;
        if (want) ctx->rows[ctx->n_rows++] = (float *)sm__pool_rent_class(ctx->pool, 1);
    }
    ctx->n_batch = b->n;
}

SM_API sm_status sm_eval_begin(sm_ctx *ctx, const sm_batch *batch) {
    sm_status status;
    if (!ctx || !batch) return SM_ERR_ARG;
    if (sm__load32(&ctx->pass_id))
        return sm__fail(&ctx->error, SM_ERR_BUSY, "eval: a pass is pending");
    status = sm__batch_check(ctx, batch);
    if (status == SM_OK) status = sm__batch_reserve(ctx);
    if (status != SM_OK) return status;
    sm__batch_take(ctx, batch);
    sm__store32(&ctx->finished, 0);
    sm__store32(&ctx->cancel_id, 0);
    sm__chunk_set(ctx, 0);
    sm__store32(&ctx->handoff, 1);
    ctx->next_run = 0;
    if (++ctx->pass_count == 0) ctx->pass_count = 1;
    sm__store32(&ctx->pass_id, ctx->pass_count);
    return SM_OK;
}

/* Work on the pending pass until it ends, is cancelled, or the deadline (0 = none) has passed. */
static sm_status sm__pass_drive(sm_ctx *ctx, uint64_t deadline) {
    sm__pass *p = &ctx->pass;
    uint32_t id = ctx->pass_id;
    uint64_t ticket;
    int worked = 0, round = 0, cancelled = 0, late = 0;
    if (ctx->params.profile) ctx->run_start = sm__now_ns();
    if (ctx->team && !ctx->params.trace) sm__team_open(ctx->team, p);
    if (!sm__load32(&ctx->handoff))
        sm__swap64(&p->ticket, (uint64_t)ctx->next_run << 32 | ctx->resume_left);
    while (!sm__load32(&ctx->finished)) {
        cancelled = sm__load32(&ctx->cancel_id) == id;
        late = worked && deadline && sm__now_ns() >= deadline;
        if (cancelled || late) break;
        if (sm__load32(&ctx->handoff)) { /* the walk is ours: prepare its next run */
            sm__store32(&ctx->handoff, 0);
            sm__swap64(&p->ticket, SM__WALKING);
            sm__pass_advance(ctx, ctx->next_run, SM__WALKING, 0, deadline);
            worked = 1;
        } else if (sm__pass_work(ctx, 0, deadline)) {
            worked = 1;
            round = 0;
        } else {
            sm__wait_a_little(round++);
        }
    }
    ticket = sm__pass_pause(ctx);
    if (ctx->team && !ctx->params.trace) sm__team_close(ctx->team, p);
    if (sm__load32(&ctx->finished)) {
        sm__pass_commit(ctx);
        return SM_OK;
    }
    if (cancelled) {
        sm__pass_rollback(ctx);
        return sm__fail(&ctx->error, SM_ERR_CANCELLED, "eval: cancelled");
    }
    if (!sm__load32(&ctx->handoff)) {
        ctx->next_run = (uint32_t)(ticket >> 32);
        ctx->resume_left = (uint32_t)ticket;
    }
    return SM_PENDING;
}

SM_API sm_status sm_eval_step(sm_ctx *ctx, int64_t budget_us) {
    sm_status status;
    uint64_t fp, deadline = 0;
    if (!ctx) return SM_ERR_ARG;
    if (!sm__load32(&ctx->pass_id))
        return sm__fail(&ctx->error, SM_ERR_ARG, "eval: no pass is pending");
    if (budget_us >= 0) deadline = sm__now_ns() + (uint64_t)budget_us * 1000u;
    fp = sm__fp_enter();
    status = sm__pass_drive(ctx, deadline);
    sm__fp_leave(fp);
    return status;
}

SM_API sm_status sm_eval(sm_ctx *ctx, const sm_batch *batch) {
    sm_status status = sm_eval_begin(ctx, batch);
    return status == SM_OK ? sm_eval_step(ctx, -1) : status;
}

SM_API uint32_t sm_eval_pass(const sm_ctx *ctx) { return ctx ? sm__load32(&ctx->pass_id) : 0; }

SM_API void sm_cancel(sm_ctx *ctx, uint32_t pass) {
    uint32_t pending = sm_eval_pass(ctx);
    if (pending && (pass == 0 || pass == pending)) sm__store32(&ctx->cancel_id, pending);
}

SM_API const float *sm_logits(const sm_ctx *ctx, int i) {
    if (!ctx || sm__load32(&ctx->pass_id)) return NULL;
    if (i < 0) i += ctx->n_batch;
    if (i < 0 || i >= ctx->n_batch || ctx->logits_row[i] < 0) return NULL;
    return ctx->rows[ctx->logits_row[i]];
}

/* ================================================================================================
 * MARK: [SM39] SAMPLER
 * Candidates are (logit, id) pairs in the workspace. Nothing is sorted that need not be: top-k is a
 * heap of k, top-p takes candidates from a heap until the probability is reached. Ties are broken
 * by the lower id, so that the choice does not depend on how the work was done.
 * ============================================================================================== */

/* Philox4x32-10 (Salmon et al. 2011): ten rounds of multiply, xor and key schedule. */
SM_API uint32_t sm_random(uint64_t seed, uint64_t stream, uint64_t index) {
    uint32_t c0 = (uint32_t)index, c1 = (uint32_t)(index >> 32), c2 = (uint32_t)stream;
    uint32_t c3 = (uint32_t)(stream >> 32), k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    int round;
    for (round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return c0;
}

typedef struct sm__candidate {
    float logit;
    int32_t id;
} sm__candidate;

SM__INLINE int sm__better(sm__candidate a, sm__candidate b) {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

/* Binary heap with the best candidate on top (sign 1), or the worst (sign -1). */
static void sm__sift_down(sm__candidate *c, int n, int i, int worst_on_top) {
    for (;;) {
        int child = 2 * i + 1;
        sm__candidate x = c[i];
        if (child >= n) return;
        if (child + 1 < n && sm__better(c[child + 1], c[child]) != worst_on_top) child++;
        if (sm__better(c[child], x) == worst_on_top) return;
        c[i] = c[child];
        c[child] = x;
        i = child;
    }
}

static void sm__heapify(sm__candidate *c, int n, int worst_on_top) {
    int i;
    for (i = n / 2 - 1; i >= 0; i--) sm__sift_down(c, n, i, worst_on_top);
}

/* Moves the best k to the front, in no order; returns how many there are. O(n log k). */
static int sm__keep_top_k(sm__candidate *c, int n, int k) {
    int i;
    if (k <= 0 || k >= n) return n;
    sm__heapify(c, k, 1);
    for (i = k; i < n; i++) {
        if (!sm__better(c[i], c[0])) continue;
        c[0] = c[i];
        sm__sift_down(c, k, 0, 1);
    }
    return k;
}

/* Sorts the best candidates to the front until their probability reaches p; returns their number.
 * The heap shrinks from the back, the sorted ones gather behind it and are moved to the front. */
static int sm__keep_top_p(sm__candidate *c, int n, float p, float best, double total) {
    double sum = 0.0;
    int kept = 0, i;
    sm__heapify(c, n, 0);
    while (kept < n && sum < (double)p * total) {
        sm__candidate top = c[0];
        int left = n - kept - 1;
        sum += (double)sm__exp(top.logit - best);
        c[0] = c[left];
        c[left] = top; /* sorted ones: c[left .. n), worst first */
        kept++;
        sm__sift_down(c, left, 0, 0);
    }
    for (i = 0; i < kept / 2; i++) { /* best first */
        sm__candidate x = c[n - 1 - i];
        c[n - 1 - i] = c[n - kept + i];
        c[n - kept + i] = x;
    }
    memmove(c, c + n - kept, (size_t)kept * sizeof *c);
    return kept;
}

/* The softmax's denominator, relative to the best logit, in the order of the candidates. */
static double sm__candidate_sum(const sm__candidate *c, int n, float best, float scale) {
    double sum = 0.0;
    int i;
    for (i = 0; i < n; i++) sum += (double)sm__exp((c[i].logit - best) * scale);
    return sum;
}

static int sm__keep_min_p(sm__candidate *c, int n, float min_p, float best) {
    int i, kept = 0;
    for (i = 0; i < n; i++)
        if (sm__exp(c[i].logit - best) >= min_p) c[kept++] = c[i];
    return kept;
}

/* Divides (multiplies, when negative) the logits of recent ids, each id once. */
static void sm__penalise(const sm_sampler *s, sm__candidate *c, int n_vocab, const int32_t *recent,
                         int n_recent) {
    int i, j, window = s->repeat_window > 0 ? s->repeat_window : 64;
    int first = n_recent > window ? n_recent - window : 0;
    for (i = first; i < n_recent; i++) {
        int32_t id = recent[i];
        int seen = 0;
        for (j = first; j < i && !seen; j++) seen = recent[j] == id;
        if (seen || id < 0 || id >= n_vocab) continue;
        if (c[id].logit > 0.0f) c[id].logit = sm__div(c[id].logit, s->repeat_penalty);
        else c[id].logit *= s->repeat_penalty;
    }
}

static int32_t sm__argmax(const float *logits, int n) {
    int i, best = -1;
    float value = -SM__INFINITY;
    for (i = 0; i < n; i++)
        if (logits[i] > value) value = logits[i], best = i;
    return best < 0 ? 0 : best;
}

static int32_t sm__draw(const sm_sampler *s, const sm__candidate *c, int n, float best,
                        uint32_t random) {
    float scale = sm__div(1.0f, s->temperature);
    double at = (double)random * (1.0 / 4294967296.0) * sm__candidate_sum(c, n, best, scale);
    int i;
    for (i = 0; i < n - 1; i++) {
        at -= (double)sm__exp((c[i].logit - best) * scale);
        if (at < 0.0) break;
    }
    return c[i].id;
}

/* The pure choice; the caller has set the floating-point state. */
static int32_t sm__choose(const sm_sampler *s, const float *logits, int n_vocab,
                          const int32_t *recent, int n_recent, uint64_t stream, uint64_t index,
                          sm__candidate *c) {
    int i, n = n_vocab, penalty = s->repeat_penalty > 0.0f && s->repeat_penalty != 1.0f && n_recent;
    float best = -SM__INFINITY;
    int32_t best_id = 0;
    if (s->temperature <= 0.0f && !penalty) return sm__argmax(logits, n_vocab);
    if (!c) return -1;
    for (i = 0; i < n_vocab; i++) {
        c[i].logit = sm__bits(logits[i]) << 1 > 0xff000000u ? -SM__INFINITY : logits[i];
        c[i].id = i;
    }
    if (penalty) sm__penalise(s, c, n_vocab, recent, n_recent);
    for (i = 0; i < n; i++)
        if (c[i].logit > best) best = c[i].logit, best_id = c[i].id;
    if (s->temperature <= 0.0f || sm__not_finite(best) ||
        sm__not_finite(sm__div(1.0f, s->temperature)))
        return best_id;
    n = sm__keep_top_k(c, n, s->top_k);
    if (s->top_p > 0.0f && s->top_p < 1.0f)
        n = sm__keep_top_p(c, n, s->top_p, best, sm__candidate_sum(c, n, best, 1.0f));
    if (s->min_p > 0.0f) n = sm__keep_min_p(c, n, s->min_p < 1.0f ? s->min_p : 1.0f, best);
    return sm__draw(s, c, n, best, sm_random(s->seed, stream, index));
}

SM_API int32_t sm_sample(const sm_sampler *sampler, const float *logits, int n_vocab,
                         const int32_t *recent, int n_recent, uint64_t stream, uint64_t index,
                         void *work) {
    uint64_t fp;
    int32_t id;
    if (!sampler || !logits || n_vocab < 1 || n_recent < 0 || (n_recent && !recent)) return -1;
    fp = sm__fp_enter();
    id = sm__choose(sampler, logits, n_vocab, recent, n_recent, stream, index,
                    (sm__candidate *)work);
    sm__fp_leave(fp);
    return id;
}

/* ================================================================================================
 * MARK: [SM40] GENERATION
 * A small state machine over eval, sample and decode: prompt, then token after token. Text is held
 * back while it may still become a stop string. Everything lives in the context's block.
 * ============================================================================================== */

SM_API sm_gen_params sm_gen_default(void) {
    sm_gen_params p;
    memset(&p, 0, sizeof p);
    p.text_flags = SM_TEXT_BOS;
    return p;
}

SM__INLINE sm_gen *sm__gen_at(const sm_ctx *ctx, int seq) {
    return (sm_gen *)(void *)(ctx->gens + (size_t)seq * sm__gen_bytes(ctx->model));
}

/* Moves the first n held-back bytes behind what the piece has already. */
static void sm__gen_emit(sm_gen *g, size_t n) {
    memcpy(g->piece + g->n_piece, g->text, n);
    g->n_piece += n;
    g->piece[g->n_piece] = 0;
    g->n_text -= n;
    memmove(g->text, g->text + n, g->n_text);
}

static void sm__gen_finish(sm_gen *g, sm_finish finish) {
    g->stats.finish = finish;
    if (g->ctx->model->vocab.kind == SM__VOCAB_NONE || finish == SM_FINISH_STOP) return;
    sm__gen_emit(g, g->n_text); /* no stop string can complete any more */
    g->n_text = sm_decoder_flush(&g->decoder, g->text, 16);
    sm__gen_emit(g, g->n_text);
}

static sm_status sm__gen_check(sm_ctx *ctx, const sm_gen_params *p) {
    int i;
    if (!p || p->seq < 0 || p->seq >= ctx->params.n_seqs || (!p->prompt == !p->prompt_ids))
        return sm__fail(&ctx->error, SM_ERR_ARG, "generate: give prompt or prompt_ids, and a seq");
    if (p->n_stops < 0 || p->n_stops > SMALLMIND_MAX_STOPS || p->n_stop_ids < 0 ||
        p->n_stop_ids > SMALLMIND_MAX_STOPS || (p->n_stops && !p->stops) ||
        (p->n_stop_ids && !p->stop_ids) || p->max_tokens < 0 || p->n_prompt_ids < 0)
        return sm__fail(&ctx->error, SM_ERR_ARG, "generate: at most %d stops; counts from 0",
                        SMALLMIND_MAX_STOPS);
    for (i = 0; i < p->n_stops; i++) {
        size_t n = p->stops[i] ? strlen(p->stops[i]) : 0;
        if (n < 1 || n > SMALLMIND_MAX_STOP_BYTES)
            return sm__fail(&ctx->error, SM_ERR_ARG, "generate: stop string %d has %d bytes", i,
                            (int)sm__min_size(n, 1u << 20));
    }
    if (p->prompt && !ctx->tokenizer)
        return sm__fail(&ctx->error, SM_ERR_UNSUPPORTED, "generate: the model has no vocabulary");
    if (sm__load32(&ctx->pass_id))
        return sm__fail(&ctx->error, SM_ERR_BUSY, "generate: a pass is pending");
    return SM_OK;
}

/* The prompt's ids into ids [room]; *n = how many there are. */
static sm_status sm__gen_prompt(sm_ctx *ctx, const sm_gen_params *p, int32_t *ids, int room,
                                int *n) {
    sm_status status = SM_OK;
    int i;
    if (p->prompt) {
        size_t bytes = p->prompt_bytes ? p->prompt_bytes : strlen(p->prompt);
        status = sm_tokenize(ctx->tokenizer, p->prompt, bytes, p->text_flags, ids, room, n);
        if (status == SM_ERR_ARG) return sm__fail(&ctx->error, status, "generate: a bad prompt");
    } else {
        *n = p->n_prompt_ids;
        if (*n > room) status = SM_ERR_FULL;
        else memcpy(ids, p->prompt_ids, (size_t)*n * sizeof *ids);
    }
    if (status != SM_OK)
        return sm__fail(&ctx->error, SM_ERR_FULL,
                        "generate: the prompt has %d tokens, there is room for %d (text: %d bytes)",
                        *n, room, ctx->params.max_text);
    for (i = 0; i < *n; i++)
        if (ids[i] < 0 || ids[i] >= ctx->model->hp.n_vocab)
            return sm__fail(&ctx->error, SM_ERR_ARG, "generate: id %d is %d", i, (int)ids[i]);
    if (*n < 1) return sm__fail(&ctx->error, SM_ERR_ARG, "generate: an empty prompt");
    return SM_OK;
}

/* A new generation in its slot; ids [n] are in place. */
static void sm__gen_init(sm_gen *g, sm_ctx *ctx, const sm_gen_params *p, int32_t *ids, int n) {
    size_t text = sm__gen_text_bytes(ctx->model);
    int i;
    memset(g, 0, sizeof *g);
    g->ctx = ctx;
    g->text = (char *)g + sm__round_up(sizeof *g, SM__ALIGN);
    g->piece = g->text + text;
    g->piece[0] = 0;
    g->ids = ids;
    g->n_ids = n;
    g->seq = p->seq;
    g->sampler = p->sampler;
    g->stream = p->stream ? p->stream : (uint64_t)p->seq;
    g->max_tokens = p->max_tokens;
    g->ignore_end = p->ignore_end;
    g->token = -1;
    g->n_stops = p->n_stops;
    for (i = 0; i < p->n_stops; i++) {
        g->stop_bytes[i] = strlen(p->stops[i]);
        memcpy(g->stops[i], p->stops[i], g->stop_bytes[i]);
    }
    g->n_stop_ids = p->n_stop_ids;
    for (i = 0; i < p->n_stop_ids; i++) g->stop_ids[i] = p->stop_ids[i];
    g->start = sm__now_ns();
    sm_decoder_init(&g->decoder);
}

SM_API sm_status sm_gen_start(sm_ctx *ctx, const sm_gen_params *p, sm_gen **out) {
    sm_gen *g;
    sm_status status;
    int32_t *ids;
    int n = 0, kept, left = 0;
    if (out) *out = NULL;
    if (!ctx || !out) return SM_ERR_ARG;
    status = sm__gen_check(ctx, p);
    if (status != SM_OK) return status;
    g = sm__gen_at(ctx, p->seq);
    ids = ctx->gen_ids + (size_t)p->seq * ((size_t)ctx->params.n_ctx + 1);
    kept = p->append ? ctx->seq_length[p->seq] : 0;
    if (p->append && g->ctx && g->end_length == kept) /* ids chosen last, not evaluated yet */
        left = g->n_ids - g->n_done;
    status = sm__gen_prompt(ctx, p, ctx->prompt_ids,
                            sm__max(0, ctx->params.n_ctx - kept - left), &n);
    if (status != SM_OK) return status;
    if (left) memmove(ids, ids + g->n_done, (size_t)left * sizeof *ids);
    memcpy(ids + left, ctx->prompt_ids, (size_t)n * sizeof *ids);
    sm_seq_rewind(ctx, p->seq, kept);
    sm__gen_init(g, ctx, p, ids, left + n);
    g->stats.prompt_tokens = n;
    g->end_length = kept;
    /* what continues a text keeps its leading space */
    g->decoder.started = kept > 0 || n > 1 || (n == 1 && ids[left] != ctx->model->vocab.bos);
    *out = g;
    return SM_OK;
}

/* How much of the held-back text may go out: all before a stop string, or before what may become
 * one. */
static size_t sm__gen_ready(const sm_gen *g, int *stopped) {
    size_t at;
    int i;
    for (at = 0; at < g->n_text; at++)
        for (i = 0; i < g->n_stops; i++)
            if (g->n_text - at >= g->stop_bytes[i] &&
                memcmp(g->text + at, g->stops[i], g->stop_bytes[i]) == 0) {
                *stopped = 1;
                return at;
            }
    for (at = 0; at < g->n_text; at++)
        for (i = 0; i < g->n_stops; i++)
            if (g->n_text - at < g->stop_bytes[i] &&
                memcmp(g->text + at, g->stops[i], g->n_text - at) == 0)
                return at;
    return g->n_text;
}

/* The chosen id joins ids and text. 1 = the generation ended. */
static int sm__gen_accept(sm_gen *g, int32_t id) {
    const sm_model *m = g->ctx->model;
    size_t room = sm__gen_text_bytes(m), bytes = 0;
    int i, stopped = 0, end = !g->ignore_end && sm_token_is_end(m, id);
    for (i = 0; i < g->n_stop_ids; i++) end |= g->stop_ids[i] == id;
    g->token = id;
    g->stats.new_tokens++;
    if (end) {
        sm__gen_finish(g, SM_FINISH_END);
        return 1;
    }
    g->ids[g->n_ids++] = id;
    if (m->vocab.kind != SM__VOCAB_NONE) {
        sm_decoder_push(&g->decoder, m, id, 0, g->text + g->n_text, room - g->n_text, &bytes);
        g->n_text += bytes;
        sm__gen_emit(g, sm__gen_ready(g, &stopped));
    }
    if (stopped) sm__gen_finish(g, SM_FINISH_STOP);
    else if (g->max_tokens && g->stats.new_tokens >= g->max_tokens)
        sm__gen_finish(g, SM_FINISH_LENGTH);
    return g->stats.finish != SM_FINISH_NONE;
}

/* Begin the pass for the ids that were not evaluated yet. */
static sm_status sm__gen_begin(sm_gen *g) {
    sm_ctx *ctx = g->ctx;
    sm_batch b;
    int i;
    b.n = g->n_ids - g->n_done;
    b.tokens = g->ids + g->n_done;
    b.want = NULL;
    b.seqs = NULL;
    if (b.n > ctx->max_batch) return SM_ERR_FULL;
    if (g->seq && !sm__load32(&ctx->pass_id)) { /* the context's own array lists the sequences */
        for (i = 0; i < b.n; i++) ctx->seqs[i] = g->seq;
        b.seqs = ctx->seqs;
    }
    return sm_eval_begin(ctx, &b);
}

/* The logits are there: choose, and take the times. */
static sm_status sm__gen_choose(sm_gen *g) {
    sm_ctx *ctx = g->ctx;
    uint64_t now = sm__now_ns();
    int32_t id;
    g->n_done = g->n_ids;
    g->end_length = ctx->seq_length[g->seq];
    if (!g->stats.new_tokens) g->stats.prompt_ns = now - g->start;
    id = sm_sample(&g->sampler, sm_logits(ctx, -1), ctx->model->hp.n_vocab, g->ids, g->n_ids,
                   g->stream, (uint64_t)g->stats.new_tokens, ctx->sample_work);
    now = sm__now_ns();
    if (!g->stats.new_tokens) g->stats.first_token_ns = now - g->start;
    else g->stats.decode_ns = now - g->start - g->stats.first_token_ns;
    return sm__gen_accept(g, id) ? SM_OK : SM_PENDING;
}

SM_API sm_status sm_gen_step(sm_gen *g, int64_t budget_us) {
    sm_status status;
    if (!g || !g->ctx) return SM_ERR_ARG;
    g->n_piece = 0;
    g->piece[0] = 0;
    g->token = -1;
    if (g->stats.finish != SM_FINISH_NONE) return SM_OK;
    if (!g->pending) {
        status = sm__gen_begin(g);
        if (status == SM_ERR_FULL && g->stats.new_tokens) {
            sm__gen_finish(g, SM_FINISH_FULL);
            return SM_OK;
        }
        if (status != SM_OK) {
            if (status != SM_ERR_BUSY) sm__gen_finish(g, SM_FINISH_ERROR);
            return status;
        }
        g->pending = 1;
    }
    status = sm_eval_step(g->ctx, budget_us);
    if (status == SM_PENDING) return status;
    g->pending = 0;
    if (status == SM_OK) return sm__gen_choose(g);
    sm__gen_finish(g, status == SM_ERR_CANCELLED ? SM_FINISH_CANCELLED : SM_FINISH_ERROR);
    return status;
}

SM_API const char *sm_gen_piece(const sm_gen *g, size_t *bytes) {
    if (bytes) *bytes = g ? g->n_piece : 0;
    return g ? g->piece : "";
}

SM_API int32_t sm_gen_token(const sm_gen *g) { return g ? g->token : -1; }

SM_API sm_gen_stats sm_gen_get_stats(const sm_gen *g) {
    sm_gen_stats none;
    memset(&none, 0, sizeof none);
    return g ? g->stats : none;
}

SM_API sm_status sm_generate(sm_ctx *ctx, const sm_gen_params *params,
                             int (*on_piece)(void *user, const char *piece, size_t bytes),
                             void *user, sm_gen_stats *stats) {
    sm_gen *g = NULL;
    sm_status status = sm_gen_start(ctx, params, &g);
    if (stats) memset(stats, 0, sizeof *stats);
    if (status != SM_OK) return status;
    do {
        status = sm_gen_step(g, -1);
        if (g->n_piece && on_piece && on_piece(user, g->piece, g->n_piece)) {
            if (status == SM_PENDING) g->stats.finish = SM_FINISH_CALLBACK, status = SM_OK;
        }
    } while (status == SM_PENDING);
    if (stats) *stats = g->stats;
    return status;
}

/* ================================================================================================
 * MARK: [SM41] TRAINER
 * The second tape, made from the same architecture row: forward steps that keep what their backward
 * needs, the loss, backward steps in reverse order, the optimiser. A backward step stands behind
 * its forward with its formula; dy is the gradient of the loss by y.
 *
 *   EMBED       x = E[id] + P[position]         EMBED_BACK   dE[id] += dx, dP[position] += dx
 *   NORM        y = norm(x) w + b               NORM_GRAD    dw, db;  NORM_BACK  dx
 *   LINEAR      y = x W^T + b (+ residual)      LINEAR_DW    dW, db;  LINEAR_DX  dx = dy W
 *   ROPE        q, k: head norm, rotation       ROPE_BACK    the inverse rotation
 *   ATTEND      softmax(q k^T) v                ATTEND_BACK  dq, dk, dv, weights computed again
 *   ACT         SwiGLU, GELU                    ACT_BACK
 *   LOSS        cross-entropy of 256 rows of logits at a time, which become their own gradients
 *   DROP                                        dropout's mask on dy
 *   DECODE, SCALE                               see LoRA, below
 *   ZERO, SQUARES, UPDATE                       over the flat arrays
 *
 * A tile writes what no other tile of its step writes, and sums are cut at fixed places only: the
 * bits do not depend on who does which tile, nor on how large tiles are. All products go through
 * sm__multiply.
 * ============================================================================================== */

#ifndef SMALLMIND_NO_TRAIN

#define SM__LOSS_ROWS 256  /* rows of logits that exist at once */
#define SM__FLAT_TILE 65536
#define SM__TILE_COLS 256
#define SM__GRAD_BLOCK 64  /* columns of other gradients' tiles */
#define SM__QUERY_ROWS 64  /* of attention */
#define SM__ROW_TILE 16    /* rows of a tile of row-wise steps */

enum { /* op */
    SM__TRAIN_EMBED,
    SM__TRAIN_EMBED_BACK,
    SM__TRAIN_NORM,
    SM__TRAIN_NORM_GRAD,
    SM__TRAIN_NORM_BACK,
    SM__TRAIN_LINEAR,
    SM__TRAIN_LINEAR_DX,
    SM__TRAIN_LINEAR_DW,
    SM__TRAIN_ROPE,
    SM__TRAIN_ROPE_BACK,
    SM__TRAIN_ATTEND,
    SM__TRAIN_ATTEND_BACK,
    SM__TRAIN_ACT,
    SM__TRAIN_ACT_BACK,
    SM__TRAIN_LOSS,
    SM__TRAIN_DROP,
    SM__TRAIN_DECODE,
    SM__TRAIN_SCALE,
    SM__TRAIN_ZERO,
    SM__TRAIN_SQUARES,
    SM__TRAIN_UPDATE
};

enum { SM__FORWARD = 1, SM__BACKWARD = 2, SM__ZERO = 4, SM__SQUARES = 8, SM__UPDATE = 16 };

typedef struct sm__mat { /* row r begins at p + r * stride (floats) */
    float *p;
    size_t stride;
    int width;
} sm__mat;

typedef struct sm__train_step {
    const char *name;
    uint8_t op, when, accumulate; /* when: SM__FORWARD ...; accumulate: out += */
    int layer, site;              /* site: of dropout, 0 = none */
    int row0, max_rows;           /* the piece of the rows; max_rows 0 = all of them */
    sm__mat in, in2, out, aux;
    const float *w, *b;
    float *gw, *gb; /* where gradients are added: [n, k], [n] */
    sm__weight frozen, frozen2; /* of LoRA: what DECODE decodes; EMBED: embeddings and positions */
    int n, k, heads;
    int cut, n_cut, tile_rows, tile_cols; /* of a product: the m it is cut for, and how */
    uint32_t tiles;
} sm__train_step;

typedef struct sm__train_tensor {
    char name[SM__MAX_NAME + 1];
    int rows, columns; /* rows 0: a vector */
    size_t at;         /* in the flat arrays */
    float deviation;   /* of the first values; 0 = zeros, negative = ones */
} sm__train_tensor;

typedef struct sm__train_bufs {
    size_t x_floats, slot_floats; /* from one checkpoint, one layer's slot, to the next */
    sm__mat x;                    /* the residual stream at the start of each group of layers */
    /* what a layer keeps, in slot layer % group: */
    sm__mat h1, raw, qkv, o, mid, h2, up, gate, act, out, stats1, stats2, stats_q, stats_k;
    sm__mat last, stats_last, logits;
    sm__mat dx, dy, dh, d_o, dqkv, dup, dgate; /* gradients of the layer at hand */
    sm__mat low, dlow;                         /* of LoRA: A x, its gradient */
} sm__train_bufs;

typedef void (*sm__tile_fn)(sm_trainer *t, const sm__train_step *s, int tile, int member);

struct sm_trainer {
    sm__pass pass; /* first, as in a context */
    sm_trainer_params params;
    sm_train_plan plan;
    sm__heap heap;
    sm_error error;
    sm__hparams hp;
    const sm__arch *arch;
    sm__kernels kernels;
    sm__tile_fn tile;
    sm_team *team;
    int own_team, n_members, group; /* group: layers between two checkpoints */

    sm__train_tensor *tensors;
    int *layer_tensors; /* [L + 1] the first tensor of each layer */
    int n_tensors;
    uint64_t n_params;
    size_t n_flat, n_decay; /* floats; those of the matrices, which decay */
    size_t zeros[3][2];     /* from, to: gradients that begin at 0 */
    float *flat, *moment1, *moment2, *grads; /* the first three behind each other */
    size_t state_bytes;                      /* of those */

    sm__train_bufs bufs;
    sm__train_step *steps;
    sm__train_step none; /* where steps go that are only counted */
    int n_steps, emit_when, emit_row0, emit_rows;
    float *cosines, *sines, *back_sines; /* [n_ctx, n_rot / 2]; -sines */
    float attn_scale;
    double *row_loss; /* [rows] 0 where there is no target */
    uint8_t *row_hit; /* [rows] the most likely token was the target */
    double *squares;  /* [tiles of the flat arrays] */
    unsigned char *member_scratch;
    size_t member_bytes;
    float *decoded, lora_scale; /* rows of the frozen matrix at hand */

    /* what runs: a micro-batch of rows = n_seqs * length tokens */
    const int32_t *tokens, *targets;
    int rows, length, training, probing;
    int fresh; /* it is the first of its batch: gradients of matrices are not added to */
    uint64_t draw; /* number of the micro-batch since the beginning: dropout's */
    float loss_scale;
    double loss_sum;
    int hits;
    const sm__train_step *culprit; /* the first one whose output is not finite */
    struct {
        float clip, rate, keep, step, correction;
    } now; /* of the update */
    uint64_t n_done; /* updates */
};

/* --- vectors -------------------------------------------------------------------------------------
 * What is done element by element, or summed by 16 lanes, is written once, with the compilers' own
 * vectors, and compiled for the baseline and for AVX2 (sm__train_tile is inlined into one function
 * for each). The scalar loop behind each of them does the rest of a row, or all of it where a
 * compiler has no such vectors; the bits are the same. Under clang's -ffast-math quotients would
 * become estimates. */

#if (defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 9)) && !defined(SM__FAST_CLANG)
#define SM__VECTORS 1
typedef float sm__v8 __attribute__((vector_size(32)));
typedef int32_t sm__i8 __attribute__((vector_size(32)));
typedef uint32_t sm__u8 __attribute__((vector_size(32)));
typedef double sm__d4 __attribute__((vector_size(32)));
typedef float sm__v4 __attribute__((vector_size(16)));
typedef sm__v8 sm__v8_at __attribute__((aligned(4), may_alias)); /* in memory, at any address */
typedef sm__v4 sm__v4_at __attribute__((aligned(4), may_alias));
#define SM__AT8(p) ((sm__v8)*(const sm__v8_at *)(const void *)(p))
#define SM__TO8(p) (*(sm__v8_at *)(void *)(p))
#define SM__AT4(p) ((sm__v4)*(const sm__v4_at *)(const void *)(p))
#define SM__TO4(p) (*(sm__v4_at *)(void *)(p))
#endif

/* --- the small parts -------------------------------------------------------------------------- */

SM__INLINE float *sm__mat_row(sm__mat m, int row) { return m.p + (size_t)row * m.stride; }

/* The same with its start moved, and of another width. */
static sm__mat sm__mat_from(sm__mat m, size_t floats, int width) {
    if (m.p) m.p += floats;
    m.width = width;
    return m;
}

static sm__view sm__rows_of(const float *p, size_t stride) {
    sm__view v;
    v.p = p, v.row = stride, v.step = 1;
    return v;
}

static sm__view sm__columns_of(const float *p, size_t stride) {
    sm__view v;
    v.p = p, v.row = 1, v.step = stride;
    return v;
}

/* to[l, j] = element (j, l), for j < n <= 16 and l < k; 0 for the other j. */
static void sm__pack_panel(sm__view b, int n, int k, float *to) {
    int j, l = 0;
    if (n < SM__GEMM_COLS) memset(to, 0, (size_t)k * SM__GEMM_COLS * sizeof *to);
    if (b.row == 1) {
        for (; l < k; l++, to += SM__GEMM_COLS) {
            const float *from = b.p + (size_t)l * b.step;
            if (n == SM__GEMM_COLS) memcpy(to, from, SM__GEMM_COLS * sizeof *to);
            else memcpy(to, from, (size_t)n * sizeof *to);
        }
        return;
    }
#ifdef SM__X86
    for (; n == SM__GEMM_COLS && l + 4 <= k; l += 4)
        for (j = 0; j < SM__GEMM_COLS; j += 4) {
            const float *from = b.p + (size_t)j * b.row + l;
            __m128 v0 = _mm_loadu_ps(from), v1 = _mm_loadu_ps(from + b.row);
            __m128 v2 = _mm_loadu_ps(from + 2 * b.row), v3 = _mm_loadu_ps(from + 3 * b.row);
            _MM_TRANSPOSE4_PS(v0, v1, v2, v3);
            _mm_store_ps(to + l * SM__GEMM_COLS + j, v0);
            _mm_store_ps(to + (l + 1) * SM__GEMM_COLS + j, v1);
            _mm_store_ps(to + (l + 2) * SM__GEMM_COLS + j, v2);
            _mm_store_ps(to + (l + 3) * SM__GEMM_COLS + j, v3);
        }
#endif
    for (; l < k; l++)
        for (j = 0; j < n; j++) to[l * SM__GEMM_COLS + j] = b.p[(size_t)j * b.row + (size_t)l];
}

/* Asks for a panel's numbers before they are packed: too many streams for the hardware to see. */
static void sm__prefetch_panel(sm__view b, int n, int k) {
#if defined(__GNUC__) || defined(__clang__)
    int rows = b.row == 1 ? 1 : n, step = b.row == 1 ? 1 : 16, j, l;
    for (j = 0; j < rows; j++)
        for (l = 0; l < k; l += step)
            __builtin_prefetch(b.p + (size_t)j * b.row + (size_t)l * b.step);
#else
    (void)b, (void)n, (void)k;
#endif
}

/* Columns of memory as rows of a factor: blocks [k, 12]. */
static void sm__pack_rows(sm__view a, int m, int k, float *to) {
    int i, l;
    size_t next = (size_t)k * SM__GEMM_ROWS;
    for (l = 0; l < k; l++, to += SM__GEMM_ROWS) {
        const float *from = a.p + (size_t)l * a.step;
        float *block = to;
        for (i = 0; i + SM__GEMM_ROWS <= m; i += SM__GEMM_ROWS, block += next)
            memcpy(block, from + i, SM__GEMM_ROWS * sizeof *to);
        if (i < m) memcpy(block, from + i, (size_t)(m - i) * sizeof *to);
    }
}

/* Rows of a by a packed b, to n <= gemm_columns columns of out. */
static void sm__multiply_panels(const sm_trainer *t, const sm__factor *a, int m, const float *b,
                               int k, int n, float *out, size_t stride, int add, float *temp) {
    int i, j, wide = t->kernels.gemm_columns;
    if (n % SM__GEMM_COLS == 0) {
        t->kernels.gemm(a, m, b, k, n, out, stride, add);
        return;
    }
    t->kernels.gemm(a, m, b, k, n, temp, (size_t)wide, 0);
    for (i = 0; i < m; i++, out += stride, temp += wide)
        for (j = 0; j < n; j++) out[j] = add ? out[j] + temp[j] : temp[j];
}

/* To the nearest BF16, even on a tie; NaN stays NaN. to may be from. */
static void sm__round_to_bf16(const float *from, float *to, size_t n) {
    size_t i = 0;
#ifdef SM__VECTORS
    for (; i + 8 <= n; i += 8) { /* nan: all ones by a shift; gcc compares one by one */
        sm__i8 u = (sm__i8)SM__AT8(from + i), nan = (0x7f800000 - (u & 0x7fffffff)) >> 31;
        sm__i8 next = (sm__i8)((sm__u8)u + 0x7fffu + ((sm__u8)u >> 16 & 1u));
        SM__TO8(to + i) = (sm__v8)(((next & ~nan) | ((u | 0x400000) & nan)) & ~0xffff);
    }
#endif
    for (; i < n; i++) to[i] = sm__bf16_to_f32(sm__f32_to_bf16(from[i]));
}

/* n <= gemm_columns columns of b, in panels. */
static void sm__pack_panels(sm__view b, int n, int k, int compute, float *to) {
    int j;
    for (j = 0; j < n; j += SM__GEMM_COLS, to += (size_t)k * SM__GEMM_COLS) {
        sm__pack_panel(b, sm__min(SM__GEMM_COLS, n - j), k, to);
        if (compute == SM_COMPUTE_BF16) sm__round_to_bf16(to, to, (size_t)k * SM__GEMM_COLS);
        b.p += SM__GEMM_COLS * b.row;
    }
}

/* The rows of a factor as gemm reads them: where they lie, or packed. */
static sm__factor sm__factor_of(sm__view a, int m, int k, int compute, float *packed) {
    sm__factor f;
    int i;
    f.p = a.p, f.row = a.row, f.step = a.step, f.next = a.row * SM__GEMM_ROWS;
    if (a.step == 1 && compute == SM_COMPUTE_F32) return f;
    f.p = packed;
    if (a.step == 1) {
        f.row = (size_t)k, f.next = f.row * SM__GEMM_ROWS;
        for (i = 0; i < m; i++)
            sm__round_to_bf16(a.p + (size_t)i * a.row, packed + (size_t)i * f.row, f.row);
        return f;
    }
    f.row = 1, f.step = SM__GEMM_ROWS, f.next = (size_t)k * SM__GEMM_ROWS;
    sm__pack_rows(a, m, k, packed);
    if (compute == SM_COMPUTE_BF16)
        sm__round_to_bf16(packed, packed, (size_t)sm__ceil_div(m, SM__GEMM_ROWS) * f.next);
    return f;
}

/* out[i, j] = sum over l of a(i, l) b(j, l); with add, out += it. i < m, j < n, l < k; the sum is
 * cut at multiples of 256, and its parts are added in order. A panel of b is packed just before
 * its use, which finds it in the nearest cache; all rows of a tile share the effort. */
static void sm__multiply_as(const sm_trainer *t, int compute, sm__view a, sm__view b, int m, int n,
                            int k, float *out, size_t stride, int add, float *scratch) {
    float *packed_a = scratch, *panels = packed_a + SM__PACKED_A, *temp = panels + SM__PANELS;
    int l, i, j, wide = t->kernels.gemm_columns;
    if (compute == SM_COMPUTE_BF16_AMX) {
        t->kernels.multiply_bf16(a, b, m, n, k, out, stride, add, scratch);
        return;
    }
    for (l = 0; l < k; l += SM__GEMM_K, add = 1)
        for (i = 0; i < m; i += SM__TILE_ROWS) {
            int part = sm__min(SM__GEMM_K, k - l), rows = sm__min(SM__TILE_ROWS, m - i);
            sm__view from = {a.p + (size_t)i * a.row + (size_t)l * a.step, a.row, a.step};
            sm__factor f = sm__factor_of(from, rows, part, compute, packed_a);
            float *to = out + (size_t)i * stride;
            for (j = 0; j < n; j += wide) {
                int columns = sm__min(wide, n - j);
                sm__view v = b;
                v.p += (size_t)j * b.row + (size_t)l * b.step;
                sm__pack_panels(v, columns, part, compute, panels);
                if (j + columns < n) {
                    v.p += (size_t)columns * b.row;
                    sm__prefetch_panel(v, sm__min(wide, n - j - columns), part);
                }
                sm__multiply_panels(t, &f, rows, panels, part, columns, to + j, stride, add, temp);
            }
        }
}

static void sm__multiply(const sm_trainer *t, sm__view a, sm__view b, int m, int n, int k,
                         float *out, size_t stride, int add, float *scratch) {
    sm__multiply_as(t, SM_COMPUTE_F32, a, b, m, n, k, out, stride, add, scratch);
}

/* Inverted dropout (Srivastava et al. 2014): an element is 0 with probability p, else times
 * 1 / (1 - p). Which ones is a function of (seed, micro-batch, site, row, column), so that the
 * backward and a second computation find the same. Columns from `column` on; of rows of C. */
static void sm__train_drop(const sm_trainer *t, int site, int row, int column, float *y, int n) {
    float p = t->params.dropout, keep = sm__div(1.0f, 1.0f - p);
    uint32_t threshold = (uint32_t)((double)p * 4294967296.0);
    uint64_t index = (uint64_t)row * (uint64_t)t->hp.n_embd + (uint64_t)column;
    int i;
    if (!t->training || !site || !(p > 0.0f)) return;
    for (i = 0; i < n; i++) {
        uint32_t random = sm_random(t->params.seed, t->draw << 16 | (uint64_t)site,
                                    index + (uint64_t)i);
        y[i] = random < threshold ? 0.0f : y[i] * keep;
    }
}

/* --- embedding -------------------------------------------------------------------------------- */

/* A row of a frozen matrix, put into x or added to it; 512 elements are whole blocks. */
static void sm__frozen_row(const sm_trainer *t, const sm__weight *w, int row, int add, float *x) {
    const uint8_t *from = w->data + (size_t)row * w->stride;
    float piece[512];
    int at, n;
    for (at = 0; at < w->k; at += n) {
        n = sm__min(512, w->k - at);
        sm__types[w->type].decode(from + sm__row_bytes(w->type, (size_t)at),
                                  add ? piece : x + at, (size_t)n);
        if (add) t->kernels.add(piece, x + at, n);
    }
}

static void sm__train_embed(const sm_trainer *t, const sm__train_step *s, int row) {
    int c = s->k;
    float *x = sm__mat_row(s->out, row);
    if (s->frozen.data) sm__frozen_row(t, &s->frozen, t->tokens[row], 0, x);
    else memcpy(x, s->w + (size_t)t->tokens[row] * (size_t)c, (size_t)c * sizeof *x);
    if (s->frozen2.data) sm__frozen_row(t, &s->frozen2, row % t->length, 1, x);
    if (s->b) t->kernels.add(s->b + (size_t)(row % t->length) * (size_t)c, x, c);
    sm__train_drop(t, s->site, row, 0, x, c);
}

/* dE[id] += dx, dP[position] += dx: 64 columns, all rows in order. */
static void sm__tile_embed_back(const sm_trainer *t, const sm__train_step *s, int rows, int tile) {
    int c0 = tile * SM__GRAD_BLOCK, n = sm__min(SM__GRAD_BLOCK, s->k - c0), row;
    float dx[SM__GRAD_BLOCK];
    for (row = 0; row < rows; row++) {
        size_t at = (size_t)(row % t->length) * (size_t)s->k + (size_t)c0;
        memcpy(dx, sm__mat_row(s->in, row) + c0, (size_t)n * sizeof *dx);
        sm__train_drop(t, s->site, row, c0, dx, n);
        t->kernels.add(dx, s->gw + (size_t)t->tokens[row] * (size_t)s->k + c0, n);
        if (s->gb) t->kernels.add(dx, s->gb + at, n);
    }
}

/* --- norms: a row holds one vector, or one per head ------------------------------------------- */

/* The sum of x - mean, or of its squares, by 16 lanes. */
SM__INLINE float sm__sum_of(const float *x, int n, float mean, int squares) {
    float lanes[16] = {0};
    int i = 0;
#ifdef SM__VECTORS
    sm__v8 lo = {0}, hi = {0}, a, b;
    for (; i + 16 <= n; i += 16) {
        a = SM__AT8(x + i) - mean;
        b = SM__AT8(x + i + 8) - mean;
        lo += squares ? a * a : a;
        hi += squares ? b * b : b;
    }
    SM__TO8(lanes) = lo;
    SM__TO8(lanes + 8) = hi;
#endif
    for (; i < n; i++) {
        float d = x[i] - mean;
        lanes[i & 15] += squares ? sm__times(d, d) : d;
    }
    return sm__tree16(lanes);
}

/* y = x^ w + b, x^ = (x - mean) r. The backward needs the mean (0 of RMSNorm) and
 * r = 1 / sqrt(variance + eps). */
SM__INLINE void sm__norm_forward(const float *x, const float *w, const float *b, float *y, int n,
                                 int rms, float eps, float *stats) {
    float mean = rms ? 0.0f : sm__div(sm__sum_of(x, n, 0.0f, 0), (float)n), r;
    int i = 0;
    r = sm__div(1.0f, sm__sqrt(sm__div(sm__sum_of(x, n, mean, 1), (float)n) + eps));
    stats[0] = mean;
    stats[1] = r;
#ifdef SM__VECTORS
    for (; i + 8 <= n; i += 8) {
        sm__v8 v = (SM__AT8(x + i) - mean) * r * SM__AT8(w + i);
        SM__TO8(y + i) = b ? v + SM__AT8(b + i) : v;
    }
#endif
    for (; i < n; i++) {
        float v = sm__times((x[i] - mean) * r, w[i]);
        y[i] = b ? v + b[i] : v;
    }
}

SM__INLINE void sm__train_norm(const sm_trainer *t, const sm__train_step *s, int row) {
    int h, rms = t->arch->norm == SM__NORM_RMS;
    for (h = 0; h < s->heads; h++)
        sm__norm_forward(sm__mat_row(s->in, row) + h * s->k, s->w, rms ? NULL : s->b,
                         sm__mat_row(s->out, row) + h * s->k, s->k, rms, t->hp.norm_eps,
                         sm__mat_row(s->aux, row) + 2 * h);
}

/* out[i] += sums[i], which is 0 then. */
static void sm__flush_sums(const sm_trainer *t, float *sums, float *out, int n) {
    t->kernels.add(sums, out, n);
    memset(sums, 0, (size_t)n * sizeof *sums);
}

/* dw[i] += dy[i] x^[i], db[i] += dy[i]; n <= 64. */
SM__INLINE void sm__norm_sums(const float *x, const float *dy, const float *stats, float *dw,
                              float *db, int n) {
    float mean = stats[0], r = stats[1];
    int i = 0;
#ifdef SM__VECTORS
    for (; i + 8 <= n; i += 8) {
        sm__v8 d = SM__AT8(dy + i);
        SM__TO8(dw + i) += d * ((SM__AT8(x + i) - mean) * r);
        SM__TO8(db + i) += d;
    }
#endif
    for (; i < n; i++) {
        dw[i] += sm__times(dy[i], (x[i] - mean) * r);
        db[i] += dy[i];
    }
}

/* dw[c] += sum over rows of dy x^, db[c] += sum of dy. 64 columns. */
SM__INLINE void sm__tile_norm_grad(const sm_trainer *t, const sm__train_step *s, int rows,
                                   int tile) {
    int c0 = tile * SM__GRAD_BLOCK, n = sm__min(SM__GRAD_BLOCK, s->k - c0), row, h;
    float dw[SM__GRAD_BLOCK] = {0}, db[SM__GRAD_BLOCK] = {0};
    for (row = 0; row < rows; row++) {
        for (h = 0; h < s->heads; h++)
            sm__norm_sums(sm__mat_row(s->in, row) + h * s->k + c0,
                          sm__mat_row(s->in2, row) + h * s->k + c0,
                          sm__mat_row(s->aux, row) + 2 * h, dw, db, n);
        if (row % SM__GEMM_K != SM__GEMM_K - 1 && row != rows - 1) continue;
        sm__flush_sums(t, dw, s->gw + c0, n);
        if (s->gb) sm__flush_sums(t, db, s->gb + c0, n);
    }
}

/* With g = dy w: dx = r (g - x^ mean(g x^) - mean(g)), without the last term of RMSNorm; the means
 * by 16 lanes. dx may be dy. */
SM__INLINE void sm__norm_back(const float *x, const float *dy, const float *w, const float *stats,
                              int rms, float *dx, int n, int accumulate) {
    float sums[16] = {0}, dots[16] = {0}, mean = stats[0], r = stats[1], shift, slope;
    int i = 0;
#ifdef SM__VECTORS
    sm__v8 s0 = {0}, s1 = {0}, d0 = {0}, d1 = {0}, g;
    for (; i + 16 <= n; i += 16) {
        s0 += g = SM__AT8(dy + i) * SM__AT8(w + i);
        d0 += g * ((SM__AT8(x + i) - mean) * r);
        s1 += g = SM__AT8(dy + i + 8) * SM__AT8(w + i + 8);
        d1 += g * ((SM__AT8(x + i + 8) - mean) * r);
    }
    SM__TO8(sums) = s0, SM__TO8(sums + 8) = s1;
    SM__TO8(dots) = d0, SM__TO8(dots + 8) = d1;
#endif
    for (; i < n; i++) {
        float e = sm__times(dy[i], w[i]);
        sums[i & 15] += e;
        dots[i & 15] += sm__times(e, (x[i] - mean) * r);
    }
    shift = rms ? 0.0f : sm__div(sm__tree16(sums), (float)n);
    slope = sm__div(sm__tree16(dots), (float)n);
    i = 0;
#ifdef SM__VECTORS
    for (; i + 8 <= n; i += 8) {
        g = SM__AT8(dy + i) * SM__AT8(w + i) - (SM__AT8(x + i) - mean) * r * slope - shift;
        SM__TO8(dx + i) = accumulate ? SM__AT8(dx + i) + r * g : r * g;
    }
#endif
    for (; i < n; i++) {
        float e = sm__times(dy[i], w[i]) - sm__times((x[i] - mean) * r, slope) - shift;
        dx[i] = accumulate ? dx[i] + sm__times(r, e) : r * e;
    }
}

SM__INLINE void sm__train_norm_back(const sm_trainer *t, const sm__train_step *s, int row) {
    int h, rms = t->arch->norm == SM__NORM_RMS;
    for (h = 0; h < s->heads; h++)
        sm__norm_back(sm__mat_row(s->in, row) + h * s->k, sm__mat_row(s->in2, row) + h * s->k, s->w,
                      sm__mat_row(s->aux, row) + 2 * h, rms, sm__mat_row(s->out, row) + h * s->k,
                      s->k, s->accumulate);
}

/* --- linear layers ---------------------------------------------------------------------------- */

/* y = x W^T + b; with in2 (the residual stream), out = in2 + dropout(y). LoRA: y += x W^T, and
 * without W what follows it alone. */
static void sm__tile_linear(const sm_trainer *t, const sm__train_step *s, int rows, int tile,
                            float *scratch) {
    int across = sm__ceil_div(s->n, s->tile_cols), r0 = tile / across * s->tile_rows, r;
    int o0 = tile % across * s->tile_cols, n = sm__min(s->tile_cols, s->n - o0);
    float *out = sm__mat_row(s->out, r0) + o0;
    rows = sm__min(s->tile_rows, rows - r0);
    if (s->w)
        sm__multiply_as(t, t->params.compute, sm__rows_of(sm__mat_row(s->in, r0), s->in.stride),
                        sm__rows_of(s->w + (size_t)o0 * (size_t)s->k, (size_t)s->k), rows, n, s->k,
                        out, s->out.stride, s->accumulate, scratch);
    for (r = 0; r < rows; r++, out += s->out.stride) {
        if (s->b) t->kernels.add(s->b + o0, out, n);
        sm__train_drop(t, s->site, r0 + r, o0, out, n);
        if (s->in2.p) t->kernels.add(sm__mat_row(s->in2, r0 + r) + o0, out, n);
    }
}

/* dx[r, c] = sum over o of dy[r, o] W[o, c] */
static void sm__tile_linear_dx(const sm_trainer *t, const sm__train_step *s, int rows, int tile,
                               float *scratch) {
    int across = sm__ceil_div(s->k, s->tile_cols), r0 = tile / across * s->tile_rows;
    int c0 = tile % across * s->tile_cols;
    sm__multiply_as(t, t->params.compute, sm__rows_of(sm__mat_row(s->in, r0), s->in.stride),
                    sm__columns_of(s->w + c0, (size_t)s->k), sm__min(s->tile_rows, rows - r0),
                    sm__min(s->tile_cols, s->k - c0), s->n, sm__mat_row(s->out, r0) + c0,
                    s->out.stride, s->accumulate, scratch);
}

/* db[o] += sum over rows of dy[r, o], cut like that of a product. */
SM__INLINE void sm__bias_grad(const sm_trainer *t, const sm__train_step *s, int rows, int o0,
                              int n) {
    float sums[SM__TILE_ROWS] = {0};
    int r, i;
    for (r = 0; r < rows; r++) {
        const float *dy = sm__mat_row(s->in, r) + o0;
        i = 0;
#ifdef SM__VECTORS
        for (; i + 8 <= n; i += 8) SM__TO8(sums + i) += SM__AT8(dy + i);
#endif
        for (; i < n; i++) sums[i] += dy[i];
        if (r % SM__GEMM_K == SM__GEMM_K - 1) sm__flush_sums(t, sums, s->gb + o0, n);
    }
    sm__flush_sums(t, sums, s->gb + o0, n);
}

/* dW[o, c] += sum over rows of dy[r, o] x[r, c]; = for the first rows of a batch. */
SM__INLINE void sm__tile_linear_dw(const sm_trainer *t, const sm__train_step *s, int rows, int tile,
                                   float *scratch) {
    int across = sm__ceil_div(s->k, s->tile_cols), o0 = tile / across * s->tile_rows;
    int c0 = tile % across * s->tile_cols, n = sm__min(s->tile_rows, s->n - o0);
    sm__multiply_as(t, t->params.compute, sm__columns_of(s->in.p + o0, s->in.stride),
                    sm__columns_of(s->in2.p + c0, s->in2.stride), n,
                    sm__min(s->tile_cols, s->k - c0), rows,
                    s->gw + (size_t)o0 * (size_t)s->k + c0, (size_t)s->k,
                    !t->fresh || s->row0 > 0, scratch);
    if (s->gb && c0 == 0) sm__bias_grad(t, s, rows, o0, n);
}

/* --- LoRA: a frozen matrix with a product of two small ones beside it --------------------------
 * y = W x + s B (A x), s = alpha / rank. LINEAR and LINEAR_DX of W follow a DECODE of the same rows
 * of W into one buffer, a multiple of 256 rows at a time (where the sums over them are cut): the
 * bits are those of a model of these floats. With low = s A x, which is computed again behind:
 *   forward   LINEAR, SCALE: low           LINEAR: y += low B^T
 *   backward  LINEAR_DW: dB += dy^T low    LINEAR_DX, SCALE: dlow = s dy B
 *             LINEAR_DW: dA += dlow^T x    LINEAR_DX: dx += dlow A */

#define SM__LORA_FLOATS ((size_t)1 << 20) /* of W at once, unless 256 rows are more */

static void sm__tile_decode(const sm__train_step *s, int tile) {
    const sm__weight *w = &s->frozen;
    int row = tile * SM__ROW_TILE, end = sm__min(row + SM__ROW_TILE, w->n);
    for (; row < end; row++)
        sm__types[w->type].decode(w->data + (size_t)row * w->stride, sm__mat_row(s->out, row),
                                  (size_t)w->k);
}

/* --- attention -------------------------------------------------------------------------------- */

/* q and k of a row: rotated, in -> out (which may be the same). Values stay where they are. */
static void sm__train_rope(const sm_trainer *t, const sm__train_step *s, int row,
                           const float *sines) {
    const sm__hparams *hp = &t->hp;
    int n = hp->n_heads + hp->n_kv_heads, half = hp->pos == SM__POS_ROPE_HALF;
    size_t at = (size_t)(row % t->length) * (size_t)(hp->n_rot / 2);
    t->kernels.rope(sm__mat_row(s->out, row), n, hp->head_dim, hp->n_rot, t->cosines + at,
                    sines + at, half);
}

typedef struct sm__attend_work { /* of one member */
    float *p, *dp; /* [64, keys] weights and their gradients */
    size_t wide;   /* row stride of what has a column per key */
} sm__attend_work;

static void sm__attend_work_take(sm__attend_work *w, sm__arena *a, int length) {
    w->wide = sm__round_up((size_t)length, 16) + 16;
    w->p = (float *)sm__arena_take(a, SM__QUERY_ROWS * w->wide, sizeof(float));
    w->dp = (float *)sm__arena_take(a, SM__QUERY_ROWS * w->wide, sizeof(float));
}

static sm__attend_work sm__attend_work_at(const sm_trainer *t, float *scratch) {
    sm__attend_work w;
    sm__arena a = {NULL, 0, 0};
    a.base = (unsigned char *)(scratch + SM__MULTIPLY_FLOATS);
    sm__attend_work_take(&w, &a, t->params.n_ctx);
    return w;
}

/* P = softmax(scale q k^T) of n query rows from row i0 of a sequence; 0 for later keys. Some of
 * those take part as -infinity, so that no row ends within a vector. */
static void sm__attend_weights(const sm_trainer *t, const float *q, const float *k, size_t stride,
                               int i0, int n, const sm__attend_work *w, float *scratch) {
    int r, i, keys = i0 + n;
    sm__multiply(t, sm__rows_of(q, stride), sm__rows_of(k, stride), n, keys, t->hp.head_dim, w->p,
                 w->wide, 0, scratch);
    for (r = 0; r < n; r++) {
        float *p = w->p + (size_t)r * w->wide;
        int seen = i0 + r + 1, whole = (int)sm__round_up((size_t)seen, 16);
        for (i = seen; i < whole; i++) p[i] = -SM__INFINITY;
        t->kernels.scale(p, t->attn_scale, whole);
        t->kernels.softmax(p, whole);
        if (whole < keys) memset(p + whole, 0, (size_t)(keys - whole) * sizeof *p);
    }
}

/* o = P v: 64 query rows of the heads that share a KV head. */
static void sm__tile_train_attend(const sm_trainer *t, const sm__train_step *s, int tile,
                                  float *scratch) {
    const sm__hparams *hp = &t->hp;
    int blocks = sm__ceil_div(t->length, SM__QUERY_ROWS), i0 = tile % blocks * SM__QUERY_ROWS;
    int kv = tile / blocks % hp->n_kv_heads, row = tile / blocks / hp->n_kv_heads * t->length;
    int n = sm__min(SM__QUERY_ROWS, t->length - i0), dim = hp->head_dim, h;
    int per_kv = hp->n_heads / hp->n_kv_heads;
    const float *k = sm__mat_row(s->in, row) + (hp->n_heads + kv) * dim;
    const float *v = sm__mat_row(s->in2, row) + (hp->n_heads + hp->n_kv_heads + kv) * dim;
    sm__attend_work w = sm__attend_work_at(t, scratch);
    for (h = kv * per_kv; h < (kv + 1) * per_kv; h++) {
        sm__attend_weights(t, sm__mat_row(s->in, row + i0) + h * dim, k, s->in.stride, i0, n, &w,
                           scratch);
        sm__multiply(t, sm__rows_of(w.p, w.wide), sm__columns_of(v, s->in2.stride), n, dim, i0 + n,
                     sm__mat_row(s->out, row + i0) + h * dim, s->out.stride, 0, scratch);
    }
}

/* ds = p (dp - sum of p dp) scale, in place of dp, the sum by 16 lanes; 0 behind the first n. p and
 * dp have room for a multiple of 16, where p is 0. */
SM__INLINE void sm__softmax_back(const float *p, float *dp, int n, int all, float scale) {
    float lanes[16] = {0}, mean;
    int i, whole = (int)sm__round_up((size_t)n, 16);
    for (i = n; i < whole; i++) dp[i] = 0.0f;
    i = 0;
#ifdef SM__VECTORS
    for (; i < whole; i += 16) {
        SM__TO8(lanes) += SM__AT8(p + i) * SM__AT8(dp + i);
        SM__TO8(lanes + 8) += SM__AT8(p + i + 8) * SM__AT8(dp + i + 8);
    }
#endif
    for (; i < whole; i++) lanes[i & 15] += sm__times(p[i], dp[i]);
    mean = sm__tree16(lanes);
    i = 0;
#ifdef SM__VECTORS
    for (; i < whole; i += 8)
        SM__TO8(dp + i) = SM__AT8(p + i) * (SM__AT8(dp + i) - mean) * scale;
#endif
    for (; i < whole; i++) dp[i] = p[i] * (dp[i] - mean) * scale;
    for (; i < all; i++) dp[i] = 0.0f;
}

/* All of one KV head in a sequence, its query heads and their rows in order (Dao et al. 2022,
 * arXiv:2205.14135, appendix B): dP = dO v^T, dv += P^T dO, dS = P (dP - rowsum(P dP)) scale,
 * dq = dS k, dk += dS^T q. aux is dO; out has dq, dk and dv. */
SM__INLINE void sm__tile_attend_back(const sm_trainer *t, const sm__train_step *s, int tile,
                                     float *scratch) {
    const sm__hparams *hp = &t->hp;
    int kv = tile % hp->n_kv_heads, row = tile / hp->n_kv_heads * t->length, dim = hp->head_dim;
    int per_kv = hp->n_heads / hp->n_kv_heads, h, i0, r;
    size_t stride = s->in.stride; /* of in2 and out too */
    size_t k_at = (size_t)((hp->n_heads + kv) * dim);
    size_t v_at = k_at + (size_t)(hp->n_kv_heads * dim);
    const float *k = sm__mat_row(s->in, row) + k_at, *v = sm__mat_row(s->in2, row) + v_at;
    float *dk = sm__mat_row(s->out, row) + k_at, *dv = sm__mat_row(s->out, row) + v_at;
    sm__attend_work w = sm__attend_work_at(t, scratch);
    for (r = 0; r < t->length; r++) {
        memset(dk + (size_t)r * stride, 0, (size_t)dim * sizeof *dk);
        memset(dv + (size_t)r * stride, 0, (size_t)dim * sizeof *dv);
    }
    for (h = kv * per_kv; h < (kv + 1) * per_kv; h++)
        for (i0 = 0; i0 < t->length; i0 += SM__QUERY_ROWS) {
            int n = sm__min(SM__QUERY_ROWS, t->length - i0), keys = i0 + n;
            const float *q = sm__mat_row(s->in, row + i0) + h * dim;
            const float *d_o = sm__mat_row(s->aux, row + i0) + h * dim;
            sm__attend_weights(t, q, k, stride, i0, n, &w, scratch);
            sm__multiply(t, sm__rows_of(d_o, s->aux.stride), sm__rows_of(v, stride), n, keys, dim,
                         w.dp, w.wide, 0, scratch);
            sm__multiply(t, sm__columns_of(w.p, w.wide), sm__columns_of(d_o, s->aux.stride), keys,
                         dim, n, dv, stride, 1, scratch);
            for (r = 0; r < n; r++)
                sm__softmax_back(w.p + (size_t)r * w.wide, w.dp + (size_t)r * w.wide, i0 + r + 1,
                                 keys, t->attn_scale);
            sm__multiply(t, sm__columns_of(w.dp, w.wide), sm__columns_of(q, stride), keys, dim, n,
                         dk, stride, 1, scratch);
            sm__multiply(t, sm__rows_of(w.dp, w.wide), sm__columns_of(k, stride), n, dim, keys,
                         sm__mat_row(s->out, row + i0) + h * dim, stride, 0, scratch);
        }
}

/* --- activations ------------------------------------------------------------------------------ */

static void sm__train_act(const sm_trainer *t, const sm__train_step *s, int row) {
    const float *up = sm__mat_row(s->in, row);
    float *out = sm__mat_row(s->out, row);
    switch (t->arch->ffn) {
    case SM__FFN_SWIGLU: t->kernels.swiglu(sm__mat_row(s->in2, row), up, out, s->in.width); break;
    case SM__FFN_GELU_TANH: t->kernels.gelu_tanh(up, out, s->in.width); break;
    default: t->kernels.gelu_erf(up, out, s->in.width); break;
    }
}

/* s = y / x where y = x s(x), with s(0) = 1/2. */
SM__INLINE float sm__act_ratio(float y, float x) { return x * x > 1e-30f ? sm__div(y, x) : 0.5f; }

/* y = g s u with s = 1 / (1 + exp(-g)): du = dy g s, dg = dy u s (1 + g (1 - s)). du is dy's; g s
 * comes from the forward's kernel. */
SM__INLINE void sm__swiglu_back(const sm_trainer *t, const float *gate, const float *up, float *dy,
                                float *dgate, int n) {
    float ones[64], gs[64];
    int at, i;
    for (i = 0; i < 64; i++) ones[i] = 1.0f;
    for (at = 0; at < n; at += 64, gate += 64, up += 64, dy += 64, dgate += 64) {
        int part = sm__min(64, n - at);
        t->kernels.swiglu(gate, ones, gs, part);
        i = 0;
#ifdef SM__VECTORS
        for (; i + 8 <= part; i += 8) {
            sm__v8 g = SM__AT8(gate + i), y = SM__AT8(gs + i), d = SM__AT8(dy + i), s;
            sm__i8 large = g * g > 1e-30f;
            s = (sm__v8)((large & (sm__i8)(y / g)) | (~large & (int32_t)0x3f000000));
            SM__TO8(dgate + i) = d * SM__AT8(up + i) * s * (1.0f + g * (1.0f - s));
            SM__TO8(dy + i) = d * y;
        }
#endif
        for (; i < part; i++) {
            float g = gate[i], s = sm__act_ratio(gs[i], g), d = dy[i];
            dgate[i] = d * up[i] * s * (1.0f + sm__times(g, 1.0f - s));
            dy[i] = d * gs[i];
        }
    }
}

/* y = x s, s = 1 / (1 + exp(-u)), u = a x + b x^3: dx = dy (s + y (1 - s) (a + 3 b x^2)). */
SM__INLINE void sm__gelu_tanh_back(const float *x, const float *y, float *dy, int n) {
    int i = 0;
#ifdef SM__VECTORS
    for (; i + 8 <= n; i += 8) {
        sm__v8 v = SM__AT8(x + i), f = SM__AT8(y + i), s;
        sm__i8 large = v * v > 1e-30f;
        s = (sm__v8)((large & (sm__i8)(f / v)) | (~large & (int32_t)0x3f000000));
        SM__TO8(dy + i) *=
            s + f * (1.0f - s) * (1.59576912f * (1.0f + 0.134145f * (v * v)));
    }
#endif
    for (; i < n; i++) {
        float s = sm__act_ratio(y[i], x[i]);
        float du = 1.59576912f * (1.0f + sm__times(0.134145f, x[i] * x[i]));
        dy[i] *= s + sm__times(y[i] * (1.0f - s), du);
    }
}

/* y = x Phi(x): dx = dy (Phi(x) + x exp(-x^2 / 2) / sqrt(2 pi)). */
static void sm__gelu_erf_back(const float *x, float *dy, int n) {
    int i;
    for (i = 0; i < n; i++) {
        float a = sm__from_bits(sm__bits(x[i]) & 0x7fffffffu);
        float e = sm__times(0.5f, sm__erfc(a * 0.707106769f)), phi = x[i] < 0.0f ? e : 1.0f - e;
        dy[i] *= phi + sm__times(x[i] * sm__exp(-0.5f * x[i] * x[i]), 0.398942280f);
    }
}

/* aux: dy becomes the gradient of up; out: of gate. in2 is gate, or without one the output. */
SM__INLINE void sm__train_act_back(const sm_trainer *t, const sm__train_step *s, int row) {
    const float *up = sm__mat_row(s->in, row);
    float *dy = sm__mat_row(s->aux, row);
    int n = s->in.width;
    switch (t->arch->ffn) {
    case SM__FFN_SWIGLU:
        sm__swiglu_back(t, sm__mat_row(s->in2, row), up, dy, sm__mat_row(s->out, row), n);
        break;
    case SM__FFN_GELU_TANH: sm__gelu_tanh_back(up, sm__mat_row(s->in2, row), dy, n); break;
    default: sm__gelu_erf_back(up, dy, n); break;
    }
}

/* --- loss ------------------------------------------------------------------------------------- */

/* The largest of n numbers; *bad: one of them is not finite. */
SM__INLINE float sm__largest(const float *x, int n, int *bad) {
    float top = x[0], lanes[8];
    int32_t found[8];
    int i = 0, j;
    *bad = 0;
#ifdef SM__VECTORS
    if (n >= 8) {
        sm__v8 m = SM__AT8(x), v;
        sm__i8 none = {0}, greater, exponent = none + (int32_t)0x7f800000;
        for (; i + 8 <= n; i += 8) {
            v = SM__AT8(x + i);
            greater = v > m;
            m = (sm__v8)((greater & (sm__i8)v) | (~greater & (sm__i8)m));
            none |= ((sm__i8)v & exponent) == exponent;
        }
        SM__TO8(lanes) = m;
        memcpy(found, &none, sizeof found);
        for (j = 0; j < 8; j++) {
            *bad |= found[j] != 0;
            if (lanes[j] > top) top = lanes[j];
        }
    }
#else
    (void)lanes, (void)found, (void)j;
#endif
    for (; i < n; i++) {
        *bad |= sm__not_finite(x[i]);
        if (x[i] > top) top = x[i];
    }
    return top;
}

/* Of a row of logits x with target i: loss = log(sum of exp x) - x[i]; in training x becomes
 * dx = (softmax(x) - onehot(i)) / targets, and 0 without a target. A logit that is not finite makes
 * the loss NaN, with or without a target. */
SM__INLINE void sm__train_loss(sm_trainer *t, const sm__train_step *s, int row) {
    float *x = sm__mat_row(s->in, row), top, at;
    int n = s->in.width, best = 0, bad, target = (int)t->targets[s->row0 + row];
    top = sm__largest(x, n, &bad);
    row += s->row0;
    t->row_hit[row] = 0;
    t->row_loss[row] = bad ? (double)sm__from_bits(0x7fc00000u) : 0.0;
    if (bad || target < 0) {
        memset(x, 0, (size_t)n * sizeof *x);
        return;
    }
    while (x[best] != top) best++;
    at = x[target];
    t->kernels.softmax(x, n); /* x[best] is 1 / (sum of exp(x - top)) */
    t->row_hit[row] = target == best;
    t->row_loss[row] = (double)top - (double)at - sm__log_double((double)x[best]);
    if (!t->training) return;
    t->kernels.scale(x, t->loss_scale, n);
    x[target] -= t->loss_scale;
}

/* --- the flat arrays -------------------------------------------------------------------------- */

/* Of gradients that are only added to: all but those of products, which the first rows set. */
static void sm__tile_zero(sm_trainer *t, size_t from, size_t to) {
    int i;
    for (i = 0; i < 3; i++) {
        size_t a = sm__max_size(from, t->zeros[i][0]), b = sm__min_size(to, t->zeros[i][1]);
        if (a < b) memset(t->grads + a, 0, (b - a) * sizeof *t->grads);
    }
}

SM__INLINE void sm__tile_squares(sm_trainer *t, int tile, const float *g, size_t n) {
    double sums[8] = {0};
    size_t i = 0;
#ifdef SM__VECTORS
    sm__d4 lo = {0}, hi = {0}, a, b;
    for (; i + 8 <= n; i += 8) {
        a = __builtin_convertvector(SM__AT4(g + i), sm__d4);
        b = __builtin_convertvector(SM__AT4(g + i + 4), sm__d4);
        lo += a * a;
        hi += b * b;
    }
    memcpy(sums, &lo, sizeof lo);
    memcpy(sums + 4, &hi, sizeof hi);
#endif
    for (; i < n; i++) sums[i & 7] += (double)g[i] * (double)g[i];
    t->squares[tile] = ((sums[0] + sums[4]) + (sums[2] + sums[6])) +
                       ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

/* m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2, both corrected for their start at 0:
 * p = p (1 - rate decay) - rate m' / (sqrt(v') + eps). step is rate / (1 - b1^t), correction is
 * 1 / (1 - b2^t). */
SM__INLINE void sm__adamw(const sm_trainer *t, size_t from, size_t to, float keep) {
    float b1 = t->params.beta1, b2 = t->params.beta2, eps = t->params.epsilon;
    float clip = t->now.clip, step = t->now.step, correction = t->now.correction;
    float *x = t->flat, *m1 = t->moment1, *m2 = t->moment2;
    size_t i = from;
#if defined(SM__VECTORS) && (defined(SM__X86) || defined(SM__ARM64))
    for (; i + 4 <= to; i += 4) {
        sm__v4 g = SM__AT4(t->grads + i) * clip, m = b1 * SM__AT4(m1 + i) + (1.0f - b1) * g;
        sm__v4 v = b2 * SM__AT4(m2 + i) + (1.0f - b2) * (g * g), root;
#ifdef SM__X86
        root = (sm__v4)_mm_sqrt_ps((__m128)(v * correction));
#else
        root = (sm__v4)vsqrtq_f32((float32x4_t)(v * correction));
#endif
        SM__TO4(m1 + i) = m;
        SM__TO4(m2 + i) = v;
        SM__TO4(x + i) = SM__AT4(x + i) * keep - step * m / (root + eps);
    }
#endif
    for (; i < to; i++) {
        float g = t->grads[i] * clip, m = sm__times(b1, m1[i]) + sm__times(1.0f - b1, g);
        float v = sm__times(b2, m2[i]) + sm__times(1.0f - b2, g * g);
        m1[i] = m;
        m2[i] = v;
        x[i] = sm__times(x[i], keep) - sm__div(step * m, sm__sqrt(v * correction) + eps);
    }
}

/* m = momentum m + g, p = p (1 - rate decay) - rate m. */
SM__INLINE void sm__sgd(const sm_trainer *t, size_t from, size_t to, float keep) {
    float clip = t->now.clip, rate = t->now.rate, momentum = t->params.momentum;
    size_t i = from;
#ifdef SM__VECTORS
    for (; i + 8 <= to; i += 8) {
        sm__v8 g = SM__AT8(t->grads + i) * clip;
        if (t->moment1) SM__TO8(t->moment1 + i) = g = momentum * SM__AT8(t->moment1 + i) + g;
        SM__TO8(t->flat + i) = SM__AT8(t->flat + i) * keep - rate * g;
    }
#endif
    for (; i < to; i++) {
        float g = sm__times(t->grads[i], clip);
        if (t->moment1) g = t->moment1[i] = sm__times(momentum, t->moment1[i]) + g;
        t->flat[i] = sm__times(t->flat[i], keep) - sm__times(rate, g);
    }
}

SM__INLINE void sm__tile_flat(sm_trainer *t, const sm__train_step *s, int tile) {
    size_t from = (size_t)tile * SM__FLAT_TILE, to = sm__min_size(from + SM__FLAT_TILE, t->n_flat);
    size_t middle = sm__min_size(to, t->n_decay > from ? t->n_decay : from);
    if (s->op == SM__TRAIN_ZERO) {
        sm__tile_zero(t, from, to);
    } else if (s->op == SM__TRAIN_SQUARES) {
        sm__tile_squares(t, tile, t->grads + from, to - from);
    } else if (t->params.optimizer == SM_OPTIMIZER_SGD) {
        sm__sgd(t, from, middle, t->now.keep);
        sm__sgd(t, middle, to, 1.0f);
    } else {
        sm__adamw(t, from, middle, t->now.keep);
        sm__adamw(t, middle, to, 1.0f);
    }
}

/* --- walking the tape ------------------------------------------------------------------------- */

/* The step's rows of the micro-batch, and how many tiles they make. */
static int sm__train_rows(const sm_trainer *t, const sm__train_step *s) {
    return s->max_rows ? sm__max(0, sm__min(s->max_rows, t->rows - s->row0)) : t->rows;
}

/* Cuts a product [m, n] into tiles so that the last member is done soonest. A tile costs its sums
 * and, as much as so many more rows and columns, what its factors cost to fetch and to pack; as
 * members are not equally fast, the end is waited for a quarter of a tile longer. */
static int sm__train_cut(const sm_trainer *t, sm__train_step *s, int m, int n) {
    int down0 = sm__ceil_div(m, SM__TILE_ROWS), across0 = sm__ceil_div(n, SM__TILE_COLS);
    int most = t->n_members > 1 ? sm__min(4 * t->n_members, 64) : 1, down, across;
    double best = 1e300, cost;
    if (s->cut == m) return s->n_cut;
    for (down = down0; down <= sm__max(down0, most); down++)
        for (across = across0; across <= sm__max(across0, most); across++) {
            int rows = (int)sm__round_up((size_t)sm__ceil_div(m, down), SM__GEMM_ROWS);
            int columns = (int)sm__round_up((size_t)sm__ceil_div(n, across), SM__GEMM_COLS);
            int tiles = sm__ceil_div(m, rows) * sm__ceil_div(n, columns);
            cost = (sm__ceil_div(tiles, t->n_members) + 0.25) * (rows + 8.0) * (columns + 12.0);
            if (cost >= best) continue;
            best = cost;
            s->tile_rows = rows, s->tile_cols = columns, s->n_cut = tiles;
        }
    s->cut = m;
    return s->n_cut;
}

static int sm__train_tiles(const sm_trainer *t, sm__train_step *s) {
    int rows = sm__train_rows(t, s), seqs = t->length ? t->rows / t->length : 0;
    if (s->op >= SM__TRAIN_ZERO)
        return (int)((t->n_flat + SM__FLAT_TILE - 1) / SM__FLAT_TILE);
    if (!rows) return 0;
    switch (s->op) {
    case SM__TRAIN_LINEAR: return sm__train_cut(t, s, rows, s->n);
    case SM__TRAIN_LINEAR_DX: return sm__train_cut(t, s, rows, s->k);
    case SM__TRAIN_LINEAR_DW: return sm__train_cut(t, s, s->n, s->k);
    case SM__TRAIN_DECODE: return sm__ceil_div(s->frozen.n, SM__ROW_TILE);
    case SM__TRAIN_NORM_GRAD:
    case SM__TRAIN_EMBED_BACK: return sm__ceil_div(s->k, SM__GRAD_BLOCK);
    case SM__TRAIN_ATTEND:
        return seqs * t->hp.n_kv_heads * sm__ceil_div(t->length, SM__QUERY_ROWS);
    case SM__TRAIN_ATTEND_BACK: return seqs * t->hp.n_kv_heads;
    default: return sm__ceil_div(rows, SM__ROW_TILE);
    }
}

SM__INLINE void sm__train_row(sm_trainer *t, const sm__train_step *s, int row) {
    switch (s->op) {
    case SM__TRAIN_EMBED: sm__train_embed(t, s, row); break;
    case SM__TRAIN_NORM: sm__train_norm(t, s, row); break;
    case SM__TRAIN_NORM_BACK: sm__train_norm_back(t, s, row); break;
    case SM__TRAIN_ROPE: sm__train_rope(t, s, row, t->sines); break;
    case SM__TRAIN_ROPE_BACK: sm__train_rope(t, s, row, t->back_sines); break;
    case SM__TRAIN_ACT: sm__train_act(t, s, row); break;
    case SM__TRAIN_ACT_BACK: sm__train_act_back(t, s, row); break;
    case SM__TRAIN_LOSS: sm__train_loss(t, s, row); break;
    case SM__TRAIN_SCALE:
        t->kernels.scale(sm__mat_row(s->out, row), t->lora_scale, s->out.width);
        break;
    default: /* DROP */
        memcpy(sm__mat_row(s->out, row), sm__mat_row(s->in, row),
               (size_t)s->in.width * sizeof(float));
        sm__train_drop(t, s->site, row, 0, sm__mat_row(s->out, row), s->in.width);
        break;
    }
}

SM__INLINE void sm__train_tile(sm_trainer *t, const sm__train_step *s, int tile, int member) {
    float *scratch = (float *)(void *)(t->member_scratch + (size_t)member * t->member_bytes);
    int rows = sm__train_rows(t, s), row = tile * SM__ROW_TILE;
    switch (s->op) {
    case SM__TRAIN_EMBED_BACK: sm__tile_embed_back(t, s, rows, tile); return;
    case SM__TRAIN_NORM_GRAD: sm__tile_norm_grad(t, s, rows, tile); return;
    case SM__TRAIN_LINEAR: sm__tile_linear(t, s, rows, tile, scratch); return;
    case SM__TRAIN_LINEAR_DX: sm__tile_linear_dx(t, s, rows, tile, scratch); return;
    case SM__TRAIN_LINEAR_DW: sm__tile_linear_dw(t, s, rows, tile, scratch); return;
    case SM__TRAIN_DECODE: sm__tile_decode(s, tile); return;
    case SM__TRAIN_ATTEND: sm__tile_train_attend(t, s, tile, scratch); return;
    case SM__TRAIN_ATTEND_BACK: sm__tile_attend_back(t, s, tile, scratch); return;
    case SM__TRAIN_ZERO:
    case SM__TRAIN_SQUARES:
    case SM__TRAIN_UPDATE: sm__tile_flat(t, s, tile); return;
    default: break;
    }
    for (rows = sm__min(rows, row + SM__ROW_TILE); row < rows; row++) sm__train_row(t, s, row);
}

static void sm__train_tile__scalar(sm_trainer *t, const sm__train_step *s, int tile, int member) {
    sm__train_tile(t, s, tile, member);
}
#ifdef SM__HAS_AVX2
SM__AVX2 static void sm__train_tile__avx2(sm_trainer *t, const sm__train_step *s, int tile,
                                          int member) {
    sm__train_tile(t, s, tile, member);
}
#endif

/* Which of them a level uses. */
static sm__tile_fn sm__train_tile_of(int isa) {
#ifdef SM__HAS_AVX2
    if (isa >= SM_ISA_AVX2) return sm__train_tile__avx2;
#endif
    (void)isa;
    return sm__train_tile__scalar;
}

/* Take one tile of the step that is published and do it. 0 = there was none. */
static int sm__train_work(sm_trainer *t, int member) {
    sm__pass *p = &t->pass;
    uint64_t ticket = sm__load64(&p->ticket);
    const sm__train_step *s;
    do {
        if ((uint32_t)ticket == 0) return 0;
    } while (!sm__cas64(&p->ticket, &ticket, ticket - 1));
    s = &t->steps[ticket >> 32];
    t->tile(t, s, (int)(s->tiles - (uint32_t)ticket), member);
    sm__add32(&p->done, 1);
    return 1;
}

/* A team member's part, as sm__pass_help. */
static void sm__train_help(sm__pass *pass, int slot) {
    sm_trainer *t = (sm_trainer *)(void *)pass;
    uint64_t fp = sm__fp_enter();
    int round = 0;
    while (round < SM__SPIN_ROUNDS && sm__load64(&pass->ticket) != SM__CLOSED) {
        if (sm__train_work(t, slot)) round = 0;
        else sm__wait_a_little(round++);
    }
    sm__fp_leave(fp);
}

static int sm__train_finite(const float *x, size_t n) {
    size_t i;
    for (i = 0; x && i < n; i++)
        if (sm__not_finite(x[i])) return 0;
    return 1;
}

/* Whether what a step wrote is finite. */
static int sm__train_probe(const sm_trainer *t, const sm__train_step *s) {
    int rows = sm__train_rows(t, s), row, ok = 1;
    size_t n = (size_t)s->n, k = (size_t)s->k;
    if (s->op == SM__TRAIN_DECODE) return 1;
    for (row = 0; s->out.p && row < rows; row++)
        ok &= sm__train_finite(sm__mat_row(s->out, row), (size_t)s->out.width);
    if (s->op == SM__TRAIN_ACT_BACK)
        for (row = 0; row < rows; row++)
            ok &= sm__train_finite(sm__mat_row(s->aux, row), (size_t)s->aux.width);
    if (s->op == SM__TRAIN_LINEAR_DW || s->op == SM__TRAIN_NORM_GRAD ||
        s->op == SM__TRAIN_EMBED_BACK)
        ok &= sm__train_finite(s->gw, n * k);
    return ok;
}

/* All steps of some kinds in their order; this thread works too, and waits for each step's end. */
static void sm__train_walk(sm_trainer *t, int when) {
    int i, tile, tiles, round;
    for (i = 0; i < t->n_steps; i++) {
        sm__train_step *s = &t->steps[i];
        if (!(s->when & when) || (tiles = sm__train_tiles(t, s)) == 0) continue;
        if (tiles == 1 || !t->team) {
            for (tile = 0; tile < tiles; tile++) t->tile(t, s, tile, 0);
        } else {
            s->tiles = (uint32_t)tiles;
            sm__store32(&t->pass.done, 0);
            sm__swap64(&t->pass.ticket, (uint64_t)i << 32 | (uint64_t)tiles);
            sm__team_notify(t->team);
            while (sm__train_work(t, 0)) {
            }
            for (round = 0; sm__load32(&t->pass.done) < s->tiles;) sm__wait_a_little(round++);
        }
        if (t->probing && !t->culprit && !sm__train_probe(t, s)) t->culprit = s;
    }
}

static uint64_t sm__train_enter(sm_trainer *t) {
    if (t->team) {
        sm__swap64(&t->pass.ticket, 0); /* open, and nothing to do yet */
        sm__team_open(t->team, &t->pass);
    }
    return sm__fp_enter();
}

static void sm__train_leave(sm_trainer *t, uint64_t fp) {
    sm__fp_leave(fp);
    if (!t->team) return;
    sm__swap64(&t->pass.ticket, SM__CLOSED);
    sm__team_close(t->team, &t->pass);
}

/* --- making the tape -------------------------------------------------------------------------- */

/* The tensor of that name, or NULL. */
static const sm__train_tensor *sm__train_find(const sm_trainer *t, int layer, const char *stem,
                                              const char *suffix) {
    sm__binder b;
    int i = layer < 0 ? 0 : t->tensors ? t->layer_tensors[layer] : 0, end;
    if (!t->tensors) return NULL;
    end = t->layer_tensors[layer < 0 ? 0 : layer + 1];
    b.layer = layer;
    sm__bind_name(&b, stem, suffix);
    for (; i < end; i++)
        if (strcmp(t->tensors[i].name, b.name) == 0) return &t->tensors[i];
    return NULL;
}

static sm__train_step *sm__train_emit(sm_trainer *t, int op, const char *name, int layer) {
    sm__train_step *s = t->steps ? &t->steps[t->n_steps] : &t->none;
    t->n_steps++;
    memset(s, 0, sizeof *s);
    s->op = (uint8_t)op;
    s->when = (uint8_t)t->emit_when;
    s->name = name;
    s->layer = layer;
    s->row0 = t->emit_row0;
    s->max_rows = t->emit_rows;
    s->heads = 1;
    return s;
}

/* The frozen matrix of a name; NULL: there is none of it. */
static const sm__weight *sm__frozen_matrix(const sm_trainer *t, int layer, const char *name) {
    const sm__weights *w = t->params.model->weights;
    const sm__layer *l = &w->layers[layer < 0 ? 0 : layer];
    if (strcmp(name, "token_embd") == 0) return &w->embed;
    if (strcmp(name, "output") == 0) return &w->output;
    if (strcmp(name, "attn_q") == 0 || strcmp(name, "attn_qkv") == 0) return &l->q; /* all three */
    if (strcmp(name, "attn_k") == 0) return &l->k;
    if (strcmp(name, "attn_v") == 0) return &l->v;
    if (strcmp(name, "attn_output") == 0) return &l->attn_out;
    if (strcmp(name, "ffn_gate") == 0) return &l->gate;
    if (strcmp(name, "ffn_up") == 0) return &l->up;
    return strcmp(name, "ffn_down") == 0 ? &l->down : NULL;
}

/* Frozen weights and biases of a step: of norms the vectors, of matrices the bias. */
static void sm__frozen_bind(const sm_trainer *t, sm__train_step *s, int layer, const char *name) {
    const sm__weights *w = t->params.model->weights;
    const sm__layer *l = &w->layers[layer < 0 ? 0 : layer];
    const sm__weight *m = sm__frozen_matrix(t, layer, name);
    if (m) s->frozen = *m, s->b = m->bias;
    else if (strcmp(name, "output_norm") == 0) s->w = w->output_norm, s->b = w->output_norm_bias;
    else if (strcmp(name, "attn_norm") == 0) s->w = l->attn_norm, s->b = l->attn_norm_bias;
    else if (strcmp(name, "ffn_norm") == 0) s->w = l->ffn_norm, s->b = l->ffn_norm_bias;
    else if (strcmp(name, "attn_q_norm") == 0) s->w = l->q_norm;
    else s->w = l->k_norm;
}

/* A step with a weight [n, k] and its bias, if there is one; of a tensor with the step's name. */
static sm__train_step *sm__train_emit_weight(sm_trainer *t, int op, const char *name, int layer,
                                             int n, int k) {
    sm__train_step *s = sm__train_emit(t, op, name, layer);
    const sm__train_tensor *w = sm__train_find(t, layer, name, ".weight");
    const sm__train_tensor *b = sm__train_find(t, layer, name, ".bias");
    s->n = n;
    s->k = k;
    if (t->params.lora_rank) sm__frozen_bind(t, s, layer, name);
    if (w) s->w = t->flat + w->at, s->gw = t->grads + w->at;
    if (b) s->b = t->flat + b->at, s->gb = t->grads + b->at;
    return s;
}

static void sm__train_emit_norm(sm_trainer *t, const char *name, int layer, sm__mat x, sm__mat y,
                                sm__mat stats, int k) {
    sm__train_step *s = sm__train_emit_weight(t, SM__TRAIN_NORM, name, layer, 1, k);
    s->in = x, s->out = y, s->aux = stats;
    s->heads = x.width / k;
}

static void sm__train_emit_norm_back(sm_trainer *t, const char *name, int layer, sm__mat x,
                                     sm__mat dy, sm__mat stats, sm__mat dx, int accumulate, int k) {
    sm__train_step *s;
    if (!t->params.lora_rank) {
        s = sm__train_emit_weight(t, SM__TRAIN_NORM_GRAD, name, layer, 1, k);
        s->in = x, s->in2 = dy, s->aux = stats;
        s->heads = x.width / k;
    }
    s = sm__train_emit_weight(t, SM__TRAIN_NORM_BACK, name, layer, 1, k);
    s->in = x, s->in2 = dy, s->aux = stats, s->out = dx;
    s->heads = x.width / k;
    s->accumulate = (uint8_t)accumulate;
}

static sm__mat sm__train_none(void) {
    sm__mat none = {NULL, 0, 0};
    return none;
}

/* The sm_lora_target of a matrix; 0 = none. */
static int sm__lora_flag(const char *name) {
    static const char *const names[] = {"attn_q",   "attn_k", "attn_v",  "attn_output",
                                        "ffn_gate", "ffn_up", "ffn_down"};
    int i = 0;
    if (strcmp(name, "attn_qkv") == 0) return SM_LORA_Q | SM_LORA_K | SM_LORA_V;
    while (i < 7 && strcmp(name, names[i]) != 0) i++;
    return i < 7 ? 1 << i : 0;
}

/* Rows of n of a frozen matrix that are decoded at once; 0 = it is read where it is. */
static int sm__lora_rows(const sm__weight *w, int n) {
    size_t rows = SM__LORA_FLOATS / (size_t)w->k / SM__GEMM_K * SM__GEMM_K;
    if (w->type == SM__T_F32 && (uintptr_t)w->data % sizeof(float) == 0) return 0;
    return sm__min(rows < SM__GEMM_K ? SM__GEMM_K : (int)rows, n);
}

/* LINEAR or LINEAR_DX with rows [row, row + n) of a frozen matrix; n 0 = all of them. */
static sm__train_step *sm__lora_emit_frozen(sm_trainer *t, int op, const char *name, int layer,
                                            const sm__weight *all, int row, int n) {
    sm__weight w = sm__weight_rows(all, row, n ? n : all->n);
    sm__train_step *s;
    sm__mat rows = {NULL, 0, 0};
    rows.p = t->decoded;
    rows.stride = (size_t)w.k;
    rows.width = w.k;
    if (n) {
        s = sm__train_emit(t, SM__TRAIN_DECODE, name, layer);
        s->frozen = w;
        s->out = rows;
    }
    s = sm__train_emit(t, op, name, layer);
    s->w = n ? t->decoded : (const float *)(const void *)w.data;
    s->b = w.bias;
    s->n = w.n;
    s->k = w.k;
    return s;
}

/* A step with the parameters A [rank, k] (suffix ".lora_a") or B [n, rank] of a matrix as w; NULL
 * when there are none. */
static sm__train_step *sm__lora_emit(sm_trainer *t, int op, const char *name, int layer,
                                     const char *suffix) {
    const sm__train_tensor *e;
    sm__train_step *s;
    if (layer < 0 || !(sm__lora_flag(name) & t->params.lora_targets)) return NULL;
    s = sm__train_emit(t, op, name, layer);
    e = sm__train_find(t, layer, name, suffix);
    if (!e) return s; /* steps are only counted */
    s->w = t->flat + e->at;
    s->gw = t->grads + e->at;
    s->n = e->rows;
    s->k = e->columns;
    return s;
}

/* low = s A x; 0 = the matrix is no target. */
static int sm__lora_emit_low(sm_trainer *t, const char *name, int layer, sm__mat x) {
    sm__train_step *s = sm__lora_emit(t, SM__TRAIN_LINEAR, name, layer, ".weight.lora_a");
    if (!s) return 0;
    s->in = x, s->out = t->bufs.low;
    s = sm__train_emit(t, SM__TRAIN_SCALE, name, layer);
    s->out = t->bufs.low;
    return 1;
}

static void sm__lora_emit_linear(sm_trainer *t, const char *name, int layer, sm__mat x, sm__mat y,
                                 sm__mat residual, int site) {
    const sm__weight *w = sm__frozen_matrix(t, layer, name);
    int most = sm__lora_rows(w, y.width), row, n;
    sm__train_step *s;
    for (row = 0; row < y.width; row += n) {
        n = most ? sm__min(most, y.width - row) : y.width;
        s = sm__lora_emit_frozen(t, SM__TRAIN_LINEAR, name, layer, w, row, most ? n : 0);
        s->in = x, s->out = sm__mat_from(y, (size_t)row, n);
        s->n = n;
    }
    if (sm__lora_emit_low(t, name, layer, x))
        s = sm__lora_emit(t, SM__TRAIN_LINEAR, name, layer, ".weight.lora_b");
    else if (site) s = sm__train_emit(t, SM__TRAIN_LINEAR, name, layer);
    else return;
    s->in = t->bufs.low, s->in2 = residual, s->out = y;
    s->site = site;
    s->n = y.width;
    s->accumulate = 1;
}

/* dx of width 0: nobody needs it. */
static void sm__lora_emit_linear_back(sm_trainer *t, const char *name, int layer, sm__mat dy,
                                      sm__mat x, sm__mat dx, int accumulate) {
    const sm__weight *w = sm__frozen_matrix(t, layer, name);
    const sm__train_bufs *b = &t->bufs;
    int most = sm__lora_rows(w, dy.width), row, n;
    sm__train_step *s;
    for (row = 0; dx.width && row < dy.width; row += n) {
        n = most ? sm__min(most, dy.width - row) : dy.width;
        s = sm__lora_emit_frozen(t, SM__TRAIN_LINEAR_DX, name, layer, w, row, most ? n : 0);
        s->in = sm__mat_from(dy, (size_t)row, n), s->out = dx;
        s->n = n;
        s->accumulate = accumulate || row > 0;
    }
    if (!sm__lora_emit_low(t, name, layer, x)) return;
    s = sm__lora_emit(t, SM__TRAIN_LINEAR_DW, name, layer, ".weight.lora_b");
    s->in = dy, s->in2 = b->low;
    s = sm__lora_emit(t, SM__TRAIN_LINEAR_DX, name, layer, ".weight.lora_b");
    s->in = dy, s->out = b->dlow;
    s = sm__train_emit(t, SM__TRAIN_SCALE, name, layer);
    s->out = b->dlow;
    s = sm__lora_emit(t, SM__TRAIN_LINEAR_DW, name, layer, ".weight.lora_a");
    s->in = b->dlow, s->in2 = x;
    if (!dx.width) return;
    s = sm__lora_emit(t, SM__TRAIN_LINEAR_DX, name, layer, ".weight.lora_a");
    s->in = b->dlow, s->out = dx;
    s->accumulate = 1;
}

/* residual.p NULL: none. */
static void sm__train_emit_linear(sm_trainer *t, const char *name, int layer, sm__mat x, sm__mat y,
                                  sm__mat residual, int site) {
    sm__train_step *s;
    if (t->params.lora_rank) {
        sm__lora_emit_linear(t, name, layer, x, y, residual, site);
        return;
    }
    s = sm__train_emit_weight(t, SM__TRAIN_LINEAR, name, layer, y.width, x.width);
    s->in = x, s->out = y, s->in2 = residual;
    s->site = site;
}

static void sm__train_emit_linear_back(sm_trainer *t, const char *name, int layer, sm__mat dy,
                                       sm__mat x, sm__mat dx, int accumulate) {
    sm__train_step *s;
    if (t->params.lora_rank) {
        sm__lora_emit_linear_back(t, name, layer, dy, x, dx, accumulate);
        return;
    }
    s = sm__train_emit_weight(t, SM__TRAIN_LINEAR_DW, name, layer, dy.width, x.width);
    s->in = dy, s->in2 = x;
    s = sm__train_emit_weight(t, SM__TRAIN_LINEAR_DX, name, layer, dy.width, x.width);
    s->in = dy, s->out = dx;
    s->accumulate = (uint8_t)accumulate;
}

/* A layer's own part of a buffer. */
static sm__mat sm__train_slot(const sm_trainer *t, sm__mat m, int il) {
    return sm__mat_from(m, (size_t)(il % t->group) * t->bufs.slot_floats, m.width);
}

/* The residual stream before layer il; after all of them for il = L. */
static sm__mat sm__train_x(const sm_trainer *t, int il) {
    const sm__train_bufs *b = &t->bufs;
    if (il % t->group && il < t->hp.n_layers) return sm__train_slot(t, b->out, il - 1);
    return sm__mat_from(b->x, (size_t)sm__ceil_div(il, t->group) * b->x_floats, b->x.width);
}

/* The i-th matrix that makes queries, keys and values: its rows and where they go; NULL = none. */
static const char *sm__train_qkv(const sm_trainer *t, int i, int *column, int *n) {
    static const char *const names[] = {"attn_q", "attn_k", "attn_v"};
    int dim = t->hp.head_dim, q = t->hp.n_heads * dim, kv = t->hp.n_kv_heads * dim;
    int fused = (t->arch->flags & SM__ARCH_FUSED_QKV) != 0;
    *column = i == 0 ? 0 : q + (i - 1) * kv;
    *n = fused ? q + 2 * kv : i == 0 ? q : kv;
    if (fused) return i == 0 ? "attn_qkv" : NULL;
    return i < 3 ? names[i] : NULL;
}

static void sm__train_emit_attention(sm_trainer *t, int il) {
    const sm__train_bufs *b = &t->bufs;
    int q = t->hp.n_heads * t->hp.head_dim, kv = t->hp.n_kv_heads * t->hp.head_dim, i, at, n;
    sm__mat h1 = sm__train_slot(t, b->h1, il), raw = sm__train_slot(t, b->raw, il);
    sm__mat qkv = sm__train_slot(t, b->qkv, il), o = sm__train_slot(t, b->o, il);
    const char *name;
    sm__train_step *s;
    sm__train_emit_norm(t, "attn_norm", il, sm__train_x(t, il), h1,
                        sm__train_slot(t, b->stats1, il), t->hp.n_embd);
    for (i = 0; (name = sm__train_qkv(t, i, &at, &n)) != NULL; i++)
        sm__train_emit_linear(t, name, il, h1, sm__mat_from(raw, (size_t)at, n), sm__train_none(),
                              0);
    if (t->arch->flags & SM__ARCH_QK_NORM) {
        sm__train_emit_norm(t, "attn_q_norm", il, sm__mat_from(raw, 0, q), sm__mat_from(qkv, 0, q),
                            sm__train_slot(t, b->stats_q, il), t->hp.head_dim);
        sm__train_emit_norm(t, "attn_k_norm", il, sm__mat_from(raw, (size_t)q, kv),
                            sm__mat_from(qkv, (size_t)q, kv), sm__train_slot(t, b->stats_k, il),
                            t->hp.head_dim);
    }
    if (t->hp.pos != SM__POS_LEARNED) {
        s = sm__train_emit(t, SM__TRAIN_ROPE, "rope", il);
        s->out = sm__mat_from(qkv, 0, q + kv);
    }
    s = sm__train_emit(t, SM__TRAIN_ATTEND, "attend", il);
    s->in = qkv, s->in2 = raw, s->out = o;
    sm__train_emit_linear(t, "attn_output", il, o, sm__train_slot(t, b->mid, il),
                          sm__train_x(t, il), 2 + 2 * il);
}

/* whole: with the last matrix, whose output only the next layer needs. */
static void sm__train_emit_ffn(sm_trainer *t, int il, int whole) {
    const sm__train_bufs *b = &t->bufs;
    sm__mat h2 = sm__train_slot(t, b->h2, il), up = sm__train_slot(t, b->up, il);
    sm__mat gate = sm__train_slot(t, b->gate, il), act = sm__train_slot(t, b->act, il);
    sm__mat mid = sm__train_slot(t, b->mid, il);
    sm__train_step *s;
    sm__train_emit_norm(t, "ffn_norm", il, mid, h2, sm__train_slot(t, b->stats2, il),
                        t->hp.n_embd);
    sm__train_emit_linear(t, "ffn_up", il, h2, up, sm__train_none(), 0);
    if (t->arch->ffn == SM__FFN_SWIGLU)
        sm__train_emit_linear(t, "ffn_gate", il, h2, gate, sm__train_none(), 0);
    s = sm__train_emit(t, SM__TRAIN_ACT, "act", il);
    s->in = up, s->in2 = gate, s->out = act;
    if (whole)
        sm__train_emit_linear(t, "ffn_down", il, act, sm__train_x(t, il + 1), mid, 3 + 2 * il);
}

/* dy behind dropout: dx itself when there is none. */
static sm__mat sm__train_emit_drop(sm_trainer *t, int il, int site) {
    sm__train_step *s;
    if (!(t->params.dropout > 0.0f)) return t->bufs.dx;
    s = sm__train_emit(t, SM__TRAIN_DROP, "dropout", il);
    s->in = t->bufs.dx, s->out = t->bufs.dy;
    s->site = site;
    return t->bufs.dy;
}

/* dx: of the residual stream behind the layer, becomes that before it. */
static void sm__train_emit_ffn_back(sm_trainer *t, int il) {
    const sm__train_bufs *b = &t->bufs;
    sm__mat h2 = sm__train_slot(t, b->h2, il), dy = sm__train_emit_drop(t, il, 3 + 2 * il);
    int gated = t->arch->ffn == SM__FFN_SWIGLU;
    sm__train_step *s;
    sm__train_emit_linear_back(t, "ffn_down", il, dy, sm__train_slot(t, b->act, il), b->dup, 0);
    s = sm__train_emit(t, SM__TRAIN_ACT_BACK, "act", il);
    s->in = sm__train_slot(t, b->up, il), s->in2 = sm__train_slot(t, gated ? b->gate : b->act, il);
    s->aux = b->dup, s->out = b->dgate;
    sm__train_emit_linear_back(t, "ffn_up", il, b->dup, h2, b->dh, 0);
    if (gated)
        sm__train_emit_linear_back(t, "ffn_gate", il, b->dgate, h2, b->dh, 1);
    sm__train_emit_norm_back(t, "ffn_norm", il, sm__train_slot(t, b->mid, il), b->dh,
                             sm__train_slot(t, b->stats2, il), b->dx, 1, t->hp.n_embd);
}

static void sm__train_emit_attention_back(sm_trainer *t, int il) {
    const sm__train_bufs *b = &t->bufs;
    int q = t->hp.n_heads * t->hp.head_dim, kv = t->hp.n_kv_heads * t->hp.head_dim, i, at, n;
    int end = t->params.lora_rank && il == 0; /* frozen embeddings need no gradient */
    sm__mat raw = sm__train_slot(t, b->raw, il), dy = sm__train_emit_drop(t, il, 2 + 2 * il);
    sm__mat dq = sm__mat_from(b->dqkv, 0, q), dk = sm__mat_from(b->dqkv, (size_t)q, kv);
    const char *name;
    sm__train_step *s;
    sm__train_emit_linear_back(t, "attn_output", il, dy, sm__train_slot(t, b->o, il), b->d_o, 0);
    s = sm__train_emit(t, SM__TRAIN_ATTEND_BACK, "attend", il);
    s->in = sm__train_slot(t, b->qkv, il), s->in2 = raw, s->aux = b->d_o, s->out = b->dqkv;
    if (t->hp.pos != SM__POS_LEARNED) {
        s = sm__train_emit(t, SM__TRAIN_ROPE_BACK, "rope", il);
        s->out = sm__mat_from(b->dqkv, 0, q + kv);
    }
    if (t->arch->flags & SM__ARCH_QK_NORM) {
        sm__train_emit_norm_back(t, "attn_q_norm", il, sm__mat_from(raw, 0, q), dq,
                                 sm__train_slot(t, b->stats_q, il), dq, 0, t->hp.head_dim);
        sm__train_emit_norm_back(t, "attn_k_norm", il, sm__mat_from(raw, (size_t)q, kv), dk,
                                 sm__train_slot(t, b->stats_k, il), dk, 0, t->hp.head_dim);
    }
    for (i = 0; (name = sm__train_qkv(t, i, &at, &n)) != NULL; i++)
        sm__train_emit_linear_back(t, name, il, sm__mat_from(b->dqkv, (size_t)at, n),
                                   sm__train_slot(t, b->h1, il), end ? sm__train_none() : b->dh,
                                   i > 0);
    if (end) return;
    sm__train_emit_norm_back(t, "attn_norm", il, sm__train_x(t, il), b->dh,
                             sm__train_slot(t, b->stats1, il), b->dx, 1, t->hp.n_embd);
}

/* Logits and loss of 256 rows at a time; the gradient of each piece at once, while it is there. */
static void sm__train_emit_loss(sm_trainer *t) {
    const sm__train_bufs *b = &t->bufs;
    const char *name = t->params.tied ? "token_embd" : "output";
    int rows = t->params.n_batch * t->params.n_ctx;
    sm__train_step *s;
    t->emit_rows = SM__LOSS_ROWS;
    for (t->emit_row0 = 0; t->emit_row0 < rows; t->emit_row0 += SM__LOSS_ROWS) {
        size_t at = (size_t)t->emit_row0;
        sm__mat last = sm__mat_from(b->last, at * b->last.stride, b->last.width);
        t->emit_when = SM__FORWARD;
        sm__train_emit_linear(t, name, -1, last, b->logits, sm__train_none(), 0);
        s = sm__train_emit(t, SM__TRAIN_LOSS, "loss", -1);
        s->in = b->logits;
        t->emit_when = SM__BACKWARD;
        sm__train_emit_linear_back(t, name, -1, b->logits, last,
                                   sm__mat_from(b->dh, at * b->dh.stride, b->dh.width), 0);
    }
    t->emit_row0 = t->emit_rows = 0;
}

static void sm__train_emit_embed(sm_trainer *t, int op, sm__mat x) {
    sm__train_step *s = sm__train_emit_weight(t, op, "token_embd", -1, t->hp.n_vocab, t->hp.n_embd);
    const sm__train_tensor *position = sm__train_find(t, -1, "position_embd", ".weight");
    if (t->params.lora_rank) s->frozen2 = t->params.model->weights->position;
    s->b = position ? t->flat + position->at : NULL;
    s->gb = position ? t->grads + position->at : NULL;
    s->in = s->out = x;
    s->site = 1;
}

static void sm__train_emit_all(sm_trainer *t) {
    const sm__train_bufs *b = &t->bufs;
    int il, first, last = t->hp.n_layers;
    t->n_steps = 0;
    t->emit_when = SM__FORWARD;
    sm__train_emit_embed(t, SM__TRAIN_EMBED, sm__train_x(t, 0));
    for (il = 0; il < last; il++) {
        sm__train_emit_attention(t, il);
        sm__train_emit_ffn(t, il, 1);
    }
    sm__train_emit_norm(t, "output_norm", -1, sm__train_x(t, last), b->last, b->stats_last,
                        t->hp.n_embd);
    sm__train_emit_loss(t);
    sm__train_emit_norm_back(t, "output_norm", -1, sm__train_x(t, last), b->dh, b->stats_last,
                             b->dx, 0, t->hp.n_embd);
    for (first = (last - 1) / t->group * t->group; first >= 0; last = first, first -= t->group) {
        for (il = first; last < t->hp.n_layers && il < last; il++) { /* the slots held others */
            sm__train_emit_attention(t, il);
            sm__train_emit_ffn(t, il, il + 1 < last);
        }
        for (il = last - 1; il >= first; il--) {
            sm__train_emit_ffn_back(t, il);
            sm__train_emit_attention_back(t, il);
        }
    }
    if (!t->params.lora_rank) sm__train_emit_embed(t, SM__TRAIN_EMBED_BACK, b->dx);
    t->emit_when = SM__ZERO;
    sm__train_emit(t, SM__TRAIN_ZERO, "zero", -1);
    t->emit_when = SM__SQUARES;
    sm__train_emit(t, SM__TRAIN_SQUARES, "gradient norm", -1);
    t->emit_when = SM__UPDATE;
    sm__train_emit(t, SM__TRAIN_UPDATE, "update", -1);
}

/* --- the layout ------------------------------------------------------------------------------- */

/* Whether the model, or one from scratch, has a tensor. */
static int sm__train_has(const sm_trainer *t, int layer, const char *stem, const char *suffix,
                         int otherwise) {
    sm__binder b;
    b.layer = layer;
    if (!t->params.model) return otherwise;
    return sm__tensor_at(t->params.model, sm__bind_name(&b, stem, suffix)) >= 0;
}

/* rows 0: a vector. Offsets count from the start of the matrices, or of the vectors. */
static void sm__train_add(sm_trainer *t, int layer, const char *stem, const char *suffix, int rows,
                          int columns, float deviation) {
    size_t floats, *end = rows ? &t->n_decay : &t->n_flat;
    sm__binder b;
    sm__train_tensor *e = t->tensors ? &t->tensors[t->n_tensors] : NULL;
    const sm_model *m = t->params.model;
    int i;
    b.layer = layer;
    sm__bind_name(&b, stem, suffix);
    i = m ? sm__tensor_at(m, b.name) : -1;
    if (i >= 0 && !t->params.lora_rank && m->tensors[i].type != SM_TYPE_F32 &&
        m->tensors[i].type != SM_TYPE_F16 && m->tensors[i].type != SM_TYPE_BF16)
        sm__fail(&t->error, SM_ERR_UNSUPPORTED, "trainer: tensor %s has the type %s", b.name,
                 sm__ggml_name(m->tensors[i].type));
    if (sm__mul_size((size_t)sm__max(rows, 1), (size_t)columns, &floats) ||
        floats > SIZE_MAX / 64 - *end - 16) {
        sm__fail(&t->error, SM_ERR_FULL, "trainer: it would not fit in the address space");
        return;
    }
    if (e) {
        memcpy(e->name, b.name, sizeof e->name);
        e->rows = rows;
        e->columns = columns;
        e->at = *end;
        e->deviation = deviation;
    }
    t->n_tensors++;
    t->n_params += floats;
    *end += sm__round_up(floats, 16);
}

static void sm__train_add_norm(sm_trainer *t, int layer, const char *stem, int n) {
    int bias = (t->arch->flags & SM__ARCH_NORM_BIAS) != 0;
    sm__train_add(t, layer, stem, ".weight", 0, n, -1.0f);
    if (bias) sm__train_add(t, layer, stem, ".bias", 0, n, 0.0f);
}

static void sm__train_add_linear(sm_trainer *t, int layer, const char *stem, int n, int k,
                                 int flags, float deviation) {
    sm__train_add(t, layer, stem, ".weight", n, k, deviation);
    if (sm__train_has(t, layer, stem, ".bias", t->arch->flags & flags))
        sm__train_add(t, layer, stem, ".bias", 0, n, 0.0f);
}

#define SM__TRAIN_DEVIATION 0.02f /* of the first matrices (Radford et al. 2019) */

static void sm__train_add_layer(sm_trainer *t, int il, float last) {
    int c = t->hp.n_embd, i, at, n;
    const char *name;
    sm__train_add_norm(t, il, "attn_norm", c);
    for (i = 0; (name = sm__train_qkv(t, i, &at, &n)) != NULL; i++)
        sm__train_add_linear(t, il, name, n, c, SM__ARCH_BIAS | SM__ARCH_QKV_BIAS,
                             SM__TRAIN_DEVIATION);
    if (t->arch->flags & SM__ARCH_QK_NORM) {
        sm__train_add(t, il, "attn_q_norm", ".weight", 0, t->hp.head_dim, -1.0f);
        sm__train_add(t, il, "attn_k_norm", ".weight", 0, t->hp.head_dim, -1.0f);
    }
    sm__train_add_linear(t, il, "attn_output", c, t->hp.n_heads * t->hp.head_dim, SM__ARCH_BIAS,
                         last);
    sm__train_add_norm(t, il, "ffn_norm", c);
    if (t->arch->ffn == SM__FFN_SWIGLU)
        sm__train_add_linear(t, il, "ffn_gate", t->hp.n_ff, c, SM__ARCH_BIAS, SM__TRAIN_DEVIATION);
    sm__train_add_linear(t, il, "ffn_up", t->hp.n_ff, c, SM__ARCH_BIAS, SM__TRAIN_DEVIATION);
    sm__train_add_linear(t, il, "ffn_down", c, t->hp.n_ff, SM__ARCH_BIAS, last);
}

/* A and B of a matrix, when it is a target. A as PEFT's: of the variance of a uniform distribution
 * over +-1 / sqrt(k). */
static void sm__lora_add(sm_trainer *t, int il, const char *stem, int n, int k) {
    if (!(sm__lora_flag(stem) & t->params.lora_targets)) return;
    sm__train_add(t, il, stem, ".weight.lora_a", t->params.lora_rank, k,
                  sm__div(1.0f, sm__sqrt(3.0f * (float)k)));
    sm__train_add(t, il, stem, ".weight.lora_b", n, t->params.lora_rank, 0.0f);
}

static void sm__lora_add_layer(sm_trainer *t, int il) {
    int c = t->hp.n_embd, i, at, n;
    const char *name;
    for (i = 0; (name = sm__train_qkv(t, i, &at, &n)) != NULL; i++)
        sm__lora_add(t, il, name, n, c);
    sm__lora_add(t, il, "attn_output", c, t->hp.n_heads * t->hp.head_dim);
    if (t->arch->ffn == SM__FFN_SWIGLU) sm__lora_add(t, il, "ffn_gate", t->hp.n_ff, c);
    sm__lora_add(t, il, "ffn_up", t->hp.n_ff, c);
    sm__lora_add(t, il, "ffn_down", c, t->hp.n_ff);
}

/* What is outside the layers. */
static void sm__train_add_ends(sm_trainer *t) {
    const sm__hparams *hp = &t->hp;
    sm__train_add(t, -1, "token_embd", ".weight", hp->n_vocab, hp->n_embd, SM__TRAIN_DEVIATION);
    if (!t->params.tied)
        sm__train_add_linear(t, -1, "output", hp->n_vocab, hp->n_embd, 0, SM__TRAIN_DEVIATION);
    if (hp->pos == SM__POS_LEARNED)
        sm__train_add(t, -1, "position_embd", ".weight", hp->n_ctx, hp->n_embd,
                      SM__TRAIN_DEVIATION);
    sm__train_add_norm(t, -1, "output_norm", hp->n_embd);
}

/* Counts the tensors, or fills the table. */
static void sm__train_add_all(sm_trainer *t) {
    const sm__hparams *hp = &t->hp;
    float last = sm__div(SM__TRAIN_DEVIATION, sm__sqrt(2.0f * (float)hp->n_layers));
    int i;
    t->n_tensors = 0;
    t->n_params = 0;
    t->n_flat = t->n_decay = 0;
    if (!t->params.lora_rank) sm__train_add_ends(t);
    for (i = 0; i < hp->n_layers; i++) {
        if (t->tensors) t->layer_tensors[i] = t->n_tensors;
        if (t->params.lora_rank) sm__lora_add_layer(t, i);
        else sm__train_add_layer(t, i, last);
    }
    if (t->tensors) t->layer_tensors[i] = t->n_tensors;
    for (i = 0; t->tensors && i < t->n_tensors; i++)
        if (!t->tensors[i].rows) t->tensors[i].at += t->n_decay;
    t->n_flat += t->n_decay;
}

/* Where gradients begin at 0: the embedding, unless it is the output, positions, and vectors. */
static void sm__train_zeros(sm_trainer *t) {
    const sm__train_tensor *e = sm__train_find(t, -1, "token_embd", ".weight");
    memset(t->zeros, 0, sizeof t->zeros);
    if (e && !t->params.tied) t->zeros[0][1] = e[1].at;
    e = sm__train_find(t, -1, "position_embd", ".weight");
    if (e) t->zeros[1][0] = e->at;
    if (e) t->zeros[1][1] = e->at + sm__round_up((size_t)e->rows * (size_t)e->columns, 16);
    t->zeros[2][0] = t->n_decay;
    t->zeros[2][1] = t->n_flat;
}

static sm__mat sm__train_mat(sm__arena *a, size_t rows, int width) {
    sm__mat m;
    m.width = width;
    m.stride = sm__round_up((size_t)width, 16);
    if (m.stride % 256 == 0) m.stride += 16; /* as sm__emit_buf */
    m.p = (float *)sm__arena_take(a, rows, m.stride * sizeof(float));
    return m;
}

/* What one layer keeps, and room for the others of its group. */
static void sm__train_layout_slots(sm__arena *a, sm_trainer *t, size_t rows) {
    sm__train_bufs *b = &t->bufs;
    const sm__hparams *hp = &t->hp;
    int c = hp->n_embd, q = hp->n_heads * hp->head_dim;
    int wide = q + 2 * hp->n_kv_heads * hp->head_dim;
    size_t start = a->used;
    b->h1 = sm__train_mat(a, rows, c);
    b->qkv = b->raw = sm__train_mat(a, rows, wide);
    b->stats_q = b->stats_k = sm__train_none();
    if (t->arch->flags & SM__ARCH_QK_NORM) {
        b->qkv = sm__train_mat(a, rows, wide);
        b->stats_q = sm__train_mat(a, rows, 2 * hp->n_heads);
        b->stats_k = sm__train_mat(a, rows, 2 * hp->n_kv_heads);
    }
    b->o = sm__train_mat(a, rows, q);
    b->mid = sm__train_mat(a, rows, c);
    b->h2 = sm__train_mat(a, rows, c);
    b->up = sm__train_mat(a, rows, hp->n_ff);
    b->gate = t->arch->ffn == SM__FFN_SWIGLU ? sm__train_mat(a, rows, hp->n_ff) : sm__train_none();
    b->act = sm__train_mat(a, rows, hp->n_ff);
    b->out = t->group > 1 ? sm__train_mat(a, rows, c) : sm__train_none();
    b->stats1 = sm__train_mat(a, rows, 2);
    b->stats2 = sm__train_mat(a, rows, 2);
    b->slot_floats = (a->used - start) / sizeof(float);
    sm__arena_take(a, (size_t)t->group - 1, a->used - start);
}

/* Gradients: those of the layers' two halves and those of the logits never live together. */
static void sm__train_layout_gradients(sm__arena *a, sm_trainer *t, size_t rows) {
    sm__train_bufs *b = &t->bufs;
    const sm__hparams *hp = &t->hp;
    int c = hp->n_embd, q = hp->n_heads * hp->head_dim;
    int wide = q + 2 * hp->n_kv_heads * hp->head_dim;
    size_t start, end;
    b->dx = sm__train_mat(a, rows, c);
    b->dy = t->params.dropout > 0.0f ? sm__train_mat(a, rows, c) : sm__train_none();
    b->dh = sm__train_mat(a, rows, c);
    if (t->params.lora_rank) {
        b->low = sm__train_mat(a, rows, t->params.lora_rank);
        b->dlow = sm__train_mat(a, rows, t->params.lora_rank);
    }
    start = a->used;
    b->logits = sm__train_mat(a, sm__min_size(rows, SM__LOSS_ROWS), hp->n_vocab);
    end = a->used;
    a->used = start;
    b->d_o = sm__train_mat(a, rows, q);
    b->dqkv = sm__train_mat(a, rows, wide);
    if (a->used > end) end = a->used;
    a->used = start;
    b->dup = sm__train_mat(a, rows, hp->n_ff);
    b->dgate = t->arch->ffn == SM__FFN_SWIGLU ? sm__train_mat(a, rows, hp->n_ff) : sm__train_none();
    if (a->used < end) a->used = end;
}

static void sm__train_layout_activations(sm__arena *a, sm_trainer *t) {
    sm__train_bufs *b = &t->bufs;
    size_t rows = (size_t)t->params.n_batch * (size_t)t->params.n_ctx, start = a->used;
    size_t half = (size_t)t->params.n_ctx * (size_t)(t->hp.n_rot / 2);
    int groups = sm__ceil_div(t->hp.n_layers, t->group);
    b->x = sm__train_mat(a, rows, t->hp.n_embd);
    b->x_floats = (a->used - start) / sizeof(float);
    sm__arena_take(a, (size_t)groups, a->used - start);
    sm__train_layout_slots(a, t, rows);
    b->last = sm__train_mat(a, rows, t->hp.n_embd);
    b->stats_last = sm__train_mat(a, rows, 2);
    sm__train_layout_gradients(a, t, rows);
    t->cosines = (float *)sm__arena_take(a, half, sizeof(float));
    t->sines = (float *)sm__arena_take(a, half, sizeof(float));
    t->back_sines = (float *)sm__arena_take(a, half, sizeof(float));
    t->row_loss = (double *)sm__arena_take(a, rows, sizeof(double));
    t->row_hit = (uint8_t *)sm__arena_take(a, rows, 1);
    t->plan.activation_bytes = a->used - start;
}

/* Room for the rows of frozen matrices. */
static size_t sm__lora_floats(const sm_trainer *t) {
    static const char *const names[] = {"output",      "attn_q",   "attn_k", "attn_v",
                                        "attn_output", "ffn_gate", "ffn_up", "ffn_down"};
    size_t floats, most = 0;
    int i, il;
    if (!t->params.lora_rank) return 0;
    for (il = 0; il < t->hp.n_layers; il++)
        for (i = 0; i < 8; i++) {
            const sm__weight *w = sm__frozen_matrix(t, il, names[i]);
            int fused = i == 1 && (t->arch->flags & SM__ARCH_FUSED_QKV);
            int n = fused ? (t->hp.n_heads + 2 * t->hp.n_kv_heads) * t->hp.head_dim : w->n;
            if (!w->data) continue;
            floats = (size_t)sm__lora_rows(w, n) * (size_t)w->k;
            if (floats > most) most = floats;
        }
    return most;
}

/* A member's scratch: sm__multiply's, then attention's. */
static void sm__train_layout_scratch(sm__arena *a, sm_trainer *t) {
    sm__attend_work w;
    sm__arena attend = {NULL, 0, 0};
    size_t start = a->used;
    sm__attend_work_take(&w, &attend, t->params.n_ctx);
    a->overflow |= attend.overflow;
    t->member_bytes = sm__round_up(SM__MULTIPLY_FLOATS * sizeof(float) + attend.used, SM__ALIGN);
    t->member_scratch = (unsigned char *)sm__arena_take(a, (size_t)t->n_members, t->member_bytes);
    t->decoded = (float *)sm__arena_take(a, sm__lora_floats(t), sizeof(float));
    t->plan.scratch_bytes = a->used - start;
}

static void sm__train_layout_flat(sm__arena *a, sm_trainer *t) {
    int moments = t->params.optimizer == SM_OPTIMIZER_ADAMW ? 2 : t->params.momentum > 0.0f;
    size_t tiles = (t->n_flat + SM__FLAT_TILE - 1) / SM__FLAT_TILE;
    size_t arrays = 1 + (size_t)moments;
    t->grads = (float *)sm__arena_take(a, t->n_flat, sizeof(float));
    t->flat = (float *)sm__arena_take(a, t->n_flat, arrays * sizeof(float));
    t->squares = (double *)sm__arena_take(a, tiles, sizeof(double));
    t->state_bytes = arrays * t->n_flat * sizeof(float);
    t->plan.param_bytes = t->plan.grad_bytes = t->n_flat * sizeof(float);
    t->plan.moment_bytes = (size_t)moments * t->n_flat * sizeof(float);
    if (!t->flat) return;
    if (moments > 0) t->moment1 = t->flat + t->n_flat;
    if (moments > 1) t->moment2 = t->moment1 + t->n_flat;
    memset(t->flat, 0, t->state_bytes);
    memset(t->grads, 0, t->n_flat * sizeof(float));
}

/* The one layout: counts into what sm__trainer_resolve made, or places a copy of it. */
static sm_trainer *sm__trainer_layout(sm__arena *a, sm_trainer *resolved) {
    sm_trainer *t = (sm_trainer *)sm__arena_take(a, 1, sizeof *t);
    sm__train_tensor *tensors;
    sm__train_step *steps;
    int members = resolved->n_members, placed = t != NULL;
    size_t start;
    if (placed) memcpy((void *)t, (const void *)resolved, sizeof *t);
    else t = resolved;
    start = a->used;
    if (!t->params.team && members > 1) {
        t->team = sm__team_layout(a, members);
        t->own_team = 1;
    }
    t->plan.team_bytes = a->used - start;
    sm__train_add_all(t);
    tensors = (sm__train_tensor *)sm__arena_take(a, (size_t)t->n_tensors, sizeof *tensors);
    t->layer_tensors = (int *)sm__arena_take(a, (size_t)t->hp.n_layers + 1, sizeof(int));
    t->tensors = tensors;
    if (placed) sm__train_add_all(t);
    sm__train_zeros(t);
    sm__train_layout_flat(a, t);
    sm__train_layout_activations(a, t);
    sm__train_layout_scratch(a, t);
    sm__train_emit_all(t);
    steps = (sm__train_step *)sm__arena_take(a, (size_t)t->n_steps, sizeof *steps);
    t->steps = steps;
    if (placed) sm__train_emit_all(t);
    t->plan.total_bytes = a->used + 2 * SM__ALIGN; /* with the header of sm__heap_alloc */
    t->plan.n_params = t->n_params;
    t->plan.n_tensors = t->n_tensors;
    t->plan.n_ctx = t->params.n_ctx;
    t->plan.n_batch = t->params.n_batch;
    t->plan.n_accum = t->params.n_accum;
    t->plan.n_threads = members;
    t->plan.isa = t->kernels.isa;
    return t;
}

/* --- making a trainer ------------------------------------------------------------------------- */

SM_API sm_trainer_params sm_trainer_default(void) {
    sm_trainer_params p;
    memset(&p, 0, sizeof p);
    return p;
}

static int sm__train_range(sm_error *error, const char *name, double value, double low,
                           double high) {
    if (sm__real_in(value, low, high)) return 0;
    sm__fail(error, SM_ERR_ARG, "trainer: %s is out of range", name);
    return 1;
}

/* The hyperparameters of a model from scratch. */
static sm_status sm__train_hparams(sm_trainer *t, sm_error *error) {
    const sm_trainer_params *p = &t->params;
    sm__hparams *hp = &t->hp;
    sm_model m;
    sm__str name;
    name.p = p->arch ? p->arch : "llama";
    name.n = strlen(name.p);
    t->arch = sm__arch_find(name);
    if (!t->arch)
        return sm__fail(error, SM_ERR_ARG, "trainer: no architecture is called %s", name.p);
    sm__hparams_default(hp);
    hp->n_vocab = p->n_vocab;
    hp->n_ctx = p->n_ctx;
    hp->n_embd = p->n_embd;
    hp->n_layers = p->n_layers;
    hp->n_heads = p->n_heads;
    hp->n_kv_heads = p->n_kv_heads ? p->n_kv_heads : p->n_heads;
    hp->head_dim = p->head_dim ? p->head_dim : p->n_heads > 0 ? p->n_embd / p->n_heads : 0;
    hp->n_ff = p->n_ff;
    if (!hp->n_ff && p->n_embd > 0 && p->n_embd <= SM__MAX_DIM / 4)
        hp->n_ff = t->arch->ffn == SM__FFN_SWIGLU ? (p->n_embd * 8 / 3 + 31) / 32 * 32
                                                  : 4 * p->n_embd;
    hp->pos = t->arch->pos;
    hp->ffn = t->arch->ffn;
    hp->n_rot = hp->pos == SM__POS_LEARNED ? 0 : hp->head_dim;
    if (p->norm_eps != 0.0f) hp->norm_eps = p->norm_eps;
    if (p->rope_base != 0.0f) hp->rope_base = (double)p->rope_base;
    memset(&m, 0, sizeof m);
    m.hp = *hp;
    if (sm__hparams_check(&m, error) == SM_OK) return SM_OK;
    if (error) error->status = SM_ERR_ARG;
    return SM_ERR_ARG;
}

static sm_status sm__train_rates(sm_trainer *t, sm_error *error) {
    sm_trainer_params *p = &t->params;
    sm_rate *r = &p->rate;
    if (p->beta1 == 0.0f) p->beta1 = 0.9f;
    if (p->beta2 == 0.0f) p->beta2 = 0.999f;
    if (p->epsilon == 0.0f) p->epsilon = 1e-8f;
    if (sm__train_range(error, "rate.schedule", r->schedule, 0, SM_SCHEDULE_ONE_CYCLE) ||
        sm__train_range(error, "rate.rate", (double)r->rate, 0, 1e6) ||
        sm__train_range(error, "rate.warmup_steps", r->warmup_steps, 0, 1e9) ||
        sm__train_range(error, "rate.every_steps", r->every_steps, 0, 1e9) ||
        sm__train_range(error, "rate.final_ratio", (double)r->final_ratio, 0, 1) ||
        sm__train_range(error, "rate.gamma", (double)r->gamma, 0, 1) ||
        sm__train_range(error, "compute", p->compute, 0, SM_COMPUTE_BF16_AMX) ||
        sm__train_range(error, "optimizer", p->optimizer, 0, SM_OPTIMIZER_SGD) ||
        sm__train_range(error, "beta1", (double)p->beta1, 1e-6, 0.999999) ||
        sm__train_range(error, "beta2", (double)p->beta2, 1e-6, 0.999999) ||
        sm__train_range(error, "epsilon", (double)p->epsilon, 1e-30, 1) ||
        sm__train_range(error, "weight_decay", (double)p->weight_decay, 0, 1e3) ||
        sm__train_range(error, "momentum", (double)p->momentum, 0, 0.999999) ||
        sm__train_range(error, "clip_norm", (double)p->clip_norm, 0, 1e30) ||
        sm__train_range(error, "dropout", (double)p->dropout, 0, 0.95))
        return SM_ERR_ARG;
    if ((r->schedule == SM_SCHEDULE_COSINE || r->schedule == SM_SCHEDULE_ONE_CYCLE) &&
        r->total_steps <= r->warmup_steps)
        return sm__fail(error, SM_ERR_ARG, "trainer: rate.total_steps %d, warmup_steps %d",
                        r->total_steps, r->warmup_steps);
    return SM_OK;
}

static sm_status sm__lora_resolve(sm_trainer *t, sm_error *error) {
    sm_trainer_params *p = &t->params;
    int all = (SM_LORA_DOWN << 1) - 1;
    if (sm__train_range(error, "lora_rank", p->lora_rank, 0, SM__MAX_DIM / 16) ||
        sm__train_range(error, "lora_alpha", (double)p->lora_alpha, 0, 1e6) ||
        sm__train_range(error, "lora_targets", p->lora_targets, 0, all))
        return SM_ERR_ARG;
    if (!p->lora_rank) return SM_OK;
    if (!p->model) return sm__fail(error, SM_ERR_ARG, "trainer: lora_rank needs a model");
    if (!p->lora_targets) p->lora_targets = all;
    if (t->arch->ffn != SM__FFN_SWIGLU && p->lora_targets == SM_LORA_GATE)
        return sm__fail(error, SM_ERR_ARG, "trainer: lora_targets: this model has no gate");
    if (p->lora_alpha == 0.0f) p->lora_alpha = 2.0f * (float)p->lora_rank;
    t->lora_scale = sm__div(p->lora_alpha, (float)p->lora_rank);
    return SM_OK;
}

/* The backward pass knows rows that are made of these parts. */
static sm_status sm__train_knows(const sm_trainer *t, sm_error *error) {
    int known = SM__ARCH_FUSED_QKV | SM__ARCH_QK_NORM | SM__ARCH_BIAS | SM__ARCH_QKV_BIAS |
                     SM__ARCH_NORM_BIAS;
    const sm__hparams *hp = &t->hp;
    const sm_model *m = t->params.model;
    int fused = m && sm__tensor_at(m, "blk.0.attn_qkv.weight") >= 0;
    if ((t->arch->flags & ~known) || t->arch->bare_every || hp->window || hp->score_cap != 0.0 ||
        hp->ffn > SM__FFN_GELU_ERF || hp->embed_scale != 1.0 || hp->residual_scale != 1.0 ||
        hp->score_scale != 0.0 || hp->logit_cap != 0.0 ||
        (m && fused != (t->arch->flags & SM__ARCH_FUSED_QKV)))
        return sm__fail(error, SM_ERR_UNSUPPORTED,
                        "trainer: a model of architecture %s with this layout", t->arch->name);
    return SM_OK;
}

/* Checks the parameters and fills in what follows from them. */
static sm_status sm__trainer_resolve(const sm_trainer_params *in, sm_trainer *t, sm_error *error) {
    sm_trainer_params *p = &t->params;
    sm_status status = SM_OK;
    int isa;
    memset((void *)t, 0, sizeof *t);
    if (!in) return sm__fail(error, SM_ERR_ARG, "trainer: params are needed");
    *p = *in;
    if (p->model && !p->model->weights)
        return sm__fail(error, SM_ERR_UNSUPPORTED, "trainer: the model has no weights");
    if (p->model) {
        t->hp = p->model->hp;
        t->arch = p->model->arch;
        p->tied = sm__tensor_at(p->model, "output.weight") < 0;
    } else {
        status = sm__train_hparams(t, error);
    }
    if (status == SM_OK) status = sm__train_knows(t, error);
    if (status == SM_OK) status = sm__train_rates(t, error);
    if (status == SM_OK) status = sm__lora_resolve(t, error);
    if (status != SM_OK) return status;
    if (!p->n_ctx) p->n_ctx = t->hp.n_ctx;
    if (!p->n_batch) p->n_batch = 1;
    if (!p->n_accum) p->n_accum = 1;
    if (sm__train_range(error, "n_ctx", p->n_ctx, 1, 1 << 20) ||
        sm__train_range(error, "n_batch", p->n_batch, 1, 1 << 20) ||
        sm__train_range(error, "n_accum", p->n_accum, 1, 1 << 10) ||
        sm__train_range(error, "n_batch * n_ctx", (double)p->n_batch * p->n_ctx, 1, 1 << 22) ||
        sm__train_range(error, "checkpoint", p->checkpoint, 0, SM__MAX_LAYERS) ||
        sm__train_range(error, "n_threads", p->n_threads, 0, 256))
        return SM_ERR_ARG;
    if (t->hp.pos == SM__POS_LEARNED && p->n_ctx > t->hp.n_ctx)
        return sm__fail(error, SM_ERR_ARG, "trainer: n_ctx is %d, the model has %d positions",
                        p->n_ctx, t->hp.n_ctx);
    if (!sm__allocator_ok(&p->allocator))
        return sm__fail(error, SM_ERR_ARG, "trainer: allocator needs both alloc and free");
    isa = p->isa == SM_ISA_AUTO && p->compute == SM_COMPUTE_BF16_AMX ? SM_ISA_AMX : p->isa;
    if (sm__kernels_init(&t->kernels, isa) != SM_OK)
        return sm__fail(error, SM_ERR_UNSUPPORTED, "trainer: no %s kernels on this machine",
                        sm_isa_name(isa));
    if (p->compute == SM_COMPUTE_BF16_AMX && !t->kernels.multiply_bf16)
        return sm__fail(error, SM_ERR_UNSUPPORTED, "trainer: compute: the %s kernels have no BF16 "
                        "tiles", sm_isa_name(isa));
    t->tile = sm__train_tile_of(t->kernels.isa);
    t->group = p->checkpoint ? sm__min(p->checkpoint, t->hp.n_layers) : t->hp.n_layers;
    t->team = p->team;
    t->n_members = p->team ? p->team->n_members : sm__team_members(p->n_threads);
    return SM_OK;
}

/* Checks, and counts: *t is then what sm__trainer_layout can place. */
static sm_status sm__trainer_count(const sm_trainer_params *params, sm_trainer *t,
                                   sm_error *error) {
    sm__arena arena = {NULL, 0, 0};
    sm_status status = sm__trainer_resolve(params, t, error);
    uint64_t fp;
    if (status != SM_OK) return status;
    fp = sm__fp_enter();
    sm__trainer_layout(&arena, t);
    sm__fp_leave(fp);
    if (!t->error.status && (arena.overflow || arena.used > SIZE_MAX / 2))
        sm__fail(&t->error, SM_ERR_FULL, "trainer: it would not fit in the address space");
    if (t->error.status && error) *error = t->error;
    return t->error.status;
}

SM_API sm_status sm_trainer_plan(const sm_trainer_params *params, sm_train_plan *plan,
                                 sm_error *error) {
    sm_trainer t;
    sm_status status;
    if (!plan) return sm__fail(error, SM_ERR_ARG, "trainer: plan is needed");
    status = sm__trainer_count(params, &t, error);
    if (status == SM_OK) *plan = t.plan;
    return status;
}

/* A sum of four uniform numbers: nearly normal, and never far away. */
static void sm__train_random(const sm_trainer *t, int tensor, float *to, size_t n,
                             float deviation) {
    float scale = deviation / 37837.2272f; /* 65536 / sqrt(3) */
    uint64_t stream = (uint64_t)1 << 63 | (uint64_t)tensor;
    size_t i;
    for (i = 0; i < n; i++) {
        uint32_t a = sm_random(t->params.seed, stream, 2 * (uint64_t)i);
        uint32_t b = sm_random(t->params.seed, stream, 2 * (uint64_t)i + 1);
        int sum = (int)(a & 0xffffu) + (int)(a >> 16) + (int)(b & 0xffffu) + (int)(b >> 16);
        to[i] = (float)(sum - 2 * 65535) * scale;
    }
}

/* The first weights: the model's, or random ones. */
static void sm__train_fill(sm_trainer *t) {
    const sm_model *m = t->params.lora_rank ? NULL : t->params.model;
    size_t j;
    int i;
    for (i = 0; i < t->n_tensors; i++) {
        const sm__train_tensor *e = &t->tensors[i];
        size_t n = (size_t)sm__max(e->rows, 1) * (size_t)e->columns;
        float *to = t->flat + e->at;
        if (m) {
            const sm_tensor *from = &m->tensors[sm__tensor_at(m, e->name)];
            sm__types[sm__type_index(from->type)].decode(from->data, to, n);
        } else if (e->deviation > 0.0f) {
            sm__train_random(t, i, to, n, e->deviation);
        } else {
            for (j = 0; j < n; j++) to[j] = e->deviation < 0.0f ? 1.0f : 0.0f;
        }
    }
}

/* Angles of all positions; the frequencies lie in scratch. */
static void sm__train_angles(sm_trainer *t) {
    double *freq = (double *)(void *)t->member_scratch, magnitude = 1.0, sine, cosine;
    sm__weights none;
    sm_model m;
    int half = t->hp.n_rot / 2, i, at;
    if (t->hp.pos == SM__POS_LEARNED) return;
    memset(&m, 0, sizeof m);
    memset(&none, 0, sizeof none);
    m.hp = t->hp;
    m.weights = t->params.model ? t->params.model->weights : &none;
    sm__rope_frequencies(&m, t->params.n_ctx, 0, freq, &magnitude);
    for (at = 0; at < t->params.n_ctx; at++)
        for (i = 0; i < half; i++) {
            size_t j = (size_t)at * (size_t)half + (size_t)i;
            sm__sincos_double(at * freq[i], &sine, &cosine);
            t->cosines[j] = (float)(cosine * magnitude);
            t->sines[j] = (float)(sine * magnitude);
            t->back_sines[j] = -t->sines[j];
        }
}

/* A placed trainer comes to life. */
static sm_status sm__trainer_start(sm_trainer *t, sm_error *error) {
    uint64_t fp = sm__fp_enter();
    t->attn_scale = sm__div(1.0f, sm__sqrt((float)t->hp.head_dim));
    sm__train_fill(t);
    sm__train_angles(t);
    sm__fp_leave(fp);
    if (!t->params.lora_rank) t->params.model = NULL; /* it may go now */
    t->pass.ticket = SM__CLOSED;
    t->pass.help = sm__train_help;
    t->pass.n_slots = sm__min(t->n_members, 256);
    t->pass.slots[0] = 1;
    return t->own_team ? sm__team_start(t->team, error) : SM_OK;
}

SM_API sm_status sm_trainer_create(const sm_trainer_params *params, sm_trainer **out,
                                   sm_error *error) {
    sm__arena arena = {NULL, 0, 0};
    sm_trainer counted, *t;
    sm__heap heap;
    sm_status status;
    uint64_t fp;
    if (!out) return sm__fail(error, SM_ERR_ARG, "trainer: trainer is needed");
    *out = NULL;
    status = sm__trainer_count(params, &counted, error);
    if (status != SM_OK) return status;
    heap = sm__heap_make(&params->allocator);
    arena.base =
        (unsigned char *)sm__heap_alloc(&heap, counted.plan.total_bytes - 2 * SM__ALIGN);
    if (!arena.base)
        return sm__fail(error, SM_ERR_NOMEM, "trainer: no memory for %llu bytes",
                        (unsigned long long)counted.plan.total_bytes);
    if (params->huge_pages)
        sm__hint_huge_pages(arena.base, counted.plan.total_bytes - 2 * SM__ALIGN);
    fp = sm__fp_enter();
    t = sm__trainer_layout(&arena, &counted);
    sm__fp_leave(fp);
    t->heap = heap;
    status = sm__trainer_start(t, error);
    if (status != SM_OK) sm__heap_free(&heap, t);
    else *out = t;
    return status;
}

SM_API void sm_trainer_destroy(sm_trainer *t) {
    sm__heap heap;
    int round = 0;
    if (!t) return;
    if (t->own_team) sm__team_stop(t->team);
    while (sm__load32(&t->pass.helpers)) sm__wait_a_little(round++);
    heap = t->heap;
    sm__heap_free(&heap, t);
}

SM_API const char *sm_trainer_error(const sm_trainer *t) { return t ? t->error.text : ""; }
SM_API uint64_t sm_trainer_steps(const sm_trainer *t) { return t ? t->n_done : 0; }
SM_API sm_train_plan sm_trainer_get_plan(const sm_trainer *t) { return t->plan; }

SM_API float *sm_trainer_flat_params(sm_trainer *t, size_t *n) {
    if (n) *n = t ? t->n_flat : 0;
    return t ? t->flat : NULL;
}

SM_API float *sm_trainer_flat_grads(sm_trainer *t, size_t *n) {
    if (n) *n = t ? t->n_flat : 0;
    return t ? t->grads : NULL;
}

SM_API sm_status sm_trainer_tensor_at(sm_trainer *t, int i, sm_train_tensor *tensor) {
    const sm__train_tensor *e;
    if (!t || !tensor || i < 0 || i >= t->n_tensors) return SM_ERR_ARG;
    e = &t->tensors[i];
    tensor->name = e->name;
    tensor->rows = sm__max(e->rows, 1);
    tensor->columns = e->columns;
    tensor->params = t->flat + e->at;
    tensor->grads = t->grads + e->at;
    return SM_OK;
}

SM_API sm_status sm_trainer_tensor_find(sm_trainer *t, const char *name, sm_train_tensor *tensor) {
    int i;
    if (!t || !name) return SM_ERR_ARG;
    for (i = 0; i < t->n_tensors && strcmp(t->tensors[i].name, name) != 0; i++) {
    }
    return sm_trainer_tensor_at(t, i, tensor);
}

/* --- learning --------------------------------------------------------------------------------- */

/* base^n for 0 < base <= 1, in double. */
static double sm__power(double base, double n) {
    double x = n * sm__log_double(base);
    return x < -700.0 ? 0.0 : sm__exp_double(x);
}

/* From a to b by half a cosine, t in [0, 1]. */
static double sm__half_cosine(double a, double b, double t) {
    double sine, cosine;
    sm__sincos_double(3.141592653589793 * t, &sine, &cosine);
    return b + (a - b) * 0.5 * (1.0 + cosine);
}

SM_API float sm_rate_at(const sm_rate *r, uint64_t step) {
    double rate = r->rate > 0.0f ? (double)r->rate : 0.0003, at = (double)step, t;
    double warmup = r->warmup_steps, length = (double)r->total_steps - warmup;
    double gamma = (double)r->gamma, every = r->every_steps > 0 ? r->every_steps : 1;
    if (at < warmup && r->schedule == SM_SCHEDULE_ONE_CYCLE)
        return (float)sm__half_cosine(rate / 25.0, rate, at / warmup);
    if (at < warmup) return (float)(rate * (at + 1.0) / warmup);
    at -= warmup;
    t = length > 0.0 && at < length ? at / length : 1.0;
    switch (r->schedule) {
    case SM_SCHEDULE_COSINE:
    case SM_SCHEDULE_ONE_CYCLE:
        return (float)sm__half_cosine(rate, rate * (double)r->final_ratio, t);
    case SM_SCHEDULE_STEP:
        t = at / every;
        if (t < 1e15) t = (double)(int64_t)t;
        return (float)(rate * sm__power(gamma > 0.0 ? gamma : 0.1, t));
    case SM_SCHEDULE_EXPONENTIAL:
        return (float)(rate * sm__power(gamma > 0.0 ? gamma : 0.999, at));
    default: return (float)rate;
    }
}

/* Checks a batch; *length and *n_targets get what the zeros stand for. */
static sm_status sm__train_check(sm_trainer *t, const sm_train_batch *b, int *length,
                                 int *n_targets) {
    int i, n, limit = t->params.n_batch * t->params.n_accum, count = 0;
    if (!b || !b->tokens || !b->targets)
        return sm__fail(&t->error, SM_ERR_ARG, "train: tokens and targets are needed");
    *length = b->n_tokens ? b->n_tokens : t->params.n_ctx;
    if (b->n_seqs < 1 || b->n_seqs > limit || *length < 1 || *length > t->params.n_ctx ||
        b->n_targets < 0)
        return sm__fail(&t->error, SM_ERR_ARG, "train: %d sequences (at most %d) of %d tokens (%d)",
                        b->n_seqs, limit, *length, t->params.n_ctx);
    if ((int64_t)b->n_seqs * *length > 1 << 30)
        return sm__fail(&t->error, SM_ERR_ARG, "train: more than 2^30 tokens");
    for (i = 0, n = b->n_seqs * *length; i < n; i++) {
        if (b->tokens[i] < 0 || b->tokens[i] >= t->hp.n_vocab)
            return sm__fail(&t->error, SM_ERR_ARG, "train: token %d is %d, not in [0, %d)", i,
                            (int)b->tokens[i], t->hp.n_vocab);
        if (b->targets[i] < -1 || b->targets[i] >= t->hp.n_vocab)
            return sm__fail(&t->error, SM_ERR_ARG, "train: target %d is %d, not in [-1, %d)", i,
                            (int)b->targets[i], t->hp.n_vocab);
        count += b->targets[i] >= 0;
    }
    if (!count) return sm__fail(&t->error, SM_ERR_ARG, "train: no target in the batch");
    *n_targets = count;
    return SM_OK;
}

/* All micro-batches through the steps of some kinds, their losses added in order. */
static void sm__train_batches(sm_trainer *t, const sm_train_batch *b, int length, int when) {
    int first, i, micro = 0;
    t->loss_sum = 0.0;
    t->hits = 0;
    t->length = length;
    t->training = (when & SM__BACKWARD) != 0;
    for (first = 0; first < b->n_seqs; first += t->params.n_batch, micro++) {
        t->tokens = b->tokens + (size_t)first * (size_t)length;
        t->targets = b->targets + (size_t)first * (size_t)length;
        t->rows = sm__min(t->params.n_batch, b->n_seqs - first) * length;
        t->fresh = first == 0;
        t->draw = t->n_done * (uint64_t)t->params.n_accum + (uint64_t)micro;
        sm__train_walk(t, when);
        for (i = 0; i < t->rows; i++) t->loss_sum += t->row_loss[i], t->hits += t->row_hit[i];
    }
}

/* The square root of the gradients' squares. */
static double sm__train_norm_of_grads(sm_trainer *t) {
    size_t i, tiles = (t->n_flat + SM__FLAT_TILE - 1) / SM__FLAT_TILE;
    double sum = 0.0;
    sm__train_walk(t, SM__SQUARES);
    for (i = 0; i < tiles; i++) sum += t->squares[i];
    if (!sm__real_finite(sum)) return sum;
    return sum > 1e-300 ? sm__exp_double(0.5 * sm__log_double(sum)) : 0.0;
}

/* Runs the batch again, looking at what every step writes, to name the first that is not finite. */
static sm_status sm__train_not_finite(sm_trainer *t, const sm_train_batch *b, int length,
                                      int when) {
    const sm__train_step *s;
    t->probing = 1;
    t->culprit = NULL;
    if (when & SM__BACKWARD) sm__train_walk(t, SM__ZERO);
    sm__train_batches(t, b, length, when);
    t->probing = 0;
    s = t->culprit;
    if (!s) return sm__fail(&t->error, SM_ERR_NUMBER, "train: the gradients are not finite");
    return s->layer < 0
               ? sm__fail(&t->error, SM_ERR_NUMBER, "train: step %s%s gave a number not finite",
                          s->name, s->when == SM__BACKWARD ? " (backward)" : "")
               : sm__fail(&t->error, SM_ERR_NUMBER,
                          "train: step %s%s of layer %d gave a number not finite", s->name,
                          s->when == SM__BACKWARD ? " (backward)" : "", s->layer);
}

static void sm__train_report(const sm_trainer *t, int n_targets, double norm,
                             sm_train_stats *stats) {
    double loss = t->loss_sum / n_targets;
    if (!stats) return;
    memset(stats, 0, sizeof *stats);
    stats->loss = loss;
    stats->perplexity = sm__exp_double(loss < 700.0 ? loss : 700.0);
    stats->accuracy = (double)t->hits / n_targets;
    stats->grad_norm = norm;
    stats->rate = (double)sm_rate_at(&t->params.rate, t->n_done);
    stats->n_targets = n_targets;
}

SM_API sm_status sm_trainer_eval(sm_trainer *t, const sm_train_batch *batch,
                                 sm_train_stats *stats) {
    int length, n_targets;
    sm_status status;
    uint64_t fp;
    if (!t) return SM_ERR_ARG;
    status = sm__train_check(t, batch, &length, &n_targets);
    if (status != SM_OK) return status;
    fp = sm__train_enter(t);
    sm__train_batches(t, batch, length, SM__FORWARD);
    if (!sm__real_finite(t->loss_sum)) status = sm__train_not_finite(t, batch, length, SM__FORWARD);
    else sm__train_report(t, n_targets, 0.0, stats);
    sm__train_leave(t, fp);
    return status;
}

/* With the team at hand: gradients of a batch and their norm. */
static sm_status sm__train_backward(sm_trainer *t, const sm_train_batch *batch, double *norm,
                                    sm_train_stats *stats) {
    int length, n_targets, all = SM__FORWARD | SM__BACKWARD;
    sm_status status = sm__train_check(t, batch, &length, &n_targets);
    if (status != SM_OK) return status;
    t->loss_scale = sm__div(1.0f, (float)(batch->n_targets ? batch->n_targets : n_targets));
    sm__train_walk(t, SM__ZERO);
    sm__train_batches(t, batch, length, all);
    *norm = sm__real_finite(t->loss_sum) ? sm__train_norm_of_grads(t) : t->loss_sum;
    if (!sm__real_finite(*norm)) return sm__train_not_finite(t, batch, length, all);
    sm__train_report(t, n_targets, *norm, stats);
    return SM_OK;
}

/* Applies gradients of a norm. */
static void sm__train_apply(sm_trainer *t, double norm) {
    const sm_trainer_params *p = &t->params;
    double n = (double)(t->n_done + 1);
    t->now.rate = sm_rate_at(&p->rate, t->n_done);
    t->now.clip = 1.0f;
    if (p->clip_norm > 0.0f && norm > (double)p->clip_norm)
        t->now.clip = (float)((double)p->clip_norm / norm);
    t->now.keep = 1.0f - sm__times(t->now.rate, p->weight_decay);
    t->now.step = (float)((double)t->now.rate / (1.0 - sm__power((double)p->beta1, n)));
    t->now.correction = (float)(1.0 / (1.0 - sm__power((double)p->beta2, n)));
    sm__train_walk(t, SM__UPDATE);
    t->n_done++;
}

SM_API sm_status sm_trainer_backward(sm_trainer *t, const sm_train_batch *batch,
                                     sm_train_stats *stats) {
    double norm;
    sm_status status;
    uint64_t fp;
    if (!t) return SM_ERR_ARG;
    fp = sm__train_enter(t);
    status = sm__train_backward(t, batch, &norm, stats);
    sm__train_leave(t, fp);
    return status;
}

SM_API sm_status sm_trainer_update(sm_trainer *t, sm_train_stats *stats) {
    double norm;
    sm_status status = SM_OK;
    uint64_t fp;
    if (!t) return SM_ERR_ARG;
    fp = sm__train_enter(t);
    norm = sm__train_norm_of_grads(t);
    if (sm__real_finite(norm)) {
        if (stats) stats->grad_norm = norm;
        if (stats) stats->rate = (double)sm_rate_at(&t->params.rate, t->n_done);
        sm__train_apply(t, norm);
    } else {
        status = sm__fail(&t->error, SM_ERR_NUMBER, "train: the gradients are not finite");
    }
    sm__train_leave(t, fp);
    return status;
}

SM_API sm_status sm_trainer_step(sm_trainer *t, const sm_train_batch *batch,
                                 sm_train_stats *stats) {
    double norm;
    sm_status status;
    uint64_t fp;
    if (!t) return SM_ERR_ARG;
    fp = sm__train_enter(t);
    status = sm__train_backward(t, batch, &norm, stats);
    if (status == SM_OK) sm__train_apply(t, norm);
    sm__train_leave(t, fp);
    return status;
}

/* --- states ----------------------------------------------------------------------------------- */

#define SM__STATE_MAGIC 0x314e4941525453u /* "STRAIN1" */

typedef struct sm__train_state { /* before the parameters and moments */
    uint64_t magic, shape, bytes, n_done, sum;
} sm__train_state;

static uint64_t sm__train_hash(uint64_t h, const void *data, size_t n) {
    const unsigned char *p = (const unsigned char *)data;
    uint64_t word;
    for (; n >= 8; n -= 8, p += 8) {
        memcpy(&word, p, 8);
        h = (h ^ word) * 0x100000001b3u;
        h ^= h >> 29;
    }
    for (; n; n--) h = (h ^ *p++) * 0x100000001b3u;
    return h;
}

/* What a state of this trainer begins with, but for the sum. */
static sm__train_state sm__train_state_head(const sm_trainer *t) {
    sm__train_state head;
    int i, shape[2];
    head.magic = SM__STATE_MAGIC;
    head.shape = (uint64_t)t->params.optimizer;
    if (t->params.lora_rank)
        head.shape = sm__train_hash(head.shape, &t->lora_scale, sizeof t->lora_scale);
    for (i = 0; i < t->n_tensors; i++) {
        const sm__train_tensor *e = &t->tensors[i];
        shape[0] = e->rows, shape[1] = e->columns;
        head.shape = sm__train_hash(head.shape, e->name, strlen(e->name));
        head.shape = sm__train_hash(head.shape, shape, sizeof shape);
    }
    head.bytes = t->state_bytes;
    head.n_done = t->n_done;
    head.sum = 0;
    return head;
}

static sm__train_state sm__train_state_summed(const sm_trainer *t) {
    sm__train_state head = sm__train_state_head(t);
    head.sum = sm__train_hash(head.n_done, t->flat, t->state_bytes);
    return head;
}

SM_API size_t sm_trainer_state_bytes(const sm_trainer *t) {
    return t ? sizeof(sm__train_state) + t->state_bytes : 0;
}

SM_API sm_status sm_trainer_state_save(sm_trainer *t, void *memory, size_t bytes) {
    sm__train_state head;
    if (!t || !memory) return SM_ERR_ARG;
    if (bytes < sm_trainer_state_bytes(t))
        return sm__fail(&t->error, SM_ERR_FULL, "state: %llu bytes needed, %llu given",
                        (unsigned long long)sm_trainer_state_bytes(t), (unsigned long long)bytes);
    head = sm__train_state_summed(t);
    memcpy(memory, &head, sizeof head);
    memcpy((unsigned char *)memory + sizeof head, t->flat, t->state_bytes);
    return SM_OK;
}

SM_API sm_status sm_trainer_state_load(sm_trainer *t, const void *memory, size_t bytes) {
    const unsigned char *from = (const unsigned char *)memory;
    sm__train_state head, ours;
    if (!t || !memory) return SM_ERR_ARG;
    ours = sm__train_state_head(t);
    memset(&head, 0, sizeof head);
    if (bytes >= sizeof head) memcpy(&head, memory, sizeof head);
    if (head.magic != SM__STATE_MAGIC)
        return sm__fail(&t->error, SM_ERR_FORMAT, "state: these bytes are no trainer's state");
    if (head.shape != ours.shape || head.bytes != ours.bytes)
        return sm__fail(&t->error, SM_ERR_UNSUPPORTED, "state: of a trainer of another shape");
    from += sizeof head;
    if (bytes < sm_trainer_state_bytes(t) ||
        sm__train_hash(head.n_done, from, t->state_bytes) != head.sum)
        return sm__fail(&t->error, SM_ERR_FORMAT, "state: damaged or cut short");
    memcpy(t->flat, from, t->state_bytes);
    t->n_done = head.n_done;
    return SM_OK;
}

#endif /* SMALLMIND_NO_TRAIN */

/* ================================================================================================
 * MARK: [SM42] WRITER
 * The writer keeps what is declared as records, each as it will stand in the file; the header is
 * those records, metadata first. Then what a model of another format says as GGUF; then the
 * quantiser, whose tiles are rows, shared by a team as the tiles of a pass are.
 * ============================================================================================== */

#ifndef SMALLMIND_NO_WRITER

#ifndef SMALLMIND_NO_STDIO
/* ---- the file: only this knows the operating system; functions return its error numbers ---- */

#define SM__TEMP_CHARS 14 /* ".XXXXXXXX.tmp" and its NUL */
#ifdef _WIN32
typedef WCHAR sm__path_char;
typedef HANDLE sm__handle;
#define SM__CODE_EXISTS ERROR_FILE_EXISTS
#else
typedef char sm__path_char;
typedef int sm__handle;
#define SM__CODE_EXISTS EEXIST
#ifdef __cplusplus
extern "C" {
#endif
extern int sm__fsync(int fd) SM__SYMBOL("fsync");
#ifdef __cplusplus
}
#endif
#endif

typedef struct sm__out {
    sm__path_char *path, *temp; /* [n_path + 1], [n_path + SM__TEMP_CHARS] */
    size_t n_path;
    sm__handle handle;
    int open;
} sm__out;

#ifdef _WIN32
/* Characters of a path with its NUL, in out unless that is NULL; 0 = it is not UTF-8. */
static size_t sm__path_copy(const char *path, sm__path_char *out, size_t n) {
    int got = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, out, out ? (int)n : 0);
    return got > 0 ? (size_t)got : 0;
}

static int sm__out_create(sm__out *o) {
    DWORD kind = GetFileAttributesW(o->path);
    if (kind != INVALID_FILE_ATTRIBUTES && (kind & FILE_ATTRIBUTE_DIRECTORY))
        return ERROR_ACCESS_DENIED;
    o->handle =
        CreateFileW(o->temp, GENERIC_WRITE, 0, NULL, CREATE_NEW, FILE_ATTRIBUTE_NORMAL, NULL);
    o->open = o->handle != INVALID_HANDLE_VALUE;
    return o->open ? 0 : (int)GetLastError();
}

static int sm__out_write(sm__out *o, const uint8_t *p, size_t n) {
    while (n) {
        DWORD put = 0;
        if (!WriteFile(o->handle, p, (DWORD)sm__min_size(n, 1u << 30), &put, NULL) || !put)
            return (int)GetLastError();
        p += put;
        n -= put;
    }
    return 0;
}

static int sm__out_close(sm__out *o, int keep) {
    int code = keep && !FlushFileBuffers(o->handle) ? (int)GetLastError() : 0;
    CloseHandle(o->handle);
    o->open = 0;
    if (keep && !code &&
        !MoveFileExW(o->temp, o->path, MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH))
        code = (int)GetLastError();
    if (code || !keep) DeleteFileW(o->temp);
    return code;
}
#else
/* Characters of a path with its NUL, in out unless that is NULL. */
static size_t sm__path_copy(const char *path, sm__path_char *out, size_t n) {
    if (out) memcpy(out, path, n);
    return strlen(path) + 1;
}

static int sm__out_create(sm__out *o) {
    struct stat info;
    if (stat(o->path, &info) == 0 && !S_ISREG(info.st_mode)) return EISDIR; /* or a device */
    o->handle = open(o->temp, O_WRONLY | O_CREAT | O_EXCL, 0666);
    if (o->handle < 0) return errno;
    (void)fcntl(o->handle, F_SETFD, FD_CLOEXEC);
    o->open = 1;
    return 0;
}

static int sm__out_write(sm__out *o, const uint8_t *p, size_t n) {
    while (n) {
        ssize_t put = write(o->handle, p, sm__min_size(n, 1u << 30));
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) return put ? errno : ENOSPC;
        p += put;
        n -= (size_t)put;
    }
    return 0;
}

/* The folder's entry, too, should survive a crash. */
static void sm__out_sync_folder(sm__out *o) {
    size_t n = o->n_path;
    int fd;
    while (n && o->path[n - 1] != '/') n--;
    o->path[n] = 0;
    fd = open(n ? o->path : ".", O_RDONLY);
    if (fd < 0) return;
    (void)sm__fsync(fd);
    close(fd);
}

/* Everything to the disk, then the name: after a crash there is the old file or the new one. Not
 * to keep it removes it. */
static int sm__out_close(sm__out *o, int keep) {
    int code = keep && sm__fsync(o->handle) ? errno : 0;
    if (code == EINVAL) code = 0; /* a file system that cannot */
    if (close(o->handle) && keep && !code) code = errno;
    o->open = 0;
    if (keep && !code && rename(o->temp, o->path)) code = errno;
    if (code || !keep) unlink(o->temp);
    else sm__out_sync_folder(o);
    return code;
}
#endif

/* A new file beside the path, under a name that nothing has. */
static int sm__out_open(sm__out *o) {
    static const char digits[] = "0123456789abcdef", end[] = ".tmp";
    uint64_t seed = sm__now_ns() ^ (uint64_t)(uintptr_t)o;
    int i, attempt, code = SM__CODE_EXISTS;
    for (attempt = 0; attempt < 100 && code == SM__CODE_EXISTS; attempt++) {
        uint64_t bits = sm__mix64(seed + (uint64_t)attempt);
        sm__path_char *p = o->temp + o->n_path;
        memcpy(o->temp, o->path, o->n_path * sizeof *o->path);
        *p++ = '.';
        for (i = 0; i < 8; i++, bits >>= 4) *p++ = (sm__path_char)digits[bits & 15];
        for (i = 0; i < 5; i++) *p++ = (sm__path_char)end[i];
        code = sm__out_create(o);
    }
    return code;
}
#endif /* SMALLMIND_NO_STDIO */

/* ---- records and bytes ---- */

#define SM__WRITE_BUFFER ((size_t)1 << 16)
#define SM__MAX_NEW_NAME 63 /* llama.cpp takes no 64th byte */

struct sm_writer {
    sm__heap heap;
    sm_error error;  /* the first one; nothing is done after it */
    sm_writer_params params;
    int n_meta, n_tensors;
    int declared;    /* 1: the header was made */
    uint8_t *block;  /* the records */
    size_t used, room;
    uint64_t data_bytes; /* of the tensors declared so far, each padded */
    size_t current, next; /* records: of the tensor whose data is due, and behind it */
    uint64_t left;        /* bytes due of that tensor */
    uint64_t at;          /* bytes of the file so far, with the buffer's */
    size_t buffered;
    uint8_t buffer[SM__WRITE_BUFFER];
#ifndef SMALLMIND_NO_STDIO
    sm__out out;
#endif
};

typedef struct sm__record { /* followed by its bytes, which begin with a string: key or name */
    uint64_t data_bytes;    /* of a tensor, at least 1; 0 = metadata */
    size_t bytes;
} sm__record;

static sm__record sm__record_at(const sm_writer *w, size_t at) {
    sm__record r;
    memcpy(&r, w->block + at, sizeof r);
    return r;
}

static sm__str sm__record_name(const sm_writer *w, size_t at) {
    sm__str s;
    s.n = (size_t)sm__get64(w->block + at + sizeof(sm__record));
    s.p = (const char *)w->block + at + sizeof(sm__record) + 8;
    return s;
}

/* No file stays. */
static sm_status sm__writer_stop(sm_writer *w, sm_status status) {
#ifndef SMALLMIND_NO_STDIO
    if (w->out.open) sm__out_close(&w->out, 0);
#endif
    (void)w;
    return status;
}
#define SM__WRITER_FAIL(w, ...) sm__writer_stop(w, sm__fail(&(w)->error, __VA_ARGS__))

/* Room for a record's bytes; NULL after a failure. */
static uint8_t *sm__writer_record(sm_writer *w, size_t bytes, uint64_t data_bytes) {
    sm__record r;
    size_t end;
    r.bytes = bytes;
    r.data_bytes = data_bytes;
    if (sm__add_size(bytes, sizeof r, &end) || sm__add_size(end, w->used, &end)) end = SIZE_MAX;
    if (end > w->room) {
        size_t room = end < SIZE_MAX / 2 ? end + end / 2 + 4096 : 0;
        uint8_t *block = room ? (uint8_t *)sm__heap_alloc(&w->heap, room) : NULL;
        if (!block) {
            SM__WRITER_FAIL(w, SM_ERR_NOMEM, "writer: no memory for %llu bytes of declarations",
                            (unsigned long long)end);
            return NULL;
        }
        if (w->used) memcpy(block, w->block, w->used);
        sm__heap_free(&w->heap, w->block);
        w->block = block;
        w->room = room;
    }
    memcpy(w->block + w->used, &r, sizeof r);
    w->used = end;
    return w->block + end - bytes;
}

static uint8_t *sm__set32(uint8_t *p, uint32_t v) { return (uint8_t *)memcpy(p, &v, 4) + 4; }
static uint8_t *sm__set64(uint8_t *p, uint64_t v) { return (uint8_t *)memcpy(p, &v, 8) + 8; }
static uint8_t *sm__set_str(uint8_t *p, sm__str s) {
    p = sm__set64(p, s.n);
    if (s.n) memcpy(p, s.p, s.n);
    return p + s.n;
}

static void sm__writer_emit(sm_writer *w, const uint8_t *p, size_t n) {
    int code = 0;
    if (n == 0 || w->error.status) return;
    if (w->params.write) code = w->params.write(w->params.user, p, n);
#ifndef SMALLMIND_NO_STDIO
    else code = sm__out_write(&w->out, p, n);
#endif
    if (code)
        SM__WRITER_FAIL(w, SM_ERR_IO, "writing %s failed (error %d)",
                        w->params.path ? w->params.path : "the file", code);
}

/* The next bytes of the file. */
static void sm__writer_put(sm_writer *w, const void *data, size_t n) {
    w->at += n;
    if (n > SM__WRITE_BUFFER - w->buffered) {
        sm__writer_emit(w, w->buffer, w->buffered);
        w->buffered = 0;
    }
    if (n > SM__WRITE_BUFFER) {
        sm__writer_emit(w, (const uint8_t *)data, n);
    } else if (n) {
        memcpy(w->buffer + w->buffered, data, n);
        w->buffered += n;
    }
}

static void sm__writer_pad(sm_writer *w) {
    static const uint8_t zero = 0;
    while (w->at % w->params.alignment) sm__writer_put(w, &zero, 1);
}

/* ---- declaring ---- */

/* SM_OK when something may still be declared. */
static sm_status sm__writer_ready(sm_writer *w) {
    if (!w) return SM_ERR_ARG;
    if (w->error.status || !w->declared) return w->error.status;
    return SM__WRITER_FAIL(w, SM_ERR_ARG, "writer: data was given, no more can be declared");
}

/* Room for the value of a key, n bytes; NULL after a failure. */
static uint8_t *sm__writer_meta(sm_writer *w, sm__str key, int is_array, int type, uint64_t count,
                                size_t n) {
    char q[SM__QUOTE];
    uint8_t *p;
    if (key.n < 1 || key.n > SM__MAX_KEY || sm__str_is(key, "general.alignment") ||
        w->n_meta == SM__MAX_ITEMS - 1) {
        SM__WRITER_FAIL(w, SM_ERR_ARG, "writer: key %d is not possible: %s (%llu bytes)",
                        w->n_meta, sm__quote(q, key), (unsigned long long)key.n);
        return NULL;
    }
    if (sm__add_size(n, 8 + key.n + (is_array ? 16 : 4), &n)) n = SIZE_MAX;
    p = sm__writer_record(w, n, 0);
    if (!p) return NULL;
    w->n_meta++;
    p = sm__set_str(p, key);
    if (is_array) p = sm__set32(p, SM__GGUF_ARRAY);
    p = sm__set32(p, (uint32_t)type);
    return is_array ? sm__set64(p, count) : p;
}

/* n texts or numbers, as an array or a single one. */
static sm_status sm__writer_values(sm_writer *w, const char *key, int is_array, int type,
                                   const void *values, size_t n) {
    const char *const *texts = (const char *const *)values;
    size_t i, bytes, elem = 0, n_looked = type == SM_META_TEXT || type == SM_META_BOOL ? n : 0;
    sm_status status = sm__writer_ready(w);
    uint8_t *p;
    if (status) return status;
    if (type >= 0 && type < SM__GGUF_N_TYPES) elem = sm__gguf_types[type].bytes;
    if (type == SM_META_TEXT) elem = 8;
    if (!key || !elem || (n && !values))
        return SM__WRITER_FAIL(w, SM_ERR_ARG, "writer: key %s, type %d: no key, value or such type",
                               key ? key : "(none)", type);
    sm__mul_size(n, elem, &bytes);
    for (i = 0; i < n_looked; i++) {
        if (type == SM_META_TEXT) sm__add_size(bytes, strlen(texts[i]), &bytes);
        else if (((const uint8_t *)values)[i] > 1)
            return SM__WRITER_FAIL(w, SM_ERR_ARG, "writer: key %s: a bool is 0 or 1", key);
    }
    p = sm__writer_meta(w, sm__str_of(key), is_array, type, n, bytes);
    if (!p) return w->error.status;
    if (type != SM_META_TEXT && bytes) memcpy(p, values, bytes);
    for (i = 0; i < n && type == SM_META_TEXT; i++) p = sm__set_str(p, sm__str_of(texts[i]));
    return SM_OK;
}

SM_API sm_status sm_writer_value(sm_writer *w, const char *key, int type, const void *value) {
    const char *text = (const char *)value;
    return sm__writer_values(w, key, 0, type, type == SM_META_TEXT && value ? &text : value, 1);
}

SM_API sm_status sm_writer_array(sm_writer *w, const char *key, int type, const void *values,
                                 size_t n) {
    return sm__writer_values(w, key, 1, type, values, n);
}

SM_API sm_status sm_writer_tensor(sm_writer *w, const char *name, int type, int n_dims,
                                  const uint64_t *dims) {
    const sm__ggml_type *row = type >= 0 && type < SM__N_GGML_TYPES ? &sm__ggml_types[type] : NULL;
    uint64_t n = 1, most = (uint64_t)INT64_MAX, align;
    size_t length = name ? strlen(name) : 0;
    sm_status status = sm__writer_ready(w);
    uint8_t *p;
    int i;
    if (status) return status;
    if (length < 1 || length > SM__MAX_NEW_NAME || w->n_tensors == SM__MAX_ITEMS)
        return SM__WRITER_FAIL(w, SM_ERR_ARG, "writer: tensor %d has a name of %d bytes: %s",
                               w->n_tensors, (int)length, name ? name : "(none)");
    if (!row || !row->name || !dims || n_dims < 1 || n_dims > 4 || dims[0] % row->elems)
        return SM__WRITER_FAIL(w, SM_ERR_ARG, "writer: tensor %s: a bad type (%d) or shape", name,
                               type);
    for (i = 0; i < n_dims; i++) {
        if (dims[i] == 0) return SM__WRITER_FAIL(w, SM_ERR_ARG, "writer: tensor %s is empty", name);
        n = n > most / dims[i] ? most : n * dims[i];
    }
    n /= row->elems;
    align = w->params.alignment;
    if (n > (most - w->data_bytes - align) / row->bytes)
        return SM__WRITER_FAIL(w, SM_ERR_FULL, "writer: tensor %s is too large", name);
    n *= row->bytes;
    p = sm__writer_record(w, 8 + length + 4 + 8 * (size_t)n_dims + 4 + 8, n);
    if (!p) return w->error.status;
    w->n_tensors++;
    p = sm__set32(sm__set_str(p, sm__str_of(name)), (uint32_t)n_dims);
    for (i = 0; i < n_dims; i++) p = sm__set64(p, dims[i]);
    sm__set64(sm__set32(p, (uint32_t)type), w->data_bytes);
    w->data_bytes += (n + align - 1) / align * align;
    return SM_OK;
}

/* ---- opening, data, finishing ---- */

SM_API sm_writer_params sm_writer_default(void) {
    sm_writer_params params;
    memset(&params, 0, sizeof params);
    return params;
}

#ifndef SMALLMIND_NO_STDIO
static sm_status sm__writer_create(sm_writer *w, sm__path_char *paths, size_t chars,
                                   sm_error *error) {
    int code;
    w->out.path = paths;
    w->out.temp = paths + chars;
    w->out.n_path = chars - 1;
    sm__path_copy(w->params.path, paths, chars);
    code = sm__out_open(&w->out);
    if (!code) return SM_OK;
    return sm__fail(error, SM_ERR_IO, "cannot write %s (error %d)", w->params.path, code);
}
#endif

SM_API sm_status sm_writer_open(const sm_writer_params *params, sm_writer **writer,
                                sm_error *error) {
    size_t chars = 0, bytes = sizeof(sm_writer);
    uint32_t align = params && params->alignment ? params->alignment : 32;
    sm__heap heap;
    sm_writer *w;
    sm_status status = SM_OK;
    if (writer) *writer = NULL;
    if (!writer || !params || !params->path == !params->write)
        return sm__fail(error, SM_ERR_ARG, "writer: give either a path or write");
    if (align < 8 || align > SM__MAX_ALIGNMENT || (align & (align - 1)))
        return sm__fail(error, SM_ERR_ARG, "writer: alignment %u is no power of two in [8, 2^20]",
                        (unsigned)align);
    if (!sm__allocator_ok(&params->allocator))
        return sm__fail(error, SM_ERR_ARG, "the allocator has only one of alloc and free");
#ifndef SMALLMIND_NO_STDIO
    if (params->path) {
        chars = sm__path_copy(params->path, NULL, 0);
        if (chars < 2)
            return sm__fail(error, SM_ERR_ARG, "writer: a path that is empty, or not UTF-8");
        bytes += (2 * chars + SM__TEMP_CHARS) * sizeof(sm__path_char);
    }
#else
    (void)chars;
    if (params->path) return sm__fail(error, SM_ERR_UNSUPPORTED, "built without files: give write");
#endif
    heap = sm__heap_make(&params->allocator);
    w = (sm_writer *)sm__heap_alloc(&heap, bytes);
    if (!w) return sm__fail(error, SM_ERR_NOMEM, "no memory for a writer");
    memset(w, 0, sizeof *w);
    w->heap = heap;
    w->params = *params;
    w->params.alignment = align;
#ifndef SMALLMIND_NO_STDIO
    if (chars) status = sm__writer_create(w, (sm__path_char *)(void *)(w + 1), chars, error);
#endif
    if (status) sm_writer_discard(w);
    else *writer = w;
    return status;
}

/* No two records of a kind have one name. */
static sm_status sm__writer_unique(sm_writer *w, int tensors) {
    int n = 0, count = tensors ? w->n_tensors : w->n_meta;
    sm__named *list = (sm__named *)sm__heap_alloc(&w->heap, (size_t)count * sizeof *list);
    char q[SM__QUOTE];
    sm__str twice;
    size_t at;
    if (!list) return SM__WRITER_FAIL(w, SM_ERR_NOMEM, "writer: no memory for %d names", count);
    for (at = 0; at < w->used; at += sizeof(sm__record) + sm__record_at(w, at).bytes)
        if ((sm__record_at(w, at).data_bytes != 0) == tensors) {
            list[n].name = sm__record_name(w, at);
            list[n].i = n;
            n++;
        }
    twice = sm__named_sort(list, n);
    sm__heap_free(&w->heap, list);
    if (!twice.p) return SM_OK;
    return SM__WRITER_FAIL(w, SM_ERR_ARG, "writer: %s %s is there twice",
                           tensors ? "tensor" : "key", sm__quote(q, twice));
}

static sm_status sm__writer_header(sm_writer *w) {
    static const char key[] = "general.alignment";
    uint8_t head[24], *p;
    size_t at;
    int tensors;
    w->declared = 1;
    if (w->params.alignment != 32) { /* the one key that the caller cannot set */
        p = sm__writer_record(w, 8 + sizeof key - 1 + 8, 0);
        if (!p) return w->error.status;
        p = sm__set32(sm__set_str(p, sm__str_of(key)), SM__GGUF_U32);
        sm__set32(p, w->params.alignment);
        w->n_meta++;
    }
#if !defined(SMALLMIND_NO_STDIO) && !defined(_WIN32)
    if (w->params.path && sizeof(off_t) < 8 && w->data_bytes + w->used > INT32_MAX)
        return SM__WRITER_FAIL(w, SM_ERR_FULL, "writer: a file of 2 GB is too large here");
#endif
    if (sm__writer_unique(w, 0) || sm__writer_unique(w, 1)) return w->error.status;
    memcpy(head, "GGUF", 4);
    sm__set64(sm__set64(sm__set32(head + 4, 3), (uint64_t)w->n_tensors), (uint64_t)w->n_meta);
    sm__writer_put(w, head, sizeof head);
    for (tensors = 0; tensors < 2; tensors++)
        for (at = 0; at < w->used; at += sizeof(sm__record) + sm__record_at(w, at).bytes)
            if ((sm__record_at(w, at).data_bytes != 0) == tensors)
                sm__writer_put(w, w->block + at + sizeof(sm__record), sm__record_at(w, at).bytes);
    sm__writer_pad(w);
    return w->error.status;
}

/* On to the next tensor; 0 = there is none. */
static int sm__writer_next(sm_writer *w) {
    for (w->left = 0; !w->left && w->next < w->used;) {
        w->current = w->next;
        w->next += sizeof(sm__record) + sm__record_at(w, w->current).bytes;
        w->left = sm__record_at(w, w->current).data_bytes;
    }
    return w->left != 0;
}

SM_API sm_status sm_writer_data(sm_writer *w, const void *data, size_t bytes) {
    const uint8_t *p = (const uint8_t *)data;
    size_t n;
    if (!w) return SM_ERR_ARG;
    if (!w->error.status && bytes && !data)
        SM__WRITER_FAIL(w, SM_ERR_ARG, "writer: data is NULL");
    if (!w->error.status && !w->declared) sm__writer_header(w);
    for (; bytes && !w->error.status; p += n, bytes -= n) {
        if (!w->left && !sm__writer_next(w))
            return SM__WRITER_FAIL(w, SM_ERR_ARG, "writer: %llu bytes more than the tensors have",
                                   (unsigned long long)bytes);
        n = w->left < bytes ? (size_t)w->left : bytes;
        sm__writer_put(w, p, n);
        w->left -= n;
        if (!w->left) sm__writer_pad(w);
    }
    return w->error.status;
}

SM_API const char *sm_writer_error(const sm_writer *w) { return w ? w->error.text : ""; }

SM_API sm_status sm_writer_finish(sm_writer *w, sm_error *error) {
    char q[SM__QUOTE];
    sm_status status;
    int code = 0;
    if (!w) return sm__fail(error, SM_ERR_ARG, "writer is NULL");
    if (!w->error.status && !w->declared) sm__writer_header(w);
    if (!w->error.status && (w->left || sm__writer_next(w)))
        SM__WRITER_FAIL(w, SM_ERR_ARG, "writer: tensor %s lacks %llu bytes of its data",
                        sm__quote(q, sm__record_name(w, w->current)), (unsigned long long)w->left);
    sm__writer_emit(w, w->buffer, w->buffered);
#ifndef SMALLMIND_NO_STDIO
    if (!w->error.status && w->out.open) code = sm__out_close(&w->out, 1);
#endif
    if (code)
        sm__fail(&w->error, SM_ERR_IO, "finishing %s failed (error %d)", w->params.path, code);
    status = w->error.status;
    if (status && error) *error = w->error;
    sm_writer_discard(w);
    return status;
}

SM_API void sm_writer_discard(sm_writer *w) {
    sm__heap heap;
    if (!w) return;
    sm__writer_stop(w, SM_OK);
    sm__heap_free(&w->heap, w->block);
    heap = w->heap; /* it must outlive what it frees */
    sm__heap_free(&heap, w);
}

/* ---- a model's metadata ---- */

static void sm__copy_meta(sm_writer *w, const sm_model *m, const sm__meta *meta) {
    int texts = meta->elem_type == SM__GGUF_STRING;
    size_t more = texts ? 8 - (size_t)m->length_bytes : 0;
    uint64_t i;
    sm__cursor c;
    uint8_t *p;
    sm__mul_size((size_t)meta->count, more, &more); /* version 1 has shorter lengths */
    sm__add_size(more, meta->bytes, &more);
    p = sm__writer_meta(w, meta->key, meta->type == SM__GGUF_ARRAY, meta->elem_type, meta->count,
                        more);
    memset(&c, 0, sizeof c);
    c.p = meta->data;
    c.end = meta->data + meta->bytes;
    c.length_bytes = m->length_bytes;
    if (p && !texts) memcpy(p, meta->data, meta->bytes);
    for (i = 0; p && texts && i < meta->count; i++) p = sm__set_str(p, sm__take_str(&c));
}

/* "llama.block_count" and the like. type: u32, f32 or text. */
static void sm__describe(sm_writer *w, const char *arch, const char *suffix, int type,
                         double value, const char *text) {
    uint32_t u = type == SM_META_U32 ? (uint32_t)value : 0;
    float f = (float)value;
    char key[160];
    sm__text t = sm__text_make(key, sizeof key);
    sm__put(&t, arch);
    sm__put(&t, ".");
    sm__put(&t, suffix);
    sm_writer_value(w, key, type,
                    text ? (const void *)text : type == SM_META_U32 ? (const void *)&u : &f);
}

static void sm__describe_rope(sm_writer *w, const char *a, const sm__hparams *h) {
    int yarn = h->scaling == SM__SCALING_YARN;
    sm__describe(w, a, "rope.dimension_count", SM_META_U32, h->n_rot, NULL);
    sm__describe(w, a, "rope.freq_base", SM_META_F32, h->rope_base, NULL);
    if (h->scaling == SM__SCALING_NONE) return;
    sm__describe(w, a, "rope.scaling.type", SM_META_TEXT, 0, yarn ? "yarn" : "linear");
    sm__describe(w, a, "rope.scaling.factor", SM_META_F32, h->scaling_factor, NULL);
    sm__describe(w, a, "rope.scaling.original_context_length", SM_META_U32, h->original_ctx, NULL);
    if (!yarn) return;
    sm__describe(w, a, "rope.scaling.yarn_beta_fast", SM_META_F32, h->beta_fast, NULL);
    sm__describe(w, a, "rope.scaling.yarn_beta_slow", SM_META_F32, h->beta_slow, NULL);
    if (h->attn_factor > 0.0) /* GGUF's multiplies the formula, ours replaces it */
        sm__describe(w, a, "rope.scaling.attn_factor", SM_META_F32,
                     h->attn_factor / (1.0 + 0.1 * sm__log_double(h->scaling_factor)), NULL);
}

/* The text of a token as a GGUF file has it, in out unless that is NULL; its length. */
static size_t sm__describe_token(const sm__vocab *v, int id, uint8_t *out) {
    static const char digits[] = "0123456789ABCDEF";
    sm__str s = sm__token_str(v->tables, id);
    size_t i, n = 0;
    int special = sm__is_special(v->kinds[id]);
    if (v->kinds[id] == SM__TOKEN_BYTE) {
        unsigned byte = (unsigned char)s.p[0];
        if (out) memcpy(out, "<0x..>", 6);
        if (out) out[3] = (uint8_t)digits[byte >> 4], out[4] = (uint8_t)digits[byte & 15];
        return 6;
    } /* tokenizer.bin has line ends round the names of special tokens */
    for (; special && s.n > 2 && s.p[0] == '\n' && s.p[s.n - 1] == '\n'; s.n -= 2) s.p++;
    for (i = 0; i < s.n; i++) {
        int mark = !special && s.p[i] == ' ';
        if (out && mark) memcpy(out + n, "\xE2\x96\x81", 3);
        else if (out) out[n] = (uint8_t)s.p[i];
        n += mark ? 3 : 1;
    }
    return n;
}

/* The vocabulary of a tokenizer.bin: SentencePiece's, with scores and types. */
static void sm__describe_tokens(sm_writer *w, const sm__vocab *v) {
    size_t bytes = 0, n = (size_t)v->n;
    uint8_t *p;
    int i;
    for (i = 0; i < v->n; i++)
        sm__add_size(bytes, 8 + sm__describe_token(v, i, NULL), &bytes);
    p = sm__writer_meta(w, sm__str_of("tokenizer.ggml.tokens"), 1, SM_META_TEXT, n, bytes);
    for (i = 0; p && i < v->n; i++) {
        bytes = sm__describe_token(v, i, p + 8);
        p = sm__set64(p, bytes) + bytes;
    }
    p = sm__writer_meta(w, sm__str_of("tokenizer.ggml.scores"), 1, SM_META_F32, n, 4 * n);
    for (i = 0; p && i < v->n; i++) { /* back from what sm__vocab_scores made of them */
        uint32_t order = v->tables->order[i];
        p = sm__set32(p, order >> 31 ? order : 0x7FFFFFFFu - order);
    }
    p = sm__writer_meta(w, sm__str_of("tokenizer.ggml.token_type"), 1, SM_META_I32, n, 4 * n);
    for (i = 0; p && i < v->n; i++) p = sm__set32(p, v->kinds[i]);
}

static void sm__describe_vocab(sm_writer *w, const sm__vocab *v) {
    static const uint8_t yes = 1;
    int none = v->kind == SM__VOCAB_NONE;
    sm_writer_value(w, "tokenizer.ggml.model", SM_META_TEXT, none ? "none" : "llama");
    if (none || w->error.status) return;
    sm__describe_tokens(w, v);
    if (v->bos >= 0) sm_writer_value(w, "tokenizer.ggml.bos_token_id", SM_META_U32, &v->bos);
    if (v->eos >= 0) sm_writer_value(w, "tokenizer.ggml.eos_token_id", SM_META_U32, &v->eos);
    if (v->eot >= 0) sm_writer_value(w, "tokenizer.ggml.eot_token_id", SM_META_U32, &v->eot);
    if (v->unk >= 0) sm_writer_value(w, "tokenizer.ggml.unknown_token_id", SM_META_U32, &v->unk);
    sm_writer_value(w, "tokenizer.ggml.add_bos_token", SM_META_BOOL, &yes);
    sm_writer_value(w, "tokenizer.ggml.add_space_prefix", SM_META_BOOL, &yes);
}

/* Mistral's files are llama's. */
static const char *sm__describe_arch(sm_writer *w, const char *name) {
    if (!strcmp(name, "mistral")) name = "llama";
    sm_writer_value(w, "general.architecture", SM_META_TEXT, name);
    return name;
}

static void sm__describe_shape(sm_writer *w, const char *name, const sm__arch *arch,
                               const sm__hparams *h) {
    const char *a = sm__describe_arch(w, name);
    sm__describe(w, a, "vocab_size", SM_META_U32, h->n_vocab, NULL);
    sm__describe(w, a, "context_length", SM_META_U32, h->n_ctx, NULL);
    sm__describe(w, a, "embedding_length", SM_META_U32, h->n_embd, NULL);
    sm__describe(w, a, "block_count", SM_META_U32, h->n_layers, NULL);
    sm__describe(w, a, "feed_forward_length", SM_META_U32, h->n_ff, NULL);
    sm__describe(w, a, "attention.head_count", SM_META_U32, h->n_heads, NULL);
    sm__describe(w, a, "attention.head_count_kv", SM_META_U32, h->n_kv_heads, NULL);
    if (h->head_dim * h->n_heads != h->n_embd) {
        sm__describe(w, a, "attention.key_length", SM_META_U32, h->head_dim, NULL);
        sm__describe(w, a, "attention.value_length", SM_META_U32, h->head_dim, NULL);
    }
    sm__describe(w, a, arch->norm == SM__NORM_RMS ? "attention.layer_norm_rms_epsilon"
                                                  : "attention.layer_norm_epsilon",
                 SM_META_F32, (double)h->norm_eps, NULL);
    if (h->pos != SM__POS_LEARNED) sm__describe_rope(w, a, h);
}

/* What a GGUF file of a model from another format says of it. */
static sm_status sm__describe_model(sm_writer *w, const sm_model *m) {
    if (!m->arch || m->hp.scaling == SM__SCALING_LLAMA3)
        return SM__WRITER_FAIL(w, SM_ERR_UNSUPPORTED, m->arch ? "writer: llama3's rope scaling"
                                                             : "writer: a vocabulary only");
    sm__describe_shape(w, m->info.arch, m->arch, &m->hp);
    if (*m->info.name) sm_writer_value(w, "general.name", SM_META_TEXT, m->info.name);
    sm__describe_vocab(w, &m->vocab);
    return w->error.status;
}

SM_API sm_status sm_writer_copy(sm_writer *w, const sm_model *m, const char *const *except,
                                int n_except) {
    sm_status status = sm__writer_ready(w);
    int i, j;
    if (status) return status;
    if (!m || n_except < 0 || (n_except && !except))
        return SM__WRITER_FAIL(w, SM_ERR_ARG, "writer: no model to copy from");
    if (!m->length_bytes) return sm__describe_model(w, m); /* no GGUF file */
    for (i = 0; i < m->info.n_meta && !w->error.status; i++) {
        int skip = sm__str_is(m->meta[i].key, "general.alignment");
        for (j = 0; j < n_except; j++) skip |= sm__str_is(m->meta[i].key, except[j]);
        if (!skip) sm__copy_meta(w, m, &m->meta[i]);
    }
    return w->error.status;
}

/* ---- the quantiser ---- */

#define SM__QUANTIZE_PIECE 512 /* elements at once: a multiple of every block */
#define SM__QUANTIZE_BUFFER ((size_t)1 << 20)
#define SM__QUANTIZE_TILES 256 /* of a buffer, at most */

typedef struct sm__quantizer {
    sm__pass pass; /* first: what a member of the team gets is a pointer to it */
    const sm_model *model;
    const sm_quantize_params *params;
    sm_error *error;
    sm__heap heap;
    sm_writer *writer;
    int *types; /* [n_tensors] what each becomes */
    uint8_t *buffer;
    size_t buffer_bytes;
    sm_quantize_progress progress;
    sm_adapter *adapter; /* NULL: none */
    /* the tensor in work */
    sm_tensor tensor;
    const sm__adapter_pair *pair; /* what is added to it, or NULL */
    double scale;
    int from, to; /* indexes of sm__types */
    int copy;     /* 1: rows stay as they are */
    size_t k, n_rows, src_stride, dst_stride;
    size_t head, n_rot; /* rows of a head, and how many of them change places (0: none do) */
    /* the rows that are in the buffer */
    size_t row, rows, tile_rows;
    uint32_t tiles;
    volatile uint32_t next, endless; /* tiles taken; 1: a number was not finite */
    double errors[SM__QUANTIZE_TILES], squares[SM__QUANTIZE_TILES];
} sm__quantizer;

/* x += s * row r of B times A, elements [at, at + n). The sums are in double, so that the one
 * rounding is that of the new weight. */
static void sm__adapter_add(const sm__adapter_pair *p, double s, size_t r, size_t at, size_t n,
                            float *x) {
    const float *a = p->a + at, *b = p->b + r * (size_t)p->rank;
    double sums[SM__QUANTIZE_PIECE] = {0.0};
    size_t i, j, rank = (size_t)p->rank;
    for (j = 0; j < rank; j++, a += p->k)
        for (i = 0; i < n; i++) sums[i] += (double)b[j] * (double)a[i];
    for (i = 0; i < n; i++) x[i] = (float)((double)x[i] + s * sums[i]);
}

/* Encodes row r of the model's tensor; adds the squared error to sums[0], the squares to sums[1].
 * 1 = a number was not finite. */
static int sm__quantize_row(const sm__quantizer *q, size_t r, uint8_t *dst, double *sums) {
    const uint8_t *src = (const uint8_t *)q->tensor.data + r * q->src_stride;
    float x[SM__QUANTIZE_PIECE], y[SM__QUANTIZE_PIECE];
    size_t at, i, n;
    int endless = 0;
    for (at = 0; at < q->k; at += n) {
        n = sm__min_size(SM__QUANTIZE_PIECE, q->k - at);
        sm__types[q->from].decode(src, x, n);
        if (q->pair) sm__adapter_add(q->pair, q->scale, r, at, n, x);
        sm__types[q->to].encode(x, dst, n);
        for (i = 0; i < n; i++) endless |= sm__not_finite(x[i]);
        if (q->params->check) sm__types[q->to].decode(dst, y, n);
        for (i = 0; i < n && q->params->check; i++) {
            double off = (double)y[i] - (double)x[i];
            sums[0] += off * off;
            sums[1] += (double)x[i] * (double)x[i];
        }
        src += sm__row_bytes(q->from, n);
        dst += sm__row_bytes(q->to, n);
    }
    return endless;
}


/* Takes tiles until there are none. Every tile has a place of its own for all that it writes. */
static void sm__quantize_work(sm__pass *pass, int slot) {
    sm__quantizer *q = (sm__quantizer *)(void *)pass;
    uint64_t fp = sm__fp_enter();
    uint32_t tile;
    (void)slot;
    while ((tile = sm__add32(&q->next, 1)) < q->tiles) {
        size_t r = tile * q->tile_rows, end = sm__min_size(r + q->tile_rows, q->rows);
        double sums[2] = {0.0, 0.0};
        for (; r < end; r++) {
            size_t from = sm__turned_row(q->row + r, q->head, q->n_rot);
            uint8_t *dst = q->buffer + r * q->dst_stride;
            if (q->copy)
                memcpy(dst, (const uint8_t *)q->tensor.data + from * q->src_stride, q->dst_stride);
            else if (sm__quantize_row(q, from, dst, sums)) sm__store32(&q->endless, 1);
        }
        q->errors[tile] = sums[0];
        q->squares[tile] = sums[1];
    }
    sm__fp_leave(fp);
}

/* Fills the buffer with rows [q->row, q->row + q->rows). */
static void sm__quantize_fill(sm__quantizer *q) {
    size_t least = q->k < 4096 ? 4096 / q->k : 1; /* rows that are worth a tile */
    int round = 0, shared;
    q->tile_rows = (q->rows + SM__QUANTIZE_TILES - 1) / SM__QUANTIZE_TILES;
    if (q->tile_rows < least) q->tile_rows = least;
    q->tiles = (uint32_t)((q->rows + q->tile_rows - 1) / q->tile_rows);
    shared = q->params->team && q->tiles > 1;
    sm__store32(&q->next, 0);
    if (shared) sm__team_open(q->params->team, &q->pass);
    sm__quantize_work(&q->pass, 0);
    if (shared) sm__team_close(q->params->team, &q->pass);
    while (sm__load32(&q->pass.helpers)) sm__wait_a_little(round++);
}

/* Of the layers, llama.cpp's mixes favour the first and the last eighth, and each third between. */
static int sm__more_bits(int i, int n) {
    return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
}

/* The type that the recipe gives to a matrix. */
static int sm__quantize_mix(const sm__quantizer *q, const char *name) {
    sm__str s = sm__str_of(name);
    int type = q->params->type, m = q->params->mix == SM_MIX_M, n = q->model->hp.n_layers, i;
    int tied = sm__tensor_at(q->model, "output.weight") < 0;
    if (q->params->mix == SM_MIX_NONE) return type;
    if (sm__str_is(s, tied ? "token_embd.weight" : "output.weight")) return SM_TYPE_Q6_K;
    if (m && sm__st_fits(s, "blk.#.attn_qkv.weight", &i))
        return type == SM_TYPE_Q4_K ? SM_TYPE_Q5_K : SM_TYPE_Q6_K;
    if (sm__st_fits(s, "blk.#.attn_v.weight", &i) || sm__st_fits(s, "blk.#.ffn_down.weight", &i)) {
        int first = strstr(name, "attn_v") ? 4 : n / 8;
        if (m && sm__more_bits(i, n)) return SM_TYPE_Q6_K;
        if (!m && type == SM_TYPE_Q4_K && i < first) return SM_TYPE_Q5_K;
    }
    return type;
}

/* What a tensor becomes, or SM_TYPE_AUTO when the caller's rule gave no type. */
static int sm__quantize_type(const sm__quantizer *q, const sm_tensor *t) {
    const sm_quantize_params *p = q->params;
    const sm_type_info *info;
    size_t n = strlen(t->name);
    sm_error line;
    int type;
    if (sm__type_index(t->type) < 0 || p->type == SM_TYPE_AUTO) return t->type;
    if (t->dims[1] * t->dims[2] * t->dims[3] == 1 || n < 7 || strcmp(t->name + n - 7, ".weight") ||
        strstr(t->name, "_norm.") || strcmp(t->name, "position_embd.weight") == 0)
        return SM_TYPE_F32;
    type = sm__quantize_mix(q, t->name);
    if (p->choose) type = p->choose(p->choose_user, t, type);
    info = sm_type_get_info(type);
    if (!info) return SM_TYPE_AUTO;
    if (t->dims[0] % (uint64_t)info->block_elems == 0) return type;
    type = info->block_elems > SM__QK && t->dims[0] % SM__QK == 0 ? SM_TYPE_Q8_0 : SM_TYPE_F16;
    sm__fail(&line, SM_ERR_UNSUPPORTED, "tensor %s: rows of %llu are no whole blocks of %s: %s",
             t->name, (unsigned long long)t->dims[0], info->name, sm_type_get_info(type)->name);
    if (p->log) p->log(p->log_user, 1, line.text);
    return type;
}

/* Makes tensor i the one in work. 1 = a row is too long for this build. */
static int sm__quantize_set(sm__quantizer *q, int i) {
    const sm_model *m = q->model;
    sm_tensor *t = &q->tensor;
    *t = m->tensors[i];
    q->from = sm__type_index(t->type);
    q->to = sm__type_index(q->types[i]);
    q->pair = sm__adapter_pair_of(q->adapter, &m->tensors[i]);
    if (q->pair)
        q->scale = sm__adapter_scale(q->adapter, q->pair,
                                     q->params->adapter_scale != 0.0f
                                         ? (double)q->params->adapter_scale : 1.0);
    q->copy = t->type == q->types[i] && !q->pair;
    q->k = (size_t)t->dims[0];
    q->n_rows = (size_t)(t->dims[1] * t->dims[2] * t->dims[3]);
    q->head = (size_t)m->hp.head_dim;
    q->n_rot = sm__turned_rows(m->arch, &m->hp, t->name);
    if (q->n_rot && t->n_dims == 1) q->n_rows = q->k, q->k = 1; /* a bias */
    q->src_stride = q->dst_stride = t->bytes / q->n_rows;
    return !q->copy && sm__mul_size(q->k / (size_t)sm__types[q->to].info.block_elems,
                                    (size_t)sm__types[q->to].info.block_bytes, &q->dst_stride);
}

/* llama.cpp's number for what most of a file's tensors are. */
static uint32_t sm__file_type(int type, int mix) {
    switch (type) {
    case SM_TYPE_F32: return 0;
    case SM_TYPE_F16: return 1;
    case SM_TYPE_Q4_0: return 2;
    case SM_TYPE_Q4_1: return 3;
    case SM_TYPE_Q8_0: return 7;
    case SM_TYPE_Q5_0: return 8;
    case SM_TYPE_Q5_1: return 9;
    case SM_TYPE_Q2_K: return 10;
    case SM_TYPE_Q3_K: return 11;
    case SM_TYPE_Q4_K: return mix == SM_MIX_M ? 15 : 14;
    case SM_TYPE_Q5_K: return mix == SM_MIX_M ? 17 : 16;
    case SM_TYPE_Q6_K: return 18;
    case SM_TYPE_IQ4_NL: return 25;
    case SM_TYPE_IQ4_XS: return 30;
    case SM_TYPE_TQ1_0: return 36;
    case SM_TYPE_TQ2_0: return 37;
    case SM_TYPE_MXFP4: return 38;
    default: return 32; /* BF16 */
    }
}

/* Metadata and all tensors' names, types and shapes. Errors of the writer stay in it. */
static sm_status sm__quantize_declare(sm__quantizer *q) {
    static const char *const ours[] = {"general.file_type", "general.quantization_version",
                                       "split.no", "split.count", "split.tensors.count"};
    uint32_t version = 2, file_type = sm__file_type(q->params->type, q->params->mix);
    sm_status status;
    int i;
    int keep = q->params->type == SM_TYPE_AUTO && q->model->length_bytes ? 2 : 0; /* the file's */
    if (q->params->type == SM_TYPE_AUTO) file_type = sm__file_type(q->model->info.type, 0);
    status = sm_writer_copy(q->writer, q->model, ours + keep, 5 - keep);
    if (!keep) {
        sm_writer_value(q->writer, ours[0], SM_META_U32, &file_type);
        status = sm_writer_value(q->writer, ours[1], SM_META_U32, &version);
    }
    for (i = 0; i < q->model->info.n_tensors && !status; i++) {
        const sm_tensor *t = &q->model->tensors[i];
        q->types[i] = sm__quantize_type(q, t);
        if (q->types[i] == SM_TYPE_AUTO)
            return sm__fail(q->error, SM_ERR_ARG, "quantize: no type for tensor %s", t->name);
        if (sm__quantize_set(q, i))
            return sm__fail(q->error, SM_ERR_FULL, "quantize: tensor %s: a row of %llu elements",
                            t->name, (unsigned long long)t->dims[0]);
        status = sm_writer_tensor(q->writer, t->name, q->types[i], t->n_dims, t->dims);
        if (q->dst_stride > q->buffer_bytes) q->buffer_bytes = q->dst_stride;
        q->progress.total_bytes += (uint64_t)q->dst_stride * q->n_rows;
    }
    return status;
}

static sm_status sm__quantize_tensor(sm__quantizer *q, int i) {
    sm_quantize_progress *p = &q->progress;
    double error = 0.0, squares = 0.0, n;
    sm_status status = SM_OK;
    uint32_t tile;
    sm__quantize_set(q, i);
    n = (double)q->k * (double)q->n_rows;
    p->tensor = q->tensor;
    p->i_tensor = i;
    p->type = q->types[i];
    p->finished = 0;
    for (q->row = 0; q->row < q->n_rows && !status; q->row += q->rows) {
        q->rows = sm__min_size(q->n_rows - q->row, q->buffer_bytes / q->dst_stride);
        sm__quantize_fill(q);
        for (tile = 0; tile < q->tiles; tile++)
            error += q->errors[tile], squares += q->squares[tile];
        if (sm__load32(&q->endless) && (q->pair || sm__types[q->to].info.block_elems > 1))
            return sm__fail(q->error, SM_ERR_FORMAT,
                            "tensor %s has a number that is not finite: %s cannot hold it",
                            q->tensor.name, sm__types[q->to].info.name);
        sm__store32(&q->endless, 0);
        status = sm_writer_data(q->writer, q->buffer, q->rows * q->dst_stride);
        p->done_bytes += (uint64_t)q->rows * q->dst_stride;
        p->finished = q->row + q->rows == q->n_rows;
        p->mse = error / n;
        p->mean_square = squares / n;
        if (!status && q->params->progress && q->params->progress(q->params->progress_user, p))
            return sm__fail(q->error, SM_ERR_CANCELLED, "quantize: cancelled");
    }
    return status;
}

static sm_status sm__quantize_run(sm__quantizer *q) {
    sm_model_params p = sm_model_default();
    sm_status status = SM_OK;
    int i;
    p.file = q->params->adapter;
    p.allocator = q->params->out.allocator;
    if (sm__source_set(&p.file)) status = sm_adapter_open(q->model, &p, &q->adapter, q->error);
    if (!status) status = sm_writer_open(&q->params->out, &q->writer, q->error);
    if (!status) status = sm__quantize_declare(q);
    if (!status) {
        q->buffer = (uint8_t *)sm__heap_alloc(&q->heap, q->buffer_bytes);
        if (!q->buffer) status = sm__fail(q->error, SM_ERR_NOMEM, "quantize: no memory for a row");
    }
    for (i = 0; i < q->model->info.n_tensors && !status; i++) status = sm__quantize_tensor(q, i);
    if (!status || (q->writer && q->writer->error.status)) /* its own failure, or none */
        return sm_writer_finish(q->writer, q->error);
    sm_writer_discard(q->writer);
    return status;
}

SM_API sm_quantize_params sm_quantize_default(void) {
    sm_quantize_params params;
    memset(&params, 0, sizeof params);
    return params;
}

SM_API sm_status sm_quantize(const sm_model *model, const sm_quantize_params *params,
                             sm_error *error) {
    size_t n, head = sm__round_up(sizeof(sm__quantizer), SM__ALIGN);
    sm__heap heap;
    sm__quantizer *q;
    sm_status status;
    if (!model || !params || (sm__type_index(params->type) < 0 && params->type != SM_TYPE_AUTO))
        return sm__fail(error, SM_ERR_ARG, "quantize: a model, params and a type are needed");
    if (params->mix < 0 || params->mix > SM_MIX_M ||
        (params->mix && params->type != SM_TYPE_Q4_K && params->type != SM_TYPE_Q5_K))
        return sm__fail(error, SM_ERR_ARG, "quantize: mixes are of Q4_K and Q5_K");
    if (!sm__allocator_ok(&params->out.allocator))
        return sm__fail(error, SM_ERR_ARG, "the allocator has only one of alloc and free");
    if (!sm__real_in((double)params->adapter_scale, -1e6, 1e6))
        return sm__fail(error, SM_ERR_ARG, "quantize: adapter_scale is out of range");
    if (!model->arch)
        return sm__fail(error, SM_ERR_UNSUPPORTED, "quantize: the model has no weights");
    n = (size_t)model->info.n_tensors;
    heap = sm__heap_make(&params->out.allocator);
    q = (sm__quantizer *)sm__heap_alloc(&heap, head + n * sizeof(int));
    if (!q) return sm__fail(error, SM_ERR_NOMEM, "quantize: no memory for %d types", (int)n);
    memset(q, 0, sizeof *q);
    q->types = (int *)(void *)((char *)q + head);
    q->model = model;
    q->params = params;
    q->error = error;
    q->heap = heap;
    q->buffer_bytes = SM__QUANTIZE_BUFFER;
    q->progress.n_tensors = (int)n;
    q->pass.help = sm__quantize_work;
    q->pass.n_slots = 256;
    q->pass.slots[0] = 1;
    status = sm__quantize_run(q);
    sm_adapter_close(q->adapter);
    sm__heap_free(&q->heap, q->buffer);
    heap = q->heap;
    sm__heap_free(&heap, q);
    return status;
}

/* ---- what was trained ---- */

#ifndef SMALLMIND_NO_TRAIN

SM_API sm_status sm_writer_describe(sm_writer *w, const sm_trainer *t) {
    sm_status status = sm__writer_ready(w);
    if (status) return status;
    if (!t || t->hp.scaling == SM__SCALING_LLAMA3)
        return SM__WRITER_FAIL(w, t ? SM_ERR_UNSUPPORTED : SM_ERR_ARG, "writer: %s",
                               t ? "llama3's rope scaling" : "no trainer to describe");
    sm__describe_shape(w, t->arch->name, t->arch, &t->hp);
    return w->error.status;
}

SM_API sm_status sm_writer_vocab(sm_writer *w, const sm_vocab *v) {
    static const uint8_t no = 0;
    sm_status status = sm__writer_ready(w);
    if (status) return status;
    if (!v) return sm_writer_value(w, "tokenizer.ggml.model", SM_META_TEXT, "none");
    sm_writer_value(w, "tokenizer.ggml.model", SM_META_TEXT, "gpt2");
    sm_writer_value(w, "tokenizer.ggml.pre", SM_META_TEXT, v->pre);
    sm_writer_array(w, "tokenizer.ggml.tokens", SM_META_TEXT, v->tokens, (size_t)v->n_tokens);
    sm_writer_array(w, "tokenizer.ggml.token_type", SM_META_I32, v->types, (size_t)v->n_tokens);
    sm_writer_array(w, "tokenizer.ggml.merges", SM_META_TEXT, v->merges, (size_t)v->n_merges);
    if (v->bos >= 0) sm_writer_value(w, "tokenizer.ggml.bos_token_id", SM_META_U32, &v->bos);
    if (v->eos >= 0) sm_writer_value(w, "tokenizer.ggml.eos_token_id", SM_META_U32, &v->eos);
    return sm_writer_value(w, "tokenizer.ggml.add_bos_token", SM_META_BOOL, &no);
}

SM_API sm_status sm_writer_weights(sm_writer *w, const sm_trainer *t) {
    sm_status status = sm__writer_ready(w);
    int i;
    if (status) return status;
    if (!t) return SM__WRITER_FAIL(w, SM_ERR_ARG, "writer: no trainer to take weights from");
    for (i = 0; i < t->n_tensors; i++) {
        const sm__train_tensor *e = &t->tensors[i];
        uint64_t dims[2];
        dims[0] = (uint64_t)e->columns;
        dims[1] = (uint64_t)e->rows;
        sm_writer_tensor(w, e->name, SM_TYPE_F32, e->rows ? 2 : 1, dims);
    }
    for (i = 0; i < t->n_tensors; i++) {
        const sm__train_tensor *e = &t->tensors[i];
        int outputs = !strstr(e->name, ".lora_a"); /* rows are outputs: those of A are not */
        size_t n_rot = outputs ? sm__turned_rows(t->arch, &t->hp, e->name) : 0, r;
        size_t n_rows = e->rows ? (size_t)e->rows : 1, n = (size_t)e->columns;
        if (n_rot && !e->rows) n_rows = n, n = 1; /* a bias */
        for (r = 0; r < n_rows; r++) {
            size_t from = sm__turned_row(r, (size_t)t->hp.head_dim, n_rot);
            sm_writer_data(w, t->flat + e->at + from * n, n * sizeof(float));
        }
    }
    return w->error.status;
}

#define SM__GGML_I8 24 /* as the table of GGUF types has it */

SM_API sm_status sm_writer_state(sm_writer *w, const sm_trainer *t) {
    sm_status status = sm__writer_ready(w);
    sm__train_state head;
    uint64_t bytes = (uint64_t)sm_trainer_state_bytes(t);
    if (status) return status;
    if (!t) return SM__WRITER_FAIL(w, SM_ERR_ARG, "writer: no trainer to take a state from");
    head = sm__train_state_summed(t);
    sm_writer_tensor(w, "trainer.state", SM__GGML_I8, 1, &bytes);
    sm_writer_data(w, &head, sizeof head);
    return sm_writer_data(w, t->flat, t->state_bytes);
}

SM_API sm_status sm_trainer_write_adapter(const sm_trainer *t, const sm_writer_params *out,
                                          sm_error *error) {
    sm_writer *w = NULL;
    sm_status status;
    if (!t || !t->params.lora_rank)
        return sm__fail(error, SM_ERR_ARG, "adapter: the trainer has no lora_rank");
    status = sm_writer_open(out, &w, error);
    if (status) return status;
    sm__describe_arch(w, t->arch->name);
    sm_writer_value(w, "general.type", SM_META_TEXT, "adapter");
    sm_writer_value(w, "adapter.type", SM_META_TEXT, "lora");
    sm_writer_value(w, "adapter.lora.alpha", SM_META_F32, &t->params.lora_alpha);
    sm_writer_weights(w, t);
    return sm_writer_finish(w, error);
}

#endif /* SMALLMIND_NO_TRAIN */

#endif /* SMALLMIND_NO_WRITER */

/* ================================================================================================
 * MARK: [SM43] TOKENIZER TRAINER
 * Distinct words are counted, then laid out as symbols, one after another. Every symbol but a
 * word's last begins a pair; all places of a pair are a chain through the symbols, and a heap holds
 * the pairs with the best one on top. Merging a pair walks its chain and touches the neighbours
 * only: a place costs O(log pairs), whatever the text, and all memory is known before it starts.
 * ============================================================================================== */

#ifndef SMALLMIND_NO_TRAIN

#define SM__MAX_TRAINED_BYTES 1024 /* of a token: a merge's line stays below SM__MAX_TOKEN_BYTES */
#define SM__MAX_SPECIALS 4096
#define SM__PROGRESS_MERGES 64 /* from one call of params.progress to the next */
#define SM__PROGRESS_BYTES ((size_t)1 << 20)

typedef struct sm__bpe_entry {
    const unsigned char *p; /* where the text has it first */
    size_t n;
    int64_t count;
    int32_t first; /* its first symbol; the others follow, one for a byte */
} sm__bpe_entry;

typedef struct sm__bpe_symbol {
    int32_t id, word;
    int32_t prev, next;           /* of the word; -1 = none */
    int32_t pair;                 /* that begins here, or -1 */
    int32_t chain_prev, chain_next; /* places of the same pair; -1 = none */
} sm__bpe_symbol;

typedef struct sm__bpe_pair {
    int64_t count;
    int32_t left, right; /* ids */
    int32_t head;        /* of the chain; -1 = the pair is gone */
    int32_t at;          /* its place in the queue */
    int32_t next;        /* in its bucket, or of the free ones */
} sm__bpe_pair;

typedef struct sm__bpe_token {
    sm__str text; /* a part of the training text, or of the alphabet */
    int32_t next; /* in its bucket */
} sm__bpe_token;

typedef struct sm__bpe {
    sm_vocab_params params; /* zeros replaced */
    sm__heap heap;
    const unsigned char *text;
    size_t bytes;
    const sm__pre *pre;
    uint8_t special_start[256]; /* bytes that begin a special token */
    sm__slot *slots;            /* [slot_mask + 1] words by their text, at most half full */
    size_t slot_mask;
    sm__bpe_entry *words; /* [n_words] */
    int32_t n_words;
    size_t n_symbols;
    void *block;             /* holds the rest */
    sm__bpe_symbol *symbols; /* [n_symbols] */
    sm__bpe_pair *pairs;     /* [n_symbols + 1] a living pair has a place of its own at least */
    int32_t n_pairs, free_pair, busy_pair;
    int32_t *buckets; /* [bucket_mask + 1] of pairs */
    size_t bucket_mask;
    int32_t *queue; /* [n_symbols + 1] a heap of pairs, the best one first */
    int32_t n_queue;
    int32_t *merges; /* [n_symbols, 2] left, right; each took a symbol away */
    int32_t n_merges;
    sm__bpe_token *tokens; /* [max_tokens] */
    int32_t *token_buckets; /* [token_mask + 1] */
    size_t token_mask;
    int32_t n_tokens, max_tokens; /* without the special ones */
    unsigned char alphabet[256];  /* byte b */
    uint16_t char_of[256];        /* GPT-2's character for it */
    int16_t id_of[256];
} sm__bpe;

static int sm__bpe_cancelled(const sm__bpe *b) {
    const sm_vocab_params *p = &b->params;
    return p->progress && p->progress(p->progress_user, b->n_tokens, p->n_vocab) != 0;
}

/* --- Words ------------------------------------------------------------------------------------ */

static sm_status sm__bpe_words_grow(sm__bpe *b) {
    size_t n = b->words ? 2 * (b->slot_mask + 1) : 4096, at;
    int32_t i;
    sm__bpe_entry *words = (sm__bpe_entry *)sm__heap_alloc(&b->heap, n / 2 * sizeof *words);
    sm__slot *slots = words ? (sm__slot *)sm__heap_alloc(&b->heap, n * sizeof *slots) : NULL;
    if (!slots) {
        sm__heap_free(&b->heap, words);
        return SM_ERR_NOMEM;
    }
    memset(slots, 0xFF, n * sizeof *slots);
    for (i = 0; i < b->n_words; i++) {
        uint64_t h;
        words[i] = b->words[i];
        h = sm__hash_bytes(words[i].p, words[i].n);
        for (at = (size_t)h & (n - 1); slots[at].id >= 0; at = (at + 1) & (n - 1)) {
        }
        slots[at].id = i;
        slots[at].tag = (uint32_t)(h >> 32);
    }
    sm__heap_free(&b->heap, b->slots);
    sm__heap_free(&b->heap, b->words);
    b->words = words;
    b->slots = slots;
    b->slot_mask = n - 1;
    return SM_OK;
}

static sm_status sm__bpe_word_add(sm__bpe *b, const unsigned char *p, size_t n) {
    uint64_t h = sm__hash_bytes(p, n);
    uint32_t tag = (uint32_t)(h >> 32);
    sm__slot *slot;
    sm__bpe_entry *w;
    size_t i;
    if ((!b->words || (size_t)b->n_words == (b->slot_mask + 1) / 2) && sm__bpe_words_grow(b))
        return SM_ERR_NOMEM;
    for (i = (size_t)h;; i++) {
        slot = &b->slots[i & b->slot_mask];
        if (slot->id < 0) break;
        w = &b->words[slot->id];
        if (slot->tag == tag && w->n == n && memcmp(w->p, p, n) == 0) {
            w->count++;
            return SM_OK;
        }
    }
    if (n > 0x7FFFFFFEu - b->n_symbols) return SM_ERR_UNSUPPORTED;
    w = &b->words[b->n_words];
    w->p = p;
    w->n = n;
    w->count = 1;
    w->first = (int32_t)b->n_symbols;
    b->n_symbols += n;
    slot->tag = tag;
    slot->id = b->n_words++;
    return SM_OK;
}

/* The place of the next special token from `at`, and its length; the end and 0 without one. */
static size_t sm__bpe_special(const sm__bpe *b, size_t at, size_t *length) {
    int i;
    *length = 0;
    for (; at < b->bytes; at++) {
        if (!b->special_start[b->text[at]]) continue;
        for (i = 0; i < b->params.n_specials; i++) {
            size_t n = strlen(b->params.specials[i]);
            if (n > *length && n <= b->bytes - at &&
                memcmp(b->text + at, b->params.specials[i], n) == 0)
                *length = n;
        }
        if (*length) return at;
    }
    return b->bytes;
}

static sm_status sm__bpe_count(sm__bpe *b, sm_error *error) {
    size_t at = 0, shown = 0, end, skip, length, piece;
    sm_status status;
    for (; at < b->bytes; at = end + skip) {
        end = sm__bpe_special(b, at, &skip);
        for (piece = 0; at < end; at += length) {
            if (at >= shown) {
                shown = at + SM__PROGRESS_BYTES;
                if (sm__bpe_cancelled(b))
                    return sm__fail(error, SM_ERR_CANCELLED, "vocabulary: cancelled");
            }
            length = b->params.characters ? sm__char_at(b->text, end, at).length
                                          : sm__word_next(b->pre, b->text + at, end - at, &piece);
            status = sm__bpe_word_add(b, b->text + at, length);
            if (status)
                return sm__fail(error, status, "vocabulary: %s",
                                status == SM_ERR_NOMEM ? "no memory for the distinct words"
                                                       : "2 GB of distinct words");
        }
    }
    if (!b->n_words)
        return sm__fail(error, SM_ERR_ARG, "vocabulary: the text has nothing but special tokens");
    return SM_OK;
}

/* --- The queue: a heap that knows where each pair is ------------------------------------------ */

static int sm__bpe_before(const sm__bpe *b, int32_t i, int32_t j) {
    const sm__bpe_pair *p = &b->pairs[i], *q = &b->pairs[j];
    if (p->count != q->count) return p->count > q->count;
    return p->left != q->left ? p->left < q->left : p->right < q->right;
}

static void sm__bpe_queue_set(sm__bpe *b, int32_t at, int32_t i) {
    b->queue[at] = i;
    b->pairs[i].at = at;
}

/* Pair i has another count now: moves it up or down to its place. */
static void sm__bpe_queue_sift(sm__bpe *b, int32_t i) {
    int32_t at = b->pairs[i].at, child;
    for (; at > 0 && sm__bpe_before(b, i, b->queue[(at - 1) / 2]); at = (at - 1) / 2)
        sm__bpe_queue_set(b, at, b->queue[(at - 1) / 2]);
    for (; at < b->n_queue / 2; at = child) { /* it has a child */
        child = 2 * at + 1;
        if (child + 1 < b->n_queue && sm__bpe_before(b, b->queue[child + 1], b->queue[child]))
            child++;
        if (!sm__bpe_before(b, b->queue[child], i)) break;
        sm__bpe_queue_set(b, at, b->queue[child]);
    }
    sm__bpe_queue_set(b, at, i);
}

static void sm__bpe_queue_remove(sm__bpe *b, int32_t i) {
    int32_t last = b->queue[--b->n_queue];
    if (last == i) return;
    sm__bpe_queue_set(b, b->pairs[i].at, last);
    sm__bpe_queue_sift(b, last);
}

/* --- Pairs and their places ------------------------------------------------------------------- */

static int32_t *sm__bpe_bucket(const sm__bpe *b, int32_t left, int32_t right) {
    uint64_t h = sm__mix64((uint64_t)(uint32_t)left << 32 | (uint32_t)right);
    return &b->buckets[(size_t)h & b->bucket_mask];
}

/* The pair of two ids; a new one has no place and count 0. */
static int32_t sm__bpe_pair_get(sm__bpe *b, int32_t left, int32_t right) {
    int32_t *bucket = sm__bpe_bucket(b, left, right), i;
    sm__bpe_pair *p;
    for (i = *bucket; i >= 0; i = b->pairs[i].next)
        if (b->pairs[i].left == left && b->pairs[i].right == right) return i;
    i = b->free_pair;
    if (i >= 0) b->free_pair = b->pairs[i].next;
    else i = b->n_pairs++;
    p = &b->pairs[i];
    p->count = 0;
    p->left = left;
    p->right = right;
    p->head = -1;
    p->next = *bucket;
    *bucket = i;
    sm__bpe_queue_set(b, b->n_queue++, i);
    return i;
}

static void sm__bpe_pair_drop(sm__bpe *b, int32_t i) {
    int32_t *link = sm__bpe_bucket(b, b->pairs[i].left, b->pairs[i].right);
    while (*link != i) link = &b->pairs[*link].next;
    *link = b->pairs[i].next;
    b->pairs[i].next = b->free_pair;
    b->free_pair = i;
}

/* Symbol s and the one after it are neighbours now. */
static void sm__bpe_link(sm__bpe *b, int32_t s) {
    sm__bpe_symbol *symbol = &b->symbols[s];
    size_t n;
    int32_t i;
    symbol->pair = -1;
    if (symbol->next < 0) return;
    n = b->tokens[symbol->id].text.n + b->tokens[b->symbols[symbol->next].id].text.n;
    if (n > (size_t)b->params.max_token_bytes) return;
    i = sm__bpe_pair_get(b, symbol->id, b->symbols[symbol->next].id);
    symbol->pair = i;
    symbol->chain_prev = -1;
    symbol->chain_next = b->pairs[i].head;
    if (symbol->chain_next >= 0) b->symbols[symbol->chain_next].chain_prev = s;
    b->pairs[i].head = s;
    b->pairs[i].count += b->words[symbol->word].count;
    sm__bpe_queue_sift(b, i);
}

/* ... and no longer. A pair without a place is forgotten, but not the one that is being merged. */
static void sm__bpe_unlink(sm__bpe *b, int32_t s) {
    sm__bpe_symbol *symbol = &b->symbols[s];
    int32_t i = symbol->pair;
    if (i < 0) return;
    symbol->pair = -1;
    if (symbol->chain_prev < 0) b->pairs[i].head = symbol->chain_next;
    else b->symbols[symbol->chain_prev].chain_next = symbol->chain_next;
    if (symbol->chain_next >= 0) b->symbols[symbol->chain_next].chain_prev = symbol->chain_prev;
    b->pairs[i].count -= b->words[symbol->word].count;
    if (i == b->busy_pair) return;
    if (b->pairs[i].head >= 0) {
        sm__bpe_queue_sift(b, i);
    } else {
        sm__bpe_queue_remove(b, i);
        sm__bpe_pair_drop(b, i);
    }
}

/* --- Merging ---------------------------------------------------------------------------------- */

/* The token of the n bytes of text at symbol s: the one that has this text, or a new one. */
static int32_t sm__bpe_token_get(sm__bpe *b, int32_t s, size_t n) {
    const sm__bpe_entry *w = &b->words[b->symbols[s].word];
    const unsigned char *p = w->p + (s - w->first);
    int32_t *bucket = &b->token_buckets[(size_t)sm__hash_bytes(p, n) & b->token_mask], id;
    for (id = *bucket; id >= 0; id = b->tokens[id].next)
        if (b->tokens[id].text.n == n && memcmp(b->tokens[id].text.p, p, n) == 0) return id;
    id = b->n_tokens++;
    b->tokens[id].text.p = (const char *)p;
    b->tokens[id].text.n = n;
    b->tokens[id].next = *bucket;
    *bucket = id;
    return id;
}

/* Two merges may give one text ("a" "aa" and "aa" "a"), and after the second one a pair that was
 * merged before may come back: its line is there already. */
static void sm__bpe_merge_list(sm__bpe *b, int32_t left, int32_t right, int is_new) {
    int32_t i;
    for (i = 0; i < b->n_merges && !is_new; i++)
        if (b->merges[2 * (size_t)i] == left && b->merges[2 * (size_t)i + 1] == right) return;
    b->merges[2 * (size_t)b->n_merges] = left;
    b->merges[2 * (size_t)b->n_merges++ + 1] = right;
}

static void sm__bpe_merge_at(sm__bpe *b, int32_t s, int32_t id) {
    int32_t prev = b->symbols[s].prev, right = b->symbols[s].next, next = b->symbols[right].next;
    if (prev >= 0) sm__bpe_unlink(b, prev);
    sm__bpe_unlink(b, s);
    sm__bpe_unlink(b, right);
    b->symbols[s].id = id;
    b->symbols[s].next = next;
    if (next >= 0) b->symbols[next].prev = s;
    if (prev >= 0) sm__bpe_link(b, prev);
    sm__bpe_link(b, s);
}

/* Merges the best pair wherever it is. In a run of equal symbols ("aaa") places overlap: such a run
 * is merged from its left end, as a reader of the text would do it. */
static void sm__bpe_merge_best(sm__bpe *b) {
    int32_t i = b->queue[0], s = b->pairs[i].head, n_tokens = b->n_tokens, id;
    int32_t left = b->pairs[i].left, right = b->pairs[i].right;
    id = sm__bpe_token_get(b, s, b->tokens[left].text.n + b->tokens[right].text.n);
    sm__bpe_merge_list(b, left, right, id == n_tokens);
    sm__bpe_queue_remove(b, i);
    b->busy_pair = i;
    while ((s = b->pairs[i].head) >= 0) {
        while (b->symbols[s].prev >= 0 && b->symbols[b->symbols[s].prev].pair == i)
            s = b->symbols[s].prev;
        for (; s >= 0 && b->symbols[s].pair == i; s = b->symbols[s].next)
            sm__bpe_merge_at(b, s, id);
    }
    b->busy_pair = -1;
    sm__bpe_pair_drop(b, i);
}

/* The single bytes, in the order of their characters. */
static void sm__bpe_alphabet(sm__bpe *b) {
    int16_t byte_of[324];
    uint8_t used[256];
    int i;
    int32_t w;
    size_t k;
    sm__byte_map(byte_of);
    memset(used, !b->params.characters, sizeof used);
    for (w = 0; w < b->n_words && b->params.characters; w++)
        for (k = 0; k < b->words[w].n; k++) used[b->words[w].p[k]] = 1;
    for (i = 0; i < 324; i++) {
        int byte = byte_of[i];
        if (byte < 0) continue;
        b->alphabet[byte] = (unsigned char)byte;
        b->char_of[byte] = (uint16_t)i;
        if (!used[byte]) continue;
        b->id_of[byte] = (int16_t)b->n_tokens;
        b->tokens[b->n_tokens].text.p = (const char *)&b->alphabet[byte];
        b->tokens[b->n_tokens++].text.n = 1;
    }
}

static void sm__bpe_layout(sm__bpe *b, sm__arena *arena) {
    size_t n = b->n_symbols;
    b->symbols = (sm__bpe_symbol *)sm__arena_take(arena, n, sizeof *b->symbols);
    b->pairs = (sm__bpe_pair *)sm__arena_take(arena, n + 1, sizeof *b->pairs);
    b->queue = (int32_t *)sm__arena_take(arena, n + 1, sizeof *b->queue);
    b->buckets = (int32_t *)sm__arena_take(arena, b->bucket_mask + 1, sizeof *b->buckets);
    b->merges = (int32_t *)sm__arena_take(arena, n, 2 * sizeof *b->merges);
    b->tokens = (sm__bpe_token *)sm__arena_take(arena, (size_t)b->max_tokens, sizeof *b->tokens);
    b->token_buckets = (int32_t *)sm__arena_take(arena, b->token_mask + 1, sizeof(int32_t));
}

/* From words to symbols and pairs, in one block of memory. */
static sm_status sm__bpe_start(sm__bpe *b, sm_error *error) {
    sm__arena arena = {NULL, 0, 0};
    int32_t w, s;
    b->max_tokens = b->params.n_vocab - b->params.n_specials;
    if ((size_t)b->max_tokens > b->n_symbols + 256) b->max_tokens = (int32_t)(b->n_symbols + 256);
    for (b->bucket_mask = 15; b->bucket_mask < b->n_symbols / 2;)
        b->bucket_mask = 2 * b->bucket_mask + 1;
    b->token_mask = sm__table_size((size_t)b->max_tokens) - 1;
    sm__bpe_layout(b, &arena);
    b->block = arena.overflow ? NULL : sm__heap_alloc(&b->heap, arena.used);
    if (!b->block)
        return sm__fail(error, SM_ERR_NOMEM, "vocabulary: no memory for %llu bytes",
                        (unsigned long long)arena.used);
    arena.base = (unsigned char *)b->block;
    arena.used = 0;
    sm__bpe_layout(b, &arena);
    memset(b->buckets, 0xFF, (b->bucket_mask + 1) * sizeof *b->buckets);
    memset(b->token_buckets, 0xFF, (b->token_mask + 1) * sizeof *b->token_buckets);
    b->free_pair = b->busy_pair = -1;
    sm__bpe_alphabet(b);
    for (w = 0; w < b->n_words; w++) {
        const sm__bpe_entry *word = &b->words[w];
        int32_t end = word->first + (int32_t)word->n;
        for (s = word->first; s < end; s++) {
            sm__bpe_symbol *symbol = &b->symbols[s];
            symbol->id = b->id_of[word->p[s - word->first]];
            symbol->word = w;
            symbol->prev = s > word->first ? s - 1 : -1;
            symbol->next = s + 1 < end ? s + 1 : -1;
        }
        for (s = word->first; s < end; s++) sm__bpe_link(b, s);
    }
    return SM_OK;
}

static sm_status sm__bpe_run(sm__bpe *b, sm_error *error) {
    const sm_vocab_params *p = &b->params;
    int n = 0;
    while (b->n_queue && b->n_tokens < b->max_tokens &&
           b->pairs[b->queue[0]].count >= p->min_count) {
        if (n++ % SM__PROGRESS_MERGES == 0 && sm__bpe_cancelled(b))
            return sm__fail(error, SM_ERR_CANCELLED, "vocabulary: cancelled");
        sm__bpe_merge_best(b);
    }
    if (!p->characters && b->n_merges == 0 && p->n_vocab > 256 + p->n_specials)
        return sm__fail(error, SM_ERR_ARG,
                        "vocabulary: too little text, no pair of bytes occurs %d times",
                        p->min_count);
    return SM_OK;
}

/* --- The result ------------------------------------------------------------------------------- */

typedef struct sm__vocab_block {
    sm_vocab vocab; /* the first member: what the caller holds */
    sm__heap heap;
} sm__vocab_block;

/* A token's bytes as characters, behind what t holds. */
static void sm__vocab_put(const sm__bpe *b, sm__text *t, int32_t id) {
    sm__str s = b->tokens[id].text;
    size_t i;
    for (i = 0; i < s.n; i++) {
        unsigned c = b->char_of[(unsigned char)s.p[i]];
        char out[2];
        out[0] = (char)(c < 128 ? c : 0xC0 | c >> 6);
        out[1] = (char)(0x80 | (c & 63));
        sm__put_bytes(t, out, c < 128 ? 1 : 2);
    }
}

/* Where the text that comes next will stand: behind the NUL of the last one. */
static const char *sm__vocab_next(sm__text *t) {
    if (t->at) t->at++;
    return t->p + t->at;
}

static int32_t sm__vocab_special(const sm__bpe *b, const char *text) {
    int i;
    for (i = 0; text && i < b->params.n_specials; i++)
        if (strcmp(text, b->params.specials[i]) == 0) return b->n_tokens + i;
    return -1;
}

/* A special token's text is that of no other token, or files could not tell them apart. */
static sm_status sm__vocab_distinct(const sm__bpe *b, const sm_vocab *v, sm_error *error) {
    int i, j;
    for (i = b->n_tokens; i < v->n_tokens; i++)
        for (j = 0; j < i; j++)
            if (strcmp(v->tokens[i], v->tokens[j]) == 0)
                return sm__fail(error, SM_ERR_ARG, "vocabulary: special token %d is %s",
                                i - b->n_tokens,
                                j < b->n_tokens ? "an ordinary one too" : "there twice");
    return SM_OK;
}

static sm_status sm__vocab_result(const sm__bpe *b, sm_vocab **vocab, sm_error *error) {
    int i, pass, n_tokens = b->n_tokens + b->params.n_specials;
    sm__heap heap = sm__heap_make(&b->params.allocator);
    sm__arena arena = {NULL, 0, 0};
    sm_vocab *v = NULL;
    const char **tokens = NULL, **merges = NULL;
    int32_t *types = NULL;
    size_t k, bytes = 1; /* of texts, if each byte takes two */
    sm__text text = {NULL, 0, 0};
    for (i = 0; i < b->n_tokens; i++) bytes += 2 * b->tokens[i].text.n + 1;
    for (i = 0; i < b->params.n_specials; i++) bytes += strlen(b->params.specials[i]) + 1;
    for (k = 0; k < 2 * (size_t)b->n_merges; k++)
        bytes += 2 * b->tokens[b->merges[k]].text.n + 1;
    for (pass = 0; pass < 2; pass++) { /* counts, then places */
        if (pass) arena.base = (unsigned char *)sm__heap_alloc(&heap, arena.used);
        if (pass && !arena.base)
            return sm__fail(error, SM_ERR_NOMEM, "vocabulary: no memory for %d tokens", n_tokens);
        arena.used = 0;
        v = (sm_vocab *)sm__arena_take(&arena, 1, sizeof(sm__vocab_block));
        tokens = (const char **)sm__arena_take(&arena, (size_t)n_tokens, sizeof *tokens);
        types = (int32_t *)sm__arena_take(&arena, (size_t)n_tokens, sizeof *types);
        merges = (const char **)sm__arena_take(&arena, (size_t)b->n_merges, sizeof *merges);
        text.p = (char *)sm__arena_take(&arena, bytes, 1);
    }
    text.n = bytes;
    for (i = 0; i < n_tokens; i++) {
        tokens[i] = sm__vocab_next(&text);
        types[i] = i < b->n_tokens ? SM__TOKEN_NORMAL : SM__TOKEN_CONTROL;
        if (i < b->n_tokens) sm__vocab_put(b, &text, i);
        else sm__put(&text, b->params.specials[i - b->n_tokens]);
    }
    for (i = 0; i < b->n_merges; i++) {
        merges[i] = sm__vocab_next(&text);
        sm__vocab_put(b, &text, b->merges[2 * (size_t)i]);
        sm__put(&text, " ");
        sm__vocab_put(b, &text, b->merges[2 * (size_t)i + 1]);
    }
    v->pre = b->pre->name;
    v->tokens = tokens;
    v->types = types;
    v->merges = merges;
    v->n_tokens = n_tokens;
    v->n_merges = b->n_merges;
    v->bos = sm__vocab_special(b, b->params.bos);
    v->eos = sm__vocab_special(b, b->params.eos);
    ((sm__vocab_block *)(void *)v)->heap = heap;
    *vocab = v;
    return sm__vocab_distinct(b, v, error);
}

/* --- The public functions --------------------------------------------------------------------- */

SM_API sm_vocab_params sm_vocab_default(void) {
    sm_vocab_params params;
    memset(&params, 0, sizeof params);
    return params;
}

static sm_status sm__bpe_check_specials(sm__bpe *b, sm_error *error) {
    const sm_vocab_params *p = &b->params;
    int i;
    if (p->n_specials < 0 || p->n_specials > SM__MAX_SPECIALS || (p->n_specials && !p->specials))
        return sm__fail(error, SM_ERR_ARG, "vocabulary: %d special tokens, 0 to %d are possible",
                        p->n_specials, SM__MAX_SPECIALS);
    for (i = 0; i < p->n_specials; i++) {
        const char *s = p->specials[i];
        if (!s || !*s || strlen(s) > SM__MAX_SPECIAL_BYTES)
            return sm__fail(error, SM_ERR_ARG, "vocabulary: special token %d is %s", i,
                            !s || !*s ? "empty" : "too long");
        b->special_start[(unsigned char)*s] = 1;
    }
    if ((p->bos && sm__vocab_special(b, p->bos) < 0) ||
        (p->eos && sm__vocab_special(b, p->eos) < 0))
        return sm__fail(error, SM_ERR_ARG, "vocabulary: bos or eos is not one of the specials");
    return SM_OK;
}

/* Checks the parameters and replaces the zeros. */
static sm_status sm__bpe_check(sm__bpe *b, sm_error *error) {
    sm_vocab_params *p = &b->params;
    sm__str name;
    sm_status status;
    if (!sm__allocator_ok(&p->allocator))
        return sm__fail(error, SM_ERR_ARG, "vocabulary: the allocator is half a one");
    if (!b->text || !b->bytes) return sm__fail(error, SM_ERR_ARG, "vocabulary: the text is empty");
    status = sm__bpe_check_specials(b, error);
    if (status) return status;
    if (p->n_vocab == 0) p->n_vocab = 4096;
    if (p->characters) p->n_vocab = SM__MAX_VOCAB;
    if (p->n_vocab > SM__MAX_VOCAB || p->n_vocab < 256 + p->n_specials)
        return sm__fail(error, SM_ERR_ARG, "vocabulary: n_vocab is %d, %d to %d are possible",
                        p->n_vocab, 256 + p->n_specials, SM__MAX_VOCAB);
    if (p->min_count < 0 || p->max_token_bytes < 0 || p->max_token_bytes > SM__MAX_TRAINED_BYTES)
        return sm__fail(error, SM_ERR_ARG, "vocabulary: min_count is %d, max_token_bytes %d",
                        p->min_count, p->max_token_bytes);
    if (p->min_count == 0) p->min_count = 2;
    if (p->max_token_bytes == 0) p->max_token_bytes = 64;
    if (p->characters) p->min_count = 1, p->max_token_bytes = 4;
    name.p = p->pre ? p->pre : "gpt-2";
    name.n = strlen(name.p);
    b->pre = sm__pre_find(name);
    if (!b->pre)
        return sm__fail(error, SM_ERR_UNSUPPORTED, "vocabulary: params.pre is unknown");
    return SM_OK;
}

SM_API sm_status sm_vocab_train(const sm_vocab_params *params, const char *text, size_t bytes,
                                sm_vocab **vocab, sm_error *error) {
    sm__bpe b;
    sm_status status;
    if (!vocab) return sm__fail(error, SM_ERR_ARG, "vocabulary: nowhere to put it");
    *vocab = NULL;
    if (!params) return sm__fail(error, SM_ERR_ARG, "vocabulary: no params");
    memset(&b, 0, sizeof b);
    b.params = *params;
    b.text = (const unsigned char *)text;
    b.bytes = bytes;
    b.heap = sm__heap_make(&params->allocator);
    status = sm__bpe_check(&b, error);
    if (!status) status = sm__bpe_count(&b, error);
    if (!status) status = sm__bpe_start(&b, error);
    if (!status) status = sm__bpe_run(&b, error);
    if (!status) status = sm__vocab_result(&b, vocab, error);
    if (status) sm_vocab_destroy(*vocab), *vocab = NULL;
    sm__heap_free(&b.heap, b.block);
    sm__heap_free(&b.heap, b.slots);
    sm__heap_free(&b.heap, b.words);
    return status;
}

SM_API void sm_vocab_destroy(sm_vocab *vocab) {
    sm__heap heap;
    if (!vocab) return;
    heap = ((sm__vocab_block *)(void *)vocab)->heap; /* it must outlive what it frees */
    sm__heap_free(&heap, vocab);
}

/* The lists as a reader of files leaves them. */
static sm_status sm__vocab_copy(sm_model *m, const sm_vocab *vocab, sm_error *error) {
    sm__vocab *v = &m->vocab;
    int i;
    v->kind = SM__VOCAB_BPE;
    v->n = m->hp.n_vocab = vocab->n_tokens;
    v->n_merges = vocab->n_merges;
    v->bos = vocab->bos;
    v->eos = vocab->eos;
    v->pre.p = vocab->pre;
    v->pre.n = strlen(vocab->pre);
    v->tokens = (sm__str *)sm__model_alloc(m, (size_t)v->n, sizeof *v->tokens);
    v->kinds = (uint8_t *)sm__model_alloc(m, (size_t)v->n, 1);
    v->merges = (sm__str *)sm__model_alloc(m, (size_t)v->n_merges, sizeof *v->merges);
    if (!v->tokens || !v->kinds || !v->merges)
        return sm__fail(error, SM_ERR_NOMEM, "vocabulary: no memory for %d tokens", v->n);
    for (i = 0; i < v->n; i++) {
        v->tokens[i].p = vocab->tokens[i];
        v->tokens[i].n = strlen(vocab->tokens[i]);
        v->kinds[i] = (uint8_t)vocab->types[i];
    }
    for (i = 0; i < v->n_merges; i++) {
        v->merges[i].p = vocab->merges[i];
        v->merges[i].n = strlen(vocab->merges[i]);
    }
    return SM_OK;
}

SM_API sm_status sm_vocab_open(const sm_vocab *vocab, const sm_allocator *allocator,
                               sm_model **model, sm_error *error) {
    sm__bytes none = {NULL, 0, NULL};
    sm_model *m;
    sm_status status;
    if (!model) return sm__fail(error, SM_ERR_ARG, "model is NULL");
    *model = NULL;
    if (!vocab || (allocator && !sm__allocator_ok(allocator)))
        return sm__fail(error, SM_ERR_ARG, "vocabulary: %s",
                        vocab ? "the allocator is half a one" : "there is none");
    m = sm__model_new(allocator);
    if (!m) return sm__fail(error, SM_ERR_NOMEM, "no memory for a model");
    status = sm__vocab_copy(m, vocab, error);
    if (!status) status = sm__vocab_build(m, error);
    if (status) {
        sm_model_close(m);
        return status;
    }
    sm__model_info(m, &none);
    *model = m;
    return SM_OK;
}

#endif /* SMALLMIND_NO_TRAIN */

#ifdef __cplusplus
}
#endif
#if defined(__clang__)
#pragma float_control(pop)
#pragma clang diagnostic pop
#elif defined(__GNUC__)
#pragma GCC pop_options
#pragma GCC diagnostic pop
#endif
#endif /* SM__IMPLEMENTED */
#endif /* SMALLMIND_IMPLEMENTATION */
