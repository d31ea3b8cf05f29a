# cython: language_level=3, boundscheck=False, wraparound=False
# cython: initializedcheck=False, freethreading_compatible=False
"""The compiled core: memory, programs of kernel calls, and the way into the thread pool.

A Program is a list of steps, each a kernel of kernels.def with its arguments resolved: integers and
reals are fixed when the step is added; a pointer is (space, offset), and a space is a Memory, or an
array given at each run. run() patches only the pointers whose space has moved, releases the GIL and
calls one kernel after another. The first steps may be a prologue (packed weights, say): they run
again only when someone may have written to what they read.
"""

import os
import threading
import weakref

cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int64_t, uintptr_t
from libc.stdlib cimport free
from libc.string cimport memset

cimport numpy as cnp

cnp.import_array()

cdef extern from "table.h" nogil:
    ctypedef int (*fnn_kernel)(const void *args)
    ctypedef int64_t (*fnn_sizer)(const void *args)
    ctypedef struct fnn_table:
        int64_t lanes
        fnn_kernel *run
        fnn_sizer *size
    ctypedef struct fnn_field:
        const char *name
        int kind
    ctypedef struct fnn_signature:
        const char *name
        const fnn_field *fields
        int count
    int FNN_KERNELS
    int FNN_OK, FNN_BAD_LABEL, FNN_BAD_INDEX, FNN_NO_MEMORY, FNN_FOREIGN, FNN_BAD_LENGTH
    int FNN_KIND_OUT, FNN_KIND_INT, FNN_KIND_REAL
    const fnn_signature fnn_signatures[]
    int fnn_isa_count()
    const char *fnn_isa_name(int isa)
    int fnn_isa_usable(int isa)
    const fnn_table *fnn_isa_table(int isa, int bits)
    const char *fnn_compiler()

cdef extern from "functions.h" nogil:
    int FNN_UNARY_COUNT, FNN_BINARY_COUNT
    const char *fnn_unary_names[]
    const char *fnn_binary_names[]

cdef extern from "threads.h" nogil:
    int fnn_get_threads()
    void fnn_set_threads(int n)
    int fnn_quota_threads(const char *membership, const char *mount)

cdef extern from "numpy/arrayobject.h":
    int PyArray_SetBaseObject(cnp.ndarray array, object base) except -1

cdef extern from *:
    """
    #include <stdlib.h>
    #include <sys/mman.h>
    #include <time.h>
    /* Aligned; large blocks on huge pages where the system has them. */
    static void *fnn_allocate(size_t bytes) {
        void *memory = NULL;
        size_t alignment = bytes >= ((size_t)1 << 21) ? (size_t)1 << 21 : 4096;
        if (posix_memalign(&memory, alignment, bytes ? bytes : 64)) return NULL;
    #ifdef MADV_HUGEPAGE
        if (alignment > 4096) madvise(memory, bytes, MADV_HUGEPAGE);
    #endif
        return memory;
    }
    static long long fnn_now(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return t.tv_sec * 1000000000LL + t.tv_nsec;
    }
    """
    void *fnn_allocate(size_t bytes) nogil
    long long fnn_now() nogil

cdef extern from *:
    """
    #define FNN_DEF "def/gemm.def"
    #include "args.h"
    """
    ctypedef struct fnn_gemm_args:
        const void *a
        const void *b
        void *c
        void *work
        int64_t batch, m, n, k, a_rs, a_cs, b_rs, b_cs, c_rs

ctypedef union Slot:
    uintptr_t pointer
    int64_t integer
    double real


class KernelError(RuntimeError):
    """A kernel refused its data: .status says why, .step which step of the program."""

    def __init__(self, status, step, iteration):
        super().__init__(f"kernel status {status} in step {step}, iteration {iteration}")
        self.status, self.step, self.iteration = status, step, iteration


BAD_LABEL, BAD_INDEX, NO_MEMORY = FNN_BAD_LABEL, FNN_BAD_INDEX, FNN_NO_MEMORY
FOREIGN, BAD_LENGTH = FNN_FOREIGN, FNN_BAD_LENGTH
# Codes of the unary and binary kernels' ops by their names in lower case.
UNARY = {fnn_unary_names[i].decode().lower(): i for i in range(FNN_UNARY_COUNT)}
BINARY = {fnn_binary_names[i].decode().lower(): i for i in range(FNN_BINARY_COUNT)}


# --- instruction sets and threads ---------------------------------------------------------------

cdef int current_isa = -1


def isas():
    """Names of the instruction sets that were built and run on this CPU, the best first."""
    return [fnn_isa_name(i).decode() for i in range(fnn_isa_count()) if fnn_isa_usable(i)]


def set_isa(name):
    """Choose the instruction set for programs made from now on; ValueError names what there is."""
    global current_isa
    for i in range(fnn_isa_count()):
        if fnn_isa_name(i).decode() == name and fnn_isa_usable(i):
            current_isa = i
            return
    raise ValueError(f"isa: expected one of {', '.join(isas())}, got {name!r}")


def isa():
    """The name of the instruction set in use: "avx512", "avx2", "baseline" or "neon"."""
    return fnn_isa_name(current_isa).decode()


def compiler():
    """Name and version of the compiler that built the kernels: "GCC 12.2.0"."""
    return fnn_compiler().decode()


def get_num_threads():
    """The number of threads that kernels use, the caller's included."""
    return fnn_get_threads()


def set_num_threads(n):
    """Use n threads from now on (n >= 1); results do not depend on it. ValueError if n < 1."""
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise ValueError(f"n: expected an int of at least 1, got {n!r}")
    fnn_set_threads(min(n, 1 << 20))


def quota_threads(membership="/proc/self/cgroup", mount="/sys/fs/cgroup"):
    """Whole cores that the cgroups' CPU quotas leave to this process; None without a quota."""
    cdef int cores = fnn_quota_threads(os.fsencode(membership), os.fsencode(mount))
    return cores if cores < 0x7fffffff else None


set_isa(os.environ.get("FASTNN_ISA") or isas()[0])

# --- kernels by name ----------------------------------------------------------------------------

cdef dict kernel_ids = {fnn_signatures[i].name.decode(): i for i in range(FNN_KERNELS)}
cdef list field_ids = [
    {fnn_signatures[i].fields[f].name.decode(): f for f in range(fnn_signatures[i].count)}
    for i in range(FNN_KERNELS)
]


def kernels():
    """{kernel name: (field names)} of every kernel in the table."""
    return {name: tuple(field_ids[i]) for name, i in kernel_ids.items()}


cdef int find_kernel(str name) except -1:
    i = kernel_ids.get(name)
    if i is None:
        raise ValueError(f"kernel: no kernel is called {name!r}")
    return i


cdef int64_t check_fields(int kernel, dict fields) except -1:
    """Refuses unknown and missing fields; pointers may be missing (NULL)."""
    cdef dict known = field_ids[kernel]
    cdef const fnn_signature *sig = &fnn_signatures[kernel]
    for name in fields:
        if name not in known:
            raise TypeError(f"{sig.name.decode()}: no argument is called {name!r}")
    for name, f in known.items():
        kind = sig.fields[<int>f].kind
        if (kind == FNN_KIND_INT or kind == FNN_KIND_REAL) and name not in fields:
            raise TypeError(f"{sig.name.decode()}: argument {name!r} is missing")
    return sig.count


cdef int fill_scalars(int kernel, dict fields, Slot *slots) except -1:
    cdef const fnn_signature *sig = &fnn_signatures[kernel]
    cdef int f
    for name, position in (<dict>field_ids[kernel]).items():
        f = position
        if sig.fields[f].kind == FNN_KIND_INT:
            slots[f].integer = fields[name]
        elif sig.fields[f].kind == FNN_KIND_REAL:
            slots[f].real = fields[name]
    return 0


def call(str kernel, int bits, **fields):
    """Run one kernel at once; pointer arguments are arrays (their memory is used as it lies).

    For tests and single operations: nothing is checked beyond the names. Raises KernelError.
    """
    cdef Slot slots[64]
    cdef int k = find_kernel(kernel)
    cdef const fnn_signature *sig = &fnn_signatures[k]
    cdef int status, f
    memset(slots, 0, sizeof(slots))
    check_fields(k, fields)
    fill_scalars(k, fields, slots)
    for name, value in fields.items():
        f = (<dict>field_ids[k])[name]
        if sig.fields[f].kind < FNN_KIND_INT and value is not None:
            slots[f].pointer = <uintptr_t>cnp.PyArray_DATA(<cnp.ndarray?>value)
    cdef fnn_kernel run = fnn_isa_table(current_isa, bits).run[k]
    with nogil:
        status = run(slots)
    if status > FNN_OK:
        raise KernelError(status, 0, 0)


def lanes(int bits):
    """Elements of the kernels' vectors."""
    return fnn_isa_table(current_isa, bits).lanes


def outputs(str kernel):
    """Names of the pointers that the kernel writes to."""
    cdef int k = find_kernel(kernel)
    cdef const fnn_signature *sig = &fnn_signatures[k]
    return tuple(sig.fields[f].name.decode() for f in range(sig.count)
                 if sig.fields[f].kind == FNN_KIND_OUT)


def buffer_bytes(str kernel, int bits, **fields):
    """Bytes of the kernel's `work` or `packed` buffer for these integers; 0 if it has none."""
    cdef Slot slots[64]
    cdef int k = find_kernel(kernel)
    cdef fnn_sizer size = fnn_isa_table(current_isa, bits).size[k]
    if size == NULL:
        return 0
    memset(slots, 0, sizeof(slots))
    fill_scalars(k, fields, slots)
    return size(slots)


cdef bint plain_matrix(cnp.ndarray x, int typenum, uintptr_t *first, uintptr_t *end) noexcept:
    """Two dimensions of this type, aligned, without negative strides; its bytes' bounds."""
    cdef cnp.npy_intp *dims = cnp.PyArray_DIMS(x)
    cdef cnp.npy_intp *strides = cnp.PyArray_STRIDES(x)
    cdef int64_t size = cnp.PyArray_ITEMSIZE(x)
    if cnp.PyArray_NDIM(x) != 2 or cnp.PyArray_TYPE(x) != typenum:
        return False
    if not cnp.PyArray_ISBEHAVED_RO(x):
        return False
    if dims[0] == 0 or dims[1] == 0 or strides[0] < 0 or strides[1] < 0:
        return False
    first[0] = <uintptr_t>cnp.PyArray_DATA(x)
    end[0] = first[0] + (dims[0] - 1) * strides[0] + (dims[1] - 1) * strides[1] + size
    return strides[0] % size == 0 and strides[1] % size == 0


def product(cnp.ndarray a not None, cnp.ndarray b not None, cnp.ndarray out not None):
    """out = a @ b for matrices that need no plan; False, and nothing done, where they do.

    That is: where shapes or types do not fit, or out overlaps or is not dense.
    """
    cdef int typenum = cnp.PyArray_TYPE(out)
    cdef int kernel = kernel_ids["gemm"], bits = 8 * cnp.PyArray_ITEMSIZE(out)
    cdef uintptr_t first[3]
    cdef uintptr_t end[3]
    cdef fnn_gemm_args g
    if typenum != cnp.NPY_FLOAT and typenum != cnp.NPY_DOUBLE:
        return False
    if not plain_matrix(a, typenum, first, end) or not plain_matrix(b, typenum, first + 1, end + 1):
        return False
    if not plain_matrix(out, typenum, first + 2, end + 2) or not cnp.PyArray_ISCARRAY(out):
        return False
    memset(&g, 0, sizeof(g))
    g.batch, g.m, g.n, g.k = 1, a.shape[0], b.shape[1], a.shape[1]
    if b.shape[0] != g.k or out.shape[0] != g.m or out.shape[1] != g.n:
        return False
    for i in range(2):
        if first[i] < end[2] and first[2] < end[i]:
            return False
    g.a, g.b, g.c = <void *>first[0], <void *>first[1], <void *>first[2]
    g.a_rs, g.a_cs = a.strides[0] // out.itemsize, a.strides[1] // out.itemsize
    g.b_rs, g.b_cs = b.strides[0] // out.itemsize, b.strides[1] // out.itemsize
    g.c_rs = g.n
    cdef const fnn_table *table = fnn_isa_table(current_isa, bits)
    cdef cnp.npy_intp nbytes = table.size[kernel](&g)
    cdef cnp.ndarray work
    if nbytes > 0:  # partial sums
        work = cnp.PyArray_EMPTY(1, &nbytes, cnp.NPY_UINT8, 0)
        g.work = cnp.PyArray_DATA(work)
    cdef int status
    with nogil:
        status = table.run[kernel](&g)
    if status != FNN_OK:
        raise KernelError(status, 0, 0)
    return True


include "_memory.pxi"
include "_program.pxi"
