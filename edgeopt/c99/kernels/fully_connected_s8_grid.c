/* needs: fully_connected_s8_parts grid */
/* The same with weights on a grid. Where rows do not fill the words of indices, there is scratch to read beyond them. */
typedef struct {
    fully_connected_s8_t dense;
    packed_t weights;
} fully_connected_s8_grid_t;

static void fully_connected_s8_grid(
    const fully_connected_s8_grid_t *p, const int8_t *in, int8_t *out, void *scratch
) {
    const fully_connected_s8_t *d = &p->dense;
    const int32_t row_bytes = p->weights.row_bytes;
    for (int32_t row = 0; row < d->rows; ++row, in += d->depth, out += d->units) {
        const uint8_t *indices = p->weights.indices;
        const int8_t *x = in;
        const int32_t total = grid_total(in, d->depth);
        const int32_t shared = d->weights_zero * total;
        if (scratch != NULL) {
            copy_bytes((int8_t *)scratch, in, d->depth);
            x = (const int8_t *)scratch;
        }
        for (int32_t o = 0; o < d->units; o += 2, indices += 2 * row_bytes) {
            const int32_t next = o + 1 < d->units ? 1 : 0;
            int32_t sums[4];
            grid_dot(p->weights.bits, indices, indices + next * row_bytes, x, x, 0, row_bytes / 4, sums);
            sums[0] = grid_sum(&p->weights, o, d->bias[o] - shared, total, sums[0]);
            sums[1] = grid_sum(&p->weights, o + next, d->bias[o + next] - shared, total, sums[1]);
            out[o] = requantize(&d->scales, o, sums[0], d->out_zero, d->low, d->high);
            out[o + next] = requantize(&d->scales, o + next, sums[1], d->out_zero, d->low, d->high);
        }
    }
}
