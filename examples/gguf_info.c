/* gguf_info.c - what is in a model file: format, hyperparameters, metadata, tensors, totals.
 *
 *     cc -O2 examples/gguf_info.c -o gguf_info -lpthread
 *     ./gguf_info model.gguf
 *
 * Also reads llama2.c .bin and .safetensors. A file that holds a vocabulary only is shown too. */
static const char usage[] =
    "usage: gguf_info MODEL [-v]\n"
    "  MODEL   .gguf, llama2.c .bin, or .safetensors with config.json beside it\n"
    "  -v      metadata values in full length\n";
#include "common.h"

static void show_shape(const sm_model_info *info) {
    say(stdout, "format       %s\n", info->format);
    say(stdout, "architecture %s\n", *info->arch ? info->arch : "(vocabulary only)");
    if (*info->name) say(stdout, "name         %s\n", info->name);
    if (*info->arch) {
        say(stdout, "layers       %d\n", info->n_layers);
        say(stdout, "width        %d, feed-forward %d\n", info->n_embd, info->n_ff);
        say(stdout, "heads        %d query, %d key/value, of width %d\n", info->n_heads,
            info->n_kv_heads, info->head_dim);
        say(stdout, "context      %d tokens in training\n", info->n_ctx_train);
    }
    say(stdout, "vocabulary   %d%s%s\n", info->n_vocab, info->has_vocab ? ", tokenizer " : "",
        info->has_vocab ? info->tokenizer : "");
    if (info->has_vocab)
        say(stdout, "special ids  bos %d, eos %d, eot %d, unk %d, pad %d\n", (int)info->bos,
            (int)info->eos, (int)info->eot, (int)info->unk, (int)info->pad);
}

static void show_meta(const sm_model *model, int n, int full) {
    static char value[1 << 16]; /* chat templates are long */
    char key[512];
    int i;
    say(stdout, "\nmetadata (%d)\n", n);
    for (i = 0; i < n; i++) {
        const char *text;
        size_t length, shown;
        if (!sm_model_meta_at(model, i, key, sizeof key)) continue;
        text = sm_model_meta(model, key, value, sizeof value);
        if (!text) text = "(none)";
        length = strlen(text);
        shown = full || length <= 100 ? length : 97;
        say(stdout, "  %-44s ", key);
        for (; shown; shown--, text++) /* one line an entry, and no control bytes to a terminal */
            fputc((unsigned char)*text < 32 || *text == 127 ? ' ' : *text, stdout);
        say(stdout, "%s\n", full || length <= 100 ? "" : "...");
    }
}

static void show_tensors(const sm_model *model, const sm_model_info *info) {
    struct {
        int n;
        uint64_t elems, bytes;
    } sums[64];
    sm_tensor t;
    int i, j;
    memset(sums, 0, sizeof sums);
    say(stdout, "\ntensors (%d)\n", info->n_tensors);
    for (i = 0; i < info->n_tensors && sm_model_tensor(model, i, &t) == SM_OK; i++) {
        const sm_type_info *type = sm_type_get_info(t.type);
        char dims[96] = "";
        uint64_t elems = 1;
        for (j = 0; j < t.n_dims; j++) {
            size_t at = strlen(dims);
            elems *= t.dims[j];
            format(dims + at, sizeof dims - at, j ? " x %llu" : "%llu",
                   (unsigned long long)t.dims[j]);
        }
        say(stdout, "  %-32s %-5s %20s %13llu bytes\n", t.name, type ? type->name : "?", dims,
            (unsigned long long)t.bytes);
        if (t.type < 0 || t.type >= 64) continue;
        sums[t.type].n++;
        sums[t.type].elems += elems;
        sums[t.type].bytes += t.bytes;
    }
    say(stdout, "\ntotals\n");
    for (i = 0; i < 64; i++)
        if (sums[i].n)
            say(stdout, "  %-5s %5d tensors %14llu elements %14llu bytes, %.2f bits each\n",
                sm_type_get_info(i) ? sm_type_get_info(i)->name : "?", sums[i].n,
                (unsigned long long)sums[i].elems, (unsigned long long)sums[i].bytes,
                (double)sums[i].bytes * 8.0 / (double)(sums[i].elems ? sums[i].elems : 1));
    say(stdout, "  %.3f million parameters, %.2f MB of weights, %.2f MB read for a token\n",
        (double)info->n_params * 1e-6, (double)info->weight_bytes * 1e-6,
        (double)info->decode_bytes * 1e-6);
    say(stdout, "  in memory now: %.2f MB mapped, %.2f MB allocated\n",
        (double)info->mapped_bytes * 1e-6, (double)info->heap_bytes * 1e-6);
}

int main(int argc, char **argv) {
    sm_model_params mp = sm_model_default();
    sm_model *model = NULL;
    sm_error error;
    int i, full = 0;
    for (i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "-v")) full = 1;
        else if (argv[i][0] == '-' || mp.file.path) arg_fail("what is \"%s\"?", argv[i]);
        else mp.file.path = argv[i];
    }
    if (!mp.file.path) arg_fail("MODEL is missing");
    /* What cannot be run can still be looked at: types and architectures that are not supported. */
    if (sm_model_open(&mp, &model, &error) == SM_ERR_UNSUPPORTED) {
        mp.vocab_only = 1;
        sm_model_open(&mp, &model, &error);
    }
    if (!model) {
        say(stderr, "gguf_info: %s\n", error.text);
        return 1;
    }
    show_shape(sm_model_get_info(model));
    show_meta(model, sm_model_get_info(model)->n_meta, full);
    show_tensors(model, sm_model_get_info(model));
    sm_model_close(model);
    return 0;
}
