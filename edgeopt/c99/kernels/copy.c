/* Copies blocks of `block` bytes along four dimensions; strides and starts in bytes. With `fill_bytes`, the output is
   filled with a repeated element of that size first. */
typedef struct {
    int32_t shape[4], in_stride[4], out_stride[4];
    int32_t in_start, out_start, block;
    int32_t out_bytes, fill_bytes;
    const uint8_t *fill;
} copy_t;

static void copy(const copy_t *p, const void *in, void *out, void *scratch) {
    const uint8_t *from = (const uint8_t *)in + p->in_start;
    uint8_t *to = (uint8_t *)out + p->out_start;
    (void)scratch;
    if (p->fill_bytes == 1) {
        memset(out, *p->fill, (size_t)p->out_bytes);
    }
    for (int32_t i = 0; p->fill_bytes > 1 && i < p->out_bytes; i += p->fill_bytes) {
        memcpy((uint8_t *)out + i, p->fill, (size_t)p->fill_bytes);
    }
    for (int32_t i = 0; i < p->shape[0]; ++i) {
        for (int32_t j = 0; j < p->shape[1]; ++j) {
            for (int32_t k = 0; k < p->shape[2]; ++k) {
                const uint8_t *x = from + i * p->in_stride[0] + j * p->in_stride[1] + k * p->in_stride[2];
                uint8_t *y = to + i * p->out_stride[0] + j * p->out_stride[1] + k * p->out_stride[2];
                for (int32_t l = 0; l < p->shape[3]; ++l, x += p->in_stride[3], y += p->out_stride[3]) {
                    memcpy(y, x, (size_t)p->block);
                }
            }
        }
    }
}
