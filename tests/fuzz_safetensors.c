/* safetensors files with their config.json, indexes of shards, and llama2.c files. Input: two bytes
 * with the length of the config, that, and the model file. Of an index, three shards are made up,
 * each with one of three tensors. The config of a llama2.c file is its tokenizer. See fuzz.h. */
#include "fuzz.h"

static const char *const fuzz_names[3] = {"model.norm.weight", "lm_head.weight", "x"};

/* dim 4, hidden 6, 1 layer, 2 heads of 2, 1 kv head, vocabulary 2, 3 positions. */
static size_t fuzz_llama2c(uint8_t *data, unsigned version, unsigned group) {
    static const uint8_t tokenizer[] = {20, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1,
                                        0,  0, 0, 'a', 0, 0, 0, 0, 0, 0, 0};
    int32_t head[9] = {0x616b3432, 0, 4, 6, 1, 2, 1, 2, 3};
    size_t n = 8 + 16 + 8 + 8 + 16 + 3 * 24, norms = 3 * 4; /* weights */
    memset(data, 0, 1024);
    memcpy(data, tokenizer, sizeof tokenizer);
    data += sizeof tokenizer;
    head[1] = (int32_t)version;
    if (version == 0) memcpy(data, head + 2, 28);
    else memcpy(data, head, sizeof head);
    if (version == 0) return sizeof tokenizer + 28 + 4 * (n + norms + 3 * 2);
    data[36] = 1;
    if (version == 1) return sizeof tokenizer + 256 + 4 * (n + norms);
    memcpy(data + 37, &group, 4);
    return sizeof tokenizer + 256 + 4 * norms + n + n / group * 4;
}

static size_t fuzz_example(uint8_t *data, size_t max, unsigned number) {
    static const char config[] =
        "{\"model_type\":\"llama\",\"hidden_size\":2,\"num_hidden_layers\":1,"
        "\"hidden_act\":\"silu\",\"num_attention_heads\":1,\"num_key_value_heads\":1,"
        "\"intermediate_size\":1,\"vocab_size\":1,\"max_position_embeddings\":4,"
        "\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,"
        "\"low_freq_factor\":1.0,\"high_freq_factor\":4.0}}";
    static const char index[] =
        "{\"metadata\":{\"total_size\":8},\"weight_map\":{\"model.norm.weight\":\"a.safetensors\","
        "\"lm_head.weight\":\"b.safetensors\",\"x\":\"c.safetensors\"}}";
    static const struct {
        const char *name, *shape;
        unsigned elems;
    } list[] = {{"embed_tokens", "1,2", 2},
                {"norm", "2", 2},
                {"layers.0.input_layernorm", "2", 2},
                {"layers.0.self_attn.q_proj", "2,2", 4},
                {"layers.0.self_attn.k_proj", "2,2", 4},
                {"layers.0.self_attn.v_proj", "2,2", 4},
                {"layers.0.self_attn.o_proj", "2,2", 4},
                {"layers.0.post_attention_layernorm", "2", 2},
                {"layers.0.mlp.gate_proj", "1,2", 2},
                {"layers.0.mlp.up_proj", "1,2", 2},
                {"layers.0.mlp.down_proj", "2,1", 2}};
    char *out = (char *)data + 2, *start;
    unsigned i, at = 0;
    uint64_t length;
    if (max < 4096) return 0;
    if (number % 3 == 2) return fuzz_llama2c(data, number / 3 % 3, 1u << number / 9 % 3);
    memset(data, 0, 4096);
    data[0] = (uint8_t)(sizeof config - 1);
    data[1] = (uint8_t)((sizeof config - 1) >> 8);
    out += sprintf(out, "%s", config);
    if (number & 1) return (size_t)(out + sprintf(out, "%s", index) - (char *)data);
    start = out + 8;
    out = start + sprintf(start, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (i = 0; i < sizeof list / sizeof *list; at += 2 * list[i++].elems)
        out += sprintf(out, ",\"model.%s.weight\":{\"dtype\":\"%s\",\"shape\":[%s],"
                       "\"data_offsets\":[%u,%u]}", list[i].name, number & 2 ? "F16" : "BF16",
                       list[i].shape, at, at + 2 * list[i].elems);
    *out++ = '}';
    length = (uint64_t)(out - start);
    memcpy(start - 8, &length, 8);
    memset(out, 0, at);
    return (size_t)(out + at - (char *)data);
}

/* What is done with an index before and after its shards are opened. */
static void fuzz_index(const sm__bytes *index) {
    sm_model *m = sm__model_new(NULL);
    sm__st_entry entries[3];
    sm__named names[3];
    sm__st st;
    int i;
    memset(&st, 0, sizeof st);
    memset(entries, 0, sizeof entries);
    st.m = m;
    st.entries = entries;
    st.index = names;
    st.n = 3;
    if (m && sm__index_files(&st, index) == SM_OK && st.n_files) {
        for (i = 0; i < 3; i++) {
            names[i].name = entries[i].name = sm__str_of(fuzz_names[i]);
            names[i].i = i;
            entries[i].file = i % st.n_files;
        }
        sm__named_sort(names, 3);
        (void)sm__index_check(&st, index);
    }
    sm_model_close(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    sm_model_params p = sm_model_default();
    sm__bytes file;
    size_t config = n > 1 ? data[0] + 256u * data[1] : 0;
    if (n < 3 + config) return 0;
    memset(&file, 0, sizeof file);
    file.p = data + 2 + config;
    file.n = n - 2 - config;
    if (sm__is_index(&file)) fuzz_index(&file);
    p.config.data = config ? data + 2 : NULL;
    p.config.bytes = config;
    p.file.data = file.p;
    p.file.bytes = file.n;
    if (!sm__is_safetensors(&file)) p.tokenizer = p.config;
    fuzz_open(&p);
    return 0;
}
