/* finetune.c - teach a model a text, by LoRA: the model, of any type, stays as it is, and what was
 * learned becomes a small adapter file, which llama.cpp reads too. Ctrl-C saves what there is.
 *
 *     cc -O2 examples/finetune.c -o finetune -lpthread
 *     ./finetune --model stories260K.gguf --data story.txt --out adapter.gguf --merge new.gguf */
#define _POSIX_C_SOURCE 200112L
#include <signal.h>
#include <time.h>
static const char usage[] =
    "usage: finetune --model IN.gguf --data TEXT --out ADAPTER.gguf [options]\n"
    "  --rank N     of the matrices learned (8)    --alpha A    their weight is A / rank (2 rank)\n"
    "  --steps N    (200)                          --batch N    sequences of a step (4)\n"
    "  --context N  tokens of a sequence (128)     --rate R     of learning (0.001)\n"
    "  --seed S     (1)                            --threads N  0 = all processors (0)\n"
    "  --merge OUT  write the model with the adapter added, too\n"
    "  --type TYPE  of its weights, F32 Q8_0 Q4_K ... (as the model has them)\n";
#include "common.h"

static const char *data;
static int steps = 200, n_ids;
static int32_t *ids;
static volatile sig_atomic_t stopped;

static void stop(int number) {
    stopped = 1;
    signal(number, SIG_DFL); /* the second one ends it */
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void parse(int argc, char **argv, sm_model_params *mp, sm_trainer_params *p,
                  sm_writer_params *out, sm_quantize_params *merge) {
    int i;
    merge->type = SM_TYPE_AUTO;
    for (i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (!strcmp(a, "--model")) mp->file.path = arg_text(argc, argv, &i);
        else if (!strcmp(a, "--data")) data = arg_text(argc, argv, &i);
        else if (!strcmp(a, "--out")) out->path = arg_text(argc, argv, &i);
        else if (!strcmp(a, "--merge")) merge->out.path = arg_text(argc, argv, &i);
        else if (!strcmp(a, "--type")) arg_type(arg_text(argc, argv, &i), merge);
        else if (!strcmp(a, "--rank")) p->lora_rank = arg_int(argc, argv, &i, 1, 65536);
        else if (!strcmp(a, "--alpha")) p->lora_alpha = arg_float(argc, argv, &i, 1e-6, 1e6);
        else if (!strcmp(a, "--steps")) steps = arg_int(argc, argv, &i, 1, 1 << 30);
        else if (!strcmp(a, "--batch")) p->n_batch = arg_int(argc, argv, &i, 1, 1 << 16);
        else if (!strcmp(a, "--context")) p->n_ctx = arg_int(argc, argv, &i, 1, 1 << 20);
        else if (!strcmp(a, "--rate")) p->rate.rate = arg_float(argc, argv, &i, 1e-9, 10);
        else if (!strcmp(a, "--seed")) p->seed = arg_seed(argc, argv, &i);
        else if (!strcmp(a, "--threads")) p->n_threads = arg_int(argc, argv, &i, 0, 256);
        else arg_fail("what is \"%s\"?", a);
    }
    if (!mp->file.path || !data || !out->path) arg_fail("--model, --data and --out are needed");
}

/* A text file as ids, from malloc, *n of them, more than `least`; NULL, and why in *error. */
static int32_t *text_ids(const sm_model *model, const char *path, int least, int *n,
                         sm_error *error) {
    size_t bytes = 0;
    char *text = read_file(path, &bytes);
    int32_t *all = bytes < 1u << 28 ? (int32_t *)malloc((3 * bytes + 3) * sizeof *all) : NULL;
    sm_tokenizer *tokenizer = NULL;
    *n = 0;
    format(error->text, sizeof error->text, !text ? "cannot read %s" : bytes ? "%s is too large"
                                                                             : "%s is empty", path);
    if (bytes && all && !sm_tokenizer_create(model, bytes, NULL, &tokenizer, error)) {
        sm_tokenize(tokenizer, text, bytes, SM_TEXT_BOS, all, (int)(3 * bytes + 3), n);
        format(error->text, sizeof error->text, "%s has %d tokens, more than %d are needed", path,
               *n, least);
    }
    sm_tokenizer_destroy(tokenizer);
    free(text);
    if (*n > least) return all;
    free(all);
    return NULL;
}

/* Steps on sequences from anywhere in the text, each with its successors as targets. */
static sm_status learn(sm_trainer *t, int n_seqs, int n_ctx, uint64_t seed, int32_t *tokens) {
    int n = n_seqs * n_ctx, terminal = isatty(2), done, i;
    sm_train_batch batch = {n_seqs, n_ctx, tokens, tokens + n, 0};
    double start = seconds(), loss = 0.0, spent;
    sm_train_stats stats;
    sm_status status = SM_OK;
    for (done = 0; done < steps && !stopped && !status; done++) {
        for (i = 0; i < n; i++) {
            uint64_t at = sm_random(seed, (uint64_t)done, (uint64_t)(i / n_ctx));
            at = (at * (uint64_t)(n_ids - n_ctx) >> 32) + (uint64_t)(i % n_ctx);
            tokens[i] = ids[at], tokens[n + i] = ids[at + 1];
        }
        status = sm_trainer_step(t, &batch, &stats);
        loss = done ? 0.9 * loss + 0.1 * stats.loss : stats.loss;
        spent = (seconds() - start) / (done + 1);
        i = (int)(spent * (steps - done - 1));
        if (terminal || done % 10 == 9 || done + 1 == steps)
            say(stderr, "%sstep %d of %d  loss %.3f  %.0f tokens/s  %d:%02d left  %s",
                terminal ? "\r" : "", done + 1, steps, loss, n / spent, i / 60, i % 60,
                terminal ? "" : "\n");
    }
    say(stderr, "%s%s", terminal ? "\n" : "", stopped ? "stopped: saving what there is\n" : "");
    return status;
}

int main(int argc, char **argv) {
    sm_model_params mp = sm_model_default();
    sm_trainer_params p = sm_trainer_default();
    sm_writer_params out = sm_writer_default();
    sm_quantize_params merge = sm_quantize_default();
    sm_model *model = NULL;
    sm_trainer *trainer = NULL;
    sm_error error;
    const char *why = NULL;
    int32_t *tokens;
    p.lora_rank = 8, p.n_batch = 4, p.n_ctx = 128, p.seed = 1, p.clip_norm = 1.0f;
    p.rate.rate = 0.001f, p.rate.schedule = SM_SCHEDULE_COSINE;
    parse(argc, argv, &mp, &p, &out, &merge);
    p.rate.total_steps = steps, p.rate.warmup_steps = steps / 20;
    merge.adapter.path = out.path;
    if (sm_model_open(&mp, &model, &error)) why = error.text;
    p.model = model;
    if (!why && !(ids = text_ids(model, data, p.n_ctx, &n_ids, &error))) why = error.text;
    if (!why && sm_trainer_create(&p, &trainer, &error)) why = error.text;
    tokens = (int32_t *)malloc(8 * (size_t)p.n_batch * (size_t)p.n_ctx);
    if (!tokens) why = "no memory";
    signal(SIGINT, stop);
    if (!why && learn(trainer, p.n_batch, p.n_ctx, p.seed, tokens)) why = sm_trainer_error(trainer);
    if (!why && sm_trainer_write_adapter(trainer, &out, &error)) why = error.text;
    if (!why && merge.out.path && sm_quantize(model, &merge, &error)) why = error.text;
    if (why) say(stderr, "finetune: %s\n", why);
    sm_trainer_destroy(trainer);
    sm_model_close(model);
    free(tokens);
    free(ids);
    return why != NULL;
}
