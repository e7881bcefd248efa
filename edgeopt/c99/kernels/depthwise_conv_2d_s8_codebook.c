/* needs: depthwise_conv_2d_s8 unpack */
/* Depthwise convolution whose weights are one packed row, looked up before the first pixel. */
typedef struct {
    depthwise_conv_2d_s8_t conv;
    packed_t weights;
    int32_t backward;
} depthwise_conv_2d_s8_codebook_t;

static void depthwise_conv_2d_s8_codebook(
    const depthwise_conv_2d_s8_codebook_t *p, const int8_t *in, int8_t *out, void *scratch
) {
    depthwise_conv_2d_s8_t conv = p->conv;
    const int32_t count = conv.filter_h * conv.filter_w * conv.out_c;
    unpack(&p->weights, 0, count, (int8_t *)scratch);
    conv.weights = (const int8_t *)scratch;
    conv.backward = p->backward;
    depthwise_conv_2d_s8(&conv, in, out, NULL);
}
