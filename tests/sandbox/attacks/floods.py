"""Programs that answer rightly, but only after they have taken more than they may."""

FLOODS = {
    "memory at once": "x = bytearray(4 << 30)",
    "memory bit by bit": """
x = []
while True: x.append(bytearray(1 << 20))
""",
    "one large file": """
with open('x', 'wb') as file:
 while True: file.write(bytes(1 << 20))
""",
    "many files": """
import itertools
for i in itertools.count():
 with open(str(i), 'wb') as file: file.write(bytes(1 << 20))
""",
    "many empty files": """
import itertools
for i in itertools.count(): open(str(i), 'wb').close()
""",
    "threads": """
import threading, time
threading.stack_size(32768)
while True: threading.Thread(target=time.sleep, args=(60,)).start()
""",
    "open files": """
import os
x = []
while True: x.append(os.open('/dev/null', 0))
""",
    "stdout": """
import os
while True: os.write(1, b'x' * 65536)
""",
    "a loop": "while True: pass",
    "a loop that catches everything": """
while True:
 try:
  while True: pass
 except BaseException: pass
""",
    "a blocked loop": """
import signal, time
for n in range(1, 32):
 try: signal.signal(n, signal.SIG_IGN)
 except OSError: pass
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
time.sleep(60)
""",
    "a regular expression": """
import re
re.match('(a+)+$', 'a' * 40 + 'b')
""",
    "a fork bomb": """
import os
while True: os.fork()
""",
}
