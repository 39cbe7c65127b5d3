/* bench_blas.c - the F32 matmul kernel beside a BLAS's sgemm, on one thread: n rows of weights of
 * length K by some rows of activations, alternating, the median of the pairs' ratios.
 *
 *     cc -O2 bench/bench_blas.c -o bench_blas -lpthread -ldl
 *     ./bench_blas            wants libopenblas.so.0 (Debian: libopenblas0-pthread)
 *
 * Ours keeps the order of sums that is written at the kernel; the BLAS is free to choose. The
 * weights are handed over in the pieces that a step's tiles have. */
static const char usage[] = "usage: bench_blas [options]\n"
                            "  --blas FILE     a library that has cblas_sgemm (libopenblas.so.0)\n"
                            "  --isa LEVEL     ours (the best)\n"
                            "  --n N           rows of weights (512)\n"
                            "  --pairs N       for each size (9)\n";
#include "bench.h"

#include <dlfcn.h>

#define TILE 64
#define MAX_PAIRS 99

typedef void (*sgemm_fn)(int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
                         const float *a, int lda, const float *b, int ldb, float beta, float *c,
                         int ldc);

static sgemm_fn load_sgemm(const char *file) {
    union {
        void *object;
        sgemm_fn gemm;
        void (*threads)(int);
    } f; /* dlsym's pointers are to objects */
    void *library = dlopen(file, RTLD_NOW);
    if (!library) arg_fail("%s cannot be opened: say --blas FILE", file);
    f.object = dlsym(library, "openblas_set_num_threads");
    if (f.object) f.threads(1);
    f.object = dlsym(library, "cblas_sgemm");
    if (!f.object) arg_fail("%s has no cblas_sgemm", file);
    return f.gemm;
}

static void one_size(const sm__kernels *kernels, sgemm_fn gemm, int rows, int n, int k, int pairs) {
    /* As in a context, rows of activations are not a multiple of 1 KB apart. */
    int stride = k % 256 ? k : k + 16, pair, o;
    float *w = (float *)bench_alloc((size_t)n * (size_t)k * 4);
    float *x = (float *)bench_alloc((size_t)rows * (size_t)stride * 4);
    float *out = (float *)bench_alloc((size_t)rows * (size_t)n * 4);
    void *scratch = bench_alloc(SM__MATMUL_SCRATCH(k));
    double ours[MAX_PAIRS], theirs[MAX_PAIRS], ratio[MAX_PAIRS], work = 2e-9 * rows * n * k;
    sm__acts a;
    memset(&a, 0, sizeof a);
    a.x = x;
    a.x_stride = (size_t)stride;
    bench_fill(w, (size_t)n * (size_t)k, 1.0f, 1);
    bench_fill(x, (size_t)rows * (size_t)stride, 1.0f, 2);
    for (pair = -1; pair < pairs; pair++) { /* the first one warms up */
        double t0 = bench_now(), t1, t2;
        for (o = 0; o < n; o += TILE)
            kernels->matmul[SM__T_F32](w + (size_t)o * (size_t)k, (size_t)k * 4,
                                       sm__min(TILE, n - o), k, &a, rows, out + o, (size_t)n,
                                       scratch);
        t1 = bench_now();
        gemm(101, 111, 112, rows, n, k, 1.0f, x, stride, w, k, 0.0f, out, n);
        t2 = bench_now();
        if (pair < 0) continue;
        ours[pair] = work / (t1 - t0);
        theirs[pair] = work / (t2 - t1);
        ratio[pair] = ours[pair] / theirs[pair];
    }
    say(stdout, "%4d rows  %5d x %-5d  ours %6.1f  BLAS %6.1f GFLOPS  ratio %.2f\n", rows, n, k,
        bench_median(ours, pairs), bench_median(theirs, pairs), bench_median(ratio, pairs));
    free(w);
    free(x);
    free(out);
    free(scratch);
}

int main(int argc, char **argv) {
    static const int depths[] = {512, 576, 1024, 1536, 2048, 4096, 8192}, rows[] = {64, 256};
    const char *file = "libopenblas.so.0";
    int i, d, isa = SM_ISA_AUTO, n = 512, pairs = 9;
    sm__kernels kernels;
    sgemm_fn gemm;
    for (i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--blas")) file = arg_text(argc, argv, &i);
        else if (!strcmp(argv[i], "--isa")) isa = arg_isa(argc, argv, &i);
        else if (!strcmp(argv[i], "--n")) n = arg_int(argc, argv, &i, 1, 65536);
        else if (!strcmp(argv[i], "--pairs")) pairs = arg_int(argc, argv, &i, 1, MAX_PAIRS);
        else arg_fail("what is \"%s\"?", argv[i]);
    }
    if (sm__kernels_init(&kernels, isa)) arg_fail("this processor has no %s", sm_isa_name(isa));
    gemm = load_sgemm(file);
    say(stdout, "kernels %s, one thread\n", sm_isa_name(kernels.isa));
    for (i = 0; i < 2; i++)
        for (d = 0; d < (int)(sizeof depths / sizeof *depths); d++)
            one_size(&kernels, gemm, rows[i], n, depths[d], pairs);
    return 0;
}
