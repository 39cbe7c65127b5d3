/* train.c - a tokenizer and a model from a text file.
 *
 *     cc -O2 examples/train.c -o train -lpthread
 *     ./train --data shakespeare.txt --out shakespeare.gguf --preset tiny --vocab 0 --steps 2000
 *
 * Writes four files: OUT, the model with the lowest validation loss so far; OUT.state, from which
 * --resume goes on as if nothing had happened; OUT.csv and OUT.svg, the losses. Each is replaced as
 * a whole or not at all, so that whatever stops the program, power too, the last ones are good.
 * Ctrl-C saves and ends. The same options give the same bytes on any number of threads. */
static const char usage[] =
    "usage: train --data TEXT --out MODEL.gguf [options]\n"
    "  --preset P     tiny (0.8M), small (3M), medium (11M parameters)           (small)\n"
    "  --vocab N      tokens of a byte-level BPE vocabulary; 0: characters       (the preset's)\n"
    "  --end TEXT     ends a document, in the data too; windows then begin where documents do\n"
    "  --val TEXT     other text to validate with; otherwise the last --val-share (0.1) of it\n"
    "  --arch A       llama qwen2 qwen3 gpt2 cs336    --context N   tokens of a window\n"
    "  --layers N  --heads N  --kv-heads N  --dim N  --ff N  --untied    instead of the preset's\n"
    "  --steps N      (2000)                          --batch N  --accum N   windows of a step\n"
    "  --rate R  --final R  --warmup N  --schedule constant cosine step exponential one-cycle\n"
    "  --decay D  --beta1 B  --beta2 B  --clip C  --dropout P  --sgd  --bf16  --bf16-amx\n"
    "  --eval N       steps between validations (250) --patience N  of them without a better one\n"
    "  --save N       steps between states (500)      --sample N    steps between samples (1000)\n"
    "  --prompt TEXT  of the samples                  --type T      of MODEL (Q8_0)\n"
    "  --name TEXT    general.name                    --checkpoint N  layers kept\n"
    "  --seed S       (1)                             --threads N   0 = all processors (0)\n"
    "  --resume       go on from OUT.state            --isa LEVEL\n";
#include "common.h"
#include <signal.h>
#include <time.h>

typedef struct options {
    const char *data, *val, *out, *preset, *end, *prompt, *name, *type;
    int vocab, steps, eval, save, sample, patience, resume;
    double val_share;
    sm_trainer_params t;
} options;

typedef struct preset {
    const char *name;
    int layers, heads, dim, context, batch, vocab;
    float rate;
} preset;

/* tiny is nanoGPT's preset for a CPU. */
static const preset presets[] = {{"tiny", 4, 4, 128, 64, 12, 0, 0.001f},
                                 {"small", 6, 6, 192, 256, 8, 1024, 0.001f},
                                 {"medium", 8, 8, 320, 256, 16, 4096, 0.0006f}};

static const char *const schedules[] = {"constant", "cosine", "step", "exponential", "one-cycle"};

static volatile sig_atomic_t stop_asked;

static void on_signal(int number) {
    stop_asked = 1;
    signal(number, SIG_DFL); /* the second one ends the program at once */
}

/* ---- options --------------------------------------------------------------------------------- */

static int one_of(const char *name, const char *text, const char *const *list, int n) {
    int i;
    for (i = 0; i < n; i++)
        if (!strcmp(text, list[i])) return i;
    arg_fail("%s: what is \"%s\"?", name, text);
    return 0;
}

/* Options of the trainer; 0 = it is none. */
static int parse_trainer(sm_trainer_params *t, int argc, char **argv, int *i) {
    const char *a = argv[*i];
    if (!strcmp(a, "--arch")) t->arch = arg_text(argc, argv, i);
    else if (!strcmp(a, "--context")) t->n_ctx = arg_int(argc, argv, i, 1, 1 << 16);
    else if (!strcmp(a, "--layers")) t->n_layers = arg_int(argc, argv, i, 1, 1000);
    else if (!strcmp(a, "--heads")) t->n_heads = arg_int(argc, argv, i, 1, 1 << 12);
    else if (!strcmp(a, "--kv-heads")) t->n_kv_heads = arg_int(argc, argv, i, 1, 1 << 12);
    else if (!strcmp(a, "--dim")) t->n_embd = arg_int(argc, argv, i, 1, 1 << 16);
    else if (!strcmp(a, "--ff")) t->n_ff = arg_int(argc, argv, i, 1, 1 << 18);
    else if (!strcmp(a, "--untied")) t->tied = 0;
    else if (!strcmp(a, "--batch")) t->n_batch = arg_int(argc, argv, i, 1, 1 << 16);
    else if (!strcmp(a, "--accum")) t->n_accum = arg_int(argc, argv, i, 1, 1 << 10);
    else if (!strcmp(a, "--rate")) t->rate.rate = arg_float(argc, argv, i, 1e-9, 1e3);
    else if (!strcmp(a, "--final")) t->rate.final_ratio = arg_float(argc, argv, i, 0, 1e3);
    else if (!strcmp(a, "--warmup")) t->rate.warmup_steps = arg_int(argc, argv, i, 0, 1 << 30);
    else if (!strcmp(a, "--schedule"))
        t->rate.schedule = one_of(a, arg_text(argc, argv, i), schedules, 5);
    else if (!strcmp(a, "--decay")) t->weight_decay = arg_float(argc, argv, i, 0, 1e3);
    else if (!strcmp(a, "--beta1")) t->beta1 = arg_float(argc, argv, i, 1e-6, 0.999999);
    else if (!strcmp(a, "--beta2")) t->beta2 = arg_float(argc, argv, i, 1e-6, 0.999999);
    else if (!strcmp(a, "--clip")) t->clip_norm = arg_float(argc, argv, i, 0, 1e9);
    else if (!strcmp(a, "--dropout")) t->dropout = arg_float(argc, argv, i, 0, 0.95);
    else if (!strcmp(a, "--bf16")) t->compute = SM_COMPUTE_BF16;
    else if (!strcmp(a, "--bf16-amx")) t->compute = SM_COMPUTE_BF16_AMX;
    else if (!strcmp(a, "--sgd")) t->optimizer = SM_OPTIMIZER_SGD, t->momentum = 0.9f;
    else if (!strcmp(a, "--checkpoint")) t->checkpoint = arg_int(argc, argv, i, 0, 1000);
    else if (!strcmp(a, "--seed")) t->seed = arg_seed(argc, argv, i);
    else if (!strcmp(a, "--threads")) t->n_threads = arg_int(argc, argv, i, 0, 256);
    else if (!strcmp(a, "--isa")) t->isa = arg_isa(argc, argv, i);
    else return 0;
    return 1;
}

/* What the preset decides: first, so that options change it. */
static void take_preset(options *o, int argc, char **argv) {
    static const char *const names[] = {"tiny", "small", "medium"};
    const preset *p;
    int i;
    o->preset = "small";
    for (i = 1; i + 1 < argc; i++)
        if (!strcmp(argv[i], "--preset")) o->preset = argv[i + 1];
    p = &presets[one_of("--preset", o->preset, names, 3)];
    o->vocab = p->vocab;
    o->t.n_layers = p->layers;
    o->t.n_heads = p->heads;
    o->t.n_embd = p->dim;
    o->t.n_ctx = p->context;
    o->t.n_batch = p->batch;
    o->t.rate.rate = p->rate;
}

static options parse(int argc, char **argv) {
    options o;
    float final;
    int i;
    memset(&o, 0, sizeof o);
    o.t = sm_trainer_default();
    o.t.arch = "llama";
    o.t.tied = 1;
    o.t.seed = 1;
    o.t.n_accum = 1;
    o.t.huge_pages = 1;
    o.t.beta2 = 0.99f;
    o.t.weight_decay = 0.1f;
    o.t.clip_norm = 1.0f;
    o.t.rate.schedule = SM_SCHEDULE_COSINE;
    o.t.rate.warmup_steps = 100;
    o.t.rate.final_ratio = -1.0f;
    o.steps = 2000, o.eval = 250, o.save = 500, o.sample = 1000;
    o.val_share = 0.1;
    o.type = "Q8_0";
    take_preset(&o, argc, argv);
    for (i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (parse_trainer(&o.t, argc, argv, &i)) continue;
        if (!strcmp(a, "--preset")) arg_text(argc, argv, &i);
        else if (!strcmp(a, "--data")) o.data = arg_text(argc, argv, &i);
        else if (!strcmp(a, "--val")) o.val = arg_text(argc, argv, &i);
        else if (!strcmp(a, "--val-share")) o.val_share = arg_float(argc, argv, &i, 0.001, 0.9);
        else if (!strcmp(a, "--out")) o.out = arg_text(argc, argv, &i);
        else if (!strcmp(a, "--vocab")) o.vocab = arg_int(argc, argv, &i, 0, 1 << 20);
        else if (!strcmp(a, "--end")) o.end = arg_text(argc, argv, &i);
        else if (!strcmp(a, "--steps")) o.steps = arg_int(argc, argv, &i, 1, 1 << 30);
        else if (!strcmp(a, "--eval")) o.eval = arg_int(argc, argv, &i, 1, 1 << 30);
        else if (!strcmp(a, "--patience")) o.patience = arg_int(argc, argv, &i, 0, 1 << 30);
        else if (!strcmp(a, "--save")) o.save = arg_int(argc, argv, &i, 1, 1 << 30);
        else if (!strcmp(a, "--sample")) o.sample = arg_int(argc, argv, &i, 1, 1 << 30);
        else if (!strcmp(a, "--prompt")) o.prompt = arg_text(argc, argv, &i);
        else if (!strcmp(a, "--name")) o.name = arg_text(argc, argv, &i);
        else if (!strcmp(a, "--type")) o.type = arg_text(argc, argv, &i);
        else if (!strcmp(a, "--resume")) o.resume = 1;
        else arg_fail("what is \"%s\"?", a);
    }
    if (!o.data || !o.out) arg_fail("%s is missing", o.data ? "--out MODEL.gguf" : "--data TEXT");
    if (o.end && !*o.end) arg_fail("--end wants a text");
    o.t.rate.total_steps = o.steps;
    if (o.t.rate.warmup_steps > o.steps / 2) o.t.rate.warmup_steps = o.steps / 2;
    final = o.t.rate.final_ratio < 0.0f ? o.t.rate.rate / 10.0f : o.t.rate.final_ratio;
    o.t.rate.final_ratio = final / o.t.rate.rate; /* --final is a rate */
    if (o.t.rate.final_ratio > 1.0f) arg_fail("--final is above --rate");
    return o;
}

/* ---- texts ----------------------------------------------------------------------------------- */

static void *memory(size_t n) {
    void *p = malloc(n ? n : 1);
    if (p) return p;
    say(stderr, "train: no memory for %.0f MB\n", (double)n * 1e-6);
    exit(1);
}

static char *read_text(const char *path, size_t *n) {
    char *text = read_file(path, n);
    if (text && *n) return text;
    say(stderr, "train: %s: %s\n", path, text ? "there is no text in it" : "cannot be read");
    exit(1);
}

typedef struct corpus {
    int32_t *ids;
    int32_t *starts; /* [n_starts] where windows may begin; NULL: anywhere */
    int n, n_starts;
} corpus;

/* The last end of a document in text [from, to), else of a line, else `to`. */
static size_t last_end(const char *text, size_t from, size_t to, const char *end) {
    size_t bytes = end ? strlen(end) : 0, i;
    for (i = to; end && i > from + bytes; i--)
        if (!memcmp(text + i - bytes, end, bytes)) return i;
    for (i = to; i > from; i--)
        if (text[i - 1] == '\n') return i;
    return to;
}

static corpus tokenize(const sm_model *vocab, const char *text, size_t bytes, const char *end) {
    sm_tokenizer *tokenizer = NULL;
    sm_error error;
    corpus c;
    size_t from = 0, to, room = 1 << 20;
    memset(&c, 0, sizeof c);
    if (sm_tokenizer_create(vocab, 1 << 16, NULL, &tokenizer, &error)) {
        say(stderr, "train: %s\n", error.text);
        exit(1);
    }
    c.ids = (int32_t *)memory(room * sizeof *c.ids);
    for (; from < bytes; from = to) {
        int n = 0, most = 2 * (1 << 16) + 2;
        if ((size_t)c.n + (size_t)most > room) {
            int32_t *more = (int32_t *)realloc(c.ids, (room *= 2) * sizeof *c.ids);
            if (!more || room > (1u << 30)) {
                say(stderr, "train: the text is too large\n");
                exit(1);
            }
            c.ids = more;
        }
        to = bytes - from > 1 << 16 ? last_end(text, from, from + (1 << 16), end) : bytes;
        sm_tokenize(tokenizer, text + from, to - from,
                    end ? SM_TEXT_BYTES | SM_TEXT_SPECIAL : SM_TEXT_BYTES, c.ids + c.n, most, &n);
        c.n += n;
    }
    sm_tokenizer_destroy(tokenizer);
    return c;
}

/* Windows begin where documents do; the last ones must leave room for a window. */
static void find_starts(corpus *c, int32_t end, int context) {
    int i;
    c->starts = (int32_t *)memory((size_t)c->n * sizeof *c->starts);
    for (i = 0; i + context < c->n; i++)
        if (!i || c->ids[i - 1] == end) c->starts[c->n_starts++] = i;
}

static int common_divisor(int a, int b) { return b ? common_divisor(b, a % b) : a; }

/* The k-th window of a training: every start once, in an order that only the seed decides, then
 * all of them again in another order. */
static int window_start(const corpus *c, int context, uint64_t seed, uint64_t k) {
    int n = c->starts ? c->n_starts : c->n - context, by, i;
    uint64_t epoch = k / (uint64_t)n, stream = 0x6461746100000000u + epoch; /* "data" */
    by = 1 + (int)(((uint64_t)sm_random(seed, stream, 0) * (uint64_t)n) >> 32);
    while (common_divisor(by, n) != 1) by++;
    i = (int)((k % (uint64_t)n * (uint64_t)by + sm_random(seed, stream, 1)) % (uint64_t)n);
    return c->starts ? c->starts[i] : i;
}

/* ---- a run ----------------------------------------------------------------------------------- */

typedef struct row {
    int step;
    double train, val, rate, norm; /* val < 0: not measured */
} row;

typedef struct run {
    options o;
    sm_vocab *vocab;
    sm_model *vocab_model;
    corpus data, val;
    sm_trainer *trainer;
    uint64_t hash; /* of what the data are, and the vocabulary */
    int32_t *tokens, *targets;
    row *rows;
    int n_rows, n_worse, terminal;
    double best, sum; /* sum: of losses since the last row */
    int n_sum;
    time_t started, shown;
    int first_step;
} run;

static void fail(const char *what, const char *why) {
    say(stderr, "train: %s%s%s\n", what, *what && *why ? ": " : "", why);
    exit(1);
}

static void hash_in(run *r, const void *data, size_t n) {
    const unsigned char *p = (const unsigned char *)data;
    for (; n; n--) r->hash = (r->hash ^ *p++) * 0x100000001b3u; /* FNV-1a */
}

static void clear_line(const run *r) {
    if (r->terminal) say(stderr, "\r%78s\r", "");
}

static int show_vocab(void *user, int n_tokens, int n_vocab) {
    const run *r = (const run *)user;
    if (r->terminal) say(stderr, "\rvocabulary: %d of %d tokens", n_tokens, n_vocab);
    return stop_asked;
}

static void prepare_data(run *r) {
    const options *o = &r->o;
    sm_vocab_params vp = sm_vocab_default();
    sm_error error;
    size_t bytes, val_bytes = 0, n_train;
    char *text = read_text(o->data, &bytes), *val = NULL;
    if (o->val) val = read_text(o->val, &val_bytes);
    n_train = val ? bytes : bytes - (size_t)((double)bytes * o->val_share);
    if (!val) n_train = last_end(text, 0, n_train, o->end);
    vp.n_vocab = o->vocab;
    vp.characters = !o->vocab;
    vp.specials = &o->end;
    vp.n_specials = o->end ? 1 : 0;
    vp.eos = o->end;
    vp.progress = show_vocab;
    vp.progress_user = r;
    hash_in(r, text, bytes);
    hash_in(r, val, val_bytes);
    /* a vocabulary of characters must know those of the part that validates */
    if (sm_vocab_train(&vp, text, o->vocab ? n_train : bytes, &r->vocab, &error) ||
        sm_vocab_open(r->vocab, NULL, &r->vocab_model, &error))
        fail("vocabulary", error.text);
    hash_in(r, &r->vocab->n_tokens, sizeof r->vocab->n_tokens);
    r->data = tokenize(r->vocab_model, text, n_train, o->end);
    r->val = val ? tokenize(r->vocab_model, val, val_bytes, o->end)
                 : tokenize(r->vocab_model, text + n_train, bytes - n_train, o->end);
    free(text);
    free(val);
    if (o->end) find_starts(&r->data, r->vocab->eos, o->t.n_ctx);
    if (o->end) find_starts(&r->val, r->vocab->eos, o->t.n_ctx);
    clear_line(r);
    say(stderr, "%d tokens to learn from, %d to validate with, vocabulary of %d\n", r->data.n,
        r->val.n, r->vocab->n_tokens);
    if (r->data.n <= o->t.n_ctx || r->val.n <= o->t.n_ctx || (o->end && !r->data.n_starts) ||
        (o->end && !r->val.n_starts))
        fail(r->data.n <= o->t.n_ctx ? "the text" : "the part of the text that validates",
             "is shorter than a window: --context, --val-share");
}

static void take_window(const run *r, const corpus *c, int start, int i) {
    size_t n = (size_t)r->o.t.n_ctx, bytes = n * sizeof(int32_t);
    memcpy(r->tokens + (size_t)i * n, c->ids + start, bytes);
    memcpy(r->targets + (size_t)i * n, c->ids + start + 1, bytes);
}

/* Mean loss over at most `most` windows, spread evenly over the part that validates. */
static double validate(run *r, int most) {
    const corpus *c = &r->val;
    int context = r->o.t.n_ctx, batch = r->o.t.n_batch * r->o.t.n_accum;
    int all = c->starts ? c->n_starts : (c->n - 1) / context, n = all < most ? all : most, i;
    double sum = 0.0;
    sm_train_batch b;
    sm_train_stats stats;
    memset(&b, 0, sizeof b);
    b.tokens = r->tokens;
    b.targets = r->targets;
    for (i = 0; i < n; i++) {
        int at = (int)((int64_t)i * all / n);
        take_window(r, c, c->starts ? c->starts[at] : at * context, b.n_seqs++);
        if (b.n_seqs < batch && i + 1 < n) continue;
        if (sm_trainer_eval(r->trainer, &b, &stats)) fail("", sm_trainer_error(r->trainer));
        sum += stats.loss * b.n_seqs;
        b.n_seqs = 0;
    }
    return sum / n;
}

/* ---- files ----------------------------------------------------------------------------------- */

typedef struct buffer {
    char *p;
    size_t n, room;
} buffer;

static int put(void *user, const void *data, size_t n) {
    buffer *b = (buffer *)user;
    char *more = b->p;
    if (b->n + n > b->room) more = (char *)realloc(b->p, b->room = 2 * (b->n + n));
    if (!more) return 1;
    b->p = more;
    memcpy(b->p + b->n, data, n);
    b->n += n;
    return 0;
}

/* The weights as they are now, as a GGUF file in memory. */
static sm_model *as_model(const run *r, buffer *b, double loss) {
    sm_writer_params wp = sm_writer_default();
    sm_model_params mp = sm_model_default();
    sm_model *m = NULL;
    sm_writer *w;
    sm_error error;
    float f = (float)loss;
    memset(b, 0, sizeof *b);
    wp.write = put;
    wp.user = b;
    if (sm_writer_open(&wp, &w, &error)) fail("", error.text);
    sm_writer_describe(w, r->trainer);
    if (r->o.name) sm_writer_value(w, "general.name", SM_META_TEXT, r->o.name);
    sm_writer_value(w, "training.validation_loss", SM_META_F32, &f);
    sm_writer_vocab(w, r->vocab);
    sm_writer_weights(w, r->trainer);
    if (sm_writer_finish(w, &error)) fail("", error.text);
    mp.file.data = b->p;
    mp.file.bytes = b->n;
    if (sm_model_open(&mp, &m, &error)) fail("", error.text);
    return m;
}

static void write_model(const run *r, const sm_model *m) {
    sm_quantize_params qp = sm_quantize_default();
    sm_error error;
    arg_type(r->o.type, &qp);
    qp.out.path = r->o.out;
    if (!sm_quantize(m, &qp, &error)) return;
    clear_line(r);
    say(stderr, "train: the model was not written: %s\n", error.text);
}

/* OUT and its ending. */
static char *path_of(const run *r, const char *ending, char *path, size_t n) {
    if (strlen(r->o.out) + strlen(ending) >= n) fail(r->o.out, "the path is too long");
    format(path, n, "%s%s", r->o.out, ending);
    return path;
}

static void write_state(const run *r) {
    sm_writer_params wp = sm_writer_default();
    sm_writer *w;
    sm_error error;
    char path[4096];
    double notes[2];
    wp.path = path_of(r, ".state", path, sizeof path);
    notes[0] = r->best;
    notes[1] = r->sum;
    if (!sm_writer_open(&wp, &w, &error)) {
        sm_writer_value(w, "general.architecture", SM_META_TEXT, "training-state");
        sm_writer_value(w, "training.hash", SM_META_U64, &r->hash);
        sm_writer_value(w, "training.worse", SM_META_I32, &r->n_worse);
        sm_writer_value(w, "training.losses", SM_META_I32, &r->n_sum);
        sm_writer_value(w, "training.best", SM_META_U64, &notes[0]); /* all of its bits */
        sm_writer_value(w, "training.sum", SM_META_U64, &notes[1]);
        sm_writer_vocab(w, r->vocab);
        sm_writer_state(w, r->trainer);
        if (!sm_writer_finish(w, &error)) return;
    }
    clear_line(r);
    say(stderr, "train: the state was not written, the last one is as it was: %s\n", error.text);
}

static uint64_t note(const sm_model *m, const char *key) {
    char text[32];
    const char *value = sm_model_meta(m, key, text, sizeof text);
    if (!value) fail(key, "is not in the state");
    return strtoull(value, NULL, 10);
}

static void read_rows(run *r, const char *path, int steps) {
    FILE *file = fopen(path, "r");
    char line[256];
    while (file && fgets(line, sizeof line, file)) {
        row *w = &r->rows[r->n_rows];
        char *at = line;
        w->step = (int)strtol(at, &at, 10);
        if (at == line || w->step > steps || r->n_rows > r->o.steps) continue; /* or the heading */
        w->train = strtod(at + 1, &at);
        w->val = at[1] == ',' ? (at++, -1.0) : strtod(at + 1, &at);
        w->rate = strtod(at + 1, &at);
        w->norm = strtod(at + 1, &at);
        r->n_rows++;
    }
    if (file) fclose(file);
}

static void read_state(run *r) {
    sm_model_params mp = sm_model_default();
    sm_model *m;
    sm_tensor t;
    sm_error error;
    sm_status status = SM_ERR_FORMAT;
    uint64_t bits;
    char path[4096];
    int i;
    mp.file.path = path_of(r, ".state", path, sizeof path);
    mp.vocab_only = 1;
    if (sm_model_open(&mp, &m, &error)) fail("nothing to go on from", error.text);
    if (note(m, "training.hash") != r->hash)
        fail(path, "is of another text or vocabulary");
    for (i = 0; sm_model_tensor(m, i, &t) == SM_OK; i++)
        if (!strcmp(t.name, "trainer.state"))
            status = sm_trainer_state_load(r->trainer, t.data, t.bytes);
    if (status) fail(path, sm_trainer_error(r->trainer));
    r->n_worse = (int)note(m, "training.worse");
    r->n_sum = (int)note(m, "training.losses");
    bits = note(m, "training.best"), memcpy(&r->best, &bits, sizeof bits);
    bits = note(m, "training.sum"), memcpy(&r->sum, &bits, sizeof bits);
    sm_model_close(m);
    r->first_step = (int)sm_trainer_steps(r->trainer);
    read_rows(r, path_of(r, ".csv", path, sizeof path), r->first_step);
    say(stderr, "going on after step %d\n", r->first_step);
}

/* A small file of text, whole or not at all. */
static void replace_file(const run *r, const char *ending, const buffer *b) {
    char path[4096], temp[4200];
    FILE *file;
    int ok;
    path_of(r, ending, path, sizeof path);
    format(temp, sizeof temp, "%s.tmp", path);
    file = fopen(temp, "wb");
    ok = file && fwrite(b->p, 1, b->n, file) == b->n;
    ok = file && !fclose(file) && ok;
#ifdef _WIN32
    if (ok) remove(path); /* its rename does not replace */
#endif
    if (ok && !rename(temp, path)) return;
    remove(temp);
    clear_line(r);
    say(stderr, "train: %s was not written\n", path);
}

COMMON_PRINTF(2, 3) static void add(buffer *b, const char *fmt, ...) {
    char text[512];
    va_list args;
    va_start(args, fmt);
    COMMON_VSNPRINTF(text, sizeof text, fmt, args);
    va_end(args);
    put(b, text, strlen(text));
}

static void write_csv(const run *r) {
    buffer b = {NULL, 0, 0};
    int i;
    add(&b, "step,train_loss,val_loss,rate,grad_norm\n");
    for (i = 0; i < r->n_rows; i++) {
        const row *w = &r->rows[i];
        add(&b, "%d,%.6f,", w->step, w->train);
        if (w->val >= 0.0) add(&b, "%.6f", w->val);
        add(&b, ",%.9f,%.6f\n", w->rate, w->norm);
    }
    replace_file(r, ".csv", &b);
    free(b.p);
}

enum { SVG_W = 720, SVG_H = 400, SVG_LEFT = 60, SVG_BOTTOM = 40 };

static void svg_line(buffer *b, const run *r, int val, const char *colour, double low,
                     double high) {
    double w = SVG_W - SVG_LEFT - 20, h = SVG_H - SVG_BOTTOM - 30;
    int i;
    add(b, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" points=\"", colour);
    for (i = 0; i < r->n_rows; i++) {
        double y = val ? r->rows[i].val : r->rows[i].train;
        if (y < 0.0) continue;
        add(b, "%.1f,%.1f ", SVG_LEFT + w * r->rows[i].step / r->o.steps,
            30 + h * (high - y) / (high - low));
    }
    add(b, "\"/>\n");
}

static void write_svg(const run *r) {
    buffer b = {NULL, 0, 0};
    double low = 1e300, high = -1e300, w = SVG_W - SVG_LEFT - 20, h = SVG_H - SVG_BOTTOM - 30;
    int i;
    for (i = 0; i < r->n_rows; i++) {
        const row *v = &r->rows[i];
        if (v->train > high) high = v->train;
        if (v->train < low) low = v->train;
        if (v->val >= 0.0 && v->val < low) low = v->val;
        if (v->val > high) high = v->val;
    }
    if (!r->n_rows || high <= low) return;
    add(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
            "font-family=\"sans-serif\" font-size=\"12\">\n"
            "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n", SVG_W, SVG_H);
    for (i = 0; i <= 5; i++) {
        double y = 30 + h * i / 5, x = SVG_LEFT + w * i / 5;
        add(&b, "<path stroke=\"#ddd\" d=\"M%d %.1fH%d\"/>\n", SVG_LEFT, y, SVG_W - 20);
        add(&b, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.2f</text>\n", SVG_LEFT - 6,
            y + 4, high - (high - low) * i / 5);
        add(&b, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.0f</text>\n", x,
            SVG_H - SVG_BOTTOM + 28, (double)r->o.steps * i / 5);
    }
    svg_line(&b, r, 0, "#1f77b4", low, high);
    svg_line(&b, r, 1, "#d62728", low, high);
    add(&b, "<text x=\"%d\" y=\"20\"><tspan fill=\"#1f77b4\">training loss</tspan>, "
            "<tspan fill=\"#d62728\">validation loss</tspan>, by steps</text>\n</svg>\n",
        SVG_LEFT);
    replace_file(r, ".svg", &b);
    free(b.p);
}

/* ---- the loop -------------------------------------------------------------------------------- */

static int print_piece(void *user, const char *piece, size_t n) {
    (void)user;
    fwrite(piece, 1, n, stdout);
    return stop_asked;
}

static void print_sample(const run *r, const sm_model *m, int step) {
    sm_ctx_params cp = sm_ctx_default();
    sm_gen_params gp = sm_gen_default();
    sm_ctx *ctx = NULL;
    sm_error error;
    const int32_t first = r->data.ids[0];
    cp.n_threads = 1;
    if (sm_ctx_create(m, &cp, &ctx, &error)) fail("sample", error.text);
    gp.prompt = r->o.prompt;
    if (!gp.prompt) gp.prompt_ids = &first, gp.n_prompt_ids = 1;
    gp.max_tokens = r->o.t.n_ctx < 200 ? r->o.t.n_ctx - 1 : 200;
    gp.sampler.temperature = 0.8f;
    gp.sampler.top_p = 0.95f;
    gp.sampler.seed = (uint64_t)step;
    clear_line(r);
    say(stdout, "--- after step %d: %s", step, gp.prompt ? gp.prompt : "");
    if (sm_generate(ctx, &gp, print_piece, NULL, NULL) < 0) say(stdout, "%s", sm_ctx_error(ctx));
    say(stdout, "\n---\n");
    fflush(stdout);
    sm_ctx_destroy(ctx);
}

static void show(run *r, int step, const sm_train_stats *stats, const row *w) {
    time_t now = time(NULL);
    double spent = difftime(now, r->started), left;
    double tokens = (double)(step - r->first_step) * r->o.t.n_batch * r->o.t.n_accum * r->o.t.n_ctx;
    if (r->terminal ? now == r->shown : !w) return;
    r->shown = now;
    left = spent / (step - r->first_step) * (r->o.steps - step);
    say(stderr, "%sstep %d of %d  loss %.4f", r->terminal ? "\r" : "", step, r->o.steps,
        w ? w->train : stats->loss);
    if (r->best < 1e300) say(stderr, "  best %.4f", r->best);
    say(stderr, "  %.0f tokens/s  %d:%02d left%s", tokens / (spent < 1.0 ? 1.0 : spent),
        (int)(left / 60), (int)left % 60, r->terminal ? "   " : "\n");
}

/* Validates, keeps the model if it is the best one, shows a sample; 1: training should stop. */
static int look(run *r, int step, row *w) {
    int sample = step % r->o.sample == 0 || step == r->o.steps, stop = 0;
    buffer b;
    sm_model *m;
    w->val = validate(r, 65536 / r->o.t.n_ctx + 1);
    clear_line(r);
    say(stderr, "step %d: training loss %.4f, validation loss %.4f%s\n", step, w->train, w->val,
        w->val < r->best ? ", the best one" : "");
    if (w->val >= r->best) stop = ++r->n_worse == r->o.patience;
    if (w->val >= r->best && !sample) return stop;
    m = as_model(r, &b, w->val);
    if (w->val < r->best) {
        write_model(r, m);
        r->best = w->val;
        r->n_worse = 0;
    }
    if (sample) print_sample(r, m, step);
    sm_model_close(m);
    free(b.p);
    return stop;
}

static void save(const run *r) {
    write_csv(r);
    write_svg(r);
    write_state(r);
}

static int train(run *r) {
    const options *o = &r->o;
    int windows = o->t.n_batch * o->t.n_accum, step, i, often = o->eval > 9 ? o->eval / 10 : 1;
    for (step = r->first_step + 1; step <= o->steps; step++) {
        sm_train_batch b;
        sm_train_stats stats;
        row *w = NULL;
        int stop = 0;
        memset(&b, 0, sizeof b);
        b.n_seqs = windows;
        b.tokens = r->tokens;
        b.targets = r->targets;
        for (i = 0; i < windows; i++)
            take_window(r, &r->data,
                        window_start(&r->data, o->t.n_ctx, o->t.seed,
                                     (uint64_t)(step - 1) * (uint64_t)windows + (uint64_t)i), i);
        if (sm_trainer_step(r->trainer, &b, &stats)) fail("", sm_trainer_error(r->trainer));
        r->sum += stats.loss;
        r->n_sum++;
        if (step % often == 0 || step == o->steps) {
            w = &r->rows[r->n_rows++];
            w->step = step;
            w->train = r->sum / r->n_sum;
            w->rate = stats.rate;
            w->norm = stats.grad_norm;
            w->val = -1.0;
            r->sum = 0.0, r->n_sum = 0;
        }
        show(r, step, &stats, w);
        if (w && (step % o->eval == 0 || step == o->steps)) stop = look(r, step, w);
        if (stop_asked || stop || step % o->save == 0 || step == o->steps) save(r);
        if (stop_asked || stop) return step;
    }
    return o->steps;
}

static void prepare_run(run *r) {
    options *o = &r->o;
    sm_train_plan plan;
    sm_error error;
    size_t ids;
    prepare_data(r);
    o->t.n_vocab = r->vocab->n_tokens;
    if (sm_trainer_plan(&o->t, &plan, &error) || sm_trainer_create(&o->t, &r->trainer, &error))
        fail("", error.text);
    say(stderr, "%s of %.2fM parameters, %.0f MB to train it, %d threads, %s\n", o->t.arch,
        (double)plan.n_params * 1e-6, (double)plan.total_bytes * 1e-6, plan.n_threads,
        sm_isa_name(plan.isa));
    ids = (size_t)o->t.n_batch * (size_t)o->t.n_accum * (size_t)o->t.n_ctx;
    r->tokens = (int32_t *)memory(ids * sizeof *r->tokens);
    r->targets = (int32_t *)memory(ids * sizeof *r->targets);
    r->rows = (row *)memory(((size_t)o->steps + 2) * sizeof *r->rows);
    r->best = 1e301;
    if (o->resume) read_state(r);
}

int main(int argc, char **argv) {
    static run r;
    sm_quantize_params type;
    int step;
    r.o = parse(argc, argv);
    arg_type(r.o.type, &type); /* before the work, not after it */
    r.terminal = isatty(2);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    prepare_run(&r);
    r.started = time(NULL);
    step = train(&r);
    clear_line(&r);
    if (step < r.o.steps)
        say(stderr, "%s after step %d: --resume goes on\n",
            stop_asked ? "stopped" : "no better one any more", step);
    if (r.best < 1e300) say(stderr, "best validation loss %.4f: %s\n", r.best, r.o.out);
    sm_trainer_destroy(r.trainer);
    sm_model_close(r.vocab_model);
    sm_vocab_destroy(r.vocab);
    free(r.rows);
    free(r.tokens);
    free(r.targets);
    free(r.data.ids), free(r.data.starts);
    free(r.val.ids), free(r.val.starts);
    return stop_asked ? 130 : 0;
}
