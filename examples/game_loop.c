/* game_loop.c - a character that thinks inside the frame: a loop at 60 Hz gives the model 2 ms of
 * each frame and prints what the frames took.
 *
 *     cc -O2 examples/game_loop.c -o game_loop -lpthread
 *     ./game_loop -m stories260K.gguf
 *
 * The generated text goes to stdout, the frame times to stderr. "late" counts frames in which the
 * model took over 0.5 ms more than it was given: with one tile at most 100 us long, that is the
 * operating system taking the processor away. */
#define _POSIX_C_SOURCE 200112L
#include <time.h>
static const char usage[] =
    "usage: game_loop -m MODEL [options]\n"
    "  -m FILE       the model                    -z FILE      tokenizer.bin or .json\n"
    "  -p TEXT       prompt                       -n N         new tokens (200)\n"
    "  --budget US   microseconds a frame (2000)  --threads T  0 = all processors (1)\n"
    "  --hz N        frames a second (60)\n";
#include "common.h"

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

static void sleep_until(uint64_t when_us) {
    uint64_t now = now_us();
    struct timespec t;
    if (now >= when_us) return;
    t.tv_sec = (time_t)((when_us - now) / 1000000u);
    t.tv_nsec = (long)((when_us - now) % 1000000u) * 1000;
    nanosleep(&t, NULL);
}

typedef struct frames {
    uint64_t n, late, sum_us, worst_us, first_piece; /* first_piece: the frame that showed text */
} frames;

/* One frame: the game's own work would stand here, then the model has what is left. */
static sm_status frame(sm_gen *gen, int64_t budget_us, frames *f) {
    uint64_t start = now_us(), used = 0;
    sm_status status = SM_PENDING;
    /* A step also returns after each token, so a small model makes several in one frame. */
    while (status == SM_PENDING && used < (uint64_t)budget_us) {
        size_t bytes;
        const char *piece;
        status = sm_gen_step(gen, budget_us - (int64_t)used);
        used = now_us() - start;
        if (status < 0) return status;
        piece = sm_gen_piece(gen, &bytes);
        fwrite(piece, 1, bytes, stdout);
        if (bytes && !f->first_piece) f->first_piece = f->n + 1;
    }
    f->n++;
    f->sum_us += used;
    if (used > f->worst_us) f->worst_us = used;
    if (used > (uint64_t)budget_us + 500) f->late++;
    return status;
}

int main(int argc, char **argv) {
    sm_model_params mp = sm_model_default();
    sm_ctx_params cp = sm_ctx_default();
    sm_gen_params gp = sm_gen_default();
    sm_model *model = NULL;
    sm_ctx *ctx = NULL;
    sm_gen *gen = NULL;
    sm_error error;
    sm_status status;
    frames f;
    int i, budget_us = 2000, hz = 60;
    uint64_t next;
    memset(&f, 0, sizeof f);
    cp.amx = 1;
    cp.n_threads = 1; /* a game has better use for the other processors */
    gp.prompt = "Once upon a time";
    gp.max_tokens = 200;
    for (i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (!strcmp(a, "-m")) mp.file.path = arg_text(argc, argv, &i);
        else if (!strcmp(a, "-z")) mp.tokenizer.path = arg_text(argc, argv, &i);
        else if (!strcmp(a, "-p")) gp.prompt = arg_text(argc, argv, &i);
        else if (!strcmp(a, "-n")) gp.max_tokens = arg_int(argc, argv, &i, 1, 1 << 30);
        else if (!strcmp(a, "--budget")) budget_us = arg_int(argc, argv, &i, 1, 1000000);
        else if (!strcmp(a, "--threads")) cp.n_threads = arg_int(argc, argv, &i, 0, 256);
        else if (!strcmp(a, "--hz")) hz = arg_int(argc, argv, &i, 1, 1000);
        else arg_fail("what is \"%s\"?", a);
    }
    if (!mp.file.path) arg_fail("-m MODEL is missing");
    if (sm_model_open(&mp, &model, &error) ||
        open_ctx(model, cp, gp.prompt, gp.max_tokens, &ctx, &error)) {
        say(stderr, "game_loop: %s\n", error.text);
        sm_model_close(model);
        return 1;
    }
    status = sm_gen_start(ctx, &gp, &gen);
    for (next = now_us(); status >= 0;) {
        status = frame(gen, budget_us, &f);
        fflush(stdout);
        if (status != SM_PENDING) break;
        next += 1000000u / (unsigned)hz;
        sleep_until(next);
    }
    say(stdout, "\n");
    if (status < 0) say(stderr, "game_loop: %s\n", sm_ctx_error(ctx));
    else
        say(stderr,
            "%d tokens in %d frames of %.1f ms, first text in frame %d; the model's share "
            "of a frame: %d us asked, %.0f us mean, %d us worst, %d late\n",
            sm_gen_get_stats(gen).new_tokens, (int)f.n, 1000.0 / hz, (int)f.first_piece, budget_us,
            (double)f.sum_us / (double)(f.n ? f.n : 1), (int)f.worst_us, (int)f.late);
    sm_ctx_destroy(ctx);
    sm_model_close(model);
    return status < 0;
}
