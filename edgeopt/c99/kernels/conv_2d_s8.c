/* needs: conv_2d_s8_parts */
/* Convolution; rows are written in order, last one first if `backward`. */
static void conv_2d_s8(const conv_2d_s8_t *p, const int8_t *in, int8_t *out, void *scratch) {
    for (int32_t row = 0; row < p->out_h; ++row) {
        const int32_t oy = p->backward ? p->out_h - 1 - row : row;
        conv_2d_s8_row(p, p->weights, 0, p->out_c, oy, in, out, scratch);
    }
}
