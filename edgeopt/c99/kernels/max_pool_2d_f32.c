/* needs: clamp */
/* Maximum of each window's part inside the image; rows in order, last one first if `backward`. */
typedef struct {
    int32_t in_h, in_w, channels, out_h, out_w;
    int32_t filter_h, filter_w, stride_h, stride_w, pad_h, pad_w;
    int32_t backward;
    float low, high;
} max_pool_2d_f32_t;

static void max_pool_2d_f32(const max_pool_2d_f32_t *p, const float *in, float *out, void *scratch) {
    (void)scratch;
    for (int32_t row = 0; row < p->out_h; ++row) {
        const int32_t oy = p->backward ? p->out_h - 1 - row : row;
        const int32_t y0 = oy * p->stride_h - p->pad_h;
        const int32_t top = y0 < 0 ? 0 : y0;
        const int32_t bottom = y0 + p->filter_h < p->in_h ? y0 + p->filter_h : p->in_h;
        float *to = out + oy * p->out_w * p->channels;
        for (int32_t ox = 0; ox < p->out_w; ++ox, to += p->channels) {
            const int32_t x0 = ox * p->stride_w - p->pad_w;
            const int32_t left = x0 < 0 ? 0 : x0;
            const int32_t right = x0 + p->filter_w < p->in_w ? x0 + p->filter_w : p->in_w;
            for (int32_t c = 0; c < p->channels; ++c) {
                float most = p->low;
                for (int32_t y = top; y < bottom; ++y) {
                    const float *from = in + (y * p->in_w + left) * p->channels + c;
                    for (int32_t x = left; x < right; ++x, from += p->channels) {
                        most = *from > most ? *from : most;
                    }
                }
                to[c] = clamp_float(most, p->low, p->high);
            }
        }
    }
}
