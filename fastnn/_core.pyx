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
        int64_t batch, m, n, k, a_rs, a_cs, b_rs, b_cs, c_rs

ctypedef union Slot:
    uintptr_t pointer
    int64_t integer
    double real

cdef struct Step:
    fnn_kernel run
    int64_t first  # of its slots

cdef struct Pointer:  # slots[slot] = base of its space + offset (+ iteration * stride of the space)
    int64_t slot
    int64_t offset
    int next  # of the same space, -1 at the end

cdef struct Space:
    uintptr_t base
    int64_t stride  # bytes it advances by at each iteration of one run
    int first       # Pointer
    int64_t nbytes  # an array's required size; -1 for a Memory
    int typenum
    bint read, written
    int64_t seen    # the memory's state when the prologue last read it


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

    That is: where shapes or types do not fit, out overlaps or is not dense, or packing is worth it.
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
    if table.size[kernel](&g) != 0:
        return False
    cdef int status
    with nogil:
        status = table.run[kernel](&g)
    if status != FNN_OK:
        raise KernelError(status, 0, 0)
    return True


# --- memory -------------------------------------------------------------------------------------

cdef class Memory:
    """A block of aligned memory, zeroed, that programs address and arrays may view.

    ensure() makes it larger (its content is lost and undefined: an arena), which is refused while
    arrays view it.
    """

    cdef void *data
    cdef readonly int64_t nbytes
    cdef readonly bint viewed
    cdef readonly object lock  # held while a program that uses this memory as its arena runs
    cdef object runner         # the thread that holds it
    cdef Memory _kept
    cdef int64_t owner         # the program whose prologue this block, an arena's `kept`, holds
    cdef int64_t writes        # programs that have written here, and views that were made
    cdef int views             # that are still alive
    cdef object __weakref__

    def __cinit__(self, int64_t nbytes=0):
        self.lock = threading.Lock()
        self._allocate(nbytes)
        with nogil:
            memset(self.data, 0, nbytes)

    def __dealloc__(self):
        free(self.data)

    cdef int _allocate(self, int64_t nbytes) except -1:
        if nbytes < 0:
            raise ValueError(f"nbytes: expected at least 0, got {nbytes}")
        cdef void *data = fnn_allocate(nbytes)
        if data == NULL:
            raise MemoryError(f"cannot allocate {nbytes} bytes")
        free(self.data)
        self.data, self.nbytes = data, nbytes
        self.owner = 0
        return 0

    cdef int64_t state(self) noexcept:
        """A number that changes whenever someone may have written here; -1 if someone may now."""
        return self.writes if self.views == 0 else -1

    @property
    def kept(self):
        """The block beside an arena where a program's prologue leaves its results."""
        if self._kept is None:
            self._kept = Memory(0)
        return self._kept

    cdef int acquire(self) except -1:
        """Wait for the lock; RuntimeError where this thread would wait for itself."""
        thread = threading.get_ident()
        if self.runner == thread:
            raise RuntimeError("a custom op's function cannot run the model that it is a part of, "
                               "nor other ops at once while it is called on arrays itself")
        self.lock.acquire()
        self.runner = thread
        return 0

    cdef int release(self) except -1:
        self.runner = None
        self.lock.release()
        return 0

    def ensure(self, int64_t nbytes):
        """Make it at least nbytes large."""
        if nbytes > self.nbytes:
            if self.viewed:
                raise RuntimeError("memory that arrays view cannot move")
            self._allocate(nbytes)

    def view(self, int64_t offset, shape, dtype):
        """A writable array of `shape` and `dtype` over the bytes from `offset` on."""
        cdef cnp.ndarray array
        cdef cnp.dtype descr = cnp.dtype(dtype)
        cdef cnp.npy_intp dims[32]
        cdef int64_t size = descr.itemsize
        cdef int ndim = len(shape)
        for i in range(ndim):
            dims[i] = shape[i]
            size *= dims[i]
        if offset < 0 or offset + size > self.nbytes:
            raise ValueError(
                f"offset: {offset} + {size} bytes lie outside the {self.nbytes} there are")
        array = cnp.PyArray_SimpleNewFromData(
            ndim, dims, descr.type_num, <char *>self.data + offset)
        cdef Lease lease = Lease(self)
        Py_INCREF(lease)
        PyArray_SetBaseObject(array, lease)
        self.viewed = True
        return array


@cython.no_gc_clear
cdef class Lease:
    """The base of an array over a Memory: it keeps the Memory, which counts the living ones."""

    cdef Memory memory

    def __cinit__(self, Memory memory not None):
        self.memory = memory
        memory.views += 1
        memory.writes += 1

    def __dealloc__(self):
        self.memory.views -= 1


# --- programs -----------------------------------------------------------------------------------

cdef int64_t programs_made = 0


cdef class Program:
    """A list of kernel calls over spaces of memory; see the module's docstring."""

    cdef readonly int bits
    cdef readonly str isa
    cdef int isa_number
    cdef const fnn_table *table
    cdef Step *steps
    cdef int count, step_room
    cdef Slot *slots
    cdef int64_t slot_count, slot_room
    cdef Pointer *pointers
    cdef int pointer_count, pointer_room
    cdef Space *spaces
    cdef int space_count
    cdef list memories  # by space; None for an array
    cdef list owners    # of foreign functions
    cdef Memory arena
    cdef int prologue   # the number of its steps
    cdef int64_t number

    def __cinit__(self, int bits, Memory arena):
        self.bits = bits
        self.isa = fnn_isa_name(current_isa).decode()
        self.isa_number = current_isa
        self.table = fnn_isa_table(current_isa, bits)
        self.memories = []
        self.owners = []
        self.arena = arena
        global programs_made
        programs_made += 1
        self.number = programs_made

    def __dealloc__(self):
        PyMem_Free(self.steps)
        PyMem_Free(self.slots)
        PyMem_Free(self.pointers)
        PyMem_Free(self.spaces)

    def __len__(self):
        return self.count

    cdef int _new_space(self, memory, int64_t nbytes, int typenum) except -1:
        cdef Space *spaces = <Space *>PyMem_Realloc(
            self.spaces, (self.space_count + 1) * sizeof(Space))
        if spaces == NULL:
            raise MemoryError()
        self.spaces = spaces
        self.spaces[self.space_count] = Space(0, 0, -1, nbytes, typenum, False, False, -1)
        self.memories.append(memory)
        self.space_count += 1
        return self.space_count - 1

    def memory_space(self, Memory memory not None):
        """A new space over `memory`; returns its number."""
        return self._new_space(memory, -1, -1)

    def array_space(self, int64_t nbytes, dtype):
        """A new space that run() binds to an array of `dtype` and at least nbytes."""
        return self._new_space(None, nbytes, (<cnp.dtype>cnp.dtype(dtype)).type_num)

    def add(self, str kernel, dict fields, int bits=0):
        """Append a step: pointers are (space, offset in bytes) or None, the rest numbers.

        bits: 32 or 64 where the step moves elements of another size than the program's floats.
        """
        cdef int k = find_kernel(kernel)
        cdef int64_t width = check_fields(k, fields)
        cdef int f
        cdef const fnn_signature *sig = &fnn_signatures[k]
        self._reserve(width)
        cdef Slot *slots = self.slots + self.slot_count
        memset(slots, 0, width * sizeof(Slot))
        fill_scalars(k, fields, slots)
        for name, value in fields.items():
            f = (<dict>field_ids[k])[name]
            if sig.fields[f].kind < FNN_KIND_INT and value is not None:
                space, offset = value
                self._add_pointer(space, self.slot_count + f, offset)
                if sig.fields[f].kind == FNN_KIND_OUT:
                    self.spaces[<int>space].written = True
        cdef const fnn_table *table = self.table
        if bits and bits != self.bits:
            table = fnn_isa_table(self.isa_number, bits)
        self.steps[self.count] = Step(table.run[k], self.slot_count)
        self.count += 1
        self.slot_count += width

    def add_foreign(self, uintptr_t function, tuple fields, owner):
        """Append a call of `int function(const void *args)`, made elsewhere.

        args points to the fields, eight bytes each: a pointer for (space, offset), an int64 or a
        double for a number. It returns 0, or FOREIGN where it failed. `owner` is kept as long as
        the program, so that the function stays where it is.
        """
        if function == 0:
            raise ValueError("function: expected the address of a function, got 0")
        cdef int64_t width = len(fields)
        cdef Slot *slots
        self._reserve(width)
        slots = self.slots + self.slot_count
        for i, value in enumerate(fields):
            if isinstance(value, tuple):
                space, offset = value
                slots[<int>i].pointer = 0
                self._add_pointer(space, self.slot_count + i, offset)
                self.spaces[<int>space].written = True
            elif isinstance(value, float):
                slots[<int>i].real = value
            else:
                slots[<int>i].integer = value
        self.owners.append(owner)
        self.steps[self.count] = Step(<fnn_kernel>function, self.slot_count)
        self.count += 1
        self.slot_count += width

    def end_prologue(self):
        """Let the steps so far be the prologue: their results lie in the arena's `kept` block.

        What they read besides must not be written by the steps that follow.
        """
        cdef int i
        self.prologue = self.count
        for i in range(self.space_count):
            self.spaces[i].read = (self.memories[i] is not None and self.spaces[i].first >= 0
                                   and not self.spaces[i].written)

    cdef bint _prologue_stands(self) noexcept:
        """True if nobody wrote to what the prologue read, nor another program over its results."""
        cdef int i
        cdef int64_t state
        cdef bint stands = self.arena._kept is not None and self.arena._kept.owner == self.number
        for i in range(self.space_count):
            if self.spaces[i].read:
                state = (<Memory>self.memories[i]).state()
                stands = stands and state >= 0 and state == self.spaces[i].seen
                self.spaces[i].seen = state
        return stands

    cdef int _reserve(self, int64_t width) except -1:
        cdef void *memory
        if self.count == self.step_room:
            memory = PyMem_Realloc(self.steps, (2 * self.step_room + 16) * sizeof(Step))
            if memory == NULL:
                raise MemoryError()
            self.steps, self.step_room = <Step *>memory, 2 * self.step_room + 16
        if self.slot_count + width > self.slot_room:
            memory = PyMem_Realloc(self.slots, (2 * self.slot_room + width) * sizeof(Slot))
            if memory == NULL:
                raise MemoryError()
            self.slots, self.slot_room = <Slot *>memory, 2 * self.slot_room + width
        return 0

    cdef int _add_pointer(self, int space, int64_t slot, int64_t offset) except -1:
        cdef void *memory
        if not 0 <= space < self.space_count:
            raise ValueError(f"space: no space {space}")
        if self.pointer_count == self.pointer_room:
            memory = PyMem_Realloc(self.pointers, (2 * self.pointer_room + 64) * sizeof(Pointer))
            if memory == NULL:
                raise MemoryError()
            self.pointers, self.pointer_room = <Pointer *>memory, 2 * self.pointer_room + 64
        self.pointers[self.pointer_count] = Pointer(slot, offset, self.spaces[space].first)
        self.spaces[space].first = self.pointer_count
        self.spaces[space].base = 0  # to be patched at the next run
        self.pointer_count += 1
        return 0

    cdef void _patch(self, int space, uintptr_t base) noexcept nogil:
        cdef int p = self.spaces[space].first
        while p >= 0:
            self.slots[self.pointers[p].slot].pointer = base + self.pointers[p].offset
            p = self.pointers[p].next
        self.spaces[space].base = base

    cdef int _bind(self, tuple arrays) except -1:
        """Points every space to its memory, or to the next of `arrays`."""
        cdef int given = 0
        cdef int i
        cdef uintptr_t base
        cdef cnp.ndarray array
        for i in range(self.space_count):
            memory = self.memories[i]
            if memory is not None:
                base = <uintptr_t>(<Memory>memory).data
            else:
                if given >= len(arrays):
                    raise TypeError(f"arrays: expected more than {len(arrays)}")
                array = <cnp.ndarray?>arrays[given]
                self._check_array(i, given, array)
                base = <uintptr_t>cnp.PyArray_DATA(array)
                given += 1
            if base != self.spaces[i].base:
                self._patch(i, base)
        if given != len(arrays):
            raise TypeError(f"arrays: expected {given}, got {len(arrays)}")
        return 0

    cdef int _check_array(self, int space, int given, cnp.ndarray array) except -1:
        if cnp.PyArray_TYPE(array) != self.spaces[space].typenum:
            raise TypeError(f"arrays[{given}]: wrong dtype {array.dtype}")
        if not cnp.PyArray_ISCARRAY_RO(array):
            raise TypeError(f"arrays[{given}]: expected a C-contiguous, aligned array")
        if cnp.PyArray_NBYTES(array) < self.spaces[space].nbytes:
            raise ValueError(f"arrays[{given}]: expected {self.spaces[space].nbytes} bytes, "
                             f"got {cnp.PyArray_NBYTES(array)}")
        return 0

    def run(self, tuple arrays, int64_t iterations=1, strides=None, timings=None):
        """Bind `arrays` to the array spaces, in order, and run all steps `iterations` times.

        strides: {space: bytes it advances by at each iteration}; the caller answers for the bounds.
        timings: a float64 array of len(self) that the nanoseconds of each step are added to.
        Raises KernelError; the steps before the failing one have run.
        """
        cdef int64_t done = 0
        cdef int failed = -1, status = FNN_OK, i
        cdef int start = 0
        cdef Memory kept
        cdef double *clock = NULL
        cdef int moving = 0
        if timings is not None:
            if timings.dtype != "float64" or len(timings) < self.count:
                raise ValueError("timings: expected one float64 for each step")
            clock = <double *>cnp.PyArray_DATA(<cnp.ndarray?>timings)
        self.arena.acquire()
        try:
            self._bind(arrays)
            for i in range(self.space_count):
                self.spaces[i].stride = 0
            if strides is not None:
                for space, stride in strides.items():
                    self.spaces[<int>space].stride = stride
                    moving = 1
            if self.prologue > 0:
                start = self.prologue if self._prologue_stands() else 0
                kept = self.arena.kept
                kept.owner = 0
            with nogil:
                while done < iterations:
                    if moving and done > 0:
                        self._advance()
                    failed = self._once(start, &status, clock)
                    if failed >= 0:
                        break
                    start = self.prologue
                    done += 1
            if self.prologue > 0 and done > 0:
                kept.owner = self.number
        finally:
            for i in range(self.space_count):
                if self.spaces[i].written and self.memories[i] is not None:
                    (<Memory>self.memories[i]).writes += 1
            self.arena.release()
        if failed >= 0:
            raise KernelError(status, failed, done)

    cdef void _advance(self) noexcept nogil:
        cdef int i
        for i in range(self.space_count):
            if self.spaces[i].stride != 0:
                self._patch(i, self.spaces[i].base + self.spaces[i].stride)

    cdef int _once(self, int first, int *status, double *clock) noexcept nogil:
        """One pass through the steps from `first` on; the number of the step that failed, or -1."""
        cdef int i
        cdef long long start = 0
        for i in range(first, self.count):
            if clock != NULL:
                start = fnn_now()
            status[0] = self.steps[i].run(self.slots + self.steps[i].first)
            if clock != NULL:
                clock[i] += fnn_now() - start
            if status[0] != FNN_OK:  # or below: the rest is left out
                return i if status[0] > FNN_OK else -1
        return -1
