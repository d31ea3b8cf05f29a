/* Dropout and uniform numbers: functions of (seed, step, key, element) alone, see philox.h. */
#define FNN_DEF "def/random.def"
#include "args.h"

#include "../philox.h"
#include "../threads.h"

enum { TASK_BLOCKS = 16384 / PHILOX_WORDS };

typedef struct {
    philox_stream stream;
    const T *x;
    T *y;
    int64_t n;
    uint32_t threshold; /* dropout keeps an element whose word is at least this */
    T scale;
} random_job;

typedef uint32_t narrow_words __attribute__((vector_size(VL * sizeof(uint32_t))));

/* VL words in T's lanes. */
FNN_INLINE VU words_of(const uint32_t *words) {
    narrow_words v;
    memcpy(&v, words, sizeof v);
    return __builtin_convertvector(v, VU);
}

/* float32 takes the 24 high bits, which it holds exactly; float64 all 32. */
FNN_INLINE V uniform_of(VU word) {
    const int unused = FNN_BITS == 32 ? 8 : 0;
    VI whole = (VI)(word >> unused);
    return __builtin_convertvector(whole, V) * v_set1((T)1 / (T)(UINT64_C(1) << (32 - unused)));
}

/* The same elements in both float types: the word itself is compared. */
FNN_INLINE V dropout_of(const random_job *job, VU word, V x) {
    VI keep = (VI)(word >= (TU)job->threshold);
    return (V)((VI)(x * v_set1(job->scale)) & keep);
}

FNN_INLINE void random_blocks(const void *ctx, int64_t task, int dropout) {
    const random_job own = *(const random_job *)ctx, *job = &own; /* no store to y may change it */
    int64_t from = task * TASK_BLOCKS * PHILOX_WORDS, to = from + TASK_BLOCKS * PHILOX_WORDS;
    if (to > job->n) to = job->n;
    uint32_t words[PHILOX_WORDS] __attribute__((aligned(64)));
    for (int64_t i = from; i < to; i += PHILOX_WORDS) {
        philox_words(&job->stream, (uint64_t)i / 4, words);
        for (int64_t j = 0; j < PHILOX_WORDS && i + j < to; j += VL) {
            int64_t at = i + j, lanes = to - at;
            VU word = words_of(words + j);
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

static int64_t count_tasks(int64_t n) {
    return (n + TASK_BLOCKS * PHILOX_WORDS - 1) / (TASK_BLOCKS * PHILOX_WORDS);
}

/* A dropped element is 0, whatever it was. An element is dropped where its word / 2^32 < p. */
int FNN_SYM(dropout)(const fnn_dropout_args *a) {
    double threshold = a->p * 4294967296.0;
    if (threshold <= 0) {
        if (a->y != a->x) memcpy(a->y, a->x, (size_t)a->n * sizeof(T));
        return FNN_OK;
    }
    uint64_t whole = (uint64_t)threshold;
    whole += (double)whole < threshold;
    if (whole > UINT32_MAX) {
        memset(a->y, 0, (size_t)a->n * sizeof(T));
        return FNN_OK;
    }
    random_job job = {
        philox_open(a->hyper, a->key), a->x, a->y, a->n, (uint32_t)whole, (T)(1 / (1 - a->p))};
    fnn_parallel(count_tasks(a->n), 0.4 * (double)a->n, dropout_task, &job);
    return FNN_OK;
}

int FNN_SYM(uniform)(const fnn_uniform_args *a) {
    random_job job = {.stream = philox_open(a->hyper, a->key), .y = a->y, .n = a->n};
    fnn_parallel(count_tasks(a->n), 0.4 * (double)a->n, uniform_task, &job);
    return FNN_OK;
}
