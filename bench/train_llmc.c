/* train_llmc.c - bench_train's step of GPT-2's shape in llm.c's reference for processors.
 *
 *     cc -Ofast -march=native -fopenmp -DOMP -I LLM.C bench/train_llmc.c -o train_llmc -lm
 *     OMP_NUM_THREADS=2 ./train_llmc -n 3
 *
 * LLM.C is a clone of github.com/karpathy/llm.c; the flags are its Makefile's. It reads its weights
 * from a file only, so this program writes random ones first (500 MB, removed again). The first
 * step is not counted, as in bench_train. */
#define TESTING
#include "train_gpt2.c"

#include <sys/resource.h>

enum { BATCH = 4, LENGTH = 64, MAX_STEPS = 1000 };

static unsigned next(unsigned *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Weights of variance 0.02 squared, norms of 1, biases of 0, in the order of its tensors. */
static void write_weights(FILE *file) {
    static const char kinds[] = "nn10n0n010n0n010"; /* n: a random matrix; 1, 0: all so */
    int header[256] = {20240326, 3, 1024, 50257, 12, 12, 768, 50304};
    const size_t c = 768, l = 12;
    const size_t sizes[] = {50304 * c, 1024 * c, l * c, l * c, l * 3 * c * c, l * 3 * c, l * c * c,
                            l * c, l * c, l * c, l * 4 * c * c, l * 4 * c, l * c * 4 * c, l * c,
                            c, c};
    unsigned state = 1;
    fwrite(header, sizeof header, 1, file);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (size_t k = 0; k < sizes[i]; k++) {
            float uniform = (float)next(&state) / 8388608.0f - 1.0f; /* variance 1/3 */
            float v = kinds[i] == 'n' ? 0.0346410f * uniform : (float)(kinds[i] - '0');
            fwrite(&v, sizeof v, 1, file);
        }
}

static double clock_ms(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    static int tokens[BATCH * LENGTH + 1];
    static double wall[MAX_STEPS];
    int steps = argc == 3 && !strcmp(argv[1], "-n") ? atoi(argv[2]) : 3;
    char path[] = "/tmp/train_llmc.XXXXXX";
    int fd = mkstemp(path);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "wb");
    double cpu = 0;
    float first = 0;
    unsigned state = 12345;
    struct rusage usage;
    GPT2 model;
    if (!file || steps < 1 || steps > MAX_STEPS) return 2;
    write_weights(file);
    if (fclose(file)) return 2;
    freopen("/dev/null", "w", stdout) ? (void)0 : exit(2); /* it prints what it reads */
    gpt2_build_from_checkpoint(&model, path);
    unlink(path);
    for (int i = 0; i <= BATCH * LENGTH; i++) tokens[i] = (int)(next(&state) % 50257);
    for (int step = 0; step <= steps; step++) {
        double start = clock_ms(CLOCK_MONOTONIC);
        gpt2_forward(&model, tokens, tokens + 1, BATCH, LENGTH);
        gpt2_zero_grad(&model);
        gpt2_backward(&model);
        gpt2_update(&model, 3e-4f, 0.9f, 0.95f, 1e-8f, 0.1f, step + 1);
        if (step) wall[step - 1] = clock_ms(CLOCK_MONOTONIC) - start;
        else cpu = clock_ms(CLOCK_PROCESS_CPUTIME_ID), first = model.mean_loss;
    }
    cpu = (clock_ms(CLOCK_PROCESS_CPUTIME_ID) - cpu) / steps;
    qsort(wall, (size_t)steps, sizeof *wall, ascending);
    getrusage(RUSAGE_SELF, &usage);
    fprintf(stderr,
            "{\"shape\":\"gpt2-124m\",\"min_ms\":%.3f,\"median_ms\":%.3f,\"cpu_ms\":%.3f,"
            "\"tok_s\":%.1f,\"rss_mb\":%.1f,\"first_loss\":%.5f,\"loss\":%.5f}\n",
            wall[0], wall[steps / 2], cpu, BATCH * LENGTH * 1e3 / wall[steps / 2],
            (double)usage.ru_maxrss / 1024, first, model.mean_loss);
    return 0;
}
