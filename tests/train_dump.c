/* train_dump - trains a small model as told and writes down all that another implementation needs
 * to do the same, and what came out; for train_torch.py.
 *     train_dump OUT key=value ...        (settings[] below has the keys)
 * OUT is a row of records: name [64], then as int32 type ('f' float, 'd' double, 'i' int32), rows
 * and columns, then the values:
 *     hp.KEY                     every setting
 *     param.NAME, grad.NAME      tensors, and the gradients of the mean loss of the first batch
 *     loss, norm                 of that batch; norm of all gradients
 *     tokens, targets            [(1 + steps) * seqs, tokens] one batch after the other
 *     curve                      [steps, 3] loss, norm and rate of sm_trainer_step with the others
 *     final.NAME                 tensors after them */
#ifndef COMMON_LINKED /* the Makefile compiles the implementation once */
#define SMALLMIND_IMPLEMENTATION
#endif
#include "../smallmind.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of the model: as sm_trainer_params. weights: how large the first ones are. noise, ignore:
 * percentages of tokens that do not follow the rule, and of targets that are not learned. */
typedef struct setting {
    const char *key;
    double value;
} setting;
static setting settings[] = {
    {"vocab", 19},   {"embd", 12},      {"layers", 2},      {"heads", 4},     {"kv", 2},
    {"head", 4},     {"ff", 20},        {"eps", 1e-5},      {"base", 10000},  {"tied", 0},
    {"seed", 1},     {"ctx", 7},        {"batch", 2},       {"accum", 1},     {"checkpoint", 0},
    {"threads", 1},  {"optimizer", 0},  {"schedule", 0},    {"rate", 0.001},  {"warmup", 0},
    {"total", 0},    {"final", 0},      {"every", 0},       {"gamma", 0},     {"beta1", 0.9},
    {"beta2", 0.999}, {"epsilon", 1e-8}, {"decay", 0},      {"momentum", 0},  {"clip", 0},
    {"steps", 20},   {"seqs", 2},       {"tokens", 7},      {"weights", 1},   {"noise", 20},
    {"ignore", 0},   {"compute", 0},
};
enum { N_SETTINGS = sizeof settings / sizeof *settings };
static const char *arch = "llama", *model_path, *config_path;
static FILE *out;

static void stop(const char *what, const char *why) {
    fprintf(stderr, "train_dump: %s: %s\n", what, why);
    exit(2);
}

static double get(const char *key) {
    int i;
    for (i = 0; i < N_SETTINGS; i++)
        if (strcmp(settings[i].key, key) == 0) return settings[i].value;
    stop(key, "no such setting");
    return 0.0;
}
static int get_int(const char *key) { return (int)get(key); }
static float get_float(const char *key) { return (float)get(key); }

static void take(const char *text) {
    const char *equals = strchr(text, '=');
    int i;
    if (!equals) stop(text, "not key=value");
    if (strncmp(text, "arch=", 5) == 0) arch = equals + 1;
    else if (strncmp(text, "model=", 6) == 0) model_path = equals + 1;
    else if (strncmp(text, "config=", 7) == 0) config_path = equals + 1;
    else {
        for (i = 0; i < N_SETTINGS; i++)
            if (strlen(settings[i].key) == (size_t)(equals - text) &&
                strncmp(settings[i].key, text, (size_t)(equals - text)) == 0)
                break;
        if (i == N_SETTINGS) stop(text, "no such setting");
        settings[i].value = atof(equals + 1);
    }
}

static void record(const char *prefix, const char *name, int type, int rows, int columns,
                   const void *data) {
    char head[64];
    int32_t numbers[3];
    size_t n = (size_t)rows * (size_t)columns * (type == 'd' ? 8 : 4);
    memset(head, 0, sizeof head);
    snprintf(head, sizeof head, "%s%s", prefix, name);
    numbers[0] = type;
    numbers[1] = rows;
    numbers[2] = columns;
    if (fwrite(head, sizeof head, 1, out) != 1 || fwrite(numbers, sizeof numbers, 1, out) != 1 ||
        fwrite(data, 1, n, out) != n)
        stop("writing", "failed");
}

static void record_tensors(sm_trainer *t, const char *prefix, int grads) {
    sm_train_tensor e;
    int i;
    for (i = 0; sm_trainer_tensor_at(t, i, &e) == SM_OK; i++)
        record(prefix, e.name, 'f', e.rows, e.columns, grads ? e.grads : e.params);
}

static sm_trainer_params params(void) {
    sm_trainer_params p = sm_trainer_default();
    p.arch = arch;
    p.n_vocab = get_int("vocab");
    p.n_embd = get_int("embd");
    p.n_layers = get_int("layers");
    p.n_heads = get_int("heads");
    p.n_kv_heads = get_int("kv");
    p.head_dim = get_int("head");
    p.n_ff = get_int("ff");
    p.norm_eps = get_float("eps");
    p.rope_base = get_float("base");
    p.tied = get_int("tied");
    p.seed = (uint64_t)get("seed");
    p.n_ctx = get_int("ctx");
    p.n_batch = get_int("batch");
    p.n_accum = get_int("accum");
    p.checkpoint = get_int("checkpoint");
    p.n_threads = get_int("threads");
    p.compute = get_int("compute");
    p.optimizer = get_int("optimizer");
    p.rate.schedule = get_int("schedule");
    p.rate.rate = get_float("rate");
    p.rate.warmup_steps = get_int("warmup");
    p.rate.total_steps = get_int("total");
    p.rate.final_ratio = get_float("final");
    p.rate.every_steps = get_int("every");
    p.rate.gamma = get_float("gamma");
    p.beta1 = get_float("beta1");
    p.beta2 = get_float("beta2");
    p.epsilon = get_float("epsilon");
    p.weight_decay = get_float("decay");
    p.momentum = get_float("momentum");
    p.clip_norm = get_float("clip");
    return p;
}

static sm_trainer *make(void) {
    sm_trainer_params p = params();
    sm_model_params mp = sm_model_default();
    sm_model *model = NULL;
    sm_trainer *t = NULL;
    sm_error error;
    if (model_path) {
        mp.file.path = model_path;
        mp.config.path = config_path;
        if (sm_model_open(&mp, &model, &error) != SM_OK) stop(model_path, error.text);
        p.model = model;
    }
    if (sm_trainer_create(&p, &t, &error) != SM_OK) stop(arch, error.text);
    sm_model_close(model);
    return t;
}

static float uniform(uint64_t stream, uint64_t i) { /* in [-1, 1) */
    uint32_t bits = sm_random((uint64_t)get("seed"), stream, i);
    return (float)(int32_t)bits / 2147483648.0f;
}

/* Instead of the trainer's first weights, under which most gradients hardly matter: products of
 * size 1, norms that differ from 1, biases that differ from 0. */
static void randomise(sm_trainer *t) {
    sm_train_tensor e;
    int i, j;
    for (i = 0; sm_trainer_tensor_at(t, i, &e) == SM_OK; i++) {
        double columns = e.columns, a = 1.0;
        while (a * a * columns > 3.0) a *= 0.99; /* sqrt(3 / columns), without libm */
        for (j = 0; j < e.rows * e.columns; j++) {
            float r = uniform((uint64_t)i + 1, (uint64_t)j);
            if (strstr(e.name, "norm.weight")) e.params[j] = 1.0f + 0.3f * r;
            else if (strstr(e.name, ".bias")) e.params[j] = 0.3f * r;
            else e.params[j] = r * (float)(a * get("weights"));
        }
    }
}

/* Sequences in which most tokens follow from the one before, so that there is something to learn;
 * n values. */
static void fill(int32_t *tokens, int32_t *targets, int n, int length) {
    uint64_t seed = (uint64_t)get("seed"), k;
    uint32_t vocab = (uint32_t)get("vocab"), noise = (uint32_t)get("noise");
    uint32_t ignore = (uint32_t)get("ignore"), next = 0;
    int i;
    for (i = 0; i < n; i++) {
        k = 4 * (uint64_t)i;
        if (i % length == 0) next = sm_random(seed, 1000, k) % vocab;
        tokens[i] = (int32_t)next;
        next = (5 * next + 3) % vocab;
        if (sm_random(seed, 1000, k + 1) % 100 < noise) next = sm_random(seed, 1000, k + 2) % vocab;
        targets[i] = sm_random(seed, 1000, k + 3) % 100 < ignore ? -1 : (int32_t)next;
    }
}

static void train(sm_trainer *t, sm_train_batch b, int steps) {
    double *curve = (double *)malloc(((size_t)steps * 3 + 1) * sizeof *curve);
    size_t n = (size_t)b.n_seqs * (size_t)b.n_tokens;
    sm_train_stats stats;
    int i;
    if (!curve) stop("memory", "none");
    for (i = 0; i < steps; i++) {
        b.tokens += n;
        b.targets += n;
        if (sm_trainer_step(t, &b, &stats) != SM_OK) stop("step", sm_trainer_error(t));
        curve[3 * i] = stats.loss;
        curve[3 * i + 1] = stats.grad_norm;
        curve[3 * i + 2] = stats.rate;
    }
    record("curve", "", 'd', steps, 3, curve);
    free(curve);
}

int main(int argc, char **argv) {
    sm_train_batch b;
    sm_train_stats stats;
    sm_trainer *t;
    int32_t *tokens, *targets;
    int i, steps, rows;
    if (argc < 2) stop("usage", "train_dump OUT key=value ...");
    for (i = 2; i < argc; i++) take(argv[i]);
    out = fopen(argv[1], "wb");
    if (!out) stop(argv[1], "cannot be written");
    for (i = 0; i < N_SETTINGS; i++) record("hp.", settings[i].key, 'd', 1, 1, &settings[i].value);
    t = make();
    if (!model_path) randomise(t);
    memset(&b, 0, sizeof b);
    b.n_seqs = get_int("seqs");
    b.n_tokens = get_int("tokens");
    steps = get_int("steps");
    rows = (1 + steps) * b.n_seqs;
    b.tokens = tokens = (int32_t *)malloc((size_t)rows * (size_t)b.n_tokens * sizeof *tokens);
    b.targets = targets = (int32_t *)malloc((size_t)rows * (size_t)b.n_tokens * sizeof *targets);
    if (!tokens || !targets) stop("memory", "none");
    fill(tokens, targets, rows * b.n_tokens, b.n_tokens);
    record("tokens", "", 'i', rows, b.n_tokens, tokens);
    record("targets", "", 'i', rows, b.n_tokens, targets);
    record_tensors(t, "param.", 0);
    if (sm_trainer_backward(t, &b, &stats) != SM_OK) stop("backward", sm_trainer_error(t));
    record("loss", "", 'd', 1, 1, &stats.loss);
    record("norm", "", 'd', 1, 1, &stats.grad_norm);
    record_tensors(t, "grad.", 1);
    train(t, b, steps);
    record_tensors(t, "final.", 0);
    sm_trainer_destroy(t);
    free(tokens);
    free(targets);
    if (fclose(out) != 0) stop(argv[1], "cannot be written");
    return 0;
}
