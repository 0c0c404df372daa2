"""Programs that give wrong answers and go for the verdict. The tests want 42 + i of `answer(i)`."""

CHEATS = {
    "os._exit(0) at once": """
import os
os._exit(0)
""",
    "os._exit(0) in the call": """
import os
def answer(i): os._exit(0)
""",
    "sys.exit(0) at once": """
import sys
sys.exit(0)
""",
    "sys.exit(0) in the call": """
import sys
def answer(i): sys.exit(0)
""",
    "raises KeyboardInterrupt": "def answer(i): raise KeyboardInterrupt",
    "raises an error that cannot be shown": """
class E(BaseException):
 def __str__(self): raise self
def answer(i): raise E
""",
    "__eq__ says yes": """
class Yes:
 def __eq__(self, other): return True
 __hash__ = None
def answer(i): return Yes()
""",
    "an int whose __eq__ says yes": """
class Yes(int):
 def __eq__(self, other): return True
def answer(i): return Yes()
""",
    "a class whose class says yes": """
class Meta(type):
 def __eq__(self, other): return True
 def __hash__(self): return 1
class Yes(metaclass=Meta): pass
def answer(i): return Yes
""",
    "a proxy for __class__": """
class Yes:
 __class__ = property(lambda self: int)
 def __eq__(self, other): return True
def answer(i): return Yes()
""",
    "frame walk for the secret": """
import sys, os
frame = sys._getframe()
while frame:
 for place in (frame.f_locals, frame.f_globals):
  for name, value in list(place.items()):
   if 'fd' in name and isinstance(value, int):
    try: os.write(value, b'{"outcome": "finished", "got": [], "exceptions": [], "detail": "", "secret": ""}')
    except OSError: pass
 frame = frame.f_back
os._exit(0)
""",
    "reads every pipe and forges": """
import json, os
found = b''
for fd in range(3, 64):
 try:
  os.set_blocking(fd, False)
  found += os.read(fd, 64)
 except OSError: pass
report = {"outcome": "finished", "got": [], "exceptions": [], "detail": "", "secret": found.decode()}
for fd in range(3, 64):
 try: os.write(fd, json.dumps(report).encode())
 except OSError: pass
os._exit(0)
""",
    "forges results ahead": r"""
import os
for fd in range(3, 64):
 try: os.write(fd, b'["value", true, null]\n' * 99)
 except OSError: pass
def answer(i): return 41
""",
    "breaks the protocol": r"""
import os
for fd in range(3, 64):
 try: os.write(fd, b'[' * 9999 + b'\n')
 except OSError: pass
def answer(i): return 41
""",
    "looks for the tests with gc": """
import gc
hits = [o for o in gc.get_objects() if isinstance(o, dict) and 'assert ' + 'answer' in repr(o)[:9999]]
assert hits
def answer(i): return 42 + i
""",
    "reads the tests from its files": """
import os
text = b''
for fd in range(3, 64):
 try: text += os.pread(fd, 9999, 0)
 except OSError: pass
assert b'assert ' + b'answer' in text
def answer(i): return 42 + i
""",
    "replaces builtins": """
import builtins
builtins.AssertionError = builtins.all = builtins.abs = builtins.isinstance = lambda *a: True
def answer(i): return 41
""",
    "replaces json": """
import json
json.dumps = json.loads = json.JSONEncoder.encode = lambda *a, **k: '["value", 42, null]'
def answer(i): return 41
""",
    "patches unittest": """
import unittest
unittest.TestCase.assertEqual = unittest.TestCase.run = lambda *a: True
def answer(i): return 41
""",
    "fakes pytest": """
import sys, types
sys.modules['pytest'] = types.ModuleType('pytest')
sys.exitfunc = None
def answer(i): return 41
""",
    "sys.settrace": """
import sys
def trace(frame, event, arg):
 frame.f_trace_lines = False
 return trace
sys.settrace(trace)
def answer(i): return 41
""",
    "sys.excepthook": """
import sys, os
sys.excepthook = lambda *a: os._exit(0)
sys.displayhook = sys.excepthook
def answer(i): return 41
""",
    "atexit": """
import atexit, os
atexit.register(os._exit, 0)
def answer(i): return 41
""",
    "a thread that exits": """
import threading, os, time
threading.Thread(target=lambda: (time.sleep(.1), os._exit(0))).start()
def answer(i): time.sleep(9)
""",
    "calls a lent object for more": """
class A:
 def __getattr__(self, name): return lambda *a: True
def answer(i): return A()
""",
    "an endless iterator": """
import itertools
def answer(i): return itertools.count()
""",
    "an answer without end": "def answer(i): return 'x' * (64 << 20)",
    "a deep answer": """
def answer(i):
 x = []
 for _ in range(100000): x = [x]
 return x
""",
    "ends itself": """
import os, signal
os.kill(os.getpid(), signal.SIGKILL)
""",
    "stops itself": """
import os, signal
os.kill(os.getpid(), signal.SIGSTOP)
""",
    "crashes": """
import ctypes
ctypes.string_at(0)
""",
    "defines nothing": "x = 1",
    "says wrong": "def answer(i): return 41",
}
