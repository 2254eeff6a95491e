import sys, re, collections
import numpy as np
from actserve_server.kernels import build
from actserve_server.activations.catalogue import find
r=find(sys.argv[1]); op=sys.argv[2]; dt=np.dtype(sys.argv[3])
res=build.translate(build.unit_of(r,op,dt))
a=res.library.get_asm_str()
c=collections.Counter(m.group(1) for m in re.finditer(r"^\s+(v\w+)",a,re.M))
print(c.most_common(60))
