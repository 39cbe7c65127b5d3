/* bench_kernels.c - every kernel at every level of this processor, over sizes that small models
 * have: time, bytes and operations a second, and how many times the scalar truth's speed.
 *
 *     cc -O2 bench/bench_kernels.c -o bench_kernels -lpthread
 *     ./bench_kernels --filter q8_0
 *
 * One thread. Sizes below 16 KB stay in the first cache, most others in the second; "stream" reads
 * weights that no cache holds. GB/s counts what the contract must read and write once, GFLOPS a
 * multiplication and an addition as two (an exp as one). A level without a version of its own is
 * left out. The best batch counts. */
static const char usage[] = "usage: bench_kernels [options]\n"
                            "  --filter TEXT   only kernels whose name has this in it\n"
                            "  --isa LEVEL     only this level (and scalar, to compare)\n"
                            "  --seconds S     for each row (0.03)\n"
                            "  --csv           kernel,isa,size,ns,gb_s,gflops,times_scalar\n";
#include "bench.h"

#define MAX_ROWS 64
#define MAX_DEPTH 2048
#define MAX_ELEMS (MAX_ROWS * MAX_DEPTH)
#define STREAM_BYTES ((size_t)128 << 20)

typedef struct settings {
    const char *filter;
    int isa, csv;
    double seconds;
} settings;

/* The inputs and outputs of every kernel; a row sets the sizes. */
typedef struct job {
    const sm__kernels *k;
    int type, rows, n, depth; /* matmul: [rows, depth] by [n, depth]; others: n elements */
    unsigned char *w;         /* weights of any type */
    size_t w_at, w_step;      /* w_step 0: the same weights in every call; else the next ones */
    float *x, *y, *z, *w1;    /* w1: all one, for norms and scales that may repeat */
    float *cosines, *sines;
    uint16_t *half;
    sm__acts acts;
    int8_t *q;
    float *d;
    int16_t *s;
    void *scratch;
    sm__attend_args attend;
    const void *keys[4], *values[4];
    unsigned char *kv;
    int kv_type;
    const float *queries[SM__ATTEND_ROWS];
    float *outs[SM__ATTEND_ROWS];
    int n_keys[SM__ATTEND_ROWS];
} job;

/* --- one call of each ------------------------------------------------------------------------- */

static void run_matmul(void *arg) {
    job *j = (job *)arg;
    size_t stride = sm__row_bytes(j->type, (size_t)j->depth);
    j->w_at = j->w_at + 2 * j->w_step > STREAM_BYTES ? 0 : j->w_at + j->w_step;
    j->k->matmul[j->type](j->w + j->w_at, stride, j->n, j->depth, &j->acts, j->rows, j->z,
                          (size_t)j->n, j->scratch);
}
static void run_quant(void *arg) {
    job *j = (job *)arg;
    j->k->quant(j->x, j->n, SM__QK, j->q, j->d, j->s);
}
static void run_attend(void *arg) {
    job *j = (job *)arg;
    j->k->attend_keys(j->kv_type, &j->attend);
    j->k->attend_values(j->kv_type, &j->attend);
}
static void run_merge(void *arg) {
    job *j = (job *)arg;
    float m = 0.0f, s = 1.0f;
    j->k->merge(&m, &s, j->z, 0.0f, 1.0f, j->x, j->n);
}
static void run_rms_norm(void *arg) {
    job *j = (job *)arg;
    j->k->rms_norm(j->x, j->w1, j->z, j->n, 1e-5f);
}
static void run_layer_norm(void *arg) {
    job *j = (job *)arg;
    j->k->layer_norm(j->x, j->w1, j->y, j->z, j->n, 1e-5f);
}
static void run_softmax(void *arg) { /* in place, so from a copy; the copy is timed too */
    job *j = (job *)arg;
    memcpy(j->z, j->x, (size_t)j->n * 4);
    j->k->softmax(j->z, j->n);
}
static void run_rope_pairs(void *arg) {
    job *j = (job *)arg;
    j->k->rope(j->z, j->n / 64, 64, 64, j->cosines, j->sines, 0);
}
static void run_rope_half(void *arg) {
    job *j = (job *)arg;
    j->k->rope(j->z, j->n / 64, 64, 64, j->cosines, j->sines, 1);
}
static void run_swiglu(void *arg) {
    job *j = (job *)arg;
    j->k->swiglu(j->x, j->y, j->z, j->n);
}
static void run_gelu_tanh(void *arg) {
    job *j = (job *)arg;
    j->k->gelu_tanh(j->x, j->z, j->n);
}
static void run_gelu_erf(void *arg) {
    job *j = (job *)arg;
    j->k->gelu_erf(j->x, j->z, j->n);
}
static void run_add(void *arg) {
    job *j = (job *)arg;
    j->k->add(j->x, j->z, j->n);
}
static void run_scale(void *arg) {
    job *j = (job *)arg;
    j->k->scale(j->w1, 1.0f, j->n);
}
static void run_to_f16(void *arg) {
    job *j = (job *)arg;
    j->k->to_f16(j->x, j->half, j->n);
}

/* --- the rows --------------------------------------------------------------------------------- */

static int n_printed;

/* Times one kernel of one size at every level. slot: where its pointer stands in the table, which
 * tells the levels that have their own version from those that inherit one. */
static void measure(const settings *set, job *j, const char *name, const char *size,
                    void (*fn)(void *arg), size_t slot, double bytes, double ops) {
    sm__kernels tables[SM_ISA_NEON + 1];
    double scalar_ns = 0.0;
    int isa, below = 0;
    if (set->filter && !strstr(name, set->filter)) return;
    for (isa = SM_ISA_SCALAR; isa <= SM_ISA_NEON; isa++) {
        const char *table = (const char *)&tables[isa], *last = (const char *)&tables[below];
        double ns;
        if (sm__kernels_init(&tables[isa], isa) != SM_OK) continue;
        if (below && !memcmp(table + slot, last + slot, sizeof j->k->add)) continue;
        below = isa;
        if (isa != SM_ISA_SCALAR && set->isa && isa != set->isa) continue;
        j->k = &tables[isa];
        ns = bench_time(fn, j, set->seconds) * 1e9;
        if (isa == SM_ISA_SCALAR) scalar_ns = ns;
        say(stdout,
            set->csv ? "%s,%s,%s,%.1f,%.3f,%.3f,%.2f\n"
                     : "%-14s %-7s %-18s %12.1f %9.2f %9.2f %8.2fx\n",
            name, sm_isa_name(isa), size, ns, bytes / ns, ops / ns, scalar_ns / ns);
        fflush(stdout);
        n_printed++;
    }
}

#define SLOT(member) offsetof(sm__kernels, member)

/* The activations of a matmul, as its input step would leave them. */
static void prepare_acts(job *j) {
    int t, block = sm__max(sm__types[j->type].act_block, SM__QK);
    j->acts.x = j->x;
    j->acts.x_stride = (size_t)j->depth;
    j->acts.q = j->q;
    j->acts.q_stride = sm__round_up((size_t)j->depth, SM__ALIGN);
    j->acts.d = j->d;
    j->acts.d_stride = (size_t)(j->depth / block);
    j->acts.s = j->s;
    j->acts.s_stride = (size_t)j->depth / 16;
    for (t = 0; t < j->rows; t++)
        sm__quant__scalar(j->x + (size_t)t * j->acts.x_stride, j->depth, block,
                          j->q + (size_t)t * j->acts.q_stride, j->d + (size_t)t * j->acts.d_stride,
                          j->s + (size_t)t * j->acts.s_stride);
}

static void matmul_rows(const settings *set, job *j) {
    static const struct {
        int n, depth, rows, stream;
    } sizes[] = {{64, 64, 1, 0},     {288, 288, 1, 0},   {576, 576, 1, 0},   {1536, 576, 1, 0},
                 {576, 1536, 1, 0},  {2048, 2048, 1, 0}, {2048, 2048, 1, 1}, {288, 288, 16, 0},
                 {1536, 576, 16, 0}, {576, 1536, 64, 0}, {256, 2048, 64, 0}};
    int type, i;
    for (type = 0; type < SM__N_TYPES; type++) {
        char name[32], size[40], *p;
        size_t bytes = sm__row_bytes(type, MAX_ELEMS), at;
        format(name, sizeof name, "matmul_%s", sm__types[type].info.name);
        for (p = name; *p; p++)
            if (*p >= 'A' && *p <= 'Z') *p = (char)(*p + ('a' - 'A'));
        if (set->filter && !strstr(name, set->filter)) continue;
        j->type = type;
        sm_type_encode(sm__types[type].id, j->x, j->w, MAX_ELEMS);
        for (at = bytes; at + bytes <= STREAM_BYTES; at += bytes) memcpy(j->w + at, j->w, bytes);
        for (i = 0; i < (int)(sizeof sizes / sizeof *sizes); i++) {
            double weights, rest;
            j->depth = sizes[i].depth;
            if (j->depth % sm__types[type].info.block_elems) continue;
            j->n = sizes[i].n;
            j->rows = sizes[i].rows;
            prepare_acts(j);
            weights = (double)sm__row_bytes(type, (size_t)j->depth) * j->n;
            rest = 4.0 * j->rows * (j->depth + j->n);
            j->w_at = 0;
            j->w_step = sizes[i].stream ? (size_t)weights : 0;
            format(size, sizeof size, "%dx%d r%d%s", j->n, j->depth, j->rows,
                   sizes[i].stream ? " stream" : "");
            measure(set, j, name, size, run_matmul,
                    SLOT(matmul) + (size_t)type * sizeof(sm__matmul_fn), weights + rest,
                    2.0 * j->rows * j->n * j->depth);
        }
    }
}

/* Eight blocks of 64 keys or values of width 64, numbers in [-1, 1]. */
static void fill_kv(const job *j) {
    enum { ELEMS = 64 * SM__KV_BLOCK };
    size_t bytes = sm__row_bytes(j->kv_type, ELEMS), unit = sm__kv_value(j->kv_type, ELEMS), i, b;
    uint16_t scale = sm__f32_to_f16(1.0f / 127.0f);
    for (b = 0; b < 8; b++) {
        unsigned char *block = j->kv + b * bytes;
        if (!sm__kv_scaled(j->kv_type)) {
            sm__types[j->kv_type].encode(j->x + b * ELEMS, block, ELEMS);
            continue;
        }
        for (i = 0; i < unit; i++) block[i] = (unsigned char)(i * 7919 >> 3);
        for (; i < bytes; i += 2) memcpy(block + i, &scale, 2);
    }
}

/* One KV head of width 64: a part of 64 or 256 keys, for one query row (decode) or 16. */
static void attend_rows(const settings *set, job *j) {
    static const int sizes[][2] = {{1, 64}, {1, 256}, {16, 256}}; /* rows, keys */
    static const struct {
        const char *name;
        int type;
    } kinds[] = {{"attend_f32", SM__T_F32},
                 {"attend_f16", SM__T_F16},
                 {"attend_bf16", SM__T_BF16},
                 {"attend_q8_0", SM__T_Q8_0},
                 {"attend_q4_0", SM__T_Q4_0}};
    int i, kind, t;
    for (kind = 0; kind < 5; kind++)
        for (i = 0; i < 3; i++) {
            int rows = sizes[i][0], keys = sizes[i][1];
            size_t row = sm__row_bytes(kinds[kind].type, 64), block = row * SM__KV_BLOCK;
            char size[40];
            j->kv_type = kinds[kind].type;
            fill_kv(j);
            for (t = 0; t < 4; t++) {
                j->keys[t] = j->kv + (size_t)t * block;
                j->values[t] = j->kv + (size_t)(t + 4) * block;
            }
            for (t = 0; t < rows; t++) {
                j->queries[t] = j->y + t * 64;
                j->outs[t] = j->z + t * 64;
                j->n_keys[t] = keys;
            }
            j->attend.n_q = rows;
            format(size, sizeof size, "d64 keys %d r%d", keys, rows);
            measure(set, j, kinds[kind].name, size, run_attend, SLOT(attend_keys),
                    2.0 * (double)row * keys + 8.0 * rows * 64, rows * keys * (4.0 * 64 + 4));
        }
}

static void small_rows(const settings *set, job *j) {
    static const struct {
        const char *name;
        void (*fn)(void *arg);
        size_t slot;
        double bytes, ops; /* of an element */
        int sizes[3];
    } kernels[] = {
        {"quant", run_quant, SLOT(quant), 5.25, 4, {64, 576, 2048}},
        {"merge", run_merge, SLOT(merge), 12, 3, {64, 128, 0}},
        {"rms_norm", run_rms_norm, SLOT(rms_norm), 12, 4, {64, 576, 2048}},
        {"layer_norm", run_layer_norm, SLOT(layer_norm), 16, 7, {64, 768, 2048}},
        {"softmax", run_softmax, SLOT(softmax), 8, 5, {64, 1024, 32000}},
        {"rope_pairs", run_rope_pairs, SLOT(rope), 8, 3, {64, 576, 2048}},
        {"rope_half", run_rope_half, SLOT(rope), 8, 3, {64, 576, 2048}},
        {"swiglu", run_swiglu, SLOT(swiglu), 12, 4, {192, 1536, 8192}},
        {"gelu_tanh", run_gelu_tanh, SLOT(gelu_tanh), 8, 8, {256, 3072, 8192}},
        {"gelu_erf", run_gelu_erf, SLOT(gelu_erf), 8, 8, {256, 3072, 8192}},
        {"add", run_add, SLOT(add), 12, 1, {64, 576, 8192}},
        {"scale", run_scale, SLOT(scale), 8, 1, {64, 576, 8192}},
        {"to_f16", run_to_f16, SLOT(to_f16), 6, 1, {64, 576, 8192}},
    };
    size_t i;
    int size;
    for (i = 0; i < sizeof kernels / sizeof *kernels; i++)
        for (size = 0; size < 3 && kernels[i].sizes[size]; size++) {
            char text[16];
            j->n = kernels[i].sizes[size];
            format(text, sizeof text, "%d", j->n);
            measure(set, j, kernels[i].name, text, kernels[i].fn, kernels[i].slot,
                    kernels[i].bytes * j->n, kernels[i].ops * j->n);
        }
}

static void prepare(job *j) {
    size_t i, floats = MAX_ELEMS * sizeof(float);
    memset(j, 0, sizeof *j);
    j->w = (unsigned char *)bench_alloc(STREAM_BYTES);
    j->x = (float *)bench_alloc(floats);
    j->y = (float *)bench_alloc(floats);
    j->z = (float *)bench_alloc(floats);
    j->w1 = (float *)bench_alloc(floats);
    j->cosines = (float *)bench_alloc(64 * sizeof(float));
    j->sines = (float *)bench_alloc(64 * sizeof(float));
    j->half = (uint16_t *)bench_alloc(floats);
    j->q = (int8_t *)bench_alloc(MAX_ELEMS);
    j->d = (float *)bench_alloc(floats / SM__QK);
    j->s = (int16_t *)bench_alloc(MAX_ELEMS / 16 * sizeof *j->s);
    j->scratch = bench_alloc(SM__MATMUL_SCRATCH(MAX_DEPTH));
    bench_fill(j->x, MAX_ELEMS, 1.0f, 1);
    bench_fill(j->y, MAX_ELEMS, 1.0f, 2);
    bench_fill(j->z, MAX_ELEMS, 1.0f, 3);
    for (i = 0; i < MAX_ELEMS; i++) j->w1[i] = 1.0f;
    for (i = 0; i < 64; i++) j->cosines[i] = 0.8f, j->sines[i] = 0.6f;
    for (i = 0; i < MAX_ELEMS; i++) j->half[i] = sm__f32_to_f16(j->x[i]);
    j->kv = (unsigned char *)bench_alloc(8 * 64 * SM__KV_BLOCK * sizeof(float));
    j->attend.keys = j->keys;
    j->attend.values = j->values;
    j->attend.next = j->kv;
    j->attend.q = j->queries;
    j->attend.o = j->outs;
    j->attend.n_keys = j->n_keys;
    j->attend.head_dim = 64;
    j->attend.scale = 0.125f;
    j->attend.m = (float *)bench_alloc(2 * SM__ATTEND_ROWS * sizeof(float));
    j->attend.s = j->attend.m + SM__ATTEND_ROWS;
    j->attend.scores = (float *)bench_alloc(SM__ATTEND_ROWS * SM__PART * sizeof(float));
}

int main(int argc, char **argv) {
    static job j;
    settings set;
    int i;
    memset(&set, 0, sizeof set);
    set.seconds = 0.03;
    for (i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--filter")) set.filter = arg_text(argc, argv, &i);
        else if (!strcmp(argv[i], "--isa")) set.isa = arg_isa(argc, argv, &i);
        else if (!strcmp(argv[i], "--seconds")) set.seconds = arg_float(argc, argv, &i, 0.001, 10);
        else if (!strcmp(argv[i], "--csv")) set.csv = 1;
        else arg_fail("what is \"%s\"?", argv[i]);
    }
    prepare(&j); /* lives until the program ends */
    say(stdout, set.csv ? "kernel,isa,size,ns,gb_s,gflops,times_scalar\n"
                        : "kernel         isa     size                         ns      GB/s    "
                          "GFLOPS   scalar\n");
    matmul_rows(&set, &j);
    attend_rows(&set, &j);
    small_rows(&set, &j);
    if (!n_printed) {
        say(stderr, "bench_kernels: no kernel's name has \"%s\" in it\n", set.filter);
        return 1;
    }
    return 0;
}
