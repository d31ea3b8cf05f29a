/* Random erasing, brightness and contrast, Gaussian noise, and the share of mixup. */
#define FNN_DEF "def/augment.def"
#include "args.h"

#include "../augment.h"
#include "../vmath.h"
#include <math.h>

/* --- a rectangle of each image is overwritten ------------------------------------------------ */

enum { CHANCE, ROW, COLUMN, AREA, RATIO }; /* draws */

typedef struct {
    const fnn_erase_args *args;
    philox_stream stream;
} erase_job;

typedef struct {
    int64_t top, left, bottom, right;
} rectangle;

static int64_t within(int64_t x, int64_t lo, int64_t hi) { return x < lo ? lo : x > hi ? hi : x; }

/* size > 0: a square around any pixel, cut at the borders. Else `area` and `ratio` of the image,
 * wholly inside it. */
static rectangle draw_rectangle(const erase_job *j, int64_t sample) {
    const fnn_erase_args *a = j->args;
    sample_draws d = draw_sample(&j->stream, sample);
    if (draw(&d, CHANCE) >= a->p) return (rectangle){0, 0, 0, 0};
    if (a->size > 0) {
        int64_t top = draw_int(&d, ROW, 0, a->h - 1) - a->size / 2;
        int64_t left = draw_int(&d, COLUMN, 0, a->w - 1) - a->size / 2;
        return (rectangle){within(top, 0, a->h), within(left, 0, a->w),
                           within(top + a->size, 0, a->h), within(left + a->size, 0, a->w)};
    }
    double area = draw_real(&d, AREA, a->area_lo, a->area_hi) * (double)(a->h * a->w);
    double ratio = exp(draw_real(&d, RATIO, log(a->ratio_lo), log(a->ratio_hi)));
    int64_t h = within((int64_t)(sqrt(area * ratio) + 0.5), 1, a->h);
    int64_t w = within((int64_t)(sqrt(area / ratio) + 0.5), 1, a->w);
    int64_t top = draw_int(&d, ROW, 0, a->h - h), left = draw_int(&d, COLUMN, 0, a->w - w);
    return (rectangle){top, left, top + h, left + w};
}

static void erase_task(void *ctx, int64_t sample) {
    const erase_job *j = ctx;
    const fnn_erase_args *a = j->args;
    int64_t line = a->w * a->c;
    T *y = (T *)a->y + sample * a->h * line;
    memcpy(y, (const T *)a->x + sample * a->h * line, (size_t)(a->h * line) * sizeof(T));
    rectangle r = draw_rectangle(j, sample);
    for (int64_t row = r.top; row < r.bottom; row++)
        for (int64_t i = r.left * a->c; i < r.right * a->c; i++) y[row * line + i] = (T)a->value;
}

int FNN_SYM(erase)(const fnn_erase_args *a) {
    erase_job j = {a, philox_open(a->hyper, a->key)};
    fnn_parallel(a->n, 0.4 * (double)(a->n * a->h * a->w * a->c), erase_task, &j);
    return FNN_OK;
}

/* --- brightness and contrast ----------------------------------------------------------------- */

typedef struct {
    const fnn_jitter_args *args;
    philox_stream stream;
} jitter_job;

/* y = contrast * (brightness * x - m) + m, with m the mean of brightness * x. */
static void jitter_task(void *ctx, int64_t sample) {
    const jitter_job *j = ctx;
    const fnn_jitter_args *a = j->args;
    const T *x = (const T *)a->x + sample * a->size;
    T *y = (T *)a->y + sample * a->size;
    sample_draws d = draw_sample(&j->stream, sample);
    double brightness = draw_real(&d, 0, a->brightness_lo, a->brightness_hi);
    double contrast = draw_real(&d, 1, a->contrast_lo, a->contrast_hi);
    V sum = {0};
    int64_t i = 0;
    for (; i + VL <= a->size; i += VL) sum += v_load(x + i);
    if (i < a->size) sum += v_load_n(x + i, a->size - i);
    double middle = brightness * (double)v_sum(sum) / (double)a->size;
    T scale = (T)(brightness * contrast), shift = (T)(middle * (1 - contrast));
    for (i = 0; i < a->size; i++) y[i] = x[i] * scale + shift;
}

int FNN_SYM(jitter)(const fnn_jitter_args *a) {
    jitter_job j = {a, philox_open(a->hyper, a->key)};
    fnn_parallel(a->n, 0.6 * (double)(a->n * a->size), jitter_task, &j);
    return FNN_OK;
}

/* --- Gaussian noise -------------------------------------------------------------------------- */

enum { NOISE_BLOCK = 4096 };

typedef struct {
    const fnn_noise_args *args;
    philox_stream stream;
} noise_job;

/* sin(2 pi t) for t in [-1/2, 1/2], from the sine's own series on the quarter around 0. */
FNN_INLINE V v_sin_turns(V t) {
    V quarter = v_set1((T)0.25), a = v_abs(t);
    a = v_select(a > quarter, (T)0.5 - a, a) * (T)6.283185307179586477;
    V z = a * a, series = v_set1((T)(-1. / 1307674368000));
    static const double down[] = {1. / 6227020800, -1. / 39916800, 1. / 362880,
                                  -1. / 5040,      1. / 120,       -1. / 6};
    for (int i = 0; i < 6; i++) series = series * z + (T)down[i];
    return v_copysign(a + a * z * series, t);
}

/* Two normal numbers from two words, by Box and Muller (1958). */
FNN_INLINE void normal_pair(VU first, VU second, V *normals) {
    const int unused = FNN_BITS == 32 ? 8 : 0;
    const T unit = (T)1 / (T)(UINT64_C(1) << (32 - unused));
    V u = (__builtin_convertvector((VI)(first >> unused), V) + (T)0.5) * unit;
    V t = (__builtin_convertvector((VI)(second >> unused), V) + (T)0.5) * unit - (T)0.5;
    V radius = v_sqrt(v_log(u) * (T)-2);
    V turned = t + (T)0.25; /* the cosine is the sine a quarter later */
    turned = v_select(turned > (T)0.5, turned - (T)1, turned);
    normals[0] = radius * v_sin_turns(t), normals[1] = radius * v_sin_turns(turned);
}

/* Element i takes its two words from element i of a stream of pairs. */
FNN_INLINE void block_normals(const philox_stream *stream, int64_t from, T normals[4 * VL]) {
    uint32_t words[4 * VL + PHILOX_WORDS];
    for (int i = 0; i < 4 * VL; i += PHILOX_WORDS)
        philox_words(stream, (uint64_t)(from + i) / 4, words + i);
    for (int i = 0; i < 4 * VL; i += 2 * VL) {
        VU first, second;
        V pair[2];
        for (int k = 0; k < VL; k++) first[k] = words[i + 2 * k], second[k] = words[i + 2 * k + 1];
        normal_pair(first, second, pair);
        for (int k = 0; k < VL; k++)
            normals[i + 2 * k] = pair[0][k], normals[i + 2 * k + 1] = pair[1][k];
    }
}

static void noise_task(void *ctx, int64_t task) {
    const noise_job *j = ctx;
    const fnn_noise_args *a = j->args;
    int64_t from = task * NOISE_BLOCK, to = from + NOISE_BLOCK < a->n ? from + NOISE_BLOCK : a->n;
    const T *x = a->x;
    T *y = a->y, normals[4 * VL], mean = (T)a->mean, sigma = (T)a->sigma;
    for (int64_t i = from; i < to; i += 4 * VL) {
        block_normals(&j->stream, i, normals);
        int64_t count = to - i < 4 * VL ? to - i : 4 * VL;
        for (int64_t k = 0; k < count; k++) y[i + k] = x[i + k] + (mean + sigma * normals[k]);
    }
}

int FNN_SYM(noise)(const fnn_noise_args *a) {
    noise_job j = {a, philox_open(a->hyper, a->key)};
    fnn_parallel((a->n + NOISE_BLOCK - 1) / NOISE_BLOCK, 2 * (double)a->n, noise_task, &j);
    return FNN_OK;
}

/* --- mixup ----------------------------------------------------------------------------------- */

/* log of a gamma number of shape `alpha` (Marsaglia and Tsang 2000): in logarithms, so that a small
 * shape does not underflow. Its tries are the samples of the stream from *next on. */
static double log_gamma_number(const philox_stream *stream, double alpha, int64_t *next) {
    double shape = alpha < 1 ? alpha + 1 : alpha, k = shape - 1. / 3, c = 1 / sqrt(9 * k);
    for (;;) {
        sample_draws d = draw_sample(stream, (*next)++);
        double radius = sqrt(-2 * log(draw(&d, 0) + 0x1p-33));
        double z = radius * cos(6.283185307179586 * draw(&d, 1)), v = 1 + c * z;
        if (v <= 0) continue;
        v = v * v * v;
        if (log(draw(&d, 2) + 0x1p-33) >= z * z / 2 + k * (1 - v + log(v))) continue;
        double boost = alpha < 1 ? log(draw(&d, 3) + 0x1p-33) / alpha : 0;
        return log(k * v) + boost;
    }
}

/* A beta(alpha, alpha) number for the whole batch. */
int FNN_SYM(mix_share)(const fnn_mix_share_args *a) {
    philox_stream stream = philox_open(a->hyper, a->key);
    int64_t next = 0;
    double left = log_gamma_number(&stream, a->alpha, &next);
    double right = log_gamma_number(&stream, a->alpha, &next);
    *(T *)a->y = (T)(1 / (1 + exp(right - left)));
    return FNN_OK;
}
