/* Copies the pixel (rows[y], columns[x]) of `block` bytes to (y, x). */
typedef struct {
    int32_t in_w, out_h, out_w, block;
    const int32_t *rows, *columns;
} pick_pixels_t;

static void pick_pixels(const pick_pixels_t *p, const void *in, void *out, void *scratch) {
    uint8_t *to = (uint8_t *)out;
    (void)scratch;
    for (int32_t y = 0; y < p->out_h; ++y) {
        const uint8_t *row = (const uint8_t *)in + p->rows[y] * p->in_w * p->block;
        for (int32_t x = 0; x < p->out_w; ++x, to += p->block) {
            memcpy(to, row + p->columns[x] * p->block, (size_t)p->block);
        }
    }
}
