/* Any function of one int8: its 256 results, from that of -128 on. */
typedef struct {
    int32_t count;
    const int8_t *table;
} lookup_s8_t;

static void lookup_s8(const lookup_s8_t *p, const int8_t *in, int8_t *out, void *scratch) {
    (void)scratch;
    for (int32_t i = 0; i < p->count; ++i) {
        out[i] = p->table[in[i] + 128];
    }
}
