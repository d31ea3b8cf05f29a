/* How many threads a process may use: by affinity and by the CPU quotas of the cgroups it is in.
 *
 * /proc/self/cgroup has a line `number:controllers:path` for each hierarchy. Version 2 has no
 * controllers there, and the quota in cpu.max ("max" or microseconds, and the period); version 1
 * names cpu, and has two files. A quota of any group on the way up to the root binds. In a
 * container the path may be one that only the host knows, and then the root is the container's own
 * group.
 */
#define _GNU_SOURCE
#include "threads.h"

#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINE = 4096 };

/* The two numbers of a quota as whole cores, rounded up. */
static int whole_cores(long long quota, long long period) {
    if (quota <= 0 || period <= 0) return INT_MAX;
    long long cores = (quota - 1) / period + 1;
    return cores < INT_MAX ? (int)cores : INT_MAX;
}

/* Reads up to two numbers of a file in a group's folder; how many there were. */
static int read_numbers(const char *folder, const char *name, long long *first, long long *second) {
    char path[2 * LINE + 32];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    int count = fscanf(f, "%lld %lld", first, second); /* "max 100000" has none */
    fclose(f);
    return count > 0 ? count : 0;
}

static int group_quota(const char *folder, int version) {
    long long quota, period, unused;
    if (version == 2)
        return read_numbers(folder, "cpu.max", &quota, &period) == 2 ? whole_cores(quota, period)
                                                                     : INT_MAX;
    int found = read_numbers(folder, "cpu.cfs_quota_us", &quota, &unused) &&
                read_numbers(folder, "cpu.cfs_period_us", &period, &unused);
    return found ? whole_cores(quota, period) : INT_MAX;
}

/* The least quota of the group at `path` below `folder` and of those above it. */
static int least_quota(const char *folder, const char *path, int version) {
    char group[2 * LINE];
    int least = INT_MAX, root = (int)strlen(folder);
    int length = snprintf(group, sizeof group, "%s%s", folder, path);
    while (length >= root && length < (int)sizeof group) {
        group[length] = 0;
        int quota = group_quota(group, version);
        if (quota < least) least = quota;
        do length--;
        while (length > root && group[length] != '/');
    }
    return least;
}

static int names_cpu(char *controllers) {
    char *rest = NULL;
    for (char *c = strtok_r(controllers, ",", &rest); c; c = strtok_r(NULL, ",", &rest))
        if (!strcmp(c, "cpu")) return 1;
    return 0;
}

int fnn_quota_threads(const char *membership, const char *mount) {
    FILE *f = fopen(membership, "r");
    if (!f) return INT_MAX;
    char line[LINE], folder[LINE];
    int least = INT_MAX;
    while (fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        char *controllers = strchr(line, ':'),
             *path = controllers ? strchr(controllers + 1, ':') : 0;
        if (!path) continue;
        *path++ = 0;
        int version = controllers[1] ? 1 : 2, quota = INT_MAX;
        snprintf(folder, sizeof folder, version == 2 ? "%s" : "%s/cpu", mount);
        if (version == 2 || names_cpu(controllers + 1)) quota = least_quota(folder, path, version);
        if (quota < least) least = quota;
    }
    fclose(f);
    return least;
}

static int affinity_count(void) {
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

int fnn_default_threads(void) {
    const char *asked = getenv("FASTNN_NUM_THREADS");
    int n = asked ? atoi(asked) : 0;
    if (n < 1) {
        int quota = fnn_quota_threads("/proc/self/cgroup", "/sys/fs/cgroup");
        n = affinity_count();
        if (quota < n) n = quota;
    }
    return n < 1 ? 1 : n;
}
