"""Builds the C kernels, once per instruction set and float type, and the Cython core over them.

Each file of kernels/body is compiled with `-include isa/NAME.h -DFNN_BITS=32|64` and that ISA's
flags; the dispatcher and the thread pool once, for the baseline. An object is made again when its
source, a header it read (from the compiler's depfile) or its command line changed. An instruction set
whose flags the compiler does not know is left out with a message; FASTNN_BUILD_ISA=avx2,... builds only
some, for a quick look while working on a kernel.
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
KERNELS = ROOT / "kernels"

ISA_FLAGS = {
    "x86_64": {
        "baseline": ["-march=x86-64-v2"],
        "avx2": ["-march=x86-64-v3"],
        "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
    },
    "aarch64": {"neon": ["-march=armv8-a"]},
}
# No -ffast-math: NaN and signed zero behave. Contraction to FMA is on, as it is across the library.
C_FLAGS = [
    *("-std=gnu11", "-O3", "-g0", "-fPIC", "-fvisibility=hidden"),
    *("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
    *("-Wall", "-Wextra", "-Werror=implicit-function-declaration", "-Wno-psabi"),
]


def machine() -> str:
    """The target's architecture under its Linux name."""
    name = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)


class KernelBuild:
    """Compiles kernels/ into a folder of objects, remaking only what changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
        self.isas = {
            name: flags for name, flags in self._candidates().items() if self._knows(flags)
        }
        if not self.isas:
            sys.exit(f"fastnn: {self.compiler[0]} builds no instruction set of {machine()}")

    def _candidates(self) -> dict[str, list[str]]:
        if machine() not in ISA_FLAGS:
            sys.exit(f"fastnn: no kernels for {machine()}; known: {', '.join(ISA_FLAGS)}")
        known = ISA_FLAGS[machine()]
        wanted = os.environ.get("FASTNN_BUILD_ISA", ",".join(known)).split(",")
        return {isa: flags for isa, flags in known.items() if isa in wanted}

    def _knows(self, flags: list[str]) -> bool:
        command = [*self.compiler, *flags, "-x", "c", "-c", "-o", os.devnull, os.devnull]
        known = subprocess.run(command, capture_output=True).returncode == 0
        if not known:
            print(f"fastnn: {self.compiler[0]} does not know {' '.join(flags)}: left out")
        return known

    def objects(self) -> list[str]:
        """Every object's path, up to date."""
        jobs = []
        have = [f"-DFNN_HAVE_{isa.upper()}" for isa in self.isas]
        base = next(iter(self.isas.values()))
        for name in ("dispatch", "threads", "quota"):
            jobs.append((KERNELS / f"{name}.c", f"{name}.o", [*base, *have]))
        for source in sorted((KERNELS / "body").glob("*.c")):
            for isa, flags in self.isas.items():
                header = ["-include", str(KERNELS / "isa" / f"{isa}.h")]
                for bits in (32, 64):
                    out = f"{source.stem}.{isa}.{bits}.o"
                    jobs.append((source, out, [*flags, *header, f"-DFNN_BITS={bits}"]))
        self.folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(lambda job: self._compile(*job), jobs))

    def _compile(self, source: Path, name: str, flags: list[str]) -> str:
        target = self.folder / name
        record = target.with_suffix(".cmd")
        command = [*self.compiler, *C_FLAGS, f"-I{KERNELS}", *flags, "-MMD", "-c", str(source)]
        line = shlex.join([*command, "-o", str(target)])
        if not self._current(target, record, line):
            print(f"fastnn: {name}", flush=True)
            subprocess.run([*command, "-o", str(target)], check=True)
            record.write_text(line)
        return str(target)

    @staticmethod
    def _current(target: Path, record: Path, line: str) -> bool:
        depfile = target.with_suffix(".d")
        if not (target.exists() and depfile.exists() and record.exists()):
            return False
        if record.read_text() != line:
            return False
        sources = shlex.split(depfile.read_text().replace("\\\n", " ").partition(":")[2])
        made = target.stat().st_mtime
        return all(os.path.exists(s) and os.stat(s).st_mtime <= made for s in sources)


class BuildCore(build_ext):
    """build_ext that builds the kernels first and links them into the core."""

    def build_extension(self, ext: Extension) -> None:
        import numpy

        # Not build_temp: an editable install has a new one each time and would compile all again.
        folder = (
            ROOT / "build" / f"temp.{self.plat_name}-{sys.implementation.cache_tag}" / "kernels"
        )
        ext.extra_objects = KernelBuild(folder).objects()
        ext.depends = [*ext.extra_objects, str(KERNELS / "table.h"), str(KERNELS / "threads.h")]
        ext.depends += ["fastnn/_memory.pxi", "fastnn/_program.pxi"]
        ext.include_dirs = [str(KERNELS), numpy.get_include()]
        super().build_extension(ext)


core = Extension(
    "fastnn._core",
    ["fastnn/_core.pyx"],
    define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
    extra_compile_args=["-O2", "-g0"],
    extra_link_args=["-lm", "-pthread"] + (["-s"] if sys.platform == "linux" else []),
)

# The benchmarks are installed too, under a name that is nobody else's.
benchmarks = [f"fastnn_{name}" for name in find_packages(include=["bench*"])]

setup(
    ext_modules=[core],
    cmdclass={"build_ext": BuildCore},
    packages=[*find_packages(include=["fastnn*"]), *benchmarks],
    package_dir={"fastnn_bench": "bench"},
)
