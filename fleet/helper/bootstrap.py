"""The programs that a host's Python is given as text: one runs the helper, one takes archives.

On a host an archive lies in ``/var/lib/fleet/helper/NAME/``: ``source``, as it was pushed, and
``code-MAGIC``, what this host's own Python made of it:

    32 bytes   BLAKE2b of the head
     8 bytes   length of the head
    head       marshal of (loader, index, core); the index has place, length and BLAKE2b of each
               module, the core is (name, code) of those that every audit runs, in that order
    modules    marshal of a code object each

What is not of the core is read when it is imported, and checked each time. A flipped bit in the
head is a mismatch: the archive is compiled again, or pushed again where its source is not as it was
pushed either. One in a module has the module compiled from the source on the spot, and the file is
gone for the next.

The core is there because half of an audit's time was importing: one read, one check and one
``marshal.loads`` for all of it, and no finder asked for each, take 3 ms less. Likewise ``posix`` is
imported instead of ``os``, which takes 1 ms, and ``__future__``, a file of its own, nowhere.

BLAKE2b takes half the time of SHA-256, and ``_blake2`` spares a host the import of OpenSSL (4 ms).
The program's text is compiled at every start, so it holds no more than it takes to find and check
the head.
"""

from __future__ import annotations

FOLDER = "/var/lib/fleet/helper"
#: How many archives of a kind a host keeps, the newest among them.
KEPT = 2

_HEAD = """\
import sys,marshal,posix as os
try:from _blake2 import blake2b
except ImportError:from hashlib import blake2b
def hash(b):return blake2b(b,digest_size=32).digest()
def head(path):
 d=os.open(path,os.O_RDONLY|os.O_NOFOLLOW|os.O_CLOEXEC|os.O_NONBLOCK);s=os.fstat(d)
 if s.st_uid!=os.geteuid() or s.st_mode&0o7077 or s.st_nlink!=1:raise OSError(path)
 b=os.pread(d,40,0);n=int.from_bytes(b[32:],'big');h=os.pread(d,min(n,s.st_size),40)
 if len(h)!=n or hash(h)!=b[:32]:raise OSError(path)
 return (d,n+40,path,*marshal.loads(h))
def code(name):
 m=sys.modules['_frozen_importlib_external'].MAGIC_NUMBER
 return '%s/%s/code-%d'%('$FOLDER',name,int.from_bytes(m[:2],'little'))
"""

RUN = (
    """\
import sys
if sys.version_info<(3,9):
 sys.stdout.write('{"fleet":"old","python":"%d.%d"}\\n'%sys.version_info[:2]);sys.exit(3)
"""
    + _HEAD
    + """\
try:h=head(code('$HELPER'))
except (OSError,ValueError,EOFError,TypeError):
 sys.stdout.write('{"fleet":"miss"}\\n');sys.stdout.flush();os._exit(4)
exec(h[3],{'h':h,'head':head,'hash':hash,'pyroute2':code('$PYROUTE2'),'name':'$HELPER'})
"""
)

#: Part of every archive, and compiled on the host into its code file's head; ``h`` is that head.
LOADER = """\
import sys,marshal,gc,posix as os
gc.disable() # a helper lives for seconds, and a collection costs more than it gives back
F=sys.modules['_frozen_importlib']
class Code:
 def __init__(self,d,at,path,loader,index,core):
  self.d,self.at,self.path,self.index=d,at,path,index
  s=os.fstat(d);self.file=(s.st_dev,s.st_ino)
 def find_spec(self,name,path=None,target=None):
  package=name+'.' in self.index
  if package or name in self.index:
   s=F.ModuleSpec(name,self,origin=self.path+'/'+name,is_package=package)
   if package:s.submodule_search_locations=[]
   return s
 def create_module(self,spec):return None
 def open(self):
  try:s=os.fstat(self.d)
  except OSError:return False
  return (s.st_dev,s.st_ino)==self.file
 def exec_module(self,module):
  n=module.__spec__.name;o,l,b=self.index.get(n) or self.index[n+'.']
  if not self.open(): # a watchdog closes whatever it was born with
   self.d=head(self.path)[0]
   if not self.open():raise ImportError(n+': another file is at '+self.path)
  c=os.pread(self.d,l,self.at+o)
  exec(marshal.loads(c) if hash(c)==b else self.mend(n),module.__dict__)
 def mend(self,n):
  import json,bz2
  from hashlib import sha256
  try:os.unlink(self.path)
  except OSError:pass
  p=self.path.rpartition('/')[0]
  try:
   with open(p+'/source','rb') as f:s=bz2.decompress(f.read())
  except (OSError,ValueError) as e:raise ImportError(n+': '+str(e))
  if sha256(s).hexdigest()!=p.rpartition('/')[2]:raise ImportError(n+': digest mismatch in '+p)
  s=json.loads(s);n=n if n in s else n+'.'
  return compile(s[n],n.rstrip('.'),'exec',dont_inherit=True,optimize=2)
class Later:
 def find_spec(self,name,path=None,target=None):
  if name=='pyroute2':
   c=Code(*head(pyroute2));sys.meta_path.insert(0,c)
   return c.find_spec(name)
C=Code(*h)
sys.meta_path[0:0]=[C,Later()]
for n,c in h[5]:
 p=n[-1]=='.';n=n.rstrip('.');a,_,b=n.rpartition('.')
 m=sys.modules[n]=type(sys)(n);m.__loader__=C
 if p:m.__path__=[]
 if a:setattr(sys.modules[a],b,m)
 exec(c,m.__dict__)
h=h[:4]
from fleet.host import helper
sys.stdout.write('{"fleet":"ready"}\\n');sys.stdout.flush()
try:status=helper.main(name)
except SystemExit as e:status=e.code if isinstance(e.code,int) else 1
except BaseException:
 import traceback;traceback.print_exc();status=1
try:sys.stdout.flush();sys.stderr.flush()
except (OSError,ValueError):pass
os._exit(status) # what Python would tidy up at its end, the kernel takes back faster
"""

TAKE = (
    _HEAD
    + """\
import json,bz2,os,__future__
def out(**w):
 sys.stdout.write(json.dumps(w)+'\\n');sys.stdout.flush()
def refuse(reason):
 out(fleet='refused',reason=reason);sys.exit(3)
if sys.version_info<(3,9):
 out(fleet='old',python='%d.%d'%sys.version_info[:2]);sys.exit(3)
if os.geteuid():refuse('not root')
os.umask(0o077)
from hashlib import sha256
name='$NAME';want=$SIZE
def folder(path):
 try:os.mkdir(path,0o700)
 except FileExistsError:pass
 s=os.lstat(path)
 if not os.path.isdir(path) or os.path.islink(path) or s.st_uid or s.st_mode&0o077:
  refuse(path+' is not a directory of root alone (mode 0700)')
def put(path,data):
 t=path+'.%d'%os.getpid()
 if os.path.lexists(t):os.unlink(t)
 d=os.open(t,os.O_WRONLY|os.O_CREAT|os.O_EXCL|os.O_NOFOLLOW|os.O_CLOEXEC,0o600)
 try:
  v=memoryview(data)
  while v:v=v[os.write(d,v):]
  os.fsync(d);os.rename(t,path)
 except BaseException:
  os.unlink(t);raise
 finally:os.close(d)
def pushed(path):
 try:
  d=os.open(path,os.O_RDONLY|os.O_NOFOLLOW|os.O_CLOEXEC|os.O_NONBLOCK)
  with open(d,'rb') as f:return text(f.read())
 except OSError:return None
def text(data):
 try:data=bz2.decompress(data)
 except (OSError,ValueError):return None
 return data if sha256(data).hexdigest()==name else None
def compiled():
 try:
  d,at,_,_,index,_=head(code(name))
  return all(hash(os.pread(d,l,at+o))==b for o,l,b in index.values())
 except (OSError,ValueError,EOFError,TypeError):return False
F='from __future__ import annotations\\n'
def made(m,s): # the flag does what the import says, without the import
 ours=m.startswith('fleet.') and F in s;flag=__future__.annotations.compiler_flag if ours else 0
 return compile(s.replace(F,'\\n',1) if ours else s,m.rstrip('.'),'exec',flag,True,2)
def read(path):
 try:
  with open(path,'rb') as f:return f.read(1<<24)
 except OSError:return b''
def unfinished(): # what journals say that nobody has settled yet
 said=b'';top='$TOP/journal'
 for t in os.listdir(top) if os.path.isdir(top) else ():
  t=top+'/'+t
  if os.path.isdir(t) and not os.path.exists(t+'/outcome'):
   said+=b''.join(read(t+'/'+n) for n in os.listdir(t))
 return said
def prune():
 said=unfinished();old={}
 for n in os.listdir('$FOLDER'):
  p='$FOLDER/'+n
  if n==name or not os.path.isdir(p) or os.path.islink(p) or n.encode() in said:continue
  kind=read(p+'/kind')
  old.setdefault(kind,[]).append((os.stat(p).st_mtime,p))
 for kind,found in old.items():
  for _,p in sorted(found)[:-$KEPT if kind!=b'$KIND' else 1-$KEPT]:
   for f in os.listdir(p):os.unlink(p+'/'+f)
   os.rmdir(p)
try:
 for path in ('$TOP','$FOLDER','$FOLDER/'+name):folder(path)
 here='$FOLDER/'+name
 if compiled():
  os.utime(here);out(fleet='taken');sys.exit(0)
 data=pushed(here+'/source')
 if data is None:
  out(fleet='send')
  data=b''
  while len(data)<want:
   c=sys.stdin.buffer.read(want-len(data))
   if not c:break
   data+=c
  sent=data;data=text(sent)
  if data is None:refuse('what came is not what was announced')
  put(here+'/source',sent);put(here+'/kind',b'$KIND')
 index,parts,at={},[],0
 modules=json.loads(data);loader=modules.pop('')
 core=[(m,made(m,modules.pop(m))) for m in modules.pop('.','').split()]
 for m,s in sorted(modules.items()):
  c=marshal.dumps(made(m,s))
  index[m]=(at,len(c),hash(c));at+=len(c);parts.append(c)
 h=marshal.dumps((compile(loader,'fleet','exec',dont_inherit=True),index,core))
 put(code(name),hash(h)+len(h).to_bytes(8,'big')+h+b''.join(parts))
 prune()
 out(fleet='taken')
except OSError as e:refuse(str(e))
"""
)


def run_text(helper: str, pyroute2: str) -> str:
    """Return the program that runs an archive's helper, or says that it must be pushed first."""
    return _fill(RUN, HELPER=helper, PYROUTE2=pyroute2)


def take_text(name: str, size: int, kind: str = "helper") -> str:
    """Return the program that takes an archive of ``size`` bytes on its standard input.

    Of each ``kind`` of archive a host keeps the last two, and those that journals still need.
    """
    top = FOLDER.rpartition("/")[0]
    return _fill(TAKE, NAME=name, SIZE=str(size), TOP=top, KIND=kind, KEPT=str(KEPT))


def _fill(text: str, **words: str) -> str:
    for word, value in {"FOLDER": FOLDER, **words}.items():
        text = text.replace("$" + word, value)
    return text
