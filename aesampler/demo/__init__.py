"""The demo world: pictures and clips of compositional things ("red circle", "striped square") with exact masks.

    names -> pictures and clips (`world`) -> pixels and masks (`paint`, of `shapes`) -> dataset folders (`write`)

48 names, 8 looks x 6 shapes, so that a name can be held out while its look and its shape are known from others
(`names=`). A picture holds 2 to 5 things, some of one name, sometimes a crowd besides; in clips they drift, enter,
leave, cross and hide one another. The first two names of each picture are dealt from a deck: 24 pictures show all 48.

Two choices. Masks are what is visible: a pixel belongs to the last painted thing that covers its centre, and the smooth
edge of the picture is half covered there. All is made from (seed, place) alone, by `Generator.random` and arithmetic
that IEEE 754 fixes to the last bit (no sine, no dot product, no sum over an array): masks and JSON are equal on every
machine; the bytes of the JPEGs depend on the Pillow that writes them.

The default world, 240 pictures and 24 clips of 24 frames, 256 x 192, takes 3 to 4 s on one core and 13 MB.
"""

from aesampler.demo.shapes import NAMES
from aesampler.demo.world import Size
from aesampler.demo.write import World, write_world

__all__ = ["NAMES", "Size", "World", "write_world"]
