/* needs: simd packed */
/* Looks up the `count` weights of a row. The last word is written whole: `to` has room for 31 more. */
static NOINLINE void unpack(const packed_t *p, int32_t row, int32_t count, int8_t *to) {
    const int32_t bits = p->bits == 3 ? 2 : p->bits;
    const int32_t fields = 8 / bits;
    const uint8_t *low = p->indices + row * p->row_bytes;
    const uint8_t *high = low + (count + 15) / 16 * 4;
    const int8_t *values = p->tables + row * p->table_step;
#if defined(USE_MVE)
    const uint8x16_t mask = vdupq_n_u8((uint8_t)((1 << bits) - 1));
    const uint8x16_t lanes = vidupq_n_u8(0, 1);
    const uint8x16_t places = vmlaq_n_u8(vandq_u8(lanes, vdupq_n_u8(3)), vshrq_n_u8(lanes, 2), (uint8_t)(fields * 4));
    for (int32_t words = (count + fields * 4 - 1) / (fields * 4); words > 0; words -= 4, low += 16, high += 8) {
        const mve_pred16_t some = vctp32q((uint32_t)words);
        uint8x16_t word = vreinterpretq_u8_u32(vldrwq_z_u32((const uint32_t *)(const void *)low, some));
        /* A word of the highest bits serves two of the lower ones, the first with its lower halves of bytes. */
        uint8x16_t top = vdupq_n_u8(0);
        if (p->bits == 3) {
            const uint32x4_t order = vidupq_n_u32(0, 1), halves = vshrq_n_u32(order, 1);
            const int32x4_t fours = vmulq_n_s32(vreinterpretq_s32_u32(vandq_u32(order, vdupq_n_u32(1))), (int32_t)0xFCFCFCFC);
            const uint32x4_t both = vldrwq_gather_shifted_offset_z_u32((const uint32_t *)(const void *)high, halves, some);
            top = vshlq_u8(vreinterpretq_u8_u32(both), vreinterpretq_s8_s32(fours));
        }
        for (int32_t f = 0; f < fields; ++f) {
            uint8x16_t index = vandq_u8(word, mask);
            if (p->bits == 3) {
                index = vorrq_u8(index, vshlq_n_u8(vandq_u8(top, vdupq_n_u8(1)), 2));
                top = vshrq_n_u8(top, 1);
            }
            word = vshlq_r_u8(word, -bits);
            const int8x16_t four = vldrbq_gather_offset_s8(values, index);
            vstrbq_scatter_offset_p_s8(to + f * 4, places, four, some);
        }
        to += fields * 16;
    }
#else
    const uint32_t mask = ((1u << bits) - 1u) * 0x01010101u;
    for (int32_t done = 0; done < count; low += 4) {
        uint32_t word = load_indices(low), top = 0;
        if (p->bits == 3) {
            /* A word of the highest bits serves two of the lower ones, the first with its lower halves of bytes. */
            top = load_indices(high + done / 32 * 4) >> (done % 32 / 4);
        }
        for (int32_t f = 0; f < fields; ++f, done += 4, to += 4) {
            const uint32_t four = (word & mask) | (top & 0x01010101u) << 2;
            to[0] = values[four & 255];
            to[1] = values[four >> 8 & 255];
            to[2] = values[four >> 16 & 255];
            to[3] = values[four >> 24];
            word >>= bits;
            top >>= 1;
        }
    }
#endif
}
