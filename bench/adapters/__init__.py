"""One module a library: how it runs the cases' networks and kernels. Only workers import them.

A module has VERSION and KINDS, {kind of case: class or function}. KINDS[kind](spec, arrays) gives a
run: run.check() does the little that is compared with the other side and returns {name: array};
run.run(n) does n iterations, all finished when it returns, and is what is timed.
"""
