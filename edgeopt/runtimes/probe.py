"""A runtime goes in; whether it works in this process comes out, found by running a model of one operator on it."""

from __future__ import annotations

import base64
import tempfile
import zlib
from pathlib import Path

import numpy as np

from edgeopt import runtimes
from edgeopt.errors import EdgeoptError
from edgeopt.formats import FORMATS
from edgeopt.runtimes import Runtime, open_session
from edgeopt.vocabulary import Availability

# Files of one operator, float32 [1, 4]: `output_0 = x + x`, by format; what is compiled for a machine is made there.
_ADD = {
    "tflite": (
        "c-m!BJx{_=6up(I1PEeii~|EPjHUt9#kdf}goF=+#EGOdX*Ertm{JIX@fSE5M@I$+euKZk!O_v5;A}nb^|m45krUoK_nvd#y{`o#>R+`^G%8Yo4o"
        "RaNWxyp##h$<sJp(_$t3tE{zP5-GIAe=!u~JecG%1`ith)gAfT``x9rxa_>^pNd@}*7%-hv>A_DNte^B-ouQ6}~ld=@z>pBDg1(<#TkIVO+?>fO$"
        "5qj%Hnc8qqTU%RaJYw!*4CHxa>xnsvQyqW7eW80Y9-qe}6v<-d*EXCb`N6vrYI>WeMao=q0E4Y$mcO<vNI+C-9W~$1$Jb8no(r>en;9gXzBC6`ui"
        "eBFI5Z)F2EDZ5l{sqB1umZ$<+pT7=Sf9A)!?!J6&PtP+*|@s!%rY<DX2AVeTxV=LZZ!8utI7HqO0$-GPiJ_4%<rdgFVRxgKpY!#oeyY4D90WmRup"
        "dwejoqWrsq38Uc<KP=4f<Y<{TxS>4EHtxT|pOf(=VYz6$$(!Z*M94H^qLulp+e4XW}-^bd`XXU+"
    ),
    "onnx": "c-rG&7h<sT<r3v$tN<b*j{MS+g3^+B10`n1loTQ6#FUgMVUPqL7Y_%c5C<0%2O|)(BuR0>m7>czv2Za6@B#qImkrA",
}


def probe(runtime: Runtime) -> Availability:
    """Opens and runs the small model on `runtime`; the reason says what went wrong and what to try."""
    module = runtimes.module(runtime)
    version = module.version()
    x = np.arange(4, dtype=np.float32).reshape(1, 4)
    with tempfile.TemporaryDirectory() as folder:
        form = runtime.takes[0]
        file = Path(folder) / f"add{FORMATS[form].suffix}"
        try:
            file.write_bytes(model(form) if form in _ADD else module.small_file())
            session = open_session(file, runtime)
            (got,) = session.run({"x": x}).values()
            session.close()
        except EdgeoptError as error:
            return Availability(False, str(error), version)
        except (SystemError, ImportError) as error:  # a native module built for another NumPy
            return Availability(False, f"it cannot be imported: {error}", version)
    if not np.array_equal(got, x + x):
        return Availability(False, f"it computes garbage here: {x.tolist()} + the same gave {got.tolist()}", version)
    return Availability(True, "", version)


def model(form: str = "tflite") -> bytes:
    """Returns the bytes of the small file in a format, a key of `formats.FORMATS`."""
    return zlib.decompress(base64.b85decode(_ADD[form]))
