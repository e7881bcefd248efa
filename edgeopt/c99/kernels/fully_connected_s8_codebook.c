/* needs: fully_connected_s8_parts unpack */
/* The same with weights that are looked up, those of two units `chunk` (a multiple of 128) at a time. */
typedef struct {
    fully_connected_s8_t dense;
    packed_t weights;
    int32_t chunk;
} fully_connected_s8_codebook_t;

static void fully_connected_s8_codebook(
    const fully_connected_s8_codebook_t *p, const int8_t *in, int8_t *out, void *scratch
) {
    const fully_connected_s8_t *d = &p->dense;
    int8_t *weights = (int8_t *)scratch;
    for (int32_t row = 0; row < d->rows; ++row, in += d->depth, out += d->units) {
        const int32_t shared = fully_connected_s8_shared(d, in);
        for (int32_t o = 0; o < d->units; o += 2) {
            const int32_t next = o + 1 < d->units ? 1 : 0;
            int32_t sums[2] = {d->bias[o] - shared, d->bias[o + next] - shared};
            for (int32_t i = 0; i < d->depth; i += p->chunk) {
                const int32_t count = d->depth - i < p->chunk ? d->depth - i : p->chunk;
                unpack(&p->weights, o, d->depth, i, count, weights);
                unpack(&p->weights, o + next, d->depth, i, count, weights + p->chunk);
                fully_connected_s8_dot(in + i, weights, weights + p->chunk, count, sums);
            }
            out[o] = requantize(&d->scales, o, sums[0], d->out_zero, d->low, d->high);
            out[o + next] = requantize(&d->scales, o + next, sums[next], d->out_zero, d->low, d->high);
        }
    }
}
