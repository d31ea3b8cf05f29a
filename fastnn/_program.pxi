"""Part of _core.pyx: programs, which are lists of kernel calls over spaces of memory."""

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
