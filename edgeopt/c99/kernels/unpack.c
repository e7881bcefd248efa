/* Rows of 4-bit indices into a codebook of 16 values, low half of a byte first; each row starts with a byte. */
static inline void unpack(const uint8_t *from, const int8_t *codebook, int32_t count, int8_t *to) {
    for (; count >= 2; count -= 2, to += 2) {
        const uint8_t two = *from++;
        to[0] = codebook[two & 15];
        to[1] = codebook[two >> 4];
    }
    if (count) {
        *to = codebook[*from & 15];
    }
}
