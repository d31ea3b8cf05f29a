/* Measures what the machine can do at most: FMA rate and copy bandwidth of some threads at once.
 * machine THREADS prints one JSON object. WIDTH: bytes of the ISA's vector registers. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CHAINS = 12, LANES = WIDTH / sizeof(float), REPEATS = 20, MAX_THREADS = 256 };
enum { CACHE_BYTES = 256 << 10 /* lies in L2, twice */, MEMORY_BYTES = 256 << 20, MEMORY_PART = 2 << 20 };
typedef float vec __attribute__((vector_size(WIDTH)));
typedef enum { FMA, CACHE, MEMORY } kind;

static pthread_barrier_t barrier;
static kind work;
static int threads;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

/* As many independent multiply-adds as hide their latency; returns a value so that they stay. */
static float multiply_add(long rounds) {
    vec acc[CHAINS], a, b;
    for (int i = 0; i < LANES; i++) a[i] = 0.999999f, b[i] = 1e-6f;
    for (int c = 0; c < CHAINS; c++) acc[c] = a + (float)c;
    for (long r = 0; r < rounds; r++)
#pragma GCC unroll 12
        for (int c = 0; c < CHAINS; c++) acc[c] = acc[c] * a + b;
    float sum = 0;
    for (int c = 0; c < CHAINS; c++) sum += acc[c][0];
    return sum;
}

static void *run(void *result) {
    const long rounds = 200000;
    size_t part = work == MEMORY ? MEMORY_PART : CACHE_BYTES;
    size_t bytes = work == MEMORY ? (size_t)MEMORY_BYTES / threads / part * part : part;
    int copies = work == CACHE ? 20 : 1;
    char *from = aligned_alloc(4096, bytes), *to = aligned_alloc(4096, bytes);
    if (!from || !to) exit(1);
    memset(from, 1, bytes);
    memset(to, 1, bytes);
    double best = 1e9;
    volatile float keep;
    for (int r = 0; r < REPEATS; r++) {
        pthread_barrier_wait(&barrier);
        for (size_t at = 0; at < bytes; at += part) {
            double start = now();
            if (work == FMA) keep = multiply_add(rounds);
            for (int c = 0; work != FMA && c < copies; c++) {
                memcpy(to + at, from + at, part);
                __asm__ volatile("" ::: "memory");
            }
            double seconds = now() - start;
            if (seconds < best) best = seconds;
        }
        pthread_barrier_wait(&barrier);
    }
    (void)keep;
    free(from);
    free(to);
    /* The best moment of all: others may be at work. A copy's bytes count once. */
    double amount = work == FMA ? 2.0 * LANES * CHAINS * rounds : (double)part * copies;
    *(double *)result = amount / best / 1e9;
    return NULL;
}

static double measure(kind k) {
    pthread_t ids[MAX_THREADS];
    double results[MAX_THREADS], total = 0;
    work = k;
    pthread_barrier_init(&barrier, NULL, threads);
    for (int t = 0; t < threads; t++) pthread_create(&ids[t], NULL, run, &results[t]);
    for (int t = 0; t < threads; t++) pthread_join(ids[t], NULL), total += results[t];
    pthread_barrier_destroy(&barrier);
    return total;
}

int main(int argc, char **argv) {
    threads = argc > 1 ? atoi(argv[1]) : 1;
    if (threads < 1 || threads > MAX_THREADS) return 2;
    double fma = measure(FMA), cache = measure(CACHE), memory = measure(MEMORY);
    printf("{\"gflops\": %.1f, \"cache_gbs\": %.1f, \"memory_gbs\": %.1f}\n", fma, cache, memory);
    return 0;
}
