/* A small private pool of pthreads.
 *
 * One job at a time. `state` packs (generation, next task): a worker claims a task by
 * compare-and-swap on it, so a late worker can never run a task of a job that has ended. The
 * generation is odd while the caller rewrites the job's fields, and even while tasks may be
 * claimed. The caller works too, then waits until `done` has counted every task. Idle workers spin
 * a bounded while, then park.
 */
#define _GNU_SOURCE
#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_THREADS = 256, SPINS = 20000, SERIAL_BELOW_NS = 6000 };

static struct {
    pthread_mutex_t owner; /* held while a job runs, or the pool is rebuilt */
    pthread_mutex_t sleep_lock;
    pthread_cond_t wake;
    _Atomic uint64_t state;
    _Atomic(fnn_task) fn;
    _Atomic(void *) ctx;
    _Atomic int64_t tasks;
    _Atomic int64_t done;
    _Atomic int sleepers;
    _Atomic int stopping;
    int started; /* workers running, guarded by owner */
    pthread_t workers[MAX_THREADS];
} pool = {.owner = PTHREAD_MUTEX_INITIALIZER,
          .sleep_lock = PTHREAD_MUTEX_INITIALIZER,
          .wake = PTHREAD_COND_INITIALIZER};

static _Atomic int wanted; /* threads including the caller; 0: not decided yet */
static _Thread_local int inside_task;

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static inline uint32_t generation(uint64_t state) { return (uint32_t)(state >> 32); }

/* Claims and runs tasks of the current job until none is left. */
static void work(void) {
    inside_task = 1;
    uint64_t state = atomic_load_explicit(&pool.state, memory_order_acquire);
    for (;;) {
        if (generation(state) & 1) break;
        fnn_task fn = atomic_load_explicit(&pool.fn, memory_order_relaxed);
        void *ctx = atomic_load_explicit(&pool.ctx, memory_order_relaxed);
        int64_t task = (uint32_t)state;
        if (task >= atomic_load_explicit(&pool.tasks, memory_order_relaxed)) break;
        if (!atomic_compare_exchange_weak_explicit(&pool.state, &state, state + 1,
                                                   memory_order_acq_rel, memory_order_acquire))
            continue;
        fn(ctx, task);
        atomic_fetch_add_explicit(&pool.done, 1, memory_order_release);
        state = atomic_load_explicit(&pool.state, memory_order_acquire);
    }
    inside_task = 0;
}

/* Waits for a generation other than `seen`: spinning, then parked. */
static void wait_for_job(uint32_t seen) {
    for (int spin = 0; spin < SPINS; spin++) {
        uint32_t now = generation(atomic_load_explicit(&pool.state, memory_order_acquire));
        if ((now != seen && !(now & 1)) || atomic_load(&pool.stopping)) return;
        relax();
    }
    pthread_mutex_lock(&pool.sleep_lock);
    atomic_fetch_add(&pool.sleepers, 1);
    while (generation(atomic_load(&pool.state)) == seen && !atomic_load(&pool.stopping))
        pthread_cond_wait(&pool.wake, &pool.sleep_lock);
    atomic_fetch_sub(&pool.sleepers, 1);
    pthread_mutex_unlock(&pool.sleep_lock);
}

static void wake_sleepers(void) {
    if (atomic_load(&pool.sleepers) == 0) return;
    pthread_mutex_lock(&pool.sleep_lock);
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.sleep_lock);
}

static void *worker(void *first_seen) {
    uint32_t seen = (uint32_t)(uintptr_t)first_seen;
    while (!atomic_load(&pool.stopping)) {
        wait_for_job(seen);
        seen = generation(atomic_load_explicit(&pool.state, memory_order_acquire));
        if (seen & 1) seen--; /* being rewritten: come back for the even one */
        work();
    }
    return NULL;
}

static void stop_workers(void) {
    atomic_store(&pool.stopping, 1);
    pthread_mutex_lock(&pool.sleep_lock);
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.sleep_lock);
    for (int i = 0; i < pool.started; i++) pthread_join(pool.workers[i], NULL);
    pool.started = 0;
    atomic_store(&pool.stopping, 0);
}

/* A forked child has the pool's memory but none of its threads. */
static void after_fork_in_child(void) {
    pthread_mutex_init(&pool.owner, NULL);
    pthread_mutex_init(&pool.sleep_lock, NULL);
    pthread_cond_init(&pool.wake, NULL);
    atomic_store(&pool.state, 0);
    atomic_store(&pool.sleepers, 0);
    atomic_store(&pool.stopping, 0);
    pool.started = 0;
    inside_task = 0;
}

static void register_fork_handler(void) { pthread_atfork(NULL, NULL, after_fork_in_child); }

/* Brings the number of workers to threads - 1; a thread that cannot be made is done without. */
static void match_workers(int threads) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, register_fork_handler);
    if (pool.started > threads - 1) stop_workers();
    uint32_t seen = generation(atomic_load(&pool.state));
    while (pool.started < threads - 1) {
        pthread_t *slot = &pool.workers[pool.started];
        if (pthread_create(slot, NULL, worker, (void *)(uintptr_t)seen)) break;
        pool.started++;
    }
}

static void run_serially(int64_t tasks, fnn_task fn, void *ctx) {
    for (int64_t i = 0; i < tasks; i++) fn(ctx, i);
}

void fnn_parallel(int64_t tasks, double cost, fnn_task fn, void *ctx) {
    int threads = fnn_get_threads();
    if (tasks < 2 || threads < 2 || cost < SERIAL_BELOW_NS || inside_task ||
        tasks > (int64_t)UINT32_MAX - MAX_THREADS || pthread_mutex_trylock(&pool.owner)) {
        run_serially(tasks, fn, ctx);
        return;
    }
    if (pool.started != threads - 1) match_workers(threads);
    uint32_t closed = generation(atomic_load(&pool.state)) | 1;
    atomic_store(&pool.state, (uint64_t)closed << 32);
    atomic_store_explicit(&pool.fn, fn, memory_order_relaxed);
    atomic_store_explicit(&pool.ctx, ctx, memory_order_relaxed);
    atomic_store_explicit(&pool.tasks, tasks, memory_order_relaxed);
    atomic_store_explicit(&pool.done, 0, memory_order_relaxed);
    atomic_store(&pool.state, (uint64_t)(closed + 1) << 32);
    wake_sleepers();
    work();
    for (int spin = 0; atomic_load_explicit(&pool.done, memory_order_acquire) < tasks; spin++) {
        relax();
        if (spin > SPINS) sched_yield(); /* a worker lost its core: let it have ours */
    }
    pthread_mutex_unlock(&pool.owner);
}

/* --- how many ------------------------------------------------------------------------------- */

int fnn_get_threads(void) {
    int n = atomic_load_explicit(&wanted, memory_order_relaxed);
    if (n == 0) {
        n = fnn_default_threads();
        if (n > MAX_THREADS) n = MAX_THREADS;
        atomic_store(&wanted, n);
    }
    return n;
}

void fnn_set_threads(int n) {
    atomic_store(&wanted, n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : n);
}

/* --- scratch -------------------------------------------------------------------------------- */

typedef struct {
    size_t bytes;
    void *memory;
} scratch_block;

static pthread_key_t scratch_key;
static _Thread_local scratch_block scratch;

static void free_scratch(void *memory) { free(memory); }
static void make_scratch_key(void) { pthread_key_create(&scratch_key, free_scratch); }

void *fnn_scratch(size_t bytes) {
    if (bytes <= scratch.bytes) return scratch.memory;
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_scratch_key);
    size_t rounded = (bytes + 65535) & ~(size_t)65535;
    void *memory = NULL;
    if (posix_memalign(&memory, 4096, rounded)) return NULL;
    free(scratch.memory);
    scratch = (scratch_block){rounded, memory};
    pthread_setspecific(scratch_key, memory); /* freed when this thread ends */
    return memory;
}
