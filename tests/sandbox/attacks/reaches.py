"""Programs that answer rightly, but only after they have got hold of something outside.

In capitals: places that test_attacks.py fills in.
"""

REACHES = {
    "reads a file of the home folder": "assert 'key' in open('SECRET').read()",
    "lists the home folder": """
import os
assert os.listdir('HOMEFOLDER')
""",
    "reads through a link": """
import os
os.symlink('SECRET', 'link')
assert 'key' in open('link').read()
""",
    "reads through ..": """
import os
assert 'key' in open('../' * 20 + 'SECRET').read()
""",
    "maps a file": """
import mmap, os
assert b'key' in mmap.mmap(os.open('SECRET', os.O_RDONLY), 0, prot=mmap.PROT_READ)[:]
""",
    "links a file in": """
import os
os.link('SECRET', 'hard')
assert 'key' in open('hard').read()
""",
    "writes outside": "open('HOMEFOLDER/new', 'w').write('x')",
    "writes through a link": """
import os
os.symlink('HOMEFOLDER', 'folder')
open('folder/new', 'w').write('x')
""",
    "makes a folder outside": """
import os
os.mkdir('HOMEFOLDER/new')
""",
    "truncates a file": """
import os
os.truncate('VICTIM', 0)
""",
    "deletes a file": """
import os
os.unlink('VICTIM')
""",
    "moves a file": """
import os
os.rename('VICTIM', 'HOMEFOLDER/new')
""",
    "changes a file's rights": """
import os
os.chmod('VICTIM', 0o777)
""",
    "changes a file's time": """
import os
os.utime('VICTIM', (1, 1))
""",
    "writes into the interpreter": """
import os
open(os.__file__, 'r+').close()
""",
    "connects by TCP": """
import socket
socket.create_connection(('127.0.0.1', PORT), 1)
""",
    "sends by UDP": """
import socket
socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', PORT))
""",
    "connects by a Unix socket": """
import socket
socket.socket(socket.AF_UNIX).connect('HOMEFOLDER/stream')
""",
    "sends by a pair of datagram sockets": """
import socket
a, b = socket.socketpair(type=socket.SOCK_DGRAM)
a.sendto(b'x', 'HOMEFOLDER/datagram')
""",
    "starts a server": """
import socket
socket.create_server(('127.0.0.1', 0))
""",
    "forks": """
import os
if os.fork() == 0: os._exit(0)
""",
    "starts a program": """
import subprocess
assert subprocess.run(['true']).returncode == 0
""",
    "ends a process": """
import os
os.kill(PROCESS, 9)
""",
    "sees a process": """
import os
os.kill(PROCESS, 0)
""",
    "ends all processes": """
import os
os.kill(-1, 0)
""",
    "ends its group": """
import os
os.killpg(0, 0)
""",
    "signals by the owner of a pipe": """
import fcntl, os, signal
r, w = os.pipe()
fcntl.fcntl(r, 8, PROCESS)
fcntl.fcntl(r, 10, 9)
fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC)
os.write(w, b'x')
""",
    "lowers another's limits": """
import resource
resource.prlimit(PROCESS, resource.RLIMIT_NOFILE, (0, 0))
""",
    "lowers another's priority": """
import os
os.setpriority(os.PRIO_PROCESS, PROCESS, 19)
""",
    "moves another to one core": """
import os
os.sched_setaffinity(PROCESS, {0})
""",
    "reads another's environment": "assert open('/proc/PROCESS/environ', 'rb').read()",
    "reads another's command": "assert b'sleep' in open('/proc/PROCESS/cmdline', 'rb').read()",
    "traces a process": """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def must(result):
 if result < 0: raise OSError(ctypes.get_errno())
must(libc.ptrace(16, PROCESS, 0, 0))
""",
    "reads another's memory": """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def must(result):
 if result < 0: raise OSError(ctypes.get_errno())
must(libc.syscall(310, PROCESS, 0, 0, 0, 0, 0))
""",
    "takes a file of another process": """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def must(result):
 if result < 0: raise OSError(ctypes.get_errno())
must(libc.syscall(434, PROCESS, 0))
""",
    "outlives its parent": """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def must(result):
 if result < 0: raise OSError(ctypes.get_errno())
must(libc.prctl(1, 0, 0, 0, 0))
""",
    "enters a user namespace": """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def must(result):
 if result < 0: raise OSError(ctypes.get_errno())
must(libc.unshare(0x10000000))
""",
    "mounts": """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def must(result):
 if result < 0: raise OSError(ctypes.get_errno())
must(libc.mount(b'/', b'.', None, 0x5000, None))
""",
    "changes its root": """
import os
os.mkdir('a')
os.chroot('a')
""",
    "makes a memory file": """
import os
os.memfd_create('x')
""",
    "makes shared memory": """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def must(result):
 if result < 0: raise OSError(ctypes.get_errno())
must(libc.shmget(0, 1 << 20, 0o600))
""",
    "has the user's environment": """
import os
assert 'USER_KEY' in os.environ
""",
    "lifts its memory limit": """
import resource
resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))
""",
    "writes to the terminal": """
import os
os.write(os.open('/dev/tty', os.O_RDWR), b'x')
""",
}

# These do no harm, so that they are also run without protection, where they must win.
HARMLESS = [
    "reads a file of the home folder",
    "lists the home folder",
    "reads through a link",
    "reads through ..",
    "maps a file",
    "connects by TCP",
    "connects by a Unix socket",
    "sees a process",
    "sends by UDP",
    "sends by a pair of datagram sockets",
    "starts a server",
    "forks",
    "starts a program",
    "traces a process",
    "reads another's command",
    "outlives its parent",
    "makes a memory file",
    "makes shared memory",
    "ends its group",
    "takes a file of another process",
    "reads another's memory",
]
