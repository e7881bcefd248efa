/* Weights as indices into tables. A row of them is a row of 32-bit words, low byte first: bits f * bits … of byte k of
   word i are the index of tap (i * (8 / bits) + f) * 4 + k, so that four taps come out of a word at once. Of three bits,
   the lower two stand first, then the highest one of all taps of the row. Each row has its table, or all have one
   where `table_step` is 0. */
typedef struct {
    int32_t bits, row_bytes, table_step;
    const uint8_t *indices;
    const int8_t *tables;
} packed_t;

static inline uint32_t load_indices(const uint8_t *from) {
    return from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
}

/* With Helium: the index that stands `shift` bits up in the bytes of a register w, into i; the first is not shifted, and
   nothing is above the last. */
#define INDEX_FIRST(w, shift) "vand %q[i], %q[" w "], %q[m]\n"
#define INDEX_NEXT(w, shift) "vshr.u8 %q[i], %q[" w "], #" shift "\n vand %q[i], %q[i], %q[m]\n"
#define INDEX_LAST(w, shift) "vshr.u8 %q[i], %q[" w "], #" shift "\n"
