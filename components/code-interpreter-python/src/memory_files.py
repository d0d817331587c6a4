"""Files in memory: what open(), pathlib and os see of a file system. There is no other."""

import builtins
import errno
import io
import linecache
import os
import posixpath
import sys

MAX_FILES = 1000
MAX_BYTES = 16 << 20

# What `os` asks an operating system for and the files in memory do not answer.
ABSENT = """access chdir chmod chown dup dup2 execv execve fdopen fork fstat fsync ftruncate getcwdb getpid kill link lseek
mkfifo open pipe popen posix_spawn pread pwrite read readlink readv rename renames replace rmdir scandir spawnv statvfs
symlink system truncate utime walk write writev""".split()


# Events of the interpreter before it asks an operating system for something, by how they begin. It tells them also of what its
# own C code does, such as opening a file to show the line of a syntax error.
ASKING = "open", "os.", "socket.", "subprocess."
HARMLESS = "os.putenv", "os.unsetenv"


def absent(*_, **__):
    raise OSError(errno.ENOSYS, "not available in the sandbox")


def audit(event: str, _):
    """Refuses what would end the component: nothing below answers."""
    if event.startswith(ASKING) and event not in HARMLESS:
        absent()


class Folder:
    """A flat tree of files by their path from /."""

    def __init__(self, files: dict[str, bytes]):
        self.before = {self.path(name): content for name, content in files.items()}
        self.files = {name: bytearray(content) for name, content in self.before.items()}

    @staticmethod
    def path(name) -> str:
        return posixpath.normpath(posixpath.join("/", os.fspath(name))).lstrip("/")

    def changed(self) -> dict[str, bytes]:
        return {name: bytes(data) for name, data in self.files.items() if self.before.get(name) != bytes(data)}

    def open(self, file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):
        if not set(mode) <= set("rwaxbt+") or sum(c in "rwax" for c in mode) != 1:
            raise ValueError(f"invalid mode: {mode!r}")
        if isinstance(file, int):
            raise OSError(errno.EBADF, "there are no file descriptors here")
        name = self.path(file)
        kind = next(c for c in mode if c in "rwax")
        if kind == "r" and name not in self.files:
            raise FileNotFoundError(errno.ENOENT, "No such file", str(file))
        if kind == "x" and name in self.files:
            raise FileExistsError(errno.EEXIST, "File exists", str(file))
        if kind in "wx" or name not in self.files:
            if len(self.files) >= MAX_FILES:
                raise OSError(errno.ENOSPC, f"at most {MAX_FILES} files")
            self.files[name] = bytearray()
        raw = Open(self, name, readable=kind == "r" or "+" in mode, writable=kind != "r" or "+" in mode)
        if kind == "a":
            raw.seek(0, io.SEEK_END)
        if "b" in mode:
            return raw
        return io.TextIOWrapper(raw, encoding or "utf-8", errors, newline, write_through=True)

    def install(self):
        """Takes the place of the file system: the component has none, and a call that asked for one would end it."""
        for name in ABSENT:
            if hasattr(os, name):
                setattr(os, name, absent)
        io.FileIO = io.open_code = absent
        sys.addaudithook(audit)
        # Modules come with the component, or not at all; source lines of the library are not there to be shown.
        sys.meta_path[:] = [finder for finder in sys.meta_path if "PathFinder" not in str(finder)]
        linecache.updatecache = lambda *_: []
        linecache.checkcache = lambda *_: None
        builtins.open = io.open = self.open
        os.stat = os.lstat = self.stat
        os.listdir = lambda path=".": sorted({n[len(p):].split("/")[0] for p in [self.inside(path)] for n in self.files if n.startswith(p)})
        os.remove = os.unlink = self.remove
        os.mkdir = os.makedirs = lambda *_, **__: None
        os.getcwd = lambda: "/"
        os.path.exists = lambda path: self.path(path) in self.files or self.is_folder(path)
        os.path.isfile = lambda path: self.path(path) in self.files
        os.path.isdir = self.is_folder
        os.path.getsize = lambda path: len(self.files[self.path(path)])

    def stat(self, path, *_, **__):
        name = self.path(path)
        if name not in self.files and not self.is_folder(path):
            raise FileNotFoundError(errno.ENOENT, "No such file", str(path))
        mode = 0o100644 if name in self.files else 0o040755
        return os.stat_result((mode, 0, 0, 1, 0, 0, len(self.files.get(name, b"")), 0, 0, 0))

    def inside(self, path) -> str:
        name = self.path(path)
        return f"{name}/" if name else ""

    def is_folder(self, path) -> bool:
        start = self.inside(path)
        return not start or any(name.startswith(start) for name in self.files)

    def remove(self, path, *_, **__):
        if self.files.pop(self.path(path), None) is None:
            raise FileNotFoundError(errno.ENOENT, "No such file", str(path))


class Open(io.BufferedIOBase):
    """An open file."""

    def __init__(self, folder: Folder, name: str, readable: bool, writable: bool):
        self.folder, self.name, self.at = folder, name, 0
        self.may_read, self.may_write = readable, writable
        self.data = folder.files[name]

    def readable(self):
        return self.may_read

    def writable(self):
        return self.may_write

    def seekable(self):
        return True

    def read(self, size=-1):
        if not self.may_read:
            raise io.UnsupportedOperation("not readable")
        end = len(self.data) if size is None or size < 0 else self.at + size
        piece = bytes(self.data[self.at : end])
        self.at += len(piece)
        return piece

    read1 = read

    def write(self, piece):
        if not self.may_write:
            raise io.UnsupportedOperation("not writable")
        piece = bytes(piece)
        others = sum(len(data) for data in self.folder.files.values())
        if others + len(piece) > MAX_BYTES:
            raise OSError(errno.ENOSPC, f"at most {MAX_BYTES} bytes in all files")
        if self.at > len(self.data):
            self.data.extend(bytes(self.at - len(self.data)))
        self.data[self.at : self.at + len(piece)] = piece
        self.at += len(piece)
        return len(piece)

    def seek(self, offset, whence=io.SEEK_SET):
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: len(self.data)}[whence]
        if start + offset < 0 or start + offset > MAX_BYTES:
            raise ValueError("seek out of range")
        self.at = start + offset
        return self.at

    def tell(self):
        return self.at

    def truncate(self, size=None):
        del self.data[self.at if size is None else size :]
        return len(self.data)
