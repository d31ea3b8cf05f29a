"""Part of _core.pyx: blocks of memory, and the arrays that view them."""

memories = weakref.WeakSet()


def _after_fork():
    """In a forked child: free what threads held that are not there any more."""
    cdef Memory memory
    for memory in list(memories):
        if memory.runner != threading.get_ident():
            memory.lock, memory.runner = threading.Lock(), None
            memory.owner = 0  # what it kept may be half made


os.register_at_fork(after_in_child=_after_fork)


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
        memories.add(self)
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
