/* What the forward and backward time loops of recurrent layers share.
 *
 * Samples do not meet within a layer, so the batch is cut into blocks of rows (by shape alone) and
 * a task takes one block of one direction through all steps, without a barrier. Weights are packed
 * before, for the panels of gemm_tile.h:
 *
 *   chunk  up to NR hidden units; the panels of all gates for one chunk lie next to each other, so
 *          that a chunk's sums, [slot][row][NR], are complete while they are in the L1 cache, and
 *          the cell is computed from there
 *   slot   what a cell adds up separately: its gates, and of a GRU, whose reset gate stands between
 *          them, the two halves of the new gate: r, z, n from the input, n from the state
 *
 * Gates are PyTorch's: LSTM i f g o, GRU r z n.
 */
#ifndef FNN_RNN_H
#define FNN_RNN_H

#define FNN_DEF "def/rnn.def"
#include "args.h"
#include "denormals.h"
#include "rnn_act.h"
#include "rnn_fetch.h"
#include "threads.h"

enum {
    MOST_ROWS = 32,
    LEAST_ROWS = 4,
    BLOCKS_WANTED = 4, /* as long as they keep their least size */
    MOST_SLOTS = 4,
    DEPTH = 512 / sizeof(T), /* of a product's step: a panel's part stays in the L1 cache */
};

FNN_INLINE int64_t gates_of(int64_t mode) { return mode == FNN_LSTM ? 4 : mode == FNN_GRU ? 3 : 1; }
FNN_INLINE int64_t slots_of(int64_t mode) { return mode >= FNN_LSTM ? 4 : 1; }
/* Where the recurrent half of a gate is summed. */
FNN_INLINE int64_t state_slot(int64_t mode, int64_t gate) {
    return mode == FNN_GRU && gate == 2 ? 3 : gate;
}

/* What rnn_pack makes for rnn_fwd: of each direction the panels [chunk][gate][depth][ld], depth the
 * rows of the input, if it is summed in the time loop, and those of the state; then the biases,
 * [slot][hp], those of one slot added. hp: hidden units in whole vectors. */
typedef struct {
    int64_t gates, slots, hp, depth;
} rnn_packed;

FNN_INLINE rnn_packed packed_as(int64_t mode, int64_t c, int64_t h) {
    return (rnn_packed){gates_of(mode), slots_of(mode), round_up(h, VL), c + h};
}
FNN_INLINE int64_t panels_size(rnn_packed p) { return p.gates * p.depth * p.hp; }
FNN_INLINE int64_t direction_size(rnn_packed p) { return panels_size(p) + p.slots * p.hp; }

/* How a layer is cut into tasks. */
typedef struct {
    int64_t directions, blocks, rows;
} rnn_cut;

FNN_INLINE rnn_cut cut_rnn(int64_t directions, int64_t n) {
    int64_t blocks = ceil_div(n, MOST_ROWS);
    int64_t wanted = ceil_div(BLOCKS_WANTED, directions);
    if (blocks < wanted) blocks = least(wanted, ceil_div(n, LEAST_ROWS));
    int64_t rows = n > 0 ? ceil_div(n, blocks) : 1;
    return (rnn_cut){directions, ceil_div(n, rows), rows};
}

/* c[m, ld] (+)= a[m, k] b[k, ld]. */
FNN_INLINE void product(const T *a, int64_t a_rs, int64_t a_cs, int64_t m, int64_t k, const T *b,
                        int64_t b_rs, int64_t ld, T *c, int64_t c_rs, int add, rnn_fetch *f) {
    int64_t height = tile_height(m);
    for (int64_t p = 0; p < k; p += DEPTH, add = 1) {
        int64_t depth = least(DEPTH, k - p);
        for (int64_t r = 0; r < m; r += height) {
            T *to = c + r * c_rs;
            const char *fetch = fetch_next(f, depth);
            tiles[least(height, m - r) - 1][ld / VL - 1](
                depth, a + r * a_rs + p * a_cs, a_rs, a_cs, b + p * b_rs, b_rs, to, c_rs, add,
                fetch ? fetch : (const char *)to, fetch ? f->pace : 0);
        }
    }
}
/* Rows of depth of the tiles of such a product. */
FNN_INLINE int64_t depth_of(int64_t m, int64_t k) { return ceil_div(m, tile_height(m)) * k; }

/* Steps of time t are those of samples longer than t. */
FNN_INLINE int is_active(const int64_t *lengths, int64_t row, int64_t t) {
    return !lengths || t < lengths[row];
}

static inline int lengths_fit(const int64_t *lengths, int64_t n, int64_t steps) {
    int bad = 0;
    for (int64_t i = 0; lengths && i < n; i++) bad |= lengths[i] < 1 || lengths[i] > steps;
    return !bad;
}

/* rows x h of a dense matrix to rows of `ld`, the gap zero; zeros if there is no matrix. */
static inline void load_rows(T *to, int64_t ld, const T *from, int64_t rows, int64_t h) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < ld; j += VL)
            v_store(to + r * ld + j, from ? v_load_upto(from + r * h + j, h - j) : (V){0});
}
static inline void store_rows(T *to, const T *from, int64_t ld, int64_t rows, int64_t h) {
    for (int64_t r = 0; to && r < rows; r++)
        for (int64_t j = 0; j < h; j += VL)
            v_store_upto(to + r * h + j, v_load(from + r * ld + j), h - j);
}

#endif
