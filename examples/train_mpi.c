/* train_mpi.c - data-parallel training over Open MPI: every rank computes the gradients of some
 * micro-batches, all of them are added up in one fixed order, and every rank takes the same step.
 *
 *     mpicc -O2 examples/train_mpi.c -o train_mpi -lpthread
 *     mpirun -n 4 ./train_mpi shakespeare.txt 20
 *
 * Floating-point sums depend on their order. Here a step has 4 micro-batches whatever the number of
 * ranks, and the sum goes along them as ((g0 + g1) + g2) + g3: 1, 2 and 4 ranks give the same bits.
 * An engine that reduces gradients itself needs sm_trainer_flat_grads only. */
static const char usage[] = "usage: mpirun -n 1|2|4 train_mpi TEXT STEPS\n";
#include "common.h"

#include <mpi.h>

enum { MICRO = 4, BATCH = 4, CONTEXT = 64, WINDOW = BATCH * CONTEXT };

typedef struct run {
    int rank, n_ranks, mine, first; /* micro-batches [first, first + mine) are this rank's */
    int32_t *ids;
    int n_ids;
    sm_trainer *trainer;
    float *grads[MICRO], *sum; /* [n_flat] of each own micro-batch; of all */
    size_t n_flat;
} run;

static void fail(const char *why) {
    say(stderr, "train_mpi: %s\n", why);
    MPI_Abort(MPI_COMM_WORLD, 1);
}

static void *memory(size_t n) {
    void *p = malloc(n);
    if (!p) fail("no memory");
    return p;
}

/* The characters of a text as ids; all ranks read it, and make the same vocabulary. */
static int read_ids(run *r, const char *path) {
    sm_vocab_params vp = sm_vocab_default();
    sm_vocab *vocab = NULL;
    sm_model *model = NULL;
    sm_tokenizer *tokenizer = NULL;
    sm_error error;
    size_t n;
    char *text = read_file(path, &n);
    int n_vocab;
    if (!text || n > 1u << 28) fail(text ? "the text is too large" : "the text cannot be read");
    r->ids = (int32_t *)memory((2 * n + 2) * sizeof *r->ids);
    vp.characters = 1;
    if (sm_vocab_train(&vp, text, n, &vocab, &error) ||
        sm_vocab_open(vocab, NULL, &model, &error) ||
        sm_tokenizer_create(model, n, NULL, &tokenizer, &error) ||
        sm_tokenize(tokenizer, text, n, SM_TEXT_BYTES, r->ids, (int)(2 * n + 2), &r->n_ids))
        fail(error.text);
    n_vocab = vocab->n_tokens;
    sm_tokenizer_destroy(tokenizer);
    sm_model_close(model);
    sm_vocab_destroy(vocab);
    free(text);
    if (r->n_ids <= CONTEXT) fail("the text is shorter than a window");
    return n_vocab;
}

static void make_trainer(run *r, int n_vocab) {
    sm_trainer_params p = sm_trainer_default();
    sm_error error;
    int i;
    p.n_vocab = n_vocab;
    p.n_embd = 64;
    p.n_layers = 2;
    p.n_heads = 4;
    p.tied = 1;
    p.n_ctx = CONTEXT;
    p.n_batch = BATCH;
    p.rate.rate = 0.003f;
    p.clip_norm = 1.0f;
    p.seed = 1; /* the same first weights everywhere */
    p.n_threads = 1;
    if (sm_trainer_create(&p, &r->trainer, &error)) fail(error.text);
    sm_trainer_flat_grads(r->trainer, &r->n_flat);
    for (i = 0; i < r->mine; i++) r->grads[i] = (float *)memory(r->n_flat * sizeof(float));
    r->sum = (float *)memory(r->n_flat * sizeof(float));
}

/* Gradients of micro-batch m of a step; its mean loss. */
static double micro_batch(run *r, int step, int m, float *grads) {
    static int32_t tokens[WINDOW], targets[WINDOW];
    sm_train_batch b;
    sm_train_stats stats;
    int i;
    for (i = 0; i < BATCH; i++) {
        uint64_t draw = ((uint64_t)step * MICRO + (uint64_t)m) * BATCH + (uint64_t)i;
        uint64_t at = sm_random(1, 2, draw) * (uint64_t)(r->n_ids - CONTEXT) >> 32;
        memcpy(tokens + i * CONTEXT, r->ids + at, CONTEXT * sizeof *tokens);
        memcpy(targets + i * CONTEXT, r->ids + at + 1, CONTEXT * sizeof *targets);
    }
    memset(&b, 0, sizeof b);
    b.n_seqs = BATCH;
    b.tokens = tokens;
    b.targets = targets;
    b.n_targets = MICRO * WINDOW; /* of all ranks: the gradients are those of the common mean */
    if (sm_trainer_backward(r->trainer, &b, &stats)) fail(sm_trainer_error(r->trainer));
    memcpy(grads, sm_trainer_flat_grads(r->trainer, NULL), r->n_flat * sizeof(float));
    return stats.loss;
}

/* The sum passes from rank to rank, each adds its micro-batches; the last one tells all. */
static void add_up(run *r) {
    int n = (int)r->n_flat, i;
    size_t j;
    if (r->rank) MPI_Recv(r->sum, n, MPI_FLOAT, r->rank - 1, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    else memset(r->sum, 0, r->n_flat * sizeof(float));
    for (i = 0; i < r->mine; i++)
        for (j = 0; j < r->n_flat; j++) r->sum[j] += r->grads[i][j];
    if (r->rank + 1 < r->n_ranks)
        MPI_Send(r->sum, n, MPI_FLOAT, r->rank + 1, 0, MPI_COMM_WORLD);
    MPI_Bcast(r->sum, n, MPI_FLOAT, r->n_ranks - 1, MPI_COMM_WORLD);
    memcpy(sm_trainer_flat_grads(r->trainer, NULL), r->sum, r->n_flat * sizeof(float));
}

int main(int argc, char **argv) {
    run r;
    int steps, step, i;
    memset(&r, 0, sizeof r);
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &r.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &r.n_ranks);
    steps = argc == 3 ? atoi(argv[2]) : 0;
    if (steps < 1 || MICRO % r.n_ranks) fail(usage);
    r.mine = MICRO / r.n_ranks;
    r.first = r.rank * r.mine;
    make_trainer(&r, read_ids(&r, argv[1]));
    for (step = 0; step < steps; step++) {
        double part[MICRO], all[MICRO], loss = 0.0;
        sm_train_stats stats;
        for (i = 0; i < r.mine; i++) part[i] = micro_batch(&r, step, r.first + i, r.grads[i]);
        add_up(&r);
        if (sm_trainer_update(r.trainer, &stats)) fail(sm_trainer_error(r.trainer));
        MPI_Allgather(part, r.mine, MPI_DOUBLE, all, r.mine, MPI_DOUBLE, MPI_COMM_WORLD);
        for (i = 0; i < MICRO; i++) loss += all[i] / MICRO;
        if (r.rank) continue;
        say(stdout, "step %d loss %.17g norm %.17g\n", step + 1, loss, stats.grad_norm);
    }
    sm_trainer_destroy(r.trainer);
    for (i = 0; i < r.mine; i++) free(r.grads[i]);
    free(r.sum);
    free(r.ids);
    MPI_Finalize();
    return 0;
}
