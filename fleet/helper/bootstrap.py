"""The programs that a host's Python is given as text: one runs the helper, one takes it.

On a host an archive lies in ``/var/lib/fleet/helper/NAME/``: ``source``, as it was pushed, and
``code-MAGIC``, what this host's Python made of it. The code file is a SHA-256 of its index, the
index (where each module's code lies, and its SHA-256), and the code objects. What is imported is
checked, each time: a flipped bit is a mismatch, and the archive is pushed again.
"""

from __future__ import annotations

FOLDER = "/var/lib/fleet/helper"

#: Shared by both programs: the loader of code files. ``_sha256`` and ``_sha2`` are CPython's own
#: hashes, which spare a host the import of OpenSSL (4 ms).
LOADER = """\
import sys,os,marshal
try:from _sha256 import sha256
except ImportError:
 try:from _sha2 import sha256
 except ImportError:from hashlib import sha256
E=sys.modules['_frozen_importlib_external'];F=sys.modules['_frozen_importlib']
M=int.from_bytes(E.MAGIC_NUMBER[:2],'little')
class Bad(Exception):pass
def take(path):
 d=os.open(path,os.O_RDONLY|os.O_NOFOLLOW|os.O_CLOEXEC)
 try:
  s=os.fstat(d)
  if s.st_uid!=os.geteuid() or s.st_mode&0o7077 or s.st_nlink!=1:
   raise Bad('not a plain file of root alone: '+path)
  b=b''
  while len(b)<s.st_size:
   c=os.read(d,s.st_size-len(b))
   if not c:break
   b+=c
  return b
 finally:os.close(d)
class Code:
 def __init__(self,path):
  b=take(path);n=int.from_bytes(b[32:36],'big')
  if sha256(b[36:36+n]).digest()!=b[:32]:raise Bad('digest mismatch: '+path)
  self.b,self.p,self.x=b[36+n:],path,marshal.loads(b[36:36+n])
 def find_spec(self,name,path=None,target=None):
  package=name+'.' in self.x
  if package or name in self.x:
   s=F.ModuleSpec(name,self,origin=self.p+'/'+name,is_package=package)
   if package:s.submodule_search_locations=[]
   return s
 def create_module(self,spec):return None
 def exec_module(self,module):
  n=module.__spec__.name;o,l,h=self.x.get(n) or self.x[n+'.'];c=self.b[o:o+l]
  if sha256(c).digest()!=h:raise Bad('digest mismatch: '+n)
  exec(marshal.loads(c),module.__dict__)
"""

RUN = (
    "import sys\n"
    "if sys.version_info<(3,9):\n"
    ' sys.stdout.write(\'{{"fleet":"old","python":"%d.%d"}}\\n\'%sys.version_info[:2]);sys.exit(3)\n'
    + LOADER.replace("{", "{{").replace("}", "}}")
    + """\
H='{folder}/'
try:
 c=Code(H+'{helper}/code-%d'%M);sys.meta_path.insert(0,c)
 for n in c.x:
  if n=='fleet.host.helper':break
 else:raise Bad('no helper')
except (OSError,Bad,ValueError,EOFError,TypeError) as e:
 sys.stdout.write('{{"fleet":"miss"}}\\n');sys.stdout.flush();sys.exit(4)
class Later:
 def find_spec(self,name,path=None,target=None):
  if name=='pyroute2':
   p=Code(H+'{pyroute2}/code-%d'%M);sys.meta_path[0:0]=[p];sys.meta_path.remove(self)
   return p.find_spec(name)
sys.meta_path.insert(1,Later())
sys.stdout.write('{{"fleet":"ready"}}\\n');sys.stdout.flush()
try:
 from fleet.host import helper
except Bad:
 os.unlink(H+'{helper}/code-%d'%M);raise
sys.exit(helper.main('{helper}'))
"""
)

TAKE = (
    LOADER.replace("{", "{{").replace("}", "}}")
    + """\
import json,zlib
def out(**w):
 sys.stdout.write(json.dumps(w)+'\\n');sys.stdout.flush()
os.umask(0o077)
if os.geteuid():out(fleet='refused',reason='not root');sys.exit(3)
if sys.version_info<(3,9):out(fleet='old',python='%d.%d'%sys.version_info[:2]);sys.exit(3)
name='{name}';want={size}
top='/var/lib/fleet'
def folder(path):
 try:os.mkdir(path,0o700)
 except FileExistsError:pass
 s=os.lstat(path)
 if not os.path.isdir(path) or os.path.islink(path) or s.st_uid or s.st_mode&0o077:
  out(fleet='refused',reason=path+' is not a directory of root alone (mode 0700)');sys.exit(3)
def put(path,data):
 t=path+'.%d'%os.getpid()
 d=os.open(t,os.O_WRONLY|os.O_CREAT|os.O_EXCL|os.O_NOFOLLOW|os.O_CLOEXEC,0o600)
 try:
  v=memoryview(data)
  while v:v=v[os.write(d,v):]
  os.fsync(d)
 finally:os.close(d)
 os.rename(t,path)
try:
 folder(top);folder(top+'/helper');here=top+'/helper/'+name;folder(here)
 try:
  data=take(here+'/source')
  if sha256(data).hexdigest()!=name:raise Bad
 except (OSError,Bad):data=None
 if data is None:
  out(fleet='send')
  data=b''
  while len(data)<want:
   c=sys.stdin.buffer.read(want-len(data))
   if not c:break
   data+=c
  if sha256(data).hexdigest()!=name:out(fleet='refused',reason='digest mismatch');sys.exit(3)
  put(here+'/source',data)
 x,b={{}},b''
 parts=[]
 at=0
 for m,s in sorted(json.loads(zlib.decompress(data)).items()):
  c=marshal.dumps(compile(s,m.rstrip('.'),'exec',dont_inherit=True,optimize=0))
  x[m]=(at,len(c),sha256(c).digest());at+=len(c);parts.append(c)
 i=marshal.dumps(x)
 put(here+'/code-%d'%M,sha256(i).digest()+len(i).to_bytes(4,'big')+i+b''.join(parts))
 out(fleet='taken')
except OSError as e:
 out(fleet='refused',reason=str(e));sys.exit(3)
"""
)


def run_text(helper: str, pyroute2: str) -> str:
    """Return the program that runs an archive's helper, or says that it must be pushed first."""
    return RUN.format(folder=FOLDER, helper=helper, pyroute2=pyroute2)


def take_text(name: str, size: int) -> str:
    """Return the program that takes an archive of ``size`` bytes on its standard input."""
    return TAKE.format(name=name, size=size)
