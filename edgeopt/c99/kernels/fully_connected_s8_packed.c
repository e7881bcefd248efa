/* needs: fully_connected_s8_parts unpack */
/* The same with packed weights: those of two units are unpacked `chunk` (an even number) at a time. */
typedef struct {
    fully_connected_s8_t dense;
    int32_t chunk, codebook_step;
    const uint8_t *indices;
    const int8_t *codebooks;
} fully_connected_s8_packed_t;

static void fully_connected_s8_packed(
    const fully_connected_s8_packed_t *p, const int8_t *in, int8_t *out, void *scratch
) {
    const fully_connected_s8_t *d = &p->dense;
    const int32_t row_bytes = (d->depth + 1) / 2;
    int8_t *weights = (int8_t *)scratch;
    for (int32_t row = 0; row < d->rows; ++row, in += d->depth, out += d->units) {
        const int32_t shared = fully_connected_s8_shared(d, in);
        for (int32_t o = 0; o < d->units; o += 2) {
            const int32_t next = o + 1 < d->units ? 1 : 0;
            const uint8_t *indices = p->indices + o * row_bytes;
            const int8_t *codebook = p->codebooks + o * p->codebook_step;
            const int8_t *second = codebook + next * p->codebook_step;
            int32_t sums[2] = {d->bias[o] - shared, d->bias[o + next] - shared};
            for (int32_t i = 0; i < d->depth; i += p->chunk, indices += p->chunk / 2) {
                const int32_t count = d->depth - i < p->chunk ? d->depth - i : p->chunk;
                unpack(indices, codebook, count, weights);
                unpack(indices + next * row_bytes, second, count, weights + p->chunk);
                fully_connected_s8_dot(in + i, weights, weights + p->chunk, count, sums);
            }
            out[o] = requantize(&d->scales, o, sums[0], d->out_zero, d->low, d->high);
            out[o + next] = requantize(&d->scales, o + next, sums[next], d->out_zero, d->low, d->high);
        }
    }
}
