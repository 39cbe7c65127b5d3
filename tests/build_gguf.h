/* build_gguf.h - GGUF files made in memory: single keys and tensors for the tests of the reader,
 * and whole small models of every architecture and type with random weights for all the others.
 * The same parameters give the same bytes everywhere. Included by test.c after check.h.
 *
 *     gguf_model_params p = gguf_model_default("qwen2", SM_TYPE_Q8_0);
 *     size_t bytes;
 *     uint8_t *file = gguf_model(&p, &bytes);          // free() it
 *     sm_model *m = gguf_model_open(&p);               // or at once; sm_model_close() it
 */

typedef struct gguf_buf {
    uint8_t *p;
    size_t n, room;
} gguf_buf;

typedef struct gguf_builder {
    int version;        /* 1, 2 or 3 */
    uint32_t alignment; /* what general.alignment says; 32 without the key */
    gguf_buf meta, directory, data;
    uint64_t n_meta, n_tensors;
    uint64_t random;
} gguf_builder;

static void gguf_bytes(gguf_buf *b, const void *p, size_t n) {
    if (b->n + n > b->room) {
        b->room = 2 * (b->n + n) + 64;
        b->p = (uint8_t *)realloc(b->p, b->room);
        if (!b->p) exit(3);
    }
    if (n) memcpy(b->p + b->n, p, n);
    b->n += n;
}

static void gguf_u32(gguf_buf *b, uint32_t v) { gguf_bytes(b, &v, 4); }
static void gguf_u64(gguf_buf *b, uint64_t v) { gguf_bytes(b, &v, 8); }
/* A count or a length: 32 bits in version 1. */
static void gguf_length(const gguf_builder *g, gguf_buf *b, uint64_t v) {
    if (g->version == 1) gguf_u32(b, (uint32_t)v);
    else gguf_u64(b, v);
}
static void gguf_string(const gguf_builder *g, gguf_buf *b, const char *s, size_t n) {
    gguf_length(g, b, n);
    gguf_bytes(b, s, n);
}

static gguf_builder gguf_make(int version) {
    gguf_builder g;
    memset(&g, 0, sizeof g);
    g.version = version;
    g.alignment = 32;
    return g;
}

/* ---- metadata ---- */

/* Key and type; the value is appended to g->meta by the caller. */
static void gguf_key(gguf_builder *g, const char *key, uint32_t type) {
    gguf_string(g, &g->meta, key, strlen(key));
    gguf_u32(&g->meta, type);
    g->n_meta++;
}

static void gguf_key_u32(gguf_builder *g, const char *key, uint32_t v) {
    gguf_key(g, key, SM__GGUF_U32);
    gguf_u32(&g->meta, v);
}

static void gguf_key_f32(gguf_builder *g, const char *key, float v) {
    gguf_key(g, key, SM__GGUF_F32);
    gguf_bytes(&g->meta, &v, 4);
}

static void gguf_key_bool(gguf_builder *g, const char *key, int v) {
    uint8_t byte = (uint8_t)v;
    gguf_key(g, key, SM__GGUF_BOOL);
    gguf_bytes(&g->meta, &byte, 1);
}

static void gguf_key_str(gguf_builder *g, const char *key, const char *v) {
    gguf_key(g, key, SM__GGUF_STRING);
    gguf_string(g, &g->meta, v, strlen(v));
}

/* n elements of a type of fixed size. */
static void gguf_key_array(gguf_builder *g, const char *key, uint32_t type, const void *v,
                           size_t n) {
    gguf_key(g, key, SM__GGUF_ARRAY);
    gguf_u32(&g->meta, type);
    gguf_length(g, &g->meta, n);
    gguf_bytes(&g->meta, v, n * sm__gguf_types[type].bytes);
}

/* The head of an array of strings; then n times gguf_string(g, &g->meta, ...). */
static void gguf_key_strings(gguf_builder *g, const char *key, size_t n) {
    gguf_key(g, key, SM__GGUF_ARRAY);
    gguf_u32(&g->meta, SM__GGUF_STRING);
    gguf_length(g, &g->meta, n);
}

/* "arch.suffix" */
static const char *gguf_arch_key(const char *arch, const char *suffix) {
    static char key[128];
    snprintf(key, sizeof key, "%s.%s", arch, suffix);
    return key;
}

/* ---- tensors ---- */

/* A directory entry; d[0] is the contiguous dimension. Bounds are not checked. */
static void gguf_entry(gguf_builder *g, const char *name, uint32_t n_dims, const uint64_t *d,
                       uint32_t type, uint64_t offset) {
    uint32_t i;
    gguf_string(g, &g->directory, name, strlen(name));
    gguf_u32(&g->directory, n_dims);
    for (i = 0; i < n_dims; i++) gguf_length(g, &g->directory, d[i]);
    gguf_u32(&g->directory, type);
    gguf_u64(&g->directory, offset);
    g->n_tensors++;
}

/* Pads the data so that the next tensor is aligned; returns its offset. */
static uint64_t gguf_align(gguf_builder *g) {
    static const uint8_t zero = 0;
    while (g->data.n % g->alignment) gguf_bytes(&g->data, &zero, 1);
    return g->data.n;
}

static uint32_t gguf_random(gguf_builder *g) { /* SplitMix64 */
    uint64_t z = g->random += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ (z >> 31)) >> 32);
}

/* n numbers within +-scale of base: multiples of scale / 1024. */
static void gguf_values(gguf_builder *g, float *values, int n, float base, float scale) {
    int i;
    for (i = 0; i < n; i++)
        values[i] = base + scale * (float)((int)(gguf_random(g) % 2049) - 1024) / 1024.0f;
}

/* n random blocks of 256. To encode one takes long: 8 are, and each byte of the others is what one
 * of those has in its place. */
static void gguf_superblocks(gguf_builder *g, int type, size_t n, float base, float scale) {
    size_t bytes = (size_t)sm_type_get_info(type)->block_bytes, i, j;
    uint8_t some[8][256], block[256];
    float values[256];
    for (j = 0; j < 8; j++) {
        gguf_values(g, values, 256, base, scale);
        sm_type_encode(type, values, some[j], 256);
    }
    for (j = 0; j < n; j++) {
        for (i = 0; i < bytes; i++) block[i] = some[gguf_random(g) % 8][i];
        gguf_bytes(&g->data, block, bytes);
    }
}

/* A tensor of random numbers within +-scale of base; a scale that is a power of two gives exact
 * values in F32. n: rows, 0 for a vector; count: such matrices, 0 for a tensor of two
 * dimensions. */
static void gguf_tensors(gguf_builder *g, const char *name, int type, int k, int n, int count,
                         float base, float scale) {
    uint64_t dims[3], offset = gguf_align(g);
    const sm_type_info *info = sm_type_get_info(type);
    int rows = (n ? n : 1) * (count ? count : 1), j;
    float *values = (float *)malloc((size_t)k * sizeof *values);
    uint8_t *encoded = (uint8_t *)malloc((size_t)k * sizeof *values);
    size_t row;
    if (!values || !encoded || !info || k % info->block_elems) exit(3);
    row = (size_t)(k / info->block_elems);
    if (info->block_elems == 256) {
        gguf_superblocks(g, type, row * (size_t)rows, base, scale);
        rows = 0;
    }
    for (j = 0; j < rows; j++) {
        gguf_values(g, values, k, base, scale);
        sm_type_encode(type, values, encoded, (size_t)k);
        gguf_bytes(&g->data, encoded, row * (size_t)info->block_bytes);
    }
    free(values);
    free(encoded);
    dims[0] = (uint64_t)k;
    dims[1] = (uint64_t)n;
    dims[2] = (uint64_t)count;
    gguf_entry(g, name, count ? 3 : n ? 2 : 1, dims, (uint32_t)type, offset);
}

static void gguf_tensor(gguf_builder *g, const char *name, int type, int k, int n, float base,
                        float scale) {
    gguf_tensors(g, name, type, k, n, 0, base, scale);
}

/* The file, from malloc; the builder is empty afterwards. */
static uint8_t *gguf_finish(gguf_builder *g, size_t *bytes) {
    static const uint8_t zero = 0;
    gguf_buf file = {NULL, 0, 0};
    gguf_bytes(&file, "GGUF", 4);
    gguf_u32(&file, (uint32_t)g->version);
    gguf_length(g, &file, g->n_tensors);
    gguf_length(g, &file, g->n_meta);
    gguf_bytes(&file, g->meta.p, g->meta.n);
    gguf_bytes(&file, g->directory.p, g->directory.n);
    while (g->n_tensors && file.n % g->alignment) gguf_bytes(&file, &zero, 1);
    gguf_bytes(&file, g->data.p, g->data.n);
    free(g->meta.p);
    free(g->directory.p);
    free(g->data.p);
    *g = gguf_make(g->version);
    *bytes = file.n;
    return file.p;
}

/* ---- vocabularies ---- */

/* SentencePiece: <unk>, <s>, </s>, the 256 bytes, then pieces with falling scores, then padding
 * that is never used. n >= 320. "the cat" and the like have several ways to be cut. */
#define GGUF_SPM_FIRST 259
static const char *const gguf_spm_pieces[] = {
    "\xe2\x96\x81",
    "e",
    "t",
    "a",
    "o",
    "i",
    "n",
    "s",
    "h",
    "r",
    "d",
    "l",
    "u",
    "c",
    "m",
    "f",
    "w",
    "g",
    "y",
    "p",
    "b",
    "v",
    "k",
    ".",
    ",",
    "!",
    "'",
    "T",
    "H",
    "he",
    "\xe2\x96\x81t",
    "in",
    "\xe2\x96\x81"
    "a",
    "nd",
    "at",
    "on",
    "re",
    "er",
    "ed",
    "\xe2\x96\x81the",
    "ing",
    "the",
    "\xe2\x96\x81"
    "and",
    "cat",
    "\xe2\x96\x81"
    "cat",
    "\xe2\x96\x81s",
    "\xe2\x96\x81sat",
    "\xc3\xa9",
};
#define GGUF_N_SPM ((int)(sizeof gguf_spm_pieces / sizeof *gguf_spm_pieces))

static void gguf_vocab_spm(gguf_builder *g, int n) {
    float *scores = (float *)calloc((size_t)n, sizeof *scores);
    int32_t *kinds = (int32_t *)calloc((size_t)n, sizeof *kinds);
    char text[32];
    int i;
    if (!scores || !kinds || n < GGUF_SPM_FIRST + GGUF_N_SPM) exit(3);
    gguf_key_str(g, "tokenizer.ggml.model", "llama");
    gguf_key_strings(g, "tokenizer.ggml.tokens", (size_t)n);
    for (i = 0; i < n; i++) {
        const char *piece = text;
        scores[i] = -(float)i;
        kinds[i] = SM__TOKEN_NORMAL;
        if (i < 3) {
            static const char *const special[] = {"<unk>", "<s>", "</s>"};
            piece = special[i];
            kinds[i] = i ? SM__TOKEN_CONTROL : SM__TOKEN_UNKNOWN;
            scores[i] = 0.0f;
        } else if (i < GGUF_SPM_FIRST) {
            snprintf(text, sizeof text, "<0x%02X>", (unsigned)(i - 3));
            kinds[i] = SM__TOKEN_BYTE;
            scores[i] = 0.0f;
        } else if (i < GGUF_SPM_FIRST + GGUF_N_SPM) {
            piece = gguf_spm_pieces[i - GGUF_SPM_FIRST];
        } else {
            snprintf(text, sizeof text, "<pad%d>", i);
            kinds[i] = SM__TOKEN_UNUSED;
        }
        gguf_string(g, &g->meta, piece, strlen(piece));
    }
    gguf_key_array(g, "tokenizer.ggml.scores", SM__GGUF_F32, scores, (size_t)n);
    gguf_key_array(g, "tokenizer.ggml.token_type", SM__GGUF_I32, kinds, (size_t)n);
    gguf_key_u32(g, "tokenizer.ggml.bos_token_id", 1);
    gguf_key_u32(g, "tokenizer.ggml.eos_token_id", 2);
    gguf_key_u32(g, "tokenizer.ggml.unknown_token_id", 0);
    free(scores);
    free(kinds);
}

/* WordPiece: the special tokens, then letters that begin words (4 = "a") and that go on in them
 * (30 = "a"), the rest is of no use. */
static void gguf_vocab_wpm(gguf_builder *g, int n) {
    static const char *const special[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]"};
    int32_t *kinds = (int32_t *)calloc((size_t)n, sizeof *kinds);
    char text[32];
    int i;
    if (!kinds || n < 56) exit(3);
    gguf_key_str(g, "tokenizer.ggml.model", "bert");
    gguf_key_strings(g, "tokenizer.ggml.tokens", (size_t)n);
    for (i = 0; i < n; i++) {
        kinds[i] = i < 4 ? SM__TOKEN_CONTROL : i < 56 ? SM__TOKEN_NORMAL : SM__TOKEN_UNUSED;
        if (i < 4) snprintf(text, sizeof text, "%s", special[i]);
        else if (i < 30) snprintf(text, sizeof text, "\xE2\x96\x81%c", 'a' + i - 4);
        else if (i < 56) snprintf(text, sizeof text, "%c", 'a' + i - 30);
        else snprintf(text, sizeof text, "[unused%d]", i);
        gguf_string(g, &g->meta, text, strlen(text));
    }
    gguf_key_array(g, "tokenizer.ggml.token_type", SM__GGUF_I32, kinds, (size_t)n);
    gguf_key_u32(g, "tokenizer.ggml.bos_token_id", 2);
    gguf_key_u32(g, "tokenizer.ggml.unknown_token_id", 1);
    gguf_key_u32(g, "tokenizer.ggml.seperator_token_id", 3);
    free(kinds);
}

/* The character that byte-level BPE writes for a byte, as UTF-8; returns its length. */
static size_t gguf_bpe_byte(int byte, char *out) {
    unsigned code = (unsigned)byte;
    if (!((byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174)) {
        int i;
        for (code = 256, i = 0; i < byte; i++)
            code += !((i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174);
    }
    if (code < 128) {
        out[0] = (char)code;
        return 1;
    }
    out[0] = (char)(0xC0 | code >> 6);
    out[1] = (char)(0x80 | (code & 63));
    return 2;
}

/* Byte-level BPE as GPT-2's: the 256 bytes in order of value, a token per merge, <|endoftext|>
 * (the bos and eos id), then padding. n >= 320. */
static const char *const gguf_bpe_merges[] = {
    "h e",
    "t he",
    "\xc4\xa0 t",
    "\xc4\xa0t he",
    "i n",
    "n d",
    "a nd",
    "\xc4\xa0 a",
    "\xc4\xa0"
    "a nd",
    "a t",
    "c at",
    "\xc4\xa0 c",
    "\xc4\xa0"
    "c at",
    "\xc4\xa0 s",
    "\xc4\xa0s at",
    "e r",
    "in g",
    "o n",
    "1 2",
    "12 3",
};
#define GGUF_N_BPE ((int)(sizeof gguf_bpe_merges / sizeof *gguf_bpe_merges))

static void gguf_vocab_bpe(gguf_builder *g, int n) {
    int32_t *kinds = (int32_t *)calloc((size_t)n, sizeof *kinds);
    char text[32];
    int i, end = 256 + GGUF_N_BPE;
    if (!kinds || n <= end) exit(3);
    gguf_key_str(g, "tokenizer.ggml.model", "gpt2");
    gguf_key_str(g, "tokenizer.ggml.pre", "gpt-2");
    gguf_key_strings(g, "tokenizer.ggml.tokens", (size_t)n);
    for (i = 0; i < n; i++) {
        size_t bytes;
        kinds[i] = SM__TOKEN_NORMAL;
        if (i < 256) {
            bytes = gguf_bpe_byte(i, text);
        } else if (i < end) { /* the two halves joined */
            const char *merge = gguf_bpe_merges[i - 256], *space = strchr(merge, ' ');
            snprintf(text, sizeof text, "%.*s%s", (int)(space - merge), merge, space + 1);
            bytes = strlen(text);
        } else {
            if (i == end) snprintf(text, sizeof text, "<|endoftext|>");
            else snprintf(text, sizeof text, "<|pad%d|>", i);
            bytes = strlen(text);
            kinds[i] = SM__TOKEN_CONTROL;
        }
        gguf_string(g, &g->meta, text, bytes);
    }
    gguf_key_array(g, "tokenizer.ggml.token_type", SM__GGUF_I32, kinds, (size_t)n);
    gguf_key_strings(g, "tokenizer.ggml.merges", (size_t)GGUF_N_BPE);
    for (i = 0; i < GGUF_N_BPE; i++)
        gguf_string(g, &g->meta, gguf_bpe_merges[i], strlen(gguf_bpe_merges[i]));
    gguf_key_u32(g, "tokenizer.ggml.bos_token_id", (uint32_t)end);
    gguf_key_u32(g, "tokenizer.ggml.eos_token_id", (uint32_t)end);
    free(kinds);
}

/* ---- whole models ---- */

/* Families: what their files say beside the sizes. Each is a row here; tests and mkmodels.c go over
 * all of them. Windows, caps and scales are such that small models show them. */
enum {
    GGUF_PARALLEL = 1,    /* use_parallel_residual is true */
    GGUF_FFN_NORM = 2,    /* has the ffn_norm that it may lack */
    GGUF_QK_NORM = 4,     /* has the q and k norms that it may lack */
    GGUF_FUSED_QKV = 8,   /* has one attn_qkv where three may be */
    GGUF_LONG_ROPE = 16,  /* rope factors for short and long contexts */
    GGUF_RELU2 = 32,      /* says so as its activation */
    GGUF_SCALES = 64,     /* a scale for every matrix of a layer */
    GGUF_BIASES = 128,    /* has the biases that it may lack */
    GGUF_OLD = 256,       /* its models are older than this table: no more keys, flat scores */
    GGUF_MOE = 512,       /* is a mixture of experts */
    GGUF_SHARED = 1024,   /* has the shared expert that it may lack */
    GGUF_STEEP = 2048,    /* ffn_up so large that GELU is x or 0: llama.cpp's is a coarse table */
    GGUF_LINEAR = 4096    /* another rope base, and linear scaling */
};

typedef struct gguf_family {
    const char *name, *arch;
    int n_layers;       /* so many that each kind of layer is there */
    int rot;            /* rotated quarters of a head; 0 = no key: all */
    int window, period; /* 0 = no keys */
    float score_cap, logit_cap, embed_scale, residual_scale, score_scale, logit_scale;
    int flags;
} gguf_family;

static const gguf_family gguf_families[] = {
    {"llama", "llama", 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, GGUF_OLD},
    {"mistral", "mistral", 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, GGUF_OLD},
    {"qwen2", "qwen2", 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, GGUF_OLD},
    {"qwen3", "qwen3", 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, GGUF_OLD},
    {"gpt2", "gpt2", 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, GGUF_OLD},
    {"cs336", "cs336", 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, GGUF_OLD},
    {"mistral-window", "mistral", 2, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0},
    {"phi2", "phi2", 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0},
    {"phi2-fused", "phi2", 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, GGUF_FUSED_QKV},
    {"phi3", "phi3", 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, GGUF_FUSED_QKV},
    {"phi3-window", "phi3", 2, 0, 24, 0, 0, 0, 0, 0, 0, 0, GGUF_FUSED_QKV},
    {"phi3-long", "phi3", 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, GGUF_FUSED_QKV | GGUF_LONG_ROPE},
    {"gemma", "gemma", 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
    {"gemma2", "gemma2", 2, 0, 24, 0, 4, 3, 0, 0, 0, 0, 0},
    {"gemma3", "gemma3", 7, 0, 20, 0, 0, 0, 0, 0, 0, 0, GGUF_LINEAR},
    {"olmo2", "olmo2", 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
    {"olmo3", "olmo2", 4, 0, 24, 0, 0, 0, 0, 0, 0, 0, GGUF_LINEAR},
    {"granite", "granite", 2, 0, 0, 0, 0, 0, 6, 0.25f, 0.125f, 4, 0},
    {"starcoder2", "starcoder2", 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
    {"gptneox", "gptneox", 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, GGUF_PARALLEL},
    {"gptneox-serial", "gptneox", 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0},
    {"stablelm", "stablelm", 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, GGUF_FFN_NORM | GGUF_BIASES},
    {"stablelm-12b", "stablelm", 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, GGUF_QK_NORM},
    {"smollm3", "smollm3", 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
    {"bitnet", "bitnet", 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, GGUF_SCALES},
    {"bitnet-relu2", "bitnet", 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, GGUF_RELU2},
    {"internlm2", "internlm2", 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
    {"exaone", "exaone", 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
    {"exaone4", "exaone4", 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
    {"exaone4-window", "exaone4", 4, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0},
    {"command-r", "command-r", 2, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0},
    {"command-r-plus", "command-r", 2, 0, 0, 0, 0, 0, 0, 0, 0, 0.5f, GGUF_QK_NORM},
    {"cohere2", "cohere2", 4, 0, 24, 0, 0, 0, 0, 0, 0, 0.25f, 0},
    {"mixtral", "llama", 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, GGUF_MOE},
    {"qwen2moe", "qwen2moe", 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, GGUF_MOE},
    {"qwen3moe", "qwen3moe", 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, GGUF_MOE},
    {"olmoe", "olmoe", 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, GGUF_MOE},
    {"granitemoe", "granitemoe", 2, 0, 0, 0, 0, 0, 6, 0.25f, 0.125f, 4, GGUF_MOE},
    {"granitemoe-shared", "granitemoe", 2, 0, 0, 0, 0, 0, 6, 0.25f, 0.125f, 4,
     GGUF_MOE | GGUF_SHARED},
};
#define GGUF_N_FAMILIES ((int)(sizeof gguf_families / sizeof *gguf_families))

/* Those that have embeddings only: other tests go over them. */
static const gguf_family gguf_encoders[] = {
    {"bert", "bert", 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
    {"bert-steep", "bert", 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, GGUF_STEEP},
    {"nomic-bert", "nomic-bert", 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, GGUF_FUSED_QKV},
};
#define GGUF_N_ENCODERS ((int)(sizeof gguf_encoders / sizeof *gguf_encoders))

static const gguf_family *gguf_family_find(const char *name) {
    int i;
    for (i = 0; i < GGUF_N_ENCODERS; i++)
        if (!strcmp(name, gguf_encoders[i].name)) return &gguf_encoders[i];
    for (i = 0; i < GGUF_N_FAMILIES; i++)
        if (!strcmp(name, gguf_families[i].name)) return &gguf_families[i];
    return NULL;
}

enum { GGUF_NO_VOCAB, GGUF_SPM, GGUF_BPE, GGUF_WPM };

typedef struct gguf_model_params {
    const gguf_family *family;
    const char *arch; /* of the family */
    int type;         /* of the matrices; vectors are F32 */
    int version;
    int n_vocab, n_ctx, n_embd, n_layers, n_heads, n_kv_heads, head_dim, n_ff;
    int n_experts, n_used, n_ff_expert, n_ff_shared; /* of a mixture of experts; else 0 */
    int apart; /* 1: a tensor an expert, as old files have them */
    int tied;  /* 1: no output.weight */
    int vocab; /* GGUF_NO_VOCAB, GGUF_SPM, GGUF_BPE, GGUF_WPM */
    uint64_t seed;
} gguf_model_params;

/* 2 layers or more, width 64: about 100,000 parameters. name: of a family. */
SM__UNUSED static gguf_model_params gguf_model_default(const char *name, int type) {
    gguf_model_params p;
    const char *arch;
    memset(&p, 0, sizeof p);
    p.family = gguf_family_find(name);
    if (!p.family) exit(3);
    arch = p.arch = p.family->arch;
    p.type = type;
    p.version = 3;
    p.n_vocab = 320;
    p.n_ctx = 128;
    p.n_embd = 64;
    p.n_layers = p.family->n_layers;
    p.n_heads = 4;
    p.n_kv_heads = strcmp(arch, "gpt2") && strcmp(arch, "cs336") && !strstr(arch, "bert") ? 2 : 4;
    p.head_dim = strncmp(arch, "qwen3", 5) ? 16 : 32; /* qwen3: not n_embd / n_heads */
    p.n_ff = 96;
    if (p.family->flags & GGUF_MOE) p.n_experts = 5, p.n_used = 3;
    if (p.n_experts) p.n_ff_expert = strncmp(arch, "qwen", 4) ? p.n_ff : 32;
    if (sm_type_get_info(type)->block_elems == 256) { /* all widths are multiples of it */
        p.n_embd = p.n_ff = 256;
        p.n_layers = p.n_layers > 2 ? p.n_layers : 1;
        p.head_dim = strncmp(arch, "qwen3", 5) ? 64 : 128;
        if (p.n_experts) p.n_ff_expert = 256;
        p.n_heads = 256 / p.head_dim;
        if (p.n_kv_heads > p.n_heads) p.n_kv_heads = p.n_heads;
    }
    if ((sm__arch_find(sm__str_of(arch))->flags & SM__ARCH_SHARED_EXPERT) ||
        (p.family->flags & GGUF_SHARED))
        p.n_ff_shared = p.n_ff;
    p.vocab = strcmp(arch, "llama") && strcmp(arch, "mistral") ? GGUF_BPE : GGUF_SPM;
    if (strstr(arch, "bert")) p.vocab = GGUF_NO_VOCAB, p.head_dim = p.n_embd / p.n_heads;
    p.tied = (sm__arch_find(sm__str_of(arch))->flags & SM__ARCH_SQRT_EMBED) ||
             !strcmp(arch, "command-r") || !strcmp(arch, "cohere2") || !strcmp(arch, "bitnet");
    p.seed = 1;
    return p;
}

static void gguf_key_real(gguf_builder *g, const char *a, const char *suffix, float v) {
    if (v != 0.0f) gguf_key_f32(g, gguf_arch_key(a, suffix), v);
}

/* What only some families have. */
static void gguf_family_keys(gguf_builder *g, const gguf_model_params *p) {
    const gguf_family *f = p->family;
    const sm__arch *arch = sm__arch_find(sm__str_of(p->arch));
    const char *a = p->arch;
    gguf_key_real(g, a, "attn_logit_softcapping", f->score_cap);
    gguf_key_real(g, a, "final_logit_softcapping", f->logit_cap);
    gguf_key_real(g, a, "embedding_scale", f->embed_scale);
    gguf_key_real(g, a, "residual_scale", f->residual_scale);
    gguf_key_real(g, a, "attention.scale", f->score_scale);
    gguf_key_real(g, a, "logit_scale", f->logit_scale);
    if (f->rot)
        gguf_key_u32(g, gguf_arch_key(a, "rope.dimension_count"),
                     (uint32_t)(p->head_dim * f->rot / 4));
    else if (p->head_dim * p->n_heads != p->n_embd || !(f->flags & GGUF_OLD))
        gguf_key_u32(g, gguf_arch_key(a, "rope.dimension_count"), (uint32_t)p->head_dim);
    if (f->window)
        gguf_key_u32(g, gguf_arch_key(a, "attention.sliding_window"), (uint32_t)f->window);
    if (f->period)
        gguf_key_u32(g, gguf_arch_key(a, "attention.sliding_window_pattern"), (uint32_t)f->period);
    if (arch->flags & SM__ARCH_MAYBE_PARALLEL)
        gguf_key_bool(g, gguf_arch_key(a, "use_parallel_residual"), f->flags & GGUF_PARALLEL);
    if (arch->flags & SM__ARCH_ENCODER) {
        gguf_key_bool(g, gguf_arch_key(a, "attention.causal"), 0);
        gguf_key_u32(g, gguf_arch_key(a, "pooling_type"), 1);
        gguf_key_u32(g, "tokenizer.ggml.token_type_count", 2);
    }
    if (f->flags & GGUF_RELU2) gguf_key_str(g, gguf_arch_key(a, "hidden_activation"), "relu2");
    if (f->flags & GGUF_LINEAR) {
        gguf_key_f32(g, gguf_arch_key(a, "rope.freq_base"), 160000.0f);
        gguf_key_str(g, gguf_arch_key(a, "rope.scaling.type"), "linear");
        gguf_key_f32(g, gguf_arch_key(a, "rope.scaling.factor"), 8.0f);
    }
    if (f->flags & GGUF_LONG_ROPE) {
        gguf_key_f32(g, gguf_arch_key(a, "rope.scaling.attn_factor"), 1.25f);
        gguf_key_u32(g, gguf_arch_key(a, "rope.scaling.original_context_length"), 32);
    }
    if (!(f->flags & GGUF_OLD))
        gguf_key_u32(g, gguf_arch_key(a, "vocab_size"), (uint32_t)p->n_vocab);
    if (!p->n_experts) return;
    gguf_key_u32(g, gguf_arch_key(a, "expert_count"), (uint32_t)p->n_experts);
    gguf_key_u32(g, gguf_arch_key(a, "expert_used_count"), (uint32_t)p->n_used);
    if (!strncmp(a, "qwen", 4))
        gguf_key_u32(g, gguf_arch_key(a, "expert_feed_forward_length"), (uint32_t)p->n_ff_expert);
    if (p->n_ff_shared)
        gguf_key_u32(g, gguf_arch_key(a, "expert_shared_feed_forward_length"),
                     (uint32_t)p->n_ff_shared);
}

static void gguf_model_keys(gguf_builder *g, const gguf_model_params *p) {
    const sm__arch *arch = sm__arch_find(sm__str_of(p->arch));
    const char *a = p->arch;
    gguf_key_str(g, "general.architecture", a);
    gguf_key_str(g, "general.name", "random");
    gguf_key_u32(g, gguf_arch_key(a, "block_count"), (uint32_t)p->n_layers);
    gguf_key_u32(g, gguf_arch_key(a, "context_length"), (uint32_t)p->n_ctx);
    gguf_key_u32(g, gguf_arch_key(a, "embedding_length"), (uint32_t)p->n_embd);
    gguf_key_u32(g, gguf_arch_key(a, "feed_forward_length"), (uint32_t)p->n_ff);
    gguf_key_u32(g, gguf_arch_key(a, "attention.head_count"), (uint32_t)p->n_heads);
    gguf_key_u32(g, gguf_arch_key(a, "attention.head_count_kv"), (uint32_t)p->n_kv_heads);
    if (p->head_dim * p->n_heads != p->n_embd) {
        gguf_key_u32(g, gguf_arch_key(a, "attention.key_length"), (uint32_t)p->head_dim);
        gguf_key_u32(g, gguf_arch_key(a, "attention.value_length"), (uint32_t)p->head_dim);
    }
    gguf_key_f32(g,
                 gguf_arch_key(a, arch->norm == SM__NORM_RMS ? "attention.layer_norm_rms_epsilon"
                                                             : "attention.layer_norm_epsilon"),
                 1e-5f);
    gguf_family_keys(g, p);
    if (p->vocab == GGUF_NO_VOCAB && (arch->flags & SM__ARCH_ENCODER))
        gguf_key_str(g, "tokenizer.ggml.model", "none");
    if (p->vocab == GGUF_SPM) gguf_vocab_spm(g, p->n_vocab);
    if (p->vocab == GGUF_BPE) gguf_vocab_bpe(g, p->n_vocab);
    if (p->vocab == GGUF_WPM) gguf_vocab_wpm(g, p->n_vocab);
}

/* As in real files, a model of one K-quant has matrices of other types: of another K-quant, and of
 * a type that wants its activations in other blocks. */
static int gguf_matrix_type(const gguf_model_params *p, const char *stem) {
    if (!strncmp(stem, "ffn_gate_inp", 12)) return SM_TYPE_F32; /* routers */
    if (p->type == SM_TYPE_Q4_K && (!strcmp(stem, "attn_v") || !strncmp(stem, "ffn_down", 8)))
        return SM_TYPE_Q6_K;
    if (p->type == SM_TYPE_Q5_K && !strcmp(stem, "attn_k")) return SM_TYPE_Q8_0;
    if (p->type == SM_TYPE_Q5_K && !strncmp(stem, "ffn_up", 6)) return SM_TYPE_F16;
    return p->type;
}

/* A matrix of layer `layer` (-1: of none) with its bias, or `count` of them in a tensor (0: of two
 * dimensions); activations roughly keep their size. */
static void gguf_model_matrices(gguf_builder *g, const gguf_model_params *p, int layer,
                                const char *stem, int n, int k, int count, int bias) {
    char name[SM__MAX_NAME + 1], prefix[16] = "";
    float scale = 0.5f;
    while (scale * scale * (float)k > 2.0f) scale *= 0.5f;
    /* queries and keys that choose among the keys */
    if (!(p->family->flags & GGUF_OLD) && !strncmp(stem, "attn_", 5) && strchr("qk", stem[5]))
        scale *= 2.0f;
    if (!strncmp(stem, "ffn_gate_inp", 12)) scale *= 4.0f; /* and routers that choose */
    if ((p->family->flags & GGUF_STEEP) && !strcmp(stem, "ffn_up")) scale *= 1024.0f;
    if (layer >= 0) snprintf(prefix, sizeof prefix, "blk.%d.", layer);
    snprintf(name, sizeof name, "%s%s.weight", prefix, stem);
    gguf_tensors(g, name, gguf_matrix_type(p, stem), k, n, count, 0.0f, scale);
    snprintf(name, sizeof name, "%s%s.bias", prefix, stem);
    if (bias) gguf_tensor(g, name, SM_TYPE_F32, n, 0, 0.0f, 0.125f);
    snprintf(name, sizeof name, "%s%s.scale", prefix, stem);
    if ((p->family->flags & GGUF_SCALES) && layer >= 0)
        gguf_tensor(g, name, SM_TYPE_F32, 1, 0, 1.0f, 0.5f);
}

static void gguf_model_matrix(gguf_builder *g, const gguf_model_params *p, int layer,
                              const char *stem, int n, int k, int bias) {
    gguf_model_matrices(g, p, layer, stem, n, k, 0, bias);
}

static void gguf_model_norm(gguf_builder *g, int layer, const char *stem, int n, int bias) {
    char name[SM__MAX_NAME + 1], prefix[16] = "";
    if (layer >= 0) snprintf(prefix, sizeof prefix, "blk.%d.", layer);
    snprintf(name, sizeof name, "%s%s.weight", prefix, stem);
    gguf_tensor(g, name, SM_TYPE_F32, n, 0, 1.0f, 0.25f);
    snprintf(name, sizeof name, "%s%s.bias", prefix, stem);
    if (bias) gguf_tensor(g, name, SM_TYPE_F32, n, 0, 0.0f, 0.125f);
}

/* A norm's weights [rows, n] of a layer, without a bias. */
static void gguf_model_norms(gguf_builder *g, int layer, const char *stem, int n, int rows) {
    char name[SM__MAX_NAME + 1];
    snprintf(name, sizeof name, "blk.%d.%s.weight", layer, stem);
    gguf_tensor(g, name, SM_TYPE_F32, n, rows, 1.0f, 0.25f);
}

static void gguf_model_qkv(gguf_builder *g, const gguf_model_params *p, int i) {
    int flags = sm__arch_find(sm__str_of(p->arch))->flags, some = p->family->flags;
    int bias = (flags & (SM__ARCH_BIAS | SM__ARCH_QKV_BIAS)) || (some & GGUF_BIASES);
    int c = p->n_embd, q = p->n_heads * p->head_dim, kv = p->n_kv_heads * p->head_dim;
    if ((flags & SM__ARCH_FUSED_QKV) || (some & GGUF_FUSED_QKV)) {
        gguf_model_matrix(g, p, i, "attn_qkv", q + 2 * kv, c, bias);
    } else {
        gguf_model_matrix(g, p, i, "attn_q", q, c, bias);
        gguf_model_matrix(g, p, i, "attn_k", kv, c, bias);
        gguf_model_matrix(g, p, i, "attn_v", kv, c, bias);
    }
    if (flags & SM__ARCH_QK_NORM) {
        gguf_model_norm(g, i, "attn_q_norm", p->head_dim, 0);
        gguf_model_norm(g, i, "attn_k_norm", p->head_dim, 0);
    } else if (flags & SM__ARCH_QK_NORM_ROW) {
        gguf_model_norm(g, i, "attn_q_norm", q, 0);
        gguf_model_norm(g, i, "attn_k_norm", kv, 0);
    } else if (some & GGUF_QK_NORM) {
        gguf_model_norms(g, i, "attn_q_norm", p->head_dim, p->n_heads);
        gguf_model_norms(g, i, "attn_k_norm", p->head_dim, p->n_kv_heads);
    }
}

static void gguf_model_experts(gguf_builder *g, const gguf_model_params *p, int layer,
                               const char *stem, int n, int k) {
    char name[SM__MAX_NAME + 1];
    int i;
    snprintf(name, sizeof name, "%s_exps", stem);
    if (!p->apart) gguf_model_matrices(g, p, layer, name, n, k, p->n_experts, 0);
    for (i = 0; p->apart && i < p->n_experts; i++) {
        snprintf(name, sizeof name, "%s.%d", stem, i);
        gguf_model_matrix(g, p, layer, name, n, k, 0);
    }
}

static void gguf_model_mixture(gguf_builder *g, const gguf_model_params *p, int i) {
    int c = p->n_embd, f = p->n_ff_expert, s = p->n_ff_shared;
    gguf_model_matrix(g, p, i, "ffn_gate_inp", p->n_experts, c, 0);
    gguf_model_experts(g, p, i, "ffn_gate", f, c);
    gguf_model_experts(g, p, i, "ffn_up", f, c);
    gguf_model_experts(g, p, i, "ffn_down", c, f);
    if (!s) return;
    if (!(p->family->flags & GGUF_SHARED))
        gguf_model_matrix(g, p, i, "ffn_gate_inp_shexp", 0, c, 0);
    gguf_model_matrix(g, p, i, "ffn_gate_shexp", s, c, 0);
    gguf_model_matrix(g, p, i, "ffn_up_shexp", s, c, 0);
    gguf_model_matrix(g, p, i, "ffn_down_shexp", c, s, 0);
}

static void gguf_model_ffn(gguf_builder *g, const gguf_model_params *p, int i) {
    const sm__arch *arch = sm__arch_find(sm__str_of(p->arch));
    int bias = (arch->flags & SM__ARCH_BIAS) != 0, fused = arch->flags & SM__ARCH_FUSED_GATE;
    int c = p->n_embd, f = p->n_ff;
    if (sm__ffn_gated(arch->ffn) && !fused) gguf_model_matrix(g, p, i, "ffn_gate", f, c, bias);
    gguf_model_matrix(g, p, i, "ffn_up", fused ? 2 * f : f, c, bias);
    if (arch->flags & SM__ARCH_SUB_NORM) gguf_model_norm(g, i, "ffn_sub_norm", f, 0);
    gguf_model_matrix(g, p, i, "ffn_down", c, f, bias);
}

static void gguf_model_layer(gguf_builder *g, const gguf_model_params *p, int i) {
    const sm__arch *arch = sm__arch_find(sm__str_of(p->arch));
    int flags = arch->flags, some = p->family->flags;
    int bias = (flags & SM__ARCH_BIAS) != 0, norm_bias = (flags & SM__ARCH_NORM_BIAS) != 0;
    int c = p->n_embd, q = p->n_heads * p->head_dim;
    if (!(flags & SM__ARCH_NO_PRE_NORM)) gguf_model_norm(g, i, "attn_norm", c, norm_bias);
    gguf_model_qkv(g, p, i);
    if (flags & SM__ARCH_SUB_NORM) gguf_model_norm(g, i, "attn_sub_norm", q, 0);
    gguf_model_matrix(g, p, i, "attn_output", c, q, bias);
    if (flags & SM__ARCH_POST_NORM) gguf_model_norm(g, i, "post_attention_norm", c, 0);
    if (!(flags & (SM__ARCH_NO_PRE_NORM | SM__ARCH_PARALLEL | SM__ARCH_MAYBE_FFN_NORM)) ||
        (some & GGUF_FFN_NORM))
        gguf_model_norm(g, i, "ffn_norm", c, norm_bias);
    if (p->n_experts) gguf_model_mixture(g, p, i);
    else gguf_model_ffn(g, p, i);
    if (flags & SM__ARCH_ENCODER) gguf_model_norm(g, i, "attn_output_norm", c, 1);
    if (flags & SM__ARCH_ENCODER) gguf_model_norm(g, i, "layer_output_norm", c, 1);
    if (flags & SM__ARCH_POST_NORM) gguf_model_norm(g, i, "post_ffw_norm", c, 0);
}

/* All of a model but gguf_finish, so that a test can add keys and tensors. */
static gguf_builder gguf_model_begin(const gguf_model_params *p) {
    gguf_builder g = gguf_make(p->version);
    const sm__arch *arch = sm__arch_find(sm__str_of(p->arch));
    int i;
    if (!arch) exit(3);
    g.random = p->seed;
    gguf_model_keys(&g, p);
    gguf_model_matrix(&g, p, -1, "token_embd", p->n_vocab, p->n_embd, 0);
    if (arch->pos == SM__POS_LEARNED)
        gguf_model_matrix(&g, p, -1, "position_embd", p->n_ctx, p->n_embd, 0);
    if (p->family->flags & GGUF_LONG_ROPE) {
        int n = p->head_dim * p->family->rot / 8;
        gguf_tensor(&g, "rope_factors_short.weight", SM_TYPE_F32, n, 0, 1.25f, 0.25f);
        gguf_tensor(&g, "rope_factors_long.weight", SM_TYPE_F32, n, 0, 4.0f, 2.0f);
    }
    for (i = 0; i < p->n_layers; i++) gguf_model_layer(&g, p, i);
    if (arch->flags & SM__ARCH_ENCODER) {
        gguf_model_norm(&g, -1, "token_embd_norm", p->n_embd, 1);
        gguf_tensor(&g, "token_types.weight", SM_TYPE_F32, p->n_embd, 2, 0.0f, 0.5f);
        return g;
    }
    gguf_model_norm(&g, -1, "output_norm", p->n_embd, (arch->flags & SM__ARCH_NORM_BIAS) != 0);
    if (!p->tied)
        gguf_model_matrix(&g, p, -1, "output", p->n_vocab, p->n_embd,
                          (arch->flags & SM__ARCH_OUTPUT_BIAS) != 0);
    return g;
}

static uint8_t *gguf_model(const gguf_model_params *p, size_t *bytes) {
    gguf_builder g = gguf_model_begin(p);
    return gguf_finish(&g, bytes);
}

#ifdef CHECK /* in test.c */
/* An open model (a copy: it needs no file) with the tests' allocator. NULL and a failed check when
 * that goes wrong. */
SM__UNUSED static sm_model *gguf_model_open(const gguf_model_params *p) {
    sm_model_params params = sm_model_default();
    sm_model *m = NULL;
    sm_error error;
    size_t bytes;
    uint8_t *file = gguf_model(p, &bytes);
    params.file.data = file;
    params.file.bytes = bytes;
    params.load = SM_LOAD_COPY;
    params.allocator = heap_allocator();
    if (sm_model_open(&params, &m, &error)) FAIL("%s %d: %s", p->arch, p->type, error.text);
    free(file);
    return m;
}

/* ---- vocabularies without a model ---- */

/* A tokenizer.json or tiktoken file in memory. */
SM__UNUSED static sm_status words_open(const char *text, const char *pre, sm_model **m,
                                       sm_error *error) {
    sm_model_params p = sm_model_default();
    p.tokenizer.data = text;
    p.tokenizer.bytes = strlen(text);
    p.vocab_only = 1;
    p.pre = pre;
    p.allocator = heap_allocator();
    return sm_model_open(&p, m, error);
}

SM__UNUSED static sm_tokenizer *tokenizer_make(const sm_model *m, size_t max_text) {
    sm_allocator a = heap_allocator();
    sm_tokenizer *t = NULL;
    CHECK_STATUS(sm_tokenizer_create(m, max_text, &a, &t, NULL), SM_OK);
    return t;
}

/* A vocabulary made by hand. */
typedef struct toy {
    int kind; /* SM__VOCAB_* */
    sm__str tokens[640];
    float scores[640];
    uint8_t kinds[640];
    char text[640][8]; /* of tokens that toy_bytes adds */
    sm__str merges[8];
    sm__vocab v; /* ids and flags */
} toy;

SM__UNUSED static toy *toy_new(int kind) {
    toy *y = (toy *)calloc(1, sizeof *y);
    if (!y) exit(3);
    y->kind = kind;
    y->v.bos = y->v.eos = y->v.eot = y->v.unk = y->v.pad = y->v.sep = y->v.whole = -1;
    y->v.add_bos = y->v.add_eos = y->v.add_space_prefix = -1;
    y->v.pre.p = "gpt-2";
    y->v.pre.n = 5;
    return y;
}

SM__UNUSED static int toy_add_n(toy *y, const char *text, size_t n, int kind, float score) {
    y->tokens[y->v.n].p = text;
    y->tokens[y->v.n].n = n;
    y->kinds[y->v.n] = (uint8_t)kind;
    y->scores[y->v.n] = score;
    return y->v.n++;
}

SM__UNUSED static int toy_add(toy *y, const char *text, int kind, float score) {
    return toy_add_n(y, text, strlen(text), kind, score);
}

/* The 256 bytes: "<0xHH>" for SPM, GPT-2's characters for BPE, so that byte b has id b in an empty
 * vocabulary. */
SM__UNUSED static void toy_bytes(toy *y) {
    int b;
    for (b = 0; b < 256; b++) {
        char *s = y->text[y->v.n];
        if (y->kind == SM__VOCAB_SPM) snprintf(s, 8, b & 1 ? "<0x%02X>" : "<0x%02x>", (unsigned)b);
        else s[gguf_bpe_byte(b, s)] = 0;
        toy_add(y, s, y->kind == SM__VOCAB_SPM ? SM__TOKEN_BYTE : SM__TOKEN_NORMAL, 0.0f);
    }
}

SM__UNUSED static void toy_merge(toy *y, const char *line) {
    y->merges[y->v.n_merges].p = line;
    y->merges[y->v.n_merges++].n = strlen(line);
}

/* Makes the model; the lists are copied into its memory as a reader would have it. */
SM__UNUSED static sm_status toy_open(const toy *y, sm_model **model, sm_error *error) {
    sm_allocator a = heap_allocator();
    sm__heap memory = sm__heap_make(&a);
    sm_model *m = (sm_model *)sm__heap_alloc(&memory, sizeof *m);
    sm__vocab *v;
    sm_status status = SM_ERR_NOMEM;
    size_t n = (size_t)y->v.n;
    *model = NULL;
    if (!m) return status;
    memset(m, 0, sizeof *m);
    m->heap = memory;
    m->vocab = y->v;
    v = &m->vocab;
    v->kind = y->kind;
    v->tokens = (sm__str *)sm__model_alloc(m, n, sizeof *v->tokens);
    v->scores = (float *)sm__model_alloc(m, n, sizeof *v->scores);
    v->kinds = (uint8_t *)sm__model_alloc(m, n, 1);
    v->merges = (sm__str *)sm__model_alloc(m, (size_t)y->v.n_merges, sizeof *v->merges);
    if (v->tokens && v->scores && v->kinds && v->merges) {
        memcpy(v->tokens, y->tokens, n * sizeof *v->tokens);
        memcpy(v->scores, y->scores, n * sizeof *v->scores);
        memcpy(v->kinds, y->kinds, n);
        memcpy(v->merges, y->merges, (size_t)y->v.n_merges * sizeof *v->merges);
        status = sm__vocab_build(m, error);
    }
    if (status) sm_model_close(m);
    else *model = m;
    return status;
}

SM__UNUSED static sm_model *toy_model(const toy *y) {
    sm_model *m = NULL;
    sm_error error;
    if (toy_open(y, &m, &error)) FAIL("%s", error.text);
    return m;
}
#endif
