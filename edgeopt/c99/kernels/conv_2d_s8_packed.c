/* needs: conv_2d_s8_parts unpack */
/* Convolution whose weights are unpacked for `block` output channels at a time, row by row of the output. */
typedef struct {
    conv_2d_s8_t conv;
    int32_t block, columns_bytes, codebook_step, backward;
    const uint8_t *indices;
    const int8_t *codebooks;
} conv_2d_s8_packed_t;

static void conv_2d_s8_packed(const conv_2d_s8_packed_t *p, const int8_t *in, int8_t *out, void *scratch) {
    const int32_t depth = p->conv.filter_h * p->conv.filter_w * p->conv.in_c;
    int8_t *weights = (int8_t *)scratch + p->columns_bytes;
    for (int32_t row = 0; row < p->conv.out_h; ++row) {
        const int32_t oy = p->backward ? p->conv.out_h - 1 - row : row;
        for (int32_t begin = 0; begin < p->conv.out_c; begin += p->block) {
            const int32_t end = begin + p->block < p->conv.out_c ? begin + p->block : p->conv.out_c;
            for (int32_t o = begin; o < end; ++o) {
                const int8_t *codebook = p->codebooks + o * p->codebook_step;
                unpack(p->indices + o * ((depth + 1) / 2), codebook, depth, weights + (o - begin) * depth);
            }
            conv_2d_s8_row(&p->conv, weights, begin, end, oy, in, out, scratch);
        }
    }
}
