/* needs: conv_2d_s8_parts unpack */
/* Convolution whose weights are looked up for `block` output channels at a time, and serve `rows` rows of the output. */
typedef struct {
    conv_2d_s8_t conv;
    packed_t weights;
    int32_t rows, block, columns_bytes, backward;
} conv_2d_s8_codebook_t;

static void conv_2d_s8_codebook(const conv_2d_s8_codebook_t *p, const int8_t *in, int8_t *out, void *scratch) {
    const conv_2d_s8_t *c = &p->conv;
    const int32_t depth = c->filter_h * c->filter_w * c->in_c;
    const int32_t bands = (c->out_h + p->rows - 1) / p->rows;
    int8_t *weights = (int8_t *)scratch + p->columns_bytes;
    for (int32_t i = 0; i < bands; ++i) {
        const int32_t top = (p->backward ? bands - 1 - i : i) * p->rows;
        const int32_t bottom = top + p->rows < c->out_h ? top + p->rows : c->out_h;
        for (int32_t begin = 0; begin < c->out_c; begin += p->block) {
            const int32_t end = begin + p->block < c->out_c ? begin + p->block : c->out_c;
            for (int32_t o = begin; o < end; ++o) {
                unpack(&p->weights, o, depth, weights + (o - begin) * depth);
            }
            for (int32_t oy = top; oy < bottom; ++oy) {
                conv_2d_s8_row(c, weights, begin, end, oy, in, out, scratch);
            }
        }
    }
}
