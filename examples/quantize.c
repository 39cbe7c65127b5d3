/* quantize.c - a model in another type, as GGUF: quantises, and converts from the other formats.
 *
 *     cc -O2 examples/quantize.c -o quantize -lpthread
 *     ./quantize stories15M.bin stories15M.gguf Q8_0 -z tokenizer.bin
 *
 * OUT is replaced only when all of it is on the disk. */
static const char usage[] =
    "usage: quantize IN OUT TYPE [options]\n"
    "  IN        .gguf, llama2.c .bin, .safetensors with config.json beside it\n"
    "  TYPE      F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS\n"
    "            MXFP4 TQ1_0 TQ2_0, or a mix: Qn_K_S Qn_K_M Q3_K_L IQ4_XS_M IQ4_NL_M\n"
    "  -z FILE   tokenizer.bin, tokenizer.json  -t N      threads, 0 = all processors (0)\n"
    "  --check   measure the error of each type  --adapter FILE  a LoRA adapter that is merged\n";
#include "common.h"

typedef struct job {
    int terminal, check;
    int n[64]; /* tensors of each type, and sums over them; the last two of squares */
    double elems[64], bytes[64], error[64], squares[64];
    uint64_t done; /* bytes before this tensor */
} job;

/* A line that is written over on a terminal, a line for every tensor elsewhere. */
static int show(void *user, const sm_quantize_progress *p) {
    job *j = (job *)user;
    double elems = 1.0, percent = 100.0 * (double)p->done_bytes / (double)p->total_bytes;
    int i;
    if (j->terminal)
        say(stderr, "\r%5.1f %%  %d of %d  %-40s", percent, p->i_tensor + 1, p->n_tensors,
            p->tensor.name);
    else if (p->finished)
        say(stderr, "%5.1f %%  %-32s %-5s -> %s\n", percent, p->tensor.name,
            type_name(p->tensor.type), type_name(p->type));
    if (!p->finished) return 0;
    for (i = 0; i < p->tensor.n_dims; i++) elems *= (double)p->tensor.dims[i];
    i = p->type & 63;
    j->n[i]++;
    j->elems[i] += elems;
    j->bytes[i] += (double)(p->done_bytes - j->done);
    j->error[i] += elems * p->mse;
    j->squares[i] += elems * p->mean_square;
    j->done = p->done_bytes;
    return 0;
}

static void show_line(void *user, int level, const char *text) {
    if (level > 0) say(stderr, "%s%s\n", ((job *)user)->terminal ? "\r" : "", text);
}

static double root(double x) { /* Newton's: no -lm is needed */
    double r = 1.0;
    int i = 0;
    while (i++ < 60) r = 0.5 * (r + x / r);
    return r;
}

static void show_sums(const job *j, const sm_model_info *info) {
    int i;
    if (j->terminal) say(stderr, "\r%70s\r", "");
    for (i = 0; i < 64; i++) {
        if (!j->n[i]) continue;
        say(stdout, "%-5s %4d tensors %10.2f MB %6.3f bits each", type_name(i), j->n[i],
            j->bytes[i] * 1e-6, j->bytes[i] * 8.0 / j->elems[i]);
        if (j->check && j->squares[i] > 0.0)
            say(stdout, "   RMSE %.3e, %.5f of the values' RMS", root(j->error[i] / j->elems[i]),
                root(j->error[i] / j->squares[i]));
        say(stdout, "\n");
    }
    say(stdout, "weights %.2f MB -> %.2f MB\n", (double)info->weight_bytes * 1e-6,
        (double)j->done * 1e-6);
}

int main(int argc, char **argv) {
    sm_model_params mp = sm_model_default();
    sm_quantize_params qp = sm_quantize_default();
    sm_team_params tp = sm_team_default();
    sm_model *model = NULL;
    sm_error error;
    sm_status status;
    static job j;
    int i, n = 0;
    for (i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "-z")) mp.tokenizer.path = arg_text(argc, argv, &i);
        else if (!strcmp(argv[i], "-t")) tp.n_threads = arg_int(argc, argv, &i, 0, 256);
        else if (!strcmp(argv[i], "--adapter")) qp.adapter.path = arg_text(argc, argv, &i);
        else if (!strcmp(argv[i], "--check")) qp.check = j.check = 1;
        else if (argv[i][0] == '-' || n == 3) arg_fail("what is \"%s\"?", argv[i]);
        else if (n++ == 0) mp.file.path = argv[i];
        else if (n == 2) qp.out.path = argv[i];
        else arg_type(argv[i], &qp);
    }
    if (n < 3) arg_fail("IN, OUT and TYPE are needed");
    j.terminal = isatty(2);
    qp.progress = show, qp.log = show_line;
    qp.progress_user = qp.log_user = &j;
    status = sm_model_open(&mp, &model, &error);
    if (!status) status = sm_team_create(&tp, &qp.team, &error);
    if (!status) status = sm_quantize(model, &qp, &error);
    if (!status) show_sums(&j, sm_model_get_info(model));
    else say(stderr, "%squantize: %s\n", j.terminal ? "\n" : "", error.text);
    sm_team_destroy(qp.team);
    sm_model_close(model);
    return status != SM_OK;
}
