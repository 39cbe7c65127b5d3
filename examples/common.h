/* common.h - what the example programs and bench/ share: text that is the same in every locale, and
 * arguments that are checked. The Makefile sets HAVE_STB where the system has stb_sprintf; without
 * it libc formats. A program defines `usage` (a string) before it includes this file, and
 * COMMON_SAMPLING when it takes the options of sampling too. */
#ifndef COMMON_H
#define COMMON_H

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef HAVE_STB
#define STB_SPRINTF_IMPLEMENTATION
#define STB_SPRINTF_NOUNALIGNED
#include <stb_sprintf.h>
#define COMMON_VSNPRINTF(buf, n, fmt, args) stbsp_vsnprintf(buf, (int)(n), fmt, args)
#else
#define COMMON_VSNPRINTF(buf, n, fmt, args) vsnprintf(buf, n, fmt, args)
#endif

#ifndef COMMON_LINKED /* the Makefile compiles the implementation once, for all programs */
#define SMALLMIND_IMPLEMENTATION
#endif
#include "../smallmind.h"

#if defined(__GNUC__) || defined(__clang__)
#define COMMON_PRINTF(f, a) __attribute__((format(printf, f, a), unused))
#define COMMON_UNUSED __attribute__((unused))
#else
#define COMMON_PRINTF(f, a)
#define COMMON_UNUSED
#endif
#ifdef _WIN32
#define isatty(file) 0
#else
#include <unistd.h>
#endif

/* Text into buf [n], cut to fit. */
COMMON_PRINTF(3, 4) static void format(char *buf, size_t n, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    COMMON_VSNPRINTF(buf, n, fmt, args);
    va_end(args);
}

/* printf to a file; one call prints at most 2,047 bytes. */
COMMON_PRINTF(2, 3) static void say(FILE *file, const char *fmt, ...) {
    char buf[2048];
    va_list args;
    va_start(args, fmt);
    COMMON_VSNPRINTF(buf, sizeof buf, fmt, args);
    va_end(args);
    fwrite(buf, 1, strlen(buf), file);
}

#ifdef COMMON_SAMPLING
static const char sampling_usage[] =
    "sampling, 0 = off where nothing else is said:\n"
    "  --temp T                temperature, 0 = greedy  --seed S           random numbers (1)\n"
    "  --dynatemp-range R      temperature +- R         --dynatemp-exp E   its exponent (1)\n"
    "  --top-k K               the K most likely        --top-p P          nucleus, 0..1\n"
    "  --min-p P               share of the best        --typical P        locally typical\n"
    "  --top-nsigma N          deviations of logits     --min-keep N       never fewer (1)\n"
    "  --xtc-probability P     exclude top choices      --xtc-threshold T  above T (0.1)\n"
    "  --mirostat 0|1|2        version                  --mirostat-ent T   surprise, bits (5)\n"
    "  --mirostat-lr R         rate (0.1)               --repeat-last-n N  window (64)\n"
    "  --repeat-penalty P      divides logits           --presence-penalty P     subtracted\n"
    "  --frequency-penalty P   for each time\n"
    "  --dry-multiplier M      of repetitions           --dry-base B       (1.75)\n"
    "  --dry-allowed-length N  (2)                      --dry-penalty-last-n N  window (0 = all)\n"
    "  --dry-sequence-breaker TEXT  none, or one more; \\n is a line's end (\\n : \" *)\n"
    "  --logit-bias ID+V, ID-V, ID-inf                  --samplers A;B;C   stages in this order\n"
    "  --logprobs N            with N alternatives      --stop TEXT        ends the text\n"
    "what the text must be (one of these):\n"
    "  --grammar FILE.gbnf     --schema FILE.json       --regex PATTERN    --choice TEXT ...\n";
#else
static const char sampling_usage[] = "";
#endif

/* A message, what the program takes, and out with status 2. */
COMMON_PRINTF(1, 2) static void arg_fail(const char *fmt, ...) {
    char buf[1024];
    va_list args;
    va_start(args, fmt);
    COMMON_VSNPRINTF(buf, sizeof buf, fmt, args);
    va_end(args);
    say(stderr, "%s\n%s", buf, usage);
    say(stderr, "%s", sampling_usage);
    exit(2);
}

/* The value after the option argv[*i]. */
COMMON_UNUSED static const char *arg_text(int argc, char **argv, int *i) {
    if (*i + 1 >= argc) arg_fail("%s needs a value", argv[*i]);
    return argv[++*i];
}

COMMON_UNUSED static int arg_int(int argc, char **argv, int *i, int lowest, int highest) {
    const char *name = argv[*i], *text = arg_text(argc, argv, i);
    char *end;
    long value;
    errno = 0;
    value = strtol(text, &end, 10);
    if (end == text || *end || errno || value < lowest || value > highest)
        arg_fail("%s wants a whole number from %d to %d, not \"%s\"", name, lowest, highest, text);
    return (int)value;
}

COMMON_UNUSED static float arg_float(int argc, char **argv, int *i, double lowest, double highest) {
    const char *name = argv[*i], *text = arg_text(argc, argv, i);
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= lowest && value <= highest))
        arg_fail("%s wants a number from %g to %g, not \"%s\"", name, lowest, highest, text);
    return (float)value;
}

COMMON_UNUSED static uint64_t arg_seed(int argc, char **argv, int *i) {
    const char *name = argv[*i], *text = arg_text(argc, argv, i);
    char *end;
    unsigned long long value;
    errno = 0;
    value = strtoull(text, &end, 0);
    if (end == text || *end || errno || *text == '-')
        arg_fail("%s wants a whole number, not \"%s\"", name, text);
    return value;
}

/* A whole file and a NUL behind it, from malloc; NULL when it cannot be read. */
COMMON_UNUSED static char *read_file(const char *path, size_t *bytes) {
    FILE *file = fopen(path, "rb");
    long size = file && !fseek(file, 0, SEEK_END) ? ftell(file) : -1;
    char *data = size >= 0 ? (char *)malloc((size_t)size + 1) : NULL;
    *bytes = data && !fseek(file, 0, SEEK_SET) ? fread(data, 1, (size_t)size, file) : 0;
    if (file) fclose(file);
    if (data) data[*bytes] = 0;
    if (data && *bytes == (size_t)size) return data;
    free(data);
    return NULL;
}

#ifdef COMMON_SAMPLING
/* Options of sampling, and where their lists lie. */
typedef struct sampling {
    sm_gen_params *gen;
    sm_bias biases[64];
    const char *stops[SMALLMIND_MAX_STOPS], *breakers[SMALLMIND_MAX_BREAKERS];
    const char *grammar_file, *choices[64]; /* of --grammar and --schema; of --choice */
    sm_grammar_params grammar;
    sm_grammar *made;
    sm_trie *trie;
} sampling;

static const struct {
    const char *name;
    char kind; /* f: float, i: int */
    size_t at; /* in sm_sampler */
    double low, high;
} sampling_numbers[] = {
#define NUMBER(name, kind, field, low, high) {name, kind, offsetof(sm_sampler, field), low, high}
    NUMBER("--temp", 'f', temperature, 0, 100),
    NUMBER("--dynatemp-range", 'f', dynatemp_range, 0, 100),
    NUMBER("--dynatemp-exp", 'f', dynatemp_exponent, 0, 100),
    NUMBER("--top-k", 'i', top_k, 0, 1 << 30),
    NUMBER("--top-p", 'f', top_p, 0, 1),
    NUMBER("--min-p", 'f', min_p, 0, 1),
    NUMBER("--typical", 'f', typical_p, 0, 1),
    NUMBER("--top-nsigma", 'f', top_n_sigma, -1, 1000),
    NUMBER("--min-keep", 'i', min_keep, 0, 1 << 30),
    NUMBER("--xtc-probability", 'f', xtc_probability, 0, 1),
    NUMBER("--xtc-threshold", 'f', xtc_threshold, 0, 1),
    NUMBER("--mirostat", 'i', mirostat, 0, 2),
    NUMBER("--mirostat-ent", 'f', mirostat_tau, 0, 1000),
    NUMBER("--mirostat-lr", 'f', mirostat_eta, 0, 1000),
    NUMBER("--repeat-penalty", 'f', repeat_penalty, 0, 1000),
    NUMBER("--repeat-last-n", 'i', repeat_window, 0, 1 << 30),
    NUMBER("--presence-penalty", 'f', presence_penalty, -1000, 1000),
    NUMBER("--frequency-penalty", 'f', frequency_penalty, -1000, 1000),
    NUMBER("--dry-multiplier", 'f', dry_multiplier, 0, 1000),
    NUMBER("--dry-base", 'f', dry_base, 0, 1000),
    NUMBER("--dry-allowed-length", 'i', dry_allowed_length, 0, 1 << 30),
    NUMBER("--dry-penalty-last-n", 'i', dry_window, 0, 1 << 30)
#undef NUMBER
};

/* \n, \r, \t and \\ as what they mean, in place. */
static char *arg_unescape(char *text) {
    static const char from[] = "nrt\\", to[] = "\n\r\t\\";
    char *in, *out = text;
    for (in = text; *in; in++) {
        const char *known = in[0] == '\\' && in[1] ? strchr(from, in[1]) : NULL;
        *out++ = known ? to[known - from] : *in;
        in += known != NULL;
    }
    *out = 0;
    return text;
}

static void arg_bias(const char *text, sampling *s) {
    char *end, *last;
    long id = strtol(text, &end, 10);
    double bias = strtod(end, &last);
    if (end == text || (*end != '+' && *end != '-') || last == end || *last || bias != bias ||
        id < 0 || id > 1 << 30)
        arg_fail("--logit-bias wants ID+VALUE or ID-VALUE, not \"%s\"", text);
    if (s->gen->sampler.n_biases == 64) arg_fail("--logit-bias: at most 64");
    s->biases[s->gen->sampler.n_biases].id = (int32_t)id;
    s->biases[s->gen->sampler.n_biases++].bias = (float)bias;
    s->gen->sampler.biases = s->biases;
}

/* Names of stages with ; between them. */
static void arg_order(const char *text, sm_sampler *s) {
    int n = 0, stage;
    memset(s->order, 0, sizeof s->order);
    while (*text) {
        size_t bytes = strcspn(text, ";,");
        for (stage = 1; stage < SM_STAGE_COUNT; stage++) {
            const char *name = sm_stage_name(stage);
            if (strlen(name) == bytes && !memcmp(name, text, bytes)) break;
        }
        if (stage == SM_STAGE_COUNT || n == SMALLMIND_MAX_STAGES - 1)
            arg_fail("--samplers wants penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;"
                     "temperature in any order, at most %d, not \"%s\"",
                     SMALLMIND_MAX_STAGES - 1, text);
        s->order[n++] = (uint8_t)stage;
        text += bytes + (text[bytes] != 0);
    }
}

/* Whether argv[*i] is an option of grammars; then it is done. */
static int arg_grammar(int argc, char **argv, int *i, sampling *s) {
    const char *name = argv[*i];
    if (!strcmp(name, "--grammar") || !strcmp(name, "--schema")) {
        s->grammar.kind = name[2] == 'g' ? SM_GRAMMAR_GBNF : SM_GRAMMAR_JSON_SCHEMA;
        s->grammar_file = arg_text(argc, argv, i);
    } else if (!strcmp(name, "--regex")) {
        s->grammar.kind = SM_GRAMMAR_REGEX;
        s->grammar.text = arg_text(argc, argv, i);
    } else if (!strcmp(name, "--choice")) {
        if (s->grammar.n_choices == 64) arg_fail("--choice: at most 64");
        s->grammar.kind = SM_GRAMMAR_CHOICES;
        s->choices[s->grammar.n_choices++] = arg_text(argc, argv, i);
        s->grammar.choices = s->choices;
    } else return 0;
    return 1;
}

/* Makes the grammar that was asked for, and the trie that a context needs for it. */
static sm_status open_grammar(const sm_model *model, sampling *s, sm_ctx_params *cp,
                              sm_error *error) {
    char *text = NULL;
    sm_status status;
    if (!s->grammar_file && !s->grammar.text && !s->grammar.n_choices) return SM_OK;
    if (s->grammar_file) {
        text = read_file(s->grammar_file, &s->grammar.bytes);
        if (!text) arg_fail("%s: cannot be read", s->grammar_file);
        s->grammar.text = text;
    }
    status = sm_grammar_create(&s->grammar, &s->made, error);
    free(text);
    if (!status) status = sm_trie_create(model, NULL, &s->trie, error);
    cp->trie = s->trie;
    s->gen->grammar = s->made;
    return status;
}

static void close_grammar(sampling *s) {
    sm_grammar_destroy(s->made);
    sm_trie_destroy(s->trie);
}

/* Whether argv[*i] is an option of sampling; then it is done. */
static int arg_sampling(int argc, char **argv, int *i, sampling *s) {
    const char *name = argv[*i];
    sm_gen_params *p = s->gen;
    size_t k;
    for (k = 0; k < sizeof sampling_numbers / sizeof *sampling_numbers; k++) {
        double low = sampling_numbers[k].low, high = sampling_numbers[k].high;
        char *field = (char *)&p->sampler + sampling_numbers[k].at;
        if (strcmp(name, sampling_numbers[k].name)) continue;
        if (sampling_numbers[k].kind == 'f') {
            float value = arg_float(argc, argv, i, low, high);
            memcpy(field, &value, sizeof value);
        } else {
            int value = arg_int(argc, argv, i, (int)low, (int)high);
            memcpy(field, &value, sizeof value);
        }
        return 1;
    }
    if (!strcmp(name, "--seed")) p->sampler.seed = arg_seed(argc, argv, i);
    else if (!strcmp(name, "--logit-bias")) arg_bias(arg_text(argc, argv, i), s);
    else if (!strcmp(name, "--samplers")) arg_order(arg_text(argc, argv, i), &p->sampler);
    else if (!strcmp(name, "--logprobs"))
        p->n_logprobs = arg_int(argc, argv, i, 0, SMALLMIND_MAX_LOGPROBS);
    else if (!strcmp(name, "--stop")) {
        if (p->n_stops == SMALLMIND_MAX_STOPS) arg_fail("--stop: at most %d", p->n_stops);
        arg_text(argc, argv, i);
        s->stops[p->n_stops++] = arg_unescape(argv[*i]);
        p->stops = s->stops;
    } else if (!strcmp(name, "--dry-sequence-breaker")) {
        if (p->n_dry_breakers == SMALLMIND_MAX_BREAKERS)
            arg_fail("--dry-sequence-breaker: at most %d", p->n_dry_breakers);
        arg_text(argc, argv, i);
        if (!strcmp(argv[*i], "none")) return p->n_dry_breakers = -1, 1;
        if (p->n_dry_breakers < 0) p->n_dry_breakers = 0;
        s->breakers[p->n_dry_breakers++] = arg_unescape(argv[*i]);
        p->dry_breakers = s->breakers;
    } else return arg_grammar(argc, argv, i, s);
    return 1;
}
#endif

/* The name of a level of kernels. */
COMMON_UNUSED static int arg_isa(int argc, char **argv, int *i) {
    const char *text = arg_text(argc, argv, i);
    int isa;
    for (isa = SM_ISA_AUTO; isa <= SM_ISA_NEON; isa++)
        if (!strcmp(text, sm_isa_name(isa))) return isa;
    arg_fail("--isa wants auto, scalar, sse41, avx2, avx512, amx or neon, not \"%s\"", text);
    return 0;
}

/* Types of the KV cache: one for keys and values, or "keys,values". */
COMMON_UNUSED static void arg_kv(int argc, char **argv, int *i, sm_ctx_params *p) {
    static const char *const names[] = {"f32", "f16", "bf16", "q8_0", "q4_0"};
    static const int types[] = {SM_TYPE_F32, SM_TYPE_F16, SM_TYPE_BF16, SM_TYPE_Q8_0, SM_TYPE_Q4_0};
    const char *text = arg_text(argc, argv, i), *comma = strchr(text, ','), *value;
    size_t n = comma ? (size_t)(comma - text) : strlen(text);
    int t, found = 0;
    value = comma ? comma + 1 : text;
    for (t = 0; t < 5; t++) {
        if (strlen(names[t]) == n && !memcmp(text, names[t], n)) p->key_type = types[t], found++;
        if (!strcmp(value, names[t])) p->value_type = types[t], found++;
    }
    if (found < 2)
        arg_fail("--kv wants f32, f16, bf16, q8_0 or q4_0, or two for keys,values; not \"%s\"",
                 text);
}

COMMON_UNUSED static const char *type_name(int type) {
    const sm_type_info *info = sm_type_get_info(type);
    return info ? info->name : "as it was";
}

/* A type to quantise to, or a mix. */
COMMON_UNUSED static void arg_type(const char *text, sm_quantize_params *p) {
    size_t n = strlen(text);
    char name[8] = "";
    if (n > 2 && !strcmp(text + n - 2, "_S")) p->mix = SM_MIX_S;
    if (n > 2 && !strcmp(text + n - 2, "_M")) p->mix = SM_MIX_M;
    if (n > 2 && !strcmp(text + n - 2, "_L")) p->mix = SM_MIX_L;
    if (p->mix) n -= 2;
    if (n < sizeof name) memcpy(name, text, n);
    for (p->type = 63; p->type >= 0 && strcmp(name, type_name(p->type));) p->type--;
    if (p->type < 0) arg_fail("what type is \"%s\"?", text);
}

/* A context of as many tokens as params say; 0 = a prompt and n_new of them (0 = as the model has
 * it). Rotary positions reach beyond the length of the training; a model that cannot do that gets
 * the length it has. */
COMMON_UNUSED static sm_status open_ctx(const sm_model *model, sm_ctx_params params,
                                        const char *prompt, int n_new, sm_ctx **ctx,
                                        sm_error *error) {
    size_t bytes = strlen(prompt); /* a token has a byte at least */
    int set = params.n_ctx > 0;
    sm_status status;
    if (bytes < (1u << 28)) params.max_text = (int)bytes + 1;
    if (n_new && bytes < (1u << 28) && n_new < 1 << 28 && !set)
        params.n_ctx = (int)bytes + n_new + 2;
    status = sm_ctx_create(model, &params, ctx, error);
    if (status && !set && params.n_ctx > sm_model_get_info(model)->n_ctx_train) {
        params.n_ctx = 0;
        status = sm_ctx_create(model, &params, ctx, error);
    }
    return status;
}

/* Opens the adapter that --lora FILE or FILE:SCALE names, and makes room for it in a context. */
COMMON_UNUSED static sm_status open_lora(const sm_model *model, const char *text,
                                         sm_adapter **adapter, float *scale, sm_ctx_params *params,
                                         sm_error *error) {
    sm_model_params p = sm_model_default();
    const char *colon = strrchr(text, ':');
    char path[1024], *end = NULL;
    sm_status status;
    format(path, sizeof path, "%s", text);
    p.file.path = path;
    if (colon && colon - text < (int)sizeof path) {
        float value = strtof(colon + 1, &end);
        if (end != colon + 1 && !*end) path[colon - text] = 0, *scale = value; /* not C:\\file */
    }
    status = sm_adapter_open(model, &p, adapter, error);
    params->max_lora_rank = sm_adapter_rank(*adapter);
    return status;
}

#endif /* COMMON_H */
