/* Weights for winograd.c: transformed, [panel][position][in][width], panels as in conv.h.
 *
 * For backward-data the input is k and the output c, and the kernel is turned by 180 degrees.
 * VL inputs by VL outputs are taken at a time, transposed where the outputs are not neighbours.
 */
#define FNN_DEF "def/winograd.def"
#include "args.h"

#include "transpose.h"
#include "winograd.h"

enum { TAPS = 9 };

static int64_t inputs(const fnn_winograd_pack_args *a) { return a->direction ? a->k : a->c; }
static int64_t outputs(const fnn_winograd_pack_args *a) { return a->direction ? a->c : a->k; }

/* block[tap][in][out], zero where there is no such output. */
static void take_block(const fnn_winograd_pack_args *a, int64_t in, int64_t ins, int64_t out,
                       int64_t outs, T *block) {
    for (int tap = 0; tap < TAPS; tap++, block += VL * VL) {
        if (!a->direction) {
            const T *from = (const T *)a->w + (tap * a->c + in) * a->k + out;
            for (int64_t i = 0; i < ins; i++)
                v_store(block + i * VL, v_load_upto(from + i * a->k, outs));
            continue;
        }
        const T *from = (const T *)a->w + ((TAPS - 1 - tap) * a->c + out) * a->k + in;
        if (outs < VL) memset(block, 0, VL * VL * sizeof(T));
        v_transpose_block(from, a->k, outs, block, VL, ins);
    }
}

static void pack_panel(void *ctx, int64_t panel) {
    const fnn_winograd_pack_args *a = ctx;
    int64_t all_in = inputs(a), all_out = outputs(a);
    int64_t vectors = conv_panel_vectors(all_out, panel), width = vectors * VL;
    T *packed = (T *)a->packed + panel * NR * WINOGRAD_POSITIONS * all_in;
    T block[TAPS * VL * VL] __attribute__((aligned(64)));
    const winograd_source weights = {VL, VL, NULL, NULL};
    const T *taps[TAPS];
    for (int64_t in = 0; in < all_in; in += VL)
        for (int64_t j = 0; j < vectors; j++) {
            int64_t ins = least(VL, all_in - in), out = panel * NR + j * VL;
            take_block(a, in, ins, out, least(VL, all_out - out), block);
            for (int64_t i = 0; i < ins; i++) {
                for (int tap = 0; tap < TAPS; tap++) taps[tap] = block + (tap * VL + i) * VL;
                winograd_expand_tile(3, 1, 0, &weights, taps, 0, VL,
                                     packed + (in + i) * width + j * VL, all_in * width);
            }
        }
}

int64_t FNN_SYM(winograd_pack_size)(const fnn_winograd_pack_args *a) {
    return WINOGRAD_POSITIONS * inputs(a) * conv_padded(outputs(a)) * (int64_t)sizeof(T);
}

int FNN_SYM(winograd_pack)(const fnn_winograd_pack_args *a) {
    double cost = 4.0 * (double)inputs(a) * (double)outputs(a) * sizeof(T) / 4;
    fnn_parallel(conv_panels(outputs(a)), cost, pack_panel, (void *)a);
    return FNN_OK;
}
