/* Dropout and uniform numbers: functions of (seed, step, key, element) alone, see philox.h.
 *
 * A uniform number takes a word of the stream; dropout half a word, the low half for even elements:
 * ten rounds for every word cost more than all of the memory traffic.
 */
#define FNN_DEF "def/random.def"
#include "args.h"

#include "../philox.h"
#include "../threads.h"

enum { TASK_ELEMENTS = 16384, HALF = 1 << 16 };

typedef struct {
    philox_stream stream;
    const T *x;
    T *y;
    int64_t n;
    uint32_t threshold; /* dropout keeps an element whose half word is at least this */
    T scale;
} random_job;

typedef uint32_t words __attribute__((vector_size(VL * sizeof(uint32_t))));
typedef uint16_t halves __attribute__((vector_size(VL * sizeof(uint16_t))));

/* VL words or halves of words in T's lanes; philox.h is little-endian, too. */
FNN_INLINE VU lanes_of(const uint32_t *drawn, int64_t from, int dropout) {
    words w;
    halves h;
    if (dropout) {
        memcpy(&h, (const char *)drawn + from * (int64_t)sizeof(uint16_t), sizeof h);
        return __builtin_convertvector(h, VU);
    }
    memcpy(&w, drawn + from, sizeof w);
    return __builtin_convertvector(w, VU);
}

/* float32 takes the 24 high bits, which it holds exactly; float64 all 32. */
FNN_INLINE V uniform_of(VU word) {
    const int unused = FNN_BITS == 32 ? 8 : 0;
    VI whole = (VI)(word >> unused);
    return __builtin_convertvector(whole, V) * v_set1((T)1 / (T)(UINT64_C(1) << (32 - unused)));
}

/* The same elements in both float types: the half word itself is compared. */
FNN_INLINE V dropout_of(const random_job *job, VU half, V x) {
    VI keep = (VI)(half >= (TU)job->threshold);
    return (V)((VI)(x * v_set1(job->scale)) & keep);
}

#if defined(__AVX512F__) && FNN_BITS == 32
/* What a block of words decides: the halves are compared as they are, without widening them. */
FNN_INLINE void drop_block(const random_job *job, const uint32_t *drawn, const T *x, T *y) {
    const __m512i threshold = _mm512_set1_epi16((short)job->threshold);
    const __m512 scale = _mm512_set1_ps(job->scale);
#pragma GCC unroll 2
    for (int k = 0; k < PHILOX_WORDS; k += VL, x += 2 * VL, y += 2 * VL) {
        __mmask32 keep = _mm512_cmpge_epu16_mask(_mm512_loadu_si512(drawn + k), threshold);
        _mm512_storeu_ps(y, _mm512_maskz_mul_ps((__mmask16)keep, _mm512_loadu_ps(x), scale));
        __mmask16 high = (__mmask16)(keep >> VL);
        _mm512_storeu_ps(y + VL, _mm512_maskz_mul_ps(high, _mm512_loadu_ps(x + VL), scale));
    }
}
#endif

FNN_INLINE void random_blocks(const void *ctx, int64_t task, const int dropout) {
    const random_job own = *(const random_job *)ctx, *job = &own; /* no store to y may change it */
    const int64_t of_word = dropout ? 2 : 1, step = of_word * PHILOX_WORDS;
    int64_t from = task * TASK_ELEMENTS, to = least(from + TASK_ELEMENTS, job->n);
    uint32_t drawn[PHILOX_WORDS] __attribute__((aligned(64)));
    for (int64_t i = from; i < to; i += step) {
        philox_words(&job->stream, (uint64_t)(i / (4 * of_word)), drawn);
#if defined(__AVX512F__) && FNN_BITS == 32
        if (dropout && i + step <= to) {
            drop_block(job, drawn, job->x + i, job->y + i);
            continue;
        }
#endif
        for (int64_t j = 0; j < step && i + j < to; j += VL) {
            int64_t at = i + j, lanes = to - at;
            VU word = lanes_of(drawn, j, dropout);
            if (lanes >= VL) {
                V v = dropout ? dropout_of(job, word, v_load(job->x + at)) : uniform_of(word);
                v_store(job->y + at, v);
            } else {
                V v = dropout ? dropout_of(job, word, v_load_n(job->x + at, lanes))
                              : uniform_of(word);
                v_store_n(job->y + at, v, lanes);
            }
        }
    }
}

static void dropout_task(void *job, int64_t task) { random_blocks(job, task, 1); }
static void uniform_task(void *job, int64_t task) { random_blocks(job, task, 0); }

/* A dropped element is 0, whatever it was. An element is dropped where its half word / 2^16 < p,
 * with p rounded to a multiple of 2^-16; 1 / (1 - p) is that of the rounded p and keeps the mean.
 */
int FNN_SYM(dropout)(const fnn_dropout_args *a) {
    uint32_t threshold = (uint32_t)(a->p * HALF + 0.5);
    if (threshold == 0) {
        if (a->y != a->x) memcpy(a->y, a->x, (size_t)a->n * sizeof(T));
        return FNN_OK;
    }
    if (threshold >= HALF) {
        memset(a->y, 0, (size_t)a->n * sizeof(T));
        return FNN_OK;
    }
    double scale = (double)HALF / (double)(HALF - threshold);
    random_job job = {philox_open(a->hyper, a->key), a->x, a->y, a->n, threshold, (T)scale};
    fnn_parallel(ceil_div(a->n, TASK_ELEMENTS), 0.2 * (double)a->n, dropout_task, &job);
    return FNN_OK;
}

int FNN_SYM(uniform)(const fnn_uniform_args *a) {
    random_job job = {.stream = philox_open(a->hyper, a->key), .y = a->y, .n = a->n};
    fnn_parallel(ceil_div(a->n, TASK_ELEMENTS), 0.4 * (double)a->n, uniform_task, &job);
    return FNN_OK;
}
