/* needs: fully_connected_s8_parts */
static void fully_connected_s8(const fully_connected_s8_t *p, const int8_t *in, int8_t *out, void *scratch) {
    (void)scratch;
    for (int32_t row = 0; row < p->rows; ++row, in += p->depth, out += p->units) {
        const int8_t *weights = p->weights;
        const int32_t shared = fully_connected_s8_shared(p, in);
        for (int32_t o = 0; o < p->units; o += 2, weights += 2 * p->depth) {
            const int32_t next = o + 1 < p->units ? 1 : 0;
            int32_t sums[2] = {p->bias[o] - shared, p->bias[o + next] - shared};
            fully_connected_s8_dot(in, weights, weights + next * p->depth, p->depth, sums);
            out[o] = requantize(&p->scales, o, sums[0], p->out_zero, p->low, p->high);
            out[o + next] = requantize(&p->scales, o + next, sums[next], p->out_zero, p->low, p->high);
        }
    }
}
